"""What is done about a key that its store shows otherwise than the console: compare, accept, revert, repair.

The store is asked before a transaction is open. What officers vote on is a difference as it was
found; it is looked at again before it is carried out, and a changed one is another difference.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from audit.events import Outcome
from keys import clock, gate, jobs, targets
from keys.actions import Action
from keys.administration.following import Deciding, follow, lose
from keys.administration.intents import bring_in_line, check_ours, intend, raised
from keys.drift import looking, noting
from keys.drift.looking import Looked
from keys.drift.ways import accept_fault, as_found, repair_fault, revert_fault, ways
from keys.due import open_makings
from keys.errors import (
    BackendError,
    Conflict,
    Invalid,
    KeyServiceError,
    Unavailable,
    Unsupported,
)
from keys.gate.changes import Change
from keys.jobs import aligning
from keys.models import Drift, Job, Key, StoreView
from keys.models.drift import DriftState
from keys.models.job import JobKind, JobState
from keys.services import scheduler

__all__ = ["accept_drift", "check_drift", "keep_watch", "repair_drift", "revert_drift", "ways"]

logger = logging.getLogger(__name__)


# --- comparing


def _look(change: Change[Any], arguments: dict[str, Any]) -> None:
    """Ask the key's store, before any transaction is open; its trouble is written down and raised."""
    key: Key = change.row
    try:
        looked = looking.look(key)
    except Unsupported:
        if not noting.any_open(key):
            raise
        return  # there is nothing to compare any more, and something to close
    except (Unavailable, BackendError) as error:
        noting.note_trouble([key], error)
        raise
    change.target = replace(change.target, row=looked)


@gate.change(Action.CHECK_DRIFT, on=targets.key, prepare=_look)
def check_drift(change: Change[Any], *, reason: str = "") -> Key:
    """Compare a key with its store now, and write down what differs; returns the key.

    Raises BackendUnavailable, Unavailable or BackendError where the store could not be asked, and
    Unsupported where it keeps no states of its own. Where there is nothing to compare any more, what
    was open is closed.
    """
    if isinstance(change.row, Key):
        return _close_all(change, change.row)
    looked: Looked = change.row
    key = _fresh(looked.key)
    looked = looked.on(key)
    if not looked.still_holds():
        # Changed from here since the store was asked: what it said is of a key that was.
        StoreView.objects.filter(key=key).update(look_at=change.now)
        change.facts["changed_meanwhile"] = True
        return key
    if looked.window_opened:
        # From now on the store can wait by itself: what differs is not somebody's doing.
        bring_in_line(change, key)
    change.facts |= noting.note(looked)
    return key


def keep_watch(key: Key) -> None:
    """Compare a key with its store, for the sweep. What is news leaves an entry; that nothing is, none.

    Raises Unavailable or BackendError where the store could not be asked; that is written down.
    """
    try:
        looked = looking.look(key)
    except Unsupported:
        _end(key)
        return
    except (Unavailable, BackendError) as error:
        noting.note_trouble([key], error)
        raise
    if noting.is_news(looked):
        check_drift(scheduler(), str(key.id))
    else:
        noting.confirm(looked)


def tidy() -> None:
    """Close what is still open about keys that were destroyed meanwhile; each key leaves an entry."""
    for key in noting.over():
        try:
            _end(key)
        except KeyServiceError as error:
            logger.warning("Differences of a destroyed key could not be closed: %s", error.code)


def _end(key: Key) -> None:
    if noting.any_open(key):
        check_drift(scheduler(), str(key.id))
    noting.note_nothing(key)


def _close_all(change: Change[Any], key: Key) -> Key:
    fresh = _fresh(key)
    if not looking.nothing_there(fresh):
        raise Conflict("The key changed meanwhile; look again.")
    change.facts |= noting.end_all(fresh)
    return fresh


# --- deciding


def _find_again(change: Change[Any], arguments: dict[str, Any]) -> None:
    """Put the difference before the voters, and ask the store once more whether it is still so."""
    _put_to_vote(change, arguments)
    drift: Drift = change.row.drift
    looked = looking.look(drift.key)
    if as_found(drift) not in looked.differs:
        raise Conflict("The store says something else by now: compare again, and decide then.")
    change.target = replace(change.target, row=Deciding(drift, drift.key, looked))


def _put_to_vote(change: Change[Any], arguments: dict[str, Any]) -> None:
    """What is voted on is the difference itself, not just its id."""
    drift: Drift = change.row
    told = {
        "field": drift.field,
        "handle": drift.handle,
        "believed": drift.believed,
        "observed": drift.observed,
    }
    if arguments["difference"] not in (None, told):
        raise Invalid("The difference is not the one that was asked about.", field="difference")
    arguments["difference"] = told
    _check_open(drift)
    change.target = replace(change.target, row=Deciding(drift, drift.key))


@gate.change(Action.ACCEPT_DRIFT, on=targets.drift, prepare=_find_again)
def accept_drift(
    change: Change[Any], *, difference: dict[str, Any] | None = None, reason: str = ""
) -> Drift:
    """The store is right: let the console follow it, along the legal edges; returns the difference.

    Raises Unsupported, saying why, where the console can't follow; Conflict where the store says
    something else by now; BackendUnavailable where it can't be asked. `difference` is filled in.
    """
    key, drift, looked = _locked(change)
    _refuse(accept_fault(key, as_found(drift)))
    _decide(change, drift, DriftState.ACCEPTED)
    follow(change, as_found(drift))
    if looked is not None:
        noting.note(looked.on(_fresh(key)).again())
    change.after(lambda: _looked_after(drift))
    return drift


