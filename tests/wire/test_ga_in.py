"""What a GA client says, and what is refused."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

import pytest
from msgspec import UNSET

from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import session_config as sc
from vivavoce.wire.codec import ga_codec
from vivavoce.wire.dialects.ga_shapes import EVENTS

CODEC: Final = ga_codec("openai-ga")
SOUND: Final = bytes(range(8))
B64: Final = base64.b64encode(SOUND).decode()
TOOL: Final = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}

FULL: Final[dict[str, dict[str, Any]]] = {
    "session.update": {
        "session": {
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "instructions": "Be brief.",
            "tools": [TOOL],
            "tool_choice": {"type": "function", "name": "look"},
            "max_output_tokens": 7,
            "tracing": {"workflow_name": "w", "group_id": "g", "metadata": {"k": [1]}},
            "truncation": {
                "type": "retention_ratio",
                "retention_ratio": 0.8,
                "token_limits": {"post_instructions": 8000},
            },
            "prompt": {
                "id": "p",
                "version": "2",
                "variables": {"a": "b", "c": {"type": "input_text", "text": "d"}},
            },
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "whisper-1", "language": "en", "prompt": "names"},
                    "noise_reduction": {"type": "near_field"},
                    "turn_detection": {
                        "type": "server_vad",
                        "threshold": 0.25,
                        "prefix_padding_ms": 100,
                        "silence_duration_ms": 700,
                        "create_response": False,
                        "interrupt_response": False,
                        "idle_timeout_ms": 5000,
                    },
                },
                "output": {"format": {"type": "audio/pcma"}, "voice": "cedar", "speed": 0.5},
            },
            "include": ["item.input_audio_transcription.logprobs"],
        }
    },
    "input_audio_buffer.append": {"audio": B64},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "conversation.item.create": {
        "previous_item_id": "root",
        "item": {
            "id": "i1",
            "type": "message",
            "object": "realtime.item",
            "status": "completed",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Hi"},
                {"type": "input_audio", "audio": B64, "transcript": "hello"},
            ],
        },
    },
    "conversation.item.delete": {"item_id": "i1"},
    "conversation.item.truncate": {"item_id": "i1", "content_index": 0, "audio_end_ms": 5},
    "conversation.item.retrieve": {"item_id": "i1"},
    "response.create": {
        "response": {
            "output_modalities": ["text"],
            "instructions": "Sing.",
            "audio": {"output": {"format": {"type": "audio/pcmu"}, "voice": "marin"}},
            "tools": [TOOL],
            "tool_choice": "required",
            "max_output_tokens": "inf",
            "conversation": "none",
            "metadata": {"k": "v"},
            "prompt": {"id": "p"},
            "input": [
                {"type": "item_reference", "id": "i1"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "seen"},
            ],
        }
    },
    "response.cancel": {"response_id": "r1"},
}


def decode(kind: str, body: dict[str, Any]) -> ce.ClientEvent | ce.Rejected:
    return CODEC.decode(json.dumps({"type": kind, "event_id": "e1", **body}))


def refused(kind: str, body: dict[str, Any]) -> tuple[str | None, str | None]:
    answer = decode(kind, body)
    assert isinstance(answer, ce.Rejected), answer
    assert answer.error.event_id == "e1"
    return answer.error.code, answer.error.param


def update(**session: Any) -> sc.SessionPatch:
    event = decode("session.update", {"session": {"type": "realtime", **session}})
    assert isinstance(event, ce.SessionUpdate), event
    return event.session


def test_every_event_has_a_sample() -> None:
    assert list(FULL) == list(EVENTS)


def test_a_whole_session() -> None:
    assert decode("session.update", FULL["session.update"]) == ce.SessionUpdate(
        event_id="e1",
        session=sc.SessionPatch(
            model="gpt-realtime",
            modalities=("audio", "text"),
            instructions="Be brief.",
            voice="cedar",
            input_audio_format="pcm16",
            output_audio_format="g711_alaw",
            input_audio_transcription=sc.Transcription("whisper-1", "en", "names"),
            turn_detection=sc.ServerVad(
                0.25, 100, 700, create_response=False, interrupt_response=False, idle_timeout_ms=5000
            ),
            input_audio_noise_reduction="near_field",
            tools=(sc.FunctionTool("look", "Looks.", {"type": "object"}),),
            tool_choice=sc.NamedFunction("look"),
            max_output_tokens=7,
            speed=0.5,
            include=("item.input_audio_transcription.logprobs",),
            tracing={"workflow_name": "w", "group_id": "g", "metadata": {"k": [1]}},
            truncation=sc.RetentionRatio(retention_ratio=0.8, post_instructions=8000),
            prompt=sc.PromptReference(id="p", version="2", variables={"a": "b", "c": items.InputTextPart("d")}),
        ),
    )


def test_what_is_not_named_is_left_alone() -> None:
    empty = sc.SessionPatch()
    assert update() == empty
    assert update(audio={}) == empty
    assert update(audio={"input": {}, "output": {}}) == empty


def test_null_where_it_means_off() -> None:
    patch = update(audio={"input": {"transcription": None, "noise_reduction": None, "turn_detection": None}})
    assert patch.input_audio_transcription is None
    assert patch.input_audio_noise_reduction is None
    assert patch.turn_detection is None
    assert update(tracing=None, include=None) == sc.SessionPatch(tracing=None, include=None)


def test_turn_detection() -> None:
    def detect(**fields: Any) -> Any:
        return update(audio={"input": {"turn_detection": fields}}).turn_detection

    assert detect(type="server_vad") == sc.ServerVad(silence_duration_ms=200)
    assert detect(type="server_vad", idle_timeout_ms=None) == sc.ServerVad()
    assert detect(type="semantic_vad", eagerness="low") == sc.SemanticVad("low")
    assert detect(type="none") is None


def test_modalities_and_limits() -> None:
    assert update(output_modalities=["text"]).modalities == ("text",)
    assert update(max_output_tokens="inf").max_output_tokens is None
    assert update(max_output_tokens=4096).max_output_tokens == 4096


def test_an_empty_text_takes_instructions_back() -> None:
    assert update(instructions="").instructions is None
    assert update(instructions=" ").instructions == " "
    assert update().instructions is UNSET


def test_a_transcription_session() -> None:
    session = {
        "type": "transcription",
        "audio": {"input": {"format": {"type": "audio/pcmu"}, "transcription": {"model": "m"}}},
        "include": None,
    }
    assert decode("session.update", {"session": session}) == ce.SessionUpdate(
        event_id="e1",
        kind="transcription",
        session=sc.SessionPatch(
            input_audio_format="g711_ulaw", input_audio_transcription=sc.Transcription("m"), include=None
        ),
    )


def test_items() -> None:
    assert decode("conversation.item.create", FULL["conversation.item.create"]) == ce.ItemCreate(
        event_id="e1",
        previous_item_id="root",
        item=items.MessageItem(
            "i1", "user", (items.InputTextPart("Hi"), items.InputAudioPart(transcript="hello", audio=SOUND))
        ),
    )


def test_a_response() -> None:
    assert decode("response.create", FULL["response.create"]) == ce.ResponseCreate(
        event_id="e1",
        options=sc.ResponseOptions(
            modalities=("text",),
            instructions="Sing.",
            voice="marin",
            output_audio_format="g711_ulaw",
            tools=(sc.FunctionTool("look", "Looks.", {"type": "object"}),),
            tool_choice="required",
            max_output_tokens=None,
            prompt=sc.PromptReference(id="p"),
            conversation="none",
            metadata={"k": "v"},
            input=(
                items.ItemReference("i1"),
                items.MessageItem("", "assistant", (items.TextPart("Yes."),)),
                items.FunctionCallItem("", "c1", "look", "{}"),
                items.FunctionCallOutputItem("", "c1", "seen"),
            ),
        ),
    )
    nothing: dict[str, Any]
    for nothing in ({}, {"response": None}, {"response": {}}, {"response": {"instructions": None}}):
        event = decode("response.create", nothing)
        assert event == ce.ResponseCreate(event_id="e1", options=sc.ResponseOptions())


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("input_audio_buffer.append", ce.InputAudioAppend(audio=SOUND, event_id="e1")),
        ("input_audio_buffer.commit", ce.InputAudioCommit(event_id="e1")),
        ("input_audio_buffer.clear", ce.InputAudioClear(event_id="e1")),
        ("conversation.item.delete", ce.ItemDelete(item_id="i1", event_id="e1")),
        (
            "conversation.item.truncate",
            ce.ItemTruncate(item_id="i1", content_index=0, audio_end_ms=5, event_id="e1"),
        ),
        ("conversation.item.retrieve", ce.ItemRetrieve(item_id="i1", event_id="e1")),
        ("response.cancel", ce.ResponseCancel(response_id="r1", event_id="e1")),
    ],
)
def test_the_other_events(kind: str, event: ce.ClientEvent) -> None:
    assert decode(kind, FULL[kind]) == event


HEAR: Final = "session.audio.input"
SPEAK: Final = "session.audio.output"


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({}, "missing_required_parameter", "session.type"),
        ({"modalities": ["text"]}, "missing_required_parameter", "session.type"),
        ({"type": "session"}, "invalid_value", "session.type"),
        ({"type": None}, "invalid_type", "session.type"),
        ({"type": "realtime", "temperature": 0.8}, "unknown_parameter", "session.temperature"),
        ({"type": "realtime", "voice": "ash"}, "unknown_parameter", "session.voice"),
        ({"type": "realtime", "id": "sess_1"}, "unknown_parameter", "session.id"),
        ({"type": "realtime", "reasoning": "low"}, "invalid_type", "session.reasoning"),
        ({"type": "realtime", "reasoning": {"effort": "none"}}, "invalid_value", "session.reasoning.effort"),
        ({"type": "realtime", "reasoning": {"effort": None}}, "invalid_type", "session.reasoning.effort"),
        ({"type": "realtime", "reasoning": {"summary": "auto"}}, "unknown_parameter", "session.reasoning.summary"),
        ({"type": "realtime", "parallel_tool_calls": 1}, "invalid_type", "session.parallel_tool_calls"),
        ({"type": "realtime", "output_modalities": ["text", "audio"]}, "invalid_value",
         "session.output_modalities"),
        ({"type": "realtime", "output_modalities": []}, "invalid_value", "session.output_modalities"),
        ({"type": "realtime", "output_modalities": ["x"]}, "invalid_value", "session.output_modalities[0]"),
        ({"type": "realtime", "max_output_tokens": 4097}, "integer_above_max_value", "session.max_output_tokens"),
        ({"type": "realtime", "truncation": "off"}, "invalid_value", "session.truncation"),
        ({"type": "realtime", "truncation": 0.8}, "invalid_type", "session.truncation"),
        ({"type": "realtime", "truncation": {"type": "auto", "retention_ratio": 1}}, "invalid_value",
            "session.truncation.type"),
        ({"type": "realtime", "truncation": {"type": "retention_ratio"}}, "missing_required_parameter",
            "session.truncation.retention_ratio"),
        ({"type": "realtime", "truncation": {"type": "retention_ratio", "retention_ratio": -0.1}},
            "decimal_below_min_value", "session.truncation.retention_ratio"),
        ({"type": "realtime", "truncation": {"type": "retention_ratio", "retention_ratio": 1,
            "token_limits": {"post_instructions": -1}}},
            "integer_below_min_value", "session.truncation.token_limits.post_instructions"),
        ({"type": "realtime", "prompt": "p"}, "invalid_type", "session.prompt"),
        ({"type": "realtime", "prompt": {"version": "1"}}, "missing_required_parameter", "session.prompt.id"),
        ({"type": "realtime", "prompt": {"id": "p", "name": "n"}}, "unknown_parameter", "session.prompt.name"),
        ({"type": "realtime", "prompt": {"id": "p", "variables": ["a"]}}, "invalid_type",
            "session.prompt.variables"),
        ({"type": "realtime", "prompt": {"id": "p", "variables": {"a": None}}}, "invalid_type",
            "session.prompt.variables.a"),
        ({"type": "realtime", "prompt": {"id": "p", "variables": {"a": {"text": "b"}}}},
            "missing_required_parameter", "session.prompt.variables.a.type"),
        ({"type": "realtime", "prompt": {"id": "p", "variables": {"a": {"type": "input_image", "image_url": "b"}}}},
            "invalid_value", "session.prompt.variables.a.type"),
        ({"type": "realtime", "prompt": {"id": "p", "variables": {"a": {"type": "input_text"}}}},
            "missing_required_parameter", "session.prompt.variables.a.text"),
        ({"type": "realtime", "tools": [{"type": "mcp", "name": "x"}]}, "invalid_value", "session.tools[0].type"),
        ({"type": "realtime", "tool_choice": {"type": "function"}}, "missing_required_parameter",
         "session.tool_choice.name"),
        ({"type": "realtime", "tool_choice": {"type": "function", "function": {"name": "f"}}}, "unknown_parameter",
         "session.tool_choice.function"),
        ({"type": "realtime", "audio": None}, "invalid_type", "session.audio"),
        ({"type": "realtime", "audio": {"input": {"voice": "ash"}}}, "unknown_parameter", f"{HEAR}.voice"),
        ({"type": "realtime", "audio": {"input": {"format": "pcm16"}}}, "invalid_type", f"{HEAR}.format"),
        ({"type": "realtime", "audio": {"input": {"format": {"type": "pcm16"}}}}, "invalid_value",
         f"{HEAR}.format.type"),
        ({"type": "realtime", "audio": {"input": {"format": {"rate": 24000}}}}, "missing_required_parameter",
         f"{HEAR}.format.type"),
        ({"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 8000}}}},
         "integer_below_min_value", f"{HEAR}.format.rate"),
        ({"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 48000}}}},
         "integer_above_max_value", f"{HEAR}.format.rate"),
        ({"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu", "rate": 8000}}}},
         "unknown_parameter", f"{HEAR}.format.rate"),
        ({"type": "realtime", "audio": {"output": {"voice": "nova"}}}, "invalid_value", f"{SPEAK}.voice"),
        ({"type": "realtime", "audio": {"output": {"voice": {"id": "v"}}}}, "invalid_type", f"{SPEAK}.voice"),
        ({"type": "realtime", "audio": {"output": {"speed": 2}}}, "decimal_above_max_value", f"{SPEAK}.speed"),
        ({"type": "transcription", "instructions": "x"}, "unknown_parameter", "session.instructions"),
        ({"type": "transcription", "audio": {"output": {}}}, "unknown_parameter", "session.audio.output"),
    ],
)  # fmt: skip
def test_refused_settings(session: dict[str, Any], code: str, param: str) -> None:
    assert refused("session.update", {"session": session}) == (code, param)


@pytest.mark.parametrize(
    ("kind", "body", "code", "param"),
    [
        ("transcription_session.update", {"session": {}}, "invalid_value", "type"),
        ("output_audio_buffer.clear", {}, "invalid_value", "type"),
        ("response.create", {"response": {"modalities": ["text"]}}, "unknown_parameter", "response.modalities"),
        ("response.create", {"response": {"voice": "ash"}}, "unknown_parameter", "response.voice"),
        ("response.create", {"response": {"commit": True}}, "unknown_parameter", "response.commit"),
        ("response.create", {"response": {"audio": {"input": {}}}}, "unknown_parameter", "response.audio.input"),
        ("response.create", {"response": {"input": [{"type": "message", "id": "i1"}]}},
         "missing_required_parameter", "response.input[0].role"),
    ],
)  # fmt: skip
def test_refused_events(kind: str, body: dict[str, Any], code: str, param: str) -> None:
    assert refused(kind, body) == (code, param)


@pytest.mark.parametrize(
    ("role", "part", "code"),
    [
        ("assistant", {"type": "text", "text": "x"}, "invalid_value"),
        ("assistant", {"type": "input_text", "text": "x"}, "invalid_value"),
        ("assistant", {"type": "output_audio", "transcript": "x"}, "invalid_value"),
        ("user", {"type": "output_text", "text": "x"}, "invalid_value"),
        ("assistant", {"type": "input_audio", "audio": B64}, "invalid_value"),
        ("assistant", {"type": "input_image", "image_url": "data:"}, "invalid_value"),
        ("system", {"type": "input_image", "image_url": "data:"}, "invalid_value"),
        ("system", {"type": "output_text", "text": "x"}, "invalid_value"),
        ("system", {"type": "output_audio", "transcript": "x"}, "invalid_value"),
        ("user", {"type": "output_audio", "transcript": "x"}, "invalid_value"),
        ("system", {"type": "input_audio", "audio": B64}, "invalid_value"),
        ("user", {"type": "item_reference", "id": "i1"}, "invalid_value"),
    ],
)
def test_who_may_say_what(role: str, part: dict[str, Any], code: str) -> None:
    item = {"type": "message", "role": role, "content": [part]}
    assert refused("conversation.item.create", {"item": item}) == (code, "item.content[0].type")
