"""The ``openai`` client talks to a vivavoce that relays to another one, in each dialect that this may speak."""

from __future__ import annotations

import asyncio
import json
import threading
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from openai_harness import (
    AUDIO_RESPONSE,
    CALL_RESPONSE,
    KEY,
    MODEL,
    PATIENCE_S,
    Event,
    Talk,
    check_response,
    folded,
    loudness,
    of_response,
    sound_of,
    spoken_question,
    talking,
)

from vivavoce.config import Config, load_config
from vivavoce.engines.upstream_realtime import create
from vivavoce.record.proxy import RecordOptions, recording
from vivavoce.record.recording import load
from vivavoce.record.upstream import target_of
from vivavoce.server.app import running
from vivavoce.testing import conformance

UPSTREAM_KEY = "the-key-of-the-upstream"
STORY = "Once upon a time there was a king, and he had a daughter whom nobody had ever seen."

SCRIPT = f"""
[[rule]]
when = "heard me say"
call = {{ name = "look_up", arguments = {{ what = "speech" }} }}

[[rule]]
when = "story"
say = "{STORY}"
"""

UPSTREAM = f"""
[resource]
keys = ["{UPSTREAM_KEY}"]

[[deployment]]
name = "behind"
language_model = "script"

[engine.script]
kind = "language_model"
type = "scripted"
script = "script.toml"
word_delay_ms = 1
"""

FRONT = """
[resource]
keys = ["{key}"]

[[deployment]]
name = "{model}"
profile = "azure-2024-12-17"
speech_model = "relay"

[[deployment]]
name = "stingy"
profile = "azure-2024-12-17"
requests_per_minute = 1
speech_model = "relay"

[engine.relay]
kind = "speech_model"
type = "upstream_realtime"
api_key = "{upstream_key}"
{where}
"""

WHERE: dict[str, Callable[[int], str]] = {
    "preview-azure": lambda port: (
        f'endpoint = "ws://127.0.0.1:{port}"\ndeployment = "behind"\napi_version = "2025-04-01-preview"'
    ),
    "preview-openai": lambda port: f'url = "ws://127.0.0.1:{port}/v1/realtime?model=behind"\ndialect = "preview"',
    "ga-azure": lambda port: f'endpoint = "ws://127.0.0.1:{port}"\ndeployment = "behind"',
    "ga-openai": lambda port: f'url = "ws://127.0.0.1:{port}/v1/realtime"\nmodel = "behind"',
}


@asynccontextmanager
async def relaying(
    folder: Path, where: Callable[[int], str], between: Callable[[int], Awaitable[int]] | None = None
) -> AsyncIterator[int]:
    """Two servers -> the port of the one in front. ``between``: port of the one behind -> where to find it."""
    (folder / "script.toml").write_text(SCRIPT)
    (folder / "upstream.toml").write_text(UPSTREAM)
    upstream_config = load_config(folder / "upstream.toml", environ={})
    async with running(upstream_config, host="127.0.0.1", port=0) as upstream:
        port = upstream.port if between is None else await between(upstream.port)
        front = FRONT.format(key=KEY, model=MODEL, upstream_key=UPSTREAM_KEY, where=where(port))
        (folder / "front.toml").write_text(front)
        async with running(load_config(folder / "front.toml", environ={}), host="127.0.0.1", port=0) as server:
            yield server.port


@pytest.fixture(params=WHERE)
def where(request: pytest.FixtureRequest) -> Callable[[int], str]:
    return WHERE[request.param]


def without_limits(kinds: list[str]) -> list[str]:
    """They belong to no response."""
    return [kind for kind in kinds if kind != "rate_limits.updated"]


async def answered(talk: Talk) -> list[Event]:
    events = await talk.until("response.done")
    mine = of_response(events, events[-1].response.id)
    check_response(mine)
    return mine


