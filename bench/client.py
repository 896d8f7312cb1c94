"""The client package: envelope encryption against the plain library, and what a call costs the application."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.test.utils import override_settings

from audit.writer import close_appender
from bench import parts
from keys import sealing
from kms_console_client import AsyncClient, Client, Envelope
from tests.api.test_processes import Server, serving
from tests.databases import Database
from tests.house import House, _set_up

ROUNDS = 7
# Bytes of a message, and how many a round has: some 50 ms of the plain library's work.
SIZES = {"1 KiB": (1024, 8000), "64 KiB": (64 * 1024, 600), "16 MiB": (16 * 1024 * 1024, 3)}
CALLS = 300
CONTEXT = {"tenant": "north"}


def run(report: Callable[..., None]) -> None:
    """Measure in one thread, against a service on SQLite that is asked for one data key."""
    with service() as (server, token):
        url = f"http://127.0.0.1:{server.port}"
        with Client(url, token) as client:
            _envelopes(report, Envelope(client, "invoices"))
            _calls(report, client)
        asyncio.run(_awaited(report, url, token))


@contextlib.contextmanager
def service() -> Iterator[tuple[Server, str]]:
    """Run a set-up console; give the server and a token that may use the key `invoices`."""
    with parts.sqlite() as made:
        root_key = made.folder / "root-key"
        with override_settings(ROOT_KEY_FILE=root_key):
            sealing.create_root_key()
            tokens = _set_up()
            close_appender()
        environment = {
            **os.environ,
            "DATABASE_URL": made.url,
            "MATERIAL_DATABASE_URL": made.material_url,
            "KMS_DATA": str(made.folder),
            "KMS_ROOT_KEY_PATH": str(root_key),
        }
        database = Database("sqlite", made.url, made.material_url)
        house = House(database, Path(made.folder), tokens, environment)
        with serving(house) as server:
            yield server, tokens["billing"]


def _seconds(work: Callable[[], object], count: int) -> float:
    """Return the processor time of this thread that one of `count` takes: what runs beside it counts less."""
    begun = time.thread_time()
    for _ in range(count):
        work()
    return (time.thread_time() - begun) / count


def _envelopes(report: Callable[..., None], envelope: Envelope) -> None:
    cipher = AESGCM(AESGCM.generate_key(256))
    for name, (size, count) in SIZES.items():
        data = os.urandom(size)
        message = envelope.encrypt(data, CONTEXT)
        assert envelope.decrypt(message, CONTEXT) == data
        works: dict[str, Callable[[], object]] = {
            # As one is told to use it: a fresh nonce for each message.
            "plain": lambda data=data: cipher.encrypt(os.urandom(12), data, None),  # type: ignore[misc]
            "encrypt": lambda data=data: envelope.encrypt(data, CONTEXT),  # type: ignore[misc]
            "decrypt": lambda message=message: envelope.decrypt(message, CONTEXT),  # type: ignore[misc]
        }
        rounds: dict[str, list[float]] = {one: [] for one in works}
        for _ in range(ROUNDS):
            for one, work in works.items():
                rounds[one].append(_seconds(work, count))
        spent = {one: statistics.median(times) for one, times in rounds.items()}
        report(f"AESGCM of the library, {name}", size / spent["plain"] / 1e6, "MB/s")
        for one in ("encrypt", "decrypt"):
            report(f"envelope {one}, {name}", size / spent[one] / 1e6, "MB/s")
            ratios = [a / b for a, b in zip(rounds["plain"], rounds[one], strict=True)]
            report(
                f"envelope {one}, {name}, to the library's encrypt", statistics.median(ratios), "x"
            )
        report(
            f"envelope encrypt, {name}: beyond the library",
            (spent["encrypt"] - spent["plain"]) * 1e6,
            "µs",
        )


def _calls(report: Callable[..., None], client: Client) -> None:
    data = os.urandom(1024)
    times = [_seconds(lambda: client.encrypt("invoices", data, CONTEXT), CALLS) for _ in range(3)]
    report("client.encrypt of 1 KiB, processor time here", statistics.median(times) * 1e6, "µs")


async def _awaited(report: Callable[..., None], url: str, token: str) -> None:
    data = os.urandom(1024)
    async with AsyncClient(url, token) as client:

        async def work() -> None:
            for _ in range(CALLS // 4):
                await client.encrypt("invoices", data, CONTEXT)

        times = []
        for _ in range(3):
            begun = time.thread_time()
            await asyncio.gather(*(work() for _ in range(4)))
            times.append((time.thread_time() - begun) / (CALLS // 4 * 4))
    spent = statistics.median(times) * 1e6
    report("await client.encrypt of 1 KiB, processor time here", spent, "µs")
