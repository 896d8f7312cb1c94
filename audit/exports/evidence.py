"""The evidence ZIP: entries, proofs, checkpoint and verifier, for one who trusts nobody here.

    README.txt  keys.txt  policy.txt  verify.py  checkpoint  consistency.jsonl  entries.jsonl
    proofs.jsonl  personal.jsonl  manifest.json

Policy and proofs only where there are some: whoever has all entries computes the root from them.
"""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from django.conf import settings

from audit import checkpoints, merkle
from audit.exports import opening, readme, zipped
from audit.exports.errors import NoCheckpoint, Outdated
from audit.exports.lines import Lines, Piece
from audit.exports.rows import rows
from audit.models import Checkpoint, Export
from audit.proofs import Prover
from audit.search import Filters
from audit.witness import policy

FORMAT = "kms-console-evidence/1"
EARLIER = 1000  # checkpoints of before that are proved to be its beginning
NODES = 65_536  # inner hashes that stay in memory while proofs are made
VALUES = 100_000  # commitments that are remembered as told; beyond, some are told twice
PROOFS = 1000  # in one piece
_VERIFIER = Path(__file__).parent.parent / "evidence" / "verify.py"


def program() -> bytes:
    """Return the stand-alone verifier, as it is shipped."""
    return _VERIFIER.read_bytes()


def plan(size: int, using: str = "default") -> dict[str, Any]:
    """Return what the evidence of the log's first `size` entries rests on, for the export's row.

    Raises NoCheckpoint where no checkpoint is of that size.
    """
    row = Checkpoint.objects.using(using).filter(size=size).order_by("-id").first()
    if row is None:
        raise NoCheckpoint(f"There is no checkpoint of {size} entries.")
    return {
        "checkpoint": row.pk,
        "keys": checkpoints.keys(),
        "policy": _policy(),
        "program": hashlib.sha256(program()).hexdigest(),
    }


def _policy() -> str:
    if not settings.WITNESS_POLICY:
        return ""
    path = Path(settings.WITNESS_POLICY)
    policy.load(path)  # raises NoteError: evidence with a policy that nobody can read is none
    return path.read_text(encoding="utf-8")


class Member(NamedTuple):
    """A file of the ZIP. `make(state, entries)` yields its bytes from a piece's state on."""

    name: str
    make: Callable[[Any, int], Iterator[Piece]]


@dataclass(slots=True)
class _Place:
    """Where in the ZIP we are; its JSON is the state that pieces carry."""

    at: int = 0
    member: int = 0
    begun: bool = False
    inner: Any = None
    size: int = 0
    crc: int = 0
    offset: int = 0
    ended: bool = False
    done: list[list[int]] = field(default_factory=list)  # crc, size, offset

    def add(self, data: bytes) -> None:
        """Count some of the member's own bytes."""
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)
        self.at += len(data)

    def piece(self, data: bytes, entries: int, *, resumable: bool = True) -> Piece:
        return Piece(data, entries, msgspec.to_builtins(self) if resumable else None)


