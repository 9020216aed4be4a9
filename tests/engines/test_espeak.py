from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vivavoce.engines.base import (
    EngineError,
    EngineOptionsError,
    SpeechChunk,
    SynthesisRequest,
    Synthesizer,
    WordTiming,
)
from vivavoce.engines.builtin.espeak import (
    DEFAULT_VOICES,
    LONGEST_TEXT,
    SAMPLE_RATE,
    EspeakSynthesizer,
    WordFinder,
    create,
)
from vivavoce.engines.builtin.speech_job import RawWord, pack_chunk, unpack_chunk

BYTES_PER_MS = SAMPLE_RATE * 2 / 1000
TEXT = "Hello there, how are you today? Everything went very well."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[EspeakSynthesizer]:
    before = len(os.listdir("/dev/fd"))
    made = create({"max_waiting": 4})
    assert isinstance(made, EspeakSynthesizer)
    assert isinstance(made, Synthesizer)
    await made.start()
    (pid,) = made._pool.pids
    yield made
    assert made._pool.pids == (pid,), "no test may cost a worker"
    await made.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert len(os.listdir("/dev/fd")) <= before


in_module_loop = pytest.mark.asyncio(loop_scope="module")


async def say(engine: Synthesizer, text: str, voice: str = "alloy", speed: float = 1.0) -> list[SpeechChunk]:
    return [chunk async for chunk in engine.synthesize(SynthesisRequest(text, voice, speed))]


def sound(chunks: list[SpeechChunk]) -> bytes:
    return b"".join(chunk.pcm for chunk in chunks)


def words(text: str, chunks: list[SpeechChunk]) -> list[str]:
    return [text[word.start : word.start + word.length] for chunk in chunks for word in chunk.words]


@in_module_loop
async def test_speech_comes_in_small_whole_pieces(engine: EspeakSynthesizer) -> None:
    chunks = await say(engine, TEXT)
    samples = np.frombuffer(sound(chunks), "<i2")
    assert 2 < len(samples) / SAMPLE_RATE < 5
    assert np.abs(samples.astype(int)).max() > 5000
    assert all(0 < len(chunk.pcm) <= 100 * BYTES_PER_MS for chunk in chunks)
    assert not [chunk for chunk in chunks if len(chunk.pcm) % 2]


@in_module_loop
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT, "Hello there how are you today Everything went very well"),
        ("“naïve” wörld — Zoë’s café, ok", "naïve wörld Zoë café ok"),
        ("a 😀 b\r\nc\td", "a 😀 b c d"),
        ("Fred\u0301 and e\u0301tude", "Fred\u0301 and e\u0301tude"),
        ("pay 1234567 euros, 3.14 %", "pay 1234567 euros 3.14 %"),
        ("   two words", "two words"),
        ("<b>bold</b> [[h@loU]] {x}", None),
    ],
)
async def test_words_are_where_the_text_has_them(
    engine: EspeakSynthesizer, text: str, expected: str | None
) -> None:
    chunks = await say(engine, text)
    found = words(text, chunks)
    assert found
    if expected is not None:
        assert " ".join(found) == expected
    at = 0.0
    for chunk in chunks:
        end = at + len(chunk.pcm) / BYTES_PER_MS
        assert all(at - 1 <= word.audio_ms <= end for word in chunk.words)
        at = end


@in_module_loop
@pytest.mark.parametrize("text", ["", "   ", "\n\n", "...", "-", "\x00", "\x01", "\u200b"])
async def test_nothing_to_say_makes_no_sound(engine: EspeakSynthesizer, text: str) -> None:
    assert await say(engine, text) == []


@in_module_loop
@pytest.mark.parametrize("command", ["\x0180S", "\x01+99P", "\x0110A", "\x00", "\u0557", "\ud800"])
async def test_no_character_is_a_command(engine: EspeakSynthesizer, command: str) -> None:
    before, after = "one two ", " three four."
    spoken = await say(engine, before + command + after)
    harmless = await say(engine, before + " " + command[1:] + after)
    assert sound(spoken) == sound(harmless)
    assert words(before + command + after, spoken)[-1] == "four"


@in_module_loop
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=30))
async def test_any_text_is_safe(engine: EspeakSynthesizer, text: str) -> None:
    timings = [word for chunk in await say(engine, text, speed=1.5) for word in chunk.words]
    for word in timings:
        assert word.length > 0
        assert not text[word.start].isspace()
        assert word.start + word.length <= len(text)
    assert [word.audio_ms for word in timings] == sorted(word.audio_ms for word in timings)
    for one, two in itertools.pairwise(timings):
        assert one.start + one.length <= two.start


@in_module_loop
async def test_the_same_request_gives_the_same_sound(engine: EspeakSynthesizer) -> None:
    first = await say(engine, TEXT)
    await say(engine, "Something else, faster and in another voice!", "verse", 1.5)
    cut = engine.synthesize(SynthesisRequest(TEXT, "coral"))
    await anext(cut)
    await cut.aclose()
    assert await say(engine, TEXT) == first

    other = create({"workers": 2})
    await other.start()
    try:
        assert list(await asyncio.gather(say(other, TEXT), say(other, TEXT))) == [first, first]
    finally:
        await other.close()


