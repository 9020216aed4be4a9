"""The process in which espeak-ng speaks, one synthesis at a time.

espeak-ng is a GPL-3 library. It is loaded here and nowhere else: this process is started as a program of its own,
shares no memory with the server, and they exchange text and sound over a pipe.

Every job runs in a fork of the prepared process. espeak-ng keeps state between jobs that no call of its interface
resets (the place in its table of pitch flutter, the phase of its noise), so that the same text would sound
different each time; a fork always begins at the same state. It costs 2 ms, and a text that crashes the
library takes only its own fork along. While a job runs, its fork owns the channel: the process that made it waits.

Jobs are those of :mod:`vivavoce.engines.builtin.speech_job`: OPEN carries a :class:`SpeakRequest` (JSON). Words are
espeak-ng's own events: the position counts characters from 1, and the length may be 0.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
from pathlib import Path
from typing import Any, Final

import msgspec

from vivavoce.engines.builtin.speech_job import CancelledJob, RawWord, SpeechJob
from vivavoce.engines.builtin.worker_channel import Channel, Kind, open_worker

SLOWEST_WPM: Final = 80
FASTEST_WPM: Final = 450
"""The rates, in words a minute, that espeak-ng takes."""

_CHUNK_MS: Final = 80
_CPU_LIMIT_S: Final = 120
"""CPU seconds for one job: the end of a fork that runs away when nobody is left to kill it."""

# Values of espeak-ng's public interface, speak_lib.h.
_OUTPUT_SYNCHRONOUS: Final = 2
_DONT_EXIT: Final = 0x8000
_EVENT_END_OF_LIST: Final = 0
_EVENT_WORD: Final = 1
_PARAMETER_RATE: Final = 1
_FLAGS_UTF8_END_PAUSE: Final = 0x0001 | 0x1000


class WorkerSetup(msgspec.Struct, frozen=True):
    """Payload of SETUP: voices that must exist, and the bytes of a job that may be on their way."""

    voices: list[str]
    window: int


class WorkerHello(msgspec.Struct, frozen=True):
    """Payload of READY."""

    sample_rate: int
    version: str


class SpeakRequest(msgspec.Struct, frozen=True):
    """Payload of OPEN. ``voice`` is espeak-ng's own (``name`` or ``name+variant``)."""

    text: str
    voice: str
    words_per_minute: int


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Library:
    """espeak-ng, initialised for synchronous synthesis. Raises ``OSError`` when it does not load."""

    def __init__(self) -> None:
        from espeakng_loader import get_data_path, get_library_path

        self._data = Path(get_data_path())
        self._lib: Any = ctypes.CDLL(get_library_path())
        self._lib.espeak_Info.restype = ctypes.c_char_p
        self._lib.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        self._lib.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            *(ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        self.sample_rate: int = self._lib.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, _CHUNK_MS, os.fsencode(self._data), _DONT_EXIT
        )
        if self.sample_rate <= 0:
            raise OSError("espeak_Initialize failed")
        if hasattr(self._lib, "espeak_ng_SetRandSeed"):
            self._lib.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
            self._lib.espeak_ng_SetRandSeed(1)

    @property
    def version(self) -> str:
        return str(self._lib.espeak_Info(None).decode())

    def has_voice(self, voice: str) -> bool:
        """Whether ``voice`` and its variant exist. An unknown variant is no fault to espeak-ng; here it is."""
        _, plus, variant = voice.partition("+")
        if plus and (not variant or "/" in variant or not (self._data / "voices" / "!v" / variant).is_file()):
            return False
        return self.set_voice(voice)

    def set_voice(self, voice: str) -> bool:
        return bool(self._lib.espeak_SetVoiceByName(voice.encode()) == 0)

    def set_rate(self, words_per_minute: int) -> None:
        self._lib.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)

    def speak(self, text: str, heard: Any) -> bool:
        """Synthesise ``text``; ``heard`` is a ``_Callback``. False when the library reports a fault."""
        data = text.encode(errors="replace")
        self._lib.espeak_SetSynthCallback(heard)
        return bool(self._lib.espeak_Synth(data, len(data) + 1, 0, 1, 0, _FLAGS_UTF8_END_PAUSE, None, None) == 0)


class Speaker:
    """One job: takes the library's callbacks and sends chunks as its reader makes room for them.

    Sound is held back until the first word, so that text with nothing to say makes no sound.
    """

    def __init__(self, channel: Channel, job: int, window: int) -> None:
        self._job = SpeechJob(channel, job, window)
        self._held = bytearray()
        self._words: list[RawWord] = []
        self._spoke = False
        self._stopped: BaseException | None = None
        self.callback = _Callback(self._heard)

    def finish(self) -> None:
        """After synthesis: raises what ended it, if anything did."""
        if self._stopped is not None:
            raise self._stopped

    def _heard(self, wave: Any, n_samples: int, events: Any) -> int:
        # An exception cannot cross the library; it is kept for finish(), and 1 aborts the synthesis.
        try:
            self._collect(wave, n_samples, events)
            return 0
        except BaseException as stop:
            self._stopped = stop
            return 1

    def _collect(self, wave: Any, n_samples: int, events: Any) -> None:
        for event in _listed(events):
            if event.type == _EVENT_WORD:
                self._words.append((event.text_position, max(event.length, 0), max(event.audio_position, 0)))
                self._spoke = True
        if wave and n_samples > 0:
            self._held += ctypes.string_at(wave, n_samples * ctypes.sizeof(ctypes.c_short))
        if self._spoke and self._held:
            self._send()

    def _send(self) -> None:
        pcm, words = bytes(self._held), self._words
        self._held.clear()
        self._words = []
        self._job.send(pcm, words)


def _listed(events: Any) -> list[Any]:
    listed: list[Any] = []
    while events[len(listed)].type != _EVENT_END_OF_LIST:
        listed.append(events[len(listed)])
    return listed


def _speak(library: Library, channel: Channel, job: int, payload: bytes, window: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_LIMIT_S, _CPU_LIMIT_S))
    request = msgspec.json.decode(payload, type=SpeakRequest)
    if not library.set_voice(request.voice):
        raise LookupError("the voice is gone")
    library.set_rate(request.words_per_minute)
    speaker = Speaker(channel, job, window)
    if not library.speak(request.text, speaker.callback):
        raise OSError("espeak_Synth failed")
    speaker.finish()


def _run_job(library: Library, channel: Channel, job: int, payload: bytes, window: int) -> None:
    fork = os.fork()
    if fork == 0:
        status = 1
        try:
            _speak(library, channel, job, payload, window)
            status = 0
        except (CancelledJob, SystemExit):
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(fork, 0)
    if status == 0:
        channel.send(job, Kind.DONE)
    else:
        fault = {"code": "engine_crashed", "message": "The synthesiser could not speak the text."}
        channel.send(job, Kind.FAILED, json.dumps(fault).encode())


def main() -> None:
    channel, payload = open_worker()
    setup = msgspec.json.decode(payload, type=WorkerSetup)
    try:
        library = Library()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        channel.fail_start(f"espeak-ng does not load ({type(error).__name__})")
    missing = [voice for voice in setup.voices if not library.has_voice(voice)]
    if missing:
        channel.fail_start(f"espeak-ng has no voice {', '.join(missing)}")
    hello = WorkerHello(library.sample_rate, library.version)
    channel.send(0, Kind.READY, msgspec.json.encode(hello))
    while True:
        frame = channel.receive()
        if frame.kind is Kind.OPEN:
            _run_job(library, channel, frame.job, frame.payload, setup.window)


if __name__ == "__main__":
    main()
