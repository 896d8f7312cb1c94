"""Verifying: hashing alone, the auditor's file on a whole export, and the walk over a live log."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from django.db import transaction

from audit import canonical, entries, writer
from audit.evidence import verify as rules
from audit.merkle import root_of
from audit.tiles import build
from audit.verifier import verify
from bench import parts
from bench.__main__ import Report

ENTRIES = 200_000
LIVE = 20_000
BATCH = 1000
ROUNDS = 5
GOAL = ">= 100,000"
SPECIAL = 100  # one in so many entries changes a key's state, and takes the long way

# What the file needs by itself, then with the evidence: the difference is what verifying takes.
CHILD = """
import json, runpy, sys, time
verify = runpy.run_path(sys.argv[1])
def peak():
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0])
before, start, used = peak(), time.perf_counter(), time.process_time()
code = verify["main"]([sys.argv[2], "--checkpoint", sys.argv[3], "--no-signatures", "--quiet"])
print(json.dumps([code, time.perf_counter() - start, time.process_time() - used, peak() - before]))
"""


def _bodies(count: int) -> list[bytes]:
    """Return bodies as the log has them: nearly all of them plain uses."""
    made = []
    for index, event in enumerate(parts.events(count)):
        body = entries.body(event, index)
        if index % SPECIAL == 0:
            move = {"key": f"key {index}", "version": 1, "from": "", "to": "active"}
            body["facts"] = {"states": [move]}
        made.append(canonical.encode_checked(body))
    return made


def _checkpoint(bodies: list[bytes]) -> str:
    root = base64.b64encode(root_of(rules.leaf(body) for body in bodies)).decode()
    return f"bench\n{len(bodies)}\n{root}\n\n\u2014 bench {base64.b64encode(bytes(68)).decode()}\n"


def _hashing(report: Report, bodies: list[bytes]) -> None:
    append, leaf = rules.Tree().append, rules.leaf
    used = time.process_time()
    for body in bodies:
        append(leaf(body))
    used = time.process_time() - used
    report("verify: leaf and node hashing", len(bodies) / used, "entries/s", ">= 300,000")


def _offline(report: Report, bodies: list[bytes], folder: Path) -> None:
    lines, note = folder / "trail.jsonl", folder / "checkpoint"
    with lines.open("wb") as file:
        file.writelines(body + b"\n" for body in bodies)
    note.write_text(_checkpoint(bodies), encoding="utf-8")
    command = [sys.executable, "-I", "-c", CHILD, rules.__file__, str(lines), str(note)]
    environment = {"PATH": os.environ.get("PATH", "")}
    rounds = []
    for _ in range(ROUNDS):
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        code, *figures = json.loads(done.stdout.splitlines()[-1])
        if code != 0:
            raise RuntimeError(done.stdout)
        rounds.append(figures)
    took, used, memory = (sorted(column) for column in zip(*rounds, strict=True))
    count, what = len(bodies), "verify: the auditor's file"
    # What else the machine does only adds: the quickest round says most of the program.
    report(f"{what}, best of {ROUNDS}, by processor time", count / used[0], "entries/s", GOAL)
    report(f"{what}, median, by processor time", count / used[ROUNDS // 2], "entries/s")
    report(f"{what}, median, by the clock", count / took[ROUNDS // 2], "entries/s")
    report("verify: its memory above the start", memory[-1] / 1024, "MiB", "< 64")


def _live(report: Report, name: str) -> None:
    made = parts.events(LIVE)
    for at in range(0, LIVE, BATCH):
        with transaction.atomic():
            writer.append(made[at : at + BATCH])
    build()
    start, used = time.perf_counter(), time.process_time()
    found = verify()
    took, used = time.perf_counter() - start, time.process_time() - used
    if not found.ok or found.size != LIVE:
        raise RuntimeError(found.problem)
    report(f"verify: live on {name}, by processor time", LIVE / used, "entries/s")
    report(f"verify: live on {name}, by the clock", LIVE / took, "entries/s")


def run(report: Report) -> None:
    """Measure all three."""
    bodies = _bodies(ENTRIES)
    _hashing(report, bodies)
    with tempfile.TemporaryDirectory() as folder:
        _offline(report, bodies, Path(folder))
    del bodies
    with parts.sqlite():
        _live(report, "SQLite")
    with parts.postgresql():
        _live(report, "PostgreSQL")
