"""Piper, Kokoro and sherpa-onnx: the real libraries, on voices that speak tones (tests/models/tiny_voices.py)."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tiny_voices import HOP, pitch, write_kokoro, write_piper, write_sherpa_styled, write_sherpa_vits

from vivavoce.engines import kokoro, piper, sherpa_onnx_tts
from vivavoce.engines.base import EngineError, EngineOptionsError, SynthesisRequest, Synthesizer
from vivavoce.engines.builtin.speech_pool import (
    LONGEST_PHRASE,
    LONGEST_TEXT,
    VOICE_NAMES,
    Mouth,
    PooledSynthesizer,
    SpeakRequest,
    has_words,
    phrases,
    serve,
)
from vivavoce.engines.builtin.worker_channel import Channel, Frame, Kind
from vivavoce.engines.registry import Registry
from vivavoce.testing import conformance
from vivavoce.wire.session_config import VOICES

Options = dict[str, Any]
NAMES: Final = ("piper", "kokoro", "sherpa_onnx")
FACTORIES: Final[Mapping[str, Callable[[Mapping[str, object]], Synthesizer]]] = {
    "piper": piper.create,
    "kokoro": kokoro.create,
    "sherpa_onnx": sherpa_onnx_tts.create,
}
STYLED: Final[Options] = {"family": "kokoro", "voices_file": "voices.bin"}
TEXT: Final = "Hello there, how are you?"
SENTENCES: Final = "One sentence from the tools. " * 1500
"""More sound than may be on its way."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Voices for all three. ``alloy`` is 200 Hz high and ``ash`` 400 Hz."""
    made = tmp_path_factory.mktemp("voices")
    write_piper(made, "one")
    write_piper(made, "many", speakers=3)
    write_piper(made, "slow", rate=16000)
    write_kokoro(made, {"af_low": 200, "bm_high": 400, "nobody": 300})
    (made / "sherpa").mkdir()
    write_sherpa_vits(made / "sherpa", speakers=3)
    return made


def options(name: str, folder: Path) -> Options:
    if name == "piper":
        return {"folder": str(folder), "voices": {"ash": "many#p2"}, "default_voice": "one"}
    if name == "kokoro":
        files = {"model": str(folder / "model.onnx"), "voices_file": str(folder / "voices.bin")}
        return {**files, "voices": {"ash": "bm_high"}, "default_voice": "af_low"}
    sherpa: Options = {"folder": str(folder / "sherpa"), "lexicon": ["lexicon.txt"]}
    return {"family": "vits", **sherpa, "voices": {"ash": 2}, "default_voice": 0}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=NAMES)
