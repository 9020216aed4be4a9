"""A long mixed run with hang-ups, and a count of what it leaves behind.

    python scripts/soak.py [--minutes 10] [--sessions 20] [--seed 1]

Starts the server in this process and clients in another. Each client talks, types, calls functions, interrupts,
cancels, runs out-of-band responses, and hangs up at random moments, in the middle of speech and of responses. Every
ten seconds the server's tasks, threads, files, child processes and memory are counted. At the end, with no session
left, they must be what they were before the first one, and memory must not have grown since the second quarter of
the run. Exits 1 otherwise. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import aiohttp
import numpy as np

from vivavoce.config import Overrides, Secret, load_config
from vivavoce.demo.sound import read_wav
from vivavoce.server.app import running

KEY: Final = "soak"
QUERY: Final = "/openai/realtime?api-version=2024-10-01-preview&deployment=gpt-4o-realtime-preview"
SAMPLE_S: Final = 10.0
CHUNK_SAMPLES: Final = 480
GROWTH_MB: Final = 30.0
"""What allocators may keep: more than this between the second quarter and the end is a leak."""
TOOL: Final = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


# --------------------------------------------------------------------------------------------------- clients


class HungUp(Exception):
    """This client ends its session here, without saying goodbye."""


class Client:
    """One caller after another: each session runs a few scenarios and is cut off at a random moment."""

    def __init__(self, url: str, question: bytes, chance: random.Random, counts: Counter[str]) -> None:
        self._url = url
        self._question = question
        self._chance = chance
        self._counts = counts

    async def run(self, http: aiohttp.ClientSession, until: float) -> None:
        while time.monotonic() < until:
            socket = await http.ws_connect(self._url, headers={"api-key": KEY}, max_msg_size=0)
            patience = self._chance.uniform(0.5, 25.0)
            try:
                async with asyncio.timeout(patience):
                    await self._session(socket)
                    await socket.close()
                    self._counts["closed in order"] += 1
            except TimeoutError:
                self._counts["hung up"] += 1
                connection = socket._conn  # an orderly close is just what this must not be
                if connection is not None and connection.transport is not None:
                    connection.transport.abort()
            except HungUp:
                self._counts["closed by server"] += 1

    async def _session(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self._until(socket, "session.created")
        await self._send(
            socket,
            "session.update",
            session={"input_audio_transcription": {"model": "whisper-1"}, "tools": [TOOL]},
        )
        scenarios: list[Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]] = [
            self._talk, self._talk, self._type, self._call, self._cancel, self._interrupt, self._apart, self._spoil,
        ]  # fmt: skip
        for _ in range(self._chance.randint(1, 4)):
            scenario = self._chance.choice(scenarios)
            await scenario(socket)
            self._counts[scenario.__name__.strip("_")] += 1

    async def _talk(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        talking = asyncio.create_task(self._speak(socket))
        try:
            await self._until(socket, "response.done")
        finally:
            talking.cancel()
            await asyncio.wait([talking])

    async def _speak(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        silence = bytes(2 * CHUNK_SAMPLES * 60)
        audio = self._question + silence
        due = time.monotonic()
        for start in range(0, len(audio), 2 * CHUNK_SAMPLES):
            chunk = audio[start : start + 2 * CHUNK_SAMPLES]
            await self._send(socket, "input_audio_buffer.append", audio=base64.b64encode(chunk).decode())
            due += CHUNK_SAMPLES / 24000
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _say(self, socket: aiohttp.ClientWebSocketResponse, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self._send(socket, "conversation.item.create", item=item)

    async def _type(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self._say(socket, "How are you today?")
        await self._send(socket, "response.create")
        await self._until(socket, "response.done")

    async def _call(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self._say(socket, "What is the weather in Oslo?")
        await self._send(socket, "response.create", response={"modalities": ["text"], "tool_choice": "required"})
        call = await self._until(socket, "response.function_call_arguments.done")
        await self._until(socket, "response.done")
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "cold"}
        await self._send(socket, "conversation.item.create", item=output)
        await self._send(socket, "response.create")
        await self._until(socket, "response.done")

    async def _cancel(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self._say(socket, "Tell me about " + "rivers and mountains " * 20)
        await self._send(socket, "response.create")
        await self._until(socket, "response.audio_transcript.delta")
        await self._send(socket, "response.cancel")
        await self._until(socket, "response.done")

    async def _interrupt(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self._say(socket, "Tell me about " + "lakes and seas and " * 60)
        await self._send(socket, "response.create")
        await self._until(socket, "response.created")
        await self._talk(socket)

    async def _apart(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        for topic in range(3):
            content = [{"type": "input_text", "text": f"Topic {topic}"}]
            await self._send(
                socket,
                "response.create",
                response={
                    "conversation": "none",
                    "metadata": {"topic": str(topic)},
                    "modalities": ["text"],
                    "input": [{"type": "message", "role": "user", "content": content}],
                },
            )
        for _ in range(3):
            await self._until(socket, "response.done")

    async def _spoil(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self._send(socket, "input_audio_buffer.append", audio="not base64!")
        await self._until(socket, "error")

    async def _send(self, socket: aiohttp.ClientWebSocketResponse, kind: str, **fields: Any) -> None:
        with contextlib.suppress(ConnectionError):
            await socket.send_str(json.dumps({"type": kind, **fields}))

    async def _until(self, socket: aiohttp.ClientWebSocketResponse, kind: str) -> dict[str, Any]:
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                event: dict[str, Any] = json.loads(message.data)
                if event["type"] == "error" and kind != "error":
                    self._counts[f"error {event['error']['code']}"] += 1
                if event["type"] == kind:
                    if kind == "response.done":
                        self._counts[f"response {event['response']['status']}"] += 1
                    return event
        raise HungUp


async def clients(url: str, sessions: int, seconds: float, seed: int) -> None:
    samples = read_wav(Path(str(resources.files("vivavoce.demo") / "data" / "question.wav")))
    question = np.asarray(samples, dtype="<i2").tobytes()
    counts: Counter[str] = Counter()
    until = time.monotonic() + seconds
    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        for i in range(sessions):
            group.create_task(Client(url, question, random.Random(seed + i), counts).run(http, until))
    for name, count in sorted(counts.items()):
        print(f"  {name:28} {count}")


# ---------------------------------------------------------------------------------------------------- server


@dataclass(frozen=True)
class Count:
    """What the server's process holds."""

    tasks: int
    threads: int
    files: int
    children: int
    memory_mb: float

    @classmethod
    def now(cls) -> Count:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        memory = next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]
        threads = next(line for line in status.splitlines() if line.startswith("Threads")).split()[1]
        pid = os.getpid()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return cls(
            tasks=len(asyncio.all_tasks()),
            threads=int(threads),
            files=len(os.listdir("/proc/self/fd")),
            children=len(children),
            memory_mb=int(memory) / 1024,
        )


