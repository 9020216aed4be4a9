# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, unused-ignore"
# semantic-kernel is installed in the judge's own environment only.
"""Judge: ``semantic-kernel``: its OpenAI and its Azure realtime client, by WebSocket."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import openai_ga_events
from openai import AsyncOpenAI
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import (
    AzureRealtimeExecutionSettings,
    AzureRealtimeWebsocket,
    ListenEvents,
    OpenAIRealtimeExecutionSettings,
    OpenAIRealtimeWebsocket,
    SendEvents,
    TurnDetection,
)
from semantic_kernel.contents import AudioContent, ChatHistory, RealtimeAudioEvent, RealtimeTextEvent, TextContent
from semantic_kernel.contents.realtime_events import RealtimeEvent, RealtimeFunctionResultEvent
from semantic_kernel.functions import kernel_function
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from witness import (
    ECHO,
    FRAMES_GA,
    HEARD,
    KEY,
    MODEL,
    PORT,
    STORY,
    case,
    check_speech,
    judge_frames,
    main,
    question,
    raising,
)

SILENCE = bytes(4 * 48_000)
"""As long as semantic VAD waits at most."""
WRITTEN = {"model": "whisper-1"}


def openai_client(key: str = KEY) -> Any:
    client = AsyncOpenAI(api_key=key, websocket_base_url=f"wss://127.0.0.1:{PORT}/v1")
    return OpenAIRealtimeWebsocket(ai_model_id=MODEL, api_key=key, client=client)


def azure_client(key: str = KEY) -> Any:
    return AzureRealtimeWebsocket(
        deployment_name=MODEL,
        api_key=key,
        endpoint=f"https://127.0.0.1:{PORT}",
        api_version="2025-04-01-preview",
    )


class Weather:
    @kernel_function
    def get_weather(self, city: Annotated[str, "Where"]) -> str:
        """The weather of a place."""
        return f"It is 21 degrees in {city}."


class Talk:
    """A session of the client, and what it gave."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.events: list[Any] = []
        self._stream = aiter(client.receive())

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        async for event in self._stream:
            self.events.append(event)
            assert event.service_type != ListenEvents.ERROR, event.service_event
            if condition(event):
                return event
        raise AssertionError("the session ended")

    async def last(self, kind: ListenEvents) -> Any:
        return (await self.until(lambda event: event.service_type == kind)).service_event

    async def say(self, text: str) -> None:
        await self.client.send(RealtimeTextEvent(text=TextContent(text=text)))

    async def respond(self) -> None:
        await self.client.send(RealtimeEvent(service_type=SendEvents.RESPONSE_CREATE))

    async def speak(self, sound: bytes) -> None:
        for at in range(0, len(sound), 4800):
            data = base64.b64encode(sound[at : at + 4800]).decode()
            await self.client.send(RealtimeAudioEvent(audio=AudioContent(data=data, data_format="base64")))

    @property
    def words(self) -> str:
        return "".join(event.text.text for event in self.events if isinstance(event, RealtimeTextEvent))

    @property
    def sound(self) -> bytes:
        audio = (event for event in self.events if isinstance(event, RealtimeAudioEvent))
        return b"".join(base64.b64decode(event.service_event.delta) for event in audio)


@asynccontextmanager
async def talking(client: Any = None, settings: Any = None, **session: Any) -> AsyncIterator[Talk]:
    settings = settings or OpenAIRealtimeExecutionSettings(instructions="You help.")
    async with (client or openai_client())(settings=settings, **session) as opened:
        yield Talk(opened)


# ----------------------------------------------------------------------------------------------------- cases


@case("connect: OpenAI, key as Bearer; Azure, api-key; a typed question, a spoken answer")
async def connect() -> None:
    azure = AzureRealtimeExecutionSettings(instructions="You help.")
    for client, settings in ((openai_client(), None), (azure_client(), azure)):
        async with talking(client, settings) as talk:
            await talk.say("Good morning.")
            await talk.respond()
            await talk.last(ListenEvents.RESPONSE_DONE)
            assert talk.words == "You said: Good morning."
            check_speech(talk.sound, at_least_ms=800)


@case("refused: a wrong key ends the session with 3000; at Azure's address 401")
async def wrong_key() -> None:
    with raising(ConnectionClosedError) as closed:
        async with talking(openai_client("wrong")) as talk:
            async for event in talk.client.receive():
                assert event.service_event.error.code == "invalid_api_key"
    assert closed.error.rcvd is not None
    assert closed.error.rcvd.code == 3000
    with raising(InvalidStatus) as refusal:
        async with talking(azure_client("wrong")):
            pass
    assert refusal.error.response.status_code == 401


@case("settings: everything that can be set")
async def settings() -> None:
    turns = TurnDetection(threshold=0.4, prefix_padding_ms=250, silence_duration_ms=450, create_response=False)
    wanted = OpenAIRealtimeExecutionSettings(
        output_modalities=["text"],
        instructions="You are brief.",
        voice="verse",
        input_audio_transcription=WRITTEN,
        turn_detection=turns,
        input_audio_noise_reduction=None,
        max_output_tokens=200,
    )
    async with talking(settings=wanted) as talk:
        session = (await talk.last(ListenEvents.SESSION_UPDATED)).session
        assert (session.output_modalities, session.instructions) == (["text"], "You are brief.")
        assert (session.audio.output.voice, session.max_output_tokens) == ("verse", 200)
        assert session.audio.input.transcription.model == "whisper-1"
        assert session.audio.input.turn_detection.silence_duration_ms == 450


