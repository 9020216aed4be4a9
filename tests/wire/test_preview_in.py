"""Every field of every client event of the preview dialect: what is accepted, and the exact fault of what is not.

:data:`FIELDS` says by hand what the protocol says of each field; the cases are made from it.
"""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

import msgspec.inspect as mi
import pytest
from msgspec import UNSET

from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import session_config as sc
from vivavoce.wire.codec import preview_codec
from vivavoce.wire.dialects import preview_shapes as shapes
from vivavoce.wire.dialects.profiles import PROFILES
from vivavoce.wire.dialects.shapes import APPEND_LIMIT
from vivavoce.wire.errors import ErrorBody

CODEC: Final = preview_codec("azure-2025-04")
CODEC_OCTOBER: Final = preview_codec("azure-2024-10-01")
CODEC_DECEMBER: Final = preview_codec("azure-2024-12-17")

CLIENT_EVENTS: Final = (
    "session.update",
    "input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.delete",
    "conversation.item.truncate",
    "response.create",
    "response.cancel",
)
LATER_CLIENT_EVENTS: Final = (
    CLIENT_EVENTS[0],
    "transcription_session.update",
    *CLIENT_EVENTS[1:7],
    "conversation.item.retrieve",
    *CLIENT_EVENTS[7:],
)

VOICES: Final = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse")
FORMATS: Final = ("pcm16", "g711_ulaw", "g711_alaw")
STATUSES: Final = ("completed", "incomplete", "in_progress")


@dataclass(frozen=True)
class Field:
    """What the protocol says of one field."""

    kind: str
    """string, integer, decimal, boolean, array, object, null, enum, any."""
    required: bool = False
    nullable: bool = False
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    shortest: int | None = None
    longest: int | None = None
    expected: str = ""
    """How a fault of type names what it wants, where that is not the kind."""
    also: tuple[str, ...] = ()
    """Further JSON types that fit."""
    closed: bool = True
    """An object whose keys are all known."""
    pattern: str = ""


def text(**rules: Any) -> Field:
    return Field("string", **rules)


def enum(*values: str, **rules: Any) -> Field:
    return Field("enum", values=values, **rules)


def obj(**rules: Any) -> Field:
    return Field("object", **rules)


def array(**rules: Any) -> Field:
    return Field("array", **rules)


def boolean(**rules: Any) -> Field:
    return Field("boolean", **rules)


EVENT_ID: Final = {"event_id": text(nullable=True, longest=512)}
TOOL: Final = {
    "": obj(),
    ".type": enum("function", required=True),
    ".name": text(required=True, shortest=1, longest=64, pattern=r"^[a-zA-Z0-9_-]+$"),
    ".description": text(nullable=True, longest=1024),
    ".parameters": obj(nullable=True, closed=False),
}
TOOL_CHOICE: Final = {
    "": obj(values=("auto", "none", "required"), expected="one of 'auto', 'none', or 'required' or an object"),
    ".type": enum("function", required=True),
    ".name": text(),
    ".function": obj(expected="an object or a string", also=("a string",)),
    ".function.name": text(required=True),
}
TOKENS: Final = Field("integer", low=1, high=4096, values=("inf",), expected="an integer or 'inf'")
TEMPERATURE: Final = Field("decimal", low=0.6, high=1.2)
ITEM_HEAD: Final = {
    "": obj(required=True),
    ".type": Field("tag", required=True),
    ".id": text(nullable=True, shortest=1, longest=32),
    ".object": enum("realtime.item"),
    ".status": enum(*STATUSES),
}
CONTENT: Final = {
    "[0]": obj(),
    "[0].type": Field("tag", required=True),
    "[0].text": text(required=True),
    "[1]": obj(),
    "[1].type": Field("tag", required=True),
    "[1].audio": text(),
    "[1].transcript": text(nullable=True),
}
CALL: Final = {".call_id": text(), ".name": text(required=True), ".arguments": text(required=True)}
CALL_OUTPUT: Final = {".call_id": text(required=True), ".output": text(required=True)}


def under(path: str, fields: dict[str, Field]) -> dict[str, Field]:
    return {path + key: field for key, field in fields.items()}


