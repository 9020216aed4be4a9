"""Every golden script, on the pure session and on the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivavoce.testing.pure_runner import run_pure
from vivavoce.testing.script import load
from vivavoce.testing.socket_runner import run_on_server

_FOLDER = Path(__file__).parent / "scripts"
_SCRIPTS = sorted(_FOLDER.rglob("*.rts"))


def _name(path: Path) -> str:
    return path.relative_to(_FOLDER).with_suffix("").as_posix()


@pytest.mark.parametrize("path", _SCRIPTS, ids=_name)
def test_on_the_pure_session(path: Path) -> None:
    run_pure(load(path))


@pytest.mark.parametrize("path", [p for p in _SCRIPTS if not load(p).settings.pure_only], ids=_name)
def test_on_the_server(path: Path) -> None:
    run_on_server(load(path))
