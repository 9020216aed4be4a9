"""Speech synthesis that works offline after ``pip install``: espeak-ng, from the ``espeakng-loader`` package.

espeak-ng is GPL-3. The library is never loaded into this process: it lives in worker processes of its own
(:mod:`vivavoce.engines.builtin.espeak_worker`), and the two talk over a pipe.

Options of its configuration table:

- ``workers``: processes, with one synthesis at a time in each; at over a hundred times real time one is plenty;
- ``max_waiting``: syntheses that may wait for a worker;
- ``job_timeout_s``: the longest silence of a worker that has work;
- ``words_per_minute`` at speed 1;
- ``voices``: protocol voice -> ``"espeak voice"`` or ``"espeak voice+variant"``, merged over the defaults.

The text is spoken as it stands: it is never read as SSML, phoneme codes or espeak's own control characters. Every
synthesis ends with the pause that its last punctuation asks for (160 ms of silence after a sentence, 10 ms after a
comma), as espeak-ng makes it; nothing is trimmed. The same request always gives the same sound.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Final

import msgspec

from vivavoce.engines.base import (
    EngineError,
    EngineOptionsError,
    JsonObject,
    SpeechChunk,
    SynthesisRequest,
    Synthesizer,
    SynthesizerCapabilities,
    WordTiming,
)
from vivavoce.engines.builtin.espeak_worker import (
    FASTEST_WPM,
    SLOWEST_WPM,
    SpeakRequest,
    WorkerHello,
    WorkerSetup,
)
from vivavoce.engines.builtin.speech_job import RawWord, unpack_chunk
from vivavoce.engines.builtin.worker_options import convert_options
from vivavoce.engines.builtin.worker_pool import WorkerPool, WorkerSpec

SAMPLE_RATE: Final = 22050
"""Hz; what espeak-ng says at start-up is checked against it."""

DEFAULT_VOICES: Final[Mapping[str, str]] = {
    "alloy": "en-us+f1",
    "ash": "en-us+m3",
    "ballad": "en-gb-x-rp+m7",
    "coral": "en-us+Annie",
    "echo": "en-us+Michael",
    "sage": "en-gb-scotland+f2",
    "shimmer": "en-us+belinda",
    "verse": "en+rob",
    "marin": "en-us+f4",
    "cedar": "en-us+m7",
}

LONGEST_TEXT: Final = 100_000
"""Characters; over an hour of speech."""

_WINDOW_BYTES: Final = 2 * 1024 * 1024
"""47 s of sound: a worker is free again as soon as it has spoken, however slowly the sound is sent on."""

_COMMANDS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u0530\u0557\ud800-\udfff]")
"""Characters with a meaning of their own inside espeak-ng (and lone surrogates): a space each is spoken instead."""

_RUN_OF_LETTERS: Final = re.compile(r"\w+")


class EspeakOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 256
    job_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 60.0
    words_per_minute: Annotated[int, msgspec.Meta(ge=SLOWEST_WPM, le=FASTEST_WPM)] = 175
    voices: dict[str, str] = {}


def create(options: JsonObject) -> Synthesizer:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`."""
    checked = convert_options(options, EspeakOptions)
    for name, voice in checked.voices.items():
        if name not in DEFAULT_VOICES:
            raise EngineOptionsError(f"voices.{name}", f"no such voice; the voices are {', '.join(DEFAULT_VOICES)}")
        if not voice.strip() or not voice.isprintable():
            raise EngineOptionsError(f"voices.{name}", "not the name of an espeak voice")
    return EspeakSynthesizer(checked)


class EspeakSynthesizer:
    """A :class:`~vivavoce.engines.base.Synthesizer`."""

    name = "espeak"

    def __init__(self, options: EspeakOptions) -> None:
        voices = {**DEFAULT_VOICES, **options.voices}
        self.capabilities = SynthesizerCapabilities(sample_rate=SAMPLE_RATE, word_timings=True, voices=voices)
        self._words_per_minute = options.words_per_minute
        self._library_version: str | None = None
        self._pool = WorkerPool(
            WorkerSpec(
                name=self.name,
                module="vivavoce.engines.builtin.espeak_worker",
                setup=msgspec.json.encode(WorkerSetup(sorted(set(voices.values())), _WINDOW_BYTES)),
                workers=options.workers,
                max_waiting=options.max_waiting,
                job_timeout_s=options.job_timeout_s,
                receive_window=_WINDOW_BYTES,
            )
        )

    @property
    def version(self) -> str:
        """The library's version once it is started, before that the version of the package that brings it."""
        return self._library_version or f"espeakng-loader {importlib.metadata.version('espeakng-loader')}"

    async def start(self) -> None:
        hello = msgspec.json.decode(await self._pool.start(), type=WorkerHello)
        if hello.sample_rate != SAMPLE_RATE:
            await self._pool.close()
            raise EngineError(
                "engine_unavailable", f"espeak-ng speaks at {hello.sample_rate} Hz, not {SAMPLE_RATE}."
            )
        self._library_version = hello.version

    @property
    def working(self) -> bool:
        return self._pool.working

    @property
    def restarts(self) -> int:
        return self._pool.restarts

    async def close(self) -> None:
        await self._pool.close()

    async def synthesize(self, request: SynthesisRequest) -> AsyncGenerator[SpeechChunk, None]:
        """See :class:`~vivavoce.engines.base.Synthesizer`.

        ``speed`` multiplies the rate, within 80 to 450 words a minute. Raises :class:`EngineError`:
        ``unknown_voice``, ``text_too_long``, ``engine_overloaded``, ``engine_unavailable``, ``engine_crashed``.
        """
        voice = self.capabilities.voices.get(request.voice)
        if voice is None:
            raise EngineError(
                "unknown_voice", f"The {self.name} engine has no such voice.", type="invalid_request_error"
            )
        if len(request.text) > LONGEST_TEXT:
            problem = f"The {self.name} engine speaks at most {LONGEST_TEXT} characters at a time."
            raise EngineError("text_too_long", problem, type="invalid_request_error")
        text = _COMMANDS.sub(" ", request.text)
        if not text.strip():
            return
        rate = round(min(max(self._words_per_minute * request.speed, SLOWEST_WPM), FASTEST_WPM))
        words = WordFinder(text)
        async with self._pool.job(msgspec.json.encode(SpeakRequest(text, voice, rate)), request.session) as job:
            job.end()
            async for payload in job:
                pcm, raw = unpack_chunk(payload)
                yield SpeechChunk(pcm, tuple(words.find(raw)))


class WordFinder:
    """Makes words of the text out of espeak-ng's word events.

    espeak-ng reports a number or a symbol that it speaks as several words as several events, whose places lie
    inside or behind the first; only the first tells where a word of the text begins. It reports length 0 for some
    words after a quotation mark, and no event for a word that it speaks as one with the word before ("I am").
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._end = 0

    def find(self, events: list[RawWord]) -> list[WordTiming]:
        """The words, in the order of the text, that ``events`` begin."""
        found = []
        for position, length, audio_ms in events:
            start = position - 1
            if start < self._end or start >= len(self._text):
                continue
            parts = self._text[start : start + length].split()
            if length == 0 and (run := _RUN_OF_LETTERS.match(self._text, start)):
                parts = [run[0]]
            if not parts or self._text[start].isspace():
                continue
            self._end = start + len(parts[0])
            found.append(WordTiming(start, len(parts[0]), audio_ms))
        return found
