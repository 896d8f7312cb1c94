"""The command line of `up`, and the order of a whole run."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from kms_console import environment
from kms_console.supervisor import Refusal, parts, preflight, processes
from kms_console.supervisor.folder import DataFolder, lock, open_folder
from kms_console.supervisor.house import House, Stopped, StopSignals
from kms_console.supervisor.parts import Address

HELP = "Start web, worker, beat, signer, trail and (without REDIS_URL) a broker; Ctrl-C stops all."
STOP_ORDER = ["prepare", "load_demo", "web", "beat", "worker", "trail", "signer", "broker"]
LEFTOVER_GRACE = 10.0
ENDED_AT_ONCE = 130
MOST_WEB_PROCESSES = 64


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    address: Address
    data: Path
    demo: bool
    web_processes: int = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `up`."""
    data = os.environ.get("KMS_DATA", str(parts.BASE_DIR / "var"))
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8000, help="port (default: 8000)")
    parser.add_argument(
        "--data", default=data, help="folder for all data (default: KMS_DATA or ./var)"
    )
    parser.add_argument(
        "--demo", action="store_true", help="load the worked example; this machine only"
    )
    parser.add_argument(
        "--web-processes",
        type=_processes,
        default=os.environ.get("KMS_WEB_PROCESSES", "1"),
        help="web processes at that port, with PostgreSQL (default: KMS_WEB_PROCESSES or 1)",
    )


def _port(word: str) -> int:
    value = int(word) if word.isascii() and word.isdigit() else 0
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{word!r} is not a port from 1 to 65535")
    return value


def _processes(word: str) -> int:
    value = int(word) if word.isascii() and word.isdigit() else 0
    if not 1 <= value <= MOST_WEB_PROCESSES:
        raise argparse.ArgumentTypeError(f"{word!r} is not a number from 1 to {MOST_WEB_PROCESSES}")
    return value


def main(arguments: Sequence[str]) -> int:
    """Run `up` with these arguments and return its exit code, before any settings are loaded."""
    parser = argparse.ArgumentParser(prog="manage.py up", description=HELP)
    add_arguments(parser)
    chosen = parser.parse_args(list(arguments))
    return up(
        chosen.host,
        chosen.port,
        chosen.data,
        demo=chosen.demo,
        web_processes=chosen.web_processes,
    )


def up(host: str, port: int, data: str, *, demo: bool, web_processes: int = 1) -> int:
    """Start everything, watch it, stop it. Returns 0 where somebody ended it, 1 where it failed."""
    options = Options(Address(host, port), Path(data).expanduser(), demo, web_processes)
    signals = StopSignals()
    signals.install()
    os.umask(0o077)  # whatever we and our children write is this user's alone
    try:
        if demo:
            preflight.check_demo(host)
        _check_web_processes(web_processes)
        preflight.check_parts(parts.has_own_broker())
        folder = open_folder(options.data)
        with lock(folder):
            pid_files = _pid_files(folder)
            processes.end_leftovers(pid_files, LEFTOVER_GRACE, say)
            preflight.check_port(options.address)
            return _run(options, folder, signals)
    except (Refusal, ImproperlyConfigured) as refusal:
        print(f"up: {refusal}", file=sys.stderr, flush=True)  # noqa: T201
        return 1


def _check_web_processes(count: int) -> None:
    """Raises Refusal where several web processes can't work together here."""
    if count == 1:
        return
    if not parts.SHARES_PORTS:
        raise Refusal("Several web processes at one port need Linux: leave --web-processes out.")
    if not environment.text("DATABASE_URL", "").startswith("postgres"):
        raise Refusal(
            f"--web-processes {count} needs PostgreSQL (DATABASE_URL): SQLite has one writer, and "
            "one web process."
        )


def _pid_files(folder: DataFolder) -> list[Path]:
    """Return where an earlier run recorded its processes, in the order in which they are stopped."""
    found: list[Path] = []
    for name in STOP_ORDER:
        several = sorted(folder.run.glob(f"{name}-*.pid")) if name == parts.WEB else []
        found += [folder.run / f"{name}.pid", *several]
    return found


def _run(options: Options, folder: DataFolder, signals: StopSignals) -> int:
    house = House(folder, signals, say, stop_order=STOP_ORDER)
    try:
        _start(house, options, folder)
        house.watch()
    except Stopped:
        pass
    finally:
        # Also after a refusal or a fault of our own: nothing that we started stays behind.
        house.stop()
    if signals.at_once:
        say("Ended at once.")
        return ENDED_AT_ONCE
    say("Stopped. The data stays where it is.")
    return 0


def _start(house: House, options: Options, folder: DataFolder) -> None:
    count = options.web_processes
    environ = parts.child_environment(folder, options.address, web_processes=count)
    if not parts.has_own_broker():
        socket = environment.broker_socket(folder.path)
        if socket.parent != folder.run:
            say(f"The data folder's path is too long for a socket: the broker uses {socket}.")
            environment.private_folder(socket.parent)
        house.start(parts.broker(folder, environ))
        house.wait_for_broker(socket)
    say("Preparing the databases…")
    house.step(parts.manage("prepare", environ))
    accounts = ""
    if options.demo:
        say("Loading the worked example…")
        accounts = house.ask(parts.manage("load_demo", environ))
    say("Starting worker, beat and web…")
    house.start(parts.worker(folder, environ))
    house.start(parts.beat(folder, environ))
    for web in parts.webs(options.address, environ, count):
        house.start(web)
    ready = house.wait_until_ready(str(options.address.reachable()), environ)
    if ready.status != "ok":
        say(f"Degraded: {ready.reason}.")
    # Not before: nobody waits for them, and their start would make everybody wait for the rest.
    house.start(parts.signer(environ))
    house.start(parts.trail(environ))
    _announce(options, folder, accounts)


def _announce(options: Options, folder: DataFolder, accounts: str) -> None:
    say("")
    say(f"KMS Console is ready:  {options.address.reachable()}")
    say(f"  data   {folder.path}")
    say(f"  logs   {folder.logs}")
    say("  stop   Ctrl-C (twice: at once)")
    if not preflight.is_loopback(options.address.host):
        say("  note   plain HTTP beyond this machine: put TLS in front, set TLS and ALLOWED_HOSTS")
    if accounts.strip():
        say("")
        say(accounts.rstrip())
    say("")


def say(line: str) -> None:
    """Print a line for whoever started us. A reader who has gone away is no reason to end."""
    with contextlib.suppress(OSError):
        print(line, flush=True)  # noqa: T201
