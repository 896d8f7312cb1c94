"""What came of a change once it was committed, where no job tells it: an entry of its own, by the scheduler.

The change's entry says that something was begun; nothing leaves before the entry here says how it
ended.
"""

from __future__ import annotations

from audit.events import Outcome
from keys import gate, targets
from keys.actions import Action
from keys.callers import Caller
from keys.errors import KeyServiceError
from keys.gate.changes import Change
from keys.imports import tickets
from keys.models import ImportTicket, Key
from keys.services import scheduler


def tell(
    caller: Caller,
    action: Action,
    key: Key,
    *,
    number: int | None = None,
    facts: dict[str, str] | None = None,
    error: KeyServiceError | None = None,
    ticket: ImportTicket | None = None,
) -> None:
    """Leave the entry of how a change that `caller` made has ended; `error`, where it went wrong."""
    _told(
        scheduler(request_id=caller.request_id),
        str(key.id),
        action=action.value,
        number=number,
        by=str(caller.principal_id),
        facts=facts,
        code=error.code if error else "",
        ticket=str(ticket.id) if ticket else "",
    )


@gate.change(Action.RUN_JOB, on=targets.key)
def _told(
    change: Change[Key],
    *,
    action: str,
    number: int | None,
    by: str,
    facts: dict[str, str] | None,
    code: str,
    ticket: str,
) -> None:
    change.record_as = Action(action)
    change.about = change.target.subject(number)
    change.facts |= {**(facts or {}), "requested_by": by}
    if code:
        change.outcome, change.why = Outcome.FAILED, code
    if code and ticket:
        tickets.withdraw(ImportTicket.objects.get(pk=ticket), change.now)
