"""The buffer against a naive model: one list of ticks, each with its format and its byte."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat, Clip
from vivavoce.core.input_audio import MAX_BUFFER_TICKS, MIN_COMMIT_TICKS, InputAudio
from vivavoce.wire.errors import ClientFault

PCM, ULAW, ALAW = AudioFormat


class BufferModel(RuleBasedStateMachine):
    """``self.samples`` holds (first tick, format, bytes) of every sample ever appended and not yet forgotten."""

    @initialize()
    def start(self) -> None:
        self.audio = InputAudio()
        self.samples: list[tuple[int, AudioFormat, bytes]] = []
        self.chunk_ends: list[int] = []
        self.clock = 0
        self.uncommitted = 0
        self.highest = 0

    def naive_cut(self, start: int, end: int) -> list[tuple[AudioFormat, bytes]]:
        """Samples from the one that holds ``start`` up to the last that ends by ``end``."""
        segments: list[tuple[AudioFormat, bytes]] = []
        for first, fmt, data in self.samples:
            length = 24000 // fmt.rate
            if first + length > start and first + length <= end:
                if segments and segments[-1][0] is fmt:
                    segments[-1] = (fmt, segments[-1][1] + data)
                else:
                    segments.append((fmt, data))
        return segments

    @rule(fmt=st.sampled_from(AudioFormat), data=st.binary(min_size=1, max_size=40))
    def append(self, fmt: AudioFormat, data: bytes) -> None:
        data = data[: len(data) // fmt.sample_bytes * fmt.sample_bytes] or bytes(fmt.sample_bytes)
        assert self.audio.append(fmt, data) == self.clock
        for i in range(0, len(data), fmt.sample_bytes):
            self.samples.append((self.clock, fmt, data[i : i + fmt.sample_bytes]))
            self.clock += 24000 // fmt.rate
        self.chunk_ends.append(self.clock)

    @rule(fmt=st.sampled_from(AudioFormat), ms=st.sampled_from([50, 99, 100, 150]))
    def append_long(self, fmt: AudioFormat, ms: int) -> None:
        self.append(fmt, bytes([ms % 256]) * (fmt.bytes_per_ms * ms))

    @rule(data=st.binary(max_size=9).filter(lambda d: len(d) % 2 == 1 or not d))
    def refuse(self, data: bytes) -> None:
        with pytest.raises(ClientFault) as raised:
            self.audio.append(PCM, data)
        assert (raised.value.code, raised.value.param) == ("invalid_value", "audio")

    @rule(data=st.data())
    def cut(self, data: Any) -> None:
        start = data.draw(st.integers(0, self.clock + 5))
        end = data.draw(st.integers(start, self.clock + 5))
        clip = self.audio.cut(start, end)
        assert clip.ticks == Clip(clip.segments).ticks
        assert [s for s in clip.segments if s[1]] == self.naive_cut(start, end)

    @rule(data=st.data())
    def commit(self, data: Any) -> None:
        start = data.draw(st.integers(self.audio.kept_from, self.clock))
        before = self.audio.uncommitted_from
        if self.clock - start < MIN_COMMIT_TICKS:
            with pytest.raises(ClientFault) as raised:
                self.audio.commit(start)
            assert raised.value.code == "input_audio_buffer_commit_empty"
            assert f"only has {(self.clock - start) / TICKS_PER_MS:.2f}ms" in raised.value.message
            assert self.audio.uncommitted_from == before
        else:
            clip = self.audio.commit(start)
            assert [s for s in clip.segments if s[1]] == self.naive_cut(start, self.clock)
            self.uncommitted = self.clock

    @rule(data=st.data())
    def committed(self, data: Any) -> None:
        end = data.draw(st.integers(0, self.clock))
        self.audio.committed(end)
        self.uncommitted = max(self.uncommitted, end)

    @rule()
    def clear(self) -> None:
        self.audio.clear()
        self.samples.clear()
        self.chunk_ends.clear()
        self.uncommitted = self.clock

    @rule(data=st.data())
    def keep_from(self, data: Any) -> None:
        tick = data.draw(st.integers(0, self.clock + 5))
        self.audio.keep_from(tick)
        gone = max((end for end in self.chunk_ends if end <= tick), default=0)
        self.chunk_ends = [end for end in self.chunk_ends if end > tick]
        self.samples = [sample for sample in self.samples if sample[0] >= gone]

    @invariant()
    def agrees(self) -> None:
        assert self.audio.clock == self.clock
        assert self.audio.uncommitted_from == self.uncommitted
        assert self.audio.kept_from == (self.samples[0][0] if self.samples else self.clock)

    @invariant()
    def clock_never_goes_back(self) -> None:
        assert self.audio.clock >= self.highest
        self.highest = self.audio.clock


TestBufferModel = BufferModel.TestCase
TestBufferModel.settings = settings(max_examples=60, stateful_step_count=25)


@pytest.mark.parametrize(("fmt", "data"), [(PCM, bytes(4800)), (ULAW, bytes(800)), (ALAW, bytes(800))])
def test_exactly_100_ms_pass(fmt: AudioFormat, data: bytes) -> None:
    audio = InputAudio()
    audio.append(fmt, data)
    assert audio.commit(0) == Clip(((fmt, data),))


@pytest.mark.parametrize(
    ("fmt", "data", "ms"),
    [(PCM, bytes(4798), "99.96"), (ULAW, bytes(799), "99.88"), (ALAW, bytes(1), "0.12"), (PCM, b"", "0.00")],
)
def test_less_than_100_ms_do_not(fmt: AudioFormat, data: bytes, ms: str) -> None:
    audio = InputAudio()
    if data:
        audio.append(fmt, data)
    with pytest.raises(ClientFault, match=f"only has {ms}ms"):
        audio.commit(0)


def test_empty_append_is_told_apart() -> None:
    with pytest.raises(ClientFault, match="but got empty bytes"):
        InputAudio().append(PCM, b"")


def test_the_buffer_has_an_end() -> None:
    audio = InputAudio()
    half = bytes(MAX_BUFFER_TICKS // 2 // 3)
    audio.append(ULAW, half)
    audio.append(ULAW, half)
    assert audio.clock == MAX_BUFFER_TICKS
    with pytest.raises(ClientFault, match="already holds 30 minutes"):
        audio.append(ULAW, b"\0")
    assert audio.clock == MAX_BUFFER_TICKS
    audio.keep_from(MAX_BUFFER_TICKS // 2)
    assert audio.append(ULAW, b"\0") == MAX_BUFFER_TICKS


def test_formats_stay_apart_in_a_clip() -> None:
    audio = InputAudio()
    audio.append(PCM, b"ab")
    audio.append(PCM, b"cd")
    audio.append(ULAW, b"e")
    audio.append(ALAW, b"f")
    assert audio.cut(0, audio.clock).segments == ((PCM, b"abcd"), (ULAW, b"e"), (ALAW, b"f"))
