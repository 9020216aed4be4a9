"""The process in which faster-whisper listens: many utterances, one decoding at a time.

Laws
----
1. Utterances that are complete come first, in the order in which they became complete, a window at a time.
2. While none waits, the utterance whose latest decoding is longest ago is decoded anew, if enough of it is new.
   After that the worker rests from such work for three times as long as it took. So partial results take a quarter
   of the time at most, however slow the model and however many the speakers, and a complete utterance seldom finds
   one in its way, and never more than one.
3. Text is told when two decodings in a row agree on it and go on behind it. What was told is the prefix that every
   later decoding has to begin with, so that it cannot change.
4. A window is at most :data:`WINDOW_S` long, as Whisper hears 30 s at a time. When it is full, its complete
   segments are told, and the next window begins behind them.
5. Who wants probabilities gets all text from the decodings that end a window, since those are measured there.

Jobs (see :mod:`vivavoce.engines.builtin.worker_channel`): OPEN carries a :class:`Request`, DATA s16le mono 16 kHz.
Each DATA of the answer is a :class:`~vivavoce.engines.builtin.worker_hearing.Told` or ``Guess``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from vivavoce.engines.builtin.worker_channel import Channel, Frame, Kind, open_worker
from vivavoce.engines.builtin.worker_hearing import SAMPLE_RATE, Guess, Told, split_words

Word: TypeAlias = tuple[str, float | None]
"""A word with the space before it, and the probability that it was said, where it was measured."""

WINDOW_S: Final = 28
_WINDOW_BYTES: Final = WINDOW_S * SAMPLE_RATE * 2
_SHORTEST_BYTES: Final = SAMPLE_RATE // 10 * 2
"""Nobody says anything in less than 100 ms."""
_PROMPT_TOKENS: Final = 100
"""Of the client's prompt, and as many of the text before the window. Whisper's context is 448 tokens, half of them
for text."""
_LONGEST_PREFIX: Final = 160
"""Tokens of a window that may be told before it is full."""
_SURE_LANGUAGE: Final = 0.8
"""Probability above which a detected language is not asked for again."""
_REST: Final = 3
"""Times the length of a partial decoding in which none begins after it."""
_NAP_S: Final = 0.01
_FAULTS: Final = 3
"""Failed decodings in a row after which a worker gives way to a new one: a device in a bad state stays in it."""
_TEMPERATURES: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


class Settings(msgspec.Struct, frozen=True):
    """Payload of the SETUP frame."""

    model: str
    download: bool
    device: Literal["auto", "cpu", "cuda"]
    device_index: int
    compute_type: str
    cpu_threads: int
    beam_size: int
    fallback: bool
    vad_filter: bool
    partial_interval_ms: int


class Ready(msgspec.Struct, frozen=True):
    """Payload of the READY frame."""

    languages: tuple[str, ...]
    """Codes that the model takes."""


class Request(msgspec.Struct, frozen=True):
    """Payload of an OPEN frame."""

    language: str | None = None
    prompt: str | None = None
    logprobs: bool = False
    partials: bool = False


class Utterance:
    """One job: the sound of its window, and what was told of it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.language = request.language
        self.ended = False
        self.window = bytearray()
        self.gone_bytes = 0
        """Sound before the window."""
        self.context = ""
        """The end of what was said before the window."""
        self.silent = True
        """Nothing was told so far."""
        self.prefix = ""
        """What was told of the window."""
        self.guess: list[Word] = []
        """What the latest decoding had behind the prefix."""
        self.heard_bytes = 0
        """How much of the window the latest decoding took."""
        self.frozen = False
        """Too much of this window was told for more."""

    @property
    def audio_ms(self) -> int:
        return (self.gone_bytes + self.heard_bytes) * 1000 // (SAMPLE_RATE * 2)

    @property
    def new_bytes(self) -> int:
        return len(self.window) - self.heard_bytes

    @property
    def full(self) -> bool:
        return len(self.window) >= _WINDOW_BYTES

    def agreed(self, words: list[Word]) -> list[Word]:
        """The words that ``words`` and the decoding before have in common, from the beginning, but for the last."""
        count = 0
        for before, now in zip(self.guess, words[:-1], strict=False):
            if before[0] != now[0]:
                break
            count += 1
        return words[:count]

    def move(self, size: int, said: str) -> None:
        """Begin the next window ``size`` bytes further on, behind ``said``."""
        self.context = (self.context + said)[-1000:]
        self.prefix = self.prefix.lstrip()[len(said.lstrip()) :]
        del self.window[:size]
        self.gone_bytes += size
        self.heard_bytes = 0
        self.guess = []
        self.frozen = False


