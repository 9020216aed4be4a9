"""Has the speaker finished? An end-of-turn engine without a model: what the words want, and how the voice ended.

Both kinds of evidence are log-odds, set by hand and added up:

- the words, as far as the recogniser has them (:mod:`vivavoce.engines.builtin.turn_words`);
- the voice (:mod:`vivavoce.engines.builtin.turn_prosody`): a fall to the bottom of the speaker's range speaks for
  the end, as does a high rise after words that are complete; a level end in the middle of the range, or a sound
  that is drawn out, speaks for more to come.

It knows four languages a little; of others it judges the voice alone. A trained model can take its place as a
plug-in of the same kind.

Options of its configuration table:

- ``language``: of the words where the client names none (``en``; one of ``en``, ``de``, ``es``, ``fr``).
"""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Literal

import msgspec
import numpy as np

from vivavoce.engines.base import EndOfTurn, EndOfTurnCapabilities, EngineError, JsonObject, Pause
from vivavoce.engines.builtin.turn_prosody import SAMPLE_RATE, Ending, ending
from vivavoce.engines.builtin.turn_words import LANGUAGES, completeness
from vivavoce.engines.builtin.worker_options import convert_options

_AUDIO_MS: Final = 4000
"""Enough to know the range of a voice."""
_HEIGHTS: Final = (-0.8, -0.4)
"""Of an :class:`Ending`: at the first a voice has fallen to its bottom, from the second on it is level."""
_RISE: Final = 0.5
_FELL: Final = 1.0
_LEVEL: Final = -0.8
_ROSE_AFTER_ALL: Final = 0.5
_DRAWN_OUT_MS: Final = 350
_DRAWN_OUT: Final = -1.0


class TurnHintsOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    language: Literal["en", "de", "es", "fr"] = "en"


def create(options: JsonObject) -> EndOfTurn:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`."""
    return TurnHints(convert_options(options, TurnHintsOptions))


class TurnHints:
    """An :class:`~vivavoce.engines.base.EndOfTurn`."""

    name = "turn_hints"
    version = "1"
    capabilities = EndOfTurnCapabilities(
        sample_rate=SAMPLE_RATE, audio_ms=_AUDIO_MS, reads_words=True, languages=LANGUAGES
    )

    def __init__(self, options: TurnHintsOptions) -> None:
        self._language = options.language
        self._executor: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="vivavoce-end-of-turn")
        # numpy loads its FFT when it is first used, which takes longer than any judgement after.
        await asyncio.get_running_loop().run_in_executor(self._executor, ending, np.zeros(SAMPLE_RATE, np.float32))

    async def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None

    async def judge(self, pause: Pause) -> float:
        """See :class:`~vivavoce.engines.base.EndOfTurn`. Takes about 3 ms of one core for 4 s of speech."""
        if self._executor is None:
            raise EngineError("engine_unavailable", f"The {self.name} engine does not run.")
        return await asyncio.get_running_loop().run_in_executor(self._executor, probability, pause, self._language)


def probability(pause: Pause, language: str = "en") -> float:
    """That the speaker has finished. ``language``: of the words where the pause names none."""
    said = (pause.language or language).partition("-")[0].lower()
    words = completeness(pause.words or "", said)
    samples = np.frombuffer(pause.pcm, "<i2").astype(np.float32) / np.float32(32768)
    speech = samples[: max(0, len(samples) - pause.silence_ms * SAMPLE_RATE // 1000)]
    odds = words + _by_voice(ending(speech), complete=words > 0)
    return 1.0 / (1.0 + math.exp(-odds))


def _by_voice(end: Ending | None, *, complete: bool) -> float:
    if end is None:
        return 0.0
    if end.drawn_out_ms >= _DRAWN_OUT_MS:
        return _DRAWN_OUT
    if end.height >= _RISE and complete:
        # In the middle of a sentence a rise holds the floor; at the end of a complete one it asks.
        return _ROSE_AFTER_ALL
    return float(np.interp(end.height, _HEIGHTS, (_FELL, _LEVEL)))
