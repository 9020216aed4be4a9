"""Calls, cuts, failures and responses side by side, with the ``openai`` client (protocol section 5)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from openai_harness import (
    AUDIO_PART,
    AUDIO_RESPONSE,
    CALL_PART,
    CALL_RESPONSE,
    ECHO,
    LATE,
    OPENED,
    STINGY,
    STORY,
    TEXT_PART,
    TEXT_RESPONSE,
    Connect,
    Event,
    Talk,
    check_response,
    folded,
    joined,
    kinds,
    of_response,
    sound_of,
)

pytest_plugins = ["openai_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

NEXT_ITEM = ["response.output_item.added", "conversation.item.created"]
TEXT = {"modalities": ["text"]}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}
PARCEL: Any = {"type": "function", "name": "find_parcel"}


async def ask(talk: Talk, text: str, **options: Any) -> Event:
    """Say it and ask for a response -> the user's item."""
    created = await talk.say(text)
    await talk.client.response.create(response=options)  # type: ignore[arg-type]  # any of its keys
    return created.item


async def halfway(talk: Talk, *, spoken: bool) -> list[Event]:
    """Ask for the story, and let it come as far as it gets by itself."""
    await ask(talk, "Tell me a story.", modalities=["text", "audio"] if spoken else ["text"])
    events = await talk.until(*["response.audio_transcript.delta" if spoken else "response.text.delta"] * 9)
    if spoken and "response.audio.delta" not in kinds(events):
        events += await talk.until("response.audio.delta")
    return events


def check_cut(events: Sequence[Event], reason: str) -> Event:
    """A response that was cut within its only item."""
    last = check_response(of_response(events, events[0].response.id), status="cancelled")
    assert (last.status_details.type, last.status_details.reason) == ("cancelled", reason)
    assert [item.status for item in last.output] == ["incomplete"]
    part = last.output[0].content[0]
    assert (part.text or part.transcript) == STORY
    assert last.usage.output_tokens > 0
    return last


# ----------------------------------------------------------------------------------------------------- calls


async def test_a_function_is_called_and_its_output_spoken(connect: Connect) -> None:
    async with connect() as talk:
        await talk.client.session.update(session={"tools": [WEATHER]})
        await talk.one("session.updated")
        user = await ask(talk, "How is the weather in Rome?")
        events = await talk.until("response.done")
        assert folded(events) == CALL_RESPONSE
        call = check_response(of_response(events, events[0].response.id)).output[0]
        assert (call.type, call.name, call.status) == ("function_call", "get_weather", "completed")
        assert json.loads(call.arguments) == {"city": "Rome", "days": 2}
        assert call.call_id.startswith("call_")
        assert len(call.call_id) == len("call_") + 16
        assert events[3].previous_item_id == user.id
        assert kinds(events).count("response.function_call_arguments.delta") > 1
        # The server does nothing with a call by itself.
        await talk.silence()

        await talk.client.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": '{"temperature": 21}'}
        )
        output = (await talk.one("conversation.item.created")).item
        assert (output.type, output.call_id, output.status) == ("function_call_output", call.call_id, "completed")
        assert output.output == '{"temperature": 21}'
        await talk.client.response.create()
        events = await talk.until("response.done")
        assert folded(events) == AUDIO_RESPONSE
        last = check_response(of_response(events, events[0].response.id))
        assert last.output[0].content[0].transcript == "The result of get_weather is temperature 21."
        assert events[3].previous_item_id == output.id


@pytest.mark.parametrize("spoken", [False, True], ids=["text", "audio"])
async def test_a_message_and_a_call(connect: Connect, spoken: bool) -> None:
    async with connect() as talk:
        user = await ask(
            talk, "Where is my parcel?", tools=[PARCEL], modalities=["text", "audio"] if spoken else ["text"]
        )
        events = await talk.until("response.done")
        part = AUDIO_PART if spoken else TEXT_PART
        assert folded(events) == [*OPENED, *part, *NEXT_ITEM, *CALL_PART, "response.done"]
        message, call = check_response(of_response(events, events[0].response.id)).output
        assert (message.content[0].text or message.content[0].transcript) == "One moment."
        assert (call.name, json.loads(call.arguments)) == ("find_parcel", {"number": "A7"})
        places = [e.previous_item_id for e in events if e.type == "conversation.item.created"]
        assert places == [user.id, message.id]
        assert bool(sound_of(events)) is spoken