SESSION_FIELDS: Final = {
    **EVENT_ID,
    "session": obj(required=True),
    "session.model": text(),
    "session.modalities": array(),
    "session.modalities[0]": enum("text", "audio"),
    "session.instructions": text(),
    "session.voice": enum(*VOICES),
    "session.input_audio_format": enum(*FORMATS),
    "session.output_audio_format": enum(*FORMATS),
    "session.input_audio_transcription": obj(nullable=True),
    "session.input_audio_transcription.model": text(),
    "session.input_audio_transcription.language": text(nullable=True),
    "session.input_audio_transcription.prompt": text(nullable=True),
    "session.turn_detection": obj(nullable=True),
    "session.turn_detection.type": enum("server_vad", "semantic_vad", required=True),
    "session.turn_detection.threshold": Field("decimal", low=0.0, high=1.0),
    "session.turn_detection.prefix_padding_ms": Field("integer", low=0, high=5000),
    "session.turn_detection.silence_duration_ms": Field("integer", low=0, high=1_800_000),
    "session.turn_detection.create_response": boolean(),
    "session.turn_detection.interrupt_response": boolean(),
    "session.tools": array(),
    **under("session.tools[0]", TOOL),
    **under("session.tool_choice", TOOL_CHOICE),
    "session.temperature": TEMPERATURE,
    "session.max_response_output_tokens": TOKENS,
    "session.speed": Field("decimal", low=0.25, high=1.5),
    "session.input_audio_noise_reduction": obj(nullable=True),
    "session.input_audio_noise_reduction.type": enum("near_field", "far_field", required=True),
    "session.include": array(nullable=True),
    "session.include[0]": enum("item.input_audio_transcription.logprobs"),
    "session.tracing": obj(nullable=True, values=("auto",), expected="'auto' or an object"),
    "session.tracing.workflow_name": text(),
    "session.tracing.group_id": text(),
    "session.tracing.metadata": obj(closed=False),
}
TRANSCRIPTION_SESSION_FIELDS: Final = {
    path: field
    for path, field in SESSION_FIELDS.items()
    if not path.startswith("session.")
    or path.partition(".")[2].partition(".")[0].partition("[")[0]
    in {
        "modalities",
        "input_audio_format",
        "input_audio_transcription",
        "turn_detection",
        "input_audio_noise_reduction",
        "include",
    }
}
RESPONSE_FIELDS: Final = {
    **EVENT_ID,
    "response": obj(nullable=True),
    "response.modalities": array(),
    "response.modalities[0]": enum("text", "audio"),
    "response.instructions": text(nullable=True),
    "response.voice": enum(*VOICES),
    "response.output_audio_format": enum(*FORMATS),
    "response.tools": array(),
    **under("response.tools[0]", TOOL),
    **under("response.tool_choice", TOOL_CHOICE),
    "response.temperature": TEMPERATURE,
    "response.max_output_tokens": TOKENS,
    "response.conversation": enum("auto", "none"),
    "response.metadata": obj(nullable=True, closed=False),
    "response.metadata.topic": text(longest=512),
    "response.input": array(),
    **under("response.input[0]", ITEM_HEAD | {"": obj()}),
    "response.input[0].role": enum("system", "user", "assistant"),
    "response.input[0].content": array(),
    **under("response.input[0].content", CONTENT),
    **under("response.input[1]", ITEM_HEAD | {"": obj()} | CALL),
    **under("response.input[2]", ITEM_HEAD | {"": obj()} | CALL_OUTPUT),
    "response.input[3]": obj(),
    "response.input[3].type": Field("tag", required=True),
    "response.input[3].id": text(required=True),
    "response.commit": boolean(),
    "response.cancel_previous": boolean(),
}
FIELDS: Final[dict[str, dict[str, Field]]] = {
    "session.update": SESSION_FIELDS,
    "session.update semantic": {
        **EVENT_ID,
        "session": obj(required=True),
        "session.turn_detection": obj(nullable=True),
        "session.turn_detection.type": enum("server_vad", "semantic_vad", required=True),
        "session.turn_detection.eagerness": enum("low", "medium", "high", "auto"),
        "session.turn_detection.create_response": boolean(),
        "session.turn_detection.interrupt_response": boolean(),
    },
    "transcription_session.update": TRANSCRIPTION_SESSION_FIELDS,
    "transcription_session.update semantic": {
        **EVENT_ID,
        "session": obj(required=True),
        "session.turn_detection.eagerness": enum("low", "medium", "high", "auto"),
    },
    "input_audio_buffer.append": {**EVENT_ID, "audio": text(required=True)},
    "input_audio_buffer.commit": EVENT_ID,
    "input_audio_buffer.clear": EVENT_ID,
    "conversation.item.create message": {
        **EVENT_ID,
        "previous_item_id": text(nullable=True),
        **under("item", ITEM_HEAD),
        "item.role": enum("system", "user", "assistant", required=True),
        "item.content": array(required=True),
        **under("item.content", CONTENT),
    },
    "conversation.item.create call": {
        **EVENT_ID,
        "previous_item_id": text(nullable=True),
        **under("item", ITEM_HEAD | CALL),
    },
    "conversation.item.create output": {
        **EVENT_ID,
        "previous_item_id": text(nullable=True),
        **under("item", ITEM_HEAD | CALL_OUTPUT),
    },
    "conversation.item.delete": {**EVENT_ID, "item_id": text(required=True)},
    "conversation.item.retrieve": {**EVENT_ID, "item_id": text(required=True)},
    "conversation.item.truncate": {
        **EVENT_ID,
        "item_id": text(required=True),
        "content_index": Field("integer", required=True, low=0),
        "audio_end_ms": Field("integer", required=True, low=0),
    },
    "response.create": RESPONSE_FIELDS,
    "response.create input_items": {**EVENT_ID, "response": obj(nullable=True), "response.input_items": array()},
    "response.create append_input_items": {
        **EVENT_ID,
        "response": obj(nullable=True),
        "response.append_input_items": array(),
    },
    "response.cancel": {**EVENT_ID, "response_id": text(nullable=True)},
}

