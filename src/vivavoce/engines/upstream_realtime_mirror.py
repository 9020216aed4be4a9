"""What the conversation at the upstream server holds, and the events that bring it in step with ours.

Laws
----
1. Ours is the truth: what it lacks is deleted there, what it has is created there, in its order.
2. What the upstream server said itself it keeps, with its sound, as long as ours still has it whole; where ours
   holds less of the speech, it is truncated to that.
3. :meth:`Mirror.catch_up` is called while no response of the conversation runs, and its events are sent, all and in
   order, or the connection is given up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import pybase64

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import from_samples, to_samples
from vivavoce.audio.resample import Resampler
from vivavoce.engines import base
from vivavoce.engines.upstream_realtime_dialects import RATE, Dialect, Event, Said

SLACK_MS: Final = 20
"""Speech that may be missing at the end of a message that nobody cut: other formats and rates round."""
MAX_AUDIO_BYTES: Final = 8 * 1024 * 1024
"""Sound in one event, almost three minutes; as base64 it stays below what servers take."""


@dataclass(slots=True)
class _Entry:
    """One turn of ours as it is upstream: one item, or several."""

    name: str | None
    """Our item; None for what was said upstream and is not yet known to be in our conversation."""
    ids: list[str]
    made_of: base.Turn | None = None
    """What it was created from, without sound; None for what was said upstream."""
    text: str = ""
    audio_ms: float = 0.0
    call_name: str = ""
    call_id: str = ""
    """Of a function call, as the upstream server knows it."""


class Mirror:
    """The items of one upstream conversation, oldest first."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._entries: list[_Entry] = []
        self._made = 0

    def said(self, items: Sequence[Said]) -> None:
        """A response of the conversation is over, and left these items."""
        for is_call, run in groupby(items, lambda item: item.is_call):
            if is_call:
                for one in run:
                    call = _Entry(None, [one.item_id], text=one.text, call_name=one.name, call_id=one.call_id)
                    self._entries.append(call)
            else:
                # Messages that follow each other are one for us.
                told = list(run)
                text, audio_ms = "".join(one.text for one in told), sum(one.audio_ms for one in told)
                self._entries.append(_Entry(None, [one.item_id for one in told], text=text, audio_ms=audio_ms))

    def catch_up(self, turns: Sequence[base.Turn]) -> list[Event]:
        """The events after which the upstream conversation is ``turns``."""
        named = list(_named(turns))
        self._claim(named)
        events: list[Event] = []
        kept = self._kept(named)
        for entry in self._entries:
            if entry.name not in kept:
                events += [{"type": "conversation.item.delete", "item_id": one} for one in entry.ids]
        calls: dict[str, str] = {}
        entries: list[_Entry] = []
        left = len(kept)
        for name, turn in named:
            found = kept.get(name)
            if found is not None:
                left -= 1
                events += _truncation(found, turn)
            else:
                place = None if not left else entries[-1].ids[-1] if entries else "root"
                found, created = self._create(name, turn, calls, place)
                events += created
            if isinstance(turn, base.ToolCall):
                calls[turn.call_id] = found.call_id
            if found.ids:
                entries.append(found)
        self._entries = entries
        return events

    def quote(self, turns: Sequence[base.Turn]) -> list[Event]:
        """``turns`` as the input of a response out of band: by reference where the upstream server has them."""
        known = {entry.name: entry for entry in self._entries if entry.name is not None}
        calls: dict[str, str] = {}
        quoted: list[Event] = []
        for name, turn in _named(turns):
            entry = known.get(name)
            if entry is not None and _stands_for(entry, turn, calls) and not _is_cut(entry, turn):
                quoted += [{"type": "item_reference", "id": one} for one in entry.ids]
                call_id = entry.call_id
            else:
                items, call_id = self._items(turn, calls)
                quoted += items
            if isinstance(turn, base.ToolCall):
                calls[turn.call_id] = call_id
        return quoted

    def _claim(self, named: Sequence[tuple[str, base.Turn]]) -> None:
        """Find what was said upstream among our turns: both have it in the same order."""
        known = {entry.name for entry in self._entries}
        fresh = [(name, turn) for name, turn in named if name not in known]
        for entry in self._entries:
            if entry.name is None:
                at = next((i for i, (_, turn) in enumerate(fresh) if _was_said(entry, turn)), None)
                if at is not None:
                    entry.name = fresh[at][0]
                    del fresh[: at + 1]

    def _kept(self, named: Sequence[tuple[str, base.Turn]]) -> dict[str, _Entry]:
        """Entries that still stand for a turn of ours, as far as the order is ours too."""
        by_name = {entry.name: (at, entry) for at, entry in enumerate(self._entries)}
        kept: dict[str, _Entry] = {}
        calls: dict[str, str] = {}
        last = -1
        for name, turn in named:
            at, entry = by_name.get(name, (-1, None))
            if entry is not None and at > last and _stands_for(entry, turn, calls):
                kept[name] = entry
                last = at
                if isinstance(turn, base.ToolCall):
                    calls[turn.call_id] = entry.call_id
        return kept

    def _create(
        self, name: str, turn: base.Turn, calls: dict[str, str], place: str | None
    ) -> tuple[_Entry, list[Event]]:
        """``place``: the item to come after, ``root`` for none, None for the end."""
        items, call_id = self._items(turn, calls)
        entry = _Entry(name, [], made_of=_without_sound(turn, calls), call_id=call_id)
        events: list[Event] = []
        for item in items:
            self._made += 1
            made = f"relay_{self._made}"
            event: Event = {"type": "conversation.item.create", "item": {"id": made} | item}
            if place is not None:
                event["previous_item_id"] = place
                place = made
            entry.ids.append(made)
            events.append(event)
        return entry, events

    def _items(self, turn: base.Turn, calls: dict[str, str]) -> tuple[list[Event], str]:
        """The turn as items without ids, and the id of the call that it is."""
        match turn:
            case base.ToolCall():
                self._made += 1
                call_id = f"call_relay_{self._made}"
                call = {"type": "function_call", "name": turn.name, "arguments": turn.arguments, "call_id": call_id}
                return [call], call_id
            case base.ToolOutput():
                # The upstream server takes no output of a call that it does not have, as after a deletion.
                known = calls.get(turn.call_id)
                output = {"type": "function_call_output", "call_id": known, "output": turn.output}
                return [output] if known is not None else [], ""
            case base.Message():
                return [{"type": "message", "role": turn.role, "content": one} for one in self._content(turn)], ""

    def _content(self, message: base.Message) -> Iterator[list[Event]]:
        """The content of one item after the other: a very long recording takes several."""
        parts: list[Event] = []
        room = MAX_AUDIO_BYTES
        for content in message.content:
            for part, size in self._parts(message, content):
                if parts and size > room:
                    yield parts
                    parts, room = [], MAX_AUDIO_BYTES
                parts.append(part)
                room -= size
        if parts:
            yield parts

    def _parts(self, message: base.Message, content: base.Content) -> Iterator[tuple[Event, int]]:
        text = self._dialect.assistant_text if message.role == "assistant" else "input_text"
        match content:
            case base.TextInput():
                if content.text:
                    yield {"type": text, "text": content.text}, 0
            case base.AudioInput():
                pcm = _at_rate(content)
                for at in range(0, len(pcm), MAX_AUDIO_BYTES):
                    piece = pcm[at : at + MAX_AUDIO_BYTES]
                    yield {"type": "input_audio", "audio": pybase64.b64encode(piece).decode("ascii")}, len(piece)
            case base.ImageInput():
                yield {"type": "input_image", "image_url": content.url, "detail": content.detail}, len(content.url)


