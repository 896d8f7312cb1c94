"""The example's file format: whatever is changed in a file, nothing wrong comes out of it."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parent.parent.parent / "examples" / "envelope.py"
_spec = importlib.util.spec_from_file_location("envelope", PATH)
assert _spec is not None
assert _spec.loader is not None
envelope = importlib.util.module_from_spec(_spec)
sys.modules["envelope"] = envelope
_spec.loader.exec_module(envelope)

CHUNK, TAG = envelope.CHUNK, envelope.TAG


class KeyHolder:
    """Stands where the console stands: one data key, given out and given back for its context.

    The real console is asked in test_readme.py; here it is the file's bytes that are tested.
    """

    def __init__(self) -> None:
        self.plaintext = base64.b64encode(os.urandom(32)).decode()

    def generate_data_key(self, key: str, context: dict[str, str]) -> dict[str, Any]:
        return {"key_id": key, "version": 1, "plaintext": self.plaintext, "ciphertext": "c2VhbGVk"}

    def decrypt(self, key: str, ciphertext: str, context: dict[str, str]) -> dict[str, Any]:
        return {"version": 1, "plaintext": self.plaintext}


HOLDER = KeyHolder()


def sealed(content: bytes) -> bytes:
    target = io.BytesIO()
    envelope.encrypt(HOLDER, "key", {"a": "b"}, io.BytesIO(content), target)
    return target.getvalue()


def opened(written: bytes) -> bytes:
    target = io.BytesIO()
    envelope.decrypt(HOLDER, io.BytesIO(written), target)
    return target.getvalue()


def body_of(written: bytes) -> int:
    """Return where the first chunk begins."""
    return 12 + int.from_bytes(written[8:12], "big")


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5])
def test_what_goes_in_comes_out(size: int) -> None:
    content = os.urandom(size)
    written = sealed(content)
    assert opened(written) == content
    chunks = max(1, -(-size // CHUNK))
    assert len(written) == body_of(written) + size + chunks * TAG


def test_a_chunk_can_not_be_left_out_moved_repeated_or_cut_off() -> None:
    written = sealed(os.urandom(3 * CHUNK + 5))
    start = body_of(written)
    head, body = written[:start], written[start:]
    step = CHUNK + TAG
    parts = [body[i : i + step] for i in range(0, len(body), step)]
    assert len(parts) == 4
    wrong = {
        "first left out": parts[1:],
        "one left out": [parts[0], *parts[2:]],
        "two swapped": [parts[1], parts[0], *parts[2:]],
        "one twice": [parts[0], *parts],
        "end cut off at a chunk": parts[:3],
        "end cut off within a chunk": [*parts[:3], parts[3][:-1]],
        "everything cut off": [],
        "something behind the end": [*parts, b"x"],
    }
    for name, chunks in wrong.items():
        with pytest.raises(envelope.Failure):
            pytest.fail(f"{name}: {len(opened(head + b''.join(chunks)))} bytes")


def test_no_bit_can_be_turned() -> None:
    written = sealed(b"a short secret")
    for position in range(len(written)):
        changed = bytearray(written)
        changed[position] ^= 0x20
        with pytest.raises((envelope.Failure, UnicodeDecodeError)):
            opened(bytes(changed))


def test_a_chunk_of_another_file_under_another_header_is_refused() -> None:
    """Even where both files had the same data key, which no two files have."""
    one, other = sealed(b"one"), io.BytesIO()
    envelope.encrypt(HOLDER, "key", {"a": "c"}, io.BytesIO(b"two"), other)
    mixed = one[: body_of(one)] + other.getvalue()[body_of(other.getvalue()) :]
    with pytest.raises(envelope.Failure):
        opened(mixed)


@pytest.mark.parametrize(
    "start",
    [b"", b"short", b"x" * 100, envelope.MAGIC, envelope.MAGIC + b"\xff\xff\xff\xff" + b"{" * 50],
)
def test_a_file_of_something_else_is_told(start: bytes) -> None:
    with pytest.raises(envelope.Failure):
        opened(start)


def test_without_a_token_or_a_console_it_says_so_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KMS_TOKEN", raising=False)
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x")
    words = ["encrypt", str(source), str(target), "--key", "k"]
    assert envelope.main(words) == 1
    assert "KMS_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("KMS_TOKEN", "kms_not-a-token")
    assert envelope.main(["--address", "http://127.0.0.1:1", *words]) == 1
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert said.count("\n") == 1
    assert "kms_not-a-token" not in said
    assert list(tmp_path.iterdir()) == [source], "no half file stays"
