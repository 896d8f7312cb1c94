"""Everything that must be there before the first request: root key, tables in both databases."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from audit import tiles
from keys import root_keys, sealing
from keys.backends.software.models import WrappedMaterial
from keys.errors import KeyServiceError
from kms_console.databases import MATERIAL_DATABASE


class Command(BaseCommand):
    help = "Migrate both databases and, on a first start, create the root key. Safe to repeat."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--no-root-key",
            action="store_true",
            help="never create a root key: somebody else brings it, and it must be there",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            for database in ("default", MATERIAL_DATABASE):
                call_command(
                    "migrate",
                    database=database,
                    interactive=False,
                    verbosity=options["verbosity"],
                    stdout=self.stdout,
                )
            held = root_keys.held_by_store()
            if not held and not sealing.root_key_exists():
                self._create_root_key(allowed=not options["no_root_key"])
            _build_tiles()
        except DatabaseError as error:
            raise CommandError(f"A database can't be used: {error}".splitlines()[0]) from None
        except KeyServiceError as error:
            raise CommandError(error.detail) from None
        try:
            root_keys.check_ready()
        except KeyServiceError as error:
            if not held:
                raise CommandError(error.detail) from None
            # The console starts without it, says so at /readyz, and opens it when the store is back.
            self.stderr.write(f"The root key can't be opened yet: {error.detail}")

    def _create_root_key(self, *, allowed: bool) -> None:
        if WrappedMaterial.objects.using(MATERIAL_DATABASE).exists():
            raise CommandError(
                f"The root key is gone: put it back at {sealing.root_key_file()} or set "
                f"{sealing.VARIABLE}. A new one could not open the key material that there is."
            )
        if not allowed:
            raise CommandError(
                f"There is no root key at {sealing.root_key_file()} nor in {sealing.VARIABLE}."
            )
        name = sealing.create_root_key()
        self.stdout.write(f"Created the root key {name} at {sealing.root_key_file()}: back it up.")


def _build_tiles() -> None:
    """Build what is missing of the log's tree, as after an upgrade: comparing and proving read it."""
    while tiles.build():
        pass
