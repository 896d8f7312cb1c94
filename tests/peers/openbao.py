"""A real OpenBao server in development mode: its storage is memory, and it ends with the tests.

`python -m tests.peers.openbao` only builds it. `openbao` is a Peer whose credential is a token with
the least-privilege policy of docs/stores/vault.md, so that the tests prove the policy, too;
`openbao_admin` is what an operator may do. With PEER_VAULT_URL (and PEER_VAULT_TOKEN, which has to
be allowed to mount engines and to make tokens) both are of a server of yours, Vault or OpenBao.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.parts import missing
from tests.peers.peer import Peer
from tests.processes import Process, eventually

BASE_DIR = Path(__file__).resolve().parent.parent.parent
SOURCE = Path(__file__).resolve().parent / "openbao_server"
POLICY = BASE_DIR / "docs" / "stores" / "vault.md"
PREFIX = "kms-console-tests-"


class NotBuilt(Exception):
    """There is no server: the message says what to install."""


def binary() -> Path:
    """Return the server's path, built where it isn't yet: minutes, once. Raises NotBuilt."""
    pinned = b"".join((SOURCE / name).read_bytes() for name in ("go.sum", "main.go"))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = folder / "kms-console" / "peers"
    built = folder / f"openbao-{hashlib.sha256(pinned).hexdigest()[:16]}"
    if built.exists():
        return built
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise NotBuilt("Go (https://go.dev)")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "openbao.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            unfinished = built.with_suffix(".unfinished")
            command = [go, "build", "-trimpath", "-mod=readonly", "-o", str(unfinished), "."]
            done = subprocess.run(command, cwd=SOURCE, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                raise NotBuilt(f"Go and its modules: the build failed, {done.stderr[-500:]}")
            unfinished.rename(built)
    return built


@dataclass(frozen=True, slots=True)
class Admin:
    """An operator's way into the server."""

    address: str
    token: str = field(repr=False)

    @property
    def port(self) -> int:
        """For a proxy in front of the server, which only goes before one of this machine."""
        parts = urlsplit(self.address)
        if parts.hostname != "127.0.0.1" or parts.port is None:
            pytest.skip("needs a server on this machine")
        return parts.port

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return an answer's JSON, {} where it has none; fail for anything but success."""
        headers = {"X-Vault-Token": self.token}
        url = f"{self.address}/v1/{path}"
        answer = requests.request(method, url, headers=headers, json=body, timeout=30)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else {}

    def mount(self) -> str:
        """Mount a transit engine and return its path."""
        path = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        self.ask("POST", f"sys/mounts/{path}", {"type": "transit"})
        return path

    def write_policy(self, name: str, text: str) -> None:
        self.ask("POST", f"sys/policies/acl/{name}", {"policy": text})

    def new_token(self, *policies: str, **more: object) -> str:
        """Return a token of its own with these policies and the server's default one."""
        body = {"policies": policies, "no_parent": True, "ttl": "4h", **more}
        return str(self.ask("POST", "auth/token/create", body)["auth"]["client_token"])

    def key(self, mount: str, name: str) -> dict[str, Any]:
        """Return how the engine describes a key."""
        return dict(self.ask("GET", f"{mount}/keys/{name}")["data"])


def documented_policy(mount: str) -> str:
    """Return the policy of the documentation, for another mount than `transit`."""
    (text,) = re.findall(r"```hcl\n(.*?)```", POLICY.read_text(encoding="utf-8"), re.S)
    return str(text).replace('path "transit/', f'path "{mount}/')


@pytest.fixture(scope="session")
def openbao_admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """The operator of this session's server."""
    address = os.environ.get("PEER_VAULT_URL")
    if address:
        admin = Admin(address.rstrip("/"), os.environ.get("PEER_VAULT_TOKEN", ""))
        yield admin
        _clean(admin)
        return
    try:
        program = binary()
    except NotBuilt as error:
        missing("OpenBao", str(error))
    with _running(program, tmp_path_factory.mktemp("openbao")) as admin:
        yield admin


@contextlib.contextmanager
def _running(program: Path, folder: Path) -> Iterator[Admin]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    admin = Admin(f"http://127.0.0.1:{port}", uuid.uuid4().hex)
    command = [str(program), "server", "-dev", "-dev-no-store-token", "-log-level=error"]
    environment = {
        "HOME": str(folder),
        "PATH": os.defpath,
        "BAO_DEV_ROOT_TOKEN_ID": admin.token,
        "BAO_DEV_LISTEN_ADDRESS": f"127.0.0.1:{port}",
    }
    process = Process(command, environment, folder / "openbao.log")
    try:
        eventually(lambda: _answers(admin, process))
        yield admin
    finally:
        # Nothing of it outlives the tests, so it needs no farewell.
        process.kill()


def _answers(admin: Admin, process: Process) -> bool:
    assert process.popen.poll() is None, f"the server ended:\n{process.text}"
    try:
        return requests.get(f"{admin.address}/v1/sys/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def _clean(admin: Admin) -> None:
    """Take away what tests left in a server that goes on living."""
    for path in admin.ask("GET", "sys/mounts")["data"]:
        if path.startswith(PREFIX):
            admin.ask("DELETE", f"sys/mounts/{path.rstrip('/')}")
    for name in admin.ask("LIST", "sys/policies/acl")["data"]["keys"]:
        if name.startswith(PREFIX):
            admin.ask("DELETE", f"sys/policies/acl/{name}")


@pytest.fixture(scope="session")
def openbao(openbao_admin: Admin) -> Peer:
    """A transit engine of its own for each place, and a token that may do what the docs say."""
    admin = openbao_admin
    policy = f"{PREFIX}store"
    # One policy for all the mounts that tests make.
    admin.write_policy(policy, documented_policy("+"))
    return Peer(
        kind="vault",
        whose="OpenBao, by the OpenBao project (a Linux Foundation project)"
        if not os.environ.get("PEER_VAULT_URL")
        else f"the server at {admin.address}",
        fresh=lambda: {"address": admin.address, "mount": admin.mount()},
        credential=admin.new_token(policy).encode(),
    )


@pytest.fixture(scope="session")
def openbao_place(openbao: Peer) -> Mapping[str, Any]:
    """Settings of an engine that tests share: its key for imports takes seconds to make."""
    return openbao.fresh()


if __name__ == "__main__":
    try:
        print(binary())
    except NotBuilt as error:
        sys.exit(f"OpenBao can't be built: install {error}")
