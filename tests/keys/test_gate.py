"""The gate: an entry for every outcome, and nothing leaves where there can't be one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import DataError, connections

from audit import refusals, writer
from audit.models import Entry
from keys import administration, gate, lifecycle, operations, queries, snapshot, targets
from keys.actions import Action
from keys.administration.access import new_principal
from keys.callers import Caller, Kind
from keys.errors import (
    Busy,
    CannotDecrypt,
    Denied,
    Invalid,
    KeyServiceError,
    LogUnavailable,
    NotFound,
    StateForbids,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from keys.gate import Change, record
from keys.models import Grant, Job, Key, KeyStore, KeyVersion, Principal
from keys.states import KeyState, VersionState
from tests.house import House
from tests.processes import eventually, script

ERRORS: list[tuple[str, Callable[[House], Any], type[Exception], str, str]] = [
    ("no grant at all", lambda h: operations.encrypt(h.stranger, "invoices", b""), NotFound, "denied", "no_grant"),
    ("no such key", lambda h: operations.encrypt(h.billing, "nothing", b""), NotFound, "denied", "not_found"),
    ("not granted", lambda h: operations.sign(h.billing, "invoices", b""), Denied, "denied", "no_grant"),
    ("by role", lambda h: operations.encrypt(h.olga, "invoices", b""), Denied, "denied", "no_grant"),
    ("junk", lambda h: operations.decrypt(h.billing, "invoices", b"junk"), CannotDecrypt, "failed", "cannot_decrypt"),
    ("too much", lambda h: operations.encrypt(h.billing, "invoices", bytes(65537)), TooLarge, "failed", "too_large"),
    ("short", lambda h: operations.generate_data_key(h.billing, "invoices", length=8), Invalid, "failed", "invalid"),
    ("no key", lambda h: operations.encrypt(h.billing, "", b""), (NotFound, Denied), "denied", "no_grant"),
    ("random", lambda h: operations.random(h.billing, "", count=0), Invalid, "failed", "invalid"),
]  # fmt: skip


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize(
    ("use", "error", "outcome", "reason"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS]
)
def test_a_use_that_does_not_succeed_leaves_one_entry_that_says_why(
    house: House, use: Callable[[House], Any], error: Any, outcome: str, reason: str
) -> None:
    before = len(house.entries())
    with pytest.raises(error):
        use(house)
    assert len(house.entries()) == before + 1
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == (outcome, reason)


@pytest.mark.each_database
def test_a_use_that_succeeds_leaves_one_entry_with_all_that_matters(house: House) -> None:
    before = len(house.entries())
    who = house.application("billing", source="192.0.2.9")
    operations.encrypt(who, "invoices", b"secret text", context={"patient": "4711"})
    assert len(house.entries()) == before + 1
    entry = house.last_entry()
    assert entry["actor"] == {"kind": "application", "id": str(who.principal_id), "name": "billing"}
    assert (entry["method"], entry["door"], entry["source"]) == ("bearer", "rest", "192.0.2.9")
    assert entry["object"]["version"] == 1
    assert entry["request_id"] == who.request_id
    assert entry["facts"] == {
        "grant": str(Grant.objects.get().id),
        "context": ["patient"],
        "credential": str(who.credential_id),
    }
    body = bytes(Entry.objects.latest("index").body)
    assert b"secret text" not in body and b"4711" not in body


WRONG_CONTEXTS = [["a"], "text", 5, {"a": 1}, {1: "a"}, {"": "x"}, {"a": None}, {"a": {}}]


@pytest.mark.parametrize("context", WRONG_CONTEXTS, ids=repr)
@pytest.mark.parametrize("conditions", [{}, {"a": "1"}], ids=["", "conditional"])
def test_a_context_of_the_wrong_type_is_invalid_and_recorded(
    house: House, context: Any, conditions: dict[str, str]
) -> None:
    if conditions:
        Grant.objects.update(context=conditions)
    before = len(house.entries())
    with pytest.raises((Invalid, Denied)):
        operations.encrypt(house.billing, "invoices", b"x", context=context)
    assert len(house.entries()) == before + 1


STRANGE = [
    "\x00",
    "a\x00b",
    "\ud800",
    "é" * 300,
    "İ",
    "../../etc/passwd",
    "' OR 1=1 --",
    "x" * 100_000,
]


@pytest.mark.each_database
@pytest.mark.parametrize("reference", STRANGE, ids=range(len(STRANGE)))
def test_a_reference_that_names_nothing_is_not_found_whatever_it_is_made_of(
    house: House, reference: str
) -> None:
    for attempt in (
        lambda: operations.encrypt(house.billing, reference, b"x"),
        lambda: administration.rotate_key(house.olga, reference),
        lambda: administration.revoke_grant(house.olga, reference),
        lambda: administration.update_classification(house.ada, reference, title="x"),
        lambda: administration.issue_credential(house.ada, reference),
        lambda: queries.find_key(house.olga, reference),
        lambda: queries.find_principal(house.olga, reference),
    ):
        before = len(house.entries())
        with pytest.raises(NotFound):
            attempt()
        assert len(house.entries()) == before + 1
        assert house.last_entry()["reason"] == "not_found"


@pytest.mark.each_database
@pytest.mark.parametrize("text", STRANGE[:4], ids=range(4))
def test_filters_take_any_text(house: House, text: str) -> None:
    for column in ("text", "classification", "key_store", "state", "spec", "condition"):
        assert queries.list_keys(house.olga, queries.KeyFilters(**{column: text})).rows in (
            [],
            [house.invoices] if column == "condition" else [],
        )
    assert queries.list_approvals(house.olga, state=text).rows == []
    assert queries.list_jobs(house.olga, state=text).rows == []
    for newest_first in (queries.list_approvals, queries.list_jobs, queries.list_grants):
        with pytest.raises(Invalid):
            newest_first(house.olga, after=text)
    queries.list_keys(house.olga, after=text)
    queries.list_principals(house.olga, after=text)


def test_nothing_that_a_request_brings_can_stop_its_entry(house: House) -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = {"a": deep}
    strange: list[Any] = [
        deep,
        1.5,
        2**70,
        {"é": 1},
        "\ud800",
        "x" * 100_000,
        {1: 2},
        b"bytes",
        object(),
    ]
    for value in strange:
        for arguments in ({"labels": value}, {"description": value}, {"reason": value}):
            if value == "\ud800" and "reason" in arguments:
                continue  # prose is cleaned of what can't be printed
            before = len(house.entries())
            with pytest.raises(Invalid):
                administration.update_key(house.olga, "invoices", **arguments)
            assert len(house.entries()) == before + 1, repr(value)[:80]
            assert house.last_entry()["reason"] == "invalid"


@pytest.mark.parametrize("who", ["ada", "udo", "billing", "stranger"])
def test_a_change_by_who_may_not_is_denied_recorded_and_not_made(house: House, who: str) -> None:
    caller: Caller = getattr(house, who)
    with pytest.raises((Denied, NotFound)) as refused:
        administration.disable_key(caller, "invoices")
    assert isinstance(refused.value, NotFound) == (who == "stranger")
    assert house.last_entry()["outcome"] == "denied"
    assert house.last_entry()["actor"]["id"] == str(caller.principal_id)
    assert house.invoices.state == "enabled"


def test_a_read_that_is_refused_leaves_an_entry_and_one_that_is_allowed_none(house: House) -> None:
    before = len(house.entries())
    assert [key.alias for key in queries.list_keys(house.olga).rows] == ["invoices"]
    assert [key.alias for key in queries.list_keys(house.billing).rows] == ["invoices"]
    assert queries.list_keys(house.stranger).rows == []
    assert queries.find_key(house.billing, "invoices").alias == "invoices"
    assert len(house.entries()) == before
    for read in (
        lambda: queries.list_approvals(house.billing),
        lambda: queries.list_principals(house.stranger),
    ):
        with pytest.raises(Denied):
            read()
    with pytest.raises(NotFound):
        queries.find_key(house.stranger, "invoices")
    assert [e["outcome"] for e in house.entries()[before:]] == ["denied"] * 3


# --- bugs of our own


@gate.change(Action.UPDATE_KEY, on=targets.key)
def _broken(change: Change[Key], *, reason: str = "") -> None:
    change.row.description = "half done"
    change.row.save(update_fields=["description"])
    raise ZeroDivisionError("the secret is hunter2")


@pytest.mark.each_database
def test_a_bug_in_a_change_is_recorded_raised_and_leaves_nothing(house: House) -> None:
    with pytest.raises(ZeroDivisionError):
        _broken(house.olga, "invoices")
    assert house.invoices.description == ""
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("failed", "internal_error")
    assert b"hunter2" not in bytes(Entry.objects.latest("index").body)


def test_a_bug_in_a_use_is_recorded_and_raised(house: House, watched: dict[str, Any]) -> None:
    def fail() -> None:
        raise ZeroDivisionError("the secret is hunter2")

    watched["before encrypt"] = fail
    with pytest.raises(ZeroDivisionError):
        operations.encrypt(house.billing, "watched", b"x")
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("failed", "internal_error")


# --- a log that can't be written


@contextlib.contextmanager
def unwritable(house: House) -> Iterator[None]:
    """Have the database refuse every new entry, as a full disk or a lost permission would."""
    if house.database.vendor == "sqlite":
        with contextlib.closing(sqlite3.connect(house.database.path)) as connection:
            connection.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON audit_entry"
                " BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
            )
            connection.commit()
            yield
            connection.execute("DROP TRIGGER refuse")
            connection.commit()
        return
    with psycopg.connect(house.database.url, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE 'the disk is full'; END $$"
        )
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON audit_entry EXECUTE FUNCTION refuse()"
        )
        yield
        connection.execute("DROP TRIGGER refuse ON audit_entry")


def _rows() -> Any:
    models = (Key, KeyVersion, Grant, Job)
    return [list(model.objects.order_by("pk").values()) for model in models]


@pytest.mark.each_database
def test_without_an_entry_no_result_leaves(house: House) -> None:
    sealed = operations.encrypt(house.billing, "invoices", b"x").ciphertext
    before = len(house.entries())
    with unwritable(house):
        for use in (
            lambda: operations.encrypt(house.billing, "invoices", b"x"),
            lambda: operations.decrypt(house.billing, "invoices", sealed),
            lambda: operations.generate_data_key(house.billing, "invoices"),
            lambda: operations.decrypt(house.billing, "invoices", b"junk"),
            lambda: operations.encrypt(house.stranger, "invoices", b"x"),
            lambda: asyncio.run(_aio(house.billing)),
        ):
            with pytest.raises(Unavailable):
                use()
    assert len(house.entries()) == before
    assert operations.decrypt(house.billing, "invoices", sealed).plaintext.reveal() == b"x"


async def _aio(caller: Caller) -> Any:
    return await operations.encrypt.aio(caller, "invoices", b"x")


@pytest.mark.each_database
def test_without_an_entry_no_change_stays(house: House) -> None:
    grant = Grant.objects.get()
    before, entries = _rows(), len(house.entries())
    with unwritable(house):
        for change in (
            lambda: administration.rotate_key(house.olga, "invoices"),
            lambda: administration.disable_key(house.olga, "invoices"),
            lambda: administration.schedule_destruction(house.olga, "invoices"),
            lambda: house.key(),
            lambda: administration.revoke_grant(house.olga, str(grant.id)),
            lambda: house.move(house.invoices, 1, VersionState.SUSPENDED),
            lambda: administration.rotate_key(house.ada, "invoices"),
            lambda: administration.rotate_key(house.olga, "nothing"),
        ):
            with pytest.raises(Unavailable):
                change()
    assert (_rows(), len(house.entries())) == (before, entries)
    administration.rotate_key(house.olga, "invoices")


def test_while_postgresql_is_down_nothing_leaves_and_afterwards_it_goes_on(
    postgresql_house_only: House,
) -> None:
    house = postgresql_house_only
    who, olga, server = house.billing, house.olga, house.database.server
    assert server is not None
    operations.encrypt(who, "invoices", b"x")
    before = _rows()
    server.stop()
    try:
        for attempt in (
            lambda: operations.encrypt(who, "invoices", b"x"),
            lambda: administration.disable_key(olga, "invoices"),
        ):
            with pytest.raises(Unavailable):
                attempt()
    finally:
        connections.close_all()
        server.start()
    assert _rows() == before
    assert operations.encrypt(who, "invoices", b"x").version == 1


@pytest.fixture
def postgresql_house_only(house: House) -> House:
    return house


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "postgresql_house_only" in metafunc.fixturenames:
        metafunc.parametrize("database", ["postgresql"], indirect=True)


# --- what changes between the decision and the entry


@pytest.mark.each_database
@pytest.mark.parametrize("what", ["grant", "credential", "account", "key", "version"])
def test_a_revocation_while_a_use_computes_stops_its_result(
    house: House, watched: dict[str, Any], what: str
) -> None:
    computing, go_on = threading.Event(), threading.Event()
    outcome: list[Any] = []

    def stop() -> None:
        computing.set()
        assert go_on.wait(30)

    def use() -> None:
        try:
            outcome.append(operations.encrypt(who, "watched", b"x"))
        except KeyServiceError as error:
            outcome.append(error)
        finally:
            connections.close_all()

    who = house.billing
    operations.encrypt(who, "watched", b"x")
    entries = house.entries(action="encrypt")
    watched["after encrypt"] = stop
    thread = threading.Thread(target=use)
    thread.start()
    assert computing.wait(30)
    watched.clear()
    if what == "grant":
        row = Grant.objects.get(key__alias="watched")
        administration.revoke_grant(house.olga, str(row.id))
    elif what == "credential":
        administration.revoke_credential(house.ada, str(who.credential_id))
    elif what == "account":
        administration.deactivate_principal(house.ada, "billing")
    elif what == "key":
        administration.disable_key(house.olga, "watched")
    else:
        house.move(Key.objects.get(alias="watched"), 1, VersionState.SUSPENDED)
    go_on.set()
    thread.join(30)
    (result,) = outcome
    refused = {"grant": NotFound, "credential": Unauthenticated, "account": Unauthenticated}
    assert isinstance(result, refused.get(what, StateForbids)), result
    (last,) = house.entries(action="encrypt")[len(entries) :]
    assert last["outcome"] in ("denied", "failed")


@pytest.mark.each_database
def test_a_change_elsewhere_does_not_stop_a_use(house: House, watched: dict[str, Any]) -> None:
    other = house.key()
    calls: list[int] = []

    def rotate_another() -> None:
        calls.append(1)
        thread = threading.Thread(target=_elsewhere, args=(house.olga, str(other.id)))
        thread.start()
        thread.join()

    watched["before encrypt"] = rotate_another
    assert operations.encrypt(house.billing, "watched", b"x").version == 1
    assert calls == [1], "a use that rests on nothing that changed is not computed again"


def _elsewhere(who: Caller, key: str) -> None:
    try:
        administration.rotate_key(who, key)
    finally:
        connections.close_all()


def test_a_rotation_while_a_use_computes_has_it_computed_again(
    house: House, watched: dict[str, Any]
) -> None:
    def rotate() -> None:
        watched.pop("before encrypt", None)
        thread = threading.Thread(target=_elsewhere, args=(house.olga, "watched"))
        thread.start()
        thread.join()

    operations.encrypt(house.billing, "watched", b"x")
    watched["before encrypt"] = rotate
    assert operations.encrypt(house.billing, "watched", b"x").version == 2


SERVER = """
import sys
from keys import operations
from keys.errors import KeyServiceError
from kms_console import identity
for line in sys.stdin:
    try:
        caller = identity.bearer("Bearer " + line.strip(), source="127.0.0.1", request_id="r")
        print("version", operations.encrypt(caller, "invoices", b"x").version, flush=True)
    except KeyServiceError as error:
        print("refused", error.code, flush=True)
