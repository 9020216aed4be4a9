"""Speech synthesis by sherpa-onnx 2: models of the families VITS, Kokoro and Kitten (extra ``sherpa-onnx``), in
worker processes (:mod:`vivavoce.engines.sherpa_onnx_tts_worker`).

``folder`` is a model as sherpa-onnx publishes it, unpacked; other files are named as they are in it. Voices are
numbers of speakers. The sample rate is read from the model file. The options are told in
``docs/how-to/sherpa-onnx-tts.md``. From version 2 on the library brings no espeak-ng: a model speaks the words of
its lexicon, and passes over others.

Every sentence is sent when it is made. A reader who leaves ends the work at the end of the sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal, TypeAlias

import msgspec

from vivavoce.engines.base import EngineOptionsError, JsonObject, Synthesizer, SynthesizerCapabilities
from vivavoce.engines.builtin.speech_pool import PooledSynthesizer, PoolOptions, Program, named_voices, option_of
from vivavoce.engines.builtin.worker_options import convert_options

PATH_OPTIONS: Final = ("folder",)

Family: TypeAlias = Literal["vits", "kokoro", "kitten"]
_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
_Speaker: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
_Scale: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=10)]


class SherpaOptions(PoolOptions, frozen=True, kw_only=True):
    family: Family
    folder: str
    lexicon: Annotated[list[_Name], msgspec.Meta(min_length=1)]
    voices: dict[str, _Speaker] = msgspec.field(default_factory=dict)
    default_voice: _Speaker | None = None
    model: _Name = "model.onnx"
    tokens: _Name = "tokens.txt"
    voices_file: _Name | None = None
    rule_fsts: list[_Name] = msgspec.field(default_factory=list)
    length_scale: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    noise_scale: _Scale | None = None
    noise_w_scale: _Scale | None = None
    silence_scale: _Scale = 0.2


class SherpaSetup(msgspec.Struct, frozen=True):
    """Payload of SETUP. Files are paths; "" for none, and commas between several."""

    family: Family
    voices: dict[str, int]
    threads: int
    model: str
    tokens: str
    voices_file: str
    lexicon: str
    rule_fsts: str
    length_scale: float
    noise_scale: float | None
    noise_w_scale: float | None
    silence_scale: float


def create(options: JsonObject) -> Synthesizer:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`."""
    checked = convert_options(options, SherpaOptions)
    folder = Path(checked.folder)
    if (checked.family == "vits") != (checked.voices_file is None):
        verb = "has none" if checked.family == "vits" else "needs one"
        raise EngineOptionsError("voices_file", f"a model of the family {checked.family} {verb}")
    for option in ("noise_scale", "noise_w_scale"):
        if getattr(checked, option) is not None and checked.family != "vits":
            raise EngineOptionsError(option, f"a model of the family {checked.family} has none")
    setup = SherpaSetup(
        family=checked.family,
        voices={},
        threads=checked.threads,
        model=_files(folder, "model", checked.model),
        tokens=_files(folder, "tokens", checked.tokens),
        voices_file=_files(folder, "voices_file", checked.voices_file),
        lexicon=_files(folder, "lexicon", *checked.lexicon),
        rule_fsts=_files(folder, "rule_fsts", *checked.rule_fsts),
        length_scale=checked.length_scale,
        noise_scale=checked.noise_scale,
        noise_w_scale=checked.noise_w_scale,
        silence_scale=checked.silence_scale,
    )
    told = _told(Path(setup.model))
    rate = told.get("sample_rate", "")
    if not rate.isdecimal():
        raise EngineOptionsError("model", f"{setup.model} was not made for sherpa-onnx: it tells no sample_rate")
    given = {name: str(speaker) for name, speaker in checked.voices.items()}
    names = named_voices(given, None if checked.default_voice is None else str(checked.default_voice))
    speakers = max(1, int(told["n_speakers"])) if told.get("n_speakers", "").isdecimal() else None
    for name, speaker in names.items():
        if speakers is not None and int(speaker) >= speakers:
            raise EngineOptionsError(option_of(name, given), f"no speaker {speaker}; it has {speakers}, from 0")
    setup = msgspec.structs.replace(setup, voices={name: int(speaker) for name, speaker in names.items()})
    program = Program(
        name="sherpa_onnx",
        package="sherpa-onnx",
        module="vivavoce.engines.sherpa_onnx_tts_worker",
        setup=msgspec.json.encode(setup),
    )
    capabilities = SynthesizerCapabilities(sample_rate=int(rate), voices=names, heavy=True)
    return PooledSynthesizer(program, capabilities, checked)


def _files(folder: Path, option: str, *names: str | None) -> str:
    """Files of the folder, as sherpa-onnx takes them."""
    paths = [folder / name for name in names if name is not None]
    for path in paths:
        if not path.is_file():
            raise EngineOptionsError(option, f"there is no {path}")
    return ",".join(map(str, paths))


# -------------------------------------------------------------------------------------- what a model file tells

_METADATA_FIELD: Final = 14
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def _told(model: Path) -> dict[str, str]:
    """The metadata of an ONNX file (``ModelProto.metadata_props``), read without loading the model."""
    told: dict[str, str] = {}
    try:
        with model.open("rb") as file:
            for number, place, length in _fields(file, model.stat().st_size):
                if number == _METADATA_FIELD:
                    file.seek(place)
                    key, value = _entry(file, place + length)
                    told[key] = value
    except (OSError, EOFError, ValueError):
        raise EngineOptionsError("model", f"{model} is no ONNX model") from None
    return told


def _entry(file: BinaryIO, end: int) -> tuple[str, str]:
    """``StringStringEntryProto``: key is field 1, value field 2."""
    texts = {1: "", 2: ""}
    for number, place, length in _fields(file, end):
        file.seek(place)
        texts[number] = file.read(length).decode()
    return texts[1], texts[2]


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, place, length) of the fields of a protobuf message that hold bytes, from where the file is."""
    while file.tell() < end:
        tag = _varint(file)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _varint(file)
            continue
        if kind not in (_FIXED64, _FIXED32, _LENGTH):
            raise ValueError(kind)
        length = {_FIXED64: 8, _FIXED32: 4}.get(kind) or _varint(file)
        place = file.tell()
        if place + length > end:
            raise EOFError
        if kind == _LENGTH:
            yield number, place, length
        file.seek(place + length)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError
