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
        self._as_it_is = source_rate == target.rate and target is AudioFormat.PCM16
        self._pending = b""
        self._size = FIRST_DELTA_MS * target.bytes_per_ms
        """Bytes of the next piece."""
        self._resampler: Resampler | None = None
        self._samples = 0

    @property
    def ticks(self) -> int:
        """Sound of the message that was written, 1/24000 s; what is made of it comes up to 0.2 s later."""
        return self._samples * AudioFormat.PCM16.rate // self._source_rate

    def write(self, pcm: bytes) -> list[bytes]:
        """``pcm``: s16le mono at the engine's rate. Returns the wire audio that is complete.

        Raises :class:`ValueError` when it does not hold whole samples.
        """
        samples, odd = divmod(len(pcm), AudioFormat.PCM16.sample_bytes)
        if odd:
            raise ValueError(f"{len(pcm)} bytes are no whole samples")
        self._samples += samples
        pending = self._pending + (pcm if self._as_it_is else self._convert(pcm))
        pieces, at, length = [], 0, len(pending)
        while length - at >= self._size:
            pieces.append(pending[at : at + self._size])
            at += self._size
            self._size = DELTA_MS * self._target.bytes_per_ms
        self._pending = pending[at:]
        return pieces

    def rest(self) -> list[bytes]:
        """Nothing follows at once: what waits for a whole delta, so that no word stops short of its end."""
        rest, self._pending = self._pending, b""
        return [rest] if rest else []

    def flush(self) -> list[bytes]:
        """The message is over: the rest, however short."""
        if self._resampler is not None:
            self._pending += self._convert(b"", last=True)
        rest, self._pending, self._resampler = self._pending, b"", None
        self._size = FIRST_DELTA_MS * self._target.bytes_per_ms
        self._samples = 0
        return [rest] if rest else []

    def _convert(self, pcm: bytes, *, last: bool = False) -> bytes:
        if self._resampler is None:
            self._resampler = Resampler(self._source_rate, self._target.rate)
        samples = self._resampler.process(to_samples(pcm, AudioFormat.PCM16), last=last)
        return from_samples(samples, self._target)
