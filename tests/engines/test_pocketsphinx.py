from __future__ import annotations

import asyncio
import math
import os
import wave
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from vivavoce.engines.base import (
    EngineError,
    EngineOptionsError,
    PartialTranscript,
    Transcriber,
    TranscriptDelta,
    TranscriptionOptions,
)
from vivavoce.engines.builtin.pocketsphinx import PocketsphinxTranscriber, create
from vivavoce.engines.builtin.pocketsphinx_worker import Utterance, VoiceMean, clean
from vivavoce.engines.builtin.worker_hearing import Backlog

WORDS = "what is the weather like today"


def recording() -> bytes:
    """The recording, with the silence that voice detection leaves around speech."""
    with wave.open(str(Path(__file__).parent / "data" / "what_is_the_weather.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        speech: bytes = file.readframes(file.getnframes())
    return bytes(6400) + speech + bytes(6400)


async def pieces(pcm: bytes, size: int = 640) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size]


async def heard(
    engine: Transcriber, audio: AsyncIterator[bytes], options: TranscriptionOptions
) -> list[TranscriptDelta]:
    """Where no partial words are asked for, there are none."""
    deltas = []
    async for delta in engine.transcribe(audio, options):
        assert isinstance(delta, TranscriptDelta)
        deltas.append(delta)
    return deltas


async def hear(engine: Transcriber, audio: AsyncIterator[bytes], language: str | None = None) -> list[str]:
    return [delta.text for delta in await heard(engine, audio, TranscriptionOptions(language))]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the worker tells nobody
            await asyncio.sleep(0.005)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[PocketsphinxTranscriber]:
    before = set(os.listdir("/dev/fd"))
    made = create({"workers": 1, "decoders_per_worker": 2, "max_waiting": 1})
    assert isinstance(made, PocketsphinxTranscriber)
    assert isinstance(made, Transcriber)
    await made.start()
    yield made
    (pid,) = made._pool.pids
    await made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(os.listdir("/dev/fd")) <= len(before)


in_module_loop = pytest.mark.asyncio(loop_scope="module")


@in_module_loop
@pytest.mark.parametrize(("size", "language"), [(640, None), (3201, "en-US")])
async def test_hears_the_words(engine: PocketsphinxTranscriber, size: int, language: str | None) -> None:
    assert await hear(engine, pieces(recording(), size), language) == [WORDS]


@in_module_loop
async def test_tells_how_sure_it_is_of_each_word(engine: PocketsphinxTranscriber) -> None:
    options = TranscriptionOptions(logprobs=True)
    (delta,) = await heard(engine, pieces(recording()), options)
    assert delta.text == WORDS == "".join(token.token for token in delta.logprobs)
    assert [token.token.strip() for token in delta.logprobs] == WORDS.split()
    logprobs = [token.logprob for token in delta.logprobs]
    assert all(logprob <= 0 for logprob in logprobs)
    assert len(set(logprobs)) > 1, "measured, each for itself"
    (delta,) = await heard(engine, pieces(recording()), TranscriptionOptions())
    assert delta.logprobs == ()


@in_module_loop
async def test_partial_words_while_people_speak(engine: PocketsphinxTranscriber) -> None:
    """After each piece that was decoded, what it comes to so far; at the end the words themselves."""
    asked = asyncio.Event()
    pcm = recording()

    async def in_two() -> AsyncIterator[bytes]:
        yield pcm[: len(pcm) // 2]
        await asked.wait()
        yield pcm[len(pcm) // 2 :]

    partials: list[PartialTranscript] = []
    deltas: list[TranscriptDelta] = []
    async for piece in engine.transcribe(in_two(), TranscriptionOptions(partials=True)):
        match piece:
            case PartialTranscript():
                assert not deltas
                partials.append(piece)
                asked.set()
            case TranscriptDelta():
                deltas.append(piece)
    assert [delta.text for delta in deltas] == [WORDS]
    assert partials[0].text.startswith("what is the")
    assert partials[0].audio_ms < partials[-1].audio_ms == len(pcm) // 32
    assert [partial.audio_ms for partial in partials] == sorted(partial.audio_ms for partial in partials)


@in_module_loop
async def test_who_stops_at_a_partial_leaves_nothing_behind(engine: PocketsphinxTranscriber) -> None:
    stream = engine.transcribe(pieces(recording()), TranscriptionOptions(partials=True))
    async for _ in stream:
        break
    await stream.aclose()
    await until(lambda: free_decoders(engine) == [2])


@in_module_loop
@pytest.mark.parametrize("pcm", [b"", b"\x01", bytes(100), bytes(32000)])
async def test_silence_has_no_text(engine: PocketsphinxTranscriber, pcm: bytes) -> None:
    assert await hear(engine, pieces(pcm)) == []


@in_module_loop
async def test_two_utterances_at_a_time_and_one_waits(engine: PocketsphinxTranscriber) -> None:
    pid = engine._pool.pids
    pcm = recording()
    assert await asyncio.gather(*(hear(engine, pieces(pcm, 1 << 20), "en") for _ in range(3))) == [[WORDS]] * 3
    assert engine._pool.pids == pid


class Talkers:
    """People who go on talking until they hang up."""

    def __init__(self, engine: PocketsphinxTranscriber, count: int) -> None:
        self.heard = 0
        self._tasks = [asyncio.create_task(hear(engine, self._audio())) for _ in range(count)]

    async def _audio(self) -> AsyncIterator[bytes]:
        yield recording()
        self.heard += 1
        await asyncio.Event().wait()

    async def hang_up(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        assert all(task.cancelled() for task in self._tasks)


def free_decoders(engine: PocketsphinxTranscriber) -> list[int]:
    return [process.free for process in engine._pool._processes if process is not None]


@in_module_loop
async def test_people_who_talk_on_leave_a_decoder_to_those_who_have_finished(
    engine: PocketsphinxTranscriber,
) -> None:
    talkers = Talkers(engine, 3)
    await until(lambda: talkers.heard == 3 and free_decoders(engine) == [1])
    for _ in range(2):
        assert await hear(engine, pieces(recording())) == [WORDS]
    assert free_decoders(engine) == [1]
    await talkers.hang_up()
    await until(lambda: free_decoders(engine) == [2])


async def test_more_than_may_wait_are_refused() -> None:
    engine = create({"workers": 1, "decoders_per_worker": 1, "max_waiting": 0})
    assert isinstance(engine, PocketsphinxTranscriber)
    await engine.start()
    try:
        talkers = Talkers(engine, 1)
        await until(lambda: free_decoders(engine) == [0])
        with pytest.raises(EngineError) as caught:
            await hear(engine, pieces(recording()))
        assert caught.value.code == "engine_overloaded"
        await talkers.hang_up()
        await until(lambda: free_decoders(engine) == [1])
    finally:
        await engine.close()


@in_module_loop
async def test_closing_the_iterator_early_leaves_nothing(engine: PocketsphinxTranscriber) -> None:
    before = asyncio.all_tasks()
    answer = engine.transcribe(pieces(recording()), TranscriptionOptions())
    assert await anext(answer) == TranscriptDelta(WORDS)
    await answer.aclose()
    assert asyncio.all_tasks() <= before


@in_module_loop
async def test_a_fault_of_the_audio_is_raised_as_it_is(engine: PocketsphinxTranscriber) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(640)
        raise ConnectionAbortedError("gone")

    with pytest.raises(ConnectionAbortedError, match="gone"):
        await hear(engine, broken())


@in_module_loop
async def test_other_languages_are_refused(engine: PocketsphinxTranscriber) -> None:
    with pytest.raises(EngineError) as caught:
        await hear(engine, pieces(recording()), "fr")
    assert caught.value.code == "unsupported_language"


@in_module_loop
async def test_a_crash_is_told_and_survived(engine: PocketsphinxTranscriber) -> None:
    (pid,) = engine._pool.pids
    silent = asyncio.Event()

    async def somebody_who_waits() -> AsyncIterator[bytes]:
        yield bytes(640)
        os.kill(pid, 9)
        await silent.wait()

    with pytest.raises(EngineError) as caught:
        await hear(engine, somebody_who_waits())
    assert caught.value.code == "engine_crashed"
    assert await hear(engine, pieces(bytes(640))) == []


async def test_the_backlog_is_bounded_and_keeps_samples_whole() -> None:
    backlog = Backlog(10)
    async with asyncio.TaskGroup() as group:
        filling = group.create_task(backlog.fill(pieces(bytes(range(25)), 5)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not filling.done()
        taken = []
        while part := await backlog.take():
            taken.append(part)
    assert max(map(len, taken)) <= 14
    assert not [part for part in taken if len(part) % 2]
    assert b"".join(taken) == bytes(range(24))


@pytest.mark.parametrize(
    ("heard", "text"),
    [
        ("", ""),
        ("<s> what is <sil> The(2) [NOISE] weather ++UM++ </s>", "what is the weather"),
        ("it's ++BREATH++", "it's"),
        ("<sil> ++NOISE++", ""),
    ],
)
def test_clean(heard: str, text: str) -> None:
    assert clean(heard) == text


class Segment:
    def __init__(self, word: str, prob: float) -> None:
        self.word, self.prob = word, prob


class Lattice:
    """A decoder that has heard these words."""

    def __init__(self, *segments: Segment) -> None:
        self.segments = segments

    def end_utt(self) -> None: ...

    def hyp(self) -> object:
        return self.segments or None

    def seg(self) -> tuple[Segment, ...]:
        return self.segments


def test_words_and_their_probabilities() -> None:
    utterance = Utterance(FakeDecoder())
    segments = [("<s>", 1.0), ("Hello(2)", 0.5), ("<sil>", 0.1), ("you", 1.0001), ("++UM++", 0.2), ("there", 0.0)]
    decoder: Any = Lattice(*(Segment(*one) for one in segments))
    utterance.decoder = decoder
    (hello, p), (you, q), (there, least) = utterance.finish()
    assert (hello, you, there) == ("hello", "you", "there")
    assert (p, q) == (math.log(0.5), 0.0)
    assert -800 < least < -700, "JSON has no infinity"
    nothing: Any = Lattice()
    utterance.decoder = nothing
    assert utterance.finish() == []


class FakeDecoder:
    """Keeps a mean as the library does: what it was told counts for 500 frames."""

    def __init__(self) -> None:
        self.told: list[list[float]] = []
        self.hears = 0.0
        self.frames = 0
        self.sound = b""

    def set_cmn(self, mean: str) -> None:
        self.told.append([float(value) for value in mean.split(",")])

    def get_cmn(self, update: bool) -> str:
        assert update
        mixed = [(mean * 500 + self.hears * self.frames) / (500 + self.frames) for mean in self.told[-1]]
        return ",".join(f"{value:.6f}" for value in mixed)

    def start_utt(self) -> None: ...

    def process_raw(self, sound: bytes) -> None:
        self.sound += sound


def test_the_mean_moves_to_what_is_heard() -> None:
    decoder = FakeDecoder()
    mean = VoiceMean(decoder)
    start = decoder.told[0]
    decoder.hears, decoder.frames = 20.0, 50
    mean.heard(50)
    third_way = [(2 * value + 20.0) / 3 for value in start]
    assert decoder.told[1] == pytest.approx(third_way, abs=0.02)
    for _ in range(100):
        mean.heard(50)
    assert decoder.told[-1] == pytest.approx([20.0] * len(start), abs=0.5)


def test_an_utterance_is_decoded_in_pieces_and_once() -> None:
    decoder: Any = FakeDecoder()
    utterance = Utterance(decoder)
    sound = bytes(range(1, 251)) * 27
    utterance.add(sound + b"\x01")
    done = []
    while size := utterance.decode_piece():
        done.append(size)
    assert done == [3200, 3200, 350]
    assert decoder.sound == sound
    assert not utterance.has_work


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"worker": 1}, "worker"),
        ({"workers": 0}, "workers"),
        ({"workers": "2"}, "workers"),
        ({"decoders_per_worker": 0}, "decoders_per_worker"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"job_timeout_s": 0}, "job_timeout_s"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], path: str) -> None:
    with pytest.raises(EngineOptionsError) as caught:
        create(options)
    assert caught.value.path == path


def test_what_it_says_of_itself() -> None:
    engine = create({})
    assert engine.name == "pocketsphinx"
    assert engine.version
    assert engine.capabilities.sample_rate == 16000
    assert engine.capabilities.streaming
    assert engine.capabilities.languages == ("en",)
    assert engine.capabilities.logprobs
