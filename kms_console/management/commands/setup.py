"""First run without the worked example: people, the first key store, the first policies."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser

from keys import administration, approvals, queries
from keys.secret import Secret
from keys.services import operator
from kms_console import presets
from kms_console.management import plain

INPUT_LIMIT = 1024 * 1024
CLOSED = "The console is set up already; this door stays closed."
_KNOWN = {"people", "key_store", "classifications"}


class Command(BaseCommand):
    help = (
        "Set the console up: databases and root key where they are missing, the administrator, the "
        "officers, an auditor, the first key store and the first policies. Once, then never again."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from-json",
            metavar="FILE",
            help='{"people": [{"name", "username", "role", "password"}], "key_store": {...}, '
            '"classifications": [...]}; the last two may be left out; - reads standard input',
        )

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            self._prepare()
            if queries.is_set_up():
                raise CommandError(CLOSED)
            plan = _read(options["from_json"]) if options["from_json"] else self._ask()
            self._set_up(plan)

    def _prepare(self) -> None:
        """Bring databases and root key; what migrating says would only be in the way here."""
        call_command("prepare", stdout=self.stdout, verbosity=0)

    def _set_up(self, plan: dict[str, Any]) -> None:
        store = plan.get("key_store", presets.FIRST_KEY_STORE)
        policies = plan.get("classifications", presets.CLASSIFICATIONS)
        people = Secret(json.dumps(plan.get("people")).encode())
        for row in administration.set_up(operator(), people=people):
            self.stdout.write(f"{row.role}: {row.name}")
        made = administration.create_key_store(operator(), **store)
        self.stdout.write(f"key store: {made.title}")
        for policy in policies:
            named = {"key_stores": [made.name]} if "classifications" not in plan else {}
            new = administration.create_classification(operator(), **{**policy, **named})
            self.stdout.write(f"classification: {new.title}")
        self.stdout.write("The console is set up. The people named above can sign in.")
        if shortage := approvals.shortage():
            self.stderr.write(f"Note: {shortage}")

    # --- asking a person

    def _ask(self) -> dict[str, Any]:
        if not sys.stdin.isatty():
            raise CommandError(
                "Nobody is there to ask: name a file with --from-json, or - for input."
            )
        self.stdout.write(
            "An administrator sets policies, officers use the keys' life cycle and vote, an auditor "
            "reads the trail.\nNobody has two roles. For votes of two of three, three officers are "
            "needed.\n"
        )
        people = [self._person("administrator")]
        number = 1
        while person := self._person(
            "officer", f"officer {number} (empty: no more)", optional=True
        ):
            people.append(person)
            number += 1
        if auditor := self._person("auditor", "auditor (empty: none)", optional=True):
            people.append(auditor)
        return {"people": people}

    def _person(self, role: str, title: str = "", optional: bool = False) -> dict[str, str]:
        self.stdout.write(f"\n{(title or role).capitalize()}")
        name = self._line("  Name: ", optional)
        if not name:
            return {}
        username = self._line("  User name: ")
        return {"name": name, "username": username, "role": role, "password": self._password()}

    def _line(self, prompt: str, optional: bool = False) -> str:
        while True:
            said = input(prompt).strip()
            if said or optional:
                return said

    def _password(self) -> str:
        """Ask until a password is good and was typed twice alike."""
        while True:
            password = getpass.getpass("  Password: ")
            try:
                validate_password(password)
            except ValidationError as error:
                self.stderr.write("  " + " ".join(error.messages))
                continue
            if getpass.getpass("  Once more: ") == password:
                return password
            self.stderr.write("  The two differ.")


def _read(source: str) -> dict[str, Any]:
    """Return the plan in a file or on standard input. Raises CommandError; never repeats what it read."""
    try:
        if source == "-":
            written = sys.stdin.read(INPUT_LIMIT + 1)
        else:
            with Path(source).open(encoding="utf-8") as file:
                written = file.read(INPUT_LIMIT + 1)
        plan = json.loads(written) if len(written) <= INPUT_LIMIT else None
    except OSError as error:
        raise CommandError(f"{source}: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"{source} is not JSON in UTF-8.") from None
    if not isinstance(plan, dict) or "people" not in plan or set(plan) - _KNOWN:
        raise CommandError(f"{source} must be an object with: {', '.join(sorted(_KNOWN))}.")
    policies = plan.get("classifications", [])
    if not isinstance(plan.get("key_store", {}), dict) or not (
        isinstance(policies, list) and all(isinstance(policy, dict) for policy in policies)
    ):
        raise CommandError("key_store must be an object, classifications a list of objects.")
    return plan
