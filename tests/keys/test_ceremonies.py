"""Key ceremonies: officers bring a key's material together, and the minutes say what happened."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest

from audit.models import Entry
from keys import administration, clock, operations, queries_ceremonies
from keys import stores as places
from keys.algorithms import SPECS
from keys.backends import materials
from keys.backends.software.models import WrappedMaterial
from keys.callers import Caller
from keys.errors import (
    BackendError,
    Conflict,
    Denied,
    Invalid,
    KeyServiceError,
    NotFound,
    PendingApproval,
    StateForbids,
    Unauthenticated,
    Unavailable,
)
from keys.imports import ceremonies as ceremony
from keys.imports import tidying as importing
from keys.models import Ceremony, Custodian, Key, Principal
from keys.secret import Secret
from keys.services import scheduler
from keys.states import VersionState as S
from tests.house import House
from tests.keys.customer import brought

# One component each; together (exclusive or) they are WHOLE.
ONE = bytes(range(1, 33))
WHOLE = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
TWO = bytes(a ^ b for a, b in zip(ONE, WHOLE, strict=True))
# With which who is no officer any more is refused.
GONE = (Denied, NotFound, Unauthenticated)
# openssl enc -d -aes-256-ecb -nopad of "kms-console:chk" 0x01 under WHOLE, the first eight bytes.
KCV = "45434599fefb8360"


def check_value(material: bytes, spec: str = "AES_256") -> str:
    return materials.check_value(SPECS[spec], Secret(material))


def components() -> int:
    return WrappedMaterial.objects.filter(store_id=places.COMPONENTS).count()


def opened(house: House, key: Key, *custodians: str, split: bool = True, **more: Any) -> Ceremony:
    names = list(custodians or ("Olga", "Otto"))
    return administration.open_ceremony(
        house.olga, str(key.id), custodians=names, split=split, **more
    )


def enter(caller: Caller, row: Ceremony, component: bytes, **more: Any) -> Custodian:
    return administration.enter_component(caller, str(row.id), component=Secret(component), **more)


def confirm(caller: Caller, row: Ceremony, value: str) -> Custodian:
    return administration.confirm_ceremony(caller, str(row.id), check_value=value)


def complete(house: House, row: Ceremony) -> Ceremony:
    """Two officers enter their components and confirm what they make."""
    enter(house.olga, row, ONE)
    enter(house.otto, row, TWO)
    row.refresh_from_db()
    for officer in (house.olga, house.otto):
        confirm(officer, row, row.check_value)
    return row


Errors = type[KeyServiceError] | tuple[type[KeyServiceError], ...]


def refused(house: House, error: Errors, change: Any) -> dict[str, Any]:
    """Return the one entry of a step that is refused."""
    before = len(house.entries())
    with pytest.raises(error):
        change()
    entries = house.entries()
    assert len(entries) == before + 1
    assert entries[-1]["outcome"] in ("denied", "failed")
    return entries[-1]


# --- the whole of it


@pytest.mark.each_database
@pytest.mark.parametrize("classification", ["internal", "patient-health"])
def test_two_officers_bring_a_key_of_which_neither_knows_more_than_a_part(
    house: House, classification: str
) -> None:
    key = house.key(classification, alias="root", origin="imported")
    row = opened(house, key, place="Room 7", reason="the card network's key")
    assert row.expires_at - clock.now() > timedelta(hours=23, minutes=59)
    first = enter(house.olga, row, ONE, check_value=check_value(ONE).upper())
    assert (first.number, first.check_value) == (1, check_value(ONE))
    row.refresh_from_db()
    assert row.check_value == "", "one component says nothing about the key"
    refused(house, StateForbids, lambda: confirm(house.olga, row, KCV))
    second = enter(house.otto, row, TWO)
    assert second.check_value == check_value(TWO)
    row.refresh_from_db()
    assert row.check_value == check_value(WHOLE)
    assert components() == 2
    wanted = {"ceremony": str(row.id), "expires_at": None}
    refused(
        house,
        StateForbids,
        lambda: administration.import_key(house.olga, "root", **wanted),
    )
    assert confirm(house.olga, row, f"{row.check_value[:8]} {row.check_value[8:].upper()}")
    refused(
        house,
        StateForbids,
        lambda: administration.import_key(house.olga, "root", **wanted),
    )
    confirm(house.otto, row, row.check_value)
    if classification == "patient-health":
        request = house.pending(administration.import_key, house.olga, "root", **wanted)
        assert request.parameters["ceremony"] == str(row.id)
        assert request.parameters["check_value"] == check_value(WHOLE)
        house.approve(str(request.id))
    done = administration.import_key(house.olga, "root", **wanted)
    assert done.state == "enabled"
    assert key.versions.get().check_value == check_value(WHOLE)
    row.refresh_from_db()
    assert (row.state, row.closed_at is not None) == ("done", True)
    assert components() == 0
    _minutes_tell_it_all(house, row, voted=classification == "patient-health")


def _minutes_tell_it_all(house: House, row: Ceremony, voted: bool) -> None:
    minutes = queries_ceremonies.minutes(house.udo, str(row.id))
    assert [c.officer.name for c in minutes.custodians] == ["Olga", "Otto"]
    assert all(c.entered_at and c.confirmed_at for c in minutes.custodians)
    assert minutes.ceremony.place == "Room 7"
    told = [(s.actor, s.action, s.outcome) for s in minutes.steps]
    assert told[0] == ("Olga", "open_ceremony", "success")
    assert ("Otto", "enter_component", "started") in told
    assert ("scheduler", "enter_component", "success") in told
    assert ("Olga", "confirm_ceremony", "failed") in told, "what was refused stands there, too"
    assert told[-1] == ("scheduler", "import_key", "success")
    assert [v.officer for v in minutes.votes] == (["Otto", "Oona"] if voted else [])
    assert [s.index for s in minutes.steps] == sorted({s.index for s in minutes.steps})
    for step in minutes.steps:
        entry = Entry.objects.get(pk=step.index)
        assert bytes(entry.leaf_hash).hex() == step.leaf_hash
    assert minutes.size > minutes.steps[-1].index and len(minutes.root) == 64
    text = repr(minutes) + repr([vars(c) for c in minutes.custodians])
    for secret in (ONE, TWO, WHOLE):
        assert secret.hex() not in text.lower()
        for entry in Entry.objects.all():
            assert secret not in bytes(entry.body)
            assert secret.hex() not in bytes(entry.body).decode()
        if house.database.vendor == "sqlite":
            for path in house.database.path.parent.iterdir():
                assert secret not in path.read_bytes(), path.name


def test_the_check_value_is_the_one_that_openssl_computes() -> None:
    assert check_value(WHOLE) == KCV
    assert ceremony.combined([Secret(ONE), Secret(TWO)]) == Secret(WHOLE)
    assert ceremony.combined([Secret(ONE), Secret(TWO), Secret(WHOLE)]) == Secret(bytes(32))
    leading = ceremony.combined([Secret(b"\x00\x01"), Secret(b"\x00\x02")])
    assert leading == Secret(b"\x00\x03"), "leading zeros stay"
    with pytest.raises(Invalid):
        ceremony.combined([Secret(b"1"), Secret(b"22")])


@pytest.mark.parametrize("spec", ["AES_256", "ECC_NIST_P256"])
def test_one_officer_brings_the_whole_and_both_confirm_it(house: House, spec: str) -> None:
    private = materials.new_pair(SPECS["ECC_NIST_P256"])[0].reveal()
    material = private if SPECS[spec].asymmetric else os.urandom(32)
    key = house.key(spec=spec, origin="imported")
    row = opened(house, key, split=False)
    parameters = administration.import_parameters(house.olga, str(key.id), spec="RSA_3072")
    arguments: dict[str, Any] = brought(parameters, material)
    with pytest.raises(Conflict, match="first custodian"):
        administration.enter_component(house.otto, str(row.id), **arguments)
    refused(house, Invalid, lambda: enter(house.olga, row, material))
    administration.enter_component(house.olga, str(row.id), **arguments)
    row.refresh_from_db()
    for officer in (house.otto, house.olga):
        confirm(officer, row, row.check_value)
    administration.import_key(house.otto, str(key.id), ceremony=str(row.id))
    assert key.versions.get().check_value == check_value(material, spec)
    assert WrappedMaterial.objects.filter(store_id=places.WRAPPING_KEYS).count() == 0


def test_a_component_can_come_wrapped_and_more_than_two_can_bring_one(house: House) -> None:
    key = house.key(spec="HMAC_256", origin="imported")
    row = opened(house, key, "Olga", "Otto", "Oona")
    parts = [os.urandom(32) for _ in range(3)]
    parameters = administration.import_parameters(house.olga, str(key.id), spec="RSA_3072")
    wrapped: dict[str, Any] = brought(parameters, parts[0])
    administration.enter_component(house.olga, str(row.id), **wrapped)
    enter(house.otto, row, parts[1])
    with pytest.raises(Invalid):  # the token is used
        administration.enter_component(house.oona, str(row.id), **wrapped)
    enter(house.oona, row, parts[2])
    row.refresh_from_db()
    whole = ceremony.combined([Secret(part) for part in parts])
    assert row.check_value == check_value(whole.reveal(), "HMAC_256")
    for officer in (house.otto, house.oona):
        confirm(officer, row, row.check_value)
    administration.import_key(house.olga, str(key.id), ceremony=str(row.id))
    assert key.versions.get().check_value == row.check_value


@pytest.mark.each_database(fast="sqlite")
def test_a_ceremony_brings_deleted_material_back(house: House) -> None:
    key = house.key(origin="imported")
    house.grant("billing", key, "encrypt", "decrypt")
    administration.import_key(
        house.olga, str(key.id), ceremony=str(complete(house, opened(house, key)).id)
    )
    sealed = operations.encrypt(house.billing, str(key.id), b"x").ciphertext
    administration.delete_material(house.olga, str(key.id), number=1)
    row = complete(house, opened(house, key))
    administration.import_key(house.olga, str(key.id), ceremony=str(row.id), number=1)
    assert operations.decrypt(house.billing, str(key.id), sealed).version == 1
    assert key.versions.get().state == S.ACTIVE


# --- who may


def test_only_who_is_named_takes_part(house: House) -> None:
    key = house.key(origin="imported")
    row = opened(house, key)
    entry = refused(house, Denied, lambda: enter(house.oona, row, ONE))
    assert entry["object"] == {
        "kind": "ceremony",
        "id": str(row.id),
        "name": key.alias,
        "version": None,
        "classification": "internal",
    }
    for other in (house.ada, house.udo):
        refused(house, Denied, lambda other=other: enter(other, row, ONE))
        refused(house, Denied, lambda other=other: confirm(other, row, "00"))
    refused(house, NotFound, lambda: enter(house.billing, row, ONE))
    refused(house, Denied, lambda: confirm(house.oona, row, "00"))
    assert components() == 0


def test_each_enters_and_confirms_once(house: House) -> None:
    row = opened(house, house.key(origin="imported"))
    enter(house.olga, row, ONE)
    for component in (ONE, TWO):
        refused(house, Conflict, lambda component=component: enter(house.olga, row, component))
    enter(house.otto, row, TWO)
    row.refresh_from_db()
    refused(house, Invalid, lambda: confirm(house.olga, row, "00" * 8))
    refused(house, Invalid, lambda: confirm(house.olga, row, check_value(ONE)))
    for wrong in (None, 5, "x" * 500, b"00"):
        refused(house, Invalid, lambda wrong=wrong: confirm(house.olga, row, wrong))
    confirm(house.olga, row, row.check_value)
    refused(house, Conflict, lambda: confirm(house.olga, row, row.check_value))


@pytest.mark.parametrize("how", ["deactivated", "dismissed"])
def test_an_officer_who_left_meanwhile_takes_no_part_and_confirms_nothing(
    house: House, how: str
) -> None:
    key = house.key(origin="imported")
    row = opened(house, key)
    enter(house.olga, row, ONE)
    otto = house.otto

    def leave() -> None:
        columns = {"active": False} if how == "deactivated" else {"role": ""}
        Principal.objects.filter(name="Otto").update(**columns)

    def come_back() -> None:
        Principal.objects.filter(name="Otto").update(active=True, role="officer")

    leave()
    entry = refused(house, GONE, lambda: enter(otto, row, TWO))
    assert entry["actor"]["name"] == "Otto"
    come_back()
    enter(otto, row, TWO)
    row.refresh_from_db()
    confirm(otto, row, row.check_value)
    confirm(house.olga, row, row.check_value)
    leave()
    entry = refused(
        house,
        StateForbids,
        lambda: administration.import_key(house.olga, str(key.id), ceremony=str(row.id)),
    )
    assert entry["action"] == "import_key"
    assert key.versions.count() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"custodians": ["Olga"]},
        {"custodians": []},
        {"custodians": ["Olga", "Olga"]},
        {"custodians": ["Olga", "Ada"]},
        {"custodians": ["Olga", "billing"]},
        {"custodians": ["Olga", "Nobody"]},
        {"custodians": "Olga"},
        {"custodians": [1, 2]},
        {"custodians": ["Olga", "Otto", "Oona", "a", "b", "c"]},
        {"split": "yes"},
        {"place": "x" * 300},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_ceremony_that_makes_no_sense_is_not_opened(house: House, wrong: dict[str, Any]) -> None:
    key = house.key(origin="imported")
    arguments: dict[str, Any] = {"custodians": ["Olga", "Otto"], "split": True, **wrong}
    refused(
        house,
        (Invalid, NotFound),
        lambda: administration.open_ceremony(house.olga, str(key.id), **arguments),
    )
    assert not Ceremony.objects.exists()


def test_a_ceremony_needs_a_key_that_takes_material_and_there_is_one_at_a_time(
    house: House,
) -> None:
    refused(house, StateForbids, lambda: opened(house, house.invoices))
    pair = house.key(spec="ECC_NIST_P256", origin="imported")
    refused(house, Invalid, lambda: opened(house, pair))
    key = house.key(origin="imported")
    opened(house, key)
    refused(house, Conflict, lambda: opened(house, key))
    refused(
        house,
        Conflict,
        lambda: administration.import_key(house.olga, str(key.id), material=Secret(ONE)),
    )
    for other in (house.ada, house.udo):
        refused(
            house,
            Denied,
            lambda other=other: administration.open_ceremony(
                other, str(key.id), custodians=["Olga", "Otto"], split=True
            ),
        )


@pytest.mark.parametrize(
    "component", [b"", b"short", bytes(32), bytes(33), b"x" * 9000], ids=lambda c: str(len(c))
)
def test_what_is_no_component_is_refused(house: House, component: bytes) -> None:
    row = opened(house, house.key(origin="imported"))
    refused(house, Invalid, lambda: enter(house.olga, row, component))
    assert components() == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"component": None},
        {"component": ONE},
        {"component": "text"},
        {"wrapped": Secret(b"x")},
        {"component": None, "wrapped": Secret(b"x")},
        {"component": None, "wrapped": Secret(b"x"), "token": Secret(b"y"), "algorithm": "AES_KWP"},
        {"check_value": "00" * 8},
        {"check_value": 5},
    ],
    ids=str,
)
def test_a_component_that_makes_no_sense_is_refused(house: House, wrong: dict[str, Any]) -> None:
    row = opened(house, house.key(origin="imported"))
    arguments: dict[str, Any] = {"component": Secret(ONE), **wrong}
    refused(
        house,
        Invalid,
        lambda: administration.enter_component(house.olga, str(row.id), **arguments),
    )
    for entry in Entry.objects.all():
        assert repr(ONE)[2:12] not in bytes(entry.body).decode()
    assert components() == 0


def test_components_that_cancel_each_other_out_end_the_ceremony(house: House) -> None:
    key = house.key(origin="imported")
    row = opened(house, key)
    enter(house.olga, row, ONE)
    with pytest.raises(Invalid, match="together are no key"):
        enter(house.otto, row, ONE)
    row.refresh_from_db()
    assert (row.state, row.check_value, components()) == ("cancelled", "", 0)
    assert "all zeros" in house.last_entry(action="close_ceremony")["facts"]["reason"]
    opened(house, key)


# --- its end


@pytest.mark.each_database(fast="sqlite")
def test_a_closed_ceremony_takes_nothing_and_keeps_nothing(house: House) -> None:
    key = house.key(origin="imported")
    row = complete(house, opened(house, key))
    administration.close_ceremony(house.oona, str(row.id), reason="the wrong key")
    assert components() == 0
    row.refresh_from_db()
    assert row.state == "cancelled"
    for change in (
        lambda: enter(house.olga, row, ONE),
        lambda: confirm(house.olga, row, row.check_value),
        lambda: administration.import_key(house.olga, str(key.id), ceremony=str(row.id)),
    ):
        refused(house, StateForbids, change)
    refused(house, Conflict, lambda: administration.close_ceremony(house.olga, str(row.id)))
    other = house.key(origin="imported")
    for reference in (str(row.id), "nothing", "0" * 36):
        refused(
            house,
            NotFound,
            lambda reference=reference: administration.import_key(
                house.olga, str(other.id), ceremony=reference
            ),
        )
    assert queries_ceremonies.minutes(house.udo, str(row.id)).ceremony.state == "cancelled"


def test_the_scheduler_closes_what_is_over_and_nothing_else(house: House) -> None:
    key = house.key(origin="imported")
    row = complete(house, opened(house, key))
    importing.tidy()
    row.refresh_from_db()
    assert (row.state, components()) == ("open", 2)
    refused(house, Conflict, lambda: administration.close_ceremony(scheduler(), str(row.id)))
    Ceremony.objects.update(expires_at=clock.now() - timedelta(seconds=1))
    refused(
        house,
        StateForbids,
        lambda: administration.import_key(house.olga, str(key.id), ceremony=str(row.id)),
    )
    importing.tidy()
    row.refresh_from_db()
    assert (row.state, components()) == ("cancelled", 0)
    entry = house.last_entry(action="close_ceremony")
    assert (entry["actor"]["name"], entry["facts"]["reason"]) == ("scheduler", "its time is over")


def test_an_import_that_its_store_refuses_leaves_the_ceremony_for_another_try(
    house: House, watched: dict[str, Any]
) -> None:
    def err() -> None:
        raise BackendError("The module says CKR_GENERAL_ERROR.")

    key = house.key("watched", alias="brought", origin="imported")
    row = complete(house, opened(house, key))
    watched["before import"] = err
    with pytest.raises(BackendError):
        administration.import_key(house.olga, "brought", ceremony=str(row.id))
    row.refresh_from_db()
    assert (row.state, components()) == ("open", 2)
    watched.clear()

    def too_late() -> None:
        with pytest.raises(Conflict, match="too late"):
            administration.close_ceremony(house.otto, str(row.id))

    watched["before import"] = too_late
    administration.import_key(house.olga, "brought", ceremony=str(row.id))
    row.refresh_from_db()
    assert (row.state, components()) == ("done", 0)


def test_what_a_crash_left_is_completed_or_cleared_by_the_sweep(house: House) -> None:
    key = house.key(origin="imported")
    row = opened(house, key)
    enter(house.olga, row, ONE)
    enter(house.otto, row, TWO)
    # As if the process had died before it wrote the check value.
    Ceremony.objects.update(check_value="")
    importing.tidy()
    row.refresh_from_db()
    assert row.check_value == check_value(WHOLE)
    # As if it had died between closing and removing.
    Ceremony.objects.update(state="cancelled")
    importing.tidy()
    assert components() == 0


def test_a_component_that_could_not_be_sealed_can_be_entered_again(
    house: House, settings: Any
) -> None:
    row, kept = opened(house, house.key(origin="imported")), settings.ROOT_KEY_FILE
    settings.ROOT_KEY_FILE = kept.with_name("none")
    with pytest.raises(Unavailable):
        enter(house.olga, row, ONE)
    settings.ROOT_KEY_FILE = kept
    entry = house.last_entry(action="enter_component")
    assert (entry["outcome"], entry["reason"]) == ("failed", "unavailable")
    assert row.custodians.get(number=1).entered_at is None
    # As if it had been sealed, but never came to be entered; then another one is.
    places.components().import_material(
        row.custodians.get(number=1).id, "AES_256", Secret(TWO), exportable=True
    )
    assert enter(house.olga, row, ONE).entered_at is not None
    enter(house.otto, row, TWO)
    row.refresh_from_db()
    assert row.check_value == check_value(WHOLE)


def test_components_that_are_not_those_that_were_confirmed_are_not_imported(house: House) -> None:
    key = house.key(origin="imported")
    row = complete(house, opened(house, key))
    custodian = row.custodians.get(number=2)
    store = places.components()
    store.destroy(custodian.id.hex)
    store.import_material(custodian.id, "AES_256", Secret(bytes(range(5, 37))), exportable=True)
    wanted = {"ceremony": str(row.id)}
    with pytest.raises(StateForbids, match="not there any more"):
        administration.import_key(house.olga, str(key.id), **wanted)
    Custodian.objects.filter(pk=custodian.pk).update(check_value=check_value(bytes(range(5, 37))))
    with pytest.raises(StateForbids, match="not those that were confirmed"):
        administration.import_key(house.olga, str(key.id), **wanted)
    store.destroy(custodian.id.hex)
    with pytest.raises(StateForbids):
        administration.import_key(house.olga, str(key.id), **wanted)
    assert key.versions.count() == 0


def test_votes_are_for_one_ceremony(house: House) -> None:
    key = house.key("patient-health", alias="root", origin="imported")
    first = complete(house, opened(house, key))
    request = house.pending(administration.import_key, house.olga, "root", ceremony=str(first.id))
    house.approve(str(request.id))
    administration.close_ceremony(house.olga, str(first.id))
    second = complete(house, opened(house, key))
    with pytest.raises(PendingApproval):
        administration.import_key(house.olga, "root", ceremony=str(second.id))
    assert key.versions.count() == 0


# --- reading


def test_who_may_read_ceremonies_and_minutes(house: House) -> None:
    key = house.key(origin="imported")
    house.grant("billing", key, "encrypt")
    row = opened(house, key)
    for reader in (house.udo, house.ada, house.oona):
        assert queries_ceremonies.ceremony(reader, str(row.id)).key == key
        assert queries_ceremonies.ceremonies(reader, key) == [row]
        assert queries_ceremonies.minutes(reader, str(row.id)).steps
    for read in (queries_ceremonies.ceremony, queries_ceremonies.minutes):
        with pytest.raises(Denied):
            read(house.billing, str(row.id))
        with pytest.raises(NotFound):
            read(house.stranger, str(row.id))
        for reference in ("nothing", "0" * 32, ""):
            with pytest.raises(NotFound):
                read(house.udo, reference)