@case("chat history: it comes along, and the answer is to the last of it")
async def history() -> None:
    history = ChatHistory()
    history.add_user_message("Good morning.")
    async with talking(chat_history=history, create_response=True) as talk:
        await talk.last(ListenEvents.RESPONSE_DONE)
        assert talk.words == "You said: Good morning."


@case("speech in: server VAD, transcript, spoken answer")
async def voice_turn() -> None:
    wanted = OpenAIRealtimeExecutionSettings(input_audio_transcription=WRITTEN)
    async with talking(settings=wanted) as talk:
        await talk.speak(question())
        await talk.last(ListenEvents.INPUT_AUDIO_BUFFER_SPEECH_STARTED)
        await talk.last(ListenEvents.INPUT_AUDIO_BUFFER_SPEECH_STOPPED)
        await talk.last(ListenEvents.RESPONSE_DONE)
        assert talk.words == ECHO
        check_speech(talk.sound, at_least_ms=1500)
        heard = ListenEvents.CONVERSATION_ITEM_INPUT_AUDIO_TRANSCRIPTION_COMPLETED
        found = [event.service_event for event in talk.events if event.service_type == heard]
        transcript = found[0] if found else await talk.last(heard)
        assert transcript.transcript.strip() == HEARD


@case("speech in: semantic VAD ends the turn")
async def semantic() -> None:
    wanted = OpenAIRealtimeExecutionSettings(turn_detection=TurnDetection(type="semantic_vad", eagerness="auto"))
    async with talking(settings=wanted) as talk:
        await talk.speak(question() + SILENCE)
        await talk.last(ListenEvents.RESPONSE_DONE)
        assert talk.words == ECHO


@case("function of a plugin: called by the kernel, and its result spoken")
async def function_call() -> None:
    kernel = Kernel()
    kernel.add_plugin(Weather(), plugin_name="weather")
    wanted = OpenAIRealtimeExecutionSettings(function_choice_behavior=FunctionChoiceBehavior.Auto())
    async with talking(settings=wanted, kernel=kernel) as talk:
        await talk.say("How is the weather in Rome?")
        await talk.respond()
        given = await talk.until(lambda event: isinstance(event, RealtimeFunctionResultEvent))
        assert str(given.function_result.result) == "It is 21 degrees in Rome."
        await talk.until(lambda _: talk.words == "It is 21 degrees in Rome.")


@case("barge-in: the answer is cut, truncated, and the next one comes")
async def barge_in() -> None:
    async with talking() as talk:
        await talk.say("Tell me a story.")
        await talk.respond()
        audio = await talk.until(lambda _: len(talk.sound) > 24_000)
        await talk.speak(question())
        response = (await talk.last(ListenEvents.RESPONSE_DONE)).response
        assert (response.status, response.status_details.reason) == ("cancelled", "turn_detected")
        cut = {"item_id": audio.service_event.item_id, "audio_end_ms": 200}
        await talk.client.send(RealtimeEvent(service_type=SendEvents.CONVERSATION_ITEM_TRUNCATE, service_event=cut))
        assert (await talk.last(ListenEvents.CONVERSATION_ITEM_TRUNCATED)).audio_end_ms == 200
        await talk.until(lambda _: talk.words.endswith(ECHO))


@case("cancel: the answer ends where it is")
async def cancel() -> None:
    async with talking() as talk:
        await talk.say("Tell me a story.")
        await talk.respond()
        await talk.until(lambda _: len(talk.sound) > 24_000)
        await talk.client.send(RealtimeEvent(service_type=SendEvents.RESPONSE_CANCEL))
        response = (await talk.last(ListenEvents.RESPONSE_DONE)).response
        assert (response.status, response.status_details.reason) == ("cancelled", "client_cancelled")
        assert STORY.startswith(talk.words)


@case("errors: told with the service's code, and the session lives on")
async def errors() -> None:
    async with talking() as talk:
        delete = {"item_id": "nobody"}
        await talk.client.send(
            RealtimeEvent(service_type=SendEvents.CONVERSATION_ITEM_DELETE, service_event=delete)
        )
        async for event in talk.client.receive():
            if event.service_type == ListenEvents.ERROR:
                break
        assert event.service_event.error.code == "item_delete_invalid_item_id"
        await talk.say("Still there?")
        await talk.respond()
        await talk.last(ListenEvents.RESPONSE_DONE)
        assert talk.words == "You said: Still there?"


# ------------------------------------------------------------------------------------------------ all frames


@case("golden frames, by the models of openai that it builds upon")
async def golden_frames() -> str:
    return judge_frames(openai_ga_events.inspect, openai_ga_events.KNOWN, FRAMES_GA)


main()
