"""Where bundles are. A row says it too, but only what the deployment configured is ever opened."""

from __future__ import annotations

from django.conf import settings

from audit.errors import ArchiveFault, PlaceError
from audit.models import Archive
from audit.places import Place, open_place


def new() -> Place:
    """Return the place for new bundles. Raises ArchiveFault or PlaceError."""
    if not settings.AUDIT_ARCHIVE:
        raise ArchiveFault("no place for archives is configured")
    return open_place(settings.AUDIT_ARCHIVE)


def of(archive: Archive) -> Place:
    """Return the place of a bundle, where it is the configured one or one of the former ones.

    Raises ArchiveFault where it isn't: whoever can write a row must not choose whom we ask.
    """
    known = [settings.AUDIT_ARCHIVE, *settings.AUDIT_ARCHIVE_FORMER]
    if not archive.place or archive.place not in known:
        raise ArchiveFault(
            "the bundle is at a place that is not configured "
            "(KMS_AUDIT_ARCHIVE, KMS_AUDIT_ARCHIVE_FORMER)"
        )
    return open_place(archive.place)


def check_kept(archive: Archive) -> None:
    """Look whether the storage will keep a bundle for as long as was asked: it is the only copy soon.

    Raises ArchiveFault, PlaceUnavailable or PlaceError.
    """
    place = of(archive)
    if settings.AUDIT_RETAIN_DAYS and not place.enforces:
        raise ArchiveFault(
            "the storage does not keep anybody from deleting a bundle, and KMS_AUDIT_RETAIN_DAYS "
            "asks for it"
        )
    if archive.retain_until is None:
        return
    until = place.retained_until(archive.name)
    if until is None or until < archive.retain_until.replace(microsecond=0):
        raise PlaceError("the storage does not retain the bundle as long as it was asked to")
