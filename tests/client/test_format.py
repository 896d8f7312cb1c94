"""The envelope's format is what docs/client.md says: a reader taken from that page, and published vectors."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from kms_console_client import AsyncClient, AsyncEnvelope, CannotDecrypt, Client, Envelope
from kms_console_client.cache import CachedKey
from kms_console_client.layout import canonical, read_head
from tests.client.conftest import Service

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "docs/vectors/envelope.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs/client.md").read_text(encoding="utf-8")
DATA_KEY = bytes.fromhex(VECTORS["data_key"])


BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def reader() -> Any:
    """Return the page's reader."""
    (code,) = [block for block in BLOCKS if "def open_message" in block]
    names: dict[str, Any] = {}
    exec(code, names)
    return names["open_message"]


def given(encrypted: bytes) -> bytes:
    assert encrypted.hex() == VECTORS["encrypted_data_key"]
    return DATA_KEY


def ours(message: bytes, context: dict[str, str]) -> bytes:
    head = read_head(message)
    key = CachedKey(given(head.encrypted), b"", 0.0)
    return head.accept(key.expand, canonical(context)).open(message[head.length :])


@pytest.mark.parametrize("row", VECTORS["messages"], ids=lambda row: row["name"])
def test_a_published_message_is_read_or_refused_as_it_says(row: dict[str, Any]) -> None:
    message, context = bytes.fromhex(row["message"]), row["context"]
    if "refused" in row:
        with pytest.raises(CannotDecrypt):
            ours(message, context)
        with pytest.raises((ValueError, InvalidTag)):
            reader()(message, context, given)
        return
    for content in (ours(message, context), reader()(message, context, given)):
        assert len(content) == row["length"]
        assert hashlib.sha256(content).hexdigest() == row["content_sha256"]


@pytest.mark.parametrize("size", [0, 1, 4096, 10_000])
def test_the_pages_reader_reads_what_the_product_writes(client: Client, size: int) -> None:
    context, content = {"tenant": "north", "Ä": ""}, os.urandom(size)
    message = Envelope(client, "invoices", chunk=4096).encrypt(content, context)

    def ask(encrypted: bytes) -> bytes:
        return client.decrypt("invoices", encrypted, context).plaintext

    assert reader()(message, context, ask) == content
    with pytest.raises((ValueError, InvalidTag)):
        reader()(message[:-1], context, ask)


def test_what_the_page_shows_first_works(
    service: Service, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("report.pdf").write_bytes(b"a report")
    names: dict[str, Any] = {"token": token, "report": b"a report"}
    exec(BLOCKS[0].replace("https://kms.example", service.url), names)
    assert names["opened"].plaintext == b"Hello"
    awaited = "".join(f"    {line}\n" for line in BLOCKS[1].splitlines())
    awaited = f"async def main():\n    global message\n{awaited}"
    exec(awaited.replace("https://kms.example", service.url), names)
    names |= {"AsyncClient": AsyncClient, "AsyncEnvelope": AsyncEnvelope}
    asyncio.run(names["main"]())
    with Client(service.url, token) as client:
        envelope = Envelope(client, "invoices")
        assert envelope.decrypt(names["message"]) == b"a report"
        assert envelope.decrypt_file("report.pdf.kms", "copy", {"tenant": "north"}) == 8


def test_the_page_names_every_error_and_every_method() -> None:
    import kms_console_client
    from kms_console_client import errors

    kinds = [one for one in vars(errors).values() if isinstance(one, type)]
    for kind in kinds:
        if issubclass(kind, errors.KmsError):
            assert f"`{kind.__name__}`" in PAGE, kind
            assert kind.__name__ in kms_console_client.__all__
    for one in (kms_console_client.Client, Envelope):
        for name in vars(one):
            if not name.startswith("_") and name not in ("close", "owner"):
                assert re.search(rf"`{name}[`(]", PAGE), name
