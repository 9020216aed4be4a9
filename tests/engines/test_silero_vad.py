"""The numpy network against the published model, which lies in ``data`` (MIT), run by onnxruntime."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vivavoce.engines.base import EngineError, EngineOptionsError, Vad
from vivavoce.engines.builtin import silero_vad
from vivavoce.engines.builtin.silero_vad import FRAME, SAMPLE_RATE, STATE_SIZE, SileroVad, create

Float32 = npt.NDArray[np.float32]
MODEL = Path(__file__).parent / "data" / "silero_vad_16k_op15.onnx"


@pytest.fixture
async def vad() -> AsyncIterator[Vad]:
    engine = create({})
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
def original() -> Callable[[Float32], Float32]:
    """The published model: [frames, B, 512] of B new streams -> [frames, B]."""
    onnxruntime: Any = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])

    def run(sound: Float32) -> Float32:
        streams = sound.shape[1]
        state = np.zeros((2, streams, 128), np.float32)
        context = np.zeros((streams, 64), np.float32)
        probabilities = []
        for frame in sound:
            inputs = {"input": np.hstack([context, frame]), "state": state, "sr": np.array(SAMPLE_RATE)}
            output, state = session.run(None, inputs)
            probabilities.append(output[:, 0])
            context = frame[:, -64:]
        return np.array(probabilities)

    return run


def speech_like(frames: int, pitch: float, level: float, seed: int) -> Float32:
    """Syllables of a buzzing voice: pulses at ``pitch`` Hz through moving formants, with pauses and breath.

    [frames, 512]. The model takes it for speech.
    """
    rng = np.random.default_rng(seed)
    time = np.arange(frames * FRAME) / SAMPLE_RATE
    phase = np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time) + 0.02 * np.sin(2 * np.pi * 5 * time)))
    sound = np.zeros_like(time)
    for harmonic in range(1, int(4000 / (pitch * 1.15))):
        hz = harmonic * pitch
        gain = sum(
            weight / (1 + ((hz - centre * (1 + 0.25 * np.sin(2 * np.pi * rate * time))) / width) ** 2)
            for centre, width, weight, rate in (
                (500, 80, 1.0, 1.9),
                (1500, 120, 0.5, 1.3),
                (2500, 160, 0.25, 0.8),
            )
        )
        sound += gain * np.sin(2 * np.pi * harmonic * phase / SAMPLE_RATE)
    syllables = np.clip(1.5 * np.sin(2 * np.pi * 3.1 * time), 0, 1) * (np.sin(2 * np.pi * 0.35 * time + 0.4) > -0.3)
    sound = sound / np.abs(sound).max() * syllables + 0.003 * rng.standard_normal(len(time))
    framed: Float32 = (level * sound).astype(np.float32).reshape(frames, FRAME)
    return framed


def noises(frames: int, seed: int) -> Float32:
    """Noise from very faint to very loud, with digital silence and clicks between. [frames, 512]."""
    rng = np.random.default_rng(seed)
    sound = rng.standard_normal((frames, FRAME)) * 10.0 ** rng.uniform(-5, 0, (frames, 1))
    sound[::7] = 0
    sound[3::11, 100] = 1
    return np.clip(sound, -1, 1).astype(np.float32)


def run(vad: Vad, sound: Float32, states: Float32) -> Float32:
    return np.array([vad.infer(frame, states) for frame in sound])


def new_states(streams: int) -> Float32:
    return np.zeros((streams, STATE_SIZE), np.float32)


# --------------------------------------------------------------------------------- the published model


@pytest.mark.parametrize("pitch", [110.0, 200.0])
def test_one_stream_equals_the_original(vad: Vad, original: Callable[[Float32], Float32], pitch: float) -> None:
    sound = speech_like(200, pitch, 0.3, seed=1)[:, np.newaxis]
    expected = original(sound)
    assert np.max(expected) > 0.9
    assert np.min(expected) < 0.1
    np.testing.assert_allclose(run(vad, sound, new_states(1)), expected, atol=1e-4)


def test_seven_streams_equal_the_original(vad: Vad, original: Callable[[Float32], Float32]) -> None:
    voices = [speech_like(150, pitch, level, seed=1) for pitch, level in ((95, 0.9), (210, 0.05))]
    sound = np.stack([*voices, *(noises(150, seed=n) for n in range(5))], axis=1)
    np.testing.assert_allclose(run(vad, sound, new_states(7)), original(sound), atol=1e-4)


def test_a_zeroed_row_is_a_new_stream(vad: Vad, original: Callable[[Float32], Float32]) -> None:
    voice = speech_like(120, 120, 0.3, seed=1)
    sound = np.stack([np.roll(voice, 5 * n, axis=0) for n in range(7)], axis=1)
    states = new_states(7)
    before = run(vad, sound[:70], states)
    states[3] = 0
    after = run(vad, sound[70:], states)
    whole, restarted = original(sound), original(sound[70:, 3:4])
    assert np.abs(whole[70:, 3] - restarted[:, 0]).max() > 0.01
    expected = whole.copy()
    expected[70:, 3] = restarted[:, 0]
    np.testing.assert_allclose(np.concatenate([before, after]), expected, atol=1e-4)


# ------------------------------------------------------------------------------------------ the engine


@pytest.mark.parametrize("streams", [2, 63, 64, 65, 120, 121, 200])
def test_a_batch_is_its_streams_one_by_one(vad: Vad, streams: int) -> None:
    sound = np.stack([noises(3, seed=n) for n in range(streams)], axis=1)
    states = new_states(streams)
    together = run(vad, sound, states)
    for n in range(streams):
        alone = new_states(1)
        np.testing.assert_allclose(run(vad, sound[:, n : n + 1], alone)[:, 0], together[:, n], atol=1e-4)
        np.testing.assert_allclose(alone[0], states[n], atol=1e-4)


def test_probabilities_are_numbers_from_0_to_1(vad: Vad) -> None:
    """Also for sound far over full scale, and for silence."""
    sound = np.stack([noises(40, seed=9) * 1000, np.zeros((40, FRAME), np.float32)], axis=1)
    probabilities = run(vad, sound, new_states(2))
    assert probabilities.dtype == np.float32
    assert np.isfinite(probabilities).all()
    assert (probabilities >= 0).all()
    assert (probabilities <= 1).all()
    assert (probabilities[:, 1] < 0.1).all()


def test_results_are_the_callers_own(vad: Vad) -> None:
    frames = speech_like(2, 120, 0.3, seed=1)[:, np.newaxis]
    states = new_states(1)
    first = vad.infer(frames[0], states)
    kept = first.copy()
    vad.infer(frames[1], states)
    np.testing.assert_array_equal(first, kept)


def test_no_streams_are_no_work(vad: Vad) -> None:
    assert vad.infer(np.empty((0, FRAME), np.float32), new_states(0)).shape == (0,)


@pytest.mark.parametrize(("frames", "states"), [((1, 256), (1, 320)), ((2, 512), (1, 320)), ((1, 512), (1, 256))])
def test_other_shapes_are_refused(vad: Vad, frames: tuple[int, int], states: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="wrong shapes"):
        vad.infer(np.zeros(frames, np.float32), np.zeros(states, np.float32))


def test_options_are_refused_by_name() -> None:
    with pytest.raises(EngineOptionsError) as caught:
        create({"threshold": 0.5})
    assert caught.value.path == "threshold"


async def test_it_works_between_start_and_close_only() -> None:
    engine = SileroVad()
    frame = np.zeros((1, FRAME), np.float32)
    with pytest.raises(RuntimeError, match="not started"):
        engine.infer(frame, new_states(1))
    await engine.start()
    engine.infer(frame, new_states(1))
    await engine.close()
    with pytest.raises(RuntimeError, match="not started"):
        engine.infer(frame, new_states(1))


async def test_missing_weights_are_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero_vad, "_WEIGHTS", "absent.npz")
    with pytest.raises(EngineError, match=r"absent\.npz"):
        await SileroVad().start()


def test_it_satisfies_the_contract_and_comes_by_its_entry_point() -> None:
    (entry,) = entry_points(group="vivavoce.vad", name="silero")
    engine = entry.load()({})
    assert isinstance(engine, Vad)
    assert engine.name == "silero"
    capabilities = engine.capabilities
    assert capabilities.frame_samples * 1000 == capabilities.sample_rate * 32
    assert capabilities.state_size == STATE_SIZE
