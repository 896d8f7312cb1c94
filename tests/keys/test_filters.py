"""Saved filters: kept under a name, shared or not, deleted by whom they belong to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audit.models import Entry, SavedFilter
from audit.search import Filters
from keys import administration, trail
from keys.errors import Denied, Invalid, NotFound
from tests.console.conftest import signed_in_client
from tests.house import House


def test_a_filter_is_kept_under_a_name_and_told_in_the_trail(house: House) -> None:
    row = administration.save_filter(
        house.udo, name="Refusals", query={"outcome": "denied", "range": "7d", "text": ""}
    )
    assert row.query == {"outcome": "denied", "range": "7d"}
    entry = house.last_entry(action="save_filter")
    assert entry["object"]["kind"] == "saved_filter"
    assert entry["object"]["id"] == str(row.id)
    assert "Refusals" not in str(entry)
    assert entry["facts"]["members"] == ["outcome", "range"]
    assert [one.name for one in trail.list_filters(house.udo)] == ["Refusals"]


def test_whom_a_filter_looks_for_does_not_stand_in_the_trail(house: House) -> None:
    row = administration.save_filter(house.udo, name="Olga B.", query={"actor": "Olga Beispiel"})
    with pytest.raises(Denied):
        administration.delete_filter(house.olga, str(row.id))
    administration.delete_filter(house.udo, str(row.id))
    for body in Entry.objects.filter(object_kind="saved_filter").values_list("body", flat=True):
        assert b"Beispiel" not in bytes(body) and b"Olga B." not in bytes(body)


def test_whom_an_export_looks_for_stands_in_the_trail_as_an_id_or_a_commitment(
    house: House,
) -> None:
    typed = {"text": "Beispiel", "actor": "Olga Beispiel", "request_id": "olga", "door": "Olga"}
    trail.export_audit(house.udo, Filters(object_id="Olga Beispiel", **typed))
    said = json.loads(bytes(Entry.objects.order_by("-index")[0].body))["facts"]["filters"]
    assert set(said) == {*typed, "object_id"}
    assert all(value.startswith("hmac-sha256:") for value in said.values())
    trail.export_audit(house.udo, Filters(object_id="Olga", action="encrypt,decrypt"))
    said = json.loads(bytes(Entry.objects.order_by("-index")[0].body))["facts"]["filters"]
    assert said == {"object_id": str(house.olga.principal_id), "action": "encrypt,decrypt"}
    trail.export_audit(house.udo, Filters(object_id="invoices", classification="internal"))
    said = json.loads(bytes(Entry.objects.order_by("-index")[0].body))["facts"]["filters"]
    assert said == {"object_id": str(house.invoices.id), "classification": "internal"}


def test_saving_under_the_same_name_again_replaces_it(house: House) -> None:
    first = administration.save_filter(house.udo, name="Mine", query={"text": "one"})
    second = administration.save_filter(house.udo, name="Mine", query={"text": "two"}, shared=True)
    assert first.pk == second.pk
    assert SavedFilter.objects.get().query == {"text": "two"}
    # Another's filter of that name is another one.
    administration.save_filter(house.olga, name="Mine", query={"text": "three"})
    assert SavedFilter.objects.count() == 2


def test_others_see_what_is_shared_and_nothing_else(house: House) -> None:
    own = administration.save_filter(house.udo, name="Own", query={"text": "a"})
    shared = administration.save_filter(house.udo, name="Ours", query={"text": "b"}, shared=True)
    assert [one.name for one in trail.list_filters(house.ada)] == ["Ours"]
    assert trail.find_filter(house.ada, str(shared.id)).name == "Ours"
    for reference in (str(own.id), "nonsense"):
        with pytest.raises(NotFound):
            trail.find_filter(house.ada, reference)
    with pytest.raises(Denied):
        trail.list_filters(house.billing)


def test_only_who_saved_it_deletes_a_filter_and_an_administrator_what_is_shared(
    house: House,
) -> None:
    own = administration.save_filter(house.udo, name="Own", query={"text": "a"})
    shared = administration.save_filter(house.udo, name="Ours", query={"text": "b"}, shared=True)
    for caller, row in ((house.olga, own), (house.olga, shared), (house.ada, own)):
        with pytest.raises(Denied):
            administration.delete_filter(caller, str(row.id))
    administration.delete_filter(house.ada, str(shared.id))
    administration.delete_filter(house.udo, str(own.id))
    assert not SavedFilter.objects.exists()
    assert house.last_entry()["object"]["id"] == str(own.id)
    with pytest.raises(NotFound):
        administration.delete_filter(house.udo, str(own.id))


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"text": ""},
        {"colour": "red"},
        {"text": 3},
        {"text": "x" * 201},
        {"text": "line\nbreak"},
        {"range": "century"},
        {"since": "yesterday"},
        {"until": "2027-01-01T00:00:00"},
        [],
    ],
)
def test_what_is_no_filter_is_not_saved(query: Any, house: House) -> None:
    with pytest.raises(Invalid):
        administration.save_filter(house.udo, name="Odd", query=query)
    assert not SavedFilter.objects.exists()
    assert house.last_entry(action="save_filter")["outcome"] == "failed"


def test_nobody_saves_filters_without_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keys.administration.filters.MOST", 2)
    for name in ("one", "two", "two"):
        administration.save_filter(house.udo, name=name, query={"text": name})
    with pytest.raises(Invalid, match="delete one first"):
        administration.save_filter(house.udo, name="three", query={"text": "three"})


def test_filters_are_saved_listed_and_deleted_through_the_api(house: House) -> None:
    udo, olga = signed_in_client("udo"), signed_in_client("olga")
    asked = {"name": "Refusals", "query": {"outcome": "denied"}, "shared": True}
    made = udo.post("/api/v1/audit/filters", json.dumps(asked), content_type="application/json")
    assert made.status_code == 201, made.content
    address = made["Location"]
    assert made.json()["query"] == {"outcome": "denied"} and made.json()["own"]
    (listed,) = olga.get("/api/v1/audit/filters").json()["items"]
    assert listed == made.json() | {"own": False}
    assert olga.get(address).json() == listed
    refused = olga.post(f"{address}/delete", "{}", content_type="application/json")
    assert refused.status_code == 403
    assert udo.post(f"{address}/delete", "{}", content_type="application/json").status_code == 200
    assert udo.get(address).status_code == 404
    odd = asked | {"query": {"colour": "red"}}
    answer = udo.post("/api/v1/audit/filters", json.dumps(odd), content_type="application/json")
    assert answer.status_code == 400
