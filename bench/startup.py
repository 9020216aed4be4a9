"""How long the server takes to be ready, and what an installation weighs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from bench.report import Figures

_PORT: Final = 18473
_READY_S: Final = 60.0
_STOP_S: Final = 30.0


def ready() -> Figures:
    """From ``vivavoce serve`` with the built-in engines to the first good answer of ``/readyz``, and to the end."""
    serve = [str(Path(sys.executable).with_name("vivavoce")), "serve", "--port", str(_PORT), "--api-key", "bench"]
    began = time.monotonic()
    process = subprocess.Popen([*serve, "--log-level", "warning"], stdout=subprocess.DEVNULL)
    try:
        while not _is_ready():
            if time.monotonic() - began > _READY_S or process.poll() is not None:
                raise RuntimeError("the server did not become ready")
            time.sleep(0.005)
        took = time.monotonic() - began
    finally:
        asked = time.monotonic()
        process.terminate()
        process.wait(_STOP_S)
    return {"start s": took, "stop s": time.monotonic() - asked}


def _is_ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{_PORT}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def imports() -> Figures:
    """Seconds of ``vivavoce --version``, which every command pays."""
    command = [str(Path(sys.executable).with_name("vivavoce")), "--version"]
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONNOUSERSITE": "1"})
    return {"vivavoce --version s": time.monotonic() - began}


def install_size() -> Figures:
    """The packages that ``pip install vivavoce`` brings, on this platform, and the files they hold."""
    names, waiting = set[str](), ["vivavoce"]
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        try:
            requires = distribution(name).requires or []
        except PackageNotFoundError:
            # Wanted on other platforms only.
            continue
        names.add(name)
        waiting += [_name(line) for line in requires if "extra ==" not in line]
    size = sum(_bytes(name) for name in names)
    return {"packages": len(names), "installed MB": round(size / 1e6, 1)}


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def _bytes(name: str) -> int:
    files = distribution(name).files or []
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")
