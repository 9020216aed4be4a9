"""WAV files in and out, as 24 kHz mono 16-bit samples (the ``pcm16`` of the protocol).

The standard library's ``wave`` refuses floating point and extensible headers, so the RIFF chunks are read
here. Format: Microsoft "Multiple Channel Audio Data and WAVE Files", RFC 2361 for the codec numbers.
"""

from __future__ import annotations

import struct
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import soxr

RATE: Final = 24_000
"""Samples per second (Hz) of everything the demo sends, receives and writes."""

Int16: TypeAlias = npt.NDArray[np.int16]
Float32: TypeAlias = npt.NDArray[np.float32]

_PCM: Final = 0x0001
_FLOAT: Final = 0x0003
_EXTENSIBLE: Final = 0xFFFE
_CODECS: Final = {0x0002: "Microsoft ADPCM", 0x0006: "G.711 A-law", 0x0007: "G.711 u-law"} | {
    0x0011: "IMA ADPCM",
    0x0031: "GSM 6.10",
    0x0055: "MP3",
}
# The tail of every KSDATAFORMAT_SUBTYPE GUID; the codec number stands in front of it.
_GUID_TAIL: Final = bytes.fromhex("000000001000800000aa00389b71")
# Writers that cannot seek back (pipes) leave one of these as the length of the data: "until the end".
_OPEN_LENGTH: Final = 0x7FFF_0000
_MIN_RATE, _MAX_RATE = 1_000, 768_000

_FRAME_MS: Final = 10
_LOUD_BELOW_PEAK_DB: Final = 30.0
_LOUD_FLOOR_DBFS: Final = -50.0


class WavError(ValueError):
    """The file is not sound that the demo can send; the message says why."""


@dataclass(frozen=True, slots=True)
class _Format:
    codec: int
    channels: int
    rate: int
    bits: int

    @property
    def frame_bytes(self) -> int:
        return self.channels * self.bits // 8


def read_wav(path: Path) -> Int16:
    """The sound of the file at ``path`` as 24 kHz mono 16-bit samples; see :func:`parse_wav`.

    Raises :class:`WavError` for a file that cannot be used, and ``OSError`` for one that cannot be read.
    """
    return parse_wav(path.read_bytes())


def parse_wav(data: bytes) -> Int16:
    """The sound of a WAV file as 24 kHz mono 16-bit samples.

    Takes any rate from 1 to 768 kHz, any number of channels (averaged), PCM of 8, 16, 24 or 32 bits and
    floating point of 32 or 64 bits, with plain or extensible headers. Sound beyond full scale is clipped.
    """
    form, sound = _chunks_of(data)
    frames = len(sound) // form.frame_bytes
    if frames == 0:
        raise WavError("the WAV file holds no sound")
    flat = _samples(form, sound[: frames * form.frame_bytes])
    mono = flat.reshape(frames, form.channels).mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise WavError("the WAV file holds samples that are not numbers")
    if form.rate != RATE:
        mono = np.asarray(soxr.resample(mono, form.rate, RATE, quality="VHQ"), np.float32)
    if mono.size == 0:
        raise WavError("the WAV file holds no sound")
    scaled: Float32 = np.clip(np.rint(mono * 32768.0), -32768, 32767)
    return scaled.astype(np.int16)


def _chunks_of(data: bytes) -> tuple[_Format, bytes]:
    if len(data) == 0:
        raise WavError("the file is empty")
    if data[:4] in (b"RIFX", b"RF64", b"BW64"):
        raise WavError(f"the file is a {data[:4].decode()} file; only little-endian RIFF WAV files are read")
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise WavError("the file is not a WAV file")
    form: _Format | None = None
    for name, body in _chunks(data):
        if name == b"fmt ":
            form = _format_of(body)
        elif name == b"data":
            if form is None:
                raise WavError("the WAV file is damaged: its sound comes before its format")
            return form, body
    if form is None:
        raise WavError("the WAV file is damaged: it has no format")
    raise WavError("the WAV file holds no sound")


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        at += 8
        open_ended = name == b"data" and (size == 0 or size >= _OPEN_LENGTH)
        if open_ended:
            size = len(data) - at
        if at + size > len(data):
            raise WavError("the WAV file is cut short: it holds less than its header says")
        yield name, data[at : at + size]
        at += size + size % 2


def _format_of(body: bytes) -> _Format:
    if len(body) < 16:
        raise WavError("the WAV file is damaged: its format is too short")
    codec, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if codec == _EXTENSIBLE:
        if len(body) < 40:
            raise WavError("the WAV file is damaged: its extensible format is too short")
        if body[26:40] != _GUID_TAIL:
            raise WavError("the sound of the WAV file is in an unknown format; save it as PCM")
        (codec,) = struct.unpack_from("<H", body, 24)
    if codec not in (_PCM, _FLOAT):
        name = _CODECS.get(codec, f"codec 0x{codec:04x}")
        raise WavError(f"the sound of the WAV file is compressed ({name}); save it as PCM")
    if bits not in ((8, 16, 24, 32) if codec == _PCM else (32, 64)):
        kind = "PCM" if codec == _PCM else "floating point"
        raise WavError(f"the WAV file has {kind} samples of {bits} bits, which are not supported")
    if channels == 0:
        raise WavError("the WAV file is damaged: it has no channels")
    if not _MIN_RATE <= rate <= _MAX_RATE:
        raise WavError(f"the WAV file has a rate of {rate} Hz, which is not supported")
    return _Format(codec, channels, rate, bits)


def _samples(form: _Format, sound: bytes) -> Float32:
    if form.codec == _FLOAT:
        values = np.frombuffer(sound, "<f4" if form.bits == 32 else "<f8")
        # Values past what single precision holds become infinite here, and are refused with the others.
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(np.float32)
    if form.bits == 8:
        return (np.frombuffer(sound, np.uint8).astype(np.float32) - 128.0) / np.float32(128.0)
    if form.bits == 24:
        packed = np.frombuffer(sound, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(packed), 4), np.uint8)
        wide[:, 1:] = packed
        return wide.reshape(-1).view("<i4").astype(np.float32) / np.float32(2**31)
    dtype = "<i2" if form.bits == 16 else "<i4"
    return np.frombuffer(sound, dtype).astype(np.float32) / np.float32(2 ** (form.bits - 1))


def write_wav(path: Path, samples: Int16) -> None:
    """Write 24 kHz mono 16-bit ``samples`` to ``path``, replacing it. Raises ``OSError``."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(samples.astype("<i2").tobytes())


def last_loud_sample(samples: Int16) -> int:
    """The index of the last sample that belongs to loud sound, or -1 where all is silence.

    The sound is cut into frames of 10 ms at 24 kHz; a frame is loud when its level is no more than 30 dB
    below the loudest frame, and not below -50 dB of full scale.
    """
    frame = RATE * _FRAME_MS // 1000
    count = -(-len(samples) // frame)
    if count == 0:
        return -1
    padded = np.zeros(count * frame, np.float64)
    padded[: len(samples)] = samples
    power = (padded.reshape(count, frame) ** 2).mean(axis=1)
    floor = (32768.0 * 10 ** (_LOUD_FLOOR_DBFS / 20)) ** 2
    loud = np.flatnonzero(power >= max(floor, np.max(power) * 10 ** (-_LOUD_BELOW_PEAK_DB / 10)))
    return -1 if loud.size == 0 else min((int(loud[-1]) + 1) * frame, len(samples)) - 1
