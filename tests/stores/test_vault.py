"""Transit's own ways: one key with numbered versions, two minimums for states, soft deletion."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from keys.algorithms import SPECS, Usage
from keys.backends import materials
from keys.backends.base import Backend, Material, NoMaterial, Parent
from keys.backends.views import KeyView, VersionView
from keys.errors import BackendError, CannotDecrypt, Conflict, StateForbids, Unsupported
from keys.secret import Secret
from keys.states import KeyState, VersionState
from tests.backends.uses import some_material
from tests.peers.openbao import Admin
from tests.peers.peer import Peer

AAD = b"header and context"
GCM = "AES_256_GCM"
_V = VersionState
# What a version that has material can be.
LIVING = (_V.PRE_ACTIVE, _V.ACTIVE, _V.SUSPENDED, _V.DEACTIVATED, _V.COMPROMISED)


class Place:
    """A mount, a backend of it, and ways to make keys with several versions."""

    def __init__(self, peer: Peer, admin: Admin, settings: Mapping[str, Any]) -> None:
        self.mount = str(settings["mount"])
        self.store: Backend = peer.backend(settings)
        self.another: Backend = peer.backend(settings)
        self.third: Backend = peer.backend(settings)
        self.admin = admin

    def key(self, versions: int, spec: str = "AES_256") -> tuple[str, list[Material]]:
        """Return a transit key's name, and its versions, oldest first."""
        parent, made = Parent(uuid.uuid4()), list[Material]()
        for _ in range(versions):
            made.append(self.store.generate(uuid.uuid4(), spec, parent=parent))
            parent = replace(parent, newest=made[-1].handle)
        return made[0].handle.partition(":")[0], made

    def imported(self, versions: int, spec: str = "AES_256") -> list[Material]:
        parent, made = Parent(uuid.uuid4()), list[Material]()
        for _ in range(versions):
            secret = some_material(spec)
            made.append(self.store.import_material(uuid.uuid4(), spec, secret, parent=parent))
            parent = replace(parent, newest=made[-1].handle)
        return made

    def close(self) -> None:
        self.store.close()
        self.another.close()
        self.third.close()


@pytest.fixture(scope="module")
def place(openbao: Peer, openbao_admin: Admin, openbao_place: Mapping[str, Any]) -> Iterator[Place]:
    """Tests share an engine; each makes keys of its own."""
    made = Place(openbao, openbao_admin, openbao_place)
    yield made
    made.close()


@pytest.fixture
def empty(openbao: Peer, openbao_admin: Admin) -> Iterator[Place]:
    made = Place(openbao, openbao_admin, openbao.fresh())
    yield made
    made.close()


def believed(
    made: list[Material], *states: VersionState, key: KeyState = KeyState.ENABLED
) -> KeyView:
    """What the console believes of these versions; the last active one is its primary."""
    versions = [
        VersionView(material.handle, state, public_key=material.public_key)
        for material, state in zip(made, states, strict=True)
    ]
    active = [index for index, state in enumerate(states) if state is _V.ACTIVE]
    if active:
        versions[active[-1]] = replace(versions[active[-1]], primary=True)
    return KeyView("", "invoices", key, tuple(versions), "AES_256", "ENCRYPT_DECRYPT", GCM)


def compared(view: KeyView | None) -> object:
    """What drift compares."""
    assert view is not None
    versions = [(one.handle, one.state, one.primary, one.destroy_at) for one in view.versions]
    return view.state, view.destroy_at, view.rotation_days, view.tags, versions


# --- rotation


def test_a_key_of_the_console_is_one_transit_key_and_a_rotation_its_next_version(
    place: Place,
) -> None:
    key = uuid.uuid4()
    first = place.store.generate(uuid.uuid4(), "AES_256", parent=Parent(key))
    assert first.handle == f"kms-console-{key}:1"
    second = place.store.generate(uuid.uuid4(), "AES_256", parent=Parent(key, newest=first.handle))
    assert second.handle == f"kms-console-{key}:2"
    old = place.store.encrypt(first.handle, GCM, b"old", AAD)
    new = place.store.encrypt(second.handle, GCM, b"new", AAD)
    assert place.store.decrypt(first.handle, GCM, old, AAD) == b"old"
    with pytest.raises(CannotDecrypt):
        place.store.decrypt(second.handle, GCM, old, AAD)
    assert place.store.decrypt(second.handle, GCM, new, AAD) == b"new"