SILENCE: Final = base64.b64encode(bytes(4)).decode()
TOOL_JSON: Final = {
    "type": "function",
    "name": "weather",
    "description": "tells the weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
MESSAGE_JSON: Final = {
    "type": "message",
    "id": "m1",
    "object": "realtime.item",
    "status": "in_progress",
    "role": "user",
    "content": [
        {"type": "input_text", "text": "hello"},
        {"type": "input_audio", "audio": SILENCE, "transcript": "hm"},
    ],
}
CALL_JSON: Final = {
    "type": "function_call",
    "id": "c1",
    "object": "realtime.item",
    "status": "completed",
    "call_id": "call_1",
    "name": "weather",
    "arguments": "{}",
}
OUTPUT_JSON: Final = {
    "type": "function_call_output",
    "id": "o1",
    "object": "realtime.item",
    "status": "incomplete",
    "call_id": "call_1",
    "output": "sunny",
}
SEMANTIC_JSON: Final = {
    "type": "semantic_vad",
    "eagerness": "low",
    "create_response": False,
    "interrupt_response": False,
}
FULL: Final[dict[str, dict[str, Any]]] = {
    "session.update": {
        "session": {
            "model": "gpt-4o-realtime-preview",
            "modalities": ["text", "audio"],
            "instructions": "Be kind.",
            "voice": "echo",
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_alaw",
            "input_audio_transcription": {"model": "whisper-1", "language": "en", "prompt": "names"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.25,
                "prefix_padding_ms": 100,
                "silence_duration_ms": 300,
                "create_response": False,
                "interrupt_response": False,
            },
            "tools": [TOOL_JSON],
            "tool_choice": {"type": "function", "name": "weather", "function": {"name": "weather"}},
            "temperature": 0.7,
            "max_response_output_tokens": 100,
            "speed": 1.25,
            "input_audio_noise_reduction": {"type": "near_field"},
            "include": ["item.input_audio_transcription.logprobs"],
            "tracing": {"workflow_name": "shop", "group_id": "7", "metadata": {"customer": 5}},
        },
    },
    "session.update semantic": {"session": {"turn_detection": SEMANTIC_JSON}},
    "transcription_session.update semantic": {"session": {"turn_detection": SEMANTIC_JSON}},
    "transcription_session.update": {
        "session": {
            "modalities": ["text"],
            "input_audio_format": "g711_ulaw",
            "input_audio_transcription": {"model": "gpt-4o-transcribe", "language": "en", "prompt": "names"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.25,
                "prefix_padding_ms": 100,
                "silence_duration_ms": 300,
                "create_response": False,
                "interrupt_response": False,
            },
            "input_audio_noise_reduction": {"type": "far_field"},
            "include": ["item.input_audio_transcription.logprobs"],
        },
    },
    "input_audio_buffer.append": {"audio": SILENCE},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "conversation.item.create message": {"previous_item_id": "root", "item": MESSAGE_JSON},
    "conversation.item.create call": {"previous_item_id": "m1", "item": CALL_JSON},
    "conversation.item.create output": {"previous_item_id": "c1", "item": OUTPUT_JSON},
    "conversation.item.delete": {"item_id": "m1"},
    "conversation.item.retrieve": {"item_id": "m1"},
    "conversation.item.truncate": {"item_id": "m1", "content_index": 0, "audio_end_ms": 1500},
    "response.create": {
        "response": {
            "modalities": ["audio", "text"],
            "instructions": "Be brief.",
            "voice": "verse",
            "output_audio_format": "pcm16",
            "tools": [TOOL_JSON],
            "tool_choice": {"type": "function", "name": "weather", "function": {"name": "weather"}},
            "temperature": 1.0,
            "max_output_tokens": "inf",
            "conversation": "none",
            "metadata": {"topic": "weather"},
            "input": [MESSAGE_JSON, CALL_JSON, OUTPUT_JSON, {"type": "item_reference", "id": "m0"}],
            "commit": True,
            "cancel_previous": False,
        },
    },
    "response.create input_items": {
        "response": {"input_items": [MESSAGE_JSON, {"type": "item_reference", "id": "m0"}]}
    },
    "response.create append_input_items": {"response": {"append_input_items": [CALL_JSON, OUTPUT_JSON]}},
    "response.cancel": {"response_id": "resp_1"},
}

SAMPLES: Final[dict[str, Any]] = {
    "null": None,
    "a boolean": True,
    "an integer": 7,
    "a decimal": 1.5,
    "a string": "nope",
    "an array": [],
    "an object": {},
}
ARTICLES: Final = {
    "string": "a string",
    "enum": "a string",
    "tag": "a string",
    "integer": "an integer",
    "decimal": "a decimal",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def full(name: str) -> dict[str, Any]:
    """The full valid event; further words of the name tell variants of one event apart."""
    return {"type": name.split()[0], "event_id": "e1", **copy.deepcopy(FULL[name])}


def steps(path: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.findall(r"\w+", path)]


def holder(event: dict[str, Any], path: str) -> tuple[Any, str | int]:
    """The container of the field at ``path``, and its key there."""
    *way, last = steps(path)
    place: Any = event
    for step in way:
        place = place[step]
    return place, last


def with_value(name: str, path: str, value: Any) -> dict[str, Any]:
    event = full(name)
    place, key = holder(event, path)
    place[key] = value
    return event


def without(name: str, path: str) -> dict[str, Any]:
    event = full(name)
    place, key = holder(event, path)
    del place[key]
    return event


def decode(event: Any, codec: Any = CODEC) -> Any:
    return codec.decode(json.dumps(event))


def fault(event: Any, codec: Any = CODEC) -> ErrorBody:
    answer = decode(event, codec)
    assert isinstance(answer, ce.Rejected), answer
    return answer.error


def error(code: str, message: str, param: str | None, event_id: str | None = "e1") -> ErrorBody:
    return ErrorBody(type="invalid_request_error", code=code, message=message, param=param, event_id=event_id)


def listed(values: tuple[str, ...]) -> str:
    quoted = [f"'{value}'" for value in values]
    if len(quoted) == 1:
        return quoted[0]
    if len(quoted) == 2:
        return " and ".join(quoted)
    return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


EVERY_FIELD: Final = [(name, path, field) for name, fields in FIELDS.items() for path, field in fields.items()]


def _ids(case: tuple[Any, ...]) -> str:
    return "-".join(str(part) for part in case if isinstance(part, str | int | float))


def cases(fields: Iterator[Any]) -> pytest.MarkDecorator:
    found = list(fields)
    return pytest.mark.parametrize("case", found, ids=[_ids(case) for case in found])


# -------------------------------------------------------------------------------------- the tables are whole


def test_names_are_those_of_the_protocol() -> None:
    for profile in PROFILES.values():
        known = LATER_CLIENT_EVENTS if profile.of_2025 else CLIENT_EVENTS
        assert tuple(shapes.event_shapes(profile)) == known
    assert len(get_args(ce.ClientEvent)) == len(LATER_CLIENT_EVENTS) - 1, "two of them are updates of a session"
    assert {name.split()[0] for name in FIELDS} == set(LATER_CLIENT_EVENTS) == {name.split()[0] for name in FULL}


def shape_paths(shape: mi.Type, path: str) -> Iterator[str]:
    """Every field of a shape, without the numbers of list elements."""
    match shape:
        case mi.StructType():
            for field in shape.fields:
                inner = f"{path}.{field.encode_name}" if path else field.encode_name
                yield inner
                yield from shape_paths(field.type, inner)
            if shape.tag_field and path:
                yield f"{path}.{shape.tag_field}"
        case mi.UnionType():
            for option in shape.types:
                yield from shape_paths(option, path)
        case mi.ListType():
            yield f"{path}[]"
            yield from shape_paths(shape.item_type, f"{path}[]")


def test_the_tables_name_every_field_of_every_shape() -> None:
    for kind, shape in shapes.event_shapes(PROFILES["azure-2025-04"]).items():
        known = {
            re.sub(r"\[\d+\]", "[]", path)
            for name, fields in FIELDS.items()
            if name.split()[0] == kind
            for path in fields
        }
        found = set(shape_paths(mi.type_info(shape), ""))
        # The other contexts of a response have the items of ``input``, and ``item``.
        found = {path for path in found if not re.match(r"response\.(append_)?input_items\[", path)}
        # Parts of other roles, and references, have no field of their own beside the id.
        assert found - known <= {"item.content[].id", "response.input[].content[].id"}, kind
        assert {path for path in known if not path.endswith(".topic")} <= found, kind


# ------------------------------------------------------------------------------------------------ accepted


@pytest.mark.parametrize("name", FULL)
def test_full_event_is_accepted(name: str) -> None:
    assert isinstance(decode(full(name)), get_args(ce.ClientEvent))
    assert decode(full(name)).event_id == "e1"


@pytest.mark.parametrize("name", FULL)
def test_event_of_required_fields_only_is_accepted(name: str) -> None:
    event = full(name)
    optional = sorted(
        (path for path, field in FIELDS[name].items() if not field.required and path.split("[")[0] == path),
        key=len,
        reverse=True,
    )
    for path in optional:
        place, key = holder(event, path)
        del place[key]
    answer = decode(event)
    assert isinstance(answer, get_args(ce.ClientEvent))
    assert answer.event_id is None


@cases((n, p, f) for n, p, f in EVERY_FIELD if not f.required and not p.endswith("]"))
def test_optional_field_may_be_absent(case: tuple[str, str, Field]) -> None:
    name, path, _ = case
    event = without(name, path)
    if path.endswith("[1].audio"):  # either the sound or its transcript must be there
        assert isinstance(decode(event), get_args(ce.ClientEvent))
        del holder(event, path)[0]["transcript"]
        param = path.removeprefix("conversation.")
        assert fault(event) == error("missing_required_parameter", f"Missing required parameter: '{param}'.", param)
        return
    if path.endswith(("].role", "].content")):  # a message in `input` has both or none
        assert fault(event) == error("missing_required_parameter", f"Missing required parameter: '{path}'.", path)
        return
    assert isinstance(decode(event), get_args(ce.ClientEvent))


@cases((n, p, f) for n, p, f in EVERY_FIELD if f.nullable)
def test_nullable_field_may_be_null(case: tuple[str, str, Field]) -> None:
    name, path, _ = case
    assert isinstance(decode(with_value(name, path, None)), get_args(ce.ClientEvent))


@cases((n, p, v) for n, p, f in EVERY_FIELD for v in f.values)
def test_every_listed_value_is_accepted(case: tuple[str, str, str]) -> None:
    name, path, value = case
    if path.endswith(".role"):
        event = with_value(name, path, value)
        kind = {"system": "input_text", "user": "input_text", "assistant": "text"}[value]
        place, _ = holder(event, path)
        place["content"] = [{"type": kind, "text": "hi"}]
    elif path.endswith("modalities[0]"):
        event = with_value(name, path, value)
        place, _ = holder(event, path)
        place[:] = sorted({value, "text"})
    elif path == "session.turn_detection.type":
        event = with_value(name, "session.turn_detection", {"type": value})
    else:
        event = with_value(name, path, value)
    assert isinstance(decode(event), get_args(ce.ClientEvent))


# ------------------------------------------------------------------------------------------------- refused


@cases((n, p) for n, p, f in EVERY_FIELD if f.required)
def test_missing(case: tuple[str, str]) -> None:
    name, path = case
    assert fault(without(name, path)) == error(
        "missing_required_parameter", f"Missing required parameter: '{path}'.", path
    )


@cases((n, p) for n, p, f in [*EVERY_FIELD, *((n, "", obj()) for n in FULL)] if f.kind == "object" and f.closed)
def test_unknown_field(case: tuple[str, str]) -> None:
    name, path = case
    event = full(name)
    if path:
        place, key = holder(event, path)
        place[key]["bogus"] = 1
    else:
        event["bogus"] = 1
    param = f"{path}.bogus" if path else "bogus"
    assert fault(event) == error("unknown_parameter", f"Unknown parameter: '{param}'.", param)


def mistyped() -> Iterator[tuple[str, str, str, Field]]:
    for name, path, field in EVERY_FIELD:
        fits = {ARTICLES[field.kind], *field.also}
        if field.nullable:
            fits.add("null")
        if field.kind == "decimal":
            fits.add("an integer")
        for kind in SAMPLES:
            if kind not in fits:
                yield name, path, kind, field


@cases(mistyped())
def test_wrong_type(case: tuple[str, str, str, Field]) -> None:
    name, path, kind, field = case
    found = fault(with_value(name, path, SAMPLES[kind]))
    event_id = None if path == "event_id" else "e1"
    if kind == "a string" and field.values:
        supported = listed(field.values)
        assert found == error("invalid_value", f"Invalid value: 'nope'. Supported values are: {supported}.", path)
    else:
        expected = field.expected or ARTICLES[field.kind]
        assert found == error(
            "invalid_type",
            f"Invalid type for '{path}': expected {expected}, but got {kind} instead.",
            path,
            event_id,
        )


@cases((n, p, f) for n, p, f in EVERY_FIELD if f.kind in ("enum", "tag"))
def test_value_off_the_list(case: tuple[str, str, Field]) -> None:
    name, path, field = case
    found = fault(with_value(name, path, "nope"))
    assert (found.code, found.param) == ("invalid_value", path)
    assert found.message.startswith("Invalid value: 'nope'. Supported values are: '")
    if field.values:
        supported = listed(field.values)
        assert found.message == f"Invalid value: 'nope'. Supported values are: {supported}."


def ends() -> Iterator[tuple[str, str, Field, float, str]]:
    for name, path, field in EVERY_FIELD:
        if field.low is not None:
            yield name, path, field, field.low, "below"
        if field.high is not None:
            yield name, path, field, field.high, "above"


@cases(ends())
def test_number_at_the_end_and_beyond(case: tuple[str, str, Field, float, str]) -> None:
    name, path, field, end, side = case
    assert isinstance(decode(with_value(name, path, end)), get_args(ce.ClientEvent))
    step = (1 if field.kind == "integer" else 0.01) * (-1 if side == "below" else 1)
    beyond = round(end + step, 2)
    sign, extreme = (">=", "minimum") if side == "below" else ("<=", "maximum")
    shown = str(beyond).removesuffix(".0")
    limit = str(end).removesuffix(".0")
    assert fault(with_value(name, path, beyond)) == error(
        f"{field.kind}_{side}_{extreme[:3]}_value",
        f"Invalid '{path}': {field.kind} {side} {extreme} value. "
        f"Expected a value {sign} {limit}, but got {shown} instead.",
        path,
    )


@cases((n, p, f) for n, p, f in EVERY_FIELD if f.longest is not None)
def test_length_at_the_end_and_beyond(case: tuple[str, str, Field]) -> None:
    name, path, field = case
    longest = field.longest or 0
    assert isinstance(decode(with_value(name, path, "x" * longest)), get_args(ce.ClientEvent))
    if not field.pattern:
        assert isinstance(decode(with_value(name, path, "\U0001f642" * longest)), get_args(ce.ClientEvent))
    too_long = fault(with_value(name, path, "x" * (longest + 1)))
    assert too_long == error(
        "string_above_max_length",
        f"Invalid '{path}': string too long. Expected a string with maximum length {longest}, "
        f"but got a string with length {longest + 1} instead.",
        path,
        None if path == "event_id" else "e1",
    )
    if field.shortest:
        too_short = fault(with_value(name, path, ""))
        assert too_short == error(
            "string_below_min_length",
            f"Invalid '{path}': string too short. Expected a string with minimum length {field.shortest}, "
            "but got a string with length 0 instead.",
            path,
        )


@cases((n, p, f) for n, p, f in EVERY_FIELD if f.pattern)
def test_name_with_other_characters(case: tuple[str, str, Field]) -> None:
    name, path, field = case
    assert fault(with_value(name, path, "what's up?")) == error(
        "invalid_value",
        f"Invalid '{path}': string does not match pattern. Expected a string that matches the pattern "
        f"'{field.pattern}'.",
        path,
    )


# -------------------------------------------------------------------------------------------- order of checks


UPDATE: Final = {"type": "session.update", "event_id": "e1"}
TRUNCATE: Final = {"type": "conversation.item.truncate", "event_id": "e1"}
CREATE: Final = {"type": "conversation.item.create", "event_id": "e1"}


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        pytest.param(
            TRUNCATE | {"content_index": -1, "audio_end_ms": "x", "bogus": 1},
            "unknown_parameter",
            "bogus",
            id="unknown before missing, type and range",
        ),
        pytest.param(
            TRUNCATE | {"content_index": -1, "audio_end_ms": "x"},
            "missing_required_parameter",
            "item_id",
            id="missing before type and range",
        ),
        pytest.param(
            TRUNCATE | {"content_index": -1, "audio_end_ms": "x", "item_id": "a"},
            "invalid_type",
            "audio_end_ms",
            id="type before range",
        ),
        pytest.param(
            TRUNCATE | {"audio_end_ms": -1, "content_index": -1, "item_id": "a"},
            "integer_below_min_value",
            "audio_end_ms",
            id="in the order of the document",
        ),
        pytest.param(
            UPDATE | {"session": {"temperature": 9, "turn_detection": {"threshold": "x", "deep": 1}}},
            "unknown_parameter",
            "session.turn_detection.deep",
            id="a deep unknown before a near range",
        ),
        pytest.param(
            UPDATE | {"session": {"voice": 5, "tools": [{"type": "function"}]}},
            "missing_required_parameter",
            "session.tools[0].name",
            id="a deep missing before a near type",
        ),
        pytest.param(
            UPDATE | {"session": {"temperature": 9, "modalities": ["audio"]}},
            "decimal_above_max_value",
            "session.temperature",
            id="ranges of fields before combinations",
        ),
        pytest.param(
            UPDATE | {"session": {"max_response_output_tokens": 9999, "voice": 5}},
            "invalid_type",
            "session.voice",
            id="a later type before an earlier range",
        ),
        pytest.param(
            CREATE | {"item": {"type": "message", "id": "x" * 33, "role": 5}},
            "missing_required_parameter",
            "item.content",
            id="a message's content is required before types and lengths",
        ),
        pytest.param(
            CREATE | {"item": {"id": "x" * 33}, "bogus": 1},
            "unknown_parameter",
            "bogus",
            id="an item without type is checked no further",
        ),
        pytest.param(
            {"event_id": "e1", "bogus": 1}, "invalid_event", None, id="the type of the event before its keys"
        ),
        pytest.param(
            {"type": "session.bogus", "event_id": "e1", "bogus": 1},
            "invalid_value",
            "type",
            id="a known type before its keys",
        ),
    ],
)
def test_order_of_checks(event: dict[str, Any], code: str, param: str | None) -> None:
    found = fault(event)
    assert (found.code, found.param, found.event_id) == (code, param, "e1")


