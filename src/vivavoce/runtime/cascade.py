"""The cascade: language model -> clauses -> synthesiser, for one response.

Laws
----
1. Words are reported as the model makes them, always before the sound of them, and no more than
   :data:`_CLAUSES_AHEAD` clauses before it: then the model waits, and so does the rest of a long piece of text.
2. While a clause is sent, the next is made. Of one response the synthesiser works on ``clauses_at_once`` clauses,
   and no more are made ahead of the one that is sent: no session takes more of the engine than it needs.
3. Sound is sent in the order of the words. A clause that fails does so when its turn comes, so that what goes
   before it is heard.
4. A client that reads slowly holds back the clauses to come, and not the synthesiser in the middle of one, which
   others wait for, up to :data:`_HELD_DELTAS` of each.
5. With the sound goes what is known of the place of its words in the transcript (``core.alignment``).
6. A function call waits until the message before it has been sent, since brackets nest (protocol section 5).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat
from vivavoce.core import contract as c
from vivavoce.core.alignment import Mark
from vivavoce.core.context import ResponsePlan
from vivavoce.engines import base
from vivavoce.runtime.clauses import ClauseSplitter
from vivavoce.runtime.engines import Room
from vivavoce.runtime.numerals import speller
from vivavoce.runtime.request import Words, generation_request, usage_report
from vivavoce.runtime.sound import DELTA_MS, SoundWriter
from vivavoce.runtime.speakable import Speakable, Spoken

_CLAUSES_AHEAD: Final = 4
"""Clauses that may wait for the synthesiser before the model is held back."""
_HELD_DELTAS: Final = 300
"""Deltas (30 s of sound; a clause is shorter) that may wait for a client that reads slowly."""


@dataclass(frozen=True, slots=True)
class _Clause:
    text: str
    begin: int
    """Where it begins in the transcript of its message."""


class _Speech:
    """One clause on its way to be heard: whoever makes its sound adds to it, whoever sends it takes."""

    def __init__(self, clause: _Clause, spoken: Spoken, most_bytes: int) -> None:
        self.clause = clause
        self.spoken = spoken
        self._most_bytes = most_bytes
        self._held: deque[base.SpeechChunk] = deque()
        self._bytes = 0
        self._over = False
        self._fault: Exception | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def waits(self) -> bool:
        """There is sound that can be sent."""
        return bool(self._held)

    async def add(self, chunk: base.SpeechChunk) -> None:
        """More of it; waits while there is more than enough."""
        if self._bytes > self._most_bytes:
            await self._room.wait()
        if not self._held:
            self._news.set()
        self._held.append(chunk)
        self._bytes += len(chunk.pcm)
        if self._bytes > self._most_bytes:
            self._room.clear()

    def end(self, fault: Exception | None = None) -> None:
        """There is no more of it."""
        self._over = True
        self._fault = fault
        self._news.set()

    async def next(self) -> base.SpeechChunk | None:
        """What comes next of it, None when that was all; raises the fault that it ended with."""
        while not self._held:
            if self._fault is not None:
                raise self._fault
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        chunk = self._held.popleft()
        was = self._bytes
        self._bytes -= len(chunk.pcm)
        if self._bytes <= self._most_bytes < was:
            self._room.set()
        return chunk


class Cascade:
    """Runs the plan of one response; ``report`` takes what it produces, in order."""

    def __init__(
        self,
        plan: ResponsePlan,
        *,
        language_model: base.LanguageModel,
        synthesizer: base.Synthesizer,
        words: Words,
        report: Callable[[c.Report], None],
        outbox: Room,
    ) -> None:
        capabilities = synthesizer.capabilities
        self._plan = plan
        self._model = language_model
        self._synthesizer = synthesizer
        self._words = words
        self._report = report
        self._outbox = outbox
        self._spell = None if capabilities.reads_numbers else speller
        self._splitter = ClauseSplitter()
        self._fed = self._cut = 0
        """Characters of the message that came, and those of them that are in clauses."""
        self._speakable = Speakable(self._spell)
        self._clauses: asyncio.Queue[_Clause] = asyncio.Queue(_CLAUSES_AHEAD)
        self._speeches: deque[_Speech] = deque()
        self._begun = asyncio.Semaphore(0)
        """Counts what waits in ``_speeches``."""
        self._unsent = asyncio.Semaphore(1 + capabilities.clauses_at_once)
        self._being_made = asyncio.Semaphore(capabilities.clauses_at_once)
        self._most_bytes = (
            _HELD_DELTAS * DELTA_MS * capabilities.sample_rate * AudioFormat.PCM16.sample_bytes // 1000
        )
        self._sound = SoundWriter(capabilities.sample_rate, plan.output_format)
        self._marks: list[Mark] = []

    async def run(self) -> None:
        """Take the turn; the last report is ResponseFinished. Raises EngineError, alone or in a group."""
        request = await generation_request(
            self._plan, hears_audio=self._model.capabilities.hears_audio, words=self._words
        )
        if not self._plan.speaks:
            finish = await self._generate(request)
        else:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(self._make(group)), group.create_task(self._send())]
                finish = await self._generate(request)
                await self._end_of_message()
                for worker in workers:
                    worker.cancel()
        self._report(c.ResponseFinished(self._plan.response_id, finish.reason))

    # ----------------------------------------------------------------------------------------------- words

    async def _generate(self, request: base.GenerationRequest) -> base.Finish:
        response_id = self._plan.response_id
        finish = base.Finish()
        calling = False
        async with aclosing(self._model.generate(request)) as deltas:
            async for delta in deltas:
                if self._outbox.crowded:
                    await self._outbox.drained()
                match delta:
                    case base.TextDelta():
                        calling = False
                        await self._say(delta.text)
                    case base.ToolCallStart():
                        await self._end_of_message()
                        calling = True
                        self._report(c.CallStarted(response_id, delta.name))
                    case base.ToolArgumentsDelta():
                        if not calling:
                            raise base.EngineError("invalid_engine_output", "Arguments without a function call.")
                        self._report(c.ArgumentsProduced(response_id, delta.text))
                    case base.Finish():
                        finish = delta
                        if delta.usage is not None:
                            self._report(usage_report(response_id, delta.usage))
        return finish

    async def _say(self, text: str) -> None:
        response_id = self._plan.response_id
        clauses = self._splitter.feed(text) if self._plan.speaks else []
        begin, told = self._fed, 0
        self._fed += len(text)
        if self._clauses.qsize() + len(clauses) <= _CLAUSES_AHEAD:
            self._report(c.TextProduced(response_id, text))
            told = len(text)
        for clause in clauses:
            end = self._cut + len(clause) - begin
            if end > told:
                self._report(c.TextProduced(response_id, text[told:end]))
                told = end
            await self._put(clause)
        if told < len(text):
            self._report(c.TextProduced(response_id, text[told:]))

    async def _put(self, clause: str) -> None:
        begin = self._cut
        self._cut += len(clause)
        await self._clauses.put(_Clause(clause, begin))

    async def _end_of_message(self) -> None:
        """Wait until everything said so far has been sent."""
        if not self._plan.speaks:
            return
        for clause in self._splitter.flush():
            await self._put(clause)
        await self._clauses.join()
        for piece in self._sound.flush():
            self._tell(piece)
        self._fed = self._cut = 0
        self._speakable = Speakable(self._spell)

    # ----------------------------------------------------------------------------------------------- sound

    async def _make(self, group: asyncio.TaskGroup) -> None:
        """Have clause after clause made into sound, as many at once as there may be."""
        while True:
            await self._unsent.acquire()
            await self._being_made.acquire()
            clause = await self._clauses.get()
            speech = _Speech(clause, self._speakable.speak(clause.text), self._most_bytes)
            self._speeches.append(speech)
            self._begun.release()
            group.create_task(self._synthesize(speech), name=f"speak {self._plan.response_id}")

    async def _synthesize(self, speech: _Speech) -> None:
        fault: Exception | None = None
        try:
            if speech.spoken.text:
                request = base.SynthesisRequest(
                    speech.spoken.text, self._plan.voice, self._plan.speed, self._plan.session_id
                )
                async with aclosing(self._synthesizer.synthesize(request)) as chunks:
                    async for chunk in chunks:
                        await speech.add(chunk)
        except Exception as raised:
            fault = raised
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody stopped us: the engine let a cancellation of its own escape.
            fault = RuntimeError("the synthesiser was cancelled")
        self._being_made.release()
        speech.end(fault)

    async def _send(self) -> None:
        """Send clause after clause."""
        while True:
            await self._begun.acquire()
            speech = self._speeches.popleft()
            begin = self._sound.ticks
            while (chunk := await speech.next()) is not None:
                if chunk.words:
                    self._marks += _marks(speech, chunk.words, begin)
                for piece in self._sound.write(chunk.pcm):
                    if self._outbox.crowded:
                        await self._outbox.drained()
                    self._tell(piece)
            self._marks.append(Mark(self._sound.ticks, speech.clause.begin + len(speech.clause.text)))
            if not self._speeches or not self._speeches[0].waits:
                self._tell(b"".join(self._sound.rest()))
            self._unsent.release()
            self._clauses.task_done()

    def _tell(self, piece: bytes) -> None:
        """``piece``: empty where only marks are new."""
        marks: tuple[Mark, ...] = ()
        if self._marks:
            marks, self._marks = tuple(self._marks), []
        self._report(c.AudioProduced(self._plan.response_id, piece, marks))


def _marks(speech: _Speech, words: tuple[base.WordTiming, ...], begin: int) -> list[Mark]:
    """Where the words stand, of a clause whose sound begins at tick ``begin`` of its message."""
    return [
        Mark(begin + max(0, word.audio_ms) * TICKS_PER_MS, speech.clause.begin + speech.spoken.origin(word.start))
        for word in words
    ]
