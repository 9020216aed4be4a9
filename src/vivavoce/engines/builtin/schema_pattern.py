"""Strings that match a simple regular expression, and a judgement of how long a text it may be tried on.

The expressions come from the tools of a client, so they are foreign input, and nothing can stop ``re`` once it
runs. An expression is tried only on texts that it can be matched with in fewer than ten million ways, by an upper
estimate; one that is not simple enough to be estimated is not run at all.
"""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import log

_LETTERS = string.ascii_lowercase + string.ascii_uppercase
_PRINTABLE = _LETTERS + string.digits + " " + string.punctuation
_CLASSES = {
    "d": string.digits,
    "w": _LETTERS + string.digits + "_",
    "s": " \t\n",
    "D": "".join(c for c in _PRINTABLE if c not in string.digits),
    "W": "".join(c for c in _PRINTABLE if not (c.isalnum() or c == "_")),
    "S": "".join(c for c in _PRINTABLE if c != " "),
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_LONGEST_PATTERN = 500
_MOST_REPEATS = 1000
_DEEPEST = 20
_LONG = 256
_MOST_WAYS = 1e7
_LARGE = 10**9


@dataclass(frozen=True, slots=True)
class _Chars:
    options: str


@dataclass(frozen=True, slots=True)
class _Sequence:
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Either:
    branches: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Repeat:
    body: _Node
    least: int
    most: int | None


_Node = _Chars | _Sequence | _Either | _Repeat


class _NotSimple(Exception):
    """The expression uses something outside the subset."""


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return None


@lru_cache(maxsize=256)
def _parsed(pattern: str) -> _Node | None:
    try:
        return _Parser(pattern).parse()
    except _NotSimple:
        return None


@lru_cache(maxsize=256)
def _longest(pattern: str) -> int:
    """Characters of the longest text that the expression is tried on; -1 when it is not tried."""
    node = _parsed(pattern)
    if node is None:
        return -1
    ways = _ways(node)
    most = log(_MOST_WAYS)
    fixed, power, base = log(ways.count), 1 + ways.power, log(ways.base)
    return max(
        (at for at in range(1, _LONG + 1) if fixed + power * log(at) + at * base <= most),
        default=-1,
    )


def matches(pattern: str, text: str) -> bool:
    """True when the expression is found in ``text``. False also for an expression that Python cannot read, and
    for one that is not tried on a text of this length."""
    compiled = _compiled(pattern)
    return compiled is not None and len(text) <= _longest(pattern) and compiled.search(text) is not None


def samples(pattern: str, shortest: int, longest: int | None) -> Iterator[str]:
    """Different strings of a length within the bounds that match, first those that were tried; none when the
    expression is not simple. Simple are: literals, classes, ``.``, ``\\d \\w \\s`` and their opposites, groups,
    alternatives, repeats and the anchors ``^ $ \\b``."""
    node = _parsed(pattern)
    if node is None:
        return
    tried: list[str] = []
    untried: list[str] = []
    extras = (0, 1, 2, 3, *(2**power for power in range(2, 10) if 2**power <= shortest), shortest)
    for variant in range(64):
        for extra in islice(dict.fromkeys(extras), 16):
            text = _sample(node, min(extra, _MOST_REPEATS), variant)
            for candidate in (text, text + "a" * (shortest - len(text))):
                fits = shortest <= len(candidate) and (longest is None or len(candidate) <= longest)
                if not fits or candidate in tried or candidate in untried:
                    continue
                if matches(pattern, candidate):
                    tried.append(candidate)
                    yield candidate
                elif candidate == text and len(text) > _longest(pattern):
                    untried.append(candidate)
    yield from untried


def _sample(node: _Node, extra: int, variant: int) -> str:
    if isinstance(node, _Chars):
        return node.options[variant % len(node.options)]
    if isinstance(node, _Sequence):
        return "".join(_sample(part, extra, variant) for part in node.parts)
    if isinstance(node, _Either):
        return _sample(node.branches[variant % len(node.branches)], extra, variant)
    count = node.least + extra if node.most is None else min(node.most, node.least + extra)
    text = ""
    for _ in range(count):
        text += _sample(node.body, extra if extra < 2 else 0, variant)
        if len(text) > _LONG:
            break
    return text


@dataclass(frozen=True, slots=True)
class _Ways:
    """A text of n characters can be matched in at most ``count * n**power * base**n`` ways."""

    count: int = 1
    power: int = 0
    base: int = 1


def _ways(node: _Node) -> _Ways:
    if isinstance(node, _Chars):
        return _Ways()
    if isinstance(node, _Repeat):
        return _ways_of_repeat(node)
    count = int(isinstance(node, _Sequence))
    power, base = 0, 1
    for ways in map(_ways, node.parts if isinstance(node, _Sequence) else node.branches):
        count = min(_LARGE, count * ways.count if isinstance(node, _Sequence) else count + ways.count)
        power = power + ways.power if isinstance(node, _Sequence) else max(power, ways.power)
        base = max(base, ways.base)
    return _Ways(count, power, base)


def _ways_of_repeat(node: _Repeat) -> _Ways:
    body = _ways(node.body)
    if body == _Ways():
        return _Ways(power=int(node.least != node.most))
    if node.most is not None:
        return _Ways(min(_LARGE, body.count ** min(node.most, 30)), node.most * (body.power + 1), body.base)
    return _Ways(power=1, base=1 + (body.count * (body.power + 1) - 1 + int(_may_be_empty(node.body))) * body.base)


def _may_be_empty(node: _Node) -> bool:
    if isinstance(node, _Chars):
        return False
    if isinstance(node, _Repeat):
        return node.least == 0 or _may_be_empty(node.body)
    if isinstance(node, _Sequence):
        return all(map(_may_be_empty, node.parts))
    return any(map(_may_be_empty, node.branches))


class _Parser:
    """Reads an expression into nodes; :class:`_NotSimple` for anything outside the subset."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > _LONGEST_PATTERN:
            raise _NotSimple
        self._text = pattern
        self._at = 0
        self._depth = 0

    def parse(self) -> _Node:
        node = self._either()
        if self._at < len(self._text):
            raise _NotSimple
        return node

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        char = self._peek()
        if not char:
            raise _NotSimple
        self._at += 1
        return char

    def _either(self) -> _Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise _NotSimple
        branches = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            branches.append(self._sequence())
        self._depth -= 1
        return branches[0] if len(branches) == 1 else _Either(tuple(branches))

    def _sequence(self) -> _Node:
        parts: list[_Node] = []
        while (char := self._peek()) and char not in "|)":
            if char in "^$" or self._text.startswith("\\b", self._at):
                self._at += 1 if char in "^$" else 2
            else:
                parts.append(self._repeated(self._atom()))
        return _Sequence(tuple(parts))

    def _atom(self) -> _Node:
        char = self._take()
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            return _Chars(self._escape())
        if char == ".":
            return _Chars(_CLASSES["w"])
        if char in "*+?":
            raise _NotSimple
        return _Chars(char)

    def _group(self) -> _Node:
        if self._peek() == "?":
            named = re.compile(r"\?(?::|P?<[A-Za-z_]\w*>)").match(self._text, self._at)
            if named is None:
                raise _NotSimple
            self._at = named.end()
        node = self._either()
        if self._take() != ")":
            raise _NotSimple
        return node

    def _escape(self) -> str:
        char = self._take()
        if char in _CLASSES:
            return _CLASSES[char]
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char.isalnum():
            raise _NotSimple
        return char

    def _class(self) -> _Node:
        negative = self._peek() == "^"
        if negative:
            self._at += 1
        options = ""
        while (char := self._take()) != "]":
            if char == "[":
                raise _NotSimple
            first = self._escape() if char == "\\" else char
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] != "]":
                self._at += 1
                last = self._take()
                last = self._escape() if last == "\\" else last
                if len(first) != 1 or len(last) != 1 or not 0 <= ord(last) - ord(first) <= 256:
                    raise _NotSimple
                options += "".join(chr(code) for code in range(ord(first), ord(last) + 1))
            else:
                options += first
        if negative:
            options = "".join(char for char in _PRINTABLE if char not in options)
        if not options:
            raise _NotSimple
        return _Chars(options)

    def _repeated(self, node: _Node) -> _Node:
        bounds = re.compile(r"([*+?])|\{(\d{1,4})(?:(,)(\d{1,4})?)?\}").match(self._text, self._at)
        if bounds is None:
            return node
        self._at = bounds.end()
        sign, least, comma, most = bounds.groups()
        if sign:
            repeat = _Repeat(node, int(sign == "+"), 1 if sign == "?" else None)
        else:
            repeat = _Repeat(node, int(least), int(most) if most else None if comma else int(least))
        if repeat.most is not None and not repeat.least <= repeat.most <= _MOST_REPEATS:
            raise _NotSimple
        if self._peek() in ("?", "+"):
            self._at += 1
        return repeat
