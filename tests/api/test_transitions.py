"""All 42 transitions of a version, asked for through REST: 13 happen, 29 are refused and change nothing."""

from __future__ import annotations

import pytest

from keys.states import GONE, VERSION_EDGES, VersionState
from tests.api.clients import person
from tests.house import ALL_PAIRS, House


@pytest.mark.parametrize(("start", "to"), ALL_PAIRS, ids=lambda state: str(state))
def test_a_transition_happens_as_the_table_says(
    house: House, start: VersionState, to: VersionState
) -> None:
    key, number = house.version_in(start)
    address = f"keys/{key.id}/versions/{number}"
    olga = person("olga")
    before = olga.get(address).json
    answer = olga.post(f"{address}/transition", {"to": to.value, "reason": "a test"})
    after = olga.get(address).json
    entry = house.last_entry(request_id=answer.headers["x-request-id"])
    if to not in VERSION_EDGES[start]:
        problem = answer.problem(409, "illegal_transition")
        assert (problem["state"], problem["to"]) == (start.value, to.value)
        assert after == before
        assert entry["outcome"] == "failed"
        return
    assert answer.status == 200, answer.body
    assert answer.json == after
    if to in GONE and start != VersionState.DESTROYED:
        assert (after["state"], after["condition"]) == (start.value, "pending_destruction")
        assert after["destroy_at"].endswith("Z")
        assert entry["outcome"] == "started"
    else:
        assert after["state"] == to.value
        assert entry["outcome"] == "success"


def test_a_versions_destruction_can_be_cancelled(house: House) -> None:
    key, number = house.version_in("deactivated")
    address, olga = f"keys/{key.id}/versions/{number}", person("olga")
    olga.post(f"{address}/transition", {"to": "destroyed", "days": 29}).problem(400, "invalid")
    assert olga.post(f"{address}/transition", {"to": "destroyed", "days": 60}).status == 200
    answer = olga.post(f"{address}/cancel-destruction")
    assert (answer.json["state"], answer.json["condition"]) == ("deactivated", None)
    olga.post(f"{address}/cancel-destruction").problem(409, "state_forbids")
