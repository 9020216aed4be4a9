"""Changing sample rates: a streaming resampler of high quality, and a cheap batched one for the VAD path.

:class:`Resampler` (soxr, HQ) is for sound that people or recognisers hear. It holds back 20 to 70 ms of audio
until more comes, which costs nothing where sound is made faster than real time but would delay every turn on
the VAD path. :class:`FrameResampler` is for that path: about 1 ms of delay, many streams in one matrix product.
"""

from __future__ import annotations

from itertools import groupby
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.audio.g711 import from_samples, to_samples

Int16: TypeAlias = npt.NDArray[np.int16]
Float32: TypeAlias = npt.NDArray[np.float32]

FRAME_MS: Final = 32
"""Milliseconds in a frame of the VAD path (protocol section 7.3)."""

_QUALITY: Final = "HQ"
_KAISER_BETA: Final = 5.0


class Resampler:
    """One stream of samples from one rate to another, in pieces of any length.

    The pieces given out join to a stream of ``round(n * target_rate / source_rate)`` samples, give or take one, for
    ``n`` taken in. Not for use by two threads at once.
    """

    def __init__(self, source_rate: int, target_rate: int) -> None:
        """Rates in Hz; equal rates make a resampler that hands everything through.

        Raises :class:`ValueError` when a rate is not positive.
        """
        if source_rate <= 0 or target_rate <= 0:
            raise ValueError(f"sample rates must be positive: {source_rate} Hz -> {target_rate} Hz")
        self.source_rate = source_rate
        self.target_rate = target_rate
        self._ended = False
        if source_rate == target_rate:
            self._stream = None
        else:
            import soxr

            # soxr adds dither when it makes int16 itself: silence would not stay silent, nor runs repeatable.
            self._stream = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality=_QUALITY)

    def process(self, samples: Int16, last: bool = False) -> Int16:
        """The next samples (one dimension, may be empty) -> the samples that are ready; ``last`` gets all the rest.

        Raises :class:`RuntimeError` after the last piece.
        """
        if self._ended:
            raise RuntimeError("the stream has ended; make a new Resampler")
        self._ended = last
        if self._stream is None:
            return samples
        return _rounded(self._stream.resample_chunk(samples.astype(np.float32), last=last))


def convert(data: bytes, source: AudioFormat, target: AudioFormat) -> bytes:
    """A whole stretch of sound on the wire from one format to another.

    Raises :class:`ValueError` when ``data`` does not hold whole samples.
    """
    if source is target:
        return data
    return from_samples(resample(to_samples(data, source), source.rate, target.rate), target)


def clip_to_pcm(clip: Clip, rate: int) -> bytes:
    """A clip as one stretch of s16le PCM at ``rate`` Hz; CPU work, off the event loop.

    Segments of equal rates are joined before they are converted, so that only a change of rates leaves a seam.
    """
    parts = []
    for source_rate, segments in groupby(clip.segments, key=lambda segment: segment[0].rate):
        samples = np.concatenate([to_samples(data, fmt) for fmt, data in segments])
        parts.append(resample(samples, source_rate, rate))
    return b"".join(from_samples(part, AudioFormat.PCM16) for part in parts)


def clip_to_wire(clip: Clip, fmt: AudioFormat) -> bytes:
    """A clip as sound on the wire; CPU work, off the event loop, where it came in another format."""
    if all(segment[0] is fmt for segment in clip.segments):
        return b"".join(data for _, data in clip.segments)
    return from_samples(to_samples(clip_to_pcm(clip, fmt.rate), AudioFormat.PCM16), fmt)


def resample(samples: Int16, source_rate: int, target_rate: int) -> Int16:
    """A whole stretch of samples (one dimension) from one rate to another, both in Hz."""
    if source_rate == target_rate or not len(samples):
        return samples
    return Resampler(source_rate, target_rate).process(samples, last=True)


def _rounded(samples: Float32) -> Int16:
    """``samples`` is scratch afterwards."""
    np.rint(samples, out=samples)
    return samples.clip(-32768, 32767, out=samples).astype(np.int16)


