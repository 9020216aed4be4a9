"""A deployment whose engine is a speech model: what it is asked, what the client hears, and how they part."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import pytest
from server_fakes import CONFIG, Fakes, Wire, loud, no_sessions, quiet, session

from vivavoce.engines import base
from vivavoce.engines.registry import Engine, EngineKind
from vivavoce.server.app import Server, running
from vivavoce.wire.session_config import VOICES

SOUND: Final = bytes(range(200)) * 24


class Native:
    """Says "Yes." in 100 ms of sound, and keeps what it was asked."""

    name = "native"
    version = "1"

    def __init__(self, *, hears_audio: bool) -> None:
        self.capabilities = base.SpeechModelCapabilities(
            24_000, hears_audio=hears_audio, voices=frozenset(VOICES), keeps_speech=True
        )
        self.requests: list[base.SpeechRequest] = []
        self.ended: list[str] = []
        self.fault: Exception | None = None

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def respond(self, request: base.SpeechRequest) -> AsyncGenerator[base.SpeechDelta, None]:
        self.requests.append(request)
        yield base.TextDelta("Yes.")
        if "audio" in request.generation.modalities:
            yield base.AudioDelta(SOUND)
        yield base.Finish()

    async def end_session(self, session: str) -> None:
        self.ended.append(session)
        if self.fault is not None:
            raise self.fault


class Natives(Fakes):
    def __init__(self, speech_model: Native) -> None:
        super().__init__()
        self.speech_model = speech_model

    def create(
        self, kind: EngineKind, name: str, options: Mapping[str, object], *, base: Path | None = None
    ) -> Engine:
        if kind == "speech_model":
            return self.speech_model
        return super().create(kind, name, options, base=base)


@asynccontextmanager
async def serving(native: Native) -> AsyncIterator[Server]:
    deployment = msgspec.structs.replace(CONFIG.deployments[0], speech_model="fake")
    settings = msgspec.structs.replace(CONFIG, deployments=(deployment,))
    async with running(settings, host="127.0.0.1", port=0, registry=Natives(native)) as server:
        yield server


async def ask_aloud(wire: Wire) -> list[dict[str, object]]:
    await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.5) + quiet(1)).decode())
    return await wire.until("response.done")


async def test_it_hears_and_speaks_for_itself() -> None:
    native = Native(hears_audio=True)
    async with serving(native) as server, session(server) as wire:
        events = await ask_aloud(wire)
        heard = b"".join(
            base64.b64decode(str(one["delta"])) for one in events if one["type"] == "response.audio.delta"
        )
        assert heard == SOUND
        (request,) = native.requests
        (turn,) = request.generation.turns
        assert isinstance(turn, base.Message)
        (content,) = turn.content
        assert isinstance(content, base.AudioInput)
        assert (content.rate, request.voice, request.generation.out_of_band) == (24_000, "alloy", False)


async def test_one_that_does_not_hear_gets_the_words_of_the_recogniser() -> None:
    native = Native(hears_audio=False)
    async with serving(native) as server, session(server) as wire:
        await ask_aloud(wire)
        (turn,) = native.requests[0].generation.turns
        assert isinstance(turn, base.Message)
        assert turn.content == (base.TextInput("hello"),)


async def test_requests_of_a_session_have_its_name_and_their_items_theirs() -> None:
    native = Native(hears_audio=True)
    async with serving(native) as server:
        for _ in range(2):
            async with session(server) as wire:
                done = [await ask_aloud(wire), await ask_aloud(wire)]
                await wire.send("response.create", response={"conversation": "none", "input": []})
                await wire.until("response.done")
            answer = done[0][-1]["response"]
            assert isinstance(answer, dict)
            first, second, apart = (request.generation for request in native.requests[-3:])
            assert [turn.item_id for turn in second.turns][:2] == [
                first.turns[0].item_id,
                answer["output"][0]["id"],
            ]
            assert (apart.turns, apart.out_of_band) == ((), True)
            assert first.session == second.session == apart.session
        assert len({request.generation.session for request in native.requests}) == 2


async def test_what_was_said_has_a_length_and_stays_without_words_when_it_is_truncated() -> None:
    native = Native(hears_audio=True)
    async with serving(native) as server, session(server) as wire:
        done = (await ask_aloud(wire))[-1]["response"]
        assert isinstance(done, dict)
        item = done["output"][0]["id"]
        await ask_aloud(wire)
        await wire.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=40)
        await wire.until("conversation.item.truncated")
        await ask_aloud(wire)
        whole, cut = native.requests[1].generation.turns[1], native.requests[2].generation.turns[1]
        assert whole == base.Message("assistant", (base.TextInput("Yes."),), item, 100)
        assert cut == base.Message("assistant", (), item, 40)


@pytest.mark.parametrize("fault", [None, RuntimeError("odd")])
async def test_it_is_told_of_the_end_of_a_session(
    fault: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    native = Native(hears_audio=True)
    native.fault = fault
    async with serving(native) as server:
        async with session(server) as wire:
            await ask_aloud(wire)
            assert native.ended == []
        await no_sessions(server)
        assert native.ended == [native.requests[0].generation.session]
    assert ("did not let go" in caplog.text) is (fault is not None)


async def test_a_model_that_does_not_part_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    native = Native(hears_audio=True)

    async def never(session: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(native, "end_session", never)
    monkeypatch.setattr("vivavoce.runtime.driver._PARTING_S", 0.01)
    async with serving(native) as server:
        async with session(server) as wire:
            await ask_aloud(wire)
        await no_sessions(server)
