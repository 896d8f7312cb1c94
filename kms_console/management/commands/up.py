"""`manage.py up`. manage.py runs it before loading settings; this class is for `manage.py help`."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from kms_console.supervisor import command


class Command(BaseCommand):
    help = command.HELP
    requires_system_checks = []  # the children make their own, on the data folder they're given

    def add_arguments(self, parser: CommandParser) -> None:
        command.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(
            command.up(
                options["host"],
                options["port"],
                options["data"],
                demo=options["demo"],
                web_processes=options["web_processes"],
            )
        )
