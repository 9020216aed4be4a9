"""Where the words of a spoken message stand in its sound, and how many of them were heard up to some moment.

Laws
----
1. A mark says: at this moment of the sound, so much of the text has been said. Marks never go back in either.
2. There are no more marks than characters of text; a mark costs 8 bytes.
3. Between two marks, as from the beginning to the first one, text goes by in proportion to the sound.
4. After the last mark it goes by as it did before; where there is no mark at all, at the pace of a common voice.
"""

from __future__ import annotations

import math
import unicodedata
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from vivavoce.audio.formats import TICKS_PER_MS

_LETTER_TICKS: Final = 65 * TICKS_PER_MS
"""A character of an alphabet, the spaces counted in."""
_SYLLABLE_TICKS: Final = 180 * TICKS_PER_MS
"""A character that is a syllable or a word: kana, Chinese characters."""
_MOST: Final = 2**32 - 1
"""What a mark can hold: two days of sound."""


class Mark(NamedTuple):
    tick: int
    """Of the message's sound, 1/24000 s from its beginning."""
    chars: int
    """Characters of the message's text that have been said by then."""


class Alignment(msgspec.Struct, eq=False, gc=False):
    """The marks of one message. It grows while the message is spoken, and is the same object all the time."""

    speed: float = 1.0
    """How much faster than usual the voice speaks."""
    packed: bytes = b""
    """The marks, each two numbers of 32 bits. An array would be larger than the few that most messages have."""

    @property
    def marks(self) -> list[Mark]:
        flat = array("I", self.packed)
        return [Mark(tick, chars) for tick, chars in zip(flat[::2], flat[1::2], strict=True)]

    def add(self, marks: Iterable[Mark]) -> None:
        """More marks. One that tells nothing new, or would go back, is left out."""
        last, more = self._last, array("I")
        for mark in marks:
            if mark.tick >= last.tick and last.chars < mark.chars <= _MOST and mark.tick <= _MOST:
                more.extend(mark)
                last = mark
        self.packed += more.tobytes()

    def heard(self, text: str, tick: int) -> str:
        """What of ``text`` was heard when the sound stopped at ``tick``: words of which at least half was.

        In writing without spaces between words, each character is one.
        """
        return _whole_words(text, self._said(text, tick)) if tick else ""

    @property
    def _last(self) -> Mark:
        return Mark(*array("I", self.packed[-8:])) if self.packed else Mark(0, 0)

    def _said(self, text: str, tick: int) -> float:
        """Characters, and the fraction of one, that were said by ``tick``."""
        marks = self.marks
        after = bisect_right(marks, tick, key=lambda mark: mark.tick)
        if after == len(marks):
            return self._beyond(text, tick)
        begin, end = marks[after - 1] if after else Mark(0, 0), marks[after]
        share = (tick - begin.tick) / (end.tick - begin.tick)
        return begin.chars + share * (end.chars - begin.chars)

    def _beyond(self, text: str, tick: int) -> float:
        last = self._last
        if last.tick and last.chars:
            return last.chars + (tick - last.tick) * last.chars / last.tick
        left = (tick - last.tick) * self.speed
        for at in range(last.chars, len(text)):
            needed = _SYLLABLE_TICKS if _stands_alone(text[at]) else _LETTER_TICKS
            if needed > left:
                return at + left / needed
            left -= needed
        return float(len(text))


def _whole_words(text: str, said: float) -> str:
    at = math.floor(said)
    if at >= len(text):
        return text
    begin, end = _word(text, at)
    # Half of a word counts as all of it: its end is often swallowed, and the ear fills it in.
    return text[: end if said >= (begin + end) / 2 else begin].rstrip()


def _word(text: str, at: int) -> tuple[int, int]:
    """The word, or the one character, or the white space that ``at`` lies in."""
    begin, end = at, at + 1
    while begin and _joined(text[begin - 1], text[begin]):
        begin -= 1
    while end < len(text) and _joined(text[end - 1], text[end]):
        end += 1
    return begin, end


def _joined(one: str, other: str) -> bool:
    """No word ends between two neighbours."""
    if one.isspace() or other.isspace():
        return one.isspace() and other.isspace()
    if unicodedata.category(other)[0] in "MP" or other == "\u200d":
        return True
    return not _stands_alone(one) and not _stands_alone(other)


def _stands_alone(char: str) -> bool:
    """Kana and Chinese characters, which are written without spaces between words."""
    return (
        "\u3040" <= char <= "\u30ff"
        or "\u3400" <= char <= "\u9fff"
        or "\uf900" <= char <= "\ufaff"
        or "\uff66" <= char <= "\uff9f"
        or "\U00020000" <= char <= "\U0003ffff"
    )
