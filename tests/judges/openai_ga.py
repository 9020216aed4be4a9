# mypy: disable-error-code="attr-defined, arg-type, typeddict-item, call-arg, union-attr, import-not-found"
# It runs with a version of openai of its own, and not the one that mypy sees.
"""Judge: the Python package ``openai``: its GA surface ``.realtime``, OpenAI class, and at Azure's GA address."""

from __future__ import annotations

import json
from typing import Any

import openai
import openai_ga_events
from openai_talk import WEATHER, Surface, Talk, common_cases, openai_class, talking_on
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from witness import (
    FORGETFUL,
    FRAMES_GA,
    HEARD,
    KEY,
    MODEL,
    PIXEL,
    PORT,
    case,
    judge_frames,
    main,
    question,
    raising,
)

_ULAW = {"format": {"type": "audio/pcmu"}}
GA = Surface(
    of=lambda client: client.realtime,
    events=openai_ga_events.EVENTS,
    greeting="session.created",
    audio="response.output_audio.delta",
    transcript="response.output_audio_transcript.delta",
    text="response.output_text.delta",
    item="conversation.item.done",
    in_text={"output_modalities": ["text"]},
    written={"audio": {"input": {"transcription": {"model": "gpt-realtime-whisper"}}}},
    by_hand={"audio": {"input": {"turn_detection": None}}},
    uninterrupted={"audio": {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}},
    telephone={"audio": {"input": _ULAW, "output": _ULAW}},
    session={"type": "realtime"},
    assistant="output_text",
)
talking = talking_on(GA)
AZURE = "openai/v1"
"""Azure's GA address takes the class of OpenAI, as Microsoft's documents have it."""


# --------------------------------------------------------------------------------------------------- connect


@case("connect: OpenAI's address and Azure's")
async def connect() -> None:
    for client in (openai_class(), openai_class(path=AZURE)):
        async with talking(client) as talk:
            session = talk.events[0].session
            assert (session.type, session.output_modalities) == ("realtime", ["audio"])
            assert session.audio.input.turn_detection.type == "server_vad"


@case("refused: wrong key and unknown model, as each address tells it")
async def refused() -> None:
    async with openai_class("wrong") as client, client.realtime.connect(model=MODEL) as connection:
        event = await connection.recv()
        assert (event.type, event.error.code) == ("error", "invalid_api_key")
        with raising(ConnectionClosedError) as closed:
            await connection.recv()
        assert closed.error.rcvd == Close(3000, "invalid_request_error.invalid_api_key")
    for client, model, status in (
        (openai_class("wrong", AZURE), MODEL, 401),
        (openai_class(path=AZURE), "no-such-deployment", 404),
    ):
        with raising(InvalidStatus) as refusal:
            async with client, client.realtime.connect(model=model):
                pass
        assert refusal.error.response.status_code == status


# --------------------------------------------------------------------------------------------- client secrets


def rest(path: str, key: str = KEY) -> openai.AsyncOpenAI:
    address = f"127.0.0.1:{PORT}/{path}"
    return openai.AsyncOpenAI(
        api_key=key, base_url=f"http://{address}", websocket_base_url=f"ws://{address}", max_retries=0
    )


@case("client_secrets.create: at both addresses, and a connection with the secret")
async def client_secrets() -> None:
    session: Any = {"type": "realtime", "model": MODEL, "instructions": "You are brief.", **GA.in_text}
    expires_after: Any = {"anchor": "created_at", "seconds": 60}
    for path in ("v1", "openai/v1"):
        async with rest(path) as client:
            raw = await client.realtime.client_secrets.with_raw_response.create(
                expires_after=expires_after, session=session
            )
            minted = raw.parse()
            body = json.loads(raw.text)
        assert minted.value.startswith("ek_")
        assert type(minted).model_validate(body).model_dump(mode="json", exclude_unset=True) == body
        assert (minted.session.type, minted.session.instructions) == ("realtime", "You are brief.")
        async with rest(path, minted.value) as browser, talking(browser) as talk:
            assert talk.events[0].session.instructions == "You are brief."
            await talk.say("Hello.")


