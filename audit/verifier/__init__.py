"""Walking the log: is every entry there, unchanged, and do the head, the tiles, the checkpoints say so?

What an entry may say, and what may follow what, is written down once: in audit.evidence.verify, which
auditors take with them. What this can't see: a superuser of the database can rewrite entries, head,
tiles *and* checkpoints together. Against that stand checkpoints kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import connections

from audit import proofs
from audit.evidence import verify as rules
from audit.merkle import Frontier
from audit.models import Entry, PersonalValue
from audit.personal import commit
from audit.store import LogHead, read_head
from audit.verifier import archived, rows
from audit.verifier.index import check_index
from audit.verifier.report import Bad, Finding, Findings, Report
from audit.verifier.signed import SignedWatch
from audit.verifier.tiles import TileWatch, Tree

__all__ = ["Finding", "Report", "prove", "prove_in", "verify"]

STEP = 1000  # entries between two calls of `progress`
PAGE = 1000


def verify(
    using: str = "default",
    *,
    start: int = 0,
    progress: Callable[[int], None] | None = None,
    earlier: Sequence[str] = (),
    policy: rules.Policy | None = None,
    with_archives: bool = False,
    with_index: bool = False,
) -> Report:
    """Walk the log in order, at constant memory, and compare it with all that is known of it.

    That is its head, its tiles, its checkpoints and their signatures, what its signer and the other
    memories remember (settings.AUDIT_MEMORIES), the states that keys can have, the votes behind what
    was approved, the personal data beside the entries, and some of the search index. For entries before
    `start` only the stored leaf hashes are read (their bodies were verified earlier, and the root
    covers the hashes). `progress` is called with the number of entries done. `earlier` are signed
    checkpoints that somebody kept elsewhere, `policy` says whose signatures are asked for.
    `with_archives` also reads what was dropped from the database, `with_index` compares the whole
    search index. Entries that others append meanwhile are not looked at.
    """
    return _Walk(using, start, progress, earlier, policy).run(with_archives, with_index)


def prove(index: int, using: str = "default") -> list[bytes]:
    """Return the inclusion proof of entry `index` in the log as it is now. Raises ValueError."""
    return prove_in(index, read_head(connections[using]).size, using)


def prove_in(index: int, size: int, using: str = "default") -> list[bytes]:
    """Return the inclusion proof of entry `index` in the log's first `size` entries. Raises ValueError."""
    return proofs.inclusion(index, size, using)


class _Walk:
    """One verification, from the first entry to the head."""

    def __init__(
        self,
        using: str,
        start: int,
        progress: Callable[[int], None] | None,
        earlier: Sequence[str],
        policy: rules.Policy | None,
    ) -> None:
        self._using, self._start, self._progress = using, start, progress
        self._findings = Findings()
        # What is remembered before the head: a log that grows meanwhile is never taken for a cut one.
        self._signed = SignedWatch(using, self._findings, earlier, policy)
        self._marked = archived.marked(using)
        self._head = read_head(connections[using])
        self._tiles = TileWatch(using, self._findings)
        self._tree = Tree(self._tiles)
        whole = not start
        self._lives, self._approvals = rules.Lives(whole), rules.Approvals(whole)
        self._forms = rules.Forms(whole)

    def run(self, with_archives: bool, with_index: bool) -> Report:
        """Do it."""
        findings, head, tree = self._findings, self._head, self._tree
        try:
            self._entries()
            self._end()
        except Bad as bad:
            findings.add(bad.index, bad.problem)
        else:
            if self._progress:
                self._progress(tree.size)
        ended = tree.size == head.size
        self._signed.finish(tree.size, to_the_end=ended)
        if ended:
            self._tiles.finish(read_head(connections[self._using]).size)
        archived.check_marks(self._using, self._marked, findings)
        self._personal()
        if ended and not findings.count:  # else the entries say nothing about the index
            check_index(self._using, findings, whole=with_index)
        if with_archives:
            archived.check_archives(self._using, findings)
        self._summary()
        return findings.report(tree.size, tree.root(), head.epoch)

    def _entries(self) -> None:
        tree, signed, progress = self._tree, self._signed, self._progress
        if signed.next_size is not None and signed.next_size <= 0:
            signed.pass_by(tree)
        for index, leaf, row in rows.walk(self._using, self._head.size, self._start):
            if row is not None:
                body = rows.look(row, index)
                if body["approvals"] or "states" in body["facts"] or body["v"] == 1:
                    self._rules(index, body)
                else:
                    self._forms.second()
            elif index >= self._start:  # it lies in an archive: what it says is not known here
                self._lives.whole = self._approvals.whole = self._forms.whole = False
            tree.append(leaf)
            if tree.size == signed.next_size:
                signed.pass_by(tree)
            if progress and not tree.size % STEP:
                progress(tree.size)

    def _rules(self, index: int, body: Any) -> None:
        said = (*self._forms.see(body), *self._lives.see(body), *self._approvals.see(body))
        for problem in said:
            self._findings.add(index, f"Entry {index} {problem}")

    def _end(self) -> None:
        """Raise Bad unless the head agrees with the entries, and nothing lies behind the head."""
        head, tree = self._head, self._tree
        if tree.root() != head.root or tree.to_bytes() != head.frontier:
            raise Bad(*_where(head, tree))
        # Entry and head become visible in the same commit: read the entries first.
        found = Entry.objects.using(self._using).order_by("-index")
        last = found.values_list("index", flat=True).first()
        now = read_head(connections[self._using])
        if now.size < head.size or (last is not None and last >= now.size):
            raise Bad(now.size, f"There are entries behind the log's end at {now.size}.")

    def _personal(self) -> None:
        """Note values beside the log that are not what the entries commit to."""
        table = PersonalValue.objects.using(self._using).order_by("commitment")
        page, count = table, 0
        while found := list(page.values_list("commitment", "value", "salt")[:PAGE]):
            for text, value, salt in found:
                if value is None and salt is None:
                    continue  # erased
                count += 1
                if not isinstance(value, str) or commit(rows.as_bytes(salt), value) != text:
                    self._findings.add(None, "A personal value is not what the entries commit to.")
            page = table.filter(commitment__gt=found[-1][0])
        self._findings.checked.append(f"{count} personal values, each against its commitment.")

    def _summary(self) -> None:
        lives, votes, findings = self._lives, self._approvals, self._findings
        findings.checked += [
            f"{lives.moves} changes of a key's state, each against what may follow.",
            f"{votes.judged} approved actions, each against its votes.",
        ]
        findings.notes += self._forms.notes()
        if votes.unknown:
            findings.notes.append(
                f"{votes.unknown} entries rest on votes that could not be judged."
            )


def _where(head: LogHead, frontier: Frontier) -> tuple[int | None, str]:
    """Tell which part of the log does not match the head, as narrowly as its frontier knows."""
    try:
        stored = Frontier.from_bytes(head.size, head.frontier)
    except ValueError:
        return None, "The log's head is damaged: its frontier is not one."
    if stored.root() != head.root:
        return None, "The log's head is damaged: its root does not follow from its frontier."
    pairs: Sequence[Any] = list(zip(stored.subtrees(), frontier.subtrees(), strict=True))
    start, end = next((ours[0], ours[1]) for theirs, ours in pairs if theirs != ours)
    if end - start == 1:
        return start, f"Entry {start} was rewritten with its hash: the head has another."
    return start, f"An entry in {start}..{end - 1} was rewritten with its hash, or the head was."
