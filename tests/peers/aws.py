"""moto and ministack, which speak the protocol of AWS KMS; a real account instead by PEER_AWS_URL.

moto runs in the project's own environment; ministack in a virtual environment of its own, outside
the tree, made from tests/peers/ministack.txt (`python -m tests.peers.aws` only makes that). Both
have every region there is a name for, and a test's fresh place is a region that nobody used.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.parts import missing
from tests.peers.peer import Peer
from tests.processes import Process, eventually

PINNED = Path(__file__).with_name("ministack.txt")
# An access key of twelve digits is the account's number to both servers; neither checks the secret.
CREDENTIAL = json.dumps(
    {"access_key_id": "111122223333", "secret_access_key": "not-a-secret-of-anybody"}
).encode()
# What moto keeps no AES of: an RSA key encrypts with AES there, and PSS salts are as long as fits.
MOTO_GAPS = frozenset(
    {"import", "states", "deletes", "identity", "agreement", "rsa", "digests", "period", "specs"}
)
# Its symmetric ciphertexts are a key stream without a tag, and it takes them for any key.
MINISTACK_GAPS = frozenset({"rotation", "deletes", "identity", "agreement", "sealing", "specs"})


def _place(endpoint: str, numbers: Iterator[int]) -> Mapping[str, str]:
    return {"region": f"xx-peer-{next(numbers)}", "endpoint": endpoint}


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """moto's server; the account of PEER_AWS_URL instead, where that is set."""
    if os.environ.get("PEER_AWS_URL"):
        yield _real()
        return
    environment = {**_plain(), "MOTO_ALLOW_NONEXISTENT_REGION": "true"}
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1"]
    folder = tmp_path_factory.mktemp("moto")

    def start(port: int) -> Process:
        return Process([*command, "-p", str(port)], environment, folder / f"{port}.log")

    yield from _running(start, "moto in server mode", MOTO_GAPS)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    """ministack's server; the account of PEER_AWS_URL instead, where that is set."""
    if os.environ.get("PEER_AWS_URL"):
        yield _real()
        return
    python = prepared()
    folder = tmp_path_factory.mktemp("ministack")
    environment = {
        **_plain(),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "SERVICES": "kms,tagging,sts",
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
        "TMPDIR": str(folder),
        # No container engine is looked for.
        "DOCKER_HOST": f"unix://{folder}/none",
    }

    def start(port: int) -> Process:
        chosen = {**environment, "GATEWAY_PORT": str(port)}
        return Process([str(python), "-m", "ministack"], chosen, folder / f"{port}.log")

    yield from _running(start, "ministack", MINISTACK_GAPS)


def _running(start: Callable[[int], Process], whose: str, gaps: frozenset[str]) -> Iterator[Peer]:
    numbers, port = itertools.count(1), _free_port()
    process = start(port)
    try:
        eventually(lambda: process.popen.poll() is not None or _answers(port))
        if process.popen.poll() is not None:
            # Somebody else took the port since it was found free.
            port = _free_port()
            process = start(port)
            eventually(lambda: process.popen.poll() is not None or _answers(port))
        assert process.popen.poll() is None, f"the server ended:\n{process.text}"
        endpoint = f"http://127.0.0.1:{port}"
        yield Peer("aws", whose, lambda: _place(endpoint, numbers), CREDENTIAL, gaps)
    finally:
        process.stop()


def _real() -> Peer:
    """A real account by the SDK's own credentials. All tests share one region: nothing is empty there."""
    settings = {"region": os.environ.get("PEER_AWS_REGION", "us-east-1")}
    if os.environ["PEER_AWS_URL"] != "default":
        settings["endpoint"] = os.environ["PEER_AWS_URL"]
    return Peer("aws", "a real account of AWS", lambda: settings, None, frozenset({"deletes"}))


def served(peer: Peer) -> Peer:
    """Skip what needs an empty region or a spoiled answer where a real account is asked."""
    if peer.credential is None:
        pytest.skip(f"{peer.whose} is neither empty nor to be spoiled")
    return peer


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # it speaks HTTP, and that is enough
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _plain() -> dict[str, str]:
    """Return the environment without what would change the server or its SDK."""
    strange = ("AWS_", "MOTO_", "MINISTACK_", "PYTHON", "COVERAGE", "PYTEST", "KMS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(strange)}


# --- ministack's own environment


def prepared() -> Path:
    """Return the Python of ministack's environment, made where it isn't there yet.

    Two processes that want it at once make it once. The version and the hashes of everything in it
    are those of ministack.txt; another file makes another environment.
    """
    folder = _cache() / f"ministack-{_version()}"
    python = folder / "bin" / "python"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "ministack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _complete(folder):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        _make(folder)
    return python


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kms-console" / "peers"


def _version() -> str:
    lines = PINNED.read_text().splitlines()
    (pin,) = [line for line in lines if line.startswith("ministack==")]
    return pin.split()[0].removeprefix("ministack==")


def _complete(folder: Path) -> bool:
    made_from = folder / "made-from.txt"
    return made_from.exists() and made_from.read_bytes() == PINNED.read_bytes()


def _make(folder: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    python = str(folder / "bin" / "python")
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", str(PINNED)],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            what = f"ministack {_version()} ({' '.join(command[:4])}: {done.stderr.strip()[-300:]})"
            missing(what, "access to a package index, then run `make peers`")
    # Last, and whole at once: an environment without it is made anew.
    temporary = folder / f"made-from.{secrets.token_hex(4)}"
    temporary.write_bytes(PINNED.read_bytes())
    temporary.rename(folder / "made-from.txt")


if __name__ == "__main__":
    try:
        print(prepared())
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        sys.exit(str(error))
