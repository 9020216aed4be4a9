"""What a lenient decoder takes beside the protocol, and that it takes nothing else (protocol section 8)."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import given
from test_codec_fuzz import mutated_events
from test_preview_in import FULL, full

from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import session_config as sc
from vivavoce.wire.codec import preview_codec
from vivavoce.wire.dialects.preview_lenient import forgive
from vivavoce.wire.dialects.profiles import PROFILES

STRICT: Final = preview_codec("azure-2025-04")
LENIENT: Final = preview_codec("azure-2025-04", strict=False)

PROMPT: Final = items.MessageItem("", "user", (items.InputTextPart("why?"),))


def options(**body: Any) -> ce.ResponseCreate:
    event = LENIENT.decode(json.dumps({"type": "response.create", "event_id": "e1", "response": body}))
    assert isinstance(event, ce.ResponseCreate), event
    return event


def test_the_alias_of_the_token_limit() -> None:
    for given_, meant in ((7, 7), ("inf", None)):
        event = options(max_response_output_tokens=given_)
        assert event.options.max_output_tokens == meant
        assert event.forgiven == ("response.max_response_output_tokens for max_output_tokens",)


def test_a_prompt_is_one_text_of_the_user() -> None:
    event = options(prompt="why?")
    assert event.options.input == (PROMPT,)
    assert event.options.input_paths == ("response.input[0]",)
    assert event.forgiven == ("response.prompt for a message in input",)


def test_a_prompt_stands_after_the_input() -> None:
    event = options(input=[{"type": "item_reference", "id": "a"}], prompt="why?")
    assert event.options.input == (items.ItemReference("a"), PROMPT)


def test_a_prompt_stands_after_items_under_their_alpha_names() -> None:
    assert options(input_items=[], prompt="why?").options.input == (PROMPT,)
    appended = options(append_input_items=[], prompt="why?").options
    assert (appended.input, appended.append) == (None, (PROMPT,))
    refused = LENIENT.decode(
        '{"type": "response.create", "response": {"input": [], "append_input_items": [], "prompt": "why?"}}'
    )
    assert isinstance(refused, ce.Rejected)
    assert refused.error.param == "response.append_input_items"


def test_two_kinds_in_one_event() -> None:
    assert len(options(prompt="why?", max_response_output_tokens=7).forgiven) == 2


@pytest.mark.parametrize("kind", ["session.update", "transcription_session.update"])
@pytest.mark.parametrize("name", ["prefix_padding_ms", "silence_duration_ms"])
def test_milliseconds_in_quotes(kind: str, name: str) -> None:
    vad = {"type": "server_vad", name: "0320"}
    event = LENIENT.decode(json.dumps({"type": kind, "session": {"turn_detection": vad}}))
    assert isinstance(event, ce.SessionUpdate)
    assert isinstance(event.session.turn_detection, sc.ServerVad)
    assert getattr(event.session.turn_detection, name) == 320
    assert event.forgiven == (f"session.turn_detection.{name} as a string",)


@pytest.mark.parametrize("text", ["", " 1", "1.0", "1e3", "+1", "0x10", "١", "9" * 10, "9" * 5000, "1ms"])
def test_other_texts_are_no_milliseconds(text: str) -> None:
    frame = json.dumps(
        {"type": "session.update", "session": {"turn_detection": {"type": "server_vad", "prefix_padding_ms": text}}}
    )
    assert LENIENT.decode(frame) == STRICT.decode(frame)
    assert isinstance(LENIENT.decode(frame), ce.Rejected)


@pytest.mark.parametrize("name", FULL)
def test_nothing_is_forgiven_where_nothing_is_wrong(name: str) -> None:
    frame = json.dumps(full(name))
    assert LENIENT.decode(frame) == STRICT.decode(frame)
    assert forgive(json.loads(frame)) == ()


@given(frame=mutated_events())
def test_without_these_spellings_both_read_alike(frame: str) -> None:
    value = json.loads(frame)
    if not forgive(value):
        for profile in PROFILES:
            lenient = preview_codec(profile, strict=False)
            assert lenient.decode(frame) == preview_codec(profile).decode(frame)


@pytest.mark.parametrize("value", [None, [], "x", {}, {"type": 5}, {"type": "response.create", "response": 5}])
def test_what_is_no_event_is_left_alone(value: Any) -> None:
    assert forgive(value) == ()
