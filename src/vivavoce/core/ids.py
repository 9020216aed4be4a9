"""Identifiers made by the server: a prefix and 21 (calls: 16) characters of 0-9A-Za-z (protocol section 2).

Pure and repeatable: a session is given a seed, and a counter does the rest. The counter is scattered over the
characters by a multiplication modulo a power of 62, which is one to one, so that ids never repeat.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS: Final = [a + b for a in _ALPHABET for b in _ALPHABET]
_TAIL: Final = 8
_SPACE: Final = 62**_TAIL
_HALF: Final = 62**4
_STRIDE: Final = 0x5851F42D4C95 | 1
"""Odd and no multiple of 31, so it shares no factor with 62**8."""
_LENGTHS: Final = {"call": 16}
_DEFAULT_LENGTH: Final = 21


class Ids:
    """The source of one session's identifiers. ``seed`` decides them all."""

    def __init__(self, seed: bytes) -> None:
        number = int.from_bytes(hashlib.blake2b(seed, digest_size=24).digest())
        number, count = divmod(number, _SPACE)
        stem = []
        for _ in range(_DEFAULT_LENGTH - _TAIL):
            number, digit = divmod(number, 62)
            stem.append(_ALPHABET[digit])
        self._stem = "".join(stem)
        self._at = count * _STRIDE % _SPACE
        """The counter as it is scattered."""
        self._heads: dict[str, str] = {}
        self._taken: Container[str] = ()

    def avoid(self, taken: Container[str]) -> None:
        """Never make an id that is in ``taken``: a client may have named an item as we would."""
        self._taken = taken

    def next(self, prefix: str) -> str:
        """A new identifier such as ``item_`` + 21 characters, for the prefixes of the protocol."""
        head = self._heads.get(prefix) or self._head(prefix)
        while True:
            self._at = at = (self._at + _STRIDE) % _SPACE
            high, low = at // _HALF, at % _HALF
            tail = f"{_PAIRS[low % 3844]}{_PAIRS[low // 3844]}{_PAIRS[high % 3844]}{_PAIRS[high // 3844]}"
            if (made := head + tail) not in self._taken:
                return made

    def _head(self, prefix: str) -> str:
        length = _LENGTHS.get(prefix, _DEFAULT_LENGTH)
        head = self._heads[prefix] = f"{prefix}_{self._stem[: length - _TAIL]}"
        return head
