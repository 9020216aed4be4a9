"""The hot path, stage by stage: CPU microseconds of one step, in this process, without sockets.

Times are CPU time of the thread, the least of several repeats: what is above it is other people's work.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import numpy as np

from bench.report import Figures
from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.resample import FrameResampler
from vivavoce.core import contract as c
from vivavoce.core.identity import Identity
from vivavoce.core.session import Session
from vivavoce.engines.builtin.silero_vad import FRAME, STATE_SIZE, SileroVad
from vivavoce.wire import client_events as ce
from vivavoce.wire import items
from vivavoce.wire import server_events as se
from vivavoce.wire.codec import Codec, preview_codec
from vivavoce.wire.session_config import SessionConfig

_REPEATS: Final = 7
_LEAST_S: Final = 0.02
_EVENT_ID: Final = "event_0123456789abcdefghijk"
_ITEM_ID: Final = "item_0123456789abcdefghijk"
_RESPONSE_ID: Final = "resp_0123456789abcdefghijk"


def cost(step: Callable[[], object]) -> float:
    """Microseconds of CPU that one call takes."""
    step()
    times, count = [], 1
    while True:
        began = time.thread_time()
        for _ in range(count):
            step()
        took = time.thread_time() - began
        if took < _LEAST_S:
            count *= 2
            continue
        times.append(took / count * 1e6)
        if len(times) == _REPEATS:
            return round(min(times), 2)


def _codec() -> Codec:
    return preview_codec("azure-2024-12-17")


def _append(ms: int) -> bytes:
    sound = np.random.default_rng(1).integers(-3000, 3000, 24 * ms, np.int16).tobytes()
    event = {"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()}
    return json.dumps(event).encode()


def new_session() -> Session:
    identity = Identity(model="gpt-4o-realtime-preview-2024-12-17", created_at=0, lifetime_s=1800, seed=bytes(32))
    session = Session(identity, SessionConfig(), 0.0)
    session.open()
    return session


def codec() -> Figures:
    """Frames to events and back."""
    codec = _codec()
    figures = {}
    for ms in (20, 100):
        frame = _append(ms)
        figures[f"decode an append of {ms} ms us"] = cost(partial(codec.decode, frame))
    audio = bytes(4800)
    delta = se.AudioDelta(_RESPONSE_ID, _ITEM_ID, 0, 0, audio)
    figures["encode an audio delta of 100 ms us"] = cost(partial(codec.encode, delta, _EVENT_ID))
    words = se.TranscriptDelta(_RESPONSE_ID, _ITEM_ID, 0, 0, "a few words")
    figures["encode a transcript delta us"] = cost(partial(codec.encode, words, _EVENT_ID))
    figures["new event id us"] = cost(new_session().new_event_id)
    return figures


def core() -> Figures:
    """What the session does for each chunk and frame."""
    figures = {}
    for ms in (20, 100):
        session = new_session()
        hear = partial(session.receive, ce.InputAudioAppend(audio=bytes(48 * ms)), 0.0)
        figures[f"core: an append of {ms} ms us"] = cost(_bounded(hear, session))
    session = new_session()
    append = ce.InputAudioAppend(audio=bytes(48 * 32))
    ends = iter(range(768, 1 << 60, 768))

    def hear_and_judge() -> None:
        session.receive(append, 0.0)
        session.receive(c.VadFrame(next(ends), 0.0), 0.0)

    figures["core: an append of 32 ms and its VAD frame us"] = cost(hear_and_judge)
    return figures


def _bounded(step: Callable[[], object], session: Session) -> Callable[[], None]:
    """Appends without frames would fill the buffer: it is emptied now and then."""
    calls = iter(range(1 << 60))

    def bounded() -> None:
        step()
        if next(calls) % 1000 == 999:
            session.receive(ce.InputAudioClear(), 0.0)

    return bounded


def vad() -> Figures:
    """The network and the resampler before it, per frame of one stream."""
    engine = SileroVad()
    # It awaits nothing: the weights are loaded at once.
    with suppress(StopIteration):
        engine.start().send(None)
    figures = {}
    for batch in (1, 8, 32, 128):
        frames = np.zeros((batch, FRAME), np.float32)
        states = np.zeros((batch, STATE_SIZE), np.float32)
        took = cost(partial(engine.infer, frames, states))
        figures[f"VAD, one frame, batch {batch} us"] = round(took / batch, 2)
    for fmt in (AudioFormat.PCM16, AudioFormat.G711_ULAW):
        resampler = FrameResampler(fmt.rate, 16000)
        samples = np.zeros((32, resampler.frame_samples), np.int16)
        history = np.zeros((32, resampler.history), np.float32)
        out = np.empty((32, FRAME), np.float32)
        took = cost(partial(resampler.process, samples, history, out=out))
        figures[f"resample a frame from {fmt.rate} Hz, batch 32 us"] = round(took / 32, 2)
    return figures


def conversation(count: int = 1000) -> Figures:
    """What an event costs in a conversation of 10 and of ``count`` items."""
    figures = {}
    for size in (10, count):
        session = new_session()
        for at in range(size):
            session.receive(_item(f"item_{at}"), 0.0)

        def create_and_delete(session: Session = session) -> None:
            session.receive(_item("item_x"), 0.0)
            session.receive(ce.ItemDelete(item_id="item_x"), 0.0)

        def respond(session: Session = session) -> None:
            session.receive(ce.ResponseCreate(), 0.0)
            session.receive(ce.ResponseCancel(), 0.0)

        append = ce.InputAudioAppend(audio=bytes(960))
        hear = _bounded(partial(session.receive, append, 0.0), session)
        figures[f"create and delete an item, {size} items us"] = cost(create_and_delete)
        figures[f"begin and cancel a response, {size} items us"] = cost(respond)
        figures[f"an append of 20 ms, {size} items us"] = cost(hear)
    return figures


def _item(item_id: str) -> ce.ItemCreate:
    part = items.InputTextPart("What will the weather be like tomorrow afternoon?")
    return ce.ItemCreate(item=items.MessageItem(item_id, "user", (part,)))
