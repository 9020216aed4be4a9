"""One heavy engine for many server processes: it runs in a host process, and workers hold stand-ins for it.

Laws
----
1. A job is one connection to the host's Unix socket: request, audio, answers, end. It fails as the engine itself
   would, with the same :class:`EngineError`, or with :class:`EngineBug` for what was none; without a host with
   ``engine_unavailable`` or ``engine_crashed``.
2. Hanging up is cancelling. The host reads always, so that it ends a job whose client has gone at once, and frees
   what it held.
3. Nobody buffers without bound: an end that does not read is not written to, and sound needs credit, which the
   engine gives back as it takes the sound.
4. The socket lies in a folder of the server's own user, so whoever can reach it may use it.
5. Nothing a job carries is logged. A bug of an engine is logged in the host, by its type.
6. A stand-in watches its engine by a connection of its own, so that it knows whether it works.

A frame is ``length (u32) | kind (u8) | payload``, little-endian; payloads other than sound are MessagePack.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

import msgspec

from vivavoce.engines import base
from vivavoce.engines.base import EngineError

log = logging.getLogger(__name__)

START_S: Final = 120.0
"""Seconds that a stand-in waits for a host that is still loading."""
_ABSENT_S: Final = 5.0
"""Seconds that a job waits for a host that is being replaced."""
_POLL_S: Final = 0.05
_LOOK_S: Final = 0.5
"""Seconds after which the host looks again whether an engine works, and a stand-in for a host that was gone."""
_WAITING_PIECES: Final = 256
"""Pieces of sound that may be on their way to the engine, some 60 ms to a second each."""
_MAX_PAYLOAD: Final = 1 << 26
_HEADER: Final = struct.Struct("<IB")

SharedEngine: TypeAlias = "base.Transcriber | base.Synthesizer"
_Shape = TypeVar("_Shape")


class _Kind(IntEnum):
    REQUEST = 1  # client: what is wanted; first of all
    AUDIO = 2  # client: s16le sound for the engine
    END = 3  # client: that was all the sound
    RESULT = 4  # host: a delta or a chunk
    DONE = 5  # host: the job is over
    FAILED = 6  # host: the job is over, with a fault
    PARTIAL = 7  # host: a partial transcript
    CREDIT = 8  # host: the engine has taken one piece of sound
    BUG = 9  # host: the job is over, since the engine raised what it should not; the type of it
    STATUS = 10  # host: whether the engine works (one byte, 0 or 1), to who watches


class _Request(msgspec.Struct, frozen=True):
    engine: str
    transcription: base.TranscriptionOptions | None = None
    synthesis: base.SynthesisRequest | None = None
    watch: bool = False
    """None of these: is the engine there?"""


class _Fault(msgspec.Struct, frozen=True):
    code: str
    message: str
    type: str


class EngineBug(Exception):
    """The engine raised what is no EngineError; its text is the type of that, and all that is told of it."""


class _Ended(Exception):
    """The other end has gone, or talks nonsense."""


async def _receive(reader: asyncio.StreamReader) -> tuple[_Kind, bytes]:
    """The next frame. Raises :class:`_Ended`."""
    try:
        length, kind = _HEADER.unpack(await reader.readexactly(_HEADER.size))
        if length > _MAX_PAYLOAD:
            raise _Ended
        return _Kind(kind), await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        raise _Ended from None


async def _send(writer: asyncio.StreamWriter, kind: _Kind, payload: bytes = b"") -> None:
    """Raises :class:`_Ended`."""
    try:
        writer.write(_HEADER.pack(len(payload), kind) + payload)
        await writer.drain()
    except ConnectionError:
        raise _Ended from None


def _decode(payload: bytes, shape: type[_Shape]) -> _Shape:
    return msgspec.msgpack.decode(payload, type=shape)


# -------------------------------------------------------------------------------------------------- the host


class EngineHost:
    """Serves engines, which the caller starts and closes, to whoever connects."""

    def __init__(self, engines: Mapping[str, SharedEngine]) -> None:
        """``engines``: by the names that stand-ins ask for."""
        self._engines = dict(engines)

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Listen on a Unix socket at ``path`` while the body runs; jobs that are under way then end with it."""
        jobs: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            jobs.add(task)
            try:
                await self._serve(reader, writer)
            except asyncio.CancelledError:
                # The host ends. A task of a stream that ends cancelled is a fault to asyncio, and is logged as one.
                pass
            except Exception as bug:
                log.error("a job of a shared engine failed: %s", type(bug).__name__)
            finally:
                jobs.discard(task)
                writer.close()

        server = await asyncio.start_unix_server(serve, path)
        try:
            yield
        finally:
            server.close()
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            kind, payload = await _receive(reader)
            if kind is not _Kind.REQUEST:
                return
            request = _decode(payload, _Request)
            sound: asyncio.Queue[bytes | None] = asyncio.Queue(_WAITING_PIECES + 1)
            async with asyncio.TaskGroup() as group:
                hearing = group.create_task(_hear(reader, sound))
                if request.watch:
                    await self._tell_status(request.engine, writer)
                else:
                    await self._answer(request, sound, writer)
                hearing.cancel()
        except* _Ended:
            pass

    async def _answer(
        self, request: _Request, sound: asyncio.Queue[bytes | None], writer: asyncio.StreamWriter
    ) -> None:
        try:
            async with aclosing(self._results(request, _pieces(sound, writer))) as results:
                async for result in results:
                    kind = _Kind.PARTIAL if isinstance(result, base.PartialTranscript) else _Kind.RESULT
                    await _send(writer, kind, msgspec.msgpack.encode(result))
        except EngineError as fault:
            told = _Fault(fault.code, fault.message, fault.type)
            await _send(writer, _Kind.FAILED, msgspec.msgpack.encode(told))
        except _Ended:
            raise
        except Exception as bug:
            types = ", ".join(_types(bug))
            log.error("the engine %s failed by a bug: %s", request.engine, types)
            await _send(writer, _Kind.BUG, types.encode())
        else:
            await _send(writer, _Kind.DONE)

    async def _tell_status(self, name: str, writer: asyncio.StreamWriter) -> None:
        """Until the client has gone: at once, and whenever it changes."""
        engine, told = self._engines.get(name), None
        while True:
            works = engine is not None and (not isinstance(engine, base.Watched) or engine.working)
            if works is not told:
                told = works
                await _send(writer, _Kind.STATUS, bytes([works]))
            await asyncio.sleep(_LOOK_S)

    async def _results(
        self, request: _Request, audio: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript | base.SpeechChunk, None]:
        engine = self._engines.get(request.engine)
        if request.transcription is not None and isinstance(engine, base.Transcriber):
            async with aclosing(audio), aclosing(engine.transcribe(audio, request.transcription)) as deltas:
                async for delta in deltas:
                    yield delta
        elif request.synthesis is not None and isinstance(engine, base.Synthesizer):
            async with aclosing(engine.synthesize(request.synthesis)) as chunks:
                async for chunk in chunks:
                    yield chunk
        elif engine is None:
            raise EngineError("engine_unavailable", f"The engine host does not have the engine {request.engine}.")


