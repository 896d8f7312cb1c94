"""Voting on requests, and carrying out what was approved."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import transaction

from audit.events import Personal, Told
from keys import approvals, gate, names, parameters, queue, targets
from keys.actions import Action
from keys.approvals import Wish
from keys.callers import Caller, Door, Kind, Method, Role
from keys.errors import Conflict, Denied, KeyServiceError, Unavailable
from keys.gate.changes import Change
from keys.models import Approval, Vote
from keys.models.approval import ApprovalState
from keys.services import scheduler


@gate.change(Action.VOTE, on=targets.approval)
def vote(
    change: Change[Approval], *, approve: bool, digest: str, comment: str = "", reason: str = ""
) -> Approval:
    """Cast an officer's one vote on a request. `digest` is what the officer saw, in hex.

    A refusal is final. With the last vote that was needed the request is approved, and the worker
    carries it out. Raises Denied for the requester and for who is not on the request's list.
    """
    # Votes are counted one at a time: two last votes at once must not both miss that they are enough.
    approval = Approval.objects.select_for_update().get(pk=change.row.pk)
    parameters.yes_or_no(approve, "approve")
    _may_vote(change.caller, approval)
    if not isinstance(digest, str) or not hmac.compare_digest(
        digest.encode(), approval.digest.encode()
    ):
        raise Conflict("The request is not the one you looked at; look again.")
    fault = _fault(approval)
    if fault:
        raise Conflict(f"The request no longer holds: {fault}. Ask for it again.")
    Vote.objects.create(
        approval=approval,
        officer_id=change.caller.principal_id,
        approve=approve,
        digest=approval.digest,
        comment=names.prose(comment, "comment"),
        demo=change.caller.demo,
        created_at=change.now,
    )
    change.cited.append(str(approval.id))
    change.facts |= {
        "request_sha256": approval.digest,
        "agreed": approve,
        "wanted": approval.action,
        "subject": _told(approval),
    }
    if not approve:
        approvals.close(
            approval,
            ApprovalState.REJECTED,
            names.prose(comment, "comment") or "an officer refused",
        )
    elif not approvals.votes_fault(approval):
        approvals.close(approval, ApprovalState.APPROVED)
        if not Action(approval.action).row.by_requester:
            transaction.on_commit(lambda: _hand_over(approval))
    return approval


@gate.change(Action.WITHDRAW_REQUEST, on=targets.approval)
def withdraw_request(change: Change[Approval], *, reason: str = "") -> Approval:
    """Take one's own request back, as long as it was not carried out."""
    approval = change.row
    if approval.requester_id != change.caller.principal_id:
        raise Denied("Only who asked can withdraw a request.")
    _open_or_approved(approval)
    approvals.close(approval, ApprovalState.WITHDRAWN, change.reason)
    change.cited.append(str(approval.id))
    return approval


@gate.change(Action.EXPIRE_REQUEST, on=targets.approval)
def expire_request(change: Change[Approval], *, reason: str = "") -> Approval:
    """Close a request whose time is over, or that no longer holds."""
    approval = change.row
    _open_or_approved(approval)
    end, fault = staleness(approval)
    if end is None:
        raise Conflict("The request still holds.")
    approvals.close(approval, end, fault)
    change.cited.append(str(approval.id))
    change.facts["fault"] = fault
    return approval


def staleness(approval: Approval) -> tuple[ApprovalState | None, str]:
    """Return how a live request should end now, and why; (None, "") while it holds."""
    if approvals.altered(approval):
        return ApprovalState.VOID, approvals.ALTERED
    if approvals.expired(approval):
        return ApprovalState.EXPIRED, "its time is over"
    fault = _fault(approval)
    return (ApprovalState.VOID, fault) if fault else (None, "")


def execute(approval_id: str) -> None:
    """Carry out an approved request, as the requester's own call; the worker does this.

    The gate verifies the votes and everything they rest on again. What fails is told by the
    request's state and its entry.
    """
    approval = Approval.objects.select_related("requester").filter(pk=approval_id).first()
    if approval is None or approval.state != ApprovalState.APPROVED:
        return
    fault = approvals.votes_fault(approval)
    if fault:
        _note_failure(approval, Conflict(f"The votes don't hold: {fault}."))
        return
    action = Action(approval.action)
    if action.row.by_requester:
        return
    requester = approval.requester
    caller = Caller(
        requester.id,
        Kind(requester.kind),
        requester.name,
        Role(requester.role),
        Method.SCHEDULE,
        Door.SCHEDULE,
        request_id=str(approval.id),
        approval_id=approval.id,
        demo=requester.demo,
    )
    try:
        function_for(action)(
            caller, approval.subject_id, reason=approval.reason, **approval.parameters
        )
    except KeyServiceError as error:
        _note_failure(approval, error)