"""


@pytest.mark.each_database
def test_a_revocation_here_is_effective_at_once_in_another_process(
    house: House, tmp_path: Path
) -> None:
    other = script(house, SERVER, tmp_path / "server", stdin=subprocess.PIPE)

    def ask() -> str:
        lines = len(other.text.splitlines())
        other.tell(house.token("billing") + "\n")
        return eventually(lambda: other.text.splitlines()[lines:])[0]

    try:
        assert [ask(), ask()] == ["version 1", "version 1"]
        administration.rotate_key(house.olga, "invoices")
        assert ask() == "version 2"
        house.move(house.invoices, 2, VersionState.SUSPENDED)
        assert ask() == "refused state_forbids"
        house.move(house.invoices, 2, VersionState.ACTIVE)
        assert ask() == "version 2"
        grant = Grant.objects.get()
        administration.revoke_grant(house.olga, str(grant.id))
        assert ask() == "refused not_found"
        house.grant("billing", house.invoices, "encrypt")
        assert ask() == "version 2"
        administration.revoke_credential(house.ada, str(house.billing.credential_id))
        assert ask() == "refused unauthenticated"
    finally:
        other.kill()


# --- the snapshot


def test_the_snapshot_forgets_what_a_change_names_and_keeps_the_rest() -> None:
    cache = snapshot.Cache()
    cache.advance(5, None)
    loads: list[str] = []

    def loader(name: str) -> Callable[[], tuple[str, frozenset[str]]]:
        def load() -> tuple[str, frozenset[str]]:
            loads.append(name)
            return name, frozenset({f"key:{name}"})

        return load

    for name in ("a", "b", "a", "b"):
        assert cache.get(name, loader(name)) == name
    assert loads == ["a", "b"]
    cache.advance(6, frozenset({"key:a"}))
    assert (cache.epoch, cache.get("b", None)) == (6, "b")
    with pytest.raises(snapshot.Miss):
        cache.get("a", None)
    cache.advance(6, frozenset({"key:b"}))
    assert cache.get("b", None) == "b", "old news is no news"
    cache.advance(9, None)
    with pytest.raises(snapshot.Miss):
        cache.get("b", None)


def test_a_value_loaded_while_the_epoch_moved_is_not_kept() -> None:
    cache = snapshot.Cache()
    cache.advance(1, None)

    def load() -> tuple[str, frozenset[str]]:
        cache.advance(2, frozenset({"key:a"}))
        return "old", frozenset({"key:a"})

    assert cache.get("a", load) == "old"
    with pytest.raises(snapshot.Miss):
        cache.get("a", None)


def test_what_is_not_there_is_not_remembered_as_missing(house: House) -> None:
    assert snapshot.key("later") is None
    house.key(alias="later")
    assert snapshot.key("later") is not None


def test_the_snapshot_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "LIMIT", 10)
    cache = snapshot.Cache()
    cache.advance(1, None)
    for n in range(100):
        cache.get(str(n), lambda: (1, frozenset({"key:x"})))
    assert len(cache._values) <= 10


def test_the_epoch_is_the_logs(house: House) -> None:
    before = writer.epoch()
    operations.encrypt(house.billing, "invoices", b"x")
    assert (writer.epoch(), snapshot.cache.epoch) == (before, before)
    administration.disable_key(house.olga, "invoices")
    assert writer.epoch() == before + 1


def test_a_store_that_is_switched_off_serves_nobody(house: House) -> None:
    operations.encrypt(house.billing, "invoices", b"x")
    administration.update_key_store(house.ada, "software", enabled=False)
    with pytest.raises(Unavailable):
        operations.encrypt(house.billing, "invoices", b"x")
    assert house.last_entry()["reason"] == "unavailable"
    administration.update_key_store(house.ada, "software", enabled=True)
    operations.encrypt(house.billing, "invoices", b"x")


def test_a_key_for_another_purpose_says_so(house: House) -> None:
    key = house.key(spec="ECC_NIST_P256")
    administration.create_grant(
        house.olga, "billing", operations=["encrypt", "sign"], classification="internal"
    )
    with pytest.raises(Unsupported):
        operations.encrypt(house.billing, str(key.id), b"x")
    assert operations.sign(house.billing, str(key.id), b"x").version == 1


@pytest.mark.each_database
def test_who_loses_the_right_between_decision_and_commit_changes_nothing(house: House) -> None:
    appointed = administration.create_person(
        house.ada, name="Alma", username="alma", role="administrator"
    )
    alma = house.person("alma")
    assert alma.principal_id == appointed.principal.id
    took: list[str] = []

    def take_the_right_away(target: targets.Target[None], arguments: dict[str, Any]) -> None:
        """Runs after the decision and before the change's transaction."""
        if not took:
            took.append("once")
            administration.deactivate_principal(alma, "ada")

    @gate.change(Action.CREATE_APPLICATION, on=targets.house, prepare=take_the_right_away)
    def register(change: Change[None], *, name: str) -> None:
        new_principal(name, Kind.APPLICATION, change.now)

    with pytest.raises(Unauthenticated):
        register(house.ada, name="late")
    assert not Principal.objects.filter(name="late").exists()
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("denied", "account_inactive")


