"""Voice activity detection for all sessions in one batched inference, off the event loop when it is long.

Laws
----
1. Streams, queues and callbacks belong to the event loop; the arrays of :class:`_Bank` belong to whoever runs the
   slice in flight, loop or thread, and only one is in flight. Nothing is locked, because nothing is shared.
2. Frames lie on a grid: 768 ticks of 1/24000 s (32 ms) from tick 0 of the session's audio clock. A stream's frames
   are reported in order, each at most once, with the tick at which it ends.
3. A round takes at most one frame of each stream that has one. A slice is the rounds that go to the thread at once,
   as many as take about ``SLICE`` seconds; streams take turns, so one session's long backlog delays no other.
4. Every frame is computed or forgotten as it was taken: a reset or a close raises the stream's ``generation``, and
   results of an older one die on return.
5. No frame waiting, no work: the pool sleeps until a stream is fed.

A slice that should take no longer than ``AT_ONCE`` is done on the loop, because the hand-over to a thread costs
more than a tenth of all that a session costs. More than that goes to one thread: after a stall or a flood a
slice is up to 10 ms, and every socket would wait for it. So does the first one, since nobody knows yet what a
frame costs, and one that leaves frames waiting, since the next one follows without a pause.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat
from vivavoce.audio.g711 import decode_table, from_samples, to_samples
from vivavoce.audio.resample import FRAME_MS, FrameResampler, resample
from vivavoce.engines.base import Float32, Vad

FRAME_TICKS: Final = FRAME_MS * TICKS_PER_MS
"""Ticks of the audio clock in a frame."""

SLICE: Final = 0.008
"""Seconds that the pool means to spend in its thread before it looks for new frames again."""

MAX_BACKLOG_TICKS: Final = 10_000 * TICKS_PER_MS
"""Audio that may wait in a stream before it is crowded."""

AT_ONCE: Final = 0.004
"""Seconds that a slice may hold the event loop."""

_MOST_ROWS: Final = 512
_FEWEST_ROWS: Final = 16
_ROUND_ROWS: Final = 6
"""What a round costs beside its rows, in rows."""

OnFrame = Callable[[int, float], None]
OnFault = Callable[[Exception], None]

_PCM16: Final = AudioFormat.PCM16
_ULAW: Final = AudioFormat.G711_ULAW
_ALAW: Final = AudioFormat.G711_ALAW
_FAILED: Final = "a callback of a VAD stream failed"
_LANES: Final = (_PCM16, _ULAW, _ALAW)
_RATES: Final = (_PCM16.rate, _ULAW.rate)


@dataclass(slots=True)
class _Run:
    """Audio that waits, of one format and without gaps. Every run but a stream's last holds whole frames only."""

    fmt: AudioFormat
    end: int
    """The tick at which its next frame ends."""
    fresh: bool
    """True when its first frame meets a network without memory."""
    chunks: deque[bytes | memoryview] = field(default_factory=deque)
    offset: int = 0
    """Bytes of the first chunk that are taken already."""
    size: int = 0
    """Bytes that wait."""
    frame: int = 0
    """Bytes in a frame."""
    room: int = 0
    """Bytes that may wait here before the stream could be crowded."""
    lane: int = 0
    """Where a round has the frames of its format."""

    def __post_init__(self) -> None:
        self.frame = self.fmt.bytes_per_ms * FRAME_MS
        self.lane = _LANES.index(self.fmt)

    def append(self, data: bytes) -> None:
        if data:
            self.chunks.append(data)
            self.size += len(data)

    def take_frame(self, pieces: list[bytes | memoryview]) -> None:
        """Move one frame to the end of ``pieces``."""
        chunks, offset, missing = self.chunks, self.offset, self.frame
        self.size -= missing
        self.end += FRAME_TICKS
        while missing:
            head = chunks[0]
            have = len(head) - offset
            if have > missing:
                self.offset = offset + missing
                pieces.append(head[offset : self.offset])
                return
            pieces.append(head[offset:] if offset else head)
            chunks.popleft()
            missing -= have
            offset = 0
        self.offset = 0

    def cut_tail(self) -> bytes:
        """Take away and return what does not fill a frame."""
        pieces: list[bytes | memoryview] = []
        missing = self.size % self.frame
        self.size -= missing
        while missing:
            chunk = memoryview(self.chunks.pop())
            if not self.chunks:
                chunk, self.offset = chunk[self.offset :], 0
            if len(chunk) > missing:
                self.chunks.append(chunk[:-missing])
                chunk = chunk[-missing:]
            pieces.append(chunk)
            missing -= len(chunk)
        return b"".join(reversed(pieces))


