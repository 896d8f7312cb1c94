"""Bringing AWS KMS in line with what the console believes.

Nothing is written that is as it should be already: repeating is cheap, and AWS's own log stays short.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from keys.backends.aws import importing, plans, vocabulary
from keys.backends.aws.ending import Ender
from keys.backends.aws.keyring import Keyring, Metadata
from keys.backends.aws.making import alias_of_key, foreign
from keys.backends.aws.plans import AwsState, Side
from keys.backends.aws.viewing import Viewer, state_of
from keys.backends.base import NoMaterial
from keys.backends.views import KeyView
from keys.errors import Conflict, Unsupported
from keys.states import KeyState


class Aligner:
    def __init__(self, keyring: Keyring, viewer: Viewer, ender: Ender) -> None:
        self._keyring = keyring
        self._ender = ender
        self._viewer = viewer
        self._kms = keyring.connection.kms

    # --- conform

    def conform(self, wanted: KeyView) -> None:
        """Bring all of it in line that can be.

        Raises NoMaterial where nothing of the key is there; Unsupported where an AWS key that is to
        go holds versions that the console doesn't know, Conflict where its alias names another key.
        """
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
        refused = self._refused(standing)
        if refused and wanted.state is KeyState.PENDING_DESTRUCTION:
            raise next(iter(refused.values()))  # no part of it goes before all of it may
        standing = [(side, key) for side, key in standing if side.arn not in refused]
        self._follow(wanted, sides, standing, keys)
        if refused:
            raise next(iter(refused.values()))

    def _refused(self, standing: Sequence[tuple[Side, Metadata]]) -> dict[str, Unsupported]:
        """Return the AWS keys that can't go as it is wanted, for what they hold beside it."""
        refused: dict[str, Unsupported] = {}
        for side, key in standing:
            if side.state is AwsState.GOING and not (key.going and _same_deletion(side, key)):
                try:
                    self._ender.check_known(key, [number for number, _ in side.versions])
                except Unsupported as error:
                    refused[side.arn] = error
        return refused

    def _follow(
        self,
        wanted: KeyView,
        sides: Sequence[Side],
        standing: Sequence[tuple[Side, Metadata]],
        keys: Mapping[str, Metadata],
    ) -> None:
        period = plans.rotation_days(wanted, plans.key_state(sides))
        main, taken = plans.primary_of(wanted, self._arns(wanted)), None
        for side, key in standing:
            self._open(side, key)
            self._write_tags(key, side, wanted.tags)
            if side.arn == main:
                self._set_period(key, side, period)
        if main in keys:
            taken = self._point_alias(list(keys.values()), keys[main], sides)
        for side, key in standing:
            self._shut(side, key)
        if taken is not None:
            raise taken

    def _arns(self, wanted: KeyView) -> Mapping[str, str]:
        return {view.handle: self._keyring.parsed(view.handle)[0] for view in wanted.versions}

    def _open(self, side: Side, key: Metadata) -> None:
        """Take back a deletion that is not wanted, or not so soon, and enable what should work."""
        is_now = state_of(key)
        if is_now is AwsState.GOING and not _same_deletion(side, key):
            self._kms("cancel_key_deletion", KeyId=key.key_id)
            if key.imported:
                importing.not_empty(self._keyring, key)
            is_now = AwsState.DISABLED
        if side.state is AwsState.ENABLED and is_now is AwsState.DISABLED:
            self._kms("enable_key", KeyId=key.key_id)

    def _shut(self, side: Side, key: Metadata) -> None:
        if side.state is AwsState.GOING:
            if not (key.going and _same_deletion(side, key)):
                if key.imported:
                    importing.not_empty(self._keyring, key)
                self._ender.schedule(key, side.destroy_at)
        elif side.state is AwsState.DISABLED and state_of(key) is AwsState.ENABLED:
            self._kms("disable_key", KeyId=key.key_id)

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

    def _point_alias(
        self, keys: Sequence[Metadata], main: Metadata, sides: Sequence[Side]
    ) -> Conflict | None:
        """Have our alias of the key name the primary version's AWS key.

        Returns what to raise where it names a key that is none of this one's, and stays so.
        """
        name = self._viewer.console_key(keys)
        if not name or plans.key_state(sides) is KeyState.PENDING_DESTRUCTION:
            return None
        alias = alias_of_key(name)
        holder = self._keyring.described(alias)
        if holder is None:
            self._kms("create_alias", AliasName=alias, TargetKeyId=main.arn)
        elif not self._viewer.of_key(holder, keys):
            return foreign(alias)
        elif holder.arn != main.arn:
            self._kms("update_alias", AliasName=alias, TargetKeyId=main.arn)
        return None

    # --- one version

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
