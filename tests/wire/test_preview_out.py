"""Every server event as the preview dialect prints it: the whole frame, keys in order, in each profile."""

from __future__ import annotations

import base64
import json
from typing import Any, Final, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.wire import items
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc
from vivavoce.wire.codec import preview_codec
from vivavoce.wire.dialects.preview_out import PreviewEncoder
from vivavoce.wire.dialects.profiles import PROFILES
from vivavoce.wire.errors import ErrorBody, ServerFault

OCTOBER: Final = "azure-2024-10-01"
DECEMBER: Final = "azure-2024-12-17"
APRIL: Final = "azure-2025-04"

WRITTEN: Final = 'é "\\\n\x7f\u2028🙂'
"""Words that take some escaping."""
SERVER_EVENTS: Final = {
    "error",
    "session.created",
    "session.updated",
    "conversation.created",
    "conversation.item.created",
    "conversation.item.deleted",
    "conversation.item.truncated",
    "conversation.item.input_audio_transcription.completed",
    "conversation.item.input_audio_transcription.failed",
    "input_audio_buffer.committed",
    "input_audio_buffer.cleared",
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "response.created",
    "response.done",
    "response.output_item.added",
    "response.output_item.done",
    "response.content_part.added",
    "response.content_part.done",
    "response.text.delta",
    "response.text.done",
    "response.audio_transcript.delta",
    "response.audio_transcript.done",
    "response.audio.delta",
    "response.audio.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "rate_limits.updated",
}
"""The 28 of the preview protocol."""
LATER_SERVER_EVENTS: Final = {
    "conversation.item.retrieved",
    "conversation.item.input_audio_transcription.delta",
    "transcription_session.created",
    "transcription_session.updated",
}
"""Those that only the profile of 2025 sends."""

MESSAGE: Final = items.MessageItem(
    "item_1",
    "user",
    (items.InputTextPart("hé"), items.InputAudioPart(), items.InputAudioPart("said", b"\0\0")),
)
MESSAGE_JSON: Final = {
    "id": "item_1",
    "object": "realtime.item",
    "type": "message",
    "status": "completed",
    "role": "user",
    "content": [
        {"type": "input_text", "text": "hé"},
        {"type": "input_audio", "transcript": None},
        {"type": "input_audio", "transcript": "said"},
    ],
}
RETRIEVED_JSON: Final = {
    **MESSAGE_JSON,
    "content": [
        {"type": "input_text", "text": "hé"},
        {"type": "input_audio", "transcript": None, "audio": "AAE="},
        {"type": "input_audio", "transcript": "said"},
    ],
}
ANSWER: Final = items.MessageItem(
    "item_2", "assistant", (items.TextPart("hi"), items.AudioPart("ho"), items.AudioPart(None)), "incomplete"
)
ANSWER_JSON: Final = {
    "id": "item_2",
    "object": "realtime.item",
    "type": "message",
    "status": "incomplete",
    "role": "assistant",
    "content": [
        {"type": "text", "text": "hi"},
        {"type": "audio", "transcript": "ho"},
        {"type": "audio", "transcript": None},
    ],
}
CALL: Final = items.FunctionCallItem("item_3", "call_1", "weather", '{"a":1}', "in_progress")
CALL_JSON: Final = {
    "id": "item_3",
    "object": "realtime.item",
    "type": "function_call",
    "status": "in_progress",
    "name": "weather",
    "call_id": "call_1",
    "arguments": '{"a":1}',
}
OUTPUT: Final = items.FunctionCallOutputItem("item_4", "call_1", "sunny")
OUTPUT_JSON: Final = {
    "id": "item_4",
    "object": "realtime.item",
    "type": "function_call_output",
    "status": "completed",
    "call_id": "call_1",
    "output": "sunny",
}
AT: Final = ("resp_1", "item_2", 0, 0)
AT_JSON: Final = {"response_id": "resp_1", "item_id": "item_2", "output_index": 0, "content_index": 0}
FAULT: Final = ServerFault(code="engine_down", message="It is down.")
FAULT_JSON: Final = {"type": "server_error", "code": "engine_down", "message": "It is down."}
LIMITS: Final = (
    se.RateLimit(name="requests", limit=100, remaining=99, reset_seconds=0.6),
    se.RateLimit(name="tokens", limit=20000, remaining=19000, reset_seconds=3.0),
)
LIMITS_JSON: Final = [
    {"name": "requests", "limit": 100, "remaining": 99, "reset_seconds": 0.6},
    {"name": "tokens", "limit": 20000, "remaining": 19000, "reset_seconds": 3.0},
]
FULL_CONFIG: Final = sc.SessionConfig(
    modalities=("text",),
    instructions='Say "é".',
    voice="verse",
    input_audio_format="g711_ulaw",
    output_audio_format="g711_alaw",
    input_audio_transcription=sc.Transcription("whisper-1", "en", "names"),
    turn_detection=sc.ServerVad(0.25, 100, 700, create_response=False, interrupt_response=False),
    tools=(sc.FunctionTool("f", "does", {"type": "object"}), sc.FunctionTool("g")),
    tool_choice=sc.NamedFunction("f"),
    temperature=0.7,
    max_output_tokens=12,
    speed=1.5,
)
PLAIN_CONFIG: Final = sc.SessionConfig(input_audio_transcription=sc.Transcription())


