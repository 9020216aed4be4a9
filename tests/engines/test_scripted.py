"""The scripted model: tables of requests and the exact deltas that answer them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from vivavoce.engines.base import (
    AudioInput,
    EngineError,
    EngineOptionsError,
    Finish,
    GenerationRequest,
    ImageInput,
    LanguageModel,
    Message,
    ModelDelta,
    NamedTool,
    TextDelta,
    TextInput,
    Tool,
    ToolArgumentsDelta,
    ToolCall,
    ToolCallStart,
    ToolChoice,
    ToolOutput,
    Turn,
)
from vivavoce.engines.builtin import scripted_script
from vivavoce.engines.builtin.scripted import ScriptedModel, create
from vivavoce.engines.builtin.scripted_phrases import (
    GREETING,
    HEARD_NOTHING,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "scripted-model.md"

WEATHER = Tool(
    "get_weather",
    "Current conditions of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TIMER = Tool(
    "set_timer",
    "Count down",
    {"type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]},
)
FORECAST = Tool("getWeatherForecast", "Coming days")
TOOLS = (TIMER, WEATHER, FORECAST)


def user(*texts: str) -> Message:
    return Message("user", tuple(TextInput(text) for text in texts))


def heard(text: str | None) -> Message:
    return Message("user", (AudioInput(b"\0\0", 24000, text),))


def said(text: str) -> Message:
    return Message("assistant", (TextInput(text),))


def ask(
    *turns: Turn | str,
    instructions: str = "",
    tools: tuple[Tool, ...] = (),
    tool_choice: ToolChoice = "auto",
    limit: int | None = None,
) -> GenerationRequest:
    return GenerationRequest(
        instructions,
        tuple(user(turn) if isinstance(turn, str) else turn for turn in turns),
        tools=tools,
        tool_choice=tool_choice,
        max_output_tokens=limit,
    )


def model(script: str = "") -> ScriptedModel:
    return ScriptedModel(scripted_script.parse(script) if script else None, word_delay_ms=0)


async def deltas(request: GenerationRequest, script: str = "") -> list[ModelDelta]:
    return [delta async for delta in model(script).generate(request)]


async def answer(request: GenerationRequest, script: str = "") -> list[Any]:
    """The answer in short: texts, (name, arguments) of calls, and the reason at the end unless it is stop."""
    short: list[Any] = []
    for delta in await deltas(request, script):
        match delta:
            case TextDelta(text):
                if short and isinstance(short[-1], str):
                    short[-1] += text
                else:
                    short.append(text)
            case ToolCallStart(name):
                short.append([name, ""])
            case ToolArgumentsDelta(text):
                short[-1][1] += text
            case Finish(reason):
                short += [] if reason == "stop" else [(reason,)]
    return [(entry[0], json.loads(entry[1])) if isinstance(entry, list) else entry for entry in short]


# ------------------------------------------------------------------------------------------------- deltas


async def test_text_is_streamed_word_by_word() -> None:
    assert await deltas(ask("hello  big\nworld")) == [
        TextDelta("You"),
        TextDelta(" said:"),
        TextDelta(" hello"),
        TextDelta(" big"),
        TextDelta(" world."),
        Finish("stop"),
    ]


async def test_a_call_is_streamed_token_by_token() -> None:
    assert await deltas(ask('the weather in "a \\ {b}"', tools=TOOLS)) == [
        ToolCallStart("get_weather"),
        ToolArgumentsDelta("{"),
        ToolArgumentsDelta('"city"'),
        ToolArgumentsDelta(":"),
        ToolArgumentsDelta('"a \\\\ {b}"'),
        ToolArgumentsDelta("}"),
        Finish("stop"),
    ]


async def test_a_long_word_comes_in_pieces() -> None:
    found = await deltas(ask("x" * 70))
    assert [len(delta.text) for delta in found if isinstance(delta, TextDelta)] == [3, 6, 32, 32, 8]


async def test_call_without_arguments() -> None:
    assert await deltas(ask("weather forecast", tools=TOOLS)) == [
        ToolCallStart("getWeatherForecast"),
        ToolArgumentsDelta("{"),
        ToolArgumentsDelta("}"),
        Finish("stop"),
    ]


# ---------------------------------------------------------------------------------------------- precedence

CALL = ToolCall("c1", "get_weather", '{"city":"Rome"}')
SUNNY = ToolOutput("c1", '{"temperature": 21, "unit": "celsius"}')
SPOKEN = "The result of get_weather is temperature 21, unit celsius."
ROME = ("get_weather", {"city": "Rome"})


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(ask(), [GREETING], id="nothing to answer"),
        pytest.param(ask(said("Hi.")), [GREETING], id="only an assistant message"),
        pytest.param(ask(Message("system", (TextInput("Be nice."),))), [GREETING], id="only a system message"),
        pytest.param(ask(instructions="Greet the user with 'Hey'."), ["Hey"], id="told greeting"),
        pytest.param(ask("hi", instructions="Greet the user with 'Hey'."), ["You said: hi."], id="no greeting"),
        pytest.param(ask("hi", instructions='Say "ho".'), ["ho"], id="told"),
        pytest.param(ask(instructions='Say "ho".'), ["ho"], id="told, nothing to answer"),
        pytest.param(ask("hi"), ["You said: hi."], id="echo"),
        pytest.param(ask("hi", said("Hello.")), ["You said: hi."], id="echo once more"),
        pytest.param(ask("one", said("x"), "two"), ["You said: two."], id="last message"),
        pytest.param(ask("one", "two"), ["You said: two."], id="last of two messages"),
        pytest.param(ask(user("one", " two ")), ["You said: one two."], id="parts"),
        pytest.param(ask(heard("a cat")), ["You said: a cat."], id="audio"),
        pytest.param(ask(heard("")), [HEARD_NOTHING], id="audio, silence"),
        pytest.param(ask("one", heard(None)), [HEARD_NOTHING], id="audio, no transcript"),
        pytest.param(ask(" "), [HEARD_NOTHING], id="empty text"),
        pytest.param(ask("weather in Rome", tools=TOOLS), [ROME], id="auto"),
        pytest.param(ask("weather in Rome", tools=TOOLS, instructions="Say: ho"), [ROME], id="auto before told"),
        pytest.param(ask("call getWeather in Rome", tools=TOOLS), [ROME], id="auto, camelCase"),
        pytest.param(ask("rain in Rome", tools=TOOLS), ["You said: rain in Rome."], id="auto, not named"),
        pytest.param(ask("the weathers", tools=TOOLS), ["You said: the weathers."], id="auto, not equal"),
        pytest.param(ask("the weather", tools=(Tool("__"),)), ["You said: the weather."], id="auto, no name"),
        pytest.param(ask("please do it", tools=(Tool("do_it"),)), [("do_it", {})], id="auto, name of small words"),
        pytest.param(
            ask("twenty minutes timer", tools=TOOLS), [("set_timer", {"minutes": 20})], id="auto, number word"
        ),
        pytest.param(
            ask("weather in Rome", tools=TOOLS, tool_choice="none"), ["You said: weather in Rome."], id="none"
        ),
        pytest.param(ask("Rome", tools=TOOLS, tool_choice=NamedTool("get_weather")), [ROME], id="named"),
        pytest.param(ask("5", tools=TOOLS, tool_choice="required"), [("set_timer", {"minutes": 5})], id="required"),
        pytest.param(
            ask("which city is Rome", tools=TOOLS, tool_choice="required"), [ROME], id="required, by description"
        ),
        pytest.param(
            ask(tools=TOOLS, tool_choice="required"), [("set_timer", {"minutes": 1})], id="required, no text"
        ),
        pytest.param(ask("weather in Rome", CALL, SUNNY, tools=TOOLS), [SPOKEN], id="output"),
        pytest.param(
            ask("weather in Rome", CALL, SUNNY, tools=TOOLS, tool_choice="none"), [SPOKEN], id="output, none"
        ),
        pytest.param(
            ask("weather in Rome", CALL, SUNNY, tools=TOOLS, tool_choice="required"), [ROME], id="output, required"
        ),
        pytest.param(
            ask("weather in Rome", CALL, SUNNY, tools=TOOLS, tool_choice=NamedTool("get_weather")),
            [ROME],
            id="output, named",
        ),
        pytest.param(
            ask("weather in Rome", CALL, SUNNY, instructions='Say "ho".'), [SPOKEN], id="output before told"
        ),
        pytest.param(
            ask("weather in Rome", CALL, SUNNY, said(SPOKEN), tools=TOOLS),
            ["You said: weather in Rome."],
            id="answered before",
        ),
        pytest.param(
            ask("weather in Oslo", CALL, SUNNY, said(SPOKEN), "weather in Rome", tools=TOOLS),
            [ROME],
            id="next turn",
        ),
        pytest.param(
            ask("weather in Rome", CALL, SUNNY, Message("system", ()), tools=TOOLS),
            [SPOKEN],
            id="system message last",
        ),
        pytest.param(ask("weather in Rome", CALL, tools=TOOLS), [ROME], id="call without output"),
        pytest.param(
            ask("x", CALL, ToolCall("c2", "b", "{}"), ToolOutput("c1", "Sunny."), ToolOutput("c2", "[1,2]")),
            ["Sunny. The result of b is 1, 2."],
            id="two outputs",
        ),
        pytest.param(ask(ToolOutput("c9", "{}")), ["The result is empty."], id="output of an unknown call"),
        pytest.param(ask("a b", limit=3), ["You said: a", ("max_output_tokens",)], id="limit"),
        pytest.param(ask("a b", limit=4), ["You said: a b."], id="limit just reached"),
        pytest.param(ask("a b", limit=0), [("max_output_tokens",)], id="limit of nothing"),
    ],
)
async def test_own_answers(request_: GenerationRequest, expected: list[Any]) -> None:
    assert await answer(request_) == expected
    assert await deltas(request_) == await deltas(request_)


async def test_the_limit_counts_the_tokens_of_arguments() -> None:
    found = await deltas(ask("weather in Rome", tools=TOOLS, limit=2))
    assert found == [
        ToolCallStart("get_weather"),
        ToolArgumentsDelta("{"),
        ToolArgumentsDelta('"city"'),
        Finish("max_output_tokens"),
    ]


async def test_temperature_and_modalities_change_nothing() -> None:
    one = GenerationRequest("", (user("hi"),), frozenset({"text"}), temperature=0.6)
    other = GenerationRequest("", (user("hi"),), temperature=1.2)
    assert await deltas(one) == await deltas(other)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ask("x", tools=TOOLS, tool_choice=NamedTool("other")), "unknown_tool"),
        (ask("x", tool_choice="required"), "no_tools"),
        (ask("x", tools=(Tool("x", "", {"type": "array"}),)), "unsatisfiable_tool_schema"),
    ],
)
async def test_faults(request_: GenerationRequest, code: str) -> None:
    with pytest.raises(EngineError) as fault:
        await deltas(request_)
    assert (fault.value.code, fault.value.type) == (code, "invalid_request_error")


# ----------------------------------------------------------------------------------------------- the script


def example() -> str:
    """The worked example of the reference, as a reader copies it."""
    blocks = re.findall(r"```toml\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    return next(cast(str, block) for block in blocks if "[[rule]]" in block)


BOOK = Tool(
    "book_table",
    "",
    {"properties": {"name": {"type": "string"}, "people": {"type": "integer"}}, "required": ["name", "people"]},
)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ask("the weather in Rome?", tools=TOOLS), [("get_weather", {"city": "Rome", "days": 1})]),
        (ask("the weather in Rome?", CALL, ToolOutput("c1", "sunny"), tools=TOOLS), ["It is sunny."]),
        (
            ask("the weather in Rome?", CALL, SUNNY, said("x"), tools=TOOLS),
            ["Welcome! You said the weather in Rome?."],
        ),
        (ask("the weather in Rome?", tools=TOOLS, tool_choice="none"), ["Welcome! You said the weather in Rome?."]),
        (ask("x", ToolCall("c2", "f", "{}"), ToolOutput("c2", "done"), tools=TOOLS), ["done"]),
        (
            ask("a timer for twenty five minutes", tools=TOOLS),
            ["One moment.", ("set_timer", {"minutes": 25})],
        ),
        (ask("Book for Ada, 4 people", tools=(BOOK,)), [("book_table", {"name": "Ada", "people": 4})]),
        (ask("Goodbye."), ["Bye!"]),
        (ask("forbidden"), ["I would rather", ("content_filter",)]),
        (ask("one"), ["Welcome! You said one."]),
        (ask("one", "two"), ["Pardon?"]),
        (ask(), ["Pardon?"]),
    ],
)
async def test_the_example_of_the_reference(
    request_: GenerationRequest, expected: list[Any], waits: list[float]
) -> None:
    assert await answer(request_, example()) == expected


async def test_the_example_fails_as_told() -> None:
    with pytest.raises(EngineError) as fault:
        await deltas(ask("break it"), example())
    assert (fault.value.type, fault.value.code, fault.value.message) == (
        "server_error",
        "model_overloaded",
        "The scripted model was told to fail.",
    )


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of every sleep; none is waited for."""
    slept: list[float] = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


