"""Malformed input of every kind, reproducible from a seed, and what may become of it.

A target is one way in (decrypting with one algorithm, importing material of one spec ...). It is
handed mutations of good input and pure noise; it may answer or raise an error of keys.errors, and
must not accept what it should not. Anything else ends the run with the seed and the input.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from keys.errors import CannotDecrypt, Invalid, Unsupported

Rng = random.Random
Call = Callable[[Rng, Any], Any]

# What malformed input may be answered with. No BackendError and no Unavailable: no store is at fault.
ALLOWED = (CannotDecrypt, Invalid, Unsupported)

EDGES = (b"\x00", b"\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x80", b"\x7f\xff\xff\xff")
LENGTHS = (0, 1, 2, 7, 8, 11, 12, 15, 16, 17, 22, 23, 24, 31, 32, 33, 47, 48, 63, 64, 255, 256, 257)


@dataclass(frozen=True)
class Target:
    """`call` gets what `make` makes; `weight` is how many of a million it should get."""

    name: str
    weight: int
    make: Callable[[Rng], Any]
    call: Call


class Unexpected(AssertionError):
    """What came was neither an answer nor an error of ours, or an answer that must not be."""


def run(targets: Sequence[Target], total: int, seed: int) -> dict[str, int]:
    """Give each target its share of `total`, rounded up; return how many each got. Raises Unexpected."""
    whole, counts = sum(target.weight for target in targets), {}
    for target in targets:
        count = -(-total * target.weight // whole)
        rng = Rng(f"{seed} {target.name}")
        for number in range(count):
            attempt(target, rng, seed, number)
        counts[target.name] = count
    return counts


def attempt(target: Target, rng: Rng, seed: int, number: int) -> None:
    data = target.make(rng)
    try:
        target.call(rng, data)
    except ALLOWED:
        return
    except Exception as error:
        shown = data.hex() if isinstance(data, bytes) else repr(data)
        raise Unexpected(
            f"{target.name}, seed {seed}, number {number}: {type(error).__name__}: {error}\n"
            f"input: {shown[:8000]}"
        ) from error


# --- malformed bytes


def noise(rng: Rng) -> bytes:
    return rng.randbytes(rng.choice((*LENGTHS, rng.randrange(2000))))


def mutated(rng: Rng, goods: Sequence[bytes]) -> bytes:
    """Return a good input after some changes, or noise. One in 50 is good still."""
    kind = rng.random()
    if kind < 0.05:
        return noise(rng)
    data = rng.choice(goods)
    if kind < 0.07:
        return data
    if kind < 0.4 and data:  # one bit, anywhere: what structure there is mostly stays
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = rng.choice(CHANGES)(rng, data, goods)
    return data


def _place(rng: Rng, data: bytes) -> int:
    # Structure stands in front and at the end, so half of all changes are there.
    if rng.random() < 0.5:
        return min(rng.randrange(40), max(len(data) - 1, 0))
    return rng.randrange(len(data)) if data else 0


def _flip(rng: Rng, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, data)
    return (
        data[:at]
        + bytes(byte ^ 1 << rng.randrange(8) for byte in data[at : at + 1])
        + data[at + 1 :]
    )


def _byte(rng: Rng, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(1) + data[at + 1 :]


def _edge(rng: Rng, data: bytes, _: Sequence[bytes]) -> bytes:
    at, edge = _place(rng, data), rng.choice(EDGES)
    return data[:at] + edge + data[at + len(edge) :]


def _cut(rng: Rng, data: bytes, _: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _drop(rng: Rng, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.randrange(1, 20) :]


def _insert(rng: Rng, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.randrange(1, 20)) + data[at:]


def _repeat(rng: Rng, data: bytes, _: Sequence[bytes]) -> bytes:
    at, length = _place(rng, data), rng.randrange(1, 40)
    return data[:at] + data[at : at + length] * rng.randrange(1, 4) + data[at:]


def _splice(rng: Rng, data: bytes, goods: Sequence[bytes]) -> bytes:
    other, at = rng.choice(goods), _place(rng, data)
    return data[:at] + other[at:]


def _grow(rng: Rng, data: bytes, _: Sequence[bytes]) -> bytes:
    return data + noise(rng)


CHANGES = (_flip, _flip, _byte, _edge, _cut, _drop, _insert, _repeat, _splice, _grow)


# --- malformed text and values

PIECES = (
    "", "a", "CN", "cn=", "=", ",", "+", "\\", "\\,", "\\2C", "\\zz", "#", "#04024869", "#30", "CN=shop",
    "C=AT", "C=AUT", "C=", "O=Company", "OU=x", "1.2.3=x", "2.5.4.3=x", "999.1=x", "1.2.3", "DC=at",
    "UID=1", "L=", "ST=\u00c4", "emailAddress=a@b", ";", " ", '"', "<", ">", "\x00", "\n", "\u202e",
    "\u0301", "\ud800", "\U0001f4a9", "\ufffe", "x" * 63, "y" * 64, "z" * 300, "*", "*.", "..", ".a",
    "-", "@", "a@b", "::1", "127.0.0.1", "1.2.3.4/8", "fe80::1%eth0", "http:", "http://", "urn:x", "%",
)  # fmt: skip


def text(rng: Rng) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.choice((0, 1, 1, 2, 3, 5, 9))))


def name(rng: Rng) -> str:
    """Return something near a distinguished name."""
    if rng.random() < 0.5:
        return text(rng)
    kinds = ("CN", "C", "O", "OU", "L", "ST", "DC", "UID", "STREET", "1.2.840.113549.1.9.1", "x")
    parts = (f"{rng.choice(kinds)}={text(rng)}" for _ in range(rng.randrange(1, 5)))
    return rng.choice((",", "+", ", ", ";")).join(parts)


def value(rng: Rng, depth: int = 2) -> Any:
    """Return any value that could come in JSON, or from a careless caller."""
    plain: tuple[Any, ...] = (
        None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**40, 1.5, float("inf"), float("nan"),
        "", "1", b"", b"x", text(rng), text(rng), (), {"a"},
    )  # fmt: skip
    if depth and rng.random() < 0.4:
        if rng.random() < 0.5:
            return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
        return context(rng, depth - 1)
    return rng.choice(plain)


def context(rng: Rng, depth: int = 1) -> dict[Any, Any]:
    """Return something near a context: mostly text, sometimes too long, too many, of other types."""
    found: dict[Any, Any] = {}
    for _ in range(rng.choice((0, 1, 2, 3, 31, 32, 33, 40))):
        key: Any = text(rng) if rng.random() < 0.9 else rng.choice((1, None, b"n", 1.5, ("t",)))
        if rng.random() < 0.1:
            key = str(key) * rng.choice((10, 1000, 2000))
        found[key] = text(rng) if rng.random() < 0.9 else value(rng, depth)
    return found


def chunks(total: int, count: int) -> list[tuple[int, int]]:
    """Return the number and the share of each of `count` parts that add up to `total`."""
    return [(number, total // count + (number < total % count)) for number in range(count)]