async def _hear(reader: asyncio.StreamReader, sound: asyncio.Queue[bytes | None]) -> None:
    """Take in what the client sends, until it hangs up: its job is not wanted any more then."""
    while True:
        kind, payload = await _receive(reader)
        try:
            sound.put_nowait(payload if kind is _Kind.AUDIO else None)
        except asyncio.QueueFull:
            # It sent more than it had credit for.
            raise _Ended from None


async def _pieces(sound: asyncio.Queue[bytes | None], writer: asyncio.StreamWriter) -> AsyncGenerator[bytes, None]:
    while (piece := await sound.get()) is not None:
        # No drain: there are no more of these than pieces that were sent.
        writer.write(_HEADER.pack(0, _Kind.CREDIT))
        yield piece


def _types(bug: BaseException) -> list[str]:
    """The types of an exception, or of all in a group; no messages (law 5)."""
    if isinstance(bug, BaseExceptionGroup):
        return [name for inner in bug.exceptions for name in _types(inner)]
    return [type(bug).__name__]


# ------------------------------------------------------------------------------------------------ stand-ins


class _StandIn:
    """What looks like an engine and asks the host."""

    def __init__(self, engine: base.Engine, key: str, path: Path) -> None:
        """``engine``: made and not started; it says what the one in the host is like."""
        self.name = engine.name
        self.version = engine.version
        self._key = key
        self._path = path
        self._working = False
        self._watching: asyncio.Task[None] | None = None

    @property
    def working(self) -> bool:
        """The host is there, and says that the engine works."""
        return self._working

    async def start(self) -> None:
        """Wait until the host has it. Raises :class:`EngineError`."""
        async with self._job(_Request(self._key), patience_s=START_S) as (reader, _):
            async for _result in self._results(reader):
                pass
        self._working = True
        self._watching = asyncio.create_task(self._watch(), name=f"watch {self._key}")

    async def close(self) -> None:
        """The host closes the engine."""
        self._working = False
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])

    async def _watch(self) -> None:
        while True:
            with suppress(EngineError):
                async with self._job(_Request(self._key, watch=True), patience_s=0) as (reader, _):
                    while True:
                        kind, payload = await _receive(reader)
                        self._working = kind is _Kind.STATUS and payload == b"\x01"
            self._working = False
            await asyncio.sleep(_LOOK_S)

    @asynccontextmanager
    async def _job(
        self, request: _Request, *, patience_s: float = _ABSENT_S
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await self._connect(patience_s)
        try:
            await _send(writer, _Kind.REQUEST, msgspec.msgpack.encode(request))
            yield reader, writer
        except _Ended:
            raise self._crashed() from None
        finally:
            writer.close()

    async def _connect(self, patience_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while True:
            try:
                return await asyncio.open_unix_connection(self._path)
            except OSError:
                if loop.time() >= deadline:
                    raise EngineError(
                        "engine_unavailable", f"The process of the engine {self.name} cannot be reached."
                    ) from None
            await asyncio.sleep(_POLL_S)

    async def _results(
        self, reader: asyncio.StreamReader, credit: asyncio.Semaphore | None = None
    ) -> AsyncGenerator[tuple[_Kind, bytes], None]:
        while True:
            kind, payload = await _receive(reader)
            match kind:
                case _Kind.RESULT | _Kind.PARTIAL:
                    yield kind, payload
                case _Kind.CREDIT if credit is not None:
                    credit.release()
                case _Kind.DONE:
                    return
                case _Kind.BUG:
                    raise EngineBug(payload.decode())
                case _Kind.FAILED:
                    fault = _decode(payload, _Fault)
                    raise EngineError(fault.code, fault.message, type=fault.type)
                case _:
                    raise _Ended

    def _crashed(self) -> EngineError:
        return EngineError("engine_crashed", f"The process of the engine {self.name} ended unexpectedly.")


class SharedTranscriber(_StandIn):
    """A :class:`~vivavoce.engines.base.Transcriber` in the host."""

    def __init__(self, engine: base.Transcriber, key: str, path: Path) -> None:
        super().__init__(engine, key, path)
        self.capabilities = engine.capabilities

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        """As the engine; also raises :class:`EngineError` ``engine_unavailable`` and ``engine_crashed``."""
        async with self._job(_Request(self._key, transcription=options)) as (reader, writer):
            credit = asyncio.Semaphore(_WAITING_PIECES)
            feeding = asyncio.create_task(_feed(audio, writer, credit))
            try:
                async with aclosing(self._results(reader, credit)) as results:
                    async for kind, payload in results:
                        if kind is _Kind.PARTIAL:
                            yield _decode(payload, base.PartialTranscript)
                        else:
                            yield _decode(payload, base.TranscriptDelta)
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])
                if not feeding.cancelled() and (fault := feeding.exception()) is not None:
                    raise fault