async def test_tool_choice_is_heeded(connect: Connect) -> None:
    async with connect() as talk:
        await talk.client.session.update(session={"tools": [WEATHER, PARCEL]})
        await talk.one("session.updated")
        await ask(talk, "How is the weather?", tool_choice="none", modalities=["text"])
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        choice = {"type": "function", "function": {"name": "find_parcel"}}
        await ask(talk, "Hello.", tool_choice=choice)
        events = await talk.until("response.done")
        assert folded(events) == CALL_RESPONSE
        assert events[-1].response.output[0].name == "find_parcel"


# ------------------------------------------------------------------------------------------------------ cuts


@pytest.mark.parametrize("spoken", [False, True], ids=["text", "audio"])
async def test_cancel_in_the_middle(connect: Connect, spoken: bool) -> None:
    async with connect() as talk:
        events = await halfway(talk, spoken=spoken)
        await talk.client.response.cancel()
        events += await talk.until("response.done")
        assert folded(events) == (AUDIO_RESPONSE if spoken else TEXT_RESPONSE)
        last = check_cut(events, "client_cancelled")
        await talk.silence()
        await talk.client.response.cancel(event_id="again")
        error = (await talk.one("error")).error
        assert (error.code, error.event_id) == ("response_cancel_not_active", "again")
        # What was said stays in the conversation, and the next response comes as ever.
        user = await ask(talk, "Hello.", **TEXT)
        assert talk.events[-1].previous_item_id == last.output[0].id
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        assert events[3].previous_item_id == user.id


async def test_cancel_by_id(connect: Connect) -> None:
    async with connect() as talk:
        events = await halfway(talk, spoken=False)
        await talk.client.response.cancel(response_id="resp_of_somebody_else")
        assert (await talk.one("error")).error.code == "response_cancel_not_active"
        await talk.client.response.cancel(response_id=events[0].response.id)
        events += await talk.until("response.done")
        check_cut(events, "client_cancelled")


async def test_cancel_before_anything_came(connect: Connect) -> None:
    async with connect() as talk:
        await ask(talk, "Think.")
        events = await talk.until("rate_limits.updated")
        await talk.client.response.cancel()
        events += await talk.until("response.done")
        assert kinds(events) == ["response.created", "rate_limits.updated", "response.done"]
        last = check_response([events[0], events[2]], status="cancelled")
        assert (last.output, last.status_details.reason) == ([], "client_cancelled")
        assert (last.usage.total_tokens, last.usage.input_tokens) == (0, 0)
        await talk.silence()


async def test_speech_ends_the_running_response(connect: Connect, question: bytes) -> None:
    async with connect() as talk:
        events = await halfway(talk, spoken=True)
        reply_id = events[2].item.id
        await talk.speak(question)
        events += await talk.until("response.done")
        closing = [
            "input_audio_buffer.speech_started",
            "response.audio.done",
            "response.audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.done",
        ]
        assert folded(events)[: len(OPENED)] == OPENED
        assert kinds(events)[-6:] == closing
        check_cut(events, "turn_detected")
        turn = await talk.until("response.done")
        assert kinds(turn)[:3] == [
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.created",
        ]
        assert folded(turn[3:]) == AUDIO_RESPONSE
        assert events[-6].item_id == turn[0].item_id == turn[1].item_id == turn[2].item.id
        assert turn[1].previous_item_id == turn[2].previous_item_id == reply_id
        assert check_response(turn[3:]).output[0].content[0].transcript == ECHO
        # What was sent and not heard is for the client to take back.
        heard_ms = len(sound_of(events)) // 48 // 2
        await talk.client.conversation.item.truncate(item_id=reply_id, content_index=0, audio_end_ms=heard_ms)
        truncated = await talk.one("conversation.item.truncated")
        assert (truncated.item_id, truncated.content_index, truncated.audio_end_ms) == (reply_id, 0, heard_ms)
        await talk.silence()


