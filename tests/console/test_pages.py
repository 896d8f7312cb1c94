"""Every page, for every role."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from django.test import Client

from keys import actions
from keys.callers import Role
from kms_console.web import urls
from tests.console.conftest import signed_in_client
from tests.console.furniture import FOR_EVERYBODY, Furnished, sent_to
from tests.house import House

ROLES = {"olga": "officer", "ada": "administrator", "udo": "auditor"}
# Files to be kept.
FILES = {"ceremony-minutes-text", "audit-export-content", "verifier-keys"}
# Before anybody is signed in.
OUTSIDE = {"sign-in", "set-up"}


def names() -> set[str]:
    return {str(pattern.name) for pattern in urls.urlpatterns}


def test_the_tour_knows_every_route(furnished: Furnished) -> None:
    assert set(furnished.addresses) | set(sent_to(furnished)) | FILES | OUTSIDE == names()


class Outline(HTMLParser):
    """What a page has that a screen reader needs."""

    def __init__(self) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.labelled: set[str] = set()
        self.fields: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "h1":
            self.headings.append(tag)
        if tag == "label" and values.get("for"):
            self.labelled.add(str(values["for"]))
        if tag in ("input", "select", "textarea") and values.get("type") != "hidden":
            self.fields.append(values)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if "style" in values or tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)
        self.inline += [name for name in values if name.startswith("on")]


@pytest.mark.parametrize("username", ROLES)
def test_every_page_answers_every_role_with_one_heading_labelled_fields_and_nothing_inline(
    username: str, furnished: Furnished
) -> None:
    client = signed_in_client(username)
    for name, address in furnished.addresses.items():
        answer = client.get(address)
        assert answer.status_code in (200, 403), (name, answer.status_code)
        if name in FOR_EVERYBODY:
            assert answer.status_code == 200, name
        body = answer.content.decode()
        assert "<h1" in body and "</html>" in body, name
        assert "no-store" in answer["Cache-Control"] or "no-cache" in answer["Cache-Control"], name
        outline = Outline()
        outline.feed(body)
        assert len(outline.headings) == 1, name
        assert outline.inline == [], name
        assert len(outline.ids) == len(set(outline.ids)), (name, outline.ids)
        for field in outline.fields:
            assert field.get("id") in outline.labelled, (name, field)


def test_who_is_not_signed_in_is_sent_to_the_sign_in_page_and_back(
    furnished: Furnished, client: Client
) -> None:
    for name, address in furnished.addresses.items():
        answer = client.get(address)
        assert answer.status_code == 302, name
        assert answer["Location"].startswith("/sign-in"), name
        assert client.post(address).status_code in (302, 405), name


def test_an_auditor_sees_everything_and_is_offered_no_change(furnished: Furnished) -> None:
    client = signed_in_client("udo")
    for name in FOR_EVERYBODY:
        body = client.get(furnished.addresses[name]).content.decode()
        forms = set(re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', body))
        # An auditor may take a public key along.
        allowed = {"/sign-out", "/audit/verify", "/keys/signer/public-key"}
        assert forms <= allowed, (name, forms)
        # Exports, saved filters and legal holds are an auditor's own work.
        links = {
            link
            for link in re.findall(r'href="(/[^"]*)"', body)
            if not link.startswith(("/audit/", "/proofs/"))
        }
        changing = [
            link
            for link in links
            if re.search(
                r"/do/|/-/|/edit|/import|/export$|/certificate|/cancel|/revoke|/close|/dismiss|/erase|/pause|/off$|/adopt",
                link,
            )
        ]
        assert changing == [], name


@pytest.mark.parametrize("username", ROLES)
def test_forms_that_a_role_can_not_send_are_refused_when_looked_at(
    username: str, furnished: Furnished
) -> None:
    needed = {
        "key-create": actions.Action.CREATE_KEY,
        "key-edit": actions.Action.UPDATE_KEY,
        "key-verb": actions.Action.ROTATE_KEY,
        "classification-create": actions.Action.CREATE_CLASSIFICATION,
        "application-create": actions.Action.CREATE_APPLICATION,
        "grant-create": actions.Action.CREATE_GRANT,
        "person-create": actions.Action.CREATE_PERSON,
        "officer-appoint": actions.Action.APPOINT_OFFICER,
        "key-store-create": actions.Action.CREATE_KEY_STORE,
        "credential-issue": actions.Action.ISSUE_CREDENTIAL,
        "limits-set": actions.Action.SET_LIMITS,
        "key-import": actions.Action.IMPORT_KEY,
        "import-parameters": actions.Action.IMPORT_PARAMETERS,
        "import-material": actions.Action.IMPORT_KEY,
        "ceremony-open": actions.Action.OPEN_CEREMONY,
        "ceremony-cancel": actions.Action.CLOSE_CEREMONY,
        "version-export": actions.Action.EXPORT_KEY,
        "certificate-request": actions.Action.CERTIFICATE_REQUEST,
        "key-store-edit": actions.Action.UPDATE_KEY_STORE,
        "root-key-hold": actions.Action.HOLD_ROOT_KEY,
        "root-key-rotate": actions.Action.ROTATE_ROOT_KEY,
        "listing-adopt": actions.Action.ADOPT_KEY,
        "drift-verb": actions.Action.ACCEPT_DRIFT,
        "audit-export": actions.Action.EXPORT_AUDIT,
        "audit-exports": actions.Action.EXPORT_AUDIT,
        "audit-filter-save": actions.Action.SAVE_FILTER,
        "audit-filter-delete": actions.Action.SAVE_FILTER,
        "hold-place": actions.Action.PLACE_HOLD,
        "hold-release": actions.Action.RELEASE_HOLD,
    }
    client = signed_in_client(username)
    for name, action in needed.items():
        wanted = 200 if Role(ROLES[username]) in action.row.roles else 403
        assert client.get(furnished.addresses[name]).status_code == wanted, name


def test_an_empty_house_says_on_every_page_what_to_do(house: House) -> None:
    client = signed_in_client("olga")
    for address, word in {
        "/keys?text=nothing-like-this": "No key is like that",
        "/jobs?state=failed": "Nothing has failed",
        "/approvals": "Nothing waits for your vote",
        "/audit?actor=nobody": "No entry is like that",
    }.items():
        assert word in client.get(address).content.decode(), address


def test_an_unknown_address_is_a_page_of_the_house(olga: Client) -> None:
    answer = olga.get("/nothing/here")
    assert answer.status_code == 404
    assert "There is no such page" in answer.content.decode()
    unknown = olga.get("/keys/nobody-made-this")
    assert unknown.status_code == 404
    assert "There is no such thing here" in unknown.content.decode()