def session(config: sc.SessionConfig) -> se.Session:
    return se.Session(id="sess_1", model="gpt-4o-realtime-preview-2024-12-17", expires_at=1800, config=config)


def response(**fields: Any) -> se.Response:
    base: dict[str, Any] = {
        "id": "resp_1",
        "status": "in_progress",
        "conversation_id": "conv_1",
        "modalities": ("audio", "text"),
        "voice": "alloy",
        "output_audio_format": "pcm16",
        "temperature": 0.8,
    }
    return se.Response(**(base | fields))


DONE: Final = response(
    status="incomplete",
    status_details=se.StatusDetails(type="incomplete", reason="max_output_tokens"),
    output=(ANSWER, CALL),
    usage=se.Usage(
        input_text=100, input_audio=30, cached_text=50, cached_audio=14, output_text=21, output_audio=56
    ),
    metadata={"topic": "x"},
    max_output_tokens=77,
)

SIMPLE: Final[list[tuple[se.ServerEvent, dict[str, Any]]]] = [
    (
        se.ErrorRaised(ErrorBody(code="invalid_value", message="No.", param="type", event_id="e1")),
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "code": "invalid_value",
                "message": "No.",
                "param": "type",
                "event_id": "e1",
            },
        },
    ),
    (
        se.ErrorRaised(ErrorBody(code=None, message="No.")),
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "code": None,
                "message": "No.",
                "param": None,
                "event_id": None,
            },
        },
    ),
    (
        se.ConversationCreated("conv_1"),
        {"type": "conversation.created", "conversation": {"id": "conv_1", "object": "realtime.conversation"}},
    ),
    (
        se.ItemAdded(None, MESSAGE),
        {"type": "conversation.item.created", "previous_item_id": None, "item": MESSAGE_JSON},
    ),
    (
        se.ItemAdded("item_1", ANSWER),
        {"type": "conversation.item.created", "previous_item_id": "item_1", "item": ANSWER_JSON},
    ),
    (
        se.ItemAdded("item_2", CALL),
        {"type": "conversation.item.created", "previous_item_id": "item_2", "item": CALL_JSON},
    ),
    (
        se.ItemAdded("item_3", OUTPUT),
        {"type": "conversation.item.created", "previous_item_id": "item_3", "item": OUTPUT_JSON},
    ),
    (se.ItemDeleted("item_1"), {"type": "conversation.item.deleted", "item_id": "item_1"}),
    (
        se.ItemTruncated("item_1", 0, 1500),
        {"type": "conversation.item.truncated", "item_id": "item_1", "content_index": 0, "audio_end_ms": 1500},
    ),
    (
        se.TranscriptionFailed("item_1", 0, FAULT),
        {
            "type": "conversation.item.input_audio_transcription.failed",
            "item_id": "item_1",
            "content_index": 0,
            "error": {**FAULT_JSON, "param": None},
        },
    ),
    (
        se.InputAudioCommitted("item_0", "item_1"),
        {"type": "input_audio_buffer.committed", "previous_item_id": "item_0", "item_id": "item_1"},
    ),
    (se.InputAudioCleared(), {"type": "input_audio_buffer.cleared"}),
    (
        se.SpeechStarted(1460, "item_1"),
        {"type": "input_audio_buffer.speech_started", "audio_start_ms": 1460, "item_id": "item_1"},
    ),
    (
        se.SpeechStopped(4256, "item_1"),
        {"type": "input_audio_buffer.speech_stopped", "audio_end_ms": 4256, "item_id": "item_1"},
    ),
    (
        se.OutputItemAdded("resp_1", 1, CALL),
        {"type": "response.output_item.added", "response_id": "resp_1", "output_index": 1, "item": CALL_JSON},
    ),
    (
        se.OutputItemDone("resp_1", 0, ANSWER),
        {"type": "response.output_item.done", "response_id": "resp_1", "output_index": 0, "item": ANSWER_JSON},
    ),
    (
        se.ContentPartAdded(*AT, items.TextPart("")),
        {"type": "response.content_part.added", **AT_JSON, "part": {"type": "text", "text": ""}},
    ),
    (
        se.ContentPartDone(*AT, items.AudioPart("ho")),
        {"type": "response.content_part.done", **AT_JSON, "part": {"type": "audio", "transcript": "ho"}},
    ),
    (se.TextDelta(*AT, "h"), {"type": "response.text.delta", **AT_JSON, "delta": "h"}),
    (se.TextDone(*AT, "hi"), {"type": "response.text.done", **AT_JSON, "text": "hi"}),
    (se.TextDelta(*AT, WRITTEN), {"type": "response.text.delta", **AT_JSON, "delta": WRITTEN}),
    (se.TranscriptDelta(*AT, "h"), {"type": "response.audio_transcript.delta", **AT_JSON, "delta": "h"}),
    (se.TranscriptDelta(*AT, WRITTEN), {"type": "response.audio_transcript.delta", **AT_JSON, "delta": WRITTEN}),
    (se.TranscriptDone(*AT, "hi"), {"type": "response.audio_transcript.done", **AT_JSON, "transcript": "hi"}),
    (se.AudioDelta(*AT, b"\0\1\2"), {"type": "response.audio.delta", **AT_JSON, "delta": "AAEC"}),
    (se.AudioDone(*AT), {"type": "response.audio.done", **AT_JSON}),
    (
        se.ArgumentsDelta("resp_1", "item_3", 1, "call_1", '{"a'),
        {
            "type": "response.function_call_arguments.delta",
            "response_id": "resp_1",
            "item_id": "item_3",
            "output_index": 1,
            "call_id": "call_1",
            "delta": '{"a',
        },
    ),
    (
        se.ArgumentsDone("resp_1", "item_3", 1, "call_1", "weather", '{"a":1}'),
        {
            "type": "response.function_call_arguments.done",
            "response_id": "resp_1",
            "item_id": "item_3",
            "output_index": 1,
            "call_id": "call_1",
            "name": "weather",
            "arguments": '{"a":1}',
        },
    ),
]
"""Events that look alike in every profile."""

