"""How long each kind of turn detection waits after people have finished, and what it takes for the end.

    python scripts/turn_waits.py

Starts the server with its built-in engines and speaks to it in real time, with the voice of the built-in
synthesiser: whole sentences, and sentences with a pause of 0.9 s in the middle. For each a row: the milliseconds
from the last sound sent to ``speech_stopped`` received, or ``cut`` where a turn ended before. Last the median wait
after whole sentences, and how many of both kinds were cut. Takes eight minutes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from itertools import compress
from statistics import median
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
BETWEEN_MS: Final = 1000
LONGEST_MS: Final = 9000
QUIET: Final = 300
"""Samples below this are the silence around the words."""

SENTENCES: Final = (
    "Yes, please.",
    "No, thank you.",
    "What is the weather like today?",
    "Can you tell me a story?",
    "I would like a cup of tea.",
    "Please turn off the lights in the kitchen.",
    "My name is Peter Miller.",
    "The train leaves at seven o'clock.",
    "I want to go to the station because ... I need to go home.",
    "Can you tell me the ... time, please?",
    "I want two and ... then one more.",
    "I think that we should ... wait until tomorrow.",
    "My number is ... five five two three.",
    "Please send a message to ... my brother.",
    "If it rains tomorrow ... we will stay at home.",
    "I was looking for um ... a red jacket.",
)
"""``...`` is a pause."""
MODES: Final[dict[str, dict[str, Any]]] = {
    **{f"server {ms}": {"type": "server_vad", "silence_duration_ms": ms} for ms in (200, 500, 800)},
    **{name: {"type": "semantic_vad", "eagerness": name} for name in ("high", "medium", "auto", "low")},
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
        speaker = Speaker(socket)
        reading = asyncio.create_task(speaker.read())
        found = [await speaker.wait(sound) for sound in sounds]
        reading.cancel()
        await asyncio.wait([reading])
    return found


class Speaker:
    """Who speaks to the server, in real time."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._said_ms = 0
        """On the audio clock of the session."""
        self._stops: list[tuple[int, float]] = []
        """Ends of turns: on the audio clock, and when they were told."""
        self._due = asyncio.get_running_loop().time()

    async def read(self) -> None:
        async for message in self._socket:
            event = json.loads(message.data)
            if event["type"] == "input_audio_buffer.speech_stopped":
                self._stops.append((event["audio_end_ms"], asyncio.get_running_loop().time()))

    async def wait(self, sound: bytes) -> str:
        """Say it -> how long the server waited after it."""
        size = STEP_MS * RATE // 1000 * 2
        quiet = bytes(size)
        for _ in range(BETWEEN_MS // STEP_MS):
            await self._say(quiet)
        self._stops.clear()
        for at in range(0, len(sound), size):
            await self._say(sound[at : at + size].ljust(size, b"\0"))
        ended, end_ms = asyncio.get_running_loop().time(), self._said_ms
        for _ in range(LONGEST_MS // STEP_MS):
            await self._say(quiet)
            if self._stops and self._stops[-1][0] > end_ms:
                return str(round((self._stops[-1][1] - ended) * 1000)) if len(self._stops) == 1 else "cut"
        return "never"

    async def _say(self, piece: bytes) -> None:
        audio = base64.b64encode(piece).decode()
        await self._socket.send_str(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        self._said_ms += STEP_MS
        self._due += STEP_MS / 1000
        await asyncio.sleep(self._due - asyncio.get_running_loop().time())


async def main() -> None:
    sounds = await spoken()
    config = load_config(None, environ={}, overrides=Overrides(api_keys=(Secret(KEY),)))
    async with running(config, host="127.0.0.1", port=0) as server:
        columns = [await waits(server.port, detection, sounds) for detection in MODES.values()]
    print(f"| ms after the last word | {' | '.join(MODES)} |")
    print("|---" * (len(MODES) + 1) + "|")
    for sentence, *row in zip(SENTENCES, *columns, strict=True):
        print(f"| {sentence} | {' | '.join(row)} |")
    whole = ["..." not in sentence for sentence in SENTENCES]
    paused = ["..." in sentence for sentence in SENTENCES]
    waited = [[int(ms) for ms in compress(column, whole) if ms.isdigit()] for column in columns]
    print(f"| median of the whole sentences | {' | '.join(str(round(median(ms))) for ms in waited)} |")
    for name, kind in (("whole sentences", whole), ("pauses", paused)):
        cuts = (f"{list(compress(column, kind)).count('cut')} of {sum(kind)}" for column in columns)
        print(f"| {name} that were cut | {' | '.join(cuts)} |")


if __name__ == "__main__":
    asyncio.run(main())
