"""A house with something to show on every page, and the addresses of all its pages."""

from __future__ import annotations

from dataclasses import dataclass

from keys import administration
from keys.models import Grant, Job, Principal
from tests.house import House


@dataclass(frozen=True, slots=True)
class Furnished:
    """Addresses by the name of their route, every one of them with something behind it."""

    addresses: dict[str, str]


def furnish(house: House) -> Furnished:
    key = house.key("patient-health", name="Records", alias="records")
    waiting = house.key("internal", name="Brought along", alias="brought-along", origin="imported")
    doomed = house.key("internal", name="Doomed", alias="doomed")
    administration.schedule_destruction(house.olga, "doomed", reason="nobody needs it")
    stolen = house.key("internal", name="Stolen", alias="stolen", spec="ECC_NIST_P256")
    house.move(stolen, 1, "compromised", reason="found in the open")
    request = house.pending(administration.rotate_key, house.otto, "records", reason="new year")
    billing = Principal.objects.get(name="billing")
    credential = billing.credentials.get()
    grant = Grant.objects.get(principal=billing)
    job = Job.objects.filter(key=doomed, kind="destroy").get()
    otto = Principal.objects.get(name="Otto")
    udo = Principal.objects.get(name="Udo")
    application = f"/applications/{billing.id}"
    addresses = {
        "overview": "/",
        "keys": "/keys",
        "key": f"/keys/{key.alias}",
        "key-create": "/keys/-/new?classification=internal",
        "key-edit": f"/keys/{key.alias}/edit",
        "key-import": f"/keys/{waiting.alias}/import",
        "key-verb": f"/keys/{key.alias}/do/rotate",
        "version-verb": f"/keys/{stolen.alias}/versions/1/do/destroy",
        "approvals": "/approvals?show=all",
        "approval": f"/approvals/{request.id}",
        "withdraw": f"/approvals/{request.id}/withdraw",
        "jobs": "/jobs",
        "job": f"/jobs/{job.id}",
        "audit": "/audit",
        "audit-entry": "/audit/3",
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
        "credential-revoke": f"{application}/credentials/{credential.id}/revoke",
        "grant-create": f"/grants/-/new?application={billing.id}",
        "grant-revoke": f"/grants/{grant.id}/revoke",
        "people": "/people",
        "person-create": "/people/-/new",
        "officer-appoint": "/people/-/officer",
        "officer-dismiss": f"/people/{otto.id}/dismiss",
        "person-close": f"/people/{udo.id}/close",
        "account": "/account",
        "key-stores": "/key-stores",
        "key-store-create": "/key-stores/-/new",
        "key-store-off": "/key-stores/software/off",
        "key-store-on": "/key-stores/software/on",
    }
    return Furnished(addresses)


# Pages that change nothing by being looked at, and that every role may see.
FOR_EVERYBODY = (
    "overview", "keys", "key", "approvals", "approval", "jobs", "job", "audit", "audit-entry",
    "classifications", "classification", "applications", "application", "people", "account",
    "key-stores",
)  # fmt: skip
