# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, unused-ignore"
# pydantic-ai is installed in the judge's own environment only.
"""Judge: ``pydantic-ai``: agents in realtime sessions, with its OpenAI and its Azure model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import openai_ga_events
from pydantic_ai import Agent
from pydantic_ai.messages import (
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartEndEvent,
    RealtimeInputSpeechEndEvent,
    RealtimeInputSpeechStartEvent,
    RealtimeSessionErrorEvent,
    RealtimeTurnCompleteEvent,
    SpeechPart,
    SpeechPartDelta,
)
from pydantic_ai.providers.azure import AzureProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.realtime import RealtimeError
from pydantic_ai.realtime.azure import AzureRealtimeModel
from pydantic_ai.realtime.openai import OpenAIRealtimeModel, SemanticVAD, ServerVAD, map_event
from witness import (
    ECHO,
    FRAMES_GA,
    HEARD,
    KEY,
    MODEL,
    PORT,
    STORY,
    Findings,
    case,
    check_speech,
    judge_frames,
    main,
    question,
    raising,
)

SILENCE = bytes(4 * 48_000)
"""As long as semantic VAD waits at most."""


def openai_model(key: str = KEY, **settings: Any) -> OpenAIRealtimeModel:
    provider = OpenAIProvider(api_key=key, base_url=f"https://127.0.0.1:{PORT}/v1")
    return OpenAIRealtimeModel(MODEL, provider=provider, settings=settings)


def azure_model(key: str = KEY, **settings: Any) -> AzureRealtimeModel:
    provider = AzureProvider(
        api_key=key, azure_endpoint=f"https://127.0.0.1:{PORT}", api_version="2025-04-01-preview"
    )
    return AzureRealtimeModel(MODEL, provider=provider, settings=settings)


def helper() -> Agent[None, str]:
    agent = Agent(instructions="You help.")

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """The weather of a place."""
        return f"It is 21 degrees in {city}."

    return agent


class Talk:
    """A session, and what it told."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.events: list[Any] = []
        self._stream = aiter(session)

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        async for event in self._stream:
            self.events.append(event)
            assert not isinstance(event, RealtimeSessionErrorEvent), event
            if condition(event):
                return event
        raise AssertionError("the session ended")

    async def last(self, kind: type) -> Any:
        return await self.until(lambda event: isinstance(event, kind))

    async def speak(self, sound: bytes) -> None:
        for at in range(0, len(sound), 4800):
            await self.session.send_audio(sound[at : at + 4800])

    def _deltas(self) -> list[SpeechPartDelta]:
        deltas = [event.delta for event in self.events if isinstance(event, PartDeltaEvent)]
        return [delta for delta in deltas if isinstance(delta, SpeechPartDelta) and delta.speaker == "assistant"]

    @property
    def words(self) -> str:
        return "".join(delta.transcript_delta or "" for delta in self._deltas())

    @property
    def sound(self) -> bytes:
        return b"".join(delta.audio_chunk or b"" for delta in self._deltas())


@asynccontextmanager
async def talking(model: Any = None, agent: Agent[None, str] | None = None) -> AsyncIterator[Talk]:
    async with (agent or helper()).realtime(model or openai_model()).session() as session:
        yield Talk(session)


# ----------------------------------------------------------------------------------------------------- cases


@case("connect: OpenAI, key as Bearer; Azure, api-key; a typed question, a spoken answer")
async def connect() -> None:
    for model in (openai_model(), azure_model()):
        async with talking(model) as talk:
            await talk.session.send("Good morning.")
            await talk.last(RealtimeTurnCompleteEvent)
            assert talk.words == "You said: Good morning."
            check_speech(talk.sound, at_least_ms=800)


@case("refused: a wrong key, as each address tells it")
async def wrong_key() -> None:
    for model in (openai_model("wrong"), azure_model("wrong")):
        with raising(Exception) as refusal:
            async with talking(model):
                pass
        assert "401" in str(refusal.error) or "Incorrect API key provided" in str(refusal.error), refusal.error


