"""The ``openai`` client mints client secrets of the preview, and connects with them."""

from __future__ import annotations

import json
from typing import Any

import openai
import openai_fixtures
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, BadRequestError
from openai.types.beta.realtime import SessionCreateResponse, TranscriptionSession
from openai_harness import KEY, LATE, MODEL

from vivavoce.server.app import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")
server = openai_fixtures.server


def client_of(server: Server, key: str = KEY) -> AsyncOpenAI:
    address = f"127.0.0.1:{server.port}/v1"
    return AsyncOpenAI(
        api_key=key, base_url=f"http://{address}", websocket_base_url=f"ws://{address}", max_retries=0
    )


async def test_sessions_create(server: Server) -> None:
    async with client_of(server) as client:
        raw = await client.beta.realtime.sessions.with_raw_response.create(
            model="gpt-4o-realtime-preview",
            voice="verse",
            instructions="Be brief.",
            modalities=["text"],
            client_secret={"expires_after": {"anchor": "created_at", "seconds": 120}},
        )
        minted = raw.parse()
        SessionCreateResponse.model_validate(json.loads(raw.text), strict=True)
    assert (minted.voice, minted.modalities, minted.instructions) == ("verse", ["text"], "Be brief.")
    async with (
        client_of(server, minted.client_secret.value) as browser,
        browser.beta.realtime.connect(model=MODEL) as connection,
    ):
        created = await connection.recv()
        assert created.type == "session.created"
        assert (created.session.voice, created.session.instructions) == ("verse", "Be brief.")
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
        )
        await connection.response.create()
        kinds = []
        async for event in connection:
            kinds.append(event.type)
            if event.type == "response.done":
                break
        assert "response.text.delta" in kinds


async def test_transcription_sessions_create(server: Server) -> None:
    async with client_of(server) as client:
        raw = await client.beta.realtime.transcription_sessions.with_raw_response.create(
            input_audio_format="pcm16",
            input_audio_transcription={"model": "whisper-1", "language": "en"},
            turn_detection={"type": "server_vad", "silence_duration_ms": 300},
        )
        minted = raw.parse()
        TranscriptionSession.model_validate(json.loads(raw.text), strict=True)
    query: Any = {"intent": "transcription"}
    async with (
        client_of(server, minted.client_secret.value) as browser,
        browser.beta.realtime.connect(model=LATE, extra_query=query) as connection,
    ):
        created = json.loads(await connection.recv_bytes())
        assert created["type"] == "transcription_session.created"
        assert created["session"]["turn_detection"]["silence_duration_ms"] == 300


async def test_azure_connects_with_one(server: Server) -> None:
    async with client_of(server) as client:
        minted = await client.beta.realtime.sessions.create(model="gpt-4o-realtime-preview", voice="sage")
    azure = AsyncAzureOpenAI(
        api_key=minted.client_secret.value,
        api_version="2025-04-01-preview",
        azure_endpoint=f"http://127.0.0.1:{server.port}",
        websocket_base_url=f"ws://127.0.0.1:{server.port}/openai",
    )
    async with azure, azure.beta.realtime.connect(model=MODEL) as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        assert created.session.voice == "sage"


async def test_refusals_are_those_of_the_client(server: Server) -> None:
    async with client_of(server) as client:
        with pytest.raises(BadRequestError) as bad:
            await client.beta.realtime.sessions.create(temperature=2)
        assert (bad.value.code, bad.value.param) == ("decimal_above_max_value", "temperature")
        minted = await client.beta.realtime.sessions.create()
    for key in ("sk-a-wrong-key", minted.client_secret.value):
        async with client_of(server, key) as other:
            with pytest.raises(openai.AuthenticationError) as denied:
                await other.beta.realtime.sessions.create()
            assert denied.value.code == "invalid_api_key"
