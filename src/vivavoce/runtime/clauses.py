"""Cutting a stream of words into clauses that can be spoken one after another."""

from __future__ import annotations

import re
from typing import Final

FIRST_CHARS: Final = 16
"""A first clause this long may end at a comma, so that speech starts early."""
LATER_CHARS: Final = 48
"""Later clauses end at a comma only when they are this long: fewer seams sound better."""
MAX_CHARS: Final = 240
"""A clause ends at a space when it is this long, if it has not ended before."""

_WINDOW: Final = MAX_CHARS + 2
"""Ends are looked for no further: a model may hand over its whole answer at once."""
_SENTENCE_END: Final = re.compile(r"[.!?…]++[\"'”’)\]]*+(?=\s)|[。！？]++[」』”’）]*+|\n++")
_CLAUSE_END: Final = re.compile(r"[,;:–—][\"'”’)\]]*+(?=\s)|[、；：，]")


class ClauseSplitter:
    """Feed text as it comes; get back whole clauses. Their concatenation, with the rest, is the text."""

    def __init__(self) -> None:
        self._text = ""
        self._made = 0

    def feed(self, text: str) -> list[str]:
        """More text -> the clauses that are complete now."""
        self._text += text
        clauses = []
        while (end := self._end()) is not None:
            clauses.append(self._text[:end])
            self._text = self._text[end:]
            self._made += 1
        return clauses

    def flush(self) -> list[str]:
        """The text is over: what is left, if it is anything, is the last clause."""
        rest, self._text, self._made = self._text, "", 0
        return [rest] if rest.strip() else []

    def _end(self) -> int | None:
        enough = LATER_CHARS if self._made else FIRST_CHARS
        sentence = self._sentence_end()
        if sentence is not None:
            clause = self._clause_end(enough)
            return clause if clause is not None and clause < sentence else sentence
        clause = self._clause_end(enough)
        if clause is not None:
            return clause
        if len(self._text) > MAX_CHARS:
            space = self._text.rfind(" ", 0, MAX_CHARS)
            return space if space > 0 else MAX_CHARS
        return None

    def _sentence_end(self) -> int | None:
        for mark in _SENTENCE_END.finditer(self._text, 0, _WINDOW):
            if self._text[: mark.end()].strip():
                return mark.end()
        return None

    def _clause_end(self, enough: int) -> int | None:
        for mark in _CLAUSE_END.finditer(self._text, 0, _WINDOW):
            if mark.end() >= enough:
                return mark.end()
        return None
