"""Making versions: new keys, rotations on demand, and finding again what an earlier try left.

A new key carries its labels as tags from the moment it is there (CreateKey); an alias with the
version's label follows, which finds it in one call and decides between two that race. A rotation is
announced by a tag before it is asked for, so that a crash in between is seen: the number of
rotations that AWS lists says whether it was carried out.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from keys.algorithms import KeySpec, Usage
from keys.backends import materials
from keys.backends.aws import vocabulary
from keys.backends.aws.connection import member, members
from keys.backends.aws.failures import Denied, code_of, translated
from keys.backends.aws.keyring import (
    CHECK_TAG,
    KEY_TAG,
    USAGE_TAG,
    VERSION_TAG,
    Keyring,
    Metadata,
    handle_of,
    metadata_of,
)
from keys.backends.base import Material, NoMaterial, Parent
from keys.errors import (
    BackendError,
    BackendUnavailable,
    Conflict,
    KeyServiceError,
    StateForbids,
    StillWaiting,
    Throttled,
    Unsupported,
)

# Not every region has every kind of key (CreateKey: KeySpec).
_NO_SUCH_SPEC = ("ValidationException", "UnsupportedOperationException")
ROTATION_LOOKS, ROTATION_PAUSE = 20, 0.5  # a rotation on demand takes a few seconds


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made: `check` is the check value of material that will be imported.

    `first`: nothing of the console's key is there yet.
    """

    label: uuid.UUID
    spec: KeySpec
    usage: Usage
    key: uuid.UUID
    first: bool
    check: str = ""

    @property
    def tags(self) -> dict[str, str]:
        tags = {KEY_TAG: str(self.key), VERSION_TAG: str(self.label)}
        if self.usage is Usage.WRAP_UNWRAP:
            tags[USAGE_TAG] = self.usage.value
        if self.check:
            tags[CHECK_TAG] = self.check
        return tags


def alias_of_key(key: str) -> str:
    return f"alias/kms-console-{key}"


def alias_of_version(label: uuid.UUID) -> str:
    return f"alias/kms-console-version-{label}"


def rotation_tag(number: int) -> str:
    return f"{VERSION_TAG}-{number}"


