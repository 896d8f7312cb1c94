"""What a walk through the log found."""

from __future__ import annotations

from dataclasses import dataclass, field

# Findings that are told one by one; a log that was rewritten as a whole has one for each entry.
TOLD = 100


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: a sentence, and the entry's index where one is known."""

    index: int | None
    problem: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a walk found. `root` is hex, from the entries; `problem` is a sentence or empty.

    `first_bad_index` is None where nothing is wrong or the fault is in the head itself. Where
    entries and their hashes were rewritten together it is the first that may be wrong. `findings`
    are up to TOLD of `finding_count`, in the order of the walk. `checked` and `notes` say in
    sentences what was looked at, and what to know about it.
    """

    ok: bool
    size: int
    root: str
    head_epoch: int
    first_bad_index: int | None = None
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    finding_count: int = 0
    checked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Bad(Exception):
    """The walk can't go on: from here on nothing would fit."""

    def __init__(self, index: int | None, problem: str) -> None:
        super().__init__(problem)
        self.index, self.problem = index, problem


@dataclass(slots=True)
class Findings:
    """Collects what is wrong while the walk goes on."""

    told: list[Finding] = field(default_factory=list)
    count: int = 0
    first: Finding | None = None  # the lowest index; without one, the first that was found
    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, index: int | None, problem: str) -> None:
        """Note something that is wrong."""
        finding = Finding(index, problem)
        self.count += 1
        if len(self.told) < TOLD:
            self.told.append(finding)
        known = None if self.first is None else self.first.index
        if self.first is None or (index is not None and (known is None or index < known)):
            self.first = finding

    def report(self, size: int, root: bytes, epoch: int) -> Report:
        """Return the report of a walk that came to `size` entries."""
        return Report(
            ok=not self.count,
            size=size,
            root=root.hex(),
            head_epoch=epoch,
            first_bad_index=self.first.index if self.first else None,
            problem=self.first.problem if self.first else "",
            findings=tuple(self.told),
            finding_count=self.count,
            checked=tuple(self.checked),
            notes=tuple(self.notes),
        )
