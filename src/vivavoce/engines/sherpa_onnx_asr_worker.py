"""The process in which sherpa-onnx listens: many utterances, decoded together.

Laws
----
1. Whatever can be decoded now is decoded as one batch, up to ``max_batch`` utterances, those first that have waited
   longest. A batch is never waited for: what comes while one is decoded makes the next.
2. Streaming models hear sound as it comes, the others an utterance when it is complete.
3. Text of a streaming model is told when a later word follows it, since the last word may go on. With a search that
   may change its mind (``modified_beam_search``) all text is told at the end, and is a guess until then.
4. Offline models hear at most :data:`WINDOW_S` at a time. A longer utterance is cut where it is quietest.

Jobs (see :mod:`vivavoce.engines.builtin.worker_channel`): OPEN carries a :class:`Request`, DATA s16le mono 16 kHz.
Each DATA of the answer is a :class:`~vivavoce.engines.builtin.worker_hearing.Told` or ``Guess``.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from vivavoce.engines.builtin.worker_channel import Channel, Frame, Kind, open_worker
from vivavoce.engines.builtin.worker_hearing import NO_SPACE, SAMPLE_RATE, Guess, Told, split_words

Sound: TypeAlias = npt.NDArray[np.float32]

WINDOW_S: Final = 28
"""Whisper models hear 30 s and no more; others need memory by the square of the length."""
_EARLIEST_CUT_S: Final = 20
_QUIET_SAMPLES: Final = SAMPLE_RATE // 20
_SHORTEST_SAMPLES: Final = SAMPLE_RATE // 10
"""Nobody says anything in less than 100 ms."""
_TAIL_S: Final = 0.8
"""Silence behind the last word of a stream, so that the model, which looks ahead, comes to its end."""
_LONGEST_STEP_MS: Final = 30_000
_FAULTS: Final = 3
"""Failed batches in a row after which a worker gives way to a new one."""
_NO_SPACE: Final = re.compile(f"[{NO_SPACE}]")


class Settings(msgspec.Struct, frozen=True):
    """Payload of the SETUP frame."""

    mode: Literal["streaming", "offline"]
    factory: str
    """Name of the class method of sherpa-onnx's recogniser that makes it."""
    arguments: Mapping[str, str | int | float | bool]
    max_batch: int
    settled: bool
    """The search of the model never changes what it said, but goes on behind it."""
    language: Literal["", "stream", "whisper", "canary"] = ""
    """How an utterance's language is told: not at all, by its stream, or in the configuration of these models."""


class Request(msgspec.Struct, frozen=True):
    """Payload of an OPEN frame."""

    language: str = ""
    """Empty for that of the model's configuration."""
    partials: bool = False


class Ear(Protocol):
    """The utterances of a worker, in one of the two modes. ``job`` is a number that the engine chose."""

    @property
    def has_work(self) -> bool: ...
    def open(self, job: int, request: Request) -> None: ...
    def knows(self, job: int) -> bool: ...
    def add(self, job: int, sound: Sound) -> None: ...
    def end(self, job: int) -> None: ...
    def close(self, job: int) -> None: ...

    def turn(self, channel: Channel) -> None:
        """Decode one batch, and tell what came of it. Raises RuntimeError; then :attr:`batch` is what failed."""

    @property
    def batch(self) -> tuple[int, ...]:
        """The jobs of the latest turn."""


class _Stream:
    def __init__(self, stream: Any, *, partials: bool) -> None:
        self.stream = stream
        self.partials = partials
        self.steps = 0
        """How often it was decoded."""
        self.told = ""
        self.ended = False


