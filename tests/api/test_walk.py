"""Every operation with a key that fits it: it works alone and in a batch, and is refused as it should be."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from keys import administration
from keys.actions import GRANTABLE
from keys.algorithms import Usage
from keys.models import Key
from kms_console.api.rest.codecs.use import TABLE, USES
from tests.api.clients import PROBLEM, Answer, use
from tests.api.test_odd_values import ODD
from tests.house import House

pytestmark = pytest.mark.each_door
Ask = Callable[[str, dict[str, Any]], dict[str, Any]]
TEXT = base64.b64encode(b"thirty-two bytes, or a key of it").decode()
WITH = {"tenant": "north"}


@dataclass(frozen=True)
class Case:
    """A key that an operation is for, and a request that works; `body` may ask for what it needs first."""

    spec: str
    usage: Usage
    body: Callable[[Ask], dict[str, Any]]
    other: str = "HMAC_256"  # a key that it isn't for

    @property
    def alias(self) -> str:
        return f"{self.spec}-{self.usage}".replace("_", "-").lower()


def _peer(_: Ask) -> dict[str, Any]:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return {"peer_public_key": base64.b64encode(der).decode()}


def _signed(ask: Ask) -> dict[str, Any]:
    return {"message": TEXT, "signature": ask("sign", {"message": TEXT})["signature"]}


def _maced(ask: Ask) -> dict[str, Any]:
    return {"message": TEXT, "mac": ask("mac", {"message": TEXT})["mac"]}


def _sealed(ask: Ask) -> dict[str, Any]:
    made = ask("encrypt", {"plaintext": TEXT, "context": WITH})
    return {"ciphertext": made["ciphertext"], "context": WITH}


CRYPT, SIGN, MAC = Usage.ENCRYPT_DECRYPT, Usage.SIGN_VERIFY, Usage.GENERATE_VERIFY_MAC
CASES: dict[str, Case] = {
    "encrypt": Case("AES_256", CRYPT, lambda _: {"plaintext": TEXT, "context": WITH}),
    "decrypt": Case("AES_256", CRYPT, _sealed),
    "re-encrypt": Case("AES_256", CRYPT, _sealed),
    "generate-data-key": Case("AES_256", CRYPT, lambda _: {"length": 32}),
    "generate-data-key-without-plaintext": Case("AES_256", CRYPT, lambda _: {"length": 64}),
    "generate-data-key-pair": Case("AES_256", CRYPT, lambda _: {"spec": "ECC_NIST_P256"}),
    "generate-data-key-pair-without-plaintext": Case("AES_256", CRYPT, lambda _: {"context": WITH}),
    "sign": Case("ECC_NIST_P256", SIGN, lambda _: {"message": TEXT, "message_type": "digest"}),
    "verify": Case("ECC_NIST_P256", SIGN, _signed),
    "mac": Case("HMAC_256", MAC, lambda _: {"message": TEXT}, "AES_256"),
    "verify-mac": Case("HMAC_256", MAC, _maced, "AES_256"),
    "wrap-key": Case("AES_256", Usage.WRAP_UNWRAP, lambda _: {"key_material": TEXT}),
    "unwrap-key": Case(
        "AES_256",
        Usage.WRAP_UNWRAP,
        lambda ask: {"wrapped_key": ask("wrap-key", {"key_material": TEXT})["wrapped_key"]},
    ),
    "encapsulate": Case("ML_KEM_768", Usage.KEY_ENCAPSULATION, lambda _: {}),
    "decapsulate": Case(
        "ML_KEM_768",
        Usage.KEY_ENCAPSULATION,
        lambda ask: {"ciphertext": ask("encapsulate", {})["ciphertext"]},
    ),
    "derive-shared-secret": Case("ECC_NIST_P256", Usage.KEY_AGREEMENT, _peer),
    "derive-key": Case("HMAC_256", Usage.DERIVE_KEY, lambda _: {"context": WITH}),
    "public-key": Case("ECC_NIST_P256", SIGN, lambda _: {"format": "jwk"}),
    "certificate-request": Case("ECC_NIST_P256", SIGN, lambda _: {"subject": "CN=shop"}),
}
PATHS = list(USES)
# Whether the same request gives the same answer twice.
FRESH = {
    "encrypt",
    "re-encrypt",
    "generate-data-key",
    "generate-data-key-without-plaintext",
    "generate-data-key-pair",
    "generate-data-key-pair-without-plaintext",
    "sign",
    "encapsulate",
    "certificate-request",
}


def test_the_walk_goes_past_every_operation() -> None:
    assert CASES.keys() == USES.keys()
    assert {case.usage for case in CASES.values()} == set(Usage)


def made_for(house: House, case: Case) -> Key:
    key = house.key(spec=case.spec, name=case.alias, alias=case.alias, usage=case.usage.value)
    house.grant("billing", key, *_fitting(case.usage))
    return key


def _fitting(usage: Usage) -> list[str]:
    """Return every operation that a key of this purpose can be granted for."""
    return [action.value for action in GRANTABLE if action.row.usage in (None, usage)]


def asking(house: House, case: Case) -> Ask:
    def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = use(f"keys/{case.alias}/{path}", body, house.token("billing"))
        assert answer.status == 200, (path, answer.body)
        return answer.json  # type: ignore[no-any-return]

    return ask


@pytest.mark.parametrize("path", PATHS)
def test_it_works_alone_and_in_a_batch(house: House, path: str) -> None:
    case, token = CASES[path], house.token("billing")
    key = made_for(house, case)
    body = case.body(asking(house, case))
    address = f"keys/{case.alias}/{path}"
    alone = use(address, body, token)
    many = use(f"{address}/batch", {"items": [body, body]}, token)
    assert (alone.status, many.status) == (200, 200), (alone.body, many.body)
    results = many.json["results"]
    for found in (alone.json, *results):
        assert (found["key_id"], found["version"]) == (str(key.id), 1)
        assert found["algorithm"] == key.algorithm
        assert found.keys() == alone.json.keys()
        assert msgspec.convert(found, USES[path].response)
    if path in FRESH and path != "re-encrypt":
        assert results[0] != results[1]
    elif path not in FRESH:
        assert results == [alone.json, alone.json]
    action = path.replace("-", "_").replace("re_encrypt", "re_encrypt_from")
    entries = house.entries(action=action, outcome="success")[-2:]
    assert [entry["object"]["id"] for entry in entries] == [str(key.id)] * 2
    assert entries[-1]["facts"]["items"] == 2
    assert TEXT not in str(entries)


@pytest.mark.parametrize("path", PATHS)
def test_a_key_of_another_purpose_is_unsupported(house: House, path: str) -> None:
    case = CASES[path]
    body = case.body(asking(house, case)) if made_for(house, case) else {}
    house.key(spec=case.other, name="Other", alias="other")
    every = [action.value for action in GRANTABLE]
    administration.create_grant(house.olga, "billing", classification="internal", operations=every)
    token = house.token("billing")
    problem = use(f"keys/other/{path}", body, token).problem(422, "unsupported")
    assert problem["detail"]
    many = use(f"keys/other/{path}/batch", {"items": [body]}, token)
    if many.status == 200:  # what only the operation knows is the item's
        assert many.json["results"][0]["error"]["code"] == "unsupported"
    else:
        many.problem(422, "unsupported")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_right_grant_nobody_gets_anywhere(house: House, path: str) -> None:
    case = CASES[path]
    needed = path.replace("-", "_")  # the start of some others' names, which then go too
    key = made_for(house, case)
    body = case.body(asking(house, case))
    operations = [one for one in _fitting(case.usage) if not one.startswith(needed)]
    assert operations
    house.grant("stranger", key, *operations)
    for address, asked in ((path, body), (f"{path}/batch", {"items": [body]})):
        answer = use(f"keys/{case.alias}/{address}", asked, house.token("stranger"))
        answer.problem(403, "denied")
        assert house.last_entry()["outcome"] == "denied"
    stranger = house.key(spec=case.spec, name="Nobodys", usage=case.usage.value)
    answer = use(f"keys/{stranger.id}/{path}", body, house.token("stranger"))
    answer.problem(404, "not_found")


def _is_answer(answer: Answer, what: object) -> None:
    assert answer.status < 500, (what, answer.body)
    assert answer.status < 300 or answer.type == PROBLEM, what


TEXTS = ["QQ==", "", base64.b64encode(bytes(70_000)).decode(), TEXT]
VALUES = [*ODD, *TEXTS, 2**31, 0, 17, [TEXT], {"a": 1}, {"\0": "x"}, "der", "digest"]


@pytest.mark.each_door(fast="loop")
@pytest.mark.parametrize("path", PATHS)
def test_odd_values_of_every_member_get_an_answer(house: House, path: str) -> None:
    """With the right key and grants, so that the operation itself is what refuses."""
    made_for(house, CASES[path])
    assert _asked_oddly(house, path, share=1) or path == "encapsulate"


@pytest.mark.each_door(fast="views")
def test_each_odd_value_gets_an_answer_at_some_member_of_every_operation(house: House) -> None:
    """Each member meets another eighth of them: the readers are those of the test above."""
    made = set[str]()
    for place, path in enumerate(PATHS):
        if CASES[path].alias not in made:
            made_for(house, CASES[path])
            made.add(CASES[path].alias)
        assert _asked_oddly(house, path, share=8, begin=place) or path == "encapsulate"


def _asked_oddly(house: House, path: str, share: int, begin: int = 0) -> int:
    """Ask with each `share`-th value in each member, and return how often it was asked."""
    case, token = CASES[path], house.token("billing")
    body = case.body(asking(house, case))
    address, asked = f"keys/{case.alias}/{path}", 0
    for place, field in enumerate(msgspec.structs.fields(USES[path].request), begin):
        items = []
        for value in VALUES[place % share :: share]:
            wanted = {**body, field.encode_name: value}
            answer = use(address, wanted, token)
            _is_answer(answer, (field.name, value))
            asked += 1
            if answer.status == 200 or answer.json["code"] != "invalid":
                items.append(wanted)
        if items:  # what is of the right shape goes through together, each to its own end
            many = use(f"{address}/batch", {"items": items}, token)
            assert many.status == 200, (field.name, many.body[:300])
            assert len(many.json["results"]) == len(items)
    return asked


@pytest.mark.each_door(fast="loop")
@pytest.mark.parametrize("path", [path for path in PATHS if path not in FRESH])
def test_what_comes_back_is_what_went_in(house: House, path: str) -> None:
    """The other half of each pair, asked of the door as a client asks."""
    case = CASES[path]
    made_for(house, case)
    ask = asking(house, case)
    found = ask(path, case.body(ask))
    expected = {
        "decrypt": ("plaintext", TEXT),
        "verify": ("valid", True),
        "verify-mac": ("valid", True),
        "unwrap-key": ("key_material", TEXT),
    }
    if path in expected:
        name, value = expected[path]
        assert found[name] == value
    if path == "decapsulate":
        made = ask("encapsulate", {})
        opened = ask("decapsulate", {"ciphertext": made["ciphertext"], "version": made["version"]})
        assert opened["shared_secret"] == made["shared_secret"]
    if path == "derive-key":
        longer = ask("derive-key", {"context": WITH, "length": 64})["key_material"]
        assert base64.b64decode(longer)[:32] == base64.b64decode(found["key_material"])
        assert ask("derive-key", {"context": {}})["key_material"] != found["key_material"]


def test_re_encryption_brings_a_ciphertext_to_the_newest_version(house: House) -> None:
    case = CASES["re-encrypt"]
    key = made_for(house, case)
    ask = asking(house, case)
    old = _sealed(ask)
    administration.rotate_key(house.olga, str(key.id))
    new = ask("re-encrypt", {**old, "to_context": {"tenant": "south"}})
    assert (new["version"], new["source"]["version"]) == (2, 1)
    opened = ask("decrypt", {"ciphertext": new["ciphertext"], "context": {"tenant": "south"}})
    assert (opened["plaintext"], opened["version"]) == (TEXT, 2)


def test_rsa_speaks_with_other_programs_and_takes_digests(house: House) -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    case = Case("RSA_2048", CRYPT, lambda _: {})
    made_for(house, case)
    ask = asking(house, case)
    der = base64.b64decode(ask("public-key", {})["public_key"])
    public = serialization.load_der_public_key(der)
    assert isinstance(public, rsa.RSAPublicKey)
    for name, digest in (("SHA_256", hashes.SHA256()), ("SHA_1", hashes.SHA1())):
        oaep = padding.OAEP(padding.MGF1(digest), digest, None)
        theirs = base64.b64encode(public.encrypt(b"hello", oaep)).decode()
        wanted = {"ciphertext": theirs, "raw": True, "algorithm": f"RSAES_OAEP_{name}"}
        assert base64.b64decode(ask("decrypt", wanted)["plaintext"]) == b"hello"
    ours = ask("encrypt", {"plaintext": TEXT, "raw": True})
    assert len(base64.b64decode(ours["ciphertext"])) == 256
    assert ask("decrypt", {"ciphertext": ours["ciphertext"], "raw": True})["plaintext"] == TEXT


def test_ml_dsa_signs_a_mu_made_elsewhere(house: House) -> None:
    """FIPS 204, 6.2: mu = SHAKE256(SHAKE256(pk, 64) || 0x00 || 0x00 || message, 64)."""
    import hashlib

    case = Case("ML_DSA_65", SIGN, lambda _: {})
    made_for(house, case)
    ask = asking(house, case)
    from keys.jwk import raw

    public = raw(base64.b64decode(ask("public-key", {})["public_key"]))
    inner = hashlib.shake_256(public).digest(64)
    mu = hashlib.shake_256(inner + b"\0\0" + b"a long message").digest(64)
    signed = ask("sign", {"message": base64.b64encode(mu).decode(), "message_type": "external_mu"})
    wanted = {"message": base64.b64encode(b"a long message").decode()}
    assert ask("verify", {**wanted, "signature": signed["signature"]})["valid"] is True


def test_every_address_of_the_table_was_walked() -> None:
    assert set(TABLE) == {*PATHS, *(f"{path}/batch" for path in PATHS)}
