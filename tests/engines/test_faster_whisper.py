"""faster-whisper itself, on a model of known weights: other sounds, languages and prompts are other words."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import pytest_asyncio
from tiny_whisper import CUE, make_tiny_whisper, sound, words

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
from vivavoce.engines.faster_whisper import FasterWhisperTranscriber, create
from vivavoce.engines.faster_whisper_worker import (
    WINDOW_S,
    Ready,
    Recogniser,
    Request,
    Settings,
    Utterance,
    Whisper,
    Word,
)

SECOND = 32_000
"""Bytes of sound."""
in_module_loop = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_whisper(tmp_path_factory.mktemp("whisper") / "tiny")


async def started(model: Path, **options: object) -> FasterWhisperTranscriber:
    engine = create({"model": str(model), "device": "cpu", "cpu_threads": 1, **options})
    assert isinstance(engine, FasterWhisperTranscriber)
    assert isinstance(engine, Transcriber)
    await engine.start()
    return engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path) -> AsyncIterator[FasterWhisperTranscriber]:
    engine = await started(model, partial_interval_ms=500, utterances_per_worker=3, max_waiting=1)
    yield engine
    (pid,) = engine._pool.pids
    await engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def pieces(pcm: bytes, size: int = 640) -> AsyncIterator[bytes]:
    for start in range(0, len(pcm), size):
        yield pcm[start : start + size]


async def hear(
    engine: Transcriber, audio: AsyncIterator[bytes], options: TranscriptionOptions | None = None
) -> str:
    deltas = [delta async for delta in engine.transcribe(audio, options or TranscriptionOptions("en"))]
    assert all(isinstance(delta, TranscriptDelta) for delta in deltas)
    return "".join(delta.text for delta in deltas)


# ------------------------------------------------------------------------------------------------ what it hears


@in_module_loop
@pytest.mark.parametrize("tones", [("do",), ("do", "mi", "so", "la"), ("la", "la", "do")])
@pytest.mark.parametrize("size", [640, 3201, 1 << 20])
async def test_other_sounds_are_other_words(
    engine: FasterWhisperTranscriber, tones: tuple[str, ...], size: int
) -> None:
    assert await hear(engine, pieces(sound(*tones), size)) == words(*tones)


@in_module_loop
@pytest.mark.parametrize(
    ("asked", "spelt"), [("en", "en"), ("de", "de"), ("fr-FR", "fr"), ("DE", "de"), (None, "fr")]
)
async def test_the_language_is_the_clients_or_detected(
    engine: FasterWhisperTranscriber, asked: str | None, spelt: str
) -> None:
    heard = await hear(engine, pieces(sound("la", "mi")), TranscriptionOptions(asked))
    assert heard == words("la", "mi", language=spelt)


@in_module_loop
async def test_a_language_that_the_model_does_not_know(engine: FasterWhisperTranscriber) -> None:
    with pytest.raises(EngineError) as caught:
        await hear(engine, pieces(sound("do")), TranscriptionOptions("tlh"))
    assert (caught.value.code, caught.value.type) == ("unsupported_language", "invalid_request_error")


@in_module_loop
@pytest.mark.parametrize(
    "prompt",
    [
        CUE,
        f"He spoke {CUE} again",
        "far too much to hear " * 200 + CUE,
        pytest.param("far too much to send " * 100_000 + CUE, id="two million characters"),
    ],
)
async def test_the_prompt_reaches_the_model(engine: FasterWhisperTranscriber, prompt: str) -> None:
    options = TranscriptionOptions("en", prompt)
    assert await hear(engine, pieces(sound("do", "mi")), options) == words("do", "mi").upper()
    quietly = TranscriptionOptions("en", "in a whisper")
    assert await hear(engine, pieces(sound("do", "mi")), quietly) == words("do", "mi")


@in_module_loop
async def test_how_sure_it_is_of_each_word_is_measured(engine: FasterWhisperTranscriber) -> None:
    """Of two tones at once, of which one is a little louder, it cannot be sure."""
    do, mi = (np.frombuffer(sound(tone, ms=1000), "<i2") for tone in ("do", "mi"))
    both = (do * 0.70 + mi * 0.69).astype("<i2").tobytes()
    options = TranscriptionOptions("en", logprobs=True)
    (delta,) = [delta async for delta in engine.transcribe(pieces(sound("la") + both), options)]
    assert isinstance(delta, TranscriptDelta)
    assert delta.text == words("la", "do", "do") == "".join(token.token for token in delta.logprobs)
    sure, unsure, _ = (token.logprob for token in delta.logprobs)
    assert -0.01 < sure <= 0
    assert unsure < -0.01
    (delta,) = [delta async for delta in engine.transcribe(pieces(sound("do")), TranscriptionOptions("en"))]
    assert isinstance(delta, TranscriptDelta)
    assert delta.logprobs == ()


@in_module_loop
@pytest.mark.parametrize("pcm", [b"", b"\x01", bytes(100), bytes(2 * SECOND)])
async def test_silence_has_no_text(engine: FasterWhisperTranscriber, pcm: bytes) -> None:
    assert await hear(engine, pieces(pcm)) == ""


async def test_silence_that_is_cut_out_has_no_text(model: Path) -> None:
    engine = await started(model, vad_filter=True)
    try:
        assert await hear(engine, pieces(bytes(2 * SECOND))) == ""
    finally:
        await engine.close()


# -------------------------------------------------------------------------------------------- while people speak


class Speaker:
    """Says the next word when the one before was guessed; then so little that nobody looks at it before the end."""

    def __init__(self, *tones: str) -> None:
        self._tones = tones
        self._heard = asyncio.Semaphore(0)

    async def audio(self) -> AsyncIterator[bytes]:
        for tone in self._tones:
            yield sound(tone)
            await self._heard.acquire()
        yield sound("do", ms=480)

    async def to(
        self, engine: Transcriber, options: TranscriptionOptions
    ) -> list[TranscriptDelta | PartialTranscript]:
        said = []
        async for piece in engine.transcribe(self.audio(), options):
            said.append(piece)
            if isinstance(piece, PartialTranscript):
                self._heard.release()
        return said


@in_module_loop
async def test_words_come_while_people_speak(engine: FasterWhisperTranscriber) -> None:
    """What two decodings agree on is told, the rest is a guess; what was told is no part of the next guess."""
    assert await Speaker("do", "mi", "so", "la").to(engine, TranscriptionOptions("en", partials=True)) == [
        PartialTranscript("doa", 500),
        TranscriptDelta("doa"),
        PartialTranscript(" mib", 1000),
        TranscriptDelta(" mib"),
        PartialTranscript(" soc", 1500),
        TranscriptDelta(" soc"),
        PartialTranscript(" lad", 2000),
        TranscriptDelta(" lad doe"),
    ]


@in_module_loop
async def test_who_wants_probabilities_gets_all_words_at_the_end(engine: FasterWhisperTranscriber) -> None:
    said = await Speaker("do", "mi").to(engine, TranscriptionOptions("en", partials=True, logprobs=True))
    assert said[:2] == [PartialTranscript("doa", 500), PartialTranscript("doa mib", 1000)]
    assert [piece.text for piece in said[2:]] == ["doa mib doc"]
    assert isinstance(said[2], TranscriptDelta)
    assert len(said[2].logprobs) == 3


@in_module_loop
async def test_windows_of_a_long_utterance(engine: FasterWhisperTranscriber) -> None:
    """The second window knows the language of the first, and begins where that ends."""
    pcm = sound("so", "mi") + bytes(WINDOW_S * SECOND - SECOND) + sound("do", "la")
    heard = await hear(engine, pieces(pcm, 1 << 16), TranscriptionOptions())
    assert heard == f"{words('so', 'mi', language='de')} {words('do', 'la', language='de')}"


# ------------------------------------------------------------------------------------------------ when it breaks


@in_module_loop
async def test_a_crash_is_told_and_survived(engine: FasterWhisperTranscriber) -> None:
    (pid,) = engine._pool.pids

    async def somebody_who_waits() -> AsyncIterator[bytes]:
        yield sound("do")
        os.kill(pid, 9)
        await asyncio.Event().wait()

    with pytest.raises(EngineError) as caught:
        await hear(engine, somebody_who_waits())
    assert caught.value.code == "engine_crashed"
    assert await hear(engine, pieces(sound("mi"))) == words("mi")


@in_module_loop
async def test_who_stops_leaves_nothing_behind(engine: FasterWhisperTranscriber) -> None:
    before = asyncio.all_tasks()

    async def without_end() -> AsyncIterator[bytes]:
        yield sound("do", "mi")
        await asyncio.Event().wait()

    for _ in range(5):  # more than there are places
        stream = engine.transcribe(without_end(), TranscriptionOptions("en", partials=True))
        async for _piece in stream:
            break
        await stream.aclose()
    assert asyncio.all_tasks() <= before
    assert await hear(engine, pieces(sound("so"))) == words("so")


@in_module_loop
async def test_a_fault_of_the_audio_is_raised_as_it_is(engine: FasterWhisperTranscriber) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(640)
        raise ConnectionAbortedError("gone")

    with pytest.raises(ConnectionAbortedError, match="gone"):
        await hear(engine, broken())


# ---------------------------------------------------------------------------------------- the worker, step by step


class Spoken:
    """A channel that keeps what a worker says."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, Kind, bytes]] = []

    def send(self, job: int, kind: Kind, payload: bytes = b"") -> None:
        self.frames.append((job, kind, payload))

    def send_credit(self, job: int, n_bytes: int) -> None:
        self.send(job, Kind.CREDIT, str(n_bytes).encode())

    def kinds(self, kind: Kind) -> list[int]:
        return [job for job, said, _ in self.frames if said is kind]


