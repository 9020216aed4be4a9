# mypy: disable-error-code="attr-defined, arg-type, typeddict-item, call-arg, union-attr"
# It runs with several versions of openai; the one that mypy sees is but one of them.
"""Judge: the Python package ``openai``: its preview surface ``.beta.realtime``, and in the newest its GA surface
``.realtime`` at the preview's address."""

from __future__ import annotations

import json
from typing import Any

import openai
from openai_events import EVENTS, KNOWN, VERSION, inspect
from openai_talk import WEATHER, Surface, Talk, common_cases, openai_class, talking_on
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from witness import HEARD, KEY, MODEL, MODEL_2025, PORT, case, judge_frames, main, question, raising

PREVIEW = Surface(
    of=lambda client: client.beta.realtime,
    events=EVENTS,
    greeting="conversation.created",
    audio="response.audio.delta",
    transcript="response.audio_transcript.delta",
    text="response.text.delta",
    item="conversation.item.created",
    in_text={"modalities": ["text"]},
    written={"input_audio_transcription": {"model": "whisper-1"}},
    by_hand={"turn_detection": None},
    uninterrupted={"turn_detection": {"type": "server_vad", "interrupt_response": False}},
    telephone={"input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw"},
    without_model=KNOWN.events,
)
talking = talking_on(PREVIEW)


def azure_class(api_version: str = "2024-10-01-preview", **auth: Any) -> openai.AsyncAzureOpenAI:
    return openai.AsyncAzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{PORT}",
        websocket_base_url=f"ws://127.0.0.1:{PORT}/openai",
        api_version=api_version,
        **auth,
    )


# --------------------------------------------------------------------------------------------------- connect


async def greet(client: openai.AsyncOpenAI) -> str:
    async with talking(client) as talk:
        session = talk.events[0].session
        assert session.id.startswith("sess_")
        assert session.model.startswith(MODEL)
        return str(session.model)


@case("connect: OpenAI class, key as Bearer")
async def bearer() -> str:
    return await greet(openai_class())


@case("connect: Azure class, api-key header, every api-version")
async def azure_key() -> None:
    for version in ("2024-10-01-preview", "2024-12-17", "2025-04-01-preview"):
        await greet(azure_class(version, api_key=KEY))


@case("connect: Azure class, Entra token as Bearer")
async def azure_token() -> None:
    await greet(azure_class(azure_ad_token=KEY))


@case("refused: OpenAI class, wrong key: error event, then close 3000")
async def wrong_key() -> None:
    async with openai_class("wrong") as client, client.beta.realtime.connect(model=MODEL) as connection:
        event = await connection.recv()
        assert event.type == "error"
        assert event.error.code == "invalid_api_key"
        with raising(ConnectionClosedError) as closed:
            await connection.recv()
        assert closed.error.rcvd == Close(3000, "invalid_request_error.invalid_api_key")


@case("refused: Azure class, wrong key 401, unknown deployment and api-version 404")
async def azure_refused() -> None:
    for client, model, status in (
        (azure_class(api_key="wrong"), MODEL, 401),
        (azure_class(api_key=KEY), "no-such-deployment", 404),
        (azure_class("2023-01-01", api_key=KEY), MODEL, 404),
    ):
        with raising(InvalidStatus) as refusal:
            async with client, client.beta.realtime.connect(model=model):
                pass
        assert refusal.error.response.status_code == status
        assert json.loads(refusal.error.response.body or b"")["error"]["message"]


# --------------------------------------------------------------------------------------------------- session


@case("session.update: everything that can be set, and back to null")
async def session_update() -> None:
    wanted: dict[str, Any] = {
        "modalities": ["text", "audio"],
        "instructions": "You are brief.",
        "voice": "verse",
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_alaw",
        "input_audio_transcription": {"model": "whisper-1"},
        "turn_detection": {
            "type": "server_vad",
            "threshold": 0.4,
            "prefix_padding_ms": 250,
            "silence_duration_ms": 450,
            "create_response": False,
        },
        "tools": [WEATHER],
        "tool_choice": "required",
        "temperature": 0.7,
        "max_response_output_tokens": 200,
    }
    async with talking() as talk:
        session = (await talk.update(**wanted)).model_dump(mode="json", exclude_unset=True)
        for name, value in wanted.items():
            got = session[name]
            if isinstance(value, dict):
                got = {key: got[key] for key in value}
            assert got == value, (name, got)
        session = await talk.update(turn_detection=None, input_audio_transcription=None, tools=[])
        assert session.turn_detection is None
        assert session.input_audio_transcription is None
        assert session.tools == []
        assert session.voice == "verse"


@case("errors: told with the client's event_id, and the session lives on unchanged")
async def errors() -> None:
    async with talking() as talk:
        await talk.client.session.update(
            session={"temperature": 9.0, "instructions": "Lost with it."}, event_id="too_hot"
        )
        error = await talk.error()
        assert (error.type, error.code) == ("invalid_request_error", "decimal_above_max_value")
        assert (error.param, error.event_id) == ("session.temperature", "too_hot")
        await talk.client.response.cancel(event_id="nothing")
        error = await talk.error()
        assert (error.code, error.event_id) == ("response_cancel_not_active", "nothing")
        await talk.client.input_audio_buffer.commit()
        assert (await talk.error()).code == "input_audio_buffer_commit_empty"
        await talk.client.conversation.item.delete(item_id="nobody")
        assert (await talk.error()).code == "item_delete_invalid_item_id"
        await talk.client.send({"type": "no.such.event", "event_id": "odd"})
        error = await talk.error()
        assert (error.code, error.param, error.event_id) == ("invalid_value", "type", "odd")
        session = await talk.update(temperature=0.9)
        assert (session.temperature, "Lost" in session.instructions) == (0.9, False)


# --------------------------------------------------------------------------------------------- conversations

common_cases(PREVIEW)


@case(
    "transcription session: what is said is written down, and nothing answered",
    when="transcription_session.updated" in EVENTS,
)
async def transcription_session() -> None:
    intent = {"intent": "transcription"}
    connecting = openai_class().beta.realtime.connect(model=MODEL_2025, extra_query=intent)
    async with connecting as connection:
        talk = Talk(connection, PREVIEW)
        assert (await talk.next()).type == "transcription_session.created"
        await talk.client.transcription_session.update(
            session={"input_audio_transcription": {"model": "whisper-1"}}
        )
        await talk.last("transcription_session.updated")
        await talk.speak(question())
        events = await talk.until("conversation.item.input_audio_transcription.completed")
        assert events[-1].transcript.strip() == HEARD
        assert not any(event.type.startswith("response.") for event in events)


# ------------------------------------------------------------------------------------------- the GA surface

HAS_GA = VERSION >= (1, 107)


@case("GA surface, Azure class: session.type is an unknown_parameter at the preview's address", when=HAS_GA)
async def ga_update() -> None:
    client = azure_class("2025-04-01-preview", api_key=KEY)
    async with client, client.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session={"type": "realtime", "instructions": "Hi."}, event_id="ga")
        async for event in connection:
            if event.type == "error":
                break
        error = event.error
        assert (error.type, error.code) == ("invalid_request_error", "unknown_parameter")
        assert (error.param, error.event_id) == ("session.type", "ga")
        assert error.message == "Unknown parameter: 'session.type'."
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]}
        )
        await connection.response.create()
        async for event in connection:
            assert event.type != "error", event
            if event.type == "response.done":
                break
        assert event.response.status == "completed"


# ------------------------------------------------------------------------------------------------ all frames


@case("golden frames")
async def golden_frames() -> str:
    return judge_frames(inspect, KNOWN)


main()
