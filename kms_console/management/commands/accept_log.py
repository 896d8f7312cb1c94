"""Go on with a log that was put back from a backup."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from keys import administration
from keys.services import operator
from kms_console.management import plain


class Command(BaseCommand):
    help = (
        "Go on with the log as it is, although its signer, a witness or a running process remembers "
        "a longer or another one: after an older backup was put back on purpose. What was lost stays "
        "lost, an entry says what was remembered, and the signer begins again under another origin, "
        "which auditors and witnesses have to be told."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--reason", required=True, help="why this log is the one to go on with, for the trail"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            origin = administration.accept_log(operator(), reason=options["reason"])
        if origin:
            what = f"Accepted. The log's new origin is {origin}; give it to auditors and witnesses."
        else:
            what = "Accepted. Now run `manage.py signer --begin-again` on the signer's machine."
        self.stdout.write(f"{what} Other processes go on within seconds.")
