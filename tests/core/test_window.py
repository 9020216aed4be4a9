"""What is left out of a context that a model cannot read at once."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core import contract as c
from vivavoce.core.context import Entry
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.core.window import Window
from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import session_config as sc


def entry(tokens: int) -> Entry:
    return Entry(items.MessageItem("i", "user", ()), text_tokens=tokens)


def ratio(retention_ratio: float, post_instructions: int | None = None) -> sc.RetentionRatio:
    return sc.RetentionRatio(retention_ratio=retention_ratio, post_instructions=post_instructions)


@pytest.mark.parametrize(
    ("truncation", "prompt", "tokens", "left_out"),
    [
        ("auto", 0, [], 0),
        ("auto", 10, [50, 40], 0),
        ("auto", 11, [50, 40], 1),
        ("auto", 0, [10, 10, 40, 50], 1),
        ("auto", 0, [10, 10, 50, 50], 2),
        ("auto", 0, [10, 100], 1),
        ("auto", 0, [10, 101], None),
        ("auto", 101, [], None),
        ("auto", 100, [], 0),
        ("disabled", 10, [50, 40], 0),
        ("disabled", 11, [50, 40], None),
        (ratio(0.8), 10, [50, 40], 0),
        (ratio(0.8), 0, [11, 10, 40, 40], 2),
        (ratio(0.8), 0, [21, 10, 40, 30], 1),
        (ratio(0.29), 0, [90, 10, 19], 1),
        (ratio(1.0), 0, [11, 10, 40, 40], 1),
        (ratio(0.0), 0, [10, 50, 50], 2),
        (ratio(0.0), 0, [10, 50], 0),
        (ratio(0.5, 60), 0, [10, 30, 20], 0),
        (ratio(0.5, 60), 0, [10, 30, 21], 2),
        (ratio(0.5, 60), 50, [10, 30, 21], 2),
        (ratio(0.5, 60), 0, [61], 0),
        (ratio(0.5, 0), 0, [10, 61], 1),
        (ratio(0.5, 60), 90, [10, 30, 21], None),
    ],
)
def test_the_oldest_go(truncation: sc.Truncation, prompt: int, tokens: list[int], left_out: int | None) -> None:
    context = tuple(map(entry, tokens))
    assert Window(100).surplus(truncation, prompt, context, sum(tokens)) == left_out


def test_without_a_window_only_the_client_has_a_limit() -> None:
    context = (entry(10**9), entry(1))
    assert Window().surplus("auto", 10**9, context, 10**9 + 1) == 0
    assert Window().surplus("disabled", 10**9, context, 10**9 + 1) == 0
    assert Window().surplus(ratio(0.5, 10), 0, context, 10**9 + 1) == 1


TRUNCATIONS = st.one_of(
    st.just("auto"), st.just("disabled"), st.builds(ratio, st.floats(0, 1), st.none() | st.integers(0, 100))
)


@given(TRUNCATIONS, st.integers(0, 120), st.lists(st.integers(1, 60)))
def test_what_is_read_fits_and_no_more_is_left_out_than_must_be(
    truncation: sc.Truncation, prompt: int, tokens: list[int]
) -> None:
    count = Window(100).surplus(truncation, prompt, tuple(map(entry, tokens)), sum(tokens))
    if count is None:
        assert prompt + sum(tokens[-1:]) > 100 or (truncation == "disabled" and prompt + sum(tokens) > 100)
        return
    assert prompt + sum(tokens[count:]) <= 100
    assert count <= max(0, len(tokens) - 1), "the newest is read"
    if truncation == "disabled":
        assert count == 0
    if truncation == "auto" and count:
        assert prompt + sum(tokens[count - 1 :]) > 100


def test_a_full_context_costs_no_more_than_one_that_is_not() -> None:
    """Each item is counted when it comes and when it goes, however many are in between."""

    def calls_of_a_turn(max_input: int) -> int:
        identity = Identity("m", 0, 1800, b"seed", window=Window(max_input))
        session = Session(identity, sc.SessionConfig(turn_detection=None), now=0.0)
        session.open()

        def turn() -> None:
            part = items.InputTextPart("Hello.")
            session.receive(ce.ItemCreate(item=items.MessageItem("", "user", (part,))), 1.0)
            session.receive(ce.ResponseCreate(), 1.0)
            run = session.responses.default
            assert run is not None
            session.receive(c.QuotaGranted(run.plan.response_id, ()), 1.0)
            session.receive(c.ResponseFinished(run.plan.response_id), 1.0)
            session.receive(c.QuotaSettled(()), 1.0)

        for _ in range(max_input // 6 + 10):
            turn()
        assert len(session.conversation.snapshot()) == max_input // 6, "it is full"
        calls = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            for _ in range(10):
                turn()
        finally:
            sys.setprofile(None)
        return calls

    few, many = calls_of_a_turn(600), calls_of_a_turn(6000)
    assert many - few < 100, "ten turns compare contexts by halves, and that is all that grows"
