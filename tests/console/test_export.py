"""Export through the console: asked for, voted on, and downloaded once."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from keys.algorithms import SPECS
from keys.backends.materials import check_value_of_secret
from keys.models import Approval, Classification, Key
from tests.console.bringing import REASON, rsa_aes_unwrap
from tests.console.conftest import signed_in_client
from tests.house import House

ADDRESS = "/keys/leaving/versions/1/export"


@pytest.fixture(scope="module")
def recipient() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 3072)


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


@pytest.fixture
def leaving(house: House) -> Key:
    Classification.objects.filter(name="patient-health").update(allows_export=True)
    return house.key("patient-health", name="Leaving", alias="leaving", exportable=True)


def asked(key: rsa.RSAPrivateKey) -> dict[str, object]:
    return {"public_key": pem(key), "algorithm": "RSA_AES_KEY_WRAP_SHA_256", **REASON}


def test_an_export_is_voted_on_by_the_recipients_digest_and_leaves_once(
    house: House, olga: Client, leaving: Key, recipient: rsa.RSAPrivateKey
) -> None:
    assert ADDRESS in olga.get("/keys/leaving").content.decode()
    page = olga.get(ADDRESS).content.decode()
    assert "2 officers besides you must agree" in page
    assert "Nobody can call that back" in page
    answer = olga.post(ADDRESS, asked(recipient), follow=True)
    assert "Nothing has changed yet" in answer.content.decode()
    request = Approval.objects.get(action="export_key")
    der = recipient.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    seen = signed_in_client("otto").get(f"/approvals/{request.id}").content.decode()
    assert hashlib.sha256(der).hexdigest() in seen
    assert "encrypted for the recipient" in seen
    house.approve(str(request.id), execute=False)
    assert ADDRESS in olga.get(f"/approvals/{request.id}").content.decode()
    assert "Export key material: leaving is approved" in olga.get("/").content.decode()

    version = house.version(leaving, 1)
    page = olga.get(ADDRESS).content.decode()
    assert version.check_value in page
    assert f'value="{request.id}"' in page
    # Another officer may not take what was approved for Olga.
    otto = signed_in_client("otto").post(ADDRESS, {"request": str(request.id)})
    assert otto.status_code == 409
    taken = olga.post(ADDRESS, {"request": str(request.id)})
    assert taken.status_code == 200
    assert "no-store" in taken["Cache-Control"]
    assert taken["Content-Disposition"] == 'attachment; filename="leaving-1.wrapped"'
    material = rsa_aes_unwrap(recipient, taken.content)
    assert check_value_of_secret(SPECS["AES_256"], material) == version.check_value

    again = olga.post(ADDRESS, {"request": str(request.id)})
    assert again.status_code == 409
    assert "was downloaded already" in again.content.decode()
    assert Approval.objects.filter(action="export_key").count() == 1
    told = str(house.entries())
    assert material.hex() not in told
    assert taken.content.hex() not in told
    entry = house.last_entry(action="export_key", outcome="success")
    page = olga.get(f"/audit/{entry['index']}").content.decode()
    assert "Recipient&#x27;s public key, SHA-256" in page
    assert hashlib.sha256(der).hexdigest() in page


def test_the_recipients_key_may_come_as_a_file(
    olga: Client, leaving: Key, recipient: rsa.RSAPrivateKey
) -> None:
    file = SimpleUploadedFile("recipient.pem", pem(recipient).encode())
    form = {**asked(recipient), "public_key": "", "file": file}
    assert olga.post(ADDRESS, form).status_code == 302
    assert Approval.objects.get(action="export_key").parameters["number"] == 1


def test_a_recipient_that_is_none_is_told_beside_the_field(
    olga: Client, leaving: Key, recipient: rsa.RSAPrivateKey
) -> None:
    weak = rsa.generate_private_key(65537, 2048)
    curve = ec.generate_private_key(ec.SECP256R1())
    for public_key, word in (
        ("", "Give the public key once"),
        ("nonsense", "public key"),
        (pem(weak), "3072 bits at least"),
        (pem(curve), "must be of RSA or X-Wing"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "public key"),
    ):
        answer = olga.post(ADDRESS, {**asked(recipient), "public_key": public_key})
        assert answer.status_code == 400, public_key
        assert word in answer.content.decode(), word
    binary = SimpleUploadedFile("k", b"\xff\x00\x01")
    form = {**asked(recipient), "public_key": "", "file": binary}
    assert olga.post(ADDRESS, form).status_code == 400
    assert Approval.objects.count() == 0


def test_a_key_that_can_not_leave_says_why(
    house: House, olga: Client, recipient: rsa.RSAPrivateKey
) -> None:
    page = olga.get("/keys/invoices").content.decode()
    assert "/export" not in page
    refused = olga.get("/keys/invoices/versions/1/export")
    assert refused.status_code == 409
    assert "was not created exportable" in refused.content.decode()
    assert olga.post("/keys/invoices/versions/1/export", asked(recipient)).status_code == 409
    Classification.objects.filter(name="internal").update(allows_export=True)
    house.key("internal", alias="leaving", exportable=True)
    assert "asks for none" in olga.get(ADDRESS).content.decode()
    answer = olga.post(ADDRESS, asked(recipient))
    assert answer.status_code == 409
    assert "Exporting always needs officers&#x27; votes" in answer.content.decode()
    assert olga.get("/keys/leaving/versions/7/export").status_code == 404


def test_a_classification_lets_keys_be_exportable_and_the_form_says_what_that_means(
    house: House, olga: Client
) -> None:
    address = "/keys/-/new?classification=internal&spec=AES_256"
    assert "exportable" not in olga.get(address).content.decode()
    form = {
        "name": "Leaver", "algorithm": "XAES_256_GCM", "key_store": "software",
        "origin": "generated", "exportable": "on",
    }  # fmt: skip
    # A form made up by hand changes nothing: the field is not there.
    assert olga.post(address, {**form, "name": "Stayer"}).status_code == 302
    assert not Key.objects.get(alias="stayer").exportable
    ada = signed_in_client("ada")
    page = ada.get("/classifications/internal/edit").content.decode()
    assert "Keys may be made exportable" in page
    Classification.objects.filter(name="internal").update(allows_export=True)
    assert "Its material can then leave the key store later" in olga.get(address).content.decode()
    assert olga.post(address, form).status_code == 302
    assert Key.objects.get(alias="leaver").exportable
    assert "Yes, by votes" in olga.get("/keys/leaver").content.decode()