@pytest.mark.parametrize("spec", ["AES_128", "HMAC_384", "ECC_NIST_P384"])
def test_a_rotation_whose_answer_was_lost_is_found_and_not_done_twice(
    place: Place, spec: str
) -> None:
    key, label = uuid.uuid4(), uuid.uuid4()
    assert place.store.find(label, Parent(key)) is None
    first = place.store.generate(uuid.uuid4(), spec, parent=Parent(key))
    before = Parent(key, newest=first.handle)
    assert place.store.find(label, before) is None
    second = place.store.generate(label, spec, parent=before)
    # Another process, which knows of the first version only.
    assert place.another.find(label, before) == second
    assert place.another.generate(label, spec, parent=before) == second
    assert place.admin.key(place.mount, first.handle[:-2])["latest_version"] == 2


def test_a_key_of_somebody_elses_name_is_rotated_under_that_name(place: Place) -> None:
    place.admin.ask("POST", f"{place.mount}/keys/payroll", {"type": "ed25519"})
    parent = Parent(uuid.uuid4(), newest="payroll:1")
    made = place.store.generate(uuid.uuid4(), "ECC_NIST_EDWARDS25519", parent=parent)
    assert made.handle == "payroll:2"
    assert made.public_key is not None


def test_a_key_that_was_made_anew_behind_the_consoles_back_is_not_rotated(place: Place) -> None:
    for versions in (1, 2):
        name, made = place.key(versions)
        parent = Parent(uuid.uuid4(), newest=made[-1].handle)
        place.store.destroy_all([one.handle for one in made])
        with pytest.raises(NoMaterial):
            place.store.generate(uuid.uuid4(), "AES_256", parent=parent)
        assert place.store.find(uuid.uuid4(), parent) is None
    place.admin.ask("POST", f"{place.mount}/keys/{name}", {})
    with pytest.raises(BackendError, match="fewer versions"):
        place.store.generate(uuid.uuid4(), "AES_256", parent=parent)


def test_another_spec_for_the_next_version_is_a_conflict(place: Place) -> None:
    _, made = place.key(1)
    parent = Parent(uuid.uuid4(), newest=made[0].handle)
    for spec in ("AES_128", "ECC_NIST_P256"):
        with pytest.raises(Conflict):
            place.store.generate(uuid.uuid4(), spec, parent=parent)


def test_encrypting_with_a_key_that_is_gone_makes_no_new_one(
    place: Place, openbao: Peer, openbao_admin: Admin
) -> None:
    """Transit makes a key on the way where the token may: with this one it may."""
    settings = {"address": openbao_admin.address, "mount": place.mount}
    almighty = openbao.backend(settings, credential=openbao_admin.token.encode())
    name, made = place.key(1)
    pair = place.store.generate(uuid.uuid4(), "RSA_2048", usage=Usage.ENCRYPT_DECRYPT)
    almighty.encrypt(made[0].handle, GCM, b"x", AAD)
    almighty.encrypt(pair.handle, "RSAES_OAEP_SHA_256", b"x", b"")
    place.store.destroy(made[0].handle)
    place.store.destroy(pair.handle)
    with pytest.raises(NoMaterial):
        almighty.encrypt(made[0].handle, GCM, b"x", AAD)
    with pytest.raises(NoMaterial):
        almighty.encrypt(pair.handle, "RSAES_OAEP_SHA_256", b"x", b"")
    assert almighty.inspect(name) is None
    almighty.close()


# --- states


def test_whatever_is_believed_conforming_makes_the_store_say_what_was_expressed(
    place: Place,
) -> None:
    """Every state of three versions, and of two in a disabled key and one that is to be destroyed."""
    _, three = place.key(3)
    _, two = place.key(2)
    soon = datetime.now(UTC) + timedelta(days=9)
    cases = [believed(three, *states) for states in itertools.product(LIVING, repeat=3)]
    for state in (KeyState.DISABLED, KeyState.PENDING_DESTRUCTION, KeyState.ENABLED):
        cases += [
            believed(two, *states, key=state) for states in itertools.product(LIVING, repeat=2)
        ]
    for wanted in cases:
        if wanted.state is KeyState.PENDING_DESTRUCTION:
            wanted = replace(wanted, destroy_at=soon)
        place.store.conform(wanted)
        seen = place.store.observe(wanted)
        assert compared(seen) == compared(place.store.expressed(wanted)), wanted
    place.store.conform(cases[-1])
    assert compared(place.another.observe(cases[-1])) == compared(seen)


