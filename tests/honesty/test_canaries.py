"""Canaries: secrets that are known beforehand go through everything, and are looked for in every sink.

Key material, plaintext, tokens and passwords may be in nobody's log, database, queue, trail, export,
checkpoint or stream, in no usual encoding. Names may be in the table beside the log, never in it.
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import Client

from audit import index, refusals, tiles
from audit.checkpoints.signer import Signer
from audit.formats import cef, ocsf
from audit.models import Entry
from keys import administration, trail
from keys.backends.software.models import WrappedMaterial
from kms_console.api.rest.codecs import use as table
from tests.api.cast import USES
from tests.api.clients import Api, application
from tests.house import House, password
from tests.keys.customer import brought
from tests.processes import Broker, Process, eventually


def _encodings(secret: bytes) -> Iterator[bytes]:
    """Yield how a secret could lie somewhere: as it is, in hex, in base64 at each of three offsets."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + secret)
        # The first and last groups depend on what stands beside the secret.
        core = text[4 if shift else 0 : -4]
        yield core
        yield core.replace(b"+", b"-").replace(b"/", b"_")


class Canaries:
    """Secrets by what they are, and the search for them."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}

    def add(self, what: str, secret: bytes) -> bytes:
        self.known[what] = secret
        return secret

    def new(self, what: str, size: int = 24) -> bytes:
        return self.add(what, secrets.token_hex(size // 2).encode())

    def found_in(self, content: bytes) -> list[str]:
        return [
            what
            for what, secret in self.known.items()
            if any(encoding in content for encoding in _encodings(secret))
        ]


def text(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


def use_everything(api: Api, canaries: Canaries, key: str) -> None:
    """Send the plaintext through every use, where it belongs and where it does not."""
    plain = canaries.new("a plaintext")
    context = {"patient": canaries.new("a context's value").decode()}
    sealed = api.post(f"keys/{key}/encrypt", {"plaintext": text(plain), "context": context}).json
    opened = api.post(
        f"keys/{key}/decrypt", {"ciphertext": sealed["ciphertext"], "context": context}
    )
    assert base64.b64decode(opened.json["plaintext"]) == plain
    data_key = api.post(f"keys/{key}/generate-data-key", {}).json
    canaries.add("a data key", base64.b64decode(data_key["plaintext"]))
    batch = {"items": [{"plaintext": text(plain)}, {"plaintext": "no base64 " + plain.decode()}]}
    api.post(f"keys/{key}/encrypt/batch", batch)
    for name in table.USES:
        for path in (f"keys/{key}/{name}", "keys/missing/" + name):
            fields: list[Any] = [*USES.get(name, {}), "anything"]
            api.post(path, dict.fromkeys(fields, text(plain)))
            api.post(path, dict.fromkeys(fields, plain.decode()))
            api.post(path, {field: {"x": plain.decode()} for field in fields})
    for body in (b"{" + plain, b'{"plaintext": "' + plain, plain, b'["' + plain + b'"]'):
        api.post(f"keys/{key}/encrypt", body)


def come_in(house: House, canaries: Canaries) -> None:
    """Sign in and authenticate, rightly and wrongly, by every way there is."""
    canaries.add("a password", password("olga").encode())
    canaries.add("a token", house.token("billing").encode())
    wrong = canaries.new("a wrong password").decode()
    forged = canaries.new("a forged token").decode()
    for tried in (wrong, password("olga")):
        Client().post("/sign-in", {"username": "olga", "password": tried})
    Client().post("/sign-in", {"username": wrong, "password": wrong})
    for header in (f"Bearer {forged}", forged, f"Basic {text(forged.encode())}"):
        Api(token="x").call("GET", "keys", Authorization=header)
    application(house, "billing").get(f"keys?token={forged}&access_token={house.token('billing')}")


def bring_and_take(house: House, canaries: Canaries) -> bytes:
    """Import known material, and use it."""
    material = canaries.add("imported material", secrets.token_bytes(32))
    house.key(name="Brought", alias="brought", origin="imported")
    parameters = administration.import_parameters(house.olga, "brought")
    canaries.add("an import's token", parameters.token.reveal())
    arguments: dict[str, Any] = brought(parameters, material)
    administration.import_key(house.olga, "brought", **arguments)
    return material


def sinks(house: House, folder: Path, logs: str, broker: Broker) -> Iterator[tuple[str, bytes]]:
    """Yield every place where something of this house is written to."""
    connections.close_all()
    for path in [*house.database.path.parent.iterdir(), *folder.rglob("*")]:
        if path.is_file() and "keys" not in path.parts:
            # By another process: closing a file here would take SQLite's locks on it away.
            done = subprocess.run(["cat", str(path)], capture_output=True, check=True)
            yield path.name, done.stdout
    yield "the log lines", logs.encode("utf-8", "replace")
    with broker.client() as client:
        for name in client.scan_iter(count=1000):
            yield f"the queue's {name!r}", client.dump(name) or b""
    for row in Entry.objects.order_by("index"):
        body = json.loads(bytes(row.body))
        yield f"entry {row.index}", bytes(row.body)
        yield f"entry {row.index} for a SIEM", ocsf.line(body, {}) + cef.line(body, {})
    for kind in trail.FORMATS:
        yield f"an export as {kind}", b"".join(trail.export_audit(house.udo, format=kind))


def test_no_secret_is_in_any_sink(
    house: House,
    broker: Broker,
    worker: Process,
    caplog: pytest.LogCaptureFixture,
    settings: Any,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    settings.SIGNER_FOLDER, settings.AUDIT_PUBLISH = (
        tmp_path / "signer",
        [(tmp_path / "published").as_uri()],
    )
    canaries = Canaries()
    come_in(house, canaries)
    material = bring_and_take(house, canaries)
    house.grant("billing", house.invoices, "encrypt", "decrypt", "generate_data_key")
    use_everything(application(house, "billing"), canaries, "invoices")
    rotated = house.key("patient-health", alias="records")
    request = house.pending(administration.rotate_key, house.olga, "records")
    house.approve(str(request.id), execute=False)  # the worker carries it out
    eventually(lambda: rotated.versions.count() == 2)
    refusals.flush()
    tiles.build()
    index.build()
    signer = Signer(settings.SIGNER_FOLDER)
    signer.open()
    try:
        assert signer.once().problem == ""
    finally:
        signer.close()
    assert any(path.is_file() for path in (tmp_path / "published").rglob("*"))
    # The material itself is there, sealed: the search would find it if it weren't.
    assert WrappedMaterial.objects.using("material").count() >= 3
    assert canaries.found_in(b"..." + base64.b64encode(b"ab" + material) + b"...") == [
        "imported material"
    ]
    leaks = {
        place: found
        for place, content in sinks(house, tmp_path, caplog.text, broker)
        if (found := canaries.found_in(content))
    }
    assert leaks == {}


def test_no_persons_name_or_address_is_in_an_entry(house: House) -> None:
    Client(REMOTE_ADDR="203.0.113.77").post(
        "/sign-in", {"username": "olga", "password": password("olga")}
    )
    Client(REMOTE_ADDR="203.0.113.78").post("/sign-in", {"username": "olga", "password": "wrong"})
    refusals.flush()
    administration.create_person(house.ada, name="Nora Nowak", username="nora", role="auditor")
    administration.rotate_key(house.olga, "invoices")
    names = ["Olga", "Nora", "nora", "203.0.113.77", "203.0.113.78"]
    for row in Entry.objects.all():
        columns = [str(getattr(row, field.name)) for field in Entry._meta.fields]
        content = bytes(row.body) + " ".join(columns).encode()
        assert [name for name in names if f'"{name}'.encode() in content] == []
        assert not set(names) & set(columns)
