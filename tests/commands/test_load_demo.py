"""The worked example: it has everything that it promises, and keeps to itself what is secret."""

from __future__ import annotations

import base64
import json
import re
import stat
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from audit import verifier
from audit.models import Entry
from keys import counters, gate, operations, policy, queries, sealing, sweep
from keys.actions import GRANTABLE, Action
from keys.backends.software.backend import _purpose
from keys.backends.software.models import WrappedMaterial
from keys.callers import Kind, Role
from keys.errors import CannotDecrypt, NotFound
from keys.models import Approval, Ceremony, Classification, Grant, Key, KeyVersion, Principal, Vote
from keys.services import operator
from kms_console import identity
from kms_console.demo import story
from tests.commands.conftest import Folder

DAY = timedelta(days=1)


def accounts(folder: Folder) -> dict[str, Any]:
    return json.loads((folder.secrets / "demo-accounts.json").read_text())


def application(folder: Folder, name: str) -> Any:
    token = (folder.secrets / "demo-tokens" / name).read_text()
    return identity.bearer(f"Bearer {token}", source="127.0.0.1", request_id="a test")


# --- sentence by sentence


def test_a_healthcare_company_has_four_classifications(demo: Folder) -> None:
    assert {c.name for c in Classification.objects.all()} == {
        "public",
        "internal",
        "confidential",
        "patient-health",
    }


def test_each_classification_and_purpose_has_a_key_of_its_own(demo: Folder) -> None:
    usages = {
        name: [k.usage for k in Key.objects.filter(classification__name=name)]
        for name in Classification.objects.values_list("name", flat=True)
    }
    assert set(usages["public"]) == {"SIGN_VERIFY"}
    assert set(usages["internal"]) == {"ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC"}
    assert set(usages["confidential"]) == {"ENCRYPT_DECRYPT", "SIGN_VERIFY"}
    assert set(usages["patient-health"]) == {"ENCRYPT_DECRYPT", "SIGN_VERIFY"}
    assert usages["patient-health"].count("ENCRYPT_DECRYPT") >= 2, "records and images apart"
    purposes = Key.objects.values_list("name", flat=True)
    assert len(purposes) == len(set(purposes))


def test_rotation_is_annual_and_every_90_days_for_patient_health(demo: Folder) -> None:
    days = {c.name: c.rotation_days for c in Classification.objects.all()}
    assert days == {"public": 365, "internal": 365, "confidential": 365, "patient-health": 90}
    records = demo.key("patient-records")
    assert records.rotate_at == records.versions.get(primary=True).originated_at + 90 * DAY


def test_patient_health_needs_two_of_three_and_the_others_nobody(demo: Folder) -> None:
    quorums = {c.name: (c.quorum_m, c.quorum_n) for c in Classification.objects.all()}
    assert quorums.pop("patient-health") == (2, 3)
    assert set(quorums.values()) == {(None, None)}


def test_an_application_may_encrypt_and_decrypt_its_own_key_and_nothing_else(demo: Folder) -> None:
    caller = application(demo, "patient-records")
    sealed = operations.encrypt(caller, "patient-records", b"a name", context={"patient": "1"})
    opened = operations.decrypt(
        caller, "patient-records", sealed.ciphertext, context={"patient": "1"}
    )
    assert opened.plaintext.reveal() == b"a name"
    assert operations.generate_data_key(caller, "patient-records").plaintext
    with pytest.raises(CannotDecrypt):
        operations.decrypt(caller, "patient-records", sealed.ciphertext, context={"patient": "2"})
    assert [k.alias for k in queries.list_keys(caller).rows] == ["patient-records"]
    others = Key.objects.exclude(alias="patient-records")
    assert others.count() > 10
    for key in others:
        with pytest.raises(NotFound):
            operations.encrypt(caller, str(key.id), b"x")
    standing = gate.read(caller, Action.READ_KEYS)
    allowed = [
        (key.alias, action)
        for key in Key.objects.all()
        for action in GRANTABLE
        if policy.decide(
            caller,
            standing,
            action,
            now=datetime.now(UTC),
            key_id=key.id,
            classification_id=key.classification_id,
        ).allowed
    ]
    assert {(alias, action.value) for alias, action in allowed} == {
        ("patient-records", "encrypt"),
        ("patient-records", "decrypt"),
        ("patient-records", "generate_data_key"),
    }


def test_there_are_an_auditor_three_officers_and_an_administrator_who_can_sign_in(
    demo: Folder,
) -> None:
    people = Principal.objects.filter(kind=Kind.PERSON)
    roles = sorted(people.values_list("role", flat=True))
    assert roles == ["administrator", "auditor", "officer", "officer", "officer"]
    for person in accounts(demo)["people"]:
        row = people.get(user__username=person["username"])
        assert row.user is not None
        assert row.user.check_password(person["password"])
        assert (row.role, row.active) == (person["role"], True)


