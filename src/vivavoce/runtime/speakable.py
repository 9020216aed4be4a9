"""From what a model writes to what a voice should say.

Models are asked to talk and write all the same: headings, lists, bold words, tables, links, code, emoji. Read aloud
as it stands that is noise. What is spoken is the words of it, and each piece of them knows where it stands in the
text, so that the timing of spoken words is one of written words too.

Laws
----
1. It is given the clauses of one message after another, and remembers of them what is still open: a block of
   code, the place in a line. No clause is looked at twice, and the work is linear in it.
2. Spoken text is the clause with some stretches left out or put in other words; :class:`Spoken` maps it back.
3. A clause without a letter or digit to say gives an empty text.
4. Numbers are left to the engine, which knows the language of its voice, unless it says that it cannot read them
   (``SynthesizerCapabilities.reads_numbers``): :mod:`vivavoce.runtime.numerals` then spells them out.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

Speller: TypeAlias = Callable[[str], list[tuple[int, int, str]]]
"""Text -> stretches of it (begin, end) in order, and what to say for each."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """A stretch of spoken text, and the stretch of the clause that it stands for."""

    begin: int
    length: int
    origin: int
    origin_length: int


@dataclass(frozen=True, slots=True)
class Spoken:
    """What to say for a clause."""

    text: str
    """Empty when there is nothing to say."""
    pieces: tuple[_Piece, ...] = ()

    def origin(self, offset: int) -> int:
        """Where in the clause the character of the spoken text comes from, in proportion within a stretch that was
        put in other words."""
        at = bisect_right(self.pieces, offset, key=lambda piece: piece.begin) - 1
        if at < 0:
            return 0
        piece = self.pieces[at]
        into = min(max(offset - piece.begin, 0), piece.length)
        return piece.origin + into * piece.origin_length // max(1, piece.length)


_FENCE: Final = re.compile(r"[ \t]*(?:`{3,}|~{3,})")
_LINE: Final = re.compile(r"[^\n]*\n?")
_LINE_BEGIN: Final = re.compile(
    r"(?P<rule>[ \t]*(?:(?:[-*_=][ \t]*){3,}|\|?[ \t]*:?-{2,}[-:| \t]*)(?=\n|\Z))"
    r"|(?:[ \t]*(?:#{1,6}[ \t]+|>[ \t]?)+)?(?:[ \t]*[-*+•][ \t]+(?:\[[ xX]\][ \t]+)?)?(?:[ \t]*\|[ \t]*)?"
)
_EMOJI: Final = (
    r"[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u231a\u231b\u23e9-\u23fa\u25aa-\u25fe\U000e0020-\U000e007f]"
)
_INLINE: Final = re.compile(
    r"(?P<image>!(?=\[))"
    r"|(?P<link>\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s+\"[^\"]*\")?\)|\]\[[^\]\n]*\])"
    r"|(?P<footnote>\[\^[\w-]+\])"
    r"|(?P<url><?(?:https?://|www\.)[^\s<>\"'`|（）「」『』【】《》，。！？；：、]*[^\s<>\"'`|（）「」『』【】《》，。！？；：、.,;:!?)\]*_~]>?)"
    r"|(?P<mail>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)"
    r"|(?P<tag></?(?!https?:)[A-Za-z][^<>\n]{0,200}>)"
    r"|(?P<escape>\\(?=[\\`*_{}\[\]()#+.!|<>~-]))"
    rf"|(?P<emoji>(?:{_EMOJI}[\ufe0e\ufe0f\u200d\U0001f3fb-\U0001f3ff]*)+|[\ufe0e\ufe0f\u20e3\u200d])"
    r"|(?P<times>(?<=\d)[ \t]?[*](?=[ \t]?\d)|(?<=\s)\*+(?=\s))"
    r"|(?P<emphasis>\*+|`+|~~|(?<![^\W_])_+(?=[^\s_])|(?<=[^\s_])_+(?![^\W_]))"
    r"|(?P<joint>(?<=\w)_+(?=\w))"
    r"|(?P<arrow>[ \t]*(?:[←-⇿]|[-=]+>|<[-=]+)[ \t]*)"
    r"|(?P<cells>[ \t]*\|[ \t]*(?=\S))"
    r"|(?P<bar>[ \t]*\|[ \t]*)"
    r"|(?P<bracket>[\[\]\\])"
)
_HOST: Final = re.compile(r"<?(?:https?://)?(?:www\.)?(?:[^/@\s]*@)?([^/:?#\s>]+)")
_AT: Final = {"de": " ät ", "es": " arroba ", "ja": "アットマーク", "zh": "艾特"}
_KANA: Final = re.compile(r"[\u3040-\u30ff]")
_HAN: Final = re.compile(r"[\u3400-\u9fff]")
_FAMILIAR: Final = {
    "de": "der die das und ist nicht ich sie wir mit ein eine zu auf für von den es im bei auch doch mir "
    "dir was wie ihr man aber oder wenn wird hat haben sind in an so hier ja nein danke bitte",
    "es": "el la los las y es no que de en un una por con para se lo su del está a al como más pero muy mi tu "
    "hay son aquí sí gracias hola",
    "en": "the and is not you we with a an to of in for on it i at that this are he she they do have here "
    "yes no so my your thanks please hello was",
}
_LANGUAGE_OF: Final = {
    word: language
    for language, words in _FAMILIAR.items()
    for word in words.split()
    if sum(word in others.split() for others in _FAMILIAR.values()) == 1
}
_WORDS: Final = re.compile(r"[^\W\d_]+")


class Language:
    """Guesses the language of a message from what has been said of it: ``en``, ``de``, ``es``, ``ja`` or ``zh``."""

    def __init__(self) -> None:
        self._seen = {"en": 0, "de": 0, "es": 0}
        self._kana = False

    def hear(self, clause: str) -> str:
        """One more clause -> the language that it is in, most likely."""
        if _KANA.search(clause):
            self._kana = True
            return "ja"
        if _HAN.search(clause):
            return "ja" if self._kana else "zh"
        for word in _WORDS.findall(clause.lower()):
            if (language := _LANGUAGE_OF.get(word)) is not None:
                self._seen[language] += 1
        return max(self._seen, key=lambda language: self._seen[language])


class Speakable:
    """The clauses of one message, one after another -> what to say for each."""

    def __init__(self, spell: Callable[[str], Speller] | None = None) -> None:
        """``spell``: language -> what spells the numbers of a text out; None leaves them to the engine."""
        self._spell = spell
        self._language = Language()
        self._in_code = False
        self._line_begins = True

    def speak(self, clause: str) -> Spoken:
        """The next clause of the message."""
        language = self._language.hear(clause)
        out = _Writer(clause, None if self._spell is None else self._spell(language))
        for line in _LINE.finditer(clause):
            if line[0]:
                self._speak_line(out, line.start(), line.end(), language)
        return out.spoken()

    def _speak_line(self, out: _Writer, begin: int, end: int, language: str) -> None:
        """One line, or the part of it that the clause has."""
        begins, self._line_begins = self._line_begins, out.clause[end - 1] == "\n"
        if begins and not out.clause[begin:end].strip():
            out.copy(begin, end)
            return
        if begins and _FENCE.match(out.clause, begin, end):
            self._in_code = not self._in_code
            return
        if self._in_code:
            return
        if begins:
            mark = _LINE_BEGIN.match(out.clause, begin, end)
            assert mark is not None
            if mark["rule"] is not None:
                return
            begin = mark.end()
        for found in _INLINE.finditer(out.clause, begin, end):
            out.copy(begin, found.start())
            words = _in_words(found, language)
            if words:
                out.say(words, found.start(), found.end())
            begin = found.end()
        out.copy(begin, end)


def _in_words(found: re.Match[str], language: str) -> str:
    match found.lastgroup:
        case "url":
            host = _HOST.match(found[0])
            return host[1] if host is not None else ""
        case "mail":
            return found[0].replace("@", _AT.get(language, " at "))
        case "times":
            return " × " if found[0].strip() == "*" and found.string[found.start() - 1].isdigit() else " "
        case "arrow" | "cells":
            return ", "
        case "joint" | "tag" | "emoji":
            return " "
        case _:
            return ""


class _Writer:
    """Collects what is said of a clause, and from where."""

    def __init__(self, clause: str, spell: Speller | None) -> None:
        self.clause = clause
        self._spell = spell
        self._texts: list[str] = []
        self._length = 0
        self._pieces: list[_Piece] = []

    def copy(self, begin: int, end: int) -> None:
        """Say this stretch of the clause as it stands, or its numbers in words."""
        at = begin
        for first, last, words in () if self._spell is None else self._spell(self.clause[begin:end]):
            self._put(self.clause[at : begin + first], at, begin + first)
            self._put(words, begin + first, begin + last)
            at = begin + last
        self._put(self.clause[at:end], at, end)

    def say(self, words: str, begin: int, end: int) -> None:
        """Say ``words`` for this stretch of the clause."""
        if self._length and self._texts[-1][-1:].isspace():
            words = words.lstrip()
        self._put(words, begin, end)

    def spoken(self) -> Spoken:
        text = "".join(self._texts)
        if not any(char.isalnum() for char in text):
            return Spoken("")
        head = len(text) - len(text.lstrip())
        pieces = tuple(_Piece(p.begin - head, p.length, p.origin, p.origin_length) for p in self._pieces)
        return Spoken(text.strip(), pieces)

    def _put(self, text: str, begin: int, end: int) -> None:
        if text:
            self._texts.append(text)
            self._pieces.append(_Piece(self._length, len(text), begin, end - begin))
            self._length += len(text)