# ----------------------------------------------------------------------------------------- the form of an event


@pytest.mark.parametrize(
    ("frame", "code", "message", "param"),
    [
        ("{", "invalid_json", "Invalid event: failed to parse JSON value. Input data was truncated", None),
        ("[]", "invalid_event", "Invalid event: expected an object, but got an array instead.", None),
        ("null", "invalid_event", "Invalid event: expected an object, but got null instead.", None),
        ("1", "invalid_event", "Invalid event: expected an object, but got an integer instead.", None),
        ("1.5", "invalid_event", "Invalid event: expected an object, but got a decimal instead.", None),
        ("true", "invalid_event", "Invalid event: expected an object, but got a boolean instead.", None),
        ('"session.update"', "invalid_event", "Invalid event: expected an object, but got a string instead.", None),
        ("{}", "invalid_event", "The 'type' field is missing.", None),
        ('{"type": null}', "invalid_event", "The 'type' field is missing.", None),
        (
            '{"type": 5}',
            "invalid_type",
            "Invalid type for 'type': expected a string, but got an integer instead.",
            "type",
        ),
        (
            '{"type": "nope"}',
            "invalid_value",
            "Invalid value: 'nope'. Supported values are: 'session.update', 'transcription_session.update', "
            "'input_audio_buffer.append', 'input_audio_buffer.commit', 'input_audio_buffer.clear', "
            "'conversation.item.create', 'conversation.item.delete', 'conversation.item.truncate', "
            "'conversation.item.retrieve', 'response.create', and 'response.cancel'.",
            "type",
        ),
    ],
)
def test_frame_that_is_no_event(frame: str, code: str, message: str, param: str | None) -> None:
    answer = CODEC.decode(frame)
    assert answer == ce.Rejected(error=error(code, message, param, None))


