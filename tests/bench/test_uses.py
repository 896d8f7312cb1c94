"""The bench of key use: its arithmetic, its page, and what it reads from the system."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.uses import goals, load, machine, page, plan
from bench.uses.results import Results
from bench.uses.rounds import Measured, Sample
from bench.uses.systems import openbao
from bench.uses.work import DISTINCT, ITEMS, Door, Work, batches, native, texts
from tests.parts import missing
from tests.processes import eventually


def sample(system: str, number: int, rate: float, **more: float) -> Sample:
    told = {"p50": 1.0, "p99": 2.0, "p999": 3.0, "server": 0.1, "database": 0.05, "load": 0.4}
    work = Work.ENCRYPT.value
    rest = told | more
    return Sample(plan.ONE_CORE, system, work, plan.BUSY, number, rate, errors=0, **rest)  # type: ignore[arg-type]


def three_rounds() -> list[Sample]:
    """The machine is busy in the second round, which slows both systems to a tenth."""
    ours, theirs = (900.0, 90.0, 1100.0), (300.0, 45.0, 550.0)
    return [
        sample(name, number, rate)
        for name, rates in ((plan.OURS, ours), (openbao.NAME, theirs))
        for number, rate in enumerate(rates)
    ]


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    results = Results(three_rounds())
    found = results.medians(plan.ONE_CORE, plan.OURS, Work.ENCRYPT, plan.BUSY)
    assert found is not None
    assert (found.rate, found.slowest, found.fastest) == (900.0, 90.0, 1100.0)
    asked = (plan.ONE_CORE, plan.OURS, openbao.NAME, Work.ENCRYPT, plan.BUSY)
    assert results.ratio(*asked) == 2.0  # of 3, 2 and 2, not 900 / 300
    assert results.medians(plan.FREE, plan.OURS, Work.ENCRYPT, plan.BUSY) is None


def test_goals_are_told_only_where_their_figures_were_measured() -> None:
    told = {name: (value, goal) for name, value, _, goal in goals.lines(Results(three_rounds()))}
    assert told["encrypt, 16 connections, one core: to OpenBao"] == (2.0, ">= 1.0")
    assert not [name for name in told if "moto" in name or "batch" in name or "all cores" in name]


def test_the_page_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    place = tmp_path / "benchmarks.md"
    place.write_text(f"By hand.\n{page.BEGIN}\nold\n{page.END}\nAlso by hand.\n")
    measured = Measured(three_rounds(), [], {"moto server": "needs a rest"})
    page.write(page.text(measured, [], ["one machine"]), place)
    text = place.read_text()
    assert text.startswith("By hand.\n") and text.endswith("\nAlso by hand.\n")
    assert "old" not in text
    assert "| Encrypt" not in text and "| encrypt 1 KiB | 900 | 300 |" in text
    assert "- moto server: needs a rest" in text
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    place.write_text("No marks.")
    with pytest.raises(ValueError, match="lost its marks"):
        page.write("new", place)


def test_the_page_in_the_tree_has_its_marks() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.count(page.BEGIN) == text.count(page.END) == 1


def test_every_run_asks_for_the_same() -> None:
    assert texts(Work.ENCRYPT) == texts(Work.ENCRYPT)
    assert len(texts(Work.ENCRYPT)) == len(set(texts(Work.ENCRYPT))) == DISTINCT
    assert {len(text) for text in texts(Work.ENCRYPT)} == {1024}
    assert [len(batch) for batch in batches(Work.BATCH_100)] == [ITEMS, ITEMS]
    assert {len(text) for batch in batches(Work.BATCH_100) for text in batch} == {100}


def test_requests_are_whole_as_they_go_over_the_wire() -> None:
    door = Door("127.0.0.1:1", {"Authorization": "Bearer token"})
    works = {Work.BATCH_100_GCM: {"algorithm": "AES_256_GCM"}, Work.SIGN_P256: {}}
    made = native(door, {"data": "invoices", "p256": "signing"}, works)
    head, _, body = made[Work.BATCH_100_GCM][0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /api/v1/keys/invoices/encrypt/batch HTTP/1.1"
    assert f"Content-Length: {len(body)}" in lines and "Host: 127.0.0.1:1" in lines
    items = json.loads(body)["items"]
    assert {tuple(sorted(item)) for item in items} == {("algorithm", "plaintext")}
    assert made[Work.SIGN_P256][0].startswith(b"POST /api/v1/keys/signing/sign HTTP/1.1\r\n")


BURN = "import time\nwhile time.process_time() < 0.15: pass"


def test_processor_time_is_that_of_all_descendants_and_of_those_that_ended() -> None:
    # The child ends at once after its work; its parent collects it and stays.
    child = f"subprocess.run([sys.executable, '-c', {BURN!r}])"
    script = f"import subprocess, sys\n{child}\nprint('ended', flush=True)\ninput()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert parent.stdout is not None and parent.stdout.readline() == b"ended\n"
        assert machine.tree([parent.pid]) == [parent.pid]
        assert machine.processor([parent.pid]) >= 0.15
        assert machine.peak(parent.pid) > 1
        assert machine.memory([parent.pid]) > 1
        machine.pause([parent.pid])
        eventually(lambda: machine._state(parent.pid) == "T")
        machine.resume([parent.pid])
        eventually(lambda: machine._state(parent.pid) != "T")
    finally:
        parent.kill()
        parent.communicate()


def test_systems_start_on_the_cores_that_they_are_given() -> None:
    before = machine.cores()
    with machine.on(before[:1]):
        told = subprocess.run(
            ["cat", "/proc/self/status"], capture_output=True, text=True, check=True
        )
        assert f"Cpus_allowed_list:\t{before[0]}\n" in told.stdout
    assert machine.cores() == before == sorted(os.sched_getaffinity(0))


class Answers(http.server.BaseHTTPRequestHandler):
    """One answer in three has no fault, one says no, one closes the connection."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(503 if self.path == "/no" else 200)
        if self.path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nyes\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", "3")
        if self.path == "/close":
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"no!" if self.path == "/no" else b"yes")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@contextmanager
def answering() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.exhaustive  # compiles Go's network library where its cache is empty
def test_the_load_generator_counts_what_the_server_was_asked(tmp_path: Path) -> None:
    try:
        loader = load.Loader(tmp_path)
    except load.Missing as error:
        missing("the load generator", str(error))
    with answering() as address:
        door = Door(address, {})
        for work, paths in (
            (Work.ENCRYPT, ["/yes", "/chunks"]),
            (Work.DECRYPT, ["/close"]),
            (Work.DATA_KEY, ["/yes", "/no"]),
        ):
            loader.keep("ours", {work: [door.request(path, {}) for path in paths]})
            Answers.asked = 0
            came = loader("ours", [address], work, 2, 0.3)
            assert 0 < came.requests <= came.served
            assert came.served + came.errors == Answers.asked
            assert 0 < came.p50 <= came.p99 <= came.p999
            assert (came.reconnects > 0) is (work is Work.DECRYPT)
            assert (came.errors > 0) is (work is Work.DATA_KEY)
            assert came.errors == 0 or came.first_error.startswith("503")
