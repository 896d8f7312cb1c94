"""Google's errors in the console's own."""

from __future__ import annotations

import re

from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.rpc.error_details_pb2 import RetryInfo

from keys.backends.base import NoMaterial
from keys.errors import (
    AlreadyExists,
    BackendError,
    BackendRefused,
    BackendUnavailable,
    Invalid,
    KeyServiceError,
    StateForbids,
    Throttled,
    Unsupported,
)

# What Google's token endpoint says of a JWT whose dates are not of now.
_CLOCK = re.compile(r"\biat\b|\bexp\b|timeframe|used too early|clock", re.IGNORECASE)
_WORDS = 300  # how much of Google's own message is passed on


def of_call(error: api.GoogleAPICallError) -> KeyServiceError:
    """Return what a failed call means. Google's own words are passed on: names, never material."""
    said = _said(error)
    if isinstance(error, api.NotFound):
        return NoMaterial(f"Google Cloud KMS knows no such key. {said}")
    if isinstance(error, api.Unauthenticated | api.Unauthorized):
        return BackendRefused(
            f"Google Cloud KMS refuses the console's credential. {said}{_clock(said)}"
        )
    if isinstance(error, api.Forbidden):
        return BackendRefused(f"The console's credential may not do this. {said}")
    if isinstance(error, api.TooManyRequests):
        return Throttled(f"Google Cloud KMS asks for fewer calls. {said}", retry_after=_wait(error))
    if isinstance(error, api.AlreadyExists):
        return AlreadyExists(said)
    if isinstance(error, api.Aborted | api.Cancelled | api.DeadlineExceeded | api.Unknown):
        return BackendUnavailable(f"Google Cloud KMS did not answer in time. {said}")
    if isinstance(error, api.FailedPrecondition):
        return StateForbids(f"The key's state at Google does not allow this. {said}")
    if isinstance(error, api.BadRequest):
        return Invalid(f"Google Cloud KMS refuses the request. {said}")
    if isinstance(error, api.MethodNotImplemented):
        return Unsupported(f"This Google Cloud KMS can't do that. {said}")
    if isinstance(error, api.DataLoss) or "deserializ" in said:
        return BackendError("Google Cloud KMS answered with something that makes no sense.")
    if isinstance(error, api.ServerError | api.RetryError):
        return BackendUnavailable(f"Google Cloud KMS can't be reached now. {said}")
    return BackendError(f"Google Cloud KMS reported an error. {said}")


def of_credential(error: auth.GoogleAuthError) -> KeyServiceError:
    """Return what a credential that gave no token means. Google's words may hold the JWT: left out."""
    if isinstance(error, auth.TransportError) or getattr(error, "retryable", False):
        return BackendUnavailable("Google's token endpoint can't be reached now.")
    if isinstance(error, auth.DefaultCredentialsError):
        return BackendRefused("There are no application default credentials on this machine.")
    hint = _clock(str(error))
    return BackendRefused(f"Google gives no access token for the console's credential.{hint}")


def _said(error: api.GoogleAPICallError) -> str:
    text = " ".join(str(error.message or "").split())
    return text[:_WORDS]


def _clock(text: str) -> str:
    return " The clock of this machine may be wrong." if _CLOCK.search(text) else ""


def _wait(error: api.GoogleAPICallError) -> float | None:
    """Return google.rpc.RetryInfo's delay in seconds, or None."""
    for detail in error.details or ():
        if isinstance(detail, RetryInfo) and detail.HasField("retry_delay"):
            return float(detail.retry_delay.ToTimedelta().total_seconds())
    return None
