"""The driver: sole writer of one session. One inbox in, effects out, in order.

Laws
----
1. Inputs are handled one at a time, in the order in which they were posted; an input posted while another is being
   handled waits its turn. Handling never waits: no await stands between an input and its effects.
2. Every task of the session belongs to one group. Stopping is ``cancel``, never awaited here; the group joins.
3. A response's task ends in one report, ResponseFinished or ResponseFailed, or is stopped and ends in none. A
   speculation belongs to nobody's response until that takes it, and reports nothing (``runtime.speculation``).
4. What makes input or output in bulk waits for room first (:meth:`Driver.ready`, ``Outbox.drained``), so that
   neither a flood nor a slow reader grows memory. The client is not read either while something is done aside, a
   long answer or long sound, so that all keeps its order, and at most one of them is under way.
5. Noise is taken out of audio before the session has it. What the filter holds back comes to the session before an
   event that is about the buffer, which so means all audio before it.
6. What the meter is asked is answered in order, now or later; its questions are no tasks of the group, for what was
   reserved must be settled also when the session ends in between.
7. When :meth:`Driver.running` is left, nothing of the session is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, assert_never

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.noise_reduction import NoiseReducer
from vivavoce.audio.resample import clip_to_wire
from vivavoce.core import contract as c
from vivavoce.core import usage
from vivavoce.core.context import ResponsePlan
from vivavoce.core.session import CLOSE_GOING_AWAY, Session
from vivavoce.engines.base import SessionAware
from vivavoce.runtime.bugs import engine_error, outline
from vivavoce.runtime.cascade import Cascade
from vivavoce.runtime.engines import Cascaded, Denial, Engines, Meter, Native, Outbox, Room
from vivavoce.runtime.listener import Listener
from vivavoce.runtime.metering import Metering
from vivavoce.runtime.request import Words
from vivavoce.runtime.speculation import Speculation
from vivavoce.runtime.speech_native import SpeechNative
from vivavoce.runtime.timings import Timings
from vivavoce.wire import client_events as ce
from vivavoce.wire import errors
from vivavoce.wire import server_events as se
from vivavoce.wire.codec import Codec
from vivavoce.wire.errors import ServerFault

log = logging.getLogger(__name__)

_BACKLOG_POLL_S: Final = 0.02
CLOSE_BUG: Final = 1011
_REDUCED_AT_ONCE_MS: Final = 200
"""Noise of so much sound is reduced in one go, in half a millisecond; then others get their turn."""
_ABOUT_THE_BUFFER: Final = (ce.InputAudioCommit, ce.InputAudioClear, ce.SessionUpdate)
_PARTING_S: Final = 2.0
"""Seconds that a model gets to free what it keeps for a session."""
_ASIDE_BYTES: Final = 1024 * 1024
"""An event of the client that is this long is read off the event loop, as sound is written that it asks for: to
tell what is wrong with an event takes up to 0.3 s a megabyte."""


class Driver:
    """Runs one session between a codec, an outbox and the engines of its deployment."""

    _hearing: Listener
    """While it runs."""

    def __init__(
        self,
        session: Session,
        *,
        codec: Codec,
        outbox: Outbox,
        engines: Engines,
        meter: Meter,
        allowance: Meter | None = None,
    ) -> None:
        """``allowance``: what may be spent on speculations; None for nothing."""
        self._session = session
        self._codec = codec
        self._outbox = outbox
        self._engines = engines
        self._metering = Metering(meter, self._fall)
        self._allowance = None if allowance is None else Metering(allowance, self._fall)
        self._offer: c.Speculate | None = None
        """What the allowance is asked for."""
        self._speculation: Speculation | None = None
        self._inbox: deque[c.Input] = deque()
        self._handling = False
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0
        self._fallen = False
        self._forgiven: set[str] = set()
        self._responses: dict[str, asyncio.Task[None]] = {}
        self._aside: asyncio.Task[None] | None = None
        self._reducer: NoiseReducer | None = None
        self._held_for: str | None = None
        """Id of the event whose audio the reducer holds back."""
        self._group: asyncio.TaskGroup | None = None
        self._timings = Timings(session.id, engines.telemetry, self._loop.time)
        self.received = 0
        """Events of the client so far."""
        self.sent = 0
        """Events to the client so far."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the session; while the body runs, it takes input. On leaving, everything of it ends."""
        try:
            async with self._working():
                yield
        finally:
            await self._metering.close()
            if self._allowance is not None:
                await self._allowance.close()
            model = self._engines.speaker.model
            if isinstance(model, SessionAware):
                await self._part_from(model)

    async def _part_from(self, model: SessionAware) -> None:
        try:
            async with asyncio.timeout(_PARTING_S):
                await model.end_session(self._session.id)
        except Exception as raised:
            log.error("session %s: its model did not let go of it: %s", self._session.id, outline(raised))

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._hearing = Listener(
                post=self.post,
                spawn=self._spawn,
                vad_pool=self._engines.vad_pool,
                transcriber=self._engines.transcriber,
                end_of_turn=self._engines.end_of_turn,
                words_needed=self._session.kind == "realtime" and not self._engines.speaker.hears_audio,
                session=self._session.id,
                recognised=self._timings.recognised,
                words_guessed=self._allowance is not None,
            )
            self._set_alarm()
            try:
                for effect in self._session.open():
                    self._perform(effect)
                yield
            finally:
                self.post(c.ShutDown(CLOSE_GOING_AWAY, ""))
                self._offer = None
                self._metering.hush()
                self._cancel_alarm()
                self._hearing.close()
                for task in self._tasks:
                    task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        assert self._group is not None
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ------------------------------------------------------------------------------------------------ input

    def receive_text(self, frame: str | bytes) -> None:
        """One text frame. It may be done aside when it is long; see :meth:`ready`."""
        self.received += 1
        if len(frame) > _ASIDE_BYTES:
            self._aside = self._spawn(self._receive_aside(frame), "read a long event")
            return
        try:
            event = self._codec.decode(frame)
        except Exception as bug:
            self._fall(bug)
        else:
            if type(event) is ce.InputAudioAppend and self._session.config.input_audio_noise_reduction is None:
                self.post(event)
            else:
                self._take(event)

    async def _receive_aside(self, frame: str | bytes) -> None:
        try:
            event = await asyncio.to_thread(self._codec.decode, frame)
        except Exception as bug:
            self._fall(bug)
            return
        finally:
            self._aside = None
        self._take(event)

    def _take(self, event: ce.ClientEvent | ce.Rejected) -> None:
        match event:
            case ce.SessionUpdate(forgiven=kinds) | ce.ResponseCreate(forgiven=kinds) if kinds:
                self._log_forgiven(kinds)
        if self._session.config.input_audio_noise_reduction is None:
            self.post(event)
        else:
            try:
                self._filter(event)
            except Exception as bug:
                self._fall(bug)

    def _filter(self, event: ce.ClientEvent | ce.Rejected) -> None:
        if isinstance(event, ce.InputAudioAppend):
            self._append(event)
            return
        if isinstance(event, _ABOUT_THE_BUFFER) and self._reducer is not None:
            self._hand_over(self._reducer.flush(), self._held_for)
        self.post(event)
        if self._session.config.input_audio_noise_reduction is None:
            self._reducer = None

    def _append(self, event: ce.InputAudioAppend) -> None:
        field = self._session.config.input_audio_noise_reduction
        fmt = AudioFormat(self._session.config.input_audio_format)
        if field is None or not event.audio or len(event.audio) % fmt.sample_bytes:
            self.post(event)
            return
        if self._reducer is None or (self._reducer.field, self._reducer.format) != (field, fmt):
            self._reducer = NoiseReducer(field, fmt)
        if fmt.ms(len(event.audio)) <= _REDUCED_AT_ONCE_MS:
            self._hand_over(self._reducer.process(event.audio), event.event_id)
        else:
            self._aside = self._spawn(self._append_aside(self._reducer, event), "reduce noise")

    async def _append_aside(self, reducer: NoiseReducer, event: ce.InputAudioAppend) -> None:
        size = reducer.format.bytes_per_ms * _REDUCED_AT_ONCE_MS
        reduced = []
        try:
            for at in range(0, len(event.audio), size):
                reduced.append(reducer.process(event.audio[at : at + size]))
                await asyncio.sleep(0)
        except Exception as bug:
            self._fall(bug)
        else:
            self._hand_over(b"".join(reduced), event.event_id)
        finally:
            self._aside = None

    def _hand_over(self, audio: bytes, event_id: str | None) -> None:
        self._held_for = event_id
        if audio:
            self.post(ce.InputAudioAppend(audio=audio, event_id=event_id))

    def _log_forgiven(self, kinds: tuple[str, ...]) -> None:
        """Once a session for each kind: a client does the same again and again."""
        for kind in kinds:
            if kind not in self._forgiven:
                self._forgiven.add(kind)
                log.info("session %s: took %s; a strict server refuses it", self._session.id, kind)

    def receive_binary(self) -> None:
        self.post(self._codec.decode_binary())

    @property
    def busy(self) -> bool:
        """The socket should not be read now; see :meth:`ready`."""
        return self._outbox.full or self._aside is not None or self._hearing.vad.crowded

    async def ready(self) -> None:
        """Wait until the session can take more input."""
        while self.busy:
            if self._aside is not None:
                await asyncio.wait([self._aside])
            await self._outbox.drained()
            if self._hearing.vad.crowded:
                await asyncio.sleep(_BACKLOG_POLL_S)

    def post(self, event: c.Input) -> None:
        """One thing happened. Handled now, or right after what is being handled."""
        if self._handling:
            self._inbox.append(event)
            return
        self._handling = True
        try:
            while True:
                for effect in self._session.receive(event, self._loop.time()):
                    # Fifty a second, one call shorter than by way of the others.
                    if type(effect) is c.FeedVad:
                        self._hearing.vad.feed(effect.start_tick, effect.format, effect.data)
                    else:
                        self._perform(effect)
                if not self._inbox:
                    break
                event = self._inbox.popleft()
            if self._session.next_deadline != self._alarm_at:
                self._set_alarm()
        except Exception as bug:
            self._inbox.clear()
            self._fall(bug)
        finally:
            self._handling = False

    def _set_alarm(self) -> None:
        self._cancel_alarm()
        self._alarm_at = self._session.next_deadline
        self._alarm = self._loop.call_at(self._alarm_at, self._ring)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _ring(self) -> None:
        if self._loop.time() < self._alarm_at:
            # The clock of the loop is coarser than the deadline.
            self._set_alarm()
        else:
            self.post(c.TimePassed())

    def _fall(self, bug: Exception) -> None:
        """We do not know what state the session is in: it ends, and says no more than that."""
        log.error("session %s: a bug, the session is closed: %s", self._session.id, outline(bug))
        if not self._fallen:
            self._fallen = True
            self._send(se.ErrorRaised(errors.internal_error_body()))
            self._outbox.close(CLOSE_BUG, "internal error")

    def _send(self, event: se.ServerEvent) -> None:
        frame = self._codec.encode(event, self._session.new_event_id())
        if frame is not None:
            self.sent += 1
            self._outbox.send(frame)

    # -------------------------------------------------------------------------------------------- effects

    def _perform(self, effect: c.Effect) -> None:
        match effect:
            case c.Emit():
                match effect.event:
                    case se.AudioDelta(response_id=response_id) if response_id in self._timings.silent:
                        self._timings.audio(response_id)
                    case se.OutputItemAdded(response_id=response_id):
                        self._timings.output(response_id)
                    case se.ResponseDone(response=response):
                        self._timings.done(response)
                self._send(effect.event)
            case c.Retrieve():
                self._retrieve(effect)
            case c.ResetVad():
                self._hearing.vad.reset()
            case c.OpenUtterance():
                self._hearing.open(
                    effect.item_id, effect.transcription, logprobs=effect.logprobs, judged=effect.judged
                )
            case c.FeedUtterance():
                self._hearing.feed(effect.item_id, effect.clip)
            case c.JudgeTurn():
                self._hearing.judge(effect)
            case c.WithdrawQuestion():
                self._hearing.withdraw(effect.item_id)
            case c.CloseUtterance():
                self._hearing.finish(effect.item_id)
            case c.DropUtterance():
                self._hearing.drop(effect.item_id)
            case c.ReserveQuota():
                self._reserve(effect)
            case c.SettleQuota():
                self._settle(effect)
            case c.StartResponse():
                self._start(effect.plan)
            case c.StopResponse():
                task = self._responses.pop(effect.response_id, None)
                if task is not None:
                    task.cancel()
                self._drop_speculation(effect.response_id)
            case c.Speculate():
                self._speculate(effect)
            case c.DropSpeculation():
                self._drop_speculation(effect.response_id)
            case c.Close():
                self._outbox.close(effect.code, effect.reason)
            case c.FeedVad():
                self._hearing.vad.feed(effect.start_tick, effect.format, effect.data)
            case _:
                assert_never(effect)

    def _retrieve(self, effect: c.Retrieve) -> None:
        if sum(clip.size for clip in effect.clips.values()) > _ASIDE_BYTES:
            self._aside = self._spawn(self._retrieve_aside(effect), f"retrieve {effect.item.id}")
        else:
            self._send(retrieved(effect))

    async def _retrieve_aside(self, effect: c.Retrieve) -> None:
        event_id = self._session.new_event_id()
        try:
            frame = await asyncio.to_thread(lambda: self._codec.encode(retrieved(effect), event_id))
        except Exception as bug:
            self._fall(bug)
        else:
            if frame is not None:
                self.sent += 1
                self._outbox.send(frame)
        finally:
            self._aside = None

    def _reserve(self, effect: c.ReserveQuota) -> None:
        def answered(denial: Denial | None) -> None:
            limits = self._metering.rate_limits
            if denial is None:
                self.post(c.QuotaGranted(effect.response_id, limits))
            else:
                self.post(c.QuotaDenied(effect.response_id, denial.name, denial.retry_after_s, limits))

        self._metering.reserve(effect, answered)

    def _settle(self, effect: c.SettleQuota) -> None:
        def settled(_: None) -> None:
            if effect.tell:
                self.post(c.QuotaSettled(self._metering.rate_limits))

        self._metering.settle(effect.response_id, effect.used, settled)

    def _start(self, plan: ResponsePlan) -> None:
        self._withdraw_offer(plan.response_id)
        self._timings.started(plan)
        self._responses[plan.response_id] = self._spawn(self._respond(plan), f"respond {plan.response_id}")

    def _speculate(self, effect: c.Speculate) -> None:
        """Where the model reads, and the quota would let the response begin."""
        if self._allowance is None or self._engines.speaker.hears_audio:
            return
        if any(limit.remaining < 1 for limit in self._metering.rate_limits):
            return
        plan = effect.plan
        wanted = effect.input_tokens + (plan.max_output_tokens or usage.OUTPUT_RESERVE)
        reads = se.Usage(input_text=effect.input_tokens)
        self._offer = effect
        self._allowance.reserve(
            c.ReserveQuota(plan.response_id, wanted, reads, plan.max_output_tokens),
            lambda denial: self._begin_ahead(effect, denial),
        )

    def _begin_ahead(self, effect: c.Speculate, denial: Denial | None) -> None:
        assert self._allowance is not None
        response_id, allowance = effect.plan.response_id, self._allowance
        if denial is not None:
            return
        if self._offer is not effect:
            # It took too long: the response has begun, or nobody waits for it.
            allowance.settle(response_id, se.Usage())
            return
        self._offer = None
        self._speculation = Speculation(
            effect,
            make=self._speaker,
            guess=self._hearing.guess,
            words=self._hearing.words,
            post=self.post,
            room=self._outbox,
            spent=lambda used: allowance.settle(response_id, used),
            tokens=self._session.conversation.tokens,
            spawn=self._spawn,
        )

    def _withdraw_offer(self, response_id: str) -> None:
        if self._offer is not None and self._offer.plan.response_id == response_id:
            self._offer = None

    def _drop_speculation(self, response_id: str) -> None:
        self._withdraw_offer(response_id)
        if self._speculation is not None and self._speculation.response_id == response_id:
            self._speculation.drop()
            self._speculation = None

    def _taken(self, response_id: str) -> Speculation | None:
        """The speculation on this response, which is its own from now on."""
        ahead = self._speculation
        if ahead is None or ahead.response_id != response_id:
            return None
        self._speculation = None
        return ahead

    async def _respond(self, plan: ResponsePlan) -> None:
        ahead = self._taken(plan.response_id)
        try:
            if ahead is None or not await ahead.take(plan):
                await self._speaker(plan, self._hearing.words, self.post, self._outbox).run()
        except Exception as raised:
            self.post(c.ResponseFailed(plan.response_id, self._blame(plan, raised)))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # Nobody stopped us: an engine let a cancellation of its own escape.
                self.post(c.ResponseFailed(plan.response_id, errors.internal_error()))
            raise

    def _speaker(
        self, plan: ResponsePlan, words: Words, report: Callable[[c.Report], None], room: Room
    ) -> Cascade | SpeechNative:
        match self._engines.speaker:
            case Native(speech_model):
                return SpeechNative(plan, speech_model=speech_model, words=words, report=report, outbox=room)
            case Cascaded(language_model, synthesizer):
                return Cascade(
                    plan,
                    language_model=language_model,
                    synthesizer=synthesizer,
                    words=words,
                    report=report,
                    outbox=room,
                )

    def _blame(self, plan: ResponsePlan, raised: Exception) -> ServerFault:
        fault = engine_error(raised)
        if fault is not None:
            log.warning("response %s failed: %s", plan.response_id, fault.code)
            return ServerFault(type=fault.type, code=fault.code, message=fault.message)
        log.error("response %s failed: %s", plan.response_id, outline(raised))
        return errors.internal_error()


def retrieved(effect: c.Retrieve) -> se.ItemRetrieved:
    """The answer to a retrieval, with its sound in the format that was asked for."""
    return se.ItemRetrieved(
        effect.item, {index: clip_to_wire(clip, effect.format) for index, clip in effect.clips.items()}
    )
