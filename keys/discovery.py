"""Walking through a key store: claimed like a job, page by page, each page kept with its cursor.

A walk that is killed goes on from its last page, in whichever process finds its lease run out.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models import F, Q, QuerySet

from keys import clock, stores
from keys.backends.views import KeyView, Page
from keys.drift.plain import to_plain
from keys.errors import BackendError, KeyServiceError, Throttled, Unavailable
from keys.models import FoundKey, KeyStore, Listing
from keys.models.discovery import ListingState

logger = logging.getLogger(__name__)

PAGE = 100
# A store that stays away this often in a row is given up on; a person can ask again.
MOST_ATTEMPTS = 50
# A store that never comes to its end is given up on, too.
MOST_PAGES = 100_000
# How many listings of a store are kept; older ones go with what they found.
KEPT = 10

Told = Callable[[Listing], None]


def due(limit: int = 1000) -> list[uuid.UUID]:
    """Return the ids of listings that are to go on now and that nobody holds, oldest first."""
    return list(_free().order_by("run_after").values_list("id", flat=True)[:limit])


def run(listing_id: uuid.UUID, progress: Told | None = None) -> Listing:
    """Claim a listing and walk on to its end; return it as it stands afterwards. Safe to call at any time.

    `progress` is called after each page. A store that can't be reached, or asks for fewer calls,
    leaves the listing running, to go on later; one that errs ends it. Neither is raised.
    """
    listing = _claim(listing_id)
    if listing is not None:
        try:
            while listing.state == ListingState.RUNNING and _next_page(listing):
                if progress is not None:
                    progress(listing)
        except Unavailable as error:
            _postpone(listing, error)
        except KeyServiceError as error:
            _fail(listing, error.detail)
        except DatabaseError:
            raise  # the lease runs out, and the next run goes on from the last page
        except Exception as error:
            logger.exception("A listing met an error of its own.")
            _fail(listing, f"Unexpected: {type(error).__name__}; see the log.")
    return Listing.objects.select_related("key_store", "requested_by").get(pk=listing_id)


def _free() -> QuerySet[Listing]:
    now = clock.now()
    unclaimed = Q(lease_until=None) | Q(lease_until__lt=now)
    return Listing.objects.filter(unclaimed, state=ListingState.RUNNING, run_after__lte=now)


def _claim(listing_id: uuid.UUID) -> Listing | None:
    """Take a listing for the length of a lease, by compare-and-set; None where somebody else holds it."""
    token = f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
    taken = (
        _free()
        .filter(pk=listing_id)
        .update(claimed_by=token, lease_until=_lease_end(), attempts=F("attempts") + 1)
    )
    if not taken:
        return None
    return Listing.objects.select_related("key_store").get(pk=listing_id)


def _lease_end() -> datetime:
    return clock.now() + timedelta(seconds=settings.JOB_LEASE_SECONDS)


def _next_page(listing: Listing) -> bool:
    """Fetch and keep one page; False where the claim was lost meanwhile."""
    store: KeyStore = KeyStore.objects.get(pk=listing.key_store_id)  # switched off meanwhile?
    page = stores.backend(stores.facts(store)).discover(listing.cursor, PAGE)
    _check(page, listing)
    with transaction.atomic():
        changes: dict[str, Any] = {
            "cursor": page.cursor,
            "pages": listing.pages + 1,
            "found": listing.found + _kept(listing, page),
            "total": page.total,
            "error": "",
            "attempts": 0,
            "lease_until": _lease_end(),
        }
        if not page.cursor:
            changes |= {"state": ListingState.DONE, "finished_at": clock.now(), "lease_until": None}
        held = _held(listing).update(**changes)
        if not held:
            transaction.set_rollback(True)
    if not held:
        return False
    for column, value in changes.items():
        setattr(listing, column, value)
    if not page.cursor:
        _forget_older(listing)
    return True


def _held(listing: Listing) -> QuerySet[Listing]:
    """The row, where our claim still holds: who was too slow for the lease changes nothing any more."""
    return Listing.objects.filter(
        pk=listing.pk,
        state=ListingState.RUNNING,
        claimed_by=listing.claimed_by,
        cursor=listing.cursor,
    )


def _check(page: Any, listing: Listing) -> None:
    if not isinstance(page, Page):
        raise BackendError("The store's answer can't be understood.")
    if page.cursor and (page.cursor == listing.cursor or listing.pages >= MOST_PAGES):
        raise BackendError("The store's list does not come to an end.")
    limit = FoundKey._meta.get_field("reference").max_length or 0
    if any(not view.reference or len(view.reference) > limit for view in page.keys):
        raise BackendError("The store names a key in a way that can't be kept.")


def _kept(listing: Listing, page: Page) -> int:
    """Keep what a page shows; return how many keys are new. One that moved between pages is shown twice."""
    by_reference: dict[str, KeyView] = {view.reference: view for view in page.keys}
    again = FoundKey.objects.filter(listing=listing, reference__in=by_reference)
    known = set(again.values_list("reference", flat=True))
    FoundKey.objects.bulk_create(
        FoundKey(
            listing=listing,
            reference=reference,
            name=to_plain(view)["name"][:256],
            view=to_plain(view),
        )
        for reference, view in by_reference.items()
        if reference not in known
    )
    return len(by_reference) - len(known)


def _postpone(listing: Listing, error: KeyServiceError) -> None:
    """Let a listing go on later; give up on a store that stays away."""
    attempts = Listing.objects.values_list("attempts", flat=True).get(pk=listing.pk)
    if attempts >= MOST_ATTEMPTS:
        _fail(listing, error.detail)
        return
    pause = min(5.0 * 2 ** min(attempts, 7), 600.0)
    if isinstance(error, Throttled):
        pause = max(pause, min(error.retry_after or 0.0, 86_400.0))
    _held(listing).update(
        run_after=clock.now() + timedelta(seconds=pause),
        lease_until=None,
        claimed_by="",
        error=error.detail[:500],
    )


def _fail(listing: Listing, why: str) -> None:
    changes = {"state": ListingState.FAILED, "finished_at": clock.now(), "error": why[:500]}
    if _held(listing).update(lease_until=None, **changes):
        _forget_older(listing)


def _forget_older(listing: Listing) -> None:
    """Keep the newest listings of a store; what older ones found can be found again."""
    rows = Listing.objects.filter(key_store=listing.key_store_id).order_by("-created_at")
    newest = list(rows.values_list("pk", flat=True)[:KEPT])
    rows.exclude(pk__in=newest).exclude(state=ListingState.RUNNING).delete()