@pytest.mark.parametrize(
    "frame", ['{"type":"input_audio_buffer.commit",}', '{"type":"input_audio_buffer.commit"} x']
)
def test_trailing_commas_and_characters_are_not_json(frame: str) -> None:
    answer = CODEC.decode(frame)
    assert isinstance(answer, ce.Rejected)
    assert (answer.error.code, answer.error.param) == ("invalid_json", None)
    assert answer.error.message.startswith("Invalid event: failed to parse JSON value. ")


def test_binary_frame() -> None:
    assert CODEC.decode_binary() == ce.Rejected(
        error=error(
            "invalid_event",
            "Expected a text WebSocket message; binary frames are not supported.",
            None,
            None,
        )
    )


@pytest.mark.parametrize(
    ("given", "echoed"),
    [({}, None), ({"event_id": None}, None), ({"event_id": ""}, ""), ({"event_id": "x" * 512}, "x" * 512)],
)
def test_event_id_comes_back(given: dict[str, Any], echoed: str | None) -> None:
    accepted = decode({"type": "input_audio_buffer.commit", **given})
    assert accepted == ce.InputAudioCommit(event_id=echoed)
    refused = fault({"type": "input_audio_buffer.commit", "bogus": 1, **given})
    assert refused.event_id == echoed


@pytest.mark.parametrize("given", [5, ["e1"], {"id": "e1"}, True, "x" * 513])
def test_event_id_that_is_none_is_not_echoed(given: Any) -> None:
    refused = fault({"type": "input_audio_buffer.commit", "event_id": given})
    assert (refused.param, refused.event_id) == ("event_id", None)


# ------------------------------------------------------------------------------------------- what events mean


def patch(session: dict[str, Any], codec: Any = CODEC) -> sc.SessionPatch:
    answer = decode({"type": "session.update", "session": session}, codec)
    assert isinstance(answer, ce.SessionUpdate), answer
    return answer.session


def test_session_update_full() -> None:
    assert decode(full("session.update")) == ce.SessionUpdate(
        event_id="e1",
        session=sc.SessionPatch(
            model="gpt-4o-realtime-preview",
            modalities=("text", "audio"),
            instructions="Be kind.",
            voice="echo",
            input_audio_format="g711_ulaw",
            output_audio_format="g711_alaw",
            input_audio_transcription=sc.Transcription("whisper-1", "en", "names"),
            turn_detection=sc.ServerVad(
                threshold=0.25,
                prefix_padding_ms=100,
                silence_duration_ms=300,
                create_response=False,
                interrupt_response=False,
            ),
            tools=(sc.FunctionTool("weather", "tells the weather", TOOL_JSON["parameters"]),),  # type: ignore[arg-type]  # a dict of JSON
            tool_choice=sc.NamedFunction("weather"),
            temperature=0.7,
            max_output_tokens=100,
            speed=1.25,
            input_audio_noise_reduction="near_field",
            include=("item.input_audio_transcription.logprobs",),
            tracing={"workflow_name": "shop", "group_id": "7", "metadata": {"customer": 5}},
        ),
    )


def test_of_tracing_only_what_was_sent_is_kept() -> None:
    assert patch({"tracing": "auto"}).tracing == "auto"
    assert patch({"tracing": {"group_id": "7"}}).tracing == {"group_id": "7"}
    assert patch({"tracing": None}).tracing is None


@pytest.mark.parametrize("value", ["x", "x" * 513, 5])
def test_an_error_does_not_repeat_a_key_that_nobody_would_read(value: Any) -> None:
    found = fault({"type": "response.create", "response": {"metadata": {"k" * 100_000: value}}})
    assert found.param == f"response.metadata.{'k' * 256}..."
    assert len(found.message) < 1000


def test_the_metadata_of_tracing_are_not_nested_too_deeply() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": deep}
    found = fault(UPDATE | {"session": {"tracing": {"metadata": deep}}})
    assert (found.code, found.param) == ("invalid_value", "session.tracing.metadata")


def test_session_update_empty_leaves_everything() -> None:
    assert patch({}) == sc.SessionPatch()
    assert all(getattr(patch({}), name) is UNSET for name in sc.SessionPatch.__struct_fields__)


def test_null_switches_off() -> None:
    assert patch({"turn_detection": None}) == sc.SessionPatch(turn_detection=None)
    assert patch({"input_audio_transcription": None}) == sc.SessionPatch(input_audio_transcription=None)


