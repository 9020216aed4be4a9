"""The ``openai`` client, unchanged, and a look at everything that it is sent.

Every frame that the server sends goes through :func:`check_frame`: the client must make the event class of its type
of it, and that class, with the strictness that the client itself does without, must find nothing wrong in it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from openai import AsyncAzureOpenAI, AsyncOpenAI
from openai.resources.beta.realtime.realtime import AsyncRealtimeConnection
from openai.types.beta.realtime import RealtimeServerEvent
from pydantic import BaseModel, ValidationError

from vivavoce.config import Config, load_config
from vivavoce.demo.sound import RATE, parse_wav

KEY: Final = "a-key-for-tests"
MODEL: Final = "gpt-4o-realtime-preview"
EARLY: Final = "first-edition"
"""The deployment that claims to be the model of October 2024."""
LATE: Final = "last-edition"
"""The deployment that behaves as the preview of April 2025."""
STINGY: Final = "one-a-minute"
"""The deployment whose quota ends with its first response."""
PATIENCE_S: Final = 60.0
"""When a test hangs, not when it is slow."""

STORY: Final = "Once upon a time there was a king. He"
"""What the rule for ``story`` says before it falls silent for ten minutes."""

SCRIPT: Final = f"""
[[rule]]
when = "story"
steps = [{{ say = "{STORY}" }}, {{ wait_ms = 600000 }}, {{ say = "lived happily." }}]

[[rule]]
when = "think"
wait_ms = 600000
say = "I have it."

[[rule]]
when = "weather"
call = {{ name = "get_weather", arguments = {{ city = "Rome", days = 2 }} }}

[[rule]]
when = "parcel"
steps = [{{ say = "One moment." }}, {{ call = {{ name = "find_parcel", arguments = {{ number = "A7" }} }} }}]

[[rule]]
when = "stutter"
steps = [{{ say = "I was about to" }}, {{ fail = {{ code = "model_overloaded", message = "Too much to do." }} }}]

[[rule]]
when = "break"
fail = {{ code = "model_overloaded", message = "Too much to do." }}

[[rule]]
when = "forbidden"
say = "I would rather"
finish = "content_filter"
"""

CONFIG: Final = f"""
[resource]
keys = ["{KEY}"]

[[deployment]]
name = "{MODEL}"
profile = "azure-2024-12-17"
language_model = "script"

[[deployment]]
name = "{EARLY}"
version = "2024-10-01"
profile = "azure-2024-10-01"
language_model = "script"

[[deployment]]
name = "{LATE}"
profile = "azure-2025-04"
language_model = "script"

[[deployment]]
name = "{STINGY}"
requests_per_minute = 1
language_model = "script"

[engine.script]
kind = "language_model"
type = "scripted"
script = "script.toml"
word_delay_ms = 1
"""

# --------------------------------------------------------------------------------------------------- frames

_CLASSES: Final[dict[str, type[BaseModel]]] = {
    get_args(cls.model_fields["type"].annotation)[0]: cls for cls in get_args(get_args(RealtimeServerEvent)[0])
}

_UNKNOWN_TO_THE_CLIENT: Final = {
    # Of a function call, which rtclient wants.
    "name",
    # It knows the session as what a client may write.
    "session.object",
    "session.expires_at",
    "session.client_secret",
    "session.include",
    "response.usage.input_token_details.cached_tokens_details",
    "response.status_details.error.message",
}
"""Fields that the service sends and the client has no attribute for; it keeps them all the same."""

_MISSING: Final = {
    # The service tells the use of a transcription since May 2025, after the editions that we stand for.
    ("conversation.item.input_audio_transcription.completed", "usage"),
}


def check_frame(data: bytes, event: BaseModel) -> None:
    raw = json.loads(data)
    kind = raw["type"]
    expected = _CLASSES[kind]
    assert type(event) is expected, f"{kind} became a {type(event).__name__}"
    faults = []
    try:
        expected.model_validate_json(data, strict=True)
    except ValidationError as error:
        faults = [
            fault
            for fault in error.errors()
            if not (fault["type"] == "missing" and (kind, str(fault["loc"][0])) in _MISSING)
        ]
    assert not faults, f"{kind}: {faults}"
    assert event.model_dump(mode="json", by_alias=True, exclude_unset=True) == raw
    assert set(_extras(event, "")) <= _UNKNOWN_TO_THE_CLIENT


def _extras(value: object, path: str) -> Iterator[str]:
    """Paths of what was sent and is in no model of the client."""
    if isinstance(value, BaseModel):
        extra = value.model_extra or {}
        yield from (f"{path}{name}" for name in extra)
        for name in type(value).model_fields:
            yield from _extras(getattr(value, name, None), f"{path}{name}.")
    elif isinstance(value, list):
        for element in value:
            yield from _extras(element, path)


# ------------------------------------------------------------------------------------------------- a session

Event: TypeAlias = Any
"""A server event as the client hands it out; which class it is was checked."""


class Talk:
    """One session of the client, with all that came of it."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.client = connection
        self.events: list[Event] = []

    async def next(self) -> Event:
        async with asyncio.timeout(PATIENCE_S):
            data = await self.client.recv_bytes()
        event = self.client.parse_event(data)
        assert isinstance(event, BaseModel)
        check_frame(data, event)
        self.events.append(event)
        return event

    async def until(self, *kinds: str) -> list[Event]:
        """Events up to the first after which each of ``kinds`` has come once (or as often as it is named)."""
        wanted = list(kinds)
        got: list[Event] = []
        while wanted:
            event = await self.next()
            got.append(event)
            if event.type in wanted:
                wanted.remove(event.type)
        return got

    async def one(self, kind: str) -> Event:
        """The next event, which must be of this kind."""
        event = await self.next()
        assert event.type == kind, event
        return event

    async def silence(self) -> None:
        """Nothing waits to be read: the answer to an event that does nothing else is the next thing."""
        await self.client.input_audio_buffer.clear()
        await self.one("input_audio_buffer.cleared")

    async def say(self, text: str, **fields: Any) -> Event:
        """A user message -> its ``conversation.item.created``."""
        content: Any = [{"type": "input_text", "text": text}]
        await self.client.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}, **fields
        )
        return await self.one("conversation.item.created")

    async def speak(self, sound: bytes) -> None:
        """Append speech in pieces of 100 ms, as fast as it goes."""
        for at in range(0, len(sound), 4800):
            await self.client.input_audio_buffer.append(audio=base64.b64encode(sound[at : at + 4800]).decode())


