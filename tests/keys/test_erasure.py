"""Una leaves the company and wants her data erased. The trail goes on proving what it proved."""

from __future__ import annotations

import pytest
from auditlog.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import is_password_usable
from django.db import connection

from audit import verifier
from audit.models import Entry, PersonalValue
from keys import administration, trail
from keys.errors import Conflict, Denied, PendingApproval
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
    assert tables_with(UNA) and tables_with("una-u")
    bodies = list(Entry.objects.order_by("index").values_list("body", flat=True))
    with pytest.raises(PendingApproval) as pending:
        administration.erase_person(house.ada, str(una.id), reason="her request of today")
    house.approve(pending.value.extra["approval"])
    assert tables_with(UNA, UNA.casefold(), "una-u") == set()
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
