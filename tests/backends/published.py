"""Published vectors as their files have them: those of the package cryptography-vectors.

They are NIST's (CAVP), the RFCs' and a few of pyca/cryptography's own. What is not in the package
stands in the test files, with its source.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

import cryptography_vectors
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from keys.backends.base import Material
from keys.backends.software.backend import SoftwareBackend
from keys.secret import Secret

_LINE = re.compile(r"^([A-Za-z][\w ]*?)\s*=\s*(.*)$")
_SECTION = re.compile(r"^\[(.+)\]$")


def lines(path: str) -> list[str]:
    with cryptography_vectors.open_vector_file(path, "r") as file:
        return [line.strip() for line in file.read().splitlines()]


def records(path: str, first: str) -> Iterator[dict[str, str]]:
    """Yield the records of a file in NIST's form, names in lower case.

    A record begins with the field `first`; sections ([Keylen = 256], [P-256,SHA-256]) stay as they
    are until the next ones, under their own names or as `section`. A line without a value (FAIL) is
    a field that is there.
    """
    sections: dict[str, str] = {}
    record: dict[str, str] = {}
    for line in lines(path):
        if section := _SECTION.match(line):
            if record:
                yield sections | record
                record = {}
            name, _, value = section[1].partition("=")
            sections = sections | (
                {name.strip().lower(): value.strip()} if value else {"section": name}
            )
            continue
        if found := _LINE.match(line):
            name, value = found[1].lower(), found[2]
            if name == first and record:
                yield sections | record
                record = {}
            record[name] = value
        elif line and not line.startswith("#") and record:
            record[line.lower()] = ""
    if record:
        yield sections | record


def document(path: str) -> Any:
    with cryptography_vectors.open_vector_file(path, "r") as file:
        return json.load(file)


def imported(store: SoftwareBackend, spec: str, secret: bytes | Any) -> Material:
    """Import raw bytes, or a private key object of the library."""
    if not isinstance(secret, bytes):
        secret = secret.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return store.import_material(uuid.uuid4(), spec, Secret(secret))


def unhex(text: str) -> bytes:
    """Return the bytes of hexadecimal text, whatever space is in it."""
    return bytes.fromhex("".join(text.split()))
