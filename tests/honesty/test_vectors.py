"""The vectors in docs/vectors: made from primitives, read by the product and by a second reader."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from keys import envelope
from keys.algorithms import ALGORITHMS, Usage
from keys.backends.base import Backend
from keys.backends.software.backend import SoftwareBackend
from keys.errors import CannotDecrypt, KeyServiceError
from keys.gate.batches import Done, root_of
from keys.operations.agree import DERIVE_LABEL
from keys.secret import Secret
from tests.databases import Database
from tests.honesty import make_vectors, reader
from tests.honesty.conftest import ENCRYPTING

VECTORS: dict[str, Any] = json.loads(make_vectors.FILE.read_text(encoding="utf-8"))
KEYS: dict[str, dict[str, Any]] = VECTORS["keys"]
STORE = uuid.UUID("5f0c6f5e-0d0b-4f4e-9f55-3a0f0a5c0002")


def named(rows: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("row", rows, ids=[row.get("name", "") for row in rows])


class Product:
    """The software store with the vectors' keys, and the envelope around it as operations have it."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.handles: dict[str, str] = {}

    def handle(self, name: str) -> str:
        if name not in self.handles:
            key = KEYS[name]
            label = uuid.uuid5(STORE, name)
            material = Secret(bytes.fromhex(key["material"]))
            made = self.backend.import_material(label, key["spec"], material)
            self.handles[name] = made.handle
        return self.handles[name]

    def decrypt(self, name: str, ciphertext: bytes, context: dict[str, str]) -> bytes:
        key = KEYS[name]
        parts = envelope.parse(ciphertext)
        if (str(parts.key_id), parts.version) != (key["key_id"], key["version"]):
            raise CannotDecrypt
        oaep = [algorithm for algorithm in ENCRYPTING if algorithm.startswith("RSAES")]
        able = oaep if key["spec"].startswith("RSA") else [key["algorithm"]]
        if parts.algorithm not in able:
            raise CannotDecrypt
        aad = envelope.associated_data(parts.header, context)
        return self.backend.decrypt(self.handle(name), parts.algorithm, parts.body, aad)


@pytest.fixture
def product(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Product]:
    monkeypatch.setenv("KMS_ROOT_KEY", "11" * 32)
    backend = SoftwareBackend(STORE, {}, None)
    yield Product(backend)
    backend.close()


def ring() -> reader.Ring:
    return {
        (uuid.UUID(key["key_id"]), key["version"]): reader.Held(
            bytes.fromhex(key["material"]), key["algorithm"]
        )
        for key in KEYS.values()
    }


def test_the_file_is_what_the_script_makes_from_primitives() -> None:
    assert make_vectors.FILE.read_text(encoding="utf-8") == make_vectors.document()


def test_every_algorithm_that_encrypts_has_vectors_and_ciphertexts_to_refuse() -> None:
    for part, least in (("ciphertexts", 4), ("refused", 20)):
        counts = dict.fromkeys(ENCRYPTING, 0)
        for row in VECTORS[part]:
            counts[row["algorithm"]] += 1
        assert min(counts.values()) >= least, counts
    codes = {ALGORITHMS[name].code: name for name in ENCRYPTING}
    assert {code: name for code, (name, _) in reader.ALGORITHMS.items()} == codes


def test_every_derivation_and_every_form_of_wrapping_has_vectors() -> None:
    wanted = {row.name for row in ALGORITHMS.values() if Usage.DERIVE_KEY in row.usages}
    assert {row["algorithm"] for row in VECTORS["derived_keys"]} == wanted
    wrapping = {row.name for row in ALGORITHMS.values() if Usage.WRAP_UNWRAP in row.usages}
    assert {row["algorithm"] for row in VECTORS["wrapped_keys"]} == wrapping


def test_product_and_reader_decrypt_every_vector(product: Product) -> None:
    for row in VECTORS["ciphertexts"]:
        data, context = bytes.fromhex(row["ciphertext"]), row["context"]
        wanted = bytes.fromhex(row["plaintext"])
        assert reader.decrypt(data, ring(), context) == wanted, row["name"]
        assert product.decrypt(row["key"], data, context) == wanted, row["name"]


def test_product_and_reader_refuse_every_vector_that_must_be(product: Product) -> None:
    for row in VECTORS["refused"]:
        data, context = bytes.fromhex(row["ciphertext"]), row["context"]
        with pytest.raises(reader.Refused):
            pytest.fail(f"{row['name']}: {reader.decrypt(data, ring(), context)!r}")
        with pytest.raises(CannotDecrypt) as refused:
            pytest.fail(f"{row['name']}: {product.decrypt(row['key'], data, context)!r}")
        assert str(refused.value) == CannotDecrypt.title


def test_a_refused_vector_is_one_change_away_from_one_that_decrypts(product: Product) -> None:
    """Else a mistake in the script could make them refused for another reason than they name."""
    checked = 0
    for row in VECTORS["refused"]:
        if "the last bit is another" in row["name"]:
            data = bytearray.fromhex(row["ciphertext"])
            data[-1] ^= 1
            assert product.decrypt(row["key"], bytes(data), row["context"]) == b"dose: 5 mg"
            checked += 1
    assert checked == len(ENCRYPTING)


