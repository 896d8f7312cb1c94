"""Secrets at rest: sealed under a root key, which lives outside every database.

A root key is 32 bytes, from the variable KMS_ROOT_KEY (base64, or 64 hexadecimal digits) or from
the file that settings.ROOT_KEY_FILE names; or a key store holds it (keys.root_keys, which says
which one seals). A sealed blob is

    format (1 byte, 0x01) || root key id (8) || XAES-256-GCM nonce (24) || ciphertext || tag (16)

with the format, the id, the purpose and the label as associated data, so that a blob opens only
where it was made for. docs/ciphertext.md has the bytes.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import stat
import uuid
from pathlib import Path

from django.conf import settings

from keys.errors import AlreadyExists, BackendError, CannotDecrypt, Unavailable
from keys.primitives.xaes import KEY_BYTES, NONCE_BYTES, TAG_BYTES, Xaes
from keys.secret import Secret

VARIABLE = "KMS_ROOT_KEY"
FORMAT = b"\x01"
ID_BYTES = 8
_HEADER = len(FORMAT) + ID_BYTES
_SHORTEST = _HEADER + NONCE_BYTES + TAG_BYTES
_DOMAIN = b"kms-console sealed secret\x00"


def root_key_file() -> Path:
    """Return where the root key's file is or would be."""
    return Path(settings.ROOT_KEY_FILE)


def root_key() -> Secret:
    """Return the root key of the variable or the file.

    Raises Unavailable, saying what to do, where there is no safe one.
    """
    written = os.environ.get(VARIABLE)
    if written is not None:
        return _decoded(written, f"The variable {VARIABLE}")
    path = root_key_file()
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(1024)
    except FileNotFoundError:
        raise Unavailable(
            f"There is no root key: set {VARIABLE}, or put the key back at {path}. "
            "A new one can't open what an old one sealed."
        ) from None
    except OSError as error:
        raise Unavailable(f"The root key at {path} can't be read: {error.strerror}.") from None
    if mode & 0o077:
        raise Unavailable(
            f"The root key at {path} has mode {mode:04o}: others can read it. Run: chmod 600 {path}"
        )
    return _decoded(content.decode("ascii", "replace"), f"The file {path}")


def where() -> str:
    """Return where a root key of this host's own is, in words: the variable, else the file."""
    return f"the variable {VARIABLE}" if VARIABLE in os.environ else f"the file {root_key_file()}"


def root_key_exists() -> bool:
    """Whether a root key is configured, readable or not."""
    return VARIABLE in os.environ or root_key_file().exists()


def create_root_key() -> str:
    """Write a new random root key to settings.ROOT_KEY_FILE, mode 0600, and return its id.

    Only ever called because somebody asked for it. Raises AlreadyExists where there is a key:
    replacing it would make everything under it unreadable.
    """
    path = root_key_file()
    if root_key_exists():
        raise AlreadyExists("There is a root key already. It is never overwritten.")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = os.urandom(KEY_BYTES)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(key) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails where the name is taken: two starts can't both win.
        os.link(draft, path)
    except FileExistsError:
        raise AlreadyExists("There is a root key already. It is never overwritten.") from None
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return root_key_id(Secret(key)).hex()


def root_key_id(key: Secret) -> bytes:
    """Return the 8 bytes that name a root key in what it sealed; they tell nothing about it."""
    return hmac.digest(key.reveal(), b"kms-console root key id", "sha256")[:ID_BYTES]


def sealed_under(sealed: bytes) -> str:
    """Return the id of the root key that sealed a blob, as 16 hexadecimal digits."""
    return sealed[len(FORMAT) : _HEADER].hex()


def seal(purpose: str, label: uuid.UUID, secret: Secret, key: Secret | None = None) -> bytes:
    """Return `secret` encrypted under a root key, bound to `purpose` and `label`.

    `key`: the root key; the variable's or the file's where left out.
    """
    key = key or root_key()
    header = FORMAT + root_key_id(key)
    return header + Xaes(key.reveal()).encrypt(secret.reveal(), _aad(header, purpose, label))


def check_form(sealed: bytes) -> None:
    """Raise BackendError for what can't be a sealed blob."""
    if len(sealed) < _SHORTEST or sealed[:1] != FORMAT:
        raise BackendError("A sealed secret has an unknown format.")


def unseal(purpose: str, label: uuid.UUID, sealed: bytes, key: Secret | None = None) -> Secret:
    """Undo seal().

    Raises Unavailable where another root key sealed it (the right one may be brought back), and
    BackendError where it was changed or belongs to another purpose or label.
    """
    check_form(sealed)
    key = key or root_key()
    header, own = sealed[:_HEADER], root_key_id(key)
    if header[1:] != own:
        raise Unavailable(
            f"The secret was sealed under another root key: {header[1:].hex()}, not {own.hex()}."
        )
    try:
        opened = Xaes(key.reveal()).decrypt(sealed[_HEADER:], _aad(header, purpose, label))
    except CannotDecrypt:
        raise BackendError("A sealed secret was changed or moved, and can't be opened.") from None
    return Secret(opened)


def _aad(header: bytes, purpose: str, label: uuid.UUID) -> bytes:
    # Every part but the purpose has a fixed length, so no two inputs give the same bytes.
    return _DOMAIN + header + label.bytes + purpose.encode("utf-8")


def _decoded(written: str, where: str) -> Secret:
    text = "".join(written.split())
    try:
        key = (
            bytes.fromhex(text)
            if len(text) == 2 * KEY_BYTES
            else base64.b64decode(text, validate=True)
        )
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES:
        raise Unavailable(f"{where} does not hold a root key: 32 bytes as base64 or 64 hex digits.")
    return Secret(key)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
