"""The root key from the command line: how it stands, letting a key store hold it, rotating it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from keys import root_keys, sealing
from keys.administration.root_key import hold_root_key, rotate_root_key
from keys.errors import PendingApproval
from keys.root_keys import Overview, Root
from keys.services import operator
from kms_console.management import plain

STATES = {
    "making": "asked for: its key store is not ready yet",
    "current": "seals",
    "retiring": "being replaced",
    "retired": "retired",
}


class Command(BaseCommand):
    help = (
        "Show who holds the root key, let a key store hold it, or rotate it. What is under way goes "
        "on by itself with every sweep of the worker."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        commands.add_parser("status", help="who holds each root key, and how much is under it")
        hold = commands.add_parser("hold", help="let a key store hold the present root key")
        hold.add_argument("key_store", help="not a software store: it is sealed itself")
        rotate = commands.add_parser("rotate", help="make a new root key and seal all anew")
        rotate.add_argument(
            "--key-store",
            default="",
            help="which is to hold the new one; where a store holds the present one, that store",
        )
        for command in (hold, rotate):
            command.add_argument("--reason", default="", help="for the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            getattr(self, f"_{options['do']}")(options)

    def _status(self, options: dict[str, Any]) -> None:
        self._show(root_keys.overview(operator()))

    def _hold(self, options: dict[str, Any]) -> None:
        store, reason = options["key_store"], options["reason"]
        self._change(lambda: hold_root_key(operator(), key_store=store, reason=reason))

    def _rotate(self, options: dict[str, Any]) -> None:
        store, reason = options["key_store"], options["reason"]
        self._change(lambda: rotate_root_key(operator(), key_store=store, reason=reason))

    def _change(self, change: Callable[[], Overview]) -> None:
        try:
            seen = change()
        except PendingApproval as waits:
            self.stdout.write(f"Waits for the officers' votes: request {waits.extra['approval']}")
            return
        # A rotation of much material goes on here as long as it gets on; the worker does the rest.
        left = None
        while seen.under_way and (now := _left(seen)) != left:
            left = now
            self.stdout.write(f"{left} still to be sealed anew")
            root_keys.tidy()
            seen = root_keys.standing()
        self._show(seen)

    def _show(self, seen: Overview) -> None:
        for root in seen.roots:
            self.stdout.write(_line(root))
        if seen.under_way:
            self.stdout.write("Under way: it goes on with the worker's next sweep.")
        if seen.file_to_remove:
            self.stdout.write(
                f"Nothing needs the root key of this host's own any more. Keep a copy where you keep "
                f"recovery keys, then remove {sealing.where()} from every host."
            )
        elif seen.held_by_store and seen.file_needed:
            self.stdout.write(f"Keep {sealing.where()}: something is still sealed under it.")


def _left(seen: Overview) -> int:
    own = seen.current.id if seen.current else ""
    return sum(root.materials for root in seen.roots if root.id != own)


def _line(root: Root) -> str:
    how = f" ({root.algorithm})" if root.algorithm else ""
    line = f"{root.id}  {STATES[root.state]}; {root.held_by}{how}; {root.materials} under it"
    if root.state == "retired" and root.at_store:
        when = f" until {root.until:%Y-%m-%d %H:%M} UTC" if root.until else ""
        line += f"; the key that held it is still at the store{when}"
    return line
