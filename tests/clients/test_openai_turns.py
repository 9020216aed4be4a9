"""Connecting, configuring, spoken turns and plain answers, with the ``openai`` client (protocol section 5)."""

from __future__ import annotations

import asyncio
import base64
import time

import pytest
from openai import AsyncOpenAI, OpenAI
from openai_harness import (
    AUDIO_RESPONSE,
    EARLY,
    ECHO,
    KEY,
    LATE,
    MODEL,
    OPENED,
    QUESTION,
    TEXT_PART,
    TEXT_RESPONSE,
    Connect,
    Talk,
    check_response,
    folded,
    kinds,
    loudness,
    of_response,
    sound_of,
)

from vivavoce.server.app import Server

pytest_plugins = ["openai_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

BOTH_CLIENTS = pytest.mark.parametrize("azure", [False, True], ids=["AsyncOpenAI", "AsyncAzureOpenAI"])
HEARD = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.created",
]
COMPLETED = "conversation.item.input_audio_transcription.completed"
AUDIBLE = 0.01


@BOTH_CLIENTS
async def test_connect(connect: Connect, azure: bool) -> None:
    async with connect(azure=azure) as talk:
        created, conversation = talk.events
        session = created.session
        assert session.id.startswith("sess_")
        assert len(session.id) == len("sess_") + 21
        assert session.model == "gpt-4o-realtime-preview-2024-12-17"
        assert 1700 < session.expires_at - time.time() < 1801
        assert set(session.modalities) == {"audio", "text"}
        assert (session.voice, session.temperature, session.max_response_output_tokens) == ("alloy", 0.8, "inf")
        assert (session.input_audio_format, session.output_audio_format) == ("pcm16", "pcm16")
        assert (session.tools, session.tool_choice, session.input_audio_transcription) == ([], "auto", None)
        vad = session.turn_detection
        assert (vad.type, vad.threshold, vad.prefix_padding_ms) == ("server_vad", 0.5, 300)
        assert (vad.silence_duration_ms, vad.create_response) == (200, True)
        assert conversation.conversation.id.startswith("conv_")


async def test_connect_to_the_first_edition(connect: Connect) -> None:
    async with connect(EARLY) as talk:
        session = talk.events[0].session
        assert session.model == "gpt-4o-realtime-preview-2024-10-01"
        assert "create_response" not in session.turn_detection.to_dict()


async def test_the_last_edition_of_the_preview(connect: Connect) -> None:
    async with connect(LATE) as talk:
        session = talk.events[0].session
        assert session.turn_detection.interrupt_response is True
        assert (session.speed, session.tracing, session.input_audio_noise_reduction) == (1.0, None, None)
        await talk.client.session.update(session={"speed": 1.5})
        assert (await talk.one("session.updated")).session.speed == 1.5
        await talk.say("One, two.")
        await talk.client.response.create()
        events = await talk.until("response.done")
        assert folded(events) == AUDIO_RESPONSE
        check_response(of_response(events, events[0].response.id))


async def test_a_wrong_key_is_told(server: Server) -> None:
    client = AsyncOpenAI(
        api_key="not-the-key-of-this-server", websocket_base_url=f"ws://127.0.0.1:{server.port}/v1"
    )
    async with client, client.beta.realtime.connect(model=MODEL) as connection:
        event = await connection.recv()
        assert event.type == "error"
        assert event.error.code == "invalid_api_key"
        assert "not-the-key-of-this-server" not in event.error.message


async def test_session_update(connect: Connect) -> None:
    async with connect() as talk:
        before = talk.events[0].session
        await talk.client.session.update(
            session={
                "modalities": ["text"],
                "instructions": "Be brief.",
                "voice": "sage",
                "input_audio_format": "g711_ulaw",
                "input_audio_transcription": {"model": "whisper-1"},
                "turn_detection": {"type": "server_vad", "threshold": 0.7},
                "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}],
                "temperature": 0.7,
                "max_response_output_tokens": 99,
            },
            event_id="my-update",
        )
        updated = (await talk.one("session.updated")).session
        assert (updated.id, updated.model, updated.expires_at) == (before.id, before.model, before.expires_at)
        assert (updated.modalities, updated.instructions, updated.voice) == (["text"], "Be brief.", "sage")
        assert (updated.input_audio_format, updated.output_audio_format) == ("g711_ulaw", "pcm16")
        assert updated.input_audio_transcription.model == "whisper-1"
        vad = updated.turn_detection
        assert (vad.threshold, vad.prefix_padding_ms, vad.silence_duration_ms) == (0.7, 300, 500)
        tool = updated.tools[0]
        assert (tool.type, tool.name, tool.description, tool.parameters) == (
            "function",
            "f",
            "d",
            {"type": "object"},
        )
        assert (updated.temperature, updated.max_response_output_tokens) == (0.7, 99)
        # What a client sends back as it got it changes nothing.
        await talk.client.session.update(session={"voice": "sage"})
        assert (await talk.one("session.updated")).session == updated
        await talk.silence()


