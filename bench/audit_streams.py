"""How fast entries become events, and how fast they reach a webhook on this machine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable

from django.db import transaction
from django.test.utils import override_settings

from audit.canonical import encode
from audit.entries import body
from audit.formats import cef, ocsf
from audit.merkle import leaf_hash
from audit.streams.addresses import parse
from audit.streams.delivery import Runner
from audit.writer import append
from bench import parts
from tests.audit.helpers import use
from tests.audit.receivers import Hook

COUNT = 20_000


def run(report: Callable[..., None]) -> None:
    """Measure formatting in one thread, and one stream's delivery from PostgreSQL."""
    one = json.loads(encode(body(use(), 1)))
    leaf = leaf_hash(encode(one))
    for name, line in (("ocsf", ocsf.line), ("cef", cef.line)):
        begun = time.perf_counter()
        for _ in range(COUNT):
            line(one, {}, leaf=leaf)
        report(f"{name} lines", COUNT / (time.perf_counter() - begun), "entries/s")
    with (
        parts.postgresql(),
        override_settings(AUDIT_WEBHOOK_SECRET="a secret of nobody at all, made up"),
    ):
        _deliver(report)


def _deliver(report: Callable[..., None]) -> None:
    for _ in range(COUNT // 1000):
        with transaction.atomic():
            append([use() for _ in range(1000)])
    hook = Hook()
    try:
        runner = Runner(parse(hook.url("/hook?from=0")), threading.Event())
        begun = time.perf_counter()
        while runner.deliver_one():
            continue
        report("webhook stream, OCSF", COUNT / (time.perf_counter() - begun), "entries/s")
    finally:
        hook.kill()
