"""AWS KMS's own ways: rotations on demand inside a key, whole keys that are disabled and destroyed.

Rotations are shown on moto, imports and states on ministack; `client` is somebody else at AWS.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from keys.algorithms import ALGORITHMS, SPECS, Usage
from keys.backends import materials
from keys.backends.aws import making
from keys.backends.aws.backend import AwsBackend
from keys.backends.base import Backend, NoMaterial, Parent
from keys.errors import (
    BackendRefused,
    Conflict,
    Invalid,
    StateForbids,
    StillWaiting,
    TooLarge,
    Unsupported,
)
from keys.secret import Secret
from keys.states import KeyState, VersionState
from tests.backends.keeping import DAY, Kept, kept
from tests.backends.uses import some_material
from tests.peers.aws import served
from tests.peers.faults import Fault, in_front_of
from tests.peers.peer import Peer

BASE = Path(__file__).resolve().parent.parent.parent
GCM = "AES_256_GCM"
ACTIVE, SUSPENDED = VersionState.ACTIVE, VersionState.SUSPENDED
DEACTIVATED = VersionState.DEACTIVATED


class Place:
    """A region of a server that nobody used: a backend of it, and AWS's own client beside it."""

    def __init__(self, peer: Peer) -> None:
        self.settings = dict(peer.fresh())
        self.store: Backend = peer.backend(self.settings)
        key = json.loads(peer.credential or b"{}")
        self.client: Any = boto3.client(
            "kms",
            region_name=self.settings["region"],
            endpoint_url=self.settings.get("endpoint"),
            aws_access_key_id=key.get("access_key_id"),
            aws_secret_access_key=key.get("secret_access_key"),
        )

    def states(self, *handles: str) -> list[str]:
        """Return what AWS says of the keys that hold these versions."""
        keys = [self.client.describe_key(KeyId=arn(handle)) for handle in handles]
        return [key["KeyMetadata"]["KeyState"] for key in keys]

    def rotations(self, handle: str) -> int:
        return len(self.client.list_key_rotations(KeyId=arn(handle))["Rotations"])

    def tags(self, handle: str) -> dict[str, str]:
        rows = self.client.list_resource_tags(KeyId=arn(handle))["Tags"]
        return {row["TagKey"]: row["TagValue"] for row in rows}

    def behind_alias(self, key: Kept) -> str:
        alias = f"alias/kms-console-{key.id}"
        return str(self.client.describe_key(KeyId=alias)["KeyMetadata"]["Arn"])


def arn(handle: str) -> str:
    return handle.partition("#")[0]


# One place for all: a client of the SDK takes a while to make, and each test has keys of its own.
@pytest.fixture(scope="module")
def on_moto(moto: Peer) -> Place:
    return Place(moto)


@pytest.fixture(scope="module")
def on_ministack(ministack: Peer) -> Place:
    return Place(ministack)


# --- rotations


def test_a_symmetric_key_is_rotated_in_place_and_its_budget_shows(on_moto: Place) -> None:
    key = kept(on_moto.store, "AES_256")
    sealed = on_moto.store.encrypt(key.materials[0].handle, GCM, b"dose", b"context")
    key.rotate()
    key.rotate()
    assert [one.handle for one in key.materials] == [
        f"{arn(key.materials[0].handle)}#{number}" for number in range(3)
    ]
    seen = key.align()
    assert [one.state for one in seen.versions] == [DEACTIVATED, DEACTIVATED, ACTIVE]
    assert (seen.facts["rotations_used"], seen.facts["rotations_limit"]) == ("2", "25")
    for material in key.materials:
        assert on_moto.store.decrypt(material.handle, GCM, sealed, b"context") == b"dose"


def test_a_rotation_whose_answer_was_never_written_down_is_not_made_again(on_moto: Place) -> None:
    key, label = kept(on_moto.store, "AES_256"), uuid.uuid4()
    made = key.generate(label)
    assert key.generate(label) == made
    assert on_moto.store.find(label, key.parent) == made
    assert on_moto.rotations(made.handle) == 1


