"""What AWS KMS destroys is whole keys, and what it tells can be late, or somebody else's doing.

Nothing goes that the console doesn't know of, and no alias or tag alone makes a key the console's.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keys.backends.aws.backend import AwsBackend
from keys.backends.base import Backend, Parent
from keys.backends.views import VersionView
from keys.errors import BackendUnavailable, Conflict, StillWaiting, Throttled, Unsupported
from keys.states import KeyState, VersionState
from tests.backends.keeping import DAY, Kept, kept
from tests.peers.aws import served
from tests.peers.faults import Fault, FaultProxy, in_front_of
from tests.peers.peer import Peer
from tests.stores.test_aws import Place, arn

ACTIVE, SUSPENDED = VersionState.ACTIVE, VersionState.SUSPENDED
NO_ROTATIONS = Fault.status(200, b'{"Rotations": []}')
REMOVED_TAG = "kms-console-material-removed"
OLDEST, NEWEST, WAITING = "0" * 64, "1" * 64, "2" * 64  # ids of materials


# One place for all: a client of the SDK takes a while to make, and each test has keys of its own.
@pytest.fixture(scope="module")
def on_moto(moto: Peer) -> Place:
    return Place(moto)


@pytest.fixture(scope="module")
def on_ministack(ministack: Peer) -> Place:
    return Place(ministack)


@contextmanager
def spoiled(place: Place, peer: Peer, folder: Path) -> Iterator[tuple[FaultProxy, Backend]]:
    """A new backend of a place, as of another process, whose answers can be spoiled."""
    served(peer)
    proxy, settings = in_front_of(place.settings, folder)
    assert isinstance(proxy, FaultProxy)
    with proxy:
        yield proxy, peer.backend(settings)


def said(code: str, message: str = "") -> Fault:
    return Fault.status(400, json.dumps({"__type": code, "message": message}))


def somebody_elses(place: Place) -> str:
    made = place.client.create_key(KeyUsage="ENCRYPT_DECRYPT")
    return str(made["KeyMetadata"]["Arn"])


# --- what shares an AWS key


def test_a_rotation_is_not_destroyed_alone_while_aws_does_not_list_it_yet(
    on_moto: Place, moto: Peer, tmp_path: Path
) -> None:
    key = kept(on_moto.store, "AES_256")
    first, second = key.materials[0].handle, key.rotate().handle
    with spoiled(on_moto, moto, tmp_path) as (proxy, store):
        proxy.next(NO_ROTATIONS, when="ListKeyRotations", times=None)
        with pytest.raises(Unsupported, match="whole key"):
            store.destroy(second)
        with pytest.raises(BackendUnavailable, match="not list"):
            store.destroy_all([first, second])
        proxy.clear()
        with pytest.raises(Unsupported, match="whole key"):
            store.destroy(first)
        # It was seen once: an older list doesn't undo it.
        proxy.next(NO_ROTATIONS, when="ListKeyRotations", times=None)
        with pytest.raises(Unsupported, match="whole key"):
            store.destroy(first)
    assert on_moto.states(first) == ["Enabled"]


def test_a_key_whose_rotations_are_not_told_is_not_taken_for_one_without_any(
    on_moto: Place, moto: Peer, tmp_path: Path
) -> None:
    handle = kept(on_moto.store, "AES_256").materials[0].handle
    with spoiled(on_moto, moto, tmp_path) as (proxy, store):
        proxy.next(said("UnsupportedOperationException"), when="ListKeyRotations", times=None)
        for call in (lambda: store.destroy(handle), lambda: store.destroy_all([handle])):
            with pytest.raises(Unsupported):
                call()
        assert any("how often" in view.problem for view in store.discover().keys)
    assert on_moto.states(handle) == ["Enabled"]


def test_an_aws_key_with_a_version_that_the_console_does_not_know_is_not_scheduled(
    on_moto: Place,
) -> None:
    key, soon = kept(on_moto.store, "AES_256"), datetime.now(UTC) + 10 * DAY
    handle = key.materials[0].handle
    other = on_moto.store.generate(uuid.uuid4(), "AES_256", parent=Parent(key.id))
    on_moto.client.rotate_key_on_demand(KeyId=arn(handle))
    key.believe(other)
    key.set(0, VersionState.DEACTIVATED, destroy_at=soon)
    key.set(1, SUSPENDED)
    with pytest.raises(Unsupported, match="since rotation 1"):
        on_moto.store.conform(key.wanted)
    assert on_moto.states(handle, other.handle) == ["Enabled", "Disabled"], "the rest is followed"
    key.state, key.destroy_at = KeyState.PENDING_DESTRUCTION, soon
    for call in (
        lambda: on_moto.store.conform(key.wanted),
        lambda: on_moto.store.destroy_all([other.handle, handle]),
    ):
        with pytest.raises(Unsupported, match="since rotation 1"):
            call()
    assert on_moto.states(handle, other.handle) == ["Enabled", "Disabled"], "none goes before all"
    key.versions.insert(1, VersionView(f"{arn(handle)}#1", ACTIVE))
    on_moto.store.conform(key.wanted)
    assert on_moto.states(handle, other.handle) == ["PendingDeletion"] * 2


def test_a_deletion_under_way_at_aws_does_not_make_one_rotation_destroyable(
    on_moto: Place,
) -> None:
    handle = kept(on_moto.store, "AES_256").materials[0].handle
    on_moto.client.rotate_key_on_demand(KeyId=arn(handle))
    on_moto.client.schedule_key_deletion(
        KeyId=arn(handle).rpartition("/")[2], PendingWindowInDays=7
    )
    with pytest.raises(Unsupported, match="whole key"):
        on_moto.store.destroy(handle)
    with pytest.raises(Unsupported, match="does not know"):
        on_moto.store.destroy_all([handle])
    with pytest.raises(StillWaiting):
        on_moto.store.destroy_all([handle, f"{arn(handle)}#1"])


# --- whose key an alias names


def test_an_alias_of_a_version_on_somebody_elses_key_makes_it_no_key_of_the_console(
    on_moto: Place,
) -> None:
    label, theirs = uuid.uuid4(), somebody_elses(on_moto)
    alias = f"alias/kms-console-version-{label}"
    on_moto.client.create_alias(AliasName=alias, TargetKeyId=theirs)
    assert on_moto.store.find(label) is None
    for _ in range(2):
        with pytest.raises(Conflict, match=alias):
            on_moto.store.generate(label, "AES_256")
    assert on_moto.states(theirs) == ["Enabled"]
    on_moto.client.delete_alias(AliasName=alias)
    made = on_moto.store.generate(label, "AES_256")
    assert arn(made.handle) != theirs
    assert on_moto.store.find(label) == made
    tagged = [view for view in on_moto.store.discover().keys if view.name.endswith(str(label))]
    assert len(tagged) == 1


def test_an_alias_of_the_key_on_somebody_elses_key_is_a_difference_and_is_left_alone(
    on_moto: Place,
) -> None:
    key, theirs = kept(on_moto.store, "AES_256"), somebody_elses(on_moto)
    alias = f"alias/kms-console-{key.id}"
    on_moto.client.update_alias(AliasName=alias, TargetKeyId=theirs)
    seen = on_moto.store.observe(key.wanted)
    assert seen is not None
    assert [(one.handle, one.primary) for one in seen.versions] == [(key.versions[0].handle, False)]
    key.state = KeyState.DISABLED
    with pytest.raises(Conflict, match=alias):
        on_moto.store.conform(key.wanted)
    assert on_moto.behind_alias(key) == theirs
    assert on_moto.states(key.versions[0].handle, theirs) == ["Disabled", "Enabled"]
    on_moto.client.delete_alias(AliasName=alias)
    key.align()
    assert on_moto.behind_alias(key) == arn(key.versions[0].handle)


def test_an_adopted_key_with_the_tag_of_another_leaves_the_others_alias(
    on_ministack: Place,
) -> None:
    before = kept(on_ministack.store, "HMAC_256")
    old = before.versions[0]
    newer = before.rotate().handle
    before.align()
    key = Kept(on_ministack.store, "HMAC_256", versions=[old])
    key.rotate()
    key.align()
    assert on_ministack.behind_alias(before) == arn(newer)
    assert on_ministack.behind_alias(key) == arn(key.versions[1].handle)


# --- imported material


def imported_key(place: Place) -> str:
    made = place.client.create_key(KeyUsage="ENCRYPT_DECRYPT", Origin="EXTERNAL")
    return str(made["KeyMetadata"]["Arn"])


def listed(*rows: tuple[str, str, float | None]) -> Fault:
    """ListKeyRotations as AWS writes it: id, state and date of each material."""
    told = [
        {"KeyMaterialId": one, "KeyMaterialState": state, "ImportState": "IMPORTED"}
        | ({"RotationDate": at, "RotationType": "ON_DEMAND"} if at else {})
        for one, state, at in rows
    ]
    return Fault.status(200, json.dumps({"Rotations": told}))


THREE = listed(
    (WAITING, "PENDING_ROTATION", None),
    (NEWEST, "CURRENT", 1.79e9),
    (OLDEST, "NON_CURRENT", None),
)


def test_every_material_that_an_imported_key_was_given_is_removed_with_it(
    on_ministack: Place, ministack: Peer, tmp_path: Path
) -> None:
    reference = imported_key(on_ministack)
    handles = [f"{reference}#0", f"{reference}#1"]
    with spoiled(on_ministack, ministack, tmp_path) as (proxy, store):
        proxy.next(THREE, when="ListKeyRotations", times=None)
        with pytest.raises(Unsupported, match="whole key"):
            store.destroy(handles[0])
        with pytest.raises(Unsupported, match="since rotation 1"):
            store.destroy_all(handles[:1])
        for one in (OLDEST, NEWEST, WAITING):
            proxy.next(Fault.status(200, b"{}"), when=f'"KeyMaterialId": "{one}"')
        pending = proxy.pending
        store.destroy_all(handles)
        assert proxy.pending == pending - 3
    assert on_ministack.states(reference) == ["PendingDeletion"]
    assert REMOVED_TAG in on_ministack.tags(reference)


def test_removing_imported_material_takes_the_versions_own_and_no_newer_one(
    on_ministack: Place, ministack: Peer, tmp_path: Path
) -> None:
    reference = imported_key(on_ministack)
    with spoiled(on_ministack, ministack, tmp_path) as (proxy, store):
        proxy.next(THREE, when="ListKeyRotations", times=None)
        for number, one in enumerate((OLDEST, NEWEST)):
            proxy.next(Fault.status(200, b"{}"), when=f'"KeyMaterialId": "{one}"')
            pending = proxy.pending
            store.remove(f"{reference}#{number}")
            assert proxy.pending == pending - 1
        with pytest.raises(BackendUnavailable):
            store.remove(f"{reference}#7")


def test_rotations_of_an_imported_key_show_as_versions(on_moto: Place) -> None:
    reference = imported_key(on_moto)
    on_moto.client.rotate_key_on_demand(KeyId=reference)
    view = on_moto.store.inspect(reference)
    assert view is not None
    assert [one.handle for one in view.versions] == [f"{reference}#0", f"{reference}#1"]


def test_a_destruction_that_is_taken_back_no_longer_says_that_the_material_is_gone(
    on_ministack: Place,
) -> None:
    reference = imported_key(on_ministack)
    tag = [{"TagKey": REMOVED_TAG, "TagValue": "yes"}]
    on_ministack.client.tag_resource(KeyId=reference, Tags=tag)
    on_ministack.client.schedule_key_deletion(KeyId=reference, PendingWindowInDays=7)
    version = VersionView(f"{reference}#0", ACTIVE, primary=True)
    key = Kept(on_ministack.store, "AES_256", versions=[version], imported=True)
    on_ministack.store.conform(key.wanted)
    assert REMOVED_TAG not in on_ministack.tags(reference)
    # Nor where somebody cancelled it at AWS.
    on_ministack.client.tag_resource(KeyId=reference, Tags=tag)
    key.state, key.destroy_at = KeyState.PENDING_DESTRUCTION, datetime.now(UTC) + 10 * DAY
    on_ministack.store.conform(key.wanted)
    with pytest.raises(StillWaiting):
        on_ministack.store.destroy(version.handle)


# --- answers that are late, or don't come


def test_a_key_that_is_not_shown_yet_right_after_it_was_made_is_looked_for_again(
    moto: Peer, tmp_path: Path
) -> None:
    place, label = Place(served(moto)), uuid.uuid4()
    with spoiled(place, moto, tmp_path) as (proxy, store):
        for action in ("CreateAlias", "GetPublicKey"):
            proxy.next(said("NotFoundException"), when=f"TrentService.{action}")
            with pytest.raises(BackendUnavailable, match="yet"):
                store.generate(label, "ECC_NIST_P256")
        made = store.generate(label, "ECC_NIST_P256")
        assert store.find(label) == made
        assert place.store.discover("", 1).total == 1


def test_a_search_by_tags_reads_all_pages_and_a_busy_aws_is_not_an_empty_one(
    moto: Peer, tmp_path: Path
) -> None:
    place, label = Place(served(moto)), uuid.uuid4()
    made = place.store.generate(label, "HMAC_256")
    place.client.delete_alias(AliasName=f"alias/kms-console-version-{label}")
    empty = {"PaginationToken": "next", "ResourceTagMappingList": []}
    full = {"PaginationToken": "", "ResourceTagMappingList": [{"ResourceARN": arn(made.handle)}]}
    with spoiled(place, moto, tmp_path) as (proxy, store):
        proxy.next(Fault.status(200, json.dumps(empty)), when="GetResources")
        proxy.next(Fault.status(200, json.dumps(full)), when='"PaginationToken": "next"')
        assert store.find(label) == made
        assert proxy.pending == 0
        proxy.next(said("ThrottlingException"), when="GetResources")
        with pytest.raises(Throttled):
            store.generate(label, "HMAC_256")
        denied = said("AccessDeniedException", "is not authorized to")
        proxy.next(denied, when="GetResources", times=None)
        proxy.next(said("ThrottlingException"), when="ListResourceTags")
        with pytest.raises(Throttled):
            store.generate(label, "HMAC_256")
        assert place.store.discover("", 1).total == 1, "none was made beside it"


# --- where requests go


def test_neither_the_environment_nor_a_profile_sends_requests_elsewhere(
    on_moto: Place, moto: Peer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served(moto)
    elsewhere = "http://127.0.0.1:9"
    configuration = tmp_path / "config"
    configuration.write_text(f"[default]\nendpoint_url = {elsewhere}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(configuration))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, elsewhere)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert len(moto.backend(on_moto.settings).random(16)) == 16
    store = moto.backend({"region": "eu-central-1"})
    assert isinstance(store, AwsBackend)
    client = store._connection._client("kms")
    assert client.meta.endpoint_url == "https://kms.eu-central-1.amazonaws.com"
    # The SDK's own clients, by which it takes the role of a profile.
    sts = store._connection._session._session.create_client("sts")
    assert sts.meta.endpoint_url.startswith("https://sts.")
    store.close()
    sts.close()
