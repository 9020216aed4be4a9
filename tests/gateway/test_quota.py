from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vivavoce.gateway.quota import Denied, Quota, Reservation
from vivavoce.wire.server_events import RateLimit


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(outcome: Reservation | Denied) -> Reservation:
    assert isinstance(outcome, Reservation)
    return outcome


def left(quota: Quota) -> tuple[int, int]:
    requests, tokens = quota.status()
    return requests.remaining, tokens.remaining


def test_a_new_quota_is_full() -> None:
    assert Quota(6000, 60, Clock()).status() == (
        RateLimit(name="requests", limit=60, remaining=60, reset_seconds=0.0),
        RateLimit(name="tokens", limit=6000, remaining=6000, reset_seconds=0.0),
    )


def test_a_reservation_takes_one_request_and_its_tokens() -> None:
    quota = Quota(6000, 60, Clock())
    assert taken(quota.reserve(1500)).tokens == 1500
    assert quota.status() == (
        RateLimit(name="requests", limit=60, remaining=59, reset_seconds=1.0),
        RateLimit(name="tokens", limit=6000, remaining=4500, reset_seconds=15.0),
    )


def test_counters_refill_continuously_up_to_the_limit() -> None:
    clock = Clock()
    quota = Quota(6000, 60, clock)
    quota.reserve(1500)
    clock.now += 0.5
    assert left(quota) == (59, 4550)
    clock.now += 0.5
    assert left(quota) == (60, 4600)
    clock.now += 3600
    assert left(quota) == (60, 6000)


@pytest.mark.parametrize(("actual", "remaining"), [(0, 6000), (1000, 5000), (1500, 4500), (2000, 4000), (7000, 0)])
def test_settling_puts_the_estimate_right(actual: int, remaining: int) -> None:
    quota = Quota(6000, 60, Clock())
    taken(quota.reserve(1500)).settle(actual)
    assert left(quota) == (59, remaining)
    assert quota.status()[1].reset_seconds == actual / 100


def test_release_gives_everything_back() -> None:
    quota = Quota(6000, 60, Clock())
    taken(quota.reserve(1500)).release()
    assert left(quota) == (60, 6000)


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release"])
def test_only_the_first_closing_counts(first: str, second: str) -> None:
    quota = Quota(6000, 60, Clock())
    reservation = taken(quota.reserve(1500))
    for step in (first, second):
        if step == "settle":
            reservation.settle(700)
        else:
            reservation.release()
    assert left(quota) == ((59, 5300) if first == "settle" else (60, 6000))


def test_what_is_owed_is_refilled_first() -> None:
    clock = Clock()
    quota = Quota(6000, 60, clock)
    taken(quota.reserve(6000)).settle(9000)
    assert quota.reserve(0).__class__ is Denied
    assert quota.status()[1] == RateLimit(name="tokens", limit=6000, remaining=0, reset_seconds=90.0)
    clock.now += 30
    assert left(quota)[1] == 0
    clock.now += 10
    assert left(quota)[1] == 1000


def test_a_denial_names_the_limit_that_lasts_longer_and_takes_nothing() -> None:
    clock = Clock()
    quota = Quota(6000, 1, clock)
    quota.reserve(5000)
    assert quota.reserve(1500) == Denied("requests", 60.0)
    assert quota.reserve(6000) == Denied("requests", 60.0)
    clock.now += 30
    assert left(quota) == (0, 4000)
    assert quota.reserve(1) == Denied("requests", 30.0)
    many = Quota(6000, 600, clock)
    many.reserve(5000)
    assert many.reserve(1500) == Denied("tokens", 5.0)
    assert left(many) == (599, 1000)


def test_more_than_the_limit_is_admitted_on_a_full_bucket_and_owes_the_rest() -> None:
    clock = Clock()
    quota = Quota(1000, 60, clock)
    taken(quota.reserve(2500))
    assert quota.status()[1] == RateLimit(name="tokens", limit=1000, remaining=0, reset_seconds=150.0)
    assert quota.reserve(2500) == Denied("tokens", 150.0)


def test_a_clock_that_steps_back_changes_nothing() -> None:
    clock = Clock()
    quota = Quota(6000, 60, clock)
    quota.reserve(1500)
    clock.now -= 100
    assert left(quota) == (59, 4500)


def test_numbers_that_make_no_sense_are_bugs() -> None:
    quota = Quota(10, 10, Clock())
    with pytest.raises(ValueError, match="cannot reserve -1 tokens"):
        quota.reserve(-1)
    with pytest.raises(ValueError, match="cannot use -1 tokens"):
        taken(quota.reserve(1)).settle(-1)
    for limits in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="limits start at 1"):
            Quota(*limits, Clock())


limits = st.integers(1, 10_000_000)


amounts = st.integers(0, 20_000_000)


@given(tpm=limits, rpm=limits, start=st.floats(0, 1e7), spent=amounts, want=amounts)
def test_who_waits_as_told_is_admitted(tpm: int, rpm: int, start: float, spent: int, want: int) -> None:
    clock = Clock(start)
    quota = Quota(tpm, rpm, clock)
    quota.take(requests=0, tokens=spent)
    outcome = quota.reserve(want)
    if isinstance(outcome, Denied):
        assert outcome.retry_after_s > 0
        clock.now += outcome.retry_after_s
        outcome = quota.reserve(want)
    assert isinstance(outcome, Reservation)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), max_size=20))
def test_at_one_moment_the_account_is_exact(uses: list[tuple[int, int]]) -> None:
    quota = Quota(100_000, 1000, Clock())
    reservations = [taken(quota.reserve(estimate)) for estimate, _ in uses]
    for reservation, (_, actual) in zip(reservations, uses, strict=True):
        reservation.settle(actual)
    assert left(quota) == (1000 - len(uses), 100_000 - sum(actual for _, actual in uses))


class Walk(RuleBasedStateMachine):
    """Any order of reserving, settling, releasing and waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(0.0)
        self.quota = Quota(6000, 600, self.clock)
        self.open: list[Reservation] = []
        self.admitted = 0

    @rule(tokens=st.integers(0, 9000))
    def reserve(self, tokens: int) -> None:
        before = left(self.quota)
        outcome = self.quota.reserve(tokens)
        if isinstance(outcome, Denied):
            assert left(self.quota) == before
            assert outcome.retry_after_s > 0
        else:
            self.open.append(outcome)
            self.admitted += 1

    @precondition(lambda self: self.open)
    @rule(actual=st.integers(0, 9000))
    def settle(self, actual: int) -> None:
        reservation = self.open.pop()
        reservation.settle(actual)
        reservation.settle(actual)

    @precondition(lambda self: self.open)
    @rule()
    def release(self) -> None:
        reservation = self.open.pop(0)
        reservation.release()
        reservation.release()
        self.admitted -= 1

    @rule(seconds=st.floats(0, 90))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def never_outside_the_limit(self) -> None:
        for shown in self.quota.status():
            assert 0 <= shown.remaining <= shown.limit
            assert shown.reset_seconds >= 0
            if shown.remaining == shown.limit:
                assert shown.reset_seconds < 0.001

    @invariant()
    def never_faster_than_the_rate(self) -> None:
        """Everything admitted so far came out of a full bucket and what has refilled since."""
        assert self.admitted <= 600 + self.clock.now * 10 + 0.01


TestWalk = Walk.TestCase
