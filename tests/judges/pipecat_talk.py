# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-untyped-call, unused-ignore"
# pipecat is installed in the environments of its judges only.
"""What the judges of ``pipecat-ai`` share: a bot in a pipeline, and what its models lose."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pydantic import BaseModel, ValidationError
from witness import RATE, Findings, UnknownEvent, eventually


class Ear(FrameProcessor):
    """Keeps what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        await self.push_frame(frame, direction)

    def of(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]


class Bot:
    """A pipeline that runs: context aggregators around the service, and ears on both of its sides."""

    def __init__(self, service: Any, aggregators: Any, begin: Callable[[], Frame]) -> None:
        """``begin`` makes the frame that sends the context and lets the model answer."""
        self.service = service
        self._begin = begin
        self.before, self.after = Ear(), Ear()
        self.task = PipelineTask(
            Pipeline([aggregators.user(), self.before, service, self.after, aggregators.assistant()]),
            cancel_on_idle_timeout=False,
        )

    @property
    def errors(self) -> list[str]:
        return [frame.error for frame in self.before.of(ErrorFrame)]

    async def until(self, condition: Callable[[], bool]) -> None:
        await eventually(lambda: bool(self.errors) or condition())
        assert not self.errors, self.errors

    async def run(self) -> None:
        await self.task.queue_frame(self._begin())

    async def speak(self, sound: bytes) -> None:
        for at in range(0, len(sound), RATE // 50 * 2):
            piece = sound[at : at + RATE // 50 * 2]
            await self.task.queue_frame(InputAudioRawFrame(audio=piece, sample_rate=RATE, num_channels=1))

    async def answer(self, words: str) -> None:
        """These words, after all that was said before."""
        await self.until(lambda: self.words.endswith(words) and bool(self.after.of(LLMFullResponseEndFrame)))

    @property
    def words(self) -> str:
        return "".join(frame.text for frame in self.after.of(TTSTextFrame))

    @property
    def sound(self) -> bytes:
        return b"".join(frame.audio for frame in self.after.of(TTSAudioRawFrame))


@asynccontextmanager
async def running(bot: Bot) -> AsyncIterator[Bot]:
    runner = asyncio.create_task(PipelineRunner(handle_sigint=False).run(bot.task))
    try:
        yield bot
        await bot.task.queue_frame(EndFrame())
        await runner
        assert not bot.errors, bot.errors
    finally:
        runner.cancel()


def inspect_with(models: dict[str, type[BaseModel]], frame: str) -> Findings:
    """Raises UnknownEvent."""
    raw = json.loads(frame)
    model = models.get(raw["type"])
    if model is None:
        raise UnknownEvent(raw["type"])
    try:
        event = model.model_validate_json(frame, strict=True)
    except ValidationError as error:
        return Findings([f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()], [])
    return Findings([], sorted(set(_lost(event, raw, ""))))


def _lost(event: Any, raw: Any, path: str) -> list[str]:
    """Paths of what was sent and is not in the model."""
    lost: list[str] = []
    if isinstance(event, BaseModel):
        for name, value in raw.items():
            if name in type(event).model_fields:
                lost += _lost(getattr(event, name), value, f"{path}{name}.")
            elif name not in (event.model_extra or {}):
                lost.append(f"{path}{name}")
    elif isinstance(event, list):
        for one, value in zip(event, raw, strict=True):
            lost += _lost(one, value, path)
    return lost
