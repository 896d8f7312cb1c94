"""Roles in PostgreSQL: the application is not to own the log that it writes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connections, transaction

from kms_console import database_roles
from kms_console.database_roles import ROLES, Logins, Names
from kms_console.management import plain

DATABASES = ("default", "material")
ON_SQLITE = (
    "This is SQLite: it has no roles. Whoever can write its file can drop the triggers and rewrite "
    "the log; only checkpoints and witnesses elsewhere show it. Use PostgreSQL to keep the application "
    "from it."
)


class Command(BaseCommand):
    help = (
        "Create or update the PostgreSQL roles owner, app, signer and auditor in both databases, so that "
        "the application can add to the audit log and do nothing else to it. Run it as a superuser or as "
        "who owns the databases, after every migration. Safe to repeat."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        names = Names()
        for role in ROLES:
            group = parser.add_argument_group(role)
            group.add_argument(
                f"--{role}", default=names.of(role), metavar="NAME", help="(%(default)s)"
            )
            group.add_argument(
                f"--{role}-password-file",
                default="",
                metavar="FILE",
                help="let this role sign in, with the password in this file",
            )
            group.add_argument(
                f"--{role}-login",
                default="",
                metavar="NAME",
                help="a role that is there already and signs in as this one",
            )
        parser.add_argument(
            "--administrator",
            action="append",
            default=[],
            metavar="NAME",
            help="for --check: a role that may be a superuser, or act as the owner; can be repeated",
        )
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--print", action="store_true", help="print the SQL, change nothing")
        how.add_argument(
            "--check",
            action="store_true",
            help="say what is not so; exit code 1 where something isn't",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if any(connections[alias].vendor != "postgresql" for alias in DATABASES):
            self.stdout.write(ON_SQLITE)
            if options["check"]:
                sys.exit(1)
            return
        names = Names(**{role: options[role] for role in ROLES})
        if len({name for _, name in names.items()}) != len(ROLES):
            raise CommandError("The four roles need four different names.")
        try:
            if options["check"]:
                self._check(names, options)
            else:
                self._make(names, options)
        except DatabaseError as error:
            raise CommandError(f"The database refuses: {error}".splitlines()[0]) from None

    def _check(self, names: Names, options: dict[str, Any]) -> None:
        found = []
        logins = Logins(members=_members(options))
        for alias in DATABASES:
            faults = database_roles.faults(
                connections[alias], names, logins, options["administrator"]
            )
            found += [f"{alias}: {one}" for one in faults]
        for line in found:
            self.stdout.write(line)
        if found:
            sys.exit(1)
        self.stdout.write("Both databases are as they should be.")

    def _make(self, names: Names, options: dict[str, Any]) -> None:
        logins = Logins({} if options["print"] else _verifiers(options, names), _members(options))
        for alias in DATABASES:
            # One after the other: the second finds the roles that the first one made.
            with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
                lines = database_roles.statements(connections[alias], names, logins)
                if options["print"]:
                    self._print(alias, lines, names, options)
                    continue
                for line in lines:
                    cursor.execute(line)
        if options["print"]:
            return
        self.stdout.write(
            f"Done. Let the console, its workers and the keeper connect as {names.app}, the signer as "
            f"{names.signer}; migrate as {names.owner}."
        )

    def _print(self, alias: str, lines: list[str], names: Names, options: dict[str, Any]) -> None:
        self.stdout.write(f"-- {alias}: connect to its database and run this in one transaction")
        for line in lines:
            self.stdout.write(line + ";")
        for role in ROLES:
            if options[f"{role}_password_file"]:
                self.stdout.write(
                    f"-- ALTER ROLE {names.of(role)} LOGIN; then \\password {names.of(role)}"
                )


def _members(options: dict[str, Any]) -> dict[str, str]:
    return {role: options[f"{role}_login"] for role in ROLES if options[f"{role}_login"]}


def _verifiers(options: dict[str, Any], names: Names) -> dict[str, str]:
    """Return SCRAM verifiers (RFC 5802), so that no password reaches the server or its logs."""
    made = {}
    for role in ROLES:
        path = options[f"{role}_password_file"]
        if not path:
            continue
        try:
            mode = os.stat(path).st_mode
            password = Path(path).read_bytes().strip(b"\r\n")
        except OSError as error:
            raise CommandError(f"{path}: {error.strerror}") from None
        if mode & 0o077:
            raise CommandError(f"{path} can be read by others: chmod 600 it.")
        if not password:
            raise CommandError(f"{path} is empty.")
        connection = connections["default"]
        connection.ensure_connection()
        driver: Any = connection.connection
        made[role] = driver.pgconn.encrypt_password(
            password, names.of(role).encode(), b"scram-sha-256"
        ).decode()
    return made
