"""Items with much sound in them are given back whole, in their turn, and hold up nobody."""

from __future__ import annotations

import asyncio
import base64
from typing import cast

import msgspec
import numpy as np
import pytest
import server_fixtures
from server_fakes import Fakes, config, rest, serving, session

from vivavoce.core import contract as c
from vivavoce.runtime import driver
from vivavoce.runtime.driver import Driver
from vivavoce.server.handshake import Socket
from vivavoce.server.outbox import AT_ONCE_BYTES, FULL_BYTES, SocketOutbox
from vivavoce.testing import virtual_time
from vivavoce.wire import server_events as se

fakes = server_fixtures.fakes

NOISE = np.random.default_rng(1).integers(-9000, 9000, 24_000 * 150, np.int16).astype("<i2").tobytes()
"""150 s, which is 9.6 MB in base64: more than may wait for a client otherwise."""


async def test_much_sound_comes_back_whole_and_before_later_answers(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside: list[bool] = []
    retrieved = driver.retrieved

    def watched(effect: c.Retrieve) -> se.ItemRetrieved:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            aside.append(True)
        else:
            aside.append(False)
        return retrieved(effect)

    monkeypatch.setattr(driver, "retrieved", watched)
    drivers: list[Driver] = []
    receive_text = Driver.receive_text

    def received(one: Driver, text: str) -> None:
        drivers.append(one)
        receive_text(one, text)

    monkeypatch.setattr(Driver, "receive_text", received)
    settings = config()
    deployment = msgspec.structs.replace(settings.deployments[0], profile="azure-2025-04")
    settings = msgspec.structs.replace(settings, deployments=(deployment,))
    async with serving(settings) as server, session(server, max_msg_size=0) as wire:
        await wire.update(turn_detection=None)
        await wire.send("input_audio_buffer.append", audio=base64.b64encode(NOISE).decode())
        await wire.send("input_audio_buffer.commit")
        item_id = (await wire.until("conversation.item.created"))[-1]["item"]["id"]
        await wire.send("conversation.item.create", item={"id": "short", "type": "message", "role": "user",
            "content": [{"type": "input_audio", "audio": base64.b64encode(NOISE[:4800]).decode()}]})  # fmt: skip
        await wire.until("conversation.item.created")
        for wanted in (item_id, item_id, "short", "nobody"):
            await wire.send("conversation.item.retrieve", item_id=wanted)
        for wanted, sound in ((item_id, NOISE), (item_id, NOISE), ("short", NOISE[:4800])):
            event = await wire.next()
            assert (event["type"], event["item"]["id"]) == ("conversation.item.retrieved", wanted)
            assert base64.b64decode(event["item"]["content"][0]["audio"]) == sound
        assert (await wire.next())["error"]["code"] == "item_retrieve_invalid_item_id"
        assert drivers[0].sent == 10
    assert aside == [True, True, False]


class SlowSocket:
    """Takes a frame for as long as the test says."""

    def __init__(self) -> None:
        self.taken = asyncio.Event()
        self.frames: list[bytes] = []

    async def send_texts(self, frames: list[bytes]) -> None:
        await self.taken.wait()
        self.frames += frames


def test_a_large_frame_may_take_long_while_it_goes_on() -> None:
    async def scene() -> None:
        waiting, cut = FULL_BYTES + 1, asyncio.Event()
        outbox = SocketOutbox(stall_s=20.0, abort=cut.set, unsent=lambda: waiting)
        socket = SlowSocket()
        writer = asyncio.create_task(outbox.run(cast(Socket, socket)))
        outbox.send(bytes(FULL_BYTES + 1))
        await rest()
        for _ in range(10):
            waiting -= 1000
            virtual_time.advance(20.0)
            await rest()
            assert not cut.is_set()
        assert outbox.full
        socket.taken.set()
        await rest()
        assert (len(socket.frames), outbox.full, outbox.crowded) == (1, False, False)

        socket.taken.clear()
        outbox.send(bytes(FULL_BYTES + 1))
        await rest()
        virtual_time.advance(20.0)
        await rest()
        assert not cut.is_set(), "something was taken of it"
        virtual_time.advance(20.0)
        await writer
        assert cut.is_set(), "nothing was taken of it for 20 s"
        assert len(socket.frames) == 1

    virtual_time.run(scene())


@pytest.mark.parametrize("size", [AT_ONCE_BYTES + 1, FULL_BYTES])
def test_who_takes_nothing_of_a_frame_is_cut_off_though_nothing_waited_before_it(size: int) -> None:
    async def scene() -> None:
        cut = asyncio.Event()
        outbox = SocketOutbox(stall_s=20.0, abort=cut.set, unsent=lambda: 0)
        writer = asyncio.create_task(outbox.run(cast(Socket, SlowSocket())))
        outbox.send(bytes(size))
        await rest()
        assert not cut.is_set()
        virtual_time.advance(20.0)
        await writer
        assert cut.is_set()

    virtual_time.run(scene())
