"""What is asked and how its answer is read, for every operation, once for both clients: no sockets here."""

from __future__ import annotations

import base64
import binascii
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from kms_console_client import answers
from kms_console_client.errors import InvalidRequest, KmsError, problem

T = TypeVar("T")
S = TypeVar("S", bound=answers.Served)

Context = Mapping[str, str]
# A plaintext alone, or with its context.
EncryptItem = bytes | tuple[bytes, Context]
DecryptItem = bytes | tuple[bytes, Context]

# The most bytes that an answer may have, of one use and of a batch.
ANSWER_LIMIT = 4 * 1024 * 1024
BATCH_ANSWER_LIMIT = 48 * 1024 * 1024
KEY_LIMIT = 256
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class Odd(Exception):
    """An answer lacks a member, or one is of another kind. The text never holds a value."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request: its path below /api/v1/, its body, how its answer is read and how long that may be."""

    path: str
    body: bytes = field(repr=False)
    read: Callable[[dict[str, Any]], T]
    limit: int = ANSWER_LIMIT


def encrypt(
    key: str, plaintext: bytes, context: Context | None, algorithm: str
) -> Call[answers.Encrypted]:
    body = _encrypting(plaintext, context, algorithm)
    return _call(key, "encrypt", body, partial(_encrypted, key))


def decrypt(key: str, ciphertext: bytes, context: Context | None) -> Call[answers.Decrypted]:
    body = _decrypting(ciphertext, context)
    return _call(key, "decrypt", body, partial(_decrypted, key))


def encrypt_batch(
    key: str, items: Iterable[EncryptItem], algorithm: str
) -> Call[answers.Batch[answers.Encrypted]]:
    bodies = [_encrypting(*_pair(item), algorithm) for item in items]
    return _batch(key, "encrypt", bodies, partial(_encrypted, key))


def decrypt_batch(key: str, items: Iterable[DecryptItem]) -> Call[answers.Batch[answers.Decrypted]]:
    bodies = [_decrypting(*_pair(item)) for item in items]
    return _batch(key, "decrypt", bodies, partial(_decrypted, key))


def generate_data_key(key: str, context: Context | None, length: int) -> Call[answers.DataKey]:
    def read(said: dict[str, Any]) -> answers.DataKey:
        plaintext, ciphertext = _binary(said, "plaintext"), _binary(said, "ciphertext")
        if len(plaintext) != length:
            raise Odd("The data key has another length than was asked for.")
        return answers.DataKey(**_served(key, said), plaintext=plaintext, ciphertext=ciphertext)

    return _call(key, "generate-data-key", {"length": length, **_context(context)}, read)


def sign(key: str, message: bytes, message_type: str, algorithm: str) -> Call[answers.Signed]:
    def read(said: dict[str, Any]) -> answers.Signed:
        return answers.Signed(**_served(key, said), signature=_binary(said, "signature"))

    body = {"message": _base64(message), "message_type": message_type}
    return _call(key, "sign", body | _named(algorithm=algorithm), read)


def verify(
    key: str,
    message: bytes,
    signature: bytes,
    message_type: str,
    algorithm: str,
    version: int | None,
) -> Call[answers.Verified]:
    body = {
        "message": _base64(message),
        "signature": _base64(signature),
        "message_type": message_type,
    }
    named = _named(algorithm=algorithm, version=version)
    return _call(key, "verify", body | named, partial(_verified, key))


def mac(key: str, message: bytes) -> Call[answers.Maced]:
    def read(said: dict[str, Any]) -> answers.Maced:
        return answers.Maced(**_served(key, said), mac=_binary(said, "mac"))

    return _call(key, "mac", {"message": _base64(message)}, read)


def verify_mac(
    key: str, message: bytes, code: bytes, version: int | None
) -> Call[answers.Verified]:
    body = {"message": _base64(message), "mac": _base64(code)} | _named(version=version)
    return _call(key, "verify-mac", body, partial(_verified, key))


def public_key(key: str, version: int | None) -> Call[answers.PublicKey]:
    def read(said: dict[str, Any]) -> answers.PublicKey:
        found = _binary(said, "public_key")
        return answers.PublicKey(
            **_served(key, said), spec=_member(said, "spec", str), public_key=found
        )

    return _call(key, "public-key", _named(version=version), read)


