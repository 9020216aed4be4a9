"""Makes voices of a few KB that the real libraries load and run: each speaks a tone for its phonemes.

How long it lasts follows from the number of phonemes and from the speed, and how high it is from the speaker, so
that a test hears whether the text, the speed and the voice have reached the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper
from piper.phoneme_ids import DEFAULT_PHONEME_ID_MAP

HOP: Final = 512
"""Samples of one phoneme id, at speed 1."""
LOWEST_HZ: Final = 200
STEP_HZ: Final = 100
"""Speaker n of a voice is ``LOWEST_HZ + n * STEP_HZ`` high."""

LEXICON: Final = ("hello", "there", "how", "are", "you", "one", "two", "three", "sentence", "from", "tools")

_AMPLITUDE: Final = 0.5
_IR: Final = 9
_OPSET: Final = 17


def pitch(pcm: bytes, rate: int) -> float:
    """The strongest frequency of s16le sound, Hz."""
    samples = np.frombuffer(pcm, "<i2").astype(float)
    return float(np.argmax(np.abs(np.fft.rfft(samples, 1 << 18))) * rate / (1 << 18))


def write_piper(
    folder: Path, name: str, *, speakers: int = 1, rate: int = 22050, lowest_hz: int = LOWEST_HZ
) -> None:
    """``NAME.onnx`` and ``NAME.onnx.json``, as Piper's training exports them."""
    config: dict[str, Any] = {
        "audio": {"sample_rate": rate},
        "espeak": {"voice": "en-us"},
        "phoneme_type": "espeak",
        "inference": {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8},
        "num_symbols": 256,
        "num_speakers": speakers,
        "speaker_id_map": {f"p{n}": n for n in range(speakers)} if speakers > 1 else {},
        "phoneme_id_map": DEFAULT_PHONEME_ID_MAP,
    }
    (folder / f"{name}.onnx.json").write_text(json.dumps(config), encoding="utf-8")
    onnx.save(_vits(speakers, rate, lowest_hz), str(folder / f"{name}.onnx"))


def write_sherpa_vits(folder: Path, *, speakers: int = 1, rate: int = 16000) -> None:
    """``model.onnx`` that tells about itself, ``tokens.txt``, and ``lexicon.txt`` with :data:`LEXICON`."""
    model = _vits(speakers, rate, LOWEST_HZ)
    told = {
        "model_type": "vits",
        "comment": "piper",
        "language": "English",
        "voice": "en-us",
        "n_speakers": str(speakers),
        "sample_rate": str(rate),
    }
    helper.set_model_props(model, told)
    onnx.save(model, str(folder / "model.onnx"))
    _write_words(folder)


def write_sherpa_styled(folder: Path, family: Literal["kokoro", "kitten"], *, speakers: int) -> None:
    """A model of these families: ``model.onnx``, ``voices.bin``, ``tokens.txt`` and ``lexicon.txt``."""
    shape = (510, 1, 256) if family == "kokoro" else (1, 256)
    model = _styled(family)
    told = {
        "model_type": {"kokoro": "kokoro", "kitten": "kitten-tts"}[family],
        "version": "2",
        "has_espeak": "1",
        "voice": "en-us",
        "n_speakers": str(speakers),
        "speaker_names": ",".join(f"p{n}" for n in range(speakers)),
        "style_dim": ",".join(map(str, shape)),
        "max_token_len": "510",
        "sample_rate": "24000",
    }
    helper.set_model_props(model, told)
    onnx.save(model, str(folder / "model.onnx"))
    styles = [np.full(shape, LOWEST_HZ + n * STEP_HZ, np.float32) for n in range(speakers)]
    (folder / "voices.bin").write_bytes(np.stack(styles).tobytes())
    _write_words(folder)


