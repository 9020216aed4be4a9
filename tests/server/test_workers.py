"""Many workers behind one port, as processes: who gets connections, and what happens when one of them goes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import pytest
import server_fixtures
from server_fakes import KEY, Fakes, config, rest

from vivavoce.gateway.shared.memory import MemoryState
from vivavoce.server.supervisor import CONNECTION, RELIEVE, Load
from vivavoce.server.worker import work

PROGRAM: Final = Path(__file__).with_name("supervised_program.py")
PATIENCE_S: Final = 30.0
"""When a test hangs, not when it is slow."""
AZURE: Final = "/openai/realtime?api-version=2024-10-01-preview&deployment=gpt-4o-realtime-preview"

SECRETS: Final = "/v1/realtime/client_secrets"

fakes = server_fixtures.fakes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers are forked")


class Fleet:
    """The program, what it says, and connections to it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout
        assert process.stderr
        self.process = process
        self._said = process.stdout
        self._logged = process.stderr
        self.port = 0
        self._open: list[asyncio.StreamWriter] = []

    async def said(self) -> str:
        async with asyncio.timeout(PATIENCE_S):
            return (await self._said.readline()).decode().strip()

    async def logged(self, pattern: str) -> re.Match[str]:
        """The next line of the log that fits."""
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self._logged.readline()).decode():
                if found := re.search(pattern, line):
                    return found
        raise AssertionError(f"the log ended before {pattern!r}")

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def connect(self) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection, and the worker that has it."""
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            self._open.append(writer)
            return int(await reader.readline()), reader, writer

    def hang_up(self) -> None:
        for writer in self._open:
            writer.close()


@asynccontextmanager
async def fleet(*arguments: str) -> AsyncIterator[Fleet]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    made = Fleet(process)
    try:
        made.port = int(await made.said())
        yield made
    finally:
        made.hang_up()
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_connections_spread_evenly_and_stay_so() -> None:
    async with fleet("3") as workers:
        assert await workers.said() == "ready"
        held = [await workers.connect() for _ in range(12)]
        share = Counter(pid for pid, _, _ in held)
        assert sorted(share.values()) == [4, 4, 4]
        # One of them loses its connections: the next ones are for it.
        idle = held[0][0]
        for pid, _, writer in held:
            if pid == idle:
                writer.close()
                await writer.wait_closed()
        again = set()
        while idle not in again:
            again.add((await workers.connect())[0])
        workers.process.terminate()
        assert await workers.ended() == 0


async def test_a_dead_worker_is_replaced_and_the_others_go_on() -> None:
    async with fleet("2") as workers:
        assert await workers.said() == "ready"
        first, reader, _ = await workers.connect()
        other, other_reader, _ = await workers.connect()
        assert first != other
        os.kill(first, signal.SIGKILL)
        assert await reader.read() == b""
        await workers.logged(rf"worker {first} ended with -9")
        new = int((await workers.logged(r"worker (\d+) is ready"))[1])
        assert {(await workers.connect())[0] for _ in range(4)} == {other, new}
        assert not other_reader.at_eof()


async def test_hangup_replaces_all_and_lets_connections_finish() -> None:
    async with fleet("2") as workers:
        assert await workers.said() == "ready"
        held = [await workers.connect() for _ in range(2)]
        old = {pid for pid, _, _ in held}
        for _ in range(2):
            await workers.logged(r"is ready")
        workers.process.send_signal(signal.SIGHUP)
        await workers.logged("replaced, one by one")
        new = {int((await workers.logged(r"worker (\d+) is ready"))[1]) for _ in range(2)}
        assert not new & old
        assert {(await workers.connect())[0] for _ in range(4)} == new
        for _, reader, writer in held:
            assert not reader.at_eof()
            writer.close()
            assert await reader.read() == b""
        workers.process.terminate()
        assert await workers.ended() == 0


async def test_who_serves_goes_after_those_that_are_still_starting() -> None:
    async with fleet("1", "stuck") as workers:
        assert await workers.said() == "ready"
        serving, _, _ = await workers.connect()
        for _ in range(2):
            workers.process.send_signal(signal.SIGHUP)
            await workers.logged("replaced, one by one")
        gone = int((await workers.logged(r"worker (\d+) ended in order"))[1])
        assert gone != serving
        assert (await workers.connect())[0] == serving
        # One has not started yet, and that is no reason to fail.
        workers.process.terminate()
        assert await workers.ended() == 0


async def test_a_connection_without_room_waits_and_is_not_asked_for_all_the_time() -> None:
    async with fleet("1", "full") as workers:
        assert await workers.said() == "ready"
        waiting = asyncio.create_task(workers.connect())
        complaints = 0
        while (await workers.logged("could not be accepted|replaced, one by one"))[0].startswith("could"):
            complaints += 1
            workers.process.send_signal(signal.SIGHUP)
        # Whoever asks all the time writes thousands before the signal is there.
        assert complaints < 10
        await waiting
        workers.process.terminate()
        assert await workers.ended() == 0


async def test_a_fork_that_fails_is_tried_again() -> None:
    async with fleet("1", "poor") as workers:
        await workers.logged("could not be started: Resource temporarily unavailable")
        assert await workers.said() == "ready"
        workers.process.terminate()
        assert await workers.ended() == 0


async def test_a_signal_at_birth_is_not_lost() -> None:
    async with fleet("1", "early") as workers:
        await workers.logged(r"worker \d+ ended with -15")
        assert await workers.ended() == 1


async def test_a_worker_that_cannot_start_ends_it_all_with_its_code() -> None:
    async with fleet("2", "fail") as workers:
        assert await workers.ended() == 7


async def test_a_worker_that_says_nothing_is_killed() -> None:
    async with fleet("1", "mute") as workers:
        assert await workers.said() == "ready"
        stuck = (await workers.logged(r"worker (\d+) says nothing any more"))[1]
        await workers.logged(rf"worker {stuck} ended with -9")
        await workers.logged(r"worker \d+ is ready")


async def test_a_worker_that_does_not_get_ready_is_killed() -> None:
    async with fleet("1", "slow") as workers:
        await workers.logged(r"worker \d+ does not get ready")
        assert await workers.ended() == 1


async def test_workers_end_with_their_supervisor() -> None:
    async with fleet("2") as workers:
        assert await workers.said() == "ready"
        _, reader, _ = await workers.connect()
        workers.process.kill()
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""


async def test_the_second_signal_ends_it_at_once() -> None:
    async with fleet("1") as workers:
        assert await workers.said() == "ready"
        pid, _, _ = await workers.connect()
        os.kill(pid, signal.SIGSTOP)
        workers.process.terminate()
        workers.process.terminate()
        assert await workers.ended() == 1


async def test_a_host_is_replaced_and_goes_after_its_workers() -> None:
    async with fleet("1", "host") as workers:
        assert await workers.said() == "ready"
        first = int((await workers.logged(r"host (\d+) is ready"))[1])
        os.kill(first, signal.SIGKILL)
        await workers.logged(rf"host {first} ended with -9")
        second = int((await workers.logged(r"host (\d+) is ready"))[1])
        _, reader, writer = await workers.connect()
        workers.process.send_signal(signal.SIGHUP)
        await workers.logged("replaced, one by one")
        new = [await workers.logged(r"(host|worker) (\d+) is ready") for _ in range(2)]
        [third] = [int(found[2]) for found in new if found[1] == "host"]
        # The old worker still has its connection, and therefore its host.
        assert len({first, second, third}) == 3
        os.kill(second, signal.SIGKILL)
        await workers.logged(rf"host {second} ended with -9")
        second = int((await workers.logged(r"host (\d+) is ready"))[1])
        assert not reader.at_eof()
        writer.close()
        await reader.read()
        await workers.logged(rf"host {second} ended in order")
        workers.process.terminate()
        assert await workers.ended() == 0


async def test_the_real_server_with_two_workers(tmp_path: Path) -> None:
    """Sessions in both, one quota and the same client secrets for both, and an end in order."""
    config = tmp_path / "vivavoce.toml"
    config.write_text(
        '[server]\nport = 0\nworkers = 2\n[resource]\nkeys = ["k"]\n'
        '[[deployment]]\nname = "gpt-4o-realtime-preview"\nrequests_per_minute = 3\n'
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "vivavoce", "serve", "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as http:
            ready = (await process.stdout.readline()).decode()
            [port] = re.findall(r"ws://127\.0\.0\.1:(\d+)/openai", ready)
            url = f"http://127.0.0.1:{port}{AZURE}"
            browsers: list[aiohttp.ClientWebSocketResponse] = []
            sockets = [await http.ws_connect(url, headers={"api-key": "k"}) for _ in range(2)]
            left = [await _requests_left(socket) for socket in (*sockets, *sockets)]
            assert left == [2, 1, 0, 0]
            # What one of them has minted, both know: who has the fewest connections gets the next.
            async with http.post(f"http://127.0.0.1:{port}{SECRETS}", json={}, headers={"api-key": "k"}) as answer:
                secret = {"api-key": (await answer.json())["value"]}
            for _ in range(4):
                browser = await http.ws_connect(f"http://127.0.0.1:{port}/v1/realtime", headers=secret)
                assert (await browser.receive_json())["type"] == "session.created"
                browsers.append(browser)
            for browser in browsers:
                await browser.close()
            process.terminate()
            for socket in sockets:
                while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
                assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_handshake_that_has_begun_outlives_the_relief_of_its_worker(fakes: Fakes, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, ours:
        async with asyncio.timeout(PATIENCE_S):
            working = asyncio.create_task(work(config(), theirs, MemoryState(), tmp_path / "no host"))
            assert await loop.sock_recv(ours, 100) == Load(0, 0).pack()
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(f"GET {AZURE} HTTP/1.1\r\nHost: h\r\napi-key: {KEY}\r\n".encode())
            with listener.accept()[0] as accepted:
                socket.send_fds(ours, [CONNECTION], [accepted.fileno()])
            ours.send(RELIEVE)
            await rest()
            writer.write(
                b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert await reader.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
            assert not working.done()
            writer.close()
            assert await working == 0


async def _requests_left(socket: aiohttp.ClientWebSocketResponse) -> int:
    """Have a response, and be told how many the quota still allows."""
    await socket.send_json({"type": "response.create", "response": {"modalities": ["text"]}})
    left = -1
    while True:
        event = await socket.receive_json()
        if event["type"] == "rate_limits.updated":
            left = event["rate_limits"][0]["remaining"]
        if event["type"] == "response.done":
            return left