# --- requests


def _call(
    key: str, operation: str, body: dict[str, Any], read: Callable[[dict[str, Any]], T]
) -> Call[T]:
    return Call(_path(key, operation), _json(body), read)


def _batch(
    key: str, operation: str, bodies: list[dict[str, Any]], read: Callable[[dict[str, Any]], S]
) -> Call[answers.Batch[S]]:
    def read_all(said: dict[str, Any]) -> answers.Batch[S]:
        results = _member(said, "results", list)
        if len(results) != len(bodies):
            raise Odd("The batch's answer has another number of items.")
        return answers.Batch(
            entry=_member(said, "entry", str),
            items_root=_member(said, "items_root", str),
            results=tuple(_item(result, read) for result in results),
        )

    path = _path(key, f"{operation}/batch")
    return Call(path, _json({"items": bodies}), read_all, BATCH_ANSWER_LIMIT)


def _path(key: str, operation: str) -> str:
    """Return the path of an operation of a key. Raises InvalidRequest for what can't be a key's id or alias."""
    # "." and ".." would be resolved as steps of the path by what stands between us and the service.
    if not isinstance(key, str) or not 0 < len(key) <= KEY_LIMIT or key in (".", ".."):
        raise InvalidRequest("A key is named by its id or alias.", field="key")
    try:
        return f"keys/{quote(key, safe='')}/{operation}"
    except UnicodeEncodeError:
        raise InvalidRequest("A key is named by its id or alias.", field="key") from None


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode("ascii")


def _base64(data: bytes) -> str:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"bytes are needed, not {type(data).__name__}")
    return base64.b64encode(data).decode("ascii")


def _named(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value not in ("", None)}


def _context(context: Context | None) -> dict[str, Any]:
    return {"context": dict(context)} if context else {}


def _encrypting(plaintext: bytes, context: Context | None, algorithm: str) -> dict[str, Any]:
    return {"plaintext": _base64(plaintext), **_context(context), **_named(algorithm=algorithm)}


def _decrypting(ciphertext: bytes, context: Context | None) -> dict[str, Any]:
    return {"ciphertext": _base64(ciphertext), **_context(context)}


def _pair(item: bytes | tuple[bytes, Context]) -> tuple[bytes, Context | None]:
    return item if isinstance(item, tuple) else (item, None)


# --- answers


def _encrypted(key: str, said: dict[str, Any]) -> answers.Encrypted:
    return answers.Encrypted(**_served(key, said), ciphertext=_binary(said, "ciphertext"))


def _decrypted(key: str, said: dict[str, Any]) -> answers.Decrypted:
    return answers.Decrypted(**_served(key, said), plaintext=_binary(said, "plaintext"))


def _verified(key: str, said: dict[str, Any]) -> answers.Verified:
    return answers.Verified(**_served(key, said), valid=_member(said, "valid", bool))


def _item(said: Any, read: Callable[[dict[str, Any]], S]) -> S | KmsError:
    if not isinstance(said, dict):
        raise Odd("An item of the batch's answer is no object.")
    error = said.get("error")
    if error is None:
        return read(said)
    if not isinstance(error, dict):
        raise Odd("An item's error is no object.")
    status = _member(error, "status", int)
    return problem(status, error, request_id="", retry_after=None, token="")


def _served(key: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return who served. Raises Odd where the key was named by its id and another one answers."""
    key_id = _member(said, "key_id", str)
    if not _UUID.fullmatch(key_id) or (
        _UUID.fullmatch(key) and uuid.UUID(key) != uuid.UUID(key_id)
    ):
        raise Odd("Another key than the one that was asked answers.")
    version, algorithm = _member(said, "version", int), _member(said, "algorithm", str)
    return {"key_id": key_id, "version": version, "algorithm": algorithm}


def _member(said: dict[str, Any], name: str, kind: type[T]) -> T:
    value = said.get(name)
    if type(value) is not kind:
        raise Odd(f"The answer's {name} is missing or of another kind.")
    return value


def _binary(said: dict[str, Any], name: str) -> bytes:
    text = _member(said, name, str)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass  # binascii's own error goes no further: nothing of the text does
    raise Odd(f"The answer's {name} is not base64.")
