"""A client cuts off an answer; what the model is told of it next."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec
import pytest
import server_fixtures
from server_fakes import CONFIG, Fakes, Wire, serving, session

from vivavoce.engines import base

fakes = server_fixtures.fakes


async def answer(wire: Wire) -> str:
    """Ask for one and wait for its end -> the id of its message."""
    await wire.send("response.create")
    done = (await wire.until("response.done"))[-1]["response"]
    return str(done["output"][0]["id"])


@pytest.mark.parametrize("kept", [True, False])
async def test_the_model_keeps_the_words_that_were_heard(fakes: Fakes, kept: bool) -> None:
    asked: list[base.GenerationRequest] = []

    async def reply(request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        asked.append(request)
        yield base.TextDelta("**One** two three. Four five six.")
        yield base.Finish()

    fakes.model.reply = reply
    (deployment,) = CONFIG.deployments
    settings = msgspec.structs.replace(CONFIG, deployments=(msgspec.structs.replace(deployment, heard_text=kept),))
    async with serving(settings) as server, session(server) as wire:
        item = await answer(wire)
        # A second for each clause: the first, and two thirds of the other.
        await wire.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=1660)
        await wire.until("conversation.item.truncated")
        await answer(wire)
    heard = (base.Message("assistant", (base.TextInput("**One** two three. Four five"),), item, 1660),)
    assert asked[1].turns == (heard if kept else ())
