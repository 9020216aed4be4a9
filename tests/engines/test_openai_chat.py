"""What a chat completion is asked, and what is made of its chunks: pure tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai_fake import Refused, _check_chat

from vivavoce.engines import base
from vivavoce.engines.base import Message, TextInput, ToolCall, ToolOutput
from vivavoce.engines.openai_compatible.chat import ChatOptions, ChatReader, chat_body, decoded
from vivavoce.engines.openai_compatible.messages import NO_OUTPUT, ORPHAN

NONSENSE = base.EngineError("invalid_engine_output", "x")


def user(text: str) -> Message:
    return Message("user", (TextInput(text),))


def assistant(text: str) -> Message:
    return Message("assistant", (TextInput(text),))


def call(name: str, arguments: str = "{}") -> ToolCall:
    return ToolCall(f"call_{name}", name, arguments)


def output(name: str, text: str = "42") -> ToolOutput:
    return ToolOutput(f"call_{name}", text)


def body(*turns: base.Turn, request: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    asked = base.GenerationRequest("Be brief.", turns, **(request or {}))
    made = chat_body(asked, ChatOptions(base_url="http://h/v1", model="m", **options))
    _check_chat(made)
    return made


def outline(messages: list[dict[str, Any]]) -> list[str]:
    lines = []
    for message in messages[1:]:
        calls = [one["function"]["name"] for one in message.get("tool_calls", ())]
        line = f"{message['role']}: {message['content']}" + (f" -> {' '.join(calls)}" if calls else "")
        lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("turns", "lines"),
    [
        ((), []),
        ((user("Hi"), assistant("Hello"), user("Bye")), ["user: Hi", "assistant: Hello", "user: Bye"]),
        ((user("?"), call("a"), output("a")), ["user: ?", "assistant: None -> a", "tool: 42"]),
        (
            (user("?"), assistant("Wait."), call("a"), call("b"), output("b", "B"), output("a", "A")),
            ["user: ?", "assistant: Wait. -> a b", "tool: A", "tool: B"],
        ),
        ((call("a"), user("Quick!")), ["assistant: None -> a", f"tool: {NO_OUTPUT}", "user: Quick!"]),
        (
            (call("a"), user("Quick!"), output("a"), assistant("Done.")),
            ["assistant: None -> a", "tool: 42", "user: Quick!", "assistant: Done."],
        ),
        (
            (call("a"), output("a"), call("b"), output("b"), assistant("x")),
            ["assistant: None -> a", "tool: 42", "assistant: None -> b", "tool: 42", "assistant: x"],
        ),
        ((user("?"), output("gone"), user("!")), ["user: ?", f"user: {ORPHAN}42", "user: !"]),
        ((output("a"), call("a")), [f"user: {ORPHAN}42", "assistant: None -> a", f"tool: {NO_OUTPUT}"]),
        ((call("a"), output("a", "1"), output("a", "2")), ["assistant: None -> a", "tool: 1\n2"]),
        ((call("a"), assistant("x"), call("b")), ["assistant: None -> a", f"tool: {NO_OUTPUT}",
          "assistant: x -> b", f"tool: {NO_OUTPUT}"]),
    ],
)  # fmt: skip
def test_a_conversation_as_messages(turns: tuple[base.Turn, ...], lines: list[str]) -> None:
    messages = body(*turns)["messages"]
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert outline(messages) == lines


@pytest.mark.parametrize(
    ("turns", "lines"),
    [
        ((user("a"), user("b")), ["user: a\nb"]),
        ((assistant("a"), assistant("b"), call("f"), output("f")), ["assistant: a\nb -> f", "tool: 42"]),
        ((user("a"), Message("system", (TextInput("Louder."),)), user("b")), ["user: a\nb"]),
    ],
)
def test_roles_that_alternate(turns: tuple[base.Turn, ...], lines: list[str]) -> None:
    messages = body(*turns, alternate_roles=True)["messages"]
    assert outline(messages) == lines
    assert messages[0]["content"] == ("Be brief.\n\nLouder." if len(turns) == 3 else "Be brief.")


def test_pictures_and_speech_in_a_message_stay_in_their_places() -> None:
    parts = (
        TextInput("Look:"),
        base.ImageInput("data:image/png;base64,AA==", "low"),
        base.AudioInput(b"\1\0", 8000),
    )
    (_, message) = body(Message("user", parts))["messages"]
    text, image, audio = message["content"]
    assert text == {"type": "text", "text": "Look:"}
    assert image == {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}}
    assert audio["type"] == "input_audio"
    assert audio["input_audio"]["format"] == "wav"
    automatic = base.ImageInput("https://h/a.png")
    (part,) = body(Message("user", (automatic,)))["messages"][1]["content"]
    assert part == {"type": "image_url", "image_url": {"url": "https://h/a.png"}}
    joined = body(user("a"), Message("user", parts), alternate_roles=True)["messages"][1]["content"]
    assert [part["type"] for part in joined] == ["text", "text", "image_url", "input_audio"]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [("", {}), ('{"a": 1}', {"a": 1}), ('{"a": ', {"cut_short": '{"a": '}), ("[1]", {"cut_short": "[1]"})],
)
def test_arguments_are_an_object_whatever_became_of_the_call(arguments: str, sent: object) -> None:
    message = body(call("f", arguments))["messages"][1]
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == sent


TOOL = base.Tool("f", "does f", {"type": "object", "properties": {"x": {"type": "integer"}}})


def test_tools_and_their_choice() -> None:
    for choice, sent in (
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        (base.NamedTool("f"), {"type": "function", "function": {"name": "f"}}),
    ):
        made = body(user("?"), request={"tools": (TOOL, base.Tool("g")), "tool_choice": choice})
        assert made["tool_choice"] == sent
    made = body(user("?"), request={"tools": (TOOL, base.Tool("g"))})
    described, bare = (tool["function"] for tool in made["tools"])
    assert described == {"name": "f", "description": "does f", "parameters": TOOL.parameters}
    assert bare == {"name": "g", "parameters": {"type": "object", "properties": {}}}
    assert "tools" not in body(user("?"), request={"tools": (TOOL,)}, calls_tools=False)
    assert "tool_choice" not in body(user("?"))


@pytest.mark.parametrize("said", [None, True, False])
def test_calls_at_once_are_a_matter_of_functions(said: bool | None) -> None:
    with_tools = body(user("?"), request={"tools": (TOOL,), "parallel_tool_calls": said})
    assert with_tools.get("parallel_tool_calls") is said
    assert "parallel_tool_calls" not in body(user("?"), request={"parallel_tool_calls": said})


def test_an_effort_to_reason_with() -> None:
    assert body(user("?"), request={"reasoning": "low"}, reasons=True)["reasoning_effort"] == "low"
    assert "reasoning_effort" not in body(user("?"), reasons=True)
    configured = {"reasons": True, "extra_body": {"reasoning_effort": "high"}}
    assert body(user("?"), request={"reasoning": "low"}, **configured)["reasoning_effort"] == "high"


@pytest.mark.parametrize(
    ("options", "sent", "not_sent"),
    [
        ({}, {"temperature": 0.7, "max_tokens": 9, "stream_options": {"include_usage": True}}, ["seed", "stop"]),
        ({"max_tokens_field": "max_completion_tokens"}, {"max_completion_tokens": 9}, ["max_tokens"]),
        ({"max_tokens_field": "none"}, {}, ["max_tokens", "max_completion_tokens"]),
        ({"temperature": 0.1}, {"temperature": 0.1}, []),
        ({"send_temperature": False}, {}, ["temperature"]),
        ({"seed": 3, "stop": ("X",), "top_p": 0.5}, {"seed": 3, "stop": ["X"], "top_p": 0.5}, []),
        ({"include_usage": False}, {}, ["stream_options"]),
        ({"extra_body": {"reasoning_effort": "low", "seed": 4}}, {"reasoning_effort": "low", "seed": 4}, []),
        ({"system_role": "developer"}, {}, []),
    ],
)
def test_options_of_a_request(options: dict[str, Any], sent: dict[str, Any], not_sent: list[str]) -> None:
    made = body(user("?"), request={"temperature": 0.7, "max_output_tokens": 9}, **options)
    assert {key: made[key] for key in sent} == sent
    assert not set(not_sent) & set(made)
    assert made["messages"][0]["role"] == options.get("system_role", "system")


def test_the_fake_refuses_what_the_service_refuses() -> None:
    good = body(user("?"), request={"tools": (TOOL,)})
    tool = {"role": "tool", "tool_call_id": "x", "content": "y"}
    bad: tuple[dict[str, Any], ...] = (
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "x", "mood": "bad"}]},
        {"messages": [tool]},
        {"messages": [{"role": "user", "content": [{"type": "picture"}]}]},
        {"temperature": "hot"},
        {"mood": "bad"},
        {"tools": []},
    )
    for wrong in bad:
        with pytest.raises(Refused):
            _check_chat(good | wrong)


# ------------------------------------------------------------------------------------------------- chunks


def read(*deltas: dict[str, Any], finish: str | None = "stop", usage: Any = None) -> list[object]:
    reader = ChatReader(ChatOptions(base_url="http://h/v1", model="m"), NONSENSE)
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    chunks.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    chunks.append({"choices": [], "usage": usage})
    made: list[object] = []
    for chunk in chunks:
        made += reader.read(decoded(json.dumps(chunk).encode()))
    assert reader.ended == (finish is not None)
    return made + list(reader.end())


def piece(
    index: int | None,
    arguments: str | None = None,
    *,
    name: str | None = None,
    id: str | None = None,  # noqa: A002
) -> Any:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": id, "type": "function", "function": function}]}


def brief(products: list[object]) -> str:
    words = []
    for product in products:
        match product:
            case base.TextDelta(text):
                words.append(f"'{text}'")
            case base.ToolCallStart(name):
                words.append(f"{name}(")
            case base.ToolArgumentsDelta(text):
                words.append(text)
            case base.Finish(reason):
                words.append(f"/{reason}")
    return " ".join(words)


@pytest.mark.parametrize(
    ("deltas", "made"),
    [
        ([], "/stop"),
        ([{"role": "assistant", "content": ""}, {"content": "He"}, {"content": "llo"}], "'He' 'llo' /stop"),
        ([{"reasoning_content": "Hm."}, {"reasoning": "Hm."}, {"content": "Yes"}], "'Yes' /stop"),
        ([{"refusal": "No."}], "'No.' /stop"),
        ([piece(0, "", name="f", id="1"), piece(0, '{"a"'), piece(0, ": 1}")], 'f( {"a" : 1} /stop'),
        ([piece(0, "{}", name="f", id="1")], "f( {} /stop"),
        ([piece(0, None, name="f", id="1")], "f( {} /stop"),
        (
            [{"content": "Wait."}, piece(0, "{}", name="f", id="1"), piece(1, "{", name="g", id="2"),
             piece(1, "}")],
            "'Wait.' f( {} g( {} /stop",
        ),
        # Both at once: the second waits for the first.
        (
            [piece(0, "{", name="f", id="1"), piece(1, "{", name="g", id="2"), piece(0, "}"), piece(1, "}")],
            "f( { } g( {} /stop",
        ),
        # Index 0 for all; the ids differ.
        ([piece(0, "{}", name="f", id="1"), piece(0, "{}", name="f", id="2")], "f( {} f( {} /stop"),
        # No index at all.
        (
            [piece(None, "{", name="f", id="1"), piece(None, "}"), piece(None, "{}", name="g", id="2")],
            "f( { } g( {} /stop",
        ),
        # The id and the name again with each piece.
        ([piece(0, "{", name="f", id="1"), piece(0, "}", name="f", id="1")], "f( { } /stop"),
        # The name comes after the first of the arguments.
        ([piece(0, "{", id="1"), piece(0, "}", name="f")], "f( { } /stop"),
        # Words in the middle of a call.
        ([piece(0, "{", name="f", id="1"), {"content": "So"}, piece(0, "}")], "f( { } 'So' /stop"),
        ([{"content": "<think>Hm"}, {"content": ".</thi"}, {"content": "nk>\n\nYes"}], "'Yes' /stop"),
        ([{"content": "\n<th"}, {"content": "ink></think>Yes"}, {"content": "<think>"}], "'Yes' '<think>' /stop"),
        ([{"content": "<"}, {"content": "b>"}], "'<b>' /stop"),
        ([{"content": "<"}], "'<' /stop"),
        ([{"content": "<think>never"}], "/stop"),
    ],
)  # fmt: skip
def test_what_is_made_of_chunks(deltas: list[dict[str, Any]], made: str) -> None:
    assert brief(read(*deltas)) == made


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "stop"), ("tool_calls", "stop"), ("function_call", "stop"), ("eos", "stop"),
     ("length", "max_output_tokens"), ("content_filter", "content_filter"), (None, "stop")],
)  # fmt: skip
def test_how_it_ended(finish: str | None, reason: str) -> None:
    assert brief(read({"content": "x"}, finish=finish)) == f"'x' /{reason}"


def test_a_call_without_a_name() -> None:
    with pytest.raises(base.EngineError, match="x"):
        read(piece(0, "{}", id="1"))


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        (None, None),
        ({"prompt_tokens": 9, "completion_tokens": 3}, base.Usage(base.InputUsage(9), 3)),
        (
            {"prompt_tokens": 90, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 64},
             "completion_tokens_details": {"reasoning_tokens": 9}},
            base.Usage(base.InputUsage(90, cached_text=64), 30),
        ),
        (
            {"prompt_tokens": 90, "completion_tokens": 30,
             "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 40},
             "completion_tokens_details": {"audio_tokens": 20}},
            base.Usage(base.InputUsage(50, 40, 50, 14), 10, 20),
        ),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 99}},
         base.Usage(base.InputUsage(9, cached_text=9), 3)),
        ({"prompt_tokens": -1, "completion_tokens": 3}, None),
        ({"total_tokens": 3}, None),
        ({"prompt_tokens": "many", "completion_tokens": 3}, None),
        ([], None),
    ],
)  # fmt: skip
def test_what_it_used(told: Any, usage: base.Usage | None) -> None:
    assert read({"content": "x"}, usage=told)[-1] == base.Finish("stop", usage)
