"""Brackets: every cell of (what is open x product), and random products against the laws of the module."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat
from vivavoce.core.ids import Ids
from vivavoce.core.output import Between, Closed, OpenCall, Opened, OpenMessage, Output, Step
from vivavoce.wire import items
from vivavoce.wire import server_events as se

PCM = AudioFormat.PCM16
SOUND = b"\0\0" * 24


def output(speaks: bool) -> Output:
    return Output("resp_1", speaks=speaks, output_format=PCM, ids=Ids(b"seed"))


def do(out: Output, product: str) -> list[Step]:
    match product:
        case "text":
            return list(out.text("hi"))
        case "audio":
            return list(out.audio(SOUND))
        case "call":
            return list(out.call("f"))
        case "arguments":
            return list(out.arguments("{}"))
        case "stop":
            return list(out.close("completed"))
        case _:
            return list(out.close("incomplete"))


def names(steps: list[Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


OPEN_MESSAGE = ["OutputItemAdded", "Opened", "ContentPartAdded"]
OPEN_CALL = ["OutputItemAdded", "Opened"]
CLOSE_TEXT = ["TextDone", "ContentPartDone", "Closed", "OutputItemDone"]
CLOSE_SPEECH = ["AudioDone", "TranscriptDone", "ContentPartDone", "Closed", "OutputItemDone"]
CLOSE_CALL = ["ArgumentsDone", "Closed", "OutputItemDone"]


@pytest.mark.parametrize(
    ("speaks", "before", "product", "events"),
    [
        (False, [], "text", [*OPEN_MESSAGE, "TextDelta"]),
        (False, [], "call", OPEN_CALL),
        (False, [], "stop", []),
        (False, [], "cut", []),
        (True, [], "text", [*OPEN_MESSAGE, "TranscriptDelta"]),
        (True, [], "audio", [*OPEN_MESSAGE, "AudioDelta"]),
        (True, [], "call", OPEN_CALL),
        (True, [], "stop", []),
        (True, [], "cut", []),
        (False, ["text"], "text", ["TextDelta"]),
        (False, ["text"], "call", [*CLOSE_TEXT, *OPEN_CALL]),
        (False, ["text"], "stop", CLOSE_TEXT),
        (False, ["text"], "cut", CLOSE_TEXT),
        (True, ["text"], "text", ["TranscriptDelta"]),
        (True, ["text"], "audio", ["AudioDelta"]),
        (True, ["audio"], "text", ["TranscriptDelta"]),
        (True, ["audio"], "audio", ["AudioDelta"]),
        (True, ["audio"], "call", [*CLOSE_SPEECH, *OPEN_CALL]),
        (True, ["text", "audio"], "stop", CLOSE_SPEECH),
        (True, ["text", "audio"], "cut", CLOSE_SPEECH),
        (False, ["call"], "text", [*CLOSE_CALL, *OPEN_MESSAGE, "TextDelta"]),
        (True, ["call"], "text", [*CLOSE_CALL, *OPEN_MESSAGE, "TranscriptDelta"]),
        (True, ["call"], "audio", [*CLOSE_CALL, *OPEN_MESSAGE, "AudioDelta"]),
        (False, ["call"], "call", [*CLOSE_CALL, *OPEN_CALL]),
        (False, ["call"], "arguments", ["ArgumentsDelta"]),
        (False, ["call", "arguments"], "stop", CLOSE_CALL),
        (False, ["call", "arguments"], "cut", CLOSE_CALL),
    ],
)
def test_cell(speaks: bool, before: list[str], product: str, events: list[str]) -> None:
    out = output(speaks)
    for one in before:
        do(out, one)
    assert names(do(out, product)) == events


@pytest.mark.parametrize("before", [[], ["text"]])
def test_arguments_without_a_call_are_a_bug(before: list[str]) -> None:
    out = output(speaks=False)
    for one in before:
        do(out, one)
    with pytest.raises(AssertionError):
        do(out, "arguments")


def test_spoken_message_whole() -> None:
    out = output(speaks=True)
    steps = [
        *out.text("Hel"),
        *out.audio(SOUND),
        *out.text("lo"),
        *out.audio(SOUND + SOUND),
        *out.close("completed"),
    ]
    opened = steps[1]
    assert isinstance(opened, Opened)
    item_id = opened.item.id
    at = ("resp_1", item_id, 0, 0)
    begun = items.MessageItem(item_id, "assistant", (), "in_progress")
    ended = items.MessageItem(item_id, "assistant", (items.AudioPart("Hello"),), "completed")
    assert steps == [
        se.OutputItemAdded("resp_1", 0, begun),
        Opened(begun),
        se.ContentPartAdded(*at, items.AudioPart("")),
        se.TranscriptDelta(*at, "Hel"),
        se.AudioDelta(*at, SOUND),
        se.TranscriptDelta(*at, "lo"),
        se.AudioDelta(*at, SOUND + SOUND),
        se.AudioDone(*at),
        se.TranscriptDone(*at, "Hello"),
        se.ContentPartDone(*at, items.AudioPart("Hello")),
        Closed(ended, 3 * 24),
        se.OutputItemDone("resp_1", 0, ended),
    ]
    assert out.done == [ended]
    assert out.open == Between()


def test_message_and_call_whole() -> None:
    out = output(speaks=False)
    steps = [
        *out.text("Look."),
        *out.call("f"),
        *out.arguments('{"a"'),
        *out.arguments(":1}"),
        *out.close("incomplete"),
    ]
    message, call = out.done
    assert message == items.MessageItem(message.id, "assistant", (items.TextPart("Look."),), "completed")
    assert isinstance(call, items.FunctionCallItem)
    assert call == items.FunctionCallItem(call.id, call.call_id, "f", '{"a":1}', "incomplete")
    assert steps[8:] == [
        se.OutputItemAdded("resp_1", 1, items.FunctionCallItem(call.id, call.call_id, "f", "", "in_progress")),
        Opened(items.FunctionCallItem(call.id, call.call_id, "f", "", "in_progress")),
        se.ArgumentsDelta("resp_1", call.id, 1, call.call_id, '{"a"'),
        se.ArgumentsDelta("resp_1", call.id, 1, call.call_id, ":1}"),
        se.ArgumentsDone("resp_1", call.id, 1, call.call_id, "f", '{"a":1}'),
        Closed(call, 0),
        se.OutputItemDone("resp_1", 1, call),
    ]


def test_untouched() -> None:
    out = output(speaks=False)
    seen = [out.untouched]
    for product in ("cut", "text", "stop"):
        do(out, product)
        seen.append(out.untouched)
    assert seen == [True, True, False, False]


PRODUCTS = st.lists(
    st.tuples(
        st.sampled_from(["text", "audio", "call", "arguments", "stop"]), st.text("ab", min_size=1, max_size=3)
    ),
    max_size=25,
)


@settings(max_examples=200)
@given(products=PRODUCTS, speaks=st.booleans(), end=st.sampled_from(["completed", "incomplete"]))
def test_brackets_always_close(products: list[tuple[str, str]], speaks: bool, end: Any) -> None:
    out = output(speaks)
    steps: list[Step] = []
    for product, text in products:
        if product == "text":
            steps += out.text(text)
        elif product == "audio" and speaks:
            steps += out.audio(text.encode() * 2)
        elif product == "call":
            steps += out.call(text)
        elif product == "arguments" and isinstance(out.open, OpenCall):
            steps += out.arguments(text)
        elif product == "stop":
            steps += out.close("completed")
    was_open = isinstance(out.open, OpenMessage | OpenCall)
    steps += out.close(end)
    assert list(out.close(end)) == []
    check_brackets(steps, out, speaks)
    if was_open:
        assert out.done[-1].status == end
    assert all(item.status == "completed" for item in out.done[:-1])


def check_brackets(steps: list[Step], out: Output, speaks: bool) -> None:
    """Reads the events as a client does, with a stack."""
    stack: list[str] = []
    text = ""
    ticks = 0
    finished: list[items.Item] = []
    for step in steps:
        match step:
            case Opened(item):
                assert stack == [item.id]
            case se.OutputItemAdded(_, index, item):
                assert not stack
                assert index == len(finished)
                assert item.status == "in_progress"
                stack, text, ticks = [item.id], "", 0
            case se.ContentPartAdded(_, item_id, index, 0, part):
                assert (stack, index) == ([item_id], len(finished))
                assert part == (items.AudioPart("") if speaks else items.TextPart(""))
                stack.append("part")
            case se.TextDelta(_, item_id, index, 0, delta) | se.TranscriptDelta(_, item_id, index, 0, delta):
                assert isinstance(step, se.TranscriptDelta) == speaks
                assert (stack, index) == ([item_id, "part"], len(finished))
                text += delta
            case se.AudioDelta(_, item_id, index, 0, delta):
                assert (stack, index) == ([item_id, "part"], len(finished))
                ticks += len(delta) // 2
            case se.AudioDone(_, item_id, index, 0):
                assert (stack, index) == ([item_id, "part"], len(finished))
                stack.append("silent")
            case se.TextDone(_, item_id, index, 0, whole) | se.TranscriptDone(_, item_id, index, 0, whole):
                assert stack == ([item_id, "part", "silent"] if speaks else [item_id, "part"])
                assert whole == text
                stack = [item_id, "part", "said"]
            case se.ContentPartDone(_, item_id, index, 0, part):
                assert stack == [item_id, "part", "said"]
                assert part == (items.AudioPart(text) if speaks else items.TextPart(text))
                stack = [item_id, "said"]
            case se.ArgumentsDelta(_, item_id, index, _, delta):
                assert (stack, index) == ([item_id], len(finished))
                text += delta
            case se.ArgumentsDone(_, item_id, index, _, _, whole):
                assert (stack, index, whole) == ([item_id], len(finished), text)
                stack.append("said")
            case Closed(item, audio_ticks):
                assert stack == [item.id, "said"]
                assert audio_ticks == ticks
                stack = [item.id, "closed"]
            case se.OutputItemDone(_, index, item):
                assert (stack, index) == ([item.id, "closed"], len(finished))
                stack = []
                finished.append(item)
            case _:
                raise AssertionError(step)
    assert not stack
    assert finished == out.done
    assert len({item.id for item in finished}) == len(finished)


@pytest.mark.parametrize(
    ("ending", "heard"),
    [
        # Nobody told where the words stand: all of them were in all of the sound.
        ("completed", "One two"),
        # The sound was cut, the words were ahead of it: they go by as a voice would say them.
        ("incomplete", "One two three four"),
    ],
)
def test_the_sound_of_a_message_that_is_complete_has_all_of_its_words(ending: items.ItemStatus, heard: str) -> None:
    out = output(speaks=True)
    list(out.text("One two three four"))
    list(out.audio(bytes(PCM.bytes_per_ms * 4000)))
    (closed,) = [step for step in out.close(ending) if isinstance(step, Closed)]
    assert closed.alignment is not None
    assert closed.alignment.heard("One two three four", 2000 * TICKS_PER_MS) == heard
