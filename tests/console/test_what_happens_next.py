"""Nobody asks for anything, or votes on it, without being told what will happen."""

from __future__ import annotations

from django.test import Client

from keys import administration
from keys.models import Approval, Job
from tests.console.bringing import form
from tests.console.conftest import signed_in_client
from tests.house import House


def test_a_form_says_beforehand_that_officers_must_agree(house: House, olga: Client) -> None:
    house.key("patient-health", alias="records")
    asks = olga.get("/keys/records/do/rotate").content.decode()
    assert "2 officers besides you must agree first" in asks
    assert "Ask for it" in asks
    alone = olga.get("/keys/invoices/do/rotate").content.decode()
    assert "must agree first" not in alone
    assert "Ask for it" not in alone
    # What only stops use is never delayed by a vote.
    assert "must agree first" not in olga.get("/keys/records/do/disable").content.decode()


def test_a_form_says_how_long_destruction_waits_at_least(house: House, olga: Client) -> None:
    days = house.invoices.classification.destruction_days
    assert f"At least {days}" in olga.get("/keys/invoices/do/destroy").content.decode()


def test_an_open_request_names_who_must_still_agree(house: House, olga: Client) -> None:
    house.key("patient-health", alias="records")
    request = house.pending(administration.rotate_key, house.olga, "records", reason="due")
    page = olga.get(f"/approvals/{request.id}").content.decode()
    assert "2 more of " in page
    assert "Then the worker carries it out by itself" in page
    administration.vote(house.otto, str(request.id), approve=True, digest=request.digest)
    page = olga.get(f"/approvals/{request.id}").content.decode()
    assert "1 more of Oona must agree" in page


def test_what_one_asked_for_stands_under_asked_by_me(house: House, olga: Client) -> None:
    house.key("patient-health", alias="records")
    mine = house.pending(administration.rotate_key, house.olga, "records", reason="due")
    others = house.pending(administration.schedule_destruction, house.otto, "records", reason="old")
    page = olga.get("/approvals?show=asked").content.decode()
    assert f"/approvals/{mine.id}" in page
    assert f"/approvals/{others.id}" not in page


def test_officers_see_the_old_value_of_a_policy_and_that_votes_are_to_end(
    house: House, ada: Client
) -> None:
    days = house.key("patient-health").classification.rotation_days
    house.pending(
        administration.update_classification,
        house.ada,
        "patient-health",
        reason="too slow",
        rotation_days=days - 1,
        quorum={},
    )
    request = Approval.objects.get()
    page = signed_in_client("otto").get(f"/approvals/{request.id}").content.decode()
    assert f'<s class="muted">{days}</s>' in page
    assert f"<strong>{days - 1}</strong>" in page
    assert "2 officers, of at least 3</s>" in page
    assert "<strong>nobody: one officer acts alone</strong>" in page
    assert "Key types" not in page.partition("As it stood")[0], "it does not change"


def test_a_page_that_watches_stops_so_that_its_session_can_end(house: House, olga: Client) -> None:
    house.key("internal", alias="doomed")
    administration.schedule_destruction(house.olga, "doomed", reason="nobody needs it")
    job = Job.objects.get(kind="destroy")
    assert "load delay" not in olga.get(f"/jobs/{job.id}").content.decode()  # not for weeks
    house.let_days_pass(130)
    address = f"/jobs/{job.id}"
    assert f'hx-get="{address}?look=1"' in olga_again().get(address).content.decode()
    assert "load delay" not in olga_again().get(f"{address}?look=30").content.decode()
    assert "load delay" not in olga_again().get(f"{address}?look=never").content.decode()


def olga_again() -> Client:
    """Olga's session did not outlive the days that have passed."""
    return signed_in_client("olga")


def test_an_error_at_a_field_is_not_told_in_the_words_of_programs(
    house: House, olga: Client
) -> None:
    answer = olga.post("/keys/invoices/do/destroy", {"days": "1", "reason": "old"})
    page = answer.content.decode()
    assert "Must be from " in page
    assert "days must be" not in page


def test_a_suspended_primary_version_is_seen_without_opening_the_key(
    house: House, olga: Client
) -> None:
    house.move(house.invoices, 1, "suspended", reason="looked into")
    assert "Suspended" in olga.get("/keys?text=invoices").content.decode().partition("<tbody>")[2]
    assert "its primary version is suspended" in olga.get("/").content.decode()
    assert "The primary version is suspended" in olga.get("/keys/invoices").content.decode()


def test_who_must_repeat_an_approved_import_sees_it_on_the_overview(
    house: House, olga: Client
) -> None:
    house.key("patient-health", alias="brought", name="Brought", origin="imported")
    filled = form(olga, "brought", bytes(range(32)))
    assert olga.post("/keys/brought/import/material", filled).status_code == 302
    request = Approval.objects.get()
    assert "It waits for you" not in olga.get("/").content.decode()
    for officer in (house.otto, house.oona):
        administration.vote(officer, str(request.id), approve=True, digest=request.digest)
    assert "It waits for you" in olga.get("/").content.decode()
    assert "It waits for you" not in signed_in_client("otto").get("/").content.decode()
