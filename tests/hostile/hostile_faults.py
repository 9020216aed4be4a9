"""Client events as the protocol describes them, in a notation of our own, and faults planted in valid ones.

A fault knows how the server must answer it: code, ``param``, and the class in which it is looked for - unknown
keys, then missing keys, then types, then ranges (protocol section 6).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from typing import Any, Final, TypeAlias

UNKNOWN_KEYS: Final = ("bogus", "Type", "", "audio.input", "\u00fc", "x" * 40)
WRONG: Final[tuple[Any, ...]] = (None, True, 7, 0.25, "nope", [], {}, [1], {"a": None}, "")


class Phase(IntEnum):
    UNKNOWN = 0
    MISSING = 1
    TYPE = 2
    RANGE = 3


@dataclass(frozen=True)
class Fault:
    phase: Phase
    code: str
    param: str
    plant: Callable[[], object]


@dataclass(frozen=True)
class Text:
    most: int | None = None
    least: int = 0
    one_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Number:
    least: float | None = None
    most: float | None = None
    whole: bool = False
    or_inf: bool = False


@dataclass(frozen=True)
class Flag:
    pass


@dataclass(frozen=True)
class Array:
    of: Shape


@dataclass(frozen=True)
class Object:
    fields: Mapping[str, Shape]
    required: frozenset[str] = frozenset()
    nullable: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ByType:
    """An object whose ``type`` says which."""

    options: Mapping[str, Object]


@dataclass(frozen=True)
class Free:
    """Any JSON, or a shape with more than one form: no fault is planted within."""


Shape: TypeAlias = Text | Number | Flag | Array | Object | ByType | Free


def _object(required: str = "", nullable: str = "", /, **fields: Shape) -> Object:
    return Object(fields, frozenset(required.split()), frozenset(nullable.split()))


_STRING: Final = Text()
_LONG: Final = Text(most=1_048_576)
_VOICE: Final = Text(one_of=("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"))
_FORMAT: Final = Text(one_of=("pcm16", "g711_ulaw", "g711_alaw"))
_TOKENS: Final = Number(1, 4096, whole=True, or_inf=True)
_TEMPERATURE: Final = Number(0.6, 1.2)
_TOOL: Final = _object(
    "type name",
    "description parameters",
    type=Text(one_of=("function",)),
    name=Text(most=64, least=1),
    description=Text(most=1024),
    parameters=Free(),
)
_VAD: Final = ByType(
    {
        "none": _object("type", type=_STRING),
        "server_vad": _object(
            "type",
            type=_STRING,
            threshold=Number(0, 1),
            prefix_padding_ms=Number(0, 5000, whole=True),
            silence_duration_ms=Number(0, 1_800_000, whole=True),
            create_response=Flag(),
        ),
    }
)
_SESSION: Final = _object(
    "",
    "turn_detection input_audio_transcription",
    model=_STRING,
    modalities=Array(Text(one_of=("text", "audio"))),
    instructions=_LONG,
    voice=_VOICE,
    input_audio_format=_FORMAT,
    output_audio_format=_FORMAT,
    input_audio_transcription=_object("", "language prompt", model=_STRING, language=_STRING, prompt=_LONG),
    turn_detection=_VAD,
    tools=Array(_TOOL),
    tool_choice=Free(),
    temperature=_TEMPERATURE,
    max_response_output_tokens=_TOKENS,
)
_PART: Final = ByType(
    {
        "input_text": _object("type text", type=_STRING, text=_LONG),
        "input_audio": _object("type", "transcript", type=_STRING, audio=_STRING, transcript=_LONG),
        "text": _object("type text", type=_STRING, text=_LONG),
    }
)
_ITEM_COMMON: Final[dict[str, Shape]] = {
    "id": Text(most=32, least=1),
    "object": Text(one_of=("realtime.item",)),
    "type": _STRING,
    "status": Text(one_of=("completed", "incomplete", "in_progress")),
}
_ITEM: Final = ByType(
    {
        "message": _object(
            "type role content",
            "id",
            **_ITEM_COMMON,
            role=Text(one_of=("system", "user", "assistant")),
            content=Array(_PART),
        ),
        "function_call": _object(
            "type name arguments", "id", **_ITEM_COMMON, call_id=_STRING, name=_STRING, arguments=_LONG
        ),
        "function_call_output": _object("type call_id output", "id", **_ITEM_COMMON, call_id=_STRING, output=_LONG),
    }
)
_RESPONSE: Final = _object(
    "",
    "instructions metadata",
    modalities=Array(Text(one_of=("text", "audio"))),
    instructions=_LONG,
    voice=_VOICE,
    output_audio_format=_FORMAT,
    tools=Array(_TOOL),
    tool_choice=Free(),
    temperature=_TEMPERATURE,
    max_output_tokens=_TOKENS,
    conversation=Text(one_of=("auto", "none")),
    metadata=Free(),
    input=Free(),
    commit=Flag(),
    cancel_previous=Flag(),
)


def _event(required: str = "", nullable: str = "", /, **fields: Shape) -> Object:
    return _object(f"type {required}", f"event_id {nullable}", type=_STRING, event_id=Text(most=512), **fields)


EVENTS: Final = {
    "session.update": _event("session", session=_SESSION),
    "input_audio_buffer.append": _event("audio", audio=_STRING),
    "input_audio_buffer.commit": _event(),
    "input_audio_buffer.clear": _event(),
    "conversation.item.create": _event("item", "previous_item_id", item=_ITEM, previous_item_id=_STRING),
    "conversation.item.delete": _event("item_id", item_id=_STRING),
    "conversation.item.retrieve": _event("item_id", item_id=_STRING),
    "conversation.item.truncate": _event(
        "item_id content_index audio_end_ms",
        item_id=_STRING,
        content_index=Number(0, whole=True),
        audio_end_ms=Number(0, whole=True),
    ),
    "response.create": _event("", "response", response=_RESPONSE),
    "response.cancel": _event("", "response_id", response_id=_STRING),
}


@dataclass
class _Finder:
    found: list[Fault] = field(default_factory=list)

    def look(self, value: Any, shape: Shape, path: str) -> None:
        match shape:
            case Object():
                self._object(value, shape, path)
            case ByType():
                self._object(value, shape.options[value["type"]], path)
            case Array():
                for i, one in enumerate(value):
                    self._wrong(value, i, shape.of, f"{path}[{i}]", nullable=False)
                    self.look(one, shape.of, f"{path}[{i}]")
            case _:
                return

    def _object(self, value: dict[str, Any], shape: Object, path: str) -> None:
        for key in UNKNOWN_KEYS:
            self._add(Phase.UNKNOWN, "unknown_parameter", _join(path, key), partial(value.update, {key: 1}))
        for key, inner in shape.fields.items():
            at = _join(path, key)
            if key in value:
                if key in shape.required and at != "type":
                    self._add(Phase.MISSING, "missing_required_parameter", at, partial(value.pop, key))
                if key != "type" or not isinstance(inner, Text) or inner.one_of:
                    self._wrong(value, key, inner, at, nullable=key in shape.nullable)
                if value[key] is not None:
                    self.look(value[key], inner, at)

    def _wrong(self, holder: Any, key: Any, shape: Shape, path: str, *, nullable: bool) -> None:
        for wrong, phase, code in _wrong_values(shape):
            if not (nullable and wrong is None):
                self._add(phase, code, path, partial(_put, holder, key, wrong))

    def _add(self, phase: Phase, code: str, param: str, plant: Callable[[], object]) -> None:
        self.found.append(Fault(phase, code, param, plant))


def _put(holder: Any, key: Any, value: Any) -> None:
    holder[key] = copy.deepcopy(value)


def _wrong_values(shape: Shape) -> Iterator[tuple[Any, Phase, str]]:
    for wrong in WRONG:
        match shape:
            case Text():
                if not isinstance(wrong, str):
                    yield wrong, Phase.TYPE, "invalid_type"
                elif shape.one_of:
                    yield wrong, Phase.TYPE, "invalid_value"
            case Number():
                number = isinstance(wrong, int | float) and not isinstance(wrong, bool)
                if shape.or_inf and isinstance(wrong, str):
                    yield wrong, Phase.TYPE, "invalid_value"
                elif not number or (shape.whole and isinstance(wrong, float)):
                    yield wrong, Phase.TYPE, "invalid_type"
            case Flag() if not isinstance(wrong, bool):
                yield wrong, Phase.TYPE, "invalid_type"
            case Array() if not isinstance(wrong, list):
                yield wrong, Phase.TYPE, "invalid_type"
            case Object() | ByType() if not isinstance(wrong, dict):
                yield wrong, Phase.TYPE, "invalid_type"
            case _:
                pass
    match shape:
        case Text() if shape.most is not None and shape.most < 2000:
            yield "x" * (shape.most + 1), Phase.RANGE, "string_above_max_length"
            if shape.least:
                yield "", Phase.RANGE, "string_below_min_length"
        case Number():
            kind, step = ("integer", 1) if shape.whole else ("decimal", 0.001)
            for limit, side, sign in ((shape.least, "below_min", -1), (shape.most, "above_max", 1)):
                if limit is not None:
                    yield limit + sign * step, Phase.RANGE, f"{kind}_{side}_value"
                    yield sign * 10**18, Phase.RANGE, f"{kind}_{side}_value"
        case _:
            pass


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def plant(event: dict[str, Any], first: int, second: int | None) -> tuple[dict[str, Any], Fault] | None:
    """A copy of a valid event with one fault, or with two of different classes; and the one to be named."""
    event = copy.deepcopy(event)
    finder = _Finder()
    finder.look(event, EVENTS[event["type"]], "")
    if not finder.found:
        return None
    chosen = finder.found[first % len(finder.found)]
    others = [
        other
        for other in finder.found
        if other.phase is not chosen.phase and not _related(other.param, chosen.param)
    ]
    faults = [chosen] if second is None or not others else [chosen, others[second % len(others)]]
    for fault in faults:
        fault.plant()
    return event, min(faults, key=lambda fault: fault.phase)


def _related(one: str, other: str) -> bool:
    """One stands within the other, or both in one array: planting one could take away the other."""
    return one.startswith(other) or other.startswith(one) or "[" in one + other