@case("client_secrets.create: a transcription session")
async def transcription_secret() -> None:
    session: Any = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
    async with rest("v1") as client:
        minted = await client.realtime.client_secrets.create(session=session)
    assert minted.session.object == "realtime.transcription_session"
    async with (
        rest("v1", minted.value) as browser,
        browser.realtime.connect(extra_query={"intent": "transcription"}) as connection,
    ):
        created = await connection.recv()
        assert created.session.type == "transcription"
        assert created.session.audio.input.transcription.model == "whisper-1"


@case("client_secrets.create: refused in the client's own errors")
async def no_client_secret() -> None:
    async with rest("v1") as client:
        with raising(openai.BadRequestError) as bad:
            await client.realtime.client_secrets.create(session={"type": "realtime", "voice": "alloy"})
        assert (bad.error.code, bad.error.param) == ("unknown_parameter", "session.voice")
        with raising(openai.BadRequestError) as bad:
            await client.realtime.client_secrets.create(expires_after={"anchor": "created_at", "seconds": 9})
        assert (bad.error.code, bad.error.param) == ("integer_below_min_value", "expires_after.seconds")
        minted = await client.realtime.client_secrets.create(session={"type": "realtime", "model": MODEL})
    for key in ("wrong", minted.value):
        async with rest("v1", key) as other:
            with raising(openai.AuthenticationError) as denied:
                await other.realtime.client_secrets.create()
            assert denied.error.code == "invalid_api_key"


# --------------------------------------------------------------------------------------------------- session


