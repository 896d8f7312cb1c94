"""Taking a long log out: rows a second in each format, and what it costs in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from django.db import connections, transaction

from audit import exports, index, store, tiles
from audit.models import Export
from audit.search import Filters
from bench import parts

SMALL, LARGE = 200_000, 10_000_000
CHUNK = 5000
ROWS_A_SECOND = ">= 200,000"
MEMORY = "< 64"
FORMATS = ("csv", "ocsf", "cef")


def run(report: Callable[..., None]) -> None:
    """Export as JSON Lines from both databases, and in the other formats from PostgreSQL."""
    count = LARGE if getattr(report, "large", False) else SMALL
    for vendor, database in parts.DATABASES.items():
        with database() as made:
            _fill(count if vendor == "postgresql" else SMALL)
            _measure(report, vendor, made.url)


def _fill(count: int) -> None:
    connection, uses = connections["default"], parts.Uses()
    for start in range(0, count, CHUNK):
        events = [uses.make() for _ in range(min(CHUNK, count - start))]
        with transaction.atomic():
            head = store.read_head(connection, lock=True)
            store.extend(connection, head, events, epoch=head.epoch)
    tiles.build(limit=count)
    while index.build(limit_blocks=64):
        pass
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE audit_entry")


def _measure(report: Callable[..., None], vendor: str, url: str) -> None:
    rate, length, took = _take("jsonl", Filters())
    report(f"export jsonl, {vendor}", rate, "rows/s", ROWS_A_SECOND)
    report(f"export jsonl, {vendor}", length / took / 1e6, "MB/s")
    memory = _memory(url, "jsonl")
    report(f"export jsonl, {vendor}, memory above the start's", memory, "MB", MEMORY)
    rate, _, _ = _take("jsonl", Filters(outcome="denied"))
    report(f"export jsonl, {vendor}, one row in fifty", rate, "rows/s")
    if vendor != "postgresql":
        return
    for format in FORMATS:
        rate, _, _ = _take(format, Filters())
        report(f"export {format}, {vendor}", rate, "rows/s")
    _evidence(report)
    report("export csv, memory above the start's", _memory(url, "csv"), "MB", MEMORY)


def _evidence(report: Callable[..., None]) -> None:
    from django.test import override_settings

    from audit.checkpoints.signer import Signer

    with TemporaryDirectory() as folder, override_settings(SIGNER_FOLDER=folder):
        signer = Signer(Path(folder))
        signer.open()
        signer.look(at_once=True)
        signer.close()
        rate, _, _ = _take("evidence", Filters())
        report("export evidence of the whole log", rate, "rows/s")
        rate, _, _ = _take("evidence", Filters(outcome="denied"))
        report("export evidence with a proof for each entry", rate, "rows/s")
        row = _row("evidence", Filters())
        length = exports.length(row)
        began = time.perf_counter()
        next(iter(exports.content(row, length * 2 // 3)))
        report("evidence taken up again at two thirds", (time.perf_counter() - began) * 1000, "ms")


def _row(format: str, filters: Filters) -> Export:
    size = exports.size_now(format)
    return exports.create(uuid.uuid4(), uuid.uuid4(), filters, format, size)


def _take(format: str, filters: Filters) -> tuple[float, int, float]:
    """Return rows a second, bytes, and seconds."""
    row = _row(format, filters)
    began = time.perf_counter()
    length = sum(len(piece) for piece in exports.content(row))
    took = time.perf_counter() - began
    row.refresh_from_db()
    return (row.entries or 0) / took, length, took


_ALONE = """
import re, sys, django
django.setup()
from audit import exports
from audit.search import Filters
exports.size_now("jsonl")
def peak(): return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
for piece in exports.streamed(Filters(), sys.argv[1]):
    pass
print(peak() - before)
"""


def _memory(url: str, format: str) -> float:
    """Return by how many MB a process of its own grows that does nothing but export.

    From VmHWM (Linux): what getrusage tells is inherited from the process that started it.
    """
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, format],
        env=os.environ | {"DATABASE_URL": url, "LOG_LEVEL": "WARNING"},
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout) / 1024
