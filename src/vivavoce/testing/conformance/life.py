"""Promises of every engine: how it is made, starts, works for many, is interrupted, and ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from vivavoce.engines import base
from vivavoce.engines.registry import EngineUnavailable, check_engine
from vivavoce.testing.conformance.subject import MARK, Checks, NotConforming, Subject, require, turns
from vivavoce.testing.conformance.work import done, stream

_UNKNOWN: Final = "no_such_option"
_AT_ONCE: Final = 4
_ROUNDS: Final = 12
"""More than an engine is likely to have slots."""
_TURNS: Final = (0, 1, 3, 10, 30, 100)
"""Turns of the event loop after which work is cut off."""


async def is_what_its_kind_says(subject: Subject) -> None:
    """It satisfies the protocol, and its capabilities are declared, true to the rules of the registry."""
    engine = subject.make()
    for what in ("name", "version"):
        text = getattr(engine, what, None)
        require(isinstance(text, str) and text, f"its {what} is {text!r}, not a text")
    try:
        check_engine(subject.kind, engine.name, engine)
    except EngineUnavailable as fault:
        raise NotConforming(fault.problem) from None
    able = engine.capabilities
    for language in getattr(able, "languages", ()):
        require(
            language.isalpha() and language.islower() and 2 <= len(language) <= 3,
            f"the language {language!r} is no ISO-639 code",
        )
    require(able == engine.capabilities, "its capabilities change from look to look")
    await engine.close()


async def options_are_refused_by_name(subject: Subject) -> None:
    """What it does not know, and what is wrong, is an EngineOptionsError that names the option."""
    for name, value in {_UNKNOWN: 1, **subject.bad_options}.items():
        try:
            subject.create({**subject.options, name: value})
        except base.EngineOptionsError as fault:
            named = fault.path == name or fault.path.startswith((f"{name}.", f"{name}["))
            require(named, f"the fault of the option {name} is told of {fault.path!r}")
            require(fault.problem, f"the fault of the option {name} is told without a reason")
        else:
            raise NotConforming(f"the option {name} = {value!r} was accepted")


async def making_starts_nothing(subject: Subject) -> None:
    """The factory only checks options: tasks, threads and processes begin in ``start``."""
    before = _Traces.now()
    engine = subject.make()
    _Traces.now().compare(before, "the factory")
    if isinstance(engine, base.Watched):
        require(isinstance(engine.working, bool), "working is no bool")
    await subject.patiently(engine.close(), "close without start")


async def closing_twice_is_closing_once(subject: Subject) -> None:
    """Also without a start."""
    engine = subject.make()
    await subject.patiently(engine.close(), "close without start")
    async with subject.running() as started:
        await subject.patiently(started.close(), "close")


async def works_between_start_and_close(subject: Subject) -> None:
    """An engine that can tell whether it works says so then, and no more after its end."""
    async with subject.running() as engine:
        watched = isinstance(engine, base.Watched)
        require(not watched or engine.working is True, "working is not True after start")
        if subject.kind != "vad":
            await done(engine, subject)
        require(not watched or engine.working is True, "working is not True after work")
    require(not watched or engine.working is False, "working is not False after close")


async def a_start_that_fails_is_told_and_leaves_nothing(subject: Subject) -> None:
    """Where the subject names options for it."""
    if subject.unstartable is None:
        return
    for attempt in range(2):
        before = _Traces.now()
        engine: Any = subject.create(dict(subject.unstartable))
        try:
            await subject.patiently(engine.start(), "start")
        except base.EngineError as fault:
            require(fault.code and fault.message, "the failed start has no code or no message")
        else:
            raise NotConforming("the start that was to fail succeeded")
        finally:
            await subject.patiently(engine.close(), "close")
        del engine
        if attempt:
            _Traces.now().compare(before, "a failed start")


async def leaves_nothing_behind(subject: Subject) -> None:
    """A second life of start, work and close leaves no task, thread, child process or open file beyond the first;
    the first may load libraries for good."""
    for life in range(2):
        before = _Traces.now()
        async with subject.running() as engine:
            if subject.kind != "vad":
                await done(engine, subject)
        del engine
        await turns(3)
        after = _Traces.now()
        if life:
            after.compare(before, "a life")
        else:
            require(after.tasks <= before.tasks, f"tasks are left: {_names(after.tasks - before.tasks)}")


async def work_after_the_end_is_a_fault_and_no_wait(subject: Subject) -> None:
    """Who comes too late is told so by an EngineError, unless the engine needs nothing that it closed."""
    async with subject.running() as engine:
        pass
    with suppress(base.EngineError):
        await done(engine, subject)


async def closing_ends_work_that_is_under_way(subject: Subject) -> None:
    """Within patience; the work ends, by itself or with an EngineError."""
    async with subject.running() as engine, _under_way(engine, subject) as work:
        await turns(30)
        await subject.patiently(engine.close(), "close amid work")
        work.cancel()
        await subject.patiently(asyncio.wait([work]), "work that was cancelled after close")


async def many_may_use_it_at_once(subject: Subject) -> None:
    """All are served, each as if it were alone; beyond its bounds it says ``engine_overloaded``."""
    async with subject.running() as engine:
        results = await asyncio.gather(*(done(engine, subject) for _ in range(_AT_ONCE)), return_exceptions=True)
    served = 0
    for result in results:
        if isinstance(result, base.EngineError):
            require(
                result.code == "engine_overloaded", f"one of {_AT_ONCE} failed: {result.code}: {result.message}"
            )
        elif isinstance(result, BaseException):
            raise result
        else:
            served += 1
    require(served, "nobody was served")


async def closed_early_it_works_on(subject: Subject) -> None:
    """Whoever stops reading, before the first product or after it, gives back what the work held."""
    async with subject.running() as engine:
        for round_ in range(_ROUNDS):
            products = stream(engine, subject)
            if round_ % 4 == 0:
                with suppress(StopAsyncIteration):
                    await subject.patiently(anext(products), "the first product")
            await subject.patiently(products.aclose(), "closing work early")
        await done(engine, subject)


async def cancelled_it_works_on(subject: Subject) -> None:
    """The same for whoever is cancelled while waiting; and nothing goes on behind."""
    async with subject.running() as engine:
        for count in _TURNS * 2:
            tasks = asyncio.all_tasks()
            async with _under_way(engine, subject) as work:
                await turns(count)
                work.cancel()
                await subject.patiently(asyncio.wait([work]), "cancelled work")
            left = asyncio.all_tasks() - tasks
            require(not left, f"cancelled work left tasks: {_names(left)}")
        await done(engine, subject)


async def logs_tell_nothing_of_the_work(subject: Subject) -> None:
    """Neither what was asked nor what came of it, at any level."""
    with _logged() as lines:
        async with subject.running() as engine:
            products = await done(engine, subject)
            async with _under_way(engine, subject) as work:
                await turns(10)
                work.cancel()
    secrets = {MARK}
    secrets |= {word for product in products for word in str(getattr(product, "text", "")).split() if len(word) > 8}
    told = [line for line in lines if any(secret in line for secret in secrets)]
    require(not told, f"a log line quotes the work: {told[:1]}")


ALL: Final[Checks] = (
    is_what_its_kind_says,
    options_are_refused_by_name,
    making_starts_nothing,
    closing_twice_is_closing_once,
    works_between_start_and_close,
    a_start_that_fails_is_told_and_leaves_nothing,
    leaves_nothing_behind,
)
STREAMS: Final[Checks] = (
    work_after_the_end_is_a_fault_and_no_wait,
    closing_ends_work_that_is_under_way,
    many_may_use_it_at_once,
    closed_early_it_works_on,
    cancelled_it_works_on,
    logs_tell_nothing_of_the_work,
)


class _under_way:  # noqa: N801
    """Work in a task of its own; at the end it is cancelled and gone."""

    def __init__(self, engine: Any, subject: Subject) -> None:
        self._engine = engine
        self._subject = subject

    async def __aenter__(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._consume(), name="conformance work")
        return self._task

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await self._subject.patiently(asyncio.wait([self._task]), "cancelled work")
        if not self._task.cancelled() and (fault := self._task.exception()) is not None:
            require(isinstance(fault, base.EngineError), f"interrupted work raised {type(fault).__name__}: {fault}")

    async def _consume(self) -> None:
        async with aclosing(stream(self._engine, self._subject, endless=True)) as products:
            async for _ in products:
                pass


class _Traces:
    """What a process holds at a moment."""

    def __init__(self) -> None:
        gc.collect()
        self.tasks = asyncio.all_tasks()
        # Those of asyncio.to_thread belong to the event loop, and one that has waited for a process ends by itself.
        self.threads = {t for t in threading.enumerate() if not t.name.startswith(("asyncio_", "asyncio-waitpid"))}
        self.children = _children()
        self.files = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else 0

    @classmethod
    def now(cls) -> _Traces:
        return cls()

    def compare(self, before: _Traces, what: str) -> None:
        """Raises NotConforming when there is more of anything."""
        require(self.tasks <= before.tasks, f"{what} leaves tasks: {_names(self.tasks - before.tasks)}")
        threads = {thread.name for thread in self.threads - before.threads}
        require(not threads, f"{what} leaves threads: {', '.join(sorted(threads))}")
        children = self.children - before.children
        require(not children, f"{what} leaves child processes: {sorted(children)}")
        require(self.files <= before.files, f"{what} leaves {self.files - before.files} files open")


def _children() -> frozenset[int]:
    """Ids of our child processes; none where the system has no /proc."""
    us, found = str(os.getpid()), set()
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in the second field may hold anything, but no later field a parenthesis.
            if entry.read_text(errors="replace").rpartition(")")[2].split()[1] == us:
                found.add(int(entry.parent.name))
    return frozenset(found)


def _names(tasks: set[asyncio.Task[Any]]) -> str:
    return ", ".join(sorted(f"{task.get_name()} ({task.get_coro()})" for task in tasks))


@contextmanager
def _logged() -> Iterator[list[str]]:
    """The lines of all loggers at every level."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    root, handler = logging.getLogger(), Keep()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
