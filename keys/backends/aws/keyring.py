"""The keys of AWS KMS as this store reads them: handles, metadata, tags, rotations, public keys.

A handle is `<key arn>#<n>`: the material that the key has had since its n-th rotation on demand. What
never changes of a key is kept for as long as the process lives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from keys.algorithms import SPECS, Algorithm, KeySpec, Usage
from keys.backends import materials
from keys.backends.aws import vocabulary
from keys.backends.aws.connection import Connection, member, members, moment
from keys.backends.aws.failures import NoSuchAction
from keys.backends.base import NoMaterial
from keys.errors import BackendError, Unsupported

KEY_TAG = "kms-console-key"
VERSION_TAG = "kms-console-version"
CHECK_TAG = "kms-console-check"
EMPTY_TAG = "kms-console-material-removed"
USAGE_TAG = "kms-console-usage"
OURS = "kms-console"  # what tags of ours, and aliases after alias/, begin with

_HANDLE = re.compile(
    r"(arn:aws[a-z-]{0,20}:kms:([a-z0-9-]{1,60}):[0-9a-z]{1,20}:key/[A-Za-z0-9-]{1,64})#([0-9]{1,9})"
)


@dataclass(frozen=True, slots=True)
class Metadata:
    """One key as DescribeKey tells it; `spec` and `usage` in the console's words, if it has any."""

    arn: str
    key_id: str
    state: str
    aws_spec: str
    spec: str
    aws_usage: str
    origin: str
    created_at: datetime | None
    deletion_at: datetime | None
    by_aws: bool
    region_role: str = ""  # PRIMARY or REPLICA of a multi-Region key

    @property
    def imported(self) -> bool:
        return self.origin == "EXTERNAL"

    @property
    def rotates(self) -> bool:
        """Whether it can be rotated in place (RotateKeyOnDemand), with material made by AWS."""
        made = self.aws_spec == vocabulary.SYMMETRIC and self.origin == "AWS_KMS"
        return made and not self.by_aws and self.region_role != "REPLICA"

    @property
    def holds_several(self) -> bool:
        """Whether it can have had several materials: a replica has its primary's, and an imported
        secret can be rotated by who brings more. No pair, HMAC or custom key store's key can be.
        """
        own = self.origin in ("AWS_KMS", "EXTERNAL")
        return self.aws_spec == vocabulary.SYMMETRIC and own and not self.by_aws

    @property
    def going(self) -> bool:
        return self.state in ("PendingDeletion", "PendingReplicaDeletion")

    @property
    def row(self) -> KeySpec:
        """Its spec's row. Raises Unsupported where the console has none."""
        if not self.spec:
            raise Unsupported(f"The console knows no keys of the kind {self.aws_spec}.")
        return SPECS[self.spec]


@dataclass(frozen=True, slots=True)
class Usable:
    """What a use needs to know of a key, and what never changes of it."""

    spec: KeySpec
    usage: Usage
    public_key: bytes | None

    def algorithm(self, name: str, *purposes: Usage) -> Algorithm:
        """Return an algorithm that this key offers for one of these purposes. Raises Unsupported."""
        row = materials.algorithm_for(vocabulary.OFFERS, self.spec, name)
        if self.usage not in purposes or self.usage not in row.usages:
            raise Unsupported(f"This key is for {self.usage}, and so not for {name} here.")
        return row


