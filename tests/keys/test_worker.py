"""The scheduler as it runs: beat, worker and broker as real processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connections
from django.db.models import F

from keys import administration, clock
from keys.backends.software.models import WrappedMaterial
from keys.models import Heartbeat, Job, Key, KeyVersion
from keys.states import GONE
from tests.house import House
from tests.processes import Broker, Process, eventually

MANY = {"sqlite": 15, "postgresql": 30}


def _due(keys: list[Key]) -> None:
    past = clock.now() - timedelta(hours=1)
    Key.objects.filter(pk__in=[key.pk for key in keys]).update(rotate_at=past)


@pytest.mark.each_database(fast="postgresql")
def test_all_that_is_due_is_done_exactly_once(
    house: House,
    broker: Broker,
    start_worker: Callable[..., Process],
    request: pytest.FixtureRequest,
) -> None:
    keys = [house.key() for _ in range(MANY[house.database.vendor])]
    doomed, voted = house.key(alias="doomed"), house.key("patient-health", alias="voted")
    administration.schedule_destruction(house.olga, "doomed")
    for model in (Key, KeyVersion, Job):
        rows = (
            model.objects.filter(key=doomed)
            if model is not Key
            else Key.objects.filter(pk=doomed.pk)
        )
        column = "run_after" if model is Job else "destroy_at"
        rows.update(**{column: F(column) - timedelta(days=31)})
    wish = house.pending(administration.rotate_key, house.olga, "voted")
    house.approve(str(wish.id), execute=False)
    _due(keys)
    connections.close_all()
    start_worker()
    start_worker()
    beat: Process = request.getfixturevalue("beat")

    def done() -> bool:
        rotated = Key.objects.filter(pk__in=[k.pk for k in keys], rotate_at__gt=clock.now()).count()
        doomed.refresh_from_db()
        return (
            rotated == len(keys)
            and doomed.state == "destroyed"
            and voted.versions.count() == 2
            and not Job.objects.filter(state__in=["pending", "running"]).exists()
        )

    eventually(done, 120)
    assert beat.popen.poll() is None
    ticks = Heartbeat.objects.get(name="sweep").at
    eventually(lambda: Heartbeat.objects.get(name="sweep").at > ticks)
    for key in keys:
        assert [(v.number, v.state) for v in key.versions.order_by("number")] == [
            (1, "deactivated"),
            (2, "active"),
        ]
    assert Job.objects.filter(kind="rotate").count() == len(keys) + 1
    wanted = KeyVersion.objects.exclude(state__in=GONE).count()
    assert WrappedMaterial.objects.count() == wanted
    entries = house.entries(action="rotate_key", outcome="success")
    assert len(entries) == len(keys) + 1


def test_losing_the_broker_loses_nothing(
    house: House, broker: Broker, worker: Process, beat: Process
) -> None:
    first, second = house.key(), house.key()
    _due([first])
    eventually(lambda: first.versions.filter(number=2, primary=True).exists())
    broker.stop()
    _due([second])
    wish = house.pending(administration.rotate_key, house.olga, str(house.key("patient-health").id))
    house.approve(str(wish.id), execute=False)
    assert second.versions.count() == 1
    broker.start()
    eventually(lambda: second.versions.filter(number=2, primary=True).exists(), 120)
    eventually(lambda: type(wish).objects.get(pk=wish.pk).state == "executed", 120)
    assert worker.popen.poll() is None and beat.popen.poll() is None
    assert first.versions.count() == 2
