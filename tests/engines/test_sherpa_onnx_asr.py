"""sherpa-onnx itself as a recogniser, on models of known weights: other sounds are other words."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
import sherpa_onnx
from tiny_sherpa_asr import make_offline_ctc, make_streaming_ctc
from tiny_whisper import sound

from vivavoce.engines.base import (
    EngineError,
    EngineOptionsError,
    PartialTranscript,
    Transcriber,
    TranscriptDelta,
    TranscriptionOptions,
)
from vivavoce.engines.builtin.worker_channel import Frame, Kind
from vivavoce.engines.builtin.worker_hearing import Guess, Told
from vivavoce.engines.sherpa_onnx_asr import OFFLINE, STREAMING, ModelType, SherpaOnnxTranscriber, create
from vivavoce.engines.sherpa_onnx_asr_worker import (
    WINDOW_S,
    OfflineEar,
    Recogniser,
    Request,
    Settings,
    StreamingEar,
    cut,
    load,
    pace,
)

RATE = 16_000
in_module_loop = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sherpa")


def options(folder: Path, mode: str, **more: object) -> dict[str, object]:
    """Of an engine with the tiny model of this mode."""
    make, kind = (
        (make_streaming_ctc, "zipformer2_ctc") if mode == "streaming" else (make_offline_ctc, "zipformer_ctc")
    )
    files = {name: str(folder / file) for name, file in make(folder).items()}
    return {"mode": mode, "model_type": kind, **files, **more}


async def started(taken: dict[str, object]) -> SherpaOnnxTranscriber:
    engine = create(taken)
    assert isinstance(engine, SherpaOnnxTranscriber)
    assert isinstance(engine, Transcriber)
    await engine.start()
    return engine


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["streaming", "offline"])
async def engine(folder: Path, request: pytest.FixtureRequest) -> AsyncIterator[SherpaOnnxTranscriber]:
    engine = await started(options(folder, request.param, utterances_per_worker=4, languages=["en", "de"]))
    yield engine
    (pid,) = engine._pool.pids
    await engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def pieces(pcm: bytes, size: int = 640) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size]


async def hear(engine: Transcriber, audio: AsyncIterator[bytes], language: str | None = None) -> str:
    deltas = [delta async for delta in engine.transcribe(audio, TranscriptionOptions(language))]
    assert all(isinstance(delta, TranscriptDelta) for delta in deltas)
    return "".join(delta.text for delta in deltas)


# ------------------------------------------------------------------------------------------------ what it hears


@in_module_loop
@pytest.mark.parametrize("tones", [("do",), ("do", "mi", "so", "la"), ("la", None, "la", "do")])
@pytest.mark.parametrize("size", [640, 3201, 1 << 20])
async def test_other_sounds_are_other_words(
    engine: SherpaOnnxTranscriber, tones: tuple[str | None, ...], size: int
) -> None:
    assert await hear(engine, pieces(sound(*tones), size)) == " ".join(filter(None, tones))


@in_module_loop
@pytest.mark.parametrize("pcm", [b"", b"\x01", bytes(100), bytes(64_000)])
async def test_silence_has_no_text(engine: SherpaOnnxTranscriber, pcm: bytes) -> None:
    assert await hear(engine, pieces(pcm)) == ""


@in_module_loop
async def test_many_at_once_and_some_wait(engine: SherpaOnnxTranscriber) -> None:
    said = [("do",), ("mi", "so"), ("la",), ("so", "do", "mi"), ("mi",), ("la", "do")]
    heard = await asyncio.gather(*(hear(engine, pieces(sound(*tones))) for tones in said))
    assert heard == [" ".join(tones) for tones in said]


@in_module_loop
async def test_languages_are_those_of_the_options(engine: SherpaOnnxTranscriber) -> None:
    assert engine.capabilities.languages == ("en", "de")
    assert await hear(engine, pieces(sound("do")), "de-DE") == "do"
    with pytest.raises(EngineError) as caught:
        await hear(engine, pieces(sound("do")), "fr")
    assert (caught.value.code, caught.value.type) == ("unsupported_language", "invalid_request_error")


@in_module_loop
async def test_a_long_utterance(engine: SherpaOnnxTranscriber) -> None:
    """Longer than an offline model hears at a time."""
    pcm = sound("do") + bytes(24 * RATE * 2) + sound("mi", ms=8000) + sound("so")
    assert await hear(engine, pieces(pcm, 1 << 16)) == "do mi so"


@in_module_loop
async def test_a_crash_is_told_and_survived(engine: SherpaOnnxTranscriber) -> None:
    (pid,) = engine._pool.pids

    async def somebody_who_waits() -> AsyncIterator[bytes]:
        yield sound("do")
        os.kill(pid, 9)
        await asyncio.Event().wait()

    with pytest.raises(EngineError) as caught:
        await hear(engine, somebody_who_waits())
    assert caught.value.code == "engine_crashed"
    assert await hear(engine, pieces(sound("mi"))) == "mi"


@in_module_loop
async def test_who_stops_leaves_nothing_behind(engine: SherpaOnnxTranscriber) -> None:
    before = asyncio.all_tasks()
    begun = asyncio.Event()

    async def without_end() -> AsyncIterator[bytes]:
        yield sound("do", "mi")
        begun.set()
        await asyncio.Event().wait()

    for _ in range(6):  # more than there are places
        begun.clear()
        work = asyncio.create_task(hear(engine, without_end()))
        await begun.wait()
        work.cancel()
        await asyncio.wait([work])
    assert asyncio.all_tasks() <= before
    assert await hear(engine, pieces(sound("so"))) == "so"


async def test_words_come_while_people_speak(folder: Path) -> None:
    """A word is told when the next has begun; what is a guess is no part of what was told."""
    engine = await started(options(folder, "streaming"))
    news: asyncio.Queue[str] = asyncio.Queue()

    async def slowly() -> AsyncIterator[bytes]:
        for tone, awaited in (("do", "do"), ("mi", " mi"), ("so", " so")):
            yield sound(tone, ms=640)
            while await news.get() != awaited:
                pass
        yield sound("la")

    said = []
    try:
        async for piece in engine.transcribe(slowly(), TranscriptionOptions(partials=True)):
            said.append(piece)
            if isinstance(piece, PartialTranscript):
                news.put_nowait(piece.text)
    finally:
        await engine.close()
    assert [piece.text for piece in said if isinstance(piece, TranscriptDelta)] == ["do", " mi", " so", " la"]
    guesses = [piece for piece in said if isinstance(piece, PartialTranscript)]
    assert {guess.text for guess in guesses} <= {"do", " mi", " so", " la"}
    assert [guess.audio_ms for guess in guesses] == sorted({guess.audio_ms for guess in guesses})
    assert guesses[0].audio_ms <= 640


# ---------------------------------------------------------------------------------------- the worker, step by step


class Spoken:
    """A channel that keeps what a worker says."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, Kind, bytes]] = []

    def send(self, job: int, kind: Kind, payload: bytes = b"") -> None:
        self.frames.append((job, kind, payload))

    def send_credit(self, job: int, n_bytes: int) -> None:
        self.send(job, Kind.CREDIT, str(n_bytes).encode())

    def said(self, job: int) -> list[Told | Guess]:
        return [
            msgspec.json.decode(payload, type=Told | Guess)
            for owner, kind, payload in self.frames
            if kind is Kind.DATA and owner == job
        ]

    def kinds(self, kind: Kind) -> list[int]:
        return [job for job, said, _ in self.frames if said is kind]


