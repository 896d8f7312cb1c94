"""Nonsense gets a 4xx and a page, never a 500, and leaves nothing half done."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.test import Client

from audit.models import Entry
from keys.models import Approval, Classification, Grant, Job, Key, KeyStore, Principal
from tests.console.conftest import signed_in_client
from tests.console.furniture import Furnished, sent_to
from tests.house import House

QUERIES = [
    "?text=%00",
    "?after=%00",
    "?text=%ff%fe%80",
    "?text=" + "x" * 5000,
    "?state=nonsense&classification=nobody&spec=ROT13&condition=hungry&origin=moon",
    "?before=99999999999999999999",
    "?before=-1",
    "?before=٣",
    "?since=yesterday",
    "?since=0001-01-01T00:00&until=9999-12-31T23:59",
    "?action=walk_the_dog",
    "?after=not-a-uuid",
    "?after=00000000-0000-0000-0000-000000000000",
    "?show=%27%3B+DROP+TABLE+keys_key",
    "?request=%00",
    "?request=' OR 1=1",
    "?key=../../etc/passwd",
    "?classification=%F0%9F%94%91",
    "?proof=yes&officers=999999999999",
    "?version=99999999999",
    "?version=-1",
    "?version=2",
    "?spec=ROT13&usage=nothing",
    "?classification=internal&spec=AES_256&usage=NONSENSE",
    "?algorithm=%00",
    "?only=everything&look=-1",
    "?found=1&found=x&found=99999999999999999999",
    "?ask=nonsense&key_store=nowhere&field=colour",
    "?" + "&".join(f"a{n}=1" for n in range(900)),
]
VALUES: list[Any] = [
    "",
    "\0",
    "x" * 20_000,
    "9" * 5000,
    "-1",
    "1e400",
    "NaN",
    "٣",
    "\u202e\u200b",
    '<script>alert("x")</script>',
    "{{ 7|add:7 }}",
    "' OR 1=1 --",
    "[]",
    '{"a": ' * 300 + "1" + "}" * 300,
    "=" * 50,
    "=\n" * 40,
    "0001-01-01T00:00",
    "9999-12-31T23:59",
    "10.0.0.0/99",
    ["a", "b"],
]
FIELDS = (
    "name", "alias", "title", "username", "role", "kind", "settings", "credentials", "spec",
    "key_store", "origin", "labels", "rotation_days", "originator_days", "recipient_days",
    "destruction_days", "quorum_m", "quorum_n", "days", "operations", "allowed_specs",
    "key_stores", "context", "not_before", "expires_at", "source_networks", "application",
    "key", "classification", "material", "originated_at", "digest", "vote", "comment", "old",
    "new", "again", "minimum_protection", "description", "owner", "suspended_decrypts",
    "format", "since", "algorithm", "exportable", "publish_days", "blob", "token", "wrapping_key",
    "check_value", "custodians", "split", "first", "place", "component", "public_key", "version",
    "number", "subject", "dns_names", "emails", "ip_addresses", "uris", "request", "setting_file",
)  # fmt: skip
# Pages that read their query, and who may look at them.
READING = {
    "olga": (
        "overview", "keys", "key", "key-create", "approvals", "jobs", "audit", "audit-entry",
        "applications", "people", "grant-create", "key-import", "import-parameters",
        "import-material", "ceremony-open", "ceremony", "ceremony-minutes", "version-export",
        "key-store", "listing", "listing-adopt", "drift", "audit-filters", "audit-filter-save",
        "proofs",
    ),
    "udo": ("audit", "audit-entry", "audit-export", "audit-exports", "audit-export-page"),
    "ada": ("officer-appoint", "credential-issue", "key-stores", "classification"),
}  # fmt: skip
REFERENCES = [
    "%00",
    "..",
    "%ff",
    "x" * 300,
    "00000000-0000-0000-0000-000000000000",
    "%2e%2e%2f",
    "🔑",
]


def rows() -> dict[str, int]:
    models = (Approval, Classification, Grant, Job, Key, KeyStore, Principal)
    return {model.__name__: model.objects.count() for model in models}


@pytest.mark.parametrize("share", [13, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(("username", "names"), READING.items())
def test_no_query_breaks_a_page(
    username: str, names: tuple[str, ...], share: int, furnished: Furnished
) -> None:
    client = signed_in_client(username)
    for place, (name, query) in enumerate(itertools.product(names, QUERIES)):
        if (place // len(QUERIES) + place) % share:
            continue
        answer = client.get(furnished.addresses[name].partition("?")[0] + query)
        assert answer.status_code < 500, (name, query)
        assert answer.status_code in (200, 302, 400, 403, 404, 409), (name, query)


@pytest.mark.parametrize("share", [18, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("username", ["olga", "ada"])
def test_no_form_value_breaks_a_page_or_leaves_anything_behind(
    username: str, share: int, furnished: Furnished
) -> None:
    """Every form meets one or two values, each others than the last; then every form every value."""
    client = signed_in_client(username)
    before = rows()
    changing = {
        n: a for n, a in furnished.addresses.items() if n not in ("key-verb", "version-verb")
    }
    changing |= {n: a for n, a in sent_to(furnished).items() if n != "sign-out"}
    # What the role may not do at all, the gate refuses before it looks at any value.
    changing = {n: a for n, a in changing.items() if client.get(a).status_code != 403}
    assert len(changing) > 10
    for place, ((name, address), (turn, value)) in enumerate(
        itertools.product(changing.items(), enumerate(VALUES))
    ):
        if (place // len(VALUES) + turn) % share:
            continue
        # Without a reason, so that nothing that happens to be valid is carried out.
        answer = client.post(address, dict.fromkeys(FIELDS, value))
        assert answer.status_code < 500, (name, value)
        body = getattr(answer, "content", b"")
        assert b'<script>alert("x")' not in body, name
    after = rows()
    # Nonsense that happens to be a name is a name: accounts and stores may be called oddly.
    for model in ("Approval", "Classification", "Grant", "Job", "Key", "KeyStore"):
        assert after[model] == before[model], model


@pytest.mark.parametrize("share", [3, pytest.param(1, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("reference", REFERENCES)
def test_no_reference_breaks_a_page(reference: str, share: int, olga: Client) -> None:
    """Every address meets every third reference, each a different third; then all of them."""
    patterns = (
        "/keys/{}", "/keys/{}/edit", "/keys/{}/do/rotate", "/keys/{}/versions/1/do/suspend",
        "/keys/invoices/do/{}", "/keys/invoices/versions/{}/do/suspend", "/approvals/{}",
        "/jobs/{}", "/audit/{}", "/classifications/{}", "/applications/{}", "/grants/{}/revoke",
        "/people/{}/dismiss", "/key-stores/{}/off", "/keys/{}/import", "/keys/{}/import/parameters",
        "/keys/{}/import/material", "/keys/{}/import/ceremony", "/keys/{}/public-key",
        "/keys/{}/certificate", "/keys/{}/versions/1/export", "/keys/invoices/versions/{}/export",
        "/ceremonies/{}", "/ceremonies/{}/enter", "/ceremonies/{}/confirm", "/ceremonies/{}/import",
        "/ceremonies/{}/cancel", "/ceremonies/{}/minutes", "/ceremonies/{}/minutes.txt",
        "/key-stores/{}", "/key-stores/{}/edit", "/key-stores/{}/check", "/key-stores/{}/discover",
        "/keys/{}/compare", "/listings/{}", "/listings/{}/adopt?found=1", "/drift/{}/do/accept",
    )  # fmt: skip
    for place, pattern in enumerate(patterns):
        if (place + REFERENCES.index(reference)) % share:
            continue
        address = pattern.format(reference)
        for send in (olga.get, olga.post):
            answer = send(address)
            assert 300 <= answer.status_code < 500, (address, answer.status_code)


def test_numbers_that_no_database_holds_are_no_pages(olga: Client) -> None:
    for number in ("999999999", "99999999999", "9" * 15, "9" * 40):
        assert olga.get(f"/audit/{number}").status_code == 404, number
        assert olga.get(f"/keys/invoices/versions/{number}/do/suspend").status_code == 404, number


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/x-www-form-urlencoded", b"\xff\xfe=%zz&days=%ff%fe"),
        ("application/x-www-form-urlencoded; charset=nonsense", b"days=x"),
        ("application/x-www-form-urlencoded; charset=utf-16", b"days=x"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data"),
        ("multipart/form-data", b"no boundary at all"),
        ("multipart/form-data; boundary=\xff", b"--"),
        ("application/json", b"{not json"),
        ("text/plain", b"\0\0\0"),
    ],
)
def test_no_body_breaks_a_form(content_type: str, body: bytes, olga: Client) -> None:
    before = rows()
    for address in (
        "/keys/invoices/do/rotate", "/keys/-/new?classification=internal", "/sign-out", "/account"
    ):  # fmt: skip
        client = signed_in_client("olga")
        answer = client.generic("POST", address, body, content_type=content_type)
        assert answer.status_code < 500, (address, answer.status_code)
    assert rows() == before


def test_a_body_over_the_limit_is_refused(olga: Client) -> None:
    before = rows()
    answer = olga.post(
        "/keys/-/new?classification=internal",
        "name=" + "x" * (2 * 1024 * 1024),
        content_type="application/x-www-form-urlencoded",
    )
    assert answer.status_code in (400, 413)
    assert rows() == before


def test_an_illegal_step_is_a_conflict_that_says_what_would_be_possible(
    house: House, olga: Client
) -> None:
    key = house.key()
    form = {"reason": "try it"}
    answer = olga.post(f"/keys/{key.alias}/versions/1/do/destroy", form)
    assert answer.status_code == 409
    assert "it can&#x27;t become destroyed. Possible" in answer.content.decode()
    assert olga.post(f"/keys/{key.alias}/do/enable", form).status_code == 409
    assert olga.post(f"/keys/{key.alias}/do/cancel-destruction", form).status_code == 409
    assert olga.post(f"/keys/{key.alias}/versions/9/do/suspend", form).status_code == 404
    key.refresh_from_db()
    assert key.state == "enabled"
    assert house.last_entry(outcome="failed")["actor"]["name"] == "Olga"


def test_what_a_role_may_not_do_is_refused_by_the_gate_and_recorded(house: House) -> None:
    udo = signed_in_client("udo")
    before = Entry.objects.count()
    answer = udo.post("/keys/invoices/do/disable", {"reason": "curious"})
    assert answer.status_code == 403
    assert Entry.objects.count() == before + 1
    denied = house.last_entry()
    assert (denied["action"], denied["outcome"]) == ("disable_key", "denied")
    assert denied["actor"]["name"] == "Udo"
    house.invoices.refresh_from_db()
    assert house.invoices.state == "enabled"
