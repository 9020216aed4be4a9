"""Every cell of (state of a session x input): the exact effects, in order.

Effects are named by their type; an emitted event by its own, and an ``error`` event by ``!code``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, get_args

import pytest

from vivavoce.core import contract as c
from vivavoce.core import turns
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.wire import client_events as ce
from vivavoce.wire import errors, items
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc

FRAME: Final = turns.FRAME_TICKS
MODEL: Final = "gpt-4o-realtime-preview"
SECOND: Final = bytes(48000)
LIMITS: Final = (se.RateLimit(name="requests", limit=9, remaining=8, reset_seconds=1.0),)
FAULT: Final = errors.ServerFault(code="engine_down", message="It is down.")
VAD: Final = sc.ServerVad()
SEMANTIC: Final = sc.SemanticVad()
POLITE: Final = sc.ServerVad(interrupt_response=False)
TOOLS: Final = (sc.FunctionTool("f"),)


@dataclass
class Case:
    """A session in some state, with the names of what is in it."""

    session: Session
    frame: int = 0
    """The last frame that was judged."""
    said: list[str] = field(default_factory=list)

    def receive(self, event: c.Input, now: float = 1.0) -> list[str]:
        self.said = [label(effect) for effect in self.session.receive(event, now)]
        return self.said

    def hear(self, *probabilities: float) -> None:
        for probability in probabilities:
            self.frame += 1
            self.receive(c.VadFrame(self.frame * FRAME, probability))

    @property
    def response_id(self) -> str:
        """The response that runs, or one that has gone."""
        responses = self.session.responses
        if responses.default is not None:
            return responses.default.plan.response_id
        return next(iter(responses.apart), "resp_gone")

    @property
    def turn_item(self) -> str:
        """The item that the turn under way will become."""
        turn = self.session.turn
        return turn.item_id if isinstance(turn, turns.Speaking | turns.Hesitating) else "item_gone"

    @property
    def last_item(self) -> str:
        return next((entry.item.id for entry in reversed(self.session.conversation.snapshot())), "item_gone")


def label(effect: c.Effect) -> str:
    if not isinstance(effect, c.Emit):
        return type(effect).__name__
    if isinstance(effect.event, se.ErrorRaised):
        return f"!{effect.event.error.code}"
    return type(effect.event).__name__


def text_message(item_id: str = "") -> items.MessageItem:
    return items.MessageItem(item_id, "user", (items.InputTextPart("hello"),))


# ------------------------------------------------------------------------------------------------ states


def base(*, speculates: bool = False, **config: object) -> Case:
    session = Session(
        Identity(model=MODEL, created_at=0, lifetime_s=1800, seed=b"seed", speculates=speculates),
        sc.SessionConfig(**({"turn_detection": None, "tools": TOOLS} | config)),  # type: ignore[arg-type]  # by name
        now=0.0,
    )
    session.open()
    case = Case(session)
    case.receive(ce.ItemCreate(item=text_message("u1")))
    case.receive(ce.InputAudioAppend(audio=SECOND))
    return case


def off() -> Case:
    """No turn detection, a second in the buffer."""
    return base()


def quiet() -> Case:
    case = base(turn_detection=VAD)
    case.hear(*[0.0] * 20)
    return case


def speaking() -> Case:
    case = quiet()
    case.hear(0.9)
    return case


def hesitating() -> Case:
    case = speaking()
    case.hear(*[0.0] * 6)
    return case


def fading() -> Case:
    """Hesitating, and about to speculate."""
    case = base(speculates=True, turn_detection=VAD)
    case.hear(*[0.0] * 20, 0.9, *[0.0] * 3)
    return case


def likely() -> Case:
    """Hesitating for as long as may be, and a speculation stands."""
    case = fading()
    case.hear(*[0.0] * 3)
    return case


def pausing() -> Case:
    """Hesitating, and about to ask whether the speaker has finished."""
    case = base(turn_detection=SEMANTIC)
    case.hear(*[0.0] * 20, 0.9, *[0.0] * 5)
    return case


def asked() -> Case:
    """Hesitating, and waiting for the answer."""
    case = pausing()
    case.hear(0.0)
    return case


def created() -> Case:
    """A response waits for its quota."""
    case = base()
    case.receive(ce.ResponseCreate())
    return case


def streaming() -> Case:
    """A spoken message is open; its words and its sound have begun."""
    case = created()
    case.receive(c.QuotaGranted(case.response_id, LIMITS))
    case.receive(c.TextProduced(case.response_id, "Hello"))
    case.receive(c.AudioProduced(case.response_id, SECOND))
    return case


def talking() -> Case:
    """The server speaks, and listens for interruptions."""
    case = base(turn_detection=VAD)
    case.receive(ce.ResponseCreate())
    case.receive(c.QuotaGranted(case.response_id, LIMITS))
    case.receive(c.TextProduced(case.response_id, "Hello"))
    case.receive(c.AudioProduced(case.response_id, SECOND))
    case.hear(*[0.0] * 20)
    return case


def calling() -> Case:
    """A function call is open."""
    case = created()
    case.receive(c.QuotaGranted(case.response_id, LIMITS))
    case.receive(c.CallStarted(case.response_id, "f"))
    case.receive(c.ArgumentsProduced(case.response_id, "{"))
    return case


def apart() -> Case:
    """An out-of-band response streams text."""
    case = base()
    case.receive(ce.ResponseCreate(options=sc.ResponseOptions(conversation="none", modalities=("text",))))
    case.receive(c.QuotaGranted(case.response_id, LIMITS))
    case.receive(c.TextProduced(case.response_id, "Hello"))
    return case


def owed() -> Case:
    """A turn that may not interrupt has ended while a response streams."""
    case = base(turn_detection=POLITE)
    case.receive(ce.ResponseCreate())
    case.receive(c.QuotaGranted(case.response_id, LIMITS))
    case.receive(c.TextProduced(case.response_id, "Hello"))
    case.hear(*[0.0] * 10, 0.9, *[0.0] * 7)
    return case


def succeeding() -> Case:
    """A response was cancelled in favour of another, which waits for the rate limits of the first."""
    case = calling()
    case.receive(ce.ResponseCreate(options=sc.ResponseOptions(cancel_previous=True)))
    return case


def awaiting() -> Case:
    """The words of a committed item are awaited."""
    case = base(input_audio_transcription=sc.Transcription())
    case.receive(ce.InputAudioCommit())
    case.receive(ce.InputAudioAppend(audio=SECOND))
    return case


def closing() -> Case:
    case = streaming()
    case.receive(c.ShutDown(1001, "bye"))
    return case


STATES: Final[dict[str, Callable[[], Case]]] = {
    state.__name__: state
    for state in (
        off,
        quiet,
        speaking,
        hesitating,
        fading,
        likely,
        pausing,
        asked,
        created,
        streaming,
        talking,
        calling,
        apart,
        owed,
        succeeding,
        awaiting,
        closing,
    )
}

# ------------------------------------------------------------------------------------------------ inputs

INPUTS: Final[dict[str, Callable[[Case], c.Input]]] = {
    "update": lambda case: ce.SessionUpdate(session=sc.SessionPatch(instructions="x")),
    "update same model": lambda case: ce.SessionUpdate(session=sc.SessionPatch(model=MODEL)),
    "update other model": lambda case: ce.SessionUpdate(session=sc.SessionPatch(model="x")),
    "update voice": lambda case: ce.SessionUpdate(session=sc.SessionPatch(voice="echo")),
    "update tool choice": lambda case: ce.SessionUpdate(session=sc.SessionPatch(tool_choice=sc.NamedFunction("g"))),
    "update transcription": lambda case: ce.SessionUpdate(
        session=sc.SessionPatch(input_audio_transcription=sc.Transcription("other"))
    ),
    "update vad off": lambda case: ce.SessionUpdate(session=sc.SessionPatch(turn_detection=None)),
    "update vad on": lambda case: ce.SessionUpdate(session=sc.SessionPatch(turn_detection=VAD)),
    "append": lambda case: ce.InputAudioAppend(audio=SECOND),
    "append odd": lambda case: ce.InputAudioAppend(audio=b"\0"),
    "append empty": lambda case: ce.InputAudioAppend(audio=b""),
    "append undecodable": lambda case: ce.InputAudioAppend(audio=b"", undecodable=True),
    "commit": lambda case: ce.InputAudioCommit(),
    "clear": lambda case: ce.InputAudioClear(),
    "create": lambda case: ce.ItemCreate(item=text_message()),
    "create after": lambda case: ce.ItemCreate(item=text_message("u2"), previous_item_id="u1"),
    "create twice": lambda case: ce.ItemCreate(item=text_message("u1")),
    "create nowhere": lambda case: ce.ItemCreate(item=text_message(), previous_item_id="x"),
    "create output": lambda case: ce.ItemCreate(item=items.FunctionCallOutputItem("", "call_x", "y")),
    "create bad audio": lambda case: ce.ItemCreate(
        item=items.MessageItem("", "user", (items.InputAudioPart(audio=b"\0"),))
    ),
    "delete": lambda case: ce.ItemDelete(item_id=case.last_item),
    "delete unknown": lambda case: ce.ItemDelete(item_id="x"),
    "retrieve": lambda case: ce.ItemRetrieve(item_id=case.last_item),
    "retrieve unknown": lambda case: ce.ItemRetrieve(item_id="x"),
    "truncate last": lambda case: ce.ItemTruncate(item_id=case.last_item, content_index=0, audio_end_ms=500),
    "truncate beyond": lambda case: ce.ItemTruncate(item_id=case.last_item, content_index=0, audio_end_ms=1001),
    "truncate user": lambda case: ce.ItemTruncate(item_id="u1", content_index=0, audio_end_ms=0),
    "truncate unknown": lambda case: ce.ItemTruncate(item_id="x", content_index=0, audio_end_ms=0),
    "respond": lambda case: ce.ResponseCreate(),
    "respond apart": lambda case: ce.ResponseCreate(options=sc.ResponseOptions(conversation="none")),
    "respond anew": lambda case: ce.ResponseCreate(options=sc.ResponseOptions(cancel_previous=True)),
    "respond with voice": lambda case: ce.ResponseCreate(options=sc.ResponseOptions(voice="echo")),
    "respond to unknown": lambda case: ce.ResponseCreate(
        options=sc.ResponseOptions(conversation="none", input=(items.ItemReference("x"),))
    ),
    "cancel": lambda case: ce.ResponseCancel(),
    "cancel by id": lambda case: ce.ResponseCancel(response_id=case.response_id),
    "rejected": lambda case: ce.Rejected(error=errors.missing_type().body(None)),
    "voice": lambda case: c.VadFrame((case.frame + 1) * FRAME, 0.9),
    "silence": lambda case: c.VadFrame((case.frame + 1) * FRAME, 0.0),
    "judged finished": lambda case: c.TurnJudged(case.turn_item, 21 * FRAME, 1.0),
    "judged unfinished": lambda case: c.TurnJudged(case.turn_item, 21 * FRAME, 0.1),
    "judged late": lambda case: c.TurnJudged(case.turn_item, 20 * FRAME, 1.0),
    "vad failed": lambda case: c.VadFailed(),
    "recognised": lambda case: c.Recognised(case.last_item, "hello"),
    "recognised part": lambda case: c.RecognitionDelta(case.last_item, "he"),
    "recognition failed": lambda case: c.RecognitionFailed(case.last_item, "down"),
    "granted": lambda case: c.QuotaGranted(case.response_id, LIMITS),
    "denied": lambda case: c.QuotaDenied(case.response_id, "tokens", 2.0, LIMITS),
    "settled": lambda case: c.QuotaSettled(LIMITS),
    "text": lambda case: c.TextProduced(case.response_id, "more"),
    "no text": lambda case: c.TextProduced(case.response_id, ""),
    "audio": lambda case: c.AudioProduced(case.response_id, SECOND),
    "no audio": lambda case: c.AudioProduced(case.response_id, b""),
    "call": lambda case: c.CallStarted(case.response_id, "f"),
    "arguments": lambda case: c.ArgumentsProduced(case.response_id, "}"),
    "usage": lambda case: c.UsageReported(case.response_id, output_text=5),
    "finished": lambda case: c.ResponseFinished(case.response_id),
    "full": lambda case: c.ResponseFinished(case.response_id, "max_output_tokens"),
    "filtered": lambda case: c.ResponseFinished(case.response_id, "content_filter"),
    "failed": lambda case: c.ResponseFailed(case.response_id, FAULT),
    "late text": lambda case: c.TextProduced("resp_gone", "more"),
    "late audio": lambda case: c.AudioProduced("resp_gone", SECOND),
    "late call": lambda case: c.CallStarted("resp_gone", "f"),
    "late arguments": lambda case: c.ArgumentsProduced("resp_gone", "}"),
    "late usage": lambda case: c.UsageReported("resp_gone", output_text=5),
    "late end": lambda case: c.ResponseFinished("resp_gone"),
    "late failure": lambda case: c.ResponseFailed("resp_gone", FAULT),
    "late grant": lambda case: c.QuotaGranted("resp_gone", LIMITS),
    "late denial": lambda case: c.QuotaDenied("resp_gone", "requests", 1.0, LIMITS),
    "late words": lambda case: c.Recognised("item_gone", "x"),
    "late part of words": lambda case: c.RecognitionDelta("item_gone", "x"),
    "late loss of words": lambda case: c.RecognitionFailed("item_gone", None),
    "time": lambda case: c.TimePassed(),
    "shutdown": lambda case: c.ShutDown(1001, "bye"),
}

# ------------------------------------------------------------------------------------------------- cells

BEGIN: Final = "ResponseCreated ReserveQuota"
END: Final = "ResponseDone StopResponse SettleQuota"
OPEN: Final = "OutputItemAdded ItemAdded ContentPartAdded"
OPEN_CALL: Final = "OutputItemAdded ItemAdded"
CLOSE_SPEECH: Final = "AudioDone TranscriptDone ContentPartDone ItemDone OutputItemDone"
CLOSE_CALL: Final = "ArgumentsDone ItemDone OutputItemDone"
END_SPEECH: Final = f"{CLOSE_SPEECH} {END}"
END_CALL: Final = f"{CLOSE_CALL} {END}"
END_TEXT_APART: Final = f"TextDone ContentPartDone OutputItemDone {END}"
"""Out of band: no event of the conversation."""
COMMIT: Final = "InputAudioCommitted ItemAdded ItemDone CloseUtterance"

EXPECTED: Final[dict[str, dict[str, str]]] = {
    "update": {
        "likely": "SessionUpdated DropSpeculation",
        "*": "SessionUpdated",
    },
    "update same model": {
        "*": "SessionUpdated",
    },
    "update other model": {
        "*": "!invalid_value",
    },
    "update voice": {
        "streaming talking": "!cannot_update_voice",
        "likely": "SessionUpdated DropSpeculation",
        "*": "SessionUpdated",
    },
    "update tool choice": {
        "*": "!invalid_value",
    },
    "update transcription": {
        "speaking hesitating fading pausing asked": "DropUtterance OpenUtterance SessionUpdated",
        "likely": "DropUtterance OpenUtterance SessionUpdated DropSpeculation",
        "*": "SessionUpdated",
    },
    "update vad off": {
        "quiet talking owed": "ResetVad SessionUpdated",
        "speaking hesitating fading pausing asked": "DropUtterance ResetVad SessionUpdated",
        "likely": "DropUtterance ResetVad SessionUpdated DropSpeculation",
        "*": "SessionUpdated",
    },
    "update vad on": {
        "pausing asked": "DropUtterance OpenUtterance SessionUpdated",
        "*": "SessionUpdated",
    },
    "append": {
        "quiet speaking hesitating fading likely pausing asked talking owed": "FeedVad",
        "*": "",
    },
    "append odd": {
        "*": "!invalid_value",
    },
    "append empty": {
        "*": "!invalid_value",
    },
    "append undecodable": {
        "*": "!invalid_value",
    },
    "commit": {
        "speaking hesitating fading pausing asked": f"FeedUtterance {COMMIT} OpenUtterance",
        "likely": f"FeedUtterance {COMMIT} OpenUtterance DropSpeculation",
        "*": f"OpenUtterance FeedUtterance {COMMIT}",
    },
    "clear": {
        "quiet talking owed": "ResetVad InputAudioCleared",
        "speaking hesitating fading pausing asked": "DropUtterance ResetVad InputAudioCleared",
        "likely": "DropUtterance ResetVad InputAudioCleared DropSpeculation",
        "*": "InputAudioCleared",
    },
    "create": {
        "likely": "ItemAdded ItemDone DropSpeculation",
        "*": "ItemAdded ItemDone",
    },
    "create after": {
        "likely": "ItemAdded ItemDone DropSpeculation",
        "*": "ItemAdded ItemDone",
    },
    "create twice": {
        "*": "!item_create_duplicate_item_id",
    },
    "create nowhere": {
        "*": "!item_create_invalid_previous_item_id",
    },
    "create output": {
        "*": "!invalid_tool_call_id",
    },
    "create bad audio": {
        "*": "!invalid_value",
    },
    "delete": {
        "awaiting owed": "DropUtterance ItemDeleted",
        "likely": "ItemDeleted DropSpeculation",
        "*": "ItemDeleted",
    },
    "delete unknown": {
        "*": "!item_delete_invalid_item_id",
    },
    "retrieve": {
        "*": "Retrieve",
    },
    "retrieve unknown": {
        "*": "!item_retrieve_invalid_item_id",
    },
    "truncate last": {
        "streaming talking": "ItemTruncated",
        "*": "!unsupported_content_type",
    },
    "truncate beyond": {
        "streaming talking": "!invalid_value",
        "*": "!unsupported_content_type",
    },
    "truncate user": {
        "*": "!unsupported_content_type",
    },
    "truncate unknown": {
        "*": "!item_truncate_invalid_item_id",
    },
    "respond": {
        "created streaming talking calling owed succeeding": "!conversation_already_has_active_response",
        "likely": f"{BEGIN} DropSpeculation",
        "*": BEGIN,
    },
    "respond apart": {
        "*": BEGIN,
    },
    "respond anew": {
        "created": f"{END} {BEGIN}",
        "streaming talking owed": END_SPEECH,
        "calling": END_CALL,
        "succeeding": "!conversation_already_has_active_response",
        "likely": f"{BEGIN} DropSpeculation",
        "*": BEGIN,
    },
    "respond with voice": {
        "created streaming talking calling owed succeeding": "!conversation_already_has_active_response",
        "likely": f"{BEGIN} DropSpeculation",
        "*": BEGIN,
    },
    "respond to unknown": {
        "*": "!invalid_value",
    },
    "cancel": {
        "created": END,
        "streaming talking": END_SPEECH,
        "calling": END_CALL,
        "owed": END_SPEECH,
        "*": "!response_cancel_not_active",
    },
    "cancel by id": {
        "created": END,
        "streaming talking": END_SPEECH,
        "calling": END_CALL,
        "apart": END_TEXT_APART,
        "owed": END_SPEECH,
        "*": "!response_cancel_not_active",
    },
    "rejected": {
        "*": "!invalid_event",
    },
    "voice": {
        "quiet owed": "SpeechStarted OpenUtterance FeedUtterance",
        "talking": f"SpeechStarted {END_SPEECH} OpenUtterance FeedUtterance",
        "asked": "WithdrawQuestion",
        "likely": "DropSpeculation",
        "*": "",
    },
    "silence": {
        "hesitating likely": f"SpeechStopped FeedUtterance {COMMIT} {BEGIN}",
        "fading": "FeedUtterance Speculate",
        "pausing": "FeedUtterance JudgeTurn",
        "speaking": "FeedUtterance",
        "*": "",
    },
    "judged finished": {
        "asked": f"SpeechStopped {COMMIT} {BEGIN}",
        "*": "",
    },
    "judged unfinished": {
        "*": "",
    },
    "judged late": {
        "*": "",
    },
    "vad failed": {
        "*": "!None",
    },
    "recognised": {
        "awaiting": "TranscriptionCompleted",
        "*": "",
    },
    "recognised part": {
        "awaiting": "TranscriptionDelta",
        "*": "",
    },
    "recognition failed": {
        "awaiting": "TranscriptionFailed",
        "*": "",
    },
    "granted": {
        "created": "RateLimitsUpdated StartResponse",
        "*": "",
    },
    "denied": {
        "created": f"RateLimitsUpdated {END}",
        "*": "",
    },
    "settled": {
        "succeeding": f"RateLimitsUpdated {BEGIN}",
        "*": "RateLimitsUpdated",
    },
    "text": {
        "created": f"{OPEN} TranscriptDelta",
        "streaming talking owed": "TranscriptDelta",
        "calling": f"{CLOSE_CALL} {OPEN} TranscriptDelta",
        "apart": "TextDelta",
        "*": "",
    },
    "no text": {
        "*": "",
    },
    "audio": {
        "created": f"{OPEN} AudioDelta",
        "streaming talking owed": "AudioDelta",
        "calling": f"{CLOSE_CALL} {OPEN} AudioDelta",
        "apart": "never",
        "*": "",
    },
    "no audio": {
        "*": "",
    },
    "call": {
        "created": OPEN_CALL,
        "streaming talking owed": f"{CLOSE_SPEECH} {OPEN_CALL}",
        "calling": f"{CLOSE_CALL} {OPEN_CALL}",
        "apart": "TextDone ContentPartDone OutputItemDone OutputItemAdded",
        "*": "",
    },
    "arguments": {
        "created streaming talking apart owed": "never",
        "calling": "ArgumentsDelta",
        "*": "",
    },
    "usage": {
        "*": "",
    },
    "finished": {
        "created": END,
        "streaming talking": END_SPEECH,
        "calling": END_CALL,
        "apart": END_TEXT_APART,
        "owed": END_SPEECH,
        "*": "",
    },
    "full": {
        "created": END,
        "streaming talking": END_SPEECH,
        "calling": END_CALL,
        "apart": END_TEXT_APART,
        "owed": END_SPEECH,
        "*": "",
    },
    "filtered": {
        "created": END,
        "streaming talking": END_SPEECH,
        "calling": END_CALL,
        "apart": END_TEXT_APART,
        "owed": END_SPEECH,
        "*": "",
    },
    "failed": {
        "created": END,
        "streaming talking": END_SPEECH,
        "calling": END_CALL,
        "apart": END_TEXT_APART,
        "owed": END_SPEECH,
        "*": "",
    },
    "late text": {
        "*": "",
    },
    "late audio": {
        "*": "",
    },
    "late call": {
        "*": "",
    },
    "late arguments": {
        "*": "",
    },
    "late usage": {
        "*": "",
    },
    "late end": {
        "*": "",
    },
    "late failure": {
        "*": "",
    },
    "late grant": {
        "*": "",
    },
    "late denial": {
        "*": "",
    },
    "late words": {
        "*": "",
    },
    "late part of words": {
        "*": "",
    },
    "late loss of words": {
        "*": "",
    },
    "time": {
        "*": "",
    },
    "shutdown": {
        "off quiet succeeding": "Close",
        "speaking hesitating fading pausing asked awaiting": "DropUtterance Close",
        "likely": "DropSpeculation DropUtterance Close",
        "owed": "StopResponse SettleQuota DropUtterance Close",
        "*": "StopResponse SettleQuota Close",
    },
}
"""Input -> states -> effects; ``*`` is every other state but ``closing``, which is always silent.