class Maker:
    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._kms = keyring.connection.kms
        # One rotation of a key at a time here; between processes the jobs see to it.
        self._rotating = tuple(threading.Lock() for _ in range(64))

    # --- finding

    def found(self, label: uuid.UUID, parent: Parent | None) -> Material | None:
        """Return what is complete under a label, or None."""
        rotation = self._rotation(label, parent)
        if rotation is not None:
            key, number, done = rotation
            return Material(handle_of(key.arn, number), "") if done and not key.going else None
        own = self.own_key(label)
        if own is None or own.going or own.state == "PendingImport":
            return None
        with shown_late():
            return self.described(own)

    def described(self, key: Metadata) -> Material:
        """Return the first material of a key; a pair has been checked to be of the key's spec."""
        public = self._keyring.public_key(key)
        if public is not None:
            materials.load_public_key(public, key.row)
            return Material(
                handle_of(key.arn, 0), materials.check_value_of_public_key(public), public
            )
        check = self._keyring.tags(key.arn).get(CHECK_TAG, "") if key.imported else ""
        return Material(handle_of(key.arn, 0), check)

    def own_key(self, label: uuid.UUID) -> Metadata | None:
        """Return the key that was made for a version, by its alias or else by its tags.

        It may be about to be destroyed; such a one is found by its alias only. An alias alone is no
        proof, for anybody at AWS may point it at any key: the key must say so itself, by the tag
        that it was made with.
        """
        key = self._keyring.described(alias_of_version(label))
        if key is not None and self._made_for(key, label):
            return key
        there = [self._keyring.described(arn) for arn in self._tagged(label)]
        standing = [one for one in there if one is not None and not one.going]
        # Two can be there where two processes raced and one died. All take the same one.
        return min(standing, key=lambda one: one.key_id, default=None)

    def _made_for(self, key: Metadata, label: uuid.UUID) -> bool:
        return self._keyring.tags(key.arn).get(VERSION_TAG) == str(label)

    def _tagged(self, label: uuid.UUID) -> list[str]:
        try:
            return list(self._resources(label))
        except Throttled:
            raise
        except KeyServiceError:
            # No permission, or no way there from behind a VPC endpoint: look at every key instead.
            return self._searched(label)

    def _resources(self, label: uuid.UUID) -> Iterator[str]:
        token = ""
        while True:
            # A page may be empty, and not the last.
            answer = self._keyring.connection.tagging(
                "get_resources",
                TagFilters=[{"Key": VERSION_TAG, "Values": [str(label)]}],
                ResourceTypeFilters=["kms:key"],
                **({"PaginationToken": token} if token else {}),
            )
            for row in members(answer, "ResourceTagMappingList"):
                arn = member(row, "ResourceARN", str)
                if ":key/" in arn:
                    yield arn
            before, token = token, str(answer.get("PaginationToken") or "")
            if not token:
                return
            if token == before:
                raise BackendError("AWS gives the same page again and again.")

    def _searched(self, label: uuid.UUID) -> list[str]:
        found, marker = [], ""
        while True:
            arns, marker = self._keyring.listed(marker)
            for arn in arns:
                # A key that isn't ours may not be readable, or gone by now, and is not it. Whatever
                # else goes wrong must not pass for "there is none": another would be made.
                with contextlib.suppress(Denied, NoMaterial):
                    if self._keyring.tags(arn).get(VERSION_TAG) == str(label):
                        found.append(arn)
            if not marker:
                return found

    def _rotation(
        self, label: uuid.UUID, parent: Parent | None
    ) -> tuple[Metadata, int, bool] | None:
        """Return the rotation that was announced for a label: key, number, and whether it is done."""
        if parent is None or not parent.newest:
            return None
        arn, _ = self._keyring.parsed(parent.newest)
        key = self._keyring.described(arn)
        if key is None or not key.rotates:
            return None
        for name, value in self._keyring.tags(arn).items():
            number = name.removeprefix(f"{VERSION_TAG}-")
            if value == str(label) and name != VERSION_TAG and number.isdecimal():
                return key, int(number), self._keyring.rotated(key) >= int(number)
        return None

    # --- making

    def generated(self, wanted: Wanted, parent: Parent | None) -> Material:
        """Return the material under a label, made where it isn't there."""
        with shown_late():
            return self._generated(wanted, parent)

    def _generated(self, wanted: Wanted, parent: Parent | None) -> Material:
        there = self.own_key(wanted.label)
        if there is not None:
            self.check_same(there, wanted)
            if there.state == "PendingImport":
                raise Conflict("Material is to be imported under this label.")
            # Where another call was quicker, it is the other's key that is named, and given.
            return self.described(self._name(there, wanted, fresh=False))
        if parent is not None and parent.newest:
            with self._rotating[hash(parent.newest) % len(self._rotating)]:
                rotated = self._rotate(wanted, parent)
            if rotated is not None:
                return rotated
        return self.described(self.created(wanted, "AWS_KMS"))

    def check_same(self, key: Metadata, wanted: Wanted) -> None:
        """Raise Conflict where a key under a label is another one than is wanted, or soon none."""
        if key.going:
            raise Conflict("The key under this label is about to be destroyed.")
        tags = self._keyring.tags(key.arn)
        usage = vocabulary.usage_of(key.aws_usage, tags.get(USAGE_TAG, ""))
        if (key.spec, usage) != (wanted.spec.name, wanted.usage):
            raise Conflict(f"There is {key.aws_spec} material under this label already.")
        if wanted.check and tags.get(CHECK_TAG) != wanted.check:
            raise Conflict("There is other material under this label already.")

    def created(self, wanted: Wanted, origin: str) -> Metadata:
        """Create a key (CreateKey) and its aliases; where another process was first, return its key."""
        try:
            answer = self._keyring.connection.raw_kms(
                "create_key",
                KeySpec=vocabulary.aws_spec(wanted.spec),
                KeyUsage=vocabulary.aws_usage(wanted.usage),
                Origin=origin,
                Description=f"Made by the KMS console for key {wanted.key}.",
                Tags=[{"TagKey": name, "TagValue": value} for name, value in wanted.tags.items()],
            )
        except ClientError as error:
            if code_of(error) in _NO_SUCH_SPEC:
                raise Unsupported(
                    f"AWS KMS makes no {wanted.spec.label} keys for this in this region."
                ) from None
            raise translated(error) from None
        key = metadata_of(member(answer, "KeyMetadata", dict))
        return self._name(key, wanted)

    def _name(self, key: Metadata, wanted: Wanted, *, fresh: bool = True) -> Metadata:
        """Give a key its aliases, where it hasn't got them. Returns the key that has the version's.

        Raises Conflict where that alias is on a key that was not made for the version.
        """
        alias = alias_of_version(wanted.label)
        first = self._named(alias, key)
        if first.arn != key.arn:
            if not self._made_for(first, wanted.label):
                raise foreign(alias)
            if fresh:
                # Nothing can have been encrypted with it: it was made just now, and nobody was told.
                self._kms("schedule_key_deletion", KeyId=key.key_id, PendingWindowInDays=7)
            return first
        # Later ones get the key's alias when their version becomes the primary one (conform).
        if wanted.first:
            self._named(alias_of_key(str(wanted.key)), key)
        return key

    def _named(self, alias: str, key: Metadata) -> Metadata:
        try:
            self._kms("create_alias", AliasName=alias, TargetKeyId=key.arn)
        except Conflict:
            holder = self._keyring.described(alias)
            if holder is None:
                raise BackendUnavailable("AWS KMS shows an alias and does not.") from None
            return holder
        return key

    # --- rotating

    def _rotate(self, wanted: Wanted, parent: Parent) -> Material | None:
        """Rotate the newest key in place; None where a new key has to be made instead."""
        arn, newest = self._keyring.parsed(parent.newest)
        key = self._keyring.described(arn)
        if key is None or not key.rotates or key.going or key.spec != wanted.spec.name:
            return None
        if key.state != "Enabled":
            raise StateForbids("AWS KMS rotates a key only while it is enabled there.")
        done = self._keyring.rotated(key)
        number = self._announce(wanted, parent, arn, newest, done)
        if number > done:
            if done >= vocabulary.ROTATIONS_LIMIT or not self._started(arn):
                self._kms("untag_resource", KeyId=arn, TagKeys=[rotation_tag(number)])
                return None
            self._wait(key, number)
        return Material(handle_of(arn, number), "")

    def _announce(self, wanted: Wanted, parent: Parent, arn: str, newest: int, done: int) -> int:
        """Return the rotation that is to be this version's, after a tag of the key says so."""
        announced = self._rotation(wanted.label, parent)
        if announced is not None:
            return announced[1]
        number = max(done, newest) + 1
        names = [name.removeprefix(f"{VERSION_TAG}-") for name in self._keyring.tags(arn)]
        if done > newest and str(done) not in names:
            # Somebody rotated it at AWS: once more would use up one of 25 for nothing.
            number = done
        tag = {"TagKey": rotation_tag(number), "TagValue": str(wanted.label)}
        self._kms("tag_resource", KeyId=arn, Tags=[tag])
        return number

    def _started(self, arn: str) -> bool:
        """Start a rotation where none is under way; False where the key can't be rotated any more."""
        status = self._kms("get_key_rotation_status", KeyId=arn)
        if status.get("OnDemandRotationStartDate"):
            return True
        try:
            self._keyring.connection.raw_kms("rotate_key_on_demand", KeyId=arn)
        except ClientError as error:
            if code_of(error) == "LimitExceededException":
                return False
            failure = translated(error)
            if isinstance(failure, Unsupported):
                return False
            raise failure from None
        return True

    def _wait(self, key: Metadata, number: int) -> None:
        for _ in range(ROTATION_LOOKS):
            if self._keyring.rotated(key) >= number:
                return
            time.sleep(ROTATION_PAUSE)
        raise StillWaiting(
            "AWS KMS is still rotating the key; its end is looked for again.",
            until=datetime.now(UTC) + timedelta(seconds=ROTATION_LOOKS * ROTATION_PAUSE),
        )


@contextlib.contextmanager
def shown_late() -> Iterator[None]:
    """Around calls about a key that is known to be there: AWS KMS is eventually consistent.

    Raises BackendUnavailable where it doesn't show the key yet.
    """
    try:
        yield
    except NoMaterial:
        raise BackendUnavailable("AWS KMS does not show a key yet that it has made.") from None


def foreign(alias: str) -> Conflict:
    return Conflict(
        f"At AWS {alias} names a key that is none of this one's versions. It stays as it is; point "
        "it elsewhere or delete it there."
    )


def same_check(material: Material, check: str) -> None:
    """Raise BackendError where what AWS shows isn't what was brought."""
    if material.check_value != check:
        raise BackendError("AWS KMS shows other material than was imported.")
