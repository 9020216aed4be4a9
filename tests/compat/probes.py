"""Client events made of the table: for every field values that must be accepted, and values that must be refused.

A probe is one client event and what must come of it. :func:`probes` makes those of one profile, :class:`Bench`
sends them to the pure session, behind the codec. The texts of errors that follow from the table are in
``probe_texts``; those that do not stand in the table.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import probe_texts as texts
from preview_table import ArrayOf, Field, Literally, MapOf, Plain, Ref, Shape, Table, Type

from vivavoce.core.ids import Ids
from vivavoce.testing import script as s
from vivavoce.testing.matching import Actual, Closed, Names
from vivavoce.testing.pure_runner import Frame, PureRunner

EVENT_ID: Final = "the_event"
UNKNOWN: Final = "unheard_of"
ABSENT: Final = object()
_SPEECH: Final = "AAAA" * 1600
"""100 ms of pcm16 silence."""
_KINDS: Final[Mapping[str, Any]] = {
    "boolean": True,
    "integer": 3,
    "number": 0.5,
    "string": "nope",
    "array": [],
    "object": {},
}
_FEW: Final = 4096
"""Characters up to which a text of greatest length is sent; longer ones are in golden scripts."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One client event. ``code`` None: it is accepted."""

    row: str
    """The field, ``owner.name``, or the object, ``owner``, that it shows."""
    shows: str
    event: dict[str, Any]
    refused: bool = False
    code: str | None = None
    message: str = ""
    param: str | None = None
    intent: str | None = None
    """The kind of session that it is for, where it is not the usual one."""
    default: tuple[str, Any] | None = None
    """Where the answer must show this value."""


