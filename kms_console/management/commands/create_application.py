"""Register an application, let it use keys, and print its credentials once."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from keys import administration, clock, parameters, queries
from keys.administration.access import OPERATIONS, check_operations
from keys.callers import Caller
from keys.errors import Invalid, KeyServiceError, PendingApproval
from keys.services import operator
from kms_console.management import plain


@dataclass(frozen=True, slots=True)
class Wanted:
    """One --grant: a key and what may be done with it."""

    key: str
    operations: list[str]


def parse_grant(word: str) -> Wanted:
    """Return what KEY:op,op says. Operations may be written as in addresses: generate-data-key."""
    key, colon, listed = word.rpartition(":")
    operations = [name.strip().replace("-", "_") for name in listed.split(",") if name.strip()]
    if not colon or not key.strip() or not operations:
        raise argparse.ArgumentTypeError(f"{word!r} is not KEY:operation,operation")
    return Wanted(key.strip(), operations)


class Command(BaseCommand):
    help = (
        "Register an application and print its credentials, which can't be shown again. Grants "
        "that officers must agree to become requests."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the application's name")
        parser.add_argument(
            "--grant",
            action="append",
            default=[],
            type=parse_grant,
            metavar="KEY:op,op",
            help=f"what it may do with a key (by alias or id), of: {', '.join(OPERATIONS)}",
        )
        parser.add_argument("--description", default="", help="what it is")
        parser.add_argument(
            "--expires", metavar="TIME", help="end of the credentials, like 2027-01-31T12:00:00Z"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            told = create(
                operator(),
                options["name"],
                options["grant"],
                options["description"],
                options["expires"],
            )
        self.stdout.write(json.dumps(told, indent=2) if options["json"] else _plain(told))


def create(
    caller: Caller, name: str, wanted: list[Wanted], description: str, expires: str | None
) -> dict[str, Any]:
    """Create the application, its grants, then its credentials; return all of it as plain values.

    What can be checked is checked before anything is created. The credentials come last: where a
    step fails no token is lost. Raises what the domain raises, CommandError where it fails half way.
    """
    ends = parameters.moment(expires, "--expires")
    if ends and ends <= clock.now():
        raise Invalid("--expires lies in the past.", field="expires_at")
    for grant in wanted:
        _check(caller, grant)
    row = administration.create_application(caller, name=name, description=description)
    told: dict[str, Any] = {"application": {"id": str(row.id), "name": row.name}}
    try:
        granted, pending = _grant(caller, str(row.id), wanted)
        issued = administration.issue_credential(caller, str(row.id), expires_at=expires)
    except KeyServiceError as error:
        raise CommandError(
            f"{row.name} is registered and has no credentials, since a step failed: {error.detail}"
        ) from None
    return told | {
        "token": issued.token.reveal().decode(),
        "expires_at": ends.isoformat() if ends else None,
        "grants": granted,
        "pending_approvals": pending,
    }


def _check(caller: Caller, wanted: Wanted) -> None:
    """Raise what create_grant would raise, before there is anything to be granted to."""
    key = queries.find_key(caller, wanted.key)
    check_operations(key, parameters.some_of(wanted.operations, "--grant", OPERATIONS))


def _grant(
    caller: Caller, application: str, wanted: list[Wanted]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the grants that hold, and the ids of the requests for those that wait for votes."""
    granted: list[dict[str, Any]] = []
    pending: list[str] = []
    for grant in wanted:
        try:
            row = administration.create_grant(
                caller, application, key=grant.key, operations=grant.operations
            )
        except PendingApproval as waits:
            pending.append(str(waits.extra["approval"]))
            continue
        granted.append({"id": str(row.id), "key": grant.key, "operations": row.operations})
    return granted, pending


def _plain(told: dict[str, Any]) -> str:
    lines = [
        f"Application  {told['application']['name']} ({told['application']['id']})",
        f"Token        {told['token']}",
        "             It is not kept and can't be shown again.",
    ]
    if told["expires_at"]:
        lines.append(f"Expires      {told['expires_at']}")
    lines += [
        f"May          {', '.join(grant['operations'])} with {grant['key']}"
        for grant in told["grants"]
    ]
    lines += [
        f"Waits        for the officers' votes: request {request}"
        for request in told["pending_approvals"]
    ]
    return "\n".join(lines)
