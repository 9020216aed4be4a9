"""The upstream process is killed while it answers: what the client sees, and how it goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from scripted_upstream import UPSTREAM_KEY, relaying
from server_fakes import PATIENCE_S, Wire, session

SCRIPT = """
[[rule]]
when = "story"
steps = [{ say = "Once upon a time there was a king. He" }, { wait_ms = 600000 }]

[[rule]]
when = "then"
say = "They lived happily ever after."
"""

CONFIG = """
[server]
port = {port}

[resource]
keys = ["{key}"]

[[deployment]]
name = "m"
language_model = "script"

[engine.script]
kind = "language_model"
type = "scripted"
script = "script.toml"
"""


@asynccontextmanager
async def upstream(folder: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    (folder / "script.toml").write_text(SCRIPT)
    (folder / "c.toml").write_text(CONFIG.format(port=port, key=UPSTREAM_KEY))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vivavoce", "serve", "--config", str(folder / "c.toml")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert b"ready" in await process.stdout.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ask(wire: Wire, text: str) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await wire.send("conversation.item.create", item=item)
    await wire.send("response.create")


async def test_a_killed_upstream_fails_its_response_and_the_next_one_tells_it_all(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    async with relaying(unused_tcp_port) as (server, _), session(server) as wire:
        async with upstream(tmp_path, unused_tcp_port) as process:
            await ask(wire, "A story.")
            await wire.until("response.audio.delta")
            process.kill()
            failed = (await wire.until("response.done"))[-1]["response"]
            assert (failed["status"], failed["status_details"]["error"]["code"]) == ("failed", "upstream_lost")
            assert failed["output"][0]["content"][0]["transcript"].startswith("Once upon")
            await process.wait()
        await ask(wire, "Hello?")
        failed = (await wire.until("response.done"))[-1]["response"]
        assert failed["status_details"]["error"]["code"] == "upstream_unreachable"
        async with upstream(tmp_path, unused_tcp_port):
            await ask(wire, "And then?")
            done = (await wire.until("response.done"))[-1]["response"]
            assert done["output"][0]["content"][0]["transcript"] == "They lived happily ever after."