Put: TypeAlias = Callable[[Any], dict[str, Any]]
PutBeside: TypeAlias = Callable[[Any, Mapping[str, Any]], dict[str, Any]]
"""A value, and keys that stand beside it."""
_Bad: TypeAlias = tuple[str, Any, str, str, str]
"""What it shows, the value, the code, the param and the text."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object stands in a client event."""

    path: str
    put: Put

    def key(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def probes(table: Table, event: Shape, profile: str) -> Iterator[Probe]:
    """All probes of a client event in ``profile``."""
    maker = _Maker(table, profile)
    body = {"event_id": EVENT_ID, **maker.base(event)}
    known = [shape.name for shape in table.events.values() if shape.direction == "client"]
    offered = [name for name in known if table.events["client", name].exists_in(profile)]
    if not event.exists_in(profile):
        text = texts.unsupported(event.name, offered)
        yield _refused(event.name, f"unknown to {profile}", body, "invalid_value", "type", text)
        return
    yield Probe(event.name, "accepted", body, intent=event.extra.get("intent"))
    yield from maker.object(event, Place("", lambda keys: {"event_id": EVENT_ID, **keys}), offered)


def good_values(table: Table, field: Field, profile: str) -> list[Any]:
    """Values of a client field that are accepted, the usual one first."""
    return _Maker(table, profile).good(field)


@dataclass(frozen=True, slots=True)
class _Maker:
    table: Table
    profile: str

    # ---------------------------------------------------------------------------------------- good values

    def base(self, shape: Shape) -> dict[str, Any]:
        """The least that is accepted."""
        fields = [f for f in shape.fields.values() if not f.optional or f.extra.get("base")]
        return {field.name: self.good(field)[0] for field in fields if field.exists_in(self.profile)}

    def good(self, field: Field) -> list[Any]:
        """Values that are accepted, the usual one first; null, the edges of a range and every text among them."""
        values: list[Any] = list(field.extra.get("good", ()))
        if not values:
            values = [value for one in field.types for value in self._of_type(one, field)]
        if field.max_length is not None and field.max_length <= _FEW and Plain("string") in field.types:
            values.append("x" * field.max_length)
        if field.nullable and None not in values:
            values.append(None)
        return values

    def _of_type(self, one: Type, field: Field) -> list[Any]:
        match one:
            case Literally(text):
                return [text]
            case Ref(name):
                shape = self.table.shapes["client", name]
                return [self.base(shape)] if shape.exists_in(self.profile) else []
            case ArrayOf(items):
                return [
                    [],
                    *([*self._before(item), value] for item in items for value in self._of_type(item, field)),
                ]
            case MapOf(values):
                return [{}, *({"key": value} for inner in values for value in self._of_type(inner, field))]
            case Plain("string"):
                return list(field.values) or ["some text"]
            case Plain("base64"):
                return [_SPEECH]
            case Plain("integer" | "number"):
                return [limit for limit in (field.min, field.max) if limit is not None] or [1]
            case Plain("boolean"):
                return [True, False]
            case Plain("object"):
                return [{}]
            case _:
                return []

    def _before(self, one: Type) -> list[Any]:
        """What must stand before such an element of an array."""
        before = self.table.shapes["client", one.shape].extra.get("before") if isinstance(one, Ref) else None
        return [before] if before else []

    # -------------------------------------------------------------------------------------------- objects

    def object(self, shape: Shape, place: Place, tags: Sequence[str] = ()) -> Iterator[Probe]:
        """``tags`` are the types of objects that may stand in its place."""
        for probe in self._object(shape, place, tags):
            yield replace(probe, intent=probe.intent or shape.extra.get("intent"))

    def _object(self, shape: Shape, place: Place, tags: Sequence[str]) -> Iterator[Probe]:
        base = self.base(shape)
        yield _unknown(shape.name, "unknown key", place.put({**base, UNKNOWN: 1}), place.key(UNKNOWN))
        for whole in shape.extra.get("also", ()):
            yield Probe(shape.name, f"accepted {json.dumps(whole)}", place.put(whole))
        for bad in shape.extra.get("refused", ()):
            yield _refused(
                shape.name,
                f"refused {json.dumps(bad['value'])}",
                place.put(bad["value"]),
                bad["code"],
                place.path + bad["param"],
                bad["message"].replace("{path}", place.path),
            )
        for field in shape.fields.values():
            if field.name == "type":
                yield from self._tag(shape, place, base, tags)
            elif not field.exists_in(self.profile):
                value = self.good(field)[0] if self.good(field) else None
                event = place.put({**base, field.name: value})
                yield _unknown(str(field), f"unknown to {self.profile}", event, place.key(field.name))
            else:
                yield from self._field(field, place, base)

    def _tag(self, shape: Shape, place: Place, base: dict[str, Any], tags: Sequence[str]) -> Iterator[Probe]:
        row, here = f"{shape.name}.type", place.key("type")
        field = shape.fields["type"]
        yield Probe(row, "accepted", place.put(base))
        text = texts.unsupported("nope", tags or texts.supported(field))
        yield _refused(row, "unknown value", place.put({**base, "type": "nope"}), "invalid_value", here, text)
        text = texts.wrong_type(here, (Plain("string"),), 3)
        yield _refused(row, "integer", place.put({**base, "type": 3}), "invalid_type", here, text)
        without = place.put({key: value for key, value in base.items() if key != "type"})
        if place.path:
            yield _missing(row, without, here)
        else:
            yield _refused(row, "missing", without, "invalid_event", None, texts.UNTYPED)

    def _field(self, field: Field, place: Place, base: dict[str, Any]) -> Iterator[Probe]:
        row, here = str(field), place.key(field.name)

        def put(value: Any, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
            if value is ABSENT:
                return place.put({key: inner for key, inner in base.items() if key != field.name})
            return place.put({**base, **(more or {}), field.name: value})

        for patch in field.extra.get("good_with", ()):
            yield Probe(row, f"accepted {_short(patch[field.name])}", place.put({**base, **patch}))
        if not field.extra.get("good_with"):
            for value in self.good(field):
                beside, intent = self._container(field, value), self._intent(field, value)
                yield Probe(row, f"accepted {_short(value)}", put(value, beside), intent=intent)
        if not field.optional:
            yield _missing(row, put(ABSENT), here)
        elif not field.extra.get("base"):
            default = (here, field.extra.get("default")) if self._shows_default(field) else None
            yield Probe(row, f"absent: {_short(default[1])}" if default else "absent", put(ABSENT), default=default)
        for bad in field.extra.get("bad", ()):
            param = bad.get("param", here) or None
            yield _refused(
                row,
                _short(bad["value"]),
                put(bad["value"]),
                bad.get("code"),
                param,
                bad["message"].replace("{param}", param or ""),
            )
        for shows, value, code, param, text in self._bad(field, here):
            yield _refused(row, shows, put(value), code, param, text)
        for one in field.types:
            yield from self._within(one, field, here, put)

    def _shows_default(self, field: Field) -> bool:
        """The answer shows what the absence of the field means, in this profile."""
        shown = self.table.shapes.get(("server", field.owner))
        known = "default" in field.extra or "default_null" in field.extra
        return known and (shown is None or shown.fields[field.name].needed_in(self.profile))

    def _container(self, field: Field, value: Any) -> Mapping[str, Any]:
        """Keys that stand beside a value because the shape of it needs them."""
        shape = self._shape_of(field, value)
        container: Mapping[str, Any] = shape.extra.get("container", {}) if shape else {}
        return container

    def _intent(self, field: Field, value: Any) -> str | None:
        shape = self._shape_of(field, value)
        return shape.extra.get("intent") if shape else None

    def _shape_of(self, field: Field, value: Any) -> Shape | None:
        """What a value, or the last of an array, is made after."""
        inner = value[-1] if isinstance(value, list) and value else value
        if isinstance(inner, dict):
            for shape in self._shapes(field.types):
                if shape.tag == inner.get("type"):
                    return shape
        return None

    def _tags(self, types: tuple[Type, ...]) -> list[str]:
        """The types of objects that a client is offered here."""
        shapes = [shape for shape in self._shapes(types) if shape.exists_in(self.profile)]
        return [shape.tag for shape in shapes if shape.tag and not shape.extra.get("tolerated")]

    def _shapes(self, types: tuple[Type, ...]) -> Iterator[Shape]:
        for one in types:
            if isinstance(one, Ref):
                yield self.table.shapes["client", one.shape]
            elif isinstance(one, ArrayOf):
                yield from self._shapes(one.items)

    def _within(self, one: Type, field: Field, here: str, put: PutBeside) -> Iterator[Probe]:
        """The probes of the objects that stand in a field."""
        match one:
            case Ref(name):
                shape = self.table.shapes["client", name]
                beside = shape.extra.get("container", {})
                tags = self._tags(field.types)
                if shape.exists_in(self.profile):
                    yield from self.object(shape, Place(here, lambda value: put(value, beside)), tags)
                else:
                    text = texts.unsupported(str(shape.tag), tags)
                    event = put(self.base(shape), beside)
                    yield _refused(name, f"unknown to {self.profile}", event, "invalid_value", f"{here}.type", text)
            case ArrayOf(items):
                for item in items:
                    if isinstance(item, Ref):
                        first = self._before(item)
                        yield from self._within(
                            item, field, f"{here}[{len(first)}]", partial(_put_in_array, put, first)
                        )
            case _:
                pass

    # ----------------------------------------------------------------------------------------- bad values

    def _bad(self, field: Field, here: str) -> Iterator[_Bad]:
        if not field.nullable:
            yield "null", None, "invalid_type", here, texts.wrong_type(here, field.types, None)
        takes = _kinds(field.types)
        for kind, value in _KINDS.items():
            if kind not in takes:
                yield kind, value, "invalid_type", here, texts.wrong_type(here, field.types, value)
            elif kind == "string" and not _takes_any_text(field):
                text = texts.unsupported(value, texts.supported(field))
                yield "unknown value", value, "invalid_value", here, text
        for one in field.types:
            match one:
                case Plain("integer"):
                    yield from _beyond(field, here, "integer", 1)
                case Plain("number"):
                    yield from _beyond(field, here, "decimal", 0.01)
                case Plain("string"):
                    yield from _bad_texts(field, here)
                case Plain("base64"):
                    no_bytes = texts.no_audio(here, "empty bytes")
                    invalid = texts.no_audio(here, "an invalid value")
                    yield "not base64", "!!!!", "invalid_value", here, invalid
                    yield "no bytes", "", "invalid_value", here, no_bytes
                    yield "half a sample", "AAAA", "invalid_value", here, invalid
                case ArrayOf(items):
                    first = f"{here}[0]"
                    yield "integer within", [3], "invalid_type", first, texts.wrong_type(first, items, 3)
                    if all(isinstance(item, Literally) for item in items):
                        text = texts.unsupported("nope", texts.literals(items))
                        yield "unknown value within", ["nope"], "invalid_value", first, text
                case MapOf(values):
                    yield from _bad_maps(field, values, here)
                case _:
                    pass


def _put_in_array(put: PutBeside, first: list[Any], value: Any, beside: Mapping[str, Any]) -> dict[str, Any]:
    return put([*first, value], beside)


def _refused(
    row: str, shows: str, event: dict[str, Any], code: str | None, param: str | None, message: str
) -> Probe:
    return Probe(row, f"refused {shows}: {code}", event, refused=True, code=code, param=param, message=message)


def _unknown(row: str, shows: str, event: dict[str, Any], param: str) -> Probe:
    return _refused(row, shows, event, "unknown_parameter", param, texts.unknown(param))


def _missing(row: str, event: dict[str, Any], param: str) -> Probe:
    return _refused(row, "missing", event, "missing_required_parameter", param, texts.missing(param))


def _kinds(types: tuple[Type, ...]) -> set[str]:
    kinds: set[str] = set()
    for one in types:
        match one:
            case Literally() | Plain("base64"):
                kinds.add("string")
            case Ref() | MapOf():
                kinds.add("object")
            case ArrayOf():
                kinds.add("array")
            case Plain("number"):
                kinds |= {"number", "integer"}
            case Plain(kind):
                kinds.add(kind)
    return kinds


def _takes_any_text(field: Field) -> bool:
    return (Plain("string") in field.types and not field.values) or Plain("base64") in field.types


def _beyond(field: Field, here: str, kind: str, step: float) -> Iterator[_Bad]:
    for limit, value, side in (
        (field.min, (field.min or 0) - step, "below_min"),
        (field.max, (field.max or 0) + step, "above_max"),
    ):
        if limit is not None:
            text = texts.out_of_range(here, kind, limit, value)
            yield f"{value:g}", value, f"{kind}_{side}_value", here, text


def _bad_texts(field: Field, here: str) -> Iterator[_Bad]:
    if field.max_length is not None:
        yield _too_long(f"{field.max_length + 1} characters", here, field.max_length)
    if field.min_length is not None:
        text = texts.wrong_length(here, field.min_length, 0)
        yield "empty", "", "string_below_min_length", here, text
    if field.pattern is not None:
        yield "other characters", "a b", "invalid_value", here, texts.off_pattern(here, field.pattern)


def _too_long(shows: str, here: str, limit: int) -> _Bad:
    return shows, "x" * (limit + 1), "string_above_max_length", here, texts.wrong_length(here, limit, limit + 1)


def _bad_maps(field: Field, values: tuple[Type, ...], here: str) -> Iterator[_Bad]:
    within = f"{here}.key"
    yield "integer within", {"key": 3}, "invalid_type", within, texts.wrong_type(within, values, 3)
    if field.max_pairs is not None:
        pairs = {f"key{i}": "x" for i in range(field.max_pairs + 1)}
        text = texts.too_many(here, field.max_pairs, len(pairs))
        yield f"{len(pairs)} pairs", pairs, "object_above_max_properties", here, text
    if field.key_max_length is not None:
        key = "k" * (field.key_max_length + 1)
        text = texts.wrong_length(f"{here}.{key}", field.key_max_length, len(key))
        yield f"a key of {len(key)} characters", {key: "x"}, "string_above_max_length", f"{here}.{key}", text
    if field.max_length is not None:
        _, value, code, param, text = _too_long("", within, field.max_length)
        yield f"a value of {len(value)} characters", {"key": value}, code, param, text


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


# ------------------------------------------------------------------------------------------------- the bench


class Bench:
    """A pure session on which a setup was played, and its probes."""

    def __init__(
        self, profile: str, setup: str = "", intent: str | None = None, watch: Callable[[Frame], None] | None = None
    ) -> None:
        """Raises ScriptError where scripts know no such session."""
        head = f"# A bench\nprofile {profile}\n" + (f"intent {intent}\n" if intent else "")
        script = s.parse(f"{head}\n{setup}", Path("bench.rts"))
        self.names = Names()
        self.runner = PureRunner(script.settings, b"bench", watch)
        self.greeting = self.runner.open()
        for step in script.steps:
            play(self.runner, self.names, step)
        self.runner.take_effects()

    def send(self, event: dict[str, Any]) -> list[Actual]:
        return self.runner.perform(s.SendEvent(event), self.names)

    def state(self) -> bytes:
        """All that the session is, but for how many ids it has made."""
        written = BytesIO()
        _Snapshot(written).dump(self.runner.session)
        return written.getvalue()

    def problem(self, probe: Probe) -> str | None:
        """What is wrong with the answer. A probe that is refused changes nothing, so the bench is as it was."""
        before = self.state() if probe.refused else b""
        answers = self.send(probe.event)
        asked = [name for name, _ in self.runner.take_effects() if name != "Emit"]
        refusals = [one for one in answers if not isinstance(one, Closed) and one["type"] == "error"]
        if not probe.refused:
            if refusals or any(isinstance(one, Closed) for one in answers):
                return f"refused: {answers}"
            return _default_problem(probe.default, answers) if probe.default else None
        if len(answers) != 1 or not refusals:
            return f"not refused: {[one if isinstance(one, Closed) else one['type'] for one in answers]}"
        error = refusals[0]["error"]
        event_id = probe.event.get("event_id")
        wanted = {
            "type": "invalid_request_error",
            "code": probe.code,
            "message": probe.message,
            "param": probe.param,
            "event_id": event_id if isinstance(event_id, str) and len(event_id) <= 512 else None,
        }
        if error != wanted:
            return f"expected {wanted}, got {error}"
        if asked or self.state() != before:
            return f"it changed something{f', and asked for {asked}' if asked else ''}"
        return None


class _Snapshot(pickle.Pickler):
    """A session as bytes: the same bytes, the same session."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, Ids):
            return Ids, (b"",)
        if isinstance(value, MappingProxyType):
            return dict, (dict(value),)
        if isinstance(value, KeysView):
            return tuple, (tuple(value),)
        return NotImplemented


def play(runner: PureRunner, names: Names, step: s.Step) -> list[Actual]:
    """One step of a script, whose expectations only give names to what came."""
    actual = runner.open() if step.command is None else runner.perform(step.command, names)
    for wanted in step.expected:
        if isinstance(wanted, s.ExpectEvent):
            for event in actual:
                if isinstance(event, dict) and event["type"] == wanted.type:
                    names.mismatch(wanted.pattern, event)
                    break
    return actual


def _default_problem(default: tuple[str, Any], answers: list[Actual]) -> str | None:
    path, wanted = default
    shown: Any = answers[0]
    for key in path.split("."):
        if not isinstance(shown, dict) or key not in shown:
            return f"{path} is not shown"
        shown = shown[key]
    if isinstance(wanted, dict) and isinstance(shown, dict):
        # Older profiles show fewer keys.
        shown = {key: value for key, value in shown.items() if key in wanted}
        wanted = {key: value for key, value in wanted.items() if key in shown or key == "type"}
    return None if shown == wanted else f"{path} is {shown!r}, not {wanted!r}"
