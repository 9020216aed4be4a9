from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.runtime.clauses import ClauseSplitter
from vivavoce.runtime.numerals import speller
from vivavoce.runtime.speakable import Speakable


def said(text: str, *, in_words: bool = False) -> list[str]:
    """What is spoken of a message, clause by clause."""
    splitter, speakable = ClauseSplitter(), Speakable(speller if in_words else None)
    clauses = splitter.feed(text) + splitter.flush()
    return [words for clause in clauses if (words := speakable.speak(clause).text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Plain words stay.", ["Plain words stay."]),
        ("# The *big* plan\nIt is.", ["The big plan", "It is."]),
        ("It is **very bold, and this** too.", ["It is very bold,", "and this too."]),
        ("This clause is **bold here, and** not there.", ["This clause is bold here,", "and not there."]),
        ("Use `make test` and ``x``, ~~not~~ yes.", ["Use make test and x,", "not yes."]),
        ("_This_ and __that__, snake_case.", ["This and that,", "snake case."]),
        ("2*3 is 6.", ["2 × 3 is 6."]),
        (r"\*stars\*", ["stars"]),
        ("- One\n* Two\n+ [x] Three\n  - Four\n1. Five", ["One", "Two", "Three", "Four", "1. Five"]),
        ("> Quoted. More\n> words", ["Quoted.", "More", "words"]),
        ("One\n\n---\n\nTwo", ["One", "Two"]),
        ("Title\n=====\nText", ["Title", "Text"]),
        ("So:\n```python\nprint('x'). y, = 1\n\n# no\n```\nDone.", ["So:", "Done."]),
        ("So:\n~~~\ncode\n~~~\nDone.", ["So:", "Done."]),
        ("```\nnever closed. Nothing", []),
        ("| Day | Sky |\n|---|:-:|\n| Mon | blue, mostly |\n", ["Day, Sky", "Mon, blue, mostly"]),
        ("See [the docs](https://example.com/a_b?c=(1)).", ["See the docs."]),
        ("See [these docs here, please](http://a.b/c) now.", ["See these docs here,", "please now."]),
        ("![A cat](cat.png) sleeps", ["A cat sleeps"]),
        ("A fact.[^1] Or [this][ref] one.", ["A fact. Or this one."]),
        ("Go to https://www.example.com/news?x=1. Now!", ["Go to example.com.", "Now!"]),
        ("<https://example.com>, www.example.org/x", ["example.com,", "example.org"]),
        ("请看https://example.cn/新闻，谢谢", ["请看example.cn，", "谢谢"]),
        ("Mail the office at a.b@c.de now.", ["Mail the office at a.b at c.de now."]),
        ("Schreib mir doch und auch an a@b.de.", ["Schreib mir doch und auch an a ät b.de."]),
        ("Escribe al correo de la casa: a@b.es.", ["Escribe al correo de la casa:", "a arroba b.es."]),
        ("Nice day 🙂", ["Nice day"]),
        ("A 👩‍👩‍👧 and 👍🏽, a ❤️, a 🇩🇪.", ["A and , a ,", "a ."]),
        ("Press 1️⃣ now", ["Press 1  now"]),
        ("😀😀", []),
        ("...", []),
        ("Line<br>two <b>bold</b> 5 < 6 > 4, C#", ["Line two bold 5 < 6 > 4,", "C#"]),
        ("Tea -> cup → mouth", ["Tea, cup, mouth"]),
        ("今日は**晴れ**です。😀", ["今日は晴れです。"]),
    ],
)
def test_what_is_spoken(text: str, words: list[str]) -> None:
    assert [" ".join(clause.split()) for clause in said(text)] == [" ".join(clause.split()) for clause in words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It is 3 **and** 10% of it.", "It is three and ten percent of it."),
        ("Es sind 3 und 10 % der Leute.", "Es sind drei und zehn Prozent der Leute."),
        ("Son 3 y el 10 % de los días.", "Son tres y el diez por ciento de los días."),
        ("今日は3度です。", "今日は三度です。"),
        ("今天3度。", "今天三度。"),
    ],
)
def test_numbers_follow_the_language_of_the_message(text: str, words: str) -> None:
    assert said(text, in_words=True) == [words]


def test_words_are_found_in_the_text_that_was_written() -> None:
    clause = "See **the docs** at [my site](http://a.b) for 25 %."
    spoken = Speakable(speller).speak(clause)
    assert spoken.text == "See the docs at my site for twenty-five percent."
    for word, written in [
        ("See", "See"),
        ("the", "the"),
        ("docs", "docs"),
        ("my", "my"),
        ("for", "for"),
        ("twenty", "25"),
    ]:
        assert clause.startswith(written, spoken.origin(spoken.text.index(word)))
    assert clause.index("25 %") < spoken.origin(spoken.text.index("percent")) < len(clause) - 1
    assert spoken.origin(len(spoken.text)) == len(clause)


def test_a_message_begins_anew() -> None:
    assert Speakable().speak("# One\n").text == "One"
    speakable = Speakable()
    speakable.speak("Not at the beginning of a line ")
    assert speakable.speak("# stays").text == "# stays"


MARKUP = st.text(st.sampled_from("ab1 .,\n#*_`~|->[]()!\\<:/@😀🇩\u200d\ufe0f今が3€%"), max_size=120)


@given(text=MARKUP, in_words=st.booleans())
def test_places_never_go_back(text: str, in_words: bool) -> None:
    splitter, speakable = ClauseSplitter(), Speakable(speller if in_words else None)
    for clause in splitter.feed(text) + splitter.flush():
        spoken = speakable.speak(clause)
        places = [spoken.origin(at) for at in range(len(spoken.text) + 1)]
        assert places == sorted(places)
        assert all(0 <= place <= len(clause) for place in places)
        assert spoken.text == spoken.text.strip()
        assert not spoken.text or any(char.isalnum() for char in spoken.text)
        assert "**" not in spoken.text.replace(" ", "") or "* *" in clause or "\\" in clause


@given(text=st.text(st.sampled_from("ab c, .?é今\n"), max_size=120))
def test_plain_text_is_left_alone(text: str) -> None:
    splitter, speakable = ClauseSplitter(), Speakable()
    for clause in splitter.feed(text) + splitter.flush():
        assert speakable.speak(clause).text == (clause.strip() if any(map(str.isalnum, clause)) else "")
