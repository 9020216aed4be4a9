"""A dialect as a table, and a strict validator of events made of it.

``preview.toml`` and ``ga.toml`` say what exists; nothing here knows an event by name. :meth:`Table.problems`
compares one event with the table: unknown keys, missing keys, types, values and ranges, as a profile has them.
"""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from vivavoce.wire.dialects.profiles import GA_PROFILES, PROFILES

TABLE: Final = Path(__file__).with_name("preview.toml")
ORDER: Final = tuple(PROFILES)
"""Profiles, oldest first."""

Direction: TypeAlias = Literal["client", "server"]
Scalar: TypeAlias = Literal["string", "integer", "number", "boolean", "null", "base64", "object"]
_SCALARS: Final = ("string", "integer", "number", "boolean", "null", "base64", "object")


# ---------------------------------------------------------------------------------------------- the types


@dataclass(frozen=True, slots=True)
class Plain:
    """Any value of a JSON type; ``base64`` is a string, ``object`` has keys that the protocol does not name."""

    kind: Scalar


@dataclass(frozen=True, slots=True)
class Literally:
    text: str


@dataclass(frozen=True, slots=True)
class Ref:
    """A shape of the table."""

    shape: str


@dataclass(frozen=True, slots=True)
class ArrayOf:
    items: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    values: tuple[Type, ...]


Type: TypeAlias = Plain | Literally | Ref | ArrayOf | MapOf


def parse_type(text: str) -> tuple[Type, ...]:
    """``"Transcription | null"`` -> its alternatives."""
    return tuple(_alternative(part) for part in _split(text))


def _split(text: str) -> Iterator[str]:
    depth, start = 0, 0
    for i, letter in enumerate(text):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "|" and depth == 0:
            yield text[start:i].strip()
            start = i + 1
    yield text[start:].strip()


def _alternative(text: str) -> Type:
    if text.startswith("["):
        return ArrayOf(parse_type(text[1:-1]))
    if text.startswith("{"):
        return MapOf(parse_type(text[1:-1]))
    if text.startswith("'"):
        return Literally(text[1:-1])
    for kind in _SCALARS:
        if text == kind:
            return Plain(kind)
    return Ref(text)


