"""The process in which pocketsphinx listens: several decoders, one utterance in each, one piece at a time in turn.

Decoding holds the interpreter, so a worker is one process with one thread, and fairness is made here: every
utterance with sound to decode gets a piece of at most 100 ms before any gets its next.

A decoder judges sound relative to the mean of the voice and the line (the cepstral mean). pocketsphinx would
carry that mean over from the last utterance, which may be another person's. Here every utterance begins at the same
mean, so that a result depends on nothing but the utterance, and moves to its own mean as it is heard. Measured
on four flite voices, that takes the word errors of a fresh decoder from 11.5 % to 6 or 7 %.

Jobs (see :mod:`vivavoce.engines.builtin.worker_channel`): OPEN carries :data:`WITH_PARTIALS` or nothing, DATA s16le
mono 16 kHz. Each DATA of the answer is JSON: where they are wanted a :class:`HeardSoFar` whenever all sound that is
there has been decoded, and at the end one :class:`Heard`, or none for silence.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
from typing import Any, Final

import msgspec

from vivavoce.engines.builtin.worker_channel import Channel, Frame, Kind, open_worker

SAMPLE_RATE: Final = 16000
WITH_PARTIALS: Final = b"partials"
"""Payload of an OPEN that asks for partial transcripts."""

_PIECE_BYTES: Final = SAMPLE_RATE // 10 * 2
_FRAME_BYTES: Final = SAMPLE_RATE // 100 * 2
"""pocketsphinx analyses 10 ms at a time."""

_START_MEAN: Final = (43.68, 4.59, 2.43, 9.39, 0.47, 0.35, 1.34, -2.36, -1.29, -1.83, 2.61, 0.82, 0.94)
"""Half way between the model's own start and the mean of recorded and synthetic speech at usual levels."""
_START_WEIGHT: Final = 100
"""Frames that the start counts for against what is heard."""
_MEAN_EVERY_BYTES: Final = SAMPLE_RATE * 2 * 3 // 10
_COSTLY_BYTES: Final = SAMPLE_RATE * 2 * 6
"""A cancelled utterance longer than this takes longer to end (it is searched a second time) than a new decoder."""
_MAX_STATES: Final = 3000
"""HMMs that stay alive from frame to frame; the library's 30000 cost 30 % more time for no fewer errors."""
_LIBRARY_WEIGHT: Final = 500
"""Frames that pocketsphinx lets a mean count for that it was given (CMN_WIN of its cmn.h)."""

_FILLER: Final = re.compile(r"<[^>]*>|\[[^\]]*\]|\+\+[^+]*\+\+|\(\d+\)")


def clean(hypothesis: str) -> str:
    """Lower-case words, single spaces; no fillers (``<sil>``, ``[NOISE]``, ``++UM++``), no variants (``(2)``)."""
    return " ".join(_FILLER.sub(" ", hypothesis).lower().split())


class HeardSoFar(msgspec.Struct, frozen=True, tag=True):
    """What a worker makes of an utterance that goes on."""

    text: str
    audio_ms: int
    """Sound that was decoded for it."""


class Heard(msgspec.Struct, frozen=True, tag=True):
    """What a worker heard: the words in order, each with the natural logarithm of its probability."""

    words: list[tuple[str, float]]


