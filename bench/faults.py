"""What clients see when a process dies or hangs in the middle of its work, and how a shared engine is divided.

``kill``: the real server with the built-in engines and two workers; callers ask all the time, by voice and by
text, while one process after another is frozen for a moment, so that it holds work, and killed with SIGKILL; or
frozen for good, which is a hang. ``fairness``: sessions that share one recogniser, of which one asks for far more
than its part.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np

from bench.report import Figures

CALLERS: Final = 8
_STEADY_S: Final = 6.0
_WATCHED_S: Final = 15.0
_FROZEN_S: Final = 0.3
_PATIENCE_S: Final = 120.0
_HUNG_AFTER_S: Final = 4
_KEY: Final = "bench"
_PATH: Final = "/openai/realtime?api-version=2025-04-01-preview&deployment=bench"
_CONFIG: Final = f"""
[[deployment]]
name = "bench"
capacity = 1000000
synthesizer = "voice"
transcriber = "ear"
[engine.voice]
kind = "synthesizer"
type = "espeak"
job_timeout_s = {_HUNG_AFTER_S}
[engine.ear]
kind = "transcriber"
type = "pocketsphinx"
workers = 1
job_timeout_s = {_HUNG_AFTER_S}
"""
LONG: Final = 'Say "' + "This is one more sentence of a long answer, and so it goes on. " * 4 + '"'


@dataclass(frozen=True)
class Outcome:
    caller: int
    began: float
    ended: float
    what: str
    """``completed``, the code of a failure, or how the connection ended."""


def kill() -> Figures:
    """Every kind of process in turn; see the head of this file."""
    return asyncio.run(_kill())


async def _kill() -> Figures:
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.toml"
        file.write_text(_CONFIG)
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vivavoce", "serve", "--config", str(file), "--port", "0"),
            *("--workers", "2", "--api-key", _KEY, "--log-level", "error"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            assert server.stdout is not None
            ready = re.search(rb"127\.0\.0\.1:(\d+)", await server.stdout.readline())
            assert ready is not None
            async with aiohttp.ClientSession(f"http://127.0.0.1:{int(ready[1])}") as http:
                outcomes: list[Outcome] = []
                callers = [asyncio.create_task(_call(http, outcomes, n)) for n in range(CALLERS)]
                try:
                    await asyncio.sleep(_STEADY_S)
                    for name, freeze_only in (
                        ("synthesiser", False),
                        ("recogniser", False),
                        ("synthesiser", True),
                        ("recogniser", True),
                        ("host", False),
                        ("server worker", False),
                    ):
                        label = f"{name} {'hung' if freeze_only else 'killed'}"
                        figures |= await _strike(server.pid, name, label, outcomes, freeze_only=freeze_only)
                finally:
                    for caller in callers:
                        caller.cancel()
                    await asyncio.wait(callers)
        finally:
            server.terminate()
            await server.wait()
    return figures


async def _strike(supervisor: int, name: str, label: str, outcomes: list[Outcome], *, freeze_only: bool) -> Figures:
    while (pid := _processes(supervisor).get(name)) is None:  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    struck = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    if not freeze_only:
        await asyncio.sleep(_FROZEN_S)
        struck = time.monotonic()
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(_WATCHED_S)
    after = [one for one in outcomes if one.ended > struck]
    failed = [one for one in after if one.what != "completed"]
    last = max((one.ended for one in failed), default=struck)
    again = [await _answered(outcomes, caller, last) for caller in {one.caller for one in failed}]
    figures = {
        f"{label}: last failure after s": round(last - struck, 2),
        f"{label}: all who failed were answered again after s": round(max(again, default=struck) - struck, 2),
        f"{label}: completed": len(after) - len(failed),
    }
    for what, count in sorted(Counter(one.what for one in failed).items()):
        figures[f"{label}: failed with {what}"] = count
    return figures


async def _answered(outcomes: list[Outcome], caller: int, since: float) -> float:
    """When a caller was answered again; waits for it."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            for one in outcomes:
                if one.caller == caller and one.what == "completed" and one.ended > since:
                    return one.ended
            await asyncio.sleep(0.1)


def _processes(supervisor: int) -> dict[str, int]:
    """One process of each kind, by what it runs and whose child it is."""
    parents: dict[int, int] = {}
    runs: dict[int, bytes] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            runs[int(entry.name)] = (entry / "cmdline").read_bytes()
    ours = [pid for pid, parent in parents.items() if parent == supervisor]
    below = {pid: parent for pid, parent in parents.items() if parent in ours}
    found: dict[str, int] = {}
    for pid, parent in below.items():
        if b"pocketsphinx_worker" in runs[pid]:
            found |= {"recogniser": pid, "host": parent}
        elif b"espeak_worker" in runs[pid]:
            found |= {"synthesiser": pid, "server worker": parent}
    return found


