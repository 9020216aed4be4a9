"""The engine ``openai_compatible`` and the server of llama.cpp: text, calls, use, limits, cancelling, faults; and a
spoken conversation with a function call through both."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from openai_harness import KEY, MODEL, check_response, joined, loudness, of_response, sound_of, talking

from vivavoce.config import load_config
from vivavoce.demo.sound import parse_wav
from vivavoce.engines import base
from vivavoce.engines.registry import Registry
from vivavoce.server.app import running

UPSTREAM_KEY: Final = "sk-tiny"
HERE: Final = Path(__file__).parent
HELLO: Final = "Hello from a very small model."
COUNT: Final = ("one", "two", "three", "four", "five")
SUNNY: Final = "It is sunny in Ulm!"
"""What the model of ``tests/models/tiny_gguf.py`` says; its maker cannot be imported here."""
WEATHER: Final = base.Tool("get_weather", "", {"type": "object", "properties": {"city": {"type": "string"}}})


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the server, which runs in the environment that ``llama_server_run.py`` makes."""
    command = [os.environ["LLAMA_SERVER_PYTHON"], str(HERE / "serve.py"), str(tmp_path_factory.mktemp("model"))]
    with subprocess.Popen(
        [*command, UPSTREAM_KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()
        server.wait(20)


@asynccontextmanager
async def model(url: str, **options: Any) -> AsyncIterator[Any]:
    connection = {"base_url": url, "model": "tiny", "api_key": UPSTREAM_KEY, "check": "fail"}
    made: Any = Registry.installed().create("language_model", "openai_compatible", connection | options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def asked(text: str, *turns: base.Turn, **fields: Any) -> base.GenerationRequest:
    user = base.Message("user", (base.TextInput(text),))
    return base.GenerationRequest("Be brief.", (user, *turns), **fields)


async def all_of(made: Any, request: base.GenerationRequest) -> list[Any]:
    async with aclosing(made.generate(request)) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[Any]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, base.TextDelta))


async def test_words_and_what_they_used(url: str) -> None:
    async with model(url, warm_up=True) as tiny:
        deltas = await all_of(tiny, asked("Hi"))
    assert text_of(deltas) == HELLO
    assert len(deltas) > 5
    finish = deltas[-1]
    assert finish.reason == "stop"
    assert finish.usage.output_text == 8
    assert finish.usage.input.text > 8


async def test_a_call_and_its_output(url: str) -> None:
    async with model(url) as tiny:
        deltas = await all_of(tiny, asked("The weather?", tools=(WEATHER,)))
        assert deltas[0] == base.ToolCallStart("get_weather")
        pieces = [delta.text for delta in deltas if isinstance(delta, base.ToolArgumentsDelta)]
        assert len(pieces) > 1
        assert json.loads("".join(pieces)) == {"city": "Ulm"}
        call = base.ToolCall("call_1", "get_weather", "".join(pieces))
        output = base.ToolOutput("call_1", "sunny")
        assert text_of(await all_of(tiny, asked("The weather?", call, output, tools=(WEATHER,)))) == SUNNY
        # Histories that voice makes: cut short, never answered, answered when the call is gone.
        broken = base.ToolCall("call_2", "get_weather", '{"ci')
        late = base.Message("user", (base.TextInput("Hi"),))
        orphan = base.ToolOutput("call_3", "rain")
        assert text_of(await all_of(tiny, asked("The weather?", broken, orphan, late, tools=(WEATHER,)))) == HELLO


async def test_limits(url: str) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        async with model(url, max_tokens_field=field) as tiny:
            deltas = await all_of(tiny, asked("count", max_output_tokens=7))
        assert text_of(deltas).split() == [*COUNT, *COUNT[:2]]
        assert deltas[-1].reason == "max_output_tokens"
    async with model(url, stop=["four"]) as tiny:
        deltas = await all_of(tiny, asked("count"))
    assert text_of(deltas).split() == [*COUNT[:3]]


async def test_chance_follows_the_seed(url: str) -> None:
    throws: list[str] = []
    for seed in (1, 1, 2, 3, 4, 5):
        async with model(url, seed=seed, temperature=1.0) as tiny:
            throws.append(text_of(await all_of(tiny, asked("dice"))))
    assert throws[0] == throws[1]
    assert len(set(throws)) > 1


async def test_who_hangs_up_ends_the_work_of_the_server(url: str) -> None:
    """Left alone, this answer ends where the context of a slot does, at 2048 tokens."""
    async with model(url) as tiny:
        for _ in range(2):
            deltas = tiny.generate(asked("count"))
            assert isinstance(await anext(deltas), base.TextDelta)
            await deltas.aclose()
        async with asyncio.timeout(60):
            slots = _get(url, "/slots")
            while any(slot["is_processing"] for slot in slots):
                await asyncio.sleep(0.01)
                slots = _get(url, "/slots")
    assert max(slot.get("n_prompt_tokens", 0) for slot in slots) < 2000


async def test_faults(url: str) -> None:
    for wrong, code in (({"api_key": "sk-wrong"}, "engine_rejected"), ({"model": "other"}, "engine_rejected")):
        with pytest.raises(base.EngineError) as raised:
            async with model(url, **wrong):
                pass
        assert raised.value.code == code
    async with model(url, max_retries=0) as tiny:
        with pytest.raises(base.EngineError) as raised:
            await all_of(tiny, asked("Quibblefrost " * 20_000))
    assert raised.value.code == "engine_rejected"
    assert "exceed_context_size_error" in raised.value.message
    assert "Quibblefrost" not in raised.value.message


def test_the_server_is_who_it_says(url: str) -> None:
    (listed,) = _get(url, "/v1/models")["data"]
    assert (listed["id"], listed["owned_by"]) == ("tiny", "llamacpp")


def _get(url: str, path: str) -> Any:
    address = url.removesuffix("/v1") + path
    return httpx.get(address, headers={"authorization": f"Bearer {UPSTREAM_KEY}"}, trust_env=False).json()


CONFIG: Final = """
[resource]
keys = ["{key}"]

[[deployment]]
name = "{model}"
profile = "azure-2024-12-17"
language_model = "tiny"

[engine.tiny]
kind = "language_model"
type = "openai_compatible"
base_url = "{url}"
model = "tiny"
api_key_env = "TINY_KEY"
"""


async def test_a_spoken_conversation_with_a_function_call(url: str, tmp_path: Path) -> None:
    file = tmp_path / "vivavoce.toml"
    file.write_text(CONFIG.format(key=KEY, model=MODEL, url=url))
    config = load_config(file, environ={"TINY_KEY": UPSTREAM_KEY})
    async with running(config, host="127.0.0.1", port=0) as server, talking(server.port, MODEL) as talk:
        tool: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER.parameters}
        await talk.client.session.update(session={"tools": [tool]})
        await talk.one("session.updated")
        await talk.speak(_question())
        events = await talk.until("response.done")
        (call,) = events[-1].response.output
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Ulm"})
        await talk.client.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        )
        await talk.client.response.create()
        events = await talk.until("response.done")
        created = next(event for event in events if event.type == "response.created")
        done = check_response(of_response(events, created.response.id))
        assert joined(events, "response.audio_transcript.delta") == SUNNY
        assert loudness(sound_of(events)) > 0.01
        assert done.usage.output_token_details.text_tokens == 7


def _question() -> bytes:
    """Somebody asks for the weather; with silence after it, 24 kHz."""
    wav = (HERE.parent / "engines" / "data" / "what_is_the_weather.wav").read_bytes()
    return parse_wav(wav).astype("<i2").tobytes() + bytes(24_000)
