"""The engine ``llama_cpp`` with the real llama.cpp, on the model of tests/models/tiny_gguf.py."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from server_fakes import CONFIG, Wire, serving, session
from tiny_gguf import CHAT_TEMPLATE, COUNT, HELLO, SIDES, SUNNY, write_model

from vivavoce.config import Config, DeploymentSettings, EngineSettings
from vivavoce.engines.base import (
    EngineError,
    Finish,
    GenerationRequest,
    Message,
    ModelDelta,
    NamedTool,
    TextDelta,
    TextInput,
    Tool,
    ToolArgumentsDelta,
    ToolCall,
    ToolCallStart,
    ToolOutput,
)
from vivavoce.engines.llama_cpp import LlamaModel, create
from vivavoce.testing import conformance

WEATHER = Tool(
    "get_weather",
    "The weather",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
OTHER = Tool("other", "", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
SHAPES = {"get_weather": {"city": str}, "other": {"n": int}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    write_model(path)
    return str(path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: str) -> AsyncIterator[LlamaModel]:
    made = create({"model": model, "n_ctx": 1024, "max_waiting": 4})
    assert isinstance(made, LlamaModel)
    await made.start()
    yield made
    await made.close()


in_module_loop = pytest.mark.asyncio(loop_scope="module")


def asked(text: str, **options: Any) -> GenerationRequest:
    return GenerationRequest("Be nice.", (Message("user", (TextInput(text),)),), **options)


async def take(engine: LlamaModel, request: GenerationRequest) -> list[ModelDelta]:
    return [delta async for delta in engine.generate(request)]


def words(deltas: list[ModelDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def end(deltas: list[ModelDelta]) -> Finish:
    assert isinstance(deltas[-1], Finish)
    return deltas[-1]


async def test_the_promises_of_its_kind(model: str) -> None:
    subject = conformance.Subject(kind="language_model", create=create, options={"model": model, "n_ctx": 2048})
    for check in conformance.checks(subject):
        await check.run()


@in_module_loop
async def test_words_come_one_by_one(engine: LlamaModel) -> None:
    deltas = await take(engine, asked("hi"))
    assert words(deltas) == HELLO
    assert len(deltas) == 8
    assert end(deltas).reason == "stop"
    usage = end(deltas).usage
    assert usage is not None
    assert usage.output_text == 8


@in_module_loop
async def test_what_was_read_is_kept(engine: LlamaModel) -> None:
    """The beginning of the next prompt is the last one, with its answer."""
    first = asked("hi")
    answer = Message("assistant", (TextInput(HELLO),))
    again = GenerationRequest("Be nice.", (*first.turns, answer, Message("user", (TextInput("and now"),))))
    read, kept = [], []
    for request in (asked("something else"), first, first, again):
        usage = end(await take(engine, request)).usage
        assert usage is not None
        assert usage.input is not None
        read.append(usage.input.text)
        kept.append(usage.input.cached_text)
    # The second time only the last token is read again.
    assert kept[2] == read[1] - 1 == read[2] - 1
    # The answer is written down without the token that told it apart.
    assert read[3] - 45 > kept[3] >= read[1] - 2


@in_module_loop
async def test_a_function_call(engine: LlamaModel) -> None:
    deltas = await take(engine, asked("the weather", tools=(WEATHER,)))
    assert deltas[:-1] == [ToolCallStart("get_weather"), ToolArgumentsDelta('{"city": "Ulm"}')]
    assert words(await take(engine, asked("the weather", tools=(WEATHER,), tool_choice="none"))) == HELLO
    call, output = ToolCall("c", "get_weather", '{"city": "Ulm"}'), ToolOutput("c", "sunny")
    told = GenerationRequest("", (*asked("the weather").turns, call, output), tools=(WEATHER,))
    assert words(await take(engine, told)) == SUNNY


@in_module_loop
@pytest.mark.parametrize(
    ("choice", "tools", "names"),
    [
        ("required", (WEATHER,), {"get_weather"}),
        ("required", (WEATHER, OTHER), {"get_weather", "other"}),
        (NamedTool("other"), (WEATHER, OTHER), {"other"}),
        ("required", (Tool("bare"),), {"bare"}),
    ],
)
async def test_a_call_that_must_be(
    engine: LlamaModel, choice: Any, tools: tuple[Tool, ...], names: set[str]
) -> None:
    """Also where the model would rather count: it can write nothing else."""
    for text in ("the weather", "count"):
        called, arguments, finish = await take(engine, asked(text, tools=tools, tool_choice=choice))
        assert isinstance(called, ToolCallStart)
        assert isinstance(arguments, ToolArgumentsDelta)
        assert called.name in names
        given = json.loads(arguments.text)
        assert {"get_weather": str, "other": int}.get(called.name, dict) in {type(v) for v in given.values()} | {
            dict
        }
        assert isinstance(finish, Finish)


@in_module_loop
async def test_limits(engine: LlamaModel) -> None:
    deltas = await take(engine, asked("count", max_output_tokens=7))
    assert words(deltas).split() == [*COUNT, *COUNT[:2]]
    assert end(deltas).reason == "max_output_tokens"
    # Without a limit the context is one.
    usage = end(await take(engine, asked("count"))).usage
    assert usage is not None
    assert usage.input is not None
    assert usage.output_text is not None
    assert 1016 < usage.input.text + usage.output_text <= 1025


@in_module_loop
async def test_a_conversation_that_is_too_long(engine: LlamaModel) -> None:
    with pytest.raises(EngineError) as caught:
        await take(engine, asked("x" * 3000))
    assert caught.value.code == "context_length_exceeded"
    assert "xx" not in caught.value.message
    assert words(await take(engine, asked("hi"))) == HELLO


@in_module_loop
async def test_leaving_early_frees_the_worker(engine: LlamaModel) -> None:
    before = engine._pool.pids
    for _ in range(3):
        turn = engine.generate(asked("count"))
        await anext(turn)
        await turn.aclose()
    assert words(await take(engine, asked("hi"))) == HELLO
    assert engine._pool.pids == before


@in_module_loop
async def test_turns_wait_for_each_other(engine: LlamaModel) -> None:
    turns = await asyncio.gather(*(take(engine, asked("hi")) for _ in range(7)), return_exceptions=True)
    refused = [turn for turn in turns if isinstance(turn, EngineError)]
    assert [fault.code for fault in refused] == ["engine_overloaded"] * 2
    assert {words(turn) for turn in turns if isinstance(turn, list)} == {HELLO}


@in_module_loop
async def test_a_crash_costs_one_turn(engine: LlamaModel) -> None:
    turn = engine.generate(asked("count"))
    await anext(turn)
    (pid,) = engine._pool.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError) as caught:
        async for _ in turn:
            pass
    assert caught.value.code == "engine_crashed"
    assert words(await take(engine, asked("hi"))) == HELLO


async def test_sampling(model: str) -> None:
    """A seed makes chance repeat; without one it does not; a stop ends the turn."""
    seeded = create({"model": model, "n_ctx": 512, "seed": 7})
    free = create({"model": model, "n_ctx": 512, "stop": [" four"]})
    assert isinstance(seeded, LlamaModel)
    assert isinstance(free, LlamaModel)
    await asyncio.gather(seeded.start(), free.start())
    try:
        throws = [words(await take(seeded, asked("dice", temperature=1.2))) for _ in range(6)]
        assert len(set(throws)) == 1
        throws = [words(await take(free, asked("dice", temperature=1.2))) for _ in range(12)]
        assert len(set(throws)) > 2
        assert set(throws) <= set(SIDES)
        assert words(await take(free, asked("count"))).split() == list(COUNT[:3])
    finally:
        await asyncio.gather(seeded.close(), free.close())


async def test_a_template_that_refuses(tmp_path: Path) -> None:
    file = tmp_path / "strict.gguf"
    write_model(file, chat_template="{{ raise_exception('not ' + messages[0].content) }}" + CHAT_TEMPLATE)
    engine = create({"model": str(file), "n_ctx": 512})
    assert isinstance(engine, LlamaModel)
    await engine.start()
    try:
        with pytest.raises(EngineError) as caught:
            await take(engine, asked("secret"))
        assert caught.value.code == "invalid_context"
        assert "nice" not in caught.value.message
    finally:
        await engine.close()


async def test_options_reach_the_template(tmp_path: Path) -> None:
    file = tmp_path / "loud.gguf"
    write_model(file, chat_template="{{ messages[-1].content }}{% if loud %}<|count|>{% else %}<|say|>{% endif %}")
    engine = create({"model": str(file), "n_ctx": 512, "template_options": {"loud": True}})
    assert isinstance(engine, LlamaModel)
    await engine.start()
    try:
        assert words(await take(engine, asked("hi", max_output_tokens=2))) == "one two"
    finally:
        await engine.close()


async def test_a_chat_format_of_the_package(model: str) -> None:
    engine = create({"model": model, "n_ctx": 512, "chat_format": "chatml"})
    assert isinstance(engine, LlamaModel)
    await engine.start()
    try:
        deltas = await take(engine, asked("hi", max_output_tokens=3))
        assert end(deltas).reason in ("stop", "max_output_tokens")
        usage = end(deltas).usage
        assert usage is not None
        assert usage.input is not None
        assert usage.input.text > 20
    finally:
        await engine.close()


@pytest.fixture
def short(model: str, tmp_path: Path) -> str:
    """A file that broke off."""
    file = tmp_path / "short.gguf"
    file.write_bytes(Path(model).read_bytes()[:-1_000_000])
    return str(file)


@pytest.mark.parametrize(
    ("options", "problem"),
    [({"chat_format": "klingon"}, "has no chat_format 'klingon'"), ({}, "the model does not load")],
)
async def test_what_stops_the_start(options: dict[str, Any], problem: str, model: str, short: str) -> None:
    with pytest.raises(EngineError, match=problem):
        await create({"model": model if options else short, **options}).start()


# ------------------------------------------------------------------------------------------------- conversations


def config(model: str) -> Config:
    """The built-in engines, and this model."""
    (deployment,) = CONFIG.deployments
    local = EngineSettings(kind="language_model", type="llama_cpp", options={"model": model, "n_ctx": 2048})
    spoken = DeploymentSettings(name=deployment.name, language_model="local")
    return Config(server=CONFIG.server, resource=CONFIG.resource, engines={"local": local}, deployments=(spoken,))


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


async def turn(wire: Wire, item: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Say it, and take the answer: its item, and its sound."""
    await wire.send("conversation.item.create", item=item)
    await wire.send("response.create")
    events = await wire.until("response.done")
    (answer,) = events[-1]["response"]["output"]
    assert events[-1]["response"]["usage"]["input_tokens"] > 0
    sound = (base64.b64decode(event["delta"]) for event in events if event["type"] == "response.audio.delta")
    return answer, b"".join(sound)


