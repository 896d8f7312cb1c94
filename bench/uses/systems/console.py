"""KMS Console itself: a set-up house on PostgreSQL, and web processes started as `up` starts them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.test.utils import override_settings

from bench import parts
from bench.uses import machine
from bench.uses.systems import System
from bench.uses.work import Door, Work, native
from keys import administration, sealing
from keys.algorithms import SPECS
from keys.callers import Caller, Kind, Method, Role
from keys.callers import Door as Entrance
from keys.models import Principal
from keys.secret import Secret
from keys.services import operator
from kms_console.supervisor.parts import Address, web

NAME = "KMS Console"
APPLICATION = "kms_console.asgi:application"
SILENT = "bench.uses.silent:application"
KEYS = {"data": "AES_256", "p256": "ECC_NIST_P256", "ed25519": "ECC_NIST_EDWARDS25519"}
OPERATIONS = {
    "data": ["encrypt", "decrypt", "generate_data_key"],
    "p256": ["sign"],
    "ed25519": ["sign"],
}
GCM = {"algorithm": "AES_256_GCM"}
WORKS: Mapping[Work, dict[str, str]] = {
    **{work: {} for work in Work},
    Work.BATCH_1K_GCM: GCM,
    Work.BATCH_100_GCM: GCM,
}
FOREIGN = ("KMS_", "REDIS_URL", "DATABASE_URL", "MATERIAL_DATABASE_URL", "SECRET_KEY", "TLS")


@dataclass(frozen=True, slots=True)
class House:
    """A set-up house: what its processes are started with, an application's token, its database."""

    folder: Path
    environment: Mapping[str, str]
    token: str = field(repr=False)
    database: int  # the process that PostgreSQL's others descend from


@contextlib.contextmanager
def house(folder: Path) -> Iterator[House]:
    """Set a house up on a PostgreSQL of its own, which syncs to a disk."""
    root_key = folder / "root-key"
    with parts.postgresql() as made, override_settings(ROOT_KEY_FILE=root_key):
        sealing.create_root_key()
        token = _furnish()
        kept = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
        environment = {
            **kept,
            "DJANGO_SETTINGS_MODULE": "kms_console.settings",
            "DATABASE_URL": made.url,
            "MATERIAL_DATABASE_URL": made.material_url,
            "KMS_DATA": str(folder / "data"),
            "KMS_ROOT_KEY_PATH": str(root_key),
            "SECRET_KEY": settings.SECRET_KEY,
            "LOG_LEVEL": "WARNING",
            "PYTHONUNBUFFERED": "1",
        }
        postmaster = int((made.folder / "data" / "postmaster.pid").read_text().split()[0])
        yield House(folder, environment, token, postmaster)


def _furnish() -> str:
    """Set up people, keys and one application that may use them; return its token."""
    roles = {"ada": Role.ADMINISTRATOR, "olga": Role.OFFICER, "otto": Role.OFFICER}
    people = [
        {"name": name, "username": name, "role": role.value, "password": f"the bench's own {name}"}
        for name, role in roles.items()
    ]
    administration.set_up(operator(), people=Secret(json.dumps(people).encode()))
    administration.create_key_store(operator(), name="software", kind="software")
    administration.create_classification(
        operator(),
        name="internal",
        title="Internal",
        allowed_specs=sorted(SPECS),
        key_stores=["software"],
    )
    row = Principal.objects.get(user__username="olga")
    olga = Caller(row.id, Kind.PERSON, row.name, Role.OFFICER, Method.SESSION, Entrance.CONSOLE)
    administration.create_application(operator(), name="bench")
    for alias, spec in KEYS.items():
        key = administration.create_key(olga, "internal", name=alias, alias=alias, spec=spec)
        administration.create_grant(olga, "bench", operations=OPERATIONS[alias], key=str(key.id))
    issued = administration.issue_credential(operator(), "bench")
    return issued.token.reveal().decode()


@contextlib.contextmanager
def console(
    made: House, name: str = NAME, *, application: str = APPLICATION, processes: int = 1
) -> Iterator[System]:
    """Run web processes on one house, each at an address of its own."""
    addresses: list[str] = []
    pids: list[int] = []
    with contextlib.ExitStack() as stack:
        for number in range(processes):
            port = machine.free_port()
            part = web(Address("127.0.0.1", port), made.environment)
            command = [application if word == APPLICATION else word for word in part.command]
            log = made.folder / f"web-{port}.log"
            pids.append(stack.enter_context(machine.running(command, part.environment, log)))
            addresses.append(f"127.0.0.1:{port}")
            machine.until_answers(addresses[-1], pids[number], log, "/healthz")
        headers = {
            "Authorization": f"Bearer {made.token}",
            "Content-Type": "application/json",
        }
        door = Door(addresses[0], headers)
        requests = native(door, {alias: alias for alias in KEYS}, WORKS)
        yield System(
            name,
            tuple(addresses),
            requests,
            {"server": tuple(pids), "database": (made.database,)},
        )
