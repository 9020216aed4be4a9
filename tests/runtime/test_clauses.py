from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.runtime.clauses import FIRST_CHARS, LATER_CHARS, MAX_CHARS, ClauseSplitter


def split(*texts: str) -> list[str]:
    """All clauses of a text that comes in these pieces."""
    splitter = ClauseSplitter()
    return [clause for text in texts for clause in splitter.feed(text)] + splitter.flush()


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("", []),
        ("  \n", []),
        ("Hello", ["Hello"]),
        ("Hello.", ["Hello."]),
        ("Hello. You there?", ["Hello.", " You there?"]),
        ("One. Two! Three?", ["One.", " Two!", " Three?"]),
        ("It costs 3.50 euros.", ["It costs 3.50 euros."]),
        ('He said "no." Then left.', ['He said "no."', " Then left."]),
        ("Wait... what?! Yes", ["Wait...", " what?!", " Yes"]),
        ("a\nb", ["a\n", "b"]),
        ("Hello.\n\nYou there. Yes", ["Hello.", "\n\nYou there.", " Yes"]),
        ("こんにちは。元気？はい", ["こんにちは。", "元気？", "はい"]),
        ("Well, I am here.", ["Well, I am here."]),
        ("To be honest, well, I am not sure.", ["To be honest, well,", " I am not sure."]),
        ("Half past ten, I think. Yes", ["Half past ten, I think.", " Yes"]),
        ("Half past eleven, I think. Yes", ["Half past eleven,", " I think.", " Yes"]),
        ("十七文字の長さがあるはずの文ですね、はい", ["十七文字の長さがあるはずの文ですね、", "はい"]),
    ],
)
def test_clauses(text: str, clauses: list[str]) -> None:
    assert split(text) == clauses


def test_a_full_stop_waits_for_what_follows() -> None:
    splitter = ClauseSplitter()
    assert splitter.feed("It is 3.") == []
    assert splitter.feed("14 now.") == []
    assert splitter.feed(" ") == ["It is 3.14 now."]


def test_later_clauses_are_longer() -> None:
    first = "x" * (FIRST_CHARS - 1) + ", "
    short = "y" * (LATER_CHARS - 3) + ", "
    assert split(first + short + "and so on") == [first[:-1], " " + short + "and so on"]
    longer = "y" * (LATER_CHARS - 2) + ", "
    assert split(first + longer + "and so on") == [first[:-1], " " + longer[:-1], " and so on"]


def test_text_without_marks_is_cut_at_a_space() -> None:
    text = "word " * 60
    clauses = split(text)
    assert clauses[0] == ("word " * 60)[: 47 * 5 + 4]
    assert "".join(clauses) == text
    assert all(len(clause) <= MAX_CHARS for clause in clauses)


def test_text_without_spaces_is_cut_anyway() -> None:
    assert [len(clause) for clause in split("x" * (2 * MAX_CHARS + 5))] == [MAX_CHARS, MAX_CHARS, 5]


def test_after_a_flush_a_text_begins_anew() -> None:
    splitter = ClauseSplitter()
    assert splitter.feed("One is here. ") == ["One is here."]
    assert splitter.flush() == []
    assert splitter.feed("To be honest, well, yes") == ["To be honest, well,"]
    assert splitter.flush() == [" yes"]


PROSE = st.text(st.sampled_from("ab .,!?;:\n\"'…。、é—1"), max_size=300)


@given(text=PROSE, cuts=st.lists(st.integers(0, 300), max_size=8))
def test_nothing_is_lost_or_made_up(text: str, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(bounds)]
    said = "".join(split(*pieces))
    assert text.startswith(said)
    assert text[len(said) :].strip() == ""


@given(text=PROSE)
def test_clauses_are_worth_saying(text: str) -> None:
    splitter = ClauseSplitter()
    clauses = splitter.feed(text) + splitter.flush()
    assert all(clause.strip() for clause in clauses)
    assert all(len(clause) <= MAX_CHARS for clause in clauses[:-1]) or any(
        mark in text for mark in ".,!?;:\n…。、—"
    )


@given(text=PROSE)
def test_what_waits_is_bounded(text: str) -> None:
    """However the text goes on, no more than one clause waits."""
    splitter = ClauseSplitter()
    given_out = sum(len(clause) for clause in splitter.feed(text))
    assert len(text) - given_out <= MAX_CHARS + 1 or not text[given_out:].strip()
