"""Promises of models: those that write, and those that speak for themselves."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from vivavoce.engines import base
from vivavoce.testing.conformance.subject import Checks, Subject, require
from vivavoce.testing.conformance.work import TEXT, request, voice

_DOT: Final = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4"
    "z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
"""A picture of one dot."""
_WEATHER: Final = base.Tool(
    "get_weather",
    "The weather of a place.",
    {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
)


async def a_turn_ends_in_one_finish(subject: Subject) -> None:
    """Deltas of the known kinds; Finish once, last; arguments belong to a call, and are a JSON object."""
    async with subject.running() as engine:
        await _turn(engine, subject, request())


async def any_history_is_taken(subject: Subject) -> None:
    """None at all, every kind of turn, empty texts, and what its capabilities say that it can take."""
    said = base.Message("user", (base.TextInput(TEXT),))
    answer = base.Message("assistant", (base.TextInput("Fine."),))
    call = base.ToolCall("call_1", "get_weather", '{"place": "Oslo"}')
    output = base.ToolOutput("call_1", "4 degrees")
    rule = base.Message("system", (base.TextInput("Be kind."),))
    empty = base.Message("user", (base.TextInput(""),))
    async with subject.running() as engine:
        histories: list[tuple[base.Turn, ...]] = [
            (),
            (said, answer, said),
            (rule, said, call, output),
            (said, call, call, output, said),
            (answer,),
            (empty,),
        ]
        if engine.capabilities.hears_audio:
            rate = 24_000
            speech = base.AudioInput(subject.sentence(rate) if subject.speech is None else bytes(48_000), rate)
            histories.append((base.Message("user", (speech,)),))
        if getattr(engine.capabilities, "sees_images", False):
            histories.append((base.Message("user", (base.TextInput("What is this?"), base.ImageInput(_DOT))),))
        for history in histories:
            asked = base.GenerationRequest(instructions="", turns=history, tools=(_WEATHER,))
            await _turn(engine, subject, asked)


async def tools_are_called_as_they_may_be(subject: Subject) -> None:
    """Only those that the request offers, and none where the choice is none."""
    able = {"tools": (_WEATHER,)}
    async with subject.running() as engine:
        if not getattr(engine.capabilities, "calls_tools", True):
            return
        for choice in ("auto", "none", "required", base.NamedTool("get_weather")):
            names = await _turn(engine, subject, request("What is the weather?", tool_choice=choice, **able))
            require(choice != "none" or not names, "a function was called where none may be")
            require(set(names) <= {"get_weather"}, f"functions were called that nobody offers: {names}")


async def a_limit_of_output_is_no_fault(subject: Subject) -> None:
    """The server enforces it too; the turn still ends in a Finish."""
    async with subject.running() as engine:
        for limit in (1, 5):
            await _turn(engine, subject, request(max_output_tokens=limit))


async def a_turn_of_text_has_no_sound(subject: Subject) -> None:
    """Where the modalities lack audio."""
    async with subject.running() as engine:
        await _turn(engine, subject, request(modalities=frozenset({"text"})))


async def _turn(engine: Any, subject: Subject, asked: base.GenerationRequest) -> list[str]:
    """Take a turn and check its form; the names of the functions that were called."""

    async def collect() -> list[Any]:
        async with aclosing(_deltas(engine, subject, asked)) as deltas:
            return [delta async for delta in deltas]

    deltas = await subject.patiently(collect(), "a turn")
    require(bool(deltas) and isinstance(deltas[-1], base.Finish), "the last of a turn is no Finish")
    calls: list[tuple[str, str]] = []
    calling = False
    for delta in deltas[:-1]:
        match delta:
            case base.TextDelta():
                calling = False
            case base.ToolCallStart(name=name):
                calls.append((name, ""))
                calling = True
            case base.ToolArgumentsDelta(text=text):
                require(calling, "arguments come without a function call")
                calls[-1] = (calls[-1][0], calls[-1][1] + text)
            case base.AudioDelta(pcm=pcm) if subject.kind == "speech_model":
                require("audio" in asked.modalities, "a turn of text has sound")
                require(len(pcm) % 2 == 0, "sound is no whole samples")
                calling = False
            case _:
                require(False, f"a turn holds a {type(delta).__name__} before its end")
    if deltas[-1].reason == "stop":
        for name, arguments in calls:
            require(_is_object(arguments), f"the arguments of {name} are no JSON object")
    return [name for name, _ in calls]


def _deltas(engine: Any, subject: Subject, asked: base.GenerationRequest) -> AsyncGenerator[Any, None]:
    if subject.kind == "speech_model":
        return engine.respond(base.SpeechRequest(asked, voice(engine)))  # type: ignore[no-any-return]
    return engine.generate(asked)  # type: ignore[no-any-return]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


LANGUAGE_MODEL: Final[Checks] = (
    a_turn_ends_in_one_finish,
    any_history_is_taken,
    tools_are_called_as_they_may_be,
    a_limit_of_output_is_no_fault,
)
SPEECH_MODEL: Final[Checks] = (*LANGUAGE_MODEL, a_turn_of_text_has_no_sound)