Session: TypeAlias = AbstractAsyncContextManager[Talk]


class Connect(Protocol):
    """Open a session at the server of the module; it is past its greeting."""

    def __call__(self, model: str = MODEL, *, azure: bool = False) -> Session: ...


def config(folder: Path) -> Config:
    (folder / "script.toml").write_text(SCRIPT)
    (folder / "vivavoce.toml").write_text(CONFIG)
    return load_config(folder / "vivavoce.toml", environ={})


@asynccontextmanager
async def talking(port: int, model: str, *, azure: bool = False) -> AsyncIterator[Talk]:
    """A session, past its greeting."""
    client: AsyncOpenAI
    if azure:
        client = AsyncAzureOpenAI(
            api_key=KEY,
            api_version="2024-10-01-preview",
            azure_endpoint=f"http://127.0.0.1:{port}",
            websocket_base_url=f"ws://127.0.0.1:{port}/openai",
        )
    else:
        client = AsyncOpenAI(api_key=KEY, websocket_base_url=f"ws://127.0.0.1:{port}/v1")
    async with client, client.beta.realtime.connect(model=model) as connection:
        talk = Talk(connection)
        await talk.until("conversation.created")
        assert kinds(talk.events) == ["session.created", "conversation.created"]
        yield talk
        ids = [event.event_id for event in talk.events]
        assert len(set(ids)) == len(ids)


def spoken_question() -> bytes:
    """:data:`QUESTION` as pcm16, with half a second of silence after it."""
    data = resources.files("vivavoce.demo").joinpath("data/question.wav").read_bytes()
    return parse_wav(data).astype("<i2").tobytes() + bytes(RATE)


QUESTION: Final = "hello can you tell me what you heard me say"
ECHO: Final = f"You said: {QUESTION}."

# --------------------------------------------------------------------------------------------- reading them


def kinds(events: Iterable[Event]) -> list[str]:
    return [event.type for event in events]


def folded(events: Iterable[Event]) -> list[str]:
    """Types in order; each unbroken run of deltas is the sorted types in it, once each."""
    out: list[str] = []
    run: set[str] = set()
    for event in events:
        if event.type.endswith(".delta"):
            run.add(event.type)
            continue
        out += [*sorted(run), event.type]
        run = set()
    return out + sorted(run)


def of_response(events: Iterable[Event], response_id: str) -> list[Event]:
    """What belongs to one response; conversation items of its output included."""
    mine: list[Event] = []
    items: set[str] = set()
    for event in events:
        if event.type in ("response.created", "response.done"):
            if event.response.id == response_id:
                mine.append(event)
        elif getattr(event, "response_id", None) == response_id:
            mine.append(event)
            if event.type == "response.output_item.added":
                items.add(event.item.id)
        elif event.type == "conversation.item.created" and event.item.id in items:
            mine.append(event)
    return mine