def test_a_rotated_key_protects_with_the_new_version_only_and_still_reads_the_old(
    place: Place,
) -> None:
    _, made = place.key(2)
    old, new = (one.handle for one in made)
    sealed = place.store.encrypt(old, GCM, b"old", AAD)
    place.store.conform(believed(made, _V.DEACTIVATED, _V.ACTIVE))
    with pytest.raises(StateForbids):
        place.store.encrypt(old, GCM, b"x", AAD)
    assert place.store.decrypt(old, GCM, sealed, AAD) == b"old"
    assert place.store.encrypt(new, GCM, b"x", AAD)


def test_a_deactivated_mac_key_and_signing_key_still_verify(place: Place) -> None:
    _, macs = place.key(2, "HMAC_256")
    _, pairs = place.key(2, "ECC_NIST_P256")
    tag = place.store.mac(macs[0].handle, "HMAC_SHA_256", b"old")
    signature = place.store.sign(pairs[0].handle, "ECDSA_SHA_256", b"old")
    place.store.conform(believed(macs, _V.DEACTIVATED, _V.ACTIVE))
    place.store.conform(believed(pairs, _V.DEACTIVATED, _V.ACTIVE))
    assert place.store.verify_mac(macs[0].handle, "HMAC_SHA_256", b"old", tag)
    assert not place.store.verify_mac(macs[0].handle, "HMAC_SHA_256", b"new", tag)
    assert place.another.verify(pairs[0].handle, "ECDSA_SHA_256", b"old", signature)
    with pytest.raises(StateForbids):
        place.store.mac(macs[0].handle, "HMAC_SHA_256", b"new")
    with pytest.raises(StateForbids):
        place.store.sign(pairs[0].handle, "ECDSA_SHA_256", b"new")


@pytest.mark.parametrize("state", [_V.SUSPENDED, _V.COMPROMISED])
def test_the_oldest_version_can_be_refused_by_the_store_itself_and_come_back(
    place: Place, state: VersionState
) -> None:
    _, made = place.key(2)
    old, new = (one.handle for one in made)
    sealed = place.store.encrypt(old, GCM, b"old", AAD)
    place.store.conform(believed(made, state, _V.ACTIVE))
    with pytest.raises(StateForbids):
        place.store.encrypt(old, GCM, b"x", AAD)
    with pytest.raises(StateForbids):
        place.store.decrypt(old, GCM, sealed, AAD)
    assert place.store.encrypt(new, GCM, b"x", AAD)
    place.store.conform(believed(made, _V.ACTIVE, _V.ACTIVE))
    assert place.store.decrypt(old, GCM, sealed, AAD) == b"old"
    assert place.store.encrypt(old, GCM, b"x", AAD)


def test_a_version_that_nothing_may_use_keeps_its_public_key_to_itself(place: Place) -> None:
    _, made = place.key(2, "ECC_NIST_P256")
    wanted = believed(made, _V.SUSPENDED, _V.ACTIVE)
    signature = place.store.sign(made[0].handle, "ECDSA_SHA_256", b"x")
    place.store.conform(wanted)
    seen, said = place.another.observe(wanted), place.store.expressed(wanted)
    assert seen is not None
    for view in (seen, said):
        assert [one.public_key for one in view.versions] == [None, made[1].public_key]
    with pytest.raises(StateForbids):
        place.another.verify(made[0].handle, "ECDSA_SHA_256", b"x", signature)


def test_a_suspended_version_between_others_stays_to_the_console_and_it_says_so(
    place: Place,
) -> None:
    """Refusing the second would lose what the first has to decrypt."""
    _, made = place.key(3)
    said = place.store.expressed(believed(made, _V.DEACTIVATED, _V.SUSPENDED, _V.ACTIVE))
    assert [one.state for one in said.versions] == [_V.DEACTIVATED, _V.DEACTIVATED, _V.ACTIVE]


