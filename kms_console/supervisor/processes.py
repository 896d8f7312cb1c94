"""Which process is which: a pid alone may by now belong to somebody else's process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TICK_SECONDS = 0.05


def identity(pid: int) -> str | None:
    """Return what tells this process from every other that has or had the same pid.

    None where no such process runs (a zombie doesn't).
    """
    return _linux_identity(pid) if sys.platform == "linux" else _ps_identity(pid)


def _linux_identity(pid: int) -> str | None:
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    # The command's name stands in brackets and may hold blanks and brackets itself. After it come
    # the state (field 3) and, as field 22, the start in clock ticks since boot.
    fields = content.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"


def _ps_identity(pid: int) -> str | None:
    """Return start time and command line as `ps` tells them, on macOS and the BSDs."""
    answer = subprocess.run(  # noqa: S603  (fixed words and a number)
        ["/bin/ps", "-ww", "-o", "state=,lstart=,command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C"},
    )
    state, _, rest = answer.stdout.strip().partition(" ")
    return None if not rest or state.startswith("Z") else rest.strip()


def write_pid_file(path: Path, pid: int) -> None:
    """Record a process of ours, so that the next run can end it if this one can't."""
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"pid": pid, "identity": identity(pid)}), encoding="ascii")
    draft.replace(path)


def running(path: Path) -> int | None:
    """Return the pid that a pid file records if that very process still runs, else None."""
    try:
        record = json.loads(path.read_text(encoding="ascii"))
        pid, known = int(record["pid"]), record["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if pid > 1 and known is not None and identity(pid) == known else None


def signal_group(pid: int, number: int) -> None:
    """Send a signal to the process group that `pid` leads; nothing happens where it's gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def end_leftovers(paths: Sequence[Path], grace: float, say: Callable[[str], None]) -> None:
    """End what an earlier run left behind, in the given order, and remove its pid files.

    Each process gets SIGTERM and `grace` seconds, then its whole group is killed.
    """
    for path in paths:
        pid = running(path)
        if pid is not None:
            say(f"Ending {path.stem} (process {pid}), left by an earlier run.")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + grace
            while running(path) is not None and time.monotonic() < deadline:
                time.sleep(TICK_SECONDS)
            if running(path) is not None:
                signal_group(pid, signal.SIGKILL)
                while running(path) is not None:
                    time.sleep(TICK_SECONDS)
        path.unlink(missing_ok=True)