def joined(events: Iterable[Event], kind: str) -> str:
    return "".join(event.delta for event in events if event.type == kind)


def sound_of(events: Iterable[Event]) -> bytes:
    return b"".join(base64.b64decode(event.delta) for event in events if event.type == "response.audio.delta")


def loudness(sound: bytes) -> float:
    """RMS of pcm16, 1.0 for full scale."""
    samples: npt.NDArray[np.float64] = np.frombuffer(sound, "<i2").astype(np.float64)
    return float(np.sqrt((samples**2).mean())) / 32768


OPENED: Final = [
    "response.created",
    "rate_limits.updated",
    "response.output_item.added",
    "conversation.item.created",
]
TEXT_PART: Final = [
    "response.content_part.added",
    "response.text.delta",
    "response.text.done",
    "response.content_part.done",
    "response.output_item.done",
]
AUDIO_PART: Final = [
    "response.content_part.added",
    "response.audio.delta",
    "response.audio_transcript.delta",
    "response.audio.done",
    "response.audio_transcript.done",
    "response.content_part.done",
    "response.output_item.done",
]
CALL_PART: Final = [
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
]
TEXT_RESPONSE: Final = [*OPENED, *TEXT_PART, "response.done"]
AUDIO_RESPONSE: Final = [*OPENED, *AUDIO_PART, "response.done"]
CALL_RESPONSE: Final = [*OPENED, *CALL_PART, "response.done"]


def check_response(events: Sequence[Event], *, status: str = "completed") -> Event:
    """Ids, indexes, statuses, texts and sums in the events of one response agree; returns it as it ended."""
    first, last = events[0].response, events[-1].response
    assert (first.status, first.output, first.usage, first.status_details) == ("in_progress", [], None, None)
    assert (last.id, last.status) == (first.id, status)
    assert (last.conversation_id, last.metadata) == (first.conversation_id, first.metadata)
    assert {e.response_id for e in events if hasattr(e, "response_id")} <= {first.id}
    added = [e for e in events if e.type == "response.output_item.added"]
    done = [e for e in events if e.type == "response.output_item.done"]
    assert [e.output_index for e in added] == [e.output_index for e in done] == list(range(len(added)))
    assert [e.item.id for e in added] == [e.item.id for e in done]
    assert [e.item for e in done] == last.output
    if first.conversation_id is not None:
        assert [e.item for e in events if e.type == "conversation.item.created"] == [e.item for e in added]
    for index, (start, end) in enumerate(zip(added, done, strict=True)):
        own = [e for e in events if getattr(e, "output_index", None) == index]
        assert {e.item_id for e in own if hasattr(e, "item_id")} <= {start.item.id}
        assert start.item.status == "in_progress"
        if start.item.type == "message":
            check_message(own, start.item, end.item)
        else:
            check_call(own, start.item, end.item)
    check_usage(last.usage)
    return last


def check_message(own: Sequence[Event], start: Event, end: Event) -> None:
    assert (start.role, start.content, end.role) == ("assistant", [], "assistant")
    assert {e.content_index for e in own if hasattr(e, "content_index")} == {0}
    part = end.content[0]
    began = next(e.part for e in own if e.type == "response.content_part.added")
    ended = next(e.part for e in own if e.type == "response.content_part.done")
    assert began.type == ended.type == part.type
    if part.type == "text":
        whole = joined(own, "response.text.delta")
        finals = [e.text for e in own if e.type == "response.text.done"]
        assert (began.text, finals, ended.text, part.text) == ("", [whole], whole, whole)
    else:
        whole = joined(own, "response.audio_transcript.delta")
        finals = [e.transcript for e in own if e.type == "response.audio_transcript.done"]
        assert (began.transcript, finals, ended.transcript, part.transcript) == ("", [whole], whole, whole)
        assert len(sound_of(own)) % 2 == 0


def check_call(own: Sequence[Event], start: Event, end: Event) -> None:
    assert (start.type, start.arguments) == ("function_call", "")
    assert (start.name, start.call_id) == (end.name, end.call_id)
    assert {e.call_id for e in own if hasattr(e, "call_id")} == {end.call_id}
    whole = joined(own, "response.function_call_arguments.delta")
    finals = [e.arguments for e in own if e.type == "response.function_call_arguments.done"]
    assert (finals, end.arguments) == ([whole], whole)


def check_usage(usage: Event) -> None:
    read, written = usage.input_token_details, usage.output_token_details
    assert usage.input_tokens == read.text_tokens + read.audio_tokens
    assert usage.output_tokens == written.text_tokens + written.audio_tokens
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert 0 <= read.cached_tokens <= usage.input_tokens
