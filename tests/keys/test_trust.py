"""What the Proofs page and an entry's page say of the log's word, right or wrong."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from audit import guard
from audit.checkpoints import notes
from audit.checkpoints.signer import Signer
from audit.models import Archive, Checkpoint, Cursor
from keys import administration
from keys.trail import trust
from tests.audit.checkpoints.helpers import witness_vkey
from tests.audit.helpers import attacker
from tests.console.conftest import signed_in_client
from tests.house import House

THEN = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def udo(house: House) -> Client:
    return signed_in_client("udo")


@pytest.fixture
def signed(udo: Client, settings: Any, tmp_path: Path) -> Checkpoint:
    """The log's first checkpoint, signed with the log's own keys."""
    settings.SIGNER_FOLDER = tmp_path / "signer"
    signer = Signer(tmp_path / "signer")
    signer.open()
    assert signer.look(at_once=True).problem == ""
    signer.close()
    return Checkpoint.objects.get()


def page(udo: Client) -> str:
    return udo.get("/proofs").content.decode()


def rewrite(house: House, **columns: object) -> None:
    """Change the checkpoint's row as one who owns the database can."""
    with attacker(house.database) as connection:
        for name, value in columns.items():
            connection.execute(f"UPDATE audit_checkpoint SET {name} = ?", (value,))


def test_what_the_logs_own_key_signed_is_shown_as_verified(
    house: House, udo: Client, signed: Checkpoint
) -> None:
    (found,) = trust.trust(house.udo).newest
    assert found.vouched and not found.wrong and len(found.own) >= 2
    assert "verified" in page(udo)
    assert "with the log’s own key" in udo.get("/audit/0").content.decode()


def test_a_wrong_signature_is_red_on_both_pages(
    house: House, udo: Client, signed: Checkpoint
) -> None:
    first = notes.parse(signed.note).signatures[0]
    other = first.value[:-1] + bytes([first.value[-1] ^ 1])
    forged = notes.Signature(first.name, first.key_id, other).line()
    rewrite(house, note=signed.note.replace(first.line(), forged))
    assert "wrong</span>" in page(udo)
    entry = udo.get("/audit/0").content.decode()
    assert "not signed rightly" in entry and "with the log’s own key" not in entry


def test_a_right_note_does_not_vouch_for_another_root_in_its_row(
    house: House, udo: Client, signed: Checkpoint
) -> None:
    house.honest = False
    rewrite(house, root=b"\0" * 32)
    (found,) = trust.trust(house.udo).newest
    assert found.wrong and not found.vouched
    assert "does not come to the root" in udo.get("/audit/0").content.decode()


def test_a_key_that_only_bears_the_logs_name_makes_nothing_green(
    house: House, udo: Client, signed: Checkpoint, settings: Any, tmp_path: Path
) -> None:
    settings.SIGNER_FOLDER = tmp_path / "nowhere"  # no key of the log is known here
    (found,) = trust.trust(house.udo).newest
    assert found.own and not found.vouched
    entry = udo.get("/audit/0").content.decode()
    assert "no key of the log that is known here signed it" in entry
    assert "with the log’s own key" not in entry


def test_a_log_that_is_smaller_than_remembered_is_told_in_red(
    house: House, udo: Client, settings: Any, tmp_path: Path
) -> None:
    settings.SIGNER_FOLDER, settings.AUDIT_MEMORIES = tmp_path / "signer", []
    settings.SIGNER_FOLDER.mkdir()
    assert "takes no entries" not in page(udo)
    root = base64.b64encode(bytes(32)).decode()
    note = f"log.example/1\n100000\n{root}\n\n— log.example AAAAAAAA\n"
    (settings.SIGNER_FOLDER / "checkpoint").write_text(note)
    guard.forget()
    try:
        guard.look()
        told = page(udo)
    finally:
        guard.forget()
    assert 'role="alert"' in told and "The log takes no entries" in told


def test_streams_archives_witnesses_and_holds_are_listed(
    house: House, udo: Client, signed: Checkpoint, settings: Any, tmp_path: Path
) -> None:
    vkey, log = witness_vkey(tmp_path / "witness"), trust.trust(house.udo).keys[0].text
    settings.WITNESS_POLICY = str(tmp_path / "policy.txt")
    Path(settings.WITNESS_POLICY).write_text(f"log {log}\nwitness w0 {vkey}\nquorum w0\n")
    Cursor.objects.create(stream="siem", next=3, failing_since=THEN, problem="It said no.")
    Cursor.objects.create(stream="lake", next=4, delivered_at=THEN)
    with attacker(house.database):
        pass  # so that a row that nothing was written for can be put there
    Archive.objects.create(
        start=0, end=256, first_at=THEN, last_at=THEN, place="file:///archive", name="0-256.bundle",
        sha256="", archived_at=THEN,
    )  # fmt: skip
    administration.place_hold(
        house.udo, name="lawsuit 7", since="2020-01-01T00:00:00+00:00", reason="court order"
    )
    told = page(udo)
    for words in (
        "Failing", "It said no.", "Delivering", "0-256.bundle", "Not verified yet", "0 to 255",
        "lawsuit 7", "In force", "court order", "0 of 1", f"witness w0 {vkey[:20]}",
    ):  # fmt: skip
        assert words in told, words
