"""The worked example: loads it once, and says who can sign in."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from kms_console import demo
from kms_console.demo.accounts import accounts_file, token_file
from kms_console.demo.company import APPLICATIONS, COMPANY, PEOPLE, SHOWN
from kms_console.management import plain


class Command(BaseCommand):
    help = (
        "Load the worked example, a healthcare company with keys in every state, into a new data "
        "folder. Safe to repeat; passwords and tokens are printed the first time only."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--address",
            default=os.environ.get("KMS_ADDRESS", "http://127.0.0.1:8000"),
            help="where the console is (default: KMS_ADDRESS or http://127.0.0.1:8000)",
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            accounts, new = demo.load()
        address = options["address"].rstrip("/")
        if options["json"]:
            told = document(accounts if new else None, address)
            self.stdout.write(json.dumps(told, indent=2))
        else:
            self.stdout.write("\n".join(lines(accounts if new else None, address)))


def lines(accounts: demo.Accounts | None, address: str) -> list[str]:
    """Return what a person is told; with `accounts`, their passwords and tokens too."""
    where = shlex.quote(str(accounts_file()))
    if accounts is None:
        first = [f"The worked example, {COMPANY}, is loaded. Passwords: see {where}", ""]
    else:
        first = [f"The worked example: {COMPANY}. The passwords are kept in {where}", ""]
    table = [("sign in as", "password", "name", "role")] if accounts else []
    table = table or [("sign in as", "", "name", "role")]
    for person in PEOPLE:
        password = accounts.passwords[person.username] if accounts else ""
        table.append((person.username, password, person.name, person.role))
    tokens = [("application", "token")]
    for plan in APPLICATIONS:
        token = accounts.tokens[plan.name] if accounts else f"in {token_file(plan.name)}"
        tokens.append((plan.name, token))
    return [
        *first,
        f"  {address}/",
        "",
        *_aligned(table),
        "",
        *_aligned(tokens),
        "",
        "Encrypt something as the application patient-records:",
        "",
        curl(address),
    ]


def document(accounts: demo.Accounts | None, address: str) -> dict[str, Any]:
    """Return the same as plain values."""
    people = [
        {"name": person.name, "username": person.username, "role": person.role}
        | ({"password": accounts.passwords[person.username]} if accounts else {})
        for person in PEOPLE
    ]
    applications = [
        {"name": plan.name, "grants": plan.grants, "token_file": str(token_file(plan.name))}
        | ({"token": accounts.tokens[plan.name]} if accounts else {})
        for plan in APPLICATIONS
    ]
    return {
        "address": address,
        "new": accounts is not None,
        "accounts_file": str(accounts_file()),
        "people": people,
        "applications": applications,
        "curl": curl(address),
    }


def curl(address: str) -> str:
    """Return one command line that works as it stands; the token stays in its file."""
    token = f"$(cat {shlex.quote(str(token_file(SHOWN)))})"
    return (
        f"  curl -sS -X POST {address}/api/v1/keys/{SHOWN}/encrypt \\\n"
        f'    -H "Authorization: Bearer {token}" \\\n'
        "    -H 'Content-Type: application/json' \\\n"
        """    -d '{"plaintext": "SGVsbG8sIHdvcmxkIQ==", "context": {"patient": "MH-10442"}}'"""
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            word.ljust(width) for word, width in zip(row, widths, strict=True) if width
        ).rstrip()
        for row in rows
    ]
