"""A server on a real socket with engines that do exactly what a test says, and a client that hides nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web

from vivavoce.config import Config, DeploymentSettings, ResourceSettings, Secret, ServerSettings
from vivavoce.engines import base
from vivavoce.engines.registry import Engine, EngineKind, Registry
from vivavoce.server.app import Server, running
from vivavoce.server.client_secrets import SecretsEndpoint
from vivavoce.testing.fakes import PuppetEndOfTurn
from vivavoce.wire.session_config import VOICES

KEY: Final = "the-key-of-the-tests"
NAME: Final = "gpt-4o-realtime-preview"
AZURE: Final = f"/openai/realtime?api-version=2024-10-01-preview&deployment={NAME}"
OPENAI: Final = f"/v1/realtime?model={NAME}"
BETA: Final = {"OpenAI-Beta": "realtime=v1"}
PATIENCE_S: Final = 30.0
"""When a test hangs, not when it is slow."""
RATE: Final = 24_000


class FakeEngine:
    name = "fake"
    version = "1"

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass


class FakeVad(FakeEngine):
    """Loud is speech. While ``gate`` is shut it works on its first batch."""

    capabilities = base.VadCapabilities(sample_rate=16_000, frame_samples=512, state_size=0)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None

    def infer(self, frames: base.Float32, states: base.Float32) -> base.Float32:
        assert self.gate.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        probabilities: base.Float32 = (np.abs(frames).mean(axis=1) > 0.1).astype(np.float32)
        return probabilities


class FakeTranscriber(FakeEngine):
    """Hears ``words`` when an utterance ends; before that it may be held up or fail."""

    capabilities = base.TranscriberCapabilities(sample_rate=16_000, streaming=True)

    def __init__(self) -> None:
        self.words = "hello"
        self.fault: Exception | None = None
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.running = 0

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta, None]:
        self.running += 1
        self.begun.set()
        try:
            async for _ in audio:
                pass
            await self.open.wait()
            if self.fault is not None:
                raise self.fault
            yield base.TranscriptDelta(self.words)
        finally:
            self.running -= 1


Reply = Callable[[base.GenerationRequest], AsyncGenerator[base.ModelDelta, None]]


async def plain(request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
    """A short answer."""
    yield base.TextDelta("Yes.")
    yield base.Finish()


async def endless(request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
    """The begin of an answer, and nothing more."""
    yield base.TextDelta("Well")
    await asyncio.Event().wait()


class FakeModel(FakeEngine):
    """Answers by ``reply``, a generator."""

    capabilities = base.LanguageModelCapabilities()

    def __init__(self) -> None:
        self.reply: Reply = plain
        self.running = 0

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        self.running += 1
        try:
            async for delta in self.reply(request):
                yield delta
        finally:
            self.running -= 1


class FakeSynthesizer(FakeEngine):
    """``seconds`` of noise for every clause, in chunks of 100 ms; counts what was taken of it."""

    capabilities = base.SynthesizerCapabilities(sample_rate=RATE, voices=dict.fromkeys(VOICES, "fake"))

    def __init__(self) -> None:
        self.working = True
        self.seconds = 1.0
        self.made = 0
        self.running = 0

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        chunk = np.random.default_rng(0).integers(-9000, 9000, RATE // 10, np.int16).astype("<i2").tobytes()
        self.running += 1
        try:
            for _ in range(int(self.seconds * 10)):
                await asyncio.sleep(0)
                self.made += 1
                yield base.SpeechChunk(chunk)
        finally:
            self.running -= 1


class Fakes(Registry):
    """The only engines that there are."""

    def __init__(self) -> None:
        super().__init__(())
        self.vad = FakeVad()
        self.transcriber = FakeTranscriber()
        self.end_of_turn = PuppetEndOfTurn()
        self.model = FakeModel()
        self.synthesizer = FakeSynthesizer()

    def names(self, kind: EngineKind) -> tuple[str, ...]:
        return ("fake",)

    def create(
        self, kind: EngineKind, name: str, options: Mapping[str, object], *, base: Path | None = None
    ) -> Engine:
        engines: dict[EngineKind, Engine] = {
            "vad": self.vad,
            "transcriber": self.transcriber,
            "end_of_turn": self.end_of_turn,
            "language_model": self.model,
            "synthesizer": self.synthesizer,
        }
        return engines[kind]


CONFIG: Final = Config(
    server=ServerSettings(shutdown_grace_s=2.0),
    resource=ResourceSettings(keys=(Secret(KEY),)),
    deployments=(
        DeploymentSettings(
            name=NAME,
            vad="fake",
            transcriber="fake",
            end_of_turn="fake",
            language_model="fake",
            synthesizer="fake",
            # For answers of some minutes.
            max_output=8_000,
        ),
    ),
)


def config(**server: Any) -> Config:
    """Of one deployment on fakes; ``server`` are options of ``[server]``."""
    return msgspec.structs.replace(CONFIG, server=msgspec.structs.replace(CONFIG.server, **server))


class Wire:
    """A client's end of one connection."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def next(self) -> dict[str, Any]:
        message = await self.socket.receive(PATIENCE_S)
        assert message.type is WSMsgType.TEXT, message
        event = json.loads(message.data)
        assert isinstance(event, dict)
        return event

    async def until(self, kind: str) -> list[dict[str, Any]]:
        events = [await self.next()]
        while events[-1]["type"] != kind:
            events.append(await self.next())
        return events

    async def closed(self) -> int:
        """Nothing comes any more but the close -> its code."""
        message = await self.socket.receive(PATIENCE_S)
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING), message
        assert self.socket.close_code is not None
        return self.socket.close_code

    async def silence(self) -> None:
        """Nothing waits to be read but the answer to this."""
        await self.send("input_audio_buffer.clear")
        assert (await self.next())["type"] == "input_audio_buffer.cleared"

    async def update(self, **session: Any) -> None:
        await self.send("session.update", session=session)
        assert (await self.next())["type"] == "session.updated"

    def vanish(self) -> None:
        """The connection is gone without a word."""
        connection = self.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()