class Counted:
    """A recogniser of sherpa-onnx that keeps the sizes of its batches, and may fail."""

    def __init__(self, recognizer: Any) -> None:
        self._recognizer = recognizer
        self.batches: list[int] = []
        self.fault: RuntimeError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recognizer, name)

    def decode_streams(self, streams: list[Any]) -> None:
        if self.fault:
            raise self.fault
        self.batches.append(len(streams))
        self._recognizer.decode_streams(streams)


def settings(taken: dict[str, object], max_batch: int = 2, *, settled: bool = True) -> Settings:
    mode = taken["mode"]
    assert mode in ("streaming", "offline")
    factory = (STREAMING if mode == "streaming" else OFFLINE)[str(taken["model_type"])].factory
    arguments = {name: str(taken[name]) for name in ("model", "tokens")}
    return Settings("streaming" if mode == "streaming" else "offline", factory, arguments, max_batch, settled)


def bench(folder: Path, mode: str, *, settled: bool = True) -> tuple[Recogniser, Counted, Any]:
    ear = load(settings(options(folder, mode), settled=settled))
    assert isinstance(ear, StreamingEar | OfflineEar)
    counted = ear._recognizer = Counted(ear._recognizer)
    channel: Any = Spoken()
    return Recogniser(channel, ear), counted, channel


def speak(recogniser: Recogniser, job: int, pcm: bytes, *, end: bool = True, partials: bool = False) -> None:
    recogniser.take(Frame(job, Kind.OPEN, msgspec.json.encode(Request(partials=partials))))
    recogniser.take(Frame(job, Kind.DATA, pcm))
    if end:
        recogniser.take(Frame(job, Kind.END, b""))


def run(recogniser: Recogniser) -> None:
    while recogniser.has_work:
        recogniser.turn()


