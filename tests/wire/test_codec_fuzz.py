"""Whatever comes in, an event or a fault of the catalogue comes out, and the fault can be sent."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any, Final, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs
from test_ga_in import FULL as GA_FULL
from test_preview_in import FULL, full

from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import server_events as se
from vivavoce.wire.codec import Codec, ga_codec, preview_codec
from vivavoce.wire.dialects.ga_shapes import EVENTS as GA_EVENTS
from vivavoce.wire.dialects.preview_shapes import event_shapes
from vivavoce.wire.dialects.profiles import PROFILES
from vivavoce.wire.faults import first_fault
from vivavoce.wire.session_config import SessionConfig

CODECS: Final = [preview_codec(profile) for profile in PROFILES]
NAMES: Final = dict(zip(CODECS, PROFILES, strict=True))
GA: Final = ga_codec("openai-ga")
SHAPES: Final = {codec: event_shapes(PROFILES[name]) for codec, name in NAMES.items()} | {GA: GA_EVENTS}
CATALOGUE: Final = {
    "invalid_json",
    "invalid_event",
    "invalid_value",
    "unknown_parameter",
    "missing_required_parameter",
    "invalid_type",
    "string_above_max_length",
    "string_below_min_length",
    "decimal_below_min_value",
    "decimal_above_max_value",
    "integer_below_min_value",
    "integer_above_max_value",
    "object_above_max_properties",
}
"""Codes of faults that can be told from the frame alone."""

LEAVES: Final = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=8)
    | st.sampled_from(
        ["message", "function_call", "item_reference", "input_audio", "server_vad", "none", "x" * 600]
    )
)
VALUES: Final = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "id", "name", "content", "item", "session"]), inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def check(codec: Codec, frame: str | bytes) -> None:
    answer = codec.decode(frame)
    if isinstance(answer, ce.Rejected):
        assert answer.error.code in CATALOGUE
        assert answer.error.type == "invalid_request_error"
        printed = codec.encode(se.ErrorRaised(answer.error), "event_1")
        assert printed is not None
        assert json.loads(printed)["error"]["message"] == answer.error.message
    else:
        assert isinstance(answer, get_args(ce.ClientEvent))
        # The fast way and the slow one agree.
        value = json.loads(frame)
        assert first_fault(value, SHAPES[codec][value["type"]]) is None


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@st.composite
def mutated_events(draw: st.DrawFn, *, ga: bool = False) -> str:
    """A valid event with up to three things wrong in it, perhaps with a key twice."""
    kind = draw(st.sampled_from(sorted(GA_FULL if ga else FULL)))
    event = {"type": kind, "event_id": "e1", **copy.deepcopy(GA_FULL[kind])} if ga else full(kind)
    for _ in range(draw(st.integers(1, 3))):
        found = places(event)
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        match draw(st.sampled_from(["replace", "delete", "add", "copy"])):
            case "replace":
                container[key] = draw(VALUES)
            case "delete":
                del container[key]
            case "add" if isinstance(container, dict):
                container[draw(st.text(max_size=4))] = draw(VALUES)
            case _:
                source, name = draw(st.sampled_from(found))
                if isinstance(source, list) or name in source:
                    container[key] = copy.deepcopy(source[name]) if not isinstance(name, int) else None
    text = json.dumps(event)
    if draw(st.booleans()) and text.startswith("{"):
        name = draw(st.sampled_from(["type", "event_id", "item", "session", "response", "audio", "item_id"]))
        text = f'{{"{name}":{json.dumps(draw(VALUES))},{text[1:]}' if len(text) > 2 else text
    return text


@pytest.mark.parametrize("codec", CODECS, ids=list(PROFILES))
@settings(max_examples=400)
@given(frame=mutated_events())
@example(frame='{"type":"conversation.item.delete","item_id":5,"item_id":"x"}')
def test_mutated_events(codec: Codec, frame: str) -> None:
    check(codec, frame)


@settings(max_examples=800)
@given(frame=mutated_events(ga=True))
def test_mutated_events_of_ga(frame: str) -> None:
    check(GA, frame)


@settings(max_examples=300)
@given(value=VALUES, kind=st.sampled_from(sorted(FULL)))
def test_any_json(value: Any, kind: str) -> None:
    for codec in (CODECS[-1], GA):
        check(codec, json.dumps(value))
        check(codec, json.dumps({"type": kind.split()[0], "session": value, "item": value, "response": value}))


@given(frame=st.binary(max_size=60) | st.text(st.characters(), max_size=60))
@example(frame="\ud800")
@example(frame='{"type":"\ud800"}')
@example(frame=b'{"type":"input_audio_buffer.commit","event_id":"\xff"}')
def test_any_bytes_and_any_text(frame: bytes | str) -> None:
    check(CODECS[0], frame)


@given(kind=st.sampled_from(sorted(FULL)), data=st.data())
def test_frames_that_were_cut_or_disturbed(kind: str, data: st.DataObject) -> None:
    frame = bytearray(json.dumps(full(kind)).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    check(CODECS[-1], bytes(frame[: data.draw(st.integers(0, len(frame)))]))


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"type":"session.update","session":{"tools":['])
@pytest.mark.parametrize("depth", [10, 500, 990, 1000, 3000, 100_000])
def test_deep_nesting(opening: str, depth: int) -> None:
    head, step = (opening, "[") if opening.endswith("[") else ("", opening)
    close = "]" if step == "[" else "}"
    check(CODECS[-1], head + step * depth + "1" + close * depth)
    check(CODECS[-1], head + step * depth)


# ---------------------------------------------------------------------------------------------- round trips


@given(audio=st.binary(max_size=300), event_id=st.none() | st.text(max_size=512))
def test_append_round_trip(audio: bytes, event_id: str | None) -> None:
    frame = json.dumps(
        {"type": "input_audio_buffer.append", "audio": base64.b64encode(audio).decode(), "event_id": event_id}
    )
    assert CODECS[0].decode(frame) == ce.InputAudioAppend(audio=audio, event_id=event_id)


@given(text=st.text(), output=st.text(), call_id=st.text(max_size=40), ascii_only=st.booleans())
def test_item_round_trip(text: str, output: str, call_id: str, ascii_only: bool) -> None:
    """What goes in as an item comes out as the same item."""
    for item in (
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
        {"type": "function_call", "name": text, "call_id": call_id, "arguments": output},
        {"type": "function_call_output", "call_id": call_id, "output": output},
    ):
        body = {"id": "i1", "object": "realtime.item", "status": "completed", **item}
        event = CODECS[1].decode(
            json.dumps({"type": "conversation.item.create", "item": body}, ensure_ascii=ascii_only)
        )
        assert isinstance(event, ce.ItemCreate)
        printed = CODECS[1].encode(se.ItemAdded(None, event.item), "event_1")
        assert printed is not None
        assert json.loads(printed)["item"] == body


SESSIONS: Final = st.fixed_dictionaries(
    {},
    optional={
        "modalities": st.sampled_from([["text"], ["audio", "text"], ["text", "audio"]]),
        "instructions": st.text(),
        "voice": st.sampled_from(["alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"]),
        "input_audio_format": st.sampled_from(["pcm16", "g711_ulaw", "g711_alaw"]),
        "output_audio_format": st.sampled_from(["pcm16", "g711_ulaw", "g711_alaw"]),
        "input_audio_transcription": st.none()
        | st.fixed_dictionaries(
            {"model": st.text(), "language": st.none() | st.text(), "prompt": st.none() | st.text()}
        ),
        "turn_detection": st.none()
        | st.fixed_dictionaries(
            {
                "type": st.just("server_vad"),
                "threshold": st.floats(0, 1),
                "prefix_padding_ms": st.integers(0, 5000),
                "silence_duration_ms": st.integers(0, 10_000),
                "create_response": st.booleans(),
                "interrupt_response": st.booleans(),
            }
        ),
        "tools": st.lists(
            st.fixed_dictionaries(
                {"type": st.just("function"), "name": st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)},
                optional={
                    "description": st.text(max_size=1024),
                    "parameters": st.dictionaries(st.text(max_size=5), st.integers() | st.text(), max_size=3),
                },
            ),
            max_size=3,
        ),
        "tool_choice": st.sampled_from(["auto", "none", "required", {"type": "function", "name": "f"}]),
        "temperature": st.floats(0.6, 1.2),
        "max_response_output_tokens": st.just("inf") | st.integers(1, 4096),
        "speed": st.floats(0.25, 1.5),
    },
)


@given(session=SESSIONS)
def test_session_round_trip(session: dict[str, Any]) -> None:
    """What a client sets is what ``session.updated`` shows."""
    event = CODECS[-1].decode(json.dumps({"type": "session.update", "session": session}))
    assert isinstance(event, ce.SessionUpdate)
    changes = {n: v for n in SessionConfig.__struct_fields__ if (v := getattr(event.session, n)) is not UNSET}
    config = structs.replace(SessionConfig(), **changes)
    printed = CODECS[-1].encode(
        se.SessionUpdated(se.Session(id="sess_1", model="m", expires_at=1, config=config)), "event_1"
    )
    assert printed is not None
    shown = json.loads(printed)["session"]
    assert {key: shown[key] for key in session} == session


def test_audio_is_never_echoed() -> None:
    item = items.MessageItem("i1", "user", (items.InputAudioPart("x", b"\1\2\3\4"),))
    printed = CODECS[0].encode(se.ItemAdded(None, item), "event_1")
    assert printed is not None
    assert json.loads(printed)["item"]["content"] == [{"type": "input_audio", "transcript": "x"}]
