"""The input audio buffer: what was appended and can still be asked for (protocol sections 4.1 - 4.3, 7.3).

Laws
----
1. The clock counts every byte ever appended. Commit, clear and a change of format never move it back.
2. Audio lies in one piece from ``kept_from`` to ``clock``.
3. With turn detection, audio that no turn can reach any more is dropped: in silence only the padding stays.
4. What was committed may be reached once more, as the padding of the next turn, but is not committed by hand again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import groupby
from typing import Final

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat, Clip
from vivavoce.wire import errors

MIN_COMMIT_TICKS: Final = 100 * TICKS_PER_MS
MAX_BUFFER_TICKS: Final = 30 * 60 * 1000 * TICKS_PER_MS
"""Audio that a session may hold, in the buffer and in its items: as long as it lasts (protocol section 4.1)."""


class InputAudio:
    """The buffer of one session. Positions are ticks of the audio clock."""

    def __init__(self) -> None:
        self.clock = 0
        """End of all audio ever appended."""
        self.uncommitted_from = 0
        """Where a commit by hand begins."""
        self.kept_from = 0
        """Where the audio that is still here begins."""
        # What was appended, piece by piece, in three lists of one length: no object for each of many small pieces.
        self._parts: list[bytes] = []
        self._formats: list[AudioFormat] = []
        self._ends: list[int] = []

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
        end = start + fmt.ticks(len(data))
        if end - self.kept_from + held_ticks > MAX_BUFFER_TICKS:
            raise errors.buffer_full(MAX_BUFFER_TICKS // TICKS_PER_MS)
        self.clock = end
        self._parts.append(data)
        self._formats.append(fmt)
        self._ends.append(end)
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
        self._drop(len(self._ends))
        self.uncommitted_from = self.clock

    def keep_from(self, tick: int) -> None:
        """Nothing before ``tick`` will be asked for again; whole pieces before it are dropped."""
        ends = self._ends
        if ends and ends[0] <= tick:
            self._drop(bisect_right(ends, tick))

    def _drop(self, count: int) -> None:
        if count:
            self.kept_from = self._ends[count - 1]
            del self._parts[:count], self._formats[:count], self._ends[:count]

    def cut(self, start: int, end: int) -> Clip:
        """What is kept between two ticks; what is gone already is left out."""
        ends = self._ends
        first = bisect_right(ends, start)
        after = bisect_left(ends, end) + 1
        parts = self._parts[first:after]
        if not parts or end <= start or end <= self.kept_from:
            return Clip()
        formats = self._formats[first:after]
        begin, until = ends[first - 1] if first else self.kept_from, ends[first + len(parts) - 1]
        fmt = formats[-1]
        if until > end:
            kept = fmt.bytes_of(fmt.ticks(len(parts[-1])) + end - until)
            until += fmt.ticks(kept) - fmt.ticks(len(parts[-1]))
            parts[-1] = parts[-1][:kept]
        if start > begin:
            gone = formats[0].bytes_of(start - begin)
            begin += formats[0].ticks(gone)
            parts[0] = parts[0][gone:]
        if formats.count(fmt) == len(parts):
            return Clip.of_pieces(fmt, tuple(parts), until - begin)
        runs = groupby(zip(formats, parts, strict=True), lambda piece: piece[0])
        return Clip(tuple((fmt, b"".join([data for _, data in run])) for fmt, run in runs))
