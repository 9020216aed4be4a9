"""Rates: the streaming resampler keeps length and sound; the frame resampler is one filter over whole streams."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.audio.g711 import encode, to_samples
from vivavoce.audio.resample import FrameResampler, Resampler, clip_to_pcm, convert, resample

Int16 = npt.NDArray[np.int16]
Float32 = npt.NDArray[np.float32]

RATES = [(22050, 24000), (22050, 8000), (24000, 16000), (24000, 8000), (8000, 24000), (8000, 16000)]


def tone(hz: float, rate: int, seconds: float = 1.0, level: float = 0.5) -> Int16:
    time = np.arange(round(seconds * rate)) / rate
    return np.round(32767 * level * np.sin(2 * np.pi * hz * time)).astype(np.int16)


def noise(samples: int, seed: int = 1) -> Int16:
    return np.random.default_rng(seed).integers(-20000, 20000, samples, dtype=np.int16)


def level_db(samples: npt.NDArray[np.floating], hz: float, rate: int) -> float:
    """Level of the sine of ``hz`` in the middle of ``samples``, in dB of full scale (amplitude 1)."""
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)
    window = np.hanning(len(middle))
    wave = np.exp(-2j * np.pi * hz / rate * np.arange(len(middle)))
    return float(20 * np.log10(abs(np.sum(middle * window * wave)) * 2 / np.sum(window) + 1e-12))


# ------------------------------------------------------------------------------------------- streaming


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(RATES), st.lists(st.integers(0, 3000), max_size=12), st.integers(0, 3000))
def test_pieces_join_to_the_whole(rates: tuple[int, int], pieces: list[int], rest: int) -> None:
    source, target = rates
    samples = noise(sum(pieces) + rest)
    stream, taken, out = Resampler(source, target), 0, []
    for piece in pieces:
        out.append(stream.process(samples[taken : taken + piece]))
        taken += piece
    out.append(stream.process(samples[taken:], last=True))
    joined = np.concatenate(out)
    assert abs(len(joined) - round(len(samples) * target / source)) <= 1
    whole = Resampler(source, target).process(samples, last=True)
    assert len(joined) == len(whole)
    assert np.abs(joined.astype(int) - whole).max(initial=0) <= 1


@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_tone_keeps_its_level(source: int, target: int) -> None:
    out = resample(tone(1000, source), source, target)
    assert level_db(out / 32768, 1000, target) == pytest.approx(20 * np.log10(0.5), abs=0.05)


def test_silence_stays_silent() -> None:
    assert not resample(np.zeros(5000, np.int16), 24000, 16000).any()


def test_full_scale_saturates_and_does_not_wrap() -> None:
    square = np.repeat(np.array([32767, -32768] * 50, np.int16), 40)
    out = resample(square, 8000, 24000).astype(int)
    assert (out.min(), out.max()) == (-32768, 32767)
    plateaus = out.reshape(100, 120)[:, 10:-10]
    assert (plateaus[0::2] > 20000).all()
    assert (plateaus[1::2] < -20000).all()


def test_equal_rates_hand_through() -> None:
    samples = noise(100)
    stream = Resampler(16000, 16000)
    assert (
        stream.process(samples[:40]).tolist() + stream.process(samples[40:], last=True).tolist() == samples.tolist()
    )


def test_nothing_comes_after_the_last_piece() -> None:
    stream = Resampler(24000, 16000)
    stream.process(noise(10), last=True)
    with pytest.raises(RuntimeError):
        stream.process(noise(10))


@pytest.mark.parametrize("rates", [(0, 8000), (8000, -1)])
def test_rates_are_positive(rates: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Resampler(*rates)


# ----------------------------------------------------------------------------------------- whole clips


def test_convert_between_formats() -> None:
    pcm = tone(500, 24000).astype("<i2").tobytes()
    for fmt in (AudioFormat.G711_ULAW, AudioFormat.G711_ALAW):
        telephone = convert(pcm, AudioFormat.PCM16, fmt)
        assert fmt.ms(len(telephone)) == 1000
        back = to_samples(convert(telephone, fmt, AudioFormat.PCM16), AudioFormat.PCM16)
        assert len(back) == 24000
        assert level_db(back / 32768, 500, 24000) == pytest.approx(20 * np.log10(0.5), abs=0.1)
    assert convert(pcm, AudioFormat.PCM16, AudioFormat.PCM16) is pcm
    assert convert(b"", AudioFormat.PCM16, AudioFormat.G711_ULAW) == b""


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError):
        convert(b"\0", AudioFormat.PCM16, AudioFormat.G711_ULAW)


def test_a_clip_joins_its_segments_at_one_rate() -> None:
    whole = tone(400, 8000)
    clip = Clip(
        (
            (AudioFormat.G711_ULAW, encode(whole[:3000], AudioFormat.G711_ULAW)),
            (AudioFormat.G711_ALAW, encode(whole[3000:], AudioFormat.G711_ALAW)),
            (AudioFormat.PCM16, tone(400, 24000).astype("<i2").tobytes()),
        )
    )
    pcm = np.frombuffer(clip_to_pcm(clip, 16000), "<i2")
    assert len(pcm) == 32000
    assert level_db(pcm / 32768, 400, 16000) == pytest.approx(20 * np.log10(0.5), abs=0.1)
    seam = pcm[5800:6200].astype(int)
    assert np.abs(np.diff(seam)).max() < 3500  # a 400 Hz tone moves 2574 a sample; a seam would step further


def test_an_empty_clip_is_no_sound() -> None:
    assert clip_to_pcm(Clip(), 16000) == b""


# ---------------------------------------------------------------------------------------------- frames


def filtered(samples: Int16, resampler: FrameResampler) -> Float32:
    history = np.zeros((1, resampler.history), np.float32)
    frames = samples[: len(samples) // resampler.frame_samples * resampler.frame_samples]
    return np.concatenate(
        [resampler.process(frame[np.newaxis], history)[0] for frame in frames.reshape(-1, resampler.frame_samples)]
    )


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
def test_frames_are_one_continuous_filter(rate: int) -> None:
    """Frame by frame equals one direct convolution, written out, of the whole stream."""
    resampler = FrameResampler(rate)
    samples = noise(resampler.frame_samples * 3)
    impulse_rows = []
    for at in range(rate // 1000):
        impulse = np.zeros(resampler.frame_samples * 2, np.int16)
        impulse[at] = 16384
        impulse_rows.append(filtered(impulse, resampler) * 2 / 32768)
    expected = np.zeros(512 * 3 + 1024)
    per_ms_in, per_ms_out = rate // 1000, 16
    for at, sample in enumerate(samples):
        block, phase = divmod(at, per_ms_in)
        expected[block * per_ms_out :][:1024] += float(sample) * impulse_rows[phase]
    np.testing.assert_allclose(filtered(samples, resampler), expected[: 512 * 3], atol=2e-5)


@pytest.mark.parametrize("rate", [8000, 24000])
def test_streams_of_a_batch_do_not_touch(rate: int) -> None:
    resampler = FrameResampler(rate)
    streams = noise(5 * 4 * resampler.frame_samples).reshape(5, 4, -1)
    history = np.zeros((5, resampler.history), np.float32)
    together = np.stack([resampler.process(streams[:, at], history) for at in range(4)], axis=1)
    for one, expected in zip(streams, together, strict=True):
        np.testing.assert_allclose(filtered(one.ravel(), resampler), expected.ravel(), atol=1e-6)


def test_output_goes_where_it_is_wanted() -> None:
    for rate in (24000, 16000):
        resampler = FrameResampler(rate)
        room = np.zeros((3, 512), np.float32)
        frames = noise(resampler.frame_samples).reshape(1, -1)
        history = np.zeros((1, resampler.history), np.float32)
        result = resampler.process(frames, history, out=room[1:2])
        assert np.shares_memory(result, room)
        assert room[1].any()
        assert not room[[0, 2]].any()


@pytest.mark.parametrize(
    ("rate", "hz"), [(24000, 100), (24000, 1000), (24000, 7000), (8000, 300), (8000, 1000), (8000, 3400)]
)
def test_the_passband_is_flat(rate: int, hz: int) -> None:
    out = filtered(tone(hz, rate), FrameResampler(rate))
    assert level_db(out, hz, 16000) == pytest.approx(20 * np.log10(0.5), abs=0.1)


@pytest.mark.parametrize("hz", [9000, 9700, 10500, 11500])
def test_aliases_are_quiet(hz: int) -> None:
    out = filtered(tone(hz, 24000), FrameResampler(24000))
    assert level_db(out, 16000 - hz, 16000) < 20 * np.log10(0.5) - 55


@pytest.mark.parametrize("hz", [200, 1000, 2500, 3400])
def test_images_are_quiet(hz: int) -> None:
    out = filtered(tone(hz, 8000), FrameResampler(8000))
    assert level_db(out, 8000 - hz, 16000) < 20 * np.log10(0.5) - 50


@pytest.mark.parametrize(("rate", "longest"), [(24000, 1.0), (8000, 1.5)])
def test_the_delay_is_short_and_true(rate: int, longest: float) -> None:
    resampler = FrameResampler(rate)
    assert 0 < resampler.delay_ms <= longest
    hz = 250
    out = filtered(tone(hz, rate), resampler)
    time = np.arange(len(out)) / 16000 - resampler.delay_ms / 1000
    expected = 0.5 * np.sin(2 * np.pi * hz * time)
    np.testing.assert_allclose(out[512:], expected[512:], atol=2e-3)


def test_equal_rates_only_scale() -> None:
    resampler = FrameResampler(16000)
    samples = noise(1024)
    np.testing.assert_array_equal(filtered(samples, resampler), samples / np.float32(32768))
    assert (resampler.history, resampler.delay_ms) == (0, 0.0)


@pytest.mark.parametrize("rates", [(22050, 16000), (24000, 11025), (4000, 16000), (16000, 0)])
def test_other_rates_are_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 1000"):
        FrameResampler(*rates)