SESSION_HEAD: Final = {
    "id": "sess_1",
    "object": "realtime.session",
    "model": "gpt-4o-realtime-preview-2024-12-17",
    "expires_at": 1800,
}
EXTRAS: Final = {"input_audio_noise_reduction": None, "include": None, "client_secret": None, "tracing": None}


def full_session(**extras: Any) -> dict[str, Any]:
    return {
        **SESSION_HEAD,
        "modalities": ["text"],
        "instructions": 'Say "é".',
        "voice": "verse",
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.25,
            "prefix_padding_ms": 100,
            "silence_duration_ms": 700,
            "create_response": False,
            "interrupt_response": False,
        },
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_alaw",
        "input_audio_transcription": {"model": "whisper-1", "language": "en", "prompt": "names"},
        "tool_choice": {"type": "function", "name": "f"},
        "temperature": 0.7,
        "max_response_output_tokens": 12,
        "tools": [
            {"type": "function", "name": "f", "description": "does", "parameters": {"type": "object"}},
            {"type": "function", "name": "g"},
        ],
        **extras,
    }


def plain_session(turn_detection: dict[str, Any], transcription: dict[str, Any], **extras: Any) -> dict[str, Any]:
    return {
        **SESSION_HEAD,
        "modalities": ["audio", "text"],
        "instructions": "",
        "voice": "alloy",
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.5,
            "prefix_padding_ms": 300,
            "silence_duration_ms": 200,
            **turn_detection,
        },
        "input_audio_format": "pcm16",
        "output_audio_format": "pcm16",
        "input_audio_transcription": {"model": "whisper-1", **transcription},
        "tool_choice": "auto",
        "temperature": 0.8,
        "max_response_output_tokens": "inf",
        "tools": [],
        **extras,
    }


