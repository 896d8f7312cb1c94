"""moto in server mode, which speaks the protocol of AWS KMS. It keeps no log and asks nobody who they are."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.uses import machine
from bench.uses.load import Missing
from bench.uses.systems import System
from bench.uses.work import Door, Requests, Work, encode, texts

NAME = "moto server"
# moto finds the service by the credential's scope, and does not check the signature.
HEADERS = {
    "Content-Type": "application/x-amz-json-1.1",
    "Authorization": "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/kms/aws4_request, "
    "SignedHeaders=host, Signature=0",
}
STRANGE = ("AWS_", "MOTO_", "PYTHON", "KMS_")


@contextlib.contextmanager
def running(folder: Path) -> Iterator[System]:
    """Run moto's server with two keys. Raises Missing."""
    if importlib.util.find_spec("moto") is None:
        raise Missing("the development dependencies: make setup")
    port = machine.free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server"]
    command += ["-H", "127.0.0.1", "-p", str(port)]
    environment = {name: text for name, text in os.environ.items() if not name.startswith(STRANGE)}
    log = folder / "moto.log"
    with machine.running(command, environment, log) as pid:
        door = Door(f"127.0.0.1:{port}", HEADERS)
        machine.until_answers(door.address, pid, log, "/moto-api/")
        yield System(NAME, (door.address,), _requests(door), {"server": (pid,)})


def _requests(door: Door) -> Requests:
    data = _ask(door, "CreateKey", {})["KeyMetadata"]["KeyId"]
    specification = {"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}
    p256 = _ask(door, "CreateKey", specification)["KeyMetadata"]["KeyId"]
    opened = []
    for text in texts(Work.DECRYPT):
        body = {"KeyId": data, "Plaintext": encode(text)}
        opened.append({"CiphertextBlob": _ask(door, "Encrypt", body)["CiphertextBlob"]})
        if _ask(door, "Decrypt", opened[-1])["Plaintext"] != encode(text):
            raise RuntimeError("what moto encrypted does not come back")
    signing = {"KeyId": p256, "SigningAlgorithm": "ECDSA_SHA_256"}
    bodies: dict[Work, tuple[str, list[Any]]] = {
        Work.ENCRYPT: (
            "Encrypt",
            [{"KeyId": data, "Plaintext": encode(text)} for text in texts(Work.ENCRYPT)],
        ),
        Work.DECRYPT: ("Decrypt", opened),
        Work.DATA_KEY: ("GenerateDataKey", [{"KeyId": data, "KeySpec": "AES_256"}]),
        Work.SIGN_P256: (
            "Sign",
            [{**signing, "Message": encode(text)} for text in texts(Work.SIGN_P256)],
        ),
    }
    return {
        work: [door.request("/", body, X_Amz_Target=f"TrentService.{action}") for body in rows]
        for work, (action, rows) in bodies.items()
    }


def _ask(door: Door, action: str, body: dict[str, str]) -> Any:
    return door.ask("/", body, X_Amz_Target=f"TrentService.{action}")
