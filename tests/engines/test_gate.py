"""The gate before engines: limits, turns of sessions, and what its watch is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines import base
from vivavoce.engines.fair_queue import FairQueue
from vivavoce.engines.gate import BUG, Gate, GatedSynthesizer, Limits, Watch, gated
from vivavoce.engines.registry import Registry
from vivavoce.testing import conformance
from vivavoce.testing.conformance import Check, Subject


class Log(Watch):
    def __init__(self) -> None:
        self.flying: list[int] = []
        self.queued: list[int] = []
        self.endings: list[str | None] = []

    def in_flight(self, count: int) -> None:
        self.flying.append(count)

    def waiting(self, count: int) -> None:
        self.queued.append(count)

    def ended(self, code: str | None) -> None:
        self.endings.append(code)


class Slow:
    """A synthesiser whose every work waits to be released, and tells whose was begun."""

    name = "slow"
    version = "1"
    capabilities = base.SynthesizerCapabilities(16000, voices={"alloy": "a"})

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Semaphore(0)
        self.fault: Exception | None = None

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        self.begun.append(request.text)
        await self.go.acquire()
        if self.fault is not None:
            raise self.fault
        yield base.SpeechChunk(b"\0\0")


def gate_before(engine: Slow, most: int | None, waiting: int = 100, watch: Watch | None = None) -> base.Synthesizer:
    made = gated(engine, Gate("slow", Limits(most, waiting), watch))
    assert isinstance(made, GatedSynthesizer)
    return made


async def say(engine: base.Synthesizer, text: str, session: str) -> int:
    request = base.SynthesisRequest(text, "alloy", session=session)
    async with aclosing(engine.synthesize(request)) as chunks:
        return len([chunk async for chunk in chunks])


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_sessions_take_turns() -> None:
    inner = Slow()
    engine = gate_before(inner, 1)
    async with asyncio.TaskGroup() as group:
        for session in ("a", "a", "a", "a", "b", "b", "c"):
            group.create_task(say(engine, session, session))
            await settle()
        for _ in range(7):
            inner.go.release()
            await settle()
    # The first found room; a has three more when b and c come.
    assert "".join(inner.begun) == "aabcaba"


async def test_nobody_is_begun_beyond_the_limit_and_all_are_served() -> None:
    inner, watch = Slow(), Log()
    engine = gate_before(inner, 3, watch=watch)
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(say(engine, str(n), str(n % 4))) for n in range(20)]
        for n in range(20):
            await settle()
            assert len(inner.begun) == min(20, n + 3)
            inner.go.release()
    assert [task.result() for task in work] == [1] * 20
    assert (max(watch.flying), watch.flying[-1], watch.queued[-1]) == (3, 0, 0)
    assert watch.endings == [None] * 20


async def test_beyond_the_queue_the_engine_is_overloaded() -> None:
    inner, watch = Slow(), Log()
    engine = gate_before(inner, 1, waiting=1, watch=watch)
    async with asyncio.TaskGroup() as group:
        served = [group.create_task(say(engine, "x", "a")) for _ in range(2)]
        await settle()
        with pytest.raises(base.EngineError) as raised:
            await say(engine, "x", "b")
        assert raised.value.code == "engine_overloaded"
        inner.go.release()
        inner.go.release()
    assert [task.result() for task in served] == [1, 1]
    assert watch.endings == ["engine_overloaded", None, None]


async def test_who_gives_up_waiting_costs_nobody_a_place() -> None:
    inner = Slow()
    engine = gate_before(inner, 1)
    first, second, third = (asyncio.create_task(say(engine, n, n)) for n in "abc")
    await settle()
    second.cancel()
    await settle()
    inner.go.release()
    await first
    await settle()
    assert inner.begun == ["a", "c"]
    # The place is given to one who gives up in the same moment.
    fourth, fifth = (asyncio.create_task(say(engine, n, n)) for n in "de")
    await settle()
    inner.go.release()
    await third
    fourth.cancel()
    await settle()
    inner.go.release()
    assert await fifth == 1
    assert second.cancelled()
    assert fourth.cancelled()


async def test_faults_are_counted_by_code_and_pass_unchanged() -> None:
    inner, watch = Slow(), Log()
    engine = gate_before(inner, 1, watch=watch)
    for fault in (base.EngineError("engine_crashed", "It is gone."), KeyError("x")):
        inner.fault = fault
        inner.go.release()
        with pytest.raises(type(fault)) as raised:
            await say(engine, "x", "a")
        assert raised.value is fault
    assert watch.endings == ["engine_crashed", BUG]
    assert watch.flying[-1] == 0


def test_vad_has_no_gate() -> None:
    vad = Registry.installed().create("vad", "silero", {})
    assert gated(vad, Gate("silero")) is vad


class Conversing(Slow):
    """A model that keeps something for sessions."""

    capabilities = base.LanguageModelCapabilities()  # type: ignore[assignment]
    working = False
    restarts = 7

    def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        raise NotImplementedError

    async def end_session(self, session: str) -> None:
        self.begun.append(session)


async def test_what_an_engine_says_beside_its_work_comes_through() -> None:
    inner = Conversing()
    made = gated(inner, Gate("x"))
    assert isinstance(made, base.SessionAware)
    assert isinstance(made, base.Watched)
    assert isinstance(made, base.Restarting)
    await made.end_session("s")
    assert (inner.begun, made.working, made.restarts, made.version) == (["s"], False, 7, "1")
    assert not isinstance(gated(Slow(), Gate("x")), base.SessionAware)


# --------------------------------------------------------------------------------- gates change nothing (law 1)


def limited(subject: Subject) -> Subject:
    def create(options: Mapping[str, object]) -> object:
        engine = subject.create(options)
        assert isinstance(engine, base.EndOfTurn | base.LanguageModel | base.Synthesizer)
        return gated(engine, Gate("x", Limits(4, 100)))

    return replace(subject, create=create)


LIMITED: Final = (
    limited(Subject.installed("end_of_turn", "turn_hints")),
    limited(Subject.installed("language_model", "scripted", options={"word_delay_ms": 0})),
    limited(Subject.installed("synthesizer", "espeak")),
)


@pytest.mark.parametrize(
    "check",
    [check for subject in LIMITED for check in conformance.checks(subject)],
    ids=lambda check: f"{check.subject.kind}-{check}",
)
async def test_engines_behind_a_gate_conform(check: Check) -> None:
    await check.run()


# ------------------------------------------------------------------------------------------------ the queue


@given(st.lists(st.sampled_from("abcd"), max_size=30))
def test_each_session_has_its_own_in_order_and_waits_for_one_of_each_other(sessions: list[str]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for number, session in enumerate(sessions):
        queue.push(session, (session, number))
    assert len(queue) == len(sessions)
    out = [queue.pop() for _ in sessions]
    assert sorted(number for _, number in out) == list(range(len(sessions)))
    for session in set(sessions):
        mine = [at for at, (owner, _) in enumerate(out) if owner == session]
        assert [out[at][1] for at in mine] == sorted(out[at][1] for at in mine)
        between = [[owner for owner, _ in out[a + 1 : b]] for a, b in zip([-1, *mine], mine, strict=False)]
        assert all(len(others) == len(set(others)) for others in between)


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.booleans()), max_size=20))
def test_what_is_removed_does_not_come(entries: list[tuple[str, bool]]) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, (session, _) in enumerate(entries):
        queue.push(session, number)
    for number, (_, removed) in enumerate(entries):
        if removed:
            queue.remove(number)
            queue.remove(number)
    kept = [number for number, (_, removed) in enumerate(entries) if not removed]
    assert len(queue) == len(kept)
    assert sorted(queue.pop() for _ in kept) == kept
    with pytest.raises(KeyError):
        queue.pop()


def test_who_has_no_session_waits_like_anybody() -> None:
    queue: FairQueue[str] = FairQueue()
    for session, item in [("", "1"), ("", "2"), ("a", "3"), ("a", "4"), ("", "5")]:
        queue.push(session, item)
    assert [queue.pop() for _ in range(5)] == ["1", "2", "3", "5", "4"]
