"""What changes something is sent by POST, from our own page, and by nothing else."""

from __future__ import annotations

from django.test import Client

from audit.models import Entry
from tests.console.conftest import signed_in_client
from tests.console.furniture import Furnished, sent_to


def addresses(furnished: Furnished) -> dict[str, str]:
    return {**furnished.addresses, **sent_to(furnished), "sign-in": "/sign-in"}


def assert_only_refusals(before: int, count: int | None) -> None:
    """Whatever came to the trail since is a request that the console itself refused."""
    since = Entry.objects.filter(index__gte=before)
    assert {(row.action, row.outcome) for row in since} == {("refused_request", "denied")}
    assert count is None or since.count() == count


def test_no_route_takes_a_form_without_its_csrf_token(furnished: Furnished) -> None:
    client = signed_in_client("olga")
    client.handler.enforce_csrf_checks = True
    before = Entry.objects.count()
    for name, address in addresses(furnished).items():
        answer = client.post(address, {"reason": "because"})
        assert answer.status_code == 403, (name, answer.status_code)
        assert "The form has expired" in answer.content.decode(), name
    assert_only_refusals(before, len(addresses(furnished)))


def test_no_route_takes_what_another_site_made_the_browser_send(furnished: Furnished) -> None:
    client = signed_in_client("olga")
    before = Entry.objects.count()
    for site in ("cross-site", "same-site"):
        for name, address in addresses(furnished).items():
            answer = client.post(address, {"reason": "x"}, headers={"Sec-Fetch-Site": site})
            assert answer.status_code == 403, (name, answer.status_code)
    assert_only_refusals(before, 2 * len(addresses(furnished)))


def test_looking_at_a_page_changes_nothing(furnished: Furnished) -> None:
    client = signed_in_client("olga")
    before = Entry.objects.count()
    for address in furnished.addresses.values():
        client.get(address)
        client.head(address)
    # A form that is not for an officer is refused, and that is told; nothing else happens.
    assert_only_refusals(before, None)


def test_what_is_only_sent_can_not_be_looked_at(furnished: Furnished) -> None:
    client = signed_in_client("olga")
    for name, address in sent_to(furnished).items():
        assert client.get(address).status_code == 405, name


def test_no_route_takes_any_other_method(furnished: Furnished) -> None:
    client = signed_in_client("olga")
    for name, address in addresses(furnished).items():
        for method in ("PUT", "PATCH", "DELETE"):
            answer = client.generic(method, address, b"reason=x")
            assert answer.status_code == 405, (name, method, answer.status_code)


def test_a_page_forbids_frames_inline_script_and_foreign_content(olga: Client) -> None:
    answer = olga.get("/")
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
