"""What the signer remembers outside the database, so that the database can't make it forget."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

from django.conf import settings

from audit.checkpoints import files, notes, vkeys
from audit.errors import NoteError, SignerError
from audit.merkle import EMPTY_ROOT, Frontier

GONE = (
    "The signer's memory is gone or damaged, and its keys are there: put it back, or begin again"
    " with `manage.py signer --begin-again REASON`."
)


@dataclass(frozen=True, slots=True)
class Memory:
    """The last tree that was signed, and its note. Bytes are hex; times are Unix seconds.

    `base` and `generation` make the origin: "<base>", and after n new beginnings "<base>/<n+1>".
    `stamp` is part of the name that the note is published under, and never repeats. `queued` says
    that the note was handed on to be published.
    """

    base: str
    generation: int = 1
    size: int = 0
    root: str = EMPTY_ROOT.hex()
    frontier: str = ""
    note: str = ""
    signed_at: int = 0
    stamp: int = 0
    queued: bool = False
    reason: str = ""  # of the last new beginning

    @property
    def origin(self) -> str:
        return self.base if self.generation == 1 else f"{self.base}/{self.generation}"

    def tree(self) -> Frontier:
        """Return the frontier of what was signed."""
        return Frontier.from_bytes(self.size, bytes.fromhex(self.frontier))

    def name(self) -> str:
        """Return what the note is called where it is published."""
        return f"{self.size}-{self.stamp}"


def folder_of(folder: Path | None) -> Path:
    return Path(settings.SIGNER_FOLDER) if folder is None else folder


def first(folder: Path, origin: str = "") -> Memory:
    """Return the memory in the folder; at the very first start a new one, which is written.

    Raises SignerError where there were keys and the memory is gone or damaged: nobody must make the
    signer forget by removing a file.
    """
    if not (folder / "memory.json").exists() and not (folder / "keys").exists():
        base = origin or f"kms-console.invalid/{token_hex(8)}"
        if not vkeys.sound_name(base):
            raise SignerError("KMS_AUDIT_ORIGIN must be a name without blanks and '+'.")
        keep(folder, Memory(base))
    memory = recall(folder)
    copy = folder / "checkpoint"
    if memory.note and (not copy.exists() or copy.read_bytes() != memory.note.encode()):
        files.write(copy, memory.note)  # we died between the two files
    return memory


def recall(folder: Path) -> Memory:
    """Return what is remembered. Raises SignerError where that is gone or damaged."""
    try:
        memory = Memory(**json.loads((folder / "memory.json").read_text(encoding="utf-8")))
        if memory.tree().root().hex() != memory.root or not isinstance(memory.note, str):
            raise ValueError("damaged")
        if memory.size:
            tree = notes.parse_checkpoint(memory.note)[1]
            if (tree.origin, tree.size, tree.root.hex()) != (
                memory.origin,
                memory.size,
                memory.root,
            ):
                raise ValueError("damaged")
    except (OSError, ValueError, TypeError, AttributeError, NoteError):
        raise SignerError(GONE) from None
    return memory


def keep(folder: Path, memory: Memory) -> None:
    """Write the memory, and the last note beside it for others to read; durable on return.

    Raises OSError. Should the power go between the two files, the first one counts.
    """
    files.write(folder / "memory.json", json.dumps(asdict(memory), indent=1) + "\n")
    if memory.note:
        files.write(folder / "checkpoint", memory.note)


def advance(folder: Path, before: Memory, after: Memory) -> None:
    """Replace one memory by the next. Raises SignerError where it isn't `before` any more."""
    with files.locked(folder / "memory.lock"):
        if recall(folder) != before:
            raise SignerError("The signer was told to begin again.")
        keep(folder, after)


def begin_again(reason: str, folder: Path | None = None) -> str:
    """Start anew from the log as it is, under the next origin; return that origin.

    For an operator who knows why the log is not what the signer remembers: a backup was restored. The
    old memory is kept aside as memory-<time>.json. Everybody sees that this happened: verifiers and
    witnesses know the old origin only, and have to be told of the new one. A running signer notices
    within a second or so. Returns "" where no signer ever worked in this folder (it has another
    machine: `manage.py signer --begin-again` there). Raises SignerError where the folder can't be
    written.
    """
    where = folder_of(folder)
    if not (where / "memory.json").exists() and not (where / "keys").exists():
        return ""
    try:
        with files.locked(where / "memory.lock"):
            old = _whatever_is_left(where)
            now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            for name in ("memory.json", "checkpoint"):
                if (where / name).exists():
                    aside = f"{Path(name).stem}-{now}{Path(name).suffix}"
                    # Copied first: at no moment is there no memory.
                    files.write(where / aside, (where / name).read_text("utf-8", "replace"))
            fresh = Memory(
                old.base,
                old.generation + 1,
                stamp=max(old.stamp, int(time.time())),
                reason=reason,
            )
            keep(where, fresh)
            (where / "checkpoint").unlink(missing_ok=True)
            files.flush_folder(where)
    except OSError as error:
        raise SignerError(f"The signer's folder can't be written: {error.strerror}.") from None
    return fresh.origin


def _whatever_is_left(folder: Path) -> Memory:
    """Return the memory or, where it is gone, what the list of its public keys tells of the origin."""
    try:
        return recall(folder)
    except SignerError:
        names = [vkey.partition("+")[0] for vkey in read_vkeys(folder)]
        if not names:
            raise SignerError("The signer's memory and its list of keys are gone.") from None
    base = names[0]
    generations = [
        int(rest) for name in names if (rest := name.removeprefix(f"{base}/")).isdecimal()
    ]
    return replace(Memory(base), generation=max([1, *generations]))


def read_vkeys(folder: Path) -> list[str]:
    """Return the log's verifier keys as the folder's list has them, the oldest first."""
    try:
        lines = (folder / "keys.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def add_vkeys(folder: Path, vkeys_: list[str]) -> None:
    """Add verifier keys to the folder's list; what it has stays, for older checkpoints."""
    known = read_vkeys(folder)
    wanted = list(dict.fromkeys([*known, *vkeys_]))
    if wanted != known:
        files.write(folder / "keys.txt", "".join(f"{line}\n" for line in wanted))
