"""Key stores from the command line: add, list, check, see what is in them, adopt keys, compare keys."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from keys import administration, discovery, queries, queries_stores
from keys.backends import registry
from keys.errors import KeyServiceError
from keys.models import Drift, FoundKey, Key, KeyStore, Listing
from keys.services import operator
from kms_console.management import plain

# How often a listing is looked at that a worker walks through.
WATCH_SECONDS = 0.2
STRIDE = 200


class Command(BaseCommand):
    help = (
        "Add, list and check key stores; see what is in them, adopt keys, compare keys with them."
    )
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
        check = commands.add_parser("check", help="ask how they are; exit code 1 where one is ill")
        check.add_argument("name", nargs="?", default="", help="only this one")
        discover = commands.add_parser("discover", help="list the keys that are in a key store")
        discover.add_argument("name")
        discover.add_argument("--json", action="store_true", help="print JSON")
        self._add_adopt(commands)
        self._add_drift(commands)

    def _add_adopt(self, commands: Any) -> None:
        adopt = commands.add_parser("adopt", help="take over a key as it is in its key store")
        adopt.add_argument("name", metavar="store")
        adopt.add_argument(
            "reference", help="the store's own name of the key, as discover prints it"
        )
        adopt.add_argument("--classification", required=True)
        adopt.add_argument("--name", dest="key_name", default="", metavar="NAME")
        adopt.add_argument("--alias", default="")
        adopt.add_argument("--json", action="store_true", help="print JSON")

    def _add_drift(self, commands: Any) -> None:
        drift = commands.add_parser(
            "drift", help="list where key stores differ; exit code 1 where one does"
        )
        about = drift.add_mutually_exclusive_group()
        about.add_argument("name", nargs="?", default="", metavar="store", help="only this store's")
        about.add_argument("--key", default="", metavar="ALIAS", help="only this key's")
        drift.add_argument("--check", action="store_true", help="ask the stores first")
        drift.add_argument("--json", action="store_true", help="print JSON")

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
            self.stdout.write(f"{row.name}  {row.kind}  {row.title}  {_health(row)}")

    def _check(self, options: dict[str, Any]) -> None:
        if options["name"]:
            rows = [queries.find_key_store(operator(), options["name"])]
        else:
            rows = [row for row in queries.list_key_stores(operator()) if row.enabled]
        checked = [administration.check_key_store(operator(), str(row.id)) for row in rows]
        if options["name"]:
            for row in checked:
                self.stdout.write(f"{row.name}  {row.kind}  {row.title}  {_health(row)}")
        else:
            self._list(options)
        if not all(row.healthy for row in checked):
            sys.exit(1)

    def _discover(self, options: dict[str, Any]) -> None:
        listing = self._walk(administration.discover_keys(operator(), options["name"]))
        found = list(_found(listing))
        if options["json"]:
            told = {"listing": str(listing.id), "keys": [_told(*pair) for pair in found]}
            self.stdout.write(json.dumps(told, indent=2))
            return
        for key, ours in found:
            view = key.view
            whose = f"adopted as {ours.alias}" if ours else view["problem"] or "not adopted"
            self.stdout.write(f"{key.reference}  {view['spec'] or '?'}  {view['state']}  {whose}")

    def _walk(self, listing: Listing) -> Listing:
        """Walk through the store here, or watch the worker that does."""
        while True:
            listing = discovery.run(listing.id, self._progress)
            if listing.state == "done":
                self._progress(listing, end="\n")
                return listing
            if listing.state == "failed":
                raise CommandError(f"The listing failed: {listing.error}")
            if listing.error and listing.lease_until is None:
                raise CommandError(
                    f"{listing.error} {listing.found} keys were found so far; the worker goes on at "
                    f"{listing.run_after:%H:%M:%S} UTC."
                )
            self._progress(listing)
            time.sleep(WATCH_SECONDS)

    def _progress(self, listing: Listing, end: str = "") -> None:
        of = f" of {listing.total}" if listing.total is not None else ""
        self.stderr.write(f"\r{listing.found}{of} keys found", ending=end)

    def _adopt(self, options: dict[str, Any]) -> None:
        key = administration.adopt_key(
            operator(),
            options["classification"],
            key_store=options["name"],
            reference=options["reference"],
            name=options["key_name"],
            alias=options["alias"],
        )
        due = key.rotate_at.isoformat(timespec="seconds") if key.rotate_at else None
        if options["json"]:
            told = {"id": str(key.id), "alias": key.alias, "name": key.name, "rotate_at": due}
            self.stdout.write(json.dumps(told, indent=2))
            return
        when = f"Its next rotation is due at {due}." if due else "Its provider rotates it."
        self.stdout.write(f"Adopted {key.alias} as it is; nothing was changed there. {when}")

    def _drift(self, options: dict[str, Any]) -> None:
        if options["check"]:
            self._compare(options)
        rows = list(_differences(options))
        if options["json"]:
            self.stdout.write(json.dumps([_difference(row) for row in rows], indent=2))
        elif not rows:
            self.stdout.write("Nothing differs.")
        for row in rows if not options["json"] else []:
            version = f" version {row.number}" if row.number else ""
            self.stdout.write(
                f"{row.id}  {row.key.alias}{version}  {row.get_field_display()}: "
                f"here {_short(row.believed)}, there {_short(row.observed)}"
            )
        if rows:
            self.stderr.write("An officer decides what happens, in the console or by the API.")
            sys.exit(1)

    def _compare(self, options: dict[str, Any]) -> None:
        """Ask the stores of the keys in question; say of which keys one could not be asked."""
        for key in _comparable(options):
            try:
                administration.check_drift(operator(), str(key.id))
            except KeyServiceError as error:
                self.stderr.write(f"{key.alias}: {error.detail}")


def _health(row: KeyStore) -> str:
    if not row.enabled:
        return "switched off"
    states = {True: "well", False: f"not well: {row.health_detail}", None: "not checked yet"}
    return states[row.healthy]


def _found(listing: Listing) -> Any:
    cursor = ""
    while True:
        page = queries_stores.found_keys(operator(), listing, limit=STRIDE, cursor=cursor)
        yield from page.rows
        cursor = page.next
        if not cursor:
            return


def _told(found: FoundKey, ours: Key | None) -> dict[str, Any]:
    return {**found.view, "key": ours.alias if ours else None}


def _comparable(options: dict[str, Any]) -> Any:
    """Yield the keys that are meant and whose store keeps states of its own."""
    if options["key"]:
        yield queries.find_key(operator(), options["key"])
        return
    filters = queries.KeyFilters(key_store=options["name"])
    after = ""
    while True:
        page = queries.list_keys(operator(), filters, after=after, limit=STRIDE)
        for key in page.rows:
            remote = registry.KINDS[key.key_store.kind].remote and key.key_store.enabled
            if remote and key.state not in ("destroyed", "pending_import"):
                yield key
        after = page.next
        if not after:
            return


def _differences(options: dict[str, Any]) -> Any:
    # Whoever mistypes a name is told so, rather than that nothing differs.
    if options["name"]:
        queries.find_key_store(operator(), options["name"])
    if options["key"]:
        queries.find_key(operator(), options["key"])
    cursor = ""
    while True:
        page = queries_stores.drifts(
            operator(),
            key=options["key"],
            key_store=options["name"],
            limit=STRIDE,
            cursor=cursor,
        )
        yield from page.rows
        cursor = page.next
        if not cursor:
            return


def _difference(row: Drift) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "key": row.key.alias,
        "key_store": row.key.key_store.name,
        "field": row.field,
        "version": row.number or None,
        "handle": row.handle,
        "believed": row.believed,
        "observed": row.observed,
        "found_at": row.found_at.isoformat(),
        "ways": administration.ways(row),
    }


def _short(value: Any) -> str:
    text = "nothing" if value in (None, "", {}) else value
    text = text if isinstance(text, str) else json.dumps(text)
    return text if len(text) <= 80 else text[:77] + "..."
