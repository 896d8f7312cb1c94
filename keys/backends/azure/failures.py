"""What the errors of Azure's SDK mean: they become the console's, and tell no more than is needed.

Azure writes {"error": {"code", "message", "innererror": {"code"}}}. Its messages name keys,
permissions and addresses, never values; of a sign-in only the AADSTS number is kept.
"""

from __future__ import annotations

import contextlib
import email.utils
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from keys.backends.base import NoMaterial
from keys.errors import (
    BackendError,
    BackendRefused,
    BackendUnavailable,
    Conflict,
    KeyServiceError,
    StateForbids,
    Throttled,
    Unsupported,
)

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 300
# What Azure's 404 says where a key, a version or a deleted key is not there. Any other 404 may come
# from a proxy in between, or from an address that is no vault's.
NO_KEY = "KeyNotFound"
# How far two clocks may be apart before it is worth a word: tokens are valid from their issue on.
SKEW = 120.0
# Inner codes of a 403 that are about the caller and not about the key.
_ACCESS = re.compile(r"AccessDenied|ForbiddenBy|Unauthori[sz]ed|Firewall|Rbac|Policy", re.I)
_STATE = re.compile(r"Disabled|Expired|NotYetValid|NotValid", re.I)
_STATE_TEXT = re.compile(r"disabled key|expired|not yet valid|before the key|validity period", re.I)
_OPERATION_TEXT = re.compile(
    r"not permitted on this key|operation is not (?:permitted|supported)", re.I
)
_SIGN_IN = {
    "AADSTS7000222": "the client secret has expired",
    "AADSTS7000215": "the client secret is wrong",
    "AADSTS700016": "there is no such application in this tenant",
    "AADSTS90002": "there is no such tenant",
    "AADSTS700024": "the credential is outside its time; check this machine's clock",
}

# What the SDK's text about a connection says, and what we say.
_NOT_REACHED = {
    "timed out": "it takes too long to connect",
    "refused": "nothing listens there",
    "resolve": "its name is not known",
    "reset by peer": "it ended the connection",
    "Remote end closed": "it ended the connection",
}
# The library's own name for what it met, the innermost last.
_EXCEPTION = re.compile(r"\b([A-Za-z]+(?:Error|Exception|Disconnected|Timeout))\(")


class BadRequest(BackendError):
    """Azure answered 400: it can't take what was sent, or a ciphertext is not the key's."""


class Forbidden(BackendRefused):
    """The vault itself, which knows who asks, says that the caller may not do this: its own 403."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn whatever the SDK raises inside into an error of keys.errors."""
    try:
        yield
    except KeyServiceError:
        raise
    except AzureError as error:
        raise translation(error) from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        # The SDK reads answers without checking their shape.
        raise BackendError(
            f"Azure's answer makes no sense, or the SDK refused it ({type(error).__name__})."
        ) from None
    except OSError as error:
        # What the SDK reads from disk: the authority's certificate, a token of the platform's.
        why = error.strerror or type(error).__name__
        raise BackendUnavailable(f"The SDK can't read a file that it needs: {why}.") from None


def asked(call: Callable[[], Answer]) -> Answer:
    """Return what an SDK call returns. Raises errors of keys.errors only."""
    with translated():
        return call()


def translation(error: AzureError) -> KeyServiceError:
    """Return the error to raise instead of one of the SDK's."""
    if isinstance(error, ServiceRequestError):
        return _not_reached(error, "The vault")
    if isinstance(error, ServiceResponseError):
        return BackendUnavailable(
            "Azure did not answer in time; whether it did what was asked is not known."
        )
    if isinstance(error, ClientAuthenticationError):
        return _sign_in(error)
    if isinstance(error, HttpResponseError):
        status = error.status_code or 0
        if status < 400:  # a success that the SDK can't read
            return BackendError("Azure's answer can't be read.")
        return answered(status, json_of(error.response), _headers(error))
    return BackendError(f"Azure's SDK reports {type(error).__name__}.")


def _not_reached(error: ServiceRequestError, who: str) -> BackendUnavailable:
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return BackendUnavailable(
            f"{who}'s certificate is not trusted; the setting ca_file names a private authority."
        )
    text = str(error)
    why = next((told for sign, told in _NOT_REACHED.items() if sign in text), None)
    log.info("%s can't be reached: %s", who, text[:300])
    if why is None and (named := _EXCEPTION.findall(text)):
        why = str(named[-1])
    return BackendUnavailable(f"{who} can't be reached{f': {why}' if why else ''}.")


