"""How much an application may use keys: so many times a second, and so many times a day."""

from __future__ import annotations

from typing import Any

from keys import gate, parameters, targets
from keys.actions import Action
from keys.callers import Kind
from keys.errors import Conflict, Invalid
from keys.gate.changes import Change
from keys.limits import look_again
from keys.models import Limit, Principal

MOST_A_SECOND = 1_000_000
MOST_A_DAY = 10**12


@gate.change(Action.SET_LIMITS, on=targets.principal)
def set_limits(
    change: Change[Principal],
    *,
    rate: int | None = None,
    burst: int | None = None,
    quota: int | None = None,
    reason: str = "",
) -> Principal:
    """Set all limits of an application anew, in force from its next use; what is None is unlimited.

    `rate` uses a second, of which `burst` may come at once (None: as many as `rate`), and `quota`
    uses a day (UTC). Where `rate` is None the house's own limit stays, if it has one.
    """
    row = change.row
    if row.kind != Kind.APPLICATION or not row.active:
        raise Conflict("Only an active application has limits.")
    wanted: dict[str, Any] = {
        "rate": parameters.whole_or_none(rate, "rate", 1, MOST_A_SECOND),
        "burst": parameters.whole_or_none(burst, "burst", 1, MOST_A_SECOND),
        "quota": parameters.whole_or_none(quota, "quota", 1, MOST_A_DAY),
    }
    if burst is not None and rate is None:
        raise Invalid("burst needs a rate beside it.", field="burst")
    own = Limit.objects.filter(principal=row).first()
    if rate is not None or quota is not None:
        own = own or Limit(principal=row)
        for name, value in wanted.items():
            setattr(own, name, value)
        own.save()
    elif own is not None:
        own.delete()
    if not any(wanted.values()):
        change.facts["limits"] = "none"  # of what was asked, an entry tells only what there is
    change.touch("principal", row.id)
    change.also(lambda: look_again(row.id))
    return Principal.objects.select_related("limit").get(pk=row.pk)
