"""From the sound of an engine to the deltas of a response."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.audio.formats import AudioFormat
from vivavoce.runtime.sound import DELTA_MS, FIRST_DELTA_MS, SoundWriter

NOISE = np.random.default_rng(3).integers(-9000, 9000, 24_000, np.int16).astype("<i2").tobytes()


@given(cuts=st.lists(st.integers(0, len(NOISE) // 2), max_size=12))
@pytest.mark.parametrize("rate", [24_000, 22_050, 16_000])
@pytest.mark.parametrize("target", AudioFormat)
def test_however_it_comes_it_is_cut_alike(target: AudioFormat, rate: int, cuts: list[int]) -> None:
    whole, pieces = SoundWriter(rate, target), SoundWriter(rate, target)
    expected = whole.write(NOISE) + whole.flush()
    got = []
    places = [0, *sorted(cut * 2 for cut in cuts), len(NOISE)]
    for begin, end in pairwise(places):
        got += pieces.write(NOISE[begin:end])
        assert pieces.ticks == end // 2 * 24_000 // rate
    got += pieces.flush()
    assert list(map(len, got)) == list(map(len, expected))
    sizes = [FIRST_DELTA_MS] + [DELTA_MS] * (len(got) - 2)
    assert [len(piece) / target.bytes_per_ms for piece in got[:-1]] == sizes
    if rate == 24_000 and target is AudioFormat.PCM16:
        assert b"".join(got) == NOISE


def test_the_next_message_begins_with_a_short_delta_again() -> None:
    writer = SoundWriter(24_000, AudioFormat.PCM16)
    for _ in range(2):
        assert list(map(len, writer.write(NOISE[:9000]))) == [FIRST_DELTA_MS * 48, DELTA_MS * 48]
        assert list(map(len, writer.rest())) == [9000 - (FIRST_DELTA_MS + DELTA_MS) * 48]
        assert list(map(len, writer.write(NOISE[:4800]))) == [DELTA_MS * 48]
        assert (writer.rest(), writer.flush(), writer.ticks) == ([], [], 0)


@pytest.mark.parametrize("rate", [24_000, 22_050])
def test_half_a_sample_is_a_fault(rate: int) -> None:
    writer = SoundWriter(rate, AudioFormat.PCM16)
    with pytest.raises(ValueError, match="whole samples"):
        writer.write(b"\1\2\3")