RULES = """
[[rule]]
when = "(?P<first>\\\\w+) or (?P<second>\\\\w+)(?P<third>!)?"
steps = [
  { say = "{first} {{or}} {second}{third}" },
  { wait_ms = 70 },
  { say = "" },
  { say = "or both" },
  { call = { name = "set_timer", arguments = { a = [1, 2.5, true, { b = "{first}-{text}" }], n = "{second}" } } },
  { say = "Done." },
  { finish = "max_output_tokens" },
]
[[rule]]
when = "^steps$"
steps = [{ say = "Now" }, { fail = { code = "c", message = "m", type = "t" } }]
[[rule]]
when = "other"
turn = 2
call = { name = "nowhere", arguments = {} }
[[rule]]
when = "number (?P<n>.*)"
call = { name = "set_timer", arguments = { whole = "{n:integer}", any = "{n:number}" } }
[[rule]]
when = "half (?P<n>.*)"
call = { name = "set_timer", arguments = { any = "{n:number}" } }
[[rule]]
when = "^quiet$"
finish = "content_filter"
[[rule]]
when_output_of = "*"
when = "loud"
say = "{text}: {output}"
[[rule]]
always = true
turn = 3
word_delay_ms = 7
say = "a b c"
[[rule]]
when = "^$"
say = "nothing"
"""


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (
            ask("Tea or cake", tools=TOOLS),
            [
                "Tea {or} cake or both",
                ("set_timer", {"a": [1, 2.5, True, {"b": "Tea-Tea or cake"}], "n": "cake"}),
                "Done.",
                ("max_output_tokens",),
            ],
        ),
        (ask("number 4", tools=TOOLS), [("set_timer", {"whole": 4, "any": 4})]),
        (ask("half 2.5", tools=TOOLS), [("set_timer", {"any": 2.5})]),
        (ask("quiet"), [("content_filter",)]),
        (ask("loud", ToolOutput("a", "1"), ToolOutput("b", "2")), ["loud: 2"]),
        (ask("soft", ToolOutput("a", "1")), ["1"]),
        (ask("other"), ["You said: other."]),
        (ask("", tool_choice="required", tools=TOOLS), ["nothing"]),
        (ask(), ["nothing"]),
    ],
)
async def test_rules(request_: GenerationRequest, expected: list[Any], waits: list[float]) -> None:
    assert await answer(request_, RULES) == expected


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (ask("1", "other", tools=TOOLS), "unknown_tool"),
        (ask("number two point", tools=()), "unknown_tool"),
        (ask("number 2.5", tools=TOOLS), "script_value_invalid"),
        (ask("number 2 3", tools=TOOLS), "script_value_invalid"),
    ],
)
async def test_faults_of_rules(request_: GenerationRequest, code: str) -> None:
    with pytest.raises(EngineError) as fault:
        await deltas(request_, RULES)
    assert fault.value.code == code


