"""The end of keys at Azure: windows, cancellation, purge protection, and what only goes together."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.keyvault.keys import KeyClient

from keys.backends.azure.backend import AzureBackend
from keys.backends.base import NoMaterial
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    Conflict,
    KeyServiceError,
    StateForbids,
    StillWaiting,
    Unsupported,
)
from keys.states import KeyState, VersionState
from tests.backends.keeping import DAY, Kept, kept
from tests.backends.uses import some_material
from tests.peers.azure import Azure, Open
from tests.peers.faults import Fault, in_front_of

EC = "ECC_NIST_P256"


def name_of(key: Kept) -> str:
    return key.versions[0].handle.partition("/")[0]


def handles(key: Kept) -> list[str]:
    return [view.handle for view in key.versions]


def schedule(key: Kept, days: float) -> datetime:
    key.state = KeyState.PENDING_DESTRUCTION
    key.destroy_at = datetime.now(UTC) + timedelta(days=days)
    return key.destroy_at


def cancel(key: Kept) -> None:
    key.state, key.destroy_at = KeyState.DISABLED, None


def is_deleted(client: KeyClient, name: str) -> bool:
    try:
        client.get_deleted_key(name)
    except ResourceNotFoundError:
        return False
    return True


def two_versions(backend: AzureBackend) -> Kept:
    key = kept(backend, EC)
    key.rotate()
    key.align()
    return key


def with_a_stranger(backend: AzureBackend, client: KeyClient, *, newest: bool) -> tuple[Kept, str]:
    """Return a key with two versions of the console's, and the handle of one that somebody made."""
    key = kept(backend, EC)
    if newest:
        key.rotate()
    made = client.create_ec_key(name_of(key))
    assert made.properties.version is not None
    if not newest:
        key.rotate()
    return key, f"{name_of(key)}/{made.properties.version}"


# --- a window, and its cancellation


def test_a_scheduled_key_is_deleted_softly_and_comes_back_whole(open_vault: Open) -> None:
    backend, client = open_vault(retention=30)
    key = two_versions(backend)
    key.tags, key.rotation_days = {"team": "billing"}, 90
    key.align()
    at = schedule(key, 20)
    seen = key.align()
    assert is_deleted(client, name_of(key))
    assert seen.destroy_at is not None
    assert abs(seen.destroy_at - at) < timedelta(minutes=1), "the console's own date"
    assert {view.state for view in seen.versions} == {VersionState.SUSPENDED}
    assert seen.tags == {"team": "billing"}
    with pytest.raises(NoMaterial):
        backend.sign(handles(key)[1], "ECDSA_SHA_256", b"x")
    cancel(key)
    seen = key.align()
    assert (seen.state, seen.rotation_days) == (KeyState.DISABLED, 90)
    with pytest.raises(StateForbids):
        backend.sign(handles(key)[1], "ECDSA_SHA_256", b"x")
    key.state = KeyState.ENABLED
    seen = key.align()
    states = [view.state for view in seen.versions]
    assert states == [VersionState.DEACTIVATED, VersionState.ACTIVE]
    assert not [tag for tag in client.get_key(name_of(key)).properties.tags if "destroy" in tag]


def test_a_vault_that_forgets_too_early_is_not_told_before_its_time(open_vault: Open) -> None:
    backend, client = open_vault(retention=7)
    key = two_versions(backend)
    at = schedule(key, 30)
    seen = key.align()
    assert not is_deleted(client, name_of(key))
    assert (seen.state, seen.rotation_days) == (KeyState.PENDING_DESTRUCTION, None)
    assert seen.destroy_at is not None
    assert abs(seen.destroy_at - at) < timedelta(minutes=1)
    with pytest.raises(StateForbids):
        backend.sign(handles(key)[1], "ECDSA_SHA_256", b"x")
    # What is left fits into the vault's own days now.
    schedule(key, 5)
    key.align()
    assert is_deleted(client, name_of(key))
    cancel(key)
    key.state = KeyState.ENABLED
    key.align()
    assert backend.sign(handles(key)[1], "ECDSA_SHA_256", b"x")


def test_a_version_that_others_made_keeps_no_date_of_ours(open_vault: Open) -> None:
    backend, client = open_vault(retention=30)
    key = kept(backend, EC)
    client.create_ec_key(name_of(key), tags={"team": "billing"})
    schedule(key, 20)
    backend.conform(key.wanted)
    cancel(key)
    backend.conform(key.wanted)
    assert client.get_key(name_of(key)).properties.tags == {"team": "billing"}


def test_a_key_that_waits_makes_no_new_versions(open_vault: Open) -> None:
    backend, _ = open_vault(retention=7)
    key = kept(backend, EC)
    key.rotation_days = 60
    key.align()
    schedule(key, 30)
    assert key.align().rotation_days is None
    cancel(key)
    assert key.align().rotation_days == 60


