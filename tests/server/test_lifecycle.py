"""The ends of a session and of a server, with nothing left behind (protocol section 1.4)."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import msgspec
import pytest
import server_fixtures
from aiohttp import ClientSession, WSMsgType, WSServerHandshakeError
from server_fakes import (
    AZURE,
    BETA,
    KEY,
    NAME,
    OPENAI,
    Fakes,
    Wire,
    config,
    endless,
    eventually,
    loud,
    no_sessions,
    only,
    quiet,
    serving,
    session,
)

from vivavoce.runtime.vad_pool import VadPool
from vivavoce.server.app import Server

fakes = server_fixtures.fakes
server = server_fixtures.server


def pools(server: Server) -> list[VadPool]:
    endpoint = server.endpoint
    return [endpoint._engines(served).vad_pool for served in endpoint._deployments]


async def respond(wire: Wire, fakes: Fakes) -> None:
    fakes.model.reply = endless
    await wire.send("response.create")
    await wire.until("response.audio_transcript.delta")


async def hear(wire: Wire, fakes: Fakes) -> None:
    fakes.transcriber.open.clear()
    await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.5) + quiet(1)).decode())
    await wire.until("response.created")
    await fakes.transcriber.begun.wait()


async def listen(wire: Wire, fakes: Fakes) -> None:
    await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.5)).decode())
    await wire.until("input_audio_buffer.speech_started")
    await fakes.transcriber.begun.wait()


async def speak(wire: Wire, fakes: Fakes) -> None:
    fakes.synthesizer.seconds = 1e9
    await wire.send("response.create")
    await wire.until("response.audio.delta")


@pytest.mark.parametrize("busy", [respond, hear, listen, speak])
@pytest.mark.parametrize("politely", [True, False], ids=["close", "vanish"])
async def test_a_client_that_hangs_up_leaves_nothing(
    fakes: Fakes, server: Server, busy: Any, politely: bool
) -> None:
    tasks = asyncio.all_tasks()
    async with session(server) as wire:
        await busy(wire, fakes)
        assert len(asyncio.all_tasks()) > len(tasks)
        assert [len(pool._streams) for pool in pools(server)] == [1]
        if politely:
            await wire.socket.close()
        else:
            wire.vanish()
        await no_sessions(server)
    await only(tasks)
    await eventually(lambda: not any(pool._streams for pool in pools(server)))
    assert (fakes.model.running, fakes.synthesizer.running, fakes.transcriber.running) == (0, 0, 0)


async def test_who_hangs_up_gives_back_the_quota_that_was_set_aside(fakes: Fakes) -> None:
    settings = config()
    deployment = msgspec.structs.replace(settings.deployments[0], capacity=10)
    async with serving(msgspec.structs.replace(settings, deployments=(deployment,))) as server:
        async with session(server) as wire:
            fakes.model.reply = endless
            await wire.send("response.create")
            limits = (await wire.until("rate_limits.updated"))[-1]["rate_limits"]
            assert next(limit["remaining"] for limit in limits if limit["name"] == "tokens") < 10_000 - 4096
            wire.vanish()
            await no_sessions(server)
        quota = server.endpoint._deployments[NAME].quota
        assert next(limit.remaining for limit in quota.status() if limit.name == "tokens") > 10_000 - 500


async def test_a_session_expires(fakes: Fakes) -> None:
    async with serving(config(session_seconds=1)) as server, session(server) as wire:
        await respond(wire, fakes)
        error = (await wire.until("error"))[-1]["error"]
        assert (error["type"], error["code"]) == ("invalid_request_error", "session_expired")
        assert error["message"].startswith("Your session hit the maximum duration of ")
        close = await wire.socket.receive()
        assert (close.type, close.data, close.extra) == (WSMsgType.CLOSE, 1001, error["message"])
        await no_sessions(server)


async def test_going_down(fakes: Fakes) -> None:
    tasks = asyncio.all_tasks()
    async with ClientSession() as client, serving(config()) as server:
        urls = [f"http://127.0.0.1:{server.port}{path}" for path in (AZURE, OPENAI)]
        async with session(server) as busy, session(server) as idle:
            await respond(busy, fakes)
            draining = asyncio.create_task(server.endpoint.drain(30))
            for wire in (busy, idle):
                assert await wire.closed() == 1001
            await draining
        assert server.endpoint.open_sessions == 0
        async with client.get(f"http://127.0.0.1:{server.port}/readyz") as answer:
            assert (answer.status, await answer.json()) == (503, {"status": "draining", "sessions": 0})
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect(urls[0], headers={"api-key": KEY})
        assert refused.value.status == 429
        async with client.ws_connect(urls[1], headers={**BETA, "Authorization": f"Bearer {KEY}"}) as socket:
            assert (await Wire(socket).next())["error"]["code"] == "server_busy"
    await only(tasks)


async def readiness(server: Server) -> tuple[int, Any]:
    async with ClientSession() as client, client.get(f"http://127.0.0.1:{server.port}/readyz") as answer:
        return answer.status, await answer.json()


async def test_not_ready_while_an_engine_cannot_work(fakes: Fakes, server: Server) -> None:
    ready = {"status": "ready", "sessions": 0}
    assert await readiness(server) == (200, ready)
    fakes.synthesizer.working = False
    assert await readiness(server) == (503, ready | {"status": "failing", "failing": ["synthesizer fake"]})
    fakes.synthesizer.working = True
    assert await readiness(server) == (200, ready)


async def test_not_ready_when_the_vad_pool_broke(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: VadPool) -> Any:
        raise RuntimeError("a bug")

    async def break_it() -> None:
        async with serving(config()) as server:
            async with session(server) as wire:
                monkeypatch.setattr(VadPool, "_gather", broken)
                await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.1)).decode())
                assert (await wire.until("error"))[-1]["error"]["type"] == "server_error"
            await no_sessions(server)
            failing = {"status": "failing", "sessions": 0, "failing": ["vad pool"]}
            assert await readiness(server) == (503, failing)
            # What is wrong with it does not matter to whoever stops it.
            await server.endpoint.drain(1)
            assert await readiness(server) == (503, failing | {"status": "draining"})

    with pytest.raises(RuntimeError, match="a bug"):
        await break_it()


async def test_leaving_the_server_ends_its_sessions(fakes: Fakes) -> None:
    tasks = asyncio.all_tasks()
    async with asyncio.TaskGroup() as group:
        async with serving(config()) as server:
            talk = session(server)
            wire = await talk.__aenter__()
            await respond(wire, fakes)
            closing = group.create_task(wire.closed())
        assert await closing == 1001
        await talk.__aexit__(None, None, None)
    await only(tasks)


async def test_pings_are_sent_and_answered_ones_keep_the_session(fakes: Fakes) -> None:
    async with serving(config(ping_interval_s=0.2)) as server, session(server, autoping=False) as wire:
        for _ in range(2):
            ping = await wire.socket.receive()
            assert (ping.type, len(ping.data)) == (WSMsgType.PING, 4)
            await wire.socket.pong(ping.data)
        await wire.socket.ping(b"mine")
        while (answer := await wire.socket.receive()).type is WSMsgType.PING:
            await wire.socket.pong(answer.data)
        assert (answer.type, answer.data) == (WSMsgType.PONG, b"mine")


async def test_a_peer_that_answers_no_ping_is_dropped(fakes: Fakes) -> None:
    tasks = asyncio.all_tasks()
    async with serving(config(ping_interval_s=0.2)) as server, session(server, autoping=False) as wire:
        await respond(wire, fakes)
        message = await wire.socket.receive()
        assert message.type is WSMsgType.PING
        message = await wire.socket.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 1011, "keepalive ping timeout")
        await no_sessions(server)
    await only(tasks)