async def engine(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[PooledSynthesizer]:
    made = FACTORIES[request.param](options(request.param, folder))
    assert isinstance(made, PooledSynthesizer)
    await made.start()
    yield made
    pids = made._pool.pids
    await made.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


in_module_loop = pytest.mark.asyncio(loop_scope="module")


async def say(engine: Synthesizer, text: str, voice: str = "alloy", speed: float = 1.0) -> bytes:
    chunks = [chunk async for chunk in engine.synthesize(SynthesisRequest(text, voice, speed))]
    assert not [chunk for chunk in chunks if not 0 < len(chunk.pcm) <= 8192 or len(chunk.pcm) % 2]
    return b"".join(chunk.pcm for chunk in chunks)


@in_module_loop
async def test_the_text_makes_the_length(engine: PooledSynthesizer) -> None:
    short, long = len(await say(engine, "Hello.")), len(await say(engine, TEXT))
    assert short >= 2 * HOP
    assert 1.5 * short < long < 8 * short


@in_module_loop
async def test_the_voice_makes_the_sound(engine: PooledSynthesizer) -> None:
    rate = engine.capabilities.sample_rate
    assert pitch(await say(engine, TEXT, "alloy"), rate) == pytest.approx(200, abs=2)
    assert pitch(await say(engine, TEXT, "ash"), rate) == pytest.approx(400, abs=2)
    assert pitch(await say(engine, TEXT, "verse"), rate) == pytest.approx(200, abs=2)


@in_module_loop
async def test_speed(engine: PooledSynthesizer) -> None:
    usual = len(await say(engine, TEXT))
    for speed in (0.5, 1.5):
        assert len(await say(engine, TEXT, speed=speed)) == pytest.approx(usual / speed, rel=0.1)


@in_module_loop
async def test_one_sentence_after_the_other(engine: PooledSynthesizer) -> None:
    one, two = len(await say(engine, "One sentence.")), len(await say(engine, "Two sentence."))
    both = len(await say(engine, "One sentence. Two sentence."))
    assert both == pytest.approx(one + two, rel=0.15)


@in_module_loop
async def test_leaving_early_frees_the_worker(engine: PooledSynthesizer) -> None:
    before = engine._pool.pids
    for _ in range(3):
        speech = engine.synthesize(SynthesisRequest(SENTENCES, "alloy"))
        assert (await anext(speech)).pcm
        await speech.aclose()
    assert await say(engine, "Hello.") != b""
    assert engine._pool.pids == before


@in_module_loop
async def test_sound_comes_before_the_end_and_a_crash_costs_one_synthesis(engine: PooledSynthesizer) -> None:
    speech = engine.synthesize(SynthesisRequest(SENTENCES, "alloy"))
    assert (await anext(speech)).pcm
    (pid,) = engine._pool.pids
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError) as caught:
        async for _ in speech:
            pass
    assert caught.value.code == "engine_crashed"
    assert await say(engine, "Hello.") != b""
    assert engine._pool.pids != (pid,)
    assert engine.working


@in_module_loop
@pytest.mark.parametrize("text", ["", "  \n", "...", "-", "!?", "\x00", "\u200b", "😀"])
async def test_nothing_to_say_makes_no_sound(engine: PooledSynthesizer, text: str) -> None:
    assert await say(engine, text) == b""


@in_module_loop
@pytest.mark.parametrize(
    "text", ["Hello\x00 there", "\ud800Hello", "Hello [[h@loU]] there", "<b>Hello</b>", "a" * 900]
)
async def test_odd_text_is_spoken(engine: PooledSynthesizer, text: str) -> None:
    before = engine._pool.pids
    # The lexicon of the third has no word "aaa...".
    assert (await say(engine, text) != b"") is (engine.name != "sherpa_onnx" or "Hello" in text)
    assert engine._pool.pids == before


@in_module_loop
async def test_the_queue_is_fair_and_shared(engine: PooledSynthesizer) -> None:
    texts = ["Hello.", "Hello there.", "One.", "Hello."]
    alone = [await say(engine, text) for text in texts]
    assert list(await asyncio.gather(*(say(engine, text) for text in texts))) == alone


@in_module_loop
@pytest.mark.parametrize(
    ("text", "voice", "code"),
    [("hello", "nobody", "unknown_voice"), ("x" * (LONGEST_TEXT + 1), "alloy", "text_too_long")],
)
async def test_wrong_requests_are_refused(engine: PooledSynthesizer, text: str, voice: str, code: str) -> None:
    with pytest.raises(EngineError) as caught:
        await anext(engine.synthesize(SynthesisRequest(text, voice)))
    assert caught.value.code == code


async def test_brackets_are_no_phonemes(folder: Path) -> None:
    engine = piper.create(options("piper", folder))
    await engine.start()
    try:
        # As phonemes it would be five.
        assert len(await say(engine, "[[hello]]")) >= len(await say(engine, "hello")) == ids(6) * HOP * 2
    finally:
        await engine.close()


def ids(phonemes: int) -> int:
    """What Piper makes of them: a beginning, an end, and padding between."""
    return 2 * phonemes + 3


async def test_scales_of_piper(folder: Path) -> None:
    slow = piper.create({**options("piper", folder), "length_scale": 2.0, "volume": 0.25})
    usual = piper.create(options("piper", folder))
    await asyncio.gather(slow.start(), usual.start())
    try:
        quiet, loud = await say(slow, TEXT), await say(usual, TEXT)
        assert len(quiet) == 2 * len(loud)
        assert peak(quiet) == pytest.approx(peak(loud) / 4, rel=0.01)
    finally:
        await asyncio.gather(slow.close(), usual.close())