@in_module_loop
async def test_the_voices_differ(engine: EspeakSynthesizer) -> None:
    assert set(engine.capabilities.voices) == {
        *("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar"),
    }
    spectra = []
    for voice in engine.capabilities.voices:
        samples = np.frombuffer(sound(await say(engine, TEXT, voice)), "<i2").astype(float)
        power = np.log(
            np.square(np.abs(np.fft.rfft(samples, 1 << 17))).reshape(-1)[:65536].reshape(512, 128).mean(1) + 1
        )
        spectra.append(power[:256] - power[:256].mean())
    for one, two in itertools.combinations(spectra, 2):
        assert np.sqrt(np.mean(np.square(one - two))) > 0.5


@in_module_loop
async def test_speed_changes_the_length_within_bounds(engine: EspeakSynthesizer) -> None:
    lengths = [len(sound(await say(engine, TEXT, speed=speed))) for speed in (0.25, 0.7, 1.0, 1.5, 4.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert 1.3 < lengths[2] / lengths[3] < 2
    assert len(sound(await say(engine, TEXT, speed=0.01))) == lengths[0]


@in_module_loop
async def test_leaving_early_frees_the_worker(engine: EspeakSynthesizer) -> None:
    for _ in range(5):
        speech = engine.synthesize(SynthesisRequest(TEXT * 500, "echo"))
        await anext(speech)
        await speech.aclose()
    assert sound(await say(engine, "done")) != b""


@in_module_loop
async def test_a_stalled_reader_does_not_stop_the_others(engine: EspeakSynthesizer) -> None:
    stalled = engine.synthesize(SynthesisRequest(TEXT, "echo"))
    await anext(stalled)
    assert sound(await say(engine, "next please")) != b""
    assert len([chunk async for chunk in stalled]) > 10


@in_module_loop
async def test_the_queue_is_bounded(engine: EspeakSynthesizer) -> None:
    results = await asyncio.gather(*(say(engine, "one") for _ in range(7)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, EngineError)]
    assert [fault.code for fault in refused] == ["engine_overloaded"] * 2
    assert len({sound(result) for result in results if isinstance(result, list)}) == 1


@in_module_loop
@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (SynthesisRequest("hello", "nobody"), "unknown_voice"),
        (SynthesisRequest("x" * (LONGEST_TEXT + 1), "alloy"), "text_too_long"),
    ],
)
async def test_wrong_requests_are_refused(engine: EspeakSynthesizer, request_: SynthesisRequest, code: str) -> None:
    with pytest.raises(EngineError) as caught:
        await anext(engine.synthesize(request_))
    assert caught.value.code == code


@in_module_loop
async def test_the_longest_text_can_be_asked_for(engine: EspeakSynthesizer) -> None:
    speech = engine.synthesize(SynthesisRequest("\U0001f600" * LONGEST_TEXT, "alloy"))
    assert (await anext(speech)).pcm
    await speech.aclose()


@pytest.mark.parametrize("voice", ["nobody", "en-us+nobody", "en-us+", "en-us+../en/f1"])
async def test_a_voice_that_the_library_lacks_stops_the_start(voice: str) -> None:
    engine = create({"voices": {"ash": voice}})
    with pytest.raises(EngineError) as caught:
        await engine.start()
    assert caught.value.code == "engine_unavailable"
    assert voice in caught.value.message


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"speed": 1}, "speed"),
        ({"workers": 0}, "workers"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"words_per_minute": 79}, "words_per_minute"),
        ({"words_per_minute": 451}, "words_per_minute"),
        ({"voices": {"nova": "en-us"}}, "voices.nova"),
        ({"voices": {"ash": ""}}, "voices.ash"),
        ({"voices": {"ash": "en\x00"}}, "voices.ash"),
        ({"voices": {"ash": 7}}, "voices[...]"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], path: str) -> None:
    with pytest.raises(EngineOptionsError) as caught:
        create(options)
    assert caught.value.path == path


def test_what_it_says_of_itself() -> None:
    engine = create({"voices": {"ash": "en+m1"}})
    assert engine.name == "espeak"
    assert engine.version
    assert engine.capabilities.sample_rate == 22050
    assert engine.capabilities.word_timings
    assert engine.capabilities.voices == {**DEFAULT_VOICES, "ash": "en+m1"}


@pytest.mark.parametrize(
    ("text", "events", "found"),
    [
        ("one two", [(1, 3, 0), (5, 3, 300)], [WordTiming(0, 3, 0), WordTiming(4, 3, 300)]),
        ("“naïve” x", [(2, 0, 100)], [WordTiming(1, 5, 100)]),
        ("123 x", [(1, 3, 0), (2, 3, 50), (1, 3, 90), (5, 1, 200)], [WordTiming(0, 3, 0), WordTiming(4, 1, 200)]),
        ("😀 ok", [(1, 1, 0), (2, 1, 90)], [WordTiming(0, 1, 0)]),
        ("end", [(4, 1, 0), (900, 2, 0), (0, 1, 0)], []),
        ("—", [(1, 0, 0)], []),
    ],
)
def test_word_events(text: str, events: list[RawWord], found: list[WordTiming]) -> None:
    assert WordFinder(text).find(events) == found


_u32 = st.integers(0, 2**32 - 1)


@given(pcm=st.binary(max_size=50), raw=st.lists(st.tuples(_u32, _u32, _u32), max_size=5))
def test_chunks_come_back_as_they_were(pcm: bytes, raw: list[RawWord]) -> None:
    assert unpack_chunk(pack_chunk(pcm, raw)) == (pcm, raw)