async def test_a_refused_update_changes_nothing_and_names_the_event(connect: Connect) -> None:
    async with connect() as talk:
        await talk.client.session.update(session={"instructions": "New.", "temperature": 0.3}, event_id="bad-one")
        error = (await talk.one("error")).error
        assert (error.type, error.code) == ("invalid_request_error", "decimal_below_min_value")
        assert (error.param, error.event_id) == ("session.temperature", "bad-one")
        await talk.client.session.update(session={})
        assert (await talk.one("session.updated")).session == talk.events[0].session


async def heard(talk: Talk, question: bytes) -> None:
    """A turn of the VAD, checked up to its item."""
    await talk.speak(question)
    events = await talk.until("conversation.item.created")
    assert kinds(events) == HEARD
    started, stopped, committed, created = events
    assert started.item_id == stopped.item_id == committed.item_id == created.item.id
    assert committed.previous_item_id == created.previous_item_id
    assert (created.item.type, created.item.role, created.item.status) == ("message", "user", "completed")
    assert [(part.type, part.transcript) for part in created.item.content] == [("input_audio", None)]
    assert stopped.audio_end_ms % 32 == 0
    assert 0 <= started.audio_start_ms < 500
    assert 3000 < stopped.audio_end_ms < len(question) // 48


@BOTH_CLIENTS
async def test_spoken_turn_with_transcription(connect: Connect, question: bytes, azure: bool) -> None:
    async with connect(azure=azure) as talk:
        await talk.client.session.update(session={"input_audio_transcription": {"model": "whisper-1"}})
        await talk.one("session.updated")
        await heard(talk, question)
        events = await talk.until("response.done", COMPLETED)
        completed = next(event for event in events if event.type == COMPLETED)
        user_item = talk.events[-len(events) - 1].item.id
        assert (completed.item_id, completed.content_index, completed.transcript) == (user_item, 0, QUESTION)
        # The words of the user come amid the response, at their own time.
        response = [event for event in events if event is not completed]
        assert folded(response) == AUDIO_RESPONSE
        last = check_response(of_response(response, response[0].response.id))
        assert last.output[0].content[0].transcript == ECHO
        created = next(event for event in response if event.type == "conversation.item.created")
        assert created.previous_item_id == user_item
        sound = sound_of(response)
        assert loudness(sound) > AUDIBLE
        started, stopped = talk.events[3:5]
        assert last.usage.input_token_details.audio_tokens == (stopped.audio_end_ms - started.audio_start_ms) // 100
        assert last.usage.output_token_details.audio_tokens == len(sound) // 48 // 50
        await talk.silence()


async def test_vad_that_makes_no_response(connect: Connect, question: bytes) -> None:
    async with connect() as talk:
        await talk.client.session.update(
            session={"turn_detection": {"type": "server_vad", "create_response": False}, "modalities": ["text"]}
        )
        await talk.one("session.updated")
        await heard(talk, question)
        await talk.client.response.create()
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        assert check_response(of_response(events, events[0].response.id)).output[0].content[0].text == ECHO
        # Without input_audio_transcription the client is told no words, though the model had them.
        assert COMPLETED not in kinds(talk.events)


async def test_manual_commit(connect: Connect, question: bytes) -> None:
    async with connect() as talk:
        await talk.client.session.update(
            session={"turn_detection": None, "input_audio_transcription": {"model": "whisper-1"}}  # type: ignore[typeddict-item]  # the protocol's way to switch it off, which the client's types leave out
        )
        assert (await talk.one("session.updated")).session.turn_detection is None
        await talk.client.input_audio_buffer.commit()
        error = (await talk.one("error")).error
        assert error.code == "input_audio_buffer_commit_empty"
        assert "0.00ms" in error.message
        first = (await talk.say("Before.")).item.id
        await talk.speak(question)
        await talk.client.input_audio_buffer.commit()
        events = await talk.until(COMPLETED)
        assert kinds(events) == ["input_audio_buffer.committed", "conversation.item.created", COMPLETED]
        committed, created, completed = events
        assert committed.item_id == created.item.id == completed.item_id
        assert committed.previous_item_id == created.previous_item_id == first
        assert completed.transcript == QUESTION
        await talk.silence()


