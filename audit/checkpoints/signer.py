"""The signer: it follows the log, signs what grew from what it signed before, and nothing else.

A round: read the head, read every entry since the last signing, compare, sign, remember (on the disk,
outside the database), and only then let anybody see it: a row, the witnesses, the places. Should it
die anywhere in between, the next round goes on from what it remembers. docs/adr/0013 has the why.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connections

from audit import proofs
from audit.checkpoints import cosigning, files, memory, notes, status
from audit.checkpoints.following import Following, Refused, check_head
from audit.checkpoints.memory import Memory
from audit.checkpoints.publishing import Outbox
from audit.checkpoints.signing import SigningKey, load_or_make
from audit.errors import LogWriteFailed, NoteError, SignerError, TilesMissing
from audit.merkle import Frontier
from audit.models import Checkpoint
from audit.store import LogHead, read_head
from audit.witness import policy as policies
from audit.witness.policy import Policy

log = logging.getLogger(__name__)

COSIGN_AGAIN_SECONDS = 30.0
TICK_SECONDS = 5.0
# A long log takes longer than this to read: then its status says how far it is.
TELL_SECONDS = 5.0
# Tiles that are hashed from entries for a proof, a million entries, where the keeper is behind.
UNBUILT_LIMIT = 4096


class _Told(Exception):
    """The signer was told to end in the middle of a round."""


class Signer:
    """The signer of one folder. `open` first; it is for one thread, except where said."""

    def __init__(self, folder: Path, using: str = "default", policy: Policy | None = None) -> None:
        self._folder = folder
        self._using = using
        self._given_policy = policy
        self._outbox = Outbox(folder, settings.AUDIT_PUBLISH)
        self._lock: IO[str] | None = None
        self._keys: list[SigningKey] = []
        self._recorded = ""  # the note whose row is known to be there
        self._cosign_again = 0.0
        self._witnesses = ""  # what is wrong with them, in a sentence
        self._publishing: Future[int] | None = None
        self._following = Following()
        self._stop = threading.Event()
        self._told_at = 0.0

    def open(self) -> None:
        """Take the folder's lock, and make memory and keys at the very first start.

        Raises SignerError where another signer works in the folder, or its memory or a key is gone.
        """
        files.private_folder(self._folder)
        self._lock = files.take_lock(
            self._folder / "lock", "Another signer is at work in this folder."
        )
        try:
            self._load_keys(memory.first(self._folder, settings.AUDIT_ORIGIN))
        except (SignerError, OSError) as error:
            said = str(error) if isinstance(error, SignerError) else "Its folder can't be used."
            self._leave(status.WAITING, said)
            self.close()
            raise SignerError(said) from None

    def close(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def vkeys(self) -> list[str]:
        """Return the verifier keys of what is signed now."""
        return [key.verifier.text() for key in self._keys]

    # --- for ever, or once

    def run(self, stop: threading.Event) -> None:
        """Sign until `stop` is set. Outages are survived; what they keep from being done comes later."""
        self._stop = stop
        tick = min(TICK_SECONDS, settings.CHECKPOINT_SECONDS / 4)
        with ThreadPoolExecutor(1, "publisher") as pool:
            while not stop.is_set():
                self.look()
                if self._publishing is None or self._publishing.done():
                    self._publishing = pool.submit(self._deliver)
                stop.wait(tick)

    def once(self) -> status.Status:
        """Sign what is new, publish what waits, and return the status that is left."""
        found = self.look(at_once=True)
        self._deliver()
        return self._leave(found.state, found.problem)

    def look(self, *, at_once: bool = False) -> status.Status:
        """Make a round where one is due (a change: `at_once`), leave a status and return it."""
        state, problem = status.SIGNING, ""
        self._told_at = time.monotonic()
        try:
            self.round(at_once=at_once)
        except _Told:
            state, problem = status.FOLLOWING, "The signer ended before it had read the log."
        except Refused as refused:
            state, problem = status.REFUSING, f"{refused} It is not signed until this is settled."
        except (SignerError, NoteError) as error:
            state, problem = status.WAITING, str(error)
        except (DatabaseError, LogWriteFailed) as error:
            log.warning(
                "The log can't be read or a checkpoint can't be kept: %s", type(error).__name__
            )
            state, problem = status.WAITING, "The signer can't use the database."
            connections[self._using].close()
        except OSError as error:
            state, problem = status.WAITING, f"The signer can't use its folder: {error.strerror}."
        if problem:
            log.warning("%s", problem)
        return self._leave(state, problem)

    def _leave(self, state: str, problem: str) -> status.Status:
        now = datetime.now(UTC).isoformat()
        found = status.Status(now, state, problem, self._outbox.failing(), self._witnesses)
        try:
            status.leave(self._folder, found)
        except OSError:
            log.exception("The signer's status can't be written.")
        return found

    def _deliver(self) -> int:
        try:
            return self._outbox.deliver()
        except Exception:  # of a place's library perhaps: the next tick tries again
            log.exception("Checkpoints can't be published.")
            return 1

    # --- one round

    def round(self, *, at_once: bool = False) -> bool:
        """Sign the log as it is now where that is due; return whether it was signed.

        What an earlier round could not finish is finished first. Raises Refused where the log must not
        be signed, SignerError, NoteError, OSError and Django's database errors where it can't be.
        """
        known = memory.recall(self._folder)
        if self._keys and self._keys[0].verifier.name != known.origin:
            self._load_keys(known)  # we were told to begin again
        head = read_head(connections[self._using])
        check_head(known, head)
        signed = False
        if self._due(known, head, at_once):
            known = self._sign(known, self._follow(known, head))
            signed = True
        if known.note:
            self._record(known)
            known = self._cosign(known, fresh=signed or at_once)
            self._queue(known)
        return signed

    def _follow(self, known: Memory, head: LogHead) -> Frontier:
        def between(size: int) -> None:
            if self._stop.is_set():
                raise _Told
            if time.monotonic() - self._told_at >= TELL_SECONDS:
                self._told_at = time.monotonic()
                said = f"The signer reads the log before it signs: {size} of {head.size} entries."
                self._leave(status.FOLLOWING, said)

        return self._following.follow(known, head, self._using, between)

    def _due(self, known: Memory, head: LogHead, at_once: bool) -> bool:
        if head.size == 0:
            return False
        elapsed = time.time() - known.signed_at
        if elapsed < 0:  # the clock was set back
            return True
        if head.size > known.size:
            return at_once or elapsed >= settings.CHECKPOINT_SECONDS / 2
        return elapsed >= settings.CHECKPOINT_IDLE_SECONDS

    def _sign(self, known: Memory, tree: Frontier) -> Memory:
        """Sign the tree and remember it. Nobody has seen the note before it is on the disk."""
        seconds = int(time.time())
        body = notes.Tree(known.origin, tree.size, tree.root()).body()
        note = notes.Note(body, tuple(key.sign(body, seconds) for key in self._keys))
        after = replace(
            known,
            size=tree.size,
            root=tree.root().hex(),
            frontier=tree.to_bytes().hex(),
            note=note.text(),
            signed_at=seconds,
            stamp=max(seconds, known.stamp + 1),
            queued=False,
        )
        self._reached("signed")
        memory.advance(self._folder, known, after)
        self._reached("remembered")
        return after

    def _record(self, known: Memory) -> None:
        """Make sure that the note's row is there."""
        if self._recorded == known.note:
            return
        rows = Checkpoint.objects.using(self._using)
        if not rows.filter(size=known.size, note=known.note).exists():
            rows.create(
                size=known.size,
                root=bytes.fromhex(known.root),
                origin=known.origin,
                note=known.note,
                signed_at=datetime.fromtimestamp(known.signed_at, UTC),
            )
        self._recorded = known.note
        self._reached("recorded")

    def _cosign(self, known: Memory, *, fresh: bool) -> Memory:
        """Ask the witnesses, and keep what came of it as another row."""
        try:
            policy = self._policy()
        except NoteError as error:
            self._witnesses = str(error)
            return known
        note = notes.parse(known.note)
        if not cosigning.missing(note, policy):
            self._witnesses = _witnesses(cosigning.Gathered(note), policy)
            return known
        if not fresh and time.monotonic() < self._cosign_again:
            return known
        gathered = cosigning.gather(self._folder, note, policy, self._prove)
        self._cosign_again = time.monotonic() + COSIGN_AGAIN_SECONDS
        self._witnesses = _witnesses(gathered, policy)
        if gathered.note == note:
            return known
        stamp = max(int(time.time()), known.stamp + 1)
        after = replace(known, note=gathered.note.text(), stamp=stamp, queued=False)
        memory.advance(self._folder, known, after)
        self._reached("cosigned")
        self._record(after)
        return after

    def _queue(self, known: Memory) -> None:
        """Hand the note on to be published, once. Its name stays the same should we die in here."""
        if known.queued:
            return
        self._outbox.queue(known.name(), known.note)
        self._reached("queued")
        memory.advance(self._folder, known, replace(known, queued=True))

    # --- what it needs

    def _load_keys(self, known: Memory) -> None:
        self._keys = load_or_make(self._folder / "keys", settings.SIGNER_ALGORITHMS, known.origin)
        memory.add_vkeys(self._folder, self.vkeys())

    def _policy(self) -> Policy:
        """Return the witness policy, read anew each time: it may be changed while we run."""
        if self._given_policy is not None:
            return self._given_policy
        return policies.load(Path(settings.WITNESS_POLICY)) if settings.WITNESS_POLICY else Policy()

    def _prove(self, old: int, size: int) -> Sequence[bytes]:
        try:
            return proofs.consistency(old, size, self._using, UNBUILT_LIMIT)
        except TilesMissing:
            raise ValueError("too much of the log's tree is not built yet") from None
        except DatabaseError:
            raise ValueError("the log can't be read") from None
        finally:
            connections[self._using].close()  # this thread's own

    def _reached(self, step: str) -> None:
        """Do nothing. Tests end the process here, at each of the steps."""


def _witnesses(gathered: cosigning.Gathered, policy: Policy) -> str:
    """Say what is wrong with the witnesses, where the policy's quorum is not reached."""
    enough, _ = policies.satisfied(gathered.note, policy)
    if enough:
        return ""
    return " ".join(
        [
            "The newest checkpoint has not the witnesses that the policy asks for.",
            *gathered.problems,
        ]
    )
