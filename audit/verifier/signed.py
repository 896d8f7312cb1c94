"""Do the log's own checkpoints, and those that others kept, fit the entries? Who signed them?"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

from audit import checkpoints
from audit.evidence import verify as rules
from audit.merkle import Frontier
from audit.models import Checkpoint
from audit.verifier.report import Findings

PAGE = 500
# Witnesses sign a little later than the log: so many of the newest checkpoints are looked at.
RECENT = 1000

# size, name for people, root, the note's text where it is one of ours
Point = tuple[int, str, bytes, str]


class SignedWatch:
    """Compares roots as the walk passes their sizes. `next_size` is the next one, -1 of none."""

    def __init__(
        self, using: str, findings: Findings, earlier: Sequence[str], policy: rules.Policy | None
    ) -> None:
        self._using, self._findings, self._policy = using, findings, policy
        self._keys = list(policy.log) if policy and policy.log else _known_keys(findings)
        kept = sorted(point for text in earlier if (point := self._kept(text)))
        self._points = heapq.merge(self._stored(), kept, key=lambda point: point[0])
        self.count, self._good = 0, 0
        self._point: Point | None = None
        self.next_size = -1
        self._advance()

    def pass_by(self, frontier: Frontier) -> None:
        """Compare the points of the size that the walk has come to."""
        root = frontier.root()
        while (point := self._point) is not None and point[0] <= frontier.size:
            self.count += 1
            size, name, theirs, text = point
            if size == frontier.size and theirs == root:
                self._good = size
            else:
                first = min(self._good, size)
                self._findings.add(
                    first,
                    f"The log was rewritten somewhere in {first}..{size - 1}: {name} of {size} entries"
                    " has another root.",
                )
            self._signatures(text, name, size)
            self._advance()

    def finish(self, size: int, now: int) -> None:
        """Note points beyond the log's end. The log had `size` entries, and has `now` by now."""
        while (point := self._point) is not None:
            if point[0] > now:
                self._findings.add(
                    size, f"The log was cut: {point[1]} says that it had {point[0]} entries."
                )
                break
            self._advance()
        checked = self._findings.checked
        checked.append(f"{self.count} checkpoints, each with the root that the entries give.")
        if self.count and not self._keys:
            self._findings.notes.append(
                "The log's keys are not known here: no signature was checked."
            )
        if self._policy is not None and self._policy.witnesses:
            self._witnesses(self._policy)
        newest = Checkpoint.objects.using(self._using).order_by("-size").first()
        covered = newest.size if newest else 0
        if covered < size:
            self._findings.notes.append(
                f"The entries from {covered} on are newer than the last checkpoint."
            )

    def _advance(self) -> None:
        self._point = next(self._points, None)
        self.next_size = self._point[0] if self._point else -1

    def _stored(self) -> Iterator[Point]:
        """Yield the checkpoints in the database by size, page by page."""
        rows = Checkpoint.objects.using(self._using).order_by("size", "id")
        last: tuple[int, int] | None = None
        while True:
            page = rows
            if last is not None:
                page = rows.filter(size=last[0], id__gt=last[1]) | rows.filter(size__gt=last[0])
            found = list(page.values_list("size", "id", "origin", "root", "note")[:PAGE])
            for size, _, origin, root, text in found:
                yield size, f"a checkpoint of {rules.plain(origin)}", bytes(root), text
            if not found:
                return
            last = found[-1][0], found[-1][1]

    def _kept(self, text: str) -> Point | None:
        try:
            note = rules.Note(text.encode())
        except rules.Malformed as problem:
            self._findings.add(None, f"An earlier checkpoint {problem}.")
            return None
        return note.size, "the checkpoint that you kept", note.root, text

    def _signatures(self, text: str, name: str, size: int) -> None:
        """Note where the columns do not repeat the note, or nobody we know signed it."""
        try:
            note = rules.Note(text.encode())
            if note.size != size:
                raise rules.Malformed("is of another size than its row says")
            if self._point is not None and note.root != self._point[2]:
                raise rules.Malformed("has another root than its row says")
            if self._keys:
                note.check(self._keys, every_kind=False)
        except (rules.Malformed, UnicodeEncodeError) as problem:
            self._findings.add(None, f"{name[0].upper()}{name[1:]} of {size} entries {problem}.")

    def _witnesses(self, policy: rules.Policy) -> None:
        """Find the newest checkpoint with as many cosignatures as the policy asks for."""
        rows = Checkpoint.objects.using(self._using).order_by("-id").values_list("note", flat=True)
        for text in islice(rows.iterator(chunk_size=PAGE), RECENT):
            try:
                note = rules.Note(text.encode())
                names = policy.satisfied(note)
            except (rules.Malformed, UnicodeEncodeError):
                continue
            self._findings.checked.append(
                f"The first {note.size} entries are witnessed by {', '.join(names) or 'nobody'}."
            )
            return
        self._findings.add(None, "No checkpoint has the witnesses that the policy asks for.")


def _known_keys(findings: Findings) -> list[rules.Key]:
    """Return the log's keys as they are known on this machine."""
    try:
        return [rules.Key(text) for text in checkpoints.keys()]  # noqa: SIM118
    except rules.Malformed as problem:
        findings.add(None, f"The file of the log's keys {problem}.")
        return []
