"""What a sentence offers to somebody who must fill in a form with it: its words, numbers and names.

Pure functions of the text, for English. The order of everything here is documented in
docs/reference/scripted-model.md, because the arguments of the scripted model's calls follow from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

STOP_WORDS = frozenset(
    re.findall(
        r"\S+",
        """
        a an the this that these those some any each every all both no not nor and or but so if then than as
        i you he she it we they me him her us them my your his its our their mine yours myself yourself
        am is are was were be been being do does did done have has had can could will would shall should may
        might must what which who whom whose when where why how
        in at on for to from of off by with about into onto over under up down out near between as per via
        named called please thanks thank hello hi hey ok okay yes just now also too very really there here
        get set find show give tell ask know want need like let make take put go see hear check call send say
        look play turn start stop open close add use run help try look search
        i'm i'd i'll i've you're it's that's what's who's where's how's let's don't doesn't didn't can't won't isn't
        """,
    )
)
"""Words that say nothing by themselves; never a name or a value."""

MARKERS = frozenset({"in", "at", "for", "to", "about", "named", "called", "is"})
"""Words after which the useful word comes: "in Berlin", "named Ada"."""

_ARTICLES = frozenset({"a", "an", "the", "my", "your", "our"})
_ASKING = frozenset({"what", "which", "who", "whom", "where", "when", "why", "how", "it", "this", "that", "there"})
_NEGATIVE = frozenset(
    {"no", "not", "off", "false", "never", "without", "disable", "disabled", "don't", "dont", "stop"}
)

_EDGES = " \t\r\n.,;:!?…\"'“”‘’«»()[]{}<>*`"
_WORD = re.compile(r"[^\W_]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|«([^»]+)»|‘([^’]+)’(?!\w)|(?<!\w)'([^']+)'(?!\w)")
_DIGITS = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?![\d])")
_NUMBER_TOKEN = re.compile(r"[$€£#+-]?\d[\d.,:/-]*(?:%|°?[^\W\d_]{1,2})?")

_MOST_DIGITS = 18
_MOST_CHARACTERS = 4000

FORMATS: dict[str, re.Pattern[str]] = {
    "date": re.compile(r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])"),
    "time": re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"),
    "date-time": re.compile(
        r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])"
        r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
    ),
    "email": re.compile(r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"),
    "uuid": re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "uri": re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>\"{}|\\^`]+"),
}
"""Formats that are known, by a form that is a little narrower than the standard's (days 29 to 31 are left out)."""

_SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_ROUND = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = {word: value for value, word in enumerate(_SMALL)}
_TENS = {word: 20 + 10 * place for place, word in enumerate(_ROUND)}


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text or of an identifier, in lower case: split at everything that is neither letter nor
    digit, and inside camelCase."""
    return tuple(word.casefold() for word in _WORD.findall(_CAMEL.sub(" ", text)))


@dataclass(frozen=True, slots=True)
class _Token:
    word: str
    first: bool
    """True at the start of a sentence."""
    last: bool
    """True when punctuation follows."""

    @property
    def key(self) -> str:
        return self.word.casefold().replace("’", "'")

    @property
    def capital(self) -> bool:
        return self.word[0].isupper() and self.key not in STOP_WORDS

    @property
    def number(self) -> bool:
        return _NUMBER_TOKEN.fullmatch(self.word) is not None or all(
            part in _UNITS or part in _TENS or part in ("hundred", "thousand") for part in self.key.split("-")
        )

    @property
    def content(self) -> bool:
        return self.key not in STOP_WORDS and not self.number


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    first = True
    for raw in text.split():
        word = re.sub(r"['’]s$", "", raw.strip(_EDGES))
        tail = raw[len(raw.rstrip(_EDGES)) :]
        if word:
            tokens.append(_Token(word, first, bool(tail)))
            first = False
        if any(mark in tail for mark in ".!?…"):
            first = True
    return tokens


class Hints:
    """What the first 4000 characters of one text offer. The properties are computed when first asked for."""

    def __init__(self, text: str) -> None:
        self._text = text[:_MOST_CHARACTERS]
        self._words = split_words(self._text)
        self._line = f" {' '.join(self._words)} "

    @cached_property
    def _tokens(self) -> list[_Token]:
        return _tokens(self._text)

    @cached_property
    def numbers(self) -> tuple[int | float, ...]:
        """Numbers in order of appearance: digits (``1,000``, ``21.5``, ``-3``) and English number words up to
        the thousands (``twenty-five``, ``two hundred and six``)."""
        found: list[int | float] = []
        words: list[str] = []
        for token in self._tokens:
            parts = token.key.split("-")
            if all(part in _UNITS or part in _TENS or part in ("hundred", "thousand", "and") for part in parts):
                words += parts
                if not token.last:
                    continue
            found += _spelled(words)
            words = []
            if not any(form.fullmatch(token.word) for form in FORMATS.values()):
                found += [_number(digits) for digits in _DIGITS.findall(token.word) if len(digits) <= _MOST_DIGITS]
        return (*found, *_spelled(words))

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """Values for text fields, most useful first, each once: quoted words; runs of capitalised words after a
        marker; other runs of capitalised words; the word after a marker; the remaining content words from last
        to first; numbers as written."""
        ordered = [next(filter(None, match.groups())).strip() for match in _QUOTED.finditer(self._text)]
        tokens = self._tokens
        marked = {place for at in range(len(tokens)) if (place := self._after_marker(at)) is not None}
        runs = self._capital_runs()
        taken = {place for run in runs for place in run}
        ordered += [self._join(run) for run in runs if run.start in marked]
        ordered += [self._join(run) for run in runs if run.start not in marked]
        ordered += [tokens[at].word for at in sorted(marked - taken) if tokens[at].content]
        ordered += [
            tokens[at].word for at in reversed(range(len(tokens))) if at not in taken and tokens[at].content
        ]
        ordered += [token.word for token in tokens if token.number]
        unique: dict[str, str] = {}
        for phrase in filter(None, ordered):
            unique.setdefault(phrase.casefold(), phrase)
        return tuple(unique.values())

    @cached_property
    def negative(self) -> bool:
        """True when a word such as "no", "not" or "off" occurs."""
        return any(token.key in _NEGATIVE for token in self._tokens)

    def in_format(self, name: str) -> list[str]:
        """Words that have the named format of JSON Schema, as written."""
        form = FORMATS[name]
        return [token.word for token in self._tokens if form.fullmatch(token.word)]

    def place(self, phrase: str) -> int | None:
        """Where the words of ``phrase`` stand, one after the other; None when they do not. Places have an order."""
        words = split_words(phrase)
        at = self._line.find(f" {' '.join(words)} ") if words else -1
        return at if at >= 0 else None

    def mentions(self, name: str) -> bool:
        """True when all words of the identifier ``name`` occur, and at least one of them is no stop word."""
        wanted = set(split_words(name))
        return bool(wanted - STOP_WORDS) and wanted <= set(self._words)

    def _join(self, run: range) -> str:
        return " ".join(self._tokens[at].word for at in run)

    def _after_marker(self, at: int) -> int | None:
        """The place of the word that the marker at ``at`` points to; None when there is no marker or no word."""
        tokens = self._tokens
        if tokens[at].key not in MARKERS or tokens[at].last:
            return None
        if tokens[at].key == "is" and (tokens[at].first or tokens[at - 1].key in _ASKING):
            return None
        place = at + 1
        while place < len(tokens) and tokens[place].key in _ARTICLES and not tokens[place].last:
            place += 1
        return place if place < len(tokens) else None

    def _capital_runs(self) -> list[range]:
        """Runs of capitalised words. The first word of a sentence tells nothing, unless all words are so."""
        tokens = self._tokens
        everywhere = not any(token.word[0].islower() for token in tokens)
        runs: list[range] = []
        start: int | None = None
        for at, token in enumerate(tokens):
            capital = token.capital and not token.number and (everywhere or not token.first)
            if capital and start is None:
                start = at
            if start is not None and (not capital or token.last or at == len(tokens) - 1):
                runs.append(range(start, at + 1 if capital else at))
                start = None
        return runs


def number_of(text: str) -> int | float | None:
    """The number that a text holds, if it holds exactly one (digits or number words)."""
    found = Hints(text).numbers
    return found[0] if len(found) == 1 else None


def _number(digits: str) -> int | float:
    plain = digits.replace(",", "")
    return float(plain) if "." in plain else int(plain)


def _spelled(words: list[str]) -> list[int]:
    """Numbers of a run of number words; a word that cannot go on with the number so far begins the next one."""
    found: list[int] = []
    current: int | None = None
    for word in words:
        if word == "and":
            continue
        added = _join_number(current, word)
        if added is None:
            if current is not None:
                found.append(current)
            added = _join_number(None, word)
        current = added
    return found if current is None else [*found, current]


def _join_number(current: int | None, word: str) -> int | None:
    """``current`` with one more number word; None when they do not go together ("five six")."""
    if word in ("hundred", "thousand"):
        scale = 100 if word == "hundred" else 1000
        if current is None:
            return scale
        part = current % 1000
        if word == "thousand":
            return current * 1000 if 0 < current < 1000 else None
        return current - part + part * 100 if 0 < part < 100 else None
    value = _UNITS[word] if word in _UNITS else _TENS[word]
    if current is None:
        return value
    room = 100 if current % 100 == 0 else 10 if current % 10 == 0 and current % 100 >= 20 else 0
    return current + value if current > 0 and 0 < value < room else None
