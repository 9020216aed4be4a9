"""Upgrades of stored deployments, on a real database."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from sqlalchemy.engine import URL

from vivavoce.config import Config, DeploymentSettings, ModelsSettings, Secret
from vivavoce.gateway.audit import Audit
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.models import upgrades as module
from vivavoce.gateway.models.catalogue import shipped
from vivavoce.gateway.models.upgrades import Upgrades
from vivavoce.gateway.resource import DeploymentRecord, Directory, Model, Sku, VersionUpgradeOption
from vivavoce.gateway.store.base import Actor, Put, StoreUnavailable
from vivavoce.gateway.store.declared import Declared
from vivavoce.gateway.store.sql import SqlStore

DECLARED: Final = Declared(Config(deployments=(DeploymentSettings(name="mine"),)))
ACCOUNT: Final = DECLARED.accounts[0].id
ANN: Final = Actor("ann", "User")
NEW: Final = "OnceNewDefaultVersionAvailable"

DAYS: Final = {
    "before": dt.date(2025, 2, 12),
    "default moves": dt.date(2025, 2, 13),
    "last day": dt.date(2026, 9, 30),
    "retired": dt.date(2026, 10, 1),
}
"""Of gpt-4o 2024-05-13, whose default moves on to 2024-08-06; both retire on one day."""


class Clock:
    def __init__(self) -> None:
        self.day = DAYS["before"]

    def __call__(self) -> dt.date:
        return self.day


class Server:
    """One of the processes that share a database."""

    def __init__(self, store: SqlStore, clock: Clock, policy: str = "stored") -> None:
        self.store = store
        self.lines: list[str] = []
        settings = ModelsSettings(lifecycle=policy)  # type: ignore[arg-type]  # as parametrized
        self.rules = Rules(shipped(), settings, day=clock)
        self.upgrades = Upgrades(store, self.rules, Audit(self.lines.append, lambda: 0.0))

    @property
    def audited(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def clock() -> Clock:
    return Clock()


Open = Callable[[], Any]


@pytest_asyncio.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        @asynccontextmanager
        async def one() -> AsyncIterator[SqlStore]:
            url = URL.create("sqlite", database=str(tmp_path / "store.db"))
            store = await SqlStore.open(url, DECLARED, Secret("a-secret-of-the-tests-0123456789abcdef"))
            try:
                yield store
            finally:
                await store.close()

        async def another() -> SqlStore:
            return await stack.enter_async_context(one())

        yield another


async def put(
    store: SqlStore,
    name: str,
    version: str = "2024-05-13",
    option: VersionUpgradeOption | None = None,
    sku: str = "Standard",
    model: str = "gpt-4o",
) -> Put[DeploymentRecord]:
    record = DeploymentRecord(
        account=ACCOUNT,
        name=name,
        sku=Sku(sku, 50),
        model=Model(model, version),
        recipe="r",
        version_upgrade_option=option,
    )
    return await store.put_deployment(record, by=ANN)


def versions(directory: Directory) -> dict[str, str]:
    return {one.name: one.model.version for one in directory.deployments(ACCOUNT) if not one.declared}


async def test_each_gets_what_its_option_says_on_its_day(opened: Open, clock: Clock) -> None:
    server = Server(await opened(), clock)
    await put(server.store, "new", option=NEW)
    await put(server.store, "expired", option="OnceCurrentVersionExpired")
    await put(server.store, "silent")
    await put(server.store, "never", option="NoAutoUpgrade")
    await put(server.store, "bought", option=NEW, sku="GlobalProvisionedManaged")
    await put(server.store, "own", "1", NEW, model="own-model")
    await server.upgrades.look()
    before = versions(server.store.current)
    assert set(before.values()) == {"2024-05-13", "1"}
    clock.day = DAYS["default moves"]
    await server.upgrades.look()
    assert versions(server.store.current) == before | {"new": "2024-08-06"}
    clock.day = DAYS["last day"]
    await server.upgrades.look()
    assert versions(server.store.current) == before | {"new": "2024-08-06"}
    (record,) = server.audited
    assert record == {
        "time": "1970-01-01T00:00:00.000Z",
        "action": "Microsoft.CognitiveServices/accounts/deployments/write",
        "target": f"{ACCOUNT}/deployments/new",
        "outcome": "done",
        "actor": {"kind": "server", "id": "vivavoce"},
        "details": {
            "model": "gpt-4o",
            "version": "2024-08-06",
            "version_before": "2024-05-13",
            "version_upgrade_option": NEW,
        },
    }
    changed = server.store.current.deployment(ACCOUNT, "new")
    assert changed is not None
    assert changed.system_data is not None
    assert (changed.system_data.created_by, changed.system_data.modified_by) == ("ann", "vivavoce")
    assert (changed.sku, changed.recipe, changed.version_upgrade_option) == (Sku("Standard", 50), "r", NEW)


async def test_a_version_that_retires(opened: Open, clock: Clock) -> None:
    server = Server(await opened(), clock)
    for name, option in (("silent", None), ("never", "NoAutoUpgrade")):
        await put(server.store, name, "2025-10-06", option, "GlobalStandard", "gpt-realtime-mini")  # type: ignore[arg-type]
    clock.day = dt.date(2026, 7, 22)
    await server.upgrades.look()
    assert versions(server.store.current) == {"silent": "2025-10-06", "never": "2025-10-06"}
    clock.day = dt.date(2026, 7, 23)
    ended = {one.name: server.rules.has_ended(one) for one in server.store.current.deployments(ACCOUNT)}
    assert (ended["silent"], ended["never"]) == (False, True), "what waits for its upgrade works on"
    await server.upgrades.look()
    assert versions(server.store.current) == {"silent": "2025-12-15", "never": "2025-10-06"}


async def test_of_several_processes_one_does_it(opened: Open, clock: Clock) -> None:
    servers = [Server(await opened(), clock) for _ in range(3)]
    for name in ("a", "b", "c", "d"):
        await put(servers[0].store, name, option=NEW)
    clock.day = DAYS["default moves"]
    await asyncio.gather(*(server.upgrades.look() for server in servers))
    assert set(versions(await servers[1].store.directory()).values()) == {"2024-08-06"}
    done = sorted(record["target"].rpartition("/")[2] for server in servers for record in server.audited)
    assert done == ["a", "b", "c", "d"], "each once, by whomever"


async def test_somebody_elses_change_is_not_undone(
    opened: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(await opened(), clock)
    await put(server.store, "gone", option=NEW)
    await put(server.store, "moved", option=NEW)
    stale = await server.store.directory()
    await server.store.delete_deployment(ACCOUNT, "gone")
    await put(server.store, "moved", "2024-11-20", "NoAutoUpgrade")
    clock.day = DAYS["default moves"]

    async def late() -> Directory:
        return stale

    monkeypatch.setattr(server.store, "directory", late)
    await server.upgrades.look()
    assert versions(server.store.current) == {"moved": "2024-11-20"}
    assert server.audited == []


@pytest.mark.parametrize("policy", ["off", "stored", "all"])
async def test_the_policy(policy: str, opened: Open, clock: Clock) -> None:
    server = Server(await opened(), clock, policy)
    await put(server.store, "new", option=NEW)
    clock.day = DAYS["default moves"]
    await server.upgrades.look()
    assert versions(server.store.current) == {"new": "2024-05-13" if policy == "off" else "2024-08-06"}
    (declared,) = [one for one in server.store.current.deployments(ACCOUNT) if one.declared]
    clock.day = dt.date(2030, 1, 1)
    await server.upgrades.look()
    assert server.store.current.deployment(ACCOUNT, declared.name) == declared
    assert server.rules.has_ended(declared) is (policy == "all")


async def test_it_looks_again_when_the_store_has_failed(
    opened: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(await opened(), clock)
    await put(server.store, "new", option=NEW)
    clock.day = DAYS["default moves"]
    real, fails = server.store.directory, [True, False]
    looked = asyncio.Event()

    async def directory() -> Directory:
        if fails.pop(0):
            raise StoreUnavailable
        return await real()

    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if not fails:
            looked.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(server.store, "directory", directory)
    monkeypatch.setattr(module, "asyncio", type("Patched", (), {"sleep": staticmethod(pause)}))
    running = asyncio.create_task(server.upgrades.run())
    await looked.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert pauses == [module.LOOK_S] * 2
    assert versions(server.store.current) == {"new": "2024-08-06"}
