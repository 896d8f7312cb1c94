"""Whether this process lives (/healthz), and whether everything it needs is there (/readyz).

Both are answered to anybody, so they name no host, path, key store or credential; what exactly went
wrong stands in the log.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import redis
from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from audit import checkpoints, guard, keeper, retention, streams, writer
from keys import queries, root_keys
from keys.backends.breaker import broken_circuits
from keys.errors import BackendUnavailable
from kms_console.databases import MATERIAL_DATABASE

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.0  # the longest that any check is waited for
KEPT_SECONDS = 1.0  # how long an answer serves everybody who asks

OK, FAILED = "ok", "failed"
DEGRADED, UNAVAILABLE = "degraded", "unavailable"


@dataclass(frozen=True)
class Part:
    """One part of the house. `reason` is a sentence for anybody, empty where all is well."""

    name: str
    status: str = OK
    reason: str = ""
    seen: datetime | None = None


@dataclass(frozen=True)
class Report:
    """All parts, and what they come to."""

    status: str
    parts: tuple[Part, ...]

    def document(self) -> dict[str, Any]:
        """Return the answer of /readyz."""
        return {"status": self.status, "parts": {part.name: _member(part) for part in self.parts}}


class Trouble(Exception):
    """A part isn't as it should be; the message is its reason."""


@dataclass(frozen=True)
class Check:
    """How a part is looked at. Without an `essential` part no request can be served."""

    name: str
    look: Callable[[], datetime | None]
    failure: str
    essential: bool = False


def _database() -> None:
    _writable("default")


def _material() -> None:
    _writable(MATERIAL_DATABASE)


def _writable(alias: str) -> None:
    connection = connections[alias]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT current_setting('transaction_read_only')")
            read_only = cursor.fetchone()[0] == "on"
        else:
            # Asking for SQLite's one write lock would hold up those who need it.
            cursor.execute("SELECT 1")
            name = str(connection.settings_dict["NAME"])
            read_only = os.path.isabs(name) and not os.access(name, os.W_OK)
    if read_only:
        raise Trouble("It can be read but not written.")


def _log() -> None:
    guard.start()
    writer.head()
    _no(guard.refusal())
    if writer.appender().failing:
        # Without requests no entry would find out that it can be written again; this does.
        writer.probe()


def _memories() -> None:
    # One that is silent is no reason to refuse requests: the others still tell.
    _no(guard.complaint())


def _signer() -> None:
    _no(checkpoints.trouble())


def _trail() -> None:
    _no(keeper.trouble())


def _archive() -> None:
    _no(retention.trouble())


def _streams() -> None:
    _no(streams.trouble())


def _no(trouble: str) -> None:
    if trouble:
        raise Trouble(trouble)


def _root_key() -> None:
    try:
        root_keys.check_ready()
    except BackendUnavailable as error:
        log.info("The root key can't be opened: %s", error.detail)
        raise Trouble("The key store that holds it can't be reached.") from None


def _broker() -> None:
    url = settings.REDIS_URL.replace("redis+socket://", "unix://", 1)
    client = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1, retry=None)
    try:
        client.ping()
    finally:
        client.close()


def _worker() -> datetime | None:
    return _heartbeat("worker")


def _beat() -> datetime | None:
    return _heartbeat("sweep")


def _heartbeat(name: str) -> datetime:
    seen = queries.heartbeats().get(name)
    if seen is None:
        raise Trouble("It was never seen at work.")
    age = (datetime.now(UTC) - seen).total_seconds()
    if age > 3 * settings.SWEEP_SECONDS + 30:
        raise Trouble(f"It was last seen at work {age:.0f} seconds ago.")
    return seen


def _key_stores() -> None:
    stores = queries.key_store_health()
    failed = [name for name, ok, _ in stores if ok is False]  # None: not looked at yet
    if failed:
        log.warning("Key stores that can't be reached: %s", ", ".join(failed))
        raise Trouble(f"{len(failed)} of {len(stores)} can't be reached.")
    # The worker looked at them last; this process may know better since.
    if broken := broken_circuits():
        raise Trouble(f"{broken} failed again and again; no call is sent there for a while.")


