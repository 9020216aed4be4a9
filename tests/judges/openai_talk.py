# mypy: disable-error-code="attr-defined, arg-type, typeddict-item, call-arg, union-attr"
# It runs with several versions of openai; the one that mypy sees is but one of them.
"""What the judges of the Python package ``openai`` share: one conversation in either dialect."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import openai
from witness import (
    ECHO,
    HEARD,
    KEY,
    MODEL,
    PORT,
    STORY,
    case,
    check_speech,
    question,
    telephone_question,
)

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@dataclass(frozen=True)
class Surface:
    """A surface of the client, and how its dialect spells things: types of events, and settings."""

    of: Callable[[Any], Any]
    """The surface of a client."""
    events: Mapping[str, type]
    """The client's model of each event."""
    greeting: str
    """The last event before the client is asked for something."""
    audio: str
    transcript: str
    text: str
    item: str
    in_text: Mapping[str, Any]
    written: Mapping[str, Any]
    by_hand: Mapping[str, Any]
    uninterrupted: Mapping[str, Any]
    telephone: Mapping[str, Any]
    session: Mapping[str, Any] = field(default_factory=dict)
    """What every update says."""
    assistant: str = "text"
    """Type of what the assistant said before."""
    without_model: Container[str] = ()
    """Events that the client has no model of."""


def openai_class(key: str = KEY, path: str = "v1") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, websocket_base_url=f"ws://127.0.0.1:{PORT}/{path}")


class Talk:
    """One connection and what it was sent, each event judged by the client's own model of it."""

    def __init__(self, connection: Any, surface: Surface) -> None:
        self.client = connection
        self.surface = surface
        self.events: list[Any] = []

    async def next(self) -> Any:
        event = self.client.parse_event(await self.client.recv_bytes())
        model = self.surface.events.get(event.type)
        assert type(event) is model if model else event.type in self.surface.without_model, event
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
        await self.client.session.update(session={**self.surface.session, **session})
        return (await self.last("session.updated")).session

    async def say(self, text: str, **place: Any) -> Any:
        """What the user types -> the last event about its item."""
        content = [{"type": "input_text", "text": text}]
        await self.client.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}, **place
        )
        return await self.last(self.surface.item)

    async def speak(self, sound: bytes) -> None:
        for at in range(0, len(sound), 4800):
            await self.client.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 4800]).decode())

    async def respond(self, **options: Any) -> list[Any]:
        """Events of a response."""
        await self.client.response.create(**({"response": options} if options else {}))
        return await self.until("response.done")

    async def error(self) -> Any:
        event = await self.next()
        assert event.type == "error", event
        return event.error

    def words(self, events: list[Any]) -> str:
        """What was spoken."""
        return "".join(event.delta for event in events if event.type == self.surface.transcript)

    def writing(self, events: list[Any]) -> str:
        return "".join(event.delta for event in events if event.type == self.surface.text)

    def sound(self, events: list[Any]) -> bytes:
        return b"".join(base64.b64decode(event.delta) for event in events if event.type == self.surface.audio)


Talking: TypeAlias = Callable[..., AbstractAsyncContextManager[Talk]]


def talking_on(surface: Surface) -> Talking:
    """-> what opens a session of a client (unless given, of the OpenAI class) and closes it."""

    @asynccontextmanager
    async def talking(client: openai.AsyncOpenAI | None = None, model: str = MODEL) -> AsyncIterator[Talk]:
        async with client or openai_class() as opened, surface.of(opened).connect(model=model) as connection:
            talk = Talk(connection, surface)
            await talk.until(surface.greeting)
            assert talk.events[0].type == "session.created"
            yield talk

    return talking