@pytest.mark.each_database
def test_a_change_elsewhere_does_not_stop_a_change(house: House) -> None:
    tries: list[str] = []

    def something_else(target: targets.Target[None], arguments: dict[str, Any]) -> None:
        tries.append("once")
        administration.disable_key(house.olga, "invoices")

    @gate.change(Action.CREATE_APPLICATION, on=targets.house, prepare=something_else)
    def register(change: Change[None], *, name: str) -> None:
        new_principal(name, Kind.APPLICATION, change.now)

    register(house.ada, name="new")
    assert (tries, Principal.objects.filter(name="new").count()) == (["once"], 1)


@pytest.mark.each_database
def test_what_was_changed_between_decision_and_commit_is_not_overwritten(house: House) -> None:
    took: list[str] = []

    def somebody_switches_it_off(
        target: targets.Target[KeyStore], arguments: dict[str, Any]
    ) -> None:
        """Runs after the row was read and before the change's transaction."""
        if not took:
            took.append("once")
            administration.update_key_store(house.ada, "software", enabled=False)

    @gate.change(Action.UPDATE_KEY_STORE, on=targets.key_store, prepare=somebody_switches_it_off)
    def rename(change: Change[KeyStore], *, title: str) -> None:
        change.row.title = title
        change.row.save()
        change.touch("key_store", change.row.id)

    rename(house.ada, "software", title="Renamed")
    row = KeyStore.objects.get(name="software")
    assert (row.title, row.enabled) == ("Renamed", False)