class Keyring:
    """Reads keys, and keeps what never changes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._usable: dict[str, Usable] = {}
        self._rotations: dict[str, int] = {}

    def parsed(self, handle: str) -> tuple[str, int]:
        """Return ARN and number of a handle. Raises NoMaterial for what is none of this region."""
        found = _HANDLE.fullmatch(handle)
        if found is None or found[2] != self.connection.configuration.region:
            raise NoMaterial
        return found[1], int(found[3])

    def described(self, name: str) -> Metadata | None:
        """Return a key by ARN, id or alias as it is now (DescribeKey), or None where there is none."""
        try:
            answer = self.connection.kms("describe_key", KeyId=name)
        except NoMaterial:
            return None
        return metadata_of(member(answer, "KeyMetadata", dict))

    def tags(self, arn: str) -> dict[str, str]:
        """Return all tags of a key (ListResourceTags)."""
        rows = self._all("list_resource_tags", "Tags", KeyId=arn)
        return {str(row.get("TagKey", "")): str(row.get("TagValue", "")) for row in rows}

    def aliases(self, arn: str) -> list[str]:
        """Return the names of a key's aliases, in order (ListAliases)."""
        rows = self._all("list_aliases", "Aliases", KeyId=arn)
        return sorted(str(row.get("AliasName", "")) for row in rows)

    def rotations(self, key: Metadata) -> list[tuple[datetime | None, bool]]:
        """Return a key's rotations, oldest first (ListKeyRotations): when, and whether on demand."""
        if not key.holds_several:
            return []
        try:
            rows = list(self._all("list_key_rotations", "Rotations", KeyId=key.arn))
        except NoSuchAction:
            return []  # a server that has no such action makes no such rotations
        rows = [row for row in rows if not _waits(row)]
        found = [(row.get("RotationDate"), row.get("RotationType") == "ON_DEMAND") for row in rows]
        dated = [(moment(at), asked) for at, asked in found]
        dated.sort(key=lambda row: row[0].timestamp() if row[0] else 0.0)
        asked = sum(asked for _, asked in dated)
        self._rotations[key.arn] = max(asked, self._rotations.get(key.arn, 0))
        return dated

    def rotated(self, key: Metadata) -> int:
        """Return how often a key was rotated on demand: what was seen once stays so.

        AWS KMS is eventually consistent: a list can be older than one that was given before.
        """
        asked = sum(asked for _, asked in self.rotations(key))
        return max(asked, self._rotations.get(key.arn, 0))

    def imports(self, key: Metadata) -> list[tuple[str, bool]] | None:
        """Return the materials that were imported: id, and whether it is there now.

        In the order of the handles' numbers, then those that no rotation took up yet. None where
        a key can have one only, which has no id.
        """
        if not (key.holds_several and key.imported):
            return None
        every = {"KeyId": key.arn, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"}
        try:
            rows = list(self._all("list_key_rotations", "Rotations", **every))
        except NoSuchAction:
            return None
        rows.sort(key=_in_order)
        return [
            (member(row, "KeyMaterialId", str), row.get("ImportState") != "PENDING_IMPORT")
            for row in rows
        ]

    def usable(self, handle: str) -> tuple[str, Usable]:
        """Return a handle's ARN and what a use needs. Raises NoMaterial, Unsupported."""
        arn, number = self.parsed(handle)
        found = self._usable.get(arn)
        if found is None or number > self._rotations.get(arn, 0):
            key = self.described(arn)
            if key is None or (number and number > self.rotated(key)):
                raise NoMaterial
            if found is None:
                found = self._usable[arn] = self._read(key)
        return arn, found

    def _read(self, key: Metadata) -> Usable:
        tagged = ""
        if key.row.asymmetric and key.aws_usage == "ENCRYPT_DECRYPT":
            tagged = self.tags(key.arn).get(USAGE_TAG, "")
        usage = vocabulary.usage_of(key.aws_usage, tagged)
        if usage is None:
            raise Unsupported(f"The console knows no keys for {key.aws_usage}.")
        return Usable(key.row, usage, self.public_key(key))

    def public_key(self, key: Metadata) -> bytes | None:
        """Return DER SubjectPublicKeyInfo of a pair (GetPublicKey), None of a secret."""
        known = self._usable.get(key.arn)
        if known is not None:
            return known.public_key
        if not key.spec or not SPECS[key.spec].asymmetric:
            return None
        answer = self.connection.kms("get_public_key", KeyId=key.arn)
        return bytes(member(answer, "PublicKey", bytes))

    def forget(self, arn: str) -> None:
        """Forget what a use needs; how often it was rotated only ever grows."""
        self._usable.pop(arn, None)

    def listed(self, marker: str = "") -> tuple[list[str], str]:
        """Return the ARNs of one answer of ListKeys, and the marker of the next, "" at the end."""
        more = {"Marker": marker} if marker else {}
        answer = self.connection.kms("list_keys", Limit=1000, **more)
        rows = members(answer, "Keys")
        arns = [member(row, "KeyArn", str) for row in rows]
        return arns, _next(answer)

    def _all(self, action: str, what: str, **parameters: str) -> Iterator[Mapping[str, object]]:
        marker = ""
        while True:
            more = {"Marker": marker} if marker else {}
            answer = self.connection.kms(action, **parameters, **more)
            yield from members(answer, what)
            before, marker = marker, _next(answer)
            if not marker:
                return
            if marker == before:
                raise BackendError("AWS KMS gives the same page again and again.")


def _waits(row: Mapping[str, object]) -> bool:
    """Whether a row of ListKeyRotations is of material that no rotation took up yet."""
    return str(row.get("KeyMaterialState", "")).startswith("PENDING")


def _in_order(row: Mapping[str, object]) -> tuple[bool, float]:
    at = moment(row.get("RotationDate"))
    return _waits(row), at.timestamp() if at else 0.0


def _next(answer: Mapping[str, object]) -> str:
    marker = answer.get("NextMarker")
    return marker if answer.get("Truncated") and isinstance(marker, str) else ""


def metadata_of(row: Mapping[str, object]) -> Metadata:
    """Return KeyMetadata as a value. Raises BackendError where it lacks what a key must have."""
    role = ""
    regions = row.get("MultiRegionConfiguration")
    if row.get("MultiRegion") and isinstance(regions, dict):
        role = str(regions.get("MultiRegionKeyType", ""))
    aws_spec = str(row.get("KeySpec") or row.get("CustomerMasterKeySpec") or "")
    return Metadata(
        arn=member(row, "Arn", str),
        key_id=member(row, "KeyId", str),
        state=member(row, "KeyState", str),
        aws_spec=aws_spec,
        spec=vocabulary.spec_of(aws_spec),
        aws_usage=str(row.get("KeyUsage") or ""),
        origin=str(row.get("Origin") or ""),
        created_at=moment(row.get("CreationDate")),
        deletion_at=moment(row.get("DeletionDate")),
        by_aws=row.get("KeyManager") == "AWS",
        region_role=role,
    )


def handle_of(arn: str, number: int) -> str:
    return f"{arn}#{number}"
