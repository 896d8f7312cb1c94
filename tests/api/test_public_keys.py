"""Public keys in all their forms: what a JWK says is what cryptography says of the same key."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed448,
    ed25519,
    mldsa,
    mlkem,
    padding,
    rsa,
    x25519,
)

from keys import administration, jwk
from keys.algorithms import SPECS, Family, Usage
from keys.models import Key, KeyVersion
from keys.states import VersionState
from tests.api.clients import Api, application, person, use
from tests.house import House

DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


def unb64url(text: str) -> bytes:
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def number(text: str) -> int:
    return int.from_bytes(unb64url(text), "big")


def rebuilt(found: dict[str, Any]) -> bytes:
    """Return the DER of the public key that a JWK describes, put together by cryptography."""
    key: Any
    if found["kty"] == "RSA":
        key = rsa.RSAPublicNumbers(number(found["e"]), number(found["n"])).public_key()
    elif found["kty"] == "EC":
        curves = {
            "P-256": ec.SECP256R1(),
            "P-384": ec.SECP384R1(),
            "P-521": ec.SECP521R1(),
            "secp256k1": ec.SECP256K1(),
        }
        curve = curves[found["crv"]]
        assert {len(unb64url(found[part])) for part in "xy"} == {(curve.key_size + 7) // 8}
        key = ec.EllipticCurvePublicNumbers(
            number(found["x"]), number(found["y"]), curve
        ).public_key()
    elif found["kty"] == "OKP":
        kinds: dict[str, Any] = {
            "Ed25519": ed25519.Ed25519PublicKey,
            "Ed448": ed448.Ed448PublicKey,
            "X25519": x25519.X25519PublicKey,
        }
        key = kinds[found["crv"]].from_public_bytes(unb64url(found["x"]))
    else:
        kinds = {
            "ML-DSA-44": mldsa.MLDSA44PublicKey,
            "ML-DSA-65": mldsa.MLDSA65PublicKey,
            "ML-DSA-87": mldsa.MLDSA87PublicKey,
            "ML-KEM-768": mlkem.MLKEM768PublicKey,
            "ML-KEM-1024": mlkem.MLKEM1024PublicKey,
        }
        key = kinds[found["alg"]].from_public_bytes(unb64url(found["pub"]))
    return key.public_bytes(DER, SPKI)  # type: ignore[no-any-return]


Make = Callable[[], Any]
PAIRS: dict[str, tuple[Make, str, str]] = {
    "RSA_2048": (lambda: rsa.generate_private_key(65537, 2048), "RSASSA_PSS_SHA_256", "PS256"),
    "ECC_NIST_P256": (lambda: ec.generate_private_key(ec.SECP256R1()), "ECDSA_SHA_256", "ES256"),
    "ECC_NIST_P384": (lambda: ec.generate_private_key(ec.SECP384R1()), "ECDSA_SHA_384", "ES384"),
    "ECC_NIST_P521": (lambda: ec.generate_private_key(ec.SECP521R1()), "ECDSA_SHA_512", "ES512"),
    "ECC_SECG_P256K1": (lambda: ec.generate_private_key(ec.SECP256K1()), "ECDSA_SHA_256", "ES256K"),
    "ECC_NIST_EDWARDS25519": (ed25519.Ed25519PrivateKey.generate, "ED25519_SHA_512", "EdDSA"),
    "ECC_NIST_EDWARDS448": (ed448.Ed448PrivateKey.generate, "ED448_SHAKE_256", "EdDSA"),
    "X25519": (x25519.X25519PrivateKey.generate, "ECDH", ""),
    "ML_DSA_44": (mldsa.MLDSA44PrivateKey.generate, "ML_DSA_SHAKE_256", "ML-DSA-44"),
    "ML_DSA_65": (mldsa.MLDSA65PrivateKey.generate, "ML_DSA_SHAKE_256", "ML-DSA-65"),
    "ML_DSA_87": (mldsa.MLDSA87PrivateKey.generate, "ML_DSA_SHAKE_256", "ML-DSA-87"),
    "ML_KEM_768": (mlkem.MLKEM768PrivateKey.generate, "ML_KEM", "ML-KEM-768"),
    "ML_KEM_1024": (mlkem.MLKEM1024PrivateKey.generate, "ML_KEM", "ML-KEM-1024"),
}


@pytest.mark.parametrize("spec", PAIRS)
def test_the_key_that_a_jwk_describes_is_the_key_it_was_made_of(spec: str) -> None:
    make, algorithm, named = PAIRS[spec]
    der = make().public_key().public_bytes(DER, SPKI)
    usage = SPECS[spec].usages[0]
    found = jwk.jwk(spec, usage, algorithm, der, "a-key.7")
    assert rebuilt(found) == der
    assert found.get("alg", "") == named
    assert found["kid"] == "a-key.7"
    assert found["use"] == ("sig" if usage == Usage.SIGN_VERIFY else "enc")
    assert "key_ops" not in found, "RFC 7517, 4.3: not beside use"
    assert not {"d", "k", "p", "q", "priv", "oth"} & found.keys()


@pytest.mark.parametrize("bits", [512, 521])
def test_small_coordinates_keep_the_fields_length(bits: int) -> None:
    """The point of P-521 with a short x: RFC 7518 wants 66 bytes, zeros in front."""
    scalar = next(
        s
        for s in range(1, 2000)
        if ec.derive_private_key(s, ec.SECP521R1()).public_key().public_numbers().x.bit_length()
        <= bits
    )
    public = ec.derive_private_key(scalar, ec.SECP521R1()).public_key()
    found = jwk.jwk(
        "ECC_NIST_P521", "SIGN_VERIFY", "ECDSA_SHA_512", public.public_bytes(DER, SPKI), "k"
    )
    assert len(unb64url(found["x"])) == 66
    assert rebuilt(found) == public.public_bytes(DER, SPKI)


def test_names_of_parameter_sets_are_those_of_their_standards() -> None:
    inside = bytes(range(32))
    # A SubjectPublicKeyInfo around 32 bytes; the object identifier does not matter here.
    der = b"\x30\x2b\x30\x06\x06\x04\x2a\x03\x04\x05\x03\x21\x00" + inside
    assert len(der) == 2 + 0x2B
    named = {}
    for spec in SPECS.values():
        if spec.family in (Family.SLH_DSA, Family.ML_KEM, Family.X_WING):
            found = jwk.jwk(spec.name, spec.usages[0], spec.algorithms[0], der, "k")
            assert (found["kty"], unb64url(found["pub"])) == ("AKP", inside)
            named[spec.name] = found["alg"]
    assert named["SLH_DSA_SHA2_128S"] == "SLH-DSA-SHA2-128s"
    assert named["SLH_DSA_SHA2_256F"] == "SLH-DSA-SHA2-256f"
    assert named["ML_KEM_512"] == "ML-KEM-512"
    assert named["X_WING"] == "X-Wing"


def test_every_spec_of_a_pair_has_its_jwk() -> None:
    """No spec is forgotten: each is an RSA, EC, OKP or AKP key."""
    der = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(DER, SPKI)
    big = rsa.generate_private_key(65537, 2048).public_key().public_bytes(DER, SPKI)
    for spec in SPECS.values():
        if spec.asymmetric:
            sample = big if spec.family is Family.RSA else der
            found = jwk.jwk(spec.name, spec.usages[0], spec.algorithms[0], sample, "k")
            assert found["kty"] in ("RSA", "EC", "OKP", "AKP")


@pytest.mark.parametrize(
    "der", [b"", b"\x30", b"\x30\x03\x30\x01", b"\x31\x00", b"\x30\x80", b"\x30\x82\xff\xff\x00"]
)
def test_what_is_no_public_key_is_refused(der: bytes) -> None:
    with pytest.raises(ValueError, match="SubjectPublicKeyInfo"):
        jwk.raw(der)


# --- through the door


def _key(house: House, spec: str, **more: Any) -> Key:
    key = house.key(spec=spec, name="Signing", alias="signing", **more)
    house.grant("billing", key, "sign", "verify", "public_key")
    return key


@pytest.mark.each_door
@pytest.mark.parametrize("spec", ["RSA_2048", "ECC_NIST_P256"])
def test_a_public_key_comes_as_der_pem_or_jwk(house: House, spec: str) -> None:
    key = _key(house, spec)
    token = house.token("billing")
    plain = use("keys/signing/public-key", {}, token).json
    der = base64.b64decode(plain["public_key"])
    assert (plain["spec"], plain["version"]) == (spec, 1)
    assert not {"pem", "jwk"} & plain.keys()

    pem = use("keys/signing/public-key", {"format": "pem"}, token).json
    loaded = serialization.load_pem_public_key(pem["pem"].encode())
    assert loaded.public_bytes(DER, SPKI) == der
    assert pem["pem"] == loaded.public_bytes(serialization.Encoding.PEM, SPKI).decode()
    assert "public_key" not in pem

    shown = use("keys/signing/public-key", {"format": "jwk"}, token).json
    assert rebuilt(shown["jwk"]) == der
    assert shown["jwk"]["kid"] == f"{key.id}.1"
    got = application(house, "billing").get("keys/signing/public-key?format=jwk&version=1")
    assert got.json == shown
    application(house, "billing").get("keys/signing/public-key?format=xml").problem(400, "invalid")


def _set(api: Api, key: str = "signing") -> list[dict[str, Any]]:
    answer = api.get(f"keys/{key}/jwks.json")
    assert (answer.status, answer.type) == (200, "application/jwk-set+json"), answer.body
    assert list(answer.json) == ["keys"]
    return answer.json["keys"]  # type: ignore[no-any-return]


@pytest.mark.each_door
def test_a_signature_is_verified_with_nothing_but_the_published_set(house: House) -> None:
    _key(house, "RSA_2048")
    token = house.token("billing")
    signed = use("keys/signing/sign", {"message": "aGVsbG8="}, token).json
    (found,) = _set(application(house, "billing"))
    assert found["kid"] == f"{signed['key_id']}.{signed['version']}"
    assert found["alg"] == "PS256"
    public = serialization.load_der_public_key(rebuilt(found))
    assert isinstance(public, rsa.RSAPublicKey)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    public.verify(base64.b64decode(signed["signature"]), b"hello", pss, hashes.SHA256())


@pytest.mark.each_door
def test_the_set_has_what_verifies_and_what_comes_next_and_nothing_bad(house: House) -> None:
    key = _key(house, "ECC_NIST_P256")
    api = application(house, "billing")

    def numbers() -> list[int]:
        return [int(one["kid"].rpartition(".")[2]) for one in _set(api)]

    administration.rotate_key(house.olga, str(key.id))
    assert numbers() == [1, 2]  # 1 is deactivated and still verifies
    administration.rotate_key(house.olga, str(key.id), activate=False)
    assert KeyVersion.objects.get(key=key, number=3).state == VersionState.PRE_ACTIVE
    assert numbers() == [1, 2, 3]  # published ahead of its rotation
    house.move(key, 1, VersionState.COMPROMISED, reason="a laptop was stolen")
    assert numbers() == [2, 3]
    house.move(key, 2, VersionState.SUSPENDED)
    assert numbers() == [3]
    # A public key of a pre-active version can't be asked for by itself: nothing uses it yet.
    api.post("keys/signing/public-key", {"version": 3}).problem(409, "state_forbids")
    entry = house.last_entry(action="public_key", outcome="success")
    assert entry["facts"]["versions"] == [3]


def test_no_set_of_a_disabled_key_a_secret_key_or_for_a_stranger(house: House) -> None:
    key = _key(house, "ECC_NIST_P256")
    house.grant("billing", house.invoices, "public_key")
    api = application(house, "billing")
    api.get("keys/invoices/jwks.json").problem(422, "unsupported")
    api.get("keys/signing/jwks.json?format=x").problem(400, "invalid")
    application(house, "stranger").get("keys/signing/jwks.json").problem(404, "not_found")
    assert house.last_entry()["outcome"] == "denied"
    administration.disable_key(house.olga, str(key.id))
    api.get("keys/signing/jwks.json").problem(409, "state_forbids")


def test_an_officer_and_an_auditor_read_the_set_and_a_browser_sees_a_page(house: House) -> None:
    key = _key(house, "ECC_NIST_P256")
    for name in ("olga", "udo"):
        assert len(_set(person(name), str(key.id))) == 1
    person("ada").get("keys/signing/jwks.json").problem(403, "denied")
    page = person("olga").get("keys/signing/jwks.json", Accept="text/html")
    assert page.type == "text/html; charset=utf-8"
    assert f"{key.id}.1" in page.body.decode()
    assert uuid.UUID(house.last_entry(action="public_key")["object"]["id"]) == key.id
