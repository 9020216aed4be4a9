"""Upgrades and ends of deployments, as those see it who connect."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import pytest_asyncio
import server_fixtures
from server_fakes import NAME, serving
from test_stored_deployments import ANN, connected, model_of, record, refused, with_store

from vivavoce.config import AuditSettings, Config, ModelsSettings
from vivavoce.gateway.audit import open_audit
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.models.upgrades import Upgrades
from vivavoce.gateway.resource import DeploymentRecord, Model
from vivavoce.server.app import Server

fakes = server_fixtures.fakes

TODAY: Final = dt.datetime.now(dt.UTC).date()
PAST, LONG_AGO, FUTURE = (TODAY + dt.timedelta(days=days) for days in (-9, -99, 99))


def version(name: str, **dates: dt.date) -> dict[str, Any]:
    return {"version": name, "stage": "Preview", "source": "own", **dates}


OWN: Final[dict[str, Any]] = {
    "source": {"own": {"title": "T", "url": "https://example.org", "date": LONG_AGO, "evidence": "own"}},
    "model": [
        {
            "name": "voice",
            "capabilities": ["realtime"],
            "default": [{"version": "1", "since": LONG_AGO}, {"version": "2", "since": PAST}],
            "version": [version("1", retirement=PAST), version("2", retirement=FUTURE)],
        }
    ],
}


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    return msgspec.structs.replace(
        with_store(tmp_path),
        audit=AuditSettings(path=str(tmp_path / "audit.jsonl")),
        models=ModelsSettings(catalogue="own.toml"),
        own_models=OWN,
    )


@pytest_asyncio.fixture
async def server(fakes: object, settings: Config) -> AsyncIterator[Server]:
    async with serving(settings) as server:
        yield server


def of_version_1(server: Server, name: str) -> DeploymentRecord:
    return replace(record(server, name), model=Model("voice", "1"))


def audited(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text(encoding="ascii").splitlines()]


async def test_sessions_keep_the_version_that_they_began_with(server: Server, settings: Config) -> None:
    await server.store.put_deployment(of_version_1(server, "mine"), by=ANN)
    with open_audit(settings.audit) as audit:
        async with connected(server, "mine") as old:
            assert await model_of(old) == "voice-1", "it works until it is upgraded"
            await old.until("conversation.created")
            await Upgrades(server.store, Rules.of(settings), audit).look()
            async with connected(server, "mine") as new:
                assert await model_of(new) == "voice-2"
            await old.send("session.update", session={"instructions": "Be brief."})
            assert (await old.until("session.updated"))[-1]["session"]["model"] == "voice-1"
            await old.send("response.create")
            assert (await old.until("response.done"))[-1]["response"]["status"] == "completed"


async def test_a_server_upgrades_by_itself(fakes: object, settings: Config, tmp_path: Path) -> None:
    async with serving(settings) as server:
        await server.store.put_deployment(of_version_1(server, "mine"), by=ANN)
        account = server.store.current.accounts[0].id
    # The next process finds what became due while there was none.
    async with serving(settings) as server:
        upgraded = asyncio.Event()
        server.store.follow(lambda directory: upgraded.set())
        while (found := server.store.current.deployment(account, "mine")) is None or found.model.version != "2":
            await upgraded.wait()
        async with connected(server, "mine") as wire:
            assert await model_of(wire) == "voice-2"
    (upgrade,) = [one for one in audited(tmp_path) if one["actor"]["kind"] == "server"]
    assert upgrade["target"] == f"{account}/deployments/mine"
    assert upgrade["details"] == {"model": "voice", "version": "2", "version_before": "1"}


async def test_a_deployment_that_ends_refuses_whoever_comes(server: Server) -> None:
    ending = replace(of_version_1(server, "mine"), version_upgrade_option="NoAutoUpgrade")
    await server.store.put_deployment(ending, by=ANN)
    assert await refused(server, "mine") == 410
    async with connected(server, NAME) as declared:
        assert (await model_of(declared)).startswith(NAME), "what the file declares lives on"
