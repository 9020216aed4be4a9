"""Conversations by sound with the recognisers of the extras, on a real socket: tiny models, whole engines."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from server_fakes import BETA, KEY, OPENAI, RATE, FakeVad, Wire, eventually, quiet
from tiny_sherpa_asr import make_offline_ctc, make_streaming_ctc
from tiny_whisper import CUE, make_tiny_whisper, sound, words

from vivavoce.config import load_config
from vivavoce.engines.faster_whisper import FasterWhisperTranscriber
from vivavoce.engines.registry import ENGINE_KINDS, Engine, EngineKind, Registry
from vivavoce.engines.sherpa_onnx_asr import SherpaOnnxTranscriber
from vivavoce.server.app import running

CONFIG = f"""
[resource]
keys = ["{KEY}"]

[[deployment]]
name = "gpt-4o-realtime-preview"
transcriber = "ENGINE"

[engine.faster_whisper]
kind = "transcriber"
type = "faster_whisper"
model = "whisper"
device = "cpu"
cpu_threads = 1
partial_interval_ms = 500

[engine.sherpa_streaming]
kind = "transcriber"
type = "sherpa_onnx"
mode = "streaming"
model_type = "zipformer2_ctc"
model = "streaming.onnx"
tokens = "tokens.txt"

[engine.sherpa_offline]
kind = "transcriber"
type = "sherpa_onnx"
mode = "offline"
model_type = "zipformer_ctc"
model = "offline.onnx"
tokens = "tokens.txt"
"""
SAYS: Mapping[str, Callable[..., str]] = {
    "faster_whisper": words,
    "sherpa_streaming": lambda *tones: " ".join(tones),
    "sherpa_offline": lambda *tones: " ".join(tones),
}
"""What each engine makes of tones."""


class Installed(Registry):
    """The installed engines; but tones are speech to the VAD, and the recogniser is kept at hand."""

    def __init__(self) -> None:
        super().__init__(point for kind in ENGINE_KINDS for point in entry_points(group=f"vivavoce.{kind}"))
        self.transcriber: FasterWhisperTranscriber | SherpaOnnxTranscriber

    def create(
        self, kind: EngineKind, name: str, options: Mapping[str, object], *, base: Path | None = None
    ) -> Engine:
        if kind == "vad":
            return FakeVad()
        engine = super().create(kind, name, options, base=base)
        if isinstance(engine, FasterWhisperTranscriber | SherpaOnnxTranscriber):
            self.transcriber = engine
        return engine

    @property
    def worker(self) -> int:
        """The process id of the recogniser's worker."""
        (pid,) = self.transcriber._pool.pids
        return pid


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a configuration for each engine."""
    folder = tmp_path_factory.mktemp("aloud")
    make_tiny_whisper(folder / "whisper")
    make_streaming_ctc(folder)
    make_offline_ctc(folder)
    for engine in SAYS:
        (folder / f"{engine}.toml").write_text(CONFIG.replace("ENGINE", engine))
    return folder


@asynccontextmanager
async def talking(models: Path, engine: str, **transcription: str) -> AsyncIterator[tuple[Wire, Installed]]:
    """A session whose input is transcribed as the client wishes."""
    registry = Installed()
    config = load_config(models / f"{engine}.toml", environ={})
    async with (
        running(config, host="127.0.0.1", port=0, registry=registry) as server,
        ClientSession() as client,
        client.ws_connect(
            f"http://127.0.0.1:{server.port}{OPENAI}", headers={**BETA, "Authorization": f"Bearer {KEY}"}
        ) as socket,
    ):
        wire = Wire(socket)
        await wire.until("conversation.created")
        await wire.update(
            modalities=["text"],
            input_audio_transcription={"model": "whisper-1", **transcription},
            # The models have words for tones that begin where the sound begins.
            turn_detection={"type": "server_vad", "prefix_padding_ms": 0},
        )
        yield wire, registry


async def say(wire: Wire, *tones: str) -> None:
    await send(wire, sound(*tones, rate=RATE) + quiet(1))


async def send(wire: Wire, pcm: bytes) -> None:
    for at in range(0, len(pcm), 4800):
        await wire.send("input_audio_buffer.append", audio=base64.b64encode(pcm[at : at + 4800]).decode())


async def answered(wire: Wire) -> tuple[str, list[dict[str, Any]]]:
    """All until the answer is complete and the input is transcribed -> the answer, the events of transcription."""
    events = await wire.until("response.done")
    last = "conversation.item.input_audio_transcription."
    while not any(event["type"] in (f"{last}completed", f"{last}failed") for event in events):
        events.append(await wire.next())
    answer = "".join(event["delta"] for event in events if event["type"] == "response.text.delta")
    return answer, [event for event in events if event["type"].startswith(last)]


@pytest.mark.parametrize(
    ("engine", "transcription", "heard"),
    [
        ("faster_whisper", {}, words("do", "mi", "so")),
        ("faster_whisper", {"language": "de"}, words("do", "mi", "so", language="de")),
        (
            "faster_whisper",
            {"language": "fr", "prompt": f"They sang {CUE}."},
            words("do", "mi", "so", language="fr").upper(),
        ),
        ("sherpa_streaming", {}, "do mi so"),
        ("sherpa_offline", {"language": "en"}, "do mi so"),
    ],
)
async def test_a_spoken_conversation(models: Path, engine: str, transcription: dict[str, str], heard: str) -> None:
    """What the session says of language and prompt reaches the model, and the model's words reach everybody."""
    async with talking(models, engine, **transcription) as (wire, _):
        for _ in range(2):
            await say(wire, "do", "mi", "so")
            answer, told = await answered(wire)
            assert "".join(event["delta"] for event in told[:-1]) == heard == told[-1]["transcript"]
            assert heard in answer


@pytest.mark.parametrize("engine", SAYS)
async def test_a_worker_that_is_killed_in_mid_utterance(models: Path, engine: str) -> None:
    """The transcription fails by name; the answer, which needs words too, has the next worker hear the audio."""
    says = SAYS[engine]
    async with talking(models, engine, language="en") as (wire, registry):
        killed = registry.worker
        await send(wire, sound("do", "mi", rate=RATE))
        await wire.until("input_audio_buffer.speech_started")
        os.kill(killed, 9)
        await eventually(lambda: killed not in registry.transcriber._pool.pids)
        await send(wire, quiet(1))
        answer, told = await answered(wire)
        assert told[-1]["error"]["code"] == "engine_crashed"
        assert says("do", "mi") in answer
        await say(wire, "so", "la")
        answer, told = await answered(wire)
        assert told[-1]["transcript"] == says("so", "la")
        assert says("so", "la") in answer
        assert registry.worker != killed
