"""How did the voice end? Pitch and its movement over the last moments of a turn, in plain numpy.

Before somebody else takes over, pitch mostly falls to the bottom of the speaker's range or rises high; before the
same speaker goes on it stays level in the middle, and a hesitation draws the last sound out. (Gravano and
Hirschberg, "Turn-taking cues in task-oriented dialogue", Computer Speech and Language 25, 2011; Duncan, "Some
signals and rules for taking speaking turns in conversations", J. Personality and Social Psychology 23, 1972.)

Pitch is found by autocorrelation of windows of 40 ms every 10 ms, divided by that of the window itself (Boersma,
"Accurate short-term analysis of the fundamental frequency", IFA Proceedings 17, 1993), without his path search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from vivavoce.engines.base import Float32

SAMPLE_RATE: Final = 8000
HOP_MS: Final = 10
_HOP: Final = SAMPLE_RATE * HOP_MS // 1000
_WINDOW: Final = SAMPLE_RATE * 40 // 1000
_SHORTEST_LAG: Final = SAMPLE_RATE // 400
_LONGEST_LAG: Final = SAMPLE_RATE // 70
"""Voices between 70 and 400 Hz."""
_VOICED: Final = 0.5
"""Autocorrelation from which a window is voiced."""
_NEARLY_BEST: Final = 0.9
"""The shortest lag that is nearly as good as the best is taken: twice a period fits as well as the period."""
_LOUD: Final = 0.05
"""Of the turn's level (its 95th percentile); below it is noise."""
_LEAST_VOICED: Final = 15
_OCTAVE: Final = 12.0
_LEAST_RANGE: Final = 2.0
"""Semitones; a voice that moves less is taken to have this range, so that trembling is no movement."""
_END_WINDOWS: Final = 6
_DRAWN_OUT_SEMITONES: Final = 1.0


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a voice."""

    height: float
    """Of its last 60 ms within the range of the turn: 0 at the median, -1 and 1 a whole range (10 to 90 %) away."""
    drawn_out_ms: int
    """How long the last sound was held, without a break, within a semitone."""


def ending(samples: Float32) -> Ending | None:
    """``samples``: speech, -1..1 at :data:`SAMPLE_RATE`. None when there is too little voice in it to tell."""
    pitch = _semitones(samples)
    voiced = np.flatnonzero(~np.isnan(pitch))
    if len(voiced) < _LEAST_VOICED:
        return None
    heard = pitch[voiced]
    low, high = np.percentile(heard, (10, 90))
    height = float(np.median(heard[-_END_WINDOWS:])) / max(float(high - low), _LEAST_RANGE)
    return Ending(height, _drawn_out(pitch[: voiced[-1] + 1]) * HOP_MS)


def _drawn_out(pitch: Float32) -> int:
    """Windows at the end that have voice throughout and keep to the pitch of the end."""
    near = np.abs(pitch - np.median(pitch[-_END_WINDOWS:])) <= _DRAWN_OUT_SEMITONES
    other = np.flatnonzero(~near)
    return len(pitch) - 1 - int(other[-1]) if len(other) else len(pitch)


def _semitones(samples: Float32) -> Float32:
    """Pitch of each window above or below the median, NaN where there is none."""
    if len(samples) < _WINDOW:
        return np.zeros(0, np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    windows = windows - windows.mean(axis=1, keepdims=True)
    level = np.sqrt((windows * windows).mean(axis=1))
    similar = _autocorrelation(windows)[:, _SHORTEST_LAG : _LONGEST_LAG + 1]
    inner = similar[:, 1:-1]
    is_peak = (inner >= similar[:, :-2]) & (inner >= similar[:, 2:])
    peaks = np.where(is_peak, inner, -1.0)
    best = peaks.max(axis=1)
    at = np.argmax(peaks >= _NEARLY_BEST * best[:, None], axis=1)
    rows = np.arange(len(at))
    before, top, after = similar[rows, at], similar[rows, at + 1], similar[rows, at + 2]
    bend = np.maximum(2 * top - before - after, 1e-9)
    lag = _SHORTEST_LAG + 1 + at + np.clip((after - before) / (2 * bend), -0.5, 0.5)
    is_voiced = (best > _VOICED) & (level > _LOUD * np.percentile(level, 95)) & (level > 0)
    if not is_voiced.any():
        return np.full(len(at), np.nan, np.float32)
    pitch = 12.0 * np.log2(np.median(lag[is_voiced]) / lag)
    is_voiced &= np.abs(pitch) < _OCTAVE
    return np.where(is_voiced, pitch, np.nan).astype(np.float32)


def _autocorrelation(windows: Float32) -> Float32:
    """Of each window with itself, 1 at lag 0; lags up to one more than the longest."""
    taper = np.hanning(_WINDOW).astype(np.float32)
    size = 1024
    power = np.abs(np.fft.rfft(windows * taper, size)) ** 2
    raw = np.fft.irfft(power, size)[:, : _LONGEST_LAG + 1]
    own = np.fft.irfft(np.abs(np.fft.rfft(taper, size)) ** 2, size)[: _LONGEST_LAG + 1]
    normal: Float32 = (raw / np.maximum(raw[:, :1], 1e-12) / (own / own[0])).astype(np.float32)
    return normal
