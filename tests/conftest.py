"""Settings that all tests share."""

from __future__ import annotations

import os
import platform
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from postgres_server import Postgres

_PROJECT: Final = Path(__file__).parent.parent / "pyproject.toml"

settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "ci", parent=settings.get_profile("dev"), derandomize=True, database=None, print_blob=True
)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Modules of these folders are used in others too: the fake server, the table of the preview dialect, tiny models.
sys.path += [
    str(Path(__file__).parent / folder)
    for folder in ("server", "compat", "models", "engines", "clients", "gateway")
]

# The package of the extra ``noise-reduction`` is made for these alone.
_REDUCES_NOISE: Final = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
collect_ignore = (
    [] if _REDUCES_NOISE else ["audio/test_noise_reduction.py", "runtime/test_noise_reduction_aloud.py"]
)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real one for all tests; each makes a database of its own."""
    from postgres_server import postgres

    with postgres() as server:
        yield server


def pytest_configure() -> None:
    """Engines are found by what was installed, which an editable installation does not keep up to date."""
    announced = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["entry-points"]
    for group, engines in announced.items():
        missing = engines.keys() - entry_points(group=group).names
        if missing:
            pytest.exit(f"{group} {', '.join(sorted(missing))}: not installed; run `pip install --no-deps -e .`", 2)
