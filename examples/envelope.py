#!/usr/bin/env python3
"""Envelope encryption of a file of any size with a data key from KMS Console.

    python examples/envelope.py encrypt big.bin big.bin.kms --key archive-files
    python examples/envelope.py decrypt big.bin.kms big.copy

The token comes from the variable KMS_TOKEN, or from the file that KMS_TOKEN_FILE or --token-file
names; the address from KMS_ADDRESS or --address. All it needs is Python and pyca/cryptography.

How it works: the console makes a fresh data key and returns it twice, in the clear and encrypted
under a key that never leaves the console. The file is encrypted here with the former, which is then
forgotten; the latter is stored with the file. To read the file again the console is asked to decrypt
the stored data key. 100 MB or 100 GB, the console sees 32 bytes.

The file is

    magic (8 bytes) || header length (4, big-endian) || header (JSON) || chunk 0 || chunk 1 || ...

Every chunk but the last holds 1 MiB, encrypted with AES-256-GCM (16 bytes of tag each). This is the
STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar: "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance", CRYPTO 2015): a chunk's nonce is its position (11 bytes) and whether it
is the last (1 byte). A chunk that was changed, moved, repeated, left out or cut off at the end does not
decrypt. No nonce is ever used twice, since no two files share a data key. The header is associated data
of every chunk, so it can't be exchanged either. Memory stays at a few chunks, whatever the file's size.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"KMSENV\x00\x01"
CHUNK = 1024 * 1024
TAG = 16
HEADER_LIMIT = 64 * 1024
ANSWER_LIMIT = 1024 * 1024
TIMEOUT = 30.0  # seconds


class Failure(Exception):
    """Something that a person should read in one line."""


@dataclass(frozen=True)
class Console:
    """A running KMS Console, and the token that we show it."""

    address: str
    token: str

    def generate_data_key(self, key: str, context: dict[str, str]) -> dict[str, Any]:
        return self._post(key, "generate-data-key", {"length": 32, "context": context})

    def decrypt(self, key: str, ciphertext: str, context: dict[str, str]) -> dict[str, Any]:
        return self._post(key, "decrypt", {"ciphertext": ciphertext, "context": context})

    def _post(self, key: str, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask the console to use a key. Raises Failure with what it answered."""
        url = f"{self.address}/api/v1/keys/{urllib.parse.quote(key, safe='')}/{operation}"
        if not url.startswith(("http://", "https://")):
            raise Failure("The address must begin with http:// or https://.")
        request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")  # noqa: S310
        request.add_header("Authorization", f"Bearer {self.token}")
        request.add_header("Content-Type", "application/json")
        # No proxy that a variable happens to name gets to see the token or the data key.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read(ANSWER_LIMIT))  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            raise Failure(_problem(error)) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise Failure(f"{self.address} does not answer: {reason}") from None
        except ValueError:
            raise Failure(f"{self.address} answered with something that isn't JSON.") from None


def _problem(error: urllib.error.HTTPError) -> str:
    """Return what a problem document (RFC 9457) says, in one line."""
    try:
        said = json.loads(error.read(ANSWER_LIMIT))
        return f"{error.code} {said['code']}: {said.get('detail') or said['title']}"
    except (ValueError, KeyError, TypeError, OSError):
        return f"The console answered with status {error.code}."


def nonce(position: int, last: bool) -> bytes:
    """Return the 12 bytes that no other chunk of this file has."""
    return position.to_bytes(11, "big") + bytes([last])


def chunks(source: BinaryIO, size: int) -> Iterator[tuple[int, bool, bytes]]:
    """Yield (position, whether it is the last, content); an empty source has one, empty chunk."""
    position, chunk = 0, source.read(size)
    while True:
        following = source.read(size)
        yield position, not following, chunk
        if not following:
            return
        position, chunk = position + 1, following


def encrypt(
    console: Console, key: str, context: dict[str, str], source: BinaryIO, target: BinaryIO
) -> dict[str, Any]:
    """Encrypt `source` into `target` with a fresh data key of `key`; return the header."""
    answer = console.generate_data_key(key, context)
    header = {
        "key": answer["key_id"],
        "version": answer["version"],
        "context": context,
        "data_key": answer["ciphertext"],
        "cipher": "AES-256-GCM-STREAM",
        "chunk": CHUNK,
    }
    written = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    target.write(MAGIC + len(written).to_bytes(4, "big") + written)
    cipher = AESGCM(base64.b64decode(answer["plaintext"]))
    for position, last, chunk in chunks(source, CHUNK):
        target.write(cipher.encrypt(nonce(position, last), chunk, written))
    return header


