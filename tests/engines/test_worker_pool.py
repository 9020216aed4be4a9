from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.base import EngineError
from vivavoce.engines.builtin.worker_channel import (
    HEADER,
    MAX_PAYLOAD,
    BrokenStream,
    Channel,
    Frame,
    Kind,
    pack,
    unpack_header,
)
from vivavoce.engines.builtin.worker_pool import Job, WorkerPool, WorkerSpec


@pytest.fixture(autouse=True)
def _find_test_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def spec(
    *,
    setup: bytes = b"x",
    workers: int = 1,
    slots: int = 1,
    max_waiting: int = 8,
    job_timeout_s: float = 30.0,
    start_timeout_s: float = 30.0,
) -> WorkerSpec:
    return WorkerSpec(
        name="test",
        module="pool_test_worker",
        setup=setup,
        workers=workers,
        slots=slots,
        max_waiting=max_waiting,
        job_timeout_s=job_timeout_s,
        start_timeout_s=start_timeout_s,
        send_window=4096,
        receive_window=4096,
    )


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


@asynccontextmanager
async def running(a_spec: WorkerSpec) -> AsyncIterator[WorkerPool]:
    """A started pool; afterwards nothing of it may be left."""
    before = open_files()
    pool = WorkerPool(a_spec)
    await pool.start()
    pids = pool.pids
    assert len(pids) == a_spec.workers
    try:
        yield pool
    finally:
        pids += pool.pids
        await pool.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not [pid for pid in pids if is_running(pid)]
        assert open_files() <= before


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the worker tells nobody
            await asyncio.sleep(0.005)


async def echo(pool: WorkerPool, *pieces: bytes) -> bytes:
    async with pool.job(b"echo") as job:
        for piece in pieces:
            await job.send(piece)
        job.end()
        return b"".join([piece async for piece in job])


async def outcome(pool: WorkerPool, command: bytes) -> str:
    """The code of the fault, or what was said."""
    try:
        async with pool.job(command) as job:
            job.end()
            return b"".join([piece async for piece in job]).decode()
    except EngineError as error:
        return error.code


async def test_a_job_carries_bytes_both_ways() -> None:
    async with running(spec()) as pool:
        assert await echo(pool, b"one ", b"two") == b"one two"
        assert await echo(pool) == b""


async def test_data_beyond_the_windows_waits_for_credit() -> None:
    sent = os.urandom(50_000)
    async with running(spec()) as pool, pool.job(b"echo") as job:

        async def send() -> None:
            await job.send(sent)
            job.end()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            assert b"".join([piece async for piece in job]) == sent


async def test_a_worker_stays_within_the_readers_window() -> None:
    async with running(spec()) as pool, pool.job(b"pieces 100 1024") as job:
        job.end()
        await until(lambda: job._unread == 4096)
        assert not job.owed, "it waits for us, so it cannot be late"
        received = [piece async for piece in job]
        assert len(received) == 100
        assert max(len(piece) for piece in received) == 1024


async def test_jobs_share_a_worker_up_to_its_slots_and_wait_in_order() -> None:
    done: list[int] = []

    async def one(number: int) -> None:
        assert await echo(pool, bytes([number])) == bytes([number])
        done.append(number)

    async with running(spec(slots=2)) as pool:
        async with asyncio.TaskGroup() as group, pool.job(b"echo"), pool.job(b"echo"):
            for number in range(5):
                group.create_task(one(number))
            await until(lambda: pool.waiting == 5)
            assert done == []
        assert done == [0, 1, 2, 3, 4]


async def test_sessions_take_turns_for_a_slot() -> None:
    done: list[str] = []

    async def one(session: str) -> None:
        async with pool.job(b"echo", session) as job:
            done.append(session)
            job.end()
            assert [piece async for piece in job] == []

    async with running(spec(slots=1)) as pool, asyncio.TaskGroup() as group, pool.job(b"echo", "a"):
        for session in ("a", "a", "a", "b", "c", "b"):
            group.create_task(one(session))
        await until(lambda: pool.waiting == 6)
    assert "".join(done) == "abcaba"


async def test_jobs_spread_over_the_workers() -> None:
    async with running(spec(workers=2, slots=2)) as pool, pool.job(b"echo") as one, pool.job(b"echo") as two:
        assert one._process is not two._process


