# mypy: disable-error-code="attr-defined, arg-type, typeddict-item, call-arg, union-attr, import-not-found"
# It runs with a version of openai of its own, and not the one that mypy sees.
"""Judge: the Python package ``openai``: its GA surface ``.realtime``, OpenAI class, and at Azure's GA address."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import openai
from openai.types.realtime import RealtimeServerEvent
from openai_events import inspect_with, models_of
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from witness import (
    ECHO,
    FRAMES_GA,
    HEARD,
    KEY,
    MODEL,
    PORT,
    RATE,
    STORY,
    Known,
    case,
    check_speech,
    judge_frames,
    main,
    question,
    raising,
    telephone_question,
)

EVENTS = models_of(get_args(get_args(RealtimeServerEvent)[0]))
TEXT: Any = {"output_modalities": ["text"]}
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def openai_class(key: str = KEY) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, websocket_base_url=f"ws://127.0.0.1:{PORT}/v1")


def at_azure(key: str = KEY) -> openai.AsyncOpenAI:
    """Azure's GA address takes the class of OpenAI, as Microsoft's documents have it."""
    return openai.AsyncOpenAI(api_key=key, websocket_base_url=f"ws://127.0.0.1:{PORT}/openai/v1")


class Talk:
    """One connection and what it was sent, each event judged by the client's own model of it."""

    def __init__(self, connection: Any) -> None:
        self.client = connection
        self.events: list[Any] = []

    async def next(self) -> Any:
        event = self.client.parse_event(await self.client.recv_bytes())
        assert type(event) is EVENTS[event.type], event
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
        await self.client.session.update(session={"type": "realtime", **session})
        return (await self.last("session.updated")).session

    async def say(self, text: str) -> Any:
        await self.client.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        )
        return (await self.last("conversation.item.done")).item

    async def speak(self, sound: bytes) -> None:
        for at in range(0, len(sound), 4800):
            await self.client.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 4800]).decode())

    async def error(self) -> Any:
        event = await self.next()
        assert event.type == "error", event
        return event.error


@asynccontextmanager
async def talking(client: openai.AsyncOpenAI | None = None) -> AsyncIterator[Talk]:
    async with client or openai_class() as opened, opened.realtime.connect(model=MODEL) as connection:
        talk = Talk(connection)
        assert (await talk.next()).type == "session.created"
        yield talk


def sound_of(events: list[Any]) -> bytes:
    return b"".join(
        base64.b64decode(event.delta) for event in events if event.type == "response.output_audio.delta"
    )


def words_of(events: list[Any], kind: str = "response.output_audio_transcript.delta") -> str:
    return "".join(event.delta for event in events if event.type == kind)


# --------------------------------------------------------------------------------------------------- connect


@case("connect: OpenAI's address and Azure's")
async def connect() -> None:
    for client in (openai_class(), at_azure()):
        async with talking(client) as talk:
            session = talk.events[0].session
            assert (session.type, session.output_modalities) == ("realtime", ["audio"])
            assert session.audio.input.turn_detection.type == "server_vad"


@case("refused: wrong key and unknown model, as each address tells it")
async def refused() -> None:
    async with openai_class("wrong") as client, client.realtime.connect(model=MODEL) as connection:
        event = await connection.recv()
        assert (event.type, event.error.code) == ("error", "invalid_api_key")
        with raising(ConnectionClosedError) as closed:
            await connection.recv()
        assert closed.error.rcvd == Close(3000, "invalid_request_error.invalid_api_key")
    for client, model, status in ((at_azure("wrong"), MODEL, 401), (at_azure(), "no-such-deployment", 404)):
        with raising(InvalidStatus) as refusal:
            async with client, client.realtime.connect(model=model):
                pass
        assert refusal.error.response.status_code == status


# --------------------------------------------------------------------------------------------------- session


