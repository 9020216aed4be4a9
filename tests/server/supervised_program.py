"""A supervisor with workers of almost nothing: each tells who it is to every connection, and keeps it open.

``python supervised_program.py COUNT [fail | mute | host | early | stuck | slow | full | poor]``: prints its port,
and ``ready``; logs to stderr. A worker ends when it is asked to, or is relieved and its connections have gone, as
the real one does. With ``early`` it is asked as soon as there is one; with ``stuck`` none that starts after a
SIGHUP gets ready, and with ``slow`` none at all; with ``full`` there is no room for a connection until SIGHUP; with
``poor`` the first fork fails.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable

from vivavoce.server.supervisor import RELIEVE, Load, Supervisor, listen

LIMITS = resource.getrlimit(resource.RLIMIT_NOFILE)
renewed = False


def renew() -> None:
    global renewed
    renewed = True
    resource.setrlimit(resource.RLIMIT_NOFILE, LIMITS)


class Worker:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._stop = asyncio.Event()
        self._relieved = False
        self._taken = 0
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_reader(self._control, self._receive)
        self._report()
        await self._stop.wait()
        return 0

    def _report(self) -> None:
        self._control.send(Load(self._taken, len(self._open)).pack())

    def _receive(self) -> None:
        data, descriptors, _, _ = socket.recv_fds(self._control, 64, 64)
        for descriptor in descriptors:
            self._taken += 1
            task = asyncio.get_running_loop().create_task(self._hold(socket.socket(fileno=descriptor)))
            self._open.add(task)
            task.add_done_callback(self._closed)
        if RELIEVE in data:
            self._relieved = True
        if not data:
            self._stop.set()
        self._report()
        self._end_if_idle()

    async def _hold(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        writer.write(f"{os.getpid()}\n".encode())
        await reader.read()
        writer.close()

    def _closed(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._report()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._relieved and not self._open:
            self._stop.set()


def work(control: socket.socket) -> int:
    if "fail" in sys.argv:
        return 7
    if "slow" in sys.argv or ("stuck" in sys.argv and renewed):
        while control.recv(100):
            pass
        return 0
    if "mute" in sys.argv:
        control.send(Load(0, 0).pack())
        while control.recv(100):
            pass
        return 0
    return asyncio.run(Worker(control).run())


def host(control: socket.socket, generation: int) -> int:
    """It ends when it is asked to, or alone."""
    control.send(Load(0, 0).pack())
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    while control.recv(100):
        pass
    return 0


def poor_fork(fork: Callable[[], int] = os.fork) -> int:
    os.fork = fork
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def ready() -> None:
    if "full" in sys.argv:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, LIMITS[1]))
    say("ready")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    logging.basicConfig(level="INFO", stream=sys.stderr, format="%(message)s")
    if "early" in sys.argv:
        os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))
    if "poor" in sys.argv:
        os.fork = poor_fork
    listener = listen("127.0.0.1", 0)
    say(f"{listener.getsockname()[1]}")
    return Supervisor(
        listener,
        work,
        count=int(sys.argv[1]),
        grace_s=5,
        on_ready=ready,
        renew=renew,
        host=host if "host" in sys.argv else None,
        silence_s=0.2 if "mute" in sys.argv else 30,
        start_s=0.2 if "slow" in sys.argv else 30,
    ).run()


if __name__ == "__main__":
    sys.exit(main())