class Scripted:
    """Decodes to what a test says, and keeps the order in which it was asked."""

    def __init__(self, *decodings: list[Word] | Exception) -> None:
        self.decodings = list(decodings)
        self.asked: list[tuple[str, bool]] = []

    def n_tokens(self, text: str) -> int:
        return len(text.split())

    def _next(self, utterance: Utterance, last: bool) -> list[Word]:
        self.asked.append((str(utterance.request.prompt), last))
        decoding = self.decodings.pop(0) if self.decodings else []
        if isinstance(decoding, Exception):
            raise decoding
        return decoding

    def decode(self, utterance: Utterance, *, last: bool) -> list[Word]:
        utterance.heard_bytes = len(utterance.window)
        return self._next(utterance, last)

    def decode_full(self, utterance: Utterance) -> list[Word]:
        utterance.move(WINDOW_S * SECOND, "")
        return self._next(utterance, True)


def bench(*decodings: list[Word] | Exception, interval_ms: int = 500) -> tuple[Recogniser, Scripted, Spoken]:
    channel: Any = Spoken()
    whisper: Any = Scripted(*decodings)
    return Recogniser(channel, whisper, interval_ms), whisper, channel


def speak(recogniser: Recogniser, job: int, seconds: float, *, end: bool = False, begin: bool = True) -> None:
    """The prompt of job 1 is "1"."""
    if begin:
        recogniser.take(Frame(job, Kind.OPEN, msgspec.json.encode(Request(prompt=str(job), partials=True))))
    recogniser.take(Frame(job, Kind.DATA, bytes(int(seconds * SECOND))))
    if end:
        recogniser.take(Frame(job, Kind.END, b""))


