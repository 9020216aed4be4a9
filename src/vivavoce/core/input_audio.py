"""The input audio buffer: what was appended and can still be asked for (protocol sections 4.1 - 4.3, 7.3).

Laws
----
1. The clock counts every byte ever appended. Commit, clear and a change of format never move it back.
2. Audio lies in one piece from ``kept_from`` to ``clock``.
3. With turn detection, audio that no turn can reach any more is dropped: in silence only the padding stays.
4. What was committed may be reached once more, as the padding of the next turn, but is not committed by hand again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat, Clip
from vivavoce.wire import errors

MIN_COMMIT_TICKS: Final = 100 * TICKS_PER_MS
MAX_BUFFER_TICKS: Final = 30 * 60 * 1000 * TICKS_PER_MS
"""Audio that a session may hold, in the buffer and in its items: as long as it lasts (protocol section 4.1)."""


@dataclass(slots=True)
class _Chunk:
    start: int
    end: int
    format: AudioFormat
    data: bytes


class InputAudio:
    """The buffer of one session. Positions are ticks of the audio clock."""

    def __init__(self) -> None:
        self.clock = 0
        """End of all audio ever appended."""
        self.uncommitted_from = 0
        """Where a commit by hand begins."""
        self._chunks: deque[_Chunk] = deque()

    @property
    def kept_from(self) -> int:
        """Where the audio that is still here begins."""
        return self._chunks[0].start if self._chunks else self.clock

    def check_room(self, ticks: int, held_ticks: int) -> None:
        """Raises ClientFault when so much more audio would be too much, beside what the conversation holds."""
        if self.clock - self.kept_from + held_ticks + ticks > MAX_BUFFER_TICKS:
            raise errors.buffer_full(MAX_BUFFER_TICKS // TICKS_PER_MS)

    def append(self, fmt: AudioFormat, data: bytes, held_ticks: int = 0) -> int:
        """Take ``data``; returns the tick at which it begins. ``held_ticks``: audio that the conversation holds.
        Raises ClientFault, changing nothing."""
        if not data:
            raise errors.invalid_audio("audio", fmt.value, "empty bytes")
        if len(data) % fmt.sample_bytes:
            raise errors.invalid_audio("audio", fmt.value)
        start = self.clock
        ticks = fmt.ticks(len(data))
        self.check_room(ticks, held_ticks)
        self.clock = start + ticks
        self._chunks.append(_Chunk(start, self.clock, fmt, data))
        return start

    def commit(self, start: int) -> Clip:
        """Take everything from ``start`` on, by hand. Raises ClientFault under 100 ms, changing nothing."""
        length = self.clock - start
        if length < MIN_COMMIT_TICKS:
            raise errors.commit_too_small(length / TICKS_PER_MS)
        clip = self.cut(start, self.clock)
        self.committed(self.clock)
        return clip

    def committed(self, end: int) -> None:
        """Everything before ``end`` belongs to an item now."""
        self.uncommitted_from = max(self.uncommitted_from, end)

    def clear(self) -> None:
        """Forget all audio; the clock goes on."""
        self._chunks.clear()
        self.uncommitted_from = self.clock

    def keep_from(self, tick: int) -> None:
        """Nothing before ``tick`` will be asked for again; whole chunks before it are dropped."""
        chunks = self._chunks
        while chunks and chunks[0].end <= tick:
            chunks.popleft()

    def cut(self, start: int, end: int) -> Clip:
        """A copy of what is kept between two ticks; what is gone already is left out.

        Looks from the end backwards: what is asked for is recent, however long the buffer is.
        """
        segments: list[tuple[AudioFormat, list[bytes]]] = []
        for chunk in reversed(self._chunks):
            if chunk.end <= start or end <= start:
                break
            if chunk.start >= end:
                continue
            data = chunk.data
            if chunk.start < start or chunk.end > end:
                first = chunk.format.bytes_of(max(start, chunk.start) - chunk.start)
                data = data[first : chunk.format.bytes_of(min(end, chunk.end) - chunk.start)]
            if not segments or segments[-1][0] is not chunk.format:
                segments.append((chunk.format, []))
            segments[-1][1].append(data)
        return Clip(tuple((fmt, b"".join(reversed(parts))) for fmt, parts in reversed(segments)))
