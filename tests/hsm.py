"""A real SoftHSM 2 token for tests, made once per test session in a folder of its own.

`softhsm` yields a Token: settings and PIN for a PKCS#11 key store, and the environment another
process needs to see the same token. Loaded as a plugin by tests/conftest.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.parts import missing

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
LABEL = "kms-console tests"
PIN = "correct-horse-1234"
SO_PIN = "operator-so-pin-5678"


@dataclass(frozen=True, slots=True)
class Token:
    """`settings` and `pin` configure a key store; `environment` is what another process needs."""

    settings: Mapping[str, object]
    pin: str
    environment: Mapping[str, str]
    folder: Path


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Token]:
    """This session's token."""
    module = next((path for path in MODULES if Path(path).exists()), None)
    tool = shutil.which("softhsm2-util")
    if module is None or tool is None:
        missing("SoftHSM 2", "the package softhsm2")
    assert module is not None and tool is not None
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    environment = {"SOFTHSM2_CONF": str(configuration)}
    # In a process of its own: the library reads its configuration once, at C_Initialize.
    initialise = [
        tool,
        "--init-token",
        "--free",
        "--label",
        LABEL,
        "--pin",
        PIN,
        "--so-pin",
        SO_PIN,
    ]
    subprocess.run(initialise, env=os.environ | environment, check=True, capture_output=True)
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ.update(environment)
    try:
        yield Token({"module": module, "token_label": LABEL}, PIN, environment, folder)
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before
