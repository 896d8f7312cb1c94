"""The queue's configuration: nothing but ids in JSON, and nothing that is lost with it."""

from __future__ import annotations

import pickle

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu.exceptions import ContentDisallowed

from kms_console.celery import app


def test_every_tick_of_beat_is_a_task_that_the_worker_knows() -> None:
    app.loader.import_default_modules()
    assert set(app.conf.beat_schedule) == {"sweep"}
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in app.tasks
        assert entry["options"]["expires"] <= entry["schedule"], "old ticks don't pile up"


def test_a_pickle_in_the_queue_is_not_opened() -> None:
    """A forged message must not run code; an in-memory queue of the same library shows it."""
    queue = Queue("celery", Exchange("celery"))
    opened: list[object] = []
    with Connection("memory://") as connection:
        producer = connection.Producer()
        producer.publish(
            pickle.dumps([]),
            routing_key="celery",
            declare=[queue],
            content_type="application/x-python-serialize",
            content_encoding="binary",
        )
        with (
            Consumer(
                connection.default_channel,
                [queue],
                accept=app.conf.accept_content,
                callbacks=[lambda body, message: opened.append(body)],
            ),
            pytest.raises(ContentDisallowed),
        ):
            connection.drain_events(timeout=10)
    assert opened == []


def test_a_message_lives_until_its_task_has_ended_and_nobody_keeps_an_answer() -> None:
    assert app.conf.task_acks_late
    assert app.conf.worker_prefetch_multiplier == 1
    assert app.conf.result_backend is None
    assert app.conf.task_ignore_result
    assert app.conf.task_publish_retry is False
    assert app.conf.task_serializer == "json"