# ---------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Field:
    """One line of the table."""

    owner: str
    """The event or shape that it is a key of."""
    name: str
    types: tuple[Type, ...]
    optional: bool = False
    since: str = ORDER[0]
    """First profile that knows it."""
    always_since: str | None = None
    """First profile in which it is not optional."""
    values: tuple[str, ...] = ()
    pattern: str | None = None
    min: float | None = None
    max: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    max_pairs: int | None = None
    key_max_length: int | None = None
    difference: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What says how to show it: ``good``, ``bad``, ``default`` and so on."""

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}"

    def exists_in(self, profile: str) -> bool:
        return reaches(profile, self.since)

    def needed_in(self, profile: str) -> bool:
        """It must be there."""
        return not self.optional or (self.always_since is not None and reaches(profile, self.always_since))

    @property
    def nullable(self) -> bool:
        return Plain("null") in self.types


@dataclass(frozen=True, slots=True)
class Shape:
    """An event, or an object within events."""

    name: str
    direction: Direction
    fields: Mapping[str, Field]
    since: str = ORDER[0]
    extra: Mapping[str, Any] = field(default_factory=dict)
    """``setup`` of an event; ``container``, ``also``, ``refused`` of an object."""

    def exists_in(self, profile: str) -> bool:
        return reaches(profile, self.since)

    @property
    def tag(self) -> str | None:
        """The one value of ``type``, where there is one."""
        field_ = self.fields.get("type")
        literal = field_.types[0] if field_ else None
        return literal.text if isinstance(literal, Literally) else None


def reaches(profile: str, since: str) -> bool:
    """``profile`` is ``since`` or later, in its dialect."""
    order = tuple(GA_PROFILES) if profile in GA_PROFILES else ORDER
    return since == ORDER[0] or order.index(profile) >= order.index(since)


Mark: TypeAlias = tuple[Field, str]
"""A field, and what was seen of it: ``present``, ``absent``, ``null``, or a text of ``values``."""


@dataclass(frozen=True, slots=True)
class Table:
    """Both directions; events are shapes that are found by their ``type``."""

    events: Mapping[tuple[Direction, str], Shape]
    shapes: Mapping[tuple[Direction, str], Shape]

    def of(self, direction: Direction) -> list[Shape]:
        """The events, then the shapes."""
        both = (*self.events.values(), *self.shapes.values())
        return [shape for shape in both if shape.direction == direction]

    def problems(
        self,
        event: Any,
        profile: str,
        mark: Callable[[Mark], None] | None = None,
        direction: Direction = "server",
    ) -> list[str]:
        """What is wrong with an event of ``profile``; empty if nothing is. ``mark`` is told what was seen of it."""
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            return [f"no event: {_shown(event)}"]
        shape = self.events.get((direction, event["type"]))
        if shape is None or not shape.exists_in(profile):
            return [f"{profile} has no event {event['type']}"]
        reading = _Reading(self, direction, profile, mark or (lambda _: None))
        return list(reading.object(event, shape, event["type"]))


@cache
def load_table(path: Path = TABLE) -> Table:
    """The table of a dialect, unless given of the preview. Raises ValueError when it contradicts itself."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    events: dict[tuple[Direction, str], Shape] = {}
    shapes: dict[tuple[Direction, str], Shape] = {}
    directions: tuple[Direction, ...] = ("client", "server")
    for direction in directions:
        of_every = raw[direction]["every_event"]
        for name, lines in raw[direction]["event"].items():
            extra = {key: lines.pop(key) for key in ("since", "setup", "intent") if key in lines}
            all_lines = {"type": {"is": f"'{name}'"}, **of_every, **lines}
            events[direction, name] = _shape(name, direction, all_lines, extra)
        for name, body in raw[direction]["shape"].items():
            shapes[direction, name] = _shape(name, direction, body.pop("fields"), body)
    table = Table(events, shapes)
    for shape in (*events.values(), *shapes.values()):
        for field_ in shape.fields.values():
            for named in _refs(field_.types):
                if (shape.direction, named) not in shapes:
                    raise ValueError(f"{field_}: there is no {shape.direction} shape {named}")
    return table


def _shape(name: str, direction: Direction, lines: Mapping[str, Any], extra: dict[str, Any]) -> Shape:
    since = extra.pop("since", ORDER[0])
    return Shape(name, direction, {key: _field(name, key, line) for key, line in lines.items()}, since, extra)


_LIMITS: Final = (
    "optional", "since", "always_since", "pattern", "min", "max", "min_length", "max_length", "max_pairs",
    "key_max_length", "difference",
)  # fmt: skip
_HINTS: Final = ("default", "default_null", "good", "good_with", "bad", "base", "session_field")


def _field(owner: str, name: str, line: Mapping[str, Any]) -> Field:
    unknown = line.keys() - {"is", "values", *_LIMITS, *_HINTS}
    if unknown:
        raise ValueError(f"{owner}.{name}: no such key of a field: {', '.join(unknown)}")
    limits = {key: line[key] for key in _LIMITS if key in line}
    hints = {key: line[key] for key in _HINTS if key in line}
    return Field(owner, name, parse_type(line["is"]), values=tuple(line.get("values", ())), extra=hints, **limits)


def _refs(types: tuple[Type, ...]) -> Iterator[str]:
    for one in types:
        match one:
            case Ref(shape):
                yield shape
            case ArrayOf(inner) | MapOf(inner):
                yield from _refs(inner)
            case _:
                pass


# ------------------------------------------------------------------------------------------- the validator


def json_type(value: Any) -> str:
    """``null``, ``boolean``, ``integer``, ``number``, ``string``, ``array`` or ``object``."""
    names = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


