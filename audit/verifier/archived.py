"""Do the bundles outside still hold what was dropped from the database?"""

from __future__ import annotations

from audit.errors import AuditError
from audit.models import Archive
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
