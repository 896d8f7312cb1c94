"""Google Cloud KMS: what it shows of keys, and how it is brought in line with the console."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.cloud import kms_v1
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from keys.algorithms import MessageType
from keys.backends.base import Backend, NoMaterial, Parent
from keys.backends.gcp.backend import GcpBackend
from keys.backends.views import KeyView
from keys.errors import Invalid, StateForbids, Unsupported
from keys.states import KeyState, VersionState
from tests.backends.keeping import Kept, kept
from tests.backends.uses import some_material
from tests.peers.google import GoogleServer

_V, _K = VersionState, KeyState
LIVING = (_V.PRE_ACTIVE, _V.ACTIVE, _V.SUSPENDED, _V.DEACTIVATED, _V.COMPROMISED)
MESSAGE, AAD = b"dose: 5 mg", b"context"
DAY = timedelta(days=1)


@pytest.fixture
def store(google_store: Backend) -> Backend:
    return google_store


@pytest.fixture
def short(google_server: GoogleServer) -> Iterator[Backend]:
    """A store whose keys Google destroys within a day."""
    backend = GcpBackend(uuid.uuid4(), google_server.settings(destroy_days="1"), None)
    yield backend
    backend.close()


def rotated(store: Backend, spec: str = "AES_256") -> Kept:
    key = kept(store, spec)
    key.rotate()
    key.align()
    return key


def seen(key: Kept) -> KeyView:
    view = key.store.observe(key.wanted)
    assert view is not None
    return view


def states(view: KeyView) -> list[VersionState]:
    return [version.state for version in view.versions]


# --- in line with the console


# A key without a primary at Google has fewer ways: which version serves makes no difference there.
@pytest.mark.parametrize(("spec", "before"), [("AES_256", LIVING), ("HMAC_256", (_V.SUSPENDED,))])
def test_google_comes_in_line_with_every_state_from_every_other(
    store: Backend, spec: str, before: tuple[VersionState, ...]
) -> None:
    key = rotated(store, spec)
    for old, new, state in itertools.product(before, LIVING, (_K.ENABLED, _K.DISABLED)):
        serves = new in (_V.ACTIVE, _V.SUSPENDED)
        key.state = state
        key.versions = [
            replace(key.versions[0], state=old, primary=False),
            replace(key.versions[1], state=new, primary=serves),
        ]
        key.align()


def test_each_state_is_shown_as_google_can(store: Backend) -> None:
    key = rotated(store)
    assert states(seen(key)) == [_V.DEACTIVATED, _V.ACTIVE]
    key.set(0, _V.SUSPENDED)
    assert states(key.align()) == [_V.SUSPENDED, _V.ACTIVE]
    key.set(0, _V.COMPROMISED)
    assert states(key.align()) == [_V.DEACTIVATED, _V.ACTIVE]
    key.state = _K.DISABLED
    view = key.align()
    assert (view.state, states(view)) == (_K.DISABLED, [_V.DEACTIVATED, _V.ACTIVE])
    signer = rotated(store, "ECC_NIST_P256")
    assert states(seen(signer)) == [_V.ACTIVE, _V.ACTIVE], (
        "which one signs is the console's business"
    )
    assert [version.primary for version in seen(signer).versions] == [False, True]


def test_the_primary_version_is_the_one_that_google_encrypts_with(
    store: Backend, google_server: GoogleServer
) -> None:
    key = rotated(store)
    first, second = (version.handle for version in key.versions)
    (view,) = store.discover().keys
    assert [version.handle for version in view.versions if version.primary] == [second]
    # Somebody puts the old one back.
    name = first.partition("/cryptoKeyVersions/")[0]
    google_server.call(
        kms_v1.UpdateCryptoKeyPrimaryVersionRequest(name=name, crypto_key_version_id="1")
    )
    assert states(seen(key)) == [_V.ACTIVE, _V.DEACTIVATED]
    key.align()
    # Also where the new one may not be used at the moment.
    google_server.call(
        kms_v1.UpdateCryptoKeyPrimaryVersionRequest(name=name, crypto_key_version_id="1")
    )
    key.set(1, _V.SUSPENDED)
    key.align()
    with pytest.raises(StateForbids):
        store.encrypt(second, "AES_256_GCM", MESSAGE, AAD)


def test_a_version_that_the_console_does_not_know_is_shown_and_left_alone(
    store: Backend, google_server: GoogleServer
) -> None:
    key = rotated(store)
    name = key.versions[0].handle.partition("/cryptoKeyVersions/")[0]
    google_server.call(kms_v1.CreateCryptoKeyVersionRequest(parent=name))
    key.state = _K.DISABLED
    store.conform(key.wanted)
    view = seen(key)
    assert view.state is _K.DISABLED, "what the console knows of is disabled"
    stranger = view.version(f"{name}/cryptoKeyVersions/3")
    assert stranger is not None and stranger.state is _V.DEACTIVATED


def test_a_version_that_is_gone_at_google_is_said_once_the_rest_is_in_line(
    short: Backend, google_server: GoogleServer
) -> None:
    key = rotated(short)
    google_server.call(kms_v1.DestroyCryptoKeyVersionRequest(name=key.versions[0].handle))
    with google_server.later(days=2):
        assert [version.handle for version in seen(key).versions] == [key.versions[1].handle]
    key.state = _K.DISABLED
    with pytest.raises(NoMaterial, match="version 1"):
        short.conform(key.wanted)
    assert seen(key).state is _K.DISABLED
    google_server.call(kms_v1.DestroyCryptoKeyVersionRequest(name=key.versions[1].handle))
    with google_server.later(days=2):
        assert short.observe(key.wanted) is None


def test_a_key_without_versions_or_of_several_keys_is_not_asked_about(store: Backend) -> None:
    one, other = kept(store, "AES_256"), kept(store, "AES_256")
    mixed = replace(one.wanted, versions=(*one.versions, *other.versions))
    with pytest.raises(Invalid):
        store.observe(mixed)
    with pytest.raises(NoMaterial):
        store.conform(replace(one.wanted, versions=()))
    assert store.expressed(replace(one.wanted, versions=())).versions == ()
    gone = replace(one.versions[0], handle=one.versions[0].handle.replace(str(one.id), "none"))
    with pytest.raises(NoMaterial):
        store.conform(replace(one.wanted, versions=(gone,)))


# --- destruction


def test_a_scheduled_destruction_starts_googles_window_and_is_cancelled(store: Backend) -> None:
    key = rotated(store)
    sealed = store.encrypt(key.versions[1].handle, "AES_256_GCM", MESSAGE, AAD)
    key.state, key.destroy_at = _K.PENDING_DESTRUCTION, datetime.now(UTC) + 30 * DAY
    view = key.align()
    assert view.state is _K.PENDING_DESTRUCTION
    assert view.destroy_at is not None and view.destroy_at >= key.destroy_at - timedelta(hours=1)
    key.state, key.destroy_at = _K.DISABLED, None
    key.align()
    with pytest.raises(StateForbids):
        store.decrypt(key.versions[1].handle, "AES_256_GCM", sealed, AAD)
    key.state = _K.ENABLED
    key.align()
    assert store.decrypt(key.versions[1].handle, "AES_256_GCM", sealed, AAD) == MESSAGE


def test_a_shorter_wait_than_googles_ends_when_google_ends_it(store: Backend) -> None:
    key = kept(store, "AES_256")
    key.state, key.destroy_at = _K.PENDING_DESTRUCTION, datetime.now(UTC) + 7 * DAY
    store.conform(key.wanted)
    view = seen(key)
    assert view.state is _K.PENDING_DESTRUCTION
    assert view.destroy_at is not None
    assert 29 * DAY < view.destroy_at - datetime.now(UTC) <= 30 * DAY
    store.conform(key.wanted)
    assert seen(key).destroy_at == view.destroy_at, "a second time begins nothing anew"


def test_google_is_never_told_so_early_that_it_would_destroy_before_the_date(
    short: Backend, google_server: GoogleServer
) -> None:
    """Its window of a day is shorter than what is left: the version is disabled meanwhile."""
    key = rotated(short)
    key.state, key.destroy_at = _K.PENDING_DESTRUCTION, datetime.now(UTC) + 10 * DAY
    view = key.align()
    assert (view.state, view.destroy_at) == (_K.PENDING_DESTRUCTION, key.destroy_at)
    (told,) = short.discover().keys
    assert told.state is _K.DISABLED, "what Google itself knows of it"
    with pytest.raises(StateForbids):
        short.encrypt(key.versions[1].handle, "AES_256_GCM", MESSAGE, AAD)
    with google_server.later(days=5):
        assert seen(key).state is _K.PENDING_DESTRUCTION
    key.state, key.destroy_at = _K.ENABLED, None
    key.align()


def test_a_destruction_that_somebody_began_too_early_is_put_off(
    short: Backend, google_server: GoogleServer
) -> None:
    key = kept(short, "AES_256")
    google_server.call(kms_v1.DestroyCryptoKeyVersionRequest(name=key.versions[0].handle))
    key.state, key.destroy_at = _K.PENDING_DESTRUCTION, datetime.now(UTC) + 10 * DAY
    assert seen(key).destroy_at != key.destroy_at, "Google would be done tomorrow"
    assert key.align().destroy_at == key.destroy_at
    with google_server.later(days=3):
        assert seen(key).state is _K.PENDING_DESTRUCTION


def test_one_version_is_destroyed_alone(store: Backend) -> None:
    key = rotated(store)
    key.set(0, _V.DEACTIVATED, datetime.now(UTC) + 30 * DAY)
    view = key.align()
    assert view.state is _K.ENABLED
    assert view.versions[0].destroy_at is not None
    store.encrypt(key.versions[1].handle, "AES_256_GCM", MESSAGE, AAD)
    key.set(0, _V.DEACTIVATED)
    key.align()


# --- rotation by Google, and labels


def test_googles_own_rotation_makes_a_version_that_the_console_does_not_know(
    store: Backend, google_server: GoogleServer
) -> None:
    key = rotated(store)
    key.rotation_days = 90
    assert key.align().rotation_days == 90
    with google_server.later(days=91):
        view = seen(key)
    assert len(view.versions) == 3
    newest = view.versions[-1]
    assert newest.primary and key.wanted.version(newest.handle) is None
    store.conform(key.wanted)
    assert seen(key).version(key.versions[1].handle).primary  # type: ignore[union-attr]


def test_a_period_that_is_switched_off_is_off(store: Backend) -> None:
    key = kept(store, "AES_256")
    for days in (1, 400, None):
        key.rotation_days = days
        assert key.align().rotation_days == days
    signer = kept(store, "ECC_NIST_P256")
    signer.rotation_days = 90
    assert signer.align().rotation_days is None, "only symmetric keys rotate at Google"


def test_labels_of_others_stay_and_the_consoles_own_are_not_shown(
    store: Backend, google_server: GoogleServer
) -> None:
    key = rotated(store)
    key.tags = {"team": "billing", "kms-console-version-9": "of-nobody"}
    store.conform(key.wanted)
    view = seen(key)
    assert view.tags == {"team": "billing"}
    third = key.rotate()
    assert store.find(uuid.uuid4(), key.parent) is None
    assert third.handle.endswith("/3")
    assert seen(key).tags == {"team": "billing"}


# --- discovery


def test_what_others_made_is_found_with_the_reason_why_it_can_not_be_taken_over(
    store: Backend, google_server: GoogleServer
) -> None:
    ring = store.health().facts["key ring"]
    algorithms = kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm
    purposes, levels = kms_v1.CryptoKey.CryptoKeyPurpose, kms_v1.ProtectionLevel

    def make(
        name: str, purpose: str, algorithm: str, level: str = "SOFTWARE", **more: bool
    ) -> None:
        key = kms_v1.CryptoKey(
            purpose=purposes[purpose],
            version_template={
                "algorithm": algorithms[algorithm],
                "protection_level": levels[level],
            },
            labels={"team": "them"},
        )
        google_server.call(
            kms_v1.CreateCryptoKeyRequest(parent=ring, crypto_key_id=name, crypto_key=key, **more)
        )

    make("a-cipher", "ENCRYPT_DECRYPT", "GOOGLE_SYMMETRIC_ENCRYPTION")
    make("b-raw", "RAW_ENCRYPT_DECRYPT", "AES_256_GCM")
    make("c-sha1", "MAC", "HMAC_SHA1")
    make("d-empty", "MAC", "HMAC_SHA256", skip_initial_version_creation=True)
    make("e-far", "ENCRYPT_DECRYPT", "EXTERNAL_SYMMETRIC_ENCRYPTION", "EXTERNAL",
         skip_initial_version_creation=True)  # fmt: skip
    google_server.call(kms_v1.CreateCryptoKeyVersionRequest(parent=f"{ring}/cryptoKeys/e-far"))
    make("f-whole", "ASYMMETRIC_SIGN", "PQ_SIGN_ML_DSA_44")
    make("g-mac", "MAC", "HMAC_SHA256")
    found = {view.name: view for view in store.discover().keys}
    assert list(found) == sorted(found)
    assert store.discover().total == len(found) == 7
    problems = {name: view.problem for name, view in found.items()}
    assert problems["a-cipher"] == "" == problems["g-mac"]
    assert "AES_256_GCM" in problems["b-raw"]
    assert "HMAC_SHA1" in problems["c-sha1"]
    assert "no version" in problems["d-empty"]
    assert "external" in problems["e-far"]
    assert found["d-empty"].state is _K.PENDING_IMPORT
    assert found["e-far"].facts["protection level"] == "EXTERNAL"
    assert (found["a-cipher"].spec, found["a-cipher"].usage) == ("AES_256", "ENCRYPT_DECRYPT")
    assert found["a-cipher"].tags == {"team": "them"}
    # Google was still making it when it was listed; looked at again, it is ready.
    whole = store.inspect(found["f-whole"].reference)
    assert whole is not None and whole.problem == ""
    assert (whole.spec, whole.algorithm) == ("ML_DSA_44", "ML_DSA_SHAKE_256")
    assert whole.versions[0].primary and whole.versions[0].public_key


def test_a_key_that_was_taken_over_is_used_and_rotated_under_its_own_name(
    store: Backend, google_server: GoogleServer
) -> None:
    ring = store.health().facts["key ring"]
    key = kms_v1.CryptoKey(
        purpose=kms_v1.CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT,
        labels={"team": "them"},
        rotation_period=Duration(seconds=90 * 86400),
        next_rotation_time=Timestamp(seconds=int((datetime.now(UTC) + 90 * DAY).timestamp())),
    )
    google_server.call(
        kms_v1.CreateCryptoKeyRequest(parent=ring, crypto_key_id="invoices", crypto_key=key)
    )
    (view,) = store.discover().keys
    taken = Kept(store, "AES_256", versions=list(view.versions))
    taken.rotation_days, taken.tags = view.rotation_days, view.tags
    assert (view.rotation_days, taken.in_line().state) == (90, _K.ENABLED)
    handle = view.versions[0].handle
    sealed = store.encrypt(handle, "AES_256_GCM", MESSAGE, AAD)
    label = uuid.uuid4()
    material = taken.generate(label)
    assert material.handle == f"{ring}/cryptoKeys/invoices/cryptoKeyVersions/2"
    assert store.find(label, taken.parent) == material == taken.generate(label)
    taken.believe(material)
    assert taken.align().tags == {"team": "them"}
    assert store.decrypt(handle, "AES_256_GCM", sealed, AAD) == MESSAGE


def test_an_ml_dsa_key_of_others_signs_messages_but_no_mu(
    store: Backend, google_server: GoogleServer
) -> None:
    ring = store.health().facts["key ring"]
    key = kms_v1.CryptoKey(
        purpose=kms_v1.CryptoKey.CryptoKeyPurpose.ASYMMETRIC_SIGN,
        version_template={
            "algorithm": kms_v1.CryptoKeyVersion.CryptoKeyVersionAlgorithm.PQ_SIGN_ML_DSA_44
        },
    )
    google_server.call(
        kms_v1.CreateCryptoKeyRequest(parent=ring, crypto_key_id="theirs", crypto_key=key)
    )
    store.discover()
    view = store.inspect(f"{ring}/cryptoKeys/theirs")
    assert view is not None
    handle = view.versions[0].handle
    signature = store.sign(handle, "ML_DSA_SHAKE_256", MESSAGE)
    assert store.verify(handle, "ML_DSA_SHAKE_256", MESSAGE, signature)
    with pytest.raises(Unsupported):
        store.sign(handle, "ML_DSA_SHAKE_256", bytes(64), message_type=MessageType.EXTERNAL_MU)


def test_a_listing_goes_on_where_it_stopped_and_refuses_a_cursor_of_its_own_making(
    store: Backend,
) -> None:
    for _ in range(5):
        store.generate(uuid.uuid4(), "AES_256", parent=Parent(uuid.uuid4()))
    first = store.discover(limit=2)
    second = store.discover(first.cursor, limit=2)
    last = store.discover(second.cursor, limit=2)
    assert [len(page.keys) for page in (first, second, last)] == [2, 2, 1]
    assert last.cursor == ""
    every = [view.reference for page in (first, second, last) for view in page.keys]
    assert every == [view.reference for view in store.discover().keys]
    for cursor in ("nonsense", first.cursor[:-4], "\ud800"):
        with pytest.raises(Invalid):
            store.discover(cursor)
    for reference in ("", "x", every[0] + "/more", every[0].replace("/keyRings/", "/keyRings/x")):
        assert store.inspect(reference) is None


def test_imported_keys_are_shown_as_such(store: Backend) -> None:
    brought = store.import_material(uuid.uuid4(), "AES_256", some_material("AES_256"))
    (view,) = store.discover().keys
    assert view.imported
    assert view.versions[0].handle == brought.handle
