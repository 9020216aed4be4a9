"""llama.cpp's own HTTP server, which ``xllamacpp`` brings as a library, with the model of ``tests/models``.

``python serve.py FOLDER KEY``: writes the model into FOLDER, serves it on a free port, says the URL in one line on
standard output, and ends when standard input does.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "models"))

import xllamacpp
from tiny_gguf import write_model


def main(folder: Path, key: str) -> None:
    model = folder / "tiny.gguf"
    write_model(model)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.port = _free_port()
    params.api_keys = [key]
    params.n_ctx = 4096
    params.n_parallel = 2
    params.warmup = False
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}/v1\n")
    sys.stdout.flush()
    sys.stdin.read()


def _free_port() -> int:
    """It cannot choose one itself and tell."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
