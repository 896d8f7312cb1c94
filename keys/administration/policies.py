"""Classifications: the policies that keys follow, and pausing rotation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import DateTimeField, ExpressionWrapper, F, OuterRef, Subquery

from audit.events import Subject
from keys import gate, names, parameters, targets
from keys.actions import Action
from keys.algorithms import SPECS
from keys.backends.base import Protection
from keys.errors import AlreadyExists, Conflict, Invalid
from keys.gate.changes import Change
from keys.models import Classification, Key, KeyStore, KeyVersion

# Field: least, most. Days, except the quorum's officers.
RANGES = {
    "rotation_days": (1, 3650),
    "originator_days": (1, 3650),
    "recipient_days": (1, 36500),
    "destruction_days": (1, 120),
    "quorum_m": (2, 16),
    "quorum_n": (3, 16),
}


@gate.change(Action.CREATE_CLASSIFICATION, on=targets.house)
def create_classification(
    change: Change[None],
    *,
    name: str,
    title: str,
    allowed_specs: list[str],
    key_stores: list[str],
    description: str = "",
    minimum_protection: str = Protection.SOFTWARE.value,
    rotation_days: int = 365,
    originator_days: int = 730,
    recipient_days: int = 1825,
    quorum_m: int | None = None,
    quorum_n: int | None = None,
    destruction_days: int = 30,
    suspended_decrypts: bool = False,
    allows_export: bool = False,
    reason: str = "",
) -> Classification:
    """Create a classification. `quorum_m` of at least `quorum_n` officers must agree where both are given."""
    wanted = {
        "title": title,
        "description": description,
        "allowed_specs": allowed_specs,
        "minimum_protection": minimum_protection,
        "rotation_days": rotation_days,
        "originator_days": originator_days,
        "recipient_days": recipient_days,
        "quorum_m": quorum_m,
        "quorum_n": quorum_n,
        "destruction_days": destruction_days,
        "suspended_decrypts": suspended_decrypts,
        "allows_export": allows_export,
    }
    chosen = names.slug(name, "name")
    if Classification.objects.filter(name=chosen).exists():
        raise AlreadyExists(f"There is a classification {chosen} already.", field="name")
    row = Classification(name=chosen, created_at=change.now)
    _assign(row, wanted)
    row.save(force_insert=True)
    row.key_stores.set(_stores(key_stores))
    change.about = Subject("classification", str(row.id), row.name)
    change.facts["policy"] = targets.policy_facts(row)
    change.touch("classification", row.id)
    return row


@gate.change(Action.UPDATE_CLASSIFICATION, on=targets.classification)
def update_classification(
    change: Change[Classification],
    *,
    title: str | None = None,
    description: str | None = None,
    allowed_specs: list[str] | None = None,
    minimum_protection: str | None = None,
    key_stores: list[str] | None = None,
    rotation_days: int | None = None,
    originator_days: int | None = None,
    recipient_days: int | None = None,
    quorum: dict[str, int] | None = None,
    destruction_days: int | None = None,
    suspended_decrypts: bool | None = None,
    allows_export: bool | None = None,
    reason: str = "",
) -> Classification:
    """Change a policy; what is left out stays. `quorum` is {"m": …, "n": …}, or {} for none.

    Keys that exist keep their material; their next rotation follows the new period at once. The new
    usage periods hold for versions activated from now on.
    """
    row = change.row
    wanted: dict[str, Any] = {
        "title": title,
        "description": description,
        "allowed_specs": allowed_specs,
        "minimum_protection": minimum_protection,
        "rotation_days": rotation_days,
        "originator_days": originator_days,
        "recipient_days": recipient_days,
        "destruction_days": destruction_days,
        "suspended_decrypts": suspended_decrypts,
        "allows_export": allows_export,
    }
    changes = {name: value for name, value in wanted.items() if value is not None}
    if quorum is not None:
        if not isinstance(quorum, dict) or not set(quorum) <= {"m", "n"}:
            raise Invalid('quorum must be {"m": 2, "n": 3}, or {} for none.', field="quorum")
        changes |= {"quorum_m": quorum.get("m"), "quorum_n": quorum.get("n")}
    _assign(row, changes)
    row.save()
    if key_stores is not None:
        row.key_stores.set(_stores(key_stores))
    if rotation_days is not None:
        reschedule(row)
    change.facts["policy"] = targets.policy_facts(row)
    change.touch("classification", row.id)
    return row


@gate.change(Action.PAUSE_ROTATION, on=targets.classification)
def pause_rotation(change: Change[Classification], *, reason: str = "") -> Classification:
    """Stop scheduled rotation of a classification's keys; they stay due and can be rotated by hand."""
    row = change.row
    if row.rotation_paused:
        raise Conflict("Rotation is paused already.")
    row.rotation_paused, row.rotation_paused_reason = (
        True,
        names.prose(reason, "reason", required=True),
    )
    row.save()
    change.touch("classification", row.id)
    return row


