"""Every way in below the gate: what parses or computes over bytes and text from outside."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from typing import Any

from keys import envelope
from keys.algorithms import SPECS, MessageType, Usage
from keys.backends import materials, proof
from keys.backends.base import Backend, Material
from keys.errors import CannotDecrypt, Unsupported
from keys.operations import certificates
from keys.secret import Secret
from tests.honesty import fuzz
from tests.honesty.conftest import LARGE, offered, spec_for, specs_for
from tests.honesty.fuzz import Rng, Target

CONTEXT = {"ward": "7", "patient": "Ä-12"}
TEXTS = (b"", b"dose: 5 mg", bytes(range(256)))
SHORT = (b"", b"dose: 5 mg", bytes(32))


class Bench:
    """A store with one key for each of its algorithms, and the targets that they make."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.offers = backend.capabilities().algorithms
        self._made: dict[tuple[str, Usage], Material] = {}

    def material(self, spec: str, usage: Usage) -> Material:
        if (spec, usage) not in self._made:
            made = self.backend.generate(uuid.uuid4(), spec, usage=usage)
            self._made[spec, usage] = made
        return self._made[spec, usage]

    def targets(self) -> list[Target]:
        """Return the targets that a store computes itself; words() are for all stores alike."""
        return [
            *self.decrypting(),
            *self.unwrapping(),
            *self.encapsulations(),
            *self.signatures(),
            *self.macs(),
            *self.peers(),
            *self.imports(),
        ]

    def decrypting(self) -> list[Target]:
        found = []
        for row in offered(Usage.ENCRYPT_DECRYPT, self.offers):
            by_rsa = row.name.startswith("RSAES")
            handle = self.material(
                spec_for(row.name, self.offers).name, Usage.ENCRYPT_DECRYPT
            ).handle
            if by_rsa:
                bare = [self.backend.encrypt(handle, row.name, text, b"") for text in SHORT]
                raw = self._opens(
                    lambda data, h=handle, a=row.name: self.backend.decrypt(h, a, data, b""), bare
                )
                found.append(Target(f"decrypt raw {row.name}", 5_000, _of(bare), raw))
            key_id, goods = uuid.uuid4(), []
            with contextlib.suppress(Unsupported):  # a token without labels has the raw form only
                for text in SHORT if by_rsa else TEXTS:
                    header = envelope.seal_header(row.name, key_id, 1)
                    aad = envelope.associated_data(header, CONTEXT)
                    goods.append(header + self.backend.encrypt(handle, row.name, text, aad))
            if goods:
                call = self._decrypt(handle, row.name, key_id, goods)
                weight = 20_000 if by_rsa else 100_000
                found.append(Target(f"decrypt {row.name}", weight, _of(goods), call))
        return found

    def _decrypt(
        self, handle: str, algorithm: str, key_id: uuid.UUID, goods: list[bytes]
    ) -> fuzz.Call:
        def call(rng: Rng, data: bytes) -> None:
            # Mostly past the header, where the work is: it is put right before every body.
            if rng.random() < 0.7 and len(data) > envelope.HEADER_BYTES:
                data = goods[0][: envelope.HEADER_BYTES] + data[envelope.HEADER_BYTES :]
            context = CONTEXT if rng.random() < 0.9 else fuzz.context(rng)
            try:
                parts = envelope.parse(data)
                aad = envelope.associated_data(parts.header, context)
                if parts.key_id != key_id or parts.algorithm != algorithm:
                    raise CannotDecrypt
                self.backend.decrypt(handle, algorithm, parts.body, aad)
            except CannotDecrypt as error:
                assert str(error) == CannotDecrypt.title
                assert data not in goods or context != CONTEXT, "a good one was refused"
            else:
                assert data in goods, "a changed one decrypts"

        return call

    def _opens(self, open_: Callable[[bytes], bytes], goods: list[bytes]) -> fuzz.Call:
        def call(_: Rng, data: bytes) -> None:
            try:
                open_(data)
            except CannotDecrypt as error:
                assert str(error) == CannotDecrypt.title
                assert data not in goods, "a good one was refused"
            else:
                assert data in goods, "a changed one opens"

        return call

    def unwrapping(self) -> list[Target]:
        found = []
        for row in offered(Usage.WRAP_UNWRAP, self.offers):
            by_rsa = "RSA" in row.name
            for spec in (
                ["RSA_2048"] if by_rsa else [one.name for one in specs_for(row.name, self.offers)]
            ):
                handle = self.material(spec, Usage.WRAP_UNWRAP).handle
                targets = (b"k", bytes(16), bytes(range(32)), bytes(40))
                goods = []
                for target in targets:
                    with contextlib.suppress(Unsupported):  # SoftHSM pads AES-KWP wrongly
                        goods.append(self.backend.wrap(handle, row.name, target))
                call = self._opens(
                    lambda data, h=handle, a=row.name: self.backend.unwrap(h, a, data), goods
                )
                weight = 3_000 if by_rsa else 5_000 if "HPKE" in row.name else 40_000
                found.append(Target(f"unwrap {row.name} {spec}", weight, _of(goods), call))
        return found

    def encapsulations(self) -> list[Target]:
        found = []
        for row in offered(Usage.KEY_ENCAPSULATION, self.offers):
            for spec in specs_for(row.name, self.offers):
                made = self.material(spec.name, Usage.KEY_ENCAPSULATION)
                assert made.public_key is not None
                goods = [materials.encapsulate(spec, made.public_key)[1] for _ in range(3)]

                def decapsulate(
                    _: Rng, data: bytes, handle: str = made.handle, name: str = row.name
                ) -> None:
                    assert len(self.backend.decapsulate(handle, name, data)) == 32

                def encapsulate(_: Rng, data: bytes, of: Any = spec) -> None:
                    secret, sent = materials.encapsulate(of, data)
                    assert (len(secret), len(sent) > 700) == (32, True)

                publics = [made.public_key, *self.publics()]
                found.append(Target(f"decapsulate {spec.name}", 8_000, _of(goods), decapsulate))
                found.append(Target(f"encapsulate {spec.name}", 4_000, _of(publics), encapsulate))
        return found

    def signatures(self) -> list[Target]:
        found = []
        for row in offered(Usage.SIGN_VERIFY, self.offers):
            for spec in specs_for(row.name, self.offers):
                handle = self.material(spec.name, Usage.SIGN_VERIFY).handle
                slow = row.name.startswith("SLH_DSA")
                text = TEXTS[1]
                goods = [self.backend.sign(handle, row.name, text) for _ in range(1 if slow else 3)]
                call = self._verify(handle, row.name, goods)
                weight = 300 if slow else 3_000
                found.append(Target(f"verify {row.name} {spec.name}", weight, _of(goods), call))
        return found

    def _verify(self, handle: str, algorithm: str, goods: list[bytes]) -> fuzz.Call:
        def call(rng: Rng, data: bytes) -> None:
            kind = rng.choice(list(MessageType)) if rng.random() < 0.1 else MessageType.MESSAGE
            message = TEXTS[1] if rng.random() < 0.9 else fuzz.noise(rng)
            valid = self.backend.verify(handle, algorithm, message, data, message_type=kind)
            right = data in goods and message == TEXTS[1] and kind is MessageType.MESSAGE
            assert valid is right, f"{valid} for {kind} {message.hex()}"

        return call

    def macs(self) -> list[Target]:
        found = []
        for row in offered(Usage.GENERATE_VERIFY_MAC, self.offers):
            spec = spec_for(row.name, self.offers).name
            handle = self.material(spec, Usage.GENERATE_VERIFY_MAC).handle
            good = self.backend.mac(handle, row.name, TEXTS[1])

            def call(
                _: Rng, data: bytes, handle: str = handle, name: str = row.name, good: bytes = good
            ) -> None:
                assert self.backend.verify_mac(handle, name, TEXTS[1], data) is (data == good)

            found.append(Target(f"verify-mac {row.name}", 20_000, _of([good]), call))
        return found

    def publics(self) -> list[bytes]:
        """Return one public key of every pair there is."""
        pairs = [spec for spec in SPECS.values() if spec.asymmetric and spec.name not in LARGE]
        found = []
        for spec in pairs:
            if spec.name in self.offers:
                public = self.material(spec.name, spec.usages[0]).public_key
                assert public is not None
                found.append(public)
        return found

    def peers(self) -> list[Target]:
        found = []
        for spec in specs_for("ECDH", self.offers):
            handle = self.material(spec.name, Usage.KEY_AGREEMENT).handle
            own = [materials.new_pair(spec)[1] for _ in range(3)]

            def call(_: Rng, data: bytes, handle: str = handle) -> None:
                assert any(self.backend.agree(handle, "ECDH", data))

            goods = [*own, *own, *self.publics()]
            found.append(Target(f"peer {spec.name}", 10_000, _of(goods), call))
        return found

    def imports(self) -> list[Target]:
        pairs = [spec for spec in SPECS.values() if spec.name in self.offers]
        pkcs8 = {
            spec.name: materials.new_pair(spec)[0].reveal()
            for spec in pairs
            if spec.asymmetric and spec.name not in LARGE
        }
        found = []
        for spec in pairs:
            if spec.asymmetric and spec.name not in LARGE:
                goods = [pkcs8[spec.name]] * 8 + list(pkcs8.values())
                slow = spec.name.startswith(("SLH_DSA", "RSA"))
                make, weight = _of(goods), 200 if slow else 2_000
            elif spec.name in LARGE:
                make, weight = _of(list(pkcs8.values())), 200
            else:
                make, weight = _of([bytes(range(7, 7 + spec.bits // 8))]), 2_000
            found.append(Target(f"import {spec.name}", weight, make, self._import(spec.name)))
        return found

    def _import(self, spec: str) -> fuzz.Call:
        row = SPECS[spec]
        algorithm, usage = row.algorithms[0], row.usages[0]

        def call(_: Rng, data: bytes) -> None:
            expected = materials.check_value(row, Secret(data))
            made = self.backend.import_material(uuid.uuid4(), spec, Secret(data))
            assert made.check_value == expected
            if spec.startswith("SLH_DSA"):
                return  # its import has signed and verified already
            try:
                proof.check_material(self.backend, made, spec, usage, algorithm)
            finally:
                self.backend.destroy(made.handle)

        return call


def _of(goods: list[bytes]) -> Callable[[Rng], bytes]:
    return lambda rng: fuzz.mutated(rng, goods)


def words() -> list[Target]:
    """Return the targets that take text: contexts, and what stands in certificate requests."""

    def encode(_: Rng, given: dict[Any, Any]) -> None:
        envelope.encoded_context(given)

    def parse(_: Rng, data: bytes) -> None:
        parts = envelope.parse(data)
        again = envelope.seal_header(parts.algorithm, parts.key_id, parts.version)
        assert again + parts.body == data

    def subject(_: Rng, given: str) -> None:
        certificates._subject(given)

    def alternatives(_: Rng, given: list[Any]) -> None:
        list(certificates._alternatives(*given))

    header = envelope.seal_header("XAES_256_GCM", uuid.uuid4(), 1) + b"body"
    return [
        Target("context", 60_000, fuzz.context, encode),
        Target("envelope", 100_000, _of([header]), parse),
        Target("subject", 40_000, fuzz.name, subject),
        Target(
            "alternative names",
            20_000,
            lambda rng: [
                [fuzz.text(rng) for _ in range(rng.randrange(3))]
                if rng.random() < 0.9
                else fuzz.value(rng)
                for _ in range(4)
            ],
            alternatives,
        ),
    ]
