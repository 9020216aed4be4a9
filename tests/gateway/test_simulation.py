"""The simulator of provisioned throughput: its traffic, and what it says of it."""

from __future__ import annotations

import pytest

from vivavoce.gateway.provisioned import Provision
from vivavoce.gateway.simulation import Call, Shape, ptus_needed, simulate

UNIT = Provision(1, 6000, 2000)
"""6000 input tokens a minute, 100 a second; one of output counts for 3."""


def test_even_calls_and_bursts() -> None:
    shape = Shape(6, 0.5, prompt=10, output=2, burst_calls=2, burst_every_s=15)
    assert [call.at_s for call in shape.calls()] == [0, 0, 0, 10, 15, 15, 20]
    assert shape.calls()[0] == Call(0, 10, 2, duration_s=5.0)
    assert Shape(0, 1, 10, 2).calls() == []


def test_random_calls_are_those_of_their_seed_and_as_many_on_average() -> None:
    shape = Shape(60, 60, 10, 2, arrivals="random", seed=7)
    times = [call.at_s for call in shape.calls()]
    assert times == [call.at_s for call in shape.calls()]
    assert times != [call.at_s for call in Shape(60, 60, 10, 2, arrivals="random", seed=8).calls()]
    assert len(times) == pytest.approx(3600, rel=0.05)
    assert all(0 < at < 3600 for at in times)


def test_a_simulation_by_hand() -> None:
    calls = [
        Call(0, prompt=3000, output=100, max_output=1000, duration_s=10),
        Call(1, prompt=1000, output=0, max_output=0, duration_s=0),
        Call(20, prompt=0, output=0, max_output=0, duration_s=0),
    ]
    outcome = simulate(UNIT, calls)
    steps = [(step.at_s, step.what, round(step.utilization * 6000)) for step in outcome.steps]
    assert steps == [
        (0, "admitted", 6000),
        (1, "admitted", 6900),
        (1, "ended", 6900),
        (10, "ended", 3300),
        (20, "admitted", 2300),
        (20, "ended", 2300),
    ]
    assert (outcome.admitted, outcome.refused, outcome.end_s) == (3, 0, 20)
    assert outcome.peak == pytest.approx(1.15)
    # 6000 to 5900, 6900 to 6000, 3300 to 2300.
    area = (5950 * 1 + 6450 * 9 + 2800 * 10) / 6000
    assert outcome.mean == pytest.approx(area / 20)
    assert [round(height * 6000) for height in outcome.highest(4)] == [6900, 6500, 6000, 2800]


def test_what_is_refused_is_told_when_there_is_room() -> None:
    outcome = simulate(UNIT, [Call(0, 7000, 0, max_output=0, duration_s=60), Call(5, 1, 0, max_output=0)])
    refused = outcome.steps[1]
    assert (outcome.admitted, outcome.refused, refused.what) == (1, 1, "refused")
    assert refused.retry_after_s == pytest.approx(5.001)


def test_ptus_needed_is_the_fewest_that_refuse_nothing() -> None:
    calls = Shape(60, 5, prompt=1000, output=200, max_output=400, burst_calls=20).calls()
    needed = ptus_needed(UNIT, calls, 5, 5)
    assert needed is not None
    assert simulate(Provision(needed, 6000, 2000), calls).refused == 0
    assert simulate(Provision(needed - 5, 6000, 2000), calls).refused > 0
    assert ptus_needed(UNIT, calls[:1], 5, 5) == 5


def test_no_number_of_ptus_is_enough_for_a_call_after_one_without_end() -> None:
    calls = [Call(0, 10**13, 0, duration_s=1e9), Call(1, 1, 0)]
    assert ptus_needed(UNIT, calls, 5, 5) is None
