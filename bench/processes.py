"""The server and the load generator as processes, and the two of them together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

SERVER_CORE: Final = 1
LOAD_CORE: Final = 0


class Server:
    """``bench.server``, or another program that speaks like it, on one core; a context manager."""

    def __init__(self, module: str = "bench.server", *, core: int | None = SERVER_CORE) -> None:
        pin = [] if core is None else ["--core", str(core)]
        command = [sys.executable, "-m", module, *pin]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin
        assert self._process.stdout
        self._asks, self._answers = self._process.stdin, self._process.stdout
        self.port = int(self._answers.readline())

    def usage(self, *, tidy: bool = False) -> dict[str, Any]:
        """See ``bench.server.usage``; with ``at``, seconds of this clock. ``tidy``: what is free is given back."""
        self._asks.write("tidy\n" if tidy else "\n")
        self._asks.flush()
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return {**answer, "at": time.monotonic()}

    def url(self, deployment: str) -> str:
        return _url(self.port, deployment)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._asks.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise


def _url(port: int, deployment: str) -> str:
    query = f"api-version=2024-10-01-preview&deployment={deployment}"
    return f"ws://127.0.0.1:{port}/openai/realtime?{query}"


class Fleet:
    """``bench.fleet``: a supervisor and its workers, on whatever cores there are; a context manager."""

    def __init__(self, workers: int) -> None:
        command = [sys.executable, "-m", "bench.fleet", "--workers", str(workers)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())

    def url(self, deployment: str) -> str:
        return _url(self.port, deployment)

    def usage(self) -> dict[str, Any]:
        """CPU seconds and resident KB of the supervisor and its workers; ``at``, seconds of this clock."""
        stats = [stat(pid) for pid in (self._process.pid, *_children(self._process.pid))]
        cpu, resident = (sum(column) for column in zip(*stats, strict=True))
        return {"cpu_s": cpu, "rss_kb": resident, "at": time.monotonic()}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stat(pid: int) -> tuple[float, int]:
    """CPU seconds and resident KB of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks, pages = int(fields[11]) + int(fields[12]), int(fields[21])
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") // 1024


@dataclass(frozen=True)
class Run:
    """One run of the generator against a server."""

    load: dict[str, Any]
    cpu_ms_per_session_s: float
    cores: float
    """CPU seconds per second that the server used."""
    rss_kb: int
    """Of the server, at the end, the callers still connected."""


class Load:
    """``bench.load`` on one core."""

    def __init__(self, url: str, callers: int, *arguments: str) -> None:
        self.callers = callers
        command = [sys.executable, "-m", "bench.load", "--core", str(LOAD_CORE), "--url", url]
        self._process = subprocess.Popen(
            [*command, "--callers", str(callers), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, word: str) -> None:
        """Until the generator says that it has come so far."""
        assert self._process.stderr
        said = []
        for line in self._process.stderr:
            if line.strip() == word:
                return
            said.append(line)
        raise RuntimeError(f"the load generator ended before {word!r}: {''.join(said)[-2000:]}")

    def finish(self) -> dict[str, Any]:
        """Let it hang up, and have its results."""
        output, complaint = self._process.communicate("\n", timeout=60)
        if self._process.returncode:
            raise RuntimeError(f"the load generator failed: {complaint[-2000:]}")
        results: dict[str, Any] = json.loads(output)
        return results


class Measured(Protocol):
    """A server, as far as a run needs it."""

    def usage(self) -> dict[str, Any]:
        """``cpu_s``, CPU seconds used so far; ``rss_kb``, resident KB; ``at``, seconds of this clock."""


def measure(server: Measured, url: str, callers: int, *arguments: str) -> Run:
    """One run: what the callers saw at this URL of the server, and what the server used meanwhile."""
    load = Load(url, callers, *arguments)
    load.wait_for("begin")
    before = server.usage()
    load.wait_for("end")
    after = server.usage()
    seconds = after["at"] - before["at"]
    cores = (after["cpu_s"] - before["cpu_s"]) / seconds
    return Run(load.finish(), round(cores / callers * 1000, 2), round(cores, 3), after["rss_kb"])