BODY_CREATED: Final[dict[str, Any]] = {
    "object": "realtime.response",
    "id": "resp_1",
    "status": "in_progress",
    "status_details": None,
    "output": [],
}
BODY_DONE: Final = {
    "object": "realtime.response",
    "id": "resp_1",
    "status": "incomplete",
    "status_details": {"type": "incomplete", "reason": "max_output_tokens"},
    "output": [ANSWER_JSON, CALL_JSON],
}
DESCRIBED: Final = {
    "conversation_id": "conv_1",
    "modalities": ["audio", "text"],
    "voice": "alloy",
    "output_audio_format": "pcm16",
    "temperature": 0.8,
}


def usage(**details: Any) -> dict[str, Any]:
    return {
        "total_tokens": 207,
        "input_tokens": 130,
        "output_tokens": 77,
        "input_token_details": {"cached_tokens": 64, "text_tokens": 100, "audio_tokens": 30, **details},
        "output_token_details": {"text_tokens": 21, "audio_tokens": 56},
    }


CACHED: Final = {"cached_tokens_details": {"text_tokens": 50, "audio_tokens": 14}}
TRANSCRIBED_JSON: Final[dict[str, Any]] = {
    "type": "conversation.item.input_audio_transcription.completed",
    "item_id": "item_1",
    "content_index": 0,
    "transcript": "hello",
}
TRANSCRIPTION_SESSION: Final = se.Session(
    id="sess_1",
    model="m",
    expires_at=1800,
    config=sc.SessionConfig(
        turn_detection=None,
        input_audio_format="g711_alaw",
        input_audio_noise_reduction="far_field",
        include=("item.input_audio_transcription.logprobs",),
    ),
    kind="transcription",
)
BY_PROFILE: Final[list[tuple[str, se.ServerEvent, dict[str, Any] | None]]] = [
    (
        OCTOBER,
        se.SessionCreated(session(PLAIN_CONFIG)),
        {"type": "session.created", "session": plain_session({}, {})},
    ),
    (
        DECEMBER,
        se.SessionCreated(session(PLAIN_CONFIG)),
        {"type": "session.created", "session": plain_session({"create_response": True}, {})},
    ),
    (
        APRIL,
        se.SessionCreated(session(PLAIN_CONFIG)),
        {
            "type": "session.created",
            "session": plain_session(
                {"create_response": True, "interrupt_response": True},
                {"language": None, "prompt": None},
                speed=1.0,
                **EXTRAS,
            ),
        },
    ),
    (OCTOBER, se.SessionUpdated(session(FULL_CONFIG)), {"type": "session.updated", "session": full_session()}),
    (DECEMBER, se.SessionUpdated(session(FULL_CONFIG)), {"type": "session.updated", "session": full_session()}),
    (
        APRIL,
        se.SessionUpdated(session(FULL_CONFIG)),
        {"type": "session.updated", "session": full_session(speed=1.5, **EXTRAS)},
    ),
    (
        OCTOBER,
        se.ResponseCreated(response()),
        {"type": "response.created", "response": {**BODY_CREATED, "usage": None}},
    ),
    *(
        (
            profile,
            se.ResponseCreated(response()),
            {
                "type": "response.created",
                "response": {
                    **BODY_CREATED,
                    **DESCRIBED,
                    "max_output_tokens": "inf",
                    "usage": None,
                    "metadata": None,
                },
            },
        )
        for profile in (DECEMBER, APRIL)
    ),
    (
        OCTOBER,
        se.ResponseDone(DONE),
        {"type": "response.done", "response": {**BODY_DONE, "usage": usage(), "metadata": {"topic": "x"}}},
    ),
    *(
        (
            profile,
            se.ResponseDone(DONE),
            {
                "type": "response.done",
                "response": {
                    **BODY_DONE,
                    **DESCRIBED,
                    "max_output_tokens": 77,
                    "usage": usage(**CACHED),
                    "metadata": {"topic": "x"},
                },
            },
        )
        for profile in (DECEMBER, APRIL)
    ),
    *(
        (
            profile,
            se.TranscriptionCompleted("item_1", 0, "hello", se.TranscriptionDuration(3), None),
            TRANSCRIBED_JSON,
        )
        for profile in (OCTOBER, DECEMBER)
    ),
    (
        APRIL,
        se.TranscriptionCompleted("item_1", 0, "hello", se.TranscriptionDuration(3)),
        {**TRANSCRIBED_JSON, "usage": {"type": "duration", "seconds": 3}},
    ),
    (
        APRIL,
        se.TranscriptionCompleted("item_1", 0, "hello", se.TranscriptionTokens(20, 3, 2), None),
        {
            **TRANSCRIBED_JSON,
            "usage": {
                "type": "tokens",
                "total_tokens": 25,
                "input_tokens": 23,
                "input_token_details": {"text_tokens": 3, "audio_tokens": 20},
                "output_tokens": 2,
            },
            "logprobs": None,
        },
    ),
    (
        APRIL,
        se.TranscriptionDelta("item_1", 0, "hé", (se.Logprob("h", -0.5), se.Logprob("é", -0.125))),
        {
            "type": "conversation.item.input_audio_transcription.delta",
            "item_id": "item_1",
            "content_index": 0,
            "delta": "hé",
            "logprobs": [
                {"token": "h", "logprob": -0.5, "bytes": [104]},
                {"token": "é", "logprob": -0.125, "bytes": [195, 169]},
            ],
        },
    ),
    *(
        (
            APRIL,
            event,
            {
                "type": f"transcription_session.{name}",
                "session": {
                    "id": "sess_1",
                    "object": "realtime.transcription_session",
                    "expires_at": 1800,
                    "modalities": ["audio", "text"],
                    "turn_detection": None,
                    "input_audio_format": "g711_alaw",
                    "input_audio_transcription": None,
                    "input_audio_noise_reduction": {"type": "far_field"},
                    "include": ["item.input_audio_transcription.logprobs"],
                    "client_secret": None,
                },
            },
        )
        for name, event in (
            ("created", se.SessionCreated(TRANSCRIPTION_SESSION)),
            ("updated", se.SessionUpdated(TRANSCRIPTION_SESSION)),
        )
    ),
    *((profile, se.TranscriptionDelta("item_1", 0, "he"), None) for profile in (OCTOBER, DECEMBER)),
    (
        APRIL,
        se.TranscriptionDelta("item_1", 0, "he"),
        {
            "type": "conversation.item.input_audio_transcription.delta",
            "item_id": "item_1",
            "content_index": 0,
            "delta": "he",
        },
    ),
    (
        APRIL,
        se.ItemRetrieved(MESSAGE, {1: b"\0\1"}),
        {"type": "conversation.item.retrieved", "item": RETRIEVED_JSON},
    ),
    (APRIL, se.ItemRetrieved(CALL, {}), {"type": "conversation.item.retrieved", "item": CALL_JSON}),
    (OCTOBER, se.RateLimitsUpdated("created", LIMITS), None),
    (
        OCTOBER,
        se.RateLimitsUpdated("done", LIMITS),
        {"type": "rate_limits.updated", "rate_limits": LIMITS_JSON},
    ),
    *(
        row
        for profile in (DECEMBER, APRIL)
        for row in (
            (
                profile,
                se.RateLimitsUpdated("created", LIMITS),
                {"type": "rate_limits.updated", "rate_limits": LIMITS_JSON},
            ),
            (profile, se.RateLimitsUpdated("done", LIMITS), None),
        )
    ),
]
SILENT: Final[list[se.ServerEvent]] = [se.ItemDone(None, MESSAGE), se.IdleTimedOut(0, 0, "item_1")]
"""Events that the preview dialect does not have."""


