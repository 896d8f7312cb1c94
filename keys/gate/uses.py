"""What is admitted to use a key, and how admission is decided: on values in memory, never on the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import Error as DatabaseError

from audit.events import Subject
from keys import clock, counters, lifecycle, names, policy, snapshot, stores, targets
from keys.actions import Action
from keys.algorithms import Usage
from keys.backends.base import Backend
from keys.callers import Caller
from keys.errors import (
    Denied,
    Invalid,
    KeyServiceError,
    NotFound,
    StateForbids,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from keys.gate import record
from keys.gate.pools import Offload, Place, is_slow
from keys.policy import Standing
from keys.snapshot import KeyFacts, VersionFacts
from keys.states import Direction


@dataclass(slots=True)
class Use:
    """An admitted use: what the operation works with."""

    caller: Caller
    action: Action
    key: KeyFacts | None
    context: Mapping[str, str]
    now: datetime
    place: Place
    standing: Standing | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    number: int | None = None
    # What a batch's leaf commits to, set by the operation: what leaves or came in, never a secret.
    evidence: bytes = b""
    # Other keys that this use works with, each admitted under an action of its own.
    others: dict[tuple[str, Action], Use] = field(default_factory=dict)

    @property
    def on_loop(self) -> bool:
        """Whether this try may wait for nothing, not even for the database."""
        return self.place.on_loop

    def version(
        self, number: int | None = None, direction: Direction | None = None
    ) -> VersionFacts:
        """Return the version this use works with: the primary, or the one named.

        `direction` where it is not the action's own. Raises NotFound where there is no such version,
        StateForbids where its state does not allow this use.
        """
        key, way = self._key(), direction or self.action.row.direction
        assert way is not None
        found = key.primary if number is None else key.versions.get(number)
        if found is None:
            if number is None:
                raise StateForbids(
                    "The key has no active version; rotate it or wait for its creation."
                )
            raise NotFound(f"The key has no version {number}.")
        self.number = found.number
        self.check(found, way, suspended_processes=key.suspended_processes)
        return found

    def check(self, version: VersionFacts, way: Direction, *, suspended_processes: bool) -> None:
        """Raise StateForbids, saying why, where the key's or the version's state forbids a use that way."""
        lifecycle.check_use(
            key_state=self._key().state,
            version_state=version.state,
            condition=version.condition,
            direction=way,
            primary=version.primary,
            suspended_processes=suspended_processes,
            protect_until=version.protect_until,
            process_until=version.process_until,
            material_until=version.material_until,
            now=self.now,
        )

    def at_leisure(self) -> None:
        """Say that what follows takes seconds. Raises Offload where that has to be elsewhere."""
        self.place.take_long()

    def count(self, version: VersionFacts, algorithm: str) -> None:
        """Count a message that is about to be protected. Raises StateForbids where none is left."""
        try:
            counters.take(version.id, algorithm, wait=not self.on_loop)
        except counters.Empty:
            raise Offload from None

    def also(self, reference: str, action: Action, context: Mapping[str, str]) -> Use:
        """Admit the caller to one more key, for another action; both keys' entries tell of it.

        Raises as the gate itself does for the first key.
        """
        if not isinstance(reference, str):
            raise Invalid("A key is named by text: its id or its alias.", field="to")
        other = self.others.get((reference, action))
        if other is None:
            try:
                key = snapshot.key(reference, load=not self.on_loop)
            except DatabaseError:
                raise Unavailable("The database can't be reached now.") from None
            other = Use(self.caller, action, key, context, self.now, self.place, self.standing)
            self.others[reference, action] = other
        other.context = context
        admit(other, reference)
        return other

    def another(self, context: Mapping[str, str]) -> Use:
        """Return a use by the same caller of the same key, decided on at the same moment."""
        return Use(self.caller, self.action, self.key, context, self.now, self.place, self.standing)

    def backend(self, version: VersionFacts | None = None) -> Backend:
        """Return the key's store, to be asked for `version` where one is given.

        Raises Unavailable where it is switched off, Offload where it has to be waited for elsewhere,
        Busy where too many wait for it.
        """
        store, place = self._key().store, self.place
        if version is not None and store.enabled and (place.loading or is_slow(store)):
            # Before there is a backend: making one may read files, load a library, or hang.
            place.ask(store)
        backend = stores.backend(store)
        if version is not None and place.on_loop and not backend.inline(version.handle):
            place.ask(store)
        return backend

    def told(self) -> dict[str, Any]:
        """Return the facts of the entry. Of the context only the names: its values may be about a person."""
        if not self.context:
            return self.facts
        named = sorted(record.printable(str(name)) for name in self.context)[:32]
        return self.facts | {"context": named}

    def rests_on(self) -> frozenset[str]:
        """Return the subjects whose change makes this use to be decided again."""
        own = (f"principal:{names.text_of(self.caller.principal_id)}",)
        subjects = frozenset(own + self.key.subjects if self.key else own)
        if self.others:
            subjects = subjects.union(*(other.rests_on() for other in self.others.values()))
        return subjects

    def _key(self) -> KeyFacts:
        assert self.key is not None
        return self.key


class Refused(Exception):
    """The decision was no. `reason` is the decision's own code, which the error may hide from the caller."""

    def __init__(self, error: KeyServiceError, reason: str) -> None:
        super().__init__(reason)
        self.error, self.reason = error, reason


def admit(use: Use, reference: str, by_context: bool = False) -> policy.Decision:
    """Ask for the decision. Raises Refused, and Unsupported for a key of another purpose.

    `by_context`: a decision that only a context decides is left open, for each item to ask.
    """
    key = use.key
    decision = policy.decide(
        use.caller,
        use.standing,
        use.action,
        now=use.now,
        key_id=key.id if key else None,
        classification_id=key.classification_id if key else None,
        context=use.context,
    )
    missing = bool(reference) and key is None
    left_open = by_context and decision.conditional
    if missing or not (decision.allowed or left_open):
        error = refusal(decision, missing)
        raise Refused(
            error, "not_found" if missing and isinstance(error, NotFound) else decision.reason
        )
    if decision.grant:
        use.facts["grant"] = names.text_of(decision.grant)
    _check_usage(use)
    return decision


def refusal(decision: policy.Decision, missing: bool) -> KeyServiceError:
    """Return the error of a refusal: who may not know of the subject learns nothing of it."""
    if decision.reason.startswith(policy.DEAD):
        # What the caller proved itself with is no longer good: as if it had proved nothing.
        return Unauthenticated(decision.detail)
    if missing or not decision.visible:
        return NotFound(targets.NO_KEY)
    return Denied(decision.detail)


def not_there(
    caller: Caller, standing: Standing | None, action: Action, subject: Subject, error: NotFound
) -> tuple[KeyServiceError, str]:
    """Return error and reason for what isn't there: the same words as if it were, for who may not know."""
    decision = policy.decide(caller, standing, action, now=clock.now())
    refused = refusal(decision, missing=False)
    if decision.allowed or (subject.kind == "key" and isinstance(refused, Denied)):
        return error, "not_found"
    return refused, decision.reason


def _check_usage(use: Use) -> None:
    wanted = use.action.row.usage
    if use.key is None or wanted is None or use.key.usage == wanted:
        return
    raise Unsupported(
        f"This key is for another purpose: {Usage(use.key.usage).label.lower()}.",
        usage=use.key.usage,
    )


def subject_of(use: Use, reference: str) -> Subject:
    if use.key is not None:
        return use.key.told(use.number)
    if reference:
        return Subject("key", record.printable(reference))
    return Subject("house", "house")