def test_turn_detection_none_is_null() -> None:
    assert patch({"turn_detection": {"type": "none"}}) == sc.SessionPatch(turn_detection=None)


@pytest.mark.parametrize("codec", [CODEC, CODEC_OCTOBER, CODEC_DECEMBER])
def test_bare_turn_detection_takes_the_documented_defaults(codec: Any) -> None:
    assert patch({"turn_detection": {"type": "server_vad"}}, codec).turn_detection == sc.ServerVad(
        threshold=0.5,
        prefix_padding_ms=300,
        silence_duration_ms=500,
        create_response=True,
        interrupt_response=True,
    )


def test_semantic_vad() -> None:
    assert patch({"turn_detection": {"type": "semantic_vad"}}).turn_detection == sc.SemanticVad(
        eagerness="auto", create_response=True, interrupt_response=True
    )
    given = {"eagerness": "low", "create_response": False, "interrupt_response": False}
    assert patch({"turn_detection": {"type": "semantic_vad", **given}}).turn_detection == sc.SemanticVad(**given)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("key", ["threshold", "prefix_padding_ms", "silence_duration_ms"])
def test_semantic_vad_has_no_settings_of_server_vad(key: str) -> None:
    param = f"session.turn_detection.{key}"
    session = {"turn_detection": {"type": "semantic_vad", key: 1}}
    assert fault(UPDATE | {"session": session}) == error(
        "unknown_parameter", f"Unknown parameter: '{param}'.", param
    )


@pytest.mark.parametrize("codec", [CODEC_OCTOBER, CODEC_DECEMBER])
def test_semantic_vad_is_no_value_of_2024(codec: Any) -> None:
    session = {"turn_detection": {"type": "semantic_vad", "eagerness": "low"}}
    assert fault(UPDATE | {"session": session}, codec) == error(
        "invalid_value",
        "Invalid value: 'semantic_vad'. Supported values are: 'server_vad'.",
        "session.turn_detection.type",
    )


def test_bare_transcription_is_whisper() -> None:
    assert patch({"input_audio_transcription": {}}).input_audio_transcription == sc.Transcription("whisper-1")


def test_inf_is_no_limit() -> None:
    assert patch({"max_response_output_tokens": "inf"}).max_output_tokens is None
    assert patch({"max_response_output_tokens": 4096}).max_output_tokens == 4096


@pytest.mark.parametrize(
    ("choice", "meaning"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ({"type": "function", "name": "f"}, sc.NamedFunction("f")),
        ({"type": "function", "function": {"name": "f"}}, sc.NamedFunction("f")),
        ({"type": "function", "function": "f"}, sc.NamedFunction("f")),
    ],
)
def test_spellings_of_tool_choice(choice: Any, meaning: sc.ToolChoice) -> None:
    assert patch({"tool_choice": choice}).tool_choice == meaning
    created = decode({"type": "response.create", "response": {"tool_choice": choice}})
    assert created.options.tool_choice == meaning


def test_tool_choice_without_a_name() -> None:
    found = fault(UPDATE | {"session": {"tool_choice": {"type": "function"}}})
    param = "session.tool_choice.name"
    assert found == error("missing_required_parameter", f"Missing required parameter: '{param}'.", param)


@pytest.mark.parametrize("codec", [CODEC_OCTOBER, CODEC_DECEMBER])
@pytest.mark.parametrize("key", ["speed", "include", "tracing", "input_audio_noise_reduction"])
def test_fields_of_2025_are_unknown_before(codec: Any, key: str) -> None:
    found = fault(UPDATE | {"session": {key: None}}, codec)
    assert found == error("unknown_parameter", f"Unknown parameter: 'session.{key}'.", f"session.{key}")


def test_transcription_session() -> None:
    assert decode(full("transcription_session.update")) == ce.SessionUpdate(
        session=sc.SessionPatch(
            modalities=("text",),
            input_audio_format="g711_ulaw",
            input_audio_transcription=sc.Transcription("gpt-4o-transcribe", "en", "names"),
            turn_detection=sc.ServerVad(0.25, 100, 300, False, False),
            input_audio_noise_reduction="far_field",
            include=("item.input_audio_transcription.logprobs",),
        ),
        kind="transcription",
        event_id="e1",
    )
    nothing = {"type": "transcription_session.update", "session": {}}
    assert decode(nothing) == ce.SessionUpdate(session=sc.SessionPatch(), kind="transcription")


def test_a_response_is_cancelled_by_id_from_december_on() -> None:
    event = {"type": "response.cancel", "event_id": "e1", "response_id": "resp_1"}
    assert fault(event, CODEC_OCTOBER) == error(
        "unknown_parameter", "Unknown parameter: 'response_id'.", "response_id"
    )
    assert decode(event, CODEC_DECEMBER) == ce.ResponseCancel(response_id="resp_1", event_id="e1")
    assert decode({"type": "response.cancel"}, CODEC_OCTOBER) == ce.ResponseCancel()


def test_interrupt_response_is_unknown_in_october() -> None:
    session = {"turn_detection": {"type": "server_vad", "interrupt_response": True}}
    param = "session.turn_detection.interrupt_response"
    assert fault(UPDATE | {"session": session}, CODEC_OCTOBER) == error(
        "unknown_parameter", f"Unknown parameter: '{param}'.", param
    )
    assert patch(session, CODEC_DECEMBER).turn_detection == sc.ServerVad(silence_duration_ms=500)


@pytest.mark.parametrize(
    "key", ["id", "object", "expires_at", "type", "audio", "output_modalities", "max_output_tokens", "prompt"]
)
def test_keys_of_other_dialects_and_read_only_keys(key: str) -> None:
    found = fault(UPDATE | {"session": {key: "x"}})
    assert found == error("unknown_parameter", f"Unknown parameter: 'session.{key}'.", f"session.{key}")


@pytest.mark.parametrize("spelling", ["g711-ulaw", "g711-alaw", "pcm", "PCM16"])
def test_other_spellings_of_formats_are_refused(spelling: str) -> None:
    found = fault(UPDATE | {"session": {"input_audio_format": spelling}})
    assert found == error(
        "invalid_value",
        f"Invalid value: '{spelling}'. Supported values are: 'pcm16', 'g711_ulaw', and 'g711_alaw'.",
        "session.input_audio_format",
    )


@pytest.mark.parametrize("given", [["text"], ["audio", "text"], ["text", "audio"]])
def test_modalities_are_compared_as_a_set_and_kept_as_sent(given: list[str]) -> None:
    assert patch({"modalities": given}).modalities == tuple(given)


@pytest.mark.parametrize("given", [["audio"], [], ["text", "text"], ["audio", "text", "text"]])
@pytest.mark.parametrize(("kind", "body"), [("session.update", "session"), ("response.create", "response")])
def test_other_combinations_of_modalities(given: list[str], kind: str, body: str) -> None:
    found = fault({"type": kind, "event_id": "e1", body: {"modalities": given}})
    assert found == error(
        "invalid_value",
        f"Invalid modalities: {given}. Supported combinations are: ['text'] and ['audio', 'text'].",
        f"{body}.modalities",
    )


