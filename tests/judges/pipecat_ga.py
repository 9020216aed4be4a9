# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-untyped-call, unused-ignore"
# pipecat is installed in the environments of its judges only.
"""Judge: ``pipecat-ai`` 1: pipelines around its OpenAI and Azure realtime services, which speak GA."""

from __future__ import annotations

from typing import Any

from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.azure.realtime.llm import AzureRealtimeLLMService
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat_talk import Bot, inspect_with, running
from witness import (
    CALLER,
    ECHO,
    FRAMES_GA,
    HEARD,
    KEY,
    MODEL,
    PORT,
    RATE,
    Findings,
    Known,
    case,
    check_speech,
    eventually,
    judge_frames,
    main,
    question,
)

WEATHER = FunctionSchema(
    name="get_weather",
    description="The weather of a place.",
    properties={"city": {"type": "string"}},
    required=["city"],
)
WRITTEN = events.InputAudioTranscription(model="whisper-1")


def openai_service(key: str = KEY, model: str = MODEL, **properties: Any) -> OpenAIRealtimeLLMService:
    settings = OpenAIRealtimeLLMService.Settings(
        model=model, session_properties=events.SessionProperties(**properties)
    )
    return OpenAIRealtimeLLMService(api_key=key, base_url=f"ws://127.0.0.1:{PORT}/v1/realtime", settings=settings)


def azure_service(key: str = KEY, **properties: Any) -> AzureRealtimeLLMService:
    settings = AzureRealtimeLLMService.Settings(
        model=MODEL, session_properties=events.SessionProperties(**properties)
    )
    return AzureRealtimeLLMService(
        api_key=key, base_url=f"ws://127.0.0.1:{PORT}/openai/v1/realtime", settings=settings
    )


def hearing(**audio: Any) -> events.AudioConfiguration:
    return events.AudioConfiguration(input=events.AudioInput(transcription=WRITTEN, **audio))


def bot(service: OpenAIRealtimeLLMService, text: str | None = None, **context: Any) -> Bot:
    messages: list[Any] = [{"role": "user", "content": text}] if text else []
    return Bot(service, LLMContextAggregatorPair(LLMContext(messages, **context)), LLMRunFrame)


async def greet(service: OpenAIRealtimeLLMService) -> None:
    async with running(bot(service, "Good morning.")) as talk:
        await talk.run()
        await talk.answer("You said: Good morning.")
        await talk.until(lambda: len(talk.sound) > RATE)
        check_speech(talk.sound, at_least_ms=800)


# ----------------------------------------------------------------------------------------------------- cases


@case("connect: OpenAI service, Bearer; typed context, spoken answer")
async def bearer() -> None:
    await greet(openai_service())


@case("connect: Azure service, api-key; typed context, spoken answer")
async def azure_key() -> None:
    await greet(azure_service())


@case("refused: a wrong key is an ErrorFrame with the service's message")
async def wrong_key() -> None:
    async with running(bot(openai_service("wrong"))) as talk:
        await eventually(lambda: bool(talk.errors))
        assert "Incorrect API key provided" in talk.errors[0]
        talk.before.frames.clear()


@case("session properties: everything that can be set")
async def properties() -> None:
    turns = events.TurnDetection(threshold=0.4, prefix_padding_ms=250, silence_duration_ms=450)
    service = openai_service(
        output_modalities=["text"],
        instructions='Say "As told."',
        audio=events.AudioConfiguration(
            input=events.AudioInput(
                format=events.PCMUAudioFormat(),
                transcription=events.InputAudioTranscription(model="whisper-1", language="en"),
                turn_detection=turns,
            ),
            output=events.AudioOutput(format=events.PCMAAudioFormat(), voice="verse", speed=1.1),
        ),
        tool_choice="none",
        max_output_tokens=200,
        tracing="auto",
    )
    async with running(bot(service, "Hello.")) as talk:
        await talk.run()
        await talk.until(lambda: bool(talk.after.of(LLMFullResponseEndFrame)))
        assert "".join(frame.text for frame in talk.after.of(LLMTextFrame)) == "As told."
        assert not talk.sound