async def test_fail_comes_after_what_was_said_before() -> None:
    stream = model(RULES).generate(ask("steps"))
    assert await anext(stream) == TextDelta("Now")
    with pytest.raises(EngineError) as fault:
        await anext(stream)
    assert (fault.value.type, fault.value.code, fault.value.message) == ("t", "c", "m")


async def test_delays(waits: list[float]) -> None:
    engine = ScriptedModel(scripted_script.parse(RULES), word_delay_ms=20)
    for request, expected in (
        (ask("a b"), [0.02] * 3),
        (ask("1", "2", "3"), [0.007] * 2),
        (ask("Goodnight"), [0.02] * 2),
    ):
        waits.clear()
        assert [delta async for delta in engine.generate(request)]
        assert waits == expected
    waits.clear()
    late = ScriptedModel(scripted_script.parse(example()), word_delay_ms=0)
    assert [delta async for delta in late.generate(ask("goodbye"))] == [TextDelta("Bye!"), Finish()]
    assert waits == [0.3]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("[[rule", "s.toml: is not TOML: "),
        ("a = " + "[" * 100_000, "s.toml: is not TOML: "),
        ("", "s.toml: rule: required, but missing"),
        ("rule = []", "s.toml: rule: Expected `array` of length >= 1"),
        ("rule = 3", "s.toml: rule: Expected `array`, got `int`"),
        ('rules = 1\n[[rule]]\nwhen = ""\nsay = ""', "s.toml: rules: unknown key"),
        ('[[rule]]\nwhen = ""\nsay = "x"\ntimes = 2', "s.toml: rule[0].times: unknown key"),
        ('[[rule]]\nsay = "x"', "s.toml: rule[0]: no condition"),
        ('[[rule]]\nalways = false\nsay = "x"', "s.toml: rule[0]: no condition"),
        (
            '[[rule]]\nalways = true\nwhen = "x"\nsay = "x"',
            "s.toml: rule[0].always: cannot stand together with when",
        ),
        ('[[rule]]\nwhen = "x"', "s.toml: rule[0]: nothing to do"),
        ('[[rule]]\nwhen = "x"\nwait_ms = 3', "s.toml: rule[0]: nothing to do"),
        ('[[rule]]\nwhen = 3\nsay = "x"', "s.toml: rule[0].when: Expected `str"),
        ('[[rule]]\nwhen = "("\nsay = "x"', "s.toml: rule[0].when: is not a regular expression: missing )"),
        ('[[rule]]\nwhen = "(?P<text>.)"\nsay = "x"', "s.toml: rule[0].when: the group name 'text' is taken"),
        ('[[rule]]\nturn = 0\nsay = "x"', "s.toml: rule[0].turn: Expected `int` >= 1"),
        (
            '[[rule]]\nwhen_output_of = ""\nsay = "x"',
            "s.toml: rule[0].when_output_of: Expected `str` of length >= 1",
        ),
        (
            '[[rule]]\nwhen = "x"\nsay = "x"\nsteps = [{ say = "y" }]',
            "s.toml: rule[0].steps: cannot stand together with say",
        ),
        (
            '[[rule]]\nwhen = "x"\nsay = "x"\ncall = { name = "y" }',
            "s.toml: rule[0].call: cannot stand together with say; use steps",
        ),
        ('[[rule]]\nwhen = "x"\nsteps = []', "s.toml: rule[0].steps: Expected `array` of length >= 1"),
        (
            '[[rule]]\nwhen = "x"\nwait_ms = 1\nsteps = [{ say = "y" }]',
            "s.toml: rule[0].wait_ms: cannot stand together with steps",
        ),
        (
            '[[rule]]\nwhen = "x"\nsteps = [{ say = "y" }, { say = "y", wait_ms = 1 }]',
            "s.toml: rule[0].steps[1]: a step has exactly one",
        ),
        ('[[rule]]\nwhen = "x"\nsteps = [{}]', "s.toml: rule[0].steps[0]: a step has exactly one"),
        (
            '[[rule]]\nwhen = "x"\nsteps = [{ finish = "stop" }, { say = "y" }]',
            "s.toml: rule[0].steps[0]: nothing can follow",
        ),
        ('[[rule]]\nwhen = "x"\nfinish = "never"', "s.toml: rule[0].finish: Invalid enum value 'never'"),
        (
            '[[rule]]\nwhen = "x"\nfinish = "stop"\nfail = { code = "a", message = "b" }',
            "s.toml: rule[0].finish: cannot stand together with fail",
        ),
        ('[[rule]]\nwhen = "x"\nfail = { code = "a" }', "s.toml: rule[0].fail.message: required, but missing"),
        ('[[rule]]\nwhen = "x"\ncall = { nme = "a" }', "s.toml: rule[0].call."),
        ('[[rule]]\nwhen = "x"\ncall = { name = "a", arguments = 3 }', "s.toml: rule[0].call.arguments: Expected"),
        ('[[rule]]\nwhen = "x"\nwait_ms = -1\nsay = "x"', "s.toml: rule[0].wait_ms: Expected `int` >= 0"),
        ('[[rule]]\nwhen = "x"\nword_delay_ms = 1.5\nsay = "x"', "s.toml: rule[0].word_delay_ms: Expected `int"),
        ('[[rule]]\nwhen = "x"\nsay = "{y}"', "s.toml: rule[0].say: unknown placeholder {y}; known here: text"),
        ('[[rule]]\nwhen = "x"\nsay = "{output}"', "s.toml: rule[0].say: unknown placeholder {output}"),
        ('[[rule]]\nwhen = "x"\nsay = "{"', "s.toml: rule[0].say: a lone '{'"),
        ('[[rule]]\nwhen = "x"\nsay = "a } b"', "s.toml: rule[0].say: a lone '}'"),
        ('[[rule]]\nwhen = "x"\nsay = "{text:integer}"', "s.toml: rule[0].say: a conversion must be the whole"),
        (
            '[[rule]]\nwhen = "x"\nsteps = [{ wait_ms = 1 }, { say = "{y}" }]',
            "s.toml: rule[0].steps[1].say: unknown placeholder",
        ),
        (
            '[[rule]]\nwhen = "x"\nsay = "x"\n[[rule]]\nwhen = "x"\n'
            'call = { name = "a", arguments = { b = [{ c = "{y}" }] } }',
            "s.toml: rule[1].call.arguments.b[0].c: unknown placeholder",
        ),
        (
            '[[rule]]\nwhen = "x"\ncall = { name = "a", arguments = { b = "{y:integer}" } }',
            "s.toml: rule[0].call.arguments.b: unknown placeholder",
        ),
        (
            '[[rule]]\nwhen = "x"\ncall = { name = "a", arguments = { b = "{text:date}" } }',
            "s.toml: rule[0].call.arguments.b: unknown conversion 'date'; known: integer, number",
        ),
        (
            '[[rule]]\nwhen = "x"\ncall = { name = "a", arguments = { b = 2024-01-01 } }',
            "s.toml: rule[0].call.arguments.b: JSON has no date",
        ),
        (
            '[[rule]]\nwhen = "x"\ncall = { name = "a", arguments = { b = nan } }',
            "s.toml: rule[0].call.arguments.b: JSON has no infinity",
        ),
    ],
)
def test_mistakes_in_a_script_are_named(source: str, message: str) -> None:
    with pytest.raises(scripted_script.ScriptError) as fault:
        scripted_script.parse(source, "s.toml")
    assert str(fault.value).startswith(message)


