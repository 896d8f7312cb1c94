"""The end of material at AWS KMS, which deletes whole keys with all versions that they hold.

So nothing is scheduled for deletion before it is sure what the key holds: a version that the console
doesn't know, or doesn't mean, would go with the others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from keys.backends.aws import importing, plans, vocabulary
from keys.backends.aws.connection import moment
from keys.backends.aws.keyring import EMPTY_TAG, Keyring, Metadata
from keys.errors import BackendError, BackendUnavailable, StillWaiting, Unsupported


class Ender:
    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._kms = keyring.connection.kms

    def destroy(self, arn: str, number: int) -> None:
        """Destroy a version that has its AWS key for itself. Raises Unsupported where it hasn't.

        Imported material goes at once, what AWS made when its window is over: StillWaiting till then.
        """
        key = self._keyring.described(arn)
        if key is None:
            return
        # A number tells of earlier ones without asking: the list of rotations can be an old one.
        if number or self._keyring.rotated(key):
            raise alone()
        self._end(key)

    def destroy_all(self, versions: Sequence[tuple[str, int]]) -> None:
        """Destroy AWS keys with all that they hold, given as ARN and number of each version.

        Raises Unsupported, and does nothing, where one of them holds a version that isn't given;
        StillWaiting until the last of them is gone.
        """
        held: dict[str, list[int]] = {}
        for arn, number in versions:
            held.setdefault(arn, []).append(number)
        keys: list[Metadata] = []
        for arn, numbers in held.items():
            key = self._keyring.described(arn)
            if key is not None:
                self.check_known(key, numbers)
                keys.append(key)
        waits: list[StillWaiting] = []
        for key in keys:
            try:
                self._end(key)
            except StillWaiting as waiting:
                waits.append(waiting)
        if waits:
            raise max(waits, key=lambda one: one.until or plans.utc_now())

    def check_known(self, key: Metadata, numbers: Collection[int]) -> None:
        """Raise Unsupported where an AWS key holds other versions than these."""
        rotated = self._keyring.rotated(key)
        if max(numbers, default=0) > rotated:
            raise BackendUnavailable("AWS KMS does not list all rotations of the key yet.")
        unknown = [number for number in range(rotated + 1) if number not in numbers]
        if unknown:
            raise Unsupported(
                f"The AWS key {key.key_id} holds versions that are not to be destroyed with it, or "
                f"that the console does not know: those since rotation {_listed(unknown)}. Decide on "
                "them first; AWS KMS destroys them only together."
            )

    def schedule(self, key: Metadata, at: datetime | None) -> datetime:
        """Begin AWS's own window (ScheduleKeyDeletion). Returns the date that it gave."""
        least, most = vocabulary.WINDOW
        days = most if at is None else plans.window_days(at, plans.utc_now()) or most
        answer = self._kms(
            "schedule_key_deletion", KeyId=key.key_id, PendingWindowInDays=max(days, least)
        )
        return moment(answer.get("DeletionDate")) or plans.utc_now() + timedelta(days=days)

    def remove(self, arn: str, number: int) -> None:
        """Remove imported material only, so that the same can come back."""
        key = self._keyring.described(arn)
        if key is None:
            return
        if not key.imported:
            raise Unsupported("Only imported material can be removed and brought again.")
        importing.removed(self._keyring, key, number)

    def _end(self, key: Metadata) -> None:
        self._keyring.forget(key.arn)
        if key.going:
            self._still_going(key)
            return
        if not key.imported:
            raise _waiting(self.schedule(key, plans.utc_now()))
        importing.emptied(self._keyring, key)
        # Said before the rest of it begins to wait: afterwards AWS doesn't tell whether it is empty.
        self._kms("tag_resource", KeyId=key.arn, Tags=[{"TagKey": EMPTY_TAG, "TagValue": "yes"}])
        self.schedule(key, plans.utc_now())

    def _still_going(self, key: Metadata) -> None:
        if key.imported and EMPTY_TAG in self._keyring.tags(key.arn):
            return
        if key.deletion_at is None:
            raise BackendError("AWS KMS is about to destroy the key, and does not say when.")
        raise _waiting(key.deletion_at)


def alone() -> Unsupported:
    return Unsupported(
        "AWS KMS keeps all rotations of a key together: one version can't be destroyed without the "
        "others. Destroy the whole key."
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers[:5]) + (", …" if numbers[5:] else "")


def _waiting(until: datetime) -> StillWaiting:
    return StillWaiting(
        f"AWS KMS destroys the key on {until:%Y-%m-%d}; until then it can be cancelled there.",
        until=until,
    )
