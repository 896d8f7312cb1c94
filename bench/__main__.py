"""`python -m bench [name ...] [--large]`: run what measures, print one table at the end."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MACHINERY = {"__main__", "parts", "drf_baseline"}
GOAL = re.compile(r"(>=|<=|<|>) *([0-9][0-9,]*(?:\.[0-9]+)?)")


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    goal: str = ""

    def verdict(self) -> str:
        """Say whether a goal such as ">= 15,000" is reached; "" where none is given that way."""
        found = GOAL.match(self.goal)
        if found is None:
            return ""
        sign, limit = found[1], float(found[2].replace(",", ""))
        reached = {
            ">=": self.value >= limit,
            ">": self.value > limit,
            "<=": self.value <= limit,
            "<": self.value < limit,
        }[sign]
        return "reached" if reached else "missed"


@dataclass
class Report:
    """What a bench module is given: call it for each figure. `large` asks for what takes very long.

    `more` are the options that only the module knows.
    """

    large: bool = False
    figures: list[Figure] = field(default_factory=list)
    more: Sequence[str] = ()

    def __call__(self, name: str, value: float, unit: str, goal: str = "") -> None:
        """Note a figure. A goal that reads ">= 15,000" or "< 20" is compared with it."""
        figure = Figure(name, value, unit, goal)
        self.figures.append(figure)
        print("  ".join(filter(None, _cells(figure))), flush=True)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(figure: Figure) -> tuple[str, ...]:
    return (figure.name, _number(figure.value), figure.unit, figure.goal, figure.verdict())


def table(figures: Sequence[Figure]) -> str:
    """Return the figures in aligned columns."""
    rows = [("", "value", "unit", "goal", ""), *map(_cells, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column == 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def machine() -> str:
    """Return in a line on what this was measured."""
    model = platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        model = next(
            line.partition(":")[2].strip()
            for line in text.splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        pass
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    cores = os.cpu_count()
    return f"{model}, {cores} cores, load {load}; Python {platform.python_version()}, {platform.system()}"


def names() -> list[str]:
    """Return the modules that measure something."""
    found = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])}
    return sorted(found - MACHINERY)


def measure(name: str, report: Report) -> None:
    """Run one module in this process."""
    # Settings make secrets and folders where they are loaded: not those of `make run`.
    apart = ROOT / "build" / "bench"
    apart.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("KMS_DATA", str(apart / "data"))
    os.environ.setdefault("KMS_ROOT_KEY_PATH", str(apart / "root-key"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "kms_console.settings")
    os.environ.setdefault("LOG_LEVEL", "WARNING")
    import django

    django.setup()
    module = importlib.import_module(f"bench.{name}")
    if report.more and not getattr(module, "TAKES_OPTIONS", False):
        sys.exit(f"{name} has no options {' '.join(report.more)}")
    module.run(report)


def measure_apart(name: str, large: bool) -> list[Figure]:
    """Run one module in a process of its own, so that none inherits another's memory and threads."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "bench", name, "--result", str(result)]
        done = subprocess.run([*command, *(["--large"] if large else [])], cwd=ROOT, check=False)
        if done.returncode != 0 or not result.exists():
            print(f"{name} failed", file=sys.stderr)
            return [Figure(f"{name}: FAILED", float("nan"), "")]
        return [Figure(**row) for row in json.loads(result.read_text(encoding="utf-8"))]


def main() -> int:
    """Run what the command line names, all where it names nothing."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(names()))
    parser.add_argument("--large", action="store_true", help="10 million entries, too: hours")
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options, more = parser.parse_known_args()
    wanted = options.names or names()
    if unknown := set(wanted) - set(names()):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(names())}")
    if more and len(wanted) != 1:
        parser.error(f"only one module at a time is given {' '.join(more)}")
    before = machine()
    if len(wanted) == 1:
        report = Report(options.large, more=more)
        measure(wanted[0], report)
        figures = report.figures
    else:
        figures = [one for name in wanted for one in measure_apart(name, options.large)]
    if options.result is not None:
        options.result.write_text(json.dumps([asdict(one) for one in figures]), encoding="utf-8")
        return 0
    print(f"\n{table(figures)}\n\n{before}")
    return 1 if any(one.value != one.value for one in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
