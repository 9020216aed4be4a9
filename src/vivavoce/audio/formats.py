"""Audio formats of the protocol: names, rates, and the arithmetic between bytes, samples and milliseconds.

Sound on the wire is one of three formats (protocol section 2.1): ``pcm16`` (24 kHz mono, signed
16-bit little-endian, 48 bytes a millisecond), ``g711_ulaw`` and ``g711_alaw`` (8 kHz mono, one byte a
sample, 8 bytes a millisecond).

A session's audio clock counts **ticks** of 1/24000 s whatever the format, so that it stays exact and
monotone when a client changes formats in mid-stream: one pcm16 sample is 1 tick, one g711 sample 3.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Self

TICKS_PER_MS: Final = 24
"""Ticks of the audio clock in one millisecond."""


class AudioFormat(Enum):
    """An encoding of mono speech on the wire; the value is the name that the preview dialect uses."""

    PCM16 = "pcm16"
    G711_ULAW = "g711_ulaw"
    G711_ALAW = "g711_alaw"

    rate: int
    """Samples per second (Hz)."""
    sample_bytes: int
    """Bytes per sample."""
    bytes_per_ms: int
    """Bytes per millisecond of sound."""
    ticks_per_byte_num: int
    ticks_per_byte_den: int

    def ticks(self, n_bytes: int) -> int:
        """The length in ticks (1/24000 s) of ``n_bytes`` whole samples."""
        return n_bytes * self.ticks_per_byte_num // self.ticks_per_byte_den

    def bytes_of(self, ticks: int) -> int:
        """The bytes that hold ``ticks`` of sound, rounded down to a whole sample."""
        n = ticks * self.ticks_per_byte_den // self.ticks_per_byte_num
        return n - n % self.sample_bytes

    def ms(self, n_bytes: int) -> float:
        """The length of ``n_bytes`` in milliseconds."""
        return n_bytes / self.bytes_per_ms


for _format, _rate, _sample_bytes in (
    (AudioFormat.PCM16, 24000, 2),
    (AudioFormat.G711_ULAW, 8000, 1),
    (AudioFormat.G711_ALAW, 8000, 1),
):
    _format.rate = _rate
    _format.sample_bytes = _sample_bytes
    _format.bytes_per_ms = _rate * _sample_bytes // 1000
    _format.ticks_per_byte_num = 24000 // _rate
    _format.ticks_per_byte_den = _sample_bytes
del _format, _rate, _sample_bytes


class Clip:
    """A stretch of recorded sound: segments in the order heard, each in the format it arrived in. Never changes.

    Most clips have one segment; a client that changes ``input_audio_format`` while audio is buffered
    makes more. Converting is left to whoever needs samples, off the event loop
    (:func:`vivavoce.audio.resample.clip_to_pcm`).
    """

    __slots__ = ("_pieces", "_segments", "ticks")

    def __init__(self, segments: tuple[tuple[AudioFormat, bytes], ...] = ()) -> None:
        self._segments = segments
        self._pieces: tuple[AudioFormat, tuple[bytes, ...]] | None = None
        self.ticks = sum([fmt.ticks(len(data)) for fmt, data in segments])
        """Length in ticks of 1/24000 s."""

    @classmethod
    def of_pieces(cls, fmt: AudioFormat, pieces: tuple[bytes, ...], ticks: int) -> Self:
        """One segment, ``ticks`` long, that is put together when somebody asks for it: nobody may."""
        clip = cls()
        clip._pieces = (fmt, pieces)
        clip.ticks = ticks
        return clip

    @property
    def segments(self) -> tuple[tuple[AudioFormat, bytes], ...]:
        """The sound, as bytes on the wire."""
        self.join()
        return self._segments

    def join(self) -> None:
        """Put it together now, where it will be kept: small pieces take more than their sound."""
        pieces = self._pieces
        if pieces is not None:
            # In this order, since another thread may ask meanwhile.
            self._segments = ((pieces[0], b"".join(pieces[1])),)
            self._pieces = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clip) and self.segments == other.segments

    def __hash__(self) -> int:
        return hash(self.segments)

    def __repr__(self) -> str:
        return f"Clip({self.ms} ms)"

    @property
    def ms(self) -> int:
        """Length in whole milliseconds, rounded down."""
        return self.ticks // TICKS_PER_MS

    @property
    def size(self) -> int:
        """Bytes of sound."""
        pieces = self._pieces
        if pieces is not None:
            return sum(map(len, pieces[1]))
        return sum([len(data) for _, data in self._segments])