class Whisper:
    """The model. Decodes one window at a time."""

    def __init__(self, settings: Settings) -> None:
        if not settings.download:
            os.environ["HF_HUB_OFFLINE"] = "1"
        from faster_whisper import WhisperModel

        self._settings = settings
        self._model = WhisperModel(
            settings.model,
            device=settings.device,
            device_index=settings.device_index,
            compute_type=settings.compute_type,
            cpu_threads=settings.cpu_threads,
            local_files_only=not settings.download,
        )

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self._model.supported_languages)

    def warm_up(self) -> None:
        """Find out now what does not work on this machine."""
        utterance = Utterance(Request(self.languages[0]))
        utterance.window += bytes(SAMPLE_RATE * 2)
        self.decode(utterance, last=True)

    def n_tokens(self, text: str) -> int:
        return len(self._encode(text))

    def decode(self, utterance: Utterance, *, last: bool) -> list[Word]:
        """The words of the window behind its prefix; ``last``: as good as can be, with probabilities if wanted."""
        sound = bytes(utterance.window)
        utterance.heard_bytes = len(sound)
        segments = self._segments(utterance, sound, last=last, times=False)
        return _behind(utterance.prefix, segments)

    def decode_full(self, utterance: Utterance) -> list[Word]:
        """The words of a full window behind its prefix, up to its last pause; then the next window begins there."""
        sound = bytes(utterance.window[:_WINDOW_BYTES])
        segments = self._segments(utterance, sound, last=True, times=True)
        end = len(sound)
        if len(segments) > 1:
            segments = segments[:-1]
            end = min(end, max(1, round(segments[-1].end * SAMPLE_RATE)) * 2)
        words = _behind(utterance.prefix, segments)
        # What was told may reach beyond this window's last pause: then it is told of the next one.
        utterance.move(end, _text(segments))
        return words

    def _segments(self, utterance: Utterance, sound: bytes, *, last: bool, times: bool) -> list[Any]:
        settings = self._settings
        segments, info = self._model.transcribe(
            _samples(sound),
            language=utterance.language,
            beam_size=settings.beam_size if last else 1,
            temperature=_TEMPERATURES if last and settings.fallback else 0.0,
            initial_prompt=self._prompt(utterance),
            prefix=utterance.prefix.strip() or None,
            without_timestamps=not times,
            word_timestamps=last and utterance.request.logprobs,
            vad_filter=settings.vad_filter,
        )
        found = list(segments)
        if found and info.language_probability >= _SURE_LANGUAGE:
            utterance.language = info.language
        return found

    def _prompt(self, utterance: Utterance) -> list[int] | None:
        """The client's prompt, and after it what was said before the window."""
        prompt = (utterance.request.prompt or "").strip()
        tokens = self._encode(f" {prompt}")[-_PROMPT_TOKENS:] if prompt else []
        if context := utterance.context.strip():
            tokens += self._encode(f" {context}")[-_PROMPT_TOKENS:]
        return tokens or None

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._model.hf_tokenizer.encode(text, add_special_tokens=False).ids
        return tokens


def _samples(sound: bytes) -> npt.NDArray[np.float32]:
    return np.frombuffer(sound, "<i2").astype(np.float32) / np.float32(32768)


def _text(segments: list[Any]) -> str:
    text: str = "".join(segment.text for segment in segments)
    return text


def _behind(prefix: str, segments: list[Any]) -> list[Word]:
    """The words that follow ``prefix``; none when it is not there, as when a decoding finds no speech at all."""
    if segments and all(segment.words for segment in segments) and not prefix:
        return [(word.word, float(word.probability)) for segment in segments for word in segment.words]
    text = _text(segments)
    if not text.lstrip().startswith(prefix.lstrip()):
        return []
    behind = text[len(text) - len(text.lstrip()) + len(prefix.lstrip()) :] if prefix else text
    return [(word, None) for word in split_words(behind)]


