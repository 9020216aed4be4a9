"""A spoken conversation with a function call, by the ``openai`` client, through three engines behind HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from aiohttp import web
from openai_fake import DONE, Asked, Fake, Stream, calls, chunk, error, says
from openai_fake import KEY as UPSTREAM_KEY
from openai_fake import MODEL as UPSTREAM_MODEL
from openai_harness import KEY, MODEL, check_response, joined, kinds, of_response, sound_of, talking

from vivavoce.config import load_config
from vivavoce.server.app import Server, running

pytest_plugins = ["openai_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

NATIVE: Final = "one-that-speaks"
CONFIG: Final = """
[resource]
keys = ["{key}"]

[[deployment]]
name = "{model}"
profile = "azure-2024-12-17"
transcriber = "far_ear"
language_model = "far_mind"
synthesizer = "far_voice"

[[deployment]]
name = "{native}"
profile = "azure-2024-12-17"
speech_model = "far_speaker"
"""
ENGINE: Final = """
[engine.{name}]
kind = "{kind}"
type = "openai_compatible"
base_url = "{url}"
model = "{model}"
api_key_env = "UPSTREAM_KEY"
check = "fail"
warm_up = true
max_retries = 1
"""
TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
SOUND: Final = b"\x00\x10\x00\xf0" * 12_000
"""A second of a tone at 24 kHz."""
USAGE: Final = {
    "prompt_tokens": 321,
    "completion_tokens": 17,
    "total_tokens": 338,
    "prompt_tokens_details": {"cached_tokens": 128},
}


SPOKEN_USAGE: Final = {
    "prompt_tokens": 90,
    "completion_tokens": 30,
    "total_tokens": 120,
    "prompt_tokens_details": {"audio_tokens": 40, "cached_tokens": 0},
    "completion_tokens_details": {"audio_tokens": 25},
}


def coded(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


def answer(asked: Asked) -> Any:
    if asked.path == "audio/transcriptions":
        return web.json_response({"text": "What is the weather in Ulm?"})
    if asked.path == "audio/speech":
        return Stream([SOUND[:1111], SOUND[1111:]], "audio/pcm")
    last = asked.body["messages"][-1]
    if last["role"] == "tool":
        return says("It is ", "sunny ", "in Ulm.", usage=USAGE)
    if "audio" in asked.body.get("modalities", ()):
        spoken = [{"transcript": "Good"}, {"data": coded(SOUND[:999])}, {"transcript": " day."}]
        pieces = [chunk({"audio": part}) for part in (*spoken, {"data": coded(SOUND[999:])})]
        return Stream([*pieces, chunk({}, "stop"), chunk(usage=SPOKEN_USAGE), DONE])
    if "tools" in asked.body:
        return calls("get_weather", '{"city"', ': "Ulm"}')
    return says("Hello.")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def upstream() -> AsyncIterator[Fake]:
    async with Fake(always=answer).serving() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(upstream: Fake, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder: Path = tmp_path_factory.mktemp("server")
    engines = {"far_ear": "transcriber", "far_mind": "language_model", "far_voice": "synthesizer"}
    engines["far_speaker"] = "speech_model"
    tables = [
        ENGINE.format(name=name, kind=kind, url=upstream.url, model=UPSTREAM_MODEL)
        for name, kind in engines.items()
    ]
    (folder / "vivavoce.toml").write_text(CONFIG.format(key=KEY, model=MODEL, native=NATIVE) + "".join(tables))
    config = load_config(folder / "vivavoce.toml", environ={"UPSTREAM_KEY": UPSTREAM_KEY})
    async with running(config, host="127.0.0.1", port=0) as server:
        yield server


async def test_a_spoken_question_a_function_call_and_a_spoken_answer(
    server: Server, upstream: Fake, question: bytes
) -> None:
    async with talking(server.port, MODEL) as talk:
        transcription: Any = {"model": "whisper-1", "language": "en"}
        await talk.client.session.update(
            session={"tools": [TOOL], "input_audio_transcription": transcription, "temperature": 0.6}  # type: ignore[list-item]  # the client's own type of a tool
        )
        await talk.one("session.updated")
        upstream.asked.clear()
        await talk.speak(question)
        events = await talk.until("response.done", "conversation.item.input_audio_transcription.completed")
        completed = next(event for event in events if event.type.endswith("transcription.completed"))
        assert completed.transcript == "What is the weather in Ulm?"
        created = next(event for event in events if event.type == "response.created")
        done = check_response(of_response(events, created.response.id))
        (call,) = done.output
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Ulm"})

        await talk.client.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "clear"}'}
        )
        await talk.client.response.create()
        events = await talk.until("response.done")
        created = next(event for event in events if event.type == "response.created")
        done = check_response(of_response(events, created.response.id))
        assert joined(events, "response.audio_transcript.delta") == "It is sunny in Ulm."
        assert sound_of(events) == SOUND
        # What the model says that it used, and the speech, which is counted here.
        used = done.usage
        assert (used.input_tokens, used.input_token_details.cached_tokens) == (321, 128)
        assert (used.output_token_details.text_tokens, used.output_token_details.audio_tokens) == (17, 20)

    heard, asked_first, asked_again, spoken = upstream.asked
    assert [one.path for one in upstream.asked] == [
        "audio/transcriptions", "chat/completions", "chat/completions", "audio/speech",
    ]  # fmt: skip
    assert heard.body["language"] == "en"
    assert asked_first.body["temperature"] == 0.6
    assert asked_first.body["messages"][-1] == {"role": "user", "content": "What is the weather in Ulm?"}
    _, _, called, told = asked_again.body["messages"]
    assert told == {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": '{"sky": "clear"}'}
    assert spoken.body["input"] == "It is sunny in Ulm."
    assert upstream.refused == []


async def test_an_upstream_that_refuses_fails_the_response_and_no_more(server: Server, upstream: Fake) -> None:
    async with talking(server.port, MODEL) as talk:
        await talk.say("Hi.")
        upstream.answers.append(error(400, "context_length_exceeded", message="You said: Hi."))
        await talk.client.response.create()
        done = (await talk.until("response.done"))[-1].response
        assert done.status == "failed"
        assert done.status_details.error.code == "engine_rejected"
        assert "You said" not in done.status_details.to_json()
        await talk.client.response.create()
        assert (await talk.until("response.done"))[-1].response.status == "completed"
        assert "error" not in kinds(talk.events)


async def test_a_model_that_hears_and_speaks(server: Server, upstream: Fake, question: bytes) -> None:
    async with talking(server.port, NATIVE) as talk:
        upstream.asked.clear()
        await talk.speak(question)
        events = await talk.until("response.done")
        created = next(event for event in events if event.type == "response.created")
        used = check_response(of_response(events, created.response.id)).usage
        assert joined(events, "response.audio_transcript.delta") == "Good day."
        assert sound_of(events) == SOUND
        assert (used.input_token_details.text_tokens, used.input_token_details.audio_tokens) == (50, 40)
        assert (used.output_token_details.text_tokens, used.output_token_details.audio_tokens) == (5, 25)
    (asked,) = upstream.asked
    (heard,) = asked.body["messages"][-1]["content"]
    assert heard["type"] == "input_audio"
    wav = base64.b64decode(heard["input_audio"]["data"])
    assert len(wav) > 24_000
    assert upstream.refused == []


async def test_a_client_that_cancels_ends_the_work_upstream(server: Server, upstream: Fake) -> None:
    async with talking(server.port, MODEL) as talk:
        await talk.say("Tell me a story.")
        upstream.gone.clear()
        upstream.answers.append(Stream([chunk({"content": "Once upon a time"}), asyncio.Event()]))
        await talk.client.response.create()
        await talk.until("response.audio_transcript.delta")
        assert not upstream.gone.is_set()
        await talk.client.response.cancel()
        assert (await talk.until("response.done"))[-1].response.status == "cancelled"
        async with asyncio.timeout(20):
            await upstream.gone.wait()


async def test_a_server_that_is_busy_for_a_moment_is_not_noticed(server: Server, upstream: Fake) -> None:
    async with talking(server.port, MODEL) as talk:
        await talk.say("Hi.")
        upstream.answers.append(error(429, "rate_limit_exceeded", headers={"retry-after-ms": "1"}))
        await talk.client.response.create()
        assert (await talk.until("response.done"))[-1].response.status == "completed"
