"""One spoken (or typed) conversation with a Realtime server, and the verdict over it.

Laws
----
1. The question is sent as a microphone would: 20 ms of sound every 20 ms, by a monotonic clock, each chunk
   at its own moment counted from the first, so that lateness does not add up.
2. The end of speech is the moment at which the chunk with the last loud sample of the recording was sent.
   The time to the first audio counts from there, and so contains the server's wait for silence.
3. The demo succeeds only if speech was detected from start to end, transcribed into words, and answered in
   audible sound; each way to fail has its exit code (:class:`Exit`).
4. Whatever ends the conversation, the connection is closed and our own server is stopped.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from enum import IntEnum
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeAlias, assert_never

import numpy as np
from rich.console import Console

from vivavoce.demo import client as realtime
from vivavoce.demo import talk as say
from vivavoce.demo.clock import Clock, MonotonicClock, Wait
from vivavoce.demo.show import Display, Row, open_display
from vivavoce.demo.sound import RATE, Int16, WavError, last_loud_sample, parse_wav, read_wav, write_wav

CHUNK_MS: Final = 20
CHUNK: Final = RATE * CHUNK_MS // 1000
"""Samples in one ``input_audio_buffer.append``."""
SILENCE_LIMIT_MS: Final = 5_000
"""Silence sent after the recording, beyond the VAD's own, while no end of speech has been told."""
SETTLE_MS: Final = 1_000
"""Silence, beyond the VAD's own, after which a stop counts as the last even if the recording ends in noise."""
TRANSCRIPT_LIMIT_S: Final = 10.0
"""How long the transcript may come after the answer."""


class Exit(IntEnum):
    """The exit codes of the demo. An interrupt (Ctrl-C) is left to the caller, by custom 130."""

    OK = 0
    BAD_INPUT = 2
    """The options, the recording or the output file cannot be used."""
    NOT_CONNECTED = 3
    """The connection failed, was refused, or brought no session."""
    NOT_DETECTED = 4
    """The server did not detect the speech, or not its end."""
    NOT_TRANSCRIBED = 5
    """The transcription failed, was empty, or never came."""
    NOT_ANSWERED = 6
    """No answer, an answer that failed or was cut off, or one without audible sound."""
    SERVER_ERROR = 7
    """The server sent an ``error`` event."""
    LOST = 8
    """The connection ended in mid-conversation, or the server broke the protocol."""