def run(recogniser: Recogniser) -> None:
    while recogniser.has_work:
        recogniser.turn()


def plain(*texts: str) -> list[Word]:
    return [(text, None) for text in texts]


def test_who_has_finished_comes_before_those_who_speak() -> None:
    recogniser, whisper, channel = bench()
    for job in (1, 2):
        speak(recogniser, job, 1)
    for job in (3, 4):
        speak(recogniser, job, 1, end=True)
    run(recogniser)
    assert whisper.asked == [("3", True), ("4", True), ("1", False), ("2", False)]
    assert channel.kinds(Kind.DONE) == [3, 4]


def test_those_who_speak_take_turns_and_only_for_news() -> None:
    recogniser, whisper, _ = bench()
    for job in (1, 2):
        speak(recogniser, job, 0.6)
    recogniser.turn()
    speak(recogniser, 1, 0.6, begin=False)
    run(recogniser)
    speak(recogniser, 2, 0.4, begin=False)
    assert not recogniser.has_work
    assert [job for job, _ in whisper.asked] == ["1", "2", "1"]


def test_partial_results_take_a_quarter_of_the_time_at_most() -> None:
    """However much there would be to do for those who speak; but nobody who has finished waits for that."""
    now = 0.0

    class Slow(Scripted):
        def decode(self, utterance: Utterance, *, last: bool) -> list[Word]:
            nonlocal now
            now += 2.0
            return super().decode(utterance, last=last)

    def sleep(seconds: float) -> None:
        nonlocal now
        assert 0 < seconds <= 0.01
        now += seconds

    channel: Any = Spoken()
    whisper: Any = Slow()
    recogniser = Recogniser(channel, whisper, 500, clock=lambda: now, sleep=sleep)
    for job in (1, 2, 3):
        speak(recogniser, job, 1)
    run(recogniser)
    assert now == pytest.approx(2 + 6 + 2 + 6 + 2)
    for job in (1, 2, 3):
        speak(recogniser, job, 1, begin=False)
    speak(recogniser, 4, 1, end=True)
    recogniser.turn()
    assert now == pytest.approx(20)
    assert whisper.asked[-1] == ("4", True)