``never``: the runtime lets no such report through, so there is nothing to expect.
"""


def expected(state: str, name: str) -> list[str]:
    if state == "closing":
        return []
    cells = EXPECTED[name]
    return next((effects for states, effects in cells.items() if state in states.split()), cells["*"]).split()


CELLS: Final = [(state, name) for state in STATES for name in INPUTS if expected(state, name) != ["never"]]


@pytest.mark.parametrize(("state", "name"), CELLS)
def test_cell(state: str, name: str) -> None:
    case = STATES[state]()
    assert case.receive(INPUTS[name](case)) == expected(state, name)


def kinds(union: object) -> set[type]:
    return {kind for member in get_args(union) for kind in (kinds(member) or {member})}


def test_the_cells_have_every_input_and_every_state() -> None:
    case = created()
    assert {type(make(case)) for make in INPUTS.values()} == kinds(c.Input)
    assert set(EXPECTED) == set(INPUTS)
    named = {state for cells in EXPECTED.values() for states in cells for state in states.split()}
    assert named - {"*"} <= set(STATES)
    assert {type(state().session.turn) for state in STATES.values()} == set(get_args(turns.Turn))


def test_the_cells_have_every_effect_and_every_event() -> None:
    seen = {word for state in STATES for name in INPUTS for word in expected(state, name)}
    effects = {kind.__name__ for kind in get_args(c.Effect)} - {"Emit"}
    events = {kind.__name__ for kind in get_args(se.ServerEvent)} - {"ErrorRaised", "SessionCreated"}
    events -= {"ConversationCreated", "ItemRetrieved"}  # said by open(), and made of Retrieve by the runtime
    events -= {"IdleTimedOut"}  # test_deadlines.py
    assert effects | events <= seen
