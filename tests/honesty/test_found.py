"""Faults that doubt found, each as the story that would show it again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from keys import operations
from keys.algorithms import Usage
from keys.backends import materials
from keys.gate import Item
from tests.honesty import reader
from tests.honesty.conftest import Shop, offered


def test_the_event_loop_never_makes_a_key_pair(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An RSA key of 4,096 bits takes seconds, in which nobody else would be served."""
    key, threads, make = shop.key("XAES_256_GCM", Usage.ENCRYPT_DECRYPT), [], materials.new_pair

    def watched(*args: Any) -> Any:
        threads.append(threading.current_thread())
        return make(*args)

    monkeypatch.setattr(materials, "new_pair", watched)

    caller, spec = shop.caller, {"spec": "X25519"}
    operations.encrypt(caller, str(key.id), b"so that the key is loaded")

    async def ask() -> None:
        for pair in (
            operations.generate_data_key_pair,
            operations.generate_data_key_pair_without_plaintext,
        ):
            await pair.aio(caller, str(key.id), **spec)
            await pair.batch_aio(caller, str(key.id), [Item((), spec)])

    asyncio.run(ask())
    assert len(threads) == 4
    assert threading.main_thread() not in threads


@pytest.mark.parametrize("algorithm", [row.name for row in offered(Usage.WRAP_UNWRAP)])
def test_whatever_can_be_wrapped_can_be_unwrapped(shop: Shop, algorithm: str) -> None:
    spec = "RSA_2048" if "RSA" in algorithm else ""
    key = shop.key(algorithm, Usage.WRAP_UNWRAP, spec)
    most = 62 if algorithm.startswith("RSAES") else 65536
    for size in (1, most // 2, most - 1, most):
        made = operations.wrap_key(shop.caller, str(key.id), bytes(size), algorithm=algorithm)
        opened = operations.unwrap_key(
            shop.caller, str(key.id), made.wrapped_key, algorithm=algorithm
        )
        assert opened.key_material.reveal() == bytes(size)


def test_the_root_of_a_batch_tells_nobody_the_context_of_a_derived_key(shop: Shop) -> None:
    """Contexts can be guessed, and a batch of one has the leaf for its root: the trail must not confirm."""
    key = shop.key("HKDF_SHA_256", Usage.DERIVE_KEY)
    context = {"patient": "4711"}
    operations.derive_key.batch(shop.caller, str(key.id), [Item((), {"context": context})])
    told = shop.house.last_entry(action="derive_key")["facts"]["items_root"]
    guess = b"kms-console derive key 1\x00" + reader.encoded_context(context)
    assert told != reader.root([reader.leaf(0, "", 1, guess)]).hex()
    assert told != reader.root([reader.leaf(0, "", 1, reader.encoded_context(context))]).hex()