def test_however_a_key_is_spelt_it_is_kept_in_memory_once(house: House) -> None:
    """Else anybody with a token fills the memory with spellings of one key."""
    snapshot.cache.forget()
    identity = house.invoices.id
    spellings = [
        str(identity),
        str(identity).upper(),
        identity.hex,
        identity.urn,
        *(identity.hex[:n] + "-" + identity.hex[n:] for n in range(1, 32)),
        "INVOICES",
        "Invoices",
        "\uff29nvoices",
    ]
    for spelling in spellings:
        with pytest.raises(NotFound):
            operations.encrypt(house.stranger, spelling, b"x")
    kept = [name for name in snapshot.cache._values if name.startswith("key:")]
    assert sorted(kept) == sorted([f"key:{identity}", "key:invoices"])


@pytest.mark.each_database
def test_a_token_that_is_no_longer_good_does_not_tell_what_there_is(house: House) -> None:
    who = house.billing
    administration.revoke_credential(house.ada, str(who.credential_id))
    for reference in ("invoices", "nowhere"):
        for ask in (
            lambda: queries.find_key(who, reference),  # noqa: B023
            lambda: administration.rotate_key(who, reference),  # noqa: B023
            lambda: operations.encrypt(who, reference, b"x"),  # noqa: B023
        ):
            record.forget()  # each of them is the first one of a minute
            with pytest.raises(Unauthenticated):
                ask()
            assert house.last_entry()["reason"] == "credential_revoked"


