"""When a server says that it is ready: not before its engines have started, and not while one cannot work."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import server_fixtures
from aiohttp import ClientSession
from server_fakes import KEY, PATIENCE_S, Fakes, config, rest
from test_serve_process import PROC

from vivavoce.server.app import running

fakes = server_fixtures.fakes


async def test_nobody_is_let_in_before_the_engines_are_warm(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    loading, loaded = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        loading.set()
        await loaded.wait()

    monkeypatch.setattr(fakes.model, "start", start)

    async def serve() -> int:
        url = f"http://127.0.0.1:{port}/readyz"
        async with running(config(), port=port), ClientSession() as client, client.get(url) as answer:
            return answer.status

    serving = asyncio.create_task(serve())
    async with asyncio.timeout(PATIENCE_S):
        await loading.wait()
        await rest()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        loaded.set()
        assert await serving == 200


def host_of(module: str, supervisor: int) -> int:
    """The process below ``supervisor`` whose child runs a module."""
    for entry in PROC.glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            grandparent = int((PROC / str(parent) / "stat").read_text().rpartition(")")[2].split()[1])
            runs = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if module.encode() in runs and grandparent == supervisor:
            return parent
    raise AssertionError(f"nothing runs {module}")


@asynccontextmanager
async def two_workers() -> AsyncIterator[tuple[int, str]]:
    """A real server: the process id of its supervisor, and where it is."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vivavoce", "serve", "--port", "0", "--workers", "2", "--api-key", KEY),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            ready = re.search(rb"127\.0\.0\.1:\d+", await process.stdout.readline())
        assert ready is not None
        yield process.pid, f"http://{ready[0].decode()}"
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0


@pytest.mark.skipif(not (PROC / "self/stat").exists(), reason="looks for processes in /proc")
async def test_workers_are_not_ready_while_the_engine_that_they_share_is_gone() -> None:
    """And are again when it is back, by itself."""

    async def readiness() -> tuple[int, Any]:
        async with client.get(f"{url}/readyz") as answer:
            return answer.status, await answer.json()

    async with two_workers() as (supervisor, url), ClientSession() as client:
        assert (await readiness())[0] == 200
        os.kill(host_of("pocketsphinx_worker", supervisor), signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_S):
            while (told := await readiness())[0] == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            assert told == (503, {"status": "failing", "sessions": 0, "failing": ["transcriber pocketsphinx"]})
            while (await readiness())[0] != 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
