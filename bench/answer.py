"""What every stand-in engine says, here and on the peers: the same words, the same sound, the same length."""

from __future__ import annotations

from typing import Final

HEARD: Final = "What time is it?"
SENTENCES: Final = ("Certainly.", "It is a quarter past nine, and the next train leaves from platform four.")
ANSWER: Final = " ".join(SENTENCES)
CHUNK_MS: Final = 100
_CHARS_PER_S: Final = 15
"""How fast the stand-in voice talks."""


def chunks(text: str) -> int:
    """How many chunks of :data:`CHUNK_MS` it takes to say this."""
    return max(1, len(text) * 1000 // _CHARS_PER_S // CHUNK_MS)


def hum(rate: int) -> bytes:
    """A chunk of the stand-in voice: 16-bit mono, at this rate in Hz."""
    size = rate * 2 * CHUNK_MS // 1000
    return (bytes(range(256)) * (size // 256 + 1))[:size]
