"""The work of the hot path, counted and not timed: function calls for each event, Python's and C's.

A session sees fifty appends and thirty frames in every second of its life, and hundreds of sessions share a core.
The bounds below are what these events cost when they were last looked at (`make bench` tells it in microseconds): a
change that goes beyond one shows here on any machine, however noisy, and has to be worth it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import pytest

from vivavoce.core import contract as c
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.runtime.driver import Driver
from vivavoce.runtime.engines import Denial, Engines, Native, Reservation
from vivavoce.runtime.vad_pool import FRAME_TICKS, VadPool
from vivavoce.testing.fakes import PuppetEndOfTurn, PuppetSpeechModel, PuppetTranscriber, PuppetVad
from vivavoce.wire.codec import codec_of
from vivavoce.wire.server_events import RateLimit, Usage
from vivavoce.wire.session_config import SessionConfig

APPEND = 27
FRAME = 13
DELTA = 37
TEXT_DELTA = {"azure-2024-12-17": 42, "openai-ga": 50}
"""GA pads it."""
PREVIEW, GA = TEXT_DELTA
MESSAGE = b'{"type":"message","role":"user","content":[{"type":"input_text","text":"Hello."}]}}'


class Calls:
    """How many functions were called while it was counting."""

    def __init__(self) -> None:
        self.count = 0

    def _note(self, frame: object, event: str, argument: object) -> None:
        self.count += event in ("call", "c_call")

    @contextmanager
    def counting(self) -> Iterator[None]:
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            self.count -= 1  # setprofile itself


def calls_of(step: Callable[[], object], times: int = 100) -> float:
    """Calls that one step makes, over many of them: some work is done only now and then."""
    step()
    calls = Calls()
    with calls.counting():
        for _ in range(times):
            step()
    return calls.count / times


class Sink:
    """An outbox that never fills."""

    crowded = full = False

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)

    def close(self, code: int, reason: str) -> None: ...
    async def drained(self) -> None: ...


class Free:
    """A quota that lets everything pass."""

    def settle(self, used: Usage) -> None: ...

    def reserve(self, asked: c.ReserveQuota) -> Reservation | Denial:
        return self

    def rate_limits(self) -> tuple[RateLimit, ...]:
        return ()


@asynccontextmanager
async def driver(sink: Sink, profile: str = PREVIEW) -> AsyncIterator[Driver]:
    identity = Identity(model="m", created_at=0, lifetime_s=1800, seed=bytes(32))
    async with VadPool(PuppetVad()) as pool:
        made = Driver(
            Session(identity, SessionConfig(), asyncio.get_running_loop().time()),
            codec=codec_of(profile),
            outbox=sink,
            engines=Engines(pool, PuppetTranscriber(), PuppetEndOfTurn(), Native(PuppetSpeechModel(24_000))),
            meter=Free(),
        )
        async with made.running():
            yield made


def append(ms: int) -> bytes:
    audio = base64.b64encode(bytes(48 * ms)).decode()
    return json.dumps({"type": "input_audio_buffer.append", "audio": audio}).encode()


@pytest.mark.parametrize("profile", [PREVIEW, GA])
async def test_an_append(profile: str) -> None:
    """From the text of a frame to the queue of the VAD; nothing is sent, and no task is made."""
    sink = Sink()
    async with driver(sink, profile) as made:
        told, tasks = len(sink.frames), len(asyncio.all_tasks())
        frame = append(20)
        assert calls_of(lambda: made.receive_text(frame)) <= APPEND
        assert (len(sink.frames), len(asyncio.all_tasks())) == (told, tasks)


async def test_a_frame_of_silence() -> None:
    """What comes back from the VAD 31 times a second."""
    async with driver(Sink()) as made:
        ends = iter(range(FRAME_TICKS, 1 << 40, FRAME_TICKS))
        assert calls_of(lambda: made.post(c.VadFrame(next(ends), 0.0))) <= FRAME


@pytest.mark.parametrize("profile", [PREVIEW, GA])
async def test_an_audio_delta(profile: str) -> None:
    """From a piece of sound of the engine to the bytes on their way out."""
    sink = Sink()
    async with driver(sink, profile) as made:
        made.receive_text(b'{"type":"response.create"}')
        [created] = [json.loads(frame) for frame in sink.frames if b'"response.created"' in frame]
        sound = c.AudioProduced(created["response"]["id"], bytes(4800))
        told = len(sink.frames)
        assert calls_of(lambda: made.post(sound)) <= DELTA
        assert len(sink.frames) > told + 100


@pytest.mark.parametrize("profile", [PREVIEW, GA])
async def test_a_text_delta(profile: str) -> None:
    """From a word of the engine to the bytes on their way out."""
    sink = Sink()
    async with driver(sink, profile) as made:
        made.receive_text(b'{"type":"response.create"}')
        [created] = [json.loads(frame) for frame in sink.frames if b'"response.created"' in frame]
        word = c.TextProduced(created["response"]["id"], "word")
        told = len(sink.frames)
        assert calls_of(lambda: made.post(word)) <= TEXT_DELTA[profile]
        assert len(sink.frames) > told + 100


async def test_a_long_conversation_makes_no_event_dearer() -> None:
    async with driver(Sink()) as made:

        def create_and_respond() -> None:
            made.receive_text(b'{"type":"conversation.item.create","item":' + MESSAGE)
            made.receive_text(b'{"type":"response.create"}')
            made.receive_text(b'{"type":"response.cancel"}')

        few = calls_of(create_and_respond, 10)
        for _ in range(1000):
            made.receive_text(b'{"type":"conversation.item.create","item":' + MESSAGE)
        assert calls_of(create_and_respond, 10) <= few * 1.1


def test_the_counter_counts() -> None:
    assert calls_of(lambda: [abs(number) for number in (1, 2, 3)]) >= 4
