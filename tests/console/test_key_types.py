"""Choosing what a key is: its type, its one purpose, its algorithm; and what its page then says."""

from __future__ import annotations

import base64
import json
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.test import Client

from keys.algorithms import ALGORITHMS, SPECS, Usage
from keys.models import Classification, Key, MessageCount
from kms_console import presets
from kms_console.api.rest.codecs import use
from kms_console.web import examples, specs
from tests.console.conftest import signed_in_client
from tests.house import House

# A key type for each purpose.
PURPOSES = {
    Usage.ENCRYPT_DECRYPT: "AES_256",
    Usage.SIGN_VERIFY: "ML_DSA_65",
    Usage.GENERATE_VERIFY_MAC: "HMAC_256",
    Usage.WRAP_UNWRAP: "AES_256",
    Usage.KEY_AGREEMENT: "X25519",
    Usage.KEY_ENCAPSULATION: "ML_KEM_768",
    Usage.DERIVE_KEY: "HMAC_256",
}


def test_every_key_type_stands_under_one_heading_with_a_word_on_when_to_choose_it() -> None:
    groups = specs.grouped(SPECS)
    found = [choice.spec.name for _, rows in groups for choice in rows]
    assert sorted(found) == sorted(SPECS)
    assert [title for title, _ in groups][-1] == "Post-quantum"
    for _, rows in groups:
        for choice in rows:
            assert choice.when.endswith("."), choice.spec.name
    assert specs.grouped([]) == []


def test_algorithms_say_what_has_to_be_known_before_they_are_chosen() -> None:
    rsa = dict(specs.algorithms(SPECS["RSA_3072"], Usage.ENCRYPT_DECRYPT))
    assert next(iter(rsa)) == "RSAES_OAEP_SHA_256"
    assert list(rsa)[-1] == "RSAES_OAEP_SHA_1"
    assert "old peers" in rsa["RSAES_OAEP_SHA_1"]
    assert "4,294,967,296 messages" in specs.marked("AES_256_GCM")
    for name, row in ALGORITHMS.items():
        assert ("old peers" in specs.marked(name)) == row.legacy, name
        assert ("deterministic" in specs.marked(name)) == row.deterministic, name


def test_presets_allow_only_what_there_is_and_no_weak_types_but_for_the_public() -> None:
    for row in presets.CLASSIFICATIONS:
        assert set(row["allowed_specs"]) <= set(SPECS), row["name"]
        weak = [name for name in row["allowed_specs"] if SPECS[name].strength < 128]
        assert (weak == []) == (row["name"] != "public"), row["name"]
        assert any(SPECS[name].family in ("ML_DSA", "ML_KEM") for name in row["allowed_specs"])


def test_the_choice_shows_what_the_classification_allows_and_nothing_else(
    house: House, olga: Client
) -> None:
    Classification.objects.filter(name="internal").update(allowed_specs=["AES_256", "ML_KEM_768"])
    page = olga.get("/keys/-/new?classification=internal").content.decode()
    offered = set(re.findall(r"spec=(\w+)&amp;usage=(\w+)", page))
    assert offered == {
        ("AES_256", "ENCRYPT_DECRYPT"),
        ("AES_256", "WRAP_UNWRAP"),
        ("ML_KEM_768", "KEY_ENCAPSULATION"),
    }
    # What is not allowed is not offered by its address, either.
    again = olga.get("/keys/-/new?classification=internal&spec=RSA_2048").content.decode()
    assert "What is the key for?" in again
    answer = olga.post("/keys/-/new?classification=internal&spec=RSA_2048", {"name": "x"})
    assert answer.status_code == 400
    Classification.objects.filter(name="internal").update(allowed_specs=[])
    empty = olga.get("/keys/-/new?classification=internal").content.decode()
    assert "Internal allows no key type" in empty


