"""The session: one client's conversation, from ``session.created`` to the close (protocol sections 3 to 5).

A session is a machine without a clock, a socket or a task: :meth:`Session.receive` takes one input and the time,
and returns what must happen next, in order. :attr:`Session.next_deadline` says when it wants to be woken.

Laws
----
1. ``Open -> Closing``: after ``Close`` was asked for, a session takes no input and asks for nothing.
2. An event is accepted whole or refused whole: checks come first, and a fault leaves everything as it was.
3. Every client event is answered in the order of arrival; one fault, one ``error`` event.
4. Recognition of an item listens while its audio comes, and then its words are awaited, by the client or by the
   model alone; it ends once, by one report, or is dropped with its turn or its item. Late reports change nothing.
5. A transcription session makes no responses.
6. At most one speculation stands; when its response begins, it is over. No event tells of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, assert_never

from msgspec import UNSET, structs

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat, Clip
from vivavoce.core import contract as c
from vivavoce.core import prompts, settings, turns
from vivavoce.core.context import Entry, ResponsePlan, by_index, chosen, plan_response
from vivavoce.core.conversation import Conversation
from vivavoce.core.deadlines import Deadlines
from vivavoce.core.entries import appended, check_call, check_parts, context_of, entry_of, spoken_entry
from vivavoce.core.held import HeldOutputs
from vivavoce.core.identity import Identity
from vivavoce.core.ids import Ids
from vivavoce.core.input_audio import InputAudio
from vivavoce.core.journal import Journal
from vivavoce.core.responses import Owed, Responses
from vivavoce.core.speculation import Speculator
from vivavoce.wire import client_events as ce
from vivavoce.wire import errors, items
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc
from vivavoce.wire.errors import ClientFault

CLOSE_GOING_AWAY: Final = 1001
_UTTERANCE_TICKS: Final = 10 * turns.FRAME_TICKS
"""Speech goes to the recogniser in pieces of this length while a turn lasts."""
_SILENCE_TICKS: Final = 3 * turns.FRAME_TICKS
"""So does the silence after it, of which any frame may be the last."""
_JUDGED_TICKS: Final = 8000 * TICKS_PER_MS
"""The end of a turn is judged by no more sound than this."""


_FORMATS: Final = {fmt.value: fmt for fmt in AudioFormat}
"""Asked for each append, and an enumeration is slow to find a member by its value."""


class Phase(Enum):
    OPEN = auto()
    CLOSING = auto()


_OPEN: Final = Phase.OPEN
"""An enumeration is slow to find a member by its name, too."""


@dataclass(slots=True)
class Recognition:
    """What is to become of the words of an item."""

    transcription: sc.Transcription | None
    """As the client asked for it; None where the words are for the model alone."""
    logprobs: bool
    listening: bool = True
    """Its audio still comes."""
    told: bool = False
    """The client knows some of the words already."""
    begun_anew: bool = False
    """It was told words that no longer count; it learns the others all at once."""


class Session:
    """One session. ``now`` is any monotonic clock in seconds, the same for every call."""

    def __init__(self, identity: Identity, config: sc.SessionConfig, now: float) -> None:
        self.config = config
        self._first_config = config
        self.phase = Phase.OPEN
        self._deadlines = Deadlines(now + identity.lifetime_s)
        self.next_deadline = self._deadlines.expiry
        self._identity = identity
        self._ids = Ids(identity.seed)
        self._id = self._ids.next("sess")
        self._journal = Journal()
        self._tokens = identity.tokens
        self._conversation = Conversation(self._ids.next("conv"), self._tokens, identity.message_limits)
        self._responses = Responses(
            model=identity.model,
            ids=self._ids,
            conversation=self._conversation,
            journal=self._journal,
            heard_text=identity.heard_text,
            window=identity.window,
        )
        self._audio = InputAudio()
        self._turn: turns.Turn = turns.Off() if config.turn_detection is None else turns.Quiet()
        self._fed_until = 0
        self._recognitions: dict[str, Recognition] = {}
        self._owed: Owed | None = None
        self._held = HeldOutputs()
        self._speculator = Speculator(self._responses, self._journal)
        self._ids.avoid(self._conversation.ids)

    @property
    def id(self) -> str:
        return self._id

    @property
    def kind(self) -> sc.SessionKind:
        return self._identity.kind

    @property
    def turn(self) -> turns.Turn:
        return self._turn

    @property
    def conversation(self) -> Conversation:
        return self._conversation

    @property
    def responses(self) -> Responses:
        return self._responses

    def new_event_id(self) -> str:
        return self._ids.next("event")

    def open(self) -> list[c.Effect]:
        """What a new connection is told first."""
        self._journal.emit(se.SessionCreated(self._describe()))
        if self.kind == "realtime":
            self._journal.emit(se.ConversationCreated(self._conversation.id))
        return self._journal.take()

    def receive(self, event: c.Input, now: float) -> list[c.Effect]:
        """One thing happened -> what to do about it, in order."""
        if self.phase is not _OPEN:
            return []
        try:
            if type(event) is ce.InputAudioAppend:
                return self._append(event)
            if self._dispatch(event, now):
                self._follow_up()
        except ClientFault as fault:
            event_id = getattr(event, "event_id", None)
            self._journal.emit(se.ErrorRaised(fault.body(event_id)))
        return self._journal.take()

    def _follow_up(self) -> None:
        """What had to wait for something else, and need not any more."""
        if self._held.events and self._responses.default is None:
            self._take_held_outputs()
        self._pay_owed_response()
        if self._speculator.made is not None:
            self._speculator.review(self._owed, self._turn, self.config, self._conversation.snapshot())

    def _dispatch(self, event: c.OtherInput, now: float) -> bool:
        """False where nothing can follow from it, as from nearly all frames of the VAD."""
        match event:
            case c.VadFrame():
                return self._vad_frame(event)
            case c.AudioProduced():
                self._responses.audio(event)
            case c.TextProduced():
                self._responses.text(event)
            case ce.SessionUpdate():
                self._update(event)
            case ce.InputAudioCommit():
                self._commit()
            case ce.InputAudioClear():
                self._clear()
            case ce.ItemCreate():
                self._item_create(event)
            case ce.ItemDelete():
                self._item_delete(event)
            case ce.ItemTruncate():
                self._item_truncate(event)
            case ce.ItemRetrieve():
                self._item_retrieve(event)
            case ce.ResponseCreate():
                self._response_create(event.options)
            case ce.ResponseCancel():
                self._response_cancel(event)
            case ce.Rejected():
                self._journal.emit(se.ErrorRaised(event.error))
            case c.VadFailed():
                self._journal.emit(se.ErrorRaised(errors.internal_error_body()))
            case c.TurnJudged():
                self._turn_judged(event)
            case c.Recognised():
                self._recognised(event)
            case c.RecognitionDelta():
                self._recognised_more(event)
            case c.RecognitionFailed():
                self._recognition_failed(event)
            case c.CallStarted():
                self._responses.call(event)
            case c.ArgumentsProduced():
                self._responses.arguments(event)
            case c.QuotaGranted():
                self._responses.granted(event)
            case c.QuotaDenied():
                self._responses.denied(event)
            case c.QuotaSettled():
                self._responses.settled()
                self._wait_for_speech(now)
                self._journal.emit(se.RateLimitsUpdated("done", event.rate_limits))
            case c.UsageReported():
                self._responses.used(event)
            case c.ResponseFinished():
                self._responses.finished(event)
            case c.ResponseFailed():
                self._responses.failed(event)
            case c.TimePassed():
                self._time_passed(now)
            case c.ShutDown():
                self._close(event.code, event.reason)
            case _:
                assert_never(event)
        return True

    # -------------------------------------------------------------------------------------------- session

    def _describe(self) -> se.Session:
        return se.Session(
            id=self._id,
            model=self._identity.model,
            expires_at=self._identity.created_at + self._identity.lifetime_s,
            config=self.config,
            kind=self.kind,
        )

    def _update(self, event: ce.SessionUpdate) -> None:
        if event.kind != self.kind:
            raise errors.wrong_session_kind(event.kind, self.kind)
        patch = event.session
        if patch.model is not UNSET and patch.model not in {self._identity.model, *self._identity.model_aliases}:
            raise errors.model_is_fixed("session.model")
        merged = settings.applied(self.config, patch, self._first_config, self._identity.abilities)
        self._check_voice(merged.voice, "session.voice")
        listens_anew = not settings.listens_alike(merged, self.config)
        self.config = merged
        self._apply_turn_detection()
        self.next_deadline = self._deadlines.next(self.config.turn_detection)
        if self._owed is not None and not self._owed.asked and not self._responds:
            self._owed = None
        if listens_anew:
            self._listen_anew()
        self._journal.emit(se.SessionUpdated(self._describe()))

    def _check_voice(self, voice: sc.Voice, param: str) -> None:
        if voice == self.config.voice:
            return
        self._responses.sync()
        if self._conversation.has_assistant_audio:
            raise errors.cannot_update_voice(param)

    def _apply_turn_detection(self) -> None:
        detects = self.config.turn_detection is not None
        if detects and isinstance(self._turn, turns.Off):
            self._turn = turns.Quiet()
        elif not detects and not isinstance(self._turn, turns.Off):
            self._drop_turn()
            self._turn = turns.Off()
            self._journal.ask(c.ResetVad())

    def _time_passed(self, now: float) -> None:
        if now < self.next_deadline:
            return
        if now < self._deadlines.expiry:
            self._idle_timed_out()
        else:
            error = errors.session_expired(self._identity.lifetime_s)
            self._journal.emit(se.ErrorRaised(error))
            self._close(CLOSE_GOING_AWAY, error.message)

    def _close(self, code: int, reason: str) -> None:
        self._speculator.drop()
        self._responses.stop_all()
        for item_id in self._recognitions:
            self._journal.ask(c.DropUtterance(item_id))
        self._recognitions.clear()
        self._journal.ask(c.Close(code, reason))
        self.phase = Phase.CLOSING

    # -------------------------------------------------------------------------------- input audio and turns

    @property
    def _input_format(self) -> AudioFormat:
        return _FORMATS[self.config.input_audio_format]

    def _append(self, event: ce.InputAudioAppend) -> list[c.Effect]:
        """What follows goes by no journal: fifty come in a second."""
        fmt = _FORMATS[self.config.input_audio_format]
        if event.undecodable:
            raise errors.invalid_audio("audio", fmt.value)
        start = self._audio.append(fmt, event.audio, self._conversation.clip_ticks)
        return [] if isinstance(self._turn, turns.Off) else [c.FeedVad(start, fmt, event.audio)]

    def _vad_frame(self, frame: c.VadFrame) -> bool:
        """True where the turn is another one afterwards."""
        vad = self.config.turn_detection
        if vad is None:
            return False
        before = self._turn
        if frame.end_tick <= self._audio.uncommitted_from and isinstance(before, turns.Quiet):
            # The client committed this by hand before it was judged: it belongs to an item already.
            return False
        self._turn, news = turns.hear(before, frame.end_tick, frame.probability, vad)
        if news is not None:
            self._turn_news(news, frame.end_tick, vad)
        match self._turn:
            case turns.Quiet():
                self._forget_idle_audio(frame.end_tick)
            case turns.Speaking():
                if frame.end_tick - self._fed_until >= _UTTERANCE_TICKS:
                    self._feed_utterance(self._turn.item_id, frame.end_tick)
            case turns.Hesitating(silent_from=silent_from):
                # The recogniser should not have the rest of the turn to do when it ends: all speech at once, and
                # then the silence.
                fed = self._fed_until
                if fed <= silent_from or frame.end_tick - fed >= _SILENCE_TICKS:
                    self._feed_utterance(self._turn.item_id, frame.end_tick)
                if self._identity.speculates and turns.is_likely_over(self._turn, vad):
                    self._speculate(self._turn)
        return self._turn is not before

    def _turn_news(self, news: turns.News, end_tick: int, vad: sc.TurnDetection) -> None:
        match news:
            case turns.Began():
                self._turn_began(news, end_tick, vad)
            case turns.Asked():
                self._ask(news)
            case turns.Resumed():
                self._journal.ask(c.WithdrawQuestion(news.item_id))
            case turns.Ended():
                self._turn_ended(news)

    def _ask(self, asked: turns.Asked) -> None:
        self._feed_utterance(asked.item_id, asked.end_tick)
        clip = self._audio.cut(max(asked.from_tick, asked.end_tick - _JUDGED_TICKS), asked.end_tick)
        self._journal.ask(c.JudgeTurn(asked.item_id, asked.silent_from, asked.end_tick, clip))

    def _turn_judged(self, report: c.TurnJudged) -> None:
        vad = self.config.turn_detection
        if vad is None:
            return
        self._turn, ended = turns.judged(self._turn, report.item_id, report.silent_from, report.probability, vad)
        if ended is not None:
            self._turn_ended(ended)

    @property
    def _responds(self) -> bool:
        """The end of a turn is answered without being asked for."""
        vad = self.config.turn_detection
        return vad is not None and vad.create_response and self.kind == "realtime"

    def _turn_began(self, began: turns.Began, end_tick: int, vad: sc.TurnDetection) -> None:
        item_id = self._ids.next("item")
        self.next_deadline = self._deadlines.speech()
        began = turns.Began(max(began.from_tick, self._audio.kept_from))
        self._turn = turns.begin(began, item_id)
        self._journal.emit(se.SpeechStarted(began.from_tick // TICKS_PER_MS, item_id))
        if vad.interrupt_response and self._responses.cancel(None, "turn_detected"):
            self._owed = None
        self._open_utterance(item_id, began.from_tick)
        self._feed_utterance(item_id, end_tick)

    def _turn_ended(self, ended: turns.Ended) -> None:
        self._journal.emit(se.SpeechStopped(ended.end_tick // TICKS_PER_MS, ended.item_id))
        if ended.end_tick <= ended.from_tick:
            # Committed by hand, silence and all, before the VAD saw the end of it: no audio is left for an item.
            self._recognitions.pop(ended.item_id, None)
            self._journal.ask(c.DropUtterance(ended.item_id))
            return
        self._feed_utterance(ended.item_id, ended.end_tick)
        clip = self._audio.cut(ended.from_tick, ended.end_tick)
        self._audio.committed(ended.end_tick)
        self._add_user_audio(ended.item_id, clip)
        if self._responds and self._owed is None:
            ahead = self._speculator.made
            response_id = ahead.response_id if ahead is not None else self._ids.next("resp")
            self._owed = Owed(response_id, sc.ResponseOptions(), None, asked=False)

    def _commit(self) -> None:
        match self._turn:
            case turns.Speaking(item_id, start) | turns.Hesitating(item_id, start):
                clip = self._audio.commit(start)
                self._feed_utterance(item_id, self._audio.clock)
                rest = self._ids.next("item")
                self._add_user_audio(item_id, clip)
                self._turn = turns.renamed(self._turn, rest, self._audio.clock)
                self._open_utterance(rest, self._audio.clock)
                self._forget_idle_audio(self._audio.clock)
            case turns.Quiet() | turns.Off():
                clip = self._audio.commit(max(self._audio.uncommitted_from, self._audio.kept_from))
                self.next_deadline = self._deadlines.speech()
                item_id = self._ids.next("item")
                self._open_utterance(item_id, self._audio.clock)
                self._journal.ask(c.FeedUtterance(item_id, clip))
                self._add_user_audio(item_id, clip)
                if isinstance(self._turn, turns.Off):
                    self._audio.keep_from(self._audio.clock)

    def _forget_idle_audio(self, tick: int) -> None:
        """A turn that begins from ``tick`` on reaches back as far as its padding."""
        vad = self.config.turn_detection
        if vad is not None:
            reach, silent_from = tick - vad.prefix_padding_ms * TICKS_PER_MS, self._deadlines.silent_from
            self._audio.keep_from(reach if silent_from is None or reach < silent_from else silent_from)

    def _wait_for_speech(self, now: float) -> None:
        """A response may have ended: somebody else may speak now."""
        spoken_ms, self._responses.spoken_ms = self._responses.spoken_ms, None
        if spoken_ms is not None and isinstance(self._turn, turns.Quiet) and self._owed is None:
            self._deadlines.heard(now, self._audio.clock, spoken_ms)
            self.next_deadline = self._deadlines.next(self.config.turn_detection)

    def _idle_timed_out(self) -> None:
        end = self._audio.clock
        start = min(max(self._deadlines.silent_from or 0, self._audio.uncommitted_from), end)
        self.next_deadline = self._deadlines.speech()
        item_id = self._ids.next("item")
        self._journal.emit(se.IdleTimedOut(start // TICKS_PER_MS, end // TICKS_PER_MS, item_id))
        self._open_utterance(item_id, start)
        self._feed_utterance(item_id, end)
        clip = self._audio.cut(start, end)
        self._audio.committed(end)
        self._add_user_audio(item_id, clip)
        if self._responds:
            self._owed = Owed(self._ids.next("resp"), sc.ResponseOptions(), None, asked=False)

    def _clear(self) -> None:
        self._drop_turn()
        self._audio.clear()
        if not isinstance(self._turn, turns.Off):
            self._turn = turns.Quiet()
            self._journal.ask(c.ResetVad())
        self._journal.emit(se.InputAudioCleared())

    def _drop_turn(self) -> None:
        if isinstance(self._turn, turns.Speaking | turns.Hesitating):
            self._recognitions.pop(self._turn.item_id, None)
            self._journal.ask(c.DropUtterance(self._turn.item_id))

    def _open_utterance(self, item_id: str, from_tick: int) -> None:
        transcription, logprobs = self.config.input_audio_transcription, settings.wants_logprobs(self.config)
        self._recognitions[item_id] = Recognition(transcription, logprobs)
        self._fed_until = from_tick
        self._journal.ask(c.OpenUtterance(item_id, transcription, logprobs, settings.is_judged(self.config)))

    def _listen_anew(self) -> None:
        """Other words are wanted: in mid-speech the recogniser gets the turn again, from its beginning."""
        if isinstance(self._turn, turns.Speaking | turns.Hesitating):
            before = self._recognitions[self._turn.item_id]
            self._journal.ask(c.DropUtterance(self._turn.item_id))
            self._open_utterance(self._turn.item_id, self._turn.from_tick)
            self._recognitions[self._turn.item_id].begun_anew = before.told or before.begun_anew

    def _feed_utterance(self, item_id: str, end_tick: int) -> None:
        if end_tick > self._fed_until:
            clip = self._audio.cut(self._fed_until, end_tick)
            self._fed_until = end_tick
            if clip.ticks:
                self._journal.ask(c.FeedUtterance(item_id, clip))

    def _add_user_audio(self, item_id: str, clip: Clip) -> None:
        if self._identity.keeps_audio:
            clip.join()
        entry = spoken_entry(item_id, clip, self._tokens)
        self._recognitions[item_id].listening = False
        previous = self._conversation.add(entry)
        self._journal.emit(se.InputAudioCommitted(previous, item_id))
        self._journal.emit(se.ItemAdded(previous, entry.item))
        self._journal.emit(se.ItemDone(previous, entry.item))
        self._journal.ask(c.CloseUtterance(item_id))

    # ---------------------------------------------------------------------------------------- speculation

    def _speculate(self, turn: turns.Hesitating) -> None:
        """Offer the response that the turn would have now, if it would have one at once."""
        if self._speculator.has_considered(turn) or turn.until <= turn.from_tick:
            return
        if self._responds and self._owed is None and self._responses.free:
            conversation = self._conversation.snapshot()
            spoken = spoken_entry(turn.item_id, self._audio.cut(turn.from_tick, turn.until), self._tokens)
            plan = self._plan(self._ids.next("resp"), sc.ResponseOptions(), (*conversation, spoken))
            fitted = self._responses.fitted(plan, self.config.truncation)
            if fitted is not None:
                self._speculator.offer(fitted, turn, self.config, conversation)

    # ---------------------------------------------------------------------------------------- recognition

    def _recognised_more(self, report: c.RecognitionDelta) -> None:
        """Told as it is known, also while the person speaks on (protocol section 5)."""
        state = self._recognitions.get(report.item_id)
        if state is not None and state.transcription is not None and not state.begun_anew and report.text:
            state.told = True
            logprobs = report.logprobs if state.logprobs else UNSET
            self._journal.emit(se.TranscriptionDelta(report.item_id, 0, report.text, logprobs))

    def _recognised(self, report: c.Recognised) -> None:
        entry = self._conversation.get(report.item_id)
        if entry is None:
            return
        clip = entry.clips.get(report.content_index)
        state = self._recognitions.pop(report.item_id, None) if report.clip is None else None
        if clip is None or (state is None and report.clip is not clip):
            return
        item = entry.item
        if state is not None and state.transcription is not None:
            item = items.MessageItem(item.id, "user", (items.InputAudioPart(transcript=report.text),))
            cost = self._tokens.transcription(state.transcription, clip.ticks, report.text)
            logprobs = report.logprobs if state.logprobs else UNSET
            self._journal.emit(se.TranscriptionCompleted(item.id, 0, report.text, cost, logprobs))
        heard = by_index({**entry.heard, report.content_index: report.text})
        clips = entry.clips
        if not self._identity.keeps_audio:
            clips = by_index({at: clip for at, clip in clips.items() if at != report.content_index})
        known = structs.replace(entry, item=item, heard=heard, clips=clips)
        self._conversation.replace(known)
        self._responses.heard(entry, known)

    def _recognition_failed(self, report: c.RecognitionFailed) -> None:
        state = self._recognitions.pop(report.item_id, None)
        if state is not None and state.transcription is not None and report.item_id in self._conversation:
            fault = errors.transcription_failed(report.code, report.item_id)
            self._journal.emit(se.TranscriptionFailed(report.item_id, 0, fault))

    # --------------------------------------------------------------------------------------- conversation

    def _item_create(self, event: ce.ItemCreate) -> None:
        self._check_parts(event.item, "item")
        self._conversation.check_place(event.previous_item_id)
        if event.item.id and self._is_taken(event.item.id):
            raise errors.duplicate_item(event.item.id)
        if isinstance(event.item, items.FunctionCallOutputItem):
            check_call(self._conversation, event.item.call_id, "item.call_id")
            if self._identity.holds_outputs and self._responses.default is not None:
                self._held.hold(event, event.item, self._conversation)
                return
        self._add(self._entry(event.item), event.previous_item_id)

    def _take_held_outputs(self) -> None:
        for event in self._held.take():
            try:
                self._item_create(event)
            except ClientFault as fault:
                self._journal.emit(se.ErrorRaised(fault.body(event.event_id)))

    def _add(self, entry: Entry, previous_item_id: str | None) -> None:
        previous = self._conversation.add(entry, previous_item_id)
        self._journal.emit(se.ItemAdded(previous, entry.item))
        self._journal.emit(se.ItemDone(previous, entry.item))

    def _is_taken(self, item_id: str) -> bool:
        """An item has this id, the turn under way has announced that its item will, or it was deleted while a
        response was producing it."""
        announced = isinstance(self._turn, turns.Speaking | turns.Hesitating) and self._turn.item_id == item_id
        return announced or item_id == self._responses.open_item_id or item_id in self._conversation

    def _item_delete(self, event: ce.ItemDelete) -> None:
        self._conversation.delete(event.item_id)
        if self._recognitions.pop(event.item_id, None) is not None:
            # It holds the sound, which counts no more for what the session may hold.
            self._journal.ask(c.DropUtterance(event.item_id))
        self._journal.emit(se.ItemDeleted(event.item_id))

    def _item_truncate(self, event: ce.ItemTruncate) -> None:
        self._responses.sync()
        self._conversation.truncate(event.item_id, event.content_index, event.audio_end_ms)
        self._journal.emit(se.ItemTruncated(event.item_id, event.content_index, event.audio_end_ms))

    def _item_retrieve(self, event: ce.ItemRetrieve) -> None:
        self._responses.sync()
        entry = self._conversation.get(event.item_id)
        if entry is None:
            raise errors.unknown_item("retrieving", "retrieve", event.item_id)
        self._journal.ask(c.Retrieve(entry.item, entry.clips, self._input_format))

    def _entry(self, item: items.Item) -> Entry:
        """Raises ClientFault when there is no room for its audio."""
        return entry_of(item, self._ids, self._tokens, self._clip)

    def _check_parts(self, item: items.ContextItem, path: str) -> None:
        check_parts(item, path, self._input_format, sees_images=self._identity.sees_images)

    def _clip(self, part: items.InputAudioPart) -> Clip:
        fmt = self._input_format
        self._audio.check_room(fmt.ticks(len(part.audio)), self._conversation.clip_ticks)
        return Clip(((fmt, part.audio),)) if part.audio else Clip()

    # ------------------------------------------------------------------------------------------ responses

    def _response_create(self, options: sc.ResponseOptions) -> None:
        if self.kind != "realtime":
            raise errors.no_responses_here()
        options = prompts.filled(options, self._identity.prompts, "response.prompt")
        in_band = options.conversation == "auto"
        for item, path in (*options.placed_input, *options.placed_append):
            self._check_parts(item, path)
        if in_band and self._owed is not None and self._owed.asked:
            raise errors.active_response(self._owed.response_id)
        if not (in_band and options.cancel_previous):
            self._responses.check_free(in_band=in_band)
        voice = chosen(options.voice, self.config.voice)
        if in_band:
            self._check_voice(voice, "response.voice")
        tools = chosen(options.tools, self.config.tools)
        tool_choice = chosen(options.tool_choice, self.config.tool_choice)
        settings.check_tool_choice(tool_choice, tools, "response.tool_choice")
        effort = chosen(options.reasoning, self.config.reasoning)
        settings.check_reasoning(effort, "response.reasoning", reasons=self._identity.reasons)
        # Out of band a response begins beside the one of the conversation, and reads what that has said so far.
        self._responses.sync()
        conversation, append = self._conversation, options.placed_append
        context = None if options.input is None else context_of(options.placed_input, conversation, self._entry)
        if in_band:
            added = appended(append, conversation, self._is_taken, self._entry)
        else:
            added = context_of(append, conversation, self._entry)
        if options.cancel_previous:
            self._responses.cancel(None, "client_cancelled")
        if in_band:
            for entry in added:
                self._add(entry, None)
        elif added:
            context = (*conversation.snapshot(), *added)
        response_id = self._ids.next("resp")
        if in_band:
            self._owed = Owed(response_id, options, context, asked=True)
        else:
            self._start_response(response_id, options, context)

    def _response_cancel(self, event: ce.ResponseCancel) -> None:
        if not self._responses.cancel(event.response_id, "client_cancelled"):
            raise errors.nothing_to_cancel()

    def _pay_owed_response(self) -> None:
        """``rate_limits.updated`` of a response belongs before the next one."""
        owed = self._owed
        if owed is not None and self._responses.free and self.phase is Phase.OPEN:
            self._owed = None
            self._start_response(owed.response_id, owed.options, owed.context)

    def _start_response(
        self, response_id: str, options: sc.ResponseOptions, context: tuple[Entry, ...] | None
    ) -> None:
        if options.conversation == "auto":
            self.next_deadline = self._deadlines.speech()
        plan = self._plan(response_id, options, self._conversation.snapshot() if context is None else context)
        self._responses.create(plan, self.config.truncation, metadata=options.metadata)

    def _plan(self, response_id: str, options: sc.ResponseOptions, context: tuple[Entry, ...]) -> ResponsePlan:
        return plan_response(response_id, self._id, options, self.config, context)