class Recogniser:
    """The worker's jobs."""

    def __init__(
        self,
        channel: Channel,
        whisper: Whisper,
        partial_interval_ms: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._rest_until = 0.0
        self._channel = channel
        self._whisper = whisper
        self._interval_bytes = partial_interval_ms * SAMPLE_RATE // 1000 * 2
        self._utterances: dict[int, Utterance] = {}
        """In the order of their latest decodings."""
        self._complete: list[int] = []
        self._faults = 0

    @property
    def has_work(self) -> bool:
        return bool(self._complete) or self._due() is not None

    def take(self, frame: Frame) -> None:
        """Deal with one frame from the engine."""
        if frame.kind is Kind.OPEN:
            self._utterances[frame.job] = Utterance(msgspec.json.decode(frame.payload, type=Request))
        elif (utterance := self._utterances.get(frame.job)) is None:
            return
        elif frame.kind is Kind.DATA:
            utterance.window += frame.payload
            self._channel.send_credit(frame.job, len(frame.payload))
        elif frame.kind is Kind.END:
            utterance.ended = True
            self._complete.append(frame.job)
        elif frame.kind is Kind.CANCEL:
            self._close(frame.job)
            self._channel.send(frame.job, Kind.DONE)

    def turn(self) -> None:
        """Decode one utterance, or rest for a moment."""
        job = self._complete[0] if self._complete else self._due()
        if job is None:
            return
        utterance = self._utterances[job]
        begun = self._clock()
        partial = not (utterance.ended or utterance.full)
        if partial and begun < self._rest_until:
            self._sleep(min(_NAP_S, self._rest_until - begun))
            return
        try:
            self._work(job, utterance)
        except (RuntimeError, ValueError):
            traceback.print_exc(limit=-1)
            self._faults += 1
            self._close(job)
            fault = {"code": "recognition_failed", "message": "The recogniser could not decode the audio."}
            self._channel.send(job, Kind.FAILED, json.dumps(fault).encode())
            if self._faults == _FAULTS:
                raise SystemExit(1) from None
        else:
            self._faults = 0
            if partial:
                self._rest_until = self._clock() + _REST * (self._clock() - begun)

    def _work(self, job: int, utterance: Utterance) -> None:
        if utterance.full:
            self._tell(job, utterance, self._whisper.decode_full(utterance))
            if utterance.ended:
                self._complete.append(self._complete.pop(0))  # a long one lets others go between its windows
        elif not utterance.ended:
            self._listen(job, utterance)
        else:
            if len(utterance.window) >= _SHORTEST_BYTES:
                self._tell(job, utterance, self._whisper.decode(utterance, last=True))
            self._close(job)
            self._channel.send(job, Kind.DONE)
            return
        self._utterances[job] = self._utterances.pop(job)

    def _listen(self, job: int, utterance: Utterance) -> None:
        words = self._whisper.decode(utterance, last=False)
        if not utterance.request.logprobs and not utterance.frozen:
            agreed = utterance.agreed(words)
            self._tell(job, utterance, agreed)
            utterance.prefix += "".join(word for word, _ in agreed)
            words = words[len(agreed) :]
            utterance.frozen = self._whisper.n_tokens(utterance.prefix) > _LONGEST_PREFIX
        utterance.guess = words
        if utterance.request.partials:
            text = "".join(word for word, _ in words)
            if utterance.silent:
                text = text.lstrip()
            self._channel.send(job, Kind.DATA, msgspec.json.encode(Guess(text, utterance.audio_ms)))

    def _tell(self, job: int, utterance: Utterance, words: list[Word]) -> None:
        if words and utterance.silent:
            words = [(words[0][0].lstrip(), words[0][1]), *words[1:]]
        text = "".join(word for word, _ in words)
        if text:
            utterance.silent = False
            tokens = tuple((word, _log(sure)) for word, sure in words if sure is not None)
            self._channel.send(job, Kind.DATA, msgspec.json.encode(Told(text, tokens)))

    def _due(self) -> int | None:
        for job, utterance in self._utterances.items():
            if utterance.full or (self._interval_bytes and utterance.new_bytes >= self._interval_bytes):
                return job
        return None

    def _close(self, job: int) -> None:
        del self._utterances[job]
        if job in self._complete:
            self._complete.remove(job)


def _log(probability: float) -> float:
    return math.log(min(1.0, max(probability, sys.float_info.min)))


def main() -> None:
    channel, setup = open_worker()
    settings = msgspec.json.decode(setup, type=Settings)
    try:
        whisper = Whisper(settings)
        whisper.warm_up()
    except Exception as error:
        traceback.print_exc(limit=-1)
        known = settings.download or os.path.isdir(settings.model)
        hint = "" if known else "; it was not downloaded before, and download = true is not set"
        channel.fail_start(f"its model does not load ({type(error).__name__}){hint}")
    channel.send(0, Kind.READY, msgspec.json.encode(Ready(whisper.languages)))
    recogniser = Recogniser(channel, whisper, settings.partial_interval_ms)
    while True:
        frame = channel.poll() if recogniser.has_work else channel.receive()
        while frame is not None:
            recogniser.take(frame)
            frame = channel.poll()
        recogniser.turn()


if __name__ == "__main__":
    main()
