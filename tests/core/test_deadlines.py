"""The idle timeout: a wait on the clock, from when an answer has been heard until somebody speaks."""

from __future__ import annotations

import math

import pytest

from vivavoce.core import contract as c
from vivavoce.core.deadlines import Deadlines
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.wire import client_events as ce
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc

WAITS = sc.ServerVad(idle_timeout_ms=6000)
SECOND = bytes(48_000)


def test_the_nearest_deadline() -> None:
    deadlines = Deadlines(100.0)
    assert deadlines.next(WAITS) == 100.0
    deadlines.heard(10.0, 24_000, 500)
    assert deadlines.next(WAITS) == 16.5
    assert deadlines.silent_from == 36_000
    assert deadlines.speech() == deadlines.next(WAITS) == 100.0


def test_speech_ends_the_wait() -> None:
    deadlines = Deadlines(100.0)
    deadlines.heard(10.0, 0, 0)
    deadlines.speech()
    assert (deadlines.next(WAITS), deadlines.silent_from) == (100.0, None)


def test_a_session_expires_in_mid_wait() -> None:
    deadlines = Deadlines(12.0)
    deadlines.heard(10.0, 0, 0)
    assert deadlines.next(WAITS) == 12.0


@pytest.mark.parametrize("vad", [None, sc.ServerVad(), sc.SemanticVad()])
def test_nobody_waits_where_no_timeout_is_set(vad: sc.TurnDetection | None) -> None:
    deadlines = Deadlines(100.0)
    deadlines.heard(10.0, 0, 0)
    assert (deadlines.next(vad), deadlines.silent_from) == (100.0, None)
    assert deadlines.next(WAITS) == 100.0


class Case:
    """A session that has answered once, at second 1, without a sound."""

    def __init__(self, vad: sc.TurnDetection | None = WAITS, reason: str = "stop") -> None:
        identity = Identity(model="m", created_at=0, lifetime_s=1800, seed=b"x")
        self.session = Session(identity, sc.SessionConfig(turn_detection=vad), now=0.0)
        self.session.open()
        self.respond(1.0)

    def respond(self, now: float) -> None:
        effects = self.session.receive(ce.ResponseCreate(), now)
        [asked] = [effect for effect in effects if isinstance(effect, c.ReserveQuota)]
        self.session.receive(c.QuotaGranted(asked.response_id, ()), now)
        self.session.receive(c.ResponseFinished(asked.response_id), now)
        self.session.receive(c.QuotaSettled(()), now)

    def said(self, event: c.Input, now: float) -> list[str]:
        return [type(e.event).__name__ for e in self.session.receive(event, now) if isinstance(e, c.Emit)]


def test_it_fires_once_a_response() -> None:
    case = Case()
    assert case.session.next_deadline == 7.0
    assert case.said(c.TimePassed(), 6.9) == []
    assert case.said(c.TimePassed(), 7.0)[0] == "IdleTimedOut"
    assert case.session.next_deadline == 1800.0


@pytest.mark.parametrize(
    "event",
    [
        c.VadFrame(768, 0.9),
        ce.ResponseCreate(),
        ce.SessionUpdate(session=sc.SessionPatch(turn_detection=sc.ServerVad())),
        ce.SessionUpdate(session=sc.SessionPatch(turn_detection=None)),
    ],
)
def test_what_ends_the_wait(event: c.Input) -> None:
    case = Case()
    case.session.receive(ce.InputAudioAppend(audio=SECOND), 2.0)
    case.session.receive(event, 2.0)
    assert case.session.next_deadline == 1800.0
    assert case.said(c.TimePassed(), 100.0) == []


def test_a_commit_by_hand_ends_it_and_a_refused_one_does_not() -> None:
    case = Case()
    case.session.receive(ce.InputAudioCommit(), 2.0)
    assert case.session.next_deadline == 7.0
    case.session.receive(ce.InputAudioAppend(audio=SECOND), 2.0)
    case.session.receive(ce.InputAudioCommit(), 2.0)
    assert case.session.next_deadline == 1800.0


def test_another_timeout_counts_from_the_same_moment() -> None:
    case = Case()
    longer = sc.SessionPatch(turn_detection=sc.ServerVad(idle_timeout_ms=20_000))
    case.session.receive(ce.SessionUpdate(session=longer), 5.0)
    assert case.session.next_deadline == 21.0


def test_a_response_out_of_band_changes_nothing() -> None:
    case = Case()
    effects = case.session.receive(ce.ResponseCreate(options=sc.ResponseOptions(conversation="none")), 3.0)
    [asked] = [effect for effect in effects if isinstance(effect, c.ReserveQuota)]
    case.session.receive(c.QuotaGranted(asked.response_id, ()), 3.0)
    case.session.receive(c.ResponseFinished(asked.response_id), 4.0)
    case.session.receive(c.QuotaSettled(()), 4.0)
    assert case.session.next_deadline == 7.0


def test_a_cleared_buffer_leaves_nothing_of_what_came_before() -> None:
    case = Case()
    case.session.receive(ce.InputAudioAppend(audio=SECOND), 2.0)
    case.session.receive(ce.InputAudioClear(), 3.0)
    case.session.receive(ce.InputAudioAppend(audio=SECOND), 4.0)
    effects = case.session.receive(c.TimePassed(), 7.0)
    [told] = [e.event for e in effects if isinstance(e, c.Emit) and isinstance(e.event, se.IdleTimedOut)]
    assert (told.audio_start_ms, told.audio_end_ms) == (1000, 2000)


@pytest.mark.parametrize(("vad", "kept_ms"), [(WAITS, 5000), (sc.ServerVad(), 320)])
def test_silence_is_kept_for_a_timeout_alone(vad: sc.ServerVad, kept_ms: int) -> None:
    case = Case(vad)
    for second in range(5):
        for part in range(50):
            case.session.receive(ce.InputAudioAppend(audio=bytes(960)), 2.0 + second)
            end = (second * 50 + part + 1) * 480 // 768 * 768
            case.session.receive(c.VadFrame(end, 0.0), 2.0 + second)
    audio = case.session._audio
    assert (audio.clock - audio.kept_from) // 24 <= kept_ms
    assert math.isclose((audio.clock - audio.kept_from) / 24, kept_ms, abs_tol=60)
