"""A synthesiser for vivavoce that plays one tone for each word."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import numpy as np

from vivavoce.engines.base import (
    EngineError,
    EngineOptionsError,
    SpeechChunk,
    SynthesisRequest,
    SynthesizerCapabilities,
    WordTiming,
)

RATE = 24_000
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
LONGEST_TEXT = 10_000

PATH_OPTIONS = ("melody",)
"""Options that are paths: vivavoce makes them absolute, from the folder of the configuration file."""


def create(options: Mapping[str, object]) -> TonesSynthesizer:
    """The factory that the entry point names. Options: ``tone_ms``, ``melody``."""
    unknown = sorted(options.keys() - {"tone_ms", "melody"})
    if unknown:
        raise EngineOptionsError(unknown[0], "unknown option (there are: melody, tone_ms)")
    tone_ms = options.get("tone_ms", 150)
    if not isinstance(tone_ms, int) or not 20 <= tone_ms <= 2000:
        raise EngineOptionsError("tone_ms", "expected an integer from 20 to 2000")
    return TonesSynthesizer(tone_ms, _melody(options.get("melody")))


def _melody(path: object) -> list[int]:
    """Semitones, one a line."""
    if path is None:
        return [0, 4, 7, 12]
    if not isinstance(path, str):
        raise EngineOptionsError("melody", "expected the path of a file")
    try:
        notes = [int(line) for line in Path(path).read_text().split()]
    except (OSError, ValueError) as error:
        raise EngineOptionsError("melody", str(error)) from error
    if not notes:
        raise EngineOptionsError("melody", f"{path} holds no notes")
    return notes


class TonesSynthesizer:
    name = "tones"
    version = "0.1.0"
    capabilities = SynthesizerCapabilities(
        sample_rate=RATE, word_timings=True, voices={voice: voice for voice in VOICES}
    )

    def __init__(self, tone_ms: int, melody: list[int]) -> None:
        self._tone_ms = tone_ms
        self._melody = melody

    async def start(self) -> None:
        """Load models and start workers here, not in the factory."""

    async def close(self) -> None:
        """Free what ``start`` took."""

    async def synthesize(self, request: SynthesisRequest) -> AsyncGenerator[SpeechChunk, None]:
        if request.voice not in VOICES:
            raise EngineError("unknown_voice", "There is no such voice.")
        if len(request.text) > LONGEST_TEXT:
            raise EngineError("text_too_long", f"At most {LONGEST_TEXT} characters can be played.")
        tone_ms = round(self._tone_ms / request.speed)
        lowest = 180.0 * 2 ** (VOICES.index(request.voice) / 8)
        for n, word in enumerate(re.finditer(r"\S+", request.text)):
            pitch = lowest * 2 ** (self._melody[n % len(self._melody)] / 12)
            sound = await asyncio.to_thread(_tone, pitch, tone_ms)
            timing = WordTiming(start=word.start(), length=len(word[0]), audio_ms=n * tone_ms)
            yield SpeechChunk(sound, words=(timing,))


def _tone(hertz: float, ms: int) -> bytes:
    """A sine that fades out: mono, signed 16 bit, little-endian."""
    time = np.arange(RATE * ms // 1000) / RATE
    wave = np.sin(2 * np.pi * hertz * time) * np.linspace(1, 0, len(time)) * 0.3
    return (wave * 32767).astype("<i2").tobytes()