@dataclass(slots=True)
class _Lane:
    """The frames of a round that are of one format; the lists run in parallel, but for ``sound``."""

    streams: list[VadStream] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    sound: list[bytes | memoryview] = field(default_factory=list)
    """The frames one after the other, in pieces of any length."""


@dataclass(slots=True)
class _Round:
    """At most one frame of each stream."""

    lanes: list[_Lane] = field(default_factory=lambda: [_Lane() for _ in _LANES])
    fresh: list[int] = field(default_factory=list)
    """Slots to forget first."""
    switched: list[tuple[int, int, int]] = field(default_factory=list)
    """Slots whose sound changes rates here: (slot, old rate, new rate), Hz."""
    streams: list[VadStream] = field(default_factory=list)
    """Since :meth:`close` those of all lanes, one lane after the other, and so are the lists below."""
    slots: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)

    def close(self) -> None:
        """No frame comes any more."""
        for lane in self.lanes:
            self.streams += lane.streams
            self.slots += lane.slots
            self.ends += lane.ends
            self.generations += lane.generations


class _Bank:
    """What the network remembers of every slot, and the arithmetic of a slice."""

    def __init__(self, vad: Vad) -> None:
        capabilities = vad.capabilities
        if capabilities.frame_samples * 1000 != capabilities.sample_rate * FRAME_MS:
            raise ValueError(f"the VAD engine {vad.name!r} does not work on frames of {FRAME_MS} ms")
        self._vad = vad
        self._resamplers = {rate: FrameResampler(rate, capabilities.sample_rate) for rate in _RATES}
        self._states = np.zeros((0, capabilities.state_size), np.float32)
        self._histories = {
            rate: np.zeros((0, resampler.history), np.float32) for rate, resampler in self._resamplers.items()
        }
        self._frames = np.empty((_MOST_ROWS, capabilities.frame_samples), np.float32)
        self._taken = np.empty((_MOST_ROWS, capabilities.state_size), np.float32)
        self._tables = {fmt: decode_table(fmt) for fmt in (_ULAW, _ALAW)}

    def reserve(self, slots: int) -> None:
        """Have memory for at least so many slots; not while a slice is in flight."""
        have = len(self._states)
        if slots > have:
            more = max(slots, 2 * have, 16) - have
            self._states = np.pad(self._states, ((0, more), (0, 0)))
            self._histories = {rate: np.pad(rows, ((0, more), (0, 0))) for rate, rows in self._histories.items()}

    def perform(self, rounds: list[_Round]) -> tuple[list[list[float] | Exception], float]:
        """The probabilities of each round, or why there are none; and the seconds it took. In the thread."""
        began = time.perf_counter()
        results: list[list[float] | Exception] = []
        for current in rounds:
            try:
                results.append(self._infer(current))
            except Exception as error:
                results.append(error)
        return results, time.perf_counter() - began

    def _infer(self, current: _Round) -> list[float]:
        slots = np.array(current.slots, np.intp)
        if current.fresh:
            self._states[current.fresh] = 0
            for rows in self._histories.values():
                rows[current.fresh] = 0
        for slot, old, new in current.switched:
            self._histories[new][slot] = _stretch(
                self._histories[old][slot], old, new, self._resamplers[new].history
            )
        frames = self._resample(current, slots)
        states = self._states.take(slots, 0, self._taken[: len(slots)], "clip")
        probabilities = self._vad.infer(frames, states)
        if probabilities.shape != slots.shape:
            raise ValueError(f"the VAD engine answered {probabilities.shape} for {len(slots)} streams")
        self._states[slots] = states
        answers: list[float] = probabilities.tolist()
        return answers

    def _resample(self, current: _Round, slots: npt.NDArray[np.intp]) -> Float32:
        at = 0
        for fmt, lane in zip(_LANES, current.lanes, strict=True):
            if lane.sound:
                part = slice(at, at + len(lane.slots))
                sound = b"".join(lane.sound)
                if fmt is _PCM16:
                    samples = np.frombuffer(sound, "<i2")
                else:
                    samples = self._tables[fmt].take(np.frombuffer(sound, np.uint8))
                resampler, rows = self._resamplers[fmt.rate], self._histories[fmt.rate]
                history = rows.take(slots[part], 0)
                resampler.process(samples.reshape(len(history), -1), history, out=self._frames[part])
                rows[slots[part]] = history
                at = part.stop
        return self._frames[:at]


