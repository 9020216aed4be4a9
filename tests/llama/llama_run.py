"""The engine ``llama_cpp`` with the real llama.cpp: it is built from source, so it is no part of `make test`.

``python tests/llama/llama_run.py [--install] [PYTEST OPTION ...]``, in the environment of the other tests.
An environment is made under ``.engines/llama-cpp`` from ``requirements.lock``, and made anew when that changes; it
needs a C++ compiler and takes one to five minutes, once. It sees the packages of the environment that it was made
from, after its own. Then the tests of this folder, ``*_aloud.py``, run in it. ``--install`` stops before them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
PLACE: Final = HERE.parents[1] / ".engines" / "llama-cpp"
LOCK: Final = HERE / "requirements.lock"
HOOK: Final = HERE / "no_common.cmake"
INSTALL_S: Final = 1800
TESTS_S: Final = 600
"""When something hangs, not when it is slow."""

# Built quickly, for any processor of its kind: the model of the tests needs no speed.
_CMAKE: Final = (
    *("-DLLAVA_BUILD=OFF", "-DGGML_NATIVE=OFF", "-DGGML_OPENMP=OFF", "-DGGML_LLAMAFILE=OFF", "-DLLAMA_OPENSSL=OFF"),
    *("-DCMAKE_C_FLAGS_RELEASE=-O0", "-DCMAKE_CXX_FLAGS_RELEASE=-O0"),
    f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={HOOK}",
)


def main(argv: Sequence[str]) -> int:
    python = _environment()
    if argv[:1] == ["--install"]:
        sys.stdout.write(f"{python}\n")
        return 0
    tests = [str(test) for test in sorted(HERE.glob("*_aloud.py"))]
    return subprocess.run([python, "-m", "pytest", *argv, *tests], check=False, timeout=TESTS_S).returncode


def _environment() -> str:
    """The interpreter of the environment, which is made where it is missing or old."""
    python = str(PLACE / "bin" / "python")
    stamp = PLACE / "installed"
    wanted = [LOCK.read_bytes(), HOOK.read_bytes(), "\n".join((*_CMAKE, sys.version, sys.executable)).encode()]
    digest = hashlib.sha256(b"\0".join(wanted)).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return python
    sys.stderr.write("Building llama.cpp into .engines; this takes one to five minutes, once.\n")
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.parent.mkdir(exist_ok=True)
    _do([sys.executable, "-m", "venv", str(PLACE)])
    environment = os.environ | {
        "CMAKE_ARGS": " ".join(_CMAKE),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1),
    }
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    _do([*pip, "--require-hashes", "-r", str(LOCK)], environment)
    # Its own packages come first. A plain path would leave out vivavoce, which a .pth file of that folder names.
    (packages,) = PLACE.glob("lib/python3*/site-packages")
    theirs = sysconfig.get_path("purelib")
    (packages / "zz-vivavoce.pth").write_text(f"import site; site.addsitedir({theirs!r})\n")
    stamp.write_text(digest)
    return python


def _do(command: list[str], environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, timeout=INSTALL_S, stdin=subprocess.DEVNULL, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