def test_a_date_that_was_changed_is_changed_there(open_vault: Open) -> None:
    backend, _ = open_vault(retention=90)
    key = kept(backend, EC)
    for days in (30, 60, 10):
        at = schedule(key, days)
        seen = key.align()
        assert seen.destroy_at is not None
        assert abs(seen.destroy_at - at) < timedelta(minutes=1)


def test_a_key_that_somebody_deleted_comes_back_or_shows_when_it_goes(open_vault: Open) -> None:
    backend, client = open_vault(retention=7)
    key = two_versions(backend)
    client.begin_delete_key(name_of(key)).wait(20)
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert seen.state is KeyState.PENDING_DESTRUCTION
    assert seen.destroy_at is not None
    assert abs(seen.destroy_at - datetime.now(UTC) - 7 * DAY) < timedelta(minutes=1)
    assert {view.handle for view in seen.versions} == set(handles(key))
    # The console wants to wait longer than the vault will: it takes the key back.
    schedule(key, 30)
    key.align()
    assert not is_deleted(client, name_of(key))
    client.begin_delete_key(name_of(key)).wait(20)
    key.state, key.destroy_at = KeyState.ENABLED, None
    assert key.align().state is KeyState.ENABLED


def test_azure_may_take_its_time_with_deleting_and_recovering(open_vault: Open) -> None:
    backend, client = open_vault(retention=90, lag=2)
    key = kept(backend, EC)
    schedule(key, 20)
    key.align()
    assert is_deleted(client, name_of(key))
    cancel(key)
    key.align()
    backend.destroy_all(handles(key))
    assert not is_deleted(client, name_of(key))


@pytest.mark.parametrize("newest", [True, False])
def test_a_scheduled_key_with_somebody_elses_version_stays_and_only_ours_are_disabled(
    open_vault: Open, newest: bool
) -> None:
    backend, client = open_vault(retention=30)
    key, strange = with_a_stranger(backend, client, newest=newest)
    at = schedule(key, 20)
    backend.conform(key.wanted)
    assert not is_deleted(client, name_of(key))
    assert backend.sign(strange, "ECDSA_SHA_256", b"x")
    for handle in handles(key):
        with pytest.raises(StateForbids):
            backend.sign(handle, "ECDSA_SHA_256", b"x")
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert seen.state is KeyState.PENDING_DESTRUCTION
    assert seen.destroy_at is not None
    assert abs(seen.destroy_at - at) < timedelta(minutes=1)
    cancel(key)
    key.state = KeyState.ENABLED
    backend.conform(key.wanted)
    assert backend.sign(handles(key)[1], "ECDSA_SHA_256", b"x")


# --- destruction


@pytest.mark.parametrize("newest", [True, False])
def test_a_key_with_somebody_elses_version_is_not_destroyed_as_a_whole(
    open_vault: Open, newest: bool
) -> None:
    backend, client = open_vault()
    key, strange = with_a_stranger(backend, client, newest=newest)
    for _ in range(2):
        with pytest.raises(Unsupported, match=f"doesn't know: {strange.partition('/')[2]}"):
            backend.destroy_all(handles(key))
    assert not is_deleted(client, name_of(key))
    assert backend.sign(strange, "ECDSA_SHA_256", b"x")
    for handle in handles(key):
        with pytest.raises(StateForbids):
            backend.sign(handle, "ECDSA_SHA_256", b"x")
    # Once the console has taken it over, it goes with the others.
    backend.destroy_all([*handles(key), strange])
    assert backend.observe(key.wanted) is None


def test_a_key_that_somebody_else_deleted_is_left_to_the_vault(open_vault: Open) -> None:
    """Azure lists no versions of a deleted key: others' may be among them."""
    backend, client = open_vault()
    key, _ = with_a_stranger(backend, client, newest=False)
    client.begin_delete_key(name_of(key)).wait(20)
    with pytest.raises(StillWaiting, match="can't be seen"):
        backend.destroy_all(handles(key))
    assert is_deleted(client, name_of(key))


FORBIDDEN = {
    "code": "Forbidden",
    "message": "Not authorized.",
    "innererror": {"code": "AccessDenied"},
}


@pytest.mark.parametrize(
    ("status", "body", "meant"),
    [
        (403, json.dumps({"error": FORBIDDEN}), StillWaiting),
        (403, "<html>Blocked by the proxy</html>", BackendRefused),
        (401, json.dumps({"error": {"code": "Unauthorized"}}), BackendRefused),
        (404, "<html>Not found</html>", BackendError),
    ],
)
def test_only_a_permission_that_is_missing_leaves_the_purge_to_the_vault(
    azure_server: Azure, tmp_path: Path, status: int, body: str, meant: type[Exception]
) -> None:
    """An expired credential is no reason to wait for weeks, and a page of a proxy's no purge."""
    settings = azure_server.vault()
    proxy, through = in_front_of(settings, tmp_path)
    straight, unsure = azure_server.backend(settings), azure_server.backend(through)
    key = kept(straight, EC)
    proxy.next(Fault.status(status, body), when="DELETE /deletedkeys/")
    with pytest.raises(KeyServiceError) as caught:
        unsure.destroy_all(handles(key))
    assert type(caught.value) is meant
    client = azure_server.client(settings)
    assert is_deleted(client, name_of(key))
    unsure.destroy_all(handles(key))
    assert straight.observe(key.wanted) is None
    for one in (straight, unsure, proxy, client):
        one.close()


