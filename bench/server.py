"""The real server with stand-in engines, as a process of its own: ``python -m bench.server``.

Prints its port when it is ready, then one line of JSON for each line that it reads: what the process holds and has
used so far, after it was tidied up where the line says ``tidy``. Ends when its input does. The deployments are
``prompt``, ``paced`` and ``steady`` (see ``stubs``), and ``ahead``, which is steady and speculates.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from vivavoce.config import Config, DeploymentSettings, Secret, ServerSettings

KEY: Final = "bench"
SYNTHESIZERS: Final = ("prompt", "paced")


def settings(max_sessions: int) -> Config:
    deployments = tuple(
        DeploymentSettings(
            name=name,
            profile="azure-2024-12-17",
            transcriber="standin",
            language_model="standin",
            synthesizer=name,
            capacity=10_000_000,
        )
        for name in SYNTHESIZERS
    )
    deployments += tuple(
        DeploymentSettings(
            name=name,
            profile="azure-2024-12-17",
            transcriber="steady",
            language_model="steady",
            synthesizer="steady",
            capacity=10_000_000,
            speculate=name == "ahead",
        )
        for name in ("steady", "ahead")
    )
    server = ServerSettings(port=0, max_sessions=max_sessions, log_level="warning")
    return Config(server=server, deployments=deployments).with_keys(Secret(KEY))


def usage(sessions: int) -> dict[str, Any]:
    """What this process has used: CPU seconds, resident memory in KB, sessions."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024
    return {"cpu_s": used.ru_utime + used.ru_stime, "rss_kb": resident, "sessions": sessions}


def tidy() -> None:
    """Give back to the system what the process holds and does not use, as far as the system's allocator can."""
    gc.collect()
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back is not None:
        give_back(0)


async def main(max_sessions: int) -> None:
    from bench.stubs import registry
    from vivavoce.server.app import running

    async with running(settings(max_sessions), registry=registry()) as server:
        gc.collect()
        gc.freeze()
        print(server.port, flush=True)
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin.buffer
        )
        while line := await lines.readline():
            if line == b"tidy\n":
                tidy()
            print(json.dumps(usage(server.endpoint.open_sessions)), flush=True)


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--max-sessions", type=int, default=10_000)
    chosen = parser.parse_args()
    if chosen.core is not None:
        os.sched_setaffinity(0, {chosen.core})
    uvloop.run(main(chosen.max_sessions))
