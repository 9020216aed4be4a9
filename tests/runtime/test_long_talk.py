"""What a conversation leaves behind while it goes on: its items, and nothing else. Told in objects of this process:
the memory that the system counts goes up and down by itself."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from test_work import Free

from bench import stubs
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.runtime.driver import Driver
from vivavoce.runtime.engines import Cascaded, Engines
from vivavoce.runtime.listener import KEPT_RESULTS
from vivavoce.testing.fakes import PuppetEndOfTurn, PuppetVad, WatchedVadPool
from vivavoce.wire.codec import codec_of
from vivavoce.wire.session_config import SessionConfig, Transcription

SETTLED: Final = KEPT_RESULTS + 16
"""Turns after which everything that is bounded has reached its bound."""
TURNS: Final = 100
BLOCKS_OF_A_TURN: Final = 24
"""Pieces of memory, for the item of the user and that of the assistant."""


class Talk:
    """Somebody who says the same again and again, and is answered at once. Implements ``Outbox``."""

    crowded = full = False

    def __init__(self, pool: WatchedVadPool) -> None:
        self._pool = pool
        self._done = asyncio.Event()
        self.driver: Driver

    def send(self, frame: bytes) -> None:
        if b'"response.done"' in frame:
            self._done.set()

    def close(self, code: int, reason: str) -> None: ...
    async def drained(self) -> None: ...

    async def turns(self, count: int) -> None:
        for _ in range(count):
            self._done.clear()
            for level, ms in ((24_000, 320), (0, 640)):
                audio = base64.b64encode(level.to_bytes(2, "little") * 24 * ms).decode()
                self.driver.receive_text(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
                await self._pool.reported()
            await self._done.wait()
        # What ends with the last turn has its place in the loop still to come.
        for _ in range(10):
            await asyncio.sleep(0)
        gc.collect()


@asynccontextmanager
async def talking(config: SessionConfig) -> AsyncIterator[Talk]:
    identity = Identity(model="m", created_at=0, lifetime_s=1800, seed=bytes(32), keeps_audio=False)
    async with WatchedVadPool(PuppetVad()) as pool:
        talk = Talk(pool)
        speaker = Cascaded(stubs.language_model({}), stubs.prompt({}))
        talk.driver = Driver(
            Session(identity, config, asyncio.get_running_loop().time()),
            codec=codec_of("azure-2024-12-17"),
            outbox=talk,
            engines=Engines(pool, stubs.transcriber({}), PuppetEndOfTurn(), speaker),
            meter=Free(),
        )
        async with talk.driver.running():
            yield talk


def kinds() -> Counter[str]:
    """Objects that the garbage collector looks at, by type."""
    return Counter(type(one).__qualname__ for one in gc.get_objects())


@pytest.mark.parametrize("transcription", [None, Transcription()])
async def test_a_turn_leaves_its_items_and_nothing_else(transcription: Transcription | None) -> None:
    """Of all these the collector looks at one, else it would stop hundreds of sessions the longer they talk."""
    async with talking(SessionConfig(input_audio_transcription=transcription)) as talk:
        await talk.turns(SETTLED)
        kinds()
        before, blocks = kinds(), sys.getallocatedblocks()
        await talk.turns(TURNS)
        grown, more = kinds() - before, sys.getallocatedblocks() - blocks
    assert grown == {"_Sole": TURNS, "Counter": 1}
    assert more <= BLOCKS_OF_A_TURN * TURNS


async def test_sound_whose_words_are_known_is_let_go() -> None:
    async with talking(SessionConfig()) as talk:
        gc.collect()
        others = kinds()["Clip"]
        await talk.turns(2)
        assert kinds()["Clip"] == others
