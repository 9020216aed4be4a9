"""What the workers of one server share without a service beside them: counters in memory that forked processes have
in common (POSIX), values and members in a small SQLite file.

Laws
----
1. The memory of counters is a table of fixed size, made before the fork. A counter has no place of its own in it:
   it takes one when it is charged, found by a digest of its names, and another may have it once it is empty. So
   deployments may come and go while the workers run.
2. Each call holds one lock, which a worker that dies gives back.
3. The file is in a folder that only this user can read, and ends with the server. What is deleted is overwritten.
   It is never synced to the disk: it need not outlive anything. A call takes some 0.1 ms, less than a thread would.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import sqlite3
import struct
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from vivavoce.gateway.shared.base import Charge, Mode, Outcome, Unavailable
from vivavoce.gateway.shared.leaky import decide, drained

log = logging.getLogger(__name__)

PLACES: Final = 8192
_NEAR: Final = 32
"""Places, one after another, of which a counter has one."""
_PLACE: Final = struct.Struct("=16sddd")
"""Digest of the names, level, the second in which it was so high, and the second in which it will have drained."""
_PATIENCE_S: Final = 1.0
"""Seconds that a call waits while other workers write."""
_TABLES: Final = """
PRAGMA journal_mode = MEMORY;
PRAGMA synchronous = OFF;
PRAGMA secure_delete = ON;
CREATE TABLE IF NOT EXISTS kept (name TEXT PRIMARY KEY, value BLOB NOT NULL, ends REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS kept_ends ON kept (ends);
CREATE TABLE IF NOT EXISTS members (
    of_group TEXT NOT NULL, member TEXT NOT NULL, ends REAL NOT NULL, PRIMARY KEY (of_group, member)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS members_ends ON members (of_group, ends);
"""


class WorkerCounters:
    """Counters in memory that this process shares with those that it forks afterwards."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._memory = mmap.mmap(-1, places * _PLACE.size)
        # Locks of fcntl belong to a process, unlike those of flock, which forked processes would hold together.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def charge(self, name: str, charges: Sequence[Charge], now: float, mode: Mode = "admit") -> Outcome:
        digests = [_digest(name, one.counter) for one in charges]
        with self._lock():
            levels = [self._level(digest, now, one.drain) for digest, one in zip(digests, charges, strict=True)]
            outcome = decide(levels, charges, mode)
            if outcome.admitted:
                for digest, one, level in zip(digests, charges, outcome.levels, strict=True):
                    self._keep(digest, level, now, one.drain)
        return outcome

    def _level(self, digest: bytes, now: float, drain: float) -> float:
        for at in self._near(digest):
            found, level, since, _ = _PLACE.unpack_from(self._memory, at)
            if found == digest:
                return drained(level, since, now, drain)
        return 0.0

    def _keep(self, digest: bytes, level: float, now: float, drain: float) -> None:
        free, soonest = None, float("inf")
        for at in self._near(digest):
            found, _, _, empty_at = _PLACE.unpack_from(self._memory, at)
            if found == digest:
                free, soonest = at, now
                break
            if empty_at < soonest:
                free, soonest = at, empty_at
        assert free is not None
        if soonest > now:
            log.error("there are more counters than places for them: one is forgotten")
        _PLACE.pack_into(self._memory, free, digest, level, now, now + level / drain)

    def _near(self, digest: bytes) -> Iterator[int]:
        """Where a counter may be."""
        first = int.from_bytes(digest[:8], "little")
        for step in range(min(_NEAR, self._places)):
            yield (first + step) % self._places * _PLACE.size

    @contextmanager
    def _lock(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


def _digest(name: str, counter: str) -> bytes:
    return hashlib.blake2b(f"{name}\0{counter}".encode(), digest_size=16).digest()


class WorkersState:
    """A :class:`vivavoce.gateway.shared.base.SharedState`; made before the fork, and then every worker has it.

    ``folder``: private to this server; ``clock``: monotone seconds, the same for all workers.
    """

    reachable = True
    losses = 0

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = folder / "shared.sqlite"
        self._clock = clock
        self._counters = WorkerCounters()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        """Of the process whose connection it is: SQLite's do not survive a fork."""

    @property
    def counters(self) -> WorkerCounters:
        return self._counters

    async def charge(
        self, name: str, charges: Sequence[Charge], mode: Mode = "admit", where: int | None = None
    ) -> Outcome:
        return self._counters.charge(name, charges, self._clock(), mode)

    @contextmanager
    def _step(self) -> Iterator[sqlite3.Connection]:
        """One transaction, without what has ended."""
        try:
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute("DELETE FROM kept WHERE ends <= ?", (self._clock(),))
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as fault:
            log.error("what the workers share cannot be used: %s", type(fault).__name__)
            raise Unavailable from fault

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            self._connection = sqlite3.connect(self._file, timeout=_PATIENCE_S, isolation_level=None)
            self._pid = os.getpid()
            self._connection.executescript(_TABLES)
        return self._connection

    async def put(self, name: str, value: bytes, ttl_s: float) -> None:
        with self._step() as step:
            step.execute("REPLACE INTO kept VALUES (?, ?, ?)", (name, value, self._clock() + ttl_s))

    async def get(self, name: str) -> bytes | None:
        with self._step() as step:
            return _value(step, name)

    async def take(self, name: str) -> bytes | None:
        with self._step() as step:
            value = _value(step, name)
            step.execute("DELETE FROM kept WHERE name = ?", (name,))
            return value

    async def delete(self, name: str) -> bool:
        return await self.take(name) is not None

    async def join(self, group: str, member: str, ttl_s: float, limit: int | None = None) -> bool:
        now = self._clock()
        with self._step() as step:
            step.execute("DELETE FROM members WHERE of_group = ? AND ends <= ?", (group, now))
            found = "SELECT count(*) FROM members WHERE of_group = ? AND member = ?"
            if limit is not None and not step.execute(found, (group, member)).fetchone()[0]:
                there = step.execute("SELECT count(*) FROM members WHERE of_group = ?", (group,)).fetchone()[0]
                if there >= limit:
                    return False
            step.execute("REPLACE INTO members VALUES (?, ?, ?)", (group, member, now + ttl_s))
            return True

    async def leave(self, group: str, member: str) -> None:
        with self._step() as step:
            step.execute("DELETE FROM members WHERE of_group = ? AND member = ?", (group, member))

    async def count(self, group: str) -> int:
        with self._step() as step:
            query = "SELECT count(*) FROM members WHERE of_group = ? AND ends > ?"
            return int(step.execute(query, (group, self._clock())).fetchone()[0])

    async def close(self) -> None:
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()
        self._connection = None


def _value(step: sqlite3.Connection, name: str) -> bytes | None:
    found = step.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
    return None if found is None else bytes(found[0])