def test_one_key_is_overdue_by_an_import_400_days_old_and_waits_for_its_next_material(
    demo: Folder,
) -> None:
    overdue = queries.overview(demo.person("udo")).overdue
    key = next(k for k in overdue if k.classification.name == "patient-health")
    version = key.versions.get()
    assert (key.origin, key.model) == ("imported", "customer-provided")
    assert 400 <= (version.created_at - version.originated_at).days <= 401
    assert key.pk not in sweep.rotations_due(100)


def test_its_next_material_is_being_brought_in_a_ceremony_that_is_half_done(demo: Folder) -> None:
    ceremony = Ceremony.objects.get(state="open")
    assert ceremony.key.alias == "patient-laboratory"
    entered = {c.officer.name: c.entered_at is not None for c in ceremony.custodians.all()}
    assert entered == {"Olga Brandt": False, "Otto Weiss": True}
    assert not ceremony.check_value, "nobody knows the whole material yet"


def test_one_key_is_post_quantum_and_one_has_a_budget(demo: Folder) -> None:
    releases = demo.key("public-releases")
    assert (releases.spec, releases.publish_days) == ("ML_DSA_65", 30)
    backups = demo.key("internal-backups")
    budget = counters.budget(backups.versions.get().id, backups.algorithm)
    assert budget is not None and budget.used > 0


def test_one_rotation_waits_for_one_more_vote(demo: Folder) -> None:
    request = Approval.objects.get(action="rotate_key", state="open")
    assert request.key.alias == "patient-prescriptions"
    assert request.requester.role == Role.OFFICER
    assert request.quorum_m - request.votes.count() == 1


def test_one_key_is_due_but_its_classifications_rotation_is_paused(demo: Folder) -> None:
    key = demo.key("confidential-payroll")
    assert key.rotate_at < datetime.now(UTC)
    assert key.state == "enabled"
    assert key.classification.rotation_paused
    assert key.classification.rotation_paused_reason
    assert key.pk not in sweep.rotations_due(100)
    paused = Entry.objects.get(action="pause_rotation")
    imported = Entry.objects.filter(action="import_key", object_name=key.alias).first()
    assert paused.index < imported.index, "or the real sweep could have been quicker"


def test_one_key_is_pending_destruction(demo: Folder) -> None:
    key = Key.objects.get(state="pending_destruction")
    assert key.destroy_at > datetime.now(UTC) + 6 * DAY
    assert queries.overview(demo.person("udo")).pending_destruction == [key]


def test_one_version_is_compromised_and_its_key_still_works(demo: Folder) -> None:
    version = KeyVersion.objects.get(state="compromised")
    assert version.state_reason
    assert version.key.versions.get(primary=True).number == 2


def test_something_is_suspended_and_something_disabled(demo: Folder) -> None:
    assert KeyVersion.objects.filter(state="suspended").exists()
    assert KeyVersion.objects.filter(state="deactivated").exists()
    assert Key.objects.filter(state="disabled").exists()


def test_the_overdue_key_still_works_while_its_rotation_waits(demo: Folder) -> None:
    version = demo.key("patient-laboratory").versions.get()
    assert datetime.now(UTC) < version.protect_until < version.process_until


def test_one_request_needs_one_more_vote_and_one_needs_two(demo: Folder) -> None:
    missing = [a.quorum_m - a.votes.count() for a in Approval.objects.filter(state="open")]
    assert sorted(missing) == [1, 2]
    assert queries.waiting_for(demo.person("olga")) == 1
    assert queries.waiting_for(demo.person("oona")) == 1  # the other one is her own


def test_everything_came_in_by_the_gate_and_says_that_it_is_an_example(demo: Folder) -> None:
    report = verifier.verify()
    assert report.ok, report.problem
    rows = list(Entry.objects.filter(index__lt=demo.entries))
    assert len(rows) > 70
    facts = [(row, json.loads(bytes(row.body))["facts"]) for row in rows]
    assert [
        (row.index, row.action)
        for row, told in facts
        if "demo" not in told and row.actor_name != "scheduler"
    ] == []
    for key in Key.objects.all():
        assert any(r.action == "create_key" and r.object_id == str(key.id) for r in rows)
    for grant in Grant.objects.all():
        assert any(told.get("grant") == str(grant.id) for _, told in facts)
    assert {row.outcome for row in rows} >= {"success", "started", "denied", "failed", "pending"}
    used = {row.action for row in rows if row.actor_kind == "application"}
    assert used >= {"encrypt", "decrypt", "generate_data_key", "sign", "verify", "mac"}