def test_who_may_not_look_learns_no_names(house: House) -> None:
    for there, nowhere, ask in (
        ("software", "nowhere", queries.find_key_store),
        ("Olga", "nobody", queries.find_principal),
        ("internal", "nowhere", queries.find_classification),
        ("Olga", "nobody", administration.deactivate_principal),
        ("software", "nowhere", administration.update_key_store),
    ):
        said = []
        for reference in (there, nowhere):
            with pytest.raises(KeyServiceError) as refused:
                ask(house.stranger, reference)
            said.append((type(refused.value), refused.value.detail))
        assert said == [(Denied, said[0][1])] * 2


def test_a_log_that_is_being_closed_is_unavailable_and_nothing_leaves(house: House) -> None:
    writer.appender().close()
    try:
        with pytest.raises(LogUnavailable):
            operations.encrypt(house.billing, "invoices", b"x")
        with pytest.raises(LogUnavailable):
            asyncio.run(_aio(house.billing))
    finally:
        writer.close_appender()


@pytest.mark.each_database
def test_a_value_that_only_the_database_refuses_is_invalid_and_recorded(house: House) -> None:
    """SQLite takes text of any length, PostgreSQL does not."""

    @gate.change(Action.CREATE_APPLICATION, on=targets.house)
    def register(change: Change[None], *, name: str) -> None:
        row = new_principal("long", Kind.APPLICATION, change.now)
        Principal.objects.filter(pk=row.pk).update(description=name)
        if house.database.vendor == "sqlite":
            raise DataError("too long")

    with pytest.raises(Invalid):
        register(house.ada, name="x" * 1000)
    assert not Principal.objects.filter(name="long").exists()
    assert (house.last_entry()["outcome"], house.last_entry()["reason"]) == ("failed", "invalid")


