"""Golden scripts on the pure session: codec and core, with the runner in the place of runtime, engines and clock.

What is compared is wire JSON. The runner performs effects as the driver does: reports wait in one inbox, quota is
the gateway's own on the script's clock, audio for the VAD is cut into frames of 32 ms on the grid of the session's
audio clock, and the probability of a frame is its mean amplitude.
"""

from __future__ import annotations

import json
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias, assert_never

import msgspec
import numpy as np
import numpy.typing as npt

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.audio.g711 import to_samples
from vivavoce.core import contract as c
from vivavoce.core.conversation import MessageLimits
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.core.turns import FRAME_TICKS
from vivavoce.core.window import Window
from vivavoce.gateway.quota import Denied, Quota, Reservation
from vivavoce.runtime.driver import retrieved
from vivavoce.runtime.request import usage_report
from vivavoce.testing import script as s
from vivavoce.testing.ledger import Ledger, frames, sound
from vivavoce.testing.matching import Actual, Closed, Judge, Names
from vivavoce.wire import errors
from vivavoce.wire.codec import codec_of
from vivavoce.wire.dialects.profiles import session_seconds
from vivavoce.wire.server_events import Logprob
from vivavoce.wire.session_config import SessionConfig

_BIRTH: Final = 1_730_000_000
"""Unix seconds at which a session of a script begins."""

Frame: TypeAlias = str | dict[str, Any]
"""A text frame of the client as it stands, or an event of the server."""


def run_pure(script: s.Script, watch: Callable[[Frame], None] | None = None) -> None:
    """Raises :class:`vivavoce.testing.matching.ScriptFailure`. ``watch`` is told every frame of both sides."""
    runner = PureRunner(script.settings, script.path.name.encode(), watch)
    judge = Judge(script)
    for step in script.steps:
        if step.command is None or not runner.opened:
            greeting = step if step.command is None else s.Step(step.line, "the client connects", None)
            judge.check(greeting, runner.open())
            judge.check_effects(greeting, runner.take_effects())
            if step.command is None:
                continue
        try:
            actual = runner.perform(step.command, judge.names)
        except (KeyError, ValueError) as error:
            raise s.ScriptError(f"{script.path}:{step.line}: {error}") from error
        judge.check(step, actual)
        judge.check_effects(step, runner.take_effects())


