# mypy: disable-error-code="attr-defined, arg-type, typeddict-item, call-arg, union-attr"
# It runs with several versions of openai; the one that mypy sees is but one of them.
"""Judge: the Python package ``openai``: its preview surface ``.beta.realtime``, and in the newest its GA surface
``.realtime`` at the preview's address."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
from openai.resources.beta.realtime.realtime import AsyncRealtimeConnection, AsyncRealtimeConversationItemResource
from openai_events import EVENTS, KNOWN, VERSION, inspect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from witness import (
    ECHO,
    HEARD,
    KEY,
    MODEL,
    PORT,
    STORY,
    case,
    check_speech,
    judge_frames,
    main,
    question,
    raising,
    telephone_question,
)

TEXT: Any = {"modalities": ["text"]}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def openai_class(key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, websocket_base_url=f"ws://127.0.0.1:{PORT}/v1")


def azure_class(api_version: str = "2024-10-01-preview", **auth: Any) -> openai.AsyncAzureOpenAI:
    return openai.AsyncAzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{PORT}",
        websocket_base_url=f"ws://127.0.0.1:{PORT}/openai",
        api_version=api_version,
        **auth,
    )


class Talk:
    """One connection and what it was sent, each event judged by the client's own model of it."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.client = connection
        self.events: list[Any] = []

    async def next(self) -> Any:
        data = await self.client.recv_bytes()
        event = self.client.parse_event(data)
        assert type(event) is EVENTS[event.type] if event.type in EVENTS else event.type in KNOWN.events, event
        self.events.append(event)
        return event

    async def until(self, kind: str) -> list[Any]:
        """Events up to the first of this type."""
        got = [await self.next()]
        while got[-1].type != kind:
            assert got[-1].type != "error", got[-1]
            got.append(await self.next())
        return got

    async def last(self, kind: str) -> Any:
        return (await self.until(kind))[-1]

    async def update(self, **session: Any) -> Any:
        await self.client.session.update(session=session)
        return (await self.last("session.updated")).session

    async def say(self, text: str) -> Any:
        await self.client.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        )
        return (await self.last("conversation.item.created")).item

    async def speak(self, sound: bytes) -> None:
        for at in range(0, len(sound), 4800):
            await self.client.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 4800]).decode())

    async def error(self) -> Any:
        event = await self.next()
        assert event.type == "error", event
        return event.error


@asynccontextmanager
async def talking(client: openai.AsyncOpenAI | None = None, model: str = MODEL) -> AsyncIterator[Talk]:
    async with client or openai_class() as opened, opened.beta.realtime.connect(model=model) as connection:
        talk = Talk(connection)
        await talk.until("conversation.created")
        assert talk.events[0].type == "session.created"
        yield talk


def sound_of(events: list[Any]) -> bytes:
    return b"".join(base64.b64decode(event.delta) for event in events if event.type == "response.audio.delta")


def words_of(events: list[Any], kind: str = "response.audio_transcript.delta") -> str:
    return "".join(event.delta for event in events if event.type == kind)


# --------------------------------------------------------------------------------------------------- connect


async def greet(client: openai.AsyncOpenAI) -> str:
    async with talking(client) as talk:
        session = talk.events[0].session
        assert session.id.startswith("sess_")
        assert session.model.startswith(MODEL)
        return str(session.model)


@case("connect: OpenAI class, key as Bearer")
async def bearer() -> str:
    return await greet(openai_class())


@case("connect: Azure class, api-key header, every api-version")
async def azure_key() -> None:
    for version in ("2024-10-01-preview", "2024-12-17", "2025-04-01-preview"):
        await greet(azure_class(version, api_key=KEY))


@case("connect: Azure class, Entra token as Bearer")
async def azure_token() -> None:
    await greet(azure_class(azure_ad_token=KEY))


@case("refused: OpenAI class, wrong key: error event, then close 3000")
async def wrong_key() -> None:
    async with openai_class("wrong") as client, client.beta.realtime.connect(model=MODEL) as connection:
        event = await connection.recv()
        assert event.type == "error"
        assert event.error.code == "invalid_api_key"
        with raising(ConnectionClosedError) as closed:
            await connection.recv()
        assert closed.error.rcvd == Close(3000, "invalid_request_error.invalid_api_key")


