"""The gate before an engine: how much work it gets at a time, who comes next, and a watch on what becomes of it.

Laws
----
1. A gate changes nothing of what an engine is asked and answers: its work ends as without it, in order or not.
2. With a limit, at most ``max_concurrent`` pieces of work are under way. Who finds no room waits in one queue of
   at most ``max_waiting``, in which sessions take turns; beyond that ``engine_overloaded``.
3. Who gives up waiting costs nobody a place, and a place that is free with somebody waiting is given on at once.
4. Voice activity detection has no gate: it works on the frames of all sessions together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from vivavoce.engines import base
from vivavoce.engines.base import EngineError
from vivavoce.engines.fair_queue import FairQueue

BUG: Final = "bug"
"""In the place of a code, where what an engine raised was no EngineError."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_concurrent`` None: as much as the engine takes."""

    max_concurrent: int | None = None
    max_waiting: int = 0


class Watch(Protocol):
    """Whoever wants to know what becomes of an engine's work."""

    def in_flight(self, count: int) -> None:
        """So much work is under way now."""

    def waiting(self, count: int) -> None:
        """So much work waits at the gate now."""

    def ended(self, code: str | None) -> None:
        """A piece of work ended: by itself or closed early (None), or with a fault of this code."""


class Gate:
    """Lets pieces of work through."""

    def __init__(self, name: str, limits: Limits = Limits(), watch: Watch | None = None) -> None:
        """``name``: of the engine, for people."""
        self._name = name
        self._limit = limits.max_concurrent
        self._max_waiting = limits.max_waiting
        self._watch = watch
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._in_flight = 0

    @asynccontextmanager
    async def work(self, session: str) -> AsyncIterator[None]:
        """One piece of work, from when there is room for it. Raises :class:`EngineError` ``engine_overloaded``."""
        code: str | None = None
        try:
            await self._enter(session)
            self._tell()
            try:
                yield
            finally:
                self._leave()
        except EngineError as fault:
            code = fault.code
            raise
        except Exception:
            code = BUG
            raise
        finally:
            self._tell()
            if self._watch is not None:
                self._watch.ended(code)

    async def _enter(self, session: str) -> None:
        if self._limit is None or self._in_flight < self._limit:
            self._in_flight += 1
            return
        if len(self._queue) >= self._max_waiting:
            raise EngineError("engine_overloaded", f"Too many requests wait for the engine {self._name}.")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.push(session, turn)
        self._tell()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            else:
                self._queue.remove(turn)
            raise

    def _leave(self) -> None:
        while self._queue:
            turn = self._queue.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._in_flight -= 1

    def _tell(self) -> None:
        if self._watch is not None:
            self._watch.in_flight(self._in_flight)
            self._watch.waiting(len(self._queue))


class _Gated:
    """What looks like the engine, and lets work through a gate."""

    def __init__(self, engine: base.Engine, gate: Gate) -> None:
        self._inner = engine
        self._gate = gate
        self._runs = False
        self.name = engine.name
        if isinstance(engine, base.SessionAware):
            self.end_session = engine.end_session

    @property
    def version(self) -> str:
        return self._inner.version

    @property
    def working(self) -> bool:
        return self._inner.working if isinstance(self._inner, base.Watched) else self._runs

    @property
    def restarts(self) -> int:
        return self._inner.restarts if isinstance(self._inner, base.Restarting) else 0

    async def start(self) -> None:
        await self._inner.start()
        self._runs = True

    async def close(self) -> None:
        self._runs = False
        await self._inner.close()


class GatedTranscriber(_Gated):
    def __init__(self, engine: base.Transcriber, gate: Gate) -> None:
        super().__init__(engine, gate)
        self._engine = engine

    @property
    def capabilities(self) -> base.TranscriberCapabilities:
        return self._engine.capabilities

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        async with self._gate.work(options.session), aclosing(self._engine.transcribe(audio, options)) as deltas:
            async for delta in deltas:
                yield delta


class GatedEndOfTurn(_Gated):
    def __init__(self, engine: base.EndOfTurn, gate: Gate) -> None:
        super().__init__(engine, gate)
        self._engine = engine

    @property
    def capabilities(self) -> base.EndOfTurnCapabilities:
        return self._engine.capabilities

    async def judge(self, pause: base.Pause) -> float:
        async with self._gate.work(pause.session):
            return await self._engine.judge(pause)


class GatedLanguageModel(_Gated):
    def __init__(self, engine: base.LanguageModel, gate: Gate) -> None:
        super().__init__(engine, gate)
        self._engine = engine

    @property
    def capabilities(self) -> base.LanguageModelCapabilities:
        return self._engine.capabilities

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        async with self._gate.work(request.session), aclosing(self._engine.generate(request)) as deltas:
            async for delta in deltas:
                yield delta


class GatedSynthesizer(_Gated):
    def __init__(self, engine: base.Synthesizer, gate: Gate) -> None:
        super().__init__(engine, gate)
        self._engine = engine

    @property
    def capabilities(self) -> base.SynthesizerCapabilities:
        return self._engine.capabilities

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        async with self._gate.work(request.session), aclosing(self._engine.synthesize(request)) as chunks:
            async for chunk in chunks:
                yield chunk


class GatedSpeechModel(_Gated):
    def __init__(self, engine: base.SpeechModel, gate: Gate) -> None:
        super().__init__(engine, gate)
        self._engine = engine

    @property
    def capabilities(self) -> base.SpeechModelCapabilities:
        return self._engine.capabilities

    async def respond(self, request: base.SpeechRequest) -> AsyncGenerator[base.SpeechDelta, None]:
        session = request.generation.session
        async with self._gate.work(session), aclosing(self._engine.respond(request)) as deltas:
            async for delta in deltas:
                yield delta


def gated(engine: base.Engine, gate: Gate) -> base.Engine:
    """The engine behind the gate; one for voice activity detection as it is."""
    match engine:
        case base.Transcriber():
            return GatedTranscriber(engine, gate)
        case base.EndOfTurn():
            return GatedEndOfTurn(engine, gate)
        case base.LanguageModel():
            return GatedLanguageModel(engine, gate)
        case base.Synthesizer():
            return GatedSynthesizer(engine, gate)
        case base.SpeechModel():
            return GatedSpeechModel(engine, gate)
        case _:
            return engine