def test_append() -> None:
    assert decode({"type": "input_audio_buffer.append", "audio": "AAEC"}) == ce.InputAudioAppend(audio=b"\0\1\2")


@pytest.mark.parametrize("audio", ["AAE", "AA EC", "AAEC\n", "AA-_", "====", "ä", "AA=="[:3]])
def test_append_that_is_not_base64_is_left_to_the_session(audio: str) -> None:
    answer = decode({"type": "input_audio_buffer.append", "audio": audio})
    assert answer == ce.InputAudioAppend(audio=b"", undecodable=True)


def test_append_at_the_limit_and_beyond() -> None:
    most = base64.b64encode(bytes(APPEND_LIMIT)).decode()
    answer = CODEC.decode(f'{{"type":"input_audio_buffer.append","audio":"{most}"}}')
    assert isinstance(answer, ce.InputAudioAppend)
    assert len(answer.audio) == APPEND_LIMIT == 15 * 1024 * 1024
    for more in (1, 300):
        beyond = base64.b64encode(bytes(APPEND_LIMIT + more)).decode()
        refused = CODEC.decode(f'{{"type":"input_audio_buffer.append","audio":"{beyond}"}}')
        assert isinstance(refused, ce.Rejected)
        assert (refused.error.code, refused.error.param) == ("invalid_value", "audio")
        assert "at most 15728640 bytes" in refused.error.message


def test_items() -> None:
    message = decode(full("conversation.item.create message"))
    assert message == ce.ItemCreate(
        item=items.MessageItem(
            "m1", "user", (items.InputTextPart("hello"), items.InputAudioPart(transcript="hm", audio=bytes(4)))
        ),
        previous_item_id="root",
        event_id="e1",
    )
    call = decode(full("conversation.item.create call"))
    assert call.item == items.FunctionCallItem("c1", "call_1", "weather", "{}")
    output = decode(full("conversation.item.create output"))
    assert output.item == items.FunctionCallOutputItem("o1", "call_1", "sunny")


def test_item_without_id_leaves_it_to_the_server() -> None:
    for absent in ({}, {"id": None}):
        body = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x"}], **absent}
        answer = decode({"type": "conversation.item.create", "item": body})
        assert answer.item == items.MessageItem("", "system", (items.InputTextPart("x"),))


PART: Final = {
    "input_text": {"type": "input_text", "text": "x"},
    "input_audio": {"type": "input_audio", "audio": SILENCE},
    "text": {"type": "text", "text": "x"},
    "item_reference": {"type": "item_reference", "id": "x"},
}
ALLOWED: Final = {"system": ("input_text",), "user": ("input_text", "input_audio"), "assistant": ("text",)}


@pytest.mark.parametrize("role", ALLOWED)
@pytest.mark.parametrize("kind", PART)
@pytest.mark.parametrize("place", [0, 1])
def test_parts_of_each_role(role: str, kind: str, place: int) -> None:
    good = PART[ALLOWED[role][0]]
    content = [good] * place + [PART[kind]]
    event = CREATE | {"item": {"type": "message", "role": role, "content": content}}
    if kind in ALLOWED[role]:
        assert isinstance(decode(event), ce.ItemCreate)
    else:
        param = f"item.content[{place}].type"
        supported = listed(ALLOWED[role])
        assert fault(event) == error(
            "invalid_value", f"Invalid value: '{kind}'. Supported values are: {supported}.", param
        )


def test_undecodable_audio_in_an_item_is_left_to_the_session() -> None:
    part = {"type": "input_audio", "audio": "*"}
    event = {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [part]}}
    assert decode(event).item.content == (items.InputAudioPart(undecodable=True),)


def test_response_create_full() -> None:
    options = decode(full("response.create")).options
    assert options == sc.ResponseOptions(
        modalities=("audio", "text"),
        instructions="Be brief.",
        voice="verse",
        output_audio_format="pcm16",
        tools=(sc.FunctionTool("weather", "tells the weather", TOOL_JSON["parameters"]),),  # type: ignore[arg-type]  # a dict of JSON
        tool_choice=sc.NamedFunction("weather"),
        temperature=1.0,
        max_output_tokens=None,
        conversation="none",
        metadata={"topic": "weather"},
        input=(
            items.MessageItem(
                "m1", "user", (items.InputTextPart("hello"), items.InputAudioPart(transcript="hm", audio=bytes(4)))
            ),
            items.FunctionCallItem("c1", "call_1", "weather", "{}"),
            items.FunctionCallOutputItem("o1", "call_1", "sunny"),
            items.ItemReference("m0"),
        ),
        input_paths=tuple(f"response.input[{i}]" for i in range(4)),
        cancel_previous=False,
    )


@pytest.mark.parametrize("body", [{}, {"response": None}, {"response": {}}])
def test_response_create_empty(body: dict[str, Any]) -> None:
    answer = decode({"type": "response.create", **body})
    assert answer == ce.ResponseCreate(options=sc.ResponseOptions())
    assert answer.options.max_output_tokens is UNSET
    assert answer.options.input is None


def options(**body: Any) -> sc.ResponseOptions:
    answer = decode({"type": "response.create", "response": body})
    assert isinstance(answer, ce.ResponseCreate), answer
    return answer.options


@pytest.mark.parametrize("codec", [CODEC_OCTOBER, CODEC_DECEMBER, CODEC])
def test_input_items_are_the_input(codec: Any) -> None:
    given = [{"type": "item_reference", "id": "a"}, {"type": "message", "id": "b"}]
    created = decode({"type": "response.create", "response": {"input_items": given}}, codec)
    assert created.options.input == (items.ItemReference("a"), items.ItemReference("b"))
    assert created.options.input_paths == ("response.input_items[0]", "response.input_items[1]")


@pytest.mark.parametrize("codec", [CODEC_OCTOBER, CODEC_DECEMBER, CODEC])
def test_append_input_items(codec: Any) -> None:
    created = decode(
        {"type": "response.create", "response": {"append_input_items": [CALL_JSON, OUTPUT_JSON]}}, codec
    )
    assert created.options.input is None
    assert created.options.append == (
        items.FunctionCallItem("c1", "call_1", "weather", "{}"),
        items.FunctionCallOutputItem("o1", "call_1", "sunny"),
    )
    assert options(append_input_items=[]).append == ()


def test_references_cannot_be_appended() -> None:
    body = {"append_input_items": [{"type": "item_reference", "id": "a"}]}
    found = fault({"type": "response.create", "event_id": "e1", "response": body})
    assert (found.code, found.param) == ("invalid_value", "response.append_input_items[0].type")


@pytest.mark.parametrize(
    ("one", "other"),
    [("input", "input_items"), ("input", "append_input_items"), ("input_items", "append_input_items")],
)
def test_one_context_at_a_time(one: str, other: str) -> None:
    bodies: tuple[dict[str, Any], ...] = ({one: [], other: []}, {other: [], one: []})
    for body in bodies:
        assert fault({"type": "response.create", "event_id": "e1", "response": body}) == error(
            "invalid_value",
            f"Invalid 'response.{other}': it cannot be used together with 'response.{one}'.",
            f"response.{other}",
        )


