"""How text is counted: by an estimate, or exactly, by the o200k vocabulary of the extra ``vivavoce[o200k]``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Final, Protocol

from vivavoce.config import ConfigError, Tokenizer
from vivavoce.core.usage import Tokens

_PIECE: Final = 32_768
"""Characters that are counted at once: the package refuses texts of more than 200,000 tokens."""


def load(tokenizer: Tokenizer) -> Tokens:
    """The way to count that the configuration asks for; o200k takes about a second and 120 MB.

    Raises ConfigError when its package is not installed.
    """
    if tokenizer == "estimate":
        return Tokens()
    try:
        with warnings.catch_warnings():
            # It opens its data in a way that Python 3.11 and 3.12 warn of, and later ones do not.
            warnings.simplefilter("ignore", DeprecationWarning)
            import bpe_openai
    except ImportError as error:
        problem = "the package for o200k is not installed; pip install 'vivavoce[o200k]' installs it"
        raise ConfigError("server.tokenizer", problem) from error
    return Tokens(O200k(bpe_openai.get_encoding("o200k_base")))


class Encoding(Protocol):
    """What is used of the package."""

    def encode_ordinary(self, text: str) -> list[int]: ...


class O200k:
    """Counts text exactly; what spells a special token counts as the text that it is."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding

    def __call__(self, text: str) -> int:
        return sum(len(self._encoding.encode_ordinary(piece)) for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    """``text`` in parts that are cut where tokens end too: before the first space after a word or a sign. Only what
    has none for the length of a part is cut anywhere."""
    at = 0
    while len(text) - at > _PIECE:
        end = text.rfind(" ", at + 1, at + _PIECE + 1)
        while end > at and text[end - 1].isspace():
            end = text.rfind(" ", at + 1, end)
        end = end if end > at else at + _PIECE
        yield text[at:end]
        at = end
    yield text[at:]
