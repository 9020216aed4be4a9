"""How much of the preview dialect is shown, by running it: every golden script and every probe, in every profile.

An obligation is one thing that must be seen of a field (``preview.toml``): that it is there, that it is absent
where it may be, each of its values and types; of a client field, each value that must be accepted and each that
must be refused. A field is covered when all its obligations were met and nothing contradicted them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from preview_table import (
    ORDER,
    TABLE,
    ArrayOf,
    Direction,
    Field,
    Literally,
    MapOf,
    Plain,
    Ref,
    Shape,
    Table,
    load_table,
)
from probes import Bench, Probe, good_values, play, probes

from vivavoce.testing import script as s
from vivavoce.testing.matching import Names
from vivavoce.testing.pure_runner import Frame, PureRunner
from vivavoce.wire.dialects.profiles import transcribes

SCRIPTS: Final = Path(__file__).parent.parent / "scripts"
SAMPLE_TOOLS: Final = [{"type": "function", "name": "f"}]
OTHER_TOOLS: Final = [{"type": "function", "name": "g"}]


@dataclass(slots=True)
class Row:
    """One field, or one object as a whole, in one direction."""

    direction: Direction
    owner: str
    name: str
    missing: list[str] = field(default_factory=list)
    """Obligations that nothing has met, and what was seen instead."""
    met: int = 0

    @property
    def covered(self) -> bool:
        return not self.missing


@dataclass(frozen=True, slots=True)
class Coverage:
    rows: list[Row]
    frames: int
    """Server events held against the table."""
    probes: int
    """Client events made of the table."""
    wrong: list[str]
    """Frames and probes that contradict the table."""


@cache
def measure(path: Path = TABLE, scripts: Path = SCRIPTS) -> Coverage:
    """Run everything; a few seconds. ``path`` is that of the table, ``scripts`` a folder."""
    table = load_table(path)
    seen = _Seen(table)
    for path in sorted(scripts.glob("*.rts")):
        script = s.load(path)
        for profile in ORDER:
            seen.play(script, profile)
    shown: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    count = 0
    for (direction, _), shape in table.events.items():
        if direction == "client":
            for profile in ORDER:
                for probe, problem in run_probes(table, shape, profile, seen.watcher):
                    count += 1
                    shown[probe.row][probe.shows] += [f"{profile}: {problem}"] if problem else []
    for row, problems in _session_defaults(table).items():
        shown[row]["absent: as in the session"] += problems
    rows = [*_client_rows(table, shown), *_server_rows(table, seen)]
    return Coverage(rows, seen.frames, count, seen.wrong)


class _Seen:
    """What the server said."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.marks: set[tuple[str, str, str]] = set()
        """Profile, field, what was seen of it."""
        self.frames = 0
        self.wrong: list[str] = []

    def watcher(self, profile: str, source: str) -> Callable[[Frame], None]:
        def watch(frame: Frame) -> None:
            if not isinstance(frame, str):
                self.frames += 1
                problems = self.table.problems(
                    frame, profile, lambda mark: self.marks.add((profile, str(mark[0]), mark[1]))
                )
                self.wrong += [f"{source}, {profile}: {problem}" for problem in problems]

        return watch

    def play(self, script: s.Script, profile: str) -> None:
        """A script in any profile: what it expects counts in its own only, and there another test looks at it."""
        settings = script.settings
        if settings.intent == "transcription" and not transcribes(profile):
            return  # Nobody is let in.
        native, settings.profile = settings.profile, profile
        runner = PureRunner(settings, script.path.name.encode(), self.watcher(profile, script.path.name))
        settings.profile = native
        names = Names()
        for step in script.steps:
            if step.command is not None and not runner.opened:
                runner.open()
            try:
                play(runner, names, step)
            except (KeyError, ValueError):
                if profile == native:
                    raise
                return  # It rests on an event that this profile does not send.


