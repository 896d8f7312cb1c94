"""What an action is about: found by id or name, freshly read, with the policy that it stands under."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from audit.events import Personal, Subject, Told
from audit.models import Archive, LegalHold
from keys import names
from keys.actions import Action
from keys.callers import Kind
from keys.errors import NotFound
from keys.models import (
    Approval,
    Ceremony,
    Classification,
    Credential,
    Drift,
    Grant,
    Job,
    Key,
    KeyStore,
    Listing,
    Principal,
)

# The one way to say so, whether there is none or none that the caller may know of.
NO_KEY = "There is no such key."

# Requests that name a person, in what they are about or in their parameters.
ABOUT_PEOPLE = (Action.APPOINT_OFFICER, Action.DISMISS_OFFICER, Action.ERASE_PERSON)

S = TypeVar("S")
Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target(Generic[S]):
    """One row, how entries name it, and the classification whose policy governs it, if any does."""

    row: S
    kind: str
    id: str
    name: str
    classification: Classification | None = None
    key: Key | None = None

    def subject(self, version: int | None = None) -> Subject:
        under = self.classification.name if self.classification is not None else ""
        name: Told = self.name
        if isinstance(self.row, Principal):
            name = principal_subject(self.row).name
        return Subject(self.kind, self.id, name, version, under)

    def state(self) -> dict[str, Any]:
        """Return what officers see the target to be; if it differs later, their votes are void."""
        seen: dict[str, Any] = {}
        if self.key is not None:
            versions = self.key.versions.order_by("number")
            seen["key"] = {
                "state": self.key.state,
                "versions": [[v.number, v.state, v.condition, v.primary] for v in versions],
            }
        if self.classification is not None:
            seen["classification"] = policy_facts(self.classification)
        if isinstance(self.row, Principal):
            seen["principal"] = {"active": self.row.active, "role": self.row.role}
        return seen


Resolver = Callable[[str, Parameters], Target[S]]


def policy_facts(classification: Classification) -> dict[str, Any]:
    """Return a classification as plain values: what it allows and asks."""
    return {
        "id": str(classification.id),
        "name": classification.name,
        "title": classification.title,
        "allowed_specs": sorted(classification.allowed_specs),
        "minimum_protection": classification.minimum_protection,
        "key_stores": sorted(store.name for store in classification.key_stores.all()),
        "rotation_days": classification.rotation_days,
        "rotation_paused": classification.rotation_paused,
        "originator_days": classification.originator_days,
        "recipient_days": classification.recipient_days,
        "quorum_m": classification.quorum_m,
        "quorum_n": classification.quorum_n,
        "destruction_days": classification.destruction_days,
        "suspended_decrypts": classification.suspended_decrypts,
        "allows_export": classification.allows_export,
    }


def key_subject(key: Key, version: int | None = None) -> Subject:
    """Return how entries name a key, or one of its versions."""
    return Subject("key", str(key.id), key.alias, version, key.classification.name)


def principal_subject(row: Principal) -> Subject:
    """Return how entries name an account; a person's name is personal data."""
    person = row.kind == Kind.PERSON
    name: Told = Personal(row.name, str(row.id)) if person else row.name
    return Subject("principal", str(row.id), name)


def key(reference: str, parameters: Parameters) -> Target[Key]:
    """Find a key by id or alias."""
    wanted = names.as_uuid(reference)
    rows = Key.objects.select_related("classification", "key_store")
    row = rows.filter(**({"pk": wanted} if wanted else {"alias": names.folded(reference)})).first()
    if row is None:
        raise NotFound(NO_KEY)
    return Target(row, "key", str(row.id), row.alias, row.classification, row)


def classification(reference: str, parameters: Parameters) -> Target[Classification]:
    row = _by_name(Classification, reference)
    return Target(row, "classification", str(row.id), row.name, row)


def key_store(reference: str, parameters: Parameters) -> Target[KeyStore]:
    row = _by_name(KeyStore, reference)
    return Target(row, "key_store", str(row.id), row.name)


