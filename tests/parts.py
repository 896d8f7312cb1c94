"""Parts of the machine that some tests need.

Where one is missing, its tests skip with a line that says what to install. In CI (`CI=true`) a
missing part is a failure.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, install: str) -> NoReturn:
    """End this test: `what` is not on this machine, `install` says how to get it."""
    message = f"{what} is missing: install {install}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)