def run_probes(
    table: Table, event: Shape, profile: str, watcher: Callable[[str, str], Callable[[Frame], None]]
) -> Iterator[tuple[Probe, str | None]]:
    """Each probe of a client event with what is wrong with its answer."""
    watch = watcher(profile, f"probes of {event.name}")

    def bench(intent: str | None) -> Bench:
        return Bench(profile, event.extra.get("setup", ""), intent if transcribes(profile) else None, watch)

    # What is refused changes nothing, so one session does for all of them.
    shared: dict[str | None, Bench] = {}
    for probe in probes(table, event, profile):
        try:
            one = bench(probe.intent) if not probe.refused or probe.intent not in shared else shared[probe.intent]
        except s.ScriptError as error:
            yield probe, str(error)
            continue
        if probe.refused:
            shared[probe.intent] = one
        yield probe, one.problem(probe)


def _session_defaults(table: Table) -> dict[str, list[str]]:
    """Options of a response that stand in for a field of the session: without them, the session's value holds.

    A value must change the plan of a response, and alike, whether it comes by the session or by the option.
    """
    found: dict[str, list[str]] = {}
    for shape in table.of("client"):
        for one in shape.fields.values():
            if "session_field" in one.extra:
                values = [OTHER_TOOLS] if one.name == "tools" else good_values(table, one, ORDER[-1])
                by_session = [_plan({one.extra["session_field"]: value}, {}) for value in values]
                by_option = [_plan({}, {one.name: value}) for value in values if value is not None]
                alike = by_session[: len(by_option)] == by_option
                changes = any(plan != _plan({}, {}) for plan in by_option)
                found[str(one)] = [] if alike and changes else ["the plans of the responses differ"]
    return found


def _plan(session: dict[str, Any], options: dict[str, Any]) -> Any:
    """What a response is asked to be; ``tool_choice`` may name the function of :data:`SAMPLE_TOOLS`."""
    bench = Bench(ORDER[-1])
    tools = {} if "tools" in session or "tools" in options else {"tools": SAMPLE_TOOLS}
    bench.send({"type": "session.update", "session": {**tools, **session}})
    bench.runner.take_effects()
    bench.send({"type": "response.create", "response": options})
    (plan,) = (fields["plan"] for name, fields in bench.runner.take_effects() if name == "StartResponse")
    return plan


def _client_rows(table: Table, shown: dict[str, dict[str, list[str]]]) -> Iterator[Row]:
    for shape in table.of("client"):
        for row, name in [(shape.name, ""), *((str(one), one.name) for one in shape.fields.values())]:
            found = shown.get(row, {})
            missing = [f"{what} ({problems[0]})" for what, problems in found.items() if problems]
            if not any(what.startswith("refused") for what in found):
                missing.append("nothing of it is refused")
            yield Row("client", shape.name, name, missing, len(found) - len(missing))


def _server_rows(table: Table, seen: _Seen) -> Iterator[Row]:
    contradicted = " ".join(seen.wrong)
    for shape in table.of("server"):
        for one in shape.fields.values():
            obligations = list(_server_obligations(one, shape))
            missing = [
                f"{what} in {profile}" if profile else what
                for profile, what in obligations
                if not any((p, str(one), what) in seen.marks for p in ([profile] if profile else ORDER))
            ]
            if f"{one}:" in contradicted:
                missing.append("a frame contradicts it")
            yield Row("server", shape.name, one.name, missing, len(obligations) - len(missing))


def _server_obligations(one: Field, shape: Shape) -> Iterator[tuple[str | None, str]]:
    """Profile, or None where any will do, and the mark that must be seen."""
    for profile in ORDER:
        if one.exists_in(profile) and shape.exists_in(profile) and not one.optional:
            yield profile, "present"
    if one.optional:
        yield None, "present"
        yield None, "absent"
    yield from ((None, value) for value in one.values)
    yield from ((None, mark) for mark in marks_of(one.types))


def marks_of(types: tuple[Any, ...]) -> Iterator[str]:
    """What must be seen of a field with these types."""
    for one in types:
        match one:
            case Literally(text):
                yield text
            case Ref(name):
                yield name
            case Plain("null"):
                yield "null"
            case ArrayOf(items):
                yield "[...]"
                yield from marks_of(items)
            case MapOf():
                yield "{...}"
            case _:
                pass
