"""WAV files: every rate, width and header that is read, and every file that is refused."""

from __future__ import annotations

import struct
import wave
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.demo.sound import RATE, Int16, WavError, last_loud_sample, parse_wav, read_wav, write_wav

GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def header(codec: int, channels: int, rate: int, bits: int, *, extensible: bool = False) -> bytes:
    frame = channels * bits // 8
    base = struct.pack("<HHIIHH", codec, channels, rate, rate * frame, frame, bits)
    if not extensible:
        return base
    base = struct.pack("<H", EXTENSIBLE) + base[2:]
    return base + struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", codec) + GUID_TAIL


def encode(values: npt.NDArray[np.float64], codec: int, bits: int) -> bytes:
    if codec == FLOAT:
        return values.astype("<f4" if bits == 32 else "<f8").tobytes()
    if bits == 8:
        return np.rint(values * 127 + 128).astype(np.uint8).tobytes()
    whole = np.rint(values * (2 ** (bits - 1) - 1)).astype("<i8")
    return bytes(whole.view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes())


def tone(rate: int, seconds: float = 0.5) -> npt.NDArray[np.float64]:
    wave_: npt.NDArray[np.float64] = 0.5 * np.sin(2 * np.pi * 400 * np.arange(round(rate * seconds)) / rate)
    return wave_


def assert_is_the_tone(samples: Int16, seconds: float = 0.5) -> None:
    assert samples.dtype == np.int16
    assert abs(len(samples) - RATE * seconds) <= 2
    spectrum = np.abs(np.fft.rfft(samples))
    assert abs(np.argmax(spectrum) * RATE / len(samples) - 400) < 3
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(float)
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 * 32768 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("codec", "bits"), [(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)])
@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000])
def test_every_rate_width_and_layout(rate: int, codec: int, bits: int, channels: int, extensible: bool) -> None:
    sound = np.repeat(tone(rate), channels)
    form = header(codec, channels, rate, bits, extensible=extensible)
    assert_is_the_tone(parse_wav(riff((b"fmt ", form), (b"data", encode(sound, codec, bits)))))


def test_channels_are_averaged() -> None:
    left, right = 1000, -500
    sound = np.tile([left, right], 100).astype("<i2").tobytes()
    assert set(parse_wav(riff((b"fmt ", header(PCM, 2, RATE, 16)), (b"data", sound)))) == {250}


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=200))
def test_24_khz_mono_16_bit_passes_unchanged(values: list[int]) -> None:
    sound = np.array(values, "<i2")
    parsed = parse_wav(riff((b"fmt ", header(PCM, 1, RATE, 16)), (b"data", sound.tobytes())))
    np.testing.assert_array_equal(parsed, sound)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    sound = np.array([0, 1, -1, 32767, -32768], np.int16)
    write_wav(tmp_path / "x.wav", sound)
    np.testing.assert_array_equal(read_wav(tmp_path / "x.wav"), sound)
    with wave.open(str(tmp_path / "x.wav")) as back:
        assert back.getparams()[:4] == (1, 2, RATE, 5)


FORM = (b"fmt ", header(PCM, 1, RATE, 16))
SOUND = np.arange(1, 101, dtype="<i2").tobytes()


def test_other_chunks_are_skipped_and_odd_ones_padded() -> None:
    data = riff((b"LIST", b"odd"), FORM, (b"fact", b"1234"), (b"data", SOUND), (b"id3 ", b"tail"))
    np.testing.assert_array_equal(parse_wav(data), np.arange(1, 101))


