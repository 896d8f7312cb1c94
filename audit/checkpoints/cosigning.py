"""Asking the policy's witnesses to cosign: all at once, each with its own deadline."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from audit.checkpoints import files, notes
from audit.errors import NoteError, WitnessError
from audit.witness import client
from audit.witness.policy import Policy, Witness

log = logging.getLogger(__name__)

# (old size, new size) -> consistency proof; ValueError where there is none.
Proofs = Callable[[int, int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Gathered:
    """The note with every cosignature it has now, and what kept the others away."""

    note: notes.Note
    problems: tuple[str, ...] = ()


def missing(note: notes.Note, policy: Policy) -> list[Witness]:
    """Return the witnesses that can be asked and have not cosigned the note."""
    lines = {(signature.name, signature.key_id) for signature in note.signatures}
    return [
        witness
        for witness in policy.witnesses.values()
        if witness.url and (witness.key.name, witness.key.key_id) not in lines
    ]


def gather(
    folder: Path, note: notes.Note, policy: Policy, proofs: Proofs, timeout: float = client.TIMEOUT
) -> Gathered:
    """Ask every witness that is missing, and return the note with what came of it.

    Nothing is raised for a witness that does not answer, or answers nonsense. `proofs` is called from
    threads, which it must leave without open connections.
    """
    asked = missing(note, policy)
    if not asked:
        return Gathered(note)
    sizes = _sizes(folder)
    size = notes.parse_tree(note.body).size

    def ask(witness: Witness) -> notes.Signature | str:
        old = min(sizes.get(witness.key.text(), 0), size)
        try:
            lines = client.add_checkpoint(
                witness.url, old, lambda known: proofs(known, size), note, timeout
            )
            return _own(witness, note, lines)
        except (WitnessError, NoteError) as error:
            log.warning("%s gave no cosignature: %s", witness.name, error)
            return f"{witness.name}: {error}"

    with ThreadPoolExecutor(min(len(asked), 16), "cosign") as pool:
        answers = list(pool.map(ask, asked))
    found = [answer for answer in answers if isinstance(answer, notes.Signature)]
    for witness, answer in zip(asked, answers, strict=True):
        if isinstance(answer, notes.Signature):
            sizes[witness.key.text()] = size
    if found:
        # A help only: a witness says what it remembers where we don't know.
        files.write(folder / "witnesses.json", json.dumps(sizes) + "\n", durable=False)
    return Gathered(
        note.signed(found), tuple(answer for answer in answers if isinstance(answer, str))
    )


def _own(witness: Witness, note: notes.Note, lines: Sequence[notes.Signature]) -> notes.Signature:
    """Return the line that is this witness's, and right. Raises NoteError or WitnessError."""
    key = witness.key
    for line in lines:
        if (line.name, line.key_id) == (key.name, key.key_id):
            key.verify(note.body.encode(), line.value)
            return line
    raise WitnessError("A witness signed with another key than the policy's.")


def _sizes(folder: Path) -> dict[str, int]:
    """Return what each witness cosigned last, as far as we know."""
    try:
        rows = json.loads((folder / "witnesses.json").read_text(encoding="utf-8"))
        return {str(key): int(size) for key, size in rows.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
