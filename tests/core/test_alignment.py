from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.core.alignment import Alignment, Mark


def aligned(*marks: tuple[int, int], speed: float = 1.0) -> Alignment:
    """Of (milliseconds, characters)."""
    made = Alignment(speed)
    made.add(Mark(ms * TICKS_PER_MS, chars) for ms, chars in marks)
    return made


def heard(text: str, ms: int, *marks: tuple[int, int], speed: float = 1.0) -> str:
    return aligned(*marks, speed=speed).heard(text, ms * TICKS_PER_MS)


@pytest.mark.parametrize(
    ("ms", "words"),
    [(0, ""), (149, ""), (150, "One"), (299, "One"), (300, "One"), (349, "One"), (600, "One two"), (999, "One two"),
     (1000, "One two three"), (1200, "One two three")],
)  # fmt: skip
def test_by_the_timing_of_words(ms: int, words: str) -> None:
    """One until 300 ms, two until 700, three until 1200; the pause before a word belongs to the one before."""
    assert heard("One two three", ms, (400, 4), (800, 8), (1200, 13)) == words


@pytest.mark.parametrize(
    ("text", "ms", "words"),
    [
        ("One two three four", 500, "One two"),
        ("One two three four", 1000, "One two three four"),
        ("Well, yes. I do!", 600, "Well, yes."),
        ("Es ist schön hier.", 700, "Es ist schön"),
        ("¿Dónde está? Aquí.", 640, "¿Dónde está?"),
        ("今日はいい天気ですね。", 500, "今日はいい天"),
        ("今日は。いい天気", 400, "今日は。"),
        ("你好，世界。", 400, "你好，"),
        ("我用 Python 写程序", 500, "我用 Python"),
        ("か\u3099き\u3099く\u3099", 200, "か\u3099"),
        ("Hi 👩‍👩‍👧 you", 600, "Hi 👩‍👩‍👧"),
        ("안녕 하세요", 400, "안녕"),
    ],
)
def test_by_proportion(text: str, ms: int, words: str) -> None:
    assert heard(text, ms, (1000, len(text))) == words


def test_an_unfinished_clause_goes_on_at_the_pace_of_those_before() -> None:
    text = "Hello there. This goes on and on and on."
    assert heard(text, 1000, (1000, 12)) == "Hello there."
    assert heard(text, 1400, (1000, 12)) == "Hello there. This"
    assert heard(text, 9000, (1000, 12)) == text


def test_without_any_mark_text_goes_by_at_the_pace_of_a_voice() -> None:
    assert heard("One two three four five", 65 * 8) == "One two"
    assert heard("One two three four five", 65 * 8, speed=1.5) == "One two three"
    assert heard("今日はいい天気ですね", 180 * 3) == "今日は"
    assert heard("Yes.", 65 * 4) == "Yes."


def test_marks_never_go_back() -> None:
    made = aligned((100, 4), (90, 9), (200, 4), (200, 3), (300, 8), (2**40, 9), (400, 2**40))
    assert made.marks == [(2400, 4), (7200, 8)]


def test_nothing_is_heard_before_the_sound_begins() -> None:
    """A mark there tells how much is never spoken: the sign of a heading."""
    assert heard("# Plan", 0, (0, 2), (500, 6)) == ""
    assert heard("# Plan", 300, (0, 2), (500, 6)) == "# Plan"


def test_two_marks_of_one_moment() -> None:
    """An engine that is late with the timing of a word."""
    assert heard("One two three", 300, (300, 4), (300, 8), (900, 13)) == "One two"


MARKS = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 60)), max_size=20)
TEXTS = st.text(st.sampled_from("ab c.,今日🙂\u0301\u200dか。"), max_size=60)


@given(text=TEXTS, marks=MARKS, ms=st.integers(0, 6000), more=st.integers(0, 2000))
def test_what_was_heard_is_a_beginning_and_grows(
    text: str, marks: list[tuple[int, int]], ms: int, more: int
) -> None:
    made = aligned(*marks)
    early, late = (made.heard(text, at * TICKS_PER_MS) for at in (ms, ms + more))
    assert text.startswith(early)
    assert late.startswith(early)
    assert len(made.marks) <= 60
    assert made.heard(late, ms * TICKS_PER_MS) == early
