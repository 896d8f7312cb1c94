"""Bringing AWS KMS in line with what the console believes, and destroying what is to be destroyed.

Nothing is written that is as it should be already: repeating is cheap, and AWS's own log stays short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from keys.backends.aws import importing, plans, vocabulary
from keys.backends.aws.connection import moment
from keys.backends.aws.keyring import Keyring, Metadata
from keys.backends.aws.making import alias_of_key
from keys.backends.aws.plans import AwsState, Side
from keys.backends.aws.viewing import Viewer, state_of
from keys.backends.base import NoMaterial
from keys.backends.views import KeyView
from keys.errors import BackendError, StillWaiting, Unsupported
from keys.states import KeyState

EMPTY_TAG = "kms-console-material-removed"


class Aligner:
    def __init__(self, keyring: Keyring, viewer: Viewer) -> None:
        self._keyring = keyring
        self._viewer = viewer
        self._kms = keyring.connection.kms

    # --- conform

    def conform(self, wanted: KeyView) -> None:
        """Raises NoMaterial where nothing of the key is there."""
        sides = plans.planned(wanted, self._viewer.numbers(wanted), plans.utc_now())
        described = {side.arn: self._keyring.described(side.arn) for side in sides}
        keys = {arn: key for arn, key in described.items() if key is not None}
        if not keys:
            raise NoMaterial
        # A key without its material takes no change of state.
        standing = [
            (side, keys[side.arn])
            for side in sides
            if side.arn in keys and keys[side.arn].state != "PendingImport"
        ]
        period = plans.rotation_days(wanted, plans.key_state(sides))
        main = plans.primary_of(wanted, self._arns(wanted))
        for side, key in standing:
            self._open(side, key)
            self._write_tags(key, side, wanted.tags)
            if side.arn == main:
                self._set_period(key, side, period)
        if main in keys:
            self._point_alias(list(keys.values()), keys[main], sides)
        for side, key in standing:
            self._shut(side, key)

    def _arns(self, wanted: KeyView) -> Mapping[str, str]:
        return {view.handle: self._keyring.parsed(view.handle)[0] for view in wanted.versions}

    def _open(self, side: Side, key: Metadata) -> None:
        """Take back a deletion that is not wanted, or not so soon, and enable what should work."""
        is_now = state_of(key)
        if is_now is AwsState.GOING and not _same_deletion(side, key):
            self._kms("cancel_key_deletion", KeyId=key.key_id)
            is_now = AwsState.DISABLED
        if side.state is AwsState.ENABLED and is_now is AwsState.DISABLED:
            self._kms("enable_key", KeyId=key.key_id)

    def _shut(self, side: Side, key: Metadata) -> None:
        if side.state is AwsState.GOING:
            if not (key.going and _same_deletion(side, key)):
                self._schedule(key, side.destroy_at)
        elif side.state is AwsState.DISABLED and state_of(key) is AwsState.ENABLED:
            self._kms("disable_key", KeyId=key.key_id)

    def _schedule(self, key: Metadata, at: datetime | None) -> datetime:
        """Begin AWS's own window (ScheduleKeyDeletion). Returns the date that it gave."""
        least, most = vocabulary.WINDOW
        days = most if at is None else plans.window_days(at, plans.utc_now()) or most
        answer = self._kms(
            "schedule_key_deletion", KeyId=key.key_id, PendingWindowInDays=max(days, least)
        )
        return moment(answer.get("DeletionDate")) or plans.utc_now() + timedelta(days=days)

    def _write_tags(self, key: Metadata, side: Side, tags: Mapping[str, str]) -> None:
        if key.going and _same_deletion(side, key):
            return  # AWS lets no tag of such a key change
        have = self._keyring.tags(key.arn)
        rows = [
            {"TagKey": name, "TagValue": text}
            for name, text in sorted(tags.items())
            if have.get(name) != text
        ]
        if rows:
            self._kms("tag_resource", KeyId=key.arn, Tags=rows)

    def _set_period(self, key: Metadata, side: Side, period: int | None) -> None:
        shut_before = state_of(key) is not AwsState.ENABLED
        # A key that is disabled, before and after, takes no period; it is set when it works again.
        if not key.rotates or side.state is AwsState.GOING:
            return
        if shut_before and side.state is not AwsState.ENABLED:
            return
        if self._viewer.period(key) == period:
            return
        if period is None:
            self._kms("disable_key_rotation", KeyId=key.arn)
        else:
            self._kms("enable_key_rotation", KeyId=key.arn, RotationPeriodInDays=period)

    def _point_alias(self, keys: Sequence[Metadata], main: Metadata, sides: Sequence[Side]) -> None:
        """Have our alias of the key name the primary version's AWS key."""
        name = self._viewer.console_key(keys)
        if not name or plans.key_state(sides) is KeyState.PENDING_DESTRUCTION:
            return
        holder = self._viewer.alias_holder(keys)
        if holder is None:
            self._kms("create_alias", AliasName=alias_of_key(name), TargetKeyId=main.arn)
        elif holder.arn != main.arn:
            self._kms("update_alias", AliasName=alias_of_key(name), TargetKeyId=main.arn)

    # --- the end of material

    def destroy(self, arn: str, *, whole: bool) -> None:
        """Destroy an AWS key; `whole`: with all versions that it holds, else it must hold one only.

        Imported material goes at once, what AWS made when its window is over: StillWaiting till then.
        """
        key = self._keyring.described(arn)
        self._keyring.forget(arn)
        if key is None:
            return
        if key.going:
            self._still_going(key)
            return
        if not whole and self._keyring.rotated(key):
            raise alone()
        if not key.imported:
            raise _waiting(self._schedule(key, plans.utc_now()))
        importing.removed(self._keyring, key)
        # Said before the rest of it begins to wait: afterwards AWS doesn't tell whether it is empty.
        self._kms("tag_resource", KeyId=arn, Tags=[{"TagKey": EMPTY_TAG, "TagValue": "yes"}])
        self._schedule(key, plans.utc_now())

    def _still_going(self, key: Metadata) -> None:
        if key.imported and EMPTY_TAG in self._keyring.tags(key.arn):
            return
        if key.deletion_at is None:
            raise BackendError("AWS KMS is about to destroy the key, and does not say when.")
        raise _waiting(key.deletion_at)

    def remove(self, arn: str) -> None:
        """Remove imported material only, so that the same can come back."""
        key = self._keyring.described(arn)
        if key is None:
            return
        if not key.imported:
            raise Unsupported("Only imported material can be removed and brought again.")
        importing.removed(self._keyring, key)

    def enable(self, arn: str, *, on: bool) -> None:
        """Enable or disable an AWS key that holds one version; of several the console alone decides."""
        key = self._keyring.described(arn)
        if key is None:
            raise NoMaterial
        if self._keyring.rotated(key):
            return
        if on and state_of(key) is AwsState.DISABLED:
            self._kms("enable_key", KeyId=key.key_id)
        elif not on and state_of(key) is AwsState.ENABLED:
            self._kms("disable_key", KeyId=key.key_id)


def alone() -> Unsupported:
    return Unsupported(
        "AWS KMS keeps all rotations of a key together: one version can't be destroyed without the "
        "others. Destroy the whole key."
    )


def _waiting(until: datetime) -> StillWaiting:
    return StillWaiting(
        f"AWS KMS destroys the key on {until:%Y-%m-%d}; until then it can be cancelled there.",
        until=until,
    )


def _same_deletion(side: Side, key: Metadata) -> bool:
    """Whether a key that is going goes when it should, as far as AWS's whole days tell."""
    if side.state is not AwsState.GOING:
        return False
    if side.destroy_at is None or key.deletion_at is None:
        return True
    # Where less than its least window was left when it was asked, AWS's date is later and stays.
    least = timedelta(days=vocabulary.WINDOW[0])
    latest = max(side.destroy_at, plans.utc_now() + least) + plans.SAME_DATE
    return side.destroy_at - plans.SAME_DATE <= key.deletion_at <= latest
