"""Many worker processes behind one port: who starts them, hands them connections, and replaces the dead.

Laws
----
1. The supervisor has no event loop and no thread, and never loads an engine: a fork of it is a clean beginning.
2. It alone listens. Each connection that it accepts goes to the worker with the fewest, so sessions spread evenly
   however they come; a worker owns a connection from there on, and no byte of it passes here.
3. ``Starting -> Ready -> Leaving -> gone``; only ``Ready`` workers get connections. ``Leaving`` ones end their
   sessions: when they are asked to stop within the grace, when they are relieved by another as the sessions end.
4. A worker that ends by itself, says nothing for ``silence_s``, or is not ready after ``start_s``, is replaced,
   after a pause that grows while workers keep dying. One that cannot start before all were ready once ends the
   supervisor, with its code.
5. Workers watch the other end of their control socket: when the supervisor is gone they stop too.
6. A host runs what the workers of its generation share. It is replaced like a worker, gets no connections, and ends
   after the last of them.

A worker tells through its control socket what :class:`Load` says, once it is ready and whenever it likes.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple, NoReturn

from vivavoce.runtime.bugs import outline

log = logging.getLogger(__name__)

CONNECTION: Final = b"c"
"""To a worker: take this connection (its descriptor comes along)."""
RELIEVE: Final = b"r"
"""To a worker: take no more; end when your last session has ended."""
REPORT_S: Final = 1.0
"""Seconds after which a worker has told its load again."""
SILENCE_S: Final = 30.0
"""Seconds without a report after which a worker is taken for stuck."""
START_S: Final = 600.0
"""Seconds that a worker may take to get ready: its engines load models meanwhile."""
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 10.0
_STEADY_S: Final = 10.0
"""A worker that lived so long has recovered: the next pause is short again."""
_STOP_MARGIN_S: Final = 15.0
"""Seconds beside the grace that a worker has for its engines before it is killed; they have 10 of their own."""
_ACCEPTS: Final = 64
"""Connections that are accepted before something else is looked at."""
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ROOM_PAUSE_S: Final = 0.5
"""Seconds until it is tried again to accept a connection that there was no room for; it waits in the kernel."""
_BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""
_REPORT: Final = struct.Struct("!II")
_CAUGHT: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on the first address of ``host``; IPv6's "every" takes IPv4 too. Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    every = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=every)


class Load(NamedTuple):
    """What a worker tells: connections that it has been handed in its life, and those open now."""

    taken: int
    open: int

    def pack(self) -> bytes:
        return _REPORT.pack(self.taken & 0xFFFFFFFF, self.open)


class State(Enum):
    STARTING = auto()
    READY = auto()
    LEAVING = auto()


@dataclass(eq=False)
class Worker:
    """One process."""

    pid: int
    control: socket.socket
    generation: int
    born: float
    is_host: bool = False
    state: State = State.STARTING
    handed: int = 0
    told: Load = field(default=Load(0, 0))
    heard: float = 0.0
    deadline: float | None = None
    """When it is killed, once it was asked to stop."""
    _pending: bytes = field(default=b"", repr=False)

    @property
    def role(self) -> str:
        return "host" if self.is_host else "worker"

    @property
    def load(self) -> int:
        """Connections that it has, those on their way included."""
        return self.told.open + ((self.handed - self.told.taken) & 0xFFFFFFFF)

    def read(self) -> bool:
        """Take in what it told; False when its end is closed."""
        try:
            data = self.control.recv(4096)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._pending += data
        whole = len(self._pending) - len(self._pending) % _REPORT.size
        if whole:
            self.told = Load(*_REPORT.unpack_from(self._pending, whole - _REPORT.size))
            self._pending = self._pending[whole:]
        return bool(data)


class Supervisor:
    """Keeps ``count`` workers at work on ``listener`` until SIGTERM or SIGINT; SIGHUP replaces them one by one.

    ``work(control)`` is a worker: it is called in a fresh process, and its return value is the exit code. So is
    ``host(control, generation)``, of which there is one for each generation of workers, counted from 0.
    ``on_end(pid)`` is called when a process has ended; ``renew`` before workers are replaced on SIGHUP: what it
    raises is logged, and nothing is replaced.
    """

    def __init__(
        self,
        listener: socket.socket,
        work: Callable[[socket.socket], int],
        *,
        count: int,
        host: Callable[[socket.socket, int], int] | None = None,
        grace_s: float,
        on_ready: Callable[[], None],
        renew: Callable[[], None] = lambda: None,
        on_end: Callable[[int], None] = lambda pid: None,
        silence_s: float = SILENCE_S,
        start_s: float = START_S,
    ) -> None:
        self._listener = listener
        self._work = work
        self._count = count
        self._host = host
        self._grace_s = grace_s
        self._on_ready = on_ready
        self._renew = renew
        self._on_end = on_end
        self._silence_s = silence_s
        self._start_s = start_s
        self._workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()
        self._generation = 0
        self._failures = 0
        self._next_start = 0.0
        self._announced = False
        self._stopping = False
        self._listening = False
        self._room_at = 0.0
        self._code = 0
        self._signals: set[signal.Signals] = set()

    def run(self) -> int:
        """Returns the exit code, when no worker is left."""
        self._listener.setblocking(False)
        wake, woken = socket.socketpair()
        for end in (wake, woken):
            end.setblocking(False)
        before = {name: signal.signal(name, self._note) for name in _CAUGHT}
        before_wake = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ)
        try:
            while not self._stopping or self._workers:
                self._tend()
                for key, _ in self._selector.select(self._patience()):
                    if key.fileobj is woken:
                        with suppress(BlockingIOError):
                            while woken.recv(4096):
                                pass
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.data, Worker):
                        self._hear(key.data)
        finally:
            signal.set_wakeup_fd(before_wake)
            for name, handler in before.items():
                signal.signal(name, handler)
            for worker in self._workers:
                self._kill(worker)
            self._selector.close()
            for end in (wake, woken):
                end.close()
        return self._code

    def _note(self, number: int, frame: object) -> None:
        self._signals.add(signal.Signals(number))

    # ------------------------------------------------------------------------------------------- housekeeping

    def _tend(self) -> None:
        """Look at everything that signals and time have changed."""
        signals, self._signals = self._signals, set()
        if signals & {signal.SIGTERM, signal.SIGINT}:
            self._stop()
        if signal.SIGHUP in signals and not self._stopping:
            self._replace_all()
        self._bury()
        now = time.monotonic()
        for worker in self._workers:
            if worker.deadline is not None and now >= worker.deadline:
                log.warning("%s %d did not end in time and is killed", worker.role, worker.pid)
                worker.deadline = None
                self._kill(worker)
            elif worker.state is State.STARTING and now - worker.born > self._start_s:
                log.error("%s %d does not get ready and is killed", worker.role, worker.pid)
                self._kill(worker)
            elif worker.heard and worker.deadline is None and now - worker.heard > self._silence_s:
                # One that is relieved tells its load too, until its last session has ended.
                log.error("%s %d says nothing any more and is killed", worker.role, worker.pid)
                worker.heard = now
                self._kill(worker)
        self._relieve()
        self._dismiss_hosts()
        self._fill(now)
        self._listen()

    def _patience(self) -> float:
        """Seconds until something is due whatever happens."""
        now = time.monotonic()
        due = [worker.deadline for worker in self._workers if worker.deadline is not None]
        # What has been due already was done as far as it could be.
        due += [at for at in (self._next_start, self._room_at) if at > now]
        return max(0.0, min([REPORT_S, *(at - now for at in due)]))

    def _current(self) -> list[Worker]:
        """The workers that are to stay, without their host."""
        return [worker for worker in self._of_now() if not worker.is_host]

    def _ready(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.state is State.READY and not worker.is_host]

    def _of_now(self) -> list[Worker]:
        return [w for w in self._workers if w.generation == self._generation and w.state is not State.LEAVING]

    def _fill(self, now: float) -> None:
        """Start what is missing: one at a time when workers are being replaced, so that the machine keeps its
        strength for the sessions that are open."""
        if self._stopping or now < self._next_start:
            return
        try:
            self._start_missing()
        except OSError as fault:
            # Out of memory, processes or descriptors, which is no reason to end the workers that there are.
            log.error("a process could not be started: %s", fault.strerror)
            self._pause(failures=self._failures + 1)

    def _start_missing(self) -> None:
        if self._host is not None:
            hosts = {w.generation for w in self._workers if w.is_host and w.state is not State.LEAVING}
            for generation in sorted(self._needed() - hosts):
                self._start(_host_of(generation, self._host), generation, is_host=True)
        while len(current := self._current()) < self._count:
            if self._announced and any(worker.state is State.STARTING for worker in current):
                return
            self._start(self._work, self._generation, is_host=False)

    def _relieve(self) -> None:
        """For each new worker that is ready, one of an older generation may go, and first those that serve nobody
        yet: they may never be able to."""
        ready = sum(worker.state is State.READY for worker in self._current())
        old = [
            worker
            for worker in self._workers
            if worker.generation != self._generation and worker.state is not State.LEAVING and not worker.is_host
        ]
        old.sort(key=lambda worker: worker.state is State.READY)
        for worker in old[: max(0, len(old) + ready - self._count)]:
            if worker.state is State.STARTING:
                self._dismiss(worker)
                continue
            worker.state = State.LEAVING
            with suppress(OSError):
                worker.control.send(RELIEVE)

    def _dismiss_hosts(self) -> None:
        """Those go that nobody needs any more."""
        needed = self._needed()
        for worker in self._workers:
            if worker.is_host and worker.generation not in needed and worker.deadline is None:
                self._dismiss(worker)

    def _needed(self) -> set[int]:
        """The generations that have workers, or shall have."""
        needed = {worker.generation for worker in self._workers if not worker.is_host}
        return needed if self._stopping else needed | {self._generation}

    def _dismiss(self, worker: Worker) -> None:
        worker.state = State.LEAVING
        worker.deadline = time.monotonic() + self._grace_s + _STOP_MARGIN_S
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGTERM)

    def _listen(self) -> None:
        """Accept while somebody can take it; meanwhile connections wait in the kernel."""
        wanted = not self._stopping and time.monotonic() >= self._room_at and bool(self._ready())
        if wanted and not self._listening:
            self._selector.register(self._listener, selectors.EVENT_READ)
        elif self._listening and not wanted:
            self._selector.unregister(self._listener)
        self._listening = wanted

    # ------------------------------------------------------------------------------------------------ workers

    def _start(self, work: Callable[[socket.socket], int], generation: int, *, is_host: bool) -> None:
        ours, theirs = socket.socketpair()
        # What reaches the new process before it has let go of our handlers must not be lost in them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _CAUGHT)
        try:
            pid = os.fork()
            if pid == 0:
                self._become(work, ours, theirs)
        except OSError:
            ours.close()
            theirs.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _CAUGHT)
        theirs.close()
        ours.setblocking(False)
        worker = Worker(pid, ours, generation, born=time.monotonic(), is_host=is_host)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)

    def _become(self, work: Callable[[socket.socket], int], ours: socket.socket, theirs: socket.socket) -> NoReturn:
        """In the new process: nothing of the supervisor is left but the code and the configuration."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for name in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
                signal.signal(name, signal.SIG_DFL)
            # A terminal sends it to all of us; the supervisor decides what becomes of the workers.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _CAUGHT)
            self._selector.close()
            self._listener.close()
            ours.close()
            for worker in self._workers:
                worker.control.close()
            code = work(theirs)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException as bug:
            log.error("a worker broke: %s", outline(bug))
        finally:
            logging.shutdown()
            os._exit(code)

    def _hear(self, worker: Worker) -> None:
        if not worker.read():
            # Its end is closed: it is ending, and is replaced when it has ended.
            self._selector.unregister(worker.control)
            return
        worker.heard = time.monotonic()
        if worker.state is State.STARTING:
            worker.state = State.READY
            log.info("%s %d is ready", worker.role, worker.pid)
            ready = [one for one in self._current() if one.state is State.READY]
            if not self._announced and len(ready) == self._count:
                self._announced = True
                self._on_ready()

    def _bury(self) -> None:
        for worker in list(self._workers):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if not pid:
                continue
            self._workers.remove(worker)
            with suppress(KeyError):
                self._selector.unregister(worker.control)
            worker.control.close()
            self._on_end(pid)
            self._mourn(worker, os.waitstatus_to_exitcode(status))

    def _mourn(self, worker: Worker, code: int) -> None:
        """Decide what a death means."""
        if worker.state is State.LEAVING and code == -signal.SIGTERM:
            # Asked before it could listen, or when it no longer did.
            code = 0
        if worker.state is State.LEAVING and not code:
            log.info("%s %d ended in order", worker.role, worker.pid)
        else:
            log.error("%s %d ended with %d", worker.role, worker.pid, code)
        if self._stopping and code:
            self._code = self._code or 1
        replaced = worker.generation == self._generation or worker.is_host
        if self._stopping or not replaced or worker.state is State.LEAVING:
            return
        if not self._announced and worker.state is State.STARTING:
            self._code = code if code > 0 else 1
            self._stop()
            return
        self._pause(failures=0 if time.monotonic() - worker.born > _STEADY_S else self._failures + 1)

    def _pause(self, *, failures: int) -> None:
        """Start nothing for a while."""
        self._failures = failures
        pause = min(_FIRST_PAUSE_S * 2 ** min(failures, 10), _LONGEST_PAUSE_S)
        self._next_start = time.monotonic() + pause

    def _stop(self) -> None:
        """Once: in order. Twice: at once."""
        for worker in self._workers:
            if self._stopping:
                self._kill(worker)
            elif not worker.is_host:
                self._dismiss(worker)
        if not self._stopping:
            self._stopping = True
            self._listen()
            self._listener.close()

    def _replace_all(self) -> None:
        try:
            self._renew()
        except Exception as fault:
            log.error("the workers are not replaced: %s", fault)
            return
        log.info("the workers are replaced, one by one")
        self._generation += 1
        self._failures = 0

    def _kill(self, worker: Worker) -> None:
        with suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    # -------------------------------------------------------------------------------------------- connections

    def _accept(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as fault:
                # Out of descriptors, or the peer has gone already.
                log.warning("a connection could not be accepted: %s", fault.strerror)
                if fault.errno in _NO_ROOM:
                    self._room_at = time.monotonic() + _ROOM_PAUSE_S
                return
            with connection:
                self._hand_over(connection)

    def _hand_over(self, connection: socket.socket) -> None:
        """To the least loaded; to the next one if it does not keep up. If none does, the client is hung up on."""
        for worker in sorted(self._ready(), key=lambda worker: worker.load):
            try:
                socket.send_fds(worker.control, [CONNECTION], [connection.fileno()])
            except OSError:
                continue
            worker.handed += 1
            return
        log.warning("no worker could take a connection")


def _host_of(generation: int, host: Callable[[socket.socket, int], int]) -> Callable[[socket.socket], int]:
    return lambda control: host(control, generation)
