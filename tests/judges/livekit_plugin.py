# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-untyped-call, unused-ignore"
# LiveKit is installed in the judge's own environment only.
"""Judge: ``livekit-plugins-openai``: its realtime model by itself, and in an agent session with sound both ways.

1.1 speaks the preview; 1.8 speaks GA, but the preview at Azure's address when it is given an api-version.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import Agent, AgentSession, APIConnectionError, APIError, RunContext, function_tool, llm
from livekit.agents.voice import io
from livekit.plugins.openai.realtime import RealtimeModel
from openai.types.beta.realtime.session import InputAudioTranscription, TurnDetection
from witness import (
    ECHO,
    FRAMES,
    FRAMES_GA,
    HEARD,
    KEY,
    MODEL,
    MODEL_2025,
    PORT,
    RATE,
    case,
    check_speech,
    eventually,
    judge_frames,
    main,
    question,
    raising,
)

GA = tuple(int(part) for part in version("livekit-plugins-openai").split(".")[:2]) >= (1, 2)
models = importlib.import_module("openai_ga_events" if GA else "openai_events")
VERSIONS = ("2024-10-01-preview", "2024-12-17", "2025-04-01-preview")
# 1.8 says at Azure's addresses always that the session's model is gpt-realtime.
DEPLOYMENT, EARLY = ("gpt-realtime", "gpt-realtime") if GA else (MODEL, MODEL_2025)
ITEM = "conversation.item.added" if GA else "conversation.item.created"
"""What tells of an item first."""


def azure_model(http: aiohttp.ClientSession, **options: Any) -> RealtimeModel:
    if "entra_token" not in options:
        options.setdefault("api_key", KEY)
    if not GA:
        options.setdefault("api_version", VERSIONS[-1])
    options.setdefault("azure_deployment", DEPLOYMENT)
    return RealtimeModel.with_azure(azure_endpoint=f"http://127.0.0.1:{PORT}", http_session=http, **options)


def openai_model(http: aiohttp.ClientSession, **options: Any) -> RealtimeModel:
    return RealtimeModel(
        model=MODEL, api_key=KEY, base_url=f"http://127.0.0.1:{PORT}/v1", http_session=http, **options
    )


class Talk:
    """One ``RealtimeSession``, everything that it was sent, and everything that it told."""

    def __init__(self, model: RealtimeModel) -> None:
        self.session = model.session()
        self.raw: list[dict[str, Any]] = []
        self.told: dict[str, asyncio.Queue[Any]] = {}
        self.errors: list[Any] = []
        self.session.on("openai_server_event_received", self.raw.append)
        self.session.on("error", self.errors.append)
        for name in ("generation_created", "input_speech_started", "input_speech_stopped"):
            self._listen(name)
        self._listen("input_audio_transcription_completed")
        self._listen("session_reconnected")
        self._seen = 0

    def _listen(self, name: str) -> None:
        queue = self.told[name] = asyncio.Queue()
        self.session.on(name, queue.put_nowait)

    async def sent(self, kind: str) -> dict[str, Any]:
        """The next event of this type that the server sent."""
        while True:
            while self._seen < len(self.raw):
                event = self.raw[self._seen]
                self._seen += 1
                if event["type"] == kind:
                    return event
            assert not self.errors, reasons(self.errors)
            await asyncio.sleep(0.005)

    async def say(self, text: str) -> None:
        context = self.session.chat_ctx.copy()
        context.add_message(role="user", content=text)
        await self.session.update_chat_ctx(context)

    async def reply(self, **options: Any) -> tuple[str, bytes]:
        """``generate_reply`` -> what it says, as text and as pcm16."""
        return await heard(await self.session.generate_reply(**options))

    def push(self, sound: bytes) -> None:
        for frame in frames(sound):
            self.session.push_audio(frame)


def reasons(errors: list[Any]) -> list[Any]:
    """What the server, or the way to it, found wrong."""
    return [getattr(error.error, "body", None) or error.error for error in errors]


@asynccontextmanager
async def talking(make: Any = azure_model, **options: Any) -> AsyncIterator[Talk]:
    async with aiohttp.ClientSession() as http:
        talk = Talk(make(http, **options))
        try:
            await talk.sent("session.updated")
            yield talk
        finally:
            await talk.session.aclose()
        assert not talk.errors, reasons(talk.errors)


async def heard(generation: llm.GenerationCreatedEvent) -> tuple[str, bytes]:
    words, sound = "", b""
    async for message in generation.message_stream:
        words += "".join([delta async for delta in message.text_stream])
        sound += b"".join([bytes(frame.data) async for frame in message.audio_stream])
    return words, sound


def frames(sound: bytes) -> list[rtc.AudioFrame]:
    """pcm16 at 24 kHz in frames of 10 ms."""
    step = RATE // 100 * 2
    return [
        rtc.AudioFrame(sound[at : at + step], RATE, 1, step // 2) for at in range(0, len(sound) - step + 1, step)
    ]


# --------------------------------------------------------------------------------------------------- connect


@case("connect: with_azure, api-key")
async def azure_key() -> None:
    async with talking() as talk:
        assert talk.raw[0]["type"] == "session.created"


@case("connect: with_azure, every api-version, a deployment with the profile of 2025; a typed answer")
async def azure_early() -> None:
    for api_version in VERSIONS:
        async with talking(api_version=api_version, azure_deployment=EARLY, voice="alloy") as talk:
            await talk.say("Good morning.")
            assert (await talk.reply())[0] == "You said: Good morning."


@case("connect: with_azure, Entra token")
async def azure_token() -> None:
    async with talking(entra_token=KEY):
        pass


@case("connect: OpenAI, key as Bearer")
async def bearer() -> None:
    async with talking(openai_model):
        pass


@case("refused: with a wrong key it cannot reply, and closes with the 401")
async def wrong_key() -> None:
    async with aiohttp.ClientSession() as http:
        session = azure_model(http, api_key="wrong").session()
        with raising(llm.RealtimeError):
            await session.generate_reply()
        with raising((aiohttp.WSServerHandshakeError, APIConnectionError)) as refusal:
            await session.aclose()
        assert "401" in str(refusal.error)


@case("reconnect: by its own clock, and the conversation comes along")
async def reconnect() -> None:
    async with aiohttp.ClientSession() as http:
        model = openai_model(http, max_session_duration=2.0)
        talk = Talk(model)
        await talk.sent("session.updated")
        await talk.say("Remember me.")
        await talk.told["session_reconnected"].get()
        assert (await talk.sent("session.created"))["session"]["id"] != talk.raw[0]["session"]["id"]
        created = await talk.sent(ITEM)
        assert created["item"]["content"][0]["text"] == "Remember me."
        assert (await talk.reply())[0] == "You said: Remember me."
        await talk.session.aclose()
        assert not talk.errors, reasons(talk.errors)


# ------------------------------------------------------------------------------------------------ the model


@case("update_options: everything that can be set")
async def options() -> None:
    async with talking() as talk:
        talk.session.update_options(
            voice="verse",
            tool_choice="required",
            max_response_output_tokens=200,
            input_audio_transcription=InputAudioTranscription(model="whisper-1"),
            turn_detection=TurnDetection(
                type="server_vad",
                threshold=0.4,
                prefix_padding_ms=250,
                silence_duration_ms=450,
                create_response=False,
            ),
            **({} if GA else {"temperature": 0.7}),
        )
        session = (await talk.sent("session.updated"))["session"]
        if GA:
            voice, turns = session["audio"]["output"]["voice"], session["audio"]["input"]["turn_detection"]
            assert session["max_output_tokens"] == 200
        else:
            voice, turns = session["voice"], session["turn_detection"]
            assert (session["temperature"], session["max_response_output_tokens"]) == (0.7, 200)
        assert (voice, session["tool_choice"]) == ("verse", "required")
        assert (turns["threshold"], turns["prefix_padding_ms"], turns["silence_duration_ms"]) == (0.4, 250, 450)
        await talk.session.update_instructions("Be brief.")
        assert (await talk.sent("session.updated"))["session"]["instructions"] == "Be brief."


@case("typed: generate_reply speaks, with its own metadata on response.created")
async def typed() -> None:
    async with talking() as talk:
        await talk.say("Good morning.")
        words, sound = await talk.reply()
        assert words == "You said: Good morning."
        check_speech(sound, at_least_ms=800)
        words, _ = await talk.reply(instructions='Say "As told."')
        assert words == "As told."
        assert [item.text_content for item in talk.session.chat_ctx.items] == [
            "Good morning.",
            "You said: Good morning.",
            "As told.",
        ]


@case("chat context: items are deleted and inserted where they belong")
async def chat_context() -> None:
    async with talking() as talk:
        for text in ("One.", "Two.", "Three."):
            await talk.say(text)
        context = talk.session.chat_ctx.copy()
        del context.items[1]
        context.items.insert(0, llm.ChatMessage(role="system", content=["Zero."]))
        await talk.session.update_chat_ctx(context)
        assert [item.text_content for item in talk.session.chat_ctx.items] == ["Zero.", "One.", "Three."]


@case("speech in: server VAD, transcript, spoken answer")
async def voice_turn() -> None:
    async with talking() as talk:
        talk.push(question())
        await talk.told["input_speech_started"].get()
        await talk.told["input_speech_stopped"].get()
        transcript = await talk.told["input_audio_transcription_completed"].get()
        assert transcript.transcript.strip() == HEARD
        words, sound = await heard(await talk.told["generation_created"].get())
        assert words == ECHO
        check_speech(sound, at_least_ms=1500)


@case("speech in by hand: clear_audio, commit_audio, generate_reply")
async def manual_turn() -> None:
    async with talking(turn_detection=None) as talk:
        talk.push(bytes(48_000))
        talk.session.clear_audio()
        talk.push(question())
        talk.session.commit_audio()
        await talk.sent(ITEM)
        assert (await talk.reply())[0] == ECHO


@case("function call: the stream of calls, and the result in the chat context")
async def function_call() -> None:
    @function_tool
    async def get_weather(city: str) -> str:
        """The weather of a place."""
        return city

    async with talking() as talk:
        await talk.session.update_tools([get_weather])
        await talk.sent("session.updated")
        await talk.say("How is the weather in Rome?")
        generation = await talk.session.generate_reply()
        (call,) = [call async for call in generation.function_stream]
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Rome"})
        context = talk.session.chat_ctx.copy()
        context.items.append(
            llm.FunctionCallOutput(
                call_id=call.call_id, name=call.name, output='{"temperature": 21}', is_error=False
            )
        )
        await talk.sent("response.done")
        await talk.session.update_chat_ctx(context)
        assert (await talk.reply())[0] == "The result of get_weather is temperature 21."


@case("interrupt and truncate")
async def interrupt() -> None:
    async with talking() as talk:
        await talk.say("Tell me a story.")
        generation = await talk.session.generate_reply()
        message = await anext(aiter(generation.message_stream))
        played = 0.0
        async for frame in message.audio_stream:
            played += frame.duration
            if played > 0.2:
                break
        talk.session.interrupt()
        done = (await talk.sent("response.done"))["response"]
        assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "client_cancelled")
        more = {"modalities": ["audio"]} if GA else {}
        talk.session.truncate(message_id=message.message_id, audio_end_ms=100, **more)
        assert (await talk.sent("conversation.item.truncated"))["audio_end_ms"] == 100
        # 1.1 takes the answer to a second one for no error; 1.8 knows that nothing runs.
        talk.session.interrupt()
        if not GA:
            assert (await talk.sent("error"))["error"]["code"] == "response_cancel_not_active"


@case("errors: its own type, with the service's code, and the session lives on")
async def errors() -> None:
    async with talking() as talk:
        talk.session.update_options(max_response_output_tokens=9000)
        await eventually(lambda: bool(talk.errors))
        error = talk.errors.pop()
        assert isinstance(error.error, APIError)
        assert error.recoverable
        assert error.error.body.code == "integer_above_max_value"
        assert (await talk.reply(instructions='Say "Still here."'))[0] == "Still here."


# ---------------------------------------------------------------------------------------- an agent's session


class Microphone(io.AudioInput):
    """What the user says: frames as they were put."""

    def __init__(self) -> None:
        super().__init__(**({"label": "microphone"} if GA else {}))
        self._frames: asyncio.Queue[rtc.AudioFrame] = asyncio.Queue()

    async def __anext__(self) -> rtc.AudioFrame:
        return await self._frames.get()

    async def ask(self, session: AgentSession[None], sound: bytes) -> None:
        """The beginning first, and the rest when the session has noticed that somebody speaks.

        It sends ``response.cancel`` then, whether or not something runs. Nobody speaks faster than that, but sound
        that comes at once may be answered before, and the answer would be cancelled.
        """
        for frame in frames(sound[: 2 * RATE]):
            self._frames.put_nowait(frame)
        await eventually(lambda: session.user_state == "speaking")
        for frame in frames(sound[2 * RATE :]):
            self._frames.put_nowait(frame)


class Speaker(io.AudioOutput):
    """What the user hears. ``patient``: playing does not end by itself."""

    def __init__(self) -> None:
        more = {"label": "speaker", "capabilities": io.AudioOutputCapabilities(pause=False)} if GA else {}
        super().__init__(sample_rate=RATE, **more)
        self.sound = b""
        self.playing = asyncio.Event()
        self.patient = False
        self._segment = 0.0

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.sound += bytes(frame.data)
        self._segment += frame.duration
        self.playing.set()

    def flush(self) -> None:
        super().flush()
        if not self.patient:
            self._end(interrupted=False)

    def clear_buffer(self) -> None:
        self._end(interrupted=True)

    def _end(self, *, interrupted: bool) -> None:
        if self._segment:
            self.on_playback_finished(playback_position=self._segment, interrupted=interrupted)
        self._segment = 0.0


class Helper(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You help.")
        self.asked: list[str] = []

    @function_tool
    async def get_weather(self, context: RunContext[None], city: str) -> str:
        """The weather of a place."""
        self.asked.append(city)
        return "It is 21 degrees."


@asynccontextmanager
async def agent_session(agent: Agent) -> AsyncIterator[tuple[AgentSession[None], Microphone, Speaker, list[Any]]]:
    async with aiohttp.ClientSession() as http:
        session: AgentSession[None] = AgentSession(llm=azure_model(http))
        session.input.audio = microphone = Microphone()
        session.output.audio = speaker = Speaker()
        items: list[Any] = []
        faults: list[Any] = []

        def note(event: Any) -> None:
            # 1.8 tells of handoffs too, to the first agent as well.
            if event.item.type == "message":
                items.append(event.item)

        session.on("conversation_item_added", note)
        session.on("error", faults.append)
        await session.start(agent=agent)
        yield session, microphone, speaker, items
        await session.aclose()
        assert not faults, reasons([fault.error for fault in faults])


@case("AgentSession: spoken question, spoken answer")
async def agent_speaks() -> None:
    async with agent_session(Helper()) as (session, microphone, speaker, items):
        await microphone.ask(session, question())
        await eventually(lambda: len(items) == 2)
        assert sorted((item.role, item.text_content.strip()) for item in items) == [
            ("assistant", ECHO),
            ("user", HEARD),
        ]
        check_speech(speaker.sound, at_least_ms=1500)


@case("AgentSession: it calls the agent's function and speaks of the result")
async def agent_calls() -> None:
    agent = Helper()
    async with agent_session(agent) as (session, _, speaker, items):
        await session.generate_reply(user_input="How is the weather in Rome?")
        await eventually(lambda: len(items) == 2)
        assert agent.asked == ["Rome"]
        assert items[-1].text_content == "It is 21 degrees."
        check_speech(speaker.sound, at_least_ms=1500)


@case("AgentSession: the user breaks in; it truncates what was not heard, and answers")
async def agent_interrupted() -> None:
    async with agent_session(Helper()) as (session, microphone, speaker, items):
        speaker.patient = True
        session.generate_reply(user_input="Tell me a story.")
        await speaker.playing.wait()
        speaker.patient = False
        await microphone.ask(session, question())
        await eventually(lambda: len(items) == 4)
        story = next(item for item in items if item.role == "assistant")
        assert story.interrupted
        assert items[-1].text_content == ECHO


# ------------------------------------------------------------------------------------------------ all frames


@case("golden frames, by the models of openai that it builds upon")
async def golden_frames() -> str:
    return judge_frames(models.inspect, models.KNOWN, FRAMES_GA if GA else FRAMES)


main()
