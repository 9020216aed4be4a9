"""Scripts of the preview, put into GA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vivavoce.testing.in_ga import client_event, in_ga, server_event
from vivavoce.testing.script import ExpectEvent, Script, ScriptError, parse

USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]}
SPOKEN = {"type": "message", "object": "realtime.item", "content": [{"type": "text", "text": "Hi"}]}


def script(*lines: str) -> Script:
    return parse("\n".join(["# A title", "dialect both", *lines]), Path("some.rts"))


def told(made: Script) -> list[list[str]]:
    """Types of the events after each step."""
    return [[one.type for one in step.expected if isinstance(one, ExpectEvent)] for step in made.steps]


@pytest.mark.parametrize(
    ("preview", "ga"),
    [
        (
            {"type": "session.update", "session": {"modalities": ["text", "audio"], "voice": "ash", "speed": 1.5}},
            {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["audio"],
             "audio": {"output": {"voice": "ash", "speed": 1.5}}}},
        ),
        (
            {"type": "session.update", "session": {"input_audio_format": "g711_ulaw",
             "turn_detection": {"type": "server_vad"}, "max_response_output_tokens": 5}},
            {"type": "session.update", "session": {"type": "realtime", "max_output_tokens": 5, "audio": {"input": {
             "format": {"type": "audio/pcmu"},
             "turn_detection": {"type": "server_vad", "silence_duration_ms": 500}}}}},
        ),
        (
            {"type": "transcription_session.update", "session": {"turn_detection": None}},
            {"type": "session.update",
             "session": {"type": "transcription", "audio": {"input": {"turn_detection": None}}}},
        ),
        (
            {"type": "response.create", "response": {"modalities": ["text"], "voice": "ash", "input": [SPOKEN]}},
            {"type": "response.create", "response": {"output_modalities": ["text"],
             "audio": {"output": {"voice": "ash"}},
             "input": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]}},
        ),
        (
            {"type": "conversation.item.create", "item": USER},
            {"type": "conversation.item.create", "item": USER},
        ),
        ({"type": "response.cancel", "event_id": "e"}, {"type": "response.cancel", "event_id": "e"}),
    ],
)  # fmt: skip
def test_what_a_client_says(preview: dict[str, Any], ga: dict[str, Any]) -> None:
    assert client_event(preview) == ga


@pytest.mark.parametrize(
    ("preview", "ga"),
    [
        ({"session": {"temperature": 0.8, "tools": []}}, {"session": {"tools": []}}),
        ({"response": {"voice": "ash"}}, {"response": {"audio": {"output": {"voice": "ash"}}}}),
        (
            {"response": {"output": [SPOKEN]}},
            {"response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}]}},
        ),
        (
            {"item": {"type": "function_call_output", "status": "completed", "output": "x"}},
            {"item": {"type": "function_call_output", "output": "x"}},
        ),
        (
            {"error": {"param": "session.voice", "message": "Not 'session.voice', and 'session.voices'."}},
            {"error": {"param": "session.audio.output.voice",
             "message": "Not 'session.audio.output.voice', and 'session.voices'."}},
        ),
    ],
)  # fmt: skip
def test_what_a_server_answers(preview: dict[str, Any], ga: dict[str, Any]) -> None:
    assert server_event(preview) == ga


def test_what_comes_at_another_time() -> None:
    made = in_ga(
        script(
            "< session.created",
            "< conversation.created",
            '> {"type": "conversation.item.create"}',
            "< conversation.item.created",
            '> {"type": "response.create"}',
            "< response.created",
            "< rate_limits.updated",
            "~ text \"Hi\"",
            "< response.output_item.added",
            "< conversation.item.created",
            "< response.content_part.added",
            "<= response.audio_transcript.delta",
            "~ finish stop",
            "< response.audio_transcript.done",
            "< response.output_item.done",
            "< response.done",
        )
    )  # fmt: skip
    assert made.settings.profile == "openai-ga"
    assert told(made) == [
        ["session.created"],
        ["conversation.item.added", "conversation.item.done"],
        ["response.created"],
        [
            "response.output_item.added",
            "conversation.item.added",
            "response.content_part.added",
            "response.output_audio_transcript.delta",
        ],
        [
            "response.output_audio_transcript.done",
            "conversation.item.done",
            "response.output_item.done",
            "response.done",
            "rate_limits.updated",
        ],
    ]
    delta = made.steps[3].expected[-1]
    assert isinstance(delta, ExpectEvent)
    assert (delta.pattern, delta.whole) == ({"obfuscation": "*"}, True)


def test_items_out_of_band_are_not_the_conversations() -> None:
    made = in_ga(
        script(
            '> {"type": "response.create"}',
            "< response.created",
            '< response.output_item.added {"response_id": "$one"}',
            '< response.output_item.added {"response_id": "$two"}',
            "< conversation.item.created",
            '< response.output_item.done {"response_id": "$one"}',
            '< response.output_item.done {"response_id": "$two"}',
        )
    )
    kinds = told(made)[0]
    assert kinds.count("conversation.item.done") == 1
    assert kinds[-2:] == ["conversation.item.done", "response.output_item.done"]


def test_nothing_is_told_of_limits_after_a_response_that_made_nothing() -> None:
    cut = '< response.done {"response": {"status": "cancelled"}}'
    made = in_ga(script('> {"type": "response.create"}', "< response.created", cut))
    assert told(made) == [["response.created", "response.done"]]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (['> {"type": "session.update", "session": {"temperature": 0.8}}'], "GA has no temperature"),
        (['> {"type": "session.update", "session": {"instructions": ""}}'], "no instructions at all"),
        (
            ["< response.output_item.added", "< response.output_item.added", "< response.output_item.done"],
            "line 5: several items are open",
        ),
    ],
)
def test_what_cannot_be_said_in_ga(lines: list[str], problem: str) -> None:
    with pytest.raises(ScriptError, match=problem):
        in_ga(script(*lines))