async def soak(minutes: float, sessions: int, seed: int) -> int:
    config = load_config(None, environ={}, overrides=Overrides(api_keys=(Secret(KEY),)))
    seconds = minutes * 60
    async with running(config, host="127.0.0.1", port=0) as server:
        before = Count.now()
        print(f"before       {before}", flush=True)
        arguments = ["--clients", f"ws://127.0.0.1:{server.port}{QUERY}", "--minutes", str(minutes)]
        arguments += ["--sessions", str(sessions), "--seed", str(seed)]
        process = await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments)
        started = time.monotonic()
        early: list[float] = []
        while process.returncode is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), SAMPLE_S)
            passed = time.monotonic() - started
            count = Count.now()
            print(f"{passed:6.0f} s     {count}, sessions={server.endpoint.open_sessions}", flush=True)
            if seconds / 4 < passed <= seconds / 2:
                early.append(count.memory_mb)
        async with asyncio.timeout(30):
            while server.endpoint.open_sessions or len(asyncio.all_tasks()) > before.tasks:
                await asyncio.sleep(0.1)
        after = Count.now()
        print(f"after        {after}")
    growth = after.memory_mb - max(early, default=after.memory_mb)
    same = (after.tasks, after.files, after.children) == (before.tasks, before.files, before.children)
    print(f"memory since the second quarter: {growth:+.1f} MB; tasks, files and children as before: {same}")
    return 0 if process.returncode == 0 and same and growth < GROWTH_MB else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.clients:
        asyncio.run(clients(given.clients, given.sessions, given.minutes * 60, given.seed))
        return 0
    import uvloop

    return uvloop.run(soak(given.minutes, given.sessions, given.seed))


if __name__ == "__main__":
    sys.exit(main())
