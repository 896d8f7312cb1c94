"""The trail's archive from the command line: writing, verifying, dropping, bringing back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from audit import retention
from audit.errors import AuditError
from audit.models import Archive
from keys import clock, parameters, trail
from keys.administration import archive_audit, drop_audit, restore_audit
from keys.administration.retention import droppable
from keys.errors import Conflict, Unavailable
from keys.services import operator
from keys.trail.retention import find_archive, kept, list_archives
from kms_console.management import plain


class Command(BaseCommand):
    help = (
        "Write entries of the trail to the archive (KMS_AUDIT_ARCHIVE), verify the bundles there, drop "
        "from the database what is archived, bring it back. Every step can be repeated."
    )
    requires_system_checks = plain.CHECKS

    def add_arguments(self, parser: CommandParser) -> None:
        commands = parser.add_subparsers(dest="do", required=True)
        write = commands.add_parser("write", help="write the next bundles and read them back")
        write.add_argument(
            "--entries",
            type=int,
            default=retention.ENTRIES,
            metavar="N",
            help="in a bundle, a multiple of 256 (%(default)s)",
        )
        write.add_argument("--before", default="", metavar="TIME", help="only what is older")
        write.add_argument("--bundles", type=int, default=0, metavar="N", help="at most so many")
        write.add_argument(
            "--partly", action="store_true", help="also a last bundle of fewer entries"
        )
        verify = commands.add_parser("verify", help="read bundles and compare them with the tree")
        verify.add_argument("start", nargs="*", type=int, help="their first entries; none: all")
        drop = commands.add_parser("drop", help="delete from the database what is archived")
        drop.add_argument(
            "start",
            nargs="*",
            type=int,
            help="first entries of bundles; none: all that are older than KMS_AUDIT_KEEP_DAYS",
        )
        drop.add_argument(
            "--before", default="", metavar="TIME", help="all that are older than this time"
        )
        restore = commands.add_parser("restore", help="bring entries back into the database")
        restore.add_argument("start", nargs="+", type=int, help="first entries of bundles")
        commands.add_parser("list", help="every bundle, and where it stands")
        for command in (write, drop, restore):
            command.add_argument("--reason", default="", help="for the audit trail")

    def handle(self, *args: Any, **options: Any) -> None:
        with plain.errors():
            getattr(self, f"_{options['do']}")(options)

    def _write(self, options: dict[str, Any]) -> None:
        count, before = options["entries"], options["before"]
        written = 0
        while not options["bundles"] or written < options["bundles"]:
            if written and not self._enough(options):
                break
            try:
                row = archive_audit(
                    operator(), entries=count, before=before, reason=options["reason"]
                )
            except Conflict:
                if written:
                    break
                raise
            written += 1
            self.stdout.write(_line(row))

    def _enough(self, options: dict[str, Any]) -> bool:
        """Whether the next bundle would be a whole one, or may be smaller."""
        before = parameters.moment(options["before"], "--before")
        found = retention.next_range(options["entries"], before)
        return found is not None and (
            options["partly"] or found[1] - found[0] == options["entries"]
        )

    def _verify(self, options: dict[str, Any]) -> None:
        caller, bad = operator(), 0
        trail.log_head(caller)
        for row in self._chosen(options["start"]):
            try:
                count = retention.check(row)
                self.stdout.write(f"{row}: sound, {count} entries")
            except AuditError as error:
                bad += 1
                self.stdout.write(f"{row}: {error}")
        if bad:
            raise CommandError(f"{bad} of the bundles are not sound or can't be read.")

    def _drop(self, options: dict[str, Any]) -> None:
        rows, bad = self._to_drop(options), 0
        for row in rows:
            # One that can't be dropped stops no other.
            try:
                dropped = drop_audit(operator(), str(row.start), reason=options["reason"])
                self.stdout.write(_line(dropped))
            except (Conflict, Unavailable) as error:
                if len(rows) == 1:
                    raise
                bad += 1
                self.stdout.write(f"{row}: {error.detail}")
        if bad:
            raise CommandError(f"{bad} of the bundles can't be dropped.")
        if not rows:
            self.stdout.write("There is nothing to drop.")

    def _to_drop(self, options: dict[str, Any]) -> list[Archive]:
        if options["start"] and options["before"]:
            raise CommandError("Name bundles, or a time with --before; not both.")
        if options["start"]:
            return [find_archive(operator(), start) for start in options["start"]]
        before = parameters.moment(options["before"], "--before")
        if before is None:
            if not settings.AUDIT_KEEP_DAYS:
                raise CommandError(
                    "KMS_AUDIT_KEEP_DAYS is 0, so that nothing is old enough to go: name bundles by "
                    "their first entries, or give a time with --before."
                )
            before = clock.now() - timedelta(days=settings.AUDIT_KEEP_DAYS)
        return droppable(before)

    def _restore(self, options: dict[str, Any]) -> None:
        for start in options["start"]:
            row = restore_audit(operator(), str(start), reason=options["reason"])
            self.stdout.write(_line(row))

    def _list(self, options: dict[str, Any]) -> None:
        for row in self._chosen([]):
            self.stdout.write(_line(row))
        stands = kept(operator())
        self.stdout.write(f"{stands.bundles} bundles; the entries below {stands.end} are in them.")
        if stands.to_drop:
            self.stdout.write(
                "This database role may not drop them: run `archive_audit drop` as the owner."
            )
        if stands.trouble:
            self.stdout.write(stands.trouble)

    def _chosen(self, starts: list[int]) -> list[Archive]:
        """Return the bundles that start so, or all, the oldest first."""
        caller = operator()
        if starts:
            return [find_archive(caller, start) for start in starts]
        rows: list[Archive] = []
        while page := list_archives(caller, after=rows[-1].start if rows else None):
            rows += page
        return rows[::-1]


def _line(row: Archive) -> str:
    if row.dropped_at is not None:
        where = f"dropped {row.dropped_at:%Y-%m-%d %H:%M} UTC"
    elif row.restored_at is not None:
        where = f"brought back {row.restored_at:%Y-%m-%d %H:%M} UTC"
    else:
        where = "in the database too"
    kept_until = f", kept until {row.retain_until:%Y-%m-%d}" if row.retain_until else ""
    return f"{row}  {row.name}  {where}{kept_until}"
