"""The wire between an engine and its worker processes, and the worker's end of it.

Laws
----
1. A frame is ``length (u32) | job (u32) | kind (u8) | payload``, little-endian, on the worker's stdin and stdout.
   ``job`` is 0 for what belongs to no job. A payload is at most ``MAX_PAYLOAD`` bytes.
2. Every ``OPEN`` is answered by exactly one ``DONE`` or ``FAILED``, also after ``CANCEL``; nothing of the job
   follows. Frames for a job that the receiver no longer knows are dropped.
3. Data needs credit in both directions: a sender has at most ``window`` bytes of a job's ``DATA`` on their way
   (the last piece may overshoot) and gets room back by ``CREDIT``. So no buffer on either side can grow.
4. A worker reads whole frames and buffers nothing, so that a forked child can take over the conversation.
5. A worker's only thread is its main thread, and its only reason to live is its stdin: at its end it leaves.
6. What a worker prints is kept for the operator, so a worker never prints speech or text.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import sys
from enum import IntEnum
from typing import Final, NamedTuple, NoReturn

HEADER: Final = struct.Struct("<IIB")
CREDIT_PAYLOAD: Final = struct.Struct("<I")
MAX_PAYLOAD: Final = 1 << 20
"""Bytes in the longest payload; a longer one means that the stream is broken."""

_NICENESS: Final = 10
_SINGLE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Kind(IntEnum):
    """What a frame says; the comment tells who may say it."""

    SETUP = 1  # engine: the worker's settings (JSON), first frame of all
    READY = 2  # worker: set up; the payload (JSON) describes it
    FATAL = 3  # worker: cannot work on this machine (payload: the reason, UTF-8), then it ends
    OPEN = 4  # engine: a job begins; the payload is the engine's own
    DATA = 5  # both: a piece of the job
    END = 6  # engine: no more DATA for this job
    CANCEL = 7  # engine: drop the job now
    CREDIT = 8  # both: so many bytes of DATA (u32) are dealt with
    DONE = 9  # worker: the job is over
    FAILED = 10  # worker: the job is over, with a fault (JSON: code, message)


class Frame(NamedTuple):
    job: int
    kind: Kind
    payload: bytes


class BrokenStream(Exception):
    """The bytes of the other side are no frames."""


def pack(job: int, kind: Kind, payload: bytes = b"") -> bytes:
    """The bytes of one frame."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(payload)} bytes is too long for a frame")
    return HEADER.pack(len(payload), job, kind) + payload


def unpack_header(header: bytes) -> tuple[int, int, Kind]:
    """``(payload length, job, kind)`` of a frame's first ``HEADER.size`` bytes; raises :class:`BrokenStream`."""
    length, job, kind = HEADER.unpack(header)
    try:
        known = Kind(kind)
    except ValueError:
        raise BrokenStream(f"unknown frame kind {kind}") from None
    if length > MAX_PAYLOAD:
        raise BrokenStream(f"a frame of {length} bytes")
    return length, job, known


class Channel:
    """A worker's end: blocking, unbuffered. At the end of the stream it raises ``SystemExit(0)``."""

    def __init__(self, fd_in: int, fd_out: int) -> None:
        self._in = fd_in
        self._out = fd_out

    def receive(self) -> Frame:
        """The next frame; waits for it."""
        length, job, kind = unpack_header(self._read(HEADER.size))
        return Frame(job, kind, self._read(length))

    def poll(self) -> Frame | None:
        """The next frame if one has begun to arrive, else None."""
        readable, _, _ = select.select([self._in], [], [], 0)
        return self.receive() if readable else None

    def send(self, job: int, kind: Kind, payload: bytes = b"") -> None:
        view = memoryview(pack(job, kind, payload))
        while view:
            try:
                view = view[os.write(self._out, view) :]
            except BrokenPipeError:
                raise SystemExit(0) from None

    def send_credit(self, job: int, n_bytes: int) -> None:
        """Tell the engine that ``n_bytes`` of its DATA are dealt with."""
        self.send(job, Kind.CREDIT, CREDIT_PAYLOAD.pack(n_bytes))

    def fail_start(self, reason: str) -> NoReturn:
        """Report that this worker can never work here, and leave."""
        self.send(0, Kind.FATAL, reason.encode())
        raise SystemExit(1)

    def _read(self, n: int) -> bytes:
        parts = []
        while n:
            part = os.read(self._in, n)
            if not part:
                raise SystemExit(0)
            parts.append(part)
            n -= len(part)
        return b"".join(parts)


def open_worker() -> tuple[Channel, bytes]:
    """Make this process a worker: quiet, polite, alone with its channel.

    Returns the channel and the payload of the SETUP frame. Stray prints of native libraries go to stderr; the
    signals of a terminal or a service manager are left to the server, which ends its workers itself.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A group of its own, so that it is killed with whatever it starts; not a session of its own, since Linux gives
    # every session an equal share of the processors (autogroup), and niceness counts only within one.
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    for name in _SINGLE_THREAD:
        os.environ[name] = "1"
    fd_in, fd_out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdout.flush()
    os.dup2(2, 1)
    channel = Channel(fd_in, fd_out)
    frame = channel.receive()
    if frame.kind is not Kind.SETUP:
        raise BrokenStream("the first frame is no SETUP")
    return channel, frame.payload
