"""Key stores from the command line: add one, list them, ask them how they are."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from keys import administration, queries
from keys.backends import registry
from keys.services import operator
from kms_console.management import plain


class Command(BaseCommand):
    help = "Add a key store, list key stores, or check whether they can be reached."
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        add = commands.add_parser("add", help="add a key store")
        add.add_argument("name")
        add.add_argument("--kind", required=True, choices=sorted(registry.KINDS))
        add.add_argument("--title", default="")
        add.add_argument("--setting", action="append", default=[], metavar="NAME=VALUE")
        add.add_argument(
            "--credentials",
            default="",
            metavar="WHERE",
            help="where its secret is found: env:NAME or file:/path (never the secret itself)",
        )
        commands.add_parser("list", help="list key stores")
        commands.add_parser("check", help="ask each how it is; exit code 1 where one is not well")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            getattr(self, f"_{options['do']}")(options)

    def _add(self, options: dict[str, Any]) -> None:
        if not all("=" in item for item in options["setting"]):
            raise CommandError("A setting is given as NAME=VALUE.")
        row = administration.create_key_store(
            operator(),
            name=options["name"],
            kind=options["kind"],
            title=options["title"],
            settings=dict(item.split("=", 1) for item in options["setting"]),
            credentials=options["credentials"],
        )
        self.stdout.write(
            f"Added the key store {row.name}. An administrator now allows it in a classification."
        )

    def _list(self, options: dict[str, Any]) -> None:
        for row in queries.list_key_stores(operator()):
            health = {
                True: "well",
                False: f"not well: {row.health_detail}",
                None: "not checked yet",
            }
            state = health[row.healthy] if row.enabled else "switched off"
            self.stdout.write(f"{row.name}  {row.kind}  {row.title}  {state}")

    def _check(self, options: dict[str, Any]) -> None:
        for row in queries.list_key_stores(operator()):
            if row.enabled:
                administration.check_key_store(operator(), row.name)
        self._list(options)
        if not all(healthy for _, healthy, _ in queries.key_store_health()):
            sys.exit(1)