@case("refused: Azure class, wrong key 401, unknown deployment and api-version 404")
async def azure_refused() -> None:
    for client, model, status in (
        (azure_class(api_key="wrong"), MODEL, 401),
        (azure_class(api_key=KEY), "no-such-deployment", 404),
        (azure_class("2023-01-01", api_key=KEY), MODEL, 404),
    ):
        with raising(InvalidStatus) as refusal:
            async with client, client.beta.realtime.connect(model=model):
                pass
        assert refusal.error.response.status_code == status
        assert json.loads(refusal.error.response.body or b"")["error"]["message"]


@case("reconnect: a new session each time, and an orderly close")
async def reconnect() -> None:
    async with openai_class() as client:
        names = set()
        for _ in range(3):
            async with client.beta.realtime.connect(model=MODEL) as connection:
                event = await connection.recv()
                names.add(event.session.id)
        assert len(names) == 3
        connection = await client.beta.realtime.connect(model=MODEL).enter()
        await connection.close()
        async for event in connection:
            assert event.type in ("session.created", "conversation.created")


# --------------------------------------------------------------------------------------------------- session


@case("session.update: everything that can be set, and back to null")
async def session_update() -> None:
    wanted: dict[str, Any] = {
        "modalities": ["text", "audio"],
        "instructions": "You are brief.",
        "voice": "verse",
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_alaw",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.4,
            "prefix_padding_ms": 250,
            "silence_duration_ms": 450,
            "create_response": False,
        },
        "tools": [WEATHER],
        "tool_choice": "required",
        "temperature": 0.7,
        "max_response_output_tokens": 200,
    }
    async with talking() as talk:
        session = (await talk.update(**wanted)).model_dump(mode="json", exclude_unset=True)
        for name, value in wanted.items():
            got = session[name]
            if isinstance(value, dict):
                got = {key: got[key] for key in value}
            assert got == value, (name, got)
        session = await talk.update(turn_detection=None, input_audio_transcription=None, tools=[])
        assert session.turn_detection is None
        assert session.input_audio_transcription is None
        assert session.tools == []
        assert session.voice == "verse"


@case("errors: told with the client's event_id, and the session lives on unchanged")
async def errors() -> None:
    async with talking() as talk:
        await talk.client.session.update(
            session={"temperature": 9.0, "instructions": "Lost with it."}, event_id="too_hot"
        )
        error = await talk.error()
        assert (error.type, error.code) == ("invalid_request_error", "decimal_above_max_value")
        assert (error.param, error.event_id) == ("session.temperature", "too_hot")
        await talk.client.response.cancel(event_id="nothing")
        error = await talk.error()
        assert (error.code, error.event_id) == ("response_cancel_not_active", "nothing")
        await talk.client.input_audio_buffer.commit()
        assert (await talk.error()).code == "input_audio_buffer_commit_empty"
        await talk.client.conversation.item.delete(item_id="nobody")
        assert (await talk.error()).code == "item_delete_invalid_item_id"
        await talk.client.send({"type": "no.such.event", "event_id": "odd"})
        error = await talk.error()
        assert (error.code, error.param, error.event_id) == ("invalid_value", "type", "odd")
        session = await talk.update(temperature=0.9)
        assert (session.temperature, "Lost" in session.instructions) == (0.9, False)


# ------------------------------------------------------------------------------------------------- responses


@case("text: typed question, text answer")
async def typed() -> None:
    async with talking() as talk:
        user = await talk.say("Good morning.")
        await talk.client.response.create(response=TEXT)
        events = await talk.until("response.done")
        response = events[-1].response
        assert response.status == "completed"
        assert words_of(events, "response.text.delta") == "You said: Good morning."
        assert response.output[0].content[0].text == "You said: Good morning."
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
        created = next(event for event in events if event.type == "conversation.item.created")
        assert created.previous_item_id == user.id


