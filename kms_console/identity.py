"""Who is asking: from a request to a Caller. A door without one refuses; nobody is anonymous."""

from __future__ import annotations

from typing import Any, NoReturn

from django.conf import settings
from django.http import HttpRequest

from audit import refusals
from keys import queries, snapshot
from keys.administration.access import token_digest
from keys.callers import Caller, Door, Kind, Method, Role
from keys.errors import Unauthenticated

# Longer than any token of ours; nothing beyond it is hashed or looked up.
TOKEN_LIMIT = 200


def bearer(
    authorization: str, *, source: str, request_id: str, door: Door = Door.REST, load: bool = True
) -> Caller:
    """Return the caller that an Authorization header proves. Raises Unauthenticated, snapshot.Miss without `load`.

    Whether the credential is still good is decided at the gate, on the caller's standing.
    """
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not 0 < len(token) <= TOKEN_LIMIT:
        refuse(source, door, "no_token" if not authorization else "malformed_token")
    found = snapshot.bearer(token_digest(token), load=load)
    if found is None:
        refuse(source, door, "unknown_token")
    principal, credential, kind, name, role = found
    return Caller(
        principal,
        kind,
        name,
        role,
        Method.BEARER,
        door,
        credential_id=credential,
        source=source,
        request_id=request_id,
    )


def person(request: HttpRequest, door: Door = Door.CONSOLE) -> Caller | None:
    """Return the signed-in person, or None: nobody is signed in, or the account is no longer good."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return None
    principal = queries.principal_of(user.pk)
    if principal is None or not principal.active:
        return None
    return Caller(
        principal.id,
        Kind(principal.kind),
        principal.name,
        Role(principal.role),
        Method.SESSION,
        door,
        source=source_of(request.META),
        request_id=getattr(request, "request_id", "") or "-",
        # Whoever uses the worked example's accounts acts in the worked example.
        demo=principal.demo,
    )


def refuse(source: str, door: Door, reason: str) -> NoReturn:
    """Count an unauthenticated failure, one entry per source and minute, and raise Unauthenticated."""
    refusals.note(source, door.value, reason)
    raise Unauthenticated("Sign in, or send a valid token: Authorization: Bearer kms_…")


def source_of(meta: dict[str, Any]) -> str:
    """Return the client's address: the peer's, or what a trusted proxy says it is."""
    peer = str(meta.get("REMOTE_ADDR", ""))
    return forwarded(peer, str(meta.get("HTTP_X_FORWARDED_FOR", "")))


def forwarded(peer: str, header: str) -> str:
    """Walk X-Forwarded-For from the right, as far as proxies that we trust wrote it."""
    source = peer
    for hop in reversed([hop.strip() for hop in header.split(",") if hop.strip()]):
        if source not in settings.TRUSTED_PROXIES:
            break
        source = hop
    return source[:64]
