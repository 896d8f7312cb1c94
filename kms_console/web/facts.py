"""What an entry of the trail says, in rows that people read. The exact text stands below them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from kms_console.web import wording

_LABELS = {
    "reason": "Reason given",
    "grant": "Allowed by the grant",
    "context": "Context names",
    "items": "Items",
    "failed": "Items that failed",
    "denied": "Items that were denied",
    "valid": "Valid",
    "items_root": "Merkle root of the items",
    "from": "From",
    "to": "To",
    "versions": "Versions",
    "version": "Version",
    "request_sha256": "Digest of the request",
    "fault": "What was wrong",
    "job": "Job",
    "ticket": "Import ticket",
    "wrapping_key": "Wrapped under the key",
    "recipient": "Recipient's public key, SHA-256",
    "recipient_sha256": "Recipient's public key, SHA-256",
    "public_key_sha256": "Recipient's public key, SHA-256",
    "custodian": "Custodian",
    "components": "Components",
    "confirmed": "Confirmed",
    "closed": "Closed",
    "expires_at": "Until",
    "material_expires_at": "Material expires",
    "destroy_at": "Destroyed on",
    "role_given": "Role",
    "people": "People",
    "count": "How often",
    "path": "Address",
    "role": "As",
    "wanted": "What was asked for",
    "ceremony_check_value": "Check value of the whole",
    "requested_by": "Asked for by",
    "prepared": "Made ahead",
    "grant_id": "Allowed by the grant",
    "diffs": "What changed",
    "field": "What differed",
    "believed": "The console believed",
    "observed": "The store said",
    "opened": "Differences found",
    "open": "Differences open",
    "changed_meanwhile": "Changed meanwhile",
    "difference": "Difference",
    "drift": "Difference",
    "agreed": "Agreed",
    "quorum": "Who must agree",
    "filters": "Filters",
    "members": "Filters by",
    "export": "Export",
    "format": "Format",
    "size": "Entries in the log",
    "credential": "Credential",
    "new_credential": "New credential",
}
# What codes of a fact belong to which vocabulary.
_KINDS = {
    "spec": "spec",
    "usage": "usage",
    "algorithm": "algorithm",
    "origin": "origin",
    "role": "role",
    "wanted": "action",
    "role_given": "role",
    "allowed_specs": "spec",
    "operations": "action",
    "field": "drift_field",
}


# What the page shows in a way of its own, or only as it was written.
_APART = ("asked", "policy", "diffs", "states", "request", "officers")


def rows(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return an entry's facts as label and value: what was asked first, then what came of it."""
    asked = facts.get("asked")
    found = list(_told(asked)) if isinstance(asked, Mapping) else []
    rest = {name: value for name, value in facts.items() if name not in _APART}
    return found + [row for row in _told(rest) if row not in found]


def _told(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            yield named(name), shown(name, value)


def named(name: str) -> str:
    """Return a fact's name as people read it."""
    known = _LABELS.get(name) or wording.label("parameter", name)
    return known if known != name else name.replace("_", " ").capitalize()


def shown(name: str, value: Any) -> Any:
    """Return a fact's value with its codes in words."""
    if name in ("from", "to"):
        return _end(value)
    if name.endswith("_at") and isinstance(value, str):
        return _moment(value)
    kind = _KINDS.get(name)
    if kind and isinstance(value, list):
        return [wording.label(kind, one) if isinstance(one, str) else str(one) for one in value]
    if kind and isinstance(value, str):
        return wording.label(kind, value)
    if isinstance(value, list) and all(isinstance(one, int) for one in value):
        return ", ".join(str(one) for one in value)
    return value


def _moment(text: str) -> str:
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%-d %b %Y, %H:%M:%S} UTC"
    except (ValueError, OverflowError):
        return text


def _end(value: Any) -> Any:
    """Return one end of a change or of a re-encryption: a state, or a key and its version."""
    if isinstance(value, list):
        return "; ".join(str(_end(one)) for one in value)
    if isinstance(value, Mapping) and "key" in value:
        return f"key {value['key']}, version {value.get('version', '?')}"
    return wording.label("version_state", value) if isinstance(value, str) else value