def test_a_rotation_that_was_announced_and_not_made_is_made_once(on_moto: Place) -> None:
    key, label = kept(on_moto.store, "AES_256"), uuid.uuid4()
    handle = key.materials[0].handle
    on_moto.client.tag_resource(
        KeyId=arn(handle), Tags=[{"TagKey": "kms-console-version-1", "TagValue": str(label)}]
    )
    assert on_moto.store.find(label, key.parent) is None
    assert key.generate(label).handle == f"{arn(handle)}#1"
    assert on_moto.rotations(handle) == 1


def test_a_rotation_that_takes_its_time_is_waited_for_and_not_asked_for_again(
    on_moto: Place, moto: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(making, "ROTATION_PAUSE", 0.0)
    key, label = kept(on_moto.store, "AES_256"), uuid.uuid4()
    served(moto)
    proxy, settings = in_front_of(on_moto.settings, tmp_path)
    with proxy:
        store = moto.backend(settings)
        proxy.next(Fault.status(200, b'{"Rotations": []}'), when="ListKeyRotations", times=None)
        with pytest.raises(StillWaiting, match="rotating"):
            key.generate(label, store)
        assert store.find(label, key.parent) is None
        under_way = b'{"KeyRotationEnabled": false, "OnDemandRotationStartDate": 1790000000}'
        proxy.next(Fault.status(200, under_way), when="GetKeyRotationStatus")
        with pytest.raises(StillWaiting):
            key.generate(label, store)
        proxy.clear()
        assert key.generate(label, store) == store.find(label, key.parent)
    assert on_moto.rotations(key.materials[0].handle) == 1


def test_what_somebody_rotated_at_aws_is_taken_for_the_next_version(on_moto: Place) -> None:
    key = kept(on_moto.store, "AES_256")
    handle = key.materials[0].handle
    on_moto.client.rotate_key_on_demand(KeyId=arn(handle))
    seen = on_moto.store.observe(key.wanted)
    assert seen is not None
    assert [one.handle for one in seen.versions] == [handle, f"{arn(handle)}#1"]
    assert key.rotate().handle == f"{arn(handle)}#1"
    assert on_moto.rotations(handle) == 1
    assert key.rotate().handle == f"{arn(handle)}#2"


def test_after_25_rotations_the_next_version_is_a_new_key_behind_the_alias(on_moto: Place) -> None:
    key = kept(on_moto.store, "AES_256")
    first = arn(key.materials[0].handle)
    for _ in range(24):
        on_moto.client.rotate_key_on_demand(KeyId=first)
    key.rotate()
    key.set(1, ACTIVE)
    assert arn(key.rotate().handle) == first  # the 25th
    for number in range(1, 25):
        key.versions.insert(number, replace(key.versions[0], handle=f"{first}#{number}"))
    del key.versions[25]
    seen = on_moto.store.inspect(first)
    assert seen is not None
    assert seen.facts["rotations_used"] == "25"
    second = arn(key.rotate().handle)
    assert second != first
    assert on_moto.rotations(first) == 25
    assert on_moto.behind_alias(key) == first, "not before the version is the primary one"
    seen = key.align()
    assert on_moto.behind_alias(key) == second
    assert (seen.reference, seen.facts["rotations_used"]) == (second, "0")


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "HMAC_256"])
def test_a_key_that_aws_cannot_rotate_gets_a_new_one_behind_its_alias(
    on_ministack: Place, spec: str
) -> None:
    key = kept(on_ministack.store, spec)
    label = uuid.uuid4()
    second = key.generate(label)
    assert arn(second.handle) != arn(key.materials[0].handle)
    assert on_ministack.store.find(label, key.parent) == second
    key.believe(second)
    assert on_ministack.behind_alias(key) == arn(key.materials[0].handle)
    seen = key.align()
    assert on_ministack.behind_alias(key) == arn(second.handle)
    # Nothing at AWS says that the older pair signs no more; the console refuses it.
    assert [(one.state, one.primary) for one in seen.versions] == [(ACTIVE, False), (ACTIVE, True)]


def test_a_disabled_key_is_not_rotated(on_moto: Place) -> None:
    key = kept(on_moto.store, "AES_256")
    key.state = KeyState.DISABLED
    key.align()
    with pytest.raises(StateForbids, match="enabled"):
        key.rotate()
    assert on_moto.rotations(key.materials[0].handle) == 0


# --- making, and finding again


