"""What a client secret is asked for with, and what is handed out (protocol section 1.5)."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc
from vivavoce.wire.client_secrets import SecretRequest
from vivavoce.wire.codec import codec_of
from vivavoce.wire.errors import ClientFault

GA = codec_of("openai-ga")
PREVIEW = codec_of("azure-2025-04")
LENIENT = codec_of("azure-2025-04", strict=False)


def ga(body: dict[str, Any]) -> SecretRequest:
    return GA.secret_request(body, "realtime")


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({}, 600),
        ({"expires_after": {}}, 600),
        ({"expires_after": {"anchor": "created_at", "seconds": 10}}, 10),
        ({"expires_after": {"seconds": 7200}}, 7200),
    ],
)
def test_ga_tells_how_long_it_lives(body: dict[str, Any], seconds: int) -> None:
    assert ga(body) == SecretRequest(session=sc.SessionPatch(), kind="realtime", seconds=seconds)


def test_ga_takes_the_settings_of_session_update() -> None:
    session = {"type": "realtime", "model": "m", "audio": {"output": {"voice": "cedar"}}, "max_output_tokens": 7}
    asked = ga({"session": session}).session
    assert (asked.model, asked.voice, asked.max_output_tokens, asked.tools) == ("m", "cedar", 7, UNSET)


def test_ga_tells_the_kind_in_the_body() -> None:
    asked = ga({"session": {"type": "transcription", "audio": {"input": {"turn_detection": None}}}})
    assert (asked.kind, asked.session.turn_detection) == ("transcription", None)


@pytest.mark.parametrize(
    ("body", "kind", "seconds"),
    [
        ({"model": "m", "voice": "verse"}, "realtime", 60),
        ({"client_secret": {"expires_after": {"anchor": "created_at", "seconds": 600}}}, "realtime", 600),
        ({"client_secret": {}}, "transcription", 60),
        ({"input_audio_format": "g711_ulaw"}, "transcription", 60),
    ],
)
def test_preview_has_the_settings_at_the_top(body: dict[str, Any], kind: sc.SessionKind, seconds: int) -> None:
    asked = PREVIEW.secret_request(body, kind)
    assert (asked.kind, asked.seconds) == (kind, seconds)
    assert asked.session.model == body.get("model", UNSET)
    assert asked.session.input_audio_format == body.get("input_audio_format", UNSET)


def test_a_lenient_server_reads_what_documents_print() -> None:
    body = {"turn_detection": {"type": "server_vad", "silence_duration_ms": "450"}}
    vad = LENIENT.secret_request(json.loads(json.dumps(body)), "realtime").session.turn_detection
    assert isinstance(vad, sc.ServerVad)
    assert vad.silence_duration_ms == 450
    with pytest.raises(ClientFault):
        PREVIEW.secret_request(body, "realtime")


VAD = {"type": "server_vad", "threshold": 2}
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("ga", {"expires_in": 60}, "unknown_parameter", "expires_in"),
    ("ga", {"expires_after": {"seconds": 9}}, "integer_below_min_value", "expires_after.seconds"),
    ("ga", {"expires_after": {"seconds": 7201}}, "integer_above_max_value", "expires_after.seconds"),
    ("ga", {"expires_after": {"anchor": "now"}}, "invalid_value", "expires_after.anchor"),
    ("ga", {"session": {"model": "m"}}, "missing_required_parameter", "session.type"),
    ("ga", {"session": {"type": "other"}}, "invalid_value", "session.type"),
    ("ga", {"session": {"type": "realtime", "voice": "alloy"}}, "unknown_parameter", "session.voice"),
    ("ga", {"session": {"type": "realtime", "model": 1}}, "invalid_type", "session.model"),
    (
        "ga",
        {"session": {"type": "realtime", "audio": {"input": {"turn_detection": VAD}}}},
        "decimal_above_max_value",
        "session.audio.input.turn_detection.threshold",
    ),
    ("ga", {"session": {"type": "transcription", "model": "m"}}, "unknown_parameter", "session.model"),
    ("realtime", {"type": "realtime"}, "unknown_parameter", "type"),
    ("realtime", {"voice": "marin"}, "invalid_value", "voice"),
    ("realtime", {"modalities": ["audio"]}, "invalid_value", "modalities"),
    ("realtime", {"turn_detection": VAD}, "decimal_above_max_value", "turn_detection.threshold"),
    (
        "realtime",
        {"client_secret": {"expires_after": {"seconds": 1}}},
        "integer_below_min_value",
        "client_secret.expires_after.seconds",
    ),
    ("transcription", {"voice": "alloy"}, "unknown_parameter", "voice"),
]


@pytest.mark.parametrize(("door", "body", "code", "param"), REFUSED)
def test_refused_as_session_update_is(door: str, body: dict[str, Any], code: str, param: str) -> None:
    codec = GA if door == "ga" else PREVIEW
    with pytest.raises(ClientFault) as fault:
        codec.secret_request(body, "transcription" if door == "transcription" else "realtime")
    error = codec.secret_error(fault.value)
    assert (error.code, error.param) == (code, param)
    assert "session.session" not in error.message
    assert "'session." not in error.message or door == "ga"


def session(kind: sc.SessionKind, **settings: Any) -> se.Session:
    return se.Session(id="sess_1", model="m", expires_at=0, config=sc.SessionConfig(**settings), kind=kind)


@pytest.mark.parametrize("kind", ["realtime", "transcription"])
def test_ga_hands_out_the_session_of_session_created(kind: sc.SessionKind) -> None:
    of = session(kind, voice="cedar")
    handed = json.loads(GA.client_secret(of, "ek_1", 1700))
    created = GA.encode(se.SessionCreated(of), "event_1")
    assert created is not None
    assert handed == {"value": "ek_1", "expires_at": 1700, "session": json.loads(created)["session"]}


@pytest.mark.parametrize("profile", ["azure-2025-04", "azure-2024-10-01"])
def test_preview_puts_the_secret_into_the_session(profile: str) -> None:
    codec, of = codec_of(profile), session("realtime", voice="verse")
    created = codec.encode(se.SessionCreated(of), "event_1")
    assert created is not None
    secret = {"value": "ek_1", "expires_at": 1700}
    assert json.loads(codec.client_secret(of, "ek_1", 1700)) == {
        **json.loads(created)["session"], "client_secret": secret
    }  # fmt: skip


def test_preview_transcription() -> None:
    handed = json.loads(PREVIEW.client_secret(session("transcription"), "ek_1", 1700))
    assert (handed["object"], handed["client_secret"]["value"]) == ("realtime.transcription_session", "ek_1")


# ------------------------------------------------------------------------------------------------- whatever comes

GA_FULL: dict[str, Any] = {
    "expires_after": {"anchor": "created_at", "seconds": 60},
    "session": {
        "type": "realtime",
        "model": "m",
        "output_modalities": ["text"],
        "instructions": "x",
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "tool_choice": {"type": "function", "name": "f"},
        "max_output_tokens": "inf",
        "include": None,
        "tracing": {"workflow_name": "w"},
        "audio": {
            "input": {"format": {"type": "audio/pcm", "rate": 24000}, "turn_detection": {"type": "server_vad"}},
            "output": {"format": {"type": "audio/pcmu"}, "voice": "marin", "speed": 1},
        },
    },
}
PREVIEW_FULL: dict[str, Any] = {
    "client_secret": {"expires_after": {"anchor": "created_at", "seconds": 60}},
    "model": "m",
    "modalities": ["text"],
    "temperature": 0.8,
    "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
    "input_audio_transcription": {"model": "whisper-1", "language": None},
    "max_response_output_tokens": 5,
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "tools": [{"type": "function", "name": "f"}],
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.sampled_from(["realtime", "transcription", "server_vad", "auto", "text", "audio", "inf"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("type"), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@settings(max_examples=300)
@given(data=st.data(), full=st.sampled_from([GA_FULL, PREVIEW_FULL]))
def test_every_body_is_read_or_refused_in_words_of_the_catalogue(data: st.DataObject, full: dict[str, Any]) -> None:
    body = copy.deepcopy(full)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(body)))
        container[key] = data.draw(JSON)
    body = msgspec.json.decode(msgspec.json.encode(body))
    for codec in (GA, PREVIEW, LENIENT):
        for kind in get_args(sc.SessionKind):
            with suppress(ClientFault):
                assert 10 <= codec.secret_request(copy.deepcopy(body), kind).seconds <= 7200
