"""Entries as events of the Open Cybersecurity Schema Framework (OCSF) 1.9.0.

docs/audit/ocsf.md tells every field. Built from an entry's body alone, so that the same entry is the
same event wherever and whenever it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from audit.canonical import encode_checked
from audit.formats import activities
from audit.formats.activities import API, AUTHENTICATION, CATEGORIES, CLASSES, ENTITY, Activity
from audit.formats.naming import Names, address, told
from audit.merkle import leaf_hash

VERSION = "1.9.0"
PRODUCT = "KMS Console"
LOG_NAME = "kms-console"

# status_id: 1 success, 2 failure, 99 other.
_STATUS = {"success": (1, "Success"), "denied": (2, "Failure"), "failed": (2, "Failure")}
# user.type_id: 0 unknown, 1 user, 3 system, 4 service.
_TYPES = {"person": (1, "User"), "application": (4, "Service"), "service": (3, "System")}

_encoder = msgspec.json.Encoder()


def line(
    body: Mapping[str, Any], names: Names, *, leaf: bytes | None = None, log_name: str = LOG_NAME
) -> bytes:
    """Return the event as JSON in UTF-8, on one line, without a line break at its end."""
    return _encoder.encode(record(body, names, leaf=leaf, log_name=log_name))


def record(
    body: Mapping[str, Any], names: Names, *, leaf: bytes | None = None, log_name: str = LOG_NAME
) -> dict[str, Any]:
    """Return an entry's body as an event.

    `names` opens commitments ({}: they stay). `leaf` is the entry's leaf hash where it is known
    already; `log_name` the origin that checkpoints name.
    """
    action, outcome = body["action"], body["outcome"]
    kind = activities.activity(action)
    status_id, status = _STATUS.get(outcome, (99, outcome))
    event = {
        "activity_id": kind.activity_id,
        "activity_name": kind.name,
        "category_uid": kind.class_uid // 1000,
        "category_name": CATEGORIES[kind.class_uid // 1000],
        "class_uid": kind.class_uid,
        "class_name": CLASSES[kind.class_uid],
        "type_uid": kind.type_uid,
        "type_name": f"{CLASSES[kind.class_uid]}: {_caption(kind)}",
        "severity_id": activities.severity(action, outcome),
        "status_id": status_id,
        "status": status,
        "time": body["at"] // 1000,
        "message": _message(body, names),
        "metadata": _metadata(body, log_name),
        "actor": {"user": _actor(body, names)},
        "src_endpoint": _source(body, names),
        **_about(kind, body, names),
        "unmapped": _rest(body, names, leaf),
    }
    if body["reason"]:
        event["status_code"] = event["status_detail"] = body["reason"]
    return event | _counted(body["facts"])


def _caption(kind: Activity) -> str:
    return "Other" if kind.activity_id == activities.OTHER else kind.name


def _message(body: Mapping[str, Any], names: Names) -> str:
    subject = body["object"]
    about = told(subject["name"], names) or subject["id"]
    why = f" ({body['reason']})" if body["reason"] else ""
    return f"{body['action']} {subject['kind']} {about}: {body['outcome']}{why}"


def _metadata(body: Mapping[str, Any], log_name: str) -> dict[str, Any]:
    told_of = {
        "version": VERSION,
        "product": {"name": PRODUCT, "vendor_name": PRODUCT},
        "uid": body["uuid"],
        "original_event_uid": body["uuid"],
        "sequence": body["index"],
        "log_name": log_name,
        "log_version": str(body["v"]),
        "event_code": body["action"],
    }
    if body["request_id"]:
        told_of["correlation_uid"] = body["request_id"]
    return told_of


def _actor(body: Mapping[str, Any], names: Names) -> dict[str, Any]:
    actor = body["actor"]
    user = _user(actor["kind"], actor["id"], told(actor["name"], names))
    credential = body["facts"].get("credential")
    if isinstance(credential, str):
        user["credential_uid"] = credential
    return user


def _user(kind: str, identity: str, name: str) -> dict[str, Any]:
    type_id, label = _TYPES.get(kind, (0, "Unknown"))
    user: dict[str, Any] = {"type_id": type_id, "type": label}
    if identity:
        user["uid"] = identity
    # A user without id and name would be none to OCSF.
    if name or not identity:
        user["name"] = name or "unknown"
    return user


def _source(body: Mapping[str, Any], names: Names) -> dict[str, Any]:
    source = told(body["source"], names)
    if not source:
        return {"svc_name": body["door"]}
    return {"ip": source} if address(source) is not None else {"uid": source}


def _about(kind: Activity, body: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Return what the class calls the object of the action."""
    if kind.class_uid == API:
        return {"api": _api(body), "resources": [_resource(body, names)]}
    if kind.class_uid == ENTITY:
        resource = _resource(body, names)
        resource.pop("labels", None)
        return {"entity": resource}
    if kind.class_uid == AUTHENTICATION:
        return {
            "user": _actor(body, names),
            "service": {"name": PRODUCT},
            "auth_protocol_id": activities.OTHER,
            "auth_protocol": body["method"],
            "is_remote": bool(body["source"]),
        }
    return _account(body, names)


def _api(body: Mapping[str, Any]) -> dict[str, Any]:
    api: dict[str, Any] = {"operation": body["action"], "service": {"name": PRODUCT}}
    if body["request_id"]:
        api["request"] = {"uid": body["request_id"]}
    return api


def _resource(body: Mapping[str, Any], names: Names) -> dict[str, Any]:
    subject = body["object"]
    found: dict[str, Any] = {"type": subject["kind"], "uid": subject["id"]}
    if subject["name"]:
        found["name"] = told(subject["name"], names)
    if subject["version"] is not None:
        found["version"] = str(subject["version"])
    if subject.get("classification"):
        found["labels"] = [f"classification:{subject['classification']}"]
    return found


def _account(body: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """Return the account that was changed, and what it may or may not do now."""
    subject, facts = body["object"], body["facts"]
    name = told(subject["name"], names)
    if subject["kind"] == "principal":
        user = {"uid": subject["id"], **({"name": name} if name else {})}
    else:
        # A grant or a credential, which carries its holder's name; or nobody yet, where refused.
        user = {"name": name or subject["id"]}
    if subject["kind"] == "credential":
        user["credential_uid"] = subject["id"]
    about: dict[str, Any] = {"user": user}
    operations = facts.get("operations")
    if isinstance(operations, list | tuple) and operations:
        about["privileges"] = [str(one) for one in operations]
    if subject["kind"] != "principal" or subject.get("classification"):
        about["resources"] = [_resource(body, names)]
    return about


def _rest(body: Mapping[str, Any], names: Names, leaf: bytes | None) -> dict[str, Any]:
    """Return what OCSF has no place for. The leaf hash ties the event to its entry and its proofs."""
    return {
        "at": body["at"],
        "approvals": list(body["approvals"]),
        "classification": body["object"].get("classification", ""),
        "door": body["door"],
        "facts": told(body["facts"], names),
        "leaf_hash": (leaf or leaf_hash(encode_checked(body))).hex(),
        "method": body["method"],
        "outcome": body["outcome"],
    }


def _counted(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return count and times of an entry that tells of many events at once."""
    values = [facts.get(name) for name in ("count", "from", "to")]
    if not all(type(value) is int for value in values):
        return {}
    count, start, end = (int(value) for value in values if value is not None)
    # The time of an aggregate is its start, says the schema; `unmapped.at` is when it was written.
    start_time = start // 1000
    return {
        "count": count,
        "time": start_time,
        "start_time": start_time,
        "end_time": end // 1000,
    }
