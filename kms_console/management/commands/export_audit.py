"""Take the audit trail out: as evidence, for a spreadsheet, for a SIEM."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit import exports
from audit.search import Filters
from keys import parameters, trail
from keys.services import operator
from kms_console.management import plain

_WORDS = {
    "actor": "actor",
    "action": "action",
    "object": "object_id",
    "classification": "classification",
    "outcome": "outcome",
    "door": "door",
    "request-id": "request_id",
    "text": "text",
}
# What is fetched again where a file broke off: its end may not have reached the disk.
AGAIN = 64 * 1024
TELL_SECONDS = 5.0


class Command(BaseCommand):
    help = (
        "Write audit entries, oldest first. That they left the house is itself an entry. With -o, an"
        " export that broke off goes on with --resume."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--format",
            default="jsonl",
            choices=sorted(trail.FORMATS),
            help="jsonl: every byte as hashed; evidence: a ZIP with proofs; csv, ocsf, cef: to read",
        )
        parser.add_argument("--since", metavar="TIME", help="from this time on")
        parser.add_argument("--until", metavar="TIME", help="before this time")
        for word in _WORDS:
            parser.add_argument(f"--{word}", default="", help=f"only this {word.replace('-', ' ')}")
        parser.add_argument(
            "-o", "--output", default="", metavar="FILE", help="not standard output"
        )
        parser.add_argument(
            "--resume", action="store_true", help="go on with FILE, which broke off"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["resume"] and not options["output"]:
            raise CommandError("--resume needs the file to go on with: -o FILE")
        with plain.errors():
            if options["resume"]:
                self._resume(Path(options["output"]))
            elif options["output"]:
                self._write(Path(options["output"]), _filters(options), options["format"])
            else:
                self._pour(trail.export_audit(operator(), _filters(options), options["format"]))

    def _pour(self, pieces: Iterator[bytes]) -> None:
        # Bytes as they are hashed; self.stdout would make text of them.
        out = getattr(self.stdout._out, "buffer", None) or sys.stdout.buffer
        try:
            for piece in pieces:
                out.write(piece)
            out.flush()
        except BrokenPipeError:
            # Whoever reads has seen enough; what Python would flush at its end goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _write(self, path: Path, filters: Filters, format: str) -> None:
        """Write a new file that only its owner can read: entries name people."""
        descriptor = _made(path)
        try:
            row = trail.create_export(operator(), filters, format)
            with os.fdopen(_made(_note(path)), "w", encoding="utf-8") as note:
                json.dump({"export": str(row.id)}, note)
        except BaseException:
            os.close(descriptor)
            path.unlink()
            raise
        self._fetch(path, descriptor, str(row.id), 0)

    def _resume(self, path: Path) -> None:
        """Go on with a file that broke off, a little before its end."""
        try:
            identity = json.loads(_note(path).read_text(encoding="utf-8"))["export"]
            descriptor = os.open(path, os.O_RDWR)
        except OSError as error:
            raise CommandError(
                f"{path} can't be gone on with: {error.filename}: {error.strerror}. Is it finished?"
            ) from None
        except (ValueError, LookupError, TypeError):
            raise CommandError(f"{_note(path)} does not say which export this is.") from None
        self._fetch(path, descriptor, str(identity), max(0, os.fstat(descriptor).st_size - AGAIN))

    def _fetch(self, path: Path, descriptor: int, identity: str, start: int) -> None:
        caller = operator()
        with os.fdopen(descriptor, "r+b") as file:
            pieces = trail.export_content(caller, identity, start)
            file.truncate(start)
            file.seek(start)
            told = time.monotonic()
            for piece in pieces:
                file.write(piece)
                if time.monotonic() - told >= TELL_SECONDS:
                    told = time.monotonic()
                    so_far = exports.progress(trail.find_export(caller, identity))
                    self.stderr.write(f"{so_far.done:,} of {so_far.total:,} entries")
            file.flush()
            os.fsync(file.fileno())
        _note(path).unlink(missing_ok=True)
        done = exports.progress(trail.find_export(caller, identity)).done
        self.stderr.write(f"{done} entries in {path}")


def _filters(options: dict[str, Any]) -> Filters:
    words = {field: options[word.replace("-", "_")] for word, field in _WORDS.items()}
    return Filters(
        since=parameters.moment(options["since"], "--since"),
        until=parameters.moment(options["until"], "--until"),
        **words,
    )


def _note(path: Path) -> Path:
    """Return the file that says which export a file is, as long as it isn't whole."""
    return path.with_name(f"{path.name}.export")


def _made(path: Path) -> int:
    """Return the descriptor of a new file of this name. Raises CommandError."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