def decrypt(console: Console, source: BinaryIO, target: BinaryIO) -> dict[str, Any]:
    """Decrypt `source` into `target`; return the header.

    Raises Failure where a byte differs, is missing or follows the end: nothing written to `target`
    is to be used then.
    """
    header, written = read_header(source)
    answer = console.decrypt(header["key"], header["data_key"], header["context"])
    cipher = AESGCM(base64.b64decode(answer["plaintext"]))
    try:
        for position, last, chunk in chunks(source, CHUNK + TAG):
            target.write(cipher.decrypt(nonce(position, last), chunk, written))
    except InvalidTag:
        raise Failure(f"Chunk {position} was changed, moved or cut off.") from None
    return header | {"version": answer["version"]}


def read_header(source: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Return the header, parsed and as it is written. Raises Failure where it isn't one of ours."""
    start = source.read(len(MAGIC) + 4)
    length = int.from_bytes(start[len(MAGIC) :], "big")
    if not start.startswith(MAGIC) or len(start) < len(MAGIC) + 4 or length > HEADER_LIMIT:
        raise Failure("This is not a file that this program encrypted.")
    written = source.read(length)
    try:
        header = json.loads(written)
        sound = (
            all(isinstance(header[name], str) for name in ("key", "data_key"))
            and isinstance(header["context"], dict)
            and (header["cipher"], header["chunk"]) == ("AES-256-GCM-STREAM", CHUNK)
        )
    except (ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise Failure("The file's header is damaged.")
    return header, written


def pairs(items: list[str]) -> dict[str, str]:
    """Return an encryption context from NAME=VALUE items."""
    if not all("=" in item for item in items):
        raise Failure("A context is given as NAME=VALUE.")
    return dict(item.split("=", 1) for item in items)


def find_token(path: str) -> str:
    """Return the token, which stands on no command line: others could read it there."""
    token = os.environ.get("KMS_TOKEN", "")
    if path:
        try:
            token = Path(path).read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            raise Failure(f"The token's file can't be read: {error}") from None
    if not token.strip():
        raise Failure("Set KMS_TOKEN, or name a file with the token in KMS_TOKEN_FILE.")
    return token.strip()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do what was asked for. The target appears under its name only once it is whole."""
    console = Console(options.address.rstrip("/"), find_token(options.token_file))
    target = Path(options.target)
    try:
        with (
            Path(options.source).open("rb") as source,
            tempfile.NamedTemporaryFile(dir=target.resolve().parent, delete=False) as draft,
        ):
            try:
                if options.command == "encrypt":
                    context = pairs(options.context)
                    header = encrypt(console, options.key, context, source, draft)  # type: ignore[arg-type]
                else:
                    header = decrypt(console, source, draft)  # type: ignore[arg-type]
                draft.flush()
                os.replace(draft.name, target)
            except BaseException:
                os.unlink(draft.name)
                raise
    except OSError as error:
        raise Failure(f"{error.filename or target}: {error.strerror}") from None
    return header


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(description="Encrypt files with data keys of KMS Console.")
    parser.add_argument("--address", default=os.environ.get("KMS_ADDRESS", "http://127.0.0.1:8000"))
    parser.add_argument("--token-file", default=os.environ.get("KMS_TOKEN_FILE", ""))
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("encrypt", "encrypt a file"), ("decrypt", "decrypt it again")):
        command = commands.add_parser(name, help=text)
        command.add_argument("source")
        command.add_argument("target")
        if name == "encrypt":
            command.add_argument("--key", required=True, help="the key's alias or id")
            command.add_argument(
                "--context", action="append", default=[], metavar="NAME=VALUE", help="bound to it"
            )
    options = parser.parse_args(arguments)
    try:
        header = run(options)
    except Failure as failure:
        print(f"envelope: {failure}", file=sys.stderr)  # noqa: T201
        return 1
    done = "encrypted under" if options.command == "encrypt" else "decrypted with"
    print(f"{options.target}: {done} version {header['version']} of key {header['key']}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
