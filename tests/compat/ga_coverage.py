"""The GA dialect as its table has it, and as the golden scripts show it.

Every frame of both sides in every script that runs in GA is held against ``ga.toml``; a field is covered when it
was seen with each of its types and values, null where it may be, and absent where it may be. Of clients, the events
count that are taken. A client field must moreover be shown by its probes (``probes``), which are played in both
profiles: values that are accepted, and values that are refused.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from preview_coverage import marks_of, run_probes
from preview_table import Direction, Field, Table, load_table

from vivavoce.testing.in_ga import in_ga
from vivavoce.testing.pure_runner import Frame, run_pure
from vivavoce.testing.script import Script, load
from vivavoce.wire.dialects.profiles import GA_PROFILES

GA_TABLE: Final = Path(__file__).with_name("ga.toml")
SCRIPTS: Final = Path(__file__).parent.parent / "scripts"


@dataclass(frozen=True, slots=True)
class GaCoverage:
    missing: dict[str, list[str]]
    """By direction and field (or object, for what is true of it as a whole), what of it was not seen; empty lists
    where all was."""
    wrong: list[str]
    """Frames that contradict the table."""
    refused: dict[str, int]
    """By client field or object, ways to get it wrong, each refused by its error and without any change."""


def ga_scripts() -> Iterator[tuple[str, Script]]:
    for path in sorted(SCRIPTS.rglob("*.rts")):
        script = load(path)
        if script.settings.is_ga:
            yield f"ga/{path.stem}", script
        elif script.settings.both:
            yield path.stem, in_ga(script)


@cache
def measure_ga() -> GaCoverage:
    """Run everything; a few seconds."""
    return measure(load_table(GA_TABLE), ga_scripts())


def measure(table: Table, scripts: Iterable[tuple[str, Script]]) -> GaCoverage:
    seen = _Seen(table)
    for name, script in scripts:
        frames: list[Frame] = []
        run_pure(script, frames.append)
        for frame, answer in zip(frames, [*frames[1:], None], strict=True):
            if not isinstance(frame, str):
                seen.note(name, script.settings.profile, "server", frame)
            elif not (isinstance(answer, dict) and answer["type"] == "error"):
                seen.note(name, script.settings.profile, "client", json.loads(frame))
    missing = dict(_rows(table, seen.marks))
    shown: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for (direction, _), event in table.events.items():
        for profile in GA_PROFILES if direction == "client" else ():
            for probe, problem in run_probes(table, event, profile, seen.watcher):
                shown[probe.row][probe.shows] += [f"{profile}: {problem}"] if problem else []
    for row in [name for shape in table.of("client") for name in (shape.name, *map(str, shape.fields.values()))]:
        found = shown[row]
        problems = [f"{what} ({why[0]})" for what, why in found.items() if why]
        if not any(what.startswith("refused") for what in found):
            problems.append("nothing of it is refused")
        missing[f"client {row}"] = [*missing.get(f"client {row}", ()), *problems]
    refused = {row: sum(what.startswith("refused") for what in found) for row, found in shown.items()}
    return GaCoverage(missing, seen.wrong, refused)


class _Seen:
    """What both sides said."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.marks: set[tuple[str, str, str]] = set()
        """Direction, field, what was seen of it."""
        self.wrong: list[str] = []

    def note(self, source: str, profile: str, direction: Direction, event: dict[str, Any]) -> None:
        problems = self._table.problems(
            event, profile, lambda mark: self.marks.add((direction, str(mark[0]), mark[1])), direction
        )
        self.wrong += [f"{source}: {problem}" for problem in problems]

    def watcher(self, profile: str, source: str) -> Callable[[Frame], None]:
        """What is said to probes must be as the table has it, and shows nothing beyond that."""

        def watch(frame: Frame) -> None:
            if not isinstance(frame, str):
                self.wrong += [f"{source}: {problem}" for problem in self._table.problems(frame, profile)]

        return watch


def _rows(table: Table, marks: set[tuple[str, str, str]]) -> Iterator[tuple[str, list[str]]]:
    directions: tuple[Direction, ...] = ("client", "server")
    for direction in directions:
        for shape in table.of(direction):
            for one in shape.fields.values():
                missing = [what for what in _obligations(one) if (direction, str(one), what) not in marks]
                yield f"{direction} {one}", missing


def _obligations(one: Field) -> Iterator[str]:
    yield "present"
    if one.optional and one.always_since is None:
        yield "absent"
    yield from one.values
    yield from marks_of(one.types)