def test_a_whole_key_is_destroyed_for_good_and_once_is_enough(open_vault: Open) -> None:
    backend, client = open_vault()
    key = two_versions(backend)
    schedule(key, 20)
    key.align()
    backend.destroy_all(handles(key))
    backend.destroy_all(handles(key))
    assert not is_deleted(client, name_of(key))
    assert backend.observe(key.wanted) is None
    with pytest.raises(NoMaterial):
        backend.sign(handles(key)[1], "ECDSA_SHA_256", b"x")
    cancel(key)
    with pytest.raises(NoMaterial):
        backend.conform(key.wanted)


def test_a_vault_with_purge_protection_says_when_it_destroys(
    open_vault: Open, azure_server: Azure
) -> None:
    backend, client = open_vault(retention=7, purge_protection=True)
    key = two_versions(backend)
    for _ in range(2):
        with pytest.raises(StillWaiting, match="purge protection") as caught:
            backend.destroy_all(handles(key))
        assert abs(caught.value.until - datetime.now(UTC) - 7 * DAY) < timedelta(minutes=1)
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert seen.state is KeyState.PENDING_DESTRUCTION
    settings = azure_server.settings(client.vault_url)
    azure_server.change(settings, rules={"ahead": 8 * 86_400})
    backend.destroy_all(handles(key))
    assert backend.observe(key.wanted) is None


def test_a_console_that_may_not_purge_waits_until_the_vault_does(open_vault: Open) -> None:
    backend, _ = open_vault(retention=7, denied=["purge"])
    key = kept(backend, EC)
    with pytest.raises(StillWaiting, match="may not purge") as caught:
        backend.destroy_all(handles(key))
    assert abs(caught.value.until - datetime.now(UTC) - 7 * DAY) < timedelta(minutes=1)


def test_one_version_of_several_goes_only_with_its_key(open_vault: Open) -> None:
    backend, _ = open_vault()
    key = two_versions(backend)
    old, new = handles(key)
    with pytest.raises(Unsupported, match="as a whole"):
        backend.check_destroyable(old, [old, new])
    backend.check_destroyable(new, [new])
    for _ in range(2):
        with pytest.raises(Unsupported, match="disabled instead"):
            backend.destroy(old)
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert [view.state for view in seen.versions] == [VersionState.SUSPENDED, VersionState.ACTIVE]
    assert backend.sign(new, "ECDSA_SHA_256", b"x")


def test_a_destruction_that_was_cut_short_is_finished_later(
    azure_server: Azure, tmp_path: Path
) -> None:
    settings = azure_server.vault()
    proxy, through = in_front_of(settings, tmp_path)
    straight, unsure = azure_server.backend(settings), azure_server.backend(through)
    for when in ("DELETE /keys/", "DELETE /deletedkeys/"):
        label = uuid.uuid4()
        handle = straight.generate(label, EC).handle
        proxy.next(Fault.swallow(), when=when)
        with pytest.raises(BackendUnavailable):
            unsure.destroy(handle)
        straight.destroy(handle)
        assert straight.find(label) is None
        # The name is free: nothing waits there.
        assert straight.generate(label, EC).handle != handle
    for one in (straight, unsure, proxy):
        one.close()


def test_one_versions_end_does_not_cut_short_its_keys_window(open_vault: Open) -> None:
    backend, client = open_vault()
    key = kept(backend, EC)
    schedule(key, 20)
    key.align()
    with pytest.raises(StillWaiting, match="can be recovered"):
        backend.remove(handles(key)[0])
    assert is_deleted(client, name_of(key))
    cancel(key)
    key.align()


def test_another_key_that_took_the_name_is_left_alone(open_vault: Open) -> None:
    backend, client = open_vault()
    key = kept(backend, EC)
    backend.destroy_all(handles(key))
    client.create_ec_key(name_of(key))
    backend.destroy_all(handles(key))
    backend.destroy(handles(key)[0])
    assert backend.observe(key.wanted) is None
    for days in (None, 20):
        if days:
            schedule(key, days)
        with pytest.raises(NoMaterial):
            backend.conform(key.wanted)
    assert client.get_key(name_of(key)).properties.enabled
    client.begin_delete_key(name_of(key)).wait(20)
    with pytest.raises(StillWaiting, match="doesn't know"):
        backend.destroy_all(handles(key))


def test_a_name_that_waits_for_its_end_can_not_be_used_again(open_vault: Open) -> None:
    backend, _ = open_vault(purge_protection=True)
    label, secret = uuid.uuid4(), some_material(EC)
    made = backend.import_material(label, EC, secret)
    with pytest.raises(StillWaiting):
        backend.remove(made.handle)
    assert backend.find(label) is None
    with pytest.raises(Conflict, match="deleted but recoverable"):
        backend.import_material(label, EC, secret)