def test_offline_utterances_are_decoded_together_as_they_were_completed(folder: Path) -> None:
    recogniser, counted, channel = bench(folder, "offline")
    for job, tone in enumerate(("do", "mi", "so"), 1):
        speak(recogniser, job, sound(tone))
    speak(recogniser, 4, sound("la"), end=False)
    run(recogniser)
    assert counted.batches == [2, 1]
    assert channel.kinds(Kind.DONE) == [1, 2, 3]
    assert [channel.said(job) for job in (1, 2, 3)] == [[Told("do")], [Told("mi")], [Told("so")]]


def test_a_long_offline_utterance_lets_others_go_along(folder: Path) -> None:
    recogniser, counted, channel = bench(folder, "offline")
    speak(recogniser, 1, sound("do") + bytes(2 * RATE * (2 * WINDOW_S)) + sound("mi"))
    speak(recogniser, 2, sound("so"))
    run(recogniser)
    assert channel.kinds(Kind.DONE) == [2, 1]
    assert channel.said(1) == [Told("do"), Told(" mi")]
    assert counted.batches == [2, 1, 1]


def test_streams_are_decoded_together_and_take_turns(folder: Path) -> None:
    recogniser, counted, channel = bench(folder, "streaming")
    for job in (1, 2, 3):
        speak(recogniser, job, sound("do", "mi"))
    recogniser.turn()
    recogniser.turn()
    assert counted.batches == [2, 2]
    run(recogniser)
    assert sorted(channel.kinds(Kind.DONE)) == [1, 2, 3]
    assert [channel.said(job) for job in (1, 2, 3)] == [[Told("do"), Told(" mi")]] * 3


def test_a_search_that_may_change_its_mind_tells_at_the_end(folder: Path) -> None:
    recogniser, _, channel = bench(folder, "streaming", settled=False)
    speak(recogniser, 1, sound("do", "mi", "so"), partials=True)
    run(recogniser)
    *guesses, told = channel.said(1)
    assert told == Told("do mi so")
    assert guesses
    assert all(isinstance(guess, Guess) for guess in guesses)


@pytest.mark.parametrize("mode", ["streaming", "offline"])
def test_a_batch_that_fails_costs_its_utterances_and_three_in_a_row_the_worker(folder: Path, mode: str) -> None:
    recogniser, counted, channel = bench(folder, mode)
    for round_ in range(3):
        counted.fault = RuntimeError("Non-zero status code: secret")
        for job in (1, 2):
            speak(recogniser, 10 * round_ + job, sound("do"))
        recogniser.turn()
        assert channel.kinds(Kind.FAILED)[-2:] == [10 * round_ + 1, 10 * round_ + 2]
        counted.fault = None
        speak(recogniser, 99, sound("do"))
        run(recogniser)
        assert channel.frames[-1][:2] == (99, Kind.DONE)
    counted.fault = RuntimeError("again")
    for job in (1, 2):
        speak(recogniser, job, sound("do"))
        recogniser.turn()
    speak(recogniser, 3, sound("do"))
    with pytest.raises(SystemExit):
        recogniser.turn()
    assert not any(b"secret" in payload for _, _, payload in channel.frames)


@pytest.mark.parametrize("mode", ["streaming", "offline"])
def test_who_hangs_up_is_decoded_no_more(folder: Path, mode: str) -> None:
    recogniser, counted, channel = bench(folder, mode)
    speak(recogniser, 1, sound("do"))
    speak(recogniser, 2, sound("do"), end=False)
    for job in (1, 2, 3):
        recogniser.take(Frame(job, Kind.CANCEL, b""))
    recogniser.take(Frame(1, Kind.DATA, bytes(10)))
    assert not recogniser.has_work
    assert counted.batches == []
    assert channel.kinds(Kind.DONE) == [1, 2]


