"""Cutting a stream of words into clauses that can be spoken one after another.

Laws
----
1. The clauses of a text, one after another, are the text; only white space at its end may be missing.
2. A clause is given out with the first character that shows that it has ended; what waits is never longer than
   :data:`MAX_CHARS`. Where a full stop may belong to an abbreviation or an ordinal, the word after it decides.
3. The work is linear in the text, however it comes: a model may hand over its whole answer at once.
4. No character is cut that is written with several code points: a letter and its accents, a joined emoji.

It knows the habits of English, German, Spanish, Japanese and Chinese, all at once: nobody says which of them comes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

FIRST_CHARS: Final = 16
"""A first clause this long may end at a comma, so that speech starts early. A wide character, as of Japanese and
Chinese, counts as two here and in :data:`LATER_CHARS`."""
LATER_CHARS: Final = 48
"""Later clauses end at a comma only when they are this long: fewer seams sound better."""
MAX_CHARS: Final = 240
"""A clause ends at a space when it is this long, if it has not ended before."""

_WINDOW: Final = MAX_CHARS + 2
"""Ends are looked for no further."""
_CJK: Final = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_CLOSING: Final = r"[\"'”’“‘»›)\]}*_`~]*+"
"""Quotes, brackets and emphasis that belong to the mark before them. Germans close with “."""
_CLOSING_WIDE: Final = r"[\"'”’)\]」』）】》〉*_`~]*+"
"""The same where no space tells that a sentence has ended."""
_SENTENCE_END: Final = re.compile(
    rf"(?P<stop>(?<![.!?…])\.{_CLOSING}(?=\s))"
    rf"|[.!?…]++{_CLOSING}(?=\s)"
    rf"|[。！？｡!?]*[。！？｡][。！？｡!?]*+{_CLOSING_WIDE}"
    rf"|．{_CLOSING_WIDE}(?=\D)"
    rf"|(?<=[{_CJK}])[.!?]++{_CLOSING_WIDE}(?=[{_CJK}])"
    r"|\n++"
)
_CLAUSE_END: Final = re.compile(
    rf"[,;:–—]{_CLOSING}(?=\s)"
    rf"|(?<!\d)[、；：，､]{_CLOSING_WIDE}"
    rf"|(?<=\d)[、；：，､]{_CLOSING_WIDE}(?=\D)"
    rf"|(?<=[{_CJK}])[,;](?=[{_CJK}])"
    r"|……|——"
)
_MARK: Final = re.compile(r"[.!?…。！？｡．\n,;:–—、；：，､]")
"""What whatever ends a sentence or a clause begins with."""
_WIDE: Final = re.compile(rf"[{_CJK}\u3000-\u303f\uac00-\ud7a3\uff01-\uff60\U00020000-\U0003ffff]")
_WORD_BEFORE: Final = re.compile(r"(?:(?<=[\s(\[{\"'„“‚‘«‹¿¡*_/–—])|\A)([^\s(\[{\"'„“‚‘«‹¿¡*_/–—]+)\Z")
_NEXT_WORD: Final = re.compile(r"[^\W\d_]+")
_ROMAN: Final = re.compile(r"[IVXLC]{2,}")
_LONGEST_WORD: Final = 24
"""Of those before a full stop, as far as they matter here."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER_LAST: Final = _words(
    "mr mrs ms mx dr prof rev hon capt lt sgt gen col gov sen rep st mt vs cf viz approx dept est eg ie "
    "hr fr frl bzw ca vgl inkl exkl evtl ggf sog geb gest verh zzgl abzgl einschl bspw max min mind ehem jew "
    "sr sra srta dra ud uds vd vds dña lic ing ej ee aprox atte excmo "
    "e.g i.e z.b d.h u.a o.ä v.a i.d.r u.u s.o s.u p.ej"
)
"""Abbreviations after which a sentence goes on, without the last full stop, in small letters."""
_MAY_BE_LAST: Final = _words(
    "etc usw usf uvm inc ltd co corp jr bros uu ss am pm al str tel mio mrd tsd jh n.chr v.chr a.c d.c"
)
"""Those with which it may end: a capital letter tells."""
_BEFORE_NUMBERS: Final = _words(
    "no nos nr nrn num núm fig figs vol vols ch sec eq pp pg pag pág págs art arts abs kap cap bd abb tab anm ziff "
    "jan feb mar apr jun jul aug sep sept oct okt nov dec dez ene abr ago dic ext ver"
)
"""Words that are abbreviations before a number, and mostly nothing but words before anything else."""
_BEFORE_ORDINALS: Final = _words(
    "am der die das dem den des vom zum zur im ins beim bis ab seit ihr ihre ihren ihrem sein seine seinen seinem "
    "mein meine meinen meinem dein deine deinen deinem unser unsere unseren unserem jeder jede jedes jeden jedem "
    "montag dienstag mittwoch donnerstag freitag samstag sonnabend sonntag montag, dienstag, mittwoch, donnerstag, "
    "freitag, samstag, sonnabend, sonntag,"
)
"""German words after which ``3.`` is an ordinal."""
_AFTER_ORDINALS: Final = _words(
    "januar jänner februar märz april mai juni juli august september oktober november dezember jahrhundert "
    "jahrhunderts jahrtausend weltkrieg klasse etage stock platz lebensjahr geburtstag bundesliga auflage kapitel"
)
"""And words before which it is."""


