"""Answers ahead of the end of a turn, on engines that take a fixed time, in virtual time.

A client that speaks, pauses, goes on and changes its mind is served twice, with and without speculation, and must
be told the same; what is dropped must leave nothing.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar, cast

import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from vivavoce.audio.formats import AudioFormat
from vivavoce.core import contract as c
from vivavoce.core import turns
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.core.turns import FRAME_TICKS
from vivavoce.engines import base
from vivavoce.runtime import speculation
from vivavoce.runtime.driver import Driver
from vivavoce.runtime.engines import Cascaded, Denial, Engines, Reservation
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.testing import virtual_time
from vivavoce.testing.fakes import PuppetEndOfTurn
from vivavoce.wire.codec import preview_codec
from vivavoce.wire.server_events import RateLimit, Usage
from vivavoce.wire.session_config import VOICES, ServerVad, SessionConfig, Transcription

_T = TypeVar("_T")

HEARD_S, FIRST_TOKEN_S, TOKEN_S, CLAUSE_S = 0.1, 0.15, 0.02, 0.05
"""A recogniser takes so long after the end of the audio, a model before its first token and before each other, a
synthesiser before the sound of a clause."""
STEP_S: Final = 0.01
COUNTED: Final = 777
"""Output tokens that the model says it has used."""
RATE: Final = AudioFormat.PCM16.rate
FRAME: Final = AudioFormat.PCM16.bytes_per_ms * 32
SILENCE_MS: Final = 500
TO_THE_END: Final = 16
"""Frames of silence that end a turn."""
_SPEECH: Final = ("response.audio_transcript.delta", "response.audio.delta")
_ID: Final = re.compile(r"\b(?:sess|conv|item|resp|call|event)_[0-9A-Za-z]{16,21}\b")


class _Engine:
    name = version = "fixed"

    def __init__(self) -> None:
        self.asked = self.closed = 0
        self.fault: Exception | None = None

    @property
    def at_work(self) -> int:
        return self.asked - self.closed

    async def start(self) -> None: ...
    async def close(self) -> None: ...


class Ear(_Engine):
    """Hears how much was said. ``fickle``: silence makes a difference to it."""

    def __init__(self, *, partials: bool = False, fickle: bool = False) -> None:
        super().__init__()
        self.capabilities = base.TranscriberCapabilities(RATE, streaming=partials, partials=partials)
        self.fickle = fickle

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        self.asked += 1
        try:
            heard = total = 0
            async for pcm in audio:
                heard, total = heard + len(pcm) - pcm.count(0), total + len(pcm)
                if options.partials:
                    yield base.PartialTranscript(f"{heard} bytes", total * 1000 // RATE // 2)
            await asyncio.sleep(HEARD_S)
            if self.fault is not None:
                raise self.fault
            yield base.TranscriptDelta(f"{total if self.fickle else heard} bytes")
        finally:
            self.closed += 1


class Mind(_Engine):
    """Answers what it was asked, word by word, and calls a function when it is told to."""

    capabilities = base.LanguageModelCapabilities()
    sentences = 1

    def __init__(self) -> None:
        super().__init__()
        self.tokens = 0
        self.requests: list[base.GenerationRequest] = []

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        self.asked += 1
        self.requests.append(request)
        try:
            await asyncio.sleep(FIRST_TOKEN_S)
            if self.fault is not None:
                raise self.fault
            said = " ".join(part.text for turn in request.turns for part in _texts(turn))
            answer = f"You said: {said}, {request.instructions} and so on. "
            answer += "More of it follows. " * self.sentences
            for word in answer.split():
                yield base.TextDelta(f"{word} ")
                self.tokens += 1
                await asyncio.sleep(TOKEN_S)
            if "call" in said:
                yield base.ToolCallStart("look")
                yield base.ToolArgumentsDelta("{}")
            yield base.Finish(usage=base.Usage(output_text=COUNTED))
        finally:
            self.closed += 1


def _texts(turn: base.Turn) -> list[base.TextInput]:
    content = turn.content if isinstance(turn, base.Message) else ()
    return [part for part in content if isinstance(part, base.TextInput)]


class Mouth(_Engine):
    capabilities = base.SynthesizerCapabilities(RATE, voices=dict.fromkeys(VOICES, "hum"))

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        self.asked += 1
        try:
            await asyncio.sleep(CLAUSE_S)
            if self.fault is not None:
                raise self.fault
            yield base.SpeechChunk(bytes(2 * (len(request.text) * RATE // 100)))
        finally:
            self.closed += 1


class Grant:
    def __init__(self, book: list[int]) -> None:
        self._book = book
        self._open = True

    def settle(self, used: Usage) -> None:
        if self._open:
            self._book.append(used.total)
        self._open = False


class Purse:
    """A quota that lets everything pass until it is shut, and writes down what was spent."""

    def __init__(self) -> None:
        self.given = 0
        self.spent: list[int] = []
        self.shut = False

    def reserve(self, asked: c.ReserveQuota) -> Reservation | Denial:
        if self.shut:
            return Denial("tokens", 1.0)
        self.given += 1
        return Grant(self.spent)

    def rate_limits(self) -> tuple[RateLimit, ...]:
        return (RateLimit(name="tokens", limit=100, remaining=0 if self.shut else 100, reset_seconds=0.0),)


class _NoVad:
    """Frames are posted by the test itself."""

    backlog_ticks = 0
    crowded = False

    def open(self, *_: object) -> _NoVad:
        return self

    def feed(self, *_: object) -> None: ...
    def reset(self) -> None: ...
    def close(self) -> None: ...


@dataclass
class Client:
    """A client in virtual time: what it is told, with the time, and everything that works for it."""

    speculates: bool
    ear: Ear = field(default_factory=Ear)
    mind: Mind = field(default_factory=Mind)
    mouth: Mouth = field(default_factory=Mouth)
    config: SessionConfig = field(
        default_factory=lambda: SessionConfig(
            turn_detection=ServerVad(silence_duration_ms=SILENCE_MS), input_audio_transcription=Transcription()
        )
    )
    full: bool = False

    def __post_init__(self) -> None:
        self.told: list[tuple[float, dict[str, Any]]] = []
        self.quota, self.allowance = Purse(), Purse()
        self._clock = 0
        self._room = asyncio.Event()
        self._room.set()
        self._items: list[str] = []

    # ---------------------------------------------------------------------------------- as the outbox of a driver

    def send(self, frame: bytes) -> None:
        said = json.loads(frame)
        self.told.append((virtual_time.now(), said))
        if said["type"] == "conversation.item.created":
            self._items.append(said["item"]["id"])

    def close(self, code: int, reason: str) -> None: ...

    async def drained(self) -> None:
        await self._room.wait()

    @property
    def crowded(self) -> bool:
        return not self._room.is_set()

    def stop_reading(self) -> None:
        self._room.clear()

    def read_on(self) -> None:
        self._room.set()

    # ------------------------------------------------------------------------------------------------ connection

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        self.session = Session(
            Identity("m", 0, 1800, b"", speculates=self.speculates), self.config, virtual_time.now()
        )
        self.driver = Driver(
            self.session,
            codec=preview_codec("azure-2024-12-17"),
            outbox=self,
            engines=Engines(cast(VadPool, _NoVad()), self.ear, PuppetEndOfTurn(), Cascaded(self.mind, self.mouth)),
            meter=self.quota,
            allowance=self.allowance if self.speculates else None,
        )
        before = asyncio.all_tasks()
        async with self.driver.running():
            yield self
        assert asyncio.all_tasks() == before
        assert self.ear.at_work == 0
        self.rests()

    def rests(self) -> None:
        """No answer is at work, and all was paid."""
        assert (self.mind.at_work, self.mouth.at_work) == (0, 0)
        assert len(self.allowance.spent) == self.allowance.given
        assert len(self.quota.spent) == self.quota.given

    def say(self, **said: Any) -> None:
        self.driver.receive_text(json.dumps(said))

    async def hear(self, probability: float, frames: int) -> None:
        """A while of speech or of silence, frame by frame, in its own time."""
        for _ in range(frames):
            self.frame(probability)
            await passes(0.032)

    def frame(self, probability: float) -> None:
        sound = bytes([1 if probability else 0]) * FRAME
        self.say(type="input_audio_buffer.append", audio=base64.b64encode(sound).decode())
        self._clock += FRAME_TICKS
        self.driver.post(c.VadFrame(self._clock, probability))

    async def voice(self, frames: int = 10) -> None:
        await self.hear(0.9, frames)

    async def silence(self, frames: int) -> None:
        await self.hear(0.0, frames)

    async def answered(self) -> None:
        """As long as anybody is at work for it."""
        while self.driver._tasks:
            await passes(STEP_S)

    async def turn(self) -> None:
        """A turn and all of its answer."""
        await self.voice()
        await self.silence(TO_THE_END)
        await self.answered()

    async def do(self, step: Step) -> None:
        match step:
            case ("voice", frames):
                await self.voice(frames)
            case ("silence", frames):
                await self.silence(frames)
            case ("instructions", text):
                self.say(type="session.update", session={"instructions": text})
            case ("item", text):
                item = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": text}]}
                self.say(type="conversation.item.create", item=item)
            case ("delete", at):
                if self._items:
                    self.say(type="conversation.item.delete", item_id=self._items[at % len(self._items)])
            case ("commit" | "clear" as what, _):
                self.say(type=f"input_audio_buffer.{what}")
            case ("end", _):
                await self.silence(TO_THE_END)
        # Two recognitions that end at the very same time have no order.
        await passes(STEP_S)
        if isinstance(self.session.turn, turns.Quiet):
            # An answer that is interrupted has come as far as it is fast, so here none is.
            await self.answered()

    # ---------------------------------------------------------------------------------------------- what it knows

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [said for _, said in self.told if said["type"] == kind]

    def when(self, kind: str, at: int = 0) -> float:
        return [time for time, said in self.told if said["type"] == kind][at]

    @property
    def wire(self) -> list[str]:
        """All that it was told, with ids numbered in the order in which they were seen. Words go before the sound
        that lies among them: which of the two is there first is a matter of engines that work side by side."""
        names: dict[str, str] = {}
        said = [said for _, said in self.told]
        ordered = [
            one
            for deltas, run in itertools.groupby(said, lambda one: one["type"] in _SPEECH)
            for one in (sorted(run, key=lambda one: _SPEECH.index(one["type"])) if deltas else run)
        ]
        return [
            _ID.sub(lambda found: names.setdefault(found[0], f"#{len(names)}"), json.dumps(one)) for one in ordered
        ]


Step: TypeAlias = tuple[str, Any]


async def passes(seconds: float) -> None:
    """Let time pass, and everybody do what there is to do, a hundredth of a second at a time."""
    until = virtual_time.now() + seconds
    while True:
        for _ in range(10):
            await asyncio.sleep(0)
        left = until - virtual_time.now()
        if left <= 0:
            return
        virtual_time.advance(min(STEP_S, left))


async def at_once(call: Callable[..., _T], *arguments: Any) -> _T:
    return call(*arguments)


@pytest.fixture(autouse=True)
def without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still does not wait for a thread."""
    monkeypatch.setattr(asyncio, "to_thread", at_once)


