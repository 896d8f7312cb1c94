"""Personal data: entries commit to it, a table beside the log holds it, erasing leaves every proof."""

from __future__ import annotations

import hmac
import threading
from hashlib import sha256

import pytest
from django.db import connections

from audit import merkle, personal, proofs
from audit.events import Actor, Personal, Subject
from audit.models import Entry, PersonalValue
from audit.search import Filters, search
from audit.verifier import verify
from audit.writer import head
from tests.audit.helpers import use, write
from tests.databases import Database

ALICE_ID = "0192f0c1-0000-7000-8000-00000000a11c"
ALICE = Actor("person", ALICE_ID, Personal("Alice Ångström", ALICE_ID))


def by_alice(**changes: object) -> object:
    return use(actor=ALICE, source=Personal("192.0.2.44", ALICE_ID), **changes)


@pytest.mark.each_database(fast="postgresql")
def test_an_entry_commits_to_a_persons_name_and_address_without_holding_them(
    database: Database,
) -> None:
    write(by_alice(facts={"asked": {"who": [Personal("Bob", "b")]}}))  # type: ignore[arg-type]
    row = Entry.objects.get()
    body = bytes(row.body)
    assert b"Alice" not in body and b"192.0.2.44" not in body and b"Bob" not in body
    assert row.actor_name.startswith("hmac-sha256:")
    kept = PersonalValue.objects.get(commitment=row.actor_name)
    assert (kept.subject, kept.value) == (ALICE_ID, "Alice Ångström")
    assert kept.salt is not None
    digest = hmac.new(bytes(kept.salt), "Alice Ångström".encode(), sha256).hexdigest()
    assert row.actor_name == "hmac-sha256:" + digest


@pytest.mark.each_database(fast="postgresql")
def test_the_same_name_reads_the_same_in_every_entry_of_one_person_and_not_of_another(
    database: Database,
) -> None:
    write(by_alice(), by_alice())  # type: ignore[arg-type]
    write(by_alice())  # type: ignore[arg-type]
    write(use(actor=Actor("person", "other", Personal("Alice Ångström", "other"))))
    names = list(Entry.objects.order_by("index").values_list("actor_name", flat=True))
    assert len(set(names[:3])) == 1
    assert names[3] != names[0]


@pytest.mark.each_database(fast="postgresql")
def test_two_writers_who_meet_a_new_name_at_once_agree_on_its_commitment(
    database: Database,
) -> None:
    errors: list[BaseException] = []

    def append() -> None:
        try:
            for _ in range(5):
                write(by_alice())  # type: ignore[arg-type]
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=append) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Entry.objects.count() == 20
    assert len(set(Entry.objects.values_list("actor_name", flat=True))) == 1
    assert verify().ok


@pytest.mark.each_database(fast="postgresql")
def test_erasing_a_person_leaves_every_entry_and_every_proof_as_it_was(
    database: Database,
) -> None:
    write(by_alice(), use(), by_alice(object=Subject("key", "k", "wages")))  # type: ignore[arg-type]
    before = [
        bytes(body) for body in Entry.objects.order_by("index").values_list("body", flat=True)
    ]
    root = head().root
    path = proofs.inclusion(2, 3)
    assert personal.erase(ALICE_ID) == 2
    assert personal.erase(ALICE_ID) == 0
    after = [bytes(body) for body in Entry.objects.order_by("index").values_list("body", flat=True)]
    assert after == before
    assert proofs.inclusion(2, 3) == path
    assert merkle.verify_inclusion(merkle.leaf_hash(after[2]), 2, 3, path, root)
    assert verify().ok
    rows = search(Filters())
    personal.reveal(rows)
    assert {row.actor_name for row in rows} == {"(erased)", "payroll"}
    assert PersonalValue.objects.filter(subject=ALICE_ID, value__isnull=False).count() == 0


def test_a_name_that_comes_back_after_erasing_gets_a_commitment_of_its_own(
    database: Database,
) -> None:
    write(by_alice())  # type: ignore[arg-type]
    personal.erase(ALICE_ID)
    write(by_alice())  # type: ignore[arg-type]
    first, second = Entry.objects.order_by("index").values_list("actor_name", flat=True)
    assert first != second
    assert personal.opened([first, second]) == {first: None, second: "Alice Ångström"}


def test_people_read_names_where_entries_have_commitments(database: Database) -> None:
    write(by_alice(), use())  # type: ignore[arg-type]
    rows = search(Filters())
    personal.reveal(rows)
    assert [(row.actor_name, row.source) for row in rows] == [
        ("payroll", "192.0.2.7"),
        ("Alice Ångström", "192.0.2.44"),
    ]


def test_who_calls_itself_like_a_commitment_is_not_shown_under_the_others_name(
    database: Database,
) -> None:
    write(by_alice())  # type: ignore[arg-type]
    stolen = Entry.objects.get().actor_name
    write(use(actor=Actor("application", "impostor", stolen)))
    rows = search(Filters())
    personal.reveal(rows)
    assert rows[0].actor_name == stolen
