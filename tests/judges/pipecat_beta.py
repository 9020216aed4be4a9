# mypy: disable-error-code="import-not-found, misc, no-untyped-call, untyped-decorator, unused-ignore"
# Pipecat is installed in the judge's own environment only.
"""Judge: ``pipecat-ai``: pipelines around its realtime services, OpenAI's and Azure's."""

from __future__ import annotations

from typing import Any

from pipecat.frames.frames import (
    LLMFullResponseEndFrame,
    LLMTextFrame,
    LLMUpdateSettingsFrame,
    StartInterruptionFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.openai_llm_context import OpenAILLMContext
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai_realtime_beta import (
    AzureRealtimeBetaLLMService,
    InputAudioTranscription,
    OpenAIRealtimeBetaLLMService,
    SessionProperties,
    TurnDetection,
    events,
)
from pipecat_talk import Bot, inspect_with, running
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


def bot(service: OpenAIRealtimeBetaLLMService, text: str | None = None, **context: Any) -> Bot:
    messages = [{"role": "user", "content": text}] if text else []
    aggregators = service.create_context_aggregator(OpenAILLMContext(messages, **context))
    return Bot(service, aggregators, lambda: aggregators.user().get_context_frame())


async def greet(service: OpenAIRealtimeBetaLLMService) -> None:
    async with running(bot(service, "Good morning.")) as talk:
        await talk.run()
        await talk.answer("You said: Good morning.")
        await talk.until(lambda: len(talk.sound) > RATE)
        check_speech(talk.sound, at_least_ms=800)


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
    async with running(bot(openai_service("wrong"))) as talk:
        await eventually(lambda: bool(talk.errors))
        assert "Incorrect API key provided" in talk.errors[0]
        talk.before.frames.clear()


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
    async with running(bot(service, "Hello.")) as talk:
        await talk.run()
        await talk.until(lambda: bool(talk.after.of(LLMFullResponseEndFrame)))
        assert "".join(frame.text for frame in talk.after.of(LLMTextFrame)) == "As told."
        assert not talk.sound


@case("speech in: server VAD, transcript, spoken answer")
async def voice_turn() -> None:
    async with running(bot(azure_service(input_audio_transcription=InputAudioTranscription("whisper-1")))) as talk:
        # It sets the session up when session.created comes, and lets sound pass it; so the bot greets first.
        await talk.run()
        await talk.until(lambda: bool(talk.after.of(LLMFullResponseEndFrame)))
        await talk.speak(question())
        await talk.answer(ECHO)
        await talk.until(lambda: bool(talk.after.of(TranscriptionFrame)))
        assert talk.after.of(TranscriptionFrame)[0].text.strip() == HEARD
        check_speech(talk.sound, at_least_ms=1500)


@case("speech in by hand: turn_detection off, the user stops speaking")
async def manual_turn() -> None:
    async with running(bot(openai_service(turn_detection=False))) as talk:
        await talk.run()
        await talk.until(lambda: bool(talk.after.of(LLMFullResponseEndFrame)))
        await talk.speak(question())
        await talk.task.queue_frame(UserStoppedSpeakingFrame())
        await talk.answer(ECHO)


@case("function call: asked by voice, called, its result spoken")
async def function_call() -> None:
    called: list[Any] = []

    async def get_weather(params: FunctionCallParams) -> None:
        called.append(params.arguments)
        await params.result_callback({"temperature": 21})

    service = openai_service(model=CALLER, input_audio_transcription=InputAudioTranscription("whisper-1"))
    service.register_function("get_weather", get_weather)
    talk = bot(service, tools=[WEATHER])
    async with running(talk):
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
        await talk.until(lambda: bool(talk.after.of(StartInterruptionFrame)))
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
        await talk.task.queue_frame(LLMUpdateSettingsFrame(settings={"temperature": 9.0}))
        await eventually(lambda: bool(talk.errors))
        assert "decimal_above_max_value" in talk.errors[0]
        talk.before.frames.clear()


@case("reconnect: the conversation begins anew")
async def reconnect() -> None:
    async with running(bot(openai_service(), "Good morning.")) as talk:
        await talk.run()
        await talk.answer("You said: Good morning.")
        await talk.service.reset_conversation()
        await talk.run()
        await talk.until(lambda: "previously saved conversation" in talk.words)


# ------------------------------------------------------------------------------------------------ all frames


def inspect(frame: str) -> Findings:
    findings = inspect_with(events._server_event_types, frame)
    if not findings.faults:
        events.parse_server_event(frame)
    return findings


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
