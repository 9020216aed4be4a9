"""Silero VAD (version 6, 16 kHz) in plain numpy, many streams in one forward pass.

The network, as in the published ONNX graph (weights: ``data/silero_vad_16k.npz``, see the README beside it):

====================  =================================================================================
input                 64 samples of context from the frame before, then the frame's 512
reflection            64 samples at the right end only: 640
STFT                  window 256 (Hann), hop 128: 4 spectra; magnitudes of 129 bins
encoder               4 convolutions of width 3, padding 1, each with ReLU: 129 -> 128 (4 positions), 128 -> 64
                      (stride 2: 2 positions), 64 -> 64 (stride 2: 1 position), 64 -> 128 (1 position)
LSTM                  128 -> 128; its h and c are what a stream remembers
decoder               ReLU, 128 -> 1, sigmoid
====================  =================================================================================

Laws
----
1. A row of ``states`` is h (128), c (128), context (64): all zero is a new stream.
2. Everything is float32. The published STFT is a convolution with a windowed DFT basis; here it is an FFT, which
   is the same to float32 rounding.
3. The first convolution, the largest, saves products (see :class:`_FirstConvolution`). Another is one matrix
   product for each position it is wanted at, over the taps that do not lie in the padding: rows of a batch are
   strided views of the layer below, so nothing is copied.
4. Streams go through in groups of at most 120, whose intermediate values stay in the cache of one core.

The products are too small for threads to help: run the process with ``OPENBLAS_NUM_THREADS=1`` (``MKL_...``,
``OMP_...`` for other builds of numpy), set before numpy is first imported, as the server's entry point does. With
OpenBLAS's default the same work takes several times the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vivavoce.engines.base import EngineError, EngineOptionsError, Float32, Vad, VadCapabilities

SAMPLE_RATE: Final = 16000
FRAME: Final = 512
CONTEXT: Final = 64
HIDDEN: Final = 128
STATE_SIZE: Final = 2 * HIDDEN + CONTEXT

_WINDOW: Final = 256
_HOP: Final = 128
_BINS: Final = _WINDOW // 2 + 1
_GROUP: Final = 120
"""More rows, and OpenBLAS would copy the matrices of :func:`_in_strips` after all."""

_WIDE_STRIP: Final = 64
_NARROW_STRIP: Final = 32
_WEIGHTS: Final = "silero_vad_16k.npz"
_SHAPES: Final[Mapping[str, tuple[int, ...]]] = {
    "window": (256,),
    "conv1.weight": (128, 129, 3),
    "conv1.bias": (128,),
    "conv2.weight": (64, 128, 3),
    "conv2.bias": (64,),
    "conv3.weight": (64, 64, 3),
    "conv3.bias": (64,),
    "conv4.weight": (128, 64, 3),
    "conv4.bias": (128,),
    "lstm.weight_ih": (512, 128),
    "lstm.weight_hh": (512, 128),
    "lstm.bias_ih": (512,),
    "lstm.bias_hh": (512,),
    "output.weight": (1, 128, 1),
    "output.bias": (1,),
}


def create(options: Mapping[str, object]) -> Vad:
    """The engine; it has no options.

    Raises :class:`EngineOptionsError` when one is given.
    """
    for name in options:
        raise EngineOptionsError(name, "unknown option: the silero engine has none")
    return SileroVad()


class SileroVad:
    """The built-in VAD. ``infer`` is for one thread at a time: it keeps scratch space."""

    name = "silero"
    version = "6.2.3"
    capabilities = VadCapabilities(sample_rate=SAMPLE_RATE, frame_samples=FRAME, state_size=STATE_SIZE)

    def __init__(self) -> None:
        self._network: _Network | None = None

    async def start(self) -> None:
        """Load the weights (1 MB).

        Raises :class:`EngineError` when the installation lacks them or they are not the right ones.
        """
        if self._network is None:
            self._network = _Network(_load_weights())

    async def close(self) -> None:
        self._network = None

    def infer(self, frames: Float32, states: Float32) -> Float32:
        """[B, 512] samples in -1..1 and [B, 320] states (updated in place) -> [B] probabilities of speech.

        Raises :class:`ValueError` for other shapes and :class:`RuntimeError` before ``start``.
        """
        if self._network is None:
            raise RuntimeError("the silero engine is not started")
        count = len(frames)
        if frames.shape != (count, FRAME) or states.shape != (count, STATE_SIZE):
            raise ValueError(f"wrong shapes: frames {frames.shape}, states {states.shape}")
        probabilities = np.empty(count, np.float32)
        groups = -(-count // _GROUP)
        for at in range(groups):
            group = slice(at * count // groups, (at + 1) * count // groups)
            self._network.forward(frames[group], states[group], probabilities[group])
        return probabilities


def _load_weights() -> Mapping[str, Float32]:
    resource = files("vivavoce.engines.builtin") / "data" / _WEIGHTS
    try:
        with resource.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            weights = {name: np.asarray(archive[name], np.float32) for name in _SHAPES}
    except (OSError, ValueError, KeyError) as error:
        raise EngineError("vad_weights", f"cannot read the weights {_WEIGHTS}: {error}") from error
    for name, shape in _SHAPES.items():
        if weights[name].shape != shape:
            raise EngineError("vad_weights", f"{_WEIGHTS}: {name} is {weights[name].shape}, not {shape}")
    return weights


def _in_strips(matrices: npt.NDArray[np.floating], columns: int) -> Float32:
    """[P, K, N] -> [P, N / columns, K, columns]

    OpenBLAS takes matrices of less than a million products as they lie (with AVX-512), larger ones from copies that
    it makes each time.
    """
    planes, rows, _ = matrices.shape
    strips = matrices.reshape(planes, rows, -1, columns).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(strips, np.float32)


def _strips_of(results: Float32, columns: int) -> Float32:
    """Where products with :func:`_in_strips` go so that ``results`` [P, B, N] come of it."""
    planes, rows, _ = results.shape
    return results.reshape(planes, rows, -1, columns).transpose(0, 2, 1, 3)


class _FirstConvolution:
    """The convolution of width 3 of four positions, with ReLU, by Toom and Cook: six products instead of ten.

    Four results of a filter with three taps are a product of polynomials, read backwards (Winograd's F(4, 3)):
    known at six points, it takes one product for each. Three small matrices, all from the powers of the points,
    lead there and back. Of the six positions that the filter reads, the outer two are padding.
    """

    def __init__(self, weight: Float32, bias: Float32) -> None:
        outputs, channels, _ = weight.shape
        # The sixth point is infinity, where only the highest power counts.
        powers = np.vstack([np.vander([0, 1, -1, 0.5, -0.5], 6, increasing=True), np.eye(6)[5]])
        taps, gather = powers[:, :3].copy(), powers[:, :4].copy()
        taps[5, 2] = gather[5, 3] = 1
        self._matrices = _in_strips(np.einsum("pt,oct->pco", taps, weight), _WIDE_STRIP)
        self._spread = np.ascontiguousarray(np.linalg.inv(powers).T[:, 1:5], np.float32)
        # The bias is a seventh product, which is there already.
        self._gather = np.ascontiguousarray(np.vstack([gather, np.ones(4)]).T, np.float32)
        self._inputs = np.empty((6, _GROUP, channels), np.float32)
        self._outputs = np.empty((7, _GROUP, outputs), np.float32)
        self._outputs[6] = bias
        self._strips = _strips_of(self._outputs[:6], _WIDE_STRIP)
        self._out = np.empty((_GROUP, 4, outputs), np.float32)

    def __call__(self, layer: Float32) -> Float32:
        """[B, 4, channels] -> [B, 4 * outputs]"""
        count = len(layer)
        inputs, outputs, out = self._inputs[:, :count], self._outputs[:, :count], self._out[:count]
        np.matmul(self._spread, layer, out=inputs.transpose(1, 0, 2))
        np.matmul(inputs[:, np.newaxis], self._matrices, out=self._strips[:, :, :count])
        np.matmul(self._gather, outputs.transpose(1, 0, 2), out=out)
        return np.maximum(out, 0, out=out).reshape(count, -1)


class _Convolution:
    """A convolution of width 3 with ReLU from ``inputs`` positions to every second of them.

    Layers are [B, positions * channels], position by position.
    """

    def __init__(self, weight: Float32, bias: Float32, inputs: int) -> None:
        outputs, channels, _ = weight.shape
        positions = range(0, inputs, 2)
        matrix = np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(3 * channels, outputs))
        self._products = []
        for at, centre in enumerate(positions):
            first, beyond = max(centre - 1, 0), min(centre + 2, inputs)
            rows = slice((first - centre + 1) * channels, (beyond - centre + 1) * channels)
            reads = slice(first * channels, beyond * channels)
            writes = slice(at * outputs, (at + 1) * outputs)
            self._products.append((reads, matrix[rows], writes))
        self._bias = np.tile(bias, len(positions))
        self._out = np.empty((_GROUP, len(positions) * outputs), np.float32)

    def __call__(self, layer: Float32, out: Float32 | None = None) -> Float32:
        result = self._out[: len(layer)] if out is None else out
        for reads, matrix, writes in self._products:
            np.matmul(layer[:, reads], matrix, out=result[:, writes])
        result += self._bias
        return np.maximum(result, 0, out=result)


class _Network:
    """The weights in the order that the products want them, and scratch space for one group."""

    def __init__(self, weights: Mapping[str, Float32]) -> None:
        # numpy's FFT of float32 is one of double precision, through a copy of everything, unless its factor is
        # float32 too, which only a scale makes it: here 1/256, a power of two and so without rounding.
        self._window = weights["window"] * np.float32(_WINDOW)
        self._first = _FirstConvolution(weights["conv1.weight"], weights["conv1.bias"])
        self._encoder = tuple(
            _Convolution(weights[f"conv{n}.weight"], weights[f"conv{n}.bias"], inputs)
            for n, inputs in ((2, 4), (3, 2), (4, 1))
        )
        # Gates i, f, o, g. A sigmoid is (1 + tanh(x / 2)) / 2: with the halving in the weights, one tanh does all.
        order = np.r_[0:256, 384:512, 256:384]
        scale = np.where(np.arange(4 * HIDDEN) < 3 * HIDDEN, 0.5, 1.0).astype(np.float32)
        bias = weights["lstm.bias_ih"] + weights["lstm.bias_hh"]
        both = np.column_stack([weights["lstm.weight_ih"], weights["lstm.weight_hh"], bias])
        lstm = (both[order] * scale[:, np.newaxis]).reshape(4, HIDDEN, -1)
        self._lstm = _in_strips(lstm.transpose(0, 2, 1), _NARROW_STRIP)
        self._output = 0.5 * weights["output.weight"][0, :, 0]
        self._output_bias = 0.5 * weights["output.bias"]

        self._samples = np.empty((_GROUP, CONTEXT + FRAME + CONTEXT), np.float32)
        row, step = self._samples.strides
        self._spans = np.lib.stride_tricks.as_strided(
            self._samples, (_GROUP, 4, _WINDOW), (row, step * _HOP, step), writeable=False
        )
        self._windowed = np.empty((_GROUP, 4, _WINDOW), np.float32)
        # numpy's annotations know of double precision only.
        self._spectra: npt.NDArray[Any] = np.empty((_GROUP, 4, _BINS), np.complex64)
        self._magnitudes = np.empty((_GROUP, 4, _BINS), np.float32)
        # The last column stays 1, for the bias.
        self._recurrent = np.ones((_GROUP, 2 * HIDDEN + 1), np.float32)
        self._gates = np.empty((4, _GROUP, HIDDEN), np.float32)
        self._gate_strips = _strips_of(self._gates, _NARROW_STRIP)

    def forward(self, frames: Float32, states: Float32, out: Float32) -> None:
        """At most ``_GROUP`` streams; ``states`` is updated in place."""
        count = len(frames)
        hidden, cell, context = (
            states[:, :HIDDEN],
            states[:, HIDDEN : 2 * HIDDEN],
            states[:, 2 * HIDDEN :],
        )
        recurrent = self._recurrent[:count]
        second, third, fourth = self._encoder
        fourth(third(second(self._first(self._stft(frames, context)))), out=recurrent[:, :HIDDEN])
        recurrent[:, HIDDEN:-1] = hidden

        np.matmul(recurrent, self._lstm, out=self._gate_strips[:, :, :count])
        gates = self._gates[:, :count]
        np.tanh(gates, out=gates)
        sigmoids = gates[:3]
        sigmoids *= 0.5
        sigmoids += 0.5
        add, keep, show, candidate = gates
        cell *= keep
        np.multiply(add, candidate, out=candidate)
        cell += candidate
        np.tanh(cell, out=candidate)
        np.multiply(show, candidate, out=hidden)

        np.matmul(np.maximum(hidden, 0, out=candidate), self._output, out=out)
        out += self._output_bias
        np.tanh(out, out=out)
        out *= 0.5
        out += 0.5

    def _stft(self, frames: Float32, context: Float32) -> Float32:
        """Magnitudes [B, 4, 129]; ``context`` becomes the end of this frame."""
        count = len(frames)
        samples = self._samples[:count]
        samples[:, :CONTEXT] = context
        samples[:, CONTEXT:-CONTEXT] = frames
        end = CONTEXT + FRAME
        samples[:, end:] = samples[:, end - 2 : end - 2 - CONTEXT : -1]
        context[...] = frames[:, -CONTEXT:]
        windowed = np.multiply(self._spans[:count], self._window, out=self._windowed[:count])
        spectra = np.fft.rfft(windowed, norm="forward", out=self._spectra[:count])
        return np.abs(spectra, out=self._magnitudes[:count])
