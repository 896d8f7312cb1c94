"""The client is small, stands alone, and both of its kinds are one."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kms_console_client import AsyncClient, AsyncEnvelope, Client, Envelope

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "kms_console_client").glob("*.py"))
ALLOWED = {*sys.stdlib_module_names, "cryptography", "kms_console_client"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_it_imports_the_standard_library_and_cryptography_only(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level
            names = [node.module or ""]
        assert {name.partition(".")[0] for name in names} <= ALLOWED, names


@pytest.mark.parametrize("path", FILES, ids=named)
def test_its_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 50, node.name


def test_nothing_of_the_service_needs_it() -> None:
    for room in ("audit", "keys", "kms_console"):
        for path in (ROOT / room).rglob("*.py"):
            assert "kms_console_client" not in path.read_text(encoding="utf-8"), path


def test_it_loads_nothing_but_itself_and_needs_no_settings(tmp_path: Path) -> None:
    """In a process that has the client's folder and cryptography, and no other package of ours."""
    import cryptography

    (tmp_path / "kms_console_client").symlink_to(ROOT / "kms_console_client")
    code = (
        "import sys, kms_console_client;"
        "print(sorted({n.partition('.')[0] for n in sys.modules} & {'django', 'keys', 'requests', 'urllib3'}))"
    )
    site = Path(cryptography.__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{tmp_path}{os.pathsep}{site}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize(("waiting", "awaited"), [(Client, AsyncClient), (Envelope, AsyncEnvelope)])
def test_both_kinds_have_the_same_methods_with_the_same_arguments(
    waiting: type, awaited: type
) -> None:
    ours = {n: f for n, f in vars(waiting).items() if not n.startswith("_") and callable(f)}
    theirs = {n: f for n, f in vars(awaited).items() if not n.startswith("_") and callable(f)}
    assert set(ours) - {"close"} == set(theirs) - {"aclose"}
    for name in set(ours) - {"close"}:
        assert inspect.iscoroutinefunction(theirs[name]), name
        assert inspect.signature(ours[name]) == inspect.signature(theirs[name]), name
    first = list(inspect.signature(waiting).parameters)
    assert first == list(inspect.signature(awaited).parameters)
