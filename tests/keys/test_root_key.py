"""The root key in a key store: held there, opened there, rotated, and never lost on the way."""

from __future__ import annotations

import base64
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import RequestFactory

from keys import clock, operations, root_keys, sealing
from keys.administration.root_key import hold_root_key, rotate_root_key
from keys.backends.base import Capabilities, NoMaterial
from keys.backends.software.models import RootKey, WrappedMaterial
from keys.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    Denied,
    Invalid,
    NotFound,
    PendingApproval,
    StillWaiting,
    Unavailable,
    Unsupported,
)
from keys.models import KeyStore
from keys.root_keys import log, making, opening, resealing, rows, seals, succession
from keys.secret import Secret
from keys.services import operator
from keys.stores import backend, facts, wrapping_keys
from kms_console import health
from tests.house import House
from tests.hsm import Token
from tests.keys import holding
from tests.keys.holding import Holder, agreed, restarted


@pytest.fixture
def hsm(house: House, softhsm: Token, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyStore]:
    """The key store `hsm`, which can hold the root key; who waits for it asks again at once."""
    monkeypatch.setattr(making, "PAUSE", timedelta(0))
    with holding.furnished(softhsm) as store:
        yield store


@pytest.fixture
def without_file(settings: Any, tmp_path: Path) -> Callable[[], None]:
    """Return a function that starts this process anew on a host that has no root key of its own."""

    def start() -> None:
        settings.ROOT_KEY_FILE = tmp_path / "removed"
        restarted()

    return start


def roots() -> dict[str, str]:
    return dict(RootKey.objects.values_list("id", "state"))


def held(house: House) -> str:
    """Let the HSM hold the house's root key, and return its id."""
    agreed(house, hold_root_key, key_store="hsm")
    return rows.current().id  # type: ignore[union-attr]


def rotated(house: House, **arguments: Any) -> str:
    agreed(house, rotate_root_key, **arguments)
    return rows.current().id  # type: ignore[union-attr]


def under() -> set[str]:
    """Return the ids of the root keys that anything is sealed under, by what blobs themselves say."""
    return {sealing.sealed_under(bytes(row.wrapped)) for row in WrappedMaterial.objects.all()}


def steps(house: House, root_id: str) -> list[str]:
    return [entry["facts"]["step"] for entry in house.entries(object_id=root_id)]


def asked_steps(house: House) -> list[tuple[str, str]]:
    found = house.entries(object_kind="root_key")
    return [(entry["action"], entry["facts"]["step"]) for entry in found]


def everything_opens(house: House, message: bytes = b"x") -> None:
    for row in WrappedMaterial.objects.all():
        seals.unseal(row)
    sealed = operations.encrypt(house.billing, "invoices", message)
    opened = operations.decrypt(house.billing, "invoices", sealed.ciphertext)
    assert opened.plaintext.reveal() == message


# --- held by a store


