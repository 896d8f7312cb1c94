"""docker-compose.yml and Dockerfile can't be run everywhere: every name in them is checked instead."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery
from celery.app.utils import find_app
from django.core.management import get_commands, load_command_class

BASE_DIR = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (BASE_DIR / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((BASE_DIR / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service.get("build")}

# Read by Python, Django and our own code outside settings.py.
READ_ELSEWHERE = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "DJANGO_SETTINGS_MODULE"}
# Read by the PostgreSQL image, by `docker compose` itself, by pip.
READ_BY_OTHERS = {
    *("POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD_FILE"),
    *("WEB_BIND", "PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK"),
}


def instructions() -> Iterator[tuple[str, str]]:
    """Return the Dockerfile's instructions, each with its continuation lines."""
    kept = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(kept).replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def of(word: str) -> list[str]:
    return [rest for found, rest in instructions() if found == word]


def settings_variables() -> set[str]:
    """Return every variable that settings.py reads, with its _FILE twin."""
    source = (BASE_DIR / "kms_console" / "settings.py").read_text(encoding="utf-8")
    names = set(re.findall(r'(?:environment\.\w+|databases\.configured)\(\s*"([A-Z_]+)"', source))
    assert {"DATABASE_URL", "SECRET_KEY", "KMS_DATA"} <= names
    return names | {f"{name}_FILE" for name in names}


def commands() -> list[tuple[str, list[str]]]:
    """Return every command line of ours, with where it stands."""
    found = [(name, service["command"]) for name, service in OURS.items() if "command" in service]
    found += [("Dockerfile CMD", json.loads(rest)) for rest in of("CMD")]
    for rest in of("HEALTHCHECK"):
        found.append(("Dockerfile HEALTHCHECK", json.loads(rest.partition("CMD")[2])))
    for rest in of("RUN"):
        for step in rest.split("&&"):
            words = [word for word in shlex.split(step) if not re.match(r"[A-Z_]+=", word)]
            if words[:2] == ["python", "manage.py"]:
                found.append(("Dockerfile RUN", words))
    return found


@pytest.mark.parametrize(("where", "command"), commands(), ids=lambda value: str(value)[:40])
def test_every_command_is_one_that_exists(where: str, command: list[str]) -> None:
    assert command[0] == "python", where
    if command[1] == "manage.py":
        app = get_commands()[command[2]]
        assert isinstance(app, str)
        parser = load_command_class(app, command[2]).create_parser("manage.py", command[2])
        parser.parse_args(command[3:])
        return
    assert command[1] == "-m"
    if command[2] == "uvicorn":
        _check_uvicorn(command[3:])
    elif command[2] == "celery":
        _check_celery(command[3:])
    else:
        assert callable(import_module(command[2]).main), where


def _check_uvicorn(arguments: list[str]) -> None:
    from uvicorn.main import main

    context = main.make_context("uvicorn", arguments)
    module, _, name = context.params["app"].partition(":")
    assert (BASE_DIR / f"{module.replace('.', '/')}.py").exists()
    assert callable(getattr(import_module(module), name))
    assert not context.params["proxy_headers"], "TRUSTED_PROXIES decides whom we believe"


def _check_celery(arguments: list[str]) -> None:
    from celery.bin.base import CLIContext
    from celery.bin.celery import celery

    app = find_app(arguments[arguments.index("--app") + 1])
    assert isinstance(app, Celery)
    assert app.main == "kms_console"
    context = celery.make_context("celery", list(arguments))
    context.obj = CLIContext(app=app, no_color=True, workdir=None, quiet=True)
    at = next(index for index, word in enumerate(arguments) if word in celery.commands)
    command = celery.commands[arguments[at]]
    command.make_context(arguments[at], arguments[at + 1 :], parent=context)


def test_everything_runs_as_up_runs_it() -> None:
    from kms_console.supervisor import parts
    from kms_console.supervisor.folder import DataFolder

    folder = DataFolder(Path("/data"))
    for part in (parts.worker(folder, {}), parts.beat(folder, {})):
        contained = SERVICES[part.name]["command"]
        own = [word for word in part.command[1:] if word not in {"--hostname", "worker@localhost"}]
        assert contained[1:] == own
    for part in (parts.signer({}), parts.trail({})):
        assert SERVICES[part.name]["command"][1:] == ["manage.py", *part.command[2:]]
    web = parts.web(parts.Address("0.0.0.0", 8000), {}).command[1:]
    assert json.loads(of("CMD")[0])[1:] == [word for word in web if word != "--no-use-colors"]


def test_every_path_that_is_copied_exists_and_gets_past_dockerignore() -> None:
    ignore = (BASE_DIR / ".dockerignore").read_text(encoding="utf-8").splitlines()
    copied = [words for words in map(str.split, of("COPY")) if not words[0].startswith("--from")]
    assert copied
    for words in copied:
        for source in words[:-1]:
            assert (BASE_DIR / source).exists(), source
            assert f"!{source}" in ignore, source
    assert ignore[1] == "*", "all else stays out: data and secrets of the machine above all"


def test_every_package_of_ours_is_in_the_image() -> None:
    copied = {words.split()[0] for words in of("COPY")}
    for package in BASE_DIR.glob("*/__init__.py"):
        # Not what only developers start, nor what applications install.
        if package.parent.name not in ("tests", "bench", "kms_console_client"):
            assert package.parent.name in copied


def test_every_variable_is_one_that_is_read() -> None:
    known = settings_variables() | READ_ELSEWHERE | READ_BY_OTHERS
    named: set[str] = set()
    for service in SERVICES.values():
        named |= set(service.get("environment", {}))
    for rest in of("ENV"):
        named |= {word.partition("=")[0] for word in rest.split()}
    named |= set(re.findall(r"\$\{([A-Z_]+)", (BASE_DIR / "docker-compose.yml").read_text()))
    named |= set(re.findall(r"(?:RUN|&&)\s+([A-Z_]+)=", DOCKERFILE))
    assert named - known == set()


def test_every_secret_is_declared_mounted_and_named_where_it_lies() -> None:
    assert set(COMPOSE["secrets"]) == {
        name for service in SERVICES.values() for name in service.get("secrets", [])
    }
    for name, service in SERVICES.items():
        text = json.dumps([service.get("environment", {}), service.get("command", [])])
        used = set(re.findall(r"/run/secrets/(\w+)", text))
        assert used == set(service.get("secrets", [])), name
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    ignored = (BASE_DIR / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "/secrets/" in ignored, "nobody commits them by mistake"


def test_no_secret_is_written_in_either_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"SECRET|PASSWORD|KEY|URL", name):
                assert str(value).startswith("/run/secrets/"), name


def test_volumes_networks_and_dependencies_are_declared() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"], name
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"]), name
        for other, condition in service.get("depends_on", {}).items():
            if condition["condition"] == "service_healthy":
                assert SERVICES[other]["healthcheck"]["test"]
            else:
                assert SERVICES[other]["restart"] == "no", "a one-shot ends"


def test_key_material_lies_apart_from_the_data() -> None:
    database, material = SERVICES["database"], SERVICES["material"]
    assert database["volumes"] != material["volumes"]
    assert database["secrets"] != material["secrets"]


def test_containers_run_without_root_and_without_privileges() -> None:
    assert of("USER") == ["10001:10001"]
    for name, service in OURS.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert "--require-hashes" in DOCKERFILE


def test_there_is_one_of_everything() -> None:
    assert set(SERVICES) == {
        *("database", "material", "broker"),
        *("prepare", "web", "worker", "beat", "signer", "trail"),
    }
