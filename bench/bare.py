"""The yardstick: a loop of the same parts and nothing else: ``python -m bench.bare``.

picows, msgspec, pybase64, our resampler and our VAD in one batch every 10 ms, a turn by two comparisons, and an
answer that was made beforehand. It keeps no conversation, checks nothing, has no other events, one profile and one
format, and does everything on the event loop. What the server takes beyond this is what the protocol costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
from typing import Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np
import pybase64
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.answer import ANSWER, CHUNK_MS, chunks
from vivavoce.audio.resample import FrameResampler
from vivavoce.engines.builtin.silero_vad import FRAME, STATE_SIZE, SileroVad

_FRAME_BYTES: Final = 32 * 48
_FRAME_MS: Final = 32
_SILENCE_MS: Final = 500
_PADDING_MS: Final = 300
_TICK_S: Final = 0.010
_ROWS: Final = 1024
_MAX_FRAME: Final = 22 * 1024 * 1024


class Append(msgspec.Struct, tag_field="type", tag="input_audio_buffer.append"):
    audio: str


class Other(msgspec.Struct, tag_field="type", tag="session.update"):
    pass


_decoder = msgspec.json.Decoder(Append | Other)


def _event(kind: str, **fields: object) -> bytes:
    return json.dumps({"type": kind, "event_id": "event_000000000000000000000", **fields}).encode()


def _answer() -> list[bytes]:
    ids = {"response_id": "resp_0", "item_id": "item_0", "output_index": 0, "content_index": 0}
    sound = [pybase64.b64encode(bytes(48 * ms)).decode() for ms in (40, *[CHUNK_MS] * chunks(ANSWER))]
    words = [_event("response.audio_transcript.delta", **ids, delta=f"{word} ") for word in ANSWER.split()]
    return [
        _event("input_audio_buffer.committed", item_id="item_0", previous_item_id=None),
        _event("response.created", response={"id": "resp_0", "status": "in_progress"}),
        *words,
        *(_event("response.audio.delta", **ids, delta=delta) for delta in sound),
        _event("response.done", response={"id": "resp_0", "status": "completed"}),
    ]


class Caller(WSListener):
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.transport: WSTransport | None = None
        self.waiting = bytearray()
        self.slot = -1
        self.frames = 0
        self.silent = -1
        """Frames of silence within a turn; -1: nobody speaks."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.loop.join(self)
        transport.send(WSMsgType.TEXT, _event("session.created", session={"id": "sess_0"}))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.loop.leave(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            event = _decoder.decode(frame.get_payload_as_memoryview())
            if isinstance(event, Append):
                self.waiting += pybase64.b64decode(event.audio, validate=True)
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def judged(self, probability: float) -> None:
        self.frames += 1
        end_ms = self.frames * _FRAME_MS
        if self.silent < 0:
            if probability >= 0.5:
                self.silent = 0
                start_ms = max(0, end_ms - _FRAME_MS - _PADDING_MS)
                self._send(_event("input_audio_buffer.speech_started", audio_start_ms=start_ms, item_id="item_0"))
        elif probability >= 0.5:
            self.silent = 0
        elif probability < 0.35 or self.silent:
            self.silent += 1
            if self.silent * _FRAME_MS >= _SILENCE_MS:
                self.silent = -1
                self._send(_event("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id="item_0"))
                for part in self.loop.answer:
                    self._send(part)

    def _send(self, frame: bytes) -> None:
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, frame)


class Loop:
    """All callers, judged together."""

    def __init__(self, vad: SileroVad) -> None:
        self.answer = _answer()
        self.open = 0
        self._vad = vad
        self._resampler = FrameResampler(24000, 16000)
        self._callers: dict[int, Caller] = {}
        self._free = list(range(_ROWS))
        self._states = np.zeros((_ROWS, STATE_SIZE), np.float32)
        self._histories = np.zeros((_ROWS, self._resampler.history), np.float32)
        self._frames = np.empty((_ROWS, FRAME), np.float32)

    def join(self, caller: Caller) -> None:
        caller.slot = self._free.pop()
        self._states[caller.slot] = 0
        self._histories[caller.slot] = 0
        self._callers[caller.slot] = caller
        self.open += 1

    def leave(self, caller: Caller) -> None:
        del self._callers[caller.slot]
        self._free.append(caller.slot)
        self.open -= 1

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            while ready := [caller for caller in self._callers.values() if len(caller.waiting) >= _FRAME_BYTES]:
                self._judge(ready)

    def _judge(self, ready: list[Caller]) -> None:
        room = b"".join([bytes(caller.waiting[:_FRAME_BYTES]) for caller in ready])
        for caller in ready:
            del caller.waiting[:_FRAME_BYTES]
        samples = np.frombuffer(room, "<i2").reshape(len(ready), -1)
        slots = np.array([caller.slot for caller in ready], np.intp)
        histories, states = self._histories[slots], self._states[slots]
        frames = self._frames[: len(ready)]
        self._resampler.process(samples, histories, out=frames)
        probabilities = self._vad.infer(frames, states)
        self._histories[slots], self._states[slots] = histories, states
        for caller, probability in zip(ready, probabilities.tolist(), strict=True):
            caller.judged(probability)


async def main() -> None:
    vad = SileroVad()
    await vad.start()
    loop = Loop(vad)

    def accept(request: WSUpgradeRequest) -> WSListener:
        return Caller(loop)

    server = await ws_create_server(accept, "127.0.0.1", 0, max_frame_size=_MAX_FRAME)
    judging = asyncio.create_task(loop.run())
    print(server.sockets[0].getsockname()[1], flush=True)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
    )
    while await lines.readline():
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({"cpu_s": used.ru_utime + used.ru_stime, "rss_kb": used.ru_maxrss, "sessions": loop.open}))
        sys.stdout.flush()
    judging.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", type=int)
    chosen = parser.parse_args()
    if chosen.core is not None:
        os.sched_setaffinity(0, {chosen.core})
    uvloop.run(main())