@case("speech out: audible audio and its transcript")
async def spoken_answer() -> None:
    async with talking() as talk:
        await talk.say("Good morning.")
        await talk.client.response.create()
        events = await talk.until("response.done")
        assert words_of(events) == "You said: Good morning."
        check_speech(sound_of(events), at_least_ms=800)
        assert events[-1].response.usage.output_token_details.audio_tokens > 0


@case("speech in: server VAD, transcript, spoken answer")
async def voice_turn() -> None:
    async with talking() as talk:
        await talk.update(input_audio_transcription={"model": "whisper-1"})
        await talk.speak(question())
        events = await talk.until("response.done")
        kinds = [event.type for event in events]
        start, stop = (
            next(event for event in events if event.type == f"input_audio_buffer.speech_{name}")
            for name in ("started", "stopped")
        )
        assert start.item_id == stop.item_id
        assert start.audio_start_ms < stop.audio_end_ms
        assert kinds.index("input_audio_buffer.committed") < kinds.index("response.created")
        if "conversation.item.input_audio_transcription.completed" not in kinds:
            events += await talk.until("conversation.item.input_audio_transcription.completed")
        words = next(e for e in events if e.type == "conversation.item.input_audio_transcription.completed")
        assert (words.item_id, words.transcript.strip()) == (start.item_id, HEARD)
        assert words_of(events) == ECHO
        check_speech(sound_of(events), at_least_ms=1500)


@case("speech in by hand: VAD off, append, clear, append, commit, response.create")
async def manual_turn() -> None:
    async with talking() as talk:
        await talk.update(turn_detection=None)
        await talk.speak(bytes(48_000))
        await talk.client.input_audio_buffer.clear()
        await talk.last("input_audio_buffer.cleared")
        await talk.speak(question())
        await talk.client.input_audio_buffer.commit()
        item = (await talk.last("conversation.item.created")).item
        assert item.content[0].type == "input_audio"
        await talk.client.response.create(response=TEXT)
        events = await talk.until("response.done")
        assert words_of(events, "response.text.delta") == ECHO


@case("G.711 in and out")
async def telephone() -> None:
    async with talking() as talk:
        await talk.update(input_audio_format="g711_ulaw", output_audio_format="g711_ulaw")
        await talk.speak(telephone_question())
        events = await talk.until("response.done")
        assert words_of(events).startswith("You said: hello")
        seconds = len(sound_of(events)) / 8000
        assert 1.5 < seconds < 20, seconds


@case("function call: round trip")
async def function_call() -> None:
    async with talking() as talk:
        await talk.update(tools=[WEATHER])
        await talk.say("How is the weather in Rome?")
        await talk.client.response.create()
        events = await talk.until("response.done")
        call = events[-1].response.output[0]
        assert (call.type, call.name, json.loads(call.arguments)) == (
            "function_call",
            "get_weather",
            {"city": "Rome"},
        )
        done = next(event for event in events if event.type == "response.function_call_arguments.done")
        assert (done.call_id, done.arguments) == (call.call_id, call.arguments)
        await talk.client.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": '{"temperature": 21}'}
        )
        await talk.client.response.create()
        events = await talk.until("response.done")
        assert words_of(events) == "The result of get_weather is temperature 21."


@case("barge-in: the answer is cut, truncated, and the next one comes")
async def barge_in() -> None:
    async with talking() as talk:
        await talk.say("Tell me a story.")
        await talk.client.response.create()
        events = await talk.until("response.audio.delta")
        item_id = events[-1].item_id
        # The first one holds 40 ms, and more than that is cut off below.
        await talk.until("response.audio.delta")
        await talk.speak(question())
        events = await talk.until("response.done")
        response = events[-1].response
        assert (response.status, response.status_details.reason) == ("cancelled", "turn_detected")
        assert "input_audio_buffer.speech_started" in [event.type for event in events]
        await talk.client.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=100)
        cut = [*events, *await talk.until("conversation.item.truncated")]
        assert (cut[-1].item_id, cut[-1].audio_end_ms) == (item_id, 100)
        events = await talk.until("response.done")
        assert words_of([*cut, *events]).endswith(ECHO)
        assert events[-1].response.status == "completed"