def test_a_key_all_of_whose_versions_are_suspended_is_closed_as_a_whole(place: Place) -> None:
    _, made = place.key(1)
    sealed = place.store.encrypt(made[0].handle, GCM, b"x", AAD)
    wanted = believed(made, _V.SUSPENDED)
    place.store.conform(wanted)
    with pytest.raises(StateForbids):
        place.store.decrypt(made[0].handle, GCM, sealed, AAD)
    assert place.store.expressed(wanted).state is KeyState.DISABLED
    place.store.conform(believed(made, _V.ACTIVE))
    assert place.store.decrypt(made[0].handle, GCM, sealed, AAD) == b"x"


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.PENDING_DESTRUCTION])
def test_a_closed_key_is_refused_by_the_store_in_every_use_until_it_is_opened_again(
    place: Place, state: KeyState
) -> None:
    _, made = place.key(1)
    _, pair = place.key(1, "ECC_NIST_P256")
    sealed = place.store.encrypt(made[0].handle, GCM, b"x", AAD)
    for one in (made, pair):
        place.store.conform(believed(one, _V.ACTIVE, key=state))
    parent = Parent(uuid.uuid4(), newest=made[0].handle)
    for call in (
        lambda: place.store.encrypt(made[0].handle, GCM, b"x", AAD),
        lambda: place.store.decrypt(made[0].handle, GCM, sealed, AAD),
        lambda: place.store.sign(pair[0].handle, "ECDSA_SHA_256", b"x"),
        lambda: place.store.generate(uuid.uuid4(), "AES_256", parent=parent),
    ):
        with pytest.raises(StateForbids):
            call()
    # Cancelling a destruction, or enabling.
    for one in (made, pair):
        place.store.conform(believed(one, _V.ACTIVE))
    assert place.store.decrypt(made[0].handle, GCM, sealed, AAD) == b"x"
    assert place.store.sign(pair[0].handle, "ECDSA_SHA_256", b"x")


def test_the_stores_own_rotation_is_seen_and_brought_in_line(place: Place) -> None:
    name, made = place.key(1)
    wanted = believed(made, _V.ACTIVE)
    path = f"{place.mount}/keys/{name}/config"
    for period, days in ((7 * 86_400, 7), (3_600, 1), (25 * 3_600, 2)):
        place.admin.ask("POST", path, {"auto_rotate_period": period})
        seen = place.store.observe(wanted)
        assert seen is not None
        assert seen.rotation_days == days
    place.store.conform(wanted)
    assert compared(place.store.observe(wanted)) == compared(place.store.expressed(wanted))
    place.store.conform(replace(wanted, rotation_days=90))
    assert place.admin.key(place.mount, name)["auto_rotate_period"] == 90 * 86_400


def test_versions_that_the_console_does_not_know_are_seen_and_left_as_they_are(
    place: Place,
) -> None:
    name, made = place.key(2)
    place.admin.ask("POST", f"{place.mount}/keys/{name}/rotate", {})
    wanted = believed(made, _V.DEACTIVATED, _V.ACTIVE)
    place.store.conform(wanted)
    seen = place.store.observe(wanted)
    assert seen is not None
    assert [(one.handle, one.state, one.primary) for one in seen.versions] == [
        (f"{name}:1", _V.DEACTIVATED, False),
        (f"{name}:2", _V.ACTIVE, False),
        (f"{name}:3", _V.ACTIVE, True),
    ]
    assert all(one.created_at is not None for one in seen.versions)


def test_an_older_version_that_the_console_does_not_know_still_decrypts(place: Place) -> None:
    name, made = place.key(3)
    sealed = place.store.encrypt(made[0].handle, GCM, b"theirs", AAD)
    place.store.conform(believed(made[1:], _V.DEACTIVATED, _V.ACTIVE))
    assert place.store.decrypt(made[0].handle, GCM, sealed, AAD) == b"theirs"
    place.store.conform(believed(made[1:], _V.ACTIVE, _V.ACTIVE))
    assert place.admin.key(place.mount, name)["min_decryption_version"] == 1


