"""Everything that an address can name, in one house: so that each route could do something."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db import transaction

from audit import tiles
from audit.models import Archive, Entry
from audit.writer import append
from keys import administration, clock, trail
from keys.actions import GRANTABLE
from keys.backends.views import KeyView, VersionView
from keys.drift.plain import to_plain
from keys.models import Drift, FoundKey, Grant, Job, KeyStore, Listing
from keys.states import KeyState, VersionState
from kms_console.api.rest.codecs import use as table
from tests.audit.helpers import use
from tests.house import House

TABLES = [
    model
    for app in ("keys", "software", "auth", "auditlog")
    for model in apps.get_app_config(app).get_models()
    if model.__name__ != "User"  # its last sign-in moves
]


def furnish(house: House) -> dict[str, str]:
    """Return a real value for every part that an address of the API has."""
    key = house.key("patient-health", name="Records", alias="records")
    grant = Grant.objects.get()
    operations = [action.value for action in GRANTABLE]
    administration.create_grant(
        house.olga, "billing", classification="internal", operations=operations
    )
    request = house.pending(administration.rotate_key, house.olga, str(key.id))
    brought = house.key(name="Brought", alias="brought", origin="imported")
    ceremony = administration.open_ceremony(
        house.olga, str(brought.id), custodians=["Olga", "Otto"], split=True
    )
    listing, difference = _listed(house)
    return {
        "listing": str(listing.id),
        "drift": str(difference.id),
        "key": "invoices",
        "number": "1",
        "classification": "internal",
        "application": "billing",
        "person": "udo",
        "credential": str(house.billing.credential_id),
        "grant": str(grant.id),
        "key_store": "software",
        "approval": str(request.id),
        "ceremony": str(ceremony.id),
        "job": str(Job.objects.order_by("created_at")[0].id),
        "index": "0",
        "export": str(trail.create_export(house.udo).id),
        "filter": str(administration.save_filter(house.udo, name="Night", query={"text": "n"}).id),
        "hold": str(
            administration.place_hold(
                house.udo, name="Case 7", since="2020-01-01T00:00:00+00:00", reason="a court"
            ).id
        ),
        "archive": str(_archived().start),
    }


def _archived() -> Archive:
    """Return a bundle of the log's first entries, as a row, though no storage has it."""
    with transaction.atomic():
        append([use() for _ in range(300)])
    tiles.build()
    at = [row.at for row in Entry.objects.filter(index__lt=256)]
    return Archive.objects.create(
        start=0,
        end=256,
        first_at=min(at),
        last_at=max(at),
        place="file:///nowhere",
        name="000000000000-000000000256",
        sha256="0" * 64,
        archived_at=clock.now(),
    )


def _listed(house: House) -> tuple[Listing, Drift]:
    """Return a listing and a difference as rows, without a store that could have made them."""
    now, store = clock.now(), KeyStore.objects.get(name="software")
    listing = Listing.objects.create(
        key_store=store,
        state="done",
        found=1,
        requested_by_id=house.olga.principal_id,
        created_at=now,
        run_after=now,
    )
    version = VersionView("theirs/1", VersionState.ACTIVE, primary=True, created_at=now)
    view = KeyView("theirs", "theirs", KeyState.ENABLED, (version,), "AES_256", tags={"a": "b"})
    FoundKey.objects.create(listing=listing, reference="theirs", name="theirs", view=to_plain(view))
    difference = Drift.objects.create(
        key=house.invoices, field="rotation", observed=90, found_at=now, seen_at=now
    )
    return listing, difference


def contents() -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table that a request could change, the log apart."""
    return {
        model.__name__: list(
            model._default_manager.using(
                "material" if model._meta.app_label == "software" else "default"
            )
            .order_by("pk")
            .values()
        )
        for model in TABLES
    }


# A body with which each use would be understood; {} for those not named.
USES: dict[str, dict[str, Any]] = {
    "encrypt": {"plaintext": "QQ=="},
    "decrypt": {"ciphertext": "QQ=="},
    "re-encrypt": {"ciphertext": "QQ=="},
    "sign": {"message": "QQ=="},
    "verify": {"message": "QQ==", "signature": "QQ=="},
    "mac": {"message": "QQ=="},
    "verify-mac": {"message": "QQ==", "mac": "QQ=="},
    "wrap-key": {"key_material": "QQ=="},
    "unwrap-key": {"wrapped_key": "QQ=="},
    "decapsulate": {"ciphertext": "QQ=="},
    "derive-shared-secret": {"peer_public_key": "QQ=="},
    "certificate-request": {"subject": "CN=shop"},
}
# A body with which each route would work, by the route's name and method; {} for those not named.
GOOD: dict[tuple[str, str], Any] = {
    **{("POST", path): USES.get(path, {}) for path in [*table.USES, "random"]},
    **{("POST", f"{p}/batch"): {"items": [USES.get(p, {})]} for p in [*table.USES, "random"]},
    ("POST", "keys"): {"name": "New", "classification": "internal", "spec": "AES_256"},
    ("PATCH", "key"): {"owner": "Somebody"},
    ("POST", "import"): {
        "wrapped": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=",
        "token": "A" * 43,
        "algorithm": "RSAES_OAEP_SHA_256",
    },
    ("POST", "export"): {"public_key": "QUFB"},
    ("POST", "ceremonies"): {"custodians": ["Olga", "Otto"], "split": True},
    ("POST", "component"): {"component": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="},
    ("POST", "confirm"): {"check_value": "0011223344556677"},
    ("POST", "transition"): {"to": "suspended"},
    ("POST", "classifications"): {
        "name": "new",
        "title": "New",
        "allowed_specs": ["AES_256"],
        "key_stores": ["software"],
    },
    ("PATCH", "classification"): {"title": "Other"},
    ("POST", "pause-rotation"): {"reason": "a move"},
    ("POST", "key_stores"): {"name": "second", "kind": "software"},
    ("PATCH", "key_store"): {"title": "Other"},
    ("POST", "root-key-hold"): {"key_store": "software"},
    ("POST", "root-key-rotate"): {"key_store": "software"},
    ("POST", "adopt"): {"classification": "internal", "reference": "theirs"},
    ("POST", "applications"): {"name": "new"},
    ("PUT", "limits"): {"rate": 100, "quota": 1000},
    ("POST", "people"): {"name": "New", "username": "new", "role": "auditor"},
    ("POST", "appoint-officer"): {"name": "New", "username": "new"},
    ("POST", "grants"): {"application": "billing", "key": "invoices", "operations": ["encrypt"]},
    ("POST", "vote"): {"approve": True, "digest": "0" * 64},
}
