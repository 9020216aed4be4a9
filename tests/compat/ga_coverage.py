"""The GA dialect as its table has it, and as the golden scripts show it.

Every frame of both sides in every script that runs in GA is held against ``ga.toml``; a field is covered when it
was seen with each of its types and values, null where it may be, and absent where it may be. Of clients, the events
count that the codec takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from preview_coverage import marks_of
from preview_table import Field, Table, load_table

from vivavoce.testing.in_ga import in_ga
from vivavoce.testing.pure_runner import Frame, run_pure
from vivavoce.testing.script import Script, load
from vivavoce.wire.client_events import Rejected
from vivavoce.wire.codec import ga_codec

GA_TABLE: Final = Path(__file__).with_name("ga.toml")
SCRIPTS: Final = Path(__file__).parent.parent / "scripts"
_CODEC: Final = ga_codec("openai-ga")


@dataclass(frozen=True, slots=True)
class GaCoverage:
    missing: dict[str, list[str]]
    """By direction and field, what of it was not seen; empty lists where all was."""
    wrong: list[str]
    """Frames that contradict the table."""


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
    table = load_table(GA_TABLE)
    marks: set[tuple[str, str, str]] = set()
    wrong: list[str] = []
    for name, script in ga_scripts():
        profile = script.settings.profile

        def watch(frame: Frame, name: str = name, profile: str = profile) -> None:
            direction: Any = "client" if isinstance(frame, str) else "server"
            if isinstance(frame, str) and isinstance(_CODEC.decode(frame), Rejected):
                return
            event = json.loads(frame) if isinstance(frame, str) else frame
            problems = table.problems(
                event, profile, lambda mark: marks.add((direction, str(mark[0]), mark[1])), direction
            )
            wrong.extend(f"{name}: {problem}" for problem in problems)

        run_pure(script, watch)
    return GaCoverage(dict(_rows(table, marks)), wrong)


def _rows(table: Table, marks: set[tuple[str, str, str]]) -> Iterator[tuple[str, list[str]]]:
    for direction in ("client", "server"):
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