def test_versions_that_were_trimmed_by_another_hand_do_not_come_back(place: Place) -> None:
    name, made = place.key(3)
    path = f"{place.mount}/keys/{name}"
    minimums = {"min_decryption_version": 3, "min_encryption_version": 3}
    place.admin.ask("POST", f"{path}/config", minimums)
    place.admin.ask("POST", f"{path}/trim", {"min_available_version": 3})
    wanted = believed(made, _V.ACTIVE, _V.DEACTIVATED, _V.ACTIVE)
    place.store.conform(replace(wanted, rotation_days=9))
    seen = place.store.observe(wanted)
    assert seen is not None
    assert [one.handle for one in seen.versions] == [made[2].handle]
    assert seen.rotation_days == 9


def test_what_is_not_there_is_seen_as_such(place: Place) -> None:
    _, made = place.key(1)
    wanted = believed(made, _V.ACTIVE)
    place.store.destroy(made[0].handle)
    assert place.store.observe(wanted) is None
    with pytest.raises(NoMaterial):
        place.store.conform(wanted)
    for reference in ("nothing", "../sys/mounts", "a/b", "", "x?help=1"):
        assert place.store.inspect(reference) is None


# --- destruction


def test_the_oldest_version_is_trimmed_and_the_others_stay(place: Place) -> None:
    name, made = place.key(3)
    first, second, third = (one.handle for one in made)
    sealed = place.store.encrypt(third, GCM, b"x", AAD)
    place.store.destroy(first)
    place.store.destroy(first)
    with pytest.raises(NoMaterial):
        place.store.encrypt(first, GCM, b"x", AAD)
    with pytest.raises(NoMaterial):
        place.another.decrypt(first, GCM, sealed, AAD)
    place.store.destroy(second)
    assert place.admin.key(place.mount, name)["min_available_version"] == 3
    assert place.store.decrypt(third, GCM, sealed, AAD) == b"x"
    wanted = believed(made[2:], _V.ACTIVE)
    place.store.conform(wanted)
    assert compared(place.store.observe(wanted)) == compared(place.store.expressed(wanted))
    place.store.destroy(third)
    assert place.store.inspect(name) is None


def test_a_version_that_is_not_the_oldest_can_not_be_destroyed_alone(place: Place) -> None:
    _, made = place.key(3)
    handles = [one.handle for one in made]
    place.store.check_destroyable(handles[0], handles)
    place.store.check_destroyable(handles[1], handles[1:])
    place.store.check_destroyable(handles[2], handles[2:])
    for handle in handles[1:]:
        with pytest.raises(Unsupported, match="oldest"):
            place.store.check_destroyable(handle, handles)
        with pytest.raises(Unsupported, match="oldest"):
            place.store.destroy(handle)
        assert place.store.encrypt(handle, GCM, b"x", AAD)


@pytest.mark.parametrize("state", [KeyState.ENABLED, KeyState.PENDING_DESTRUCTION])
def test_a_whole_key_is_destroyed_with_all_its_versions(place: Place, state: KeyState) -> None:
    name, made = place.key(3)
    place.store.conform(believed(made, _V.COMPROMISED, _V.DEACTIVATED, _V.ACTIVE, key=state))
    handles = [one.handle for one in made]
    place.store.destroy_all(handles)
    place.store.destroy_all(handles)
    assert place.another.inspect(name) is None
    for handle in handles:
        with pytest.raises(NoMaterial):
            place.store.encrypt(handle, GCM, b"x", AAD)


def test_a_version_that_somebody_else_made_survives_the_destruction_of_ours(place: Place) -> None:
    name, made = place.key(2)
    place.admin.ask("POST", f"{place.mount}/keys/{name}/rotate", {})
    place.store.destroy_all([one.handle for one in made])
    seen = place.store.inspect(name)
    assert seen is not None
    assert [one.handle for one in seen.versions] == [f"{name}:3"]
    assert place.store.encrypt(f"{name}:3", GCM, b"x", AAD)
    for one in made:
        with pytest.raises(NoMaterial):
            place.store.encrypt(one.handle, GCM, b"x", AAD)


