"""A session's questions to its meter: in order, at once where it can be, and settled whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from vivavoce.core.contract import ReserveQuota
from vivavoce.runtime import metering
from vivavoce.runtime.engines import Denial, Reservation
from vivavoce.runtime.metering import Metering
from vivavoce.wire.server_events import RateLimit, Usage

NO = Denial("tokens", 1.0)
Answer: TypeAlias = "Reservation | Denial"


def asked(response_id: str) -> ReserveQuota:
    return ReserveQuota(response_id, 100, Usage(input_text=50), 50)


class Book:
    """A meter that writes down what it is asked, and answers at once or when it is let."""

    def __init__(self, *, slow: bool) -> None:
        self.slow = slow
        self.asked: list[str] = []
        self.denies: set[str] = set()
        self._gates: list[asyncio.Future[None]] = []

    def reserve(self, asked: ReserveQuota) -> Answer | Awaitable[Answer]:
        self.asked.append(f"reserve {asked.response_id}")
        answer: Answer = NO if asked.response_id in self.denies else Page(self, asked.response_id)
        return self.later(answer) if self.slow else answer

    def rate_limits(self) -> tuple[RateLimit, ...]:
        return ()

    async def later(self, answer: Answer) -> Answer:
        await self.wait()
        return answer

    async def wait(self) -> None:
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        await gate

    async def let(self) -> None:
        """Answer the question that is asked now."""
        await asyncio.sleep(0)
        self._gates.pop(0).set_result(None)
        for _ in range(3):
            await asyncio.sleep(0)


class Page:
    def __init__(self, book: Book, response_id: str) -> None:
        self._book = book
        self._response_id = response_id

    def settle(self, used: Usage) -> Awaitable[None] | None:
        self._book.asked.append(f"settle {self._response_id} {used.total}")
        return self._book.wait() if self._book.slow else None


class Session:
    def __init__(self, book: Book) -> None:
        self.told: list[str] = []
        self.bugs: list[Exception] = []
        self.metering = Metering(book, self.bugs.append)

    def reserve(self, response_id: str) -> None:
        def answered(denial: Denial | None) -> None:
            self.told.append(f"{'denied' if denial else 'granted'} {response_id}")

        self.metering.reserve(asked(response_id), answered)

    def settle(self, response_id: str, tokens: int) -> None:
        settled: Callable[[None], None] = lambda _: self.told.append(f"settled {response_id}")  # noqa: E731
        self.metering.settle(response_id, Usage(output_text=tokens), settled)


async def test_a_meter_that_answers_at_once_makes_no_task() -> None:
    tasks = asyncio.all_tasks()
    book = Book(slow=False)
    session = Session(book)
    session.reserve("a")
    assert session.told == ["granted a"]
    session.settle("a", 7)
    session.settle("a", 8)
    assert (session.told[1:], book.asked) == (["settled a", "settled a"], ["reserve a", "settle a 7"])
    assert asyncio.all_tasks() == tasks
    await session.metering.close()


async def test_answers_come_later_and_in_order() -> None:
    book = Book(slow=True)
    book.denies = {"b"}
    session = Session(book)
    for name in "abc":
        session.reserve(name)
    session.settle("a", 7)
    assert (session.told, book.asked) == ([], ["reserve a"])
    await book.let()
    assert (session.told, book.asked) == (["granted a"], ["reserve a", "reserve b"])
    await book.let()
    await book.let()
    assert session.told == ["granted a", "denied b", "granted c"]
    await book.let()
    assert session.told[3:] == ["settled a"]
    assert book.asked == ["reserve a", "reserve b", "reserve c", "settle a 7"]


async def test_what_answers_at_once_waits_for_what_does_not() -> None:
    book = Book(slow=True)
    session = Session(book)
    session.reserve("a")
    book.slow = False
    session.reserve("b")
    assert session.told == []
    await book.let()
    assert session.told == ["granted a", "granted b"]


async def test_a_grant_that_nobody_wants_any_more_is_settled() -> None:
    """Cancelled, or the session has ended, while the meter was still asked."""
    book = Book(slow=True)
    session = Session(book)
    session.reserve("a")
    session.settle("a", 0)
    session.metering.hush()
    closing = asyncio.create_task(session.metering.close())
    await asyncio.sleep(0)
    await book.let()
    await book.let()
    await closing
    assert (session.told, book.asked) == ([], ["reserve a", "settle a 0"])


async def test_a_meter_that_never_answers_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metering, "PATIENCE_S", 0.0)
    tasks = asyncio.all_tasks()
    session = Session(Book(slow=True))
    session.reserve("a")
    await session.metering.close()
    assert asyncio.all_tasks() == tasks
    assert (session.told, session.bugs) == ([], [])


async def test_a_bug_of_the_meter_is_told_once() -> None:
    book = Book(slow=True)
    session = Session(book)
    session.reserve("a")
    book.denies = {"a"}
    session.reserve("b")
    broken = RuntimeError("a bug")
    await asyncio.sleep(0)
    book._gates[0].set_exception(broken)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (session.bugs, session.told, book.asked) == ([broken], [], ["reserve a"])
