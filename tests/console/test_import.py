"""Bringing one's own key through the console: parameters, wrapped material, votes, and bringing it again."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from keys import administration
from keys.errors import StateForbids
from keys.models import Approval, ImportTicket, Key
from keys.secret import Secret
from tests.console.bringing import REASON, form, oaep, parameters, rsa_aes
from tests.console.conftest import signed_in_client
from tests.house import House


@pytest.fixture
def brought(house: House) -> Key:
    return house.key("internal", name="Brought", alias="brought", origin="imported")


def in_the_future(days: int = 30) -> str:
    return f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%dT%H:%M}"


def test_the_first_page_names_every_way_and_what_is_wanted(olga: Client, brought: Key) -> None:
    page = olga.get("/keys/brought/import").content.decode()
    for word in ("exactly 32 bytes", "Get import parameters", "AES key wrap", "Open a ceremony"):
        assert word in page, word
    assert "Import the material" in olga.get("/keys/brought").content.decode()


def test_parameters_are_shown_once_with_the_commands_that_use_them(
    house: House, olga: Client, brought: Key
) -> None:
    pem, token = parameters(olga, "brought", "RSA_4096")
    key = serialization.load_pem_public_key(pem.encode())
    assert key.key_size == 4096  # type: ignore[union-attr]
    assert len(token) == 43
    for address in ("/keys/brought", "/keys/brought/import", "/audit", "/"):
        assert token not in olga.get(address).content.decode(), address
    assert token not in str(house.entries())
    assert token not in str(dict(olga.session))
    assert ImportTicket.objects.count() == 1
    page = olga.post("/keys/brought/import/parameters", {"spec": "RSA_3072"}).content.decode()
    for word in ("openssl pkeyutl -encrypt", "id-aes256-wrap-pad", "wrapping-key.pem"):
        assert word in page, word


def test_a_wrapping_key_of_another_kind_is_refused_at_its_field(olga: Client, brought: Key) -> None:
    answer = olga.post("/keys/brought/import/parameters", {"spec": "RSA_1024"})
    assert answer.status_code == 400
    assert "Select a valid choice" in answer.content.decode()
    assert ImportTicket.objects.count() == 0


@pytest.mark.parametrize("algorithm", ["RSA_AES_KEY_WRAP_SHA_256", "RSAES_OAEP_SHA_256"])
def test_wrapped_material_is_imported_and_never_comes_back(
    house: House, olga: Client, brought: Key, algorithm: str
) -> None:
    material = os.urandom(32)
    filled = form(olga, "brought", material, algorithm) | {
        "originated_at": "2026-01-02T03:04",
        "expires_at": in_the_future(),
    }
    answer = olga.post("/keys/brought/import/material", filled)
    assert answer.status_code == 302, answer.content.decode()
    brought.refresh_from_db()
    version = brought.versions.get()
    assert brought.state == "enabled"
    assert version.originated_at is not None
    assert version.originated_at.isoformat() == "2026-01-02T03:04:00+00:00"
    assert version.material_expires_at is not None
    page = olga.get("/keys/brought").content.decode()
    assert "material expires" in page
    assert "Bring new material" in page
    assert "/keys/brought/do/rotate" not in page
    told = str(house.entries()) + page
    assert base64.b64encode(material).decode() not in told
    assert material.hex() not in told
    assert str(filled["token"]) not in told


def test_a_private_key_is_imported(house: House, olga: Client) -> None:
    house.key("internal", alias="pair", spec="ECC_NIST_P256", origin="imported")
    private = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    assert "PKCS#8 in DER" in olga.get("/keys/pair/import").content.decode()
    assert "RSA-OAEP alone" not in olga.get("/keys/pair/import/material").content.decode()
    answer = olga.post("/keys/pair/import/material", form(olga, "pair", private))
    assert answer.status_code == 302, answer.content.decode()
    assert Key.objects.get(alias="pair").state == "enabled"


def test_material_wrapped_under_a_key_of_the_console_needs_no_token(
    house: House, olga: Client, brought: Key
) -> None:
    kek = os.urandom(32)
    shared = house.key(
        "internal", alias="shared", origin="imported", usage="WRAP_UNWRAP", algorithm="AES_KWP"
    )
    administration.import_key(house.olga, "shared", material=Secret(kek))
    wrapped = keywrap.aes_key_wrap_with_padding(kek, os.urandom(32))
    filled: dict[str, Any] = {
        "algorithm": "AES_KWP",
        "blob": base64.b64encode(wrapped).decode(),
        **REASON,
    }
    page = olga.post("/keys/brought/import/material", filled)
    assert page.status_code == 400
    assert "Name the key under which it is wrapped" in page.content.decode()
    with_token = {**filled, "wrapping_key": "shared", "token": "x"}
    assert olga.post("/keys/brought/import/material", with_token).status_code == 400
    answer = olga.post("/keys/brought/import/material", {**filled, "wrapping_key": "shared"})
    assert answer.status_code == 302, answer.content.decode()
    brought.refresh_from_db()
    assert brought.state == "enabled"
    assert house.last_entry(action="unwrap_key")["object"]["id"] == str(shared.id)


def test_every_fault_is_told_beside_its_field_and_uses_nothing_up(
    house: House, olga: Client, brought: Key
) -> None:
    pem, token = parameters(olga, "brought")
    good = base64.b64encode(rsa_aes(pem, os.urandom(32))).decode()
    short = base64.b64encode(rsa_aes(pem, os.urandom(31))).decode()
    base: dict[str, Any] = {"algorithm": "RSA_AES_KEY_WRAP_SHA_256", "token": token, **REASON}
    address = "/keys/brought/import/material"
    for change, word in (
        ({"blob": "not base64 at all!"}, "That is not base64"),
        ({"blob": ""}, "Give the wrapped material once"),
        ({"blob": good, "token": ""}, "Give the token"),
        ({"blob": good, "token": "another-token"}, "import token is not valid"),
        ({"blob": good, "algorithm": "ROT13"}, "Select a valid choice"),
        ({"blob": good, "algorithm": "RSAES_OAEP_SHA_256"}, "be unwrapped"),
        ({"blob": base64.b64encode(b"nonsense").decode()}, "be unwrapped"),
        ({"blob": short}, "32 bytes"),
        ({"blob": good, "check_value": "00" * 8}, "does not have that check value"),
        ({"blob": good, "originated_at": "9999-01-01T00:00"}, "future"),
        ({"blob": good, "expires_at": "2001-01-01T00:00"}, "past"),
        ({"blob": good, "wrapping_key": "shared"}, "leave it empty"),
        ({"blob": good, "reason": ""}, "required"),
    ):
        answer = olga.post(address, {**base, **change})
        page = answer.content.decode()
        assert answer.status_code == 400, (change, answer.status_code)
        assert word in page, (word, change)
        assert good not in page
        assert token not in page
    both = SimpleUploadedFile("w", base64.b64decode(good))
    assert olga.post(address, {**base, "blob": good, "file": both}).status_code == 400
    brought.refresh_from_db()
    assert brought.state == "pending_import"
    # Whatever failed, the token is still good.
    assert olga.post(address, {**base, "blob": good}).status_code == 302
    assert token not in str(house.entries())


def test_an_import_that_needs_votes_is_brought_twice_and_officers_see_what_they_vote_on(
    house: House, olga: Client
) -> None:
    key = house.key("patient-health", name="Brought", alias="brought", origin="imported")
    material, until = os.urandom(32), in_the_future()
    pem, token = parameters(olga, "brought")
    filled = {
        "algorithm": "RSAES_OAEP_SHA_256",
        "token": token,
        "blob": base64.b64encode(oaep(pem, material)).decode(),
        "originated_at": "2026-01-02T03:04",
        "expires_at": until,
        **REASON,
    }
    assert "Ask for it" in olga.get("/keys/brought/import/material").content.decode()
    page = olga.post("/keys/brought/import/material", filled, follow=True).content.decode()
    assert "Nothing has changed yet" in page
    request = Approval.objects.get(action="import_key")
    otto = signed_in_client("otto")
    seen = otto.get(f"/approvals/{request.id}").content.decode()
    assert request.parameters["check_value"] in seen
    assert "Material is removed" in seen
    assert "2 Jan 2026, 03:04:00 UTC" in seen
    house.approve(str(request.id), execute=False)
    assert "Import the material" in olga.get(f"/approvals/{request.id}").content.decode()
    again = olga.get("/keys/brought/import/material").content.decode()
    assert 'value="2026-01-02T03:04"' in again
    assert f'value="{until}"' in again
    other = {**filled, "blob": base64.b64encode(oaep(pem, os.urandom(32))).decode()}
    assert olga.post("/keys/brought/import/material", {**other, "check_value": ""}).status_code in (
        302,
        400,
    )
    key.refresh_from_db()
    assert key.state == "pending_import", "other material needs votes of its own"
    assert olga.post("/keys/brought/import/material", filled).status_code == 302
    key.refresh_from_db()
    request.refresh_from_db()
    assert (key.state, request.state) == ("enabled", "executed")


def test_new_material_for_an_imported_key_is_its_rotation(
    house: House, olga: Client, brought: Key
) -> None:
    administration.import_key(house.olga, "brought", material=Secret(os.urandom(32)))
    house.let_days_pass(400)
    olga = signed_in_client("olga")
    overview = olga.get("/").content.decode()
    assert "Brought needs new material" in overview
    assert "/keys/brought/import" in overview
    assert "bring new material" in olga.get("/keys/brought").content.decode()
    page = olga.get("/keys/brought/import").content.decode()
    assert "becomes the next version and takes over at once" in page
    answer = olga.post("/keys/brought/import/material", form(olga, "brought", os.urandom(32)))
    assert answer.status_code == 302, answer.content.decode()
    assert brought.versions.get(primary=True).number == 2


def test_material_is_deleted_with_a_reason_and_only_the_same_brings_the_version_back(
    house: House, olga: Client, brought: Key
) -> None:
    material = os.urandom(32)
    administration.import_key(house.olga, "brought", material=Secret(material))
    address = "/keys/brought/versions/1/do/delete-material"
    assert "delete-material" in olga.get("/keys/brought").content.decode()
    assert "Be sure that you still have it" in olga.get(address).content.decode()
    assert olga.post(address, {}).status_code == 400
    assert olga.post(address, REASON).status_code == 302
    assert house.version(brought, 1).condition == "unavailable"
    assert olga.post(address, REASON).status_code == 409
    page = olga.get("/keys/brought").content.decode()
    assert "The material of version 1 is not here" in page
    assert "/keys/brought/import?version=1" in page
    assert "delete-material" not in page
    assert "the material of version 1 is not here" in olga.get("/").content.decode()
    again = "/keys/brought/import/material?version=1"
    assert "originated_at" not in olga.get(again).content.decode()
    other = olga.post(again, form(olga, "brought", os.urandom(32)))
    assert other.status_code == 400
    assert "takes only the material that it had" in other.content.decode()
    assert olga.post(again, form(olga, "brought", material)).status_code == 302
    version = house.version(brought, 1)
    assert (version.condition, version.state, version.primary) == ("", "active", True)


def test_material_that_expires_soon_is_told_on_the_overview_and_when_it_has(
    house: House, brought: Key
) -> None:
    until = (datetime.now(UTC) + timedelta(days=20)).isoformat()
    administration.import_key(
        house.olga, "brought", material=Secret(os.urandom(32)), expires_at=until
    )
    for name in ("olga", "udo"):
        page = signed_in_client(name).get("/").content.decode()
        assert "the material of version 1 expires in 20 days" in page
    house.let_days_pass(21)
    page = signed_in_client("olga").get("/keys/brought").content.decode()
    assert "it expired 1 day ago" in page
    assert "material of version 1 is not here" in signed_in_client("olga").get("/").content.decode()


def test_a_key_that_takes_no_material_says_so(house: House, olga: Client) -> None:
    answer = olga.post("/keys/invoices/import/parameters", {"spec": "RSA_3072"})
    assert answer.status_code == 409
    assert "made in its key store" in answer.content.decode()
    assert olga.get("/keys/invoices/import?version=9").status_code == 404
    assert olga.get("/keys/invoices/import?version=x").status_code == 400
    assert "delete-material" not in olga.get("/keys/invoices").content.decode()
    refused = olga.post("/keys/invoices/versions/1/do/delete-material", REASON)
    assert refused.status_code == 409
    with pytest.raises(StateForbids):
        administration.delete_material(house.olga, "invoices", number=1)
