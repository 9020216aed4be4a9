"""What the recognisers that run in worker processes share: sound in while people speak, words out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import msgspec

from vivavoce.engines.base import PartialTranscript, TokenLogprob, TranscriptDelta
from vivavoce.engines.builtin.worker_pool import Job, WorkerPool

SAMPLE_RATE: Final = 16000
"""Hz of all sound here."""
WINDOW_BYTES: Final = SAMPLE_RATE * 2
"""One second of sound on its way to a worker."""
_BACKLOG_BYTES: Final = SAMPLE_RATE * 2 * 60
"""A minute of sound of an utterance that waits for a decoder; a longer one is left with who sends it."""


class Told(msgspec.Struct, frozen=True, tag=True):
    """What a worker says of an utterance, once for all: more of its text, with the tokens that it consists of."""

    text: str
    tokens: tuple[tuple[str, float], ...] = ()
    """Each with the natural logarithm of its probability; none where nobody asked for them."""


class Guess(msgspec.Struct, frozen=True, tag=True):
    """What may follow on what was told, as far as a worker has come."""

    text: str
    audio_ms: int


def decode_words(piece: bytes) -> TranscriptDelta | PartialTranscript:
    """A :class:`Told` or :class:`Guess` as the server has it."""
    said = _SAID.decode(piece)
    if isinstance(said, Told):
        return TranscriptDelta(said.text, tuple(TokenLogprob(*token) for token in said.tokens))
    return PartialTranscript(said.text, said.audio_ms)


_SAID: Final = msgspec.json.Decoder(Told | Guess)


NO_SPACE: Final = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Range of characters of scripts without spaces between words, in which one character is a word here: Thai and Lao,
Khmer, kana, han."""
_WORD: Final = re.compile(rf"\s*(?:[{NO_SPACE}]|[^\s{NO_SPACE}]+)")


def split_words(text: str) -> list[str]:
    """The words of a transcript, each with the space before it: together the text, but for space at its end."""
    return _WORD.findall(text)


class Ears:
    """Utterances on their way through the workers of a pool, which has ``slots`` in all."""

    def __init__(self, pool: WorkerPool, slots: int) -> None:
        self._pool = pool
        self._turnstile = Turnstile(max(1, slots - 1))

    async def listen(
        self, audio: AsyncIterator[bytes], request: bytes, session: str
    ) -> AsyncGenerator[bytes, None]:
        """Send an utterance to a worker as it comes (s16le mono); yields what the worker says of it.

        ``request`` opens the job; ``session``: whose turn it is, where sessions wait. Raises :class:`EngineError`,
        and whatever ``audio`` raises.
        """
        told: asyncio.Queue[bytes | None] = asyncio.Queue()
        # A task group may not be left open over a yield: it would cancel whoever iterates.
        work = asyncio.create_task(self._work(audio, request, session, told))
        work.add_done_callback(lambda _: told.put_nowait(None))
        try:
            while (piece := await told.get()) is not None:
                yield piece
            work.result()
        finally:
            work.cancel()
            await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # seen, when nobody iterates to the end

    async def _work(
        self, audio: AsyncIterator[bytes], request: bytes, session: str, told: asyncio.Queue[bytes | None]
    ) -> None:
        backlog = Backlog(_BACKLOG_BYTES)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._turnstile.fill(backlog, audio))
                await self._turnstile.enter(backlog)
                async with self._pool.job(request, session) as job:
                    group.create_task(_feed(job, backlog))
                    async for piece in job:
                        told.put_nowait(piece)
        except BaseExceptionGroup as faults:
            raise _first_leaf(faults) from None
        finally:
            await self._turnstile.leave(backlog)


class Backlog:
    """Sound between who sends it and a decoder that may not be free yet: bounded, whole samples, in any pieces."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sound = bytearray()
        self._complete = False
        self._changed = asyncio.Condition()

    @property
    def complete(self) -> bool:
        """The last of the sound is here."""
        return self._complete

    async def fill(self, audio: AsyncIterator[bytes]) -> None:
        """Take in all of ``audio``; waits while ``limit`` bytes are held."""
        async for piece in audio:
            async with self._changed:
                await self._changed.wait_for(lambda: len(self._sound) < self._limit)
                self._sound += piece
                self._changed.notify_all()
        async with self._changed:
            self._complete = True
            self._changed.notify_all()

    async def take(self) -> bytes:
        """All whole samples that are there, at least one; empty at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._sound) >= 2 or self._complete)
            whole = len(self._sound) // 2 * 2
            taken = bytes(self._sound[:whole])
            del self._sound[:whole]
            self._changed.notify_all()
            return taken


class Turnstile:
    """Decides which utterances may take a decoder.

    One whose speaker is still talking holds its decoder for as long as the talk lasts, and leaves it idle for most
    of that time. So only ``early`` of them may, which leaves a decoder to those that are complete: they need it for
    a moment, and somebody waits for them.
    """

    def __init__(self, early: int) -> None:
        self._early = early
        self._holders: set[Backlog] = set()
        self._changed = asyncio.Condition()

    async def fill(self, backlog: Backlog, audio: AsyncIterator[bytes]) -> None:
        """Fill the backlog; when it is complete its place among the early ones is free again."""
        await backlog.fill(audio)
        await self.leave(backlog)

    async def enter(self, backlog: Backlog) -> None:
        """Wait until the utterance is complete, or may begin early."""
        async with self._changed:
            await self._changed.wait_for(lambda: backlog.complete or len(self._holders) < self._early)
            if not backlog.complete:
                self._holders.add(backlog)

    async def leave(self, backlog: Backlog) -> None:
        """The utterance is over, or complete. Idempotent."""
        async with self._changed:
            self._holders.discard(backlog)
            self._changed.notify_all()


async def _feed(job: Job, backlog: Backlog) -> None:
    while sound := await backlog.take():
        await job.send(sound)
    job.end()


def _first_leaf(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    first = faults.exceptions[0]
    return _first_leaf(first) if isinstance(first, BaseExceptionGroup) else first