def _write_words(folder: Path) -> None:
    tokens = {text: ids[0] for text, ids in DEFAULT_PHONEME_ID_MAP.items() if len(text) == 1}
    (folder / "tokens.txt").write_text("".join(f"{text} {n}\n" for text, n in tokens.items()), encoding="utf-8")
    words = "".join(f"{word} {' '.join(word)}\n" for word in LEXICON)
    (folder / "lexicon.txt").write_text(words, encoding="utf-8")


def write_kokoro(folder: Path, voices: Mapping[str, int]) -> None:
    """``model.onnx`` and ``voices.bin``; ``voices``: name -> Hz, which stands in for the style of a voice."""
    onnx.save(_styled("kokoro"), str(folder / "model.onnx"))
    styles: dict[str, Any] = {name: np.full((510, 1, 256), hz, np.float32) for name, hz in voices.items()}
    with (folder / "voices.bin").open("wb") as file:
        np.savez(file, **styles)


def _styled(name: str) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Shape", ["tokens"], ["count"], start=1, end=2),
        helper.make_node("Cast", ["count"], ["count_f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["count_f", "speed"], ["length"]),
        helper.make_node("Slice", ["style", "zero", "one", "axis"], ["first"]),
        helper.make_node("Reshape", ["first", "one"], ["hz"]),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "count"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    numbers: dict[str, np.ndarray[Any, Any]] = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
    }
    return _tone(name, nodes, inputs, numbers, 24000, (-1,))


def _vits(speakers: int, rate: int, lowest_hz: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Shape", ["input"], ["count"], start=1, end=2),
        helper.make_node("Cast", ["count"], ["count_f"], to=TensorProto.FLOAT),
        helper.make_node("Slice", ["scales", "one", "two"], ["length_scale"]),
        helper.make_node("Mul", ["count_f", "length_scale"], ["length"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, ["batch", "count"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ]
    numbers: dict[str, np.ndarray[Any, Any]] = {
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "lowest": np.array([lowest_hz], np.float32),
        "step": np.array([STEP_HZ], np.float32),
    }
    if speakers > 1:
        inputs.append(helper.make_tensor_value_info("sid", TensorProto.INT64, ["batch"]))
        nodes += [
            helper.make_node("Cast", ["sid"], ["sid_f"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["sid_f", "step"], ["above"]),
            helper.make_node("Add", ["above", "lowest"], ["hz"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["lowest"], ["hz"]))
    return _tone("vits", nodes, inputs, numbers, rate, (1, 1, -1))


def _tone(
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    numbers: Mapping[str, np.ndarray[Any, Any]],
    rate: int,
    shape: tuple[int, ...],
) -> onnx.ModelProto:
    """A model whose ``nodes`` make ``length`` (phonemes) and ``hz``, and that speaks a tone of both."""
    numbers = {
        **numbers,
        "hop": np.array([HOP], np.float32),
        "turn": np.array([2 * math.pi / rate], np.float32),
        "loudness": np.array([_AMPLITUDE], np.float32),
        "shape": np.array(shape, np.int64),
        "scalar": np.array([], np.int64),
        "start": np.array(0, np.int64),
        "next": np.array(1, np.int64),
    }
    nodes = [
        *nodes,
        helper.make_node("Mul", ["length", "hop"], ["samples_f"]),
        helper.make_node("Cast", ["samples_f"], ["samples_1"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["samples_1", "scalar"], ["samples"]),
        helper.make_node("Range", ["start", "samples", "next"], ["times"]),
        helper.make_node("Cast", ["times"], ["times_f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["hz", "turn"], ["step_angle"]),
        helper.make_node("Mul", ["times_f", "step_angle"], ["angles"]),
        helper.make_node("Sin", ["angles"], ["wave"]),
        helper.make_node("Mul", ["wave", "loudness"], ["sound"]),
        helper.make_node("Reshape", ["sound", "shape"], ["output"]),
    ]
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [f"d{n}" for n in range(len(shape))])
    constants = [onnx.numpy_helper.from_array(value, key) for key, value in numbers.items()]
    graph = helper.make_graph(nodes, name, inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model)
    return model
