"""The supervisor's own rules, on small children that misbehave in every way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kms_console.supervisor import Refusal, processes
from kms_console.supervisor.child import Child, Part, RestartPolicy
from kms_console.supervisor.folder import DataFolder, open_folder
from kms_console.supervisor.house import House, Stopped, StopSignals
from tests.parts import missing

WAITS = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WAITS
QUICK = RestartPolicy(first_pause=0.01, longest_pause=0.02, failures=3)


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return open_folder(tmp_path / "data")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def house(folder: DataFolder, said: list[str]) -> Iterator[House]:
    house = House(folder, StopSignals(), said.append, QUICK)
    yield house
    for child in house.children:
        child.kill()


def part(name: str, code: str, grace: float = 60.0) -> Part:
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return Part(name, [sys.executable, "-c", code], grace, Path.cwd(), environ)


def wait_for_log(child: Child, text: str) -> None:
    deadline = time.monotonic() + 60
    while not any(text in line for line in child.last_lines(100)):
        assert time.monotonic() < deadline, f"no {text!r} in {child.log}"
        time.sleep(0.01)


def test_children_stop_in_the_opposite_order_of_their_start(
    house: House, folder: DataFolder, said: list[str]
) -> None:
    for name in ("one", "two", "three"):
        house.start(part(name, WAITS))
    pids = [child.pid for child in house.children]
    assert house.stop()
    assert [line.split()[1] for line in said] == ["three", "two", "one"]
    assert all(pid is not None and processes.identity(pid) is None for pid in pids)
    assert list(folder.run.glob("*.pid")) == []


def test_who_does_not_hear_is_killed_after_its_grace(house: House, said: list[str]) -> None:
    house.start(part("deaf", DEAF, grace=0.2))
    wait_for_log(house.children[0], "up")
    assert not house.stop()
    assert said[-1] == "deaf did not end in 0.2 s: killed."


def test_a_child_that_keeps_dying_is_started_again_and_then_given_up(
    house: House, said: list[str]
) -> None:
    house.start(part("short", "import sys; print('no luck'); sys.exit(3)"))
    with pytest.raises(Refusal, match=r"short ended by itself \(exit code 3\), 3 times in a row"):
        house.watch()
    assert len([line for line in said if "starting it again in" in line]) == 2


def test_pauses_between_restarts_double_up_to_a_bound() -> None:
    policy = RestartPolicy(first_pause=1, longest_pause=5)
    assert [policy.pause(failures) for failures in (1, 2, 3, 4, 5)] == [1, 2, 4, 5, 5]


def test_a_step_that_fails_is_told_with_its_last_line(house: House, folder: DataFolder) -> None:
    with pytest.raises(Refusal, match="prepare failed: no such disk"):
        house.step(part("prepare", "import sys; print('trying'); sys.exit('no such disk')"))
    assert (folder.logs / "prepare.log").read_text() == "trying\nno such disk\n"


def test_what_a_step_answers_is_returned_and_written_nowhere(
    house: House, folder: DataFolder
) -> None:
    code = "import sys; print('password: correct horse'); print('working', file=sys.stderr)"
    assert house.ask(part("load_demo", code)) == "password: correct horse\n"
    assert (folder.logs / "load_demo.log").read_text() == "working\n"
    content = b"".join(p.read_bytes() for p in folder.path.rglob("*") if p.is_file())
    assert b"horse" not in content


def test_warnings_errors_and_tracebacks_are_shown_and_the_rest_is_not(
    house: House, said: list[str]
) -> None:
    lines = [
        "2026-01-01 10:00:00,000 INFO    keys: all is well",
        "2026-01-01 10:00:00,000 WARNING keys: not so well",
        "  and more of it",
        "2026-01-01 10:00:00,000 INFO    keys: well again",
        "nothing in particular",
        "ERROR:    uvicorn's way",
        "INFO:     uvicorn again",
        "Traceback (most recent call last):",
        "ValueError: of nobody",
    ]
    house.step(part("part", f"print({chr(10).join(lines)!r})"))
    assert said == [f"part: {lines[index]}" for index in (1, 2, 5, 7, 8)]


def test_a_signal_ends_a_step_that_takes_long(house: House, said: list[str]) -> None:
    before = {number: signal.getsignal(number) for number in StopSignals.NUMBERS}
    try:
        house._signals.install()
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Stopped):
            house.step(part("prepare", WAITS))
        assert house.stop()
        assert [line.split()[1] for line in said] == ["prepare"]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_part_that_is_not_there_is_refused(house: House) -> None:
    with pytest.raises(Refusal, match="ghost can't be started: No such file"):
        house.start(Part("ghost", ["/no/such/program"], 1, Path.cwd(), {}))


def test_a_pid_file_of_another_process_ends_nobody(folder: DataFolder) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.DEVNULL)
    said: list[str] = []
    try:
        path = folder.run / "web.pid"
        # Its number was once ours; by now it belongs to somebody who started at another time.
        path.write_text(json.dumps({"pid": stranger.pid, "identity": "another boot:12345"}))
        processes.end_leftovers([path], 1.0, said.append)
        assert stranger.poll() is None
        assert said == []
        assert not path.exists()
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("content", ["", "12", "[]", "{}", '{"pid": "x", "identity": ""}', "\x00"])
def test_a_broken_pid_file_names_nobody(folder: DataFolder, content: str) -> None:
    path = folder.run / "web.pid"
    path.write_text(content)
    assert processes.running(path) is None


def test_a_leftover_that_does_not_hear_is_killed(folder: DataFolder) -> None:
    deaf = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, process_group=0)
    try:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"up\n"
        path = folder.run / "worker.pid"
        processes.write_pid_file(path, deaf.pid)
        said: list[str] = []
        processes.end_leftovers([path], 0.2, said.append)
        assert said == [f"Ending worker (process {deaf.pid}), left by an earlier run."]
        assert deaf.wait(60) == -signal.SIGKILL
    finally:
        deaf.kill()
        deaf.communicate()


def test_ps_tells_processes_apart_too() -> None:
    """What macOS uses."""
    if not Path("/bin/ps").exists():
        missing("ps", "procps")
    own = processes._ps_identity(os.getpid())
    assert own is not None
    assert own == processes._ps_identity(os.getpid())
    assert own != processes._ps_identity(os.getppid())
    assert processes._ps_identity(2**22 + 1) is None


def test_a_stop_order_counts_more_than_the_order_of_the_start(
    folder: DataFolder, said: list[str]
) -> None:
    house = House(folder, StopSignals(), said.append, QUICK, stop_order=["one", "three"])
    try:
        for name in ("one", "two", "three", "four"):
            house.start(part(name, WAITS))
        assert house.stop()
        assert [line.split()[1] for line in said] == ["four", "two", "one", "three"]
    finally:
        for child in house.children:
            child.kill()


def test_what_is_not_vital_is_started_again_however_often_it_dies(
    house: House, said: list[str]
) -> None:
    dying = replace(part("signer", "import sys; sys.exit(1)"), vital=False)
    house.start(dying)
    while len([line for line in said if "starting it again in" in line]) < QUICK.failures + 2:
        house._tick()
    assert house.stop()
