"""Changing things: resolve, decide, approve, then change and record in one transaction.

A change is written once, as a plain function of an admitted `Change`. Calling the result is what
the button, the API, the command and the scheduler all do. Its keyword arguments are plain JSON
values: they are what officers vote on, and with them the worker calls the same function later.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from django.db import DatabaseError, DataError, IntegrityError, transaction

from audit import writer
from audit.errors import AuditError, LogRolledBack
from audit.events import Outcome, Subject
from keys import approvals, clock, diffs, moves, names, policy, snapshot
from keys.actions import Action, Quorum
from keys.approvals import Wish
from keys.callers import Caller
from keys.errors import (
    Busy,
    Conflict,
    Invalid,
    KeyServiceError,
    LogUnavailable,
    NotFound,
    PendingApproval,
    Unavailable,
)
from keys.gate import asked, record
from keys.gate.uses import not_there, refusal
from keys.models import Approval
from keys.models.approval import ApprovalState
from keys.policy import QuorumRule, Standing
from keys.targets import Resolver, Target

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

# How often a change is decided again because something it rests on changed meanwhile.
TRIES = 8
OFFICERS = "officers"


class _Rehearsed(Exception):
    """Ends a rehearsal, so that its transaction is rolled back."""


class _Moved(Exception):
    """What a change was decided on is no longer so: decide again."""


@dataclass(slots=True)
class Change(Generic[S]):
    """An admitted change: what its function works with."""

    caller: Caller
    action: Action
    target: Target[S]
    standing: Standing
    now: datetime
    reason: str = ""
    approval: Approval | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    # What the entry says, where it is not what was decided on: jobs speak of the key and its action.
    about: Subject | None = None
    record_as: Action | None = None
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""
    cited: list[str] = field(default_factory=list)
    then: Callable[[], Any] | None = None
    besides: list[Callable[[], object]] = field(default_factory=list)
    resting: set[str] = field(default_factory=set)

    @property
    def row(self) -> S:
        return self.target.row

    def rests_on(self) -> set[str]:
        """Return the subjects whose change makes this to be decided again."""
        subjects = {
            f"principal:{self.caller.principal_id}",
            f"{self.target.kind}:{self.target.id}",
        }
        if self.target.classification is not None:
            subjects.add(f"classification:{self.target.classification.id}")
        if self.approval is not None or self.action.row.quorum is Quorum.HOUSE:
            subjects.add(OFFICERS)
        return subjects | self.resting

    def rest_on(self, kind: str, identity: object) -> None:
        """Name a subject more whose change makes this to be decided again."""
        self.resting.add(f"{kind}:{identity}")

    def told(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the facts of an entry: what was asked, why, and what the change itself adds."""
        facts = asked.facts(arguments) if self.about is None else {}
        if self.reason:
            facts["reason"] = self.reason
        return facts | self.facts

    def touch(self, kind: str, identity: object) -> None:
        """Name a subject that this changes: uses that rest on it are decided again."""
        self.touched.add(f"{kind}:{identity}")

    def touch_officers(self) -> None:
        """Say that who the officers are has changed: votes that were counted are counted again."""
        self.touched.add(OFFICERS)

    def after(self, step: Callable[[], Any]) -> None:
        """Do this once the change is committed; what it returns is what the caller gets."""
        self.then = step

    def also(self, step: Callable[[], object]) -> None:
        """Do this too once the change is committed; how it ends is not the caller's concern."""
        self.besides.append(step)


