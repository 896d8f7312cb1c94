"""What the log's word rests on: checkpoints and who signed them, streams, archives, legal holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from audit import checkpoints, guard, merkle, streams
from audit.checkpoints import notes, vkeys
from audit.checkpoints.vkeys import VerifierKey
from audit.errors import AuditError
from audit.models import Archive, Checkpoint, Cursor, Entry, LegalHold
from audit.witness import policy
from keys import gate
from keys.actions import Action
from keys.callers import Caller
from keys.trail.reading import Proof, log_head

SHOWN = 20
_KINDS = {
    vkeys.ED25519: "Ed25519",
    vkeys.COSIGNATURE: "Ed25519, cosignature",
    vkeys.ECDSA_P384: "ECDSA P-384",
    vkeys.ML_DSA_87: "ML-DSA-87",
}


@dataclass(frozen=True, slots=True)
class SignedBy:
    """One signature of a checkpoint. `right` is None where its key is not known here."""

    name: str
    key_id: str
    kind: str
    witness: bool
    right: bool | None
    at: datetime | None
    key_of_log: bool = False  # whether the key is the log's own, not only the name


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint and who signed it."""

    checkpoint: Checkpoint
    by: list[SignedBy]

    @property
    def root(self) -> str:
        return bytes(self.checkpoint.root).hex()

    @property
    def own(self) -> list[SignedBy]:
        """The log's own signatures."""
        return [one for one in self.by if not one.witness]

    @property
    def vouched(self) -> bool:
        """Whether the log's own key signed it rightly, and none of its signatures is wrong."""
        mine = [one.right for one in self.by if one.key_of_log]
        return True in mine and False not in mine

    @property
    def wrong(self) -> bool:
        """Whether some signature is wrong, or no note can be read at all."""
        return not self.by or any(one.right is False for one in self.by)

    @property
    def witnesses(self) -> list[SignedBy]:
        return [one for one in self.by if one.witness]


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A verifier key to note elsewhere: `text` is the whole of it."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Trust:
    """All of it at a glance. `refused`: in a sentence, why the log takes no entries, or ""."""

    head: Proof
    refused: str
    newest: list[Signed]
    keys: list[KnownKey]
    policy: str  # the witness policy as text; "" where there is none
    witnesses: int
    places: list[str]
    troubles: list[str]
    streams: list[Cursor] = field(default_factory=list)
    archives: list[Archive] = field(default_factory=list)
    holds: list[LegalHold] = field(default_factory=list)


def trust(caller: Caller) -> Trust:
    """Return what the log's word rests on now. Raises Denied, LogUnavailable."""
    gate.read(caller, Action.READ_AUDIT)
    known = _known()
    rows = list(Checkpoint.objects.order_by("-id")[:SHOWN])
    text, witnesses = _policy()
    told = (checkpoints.trouble(), streams.trouble())
    return Trust(
        log_head(caller),
        guard.trouble(),
        [_signed(row, known) for row in rows],
        [KnownKey(key.name, _KINDS.get(key.kind, "other"), key.text()) for key in _own_keys()],
        text,
        len(witnesses),
        [_without_secrets(one) for one in settings.AUDIT_PUBLISH],
        [one for one in told if one],
        list(Cursor.objects.order_by("stream")),
        list(Archive.objects.order_by("-start")[:SHOWN]),
        list(LegalHold.objects.order_by("released_at", "-placed_at")[:100]),
    )


def covering(caller: Caller, index: int) -> tuple[Signed, Checkpoint] | None:
    """Return the newest checkpoint and the first one that cover an entry; None where none does yet."""
    gate.read(caller, Action.READ_AUDIT)
    newest = Checkpoint.objects.order_by("-size", "-id").first()
    if newest is None or newest.size <= index:
        return None
    first = Checkpoint.objects.filter(size__gt=index).order_by("size", "id").first()
    return _signed(newest, _known()), first or newest


def leaf_of(entry: Entry) -> bytes:
    """Return the leaf hash of an entry's own bytes, whatever the column beside them says."""
    return merkle.leaf_hash(bytes(entry.body))


def _signed(row: Checkpoint, known: Sequence[VerifierKey]) -> Signed:
    try:
        note, tree = notes.parse_checkpoint(row.note)
    except AuditError:
        return Signed(row, [])
    # What was signed is the note; the row must say the same.
    same = (tree.origin, tree.size, tree.root) == (row.origin, row.size, bytes(row.root))
    by_id = {(key.name, key.key_id): key for key in known}
    own = {(key.name, key.key_id) for key in _own_keys()}
    found = []
    for signature in note.signatures:
        which = (signature.name, signature.key_id)
        right, at = _checked(by_id.get(which), signature, note.body, same)
        kind = _KINDS.get(by_id[which].kind, "") if which in by_id else ""
        witness = which not in own and signature.name != row.origin
        found.append(SignedBy(
            signature.name, signature.key_id.hex(), kind, witness, right, at, which in own
        ))  # fmt: skip
    return Signed(row, found)


def _checked(
    key: VerifierKey | None, signature: notes.Signature, body: str, same: bool
) -> tuple[bool | None, datetime | None]:
    """Return whether a signature is right, None where its key isn't known, and when it was made."""
    if key is None:
        return None, None
    try:
        seconds = key.verify(body.encode(), signature.value)
    except AuditError:
        return False, None
    try:
        return same, datetime.fromtimestamp(seconds, UTC) if seconds else None
    except (ValueError, OverflowError, OSError):
        return same, None


def _known() -> list[VerifierKey]:
    return [*_own_keys(), *_policy()[1]]


def _own_keys() -> list[VerifierKey]:
    found, told = [], checkpoints.keys()
    for text in told:
        try:
            found.append(vkeys.parse_vkey(text))
        except AuditError:
            continue
    return found


def _policy() -> tuple[str, list[VerifierKey]]:
    """Return the witness policy as text, and its witnesses' keys."""
    if not settings.WITNESS_POLICY:
        return "", []
    path = Path(settings.WITNESS_POLICY)
    try:
        found = policy.load(path)
        return path.read_text(encoding="utf-8"), [one.key for one in found.witnesses.values()]
    except (AuditError, OSError):
        return "", []


def _without_secrets(url: str) -> str:
    """Return an address without user, password and query, which may hold what is nobody's business."""
    scheme, slashes, rest = url.partition("://")
    plain = rest.partition("?")[0].rpartition("@")[2]
    return f"{scheme}{slashes}{plain}"