def peak(pcm: bytes) -> int:
    return max(memoryview(pcm).cast("h"))


@pytest.mark.parametrize("family", ["kokoro", "kitten"])
async def test_families_of_sherpa_onnx(family: Literal["kokoro", "kitten"], tmp_path: Path) -> None:
    write_sherpa_styled(tmp_path, family, speakers=3)
    files = {"folder": str(tmp_path), "lexicon": ["lexicon.txt"], "voices_file": "voices.bin"}
    engine = sherpa_onnx_tts.create({"family": family, **files, "voices": {"ash": 2}, "default_voice": 0})
    await engine.start()
    try:
        assert pitch(await say(engine, TEXT), 24000) == pytest.approx(200, abs=2)
        usual = await say(engine, TEXT, "ash")
        assert pitch(usual, 24000) == pytest.approx(400, abs=2)
        assert len(await say(engine, TEXT, "ash", 2.0)) == pytest.approx(len(usual) / 2, rel=0.1)
    finally:
        await engine.close()


@pytest.mark.parametrize("name", NAMES)
async def test_the_promises_of_their_kind(name: str, folder: Path) -> None:
    bad = {"workers": 0, "speed": 1}
    subject = conformance.Subject(
        kind="synthesizer", create=FACTORIES[name], options=options(name, folder), bad_options=bad
    )
    for check in conformance.checks(subject):
        await check.run()


async def test_pauses_of_kokoro(folder: Path) -> None:
    engine = kokoro.create({**options("kokoro", folder), "sentence_pause_s": 1.0, "clause_pause_s": 0.5})
    await engine.start()
    try:
        bare = len((await say(engine, "Hello")).rstrip(b"\0"))
        for text, pause_s in (("Hello.", 1.0), ("Hello?”", 1.0), ("Hello,", 0.5), ("Hello", 0.0)):
            pcm = await say(engine, text)
            silence = len(pcm) - len(pcm.rstrip(b"\0"))
            assert silence / 48000 == pytest.approx(pause_s, abs=0.01)
            assert len(pcm) - silence >= bare
    finally:
        await engine.close()


# ------------------------------------------------------------------------------------------- what is told of them


@pytest.mark.parametrize("name", NAMES)
def test_what_they_say_of_themselves(name: str, folder: Path) -> None:
    engine = Registry.installed().create("synthesizer", name, options(name, folder))
    assert isinstance(engine, Synthesizer)
    assert engine.name == name
    assert engine.version
    assert engine.capabilities.heavy
    assert not engine.capabilities.word_timings
    assert engine.capabilities.sample_rate == {"piper": 22050, "kokoro": 24000, "sherpa_onnx": 16000}[name]
    assert set(engine.capabilities.voices) == set(VOICES)


def test_all_voices_of_the_protocol_are_known() -> None:
    assert set(VOICE_NAMES) == set(VOICES)


def test_relative_files_start_from_the_folder_of_the_configuration(folder: Path) -> None:
    for name in NAMES:
        given = {
            key: os.path.relpath(value, folder.parent) if key in ("folder", "model", "voices_file") else value
            for key, value in options(name, folder).items()
        }
        engine = Registry.installed().create("synthesizer", name, given, base=folder.parent)
        assert engine.name == name


def test_voices_that_are_not_named_are_not_there(folder: Path) -> None:
    engine = piper.create({"folder": str(folder), "voices": {"ash": "many#1", "sage": "many"}})
    assert engine.capabilities.voices == {"ash": "many#1", "sage": "many"}


