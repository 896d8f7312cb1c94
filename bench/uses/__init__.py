"""Using keys over HTTP, beside what one would pick instead.

Everything is asked the same over 127.0.0.1, on kept-alive connections, in rounds in which the
systems take turns. bench/README.md tells the options, docs/benchmarks.md what is equal and what is not.
"""

from __future__ import annotations

import datetime
import json
import platform
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import parts

TAKES_OPTIONS = True
KEPT = parts.BUILD / "uses.json"


def run(report: Any) -> None:
    """Measure, report the goals' figures and print the page's part, or write it where asked to."""
    from bench.uses import goals, page, plan
    from bench.uses.results import Results
    from bench.uses.rounds import Measured

    wanted = plan.read(report.more)
    measured, where = _kept() if wanted.again else _measured(wanted)
    assert isinstance(measured, Measured)
    begun = len(report.figures)
    for line in goals.lines(Results(measured.samples)):
        report(*line)
    figures = report.figures[begun:]
    rows = [(one.name, _number(one.value), one.unit, one.goal, one.verdict()) for one in figures]
    content = page.text(measured, rows, where)
    if wanted.write:
        page.write(content)
        print(f"wrote {page.PAGE.relative_to(page.PAGE.parent.parent)}")
    else:
        print(f"\n{content}\n")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _measured(wanted: Any) -> tuple[Any, list[str]]:
    from bench.__main__ import machine
    from bench.uses.rounds import measure

    # Who asks it to end gets it ended with all that it started: some of that is held still just then.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    before = machine()
    began = datetime.datetime.now(datetime.UTC)
    measured = measure(wanted, lambda text: print(text, flush=True))
    minutes = (datetime.datetime.now(datetime.UTC) - began).total_seconds() / 60
    where = [
        f"{began:%d %B %Y, %H:%M} UTC, {minutes:.0f} minutes: "
        f"`{' '.join(['python -m bench uses', *wanted.arguments])}`",
        f"before: {before}",
        f"after: {machine()}",
        *_versions(),
    ]
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps({"where": where, **asdict(measured)}), encoding="utf-8")
    return measured, where


def _versions() -> list[str]:
    """Return which programs took part."""
    from importlib.metadata import version

    from bench.uses import load
    from tests import postgresql

    binary = postgresql._binaries() / "postgres"
    names = [f"{name} {version(name)}" for name in ("uvicorn", "django", "psycopg", "cryptography")]
    asked = [[str(binary), "--version"], [load.go(), "version"]]
    told = [subprocess.run(one, capture_output=True, text=True, check=False) for one in asked]
    names += [one.stdout.strip() for one in told]
    names += [f"moto {version('moto')}", _openbao(), f"Linux {platform.release()}"]
    return [", ".join(filter(None, names))]


def _openbao() -> str:
    """Return the version of OpenBao that tests/peers pins."""
    from tests.peers import openbao

    text = (openbao.SOURCE / "go.mod").read_text(encoding="utf-8")
    found = [line.split() for line in text.splitlines() if "github.com/openbao/openbao " in line]
    return f"OpenBao {found[0][1]}" if found else ""


def _kept() -> tuple[Any, list[str]]:
    """Return what the last run measured."""
    from bench.uses.rounds import Measured, Memory, Sample

    if not Path(KEPT).exists():
        raise SystemExit("nothing was measured yet")
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    samples = [Sample(**one) for one in kept["samples"]]
    memory = [Memory(**one) for one in kept["memory"]]
    return Measured(samples, memory, kept["missing"]), kept["where"]