def _named(turns: Sequence[base.Turn]) -> Iterator[tuple[str, base.Turn]]:
    """Turns by the names of their items; those without are known by their place."""
    for at, turn in enumerate(turns):
        yield turn.item_id or f"#{at}", turn


def _was_said(entry: _Entry, turn: base.Turn) -> bool:
    """Did an entry that nobody has claimed become this turn?"""
    match turn:
        case base.ToolCall():
            return (entry.call_name, entry.text) == (turn.name, turn.arguments)
        case base.Message(role="assistant"):
            text = _text(turn)
            if turn.audio_ms is None or not entry.audio_ms:
                return not entry.call_name and text == entry.text
            return turn.audio_ms <= entry.audio_ms + SLACK_MS and entry.text.startswith(text.rstrip())
        case _:
            return False


def _stands_for(entry: _Entry, turn: base.Turn, calls: dict[str, str]) -> bool:
    """Is the entry this turn, or can a truncation make it so? ``calls``: ids of calls, ours -> upstream's."""
    if entry.made_of is not None:
        return entry.made_of == _without_sound(turn, calls)
    if entry.audio_ms and isinstance(turn, base.Message):
        # The words of what was said do not change, but truncation takes them.
        return len(entry.ids) == 1 or not _is_cut(entry, turn)
    return True


def _is_cut(entry: _Entry, turn: base.Turn) -> bool:
    return (
        entry.made_of is None
        and isinstance(turn, base.Message)
        and turn.audio_ms is not None
        and turn.audio_ms < entry.audio_ms - SLACK_MS
    )


def _truncation(entry: _Entry, turn: base.Turn) -> list[Event]:
    """Of an entry that stands for the turn; afterwards it does so as it is."""
    if not _is_cut(entry, turn):
        return []
    assert isinstance(turn, base.Message)
    assert turn.audio_ms is not None
    entry.audio_ms = turn.audio_ms
    cut = {"item_id": entry.ids[0], "content_index": 0, "audio_end_ms": turn.audio_ms}
    return [{"type": "conversation.item.truncate"} | cut]


def _without_sound(turn: base.Turn, calls: dict[str, str]) -> base.Turn:
    """What tells a turn from others of its name: sound does not change under a name, and is not kept here."""
    match turn:
        case base.ToolCall():
            return turn
        case base.ToolOutput():
            return base.ToolOutput(calls.get(turn.call_id, ""), turn.output)
        case base.Message():
            content = tuple(
                base.AudioInput(b"", len(part.pcm)) if isinstance(part, base.AudioInput) else part
                for part in turn.content
            )
            return base.Message(turn.role, content)


def _text(message: base.Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, base.TextInput))


def _at_rate(audio: base.AudioInput) -> bytes:
    if audio.rate == RATE:
        return audio.pcm
    samples = Resampler(audio.rate, RATE).process(to_samples(audio.pcm, AudioFormat.PCM16), last=True)
    return from_samples(samples, AudioFormat.PCM16)
