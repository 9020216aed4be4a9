"""A bounded pool of worker processes that CPU-heavy engines share: jobs in, streams of bytes out.

Laws
----
1. A job holds one slot of one worker from :meth:`WorkerPool.job` until the worker itself says that the job is
   over. Leaving the ``async with`` early cancels the job there; the worker lives on.
2. Who finds no slot waits in one queue of at most ``max_waiting``, in which sessions take turns; beyond that
   ``engine_overloaded``.
3. A worker that dies, breaks the frame format, or owes an answer and stays silent for ``job_timeout_s`` is
   killed with its whole process group. Its jobs fail with ``engine_crashed``, everybody else goes on, and a new
   worker takes its place after a pause that grows from 0.1 s to 5 s while workers keep dying.
4. When a restart fails and no worker is left, those who wait fail with ``engine_unavailable``.
5. One task, made by :meth:`WorkerPool.start` and joined by :meth:`WorkerPool.close`, owns all processes. Workers
   hold no state worth saving, so closing kills them at once.
6. Nothing a job carries is logged. A worker's stderr is kept (its last 4 KB) and logged when the worker dies.

The frames are those of :mod:`vivavoce.engines.builtin.worker_channel`; credit bounds the data in both directions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from vivavoce.engines.base import EngineError
from vivavoce.engines.builtin.worker_channel import (
    CREDIT_PAYLOAD,
    HEADER,
    MAX_PAYLOAD,
    BrokenStream,
    Kind,
    pack,
    unpack_header,
)
from vivavoce.engines.fair_queue import FairQueue

_log = logging.getLogger(__name__)

_STDERR_KEPT: Final = 4096
_PIECE: Final = 16 * 1024
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0
_STEADY_S: Final = 10.0
"""A worker that was up for so long has recovered: the next pause is short again."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a pool runs, and its bounds."""

    name: str
    """For people: in messages and logs."""
    module: str
    """Run as ``python -m module``."""
    setup: bytes = b"{}"
    """Payload of the SETUP frame."""
    workers: int = 1
    slots: int = 1
    """Jobs at a time in one worker."""
    max_waiting: int = 64
    """Jobs that may wait for a slot."""
    job_timeout_s: float = 60.0
    """The longest silence of a worker that owes an answer."""
    send_window: int = 64 * 1024
    """Bytes of one job on their way to the worker."""
    receive_window: int = 64 * 1024
    """Bytes of one job that the worker may be ahead of the reader."""
    start_timeout_s: float = 60.0


class WorkerFault(msgspec.Struct, frozen=True):
    """Payload of a FAILED frame."""

    code: str
    message: str


class Job:
    """One piece of work in a worker. Iterate it for the pieces that the worker sends, until the job is over.

    One task may send while another one iterates. Both raise :class:`EngineError` when the job fails.
    """

    def __init__(self, process: _Process, job_id: int) -> None:
        self._process = process
        self._id = job_id
        self._inbox: deque[bytes] = deque()
        self._unread = 0
        self._unacknowledged = 0
        self._ended = False
        self._dropped = False
        self._over = False
        self._error: EngineError | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    @property
    def owed(self) -> bool:
        """The worker has something to do for this job and nothing that it could wait for."""
        if self._over:
            return False
        has_room = self._unread < self._process.spec.receive_window
        return self._dropped or ((self._unacknowledged > 0 or self._ended) and has_room)

    async def send(self, data: bytes) -> None:
        """Send ``data`` to the worker; waits while its window is full."""
        window = self._process.spec.send_window
        view = memoryview(data)
        while view:
            while self._unacknowledged >= window and not self._over:
                self._writable.clear()
                await self._writable.wait()
            if self._error is not None:
                raise self._error
            if self._over:
                return
            piece = view[: min(_PIECE, window - self._unacknowledged)]
            view = view[len(piece) :]
            self._unacknowledged += len(piece)
            self._process.write(self._id, Kind.DATA, bytes(piece))

    def end(self) -> None:
        """Tell the worker that nothing more will be sent."""
        if not self._over and not self._ended:
            self._ended = True
            self._process.write(self._id, Kind.END)

    def __aiter__(self) -> Job:
        return self

    async def __anext__(self) -> bytes:
        while not self._inbox and not self._over:
            self._readable.clear()
            await self._readable.wait()
        if self._inbox:
            piece = self._inbox.popleft()
            self._unread -= len(piece)
            if not self._over:
                self._process.write(self._id, Kind.CREDIT, CREDIT_PAYLOAD.pack(len(piece)))
            return piece
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def drop(self) -> None:
        """Nobody wants the rest: forget what came and cancel what is under way."""
        self._inbox.clear()
        if not self._over:
            self._dropped = True
            self._process.write(self._id, Kind.CANCEL)

    def received(self, piece: bytes) -> None:
        if not self._dropped:
            self._inbox.append(piece)
            self._unread += len(piece)
            self._readable.set()

    def acknowledged(self, n_bytes: int) -> None:
        self._unacknowledged -= n_bytes
        self._writable.set()

    def finished(self, error: EngineError | None) -> None:
        self._over = True
        self._error = error
        self._readable.set()
        self._writable.set()