def answered(status: int, body: Any, headers: Mapping[str, str]) -> KeyServiceError:
    """Return the error that an HTTP answer of 400 or more means."""
    code, inner, message = _told(body)
    told = f" ({', '.join(part for part in (str(status), code, inner) if part)})"
    text = f" {message}" if message else ""
    if status == 401:
        return BackendRefused(f"The vault refuses the sign-in{told}.{_clock(headers)}{text}")
    if status == 403:
        return _forbidden(code, inner, message, told)
    if status == 404:
        if code == NO_KEY:
            return NoMaterial(f"The vault has no such key or version{told}.")
        return BackendError(
            f"Something answered 404 that does not speak of a key{told}: check the address, and "
            "what is between the console and the vault."
        )
    if status == 409:
        return Conflict(f"The vault says that this can't be done now{told}.{text}")
    if status == 429:
        return Throttled(
            "The vault asks for fewer calls.", retry_after=_seconds(headers.get("Retry-After"))
        )
    if status >= 500:
        return BackendUnavailable(f"The vault has trouble of its own{told}.")
    kind = BadRequest if status == 400 else BackendError
    return kind(f"The vault refuses the request{told}.{text}")


def _forbidden(code: str, inner: str, message: str, told: str) -> KeyServiceError:
    about_caller = bool(_ACCESS.search(inner))
    if not about_caller and (_STATE.search(inner) or _STATE_TEXT.search(message)):
        return StateForbids(f"The vault refuses this use of the version{told}. {message}")
    if not about_caller and _OPERATION_TEXT.search(message):
        return Unsupported(f"The vault does not permit this use of the key{told}. {message}")
    kind = Forbidden if code == "Forbidden" else BackendRefused
    return kind(f"The vault does not let the console do this{told}. {message}")


def _sign_in(error: ClientAuthenticationError) -> KeyServiceError:
    """A token could not be had. The SDK's own text may quote what was sent, so it is not passed on."""
    if isinstance(error.__cause__, ServiceRequestError):
        return _not_reached(error.__cause__, "The sign-in server")
    if isinstance(error.__cause__, ServiceResponseError):
        return BackendUnavailable("The sign-in server did not answer in time.")
    status = error.status_code or 0
    if status == 429:
        headers = _headers(error)
        return Throttled(
            "The sign-in server asks for fewer calls.",
            retry_after=_seconds(headers.get("Retry-After")),
        )
    if status >= 500:
        return BackendUnavailable("The sign-in server has trouble of its own.")
    body = json_of(error.response)
    if status == 401 and isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
        return answered(status, body, _headers(error))  # it is the vault that said 401
    found = re.search(r"AADSTS\d{4,9}", str(error))
    number = found.group() if found else ""
    why = _SIGN_IN.get(number, "")
    told = ": ".join(part for part in (number, why) if part) or "no credential was accepted"
    return BackendRefused(f"Azure gives the console no token ({told}).{_clock(_headers(error))}")


def _told(body: Any) -> tuple[str, str, str]:
    """Return Azure's code, inner code and message, as far as the body has them."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return "", "", ""
    inner = error.get("innererror") or error.get("innerError")
    inner = inner.get("code") if isinstance(inner, Mapping) else None
    code, message = error.get("code"), error.get("message")
    return (
        code[:64] if isinstance(code, str) else "",
        inner[:64] if isinstance(inner, str) else "",
        " ".join(message.split())[:MESSAGE_LIMIT] if isinstance(message, str) else "",
    )


def json_of(response: Any) -> Any:
    """Return what an answer's body says as JSON, None where it is none, or there is no answer."""
    try:
        return response.json() if response is not None else None
    except Exception:  # whatever a body that is no JSON makes the SDK raise: there is none to read
        return None


def _headers(error: HttpResponseError) -> Mapping[str, str]:
    return getattr(error.response, "headers", None) or {}


def _seconds(value: str | None) -> float | None:
    """Return a Retry-After in seconds: a number or a date (RFC 9110, 10.2.3); None for neither."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        at = _moment(value)
        return None if at is None else max(0.0, (at - datetime.now(UTC)).total_seconds())


def _clock(headers: Mapping[str, str]) -> str:
    """Return a sentence on this machine's clock where the answer's Date says that it is wrong."""
    at = _moment(headers.get("Date") or "")
    off = 0.0 if at is None else (datetime.now(UTC) - at).total_seconds()
    if abs(off) < SKEW:
        return ""
    side = "ahead of" if off > 0 else "behind"
    return f" This machine's clock is {abs(off):.0f} seconds {side} Azure's."


def _moment(value: str) -> datetime | None:
    try:
        at = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
