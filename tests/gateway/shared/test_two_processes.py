"""Two processes that share Redis, and want more than twice their quota: five minutes of a given clock."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from quota_process import ESTIMATE, TOKENS_PER_MINUTE
from redis_server import redis_server

PROGRAM: Final = Path(__file__).with_name("quota_process.py")
MINUTES: Final = 5
PATIENCE_S: Final = 120.0

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no Redis to start")


async def start(url: str, seed: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *(str(PROGRAM), url, str(seed)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def step(process: asyncio.subprocess.Process, second: int) -> dict[str, Any]:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{second}\n".encode())
    line = await process.stdout.readline()
    assert line, "the process has ended"
    told: dict[str, Any] = json.loads(line)
    assert told["losses"] == 0
    return told


async def test_together_they_get_their_quota_and_no_more() -> None:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis:
        processes = await asyncio.gather(*(start(redis.url, seed) for seed in (1, 2)))
        try:
            async with asyncio.timeout(PATIENCE_S):
                told: list[dict[str, Any]] = []
                used: dict[int, int] = {}
                for second in range(60 + MINUTES * 60 + 1):
                    told = await asyncio.gather(*(step(process, second) for process in processes))
                    used[second] = sum(one["used"] for one in told)
        finally:
            for process in processes:
                process.kill()
                await process.communicate()
    # What a minute leaves over is used up in the first one; from there on it is what drains.
    steady = used[60 + MINUTES * 60] - used[60]
    assert steady == pytest.approx(MINUTES * TOKENS_PER_MINUTE, rel=0.02)
    # And in all of the time never more than what has drained, and one minute, and what was still estimated.
    for second, tokens in used.items():
        assert tokens <= TOKENS_PER_MINUTE * (1 + second / 60) + 20 * ESTIMATE
    assert all(one["refused"] > 300 for one in told)
    assert all(one["used"] > TOKENS_PER_MINUTE for one in told)
