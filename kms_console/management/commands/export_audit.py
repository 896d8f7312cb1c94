"""Take the audit trail out, as evidence or for a spreadsheet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit.search import Filters
from keys import parameters, trail
from keys.services import operator
from kms_console.management import plain

_WORDS = ("actor", "action", "object", "outcome", "door")


class Command(BaseCommand):
    help = "Write audit entries, oldest first. That they left the house is itself an entry."
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--format", default="jsonl", choices=sorted(trail.FORMATS), help="jsonl or csv"
        )
        parser.add_argument("--since", metavar="TIME", help="from this time on")
        parser.add_argument("--until", metavar="TIME", help="before this time")
        for word in _WORDS:
            parser.add_argument(f"--{word}", default="", help=f"only this {word}")
        parser.add_argument(
            "-o", "--output", default="", metavar="FILE", help="not standard output"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            filters = Filters(
                since=parameters.moment(options["since"], "--since"),
                until=parameters.moment(options["until"], "--until"),
                actor=options["actor"],
                action=options["action"],
                object_id=options["object"],
                outcome=options["outcome"],
                door=options["door"],
            )
            lines = trail.export_audit(operator(), filters, options["format"])
            if options["output"]:
                self._write(Path(options["output"]), lines)
                return
            # Bytes as they are hashed; self.stdout would make text of them.
            out = getattr(self.stdout._out, "buffer", None) or sys.stdout.buffer
            try:
                for line in lines:
                    out.write(line)
                out.flush()
            except BrokenPipeError:
                # Whoever reads has seen enough; what Python would flush at its end goes nowhere.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _write(self, path: Path, lines: Iterator[bytes]) -> None:
        """Write a new file that only its owner can read: entries name people."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from None
        count = 0
        with os.fdopen(descriptor, "wb") as file:
            for line in lines:
                file.write(line)
                count += 1
        self.stderr.write(f"{count} lines in {path}")
