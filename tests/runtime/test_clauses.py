from __future__ import annotations

from itertools import pairwise
from typing import SupportsIndex

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


LANGUAGES = {
    "English": [
        ["Dr. Smith met Mr. Jones at 3 p.m. on Monday.", " They left."],
        ["We met at 3 p.m.", " Then we left."],
        ["I like fruit, e.g. apples and pears.", " Do you?"],
        ["It was written by J. R. R. Tolkien in 1937.", " Good book."],
        ["So did I.", " Then we left."],
        ["See No. 5 and Fig. 2 for that.", " No.", " I will not."],
        ["The value is 3.14.", " Next is 1,000.5.", " Done."],
        ["Visit https://example.com/a.b?c=1,2.", " Then call me."],
        ["Mail me@example.co.uk now.", " Thanks."],
        ["I have 3.", " You have 4.", " Fine."],
        ["Henry VIII. was a king.", " He had six wives."],
        ["**Yes.**", " That is right."],
        ["It is 10:30 now.", " Run!"],
        ["U.S. troops left.", " In the U.S.", " Many people say so."],
        ["Steps:\n", "1. Do this\n", "2. Do that"],
        ["- Tea, e.g. green.", "\n- Milk\n", "That is all."],
    ],
    "German": [
        ["Am 3. Mai kommt z. B. Herr Dr. Müller,", " d. h. um 10.30 Uhr.", " Schön!"],
        ["Der 2. Weltkrieg endete 1945.", " Danach kam Frieden."],
        ["Es kostet 1.000,50 Euro.", " Das ist ca. 10 % mehr.", " Gut."],
        ["Heute ist Montag,", " 3. Oktober.", " Wir haben frei."],
        ["Ludwig XIV. war König.", " Er starb."],
        ["Er sagte: „Nein.“", " Dann ging er."],
        ["Das sind Äpfel, Birnen usw.", " Danach gibt es Kaffee."],
        ["Das sind Äpfel, Birnen usw. und Kaffee.", " Gut."],
        ["Wir treffen uns um 3.", " Dann gehen wir."],
        ["Im 19. Jahrhundert war das so.", " Heute nicht."],
        ["Siehe Abs. 3 und Nr. 7.", " Danke."],
    ],
    "Spanish": [
        ["Hola, ¿cómo estás?", " ¡Muy bien!", " Gracias."],
        ["El Sr. García y la Sra. López viven en EE. UU. desde 1990.", " Son felices."],
        ["La pág. 5 dice que p. ej. el 3,5 % falta.", " Vale."],
        ["¿Ud. viene?", " ¡Sí!"],
        ["Cuesta 1.000,50 € al mes.", " Es caro."],
    ],
    "Japanese": [
        ["「はい。」", "と言った。", "そうですか？", "いいえ！！", "終わり"],
        ["今日は晴れです、", "明日は雨でしょう。", "気温は３．５度です．", "次"],
        ["すごい！？", "（本当に。）", "はい"],
    ],
    "Chinese": [
        ["你好！", "我今年３．５岁了，你呢？", "“好的。”", "他说：“走吧。”"],
        ["价格是１，０００元，", "不算贵，对吧？", "好吧"],
        ["他说得很慢很慢……", "好吧"],
        ["你好.", "世界,再见"],
        ["《红楼梦》。", "下一本"],
    ],
}


@pytest.mark.parametrize("clauses", [c for table in LANGUAGES.values() for c in table], ids=lambda c: c[0])
def test_real_sentences(clauses: list[str]) -> None:
    assert split("".join(clauses)) == clauses


@pytest.mark.parametrize("clauses", [c for name in ("English", "German", "Spanish") for c in LANGUAGES[name]])
def test_it_does_not_matter_how_words_come(clauses: list[str]) -> None:
    assert split(*"".join(clauses)) == clauses


@pytest.mark.parametrize(
    ("begin", "clause"),
    [("Hello there.", " "), ("Am 3.", " Mai "), ("I have 3.", " You "), ("Meet at 3 p.m.", " T"), ("はい", "。")],
)
def test_no_more_is_awaited_than_is_needed(begin: str, clause: str) -> None:
    splitter = ClauseSplitter()
    before = [done for char in begin + clause[:-1] for done in splitter.feed(char)]
    assert before == []
    assert bool(splitter.feed(clause[-1])) is (begin != "Am 3.")


@pytest.mark.parametrize("joined", ["👩\u200d👩\u200d👧\u200d👦", "e\u0301\u0323\u0308", "👍🏽", "🇩🇪", "❤\ufe0f"])
def test_what_is_one_character_is_not_cut(joined: str) -> None:
    for before in range(MAX_CHARS - len(joined), MAX_CHARS + 1):
        first = split("x" * before + joined + "y" * 10)[0]
        assert first.endswith(("x", joined))
        assert len(first) <= MAX_CHARS


def test_flags_are_cut_between_flags() -> None:
    assert {len(clause) % 2 for clause in split("🇩🇪" * 400)} == {0}
    assert {len(clause) % 2 for clause in split("x" + "🇩🇪" * 400)[1:]} == {0}


@pytest.mark.parametrize("sentence", ["Dr. No is here, well. ", "🇩🇪" * 11])
def test_the_work_is_linear(sentence: str) -> None:
    """Counted by what is copied: the clauses of a text that comes at once are cut from where it stands."""

    class Watched(str):
        copied = 0

        def __getitem__(self, key: SupportsIndex | slice) -> Watched:
            part = Watched(super().__getitem__(key))
            Watched.copied += len(part)
            return part

        def __add__(self, other: str) -> Watched:
            return Watched(super().__add__(other))

    def copied(sentences: int) -> int:
        Watched.copied = 0
        splitter = ClauseSplitter()
        splitter._text = Watched("")
        splitter.feed(Watched(sentence * sentences))
        return Watched.copied

    assert 0 < copied(200) <= copied(100) * 2.2


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


PROSE = st.text(st.sampled_from("abI .,!?;:\n\"'…。、，．é—1👩\u200d\u0301🇩🇪*“"), max_size=300)


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