def test_an_older_version_that_somebody_else_made_is_not_destroyed_on_the_way(
    place: Place,
) -> None:
    name, made = place.key(3)
    with pytest.raises(Unsupported, match="doesn't know: 2"):
        place.store.destroy_all([made[0].handle, made[2].handle])
    assert place.admin.key(place.mount, name)["latest_version"] == 3


# --- imports


def test_an_imported_key_takes_its_next_version_by_import_only(place: Place) -> None:
    made = place.imported(2)
    name = made[0].handle[:-2]
    assert [one.handle for one in made] == [f"{name}:1", f"{name}:2"]
    newest = Parent(uuid.uuid4(), newest=made[1].handle)
    with pytest.raises(Unsupported, match="import the next version"):
        place.store.generate(uuid.uuid4(), "AES_256", parent=newest)
    _, generated = place.key(1)
    newest = Parent(uuid.uuid4(), newest=generated[0].handle)
    with pytest.raises(Unsupported, match="only for a key that was imported"):
        place.store.import_material(
            uuid.uuid4(), "AES_256", some_material("AES_256"), parent=newest
        )
    seen = place.store.inspect(name)
    assert seen is not None
    assert seen.imported


@pytest.mark.parametrize("spec", ["AES_128", "XCHACHA20", "HMAC_512", "ECC_NIST_P521"])
def test_an_import_whose_answer_was_lost_is_recognised_by_its_material(
    place: Place, spec: str
) -> None:
    secret, other = some_material(spec), some_material(spec)
    key, label = uuid.uuid4(), uuid.uuid4()
    first = place.store.import_material(label, spec, secret, parent=Parent(key))
    assert first.check_value == materials.check_value(SPECS[spec], secret)
    assert place.another.import_material(label, spec, secret, parent=Parent(key)) == first
    with pytest.raises(Conflict):
        place.another.import_material(label, spec, other, parent=Parent(key))
    before = Parent(key, newest=first.handle)
    second = place.store.import_material(uuid.uuid4(), spec, other, parent=before)
    assert place.another.import_material(uuid.uuid4(), spec, other, parent=before) == second
    found = place.third.find(label, before)
    assert found is not None
    assert (found.handle, found.public_key) == (second.handle, second.public_key)
    # Nothing that transit says of a cipher key tells one from another, but to who brought it.
    known = "" if spec in ("AES_128", "XCHACHA20") else second.check_value
    assert found.check_value == known


def test_an_imported_rsa_key_works_for_both_of_its_uses(place: Place) -> None:
    secret = some_material("RSA_2048")
    made = place.store.import_material(uuid.uuid4(), "RSA_2048", secret)
    sealed = place.store.encrypt(made.handle, "RSAES_OAEP_SHA_256", b"x", b"")
    assert place.store.decrypt(made.handle, "RSAES_OAEP_SHA_256", sealed, b"") == b"x"
    with pytest.raises(Unsupported, match="label"):
        place.store.encrypt(made.handle, "RSAES_OAEP_SHA_256", b"x", AAD)


def test_removed_material_comes_back_as_it_was(place: Place) -> None:
    secret, label, parent = some_material("AES_256"), uuid.uuid4(), Parent(uuid.uuid4())
    made = place.store.import_material(label, "AES_256", secret, parent=parent)
    sealed = place.store.encrypt(made.handle, GCM, b"x", AAD)
    place.store.remove(made.handle)
    place.store.remove(made.handle)
    with pytest.raises(NoMaterial):
        place.store.decrypt(made.handle, GCM, sealed, AAD)
    again = place.store.import_material(label, "AES_256", Secret(secret.reveal()), parent=parent)
    assert again == made
    assert place.store.decrypt(made.handle, GCM, sealed, AAD) == b"x"


def test_one_of_several_imported_versions_can_not_be_taken_back(place: Place) -> None:
    made = place.imported(2)
    for one in made:
        with pytest.raises(Unsupported, match="only the first"):
            place.store.remove(one.handle)
        assert place.store.encrypt(one.handle, GCM, b"x", AAD)


# --- discovery


def test_the_engines_own_key_for_imports_is_not_listed(place: Place) -> None:
    (made,) = place.imported(1)
    names = [view.name for view in place.store.discover().keys]
    assert made.handle[:-2] in names
    assert not any(name.startswith("import") for name in names)