def test_who_holds_a_revoked_token_can_not_fill_the_log(house: House) -> None:
    who = house.billing
    administration.revoke_credential(house.ada, str(who.credential_id))
    refusals.forget()
    size = writer.head().size
    for _ in range(50):
        with pytest.raises(Unauthenticated):
            operations.encrypt(who, "invoices", b"x")
        with pytest.raises(Unauthenticated):
            queries.list_keys(who)
        with pytest.raises(Unauthenticated):
            administration.rotate_key(who, "invoices")
    # A minute may have turned meanwhile; each has one entry of its own.
    told = writer.head().size - size
    assert 1 <= told <= 3
    refusals.flush()
    counted = [e for e in house.entries(action="authenticate") if e["index"] >= size]
    assert {e["reason"] for e in counted} == {"credential_revoked"}
    assert sum(e["facts"]["count"] for e in counted) == 150 - told


def test_what_is_decided_again_too_often_is_given_up_and_says_so(
    house: House, watched: dict[str, Any]
) -> None:
    def change_it() -> None:
        administration.update_key(house.olga, "watched", description="again")

    operations.encrypt(house.billing, "watched", b"x")
    before = len(house.entries(action="encrypt"))
    watched["after encrypt"] = change_it
    with pytest.raises(Busy):
        operations.encrypt(house.billing, "watched", b"x")
    with pytest.raises(Busy):
        asyncio.run(operations.encrypt.aio(house.billing, "watched", b"x"))
    watched.clear()
    told = house.entries(action="encrypt")[before:]
    assert [(e["outcome"], e["reason"]) for e in told] == [("failed", "busy")] * 2


def test_a_change_that_is_decided_again_too_often_is_given_up_and_says_so(house: House) -> None:
    def change_it(target: targets.Target[Key], arguments: dict[str, Any]) -> None:
        administration.update_key(house.otto, "invoices", description="again")

    @gate.change(Action.DISABLE_KEY, on=targets.key, prepare=change_it)
    def disable(change: Change[Key]) -> None:
        lifecycle.move_key(change.row, KeyState.DISABLED)

    with pytest.raises(Busy):
        disable(house.olga, "invoices")
    assert house.invoices.state == KeyState.ENABLED
    entry = house.last_entry(action="disable_key")
    assert (entry["outcome"], entry["reason"]) == ("failed", "busy")
