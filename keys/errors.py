"""One hierarchy of errors. Each door has one table that translates it; the docstring is the message's source."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar


class KeyServiceError(Exception):
    """Something went wrong that the caller should be told about.

    `code` is stable and part of every door's protocol; `detail` is one plain sentence or two
    and never carries a secret; `extra` holds machine-readable members for doors that can show them.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "The request failed"
    # Whether the gate has left an entry of this; what never reached it is recorded by the door.
    recorded: bool = False

    def __init__(self, detail: str = "", **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra: Mapping[str, Any] = extra


class Unauthenticated(KeyServiceError):
    """No valid credential came with the request."""

    code, title = "unauthenticated", "Sign in, or send a valid token"


class Denied(KeyServiceError):
    """The caller is known and may not do this."""

    code, title = "denied", "You may not do this"


class NotFound(KeyServiceError):
    """No such thing, or none that this caller may know of."""

    code, title = "not_found", "There is no such thing here"


class Invalid(KeyServiceError):
    """The request itself is wrong: a type, a name, a range, a combination."""

    code, title = "invalid", "The request is not valid"


class TooLarge(Invalid):
    """A body or an item is over its limit."""

    code, title = "too_large", "The request is too large"


class Conflict(KeyServiceError):
    """The request is well formed and does not fit the present state."""

    code, title = "conflict", "The request does not fit the present state"


class IllegalTransition(Conflict):
    """The state table has no such edge."""

    code, title = "illegal_transition", "That change of state is not possible"


class StateForbids(Conflict):
    """The key's or the version's state does not allow this use."""

    code, title = "state_forbids", "The key's state does not allow this"


class AlreadyExists(Conflict):
    """A name is taken."""

    code, title = "already_exists", "That name is taken"


class CannotDecrypt(KeyServiceError):
    """The ciphertext is malformed, tampered with, of another key, or the context differs.

    One error for all of these, so that nobody learns which.
    """

    code, title = "cannot_decrypt", "The ciphertext can't be decrypted with this key and context"


class Unsupported(KeyServiceError):
    """The key store or the key can't do this; the detail names what would work."""

    code, title = "unsupported", "This key or key store can't do that"


class PendingApproval(KeyServiceError):
    """Not an error but an answer: the request waits for officers' votes. `extra['approval']` is its id."""

    code, title = "pending_approval", "The request waits for approval"


class RateLimited(KeyServiceError):
    """The application has used keys faster than its limit allows. `retry_after`: seconds to wait."""

    code, title = "rate_limited", "This application uses keys faster than it may"

    def __init__(self, detail: str = "", *, retry_after: float = 1.0, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.retry_after = retry_after


class QuotaUsedUp(RateLimited):
    """The application has used keys as often as it may on one day (UTC); a new one begins at midnight."""

    code, title = "quota_used_up", "This application's uses of today are used up"


class Unavailable(KeyServiceError):
    """A part that the request needs can't be reached now; trying again later may work."""

    code, title = "unavailable", "A part of the service can't be reached now"


class BackendUnavailable(Unavailable):
    """The key store can't be reached or did not answer in time."""

    code, title = "backend_unavailable", "The key store can't be reached now"


class Throttled(BackendUnavailable):
    """The key store asks for fewer calls. `retry_after`: seconds that it asked to wait, or None."""

    code, title = "backend_throttled", "The key store asks for fewer calls"

    def __init__(self, detail: str = "", *, retry_after: float | None = None, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.retry_after = retry_after


class BackendRefused(BackendUnavailable):
    """The key store refuses the console itself: an expired credential, or a permission that is missing."""

    code, title = "backend_refused", "The key store refuses the console's credential"


class StillWaiting(BackendUnavailable):
    """The key store does it at a date of its own; the job waits as long. `until`: None where it doesn't say."""

    code, title = "still_waiting", "The key store has a date of its own for this"

    def __init__(self, detail: str = "", *, until: datetime | None = None, **extra: Any) -> None:
        super().__init__(detail, **extra)
        self.until = until


class LogUnavailable(Unavailable):
    """The entry could not be made durable, so nothing leaves and nothing stays."""

    code, title = "log_unavailable", "The audit log can't be written now"


class Busy(Unavailable):
    """Too much is waiting; the request was refused rather than queued."""

    code, title = "busy", "Too many requests are waiting"


class BackendError(KeyServiceError):
    """The key store answered with something that makes no sense or with an error of its own."""

    code, title = "backend_error", "The key store reported an error"
