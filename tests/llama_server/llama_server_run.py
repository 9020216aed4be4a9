"""The engine ``openai_compatible`` with a server that others wrote: that of llama.cpp, with a model made here.

``python tests/llama_server/llama_server_run.py [--install] [PYTEST ARGUMENT ...]``, in the environment of the other
tests. An environment is made under ``.engines/llama-server`` from ``requirements.lock``, and made anew when that
changes; it is a download of 70 MB and takes some seconds, once. The server runs in it, in a process of its own
(``serve.py``); the tests of this folder, ``*_aloud.py``, run where the others do. ``--install`` stops before them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
PLACE: Final = HERE.parents[1] / ".engines" / "llama-server"
LOCK: Final = HERE / "requirements.lock"
INSTALL_S: Final = 600
TESTS_S: Final = 300
"""When something hangs, not when it is slow."""


def main(argv: Sequence[str]) -> int:
    python = environment()
    if argv[:1] == ["--install"]:
        sys.stdout.write(f"{python}\n")
        return 0
    tests = [str(test) for test in sorted(HERE.glob("*_aloud.py"))]
    command = [sys.executable, "-m", "pytest", *(argv or tests)]
    return subprocess.run(
        command, check=False, timeout=TESTS_S, env=os.environ | {"LLAMA_SERVER_PYTHON": python}
    ).returncode


def environment() -> str:
    """The interpreter of the environment, which is made where it is missing or old."""
    python = str(PLACE / "bin" / "python")
    stamp = PLACE / "installed"
    digest = hashlib.sha256(LOCK.read_bytes() + f"\0{sys.version}\n{sys.executable}".encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    sys.stderr.write("Installing the server of llama.cpp into .engines, once.\n")
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.parent.mkdir(exist_ok=True)
    _do([sys.executable, "-m", "venv", str(PLACE)])
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    _do([*pip, "--require-hashes", "-r", str(LOCK)])
    stamp.write_text(digest)
    return python


def _do(command: list[str]) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
