"""Conversations on a server that speaks with Piper, Kokoro and sherpa-onnx, on voices that speak tones."""

from __future__ import annotations

import base64
import os
import signal
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from server_fakes import CONFIG, Wire, serving, session
from tiny_voices import pitch, write_kokoro, write_piper, write_sherpa_vits

from vivavoce.config import Config, ConfigError, DeploymentSettings, EngineSettings
from vivavoce.engines.builtin.speech_pool import PooledSynthesizer

NAMES: Final = ("piper", "kokoro", "sherpa_onnx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("voices")
    write_piper(made, "many", speakers=3)
    write_kokoro(made, {"af_low": 200, "bm_high": 400})
    write_sherpa_vits(made, speakers=3)
    (made / "model.onnx").rename(made / "sherpa.onnx")
    write_kokoro(made, {"af_low": 200, "bm_high": 400})
    return made


def config(name: str, folder: Path, **changes: Any) -> Config:
    """The built-in engines, and these voices: ``alloy`` is 200 Hz high and ``ash`` 400 Hz."""
    options: dict[str, dict[str, Any]] = {
        "piper": {"folder": ".", "default_voice": "many#0", "voices": {"ash": "many#2"}},
        "kokoro": {
            "model": "model.onnx",
            "voices_file": "voices.bin",
            "default_voice": "af_low",
            "voices": {"ash": "bm_high"},
        },
        "sherpa_onnx": {
            "family": "vits",
            "folder": ".",
            "model": "sherpa.onnx",
            "lexicon": ["lexicon.txt"],
            "default_voice": 0,
            "voices": {"ash": 2},
        },
    }
    engine = EngineSettings(kind="synthesizer", type=name, options={**options[name], **changes})
    deployment = DeploymentSettings(name=CONFIG.deployments[0].name, synthesizer="spoken")
    given = Config(server=CONFIG.server, resource=CONFIG.resource, deployments=(deployment,), base=folder)
    return msgspec.structs.replace(given, engines={"spoken": engine})


async def answer(wire: Wire, text: str, **options: Any) -> tuple[dict[str, Any], bytes]:
    """The response to a user who says this, and its sound."""
    content = [{"type": "input_text", "text": text}]
    await wire.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await wire.send("response.create", response=options)
    events = await wire.until("response.done")
    sound = (base64.b64decode(event["delta"]) for event in events if event["type"] == "response.audio.delta")
    return events[-1]["response"], b"".join(sound)


@pytest.mark.parametrize("name", NAMES)
async def test_a_spoken_conversation(name: str, folder: Path) -> None:
    async with serving(config(name, folder)) as server:
        lengths = []
        for voice, hertz in (("alloy", 200), ("ash", 400)):
            async with session(server) as wire:
                await wire.update(voice=voice, turn_detection=None)
                for text in ("Hello there, how are you?", "One sentence. Two sentence."):
                    response, sound = await answer(wire, text)
                    (item,) = response["output"]
                    assert response["status"] == "completed"
                    assert item["content"][0]["transcript"] == f"You said: {text}"
                    # The server sends 24000 Hz, whatever the voice speaks at.
                    assert pitch(sound, 24000) == pytest.approx(hertz, abs=3)
                    lengths.append(len(sound))
        assert lengths[:2] == pytest.approx(lengths[2:], rel=0.02)


async def test_a_worker_that_is_killed_in_the_middle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PooledSynthesizer] = []
    start = PooledSynthesizer.start

    async def noticed(self: PooledSynthesizer) -> None:
        await start(self)
        made.append(self)

    monkeypatch.setattr(PooledSynthesizer, "start", noticed)
    # So slow and so long that a clause is more than may be on its way: the worker is in the middle of it.
    async with serving(config("piper", folder, length_scale=10.0)) as server, session(server) as wire:
        await wire.update(turn_detection=None)
        content = [{"type": "input_text", "text": "one sentence from the tools and " * 60}]
        await wire.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
        await wire.send("response.create")
        await wire.until("response.audio.delta")
        (pid,) = made[0]._pool.pids
        os.kill(pid, signal.SIGKILL)
        response = (await wire.until("response.done"))[-1]["response"]
        assert response["status"] == "failed"
        assert response["status_details"]["error"]["code"] == "engine_crashed"
        assert response["output"][0]["status"] == "incomplete"
        response, sound = await answer(wire, "Hello.")
        assert response["status"] == "completed"
        assert pitch(sound, 24000) == pytest.approx(200, abs=3)
        assert made[0].restarts == 1


async def test_a_voice_that_is_missing_is_told_at_the_start(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        async with serving(config("piper", folder, default_voice="absent")):
            pass
    assert caught.value.path == "engine.spoken.default_voice"
    with pytest.raises(ConfigError, match="alloy"):
        async with serving(config("piper", folder, default_voice=None)):
            pass