def function_for(action: Action) -> Callable[..., Any]:
    """Return the one function behind an action that can be put to a vote."""
    from keys import administration as a

    functions: dict[Action, Callable[..., Any]] = {
        Action.ENABLE_KEY: a.enable_key,
        Action.ROTATE_KEY: a.rotate_key,
        Action.HOLD_ROOT_KEY: a.hold_root_key,
        Action.ROTATE_ROOT_KEY: a.rotate_root_key,
        Action.IMPORT_KEY: a.import_key,
        Action.DELETE_MATERIAL: a.delete_material,
        Action.EXPORT_KEY: a.export_key,
        Action.SCHEDULE_DESTRUCTION: a.schedule_destruction,
        Action.CANCEL_DESTRUCTION: a.cancel_destruction,
        Action.ACTIVATE_VERSION: a.transition_version,
        Action.DEACTIVATE_VERSION: a.transition_version,
        Action.REVOKE_VERSION: a.transition_version,
        Action.DESTROY_VERSION: a.transition_version,
        Action.CANCEL_VERSION_DESTRUCTION: a.cancel_version_destruction,
        Action.UPDATE_CLASSIFICATION: a.update_classification,
        Action.PAUSE_ROTATION: a.pause_rotation,
        Action.CREATE_GRANT: a.create_grant,
        Action.APPOINT_OFFICER: a.appoint_officer,
        Action.ERASE_PERSON: a.erase_person,
        Action.DISMISS_OFFICER: a.dismiss_officer,
        Action.RELEASE_HOLD: a.release_hold,
        Action.ACCEPT_DRIFT: a.accept_drift,
        Action.REVERT_DRIFT: a.revert_drift,
        Action.REPAIR_DRIFT: a.repair_drift,
    }
    return functions[action]


def _note_failure(approval: Approval, error: KeyServiceError) -> None:
    """A request that could not be carried out for a reason of its own is closed; an outage is tried again."""
    approval.refresh_from_db()
    if isinstance(error, Unavailable) or approval.state != ApprovalState.APPROVED:
        return
    with suppress(Conflict):  # somebody else closed it meanwhile
        fail_request(scheduler(), str(approval.id), error=error.detail, code=error.code)


@gate.change(Action.EXPIRE_REQUEST, on=targets.approval)
def fail_request(change: Change[Approval], *, error: str, code: str) -> Approval:
    """Close an approved request that turned out not to be possible."""
    approvals.close(change.row, ApprovalState.FAILED, error)
    change.why, change.about = code, change.target.subject()
    change.cited.append(str(change.row.id))
    return change.row


def _told(approval: Approval) -> Told:
    """Return the name of what a request is about, as entries may have it."""
    if approval.action in targets.ABOUT_PEOPLE:
        return Personal(approval.subject_name, approval.subject_id)
    return approval.subject_name


def _may_vote(caller: Caller, approval: Approval) -> None:
    if caller.principal_id == approval.requester_id:
        raise Denied("Who asked for something does not vote on it.")
    if str(caller.principal_id) not in approval.officers:
        raise Denied("You are not among the officers of this request.")
    if approval.votes.filter(officer_id=caller.principal_id).exists():
        raise Conflict("You have voted already; a vote is final.")
    if approval.state != ApprovalState.OPEN:
        raise Conflict(f"The request is not open: {ApprovalState(approval.state).label.lower()}.")
    if approvals.expired(approval):
        raise Conflict("The request's time is over.")


def _fault(approval: Approval) -> str:
    """Return what changed since a request was made, so that it can't be carried out any more, or nothing."""
    try:
        resolve = getattr(
            targets, "grantee" if approval.action == Action.CREATE_GRANT else approval.subject_kind
        )
        target = resolve(approval.subject_id, approval.parameters)
    except KeyServiceError:
        return "what it is about is no longer there"
    wish = Wish(Action(approval.action), target, approval.parameters)
    return approvals.drift(approval, wish, approvals.rule_for(wish.action, target))


def _open_or_approved(approval: Approval) -> None:
    if approval.state not in approvals.LIVE:
        raise Conflict(f"The request is closed: {ApprovalState(approval.state).label.lower()}.")


def _hand_over(approval: Approval) -> None:
    """Tell the worker; where the broker is away, the next sweep finds the request by itself."""
    queue.send(queue.EXECUTE_REQUESTS, [str(approval.id)])
