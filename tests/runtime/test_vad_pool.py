"""The pool against a VAD engine whose answers can be reckoned by hand, stepped frame by frame."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import decode, encode
from vivavoce.audio.resample import FrameResampler
from vivavoce.engines.base import VadCapabilities
from vivavoce.engines.builtin.silero_vad import STATE_SIZE, create
from vivavoce.runtime import vad_pool
from vivavoce.runtime.vad_pool import FRAME_TICKS, MAX_BACKLOG_TICKS, VadPool, VadStream

Float32 = npt.NDArray[np.float32]
PCM, ULAW, ALAW = AudioFormat.PCM16, AudioFormat.G711_ULAW, AudioFormat.G711_ALAW


class FakeVad:
    """Its "probability" is the sum of the frame's samples, as int16, plus a ``STEP`` for each frame that the
    stream's memory has seen. At 24 kHz pcm16 comes to it as it is."""

    name = "fake"
    version = "1"
    STEP = 1e9

    def __init__(self, rate: int = 24000) -> None:
        self.capabilities = VadCapabilities(sample_rate=rate, frame_samples=rate * 32 // 1000, state_size=3)
        self.batches: list[list[float]] = []
        """First sample (int16) of each frame of each call."""
        self.gate: threading.Semaphore | None = None
        """When set, every call takes a permit from it first."""
        self.entered = threading.Semaphore(0)
        self.faults: list[Exception] = []
        self.threads: list[int] = []
        """Who made each call."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def infer(self, frames: Float32, states: Float32) -> Float32:
        self.threads.append(threading.get_ident())
        self.batches.append([round(sample) for sample in (frames[:, 0] * 32768).tolist()])
        self.entered.release()
        if self.gate is not None and not self.gate.acquire(timeout=10):
            raise TimeoutError("the test forgot the gate")
        if self.faults:
            states[:] = 99
            raise self.faults.pop()
        states[:, 0] += 1
        # In float64, so that sums are exact.
        answer: npt.NDArray[Any] = (frames.astype(float) * 32768).sum(axis=1) + states[:, 0].astype(
            float
        ) * self.STEP
        return answer


class Ears:
    """The callbacks of one stream, and a way to wait for them."""

    def __init__(self, pool: VadPool) -> None:
        self.frames: list[tuple[int, float]] = []
        self.faults: list[Exception] = []
        self._heard = asyncio.Event()
        self.stream = pool.open(self._on_frame, self._on_fault)

    def _on_frame(self, end_tick: int, probability: float) -> None:
        self.frames.append((end_tick, probability))
        self._heard.set()

    def _on_fault(self, error: Exception) -> None:
        self.faults.append(error)
        self._heard.set()

    async def until(self, frames: int = 0, faults: int = 0) -> None:
        async with asyncio.timeout(10):
            while len(self.frames) < frames or len(self.faults) < faults:
                self._heard.clear()
                await self._heard.wait()

    def crowded(self) -> bool:
        return self.stream.crowded

    @property
    def ends(self) -> list[int]:
        return [end for end, _ in self.frames]

    @property
    def ages(self) -> list[int]:
        """Frames that the memory had seen at each report, that one included."""
        return [round(probability / FakeVad.STEP) for _, probability in self.frames]

    @property
    def sums(self) -> list[int]:
        return [
            round(probability - FakeVad.STEP * age)
            for (_, probability), age in zip(self.frames, self.ages, strict=True)
        ]


def pcm(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


def flat(value: int, samples: int = FRAME_TICKS) -> bytes:
    return pcm(value) * samples


async def entered(vad: FakeVad) -> None:
    """Wait until the worker is inside ``infer`` once more."""
    assert await asyncio.to_thread(vad.entered.acquire, timeout=10)


@pytest.fixture
def vad() -> FakeVad:
    return FakeVad()


# ------------------------------------------------------------------------------------- frames and grid


async def test_a_frame_waits_until_it_is_whole(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        ears.stream.feed(0, PCM, flat(2, 767))
        assert ears.stream.backlog_ticks == 767
        ears.stream.feed(767, PCM, flat(5, 2))
        await ears.until(1)
        assert ears.frames == [(768, 767 * 2 + 5 + FakeVad.STEP)]
        assert ears.stream.backlog_ticks == 1
    assert len(vad.batches) == 1


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["feed", "feed", "feed", "gap", "reset"]),
            st.sampled_from([1, 5, 480, 767, 768, 769, 1536, 2400, 10000]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_walk_gives_the_frames_of_the_grid(steps: list[tuple[str, int]]) -> None:
    asyncio.run(walk(steps))


async def walk(steps: list[tuple[str, int]]) -> None:
    """A stretch without gap or reset is laid on the grid with zeros before it; its whole frames come, in order."""
    sound = np.random.default_rng(3).integers(-30000, 30000, sum(size for _, size in steps) + 1, np.int16)
    expected: list[tuple[int, int, int]] = []
    clock = begin = 0

    def stretch_ends() -> None:
        grid = begin // 768 * 768
        laid = np.concatenate([np.zeros(begin - grid, np.int16), sound[begin:clock]]).astype(int)
        frames = laid[: len(laid) // 768 * 768 if clock > begin else 0].reshape(-1, 768)
        expected.extend((grid + 768 * age, age, int(sum(frame))) for age, frame in enumerate(frames, 1))

    async with VadPool(FakeVad(), interval=0) as pool:
        ears = Ears(pool)
        for step, size in steps:
            if step == "feed":
                ears.stream.feed(clock, PCM, sound[clock : clock + size].astype("<i2").tobytes())
                clock += size
                continue
            stretch_ends()
            if step == "gap":
                clock += size
            else:
                await ears.until(len(expected))
                ears.stream.reset()
            begin = clock
        stretch_ends()
        await ears.until(len(expected))
        assert list(zip(ears.ends, ears.ages, ears.sums, strict=True)) == expected
        assert 0 <= ears.stream.backlog_ticks < 768


async def test_frames_before_a_gap_are_still_reported(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        ears.stream.feed(0, PCM, flat(1, 2 * 768 + 100))
        ears.stream.feed(3000, PCM, flat(4, 2 * 768))
        await ears.until(4)
        assert ears.ends == [768, 1536, 3072, 3840]
        assert ears.ages == [1, 2, 1, 2]
        assert ears.sums == [768, 768, 4 * 72, 4 * 768]
        assert ears.stream.backlog_ticks == 3000 + 1536 - 3840


async def test_a_stream_is_crowded_while_too_much_waits(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        most = MAX_BACKLOG_TICKS
        ears.stream.feed(0, PCM, flat(0, most))
        assert not ears.crowded()
        ears.stream.feed(most, PCM, flat(0, 1))
        assert ears.crowded()
        await ears.until(most // 768)
        assert not ears.crowded()


@pytest.mark.parametrize("gap", [0, 5 * FRAME_TICKS])
async def test_all_that_waits_makes_a_stream_crowded_whatever_its_format(vad: FakeVad, gap: int) -> None:
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        half = MAX_BACKLOG_TICKS // FRAME_TICKS // 2 * FRAME_TICKS
        rest = (MAX_BACKLOG_TICKS - half) // 3
        ears.stream.feed(0, PCM, flat(0, half))
        ears.stream.feed(half + gap, ULAW, bytes(rest))
        assert not ears.crowded()
        ears.stream.feed(half + gap + 3 * rest, ULAW, bytes(1))
        assert ears.crowded()
        ears.stream.reset()
        assert not ears.crowded()


async def test_a_gap_inside_one_frame_does_not_report_it_twice(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        ears.stream.feed(0, PCM, flat(1, 800))
        ears.stream.feed(900, PCM, flat(1, 1000))
        await ears.until(2)
        assert ears.frames == [(768, 768 + FakeVad.STEP), (1536, 1536 - 900 + FakeVad.STEP)]


@pytest.mark.parametrize("fmt", [ULAW, ALAW])
async def test_g711_keeps_the_same_grid(vad: FakeVad, fmt: AudioFormat) -> None:
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        ears.stream.feed(768 + 300, fmt, encode(np.full(600, 8031, np.int16), fmt))
        await ears.until(2)
        assert ears.ends == [1536, 2304]
        assert ears.ages == [1, 2]
        level = int(decode(encode(np.array([8031], np.int16), fmt), fmt)[0])
        delay = FrameResampler(8000, 24000).delay_ms * 24
        assert ears.sums[0] == pytest.approx(level * (468 - delay), rel=0.01)
        assert ears.sums[1] == pytest.approx(level * 768, rel=0.01)


@pytest.mark.parametrize("first", list(AudioFormat))
@pytest.mark.parametrize("second", list(AudioFormat))
@pytest.mark.parametrize("early", [True, False])
async def test_a_change_of_format_goes_on_in_mid_frame(
    first: AudioFormat, second: AudioFormat, early: bool
) -> None:
    """A steady level stays one through there and back again, whether frames wait or none does."""

    def steady(fmt: AudioFormat, ticks: int) -> bytes:
        if fmt is PCM:
            return flat(4092, ticks)
        return encode(np.full(ticks // 3, 4092, np.int16), fmt)

    async with VadPool(FakeVad(16000), interval=0) as pool:
        ears = Ears(pool)
        clock = 0
        for fmt, ticks in ((first, 3 * 768 + 330), (second, 99), (second, 2 * 768), (first, 51), (first, 3 * 768)):
            ears.stream.feed(clock, fmt, steady(fmt, ticks))
            clock += ticks
            if early:
                await ears.until(clock // 768)
        await ears.until(clock // 768)
        assert ears.ends == list(range(768, clock + 1, 768))
        assert ears.ages == list(range(1, clock // 768 + 1))
        np.testing.assert_allclose(ears.sums[1:], 4092 * 512, rtol=0.02)
        assert ears.stream.backlog_ticks == clock % 768


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(AudioFormat)), st.integers(1, 400)), min_size=1, max_size=12))
def test_formats_off_the_grid_never_lose_the_clock(pieces: list[tuple[AudioFormat, int]]) -> None:
    """pcm16 can leave the clock between two samples of G.711: frames still end on the grid, no two ticks late."""
    asyncio.run(mix(pieces))


async def mix(pieces: list[tuple[AudioFormat, int]]) -> None:
    async with VadPool(FakeVad(), interval=0) as pool:
        ears = Ears(pool)
        clock = 0
        for fmt, samples in pieces:
            ears.stream.feed(clock, fmt, bytes(samples * fmt.sample_bytes))
            clock += fmt.ticks(samples * fmt.sample_bytes)
        whole = max(clock - 2, 0) // 768
        await ears.until(whole)
        ends = ears.ends
        assert ends == list(range(768, 768 * len(ends) + 1, 768))
        assert whole <= len(ends) <= clock // 768
        assert ears.ages == list(range(1, len(ends) + 1))
        assert clock - 2 <= ears.stream.backlog_ticks + 768 * len(ends) <= clock


async def test_the_clock_does_not_go_back(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        stream = Ears(pool).stream
        stream.feed(0, PCM, flat(1, 10))
        with pytest.raises(ValueError, match="tick 9 comes after tick 10"):
            stream.feed(9, PCM, flat(1, 10))
        stream.reset()
        with pytest.raises(ValueError, match="tick 9 comes after tick 10"):
            stream.feed(9, PCM, flat(1, 10))


async def test_half_a_sample_is_refused(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        stream = Ears(pool).stream
        with pytest.raises(ValueError, match="whole samples"):
            stream.feed(0, PCM, b"\0\0\0")
        stream.feed(0, PCM, b"")
        assert stream.backlog_ticks == 0


# ------------------------------------------------------------------------------------- reset and close


async def test_reset_forgets_waiting_flying_and_remembered(vad: FakeVad) -> None:
    vad.gate = threading.Semaphore(0)
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        ears.stream.feed(0, PCM, flat(1, 768))
        await entered(vad)
        ears.stream.feed(768, PCM, flat(2, 2 * 768 + 100))
        ears.stream.reset()
        ears.stream.feed(3 * 768 + 100, PCM, flat(3, 768))
        vad.gate.release(100)
        await ears.until(1)
        assert ears.frames == [(4 * 768, 3 * 668 + FakeVad.STEP)]
        assert ears.stream.backlog_ticks == 100


async def test_no_callback_comes_after_close(vad: FakeVad) -> None:
    vad.gate = threading.Semaphore(0)
    async with VadPool(vad, interval=0) as pool:
        closed, kept = Ears(pool), Ears(pool)
        for ears in (closed, kept):
            ears.stream.feed(0, PCM, flat(1))
        await entered(vad)
        closed.stream.close()
        closed.stream.close()
        vad.gate.release(100)
        await kept.until(1)
        assert (closed.frames, closed.faults) == ([], [])
        with pytest.raises(RuntimeError, match="closed"):
            closed.stream.feed(768, PCM, flat(1))


async def test_a_callback_may_close_its_own_and_another_stream(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        streams: list[VadStream] = []
        calls: list[int] = []

        def hear(end_tick: int, probability: float) -> None:
            calls.append(end_tick)
            for stream in streams:
                stream.close()

        def fault(error: Exception) -> None:
            raise error

        streams += [pool.open(hear, fault) for _ in range(3)]
        last = Ears(pool)
        for stream in (*streams, last.stream):
            stream.feed(0, PCM, flat(1, 3 * 768))
        await last.until(3)
        assert calls == [768]


async def test_a_slot_is_new_for_its_next_stream(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        for _ in range(5):
            crowd = [Ears(pool) for _ in range(50)]
            for at, ears in enumerate(crowd):
                ears.stream.feed(0, PCM, flat(at, 2 * 768))
            for at, ears in enumerate(crowd):
                await ears.until(2)
                assert ears.ages == [1, 2]
                assert ears.sums == [at * 768] * 2
                ears.stream.close()


async def test_a_slot_in_flight_is_not_given_away(vad: FakeVad) -> None:
    vad.gate = threading.Semaphore(0)
    async with VadPool(vad, interval=0) as pool:
        old = Ears(pool)
        old.stream.feed(0, PCM, flat(1))
        await entered(vad)
        old.stream.close()
        fresh = Ears(pool)
        fresh.stream.feed(0, PCM, flat(7, 2 * 768))
        vad.gate.release(100)
        await fresh.until(2)
        assert fresh.ages == [1, 2]
        assert old.frames == []


# -------------------------------------------------------------------------------------------- fairness


async def test_an_idle_pool_holds_nothing_of_a_stream_that_was_closed(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        ears.stream.feed(0, PCM, flat(1))
        await ears.until(frames=1)
        ears.stream.close()
        gone = weakref.ref(ears)
        del ears
        # The thread may still be letting go of the slice.
        async with asyncio.timeout(10):
            while gone() is not None:
                await asyncio.sleep(0)
                gc.collect()


async def test_a_round_takes_one_frame_of_each_stream(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        crowd = [Ears(pool) for _ in range(9)]
        for at, ears in enumerate(crowd):
            ears.stream.feed(0, PCM, flat(at, (at + 1) * 768))
        for at, ears in enumerate(crowd):
            await ears.until(at + 1)
            assert ears.ends == [768 * n for n in range(1, at + 2)]
    assert len(vad.batches) == 9
    assert all(len(set(batch)) == len(batch) for batch in vad.batches)


async def test_a_flood_delays_others_by_one_slice_at_most(vad: FakeVad) -> None:
    vad.gate = threading.Semaphore(0)
    async with VadPool(vad, interval=0) as pool:
        flood, live = Ears(pool), Ears(pool)
        flood.stream.feed(0, PCM, flat(1, 2000 * 768))
        await entered(vad)
        live.stream.feed(0, PCM, flat(2))
        vad.gate.release(10000)
        await live.until(1)
        slice_rows = int(vad_pool.SLICE / 50e-6)
        assert len(flood.frames) <= slice_rows + 1
        first = next(at for at, batch in enumerate(vad.batches) if 2 in batch)
        assert sorted(vad.batches[first]) == [1, 2]
        assert first <= slice_rows
        assert flood.stream.backlog_ticks >= (2000 - 2 * slice_rows) * 768
        await flood.until(2000)
        assert flood.ends == [768 * n for n in range(1, 2001)]


@pytest.mark.parametrize(("seconds", "aside"), [(0.0, False), (0.03, False), (0.04, True), (1.0, True)])
async def test_only_short_work_is_done_on_the_event_loop(
    vad: FakeVad, monkeypatch: pytest.MonkeyPatch, seconds: float, aside: bool
) -> None:
    """The first frame, whose cost nobody knows, goes to the thread; then it depends on what that one took.

    What a frame costs is learned little by little: 40 ms make one that should take more than 4.
    """
    ticks = iter(seconds * n for n in range(1000))
    monkeypatch.setattr("vivavoce.runtime.vad_pool.time.perf_counter", lambda: next(ticks))
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        ears.stream.feed(0, PCM, flat(1))
        await ears.until(1)
        ears.stream.feed(768, PCM, flat(1))
        await ears.until(2)
    main = threading.get_ident()
    assert [thread != main for thread in vad.threads] == [True, aside]


async def test_a_flood_leaves_the_event_loop_free_however_fast_the_engine_is(
    vad: FakeVad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice of it is short, but they come without a pause; only what is left in the end is done at once."""
    monkeypatch.setattr("vivavoce.runtime.vad_pool.time.perf_counter", lambda: 0.0)
    async with VadPool(vad, interval=0) as pool:
        pool._row_seconds, pool._learned = 1e-6, True
        ears = Ears(pool)
        ears.stream.feed(0, PCM, flat(1, 600 * 768))
        await ears.until(600)
    aside = [thread != threading.get_ident() for thread in vad.threads]
    assert all(aside[:500])
    assert not aside[-1]


async def test_more_streams_than_a_slice_holds_take_turns(vad: FakeVad) -> None:
    async with VadPool(vad, interval=0) as pool:
        crowd = [Ears(pool) for _ in range(700)]
        for at, ears in enumerate(crowd):
            ears.stream.feed(0, PCM, flat(at, 3 * 768))
        for ears in crowd:
            await ears.until(3)
    turns = [stream for batch in vad.batches for stream in batch]
    assert sorted(turns[:700]) == sorted(turns[700:1400]) == sorted(turns[1400:]) == list(range(700))
    assert max(len(batch) for batch in vad.batches) <= 512


async def test_streams_of_all_formats_share_a_batch(vad: FakeVad) -> None:
    vad.gate = threading.Semaphore(0)
    async with VadPool(vad, interval=0) as pool:
        blocker = Ears(pool)
        blocker.stream.feed(0, PCM, flat(1))
        await entered(vad)
        crowd = [(Ears(pool), fmt) for fmt in (ALAW, PCM, ULAW, PCM, ALAW, ULAW)]
        for at, (ears, fmt) in enumerate(crowd):
            level = np.full(2 * 256 if fmt is not PCM else 2 * 768, 1000 * (at + 1), np.int16)
            ears.stream.feed(0, fmt, level.astype("<i2").tobytes() if fmt is PCM else encode(level, fmt))
        vad.gate.release(100)
        for at, (ears, _) in enumerate(crowd):
            await ears.until(2)
            assert ears.sums[1] == pytest.approx(1000 * (at + 1) * 768, rel=0.03)
    assert [len(batch) for batch in vad.batches] == [1, 6, 6]


# ----------------------------------------------------------------------------------------------- pacing


async def test_frames_meet_in_a_batch_every_interval_and_an_idle_pool_rests(
    vad: FakeVad, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    wake = asyncio.Event()

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        await wake.wait()

    monkeypatch.setattr(asyncio, "sleep", nap)
    async with VadPool(vad, interval=1000) as pool:
        crowd = [Ears(pool) for _ in range(3)]
        crowd[0].stream.feed(0, PCM, flat(10))
        await crowd[0].until(1)
        assert naps == []
        for ears in crowd[1:]:
            ears.stream.feed(0, PCM, flat(20))
        while not naps:
            await asyncio.to_thread(lambda: None)
        crowd[0].stream.feed(768, PCM, flat(30))
        wake.set()
        for ears in crowd:
            await ears.until(1)
        await crowd[0].until(2)
        assert [sorted(batch) for batch in vad.batches] == [[10], [20, 20, 30]]
        assert len(naps) == 1
        assert 0 < naps[0] <= 1000


# ------------------------------------------------------------------------------------------------ faults


@pytest.mark.parametrize("wrong_shape", [False, True])
async def test_a_failing_engine_is_reported_and_the_pool_goes_on(
    vad: FakeVad, wrong_shape: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with VadPool(vad, interval=0) as pool:
        crowd = [Ears(pool) for _ in range(3)]
        for ears in crowd:
            ears.stream.feed(0, PCM, flat(1))
            await ears.until(1)
        if wrong_shape:
            infer = vad.infer
            with monkeypatch.context() as patch:
                patch.setattr(vad, "infer", lambda frames, states: infer(frames, states.copy())[:-1])
                await fail(crowd)
            assert "answered (" in str(crowd[0].faults[0])
        else:
            vad.faults = [OSError(n) for n in range(3)]
            await fail(crowd)
            assert isinstance(crowd[0].faults[0], OSError)
        for ears in crowd:
            assert ears.stream.backlog_ticks == 0
            ears.stream.feed(2 * 768, PCM, flat(5))
            await ears.until(2)
            assert ears.ends == [768, 3 * 768]
            assert ears.ages == [1, 2]
            assert len(ears.faults) == 1


async def fail(crowd: list[Ears]) -> None:
    for ears in crowd:
        ears.stream.feed(768, PCM, flat(1))
        await ears.until(faults=1)


async def test_a_failing_callback_costs_nobody_else(vad: FakeVad) -> None:
    complaints: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with VadPool(vad, interval=0) as pool:
        stream = pool.open(broken, broken)
        ears = Ears(pool)
        for each in (stream, ears.stream):
            each.feed(0, PCM, flat(1, 2 * 768))
        await ears.until(2)
        assert stream.backlog_ticks == 0
    assert [type(context["exception"]) for context in complaints] == [ZeroDivisionError] * 2


async def test_a_broken_pool_tells_everybody(vad: FakeVad, monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def bug(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(vad_pool, "_deliver", bug)
    pool = await VadPool(vad, interval=0).__aenter__()
    fed, idle = Ears(pool), Ears(pool)
    fed.stream.feed(0, PCM, flat(1))
    for ears in (fed, idle):
        await ears.until(faults=1)
        with pytest.raises(RuntimeError, match="closed"):
            ears.stream.feed(768, PCM, flat(1))
    with pytest.raises(ZeroDivisionError):
        await pool.close()
    assert pool_threads() == []
    with pytest.raises(RuntimeError, match="not running"):
        Ears(pool)
    assert [context["message"] for context in complaints] == ["the VAD pool broke"]


# ---------------------------------------------------------------------------------------------- life time


def pool_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("vivavoce-vad")]


async def test_nothing_is_left_after_leaving_in_mid_slice(vad: FakeVad) -> None:
    vad.gate = threading.Semaphore(0)
    tasks = asyncio.all_tasks()
    async with VadPool(vad, interval=0) as pool:
        ears = Ears(pool)
        ears.stream.feed(0, PCM, flat(1, 3 * 768))
        await entered(vad)
        assert len(pool_threads()) == 1
        asyncio.get_running_loop().call_soon(vad.gate.release, 100)
    assert (ears.frames, ears.faults) == ([], [])
    assert pool_threads() == []
    assert asyncio.all_tasks() == tasks


async def test_streams_open_only_while_the_pool_runs(vad: FakeVad) -> None:
    pool = VadPool(vad)
    with pytest.raises(RuntimeError, match="not running"):
        Ears(pool)
    async with pool:
        ears = Ears(pool)
        with pytest.raises(RuntimeError, match="entered before"):
            await pool.__aenter__()
    with pytest.raises(RuntimeError, match="not running"):
        Ears(pool)
    with pytest.raises(RuntimeError, match="closed"):
        ears.stream.feed(0, PCM, flat(1))
    await pool.close()


async def test_an_engine_of_other_frames_is_refused(vad: FakeVad) -> None:
    vad.capabilities = VadCapabilities(sample_rate=16000, frame_samples=480, state_size=1)
    with pytest.raises(ValueError, match="frames of 32 ms"):
        VadPool(vad)


# --------------------------------------------------------------------------------------- with real parts


@pytest.mark.parametrize("fmt", [PCM, ULAW])
async def test_silero_through_the_pool_is_silero(fmt: AudioFormat) -> None:
    rng = np.random.default_rng(5)
    sound = rng.integers(-8000, 8000, 20 * fmt.rate * 32 // 1000, dtype=np.int16)
    data: Callable[[], bytes] = lambda: sound.astype("<i2").tobytes() if fmt is PCM else encode(sound, fmt)  # noqa: E731
    engine = create({})
    await engine.start()
    async with VadPool(engine, interval=0) as pool:
        ears = Ears(pool)
        for at in range(0, len(data()), 960):
            ears.stream.feed(fmt.ticks(at), fmt, data()[at : at + 960])
        await ears.until(20)
    heard = sound if fmt is PCM else decode(data(), fmt)
    resampler = FrameResampler(fmt.rate)
    history = np.zeros((1, resampler.history), np.float32)
    state = np.zeros((1, STATE_SIZE), np.float32)
    expected = [
        (768 * (at + 1), float(engine.infer(resampler.process(frame[np.newaxis], history), state)[0]))
        for at, frame in enumerate(heard.reshape(20, -1))
    ]
    assert ears.ends == [end for end, _ in expected]
    np.testing.assert_allclose([p for _, p in ears.frames], [p for _, p in expected], atol=1e-5)
    await engine.close()
