"""OpenBao's transit engine: integrated storage, a file as audit device, an ordinary service token."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.uses import machine
from bench.uses.load import Missing
from bench.uses.systems import System
from bench.uses.work import Door, Requests, Work, batches, encode, texts
from tests.peers import openbao

NAME = "OpenBao"
KEYS = {"data": "aes256-gcm96", "p256": "ecdsa-p256", "ed25519": "ed25519"}
CONFIGURATION = """
ui = false
api_addr = "http://{address}"
cluster_addr = "http://{cluster}"
log_level = "error"
listener "tcp" {{
  address = "{address}"
  cluster_address = "{cluster}"
  tls_disable = true
}}
storage "raft" {{
  path = "{folder}/raft"
  node_id = "bench"
}}
audit "file" "bench" {{
  options = {{
    file_path = "{folder}/audit.log"
  }}
}}
"""
POLICY = "\n".join(
    f'path "transit/{operation}/*" {{ capabilities = ["update"] }}'
    for operation in ("encrypt", "decrypt", "datakey/plaintext", "sign")
)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[System]:
    """Run a server, unsealed, with keys and a token that may only use them. Raises Missing."""
    try:
        program = openbao.binary()
    except openbao.NotBuilt as error:
        raise Missing(str(error)) from None
    address, cluster = (f"127.0.0.1:{machine.free_port()}" for _ in range(2))
    (folder / "raft").mkdir()
    configuration = folder / "configuration.hcl"
    text = CONFIGURATION.format(address=address, cluster=cluster, folder=folder)
    configuration.write_text(text, encoding="utf-8")
    command = [str(program), "server", f"-config={configuration}"]
    environment = {"HOME": str(folder), "PATH": os.defpath}
    log = folder / "openbao.log"
    with machine.running(command, environment, log) as pid:
        machine.until_answers(address, pid, log, "/v1/sys/health")
        token = _prepared(address)
        door = Door(address, {"X-Vault-Token": token, "Content-Type": "application/json"})
        requests = _requests(door)
        if not (folder / "audit.log").stat().st_size:
            raise RuntimeError("OpenBao wrote nothing to its audit device")
        yield System(NAME, (address,), requests, {"server": (pid,)})


def _prepared(address: str) -> str:
    """Initialise and unseal a new server, make its keys and return a token for their use."""
    new = Door(address, {})
    made = new.ask("/v1/sys/init", {"secret_shares": 1, "secret_threshold": 1}, "PUT")
    new.ask("/v1/sys/unseal", {"key": made["keys"][0]}, "PUT")
    root = Door(address, {"X-Vault-Token": made["root_token"]})
    _until_active(root)
    root.ask("/v1/sys/mounts/transit", {"type": "transit"})
    for name, kind in KEYS.items():
        root.ask(f"/v1/transit/keys/{name}", {"type": kind})
    root.ask("/v1/sys/policies/acl/bench", {"policy": POLICY})
    wanted = {"policies": ["bench"], "no_parent": True, "ttl": "4h"}
    return str(root.ask("/v1/auth/token/create", wanted)["auth"]["client_token"])


def _until_active(root: Door) -> None:
    """Wait until the only member of the cluster leads it."""
    for _ in range(200):
        with contextlib.suppress(RuntimeError):
            if not root.ask("/v1/sys/leader", None, "GET").get("is_self"):
                raise RuntimeError
            root.ask("/v1/sys/mounts", None, "GET")
            return
        time.sleep(0.1)
    raise RuntimeError("OpenBao does not become active")


def _requests(door: Door) -> Requests:
    opened = []
    for text in texts(Work.DECRYPT):
        sealed = door.ask("/v1/transit/encrypt/data", {"plaintext": encode(text)})
        body = {"ciphertext": sealed["data"]["ciphertext"]}
        if door.ask("/v1/transit/decrypt/data", body)["data"]["plaintext"] != encode(text):
            raise RuntimeError("what OpenBao encrypted does not come back")
        opened.append(body)
    bodies: Mapping[Work, tuple[str, list[Any]]] = {
        Work.ENCRYPT: ("encrypt/data", [_plain(text) for text in texts(Work.ENCRYPT)]),
        Work.DECRYPT: ("decrypt/data", opened),
        Work.DATA_KEY: ("datakey/plaintext/data", [{"bits": 256}]),
        Work.SIGN_P256: ("sign/p256", [_input(text) for text in texts(Work.SIGN_P256)]),
        Work.SIGN_ED25519: ("sign/ed25519", [_input(text) for text in texts(Work.SIGN_ED25519)]),
        **{
            work: (
                "encrypt/data",
                [{"batch_input": [_plain(text) for text in batch]} for batch in batches(work)],
            )
            for work in (Work.BATCH_1K, Work.BATCH_100)
        },
    }
    return {
        work: [door.request(f"/v1/transit/{path}", body) for body in rows]
        for work, (path, rows) in bodies.items()
    }


def _plain(text: bytes) -> dict[str, str]:
    return {"plaintext": encode(text)}


def _input(text: bytes) -> dict[str, str]:
    return {"input": encode(text)}