async def test_a_spoken_conversation_with_a_tool_call(tmp_path: Path, where: Callable[[int], str]) -> None:
    """We hear when the turn ends, the server behind hears what was said: its own recogniser tells it."""
    async with relaying(tmp_path, where) as port, talking(port, MODEL) as talk:
        tool = {
            "type": "function",
            "name": "look_up",
            "description": "Looks things up.",
            "parameters": {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
        }
        await talk.client.session.update(session={"tools": [tool]})  # type: ignore[list-item]
        await talk.one("session.updated")
        await talk.speak(spoken_question())
        called = await answered(talk)
        assert folded(called) == without_limits(CALL_RESPONSE)
        (call,) = called[-1].response.output
        assert (call.name, json.loads(call.arguments)) == ("look_up", {"what": "speech"})
        output = {"type": "function_call_output", "call_id": call.call_id, "output": "It was a question."}
        await talk.client.conversation.item.create(item=output)  # type: ignore[arg-type]
        await talk.client.response.create()
        said = await answered(talk)
        assert folded(said) == without_limits(AUDIO_RESPONSE)
        (message,) = said[-1].response.output
        assert "It was a question." in message.content[0].transcript
        assert loudness(sound_of(said)) > 0.01


async def test_an_interrupted_answer_is_forgotten_as_far_as_it_was_not_heard(
    tmp_path: Path, where: Callable[[int], str]
) -> None:
    out = tmp_path / "behind.jsonl"
    async with AsyncExitStack() as stack:

        async def recorder(port: int) -> int:
            options = RecordOptions(target=target_of(f"ws://127.0.0.1:{port}"), out=out)
            return await stack.enter_async_context(recording(options, host="127.0.0.1", port=0))

        async with relaying(tmp_path, where, between=recorder) as port, talking(port, MODEL) as talk:
            await talk.say("A story, please.")
            await talk.client.response.create()
            story = (await answered(talk))[-1].response.output[0]
            assert story.content[0].transcript == STORY
            await talk.client.conversation.item.truncate(item_id=story.id, content_index=0, audio_end_ms=300)
            await talk.one("conversation.item.truncated")
            await talk.say("Now something else.")
            await talk.client.response.create()
            await answered(talk)
    # The first connection looked whether the server is there.
    frames = load(tmp_path / "behind-2.jsonl").frames
    kinds = [frame.kind for frame in frames]
    truncated = frames[kinds.index("conversation.item.truncated")].event
    assert truncated is not None
    assert truncated["audio_end_ms"] == 300
    assert kinds.count("conversation.item.delete") == kinds.count("error") == 0


async def test_our_quota_is_in_front(tmp_path: Path) -> None:
    async with relaying(tmp_path, WHERE["preview-azure"]) as port, talking(port, "stingy") as talk:
        for expected in (None, "rate_limit_exceeded"):
            await talk.client.response.create()
            done = (await talk.until("response.done"))[-1].response
            code = done.status_details.error.code if done.status_details else None
            assert code == expected


async def test_a_relayed_session_can_be_recorded(tmp_path: Path) -> None:
    async with relaying(tmp_path, WHERE["preview-azure"]) as port:
        out = tmp_path / "s.jsonl"
        options = RecordOptions(target=target_of(f"ws://127.0.0.1:{port}"), out=out)
        async with recording(options, host="127.0.0.1", port=0) as recorder, talking(recorder, MODEL) as talk:
            await talk.say("Hello.")
            await talk.client.response.create()
            await answered(talk)
    text = out.read_text()
    assert load(out).frames
    assert "response.audio.delta" in text
    assert UPSTREAM_KEY not in text


@contextmanager
def elsewhere(config: Config) -> Iterator[int]:
    """A server in a thread of its own -> its port. Its tasks are none of ours."""
    port: Future[int] = Future()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with running(config, host="127.0.0.1", port=0) as server:
            port.set_result(server.port)
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield port.result(PATIENCE_S)
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(PATIENCE_S)


def test_it_keeps_the_promises_of_its_kind(tmp_path: Path, where: Callable[[int], str]) -> None:
    (tmp_path / "upstream.toml").write_text(f"resource.keys = ['{UPSTREAM_KEY}']\n[[deployment]]\nname = 'behind'")
    with elsewhere(load_config(tmp_path / "upstream.toml", environ={})) as port:
        options = tomllib.loads(where(port))
        subject = conformance.Subject(
            kind="speech_model",
            create=create,
            options=options | {"api_key": UPSTREAM_KEY},
            bad_options={"url": "ftp://x", "dialect": "old", "max_connections": 0, "voices": {"anna": "x"}},
            unstartable=options | {"api_key": "wrong"},
            patience_s=PATIENCE_S,
        )
        for check in conformance.checks(subject):
            check()