def common_cases(surface: Surface) -> None:
    """What every edition of the client passes alike, in either dialect."""
    talking = talking_on(surface)
    in_text = dict(surface.in_text)

    @case("reconnect: a new session each time, and an orderly close")
    async def reconnect() -> None:
        async with openai_class() as client:
            names = set()
            for _ in range(3):
                async with surface.of(client).connect(model=MODEL) as connection:
                    event = await connection.recv()
                    names.add(event.session.id)
            assert len(names) == 3
            connection = await surface.of(client).connect(model=MODEL).enter()
            await connection.close()
            async for event in connection:
                assert event.type in ("session.created", "conversation.created")

    @case("text: typed question, text answer")
    async def typed() -> None:
        async with talking() as talk:
            user = (await talk.say("Good morning.")).item
            events = await talk.respond(**in_text)
            response = events[-1].response
            assert response.status == "completed"
            assert talk.writing(events) == "You said: Good morning."
            assert response.output[0].content[0].text == "You said: Good morning."
            assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
            added = next(event for event in events if event.type == surface.item.replace("done", "added"))
            assert added.previous_item_id == user.id

    @case("speech out: audible audio and its transcript")
    async def spoken_answer() -> None:
        async with talking() as talk:
            await talk.say("Good morning.")
            events = await talk.respond()
            assert talk.words(events) == "You said: Good morning."
            check_speech(talk.sound(events), at_least_ms=800)
            assert events[-1].response.usage.output_token_details.audio_tokens > 0

    @case("speech in: server VAD, transcript, spoken answer")
    async def voice_turn() -> None:
        async with talking() as talk:
            await talk.update(**surface.written)
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
            heard = "conversation.item.input_audio_transcription.completed"
            if heard not in kinds:
                events += await talk.until(heard)
            words = next(event for event in events if event.type == heard)
            assert (words.item_id, words.transcript.strip()) == (start.item_id, HEARD)
            assert talk.words(events) == ECHO
            check_speech(talk.sound(events), at_least_ms=1500)

    @case("speech in by hand: VAD off, append, clear, append, commit, response.create")
    async def manual_turn() -> None:
        async with talking() as talk:
            await talk.update(**surface.by_hand)
            await talk.speak(bytes(48_000))
            await talk.client.input_audio_buffer.clear()
            await talk.last("input_audio_buffer.cleared")
            await talk.speak(question())
            await talk.client.input_audio_buffer.commit()
            item = (await talk.last(surface.item)).item
            assert item.content[0].type == "input_audio"
            assert talk.writing(await talk.respond(**in_text)) == ECHO

    @case("G.711 in and out")
    async def telephone() -> None:
        async with talking() as talk:
            await talk.update(**surface.telephone)
            await talk.speak(telephone_question())
            events = await talk.until("response.done")
            assert talk.words(events).startswith("You said: hello")
            seconds = len(talk.sound(events)) / 8000
            assert 1.5 < seconds < 20, seconds

    @case("function call: round trip")
    async def function_call() -> None:
        async with talking() as talk:
            await talk.update(tools=[WEATHER])
            await talk.say("How is the weather in Rome?")
            events = await talk.respond()
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
            assert talk.words(await talk.respond()) == "The result of get_weather is temperature 21."

    @case("barge-in: the answer is cut, truncated, and the next one comes")
    async def barge_in() -> None:
        async with talking() as talk:
            await talk.say("Tell me a story.")
            await talk.client.response.create()
            item_id = (await talk.last(surface.audio)).item_id
            # The first one holds 40 ms, and more than that is cut off below.
            await talk.until(surface.audio)
            await talk.speak(question())
            events = await talk.until("response.done")
            response = events[-1].response
            assert (response.status, response.status_details.reason) == ("cancelled", "turn_detected")
            assert "input_audio_buffer.speech_started" in [event.type for event in events]
            await talk.client.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=100)
            cut = [*events, *await talk.until("conversation.item.truncated")]
            assert (cut[-1].item_id, cut[-1].audio_end_ms) == (item_id, 100)
            events = await talk.until("response.done")
            assert talk.words([*cut, *events]).endswith(ECHO)
            assert events[-1].response.status == "completed"

    @case("interrupt_response false: the answer goes on while the user speaks, and the next one waits for its end")
    async def uninterrupted() -> None:
        async with talking() as talk:
            await talk.update(**surface.uninterrupted)
            await talk.say("Tell me a story.")
            await talk.client.response.create()
            story = await talk.last("response.created")
            await talk.until(surface.audio)
            await talk.speak(question())
            heard = await talk.until("input_audio_buffer.committed")
            assert "response.done" not in [event.type for event in heard]
            await talk.client.response.cancel()
            response = (await talk.last("response.done")).response
            assert (response.id, response.status_details.reason) == (story.response.id, "client_cancelled")
            assert talk.words(await talk.until("response.done")) == ECHO

    @case("cancel: the answer ends where it is")
    async def cancel() -> None:
        async with talking() as talk:
            await talk.say("Tell me a story.")
            await talk.client.response.create(response=in_text)
            await talk.until(surface.text)
            await talk.client.response.cancel()
            response = (await talk.last("response.done")).response
            assert (response.status, response.status_details.reason) == ("cancelled", "client_cancelled")
            assert STORY.startswith(response.output[0].content[0].text)

    @case("out of band: own context and metadata, beside the conversation")
    async def out_of_band() -> None:
        async with talking() as talk:
            await talk.say("Tell me a story.")
            await talk.client.response.create(response=in_text)
            story = await talk.last("response.created")
            hi = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}]
            topic = {"topic": "greeting"}
            events = await talk.respond(conversation="none", metadata=topic, input=hi, **in_text)
            done = events[-1].response
            assert done.id != story.response.id
            assert done.metadata == topic
            assert done.conversation_id is None
            assert done.output[0].content[0].text == "You said: Hi."
            await talk.client.response.cancel()
            assert (await talk.last("response.done")).response.id == story.response.id

    @case("items: create at the root and after another, delete")
    async def items() -> None:
        async with talking() as talk:
            first = (await talk.say("First.")).item
            said = [{"type": surface.assistant, "text": "Before."}]
            for place, previous in (("root", None), (first.id, first.id)):
                await talk.client.conversation.item.create(
                    previous_item_id=place,
                    item={"type": "message", "role": "assistant", "content": said, "id": f"item_{place}"[:32]},
                )
                assert (await talk.last(surface.item)).previous_item_id == previous
            await talk.client.conversation.item.delete(item_id=first.id)
            assert (await talk.last("conversation.item.deleted")).item_id == first.id

    @case("items: retrieve, with the audio that was heard", when="conversation.item.retrieved" in surface.events)
    async def retrieve() -> None:
        async with talking() as talk:
            await talk.update(**surface.by_hand)
            await talk.speak(question()[:48_000])
            await talk.client.input_audio_buffer.commit()
            item_id = (await talk.last(surface.item)).item.id
            await talk.client.conversation.item.retrieve(item_id=item_id)
            item = (await talk.last("conversation.item.retrieved")).item
            assert item.id == item_id
            assert base64.b64decode(item.content[0].audio) == question()[:48_000]

    @case("blocking client: a typed conversation, in a thread")
    async def blocking() -> None:
        def talk() -> str:
            client = openai.OpenAI(api_key=KEY, websocket_base_url=f"ws://127.0.0.1:{PORT}/v1")
            with client, surface.of(client).connect(model=MODEL) as connection:
                connection.session.update(session={**surface.session, **in_text})
                connection.conversation.item.create(
                    item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
                )
                connection.response.create()
                words = ""
                for event in connection:
                    assert event.type != "error", event
                    if event.type == surface.text:
                        words += event.delta
                    if event.type == "response.done":
                        break
                return words

        assert await asyncio.to_thread(talk) == "You said: Hello."
