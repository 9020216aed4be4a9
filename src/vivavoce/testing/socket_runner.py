"""Golden scripts on the server: a real WebSocket, real handshake, driver and VAD pool, and puppet engines.

Client and server share one loop of virtual time, and the script's clock is the loop's. After each command the
runner waits until the engines have said all there is to say, and then sends an event of a type that does not exist:
the server answers in order, so what stands before the error that names this event is all that the command caused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, cast

import aiohttp
from aiohttp import WSMsgType, web

from vivavoce.audio.formats import AudioFormat
from vivavoce.core.conversation import MessageLimits
from vivavoce.engines import base
from vivavoce.gateway.admission import AdmissionPolicy
from vivavoce.gateway.deployments import Deployment, Deployments, Recipe, Served
from vivavoce.gateway.principals import Identities, Keys
from vivavoce.gateway.quota import Quota
from vivavoce.runtime.engines import Engines, Native
from vivavoce.server.identity import Doorkeeper
from vivavoce.server.websocket import RealtimeEndpoint
from vivavoce.testing import script as s
from vivavoce.testing import virtual_time
from vivavoce.testing.directories import one_account
from vivavoce.testing.fakes import (
    Cue,
    PuppetEndOfTurn,
    PuppetSpeechModel,
    PuppetTranscriber,
    PuppetVad,
    WatchedVadPool,
)
from vivavoce.testing.ledger import Ledger, frames, sound
from vivavoce.testing.matching import Actual, Closed, Judge

_KEY: Final = "puppet-key"
_NEVER_S: Final = 1e9
"""No keep-alive in virtual time: the clock may pass any number of pings before a pong can come."""
_AT_ONCE: Final = 50
"""Appends (1 s of sound) before the VAD must have caught up; far below where the server stops to read."""
_PREVIEW_PATH: Final = "/openai/realtime?api-version=2024-10-01-preview&deployment="
_GA_PATHS: Final = {"openai-ga": "/v1/realtime?model=", "azure-ga": "/openai/v1/realtime?model="}
_SENTINEL: Final = "vivavoce.nothing_more"
_CLOSING: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


def run_on_server(script: s.Script) -> None:
    """Raises :class:`vivavoce.testing.matching.ScriptFailure`, and TimeoutError when the server is stuck."""
    virtual_time.run(_run(script))


async def _run(script: s.Script) -> None:
    async with _Theatre(script.settings).open() as theatre, theatre.connect() as socket:
        runner = _SocketRunner(script, theatre, socket)
        await runner.run()


class _Theatre:
    """A server with one deployment whose engines are puppets."""

    def __init__(self, settings: s.Settings) -> None:
        self.vad = PuppetVad()
        self.pool = WatchedVadPool(self.vad)
        self.transcriber = PuppetTranscriber(logprobs=settings.logprobs)
        self.end_of_turn = PuppetEndOfTurn()
        self.model = PuppetSpeechModel(
            settings.engine_rate, sees_images=settings.sees_images, reasons=settings.reasons
        )
        self._settings = settings
        self._port = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[_Theatre]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.pool)
            # Left before the pool, whose thread could be held.
            stack.push_async_callback(self.vad.close)
            application = web.Application()
            endpoint = self._endpoint()
            application.router.add_route("*", "/{path:.*}", endpoint.handle)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._port = runner.addresses[0][1]
            yield self

    def _endpoint(self) -> RealtimeEndpoint:
        settings = self._settings
        directory = one_account(_KEY)
        deployment = Deployment(
            name=s.DEPLOYMENT,
            account=directory().accounts[0].id,
            model=settings.model,
            version="",
            profile=settings.profile,
            conversation_created=settings.conversation_created,
            strict=settings.strict,
            instructions=settings.instructions,
            heard_text=settings.heard_text,
            engines={},
            tokens_per_minute=settings.tokens,
            requests_per_minute=settings.requests,
            context_window=settings.context_window,
            max_output=settings.max_output,
        )
        quota = Quota(settings.tokens, settings.requests, virtual_time.now)
        # The engines are given to the endpoint directly; of what is served it reads the quota alone.
        allowance = Quota(settings.tokens, settings.requests, virtual_time.now) if settings.speculate else None
        deployments = Deployments([Served(deployment, cast(Recipe, None), quota, allowance)])
        return RealtimeEndpoint(
            deployments=deployments,
            engines=lambda _: Engines(self.pool, self.transcriber, self.end_of_turn, Native(self.model)),
            policy=AdmissionPolicy(deployments.catalogue, directory),
            doorkeeper=Doorkeeper(Identities([Keys(directory)])),
            max_sessions=1,
            ping_interval_s=_NEVER_S,
            session_seconds=settings.session_seconds,
            compression=True,
            reduces_noise=settings.noise_reduction,
            prompts=lambda _: settings.prompts,
            message_limits=MessageLimits(images=settings.message_images),
        )

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        settings = self._settings
        path = _GA_PATHS.get(settings.profile, _PREVIEW_PATH)
        url = f"http://127.0.0.1:{self._port}{path}{s.DEPLOYMENT}&intent={settings.intent}"
        async with (
            aiohttp.ClientSession() as client,
            client.ws_connect(url, headers={"api-key": _KEY}, max_msg_size=0) as socket,
        ):
            yield socket


class _SocketRunner:
    def __init__(self, script: s.Script, theatre: _Theatre, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._script = script
        self._theatre = theatre
        self._socket = socket
        self._ledger = Ledger()
        self._judge = Judge(script)
        self._sentinels = 0
        self._closed = False

    async def run(self) -> None:
        if self._script.steps and self._script.steps[0].command is not None:
            step = s.Step(self._script.steps[0].line, "the client connects", None)
            self._judge.check(step, await self._all_that_came())
        for step in self._script.steps:
            actual: list[Actual] = []
            if step.command is not None:
                try:
                    await self._perform(step.command, actual)
                except (KeyError, ValueError) as error:
                    raise s.ScriptError(f"{self._script.path}:{step.line}: {error}") from error
            ends = any(isinstance(wanted, s.ExpectClosed) for wanted in step.expected)
            actual += await self._all_that_came(until_close=ends)
            self._judge.check(step, actual)

    # ------------------------------------------------------------------------------------------- commands

    async def _perform(self, command: s.Command, actual: list[Actual]) -> None:
        match command:
            case s.SendText() | s.SendEvent() | s.SendSound() | s.SendBytes() | s.SendCharacters():
                texts = list(frames(command, self._judge.names, self._ledger.input_format))
                for i, text in enumerate(texts, 1):
                    await self._send(text)
                    if i % _AT_ONCE == 0 or i == len(texts):
                        actual += await self._all_that_came()
                        await self._theatre.pool.reported()
            case s.SendBinary():
                if not self._closed:
                    await self._socket.send_bytes(command.data)
            case s.MoveClock():
                virtual_time.advance(command.seconds)
                # Timers run at the end of a turn of the loop; before the next line is read they must have run.
                for _ in range(2):
                    await asyncio.sleep(0)
            case s.Heard():
                logprobs = (
                    [base.TokenLogprob(*token) for token in command.tokens()]
                    if self._script.settings.logprobs
                    else []
                )
                words = base.TranscriptDelta(command.text, tuple(logprobs))
                await self._theatre.transcriber.say(self._ledger.next_unheard(), words)
            case s.Unheard():
                text = "The recogniser was told to fail."
                fault = RuntimeError(text) if command.code is None else base.EngineError(command.code, text)
                await self._theatre.transcriber.say(self._ledger.next_unheard(), fault)
            case s.Judged():
                await self._theatre.end_of_turn.answer(command.probability)
            case s.BreakVad():
                self._theatre.vad.break_once()
            case s.HoldVad():
                self._theatre.vad.hold()
            case s.ReleaseVad():
                self._theatre.vad.go()
                await self._theatre.pool.reported()
            case _:
                response_id = self._ledger.response_of(command)
                if response_id not in self._ledger.ended:
                    await self._theatre.model.play(response_id, self._cue(command))

    def _cue(self, command: s.ModelCommand) -> Cue:
        match command:
            case s.ProduceText():
                return base.TextDelta(command.text)
            case s.ProduceAudio():
                samples_24k = sound(command.ms, s.SPEECH_AMPLITUDE, AudioFormat.PCM16)
                step = AudioFormat.PCM16.rate // self._script.settings.engine_rate
                pairs = memoryview(samples_24k).cast("h")[::step]
                return base.AudioDelta(pairs.tobytes())
            case s.ProduceCall():
                return base.ToolCallStart(command.name)
            case s.ProduceArguments():
                return base.ToolArgumentsDelta(command.text)
            case s.Finish():
                return base.Finish(command.reason, command.usage)
            case s.Fail():
                return base.EngineError(command.code, command.message, type=command.type)
            case s.Bug():
                return RuntimeError("The model was told to break.")

    # ------------------------------------------------------------------------------------------ the socket

    async def _send(self, text: str) -> None:
        if not self._closed:
            await self._socket.send_str(text)

    async def _all_that_came(self, *, until_close: bool = False) -> list[Actual]:
        """Everything that the server has said up to now, or up to its close."""
        if self._closed:
            return []
        self._sentinels += 1
        marker = f"{_SENTINEL}.{self._sentinels}"
        if not until_close:
            await self._send(json.dumps({"type": _SENTINEL, "event_id": marker}))
        actual: list[Actual] = []
        while True:
            message = await self._socket.receive()
            if message.type in _CLOSING:
                self._closed = True
                reason = message.extra if isinstance(message.extra, str) else ""
                actual.append(Closed(self._socket.close_code or 1006, reason))
                return actual
            event = json.loads(message.data)
            if event["type"] == "error" and event["error"]["event_id"] == marker:
                return actual
            self._ledger.note(event)
            actual.append(event)
