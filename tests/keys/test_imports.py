"""Bringing one's own key: tickets, wrapped material, bringing it back, its expiry, its deletion."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.db import connections

from audit.models import Entry
from keys import administration, clock, jobs, operations, queries_ceremonies
from keys import stores as places
from keys.administration import ImportParameters
from keys.algorithms import SPECS
from keys.backends import materials, registry
from keys.backends.software.models import WrappedMaterial
from keys.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    Denied,
    Invalid,
    KeyServiceError,
    NotFound,
    PendingApproval,
    StateForbids,
    TooLarge,
    Unavailable,
)
from keys.imports import tickets
from keys.imports import tidying as importing
from keys.models import Approval, ImportTicket, Job, Key, KeyStore, KeyVersion
from keys.secret import Secret
from keys.services import operator, scheduler
from keys.states import VersionState as S
from tests.house import House
from tests.hsm import Token
from tests.keys.customer import RSA_AES, RSA_OAEP, brought, openssl_wrap, wrap

MATERIAL = bytes(range(1, 33))
OTHER = bytes(range(2, 34))


def check_value(material: bytes, spec: str = "AES_256") -> str:
    return materials.check_value(SPECS[spec], Secret(material))


def waiting(house: House, classification: str = "internal", **more: Any) -> Key:
    return house.key(classification, origin="imported", **more)


def parameters_for(house: House, key: Key, spec: str = "RSA_3072") -> ImportParameters:
    return administration.import_parameters(house.olga, str(key.id), spec=spec)


def bring(house: House, key: Key, material: bytes = MATERIAL, **more: Any) -> Key:
    arguments = brought(parameters_for(house, key), material)
    return administration.import_key(house.olga, str(key.id), **arguments, **more)


def states(key: Key) -> list[tuple[int, str, str, bool]]:
    return [(v.number, v.state, v.condition, v.primary) for v in key.versions.order_by("number")]


def in_store(key: Key, number: int = 1) -> bool:
    version = key.versions.get(number=number)
    return places.backend_of(key).find(version.id) is not None


def wrapping_keys() -> int:
    return WrappedMaterial.objects.filter(store_id=places.WRAPPING_KEYS).count()


def expire(*rows: ImportTicket) -> None:
    for ticket in rows:
        ImportTicket.objects.filter(pk=ticket.pk).update(
            expires_at=clock.now() - timedelta(seconds=1)
        )


def refused(house: House, key: Key, **arguments: Any) -> str:
    """Return what an import is refused with, which leaves an entry and the key as it was."""
    before, versions = len(house.entries()), states(key)
    with pytest.raises(Invalid) as error:
        administration.import_key(house.olga, str(key.id), **arguments)
    assert len(house.entries()) == before + 1
    assert house.last_entry()["outcome"] == "failed"
    assert states(key) == versions
    return error.value.detail


# --- tickets


@pytest.mark.each_database(fast="sqlite")
@pytest.mark.parametrize("algorithm", [RSA_AES, RSA_OAEP])
def test_material_that_was_wrapped_elsewhere_serves_here(house: House, algorithm: str) -> None:
    key = waiting(house)
    house.grant("billing", key, "encrypt", "decrypt")
    parameters = administration.import_parameters(house.olga, str(key.id))
    public = serialization.load_der_public_key(parameters.public_key)
    assert isinstance(public, rsa.RSAPublicKey) and public.key_size == 4096
    assert parameters.algorithms == (RSA_AES, RSA_OAEP)
    left = parameters.expires_at - clock.now()
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    done = administration.import_key(
        house.olga, str(key.id), **brought(parameters, MATERIAL, algorithm)
    )
    assert done.state == "enabled"
    assert states(key) == [(1, S.ACTIVE, "", True)]
    assert key.versions.get().check_value == check_value(MATERIAL)
    sealed = operations.encrypt(house.billing, str(key.id), b"x").ciphertext
    assert operations.decrypt(house.billing, str(key.id), sealed).plaintext.reveal() == b"x"
    assert wrapping_keys() == 0, "the ticket's wrapping key is gone with its use"
    ticket = ImportTicket.objects.get()
    assert ticket.used_at is not None and ticket.cleared
    assert parameters.token.reveal().decode() not in ticket.digest
    assert [store.name for store in KeyStore.objects.all()] == ["software"]


@pytest.mark.parametrize("spec", ["ECC_NIST_P256", "RSA_2048", "HMAC_512", "AES_128"])
def test_pairs_and_secrets_of_any_kind_can_be_brought(house: House, spec: str) -> None:
    if SPECS[spec].asymmetric:
        private, _ = materials.new_pair(SPECS[spec])
        material = private.reveal()
    else:
        material = os.urandom(SPECS[spec].bits // 8)
    key = waiting(house, spec=spec)
    bring(house, key, material)
    assert key.versions.get().check_value == check_value(material, spec)


@pytest.mark.parametrize("algorithm", [RSA_OAEP, RSA_AES])
def test_what_the_openssl_command_wraps_is_taken(
    house: House, tmp_path: Path, algorithm: str
) -> None:
    (tmp_path / "key.bin").write_bytes(MATERIAL)
    key = waiting(house)
    parameters = parameters_for(house, key)
    wrapped = openssl_wrap(tmp_path, parameters, algorithm)
    administration.import_key(
        house.olga, str(key.id), wrapped=wrapped, token=parameters.token, algorithm=algorithm
    )
    assert key.versions.get().check_value == check_value(MATERIAL)


def test_a_token_that_is_not_good_is_refused_with_one_and_the_same_error(house: House) -> None:
    key, other = waiting(house), waiting(house)
    good, foreign = parameters_for(house, key), parameters_for(house, other)
    used = parameters_for(house, other)
    administration.import_key(house.olga, str(other.id), **brought(used, OTHER))
    late = parameters_for(house, key)
    expire(ImportTicket.objects.get(pk=late.ticket))
    lost = parameters_for(house, key)
    places.wrapping_keys().destroy(lost.ticket.hex)
    told = {
        refused(house, key, **{**brought(parameters, MATERIAL), "token": token})
        for parameters, token in (
            (good, Secret(b"A" * 43)),
            (good, Secret(b"")),
            (good, Secret(b"\xff" * 32)),
            (good, Secret(b"A" * 5000)),
            (foreign, foreign.token),
            (used, used.token),
            (late, late.token),
            (lost, lost.token),
        )
    }
    assert len(told) == 1, told
    administration.import_key(house.olga, str(key.id), **brought(good, MATERIAL))


def test_only_the_call_that_really_imports_uses_the_token_up(house: House) -> None:
    key = waiting(house)
    parameters = parameters_for(house, key)
    refused(house, key, **brought(parameters, b"too short"))
    refused(house, key, **brought(parameters, MATERIAL), check_value="00" * 8)
    refused(house, key, **brought(parameters, MATERIAL), expires_at="2020-01-01T00:00:00Z")
    assert ImportTicket.objects.get().used_at is None
    administration.import_key(house.olga, str(key.id), **brought(parameters, MATERIAL))
    assert ImportTicket.objects.get().used_at is not None
    refused(house, key, **brought(parameters, OTHER))


@pytest.mark.each_database
def test_of_two_imports_with_one_token_one_is_made(house: House) -> None:
    key = waiting(house)
    arguments = brought(parameters_for(house, key), MATERIAL)
    gate, errors = threading.Barrier(4), []

    def work() -> None:
        try:
            gate.wait()
            administration.import_key(house.olga, str(key.id), **arguments)
        except KeyServiceError as error:
            errors.append(error.code)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 3, errors
    assert set(errors) <= {"invalid", "conflict"}
    assert states(key) == [(1, S.ACTIVE, "", True)]


def test_what_does_not_unwrap_is_refused_with_one_error(house: House) -> None:
    key = waiting(house)
    parameters, another = parameters_for(house, key), parameters_for(house, key)
    good = wrap(parameters, MATERIAL).reveal()
    blobs = [
        wrap(another, MATERIAL).reveal(),
        good[:-1],
        good[:200],
        good + b"\0",
        bytes(len(good)),
        good[:-1] + bytes([good[-1] ^ 1]),
        bytes([good[0] ^ 1]) + good[1:],
        b"\x01",
        wrap(parameters, MATERIAL, RSA_OAEP).reveal(),
    ]
    told = {
        refused(house, key, wrapped=Secret(blob), token=parameters.token, algorithm=RSA_AES)
        for blob in blobs
    }
    assert len(told) == 1, told
    for blob in (b"", b"x" * 8193):
        with pytest.raises(TooLarge):
            administration.import_key(
                house.olga,
                str(key.id),
                wrapped=Secret(blob),
                token=parameters.token,
                algorithm=RSA_AES,
            )


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "RSAES_OAEP_SHA_1"},
        {"algorithm": ""},
        {"algorithm": None},
        {"algorithm": ["x"]},
        {"token": None},
        {"token": "text"},
        {"wrapped": None},
        {"wrapped": b"bytes"},
        {"material": Secret(MATERIAL)},
        {"ceremony": "yes"},
        {"wrapping_key": "invoices"},
        {"number": 1},
        {"number": "1"},
        {"expires_at": "tomorrow"},
        {"check_value": 5},
        {"check_value": "\ud800"},
        {"colour": "red"},
    ],
    ids=str,
)
def test_an_import_that_makes_no_sense_is_refused(house: House, wrong: dict[str, Any]) -> None:
    key = waiting(house)
    arguments = {**brought(parameters_for(house, key), MATERIAL), **wrong}
    before = len(house.entries())
    with pytest.raises((Invalid, StateForbids)):
        administration.import_key(house.olga, str(key.id), **arguments)
    assert len(house.entries()) == before + 1
    assert states(key) == []


def test_only_keys_for_imports_give_import_parameters(house: House) -> None:
    with pytest.raises(StateForbids, match="made in its key store"):
        administration.import_parameters(house.olga, "invoices")
    key = waiting(house)
    for wrong in ("RSA_2048", "AES_256", 5, None):
        with pytest.raises(Invalid):
            administration.import_parameters(house.olga, str(key.id), spec=wrong)
    administration.schedule_destruction(house.olga, str(key.id))
    with pytest.raises(StateForbids):
        administration.import_parameters(house.olga, str(key.id))
    assert not ImportTicket.objects.exists()
    for stranger in (house.ada, house.udo):
        with pytest.raises(Denied):
            administration.import_parameters(stranger, str(key.id))
    with pytest.raises(NotFound):
        administration.import_parameters(house.billing, str(key.id))


def test_a_key_has_only_so_many_unused_tickets(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "MOST_OPEN", 2)
    key = waiting(house)
    first = parameters_for(house, key)
    parameters_for(house, key)
    with pytest.raises(Conflict, match="unused import parameters"):
        parameters_for(house, key)
    expire(ImportTicket.objects.get(pk=first.ticket))
    parameters_for(house, key)


def test_tickets_that_are_over_lose_their_wrapping_keys(house: House) -> None:
    key = waiting(house)
    first, second = parameters_for(house, key), parameters_for(house, key)
    assert wrapping_keys() == 2
    importing.tidy()
    assert wrapping_keys() == 2, "they are still good"
    expire(ImportTicket.objects.get(pk=first.ticket))
    ImportTicket.objects.filter(pk=second.ticket).update(used_at=clock.now())
    importing.tidy()
    assert wrapping_keys() == 0
    assert set(ImportTicket.objects.values_list("cleared", flat=True)) == {True}


def test_a_wrapping_key_that_can_not_be_made_leaves_a_useless_ticket_and_says_so(
    house: House, settings: Any
) -> None:
    key, kept = waiting(house), settings.ROOT_KEY_FILE
    settings.ROOT_KEY_FILE = kept.with_name("none")
    with pytest.raises(Unavailable):
        parameters_for(house, key)
    settings.ROOT_KEY_FILE = kept
    entry = house.last_entry(action="import_parameters")
    assert (entry["outcome"], entry["reason"]) == ("failed", "unavailable")
    assert ImportTicket.objects.get().used_at is not None


def test_one_secret_has_one_purpose_and_one_budget_and_does_not_come_back_compromised(
    house: House,
) -> None:
    first = waiting(house)
    bring(house, first, MATERIAL)
    bring(house, waiting(house), MATERIAL)  # for the same purpose, without a budget: moving it
    for other in ({"usage": "WRAP_UNWRAP"}, {"algorithm": "AES_256_GCM"}):
        with pytest.raises(Conflict, match="under another key"):
            bring(house, waiting(house, **other), MATERIAL)
    house.move(first, 1, S.COMPROMISED, reason="it was seen")
    with pytest.raises(Conflict, match="under another key"):
        bring(house, waiting(house), MATERIAL)


# --- wrapped with a key of the console's own


def test_a_wrapping_key_that_needs_votes_serves_only_its_own_classification(house: House) -> None:
    wrapper = waiting(house, "patient-health", usage="WRAP_UNWRAP", alias="wrapper")
    with pytest.raises(StateForbids, match="asks for votes"):
        administration.import_key(
            house.olga,
            str(waiting(house).id),
            wrapped=Secret(bytes(40)),
            algorithm="AES_KWP",
            wrapping_key="wrapper",
        )
    entry = house.last_entry(action="unwrap_key", object_id=str(wrapper.id))
    assert (entry["outcome"], entry["reason"]) == ("failed", "state_forbids")


def test_material_comes_under_a_wrapping_key_of_the_console(house: House) -> None:
    kek = os.urandom(32)
    wrapper = waiting(house, usage="WRAP_UNWRAP", alias="wrapper")
    bring(house, wrapper, kek)
    key = waiting(house)
    blob = keywrap.aes_key_wrap_with_padding(kek, MATERIAL)
    administration.import_key(
        house.olga,
        str(key.id),
        wrapped=Secret(blob),
        algorithm="AES_KWP",
        wrapping_key="wrapper",
    )
    assert key.versions.get().check_value == check_value(MATERIAL)
    entry = house.last_entry(action="unwrap_key", object_id=str(wrapper.id))
    assert entry["facts"]["for_import_into"] == key.alias
    # What was wrapped under an older version is taken, too, as long as that may unwrap.
    bring(house, wrapper, os.urandom(32))
    second = waiting(house)
    administration.import_key(
        house.olga,
        str(second.id),
        wrapped=Secret(keywrap.aes_key_wrap_with_padding(kek, OTHER)),
        algorithm="AES_KWP",
        wrapping_key="wrapper",
    )
    third = waiting(house)
    for change in (
        lambda: house.move(wrapper, 1, S.COMPROMISED, reason="it was seen"),
        lambda: administration.disable_key(house.olga, "wrapper"),
    ):
        change()
        with pytest.raises((StateForbids, Invalid)):
            administration.import_key(
                house.olga,
                str(third.id),
                wrapped=Secret(blob),
                algorithm="AES_KWP",
                wrapping_key="wrapper",
            )
    assert states(third) == []


@pytest.mark.parametrize("wrapper", ["invoices", "nothing", "", 5])
def test_what_is_no_wrapping_key_unwraps_nothing(house: House, wrapper: Any) -> None:
    key = waiting(house)
    with pytest.raises((Invalid, NotFound)):
        administration.import_key(
            house.olga,
            str(key.id),
            wrapped=Secret(bytes(40)),
            algorithm="AES_KWP",
            wrapping_key=wrapper,
        )
    assert states(key) == []


# --- with votes


@pytest.mark.each_database(fast="sqlite")
def test_officers_vote_on_the_check_value_and_another_ticket_may_bring_the_same(
    house: House,
) -> None:
    key = waiting(house, "patient-health", alias="records")
    first = parameters_for(house, key)
    until = (clock.now() + timedelta(days=40)).isoformat()
    request = house.pending(
        administration.import_key,
        house.olga,
        "records",
        **brought(first, MATERIAL),
        expires_at=until,
    )
    assert request.parameters["check_value"] == check_value(MATERIAL)
    assert request.parameters["expires_at"] == until
    bound = bytes(request.request).decode()
    assert first.token.reveal().decode() not in bound
    house.approve(str(request.id))
    assert ImportTicket.objects.get().used_at is None, "nothing was imported yet"
    expire(ImportTicket.objects.get())
    second = parameters_for(house, key)
    with pytest.raises(PendingApproval):
        administration.import_key(
            house.olga, "records", **brought(second, MATERIAL), expires_at=None
        )
    administration.import_key(
        house.olga, "records", **brought(second, MATERIAL, RSA_OAEP), expires_at=until
    )
    version = key.versions.get()
    assert (version.state, version.material_expires_at.isoformat()) == (S.ACTIVE, until)
    request.refresh_from_db()
    assert request.state == "executed"
    # The rehearsal and the vote used nothing up: the expired ticket is the one that is left.
    assert ImportTicket.objects.filter(used_at=None).count() == 1


def test_no_secret_of_an_import_is_written_anywhere(house: House) -> None:
    canary = b"canary-in-the-coal-mine" + bytes(9)
    key = waiting(house, "patient-health", alias="records")
    parameters = parameters_for(house, key)
    arguments = brought(parameters, canary)
    with pytest.raises(PendingApproval):
        administration.import_key(house.olga, "records", **arguments)
    house.approve(str(Approval.objects.get().id))
    administration.import_key(house.olga, "records", **arguments)
    secrets = [canary, parameters.token.reveal(), arguments["wrapped"].reveal()[:40]]  # type: ignore[attr-defined]
    for row in Entry.objects.all():
        assert not [secret for secret in secrets if secret in bytes(row.body)]
    for path in house.database.path.parent.iterdir():
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content and secret.hex().encode() not in content, path.name


# --- the next version, and bringing one back


@pytest.mark.each_database(fast="sqlite")
def test_new_material_of_an_enabled_key_is_its_rotation(house: House) -> None:
    key = waiting(house, rotation_days=30)
    house.grant("billing", key, "encrypt", "decrypt")
    bring(house, key)
    sealed = operations.encrypt(house.billing, str(key.id), b"old").ciphertext
    with pytest.raises(StateForbids, match="import the next version"):
        administration.rotate_key(house.olga, str(key.id))
    house.let_days_pass(31)
    assert queries_ceremonies.awaits_material(Key.objects.get(pk=key.pk))
    bring(house, key, OTHER)
    assert states(key) == [(1, S.DEACTIVATED, "", False), (2, S.ACTIVE, "", True)]
    assert not queries_ceremonies.awaits_material(Key.objects.get(pk=key.pk))
    assert operations.encrypt(house.billing, str(key.id), b"new").version == 2
    assert operations.decrypt(house.billing, str(key.id), sealed).version == 1
    for material in (MATERIAL, OTHER):
        with pytest.raises(Conflict, match="the material of version"):
            bring(house, key, material)
    administration.disable_key(house.olga, str(key.id))
    with pytest.raises(StateForbids):
        administration.import_parameters(house.olga, str(key.id))


@pytest.mark.each_database(fast="postgresql")
@pytest.mark.parametrize("state", [S.ACTIVE, S.DEACTIVATED, S.SUSPENDED])
def test_deleted_material_comes_back_and_only_the_same(house: House, state: S) -> None:
    key = waiting(house)
    house.grant("billing", key, "encrypt", "decrypt")
    bring(house, key)
    sealed = operations.encrypt(house.billing, str(key.id), b"x").ciphertext
    if state == S.SUSPENDED:
        house.move(key, 1, S.SUSPENDED)
    elif state == S.DEACTIVATED:
        bring(house, key, OTHER)
    before = key.versions.get(number=1)
    version = administration.delete_material(house.olga, str(key.id), number=1, reason="a move")
    assert (version.state, version.condition, version.handle) == (state, "unavailable", "")
    assert version.check_value == check_value(MATERIAL)
    assert not in_store(key)
    with pytest.raises(StateForbids):
        operations.decrypt(house.billing, str(key.id), sealed)
    with pytest.raises(Conflict):
        administration.delete_material(house.olga, str(key.id), number=1)
    third = bytes(range(3, 35))
    arguments = brought(parameters_for(house, key), third)
    assert check_value(MATERIAL) in refused(house, key, **arguments, number=1)
    with pytest.raises(Conflict):
        bring(house, key)  # as the next version
    bring(house, key, number=1)
    after = key.versions.get(number=1)
    assert (after.state, after.condition, after.primary) == (state, "", before.primary)
    assert (after.originated_at, after.process_until) == (
        before.originated_at,
        before.process_until,
    )
    assert key.versions.count() == (2 if state == S.DEACTIVATED else 1)
    if state != S.SUSPENDED:
        assert operations.decrypt(house.billing, str(key.id), sealed).plaintext.reveal() == b"x"
    with pytest.raises(StateForbids, match="does not wait"):
        bring(house, key, number=1)
    entries = house.entries(action="delete_material", object_id=str(key.id))
    assert [e["outcome"] for e in entries] == ["started", "success", "failed"]


@pytest.mark.each_database
def test_expired_material_is_refused_at_once_and_removed_by_the_sweep(house: House) -> None:
    key = waiting(house)
    house.grant("billing", key, "encrypt")
    bring(house, key, expires_at=(clock.now() + timedelta(days=10)).isoformat())
    operations.encrypt(house.billing, str(key.id), b"x")
    importing.tidy()
    assert in_store(key)
    with pytest.raises(Conflict):
        importing.expire_material(scheduler(), str(key.id), number=1)
    house.let_days_pass(11)
    with pytest.raises(StateForbids, match="expired"):
        operations.encrypt(house.billing, str(key.id), b"x")
    importing.tidy()
    version = key.versions.get()
    assert (version.state, version.condition, in_store(key)) == (S.ACTIVE, "unavailable", False)
    early, started, done = house.entries(action="delete_material", object_id=str(key.id))
    assert (early["outcome"], early["reason"]) == ("failed", "conflict")
    assert (started["actor"]["name"], started["outcome"]) == ("scheduler", "started")
    assert (done["outcome"], done["object"]["version"]) == ("success", 1)
    entries = len(house.entries())
    importing.tidy()
    assert len(house.entries()) == entries, "once is enough"
    bring(house, key, number=1)
    version.refresh_from_db()
    assert (version.condition, version.material_expires_at) == ("", None)
    operations.encrypt(house.billing, str(key.id), b"x")


def test_material_of_a_key_under_votes_expires_without_another_vote(house: House) -> None:
    key = waiting(house, "patient-health", alias="records")
    arguments = {"expires_at": (clock.now() + timedelta(days=10)).isoformat()}
    with pytest.raises(PendingApproval) as pending:
        bring(house, key, **arguments)
    house.approve(pending.value.extra["approval"])
    bring(house, key, **arguments)
    house.let_days_pass(11)
    importing.tidy()
    assert not in_store(key)
    assert Job.objects.get(kind="remove_material").approval is None


def test_officers_vote_on_a_deletion_and_the_worker_carries_it_out(house: House) -> None:
    key = waiting(house, "patient-health", alias="records")
    with pytest.raises(PendingApproval) as pending:
        bring(house, key)
    house.approve(pending.value.extra["approval"])
    bring(house, key)
    request = house.pending(administration.delete_material, house.olga, "records", number=1)
    assert in_store(key)
    assert house.approve(str(request.id)).state == "executed"
    assert not in_store(key)
    assert Job.objects.get(kind="remove_material").approval_id == request.id


def test_a_forged_removal_removes_nothing(house: House) -> None:
    key = waiting(house, "patient-health", alias="records")
    with pytest.raises(PendingApproval) as pending:
        bring(house, key)
    house.approve(pending.value.extra["approval"])
    bring(house, key)
    version = key.versions.get()
    forged = {
        "kind": "remove_material",
        "key": key,
        "version": version,
        "target_version": 1,
        "requested_by_id": house.olga.principal_id,
        "created_at": clock.now(),
        "run_after": clock.now(),
    }
    assert jobs.run(Job.objects.create(**forged).id).state == "failed"
    KeyVersion.objects.filter(pk=version.pk).update(condition="unavailable")
    assert jobs.run(Job.objects.create(**forged).id).state == "failed"
    assert in_store(key)


def test_generated_material_is_not_deleted_or_imported(house: House) -> None:
    for change in (
        lambda: administration.delete_material(house.olga, "invoices", number=1),
        lambda: administration.import_key(house.olga, "invoices", material=Secret(MATERIAL)),
        lambda: importing.expire_material(scheduler(), "invoices", number=1),
    ):
        with pytest.raises(StateForbids):
            change()
    assert states(house.invoices) == [(1, S.ACTIVE, "", True)]


def test_a_version_without_material_can_be_destroyed_and_that_can_be_cancelled(
    house: House,
) -> None:
    key = waiting(house)
    bring(house, key)
    bring(house, key, OTHER)
    administration.delete_material(house.olga, str(key.id), number=1)
    house.move(key, 1, S.DESTROYED)
    administration.cancel_version_destruction(house.olga, str(key.id), number=1)
    assert states(key)[0] == (1, S.DEACTIVATED, "unavailable", False)
    administration.schedule_destruction(house.olga, str(key.id))
    with pytest.raises(StateForbids):
        administration.delete_material(house.olga, str(key.id), number=2)
    cancelled = administration.cancel_destruction(house.olga, str(key.id))
    assert cancelled.state == "disabled"
    bring(house, key, number=1)
    assert in_store(key)


# --- a store that is away, errs, or dies


@pytest.mark.each_database
def test_a_removal_waits_for_its_store_and_nothing_is_imported_meanwhile(
    house: House, watched: dict[str, Any]
) -> None:
    def away() -> None:
        raise BackendUnavailable("The cable is out.")

    key = house.key("watched", alias="brought", origin="imported")
    bring(house, key)
    watched["before destroy"] = away
    version = administration.delete_material(house.olga, "brought", number=1)
    assert (version.condition, in_store(key)) == ("unavailable", True)
    with pytest.raises(Conflict, match="under way"):
        bring(house, key, number=1)
    watched.clear()
    house.let_days_pass(1)
    (job,) = house.run_due_jobs()
    assert (job.state, in_store(key)) == ("succeeded", False)
    bring(house, key, number=1)
    assert states(key) == [(1, S.ACTIVE, "", True)]


def test_a_removal_that_errs_half_way_is_tried_again(house: House, watched: dict[str, Any]) -> None:
    def err() -> None:
        raise BackendError("Object busy.")

    key = house.key("watched", alias="brought", origin="imported")
    bring(house, key)
    watched["after destroy"] = err
    administration.delete_material(house.olga, "brought", number=1)
    watched.clear()
    house.let_days_pass(1)
    (job,) = house.run_due_jobs()
    assert (job.state, job.attempts, states(key)[0][2]) == ("succeeded", 2, "unavailable")


@pytest.mark.parametrize("place", ["before import", "after import", "after encrypt"])
def test_a_return_that_fails_leaves_the_version_without_its_material(
    house: House, watched: dict[str, Any], place: str
) -> None:
    def err() -> None:
        raise BackendError("The module says CKR_GENERAL_ERROR.")

    key = house.key("watched", alias="brought", origin="imported")
    bring(house, key)
    administration.delete_material(house.olga, "brought", number=1)
    watched[place] = err
    with pytest.raises(BackendError):
        bring(house, key, number=1)
    assert states(key) == [(1, S.ACTIVE, "unavailable", True)]
    assert not in_store(key)
    assert wrapping_keys() == 0
    watched.clear()
    bring(house, key, number=1)
    assert states(key) == [(1, S.ACTIVE, "", True)]


# --- in hardware


def test_a_ticket_brings_material_into_a_hardware_module(
    house: House, softhsm: Token, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KMS_TEST_HSM_PIN", softhsm.pin)
    administration.create_key_store(
        operator(),
        name="hsm",
        kind="pkcs11",
        settings=dict(softhsm.settings),
        credentials="env:KMS_TEST_HSM_PIN",
    )
    administration.create_classification(
        house.ada,
        name="vault",
        title="Vault",
        allowed_specs=["AES_256", "ECC_NIST_P256"],
        minimum_protection="hsm",
        key_stores=["hsm"],
    )
    try:
        private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        for spec, material in (("AES_256", os.urandom(32)), ("ECC_NIST_P256", private)):
            key = waiting(house, "vault", spec=spec)
            bring(house, key, material)
            assert key.versions.get().check_value == check_value(material, spec)
            administration.delete_material(house.olga, str(key.id), number=1)
            assert not in_store(key)
            bring(house, key, material, number=1)
            assert states(key) == [(1, S.ACTIVE, "", True)]
            places.backend_of(key).destroy(key.versions.get().handle)
    finally:
        registry.forget(KeyStore.objects.get(name="hsm").id)
