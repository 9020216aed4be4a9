"""semantic_vad with the engines that ship: the synthesiser speaks; VAD, recogniser and judge listen."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import numpy as np
import pytest
import pytest_asyncio

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.resample import resample
from vivavoce.core.contract import ReserveQuota
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.engines.base import SynthesisRequest, Synthesizer
from vivavoce.engines.builtin import espeak, pocketsphinx, silero_vad, turn_hints
from vivavoce.runtime import listener
from vivavoce.runtime.driver import Driver
from vivavoce.runtime.engines import Denial, Engines, Native, Reservation
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.testing.fakes import PuppetSpeechModel
from vivavoce.wire.codec import preview_codec
from vivavoce.wire.server_events import RateLimit, Usage
from vivavoce.wire.session_config import SemanticVad, ServerVad, SessionConfig, TurnDetection

_RATE = AudioFormat.PCM16.rate
_MS = _RATE // 1000 * 2
_STEP_MS = 32
PAUSE_MS = 1200
AFTER_MS = 4500


class Rig:
    """The built-in engines, started once for all tests here."""

    def __init__(self) -> None:
        self.synthesizer: Synthesizer = espeak.create({"workers": 1})
        self.transcriber = pocketsphinx.create({"workers": 1, "decoders_per_worker": 2})
        self.end_of_turn = turn_hints.create({})
        self.vad = silero_vad.create({})

    async def say(self, text: str) -> bytes:
        """pcm16 of the session's rate, without the silence around it."""
        chunks = [chunk.pcm async for chunk in self.synthesizer.synthesize(SynthesisRequest(text, "alloy"))]
        samples = np.frombuffer(b"".join(chunks), "<i2")
        loud = np.flatnonzero(np.abs(samples) > 300)
        heard = resample(samples[loud[0] : loud[-1] + 1], self.synthesizer.capabilities.sample_rate, _RATE)
        return heard.astype("<i2").tobytes()


class Ear:
    """An outbox that keeps what a client is told of turns, with the time on the audio clock."""

    crowded = full = False

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def send(self, frame: bytes) -> None:
        event = json.loads(frame)
        if event["type"].startswith("input_audio_buffer.speech"):
            self.told.append(
                (event["type"].rpartition("_")[2], event.get("audio_start_ms", event.get("audio_end_ms")))
            )

    def close(self, code: int, reason: str) -> None: ...
    async def drained(self) -> None: ...


class Free:
    def settle(self, used: Usage) -> None: ...

    def reserve(self, asked: ReserveQuota) -> Reservation | Denial:
        return self

    def rate_limits(self) -> tuple[RateLimit, ...]:
        return ()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    async with AsyncExitStack() as stack:
        for engine in (made.synthesizer, made.transcriber, made.end_of_turn, made.vad):
            await engine.start()
            stack.push_async_callback(engine.close)
        yield made


async def turns(rig: Rig, vad: TurnDetection, *parts: bytes) -> list[tuple[str, int]]:
    """What a client is told while it sends this sound, which waits for the engines to keep up."""
    ear = Ear()
    async with VadPool(rig.vad, interval=0) as pool:
        driver = Driver(
            Session(
                Identity("m", 0, 1800, b""), SessionConfig(turn_detection=vad), asyncio.get_running_loop().time()
            ),
            codec=preview_codec("azure-2025-04"),
            outbox=ear,
            engines=Engines(pool, rig.transcriber, rig.end_of_turn, Native(PuppetSpeechModel())),
            meter=Free(),
        )
        async with driver.running():
            sound = b"".join(parts)
            for at in range(0, len(sound), _STEP_MS * _MS):
                piece = base64.b64encode(sound[at : at + _STEP_MS * _MS]).decode()
                driver.receive_text(json.dumps({"type": "input_audio_buffer.append", "audio": piece}))
                await settled(driver)
    return ear.told


async def settled(driver: Driver) -> None:
    """The VAD has nothing left, and no question waits for its answer."""
    while True:
        await asyncio.sleep(0)
        judging = any(task.get_name().startswith("judge ") for task in asyncio.all_tasks())
        if driver._hearing.vad.backlog_ticks < _STEP_MS * 24 and not judging:
            return
        await asyncio.sleep(0.001)


def silence(ms: int) -> bytes:
    return bytes(ms * _MS)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, the recogniser is heard before the end of a turn is judged."""
    monkeypatch.setattr(listener, "CATCH_UP_S", 30.0)


in_module_loop = pytest.mark.asyncio(loop_scope="module")


@in_module_loop
async def test_a_pause_in_the_middle_of_a_sentence_does_not_end_the_turn(rig: Rig) -> None:
    first, rest = await rig.say("I want to go to the station because"), await rig.say("yes, please.")
    sound = (silence(320), first, silence(PAUSE_MS), rest, silence(AFTER_MS))
    end_ms = 320 + (len(first) + len(rest)) // _MS + PAUSE_MS
    told = await turns(rig, SemanticVad(), *sound)
    assert [what for what, _ in told] == ["started", "stopped"]
    assert end_ms < told[-1][1] < end_ms + 1000
    # The same sound with a timer: the turn falls apart in the pause.
    told = await turns(rig, ServerVad(silence_duration_ms=500), *sound)
    assert [what for what, _ in told][:3] == ["started", "stopped", "started"]


@in_module_loop
async def test_the_wait_depends_on_what_was_said_and_on_the_eagerness(rig: Rig) -> None:
    """The same voice and the same silence: a complete answer is taken up at once, a sentence in mid-air is not."""

    async def wait(text: str, vad: TurnDetection) -> int:
        sound = await rig.say(text)
        told = await turns(rig, vad, silence(320), sound, silence(AFTER_MS))
        assert [what for what, _ in told] == ["started", "stopped"]
        return told[1][1] - 320 - len(sound) // _MS

    done = await wait("Yes, please.", SemanticVad())
    open_end = await wait("I want to go to the station because", SemanticVad())
    eager = await wait("I want to go to the station because", SemanticVad(eagerness="high"))
    assert done < 600
    assert 1000 < eager < 2200
    assert 2400 < open_end < 4200