def test_alpha_fields() -> None:
    assert options(commit=False).conversation == "none"
    assert options(commit=True).conversation == "auto"
    assert options(commit=True, conversation="none").conversation == "none"
    assert options(cancel_previous=True).cancel_previous is True


def test_empty_input_is_an_empty_context() -> None:
    assert options(input=[]).input == ()
    assert options().input is None


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "a"},
        {"type": "message", "id": "a"},
        {"type": "message", "role": "user", "content": [{"type": "item_reference", "id": "a"}]},
    ],
)
def test_spellings_of_references(item: dict[str, Any]) -> None:
    assert options(input=[item]).input == (items.ItemReference("a"),)


def test_one_message_of_several_references() -> None:
    parts = [{"type": "item_reference", "id": name} for name in ("a", "b")]
    assert options(input=[{"type": "message", "role": "user", "content": parts}]).input == (
        items.ItemReference("a"),
        items.ItemReference("b"),
    )


def test_reference_parts_do_not_mix_with_others() -> None:
    content = [PART["input_text"], PART["item_reference"]]
    body = {"input": [{"type": "message", "role": "user", "content": content}]}
    found = fault({"type": "response.create", "event_id": "e1", "response": body})
    assert (found.code, found.param) == ("invalid_value", "response.input[0].content[1].type")


def test_metadata_at_the_end_and_beyond() -> None:
    assert options(metadata={f"k{i}": "v" for i in range(16)}).metadata
    found = fault(
        {"type": "response.create", "event_id": "e1", "response": {"metadata": {f"k{i}": "v" for i in range(17)}}}
    )
    assert found == error(
        "object_above_max_properties",
        "Invalid 'response.metadata': too many properties. Expected an object with at most 16 properties, "
        "but got 17 properties instead.",
        "response.metadata",
    )
    key = "k" * 64
    assert options(metadata={key: "v"}).metadata == {key: "v"}
    found = fault({"type": "response.create", "response": {"metadata": {key + "k": "v"}}})
    assert (found.code, found.param) == ("string_above_max_length", f"response.metadata.{key}k")


def test_prompt_is_no_field_of_a_response() -> None:
    found = fault({"type": "response.create", "event_id": "e1", "response": {"prompt": "hello"}})
    assert found == error("unknown_parameter", "Unknown parameter: 'response.prompt'.", "response.prompt")


def test_cancel_and_truncate() -> None:
    assert decode({"type": "response.cancel"}) == ce.ResponseCancel()
    assert decode({"type": "response.cancel", "response_id": None}) == ce.ResponseCancel()
    assert decode(full("response.cancel")) == ce.ResponseCancel(response_id="resp_1", event_id="e1")
    assert decode(full("conversation.item.retrieve")) == ce.ItemRetrieve(item_id="m1", event_id="e1")
    assert decode(full("conversation.item.truncate")) == ce.ItemTruncate(
        item_id="m1", content_index=0, audio_end_ms=1500, event_id="e1"
    )
    assert decode(full("conversation.item.delete")) == ce.ItemDelete(item_id="m1", event_id="e1")


@pytest.mark.parametrize("number", ["1.0", "1e1", "1.5", "-1", "true", '"1"'])
def test_integers_are_written_as_integers(number: str) -> None:
    frame = f'{{"type":"conversation.item.truncate","item_id":"a","content_index":{number},"audio_end_ms":0}}'
    answer = CODEC.decode(frame)
    assert isinstance(answer, ce.Rejected)
    assert answer.error.param == "content_index"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "01", "+1", ".5", "1."])
def test_tokens_that_are_no_numbers(number: str) -> None:
    answer = CODEC.decode(f'{{"type":"session.update","session":{{"temperature":{number}}}}}')
    assert isinstance(answer, ce.Rejected)
    assert answer.error.code == "invalid_json"


# --------------------------------------------------------------------------------------------- odd documents


@pytest.mark.parametrize(
    ("frame", "meaning"),
    [
        ('{"type":"conversation.item.delete","item_id":"x","item_id":"y"}', ce.ItemDelete(item_id="y")),
        ('{"type":"conversation.item.delete","item_id":5,"item_id":"y"}', ce.ItemDelete(item_id="y")),
        ('{"type":"input_audio_buffer.commit","type":"input_audio_buffer.clear"}', ce.InputAudioClear()),
        ('{"type":"nope","type":"input_audio_buffer.clear"}', ce.InputAudioClear()),
        ('{"event_id":"a","event_id":null,"type":"input_audio_buffer.clear"}', ce.InputAudioClear()),
    ],
)
def test_of_a_repeated_key_the_last_value_counts(frame: str, meaning: ce.ClientEvent) -> None:
    assert CODEC.decode(frame) == meaning


def test_of_a_repeated_key_the_last_value_may_be_at_fault() -> None:
    answer = CODEC.decode('{"type":"conversation.item.delete","item_id":"x","item_id":5}')
    assert isinstance(answer, ce.Rejected)
    assert (answer.error.code, answer.error.param) == ("invalid_type", "item_id")


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xfe",
        b'{"type":"\xff"}',
        b'{"type":"input_audio_buffer.commit","event_id":"\xc3"}',
        '{"type":"\ud800"}',
        '{"type":"input_audio_buffer.commit","event_id":"\\ud800"}',
        '\ufeff{"type":"input_audio_buffer.commit"}',
        b"",
        "",
        "[" * 100_000 + "]" * 100_000,
        '{"type":"session.update","session":{"max_response_output_tokens":' + "9" * 5000 + "}}",
    ],
    ids=range(10),
)
def test_text_that_is_no_json(frame: str | bytes) -> None:
    answer = CODEC.decode(frame)
    assert isinstance(answer, ce.Rejected)
    assert answer.error.code == "invalid_json"
    assert answer.error.event_id is None


def test_bytes_and_text_are_read_alike() -> None:
    frame = '{"type":"input_audio_buffer.commit","event_id":"é€🙂"}'
    assert CODEC.decode(frame) == CODEC.decode(frame.encode()) == ce.InputAudioCommit(event_id="é€🙂")


@pytest.mark.parametrize(("levels", "fits"), [(100, True), (101, False), (900, False)])
def test_the_schema_of_a_tool_is_not_nested_too_deeply(levels: int, fits: bool) -> None:
    """What is accepted can be written back in ``session.updated``."""
    schema: dict[str, Any] = {}
    for _ in range(levels - 1):
        schema = {"items": schema}
    event = {
        "type": "session.update",
        "session": {"tools": [{"type": "function", "name": "f", "parameters": schema}]},
    }
    if fits:
        assert isinstance(decode(event), ce.SessionUpdate)
    else:
        found = fault(event)
        assert (found.code, found.param) == ("invalid_value", "session.tools[0].parameters")


@pytest.mark.parametrize("event", [{"type": "x" * 100_000}, {"type": "response.cancel", "y" * 100_000: 1}])
def test_an_error_repeats_no_more_than_anybody_would_read(event: dict[str, Any]) -> None:
    assert len(fault(event).message) < 1000