@case("cancel: the answer ends where it is")
async def cancel() -> None:
    async with talking() as talk:
        await talk.say("Tell me a story.")
        await talk.client.response.create(response=TEXT)
        await talk.until("response.text.delta")
        await talk.client.response.cancel()
        response = (await talk.last("response.done")).response
        assert (response.status, response.status_details.reason) == ("cancelled", "client_cancelled")
        assert STORY.startswith(response.output[0].content[0].text)


@case("out of band: own context and metadata, beside the conversation")
async def out_of_band() -> None:
    async with talking() as talk:
        await talk.say("Tell me a story.")
        await talk.client.response.create(response=TEXT)
        story = await talk.last("response.created")
        response: Any = {
            "conversation": "none",
            "metadata": {"topic": "greeting"},
            "modalities": ["text"],
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}],
        }
        await talk.client.response.create(response=response)
        done = (await talk.last("response.done")).response
        assert done.id != story.response.id
        assert done.metadata == {"topic": "greeting"}
        assert done.conversation_id is None
        assert done.output[0].content[0].text == "You said: Hi."
        await talk.client.response.cancel()
        assert (await talk.last("response.done")).response.id == story.response.id


# ----------------------------------------------------------------------------------------------------- items


@case("items: create at the root and after another, delete")
async def items() -> None:
    async with talking() as talk:
        first = await talk.say("First.")
        content: Any = [{"type": "input_text", "text": "Before."}]
        for place, previous in (("root", None), (first.id, first.id)):
            await talk.client.conversation.item.create(
                previous_item_id=place,
                item={"type": "message", "role": "user", "content": content, "id": f"item_{place}"[:32]},
            )
            assert (await talk.last("conversation.item.created")).previous_item_id == previous
        await talk.client.conversation.item.delete(item_id=first.id)
        assert (await talk.last("conversation.item.deleted")).item_id == first.id


@case(
    "items: retrieve, with the audio that was heard",
    when=hasattr(AsyncRealtimeConversationItemResource, "retrieve"),
)
async def retrieve() -> None:
    async with talking() as talk:
        await talk.update(turn_detection=None)
        await talk.speak(question()[:48_000])
        await talk.client.input_audio_buffer.commit()
        item_id = (await talk.last("conversation.item.created")).item.id
        await talk.client.conversation.item.retrieve(item_id=item_id)
        item = (await talk.last("conversation.item.retrieved")).item
        assert item.id == item_id
        assert base64.b64decode(item.content[0].audio) == question()[:48_000]


# ------------------------------------------------------------------------------------------- the other class


@case("blocking client: a typed conversation, in a thread")
async def blocking() -> None:
    def talk() -> str:
        client = openai.OpenAI(api_key=KEY, websocket_base_url=f"ws://127.0.0.1:{PORT}/v1")
        with client, client.beta.realtime.connect(model=MODEL) as connection:
            connection.session.update(session=TEXT)
            connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
            )
            connection.response.create()
            words = ""
            for event in connection:
                assert event.type != "error", event
                if event.type == "response.text.delta":
                    words += event.delta
                if event.type == "response.done":
                    break
            return words

    assert await asyncio.to_thread(talk) == "You said: Hello."


# ------------------------------------------------------------------------------------------- the GA surface

HAS_GA = VERSION >= (1, 107)


@case("GA surface, Azure class: session.type is an unknown_parameter at the preview's address", when=HAS_GA)
async def ga_update() -> None:
    client = azure_class("2025-04-01-preview", api_key=KEY)
    async with client, client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session={"type": "realtime", "instructions": "Hi."}, event_id="ga")
        async for event in connection:
            if event.type == "error":
                break
        error = event.error
        assert (error.type, error.code) == ("invalid_request_error", "unknown_parameter")
        assert (error.param, error.event_id) == ("session.type", "ga")
        assert error.message == "Unknown parameter: 'session.type'."
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
        )
        await connection.response.create()
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.done":
                break
        assert event.response.status == "completed"


# ------------------------------------------------------------------------------------------------ all frames


@case("golden frames")
async def golden_frames() -> str:
    return judge_frames(inspect, KNOWN)


main()
