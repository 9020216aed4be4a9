"""From the sound that engines make to the audio deltas of a response."""

from __future__ import annotations

from typing import Final

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import from_samples, to_samples
from vivavoce.audio.resample import Resampler

DELTA_MS: Final = 100
"""Sound in one audio delta."""
FIRST_DELTA_MS: Final = 40
"""Sound in the first one, which somebody waits for."""


class SoundWriter:
    """PCM of an engine, in pieces of any length -> wire audio in pieces of :data:`DELTA_MS`."""

    def __init__(self, source_rate: int, target: AudioFormat) -> None:
        self._source_rate = source_rate
        self._target = target
        self._pending = b""
        self._first = True
        self._resampler: Resampler | None = None
        self._samples = 0

    @property
    def ticks(self) -> int:
        """Sound of the message that was written, 1/24000 s; what is made of it comes up to 0.2 s later."""
        return self._samples * AudioFormat.PCM16.rate // self._source_rate

    def write(self, pcm: bytes) -> list[bytes]:
        """``pcm``: s16le mono at the engine's rate. Returns the wire audio that is complete."""
        if self._resampler is None:
            self._resampler = Resampler(self._source_rate, self._target.rate)
        self._samples += len(pcm) // AudioFormat.PCM16.sample_bytes
        self._convert(self._resampler, pcm, last=False)
        pieces, at = [], 0
        while len(self._pending) - at >= (size := self._size()):
            pieces.append(self._pending[at : at + size])
            at += size
            self._first = False
        self._pending = self._pending[at:]
        return pieces

    def rest(self) -> list[bytes]:
        """Nothing follows at once: what waits for a whole delta, so that no word stops short of its end."""
        rest, self._pending = self._pending, b""
        return [rest] if rest else []

    def flush(self) -> list[bytes]:
        """The message is over: the rest, however short."""
        if self._resampler is not None:
            self._convert(self._resampler, b"", last=True)
        rest, self._pending, self._resampler, self._first = self._pending, b"", None, True
        self._samples = 0
        return [rest] if rest else []

    def _size(self) -> int:
        return (FIRST_DELTA_MS if self._first else DELTA_MS) * self._target.bytes_per_ms

    def _convert(self, resampler: Resampler, pcm: bytes, *, last: bool) -> None:
        samples = resampler.process(to_samples(pcm, AudioFormat.PCM16), last=last)
        self._pending += from_samples(samples, self._target)
