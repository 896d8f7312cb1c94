"""Entries as OCSF and CEF: every action has its place, and no name can break a line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit import entries, personal
from audit.canonical import encode
from audit.events import Actor, Outcome, Subject
from audit.formats import activities, cef, ocsf
from audit.merkle import leaf_hash
from audit.personal import PREFIX
from keys.actions import Action
from tests.audit.helpers import ALICE, use

DOCUMENT = Path(__file__).parents[2] / "docs" / "audit" / "ocsf.md"
NAME, SOURCE = PREFIX + "a" * 64, PREFIX + "b" * 64


def body(index: int = 7, **changes: Any) -> dict[str, Any]:
    """Return an entry's body as it is read from the log."""
    found: dict[str, Any] = json.loads(encode(entries.body(use(**changes), index)))
    return found


# --- every action has its place


def test_every_action_of_the_product_is_mapped() -> None:
    assert set(activities.ACTIVITIES) == {action.value for action in Action} | {"authenticate"}


def test_the_document_tells_of_each_action_what_the_table_does() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\d{4}) ([^|]+) \| (\d+) ([^|]+) \| (\d) \|$", DOCUMENT.read_text(), re.M
    )
    told = {
        action: (int(uid), name, int(activity), caption, int(level))
        for action, uid, name, activity, caption, level in rows
    }
    assert told == {
        action: (
            one.class_uid,
            activities.CLASSES[one.class_uid],
            one.activity_id,
            "Other" if one.activity_id == 99 else one.name,
            one.severity,
        )
        for action, one in activities.ACTIVITIES.items()
    }


def _paths(value: Any, prefix: str = "") -> set[str]:
    if isinstance(value, dict) and prefix not in ("unmapped.facts",):
        return {
            path
            for name, one in value.items()
            for path in _paths(one, f"{prefix}.{name}".strip("."))
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {path for one in value for path in _paths(one, f"{prefix}[]")}
    return {prefix}


def _bodies() -> list[dict[str, Any]]:
    """One body of each action with everything that can be there, and one with as little as can be."""
    full = [
        body(
            action=action,
            object=Subject(kind, "id", "name", 3, "internal"),
            reason="why",
            approvals=("a1",),
            facts={"credential": "c", "operations": ["encrypt"], "count": 3, "from": 1, "to": 2},
        )
        for action in activities.ACTIVITIES
        for kind in ("key", "principal", "credential")
    ]
    empty = {"actor": Actor("unknown", "", ""), "source": "", "request_id": ""}
    return [*full, body(object=Subject("house", ""), **empty), body(source=SOURCE)]


@pytest.mark.parametrize("form", ["OCSF", "CEF"])
def test_the_document_tells_of_every_field_that_is_ever_sent(form: str) -> None:
    text = DOCUMENT.read_text()
    section = text.partition(f"## Fields: {form}\n")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `([\w.\[\]]+)` \|", section, re.M))
    if form == "OCSF":
        sent = {path for one in _bodies() for path in _paths(ocsf.record(one, {}))}
    else:
        more = body(source="2001:db8::7")
        lines = [cef.line(one, {}).decode() for one in [*_bodies(), more]]
        sent = {name for line in lines for name in _extension(line)}
    assert documented == sent


# --- what an event says


def test_a_use_is_an_api_activity_with_its_entrys_identity() -> None:
    one = body(object=Subject("key", "k", "wages", 3, "internal"))
    event = ocsf.record(one, {})

    assert (event["class_uid"], event["category_uid"]) == (6003, 6)
    assert (event["type_uid"], event["type_name"]) == (600399, "API Activity: Other")
    assert event["activity_name"] == event["api"]["operation"] == "encrypt"
    assert event["time"] == one["at"] // 1000
    assert (event["status_id"], event["severity_id"]) == (1, 1)
    assert event["metadata"]["uid"] == one["uuid"]
    assert event["metadata"]["sequence"] == 7
    assert event["actor"]["user"] == {
        "type_id": 4,
        "type": "Service",
        "uid": one["actor"]["id"],
        "name": "payroll",
    }
    assert event["src_endpoint"] == {"ip": "192.0.2.7"}
    assert event["resources"] == [
        {
            "type": "key",
            "uid": "k",
            "name": "wages",
            "version": "3",
            "labels": ["classification:internal"],
        }
    ]
    assert event["unmapped"]["leaf_hash"] == leaf_hash(encode(one)).hex()


def test_making_a_key_is_entity_management() -> None:
    event = ocsf.record(body(action="create_key", actor=ALICE), {})
    assert event["type_uid"] == 300401
    assert event["entity"] == {
        "type": "key",
        "uid": event["entity"]["uid"],
        "name": "wages",
        "version": "3",
    }
    assert "api" not in event


def test_a_refusal_is_a_failure_that_deserves_a_look() -> None:
    event = ocsf.record(body(outcome=Outcome.DENIED, reason="no_grant"), {})
    assert (event["status_id"], event["status_code"], event["severity_id"]) == (2, "no_grant", 3)
    event = ocsf.record(body(action="revoke_version", outcome=Outcome.PENDING), {})
    assert (event["status_id"], event["status"], event["severity_id"]) == (99, "pending", 4)


def test_counted_refusals_are_one_aggregate() -> None:
    event = ocsf.record(
        body(
            action="authenticate",
            actor=Actor("unknown", "", ""),
            object=Subject("door", "rest"),
            outcome=Outcome.DENIED,
            facts={"count": 12, "from": 5_000_000, "to": 9_000_000},
        ),
        {},
    )
    assert event["type_uid"] == 300201
    assert event["user"]["name"] == "unknown"
    assert (event["count"], event["start_time"], event["end_time"]) == (12, 5000, 9000)
    assert event["time"] == 5000


def test_who_got_what_is_told_of_a_grant() -> None:
    event = ocsf.record(
        body(
            action="create_grant",
            object=Subject("principal", "p", "payroll"),
            facts={"operations": ["encrypt", "decrypt"]},
        ),
        {},
    )
    assert event["type_uid"] == 300714
    assert event["user"] == {"uid": "p", "name": "payroll"}
    assert event["privileges"] == ["encrypt", "decrypt"]


def test_an_action_that_nobody_knows_is_still_an_event() -> None:
    event = ocsf.record(body(action="dance"), {})
    assert (event["type_uid"], event["activity_name"]) == (600399, "dance")


def test_an_entry_of_version_1_is_an_event_too() -> None:
    old = body()
    old["v"] = 1
    del old["object"]["classification"]
    assert ocsf.record(old, {})["unmapped"]["classification"] == ""
    assert b"cs1=" not in cef.line(old, {})


def test_commitments_are_opened_where_names_are_given() -> None:
    one = body(actor=Actor("person", "id", NAME), source=SOURCE, facts={"to": [NAME]})
    assert sorted(personal.texts(one)) == [NAME, NAME, SOURCE]

    closed = ocsf.record(one, {})
    assert closed["actor"]["user"]["name"] == NAME
    assert closed["src_endpoint"] == {"uid": SOURCE}

    names = {NAME: "Alice Ng", SOURCE: None}  # the address was erased
    opened = ocsf.record(one, names)
    assert opened["actor"]["user"]["name"] == "Alice Ng"
    assert opened["src_endpoint"] == {"uid": SOURCE}
    assert opened["unmapped"]["facts"] == {"to": ["Alice Ng"]}
    assert opened["unmapped"]["leaf_hash"] == closed["unmapped"]["leaf_hash"]
    assert "suser=Alice Ng " in cef.line(one, names).decode()


# --- CEF, and hostile names


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda mark: {"n": "\n", "r": "\r"}.get(mark[1], mark[1]), text)