class PureRunner:
    """A session, the frames that it says, and what it asked for. ``seed`` decides its ids."""

    def __init__(self, settings: s.Settings, seed: bytes, watch: Callable[[Frame], None] | None = None) -> None:
        self.opened = False
        self._logprobs = settings.logprobs
        self.ledger = Ledger()
        self._now = 0.0
        self._codec = codec_of(
            settings.profile, conversation_created=settings.conversation_created, strict=settings.strict
        )
        identity = Identity(
            model=settings.model,
            created_at=_BIRTH,
            lifetime_s=settings.session_seconds or session_seconds(settings.profile),
            seed=seed,
            model_aliases=frozenset({s.DEPLOYMENT}),
            kind=settings.intent,
            heard_text=settings.heard_text,
            reduces_noise=settings.noise_reduction,
            speculates=settings.speculate,
            window=_window(settings),
            holds_outputs=self._codec.holds_outputs,
            sees_images=settings.sees_images,
            message_limits=MessageLimits(images=settings.message_images),
            reasons=settings.reasons,
            prompts=settings.prompts,
            # As for a model that reads; on the server the puppet hears. A client must not tell one from the other.
            keeps_audio=self._codec.gives_audio_back,
        )
        self._session = Session(identity, SessionConfig(instructions=settings.instructions), self._now)
        self._quota = Quota(settings.tokens, settings.requests, lambda: self._now)
        self._reservations: dict[str, Reservation] = {}
        self._vad = FrameCutter()
        self._listening: set[str] = set()
        self._question: c.JudgeTurn | None = None
        self._inbox: deque[c.Input] = deque()
        self._judged: deque[c.Input] = deque()
        """Reports of the VAD: each comes by itself, after everything that the one before has caused."""
        self._actual: list[Actual] = []
        self._effects: list[c.Effect] = []
        self._watch = watch

    @property
    def session(self) -> Session:
        """What the commands reach."""
        return self._session

    @property
    def config(self) -> SessionConfig:
        """The session's configuration as it is now."""
        return self._session.config

    def open(self) -> list[Actual]:
        """The client connects -> what it is told."""
        self.opened = True
        self._perform_all(self._session.open())
        return self._take()

    def perform(self, command: s.Command, names: Names) -> list[Actual]:
        """What comes of a command. Raises KeyError for an unknown name, ValueError where it has no object."""
        match command:
            case s.SendText() | s.SendEvent() | s.SendSound() | s.SendBytes() | s.SendCharacters():
                for frame in frames(command, names, self.ledger.input_format):
                    if self._watch is not None:
                        self._watch(frame)
                    self._post(self._codec.decode(frame))
            case s.SendBinary():
                self._post(self._codec.decode_binary())
            case s.MoveClock():
                self._now += command.seconds
                if self._now >= self._session.next_deadline:
                    self._post(c.TimePassed())
            case s.Heard():
                item_id = self.ledger.next_unheard()
                logprobs = tuple(Logprob(*token) for token in command.tokens()) if self._logprobs else None
                self._post(c.RecognitionDelta(item_id, command.text, logprobs))
                self._post(c.Recognised(item_id, command.text, logprobs=logprobs))
            case s.Unheard():
                self._post(c.RecognitionFailed(self.ledger.next_unheard(), command.code))
            case s.Judged():
                self._post(self._verdict(command.probability))
            case s.BreakVad():
                self._vad.broken = True
            case s.HoldVad():
                self._vad.held = []
            case s.ReleaseVad():
                for report in self._vad.release():
                    self._post(report)
            case _:
                if isinstance(command, s.Finish) and command.usage is not None:
                    self._post(usage_report(self.ledger.response_of(command), command.usage))
                self._post(self._report(command))
        return self._take()

    def take_effects(self) -> list[tuple[str, Any]]:
        """Names and fields of what was asked for since the last time."""
        effects, self._effects = self._effects, []
        return [(type(effect).__name__, _fields(effect)) for effect in effects]

    def _take(self) -> list[Actual]:
        actual, self._actual = self._actual, []
        return actual

    def _report(self, command: s.ModelCommand) -> c.Report:
        response_id = self.ledger.response_of(command)
        match command:
            case s.ProduceText():
                return c.TextProduced(response_id, command.text)
            case s.ProduceAudio():
                return c.AudioProduced(response_id, self._sound(response_id, command.ms))
            case s.ProduceCall():
                return c.CallStarted(response_id, command.name)
            case s.ProduceArguments():
                return c.ArgumentsProduced(response_id, command.text)
            case s.Finish():
                return c.ResponseFinished(response_id, command.reason)
            case s.Fail():
                fault = errors.ServerFault(type=command.type, code=command.code, message=command.message)
                return c.ResponseFailed(response_id, fault)
            case s.Bug():
                return c.ResponseFailed(response_id, errors.internal_error())
            case _:
                assert_never(command)

    def _verdict(self, probability: float) -> c.TurnJudged:
        if self._question is None:
            raise ValueError("nobody has asked whether the speaker has finished, or the question was withdrawn")
        question, self._question = self._question, None
        return c.TurnJudged(question.item_id, question.silent_from, probability)

    def _withdraw(self, item_id: str) -> None:
        if self._question is not None and self._question.item_id == item_id:
            self._question = None

    def _sound(self, response_id: str, ms: int) -> bytes:
        responses = self._session.responses
        running = [*responses.apart.values(), *([responses.default] if responses.default else [])]
        formats = [run.plan.output_format for run in running if run.plan.response_id == response_id]
        return sound(ms, s.SPEECH_AMPLITUDE, formats[0] if formats else AudioFormat.PCM16)

    # -------------------------------------------------------------------------------------- the driver's part

    def _post(self, event: c.Input) -> None:
        self._inbox.append(event)
        while waiting := self._inbox or self._judged:
            self._perform_all(self._session.receive(waiting.popleft(), self._now))

    def _perform_all(self, effects: list[c.Effect]) -> None:
        for effect in effects:
            self._effects.append(effect)
            self._perform(effect)

    def _perform(self, effect: c.Effect) -> None:
        match effect:
            case c.Emit():
                self._send(self._codec.encode(effect.event, self._session.new_event_id()))
            case c.Retrieve():
                self._send(self._codec.encode(retrieved(effect), self._session.new_event_id()))
            case c.Close():
                self._actual.append(Closed(effect.code, effect.reason))
            case c.FeedVad():
                self._judged.extend(self._vad.feed(effect))
            case c.ResetVad():
                self._vad.reset()
            case c.OpenUtterance():
                # Puppet models hear audio, so words are wanted for the client alone.
                if effect.transcription is not None:
                    self._listening.add(effect.item_id)
            case c.JudgeTurn():
                self._question = effect
            case c.WithdrawQuestion():
                self._withdraw(effect.item_id)
            case c.CloseUtterance():
                self._withdraw(effect.item_id)
                if effect.item_id not in self._listening:
                    self._inbox.append(c.RecognitionFailed(effect.item_id, None))
            case c.DropUtterance():
                self._withdraw(effect.item_id)
                self._listening.discard(effect.item_id)
            case c.ReserveQuota():
                self._inbox.append(self._reserve(effect))
            case c.SettleQuota():
                self._settle(effect)
            case c.FeedUtterance() | c.StartResponse() | c.StopResponse() | c.Speculate() | c.DropSpeculation():
                pass
            case _:
                assert_never(effect)

    def _send(self, frame: bytes | None) -> None:
        if frame is not None:
            event = json.loads(frame)
            self.ledger.note(event)
            self._actual.append(event)
            if self._watch is not None:
                self._watch(event)

    def _reserve(self, effect: c.ReserveQuota) -> c.QuotaGranted | c.QuotaDenied:
        answer = self._quota.reserve(effect.tokens)
        if isinstance(answer, Denied):
            return c.QuotaDenied(effect.response_id, answer.name, answer.retry_after_s, self._quota.status())
        self._reservations[effect.response_id] = answer
        return c.QuotaGranted(effect.response_id, self._quota.status())

    def _settle(self, effect: c.SettleQuota) -> None:
        reservation = self._reservations.pop(effect.response_id, None)
        if reservation is not None:
            reservation.settle(effect.tokens)
        if effect.tell:
            self._inbox.append(c.QuotaSettled(self._quota.status()))


