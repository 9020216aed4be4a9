"""Models for sherpa-onnx so small that a test can make them, and so plain that a test can check what they hear.

Each is a real ONNX graph with the metadata and states that sherpa-onnx demands of its kind. In every frame of 40 ms
the loudest of :data:`TONES` chooses the token, and silence is the blank of CTC. So a tone is one word however long
it lasts, and is said twice where a silence parts it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tiny_whisper import TONES

_MELS: Final = 80
_CHUNK: Final = 32
"""Frames of 10 ms that the streaming model takes at a time."""
_TOKENS: Final = ["<blk>", *(f"▁{tone}" for tone in TONES)]
_LOUD: Final = 2.0
"""Logarithm of the energy in its mel band from which a tone is heard."""


def make_streaming_ctc(folder: Path) -> dict[str, str]:
    """A Zipformer2 CTC model; returns the options that name its files."""
    cached: list[tuple[str, Sequence[int | str]]] = [
        ("key", (1, "N", 1)),
        ("attention", (1, "N", 1, 1)),
        ("value1", (1, "N", 1)),
        ("value2", (1, "N", 1)),
        ("conv1", ("N", 2, 1)),
        ("conv2", ("N", 2, 1)),
    ]
    states = [*cached, ("embed", ("N", 128, 3, 19))]
    nodes = _hear("x", "log_probs")
    nodes += [helper.make_node("Identity", [name], [f"new_{name}"]) for name, _ in states]
    nodes.append(helper.make_node("Add", ["processed_lens", "chunk"], ["new_processed_lens"]))
    floats = [("x", ("N", _CHUNK, _MELS)), *states]
    inputs = [*map(_float, floats), helper.make_tensor_value_info("processed_lens", TensorProto.INT64, ["N"])]
    outputs = [_float(("log_probs", ["N", _CHUNK // 4, len(_TOKENS)]))]
    outputs += [_float((f"new_{name}", shape)) for name, shape in states]
    outputs.append(helper.make_tensor_value_info("new_processed_lens", TensorProto.INT64, ["N"]))
    metadata = {
        "model_type": "zipformer2",
        "encoder_dims": "2",
        "query_head_dims": "1",
        "value_head_dims": "1",
        "num_heads": "1",
        "num_encoder_layers": "1",
        "cnn_module_kernels": "3",
        "left_context_len": "1",
        "T": str(_CHUNK),
        "decode_chunk_len": str(_CHUNK),
    }
    constants = [*_weights(), numpy_helper.from_array(np.array([_CHUNK // 2], np.int64), "chunk")]
    return _save(folder, "streaming", nodes, inputs, outputs, constants, metadata)


def make_offline_ctc(folder: Path) -> dict[str, str]:
    """A Zipformer CTC model; returns the options that name its files."""
    nodes = [
        *_hear("x", "log_probs"),
        helper.make_node("Div", ["x_lens", "four"], ["log_probs_len"]),
    ]
    inputs = [_float(("x", ["N", "T", _MELS])), helper.make_tensor_value_info("x_lens", TensorProto.INT64, ["N"])]
    outputs = [
        _float(("log_probs", ["N", "F", len(_TOKENS)])),
        helper.make_tensor_value_info("log_probs_len", TensorProto.INT64, ["N"]),
    ]
    constants = [*_weights(), numpy_helper.from_array(np.array([4], np.int64), "four")]
    return _save(folder, "offline", nodes, inputs, outputs, constants, {"model_type": "zipformer2_ctc"})


def _hear(features: str, result: str) -> list[Any]:
    """Logarithms of probabilities of tokens, for each fourth frame: [N, T, mels] -> [N, T / 4, tokens]."""
    return [
        helper.make_node("Slice", [features, "start", "end", "time", "step"], ["quarter"]),
        helper.make_node("MatMul", ["quarter", "weight"], ["heard"]),
        helper.make_node("Add", ["heard", "bias"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], [result], axis=-1),
    ]


def _weights() -> list[Any]:
    weight = np.zeros((_MELS, len(_TOKENS)), np.float32)
    bias = np.zeros(len(_TOKENS), np.float32)
    for n, pitch in enumerate(TONES.values(), 1):
        weight[_mel_of(pitch), n] = 1.0
        bias[n] = -_LOUD
    integers = {"start": 0, "end": np.iinfo(np.int64).max, "time": 1, "step": 4}
    return [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(bias, "bias"),
        *(numpy_helper.from_array(np.array([value], np.int64), name) for name, value in integers.items()),
    ]


def _mel_of(hertz: float) -> int:
    """The band of Kaldi's 80 mel bands from 20 to 7600 Hz in which a pitch lies."""

    def mel(f: float) -> float:
        return 1127 * math.log(1 + f / 700)

    return round((mel(hertz) - mel(20)) / (mel(7600) - mel(20)) * (_MELS + 1)) - 1


def _float(named: tuple[str, Sequence[int | str]]) -> Any:
    name, shape = named
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _save(
    folder: Path, name: str, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any],
    metadata: dict[str, str],
) -> dict[str, str]:  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, str(folder / f"{name}.onnx"))
    (folder / "tokens.txt").write_text("".join(f"{token} {n}\n" for n, token in enumerate(_TOKENS)))
    return {"model": f"{name}.onnx", "tokens": "tokens.txt"}
