"""The first run without the worked example: once, then never again."""

from __future__ import annotations

import getpass
import io
import json
import stat
from typing import Any

import pytest
from django.core.management.base import CommandError

from audit.models import Entry
from keys import approvals
from keys.models import Classification, Installation, KeyStore, Principal
from kms_console import presets
from tests.commands.conftest import Folder

GOOD = "a good long passphrase"
PEOPLE = [
    {"name": "Ada", "username": "ada", "role": "administrator", "password": GOOD + " 1"},
    {"name": "Olga", "username": "olga", "role": "officer", "password": GOOD + " 2"},
    {"name": "Otto", "username": "otto", "role": "officer", "password": GOOD + " 3"},
    {"name": "Oona", "username": "oona", "role": "officer", "password": GOOD + " 4"},
]


def plan(folder: Folder, **members: Any) -> str:
    path = folder.path / "plan.json"
    path.write_text(json.dumps({"people": PEOPLE, **members}))
    return str(path)


def nothing_was_made() -> bool:
    return not (
        Installation.objects.exists()
        or KeyStore.objects.exists()
        or Classification.objects.exists()
    ) and {p.kind for p in Principal.objects.all()} == {"service"}


def test_it_makes_people_store_policies_and_the_root_key_and_then_stays_closed(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not folder.root_key.exists()
    printed = folder.run("setup", "--from-json", plan(folder))
    assert stat.S_IMODE(folder.root_key.stat().st_mode) == 0o600
    people = Principal.objects.filter(kind="person")
    assert {p.user.username: p.role for p in people} == {p["username"]: p["role"] for p in PEOPLE}
    for person in PEOPLE:
        assert people.get(name=person["name"]).user.check_password(person["password"])
    assert KeyStore.objects.get().name == presets.FIRST_KEY_STORE["name"]
    assert set(Classification.objects.values_list("name", flat=True)) == {
        c["name"] for c in presets.CLASSIFICATIONS
    }
    entries = Entry.objects.order_by("index")
    assert {e.actor_name for e in entries} == {"operator"}
    assert [e.action for e in entries] == (
        ["set_up", "create_key_store"] + ["create_classification"] * len(presets.CLASSIFICATIONS)
    )
    assert GOOD not in printed
    assert not any(GOOD.encode() in bytes(e.body) for e in entries)
    assert capsys.readouterr().err == "", "three officers are enough; nothing to warn of"

    key, before = folder.root_key.read_bytes(), Entry.objects.count()
    with pytest.raises(CommandError, match="set up already; this door stays closed"):
        folder.run("setup", "--from-json", plan(folder))
    assert (folder.root_key.read_bytes(), Entry.objects.count()) == (key, before)


def test_it_says_where_officers_are_missing(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.run("setup", "--from-json", plan(folder, people=PEOPLE[:2]))
    warned = capsys.readouterr().err
    assert warned.strip() == f"Note: {approvals.shortage()}"
    assert "1 of the 3 officers" in warned


def test_the_plan_may_come_by_standard_input_and_bring_its_own_policies(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {
        "people": PEOPLE[:1],
        "key_store": {"name": "vault", "kind": "software", "title": "Vault"},
        "classifications": [
            {
                "name": "all",
                "title": "All",
                "allowed_specs": ["AES_256"],
                "key_stores": ["vault"],
            }
        ],
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(own)))
    folder.run("setup", "--from-json", "-")
    assert KeyStore.objects.get().title == "Vault"
    assert Classification.objects.get().name == "all"


def test_presets_follow_a_key_store_of_another_name(folder: Folder) -> None:
    folder.run(
        "setup", "--from-json", plan(folder, key_store={"name": "first", "kind": "software"})
    )
    stores = {s.name for c in Classification.objects.all() for s in c.key_stores.all()}
    assert stores == {"first"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("not json", "is not JSON"),
        ("[]", "must be an object"),
        ("{}", "must be an object"),
        ('{"people": [], "more": 1}', "must be an object"),
        ('{"people": [], "key_store": 1}', "key_store must be an object"),
        ('{"people": [], "classifications": [1]}', "a list of objects"),
        ('{"people": []}', "people must be a list"),
        ('{"people": [{"name": "x"}]}', "people must be a list"),
        (json.dumps({"people": PEOPLE[1:]}), "needs an administrator"),
        (json.dumps({"people": [{**PEOPLE[0], "password": "short"}]}), "too short"),
        (json.dumps({"people": [{**PEOPLE[0], "role": "scheduler"}]}), "role must be one of"),
        (json.dumps({"people": [PEOPLE[0], PEOPLE[0]]}), "taken"),
    ],
)
def test_a_wrong_plan_is_refused_in_one_line_and_leaves_nothing(
    folder: Folder, written: str, said: str
) -> None:
    path = folder.path / "plan.json"
    path.write_text(written)
    with pytest.raises(CommandError) as refused:
        folder.run("setup", "--from-json", str(path))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert GOOD not in str(refused.value)
    assert nothing_was_made()


def test_a_plan_that_is_not_there_is_named(folder: Folder) -> None:
    with pytest.raises(CommandError, match=r"/no/such/plan: No such file"):
        folder.run("setup", "--from-json", "/no/such/plan")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_person_is_asked_and_a_weak_or_mistyped_password_is_asked_for_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["", "Ada", "ada", "Olga", "olga", "", "Udo", "udo"])
    passwords = iter(["short", GOOD, GOOD + "!", GOOD, GOOD, GOOD + "2", GOOD + "2", GOOD, GOOD])
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda prompt="": next(typed))
    monkeypatch.setattr(getpass, "getpass", lambda prompt="": next(passwords))
    folder.run("setup")
    assert next(typed, None) is None
    assert next(passwords, None) is None
    people = Principal.objects.filter(kind="person")
    assert {p.name: p.role for p in people} == {
        "Ada": "administrator",
        "Olga": "officer",
        "Udo": "auditor",
    }
    assert people.get(name="Olga").user.check_password(GOOD + "2")
    told = capsys.readouterr().err
    assert "too short" in told
    assert "The two differ." in told


def test_without_a_terminal_nobody_is_asked(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(CommandError, match="--from-json"):
        folder.run("setup")
    assert nothing_was_made()