def _stretch(history: Float32, old: int, new: int, length: int) -> Float32:
    """A resampler's memory of some milliseconds at another rate: straight lines are good enough for so little."""
    if not length or not len(history):
        return np.zeros(length, np.float32)
    seconds = np.arange(-length, 0) / new
    return np.interp(seconds, np.arange(-len(history), 0) / old, history, left=0).astype(np.float32)


class VadStream:
    """One session's audio on its way through the pool. Every method is for the event loop and returns at once."""

    def __init__(self, pool: VadPool, slot: int, on_frame: OnFrame, on_fault: OnFault) -> None:
        """Made by :meth:`VadPool.open`."""
        self._pool = pool
        self._slot = slot
        self._on_frame = on_frame
        self._on_fault = on_fault
        self._runs: deque[_Run] = deque()
        self._next_tick = 0
        self._broken = True
        self._rate = 0
        self._generation = 0
        self._in_flight = 0
        self._queued = False
        self._closed = False
        self.crowded = False
        """More than :data:`MAX_BACKLOG_TICKS` wait: feed it no more now. Looked at for each frame of a client."""

    @property
    def backlog_ticks(self) -> int:
        """Ticks of audio that are fed and not yet reported, an incomplete frame included."""
        ticks = self._in_flight * FRAME_TICKS
        for run in self._runs:
            ticks += run.size * FRAME_TICKS // run.frame
        return ticks

    def feed(self, start_tick: int, fmt: AudioFormat, data: bytes) -> None:
        """Audio that begins at ``start_tick`` of the session's clock; it is kept, not copied.

        Where it does not continue what was fed last (or after a reset), the stream starts anew on the grid: a
        network without memory, and silence for the part of the frame that is missing (in A-law, which has no zero,
        its quietest code). Another format than before goes on without a break.

        Raises :class:`ValueError` for half a sample and for a clock that goes back, :class:`RuntimeError` after
        ``close``.
        """
        if self._closed:
            raise RuntimeError("the VAD stream is closed")
        size = len(data)
        if size % fmt.sample_bytes:
            raise ValueError(f"{size} bytes are not whole samples of {fmt.value}")
        if start_tick < self._next_tick:
            raise ValueError(f"audio at tick {start_tick} comes after tick {self._next_tick}")
        if not size:
            return
        if self._broken or start_tick != self._next_tick:
            run = self._begin_anew(start_tick, fmt)
        else:
            run = self._runs[-1]
            if run.fmt is not fmt:
                run = self._change_format(run, fmt)
        run.chunks.append(data)
        run.size += size
        if run.size > run.room:
            self._weigh()
        self._next_tick = start_tick + fmt.ticks(size)
        # Not in the queue, it has no whole frame but in this run, which is its only one then.
        if run.size >= run.frame and not self._queued:
            self._queued = True
            self._pool.enqueue(self)

    def reset(self) -> None:
        """Forget what the network remembers and the audio that waits; frames in flight are not reported."""
        self._runs.clear()
        self.crowded = False
        self._broken = True
        self._generation += 1

    def close(self) -> None:
        """No callback comes after this. May be called again, and from a callback."""
        if not self._closed:
            self._closed = True
            self.reset()
            if not self._in_flight:
                self._pool.release(self, self._slot)

    # -- for the pool ---------------------------------------------------------------------------------

    def take(self, current: _Round) -> bool:
        """Called when the pool took it from the queue: move the frame that waits, if one does, into the round.

        Does it belong in the queue again?
        """
        run = self._runs[0] if self._runs else None
        if run is None or run.size < run.frame:
            self._queued = False
            return False
        lane = current.lanes[run.lane]
        lane.streams.append(self)
        lane.slots.append(self._slot)
        lane.ends.append(run.end)
        lane.generations.append(self._generation)
        rate = run.fmt.rate
        if run.fresh:
            run.fresh = False
            current.fresh.append(self._slot)
        elif rate != self._rate:
            current.switched.append((self._slot, self._rate, rate))
        self._rate = rate
        self._in_flight += 1
        run.take_frame(lane.sound)
        if not run.size and len(self._runs) > 1:
            self._runs.popleft()
            run = self._runs[0]
        self._queued = run.size >= run.frame
        if self.crowded:
            self._weigh()
        return self._queued

    def report(self, generation: int, end_tick: int, probability: float) -> None:
        """A frame came back."""
        self._in_flight -= 1
        if generation == self._generation:
            self._on_frame(end_tick, probability)
        elif self._closed and not self._in_flight:
            self._pool.release(self, self._slot)

    def fault(self, generation: int, error: Exception) -> None:
        """A frame was lost."""
        self._landed()
        if generation == self._generation:
            self._on_fault(error)

    def collapse(self, error: Exception) -> None:
        """The pool itself broke: the last callback of this stream."""
        if not self._closed:
            self.close()
            self._on_fault(error)

    def _weigh(self) -> None:
        self.crowded = self.backlog_ticks > MAX_BACKLOG_TICKS

    def _landed(self) -> None:
        self._in_flight -= 1
        if self._closed and not self._in_flight:
            self._pool.release(self, self._slot)

    def _begin_anew(self, start_tick: int, fmt: AudioFormat) -> _Run:
        if self._runs:
            self._runs[-1].cut_tail()
            if not self._runs[-1].size:
                self._runs.pop()
        head = start_tick % FRAME_TICKS
        run = _Run(fmt, end=start_tick - head + FRAME_TICKS, fresh=True)
        run.append(from_samples(np.zeros(fmt.bytes_of(head) // fmt.sample_bytes, np.int16), fmt))
        self._add(run)
        self._broken = False
        return run

    def _change_format(self, last: _Run, fmt: AudioFormat) -> _Run:
        tail = last.cut_tail()
        begin = last.end + (last.size // last.frame - 1) * FRAME_TICKS
        # The clock counts ticks and a G.711 sample has three: what is over stays below a sample, and is given back
        # when the format changes again.
        wanted = fmt.bytes_of(self._next_tick - begin) // fmt.sample_bytes
        run = _Run(fmt, end=begin + FRAME_TICKS, fresh=last.fresh and not last.size)
        run.append(_reformat(tail, last.fmt, fmt, wanted))
        if not last.size:
            self._runs.pop()
        self._add(run)
        return run

    def _add(self, run: _Run) -> None:
        run.room = run.fmt.bytes_of(max(0, MAX_BACKLOG_TICKS - self.backlog_ticks))
        self._runs.append(run)


def _reformat(data: bytes, source: AudioFormat, target: AudioFormat, wanted: int) -> bytes:
    """Less than a frame of sound in another format, exactly ``wanted`` samples of it."""
    samples = resample(to_samples(data, source), source.rate, target.rate)[:wanted]
    if len(samples) < wanted:
        samples = np.pad(samples, (0, wanted - len(samples)), mode="edge" if len(samples) else "constant")
    return from_samples(samples, target)


class VadPool:
    """The one place where a server runs its VAD engine.

    An async context manager: it owns one thread and one task, both gone when it is left. The engine must be
    started before and closed after. All methods are for the event loop that it was entered on.
    """

    def __init__(self, vad: Vad, *, interval: float = 0.010) -> None:
        """``interval``: seconds between looks for frames while sound flows in real time, so that the frames of many
        sessions meet in one batch; 0 takes each frame as it comes.

        Raises :class:`ValueError` when the engine does not work on frames of 32 ms.
        """
        self._bank = _Bank(vad)
        self._interval = interval
        self._streams: set[VadStream] = set()
        self._slots = 0
        self._free: list[int] = []
        self._ready: deque[VadStream] = deque()
        self._behind = False
        self._wake = asyncio.Event()
        self._row_seconds = 50e-6
        self._learned = False
        self._executor: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("the VAD pool was entered before")
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="vivavoce-vad")
        self._task = asyncio.create_task(self._run(self._executor), name="vad-pool")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every stream, and end the task and the thread; waits for the slice in flight (some ms).

        Raises what broke the pool, if something did.
        """
        for stream in list(self._streams):
            stream.close()
        if self._task is None or self._executor is None:
            return
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            self._executor.shutdown(wait=self._task.done())
        if not self._task.cancelled():
            self._task.result()

    @property
    def running(self) -> bool:
        """It takes streams: it was entered, nothing broke it, and it is not being left."""
        return self._task is not None and not self._task.done() and not self._task.cancelling()

    def open(self, on_frame: OnFrame, on_fault: OnFault) -> VadStream:
        """A new stream. ``on_frame(end_tick, probability)`` is called once for each frame, in order;
        ``on_fault(error)`` instead of it when the engine failed on the frame, which is lost. Should the pool itself
        break, it closes every stream with a last ``on_fault``.

        Raises :class:`RuntimeError` when the pool does not run.
        """
        if not self.running:
            raise RuntimeError("the VAD pool is not running")
        if not self._free:
            self._free.append(self._slots)
            self._slots += 1
        stream = VadStream(self, self._free.pop(), on_frame, on_fault)
        self._streams.add(stream)
        return stream

    # -- for its streams --------------------------------------------------------------------------------

    def enqueue(self, stream: VadStream) -> None:
        """A stream has a frame."""
        self._ready.append(stream)
        self._wake.set()

    def release(self, stream: VadStream, slot: int) -> None:
        """A stream is closed and nothing of it is in flight."""
        self._streams.discard(stream)
        self._free.append(slot)

    # -- the task ---------------------------------------------------------------------------------------

    async def _run(self, executor: ThreadPoolExecutor) -> None:
        try:
            await self._serve(executor)
        except Exception as error:
            _complain("the VAD pool broke", error)
            for stream in list(self._streams):
                _call(stream.collapse, error)
            raise

    async def _serve(self, executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        looked = -self._interval
        while True:
            await self._wake.wait()
            pause = looked + self._interval - loop.time()
            if pause > 0 and not self._behind:
                await asyncio.sleep(pause)
            looked = loop.time()
            await self._run_slice(executor)

    async def _run_slice(self, executor: ThreadPoolExecutor) -> None:
        """A method of its own, so that a pool that waits for sound holds nothing of the sessions that it served."""
        rounds = self._gather()
        if not self._ready:
            self._wake.clear()
        if not rounds:
            return
        self._bank.reserve(self._slots)
        if self._learned and not self._behind and _cost(rounds) * self._row_seconds <= AT_ONCE:
            results, seconds = self._bank.perform(rounds)
        else:
            work = asyncio.get_running_loop().run_in_executor(executor, self._bank.perform, rounds)
            try:
                results, seconds = await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work])
                raise
        self._learn(rounds, seconds)
        for done, result in zip(rounds, results, strict=True):
            _deliver(done, result)

    def _gather(self) -> list[_Round]:
        """The next slice: a round of the streams in turn and, when they all fit, more rounds of those with more."""
        budget = min(max(int(SLICE / self._row_seconds), _FEWEST_ROWS), _MOST_ROWS)
        ready, rounds = self._ready, []
        while ready and budget > 0:
            current = _Round()
            turns = min(len(ready), budget)
            all_fit = turns == len(ready)
            for _ in range(turns):
                stream = ready.popleft()
                if stream.take(current):
                    ready.append(stream)
            current.close()
            if current.streams:
                rounds.append(current)
            budget -= turns + _ROUND_ROWS
            if not all_fit:
                break
        self._behind = bool(ready)
        return rounds

    def _learn(self, rounds: list[_Round], seconds: float) -> None:
        self._row_seconds += 0.1 * (seconds / _cost(rounds) - self._row_seconds)
        self._learned = True


def _cost(rounds: list[_Round]) -> int:
    """In rows."""
    return sum(len(done.streams) for done in rounds) + _ROUND_ROWS * len(rounds)


def _deliver(done: _Round, result: list[float] | Exception) -> None:
    if isinstance(result, Exception):
        for stream, generation in zip(done.streams, done.generations, strict=True):
            _call(stream.fault, generation, result)
        return
    for stream, generation, end, probability in zip(done.streams, done.generations, done.ends, result, strict=True):
        try:
            stream.report(generation, end, probability)
        except Exception as error:
            _complain(_FAILED, error)


def _call(callback: Callable[..., None], *arguments: object) -> None:
    """One stream's bug must not cost the others their reports."""
    try:
        callback(*arguments)
    except Exception as error:
        _complain(_FAILED, error)


def _complain(message: str, error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
