"""A reader of a session's effects that knows the protocol and nothing of the session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vivavoce.audio.formats import Clip
from vivavoce.core import contract as c
from vivavoce.core.context import Entry, ResponsePlan
from vivavoce.wire import items
from vivavoce.wire import server_events as se


@dataclass
class OpenItem:
    item_id: str
    index: int
    text: str = ""
    ended: bool = False
    """Its whole text was told."""
    part: bool = False


@dataclass
class Running:
    """A response between ``response.created`` and ``response.done``, as a client sees it."""

    id: str
    in_band: bool
    output: list[items.Item] = field(default_factory=list)
    open: OpenItem | None = None
    limit: int | None = None
    reserved: bool = False
    plan: ResponsePlan | None = None


class Watcher:
    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.running: dict[str, Running] = {}
        self.ended: set[str] = set()
        self.stopped: set[str] = set()
        self.settled: set[str] = set()
        self.conversation: list[str] = []
        self.deleted: set[str] = set()
        self.place: str | None = None
        """``previous_item_id`` of the client event under way."""
        self.pending_done: set[str] = set()
        """Items of the conversation that were added, and not yet done."""
        self.talking: str | None = None
        """The item of the turn under way: the one that speech_started announced, until it is committed by hand."""
        self.question: c.JudgeTurn | None = None
        """About the end of a turn, and not withdrawn."""
        self.last_stop_ms = 0
        self.utterances: dict[str, list[Clip]] = {}
        self.finished_utterances: set[str] = set()
        self.transcripts: set[str] = set()
        self.committed: set[str] = set()
        self.speculation: ResponsePlan | None = None
        self.closed = False

    def read(self, effects: list[c.Effect]) -> None:
        for effect in effects:
            assert not self.closed, "something is asked for after Close"
            if isinstance(effect, c.Emit):
                self._event(effect.event)
            else:
                self._request(effect)
        if not self.closed:
            assert self.ended == self.stopped == self.settled, "an ended response is stopped and settled at once"
            assert sum(run.in_band for run in self.running.values()) <= 1
            if self.speculation is not None:
                running = {run.id for run in self.running.values() if run.in_band}
                assert running <= {self.speculation.response_id}, "a speculation outlives its use"
            for item_id in self.pending_done - self.deleted:
                assert any(run.open and run.open.item_id == item_id for run in self.running.values())

    def _new(self, name: str, prefix: str) -> None:
        assert name.startswith(prefix)
        assert name not in self.ids, f"{name} is there twice"
        self.ids.add(name)

    # ------------------------------------------------------------------------------------------- requests

    def _request(self, effect: c.Effect) -> None:
        match effect:
            case c.ReserveQuota(response_id, tokens):
                run = self.running[response_id]
                assert not run.reserved
                run.reserved = True
                assert tokens >= 1
            case c.StartResponse(plan):
                run = self.running[plan.response_id]
                assert run.plan is None, "started twice"
                run.plan = plan
                self._speculated(plan)
            case c.StopResponse(response_id):
                assert response_id not in self.stopped
                self.stopped.add(response_id)
                if self.speculation is not None and self.speculation.response_id == response_id:
                    self.speculation = None
            case c.Speculate(plan, input_tokens):
                assert self.speculation is None
                assert plan.response_id not in self.ids
                assert plan.context[-1].item.id == self.talking
                assert input_tokens > 0
                assert not any(run.in_band for run in self.running.values())
                self.speculation = plan
            case c.DropSpeculation(response_id):
                assert self.speculation is not None
                assert self.speculation.response_id == response_id
                assert response_id not in self.ids, "the client has heard of it"
                self.ids.add(response_id)
                self.speculation = None
            case c.SettleQuota(response_id, tokens, _):
                assert response_id not in self.settled
                assert tokens >= 0
                self.settled.add(response_id)
            case c.JudgeTurn(item_id, silent_from, end_tick, clip):
                assert item_id == self.talking
                assert silent_from < end_tick
                assert clip.ticks <= 8000 * 24
                self.question = effect
            case c.WithdrawQuestion(item_id):
                assert item_id == self.talking
                self.question = None
            case c.OpenUtterance(item_id):
                assert item_id not in self.utterances
                assert item_id not in self.finished_utterances
                self.utterances[item_id] = []
                if self.talking in self.committed:
                    self.talking = item_id
            case c.FeedUtterance(item_id, clip):
                assert clip.ticks > 0
                self.utterances[item_id].append(clip)
            case c.CloseUtterance(item_id):
                assert item_id in self.utterances
                self._withdrawn(item_id)
                self.finished_utterances.add(item_id)
            case c.DropUtterance(item_id):
                assert item_id in self.utterances or item_id in self.finished_utterances
                self.utterances.pop(item_id, None)
                self._withdrawn(item_id)
            case c.ResetVad():
                self.talking = None
            case c.Close():
                self.closed = True
                assert self.speculation is None
                assert self.running.keys() <= self.stopped & self.settled, "an engine was left at work"
                self.ended |= self.running.keys()
                self.running.clear()
                self.talking = None
            case _:
                assert isinstance(effect, c.FeedVad | c.Retrieve)

    def _speculated(self, plan: ResponsePlan) -> None:
        """What a speculation was about is what its response is about, but for the silence at the end."""
        made, self.speculation = self.speculation, None
        if made is None or made.response_id != plan.response_id:
            self.speculation = made
            return
        assert replace(made, context=made.context[:-1]) == replace(plan, context=plan.context[:-1])
        said, heard = made.context[-1], plan.context[-1]
        assert (said.item.id, said.listened) == (heard.item.id, heard.listened)
        (fmt, data), *_ = said.clips[0].segments
        assert heard.clips[0].segments[0][0] is fmt
        assert heard.clips[0].segments[0][1].startswith(data)

    def _withdrawn(self, item_id: str) -> None:
        if self.question is not None and self.question.item_id == item_id:
            self.question = None

    def heard_whole(self, entries: Mapping[str, Entry]) -> None:
        """The recogniser was given just the audio that the item holds."""
        for item_id in self.committed & self.utterances.keys() & self.finished_utterances & entries.keys():
            fed = [segment for clip in self.utterances.pop(item_id) for segment in clip.segments]
            assert _joined(fed) == _joined(entries[item_id].clips[0].segments)

    # --------------------------------------------------------------------------------------------- events

    def _event(self, event: se.ServerEvent) -> None:
        match event:
            case se.ItemAdded(previous, item):
                self._added(previous, item)
            case se.ItemDone(previous, item):
                assert item.id in self.pending_done
                self.pending_done.discard(item.id)
                assert item.status != "in_progress"
                assert previous == self._predecessor(item.id)
            case se.ItemDeleted(item_id):
                self.conversation.remove(item_id)
                self.deleted.add(item_id)
            case se.ItemTruncated(item_id, _, _):
                assert item_id in self.conversation
            case se.InputAudioCommitted(previous, item_id):
                assert previous == (self.conversation[-1] if self.conversation else None)
                self.committed.add(item_id)
            case se.SpeechStarted(start_ms, item_id):
                assert self.talking is None
                self._new(item_id, "item_")
                assert start_ms >= 0
                self.talking = item_id
            case se.SpeechStopped(end_ms, item_id):
                assert self.talking == item_id
                assert end_ms % 32 == 0
                assert end_ms >= self.last_stop_ms
                self.last_stop_ms = end_ms
                self.talking = None
            case se.TranscriptionCompleted(item_id, 0) | se.TranscriptionFailed(item_id, 0, _):
                assert item_id not in self.transcripts, "transcribed twice"
                assert item_id in self.committed
                self.transcripts.add(item_id)
            case se.TranscriptionDelta(item_id, 0, _):
                assert item_id not in self.transcripts
            case _:
                self._response_event(event)

    def _added(self, previous: str | None, item: items.Item) -> None:
        assert item.id not in self.conversation
        if self.place is None:
            at = len(self.conversation)
        elif self.place in self.conversation:
            at = self.conversation.index(self.place) + 1
        else:
            assert self.place == "root"
            at = 0
        self.conversation.insert(at, item.id)
        assert previous == self._predecessor(item.id)
        self.pending_done.add(item.id)

    def _predecessor(self, item_id: str) -> str | None:
        at = self.conversation.index(item_id)
        return self.conversation[at - 1] if at else None

    def _response_event(self, event: se.ServerEvent) -> None:
        match event:
            case se.ResponseCreated(response):
                self._new(response.id, "resp_")
                assert (response.status, response.output, response.usage) == ("in_progress", (), None)
                self.running[response.id] = Running(
                    response.id, response.conversation_id is not None, limit=response.max_output_tokens
                )
            case se.ResponseDone(response):
                run = self.running.pop(response.id)
                self.ended.add(response.id)
                assert run.open is None, "an item was left open"
                assert list(response.output) == run.output
                assert response.status != "in_progress"
                assert (response.status_details is None) == (response.status == "completed")
                if response.status_details is not None:
                    assert response.status_details.type == response.status
                self._usage(response.usage, run)
            case se.OutputItemAdded(response_id, index, item):
                run = self.running[response_id]
                assert run.open is None
                assert index == len(run.output)
                self._new(item.id, "item_")
                run.open = OpenItem(item.id, index)
            case se.OutputItemDone(response_id, index, item):
                run = self.running[response_id]
                assert run.open is not None
                assert run.open.ended
                assert not run.open.part
                assert (item.id, index) == (run.open.item_id, run.open.index)
                run.output.append(item)
                run.open = None
            case se.ContentPartAdded(response_id, item_id):
                opened = self._open(response_id, item_id)
                assert not opened.part
                opened.part = True
            case se.ContentPartDone(response_id, item_id):
                opened = self._open(response_id, item_id)
                assert opened.part
                assert opened.ended
                assert event.part in (items.TextPart(opened.text), items.AudioPart(opened.text))
                opened.part = False
            case se.TextDelta(response_id, item_id) | se.TranscriptDelta(response_id, item_id):
                opened = self._open(response_id, item_id)
                assert opened.part
                assert not opened.ended
                opened.text += event.delta
            case se.ArgumentsDelta(response_id, item_id):
                opened = self._open(response_id, item_id)
                assert not opened.part
                opened.text += event.delta
            case se.AudioDelta(response_id, item_id) | se.AudioDone(response_id, item_id):
                assert self._open(response_id, item_id).part
            case se.TextDone(response_id, item_id) | se.TranscriptDone(response_id, item_id):
                whole = event.text if isinstance(event, se.TextDone) else event.transcript
                self._said(response_id, item_id, whole)
            case se.ArgumentsDone(response_id, item_id):
                self._said(response_id, item_id, event.arguments)
            case _:
                assert isinstance(
                    event,
                    se.ErrorRaised
                    | se.SessionCreated
                    | se.SessionUpdated
                    | se.ConversationCreated
                    | se.InputAudioCleared
                    | se.RateLimitsUpdated,
                )

    def _open(self, response_id: str, item_id: str) -> OpenItem:
        opened = self.running[response_id].open
        assert opened is not None
        assert opened.item_id == item_id
        return opened

    def _said(self, response_id: str, item_id: str, whole: str) -> None:
        opened = self._open(response_id, item_id)
        assert not opened.ended
        assert opened.text == whole, "the deltas do not make the text"
        opened.ended = True

    def _usage(self, usage: se.Usage | None, run: Running) -> None:
        assert usage is not None
        assert usage.total == usage.input_text + usage.input_audio + usage.output_text + usage.output_audio
        assert min(getattr(usage, name) for name in usage.__struct_fields__) >= 0
        assert usage.cached_text <= usage.input_text
        assert usage.cached_audio <= usage.input_audio
        assert (usage.cached_text % 64, usage.cached_audio % 64) == (0, 0)
        if run.limit is not None:
            assert usage.output_text + usage.output_audio <= run.limit


def _joined(segments: object) -> list[tuple[object, bytes]]:
    joined: list[tuple[object, bytes]] = []
    assert isinstance(segments, list | tuple)
    for fmt, data in segments:
        if joined and joined[-1][0] is fmt:
            joined[-1] = (fmt, joined[-1][1] + data)
        elif data:
            joined.append((fmt, data))
    return joined
