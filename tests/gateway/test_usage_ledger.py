from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime, timedelta

import pytest

from vivavoce.config import Config
from vivavoce.gateway.store.base import StoreUnavailable, Usage
from vivavoce.gateway.store.declared import DeclaredStore
from vivavoce.gateway.usage import UsageLedger, sweep_usage
from vivavoce.wire import server_events as se

HOUR = datetime(2025, 3, 1, 12, tzinfo=UTC)
USED = se.Usage(input_text=1, input_audio=20, cached_text=1, output_text=300, output_audio=4000)


class Kept(DeclaredStore):
    """Keeps what it is told, unless it is away."""

    def __init__(self) -> None:
        super().__init__(Config())
        self.away = False
        self.told: list[list[Usage]] = []

    async def record_usage(self, usages: Iterable[Usage]) -> None:
        told = list(usages)
        if self.away:
            raise StoreUnavailable("away")
        self.told.append(told)


class Settled:
    def __init__(self) -> None:
        self.used: list[se.Usage] = []

    def settle(self, used: se.Usage) -> Awaitable[None] | None:
        self.used.append(used)
        return None


def usage(deployment: str, requests: int, tokens: tuple[int, int], hour: datetime = HOUR) -> Usage:
    return Usage(
        deployment=deployment, hour=hour, requests=requests, input_tokens=tokens[0], output_tokens=tokens[1]
    )


@pytest.fixture
def store() -> Kept:
    return Kept()


async def test_a_response_counts_when_it_is_admitted_and_its_tokens_once_when_it_ends(store: Kept) -> None:
    now = [HOUR + timedelta(minutes=59)]
    ledger = UsageLedger(store, lambda: now[0])
    reservation = Settled()
    counted = ledger.admitted("a", reservation)
    ledger.admitted("b", Settled())
    await ledger.flush()
    now[0] += timedelta(minutes=1)
    counted.settle(USED)
    counted.settle(USED)
    assert reservation.used == [USED, USED]
    await ledger.flush()
    assert store.told == [
        [usage("a", 1, (0, 0)), usage("b", 1, (0, 0))],
        [usage("a", 0, (21, 4300), HOUR + timedelta(hours=1))],
    ]


async def test_what_cannot_be_written_is_kept_and_added_to(store: Kept) -> None:
    ledger = UsageLedger(store, lambda: HOUR)
    ledger.admitted("a", Settled()).settle(USED)
    store.away = True
    with pytest.raises(StoreUnavailable):
        await ledger.flush()
    ledger.admitted("a", Settled())
    store.away = False
    await ledger.flush()
    assert store.told == [[usage("a", 2, (21, 4300))]]


async def test_nothing_is_lost_or_ended_by_a_bug(store: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vivavoce.gateway.usage.FLUSH_S", 0)
    ledger = UsageLedger(store, lambda: HOUR)
    ledger.admitted("a", Settled())
    fine = store.record_usage
    written = asyncio.Event()

    async def broken(usages: Iterable[Usage]) -> None:
        monkeypatch.setattr(store, "record_usage", whole)
        raise KeyError("a")

    async def whole(usages: Iterable[Usage]) -> None:
        await fine(usages)
        written.set()

    monkeypatch.setattr(store, "record_usage", broken)
    running = asyncio.create_task(ledger.run())
    async with asyncio.timeout(60):
        await written.wait()
    running.cancel()
    assert store.told[0] == [usage("a", 1, (0, 0))]


async def test_what_is_lost_at_the_end_is_told(store: Kept, caplog: pytest.LogCaptureFixture) -> None:
    ledger = UsageLedger(store, lambda: HOUR)
    ledger.admitted("a", Settled())
    store.away = True
    await ledger.close()
    assert caplog.messages == ["the usage of the last seconds is lost: away"]


async def test_what_is_too_old_is_swept_again_and_again(
    store: Kept, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[datetime] = []

    async def forget(before: datetime) -> int:
        asked.append(before)
        if len(asked) == 1:
            raise StoreUnavailable("away")
        if len(asked) == 3:
            raise asyncio.CancelledError
        return 5

    monkeypatch.setattr(store, "forget_usage", forget)
    with caplog.at_level("INFO"), pytest.raises(asyncio.CancelledError):
        await sweep_usage(store, 400, lambda: HOUR, every_s=0)
    assert asked == [HOUR - timedelta(days=400)] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "5 rows" in caplog.text
