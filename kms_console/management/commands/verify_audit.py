"""Walk the audit log and say whether it is whole."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from audit import verifier
from audit.evidence import verify as rules
from keys import trail
from keys.errors import Unavailable
from keys.services import operator
from kms_console.management import plain


def parse_note(word: str) -> tuple[int, str]:
    """Return size and root of SIZE:ROOT."""
    size, _, root = word.partition(":")
    if not re.fullmatch("[0-9]{1,15}", size) or not re.fullmatch("[0-9a-fA-F]{64}", root):
        raise argparse.ArgumentTypeError(f"{word!r} is not SIZE:ROOT, the root in 64 hex digits")
    return int(size), root.lower()


def parse_policy(word: str) -> rules.Policy:
    """Return the policy that a file holds: whose signatures are asked for."""
    try:
        policy = rules.Policy(Path(word).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        raise argparse.ArgumentTypeError(f"{word!r} can't be read") from None
    except rules.Malformed as problem:
        raise argparse.ArgumentTypeError(f"{word!r} {problem}") from None
    if not policy.log and not policy.witnesses:
        raise argparse.ArgumentTypeError(f"{word!r} names no log and no witness")
    return policy


def parse_checkpoint(word: str) -> str:
    """Return the signed checkpoint that a file holds."""
    try:
        text = Path(word).read_text(encoding="utf-8")
        rules.Note(text.encode())
    except (OSError, UnicodeDecodeError):
        raise argparse.ArgumentTypeError(f"{word!r} can't be read") from None
    except rules.Malformed as problem:
        raise argparse.ArgumentTypeError(f"{word!r} {problem}") from None
    return text


class Command(BaseCommand):
    help = (
        "Walk the audit log from its first entry to its head. Exit code 0 where it is whole, 1 where "
        "it isn't; then the first bad index is named."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
        parser.add_argument(
            "--noted",
            action="append",
            default=[],
            type=parse_note,
            metavar="SIZE:ROOT",
            help="what an earlier walk printed and you noted elsewhere: it must still be the beginning",
        )

        parser.add_argument(
            "--previous",
            action="append",
            default=[],
            type=parse_checkpoint,
            metavar="FILE",
            help="a signed checkpoint that you kept elsewhere: it must still be the beginning",
        )
        parser.add_argument(
            "--witness-policy",
            type=parse_policy,
            metavar="FILE",
            help="the log's keys as you noted them, and which witnesses must have signed",
        )
        parser.add_argument(
            "--with-archives",
            action="store_true",
            help="also read the bundles of entries that were dropped from the database",
        )

        parser.add_argument(
            "--with-index",
            action="store_true",
            help="compare the whole search index with the entries, not only some blocks",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        progress = None if options["quiet"] else self._progress
        asked: dict[str, Any] = {
            "earlier": options["previous"],
            "policy": options["witness_policy"],
            "with_archives": options["with_archives"],
            "with_index": options["with_index"],
        }
        with plain.errors():
            try:
                report = trail.verify_audit(operator(), progress, **asked)
            except Unavailable as error:
                # A damaged log may take no entries any more. Nobody learns more from this than
                # that it is damaged, and that must not be kept back.
                self.stderr.write(f"This walk can't be recorded: {error.detail}")
                report = verifier.verify(progress=progress, **asked)
        self._tell(report)
        if not report.ok:
            sys.exit(1)
        with plain.errors():
            for size, root in options["noted"]:
                self._compare(size, root)

    def _tell(self, report: verifier.Report) -> None:
        for text in report.checked:
            self.stdout.write(f"Checked: {text}")
        for text in report.notes:
            self.stdout.write(f"Note: {text}")
        if report.ok:
            self.stdout.write(
                f"The log is whole: {report.size} entries, root {report.root}. "
                "Compare size and root with what you noted elsewhere."
            )
            return
        for finding in report.findings:
            self.stdout.write(f"WRONG: {finding.problem}")
        if report.finding_count > len(report.findings):
            self.stdout.write(f"WRONG: and {report.finding_count - len(report.findings)} more.")
        index = "unknown" if report.first_bad_index is None else report.first_bad_index
        self.stdout.write(f"The log is damaged. First bad index: {index}. {report.problem}")
        self.stdout.write(f"Root of the {report.size} entries before it: {report.root}")

    def _compare(self, size: int, root: str) -> None:
        """End with exit code 1 where the log does not begin as it was when somebody noted this."""
        head = trail.log_head(operator())
        if size > head.size:
            self.stdout.write(f"The log was cut: it has {head.size} entries, and had {size}.")
            sys.exit(1)
        if trail.root_at(operator(), size) != root:
            self.stdout.write(f"The log was rewritten: its first {size} entries have another root.")
            sys.exit(1)
        self.stdout.write(f"Its first {size} entries are those that you noted.")

    def _progress(self, done: int) -> None:
        self.stderr.write(f"{done} entries verified")
