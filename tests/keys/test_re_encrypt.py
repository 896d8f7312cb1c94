"""Re-encryption: from version to version and from key to key, without the plaintext leaving."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from audit.models import Entry
from keys import administration, operations
from keys.errors import CannotDecrypt, Denied, Invalid, NotFound, StateForbids, Unsupported
from keys.gate import Item
from keys.models import Grant, Key
from tests.house import House

FROM, TO = "re_encrypt_from", "re_encrypt_to"


@pytest.fixture
def archive(house: House) -> Key:
    """A second key. Billing may re-encrypt from `invoices` to it."""
    key = house.key(alias="archive")
    house.grant("billing", house.invoices, FROM)
    house.grant("billing", key, TO, "decrypt")
    return key


def sealed(house: House, context: dict[str, str] | None = None) -> bytes:
    return operations.encrypt(house.billing, "invoices", b"hello", context=context).ciphertext


@pytest.mark.each_database
def test_from_one_key_to_another_leaves_an_entry_on_each_written_together(
    house: House, archive: Key
) -> None:
    old = sealed(house, {"a": "1"})
    before = len(house.entries())
    who = house.billing
    done = operations.re_encrypt(
        who, "invoices", old, context={"a": "1"}, to="archive", to_context={"b": "2"}
    )
    assert (done.key_id, done.version, done.source.key_id) == (archive.id, 1, house.invoices.id)
    opened = operations.decrypt(who, "archive", done.ciphertext, context={"b": "2"})
    assert opened.plaintext.reveal() == b"hello"
    first, second = house.entries()[before:-1]
    assert (first["action"], second["action"]) == (FROM, TO)
    assert (first["object"]["name"], second["object"]["name"]) == ("invoices", "archive")
    assert first["request_id"] == second["request_id"] == who.request_id
    assert second["index"] == first["index"] + 1
    assert first["outcome"] == second["outcome"] == "success"
    assert first["facts"]["to"] == {"key": str(archive.id), "version": 1}
    assert second["facts"]["from"] == {"key": str(house.invoices.id), "version": 1}
    assert (first["facts"]["context"], second["facts"]["context"]) == (["a"], ["b"])
    assert first["facts"]["grant"] != second["facts"]["grant"]
    assert not [row for row in Entry.objects.all() if b"hello" in bytes(row.body)]


@pytest.mark.each_database(fast="sqlite")
def test_from_an_old_version_to_the_new_one_of_the_same_key(house: House) -> None:
    house.grant("billing", house.invoices, FROM, TO)
    old = sealed(house, {"a": "1"})
    administration.rotate_key(house.olga, "invoices")
    done = operations.re_encrypt(house.billing, "invoices", old, context={"a": "1"})
    assert (done.source.version, done.version) == (1, 2)
    opened = operations.decrypt(house.billing, "invoices", done.ciphertext, context={"a": "1"})
    assert (opened.version, opened.plaintext.reveal()) == (2, b"hello")
    first, second = house.entries()[-3:-1]
    assert (first["action"], first["object"]["version"]) == (FROM, 1)
    assert (second["action"], second["object"]["version"]) == (TO, 2)


def test_the_context_stays_where_no_other_is_asked_for(house: House, archive: Key) -> None:
    old, who = sealed(house, {"a": "1"}), house.billing
    kept = operations.re_encrypt(who, "invoices", old, context={"a": "1"}, to="archive")
    bare = operations.re_encrypt(
        who, "invoices", old, context={"a": "1"}, to="archive", to_context={}
    )
    assert operations.decrypt(who, "archive", kept.ciphertext, context={"a": "1"})
    assert operations.decrypt(who, "archive", bare.ciphertext)
    with pytest.raises(CannotDecrypt):
        operations.decrypt(who, "archive", kept.ciphertext)


def _revoke(house: House, key: str, operation: str) -> None:
    for grant in Grant.objects.filter(key__alias=key):
        if operation in grant.operations:
            administration.revoke_grant(house.olga, str(grant.id))


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize(
    ("key", "operation", "told"),
    [("invoices", FROM, [(FROM, "no_grant")]),
     ("archive", TO, [(FROM, "no_grant"), (TO, "no_grant")])],
    ids=["first", "second"],
)  # fmt: skip
def test_both_keys_must_be_granted_and_a_denial_leaves_entries(
    house: House, archive: Key, key: str, operation: str, told: list[tuple[str, str]]
) -> None:
    old = sealed(house)
    _revoke(house, key, operation)
    before = len(house.entries())
    with pytest.raises((Denied, NotFound)):
        operations.re_encrypt(house.billing, "invoices", old, to="archive")
    entries = house.entries()[before:]
    assert [(entry["action"], entry["reason"]) for entry in entries] == told
    assert {entry["outcome"] for entry in entries} == {"denied"}


def test_encrypting_to_the_second_key_is_not_the_permission_to_re_encrypt_to_it(
    house: House,
) -> None:
    house.key(alias="archive")
    house.grant("billing", house.invoices, FROM)
    house.grant("billing", Key.objects.get(alias="archive"), "encrypt")
    with pytest.raises(Denied):
        operations.re_encrypt(house.billing, "invoices", sealed(house), to="archive")


def test_a_condition_on_the_second_key_is_asked_of_the_new_context(
    house: House, archive: Key
) -> None:
    Grant.objects.filter(key=archive).update(context={"tenant": "b"})
    old, who = sealed(house, {"tenant": "a"}), house.billing
    with pytest.raises(Denied):
        operations.re_encrypt(who, "invoices", old, context={"tenant": "a"}, to="archive")
    operations.re_encrypt(
        who,
        "invoices",
        old,
        context={"tenant": "a"},
        to="archive",
        to_context={"tenant": "b"},
    )


WRONG: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("no such key", {"to": "nothing"}, NotFound),
    ("no text", {"to": 5}, Invalid),
    ("strange", {"to": "\x00\ud800"}, NotFound),
    ("no object", {"to": "archive", "to_context": ["a"]}, Invalid),
    ("no text in it", {"to": "archive", "to_context": {"a": 1}}, Invalid),
    ("another context", {"to": "archive", "context": {"a": "2"}}, CannotDecrypt),
]


@pytest.mark.parametrize(("asked", "error"), [row[1:] for row in WRONG], ids=[r[0] for r in WRONG])
def test_what_is_wrong_is_refused_and_recorded(
    house: House, archive: Key, asked: dict[str, Any], error: type[Exception]
) -> None:
    old = sealed(house)
    before = len(house.entries())
    with pytest.raises(error):
        operations.re_encrypt(house.billing, "invoices", old, **asked)
    entries = house.entries()[before:]
    assert entries[0]["action"] == FROM and len(entries) in (1, 2)
    assert not [entry for entry in entries if entry["outcome"] == "success"]


def test_a_second_key_that_can_not_protect_says_so(house: House, archive: Key) -> None:
    old, who = sealed(house), house.billing
    administration.disable_key(house.olga, "archive")
    with pytest.raises(StateForbids):
        operations.re_encrypt(who, "invoices", old, to="archive")
    house.key(spec="ECC_NIST_P256", alias="signing")
    administration.create_grant(house.olga, "billing", operations=[TO], classification="internal")
    with pytest.raises(Unsupported):
        operations.re_encrypt(who, "invoices", old, to="signing")


CHANGES: list[tuple[str, Callable[[House], Any], Any]] = [
    ("its grant is revoked", lambda h: _revoke(h, "watched", TO), NotFound),
    ("it is disabled", lambda h: administration.disable_key(h.olga, "watched"), StateForbids),
    ("it is rotated", lambda h: administration.rotate_key(h.olga, "watched"), 2),
]


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize(
    ("change", "end"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
@pytest.mark.parametrize("on_a_loop", [False, True], ids=["", "loop"])
def test_a_change_of_the_second_key_meanwhile_is_noticed(
    house: House,
    watched: dict[str, Any],
    change: Callable[[House], Any],
    end: Any,
    on_a_loop: bool,
) -> None:
    house.grant("billing", house.invoices, FROM)
    Grant.objects.filter(key__alias="watched").delete()
    house.grant("billing", Key.objects.get(alias="watched"), TO)
    old, who = sealed(house), house.billing
    operations.re_encrypt(who, "invoices", old, to="watched")

    def elsewhere() -> None:
        try:
            change(house)
        finally:
            connections.close_all()

    def meanwhile() -> None:
        watched.clear()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    watched["after encrypt"] = meanwhile

    def use() -> operations.ReEncrypted:
        if on_a_loop:
            return asyncio.run(operations.re_encrypt.aio(who, "invoices", old, to="watched"))
        return operations.re_encrypt(who, "invoices", old, to="watched")

    if isinstance(end, int):
        assert use().version == end
        assert house.last_entry()["object"]["version"] == end
        return
    with pytest.raises(end):
        use()
    assert [entry["outcome"] for entry in house.entries()[-2:]] in (
        ["denied"] * 2,
        ["failed"] * 2,
    )


# --- many at once


@pytest.mark.each_database
def test_a_batch_leaves_one_entry_on_each_key_with_the_same_root(
    house: House, archive: Key
) -> None:
    other = house.key(alias="other")
    house.grant("billing", other, TO)
    house.key(alias="closed")
    old = sealed(house)
    wanted = ["archive", "other", "archive", "closed"]
    items = [Item((old,), {"to": to}) for to in wanted] + [Item((b"junk",), {"to": "archive"})]
    before = len(house.entries())
    batch = operations.re_encrypt.batch(house.billing, "invoices", items)
    assert [done.error.code if done.error else "" for done in batch.items] == [
        "",
        "",
        "",
        "not_found",
        "cannot_decrypt",
    ]
    entries = house.entries()[before:]
    told = {
        entry["object"]["name"]: (
            entry["outcome"],
            entry["facts"]["items"],
            entry["facts"]["failed"],
        )
        for entry in entries
    }
    assert told == {
        "invoices": ("success", 5, 2),
        "archive": ("success", 3, 1),
        "other": ("success", 1, 0),
        "closed": ("denied", 1, 1),
    }
    assert {entry["facts"]["items_root"] for entry in entries} == {batch.root}
    assert {entry["request_id"] for entry in entries} == {house.entries()[-1]["request_id"]}
    assert entries[0]["uuid"] == batch.entry and entries[0]["action"] == FROM
    assert len(entries[0]["facts"]["to"]) == 2