async def test_a_spoken_conversation_with_a_call(model: str) -> None:
    tool = {"type": "function", "name": WEATHER.name, "parameters": WEATHER.parameters}
    async with serving(config(model)) as server, session(server) as wire:
        await wire.update(tools=[tool], turn_detection=None)
        hello, sound = await turn(wire, said("hi"))
        assert hello["content"][0]["transcript"] == HELLO
        assert len(sound) > 24_000
        call, _ = await turn(wire, said("the weather"))
        assert (call["type"], call["name"]) == ("function_call", WEATHER.name)
        assert json.loads(call["arguments"]) == {"city": "Ulm"}
        told, sound = await turn(
            wire, {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
        )
        assert told["content"][0]["transcript"] == SUNNY
        assert len(sound) > 24_000


async def test_a_worker_that_is_killed_in_the_middle(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[LlamaModel] = []
    start = LlamaModel.start

    async def noticed(self: LlamaModel) -> None:
        await start(self)
        made.append(self)

    monkeypatch.setattr(LlamaModel, "start", noticed)
    count = {"modalities": ["text"], "input": [said("count")], "conversation": "none"}
    async with serving(config(model)) as server, session(server) as wire, session(server) as other:
        await wire.send("response.create", response=count)
        await wire.until("response.text.delta")
        await other.send("response.create", response={"modalities": ["text"]})
        (pid,) = made[0]._pool.pids
        os.kill(pid, signal.SIGKILL)
        response = (await wire.until("response.done"))[-1]["response"]
        assert response["status"] == "failed"
        assert response["status_details"]["error"]["code"] == "engine_crashed"
        # Who waited gets the new worker, and so does the next response here.
        for client in (other, wire):
            if client is wire:
                await wire.send("response.create", response={"modalities": ["text"]})
            response = (await client.until("response.done"))[-1]["response"]
            assert response["output"][0]["content"][0]["text"] == HELLO