@pytest.mark.parametrize(("usage", "spec"), PURPOSES.items())
def test_a_key_of_every_purpose_is_made_and_its_page_says_how_to_use_it(
    house: House, olga: Client, usage: Usage, spec: str
) -> None:
    address = f"/keys/-/new?classification=internal&spec={spec}&usage={usage}"
    page = olga.get(address).content.decode()
    first = SPECS[spec].algorithms_for(usage)[0]
    assert f'<option value="{first}"' in page
    for name in SPECS[spec].algorithms:
        assert (f'<option value="{name}"' in page) == (usage in ALGORITHMS[name].usages), name
    assert ("publish_days" in page) == SPECS[spec].asymmetric
    form = {"name": "New", "algorithm": first, "key_store": "software", "origin": "generated"}
    answer = olga.post(address, form)
    assert answer.status_code == 302, answer.content.decode()
    key = Key.objects.get(alias="new")
    assert (key.spec, key.usage, key.algorithm) == (spec, usage, first)
    page = olga.get("/keys/new").content.decode()
    assert usage.label in page
    assert ALGORITHMS[first].label in page
    assert ("JWKS" in page) == SPECS[spec].asymmetric
    command = examples.curl(key, "http://testserver")
    found = re.search(r"/api/v1/keys/new/(\S+) .*-d '(.*)'$", command, re.DOTALL)
    assert found
    row = use.TABLE[found.group(1)]
    body = json.loads(found.group(2))
    if "peer_public_key" in body:
        body["peer_public_key"] = base64.b64encode(
            bytes(key.versions.get().public_key or b"")
        ).decode()
    house.grant("billing", key, row.operation.action.value)
    answered = json.loads(row(house.billing, "new", json.dumps(body).encode()))
    assert answered["version"] == 1


def test_an_algorithm_of_another_purpose_is_refused_at_its_field(
    house: House, olga: Client
) -> None:
    address = "/keys/-/new?classification=internal&spec=AES_256&usage=WRAP_UNWRAP"
    form = {
        "name": "New", "algorithm": "XAES_256_GCM", "key_store": "software", "origin": "generated",
    }  # fmt: skip
    answer = olga.post(address, form)
    assert answer.status_code == 400
    assert "Select a valid choice" in answer.content.decode()
    late = "/keys/-/new?classification=internal&spec=ECC_NIST_P256"
    form = {**form, "algorithm": "ECDSA_SHA_256", "publish_days": "400"}
    page = olga.post(late, form)
    assert page.status_code == 400
    assert "Must be from 1 to" in page.content.decode()


def test_a_pair_that_is_published_ahead_gets_its_next_version_by_a_button(
    house: House, olga: Client
) -> None:
    house.key("internal", alias="signer", spec="ECC_NIST_P256", publish_days=30)
    page = olga.get("/keys/signer").content.decode()
    assert "30 days before a rotation" in page
    assert "/keys/signer/do/prepare" in page
    assert "/do/prepare" not in olga.get("/keys/invoices").content.decode()
    answer = olga.post("/keys/signer/do/prepare", {"reason": "peers are slow"})
    assert answer.status_code == 302
    versions = Key.objects.get(alias="signer").versions
    assert [row.state for row in versions.order_by("number")] == ["active", "pre_active"]
    assert olga.post("/keys/signer/do/prepare", {"reason": "again"}).status_code == 409


@pytest.mark.parametrize("name", ["olga", "udo"])
def test_an_officer_or_an_auditor_takes_a_public_key_along_and_it_is_recorded(
    house: House, name: str
) -> None:
    key = house.key("internal", alias="signer", spec="ECC_NIST_P256")
    client = signed_in_client(name)
    assert "Version 1, primary (PEM)" in client.get("/keys/signer").content.decode()
    answer = client.post("/keys/signer/public-key", {"version": "1"})
    assert answer.status_code == 200
    assert answer["Content-Disposition"] == 'attachment; filename="signer-1.pem"'
    found = serialization.load_pem_public_key(answer.content)
    der = found.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert der == bytes(key.versions.get().public_key or b"")
    assert house.last_entry(action="public_key", outcome="success")["actor"]["name"] == name.title()


