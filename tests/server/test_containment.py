"""Bugs and broken engines cost one response or one session, never more, and tell nobody how we work."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import server_fixtures
from aiohttp import ClientSession
from server_fakes import AZURE, KEY, Fakes, Wire, loud, no_sessions, only, quiet, session

from vivavoce.core.session import Session
from vivavoce.engines import base
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.server.app import Server
from vivavoce.wire import client_events as ce
from vivavoce.wire.dialects.preview_in import PreviewDecoder
from vivavoce.wire.dialects.preview_out import PreviewEncoder

fakes = server_fixtures.fakes
server = server_fixtures.server

SECRET = "the engine's own business"
INTERNAL = "The server had an error while processing your request. Sorry about that!"


async def test_a_bug_of_a_model(fakes: Fakes, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        yield base.TextDelta("I was")
        raise KeyError(SECRET)

    fakes.model.reply = broken
    async with session(server) as wire:
        await wire.send("response.create", response={"modalities": ["text"]})
        response = (await wire.until("response.done"))[-1]["response"]
        assert response["status"] == "failed"
        assert response["status_details"] == {
            "type": "failed",
            "error": {"type": "server_error", "code": None, "message": INTERNAL},
        }
        assert response["output"][0]["content"] == [{"type": "text", "text": "I was"}]
        assert "builtins.KeyError" in caplog.text
        assert "in broken" in caplog.text
        assert SECRET not in caplog.text
        fakes.model.reply = Fakes().model.reply
        await wire.send("response.create", response={"modalities": ["text"]})
        assert (await wire.until("response.done"))[-1]["response"]["status"] == "completed"


async def test_a_bug_of_a_synthesiser(
    fakes: Fakes, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        yield base.SpeechChunk(bytes(9600))
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr(fakes.synthesizer, "synthesize", broken)
    async with session(server) as wire:
        await wire.send("response.create")
        response = (await wire.until("response.done"))[-1]["response"]
        assert response["status_details"]["error"]["message"] == INTERNAL
        await wire.silence()
    assert "builtins.ZeroDivisionError" in caplog.text
    assert SECRET not in caplog.text


async def speak(wire: Wire) -> None:
    await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.5) + quiet(1)).decode())


@pytest.mark.parametrize(
    ("fault", "code"), [(RuntimeError(SECRET), None), (base.EngineError("overloaded", "Busy."), "overloaded")]
)
async def test_a_failing_recogniser(fakes: Fakes, server: Server, fault: Exception, code: str | None) -> None:
    fakes.transcriber.fault = fault
    async with session(server) as wire:
        await wire.update(input_audio_transcription={"model": "whisper-1"})
        await speak(wire)
        failed = "conversation.item.input_audio_transcription.failed"
        events = await wire.until("response.done")
        event = next(event for event in events if event["type"] == failed)
        assert event["error"] == {
            "type": "server_error",
            "code": code,
            "message": f"Input transcription failed for item '{event['item_id']}'.",
            "param": None,
        }
        # A model that cannot hear needed the words.
        assert events[-1]["response"]["status"] == "failed"
        assert SECRET not in str(events)
        await wire.silence()


async def test_a_failing_vad(fakes: Fakes, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    async with session(server) as wire:
        fakes.vad.fault = RuntimeError(SECRET)
        await speak(wire)
        event = await wire.next()
        assert (event["type"], event["error"]["type"], event["error"]["message"]) == (
            "error",
            "server_error",
            INTERNAL,
        )
        fakes.vad.fault = None
        await wire.send("response.create", response={"modalities": ["text"]})
        assert (await wire.until("response.done"))[-1]["response"]["status"] == "completed"
    assert SECRET not in caplog.text


async def check_fallen(wire: Wire, server: Server) -> None:
    """The session said as much as a client may know, and was closed."""
    events = await wire.until("error")
    assert events[-1]["error"] == {
        "type": "server_error",
        "code": None,
        "message": INTERNAL,
        "param": None,
        "event_id": None,
    }
    assert await wire.closed() == 1011


async def test_a_bug_in_the_core(server: Server, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    receive = Session.receive

    def broken(self: Session, event: Any, now: float) -> Any:
        if isinstance(event, ce.InputAudioCommit):
            raise LookupError(SECRET)
        return receive(self, event, now)

    monkeypatch.setattr(Session, "receive", broken)
    tasks = asyncio.all_tasks()
    async with session(server) as other:
        async with session(server) as wire:
            await wire.send("input_audio_buffer.commit")
            await wire.send("input_audio_buffer.clear")
            await check_fallen(wire, server)
        # It cost nobody else anything.
        await other.silence()
    await no_sessions(server)
    await only(tasks)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "builtins.LookupError" in record.getMessage()
    assert "in broken" in record.getMessage()
    assert SECRET not in caplog.text


async def test_a_bug_in_the_decoder(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: PreviewDecoder, frame: str | bytes) -> Any:
        raise AssertionError(SECRET)

    async with session(server) as wire:
        monkeypatch.setattr(PreviewDecoder, "_event", broken)
        await wire.send("input_audio_buffer.clear")
        await check_fallen(wire, server)
    await no_sessions(server)


async def test_a_bug_in_the_encoder(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: PreviewEncoder, *_: Any) -> Any:
        raise AssertionError(SECRET)

    async with session(server) as wire:
        monkeypatch.setattr(PreviewEncoder, "_session", broken)
        await wire.send("session.update", session={})
        await check_fallen(wire, server)
    await no_sessions(server)


async def test_a_session_that_cannot_begin(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: VadPool, *_: Any) -> Any:
        raise RuntimeError(SECRET)

    monkeypatch.setattr(VadPool, "open", broken)
    url = f"http://127.0.0.1:{server.port}{AZURE}"
    async with ClientSession() as client, client.ws_connect(url, headers={"api-key": KEY}) as socket:
        assert await Wire(socket).closed() == 1011
    await no_sessions(server)
