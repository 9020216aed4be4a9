"""Noise reduction: noise falls, speech stays, and every sample keeps its place."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vivavoce.demo
from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import from_samples, to_samples
from vivavoce.audio.noise_reduction import Field, NoiseReducer, available
from vivavoce.audio.resample import resample
from vivavoce.demo.sound import read_wav

Int16 = npt.NDArray[np.int16]

RATE = AudioFormat.PCM16.rate
FORMATS = list(AudioFormat)
QUESTION = Path(vivavoce.demo.__file__).parent / "data" / "question.wav"
LEAD = 2 * RATE
"""Samples of pause before the question, and after it."""


def reduced(field: Field, fmt: AudioFormat, samples: Int16, piece_ms: int = 100) -> Int16:
    """All of it, in pieces."""
    reducer = NoiseReducer(field, fmt)
    data, size = from_samples(samples, fmt), piece_ms * fmt.bytes_per_ms
    out = b"".join(reducer.process(data[at : at + size]) for at in range(0, len(data), size))
    return to_samples(out + reducer.flush(), fmt)


def noise(samples: int, level: float) -> npt.NDArray[np.float64]:
    return np.random.default_rng(7).normal(0, level, samples)


def level_db(samples: Int16) -> float:
    return float(20 * np.log10(np.std(samples.astype(np.float64))))


@pytest.mark.parametrize(("field", "least", "most"), [("near_field", 11, 15), ("far_field", 17, 20)])
@pytest.mark.parametrize("fmt", FORMATS)
def test_noise_falls_and_speech_stays(fmt: AudioFormat, field: Field, least: float, most: float) -> None:
    """Of a question in a noisy room: the pause before it gets quieter, the words hardly."""
    speech = np.pad(read_wav(QUESTION), LEAD)
    noisy = resample(np.rint(speech + noise(len(speech), 400)).clip(-32768, 32767).astype(np.int16), RATE, fmt.rate)
    clean = reduced(field, fmt, noisy)
    assert len(clean) == len(noisy)
    pause, words = slice(fmt.rate, 2 * fmt.rate), slice(2 * fmt.rate, -2 * fmt.rate)
    assert least <= level_db(noisy[pause]) - level_db(clean[pause]) <= most
    assert level_db(noisy[words]) - level_db(clean[words]) < 3


@pytest.mark.parametrize("fmt", FORMATS)
def test_sound_keeps_its_place(fmt: AudioFormat) -> None:
    """Bursts come out where they went in, to the sample."""
    burst = np.concatenate([noise(fmt.rate // 20, 6000), np.zeros(fmt.rate // 2)])
    sound = np.concatenate([np.zeros(fmt.rate), np.tile(burst, 5)]).astype(np.int16)
    clean = reduced("near_field", fmt, sound)
    spectrum = np.fft.rfft(sound.astype(float)).conj() * np.fft.rfft(clean.astype(float))
    shift = int(np.argmax(np.fft.irfft(spectrum, len(sound))))
    assert min(shift, len(sound) - shift) <= 1


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(FORMATS), st.lists(st.integers(0, 1200), max_size=15), st.lists(st.booleans(), min_size=15))
def test_no_sample_is_lost_and_few_wait(fmt: AudioFormat, pieces: list[int], flushes: list[bool]) -> None:
    reducer = NoiseReducer("far_field", fmt)
    waits = 0
    for samples, flush in zip(pieces, flushes, strict=False):
        waits += samples - len(reducer.process(bytes(samples * fmt.sample_bytes))) // fmt.sample_bytes
        assert 0 <= waits < reducer.held_ms * fmt.rate / 1000 < 19 * fmt.rate / 1000
        if flush:
            assert len(reducer.flush()) == waits * fmt.sample_bytes
            waits = 0
    assert len(reducer.flush()) == waits * fmt.sample_bytes
    assert reducer.flush() == b""


def test_pieces_of_any_length_make_the_same_sound() -> None:
    sound = np.rint(noise(RATE, 3000)).astype(np.int16)
    whole = reduced("far_field", AudioFormat.PCM16, sound, 1000)
    np.testing.assert_allclose(reduced("far_field", AudioFormat.PCM16, sound, 7), whole, atol=2)


def test_a_flush_forgets_neither_the_noise_nor_the_time() -> None:
    sound = np.rint(noise(6 * RATE, 400)).astype(np.int16)
    reducer = NoiseReducer("far_field", AudioFormat.PCM16)
    first = reducer.process(from_samples(sound[: 3 * RATE], AudioFormat.PCM16)) + reducer.flush()
    rest = reducer.process(from_samples(sound[3 * RATE :], AudioFormat.PCM16)) + reducer.flush()
    clean = to_samples(first + rest, AudioFormat.PCM16)
    assert len(clean) == len(sound)
    np.testing.assert_allclose(level_db(clean[3 * RATE : 4 * RATE]), level_db(clean[2 * RATE : 3 * RATE]), atol=1)


def test_silence_stays_silent() -> None:
    assert not reduced("near_field", AudioFormat.PCM16, np.zeros(RATE, np.int16)).any()


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError):
        NoiseReducer("near_field", AudioFormat.PCM16).process(b"abc")


def test_without_the_extra_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available()
    monkeypatch.setitem(sys.modules, "webrtc_noise_gain", None)
    assert not available()
