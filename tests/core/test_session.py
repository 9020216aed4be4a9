"""What the cells and the walk do not pin down: values in the events, and the corners of single rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from test_session_cells import (
    FRAME,
    LIMITS,
    SECOND,
    VAD,
    Case,
    base,
    created,
    hesitating,
    owed,
    quiet,
    speaking,
    streaming,
)

from vivavoce.core import contract as c
from vivavoce.core import turns
from vivavoce.core.alignment import Mark
from vivavoce.core.context import Entry
from vivavoce.core.identity import Identity
from vivavoce.core.responses import MAX_OUT_OF_BAND
from vivavoce.core.session import Session
from vivavoce.wire import client_events as ce
from vivavoce.wire import errors, items
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc


def events(effects: list[c.Effect]) -> list[se.ServerEvent]:
    return [effect.event for effect in effects if isinstance(effect, c.Emit)]


def only(effects: list[c.Effect], kind: type[Any]) -> Any:
    found = [event for event in [*events(effects), *effects] if isinstance(event, kind)]
    assert len(found) == 1, effects
    return found[0]


def refusal(effects: list[c.Effect]) -> errors.ErrorBody:
    assert len(effects) == 1, effects
    error: errors.ErrorBody = only(effects, se.ErrorRaised).error
    return error


# ------------------------------------------------------------------------------------------- the session


def test_words_of_a_sound_are_not_those_of_another_under_the_same_id() -> None:
    """A model asked for them; meanwhile the client has deleted the item, and sent other audio under its id."""
    session = base().session

    def a() -> Entry:
        entry = session.conversation.get("a")
        assert entry is not None
        return entry

    def send(audio: bytes) -> Entry:
        item = items.MessageItem("a", "user", (items.InputAudioPart(audio=audio),))
        session.receive(ce.ItemCreate(item=item), 1.0)
        return a()

    old = send(SECOND)
    session.receive(ce.ItemDelete(item_id="a"), 1.0)
    new = send(SECOND[::-1])
    session.receive(c.Recognised("a", "old", clip=old.clips[0]), 1.0)
    session.receive(c.Recognised("a", "of no clip"), 1.0)
    assert a() == new
    session.receive(c.Recognised("a", "new", clip=new.clips[0]), 1.0)
    assert a().heard == {0: "new"}


def test_nobody_listens_to_what_was_deleted() -> None:
    """Else a client that commits and deletes makes the recogniser hold more sound than a session may."""
    case = base()
    case.receive(ce.InputAudioCommit())
    item_id = case.last_item
    effects = case.session.receive(ce.ItemDelete(item_id=item_id), 1.0)
    assert only(effects, c.DropUtterance) == c.DropUtterance(item_id)
    effects = case.session.receive(ce.ItemDelete(item_id="u1"), 1.0)
    assert events(effects) == [se.ItemDeleted("u1")]
    assert len(effects) == 1


@pytest.mark.parametrize("keeps", [True, False])
def test_audio_whose_words_are_known_is_kept_while_somebody_can_ask_for_it(keeps: bool) -> None:
    """Otherwise a session that talks for its whole life would hold all of it (protocol section 7.3, idle audio)."""
    config = sc.SessionConfig(turn_detection=None, input_audio_transcription=sc.Transcription())
    identity = Identity(model="m", created_at=0, lifetime_s=1800, seed=b"x", keeps_audio=keeps)
    session = Session(identity, config, now=0.0)
    session.open()
    session.receive(ce.InputAudioAppend(audio=bytes(48_000)), 1.0)
    item_id = only(session.receive(ce.InputAudioCommit(), 1.0), se.InputAudioCommitted).item_id
    assert session.conversation.clip_ticks == 24_000
    session.receive(c.Recognised(item_id, "hello"), 2.0)
    assert session.conversation.clip_ticks == (24_000 if keeps else 0)
    entry = session.conversation.get(item_id)
    assert entry is not None
    assert entry.heard == {0: "hello"}
    assert entry.audio_tokens == 10


def test_opening() -> None:
    session = Session(Identity(model="m", created_at=1000, lifetime_s=1800, seed=b"x"), sc.SessionConfig(), now=5.0)
    created_event, conversation = events(session.open())
    assert created_event == se.SessionCreated(
        se.Session(id=session.id, model="m", expires_at=2800, config=sc.SessionConfig())
    )
    assert conversation == se.ConversationCreated(session.conversation.id)
    assert session.next_deadline == 1805.0
    assert len({session.id, session.conversation.id, session.new_event_id(), session.new_event_id()}) == 4


def test_expiry() -> None:
    case = streaming()
    assert case.session.receive(c.TimePassed(), 1799.999) == []
    effects = case.session.receive(c.TimePassed(), 1800.0)
    message = "Your session hit the maximum duration of 30 minutes."
    assert effects[0] == c.Emit(se.ErrorRaised(errors.ErrorBody(code="session_expired", message=message)))
    assert [type(effect) for effect in effects[1:]] == [c.StopResponse, c.SettleQuota, c.Close]
    assert effects[-1] == c.Close(1001, message)
    assert case.session.receive(c.TimePassed(), 1801.0) == []


@pytest.mark.parametrize(
    "event",
    [
        ce.SessionUpdate(session=sc.SessionPatch(model="x"), event_id="e9"),
        ce.InputAudioAppend(audio=b"", event_id="e9"),
        ce.ItemDelete(item_id="x", event_id="e9"),
        ce.ResponseCancel(event_id="e9"),
    ],
)
def test_a_fault_names_its_event(event: c.Input) -> None:
    assert refusal(base().session.receive(event, 1.0)).event_id == "e9"


def test_update_merges_by_top_level_key() -> None:
    case = base(instructions="a", turn_detection=sc.ServerVad(threshold=0.9))
    vad = sc.ServerVad(silence_duration_ms=500)
    updated = only(
        case.session.receive(ce.SessionUpdate(session=sc.SessionPatch(turn_detection=vad)), 1.0), se.SessionUpdated
    )
    assert updated.session.config == case.session.config
    assert (case.session.config.instructions, case.session.config.turn_detection) == ("a", vad)


# ------------------------------------------------------------------------------------------------ the turns


def test_times_and_the_item_of_a_turn() -> None:
    case = base(turn_detection=sc.ServerVad())
    case.receive(ce.InputAudioAppend(audio=SECOND * 2))
    case.hear(*[0.0] * 55)
    begun = only(case.session.receive(c.VadFrame(56 * FRAME, 0.9), 1.0), se.SpeechStarted)
    assert begun.audio_start_ms == 1460  # 55 * 32 - 300
    case.frame = 56
    case.hear(*[0.9] * 5, *[0.0] * 6)
    effects = case.session.receive(c.VadFrame(68 * FRAME, 0.0), 1.0)
    assert only(effects, se.SpeechStopped) == se.SpeechStopped(2176, begun.item_id)
    assert only(effects, se.InputAudioCommitted) == se.InputAudioCommitted("u1", begun.item_id)
    entry = case.session.conversation.get(begun.item_id)
    assert entry is not None
    assert (entry.clips[0].ms, entry.audio_tokens) == (2176 - 1460, 7)


def test_padding_does_not_reach_before_what_is_kept() -> None:
    case = base(turn_detection=sc.ServerVad())
    case.receive(ce.InputAudioClear())
    case.receive(ce.InputAudioAppend(audio=SECOND))
    begun = only(case.session.receive(c.VadFrame(32 * FRAME, 0.9), 1.0), se.SpeechStarted)
    assert begun.audio_start_ms == 1000  # the clock goes on, the audio before the clear is gone


def test_a_commit_in_mid_speech_takes_the_announced_item_and_renames_the_rest() -> None:
    case = speaking()
    announced = case.session.turn
    assert isinstance(announced, turns.Speaking)
    effects = case.session.receive(ce.InputAudioCommit(), 1.0)
    assert only(effects, se.InputAudioCommitted).item_id == announced.item_id
    rest = case.session.turn
    assert isinstance(rest, turns.Speaking)
    assert rest.item_id != announced.item_id
    case.receive(ce.InputAudioAppend(audio=SECOND))
    case.hear(*[0.9] * 20, *[0.0] * 6)
    stopped = case.session.receive(c.VadFrame((case.frame + 1) * FRAME, 0.0), 1.0)
    assert only(stopped, se.SpeechStopped).item_id == rest.item_id
    assert only(stopped, se.InputAudioCommitted) == se.InputAudioCommitted(announced.item_id, rest.item_id)


def test_a_commit_that_overtakes_the_vad_leaves_no_empty_item() -> None:
    case = hesitating()
    case.receive(ce.InputAudioCommit())
    items_before = len(case.session.conversation)
    case.hear(0.0)
    assert case.said == ["SpeechStopped", "DropUtterance"]
    assert len(case.session.conversation) == items_before
    assert case.session.turn == turns.Quiet()


def test_an_announced_item_is_taken() -> None:
    case = speaking()
    turn = case.session.turn
    assert isinstance(turn, turns.Speaking)
    item = items.MessageItem(turn.item_id, "user", (items.InputTextPart("x"),))
    error = refusal(case.session.receive(ce.ItemCreate(item=item), 1.0))
    assert (error.code, error.param) == ("item_create_duplicate_item_id", "item.id")
    case.receive(ce.InputAudioClear())
    assert case.receive(ce.ItemCreate(item=item)) == ["ItemAdded", "ItemDone"]


def test_committed_audio_is_not_kept_where_no_turn_can_reach_it() -> None:
    case = base()
    case.receive(ce.InputAudioCommit())
    assert case.session._audio.kept_from == case.session._audio.clock == 24000


def test_long_speech_reaches_the_recogniser_in_pieces() -> None:
    case = quiet()
    case.receive(ce.InputAudioAppend(audio=SECOND))
    case.hear(0.9)
    fed = [case.said.count("FeedUtterance")]
    for _ in range(30):
        case.hear(0.9)
        fed.append(case.said.count("FeedUtterance"))
    assert fed == [1, *([0] * 9 + [1]) * 3]


def test_a_clear_forgets_the_turn_without_a_word() -> None:
    case = speaking()
    case.receive(ce.InputAudioClear())
    case.receive(ce.InputAudioAppend(audio=SECOND))
    case.frame = 40
    case.hear(*[0.0] * 10)
    assert case.said == []


# -------------------------------------------------------------------------------------------- recognition


def committed(transcription: sc.Transcription | None) -> tuple[Case, str]:
    case = base(input_audio_transcription=transcription)
    case.receive(ce.InputAudioCommit())
    return case, case.last_item


def test_words_that_the_client_asked_for() -> None:
    case, item_id = committed(sc.Transcription())
    told = case.session.receive(c.Recognised(item_id, "hello"), 1.0)
    assert events(told) == [se.TranscriptionCompleted(item_id, 0, "hello", se.TranscriptionDuration(1))]
    entry = case.session.conversation.get(item_id)
    assert entry is not None
    assert entry.item == items.MessageItem(item_id, "user", (items.InputAudioPart("hello"),))
    assert entry.heard == {0: "hello"}
    assert case.session.receive(c.Recognised(item_id, "again"), 1.0) == []
    assert case.session.receive(c.RecognitionFailed(item_id, None), 1.0) == []


def told_while_speaking(case: Case, item_id: str, text: str) -> list[se.ServerEvent]:
    report = c.RecognitionDelta(item_id, text, (se.Logprob(text, -0.5),))
    return events(case.session.receive(report, 1.0))


def test_words_are_told_while_the_person_speaks_on() -> None:
    case = base(turn_detection=VAD, input_audio_transcription=sc.Transcription())
    case.hear(0.9)
    turn = case.session.turn
    assert isinstance(turn, turns.Speaking)
    assert told_while_speaking(case, turn.item_id, "hel") == [se.TranscriptionDelta(turn.item_id, 0, "hel")]
    assert told_while_speaking(case, turn.item_id, "") == []
    case.hear(*[0.0] * 7)
    assert told_while_speaking(case, turn.item_id, "lo") == [se.TranscriptionDelta(turn.item_id, 0, "lo")]
    case.receive(c.Recognised(turn.item_id, "hello"))
    assert case.said == ["TranscriptionCompleted"]
    assert told_while_speaking(case, turn.item_id, "late") == []


def test_words_that_count_no_more_are_told_anew_as_a_whole() -> None:
    """Deltas cannot be taken back; so a recognition that begins anew after some adds none to them."""
    case = base(turn_detection=VAD, input_audio_transcription=sc.Transcription())
    case.hear(0.9)
    turn = case.session.turn
    assert isinstance(turn, turns.Speaking)
    german = ce.SessionUpdate(session=sc.SessionPatch(input_audio_transcription=sc.Transcription(language="de")))
    assert case.receive(german) == ["DropUtterance", "OpenUtterance", "SessionUpdated"]
    assert len(told_while_speaking(case, turn.item_id, "hal")) == 1, "nothing had been told yet"
    with_logprobs = ce.SessionUpdate(session=sc.SessionPatch(include=(sc.LOGPROBS,)))
    assert case.receive(with_logprobs) == ["DropUtterance", "OpenUtterance", "SessionUpdated"]
    assert told_while_speaking(case, turn.item_id, "hallo") == []
    case.hear(*[0.0] * 7)
    told = events(case.session.receive(c.Recognised(turn.item_id, "hallo"), 1.0))
    assert [type(event) for event in told] == [se.TranscriptionCompleted]


def test_log_probabilities_only_where_asked_for_and_known() -> None:
    sure = (se.Logprob("hello", -0.25),)
    for include, known, told in (
        (None, sure, UNSET),
        ((), sure, UNSET),
        ((sc.LOGPROBS,), sure, sure),
        ((sc.LOGPROBS,), None, None),
    ):
        case = base(input_audio_transcription=sc.Transcription(), include=include)
        effects = case.session.receive(ce.InputAudioCommit(), 1.0)
        assert only(effects, c.OpenUtterance).logprobs == bool(include)
        item_id = case.last_item
        (delta,) = events(case.session.receive(c.RecognitionDelta(item_id, "hello", known), 1.0))
        (whole,) = events(case.session.receive(c.Recognised(item_id, "hello", logprobs=known), 1.0))
        assert isinstance(delta, se.TranscriptionDelta)
        assert isinstance(whole, se.TranscriptionCompleted)
        assert (delta.logprobs, whole.logprobs) == (told, told)
    case = base(include=(sc.LOGPROBS,))
    assert not only(case.session.receive(ce.InputAudioCommit(), 1.0), c.OpenUtterance).logprobs


def test_words_for_the_model_alone() -> None:
    case, item_id = committed(None)
    assert case.session.receive(c.Recognised(item_id, "hello"), 1.0) == []
    entry = case.session.conversation.get(item_id)
    assert entry is not None
    assert entry.item == items.MessageItem(item_id, "user", (items.InputAudioPart(None),))
    assert entry.heard == {0: "hello"}


def test_lost_words() -> None:
    case, item_id = committed(sc.Transcription())
    told = events(case.session.receive(c.RecognitionFailed(item_id, "engine_down"), 1.0))
    assert told == [se.TranscriptionFailed(item_id, 0, errors.transcription_failed("engine_down", item_id))]
    case, item_id = committed(None)
    assert case.session.receive(c.RecognitionFailed(item_id, "engine_down"), 1.0) == []


def test_words_of_a_turn_that_goes_on_are_not_believed() -> None:
    case = speaking()
    turn = case.session.turn
    assert isinstance(turn, turns.Speaking)
    assert case.session.receive(c.Recognised(turn.item_id, "too early"), 1.0) == []
    assert case.receive(c.ShutDown(1001, "bye")) == ["DropUtterance", "Close"]


def test_a_clients_audio_is_heard_by_its_place() -> None:
    parts = (items.InputTextPart("look"), items.InputAudioPart(audio=SECOND), items.InputAudioPart("said"))
    case = base()
    case.receive(ce.ItemCreate(item=items.MessageItem("m", "user", parts)))
    entry = case.session.conversation.get("m")
    assert entry is not None
    assert (set(entry.clips), dict(entry.heard), entry.audio_tokens) == ({1}, {2: "said"}, 10)
    assert entry.item == items.MessageItem(
        "m", "user", (items.InputTextPart("look"), items.InputAudioPart(), items.InputAudioPart("said"))
    )
    assert case.session.receive(c.Recognised("m", "x", content_index=0), 1.0) == []
    assert case.session.receive(c.Recognised("m", "sound", content_index=1, clip=entry.clips[1]), 1.0) == []
    entry = case.session.conversation.get("m")
    assert entry is not None
    assert entry.heard == {1: "sound", 2: "said"}


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (items.InputAudioPart(undecodable=True), "an invalid value"),
        (items.InputAudioPart(audio=b"\0\0\0"), "an invalid value"),
        (items.InputAudioPart(audio=b""), "empty bytes"),
    ],
)
def test_a_clients_bad_audio(part: items.InputAudioPart, problem: str) -> None:
    message = items.MessageItem("m", "user", (items.InputTextPart("x"), part))
    error = refusal(base().session.receive(ce.ItemCreate(item=message), 1.0))
    assert (error.code, error.param) == ("invalid_value", "item.content[1].audio")
    assert error.message.endswith(f"but got {problem}.")


# --------------------------------------------------------------------------------------------- responses


def test_a_response_runs_on_a_snapshot() -> None:
    case = created()
    case.receive(ce.SessionUpdate(session=sc.SessionPatch(instructions="late")))
    case.receive(ce.ItemCreate(item=items.MessageItem("late", "user", (items.InputTextPart("x"),))))
    plan = only(case.session.receive(c.QuotaGranted(case.response_id, LIMITS), 1.0), c.StartResponse).plan
    assert plan.instructions == ""
    assert [entry.item.id for entry in plan.context] == ["u1"]


def test_options_override_for_one_response() -> None:
    case = base(temperature=0.9, max_output_tokens=7)
    options = sc.ResponseOptions(
        instructions="brief",
        modalities=("text",),
        temperature=0.6,
        tools=(),
        max_output_tokens=None,
        metadata={"a": "b"},
    )
    effects = case.session.receive(ce.ResponseCreate(options=options), 1.0)
    response = only(effects, se.ResponseCreated).response
    assert (response.modalities, response.temperature, response.max_output_tokens) == (("text",), 0.6, None)
    assert (response.metadata, response.conversation_id) == ({"a": "b"}, case.session.conversation.id)
    assert only(effects, c.ReserveQuota).tokens == 1 + 5 + 4096
    plan = only(case.session.receive(c.QuotaGranted(response.id, LIMITS), 1.0), c.StartResponse).plan
    assert (plan.instructions, plan.tools, plan.temperature) == ("brief", (), 0.6)
    assert case.session.config.temperature == 0.9


def test_context_of_its_own() -> None:
    case = base()
    case.receive(ce.ItemCreate(item=items.FunctionCallItem("call", "call_1", "f", "{}")))
    given_input: tuple[items.ContextItem, ...] = (
        items.FunctionCallOutputItem("", "call_1", "in the conversation"),
        items.FunctionCallItem("", "call_2", "f", "{}"),
        items.FunctionCallOutputItem("", "call_2", "in the input"),
        items.ItemReference("u1"),
        items.MessageItem("", "user", (items.InputTextPart("x"),)),
    )
    options = sc.ResponseOptions(conversation="none", input=given_input)
    effects = case.session.receive(ce.ResponseCreate(options=options), 1.0)
    response_id = only(effects, se.ResponseCreated).response.id
    plan = only(case.session.receive(c.QuotaGranted(response_id, LIMITS), 1.0), c.StartResponse).plan
    assert [type(entry.item).__name__ for entry in plan.context] == [
        "FunctionCallOutputItem",
        "FunctionCallItem",
        "FunctionCallOutputItem",
        "MessageItem",
        "MessageItem",
    ]
    assert plan.context[3].item.id == "u1"
    assert all(entry.item.id for entry in plan.context)
    assert len(case.session.conversation) == 2


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        (items.ItemReference("x"), "invalid_value", "response.input[1].id"),
        (items.FunctionCallOutputItem("", "call_x", "y"), "invalid_tool_call_id", "response.input[1].call_id"),
        (
            items.MessageItem("", "user", (items.InputAudioPart(undecodable=True),)),
            "invalid_value",
            "response.input[1].content[0].audio",
        ),
    ],
)
def test_faults_of_a_context(item: items.ContextItem, code: str, param: str) -> None:
    options = sc.ResponseOptions(conversation="none", input=(items.ItemReference("u1"), item))
    error = refusal(base().session.receive(ce.ResponseCreate(options=options), 1.0))
    assert (error.code, error.param) == (code, param)


def test_a_voice_is_settled_once_it_was_heard() -> None:
    case = base()
    echo = sc.ResponseOptions(voice="echo")
    assert case.receive(ce.ResponseCreate(options=echo)) == ["ResponseCreated", "ReserveQuota"]
    case.receive(c.AudioProduced(case.response_id, SECOND))
    case.receive(c.ResponseFinished(case.response_id))
    error = refusal(case.session.receive(ce.ResponseCreate(options=echo), 1.0))
    assert (error.code, error.param) == ("cannot_update_voice", "response.voice")
    apart = sc.ResponseOptions(voice="echo", conversation="none")
    assert case.receive(ce.ResponseCreate(options=apart)) == ["ResponseCreated", "ReserveQuota"]
    same = ce.SessionUpdate(session=sc.SessionPatch(voice="alloy"))
    assert case.receive(same) == ["SessionUpdated"]


def test_a_response_that_the_client_asks_for_pays_what_is_owed() -> None:
    case = owed()
    case.receive(ce.ResponseCreate(options=sc.ResponseOptions(cancel_previous=True)))
    case.receive(c.QuotaSettled(LIMITS))
    assert case.said == ["RateLimitsUpdated", "ResponseCreated", "ReserveQuota"]
    case.receive(c.ResponseFinished(case.response_id))
    assert case.said == ["ResponseDone", "StopResponse", "SettleQuota"]
    case.receive(c.QuotaSettled(LIMITS))
    assert case.said == ["RateLimitsUpdated"]


def test_out_of_band_responses_have_a_bound() -> None:
    case = base()
    apart = ce.ResponseCreate(options=sc.ResponseOptions(conversation="none"))
    for _ in range(MAX_OUT_OF_BAND):
        assert case.receive(apart) == ["ResponseCreated", "ReserveQuota"]
    assert refusal(case.session.receive(apart, 1.0)).code == "too_many_active_responses"
    assert case.receive(ce.ResponseCreate()) == ["ResponseCreated", "ReserveQuota"]
    assert (
        refusal(case.session.receive(ce.ResponseCancel(response_id="x"), 1.0)).code == "response_cancel_not_active"
    )


def test_denied_by_quota() -> None:
    case = created()
    effects = case.session.receive(c.QuotaDenied(case.response_id, "tokens", 2.5, LIMITS), 1.0)
    response = only(effects, se.ResponseDone).response
    assert (response.status, response.output, response.usage) == ("failed", (), se.Usage())
    assert response.status_details.error.code == "rate_limit_exceeded"
    assert response.status_details.error.message.endswith("on tokens. Please try again in 2.5s.")
    assert only(effects, c.SettleQuota).tokens == 0


@pytest.mark.parametrize(
    ("event", "status", "reason"),
    [
        (ce.ResponseCancel(), "cancelled", "client_cancelled"),
        (c.ResponseFinished("", "stop"), "completed", None),
        (c.ResponseFinished("", "max_output_tokens"), "incomplete", "max_output_tokens"),
        (c.ResponseFinished("", "content_filter"), "incomplete", "content_filter"),
        (c.ResponseFailed("", errors.internal_error()), "failed", None),
    ],
)
def test_ends(event: Any, status: str, reason: str | None) -> None:
    case = streaming()
    if not isinstance(event, ce.ResponseCancel):
        event = type(event)(case.response_id, event.reason if reason or status == "completed" else event.fault)
    response = only(case.session.receive(event, 1.0), se.ResponseDone).response
    assert response.status == status
    assert (response.status_details and response.status_details.reason) == reason
    assert response.usage == se.Usage(input_text=5 + 5, output_text=1, output_audio=20)
    assert response.output[0].status == ("completed" if status == "completed" else "incomplete")
    assert response.output[0].content == (items.AudioPart("Hello"),)


def test_barge_in_says_why() -> None:
    case = base(turn_detection=sc.ServerVad())
    case.receive(ce.ResponseCreate())
    case.receive(c.QuotaGranted(case.response_id, LIMITS))
    case.receive(c.AudioProduced(case.response_id, SECOND))
    effects = case.session.receive(c.VadFrame(FRAME, 0.9), 1.0)
    assert isinstance(events(effects)[0], se.SpeechStarted)
    details = only(effects, se.ResponseDone).response.status_details
    assert details == se.StatusDetails(type="cancelled", reason="turn_detected")


def test_what_the_model_used_counts_when_its_speech_is_cut_short() -> None:
    case = streaming()
    case.receive(c.UsageReported(case.response_id, input=c.InputTokens(text=70, cached_text=64), output_text=9))
    done = only(case.session.receive(ce.ResponseCancel(), 1.0), se.ResponseDone).response
    assert done.status == "cancelled"
    assert done.usage == se.Usage(input_text=70, cached_text=64, output_text=9, output_audio=20)


def test_a_truncated_open_item_stays_truncated() -> None:
    case = streaming()
    item_id = case.last_item
    case.receive(ce.ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=300))
    case.receive(c.AudioProduced(case.response_id, SECOND))
    done = only(case.session.receive(c.ResponseFinished(case.response_id), 1.0), se.ResponseDone).response
    assert done.output[0].content == (items.AudioPart("Hello"),)
    entry = case.session.conversation.get(item_id)
    assert entry is not None
    assert (entry.audio_ms, entry.audio_tokens, entry.truncated) == (300, 6, True)
    assert entry.item == items.MessageItem(item_id, "assistant", (items.AudioPart(None),), "completed")


def test_what_was_heard_follows_the_marks_of_the_engine() -> None:
    case = streaming()
    item_id = case.last_item
    case.receive(c.TextProduced(case.response_id, " there, my friend"))
    case.receive(c.AudioProduced(case.response_id, SECOND, (Mark(24_000, 5), Mark(26_400, 12))))
    case.receive(c.AudioProduced(case.response_id, b"", (Mark(48_000, 22),)))
    case.receive(ce.ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=1150))
    entry = case.session.conversation.get(item_id)
    assert entry is not None
    assert entry.heard_text == "Hello there,"
    case.receive(c.ResponseFinished(case.response_id))
    entry = case.session.conversation.get(item_id)
    assert entry is not None
    assert (entry.heard_text, entry.truncated) == ("Hello there,", True)
    case.receive(ce.ItemTruncate(item_id=item_id, content_index=0, audio_end_ms=600))
    entry = case.session.conversation.get(item_id)
    assert entry is not None
    assert entry.heard_text == "Hello"


def test_marks_without_a_message_change_nothing() -> None:
    case = streaming()
    case.receive(c.CallStarted(case.response_id, "look"))
    assert case.session.receive(c.AudioProduced(case.response_id, b"", (Mark(1, 1),)), 1.0) == []
    assert case.session.receive(c.AudioProduced("resp_late", b"", (Mark(1, 1),)), 1.0) == []


def test_a_deleted_open_item_stays_deleted() -> None:
    case = streaming()
    item_id = case.last_item
    case.receive(ce.ItemDelete(item_id=item_id))
    effects = case.session.receive(c.ResponseFinished(case.response_id), 1.0)
    assert only(effects, se.ResponseDone).response.output[0].id == item_id
    assert not any(isinstance(event, se.ItemDone) for event in events(effects))
    assert item_id not in case.session.conversation


@given(
    limit=st.integers(1, 60),
    products=st.lists(
        st.sampled_from([" one", " one two three four", "é"]) | st.integers(1, 400), min_size=1, max_size=20
    ),
    output_format=st.sampled_from(sc.AUDIO_FORMATS),
)
def test_output_stops_at_the_limit(limit: int, products: list[str | int], output_format: Any) -> None:
    case = base(output_audio_format=output_format, max_output_tokens=limit)
    case.receive(ce.ResponseCreate())
    response_id = case.response_id
    case.receive(c.QuotaGranted(response_id, LIMITS))
    run = case.session.responses.default
    assert run is not None
    fmt = run.plan.output_format
    sent_text, sent_bytes, done = "", 0, None
    for product in products:
        report: c.Input
        if isinstance(product, str):
            report = c.TextProduced(response_id, product)
        else:
            report = c.AudioProduced(response_id, bytes(product * fmt.bytes_per_ms))
        for event in events(case.session.receive(report, 1.0)):
            match event:
                case se.TranscriptDelta():
                    sent_text += event.delta
                case se.AudioDelta():
                    assert len(event.delta) % fmt.sample_bytes == 0
                    sent_bytes += len(event.delta)
                case se.ResponseDone():
                    done = event.response
    wanted_ms = sum(p for p in products if isinstance(p, int))
    counted = run.usage
    assert counted.output_audio == int(fmt.ms(sent_bytes)) // 50
    assert counted.output_text + counted.output_audio <= limit
    if done is None:
        assert sent_text == "".join(p for p in products if isinstance(p, str))
        assert fmt.ms(sent_bytes) == wanted_ms
    else:
        assert (done.status, done.usage) == ("incomplete", counted)
        assert done.status_details == se.StatusDetails(type="incomplete", reason="max_output_tokens")
