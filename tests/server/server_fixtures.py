"""Fixtures of this folder. A module takes them by assignment: ``fakes = server_fixtures.fakes``."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from server_fakes import Fakes, config, serving

from vivavoce.engines.registry import Registry
from vivavoce.server.app import Server


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """The only engines of the servers of this test."""
    fakes = Fakes()
    monkeypatch.setattr(Registry, "installed", lambda: fakes)
    return fakes


@pytest_asyncio.fixture
async def server(fakes: Fakes) -> AsyncIterator[Server]:
    """On these engines, for this test alone."""
    async with serving(config()) as server:
        yield server