def _split_bars(line: str) -> list[str]:
    """Split as a receiver does: at the first seven bars that are not escaped."""
    parts, at = [""], 0
    while at < len(line):
        if line[at] == "\\" and len(parts) < 8:
            parts[-1] += line[at + 1]
            at += 2
            continue
        if line[at] == "|" and len(parts) < 8:
            parts.append("")
        else:
            parts[-1] += line[at]
        at += 1
    return parts


def _extension(line: str) -> dict[str, str]:
    text = " " + _split_bars(line)[7]
    marks = list(re.finditer(r" (\w+)=", text))
    # An equals sign that is escaped has a backslash before it, which is no letter of a name.
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {
        mark[1]: _unescaped(text[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)
    }


def test_a_line_of_cef_reads_as_it_was_meant() -> None:
    one = body(
        action="destroy_version",
        object=Subject("key", "k", "a=b\\c|d\ne\tf", 3, "internal"),
        approvals=("x", "y"),
        facts={"days": 30},
    )
    line = cef.line(one, {}).decode()
    assert _split_bars(line)[:7] == [
        "CEF:0",
        "KMS Console",
        "KMS Console",
        "2",
        "destroy_version",
        "Destroy version",
        "5",
    ]
    told = _extension(line)
    assert told["fname"] == "a=b\\c|d\ne\ufffdf"
    assert told["cs5"] == '{"days":30}'
    assert (told["cs3"], told["cs3Label"]) == ("x y", "approvals")
    assert (told["src"], told["cn1"], told["outcome"]) == ("192.0.2.7", "7", "success")
    assert told["cs4"] == leaf_hash(encode(one)).hex()


def test_facts_that_are_too_long_are_cut() -> None:
    told = _extension(cef.line(body(facts={"text": "x" * 9000}), {}).decode())
    assert len(told["cs5"]) == 4000 and told["cs5"].endswith("…")


HOSTILE = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]), st.sampled_from("\n\r\\|=\"'\x00\x85\u2028 ")
    )
)


@settings(max_examples=50, deadline=None)
@given(name=HOSTILE, action=HOSTILE, fact=HOSTILE)
def test_no_name_can_break_a_line(name: str, action: str, fact: str) -> None:
    one = body(
        actor=Actor("person", name, name),
        object=Subject("key", name, name),
        action=action,
        reason=name,
        source=name,
        request_id=name,
        facts={"text": fact},
    )
    plain = _extension(cef.line(body(facts={"text": "x"}), {}).decode())
    for line in (cef.line(one, {}), ocsf.line(one, {})):
        assert b"\n" not in line and b"\r" not in line
        assert not any(byte < 32 for byte in line)
    assert json.loads(ocsf.line(one, {}))["unmapped"]["facts"] == {"text": fact}
    told = _extension(cef.line(one, {}).decode())
    # No field that was not there before, except those that stand for another kind of source.
    assert set(told) <= set(plain) | {"shost", "reason", "c6a2", "c6a2Label"}
    assert told["fname" if name else "cn1"] == (_cleaned(name) if name else "7")


def _cleaned(name: str) -> str:
    cut = name if len(name) <= 1000 else name[:999] + "…"
    return re.sub("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029]", "\ufffd", cut)