def test_without_an_interval_nothing_is_decoded_before_the_end() -> None:
    recogniser, whisper, _ = bench(interval_ms=0)
    speak(recogniser, 1, 10)
    assert not recogniser.has_work
    speak(recogniser, 1, 10, begin=False, end=True)
    run(recogniser)
    assert whisper.asked == [("1", True)]


def test_a_long_utterance_lets_others_go_between_its_windows() -> None:
    recogniser, whisper, channel = bench()
    speak(recogniser, 1, 2 * WINDOW_S + 1, end=True)
    speak(recogniser, 2, 1, end=True)
    run(recogniser)
    assert [job for job, _ in whisper.asked] == ["1", "2", "1", "1"]
    assert channel.kinds(Kind.DONE) == [2, 1]


def test_told_is_what_two_decodings_agree_on_and_go_on_behind() -> None:
    recogniser, _, channel = bench(
        plain(" I", " scream"),
        plain(" I", " scream"),
        plain(" scream", " for", " ice"),
        plain(" cream"),
        plain(" dream", " of"),
    )
    speak(recogniser, 1, 0)
    for _ in range(4):
        speak(recogniser, 1, 0.5, begin=False)
        run(recogniser)
    speak(recogniser, 1, 0.5, begin=False, end=True)
    run(recogniser)
    said = [
        msgspec.json.decode(payload, type=Told | Guess) for _, kind, payload in channel.frames if kind is Kind.DATA
    ]
    assert said == [
        Guess("I scream", 500),
        Told("I"),
        Guess(" scream", 1000),
        Told(" scream"),
        Guess(" for ice", 1500),
        Guess(" cream", 2000),
        Told(" dream of"),
    ]


@pytest.mark.parametrize("fault", [RuntimeError("CUDA failed"), ValueError("no")])
def test_a_decoding_that_fails_costs_its_utterance_and_three_in_a_row_the_worker(fault: Exception) -> None:
    recogniser, _, channel = bench(fault, fault, [], fault, fault, fault)
    for job in range(1, 6):
        speak(recogniser, job, 1, end=True)
        recogniser.turn()
    assert channel.kinds(Kind.FAILED) == [1, 2, 4, 5]
    speak(recogniser, 6, 1, end=True)
    with pytest.raises(SystemExit):
        recogniser.turn()
    assert channel.kinds(Kind.FAILED) == [1, 2, 4, 5, 6]
    assert b'"recognition_failed"' in channel.frames[-1][2]
    assert b"CUDA" not in channel.frames[-1][2]