class Changer(Generic[S, P, R]):
    """A change behind the gate; call it with a caller, a reference, and the change's own arguments."""

    def __init__(
        self,
        action: Action | Callable[[dict[str, Any]], Action],
        resolve: Resolver[S],
        body: Callable[Concatenate[Change[S], P], R],
        prepare: Callable[[Change[S], dict[str, Any]], None] | None = None,
    ) -> None:
        self._action, self._resolve, self._body, self._prepare = action, resolve, body, prepare
        self._signature = inspect.signature(body)
        update_wrapper(self, body)

    def __call__(
        self, caller: Caller, reference: str = "", /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Do the change and return its result once it and its entry are committed together.

        Raises PendingApproval where officers must agree first, and the other errors of keys.errors;
        whatever is raised has left an entry, LogUnavailable excepted.
        """
        try:
            for _ in range(TRIES):
                with suppress(_Moved):
                    return self._attempt(caller, reference, kwargs)
            self._give_up(caller, reference, kwargs)
            raise Busy("What this rests on is changing too quickly; try again.")
        except IntegrityError:
            raise Conflict(
                "Something changed meanwhile, or the name is taken; look again."
            ) from None
        except DatabaseError:
            raise Unavailable("The database can't be reached now.") from None
        except KeyServiceError as error:
            error.recorded = True
            raise

    def _attempt(self, caller: Caller, reference: str, kwargs: dict[str, Any]) -> R:
        arguments = self._arguments(caller, reference, kwargs)
        action = self._action_of(arguments)
        epoch = writer.epoch()
        standing, _ = snapshot.load_standing(caller.principal_id, caller.credential_id)
        change = self._admit(caller, standing, action, reference, arguments)
        rule = approvals.rule_for(action, change.target)
        # A request in hand is used up or closed even where the policy asks for no votes any more.
        if rule is not None or caller.approval_id is not None:
            self._approve(change, rule, arguments)
        result = self._carry_out(change, arguments, epoch)
        for step in change.besides:
            try:
                step()
            except (DatabaseError, KeyServiceError) as error:
                # The change itself stands; its job is in the database.
                logger.warning(
                    "What follows a change waits for the sweep: %s", type(error).__name__
                )
        return cast(R, change.then()) if change.then is not None else result

    def _give_up(self, caller: Caller, reference: str, kwargs: dict[str, Any]) -> None:
        """Leave the entry of a change that was decided again too often, and was not made."""
        action, subject = self._action_of(kwargs), self._missed(reference)
        record.wait(record.event(caller, action, subject, Outcome.FAILED, reason=Busy.code))

    def _action_of(self, arguments: dict[str, Any]) -> Action:
        return self._action if isinstance(self._action, Action) else self._action(arguments)

    def _arguments(self, caller: Caller, reference: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            bound = self._signature.bind(None, **kwargs)
        except TypeError as error:
            action, subject = self._action_of(kwargs), self._missed(reference)
            record.wait(record.event(caller, action, subject, Outcome.FAILED, reason=Invalid.code))
            raise Invalid(f"Wrong parameters: {error}.") from None
        bound.apply_defaults()
        return dict(list(bound.arguments.items())[1:])

    def _missed(self, reference: str) -> Subject:
        """Return the subject of an entry about something that nobody looked for, or found."""
        kind = self._resolve.__name__.replace("grantee", "principal")
        return Subject(kind, record.printable(reference))

    def _admit(
        self,
        caller: Caller,
        standing: Standing | None,
        action: Action,
        reference: str,
        arguments: dict[str, Any],
    ) -> Change[S]:
        """Resolve and decide. A refusal leaves its entry here."""
        try:
            target = self._resolve(reference, arguments)
        except NotFound as missing:
            subject = self._missed(reference)
            error, reason = not_there(caller, standing, action, subject, missing)
            record.wait(record.event(caller, action, subject, Outcome.DENIED, reason=reason))
            raise error from None
        now = clock.now()
        decision = policy.decide(
            caller,
            standing,
            action,
            now=now,
            key_id=target.key.id if target.key else None,
            classification_id=target.classification.id if target.classification else None,
        )
        if not decision.allowed or standing is None:
            event = record.event(
                caller,
                action,
                target.subject(asked.number(arguments)),
                Outcome.DENIED,
                reason=decision.reason,
            )
            record.wait(event)
            raise refusal(decision, missing=False)
        change = Change(caller, action, target, standing, now)
        with self._failing(change, arguments):
            change.reason = names.prose(arguments.get("reason") or "", "reason")
            asked.check_plain(arguments)
            if self._prepare is not None:
                self._prepare(change, arguments)
        return change

    def _approve(
        self, change: Change[S], rule: QuorumRule | None, arguments: dict[str, Any]
    ) -> None:
        """Find the votes that allow this, or open a request and raise PendingApproval."""
        wish = Wish(change.action, change.target, asked.votable(arguments))
        with self._failing(change, arguments):
            change.approval = approvals.in_hand(change.caller, wish)
            if change.approval is None:
                self._rehearse(change, arguments)
        if change.approval is not None:
            self._verify(change, wish, rule, arguments)
            return
        assert rule is not None  # without one there is a request in hand
        with self._failing(change, arguments), transaction.atomic():
            request = approvals.open_request(change.caller, wish, rule, change.reason)
            event = record.event(
                change.caller,
                change.action,
                change.target.subject(asked.number(arguments)),
                Outcome.PENDING,
                reason="pending_approval",
                facts=change.told(arguments) | approvals.facts(request),
                approvals=[request.id],
            )
            record.in_transaction(event, [])
        detail = f"This needs {rule.m} of the officers to agree; the request is {request.id}."
        raise PendingApproval(
            " ".join(filter(None, [detail, approvals.shortage(rule)])), approval=str(request.id)
        )

    def _verify(
        self, change: Change[S], wish: Wish, rule: QuorumRule | None, arguments: dict[str, Any]
    ) -> None:
        """Check an approved request once more. One that no longer holds is closed, with an entry."""
        approval = cast(Approval, change.approval)
        with self._failing(change, arguments):
            if approval.state != ApprovalState.APPROVED:
                raise Conflict(
                    f"The request is not approved: {ApprovalState(approval.state).label.lower()}."
                )
        fault = approvals.votes_fault(approval) or approvals.drift(approval, wish, rule)
        end = ApprovalState.VOID if fault else ApprovalState.EXPIRED
        if not fault and not approvals.expired(approval):
            return
        fault = fault or "its time is over"
        with self._failing(change, arguments), transaction.atomic():
            approvals.close(approval, end, fault)
            event = record.event(
                change.caller,
                change.action,
                change.target.subject(asked.number(arguments)),
                Outcome.DENIED,
                reason="approval_" + end.value,
                facts={"fault": fault},
                approvals=[approval.id],
            )
            record.in_transaction(event, [])
        raise Conflict(f"The votes no longer hold: {fault}. Ask again.", approval=str(approval.id))

    def _rehearse(self, change: Change[S], arguments: dict[str, Any]) -> None:
        """Try the change and take it back: what can't be done is not put to a vote.

        Changes have no effect outside the database before they are committed, so this is safe.
        """
        trial = Change(
            change.caller, change.action, change.target, change.standing, change.now, change.reason
        )
        with suppress(_Rehearsed), transaction.atomic():
            self._body(trial, **arguments)  # type: ignore[call-arg]
            raise _Rehearsed
        with suppress(AttributeError):
            change.target.row.refresh_from_db()  # type: ignore[attr-defined]

    def _carry_out(self, change: Change[S], arguments: dict[str, Any], epoch: int) -> R:
        """Change and record in one transaction. Raises _Moved where the decision has to be made again."""
        with (
            self._failing(change, arguments),
            diffs.collected() as changed,
            moves.collected() as moved,
            transaction.atomic(durable=True),
        ):
            if change.approval is not None:
                approvals.close(change.approval, ApprovalState.EXECUTED)
                change.cited.append(str(change.approval.id))
            result = self._body(change, **arguments)  # type: ignore[call-arg]
            facts = change.told(arguments) | ({"diffs": changed} if changed else {})
            if moved:
                facts["states"] = moved
            event = record.event(
                change.caller,
                change.record_as or change.action,
                change.about or change.target.subject(asked.number(arguments)),
                change.outcome,
                reason=change.why,
                facts=facts,
                approvals=change.cited,
            )
            # Whoever took the caller's role, or the policy, away meanwhile has committed first.
            changed_since = writer.news(epoch)
            if changed_since is None or changed_since & change.rests_on():
                raise _Moved
            record.in_transaction(event, change.touched)
        return result

    def _failing(self, change: Change[S], arguments: dict[str, Any]) -> _Failing:
        return _Failing(change, arguments)


@dataclass(slots=True)
class _Failing:
    """Leave an entry for whatever goes wrong in the block, after its transaction was rolled back."""

    change: Change[Any]
    arguments: dict[str, Any]

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, raised: BaseException | None, traceback: object) -> None:
        error = raised
        if error is None or isinstance(error, _Rehearsed | _Moved):
            return
        if isinstance(error, AuditError):
            why = f" {error}" if isinstance(error, LogRolledBack) else ""
            raise LogUnavailable(
                "The audit log can't be written now; nothing was changed." + why
            ) from None
        if isinstance(error, IntegrityError):
            error = Conflict("Something changed meanwhile, or the name is taken; look again.")
        elif isinstance(error, DataError):
            error = Invalid("A value is too long, or out of range.")
        elif isinstance(error, DatabaseError):
            return
        outcome, reason = record.failure(error)
        change = self.change
        subject = change.about or change.target.subject(asked.number(self.arguments))
        record.wait(
            record.event(
                change.caller,
                change.record_as or change.action,
                subject,
                outcome,
                reason=reason,
                facts=asked.facts(self.arguments),
                approvals=[change.approval.id] if change.approval else [],
            )
        )
        if error is not raised:
            raise error from None


def change(
    action: Action | Callable[[dict[str, Any]], Action],
    on: Resolver[S],
    prepare: Callable[[Change[S], dict[str, Any]], None] | None = None,
) -> Callable[[Callable[Concatenate[Change[S], P], R]], Changer[S, P, R]]:
    """Put a function of an admitted `Change` behind the gate.

    `on` finds what it is about; `prepare` fills in arguments that officers vote on.
    """

    def behind_the_gate(body: Callable[Concatenate[Change[S], P], R]) -> Changer[S, P, R]:
        return Changer(action, on, body, prepare)

    return behind_the_gate
