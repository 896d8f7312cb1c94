"""Signing in and out, and how long that lasts."""

from __future__ import annotations

import time

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from audit import refusals
from keys import administration
from keys.models import Principal
from kms_console.web import throttle
from tests.console.conftest import signed_in_client
from tests.house import House, password


def attempt(client: Client, username: str, secret: str, **more: str) -> int:
    return client.post("/sign-in", {"username": username, "password": secret, **more}).status_code


def test_a_person_signs_in_and_out_and_both_leave_an_entry(house: House, client: Client) -> None:
    assert attempt(client, "olga", password("olga")) == 302
    assert house.last_entry()["action"] == "sign_in"
    assert house.last_entry()["actor"]["name"] == "Olga"
    assert house.last_entry()["method"] == "session"
    assert client.get("/").status_code == 200
    assert client.post("/sign-out").status_code == 302
    assert house.last_entry()["action"] == "sign_out"
    assert client.get("/")["Location"].startswith("/sign-in")


def test_the_user_name_may_be_written_in_capitals(house: House, client: Client) -> None:
    assert attempt(client, " Olga ", password("olga")) == 302


def test_signing_in_leads_to_the_page_that_was_wanted_and_to_no_other_site(
    house: House, client: Client
) -> None:
    form = {"username": "olga", "password": password("olga")}
    assert client.post("/sign-in", {**form, "next": "/keys?state=enabled"})["Location"] == (
        "/keys?state=enabled"
    )
    for bad in ("https://evil.example/", "//evil.example", "javascript:alert(1)", "keys"):
        other = Client()
        assert other.post("/sign-in", {**form, "next": bad})["Location"] == "/", bad


def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(house: House) -> None:
    answers = [
        Client().post("/sign-in", {"username": name, "password": "not this one at all"})
        for name in ("olga", "nobody")
    ]
    bodies = [
        answer.content.decode().replace('value="olga"', "").replace('value="nobody"', "")
        for answer in answers
    ]
    assert {answer.status_code for answer in answers} == {401}
    cleaned = [
        "\n".join(line for line in body.splitlines() if "csrfmiddlewaretoken" not in line)
        for body in bodies
    ]
    assert cleaned[0] == cleaned[1]
    refusals.flush()
    told = house.last_entry(action="authenticate")
    assert told["reason"] == "wrong_password"
    assert told["facts"]["count"] == 2
    assert "olga" not in str(told)


def test_who_has_an_account_but_no_standing_in_the_house_can_not_sign_in(house: House) -> None:
    get_user_model().objects.create_superuser("root", password=password("root"))
    assert attempt(Client(), "root", password("root")) == 401
    administration.deactivate_principal(
        house.ada, str(Principal.objects.get(name="Udo").id), reason="left"
    )
    assert attempt(Client(), "udo", password("udo")) == 401


def test_closing_an_account_ends_its_session_on_the_next_request(house: House) -> None:
    client = signed_in_client("udo")
    assert client.get("/").status_code == 200
    udo = Principal.objects.get(name="Udo")
    administration.deactivate_principal(house.ada, str(udo.id), reason="left")
    assert client.get("/")["Location"].startswith("/sign-in")


def test_after_ten_failures_even_the_right_password_must_wait(house: House) -> None:
    client = Client()
    for _ in range(throttle.FAILURES):
        assert attempt(client, "olga", "wrong") == 401
    assert attempt(client, "olga", password("olga")) == 429
    # Others are not shut out by it, from the same address or under the same name from elsewhere.
    assert attempt(Client(), "otto", password("otto")) == 302
    elsewhere = Client(REMOTE_ADDR="192.0.2.7")
    assert attempt(elsewhere, "olga", password("olga")) == 302
    refusals.flush()
    assert house.last_entry(reason="too_many_attempts")["facts"]["count"] == 1


def test_failures_are_forgotten_after_a_quarter_of_an_hour() -> None:
    for _ in range(throttle.FAILURES):
        throttle.failed("olga", "192.0.2.1", now=100.0)
    assert throttle.blocked("OLGA", "192.0.2.1", now=101.0)
    assert not throttle.blocked("olga", "192.0.2.1", now=101.0 + throttle.SECONDS)


def test_nobody_fills_the_memory_with_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "PAIRS", 20)
    for number in range(50):
        throttle.failed(f"name-{number}", "192.0.2.1")
    assert len(throttle._failures) == 20


def test_the_session_gets_a_new_id_and_the_old_one_is_refused(house: House) -> None:
    client = Client()
    client.get("/sign-in")
    session = client.session
    session["planted"] = "by an attacker"
    session.save()
    old = session.session_key
    client.cookies[settings.SESSION_COOKIE_NAME] = old
    assert attempt(client, "olga", password("olga")) == 302
    assert client.cookies[settings.SESSION_COOKIE_NAME].value != old
    attacker = Client()
    attacker.cookies[settings.SESSION_COOKIE_NAME] = old
    assert attacker.get("/")["Location"].startswith("/sign-in")


@pytest.mark.parametrize(
    ("mark", "seconds"),
    [
        ("last_seen_at", settings.SESSION_IDLE_SECONDS + 1),
        ("signed_in_at", settings.SESSION_ABSOLUTE_SECONDS + 1),
    ],
)
def test_a_session_ends_when_idle_and_when_old(mark: str, seconds: int, olga: Client) -> None:
    assert olga.get("/").status_code == 200
    session = olga.session
    session[mark] = int(time.time()) - seconds
    session.save()
    assert olga.get("/")["Location"].startswith("/sign-in")


def test_a_session_without_its_marks_is_none(olga: Client) -> None:
    session = olga.session
    del session["signed_in_at"]
    session.save()
    assert olga.get("/")["Location"].startswith("/sign-in")


def test_an_open_session_is_no_place_to_guess_the_password(house: House) -> None:
    client = signed_in_client("olga")
    form = {"old": "a guess", "new": "a much better one 7", "again": "a much better one 7"}
    for _ in range(throttle.FAILURES):
        assert "The old password is wrong" in client.post("/account", form).content.decode()
    right = client.post("/account", {**form, "old": password("olga")})
    assert right.status_code == 403
    assert "Too many attempts" in right.content.decode()


def test_changing_the_password_keeps_this_session_and_ends_all_others(house: House) -> None:
    here, there = signed_in_client("olga"), signed_in_client("olga")
    form = {"old": password("olga"), "new": "a much better one 7", "again": "a much better one 7"}
    assert here.post("/account", {**form, "again": "another"}).status_code == 400
    assert here.post("/account", {**form, "old": "wrong"}).status_code == 403
    assert here.post("/account", {**form, "new": "short", "again": "short"}).status_code == 400
    assert there.get("/").status_code == 200
    assert here.post("/account", form).status_code == 302
    assert here.get("/").status_code == 200
    assert there.get("/")["Location"].startswith("/sign-in")
    assert attempt(Client(), "olga", password("olga")) == 401
    assert attempt(Client(), "olga", "a much better one 7") == 302
    assert "much better" not in str(house.entries())
