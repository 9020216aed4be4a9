"""What a GA client is told: every event, every key, in the order of the recordings."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, get_args

import msgspec
import pytest

from vivavoce.wire import errors, items
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc
from vivavoce.wire.codec import codec_of, ga_codec
from vivavoce.wire.dialects.ga_out import obfuscation
from vivavoce.wire.dialects.profiles import GA_PROFILES

OPENAI: Final = ga_codec("openai-ga")
AZURE: Final = ga_codec("azure-ga")
PCM: Final = {"type": "audio/pcm", "rate": 24000}
SAID: Final = items.MessageItem("i2", "assistant", (items.AudioPart("Hi"),))
CALL: Final = items.FunctionCallItem("i3", "c1", "look", "{}")
AT: Final = {"response_id": "r1", "item_id": "i2", "output_index": 0, "content_index": 1}

SHOWN_SAID: Final = {
    "id": "i2",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_audio", "transcript": "Hi"}],
}
SHOWN_CALL: Final = {
    "id": "i3",
    "type": "function_call",
    "status": "completed",
    "name": "look",
    "call_id": "c1",
    "arguments": "{}",
}
VAD: Final = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
HEARS: Final = {"format": PCM, "transcription": None, "noise_reduction": None, "turn_detection": VAD}
SESSION: Final = {
    "type": "realtime",
    "object": "realtime.session",
    "id": "s1",
    "model": "m",
    "output_modalities": ["audio"],
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "tracing": None,
    "truncation": "auto",
    "prompt": None,
    "expires_at": 9,
    "audio": {"input": HEARS, "output": {"format": PCM, "voice": "alloy", "speed": 1.0}},
    "include": None,
}
RESPONSE: Final = {
    "object": "realtime.response",
    "id": "r1",
    "status": "completed",
    "status_details": None,
    "output": [SHOWN_SAID, SHOWN_CALL],
    "conversation_id": "c1",
    "output_modalities": ["text"],
    "max_output_tokens": 5,
    "audio": {"output": {"format": {"type": "audio/pcmu"}, "voice": "marin"}},
    "usage": {
        "total_tokens": 42,
        "input_tokens": 3,
        "output_tokens": 39,
        "input_token_details": {
            "text_tokens": 1,
            "audio_tokens": 2,
            "image_tokens": 0,
            "cached_tokens": 7,
            "cached_tokens_details": {"text_tokens": 3, "audio_tokens": 4, "image_tokens": 0},
        },
        "output_token_details": {"text_tokens": 19, "audio_tokens": 20},
    },
    "metadata": {"k": "v"},
}
USAGE: Final = se.Usage(input_text=1, input_audio=2, cached_text=3, cached_audio=4, output_text=19, output_audio=20)


def response(**changes: Any) -> se.Response:
    made = se.Response(
        id="r1",
        status="completed",
        output=(SAID, CALL),
        usage=USAGE,
        conversation_id="c1",
        metadata={"k": "v"},
        modalities=("text",),
        voice="marin",
        output_audio_format="g711_ulaw",
        temperature=0.8,
        max_output_tokens=5,
    )
    return msgspec.structs.replace(made, **changes)


def session(**config: Any) -> se.Session:
    return se.Session(id="s1", model="m", expires_at=9, config=sc.SessionConfig(**config))


LIMITS: Final = (
    se.RateLimit(name="requests", limit=1, remaining=1, reset_seconds=0.5),
    se.RateLimit(name="tokens", limit=9, remaining=8, reset_seconds=0.25),
)
WORDS: Final = "conversation.item.input_audio_transcription"

FRAMES: Final[list[tuple[se.ServerEvent, str | None, dict[str, Any]]]] = [
    (se.ErrorRaised(errors.ErrorBody(code="c", message="m", param="p", event_id="e")), "error",
     {"error": {"type": "invalid_request_error", "code": "c", "message": "m", "param": "p", "event_id": "e"}}),
    (se.SessionCreated(session()), "session.created", {"session": SESSION}),
    (se.SessionUpdated(session()), "session.updated", {"session": SESSION}),
    (se.ConversationCreated("c1"), None, {}),
    (se.ItemAdded("i1", SAID), "conversation.item.added", {"previous_item_id": "i1", "item": SHOWN_SAID}),
    (se.ItemDone(None, CALL), "conversation.item.done", {"previous_item_id": None, "item": SHOWN_CALL}),
    (se.ItemDeleted("i1"), "conversation.item.deleted", {"item_id": "i1"}),
    (se.ItemTruncated("i1", 0, 5), "conversation.item.truncated",
     {"item_id": "i1", "content_index": 0, "audio_end_ms": 5}),
    (se.TranscriptionDelta("i1", 0, "four"), f"{WORDS}.delta",
     {"item_id": "i1", "content_index": 0, "delta": "four", "obfuscation": 12}),
    (se.TranscriptionDelta("i1", 0, "a", (se.Logprob("a", -0.5),)), f"{WORDS}.delta",
     {"item_id": "i1", "content_index": 0, "delta": "a",
      "logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}], "obfuscation": 15}),
    (se.TranscriptionCompleted("i1", 0, "four", se.TranscriptionDuration(3)), f"{WORDS}.completed",
     {"item_id": "i1", "content_index": 0, "transcript": "four", "usage": {"type": "duration", "seconds": 3}}),
    (se.TranscriptionFailed("i1", 0, errors.ServerFault(code="x", message="m")), f"{WORDS}.failed",
     {"item_id": "i1", "content_index": 0,
      "error": {"type": "server_error", "code": "x", "message": "m", "param": None}}),
    (se.InputAudioCommitted(None, "i1"), "input_audio_buffer.committed",
     {"previous_item_id": None, "item_id": "i1"}),
    (se.InputAudioCleared(), "input_audio_buffer.cleared", {}),
    (se.SpeechStarted(20, "i1"), "input_audio_buffer.speech_started", {"audio_start_ms": 20, "item_id": "i1"}),
    (se.SpeechStopped(30, "i1"), "input_audio_buffer.speech_stopped", {"audio_end_ms": 30, "item_id": "i1"}),
    (se.IdleTimedOut(20, 30, "i1"), "input_audio_buffer.timeout_triggered",
     {"audio_start_ms": 20, "audio_end_ms": 30, "item_id": "i1"}),
    (se.ResponseCreated(response()), "response.created", {"response": RESPONSE}),
    (se.ResponseDone(response()), "response.done", {"response": RESPONSE}),
    (se.RateLimitsUpdated("created", LIMITS), None, {}),
    (se.RateLimitsUpdated("done", LIMITS), "rate_limits.updated",
     {"rate_limits": [{"name": "tokens", "limit": 9, "remaining": 8, "reset_seconds": 0.25}]}),
    (se.OutputItemAdded("r1", 0, SAID), "response.output_item.added",
     {"response_id": "r1", "output_index": 0, "item": SHOWN_SAID}),
    (se.OutputItemDone("r1", 1, CALL), "response.output_item.done",
     {"response_id": "r1", "output_index": 1, "item": SHOWN_CALL}),
    (se.ContentPartAdded("r1", "i2", 0, 1, items.AudioPart("")), "response.content_part.added",
     {**AT, "part": {"type": "audio", "transcript": ""}}),
    (se.ContentPartDone("r1", "i2", 0, 1, items.TextPart("Hi")), "response.content_part.done",
     {**AT, "part": {"type": "text", "text": "Hi"}}),
    (se.TextDelta("r1", "i2", 0, 1, "Hi"), "response.output_text.delta", {**AT, "delta": "Hi", "obfuscation": 14}),
    (se.TextDelta("r1", "i2", 0, 1, 'é "\\\n🙂'), "response.output_text.delta",
     {**AT, "delta": 'é "\\\n🙂', "obfuscation": 10}),
    (se.TextDone("r1", "i2", 0, 1, "Hi"), "response.output_text.done", {**AT, "text": "Hi"}),
    (se.TranscriptDelta("r1", "i2", 0, 1, "x" * 16), "response.output_audio_transcript.delta",
     {**AT, "delta": "x" * 16, "obfuscation": 16}),
    (se.TranscriptDone("r1", "i2", 0, 1, "Hi"), "response.output_audio_transcript.done",
     {**AT, "transcript": "Hi"}),
    (se.AudioDelta("r1", "i2", 0, 1, b"\1\2"), "response.output_audio.delta",
     {**AT, "delta": base64.b64encode(b"\1\2").decode()}),
    (se.AudioDone("r1", "i2", 0, 1), "response.output_audio.done", AT),
    (se.ArgumentsDelta("r1", "i3", 1, "c1", "{}"), "response.function_call_arguments.delta",
     {"response_id": "r1", "item_id": "i3", "output_index": 1, "call_id": "c1", "delta": "{}", "obfuscation": 14}),
    (se.ArgumentsDone("r1", "i3", 1, "c1", "look", "{}"), "response.function_call_arguments.done",
     {"response_id": "r1", "item_id": "i3", "output_index": 1, "call_id": "c1", "name": "look",
      "arguments": "{}"}),
    (se.ItemRetrieved(items.MessageItem("i1", "user", (items.InputAudioPart("a"),)), {0: b"\1\2"}),
     "conversation.item.retrieved",
     {"item": {"id": "i1", "type": "message", "status": "completed", "role": "user",
               "content": [{"type": "input_audio", "transcript": "a", "audio": "AQI="}]}}),
    (se.ItemRetrieved(CALL, {}), "conversation.item.retrieved", {"item": SHOWN_CALL}),
]  # fmt: skip


@pytest.mark.parametrize(("event", "kind", "fields"), FRAMES)
def test_frames(event: se.ServerEvent, kind: str | None, fields: dict[str, Any]) -> None:
    frame = OPENAI.encode(event, "event_1")
    if kind is None:
        assert frame is None
        return
    assert frame is not None
    expected = {"type": kind, "event_id": "event_1", **fields}
    if "obfuscation" in fields:
        expected["obfuscation"] = obfuscation(16 - fields["obfuscation"], "event_1")
        assert len(expected["obfuscation"]) == fields["obfuscation"]
    # Dumped, for the order of keys to count.
    assert json.dumps(json.loads(frame)) == json.dumps(expected)


def test_every_event_is_shown() -> None:
    assert {type(event) for event, _, _ in FRAMES} == set(get_args(se.ServerEvent))


@pytest.mark.parametrize(("event", "kind", "fields"), FRAMES)
def test_azure_differs_in_two_things(event: se.ServerEvent, kind: str | None, fields: dict[str, Any]) -> None:
    frame = AZURE.encode(event, "event_1")
    if isinstance(event, se.RateLimitsUpdated):
        assert frame is None
    elif isinstance(event, se.ContentPartAdded | se.ContentPartDone):
        assert frame is not None
        expected = {"type": kind, "event_id": "event_1", **fields, "content": fields["part"]}
        assert json.dumps(json.loads(frame)) == json.dumps(expected)
    else:
        assert frame == OPENAI.encode(event, "event_1")


def shown(**config: Any) -> Any:
    frame = OPENAI.encode(se.SessionUpdated(session(**config)), "event_1")
    assert frame is not None
    return json.loads(frame)["session"]


def test_settings() -> None:
    heard = shown(
        input_audio_format="g711_ulaw",
        input_audio_transcription=sc.Transcription("m"),
        input_audio_noise_reduction="far_field",
        turn_detection=sc.SemanticVad("high"),
    )["audio"]["input"]
    assert heard == {
        "format": {"type": "audio/pcmu"},
        "transcription": {"model": "m", "language": None, "prompt": None},
        "noise_reduction": {"type": "far_field"},
        "turn_detection": {
            "type": "semantic_vad",
            "eagerness": "high",
            "create_response": True,
            "interrupt_response": True,
        },
    }
    waits = shown(turn_detection=sc.ServerVad(idle_timeout_ms=5000))["audio"]["input"]["turn_detection"]
    assert waits == {**VAD, "idle_timeout_ms": 5000}
    assert shown(turn_detection=None)["audio"]["input"]["turn_detection"] is None
    spoken = shown(output_audio_format="g711_alaw", voice="cedar", speed=1.5)["audio"]["output"]
    assert spoken == {"format": {"type": "audio/pcma"}, "voice": "cedar", "speed": 1.5}
    rest = shown(
        modalities=("text",),
        tools=(sc.FunctionTool("f"),),
        tool_choice=sc.NamedFunction("f"),
        max_output_tokens=3,
        tracing="auto",
        include=("item.input_audio_transcription.logprobs",),
    )
    assert rest["output_modalities"] == ["text"]
    assert rest["tools"] == [{"type": "function", "name": "f"}]
    assert rest["tool_choice"] == {"type": "function", "name": "f"}
    assert (rest["max_output_tokens"], rest["tracing"]) == (3, "auto")
    assert rest["include"] == ["item.input_audio_transcription.logprobs"]


def test_a_transcription_session() -> None:
    made = msgspec.structs.replace(session(), kind="transcription")
    frame = OPENAI.encode(se.SessionCreated(made), "event_1")
    assert frame is not None
    expected = {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": "s1",
        "expires_at": 9,
        "audio": {"input": HEARS},
        "include": None,
    }
    assert json.dumps(json.loads(frame)["session"]) == json.dumps(expected)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            items.MessageItem("i", "user", (items.InputTextPart("t"), items.InputAudioPart("a", b"\1"))),
            {"id": "i", "type": "message", "status": "completed", "role": "user",
             "content": [{"type": "input_text", "text": "t"}, {"type": "input_audio", "transcript": "a"}]},
        ),
        (
            items.MessageItem("i", "assistant", (items.TextPart("t"),), "incomplete"),
            {"id": "i", "type": "message", "status": "incomplete", "role": "assistant",
             "content": [{"type": "output_text", "text": "t"}]},
        ),
        (
            items.FunctionCallOutputItem("i", "c", "o"),
            {"id": "i", "type": "function_call_output", "call_id": "c", "output": "o"},
        ),
    ],
)  # fmt: skip
def test_items(item: items.Item, expected: dict[str, Any]) -> None:
    frame = OPENAI.encode(se.ItemAdded(None, item), "event_1")
    assert frame is not None
    assert json.dumps(json.loads(frame)["item"]) == json.dumps(expected)


@pytest.mark.parametrize(
    ("fault", "param", "message"),
    [
        (errors.cannot_update_voice("session.voice"), "session.audio.output.voice", "a conversation's voice"),
        (errors.cannot_update_voice("response.voice"), "response.audio.output.voice", "a conversation's voice"),
        (
            errors.no_noise_reduction("session.input_audio_noise_reduction"),
            "session.audio.input.noise_reduction",
            "'session.audio.input.noise_reduction' can only be null",
        ),
        (errors.unknown_parameter("session.voice"), "session.voice", "'session.voice'"),
        (errors.unknown_tool("f", "session.tool_choice"), "session.tool_choice", "'f'"),
    ],
)
def test_errors_name_the_places_of_this_dialect(fault: errors.ClientFault, param: str, message: str) -> None:
    frame = OPENAI.encode(se.ErrorRaised(fault.body("e")), "event_1")
    assert frame is not None
    error = json.loads(frame)["error"]
    assert (error["param"], error["event_id"]) == (param, "e")
    assert message in error["message"]


def test_padding_hides_the_length_and_says_nothing() -> None:
    for length in range(40):
        padding = obfuscation(length, "event_1")
        assert (length + len(padding)) % 16 == 0
        assert padding.isalnum()
        assert padding == obfuscation(length, "event_1")
    assert obfuscation(0, "event_1") != obfuscation(0, "event_2")


@pytest.mark.parametrize("profile", GA_PROFILES)
def test_a_profile_chooses_its_dialect(profile: str) -> None:
    event = se.TextDone("r1", "i2", 0, 1, "Hi")
    assert codec_of(profile).encode(event, "e") == ga_codec(profile).encode(event, "e")
    assert codec_of("azure-2025-04").encode(event, "e") != codec_of(profile).encode(event, "e")
