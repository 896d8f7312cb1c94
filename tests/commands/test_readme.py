"""What the README prints is run as it stands, against `up --demo` with all of its processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.parts import missing
from tests.processes import eventually
from tests.shell.running import BASE_DIR, PATIENCE, READY, Up, free_port, running_up, up_environment

README = (BASE_DIR / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
CURL, BEFORE, AFTER = range(3)
SMALL, PRINTED = 5_000_000, 100_000_000

# What an officer does with the button: the same function, as the same person.
ROTATE = """
import django; django.setup()
from keys import administration
from keys.callers import Caller, Door, Kind, Method, Role
from keys.models import Principal
row = Principal.objects.get(user__username="olga")
olga = Caller(row.id, Kind.PERSON, row.name, Role(row.role), Method.SESSION, Door.CONSOLE)
assert administration.rotate_key(olga, "internal-files", reason="as in the README").state == "succeeded"
"""
LAST_VOTE = """
import django; django.setup()
from keys import administration
from keys.callers import Caller, Door, Kind, Method, Role
from keys.models import Approval, Principal
row = Principal.objects.get(user__username="olga")
olga = Caller(row.id, Kind.PERSON, row.name, Role(row.role), Method.SESSION, Door.CONSOLE)
wanted = Approval.objects.get(action="rotate_key", state="open")
print(administration.vote(olga, str(wanted.id), approve=True, digest=wanted.digest).state)
"""
STATE = """
import django; django.setup()
from keys.models import Approval
print(Approval.objects.get(action="rotate_key", subject_name="patient-prescriptions").state)
"""


@dataclass
class Example:
    """A running console with the worked example."""

    up: Up
    data: Path
    work: Path

    @property
    def environment(self) -> dict[str, str]:
        return {
            **up_environment(),
            "DJANGO_SETTINGS_MODULE": "kms_console.settings",
            "KMS_DATA": str(self.data),
            "KMS_ADDRESS": self.up.address,
            "no_proxy": "127.0.0.1",
        }

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=BASE_DIR,
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def python(self, text: str) -> str:
        ended = self.run(sys.executable, "-c", text)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    def shell(self, text: str) -> str:
        """Run a block of the README here: other port, other folders, our Python."""
        here = (
            ("http://127.0.0.1:8000", self.up.address),
            ("var/secrets", f"'{self.data}'/secrets"),
            ("/tmp/report", f"{self.work}/report"),
            ("/tmp/copy", f"{self.work}/copy"),
            (".venv/bin/python", sys.executable),
        )
        for printed, ours in here:
            text = text.replace(printed, ours)
        ended = self.run("bash", "-euo", "pipefail", "-c", text)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    if shutil.which("curl") is None:
        missing("curl", "curl")
    base = tmp_path_factory.mktemp("readme")
    (base / "work").mkdir()
    with running_up(base / "data", free_port(), "--demo") as up:
        up.wait_for_line(READY)
        up.wait_for_line('-d \'{"plaintext"')
        yield Example(up, base / "data", base / "work")
        up.signal(signal.SIGINT)
        assert up.wait_for_end() == 0, up.output


def test_the_curl_of_the_readme_works(example: Example) -> None:
    answer = json.loads(example.shell(BLOCKS[CURL]))
    assert answer.get("version") == 1, answer
    assert answer["ciphertext"]


def test_the_curl_that_the_start_prints_works(example: Example) -> None:
    printed = example.up.output
    command = printed[printed.index("curl -sS") :].splitlines()
    whole = "\n".join(command[: next(i for i, line in enumerate(command) if " -d " in line) + 1])
    assert whole.count("\n") == 3
    answer = json.loads(example.shell(whole))
    assert (answer["version"], answer["algorithm"]) == (1, "XAES_256_GCM")


def test_the_accounts_are_printed_at_the_start(example: Example) -> None:
    kept = json.loads((example.data / "secrets" / "demo-accounts.json").read_text())
    for person in kept["people"]:
        assert re.search(rf"{person['username']} +{person['password']} ", example.up.output)
    logged = b"".join(path.read_bytes() for path in (example.data / "logs").iterdir())
    secret = [p["password"] for p in kept["people"]] + [a["token"] for a in kept["applications"]]
    assert [word for word in secret if word.encode() in logged] == []


def envelope(example: Example, size: int) -> None:
    assert str(PRINTED) in BLOCKS[BEFORE], "the README speaks of 100 MB"
    before = example.shell(BLOCKS[BEFORE].replace(str(PRINTED), str(size)))
    example.python(ROTATE)
    same_terminal = BLOCKS[BEFORE].splitlines()[0]
    assert same_terminal.startswith("export KMS_TOKEN_FILE=")
    after = example.shell(f"{same_terminal}\n{BLOCKS[AFTER]}")
    versions = [int(number) for number in re.findall(r"version (\d+) of key", before + after)]
    first = versions[0]
    assert versions == [first, first, first + 1, first + 1]
    assert after.splitlines()[-1] == "identical"
    assert (example.work / "copy.1").stat().st_size == size


def test_a_file_is_encrypted_and_read_back_after_a_rotation(example: Example) -> None:
    envelope(example, SMALL)


@pytest.mark.exhaustive
def test_the_readmes_100_megabytes_at_constant_memory(example: Example) -> None:
    envelope(example, PRINTED)
    peaks = {}
    for size in (SMALL, PRINTED):
        source, target = example.work / f"{size}.bin", example.work / f"{size}.kms"
        source.write_bytes(os.urandom(1024) * (size // 1024))
        command = [sys.executable, "examples/envelope.py", "encrypt", str(source), str(target)]
        measure = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        token = str(example.data / "secrets" / "demo-tokens" / "documents")
        wanted = (*command, "--key", "internal-files")
        ended = example.run(sys.executable, "-c", measure, *wanted, KMS_TOKEN_FILE=token)
        assert ended.returncode == 0, ended.stderr
        peaks[size] = int(ended.stdout.split()[-1])  # KiB on Linux
    assert peaks[PRINTED] - peaks[SMALL] < 16 * 1024, peaks


def test_the_last_vote_lets_the_worker_rotate_the_key(example: Example) -> None:
    assert example.python(LAST_VOTE) == "approved"
    eventually(lambda: example.python(STATE) == "executed")


def test_a_command_that_fails_says_one_line_and_ends_with_1(example: Example) -> None:
    words = ("create_application", "shop", "--grant", "no-such-key:encrypt", "--json")
    ended = example.run(sys.executable, "manage.py", *words)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.strip().splitlines()[-1] == "CommandError: There is no such key."


def test_credentials_from_the_command_line_work_at_once(example: Example) -> None:
    words = ("create_application", "shop", "--grant", "internal-files:encrypt", "--json")
    ended = example.run(sys.executable, "manage.py", *words)
    assert ended.returncode == 0, ended.stderr
    token = json.loads(ended.stdout)["token"]
    answer = example.shell(
        f"curl -sS -X POST {example.up.address}/api/v1/keys/internal-files/encrypt "
        f"-H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' "
        """-d '{"plaintext": "SGk="}'"""
    )
    assert json.loads(answer)["ciphertext"]


def test_the_log_is_verified_while_everything_runs(example: Example) -> None:
    ended = example.run(sys.executable, "manage.py", "verify_audit")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "The log is whole" in ended.stdout


@pytest.mark.exhaustive
def test_another_start_keeps_the_data_and_prints_no_password(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in (1, 2):
        with running_up(data, free_port(), "--demo") as up:
            up.wait_for_line('-d \'{"plaintext"')
            up.signal(signal.SIGTERM)
            assert up.wait_for_end() == 0, up.output
        kept = json.loads((data / "secrets" / "demo-accounts.json").read_text())
        printed = [p["username"] for p in kept["people"] if p["password"] in up.output]
        assert len(printed) == (5 if number == 1 else 0)
        assert up.address in up.output


def test_links_of_the_documents_lead_somewhere() -> None:
    for document in [BASE_DIR / "README.md", *(BASE_DIR / "docs").rglob("*.md")]:
        text = document.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
