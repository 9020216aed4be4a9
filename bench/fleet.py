"""The real server with several workers and stand-in engines: ``python -m bench.fleet --workers 2``.

Prints its port when all workers are ready, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.server import settings
from vivavoce.gateway.shared.workers import WorkersState
from vivavoce.server.supervisor import Supervisor, listen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    config = settings(10_000)

    def work(control: socket.socket) -> int:
        import uvloop

        from bench.stubs import registry
        from vivavoce.server.worker import work

        # None of the stand-ins is heavy, so there is no host.
        return uvloop.run(work(config, control, shared, Path("unused"), registry()))

    listener = listen("127.0.0.1", 0)
    with tempfile.TemporaryDirectory(prefix="vivavoce-") as folder:
        shared = WorkersState(Path(folder))
        return Supervisor(
            listener,
            work,
            count=chosen.workers,
            grace_s=5,
            on_ready=lambda: print(listener.getsockname()[1], flush=True),
        ).run()


if __name__ == "__main__":
    sys.exit(main())
