"""Speech synthesis by Piper voices, with the ``piper-tts`` package (extra ``piper``).

piper-tts is GPL-3, and so is the espeak-ng inside it. It is never loaded into this process: it lives in worker
processes of its own (:mod:`vivavoce.engines.piper_worker`), and the two talk over a pipe.

A voice is a file ``NAME.onnx`` in ``folder`` with its ``NAME.onnx.json``; ``NAME#SPEAKER`` is one speaker of a file
that has several, by number or by the name that the file gives it. All files must have the same sample rate. The
options are told in ``docs/how-to/piper.md``.

Every sentence is sent when it is made. ``speed`` divides the voice's own ``length_scale``. Square brackets that
Piper would read as phonemes are spoken as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from vivavoce.engines.base import EngineOptionsError, JsonObject, Synthesizer, SynthesizerCapabilities
from vivavoce.engines.builtin.speech_pool import PooledSynthesizer, PoolOptions, Program, named_voices, option_of
from vivavoce.engines.builtin.worker_options import convert_options

PATH_OPTIONS: Final = ("folder",)

_Scale = Annotated[float, msgspec.Meta(ge=0, le=10)]


class PiperOptions(PoolOptions, frozen=True, kw_only=True):
    folder: str
    voices: dict[str, str] = msgspec.field(default_factory=dict)
    default_voice: str | None = None
    length_scale: Annotated[float, msgspec.Meta(gt=0, le=10)] | None = None
    """None, here and below: as the voice's own file says."""
    noise_scale: _Scale | None = None
    noise_w_scale: _Scale | None = None
    volume: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    device: Literal["cpu", "cuda"] = "cpu"


class Speaker(msgspec.Struct, frozen=True):
    """A protocol voice: its model, and the speaker in it (None in a model of one)."""

    model: str
    speaker: int | None = None


class _VoiceAudio(msgspec.Struct, frozen=True):
    sample_rate: Annotated[int, msgspec.Meta(ge=1)]


class _VoiceFile(msgspec.Struct, frozen=True):
    """What counts here of ``NAME.onnx.json``."""

    audio: _VoiceAudio
    num_speakers: Annotated[int, msgspec.Meta(ge=1)]
    speaker_id_map: dict[str, int] | None = None
    default_speaker_id: int = 0


class PiperSetup(msgspec.Struct, frozen=True):
    """Payload of SETUP."""

    voices: dict[str, Speaker]
    sample_rate: int
    threads: int
    device: str
    length_scale: float | None
    noise_scale: float | None
    noise_w_scale: float | None
    volume: float


def create(options: JsonObject) -> Synthesizer:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`."""
    checked = convert_options(options, PiperOptions)
    names = named_voices(checked.voices, checked.default_voice)
    voices: dict[str, Speaker] = {}
    rates: dict[int, str] = {}
    for name, spelt in names.items():
        option = option_of(name, checked.voices)
        voices[name], rate = _speaker(Path(checked.folder), spelt, option)
        rates.setdefault(rate, spelt)
        if len(rates) > 1:
            (one, first), (other, second) = rates.items()
            raise EngineOptionsError(
                option, f"{second} speaks at {other} Hz and {first} at {one} Hz; all must have one rate"
            )
    (rate,) = rates
    setup = PiperSetup(
        voices=voices,
        sample_rate=rate,
        threads=checked.threads,
        device=checked.device,
        length_scale=checked.length_scale,
        noise_scale=checked.noise_scale,
        noise_w_scale=checked.noise_w_scale,
        volume=checked.volume,
    )
    program = Program(
        name="piper",
        package="piper-tts",
        module="vivavoce.engines.piper_worker",
        setup=msgspec.json.encode(setup),
    )
    capabilities = SynthesizerCapabilities(sample_rate=rate, voices=names, heavy=True)
    return PooledSynthesizer(program, capabilities, checked)


def _speaker(folder: Path, spelt: str, option: str) -> tuple[Speaker, int]:
    """The voice that ``NAME`` or ``NAME#SPEAKER`` means, and its sample rate in Hz."""
    name, numbered, wanted = spelt.partition("#")
    model = folder / f"{name}.onnx"
    config = _config(model, option)
    speakers, rate = config.num_speakers, config.audio.sample_rate
    if not numbered:
        return Speaker(str(model), config.default_speaker_id if speakers > 1 else None), rate
    number = (config.speaker_id_map or {}).get(wanted, int(wanted) if wanted.isdecimal() else None)
    if number is None or number >= speakers:
        raise EngineOptionsError(option, f"{name} has no speaker '{wanted}'; it has {speakers}, from 0")
    return Speaker(str(model), number if speakers > 1 else None), rate


def _config(model: Path, option: str) -> _VoiceFile:
    if not model.is_file():
        raise EngineOptionsError(option, f"there is no {model}")
    try:
        return msgspec.json.decode(Path(f"{model}.json").read_bytes(), type=_VoiceFile)
    except OSError as error:
        raise EngineOptionsError(option, f"{model}.json cannot be read: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = f"{model}.json is no configuration of a Piper voice: {error}"
        raise EngineOptionsError(option, problem) from None
