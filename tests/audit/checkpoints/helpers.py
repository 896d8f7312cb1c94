"""A log's signer and witnesses for tests: in this process or as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from audit.checkpoints import notes, signing
from audit.checkpoints.signer import Signer
from audit.checkpoints.vkeys import parse_vkey
from audit.merkle import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash, root_of
from audit.witness.judging import Judge
from audit.witness.server import WitnessServer
from audit.witness.state import State
from tests.audit.helpers import write_many
from tests.processes import Process

BASE_DIR = Path(__file__).resolve().parents[3]
ORIGIN = "example.com/log"


def round_of(folder: Path, kind: type[Signer] = Signer, **given: Any) -> Any:
    """Open a signer, make one round at once, publish, close; return the status that it leaves."""
    signer = kind(folder, **given)
    signer.open()
    try:
        return signer.once()
    finally:
        signer.close()


class Log:
    """A log without a database: its leaves, and checkpoints of any size of it."""

    def __init__(self, folder: Path, leaves: int, salt: str = "") -> None:
        self.leaves = [leaf_hash(f"{salt}{number}".encode()) for number in range(leaves)]
        self.keys = signing.load_or_make(folder / "log-keys", ["ed25519"], ORIGIN)

    def vkey(self) -> str:
        return self.keys[0].verifier.text()

    def root(self, size: int) -> bytes:
        return root_of(self.leaves[:size]) if size else EMPTY_ROOT

    def note(self, size: int, origin: str = ORIGIN) -> notes.Note:
        body = notes.Tree(origin, size, self.root(size)).body()
        return notes.Note(body, tuple(key.sign(body, 1) for key in self.keys))

    def proof(self, first: int, second: int) -> list[bytes]:
        return consistency_proof(first, second, lambda a, b: root_of(self.leaves[a:b]))

    def request(self, old: int, size: int) -> bytes:
        """Return the body of add-checkpoint."""
        proof = self.proof(old, size) if 0 < old <= size else []
        head = [f"old {old}", *map(notes.encoded, proof), "", ""]
        return ("\n".join(head) + self.note(size).text()).encode()

    def fork_at(self, size: int) -> None:
        """Have other leaves from here on."""
        self.leaves[size:] = [leaf_hash(b"fork" + leaf) for leaf in self.leaves[size:]]


def judge_in(folder: Path, *vkeys: str, name: str = "w.example/1") -> tuple[Judge, State]:
    """Return a witness without its HTTP."""
    state = State(folder)
    key = signing.witness_key(folder / "key.pem", name)
    return Judge(state, key, [parse_vkey(vkey) for vkey in vkeys]), state


@dataclass
class Served:
    """A witness that listens in this process."""

    judge: Judge
    url: str


@contextmanager
def serving(folder: Path, *vkeys: str, name: str = "w.example/1") -> Iterator[Served]:
    """Serve a witness on a free port."""
    judge, state = judge_in(folder, *vkeys, name=name)
    server = WitnessServer(("127.0.0.1", 0), judge)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Served(judge, f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        state.close()


def witness_process(folder: Path, output: Path, port: int, *vkeys: str) -> Process:
    """Start a witness as `python -m audit.witness`."""
    command = [sys.executable, "-m", "audit.witness", "--folder", str(folder)]
    command += ["--listen", f"127.0.0.1:{port}"]
    command += [word for vkey in vkeys for word in ("--log", vkey)]
    return Process(command, os.environ, output)


def witness_vkey(folder: Path) -> str:
    """Return the key of a witness that is made by this."""
    command = [sys.executable, "-m", "audit.witness", "--folder", str(folder), "--key"]
    done = subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def grow(count: int) -> None:
    write_many(count)


def frontier_of_the_log() -> Frontier:
    """Return the tree over the entries of this test's database, hashed anew."""
    from audit.models import Entry

    frontier = Frontier()
    rows = Entry.objects.order_by("index").values_list("body", flat=True)
    frontier.extend(leaf_hash(bytes(body)) for body in rows)
    return frontier