class SharedSynthesizer(_StandIn):
    """A :class:`~vivavoce.engines.base.Synthesizer` in the host."""

    def __init__(self, engine: base.Synthesizer, key: str, path: Path) -> None:
        super().__init__(engine, key, path)
        self.capabilities = engine.capabilities

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        """As the engine; also raises :class:`EngineError` ``engine_unavailable`` and ``engine_crashed``."""
        wanted = _Request(self._key, synthesis=request)
        async with self._job(wanted) as (reader, _), aclosing(self._results(reader)) as results:
            async for _, payload in results:
                yield _decode(payload, base.SpeechChunk)


async def _feed(audio: AsyncIterator[bytes], writer: asyncio.StreamWriter, credit: asyncio.Semaphore) -> None:
    try:
        async for piece in audio:
            await credit.acquire()
            await _send(writer, _Kind.AUDIO, piece)
        await _send(writer, _Kind.END)
    except _Ended:
        # Who reads the results sees it too.
        return
    except Exception:
        # Without its end the job would wait for ever.
        writer.close()
        raise


def is_heavy(engine: base.Engine) -> bool:
    """Should one instance serve all workers of a server?"""
    return isinstance(engine, base.Transcriber | base.Synthesizer) and engine.capabilities.heavy


def stand_in(engine: base.Engine, key: str, path: Path) -> SharedEngine:
    """What a worker uses in the place of a heavy engine; ``path``: the host's socket."""
    if isinstance(engine, base.Transcriber):
        return SharedTranscriber(engine, key, path)
    assert isinstance(engine, base.Synthesizer)
    return SharedSynthesizer(engine, key, path)
