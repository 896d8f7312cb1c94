"""Short ways to look at a key, and at what differs, for tests of drift."""

from __future__ import annotations

from typing import Any

from keys import administration
from keys.models import Drift, Key
from tests.house import House
from tests.keys.remote import Vendor


def adopted(house: House, vendor: Vendor, name: str, classification: str = "cloud") -> Key:
    """Return a key of two versions, as it is when it was adopted: nothing differs."""
    vendor.create(name, versions=2)
    return administration.adopt_key(
        house.olga, classification, key_store="cloud", reference=name, alias=name
    )


def look(house: House, alias: str = "payroll") -> Key:
    return administration.check_drift(house.olga, alias)


def found(alias: str = "payroll") -> list[tuple[str, str, Any, Any]]:
    rows = Drift.objects.filter(key__alias=alias, state="open").order_by("field", "handle")
    return [(r.field, r.handle.rpartition("/")[2], r.believed, r.observed) for r in rows]


def the(field: str, alias: str = "payroll") -> Drift:
    return Drift.objects.get(key__alias=alias, field=field, state="open")


def states(alias: str = "payroll") -> list[tuple[int, str, bool]]:
    rows = Key.objects.get(alias=alias).versions.order_by("number")
    return [(v.number, v.state, v.primary) for v in rows]


def accept(house: House, field: str, alias: str = "payroll") -> Drift:
    return administration.accept_drift(house.olga, str(the(field, alias).id), reason="as agreed")


def revert(house: House, field: str, alias: str = "payroll") -> Drift:
    return administration.revert_drift(house.olga, str(the(field, alias).id), reason="not agreed")


def repair(house: House, field: str, alias: str = "payroll") -> Drift:
    return administration.repair_drift(house.olga, str(the(field, alias).id), reason="it is lost")
