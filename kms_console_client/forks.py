"""What a forked child must not share with its parent: connections, locks that somebody held, data keys."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    def after_fork(self) -> None:
        """Runs in a child, in its only thread, before anything else does."""


_known: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_children(one: Renewable) -> None:
    """Have `one.after_fork()` called in every child that this process forks while `one` lives."""
    _known.add(one)


def _renew() -> None:
    for one in list(_known):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
