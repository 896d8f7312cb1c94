"""`manage.py signer`: signs the log as it grows, and remembers outside the database what it signed."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit import checkpoints
from audit.checkpoints import status
from audit.checkpoints.signer import Signer
from audit.errors import SignerError


class Command(BaseCommand):
    help = "Sign checkpoints of the audit log, for ever."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--once", action="store_true", help="sign what is new, publish, and end")
        what.add_argument(
            "--keys", action="store_true", help="print the log's verifier keys and end"
        )
        what.add_argument(
            "--begin-again",
            metavar="REASON",
            help="after a restore: start anew from the log as it is, under the next origin",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        folder = Path(settings.SIGNER_FOLDER)
        try:
            if options["keys"]:
                self._keys()
            elif options["begin_again"] is not None:
                self._begin_again(options["begin_again"], folder)
            else:
                self._sign(Signer(folder), once=options["once"])
        except SignerError as error:
            raise CommandError(str(error)) from None

    def _keys(self) -> None:
        found = checkpoints.keys()
        if not found:
            raise CommandError("No keys are known here: they are made at the signer's first start.")
        self.stdout.write("\n".join(found))

    def _begin_again(self, reason: str, folder: Path) -> None:
        if not reason.strip():
            raise CommandError("Say why the log is not what was signed.")
        origin = checkpoints.begin_again(reason, folder)
        if not origin:
            raise CommandError("No signer ever worked in this folder.")
        self.stdout.write(f"The log is signed as {origin} from now on; its keys with that name:")
        self.stdout.write("`manage.py signer --keys`, after the next signing.")

    def _sign(self, signer: Signer, *, once: bool) -> None:
        signer.open()
        try:
            if once:
                self._once(signer)
            else:
                signer.run(_until_told())
        finally:
            signer.close()

    def _once(self, signer: Signer) -> None:
        found = signer.once()
        if found.state != status.SIGNING:
            raise CommandError(found.problem)
        newest = checkpoints.latest()
        if newest is not None:
            self.stdout.write(newest.note)
        for sentence in (found.witnesses, found.publishing):
            if sentence:
                self.stderr.write(sentence)


def _until_told() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    return stop
