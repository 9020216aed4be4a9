"""What one process mints, all others know, and none of what they share has the secret in it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
from redis_server import RedisServer, redis_server

from vivavoce.gateway.auth import Credential
from vivavoce.gateway.client_secrets import ClientSecrets
from vivavoce.gateway.principals import Principal
from vivavoce.gateway.shared.base import SharedState
from vivavoce.gateway.shared.redis import RedisState
from vivavoce.gateway.shared.workers import WorkersState

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no Redis to start, and no fork")

NOW: Final = 1_700_000_000.0


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as server:
        yield server


@pytest.fixture(params=["workers", "redis"])
async def two(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[SharedState, SharedState]]:
    """The state, as two processes have it."""
    if request.param == "workers":
        one: SharedState = WorkersState(tmp_path, lambda: 0.0)
        other: SharedState = WorkersState(tmp_path, lambda: 0.0)
    else:
        server: RedisServer = request.getfixturevalue("redis")
        one, other = (RedisState(server.url, prefix="v", on_loss="closed") for _ in range(2))
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()


async def test_all_processes_know_it(two: tuple[SharedState, SharedState]) -> None:
    minting, opening = (ClientSecrets(state, lambda: NOW) for state in two)
    secret, grant = await minting.mint(
        account="a", deployment="voice", dialect="ga", kind="realtime", body=b"{}", seconds=600, minted_by="key:1"
    )
    found = await opening.identify(Credential(secret, "subprotocol"), None)
    assert isinstance(found, Principal)
    assert found.grant == grant


def test_a_file_of_the_workers_has_no_secret(tmp_path: Path) -> None:
    async def mint() -> str:
        state = WorkersState(tmp_path, lambda: 0.0)
        secret, _ = await ClientSecrets(state, lambda: NOW).mint(
            account="a", deployment="voice", dialect="ga", kind="realtime", body=b"{}", seconds=600, minted_by="k"
        )
        await state.close()
        return secret

    secret = asyncio.run(mint())
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"voice" in kept
    assert secret.removeprefix("ek_").encode() not in kept
