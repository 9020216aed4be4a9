"""Deployments and accounts that come and go while the server runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
import server_fixtures
from aiohttp import ClientSession, WSServerHandshakeError
from server_fakes import AZURE, KEY, NAME, Wire, config, serving

from vivavoce.config import AccountSettings, Config, Secret, StoreSettings
from vivavoce.gateway.resource import Account, DeploymentRecord, Model, Sku
from vivavoce.gateway.store.base import Actor
from vivavoce.server.app import Server

fakes = server_fixtures.fakes

ANN = Actor("ann", "User")


def with_store(folder: Path) -> Config:
    return msgspec.structs.replace(
        config(),
        store=StoreSettings(url=Secret(f"sqlite:///{folder}/store.db"), secret=Secret("s" * 32)),
        more_accounts=(
            AccountSettings(
                name="bank", subscription="s", resource_group="g", location="l", tenant="t", keys=(Secret("b4nk"),)
            ),
        ),
    )


@pytest_asyncio.fixture
async def server(fakes: object, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(with_store(tmp_path)) as server:
        yield server


def record(server: Server, name: str, account: str = "") -> DeploymentRecord:
    return DeploymentRecord(
        account=account or server.store.current.accounts[0].id,
        name=name,
        sku=Sku("GlobalStandard", 100),
        model=Model("of-our-own", "1"),
        recipe=f"vivavoce/{NAME}",
    )


@asynccontextmanager
async def connected(server: Server, name: str, **headers: str) -> AsyncIterator[Wire]:
    url = f"http://127.0.0.1:{server.port}{AZURE.replace(NAME, name)}"
    async with (
        ClientSession() as client,
        client.ws_connect(url, headers=headers or {"api-key": KEY}) as socket,
    ):
        yield Wire(socket)


async def refused(server: Server, name: str, **headers: str) -> int:
    with pytest.raises(WSServerHandshakeError) as fault:
        async with connected(server, name, **headers):
            pytest.fail("it is open")
    return fault.value.status


async def model_of(wire: Wire) -> str:
    created = await wire.next()
    assert created["type"] == "session.created"
    return str(created["session"]["model"])


async def test_a_deployment_that_is_made_while_the_server_runs_can_be_connected_to(server: Server) -> None:
    assert await refused(server, "new") == 404
    await server.store.put_deployment(record(server, "new"), by=ANN)
    async with connected(server, "new") as wire:
        assert await model_of(wire) == "of-our-own-1"
        await wire.until("conversation.created")
        await wire.send("response.create")
        assert (await wire.until("response.done"))[-1]["response"]["status"] == "completed"


async def test_a_session_outlives_its_deployment(server: Server) -> None:
    await server.store.put_deployment(record(server, "new"), by=ANN)
    async with connected(server, "new") as wire:
        await wire.until("conversation.created")
        await server.store.delete_deployment(server.store.current.accounts[0].id, "new")
        assert await refused(server, "new") == 404
        await wire.send("response.create")
        assert (await wire.until("response.done"))[-1]["response"]["status"] == "completed"


async def test_an_account_is_meant_by_its_host_and_opened_by_its_keys(server: Server) -> None:
    shop = Account(subscription="s", resource_group="g", name="shop", location="l", tenant="t")
    await server.store.put_account(shop, by=ANN)
    await server.store.put_deployment(record(server, "till", shop.id), by=ANN)
    key = (await server.store.keys(shop.id))["key1"].reveal()
    host = "shop.openai.azure.com"
    for headers in ({"api-key": key}, {"api-key": key, "Host": host}):
        async with connected(server, "till", **headers) as wire:
            await model_of(wire)
    assert await refused(server, NAME, **{"api-key": key}) == 404
    assert await refused(server, "till") == 404
    assert await refused(server, "till", Host=host, **{"api-key": KEY}) == 401
    assert await refused(server, NAME, Host="bank.example", **{"api-key": KEY}) == 401
    await server.store.regenerate_key(shop.id, "key1")
    assert await refused(server, "till", **{"api-key": key}) == 401


async def test_what_was_made_is_there_after_a_restart(fakes: object, tmp_path: Path) -> None:
    settings = with_store(tmp_path)
    async with serving(settings) as server:
        await server.store.put_deployment(record(server, "new"), by=ANN)
    async with serving(settings) as server, connected(server, "new") as wire:
        await model_of(wire)


async def test_what_a_deployment_is_used_for_is_kept(fakes: object, tmp_path: Path) -> None:
    """Written when the server ends, at the latest."""
    settings = with_store(tmp_path)
    async with serving(settings) as server:
        account = server.store.current.accounts[0].id
        async with connected(server, NAME) as wire:
            await wire.until("conversation.created")
            spent = []
            for _ in range(2):
                await wire.send("response.create")
                spent.append((await wire.until("response.done"))[-1]["response"]["usage"])
    day = timedelta(days=1)
    now = datetime.now(UTC)
    async with serving(settings) as server:
        usages = await server.store.usage(account, now - day, now + day)
    assert {one.deployment for one in usages} == {f"{account}/deployments/{NAME}"}
    assert sum(one.requests for one in usages) == 2
    assert sum(one.input_tokens for one in usages) == sum(one["input_tokens"] for one in spent)
    assert sum(one.output_tokens for one in usages) == sum(one["output_tokens"] for one in spent) > 0
