# mypy: disable-error-code="import-not-found, misc, no-untyped-call, untyped-decorator, unused-ignore"
# Pipecat is installed in the judge's own environment only.
"""Judge: ``pipecat-ai``: pipelines around its realtime services, OpenAI's and Azure's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMFullResponseEndFrame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    TTSTextFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.aggregators.openai_llm_context import OpenAILLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai_realtime_beta import (
    AzureRealtimeBetaLLMService,
    InputAudioTranscription,
    OpenAIRealtimeBetaLLMService,
    SessionProperties,
    TurnDetection,
    events,
)
from pydantic import BaseModel, ValidationError
from witness import (
    CALLER,
    ECHO,
    HEARD,
    KEY,
    MODEL,
    PORT,
    RATE,
    Findings,
    Known,
    UnknownEvent,
    case,
    check_speech,
    eventually,
    judge_frames,
    main,
    question,
)

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def openai_service(key: str = KEY, model: str = MODEL, **properties: Any) -> OpenAIRealtimeBetaLLMService:
    return OpenAIRealtimeBetaLLMService(
        api_key=key,
        model=model,
        base_url=f"ws://127.0.0.1:{PORT}/v1/realtime",
        session_properties=SessionProperties(**properties),
    )


def azure_service(api_version: str = "2024-10-01-preview", **properties: Any) -> AzureRealtimeBetaLLMService:
    return AzureRealtimeBetaLLMService(
        api_key=KEY,
        base_url=f"ws://127.0.0.1:{PORT}/openai/realtime?api-version={api_version}&deployment={MODEL}",
        session_properties=SessionProperties(**properties),
    )


class Ear(FrameProcessor):
    """Keeps what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.append(frame)
        await self.push_frame(frame, direction)

    def of(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.frames if isinstance(frame, kind)]


