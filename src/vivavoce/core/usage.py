"""Tokens: what text, speech and items count for (protocol section 7.2).

Speech is exact: 1 token for each full 100 ms of user audio, 1 for each full 50 ms of assistant audio. Text is
counted by whoever is given to :class:`Tokens`; without the o200k vocabulary, which is too big to ship, that is an
estimate (``docs/explanation/tokens.md`` has its errors).
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

import msgspec

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.core.context import Entry
from vivavoce.wire import items
from vivavoce.wire import server_events as se
from vivavoce.wire.session_config import FunctionTool, Transcription

IMAGE_BASE, IMAGE_TILE = 85, 170
"""Tokens of a picture, and of each tile that is looked at closely (the vision guide, for gpt-4o)."""
_NEAR: Final = 16
"""Entries at the end of a context of which words may still come."""
_TILE: Final = 512
"""Pixels of a tile each way."""
_LONGEST, _SHORTEST = 2048, 768
"""Pixels to which a picture is scaled down first: its longer side, then its shorter one."""
ITEM_FRAMING: Final = 4
"""Tokens around each item: its role and its end."""
USER_MS_PER_TOKEN: Final = 100
ASSISTANT_MS_PER_TOKEN: Final = 50
CACHE_BLOCK: Final = 64
"""Cached tokens of each modality come in multiples of this."""
OUTPUT_RESERVE: Final = 4096
"""Output tokens that a response without a limit may use, and that quota sets aside for it."""

TextCounter: TypeAlias = Callable[[str], int]
"""The tokens of a text; 0 for the empty one."""

_PIECES: Final = re.compile(
    r"(?P<latin>(?:[^\w\r\n]|_)?(?:[A-ZÀ-ÖØ-Þ]*[a-zß-öø-ɏ]+|[A-ZÀ-ÖØ-Þ]+)(?:['’](?:s|t|re|ve|m|ll|d)\b)?)"
    r"|(?P<digits>\d{1,3})"
    r"|(?P<alphabet>(?:[^\w\r\n]|_)?(?:(?![_\d])[\u0250-\u1fff])+)"
    r"|(?P<letters>(?:[^\w\r\n]|_)?(?:(?![_\dA-Za-zÀ-\u1fff])\w)+)"
    r"|(?P<other> ?(?:[^\w\s]|_)+[\r\n/]*)"
    r"|(?P<space>\s*[\r\n]+|\s+(?!\S)|\s+)"
)
"""The pieces that the o200k tokenizer looks up: a word with the space or sign before it, up to three digits, signs
with the line end after them, white space."""
_CHARS: Final = {"latin": 9, "alphabet": 5, "other": 3}
"""Characters that make one token; a longer piece takes another for each such stretch."""


def estimated_tokens(text: str) -> int:
    """The o200k tokens of ``text`` by the number and the lengths of its pieces."""
    count = 0
    for piece in _PIECES.finditer(text):
        length = piece.end() - piece.start()
        kind = piece.lastgroup or ""
        if kind in _CHARS:
            count += -(-length // _CHARS[kind])
        else:
            # Of ten letters without an alphabet, Chinese and Japanese ones above all, seven are tokens.
            count += -(-length * 7 // 10) if kind == "letters" else 1
    return count


class Count(NamedTuple):
    """Input tokens by modality."""

    text: int = 0
    audio: int = 0
    image: int = 0

    @property
    def total(self) -> int:
        return self.text + self.audio + self.image

    def plus(self, entry: Entry) -> Count:
        return Count(
            self.text + entry.text_tokens, self.audio + entry.audio_tokens, self.image + entry.image_tokens
        )

    def minus(self, other: Count) -> Count:
        return Count(self.text - other.text, self.audio - other.audio, self.image - other.image)

    def in_blocks(self) -> Count:
        """What of it is cached: whole blocks of each modality."""
        return Count(*(tokens // CACHE_BLOCK * CACHE_BLOCK for tokens in self))


def user_audio_tokens(ticks: int) -> int:
    return ticks // (TICKS_PER_MS * USER_MS_PER_TOKEN)


def assistant_audio_tokens(ticks: int) -> int:
    return ticks // (TICKS_PER_MS * ASSISTANT_MS_PER_TOKEN)


def image_tokens(part: items.InputImagePart) -> int:
    """By the tiles that are looked at; ``low`` is none of them, ``auto`` is ``high``."""
    if part.detail == "low":
        return IMAGE_BASE
    shrunk = min(1.0, _LONGEST / max(part.width, part.height))
    shrunk *= min(1.0, _SHORTEST / (min(part.width, part.height) * shrunk))
    across, down = (math.ceil(round(side * shrunk, 3) / _TILE) for side in (part.width, part.height))
    return IMAGE_BASE + IMAGE_TILE * across * down


class Tokens:
    """What things count for, by a way to count text."""

    def __init__(self, text: TextCounter = estimated_tokens) -> None:
        self.text = text

    def transcription(self, asked: Transcription, ticks: int, transcript: str) -> se.TranscriptionUsage:
        """What the words of ``ticks`` of user audio cost: Whisper models count seconds, the others tokens."""
        if "transcribe" in asked.model:
            return se.TranscriptionTokens(
                input_audio=user_audio_tokens(ticks),
                input_text=self.text(asked.prompt or ""),
                output=self.text(transcript),
            )
        return se.TranscriptionDuration(-(-ticks // (TICKS_PER_MS * 1000)))

    def said(self, item: items.Item) -> int:
        """Tokens of an item's text. What the assistant said counts as text beside its audio, as it did when it was
        made; what a user said counts by its audio alone."""
        match item:
            case items.MessageItem():
                texts = sum(
                    self.text(part.text)
                    for part in item.content
                    if isinstance(part, items.InputTextPart | items.TextPart)
                )
                spoken = sum(
                    self.text(part.transcript or "") for part in item.content if isinstance(part, items.AudioPart)
                )
                return texts + spoken
            case items.FunctionCallItem():
                return self.text(item.name) + self.text(item.arguments)
            case items.FunctionCallOutputItem():
                return self.text(item.output)

    def item(self, item: items.Item) -> int:
        """As :meth:`said`, with the framing that an item has in a context."""
        return ITEM_FRAMING + self.said(item)

    def prompt(self, instructions: str, tools: Iterable[FunctionTool]) -> int:
        """Tokens of what stands before the conversation."""
        count = self.text(instructions)
        for tool in tools:
            count += ITEM_FRAMING + self.text(tool.name) + self.text(tool.description or "")
            count += self.text(_json(tool.parameters)) if tool.parameters else 0
        return count


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


class _Counts:
    """Counts one after the other, at first that of nothing. A session has one for each item: 24 bytes."""

    def __init__(self) -> None:
        self._flat = array("q", Count())

    def __getitem__(self, at: int) -> Count:
        begin = 3 * at if at >= 0 else len(self._flat) + 3 * at
        return Count(*self._flat[begin : begin + 3])

    def append(self, count: Count) -> None:
        self._flat.extend(count)

    def cut(self, length: int) -> None:
        """Keep the first so many."""
        del self._flat[3 * length :]

    def drop(self, length: int) -> None:
        """Forget the first so many."""
        del self._flat[: 3 * length]


class PromptCache:
    """What contexts count for, and what the service would find cached of them: what they share with the one before
    and the answer to it, in whole blocks of each modality.

    Recorded from the service: after a context of 63 text tokens and a call of 22, 64 are cached; of 33 text and 69
    audio tokens, 64 of audio and none of text.

    What was counted for a context is not counted again for the beginning that a longer one shares with it, nor for
    what is left when its oldest entries are left out, though nothing of that is cached.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._prompt: tuple[str, tuple[FunctionTool, ...]] = ("", ())
        self._prompt_tokens = 0
        self._cached_prompt: tuple[str, tuple[FunctionTool, ...]] | None = None
        self._context: tuple[Entry, ...] = ()
        self._sums = _Counts()
        """Tokens of the first 0, 1, 2 ... entries of it, and of all that was cut off before these."""
        self._is_cut = False
        """Its beginning is not the one that the cache has."""

    def prompt_tokens(self, instructions: str, tools: tuple[FunctionTool, ...]) -> int:
        """As :meth:`Tokens.prompt`; the last prompt is not counted again."""
        if self._prompt != (instructions, tools):
            self._prompt = (instructions, tools)
            self._prompt_tokens = self._tokens.prompt(instructions, tools)
        return self._prompt_tokens

    def context_tokens(self, context: tuple[Entry, ...]) -> Count:
        """Tokens of all entries."""
        shared = self._shared(context)
        return self._extended(shared, context)[-1].minus(self._sums[0])

    def look_up(self, instructions: str, tools: tuple[FunctionTool, ...], context: tuple[Entry, ...]) -> Count:
        """-> cached tokens, of each modality a multiple of 64; remembers this context for the next time."""
        shared = self._shared(context)
        cached = Count()
        if self._cached_prompt == (instructions, tools):
            begun = Count() if self._is_cut else self._sums[shared].minus(self._sums[0])
            cached = Count(begun.text + self.prompt_tokens(instructions, tools), begun.audio, begun.image)
        self._cached_prompt = (instructions, tools)
        added = self._extended(shared, context)[1:]
        self._sums.cut(shared + 1)
        for count in added:
            self._sums.append(count)
        self._context = context
        self._is_cut = False
        return cached.in_blocks()

    def cut(self, context: tuple[Entry, ...], count: int) -> None:
        """The first ``count`` entries of ``context`` are left out from now on."""
        if count and self._shared(context) >= count:
            self._context = self._context[count:]
            self._sums.drop(count)
            self._is_cut = True

    def answered(self, entry: Entry) -> None:
        """``entry`` was made of the context that was looked up last, and follows it."""
        self._sums.append(self._sums[-1].plus(entry))
        self._context = (*self._context, entry)

    def replaced(self, old: Entry, new: Entry) -> None:
        """``new``, which says the same, holds less than ``old``: so this is let go, where it is near the end."""
        for at in range(len(self._context) - 1, max(-1, len(self._context) - _NEAR), -1):
            if self._context[at] is old:
                self._context = (*self._context[:at], new, *self._context[at + 1 :])

    def _extended(self, shared: int, context: tuple[Entry, ...]) -> list[Count]:
        """The sums of ``context`` from its first ``shared`` entries on."""
        sums = [self._sums[shared]]
        for entry in context[shared:]:
            sums.append(sums[-1].plus(entry))
        return sums

    def _shared(self, context: tuple[Entry, ...]) -> int:
        """How many entries at the beginning say the same as in the context before."""
        old, at, end = self._context, 0, min(len(self._context), len(context))
        while (at := _first_difference(old, context, at, end)) < end and _says_the_same(old[at], context[at]):
            at += 1
        return at


def _says_the_same(one: Entry, other: Entry) -> bool:
    """The model reads the same, whatever the recogniser has found out since, and the sound may be gone."""
    heard_the_same = one.listened and other.listened and one.item.id == other.item.id
    same = heard_the_same or one.item == other.item
    return same and Count().plus(one) == Count().plus(other)


def _first_difference(one: tuple[Entry, ...], other: tuple[Entry, ...], begin: int, end: int) -> int:
    """The first place in ``begin .. end`` where they differ, or ``end``.

    By halves: slices are compared without a step of Python for each of their entries, which are mostly the same
    objects.
    """
    if one[begin:end] == other[begin:end]:
        return end
    while end - begin > 1:
        middle = (begin + end) // 2
        if one[begin:middle] == other[begin:middle]:
            begin = middle
        else:
            end = middle
    return begin
