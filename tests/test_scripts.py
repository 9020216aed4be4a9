"""Every golden script, on the pure session and on the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from vivavoce.testing.in_ga import in_ga
from vivavoce.testing.pure_runner import run_pure
from vivavoce.testing.script import load
from vivavoce.testing.socket_runner import run_on_server

_FOLDER = Path(__file__).parent / "scripts"
_SCRIPTS = {path.relative_to(_FOLDER).with_suffix("").as_posix(): load(path) for path in _FOLDER.rglob("*.rts")}
_SCRIPTS |= {f"{name} in GA": in_ga(script) for name, script in _SCRIPTS.items() if script.settings.both}
_NAMES = sorted(_SCRIPTS)


@pytest.mark.parametrize("name", _NAMES)
def test_on_the_pure_session(name: str) -> None:
    run_pure(_SCRIPTS[name])


@pytest.mark.parametrize("name", [name for name in _NAMES if not _SCRIPTS[name].settings.pure_only])
def test_on_the_server(name: str) -> None:
    run_on_server(_SCRIPTS[name])