def test_a_public_key_that_there_is_none_of_is_a_page_that_says_so(
    house: House, olga: Client, ada: Client
) -> None:
    house.key("internal", alias="signer", spec="ECC_NIST_P256")
    assert olga.post("/keys/signer/public-key", {"version": "2"}).status_code == 404
    assert olga.post("/keys/signer/public-key", {"version": "x"}).status_code == 400
    assert olga.post("/keys/signer/public-key", {}).status_code == 400
    assert olga.post("/keys/invoices/public-key", {"version": "1"}).status_code == 422
    assert ada.post("/keys/signer/public-key", {"version": "1"}).status_code == 403
    assert "(PEM)" not in ada.get("/keys/signer").content.decode()


def test_a_certificate_signing_request_is_downloaded(house: House, olga: Client) -> None:
    house.key("internal", alias="signer", spec="ECC_NIST_P256")
    assert "/keys/signer/certificate" in olga.get("/keys/signer").content.decode()
    form = {
        "subject": "CN=shop.example,O=Company", "dns_names": "shop.example *.shop.example",
        "algorithm": "ECDSA_SHA_256",
    }  # fmt: skip
    answer = olga.post("/keys/signer/certificate", form)
    assert answer.status_code == 200, answer.content.decode()
    assert answer["Content-Disposition"] == 'attachment; filename="signer-1.csr"'
    request = x509.load_pem_x509_csr(answer.content)
    assert request.is_signature_valid
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["shop.example", "*.shop.example"]


def test_a_wrong_name_in_a_certificate_request_is_told_beside_its_field(
    house: House, olga: Client
) -> None:
    house.key("internal", alias="signer", spec="ECC_NIST_P256")
    base = {"algorithm": "ECDSA_SHA_256"}
    for form, word in (
        ({}, "names a subject"),
        ({"subject": "nonsense"}, "distinguished name"),
        ({"dns_names": "not_a_host"}, "no host name"),
        ({"ip_addresses": "1.2.3"}, "no IP address"),
        ({"uris": "nonsense"}, "no absolute URI"),
        ({"emails": "nobody"}, "no e-mail address"),
    ):
        answer = olga.post("/keys/signer/certificate", {**base, **form})
        assert answer.status_code == 400, form
        assert word in answer.content.decode(), word
    house.key("internal", alias="agree", spec="X25519")
    assert olga.get("/keys/agree/certificate").status_code == 404
    assert "/certificate" not in olga.get("/keys/agree").content.decode()
    assert signed_in_client("udo").post("/keys/signer/certificate", base).status_code == 403


def test_a_budget_is_a_meter_with_a_sentence_and_a_low_one_is_told_first(
    house: House, olga: Client
) -> None:
    key = house.key("internal", name="Counted", alias="counted", algorithm="AES_256_GCM")
    assert "<meter" not in olga.get("/keys/invoices").content.decode()
    page = olga.get("/keys/counted").content.decode()
    assert re.search(r"<meter[^>]*>\d+ %</meter>", page)
    assert "rotated at 75 %" in page
    MessageCount.objects.update_or_create(
        version=key.versions.get(), defaults={"limit": 2**32, "leased": 3_500_000_000, "low": True}
    )
    page = olga.get("/keys/counted").content.decode()
    assert 'value="82"' in page
    assert "The next sweep rotates the key" in page
    assert "Counted has little of its message budget left" in olga.get("/").content.decode()
    assert "Counted" in olga.get("/keys?condition=low_budget").content.decode()


def test_the_list_of_keys_is_narrowed_by_type_from_groups(house: House, olga: Client) -> None:
    house.key("internal", name="Quantum", spec="ML_DSA_65")
    page = olga.get("/keys?spec=ML_DSA_65").content.decode()
    assert '<optgroup label="Post-quantum">' in page
    assert '<option value="ML_DSA_65" selected>' in page
    assert "Quantum" in page.partition("<tbody>")[2]
    assert "Invoices" not in page.partition("<tbody>")[2]


def test_a_classification_is_given_new_types_under_their_headings(ada: Client) -> None:
    page = ada.get("/classifications/internal/edit").content.decode()
    groups = re.findall(r'<div class="group">([^<]+)</div>', page)
    assert groups == [title for title, _ in specs.grouped(SPECS)]