def frame(body: dict[str, Any]) -> bytes:
    kind, *rest = body.items()
    ordered = dict([kind, ("event_id", "event_1"), *rest])
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("event", "body"), SIMPLE, ids=[f"{type(e).__name__}-{i}" for i, (e, _) in enumerate(SIMPLE)]
)
def test_event(profile: str, event: se.ServerEvent, body: dict[str, Any]) -> None:
    assert preview_codec(profile).encode(event, "event_1") == frame(body)


@pytest.mark.parametrize(
    ("profile", "event", "body"), BY_PROFILE, ids=[f"{p}-{type(e).__name__}" for p, e, _ in BY_PROFILE]
)
def test_event_of_a_profile(profile: str, event: se.ServerEvent, body: dict[str, Any] | None) -> None:
    assert preview_codec(profile).encode(event, "event_1") == (None if body is None else frame(body))


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("event", SILENT, ids=[type(e).__name__ for e in SILENT])
def test_event_that_the_dialect_has_not(profile: str, event: se.ServerEvent) -> None:
    assert preview_codec(profile).encode(event, "event_1") is None


def test_the_tables_have_every_event_and_every_name() -> None:
    shown = {type(event) for event, _ in SIMPLE} | {type(event) for _, event, _ in BY_PROFILE}
    assert shown | {type(event) for event in SILENT} == set(get_args(se.ServerEvent))
    names = {body["type"] for _, body in SIMPLE} | {body["type"] for _, _, body in BY_PROFILE if body}
    assert names == SERVER_EVENTS | LATER_SERVER_EVENTS
    assert len(SERVER_EVENTS) == 28


