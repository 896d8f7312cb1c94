"""Walk the audit log and say whether it is whole."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from audit import verifier
from keys import queries_audit
from keys.errors import Unavailable
from keys.services import operator
from kms_console.management import plain


class Command(BaseCommand):
    help = (
        "Walk the audit log from its first entry to its head. Exit code 0 where it is whole, 1 where "
        "it isn't; then the first bad index is named."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--quiet", action="store_true", help="no progress on standard error")

    def handle(self, *args: Any, **options: Any) -> None:
        progress = None if options["quiet"] else self._progress
        with plain.errors():
            try:
                report = queries_audit.verify_audit(operator(), progress)
            except Unavailable as error:
                # A damaged log may take no entries any more. Nobody learns more from this than
                # that it is damaged, and that must not be kept back.
                self.stderr.write(f"This walk can't be recorded: {error.detail}")
                report = verifier.verify(progress=progress)
        if report.ok:
            self.stdout.write(
                f"The log is whole: {report.size} entries, root {report.root}. "
                "Compare size and root with what you noted elsewhere."
            )
            return
        index = "unknown" if report.first_bad_index is None else report.first_bad_index
        self.stdout.write(f"The log is damaged. First bad index: {index}. {report.problem}")
        self.stdout.write(f"Root of the {report.size} entries before it: {report.root}")
        sys.exit(1)

    def _progress(self, done: int) -> None:
        self.stderr.write(f"{done} entries verified")