async def test_the_queue_is_bounded() -> None:
    async with running(spec(max_waiting=2)) as pool, pool.job(b"echo"):
        waiting = [asyncio.create_task(echo(pool)) for _ in range(2)]
        await until(lambda: pool.waiting == 2)
        with pytest.raises(EngineError) as caught:
            await echo(pool)
        assert caught.value.code == "engine_overloaded"
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert pool.waiting == 0


async def test_leaving_a_job_cancels_it_and_keeps_the_worker() -> None:
    async with running(spec()) as pool:
        pids = pool.pids
        async with pool.job(b"pieces 1000000 1024") as job:
            assert await anext(job) == bytes(1024)
        assert await echo(pool, b"free again") == b"free again"
        assert pool.pids == pids


async def test_a_cancelled_wait_gives_its_turn_on() -> None:
    async with running(spec()) as pool:
        async with pool.job(b"echo"):
            first, second = (asyncio.create_task(echo(pool, b"x")) for _ in range(2))
            await until(lambda: pool.waiting == 2)
        # The slot comes back by a frame of the worker; the turn may be given before or after the cancel.
        await until(lambda: pool.waiting < 2)
        first.cancel()
        assert await second == b"x"
        await asyncio.wait([first])


@pytest.mark.parametrize("command", [b"crash", b"traceback", b"garbage"])
async def test_a_crash_fails_its_jobs_only_and_the_worker_comes_back(
    command: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with running(spec(workers=2)) as pool:
        old = pool.pids
        async with pool.job(b"echo") as neighbour:
            assert await outcome(pool, command) == "engine_crashed"
            await neighbour.send(b"still here")
            assert await anext(neighbour) == b"still here"
        await until(lambda: len(pool.pids) == 2 and pool.pids != old)
        assert len(set(pool.pids) & set(old)) == 1
        assert await asyncio.gather(*(echo(pool, b"x") for _ in range(4))) == [b"x"] * 4
    assert "test worker" in caplog.text
    assert ("ZeroDivisionError" in caplog.text) == (command == b"traceback")


async def test_who_waits_while_the_only_worker_dies_is_served_by_the_next() -> None:
    async with running(spec()) as pool:
        async with asyncio.TaskGroup() as group:
            victim = group.create_task(outcome(pool, b"crash"))
            waiter = group.create_task(echo(pool, b"next"))
        assert victim.result() == "engine_crashed"
        assert waiter.result() == b"next"


async def test_it_works_while_a_worker_is_ready() -> None:
    async with running(spec(workers=2)) as pool:
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not pool.working)
        await until(lambda: pool.working)
    assert not pool.working


async def test_a_crash_while_sending_reaches_the_sender() -> None:
    async with running(spec()) as pool:
        with pytest.raises(EngineError) as caught:
            async with pool.job(b"crash") as job:
                await job.send(bytes(1 << 20))
        assert caught.value.code == "engine_crashed"


async def test_a_job_too_long_to_open_takes_no_slot() -> None:
    async with running(spec()) as pool:
        with pytest.raises(ValueError, match="too long for a frame"):
            async with pool.job(bytes(MAX_PAYLOAD + 1)):
                pass
        async with asyncio.timeout(10):
            assert await echo(pool, b"x") == b"x"


async def test_a_worker_that_hangs_is_killed() -> None:
    async with running(spec(job_timeout_s=0.1)) as pool:
        old = pool.pids
        assert await outcome(pool, b"hang") == "engine_crashed"
        await until(lambda: not is_running(old[0]))
        assert await echo(pool, b"x") == b"x"


async def test_a_worker_that_hangs_is_killed_while_others_talk_to_it() -> None:
    async def talk(job: Job) -> None:
        while True:
            await job.send(b"x")
            await asyncio.sleep(0.005)

    async with running(spec(slots=2, job_timeout_s=0.1)) as pool, pool.job(b"echo") as other:
        hung = asyncio.create_task(outcome(pool, b"hang"))
        talking = asyncio.create_task(talk(other))
        # Not the end of its window: that lies twenty seconds away.
        async with asyncio.timeout(10):
            assert await hung == "engine_crashed"
        await asyncio.wait([talking])
        assert isinstance(talking.exception(), EngineError)