@pytest.mark.each_database
def test_a_store_holds_the_root_key_and_the_file_can_go(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    before = under()
    root_id = held(house)
    assert before == under() == {root_id}, "nothing had to be sealed anew"
    assert root_keys.standing().file_to_remove
    without_file()
    everything_opens(house)
    house.key(name="Made afterwards")
    assert under() == {root_id}
    seen = root_keys.overview(house.udo)
    assert seen.current is not None
    assert (seen.current.held_by, seen.current.algorithm) == ("hsm", "AES_256_GCM")
    assert not seen.file_to_remove
    assert not seen.under_way
    assert asked_steps(house) == [("hold_root_key", "asked"), ("hold_root_key", "made")]


def test_the_root_key_stands_in_no_entry_and_in_neither_database(
    house: House, hsm: KeyStore
) -> None:
    old = sealing.root_key()
    held(house)
    rotated(house)
    _, new = opening.present()
    connections.close_all()
    files = [house.database.path, Path(house.database.material_url.removeprefix("sqlite:///"))]
    written = b"".join(
        path.read_bytes() for file in files for path in file.parent.glob(f"{file.name}*")
    )
    assert b"rotate_root_key" in written, "this looks at the right files"
    for key in (old, new):
        raw = key.reveal()
        for form in (raw, raw.hex().encode(), base64.b64encode(raw)):
            assert form not in written


def test_officers_decide_and_only_operators_and_administrators_ask(
    house: House, hsm: KeyStore
) -> None:
    for change in (hold_root_key, rotate_root_key):
        with pytest.raises(Denied):
            change(house.olga, "", key_store="hsm")
        with pytest.raises(PendingApproval):
            change(house.ada, "", key_store="hsm")
    assert roots() == {}, "a request alone does nothing"
    assert Holder.calls == []


def test_a_store_that_is_sealed_under_the_root_key_can_not_hold_it(house: House) -> None:
    for change in (hold_root_key, rotate_root_key):
        with pytest.raises(Unsupported, match="itself sealed under the root key"):
            change(operator(), "", key_store="software")
        with pytest.raises(NotFound):
            change(operator(), "", key_store="nowhere")
    with pytest.raises(Invalid, match="writes no root key to a file"):
        rotate_root_key(operator(), "")


def test_what_a_store_holds_already_is_not_given_to_another(house: House, hsm: KeyStore) -> None:
    held(house)
    with pytest.raises(Conflict, match="Rotate it"):
        hold_root_key(operator(), "", key_store="hsm")


def test_a_root_key_that_seals_nothing_here_is_not_taken_for_the_houses(
    house: House, hsm: KeyStore, settings: Any, tmp_path: Path
) -> None:
    settings.ROOT_KEY_FILE = tmp_path / "another"
    sealing.create_root_key()
    with pytest.raises(Conflict, match="not the one that the house's keys are sealed under"):
        hold_root_key(operator(), "", key_store="hsm")


def test_a_store_that_is_away_is_waited_for(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = os.environ[holding.PIN]
    monkeypatch.delenv(holding.PIN)
    seen = agreed(house, hold_root_key, key_store="hsm")
    assert seen.under_way
    assert list(roots().values()) == ["making"]
    with pytest.raises(Conflict, match="being made already"):
        rotate_root_key(operator(), "", key_store="hsm")
    root_keys.tidy()
    assert list(roots().values()) == ["making"]
    monkeypatch.setenv(holding.PIN, pin)
    root_keys.tidy()
    assert list(roots().values()) == ["current"]
    everything_opens(house)


@pytest.mark.exhaustive
def test_a_store_that_stays_away_is_given_up_on_and_tidied_once_it_is_back(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin = os.environ[holding.PIN]
    Holder.stops["encrypt"] = lambda: _raise(BackendUnavailable("The cable is out."))
    agreed(house, hold_root_key, key_store="hsm")
    monkeypatch.delenv(holding.PIN)
    restarted()
    RootKey.objects.update(created_at=clock.now() - making.PATIENCE)
    root_keys.tidy()
    assert list(roots().values()) == ["making"], "there is a key to take back"
    monkeypatch.setenv(holding.PIN, pin)
    Holder.stops.clear()
    Holder.calls.clear()
    root_keys.tidy()
    assert roots() == {}
    last = house.last_entry(object_kind="root_key")
    assert (last["outcome"], last["facts"]["step"]) == ("failed", "failed")
    assert Holder.calls == ["before destroy", "after destroy"], "it is not tried again"


def _raise(error: Exception) -> None:
    raise error


def test_a_store_that_fails_for_good_leaves_an_entry_and_no_key(
    house: House, hsm: KeyStore
) -> None:
    Holder.stops["encrypt"] = lambda: _raise(BackendError("The token is broken."))
    with pytest.raises(BackendError, match="The token is broken"):
        agreed(house, hold_root_key, key_store="hsm")
    assert roots() == {}
    intent = house.last_entry(object_kind="root_key")["object"]["id"]
    assert steps(house, intent) == ["asked", "failed"]
    there = backend(facts(hsm))
    assert there.find(rows.label_of(intent)) is None, "what was made there is taken back"
    everything_opens(house)


@pytest.mark.exhaustive
def test_a_store_without_a_cipher_holds_it_by_rsa(
    house: House,
    hsm: KeyStore,
    without_file: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(making, "HOLDERS", making.HOLDERS[3:])  # RSA-2048: quick to make
    held(house)
    second = rotated(house)
    assert RootKey.objects.get(pk=second).algorithm.startswith("RSAES_OAEP_SHA_")
    without_file()
    everything_opens(house)


def test_a_cipher_is_preferred_and_sha_1_is_the_last_resort() -> None:
    oaep = ("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256")
    able = {"RSA_2048": oaep, "RSA_4096": oaep[:1], "AES_256": ("AES_KWP", "AES_256_GCM")}
    assert making.holder_spec(Capabilities(able)) == ("AES_256", "AES_256_GCM")
    del able["AES_256"]
    assert making.holder_spec(Capabilities(able)) == ("RSA_2048", "RSAES_OAEP_SHA_256")
    del able["RSA_2048"]
    assert making.holder_spec(Capabilities(able)) == ("RSA_4096", "RSAES_OAEP_SHA_1")
    with pytest.raises(Unsupported):
        making.holder_spec(Capabilities({"AES_256": ("AES_KWP",), "HMAC_256": ("HMAC_SHA_256",)}))


@pytest.mark.parametrize("intent", ["hold-11223344556", "new-112233445566"])
def test_a_row_that_nobody_asked_for_does_nothing(house: House, hsm: KeyStore, intent: str) -> None:
    rows.write_intent(intent, hsm.id)
    root_keys.tidy()
    assert roots() == {}
    assert Holder.calls == []


def test_who_was_too_slow_and_fails_takes_nothing_away_from_who_took_over(
    house: House, hsm: KeyStore
) -> None:
    def overtaken() -> None:
        Holder.stops.clear()
        RootKey.objects.update(retired_at=clock.now())  # the lease is over
        root_keys.tidy()
        assert list(roots().values()) == ["current"]
        raise BackendError("The token is broken.")

    Holder.stops["encrypt"] = overtaken
    agreed(house, hold_root_key, key_store="hsm")
    assert list(roots().values()) == ["current"]
    assert "before destroy" not in Holder.calls
    assert [step for _, step in asked_steps(house)] == ["asked", "made"]


# --- opened there


def test_a_store_that_is_away_at_the_start_is_told_and_needs_no_restart(
    house: House,
    hsm: KeyStore,
    without_file: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held(house)
    monkeypatch.setattr(health, "_examiner", health.Examiner((_root_key_check(),)))
    monkeypatch.setattr(health, "KEPT_SECONDS", -1.0)
    pin = os.environ[holding.PIN]
    monkeypatch.delenv(holding.PIN)
    without_file()
    with pytest.raises(BackendUnavailable):
        operations.encrypt(house.billing, "invoices", b"x")
    answer = health.readyz(RequestFactory().get("/readyz"))
    assert answer.status_code == 503
    assert b"The key store that holds it can't be reached." in answer.content
    assert b"hsm" not in answer.content
    monkeypatch.setenv(holding.PIN, pin)
    everything_opens(house)
    assert health.readyz(RequestFactory().get("/readyz")).status_code == 200


def _root_key_check() -> health.Check:
    return next(check for check in health.CHECKS if check.name == "root_key")


def test_what_is_loaded_goes_on_while_the_store_is_away(
    house: House,
    hsm: KeyStore,
    without_file: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held(house)
    without_file()
    everything_opens(house)
    Holder.stops["decrypt"] = lambda: _raise(BackendUnavailable("The cable is out."))
    monkeypatch.delenv(holding.PIN)
    everything_opens(house)
    house.key(name="Made meanwhile")


def test_of_many_threads_one_asks_the_store(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    root_id = held(house)
    without_file()
    Holder.calls.clear()
    together, asking = threading.Barrier(8), threading.Event()
    Holder.stops["decrypt"] = lambda: asking.wait(30) and None

    def opened(number: int) -> Secret:
        together.wait()
        if number == 7:
            asking.set()
        try:
            return opening.by_id(root_id)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(opened, range(8)))
    assert all(sealing.root_key_id(key).hex() == root_id for key in found)
    assert Holder.calls == ["decrypt"]


def test_all_who_wait_are_told_that_the_store_is_away(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    root_id = held(house)
    without_file()
    Holder.stops["decrypt"] = lambda: _raise(BackendUnavailable("The cable is out."))

    def refused(_: int) -> bool:
        try:
            opening.by_id(root_id)
        except BackendUnavailable:
            return True
        finally:
            connections.close_all()
        return False

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(refused, range(8)))
    Holder.stops.clear()
    restarted()  # the store is left alone for a while after so many failures
    assert sealing.root_key_id(opening.by_id(root_id)).hex() == root_id


def test_a_store_that_lost_the_holders_key_says_so(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    root_id = held(house)
    backend(facts(hsm)).destroy(RootKey.objects.get(pk=root_id).handle)
    without_file()
    with pytest.raises(Unavailable, match="no longer has the key that holds the root key"):
        root_keys.check_ready()


# --- forged rows


def _wrapped_there(hsm: KeyStore, root: bytes, handle: str = "") -> dict[str, Any]:
    """Return columns of a row for a root key of somebody's own choice, all of it consistent."""
    there = backend(facts(hsm))
    handle = handle or there.generate(uuid.uuid4(), "AES_256").handle
    root_id = sealing.root_key_id(Secret(root)).hex()
    aad = opening.bound(root_id, "AES_256_GCM")
    return {
        "id": root_id,
        "wrapped": there.encrypt(handle, "AES_256_GCM", root, aad),
        "handle": handle,
        "algorithm": "AES_256_GCM",
        "store_id": hsm.id,
    }


def test_a_root_key_of_somebody_elses_choice_is_refused(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    held(house)
    RootKey.objects.all().delete()
    RootKey.objects.create(**_wrapped_there(hsm, b"\x01" * 32), state="current")
    without_file()
    Holder.calls.clear()
    with pytest.raises(BackendError, match="The log does not say"):
        root_keys.check_ready()
    label = uuid.uuid4()
    with pytest.raises(BackendError, match="The log does not say"):
        wrapping_keys().generate(label, "AES_256")
    assert wrapping_keys().find(label) is None
    assert Holder.calls == [], "it was never opened"


def test_another_root_key_in_a_known_row_is_refused(
    house: House,
    hsm: KeyStore,
    without_file: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root_id = held(house)
    row = RootKey.objects.get()
    columns = _wrapped_there(hsm, b"\x01" * 32, row.handle)
    without_file()
    monkeypatch.setattr(log, "knows", lambda row: True)  # even then
    for wrapped in (columns["wrapped"], _bound_to(hsm, row, root_id), b"\x00" * 60):
        RootKey.objects.update(wrapped=wrapped)
        opening.forget()
        with pytest.raises(BackendError, match="wrapped by somebody else"):
            root_keys.check_ready()


def _bound_to(hsm: KeyStore, row: RootKey, root_id: str) -> bytes:
    aad = opening.bound(root_id, row.algorithm)
    return backend(facts(hsm)).encrypt(row.handle, row.algorithm, b"\x01" * 32, aad)


def test_where_the_log_was_put_back_officers_recognise_what_the_store_holds(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    root_id = held(house)
    again = _wrapped_there(hsm, sealing.root_key().reveal(), RootKey.objects.get().handle)
    RootKey.objects.update(wrapped=again["wrapped"])  # the same root key, as no entry knows it
    without_file()
    with pytest.raises(BackendError, match="The log does not say"):
        root_keys.check_ready()
    agreed(house, hold_root_key, key_store="hsm")
    root_keys.check_ready()
    everything_opens(house)
    assert steps(house, root_id) == ["made", "recognition", "made"]


def test_a_row_that_names_a_software_store_is_refused_and_not_followed(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch, without_file: Callable[[], None]
) -> None:
    held(house)
    RootKey.objects.update(store_id=KeyStore.objects.get(name="software").id)
    without_file()
    with pytest.raises(BackendError):
        root_keys.check_ready()
    monkeypatch.setattr(log, "knows", lambda row: True)
    with pytest.raises(Unsupported):
        root_keys.check_ready()


def test_no_row_makes_the_console_destroy_what_holds_a_root_key(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    first = held(house)
    second = rotated(house)
    there = {row.id: row for row in RootKey.objects.all()}
    Holder.calls.clear()

    old, new = RootKey.objects.filter(pk=first), RootKey.objects.filter(pk=second)
    old.update(handle=there[second].handle, retired_at=None)
    root_keys.tidy()
    new.update(state="retired")
    old.update(state="current", handle="")
    material = list(WrappedMaterial.objects.all())
    WrappedMaterial.objects.all().delete()
    root_keys.tidy()
    WrappedMaterial.objects.bulk_create(material)
    assert new.get().retired_at is not None, "it was looked at"
    old.update(state="retired", retired_at=clock.now())
    new.update(state="current", retired_at=None)
    asked = [e for e in house.entries(object_kind="root_key") if e["facts"]["step"] == "asked"]
    for entry in asked:  # intents that came to their end long ago
        rows.write_intent(entry["object"]["id"], hsm.id)
        Holder.stops["encrypt"] = lambda: _raise(BackendError("The token is broken."))
        root_keys.tidy()
    Holder.stops.clear()
    assert "before destroy" not in Holder.calls
    without_file()
    everything_opens(house)


# --- rotated


@pytest.mark.each_database
def test_a_rotation_seals_all_anew_and_ends_the_old_root_key(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    first = held(house)
    ticket = wrapping_keys().generate(uuid.uuid4(), "AES_256").handle
    handle = RootKey.objects.get(pk=first).handle
    second = rotated(house, reason="once a year")
    assert under() == {second}
    assert set(WrappedMaterial.objects.values_list("root_id", flat=True)) == {second}
    assert roots() == {first: "retired", second: "current"}
    assert steps(house, second) == ["made"]
    assert steps(house, first) == ["made", "retired", "destroyed"]
    with pytest.raises(NoMaterial):
        backend(facts(hsm)).decrypt(handle, "AES_256_GCM", b"x" * 40, b"")
    assert bytes(RootKey.objects.get(pk=first).wrapped) == b""
    without_file()
    everything_opens(house)
    wrapping_keys().encrypt(ticket, "AES_256_GCM", b"x", b"")
    seen = root_keys.standing()
    assert [(root.id, root.materials > 0) for root in seen.roots] == [
        (second, True),
        (first, False),
    ]
    assert root_keys.holders() == {(hsm.id, RootKey.objects.get(pk=second).handle)}


def test_a_root_key_that_only_a_file_holds_is_rotated_into_a_store(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    (first,) = under()
    second = rotated(house, key_store="hsm")
    assert under() == {second}
    assert roots() == {first: "retired", second: "current"}
    assert steps(house, first) == ["retired"]
    assert house.last_entry(object_id=first)["facts"]["held_by"] == "file or variable"
    assert root_keys.standing().file_to_remove
    without_file()
    everything_opens(house)
    root_keys.tidy()
    assert steps(house, first) == ["retired"], "told once"


def test_while_the_file_is_still_needed_it_is_said(house: House, hsm: KeyStore) -> None:
    seen = agreed(house, rotate_root_key, key_store="hsm")
    assert not seen.file_needed
    row = WrappedMaterial.objects.order_by("label")[0]
    seals.seal(row, seals.unseal(row), (succession.file_root(), sealing.root_key()))
    row.save()
    seen = root_keys.standing()
    assert seen.file_needed
    assert seen.under_way
    root_keys.tidy()
    assert root_keys.standing().file_to_remove


def test_a_store_with_a_window_destroys_the_holders_key_later(house: House, hsm: KeyStore) -> None:
    first = held(house)
    until = clock.now() + timedelta(days=7)
    Holder.stops["before destroy"] = lambda: _raise(StillWaiting("A week.", until=until))
    rotated(house)
    row = RootKey.objects.get(pk=first)
    assert (row.state, row.retired_at, bytes(row.wrapped)) == ("retired", until, b"")
    (seen,) = (root for root in root_keys.standing().roots if root.id == first)
    assert (seen.until, seen.at_store) == (until, True)
    asked = len(Holder.calls)
    root_keys.tidy()
    assert len(Holder.calls) == asked, "it is not asked before"
    Holder.stops.clear()
    RootKey.objects.filter(pk=first).update(retired_at=clock.now())
    root_keys.tidy()
    assert steps(house, first) == ["made", "retired", "destruction begun", "destroyed"]
    assert RootKey.objects.get(pk=first).handle == ""


def test_a_row_that_does_not_open_stays_and_keeps_its_root_key(house: House, hsm: KeyStore) -> None:
    first = held(house)
    house.key(name="Another")
    broken = WrappedMaterial.objects.order_by("label")[0]
    whole = bytes(broken.wrapped)
    WrappedMaterial.objects.filter(pk=broken.pk).update(wrapped=whole[:-1] + bytes([whole[-1] ^ 1]))
    second = rotated(house)
    assert roots() == {first: "retiring", second: "current"}
    assert WrappedMaterial.objects.filter(root_id=first).count() == 1
    WrappedMaterial.objects.filter(pk=broken.pk).update(wrapped=whole)
    root_keys.tidy()
    assert roots()[first] == "retired"
    everything_opens(house)


def test_a_column_that_names_the_wrong_root_key_loses_nothing(house: House, hsm: KeyStore) -> None:
    first = held(house)
    Holder.stops["after generate"] = lambda: None
    stop = threading.Event()

    def misfile() -> None:
        if not stop.is_set():
            stop.set()
            row = WrappedMaterial.objects.order_by("label")[0]
            WrappedMaterial.objects.filter(pk=row.pk).update(root_id="f" * 16)

    Holder.stops["after generate"] = misfile
    second = rotated(house)
    root_keys.tidy()
    root_keys.tidy()
    assert under() == {second}
    assert roots()[first] == "retired"
    everything_opens(house)


def test_material_that_is_made_while_a_rotation_ends_is_sealed_anew_at_once(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has sealed under the old root key, and inserts only after the old one is destroyed."""
    first = held(house)
    seal, once = seals.seal, []

    def slowly(row: WrappedMaterial, secret: Secret, *more: Any) -> None:
        seal(row, secret, *more)
        if not once:
            once.append(row.root_id)
            rotated(house)

    monkeypatch.setattr(seals, "seal", slowly)
    label = uuid.uuid4()
    wrapping_keys().generate(label, "AES_256")
    assert once == [first]
    assert roots()[first] == "retired"
    restarted()
    assert under() == {rows.current().id}  # type: ignore[union-attr]
    wrapping_keys().encrypt(label.hex, "AES_256_GCM", b"x", b"")


def test_a_key_that_is_read_while_it_is_sealed_anew_is_read_again(
    house: House, hsm: KeyStore, without_file: Callable[[], None]
) -> None:
    held(house)
    row = WrappedMaterial.objects.order_by("label")[0]
    rotated(house)
    without_file()
    assert len(seals.unseal(row)) == 32


@pytest.mark.each_database
def test_two_workers_share_a_rotation(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = held(house)
    store = wrapping_keys()
    for _ in range(12):
        store.generate(uuid.uuid4(), "AES_256")
    monkeypatch.setattr(resealing, "CHUNK", 3)
    with monkeypatch.context() as alone:
        alone.setattr(root_keys, "tidy", lambda *_: None)
        second = rotated(house)
    assert roots() == {first: "retiring", second: "current"}
    together = threading.Barrier(2)

    def work(_: int) -> None:
        together.wait()
        root_keys.tidy()
        connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    root_keys.tidy()
    assert under() == {second}
    assert roots() == {first: "retired", second: "current"}
    assert steps(house, first)[-2:] == ["retired", "destroyed"]
    restarted()
    everything_opens(house)


@pytest.mark.exhaustive
def test_a_rotation_goes_on_where_its_time_was_over(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = held(house)
    with monkeypatch.context() as alone:
        alone.setattr(root_keys, "tidy", lambda *_: None)
        second = rotated(house)
    root_keys.tidy(0.0)
    assert under() == {first}, "no time was given"
    everything_opens(house)
    root_keys.tidy(60.0)
    assert under() == {second}


def test_an_intent_whose_row_was_never_written_is_taken_up(
    house: House, hsm: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killed:
        killed.setattr(rows, "write_intent", lambda *_: _raise(BackendUnavailable("killed here")))
        with pytest.raises(BackendUnavailable):
            agreed(house, hold_root_key, key_store="hsm")
    root_keys.tidy()
    assert roots() == {}, "who asked may still be at it"
    monkeypatch.setattr(log, "LOST_AFTER", timedelta(0))
    root_keys.tidy()
    assert list(roots().values()) == ["current"]
    root_keys.tidy()
    assert [step for _, step in asked_steps(house)] == ["asked", "made"]