def principal(reference: str, parameters: Parameters) -> Target[Principal]:
    """Find a person, an application or a service by id or name."""
    wanted = names.as_uuid(reference)
    row = Principal.objects.filter(
        **({"pk": wanted} if wanted else {"name_folded": names.folded(reference)})
    ).first()
    if row is None:
        raise NotFound("There is no such account.")
    return Target(row, "principal", str(row.id), row.name)


def grantee(reference: str, parameters: Parameters) -> Target[Principal]:
    """Find who is to get a grant, under the policy of what is granted."""
    found = principal(reference, parameters)
    wanted_key, wanted_class = parameters.get("key"), parameters.get("classification")
    if wanted_key:
        about = key(wanted_key, parameters)
        return Target(found.row, found.kind, found.id, found.name, about.classification)
    if wanted_class:
        return Target(
            found.row,
            found.kind,
            found.id,
            found.name,
            classification(wanted_class, parameters).row,
        )
    return found


def credential(reference: str, parameters: Parameters) -> Target[Credential]:
    row = _by_id(Credential, reference, "credential")
    return Target(row, "credential", str(row.id), f"{row.principal.name} {row.hint}")


def grant(reference: str, parameters: Parameters) -> Target[Grant]:
    row = _by_id(Grant, reference, "grant")
    under = row.key.classification if row.key is not None else row.classification
    return Target(row, "grant", str(row.id), row.principal.name, under)


def approval(reference: str, parameters: Parameters) -> Target[Approval]:
    row = _by_id(Approval, reference, "request")
    # A person's name would stay in the log for good; the request's id leads to it.
    about = "" if row.action in ABOUT_PEOPLE else row.subject_name
    return Target(row, "approval", str(row.id), f"{row.action} {about}".rstrip()[:128])


def ceremony(reference: str, parameters: Parameters) -> Target[Ceremony]:
    """Find a ceremony by id; it stands under its key's policy, and entries name it as the key."""
    row = _by_id(Ceremony, reference, "ceremony")
    about: Key = row.key
    return Target(row, "ceremony", str(row.id), about.alias, about.classification, about)


def job(reference: str, parameters: Parameters) -> Target[Job]:
    row = _by_id(Job, reference, "job")
    return Target(row, "job", str(row.id), row.kind)


def drift(reference: str, parameters: Parameters) -> Target[Drift]:
    """Find a difference by id; it stands under its key's policy, and entries name it as the key."""
    row = _by_id(Drift, reference, "difference")
    about: Key = row.key
    return Target(row, "drift", str(row.id), about.alias, about.classification, about)


def listing(reference: str, parameters: Parameters) -> Target[Listing]:
    row = _by_id(Listing, reference, "listing")
    return Target(row, "listing", str(row.id), row.key_store.name)


def hold(reference: str, parameters: Parameters) -> Target[LegalHold]:
    row = _by_id(LegalHold, reference, "legal hold")
    return Target(row, "hold", str(row.id), row.name)


def archive(reference: str, parameters: Parameters) -> Target[Archive]:
    """Find a bundle of the trail by its first entry's index."""
    start = int(reference) if re.fullmatch("[0-9]{1,15}", reference) else -1
    row = Archive.objects.filter(pk=start).first()
    if row is None:
        raise NotFound("There is no such archive.")
    return Target(row, "archive", str(row.start), f"{row.start}..{row.end - 1}")


def house(reference: str, parameters: Parameters) -> Target[None]:
    """The console itself: what concerns no single row."""
    return Target(None, "house", "house", "KMS Console")


def _by_id(model: Any, reference: str, what: str) -> Any:
    wanted = names.as_uuid(reference)
    row = model.objects.filter(pk=wanted).first() if wanted else None
    if row is None:
        raise NotFound(f"There is no such {what}.")
    return row


def _by_name(model: Any, reference: str) -> Any:
    wanted = names.as_uuid(reference)
    row = model.objects.filter(
        **({"pk": wanted} if wanted else {"name": names.folded(reference)})
    ).first()
    if row is None:
        raise NotFound(f"There is no such {model._meta.verbose_name}.")
    return row