@gate.change(Action.REVERT_DRIFT, on=targets.drift, prepare=_put_to_vote)
def revert_drift(
    change: Change[Any], *, difference: dict[str, Any] | None = None, reason: str = ""
) -> Drift:
    """The console is right: bring the store in line; returns the difference.

    It closes as reverted once the store agrees, and stays open where the store can't be reached: the
    job waits for it. Raises Unsupported where the store can't go back, BackendError where it was
    brought in line and still says otherwise.
    """
    key, drift, _ = _locked(change)
    _refuse(revert_fault(key, as_found(drift)))
    # Before the job: one that runs already holds what nobody decided on.
    decision = _decision(change)
    Drift.objects.filter(pk=drift.pk).update(**decision)
    job = aligning.intend(key, change.caller.principal_id, change.now, change.reason)
    if job is None:
        raise Unsupported(f"{key.key_store.title} keeps no states of its own.")
    _tell(change, drift)
    change.facts["job"] = str(job.id)
    change.outcome = Outcome.STARTED
    change.after(lambda: _reverted(drift, job))
    return drift


@gate.change(Action.REPAIR_DRIFT, on=targets.drift, prepare=_find_again)
def repair_drift(
    change: Change[Any], *, difference: dict[str, Any] | None = None, reason: str = ""
) -> Drift:
    """What was lost can't come back: make the key whole with a new version; returns the difference.

    The lost version is marked destroyed; what it protected is lost with it. Raises Unsupported,
    Conflict, BackendUnavailable, and BackendError where the new version could not be made.
    """
    key, drift, _ = _locked(change)
    _refuse(repair_fault(key, as_found(drift)))
    check_ours(key)
    if open_makings().filter(key=key).exists():
        raise Conflict("A version of this key is being made.")
    _decide(change, drift, DriftState.REPAIRED)
    lose(change, as_found(drift))
    job = intend(change, key, JobKind.ROTATE)
    _tell(change, drift)

    def made() -> Drift:
        raised(jobs.run(job.id))
        return _looked_after(drift)

    change.after(made)
    return drift


# --- the parts


def _locked(change: Change[Any]) -> tuple[Key, Drift, Looked | None]:
    """Return key, difference and look, read anew under a lock; what was decided on must still hold."""
    key = _fresh(change.row.key)
    drift = Drift.objects.select_for_update().get(pk=change.row.drift.pk)
    drift.key = key
    _check_open(drift)
    looked: Looked | None = change.row.looked
    if looked is not None:
        looked = looked.on(key)
        if not looked.still_holds():
            raise Conflict("The key changed meanwhile; look again.")
    change.target = replace(change.target, row=Deciding(drift, key, looked))
    change.touch("key", key.id)
    return key, drift, looked


def _fresh(key: Key) -> Key:
    rows = Key.objects.select_for_update(of=("self",)).select_related("classification", "key_store")
    return rows.get(pk=key.pk)


def _check_open(drift: Drift) -> None:
    if drift.state != DriftState.OPEN:
        label = DriftState(drift.state).label.lower()
        raise Conflict(f"The difference is not open any more: {label}.")


def _refuse(fault: str) -> None:
    if fault:
        raise Unsupported(fault)


def _decide(change: Change[Any], drift: Drift, state: DriftState) -> None:
    if not noting.close(drift, state, **_decision(change)):
        raise Conflict("The difference was decided on meanwhile; look again.")
    _tell(change, drift)


def _decision(change: Change[Any]) -> dict[str, Any]:
    return {
        "decided_at": change.now,
        "decided_by_id": change.caller.principal_id,
        "reason": change.reason,
    }


def _tell(change: Change[Any], drift: Drift) -> None:
    """Make the entry speak of the key, with what differed."""
    key = drift.key
    change.about = targets.key_subject(key, drift.number or None)
    change.facts |= {
        "drift": str(drift.id),
        "field": drift.field,
        "believed": drift.believed,
        "observed": drift.observed,
    }
    if drift.handle:
        change.facts["handle"] = drift.handle


def _looked_after(drift: Drift) -> Drift:
    """Look at the key once more after a decision. The store's trouble is no concern of who decided."""
    key = Key.objects.select_related("classification", "key_store").get(pk=drift.key_id)
    try:
        keep_watch(key)
    except KeyServiceError as error:
        logger.info("A key is looked at again later: %s", error.code)
    return Drift.objects.select_related("key", "decided_by").get(pk=drift.pk)


def _reverted(drift: Drift, job: Job) -> Drift:
    done = jobs.run(job.id)
    if done.state not in (JobState.SUCCEEDED, JobState.FAILED):
        return Drift.objects.select_related("key", "decided_by").get(pk=drift.pk)
    asked_at = clock.now()
    row = _looked_after(drift)
    raised(done)
    if row.state == DriftState.OPEN and row.seen_at >= asked_at:
        raise BackendError("The key store was brought in line, and still says otherwise.")
    return row