# ----------------------------------------------------------------------------------------------------- how fast


async def first_audio_ms(client: Client) -> int:
    """From the end of the turn to the first sound of its answer."""
    async with client.connected():
        await client.turn()
        stopped = client.when("input_audio_buffer.speech_stopped")
        return round((client.when("response.audio.delta") - stopped) * 1000)


FIRST_CLAUSE: Final = ["You ", "said: ", "15360 ", "bytes, "]
ONE_BY_ONE_MS: Final = round((HEARD_S + FIRST_TOKEN_S + (len(FIRST_CLAUSE) - 1) * TOKEN_S + CLAUSE_S) * 1000)


def test_without_speculation_an_answer_takes_what_its_engines_take() -> None:
    assert abs(virtual_time.run(first_audio_ms(Client(speculates=False))) - ONE_BY_ONE_MS) <= 20


@pytest.mark.parametrize("partials", [True, False])
def test_with_speculation_it_takes_what_the_recogniser_takes(partials: bool) -> None:
    """The rest is done while the silence lasts."""
    client = Client(speculates=True, ear=Ear(partials=partials))
    assert abs(virtual_time.run(first_audio_ms(client)) - HEARD_S * 1000) <= 20
    assert (client.mind.asked, client.allowance.spent, len(client.quota.spent)) == (1, [0], 1)
    assert client.ear.asked == (1 if partials else 2)