def test_a_listing_shows_every_key_once_page_by_page(empty: Place) -> None:
    assert empty.store.discover().keys == ()
    for number in range(7):
        empty.admin.ask("POST", f"{empty.mount}/keys/key-{number}", {"type": "ed25519"})
    cursor, found, pages = "", list[KeyView](), 0
    while True:
        page = empty.store.discover(cursor, 3)
        assert page.total == 7
        found, pages, cursor = [*found, *page.keys], pages + 1, page.cursor
        if not cursor:
            break
    assert pages == 3
    assert [view.name for view in found] == [f"key-{number}" for number in range(7)]
    assert {view.problem for view in found} == {""}
    # A listing goes on where another process left it.
    assert [view.name for view in empty.another.discover("key-4").keys] == ["key-5", "key-6"]


def test_keys_that_can_not_be_adopted_are_listed_with_the_reason(empty: Place) -> None:
    kinds: dict[str, dict[str, object]] = {
        "chacha": {"type": "chacha20-poly1305"},
        "convergent": {"derived": True, "convergent_encryption": True},
        "derived": {"derived": True},
        "loose": {"exportable": True, "allow_plaintext_backup": True, "auto_rotate_period": "30d"},
        "small": {"type": "hmac", "key_size": 40},
    }
    for name, body in kinds.items():
        empty.admin.ask("POST", f"{empty.mount}/keys/{name}", body)
    views = {view.name: view for view in empty.store.discover().keys}
    assert set(views) == set(kinds)
    assert "chacha20-poly1305" in views["chacha"].problem
    assert "equal ciphertexts" in views["convergent"].problem
    assert "context" in views["derived"].problem
    assert "hmac" in views["small"].problem
    loose = views["loose"]
    assert (loose.problem, loose.rotation_days, loose.spec) == ("", 30, "AES_256")
    assert loose.facts["exportable"] == loose.facts["plaintext backup"] == "yes"
    for handle in ("chacha:1", "convergent:1", "derived:1", "small:1"):
        with pytest.raises(Unsupported):
            empty.store.encrypt(handle, GCM, b"x", AAD)


def test_a_key_that_the_token_may_not_read_does_not_hide_the_others(
    empty: Place, openbao: Peer
) -> None:
    for name in ("open", "secret"):
        empty.admin.ask("POST", f"{empty.mount}/keys/{name}", {})
    policy = f"{empty.mount}-narrow"
    empty.admin.write_policy(
        policy,
        f'path "{empty.mount}/keys" {{ capabilities = ["list"] }}\n'
        f'path "{empty.mount}/keys/open" {{ capabilities = ["read"] }}',
    )
    settings = {"address": empty.admin.address, "mount": empty.mount}
    narrow = openbao.backend(settings, credential=empty.admin.new_token(policy).encode())
    views = {view.name: view for view in narrow.discover().keys}
    assert views["open"].problem == ""
    assert "may not read" in views["secret"].problem
    narrow.close()


def test_a_discovered_key_says_what_the_console_needs_to_adopt_it(empty: Place) -> None:
    for kind, size in (("hmac", 48), ("rsa-2048", 0), ("ecdsa-p256", 0), ("aes128-gcm96", 0)):
        body = {"type": kind, "key_size": size} if size else {"type": kind}
        empty.admin.ask("POST", f"{empty.mount}/keys/{kind}", body)
    views = {view.name: view for view in empty.store.discover().keys}
    told = {name: (view.spec, view.usage, view.algorithm) for name, view in views.items()}
    assert told == {
        "hmac": ("HMAC_384", "GENERATE_VERIFY_MAC", "HMAC_SHA_384"),
        "rsa-2048": ("RSA_2048", "SIGN_VERIFY", "RSASSA_PSS_SHA_256"),
        "ecdsa-p256": ("ECC_NIST_P256", "SIGN_VERIFY", "ECDSA_SHA_256"),
        "aes128-gcm96": ("AES_128", "ENCRYPT_DECRYPT", "AES_128_GCM"),
    }
    for name, view in views.items():
        assert view == empty.another.inspect(view.reference)
        (version,) = view.versions
        assert (version.state, version.primary, version.handle) == (_V.ACTIVE, True, f"{name}:1")
        assert (version.public_key is not None) == SPECS[view.spec].asymmetric
