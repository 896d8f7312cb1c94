"""The log itself: going on with one that was put back from a backup."""

from __future__ import annotations

from typing import ParamSpec, TypeVar

from audit import checkpoints, guard, writer
from audit.errors import SignerError
from keys import targets
from keys.actions import Action
from keys.callers import Caller
from keys.errors import Conflict, Invalid, Unavailable
from keys.gate.changes import Change, Changer

S = TypeVar("S")
P = ParamSpec("P")
R = TypeVar("R")


class _Accepting(Changer[S, P, R]):
    """The one change that a log takes which is otherwise refused (audit.guard)."""

    def __call__(
        self, caller: Caller, reference: str = "", /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        with guard.accepting():
            return super().__call__(caller, reference, *args, **kwargs)


def _accept_log(change: Change[None], *, reason: str = "") -> str:
    """Go on with the log as it is, although somebody remembers a longer or another one.

    For after a legitimate restore: what was written since the backup is lost, and the entry says
    what was remembered. The signer begins again under another origin, so that nobody takes the new
    log for the old one; other processes go on within audit.guard.CHECK_SECONDS. Returns the signer's
    new origin. Raises Invalid without a reason, Conflict where nothing contradicts the log.
    """
    if not change.reason:
        raise Invalid("Say why this log is the one to go on with.", field="reason")
    guard.look()
    trouble = guard.refusal()
    if not trouble:
        raise Conflict(
            "Nothing that is remembered contradicts the log: there is nothing to accept."
        )
    head = writer.head()
    change.facts["log"] = {"size": head.size, "root": head.root.hex()}
    change.facts["remembered"] = [
        {"by": one.who, "origin": one.origin, "size": one.size, "root": one.root.hex()}
        for one in guard.remembered()
    ]

    def begin_again() -> str:
        try:
            origin = checkpoints.begin_again(change.reason)
        except (OSError, SignerError):
            raise Unavailable(
                "The entry is written, but the signer's memory can't be: do it again on its machine."
            ) from None
        guard.begin_again()
        return str(origin)

    change.after(begin_again)
    return ""


_accept_log.__name__ = _accept_log.__qualname__ = "accept_log"
accept_log = _Accepting(Action.ACCEPT_LOG, targets.house, _accept_log)