@case("session.update: everything that can be set, and back to null")
async def session_update() -> None:
    wanted: dict[str, Any] = {
        "type": "realtime",
        "output_modalities": ["text"],
        "instructions": "You are brief.",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en", "prompt": "names"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.4,
                    "prefix_padding_ms": 250,
                    "silence_duration_ms": 450,
                    "create_response": False,
                    "interrupt_response": False,
                },
            },
            "output": {"format": {"type": "audio/pcma"}, "voice": "marin", "speed": 1.1},
        },
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "max_output_tokens": 200,
        "tracing": "auto",
        "include": ["item.input_audio_transcription.logprobs"],
    }
    async with talking() as talk:
        session = (await talk.update(**wanted)).model_dump(mode="json", exclude_unset=True)
        _contains(session, wanted)
        session = await talk.update(
            audio={"input": {"turn_detection": None, "transcription": None}}, tools=[], tool_choice="auto"
        )
        assert session.audio.input.turn_detection is None
        assert session.audio.input.transcription is None
        assert session.audio.output.voice == "marin"
        assert session.tools == []
        session = await talk.update(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
        assert session.audio.input.turn_detection.eagerness == "auto"


def _contains(got: Any, wanted: Any, path: str = "session") -> None:
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            _contains(got[key], value, f"{path}.{key}")
    else:
        assert got == wanted, (path, got)


@case("errors: told with the client's event_id, and the session lives on unchanged")
async def errors() -> None:
    async with talking() as talk:
        both: Any = {"type": "realtime", "output_modalities": ["text", "audio"], "instructions": "Lost with it."}
        await talk.client.session.update(session=both, event_id="both")
        error = await talk.error()
        assert (error.code, error.param, error.event_id) == ("invalid_value", "session.output_modalities", "both")
        await talk.client.session.update(session={"instructions": "Of what type?"})
        error = await talk.error()
        assert (error.code, error.param) == ("missing_required_parameter", "session.type")
        await talk.client.session.update(session={"type": "realtime", "voice": "ash"})
        error = await talk.error()
        assert (error.code, error.param) == ("unknown_parameter", "session.voice")
        await talk.client.response.cancel(event_id="nothing")
        error = await talk.error()
        assert (error.code, error.event_id) == ("response_cancel_not_active", "nothing")
        session = await talk.update(max_output_tokens=100)
        assert (session.max_output_tokens, "Lost" in session.instructions) == (100, False)


# ------------------------------------------------------------------------------------------------- responses


@case("text: typed question, text answer")
async def typed() -> None:
    async with talking() as talk:
        user = await talk.say("Good morning.")
        await talk.client.response.create(response=TEXT)
        events = await talk.until("response.done")
        response = events[-1].response
        assert response.status == "completed"
        assert words_of(events, "response.output_text.delta") == "You said: Good morning."
        assert response.output[0].content[0].text == "You said: Good morning."
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
        added = next(event for event in events if event.type == "conversation.item.added")
        assert added.previous_item_id == user.id
        assert await talk.last("rate_limits.updated")


@case("speech in, speech out: server VAD, transcript, spoken answer")
async def voice_turn() -> None:
    async with talking() as talk:
        await talk.update(audio={"input": {"transcription": {"model": "gpt-realtime-whisper"}}})
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
        assert words.usage.type == "duration"
        assert words_of(events) == ECHO
        check_speech(sound_of(events), at_least_ms=1500)


@case("speech in by hand, at Azure's address: no turn detection, append, commit, response.create")
async def manual_turn() -> None:
    async with talking(at_azure()) as talk:
        await talk.update(audio={"input": {"turn_detection": None}})
        await talk.speak(bytes(48_000))
        await talk.client.input_audio_buffer.clear()
        await talk.last("input_audio_buffer.cleared")
        await talk.speak(question())
        await talk.client.input_audio_buffer.commit()
        item = (await talk.last("conversation.item.done")).item
        assert item.content[0].type == "input_audio"
        await talk.client.response.create(response=TEXT)
        events = await talk.until("response.done")
        assert words_of(events, "response.output_text.delta") == ECHO


@case("G.711 in and out")
async def telephone() -> None:
    async with talking() as talk:
        ulaw: Any = {"format": {"type": "audio/pcmu"}}
        await talk.update(audio={"input": ulaw, "output": ulaw})
        await talk.speak(telephone_question())
        events = await talk.until("response.done")
        assert words_of(events).startswith("You said: hello")
        assert 1.5 < len(sound_of(events)) / 8000 < 20


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
        assert (done.call_id, done.name, done.arguments) == (call.call_id, call.name, call.arguments)
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
        events = await talk.until("response.output_audio.delta")
        item_id = events[-1].item_id
        # The first one holds 40 ms, and more than that is cut off below.
        await talk.until("response.output_audio.delta")
        await talk.speak(question())
        events = await talk.until("response.done")
        response = events[-1].response
        assert (response.status, response.status_details.reason) == ("cancelled", "turn_detected")
        await talk.client.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=100)
        cut = [*events, *await talk.until("conversation.item.truncated")]
        assert (cut[-1].item_id, cut[-1].audio_end_ms) == (item_id, 100)
        events = await talk.until("response.done")
        assert words_of([*cut, *events]).endswith(ECHO)
        assert events[-1].response.status == "completed"


