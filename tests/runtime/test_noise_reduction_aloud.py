"""Noise reduction on the way from the socket to whoever listens, with real sound."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vivavoce.demo
from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.g711 import from_samples, to_samples
from vivavoce.audio.noise_reduction import Field, NoiseReducer
from vivavoce.audio.resample import resample
from vivavoce.core.contract import ReserveQuota
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.demo.sound import read_wav
from vivavoce.engines.base import Transcriber, TranscriptDelta, TranscriptionOptions, Vad
from vivavoce.engines.builtin import pocketsphinx, silero_vad
from vivavoce.runtime.driver import Driver
from vivavoce.runtime.engines import Denial, Engines, Native, Reservation
from vivavoce.runtime.vad_pool import VadPool
from vivavoce.testing.fakes import PuppetEndOfTurn, PuppetSpeechModel, PuppetTranscriber, PuppetVad
from vivavoce.wire.codec import preview_codec
from vivavoce.wire.server_events import RateLimit, Usage
from vivavoce.wire.session_config import SessionConfig

PCM16 = AudioFormat.PCM16
QUESTION = read_wav(Path(vivavoce.demo.__file__).parent / "data" / "question.wav")
WORDS = "hello can you tell me what you heard me say"
FIELDS: tuple[Field, ...] = ("near_field", "far_field")


class Free:
    def settle(self, used: Usage) -> None: ...

    def reserve(self, asked: ReserveQuota) -> Reservation | Denial:
        return self

    def rate_limits(self) -> tuple[RateLimit, ...]:
        return ()


class Talk:
    """A client of a driver, and the outbox of its session."""

    crowded = full = False
    driver: Driver

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.closed: list[int] = []

    def send(self, frame: bytes) -> None:
        self.told.append(json.loads(frame))

    def close(self, code: int, reason: str) -> None:
        self.closed.append(code)

    async def drained(self) -> None: ...

    def say(self, kind: str, **fields: Any) -> None:
        self.driver.receive_text(json.dumps({"type": kind, **fields}))

    def update(self, **fields: Any) -> None:
        self.say("session.update", session=fields)

    def append(self, data: bytes, **fields: Any) -> None:
        self.say("input_audio_buffer.append", audio=base64.b64encode(data).decode(), **fields)

    def last(self) -> dict[str, Any]:
        return self.told[-1]

    def committed(self) -> bytes:
        """Commit, and ask for what was."""
        self.say("input_audio_buffer.commit")
        assert self.last()["type"] == "conversation.item.created", self.last()
        self.say("conversation.item.retrieve", item_id=self.last()["item"]["id"])
        return base64.b64decode(self.last()["item"]["content"][0]["audio"])


@asynccontextmanager
async def talk(vad: Vad | None = None) -> AsyncIterator[Talk]:
    client = Talk()
    identity = Identity("m", 0, 1800, b"", reduces_noise=True)
    async with VadPool(vad or PuppetVad(), interval=0) as pool:
        client.driver = Driver(
            Session(identity, SessionConfig(), asyncio.get_running_loop().time()),
            codec=preview_codec("azure-2025-04"),
            outbox=client,
            engines=Engines(pool, PuppetTranscriber(), PuppetEndOfTurn(), Native(PuppetSpeechModel())),
            meter=Free(),
        )
        async with client.driver.running():
            client.update(turn_detection=None)
            yield client


def noisy(level: float, speech: np.ndarray[Any, np.dtype[np.int16]] = QUESTION) -> bytes:
    """The question in the hiss of a fan, with two seconds of it before and after."""
    speech = np.pad(speech, 2 * PCM16.rate)
    white = np.random.default_rng(7).normal(0, 4 * level, len(speech))
    hiss = np.convolve(white, np.exp(-np.arange(60) / 10) / 10, "same")
    return np.clip(speech + hiss, -32768, 32767).astype("<i2").tobytes()


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("fmt", list(AudioFormat))
async def test_what_is_committed_is_all_that_was_sent_without_its_noise(fmt: AudioFormat, field: Field) -> None:
    samples = resample(to_samples(noisy(400), PCM16), PCM16.rate, fmt.rate)
    sound = pieces(from_samples(samples, fmt), 33 * fmt.bytes_per_ms)
    reducer = NoiseReducer(field, fmt)
    expected = b"".join(map(reducer.process, sound)) + reducer.flush()
    async with talk() as client:
        client.update(input_audio_format=fmt.value, input_audio_noise_reduction={"type": field})
        for piece in sound:
            client.append(piece)
        assert client.committed() == expected
        assert len(expected) == len(b"".join(sound))
        # The next item begins where this one ended, and nothing of it comes again.
        client.append(sound[0] * 5)
        assert client.committed() == reducer.process(sound[0] * 5) + reducer.flush()


async def test_long_sound_lets_others_have_their_turn() -> None:
    sound = noisy(400)
    reducer = NoiseReducer("near_field", PCM16)
    expected = b"".join(map(reducer.process, pieces(sound, 200 * PCM16.bytes_per_ms))) + reducer.flush()
    async with talk() as client:
        client.update(input_audio_noise_reduction={"type": "near_field"})
        client.append(sound)
        turns = 0
        while client.driver.busy:  # What comes next waits.
            await asyncio.sleep(0)
            turns += 1
        assert turns > len(sound) / PCM16.bytes_per_ms / 200
        assert client.committed() == expected


async def test_what_is_held_back_is_cleared_too() -> None:
    async with talk() as client:
        client.update(input_audio_noise_reduction={"type": "near_field"})
        client.append(noisy(400)[: 155 * PCM16.bytes_per_ms])
        client.say("input_audio_buffer.clear")
        client.say("input_audio_buffer.commit")
        assert "0.00ms" in client.last()["error"]["message"]


async def test_a_change_in_mid_stream_loses_nothing_and_takes_no_time() -> None:
    sound = noisy(400)[: 155 * PCM16.bytes_per_ms]
    async with talk() as client:
        client.update(input_audio_noise_reduction={"type": "near_field"})
        client.append(sound)
        client.update(input_audio_noise_reduction={"type": "far_field"})
        client.append(sound)
        client.update(input_audio_noise_reduction=None)
        client.append(sound)
        kept = client.committed()
        assert len(kept) == 3 * len(sound)
        assert kept[-len(sound) :] == sound
        for field, part in zip(FIELDS, pieces(kept, len(sound)), strict=False):
            reducer = NoiseReducer(field, PCM16)
            assert part == reducer.process(sound) + reducer.flush()


async def test_what_is_refused_changes_nothing() -> None:
    sound = noisy(400)[: 155 * PCM16.bytes_per_ms]
    async with talk() as client:
        client.update(input_audio_noise_reduction={"type": "far_field"})
        client.append(sound)
        for wrong in (b"", b"abc"):
            client.append(wrong, event_id="wrong")
            assert (client.last()["type"], client.last()["error"]["event_id"]) == ("error", "wrong")
        client.say("input_audio_buffer.append", audio="?", event_id="wrong")
        assert client.last()["error"]["event_id"] == "wrong"
        client.append(sound)
        reducer = NoiseReducer("far_field", PCM16)
        assert client.committed() == reducer.process(sound) + reducer.process(sound) + reducer.flush()


async def test_a_broken_filter_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise RuntimeError("what people said")

    monkeypatch.setattr(NoiseReducer, "process", broken)
    for length_ms in (20, 2000):
        async with talk() as client:
            client.update(input_audio_noise_reduction={"type": "near_field"})
            client.append(bytes(length_ms * PCM16.bytes_per_ms))
            await client.driver.ready()
            assert client.last()["error"]["type"] == "server_error"
            assert "what people said" not in str(client.told)
            assert client.closed == [1011]


async def test_turns_begin_and_end_where_they_did() -> None:
    """The delay of the filter does not move them on the audio clock; a frame may be judged otherwise."""
    vad = silero_vad.create({})
    await vad.start()
    found = []
    for field in (None, *FIELDS):
        async with talk(vad) as client:
            client.update(
                turn_detection={"type": "server_vad", "silence_duration_ms": 700, "create_response": False},
                input_audio_noise_reduction=field and {"type": field},
            )
            for piece in pieces(noisy(100), 20 * PCM16.bytes_per_ms):
                client.append(piece)
                while client.driver._hearing.vad.backlog_ticks >= 32 * 24:  # noqa: ASYNC110 - the VAD tells nobody
                    await asyncio.sleep(0)
            [begin] = [event["audio_start_ms"] for event in client.told if "audio_start_ms" in event]
            [end] = [event["audio_end_ms"] for event in client.told if "audio_end_ms" in event]
            found.append((begin, end))
    await vad.close()
    plain, *filtered = np.array(found)
    assert np.abs(filtered - plain).max() <= 32, found


@pytest.mark.parametrize("field", FIELDS)
async def test_a_recogniser_hears_no_words_in_the_noise(field: Field) -> None:
    recogniser = pocketsphinx.create({"workers": 1, "decoders_per_worker": 1})
    await recogniser.start()
    try:
        sound = noisy(200)
        reducer = NoiseReducer(field, PCM16)
        assert await heard(recogniser, sound) != WORDS
        assert await heard(recogniser, reducer.process(sound) + reducer.flush()) == WORDS
    finally:
        await recogniser.close()


async def heard(recogniser: Transcriber, sound: bytes) -> str:
    pcm = resample(to_samples(sound, PCM16), PCM16.rate, recogniser.capabilities.sample_rate)

    async def audio() -> AsyncIterator[bytes]:
        yield pcm.astype("<i2").tobytes()

    deltas = [delta async for delta in recogniser.transcribe(audio(), TranscriptionOptions())]
    return "".join(delta.text for delta in deltas if isinstance(delta, TranscriptDelta))