def test_a_key_that_lost_its_alias_is_found_by_its_tags(
    on_moto: Place, on_ministack: Place
) -> None:
    for place in (on_moto, on_ministack):
        label = uuid.uuid4()
        material = place.store.generate(label, "AES_256")
        kept(place.store, "AES_256")
        place.client.delete_alias(AliasName=f"alias/kms-console-version-{label}")
        assert place.store.find(label) == material
        assert place.store.generate(label, "AES_256") == material
        place.client.describe_key(KeyId=f"alias/kms-console-version-{label}")  # it has it again


def test_without_the_tagging_service_every_key_is_looked_at(
    on_moto: Place, moto: Peer, tmp_path: Path
) -> None:
    label = uuid.uuid4()
    material = on_moto.store.generate(label, "HMAC_256")
    on_moto.client.delete_alias(AliasName=f"alias/kms-console-version-{label}")
    served(moto)
    proxy, settings = in_front_of(on_moto.settings, tmp_path)
    with proxy:
        denied = b'{"__type": "AccessDeniedException", "message": "not authorized"}'
        proxy.next(Fault.status(400, denied), when="GetResources", times=None)
        assert moto.backend(settings).find(label) == material


def test_a_key_for_wrapping_keys_says_so_by_a_tag(on_ministack: Place) -> None:
    material = on_ministack.store.generate(uuid.uuid4(), "RSA_2048", usage=Usage.WRAP_UNWRAP)
    wrapped = on_ministack.store.wrap(material.handle, "RSAES_OAEP_SHA_256", bytes(32))
    assert on_ministack.store.unwrap(material.handle, "RSAES_OAEP_SHA_256", wrapped) == bytes(32)
    with pytest.raises(Unsupported, match="WRAP_UNWRAP"):
        on_ministack.store.encrypt(material.handle, "RSAES_OAEP_SHA_256", b"x", b"")
    seen = on_ministack.store.inspect(arn(material.handle))
    assert seen is not None
    assert (seen.usage, seen.algorithm) == ("WRAP_UNWRAP", "RSAES_OAEP_SHA_256")
    assert seen.tags == {}


def test_handles_of_another_region_and_of_no_such_rotation_name_nothing(on_moto: Place) -> None:
    handle = on_moto.store.generate(uuid.uuid4(), "AES_256").handle
    region = on_moto.settings["region"]
    for wrong in (handle.replace(region, "eu-west-1"), f"{arn(handle)}#1", arn(handle), "#0"):
        with pytest.raises(NoMaterial):
            on_moto.store.encrypt(wrong, GCM, b"x", b"")


# --- states


def test_a_suspended_version_is_disabled_at_aws_only_where_its_key_is_its_own(
    on_ministack: Place, on_moto: Place
) -> None:
    pair = kept(on_ministack.store, "ECC_NIST_P256")
    pair.rotate()
    pair.set(0, SUSPENDED)
    seen = pair.align()
    assert [one.state for one in seen.versions] == [SUSPENDED, ACTIVE]
    assert seen.state is KeyState.ENABLED
    assert on_ministack.states(*(one.handle for one in pair.materials)) == ["Disabled", "Enabled"]
    with pytest.raises(StateForbids):
        on_ministack.store.sign(pair.materials[0].handle, "ECDSA_SHA_256", b"x")
    pair.set(0, DEACTIVATED)
    pair.align()
    on_ministack.store.sign(pair.materials[0].handle, "ECDSA_SHA_256", b"x")

    shared = kept(on_moto.store, "AES_256")
    shared.rotate()
    shared.set(1, SUSPENDED)
    seen = shared.align()
    assert [one.state for one in seen.versions] == [DEACTIVATED, ACTIVE]
    assert on_moto.states(shared.materials[1].handle) == ["Enabled"], "the older one still opens"
    on_moto.store.suspend(shared.materials[0].handle)
    assert on_moto.states(shared.materials[1].handle) == ["Enabled"]


