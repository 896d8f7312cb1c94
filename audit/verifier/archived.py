"""Do the bundles outside still hold what was dropped from the database?"""

from __future__ import annotations

from django.db.models import Exists, OuterRef

from audit.errors import AuditError
from audit.models import Archive, Entry
from audit.verifier.report import Findings


def check_archives(using: str, findings: Findings) -> None:
    """Read every bundle whose entries were dropped, and compare it with the tree."""
    from audit.retention import archives

    count = 0
    rows = Archive.objects.using(using).filter(dropped_at__isnull=False).order_by("start")
    for archive in rows.iterator():
        try:
            count += archives.check(archive, using)
        except AuditError as problem:
            findings.add(
                archive.start,
                f"The bundle of the entries {archive.start}..{archive.end - 1} is not what the"
                f" tree has: {problem}",
            )
    findings.checked.append(f"{count} entries in bundles outside, each with its hash in the tree.")


def marked(using: str) -> list[tuple[int, int]]:
    """Return (start, end) of the bundles that say "dropped" while entries of theirs are there."""
    inside = Entry.objects.using(using).filter(
        index__gte=OuterRef("start"), index__lt=OuterRef("end")
    )
    rows = Archive.objects.using(using).filter(Exists(inside), dropped_at__isnull=False)
    return list(rows.order_by("start").values_list("start", "end"))


def check_marks(using: str, before: list[tuple[int, int]], findings: Findings) -> None:
    """Note bundles that are marked so and were `before` the walk: not those of a drop at work now."""
    for start, end in marked(using):
        if (start, end) in before:
            findings.add(
                start,
                f"The archive of the entries {start}..{end - 1} says that they were dropped, and"
                " some are there: the drop never ended, or somebody wrote that.",
            )
