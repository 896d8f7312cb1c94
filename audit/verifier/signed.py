"""Do the log's own checkpoints, and those that others kept, fit the entries? Who signed them?"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from django.db import connections
from django.db.models import QuerySet

from audit import checkpoints, entries, guard, memories
from audit.evidence import verify as rules
from audit.merkle import Frontier
from audit.models import Checkpoint, Entry
from audit.store import read_head
from audit.verifier.report import Findings
from audit.verifier.rows import as_bytes

PAGE = 500
# Witnesses sign a little later than the log: so many of the newest checkpoints are looked at.
RECENT = 1000
# What the witnesses may be behind: of entries, and of time (seconds, by the entries' own).
UNWITNESSED = 100_000
UNWITNESSED_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Point:
    """A root that the log had at a size, as `name` says; `text` is the note where there is one."""

    size: int
    name: str
    root: bytes
    text: str = ""


class _Row:
    """Points in the order of their sizes, and the next of them."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._points = iter(points)
        self.next = next(self._points, None)

    def take(self, size: int) -> Iterator[Point]:
        """Yield the points up to this size."""
        while (point := self.next) is not None and point.size <= size:
            self.next = next(self._points, None)
            yield point

    def largest(self) -> Point | None:
        """Return the last one of those that are left; they are gone then."""
        last = None
        while self.next is not None:
            last, self.next = self.next, next(self._points, None)
        return last