class DemoFailure(Exception):
    """The demo failed; the message is one line."""

    def __init__(self, exit_code: Exit, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server that runs: its base URL (``ws://127.0.0.1:PORT``) and a key that it accepts."""

    url: str
    api_key: str = field(repr=False)


Serve: TypeAlias = Callable[[], AbstractAsyncContextManager[Endpoint]]
"""Starts our own server on a free loopback port, for the length of a block."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to ask, whom, and where to put the reply."""

    wav: Path | None = None
    """The question; without it (and without ``text``) the recording that is shipped."""
    text: str | None = None
    """Type this instead of speaking."""
    url: str | None = None
    """A server that already runs; see :func:`vivavoce.demo.client.resolve`."""
    api_key: str | None = field(default=None, repr=False)
    deployment: str = "gpt-4o-realtime-preview"
    output: Path = Path("demo-reply.wav")
    timeout_s: float = 60.0
    """The longest wait for the connection, for the session, and for the answer after the question's end."""
    voice: str | None = None
    instructions: str | None = None
    silence_ms: int = 200
    """``silence_duration_ms`` of the server's VAD; 200 is the default of the API."""


@dataclass(frozen=True, slots=True)
class Question:
    """Speech to send: a name to show and 24 kHz mono samples."""

    name: str
    samples: Int16

    @property
    def seconds(self) -> float:
        return len(self.samples) / RATE


async def run_demo(options: DemoOptions, *, serve: Serve, console: Console, clock: Clock | None = None) -> int:
    """Hold the conversation and show it on ``console``; the exit code (see :class:`Exit`).

    ``serve`` is used only without ``options.url``; what it raises is the caller's, except ``OSError``.
    Cancelling closes the connection and stops the server.
    """
    time = clock if clock is not None else MonotonicClock()
    with open_display(console, time.now) as display:
        try:
            await _demo(options, serve, display, time)
        except DemoFailure as failure:
            display.failed(str(failure))
            return failure.exit_code
        except asyncio.CancelledError:
            display.note("interrupted")
            raise
    return Exit.OK


async def _demo(options: DemoOptions, serve: Serve, display: Display, clock: Clock) -> None:
    display.hide([options.api_key or ""])
    _check(options)
    question = await _question(options)
    async with AsyncExitStack() as stack:
        target = await _target(options, serve, stack, display)
        client = await _connected(target, options, stack, clock)
        conversation = Conversation(options, question, target, client, display, clock)
        await conversation.hold()
    rows = conversation.summary()
    reply = conversation.reply
    if reply.size:
        await _write(options.output, reply)
        rows += [("reply", f"{len(reply) / RATE:.2f} s"), ("file", str(options.output))]
    conversation.judge()
    display.summary(rows)


def _check(options: DemoOptions) -> None:
    text, output = options.text, options.output
    problems = (
        (options.wav is not None and text is not None, "a recording and a text cannot both be the question"),
        (text is not None and not text.strip(), "the text is empty"),
        (options.api_key is not None and options.url is None, "an API key needs the URL of a server"),
        (not options.deployment, "the deployment has no name"),
        (not options.timeout_s > 0, "the timeout must be above 0 s"),
        (options.silence_ms < 0, "the silence must not be below 0 ms"),
        (output.is_dir(), f"cannot write {output}: it is a directory"),
        (not output.parent.is_dir(), f"cannot write {output}: there is no directory {output.parent}"),
    )
    for wrong, problem in problems:
        if wrong:
            raise DemoFailure(Exit.BAD_INPUT, problem)


async def _question(options: DemoOptions) -> Question | None:
    if options.text is not None:
        return None
    if options.wav is None:
        data = files("vivavoce.demo").joinpath("data", "question.wav").read_bytes()
        return Question("the shipped question", await asyncio.to_thread(parse_wav, data))
    try:
        return Question(options.wav.name, await asyncio.to_thread(read_wav, options.wav))
    except (WavError, OSError) as fault:
        raise DemoFailure(Exit.BAD_INPUT, f"cannot use {options.wav}: {_why(fault)}") from fault


async def _write(path: Path, reply: Int16) -> None:
    try:
        await asyncio.to_thread(write_wav, path, reply)
    except OSError as fault:
        raise DemoFailure(Exit.BAD_INPUT, f"cannot write {path}: {_why(fault)}") from fault


def _why(fault: Exception) -> str:
    return (fault.strerror or str(fault)).lower() if isinstance(fault, OSError) else str(fault)


async def _target(options: DemoOptions, serve: Serve, stack: AsyncExitStack, display: Display) -> realtime.Target:
    url, key = options.url, options.api_key
    if url is None:
        display.doing("starting the server")
        try:
            endpoint = await stack.enter_async_context(serve())
        except OSError as fault:
            raise DemoFailure(Exit.NOT_CONNECTED, f"the server did not start: {_why(fault)}") from fault
        url, key = endpoint.url, endpoint.api_key
    try:
        target = realtime.resolve(url, deployment=options.deployment, api_key=key)
    except realtime.BadUrl as fault:
        raise DemoFailure(Exit.BAD_INPUT, str(fault)) from fault
    display.hide([*target.secrets, key or ""])
    return target


async def _connected(
    target: realtime.Target, options: DemoOptions, stack: AsyncExitStack, clock: Clock
) -> realtime.RealtimeClient:
    try:
        async with clock.limit(options.timeout_s, Wait.CONNECTION):
            return await stack.enter_async_context(realtime.connect(target))
    except realtime.ConnectError as fault:
        raise DemoFailure(Exit.NOT_CONNECTED, str(fault)) from fault
    except TimeoutError as fault:
        reason = f"cannot connect to {target.shown}: no answer within {options.timeout_s:g} s"
        raise DemoFailure(Exit.NOT_CONNECTED, reason) from fault


class Conversation:
    """One conversation over an open connection: :meth:`hold` it, then :meth:`judge` it."""

    def __init__(
        self,
        options: DemoOptions,
        question: Question | None,
        target: realtime.Target,
        client: realtime.RealtimeClient,
        display: Display,
        clock: Clock,
    ) -> None:
        self._options = options
        self._question = question
        self._target = target
        self._client = client
        self._display = display
        self._clock = clock
        self._talk = say.Talk()
        self._news = asyncio.Event()
        self._session: dict[str, Any] | None = None
        self._updated = False
        self._asked_at: float | None = None

    # -- holding it ----------------------------------------------------------------------------------

    async def hold(self) -> None:
        """Ask, and wait for the answer and its transcript. Raises :class:`DemoFailure`."""
        try:
            async with asyncio.TaskGroup() as group:
                listener = group.create_task(self._listen())
                try:
                    await self._converse()
                except realtime.ConnectionLost:
                    # What the server said last (an error, a close code) is still to be read.
                    await asyncio.wait({listener})
                listener.cancel()
        except BaseExceptionGroup as faults:
            raise _telling(faults) from None

    async def _converse(self) -> None:
        await self._configure()
        if self._question is None:
            await self._type(self._options.text or "")
        else:
            await self._speak(self._question)
        self._display.doing("waiting for the answer")
        talk, timeout = self._talk, self._options.timeout_s
        if self._question is not None and not talk.detected:
            return
        await self._within(timeout, Wait.ANSWER, lambda: talk.answered)
        if self._question is not None:
            self._display.doing("waiting for the transcript")
            await self._within(min(TRANSCRIPT_LIMIT_S, timeout), Wait.TRANSCRIPT, lambda: talk.transcribed)
        self._display.doing("")

    async def _configure(self) -> None:
        timeout = self._options.timeout_s
        if not await self._within(timeout, Wait.SESSION, lambda: self._session is not None):
            raise DemoFailure(Exit.NOT_CONNECTED, f"the server opened no session within {timeout:g} s")
        session = self._session or {}
        self._display.note(f"connected to {self._target.shown}")
        self._display.note(f"session {session.get('id', 'without id')}, model {session.get('model', 'unknown')}")
        await self._client.send({"type": "session.update", "session": self._session_update()})
        if not await self._within(timeout, Wait.SESSION, lambda: self._updated):
            reason = f"the server did not answer session.update within {timeout:g} s"
            raise DemoFailure(Exit.NOT_CONNECTED, reason)

    def _session_update(self) -> dict[str, Any]:
        update: dict[str, Any] = {"modalities": ["text", "audio"], "output_audio_format": "pcm16"}
        if self._options.voice is not None:
            update["voice"] = self._options.voice
        if self._options.instructions is not None:
            update["instructions"] = self._options.instructions
        if self._question is not None:
            update["input_audio_format"] = "pcm16"
            update["input_audio_transcription"] = {"model": "whisper-1"}
            update["turn_detection"] = {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": self._options.silence_ms,
            }
        return update

    async def _type(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self._client.send({"type": "conversation.item.create", "item": item})
        await self._client.send({"type": "response.create"})
        self._asked_at = self._clock.now()
        self._display.note(f"asked: {text}")

    async def _speak(self, question: Question) -> None:
        self._display.note(f"speaking {question.name}: {question.seconds:.2f} s")
        last_loud = last_loud_sample(question.samples)
        loud_ms = last_loud * 1000 // RATE
        begin = self._clock.now()
        silence_from: int | None = None
        async for n, sound in self._chunks(question, begin):
            await self._client.send(
                {"type": "input_audio_buffer.append", "audio": b64encode(sound.tobytes()).decode()}
            )
            if last_loud >= 0 and n == last_loud // CHUNK:
                self._asked_at = self._clock.now()
            sent_ms = (n + 1) * CHUNK_MS
            self._display.progress(min(sent_ms / 1000, question.seconds), question.seconds)
            if (n + 1) * CHUNK < len(question.samples):
                continue
            if silence_from is None:
                silence_from = sent_ms
                self._display.note("question sent, silence follows")
            if self._turn_over(loud_ms, silence_ms=sent_ms - silence_from):
                return

    async def _chunks(self, question: Question, begin: float) -> AsyncIterator[tuple[int, Int16]]:
        """The question in chunks, then silence up to the limit, each when it is due."""
        in_question = -(-len(question.samples) // CHUNK)
        for n in range(in_question + (SILENCE_LIMIT_MS + self._options.silence_ms) // CHUNK_MS):
            await self._clock.sleep_until(begin + n * CHUNK_MS / 1000)
            sound = question.samples[n * CHUNK : (n + 1) * CHUNK]
            yield n, np.pad(sound, (0, CHUNK - len(sound))).astype("<i2")

    def _turn_over(self, loud_ms: int, silence_ms: int) -> bool:
        """The server has told the end of the last speech in the recording."""
        last = self._talk.last_stop
        if last is None or last.stopped_ms is None or self._talk.speech_open:
            return False
        return last.stopped_ms >= loud_ms or silence_ms >= SETTLE_MS + self._options.silence_ms

    async def _within(self, seconds: float, wait: Wait, condition: Callable[[], bool]) -> bool:
        try:
            async with self._clock.limit(seconds, wait):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    # -- listening -----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            async for event in self._client.events():
                now = self._clock.now()
                match event["type"]:
                    case "session.created":
                        session = event.get("session")
                        self._session = session if isinstance(session, dict) else {}
                    case "session.updated":
                        self._updated = True
                    case _:
                        for happening in self._talk.receive(event, now):
                            self._tell(happening)
                self._news.set()
        except (realtime.ConnectionLost, realtime.ProtocolFault) as fault:
            lost = Exit.NOT_CONNECTED if self._session is None else Exit.LOST
            raise DemoFailure(lost, str(fault)) from fault

    def _tell(self, happening: say.Happening) -> None:
        note = self._display.note
        match happening:
            case say.SpeechStarted(at_ms):
                note(f"speech started at {at_ms} ms")
            case say.SpeechStopped(at_ms):
                note(f"speech stopped at {at_ms} ms")
            case say.Heard(text):
                note(f"heard: {text}" if text.strip() else "heard: no words")
            case say.NotHeard(reason):
                note(f"not transcribed: {reason}")
            case say.AnswerGrew(text):
                self._display.doing(f"answering: {text}")
            case say.Answered(text):
                note(f"answered: {text}")
            case say.FirstAudio(response_id):
                note(f"first audio: {self._latency(self._talk.answers[response_id])}")
            case say.AnswerEnded(status, reason):
                self._display.doing("")
                note(f"answer {status}" + (f": {reason}" if reason else ""))
            case say.ServerError(message):
                code = Exit.NOT_CONNECTED if self._session is None else Exit.SERVER_ERROR
                raise DemoFailure(code, f"the server reports an error: {message}")
            case _:
                assert_never(happening)

    def _latency(self, answer: say.Answer) -> str:
        """How long the first audio of ``answer`` took, from each moment that is known."""
        if answer.first_audio_at is None:
            return "none"
        first, parts = answer.first_audio_at, []
        start = "response.create" if self._question is None else "the end of speech"
        if self._asked_at is not None:
            parts.append(f"{(first - self._asked_at) * 1000:.0f} ms after {start}")
        stop = self._talk.last_stop
        if stop is not None and stop.stopped_at is not None:
            parts.append(f"{(first - stop.stopped_at) * 1000:.0f} ms after speech_stopped")
        return ", ".join(parts) or "before any speech"

    # -- the verdict ---------------------------------------------------------------------------------

    @property
    def reply(self) -> Int16:
        """The sound of the answer: 24 kHz mono samples, empty where it is not an audible answer."""
        sound = self._talk.reply_audio
        samples = np.frombuffer(sound[: len(sound) // 2 * 2], "<i2").astype(np.int16)
        return samples[:0] if self._answer_problem() else samples

    def summary(self) -> list[Row]:
        """What was heard and answered, and how quickly."""
        answer = self._talk.last_answer
        latency = "none" if answer is None else self._latency(answer)
        asked = ("asked", self._options.text or "") if self._question is None else ("heard", self._talk.heard)
        return [asked, ("answered", self._talk.reply_text), ("first audio", latency)]

    def judge(self) -> None:
        """Raises :class:`DemoFailure` unless everything that the demo shows has happened."""
        if self._question is not None and not self._talk.detected:
            what = "did not detect the end of the speech" if self._talk.speech_started else "detected no speech"
            raise DemoFailure(Exit.NOT_DETECTED, f"the server {what} in {self._question.name}")
        transcript = self._transcript_problem() if self._question is not None else ""
        answer = self._answer_problem()
        problems = "; ".join(problem for problem in (transcript, answer) if problem)
        if problems:
            raise DemoFailure(Exit.NOT_TRANSCRIBED if transcript else Exit.NOT_ANSWERED, problems)

    def _transcript_problem(self) -> str:
        for turn in self._talk.turns.values():
            if turn.fault is not None:
                return f"the speech was not transcribed: {turn.fault}"
        if not self._talk.transcribed:
            return "the speech was not transcribed: no transcript came"
        return "" if self._talk.heard else "the speech was not transcribed: the transcript is empty"

    def _answer_problem(self) -> str:
        answer = self._talk.last_answer
        if answer is None:
            return f"no answer came within {self._options.timeout_s:g} s"
        if answer.status is None:
            return f"the answer did not end within {self._options.timeout_s:g} s"
        if not answer.stands:
            return f"the answer is {answer.status}" + (f": {answer.reason}" if answer.reason else "")
        if not answer.audio:
            return "the answer has no audio"
        if len(answer.audio) % 2:
            return "the audio of the answer is not whole 16-bit samples"
        samples = np.frombuffer(bytes(answer.audio), "<i2").astype(np.int16)
        return "the audio of the answer is silence" if last_loud_sample(samples) < 0 else ""


def _telling(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    """The fault of the group that tells most: a verdict of ours, or else the first."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = list(faults.exceptions)
    while pending:
        fault = pending.pop(0)
        if isinstance(fault, BaseExceptionGroup):
            pending[:0] = fault.exceptions
        else:
            leaves.append(fault)
    return next((fault for fault in leaves if isinstance(fault, DemoFailure)), leaves[0])
