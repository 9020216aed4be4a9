"""G.711: the mu-law and A-law companding of telephony, by table (ITU-T G.711, 11/88).

Samples are signed 16-bit, as everywhere in this package. G.711 itself speaks of 14-bit (mu-law) and 13-bit
(A-law) magnitudes; as in ITU-T's own reference code (G.191) they are the upper bits, and a negative number's
magnitude is that of its one's complement, so that both halves of the scale have the same number of inputs.

A code decodes to the middle of its decision interval, so ``encode(decode(c)) == c``, with one exception of the
standard's making: mu-law has two codes for zero (0xFF and 0x7F), and zero encodes as 0xFF. A-law has no zero at
all: its quietest codes are +8 and -8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from vivavoce.audio.formats import AudioFormat

Int16: TypeAlias = npt.NDArray[np.int16]
UInt8: TypeAlias = npt.NDArray[np.uint8]
Code = TypeVar("Code", np.int16, np.uint8)

_MU_BIAS: Final = 33
_MU_CEILING: Final = 0x1FFF


def _mu_decoded() -> Int16:
    code = ~np.arange(256, dtype=np.uint8)
    segment, step = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = ((2 * step + _MU_BIAS) << segment) - _MU_BIAS
    return np.where(code & 0x80, -4 * magnitude, 4 * magnitude).astype(np.int16)


def _mu_encoded() -> UInt8:
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum((np.where(sample < 0, ~sample, sample) >> 2) + _MU_BIAS, _MU_CEILING)
    segment = np.frexp(magnitude.astype(np.float64))[1] - 6
    code = segment << 4 | (magnitude >> segment + 1) & 15
    encoded: UInt8 = np.where(sample < 0, 0x7F - code, 0xFF - code).astype(np.uint8)
    return encoded


def _a_decoded() -> Int16:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    segment, step = (code >> 4 & 7).astype(np.int32), (code & 15).astype(np.int32)
    magnitude = np.where(segment == 0, 2 * step + 1, (2 * step + 33) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, 8 * magnitude, -8 * magnitude).astype(np.int16)


def _a_encoded() -> UInt8:
    sample = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.where(sample < 0, ~sample, sample) >> 4
    segment = np.maximum(np.frexp(magnitude.astype(np.float64))[1] - 4, 0)
    code = segment << 4 | (magnitude >> np.maximum(segment - 1, 0)) & 15
    encoded: UInt8 = ((np.where(sample < 0, 0, 0x80) | code) ^ 0x55).astype(np.uint8)
    return encoded


_DECODED: Final = {AudioFormat.G711_ULAW: _mu_decoded(), AudioFormat.G711_ALAW: _a_decoded()}
_ENCODED: Final = {AudioFormat.G711_ULAW: _mu_encoded(), AudioFormat.G711_ALAW: _a_encoded()}


def decode_table(fmt: AudioFormat) -> Int16:
    """The 256 samples that the codes of a G.711 format stand for; not to be written to.

    Raises :class:`ValueError` when ``fmt`` is not a G.711 format.
    """
    return _table(_DECODED, fmt)


def decode(data: bytes, fmt: AudioFormat) -> Int16:
    """G.711 codes -> samples, one for each byte.

    Raises :class:`ValueError` when ``fmt`` is not a G.711 format.
    """
    return _table(_DECODED, fmt)[np.frombuffer(data, dtype=np.uint8)]


def encode(samples: Int16, fmt: AudioFormat) -> bytes:
    """Samples (one dimension) -> G.711 codes, one byte each.

    Raises :class:`ValueError` when ``fmt`` is not a G.711 format.
    """
    native = np.ascontiguousarray(samples, dtype=np.int16)
    return _table(_ENCODED, fmt)[native.view(np.uint16)].tobytes()


def to_samples(data: bytes, fmt: AudioFormat) -> Int16:
    """Sound on the wire, in any format -> samples at ``fmt.rate``; the array may be read-only.

    Raises :class:`ValueError` when ``data`` does not hold whole samples.
    """
    if fmt is not AudioFormat.PCM16:
        return decode(data, fmt)
    return np.frombuffer(data, dtype="<i2").astype(np.int16, copy=False)


def from_samples(samples: Int16, fmt: AudioFormat) -> bytes:
    """Samples (one dimension) at ``fmt.rate`` -> sound on the wire."""
    if fmt is not AudioFormat.PCM16:
        return encode(samples, fmt)
    return samples.astype("<i2", copy=False).tobytes()


def _table(tables: Mapping[AudioFormat, npt.NDArray[Code]], fmt: AudioFormat) -> npt.NDArray[Code]:
    try:
        return tables[fmt]
    except KeyError:
        raise ValueError(f"{fmt.value} is not a G.711 format") from None
