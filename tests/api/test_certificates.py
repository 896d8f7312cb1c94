"""Certificate signing requests: signed where the key is, and good in other programs' eyes."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from keys import administration, operations
from keys.errors import Invalid, KeyServiceError, StateForbids, Unsupported
from keys.models import Key
from tests.api.clients import Answer, application, use
from tests.house import House
from tests.parts import missing

SUBJECT = "CN=shop.example,O=Example GmbH,C=AT"
WANTED: dict[str, Any] = {
    "subject": SUBJECT,
    "dns_names": ["shop.example", "*.shop.example"],
    "emails": ["it@shop.example"],
    "ip_addresses": ["192.0.2.7", "2001:db8::7"],
    "uris": ["spiffe://example/shop"],
}
CHOICES = [
    ("ECC_NIST_P256", ""),
    ("ECC_NIST_P384", ""),
    ("ECC_NIST_P521", ""),
    ("ECC_SECG_P256K1", ""),
    ("RSA_2048", "RSASSA_PSS_SHA_256"),
    ("RSA_2048", "RSASSA_PSS_SHA_512"),
    ("RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256"),
    ("RSA_2048", "RSASSA_PKCS1_V1_5_SHA_384"),
    ("ECC_NIST_EDWARDS25519", ""),
    ("ECC_NIST_EDWARDS448", ""),
    ("ML_DSA_44", ""),
    ("ML_DSA_65", ""),
    ("ML_DSA_87", ""),
]
# OpenSSL reads ML-DSA from 3.5 on.
POST_QUANTUM = ("ML_DSA_44", "ML_DSA_65", "ML_DSA_87")


def _key(house: House, spec: str) -> Key:
    key = house.key(spec=spec, name="Shop", alias="shop", usage="SIGN_VERIFY")
    house.grant("billing", key, "certificate_request", "public_key")
    return key


def _ask(house: House, **wanted: Any) -> Answer:
    return use("keys/shop/certificate-request", wanted, house.token("billing"))


@pytest.mark.each_door
@pytest.mark.parametrize(("spec", "algorithm"), CHOICES)
def test_a_request_is_signed_by_the_key_and_says_what_was_asked(
    house: House, spec: str, algorithm: str
) -> None:
    key = _key(house, spec)
    answer = _ask(house, **WANTED, algorithm=algorithm)
    assert answer.status == 200, answer.body
    found = answer.json
    request = x509.load_der_x509_csr(base64.b64decode(found["request"]))
    assert request == x509.load_pem_x509_csr(found["pem"].encode())
    assert request.is_signature_valid
    assert (found["version"], found["algorithm"]) == (1, algorithm or key.algorithm)
    assert request.subject.rfc4514_string() == SUBJECT
    assert request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "shop.example"
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert not names.critical
    assert names.value.get_values_for_type(x509.DNSName) == WANTED["dns_names"]
    assert names.value.get_values_for_type(x509.RFC822Name) == WANTED["emails"]
    assert [str(a) for a in names.value.get_values_for_type(x509.IPAddress)] == WANTED[
        "ip_addresses"
    ]
    assert names.value.get_values_for_type(x509.UniformResourceIdentifier) == WANTED["uris"]
    public = application(house, "billing").post("keys/shop/public-key").json["public_key"]
    own = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert own == base64.b64decode(public)
    if algorithm.startswith("RSASSA_PSS"):
        used, digest = request.signature_algorithm_parameters, request.signature_hash_algorithm
        assert isinstance(used, padding.PSS) and isinstance(digest, hashes.HashAlgorithm)
        assert isinstance(request.public_key(), rsa.RSAPublicKey)
        assert digest.name == f"sha{algorithm[-3:]}"


@pytest.mark.own_door
@pytest.mark.parametrize(
    ("spec", "algorithm"), [choice for choice in CHOICES if choice[0] not in POST_QUANTUM]
)
def test_openssl_verifies_the_request(
    house: House, tmp_path: Path, spec: str, algorithm: str
) -> None:
    openssl = shutil.which("openssl") or missing("openssl", "the Debian package openssl")
    _key(house, spec)
    path = tmp_path / "shop.csr"
    path.write_text(_ask(house, **WANTED, algorithm=algorithm).json["pem"])
    done = subprocess.run(
        [str(openssl), "req", "-in", str(path), "-noout", "-verify", "-text"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "verify OK" in done.stdout + done.stderr
    assert "DNS:*.shop.example" in done.stdout
    # The same check does refuse: one bit of the signature is another.
    der = bytearray(x509.load_pem_x509_csr(path.read_bytes()).public_bytes(Encoding.DER))
    der[-1] ^= 1
    path.write_bytes(bytes(der))
    done = subprocess.run(
        [str(openssl), "req", "-inform", "DER", "-in", str(path), "-noout", "-verify"],
        capture_output=True,
        text=True,
    )
    assert "verify OK" not in done.stdout + done.stderr


@pytest.mark.each_door
def test_names_alone_will_do_and_are_critical_then(house: House) -> None:
    _key(house, "ECC_NIST_P256")
    answer = _ask(house, dns_names=["shop.example"])
    request = x509.load_pem_x509_csr(answer.json["pem"].encode())
    assert not request.subject.rdns
    assert request.extensions.get_extension_for_class(x509.SubjectAlternativeName).critical
    alone = x509.load_pem_x509_csr(_ask(house, subject="CN=shop").json["pem"].encode())
    assert len(alone.extensions) == 0


BAD: list[dict[str, Any]] = [
    {},
    {"subject": ""},
    {"subject": "shop"},
    {"subject": "CN=" + "x" * 65},
    {"subject": "C=Austria"},
    {"subject": "CN=a\nb"},
    {"subject": "CN=a\0b"},
    {"subject": "CN=a\u202eb"},
    {"subject": "NOSUCH=x"},
    {"subject": "CN=x," * 200},
    {"subject": "CN=\\zz"},
    {"subject": "CN=a\\0ab"},
    {"subject": "CN=a\\00b"},
    {"subject": "CN=a\\E2\\80\\AEb"},
    {"subject": "1.2.3=#0401"},
    {"subject": "CN=shop", "dns_names": ["a b"]},
    {"subject": "CN=shop", "dns_names": ["münchen.example"]},
    {"subject": "CN=shop", "dns_names": ["a..b"]},
    {"subject": "CN=shop", "dns_names": ["x" * 64]},
    {"subject": "CN=shop", "dns_names": [""]},
    {"subject": "CN=shop", "dns_names": ["shop.example\n"]},
    {"subject": "CN=shop", "emails": ["nobody"]},
    {"subject": "CN=shop", "emails": ["Ann <ann@shop.example>"]},
    {"subject": "CN=shop", "emails": ["änn@shop.example"]},
    {"subject": "CN=shop", "ip_addresses": ["1.2.3"]},
    {"subject": "CN=shop", "ip_addresses": ["10.0.0.0/8"]},
    {"subject": "CN=shop", "uris": ["shop"]},
    {"subject": "CN=shop", "uris": ["https://münchen.example"]},
    {"subject": "CN=shop", "algorithm": "ECDSA_SHA_512"},
    {"subject": "CN=shop", "dns_names": ["a.example"] * 101},
]


@pytest.mark.each_door
def test_a_bad_request_is_invalid_and_names_its_field(house: House) -> None:
    _key(house, "ECC_NIST_P256")
    for wanted in BAD:
        problem = _ask(house, **wanted).problem(400, "invalid")
        # The last member is the wrong one.
        field = list(wanted)[-1] if wanted else "subject"
        assert problem["field"].startswith(field), wanted


@pytest.mark.own_door
@pytest.mark.parametrize(
    "wanted",
    [
        {"subject": 5},
        {"subject": "CN=shop", "dns_names": "shop.example"},
        {"subject": "CN=shop", "emails": [5]},
        {"subject": "CN=shop", "uris": {"a": "b"}},
        {"subject": "CN=shop", "version": True},
    ],
)
def test_the_domain_itself_refuses_wrong_types(house: House, wanted: dict[str, Any]) -> None:
    _key(house, "ECC_NIST_P256")
    with pytest.raises(Invalid):
        operations.certificate_request(house.billing, "shop", **wanted)


@pytest.mark.own_door
def test_other_keys_cant_and_are_told_which_can(house: House) -> None:
    tree = house.key(spec="SLH_DSA_SHA2_128F", name="Tree")
    with pytest.raises(Unsupported, match=r"ECC_NIST_P256.*ML_DSA_65"):
        operations.certificate_request(house.olga, str(tree.id), subject="CN=x")
    for key in (house.invoices, house.key(spec="RSA_2048", usage="ENCRYPT_DECRYPT")):
        with pytest.raises(Unsupported, match="another purpose"):
            operations.certificate_request(house.olga, str(key.id), subject="CN=x")


@pytest.mark.own_door
def test_only_the_version_that_signs_may_ask_for_a_certificate(house: House) -> None:
    key = _key(house, "ECC_NIST_P256")
    administration.rotate_key(house.olga, str(key.id))
    made = operations.certificate_request(house.billing, "shop", subject="CN=x", version=2)
    assert made.version == 2
    with pytest.raises(StateForbids):
        operations.certificate_request(house.billing, "shop", subject="CN=x", version=1)
    with pytest.raises(KeyServiceError):
        operations.certificate_request(house.stranger, "shop", subject="CN=x")
    entry = house.last_entry(action="certificate_request", outcome="success")
    assert entry["object"]["version"] == 2
    assert "CN=x" not in str(entry)