class SignedWatch:
    """Compares roots as the walk passes their sizes. `next_size` is the next one, None of none.

    What others kept is a row of its own: nothing in the database can keep it from being compared.
    Make it before the head is read, so that what is remembered can't be newer than that.
    """

    def __init__(
        self, using: str, findings: Findings, earlier: Sequence[str], policy: rules.Policy | None
    ) -> None:
        self._using, self._findings, self._policy = using, findings, policy
        self._keys = list(policy.log) if policy and policy.log else _known_keys(findings)
        kept = [point for text in earlier if (point := self._kept(text))]
        kept += _remembered(using, findings)
        self._rows = (_Row(self._stored()), _Row(sorted(kept, key=lambda point: point.size)))
        self.count, self._good = 0, 0
        self.next_size: int | None = None
        self._advance()

    def pass_by(self, frontier: Frontier) -> None:
        """Compare the points of the size that the walk has come to."""
        root, size = frontier.root(), frontier.size
        good = size
        for row in self._rows:
            for point in row.take(size):
                self.count += 1
                if point.size != size or point.root != root:
                    good = self._good
                    self._another_root(point)
                self._signatures(point)
        self._good = good
        self._advance()

    def finish(self, size: int, *, to_the_end: bool) -> None:
        """Note points beyond the log's end; the walk came to `size` entries.

        `to_the_end`: that was the whole log then. It may have grown, and been signed, since.
        """
        left = []
        for row in self._rows:
            for point in row.take(size):
                self._findings.add(None, f"{_capital(point.name)} was not compared: it is no size.")
            left += [point for point in [row.largest()] if point is not None]
        # After the last page of the checkpoints: whatever was signed is in the log by then.
        now = read_head(connections[self._using]).size if to_the_end else size
        for point in left:
            if point.size > now:
                self._findings.add(
                    size, f"The log was cut: {point.name} says that it had {point.size} entries."
                )
        checked = self._findings.checked
        checked.append(f"{self.count} checkpoints, each with the root that the entries give.")
        if self.count and not self._keys:
            self._findings.notes.append(
                "The log's keys are not known here: no signature was checked."
            )
        if self._policy is not None and self._policy.witnesses:
            self._witnesses(self._policy, size)
        newest = self._sound().order_by("-size").values_list("size", flat=True).first() or 0
        if newest < size:
            self._findings.notes.append(
                f"The entries from {newest} on are newer than the last checkpoint."
            )

    def _advance(self) -> None:
        sizes = [row.next.size for row in self._rows if row.next is not None]
        self.next_size = min(sizes, default=None)

    def _another_root(self, point: Point) -> None:
        first = min(self._good, point.size)
        self._findings.add(
            first,
            f"The log was rewritten somewhere in {first}..{point.size - 1}: {point.name} of"
            f" {point.size} entries has another root.",
        )

    def _sound(self) -> QuerySet[Checkpoint]:
        """Return the rows whose size is one."""
        rows = Checkpoint.objects.using(self._using).filter(size__gte=0)
        if connections[self._using].vendor == "sqlite":  # a column holds whatever was written there
            rows = rows.extra(where=["typeof(size) = 'integer'"])
        return rows

    def _stored(self) -> Iterator[Point]:
        """Yield the checkpoints in the database by size, page by page."""
        rows = self._sound()
        odd = Checkpoint.objects.using(self._using).count() - rows.count()
        if odd > 0:
            self._findings.add(None, f"{odd} checkpoints are of a size that no log has.")
        rows = rows.order_by("size", "id")
        page = rows
        while True:
            found = list(page.values_list("size", "id", "origin", "root", "note")[:PAGE])
            for size, _, origin, root, text in found:
                name = f"a checkpoint of {rules.plain(str(origin))}"
                yield Point(size, name, as_bytes(root), str(text))
            if not found:
                return
            size, identity = found[-1][:2]
            page = rows.filter(size=size, id__gt=identity) | rows.filter(size__gt=size)

    def _kept(self, text: str) -> Point | None:
        try:
            note = rules.Note(text.encode())
        except (rules.Malformed, UnicodeEncodeError) as problem:
            self._findings.add(None, f"An earlier checkpoint {problem}.")
            return None
        return Point(note.size, "the checkpoint that you kept", note.root, text)

    def _signatures(self, point: Point) -> None:
        """Note where the columns do not repeat the note, or nobody we know signed it."""
        if not point.text:
            return
        try:
            note = rules.Note(point.text.encode())
            if note.size != point.size:
                raise rules.Malformed("is of another size than its row says")
            if note.root != point.root:
                raise rules.Malformed("has another root than its row says")
            if self._keys:
                note.check(self._keys, every_kind=False)
        except (rules.Malformed, UnicodeEncodeError) as problem:
            self._findings.add(None, f"{_capital(point.name)} of {point.size} entries {problem}.")

    def _witnesses(self, policy: rules.Policy, size: int) -> None:
        """Find the newest checkpoint with the cosignatures that are asked for; it must be recent."""
        rows = self._sound().order_by("-size", "-id").values_list("note", flat=True)
        for text in islice(rows.iterator(chunk_size=PAGE), RECENT):
            try:
                note = rules.Note(str(text).encode())
                names = policy.satisfied(note)
                if self._keys:
                    note.check(self._keys, every_kind=False)
            except (rules.Malformed, UnicodeEncodeError):
                continue
            self._findings.checked.append(
                f"The first {note.size} entries are witnessed by {', '.join(names) or 'nobody'}."
            )
            self._unwitnessed(note.size, size)
            return
        self._findings.add(None, "No checkpoint has the witnesses that the policy asks for.")

    def _unwitnessed(self, covered: int, size: int) -> None:
        """Note what the witnesses have not seen for too long."""
        if covered >= size:
            return
        rows = Entry.objects.using(self._using).filter(index=covered)
        first = rows.values_list("at", flat=True).first()
        old = first is not None and (
            time.time() - (first - entries.EPOCH).total_seconds() > UNWITNESSED_SECONDS
        )
        if old or size - covered > UNWITNESSED:
            self._findings.add(
                covered,
                f"The entries {covered}..{size - 1} have no witness: the newest checkpoint that the"
                " policy's witnesses signed is too old.",
            )


def _remembered(using: str, findings: Findings) -> list[Point]:
    """Return what the signer, witnesses and copies remember of the log of this house."""
    if using != "default":
        return []
    known, silent = memories.all_read()
    if silent:
        findings.notes.append(silent)
    if guard.refusal(using):
        guard.look(using)  # it may have been settled meanwhile
    if said := guard.refusal(using):
        findings.add(None, said)
    return [Point(one.size, f"what {one.who} remembers", one.root) for one in known]


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _known_keys(findings: Findings) -> list[rules.Key]:
    """Return the log's keys as they are known on this machine."""
    try:
        return [rules.Key(text) for text in checkpoints.keys()]  # noqa: SIM118
    except rules.Malformed as problem:
        findings.add(None, f"The file of the log's keys {problem}.")
        return []
