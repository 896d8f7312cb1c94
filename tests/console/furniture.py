"""A house with something to show on every page, and the addresses of all its pages."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from django.db import connections

from audit import guard
from audit.search import Filters
from audit.writer import close_appender
from keys import administration, discovery, snapshot, trail
from keys.models import Classification, Drift, Grant, Job, Principal
from keys.services import operator
from tests.house import House
from tests.keys import remote


@dataclass(frozen=True, slots=True)
class Furnished:
    """Addresses by the name of their route, every one of them with something behind it."""

    addresses: dict[str, str]


def furnished_once(house: House, kept: Path) -> Furnished:
    """Furnish this house, and keep it in the folder `kept`; from the second time on, copy that.

    The file of the store `cloud` lies where it was made, in the first house's folder.
    """
    files = [house.database.path, Path(house.database.material_url.removeprefix("sqlite:///"))]
    note = kept / "addresses.json"
    if note.exists():
        cloud, addresses = json.loads(note.read_text())
        _quiet()
        for path in files:
            shutil.copyfile(kept / path.name, path)
        shutil.copyfile(kept / "remote.json", cloud)
        guard.forget()
        remote.register()
        return Furnished(addresses)
    made = furnish(house)
    _quiet()  # which also brings all of a database into its one file
    kept.mkdir(exist_ok=True)
    cloud = house.folder / "remote.json"
    for path in (*files, cloud):
        shutil.copyfile(path, kept / path.name)
    note.write_text(json.dumps([str(cloud), made.addresses]))
    return made


def _quiet() -> None:
    """Let go of the databases, and of what is known of them."""
    close_appender()
    connections.close_all()
    snapshot.cache.forget()


def furnish(house: House) -> Furnished:
    key = house.key("patient-health", name="Records", alias="records")
    waiting = house.key("internal", name="Brought along", alias="brought-along", origin="imported")
    doomed = house.key("internal", name="Doomed", alias="doomed")
    administration.schedule_destruction(house.olga, "doomed", reason="nobody needs it")
    stolen = house.key("internal", name="Stolen", alias="stolen", spec="ECC_NIST_P256")
    house.move(stolen, 1, "compromised", reason="found in the open")
    Classification.objects.filter(name="patient-health").update(allows_export=True)
    house.key("patient-health", name="Leaving", alias="leaving", exportable=True)
    house.key("internal", name="Signer", alias="signer", spec="ECC_NIST_P256", publish_days=30)
    house.key("internal", name="Split", alias="split", origin="imported")
    officers = ["Olga", "Otto", "Oona"]
    ceremony = administration.open_ceremony(
        house.olga, "split", custodians=officers, split=True, place="Room 2"
    )
    request = house.pending(administration.rotate_key, house.otto, "records", reason="new year")
    billing = Principal.objects.get(name="billing")
    credential = billing.credentials.get()
    grant = Grant.objects.get(principal=billing)
    job = Job.objects.filter(key=doomed, kind="destroy").get()
    cloud = _furnish_cloud(house)
    saved = administration.save_filter(
        house.olga, name="Refusals", query={"outcome": "denied"}, shared=True
    )
    exported = trail.create_export(house.udo, Filters(action="encrypt"), "csv")
    hold = administration.place_hold(
        house.olga, name="File 7", since="2020-01-01T00:00:00Z", reason="a case"
    )
    otto = Principal.objects.get(name="Otto")
    udo = Principal.objects.get(name="Udo")
    application = f"/applications/{billing.id}"
    addresses = {
        "overview": "/",
        "keys": "/keys",
        "key": f"/keys/{key.alias}",
        "key-create": "/keys/-/new?classification=internal&spec=ECC_NIST_P256",
        "key-edit": f"/keys/{key.alias}/edit",
        "key-import": f"/keys/{waiting.alias}/import",
        "import-parameters": f"/keys/{waiting.alias}/import/parameters",
        "import-material": f"/keys/{waiting.alias}/import/material",
        "ceremony-open": f"/keys/{waiting.alias}/import/ceremony",
        "ceremony": f"/ceremonies/{ceremony.id}",
        "ceremony-cancel": f"/ceremonies/{ceremony.id}/cancel",
        "ceremony-minutes": f"/ceremonies/{ceremony.id}/minutes",
        "version-export": "/keys/leaving/versions/1/export",
        "certificate-request": "/keys/signer/certificate",
        "key-verb": f"/keys/{key.alias}/do/rotate",
        "version-verb": f"/keys/{stolen.alias}/versions/1/do/destroy",
        "approvals": "/approvals?show=all",
        "approval": f"/approvals/{request.id}",
        "withdraw": f"/approvals/{request.id}/withdraw",
        "jobs": "/jobs",
        "job": f"/jobs/{job.id}",
        "audit": "/audit",
        "audit-entry": "/audit/3",
        "audit-export": "/audit/export?action=encrypt",
        "audit-exports": "/audit/exports",
        "audit-export-page": f"/audit/exports/{exported.id}",
        "audit-filters": "/audit/filters",
        "audit-filter-save": "/audit/filters/new?action=encrypt",
        "audit-filter-delete": f"/audit/filters/{saved.id}/delete",
        "proofs": "/proofs",
        "hold-place": "/proofs/holds/new",
        "hold-release": f"/proofs/holds/{hold.id}/release",
        "classifications": "/classifications",
        "classification-create": "/classifications/-/new",
        "classification": "/classifications/patient-health",
        "classification-edit": "/classifications/patient-health/edit",
        "rotation-pause": "/classifications/internal/pause",
        "rotation-resume": "/classifications/internal/resume",
        "applications": "/applications",
        "application-create": "/applications/-/new",
        "application": application,
        "application-close": f"{application}/close",
        "credential-issue": f"{application}/credentials/new",
        "limits-set": f"{application}/limits",
        "credential-revoke": f"{application}/credentials/{credential.id}/revoke",
        "grant-create": f"/grants/-/new?application={billing.id}",
        "grant-revoke": f"/grants/{grant.id}/revoke",
        "people": "/people",
        "person-create": "/people/-/new",
        "officer-appoint": "/people/-/officer",
        "officer-dismiss": f"/people/{otto.id}/dismiss",
        "person-close": f"/people/{udo.id}/close",
        "person-erase": f"/people/{udo.id}/erase",
        "account": "/account",
        "key-stores": "/key-stores",
        "key-store-create": "/key-stores/-/new?kind=remote",
        "root-key-hold": "/key-stores/-/root-key/hold",
        "root-key-rotate": "/key-stores/-/root-key/rotate",
        "key-store": "/key-stores/cloud?ask=offers",
        "key-store-edit": "/key-stores/cloud/edit",
        "key-store-off": "/key-stores/software/off",
        "key-store-on": "/key-stores/software/on",
        **cloud,
    }
    return Furnished(addresses)


def _furnish_cloud(house: House) -> dict[str, str]:
    """Add a store that keeps states of its own, with a key that differs and one to adopt.

    The kind stays known until the test is over: see conftest.py.
    """
    remote.register()
    path = house.folder / "remote.json"
    store = administration.create_key_store(
        operator(), name="cloud", kind="remote", title="Cloud", settings={"file": str(path)}
    )
    administration.create_classification(
        operator(),
        name="cloud",
        title="Cloud",
        allowed_specs=sorted(remote.OFFERS),
        key_stores=["cloud"],
    )
    vendor = remote.Vendor(path, store.id)
    key = house.key("cloud", name="Payroll", alias="payroll")
    administration.check_drift(house.olga, "payroll")
    vendor.disable(vendor.of(key))
    administration.check_drift(house.olga, "payroll")
    vendor.create("theirs", tags={"team": "shop"})
    listing = discovery.run(administration.discover_keys(house.olga, "cloud").id)
    found = listing.keys.get(name="theirs")
    difference = Drift.objects.get(key=key)
    return {
        "listing": f"/listings/{listing.id}",
        "listing-adopt": f"/listings/{listing.id}/adopt?found={found.pk}",
        "drift": "/drift",
        "drift-verb": f"/drift/{difference.id}/do/accept",
    }


def sent_to(furnished: Furnished) -> dict[str, str]:
    """Return the addresses that take a form and are no pages, by the name of their route."""
    ceremony = furnished.addresses["ceremony"]
    return {
        "sign-out": "/sign-out",
        "audit-verify": "/audit/verify",
        "vote": furnished.addresses["approval"] + "/vote",
        "public-key": "/keys/signer/public-key",
        "key-compare": "/keys/payroll/compare",
        "key-store-check": "/key-stores/cloud/check",
        "key-store-discover": "/key-stores/cloud/discover",
        "ceremony-enter": f"{ceremony}/enter",
        "ceremony-confirm": f"{ceremony}/confirm",
        "ceremony-import": f"{ceremony}/import",
    }


# Pages that change nothing by being looked at, and that every role may see.
FOR_EVERYBODY = (
    "overview", "keys", "key", "approvals", "approval", "jobs", "job", "audit", "audit-entry",
    "audit-filters", "proofs",
    "classifications", "classification", "applications", "application", "people", "account",
    "key-stores", "ceremony", "ceremony-minutes", "key-store", "listing", "drift",
)  # fmt: skip
