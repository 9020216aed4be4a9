"""What is checked, and the tools of the checks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np

from vivavoce.audio.resample import Resampler
from vivavoce.demo.sound import RATE, parse_wav
from vivavoce.engines.base import EngineError
from vivavoce.engines.registry import EngineKind, Registry

Kind: TypeAlias = EngineKind
_T = TypeVar("_T")

MARK: Final = "Quibblefrost"
"""A word of every text that an engine is asked to work on; it must not turn up in a log."""


class NotConforming(AssertionError):
    """An engine breaks a promise; the text says which."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An engine to be checked, and what the kit cannot know of it."""

    kind: Kind
    create: Callable[[Mapping[str, object]], object]
    """The factory that the entry point names."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Options with which it works."""
    bad_options: Mapping[str, object] = field(default_factory=dict)
    """Option -> a value that it must refuse, each by itself."""
    unstartable: Mapping[str, object] | None = None
    """Options that ``create`` takes and ``start`` fails with."""
    speech: bytes | None = None
    """For what hears: a sentence, s16le mono at the rate of its capabilities; None for one of 3 s."""
    words: str | None = None
    """What a recogniser makes of ``speech``, in lower case, without punctuation; None when that is not known."""
    patience_s: float = 30.0
    """The longest that one start, one piece of work or one close may take."""

    @classmethod
    def installed(cls, kind: EngineKind, name: str, **beside: Any) -> Subject:
        """The engine that an entry point announces; ``beside``: other fields of the subject."""
        registry = Registry.installed()
        return cls(kind=kind, create=lambda options: registry.create(kind, name, options), **beside)

    def make(self) -> Any:
        """A new engine, not started."""
        return self.create(dict(self.options))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Any]:
        """A new engine, started; closed at the end."""
        engine = self.make()
        await self.patiently(engine.start(), "start")
        try:
            yield engine
        finally:
            await self.patiently(engine.close(), "close")

    async def patiently(self, work: Awaitable[_T], what: str) -> _T:
        """The result of ``work``. Raises NotConforming when it takes longer than ``patience_s``."""
        limit = asyncio.timeout(self.patience_s)
        try:
            async with limit:
                return await work
        except TimeoutError:
            if limit.expired():
                raise NotConforming(f"{what} took longer than {self.patience_s:g} s") from None
            raise

    def sentence(self, rate: int) -> bytes:
        """Speech, s16le mono at ``rate``."""
        if self.speech is not None:
            return self.speech
        wav = files("vivavoce.demo").joinpath("data", "question.wav").read_bytes()
        samples = np.frombuffer(parse_wav(wav), np.int16)
        resampled: bytes = Resampler(RATE, rate).process(samples, last=True).astype("<i2").tobytes()
        return resampled


Work: TypeAlias = Callable[[Subject], Awaitable[None]]
Checks: TypeAlias = Sequence[Any]
"""Functions of a subject; coroutines."""


@dataclass(frozen=True)
class Check:
    """One promise. Call it, or await :meth:`run` where an event loop runs already."""

    name: str
    subject: Subject = field(repr=False)
    work: Work = field(repr=False)

    def __str__(self) -> str:
        return self.name

    def __call__(self) -> None:
        asyncio.run(self.run())

    async def run(self) -> None:
        """Raises :class:`NotConforming`, and a bug of the engine as it is."""
        try:
            await self.work(self.subject)
        except EngineError as fault:
            raise NotConforming(f"it failed: {fault.code}: {fault.message}") from fault


def require(condition: object, problem: str) -> None:
    """Raises NotConforming with ``problem``, unless ``condition``."""
    if not condition:
        raise NotConforming(problem)


async def turns(count: int) -> None:
    """Let everything else have ``count`` turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


class Sound:
    """An audio source that counts what was taken of it; ``endless``: after its pieces it waits for ever."""

    def __init__(self, pcm: bytes, piece: int, *, endless: bool = False) -> None:
        self._pcm = pcm
        self._piece = piece
        self._endless = endless
        self.taken = 0

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        for at in range(0, len(self._pcm), self._piece):
            self.taken += 1
            yield self._pcm[at : at + self._piece]
            await asyncio.sleep(0)
        if self._endless:
            await asyncio.get_running_loop().create_future()
