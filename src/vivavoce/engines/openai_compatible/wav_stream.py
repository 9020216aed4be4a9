"""A WAV file that is read while it comes. Servers that stream one do not know its length: they write 0 or the most
that fits, so the lengths in its header are not believed."""

from __future__ import annotations

import struct
from typing import Final

_RIFF: Final = struct.Struct("<4sI4s")
_CHUNK: Final = struct.Struct("<4sI")
_FORMAT: Final = struct.Struct("<HHIIHH")
_PCM: Final = 1
_EXTENSIBLE: Final = 0xFFFE
_UNKNOWN: Final = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF})
_LONGEST_HEADER: Final = 65_536


class NotWav(Exception):
    """It is no WAV file of 16-bit mono PCM."""


class WavReader:
    """Bytes cut anywhere -> the bytes of the sound."""

    def __init__(self) -> None:
        self.rate: int | None = None
        """Hz, once it is known."""
        self._head: bytes | None = b""
        """What came of the header; None when it is over."""
        self._left: int | None = None
        """Bytes of sound to come; None where nobody knows."""

    def feed(self, piece: bytes) -> bytes:
        """Raises NotWav."""
        if self._head is not None:
            self._head += piece
            begin = self._begin_of_sound(self._head)
            if begin is None:
                if len(self._head) > _LONGEST_HEADER:
                    raise NotWav
                return b""
            piece, self._head = self._head[begin:], None
        if self._left is not None:
            piece = piece[: self._left]
            self._left -= len(piece)
        return piece

    def end(self) -> None:
        """Nothing more comes. Raises NotWav where there was no sound, not even none."""
        if self._head is not None:
            raise NotWav

    def _begin_of_sound(self, head: bytes) -> int | None:
        if len(head) < _RIFF.size:
            return None
        riff, whole, kind = _RIFF.unpack_from(head)
        if riff != b"RIFF" or kind != b"WAVE":
            raise NotWav
        at = _RIFF.size
        while len(head) >= at + _CHUNK.size:
            name, size = _CHUNK.unpack_from(head, at)
            at += _CHUNK.size
            if name == b"data":
                if self.rate is None:
                    raise NotWav
                streamed = size in _UNKNOWN or whole in _UNKNOWN or size >= 0x7FFFFF00
                self._left = None if streamed else size
                return at
            if name == b"fmt ":
                if len(head) < at + _FORMAT.size:
                    return None
                self.rate = _rate(head, at)
            at += size + size % 2
        return None


def _rate(head: bytes, at: int) -> int:
    kind, channels, rate, _, _, bits = _FORMAT.unpack_from(head, at)
    if kind not in (_PCM, _EXTENSIBLE) or channels != 1 or bits != 16 or not 8000 <= rate <= 192_000:
        raise NotWav
    return int(rate)