class Bot:
    """A pipeline that runs: context aggregators around the service, and ears on both of its sides."""

    def __init__(self, service: OpenAIRealtimeBetaLLMService, text: str | None = None, **context: Any) -> None:
        self.service = service
        messages = [{"role": "user", "content": text}] if text else []
        self.aggregators = service.create_context_aggregator(OpenAILLMContext(messages, **context))
        self.before, self.after = Ear(), Ear()
        self.task = PipelineTask(
            Pipeline([self.aggregators.user(), self.before, service, self.after, self.aggregators.assistant()]),
            cancel_on_idle_timeout=False,
        )

    @property
    def errors(self) -> list[str]:
        return [frame.error for frame in self.before.of(ErrorFrame)]

    async def until(self, condition: Callable[[], bool]) -> None:
        await eventually(lambda: bool(self.errors) or condition())
        assert not self.errors, self.errors

    async def run(self) -> None:
        """Send the context and let the model answer."""
        await self.task.queue_frame(self.aggregators.user().get_context_frame())

    async def speak(self, sound: bytes) -> None:
        for at in range(0, len(sound), RATE // 50 * 2):
            piece = sound[at : at + RATE // 50 * 2]
            await self.task.queue_frame(InputAudioRawFrame(audio=piece, sample_rate=RATE, num_channels=1))

    async def answer(self, words: str) -> None:
        """These words, after all that was said before."""
        await self.until(lambda: self.words.endswith(words) and bool(self.after.of(LLMFullResponseEndFrame)))

    @property
    def words(self) -> str:
        return "".join(frame.text for frame in self.after.of(TTSTextFrame))

    @property
    def sound(self) -> bytes:
        return b"".join(frame.audio for frame in self.after.of(TTSAudioRawFrame))


@asynccontextmanager
async def running(bot: Bot) -> AsyncIterator[Bot]:
    runner = asyncio.create_task(PipelineRunner(handle_sigint=False).run(bot.task))
    try:
        yield bot
        await bot.task.queue_frame(EndFrame())
        await runner
        assert not bot.errors, bot.errors
    finally:
        runner.cancel()


async def greet(service: OpenAIRealtimeBetaLLMService) -> None:
    async with running(Bot(service, "Good morning.")) as bot:
        await bot.run()
        await bot.answer("You said: Good morning.")
        await bot.until(lambda: len(bot.sound) > RATE)
        check_speech(bot.sound, at_least_ms=800)


# ----------------------------------------------------------------------------------------------------- cases


@case("connect: OpenAI service, Bearer; typed context, spoken answer")
async def bearer() -> None:
    await greet(openai_service())


@case("connect: Azure service, api-key, every api-version; typed context, spoken answer")
async def azure_key() -> None:
    for version in ("2024-10-01-preview", "2024-12-17", "2025-04-01-preview"):
        await greet(azure_service(version))


@case("refused: a wrong key is an ErrorFrame with the service's message")
async def wrong_key() -> None:
    async with running(Bot(openai_service("wrong"))) as bot:
        await eventually(lambda: bool(bot.errors))
        assert "Incorrect API key provided" in bot.errors[0]
        bot.before.frames.clear()


@case("session properties: everything that can be set")
async def properties() -> None:
    service = openai_service(
        modalities=["text"],
        instructions='Say "As told."',
        voice="verse",
        input_audio_format="g711_ulaw",
        output_audio_format="g711_alaw",
        input_audio_transcription=InputAudioTranscription(model="whisper-1", language="en"),
        turn_detection=TurnDetection(threshold=0.4, prefix_padding_ms=250, silence_duration_ms=450),
        tools=[WEATHER],
        tool_choice="none",
        temperature=0.7,
        max_response_output_tokens=200,
    )
    async with running(Bot(service, "Hello.")) as bot:
        await bot.run()
        await bot.until(lambda: bool(bot.after.of(LLMFullResponseEndFrame)))
        assert "".join(frame.text for frame in bot.after.of(LLMTextFrame)) == "As told."
        assert not bot.sound


@case("speech in: server VAD, transcript, spoken answer")
async def voice_turn() -> None:
    async with running(Bot(azure_service(input_audio_transcription=InputAudioTranscription("whisper-1")))) as bot:
        # It sets the session up when session.created comes, and lets sound pass it; so the bot greets first.
        await bot.run()
        await bot.until(lambda: bool(bot.after.of(LLMFullResponseEndFrame)))
        await bot.speak(question())
        await bot.answer(ECHO)
        await bot.until(lambda: bool(bot.after.of(TranscriptionFrame)))
        assert bot.after.of(TranscriptionFrame)[0].text.strip() == HEARD
        check_speech(bot.sound, at_least_ms=1500)


@case("speech in by hand: turn_detection off, the user stops speaking")
async def manual_turn() -> None:
    async with running(Bot(openai_service(turn_detection=False))) as bot:
        await bot.run()
        await bot.until(lambda: bool(bot.after.of(LLMFullResponseEndFrame)))
        await bot.speak(question())
        await bot.task.queue_frame(UserStoppedSpeakingFrame())
        await bot.answer(ECHO)


@case("function call: asked by voice, called, its result spoken")
async def function_call() -> None:
    called: list[Any] = []

    async def get_weather(params: FunctionCallParams) -> None:
        called.append(params.arguments)
        await params.result_callback({"temperature": 21})

    service = openai_service(model=CALLER, input_audio_transcription=InputAudioTranscription("whisper-1"))
    service.register_function("get_weather", get_weather)
    bot = Bot(service, tools=[WEATHER])
    async with running(bot):
        await bot.run()
        await bot.until(lambda: bool(bot.after.of(LLMFullResponseEndFrame)))
        await bot.speak(question())
        await bot.answer("The result of get_weather is temperature 21.")
        assert called == [{"city": "Rome"}]


@case("barge-in: the user breaks in; the service truncates, and the next answer comes")
async def barge_in() -> None:
    async with running(Bot(openai_service(), "Tell me a story.")) as bot:
        await bot.run()
        await bot.until(lambda: len(bot.sound) > RATE)
        await bot.speak(question())
        await bot.until(lambda: bool(bot.after.of(StartInterruptionFrame)))
        await bot.answer(ECHO)


@case("items: retrieved, and the error for one that is not there")
async def retrieve() -> None:
    service = openai_service()
    ids: list[str] = []

    @service.event_handler("on_conversation_item_created")
    async def note(_: object, item_id: str, item: object) -> None:
        ids.append(item_id)

    async with running(Bot(service, "Good morning.")) as bot:
        await bot.run()
        await bot.answer("You said: Good morning.")
        item = await service.retrieve_conversation_item(ids[0])
        assert item.content[0].text == "Good morning."
        try:
            await service.retrieve_conversation_item("nobody")
        except Exception as error:
            problem = str(error)
        else:
            problem = ""
        assert problem.startswith("Error retrieving item"), problem


@case("settings in mid-session, and errors: an ErrorFrame with the service's code")
async def errors() -> None:
    async with running(Bot(openai_service(), "Good morning.")) as bot:
        await bot.run()
        await bot.answer("You said: Good morning.")
        await bot.task.queue_frame(LLMUpdateSettingsFrame(settings={"temperature": 9.0}))
        await eventually(lambda: bool(bot.errors))
        assert "decimal_above_max_value" in bot.errors[0]
        bot.before.frames.clear()


@case("reconnect: the conversation begins anew")
async def reconnect() -> None:
    async with running(Bot(openai_service(), "Good morning.")) as bot:
        await bot.run()
        await bot.answer("You said: Good morning.")
        await bot.service.reset_conversation()
        await bot.run()
        await bot.until(lambda: "previously saved conversation" in bot.words)


# ------------------------------------------------------------------------------------------------ all frames


def inspect(frame: str) -> Findings:
    try:
        model = events._server_event_types[json.loads(frame)["type"]]
    except KeyError as error:
        raise UnknownEvent(error.args[0]) from error
    try:
        event = model.model_validate_json(frame, strict=True)
    except ValidationError as error:
        return Findings([f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors()], [])
    events.parse_server_event(frame)
    return Findings([], sorted(set(_lost(event, json.loads(frame), ""))))


def _lost(event: Any, raw: Any, path: str) -> list[str]:
    """Paths of what was sent and is not in the model."""
    lost: list[str] = []
    if isinstance(event, BaseModel):
        for name, value in raw.items():
            if name in type(event).model_fields:
                lost += _lost(getattr(event, name), value, f"{path}{name}.")
            elif name not in (event.model_extra or {}):
                lost.append(f"{path}{name}")
    elif isinstance(event, list):
        for one, value in zip(event, raw, strict=True):
            lost += _lost(one, value, path)
    return lost


UNUSED = "its models have the fields that it uses, and drop"
KNOWN = Known(
    disagreements=[
        (
            "session.updated",
            "session.tool_choice: ",
            "tool_choice cannot be a function; it has no way to set one either",
        )
    ],
    extras={
        path: f"{UNUSED} {path}"
        for path in (
            "logprobs",
            "name",
            "response.conversation_id",
            "response.max_output_tokens",
            "response.metadata",
            "response.modalities",
            "response.output_audio_format",
            "response.temperature",
            "response.voice",
            "session.client_secret",
            "session.expires_at",
            "session.id",
            "session.include",
            "session.model",
            "session.object",
            "session.speed",
            "session.tracing",
            "session.turn_detection.create_response",
            "session.turn_detection.interrupt_response",
            "usage",
        )
    },
    events=dict.fromkeys(
        ("transcription_session.created", "transcription_session.updated"),
        "is not known to it; it opens no transcription session",
    ),
)


@case("golden frames")
async def golden_frames() -> str:
    return judge_frames(inspect, KNOWN)


main()
