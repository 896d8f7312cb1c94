"""/healthz and /readyz: bounded, honest, and silent about what outsiders must not know."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.test import RequestFactory, override_settings

from audit import writer
from keys import sealing
from keys.backends.breaker import Breaker
from keys.models import Heartbeat
from kms_console import health
from kms_console.health import Check, Examiner, Trouble
from tests.databases import Database


def well() -> None:
    return None


def ill() -> None:
    raise Trouble("It coughs.")


def broken() -> None:
    raise OSError("can't connect to db.internal:5432 as kms with password hunter2")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("essential", "other", "status"),
    [
        (well, well, "ok"),
        (well, ill, "degraded"),
        (ill, well, "unavailable"),
        (ill, ill, "unavailable"),
    ],
)
def test_only_what_every_request_needs_makes_it_unavailable(
    essential: Callable[[], None], other: Callable[[], None], status: str
) -> None:
    checks = (Check("database", essential, "", essential=True), Check("broker", other, ""))
    assert Examiner(checks).report().status == status


def test_an_answer_names_no_host_and_no_password() -> None:
    document = Examiner((Check("database", broken, "It can't be reached."),)).report().document()
    assert document == {
        "status": "degraded",
        "parts": {"database": {"status": "failed", "reason": "It can't be reached."}},
    }


def test_a_part_that_hangs_is_waited_for_once_and_not_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(health, "KEPT_SECONDS", 0.0)
    go_on, asked = threading.Event(), []

    def hangs() -> None:
        asked.append(1)
        go_on.wait(60)

    examiner = Examiner((Check("key_stores", hangs, ""), Check("database", well, "")))
    for _ in range(3):
        hanging, database = examiner.report().parts
        assert hanging.reason == "It did not answer in 0.05 seconds."
        assert database.status == "ok"
    assert asked == [1]
    go_on.set()
    wait_for(lambda: examiner.report().parts[0].status == "ok")


def test_who_asks_within_a_second_gets_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "KEPT_SECONDS", 3600.0)
    asked = []
    examiner = Examiner((Check("database", lambda: asked.append(1), ""),))
    assert examiner.report() is examiner.report()
    assert asked == [1]


def test_heartbeats_are_told_by_when_they_were_seen(database: Database) -> None:
    with pytest.raises(Trouble, match="never seen"):
        health._heartbeat("worker")
    now = datetime.now(UTC)
    Heartbeat.objects.create(name="worker", at=now)
    assert health._heartbeat("worker") == now
    Heartbeat.objects.update(at=now - timedelta(seconds=1000))
    with pytest.raises(Trouble, match=r"last seen at work 10\d\d seconds ago"):
        health._heartbeat("worker")


def test_a_key_store_that_this_process_leaves_alone_is_told_without_its_name(
    database: Database,
) -> None:
    breaker = Breaker(outages=1)
    health._key_stores()
    breaker.failed()
    with pytest.raises(Trouble, match=r"^1 failed again and again"):
        health._key_stores()
    breaker.answered()
    health._key_stores()
    breaker.failed()
    breaker.close()  # the store was taken out of the configuration
    health._key_stores()


@pytest.mark.each_database
def test_readyz_looks_at_every_part(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(sealing.VARIABLE, raising=False)
    for name in ("worker", "sweep"):
        Heartbeat.objects.create(name=name, at=datetime.now(UTC))
    nowhere = f"redis+socket://{tmp_path}/broker.sock"
    with override_settings(ROOT_KEY_FILE=tmp_path / "root-key", REDIS_URL=nowhere):
        sealing.create_root_key()
        parts = {part.name: part for part in Examiner().report().parts}
    for name in ("database", "log", "material", "root_key", "memories", "worker", "beat"):
        assert parts[name].status == "ok", parts[name]
    assert parts["key_stores"].status == "ok"
    assert parts["broker"].reason == "It can't be reached.", "none runs there"
    assert parts["worker"].seen is not None
    assert writer.head().size == 0, "looking leaves no trace"


def test_a_database_that_is_gone_makes_readyz_503(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_examiner", Examiner())
    writer.head()
    Path(database.path).write_bytes(b"not a database any more" * 100)
    answer = health.readyz(RequestFactory().get("/readyz"))
    assert answer.status_code == 503
    document = json.loads(answer.content)
    assert document["status"] == "unavailable"
    assert document["parts"]["database"]["status"] == "failed"
    assert str(database.path) not in answer.content.decode()
    assert answer["Cache-Control"].startswith("max-age=0")


def test_healthz_needs_nothing() -> None:
    answer = health.healthz(RequestFactory().get("/healthz"))
    assert (answer.status_code, answer.content) == (200, b"ok\n")
    assert health.healthz(RequestFactory().post("/healthz")).status_code == 405
