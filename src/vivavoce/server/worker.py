"""The processes under a supervisor: workers that serve the connections they are handed, and a host for the engines
that they share (see ``supervisor``).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final, cast

from vivavoce.config import Config
from vivavoce.engines.base import Engine
from vivavoce.engines.registry import Registry
from vivavoce.engines.sharing import EngineHost, SharedEngine, is_heavy, stand_in
from vivavoce.gateway.deployments import EngineKey, open_engines
from vivavoce.gateway.shared.base import SharedState
from vivavoce.server.app import Assembly, assembled, settle_memory
from vivavoce.server.metrics import Metrics
from vivavoce.server.supervisor import CONNECTION, RELIEVE, REPORT_S, Load

log = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 64
_LOOK_S: Final = 0.1
"""Seconds after which a worker that was relieved looks again whether it still has connections."""


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
        # One that comes without its descriptor is lost: we have none left.
        self._taken += data.count(CONNECTION)
        for descriptor in descriptors:
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

    async def served(self, patience_s: float) -> None:
        """To be awaited when relieved: until nobody who was sent here needs us any more. Connections without a
        session may become one within ``patience_s``."""
        deadline = self._loop.time() + patience_s
        while self._loop.time() < deadline:
            if not self._welcomes and not self._assembly.open_connections:
                break
            await asyncio.sleep(_LOOK_S)
        await self._assembly.endpoint.empty.wait()

    async def _welcome(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._assembly.adopt(connection)
        except (OSError, TimeoutError) as fault:
            log.info("a connection failed at once: %s", type(fault).__name__)
            connection.close()


class Stop:
    """SIGTERM. It interrupts what is still starting; afterwards it is waited for."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    async def run(self, work: Coroutine[None, None, None]) -> int:
        """Do the work, which calls :meth:`started`. Returns the exit code."""
        self._starting = working = asyncio.create_task(work, name="work")
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._ask)
        try:
            await working
        except asyncio.CancelledError:
            if not self.asked.is_set():
                raise
        return 0

    def started(self) -> None:
        self._starting = None

    def _ask(self) -> None:
        self.asked.set()
        if self._starting is not None:
            self._starting.cancel()


async def work(
    config: Config,
    control: socket.socket,
    shared: SharedState,
    host: Path,
    registry: Registry | None = None,
    metrics: Path | None = None,
) -> int:
    """Serve until the supervisor says otherwise, or is gone; at once while engines still start. Returns the exit
    code.

    ``shared``: what all workers have in common; ``host``: where the heavy engines are; ``registry``: None for the
    installed engines; ``metrics``: the folder where all processes of the server write theirs, None for no metrics
    that are shared. Raises what :func:`vivavoce.server.app.assembled` raises.
    """
    stop = Stop()
    return await stop.run(_work(config, control, shared, host, stop, registry, metrics))


async def _work(
    config: Config,
    control: socket.socket,
    shared: SharedState,
    host: Path,
    stop: Stop,
    registry: Registry | None,
    metrics: Path | None,
) -> None:
    def instead(key: EngineKey, engine: Engine) -> Engine:
        return stand_in(engine, _name(key), host) if is_heavy(engine) else engine

    async with assembled(
        config, registry=registry, shared=shared, instead=instead, metrics=_metrics(config, metrics)
    ) as assembly:
        settle_memory()
        stop.started()
        endpoint = assembly.endpoint
        intake = Intake(control, assembly)
        intake.open()
        reporting = asyncio.create_task(intake.report_regularly(), name="report load")
        try:
            await _first(stop.asked.wait(), intake.orphaned.wait(), intake.relieved.wait())
            if not stop.asked.is_set() and not intake.orphaned.is_set():
                log.info("relieved: %d sessions are still open", endpoint.open_sessions)
                await _first(
                    stop.asked.wait(), intake.orphaned.wait(), intake.served(config.server.request_timeout_s)
                )
            log.info("stopping: %d sessions are open", endpoint.open_sessions)
        finally:
            reporting.cancel()
            intake.close()


async def host(config: Config, control: socket.socket, path: Path, metrics: Path | None = None) -> int:
    """Run the heavy engines for all workers at ``path`` until the supervisor says otherwise, or is gone. Returns
    the exit code. ``metrics`` as for :func:`work`. Raises ConfigError and EngineStartError.
    """
    stop = Stop()
    return await stop.run(_host(config, control, path, stop, metrics))


async def _host(config: Config, control: socket.socket, path: Path, stop: Stop, folder: Path | None) -> None:
    metrics = _metrics(config, folder)
    watches = None if metrics is None else metrics.watch
    async with open_engines(config, is_heavy, watches=watches) as engines, AsyncExitStack() as stack:
        if metrics is not None:
            metrics.look_at(engines)
            looking = asyncio.create_task(metrics.look_regularly(), name="look at metrics")
            stack.callback(looking.cancel)
        shared = {_name(key): cast(SharedEngine, engine) for key, engine in engines}
        async with EngineHost(shared).serving(path):
            settle_memory()
            stop.started()
            control.setblocking(False)
            gone = asyncio.Event()
            asyncio.get_running_loop().add_reader(control, gone.set)
            try:
                while not (stop.asked.is_set() or gone.is_set()):
                    with suppress(BlockingIOError, ConnectionError):
                        control.send(Load(0, 0).pack())
                    with suppress(TimeoutError):
                        async with asyncio.timeout(REPORT_S):
                            await _first(stop.asked.wait(), gone.wait())
            finally:
                asyncio.get_running_loop().remove_reader(control)
                control.close()


def _metrics(config: Config, folder: Path | None) -> Metrics | None:
    return Metrics(folder) if config.server.metrics and folder is not None else None


def _name(key: EngineKey) -> str:
    kind, name = key
    return f"{kind} {name}"


async def _first(*endings: Coroutine[None, None, object]) -> None:
    """Wait until one of them ends; the others are cancelled."""
    waiting = [asyncio.create_task(ending) for ending in endings]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