class FrameResampler:
    """Frames of many streams from one rate to another, by a polyphase FIR as one matrix product.

    Each millisecond of output is a product of that millisecond of input and the ``history`` before it with a fixed
    matrix (the filter at every phase; a Kaiser-windowed sinc, linear phase), so streams times milliseconds are the
    rows of a few products. What a stream needs to remember is the end of its last frame: a row of ``history``
    floats that the caller keeps, zeros at first.

    From 24 to 16 kHz: within 0.1 dB up to 7.2 kHz, aliases of 9 kHz and more below -55 dB, 0.94 ms of delay. From
    8 to 16 kHz: within 0.1 dB up to 3.5 kHz, images of sound up to 3.4 kHz below -50 dB, 1.44 ms.

    Not for use by two threads at once: it keeps scratch space.
    """

    def __init__(self, source_rate: int, target_rate: int = 16000, *, frame_ms: int = FRAME_MS) -> None:
        """``frame_ms``: milliseconds in a frame.

        Raises :class:`ValueError` unless both rates (Hz) are multiples of 1000 from 8000 up.
        """
        if min(source_rate, target_rate) < 8000 or source_rate % 1000 or target_rate % 1000:
            raise ValueError(f"rates must be multiples of 1000 Hz from 8000 up: {source_rate} -> {target_rate}")
        self.source_rate = source_rate
        self.target_rate = target_rate
        self.frame_samples = source_rate * frame_ms // 1000
        """Samples in a frame at the source rate."""
        self.output_samples = target_rate * frame_ms // 1000
        """Samples in a frame at the target rate."""
        self._frame_ms = frame_ms
        self._filter, self.history, self.delay_ms = _polyphase(source_rate, target_rate)
        if self.history:
            self._reserve(1)

    def process(self, frames: Int16, history: Float32, out: Float32 | None = None) -> Float32:
        """One frame of each of B streams.

        ``frames`` is [B, frame_samples]; ``history`` is [B, history] and is updated in place. Returns [B,
        output_samples] in -1..1 (``out`` when it is given).
        """
        count = len(frames)
        if out is None:
            out = np.empty((count, self.output_samples), np.float32)
        if not self.history:
            return np.multiply(frames, np.float32(1 / 32768), out=out, casting="same_kind")
        if count > len(self._line):
            self._reserve(count)
        line, result = self._line[:count], self._result[:count]
        end = self.history + self.frame_samples
        line[:, : self.history] = history
        line[:, self.history : end] = frames
        history[...] = line[:, self.frame_samples : end]
        rows = count * self._windows
        for windows, places in self._products:
            np.matmul(windows[:rows], self._filter, out=places[:rows])
        out[...] = result[:, : self.output_samples]
        return out

    def _reserve(self, count: int) -> None:
        """Have room for so many streams.

        BLAS cannot read overlapping rows, but every n-th window, where n is the milliseconds of a window, ends
        where the next one begins: n products read all of them from where they lie. The line is filled up to whole
        windows.
        """
        length, width = self._filter.shape
        step = self.source_rate // 1000
        phases = length // step
        self._windows = -(-(self.history + self.frame_samples) // length)
        # What fills it up makes sound that nobody hears, but must be numbers.
        size = count * self._windows * length
        flat = np.zeros(size + length, np.float32)
        self._line = flat[:size].reshape(count, -1)
        self._result = np.empty((count, self._windows * phases * width), np.float32)
        places = self._result.reshape(-1, phases, width)
        self._products = [
            (flat[at * step : at * step + size].reshape(-1, length), places[:, at]) for at in range(phases)
        ]


def _polyphase(source_rate: int, target_rate: int) -> tuple[Float32, int, float]:
    """The matrix [history + samples of 1 ms at the source, samples of 1 ms at the target], history, delay in ms.

    It takes samples in the scale of int16 and gives -1..1. Times below are in periods of the source rate; the
    kernel reaches ``half`` to either side, and the delay is the least for which no output needs the next
    millisecond's input.
    """
    if source_rate == target_rate:
        return np.empty((0, 0), np.float32), 0, 0.0
    lower = min(source_rate, target_rate)
    half = source_rate * (12 if lower < 16000 else 16) // lower
    ratio = source_rate / target_rate
    delay = half - ratio
    # Whole milliseconds, so that the matrix is some of them long.
    history = -(-2 * half // (source_rate // 1000)) * (source_rate // 1000)
    inputs = np.arange(-history, source_rate // 1000)
    outputs = np.arange(target_rate // 1000) * ratio - delay
    time = outputs - inputs[:, np.newaxis]
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(1 - (time / half) ** 2, 0))) * (np.abs(time) < half)
    kernel = np.sinc(time * lower / source_rate) * window
    kernel /= kernel.sum(axis=0) * 32768
    return np.ascontiguousarray(kernel, dtype=np.float32), history, delay * 1000 / source_rate
