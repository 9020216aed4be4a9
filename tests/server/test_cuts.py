"""A session that is cut after any of its frames leaves nothing behind: no task, no file, no decoder, no quota."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from raw_socket import RawSocket, event, raw_socket
from server_fakes import NAME, Fakes, config, eventually, loud, no_sessions, only, quiet, serving

from vivavoce.engines.registry import Registry
from vivavoce.server.app import Server

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts files in /proc"),
]

FRAMES = 22
"""Server frames of one spoken turn and its spoken answer, from the first after ``session.updated``."""
CAPACITY = 100
"""Thousands of tokens per minute; refilling adds less than one in the time of a test."""


@pytest.fixture(scope="module")
def fakes() -> Fakes:
    fakes = Fakes()
    fakes.synthesizer.seconds = 0.5
    return fakes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(fakes: Fakes) -> AsyncIterator[Server]:
    settings = config()
    deployment = msgspec.structs.replace(settings.deployments[0], capacity=CAPACITY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "installed", lambda: fakes)
        async with serving(msgspec.structs.replace(settings, deployments=(deployment,))) as server:
            yield server


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def tokens_left(server: Server) -> int:
    quota = server.endpoint._deployments[NAME].quota
    return next(limit.remaining for limit in quota.status() if limit.name == "tokens")


async def talk(client: RawSocket, frames: int) -> list[str]:
    """A spoken turn with transcription and its answer, up to so many server frames -> their types."""
    client.write(event("session.update", session={"input_audio_transcription": {"model": "whisper-1"}}))
    await client.until("session.updated")
    client.write(event("input_audio_buffer.append", audio=base64.b64encode(loud(0.5) + quiet(1)).decode()))
    return [(await client.event())["type"] for _ in range(frames)]


async def test_the_turn_that_is_cut(server: Server) -> None:
    """What the numbers below stand for."""
    async with raw_socket(server) as client:
        kinds = await talk(client, FRAMES)
    assert kinds[0] == "input_audio_buffer.speech_started"
    assert kinds[-1] == "response.done"
    assert kinds.count("response.audio.delta") >= 5
    assert "conversation.item.input_audio_transcription.completed" in kinds
    await no_sessions(server)


@pytest.mark.parametrize("how", ["reset", "finish", "half"])
@pytest.mark.parametrize("frames", range(FRAMES + 1))
async def test_a_session_cut_after_a_frame(server: Server, fakes: Fakes, frames: int, how: str) -> None:
    gc.collect()
    tasks, files, tokens = asyncio.all_tasks(), open_files(), tokens_left(server)
    async with raw_socket(server) as client:
        kinds = await talk(client, frames)
        match how:
            case "reset":
                client.reset()
            case "finish":
                client.finish()
            case "half":
                # We say no more, but still listen.
                client.writer.write_eof()
                with suppress(asyncio.IncompleteReadError):
                    while True:
                        await client.read()
        await no_sessions(server)
    await only(tasks)
    await eventually(lambda: open_files() == files)
    engines = server.endpoint._engines(server.endpoint._deployments[NAME])
    await eventually(lambda: not engines.vad_pool._streams)
    assert (fakes.model.running, fakes.synthesizer.running, fakes.transcriber.running) == (0, 0, 0)
    # An answer that was not finished costs what was made of it, not what was set aside for it.
    assert tokens - tokens_left(server) < 500
    assert len(kinds) == frames
