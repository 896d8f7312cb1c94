"""Fixtures live in plugins by what they bring: databases, an HSM, processes, the cast."""

from __future__ import annotations

import os
import tempfile

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
