"""The whole server behind another WebSocket library: ``python -m bench.picows_door``.

The handshake asks for nothing, there is no HTTP beside it, no keep-alive and no limit of what waits to be sent:
picows at its best. Sessions, engines and all that a frame means are those of the server, so what this takes
less is the most that another library could save.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import secrets
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.server import usage
from bench.stubs import LanguageModel, Synthesizer, Transcriber
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.engines.builtin.silero_vad import SileroVad
from vivavoce.engines.builtin.turn_hints import create as turn_hints
from vivavoce.gateway.quota import Quota
from vivavoce.runtime.driver import Driver
from vivavoce.runtime.engines import Cascaded, Engines
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.server.websocket import QuotaMeter
from vivavoce.wire.codec import MAX_FRAME_BYTES, preview_codec
from vivavoce.wire.session_config import SessionConfig


class Way:
    """``runtime.engines.Outbox``: what is sent is written at once."""

    crowded = full = False

    def __init__(self, transport: WSTransport) -> None:
        self._transport = transport

    def send(self, frame: bytes) -> None:
        self._transport.send(WSMsgType.TEXT, frame)

    def close(self, code: int, reason: str) -> None:
        self._transport.disconnect()

    async def drained(self) -> None:
        """It is never crowded."""


class Caller(WSListener):
    """One session. The parser calls the driver; no task and no queue lies between."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._driver: Driver | None = None
        self._gone = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._driver = self._door.driver(Way(transport))
        self._door.open[self] = asyncio.get_running_loop().create_task(self._live(self._driver))

    async def _live(self, driver: Driver) -> None:
        async with driver.running():
            await self._gone.wait()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._gone.set()
        self._door.open.pop(self, None)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            assert self._driver is not None
            self._driver.receive_text(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


class Door:
    """Makes the sessions of all callers."""

    def __init__(self, engines: Engines, meter: QuotaMeter) -> None:
        self.open: dict[Caller, asyncio.Task[None]] = {}
        self._engines = engines
        self._meter = meter
        self._codec = preview_codec("azure-2024-12-17")

    def driver(self, outbox: Way) -> Driver:
        identity = Identity(
            model="bench",
            created_at=int(time.time()),
            lifetime_s=1800,
            seed=secrets.token_bytes(32),
            keeps_audio=False,
        )
        session = Session(identity, SessionConfig(), asyncio.get_running_loop().time())
        return Driver(session, codec=self._codec, outbox=outbox, engines=self._engines, meter=self._meter)


async def main() -> None:
    vad = SileroVad()
    await vad.start()
    async with VadPool(vad) as pool:
        engines = Engines(pool, Transcriber(), turn_hints({}), Cascaded(LanguageModel(), Synthesizer(paced=False)))
        door = Door(engines, QuotaMeter(Quota(10_000_000_000, 10_000_000, time.monotonic)))

        def caller(request: WSUpgradeRequest) -> Caller:
            return Caller(door)

        server = await ws_create_server(caller, "127.0.0.1", 0, max_frame_size=MAX_FRAME_BYTES)
        gc.collect()
        gc.freeze()
        print(server.sockets[0].getsockname()[1], flush=True)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
        )
        while await lines.readline():
            print(json.dumps(usage(len(door.open))), flush=True)
        server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", type=int, help="run on this core only")
    chosen = parser.parse_args()
    if chosen.core is not None:
        os.sched_setaffinity(0, {chosen.core})
    uvloop.run(main())
