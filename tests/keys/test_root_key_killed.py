"""A rotation of the root key that is killed (SIGKILL) at any point is finished by the next sweep, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from keys import clock, root_keys
from keys.administration.root_key import hold_root_key, rotate_root_key
from keys.backends.software.models import RootKey
from keys.models import KeyStore
from keys.root_keys import log, making, rows
from keys.services import operator
from keys.stores import backend, facts
from tests.house import House
from tests.hsm import Token
from tests.keys import holding
from tests.keys.holding import agreed, restarted
from tests.keys.test_root_key import everything_opens, roots, steps, under
from tests.processes import Process, eventually

KILL = """
import json, os, signal, sys
from dataclasses import replace
from pathlib import Path
from django.conf import settings
from keys.administration.root_key import rotate_root_key
from keys.root_keys import log, making, resealing, rows, seals, succession
from keys.services import operator
from tests.databases import connected_to
from tests.keys import holding

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def at(place, name, *, before=True, time=1):
    whole, calls = getattr(place, name), []
    def stopped(*args, **more):
        calls.append(name)
        if before and len(calls) == time:
            kill()
        result = whole(*args, **more)
        if len(calls) == time:
            kill()
        return result
    setattr(place, name, stopped)

def run(point, approval, parameters):
    holding.register({point: kill})
    if point == "after asked":
        at(rows, "write_intent")
    elif point == "after intent":
        at(making, "go_on")
    elif point == "after made":
        at(log, "end")
    elif point == "after told":
        at(succession, "take_over")
    elif point == "after take over":
        at(succession, "take_over", before=False)
    elif point == "half a chunk":
        at(seals, "put", time=2)
    elif point == "half of all":
        resealing.CHUNK = 1
        at(seals, "put", time=2)
    elif point == "after retired":
        at(resealing, "_end")
    elif point == "after destroyed":
        at(resealing, "_note")
    rotate_root_key(replace(operator(), approval_id=approval), "", **parameters)

# Each rotation is made by a fork, which is killed; Django is loaded once, the HSM's module never here.
for line in sys.stdin:
    url, material_url, root_key, *what = json.loads(line)
    child = os.fork()
    if child == 0:
        settings.ROOT_KEY_FILE = Path(root_key)
        with connected_to(url, material_url):
            run(*what)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("ended by", os.waitstatus_to_exitcode(status), flush=True)
"""
POINTS = ["after generate", "half of all"]
ALL = [
    "after asked",
    "after destroy",
    "after intent",
    "before generate",
    "after made",
    "after told",
    "after take over",
]
ALL += ["half a chunk", "after retired", "before destroy", "after destroyed"]

Kill = Callable[[str], None]


@pytest.fixture(scope="module")
def killer(softhsm: Token, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A process whose forks rotate the root key and are killed at a point."""
    folder = tmp_path_factory.mktemp("killer")
    environment = {
        **os.environ,
        **softhsm.environment,
        holding.PIN: softhsm.pin,
        "DJANGO_SETTINGS_MODULE": "kms_console.settings",
        "KMS_DATA": str(folder),
        "SECRET_KEY": settings.SECRET_KEY,
    }
    command = [sys.executable, "-c", "import django; django.setup()\n" + KILL]
    process = Process(command, environment, folder / "output", stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()


@pytest.fixture
def hsm(house: House, softhsm: Token, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyStore]:
    """The key store `hsm`, which holds the house's root key."""
    monkeypatch.setattr(making, "PAUSE", timedelta(0))
    monkeypatch.setattr(log, "LOST_AFTER", timedelta(0))
    with holding.furnished(softhsm) as store:
        agreed(house, hold_root_key, key_store="hsm")
        house.key(name="A second one")
        yield store


@pytest.fixture
def kill(house: House, hsm: KeyStore, killer: Process, root_key: Path) -> Kill:
    """Return a function that rotates the root key in a process that is killed at a point."""

    def rotate(point: str) -> None:
        asked = house.pending(rotate_root_key, operator(), "")
        house.approve(str(asked.id), execute=False)
        connections.close_all()
        before = len(killer.text.splitlines())
        where = [house.database.url, house.database.material_url, str(root_key)]
        killer.tell(json.dumps([*where, point, str(asked.id), asked.parameters]) + "\n")
        eventually(lambda: killer.text.splitlines()[before:] or killer.popen.poll() is not None)
        assert killer.text.splitlines()[-1] == "ended by -9", killer.text

    return rotate


def _finished(house: House, hsm: KeyStore, first: str, settings: Any) -> None:
    RootKey.objects.filter(retired_at__gt=clock.now()).update(retired_at=clock.now())
    restarted()
    root_keys.tidy()
    root_keys.tidy()
    (second,) = (root for root, state in roots().items() if state == "current")
    assert roots() == {first: "retired", second: "current"}
    assert under() == {second}
    assert steps(house, first) == ["made", "retired", "destroyed"]
    assert steps(house, second) == ["made"]
    asked = [e for e in house.entries(object_kind="root_key") if e["facts"]["step"] == "asked"]
    intent = asked[-1]["object"]["id"]
    left = backend(facts(hsm)).find(rows.label_of(intent))
    assert left is not None
    assert left.handle == RootKey.objects.get(pk=second).handle, "one key was made, and it holds"
    gone = asked[0]["object"]["id"]
    assert backend(facts(hsm)).find(rows.label_of(gone)) is None
    settings.ROOT_KEY_FILE = Path(settings.ROOT_KEY_FILE).with_name("removed")
    restarted()
    everything_opens(house)


def _killed(house: House, hsm: KeyStore, kill: Kill, settings: Any, point: str) -> None:
    first = rows.current().id  # type: ignore[union-attr]
    kill(point)
    restarted()
    everything_opens(house)
    _finished(house, hsm, first, settings)


@pytest.mark.parametrize("point", POINTS)
def test_a_rotation_that_is_killed_is_finished_once(
    house: House, hsm: KeyStore, kill: Kill, settings: Any, point: str
) -> None:
    _killed(house, hsm, kill, settings, point)


@pytest.mark.exhaustive
@pytest.mark.parametrize("point", ALL)
def test_it_is_the_same_at_every_other_point(
    house: House, hsm: KeyStore, kill: Kill, settings: Any, point: str
) -> None:
    _killed(house, hsm, kill, settings, point)


@pytest.mark.exhaustive
@pytest.mark.each_database
@pytest.mark.parametrize("point", ["after generate", "half a chunk", "after retired"])
def test_it_is_the_same_on_each_database(
    house: House, hsm: KeyStore, kill: Kill, settings: Any, point: str
) -> None:
    _killed(house, hsm, kill, settings, point)