@asynccontextmanager
async def session(server: Server, **options: Any) -> AsyncIterator[Wire]:
    """A session past its greeting; ``options`` are those of aiohttp's ``ws_connect``."""
    url = f"http://127.0.0.1:{server.port}{AZURE}"
    async with ClientSession() as client, client.ws_connect(url, headers={"api-key": KEY}, **options) as socket:
        wire = Wire(socket)
        await wire.until("conversation.created")
        yield wire


@asynccontextmanager
async def serving(settings: Config) -> AsyncIterator[Server]:
    async with running(settings, host="127.0.0.1", port=0) as server:
        yield server


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until it holds; for what comes about by itself and tells nobody."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Who asks for a client secret has no time at all to say for what."""
    read = SecretsEndpoint._read

    async def at_once(self: SecretsEndpoint, request: web.Request) -> bytes:
        self._body_timeout_s, before = 0.0, self._body_timeout_s
        try:
            return await read(self, request)
        finally:
            self._body_timeout_s = before

    patch.setattr(SecretsEndpoint, "_read", at_once)


async def no_sessions(server: Server) -> None:
    """Wait until the last session has ended."""
    await eventually(lambda: not server.endpoint.open_sessions)


async def only(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait until no other tasks are left than these."""
    await eventually(lambda: asyncio.all_tasks() <= tasks)


async def rest(rounds: int = 200) -> None:
    """Let everything run that can."""
    for _ in range(rounds):
        await asyncio.sleep(0)


def loud(seconds: float) -> bytes:
    """Speech to :class:`FakeVad`, as pcm16."""
    wave = 12000 * np.sign(np.sin(2 * np.pi * 200 * np.arange(int(seconds * RATE)) / RATE))
    return wave.astype("<i2").tobytes()


def quiet(seconds: float) -> bytes:
    return bytes(int(seconds * RATE) * 2)