class _Process:
    """One life of one worker: from READY until its process is gone."""

    def __init__(self, spec: WorkerSpec, process: asyncio.subprocess.Process, freed: Callable[[], None]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.spec = spec
        self.free = 0
        self.hello = b""
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self._freed = freed
        self._jobs: dict[int, Job] = {}
        self._next_id = 1
        self._heard_at = 0.0
        """When the worker last said anything (loop time)."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return bool(self.hello)

    def open(self, payload: bytes) -> Job:
        """Begin a job in a slot that was taken before."""
        job = Job(self, self._next_id)
        self._jobs[self._next_id] = job
        self.write(self._next_id, Kind.OPEN, payload)
        self._next_id = self._next_id % 0xFFFFFFFF + 1
        return job

    def write(self, job: int, kind: Kind, payload: bytes = b"") -> None:
        # The credit of the jobs bounds what can pile up here, so there is no drain. A pipe that breaks is noticed
        # by the reader, which fails all jobs at once.
        if not self._stdin.is_closing():
            self._stdin.write(pack(job, kind, payload))

    async def begin(self) -> None:
        """Set the worker up. Raises :class:`EngineError` when it says that it cannot work, or says nothing."""
        self.write(0, Kind.SETUP, self.spec.setup)
        try:
            async with asyncio.timeout(self.spec.start_timeout_s):
                _, kind, payload = await self._read()
        except TimeoutError:
            raise _unavailable(self.spec, "a worker did not start in time") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise _unavailable(self.spec, "a worker ended while it started") from None
        except BrokenStream as error:
            raise _unavailable(self.spec, f"a worker broke the protocol: {error}") from None
        if kind is Kind.FATAL:
            raise _unavailable(self.spec, payload.decode(errors="replace"))
        if kind is not Kind.READY or not payload:
            raise _unavailable(self.spec, "a worker did not say that it is ready")
        self.hello = payload
        self.free = self.spec.slots

    async def serve(self) -> None:
        """Deal with the worker's frames until its stream ends."""
        while True:
            try:
                job_id, kind, payload = await self._read()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            self._heard_at = asyncio.get_running_loop().time()
            job = self._jobs.get(job_id)
            if job is None:
                raise BrokenStream(f"a {kind.name} frame for no job")
            match kind:
                case Kind.DATA:
                    job.received(payload)
                case Kind.CREDIT:
                    job.acknowledged(CREDIT_PAYLOAD.unpack(payload)[0])
                case Kind.DONE:
                    self._finish(job_id, None)
                case Kind.FAILED:
                    fault = msgspec.json.decode(payload, type=WorkerFault)
                    self._finish(job_id, EngineError(fault.code, fault.message))
                case _:
                    raise BrokenStream(f"a {kind.name} frame from a worker at work")

    async def watch(self) -> None:
        """Return when the worker owes an answer and has been silent for too long, whatever else it was sent."""
        limit = self.spec.job_timeout_s
        loop = asyncio.get_running_loop()
        owed_since: float | None = None
        while True:
            await asyncio.sleep(min(1.0, limit / 4))
            if not any(job.owed for job in self._jobs.values()):
                owed_since = None
                continue
            if owed_since is None:
                owed_since = loop.time()
            if loop.time() - max(owed_since, self._heard_at) > limit:
                return

    def kill(self) -> None:
        """Kill the worker and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
            return
        # One that is killed very young may have no group of its own yet. Not Popen.kill: it would collect the
        # process behind the back of asyncio, which then could not tell its exit status.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def bury(self) -> int:
        """Kill, collect, and close everything; fail the jobs. Returns the exit status."""
        self.kill()
        self.hello = b""
        self.free = 0
        crashed = EngineError("engine_crashed", f"The {self.spec.name} worker ended unexpectedly.")
        for job in self._jobs.values():
            job.finished(crashed)
        self._jobs.clear()
        self._stdin.close()
        with contextlib.suppress(BrokenStream, ConnectionError):
            while await self._stdout.read(MAX_PAYLOAD):
                pass
        status = await self._process.wait()
        with contextlib.suppress(ConnectionError):
            await self._stdin.wait_closed()
        return status

    def _finish(self, job_id: int, error: EngineError | None) -> None:
        self._jobs.pop(job_id).finished(error)
        self.free += 1
        self._freed()

    async def _read(self) -> tuple[int, Kind, bytes]:
        length, job, kind = unpack_header(await self._stdout.readexactly(HEADER.size))
        return job, kind, await self._stdout.readexactly(length)


class WorkerPool:
    """``spec.workers`` processes with ``spec.slots`` slots each. Use it from one event loop."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._processes: list[_Process | None] = [None] * spec.workers
        self._waiters: FairQueue[asyncio.Future[_Process]] = FairQueue()
        self._started: list[asyncio.Future[bytes]] = []
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.restarts = 0
        """Workers that were started in the place of others."""

    @property
    def waiting(self) -> int:
        """Jobs that wait for a slot now."""
        return len(self._waiters)

    @property
    def working(self) -> bool:
        """Some worker is ready."""
        return bool(self.pids)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process ids of the workers that are ready now."""
        return tuple(p.pid for p in self._processes if p is not None and p.alive)

    async def start(self) -> bytes:
        """Start all workers; returns the READY payload of the first one when all are ready.

        Raises :class:`EngineError` ``engine_unavailable`` when one of them cannot start; then none is left.
        """
        if self._task is not None:
            raise RuntimeError("the pool was started before")
        loop = asyncio.get_running_loop()
        self._started = [loop.create_future() for _ in self._processes]
        self._task = asyncio.create_task(self._run(), name=f"{self._spec.name} workers")
        try:
            return (await asyncio.gather(*self._started))[0]
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Kill the workers and wait until they are gone. Work under way and work that waits fails. Idempotent."""
        if self._task is None:
            return
        if not self._closing:
            self._closing = True
            self._task.cancel()
        await _joined(self._task)
        if not self._task.cancelled() and (bug := self._task.exception()) is not None:
            raise bug

    @contextlib.asynccontextmanager
    async def job(self, payload: bytes, session: str = "") -> AsyncIterator[Job]:
        """Hold a slot and run one job in it, whose OPEN frame carries ``payload`` (at most ``MAX_PAYLOAD`` bytes).
        ``session``: whose turn it is (law 2).

        Raises :class:`EngineError`: ``engine_overloaded``, ``engine_unavailable``; ValueError when the payload is
        too long.
        """
        if len(payload) > MAX_PAYLOAD:
            # Found out in the slot, it would keep that for ever.
            raise ValueError(f"a payload of {len(payload)} bytes is too long for a frame")
        process = await self._take_slot(session)
        while not process.alive:
            process = await self._take_slot(session)
        job = process.open(payload)
        try:
            yield job
        finally:
            job.drop()

    async def _take_slot(self, session: str) -> _Process:
        if self._task is None or self._closing or self._task.done():
            raise _closed(self._spec)
        if not self._waiters and (free := self._freest()) is not None:
            free.free -= 1
            return free
        if len(self._waiters) >= self._spec.max_waiting:
            raise EngineError("engine_overloaded", f"Too many requests wait for the {self._spec.name} engine.")
        turn: asyncio.Future[_Process] = asyncio.get_running_loop().create_future()
        self._waiters.push(session, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().free += 1
                self._serve_waiters()
            raise
        finally:
            self._waiters.remove(turn)

    def _freest(self) -> _Process | None:
        ready = [p for p in self._processes if p is not None and p.free > 0]
        return max(ready, key=lambda p: p.free, default=None)

    def _serve_waiters(self) -> None:
        while self._waiters and (free := self._freest()) is not None:
            turn = self._waiters.pop()
            if not turn.done():
                free.free -= 1
                turn.set_result(free)

    def _fail_waiters(self, error: EngineError) -> None:
        while self._waiters:
            turn = self._waiters.pop()
            if not turn.done():
                turn.set_exception(error)

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(self._spec.workers):
                    group.create_task(self._keep_alive(index))
        finally:
            self._fail_waiters(_closed(self._spec))
            for started in self._started:
                started.cancel()

    async def _keep_alive(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_S
        while True:
            since = loop.time()
            try:
                await self._live(index)
            except EngineError as error:
                if not self._started[index].done():
                    self._started[index].set_exception(error)
                if not any(p is not None and p.alive for p in self._processes):
                    self._fail_waiters(error)
            if loop.time() - since > _STEADY_S:
                pause = _FIRST_PAUSE_S
            await asyncio.sleep(pause)
            self.restarts += 1
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _live(self, index: int) -> None:
        """Run one process from its start to its end. Raises :class:`EngineError` when it could not start."""
        try:
            # -P: a file of the working directory must not stand in for a module of the library.
            raw = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                self._spec.module,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
            )
        except OSError as error:
            raise _unavailable(self._spec, f"no process: {error.strerror}") from None
        process = _Process(self._spec, raw, self._serve_waiters)
        assert raw.stderr is not None
        last_words = bytearray()
        reason = "it ended by itself"
        listening = asyncio.create_task(_keep_tail(raw.stderr, last_words))
        try:
            await process.begin()
            self._processes[index] = process
            if not self._started[index].done():
                self._started[index].set_result(process.hello)
            self._serve_waiters()
            if await _first(process.serve(), process.watch()) == 1:
                reason = f"it hung for more than {self._spec.job_timeout_s:g} s"
        except (BrokenStream, msgspec.DecodeError) as error:
            reason = f"it broke the protocol: {error}"
        except EngineError as error:
            reason = error.message
            raise
        except asyncio.CancelledError:
            reason = ""
            raise
        finally:
            self._processes[index] = None
            burial = asyncio.create_task(process.bury())
            await _joined(burial)
            await _joined(listening)
            if reason:
                _log.warning(
                    "%s worker %d is gone (%s, status %s); it printed: %s",
                    *(self._spec.name, index, reason, burial.result()),
                    last_words.decode(errors="replace").strip() or "nothing",
                )


async def _keep_tail(stream: asyncio.StreamReader, tail: bytearray) -> None:
    while text := await stream.read(_STDERR_KEPT):
        tail += text
        del tail[:-_STDERR_KEPT]


async def _first(*coroutines: Coroutine[Any, Any, None]) -> int:
    """Run all until one returns or raises; the index of that one, with the others cancelled and gone."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            await _joined(task)
    for task in done:
        task.result()
    return next(index for index, task in enumerate(tasks) if task in done)


async def _joined(task: asyncio.Task[Any]) -> None:
    """Wait until ``task`` is done; a cancellation that comes meanwhile is raised afterwards."""
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _unavailable(spec: WorkerSpec, problem: str) -> EngineError:
    return EngineError("engine_unavailable", f"The {spec.name} engine cannot work: {problem}.")


def _closed(spec: WorkerSpec) -> EngineError:
    return EngineError("engine_unavailable", f"The {spec.name} engine is not running.")
