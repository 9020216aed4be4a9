"""The real server in this process, with puppet engines, and clients on real sockets beside it.

One loop of virtual time runs both (as for golden scripts, :mod:`vivavoce.testing.socket_runner`), so that nothing
waits and nothing fires by accident. The stage is for code that is not async: Hypothesis drives it step by step.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import aiohttp
from aiohttp import WSMsgType, web
from hostile_matching import Frame

from vivavoce.core.session import Session
from vivavoce.engines import base
from vivavoce.gateway.admission import AdmissionPolicy
from vivavoce.gateway.deployments import Deployment, Deployments, Recipe, Served
from vivavoce.gateway.principals import Identities, Keys
from vivavoce.gateway.quota import Quota
from vivavoce.runtime.engines import Engines, Native
from vivavoce.server.identity import Doorkeeper
from vivavoce.server.websocket import RealtimeEndpoint
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

_T = TypeVar("_T")

MODEL: Final = "gpt-4o-realtime-preview-2024-12-17"
INSTRUCTIONS: Final = "Be brief."
LIFETIME_S: Final = 1800
TOKENS_PER_MINUTE: Final = 10**9
REQUESTS_PER_MINUTE: Final = 10**6
RATES: Final = (24000, 8000)
"""Hz of what the model of a deployment makes; 8000 for responses in G.711, which then are not resampled."""

_KEY: Final = "hostile-key"
_PATIENCE_S: Final = 30.0
_NEVER_S: Final = 1e9
_STEP: Final = "step"
_MARK: Final = "hostile.mark"
_CLOSING: Final = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class Stage:
    """A server with one deployment for each profile and each of :data:`RATES`."""

    def __init__(self, profiles: tuple[str, ...]) -> None:
        self._profiles = profiles
        self._runner = asyncio.Runner(loop_factory=virtual_time.VirtualTimeLoop)
        self._watch = _Watchdog()
        self._stack = AsyncExitStack()
        self._port = 0

    def __enter__(self) -> Self:
        self._runner.__enter__()
        self.run(self._open())
        self._tasks = self._count_tasks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.run(self._stack.aclose())
        finally:
            self._watch.end()
            self._runner.close()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Raises TimeoutError when the server is stuck."""
        with self._watch.over(self._runner.get_loop()):
            return self._runner.run(_named(work))

    async def _open(self) -> None:
        self.vad = PuppetVad()
        self.pool = WatchedVadPool(self.vad)
        self.transcriber = PuppetTranscriber()
        self.models = {rate: PuppetSpeechModel(rate) for rate in RATES}
        await self._stack.enter_async_context(self.pool)
        directory = one_account(_KEY)
        served: list[Served] = []
        engines: dict[str, Engines] = {}
        for profile in self._profiles:
            for rate, model in self.models.items():
                deployment = Deployment(
                    name=f"{profile}.{rate}",
                    account=directory().accounts[0].id,
                    model=MODEL,
                    version="",
                    profile=profile,
                    strict=True,
                    conversation_created=True,
                    instructions=INSTRUCTIONS,
                    heard_text=True,
                    engines={},
                    tokens_per_minute=TOKENS_PER_MINUTE,
                    requests_per_minute=REQUESTS_PER_MINUTE,
                )
                quota = Quota(TOKENS_PER_MINUTE, REQUESTS_PER_MINUTE, virtual_time.now)
                # The engines are given to the endpoint directly; of what is served it reads the quota alone.
                served.append(Served(deployment, cast(Recipe, None), quota))
                engines[deployment.name] = Engines(self.pool, self.transcriber, PuppetEndOfTurn(), Native(model))
        deployments = Deployments(served)
        self.endpoint = RealtimeEndpoint(
            deployments=deployments,
            engines=lambda served: engines[served.deployment.name],
            policy=AdmissionPolicy(deployments.catalogue, directory),
            doorkeeper=Doorkeeper(Identities([Keys(directory)])),
            max_sessions=8,
            ping_interval_s=_NEVER_S,
            session_seconds=LIFETIME_S,
            compression=True,
        )
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.endpoint.handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._port = runner.addresses[0][1]
        self._client = await self._stack.enter_async_context(aiohttp.ClientSession())

    def connect(self, deployment: str) -> Line:
        url = (
            f"http://127.0.0.1:{self._port}/openai/realtime?api-version=2024-10-01-preview&deployment={deployment}"
        )
        connecting = self._client.ws_connect(url, headers={"api-key": _KEY}, max_msg_size=0)

        async def connect() -> aiohttp.ClientWebSocketResponse:
            return await connecting

        return Line(self, self.run(connect()), int(deployment.rpartition(".")[2]))

    def all_left(self) -> None:
        """Every client has gone: nothing of their sessions may be left."""

        async def gone() -> None:
            # This is a task too.
            while self.endpoint.open_sessions or self._count_tasks() > self._tasks + 1:  # noqa: ASYNC110
                await asyncio.sleep(0)

        self.run(gone())
        for model in self.models.values():
            model.requests.clear()

    def sessions_in_memory(self) -> int:
        gc.collect()
        return sum(isinstance(one, Session) for one in gc.get_objects())

    def pass_time(self, seconds: float) -> None:
        async def advance() -> None:
            virtual_time.advance(seconds)
            await asyncio.sleep(0)

        self.run(advance())

    def _count_tasks(self) -> int:
        return sum(not task.done() for task in asyncio.all_tasks(self._runner.get_loop()))


