from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat, Clip

FORMATS = st.sampled_from(AudioFormat)


@pytest.mark.parametrize(
    ("fmt", "name", "rate", "sample_bytes", "bytes_per_ms"),
    [
        (AudioFormat.PCM16, "pcm16", 24000, 2, 48),
        (AudioFormat.G711_ULAW, "g711_ulaw", 8000, 1, 8),
        (AudioFormat.G711_ALAW, "g711_alaw", 8000, 1, 8),
    ],
)
def test_formats_of_the_protocol(
    fmt: AudioFormat, name: str, rate: int, sample_bytes: int, bytes_per_ms: int
) -> None:
    assert (fmt.value, fmt.rate, fmt.sample_bytes, fmt.bytes_per_ms) == (name, rate, sample_bytes, bytes_per_ms)
    assert AudioFormat(name) is fmt
    assert fmt.ms(bytes_per_ms * 100) == 100.0
    assert fmt.ticks(bytes_per_ms) == TICKS_PER_MS == 24
    assert fmt.bytes_of(TICKS_PER_MS) == bytes_per_ms


def test_there_are_three() -> None:
    assert len(AudioFormat) == 3


@given(fmt=FORMATS, samples=st.integers(0, 10**9))
def test_whole_samples_survive_the_way_to_ticks_and_back(fmt: AudioFormat, samples: int) -> None:
    n_bytes = samples * fmt.sample_bytes
    assert fmt.bytes_of(fmt.ticks(n_bytes)) == n_bytes
    assert fmt.ticks(n_bytes) * fmt.rate == samples * 24000


@given(fmt=FORMATS, ticks=st.integers(0, 10**9))
def test_ticks_are_rounded_down_to_a_sample(fmt: AudioFormat, ticks: int) -> None:
    n_bytes = fmt.bytes_of(ticks)
    assert n_bytes % fmt.sample_bytes == 0
    assert fmt.ticks(n_bytes) <= ticks < fmt.ticks(n_bytes + fmt.sample_bytes)


@given(fmt=FORMATS, samples=st.integers(0, 10**6))
def test_ms_agree_with_ticks(fmt: AudioFormat, samples: int) -> None:
    n_bytes = samples * fmt.sample_bytes
    assert fmt.ms(n_bytes) == fmt.ticks(n_bytes) / TICKS_PER_MS


@given(parts=st.lists(st.tuples(FORMATS, st.integers(0, 100)), max_size=4))
def test_a_clip_is_as_long_as_its_segments(parts: list[tuple[AudioFormat, int]]) -> None:
    clip = Clip(tuple((fmt, bytes(n * fmt.sample_bytes)) for fmt, n in parts))
    assert clip.ticks == sum(n * 24000 // fmt.rate for fmt, n in parts)
    assert clip.ms == clip.ticks // 24
    assert clip.size == sum(n * fmt.sample_bytes for fmt, n in parts)


@given(fmt=FORMATS, pieces=st.lists(st.binary(max_size=9).map(lambda piece: piece * 2), max_size=5))
def test_a_clip_of_pieces_is_the_clip_of_all_of_them(fmt: AudioFormat, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    clip, expected = Clip.of_pieces(fmt, tuple(pieces), fmt.ticks(len(whole))), Clip(((fmt, whole),))
    assert (clip.ticks, clip.ms, clip.size) == (expected.ticks, expected.ms, expected.size)
    assert clip == expected
    assert hash(clip) == hash(expected)
    assert clip.segments is clip.segments


def test_the_empty_clip() -> None:
    assert (Clip().ticks, Clip().ms, Clip().size) == (0, 0, 0)
