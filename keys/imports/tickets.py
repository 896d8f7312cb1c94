"""Import tickets: leave to bring material for one key, wrapped under a key made for that.

A ticket's row is committed first, then its wrapping key is made. Its token is 32 random bytes, kept
as their digest; the one call that imports uses it up. docs/user-guide.md says how to wrap.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.db.models import Q, QuerySet

from keys import clock, stores
from keys.algorithms import Usage
from keys.backends.base import Material, NoMaterial
from keys.errors import CannotDecrypt, Conflict, Invalid, KeyServiceError, TooLarge
from keys.models import ImportTicket, Key
from keys.secret import Secret

# What the wrapping keys can be, and how material is wrapped under them: default first.
SPECS = ("RSA_4096", "RSA_3072")
ALGORITHMS = ("RSA_AES_KEY_WRAP_SHA_256", "RSAES_OAEP_SHA_256")
VALID = timedelta(hours=24)
# A wrapping key takes a second of a processor; nobody needs many at a time.
MOST_OPEN = 20
TOKEN_BYTES = 32
TOKEN_LIMIT = 256
# An RSA-4096 private key in PKCS#8, wrapped, has less than 3,000 bytes.
WRAPPED_LIMIT = 8 * 1024
# One message for every way in which a token is not good, so that nobody learns which.
NOT_VALID = (
    "The import token is not valid for this key: it is unknown, used, older than 24 hours, or another "
    "key's. Get new import parameters."
)


class Brought(Secret):
    """Material as it came in, and the ticket that it came with."""

    __slots__ = ("ticket",)

    def __init__(self, value: bytes, ticket: ImportTicket | None = None) -> None:
        super().__init__(value)
        self.ticket = ticket


def new_token() -> Secret:
    """Return a token: 32 random bytes in base64url."""
    return Secret(secrets.token_urlsafe(TOKEN_BYTES).encode())


def digest(token: Secret) -> str:
    """Return the SHA-256 of a token, in hex: all that is kept of it."""
    return hashlib.sha256(token.reveal()).hexdigest()


def check_few_open(key: Key, now: datetime) -> None:
    """Raise Conflict where a key has as many unused tickets as it may have."""
    if _usable(now).filter(key=key).count() >= MOST_OPEN:
        raise Conflict(
            f"There are {MOST_OPEN} unused import parameters for this key. Use one, or wait until they "
            "are over."
        )


def make_wrapping_key(ticket: ImportTicket) -> Material:
    """Make a ticket's wrapping key. Raises what the store of wrapping keys refuses with."""
    return stores.wrapping_keys().generate(ticket.id, ticket.spec, usage=Usage.WRAP_UNWRAP)


def unwrap(key: Key, token: Secret | None, algorithm: str, wrapped: Secret) -> Brought:
    """Return what was wrapped under the ticket that `token` belongs to. Uses nothing up.

    Raises Invalid: for a token that is not good, and for whatever does not unwrap.
    """
    if algorithm not in ALGORITHMS:
        raise Invalid(
            f"Material for this token is wrapped with one of: {', '.join(ALGORITHMS)}.",
            field="algorithm",
        )
    check_size(wrapped)
    ticket = _ticket(key, token)
    backend = stores.wrapping_keys()
    found = backend.find(ticket.id)
    if found is None:
        raise Invalid(NOT_VALID, field="token")
    try:
        return Brought(backend.unwrap(found.handle, algorithm, wrapped.reveal()), ticket)
    except NoMaterial:
        raise Invalid(NOT_VALID, field="token") from None
    except (CannotDecrypt, Invalid):
        raise cannot_unwrap() from None


def check_size(wrapped: Secret) -> None:
    if not 0 < len(wrapped) <= WRAPPED_LIMIT:
        raise TooLarge(f"The wrapped material has 1 to {WRAPPED_LIMIT} bytes.", field="wrapped")


def cannot_unwrap() -> Invalid:
    """Return the one error for whatever does not unwrap: nobody learns how far it came."""
    return Invalid(
        "The wrapped material can't be unwrapped: it was wrapped under another key, with another "
        "algorithm, or was changed.",
        field="wrapped",
    )


def _ticket(key: Key, token: Secret | None) -> ImportTicket:
    if token is None:
        raise Invalid("The import token is missing.", field="token")
    if len(token) > TOKEN_LIMIT:
        raise Invalid(NOT_VALID, field="token")
    found = _usable(clock.now()).filter(key=key, digest=digest(token)).first()
    if found is None:
        raise Invalid(NOT_VALID, field="token")
    return found


def _usable(now: datetime) -> QuerySet[ImportTicket]:
    return ImportTicket.objects.filter(used_at=None, cleared=False, expires_at__gt=now)


def use_up(material: Secret | None, now: datetime) -> None:
    """Use up the ticket that material came with, by compare-and-set, in the caller's transaction.

    Raises Invalid where somebody was quicker.
    """
    ticket = ticket_of(material)
    if ticket is not None and not _usable(now).filter(pk=ticket.pk).update(used_at=now):
        raise Invalid(NOT_VALID, field="token")


def ticket_of(material: Secret | None) -> ImportTicket | None:
    return material.ticket if isinstance(material, Brought) else None


def clear(ticket: ImportTicket | None) -> bool:
    """Remove the wrapping key of a ticket that is used or over. A store's trouble is left to the next sweep."""
    if ticket is None or not _over().filter(pk=ticket.pk).exists():
        return False
    backend = stores.wrapping_keys()
    try:
        found = backend.find(ticket.id)
        if found is not None:
            backend.destroy(found.handle)
    except KeyServiceError:
        return False
    return bool(_over().filter(pk=ticket.pk).update(cleared=True))


def to_clear(limit: int) -> list[ImportTicket]:
    """Return tickets that are used or over and whose wrapping key may still be there."""
    return list(_over().order_by("expires_at")[:limit])


def _over() -> QuerySet[ImportTicket]:
    ended = Q(used_at__isnull=False) | Q(expires_at__lte=clock.now())
    return ImportTicket.objects.filter(ended, cleared=False)


def withdraw(ticket: ImportTicket, now: datetime) -> None:
    """Make a ticket useless whose wrapping key could not be made."""
    if not ImportTicket.objects.filter(pk=ticket.pk, used_at=None).update(used_at=now):
        raise Conflict("The ticket is used already.")