@case("settings: everything that can be set")
async def settings() -> None:
    model = openai_model(
        max_tokens=200,
        output_modality="text",
        openai_voice="verse",
        openai_output_speed=1.1,
        openai_input_noise_reduction="near_field",
        openai_turn_detection=ServerVAD(
            type="server_vad", threshold=0.4, prefix_padding_ms=250, silence_duration_ms=450
        ),
        openai_truncation="auto",
        input_transcription_model="whisper-1",
    )
    async with talking(model) as talk:
        await talk.session.send("Good morning.")
        await talk.session.wait_for_reply()
        assert "You said: Good morning." in str(talk.session.all_messages())


@case("speech in: server VAD, transcript in the history, spoken answer")
async def voice_turn() -> None:
    async with talking(azure_model()) as talk:
        await talk.speak(question())
        await talk.last(RealtimeInputSpeechStartEvent)
        await talk.last(RealtimeInputSpeechEndEvent)
        await talk.last(RealtimeTurnCompleteEvent)
        assert talk.words == ECHO
        check_speech(talk.sound, at_least_ms=1500)
        user, assistant = [part for message in talk.session.all_messages() for part in message.parts]
        assert isinstance(user, SpeechPart)
        assert (user.transcript.strip(), assistant.transcript) == (HEARD, ECHO)


@case("speech in: semantic VAD ends the turn")
async def semantic() -> None:
    async with talking(
        openai_model(openai_turn_detection=SemanticVAD(type="semantic_vad", eagerness="auto"))
    ) as talk:
        await talk.speak(question() + SILENCE)
        await talk.last(RealtimeTurnCompleteEvent)
        assert talk.words == ECHO


@case("speech in by hand: no turn detection, clear, commit, response")
async def manual_turn() -> None:
    async with talking(openai_model(turn_detection=False)) as talk:
        await talk.speak(bytes(48_000))
        await talk.session.clear_audio()
        await talk.speak(question())
        await talk.session.commit_audio()
        await talk.session.create_response()
        await talk.last(RealtimeTurnCompleteEvent)
        assert talk.words == ECHO


@case("function tool: called, and its result spoken")
async def tool() -> None:
    async with talking() as talk:
        await talk.session.send("How is the weather in Rome?")
        done = await talk.last(FunctionToolResultEvent)
        assert done.part.content == "It is 21 degrees in Rome."
        await talk.last(RealtimeTurnCompleteEvent)
        assert talk.words == "It is 21 degrees in Rome."


@case("barge-in: the user breaks in; what was not played is cut off, and the next answer comes")
async def barge_in() -> None:
    async with talking() as talk:
        await talk.session.send("Tell me a story.")
        await talk.until(lambda _: len(talk.sound) > 24_000)
        await talk.speak(question())
        await talk.last(RealtimeInputSpeechStartEvent)
        await talk.session.interrupt(played_ms=200)
        await talk.until(lambda _: talk.words.endswith(ECHO))


@case("interrupt: the answer ends where it is, and the session lives on")
async def interrupt() -> None:
    async with talking() as talk:
        await talk.session.send("Tell me a story.")
        await talk.until(lambda _: len(talk.sound) > 24_000)
        await talk.session.interrupt(played_ms=100)
        ended = await talk.last(PartEndEvent)
        assert STORY.startswith(talk.words)
        assert ended.part.speaker == "assistant"
        await talk.session.send("Still there?")
        await talk.until(lambda _: talk.words.endswith("You said: Still there?"))


@case("errors: settings that the service refuses are told with its text when the session opens")
async def errors() -> None:
    with raising(RealtimeError) as refusal:
        async with talking(openai_model(openai_voice="nobody")):
            pass
    assert "Invalid value: 'nobody'. Supported values are: 'alloy'" in str(refusal.error)


# ------------------------------------------------------------------------------------------------ all frames


def inspect(frame: str) -> Findings:
    """As the connection maps it; what its models lack is looked at with openai's, which they are."""
    try:
        map_event(json.loads(frame))
    except ValueError as error:
        return Findings([str(error)], [])
    return openai_ga_events.inspect(frame)


@case("golden frames")
async def golden_frames() -> str:
    return judge_frames(inspect, openai_ga_events.KNOWN, FRAMES_GA)


main()