def test_who_hangs_up_is_decoded_no_more() -> None:
    recogniser, whisper, channel = bench()
    speak(recogniser, 1, 1, end=True)
    speak(recogniser, 2, 1)
    for job in (1, 2, 3):
        recogniser.take(Frame(job, Kind.CANCEL, b""))
    recogniser.take(Frame(1, Kind.DATA, bytes(10)))
    assert not recogniser.has_work
    assert channel.kinds(Kind.DONE) == [1, 2]
    assert whisper.asked == []


@pytest.fixture(scope="module")
def whisper(model: Path) -> Whisper:
    return Whisper(settings(model))


def settings(model: Path) -> Settings:
    return Settings(str(model), False, "cpu", 0, "default", 1, 5, True, False, 1000)


def test_what_was_told_is_where_every_later_decoding_begins(whisper: Whisper) -> None:
    """Even where the sound says something else."""
    utterance = Utterance(Request("en"))
    utterance.window += sound("do", "mi", "so")
    utterance.prefix = "laa"
    assert [word for word, _ in whisper.decode(utterance, last=True)] == [" mib", " soc"]
    utterance.prefix = "words that nobody said"
    assert whisper.decode(utterance, last=False) == [(" doa", None), (" mib", None), (" soc", None)]


def test_a_full_window_ends_at_its_last_pause(whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        SimpleNamespace(text=" One two.", end=9.0, words=None),
        SimpleNamespace(text=" Three.", end=20.5, words=None),
        SimpleNamespace(text=" Four fi", end=28.0, words=None),
    ]

    def transcribe(sound: Any, **options: Any) -> tuple[list[Any], Any]:
        assert len(sound) == WINDOW_S * 16000
        assert options["prefix"] == "One"
        assert not options["without_timestamps"]
        return found, SimpleNamespace(language="en", language_probability=0.9)

    monkeypatch.setattr(whisper._model, "transcribe", transcribe)
    utterance = Utterance(Request())
    utterance.window += bytes((WINDOW_S + 2) * SECOND)
    utterance.prefix = "One"
    assert whisper.decode_full(utterance) == plain(" two.", " Three.")
    assert (len(utterance.window), utterance.gone_bytes) == (int(9.5 * SECOND), int(20.5 * SECOND))
    assert (utterance.context, utterance.prefix, utterance.language) == (" One two. Three.", "", "en")
    assert whisper._prompt(utterance) == whisper._encode(" One two. Three.")


def test_what_was_told_beyond_the_pause_is_told_of_the_next_window() -> None:
    utterance = Utterance(Request())
    utterance.window += bytes(10 * SECOND)
    utterance.prefix = "One two. Three."
    utterance.move(5 * SECOND, " One two.")
    assert (utterance.prefix, utterance.context, len(utterance.window)) == (" Three.", " One two.", 5 * SECOND)
    utterance.move(5 * SECOND, " Three. Four.")
    assert (utterance.prefix, utterance.audio_ms) == ("", 10_000)


