"""What the console's keys are at Azure: names, versions, states, the managed HSM.

The server is ours (tests/peers/azure_server), the client Azure's own.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.keyvault.keys import KeyClient, KeyRotationLifetimeAction, KeyRotationPolicy

from keys.algorithms import Usage
from keys.backends import materials
from keys.backends.azure.backend import AzureBackend
from keys.backends.base import NoMaterial, Parent, Protection
from keys.errors import CannotDecrypt, Conflict, StateForbids, TooLarge, Unsupported
from keys.states import KeyState, VersionState
from tests.backends.keeping import Kept, kept
from tests.backends.uses import check_use, some_material
from tests.peers.azure import Azure, Open

PRE_ACTIVE, ACTIVE = VersionState.PRE_ACTIVE, VersionState.ACTIVE
SUSPENDED, DEACTIVATED = VersionState.SUSPENDED, VersionState.DEACTIVATED
COMPROMISED = VersionState.COMPROMISED
OAEP, EC = "RSAES_OAEP_SHA_256", "ECC_NIST_P256"


def name_of(key: Kept) -> str:
    return key.versions[0].handle.partition("/")[0]


def version_of(key: Kept, number: int = -1) -> str:
    return key.versions[number].handle.partition("/")[2]


# --- names, versions and tags


def test_a_key_of_the_console_is_one_key_there_and_each_rotation_a_version(
    open_vault: Open,
) -> None:
    backend, client = open_vault()
    key, label = kept(backend, EC), uuid.uuid4()
    material = key.generate(label)
    assert [found.name for found in client.list_properties_of_keys()] == [f"kms-console-{key.id}"]
    assert name_of(key) == f"kms-console-{key.id}"
    versions = {row.version: row for row in client.list_properties_of_key_versions(name_of(key))}
    assert len(versions) == 2
    tags = versions[material.handle.partition("/")[2]].tags
    assert tags == {"kms-console-key": str(key.id), "kms-console-version": str(label)}


def test_a_key_may_do_nothing_but_its_purpose(open_vault: Open) -> None:
    backend, client = open_vault()
    for usage, operations in (
        (Usage.SIGN_VERIFY, ["sign", "verify"]),
        (Usage.ENCRYPT_DECRYPT, ["encrypt", "decrypt"]),
        (Usage.WRAP_UNWRAP, ["wrapKey", "unwrapKey"]),
    ):
        material = backend.generate(uuid.uuid4(), "RSA_2048", usage=usage)
        name, _, version = material.handle.partition("/")
        assert client.get_key(name, version).key_operations == operations
        check_use(backend, "RSA_2048", usage, material)


@pytest.mark.parametrize("spec", ["ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1"])
def test_signatures_of_every_curve_come_as_der(open_vault: Open, spec: str) -> None:
    backend, _ = open_vault()
    check_use(backend, spec, Usage.SIGN_VERIFY, backend.generate(uuid.uuid4(), spec))


def test_the_newest_version_is_primary_though_azure_lists_them_in_no_order(
    open_vault: Open,
) -> None:
    backend, _ = open_vault(page=2)
    key = kept(backend, EC)
    for _ in range(4):
        key.rotate()
    seen = key.align()
    assert len(seen.versions) == 5
    assert [view.handle for view in seen.versions if view.primary] == [key.versions[-1].handle]


def test_what_a_crash_left_is_found_by_another_process(
    open_vault: Open, azure_server: Azure
) -> None:
    backend, client = open_vault()
    key = kept(backend, EC)
    label = uuid.uuid4()
    made = key.generate(label)
    other = azure_server.backend(azure_server.settings(client.vault_url))
    assert other.find(label, key.parent) == made
    assert other.generate(label, EC, parent=key.parent) == made
    assert other.find(uuid.uuid4(), key.parent) is None
    with pytest.raises(Conflict):
        other.generate(label, "ECC_NIST_P384", parent=key.parent)
    other.close()


def test_of_two_versions_under_one_label_the_oldest_counts(open_vault: Open) -> None:
    backend, client = open_vault()
    key, label = kept(backend, EC), uuid.uuid4()
    made = key.generate(label)
    # Azure's own rotation takes the tags along.
    client.rotate_key(name_of(key))
    assert backend.find(label, key.parent) is not None
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert len(seen.versions) == 3
    assert made.handle in [view.handle for view in seen.versions]


def test_the_next_version_of_an_adopted_key_is_like_the_one_before(open_vault: Open) -> None:
    backend, client = open_vault()
    first = client.create_rsa_key("contoso", size=2048, tags={"team": "billing"})
    handle = f"contoso/{first.properties.version}"
    label, parent = uuid.uuid4(), Parent(uuid.uuid4(), "contoso", OAEP, handle)
    made = backend.generate(label, "RSA_2048", usage=Usage.WRAP_UNWRAP, parent=parent)
    assert made.handle.startswith("contoso/")
    assert backend.find(label, parent) == made
    found = client.get_key("contoso")
    assert set(found.key_operations) == set(first.key_operations), "others may rely on them"
    assert found.properties.tags == {
        "team": "billing",
        "kms-console-key": str(parent.key),
        "kms-console-version": str(label),
    }


# --- states


@pytest.fixture
def sealed(open_vault: Open) -> tuple[Kept, bytes, KeyClient]:
    """A key that encrypts, and a ciphertext of it."""
    backend, client = open_vault()
    key = Kept(backend, "RSA_2048")
    key.believe(
        backend.generate(uuid.uuid4(), "RSA_2048", usage=Usage.ENCRYPT_DECRYPT, parent=key.parent)
    )
    return key, backend.encrypt(key.versions[0].handle, OAEP, b"dose: 5 mg", b""), client


def test_a_version_that_must_protect_nothing_still_decrypts(
    sealed: tuple[Kept, bytes, KeyClient],
) -> None:
    key, ciphertext, _ = sealed
    handle = key.versions[0].handle
    for state in (PRE_ACTIVE, DEACTIVATED, COMPROMISED):
        key.set(0, state)
        shown = key.align().versions[0].state
        assert shown is (PRE_ACTIVE if state is PRE_ACTIVE else DEACTIVATED)
        with pytest.raises(StateForbids):
            key.store.encrypt(handle, OAEP, b"x", b"")
        assert key.store.decrypt(handle, OAEP, ciphertext, b"") == b"dose: 5 mg"


STATES = [PRE_ACTIVE, ACTIVE, SUSPENDED, DEACTIVATED, COMPROMISED]
SOME_CHANGES = [PRE_ACTIVE, SUSPENDED, DEACTIVATED, PRE_ACTIVE, ACTIVE, COMPROMISED, SUSPENDED]
EVERY_CHANGE = [state for before in STATES for after in STATES for state in (before, after)]


@pytest.mark.parametrize(
    "states", [SOME_CHANGES, pytest.param(EVERY_CHANGE, marks=pytest.mark.exhaustive)]
)
def test_every_change_between_two_states_can_be_made(
    sealed: tuple[Kept, bytes, KeyClient], states: list[VersionState]
) -> None:
    key, ciphertext, _ = sealed
    handle = key.versions[0].handle
    for state in states:
        key.set(0, state)
        key.align()
    key.set(0, ACTIVE)
    key.align()
    assert key.store.encrypt(handle, OAEP, b"x", b"")
    key.set(0, SUSPENDED)
    key.align()
    with pytest.raises(StateForbids):
        key.store.decrypt(handle, OAEP, ciphertext, b"")


def test_dates_that_others_set_are_moved_no_further_than_needed(open_vault: Open) -> None:
    backend, client = open_vault()
    key = kept(backend, EC)
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=3)
    client.update_key_properties(name_of(key), version_of(key), expires_on=soon)
    key.set(0, PRE_ACTIVE)
    key.align()
    row = client.get_key(name_of(key)).properties
    assert row.expires_on == soon
    assert row.not_before == soon - timedelta(seconds=1)
    key.set(0, ACTIVE)
    key.align()
    assert client.get_key(name_of(key)).properties.expires_on == soon


def test_what_azure_ends_by_itself_is_seen_as_deactivated(
    open_vault: Open, azure_server: Azure
) -> None:
    backend, client = open_vault()
    key = kept(backend, EC)
    past = datetime.now(UTC) - timedelta(hours=1)
    client.update_key_properties(name_of(key), version_of(key), expires_on=past)
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert seen.versions[0].state is DEACTIVATED
    assert key.align().versions[0].state is ACTIVE
    assert backend.sign(key.versions[0].handle, "ECDSA_SHA_256", b"x")


def test_a_key_is_disabled_whatever_a_version_says_that_the_console_does_not_know(
    open_vault: Open,
) -> None:
    backend, client = open_vault()
    key = kept(backend, EC)
    strange = client.rotate_key(name_of(key)).properties.version
    key.state = KeyState.DISABLED
    backend.conform(key.wanted)
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert seen.state is KeyState.DISABLED
    states = {view.handle.partition("/")[2]: view.state for view in seen.versions}
    assert states == {version_of(key): SUSPENDED, strange: ACTIVE}


def test_a_suspended_version_is_known_though_a_vault_shows_nothing_of_it(
    open_vault: Open, azure_server: Azure
) -> None:
    backend, client = open_vault(hides_disabled=True)
    key, label = Kept(backend, EC), uuid.uuid4()
    made = key.generate(label)
    key.believe(made)
    key.state = KeyState.DISABLED
    key.align()
    assert backend.find(label, key.parent) == made
    other = azure_server.backend(azure_server.settings(client.vault_url))
    seen = other.observe(key.wanted)
    assert seen is not None
    assert (seen.state, seen.versions[0].public_key) == (KeyState.DISABLED, None)
    assert "does not show" in seen.problem
    with pytest.raises(StateForbids):
        other.find(label, key.parent)
    other.close()


def test_one_version_is_suspended_resumed_and_deactivated_by_its_handle(open_vault: Open) -> None:
    backend, _ = open_vault()
    handle = backend.generate(uuid.uuid4(), EC).handle
    signature = backend.sign(handle, "ECDSA_SHA_256", b"x")
    backend.suspend(handle)
    backend.suspend(handle)
    with pytest.raises(StateForbids):
        backend.sign(handle, "ECDSA_SHA_256", b"x")
    backend.resume(handle)
    assert backend.sign(handle, "ECDSA_SHA_256", b"x")
    backend.deactivate(handle)
    with pytest.raises(StateForbids):
        backend.sign(handle, "ECDSA_SHA_256", b"x")
    assert backend.verify(handle, "ECDSA_SHA_256", b"x", signature)
    for call in (backend.suspend, backend.resume, backend.deactivate):
        with pytest.raises(NoMaterial):
            call(f"{handle[:-4]}0000")


# --- Azure's own rotation


def test_a_rotation_policy_that_others_wrote_is_read_and_kept(open_vault: Open) -> None:
    backend, client = open_vault()
    key = kept(backend, EC)
    policy = KeyRotationPolicy(
        lifetime_actions=[
            KeyRotationLifetimeAction("Rotate", time_before_expiry="P30D"),
            KeyRotationLifetimeAction("Notify", time_before_expiry="P10D"),
        ],
        expires_in="P1Y",
    )
    client.update_key_rotation_policy(name_of(key), policy)
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert seen.rotation_days == 335
    key.rotation_days = 335
    key.align()
    key.rotation_days = 90
    key.align()
    kept_policy = client.get_key_rotation_policy(name_of(key))
    assert kept_policy.expires_in == "P1Y"
    told = {(action.action.lower(), action.time_after_create, action.time_before_expiry)
            for action in kept_policy.lifetime_actions}  # fmt: skip
    assert told == {("rotate", "P90D", None), ("notify", None, "P10D")}


def test_a_version_that_azure_rotated_is_seen(open_vault: Open) -> None:
    backend, client = open_vault()
    key = kept(backend, EC)
    rotated = client.rotate_key(name_of(key)).properties.version
    seen = backend.observe(key.wanted)
    assert seen is not None
    assert [view.handle.partition("/")[2] for view in seen.versions if view.primary] == [rotated]


# --- imports


@pytest.mark.parametrize("hardware", [False, True])
def test_imported_pairs_go_into_software_or_hardware(azure_server: Azure, hardware: bool) -> None:
    settings = azure_server.vault() | ({"hsm": "yes"} if hardware else {})
    backend, client = azure_server.backend(settings), azure_server.client(settings)
    label, secret = uuid.uuid4(), some_material(EC)
    made = backend.import_material(label, EC, secret)
    assert made.check_value == materials.check_value_of_public_key(made.public_key or b"")
    name, _, version = made.handle.partition("/")
    assert client.get_key(name, version).key_type == ("EC-HSM" if hardware else "EC")
    seen = backend.inspect(name)
    assert seen is not None
    assert seen.imported
    backend.remove(made.handle)
    assert backend.find(label) is None
    again = backend.import_material(label, EC, secret)
    assert (again.check_value, again.public_key) == (made.check_value, made.public_key)
    for one in (backend, client):
        one.close()


# --- a managed HSM


@pytest.fixture
def hsm(open_vault: Open) -> tuple[AzureBackend, KeyClient]:
    return open_vault(managed=True)


@pytest.mark.parametrize("spec", ["AES_256", "AES_128"])
def test_a_managed_hsm_has_symmetric_keys(hsm: tuple[AzureBackend, KeyClient], spec: str) -> None:
    backend, client = hsm
    key = kept(backend, spec)
    assert client.get_key(name_of(key)).key_type == "oct-HSM"
    check_use(backend, spec, Usage.ENCRYPT_DECRYPT, key.materials[0])
    key.rotate()
    seen = backend.inspect(name_of(key))
    assert seen is not None
    assert (seen.facts["rotations_used"], seen.facts["rotations_limit"]) == ("1", "99")
    key.align()
    algorithm = f"{spec}_GCM"
    sealed = backend.encrypt(key.versions[1].handle, algorithm, b"dose", b"patient 7")
    assert backend.decrypt(key.versions[1].handle, algorithm, sealed, b"patient 7") == b"dose"
    for handle, aad in ((key.versions[1].handle, b"patient 8"), (key.versions[0].handle, b"patient 7")):  # fmt: skip
        with pytest.raises(CannotDecrypt):
            backend.decrypt(handle, algorithm, sealed, aad)
    with pytest.raises(TooLarge):
        backend.encrypt(key.versions[1].handle, algorithm, bytes(65 * 1024), b"")
    with pytest.raises(Unsupported, match="sealed to that HSM"):
        backend.import_material(uuid.uuid4(), spec, some_material(spec))


def test_a_managed_hsm_makes_hardware_keys_and_random_bytes(
    hsm: tuple[AzureBackend, KeyClient],
) -> None:
    backend, client = hsm
    made = backend.generate(uuid.uuid4(), EC)
    assert client.get_key(made.handle.partition("/")[0]).key_type == "EC-HSM"
    assert [len(backend.random(count)) for count in (1, 128, 129, 1024)] == [1, 128, 129, 1024]
    assert backend.random(32) != backend.random(32)
    assert (
        AzureBackend.protection_with({"vault_url": "https://a.managedhsm.azure.net"})
        is Protection.HSM
    )


@pytest.mark.exhaustive
def test_a_managed_hsm_has_a_budget_of_versions(hsm: tuple[AzureBackend, KeyClient]) -> None:
    backend, client = hsm
    key = kept(backend, "AES_128")
    for _ in range(99):
        client.create_oct_key(name_of(key), size=128, hardware_protected=True)
    seen = backend.inspect(name_of(key))
    assert seen is not None
    assert (seen.facts["rotations_used"], seen.facts["rotations_limit"]) == ("99", "99")
    with pytest.raises(Unsupported, match="100 versions"):
        key.rotate()


def test_what_a_vault_and_a_managed_hsm_offer_follows_from_the_address() -> None:
    def offered(**settings: Any) -> Mapping[str, Any]:
        backend = AzureBackend(uuid.uuid4(), settings, None)
        backend.close()
        return backend.capabilities().algorithms

    vault = offered(vault_url="https://contoso.vault.azure.net")
    managed = offered(vault_url="https://contoso.managedhsm.azure.net/")
    assert set(managed) - set(vault) == {"AES_256", "AES_128"}
    assert vault["ECC_SECG_P256K1"] == ("ECDSA_SHA_256",)
    assert "RSAES_OAEP_SHA_512" not in vault["RSA_2048"]