@pytest.mark.parametrize(
    ("name", "changes", "path", "problem"),
    [
        *((name, {"workers": 0}, "workers", "Expected `int` >= 1") for name in NAMES),
        *((name, {"speed": 1}, "speed", "unknown option") for name in NAMES),
        *(
            (name, {"voices": {"nova": 1 if name == "sherpa_onnx" else "x"}}, "voices.nova", "no such voice")
            for name in NAMES
        ),
        ("piper", {"voices": {}, "default_voice": None}, "voices", "name a voice"),
        ("piper", {"voices": {"ash": "absent"}}, "voices.ash", "there is no "),
        ("piper", {"default_voice": "absent"}, "default_voice", "there is no "),
        ("piper", {"voices": {"ash": "many#3"}}, "voices.ash", "many has no speaker '3'; it has 3, from 0"),
        ("piper", {"voices": {"ash": "many#p9"}}, "voices.ash", "many has no speaker 'p9'; it has 3, from 0"),
        ("piper", {"voices": {"ash": "slow"}}, "voices.ash", "slow speaks at 16000 Hz and one at 22050 Hz"),
        ("piper", {"length_scale": 0}, "length_scale", "Expected `float` > 0"),
        ("kokoro", {"model": "absent"}, "model", "there is no absent"),
        ("kokoro", {"voices_file": "absent"}, "voices_file", "absent cannot be read: No such file"),
        ("kokoro", {"voices_file": __file__}, "voices_file", f"{__file__} is no file of Kokoro voices"),
        ("kokoro", {"voices": {"ash": "af_no"}}, "voices.ash", "has no voice 'af_no' (there are: af_low, bm_high,"),
        ("kokoro", {"default_voice": None}, "voices.alloy", "has no voice 'af_alloy'"),
        ("kokoro", {"voices": {"ash": "nobody"}}, "voices.ash", "the name 'nobody' tells no language"),
        ("sherpa_onnx", {"family": "kokoro"}, "voices_file", "a model of the family kokoro needs one"),
        ("sherpa_onnx", {"voices_file": "x"}, "voices_file", "a model of the family vits has none"),
        ("sherpa_onnx", {**STYLED, "noise_w_scale": 1.0}, "noise_w_scale", "a model of the family kokoro has none"),
        ("sherpa_onnx", {"family": "bark"}, "family", "must be one of: "),
        ("sherpa_onnx", {"lexicon": ["absent"]}, "lexicon", "there is no "),
        ("sherpa_onnx", {"model": "tokens.txt"}, "model", "is no ONNX model"),
        ("sherpa_onnx", {"voices": {"ash": 3}}, "voices.ash", "no speaker 3; it has 3, from 0"),
    ],
)
def test_wrong_options_are_named(name: str, changes: Options, path: str, problem: str, folder: Path) -> None:
    with pytest.raises(EngineOptionsError) as caught:
        FACTORIES[name]({**options(name, folder), **changes})
    assert caught.value.path == path
    assert problem in caught.value.problem


@pytest.mark.parametrize(("name", "path"), [("piper", "folder"), ("kokoro", "model"), ("sherpa_onnx", "family")])
def test_what_is_required(name: str, path: str) -> None:
    with pytest.raises(EngineOptionsError) as caught:
        FACTORIES[name]({})
    assert (caught.value.path, caught.value.problem) == (path, "is required")


def test_a_model_that_was_not_made_for_sherpa_onnx(folder: Path) -> None:
    given = {**options("sherpa_onnx", folder), "model": "../one.onnx"}
    with pytest.raises(EngineOptionsError, match="was not made for sherpa-onnx"):
        sherpa_onnx_tts.create(given)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"num_speakers": 1}',
        b'{"num_speakers": 1, "audio": [22050]}',
        b'{"num_speakers": 1, "audio": {"sample_rate": 0}}',
        b'{"num_speakers": 0, "audio": {"sample_rate": 22050}}',
        b'{"num_speakers": 2, "audio": {"sample_rate": 22050}, "speaker_id_map": ["p0"]}',
    ],
)
def test_a_file_beside_a_model_that_tells_nothing_of_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    (tmp_path / "x.onnx.json").write_bytes(content)
    with pytest.raises(EngineOptionsError, match="is no configuration of a Piper voice") as caught:
        piper.create({"folder": str(tmp_path), "default_voice": "x#0"})
    assert caught.value.path == "default_voice"


