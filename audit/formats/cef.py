"""Entries in the Common Event Format (CEF, version 0): one line each, whatever names hold.

docs/audit/ocsf.md tells every field. Header fields escape "\\" and "|", values of the extension "\\",
"=" and line breaks; other control characters are U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from audit.canonical import encode_checked
from audit.formats.activities import severity
from audit.formats.naming import Names, address, told
from audit.merkle import leaf_hash

VENDOR = PRODUCT = "KMS Console"
VERSION = "2"  # of the entries: it says which fields there are
# A custom string holds up to 4000 characters (4000 bytes in some receivers).
TEXT_LIMIT = 4000

# CEF's 0 to 10, by OCSF's severity_id.
_SEVERITY = {1: 1, 2: 3, 3: 5, 4: 8, 5: 10}
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_HEADER = {"\\": "\\\\", "|": "\\|"}
_VALUE = {"\\": "\\\\", "=": "\\=", "\n": "\\n", "\r": "\\r"}
_HEADER_MARKS = re.compile(r"[\\|]")
_VALUE_MARKS = re.compile(r"[\\=\n\r]")


def line(body: Mapping[str, Any], names: Names, *, leaf: bytes | None = None) -> bytes:
    """Return an entry's body as one line of CEF in UTF-8, without a line break at its end.

    `names` opens commitments ({}: they stay). `leaf` is the leaf hash where it is known already.
    """
    action = body["action"]
    head = (
        VENDOR,
        PRODUCT,
        VERSION,
        action,
        action.replace("_", " ").capitalize(),
        str(_SEVERITY[severity(action, body["outcome"])]),
    )
    fields = " ".join(f"{name}={_value(text)}" for name, text in _fields(body, names, leaf))
    return f"CEF:0|{'|'.join(_header(text) for text in head)}|{fields}".encode()


def _fields(body: Mapping[str, Any], names: Names, leaf: bytes | None) -> Iterator[tuple[str, str]]:
    actor, subject = body["actor"], body["object"]
    found = (leaf or leaf_hash(encode_checked(body))).hex()
    yield "rt", str(body["at"] // 1000)
    yield "externalId", body["uuid"]
    yield from _custom("cn1", "index", str(body["index"]))
    yield from _told("act", body["action"])
    yield from _told("outcome", body["outcome"])
    yield from _told("reason", body["reason"])
    yield from _told("suid", actor["id"])
    yield from _told("suser", told(actor["name"], names))
    yield from _told("spriv", actor["kind"])
    yield from _source(told(body["source"], names))
    yield from _told("app", body["door"])
    yield from _told("fileType", subject["kind"])
    yield from _told("fileId", subject["id"])
    yield from _told("fname", told(subject["name"], names))
    if subject["version"] is not None:
        yield from _custom("cn2", "object version", str(subject["version"]))
    yield from _custom("cs1", "classification", subject.get("classification", ""))
    yield from _custom("cs2", "request id", body["request_id"])
    yield from _custom("cs3", "approvals", " ".join(body["approvals"]))
    yield from _custom("cs4", "leaf hash", found)
    if body["facts"]:
        yield from _custom("cs5", "facts", encode_checked(told(body["facts"], names)).decode())
    yield from _custom("cs6", "authentication", body["method"])


def _told(name: str, text: str) -> Iterator[tuple[str, str]]:
    if text:
        yield name, text


def _custom(name: str, label: str, text: str) -> Iterator[tuple[str, str]]:
    if text:
        yield name, text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"
        yield f"{name}Label", label


def _source(text: str) -> Iterator[tuple[str, str]]:
    if not text:
        return
    found = address(text)
    if found is None:
        yield "shost", text  # a commitment, or what a proxy said
    elif found.version == 4:
        yield "src", str(found)
    else:
        yield "c6a2", str(found)
        yield "c6a2Label", "source IPv6 address"


def _header(text: str) -> str:
    return _HEADER_MARKS.sub(lambda mark: _HEADER[mark[0]], _CONTROLS.sub("\ufffd", text))


def _value(text: str) -> str:
    if text.isprintable() and "\\" not in text and "=" not in text:
        return text  # nearly always
    escaped = _VALUE_MARKS.sub(lambda mark: _VALUE[mark[0]], text)
    return _CONTROLS.sub("\ufffd", escaped)
