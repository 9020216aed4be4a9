"""The way out to one client: a bounded queue between the session and its socket.

Laws
----
1. Frames leave in the order in which they were sent; a close goes last, and what is sent after it is dropped.
2. ``send`` never waits. Whoever makes output in bulk asks :attr:`SocketOutbox.crowded` or awaits
   :meth:`SocketOutbox.drained` before it makes more, so that what waits here stays near :data:`ROOM_BYTES`. The
   socket is read on meanwhile, so that a client can still interrupt; answers to its own events may pile up to
   :data:`FULL_BYTES`, and then it is not read either.
3. A client that takes nothing for ``stall_s`` is cut off: it would hold its session, and the engines at work for
   it, for ever, since no ping is answered by who does not read. A large frame may take longer, as long as some of
   it is taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from vivavoce.server.handshake import Socket

log = logging.getLogger(__name__)

ROOM_BYTES: Final = 256 * 1024
"""Frames that may wait for the socket before producers do; about 4 s of speech."""
FULL_BYTES: Final = 4 * 1024 * 1024
"""Frames that may wait before the client is not read either."""
AT_ONCE_BYTES: Final = 32 * 1024
"""Frames that are as short as this together leave at once, in one write, when nothing waits before them: asyncio
takes twice as much beyond what the system takes, before it makes anybody wait."""
CLOSE_S: Final = 4.0
"""Seconds that the exchange of close frames may take."""


class SocketOutbox:
    """Implements ``runtime.engines.Outbox`` over an aiohttp WebSocket; :meth:`run` is its only writer.

    ``stall_s``: seconds that the client may take nothing; ``abort`` ends the connection at once; ``unsent`` are the
    bytes that the system has not taken of us yet.
    """

    def __init__(self, *, stall_s: float, abort: Callable[[], None], unsent: Callable[[], int]) -> None:
        self.abort = abort
        self._unsent = unsent
        self._stall_s = stall_s
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self.full = False
        """More than :data:`FULL_BYTES` wait. Looked at for each frame of the client's."""
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closing: tuple[int, str] | None = None

    @property
    def crowded(self) -> bool:
        return self._bytes > ROOM_BYTES

    def send(self, frame: bytes) -> None:
        if self._closing is not None:
            return
        self._frames.append(frame)
        self._bytes += len(frame)
        if self._bytes > ROOM_BYTES:
            self._room.clear()
            self.full = self._bytes > FULL_BYTES
        self._news.set()

    def close(self, code: int, reason: str) -> None:
        if self._closing is None:
            self._closing = (code, reason)
            self._news.set()

    @property
    def closing(self) -> tuple[int, str] | None:
        """The code and reason with which we close, once that is decided."""
        return self._closing

    async def drained(self) -> None:
        if not self._room.is_set():
            await self._room.wait()

    async def run(self, socket: Socket) -> None:
        """Write frames as they come, until the session is closed or the client has gone."""
        try:
            while True:
                while self._frames:
                    frames, size = self._next()
                    if size > FULL_BYTES:
                        await self._write_large(socket, frames[0])
                    elif size <= AT_ONCE_BYTES and not self._unsent():
                        await socket.send_texts(frames)
                    else:
                        async with asyncio.timeout(self._stall_s):
                            await socket.send_texts(frames)
                    self._bytes -= size
                    self.full = self._bytes > FULL_BYTES
                    if self._bytes <= ROOM_BYTES:
                        self._room.set()
                if self._closing is not None:
                    code, reason = self._closing
                    async with asyncio.timeout(CLOSE_S):
                        await socket.close(code=code, message=reason.encode()[:123])
                    return
                self._news.clear()
                await self._news.wait()
        except ConnectionError:
            # The client has gone; the reader learns it too and ends the session.
            return
        except TimeoutError:
            log.info("a client that does not read is cut off")
            self.abort()
        finally:
            self._frames.clear()
            self._bytes = 0
            self.full = False
            self._closing = self._closing or (1006, "")
            self._room.set()

    def _next(self) -> tuple[list[bytes], int]:
        """The next frame, and those after it that leave with it; and their bytes."""
        frames = [self._frames.popleft()]
        size = len(frames[0])
        while self._frames and size + len(self._frames[0]) <= AT_ONCE_BYTES:
            frames.append(self._frames.popleft())
            size += len(frames[-1])
        return frames, size

    async def _write_large(self, socket: Socket, frame: bytes) -> None:
        """Raises TimeoutError when nothing of it is taken for a while."""
        writing = asyncio.create_task(socket.send_texts([frame]))
        try:
            left = len(frame)
            while not (await asyncio.wait([writing], timeout=self._stall_s))[0]:
                if self._unsent() >= left:
                    raise TimeoutError
                left = self._unsent()
            await writing
        finally:
            writing.cancel()