def test_disabling_scheduling_and_cancelling_are_followed_by_every_key_of_it(
    on_ministack: Place,
) -> None:
    key = kept(on_ministack.store, "ECC_NIST_P256")
    key.rotate()
    handles = [one.handle for one in key.materials]
    key.state = KeyState.DISABLED
    key.align()
    assert on_ministack.states(*handles) == ["Disabled"] * 2
    key.state, key.destroy_at = KeyState.PENDING_DESTRUCTION, datetime.now(UTC) + 12 * DAY
    for _ in range(2):
        seen = key.align()
        assert on_ministack.states(*handles) == ["PendingDeletion"] * 2
        assert seen.destroy_at is not None
        assert abs(seen.destroy_at - key.destroy_at) < DAY
    with pytest.raises(StateForbids):
        on_ministack.store.sign(handles[1], "ECDSA_SHA_256", b"x")
    key.state, key.destroy_at = KeyState.DISABLED, None
    key.align()
    assert on_ministack.states(*handles) == ["Disabled"] * 2
    key.state = KeyState.ENABLED
    key.align()
    on_ministack.store.sign(handles[1], "ECDSA_SHA_256", b"x")


def test_a_deletion_that_somebody_asked_for_at_aws_is_moved_to_the_date_that_is_believed(
    on_ministack: Place,
) -> None:
    key = kept(on_ministack.store, "AES_256")
    key.state, key.destroy_at = KeyState.PENDING_DESTRUCTION, datetime.now(UTC) + 20 * DAY
    on_ministack.client.schedule_key_deletion(
        KeyId=arn(key.materials[0].handle), PendingWindowInDays=7
    )
    seen = key.align()
    assert seen.destroy_at is not None
    assert abs(seen.destroy_at - key.destroy_at) < DAY


def test_what_is_left_of_a_window_is_never_cut_short(on_ministack: Place) -> None:
    for left, expected in ((2 * DAY, 7 * DAY), (30 * DAY + timedelta(minutes=5), 30 * DAY)):
        key = kept(on_ministack.store, "AES_256")
        key.state, key.destroy_at = KeyState.PENDING_DESTRUCTION, datetime.now(UTC) + left
        on_ministack.store.conform(key.wanted)
        seen = on_ministack.store.observe(key.wanted)
        assert seen is not None
        assert seen.destroy_at is not None
        assert abs(seen.destroy_at - datetime.now(UTC) - expected) < DAY / 2
        before = seen
        on_ministack.store.conform(key.wanted)
        assert on_ministack.store.observe(key.wanted) == before, "asking again moves no date"


def test_a_window_longer_than_aws_has_is_the_consoles_own(on_ministack: Place) -> None:
    key = kept(on_ministack.store, "AES_256")
    key.state, key.destroy_at = KeyState.PENDING_DESTRUCTION, datetime.now(UTC) + 60 * DAY
    assert key.align().state is KeyState.DISABLED
    assert on_ministack.states(key.materials[0].handle) == ["Disabled"]


def test_other_peoples_tags_stay_and_the_ones_that_are_believed_come_back(
    on_ministack: Place,
) -> None:
    key = kept(on_ministack.store, "AES_256")
    key.tags = {"team": "records", "stage": "live"}
    key.rotation_days = 400
    seen = key.align()
    assert (seen.tags, seen.rotation_days) == ({"team": "records", "stage": "live"}, 400)
    there = {"KeyId": arn(key.materials[0].handle)}
    on_ministack.client.tag_resource(
        **there,
        Tags=[{"TagKey": "team", "TagValue": "x"}, {"TagKey": "cost", "TagValue": "7"}],
    )
    on_ministack.client.untag_resource(**there, TagKeys=["stage"])
    on_ministack.client.disable_key_rotation(**there)
    assert key.align().tags == {"team": "records", "stage": "live", "cost": "7"}
    key.rotation_days = 30  # AWS has 90 days at least
    assert key.align().rotation_days == 90
    key.rotation_days = None
    assert key.align().rotation_days is None


# --- the end


def test_one_rotation_is_not_destroyed_without_the_others(on_moto: Place) -> None:
    key = kept(on_moto.store, "AES_256")
    key.rotate()
    handles = [one.handle for one in key.materials]
    with pytest.raises(Unsupported, match="whole key"):
        on_moto.store.check_destroyable(handles[0], handles)
    with pytest.raises(Unsupported, match="whole key"):
        on_moto.store.destroy(handles[0])
    assert on_moto.states(handles[0]) == ["Enabled"]
    other = on_moto.store.generate(uuid.uuid4(), "AES_256").handle
    on_moto.store.check_destroyable(other, [*handles, other])
    for _ in range(2):
        with pytest.raises(StillWaiting) as caught:
            on_moto.store.destroy_all([*handles, other])
        assert caught.value.until is not None
        assert abs(caught.value.until - datetime.now(UTC) - 7 * DAY) < DAY
    assert on_moto.states(*handles, other) == ["PendingDeletion"] * 3


