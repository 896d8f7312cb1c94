"""Who writes into the material database, or moves a key store, can't choose or destroy a root key."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from keys import administration, clock, root_keys, sealing
from keys.administration.root_key import hold_root_key, rotate_root_key
from keys.backends.software.models import RootKey
from keys.errors import Conflict, Unavailable
from keys.models import KeyStore
from keys.root_keys import log, making, opening, resealing, rows, succession
from keys.services import operator
from keys.stores import wrapping_keys
from tests.house import House
from tests.hsm import Token
from tests.keys import holding
from tests.keys.holding import Holder, agreed, restarted
from tests.keys.test_root_key import asked_steps, everything_opens, held, roots, rotated, under


@pytest.fixture
def hsm(house: House, softhsm: Token, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyStore]:
    """The key store `hsm`, which can hold the root key; who waits for it asks again at once."""
    monkeypatch.setattr(making, "PAUSE", timedelta(0))
    with holding.furnished(softhsm) as store:
        yield store


def asked_for(house: House) -> list[str]:
    """Return the ids of the intents that officers agreed to, oldest first."""
    entries = house.entries(object_kind="root_key")
    return [one["object"]["id"] for one in entries if one["facts"]["step"] == "asked"]


def moved(hsm: KeyStore) -> dict[str, Any]:
    """Return settings that lead elsewhere."""
    return {**hsm.settings, "token_label": "elsewhere"}


# --- an intent is good once


def test_an_intent_that_is_put_back_makes_nothing_and_destroys_nothing(
    house: House, hsm: KeyStore, settings: Any, tmp_path: Any
) -> None:
    held(house)
    rotated(house)
    before, told = roots(), asked_steps(house)
    Holder.calls.clear()
    for intent in asked_for(house):
        rows.write_intent(intent, hsm.id)
        root_keys.tidy()
        root_keys.tidy()
    assert Holder.calls == []
    assert roots() == before
    assert asked_steps(house) == told
    settings.ROOT_KEY_FILE = tmp_path / "removed"
    restarted()
    everything_opens(house)


def test_of_two_workers_at_one_rotation_one_tells_and_what_the_other_made_goes(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, end, late = held(house), log.end, []

    def overtaken(*arguments: Any) -> bool:
        monkeypatch.setattr(log, "end", end)
        RootKey.objects.filter(state="making").exclude(retired_at=None).update(
            retired_at=clock.now()  # the lease is over
        )
        root_keys.tidy()
        late.append(end(*arguments))
        return late[0]

    monkeypatch.setattr(log, "end", overtaken)
    second = rotated(house)
    assert late == [False]
    assert roots() == {first: "retired", second: "current"}
    assert [step for action, step in asked_steps(house) if action == "rotate_root_key"] == [
        "asked",
        "made",
        "retired",
        "destroyed",
    ]
    restarted()
    everything_opens(house)


@pytest.mark.exhaustive
def test_a_key_that_any_other_root_key_is_held_by_is_not_destroyed(
    house: House, hsm: KeyStore
) -> None:
    first = held(house)
    row = RootKey.objects.get()
    with pytest.MonkeyPatch.context() as alone:
        alone.setattr(resealing, "_destroy", lambda *_: None)
        second = rotated(house)
    RootKey.objects.filter(pk=second).update(handle=row.handle)
    assert not resealing._may_go(row, hsm), "another row names it"
    RootKey.objects.filter(pk=second).delete()
    assert resealing._may_go(row, hsm)
    again = {"key_store": "hsm", "handle": row.handle}
    log.tell(log.ACTIONS[1], "f" * 16, log.MADE, again)
    log.tell(log.ACTIONS[1], "e" * 16, log.MADE, {"key_store": "hsm", "handle": "other"})
    assert not resealing._may_go(row, hsm), "a later entry names it"
    assert roots()[first] == "retired"


# --- the log says which one seals


def test_a_row_that_is_moved_back_does_not_bring_an_old_root_key_back(
    house: House, hsm: KeyStore
) -> None:
    first = rotated(house, key_store="hsm")
    new = RootKey.objects.filter(pk=first)
    (whole,) = new.values()

    def refused() -> None:
        opening.forget()
        with pytest.raises(Unavailable, match=f"the root key {first} seals"):
            root_keys.check_ready()
        with pytest.raises(Unavailable):
            wrapping_keys().generate(uuid.uuid4(), "AES_256")
        with pytest.raises(Conflict):
            hold_root_key(operator(), "", key_store="hsm")
        root_keys.tidy()
        assert root_keys.held_by_store()
        assert root_keys.standing().current is None, "not the file's"
        assert under() == {first}, "nothing is sealed under the file's"

    for state in ("retiring", "retired"):
        new.update(state=state, retired_at=clock.now() + timedelta(days=1))
        refused()
    new.delete()
    refused()
    RootKey.objects.create(**whole)
    root_keys.check_ready()
    everything_opens(house)


@pytest.mark.exhaustive
def test_an_older_row_of_a_store_does_not_seal_again_and_a_rotation_mends_it(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(house)
    (older,) = RootKey.objects.values()
    with monkeypatch.context() as alone:
        alone.setattr(resealing, "_destroy", lambda *_: None)  # its store still has the key
        second = rotated(house)
    RootKey.objects.filter(pk=second).update(state="retiring")
    RootKey.objects.filter(pk=older["id"]).update(**older)
    opening.forget()
    with pytest.raises(Unavailable, match=f"the root key {second} seals"):
        root_keys.check_ready()
    third = rotated(house)
    root_keys.tidy()
    assert under() == {third}
    everything_opens(house)


@pytest.mark.exhaustive
def test_what_was_told_seals_though_whoever_told_has_gone(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = held(house)
    with monkeypatch.context() as killed:
        killed.setattr(succession, "take_over", lambda made: None)
        killed.setattr(root_keys, "tidy", lambda *_: None)
        agreed(house, rotate_root_key)
    assert sorted(roots().values()) == ["current", "making"]
    restarted()
    root_keys.check_ready()
    second = rows.current().id  # type: ignore[union-attr]
    assert roots() == {first: "retiring", second: "current"}
    root_keys.tidy()
    assert roots() == {first: "retired", second: "current"}
    everything_opens(house)


# --- officers agree to where it goes


def test_officers_see_where_the_root_key_goes_and_a_store_that_moved_gets_nothing(
    house: House, hsm: KeyStore
) -> None:
    own = sealing.root_key_id(sealing.root_key()).hex()
    wish = house.pending(hold_root_key, house.ada, "", key_store="hsm")
    where = {
        "id": str(hsm.id),
        "kind": "holder",
        "settings": hsm.settings,
        "credentials": f"env:{holding.PIN}",
    }
    assert wish.parameters == {"key_store": "hsm", "holder": {**where, "root_key": own}}
    administration.update_key_store(house.ada, "hsm", settings=moved(hsm))
    house.approve(str(wish.id))
    wish.refresh_from_db()
    assert wish.state == "failed"
    assert "its settings or credentials are others now" in wish.state_reason
    assert roots() == {}
    assert Holder.calls == []


@pytest.mark.parametrize(
    "column", ["settings", pytest.param("credentials", marks=pytest.mark.exhaustive)]
)
def test_a_store_that_moves_while_a_root_key_waits_for_it_gets_nothing(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    with monkeypatch.context() as away:
        away.delenv(holding.PIN)
        agreed(house, hold_root_key, key_store="hsm")
    assert list(roots().values()) == ["making"]
    changed: Any = {"settings": moved(hsm), "credentials": "env:ANOTHER_PIN"}[column]
    with pytest.raises(Conflict, match="is to hold a root key that is being made"):
        administration.update_key_store(house.ada, "hsm", **{column: changed})
    KeyStore.objects.filter(pk=hsm.pk).update(**{column: changed})
    root_keys.tidy()
    assert roots() == {}
    assert Holder.calls == []
    last = house.last_entry(object_kind="root_key")
    assert last["outcome"] == "failed"
    assert "was changed since this was asked for" in last["facts"]["error"]


def test_the_store_that_holds_the_root_key_stays_where_it_is(house: House, hsm: KeyStore) -> None:
    held(house)
    for change in ({"settings": moved(hsm)}, {"credentials": "env:ANOTHER_PIN"}):
        with pytest.raises(Conflict, match="Rotate the root key to another key store first"):
            administration.update_key_store(house.ada, "hsm", **change)
    same = {"settings": hsm.settings, "credentials": hsm.credentials}
    row = administration.update_key_store(house.ada, "hsm", title="Ours", enabled=True, **same)
    assert row.title == "Ours"
    assert KeyStore.objects.get(pk=hsm.pk).settings == hsm.settings


def test_officers_recognise_the_one_row_that_they_saw(house: House, hsm: KeyStore) -> None:
    root_id = held(house)
    row = RootKey.objects.get()
    there = root_keys.opening.holder(hsm.id)[1]
    aad = opening.bound(root_id, row.algorithm)

    def wrapped_again() -> None:
        raw = sealing.root_key().reveal()
        RootKey.objects.update(wrapped=there.encrypt(row.handle, row.algorithm, raw, aad))

    wrapped_again()
    wish = house.pending(hold_root_key, operator(), "", key_store="hsm")
    seen = wish.parameters["holder"]
    digest = rows.holder_digest(RootKey.objects.get())
    assert (seen["root_key"], seen["holder_sha256"]) == (root_id, digest)
    wrapped_again()
    house.approve(str(wish.id))
    wish.refresh_from_db()
    assert wish.state == "failed"
    with pytest.raises(Conflict, match="not held as it was"):
        making.recognise(seen)
    assert not log.knows(RootKey.objects.get())


def test_a_second_key_store_at_the_same_place_hides_no_holder(house: House, hsm: KeyStore) -> None:
    root_id = held(house)
    handle = RootKey.objects.get(pk=root_id).handle
    twin = administration.create_key_store(
        operator(),
        name="twin",
        kind="holder",
        settings=dict(hsm.settings),
        credentials=hsm.credentials,
    )
    assert root_keys.holders() == {(hsm.id, handle), (twin.id, handle)}
    assert not root_keys.holds_a_root_key(twin.id), "that one may be switched off"
