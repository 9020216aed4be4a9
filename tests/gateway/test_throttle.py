from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.gateway.throttle import Throttle, client_address, customer

HERE, THERE = "192.0.2.1", "192.0.2.2"


class Door:
    def __init__(self, **limits: int) -> None:
        self.now = 0.0
        self.throttle = Throttle(lambda: self.now, window_s=60, **limits)

    def fail(self, address: str = HERE, account: str = "a", times: int = 1) -> None:
        for _ in range(times):
            self.throttle.failed(address, account)

    def wait_s(self, address: str = HERE, account: str = "a") -> float:
        return self.throttle.wait_s(address, account)


def test_an_address_may_fail_so_often_and_then_waits() -> None:
    door = Door(failures=6)
    door.fail(times=5)
    assert door.wait_s() == 0
    door.fail()
    assert door.wait_s() == pytest.approx(10)
    door.now += 9.5
    assert door.wait_s() == pytest.approx(0.5)
    door.now += 0.5
    assert door.wait_s() == 0
    door.fail()
    assert door.wait_s() == pytest.approx(10)
    door.now += 60
    door.fail(times=5)
    assert door.wait_s() == 0


def test_another_address_never_waits_for_it() -> None:
    door = Door(failures=6)
    door.fail(times=100)
    assert door.wait_s() == pytest.approx(10)
    assert door.wait_s(THERE) == 0


def test_when_many_guess_at_an_account_who_has_failed_waits_sooner() -> None:
    door = Door(failures=6, account_failures=12)
    for n in range(12):
        door.fail(f"198.51.100.{n}")
    assert door.wait_s("198.51.100.0") == pytest.approx(10)
    assert door.wait_s("198.51.100.0", "b") == 0
    assert door.wait_s(THERE) == 0
    door.now += 5
    assert door.wait_s("198.51.100.0") == 0


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 30)), max_size=200))
def test_memory_is_bounded_and_those_who_never_fail_never_wait(failures: list[tuple[int, float]]) -> None:
    now = 0.0
    throttle = Throttle(lambda: now, failures=5, account_failures=7, window_s=60, tracked=10)
    for n, later in failures:
        now += later
        throttle.failed(f"10.0.{n // 256}.{n % 256}", f"account {n % 20}")
        assert throttle.wait_s(HERE, f"account {n % 20}") == 0
        assert 0 <= throttle.wait_s(f"10.0.{n // 256}.{n % 256}", f"account {n % 20}") <= 60
    assert len(throttle._addresses) <= 10
    assert len(throttle._accounts) <= 10


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        (HERE, HERE),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", HERE),
        ("", ""),
        ("a socket", "a socket"),
    ],
)
def test_what_an_address_counts_as(address: str, counts_as: str) -> None:
    assert customer(address) == counts_as


PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (HERE, [], HERE),
        (HERE, ["203.0.113.7"], HERE),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("fd00::1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["203.0.113.7:80"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7, unknown"], "unknown"),
        ("", ["203.0.113.7"], ""),
    ],
)
def test_whose_request_it_is(peer: str, forwarded: list[str], address: str) -> None:
    assert client_address(peer, forwarded, PROXIES) == address
    assert client_address(peer, forwarded, []) == peer
