# mypy: disable-error-code="import-not-found, misc, untyped-decorator, no-any-return, unused-ignore"
# openai-agents is installed in the judge's own environment only.
"""Judge: ``openai-agents``: realtime agents and their sessions; in 0.2 they speak the preview, in 0.24 GA."""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from agents import function_tool
from agents.realtime import (
    RealtimeAgent,
    RealtimeModelSendRawMessage,
    RealtimePlaybackTracker,
    RealtimeRunner,
    RealtimeSession,
    realtime_handoff,
)
from agents.realtime.openai_realtime import get_server_event_type_adapter
from pydantic import ValidationError
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.frames import Close
from witness import (
    ECHO,
    FRAMES,
    FRAMES_GA,
    HEARD,
    KEY,
    MODEL,
    MODEL_2025,
    PORT,
    STORY,
    Findings,
    UnknownEvent,
    case,
    check_speech,
    judge_frames,
    main,
    question,
    raising,
)

GA = tuple(int(part) for part in version("openai-agents").split(".")[:2]) >= (0, 3)
models = importlib.import_module("openai_ga_events" if GA else "openai_events")
OPENAI: dict[str, Any] = {"url": f"ws://127.0.0.1:{PORT}/v1/realtime?model={MODEL}", "api_key": KEY}
AZURE_PREVIEW = f"ws://127.0.0.1:{PORT}/openai/realtime?api-version={{}}&deployment={{}}"
AZURE = (
    f"ws://127.0.0.1:{PORT}/openai/v1/realtime?model={MODEL}"
    if GA
    else AZURE_PREVIEW.format("2025-04-01-preview", MODEL)
)
SILENCE = bytes(4 * 48_000)
"""As long as semantic VAD waits at most."""
SERVER_VAD = {"turn_detection": {"type": "server_vad", "interrupt_response": True}}


@function_tool
async def get_weather(city: str) -> str:
    """The weather of a place."""
    return f"It is 21 degrees in {city}."


AGENT = RealtimeAgent(name="Helper", instructions="You help.", tools=[get_weather])