def _window(settings: s.Settings) -> Window:
    if settings.context_window is None:
        return Window(None, settings.max_output)
    return Window(settings.context_window - (settings.max_output or 0), settings.max_output)


class FrameCutter:
    """Audio in any pieces -> judged frames on the grid of the audio clock; silence where a stream begins anew."""

    def __init__(self) -> None:
        self.broken = False
        """The next frame cannot be judged."""
        self.held: list[c.Input] | None = None
        """Reports that wait for :meth:`release`; None when they are given at once."""
        self._waiting = np.zeros(0, np.float32)
        self._end = 0
        self._fresh = True

    def reset(self) -> None:
        """Forget what waits."""
        self._fresh = True
        if self.held is not None:
            self.held = []

    def release(self) -> list[c.Input]:
        """What was held."""
        held, self.held = self.held or [], None
        return held

    def feed(self, effect: c.FeedVad) -> list[c.Input]:
        if self._fresh or effect.start_tick != self._end:
            self._waiting = np.zeros(effect.start_tick % FRAME_TICKS, np.float32)
            self._fresh = False
        heard = _amplitudes(effect.data, effect.format)
        self._waiting = np.concatenate([self._waiting, heard])
        self._end = effect.start_tick + len(heard)
        reports: list[c.Input] = []
        while len(self._waiting) >= FRAME_TICKS:
            frame, self._waiting = self._waiting[:FRAME_TICKS], self._waiting[FRAME_TICKS:]
            reports.append(self._judge(self._end - len(self._waiting), frame))
        if self.held is not None:
            self.held += reports
            return []
        return reports

    def _judge(self, end_tick: int, frame: npt.NDArray[np.float32]) -> c.Input:
        if self.broken:
            self.broken = False
            return c.VadFailed()
        return c.VadFrame(end_tick, float(frame.mean()))


def _amplitudes(data: bytes, fmt: AudioFormat) -> npt.NDArray[np.float32]:
    """One value a tick, 0..1."""
    samples = to_samples(data, fmt).astype(np.float32)
    return np.repeat(np.abs(samples) / np.float32(32768), 24000 // fmt.rate)


def _fields(effect: c.Effect) -> Any:
    """An effect as JSON would show it."""
    return json.loads(msgspec.json.encode(effect, enc_hook=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, array):
        return list(value)
    if isinstance(value, Clip):
        return {"segments": value.segments}
    if hasattr(value, "items"):
        return dict(value)
    raise NotImplementedError  # msgspec asks for it where a hook knows no answer, and tells of the type itself