@dataclass(frozen=True, slots=True)
class _Reading:
    """One event, read as one profile has it. Each method yields what is wrong."""

    table: Table
    direction: Direction
    profile: str
    mark: Callable[[Mark], None]

    def object(self, value: dict[str, Any], shape: Shape, path: str) -> Iterator[str]:
        for key in value.keys() - shape.fields.keys():
            yield f"{path}.{key}: no such key"
        for name, field_ in shape.fields.items():
            here = f"{path}.{name}"
            if name not in value:
                if field_.exists_in(self.profile):
                    self.mark((field_, "absent"))
                    if field_.needed_in(self.profile):
                        yield f"{here}: missing"
            elif not field_.exists_in(self.profile):
                yield f"{here}: {self.profile} has no such key"
            else:
                self.mark((field_, "present"))
                yield from self._value(value[name], field_.types, field_, here)

    def _value(self, value: Any, types: tuple[Type, ...], field_: Field, path: str) -> Iterator[str]:
        fitting = next((one for one in types if self._fits(value, one)), None)
        match fitting:
            case None:
                yield f"{path}: {json_type(value)} is none of its types: {_shown(value)}"
            case Plain("null"):
                self.mark((field_, "null"))
            case Ref(name):
                shape = self.table.shapes[self.direction, name]
                if not shape.exists_in(self.profile):
                    yield f"{path}: {self.profile} has no {name}"
                self.mark((field_, name))
                yield from self.object(value, shape, path)
            case ArrayOf(items):
                self.mark((field_, "[...]" if value else "[]"))
                for i, one in enumerate(value):
                    yield from self._value(one, items, field_, f"{path}[{i}]")
            case MapOf(values):
                yield from self._map(value, values, field_, path)
            case Literally(text):
                self.mark((field_, text))
            case Plain(kind):
                yield from self._plain(value, kind, field_, path)

    def _fits(self, value: Any, one: Type) -> bool:
        match one:
            case Plain("base64"):
                return isinstance(value, str)
            case Plain("number"):
                return json_type(value) in ("number", "integer")
            case Plain(kind):
                return json_type(value) == kind
            case Literally(text):
                return bool(value == text)
            case Ref(name):
                tag = self.table.shapes[self.direction, name].tag
                return isinstance(value, dict) and (tag is None or value.get("type") == tag)
            case ArrayOf():
                return isinstance(value, list)
            case MapOf():
                return isinstance(value, dict)

    def _map(self, value: dict[str, Any], types: tuple[Type, ...], field_: Field, path: str) -> Iterator[str]:
        if field_.max_pairs is not None and len(value) > field_.max_pairs:
            yield f"{path}: {len(value)} pairs"
        self.mark((field_, "{...}" if value else "{}"))
        for key, inner in value.items():
            if field_.key_max_length is not None and len(key) > field_.key_max_length:
                yield f"{path}: a key of {len(key)} characters"
            yield from self._value(inner, types, field_, f"{path}.{key}")

    def _plain(self, value: Any, kind: Scalar, field_: Field, path: str) -> Iterator[str]:
        if field_.values:
            self.mark((field_, value))
            if value not in field_.values:
                yield f"{path}: {_shown(value)} is none of its values"
        if kind == "base64" and not _is_base64(value):
            yield f"{path}: no base64: {_shown(value)}"
        if isinstance(value, str):
            if field_.pattern is not None and re.search(field_.pattern, value) is None:
                yield f"{path}: {_shown(value)} does not match {field_.pattern}"
            if not (field_.min_length or 0) <= len(value) <= (field_.max_length or len(value)):
                yield f"{path}: a text of {len(value)} characters"
        if isinstance(value, int | float) and not isinstance(value, bool):
            low, high = field_.min, field_.max
            if (low is not None and value < low) or (high is not None and value > high):
                yield f"{path}: {value} is out of range"


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
