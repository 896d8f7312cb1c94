"""The second reader and the product read each other, from the root key and the material database on."""

from __future__ import annotations

import base64
import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest

from keys import administration, operations, sealing
from keys.algorithms import SPECS, Usage
from keys.backends.software.backend import offers
from keys.backends.software.models import WrappedMaterial
from keys.gate import Item
from keys.models import Key, KeyVersion
from tests.honesty import make_vectors, reader
from tests.honesty.conftest import ENCRYPTING, LARGE, Shop, offered

CONTEXT = {"ward": "7", "patient": "Ä-12"}


def material(version: KeyVersion, exportable: bool | None = None) -> bytes:
    """Return a version's material as somebody would who has both databases' rows and the root key."""
    row = WrappedMaterial.objects.get(label=version.id)
    root_key = base64.b64decode(Path(sealing.root_key_file()).read_bytes())
    leaves = row.exportable if exportable is None else exportable
    return reader.unsealed(root_key, bytes(row.wrapped), row.label, row.store_id, row.spec, leaves)


def ring(*keys: Key) -> reader.Ring:
    return {
        (key.id, version.number): reader.Held(material(version), key.algorithm)
        for key in keys
        for version in key.versions.all()
    }


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_the_reader_decrypts_what_the_product_makes_now(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    held = ring(key)
    for text in (b"", b"dose: 5 mg", bytes(100)):
        for context in ({}, CONTEXT):
            made = operations.encrypt(
                shop.caller, str(key.id), text, context=context, algorithm=algorithm
            )
            assert reader.split(made.ciphertext).algorithm == algorithm == made.algorithm
            assert reader.decrypt(made.ciphertext, held, context) == text
            with pytest.raises(reader.Refused):
                reader.decrypt(made.ciphertext, held, {"another": "context"})


@pytest.mark.parametrize("algorithm", ENCRYPTING)
def test_the_product_decrypts_what_the_script_makes(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.ENCRYPT_DECRYPT)
    row: dict[str, Any] = {
        "key_id": str(key.id),
        "version": 1,
        "material": material(key.versions.get()).hex(),
    }
    made = make_vectors.sealed(algorithm, row, b"dose: 5 mg", CONTEXT, str(uuid.uuid4()))
    opened = operations.decrypt(shop.caller, str(key.id), made, context=CONTEXT)
    assert (opened.plaintext.reveal(), opened.algorithm) == (b"dose: 5 mg", algorithm)


@pytest.mark.parametrize("algorithm", [name for name in ENCRYPTING if name.startswith("RSAES")])
def test_the_raw_form_is_plain_rsa_oaep(shop: Shop, algorithm: str) -> None:
    key, caller = shop.key(algorithm, Usage.ENCRYPT_DECRYPT), shop.caller
    pkcs8 = material(key.versions.get())
    made = operations.encrypt(caller, str(key.id), b"a pin", algorithm=algorithm, raw=True)
    assert reader.oaep_open(algorithm, pkcs8, made.ciphertext, b"") == b"a pin"
    foreign = make_vectors.oaep(algorithm, pkcs8, b"a pin", b"", bytes(range(64)))
    opened = operations.decrypt(caller, str(key.id), foreign, algorithm=algorithm, raw=True)
    assert opened.plaintext.reveal() == b"a pin"


def test_the_reader_decrypts_data_keys_and_private_keys_of_pairs(shop: Shop) -> None:
    key = shop.key("XAES_256_GCM", Usage.ENCRYPT_DECRYPT)
    made = operations.generate_data_key(shop.caller, str(key.id), length=64, context=CONTEXT)
    assert made.plaintext is not None
    assert reader.decrypt(made.ciphertext, ring(key), CONTEXT) == made.plaintext.reveal()
    pair = operations.generate_data_key_pair(shop.caller, str(key.id), spec="RSA_2048")
    assert pair.private_key is not None
    assert reader.decrypt(pair.ciphertext, ring(key), {}) == pair.private_key.reveal()
    reader.rsa_key(pair.private_key.reveal())


def test_the_reader_decrypts_every_version_after_a_rotation(shop: Shop) -> None:
    key = shop.key("XAES_256_GCM", Usage.ENCRYPT_DECRYPT)
    first = operations.encrypt(shop.caller, str(key.id), b"first").ciphertext
    administration.rotate_key(shop.house.olga, str(key.id))
    second = operations.encrypt(shop.caller, str(key.id), b"second").ciphertext
    held = ring(key)
    assert [reader.split(one).version for one in (first, second)] == [1, 2]
    assert [reader.decrypt(one, held, {}) for one in (first, second)] == [b"first", b"second"]
    moved = operations.re_encrypt(shop.caller, str(key.id), first, to_context=CONTEXT)
    assert reader.split(moved.ciphertext).version == 2
    assert reader.decrypt(moved.ciphertext, held, CONTEXT) == b"first"


@pytest.mark.parametrize("algorithm", [row.name for row in offered(Usage.DERIVE_KEY)])
def test_the_reader_derives_the_same_keys(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.DERIVE_KEY)
    raw = material(key.versions.get())
    for context, salt, length in (({}, b"", 16), (CONTEXT, b"pepper", 32), (CONTEXT, b"", 1024)):
        made = operations.derive_key(
            shop.caller, str(key.id), context=context, salt=salt, length=length
        )
        assert made.key_material.reveal() == reader.derived_key(
            algorithm, raw, salt, context, length
        )


@pytest.mark.parametrize("algorithm", [row.name for row in offered(Usage.WRAP_UNWRAP)])
def test_the_reader_unwraps_what_the_product_wraps(shop: Shop, algorithm: str) -> None:
    key = shop.key(algorithm, Usage.WRAP_UNWRAP, "RSA_2048" if "RSA" in algorithm else "")
    raw = material(key.versions.get())
    for target in (b"k", bytes(range(16)), b"\xff" * 32):
        made = operations.wrap_key(shop.caller, str(key.id), target, algorithm=algorithm)
        assert reader.unwrap(algorithm, raw, made.wrapped_key) == target


def test_the_reader_finds_a_batchs_root_from_what_the_client_got(shop: Shop) -> None:
    key = shop.key("XAES_256_GCM", Usage.ENCRYPT_DECRYPT)
    items = [Item((bytes([number]),), {"context": CONTEXT}) for number in range(6)]
    items.append(Item((b"",), {"context": {"": "no name"}}))
    done = operations.encrypt.batch(shop.caller, str(key.id), items)
    leaves = [
        reader.leaf(
            position,
            one.error.code if one.error else "",
            one.result.version if one.result else 1,
            one.result.ciphertext if one.result else b"",
        )
        for position, one in enumerate(done.items)
    ]
    assert [one.error is None for one in done.items] == [True] * 6 + [False]
    assert done.root == reader.root(leaves).hex()
    entry = shop.house.last_entry(action="encrypt")
    assert entry["facts"]["items_root"] == done.root


@pytest.mark.parametrize("name", sorted(set(offers()) - set(LARGE)))
def test_the_material_of_every_spec_opens_with_the_root_key_alone(shop: Shop, name: str) -> None:
    spec = SPECS[name]
    key = shop.house.key(spec=name)
    version = key.versions.get()
    raw = material(version)
    if spec.asymmetric:
        public = bytes(version.public_key or b"")
        assert hashlib.sha256(public).hexdigest()[:16] == version.check_value
        assert raw[:1] == b"\x30"  # PKCS#8
    else:
        assert len(raw) * 8 == spec.bits
    with pytest.raises(reader.Refused):
        material(version, exportable=True)
