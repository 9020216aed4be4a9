"""Half an hour of silence, and half an hour of speech: what a session holds, in bytes, frame by frame."""

from __future__ import annotations

import tracemalloc
from typing import Any, Final

import pytest
from test_session_cells import label

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat
from vivavoce.core import contract as c
from vivavoce.core import turns
from vivavoce.core.alignment import Mark
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.wire import client_events as ce
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc

HALF_AN_HOUR_MS: Final = 30 * 60 * 1000
APPEND_MS: Final = 320
ULAW: Final = AudioFormat.G711_ULAW
VAD: Final = sc.ServerVad(prefix_padding_ms=5000)
WORDS: Final = "It is a quarter past nine, and the next train leaves from platform four."
BYTES_OF_AN_ITEM: Final = 600
"""The words not counted."""


class Caller:
    """Appends G.711 as it would on a telephone line; every frame is judged as soon as it is whole."""

    def __init__(self) -> None:
        config = sc.SessionConfig(
            turn_detection=VAD, input_audio_format="g711_ulaw", input_audio_transcription=sc.Transcription()
        )
        self.session = Session(Identity("m", 0, 1800, b"seed"), config, now=0.0)
        self.session.open()
        self.said: list[str] = []
        self.fed = 0
        """Bytes that the recogniser was given."""
        self.frame = 0
        self.number = 0

    def receive(self, event: c.Input) -> list[c.Effect]:
        effects = self.session.receive(event, 1.0)
        for effect in effects:
            if isinstance(effect, c.FeedUtterance):
                self.fed += effect.clip.size
            elif not isinstance(effect, c.FeedVad):
                self.said.append(label(effect))
        return effects

    def sound(self, ms: int, probability: float) -> None:
        for _ in range(ms // APPEND_MS):
            # Every append is another object, as it is when it comes from a socket.
            self.number += 1
            self.receive(ce.InputAudioAppend(audio=self.number.to_bytes(4) * (APPEND_MS * ULAW.bytes_per_ms // 4)))
            for _ in range(APPEND_MS // 32):
                self.frame += 1
                self.receive(c.VadFrame(self.frame * turns.FRAME_TICKS, probability))

    @property
    def held(self) -> int:
        return sum(map(len, self.session._audio._parts))


def test_half_an_hour_of_silence_holds_the_padding_and_no_more() -> None:
    caller = Caller()
    caller.sound(64_000, 0.0)
    tracemalloc.start()
    try:
        caller.sound(64_000, 0.0)
        before = tracemalloc.get_traced_memory()[0]
        most = 0
        for _ in range((HALF_AN_HOUR_MS - 128_000) // APPEND_MS):
            caller.sound(APPEND_MS, 0.0)
            most = max(most, caller.held)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert most == (5000 // APPEND_MS + 1) * APPEND_MS * ULAW.bytes_per_ms
    assert grown < 4096, "a session that hears silence grows"
    assert caller.said == []
    assert caller.session._audio.clock == HALF_AN_HOUR_MS * TICKS_PER_MS
    caller.sound(APPEND_MS, 0.9)
    assert caller.said == ["SpeechStarted", "OpenUtterance"]


def test_half_an_hour_of_speech_is_one_turn() -> None:
    caller = Caller()
    caller.sound(HALF_AN_HOUR_MS - APPEND_MS, 0.9)
    assert caller.said == ["SpeechStarted", "OpenUtterance"]
    assert caller.held - caller.fed <= APPEND_MS * ULAW.bytes_per_ms, "the recogniser keeps up with the speech"
    del caller.said[:]
    caller.sound(APPEND_MS, 0.0)
    assert caller.said[:5] == ["SpeechStopped", "InputAudioCommitted", "ItemAdded", "ItemDone", "CloseUtterance"]
    (entry,) = caller.session.conversation
    # The turn ended 224 ms into the last append.
    assert entry.clips[0].ms == HALF_AN_HOUR_MS - APPEND_MS + 224
    assert entry.audio_tokens == entry.clips[0].ms // 100
    assert caller.fed == entry.clips[0].size


def refusal(effects: list[c.Effect]) -> Any:
    (effect,) = effects
    assert isinstance(effect, c.Emit)
    assert isinstance(effect.event, se.ErrorRaised)
    return effect.event.error.code


def test_a_turn_that_fills_the_session_can_be_committed_and_given_up() -> None:
    """No more than half an hour is held, in the buffer and in items together; deleting an item makes room."""
    caller = Caller()
    caller.sound(HALF_AN_HOUR_MS, 0.9)
    more = ce.InputAudioAppend(audio=bytes(800))
    assert refusal(caller.receive(more)) == "input_audio_buffer_full"
    del caller.said[:]
    caller.receive(ce.InputAudioCommit())
    assert caller.said[:4] == ["InputAudioCommitted", "ItemAdded", "ItemDone", "CloseUtterance"]
    (entry,) = caller.session.conversation
    assert entry.clips[0].ms == HALF_AN_HOUR_MS
    assert caller.held <= (5000 + APPEND_MS) * ULAW.bytes_per_ms, "what the item holds is not held twice"
    assert refusal(caller.receive(more)) == "input_audio_buffer_full"
    caller.receive(ce.ItemDelete(item_id=entry.item.id))
    del caller.said[:]
    caller.sound(APPEND_MS, 0.9)
    caller.sound(APPEND_MS, 0.0)
    assert caller.said[:2] == ["SpeechStopped", "InputAudioCommitted"]


def test_what_was_deleted_is_let_go_though_no_response_ever_asks_for_the_conversation() -> None:
    session = Session(Identity("m", 0, 1800, b"seed"), sc.SessionConfig(turn_detection=None), now=0.0)
    session.open()
    tracemalloc.start()
    try:
        for _ in range(20):
            session.receive(ce.InputAudioAppend(audio=b"\1\0" * 100_000), 1.0)
            session.receive(ce.InputAudioCommit(), 1.0)
            (entry,) = session.conversation
            session.receive(c.RecognitionFailed(entry.item.id, None), 1.0)
            session.receive(ce.ItemDelete(item_id=entry.item.id), 1.0)
            del entry
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 200_000, "the sound of deleted items is held"


@pytest.mark.parametrize("keeps", [True, False])
def test_sound_that_is_kept_is_one_piece(keeps: bool) -> None:
    """Of the smallest appends a piece takes thirty times its sound. What is not kept need not be put together."""
    session = Session(
        Identity("m", 0, 1800, b"seed", keeps_audio=keeps), sc.SessionConfig(turn_detection=None), 0.0
    )
    session.open()
    tracemalloc.start()
    try:
        for number in range(20_000):
            session.receive(ce.InputAudioAppend(audio=number.to_bytes(2)), 1.0)
        in_pieces = tracemalloc.get_traced_memory()[0]
        session.receive(ce.InputAudioCommit(), 1.0)
        committed = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    (entry,) = session.conversation
    assert entry.clips[0].size == 40_000
    assert (committed < 200_000) == keeps, (in_pieces, committed)


class Talk:
    """A conversation that says nothing twice, as it does when its words come from a socket."""

    def __init__(self, transcription: sc.Transcription | None) -> None:
        config = sc.SessionConfig(turn_detection=None, input_audio_transcription=transcription)
        self.session = Session(Identity("m", 0, 1800, b"seed", keeps_audio=False), config, now=0.0)
        self.session.open()
        self.said = 0
        """Characters of ASCII."""

    def receive(self, event: c.Input) -> list[c.Effect]:
        return self.session.receive(event, 1.0)

    def turn(self) -> None:
        question = f"What is the time now, after {self.said} characters?"
        self.said += len(question) + len(f"{WORDS} ")
        self.receive(ce.InputAudioAppend(audio=bytes(48_000)))
        self.receive(ce.InputAudioCommit())
        *_, spoken = self.session.conversation.snapshot()
        (asked,) = (one for one in self.receive(ce.ResponseCreate()) if isinstance(one, c.ReserveQuota))
        self.receive(c.QuotaGranted(asked.response_id, ()))
        self.receive(c.Recognised(spoken.item.id, question))
        for at, word in enumerate(WORDS.split(" ")):
            self.receive(c.TextProduced(asked.response_id, f"{word} "))
            marks = (Mark(2400 * at, 5 * at),) if at % 7 == 0 else ()
            self.receive(c.AudioProduced(asked.response_id, bytes(4800), marks))
        self.receive(c.ResponseFinished(asked.response_id))
        self.receive(c.QuotaSettled(()))


@pytest.mark.parametrize("transcription", [None, sc.Transcription()])
def test_half_an_hour_of_talk_holds_its_words_and_little_more(transcription: sc.Transcription | None) -> None:
    talk = Talk(transcription)
    tracemalloc.start()
    try:
        for _ in range(20):
            talk.turn()
        before, said = tracemalloc.get_traced_memory()[0], talk.said
        for _ in range(280):
            talk.turn()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(talk.session.conversation) == 600
    assert grown - (talk.said - said) <= 560 * BYTES_OF_AN_ITEM, "an item takes more than it has to"
