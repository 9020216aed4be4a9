"""Counters of quotas in memory that forked processes share (POSIX)."""

from __future__ import annotations

import fcntl
import math
import mmap
import tempfile
import weakref
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vivavoce.gateway.quota import CELLS, Counters


class SharedCounters(Counters):
    """Counters in memory that this process shares with those that it forks afterwards.

    ``names``: of all deployments. A worker that dies gives its lock back, and has taken what it took.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._memory = mmap.mmap(-1, max(1, len(names)) * CELLS * 8)
        numbers = memoryview(self._memory).cast("d")
        for at, name in enumerate(names):
            self._cells[name] = numbers[at * CELLS : (at + 1) * CELLS]
            self._cells[name][:] = array("d", [math.nan] * CELLS)
        # Locks of fcntl belong to a process, unlike those of flock, which forked processes would hold together.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    @contextmanager
    def lock(self) -> Iterator[None]:
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
