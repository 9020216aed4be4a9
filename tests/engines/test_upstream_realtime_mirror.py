"""The upstream conversation in step with ours, by a small server that keeps the rules of the protocol."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pybase64
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines import base
from vivavoce.engines import upstream_realtime_mirror as module
from vivavoce.engines.upstream_realtime_dialects import DIALECTS, Said
from vivavoce.engines.upstream_realtime_mirror import Mirror


@dataclass
class Upstream:
    """The conversation of a server that takes what the protocol allows, and asserts otherwise."""

    items: list[dict[str, Any]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def take(self, events: Sequence[dict[str, Any]]) -> None:
        for event in events:
            kind = event["type"].rpartition(".")[2]
            self.log.append(kind)
            getattr(self, f"_{kind}")(event)

    def _create(self, event: dict[str, Any]) -> None:
        item = event["item"]
        assert len(item["id"]) <= 32
        assert all(item["id"] != one["id"] for one in self.items)
        if item["type"] == "function_call_output":
            assert any(
                one.get("call_id") == item["call_id"] for one in self.items if one["type"] == "function_call"
            )
        match event.get("previous_item_id"):
            case None:
                self.items.append(item)
            case "root":
                self.items.insert(0, item)
            case before:
                self.items.insert(self._at(before) + 1, item)

    def _delete(self, event: dict[str, Any]) -> None:
        del self.items[self._at(event["item_id"])]

    def _truncate(self, event: dict[str, Any]) -> None:
        item = self.items[self._at(event["item_id"])]
        assert event["audio_end_ms"] <= item["audio_ms"]
        item["audio_ms"] = event["audio_end_ms"]
        item["content"] = []

    def _at(self, item_id: str) -> int:
        return next(at for at, one in enumerate(self.items) if one["id"] == item_id)

    def say(self, *said: Said) -> None:
        """What a response leaves in the conversation."""
        for one in said:
            if one.is_call:
                self.items.append(
                    {
                        "id": one.item_id,
                        "type": "function_call",
                        "name": one.name,
                        "arguments": one.text,
                        "call_id": one.call_id,
                    }
                )
            else:
                content = [{"type": "text", "text": one.text}]
                item = {"id": one.item_id, "type": "message", "role": "assistant", "content": content}
                self.items.append(item | {"audio_ms": one.audio_ms})

    def shown(self) -> list[Any]:
        """What a model at the server reads, without ids."""
        calls = {one["call_id"]: at for at, one in enumerate(self.items) if one["type"] == "function_call"}
        shown: list[Any] = []
        for one in self.items:
            match one["type"]:
                case "message":
                    words = "".join(part.get("text", "") for part in one["content"])
                    sound = sum(len(pybase64.b64decode(part.get("audio", ""))) for part in one["content"])
                    shown.append((one["role"], words, sound))
                case "function_call":
                    shown.append(("call", one["name"], one["arguments"]))
                case _:
                    shown.append(("output", calls[one["call_id"]], one["output"]))
        return shown


class Both:
    """A mirror and the server that it mirrors."""

    def __init__(self) -> None:
        self.mirror = Mirror(DIALECTS["preview"])
        self.upstream = Upstream()

    def catch_up(self, *turns: base.Turn) -> list[str]:
        """The kinds of the events that it took."""
        self.upstream.log.clear()
        self.upstream.take(self.mirror.catch_up(turns))
        return self.upstream.log.copy()

    def say(self, *said: Said) -> None:
        self.upstream.say(*said)
        self.mirror.said(said)


@pytest.fixture
def both() -> Both:
    return Both()


def user(text: str, name: str) -> base.Message:
    return base.Message("user", (base.TextInput(text),), name)


def spoken(text: str, name: str, ms: int) -> base.Message:
    return base.Message("assistant", (base.TextInput(text),) if text else (), name, ms)


def test_a_conversation_is_created_once(both: Both) -> None:
    sound = base.AudioInput(bytes(4800), 24_000)
    turns = (
        base.Message("system", (base.TextInput("Be brief."),), "a"),
        base.Message("user", (base.TextInput("Listen:"), sound), "b"),
        base.Message("assistant", (base.TextInput("Yes."),), "c"),
        base.ToolCall("ours", "look", "{}", "d"),
        base.ToolOutput("ours", "nothing", "e"),
    )
    assert both.catch_up(*turns) == ["create"] * 5
    assert both.upstream.shown() == [
        ("system", "Be brief.", 0), ("user", "Listen:", 4800), ("assistant", "Yes.", 0), ("call", "look", "{}"),
        ("output", 3, "nothing"),
    ]  # fmt: skip
    assert both.catch_up(*turns) == []


def test_a_picture_is_sent_on_as_it_came() -> None:
    mirror, picture = Mirror(DIALECTS["ga"]), base.ImageInput("data:image/png;base64,AA==", "low")
    asked = base.Message("user", (base.TextInput("Look."), picture), "u")
    (event,) = mirror.catch_up([asked])
    assert event["item"]["content"] == [
        {"type": "input_text", "text": "Look."},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
    ]
    assert mirror.catch_up([asked]) == []


@pytest.mark.parametrize(("dialect", "kind"), [("preview", "text"), ("ga", "output_text")])
def test_words_of_the_assistant_are_written_in_the_dialect(dialect: Any, kind: str) -> None:
    (event,) = Mirror(DIALECTS[dialect]).catch_up([base.Message("assistant", (base.TextInput("Yes."),), "a")])
    assert event["item"]["content"] == [{"type": kind, "text": "Yes."}]


def test_what_was_said_upstream_is_known_again(both: Both) -> None:
    both.catch_up(user("Weather?", "a"))
    both.say(Said("u1", False, "One moment.", 900.0), Said("u2", True, "{}", name="look", call_id="theirs"))
    turns = (
        user("Weather?", "a"),
        spoken("One moment.", "b", 900),
        base.ToolCall("ours", "look", "{}", "c"),
        base.ToolOutput("ours", "rain", "d"),
    )
    assert both.catch_up(*turns) == ["create"]
    assert both.upstream.items[-1]["call_id"] == "theirs"
    assert both.catch_up(*turns) == []


def test_what_was_not_heard_is_truncated(both: Both) -> None:
    both.catch_up(user("Tell.", "a"))
    both.say(Said("u1", False, "Once upon a time", 2000.0))
    assert both.catch_up(user("Tell.", "a"), spoken("", "b", 700), user("Stop.", "c")) == ["truncate", "create"]
    assert both.upstream.items[1]["audio_ms"] == 700
    assert both.catch_up(user("Tell.", "a"), spoken("", "b", 700), user("Stop.", "c")) == []
    assert both.catch_up(user("Tell.", "a"), spoken("", "b", 300), user("Stop.", "c")) == ["truncate"]


def test_an_interrupted_answer_holds_what_was_sent_and_no_more(both: Both) -> None:
    """Without a truncation by the client: the upstream server went on for a moment after it was cancelled."""
    both.catch_up(user("Tell.", "a"))
    both.say(Said("u1", False, "Once upon a time", 2000.0))
    assert both.catch_up(user("Tell.", "a"), spoken("Once upon", "b", 1200)) == ["truncate"]


def test_a_rounding_is_no_interruption(both: Both) -> None:
    both.catch_up(user("Tell.", "a"))
    both.say(Said("u1", False, "Once upon a time", 2000.4))
    assert both.catch_up(user("Tell.", "a"), spoken("Once upon a time", "b", 1990)) == []


def test_an_answer_of_several_messages_is_one_of_ours(both: Both) -> None:
    both.say(Said("u1", False, "Let me see. ", 500.0), Said("u2", False, "Yes.", 300.0))
    assert both.catch_up(spoken("Let me see. Yes.", "a", 800)) == []
    assert both.catch_up(spoken("", "a", 600)) == ["delete", "delete"]
    assert both.catch_up(user("And?", "b")) == ["create"]


def test_a_text_that_was_cut_is_written_anew(both: Both) -> None:
    both.say(Said("u1", False, "Once upon a time"))
    cut = base.Message("assistant", (base.TextInput("Once upon"),), "a")
    assert both.catch_up(cut) == ["delete", "create"]
    assert both.upstream.shown() == [("assistant", "Once upon", 0)]


def test_what_ours_never_heard_of_is_deleted(both: Both) -> None:
    both.say(Said("u1", False, "Never told.", 100.0), Said("u2", True, "{", name="look", call_id="theirs"))
    assert both.catch_up() == ["delete", "delete"]


def test_items_are_put_where_ours_are(both: Both) -> None:
    both.catch_up(user("2", "b"), user("4", "d"))
    both.catch_up(user("1", "a"), user("2", "b"), user("3", "c"), user("4", "d"), user("5", "e"))
    assert [words for _, words, _ in both.upstream.shown()] == ["1", "2", "3", "4", "5"]


def test_an_output_follows_its_call_when_that_is_made_anew(both: Both) -> None:
    both.catch_up(base.ToolCall("ours", "look", "{}", "a"), base.ToolOutput("ours", "rain", "b"))
    both.catch_up(base.ToolCall("ours", "look", '{"at":1}', "a"), base.ToolOutput("ours", "rain", "b"))
    assert both.upstream.shown() == [("call", "look", '{"at":1}'), ("output", 0, "rain")]


def test_an_output_without_its_call_cannot_be_told(both: Both) -> None:
    both.catch_up(base.ToolCall("ours", "look", "{}", "a"), base.ToolOutput("ours", "rain", "b"))
    assert both.catch_up(base.ToolOutput("ours", "rain", "b")) == ["delete", "delete"]


def test_turns_without_names_are_known_by_their_place(both: Both) -> None:
    assert both.catch_up(user("a", ""), user("a", "")) == ["create", "create"]
    assert both.catch_up(user("a", ""), user("a", ""), user("b", "")) == ["create"]


def test_a_very_long_recording_takes_several_items(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AUDIO_BYTES", 1000)
    sound = base.AudioInput(bytes(2400), 24_000)
    message = base.Message("user", (base.TextInput("Listen:"), sound), "a")
    assert both.catch_up(message, user("So?", "b")) == ["create"] * 4
    assert both.upstream.shown() == [
        ("user", "Listen:", 1000), ("user", "", 1000), ("user", "", 400), ("user", "So?", 0),
    ]  # fmt: skip
    assert both.catch_up(user("So?", "b")) == ["delete"] * 3


def test_sound_is_sent_at_the_rate_of_the_protocol(both: Both) -> None:
    both.catch_up(base.Message("user", (base.AudioInput(bytes(1600), 8_000),), "a"))
    ((_, _, size),) = both.upstream.shown()
    assert abs(size - 4800) <= 2


# ------------------------------------------------------------------------------------------------- out of band


def test_a_response_out_of_band_refers_to_what_is_there(both: Both) -> None:
    both.catch_up(user("Weather?", "a"))
    both.say(Said("u1", False, "Rain.", 900.0), Said("u2", True, "{}", name="look", call_id="theirs"))
    turns = (user("Weather?", "a"), spoken("Rain.", "b", 900), base.ToolCall("ours", "look", "{}", "c"))
    both.catch_up(*turns)
    before = both.upstream.shown()
    quoted = both.mirror.quote(
        [
            *turns,
            base.ToolOutput("ours", "wet", "d"),
            user("Sum up.", "e"),
            base.ToolCall("new", "look", "{}", "f"),
            base.ToolOutput("new", "dry", "g"),
        ]
    )
    references, rest = quoted[:3], quoted[3:]
    assert [one["type"] for one in references] == ["item_reference"] * 3
    assert references[1:] == [{"type": "item_reference", "id": "u1"}, {"type": "item_reference", "id": "u2"}]
    output, message, call, answer = rest
    assert output == {"type": "function_call_output", "call_id": "theirs", "output": "wet"}
    assert message == {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Sum up."}]}
    assert answer["call_id"] == call["call_id"]
    assert both.catch_up(*turns) == []
    assert both.upstream.shown() == before


def test_what_is_no_more_the_same_is_quoted_in_full(both: Both) -> None:
    both.catch_up(user("Tell.", "a"))
    both.say(Said("u1", False, "Once upon a time", 2000.0))
    both.catch_up(user("Tell.", "a"), spoken("Once upon a time", "b", 2000))
    (tell, cut) = both.mirror.quote([user("Tell!", "a"), spoken("Once", "b", 300)])
    assert tell["content"] == [{"type": "input_text", "text": "Tell!"}]
    assert cut["content"] == [{"type": "text", "text": "Once"}]
    assert both.catch_up(user("Tell.", "a"), spoken("Once upon a time", "b", 2000)) == []


# ------------------------------------------------------------------------------------------------- any history


class Ours:
    """A conversation of ours as it may go, and what the upstream server says in it."""

    def __init__(self) -> None:
        self.both = Both()
        self.turns: list[base.Turn] = []
        self.names = (f"item_{n}" for n in itertools.count())

    def user(self, at: int) -> None:
        name = next(self.names)
        self.turns.insert(at % (len(self.turns) + 1), user(f"words of {name}", name))

    def answer(self, ms: int) -> None:
        """It speaks and calls; of the speech only ``ms`` reach us."""
        name = next(self.names)
        text, whole = f"answer {name}", 1000
        self.both.say(
            Said(f"u_{name}", False, text, float(whole)),
            Said(f"v_{name}", True, "{}", name=name, call_id=f"c_{name}"),
        )
        heard = min(ms, whole)
        self.turns.append(spoken(text if heard == whole else "", name, heard))
        if heard == whole:
            self.turns.append(base.ToolCall(f"call_{name}", name, "{}", next(self.names)))
            self.turns.append(base.ToolOutput(f"call_{name}", "done", next(self.names)))

    def delete(self, at: int) -> None:
        if self.turns:
            del self.turns[at % len(self.turns)]

    def truncate(self, at: int, ms: int) -> None:
        if self.turns:
            at %= len(self.turns)
            turn = self.turns[at]
            if isinstance(turn, base.Message) and turn.audio_ms is not None and ms <= turn.audio_ms:
                self.turns[at] = replace(turn, content=(), audio_ms=ms)

    def expected(self) -> list[Any]:
        calls: dict[str, int] = {}
        shown: list[Any] = []
        for turn in self.turns:
            match turn:
                case base.Message():
                    words = "".join(part.text for part in turn.content if isinstance(part, base.TextInput))
                    shown.append((turn.role, words, 0))
                case base.ToolCall():
                    calls[turn.call_id] = len(shown)
                    shown.append(("call", turn.name, turn.arguments))
                case base.ToolOutput() if turn.call_id in calls:
                    shown.append(("output", calls[turn.call_id], turn.output))
        return shown


STEPS = st.one_of(
    st.tuples(st.just("user"), st.integers(0, 9)),
    st.tuples(st.just("answer"), st.sampled_from([0, 300, 1000, 1000])),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("truncate"), st.integers(0, 9), st.sampled_from([0, 200, 600])),
)


@given(st.lists(st.lists(STEPS, max_size=3), max_size=8))
def test_after_any_history_both_hold_the_same(history: list[list[tuple[Any, ...]]]) -> None:
    """Steps of ours pile up between two responses, of which there is one at a time."""
    ours = Ours()
    for steps in history:
        ours.both.catch_up(*ours.turns)
        answers = [step for step in steps if step[0] == "answer"][:1]
        for name, *arguments in answers + [step for step in steps if step[0] != "answer"]:
            getattr(ours, name)(*arguments)
        ours.both.catch_up(*ours.turns)
        assert ours.both.upstream.shown() == ours.expected()
        lengths = [
            turn.audio_ms for turn in ours.turns if isinstance(turn, base.Message) and turn.audio_ms is not None
        ]
        assert [one["audio_ms"] for one in ours.both.upstream.items if "audio_ms" in one] == lengths
        assert ours.both.catch_up(*ours.turns) == []