async def test_waiting_for_the_client_is_no_hang() -> None:
    async with running(spec(job_timeout_s=0.05)) as pool, pool.job(b"echo") as job:
        await job.send(b"x")
        assert await anext(job) == b"x"
        await asyncio.sleep(0.3)
        await job.send(b"y")
        assert await anext(job) == b"y"


async def test_a_cancelled_job_that_hangs_is_killed() -> None:
    async with running(spec(job_timeout_s=0.1)) as pool:
        async with pool.job(b"hang"):
            pass
        assert await echo(pool, b"x") == b"x"


@pytest.mark.parametrize(
    ("setup", "problem"),
    [(b"fatal", "it has no heart"), (b"die", "ended while it started"), (b"mute", "did not start in time")],
)
async def test_a_worker_that_cannot_start(setup: bytes, problem: str) -> None:
    before = open_files()
    pool = WorkerPool(spec(setup=setup, workers=2, start_timeout_s=5.0 if setup != b"mute" else 0.3))
    with pytest.raises(EngineError, match=problem) as caught:
        await pool.start()
    assert caught.value.code == "engine_unavailable"
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert open_files() <= before
    with pytest.raises(EngineError):
        await echo(pool)


async def test_who_waits_is_told_when_no_worker_can_be_started(tmp_path: Path) -> None:
    async with running(spec(setup=b"only once " + os.fsencode(tmp_path / "flag"))) as pool:
        assert await outcome(pool, b"crash") == "engine_crashed"
        assert await outcome(pool, b"nice") == "engine_unavailable"


async def test_a_job_can_fail_with_its_own_fault() -> None:
    async with running(spec()) as pool:
        pids = pool.pids
        assert await outcome(pool, b"fail") == "no_luck"
        assert pool.pids == pids


async def test_stray_prints_do_not_break_the_stream() -> None:
    async with running(spec()) as pool:
        assert await outcome(pool, b"stray print") == ""


async def test_workers_are_polite() -> None:
    async with running(spec()) as pool:
        niceness, threads = (await outcome(pool, b"nice")).split()
        assert int(niceness) >= min(19, os.nice(0) + 10)
        assert threads == "1"


async def test_close_fails_what_is_under_way_and_what_waits() -> None:
    async with running(spec()) as pool:
        running_job = asyncio.create_task(outcome(pool, b"hang"))
        waiting_job = asyncio.create_task(outcome(pool, b"echo"))
        await until(lambda: pool.waiting == 1)
        await pool.close()
        assert await waiting_job == "engine_unavailable"
        assert await running_job == "engine_crashed"
        await pool.close()
        assert await outcome(pool, b"echo") == "engine_unavailable"


async def test_a_worker_ends_when_its_server_is_gone() -> None:
    pool = WorkerPool(spec())
    await pool.start()
    process = pool._processes[0]
    assert process is not None
    process._stdin.close()
    assert await process._process.wait() == 0
    await pool.close()


@given(
    job=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(Kind),
    payload=st.binary(max_size=100),
    rest=st.binary(max_size=20),
)
def test_frames_come_back_as_they_were(job: int, kind: Kind, payload: bytes, rest: bytes) -> None:
    ours, theirs = os.pipe()
    try:
        channel = Channel(ours, theirs)
        channel.send(job, kind, payload)
        os.write(theirs, rest)
        assert channel.poll() == Frame(job, kind, payload)
        assert os.read(ours, 100) == rest if rest else channel.poll() is None
    finally:
        os.close(ours)
        os.close(theirs)


def test_the_end_of_the_stream_ends_the_worker() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, pack(1, Kind.DATA, b"cut")[:-1])
    os.close(theirs)
    with pytest.raises(SystemExit) as caught:
        Channel(ours, ours).receive()
    os.close(ours)
    assert caught.value.code == 0


@pytest.mark.parametrize(
    "header", [HEADER.pack(0, 1, 0), HEADER.pack(0, 1, 200), HEADER.pack(MAX_PAYLOAD + 1, 1, Kind.DATA)]
)
def test_a_broken_header_is_told(header: bytes) -> None:
    with pytest.raises(BrokenStream):
        unpack_header(header)


def test_a_payload_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        pack(1, Kind.DATA, bytes(MAX_PAYLOAD + 1))
