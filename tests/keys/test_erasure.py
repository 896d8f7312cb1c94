"""Una leaves the company and wants her data erased. The trail goes on proving what it proved."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from auditlog.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import is_password_usable
from django.db import connection, connections

from audit import verifier
from audit.models import Entry, Export, PersonalValue, SavedFilter
from audit.search import Filters
from keys import administration, trail
from keys.errors import Conflict, Denied, Invalid, PendingApproval
from keys.models import Approval, Principal
from tests.house import House

UNA = "Una Unterberg"


@pytest.fixture
def una(house: House) -> Principal:
    """An auditor who was here for a while, and whose account is closed."""
    made = administration.create_person(house.ada, name=UNA, username="una-u", role="auditor")
    trail.export_audit(house.person("una-u"))
    administration.deactivate_principal(house.ada, str(made.principal.id), reason="she left")
    return Principal.objects.get(pk=made.principal.id)


def tables_with(*words: str) -> set[str]:
    """Return which tables of the metadata database hold one of these words."""
    found = set()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            for value in (value for row in cursor.fetchall() for value in row):
                raw = isinstance(value, bytes | memoryview)
                content = bytes(value) if raw else str(value).encode("utf-8", "replace")  # type: ignore[arg-type]
                if any(word.encode() in content for word in words):
                    found.add(table)
    return found


@pytest.mark.each_database(fast="postgresql")
def test_with_the_officers_votes_a_persons_name_is_nowhere_any_more(
    house: House, una: Principal
) -> None:
    keep = administration.save_filter(house.udo, name="Unavailable", query={"text": "unanimous"})
    for name, query in ((f"About {UNA}", {"door": "rest"}), ("Hers", {"text": "UNTERBERG"})):
        administration.save_filter(house.udo, name=name, query=query)
    administration.save_filter(house.udo, name="Her entries", query={"actor": UNA.upper()})
    trail.create_export(house.udo, Filters(actor=UNA))
    trail.create_export(house.udo, Filters(action="encrypt"))
    assert tables_with(UNA) and tables_with("una-u")
    bodies = list(Entry.objects.order_by("index").values_list("body", flat=True))
    with pytest.raises(PendingApproval) as pending:
        administration.erase_person(house.ada, str(una.id), reason="her request of today")
    house.approve(pending.value.extra["approval"])
    assert tables_with(UNA, UNA.casefold(), UNA.upper(), "una-u", "UNTERBERG") == set()
    assert list(SavedFilter.objects.all()) == [keep]
    assert [row.filters for row in Export.objects.all()] == [{"action": "encrypt"}]
    after = list(Entry.objects.order_by("index").values_list("body", flat=True))
    assert [bytes(one) for one in after[: len(bodies)]] == [bytes(one) for one in bodies]
    assert verifier.verify().ok
    last = house.last_entry(action="erase_person", outcome="success")
    assert last["object"]["id"] == str(una.id) and last["object"]["name"] == ""
    assert last["facts"]["values_erased"] >= 1
    assert {entry["actor"]["name"] for entry in house.entries(actor_id=str(una.id))} == {"(erased)"}
    user = get_user_model().objects.get(principal__id=una.id)
    assert not is_password_usable(user.password)


def test_an_entry_never_holds_the_name_of_a_person_who_was_added_or_appointed(
    house: House, una: Principal
) -> None:
    approval = house.pending(
        administration.appoint_officer, house.ada, "", name="Olive Onda", username="olive"
    )
    house.approve(str(approval.id), execute=False)
    administration.appoint_officer(house.ada, name="Olive Onda", username="olive")
    bodies = b"\n".join(bytes(body) for body in Entry.objects.values_list("body", flat=True))
    for text in (UNA, "una-u", "Olive", "olive"):
        assert text.encode() not in bodies
    values = set(PersonalValue.objects.values_list("value", flat=True))
    assert {UNA, "Olive Onda", "olive"} <= values


def test_only_a_closed_account_of_a_person_is_erased(house: House) -> None:
    with pytest.raises(Conflict, match="Close the account first"):
        administration.erase_person(house.ada, str(house.udo.principal_id))
    with pytest.raises(Conflict, match="Only people"):
        administration.erase_person(house.ada, "billing")
    assert not Approval.objects.exists()


def test_nobody_but_an_administrator_asks_for_it(house: House, una: Principal) -> None:
    for caller in (house.olga, house.udo):
        with pytest.raises(Denied):
            administration.erase_person(caller, str(una.id))


def test_under_a_legal_hold_nothing_is_erased(house: House, una: Principal) -> None:
    administration.place_hold(
        house.udo, name="lawsuit 7", since="2020-01-01T00:00:00+00:00", reason="court order"
    )
    with pytest.raises(Conflict, match="legal hold"):
        administration.erase_person(house.ada, str(una.id))
    assert tables_with(UNA)


def test_diffs_of_accounts_do_not_repeat_names(house: House, una: Principal) -> None:
    rows = LogEntry.objects.filter(content_type__model="principal", object_pk=str(una.id))
    assert rows.exists()
    assert not any(UNA in str(row.changes) for row in rows)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_hold_that_is_placed_while_somebody_is_erased_comes_first(
    house: House, una: Principal
) -> None:
    request = house.pending(administration.erase_person, house.ada, str(una.id), reason="her wish")
    house.approve(str(request.id), execute=False)
    placed: list[object] = []

    def place() -> None:
        try:
            placed.append(
                administration.place_hold(
                    house.udo, name="Case 7", since="2020-01-01T00:00:00Z", reason="a court"
                )
            )
        finally:
            connections.close_all()

    def meanwhile(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith('UPDATE "keys_principal"') and not placed:
            # The erasure looked for holds, and for the last time before its commit.
            thread = threading.Thread(target=place)
            thread.start()
            thread.join()
        return execute(sql, *rest)

    with connection.execute_wrapper(meanwhile):
        administration.execute(str(request.id))
    assert placed
    assert house.last_entry(action="erase_person")["outcome"] == "failed"
    assert PersonalValue.objects.filter(value=UNA).exists()
    una.refresh_from_db()
    assert una.name == UNA


def test_however_a_name_was_typed_it_is_erased(house: House) -> None:
    made = administration.create_person(
        house.ada, name=" Ann Lee ", username=" Ann.Lee ", role="auditor"
    )
    for name, username in (("ANN LEE", "ANN.LEE"), ("Ann\u200bLee", "ann lee")):
        with pytest.raises(Invalid):
            administration.create_person(house.ada, name=name, username=username, role="auditor")
    with pytest.raises(Denied):
        administration.create_person(house.udo, name="ann lee", username="Ann.lee", role="auditor")
    kept = PersonalValue.objects.filter(subject="", value__icontains="ann")
    assert set(kept.values_list("value", flat=True)) == {"ANN LEE", "ann.lee"}
    administration.deactivate_principal(house.ada, str(made.principal.id), reason="she left")
    with pytest.raises(PendingApproval) as pending:
        administration.erase_person(house.ada, str(made.principal.id), reason="her wish")
    house.approve(pending.value.extra["approval"])
    words = ["Ann Lee", "ANN LEE", "ann lee", "ann.lee", "Ann.Lee", "ANN.LEE", "Ann.lee"]
    assert tables_with(*words, "Ann\u200bLee") == set()


def test_an_officers_name_is_voted_on_as_the_account_will_have_it(house: House) -> None:
    request = house.pending(
        administration.appoint_officer, house.ada, "", name=" Olive Onda ", username="OLIVE"
    )
    assert request.parameters == {"name": "Olive Onda", "username": "olive"}
    house.approve(str(request.id), execute=False)
    made = administration.appoint_officer(house.ada, name="Olive Onda", username="Olive")
    assert made.principal.name == "Olive Onda"


def test_what_an_auditor_looked_for_is_committed_to_and_not_kept(house: House) -> None:
    before = set(PersonalValue.objects.values_list("value", flat=True))
    trail.search_audit(house.udo, Filters(text="Winifred Somebody"))
    kept = set(PersonalValue.objects.values_list("value", flat=True)) - before
    assert not any("Winifred" in str(value) for value in kept)
    assert tables_with("Winifred") == set()