class Evidence:
    """The ZIP of one export."""

    def __init__(self, row: Export, filters: Filters | None, using: str = "default") -> None:
        self._row, self._filters, self._using = row, filters, using
        self._plan: dict[str, Any] = row.marks
        self._checkpoint = Checkpoint.objects.using(using).get(pk=self._plan["checkpoint"])
        self._whole = filters is None and self._plan["first"] == 0
        self._members = list(self._listed())

    def pieces(self, state: Any, entries: int) -> Iterator[Piece]:
        """Yield the bytes from a piece's state on, or from the beginning (None)."""
        place = _Place() if state is None else msgspec.convert(state, _Place)
        while place.member < len(self._members):
            name, make = self._members[place.member]
            if not place.begun:
                header = zipped.local_header(name)
                place.offset, place.begun, place.inner = place.at, True, None
                place.size = place.crc = 0
                place.at += len(header)
                yield place.piece(header, entries)
            for made in make(place.inner, entries):
                place.add(made.data)
                place.inner, entries = made.state, made.entries
                yield place.piece(made.data, entries, resumable=made.state is not None)
            tail = zipped.descriptor(place.crc, place.size)
            place.done.append([place.crc, place.size, place.offset])
            place.at += len(tail)
            place.member, place.begun = place.member + 1, False
            yield place.piece(tail, entries)
        if not place.ended:
            names = [member.name for member in self._members]
            done = [zipped.Member(n, *one) for n, one in zip(names, place.done, strict=True)]
            place.ended = True
            yield place.piece(zipped.directory(done, place.at), entries)

    def _listed(self) -> Iterator[Member]:
        yield _small("README.txt", lambda _: readme.text(self._whole).encode())
        yield _small("keys.txt", lambda _: "".join(f"{k}\n" for k in self._plan["keys"]).encode())
        if self._plan["policy"]:
            yield _small("policy.txt", lambda _: self._plan["policy"].encode())
        yield _small("verify.py", lambda _: self._verifier())
        yield _small("checkpoint", lambda _: self._checkpoint.note.encode())
        yield _small("consistency.jsonl", lambda _: self._consistency())
        lines = Lines("jsonl", self._filters, self._plan["first"], self._row.size, self._using)
        yield Member("entries.jsonl", lines.pieces)
        if not self._whole:
            yield Member("proofs.jsonl", self._proofs)
        yield Member("personal.jsonl", self._personal)
        yield _small("manifest.json", self._manifest)

    def _verifier(self) -> bytes:
        """Return the verifier. Raises Outdated where it isn't that of the beginning any more."""
        found = program()
        if hashlib.sha256(found).hexdigest() != self._plan["program"]:
            raise Outdated("The console was upgraded since this export was made.")
        return found

    def _consistency(self) -> bytes:
        """Return, a line each, that earlier checkpoints' logs are this one's beginning."""
        size, prover = self._checkpoint.size, Prover(self._checkpoint.size, self._using)
        earlier = Checkpoint.objects.using(self._using).filter(
            pk__lt=self._checkpoint.pk, size__gt=0, size__lt=size
        )
        found: dict[int, str] = {}
        for first, note in earlier.order_by("-id").values_list("size", "note")[: 10 * EARLIER]:
            found.setdefault(first, note)
            if len(found) == EARLIER:
                break
        return b"".join(
            _line({"size": n, "note": note, "hashes": _base64(prover.consistency(n))})
            for n, note in found.items()
        )

    def _proofs(self, state: Any, entries: int) -> Iterator[Piece]:
        """Yield a line for each entry: that it stands in the checkpoint's tree."""
        after = self._plan["first"] - 1 if state is None else int(state)
        size, node = self._checkpoint.size, _Nodes(Prover(self._checkpoint.size, self._using))
        for found in rows(self._filters, after, self._row.size, self._using):
            for at in range(0, len(found.indices), PROOFS):
                some = found.indices[at : at + PROOFS]
                lines = [
                    _line({"index": i, "hashes": _base64(merkle.inclusion_proof(i, size, node))})
                    for i in some
                ]
                yield Piece(b"".join(lines), entries, some[-1])

    def _personal(self, state: Any, entries: int) -> Iterator[Piece]:
        """Yield a line for each value that entries commit to and that was not erased."""
        told: OrderedDict[str, None] = OrderedDict()
        for found in rows(self._filters, self._plan["first"] - 1, self._row.size, self._using):
            fresh = opening.commitments(found.lines) - told.keys()
            lines = []
            known = opening.look_up(fresh, self._using)
            for text in sorted(known):
                _, value, salt = known[text]
                if value is not None and salt is not None:
                    opened = {"commitment": text, "salt": b64encode(salt).decode(), "value": value}
                    lines.append(_line(opened))
            told.update(dict.fromkeys(sorted(fresh)))
            while len(told) > VALUES:
                told.popitem(last=False)
            yield Piece(b"".join(lines), entries, None)

    def _manifest(self, entries: int) -> bytes:
        return _line(
            {
                "format": FORMAT,
                "origin": self._checkpoint.origin,
                "size": self._checkpoint.size,
                "entries": entries,
                "whole": self._whole,
                "filters": self._row.filters,
                "made_at": self._row.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            }
        )


class _Nodes:
    """A prover's inner hashes, kept for the next proofs, which share most of them."""

    def __init__(self, prover: Prover) -> None:
        self._prover = prover
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()

    def __call__(self, start: int, end: int) -> bytes:
        at = (start, end)
        found = self._kept.get(at)
        if found is None:
            found = self._kept[at] = self._prover.range_hash(start, end)
            if len(self._kept) > NODES:
                self._kept.popitem(last=False)
        return found


def _small(name: str, make: Callable[[int], bytes]) -> Member:
    """Return a member that is made in one piece; `make` is given the number of entries so far."""

    def pieces(state: Any, entries: int) -> Iterator[Piece]:
        if state is None:
            yield Piece(make(entries), entries, 1)

    return Member(name, pieces)


def _line(told: dict[str, Any]) -> bytes:
    return msgspec.json.encode(told) + b"\n"


def _base64(hashes: list[bytes]) -> list[str]:
    return [b64encode(one).decode() for one in hashes]
