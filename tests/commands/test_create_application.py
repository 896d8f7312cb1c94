"""`create_application`: credentials once, grants at once or by vote, and nothing on a mistake."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from audit.models import Entry
from keys import operations
from keys.models import Approval, Credential, Grant, Principal
from kms_console import identity
from tests.house import House


def created(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    call_command("create_application", *words, "--json")
    printed = capsys.readouterr().out
    return json.loads(printed)


def caller(token: str) -> Any:
    return identity.bearer(f"Bearer {token}", source="127.0.0.1", request_id="a test")


def test_the_token_works_with_what_was_granted_and_nothing_else(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    told = created(capsys, "shop", "--grant", "invoices:encrypt,generate-data-key")
    assert set(told) == {"application", "token", "expires_at", "grants", "pending_approvals"}
    assert told["application"]["name"] == "shop"
    assert told["pending_approvals"] == []
    assert [g["operations"] for g in told["grants"]] == [["encrypt", "generate_data_key"]]
    shop = caller(told["token"])
    sealed = operations.encrypt(shop, "invoices", b"x")
    from keys.errors import Denied

    with pytest.raises(Denied):
        operations.decrypt(shop, "invoices", sealed.ciphertext)


def test_only_a_digest_of_the_token_is_kept(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    token = created(capsys, "shop")["token"]
    row = Credential.objects.get(principal__name="shop")
    assert token not in str(vars(row))
    assert not any(token.encode() in bytes(e.body) for e in Entry.objects.all())
    assert {e.actor_name for e in Entry.objects.filter(object_name="shop")} == {"operator"}


def test_what_needs_a_quorum_becomes_a_request(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.key("patient-health", name="Records")
    told = created(
        capsys, "ward", "--grant", "records:encrypt,decrypt", "--grant", "invoices:encrypt"
    )
    (waiting,) = told["pending_approvals"]
    assert [g["key"] for g in told["grants"]] == ["invoices"]
    request = Approval.objects.get(pk=waiting)
    assert (request.state, request.action, request.requester.name) == (
        "open",
        "create_grant",
        "operator",
    )
    house.approve(waiting)
    assert operations.encrypt(caller(told["token"]), "records", b"x").version == 1


def test_without_json_it_says_the_same_to_a_person(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.key("patient-health", name="Records")
    call_command(
        "create_application",
        "shop",
        *("--grant", "invoices:encrypt,decrypt", "--grant", "records:encrypt"),
        *("--expires", "2099-01-31T12:00:00+01:00"),
    )
    printed = capsys.readouterr().out
    assert "kms_" in printed
    assert "decrypt, encrypt with invoices" in printed
    assert str(Approval.objects.get().id) in printed
    assert "2099-01-31T11:00:00+00:00" in printed
    assert Credential.objects.get(principal__name="shop").expires_at.year == 2099


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--grant", "nothing-here:encrypt"], "There is no such key"),
        (["--grant", "invoices:fly"], "must be one of: certificate_request, decapsulate, decrypt"),
        (["--grant", "invoices:sign"], "for another purpose than sign"),
        (["--grant", "invoices:encrypt", "--grant", "invoices:random"], "must be one of"),
        (["--grant", "invoices"], "is not KEY:operation,operation"),
        (["--grant", ":encrypt"], "is not KEY:operation,operation"),
        (["--grant", "invoices:"], "is not KEY:operation,operation"),
        (["--expires", "tomorrow"], "must be a time like"),
        (["--expires", "2027-01-31T12:00:00"], "lacks its time zone"),
        (["--expires", "2020-01-31T12:00:00Z"], "lies in the past"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_creates_nothing(
    house: House, words: list[str], said: str
) -> None:
    before = Principal.objects.count(), Grant.objects.count(), Credential.objects.count()
    with pytest.raises(CommandError) as refused:
        call_command("create_application", "shop", *words)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert (Principal.objects.count(), Grant.objects.count(), Credential.objects.count()) == before


@pytest.mark.parametrize("name", ["billing", "BILLING", "\u200b", "x" * 200])
def test_a_name_that_is_taken_or_no_name_is_refused(house: House, name: str) -> None:
    before = Principal.objects.count()
    with pytest.raises(CommandError):
        call_command("create_application", name)
    assert Principal.objects.count() == before


def test_a_grant_that_fails_after_all_leaves_no_token_behind(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody destroys the key between the check and the grant: who called knows how things stand."""
    from keys.errors import NotFound
    from kms_console.management.commands import create_application as command

    def gone(*args: Any, **kwargs: Any) -> None:
        raise NotFound("There is no such key.")

    monkeypatch.setattr(command.administration, "create_grant", gone)
    with pytest.raises(CommandError, match="registered and has no credentials"):
        call_command("create_application", "shop", "--grant", "invoices:encrypt")
    assert not Credential.objects.filter(principal__name="shop").exists()
