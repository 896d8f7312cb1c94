"""Signing in and out: what a person does at the console's door leaves entries, too.

Whether the password was right is the door's business; a person without an active account is refused
at the gate like anybody else.
"""

from __future__ import annotations

from keys import gate, targets
from keys.actions import Action
from keys.gate import Change


@gate.change(Action.SIGN_IN, on=targets.house)
def signed_in(change: Change[None]) -> None:
    """Record that a person proved who they are. Raises Denied where the account is closed."""


@gate.change(Action.SIGN_OUT, on=targets.house)
def signed_out(change: Change[None]) -> None:
    """Record that a person ended their session."""
