"""The cascade: language model -> clauses -> synthesiser, for one response.

Words are reported as the model makes them; each clause is synthesised while the model goes on. A function call
waits until the message before it has been spoken, since the brackets of a response nest (protocol section 5).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from vivavoce.core import contract as c
from vivavoce.core.context import ResponsePlan
from vivavoce.engines import base
from vivavoce.runtime.clauses import ClauseSplitter
from vivavoce.runtime.engines import Outbox
from vivavoce.runtime.request import Words, generation_request, usage_report
from vivavoce.runtime.sound import SoundWriter

_CLAUSES_AHEAD: Final = 4
"""Clauses that may wait for the synthesiser before the model is held back."""
_HELD_DELTAS: Final = 300
"""Deltas (30 s of sound; a clause is shorter) that may wait for a client that reads slowly."""


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
        outbox: Outbox,
    ) -> None:
        self._plan = plan
        self._model = language_model
        self._synthesizer = synthesizer
        self._words = words
        self._report = report
        self._outbox = outbox
        self._clauses: asyncio.Queue[str] = asyncio.Queue(_CLAUSES_AHEAD)
        self._splitter = ClauseSplitter()
        self._sound = SoundWriter(synthesizer.capabilities.sample_rate, plan.output_format)

    async def run(self) -> None:
        """Take the turn; the last report is ResponseFinished. Raises EngineError, alone or in a group."""
        request = await generation_request(
            self._plan, hears_audio=self._model.capabilities.hears_audio, words=self._words
        )
        if not self._plan.speaks:
            finish = await self._generate(request)
        else:
            async with asyncio.TaskGroup() as group:
                speaker = group.create_task(self._speak())
                finish = await self._generate(request)
                await self._end_of_message()
                speaker.cancel()
        self._report(c.ResponseFinished(self._plan.response_id, finish.reason))

    async def _generate(self, request: base.GenerationRequest) -> base.Finish:
        response_id = self._plan.response_id
        finish = base.Finish()
        calling = False
        async with aclosing(self._model.generate(request)) as deltas:
            async for delta in deltas:
                await self._outbox.drained()
                match delta:
                    case base.TextDelta():
                        calling = False
                        self._report(c.TextProduced(response_id, delta.text))
                        if self._plan.speaks:
                            for clause in self._splitter.feed(delta.text):
                                await self._clauses.put(clause)
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

    async def _end_of_message(self) -> None:
        """Wait until everything said so far has been spoken."""
        if not self._plan.speaks:
            return
        for clause in self._splitter.flush():
            await self._clauses.put(clause)
        await self._clauses.join()
        for audio in self._sound.flush():
            self._report(c.AudioProduced(self._plan.response_id, audio))

    async def _speak(self) -> None:
        """Speak clause by clause. A client that reads slowly holds back the next clause, and not the synthesiser in
        the middle of one, which others wait for, up to :data:`_HELD_DELTAS`."""
        plan = self._plan
        held: deque[bytes] = deque()
        while True:
            clause = await self._clauses.get()
            request = base.SynthesisRequest(clause.strip(), plan.voice, plan.speed, plan.session_id)
            async with aclosing(self._synthesizer.synthesize(request)) as chunks:
                async for chunk in chunks:
                    held += self._sound.write(chunk.pcm)
                    while held and (not self._outbox.crowded or len(held) > _HELD_DELTAS):
                        await self._outbox.drained()
                        self._report(c.AudioProduced(plan.response_id, held.popleft()))
            while held:
                await self._outbox.drained()
                self._report(c.AudioProduced(plan.response_id, held.popleft()))
            self._clauses.task_done()