async def test_speech_that_shall_not_interrupt_is_answered_later(connect: Connect, question: bytes) -> None:
    async with connect() as talk:
        await talk.client.session.update(
            session={"turn_detection": {"type": "server_vad", "interrupt_response": False}, "modalities": ["text"]}
        )
        await talk.one("session.updated")
        story = await halfway(talk, spoken=False)
        await talk.speak(question)
        turn = await talk.until("conversation.item.created")
        assert kinds(turn) == [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.created",
        ]
        await talk.client.response.cancel()
        story += await talk.until("response.done")
        assert folded(story) == TEXT_RESPONSE
        check_cut(story, "client_cancelled")
        answer = await talk.until("response.done")
        assert folded(answer) == TEXT_RESPONSE
        assert answer[-1].response.output[0].content[0].text == ECHO


# ------------------------------------------------------------------------------------------------- ends early


async def test_max_tokens_of_a_text(connect: Connect) -> None:
    async with connect() as talk:
        await ask(talk, "one two three four five six seven", max_output_tokens=5, **TEXT)
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        last = check_response(of_response(events, events[0].response.id), status="incomplete")
        assert (last.status_details.type, last.status_details.reason) == ("incomplete", "max_output_tokens")
        assert [item.status for item in last.output] == ["incomplete"]
        assert "You said: one two three four".startswith(last.output[0].content[0].text)
        assert (last.max_output_tokens, 0 < last.usage.output_tokens <= 5) == (5, True)


async def test_max_tokens_of_the_session_and_of_speech(connect: Connect) -> None:
    async with connect() as talk:
        await talk.client.session.update(session={"max_response_output_tokens": 20})
        await talk.one("session.updated")
        await ask(talk, "one two three four five six")
        events = await talk.until("response.done")
        assert folded(events) == AUDIO_RESPONSE
        last = check_response(of_response(events, events[0].response.id), status="incomplete")
        assert last.status_details.reason == "max_output_tokens"
        assert (last.max_output_tokens, last.usage.output_tokens) == (20, 20)
        assert last.usage.output_token_details.audio_tokens == len(sound_of(events)) // 48 // 50


async def test_content_filter(connect: Connect) -> None:
    async with connect() as talk:
        await ask(talk, "Something forbidden.", **TEXT)
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        last = check_response(of_response(events, events[0].response.id), status="incomplete")
        assert (last.status_details.type, last.status_details.reason) == ("incomplete", "content_filter")
        assert last.output[0].content[0].text == "I would rather"


async def test_failure_at_once(connect: Connect) -> None:
    async with connect() as talk:
        await ask(talk, "Please break.")
        events = await talk.until("response.done")
        assert kinds(events) == ["response.created", "rate_limits.updated", "response.done"]
        last = check_response([events[0], events[2]], status="failed")
        assert last.output == []
        details = last.status_details
        assert (details.type, details.error.type, details.error.code) == (
            "failed",
            "server_error",
            "model_overloaded",
        )
        assert details.error.to_dict()["message"] == "Too much to do."
        assert last.usage.total_tokens == 0
        # No error event besides, and the session goes on.
        await talk.silence()
        await ask(talk, "Hello.", **TEXT)
        assert folded(await talk.until("response.done")) == TEXT_RESPONSE


async def test_failure_in_the_middle(connect: Connect) -> None:
    async with connect() as talk:
        await ask(talk, "Please stutter.", **TEXT)
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        last = check_response(of_response(events, events[0].response.id), status="failed")
        assert (last.output[0].status, last.output[0].content[0].text) == ("incomplete", "I was about to")
        assert last.status_details.error.code == "model_overloaded"


