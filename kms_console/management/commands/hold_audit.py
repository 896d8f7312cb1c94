"""Legal holds from the command line: placing and listing. Officers release them, in the console."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from keys.administration import place_hold
from keys.services import operator
from keys.trail.retention import list_holds
from kms_console.management import plain


class Command(BaseCommand):
    help = (
        "Place a legal hold on the trail, or list the holds. Under a hold no entry of its time is "
        "dropped and nobody's personal data is erased. It is released by officers, in the console or "
        "over the API."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        place = commands.add_parser("place", help="place a hold")
        place.add_argument("name", help="a name of its own, such as a case's number")
        place.add_argument("--since", required=True, metavar="TIME", help="from this time on")
        place.add_argument(
            "--until", default="", metavar="TIME", help="before this time; left out: whatever comes"
        )
        place.add_argument("--reason", required=True, help="why; it stands in the audit trail")
        commands.add_parser("list", help="every hold, the newest first")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            getattr(self, f"_{options['do']}")(options)

    def _place(self, options: dict[str, Any]) -> None:
        row = place_hold(
            operator(),
            name=options["name"],
            since=options["since"],
            until=options["until"],
            reason=options["reason"],
        )
        self.stdout.write(f"{row.name} is in force: {row.id}")

    def _list(self, options: dict[str, Any]) -> None:
        for row in list_holds(operator()):
            until = f"{row.until:%Y-%m-%d %H:%M}" if row.until else "now on"
            state = f"released {row.released_at:%Y-%m-%d}" if row.released_at else "in force"
            since = f"{row.since:%Y-%m-%d %H:%M}"
            self.stdout.write(f"{row.id}  {row.name}  {since} to {until} UTC  {state}")
