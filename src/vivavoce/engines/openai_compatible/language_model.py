"""A language model over streamed ``/chat/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from vivavoce.engines import base
from vivavoce.engines.openai_compatible.chat import RESERVED, SMALL, ChatOptions, chat_body, completed
from vivavoce.engines.openai_compatible.options import PATH_OPTIONS, read_options
from vivavoce.engines.openai_compatible.upstream import Upstream

__all__ = ["PATH_OPTIONS", "OpenAICompatibleModel", "create"]


class LanguageModelOptions(ChatOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    hears_audio: bool = False
    """The model takes ``input_audio``; otherwise it reads what the recogniser heard."""


class OpenAICompatibleModel:
    """A :class:`~vivavoce.engines.base.LanguageModel`."""

    name = "openai_compatible"

    def __init__(self, options: LanguageModelOptions, upstream: Upstream) -> None:
        self._options = options
        self._upstream = upstream
        self.version = upstream.version
        self.capabilities = base.LanguageModelCapabilities(
            hears_audio=options.hears_audio,
            sees_images=options.sees_images,
            calls_tools=options.calls_tools,
            reasons=options.reasons,
        )

    @property
    def working(self) -> bool:
        return self._upstream.working

    async def start(self) -> None:
        """Raises EngineError where the option ``check`` is ``fail``."""
        await self._upstream.start(lambda: self.generate(SMALL))

    async def close(self) -> None:
        await self._upstream.close()

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        """Raises EngineError, by the codes of :mod:`vivavoce.engines.openai_compatible.upstream`."""
        body = chat_body(request, self._options)
        async with aclosing(completed(self._upstream, body, self._options)) as deltas:
            async for delta in deltas:
                yield delta


def create(options: base.JsonObject) -> base.LanguageModel:
    """Raises EngineOptionsError, and EngineError without ``httpx``."""
    read = read_options(options, LanguageModelOptions, RESERVED)
    return OpenAICompatibleModel(read, Upstream(read, "language model"))