@pytest.mark.parametrize("speculates", [False, True])
def test_the_model_s_own_count_is_told(speculates: bool) -> None:
    client = Client(speculates=speculates)
    virtual_time.run(first_audio_ms(client))
    [done] = client.events("response.done")
    assert done["response"]["usage"]["output_token_details"]["text_tokens"] == COUNTED


def test_a_slow_answer_is_as_much_earlier_as_it_was_begun_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.FIRST_TOKEN_S", 1.0)
    plain, ahead = (
        virtual_time.run(first_audio_ms(Client(speculates=speculates, ear=Ear(partials=True))))
        for speculates in (False, True)
    )
    # 192 ms of silence are enough to begin, 512 ms end the turn; and partial words are here at once.
    assert abs(plain - ahead - (512 - 192 + HEARD_S * 1000)) <= 20


# ------------------------------------------------------------------------------------------------------ the same


QUIET: Final = st.tuples(st.just("silence"), st.sampled_from([2, 6, 7, 9, 12, 15]))
VOICE: Final = st.tuples(st.just("voice"), st.sampled_from([1, 3]))
STEPS: Final = st.one_of(
    QUIET,
    QUIET,
    VOICE,
    st.tuples(st.just("instructions"), st.sampled_from(["", "Be brief."])),
    st.tuples(st.just("item"), st.sampled_from(["It is noon.", "Please call."])),
    st.tuples(st.just("delete"), st.sampled_from([0, -1])),
    st.tuples(st.sampled_from(["commit", "clear"]), st.none()),
    st.tuples(st.just("end"), st.none()),
)
EARS: Final[list[dict[str, bool]]] = [{}, {"partials": True}, {"fickle": True}]


