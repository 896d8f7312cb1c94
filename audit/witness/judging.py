"""What a witness does with a checkpoint that is handed to it: C2SP tlog-witness, add-checkpoint."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

from audit.checkpoints import notes
from audit.checkpoints.signing import SigningKey
from audit.checkpoints.vkeys import COSIGNATURE, VerifierKey
from audit.errors import NoteError
from audit.merkle import HASH_SIZE, verify_consistency
from audit.witness.client import PROOF_LIMIT, SIZE_TYPE, Answer
from audit.witness.state import State

BODY_LIMIT = notes.NOTE_LIMIT + 64 * 64
TEXT = "text/plain; charset=utf-8"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Submission:
    """The body of add-checkpoint."""

    old: int
    proof: tuple[bytes, ...]
    note: notes.Note
    tree: notes.Tree


def parse(body: bytes) -> Submission:
    """Return what was submitted. Raises NoteError where it isn't in the protocol's form."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteError("The request is not UTF-8.") from None
    head, found, note = text.partition("\n\n")
    lines = head.split("\n")
    old = _OLD.fullmatch(lines[0])
    if not found or old is None or len(lines) - 1 > PROOF_LIMIT:
        raise NoteError("The request does not begin with `old`, a proof and an empty line.")
    proof = tuple(notes.decoded(line) for line in lines[1:])
    if any(len(step) != HASH_SIZE for step in proof):
        raise NoteError("A step of the proof is not a SHA-256.")
    parsed, tree = notes.parse_checkpoint(note)
    return Submission(int(old[1]), proof, parsed, tree)


class Judge:
    """A witness without its HTTP: it knows some logs' keys, remembers, and cosigns what grew."""

    def __init__(self, state: State, key: SigningKey, logs: Sequence[VerifierKey]) -> None:
        if any(log.kind == COSIGNATURE for log in logs):
            raise NoteError("That is the key of a witness, not of a log.")
        self._state = state
        self._key = key
        self._logs: dict[str, list[VerifierKey]] = {}
        for log in logs:
            self._logs.setdefault(log.name, []).append(log)

    def add_checkpoint(self, body: bytes) -> Answer:
        """Return the answer to a request. Raises OSError and SignerError where it can't remember."""
        try:
            submitted = parse(body)
        except NoteError as error:
            return _said(400, str(error))
        keys = self._logs.get(submitted.tree.origin)
        if keys is None:
            return _said(404, "This witness does not know that log.")
        try:
            right = notes.verify(submitted.note, keys)
        except NoteError as error:
            return _said(403, str(error))
        if not right:
            return _said(403, "No signature is by a key that this witness knows.")
        if submitted.old > submitted.tree.size:
            return _said(400, "The old size is beyond the checkpoint's.")
        known = {(one.key.name, one.key.key_id) for one in right}
        lines = [s for s in submitted.note.signatures if (s.name, s.key_id) in known]
        return self._decide(submitted, notes.Note(submitted.note.body, tuple(lines)))

    def _decide(self, submitted: Submission, note: notes.Note) -> Answer:
        """Compare with what is remembered, and remember: one at a time, all logs together."""
        tree = submitted.tree
        with self._state.lock:
            size, root = self._state.last(tree.origin)
            if submitted.old != size or (tree.size == size and tree.root != root):
                return Answer(409, SIZE_TYPE, b"%d\n" % size)
            if not verify_consistency(size, tree.size, root, tree.root, submitted.proof):
                return _said(
                    422, "The proof does not show that the log continues what was cosigned."
                )
            cosignature = self._key.sign(note.body, int(time.time()))
            self._state.replace(tree.origin, note.signed([cosignature]).text())
        return Answer(200, TEXT, cosignature.line().encode())

    def checkpoint(self, name: str) -> Answer:
        """Return the last cosigned note of the log whose origin has this SHA-256 (hex)."""
        note = self._state.note(name)
        if note is None:
            return _said(404, "Nothing of that log was cosigned here.")
        return Answer(200, TEXT, note.encode())

    def vkey(self) -> str:
        """Return the witness's verifier key."""
        return self._key.verifier.text()


def _said(status: int, sentence: str) -> Answer:
    return Answer(status, TEXT, f"{sentence}\n".encode())
