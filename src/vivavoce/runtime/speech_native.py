"""A model that speaks for itself, for one response: what it makes is reported as it comes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import from_samples, to_samples
from vivavoce.audio.resample import Resampler
from vivavoce.core import contract as c
from vivavoce.core.context import ResponsePlan
from vivavoce.engines import base
from vivavoce.runtime.engines import Room
from vivavoce.runtime.request import Words, generation_request, usage_report


class SpeechNative:
    """Runs the plan of one response; ``report`` takes what it produces, in order."""

    def __init__(
        self,
        plan: ResponsePlan,
        *,
        speech_model: base.SpeechModel,
        words: Words,
        report: Callable[[c.Report], None],
        outbox: Room,
    ) -> None:
        self._plan = plan
        self._model = speech_model
        self._words = words
        self._report = report
        self._outbox = outbox
        self._resampler: Resampler | None = None

    async def run(self) -> None:
        """Take the turn; the last report is ResponseFinished. Raises EngineError."""
        plan = self._plan
        capabilities = self._model.capabilities
        generation = await generation_request(
            plan,
            hears_audio=capabilities.hears_audio,
            words=self._words,
            keeps_speech=capabilities.keeps_speech,
        )
        calling = False
        finish = base.Finish()
        request = base.SpeechRequest(generation, plan.voice, plan.speed)
        async with aclosing(self._model.respond(request)) as deltas:
            async for delta in deltas:
                await self._outbox.drained()
                match delta:
                    case base.TextDelta():
                        calling = False
                        self._report(c.TextProduced(plan.response_id, delta.text))
                    case base.AudioDelta():
                        if not plan.speaks:
                            raise base.EngineError("invalid_engine_output", "Audio in a response of text.")
                        calling = False
                        self._audio(delta.pcm)
                    case base.ToolCallStart():
                        calling = True
                        self._end_of_message()
                        self._report(c.CallStarted(plan.response_id, delta.name))
                    case base.ToolArgumentsDelta():
                        if not calling:
                            raise base.EngineError("invalid_engine_output", "Arguments without a function call.")
                        self._report(c.ArgumentsProduced(plan.response_id, delta.text))
                    case base.Finish():
                        finish = delta
                        if delta.usage is not None:
                            self._report(usage_report(plan.response_id, delta.usage))
        self._end_of_message()
        self._report(c.ResponseFinished(plan.response_id, finish.reason))

    def _audio(self, pcm: bytes, *, last: bool = False) -> None:
        target = self._plan.output_format
        if self._resampler is None:
            self._resampler = Resampler(self._model.capabilities.sample_rate, target.rate)
        samples = self._resampler.process(to_samples(pcm, AudioFormat.PCM16), last=last)
        if samples.size:
            self._report(c.AudioProduced(self._plan.response_id, from_samples(samples, target)))

    def _end_of_message(self) -> None:
        """What the resampler holds back belongs to the message that ends here."""
        if self._resampler is not None:
            self._audio(b"", last=True)
            self._resampler = None