class Talk:
    """A session of the framework, and what came of it."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.events: list[Any] = []
        self._stream = aiter(session)

    async def next(self) -> Any:
        event = await anext(self._stream)
        self.events.append(event)
        return event

    async def until(self, condition: Callable[[Any], bool]) -> Any:
        while True:
            event = await self.next()
            assert event.type != "error", event.error
            if condition(event):
                return event

    async def last(self, kind: str) -> Any:
        return await self.until(lambda event: event.type == kind)

    async def raw(self, kind: str) -> dict[str, Any]:
        """The next event of this type that the server sent."""
        event = await self.until(lambda event: _server_event(event).get("type") == kind)
        return _server_event(event)

    async def speak(self, sound: bytes) -> None:
        for at in range(0, len(sound), 4800):
            await self.session.send_audio(sound[at : at + 4800])

    @property
    def words(self) -> str:
        deltas = (e.data.delta for e in self.events if _model_type(e) == "transcript_delta")
        return "".join(deltas)

    @property
    def sound(self) -> bytes:
        return b"".join(event.audio.data for event in self.events if event.type == "audio")


def _heard(session: dict[str, Any], name: str) -> Any:
    """A setting of the input audio, as the dialect has it."""
    return session["audio"]["input"][name] if GA else session[_PREVIEW_NAMES.get(name, name)]


_PREVIEW_NAMES = {"transcription": "input_audio_transcription"}


def _model_type(event: Any) -> str:
    return event.data.type if event.type == "raw_model_event" else ""


def _server_event(event: Any) -> dict[str, Any]:
    return event.data.data if _model_type(event) == "raw_server_event" else {}


@asynccontextmanager
async def talking(
    agent: RealtimeAgent[Any] = AGENT, settings: dict[str, Any] = SERVER_VAD, **connection: Any
) -> AsyncIterator[Talk]:
    runner = RealtimeRunner(agent)
    config = {**(connection or OPENAI), "initial_model_settings": {"model_name": MODEL, **settings}}
    async with await runner.run(model_config=config) as session:
        yield Talk(session)


# --------------------------------------------------------------------------------------------------- connect


@case("connect: Bearer; session.update with everything that an agent sets")
async def bearer() -> None:
    async with talking() as talk:
        session = (await talk.raw("session.updated"))["session"]
        assert session["instructions"] == "You help."
        voice = session["audio"]["output"]["voice"] if GA else session["voice"]
        assert (voice, _heard(session, "transcription")["model"]) == ("ash", "gpt-4o-mini-transcribe")
        (tool,) = session["tools"]
        assert (tool["name"], tool["parameters"]["required"]) == ("get_weather", ["city"])
        assert (await talk.raw("session.updated"))["session"]["tracing"] == "auto"


@case("connect: Azure's address, api-key header")
async def azure_key() -> None:
    async with talking(url=AZURE, headers={"api-key": KEY}) as talk:
        await talk.raw("session.updated")
        await talk.raw("session.updated")


@case("connect: Azure's address, an api-version of 2024, a deployment with the profile of 2025", when=not GA)
async def azure_early() -> None:
    url = AZURE_PREVIEW.format("2024-10-01-preview", MODEL_2025)
    async with talking(url=url, headers={"api-key": KEY}) as talk:
        await talk.raw("session.updated")
        await talk.raw("session.updated")


@case("refused: a wrong key ends the session with 3000; at Azure's address 401")
async def wrong_key() -> None:
    with raising(ConnectionClosedError) as closed:
        async with talking(url=OPENAI["url"], api_key="wrong") as talk:
            async for _ in talk.session:
                pass
    assert closed.error.rcvd == Close(3000, "invalid_request_error.invalid_api_key")
    with raising(InvalidStatus) as refusal:
        async with talking(url=AZURE, headers={"api-key": "wrong"}):
            pass
    assert refusal.error.response.status_code == 401


@case("reconnect: a session after the other")
async def reconnect() -> None:
    names = set()
    for _ in range(2):
        async with talking() as talk:
            names.add((await talk.raw("session.created"))["session"]["id"])
    assert len(names) == 2


# ------------------------------------------------------------------------------------------------- a session


@case("typed question, spoken answer, history")
async def typed() -> None:
    async with talking() as talk:
        await talk.session.send_message("Good morning.")
        await talk.last("agent_end")
        assert talk.words == "You said: Good morning."
        check_speech(talk.sound, at_least_ms=800)
        history = talk.session._history
        # What 0.2 makes of the item when it is created it never learns to be complete.
        status = "completed" if GA else "in_progress"
        assert [(item.role, item.status) for item in history] == [("user", status), ("assistant", status)]
        assert history[0].content[0].text == "Good morning."


@case("speech in: server VAD, transcript in the history, spoken answer")
async def voice_turn() -> None:
    async with talking() as talk:
        await talk.speak(question())
        heard = await talk.until(lambda event: _model_type(event) == "input_audio_transcription_completed")
        assert heard.data.transcript.strip() == HEARD
        if not talk.words.endswith(ECHO):
            await talk.until(lambda _: talk.words == ECHO)
        if "agent_end" not in [event.type for event in talk.events]:
            await talk.last("agent_end")
        check_speech(talk.sound, at_least_ms=1500)


@case("speech in with the settings that it comes with: semantic VAD ends the turn, spoken answer")
async def default_settings() -> None:
    async with talking(settings={}) as talk:
        shown = _heard((await talk.raw("session.updated"))["session"], "turn_detection")
        assert (shown["type"], shown["eagerness"], shown["create_response"]) == ("semantic_vad", "auto", True)
        await talk.speak(question() + SILENCE)
        await talk.raw("input_audio_buffer.committed")
        await talk.until(lambda _: talk.words == ECHO)
        await talk.until(lambda event: event.type == "audio")


@case("speech in by hand: send_audio with commit, then a response")
async def manual_turn() -> None:
    # It has no way to switch turn detection off: what is null is not sent.
    patient = {"type": "server_vad", "silence_duration_ms": 5000, "create_response": False}
    async with talking(settings={"turn_detection": patient}) as talk:
        await talk.raw("session.updated")
        await talk.session.send_audio(question(), commit=True)
        await talk.raw("input_audio_buffer.committed")
        await talk.session.model.send_event(RealtimeModelSendRawMessage(message={"type": "response.create"}))
        await talk.last("agent_end")
        assert talk.words == ECHO


@case("function tool: called, and its result spoken")
async def tool() -> None:
    async with talking() as talk:
        await talk.session.send_message("How is the weather in Rome?")
        done = await talk.last("tool_end")
        assert done.output == "It is 21 degrees in Rome."
        await talk.until(lambda _: talk.words == "It is 21 degrees in Rome.")


@case("handoff: the other agent's instructions hold")
async def handoff() -> None:
    other = RealtimeAgent(name="Teller", instructions='Say "I am the teller."')
    desk = RealtimeAgent(name="Desk", instructions="You help.", handoffs=[realtime_handoff(other)])
    async with talking(desk) as talk:
        await talk.session.send_message("Please transfer me to the teller.")
        assert (await talk.last("handoff")).to_agent.name == "Teller"
        # The model says what the handoff gave, as with any function, and then does as the teller is told.
        await talk.until(lambda _: bool(talk.words))
        await talk.last("agent_end")
        await talk.session.send_message("Who are you?")
        await talk.until(lambda _: talk.words.endswith("I am the teller."))
        shown = [e["session"] for e in map(_server_event, talk.events) if e.get("type") == "session.updated"]
        # 0.2 forgets what the session was told when it writes the settings of the other agent.
        kind = "server_vad" if GA else "semantic_vad"
        assert (shown[-1]["instructions"], _heard(shown[-1], "turn_detection")["type"]) == (
            other.instructions,
            kind,
        )


@case("barge-in: the user breaks in; what was not played is cut off, and the next answer comes")
async def barge_in() -> None:
    tracker = RealtimePlaybackTracker()
    async with talking(**OPENAI, playback_tracker=tracker) as talk:
        await talk.session.send_message("Tell me a story.")
        audio = await talk.until(lambda event: event.type == "audio" and len(talk.sound) > 24_000)
        tracker.on_play_ms(audio.item_id, audio.content_index, 200)
        await talk.speak(question())
        cut = await talk.last("audio_interrupted")
        assert cut.item_id == audio.item_id
        truncated = await talk.raw("conversation.item.truncated")
        assert (truncated["item_id"], truncated["audio_end_ms"]) == (audio.item_id, 200)
        await talk.until(lambda _: talk.words.endswith(ECHO))


@case("interrupt: the answer is cancelled and truncated")
async def interrupt() -> None:
    # It cancels where the server would not.
    async with talking(settings={"turn_detection": {"type": "server_vad", "interrupt_response": False}}) as talk:
        await talk.session.send_message("Tell me a story.")
        await talk.until(lambda event: event.type == "audio" and len(talk.sound) > 24_000)
        await talk.session.interrupt()
        response = (await talk.raw("response.done"))["response"]
        assert (response["status"], response["status_details"]["reason"]) == ("cancelled", "client_cancelled")
        assert STORY.startswith(talk.words)


@case("errors: an error event with the service's code, and the session lives on")
async def errors() -> None:
    async with talking() as talk:
        await talk.raw("session.updated")
        await talk.session.model.send_event(
            RealtimeModelSendRawMessage(
                message={"type": "conversation.item.delete", "other_data": {"item_id": "nobody"}}
            )
        )
        event = await talk.next()
        while event.type != "error":
            event = await talk.next()
        assert event.error.code == "item_delete_invalid_item_id"
        await talk.session.send_message("Still there?")
        await talk.last("agent_end")
        assert talk.words == "You said: Still there?"


# ------------------------------------------------------------------------------------------------ all frames


def inspect(frame: str) -> Findings:
    """As the session does it; what its models lack is looked at with openai's, which they are."""
    event = json.loads(frame)
    if event["type"] not in models.EVENTS:
        raise UnknownEvent(event["type"])
    if event.get("previous_item_id", "") is None:
        event["previous_item_id"] = ""
    try:
        get_server_event_type_adapter().validate_python(event)
    except ValidationError as error:
        return Findings([f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()], [])
    return Findings([], models.inspect(frame).extras)


@case("golden frames")
async def golden_frames() -> str:
    return judge_frames(inspect, models.KNOWN, FRAMES_GA if GA else FRAMES)


main()
