"""Speculation in the core: two sessions in step, one of which speculates, say the same to their clients."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec
from hypothesis import event, example, given, settings
from hypothesis import strategies as st
from session_watcher import Watcher

from vivavoce.audio.formats import AudioFormat
from vivavoce.core import contract as c
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.core.turns import FRAME_TICKS
from vivavoce.gateway.quota import Denied, Quota
from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import session_config as sc
from vivavoce.wire.server_events import RateLimit

FRAME_BYTES: Final = AudioFormat.PCM16.bytes_per_ms * 32
VAD: Final = sc.ServerVad(silence_duration_ms=500)
_ID: Final = re.compile(r"\b(?:sess|conv|item|resp|call|event)_[0-9A-Za-z]{16,21}\b")

Step: TypeAlias = tuple[str, Any]


@dataclass
class Side:
    """One session with a runtime that does its part at once, and what its client is told."""

    speculates: bool
    vad: sc.TurnDetection
    requests: int
    told: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        identity = Identity(model="m", created_at=0, lifetime_s=1800, seed=b"", speculates=self.speculates)
        self.session = Session(identity, sc.SessionConfig(turn_detection=self.vad), 0.0)
        self.watcher = Watcher()
        self.quota = Quota(100_000, self.requests, lambda: 0.0)
        self.clock = 0
        self._names: dict[str, str] = {}
        self._perform(self.session.open())

    def receive(self, event_: c.Input) -> None:
        self._perform(self.session.receive(event_, 0.0))

    def _perform(self, effects: list[c.Effect]) -> None:
        self.watcher.read(effects)
        for effect in effects:
            if isinstance(effect, c.Emit):
                self.told.append(self._plain(effect.event))
            else:
                self.asked.append(type(effect).__name__)
        for effect in effects:
            match effect:
                case c.ReserveQuota(response_id, tokens):
                    answer = self.quota.reserve(tokens)
                    self.receive(
                        c.QuotaDenied(response_id, answer.name, answer.retry_after_s, self.limits)
                        if isinstance(answer, Denied)
                        else c.QuotaGranted(response_id, self.limits)
                    )
                case c.SettleQuota(tell=True):
                    self.receive(c.QuotaSettled(self.limits))

    @property
    def limits(self) -> tuple[RateLimit, ...]:
        return self.quota.status()

    def _plain(self, told: object) -> str:
        """An event with its ids numbered in the order in which they were seen."""
        text = f"{type(told).__name__} {json.dumps(msgspec.to_builtins(told, enc_hook=repr), sort_keys=True)}"
        return _ID.sub(lambda found: self._names.setdefault(found[0], f"#{len(self._names)}"), text)

    @property
    def running(self) -> str:
        run = self.session.responses.default
        return "resp_none" if run is None else run.plan.response_id

    def hear(self, *probabilities: float) -> None:
        self.receive(ce.InputAudioAppend(audio=bytes(FRAME_BYTES * len(probabilities))))
        for probability in probabilities:
            self.clock += FRAME_TICKS
            self.receive(c.VadFrame(self.clock, probability))

    def do(self, step: Step) -> None:
        match step:
            case ("voice", frames):
                self.hear(*[0.9] * frames)
            case ("silence", frames):
                self.hear(*[0.0] * frames)
            case ("append", frames):
                self.receive(ce.InputAudioAppend(audio=bytes(FRAME_BYTES * frames)))
            case ("judged", probability):
                asked = self.watcher.question
                if asked is not None:
                    self.receive(c.TurnJudged(asked.item_id, asked.silent_from, probability))
            case ("update", patch):
                self.receive(ce.SessionUpdate(session=patch))
            case ("item", text):
                part = items.InputTextPart(text)
                self.receive(ce.ItemCreate(item=items.MessageItem("", "system", (part,))))
            case ("delete", at):
                entries = self.session.conversation.snapshot()
                if entries:
                    self.receive(ce.ItemDelete(item_id=entries[at % len(entries)].item.id))
            case ("respond", conversation):
                self.receive(ce.ResponseCreate(options=sc.ResponseOptions(conversation=conversation)))
            case ("words", text):
                for item_id in sorted(self.watcher.finished_utterances, key=self.told_at):
                    self.receive(c.Recognised(item_id, text))
            case ("text", text):
                self.receive(c.TextProduced(self.running, text))
            case ("finish", _):
                self.receive(c.ResponseFinished(self.running))
            case ("commit", _):
                self.receive(ce.InputAudioCommit())
            case ("clear", _):
                self.receive(ce.InputAudioClear())
            case ("cancel", _):
                self.receive(ce.ResponseCancel())

    def told_at(self, item_id: str) -> int:
        return list(self._names).index(item_id)


def _steps(name: str, *values: Any) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(name), st.sampled_from(values))


QUIET: Final = _steps("silence", 1, 2, 3, 6, 7, 16)
STEPS: Final = st.one_of(
    QUIET,
    QUIET,
    _steps("voice", 1, 3),
    _steps("append", 1, 8),
    _steps("judged", 0.0, 0.6, 1.0),
    _steps(
        "update",
        sc.SessionPatch(),
        sc.SessionPatch(instructions="Be brief."),
        sc.SessionPatch(modalities=("text",)),
        sc.SessionPatch(turn_detection=sc.ServerVad(silence_duration_ms=500, create_response=False)),
        sc.SessionPatch(turn_detection=VAD),
        sc.SessionPatch(turn_detection=sc.SemanticVad(interrupt_response=False)),
        sc.SessionPatch(turn_detection=None),
        sc.SessionPatch(input_audio_transcription=sc.Transcription()),
    ),
    _steps("item", "It is noon."),
    _steps("delete", 0, -1),
    _steps("respond", "auto", "none"),
    _steps("words", "What time is it?"),
    _steps("text", "Noon"),
    *(_steps(name, None) for name in ("finish", "commit", "clear", "cancel")),
)
TURN: Final[list[Step]] = [("voice", 3), ("silence", 6), ("silence", 10)]


def both(vad: sc.TurnDetection, requests: int, steps: Sequence[Step]) -> tuple[Side, Side]:
    plain, ahead = Side(False, vad, requests), Side(True, vad, requests)
    for step in steps:
        plain.do(step)
        ahead.do(step)
        assert ahead.told == plain.told
        assert ahead.limits == plain.limits
    return plain, ahead


@settings(max_examples=400)
@given(
    vad=st.sampled_from([VAD, sc.ServerVad(silence_duration_ms=200), sc.SemanticVad()]),
    requests=st.sampled_from([1, 600]),
    steps=st.lists(st.just(("voice", 3)) | STEPS | STEPS | STEPS, min_size=4, max_size=30),
)
@example(vad=VAD, requests=600, steps=TURN)
@example(vad=VAD, requests=600, steps=[("voice", 3), ("silence", 6), ("voice", 1), ("silence", 16)])
@example(vad=VAD, requests=1, steps=[*TURN, ("finish", None), *TURN])
def test_a_client_cannot_tell_whether_its_session_speculates(
    vad: sc.TurnDetection, requests: int, steps: list[Step]
) -> None:
    plain, ahead = both(vad, requests, [("voice", 2), *steps])
    assert "Speculate" not in plain.asked
    made, dropped = ahead.asked.count("Speculate"), ahead.asked.count("DropSpeculation")
    event(f"speculations: {min(made, 3)}, dropped: {min(dropped, 3)}")
    kinds = {"Speculate", "DropSpeculation"}
    # What the sessions ask their runtimes for is the same too, but for these two.
    assert [name for name in ahead.asked if name not in kinds] == plain.asked


def test_a_silence_is_speculated_on_once() -> None:
    _, ahead = both(VAD, 600, [("voice", 3), ("silence", 7), ("item", "x"), ("silence", 5), ("update", ONE)])
    assert ahead.asked.count("Speculate") == ahead.asked.count("DropSpeculation") == 1


ONE: Final = sc.SessionPatch(instructions="x")


def test_settings_that_change_nothing_drop_nothing() -> None:
    _, ahead = both(VAD, 600, [("voice", 3), ("silence", 7), ("update", sc.SessionPatch()), ("silence", 10)])
    assert ahead.asked.count("Speculate") == 1
    assert "DropSpeculation" not in ahead.asked


NEVER: Final[dict[str, list[Step]]] = {
    "the client asks for its responses": [
        ("update", sc.SessionPatch(turn_detection=sc.ServerVad(silence_duration_ms=500, create_response=False))),
        *TURN,
    ],
    "a response runs that the turn does not interrupt": [
        ("update", sc.SessionPatch(turn_detection=sc.ServerVad(silence_duration_ms=500, interrupt_response=False))),
        ("respond", "auto"),
        *TURN,
    ],
    "the client committed the silence before it was heard": [
        ("voice", 3),
        ("append", 8),
        ("commit", None),
        ("silence", 7),
    ],
}


def test_when_nothing_is_speculated() -> None:
    for steps in NEVER.values():
        _, ahead = both(VAD, 600, steps)
        assert "Speculate" not in ahead.asked