class StreamingEar:
    """A streaming model."""

    def __init__(self, recognizer: Any, settings: Settings) -> None:
        self._recognizer = recognizer
        self._settings = settings
        self._first_ms, self._step_ms = pace(recognizer)
        self._streams: dict[int, _Stream] = {}
        """In the order of their latest turns."""
        self.batch: tuple[int, ...] = ()

    @property
    def has_work(self) -> bool:
        return any(self._due(one) for one in self._streams.values())

    def open(self, job: int, request: Request) -> None:
        stream = self._recognizer.create_stream()
        if request.language and self._settings.language == "stream":
            stream.set_option("language", request.language)
        self._streams[job] = _Stream(stream, partials=request.partials)

    def knows(self, job: int) -> bool:
        return job in self._streams

    def add(self, job: int, sound: Sound) -> None:
        self._streams[job].stream.accept_waveform(SAMPLE_RATE, sound)

    def end(self, job: int) -> None:
        one = self._streams[job]
        one.stream.accept_waveform(SAMPLE_RATE, np.zeros(int(SAMPLE_RATE * _TAIL_S), np.float32))
        one.stream.input_finished()
        one.ended = True

    def close(self, job: int) -> None:
        del self._streams[job]

    def turn(self, channel: Channel) -> None:
        ready = [job for job, one in self._streams.items() if self._recognizer.is_ready(one.stream)]
        self.batch = tuple(ready[: self._settings.max_batch])
        if self.batch:
            self._recognizer.decode_streams([self._streams[job].stream for job in self.batch])
        for job in self.batch:
            one = self._streams[job] = self._streams.pop(job)
            one.steps += 1
            self._tell(channel, job, one, last=False)
        for job, one in list(self._streams.items()):
            if one.ended and not self._recognizer.is_ready(one.stream):
                self._tell(channel, job, one, last=True)
                del self._streams[job]
                channel.send(job, Kind.DONE)

    def _due(self, one: _Stream) -> bool:
        return one.ended or bool(self._recognizer.is_ready(one.stream))

    def _tell(self, channel: Channel, job: int, one: _Stream, *, last: bool) -> None:
        text: str = self._recognizer.get_result(one.stream)
        settled = text if last else "".join(split_words(text)[:-1]) if self._settings.settled else ""
        if len(settled) > len(one.told):
            _send(channel, job, Told(settled[len(one.told) :]))
            one.told = settled
        if one.partials and not last and not self._recognizer.is_ready(one.stream):
            heard_ms = self._first_ms + (one.steps - 1) * self._step_ms
            _send(channel, job, Guess(text[len(one.told) :], heard_ms))


