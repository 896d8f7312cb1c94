"""Keep what stands beside the audit log: proofs' tiles, the search index, the streams."""

from __future__ import annotations

import gc
import signal
import threading
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from audit import index, keeper
from kms_console.management import plain


class Command(BaseCommand):
    help = (
        "Build the audit log's tiles and search index as it grows, and deliver it to the streams that "
        "are configured, until ended (SIGTERM). `up` starts it by itself."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="build what is missing, deliver nothing, and end"
        )
        parser.add_argument(
            "--rebuild",
            action="store_true",
            help="drop the search index first: it is built anew from the entries",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        gc.set_threshold(keeper.GC_THRESHOLD)
        with plain.errors():
            if options["rebuild"]:
                index.forget()
                self.stdout.write("The search index was dropped.")
            if options["once"]:
                while keeper.work():
                    pass
                self.stdout.write(f"{index.indexed()} entries are in the search index.")
                return
        stop = threading.Event()

        def end(number: int, frame: FrameType | None) -> None:
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        self.stdout.write("The audit trail is kept.")
        keeper.run(stop)
