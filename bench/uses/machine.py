"""Processes of the systems: on which cores they run, what they use, and that only one runs at a time."""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

PATIENCE = 120.0  # against hanging, in seconds
TICK = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")
ROOT = Path(__file__).resolve().parents[2]


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


@contextlib.contextmanager
def on(wanted: Iterable[int]) -> Iterator[None]:
    """Have this thread, and the processes that it starts meanwhile, run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(wanted))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _end_with_parent() -> None:
    """Have the kernel kill a process where the bench is killed: it may be stopped just then."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """Run a process from the tree's root until the block ends; its id. Output goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=_end_with_parent,
        )
    try:
        yield process.pid
    finally:
        resume([process.pid])
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until_answers(address: str, pid: int, log: Path, path: str = "/") -> None:
    """Wait until a server speaks HTTP. Raises RuntimeError where it ended or takes too long."""
    deadline = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(address, timeout=5)
            try:
                connection.request("GET", path)
                connection.getresponse().read()
                return
            finally:
                connection.close()
        if _state(pid) in ("", "Z") or time.monotonic() > deadline:
            raise RuntimeError(f"no server at {address}: {log.read_text(errors='replace')[-800:]}")
        time.sleep(0.05)


def _stat(pid: int) -> list[str]:
    """Return what stands in a process's stat after its name, [] where there is none."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _state(pid: int) -> str:
    return (_stat(pid) or [""])[0]


def tree(roots: Iterable[int]) -> list[int]:
    """Return processes and all that descend from them, parents first."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))):
            children.setdefault(int(found[1]), []).append(int(entry.name))
    made = list(roots)
    for pid in made:
        made.extend(children.get(pid, []))
    return made


def processor(roots: Iterable[int]) -> float:
    """Return the seconds of processor time that these and their descendants used, ended ones too."""
    ticks = 0
    for pid in tree(roots):
        if found := _stat(pid):
            ticks += sum(int(found[at]) for at in (11, 12, 13, 14))  # utime stime cutime cstime
    return ticks / TICK


def peak(pid: int) -> float:
    """Return the most memory that a process ever had resident (VmHWM), in MB; 0 where unknown."""
    return _kilobytes(PROC / str(pid) / "status", "VmHWM:") / 1024


def memory(roots: Iterable[int]) -> float:
    """Return what these and their descendants have resident now, shared pages once (Pss), in MB."""
    files = [PROC / str(pid) / "smaps_rollup" for pid in tree(roots)]
    return sum(_kilobytes(file, "Pss:") for file in files) / 1024


def _kilobytes(file: Path, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1])
    return 0


def pause(roots: Iterable[int]) -> None:
    """Stop processes where they are, so that what they do in the background is not another's burden."""
    _tell(roots, signal.SIGSTOP)


def resume(roots: Iterable[int]) -> None:
    _tell(roots, signal.SIGCONT)


def _tell(roots: Iterable[int], how: signal.Signals) -> None:
    for pid in tree(roots):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