class Told(Channel):
    """A worker's end to which all was sent before, and that keeps what the worker says."""

    def __init__(self, *texts: str) -> None:
        self._frames = [
            Frame(job, Kind.OPEN, msgspec.json.encode(SpeakRequest(text, "alloy", 1.0)))
            for job, text in enumerate(texts, 1)
        ]
        self.said: list[tuple[int, Kind]] = []

    def receive(self) -> Frame:
        return self._frames.pop(0)

    def send(self, job: int, kind: Kind, payload: bytes = b"") -> None:
        assert b"secret" not in payload
        self.said.append((job, kind))


def test_a_worker_that_fails_again_and_again_gives_way_to_a_new_one() -> None:
    def speak(request: SpeakRequest, mouth: Mouth) -> None:
        if request.text.startswith("bad"):
            raise RuntimeError(request.text)

    bad = "bad secret"
    channel = Told(bad, bad, "good", bad, bad, bad, "good")
    with pytest.raises(SystemExit):
        serve(channel, 16000, speak)
    failed, done = Kind.FAILED, Kind.DONE
    told = [(1, failed), (2, failed), (3, done), (4, failed), (5, failed), (6, failed)]
    assert channel.said == [(0, Kind.READY), *told]


@pytest.fixture
def broken_folder(folder: Path, tmp_path: Path) -> Path:
    """The same, but that no model loads: they ask for an operator that there is not."""
    made = tmp_path / "voices"
    shutil.copytree(folder, made)
    for model in made.rglob("*.onnx"):
        content = model.read_bytes()
        assert b"Sin" in content
        model.write_bytes(content.replace(b"Sin", b"Xin"))
    return made


@pytest.mark.parametrize("name", NAMES)
async def test_a_model_that_does_not_load_stops_the_start(name: str, broken_folder: Path) -> None:
    """What options cannot tell: the file itself is broken."""
    with pytest.raises(EngineError) as caught:
        await FACTORIES[name](options(name, broken_folder)).start()
    assert caught.value.code == "engine_unavailable"


async def test_a_lexicon_of_another_model_stops_the_start(folder: Path, broken_folder: Path) -> None:
    shutil.copy(folder / "sherpa" / "model.onnx", broken_folder / "sherpa")
    (broken_folder / "sherpa" / "lexicon.txt").write_text("你 ni3\n", encoding="utf-8")
    with pytest.raises(EngineError, match="cannot say the first word of its lexicon"):
        await sherpa_onnx_tts.create(options("sherpa_onnx", broken_folder)).start()


@pytest.mark.parametrize("name", ["piper", "kokoro"])
async def test_a_device_that_is_not_there_stops_the_start(name: str, folder: Path) -> None:
    engine = FACTORIES[name]({**options(name, folder), "device": "cuda"})
    with pytest.raises(EngineError, match="knows no CUDA"):
        await engine.start()


# ------------------------------------------------------------------------------------------------------ phrases


@given(text=st.text(alphabet="ab .,!?…。\n\"'1é", max_size=400) | st.text(max_size=60))
def test_phrases_are_the_text(text: str) -> None:
    pieces = list(phrases(text))
    rest = text
    for piece in pieces:
        assert has_words(piece)
        assert len(piece) <= LONGEST_PHRASE
        before, found, rest = rest.partition(piece)
        assert found
        assert not has_words(before)
    assert not has_words(rest)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One. Two!  Three", ["One.", " Two!", "  Three"]),
        ('He said "no." Then 3.14, e.g. that.', ['He said "no."', " Then 3.14, e.g.", " that."]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("a " + "b" * 295 + " c d", ["a " + "b" * 295 + " c ", "d"]),
        ("a, " * 150, ["a, " * 99 + "a,", " " + "a, " * 50]),
        ("x" * 700, ["x" * 300, "x" * 300, "x" * 100]),
        ("...", []),
    ],
)
def test_phrases(text: str, pieces: list[str]) -> None:
    assert list(phrases(text)) == pieces