async def told(client: Client, steps: Sequence[Step]) -> Client:
    async with client.connected():
        for step in [("voice", 3), *steps, ("end", None)]:
            await client.do(step)
        client.rests()
    return client


def paused(step: Step) -> list[Step]:
    return [("silence", 9), step, ("silence", 2)]


@settings(max_examples=80)
@given(ear=st.sampled_from(EARS), steps=st.lists(STEPS, max_size=12))
@example(ear={}, steps=[])
@example(ear={"fickle": True}, steps=[])
@example(ear={}, steps=[("silence", 15), ("voice", 2), ("silence", 9), ("voice", 2)])
@example(ear={}, steps=[("item", "Please call."), ("end", None), ("voice", 2)])
@example(ear={"partials": True}, steps=paused(("instructions", "Be brief.")))
@example(ear={"partials": True}, steps=[("end", None), ("voice", 3), *paused(("delete", 0))])
def test_a_client_is_told_the_same(ear: dict[str, bool], steps: list[Step]) -> None:
    plain = virtual_time.run(told(Client(speculates=False, ear=Ear(**ear)), steps))
    ahead = virtual_time.run(told(Client(speculates=True, ear=Ear(**ear)), steps))
    assert ahead.wire == plain.wire
    assert ahead.quota.spent == plain.quota.spent
    begun, dropped = ahead.allowance.given, sum(tokens > 0 for tokens in ahead.allowance.spent)
    event(f"begun: {min(begun, 3)}, dropped after the model was asked: {min(dropped, 3)}")


# ------------------------------------------------------------------------------------------- dropped, not taken


async def _resumed(client: Client) -> None:
    async with client.connected():
        await client.voice()
        await client.silence(15)
        assert (client.mind.at_work, client.mind.tokens > 0) == (1, True)
        before = len(client.told)
        await client.voice(1)
        client.rests()
        assert len(client.told) == before
        [spent] = client.allowance.spent
        assert spent > client.mind.tokens > 0, "what it read and what it made"
        await client.silence(TO_THE_END)
        await client.answered()
    [response] = client.events("response.done")
    assert response["response"]["status"] == "completed"


def test_when_the_speaker_goes_on_everything_stops_at_once() -> None:
    virtual_time.run(_resumed(Client(speculates=True, ear=Ear(partials=True))))


async def _hung_up(client: Client) -> None:
    async with client.connected():
        await client.voice()
        await client.silence(14)
        assert client.mind.at_work == 1


def test_a_client_that_hangs_up_leaves_nothing() -> None:
    """Looked at by :meth:`Client.connected`."""
    virtual_time.run(_hung_up(Client(speculates=True)))


async def _other_words(client: Client) -> None:
    async with client.connected():
        await client.turn()
        client.rests()
    first, second = client.mind.requests
    assert first != second
    assert client.allowance.spent[0] > 0


def test_other_words_than_the_likely_ones_are_answered_anew() -> None:
    virtual_time.run(_other_words(Client(speculates=True, ear=Ear(fickle=True))))


@pytest.mark.parametrize("fault", [base.EngineError("engine_overloaded", "Too much to do."), RuntimeError("a bug")])
@pytest.mark.parametrize("of", ["ear", "mind"])
def test_what_fails_ahead_is_tried_again(of: str, fault: Exception) -> None:
    async def scene(client: Client) -> None:
        async with client.connected():
            await client.voice()
            engine = getattr(client, of)
            engine.fault = fault
            await client.silence(TO_THE_END - 1)
            engine.fault = None
            await client.silence(1)
            await client.answered()
            client.rests()
        [response] = client.events("response.done")
        assert response["response"]["status"] == "completed"

    virtual_time.run(scene(Client(speculates=True)))