# --- imports


# Each import has the server make an RSA-4096 key, which takes a second.
@pytest.mark.parametrize(
    "spec",
    ["AES_256"]
    + [
        pytest.param(spec, marks=pytest.mark.exhaustive)
        for spec in ("HMAC_384", "RSA_2048", "ECC_NIST_P521")
    ],
)
def test_removed_material_comes_back_under_its_label_and_destroyed_is_gone_at_once(
    on_ministack: Place, spec: str
) -> None:
    store, secret, label = on_ministack.store, some_material(spec), uuid.uuid4()
    parent = Parent(uuid.uuid4())
    material = store.import_material(label, spec, secret, parent=parent)
    assert material.check_value == materials.check_value(SPECS[spec], secret)
    seen = store.inspect(arn(material.handle))
    assert seen is not None
    assert seen.imported
    store.remove(material.handle)
    store.remove(material.handle)
    assert store.find(label, parent) is None
    waiting = store.inspect(arn(material.handle))
    assert waiting is not None
    assert waiting.state is KeyState.PENDING_IMPORT
    assert "imported" in waiting.problem
    with pytest.raises(Conflict):
        store.import_material(label, spec, some_material(spec), parent=parent)
    # A destruction that was cancelled at AWS left this: it is not true of what is brought again.
    on_ministack.client.tag_resource(
        KeyId=arn(material.handle),
        Tags=[{"TagKey": "kms-console-material-removed", "TagValue": "yes"}],
    )
    assert store.import_material(label, spec, secret, parent=parent) == material
    assert "kms-console-material-removed" not in on_ministack.tags(material.handle)
    for _ in range(2):
        store.destroy(material.handle)
    assert on_ministack.states(material.handle) == ["PendingDeletion"]
    assert store.find(label, parent) is None


def test_material_made_by_aws_is_neither_removed_nor_written_over(on_ministack: Place) -> None:
    label = uuid.uuid4()
    material = on_ministack.store.generate(label, "AES_256")
    with pytest.raises(Unsupported):
        on_ministack.store.remove(material.handle)
    with pytest.raises(Conflict):
        on_ministack.store.import_material(label, "AES_256", some_material("AES_256"))
    for spec in ("ML_DSA_65", "ML_KEM_768"):
        with pytest.raises(Unsupported, match="elsewhere"):
            on_ministack.store.import_material(uuid.uuid4(), spec, Secret(bytes(32)))


# --- discovery