@case("cancel, and out of band with a context and metadata of its own")
async def cancel() -> None:
    async with talking() as talk:
        await talk.say("Tell me a story.")
        await talk.client.response.create(response=TEXT)
        story = await talk.last("response.created")
        response: Any = {
            "conversation": "none",
            "metadata": {"topic": "greeting"},
            "output_modalities": ["text"],
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}],
        }
        await talk.client.response.create(response=response)
        done = (await talk.last("response.done")).response
        assert done.metadata == {"topic": "greeting"}
        assert done.conversation_id is None
        assert done.output[0].content[0].text == "You said: Hi."
        await talk.client.response.cancel()
        ended = (await talk.last("response.done")).response
        assert (ended.id, ended.status_details.reason) == (story.response.id, "client_cancelled")
        assert STORY.startswith(ended.output[0].content[0].text)


# ----------------------------------------------------------------------------------------------------- items


@case("items: create at the root and after another, delete, retrieve with the audio that was heard")
async def items() -> None:
    async with talking() as talk:
        await talk.update(audio={"input": {"turn_detection": None}})
        first = await talk.say("First.")
        said: Any = [{"type": "output_text", "text": "Before."}]
        for place, previous in (("root", None), (first.id, first.id)):
            await talk.client.conversation.item.create(
                previous_item_id=place,
                item={"type": "message", "role": "assistant", "content": said, "id": f"item_{place}"[:32]},
            )
            assert (await talk.last("conversation.item.done")).previous_item_id == previous
        await talk.client.conversation.item.delete(item_id=first.id)
        assert (await talk.last("conversation.item.deleted")).item_id == first.id
        await talk.speak(question()[: 2 * RATE])
        await talk.client.input_audio_buffer.commit()
        item_id = (await talk.last("conversation.item.done")).item.id
        await talk.client.conversation.item.retrieve(item_id=item_id)
        item = (await talk.last("conversation.item.retrieved")).item
        assert base64.b64decode(item.content[0].audio) == question()[: 2 * RATE]


# ------------------------------------------------------------------------------------------- the other class


@case("blocking client: a typed conversation, in a thread")
async def blocking() -> None:
    def talk() -> str:
        client = openai.OpenAI(api_key=KEY, websocket_base_url=f"ws://127.0.0.1:{PORT}/v1")
        with client, client.realtime.connect(model=MODEL) as connection:
            connection.session.update(session={"type": "realtime", **TEXT})
            connection.conversation.item.create(
                item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
            )
            connection.response.create()
            words = ""
            for event in connection:
                assert event.type != "error", event
                if event.type == "response.output_text.delta":
                    words += event.delta
                if event.type == "response.done":
                    break
            return words

    assert await asyncio.to_thread(talk) == "You said: Hello."


# ------------------------------------------------------------------------------------------------ all frames

KNOWN = Known(
    disagreements=[],
    extras={
        **dict.fromkeys(
            ("session.expires_at", "session.id", "session.object"),
            "the model of a session has what can be set, not what is shown",
        ),
        "obfuscation": "deltas carry it, recordings show",
        "content": "Azure repeats the part, recordings show",
    },
    events={},
)


@case("golden frames")
async def golden_frames() -> str:
    return judge_frames(lambda frame: inspect_with(EVENTS, frame), KNOWN, FRAMES_GA)


main()