class VoiceMean:
    """The cepstral mean of one utterance so far, with the start mean as the first guess."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._heard = [0.0] * len(_START_MEAN)
        self._heard_frames = 0
        self._current = list(_START_MEAN)
        self._tell()

    def heard(self, frames: int) -> None:
        """The decoder has analysed so many more frames: move to their mean."""
        told = [float(value) for value in self._decoder.get_cmn(True).split(",")]
        self._heard_frames += frames
        for i, (now, before) in enumerate(zip(told, self._current, strict=True)):
            # The library mixes our mean, at its weight, with what it hears; undo that to get what it heard.
            self._heard[i] += frames * now + _LIBRARY_WEIGHT * (now - before)
        weight = _START_WEIGHT + self._heard_frames
        self._current = [
            (start * _START_WEIGHT + heard) / weight for start, heard in zip(_START_MEAN, self._heard, strict=True)
        ]
        self._tell()

    def _tell(self) -> None:
        self._current = [round(value, 2) for value in self._current]
        self._decoder.set_cmn(",".join(f"{value:.2f}" for value in self._current))


class Utterance:
    """One job and the decoder it holds."""

    def __init__(self, decoder: Any, *, partials: bool = False) -> None:
        self.decoder = decoder
        self.partials = partials
        self.ended = False
        self._sound = bytearray()
        self._decoded = 0
        self._since_mean = 0
        self._mean = VoiceMean(decoder)
        decoder.start_utt()

    def add(self, sound: bytes) -> None:
        self._sound += sound

    @property
    def has_work(self) -> bool:
        return self.ended or len(self._sound) >= 2

    def decode_piece(self) -> int:
        """Decode up to 100 ms; returns the bytes dealt with, 0 when there is nothing left."""
        size = min(len(self._sound) // 2 * 2, _PIECE_BYTES)
        if not size:
            return 0
        piece = bytes(self._sound[:size])
        self.decoder.process_raw(piece)
        del self._sound[:size]
        self._decoded += size
        if piece.count(0) < size:  # the library leaves frames of digital silence out of the mean
            self._since_mean += size
        if self._since_mean >= _MEAN_EVERY_BYTES:
            self._mean.heard(self._since_mean // _FRAME_BYTES)
            self._since_mean = 0
        return size

    @property
    def costly_to_finish(self) -> bool:
        return self._decoded > _COSTLY_BYTES

    @property
    def has_caught_up(self) -> bool:
        """All sound that is there has been decoded."""
        return len(self._sound) < 2

    def heard_so_far(self) -> HeardSoFar:
        """The best guess while sound still comes."""
        hypothesis = self.decoder.hyp()
        text = clean(hypothesis.hypstr) if hypothesis is not None else ""
        return HeardSoFar(text, self._decoded * 1000 // (SAMPLE_RATE * 2))

    def finish(self) -> list[tuple[str, float]]:
        """End the utterance; returns the words that were heard.

        The probability of a word is its posterior in the lattice: the share of all that the sound could have been,
        weighed by how well it fits, in which this word is said there.
        """
        self.decoder.end_utt()
        segments = self.decoder.seg() if self.decoder.hyp() is not None else ()
        heard = [(clean(segment.word), min(1.0, max(segment.prob, sys.float_info.min))) for segment in segments]
        return [(word, math.log(probability)) for word, probability in heard if word]


class Recogniser:
    """The worker's jobs and its decoders, which are made when first needed and used again."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._idle: list[Any] = [_new_decoder()]
        self._utterances: dict[int, Utterance] = {}

    @property
    def has_work(self) -> bool:
        return any(utterance.has_work for utterance in self._utterances.values())

    def take(self, frame: Frame) -> None:
        """Deal with one frame from the engine."""
        if frame.kind is Kind.OPEN:
            self._utterances[frame.job] = Utterance(
                self._idle.pop() if self._idle else _new_decoder(), partials=frame.payload == WITH_PARTIALS
            )
        elif (utterance := self._utterances.get(frame.job)) is None:
            return
        elif frame.kind is Kind.DATA:
            utterance.add(frame.payload)
        elif frame.kind is Kind.END:
            utterance.ended = True
        elif frame.kind is Kind.CANCEL:
            self._cancel(frame.job)

    def turn(self) -> None:
        """Give every utterance one piece of work."""
        for job, utterance in list(self._utterances.items()):
            if not utterance.has_work:
                continue
            try:
                self._work(job, utterance)
            except RuntimeError:
                # The decoder may be in any state now: it is not used again.
                del self._utterances[job]
                fault = {"code": "recognition_failed", "message": "The recogniser could not decode the audio."}
                self._channel.send(job, Kind.FAILED, json.dumps(fault).encode())

    def _work(self, job: int, utterance: Utterance) -> None:
        if done := utterance.decode_piece():
            self._channel.send_credit(job, done)
            if utterance.partials and utterance.has_caught_up:
                self._channel.send(job, Kind.DATA, msgspec.json.encode(utterance.heard_so_far()))
            return
        words = utterance.finish()
        del self._utterances[job]
        self._idle.append(utterance.decoder)
        if words:
            self._channel.send(job, Kind.DATA, msgspec.json.encode(Heard(words)))
        self._channel.send(job, Kind.DONE)

    def _cancel(self, job: int) -> None:
        utterance = self._utterances.pop(job)
        if not utterance.costly_to_finish:
            with contextlib.suppress(RuntimeError):
                utterance.finish()
                self._idle.append(utterance.decoder)
        self._channel.send(job, Kind.DONE)


def _new_decoder() -> Any:
    from pocketsphinx import Decoder

    return Decoder(loglevel="FATAL", samprate=SAMPLE_RATE, maxhmmpf=_MAX_STATES)


def main() -> None:
    channel, _ = open_worker()
    try:
        recogniser = Recogniser(channel)
    except (ImportError, RuntimeError, ValueError) as error:
        channel.fail_start(f"pocketsphinx does not load ({type(error).__name__})")
    channel.send(0, Kind.READY, b"{}")
    while True:
        frame = channel.poll() if recogniser.has_work else channel.receive()
        while frame is not None:
            recogniser.take(frame)
            frame = channel.poll()
        recogniser.turn()


if __name__ == "__main__":
    main()
