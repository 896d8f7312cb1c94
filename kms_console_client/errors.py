"""What a call can end with. Decide on the class, or on `code`, which is stable; `detail` is for people.

No error's text holds a token, a plaintext or a key: a server's own words are cut short and cleaned.
"""

from __future__ import annotations

from typing import Any

DETAIL_LIMIT = 500


class KmsError(Exception):
    """A call failed.

    `status` is the HTTP status, 0 where no answer came or none was asked for. `code` is the
    problem's code (docs/api.md). `request_id` stands in the service's audit trail, too.
    `retry_after` is in seconds, None where the service named no time. `field` names the member of
    the request that is wrong, where one is.
    """

    code = "error"

    def __init__(
        self,
        detail: str,
        *,
        status: int = 0,
        code: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        field: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.code = code or type(self).code
        self.request_id = request_id
        self.retry_after = retry_after
        self.field = field

    def __str__(self) -> str:
        where = f"{self.status} {self.code}" if self.status else self.code
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{where}: {self.detail}{request}"

    def __reduce__(self) -> tuple[Any, ...]:
        named = {
            name: getattr(self, name)
            for name in ("status", "code", "request_id", "retry_after", "field")
        }
        return _made, (type(self), self.detail, named)

    def again(self) -> KmsError:
        """Return the same error anew, for another thread that waited for the same answer."""
        make, arguments = self.__reduce__()
        return make(*arguments)  # type: ignore[no-any-return]


def _made(kind: type[KmsError], detail: str, named: dict[str, Any]) -> KmsError:
    return kind(detail, **named)


class InvalidRequest(KmsError):
    """The request itself is wrong, or too large. Trying again does not help."""

    code = "invalid"


class CannotDecrypt(KmsError):
    """Changed, cut off, of another key, or the context differs: nobody learns which."""

    code = "cannot_decrypt"


class Unauthenticated(KmsError):
    """The token is unknown, revoked or over."""

    code = "unauthenticated"


class Denied(KmsError):
    """The application may not do this."""

    code = "denied"


class NotFound(KmsError):
    """There is no such key, or none that this application may know of."""

    code = "not_found"


class Conflict(KmsError):
    """The key's or the version's state does not allow it."""

    code = "conflict"


class Unsupported(KmsError):
    """This key or its key store can't do that."""

    code = "unsupported"


class Throttled(KmsError):
    """Too many requests, also after the retries."""

    code = "throttled"


class Unavailable(KmsError):
    """The service or a part of it can't answer now, also after the retries. Nothing was done."""

    code = "unavailable"


class ServerFailed(KmsError):
    """Something went wrong in the service or in the key store behind it."""

    code = "internal_error"


class Unreachable(KmsError):
    """No answer: no connection, or one that broke. What was asked for may have been done."""

    code = "unreachable"
    # Whether another try can't help: the server's certificate is not one that we trust.
    final = False


class Untrusted(Unreachable):
    """The server's certificate is not one that we trust. No request was sent."""

    code = "untrusted"
    final = True


class TimedOut(Unreachable):
    """No answer within `timeout`."""

    code = "timed_out"


class BadAnswer(KmsError):
    """What answered is not the service, or not one that this client understands."""

    code = "bad_answer"


_CODES: dict[str, type[KmsError]] = {"cannot_decrypt": CannotDecrypt}
_STATUSES: dict[int, type[KmsError]] = {
    **dict.fromkeys((400, 405, 408, 413, 415, 416), InvalidRequest),
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    422: Unsupported,
    429: Throttled,
    503: Unavailable,
}


def problem(
    status: int, members: dict[str, Any], *, request_id: str, retry_after: float | None, token: str
) -> KmsError:
    """Return a problem document's members (RFC 9457) as an error, of the class that its code belongs to."""
    code = _text(members.get("code"), token)[:64]
    detail = _text(members.get("detail"), token) or _text(members.get("title"), token)
    kind = _CODES.get(code) or _STATUSES.get(status)
    if kind is None:
        kind = ServerFailed if status >= 500 else BadAnswer
    return kind(
        detail or f"The service answered with status {status}.",
        status=status,
        code=code,
        request_id=_text(members.get("request_id"), token)[:64] or request_id,
        retry_after=retry_after,
        field=_text(members.get("field"), token)[:100],
    )


def _text(value: Any, token: str) -> str:
    """Return what a server says, fit for a log: one line, short, and without the token whoever echoes it."""
    if not isinstance(value, str):
        return ""
    cleaned = value.replace(token, "…") if token else value
    return "".join(c if c.isprintable() else " " for c in cleaned[:DETAIL_LIMIT])
