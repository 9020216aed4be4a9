"""A worker's end of a synthesis: sound goes out as its reader makes room for it, and a reader who leaves ends it.

OPEN carries what the engine asks (JSON), each DATA of the answer a chunk (:func:`pack_chunk`).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, TypeAlias

from vivavoce.engines.builtin.worker_channel import CREDIT_PAYLOAD, Channel, Frame, Kind

_COUNT: Final = struct.Struct("<H")
_WORD: Final = struct.Struct("<III")

RawWord: TypeAlias = tuple[int, int, int]
"""A word: position in the text and length (as the engine counts them), milliseconds."""


class CancelledJob(Exception):
    """The reader of this job is gone."""


def pack_chunk(pcm: bytes, words: Sequence[RawWord]) -> bytes:
    """Words and sound as one payload."""
    return _COUNT.pack(len(words)) + b"".join(_WORD.pack(*word) for word in words) + pcm


def unpack_chunk(payload: bytes) -> tuple[bytes, list[RawWord]]:
    (count,) = _COUNT.unpack_from(payload)
    pcm_at = _COUNT.size + count * _WORD.size
    return payload[pcm_at:], list(_WORD.iter_unpack(payload[_COUNT.size : pcm_at]))


class SpeechJob:
    """The way out of one job; ``window`` is what may be on its way, in bytes."""

    def __init__(self, channel: Channel, job: int, window: int) -> None:
        self._channel = channel
        self._job = job
        self._room = window

    def check(self) -> None:
        """Raises :class:`CancelledJob` when nobody listens any more. Never waits."""
        while (frame := self._channel.poll()) is not None:
            self._listen(frame)

    def send(self, pcm: bytes, words: Sequence[RawWord] = ()) -> None:
        """Send one chunk; waits for room. Raises :class:`CancelledJob`."""
        while self._room <= 0:
            self._listen(self._channel.receive())
        self.check()
        payload = pack_chunk(pcm, words)
        self._room -= len(payload)
        self._channel.send(self._job, Kind.DATA, payload)

    def _listen(self, frame: Frame) -> None:
        if frame.job != self._job:
            return
        if frame.kind is Kind.CREDIT:
            self._room += CREDIT_PAYLOAD.unpack(frame.payload)[0]
        elif frame.kind is Kind.CANCEL:
            raise CancelledJob