@gate.change(Action.RESUME_ROTATION, on=targets.classification)
def resume_rotation(change: Change[Classification], *, reason: str = "") -> Classification:
    """Let scheduled rotation go on; what is due is rotated by the next sweep."""
    row = change.row
    if not row.rotation_paused:
        raise Conflict("Rotation is not paused.")
    row.rotation_paused, row.rotation_paused_reason = False, ""
    row.save()
    change.touch("classification", row.id)
    return row


def reschedule(classification: Classification) -> None:
    """Write the next rotation of every key of a classification anew, in one statement."""
    origin = KeyVersion.objects.filter(key=OuterRef("pk"), primary=True).values("originated_at")[:1]
    # A key without a primary (it was revoked) keeps its date: nothing dates a new one.
    keys = Key.objects.filter(
        classification=classification, rotate_at__isnull=False, versions__primary=True
    )
    for days in keys.order_by().values_list("rotation_days", flat=True).distinct():
        period = timedelta(days=min(filter(None, [days, classification.rotation_days])))
        due = ExpressionWrapper(Subquery(origin) + period, output_field=DateTimeField())
        keys.filter(rotation_days=days).annotate(due=due).update(rotate_at=F("due"))


def _assign(row: Classification, changes: dict[str, Any]) -> None:
    """Check and set policy fields. Raises Invalid where one is wrong or they contradict each other."""
    for name, value in changes.items():
        setattr(row, name, _checked(name, value))
    if not row.rotation_days <= row.originator_days <= row.recipient_days:
        raise Invalid(
            "Periods must grow: rotation_days, then originator_days, then recipient_days.",
            field="rotation_days",
        )
    if (row.quorum_m is None) != (row.quorum_n is None):
        raise Invalid("A quorum needs both numbers, or neither.", field="quorum_m")
    if row.quorum_m is not None and row.quorum_n is not None and row.quorum_n <= row.quorum_m:
        raise Invalid(
            "quorum_n must be larger than quorum_m: who asks does not vote.", field="quorum_n"
        )


def _checked(name: str, value: Any) -> Any:
    if name in RANGES:
        least, most = RANGES[name]
        optional = name.startswith("quorum")
        check = parameters.whole_or_none if optional else parameters.whole
        return check(value, name, least, most)
    if name == "title":
        return (
            names.display_name(value, "title")
            if isinstance(value, str)
            else parameters.one_of(value, name, ())
        )
    if name == "description":
        return names.prose(value, "description")
    if name == "allowed_specs":
        return parameters.some_of(value, name, SPECS)
    if name == "minimum_protection":
        return parameters.one_of(value, name, list(Protection))
    return parameters.yes_or_no(value, name)


def _stores(wanted: Any) -> list[KeyStore]:
    """Return key stores by name or id. Raises Invalid, naming those that there are."""
    stores = {store.name: store for store in KeyStore.objects.all()}
    by_id = {str(store.id): store.name for store in stores.values()}
    if not isinstance(wanted, list):
        raise Invalid("key_stores must be a list of names.", field="key_stores")
    chosen = [by_id.get(str(item), item) for item in wanted]
    return [stores[name] for name in parameters.some_of(chosen, "key_stores", stores)]