@pytest.mark.parametrize("length", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_stream_of_unknown_length_is_read_to_its_end(length: int) -> None:
    data = riff(FORM) + b"data" + struct.pack("<I", length) + SOUND
    np.testing.assert_array_equal(parse_wav(data), np.arange(1, 101))


def test_a_frame_cut_in_half_is_dropped() -> None:
    np.testing.assert_array_equal(parse_wav(riff(FORM, (b"data", SOUND + b"\x01"))), np.arange(1, 101))


def test_sound_beyond_full_scale_is_clipped() -> None:
    form = header(FLOAT, 1, RATE, 32)
    sound = np.array([2.0, -2.0, 1.0, -1.0], "<f4").tobytes()
    np.testing.assert_array_equal(
        parse_wav(riff((b"fmt ", form), (b"data", sound))), [32767, -32768, 32767, -32768]
    )


UNKNOWN_GUID = header(PCM, 1, RATE, 16, extensible=True)[:-1] + b"\0"

REFUSED = [
    (b"", "the file is empty"),
    (b"ID3\x04" + bytes(100), "not a WAV file"),
    (b"RIFF\0\0\0\0AVI LIST", "not a WAV file"),
    (b"RIFF", "not a WAV file"),
    (b"RIFX" + bytes(40), "RIFX"),
    (b"RF64" + bytes(40), "RF64"),
    (riff(), "it has no format"),
    (riff(FORM), "holds no sound"),
    (riff(FORM, (b"data", b"")), "holds no sound"),
    (riff(FORM, (b"data", b"\0")), "holds no sound"),
    (riff((b"data", SOUND), FORM), "comes before its format"),
    (riff((b"fmt ", b"short"), (b"data", SOUND)), "its format is too short"),
    (riff((b"fmt ", struct.pack("<HHIIHH", EXTENSIBLE, 1, RATE, 0, 2, 16))), "extensible format is too short"),
    (riff((b"fmt ", UNKNOWN_GUID), (b"data", SOUND)), "unknown format"),
    (riff((b"fmt ", header(0x55, 1, RATE, 16)), (b"data", SOUND)), "compressed (MP3)"),
    (riff((b"fmt ", header(7, 1, 8000, 8)), (b"data", SOUND)), "compressed (G.711 u-law)"),
    (riff((b"fmt ", header(0x1234, 1, RATE, 16)), (b"data", SOUND)), "compressed (codec 0x1234)"),
    (riff((b"fmt ", header(PCM, 1, RATE, 12)), (b"data", SOUND)), "PCM samples of 12 bits"),
    (riff((b"fmt ", header(FLOAT, 1, RATE, 16)), (b"data", SOUND)), "floating point samples of 16 bits"),
    (riff((b"fmt ", header(PCM, 0, RATE, 16)), (b"data", SOUND)), "no channels"),
    (riff((b"fmt ", header(PCM, 1, 0, 16)), (b"data", SOUND)), "a rate of 0 Hz"),
    (riff(FORM, (b"data", SOUND))[:-50], "cut short"),
    (
        riff((b"fmt ", header(FLOAT, 1, RATE, 32)), (b"data", np.array([np.nan], "<f4").tobytes())),
        "not numbers",
    ),
    (
        riff((b"fmt ", header(FLOAT, 1, RATE, 64)), (b"data", np.array([1e300], "<f8").tobytes())),
        "not numbers",
    ),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_files_that_cannot_be_used(data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    with pytest.raises(WavError) as caught:
        read_wav(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_wav(tmp_path / "none.wav")


@given(
    st.binary(max_size=60),
    st.integers(0, 70),
    st.binary(max_size=8),
)
def test_damage_is_refused_or_read_but_never_a_crash(tail: bytes, at: int, patch: bytes) -> None:
    data = bytearray(riff(FORM, (b"data", SOUND[:40])) + tail)
    data[at : at + len(patch)] = patch
    try:
        samples = parse_wav(bytes(data))
    except WavError:
        return
    assert samples.dtype == np.int16
    assert samples.size > 0


def loud(*levels: int) -> Int16:
    """10 ms at each level."""
    return np.repeat(np.array(levels, np.int16), 240)


@pytest.mark.parametrize(
    ("samples", "last"),
    [
        (loud(), -1),
        (loud(0, 0, 0), -1),
        (loud(50, 50), -1),
        (loud(0, 10000, 0), 2 * 240 - 1),
        (loud(0, 10000, 400, 0), 3 * 240 - 1),
        (loud(0, 10000, 300, 0), 2 * 240 - 1),
        (loud(0, 10000, 10000)[:700], 699),
    ],
    ids=["nothing", "silence", "faint", "middle", "within 30 dB", "below 30 dB", "up to the end"],
)
def test_the_last_loud_sample(samples: Int16, last: int) -> None:
    assert last_loud_sample(samples) == last


def test_the_shipped_question_is_short_small_and_quiet_at_its_ends() -> None:
    data = files("vivavoce.demo").joinpath("data", "question.wav").read_bytes()
    assert len(data) < 200_000
    samples = parse_wav(data)
    assert 2 * RATE < len(samples) < 4 * RATE
    assert np.abs(samples).max() == pytest.approx(0.8 * 32767, rel=0.05)
    assert last_loud_sample(samples[: RATE // 4]) == -1
    assert len(samples) - last_loud_sample(samples) >= RATE // 4
