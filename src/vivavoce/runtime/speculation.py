"""The answer to a turn that is likely over, made while the silence lasts (``docs/explanation/latency.md``).

Laws
----
1. Nothing of it reaches the session, and so the client, before its response has begun and takes it.
2. A response takes it when it asks the engines for the very same, word for word; :meth:`Speculation.take` alone
   decides. Otherwise, and when it failed, it is stopped, and the response begins as if it had never been.
3. At most :data:`HELD_BYTES` are held, and a clause more; then its engines wait.
4. What it costs is taken from an allowance; what a response takes over is paid by that, and given back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, Protocol, TypeAlias

from vivavoce.core import contract as c
from vivavoce.core import usage
from vivavoce.core.context import Entry, ResponsePlan
from vivavoce.engines.base import GenerationRequest
from vivavoce.runtime.bugs import engine_error, outline
from vivavoce.runtime.engines import Room
from vivavoce.runtime.request import Words, generation_request
from vivavoce.wire import server_events as se

log = logging.getLogger(__name__)

HELD_BYTES: Final = 240_000
"""Sound (5 s of pcm16) and text of an answer that may wait for the end of the turn."""


class Speaker(Protocol):
    """Who makes a response: a cascade, or a speech model."""

    async def run(self) -> None: ...


MakeSpeaker: TypeAlias = Callable[[ResponsePlan, Words, Callable[[c.Report], None], Room], Speaker]


class Speculation:
    """Works from the beginning. ``guess`` has the likely words of the turn, ``words`` those of earlier speech.

    ``post`` and ``room`` are the way out that it has once it is taken.
    """

    def __init__(
        self,
        effect: c.Speculate,
        *,
        make: MakeSpeaker,
        guess: Callable[[Entry], Awaitable[str]],
        words: Words,
        post: Callable[[c.Report], None],
        room: Room,
        spent: Callable[[se.Usage], None],
        tokens: usage.Tokens,
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        self.response_id = effect.plan.response_id
        self._plan = effect.plan
        self._input_tokens = effect.input_tokens
        self._guess = guess
        self._hear = words
        self._known: dict[tuple[str, int], str] = {}
        self._request: GenerationRequest | None = None
        """As soon as the words are known that it is made of."""
        self._fault: Exception | None = None
        self._post = post
        self._spend = spent
        self._tokens = tokens
        self._hold = _Hold(room)
        self._speaker = make(self._plan, self._words, self._report, self._hold)
        self._task = spawn(self._run(), f"speculate {self.response_id}")

    async def take(self, plan: ResponsePlan) -> bool:
        """Go on as the response of ``plan`` up to its end, and return True; or False, when that asks for something
        else and has to be begun. Either way nothing of this is left.

        Raises EngineError when the words of the plan cannot be had, and what the engines raise from now on.
        """
        try:
            request = await generation_request(plan, hears_audio=False, words=self._hear)
            if not self._makes(plan, request):
                return False
            self._spend(se.Usage())
            while (report := self._hold.next()) is not None:
                await self._hold.room.drained()
                self._post(report)
            self._hold.open()
            await self._task
            if self._fault is not None:
                raise self._fault
            return True
        finally:
            self.drop()

    def drop(self) -> None:
        """Stop, and leave nothing. Idempotent."""
        self._task.cancel()
        self._spend(self._spent() if self._request is not None else se.Usage())
        self._hold.reports.clear()

    def _spent(self) -> se.Usage:
        """What it read, and what it has made and holds."""
        text = ticks = 0
        for report in self._hold.reports:
            match report:
                case c.TextProduced() | c.ArgumentsProduced():
                    text += self._tokens.text(report.text)
                case c.AudioProduced():
                    ticks += self._plan.output_format.ticks(len(report.audio))
        spoken = usage.assistant_audio_tokens(ticks)
        return se.Usage(input_text=self._input_tokens, output_text=text, output_audio=spoken)

    def _makes(self, plan: ResponsePlan, request: GenerationRequest) -> bool:
        """Is it making just what a response of this plan would make?"""
        if self._fault is not None or self._task.cancelled() or request != self._request:
            return False
        return replace(plan, context=()) == replace(self._plan, context=())

    async def _run(self) -> None:
        try:
            self._request = await generation_request(self._plan, hears_audio=False, words=self._words)
            await self._speaker.run()
        except Exception as raised:
            self._fault = raised
            if not self._hold.opened and engine_error(raised) is None:
                log.error("what was begun ahead for %s failed: %s", self.response_id, outline(raised))

    async def _words(self, entry: Entry, index: int) -> str:
        key = (entry.item.id, index)
        if key not in self._known:
            now = entry is self._plan.context[-1]
            self._known[key] = await (self._guess(entry) if now else self._hear(entry, index))
        return self._known[key]

    def _report(self, report: c.Report) -> None:
        if self._hold.opened:
            self._post(report)
        else:
            self._hold.put(report)


class _Hold:
    """Reports that wait, and the room that whoever makes them sees."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.reports: deque[c.Report] = deque()
        self._bytes = 0
        self._way_out = asyncio.Event()

    @property
    def opened(self) -> bool:
        return self._way_out.is_set()

    def open(self) -> None:
        """From now on nothing is held."""
        self._way_out.set()

    def put(self, report: c.Report) -> None:
        self.reports.append(report)
        self._bytes += _size(report)

    def next(self) -> c.Report | None:
        """The one that has waited longest."""
        return self.reports.popleft() if self.reports else None

    @property
    def crowded(self) -> bool:
        return self.room.crowded if self.opened else self._bytes >= HELD_BYTES

    async def drained(self) -> None:
        if self._bytes >= HELD_BYTES:
            await self._way_out.wait()
        if self.opened:
            await self.room.drained()


def _size(report: c.Report) -> int:
    match report:
        case c.AudioProduced():
            return len(report.audio)
        case c.TextProduced() | c.ArgumentsProduced():
            return len(report.text)
        case _:
            return 0
