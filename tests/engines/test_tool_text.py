from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.base import (
    EngineError,
    ModelDelta,
    NamedTool,
    TextDelta,
    Tool,
    ToolArgumentsDelta,
    ToolCallStart,
)
from vivavoce.engines.tool_text import ToolFormat, ToolText, forced_call, tool_format

WEATHER = Tool("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})
TIME = Tool("get_time")
HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Köln"}}\n</tool_call>'
LLAMA = '{"name": "get_weather", "parameters": {"city": "Köln"}}'
CALLED = [("get_weather", {"city": "Köln"})]


def read(
    written: ToolFormat, pieces: Sequence[str], tools: Sequence[Tool] = (WEATHER, TIME), *, cut: bool = False
) -> tuple[str, list[tuple[str, object]]]:
    """What a turn in these pieces comes to: the words, and the calls."""
    reader = ToolText(written, tools)
    deltas: list[ModelDelta] = [delta for piece in pieces for delta in reader.feed(piece)]
    deltas += reader.finish(cut=cut)
    words, calls = "", []
    for delta in deltas:
        match delta:
            case TextDelta():
                assert delta.text
                words += delta.text
            case ToolCallStart():
                calls.append((delta.name, ""))
            case ToolArgumentsDelta():
                calls[-1] = (calls[-1][0], calls[-1][1] + delta.text)
    return words, [(name, json.loads(arguments)) for name, arguments in calls]


@pytest.mark.parametrize(
    ("written", "text", "words", "calls"),
    [
        ("hermes", "Hello there.", "Hello there.", []),
        ("hermes", "  Hello a < b <tool", "Hello a < b <tool", []),
        ("hermes", HERMES, "", CALLED),
        ("hermes", f"Let me see.\n{HERMES}\n{HERMES}\n", "Let me see.\n", CALLED * 2),
        ("hermes", '<tool_call>{"name": "get_time"}</tool_call>', "", [("get_time", {})]),
        (
            "hermes",
            '<tool_call>{"name": "get_weather", "arguments": {"city": "a\nb"}}',
            "",
            [("get_weather", {"city": "a\nb"})],
        ),
        ("hermes", "<think>\nHm <tool_call>?\n</think>\n\nYes.", "Yes.", []),
        ("hermes", "<think>Hm", "", []),
        ("hermes", LLAMA, LLAMA, []),
        ("llama", LLAMA, "", CALLED),
        ("llama", f" {LLAMA}; {LLAMA}", "", CALLED * 2),
        ("llama", "{Hello} there", "{Hello} there", []),
        ("llama", "It is {1}.", "It is {1}.", []),
        ("llama", f"Well: {LLAMA}", f"Well: {LLAMA}", []),
        ("llama", HERMES, HERMES, []),
        ("none", f"{HERMES}{LLAMA}", f"{HERMES}{LLAMA}", []),
        ("none", "<think>Hm</think>Yes", "Yes", []),
    ],
)
def test_words_and_calls(written: ToolFormat, text: str, words: str, calls: list[tuple[str, object]]) -> None:
    assert read(written, [text]) == (words, calls)
    assert read(written, list(text)) == (words, calls)


def test_words_are_not_held_back_without_need() -> None:
    reader = ToolText("hermes", [WEATHER])
    assert list(reader.feed("Hello <to")) == [TextDelta("Hello ")]
    assert list(reader.feed("p>")) == [TextDelta("<top>")]
    assert list(ToolText("llama", [WEATHER]).feed("Hello")) == [TextDelta("Hello")]


@pytest.mark.parametrize("written", ["hermes", "llama"])
def test_without_tools_nothing_is_a_call(written: ToolFormat) -> None:
    text = {"hermes": HERMES, "llama": LLAMA}[written]
    assert read(written, list(text), ()) == (text, [])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("hermes", "<tool_call>get_weather</tool_call>"),
        ("hermes", "<tool_call>[]</tool_call>"),
        ("hermes", '<tool_call>{"name": "get_secret", "arguments": {}}</tool_call>'),
        ("hermes", '<tool_call>{"name": "get_weather", "arguments": "Ulm"}</tool_call>'),
        ("hermes", '<tool_call>{"name": "get_weather"'),
        ("llama", '{"name": "get_secret", "parameters": {}}'),
    ],
)
def test_a_call_that_is_none(written: ToolFormat, text: str) -> None:
    with pytest.raises(EngineError) as caught:
        read(written, [text])
    assert caught.value.code == "invalid_tool_call"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(("written", "text"), [("hermes", HERMES), ("llama", LLAMA)])
def test_a_turn_that_is_cut_has_whole_calls_only(written: ToolFormat, text: str) -> None:
    for end in range(len(text)):
        words, calls = read(written, [text[:end]], cut=True)
        assert not calls
        assert words in ("", text[:end])


@given(st.lists(st.text(alphabet="<tool_ca>/think{} a"), max_size=12), st.sampled_from(["hermes", "none"]))
def test_pieces_do_not_matter(pieces: list[str], written: ToolFormat) -> None:
    def outcome(parts: Sequence[str]) -> object:
        try:
            return read(written, parts)
        except EngineError as fault:
            return fault.code

    assert outcome(pieces) == outcome(["".join(pieces)])


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("{{ messages }}", "none"),
        ("For each function call return a json object within <tool_call></tool_call> tags", "hermes"),
        ("<tool_call>\n<function=NAME>", "none"),
        ('{{- \'"parameters": \' }}{% if role == "ipython" %}', "llama"),
    ],
)
def test_the_template_tells_how(template: str, written: ToolFormat) -> None:
    assert tool_format(template) == written


def test_what_must_be_written() -> None:
    weather = {"name": {"const": "get_weather"}, "arguments": dict(WEATHER.parameters)}
    begin, lead, schema = forced_call("hermes", NamedTool("get_weather"), [WEATHER, TIME])
    assert (begin, lead) == ("<tool_call>", "\n")
    assert schema == {"type": "object", "properties": weather, "required": ["name", "arguments"]}
    begin, lead, schema = forced_call("llama", "required", [WEATHER, TIME])
    assert (begin, lead) == ("", "")
    assert [shape["properties"]["name"] for shape in schema["oneOf"]] == [
        {"const": "get_weather"},
        {"const": "get_time"},
    ]
    assert schema["oneOf"][1]["properties"]["parameters"] == {"type": "object"}