class ClauseSplitter:
    """Feed text as it comes; get back whole clauses. Their concatenation, with the rest, is the text."""

    def __init__(self) -> None:
        self._text = ""
        self._made = 0

    def feed(self, text: str) -> list[str]:
        """More text -> the clauses that are complete now."""
        self._text += text
        clauses = []
        begin = 0
        while (end := self._end(begin)) is not None:
            clauses.append(self._text[begin:end])
            begin = end
            self._made += 1
        if begin:
            self._text = self._text[begin:]
        return clauses

    def flush(self) -> list[str]:
        """The text is over: what is left, if it is anything, is the last clause."""
        rest, self._text, self._made = self._text, "", 0
        return [rest] if rest.strip() else []

    def _end(self, begin: int) -> int | None:
        """Where the clause that begins there ends; None when that is not known yet."""
        limit = begin + _WINDOW
        sentence = self._sentence_end(begin, limit)
        clause = self._clause_end(begin, limit if sentence is None else sentence)
        if clause is not None:
            return self._beyond_joined(begin, clause)
        if sentence is not None:
            return self._beyond_joined(begin, sentence)
        if len(self._text) - begin <= MAX_CHARS:
            return None
        space = self._text.rfind(" ", begin + 1, begin + MAX_CHARS)
        return space if space > 0 else self._before_joined(begin, begin + MAX_CHARS)

    def _sentence_end(self, begin: int, limit: int) -> int | None:
        for mark in _found(_SENTENCE_END, self._text, begin, limit):
            if self._text[begin : mark.end()].isspace():
                continue
            if mark["stop"] is None or self._is_full_stop(begin, mark.start(), mark.end()):
                return mark.end()
        return None

    def _clause_end(self, begin: int, limit: int) -> int | None:
        enough = LATER_CHARS if self._made else FIRST_CHARS
        width, at = 0, begin
        for mark in _found(_CLAUSE_END, self._text, begin, limit):
            width += mark.end() - at + len(_WIDE.findall(self._text, at, mark.end()))
            at = mark.end()
            if width >= enough and at < limit:
                return at
        return None

    def _is_full_stop(self, begin: int, dot: int, end: int) -> bool:
        """The full stop ends a sentence, and not an abbreviation or an ordinal; False too while nobody can tell."""
        found = _WORD_BEFORE.search(self._text[max(begin, dot - _LONGEST_WORD) : dot])
        if found is None:
            return True
        word = found[1].lower()
        if word in _NEVER_LAST:
            return False
        if len(word) == 1 and word.upper() != word and found[1] != "I":
            return False
        if word.isdecimal() and len(word) <= 2:
            return self._ends_with_number(begin, dot - len(word), end)
        dotted = "." in word and all(0 < len(part) <= 2 for part in word.split("."))
        if dotted or word in _MAY_BE_LAST or _ROMAN.fullmatch(found[1]):
            following = self._next_char(end)
            return following is not None and following.isupper()
        if word in _BEFORE_NUMBERS:
            following = self._next_char(end)
            return following is not None and not following.isdecimal()
        return True

    def _ends_with_number(self, begin: int, number: int, end: int) -> bool:
        before = self._text[begin:number].rpartition("\n")[2].split()
        if not before or before[-1].lower() in _BEFORE_ORDINALS:
            # At the beginning of a line it counts the points of a list.
            return False
        following = self._next_char(end)
        if following is None or following.islower():
            return False
        place = self._text.index(following, end)
        word = _NEXT_WORD.match(self._text, place)
        if word is None:
            return True
        return word.end() < len(self._text) and word[0].lower() not in _AFTER_ORDINALS

    def _next_char(self, at: int) -> str | None:
        """The first one that is no white space; None when it has not come yet."""
        rest = self._text[at : at + _WINDOW].lstrip()
        return rest[0] if rest else None

    def _beyond_joined(self, begin: int, end: int) -> int:
        while end < len(self._text) and _joins(self._text, begin, end):
            end += 1
        return end

    def _before_joined(self, begin: int, end: int) -> int:
        at = end
        while at > begin and _joins(self._text, begin, at):
            at -= 1
        return at if at > begin else end


def _found(ends: re.Pattern[str], text: str, begin: int, limit: int) -> Iterator[re.Match[str]]:
    """As ``ends.finditer``, which would try all of the pattern at each character."""
    while (mark := _MARK.search(text, begin, limit)) is not None:
        found = ends.match(text, mark.start(), limit)
        begin = mark.end() if found is None else found.end()
        if found is not None:
            yield found


def _joins(text: str, begin: int, at: int) -> bool:
    """The characters before and after ``at`` make one (roughly the extended grapheme clusters of Unicode).
    ``begin``: of the clause, so that none goes beyond it."""
    one, other = text[at - 1], text[at]
    if one == "\u200d" or other == "\u200d" or unicodedata.category(other)[0] == "M":
        return True
    if "\U0001f3fb" <= other <= "\U0001f3ff" or "\U000e0020" <= other <= "\U000e007f":
        return True
    if "\ud800" <= one <= "\udbff" and "\udc00" <= other <= "\udfff":
        return True
    if _is_flag(one) and _is_flag(other):
        first = at
        while first > begin and _is_flag(text[first - 1]):
            first -= 1
        return (at - first) % 2 == 1
    return (one, other) == ("\r", "\n")


def _is_flag(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"
