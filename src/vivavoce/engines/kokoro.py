"""Speech synthesis by Kokoro, with the ``kokoro-onnx`` package (extra ``kokoro``).

It turns text into phonemes by espeak-ng and the package phonemizer, both GPL-3. None of it is ever loaded into this
process: it lives in worker processes of its own (:mod:`vivavoce.engines.kokoro_worker`).

``model`` and ``voices_file`` are the two files that kokoro-onnx publishes. The first letter of a voice tells its
language, unless ``language`` says another. The options are told in ``docs/how-to/kokoro.md``.

Every sentence is sent when it is made, cut to its sound and followed by the pause of its last mark. ``speed`` is
kept within 0.5 and 2, which is what the model takes.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from vivavoce.engines.base import EngineOptionsError, JsonObject, Synthesizer, SynthesizerCapabilities
from vivavoce.engines.builtin.speech_pool import PooledSynthesizer, PoolOptions, Program, named_voices, option_of
from vivavoce.engines.builtin.worker_options import convert_options

PATH_OPTIONS: Final = ("model", "voices_file")
SAMPLE_RATE: Final = 24000
"""Hz; all models of Kokoro speak at it."""
SLOWEST: Final = 0.5
FASTEST: Final = 2.0

LANGUAGES: Final = {
    "a": "en-us",
    "b": "en-gb",
    "e": "es",
    "f": "fr-fr",
    "h": "hi",
    "i": "it",
    "j": "ja",
    "p": "pt-br",
    "z": "cmn",
}
"""First letter of a voice -> the language as espeak-ng calls it."""

DEFAULT_VOICES: Final = {
    "alloy": "af_alloy",
    "ash": "am_michael",
    "ballad": "bm_george",
    "coral": "af_bella",
    "echo": "am_echo",
    "sage": "af_sarah",
    "shimmer": "bf_emma",
    "verse": "am_puck",
    "marin": "af_heart",
    "cedar": "am_fenrir",
}
"""Voices of Kokoro 1.0."""

_Pause = Annotated[float, msgspec.Meta(ge=0, le=5)]


class KokoroOptions(PoolOptions, frozen=True, kw_only=True):
    model: str
    voices_file: str
    voices: dict[str, str] = msgspec.field(default_factory=dict)
    default_voice: str | None = None
    language: str | None = None
    sentence_pause_s: _Pause = 0.25
    clause_pause_s: _Pause = 0.1
    device: Literal["cpu", "cuda"] = "cpu"


class Speaker(msgspec.Struct, frozen=True):
    """A protocol voice: Kokoro's, and the language it reads (espeak-ng's name)."""

    voice: str
    language: str


class KokoroSetup(msgspec.Struct, frozen=True):
    """Payload of SETUP."""

    model: str
    voices_file: str
    voices: dict[str, Speaker]
    threads: int
    device: str
    sentence_pause_s: float
    clause_pause_s: float


def create(options: JsonObject) -> Synthesizer:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`."""
    checked = convert_options(options, KokoroOptions)
    if not Path(checked.model).is_file():
        raise EngineOptionsError("model", f"there is no {checked.model}")
    there = _names(Path(checked.voices_file))
    if checked.default_voice is None:
        names = named_voices({**DEFAULT_VOICES, **checked.voices}, None)
    else:
        names = named_voices(checked.voices, checked.default_voice)
    for name, voice in names.items():
        if voice not in there:
            # A voice that nobody asked for is named as the one to configure.
            option = option_of(name, checked.voices) if checked.default_voice is not None else f"voices.{name}"
            problem = f"{checked.voices_file} has no voice '{voice}' (there are: {', '.join(there)})"
            raise EngineOptionsError(option, problem)
    setup = KokoroSetup(
        model=checked.model,
        voices_file=checked.voices_file,
        voices={
            name: Speaker(voice, _language(voice, checked.language, option_of(name, checked.voices)))
            for name, voice in names.items()
        },
        threads=checked.threads,
        device=checked.device,
        sentence_pause_s=checked.sentence_pause_s,
        clause_pause_s=checked.clause_pause_s,
    )
    program = Program(
        name="kokoro",
        package="kokoro-onnx",
        module="vivavoce.engines.kokoro_worker",
        setup=msgspec.json.encode(setup),
    )
    capabilities = SynthesizerCapabilities(sample_rate=SAMPLE_RATE, voices=names, heavy=True)
    return PooledSynthesizer(program, capabilities, checked)


def _language(voice: str, language: str | None, option: str) -> str:
    known = language or LANGUAGES.get(voice[:1])
    if known is None:
        raise EngineOptionsError(option, f"the name '{voice}' tells no language; say it by the option language")
    return known


def _names(file: Path) -> list[str]:
    """The voices of a file, which is an archive of numpy arrays."""
    try:
        with zipfile.ZipFile(file) as archive:
            return sorted(name.removesuffix(".npy") for name in archive.namelist())
    except OSError as error:
        raise EngineOptionsError("voices_file", f"{file} cannot be read: {error.strerror}") from None
    except zipfile.BadZipFile:
        raise EngineOptionsError("voices_file", f"{file} is no file of Kokoro voices") from None
