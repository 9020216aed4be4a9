"""What a GA client sets and sends, as the model is asked: through a real server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
import server_fixtures
from aiohttp import ClientSession
from server_fakes import KEY, OPENAI, Fakes, Wire, config, serving

from vivavoce.engines import base

fakes = server_fixtures.fakes

DOT = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABAQAAAAA3bvkkAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize("able", [True, False])
async def test_images_calls_and_reasoning_reach_a_model_that_has_them(
    fakes: Fakes, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[base.GenerationRequest] = []

    async def reply(request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        asked.append(request)
        yield base.TextDelta("A dot.")
        yield base.Finish()

    fakes.model.reply = reply
    skills = replace(fakes.model.capabilities, sees_images=able, reasons=able)
    monkeypatch.setattr(fakes.model, "capabilities", skills)
    async with (
        serving(config()) as server,
        ClientSession(f"http://127.0.0.1:{server.port}") as client,
        client.ws_connect(OPENAI, headers={"Authorization": f"Bearer {KEY}"}) as socket,
    ):
        wire = Wire(socket)
        await wire.until("session.created")
        settings = {"output_modalities": ["text"], "parallel_tool_calls": False}
        await wire.send("session.update", session={"type": "realtime", **settings})
        await wire.until("session.updated")
        await wire.send("session.update", session={"type": "realtime", "reasoning": {"effort": "low"}})
        assert (await wire.next())["type"] == ("session.updated" if able else "error")
        picture = {"type": "input_image", "image_url": DOT, "detail": "low"}
        text = {"type": "input_text", "text": "What is this?"}
        await wire.send(
            "conversation.item.create", item={"type": "message", "role": "user", "content": [text, picture]}
        )
        assert (await wire.next())["type"] == ("conversation.item.added" if able else "error")
        await wire.send("response.create")
        usage = (await wire.until("response.done"))[-1]["response"]["usage"]
    (request,) = asked
    assert (request.parallel_tool_calls, request.reasoning) == (False, "low" if able else None)
    seen = (base.TextInput("What is this?"), base.ImageInput(DOT, "low"))
    assert [turn.content for turn in request.turns if isinstance(turn, base.Message)] == ([seen] if able else [])
    assert usage["input_token_details"]["image_tokens"] == (85 if able else 0)
