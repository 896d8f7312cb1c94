"""Malformed input through the operations, with their entries, and through the real API in this process."""

from __future__ import annotations

import asyncio
import base64
import json
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from keys.errors import (
    CannotDecrypt,
    Denied,
    Invalid,
    NotFound,
    StateForbids,
    Unsupported,
)
from kms_console import asgi
from kms_console.api.rest.codecs.use import USES
from tests.api.clients import PROBLEM, Answer, part, scope, talk
from tests.honesty import fuzz
from tests.honesty.asks import Ask, asks
from tests.honesty.conftest import Shop
from tests.honesty.fuzz import Rng

# No such version, another key that is not the caller's; else what malformed input is answered with.
ALLOWED = (CannotDecrypt, Invalid, Unsupported, NotFound, Denied, StateForbids)
AT_ONCE = 16


@pytest.fixture(autouse=True)
def _libraries_only_warn() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def through_operations(shop: Shop, total: int, seed: int) -> int:
    """Ask every operation by batches and one by one; return how many items were refused."""
    every, refused = asks(shop), 0
    each = max(2, total // len(every))
    for number, ask in enumerate(every):
        rng = Rng(f"{seed} {number} {ask.path}")
        items = [ask.item(rng) for _ in range(each)]
        where = f"seed {seed}, ask {number} ({ask.path} with {ask.key.spec} {ask.key.algorithm})"
        for at in range(0, each - each // 10, 500):
            part_ = items[at : min(at + 500, each - each // 10)]
            batch = ask.operation.batch(shop.caller, str(ask.key.id), part_)
            for item, done in zip(part_, batch.items, strict=True):
                assert done.error is None or isinstance(done.error, ALLOWED), (
                    f"{where}: {done.error!r} of {item}"
                )
                refused += done.error is not None
        for item in items[each - each // 10 :]:
            try:
                ask.operation(shop.caller, str(ask.key.id), *item.args, **item.kwargs)
            except ALLOWED:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{where}: {error!r} of {item}") from error
    return refused


def test_operations_refuse_some_thousand_malformed_inputs(shop: Shop) -> None:
    assert through_operations(shop, 1_500, seed=1) > 400


@pytest.mark.exhaustive
@pytest.mark.parametrize(("chunk", "count"), fuzz.chunks(60_000, 6))
def test_operations_refuse_sixty_thousand_malformed_inputs(
    shop: Shop, chunk: int, count: int
) -> None:
    assert through_operations(shop, count, seed=2000 + chunk) > count // 4


# --- the real API


def encoded(value: Any) -> Any:
    """Return arguments as JSON has them: bytes in base64; what JSON can't say is left out."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(name): encoded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [encoded(one) for one in value]
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def body(rng: Rng, ask: Ask) -> bytes:
    """Return a body: most are objects of the right members, some with odd values, some no JSON."""
    given = encoded(ask.body(rng))
    if rng.random() < 0.3 and given:
        given[rng.choice([*given, "more", "\u0000"])] = encoded(fuzz.value(rng))
    if rng.random() < 0.1 and given:
        del given[rng.choice(list(given))]
    if rng.random() < 0.02:
        given = encoded(fuzz.value(rng))
    written = json.dumps(given, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return fuzz.mutated(rng, [written]) if rng.random() < 0.15 else written


def request(rng: Rng, ask: Ask) -> tuple[str, bytes]:
    """Return an address below /api/v1/ and a body."""
    if rng.random() < 0.1:
        items = b",".join(body(rng, ask) for _ in range(rng.randrange(4)))
        return f"keys/{ask.key.alias}/{ask.path}/batch", b'{"items":[' + items + b"]}"
    return f"keys/{ask.key.alias}/{ask.path}", body(rng, ask)


async def answered(
    token: str, requests: list[tuple[str, bytes]]
) -> list[tuple[tuple[str, bytes], Answer]]:
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(path: str, content: bytes) -> tuple[tuple[str, bytes], Answer]:
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "authorization": f"Bearer {token}",
        }
        async with limit:
            answer = await talk(asgi.application, scope(path, headers), part(content))
        assert answer is not None
        return (path, content), answer

    return list(await asyncio.gather(*(one(*asked) for asked in requests)))


def through_the_api(shop: Shop, total: int, seed: int) -> dict[int, int]:
    """Ask the API, several at once; return how many answers had which status."""
    every, rng, statuses = asks(shop), Rng(seed), dict[int, int]()
    assert {ask.path for ask in every} == set(USES), "an operation that nobody asks"
    requests = [request(rng, rng.choice(every)) for _ in range(total)]
    token = shop.house.token("billing")
    for (path, content), answer in asyncio.run(answered(token, requests)):
        told = f"seed {seed}: {path} with {content[:4000]!r} gave {answer.status} {answer.body!r}"
        assert answer.status < 500, told
        if answer.status != 200:
            assert answer.type == PROBLEM, told
            assert set(answer.json) >= {"type", "title", "status", "detail", "code"}, told
        elif path.endswith("/batch"):
            errors = [one["error"] for one in answer.json["results"] if "error" in one]
            assert all(error["status"] < 500 for error in errors), told
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    return statuses


def test_the_api_answers_some_hundred_malformed_requests(shop: Shop) -> None:
    statuses = through_the_api(shop, 300, seed=1)
    assert statuses[200] > 25
    assert statuses[400] > 100


@pytest.mark.exhaustive
@pytest.mark.parametrize(("chunk", "count"), fuzz.chunks(12_000, 6))
def test_the_api_answers_twelve_thousand_malformed_requests(
    shop: Shop, chunk: int, count: int
) -> None:
    statuses = through_the_api(shop, count, seed=3000 + chunk)
    assert min(statuses[200], statuses[400]) > count // 20