def pace(recognizer: Any) -> tuple[int, int]:
    """How much sound a stream needs until it is decoded for the first time, and then each time, in ms.

    The model knows, but does not tell; and a decoding at the start finds out what does not work on this machine.
    """
    stream = recognizer.create_stream()
    needed = []
    for _ in range(2):
        ms = 0
        while not recognizer.is_ready(stream):
            if ms >= _LONGEST_STEP_MS:
                raise ValueError("the model never has enough")
            stream.accept_waveform(SAMPLE_RATE, np.zeros(SAMPLE_RATE // 100, np.float32))
            ms += 10
        recognizer.decode_stream(stream)
        needed.append(ms)
    return needed[0], needed[1]


class _Window:
    """A piece of an utterance that an offline model can take."""

    def __init__(self, job: int, sound: Sound, language: str, *, last: bool) -> None:
        self.job = job
        self.sound = sound
        self.language = language
        self.last = last


class OfflineEar:
    """A model that hears utterances that are complete."""

    def __init__(self, recognizer: Any, settings: Settings) -> None:
        self._recognizer = recognizer
        self._settings = settings
        self._sounds: dict[int, list[Sound]] = {}
        self._languages: dict[int, str] = {}
        self._texts: dict[int, str] = {}
        self._waiting: list[_Window] = []
        self.batch: tuple[int, ...] = ()

    @property
    def has_work(self) -> bool:
        return bool(self._waiting)

    def open(self, job: int, request: Request) -> None:
        self._sounds[job] = []
        self._languages[job] = request.language
        self._texts[job] = ""

    def knows(self, job: int) -> bool:
        return job in self._sounds

    def add(self, job: int, sound: Sound) -> None:
        self._sounds[job].append(sound)

    def end(self, job: int) -> None:
        windows = cut(np.concatenate([np.zeros(0, np.float32), *self._sounds[job]]))
        self._sounds[job] = []
        language = self._languages[job] if self._settings.language else ""
        for n, sound in enumerate(windows, 1):
            self._waiting.append(_Window(job, sound, language, last=n == len(windows)))

    def close(self, job: int) -> None:
        del self._sounds[job], self._languages[job], self._texts[job]
        self._waiting = [window for window in self._waiting if window.job != job]

    def turn(self, channel: Channel) -> None:
        windows = self._next()
        self.batch = tuple(dict.fromkeys(window.job for window in windows))
        for window, text in zip(windows, self._decode(windows), strict=True):
            self._tell(channel, window, text)

    def _next(self) -> list[_Window]:
        """Those that waited longest, of one language, and of each utterance the first."""
        batch: list[_Window] = []
        for window in self._waiting:
            first = all(window.job != other.job for other in batch)
            if first and window.language == self._waiting[0].language and len(batch) < self._settings.max_batch:
                batch.append(window)
        self._waiting = [window for window in self._waiting if window not in batch]
        return batch

    def _decode(self, windows: list[_Window]) -> list[str]:
        heard = [window for window in windows if len(window.sound) >= _SHORTEST_SAMPLES]
        if not heard:
            return [""] * len(windows)
        self._speak(heard[0].language)
        streams = {}
        for window in heard:
            stream = self._recognizer.create_stream()
            if window.language and self._settings.language == "stream":
                stream.set_option("language", window.language)
            stream.accept_waveform(SAMPLE_RATE, window.sound)
            streams[window.job] = stream
        self._recognizer.decode_streams(list(streams.values()))
        return [streams[window.job].result.text.strip() if window.job in streams else "" for window in windows]

    def _speak(self, language: str) -> None:
        """Set the language of models that have it in their configuration."""
        config = self._recognizer.config if self._settings.language in ("whisper", "canary") else None
        if config is None:
            return
        usual = self._settings.arguments
        if self._settings.language == "whisper":
            config.model_config.whisper.language = language or usual["language"]
        else:
            config.model_config.canary.src_lang = language or usual["src_lang"]
            config.model_config.canary.tgt_lang = language or usual["tgt_lang"]
        self._recognizer.recognizer.set_config(config)

    def _tell(self, channel: Channel, window: _Window, text: str) -> None:
        job = window.job
        if text:
            before = self._texts[job]
            apart = bool(before) and not (_NO_SPACE.match(before[-1]) or _NO_SPACE.match(text[0]))
            _send(channel, job, Told(f" {text}" if apart else text))
            self._texts[job] = text
        if window.last:
            self.close(job)
            channel.send(job, Kind.DONE)


def cut(sound: Sound) -> list[Sound]:
    """``sound`` in pieces of at most :data:`WINDOW_S`, cut where it is quietest; one piece where it is short."""
    pieces = []
    while len(sound) > WINDOW_S * SAMPLE_RATE:
        span = sound[_EARLIEST_CUT_S * SAMPLE_RATE : WINDOW_S * SAMPLE_RATE]
        loudness = np.square(span).reshape(-1, _QUIET_SAMPLES).sum(axis=1)
        at = _EARLIEST_CUT_S * SAMPLE_RATE + int(loudness.argmin()) * _QUIET_SAMPLES + _QUIET_SAMPLES // 2
        pieces.append(sound[:at])
        sound = sound[at:]
    return [*pieces, sound]


def _send(channel: Channel, job: int, said: Told | Guess) -> None:
    channel.send(job, Kind.DATA, msgspec.json.encode(said))


class Recogniser:
    """The worker's jobs."""

    def __init__(self, channel: Channel, ear: Ear) -> None:
        self._channel = channel
        self._ear = ear
        self._faults = 0

    @property
    def has_work(self) -> bool:
        return self._ear.has_work

    def take(self, frame: Frame) -> None:
        """Deal with one frame from the engine."""
        if frame.kind is Kind.OPEN:
            self._ear.open(frame.job, msgspec.json.decode(frame.payload, type=Request))
        elif not self._ear.knows(frame.job):
            return
        elif frame.kind is Kind.DATA:
            self._ear.add(frame.job, np.frombuffer(frame.payload, "<i2").astype(np.float32) / np.float32(32768))
            self._channel.send_credit(frame.job, len(frame.payload))
        elif frame.kind is Kind.END:
            self._ear.end(frame.job)
        elif frame.kind is Kind.CANCEL:
            self._ear.close(frame.job)
            self._channel.send(frame.job, Kind.DONE)

    def turn(self) -> None:
        """Decode one batch."""
        try:
            self._ear.turn(self._channel)
        except RuntimeError:
            traceback.print_exc(limit=-1)
            self._faults += 1
            fault = {"code": "recognition_failed", "message": "The recogniser could not decode the audio."}
            for job in self._ear.batch:
                self._ear.close(job)
                self._channel.send(job, Kind.FAILED, json.dumps(fault).encode())
            if self._faults == _FAULTS:
                raise SystemExit(1) from None
        else:
            self._faults = 0


def load(settings: Settings) -> Ear:
    """The model, in the mode that it is made for."""
    import sherpa_onnx

    if settings.mode == "streaming":
        make = getattr(sherpa_onnx.OnlineRecognizer, settings.factory)
        return StreamingEar(make(**settings.arguments), settings)
    make = getattr(sherpa_onnx.OfflineRecognizer, settings.factory)
    return OfflineEar(make(**settings.arguments), settings)


def main() -> None:
    channel, setup = open_worker()
    settings = msgspec.json.decode(setup, type=Settings)
    try:
        ear = load(settings)
    except Exception as error:
        traceback.print_exc(limit=-1)
        channel.fail_start(f"its model does not load ({type(error).__name__})")
    channel.send(0, Kind.READY, b"{}")
    recogniser = Recogniser(channel, ear)
    while True:
        frame = channel.poll() if recogniser.has_work else channel.receive()
        while frame is not None:
            recogniser.take(frame)
            frame = channel.poll()
        recogniser.turn()


if __name__ == "__main__":
    main()
