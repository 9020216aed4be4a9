"""Has the speaker finished? One session's questions to its end-of-turn engine (semantic_vad, protocol section 7.4).

Laws
----
1. At most one question is under way: the next takes its place.
2. A question ends in one report, ``TurnJudged``, or in none when it was withdrawn or the engine failed. Then the
   turn ends after its longest silence: a broken engine costs patience, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from vivavoce.audio.formats import TICKS_PER_MS, Clip
from vivavoce.audio.resample import clip_to_pcm
from vivavoce.core import contract as c
from vivavoce.engines.base import EndOfTurn, EngineError, Pause
from vivavoce.runtime.bugs import outline

log = logging.getLogger(__name__)

Words: TypeAlias = Callable[[], Awaitable[str | None]]


class TurnJudge:
    """``post`` takes its reports; tasks are made by ``spawn``."""

    def __init__(
        self,
        engine: EndOfTurn,
        *,
        post: Callable[[c.Input], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
        session: str = "",
    ) -> None:
        self._engine = engine
        self._session = session
        self._post = post
        self._spawn = spawn
        self._question: tuple[str, asyncio.Task[None]] | None = None

    @property
    def reads_words(self) -> bool:
        return self._engine.capabilities.reads_words

    def ask(self, question: c.JudgeTurn, *, words: Words | None, language: str | None) -> None:
        """``words`` waits for what was said so far; None when nobody listens for words."""
        if self._question is not None:
            self.withdraw(self._question[0])
        task = self._spawn(self._judge(question, words, language), f"judge {question.item_id}")
        self._question = (question.item_id, task)

    def withdraw(self, item_id: str) -> None:
        """Nobody wants to know any more whether the speaker of ``item_id`` has finished. Idempotent."""
        if self._question is not None and self._question[0] == item_id:
            self._question[1].cancel()
            self._question = None

    async def _judge(self, question: c.JudgeTurn, words: Words | None, language: str | None) -> None:
        try:
            pcm = await self._sound(question.clip)
            silence_ms = (question.end_tick - question.silent_from) // TICKS_PER_MS
            said = None if words is None else await words()
            finished = await self._engine.judge(Pause(said, language, pcm, silence_ms, self._session))
            if not 0.0 <= finished <= 1.0:
                raise ValueError("no probability")
        except EngineError as fault:
            log.warning("the end of %s cannot be judged: %s", question.item_id, fault.code)
        except Exception as bug:
            log.error("the end of %s cannot be judged: %s", question.item_id, outline(bug))
        else:
            self._question = None
            self._post(c.TurnJudged(question.item_id, question.silent_from, finished))

    async def _sound(self, clip: Clip) -> bytes:
        """The end of the clip as the engine takes it."""
        capabilities = self._engine.capabilities
        size = capabilities.audio_ms * capabilities.sample_rate // 1000 * 2
        if not size:
            return b""
        pcm = await asyncio.to_thread(clip_to_pcm, clip, capabilities.sample_rate)
        return pcm[-size:]