def test_scripts_without_spaces_have_words_of_one_character(
    whisper: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [SimpleNamespace(text=" 今日は OK です", end=1.0, words=None)]
    info = SimpleNamespace(language="ja", language_probability=0.5)
    monkeypatch.setattr(whisper._model, "transcribe", lambda sound, **options: (found, info))
    utterance = Utterance(Request())
    assert [word for word, _ in whisper.decode(utterance, last=False)] == [" 今", "日", "は", " OK", " で", "す"]
    assert utterance.language is None, "it is not sure"


def test_the_probability_of_a_word_that_is_impossible_is_a_number(
    whisper: Whisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser, _, channel = bench([("a", 0.0), (" b", 0.5)])
    speak(recogniser, 1, 1, end=True)
    run(recogniser)
    told = msgspec.json.decode(next(p for _, kind, p in channel.frames if kind is Kind.DATA), type=Told)
    assert told.tokens[1] == (" b", math.log(0.5))
    assert -800 < told.tokens[0][1] < -700, "JSON has no infinity"


# ------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({}, "model"),
        ({"model": "/nowhere/at/all"}, "model"),
        ({"model": 3}, "model"),
        ({"hub_model": "tiny", "model": "/nowhere"}, "hub_model"),
        ({"modell": "x"}, "modell"),
        ({"hub_model": "tiny", "device": "tpu"}, "device"),
        ({"hub_model": "tiny", "compute_type": "int4"}, "compute_type"),
        ({"hub_model": "tiny", "beam_size": 0}, "beam_size"),
        ({"hub_model": "tiny", "workers": 0}, "workers"),
        ({"hub_model": "tiny", "utterances_per_worker": 1}, "utterances_per_worker"),
        ({"hub_model": "tiny", "partial_interval_ms": -1}, "partial_interval_ms"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], path: str) -> None:
    with pytest.raises(EngineOptionsError) as caught:
        create(options)
    assert caught.value.path == path


@pytest.mark.parametrize("file", ["model.bin", "config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_no_model(model: Path, tmp_path: Path, file: str) -> None:
    for path in model.iterdir():
        if path.name != file:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(EngineOptionsError, match=file):
        create({"model": str(tmp_path)})


def test_a_folder_is_not_downloaded(model: Path) -> None:
    with pytest.raises(EngineOptionsError) as caught:
        create({"model": str(model), "download": True})
    assert caught.value.path == "download"


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_a_name_of_the_hub_is_not_downloaded_unasked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    engine = create({"hub_model": "tiny"})
    with pytest.raises(EngineError, match="download = true is not set") as caught:
        await engine.start()
    assert caught.value.code == "engine_unavailable"
    assert not files_below(tmp_path)


@pytest.fixture
def broken(model: Path, tmp_path: Path) -> Path:
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:1000])
    return tmp_path


async def test_a_model_that_does_not_load_is_told(broken: Path) -> None:
    engine = create({"model": str(broken)})
    with pytest.raises(EngineError, match="its model does not load") as caught:
        await engine.start()
    assert caught.value.code == "engine_unavailable"


async def test_the_language_of_the_options_is_that_of_clients_who_name_none(model: Path) -> None:
    engine = await started(model, language="de")
    try:
        assert await hear(engine, pieces(sound("do")), TranscriptionOptions()) == words("do", language="de")
        assert await hear(engine, pieces(sound("do")), TranscriptionOptions("fr")) == words("do", language="fr")
    finally:
        await engine.close()


async def test_a_model_of_english_alone(tmp_path: Path) -> None:
    engine = await started(make_tiny_whisper(tmp_path / "tiny.en", multilingual=False))
    try:
        assert await hear(engine, pieces(sound("so")), TranscriptionOptions()) == "soa"
        with pytest.raises(EngineError, match="does not know the language 'de'"):
            await hear(engine, pieces(sound("so")), TranscriptionOptions("de"))
    finally:
        await engine.close()
    german = create({"model": str(tmp_path / "tiny.en"), "language": "de"})
    with pytest.raises(EngineError) as caught:
        await german.start()
    assert caught.value.code == "engine_unavailable"
    assert isinstance(german, FasterWhisperTranscriber)
    assert not german.working


def test_what_it_says_of_itself(model: Path) -> None:
    engine = create({"model": str(model)})
    assert engine.name == "faster_whisper"
    assert engine.version
    assert engine.capabilities.heavy
    assert engine.capabilities.partials
    assert msgspec.json.decode(msgspec.json.encode(Ready(("en",))), type=Ready).languages == ("en",)
