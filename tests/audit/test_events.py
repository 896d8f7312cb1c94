"""What an event takes, what it refuses, and what it makes of text that can't be recorded."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from audit import entries
from audit.canonical import INTEGER_LIMIT, encode
from audit.events import TEXT_LIMIT, Actor, Outcome, Personal, Subject, uuid7
from tests.audit.helpers import ALICE, use


def test_every_field_stands_in_the_body() -> None:
    event = use(reason="because", approvals=("a-1",), facts={"n": 1})
    assert entries.body(event, 7) == {
        "v": 2,
        "index": 7,
        "uuid": event.uuid,
        "at": event.at,
        "actor": {"kind": "application", "id": event.actor.id, "name": "payroll"},
        "method": "bearer",
        "door": "rest",
        "action": "encrypt",
        "object": {
            "kind": "key",
            "id": event.object.id,
            "name": "wages",
            "version": 3,
            "classification": "",
        },
        "outcome": "success",
        "reason": "because",
        "source": "192.0.2.7",
        "request_id": "r-1",
        "approvals": ("a-1",),
        "facts": {"n": 1},
    }


def test_uuids_are_version_7_and_rise_with_time() -> None:
    made = [uuid.UUID(uuid7()) for _ in range(2000)]
    assert {item.version for item in made} == {7}
    assert {item.variant for item in made} == {uuid.RFC_4122}
    assert len(set(made)) == len(made)
    # By time down to a quarter of a microsecond; within that, in any order.
    times = [item.int >> 64 for item in made]
    assert times == sorted(times)


@pytest.mark.parametrize("fact", [1.5, float("inf"), b"x", {1: 2}, [0.0], {"a": {"b": 2.0}}, set()])
def test_facts_of_other_types_are_refused_at_creation(fact: Any) -> None:
    with pytest.raises(TypeError):
        use(facts={"a": fact})


@pytest.mark.parametrize("facts", [{"é": 1}, {"a": {"ü": 1}}, {"a": INTEGER_LIMIT + 1}])
def test_facts_outside_the_subset_are_refused_at_creation(facts: Any) -> None:
    with pytest.raises(ValueError):
        use(facts=facts)


def test_facts_are_copied_so_that_nobody_changes_them_later() -> None:
    inner = ["a"]
    facts = {"list": inner}
    event = use(facts=facts)
    inner.append("b")
    facts["other"] = inner
    assert event.facts == {"list": ["a"]}


def test_a_lone_surrogate_from_a_request_is_recorded_as_a_replacement() -> None:
    event = use(
        object=Subject("key", "\ud800", "a\udc00b"), reason="\ud83d\ude00", facts={"n": "\udfff"}
    )
    assert (event.object.id, event.object.name) == ("\ufffd", "a\ufffdb")
    assert event.reason == "😀"
    assert event.facts == {"n": "\ufffd"}
    encode(entries.body(event, 0))


def test_an_overlong_name_is_cut() -> None:
    event = use(object=Subject("key", "x" * 5000), reason="é" * (TEXT_LIMIT + 1))
    assert event.object.id == "x" * (TEXT_LIMIT - 1) + "…"
    assert event.reason == "é" * (TEXT_LIMIT - 1) + "…"


@pytest.mark.parametrize(
    "changes",
    [
        {"method": None},
        {"reason": 1},
        {"request_id": uuid.uuid4()},
        {"approvals": (1,)},
    ],
)
def test_what_is_not_text_is_our_own_mistake(changes: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        use(**changes)


def test_ids_of_actors_and_subjects_must_be_text() -> None:
    with pytest.raises(TypeError):
        Actor("person", uuid.uuid4(), "Alice")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Subject("key", "1", version="3")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Subject("key", "1", version=-1)


@pytest.mark.parametrize(
    "changes", [{"outcome": "maybe"}, {"uuid": "no"}, {"uuid": uuid7().upper() + "A"}, {"at": -1}]
)
def test_values_outside_their_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        use(**changes)


def test_an_outcome_may_be_given_as_its_word() -> None:
    assert use(outcome="denied").outcome is Outcome.DENIED


@pytest.mark.parametrize(
    "changes",
    [
        {"actor": Actor("person", "1", Personal("Alice"))},
        {"object": Subject("person", "1", Personal("Alice"))},
        {"source": Personal("192.0.2.7")},
        {"facts": {"who": Personal("Alice")}},
        {"facts": {"all": [{"who": ["", Personal("Alice")]}]}},
        {"facts": {"all": {"who": (1, Personal("Alice"))}}},
    ],
)
def test_an_event_knows_whether_there_is_personal_data_in_it(changes: dict[str, Any]) -> None:
    assert use(**changes).personal
    assert not use(facts={"all": [{"who": ["Alice"]}, None]}, personal=True).personal


def test_an_event_can_not_be_changed() -> None:
    with pytest.raises(AttributeError):
        use().actor = ALICE