def test_conversation_created_can_be_left_out() -> None:
    encoder = PreviewEncoder(PROFILES[OCTOBER], conversation_created=False)
    assert encoder.encode(se.ConversationCreated("conv_1"), "event_1") is None
    assert preview_codec(APRIL, conversation_created=False).encode(se.ConversationCreated("c"), "e") is None


def test_unknown_profile() -> None:
    with pytest.raises(KeyError):
        preview_codec("azure-1999")


@pytest.mark.parametrize(
    ("details", "body"),
    [
        (
            se.StatusDetails(type="cancelled", reason="turn_detected"),
            {"type": "cancelled", "reason": "turn_detected"},
        ),
        (se.StatusDetails(type="failed", error=FAULT), {"type": "failed", "error": FAULT_JSON}),
    ],
)
def test_status_details(details: se.StatusDetails, body: dict[str, Any]) -> None:
    printed = preview_codec(DECEMBER).encode(
        se.ResponseDone(response(status=details.type, status_details=details)), "event_1"
    )
    assert printed is not None
    assert json.loads(printed)["response"]["status_details"] == body


def test_out_of_band_has_no_conversation() -> None:
    printed = preview_codec(DECEMBER).encode(se.ResponseCreated(response(conversation_id=None)), "event_1")
    assert printed is not None
    assert json.loads(printed)["response"]["conversation_id"] is None


@given(
    data=st.binary(max_size=200),
    ids=st.tuples(*[st.from_regex(r"[a-z]{4,5}_[0-9A-Za-z]{16,21}", fullmatch=True)] * 3),
    output_index=st.integers(0, 10**6),
    content_index=st.integers(0, 10),
)
def test_audio_template_is_what_the_encoder_would_write(
    data: bytes, ids: tuple[str, str, str], output_index: int, content_index: int
) -> None:
    event_id, response_id, item_id = ids
    event = se.AudioDelta(response_id, item_id, output_index, content_index, data)
    assert preview_codec(DECEMBER).encode(event, event_id) == msgspec.json.encode(
        {
            "type": "response.audio.delta",
            "event_id": event_id,
            "response_id": response_id,
            "item_id": item_id,
            "output_index": output_index,
            "content_index": content_index,
            "delta": base64.b64encode(data).decode(),
        }
    )


@given(text=st.text())
def test_text_goes_out_as_it_is(text: str) -> None:
    encode = preview_codec(DECEMBER).encode
    for event, key in (
        (se.TextDelta(*AT, text), "delta"),
        (se.TranscriptDone(*AT, text), "transcript"),
        (se.ArgumentsDone("resp_1", "item_1", 0, "call_1", "f", text), "arguments"),
    ):
        printed = encode(event, "event_1")
        assert printed is not None
        assert json.loads(printed)[key] == text


def test_semantic_vad_is_shown_whole() -> None:
    """openai 1.99's types have all of its fields; those of ``server_vad`` are not among them."""
    config = sc.SessionConfig(turn_detection=sc.SemanticVad(eagerness="high", interrupt_response=False))
    codec = preview_codec("azure-2025-04")
    event = se.SessionUpdated(se.Session(id="sess_1", model="m", expires_at=1, config=config))
    assert json.loads(codec.encode(event, "event_1") or b"")["session"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "high",
        "create_response": True,
        "interrupt_response": False,
    }