@case("speech in: server VAD, transcript, spoken answer")
async def voice_turn() -> None:
    async with running(bot(azure_service(audio=hearing()))) as talk:
        # It sets the session up when session.created comes, and lets sound pass it; so the bot greets first.
        await talk.run()
        await talk.until(lambda: bool(talk.after.of(LLMFullResponseEndFrame)))
        await talk.speak(question())
        await talk.answer(ECHO)
        await talk.until(lambda: bool(talk.before.of(TranscriptionFrame) or talk.after.of(TranscriptionFrame)))
        (heard,) = {frame.text.strip() for ear in (talk.before, talk.after) for frame in ear.of(TranscriptionFrame)}
        assert heard == HEARD
        check_speech(talk.sound, at_least_ms=1500)


@case("speech in by hand: turn_detection off, the user stops speaking")
async def manual_turn() -> None:
    async with running(bot(openai_service(audio=hearing(turn_detection=False)))) as talk:
        await talk.run()
        await talk.until(lambda: bool(talk.after.of(LLMFullResponseEndFrame)))
        await talk.speak(question())
        await talk.task.queue_frame(UserStoppedSpeakingFrame())
        await talk.answer(ECHO)


@case("function call: asked by voice, called, its result spoken")
async def function_call() -> None:
    called: list[Any] = []

    async def get_weather(params: FunctionCallParams) -> None:
        called.append(dict(params.arguments))
        await params.result_callback({"temperature": 21})

    service = openai_service(model=CALLER, audio=hearing())
    service.register_function("get_weather", get_weather)
    async with running(bot(service, tools=ToolsSchema(standard_tools=[WEATHER]))) as talk:
        await talk.run()
        await talk.until(lambda: bool(talk.after.of(LLMFullResponseEndFrame)))
        await talk.speak(question())
        await talk.answer("The result of get_weather is temperature 21.")
        assert called == [{"city": "Rome"}]


@case("barge-in: the user breaks in; the service truncates, and the next answer comes")
async def barge_in() -> None:
    async with running(bot(openai_service(), "Tell me a story.")) as talk:
        await talk.run()
        await talk.until(lambda: len(talk.sound) > RATE)
        await talk.speak(question())
        await talk.until(lambda: bool(talk.after.of(InterruptionFrame)))
        await talk.answer(ECHO)


@case("items: retrieved, and the error for one that is not there")
async def retrieve() -> None:
    service = openai_service()
    ids: list[str] = []

    @service.event_handler("on_conversation_item_created")
    async def note(_: object, item_id: str, item: object) -> None:
        ids.append(item_id)

    async with running(bot(service, "Good morning.")) as talk:
        await talk.run()
        await talk.answer("You said: Good morning.")
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
    async with running(bot(openai_service(), "Good morning.")) as talk:
        await talk.run()
        await talk.answer("You said: Good morning.")
        await talk.task.queue_frame(LLMUpdateSettingsFrame(settings={"max_output_tokens": 9000}))
        await eventually(lambda: bool(talk.errors))
        assert "integer_above_max_value" in talk.errors[0], talk.errors
        talk.before.frames.clear()


# ------------------------------------------------------------------------------------------------ all frames


def inspect(frame: str) -> Findings:
    findings = inspect_with(events._server_event_types, frame)
    if not findings.faults:
        events.parse_server_event(frame)
    return findings


UNUSED = "its models have the fields that it uses, and drop"
TRANSCRIBES = "it opens no transcription session"
KNOWN = Known(
    disagreements=[
        (
            "session.updated",
            "session.tool_choice: ",
            "tool_choice cannot be a function; it has no way to set one either",
        ),
        ("session.*", "session.type: ", TRANSCRIBES),
        ("session.*", "session.object: ", TRANSCRIBES),
    ],
    extras={
        path: f"{UNUSED} {path}"
        for path in (
            "content",
            "logprobs",
            "name",
            "obfuscation",
            "response.conversation_id",
            "response.metadata",
            "response.usage.input_token_details.cached_tokens_details.image_tokens",
            "session.audio.input.turn_detection.create_response",
            "session.audio.input.turn_detection.idle_timeout_ms",
            "session.audio.input.turn_detection.interrupt_response",
            "session.parallel_tool_calls",
            "session.truncation",
            "usage",
        )
    },
    events={"input_audio_buffer.timeout_triggered": "it cannot ask for it"},
)


@case("golden frames")
async def golden_frames() -> str:
    return judge_frames(inspect, KNOWN, FRAMES_GA)


main()
