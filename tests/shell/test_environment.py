"""Settings from the environment, and the files and folders that a first start makes."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from kms_console import environment
from kms_console.secret_files import read_or_create


def test_a_value_stands_in_the_variable_or_in_the_file_that_its_twin_names(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from the file\n")
    assert environment.text("NAME", "default", {}) == "default"
    assert environment.text("NAME", "default", {"NAME": "here"}) == "here"
    assert environment.text("NAME", "default", {"NAME_FILE": str(file)}) == "from the file"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "NAME is not set"),
        ({"NAME": "x", "NAME_FILE": "/y"}, "not both"),
        ({"NAME_FILE": "/no/such/file"}, "can't read /no/such/file: No such file"),
    ],
)
def test_what_can_not_be_meant_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message):
        environment.text("NAME", None, environ)


def test_flags_numbers_and_lists_say_what_they_take() -> None:
    assert environment.flag("F", False, {"F": "Yes"}) is True
    assert environment.flag("F", True, {"F": "off"}) is False
    assert environment.number("N", 3, 1, {"N": "12"}) == 12
    assert environment.words("W", "", {"W": " a, b ,,c"}) == ["a", "b", "c"]
    with pytest.raises(ImproperlyConfigured, match="F must be yes or no, not 'perhaps'"):
        environment.flag("F", False, {"F": "perhaps"})
    with pytest.raises(ImproperlyConfigured, match="N must be a whole number"):
        environment.number("N", 3, 1, {"N": "1.5"})
    with pytest.raises(ImproperlyConfigured, match="N must be at least 1, not 0"):
        environment.number("N", 3, 1, {"N": "0"})


def test_the_broker_socket_lies_in_the_data_folder_where_its_path_fits() -> None:
    assert environment.broker_socket(Path("/srv/kms")) == Path("/srv/kms/run/broker.sock")


def test_a_data_folder_too_deep_for_a_socket_gets_a_short_one_of_this_user() -> None:
    deep = Path("/srv") / ("long" * 40)
    socket = environment.broker_socket(deep)
    assert len(os.fsencode(socket)) <= environment.SOCKET_PATH_LIMIT
    assert str(os.getuid()) in socket.parent.name
    assert environment.broker_socket(deep) == socket, "every process finds the same"
    assert environment.broker_socket(deep / "other") != socket


def test_the_broker_url_survives_blanks_and_signs_in_the_path() -> None:
    assert environment.broker_url(Path("/srv/a b#c")) == (
        "redis+socket:///srv/a%20b%23c/run/broker.sock"
    )


def test_a_private_folder_is_made_and_one_that_is_not_private_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    environment.private_folder(folder)
    environment.private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(folder)
    for bad in (shared, link):
        with pytest.raises(ImproperlyConfigured, match="must be a folder of yours with mode 0700"):
            environment.private_folder(bad)


def test_a_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secret"
    secret = read_or_create(path)
    assert len(secret) == 50
    assert read_or_create(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret"], "no draft stays"


def test_many_first_starts_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    """A reader that came between the making and the writing of the file would see nothing."""
    code = (
        "import sys, pathlib\n"
        "from kms_console.secret_files import read_or_create\n"
        "sys.stdin.read()\n"  # all of them wait for the same end of input
        "print(*(read_or_create(pathlib.Path(sys.argv[1]) / str(n)) for n in range(200)))\n"
    )
    gate, opener = os.pipe()
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "secrets")],
            stdin=gate,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    os.close(gate)
    os.close(opener)
    answers = {start.communicate(timeout=120)[0] for start in starts}
    assert all(start.returncode == 0 for start in starts)
    assert len(answers) == 1
    assert all(len(word) == 50 for word in answers.pop().split())


def test_every_variable_stands_in_the_operators_guide() -> None:
    base = Path(__file__).resolve().parent.parent.parent
    source = (base / "kms_console" / "settings.py").read_text(encoding="utf-8")
    read = set(re.findall(r'(?:environment\.\w+|databases\.configured)\(\s*"([A-Z_]+)"', source))
    guide = (base / "docs" / "operator-guide.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([A-Z_]+)` \|", guide, re.MULTILINE))
    assert "DATABASE_URL" in read
    assert told - {"KMS_ROOT_KEY"} == read, "keys.sealing reads that one"
