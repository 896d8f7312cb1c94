"""Keys as AWS KMS shows them now: listed, looked at, compared with what the console believes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from keys.algorithms import SPECS
from keys.backends.aws import plans, vocabulary
from keys.backends.aws.failures import Denied
from keys.backends.aws.keyring import KEY_TAG, OURS, USAGE_TAG, Keyring, Metadata
from keys.backends.aws.making import alias_of_key
from keys.backends.aws.plans import AwsState, Side
from keys.backends.views import KeyView, Page, VersionView
from keys.errors import Unsupported
from keys.states import KeyState, VersionState

Rotations = Sequence[tuple[datetime | None, bool]]

PAGE = 25  # keys of one answer of ours; each takes up to five calls
_STATES = {"Enabled": AwsState.ENABLED, "Creating": AwsState.ENABLED, "Updating": AwsState.ENABLED}


def state_of(key: Metadata) -> AwsState:
    if key.going:
        return AwsState.GOING
    return _STATES.get(key.state, AwsState.DISABLED)


class Viewer:
    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    # --- one key of AWS by itself: discovery

    def page(self, cursor: str, limit: int) -> Page:
        """Return a page of all keys, by id within each answer of ListKeys.

        A cursor is the last id that was given, and the marker of ListKeys that it came from.
        """
        after, _, marker = cursor.partition("|")
        arns, following = self._keyring.listed(marker)
        total = len(arns) if not marker and not following else None
        waiting = sorted(arn for arn in arns if not after or arn > after)
        count = max(1, min(limit, PAGE))
        views = tuple(view for arn in waiting[:count] if (view := self._listed(arn)) is not None)
        if len(waiting) > count:
            return Page(views, f"{waiting[count - 1]}|{marker}", total)
        return Page(views, f"|{following}" if following else "", total)

    def _listed(self, arn: str) -> KeyView | None:
        try:
            return self.one(arn)
        except Denied:
            # That is no reason to show none of the others.
            return _closed(arn, "Its policy does not let the console look at it.")
        except Unsupported:
            return _closed(arn, "AWS KMS does not tell how often it was rotated.")

    def one(self, arn: str, *, public_keys: bool = False) -> KeyView | None:
        """Return one AWS key as a key with the versions it holds; None where it isn't there."""
        key = self._keyring.described(arn)
        if key is None:
            return None
        return self._view(key, [key], key.arn, public_keys=public_keys)

    # --- a key of the console: the AWS keys that its handles name

    def numbers(self, wanted: KeyView) -> dict[str, list[tuple[int, VersionView]]]:
        """Return the wanted versions by the AWS key that holds them, in order."""
        held: dict[str, list[tuple[int, VersionView]]] = {}
        for view in wanted.versions:
            arn, number = self._keyring.parsed(view.handle)
            held.setdefault(arn, []).append((number, view))
        return held

    def observed(self, wanted: KeyView) -> KeyView | None:
        """Return what is there of a key of the console, and what its alias names beside it."""
        found = [self._keyring.described(arn) for arn in self.numbers(wanted)]
        keys = [key for key in found if key is not None]
        if not keys:
            return None
        name = self.console_key(keys)
        holder = self._keyring.described(alias_of_key(name)) if name else None
        if holder is None:
            # Without an alias of ours nothing of it was rotated to another AWS key yet.
            return self._view(keys[0], keys, keys[0].arn, public_keys=True)
        if not self.of_key(holder, keys):
            # Somebody pointed it at a key that isn't this one's: it has no primary version then.
            arns = {view.handle: self._keyring.parsed(view.handle)[0] for view in wanted.versions}
            main = keys_first(keys, plans.primary_of(wanted, arns))
            return self._view(main, keys, "", public_keys=True)
        if holder.arn not in {key.arn for key in keys}:
            keys.append(holder)
        return self._view(holder, keys, holder.arn, public_keys=True)

    def of_key(self, holder: Metadata, keys: Sequence[Metadata]) -> bool:
        """Whether the AWS key that an alias names is one of these, or was made for the same key.

        An alias alone is no proof: anybody at AWS may point it at any key.
        """
        if holder.arn in {key.arn for key in keys}:
            return True
        try:
            return self._keyring.tags(holder.arn).get(KEY_TAG) == self.console_key(keys)
        except Denied:
            return False

    def console_key(self, keys: Sequence[Metadata]) -> str:
        """Return the id of the console's key that AWS keys were made for, by their tags.

        The newest says it: an older one can have been adopted, with the tag of another key.
        """
        for key in reversed(keys):
            if name := self._keyring.tags(key.arn).get(KEY_TAG, ""):
                return name
        return ""

    def expressed(self, wanted: KeyView) -> KeyView:
        """Return what observed() would say if AWS were in line. Reaches for nothing."""
        numbers = self.numbers(wanted)
        sides = plans.planned(wanted, numbers, plans.utc_now())
        arns = {view.handle: self._keyring.parsed(view.handle)[0] for view in wanted.versions}
        primary = plans.primary_of(wanted, arns)
        state = plans.key_state(sides) if sides else wanted.state
        return replace(
            wanted,
            reference=primary,
            state=state,
            versions=plans.versions(sides, primary),
            rotation_days=plans.rotation_days(wanted, state),
            destroy_at=plans.destroy_at(sides) if sides else wanted.destroy_at,
        )

    # --- how a view is put together

    def _view(
        self, main: Metadata, keys: Sequence[Metadata], primary: str, *, public_keys: bool
    ) -> KeyView:
        tags = {} if main.by_aws else self._keyring.tags(main.arn)
        usage = vocabulary.usage_of(main.aws_usage, tags.get(USAGE_TAG, ""))
        offered = vocabulary.OFFERS.get(main.spec, ())
        names = SPECS[main.spec].algorithms_for(usage, offered) if main.spec and usage else ()
        rotations = {key.arn: self._keyring.rotations(key) for key in keys}
        sides = [self._side(key, rotations[key.arn], public_keys=public_keys) for key in keys]
        standing = [side for side in sides if side.versions]
        return KeyView(
            reference=main.arn,
            name=self._name(main),
            state=plans.key_state(standing) if standing else KeyState.PENDING_IMPORT,
            versions=plans.versions(standing, primary),
            spec=main.spec,
            usage=usage.value if usage and names else "",
            algorithm=names[0] if names else "",
            imported=main.imported,
            provider_managed=main.by_aws,
            rotation_days=self._rotation_days(main),
            destroy_at=plans.destroy_at(standing) if standing else None,
            tags={name: text for name, text in tags.items() if not name.startswith(OURS)},
            facts=_facts(main, rotations[main.arn]),
            problem=_problem(main, bool(names)),
        )

    def _side(self, key: Metadata, rotations: Rotations, *, public_keys: bool) -> Side:
        if key.state == "PendingImport":
            return Side(key.arn, AwsState.DISABLED, ())
        made: list[datetime | None] = [key.created_at]
        made += [at for at, asked in rotations if asked]
        public = self._keyring.public_key(key) if public_keys else None
        views = tuple(
            (number, VersionView("", VersionState.ACTIVE, public_key=public, created_at=at))
            for number, at in enumerate(made)
        )
        return Side(key.arn, state_of(key), views, key.deletion_at if key.going else None)

    def _name(self, key: Metadata) -> str:
        names = [alias.removeprefix("alias/") for alias in self._keyring.aliases(key.arn)]
        # Somebody's own name says more than ours.
        names.sort(key=lambda name: (name.startswith(f"{OURS}-"), "-version-" in name, name))
        return names[0] if names else key.key_id

    def _rotation_days(self, key: Metadata) -> int | None:
        if key.by_aws or not key.rotates or key.going:
            return None
        return self.period(key)

    def period(self, key: Metadata) -> int | None:
        """Return the days between AWS's own rotations, None where they are off."""
        try:
            status = self._keyring.connection.kms("get_key_rotation_status", KeyId=key.arn)
        except Unsupported:
            return None
        if not status.get("KeyRotationEnabled"):
            return None
        days = status.get("RotationPeriodInDays")
        return days if isinstance(days, int) else vocabulary.DEFAULT_ROTATION_DAYS


def _closed(arn: str, problem: str) -> KeyView:
    name = arn.rpartition("/")[2]
    return KeyView(reference=arn, name=name, state=KeyState.ENABLED, problem=problem)


def _facts(key: Metadata, rotations: Rotations) -> Mapping[str, str]:
    facts = {"state at AWS": key.state, "origin": key.origin}
    if key.rotates or rotations:
        asked = sum(one for _, one in rotations)
        facts["rotations_used"] = str(asked)
        facts["rotations_limit"] = str(vocabulary.ROTATIONS_LIMIT)
        if len(rotations) > asked:
            facts["rotations by AWS itself"] = str(len(rotations) - asked)
    if key.region_role:
        facts["multi-Region"] = key.region_role.lower()
    return facts


def keys_first(keys: Sequence[Metadata], arn: str) -> Metadata:
    return next((key for key in keys if key.arn == arn), keys[0])


def _problem(key: Metadata, known: bool) -> str:
    if not known:
        return f"The console knows no keys of the kind {key.aws_spec} for {key.aws_usage}."
    if key.state == "PendingImport":
        return "It waits for its key material to be imported."
    if key.state == "Unavailable":
        return "Its custom key store is not connected."
    return ""