# ---------------------------------------------------------------------------------------------- the engine


def test_it_is_a_language_model() -> None:
    engine = create({})
    assert isinstance(engine, LanguageModel)
    assert engine.name == "scripted"
    assert not engine.capabilities.hears_audio
    assert not engine.capabilities.sees_images
    assert engine.capabilities.calls_tools


async def test_it_reads_pictures_as_words_where_it_may_see_them() -> None:
    engine = create({"word_delay_ms": 0, "sees_images": True})
    assert engine.capabilities.sees_images
    shown = Message("user", (TextInput("I see"), ImageInput("data:image/png;base64,aW1n"), TextInput("here")))
    said = [delta.text async for delta in engine.generate(ask(shown)) if isinstance(delta, TextDelta)]
    assert "".join(said) == "You said: I see a picture here."


async def test_start_and_close_do_nothing(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[[rule]]\nalways = true\nsay = "Grüß Gott"\n', encoding="utf-8")
    engine = create({"script": str(file), "word_delay_ms": 0})
    file.unlink()
    await engine.start()
    assert [delta async for delta in engine.generate(ask("x"))] == [
        TextDelta("Grüß"),
        TextDelta(" Gott"),
        Finish("stop"),
    ]
    await engine.close()


@pytest.mark.parametrize(
    ("options", "path", "problem"),
    [
        ({"delay": 3}, "delay", "unknown key"),
        ({"word_delay_ms": -1}, "word_delay_ms", "Expected `int` >= 0"),
        ({"word_delay_ms": "5"}, "word_delay_ms", "Expected `int`, got `str`"),
        ({"word_delay_ms": True}, "word_delay_ms", "Expected `int`, got `bool`"),
        ({"sees_images": 1}, "sees_images", "Expected `bool`, got `int`"),
        ({"script": 4}, "script", "Expected `str | null`, got `int`"),
        ({"script": "/nowhere/s.toml"}, "script", "/nowhere/s.toml: cannot be read: No such file or directory"),
    ],
)
def test_wrong_options(options: Mapping[str, Any], path: str, problem: str) -> None:
    with pytest.raises(EngineOptionsError) as fault:
        create(options)
    assert (fault.value.path, fault.value.problem) == (path, problem)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe", "cannot be read: it is not UTF-8"),
        (b"[[rule]]\nsay = 3", "rule[0].say: Expected `str | null`"),
    ],
)
def test_wrong_script_files(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "s.toml"
    file.write_bytes(content)
    with pytest.raises(EngineOptionsError) as fault:
        create({"script": str(file)})
    assert fault.value.path == "script"
    assert fault.value.problem.startswith(f"{file}: {problem}")


async def test_others_run_between_two_words() -> None:
    """With no delay at all, a task that only needs the loop still gets its turn after every piece."""
    order: list[str] = []

    async def listen() -> None:
        async for delta in model().generate(ask("a b")):
            order.append(delta.text if isinstance(delta, TextDelta) else "end")  # noqa: PERF401

    async def other() -> None:
        for _ in range(3):
            order.append("-")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(listen())
        group.create_task(other())
    assert order == ["You", "-", " said:", "-", " a", "-", " b.", "end"]


async def test_a_cancel_in_the_middle_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    heard_: list[ModelDelta] = []
    engine = ScriptedModel(word_delay_ms=600_000)
    first = asyncio.Event()

    async def listen() -> None:
        async for delta in engine.generate(ask("one two three")):
            heard_.append(delta)
            first.set()

    task = asyncio.create_task(listen())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert heard_ == [TextDelta("You")]
    assert asyncio.all_tasks() == before


async def test_closing_the_iterator_ends_it() -> None:
    stream = model().generate(ask("one two three"))
    assert await anext(stream) == TextDelta("You")
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_many_at_once_do_not_mix() -> None:
    engine = model()

    async def listen(text: str) -> str:
        found = [delta async for delta in engine.generate(ask(text))]
        return "".join(delta.text for delta in found if isinstance(delta, TextDelta))

    texts = [f"number {at}" for at in range(20)]
    assert await asyncio.gather(*map(listen, texts)) == [f"You said: {text}." for text in texts]