def test_what_fails_after_it_was_taken_fails_the_response() -> None:
    async def scene(client: Client) -> None:
        client.mind.sentences = 20
        async with client.connected():
            await client.voice()
            await client.silence(TO_THE_END)
            await passes(0.3)
            assert client.events("response.audio_transcript.delta")
            client.mouth.fault = base.EngineError("voice_lost", "The synthesiser has lost its voice.")
            await client.answered()
            client.rests()
        [response] = client.events("response.done")
        assert response["response"]["status_details"]["error"]["code"] == "voice_lost"
        assert client.mind.asked == 1

    virtual_time.run(scene(Client(speculates=True)))


def test_an_engine_that_lets_a_cancellation_escape_fails_alone() -> None:
    async def scene(client: Client) -> None:
        async with client.connected():
            await client.voice()
            client.mind.fault = cast(Exception, asyncio.CancelledError())
            await client.silence(TO_THE_END - 1)
            client.mind.fault = None
            await client.silence(1)
            await client.answered()
            client.rests()
        [response] = client.events("response.done")
        assert response["response"]["status"] == "completed"

    virtual_time.run(scene(Client(speculates=True)))


@pytest.mark.parametrize("after_s", [0.05, 0.3])
def test_a_response_that_is_cancelled_takes_it_along(after_s: float) -> None:
    """Before the words of the turn are known, and after it was taken."""

    async def scene(client: Client) -> None:
        client.mind.sentences = 20
        async with client.connected():
            await client.voice()
            await client.silence(TO_THE_END)
            await passes(after_s)
            assert client.mind.at_work == 1
            client.say(type="response.cancel")
            await passes(0)
            assert (client.mind.at_work, client.mouth.at_work) == (0, 0)
            await passes(1)
        [response] = client.events("response.done")
        assert response["response"]["status"] == "cancelled"

    virtual_time.run(scene(Client(speculates=True)))


def test_a_response_that_is_cancelled_before_it_does_anything_takes_it_along() -> None:
    async def scene(client: Client) -> None:
        async with client.connected():
            await client.voice()
            await client.silence(TO_THE_END - 1)
            client.frame(0.0)
            client.say(type="response.cancel")
            await passes(0)
            assert (client.mind.asked, client.mind.at_work) == (1, 0)

    virtual_time.run(scene(Client(speculates=True)))


# ---------------------------------------------------------------------------------------------------- how much


def test_a_long_answer_is_held_back_no_further_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculation, "HELD_BYTES", 20_000)

    async def scene(client: Client) -> None:
        client.mind.sentences = 100
        async with client.connected():
            await client.voice()
            await client.silence(1)
            # A silence that does not end: no frame comes for a while.
            await client.silence(11)
            await passes(3)
            made = client.mind.tokens
            assert 0 < made < 30
            await passes(3)
            assert client.mind.tokens == made
            await client.silence(4)
            await passes(10)
            client.rests()
            assert client.mind.asked == 1
        [response] = client.events("response.done")
        words = client.mind.tokens
        assert len(response["response"]["output"][0]["content"][0]["transcript"].split()) == words > 400

    virtual_time.run(scene(Client(speculates=True)))


def test_what_was_held_waits_for_a_client_that_reads_slowly() -> None:
    async def scene(client: Client) -> None:
        async with client.connected():
            await client.voice()
            await client.silence(TO_THE_END)
            client.stop_reading()
            await passes(2)
            assert not client.events("response.audio.delta")
            client.read_on()
            await client.answered()
            client.rests()
        assert client.events("response.done")

    virtual_time.run(scene(Client(speculates=True)))


@pytest.mark.parametrize("purse", ["quota", "allowance"])
def test_without_quota_or_allowance_nothing_is_begun_ahead(purse: str) -> None:
    async def scene(client: Client) -> None:
        async with client.connected():
            await client.voice()
            getattr(client, purse).shut = True
            await client.silence(TO_THE_END - 1)
            assert (client.ear.asked, client.mind.asked, client.allowance.given) == (1, 0, 0)
            client.quota.shut = False
            await client.silence(1)
            await client.answered()
            client.rests()
        assert client.events("response.done")

    virtual_time.run(scene(Client(speculates=True)))


def test_a_response_that_is_denied_takes_it_along() -> None:
    async def scene(client: Client) -> None:
        async with client.connected():
            await client.voice()
            await client.silence(TO_THE_END - 1)
            assert client.mind.at_work == 1
            client.quota.shut = True
            await client.silence(1)
            assert client.mind.at_work == 0
            await passes(1)
            client.rests()
        [response] = client.events("response.done")
        assert response["response"]["status"] == "failed"
        assert client.allowance.spent[0] > 0

    virtual_time.run(scene(Client(speculates=True)))
