"""Showing a difference to people, and to programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from vivavoce.record.compare import Difference
from vivavoce.record.recording import Recording

_SHOWN: Final = 160
_PLACES: Final = 8
_STYLE: Final = {"missing": "red", "missing key": "red", "extra": "green", "extra key": "green"}


def show(
    console: Console, differences: Sequence[Difference], notes: Sequence[str], recorded: Recording, now: Recording
) -> None:
    """A line for each difference, with all the places where it is, then one that counts them."""
    for note in notes:
        console.print(Text(f"note: {note}", style="dim"), soft_wrap=True)
    groups: dict[object, list[Difference]] = {}
    for difference in differences:
        groups.setdefault(_what(difference), []).append(difference)
    for group in groups.values():
        style = _STYLE.get(group[0].kind, "yellow")
        console.print(Text(f"{_places(group)}: {told(group[0])}", style=style), soft_wrap=True)
    console.print(Text(_sum(differences, recorded, now)), soft_wrap=True)


def _what(difference: Difference) -> object:
    """Equal for what is told in one line."""
    said = (difference.recorded, difference.now) if difference.kind == "value" else ()
    return (
        difference.kind, difference.event, difference.path, difference.after, difference.now_after, json.dumps(said)
    )  # fmt: skip


def _places(group: Sequence[Difference]) -> str:
    lines = [str(difference.line) for difference in group if difference.line is not None]
    if not lines:
        return "now" if len(group) == 1 else f"now, {len(group)} times"
    shown = ", ".join(lines[:_PLACES]) + (f" and {len(lines) - _PLACES} more" if len(lines) > _PLACES else "")
    return f"line{'s' if len(lines) > 1 else ''} {shown}"


def told(difference: Difference) -> str:
    """``response.done response.status: was "completed", is "failed"``"""
    what = difference.event
    match difference.kind:
        case "missing":
            return f"{what} is missing now (recorded {_after(difference.after)})"
        case "extra":
            return f"{what} was not recorded (now {_after(difference.after)})"
        case "order":
            return f"{what} moved: recorded {_after(difference.after)}, now {_after(difference.now_after)}"
        case "missing key":
            return f"{what} {difference.path} is missing now, was {_shown(difference.recorded)}"
        case "extra key":
            return f"{what} {difference.path} was not recorded, is {_shown(difference.now)}"
        case "value":
            return f"{what} {difference.path}: was {_shown(difference.recorded)}, is {_shown(difference.now)}"


def _after(kind: str | None) -> str:
    return "first of its source" if kind is None else f"after {kind}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _sum(differences: Sequence[Difference], recorded: Recording, now: Recording) -> str:
    number = len(differences)
    found = "no difference" if not number else f"{number} difference{'s' if number > 1 else ''}"
    return f"{found}: {len(recorded.of('server'))} server messages were recorded, {len(now.of('server'))} came"


def as_json(differences: Sequence[Difference], notes: Sequence[str], recorded: Recording, now: Recording) -> str:
    """The same as one JSON object."""
    value = {
        "differences": [
            {key: inner for key, inner in asdict(difference).items() if inner is not None and inner != ""}
            for difference in differences
        ],
        "notes": list(notes),
        "recorded_messages": len(recorded.of("server")),
        "messages": len(now.of("server")),
    }
    return json.dumps(value)