@case("session.update: everything that can be set, and back to null")
async def session_update() -> None:
    wanted: dict[str, Any] = {
        "type": "realtime",
        "output_modalities": ["text"],
        "instructions": "You are brief.",
        "audio": {
            "input": {
                "format": {"type": "audio/pcmu"},
                "transcription": {"model": "gpt-4o-mini-transcribe", "language": "en", "prompt": "names"},
                "turn_detection": {
                    "type": "server_vad",
                    "threshold": 0.4,
                    "prefix_padding_ms": 250,
                    "silence_duration_ms": 450,
                    "create_response": False,
                    "interrupt_response": False,
                },
            },
            "output": {"format": {"type": "audio/pcma"}, "voice": "marin", "speed": 1.1},
        },
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "max_output_tokens": 200,
        "tracing": "auto",
        "include": ["item.input_audio_transcription.logprobs"],
    }
    async with talking() as talk:
        session = (await talk.update(**wanted)).model_dump(mode="json", exclude_unset=True)
        _contains(session, wanted)
        session = await talk.update(
            audio={"input": {"turn_detection": None, "transcription": None}}, tools=[], tool_choice="auto"
        )
        assert session.audio.input.turn_detection is None
        assert session.audio.input.transcription is None
        assert session.audio.output.voice == "marin"
        assert session.tools == []
        session = await talk.update(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
        assert session.audio.input.turn_detection.eagerness == "auto"


def _contains(got: Any, wanted: Any, path: str = "session") -> None:
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            _contains(got[key], value, f"{path}.{key}")
    else:
        assert got == wanted, (path, got)


@case("errors: told with the client's event_id, and the session lives on unchanged")
async def errors() -> None:
    async with talking() as talk:
        both: Any = {"type": "realtime", "output_modalities": ["text", "audio"], "instructions": "Lost with it."}
        await talk.client.session.update(session=both, event_id="both")
        error = await talk.error()
        assert (error.code, error.param, error.event_id) == ("invalid_value", "session.output_modalities", "both")
        await talk.client.session.update(session={"instructions": "Of what type?"})
        error = await talk.error()
        assert (error.code, error.param) == ("missing_required_parameter", "session.type")
        await talk.client.session.update(session={"type": "realtime", "voice": "ash"})
        error = await talk.error()
        assert (error.code, error.param) == ("unknown_parameter", "session.voice")
        await talk.client.response.cancel(event_id="nothing")
        error = await talk.error()
        assert (error.code, error.event_id) == ("response_cancel_not_active", "nothing")
        session = await talk.update(max_output_tokens=100)
        assert (session.max_output_tokens, "Lost" in session.instructions) == (100, False)


# --------------------------------------------------------------------------------------------- conversations

common_cases(GA)


@case("images: shown to the model, counted, and shown back; what is no picture is refused")
async def images() -> None:
    async with talking() as talk:
        words: Any = {"type": "input_text", "text": "I see"}
        content: Any = [words, {"type": "input_image", "image_url": PIXEL, "detail": "high"}]
        await talk.client.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        item = (await talk.last("conversation.item.done")).item
        assert [part.model_dump(exclude_unset=True) for part in item.content] == content
        await talk.client.conversation.item.retrieve(item_id=item.id)
        assert (await talk.last("conversation.item.retrieved")).item == item
        events = await talk.respond(**GA.in_text)
        assert talk.writing(events) == "You said: I see a picture."
        assert events[-1].response.usage.input_token_details.image_tokens == 255
        content[1]["image_url"] = "https://example.com/cat.png"
        await talk.client.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        error = (await talk.last("error")).error
        assert (error.code, error.param) == ("invalid_value", "item.content[1].image_url")


@case("truncation: disabled the response fails, auto and a ratio leave the oldest out")
async def truncation() -> None:
    async with talking(model=FORGETFUL) as talk:
        assert (await talk.update(truncation="disabled", instructions="Be brief.")).truncation == "disabled"
        # 100 tokens each, of the 297 that there is room for.
        for _ in range(3):
            await talk.say(" word" * 96)
        response = (await talk.respond(**GA.in_text))[-1].response
        assert (response.status, response.status_details.error.code) == ("failed", "context_length_exceeded")
        ratio: Any = {"type": "retention_ratio", "retention_ratio": 0.5}
        for truncation, tokens in (("auto", 203), (ratio, 103)):
            shown = (await talk.update(truncation=truncation)).truncation
            assert (shown if shown == "auto" else shown.model_dump(exclude_unset=True)) == truncation
            response = (await talk.respond(conversation="none", **GA.in_text))[-1].response
            assert (response.status, response.usage.input_tokens) == ("completed", tokens)


@case("parallel_tool_calls: one response calls twice, or once where it may not")
async def parallel_tool_calls() -> None:
    async with talking() as talk:
        session = await talk.update(tools=[WEATHER], parallel_tool_calls=True)
        assert session.parallel_tool_calls is True
        await talk.say("How is the weather in Rome and Paris?")
        cities = ["Rome", "Paris"]
        for options, expected in (({}, cities), ({"parallel_tool_calls": False}, cities[:1])):
            response = (await talk.respond(conversation="none", **options))[-1].response
            assert [json.loads(call.arguments)["city"] for call in response.output] == expected
        assert (await talk.update(parallel_tool_calls=False)).parallel_tool_calls is False
        calls = (await talk.respond())[-1].response.output
        assert [call.name for call in calls] == ["get_weather"]


@case("idle timeout: a user who says nothing is spoken to")
async def idle_timeout() -> None:
    async with talking() as talk:
        await talk.update(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}})
        await talk.say("Good morning.")
        await talk.respond()
        await talk.speak(bytes(6 * 48_000))
        triggered = await talk.last("input_audio_buffer.timeout_triggered")
        assert triggered.audio_start_ms < triggered.audio_end_ms
        committed = await talk.last("input_audio_buffer.committed")
        assert committed.item_id == triggered.item_id
        assert (await talk.last("response.done")).response.status == "completed"


@case("transcription session: what is said is written down, and nothing answered")
async def transcription_session() -> None:
    intent = {"intent": "transcription"}
    async with openai_class() as client, client.realtime.connect(extra_query=intent) as connection:
        talk = Talk(connection, GA)
        assert (await talk.next()).session.type == "transcription"
        session: Any = {"type": "transcription", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        await talk.client.session.update(session=session)
        await talk.last("session.updated")
        await talk.speak(question())
        events = await talk.until("conversation.item.input_audio_transcription.completed")
        assert events[-1].transcript.strip() == HEARD
        assert not any(event.type.startswith("response.") for event in events)


# ------------------------------------------------------------------------------------------------ all frames


@case("golden frames")
async def golden_frames() -> str:
    return judge_frames(openai_ga_events.inspect, openai_ga_events.KNOWN, FRAMES_GA)


main()