async def test_quota_that_is_used_up(connect: Connect) -> None:
    async with connect(STINGY) as talk:
        await ask(talk, "Hello.", **TEXT)
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        before = {limit.name: limit for limit in events[1].rate_limits}
        assert (before["requests"].limit, before["requests"].remaining) == (1, 0)
        await ask(talk, "Hello again.", **TEXT)
        events = await talk.until("response.done")
        assert kinds(events) == ["response.created", "rate_limits.updated", "response.done"]
        limits = {limit.name: limit for limit in events[1].rate_limits}
        assert (limits["requests"].limit, limits["requests"].remaining) == (1, 0)
        assert 0 < limits["requests"].reset_seconds <= 60
        # What the first response had set aside and not used was given back.
        assert limits["tokens"].remaining > before["tokens"].remaining
        last = check_response([events[0], events[2]], status="failed")
        assert last.status_details.error.code == "rate_limit_exceeded"


# -------------------------------------------------------------------------------------------------- side by side


async def test_a_second_response_is_refused(connect: Connect) -> None:
    async with connect(LATE) as talk:
        events = await halfway(talk, spoken=False)
        await talk.client.response.create(event_id="second")
        error = (await talk.one("error")).error
        assert (error.code, error.event_id) == ("conversation_already_has_active_response", "second")
        assert events[0].response.id in error.message
        await talk.client.response.cancel()
        await talk.until("response.done")


async def test_out_of_band_beside_the_default(connect: Connect) -> None:
    async with connect() as talk:
        remembered = (await talk.say("Remember the blue door.")).item
        story = await halfway(talk, spoken=False)
        given: Any = [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Not this."}]},
            {"type": "item_reference", "id": remembered.id},
        ]
        await talk.client.response.create(
            response={"conversation": "none", "input": given, "modalities": ["text"], "metadata": {"topic": "door"}}
        )
        apart = await talk.until("response.done")
        assert folded(apart) == [kind for kind in TEXT_RESPONSE if kind != "conversation.item.created"]
        last = check_response(of_response(apart, apart[0].response.id))
        assert apart[0].response.id != story[0].response.id
        assert last.conversation_id is None
        assert last.metadata == {"topic": "door"}
        assert last.output[0].content[0].text == "You said: Remember the blue door."
        await talk.client.response.cancel()
        story += await talk.until("response.done")
        assert folded(story) == TEXT_RESPONSE
        check_cut(story, "client_cancelled")
        # What was said apart is no part of the conversation.
        await talk.client.conversation.item.delete(item_id=last.output[0].id)
        assert (await talk.one("error")).error.code == "item_delete_invalid_item_id"


async def test_two_at_once_each_keep_their_order(connect: Connect) -> None:
    async with connect() as talk:
        await talk.say("one two three four five")
        await talk.client.response.create(response={"modalities": ["text"]})
        empty: Any = {"conversation": "none", "input": [], "modalities": ["text"], "instructions": 'Say "Apart."'}
        await talk.client.response.create(response=empty)
        events = await talk.until("response.done", "response.done")
        first, second = (e.response for e in events if e.type == "response.created")
        for made, text in ((first, "You said: one two three four five."), (second, "Apart.")):
            own = of_response(events, made.id)
            assert joined(own, "response.text.delta") == text
            kept = [kind for kind in TEXT_RESPONSE if kind != "rate_limits.updated"]
            if made is second:
                kept.remove("conversation.item.created")
            assert folded(own) == kept
            check_response(own)
        assert kinds(events).count("rate_limits.updated") == 2


async def test_out_of_band_is_cancelled_by_its_id_alone(connect: Connect) -> None:
    async with connect() as talk:
        think: Any = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "think"}]}]
        await talk.client.response.create(response={"conversation": "none", "input": think})
        events = await talk.until("rate_limits.updated")
        await talk.client.response.cancel()
        assert (await talk.one("error")).error.code == "response_cancel_not_active"
        await talk.client.response.cancel(response_id=events[0].response.id)
        done = (await talk.one("response.done")).response
        assert (done.id, done.status) == (events[0].response.id, "cancelled")