async def _call(http: aiohttp.ClientSession, outcomes: list[Outcome], caller: int) -> None:
    """Ask again and again, every other caller by voice; connect again when the connection ends."""
    while True:
        began = time.monotonic()
        try:
            async with http.ws_connect(_PATH, headers={"api-key": _KEY}) as socket:
                await socket.send_json({"type": "session.update", "session": {"turn_detection": None}})
                while True:
                    began = time.monotonic()
                    what = await _turn(socket, spoken=caller % 2 == 0)
                    outcomes.append(Outcome(caller, began, time.monotonic(), what))
                    if what.startswith("closed"):
                        break
        except aiohttp.ClientError as fault:
            outcomes.append(Outcome(caller, began, time.monotonic(), type(fault).__name__))
        await asyncio.sleep(0.2)


async def _turn(socket: aiohttp.ClientWebSocketResponse, *, spoken: bool) -> str:
    if spoken:
        await socket.send_json({"type": "input_audio_buffer.append", "audio": _question()})
        await socket.send_json({"type": "input_audio_buffer.commit"})
        await socket.send_json({"type": "response.create"})
    else:
        await socket.send_json({"type": "response.create", "response": {"instructions": LONG, "input": []}})
    async for message in socket:
        event: dict[str, Any] = message.json()
        if event["type"] == "response.done":
            response = event["response"]
            if response["status"] == "completed":
                return "completed"
            return str(response["status_details"].get("error", {}).get("code") or response["status"])
    return f"closed {socket.close_code}"


def _question() -> str:
    wav = resources.files("vivavoce.demo").joinpath("data", "question.wav").read_bytes()
    return base64.b64encode(wav[44:]).decode()


# ----------------------------------------------------------------------------------------------------- fairness

SESSIONS: Final = 50
_GREED: Final = 20
"""Requests that the greedy session always has open."""
_SHARED_S: Final = 40.0


def fairness() -> Figures:
    """What 49 sessions get of a recogniser beside one that keeps 20 requests open; and the same with requests that
    name no session, which are served in the order in which they came."""
    return asyncio.run(_share(named=True, label="fair queue")) | asyncio.run(
        _share(named=False, label="one line for all")
    )


async def _share(*, named: bool, label: str) -> Figures:
    from vivavoce.engines.base import Transcriber, TranscriptionOptions
    from vivavoce.engines.registry import Registry

    engine = Registry.installed().create("transcriber", "pocketsphinx", {"workers": 1, "max_waiting": 1000})
    assert isinstance(engine, Transcriber)
    await engine.start()
    rate = engine.capabilities.sample_rate
    noise = np.random.default_rng(1).normal(0, 300, rate // 5).astype("<i2").tobytes()
    waits: dict[str, list[float]] = {f"{n}": [] for n in range(SESSIONS)}

    async def sound() -> AsyncIterator[bytes]:
        yield noise

    async def ask(session: str) -> None:
        while True:
            began = time.monotonic()
            options = TranscriptionOptions(session=session if named else "")
            async with aclosing(engine.transcribe(sound(), options)) as deltas:
                async for _ in deltas:
                    pass
            waits[session].append(time.monotonic() - began)

    tasks = [asyncio.create_task(ask(session)) for session in waits]
    tasks += [asyncio.create_task(ask("0")) for _ in range(_GREED - 1)]
    await asyncio.sleep(_SHARED_S)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await engine.close()
    modest = [len(mine) for session, mine in waits.items() if session != "0"]
    all_waits = sorted(wait for session, mine in waits.items() if session != "0" for wait in mine)
    total = len(waits["0"]) + sum(modest)
    return {
        f"{label}: recognitions": total,
        f"{label}: of a modest session, least": min(modest),
        f"{label}: of a modest session, median": statistics.median(modest),
        f"{label}: of a modest session, most": max(modest),
        f"{label}: of the greedy session": len(waits["0"]),
        f"{label}: Jain's index of the modest": sum(modest) ** 2 / (len(modest) * sum(n * n for n in modest)),
        f"{label}: wait of the modest p50 s": all_waits[len(all_waits) // 2],
        f"{label}: wait of the modest p95 s": all_waits[len(all_waits) * 95 // 100],
    }