def test_long_sound_is_cut_where_it_is_quiet() -> None:
    noise = np.ones(70 * RATE, np.float32)
    for quiet in (25, 49):
        noise[quiet * RATE : quiet * RATE + RATE // 10] = 0.0
    lengths = [len(piece) for piece in cut(noise)]
    assert sum(lengths) == len(noise)
    assert max(lengths) <= WINDOW_S * RATE
    assert [round(length / RATE) for length in lengths[:2]] == [25, 24]
    assert [len(piece) for piece in cut(noise[: WINDOW_S * RATE])] == [WINDOW_S * RATE]
    assert [len(piece) for piece in cut(noise[:0])] == [0]


def test_a_model_that_is_never_ready_is_found_out() -> None:
    stream = SimpleNamespace(accept_waveform=lambda rate, samples: None)
    deaf = SimpleNamespace(create_stream=lambda: stream, is_ready=lambda stream: False)
    with pytest.raises(ValueError, match="never"):
        pace(deaf)


class Polyglot:
    """An offline recogniser that says in which language it was asked to hear."""

    def __init__(self) -> None:
        model = SimpleNamespace(
            whisper=SimpleNamespace(language=""), canary=SimpleNamespace(src_lang="en", tgt_lang="en")
        )
        self.config = SimpleNamespace(model_config=model)
        self.recognizer = self
        self.told: list[str] = []

    def set_config(self, config: Any) -> None:
        model = config.model_config
        self.told.append(f"{model.whisper.language}/{model.canary.src_lang}>{model.canary.tgt_lang}")

    def create_stream(self) -> Any:
        said: dict[str, str] = {}
        return SimpleNamespace(
            set_option=said.__setitem__,
            accept_waveform=lambda rate, samples: None,
            result=SimpleNamespace(text=said),
        )

    def decode_streams(self, streams: list[Any]) -> None:
        for stream in streams:
            stream.result.text = f"{self.told[-1:]} {stream.result.text}"


@pytest.mark.parametrize(
    ("how", "usual", "heard"),
    [
        ("whisper", {"language": ""}, ["['de/en>en'] {}", "['/en>en'] {}", "['de/en>en'] {}"]),
        ("canary", {"src_lang": "en", "tgt_lang": "en"}, ["['/de>de'] {}", "['/en>en'] {}", "['/de>de'] {}"]),
        ("stream", {}, ["[] {'language': 'de'}", "[] {}", "[] {'language': 'de'}"]),
        ("", {}, ["[] {}"] * 3),
    ],
)
def test_the_language_reaches_the_models_that_take_it(how: Any, usual: dict[str, str], heard: list[str]) -> None:
    """Those of one language are decoded together."""
    ear = OfflineEar(Polyglot(), Settings("offline", "", usual, 16, True, how))
    channel: Any = Spoken()
    for job, language in ((1, "de"), (2, ""), (3, "de")):
        ear.open(job, Request(language))
        ear.add(job, np.ones(RATE, np.float32))
        ear.end(job)
    ear.turn(channel)
    assert ear.batch == ((1, 3) if how else (1, 2, 3))
    while ear.has_work:
        ear.turn(channel)
    assert [channel.said(job)[0].text for job in (1, 2, 3)] == heard


# ------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("mode", "name", "kind"),
    [("Online", name, kind) for name, kind in STREAMING.items()]
    + [("Offline", name, kind) for name, kind in OFFLINE.items()],
)
def test_every_type_of_model_has_a_factory_that_takes_its_files(mode: str, name: str, kind: ModelType) -> None:
    factory = getattr(getattr(sherpa_onnx, f"{mode}Recognizer"), kind.factory)
    takes = inspect.signature(factory).parameters
    renamed = dict(kind.renamed)
    given = {renamed.get(file, file) for file in kind.files} | dict(kind.fixed).keys() | {"num_threads", "provider"}
    given |= {"use_itn"} if kind.itn else set()
    given |= {"decoding_method"} if kind.search else set()
    assert given <= takes.keys()
    assert {name for name, one in takes.items() if one.default is inspect.Parameter.empty} <= given


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"mode": "live"}, "mode"),
        ({"model_type": "whisper"}, "model_type"),
        ({"model": None}, "model"),
        ({"model": "/nowhere.onnx"}, "model"),
        ({"joiner": "joiner.onnx"}, "joiner"),
        ({"decoding_method": "modified_beam_search"}, "decoding_method"),
        ({"decoding_method": "guess"}, "decoding_method"),
        ({"use_itn": True}, "use_itn"),
        ({"num_threads": 0}, "num_threads"),
        ({"max_batch": 0}, "max_batch"),
        ({"utterances_per_worker": 1}, "utterances_per_worker"),
        ({"languages": ["en"], "language": "de"}, "language"),
        ({"hotwords": "x"}, "hotwords"),
    ],
)
def test_wrong_options_are_named(folder: Path, wrong: dict[str, object], path: str) -> None:
    taken = options(folder, "streaming") | wrong
    with pytest.raises(EngineOptionsError) as caught:
        create({name: value for name, value in taken.items() if value is not None})
    assert caught.value.path == path


async def test_a_model_that_does_not_load_is_told(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    engine = create({**options(folder, "offline"), "model": str(broken)})
    with pytest.raises(EngineError) as caught:
        await engine.start()
    assert caught.value.code == "engine_unavailable"


def test_what_it_says_of_itself(folder: Path) -> None:
    streams = create(options(folder, "streaming"))
    waits = create(options(folder, "offline", language="en"))
    assert streams.name == waits.name == "sherpa_onnx"
    assert streams.version
    assert streams.capabilities.heavy
    assert (streams.capabilities.streaming, waits.capabilities.streaming) == (True, False)
    assert (streams.capabilities.partials, waits.capabilities.partials) == (True, False)
    assert not streams.capabilities.logprobs