def test_everything_in_the_region_is_listed_and_says_what_it_is(moto: Peer) -> None:
    on_moto = Place(served(moto))
    client = on_moto.client
    theirs = client.create_key(
        KeySpec="RSA_2048",
        KeyUsage="ENCRYPT_DECRYPT",
        Tags=[{"TagKey": "team", "TagValue": "records"}],
    )["KeyMetadata"]["Arn"]
    client.create_alias(AliasName="alias/billing", TargetKeyId=theirs)
    strange = client.create_key(KeySpec="SM2", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    ours = kept(on_moto.store, "AES_256")
    found, cursor = {}, ""
    while True:
        page = on_moto.store.discover(cursor, 2)
        assert page.total == 3
        assert len(page.keys) <= 2
        found.update({view.reference: view for view in page.keys})
        cursor = page.cursor
        if not cursor:
            break
    assert set(found) == {theirs, strange, arn(ours.materials[0].handle)}
    view = found[theirs]
    assert (view.name, view.spec, view.usage) == ("billing", "RSA_2048", "ENCRYPT_DECRYPT")
    assert (view.algorithm, view.tags, view.problem) == (
        "RSAES_OAEP_SHA_256",
        {"team": "records"},
        "",
    )
    assert not view.provider_managed
    assert "SM2" in found[strange].problem
    assert (found[strange].spec, found[strange].algorithm) == ("", "")
    assert found[arn(ours.materials[0].handle)].name == f"kms-console-{ours.id}"


def test_a_key_that_aws_manages_for_a_service_is_shown_as_its_own(
    on_moto: Place, moto: Peer, tmp_path: Path
) -> None:
    # No peer has such keys: its answer is changed to say what AWS says of them.
    made = on_moto.client.create_key(KeyUsage="ENCRYPT_DECRYPT")
    reference = made["KeyMetadata"]["Arn"]
    served(moto)
    proxy, settings = in_front_of(on_moto.settings, tmp_path)
    with proxy:
        proxy.next(
            Fault.alter(
                lambda body: body.replace(b'"KeyManager": "CUSTOMER"', b'"KeyManager": "AWS"')
            ),
            when="DescribeKey",
        )
        view = moto.backend(settings).inspect(reference)
    assert view is not None
    assert view.provider_managed
    assert view.rotation_days is None
    assert "rotations_limit" not in view.facts
    assert view.problem == ""


def test_a_key_whose_policy_keeps_the_console_out_is_listed_as_such(
    moto: Peer, tmp_path: Path
) -> None:
    place = Place(served(moto))
    closed, opened = sorted(arn(kept(place.store, "AES_256").materials[0].handle) for _ in range(2))
    proxy, settings = in_front_of(place.settings, tmp_path)
    with proxy:
        denied = b'{"__type": "AccessDeniedException", "message": "is not authorized to"}'
        proxy.next(Fault.status(400, denied), when="DescribeKey")
        first, second = moto.backend(settings).discover().keys
        assert (first.reference, second.reference) == (closed, opened)
        assert "policy" in first.problem
        assert second.problem == ""
        # An expired credential is another matter, and ends the listing.
        proxy.next(Fault.status(400, b'{"__type": "ExpiredTokenException"}'), when="DescribeKey")
        with pytest.raises(BackendRefused, match="expired"):
            moto.backend(settings).discover()


def test_a_label_whose_key_is_about_to_be_destroyed_takes_nothing_new(on_moto: Place) -> None:
    label = uuid.uuid4()
    material = on_moto.store.generate(label, "HMAC_256")
    with pytest.raises(StillWaiting):
        on_moto.store.destroy(material.handle)
    assert on_moto.store.find(label) is None
    for make in (
        lambda: on_moto.store.generate(label, "HMAC_256"),
        lambda: on_moto.store.import_material(label, "HMAC_256", some_material("HMAC_256")),
    ):
        with pytest.raises(Conflict):
            make()
    on_moto.client.cancel_key_deletion(KeyId=arn(material.handle).rpartition("/")[2])
    assert on_moto.store.generate(label, "HMAC_256") == material


def test_somebody_elses_key_is_looked_at_and_rotated_once_it_is_the_consoles(
    on_moto: Place,
) -> None:
    made = on_moto.client.create_key(KeyUsage="ENCRYPT_DECRYPT")
    reference = made["KeyMetadata"]["Arn"]
    view = on_moto.store.inspect(reference)
    assert view is not None
    assert [(one.state, one.primary) for one in view.versions] == [(ACTIVE, True)]
    key = Kept(on_moto.store, "AES_256", versions=list(view.versions))
    key.align()
    assert key.rotate().handle == f"{reference}#1"
    assert on_moto.store.inspect("arn:aws:kms:nowhere:1:key/none") is None


def test_an_alias_of_ours_comes_to_somebody_elses_pair_with_its_second_version(
    on_ministack: Place,
) -> None:
    made = on_ministack.client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")
    view = on_ministack.store.inspect(made["KeyMetadata"]["Arn"])
    assert view is not None
    key = Kept(on_ministack.store, "ECC_NIST_P256", versions=list(view.versions))
    second = key.generate(uuid.uuid4())
    # Until it is the primary one the key is what it was.
    seen = key.in_line()
    assert [one.primary for one in seen.versions] == [True]
    key.believe(second)
    assert [one.primary for one in key.align().versions] == [False, True]
    assert on_ministack.behind_alias(key) == arn(second.handle)


# --- uses


def test_a_long_message_is_digested_here_and_an_empty_one_too(on_ministack: Place) -> None:
    store = on_ministack.store
    pair = store.generate(uuid.uuid4(), "ECC_NIST_P384", usage=Usage.SIGN_VERIFY).handle
    for message in (b"", b"x" * 4096, b"x" * 4097):
        signature = store.sign(pair, "ECDSA_SHA_384", message)
        assert store.verify(pair, "ECDSA_SHA_384", message, signature)
    edwards = store.generate(uuid.uuid4(), "ECC_NIST_EDWARDS25519").handle
    hmac = store.generate(uuid.uuid4(), "HMAC_256").handle
    for call in (
        lambda text: store.sign(edwards, "ED25519_SHA_512", text),
        lambda text: store.mac(hmac, "HMAC_SHA_256", text),
    ):
        assert call(b"x" * 4096)
        with pytest.raises(TooLarge, match="4096"):
            call(b"x" * 4097)
        with pytest.raises(Unsupported, match="empty"):
            call(b"")


def test_a_message_of_ml_dsa_that_is_too_long_is_handed_over_as_its_mu() -> None:
    from keys.backends.aws.acts import _shortened
    from keys.backends.aws.keyring import Usable

    spec, row = SPECS["ML_DSA_44"], ALGORITHMS["ML_DSA_SHAKE_256"]
    private, public = materials.new_pair(spec)
    mu, kind = _shortened(Usable(spec, Usage.SIGN_VERIFY, public), row, b"x" * 5000)
    pair = materials.imported_private_key(spec, private)
    signature = pair.sign(b"x" * 5000)  # type: ignore[call-arg, union-attr]
    loaded = materials.load_public_key(public, spec)
    assert materials.verify_signature(loaded, row, mu, signature, kind)


def test_answers_that_no_peer_gives_are_read_as_aws_writes_them(
    on_ministack: Place, ministack: Peer, tmp_path: Path
) -> None:
    curve = on_ministack.store.generate(uuid.uuid4(), "ECC_NIST_P256", usage=Usage.KEY_AGREEMENT)
    secret = on_ministack.store.generate(uuid.uuid4(), "AES_256").handle
    _, lattice = materials.new_pair(SPECS["ML_KEM_768"])

    def as_ml_kem(body: bytes) -> bytes:
        told = json.loads(body)
        told["KeyMetadata"] |= {"KeySpec": "ML_KEM_768", "KeyUsage": "ENCAPSULATE_DECAPSULATE"}
        return json.dumps(told).encode()

    served(ministack)
    proxy, settings = in_front_of(on_ministack.settings, tmp_path)
    with proxy:
        store = ministack.backend(settings)
        shared = {"SharedSecret": base64.b64encode(bytes(range(32))).decode()}
        answer = json.dumps(shared | {"KeyAgreementAlgorithm": "ECDH"})
        proxy.next(Fault.status(200, answer), when="TrentService.DeriveSharedSecret")
        assert store.agree(curve.handle, "ECDH", curve.public_key or b"") == bytes(range(32))
        with pytest.raises(Invalid):
            store.agree(curve.handle, "ECDH", lattice)

        public = json.dumps({"PublicKey": base64.b64encode(lattice).decode()})
        proxy.next(Fault.alter(as_ml_kem), when="TrentService.DescribeKey")
        proxy.next(Fault.status(200, public), when="TrentService.GetPublicKey")
        answer = json.dumps(shared | {"EncapsulationAlgorithm": "ML_KEM"})
        proxy.next(Fault.status(200, answer), when="TrentService.Decapsulate")
        assert store.decapsulate(secret, "ML_KEM", bytes(1088)) == bytes(range(32))
        assert proxy.pending == 0


def test_what_aws_offers_are_algorithms_of_the_console(moto: Peer) -> None:
    offered = moto.backend().capabilities()
    assert {"ML_DSA_44", "ML_DSA_87", "ML_KEM_768", "ECC_NIST_EDWARDS25519"} <= set(
        offered.algorithms
    )
    assert offered.window == (7, 30)
    assert AwsBackend.protection.value == "hsm"


def test_the_policy_in_the_documentation_allows_every_action_and_no_other() -> None:
    text = (BASE / "docs" / "stores" / "aws.md").read_text()
    (policy,) = [
        json.loads(block)
        for block in re.findall(r"```json\n(.*?)```", text, re.S)
        if "Sid" in block
    ]
    allowed = {action for row in policy["Statement"] for action in row["Action"]}
    names = boto3.client("kms", region_name="eu-central-1").meta.method_to_api_mapping
    code = "".join(
        path.read_text() for path in sorted((BASE / "keys" / "backends" / "aws").glob("*.py"))
    )
    called = {f"kms:{names[word]}" for word in re.findall(r'"([a-z_]+)"', code) if word in names}
    assert allowed == {*called, "tag:GetResources"}