CHECKS = (
    Check("database", _database, "It can't be reached.", essential=True),
    Check("log", _log, "It can't be read or written.", essential=True),
    Check("material", _material, "It can't be reached.", essential=True),
    Check("root_key", _root_key, "It can't be read.", essential=True),
    Check("broker", _broker, "It can't be reached."),
    Check("worker", _worker, "When it was last seen can't be read."),
    Check("beat", _beat, "When it was last seen can't be read."),
    Check("memories", _memories, "What is remembered of the log can't be read."),
    Check("signer", _signer, "What it signed can't be read."),
    Check("trail", _trail, "How far it has come can't be read."),
    Check("streams", _streams, "How far they have come can't be read."),
    Check("archive", _archive, "What its storage was told can't be read."),
    Check("key_stores", _key_stores, "Their state can't be read."),
)


class Examiner:
    """Looks at all parts at once, waits for none of them longer than CHECK_SECONDS."""

    def __init__(self, checks: tuple[Check, ...] = CHECKS) -> None:
        self._checks = checks
        self._pool = ThreadPoolExecutor(len(checks), thread_name_prefix="health")
        self._running: dict[str, Future[Part]] = {}
        self._lock = threading.Lock()
        self._report: Report | None = None
        self._made = 0.0
        self._told: dict[str, str] = {}

    def report(self) -> Report:
        """Return how things are; who asks within a second of another gets the same answer."""
        with self._lock:
            if self._report is None or time.monotonic() - self._made > KEPT_SECONDS:
                self._report = self._look()
                self._made = time.monotonic()
            return self._report

    def _look(self) -> Report:
        for check in self._checks:
            # One that still hangs is not asked again: threads would pile up behind it.
            if check.name not in self._running:
                self._running[check.name] = self._pool.submit(_run, check)
        wait(self._running.values(), CHECK_SECONDS)
        parts = tuple(self._part(check) for check in self._checks)
        return Report(_status(self._checks, parts), parts)

    def _part(self, check: Check) -> Part:
        future = self._running[check.name]
        if not future.done():
            part = Part(check.name, FAILED, f"It did not answer in {CHECK_SECONDS:g} seconds.")
        else:
            del self._running[check.name]
            part = future.result()
        self._tell(part)
        return part

    def _tell(self, part: Part) -> None:
        before = self._told.get(part.name)
        if before != part.status:
            # On a start the worker and beat weren't seen yet: that's no news worth a warning.
            level = logging.WARNING if before == OK else logging.INFO
            log.log(level, "%s: %s. %s", part.name, part.status, part.reason)
        self._told[part.name] = part.status


def _run(check: Check) -> Part:
    part = Part(check.name)
    try:
        return replace(part, seen=check.look())
    except Trouble as trouble:
        return replace(part, status=FAILED, reason=str(trouble))
    except Exception as error:
        log.info("Looking at %s failed: %s: %s", check.name, type(error).__name__, error)
        return replace(part, status=FAILED, reason=check.failure)
    finally:
        # The next look opens a new connection: a kept one may say that all is well when it isn't.
        connections.close_all()


def _status(checks: tuple[Check, ...], parts: tuple[Part, ...]) -> str:
    failed = {part.name for part in parts if part.status != OK}
    if any(check.essential and check.name in failed for check in checks):
        return UNAVAILABLE
    return DEGRADED if failed else OK


def _member(part: Part) -> dict[str, str]:
    member = {"status": part.status}
    if part.reason:
        member["reason"] = part.reason
    if part.seen is not None:
        member["seen"] = part.seen.isoformat()
    return member


_examiner = Examiner()


def report() -> Report:
    """Return how all parts are, for /readyz and for the console's own page."""
    return _examiner.report()


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """This process answers. Nothing else is looked at: a restart would not mend anything else."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """200 where requests can be served, be it with a part missing; 503 where none can."""
    found = report()
    return JsonResponse(found.document(), status=503 if found.status == UNAVAILABLE else 200)
