"""Every operation on a key that fits it, asked with malformed input: by the domain, or through a door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keys import operations
from keys.algorithms import Usage
from keys.backends import materials
from keys.gate import Item, Operation
from keys.models import Key
from tests.honesty import fuzz
from tests.honesty.conftest import Shop, offered, spec_for, specs_for
from tests.honesty.fuzz import Rng

TEXT = b"dose: 5 mg"
NAMES = [
    "",
    "ECDSA_SHA_256",
    "AES_256_GCM",
    "RSAES_OAEP_SHA_1",
    "AES_KWP",
    "HKDF_SHA_512",
    "x",
    "\u0000",
]


@dataclass(frozen=True)
class Ask:
    """One operation with one key. `members` makes each argument, by the name that a door gives it."""

    path: str
    operation: Operation[..., Any]
    key: Key
    first: tuple[str, ...]
    members: dict[str, Callable[[Rng], Any]]

    def body(self, rng: Rng) -> dict[str, Any]:
        """Return arguments of which most are of the right kind, and few are right."""
        always = [name for name in self.first if name in self.members]
        given = [name for name in self.members if name in always or rng.random() < 0.4]
        return {name: self.members[name](rng) for name in given}

    def item(self, rng: Rng) -> Item:
        given = self.body(rng)
        return Item(tuple(given.pop(name) for name in self.first), given)


def asks(shop: Shop) -> list[Ask]:
    """Return an ask for every operation, with a key of each spec that is cheap to ask often."""
    return [
        *_crypt(shop),
        *_sign(shop),
        *_agree(shop),
        *_requests(shop),
    ]


def _bytes(*goods: bytes) -> Callable[[Rng], bytes]:
    return lambda rng: fuzz.mutated(rng, goods)


def _text(*goods: str) -> Callable[[Rng], str]:
    return lambda rng: rng.choice([*goods, *NAMES]) if rng.random() < 0.8 else fuzz.text(rng)


def _number(rng: Rng) -> Any:
    return rng.choice((1, 1, 1, 2, 0, -1, 16, 32, 64, 65, 1024, 1025, 2**31, 2**64, 10**30, True))


def _context(rng: Rng) -> dict[Any, Any]:
    return {} if rng.random() < 0.7 else fuzz.context(rng)


def _yes_or_no(rng: Rng) -> bool:
    return rng.random() < 0.3


def _crypt(shop: Shop) -> list[Ask]:
    found = []
    for row in offered(Usage.ENCRYPT_DECRYPT):
        key = shop.key(row.name, Usage.ENCRYPT_DECRYPT)
        made = operations.encrypt(shop.caller, str(key.id), TEXT, algorithm=row.name).ciphertext
        common: dict[str, Callable[[Rng], Any]] = {"context": _context}
        decrypting = {"ciphertext": _bytes(made, made[23:])} | common
        named = {"algorithm": _text(row.name), "raw": _yes_or_no}
        found += [
            Ask("encrypt", operations.encrypt, key, ("plaintext",),
                {"plaintext": _bytes(TEXT)} | common | named),
            Ask("decrypt", operations.decrypt, key, ("ciphertext",),
                decrypting | named | {"version": _number}),
            Ask("decrypt", operations.decrypt, key, ("ciphertext",), decrypting),
            Ask("re-encrypt", operations.re_encrypt, key, ("ciphertext",),
                decrypting | {"to": _text(str(key.id), "invoices"), "to_context": _context}),
        ]  # fmt: skip
    key = shop.key("XAES_256_GCM", Usage.ENCRYPT_DECRYPT)
    common = {"context": _context}
    pair = common | {"spec": _text("ECC_NIST_P256", "X25519", "AES_256", "X_WING")}
    found += [
        Ask("generate-data-key", operations.generate_data_key, key, (),
            common | {"length": _number}),
        Ask("generate-data-key-without-plaintext",
            operations.generate_data_key_without_plaintext, key, (), common | {"length": _number}),
        Ask("generate-data-key-pair", operations.generate_data_key_pair, key, (), pair),
        Ask("generate-data-key-pair-without-plaintext",
            operations.generate_data_key_pair_without_plaintext, key, (), pair),
    ]  # fmt: skip
    return found


def _sign(shop: Shop) -> list[Ask]:
    found = []
    for row in offered(Usage.SIGN_VERIFY):
        if row.name.startswith("SLH_DSA"):
            continue  # milliseconds each; targets.py has them
        for spec in specs_for(row.name):
            key = shop.key(row.name, Usage.SIGN_VERIFY, spec.name)
            made = operations.sign(shop.caller, str(key.id), TEXT, algorithm=row.name).signature
            named: dict[str, Callable[[Rng], Any]] = {
                "message": _bytes(TEXT, bytes(32), bytes(48), bytes(64)),
                "algorithm": _text(row.name),
                "message_type": _text("message", "digest", "external_mu"),
            }
            verifying = named | {"signature": _bytes(made), "version": _number}
            found += [
                Ask("sign", operations.sign, key, ("message",), named),
                Ask("verify", operations.verify, key, ("message", "signature"), verifying),
                Ask("public-key", operations.public_key, key, (), {"version": _number}),
            ]
    for row in offered(Usage.GENERATE_VERIFY_MAC):
        key = shop.key(row.name, Usage.GENERATE_VERIFY_MAC)
        tag = operations.mac(shop.caller, str(key.id), TEXT).mac
        message = {"message": _bytes(TEXT)}
        checked: dict[str, Callable[[Rng], Any]] = {"mac": _bytes(tag), "version": _number}
        found += [
            Ask("mac", operations.mac, key, ("message",), {**message}),
            Ask("verify-mac", operations.verify_mac, key, ("message", "mac"), message | checked),
        ]
    return found


def _agree(shop: Shop) -> list[Ask]:
    found = []
    for row in offered(Usage.WRAP_UNWRAP):
        key = shop.key(row.name, Usage.WRAP_UNWRAP, "RSA_2048" if "RSA" in row.name else "")
        made = operations.wrap_key(shop.caller, str(key.id), TEXT, algorithm=row.name).wrapped_key
        named: dict[str, Callable[[Rng], Any]] = {"algorithm": _text(row.name)}
        found += [
            Ask("wrap-key", operations.wrap_key, key, ("key_material",),
                {"key_material": _bytes(TEXT, bytes(32))} | named),
            Ask("unwrap-key", operations.unwrap_key, key, ("wrapped_key",),
                {"wrapped_key": _bytes(made), "version": _number} | named),
        ]  # fmt: skip
    for row in offered(Usage.KEY_ENCAPSULATION):
        for spec in specs_for(row.name):
            key = shop.key(row.name, Usage.KEY_ENCAPSULATION, spec.name)
            sent = operations.encapsulate(shop.caller, str(key.id)).ciphertext
            found += [
                Ask("encapsulate", operations.encapsulate, key, (), {}),
                Ask("decapsulate", operations.decapsulate, key, ("ciphertext",),
                    {"ciphertext": _bytes(sent), "version": _number}),
            ]  # fmt: skip
    for spec in specs_for("ECDH"):
        key = shop.key("ECDH", Usage.KEY_AGREEMENT, spec.name)
        peers = [materials.new_pair(one)[1] for one in (spec, spec, *specs_for("ECDH"))]
        found.append(
            Ask("derive-shared-secret", operations.derive_shared_secret, key,
                ("peer_public_key",), {"peer_public_key": _bytes(*peers), "version": _number})
        )  # fmt: skip
    for row in offered(Usage.DERIVE_KEY):
        key = shop.key(row.name, Usage.DERIVE_KEY, spec_for(row.name).name)
        deriving: dict[str, Callable[[Rng], Any]] = {
            "context": fuzz.context,
            "salt": _bytes(b"salt"),
            "length": _number,
            "version": _number,
        }
        found.append(Ask("derive-key", operations.derive_key, key, (), deriving))
    return found


def _requests(shop: Shop) -> list[Ask]:
    def listed(rng: Rng) -> list[str]:
        return [fuzz.text(rng) for _ in range(rng.randrange(3))]

    members: dict[str, Callable[[Rng], Any]] = {
        "subject": lambda rng: "CN=shop" if rng.random() < 0.3 else fuzz.name(rng),
        "dns_names": listed,
        "emails": listed,
        "ip_addresses": listed,
        "uris": listed,
        "algorithm": _text(),
        "version": _number,
    }
    able = ("ECDSA_SHA_256", "ED25519_SHA_512", "ML_DSA_SHAKE_256", "RSASSA_PSS_SHA_256")
    return [
        Ask("certificate-request", operations.certificate_request,
            shop.key(name, Usage.SIGN_VERIFY), (), members)
        for name in able
    ]  # fmt: skip
