"""Noise reduction on sound as it comes, by WebRTC's noise suppression (the extra ``vivavoce[noise-reduction]``).

It works on blocks of 10 ms at 16 kHz, so sound is resampled on its way in and out; what lies above 8 kHz is lost,
and what lies below 100 Hz is weakened. The delay of the filters is taken out again: sound stays where it was on the
session's audio clock.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import from_samples, to_samples
from vivavoce.audio.resample import Float32, FrameResampler, Int16

Field: TypeAlias = Literal["near_field", "far_field"]

LEVELS: Final[dict[Field, int]] = {"near_field": 2, "far_field": 3}
"""WebRTC's "moderate" and "high", which weaken steady noise by up to 12 and 18 dB."""

_RATE: Final = 16000
_BLOCK_MS: Final = 10
_SUPPRESSOR_DELAY_MS: Final = 6
"""It works on windows of 256 samples that overlap by 96."""


def available() -> bool:
    """Is the extra installed? Loads it, which takes some milliseconds."""
    try:
        import webrtc_noise_gain  # noqa: F401
    except ImportError:
        return False
    return True


class NoiseReducer:
    """One stream of sound on the wire.

    It holds back less than :attr:`held_ms` of what it was given, until more comes or :meth:`flush`. A second takes
    2 ms of CPU in pieces of 200 ms, 5 ms in pieces of 20 ms; a stream takes 240 KB. The library lets no other
    thread run meanwhile, so that a thread of its own would gain nothing: give it long sound in pieces.
    """

    def __init__(self, field: Field, fmt: AudioFormat) -> None:
        """Raises ImportError where the extra is not installed."""
        from webrtc_noise_gain import AudioProcessor

        self.field = field
        self.format = fmt
        self._suppressor = AudioProcessor(0, LEVELS[field])
        self._in = _Stream(fmt.rate, _RATE)
        self._out = _Stream(_RATE, fmt.rate)
        self._block = fmt.rate * _BLOCK_MS // 1000
        self._delay = round(fmt.rate / 1000 * (self._in.delay_ms + _SUPPRESSOR_DELAY_MS + self._out.delay_ms))
        self.held_ms = _BLOCK_MS + self._delay * 1000 / fmt.rate
        self._waiting: Int16 = np.empty(0, np.int16)
        """Less than a block."""
        self._skip = self._delay
        """Samples that come out before the first that belongs to what was put in."""
        self._held = 0
        """Samples that were put in and have not come out."""

    def process(self, data: bytes) -> bytes:
        """Whole samples -> what of all that was put in can come out now, in the same format.

        Raises :class:`ValueError` for half a sample.
        """
        samples = to_samples(data, self.format)
        self._held += len(samples)
        samples = np.concatenate([self._waiting, samples])
        whole = len(samples) - len(samples) % self._block
        self._waiting = samples[whole:]
        reduced = self._reduce(samples[:whole])
        first = min(self._skip, len(reduced))
        self._skip -= first
        return self._give(reduced[first:])

    def flush(self) -> bytes:
        """All that is held back, as if silence came next. What is known of the noise stays known."""
        if not self._held:
            return b""
        blocks = -(-(self._skip + self._held) // self._block)
        silence = np.zeros(blocks * self._block - len(self._waiting), np.int16)
        reduced = self._reduce(np.concatenate([self._waiting, silence]))[self._skip :]
        self._waiting, self._skip = silence[:0], self._delay
        return self._give(reduced[: self._held])

    def _give(self, samples: Int16) -> bytes:
        self._held -= len(samples)
        return from_samples(samples, self.format)

    def _reduce(self, samples: Int16) -> Int16:
        """Whole blocks -> as many samples, delayed."""
        if not len(samples):
            return samples
        pcm = self._in.process(samples).astype("<i2").tobytes()
        step = _RATE * _BLOCK_MS // 1000 * 2
        reduced = b"".join(
            self._suppressor.Process10ms(pcm[at : at + step]).audio for at in range(0, len(pcm), step)
        )
        return self._out.process(to_samples(reduced, AudioFormat.PCM16))


class _Stream:
    """One stream through a :class:`FrameResampler`, whose rows are its blocks, one after the other."""

    def __init__(self, source_rate: int, target_rate: int) -> None:
        self._resampler = FrameResampler(source_rate, target_rate, frame_ms=_BLOCK_MS)
        self.delay_ms = self._resampler.delay_ms
        self._history: Float32 = np.zeros(self._resampler.history, np.float32)

    def process(self, samples: Int16) -> Int16:
        """Whole blocks."""
        line = np.concatenate([self._history, samples.astype(np.float32)])
        rows = np.lib.stride_tricks.sliding_window_view(line, len(self._history))
        histories = rows[: len(samples) : self._resampler.frame_samples].copy()
        frames = samples.reshape(-1, self._resampler.frame_samples)
        resampled = self._resampler.process(frames, histories)
        self._history = histories[-1]
        return np.clip(np.rint(resampled.reshape(-1) * 32768), -32768, 32767).astype(np.int16)
