"""G.711 against the decision values of the standard's tables, for every input and every code."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
import pytest

from vivavoce.audio import g711
from vivavoce.audio.formats import AudioFormat

G711 = [AudioFormat.G711_ULAW, AudioFormat.G711_ALAW]
EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)
EVERY_CODE = bytes(range(256))


def decision_values(fmt: AudioFormat) -> list[int]:
    """Lower edge of each of the 128 intervals of magnitude, in 16-bit units (tables 1a and 2a of G.711).

    mu-law: one interval of 1 and fifteen of 2, then sixteen each of 4, 8 ... 256, in 14-bit units.
    A-law: thirty-two of 2, then sixteen each of 4, 8 ... 128, in the 13-bit units of table 1a (4096 is full scale).
    """
    if fmt is AudioFormat.G711_ULAW:
        widths = [1] + [2] * 15 + [2 ** (segment + 1) for segment in range(1, 8) for _ in range(16)]
        unit = 4
    else:
        widths = [2] * 32 + [2**segment for segment in range(2, 8) for _ in range(16)]
        unit = 8
    edges = [0]
    for width in widths:
        edges.append(edges[-1] + width)
    assert edges[-1] == (8159 if fmt is AudioFormat.G711_ULAW else 4096)
    return [edge * unit for edge in edges]


def character(fmt: AudioFormat, negative: bool, interval: int) -> int:
    """The code of an interval: mu-law sends all bits inverted, A-law every second one."""
    if fmt is AudioFormat.G711_ULAW:
        return (0x7F if negative else 0xFF) - interval
    return ((0 if negative else 0x80) | interval) ^ 0x55


def reference_encode(sample: int, fmt: AudioFormat, edges: list[int]) -> int:
    magnitude = ~sample if sample < 0 else sample
    interval = min(bisect_right(edges, magnitude) - 1, 127)
    return character(fmt, sample < 0, interval)


def reference_decode(fmt: AudioFormat, edges: list[int]) -> dict[int, int]:
    levels = {}
    for interval in range(128):
        level = (edges[interval] + edges[interval + 1]) // 2
        if fmt is AudioFormat.G711_ULAW and interval == 0:
            level = 0
        levels[character(fmt, False, interval)] = level
        levels[character(fmt, True, interval)] = -level
    return levels


@pytest.mark.parametrize("fmt", G711)
def test_every_sample_encodes_to_the_interval_it_lies_in(fmt: AudioFormat) -> None:
    edges = decision_values(fmt)
    expected = bytes(reference_encode(int(sample), fmt, edges) for sample in EVERY_SAMPLE)
    assert g711.encode(EVERY_SAMPLE, fmt) == expected


@pytest.mark.parametrize("fmt", G711)
def test_every_code_decodes_to_the_middle_of_its_interval(fmt: AudioFormat) -> None:
    levels = reference_decode(fmt, decision_values(fmt))
    assert g711.decode(EVERY_CODE, fmt).tolist() == [levels[code] for code in range(256)]


@pytest.mark.parametrize("fmt", G711)
def test_a_decoded_code_encodes_to_itself(fmt: AudioFormat) -> None:
    expected = bytearray(EVERY_CODE)
    if fmt is AudioFormat.G711_ULAW:
        expected[0x7F] = 0xFF  # negative zero
    assert g711.encode(g711.decode(EVERY_CODE, fmt), fmt) == bytes(expected)


def test_known_codes() -> None:
    """The extremes and the quietest values, as printed in the standard's tables."""
    samples = np.array([0, 32767, -32768], dtype=np.int16)
    assert g711.encode(samples, AudioFormat.G711_ULAW) == b"\xff\x80\x00"
    assert g711.encode(samples, AudioFormat.G711_ALAW) == b"\xd5\xaa\x2a"
    assert g711.decode(b"\x80\x00", AudioFormat.G711_ULAW).tolist() == [32124, -32124]
    assert g711.decode(b"\xaa\x2a", AudioFormat.G711_ALAW).tolist() == [32256, -32256]


@pytest.mark.parametrize("fmt", G711)
def test_any_view_of_samples_encodes(fmt: AudioFormat) -> None:
    backwards = EVERY_SAMPLE[::-2]
    assert g711.encode(backwards, fmt) == g711.encode(backwards.copy(), fmt)


def test_pcm16_is_little_endian_both_ways() -> None:
    samples = np.array([1, -2, 258], dtype=np.int16)
    assert g711.from_samples(samples, AudioFormat.PCM16) == b"\x01\x00\xfe\xff\x02\x01"
    assert g711.to_samples(b"\x01\x00\xfe\xff\x02\x01", AudioFormat.PCM16).tolist() == [1, -2, 258]


@pytest.mark.parametrize("fmt", list(AudioFormat))
def test_any_format_through_one_pair_of_functions(fmt: AudioFormat) -> None:
    data = g711.from_samples(EVERY_SAMPLE, fmt)
    assert len(data) == len(EVERY_SAMPLE) * fmt.sample_bytes
    samples = g711.to_samples(data, fmt)
    assert samples.dtype == np.int16
    assert g711.from_samples(samples, fmt) == data or fmt is AudioFormat.G711_ULAW


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError):
        g711.to_samples(b"\x00\x01\x02", AudioFormat.PCM16)


def test_pcm16_is_not_g711() -> None:
    with pytest.raises(ValueError, match=r"pcm16 is not a G\.711 format"):
        g711.decode(b"", AudioFormat.PCM16)
    with pytest.raises(ValueError, match=r"pcm16 is not a G\.711 format"):
        g711.encode(EVERY_SAMPLE, AudioFormat.PCM16)
