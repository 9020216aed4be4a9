"""One worker process of many: it serves the connections that the supervisor hands it (see ``supervisor``)."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from contextlib import suppress
from typing import Final

from vivavoce.config import Config
from vivavoce.gateway.quota import Counters
from vivavoce.server.app import Assembly, assembled, settle_memory
from vivavoce.server.supervisor import CONNECTION, RELIEVE, REPORT_S, Load

log = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 64


class Intake:
    """The worker's end of the control socket: connections in, reports of load out."""

    def __init__(self, control: socket.socket, assembly: Assembly) -> None:
        self._control = control
        self._assembly = assembly
        self._loop = asyncio.get_running_loop()
        self._welcomes: set[asyncio.Task[None]] = set()
        self._taken = 0
        self.relieved = asyncio.Event()
        """No more connections will come, and nobody waits for us to end."""
        self.orphaned = asyncio.Event()
        """The supervisor is gone."""

    def open(self) -> None:
        """Say that we are ready, and take what comes."""
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._receive)
        self._report()

    def close(self) -> None:
        self._loop.remove_reader(self._control)
        self._control.close()

    async def report_regularly(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            self._report()

    def _report(self) -> None:
        # A supervisor that is too busy to read misses one of many.
        with suppress(BlockingIOError, ConnectionError):
            self._control.send(Load(self._taken, self._assembly.open_connections).pack())

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._control, _MOST_AT_ONCE, _MOST_AT_ONCE)
        except BlockingIOError:
            return
        except ConnectionError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            self._taken += 1
            task = self._loop.create_task(self._welcome(socket.socket(fileno=descriptor)))
            self._welcomes.add(task)
            task.add_done_callback(self._welcomes.discard)
        if RELIEVE in data:
            self.relieved.set()
        if not data:
            self._loop.remove_reader(self._control)
            self.orphaned.set()
        elif CONNECTION in data:
            self._report()

    async def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._assembly.adopt(connection)
        except (OSError, TimeoutError) as fault:
            log.info("a connection failed at once: %s", type(fault).__name__)
            connection.close()


async def work(config: Config, control: socket.socket, counters: Counters) -> int:
    """Serve until the supervisor says otherwise, or is gone; at once while engines still start. Returns the exit
    code. Raises what :func:`vivavoce.server.app.assembled` raises.
    """
    stop = asyncio.Event()
    ready = asyncio.Event()
    working = asyncio.create_task(_work(config, control, counters, stop, ready), name="work")

    def asked_to_stop() -> None:
        stop.set()
        if not ready.is_set():
            working.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop)
    with suppress(asyncio.CancelledError):
        await working
    return 0


async def _work(
    config: Config, control: socket.socket, counters: Counters, stop: asyncio.Event, ready: asyncio.Event
) -> None:
    async with assembled(config, counters=counters) as assembly:
        settle_memory()
        intake = Intake(control, assembly)
        ready.set()
        intake.open()
        reporting = asyncio.create_task(intake.report_regularly(), name="report load")
        try:
            await _first(stop, intake.orphaned, intake.relieved)
            if not stop.is_set() and not intake.orphaned.is_set():
                log.info("relieved: %d sessions are still open", assembly.endpoint.open_sessions)
                await _first(stop, intake.orphaned, assembly.endpoint.empty)
            log.info("stopping: %d sessions are open", assembly.endpoint.open_sessions)
        finally:
            reporting.cancel()
            intake.close()


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