@named([{"name": str(row["context"]), **row} for row in VECTORS["contexts"]])
def test_contexts_are_encoded_alike(row: dict[str, Any]) -> None:
    assert envelope.encoded_context(row["context"]).hex() == row["encoded"]
    assert reader.encoded_context(row["context"]).hex() == row["encoded"]


def test_product_and_reader_derive_every_key(product: Product) -> None:
    for row in VECTORS["derived_keys"]:
        salt, length = bytes.fromhex(row["salt"]), row["length"]
        info = DERIVE_LABEL + envelope.encoded_context(row["context"])
        derived = product.backend.derive(
            product.handle(row["key"]), row["algorithm"], salt=salt, info=info, length=length
        )
        assert derived.hex() == row["derived"]
        material = bytes.fromhex(KEYS[row["key"]]["material"])
        again = reader.derived_key(row["algorithm"], material, salt, row["context"], length)
        assert again.hex() == row["derived"]


def test_product_and_reader_unwrap_every_key(product: Product) -> None:
    for row in VECTORS["wrapped_keys"]:
        wrapped, algorithm = bytes.fromhex(row["wrapped_key"]), row["algorithm"]
        material = bytes.fromhex(KEYS[row["key"]]["material"])
        by_reader = reader.unwrap(algorithm, material, wrapped)
        by_product = product.backend.unwrap(product.handle(row["key"]), algorithm, wrapped)
        assert by_product.hex() == by_reader.hex() == row["key_material"]


def test_product_and_reader_refuse_wrapped_keys_with_any_byte_changed(product: Product) -> None:
    for row in VECTORS["wrapped_keys"][::2]:
        wrapped, algorithm = bytes.fromhex(row["wrapped_key"]), row["algorithm"]
        material = bytes.fromhex(KEYS[row["key"]]["material"])
        for position in range(0, len(wrapped), 1 if algorithm == "AES_KWP" else 17):
            changed = bytearray(wrapped)
            changed[position] ^= 1 << position % 8
            with pytest.raises(reader.Refused):
                reader.unwrap(algorithm, material, bytes(changed))
            with pytest.raises(CannotDecrypt):
                product.backend.unwrap(product.handle(row["key"]), algorithm, bytes(changed))


def test_product_and_reader_find_the_same_root_of_a_batch() -> None:
    class CannotDo(KeyServiceError):
        code = "cannot_decrypt"

    for row in VECTORS["batches"]:
        items = [
            Done(
                None,
                CannotDo() if item["error"] else None,
                item["version"] or None,
                bytes.fromhex(item["evidence"]),
            )
            for item in row["items"]
        ]
        leaves = [done.leaf(position).decode() for position, done in enumerate(items)]
        assert leaves == row["leaves"]
        assert root_of(items) == row["root"]
        assert reader.root([leaf.encode() for leaf in leaves]).hex() == row["root"]


# Key, nonce, plaintext, associated data; ciphertext, tag and commitment as AWS-LC has them
# (crypto/cipher_extra/test/xaes_256_gcm_kc_tests.txt). The second and third are the paper's.
PUBLISHED = [
    (
        b"\x01" * 32,
        b"B" * 24,
        b"Hello, XAES-256-GCM!",
        b"",
        "01e5f78bc99de880bd2eeff2870d361f0eab5b2f",
        "c55268f34b14045878fe3668db980319",
        "bf37571be1b43aeca64a95d99a2f162e24f8bfd79bbb71fa7d943e6fc060a8ae",
    ),
    (
        b"\x01" * 32,
        b"ABCDEFGHIJKLMNOPQRSTUVWX",
        b"XAES-256-GCM",
        b"",
        "ce546ef63c9cc60765923609",
        "b33a9a1974e96e52daf2fcf7075e2271",
        "04076b6085eebab138855fe57811c04112eff989d44120dfff662d5475a383c3",
    ),
    (
        b"\x03" * 32,
        b"ABCDEFGHIJKLMNOPQRSTUVWX",
        b"XAES-256-GCM",
        b"c2sp.org/XAES-256-GCM",
        "986ec1832593df5443a17943",
        "7fd083bf3fdb41abd740a21f71eb769d",
        "5553cd21d1592b422e3129632a3187eee8a658cdca5c5b32ce86308dcc18e9d1",
    ),
]


@pytest.mark.parametrize(("key", "nonce", "text", "aad", "data", "tag", "commitment"), PUBLISHED)
def test_the_reader_agrees_with_published_vectors_of_kc_xaes(
    key: bytes, nonce: bytes, text: bytes, aad: bytes, data: str, tag: str, commitment: str
) -> None:
    made = reader.xaes_seal(key, nonce, text, aad)
    assert made.hex() == nonce.hex() + commitment + data + tag
    assert reader.xaes_open(key, made, aad) == text