class Line:
    """One client and what its session does."""

    def __init__(self, stage: Stage, socket: aiohttp.ClientWebSocketResponse, rate: int) -> None:
        self.rate = rate
        """Hz of what its model makes."""
        self.closed: tuple[int, str] | None = None
        self._stage = stage
        self._socket = socket
        self._marks = 0

    def exchange(self, texts: list[str | bytes], *, sound: bool = False) -> list[Frame]:
        """Send frames; returns all that came up to the last answer to them. ``sound``: the VAD is to have judged
        what was appended."""
        return self._stage.run(self._exchange(texts, sound))

    async def _exchange(self, texts: list[str | bytes], sound: bool) -> list[Frame]:
        for text in texts:
            await (self._socket.send_str(text) if isinstance(text, str) else self._socket.send_bytes(text))
        came = await self._all_that_came()
        if sound:
            await self._stage.pool.reported()
            came += await self._all_that_came()
        return came

    def play(self, response_id: str, cue: Cue) -> list[Frame]:
        async def play() -> list[Frame]:
            await self._stage.models[self.rate].play(response_id, cue)
            return await self._all_that_came()

        return self._stage.run(play())

    def hear(self, item_id: str, words: base.TranscriptDelta | Exception) -> list[Frame]:
        async def hear() -> list[Frame]:
            await self._stage.transcriber.say(item_id, words)
            return await self._all_that_came()

        return self._stage.run(hear())

    def last_words(self) -> list[Frame]:
        """What comes up to a close by the server."""

        async def listen() -> list[Frame]:
            frames: list[Frame] = []
            while self.closed is None:
                frames += await self._next()
            return frames

        return self._stage.run(listen())

    def hang_up(self) -> None:
        async def hang_up() -> None:
            await self._socket.close()

        self._stage.run(hang_up())

    async def _all_that_came(self) -> list[Frame]:
        """The server answers in order, so the error about an event that does not exist comes after everything."""
        self._marks += 1
        mark = f"mark-{self._marks}"
        await self._socket.send_str(f'{{"type":"{_MARK}","event_id":"{mark}"}}')
        frames: list[Frame] = []
        while self.closed is None:
            for frame in await self._next():
                if frame.get("type") == "error" and frame["error"]["event_id"] == mark:
                    return frames
                frames.append(frame)
        return frames

    async def _next(self) -> list[Frame]:
        message = await self._socket.receive()
        if message.type in _CLOSING:
            # The socket's own close code is another one when the answer to the close found nobody.
            self.closed = (int(message.data or 1006), str(message.extra or ""))
            return []
        frame = json.loads(message.data)
        assert isinstance(frame, dict)
        return [frame]


class _Watchdog:
    """On a clock that stands still no timeout fires: a thread looks at the real one."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stuck = False
        self._ended = threading.Event()
        threading.Thread(target=self._look, name="watchdog", daemon=True).start()

    def over(self, loop: asyncio.AbstractEventLoop) -> Self:
        self._loop = loop
        return self

    def __enter__(self) -> None:
        self._stuck = False
        self._since = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._since = None
        if self._stuck and isinstance(error, asyncio.CancelledError):
            raise TimeoutError(f"nothing more happened in {_PATIENCE_S} s") from None

    def end(self) -> None:
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(1.0):
            since = self._since
            if since is not None and self._loop is not None and time.monotonic() - since > _PATIENCE_S:
                self._stuck = True
                self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        assert self._loop is not None
        for task in asyncio.all_tasks(self._loop):
            if task.get_name() == _STEP:
                task.cancel()


async def _named(work: Coroutine[Any, Any, _T]) -> _T:
    task = asyncio.current_task()
    assert task is not None
    task.set_name(_STEP)
    return await work
