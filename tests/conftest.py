"""Fixtures live in plugins by what they bring: databases, an HSM, processes, the cast."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator

import pytest

# Settings make their own secrets and folders where they are loaded: not those of `make run`.
os.environ.setdefault("KMS_DATA", tempfile.mkdtemp(prefix="kms-tests-"))

pytest_plugins = [
    "tests.databases",
    "tests.hsm",
    "tests.processes",
    "tests.house",
    "tests.peers.openbao",
    "tests.peers.aws",
    "tests.peers.google",
    "tests.peers.azure",
]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without the garbage collector, to which all they are made of is none."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_configure() -> None:
    """Let servers of a busy machine take their time; a test about slowness sets its own limits."""
    from keys.backends.aws import connection as aws
    from keys.backends.azure import connection as azure
    from keys.backends.gcp import connection as gcp
    from keys.backends.vault import connection as vault

    for one in (aws, azure):
        one.CONNECT_SECONDS, one.READ_SECONDS = 60, 60
    gcp.CALL_SECONDS = gcp.TOKEN_SECONDS = 60.0
    vault.TIMEOUTS = (60.0, 60.0)
