"""The conversation: an ordered list of items (protocol sections 4.4 - 4.6, 7.1).

Laws
----
1. Ids are unique; ``previous_item_id`` is the direct predecessor at that moment, None for the first item.
2. Its items hold at most :data:`MAX_TEXT_CHARS` of text and :data:`MAX_IMAGE_BYTES` of pictures.
3. Adding, finding, replacing and deleting cost the same however long the conversation is.
4. Entries are frozen; a snapshot shares them. A new one is made of the last and of what was added since; only what
   changes the list elsewhere than at its ends makes it anew.
5. What has dropped out of the context is in the conversation like everything else, but in no snapshot any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from msgspec import Struct, structs

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.core import usage
from vivavoce.core.context import Entry
from vivavoce.wire import errors, items

ROOT: Final = "root"
"""``previous_item_id`` of an item that goes first."""

MAX_TEXT_CHARS: Final = 8 * 1024 * 1024
"""Characters of text in the items of one conversation, far above what any model reads at once."""
MAX_IMAGE_BYTES: Final = 32 * 1024 * 1024
"""Bytes of pictures, in base64, in the items of one conversation: one and a half of the longest messages."""
_NEAR: Final = 16
"""Entries at the end of the list that can change without a new snapshot of all."""


class _Node(Struct, gc=False):
    entry: Entry
    before: str | None = None
    after: str | None = None
    dropped: bool = False
    """It is not in the context any more."""


class MessageLimits(NamedTuple):
    """What one message may hold (protocol section 9.2)."""

    chars: int = 1_048_576
    """Characters of all its texts."""
    images: int = 50


MESSAGE_LIMITS: Final = MessageLimits()
"""The service's."""


