"""Events into happenings: the orders that section 5 of the protocol allows, and events without their fields."""

from __future__ import annotations

from typing import Any

import pytest
from demo_fake_server import answer, created, done, event, heard, started, stopped, tone, words

from vivavoce.demo.client import ProtocolFault
from vivavoce.demo.talk import Answered, AnswerGrew, FirstAudio, Happening, Talk


def listen(talk: Talk, events: list[dict[str, Any]]) -> list[Happening]:
    return [happening for e in events for happening in talk.receive(e, 1.0)]


def test_a_new_talk_has_nothing() -> None:
    talk = Talk()
    facts = (talk.detected, talk.answered, talk.transcribed, talk.speech_open, talk.speech_started)
    assert facts == (False,) * 5
    assert (talk.heard, talk.reply_text, talk.reply_audio, talk.last_stop) == ("", "", b"", None)


def test_an_answer_is_told_as_it_grows() -> None:
    talk = Talk()
    happenings = listen(talk, answer(sound=tone(0.1)))
    assert [h for h in happenings if isinstance(h, AnswerGrew | Answered | FirstAudio)] == [
        AnswerGrew("You said"),
        FirstAudio("resp_1"),
        AnswerGrew("You said hello"),
        Answered("You said hello"),
    ]
    assert talk.reply_audio == tone(0.1).astype("<i2").tobytes()


def test_text_parts_are_words_of_the_answer_too() -> None:
    talk = Talk()
    ids = {"response_id": "resp_1", "item_id": "i", "output_index": 0, "content_index": 0}
    listen(talk, [created(), event("response.text.delta", **ids, delta="Yes"), done()])
    assert talk.reply_text == "Yes"


def test_events_of_unknown_responses_are_left_alone() -> None:
    talk = Talk()
    assert listen(talk, [words("late", "resp_9"), event("response.audio.delta")]) == []


def test_an_answer_to_an_earlier_turn_is_not_the_last_answer() -> None:
    talk = Talk()
    listen(talk, [started(0), *stopped(500), *answer("resp_1"), started(900, "item_2"), *stopped(1500, "item_2")])
    assert talk.last_answer is None
    before = talk.answered
    listen(talk, answer("resp_2"))
    assert (before, talk.answered) == (False, True)
    assert talk.reply_text == "You said hello You said hello"


def test_a_commit_by_hand_gives_the_stop_another_item() -> None:
    talk = Talk()
    listen(talk, [started(0, "item_1"), *stopped(500, "item_2")])
    assert talk.detected
    listen(talk, [heard("one", "item_1"), heard("two", "item_2")])
    assert talk.transcribed
    assert talk.heard == "one two"


def test_a_stop_without_a_start_is_no_detection() -> None:
    talk = Talk()
    listen(talk, stopped(500))
    assert not talk.detected


def test_a_second_turn_under_way_is_no_detection_yet() -> None:
    talk = Talk()
    listen(talk, [started(0), *stopped(500), started(700, "item_2")])
    assert talk.speech_open
    assert not talk.detected


@pytest.mark.parametrize(
    "faulty",
    [
        event("input_audio_buffer.speech_started", item_id="i"),
        event("input_audio_buffer.speech_started", item_id="i", audio_start_ms=True),
        event("input_audio_buffer.speech_stopped", audio_end_ms=3),
        event("input_audio_buffer.committed"),
        event("conversation.item.input_audio_transcription.completed", item_id="i", transcript=None),
        event("response.created"),
        event("response.done", response={"id": "resp_1"}),
        event("response.audio.delta", response_id="resp_1", delta="not base64!"),
        event("response.audio_transcript.delta", response_id="resp_1", delta="x"),
    ],
    ids=lambda e: str(e["type"]),
)
def test_events_without_their_fields(faulty: dict[str, Any]) -> None:
    talk = Talk()
    listen(talk, [created()])
    with pytest.raises(ProtocolFault):
        talk.receive(faulty, 1.0)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"message": "Bad.", "code": "x"}, "Bad. (code x)"),
        ({"message": "Bad.", "code": None}, "Bad."),
        ({"code": "x"}, "x"),
        (None, "no reason given"),
    ],
)
def test_error_events_without_all_their_fields(error: object, message: str) -> None:
    (happening,) = Talk().receive(event("error", error=error), 1.0)
    assert getattr(happening, "message", None) == message
