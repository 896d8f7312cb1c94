"""Many items, one decision, one entry with a root over what became of them."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from django.db import connections
from django.test import override_settings

from audit import refusals, writer
from audit.models import Entry
from keys import administration, counters, operations
from keys.errors import (
    BackendError,
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
    Unsupported,
)
from keys.gate import Batch, Item
from keys.gate.operation import LOOP_ITEMS
from keys.models import Grant, MessageCount
from tests.house import House
from tests.keys.test_gate import unwritable


def item(*args: Any, **kwargs: Any) -> Item:
    return Item(args, kwargs)


def texts(count: int) -> list[Item]:
    return [item(b"text %d" % n) for n in range(count)]


# --- the root, made again from docs/ciphertext.md alone


def leaf(position: int, evidence: bytes, version: int, error: str = "") -> bytes:
    digest = hashlib.sha256(evidence).hexdigest() if evidence else ""
    member = {"version": version, "item": position, "error": error, "evidence": digest}
    return json.dumps(member, sort_keys=True, separators=(",", ":")).encode()


def root(leaves: Sequence[bytes]) -> str:
    def node(part: Sequence[bytes]) -> bytes:
        if len(part) == 1:
            return hashlib.sha256(b"\x00" + part[0]).digest()
        left = 1
        while left * 2 < len(part):
            left *= 2
        return hashlib.sha256(b"\x01" + node(part[:left]) + node(part[left:])).digest()

    return node(leaves).hex()


def codes(batch: Batch[Any]) -> list[str]:
    return [done.error.code if done.error else "" for done in batch.items]


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize("count", [1, 2, 7, 8, 1000])
def test_each_item_has_its_result_and_one_entry_holds_the_root_over_all(
    house: House, count: int
) -> None:
    before = len(house.entries())
    wanted = [item(b"secret %d" % n, context={"patient": str(n)}) for n in range(count)]
    batch = operations.encrypt.batch(house.billing, "invoices", wanted)
    results = [done.result for done in batch.items]
    assert codes(batch) == [""] * count
    assert len(house.entries()) == before + 1
    entry = house.last_entry()
    assert (entry["uuid"], entry["outcome"], entry["reason"]) == (batch.entry, "success", "")
    assert entry["object"]["version"] == 1
    assert entry["facts"]["items"] == count and entry["facts"]["failed"] == 0
    assert entry["facts"]["context"] == ["patient"]
    assert entry["facts"]["grant"] == str(Grant.objects.get().id)
    leaves = [leaf(n, result.ciphertext, 1) for n, result in enumerate(results) if result]
    assert batch.root == entry["facts"]["items_root"] == root(leaves)
    assert b"secret" not in bytes(Entry.objects.latest("index").body)
    last = results[-1]
    assert last is not None
    opened = operations.decrypt(
        house.billing, "invoices", last.ciphertext, context={"patient": str(count - 1)}
    )
    assert opened.plaintext.reveal() == b"secret %d" % (count - 1)


@pytest.mark.each_database(fast="sqlite")
def test_an_item_that_fails_stops_no_other(house: House) -> None:
    good = operations.encrypt(house.billing, "invoices", b"good", context={"a": "1"}).ciphertext
    batch = operations.decrypt.batch(
        house.billing,
        "invoices",
        [
            item(good, context={"a": "1"}),
            item(b"junk"),
            item(good, context={"a": "2"}),
            item(good, context="no object"),
            item(good, context={"a": "1"}),
        ],
    )
    failures = [type(done.error) for done in batch.items if done.error]
    assert failures == [CannotDecrypt, CannotDecrypt, Invalid]
    assert [done.result.plaintext.reveal() for done in batch.items if done.result] == [b"good"] * 2
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("success", "some_items_failed")
    assert (entry["facts"]["items"], entry["facts"]["failed"]) == (5, 3)
    assert entry["facts"]["items_root"] == root(
        [
            leaf(0, good, 1),
            leaf(1, b"junk", 0, "cannot_decrypt"),
            leaf(2, good, 1, "cannot_decrypt"),
            leaf(3, b"", 0, "invalid"),
            leaf(4, good, 1),
        ]
    )


def test_a_batch_of_which_all_items_fail_has_failed(house: House) -> None:
    batch = operations.decrypt.batch(house.billing, "invoices", [item(b"junk"), item(b"")])
    assert codes(batch) == ["cannot_decrypt"] * 2
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("failed", "all_items_failed")


def test_items_of_different_versions_are_named_in_the_entry(house: House) -> None:
    first = operations.encrypt(house.billing, "invoices", b"x").ciphertext
    administration.rotate_key(house.olga, "invoices")
    second = operations.encrypt(house.billing, "invoices", b"x").ciphertext
    operations.decrypt.batch(house.billing, "invoices", [item(second), item(first), item(second)])
    entry = house.last_entry()
    assert entry["facts"]["versions"] == [1, 2] and entry["object"]["version"] is None


def test_a_batch_of_signatures_says_how_many_were_valid(house: House) -> None:
    key = house.key(spec="ECC_NIST_P256")
    house.grant("billing", key, "sign", "verify")
    signed = operations.sign.batch(house.billing, str(key.id), [item(b"a"), item(b"b")])
    one, two = (done.result.signature for done in signed.items if done.result)
    checked = operations.verify.batch(
        house.billing, str(key.id), [item(b"a", one), item(b"a", two), item(b"b", two)]
    )
    assert [done.result.valid for done in checked.items if done.result] == [True, False, True]
    facts = house.last_entry()["facts"]
    assert (facts["items"], facts["failed"], facts["valid"]) == (3, 0, 2)


def test_what_needs_no_key_can_be_a_batch_too(house: House) -> None:
    batch = operations.random.batch(house.billing, "", [item(count=8), item(count=0)])
    first = batch.items[0].result
    assert first is not None and len(first.reveal()) == 8
    assert codes(batch) == ["", "invalid"]
    assert house.last_entry()["facts"]["items"] == 2


# --- permission


@pytest.mark.each_database(fast="sqlite")
def test_a_grant_that_asks_for_a_context_is_asked_of_each_item(house: House) -> None:
    Grant.objects.update(context={"tenant": "a"})
    batch = operations.encrypt.batch(
        house.billing,
        "invoices",
        [item(b"x"), item(b"x", context={"tenant": "a"}), item(b"x", context={"tenant": "b"})],
    )
    assert [type(done.error) for done in batch.items] == [Denied, type(None), Denied]
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("success", "some_items_failed")
    assert (entry["facts"]["failed"], entry["facts"]["denied"]) == (2, 2)
    batch = operations.encrypt.batch(house.billing, "invoices", texts(3))
    assert codes(batch) == ["denied"] * 3
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("denied", "all_items_failed")
    assert "grant" not in entry["facts"]


def test_an_item_is_admitted_by_the_grant_that_is_for_its_context(house: House) -> None:
    Grant.objects.update(context={"tenant": "a"})
    first = Grant.objects.get()
    second = house.grant("billing", house.invoices, "encrypt", context={"tenant": "b"})
    wanted = [item(b"x", context={"tenant": tenant}) for tenant in ("a", "b", "a")]
    assert codes(operations.encrypt.batch(house.billing, "invoices", wanted)) == [""] * 3
    assert set(house.last_entry()["facts"]["grant"]) == {str(first.id), str(second.id)}


def test_who_has_no_grant_is_refused_as_a_whole_and_nothing_is_computed(
    house: House, watched: dict[str, Any]
) -> None:
    computed: list[str] = []
    watched["before encrypt"] = lambda: computed.append("once")
    for who, error in ((house.stranger, NotFound), (house.olga, Denied)):
        before = len(house.entries())
        with pytest.raises(error):
            operations.encrypt.batch(who, "watched", texts(3))
        assert len(house.entries()) == before + 1
        entry = house.last_entry()
        assert (entry["outcome"], entry["reason"]) == ("denied", "no_grant")
        assert entry["facts"]["items"] == 3
    assert computed == []


def test_a_key_for_another_purpose_refuses_the_whole(house: House) -> None:
    key = house.key(spec="HMAC_256")
    administration.create_grant(
        house.olga, "billing", operations=["encrypt"], classification="internal"
    )
    with pytest.raises(Unsupported):
        operations.encrypt.batch(house.billing, str(key.id), texts(2))
    assert house.last_entry()["reason"] == "unsupported"


@pytest.mark.each_database(fast="sqlite")
def test_too_many_items_and_none_are_refused_and_recorded(house: House) -> None:
    before = len(house.entries())
    with override_settings(BATCH_LIMIT=3):
        operations.encrypt.batch(house.billing, "invoices", texts(3))
        with pytest.raises(TooLarge, match="at most 3 items"):
            operations.encrypt.batch(house.billing, "invoices", texts(4))
    with pytest.raises(Invalid, match="at least one"):
        operations.encrypt.batch(house.billing, "invoices", [])
    reasons = [entry["reason"] for entry in house.entries()[before:]]
    assert reasons == ["", "too_large", "invalid"]


def test_who_holds_a_revoked_token_can_not_fill_the_log_with_wrong_requests(house: House) -> None:
    who = house.billing
    administration.revoke_credential(house.ada, str(who.credential_id))
    refusals.forget()
    size = writer.head().size
    for _ in range(20):
        with pytest.raises(Unauthenticated):
            operations.encrypt.batch(who, "invoices", [])
        with pytest.raises(Unauthenticated):
            operations.encrypt(who, "invoices", b"x", context=["no", "object"])  # type: ignore[arg-type]
    # A minute may have turned meanwhile.
    assert 1 <= writer.head().size - size <= 2


# --- what changes meanwhile, and what goes wrong


@pytest.mark.each_database
def test_a_grant_revoked_while_a_batch_computes_stops_all_of_it(
    house: House, watched: dict[str, Any]
) -> None:
    calls: list[int] = []

    def revoke_at_the_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            thread = threading.Thread(target=_revoke, args=(house, "watched"))
            thread.start()
            thread.join()

    who = house.billing
    operations.encrypt(who, "watched", b"warm")
    before = len(house.entries(action="encrypt"))
    watched["after encrypt"] = revoke_at_the_third
    with pytest.raises(NotFound):
        operations.encrypt.batch(who, "watched", texts(5))
    (entry,) = house.entries(action="encrypt")[before:]
    assert (entry["outcome"], entry["reason"]) == ("denied", "no_grant")
    assert len(calls) == 5, "decided again, and not computed again"


def _revoke(house: House, alias: str) -> None:
    try:
        grant = Grant.objects.get(key__alias=alias)
        administration.revoke_grant(house.olga, str(grant.id))
    finally:
        connections.close_all()


@pytest.mark.each_database
def test_a_rotation_while_a_batch_computes_has_all_of_it_computed_again(
    house: House, watched: dict[str, Any]
) -> None:
    calls: list[int] = []

    def rotate_at_the_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            thread = threading.Thread(target=_rotate, args=(house, "watched"))
            thread.start()
            thread.join()

    operations.encrypt(house.billing, "watched", b"warm")
    before = len(house.entries(action="encrypt"))
    watched["before encrypt"] = rotate_at_the_third
    batch = operations.encrypt.batch(house.billing, "watched", texts(5))
    assert [done.version for done in batch.items] == [2] * 5
    assert len(house.entries(action="encrypt")) == before + 1


def _rotate(house: House, alias: str) -> None:
    try:
        administration.rotate_key(house.olga, alias)
    finally:
        connections.close_all()


def test_a_batch_that_is_decided_again_too_often_is_given_up_and_says_so(
    house: House, watched: dict[str, Any]
) -> None:
    def change_it() -> None:
        administration.update_key(house.olga, "watched", description="again")

    operations.encrypt(house.billing, "watched", b"x")
    watched["after encrypt"] = change_it
    with pytest.raises(Busy):
        operations.encrypt.batch(house.billing, "watched", texts(2))
    watched.clear()
    entry = house.last_entry(action="encrypt")
    assert (entry["outcome"], entry["reason"]) == ("failed", "busy")


def test_a_bug_in_one_item_ends_the_batch_and_is_recorded(
    house: House, watched: dict[str, Any]
) -> None:
    calls: list[int] = []

    def fail_at_the_second() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise ZeroDivisionError("the secret is hunter2")

    watched["before encrypt"] = fail_at_the_second
    before = len(house.entries())
    with pytest.raises(ZeroDivisionError):
        operations.encrypt.batch(house.billing, "watched", texts(3))
    assert len(house.entries()) == before + 1
    entry = house.last_entry()
    assert (entry["outcome"], entry["reason"]) == ("failed", "internal_error")
    assert entry["facts"]["items"] == 3
    assert b"hunter2" not in bytes(Entry.objects.latest("index").body)


def test_an_error_of_the_store_is_its_items_own(house: House, watched: dict[str, Any]) -> None:
    calls: list[int] = []

    def fail_at_the_second() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise BackendError("CKR_GENERAL_ERROR")

    watched["before encrypt"] = fail_at_the_second
    batch = operations.encrypt.batch(house.billing, "watched", texts(3))
    assert codes(batch) == ["", "backend_error", ""]


@pytest.mark.each_database(fast="sqlite")
def test_a_batch_that_computes_too_long_fails_for_the_rest(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = house.key()
    house.grant("billing", key, "encrypt")
    monkeypatch.setattr("keys.gate.operation.BATCH_SECONDS", -1.0)
    done = operations.encrypt.batch(house.billing, str(key.id), texts(3))
    assert codes(done) == ["busy"] * 3
    assert house.last_entry(action="encrypt")["facts"]["failed"] == 3


def test_without_an_entry_nothing_of_a_batch_leaves(house: House) -> None:
    who = house.billing
    operations.encrypt(who, "invoices", b"x")
    before = len(house.entries())
    with unwritable(house):
        with pytest.raises(LogUnavailable):
            operations.encrypt.batch(who, "invoices", texts(3))
        with pytest.raises(LogUnavailable):
            asyncio.run(operations.encrypt.batch_aio(who, "invoices", texts(3)))
    assert len(house.entries()) == before


@pytest.mark.each_database
def test_a_budget_that_ends_in_the_middle_of_a_batch_ends_it_for_the_rest(house: House) -> None:
    key = house.key(algorithm="AES_256_GCM")
    house.grant("billing", key, "encrypt")
    counters.forget()
    with override_settings(MESSAGE_LIMIT=10):
        batch = operations.encrypt.batch(house.billing, str(key.id), texts(15))
    assert codes(batch) == [""] * 10 + ["state_forbids"] * 5
    last = batch.items[-1].error
    assert isinstance(last, StateForbids) and "rotate the key" in last.detail
    row = MessageCount.objects.get(version__key=key)
    assert (row.leased, row.limit, row.low) == (10, 10, True)


# --- on an event loop


@pytest.mark.parametrize(("count", "on_the_loop"), [(LOOP_ITEMS, True), (LOOP_ITEMS + 1, False)])
def test_a_loop_computes_small_batches_itself_and_no_large_one(
    house: House, watched: dict[str, Any], count: int, on_the_loop: bool
) -> None:
    who = house.billing
    operations.encrypt(who, "watched", b"warm")
    names: set[str] = set()
    watched["before encrypt"] = lambda: names.add(threading.current_thread().name)
    batch = asyncio.run(operations.encrypt.batch_aio(who, "watched", texts(count)))
    assert codes(batch) == [""] * count
    assert {name.startswith("use") for name in names} == {not on_the_loop}
    assert house.last_entry()["facts"]["items_root"] == batch.root


def test_a_batch_for_a_key_that_computes_slowly_leaves_the_loop(house: House) -> None:
    key = house.key(spec="RSA_2048")
    house.grant("billing", key, "sign")
    who = house.billing
    operations.sign(who, str(key.id), b"warm")
    batch = asyncio.run(operations.sign.batch_aio(who, str(key.id), [item(b"a"), item(b"b")]))
    assert codes(batch) == ["", ""]


def test_errors_of_a_batch_on_a_loop_are_the_same(house: House) -> None:
    for error, who, key, count in (
        (NotFound, house.stranger, "invoices", 1),
        (Invalid, house.billing, "invoices", 0),
        (NotFound, house.billing, "nothing", 1),
    ):
        with pytest.raises(error) as refused:
            asyncio.run(operations.encrypt.batch_aio(who, key, texts(count)))
        assert isinstance(refused.value, KeyServiceError) and refused.value.recorded
