"""An event loop whose clock stands still until it is told to go on.

Sockets, threads and tasks work as ever; timers fire only when :meth:`VirtualTimeLoop.advance` passes them, so half
an hour of session lifetime takes no time, and no timer fires by accident on a slow machine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

PATIENCE_S: Final = 30.0
"""Seconds of the real clock after which :func:`run` takes a program for stuck."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """``loop.time()`` begins at 0 and moves by :meth:`advance` alone."""

    def __init__(self) -> None:
        self._virtual_now = 0.0
        super().__init__()

    def time(self) -> float:
        return self._virtual_now

    def advance(self, seconds: float) -> None:
        """Move the clock on; what is due by then is run by the loop next, in order."""
        if seconds < 0:
            raise ValueError("the clock never goes back")
        self._virtual_now += seconds


def now() -> float:
    """The clock of the running loop, seconds."""
    return asyncio.get_running_loop().time()


def advance(seconds: float) -> None:
    """Move the clock of the running :class:`VirtualTimeLoop` on."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.advance(seconds)


def run(main: Coroutine[Any, Any, _T], *, patience_s: float = PATIENCE_S) -> _T:
    """Run ``main`` on a new :class:`VirtualTimeLoop`, as ``asyncio.run`` does.

    Raises TimeoutError when it takes more than ``patience_s`` of real time: on a clock that stands still, whoever
    waits for a timer that nobody lets come waits for ever.
    """
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner, _watch(runner.get_loop(), patience_s) as stuck:
        try:
            return runner.run(main)
        except asyncio.CancelledError:
            if stuck.is_set():
                raise TimeoutError(f"nothing more happened in {patience_s} s") from None
            raise


@contextmanager
def _watch(loop: asyncio.AbstractEventLoop, patience_s: float) -> Iterator[threading.Event]:
    stuck = threading.Event()

    def wake() -> None:
        stuck.set()
        for task in asyncio.all_tasks(loop):
            task.cancel()

    timer = threading.Timer(patience_s, loop.call_soon_threadsafe, (wake,))
    timer.daemon = True
    timer.start()
    try:
        yield stuck
    finally:
        timer.cancel()
