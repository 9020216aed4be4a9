"""The output of one response: brackets that always close (protocol section 5).

Laws
----
1. Brackets nest: item -> part -> delta. At most one item is open; products go into it, or open the next one.
2. Whatever opens is closed, once, by :meth:`Output.close`: ``.done`` events come in the order of the protocol, also
   when a response is cut short, and then the item's status says so.
3. The concatenation of the deltas of a part is the text of its ``.done``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from vivavoce.audio.formats import AudioFormat
from vivavoce.core.alignment import Alignment, Mark
from vivavoce.core.ids import Ids
from vivavoce.wire import items
from vivavoce.wire import server_events as se


@dataclass(frozen=True, slots=True)
class Opened:
    """An item begins; it takes its place in the conversation now."""

    item: items.Item


@dataclass(frozen=True, slots=True)
class Closed:
    """An item as it is in the end, with the sound that was sent for it."""

    item: items.Item
    audio_ticks: int
    alignment: Alignment | None = field(default=None, compare=False)
    """Of its words and its sound; None for a call."""


Step: TypeAlias = se.ServerEvent | Opened | Closed


@dataclass(frozen=True, slots=True)
class Between:
    """No item is open."""


@dataclass(slots=True)
class OpenMessage:
    item_id: str
    alignment: Alignment
    texts: list[str] = field(default_factory=list)
    audio_ticks: int = 0


@dataclass(slots=True)
class OpenCall:
    item_id: str
    call_id: str
    name: str
    arguments: list[str] = field(default_factory=list)


class Output:
    """The items of one response, done and open. Steps come in the order to perform them."""

    def __init__(
        self, response_id: str, *, speaks: bool, output_format: AudioFormat, ids: Ids, speed: float = 1.0
    ) -> None:
        self.done: list[items.Item] = []
        self.open: Between | OpenMessage | OpenCall = Between()
        self._response_id = response_id
        self._speaks = speaks
        self._format = output_format
        self._ids = ids
        self._speed = speed
        self.audio_ticks = 0
        """Sound of all items so far."""

    @property
    def untouched(self) -> bool:
        """Nothing was ever produced."""
        return not self.done and isinstance(self.open, Between)

    @property
    def has_called(self) -> bool:
        """A function was called, or is being called."""
        return isinstance(self.open, OpenCall) or any(isinstance(one, items.FunctionCallItem) for one in self.done)

    def text(self, delta: str) -> list[Step]:
        steps: list[Step] = []
        message = self._message(steps)
        message.texts.append(delta)
        told = se.TranscriptDelta if self._speaks else se.TextDelta
        steps.append(told(self._response_id, message.item_id, len(self.done), 0, delta))
        return steps

    def audio(self, data: bytes, marks: tuple[Mark, ...] = ()) -> list[Step]:
        steps: list[Step] = []
        message = self._message(steps)
        if marks:
            message.alignment.add(marks)
        ticks = self._format.ticks(len(data))
        message.audio_ticks += ticks
        self.audio_ticks += ticks
        steps.append(se.AudioDelta(self._response_id, message.item_id, len(self.done), 0, data))
        return steps

    def place(self, marks: tuple[Mark, ...]) -> None:
        """Where words of the open message stand in the sound that was sent of it."""
        if isinstance(self.open, OpenMessage):
            self.open.alignment.add(marks)

    def call(self, name: str) -> Iterator[Step]:
        yield from self.close("completed")
        call = OpenCall(self._ids.next("item"), self._ids.next("call"), name)
        self.open = call
        item = items.FunctionCallItem(call.item_id, call.call_id, name, "", "in_progress")
        yield se.OutputItemAdded(self._response_id, len(self.done), item)
        yield Opened(item)

    def arguments(self, delta: str) -> Iterator[Step]:
        """More arguments of the open call; the runtime lets none through without one."""
        call = self.open
        assert isinstance(call, OpenCall)
        call.arguments.append(delta)
        yield se.ArgumentsDelta(self._response_id, call.item_id, len(self.done), call.call_id, delta)

    def so_far(self) -> Closed | None:
        """The open item with all that was sent of it."""
        match self.open:
            case Between():
                return None
            case OpenMessage(item_id, alignment, _, audio_ticks):
                item = items.MessageItem(item_id, "assistant", (self._part(self.open),), "in_progress")
                return Closed(item, audio_ticks, alignment)
            case OpenCall(item_id, call_id, name, arguments):
                return Closed(items.FunctionCallItem(item_id, call_id, name, "".join(arguments), "in_progress"), 0)

    def close(self, status: items.ItemStatus) -> Iterator[Step]:
        """Close what is open, from the inside out."""
        match self.open:
            case Between():
                return
            case OpenMessage():
                yield from self._close_message(self.open, status)
            case OpenCall():
                yield from self._close_call(self.open, status)

    def _message(self, steps: list[Step]) -> OpenMessage:
        """The open message; what it takes to open one is added to ``steps``."""
        if isinstance(self.open, OpenMessage):
            return self.open
        steps += self.close("completed")
        message = OpenMessage(self._ids.next("item"), Alignment(self._speed))
        self.open = message
        item = items.MessageItem(message.item_id, "assistant", (), "in_progress")
        part: items.OutputPart = items.AudioPart("") if self._speaks else items.TextPart("")
        steps.append(se.OutputItemAdded(self._response_id, len(self.done), item))
        steps.append(Opened(item))
        steps.append(se.ContentPartAdded(self._response_id, message.item_id, len(self.done), 0, part))
        return message

    def _part(self, message: OpenMessage) -> items.OutputPart:
        text = "".join(message.texts)
        return items.AudioPart(text) if self._speaks else items.TextPart(text)

    def _close_message(self, message: OpenMessage, status: items.ItemStatus) -> Iterator[Step]:
        at = (self._response_id, message.item_id, len(self.done), 0)
        part = self._part(message)
        if isinstance(part, items.AudioPart):
            yield se.AudioDone(*at)
            yield se.TranscriptDone(*at, part.transcript or "")
        else:
            yield se.TextDone(*at, part.text)
        yield se.ContentPartDone(*at, part)
        if status == "completed":
            message.alignment.add((Mark(message.audio_ticks, sum(map(len, message.texts))),))
        item = items.MessageItem(message.item_id, "assistant", (part,), status)
        yield from self._finish(item, message.audio_ticks, message.alignment)

    def _close_call(self, call: OpenCall, status: items.ItemStatus) -> Iterator[Step]:
        arguments = "".join(call.arguments)
        yield se.ArgumentsDone(self._response_id, call.item_id, len(self.done), call.call_id, call.name, arguments)
        item = items.FunctionCallItem(call.item_id, call.call_id, call.name, arguments, status)
        yield from self._finish(item, 0)

    def _finish(self, item: items.Item, audio_ticks: int, alignment: Alignment | None = None) -> Iterator[Step]:
        yield Closed(item, audio_ticks, alignment)
        yield se.OutputItemDone(self._response_id, len(self.done), item)
        self.done.append(item)
        self.open = Between()
