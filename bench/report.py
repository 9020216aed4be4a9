"""Results: a table to read, and JSON to keep; the result before stands beside each figure."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich.console import Console
from rich.table import Table

FOLDER: Final = Path(__file__).parent / "results"

Figures: TypeAlias = dict[str, float]
"""Figure -> value; the name ends with the unit."""


def median(runs: Sequence[Figures]) -> Figures:
    """Figure by figure."""
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def spread(runs: Sequence[Figures], name: str) -> str:
    values = [run[name] for run in runs]
    return f"{min(values):g} .. {max(values):g}" if len(values) > 1 else ""


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return {
        "cpu": cpu.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "commit": _commit(),
        "at": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
    }


def _commit() -> str:
    """With ``-dirty`` where files are changed; results do not count, for every run writes its own."""
    head = _git("describe", "--always", "--exclude=*") or "unknown"
    changed = _git("status", "--porcelain", "--", ".", f":(exclude){FOLDER}")
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    """What it says; nothing where there is no repository."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def load_previous(name: str) -> Figures:
    path = FOLDER / f"{name}.json"
    figures: Figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    return figures


def conclude(name: str, title: str, runs: Sequence[Figures], before: dict[str, Any]) -> Figures:
    """Print the medians with the previous result beside them, and keep both; ``before``: :func:`machine` at the
    beginning, whose load tells whether the machine was quiet."""
    figures, previous = median(runs), load_previous(name)
    table = Table(title=f"{title} (median of {len(runs)})", title_justify="left")
    table.add_column("figure")
    for heading in ("value", "range", "before"):
        table.add_column(heading, justify="right")
    for figure, value in figures.items():
        table.add_row(figure, f"{value:g}", spread(runs, figure), _shown(previous.get(figure)))
    console = Console(file=sys.stdout, width=110)
    console.print(table)
    console.print(
        f"load average at the start: {before['load_average']}; {before['cpu']}, commit {before['commit']}\n"
    )
    FOLDER.mkdir(exist_ok=True)
    kept = {"name": name, "machine": before, "figures": figures, "previous": previous, "runs": list(runs)}
    (FOLDER / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    return figures


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
