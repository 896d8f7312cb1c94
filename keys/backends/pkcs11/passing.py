"""Session objects that hold somebody's key for a moment: made, used and destroyed in one breath.

They are never token objects. The process-wide lock is held meanwhile, since libraries are weakest
where objects come and go; and where one can't be destroyed the whole connection is given up, which
takes it along.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pkcs11
from pkcs11 import KDF, Attribute, KeyType, Mechanism, ObjectClass

from keys.backends.pkcs11 import failures, purposes
from keys.backends.pkcs11.connection import MANAGE

# Readable, because its bytes are the answer.
_READABLE = {
    Attribute.TOKEN: False,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: False,
    Attribute.EXTRACTABLE: True,
}


@contextlib.contextmanager
def passing(make: Callable[[], Any]) -> Iterator[Any]:
    """Hold what `make` makes, one session object or a tuple of them, until the block ends."""
    with MANAGE:
        made = make()
        try:
            yield made
        finally:
            for item in made if isinstance(made, tuple) else (made,):
                _destroy(item)


def _destroy(item: Any) -> None:
    try:
        item.destroy()
    except pkcs11.PKCS11Error:
        raise failures.LeftBehind from None


def secret(
    session: pkcs11.Session,
    value: bytes,
    kind: KeyType = KeyType.GENERIC_SECRET,
    uses: frozenset[Attribute] = frozenset(),
) -> Any:
    """Make a session object of bytes: a target to wrap, or a key for a probe."""
    return session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: kind,
            Attribute.VALUE: value,
            **_READABLE,
            **{use: use in uses for use in purposes.SECRET_USES},
        }
    )


def wrapped(key: Any, mechanism: Mechanism, target: bytes) -> bytes:
    """Return `target` wrapped by the token under `key`."""
    with passing(lambda: secret(key.session, target)) as item:
        return bytes(key.wrap_key(item, mechanism=mechanism))


def unwrapped(key: Any, data: bytes, **keywords: Any) -> bytes:
    """Return what the token unwraps with `key`; `keywords` name the mechanism."""

    def make() -> Any:
        return key.unwrap_key(
            ObjectClass.SECRET_KEY,
            KeyType.GENERIC_SECRET,
            data,
            capabilities=0,
            template=_READABLE,
            **keywords,
        )

    with passing(make) as item:
        return bytes(item[Attribute.VALUE])


def agreed(key: Any, point: bytes, size: int) -> bytes:
    """Return the ECDH secret of `size` bytes with a peer's point."""

    def make() -> Any:
        return key.derive_key(
            KeyType.GENERIC_SECRET,
            8 * size,
            capabilities=0,
            mechanism=Mechanism.ECDH1_DERIVE,
            mechanism_param=(KDF.NULL, None, point),
            template=_READABLE,
        )

    with passing(make) as item:
        return bytes(item[Attribute.VALUE])
