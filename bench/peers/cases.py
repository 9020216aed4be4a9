"""The load of this repository on the servers of others, each in an environment of its own: see README.md here."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench.cases import LATE_MS
from bench.processes import SERVER_CORE, Run, measure, stat
from bench.report import Figures

PYTHON: Final = Path(__file__).parent / ".venv" / "bin" / "python"
SESSIONS: Final = (1, 2, 4, 6, 8, 10, 15, 20, 25, 30, 40)
_START_S: Final = 120
_LOAD: Final = (
    *("--dialect", "ga"),
    *("--chunk-ms", "20"),
    *("--seconds", "25"),
    # Its resampler keeps the last 0.6 ms back until it has heard what follows.
    *("--look-ahead-ms", "1"),
)


def missing() -> str | None:
    """Why the peer cannot be measured here; None: it can."""
    return None if PYTHON.exists() else "there is no bench/peers/.venv; bench/peers/README.md says how to make it"


class Peer:
    """``bench.peers.s2s`` on one core, with a pipeline for each session; a context manager."""

    def __init__(self, sessions: int) -> None:
        self._port = _free_port()
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed when the peer is
        command = [str(PYTHON), "-m", "bench.peers.s2s", "--core", str(SERVER_CORE)]
        self._process = subprocess.Popen(
            [*command, "--port", str(self._port), "--sessions", str(sessions)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._port}/v1/realtime"

    def usage(self) -> dict[str, Any]:
        """CPU seconds and resident KB of the process; ``at``, seconds of this clock."""
        cpu, resident = stat(self._process.pid)
        return {"cpu_s": cpu, "rss_kb": resident, "at": time.monotonic()}

    def _wait(self) -> None:
        """Until it says that its pool is open."""
        end = time.monotonic() + _START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/v1/pool", timeout=5) as answer:
                    json.load(answer)
                    return
            except OSError:
                time.sleep(0.2)
        self._log.seek(0)
        raise RuntimeError(f"the peer did not start: {self._log.read()[-2000:]}")

    def __enter__(self) -> Self:
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def at_callers(callers: int) -> Run:
    """A run at 20 ms chunks on a fresh server whose pool is as large as the load."""
    with Peer(callers) as peer:
        return measure(peer, peer.url, callers, *_LOAD)


def holds(run: Run, callers: int) -> bool:
    """Whether nobody was lost, all turns were heard, and 99 of 100 of them in time."""
    load = run.load
    if load["failed"] or load["hung_up"] or load["errors"] or load["lateness_ms"] is None:
        return False
    # The end of each caller's last turn may still be on its way.
    heard: bool = load["turns"] >= load["turns_sent"] - callers
    return heard and bool(load["lateness_ms"]["p99"] <= LATE_MS)


def capacity() -> Figures:
    """The most sessions of :data:`SESSIONS` that one core holds, found by halving, and how late the next step is.

    The other figures are of the run at that number, or at the smallest when it holds none.
    """
    runs: dict[int, Run] = {}
    low, high = 0, len(SESSIONS)
    while low < high:
        middle = (low + high) // 2
        callers = SESSIONS[middle]
        run = runs[callers] = at_callers(callers)
        late = run.load["lateness_ms"] and run.load["lateness_ms"]["p99"]
        print(f"{callers} sessions: p99 {late} ms, generator {run.load['send_late_ms']['p99']} ms", flush=True)
        low, high = (middle + 1, high) if holds(run, callers) else (low, middle)
    held = SESSIONS[low - 1] if low else 0
    run = runs[held or SESSIONS[0]]
    beyond = runs[SESSIONS[low]].load if low < len(SESSIONS) else {"lateness_ms": None}
    load = run.load
    return {
        "sessions held at 20 ms chunks": held,
        **_percentiles("lateness", load["lateness_ms"]),
        **_percentiles("first audio", load["first_audio_ms"]),
        **_percentiles("at the next step, lateness", beyond["lateness_ms"]),
        "generator p99 ms": load["send_late_ms"]["p99"],
        "server CPU ms per session-second": run.cpu_ms_per_session_s,
        "server cores": run.cores,
        "resident MB": run.rss_kb / 1024,
        "turns sent to their end": load["turns_sent"],
        "turns": load["turns"],
    }


def _percentiles(name: str, found: dict[str, float] | None) -> Figures:
    wanted = ("p50", "p95", "p99")
    return {f"{name} {which} ms": found[which] if found else float("nan") for which in wanted}