def test_votes_say_that_they_are_an_examples_and_times_are_real(demo: Folder) -> None:
    votes = Vote.objects.all()
    assert len(votes) >= 7
    assert all(vote.demo for vote in votes)
    assert all(approval.created_at <= datetime.now(UTC) for approval in Approval.objects.all())
    oldest = Entry.objects.order_by("at")[0].at
    assert datetime.now(UTC) - oldest < DAY


# --- secrets


def test_passwords_and_tokens_are_printed_once_and_kept_for_their_owner_alone(demo: Folder) -> None:
    first = demo.written[1]
    kept = accounts(demo)
    secret = [p["password"] for p in kept["people"]] + [a["token"] for a in kept["applications"]]
    assert len(set(secret)) == 8
    assert all(first.count(word) == 1 for word in secret)
    files = [path for path in demo.secrets.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}

    again = demo.run("load_demo") + demo.run("load_demo", "--json")
    assert "is loaded" in again
    assert [word for word in secret if word in again] == []


def test_no_secret_stands_in_the_log_or_in_any_table_of_the_metadata(demo: Folder) -> None:
    kept = accounts(demo)
    secret = [p["password"].encode() for p in kept["people"]]
    secret += [a["token"].encode() for a in kept["applications"]]
    for row in WrappedMaterial.objects.using("material").all():
        purpose = _purpose(row.store_id, row.spec, row.exportable)
        secret.append(sealing.unseal(purpose, row.label, bytes(row.wrapped)).reveal())
    secret.append(sealing.root_key().reveal())
    assert len(secret) >= 8 + len(Key.objects.all())
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    written = demo.database.path.read_bytes()
    assert b"confidential-payroll" in written, "this looks at the right file"
    forms = [
        form
        for word in secret
        for form in (word, word.hex().encode(), base64.b64encode(word), word.hex().upper().encode())
    ]
    assert [form for form in forms if form in written] == []


# --- repeated, refused, cut off


def everything() -> dict[str, int]:
    return {
        model._meta.label: model.objects.count()
        for model in apps.get_app_config("keys").get_models()
    }


def test_a_second_load_changes_nothing(demo: Folder) -> None:
    before = everything(), Entry.objects.count(), (demo.secrets / "demo-accounts.json").read_bytes()
    demo.run("load_demo")
    after = everything(), Entry.objects.count(), (demo.secrets / "demo-accounts.json").read_bytes()
    assert after == before


def test_json_says_the_same(demo: Folder) -> None:
    told = json.loads(demo.run("load_demo", "--json", "--address", "http://127.0.0.1:8123/"))
    assert told["address"] == "http://127.0.0.1:8123"
    assert not told["new"]
    assert [p["username"] for p in told["people"]] == ["ada", "olga", "otto", "oona", "udo"]
    assert "http://127.0.0.1:8123/api/v1/keys/patient-records/encrypt" in told["curl"]


def test_a_console_that_was_set_up_otherwise_is_left_alone(house: Any, settings: Any) -> None:
    settings.SECRETS_DIR = house.folder / "secrets"
    before = everything()
    with pytest.raises(CommandError, match="set up otherwise"):
        call_command("load_demo")
    assert everything() == before
    assert not settings.SECRETS_DIR.exists()


class Cut(Exception):
    pass


@pytest.mark.parametrize(
    "after",
    [
        "_keys",
        *(
            pytest.param(step, marks=pytest.mark.exhaustive)
            for step in ("_set_up", "_vote", "_application", "_inbox")
        ),
    ],
)
def test_a_load_that_was_cut_off_is_finished_by_the_next(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """The process ends after a step, as with a Ctrl-C; the next run does what is missing, once."""
    folder.run("prepare")
    owner = story if after == "_set_up" else story._Story
    step = getattr(owner, after)

    def then_cut(*args: Any) -> None:
        step(*args)
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(owner, after, then_cut)
        with pytest.raises(Cut):
            folder.run("load_demo")
    printed = folder.run("load_demo")
    password = accounts(folder)["people"][1]["password"]
    assert password in printed
    assert Principal.objects.get(user__username="olga").user.check_password(password)
    assert Key.objects.count() == 15
    assert Grant.objects.count() == 6
    assert Approval.objects.filter(state="open").count() == 2
    assert not Approval.objects.filter(state__in=["failed", "void", "expired"]).exists()
    for name in ("patient-records", "billing", "documents"):
        assert application(folder, name).name == name
    before = everything()
    folder.run("load_demo")
    assert everything() == before
    assert verifier.verify().ok


@pytest.mark.each_database(fast="postgresql")
def test_the_example_loads_on_either_database(folder: Folder) -> None:
    folder.run("prepare")
    printed = folder.run("load_demo")
    assert re.search(r"olga +\S{4}-\S{4}-\S{4}-\S{4} +Olga Brandt +officer", printed)
    assert verifier.verify().ok
    assert queries.overview(operator()).open_requests == 2
