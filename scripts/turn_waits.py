"""How long each kind of turn detection waits after people have finished, and what it takes for the end.

    python scripts/turn_waits.py

Starts the server with its built-in engines and speaks to it in real time, with the voice of the built-in
synthesiser: whole sentences, and sentences with a pause of 0.9 s in the middle. For each a row: the milliseconds
from the last sound sent to ``speech_stopped`` received, or ``cut`` where the turn ended in the pause. Takes three
minutes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from typing import Any, Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import aiohttp
import numpy as np

from vivavoce.audio.resample import resample
from vivavoce.config import Overrides, Secret, load_config
from vivavoce.engines.base import SynthesisRequest
from vivavoce.engines.builtin import espeak
from vivavoce.server.app import running

KEY: Final = "waits"
PATH: Final = "/openai/realtime?api-version=2025-04-01-preview&deployment=gpt-4o-realtime-preview"
RATE: Final = 24000
STEP_MS: Final = 20
PAUSE_MS: Final = 900
LONGEST_MS: Final = 9000
QUIET: Final = 300
"""Samples below this are the silence around the words."""

SENTENCES: Final = (
    "Yes, please.",
    "What is the weather like today?",
    "Can you tell me a story?",
    "I would like a cup of tea.",
    "I want to go to the station because ... I need to go home.",
    "Can you tell me the ... time, please?",
    "I want two and ... then one more.",
)
"""``...`` is a pause."""
MODES: Final[dict[str, dict[str, Any]]] = {
    "server 200": {"type": "server_vad", "silence_duration_ms": 200},
    "server 500": {"type": "server_vad", "silence_duration_ms": 500},
    "server 1000": {"type": "server_vad", "silence_duration_ms": 1000},
    "high": {"type": "semantic_vad", "eagerness": "high"},
    "medium": {"type": "semantic_vad", "eagerness": "medium"},
    "low": {"type": "semantic_vad", "eagerness": "low"},
}


async def spoken() -> list[bytes]:
    """The sentences as pcm16, pauses and all, from the first word to the last."""
    engine = espeak.create({"workers": 1})
    await engine.start()
    try:
        return [await _spoken(engine, sentence) for sentence in SENTENCES]
    finally:
        await engine.close()


async def _spoken(engine: Any, sentence: str) -> bytes:
    parts = []
    for text in sentence.split("..."):
        chunks = [chunk.pcm async for chunk in engine.synthesize(SynthesisRequest(text.strip(), "alloy"))]
        samples = np.frombuffer(b"".join(chunks), "<i2")
        loud = np.flatnonzero(np.abs(samples) > QUIET)
        words = resample(samples[loud[0] : loud[-1] + 1], engine.capabilities.sample_rate, RATE)
        parts.append(words.astype("<i2").tobytes())
    return bytes(PAUSE_MS * RATE // 1000 * 2).join(parts)


async def waits(port: int, detection: dict[str, Any], sounds: list[bytes]) -> list[str]:
    """One session: what came of each sentence."""
    async with (
        aiohttp.ClientSession() as client,
        client.ws_connect(f"http://127.0.0.1:{port}{PATH}", headers={"api-key": KEY}) as socket,
    ):
        settings = {"turn_detection": {**detection, "create_response": False}}
        await socket.send_str(json.dumps({"type": "session.update", "session": settings}))
        stopped: asyncio.Queue[float] = asyncio.Queue()
        reading = asyncio.create_task(_read(socket, stopped))
        found = [await _wait(socket, sound, stopped) for sound in sounds]
        reading.cancel()
        await asyncio.wait([reading])
    return found


async def _read(socket: aiohttp.ClientWebSocketResponse, stopped: asyncio.Queue[float]) -> None:
    async for message in socket:
        if json.loads(message.data)["type"] == "input_audio_buffer.speech_stopped":
            stopped.put_nowait(asyncio.get_running_loop().time())


async def _wait(socket: aiohttp.ClientWebSocketResponse, sound: bytes, stopped: asyncio.Queue[float]) -> str:
    loop = asyncio.get_running_loop()
    size = STEP_MS * RATE // 1000 * 2
    pieces = [sound[at : at + size] for at in range(0, len(sound), size)]
    quiet = bytes(size)
    due = loop.time()
    for piece in [quiet] * (1000 // STEP_MS) + pieces:
        due = await _send(socket, piece, due)
    ended = loop.time()
    was_cut = not stopped.empty()
    while not stopped.empty():
        stopped.get_nowait()
    for _ in range(LONGEST_MS // STEP_MS):
        due = await _send(socket, quiet, due)
        if not stopped.empty():
            return "cut" if was_cut else str(round((stopped.get_nowait() - ended) * 1000))
    return "never"


async def _send(socket: aiohttp.ClientWebSocketResponse, piece: bytes, due: float) -> float:
    """In real time; returns when the next piece is due."""
    audio = base64.b64encode(piece).decode()
    await socket.send_str(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
    due += STEP_MS / 1000
    await asyncio.sleep(due - asyncio.get_running_loop().time())
    return due


async def main() -> None:
    sounds = await spoken()
    config = load_config(None, environ={}, overrides=Overrides(api_keys=(Secret(KEY),)))
    async with running(config, host="127.0.0.1", port=0) as server:
        columns = [await waits(server.port, detection, sounds) for detection in MODES.values()]
    print(f"| ms after the last word | {' | '.join(MODES)} |")
    print("|---" * (len(MODES) + 1) + "|")
    for sentence, *row in zip(SENTENCES, *columns, strict=True):
        print(f"| {sentence} | {' | '.join(row)} |")


if __name__ == "__main__":
    asyncio.run(main())
