"""The load generator: N callers, each streaming speech and silence in real time: ``python -m bench.load``.

A caller sends one ``input_audio_buffer.append`` every ``chunk_ms``, looping over a turn (speech, then silence),
from a random phase. All times are measured where a client would measure them:

lateness_ms       ``speech_stopped`` received, less the moment at which the chunk that holds its own
                  ``audio_end_ms`` was sent: how late the server is beside the sound itself.
first_audio_ms    first audio delta of the answer received, less that same moment.
after_speech_ms   first audio delta of the answer received, less the moment at which the chunk was sent that holds
                  the last voiced sample of the turn: what the person waits, silence included.
barge_in_ms       last audio delta of an interrupted response received, less the moment at which the chunk was sent
                  that holds the frame which decided (``audio_start_ms`` + prefix padding + 32 ms).
stopped_at_ms     ``audio_end_ms`` as a place in the turn that was sent. That it is the same in all turns shows that
                  the server counts the whole stream.
send_late_ms      how late this generator itself was. When its p99 comes near what is measured, the generator is the
                  bottleneck and the run says nothing of the server.

``turns`` are those whose end was told, ``turns_sent`` those that were sent to their end. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import copy
import functools
import heapq
import json
import math
import os
import random
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

import numpy as np
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from vivavoce.demo.sound import Int16, read_wav

RATE: Final = 24000
FRAME_MS: Final = 32
LEAD_MS: Final = 200
VOICED: Final = 330
"""A sample above this, a hundredth of full scale, is voice."""
MAX_FRAME: Final = 1 << 24
_KEPT: Final = 4096
"""Moments of sending that a caller remembers; a turn is far shorter."""


@dataclass(frozen=True)
class Dialect:
    """How the events that the generator looks at are told apart by a piece of their bytes."""

    delta: bytes
    error: bytes
    type_first: bool
    """True: the type is in the first bytes of an event, where vivavoce writes it. False: there or in the last."""
    path: tuple[str, ...]
    """Where turn detection stands in a session."""
    session: Mapping[str, Any]
    """What else the session needs."""

    def update(self, detection: Mapping[str, Any]) -> bytes:
        """The ``session.update`` that asks for this turn detection."""
        session = copy.deepcopy(dict(self.session))
        part = session
        for name in self.path:
            part = part.setdefault(name, {})
        part["turn_detection"] = detection
        return json.dumps({"type": "session.update", "session": session}).encode()


_PCM: Final = {"type": "audio/pcm", "rate": RATE}
DIALECTS: Final = {
    "preview": Dialect(b'"response.audio.delta"', b'"error"', True, (), {}),
    "ga": Dialect(
        b'"response.output_audio.delta"',
        b'"type":"error"',
        False,
        ("audio", "input"),
        {"type": "realtime", "audio": {"input": {"format": _PCM}, "output": {"format": _PCM}}},
    ),
}


@dataclass(frozen=True)
class Plan:
    url: str
    dialect: str
    key: str
    callers: int
    chunk_ms: int
    seconds: float
    warmup_s: float
    silence_ms: int
    look_ahead_ms: int
    """How much sound after ``audio_end_ms`` the server cannot do without, to resample what is before."""
    gap_ms: int
    seed: int
    connect_rate: float
    mute: bool
    """Send silence for the speech."""
    talk: bool
    """False: connect, and send nothing."""

    @functools.cached_property
    def turn_ms(self) -> int:
        """How long a turn is: a little silence, the shipped question, and a longer silence, in whole chunks."""
        length = LEAD_MS + len(question()) * 1000 / RATE + self.gap_ms
        return math.ceil(length / self.chunk_ms) * self.chunk_ms

    @functools.cached_property
    def speech_end_ms(self) -> float:
        """Where in a turn its last voiced sample is."""
        return LEAD_MS + float(np.flatnonzero(np.abs(question()) > VOICED)[-1]) * 1000 / RATE

    def turns_in(self, sent: int) -> int:
        """How many turns have been heard to their end in so many chunks."""
        return int((sent * self.chunk_ms + self.gap_ms - self.silence_ms) // self.turn_ms)


@dataclass
class Results:
    lateness_ms: list[float] = field(default_factory=list)
    first_audio_ms: list[float] = field(default_factory=list)
    after_speech_ms: list[float] = field(default_factory=list)
    barge_in_ms: list[float] = field(default_factory=list)
    stopped_at_ms: list[float] = field(default_factory=list)
    send_late_ms: list[float] = field(default_factory=list)
    failed: int = 0
    hung_up: int = 0
    errors: list[str] = field(default_factory=list)
    sent: int = 0
    received: int = 0
    turns: int = 0
    turns_sent: int = 0
    begin: float = float("inf")
    end: float = float("inf")

    def counting(self, now: float) -> bool:
        return self.begin <= now < self.end


class Caller(WSListener):
    """One client. Frames are looked at as bytes: decoding every delta would slow the generator down."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._plan = plan
        self._dialect = DIALECTS[plan.dialect]
        self._results = results
        self.transport: WSTransport | None = None
        self.open = asyncio.get_running_loop().create_future()
        self.gone = False
        self.sent = 0
        self._moments: deque[float] = deque(maxlen=_KEPT)
        self._answer_due: float | None = None
        self._spoken: float | None = None
        self._decided: float | None = None
        self._last_delta = 0.0

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.gone = True
        if not self.open.done():
            self.open.set_exception(ConnectionError("closed before session.created"))
        if time.perf_counter() < self._results.end:
            self._results.hung_up += 1

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = time.perf_counter()
        if frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
            return
        if frame.msg_type != WSMsgType.TEXT:
            return
        self._results.received += 1
        payload = frame.get_payload_as_bytes()
        edge = payload[:200] if self._dialect.type_first else payload[:200] + payload[-200:]
        if self._dialect.delta in edge:
            self._delta(now)
        elif b'"input_audio_buffer.speech_st' in edge:
            self._speech(json.loads(payload), now)
        elif b'"response.done"' in edge:
            self._done(json.loads(payload)["response"])
        elif b'"session.created"' in edge:
            if not self.open.done():
                self.open.set_result(None)
        elif self._dialect.error in edge:
            self._results.errors.append(payload[:300].decode())

    def say(self, message: bytes, due: float) -> None:
        assert self.transport is not None
        self.transport.send(WSMsgType.TEXT, message)
        now = time.perf_counter()
        self._moments.append(now)
        self.sent += 1
        self._results.sent += 1
        if self._results.counting(now):
            self._results.send_late_ms.append((now - due) * 1000)

    def _moment(self, ms: float) -> float | None:
        """When the chunk that holds this place of the stream was sent; None when it is not remembered."""
        at = int(ms // self._plan.chunk_ms) - (self.sent - len(self._moments))
        return self._moments[at] if 0 <= at < len(self._moments) else None

    def _speech(self, event: dict[str, Any], now: float) -> None:
        if event["type"].endswith("stopped"):
            # The sample at audio_end_ms is the first after the turn: the chunk before it is the last needed.
            moment = self._moment(event["audio_end_ms"] - 1 + self._plan.look_ahead_ms)
            self._answer_due = moment
            before = event["audio_end_ms"] // self._plan.turn_ms * self._plan.turn_ms
            self._spoken = self._moment(before + self._plan.speech_end_ms)
            self._results.turns += 1
            if moment is not None and self._results.counting(now):
                self._results.lateness_ms.append((now - moment) * 1000)
                self._results.stopped_at_ms.append(event["audio_end_ms"] % self._plan.turn_ms)
        else:
            self._answer_due = None
            self._decided = self._moment(event["audio_start_ms"] + 300 + FRAME_MS - 1)

    def _delta(self, now: float) -> None:
        self._last_delta = now
        if self._answer_due is not None:
            if self._results.counting(now):
                self._results.first_audio_ms.append((now - self._answer_due) * 1000)
                if self._spoken is not None:
                    self._results.after_speech_ms.append((now - self._spoken) * 1000)
            self._answer_due = None

    def _done(self, response: dict[str, Any]) -> None:
        if response["status"] == "cancelled" and self._decided is not None and self._last_delta:
            if self._results.counting(time.perf_counter()):
                self._results.barge_in_ms.append((self._last_delta - self._decided) * 1000)
            self._decided = None


def turn(plan: Plan) -> list[bytes]:
    """The append events of one turn: a little silence, the shipped question, and a longer silence."""
    speech = question()
    if plan.mute:
        speech = np.zeros_like(speech)
    quiet = np.zeros(RATE * LEAD_MS // 1000, np.int16)
    gap = np.zeros(RATE * plan.gap_ms // 1000, np.int16)
    size = RATE * plan.chunk_ms // 1000
    sound = np.concatenate([quiet, speech, gap])
    sound = np.concatenate([sound, np.zeros(-len(sound) % size, np.int16)])
    noise = np.random.default_rng(plan.seed).normal(0, 4, len(sound))
    sound = np.clip(sound + noise, -32768, 32767).astype("<i2")
    return [
        b'{"type":"input_audio_buffer.append","audio":"%s"}' % base64.b64encode(sound[at : at + size].tobytes())
        for at in range(0, len(sound), size)
    ]


def question() -> Int16:
    """The question that the demo ships, at 24 kHz."""
    with resources.as_file(resources.files("vivavoce.demo") / "data" / "question.wav") as path:
        return read_wav(path)


async def connect(plan: Plan, results: Results) -> Caller:
    _, caller = await ws_connect(
        lambda: Caller(plan, results),
        plan.url,
        extra_headers=[("api-key", plan.key)],
        max_frame_size=MAX_FRAME,
    )
    assert isinstance(caller, Caller)
    assert caller.transport is not None
    await asyncio.wait_for(caller.open, 20)
    detection = {"type": "server_vad", "silence_duration_ms": plan.silence_ms}
    caller.transport.send(WSMsgType.TEXT, DIALECTS[plan.dialect].update(detection))
    return caller


async def run(plan: Plan) -> Results:
    results = Results()
    callers = await _connect_all(plan, results)
    if not callers:
        sys.exit(f"nobody could connect: {results.errors[:1]}")
    if not plan.talk:
        print("ready", file=sys.stderr, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        results.end = 0
        for caller in callers:
            assert caller.transport is not None
            caller.transport.disconnect()
        return results
    messages = turn(plan)
    chance = random.Random(plan.seed)
    now = time.perf_counter()
    length = len(messages) * plan.chunk_ms / 1000
    heap = [(now + chance.random() * length, at) for at in range(len(callers))]
    heapq.heapify(heap)
    results.begin = now + plan.warmup_s
    end = results.begin + plan.seconds
    begun = False
    while heap and (now := time.perf_counter()) < end:
        if not begun and now >= results.begin:
            begun = True
            print("begin", file=sys.stderr, flush=True)
        for _ in range(32):
            due, at = heap[0]
            if due > now:
                break
            caller = callers[at]
            if caller.gone:
                heapq.heappop(heap)
            else:
                caller.say(messages[caller.sent % len(messages)], due)
                heapq.heapreplace(heap, (due + plan.chunk_ms / 1000, at))
            if not heap:
                break
        await asyncio.sleep(max(0.0, heap[0][0] - time.perf_counter()) if heap else 0)
    results.end = time.perf_counter()
    results.turns_sent = sum(plan.turns_in(caller.sent) for caller in callers)
    print("end", file=sys.stderr, flush=True)
    # Whoever measures the server reads its counters now, while the callers are still connected.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    for caller in callers:
        if caller.transport is not None:
            caller.transport.disconnect()
    return results


async def _connect_all(plan: Plan, results: Results) -> list[Caller]:
    connecting = []
    for _ in range(plan.callers):
        connecting.append(asyncio.ensure_future(connect(plan, results)))
        await asyncio.sleep(1 / plan.connect_rate)
    callers = []
    for outcome in await asyncio.gather(*connecting, return_exceptions=True):
        if isinstance(outcome, Caller):
            callers.append(outcome)
        else:
            results.failed += 1
            results.errors.append(f"{type(outcome).__name__}: {outcome}")
    return callers


def percentiles(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "n": len(values),
        "p50": round(float(p50), 1),
        "p95": round(float(p95), 1),
        "p99": round(float(p99), 1),
        "max": round(max(values), 1),
    }


def report(results: Results) -> dict[str, Any]:
    names = ("lateness_ms", "first_audio_ms", "after_speech_ms", "barge_in_ms", "stopped_at_ms", "send_late_ms")
    return {
        **{name: percentiles(getattr(results, name)) for name in names},
        "turns": results.turns,
        "turns_sent": results.turns_sent,
        "sent": results.sent,
        "received": results.received,
        "failed": results.failed,
        "hung_up": results.hung_up,
        "errors": results.errors[:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default="bench")
    parser.add_argument("--dialect", default="preview", choices=DIALECTS)
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--chunk-ms", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warmup-s", type=float, default=8)
    parser.add_argument("--silence-ms", type=int, default=500)
    parser.add_argument("--look-ahead-ms", type=int, default=0)
    parser.add_argument("--gap-ms", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--connect-rate", type=float, default=200)
    parser.add_argument("--mute", action="store_true", help="send silence for the speech")
    parser.add_argument("--silent", action="store_true", help="connect and send nothing until a line is read")
    parser.add_argument("--core", type=int)
    chosen = vars(parser.parse_args())
    core = chosen.pop("core")
    if core is not None:
        os.sched_setaffinity(0, {core})
    plan = Plan(talk=not chosen.pop("silent"), **chosen)
    print(json.dumps(report(uvloop.run(run(plan)))))


if __name__ == "__main__":
    main()