class Conversation:
    """The items of one session, in order."""

    def __init__(self, conversation_id: str, tokens: usage.Tokens, limits: MessageLimits = MESSAGE_LIMITS) -> None:
        self._limits = limits
        self.id = conversation_id
        self.tokens = tokens
        self._nodes: dict[str, _Node] = {}
        self.ids = self._nodes.keys()
        """Of the items in the list, as they come and go."""
        self._first: str | None = None
        self._last: str | None = None
        self._calls: dict[str, int] = {}
        """Function calls in the list, by call id, with their number."""
        self._spoken = 0
        """Assistant messages with audio in the list."""
        self.clip_ticks = 0
        """Audio that the items hold, in ticks."""
        self._text_chars = 0
        self._image_bytes = 0
        self._snapshot: tuple[Entry, ...] | None = ()
        self._added: list[Entry] = []
        """What follows the last snapshot; nothing while there is none."""

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._nodes

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Entry]:
        item_id = self._first
        while item_id is not None:
            node = self._nodes[item_id]
            yield node.entry
            item_id = node.after

    @property
    def has_assistant_audio(self) -> bool:
        return self._spoken > 0

    def get(self, item_id: str) -> Entry | None:
        node = self._nodes.get(item_id)
        return node.entry if node else None

    def predecessor(self, item_id: str) -> str | None:
        return self._nodes[item_id].before

    def has_call(self, call_id: str) -> bool:
        return call_id in self._calls

    def snapshot(self) -> tuple[Entry, ...]:
        """The entries of the context in order; the same tuple until the conversation changes."""
        if self._snapshot is None:
            self._snapshot = tuple(entry for entry in self if not self._nodes[entry.item.id].dropped)
        elif self._added:
            self._snapshot += tuple(self._added)
        self._added.clear()
        return self._snapshot

    def check_place(self, previous_item_id: str | None) -> None:
        """Raises ClientFault if ``previous_item_id`` names no place in the list."""
        if previous_item_id not in (None, ROOT) and previous_item_id not in self._nodes:
            raise errors.unknown_previous_item(str(previous_item_id))

    def check_room(self, entries: Iterable[Entry]) -> None:
        """Raises ClientFault if there is no room for the text or the pictures of these, or one is too long."""
        text = image = 0
        for entry in entries:
            self.check_message(entry.item)
            text += _text_chars(entry.item)
            image += _image_bytes(entry)
        self.check_more(text)
        if image and self._image_bytes + image > MAX_IMAGE_BYTES:
            raise errors.conversation_full(MAX_IMAGE_BYTES, "bytes of images")

    def check_message(self, item: items.Item) -> None:
        """Raises ClientFault for a message of too many characters or pictures."""
        if not isinstance(item, items.MessageItem):
            return
        if (chars := _text_chars(item)) > self._limits.chars:
            raise errors.string_too_long("item.content", self._limits.chars, chars)
        images = sum(isinstance(part, items.InputImagePart) for part in item.content)
        if images > self._limits.images:
            raise errors.too_many_images("item.content", self._limits.images, images)

    def check_more(self, chars: int) -> None:
        """Raises ClientFault if there is no room for so many characters more."""
        if chars and self._text_chars + chars > MAX_TEXT_CHARS:
            raise errors.conversation_full(MAX_TEXT_CHARS)

    def add(self, entry: Entry, previous_item_id: str | None = None) -> str | None:
        """Put ``entry`` after an item (None: at the end; ``root``: first). Returns its predecessor's id.

        Raises ClientFault for an id that is taken, a place that does not exist, or too much text, changing nothing.
        """
        item_id = entry.item.id
        if item_id in self._nodes:
            raise errors.duplicate_item(item_id)
        self.check_place(previous_item_id)
        self.check_room((entry,))
        before = self._last if previous_item_id is None else previous_item_id
        if before == ROOT and ROOT not in self._nodes:
            before = None
        after = self._nodes[before].after if before is not None else self._first
        self._nodes[item_id] = _Node(entry, before, after)
        self._link(before, item_id)
        self._link(item_id, after)
        self._count(entry, 1)
        if after is not None:
            self._forget_snapshot()
        elif self._snapshot is not None:
            self._added.append(entry)
        return before

    def replace(self, entry: Entry) -> None:
        """Put ``entry`` in the place of the one with its id; nothing happens if that was deleted."""
        node = self._nodes.get(entry.item.id)
        if node is not None:
            self._count(node.entry, -1)
            if not node.dropped:
                self._change_snapshot(node.entry, entry)
            node.entry = entry
            self._count(entry, 1)

    def delete(self, item_id: str) -> None:
        """Raises ClientFault for an unknown id."""
        node = self._nodes.pop(item_id, None)
        if node is None:
            raise errors.unknown_item("deleting", "delete", item_id)
        self._link(node.before, node.after)
        self._count(node.entry, -1)
        if not node.dropped:
            self._forget_snapshot()

    def drop_oldest(self, count: int) -> None:
        """The first ``count`` entries leave the context for good."""
        context = self.snapshot()
        for entry in context[:count]:
            self._nodes[entry.item.id].dropped = True
        self._snapshot = context[count:]

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Cut the audio of an assistant message and forget its transcript. Raises ClientFault, changing nothing."""
        entry = self.get(item_id)
        if entry is None:
            raise errors.unknown_item("truncating", "truncate", item_id)
        item = entry.item
        if not isinstance(item, items.MessageItem) or not entry.has_audio or content_index >= len(item.content):
            raise errors.not_truncatable()
        if not isinstance(item.content[content_index], items.AudioPart):
            raise errors.not_truncatable()
        if audio_end_ms > entry.audio_ms:
            raise errors.truncate_beyond_audio(entry.audio_ms, audio_end_ms)
        self.replace(truncated(entry, audio_end_ms, self.tokens))

    def _change_snapshot(self, old: Entry, new: Entry) -> None:
        """What changes is mostly near the end: the last answer, the last words."""
        for at in range(len(self._added) - 1, -1, -1):
            if self._added[at] is old:
                self._added[at] = new
                return
        known = self._snapshot or ()
        for at in range(len(known) - 1, max(-1, len(known) - _NEAR), -1):
            if known[at] is old:
                self._snapshot = (*known[:at], new, *known[at + 1 :])
                return
        self._forget_snapshot()

    def _forget_snapshot(self) -> None:
        """And with it the sound of what is not in the list any more."""
        self._snapshot = None
        self._added.clear()

    def _link(self, before: str | None, after: str | None) -> None:
        if before is None:
            self._first = after
        else:
            self._nodes[before].after = after
        if after is None:
            self._last = before
        else:
            self._nodes[after].before = before

    def _count(self, entry: Entry, step: int) -> None:
        if entry.has_audio:
            self._spoken += step
        self._text_chars += step * _text_chars(entry.item)
        self._image_bytes += step * _image_bytes(entry)
        self.clip_ticks += step * sum(clip.ticks for clip in entry.clips.values())
        if isinstance(entry.item, items.FunctionCallItem):
            call_id = entry.item.call_id
            self._calls[call_id] = self._calls.get(call_id, 0) + step
            if not self._calls[call_id]:
                del self._calls[call_id]


def _text_chars(item: items.Item) -> int:
    match item:
        case items.MessageItem():
            texts = (
                getattr(part, "text", None) or getattr(part, "transcript", None) or "" for part in item.content
            )
            return sum(map(len, texts))
        case items.FunctionCallItem():
            return len(item.arguments)
        case items.FunctionCallOutputItem():
            return len(item.output)


def _image_bytes(entry: Entry) -> int:
    if not entry.image_tokens or not isinstance(entry.item, items.MessageItem):
        return 0
    return sum(len(part.image_url) for part in entry.item.content if isinstance(part, items.InputImagePart))


def _spoken(item: items.MessageItem) -> str:
    return "".join(part.transcript or "" for part in item.content if isinstance(part, items.AudioPart))


def truncated(entry: Entry, audio_end_ms: int, tokens: usage.Tokens) -> Entry:
    """``entry``, an assistant message, with ``audio_end_ms`` of its audio and none of its words in the item.

    What was heard of them stays beside it, where the entry knows how words and sound go together.
    """
    item = entry.item
    assert isinstance(item, items.MessageItem)
    heard_text = None
    if entry.alignment is not None:
        heard_text = entry.alignment.heard(_spoken(item) or entry.heard_text or "", audio_end_ms * TICKS_PER_MS)
    parts = tuple(items.AudioPart(None) if isinstance(p, items.AudioPart) else p for p in item.content)
    item = items.MessageItem(item.id, item.role, parts, item.status)
    return structs.replace(
        entry,
        item=item,
        audio_ms=audio_end_ms,
        truncated=True,
        heard_text=heard_text,
        text_tokens=tokens.item(item),
        audio_tokens=audio_end_ms // usage.ASSISTANT_MS_PER_TOKEN,
    )
