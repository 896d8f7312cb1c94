from __future__ import annotations

pytest_plugins = ["tests.databases", "tests.hsm", "tests.processes", "tests.house"]
