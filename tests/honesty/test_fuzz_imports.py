"""Malformed material through import parameters: one word for all of it, and the ticket is still good."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from keys import administration
from keys.algorithms import SPECS
from keys.backends import materials
from keys.errors import Invalid
from keys.imports import tickets
from keys.secret import Secret
from tests.honesty import fuzz
from tests.house import House


def wrapped_to(public_key: bytes, material: bytes) -> bytes:
    """Return RSA_AES_KEY_WRAP_SHA_256 of `material`."""
    public, passing = load_der_public_key(public_key), bytes(range(32))
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    return public.encrypt(passing, oaep) + aes_key_wrap_with_padding(passing, material)


def bring(house: House, key: str, asked: Any, wrapped: bytes) -> Any:
    return administration.import_key(
        house.olga,
        key,
        wrapped=Secret(wrapped),
        token=asked.token,
        algorithm="RSA_AES_KEY_WRAP_SHA_256",
    )


@pytest.mark.parametrize("spec", ["AES_256", "ECC_NIST_P256", "ML_KEM_768"])
def test_malformed_wrapped_material_is_refused_and_uses_nothing_up(house: House, spec: str) -> None:
    row, key = SPECS[spec], house.key(spec=spec, origin="imported")
    material = materials.new_pair(row)[0].reveal() if row.asymmetric else bytes(range(1, 33))
    asked = administration.import_parameters(house.olga, str(key.id), spec="RSA_3072")
    good, rng = wrapped_to(asked.public_key, material), fuzz.Rng(f"1 {spec}")
    refused = 0
    for number in range(60):
        changed = fuzz.mutated(rng, [good])
        if changed == good:
            continue
        with pytest.raises(Invalid) as told:
            pytest.fail(f"number {number}: {bring(house, str(key.id), asked, changed)}")
        if 0 < len(changed) <= tickets.WRAPPED_LIMIT:
            assert str(told.value) == str(tickets.cannot_unwrap())
        refused += 1
    assert refused > 40
    # Rightly wrapped, and nevertheless no material of this spec: every secret of the right length is.
    wrong = [material[:-1], material + b"\x00", b"x", bytes(len(material)), b"\x00" + material]
    for one in wrong:
        with pytest.raises(Invalid):
            bring(house, str(key.id), asked, wrapped_to(asked.public_key, one))
    done = bring(house, str(key.id), asked, good)
    assert done.versions.get().check_value == materials.check_value(row, Secret(material))
    with pytest.raises(Invalid):
        bring(house, str(key.id), asked, good)