@pytest.mark.parametrize("fmt", ["g711_ulaw", "g711_alaw"])
async def test_telephone_audio_out(connect: Connect, fmt: str) -> None:
    async with connect() as talk:
        await talk.say("One, two.")
        await talk.client.response.create(response={"output_audio_format": fmt})  # type: ignore[arg-type]  # a parameter
        events = await talk.until("response.done")
        assert folded(events) == AUDIO_RESPONSE
        assert events[0].response.output_audio_format == fmt
        sound = sound_of(events)
        assert events[-1].response.usage.output_token_details.audio_tokens == len(sound) // 8 // 50
        assert len(set(sound)) > 32


@BOTH_CLIENTS
async def test_text_turn(connect: Connect, azure: bool) -> None:
    async with connect(azure=azure) as talk:
        asked = await talk.say("Hello there.")
        await talk.client.response.create(response={"modalities": ["text"]})
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        assert kinds(events).count("response.text.delta") == 4
        last = check_response(of_response(events, events[0].response.id))
        assert last.output[0].content[0].text == "You said: Hello there."
        assert events[3].previous_item_id == asked.item.id
        assert (last.usage.input_token_details.audio_tokens, last.usage.output_token_details.audio_tokens) == (0, 0)
        assert last.usage.output_tokens > 0
        limits = {limit.name: limit for limit in events[1].rate_limits}
        assert set(limits) == {"requests", "tokens"}
        assert all(0 < limit.remaining < limit.limit for limit in limits.values())
        assert all(limit.reset_seconds > 0 for limit in limits.values())
        await talk.silence()


async def test_text_turn_of_the_first_edition(connect: Connect) -> None:
    """The rate limits come after the response, and it says less of itself."""
    async with connect(EARLY) as talk:
        await talk.say("Hello there.")
        await talk.client.response.create(response={"modalities": ["text"]})
        events = await talk.until("rate_limits.updated")
        shape = [kind for kind in OPENED if kind != "rate_limits.updated"] + TEXT_PART
        assert folded(events) == [*shape, "response.done", "rate_limits.updated"]
        response = events[-2].response
        assert "conversation_id" not in response.to_dict()
        assert response.output[0].content[0].text == "You said: Hello there."


async def test_audio_turn(connect: Connect) -> None:
    async with connect() as talk:
        await talk.say("One, two, three.")
        await talk.client.response.create()
        events = await talk.until("response.done")
        assert folded(events) == AUDIO_RESPONSE
        last = check_response(of_response(events, events[0].response.id))
        assert last.output[0].content[0].transcript == "You said: One, two, three."
        sound = sound_of(events)
        assert loudness(sound) > AUDIBLE
        assert last.usage.output_token_details.audio_tokens == len(sound) // 48 // 50 > 0
        # The transcript runs ahead of the voice.
        deltas = [kind for kind in kinds(events) if kind.endswith(".delta")]
        assert deltas[0] == "response.audio_transcript.delta"
        await talk.client.session.update(session={"voice": "verse"}, event_id="too-late")
        error = (await talk.one("error")).error
        assert (error.code, error.event_id) == ("cannot_update_voice", "too-late")


async def test_a_response_with_nothing_to_answer(connect: Connect) -> None:
    """The first ten lines of the README."""
    async with connect() as talk:
        await talk.client.response.create(response={"instructions": 'Say "Hello from my own machine."'})
        events = await talk.until("response.done")
        assert folded(events) == AUDIO_RESPONSE
        assert events[3].previous_item_id is None
        assert check_response(events).output[0].content[0].transcript == "Hello from my own machine."


async def test_speech_as_an_item(connect: Connect, question: bytes) -> None:
    async with connect() as talk:
        audio = base64.b64encode(question).decode()
        await talk.client.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]}
        )
        created = await talk.one("conversation.item.created")
        assert "audio" not in created.item.content[0].to_dict()
        await talk.client.response.create(response={"modalities": ["text"]})
        events = await talk.until("response.done")
        assert folded(events) == TEXT_RESPONSE
        assert events[-1].response.output[0].content[0].text == ECHO


# The websockets of today tells that the client of yesterday opens it in an old way.
@pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")
async def test_the_synchronous_client(server: Server) -> None:
    def run() -> list[str]:
        client = OpenAI(api_key=KEY, websocket_base_url=f"ws://127.0.0.1:{server.port}/v1")
        seen = []
        with client, client.beta.realtime.connect(model=MODEL) as connection:
            connection.response.create(response={"modalities": ["text"]})
            for event in connection:
                seen.append(event)
                if event.type == "response.done":
                    break
        return folded(seen)

    assert await asyncio.to_thread(run) == ["session.created", "conversation.created", *TEXT_RESPONSE]
