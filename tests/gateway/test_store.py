"""The store, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import pytest
import pytest_asyncio
from postgres_server import Postgres
from sqlalchemy import inspect, select
from sqlalchemy.engine import URL, make_url

from vivavoce.config import (
    AccountSettings,
    Config,
    ConfigError,
    DeploymentSettings,
    ResourceSettings,
    Secret,
)
from vivavoce.gateway.keys import key_digest
from vivavoce.gateway.resource import (
    Account,
    DeploymentRecord,
    Directory,
    Model,
    RoleAssignment,
    Sku,
    SystemData,
    account_id,
)
from vivavoce.gateway.store.base import (
    Actor,
    Conflict,
    NotFound,
    PreconditionFailed,
    ReadOnly,
    Store,
    StoreUnavailable,
    Usage,
)
from vivavoce.gateway.store.declared import Declared
from vivavoce.gateway.store.sql import SqlStore, make_engine
from vivavoce.gateway.store.tables import KEYS

CONFIG: Final = Config(
    resource=ResourceSettings(name="voice", subscription="s", resource_group="g", keys=(Secret("k1"),)),
    more_accounts=(
        AccountSettings(name="bank", subscription="s", resource_group="b", location="eastus2", tenant="t"),
    ),
    deployments=(DeploymentSettings(name="gpt"),),
)
DECLARED: Final = Declared(CONFIG)
VOICE, BANK = account_id("s", "g", "voice"), account_id("s", "b", "bank")
SECRET: Final = Secret("a-secret-of-the-tests-0123456789abcdef")
ANN, BOB = Actor("ann", "User"), Actor("bob", "Application")
HOUR: Final = datetime(2025, 3, 1, 12, tzinfo=UTC)
PATIENCE_S: Final = 60.0


class Clock:
    """A minute later each time."""

    def __init__(self) -> None:
        self.now = datetime(2025, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """Of an empty database."""
    if request.param == "sqlite":
        return make_url(f"sqlite:///{tmp_path}/store.db")
    server: Postgres = request.getfixturevalue("postgres_server")
    return make_url(server.new_schema())


@asynccontextmanager
async def opened(url: URL, declared: Declared = DECLARED, secret: Secret = SECRET) -> AsyncIterator[SqlStore]:
    store = await SqlStore.open(url, declared, secret, Clock())
    try:
        yield store
    finally:
        await store.close()


@pytest_asyncio.fixture
async def store(url: URL) -> AsyncIterator[SqlStore]:
    async with opened(url) as store:
        yield store


def account(name: str = "shop", *, location: str = "eastus2", subdomain: str = "") -> Account:
    return Account(
        subscription="s", resource_group="g", name=name, location=location, tenant="t", subdomain=subdomain
    )


def deployment(name: str = "new", of: str = VOICE, capacity: int = 1) -> DeploymentRecord:
    return DeploymentRecord(
        account=of, name=name, sku=Sku("GlobalStandard", capacity), model=Model("m", "1"), recipe="r"
    )


def assignment(number: int = 1, *, scope: str = VOICE, principal: str = "p", role: str = "R") -> RoleAssignment:
    return RoleAssignment(
        id=f"{scope}/providers/Microsoft.Authorization/roleAssignments/{number}",
        scope=scope,
        role=role,
        principal_id=principal,
        principal_type="User",
    )


SHOP: Final = account().id


# ----------------------------------------------------------------------------------------------------- the basics


async def test_an_empty_store_has_what_is_declared(store: Store) -> None:
    directory = await store.directory()
    assert [one.name for one in directory.accounts] == ["voice", "bank"]
    assert [one.name for one in directory.deployments(VOICE)] == ["gpt"]
    assert (directory.assignments, directory.revision) == ((), 0)
    assert store.current is directory


async def test_a_deployment_keeps_all_that_it_was_put_with(store: Store) -> None:
    put = DeploymentRecord(
        account=BANK.upper(),
        name="Teller",
        sku=Sku("ProvisionedManaged", 50),
        model=Model("gpt-4o.ft-1", "2", "Custom", VOICE),
        recipe="tuned",
        version_upgrade_option="NoAutoUpgrade",
        rai_policy_name="Microsoft.Default",
        spillover_deployment_name="gpt",
        provisioning_state="Creating",
        tags={"team": "büro", "empty": ""},
    )
    stored, created = await store.put_deployment(put, by=ANN)
    assert created
    at = datetime(2025, 1, 1, 0, 1, tzinfo=UTC)
    assert stored == replace(
        put,
        account=BANK,
        etag=stored.etag,
        system_data=SystemData(
            created_by="ann", created_by_type="User", created_at=at,
            modified_by="ann", modified_by_type="User", modified_at=at,
        ),
    )  # fmt: skip
    assert store.current.deployment(BANK, "teller") == stored
    assert store.current.revision == 1


async def test_a_change_keeps_who_made_it_and_tells_who_changed_it(store: Store) -> None:
    first, _ = await store.put_deployment(deployment("New"), by=ANN)
    second, created = await store.put_deployment(deployment("nEW", capacity=2), by=BOB)
    assert not created
    assert (second.name, second.sku.capacity) == ("New", 2)
    assert second.etag != first.etag
    assert first.system_data is not None
    assert second.system_data == replace(
        first.system_data,
        modified_by="bob",
        modified_by_type="Application",
        modified_at=first.system_data.created_at + timedelta(minutes=1),
    )
    assert [one.name for one in store.current.deployments(VOICE)] == ["gpt", "New"]


async def test_what_is_deleted_is_gone(store: Store) -> None:
    await store.put_deployment(deployment(), by=ANN)
    await store.delete_deployment(VOICE.lower(), "NEW")
    assert store.current.deployment(VOICE, "new") is None
    with pytest.raises(NotFound):
        await store.delete_deployment(VOICE, "new")


async def test_a_deployment_needs_its_account(store: Store) -> None:
    with pytest.raises(NotFound) as fault:
        await store.put_deployment(deployment(of=SHOP), by=ANN)
    assert fault.value.id == SHOP


async def test_everything_is_there_when_it_is_opened_again(url: URL) -> None:
    async with opened(url) as store:
        await store.put_account(account(), by=ANN)
        await store.put_deployment(deployment(of=SHOP), by=ANN)
        await store.put_role_assignment(assignment(), by=ANN)
        before = store.current
        keys = await store.keys(SHOP)
    async with opened(url) as store:
        after = store.current
        assert after.revision == before.revision == 3
        assert after.accounts == before.accounts
        assert after.deployments(SHOP) == before.deployments(SHOP) != ()
        assert after.assignments == before.assignments != ()
        assert await store.keys(SHOP) == keys


# -------------------------------------------------------------------------------------------------- what is refused

Change = Callable[[Store], Awaitable[object]]
ON_DECLARED: dict[str, Change] = {
    "put account": lambda store: store.put_account(DECLARED.accounts[0], by=ANN),
    "delete account": lambda store: store.delete_account(VOICE),
    "put deployment": lambda store: store.put_deployment(deployment("GPT"), by=ANN),
    "delete deployment": lambda store: store.delete_deployment(VOICE, "gpt"),
    "regenerate key": lambda store: store.regenerate_key(VOICE, "key1"),
}


@pytest.mark.parametrize("change", ON_DECLARED.values(), ids=ON_DECLARED)
async def test_what_is_declared_cannot_be_changed(change: Change, store: Store) -> None:
    with pytest.raises(ReadOnly, match="the configuration declares it"):
        await change(store)
    assert (await store.directory()).revision == 0


CONDITIONS: dict[str, tuple[Change, bool]] = {
    "put with the right etag": (lambda s: s.put_deployment(deployment(), by=ANN, if_match=_etag(s)), True),
    "put with another": (lambda s: s.put_deployment(deployment(), by=ANN, if_match='"0"'), False),
    "put with any": (lambda s: s.put_deployment(deployment(), by=ANN, if_match="*"), True),
    "put of another with any": (lambda s: s.put_deployment(deployment("x"), by=ANN, if_match="*"), False),
    "put only if new": (lambda s: s.put_deployment(deployment(), by=ANN, if_none_match=True), False),
    "put of another only if new": (lambda s: s.put_deployment(deployment("x"), by=ANN, if_none_match=True), True),
    "delete with the right etag": (lambda s: s.delete_deployment(VOICE, "new", if_match=_etag(s)), True),
    "delete with another": (lambda s: s.delete_deployment(VOICE, "new", if_match='"0"'), False),
    "delete with any": (lambda s: s.delete_deployment(VOICE, "new", if_match="*"), True),
    "account with another": (lambda s: s.put_account(account(), by=ANN, if_match='"0"'), False),
    "account only if new": (lambda s: s.put_account(account(), by=ANN, if_none_match=True), False),
    "delete account with another": (lambda s: s.delete_account(SHOP, if_match='"0"'), False),
    "delete account with any": (lambda s: s.delete_account(SHOP, if_match="*"), True),
}


def _etag(store: Store) -> str:
    found = store.current.deployment(VOICE, "new")
    assert found is not None
    return found.etag


@pytest.mark.parametrize(("change", "holds"), CONDITIONS.values(), ids=CONDITIONS)
async def test_a_change_may_rest_on_what_is_there(change: Change, holds: bool, store: Store) -> None:
    await store.put_deployment(deployment(), by=ANN)
    await store.put_account(account(), by=ANN)
    before = store.current
    if holds:
        await change(store)
        assert store.current.revision == before.revision + 1
    else:
        with pytest.raises(PreconditionFailed):
            await change(store)
        assert await store.directory() is before


async def test_a_check_sees_what_is_there_and_prevents_the_change(store: Store) -> None:
    await store.put_deployment(deployment("first"), by=ANN)

    class Full(Exception):
        pass

    def check(directory: Directory) -> None:
        if len(directory.deployments(VOICE)) > 2:
            raise Full

    await store.put_deployment(deployment("second"), by=ANN, check=check)
    with pytest.raises(Full):
        await store.put_deployment(deployment("third"), by=ANN, check=check)
    assert [one.name for one in (await store.directory()).deployments(VOICE)] == ["gpt", "first", "second"]


# --------------------------------------------------------------------------------------------------- accounts, keys


async def test_a_new_account_has_two_keys_that_open_it(store: Store) -> None:
    stored, created = await store.put_account(account(), by=ANN)
    assert created
    keys = await store.keys(SHOP.upper())
    assert list(keys) == ["key1", "key2"]
    for slot, key in keys.items():
        found = store.current.by_key_digest(key_digest(key.reveal()))
        assert found is not None
        assert (found.account, found.slot, found.declared) == (stored.id, slot, False)


async def test_keys_of_a_declared_account_are_those_of_the_file(store: Store) -> None:
    assert await store.keys(VOICE) == {"key1": Secret("k1")}
    assert await store.keys(BANK) == {}
    with pytest.raises(NotFound):
        await store.keys(SHOP)


async def test_an_account_that_is_declared_later_is_opened_by_the_keys_of_the_file_alone(url: URL) -> None:
    async with opened(url) as store:
        await store.put_account(account(), by=ANN)
        before = await store.keys(SHOP)
    shop = AccountSettings(
        name="shop", subscription="s", resource_group="g", location="eastus2", tenant="t", keys=(Secret("k2"),)
    )
    async with opened(url, Declared(msgspec.structs.replace(CONFIG, more_accounts=(shop,)))) as store:
        assert await store.keys(SHOP) == {"key1": Secret("k2")}
        assert [key.digest for key in store.current.keys(SHOP)] == [key_digest("k2")]
    async with opened(url) as store:
        assert await store.keys(SHOP) == before


async def test_a_new_key_takes_the_place_of_the_old_one(store: Store) -> None:
    await store.put_account(account(), by=ANN)
    before = await store.keys(SHOP)
    made = await store.regenerate_key(SHOP, "key2")
    after = await store.keys(SHOP)
    assert after["key1"] == before["key1"]
    assert after["key2"] != before["key2"]
    assert made.digest == key_digest(after["key2"].reveal())
    assert store.current.by_key_digest(key_digest(before["key2"].reveal())) is None
    assert store.current.by_key_digest(made.digest) == made
    with pytest.raises(NotFound):
        await store.regenerate_key(SHOP, "key3")
    with pytest.raises(NotFound):
        await store.regenerate_key(account("other").id, "key1")


async def test_the_keys_of_an_account_that_was_deleted_never_come_back(store: Store) -> None:
    await store.put_account(account(), by=ANN)
    before = await store.keys(SHOP)
    await store.delete_account(SHOP)
    assert store.current.account(SHOP) is None
    assert all(store.current.by_key_digest(key_digest(key.reveal())) is None for key in before.values())
    await store.put_account(account(), by=ANN)
    after = await store.keys(SHOP)
    assert not {key.reveal() for key in before.values()} & {key.reveal() for key in after.values()}


async def test_the_database_holds_no_key(store: SqlStore, url: URL) -> None:
    await store.put_account(account(), by=ANN)
    key = (await store.keys(SHOP))["key1"].reveal()
    engine = make_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(select(KEYS)).all()
    engine.dispose()
    assert [row.digest for row in rows if row.slot == "key1"] == [key_digest(key)]
    assert key not in repr(rows)


async def test_another_secret_is_refused_rather_than_all_keys_lost(url: URL) -> None:
    async with opened(url):
        pass
    with pytest.raises(ConfigError) as fault:
        async with opened(url, secret=Secret("x" * 40)):
            pytest.fail("it opened")
    assert fault.value.path == "store.secret"


async def test_an_account_stays_where_it_is_and_keeps_its_keys(store: Store) -> None:
    await store.put_account(account(), by=ANN)
    keys = await store.keys(SHOP)
    changed, created = await store.put_account(replace(account(subdomain="till"), tags={"a": "b"}), by=BOB)
    assert not created
    assert (changed.subdomain, changed.tags) == ("till", {"a": "b"})
    assert await store.keys(SHOP) == keys
    found = store.current.account_of_host("till")
    assert found is not None
    assert found.id == SHOP
    with pytest.raises(Conflict, match="stays in its location"):
        await store.put_account(account(location="westus"), by=ANN)


@pytest.mark.parametrize("subdomain", ["voice", "VOICE", "till"])
async def test_a_subdomain_means_one_account(subdomain: str, store: Store) -> None:
    await store.put_account(account(subdomain="till"), by=ANN)
    with pytest.raises(Conflict, match="is another account's"):
        await store.put_account(account("other", subdomain=subdomain), by=ANN)
    assert store.current.account(account("other").id) is None


async def test_an_account_with_deployments_cannot_be_deleted(store: Store) -> None:
    await store.put_account(account(), by=ANN)
    await store.put_deployment(deployment(of=SHOP), by=ANN)
    with pytest.raises(Conflict, match="delete them first"):
        await store.delete_account(SHOP)
    await store.delete_deployment(SHOP, "new")
    await store.delete_account(SHOP)
    with pytest.raises(NotFound):
        await store.delete_account(SHOP)


# ------------------------------------------------------------------------------------------------ role assignments


async def test_a_role_assignment_is_made_once(store: Store) -> None:
    first, created = await store.put_role_assignment(assignment(), by=ANN)
    assert created
    revision = store.current.revision
    again, created = await store.put_role_assignment(assignment(), by=BOB)
    assert (again, created) == (first, False)
    assert (await store.directory()).revision == revision
    with pytest.raises(Conflict, match="cannot be changed"):
        await store.put_role_assignment(assignment(role="Other"), by=ANN)
    with pytest.raises(Conflict, match="already exists"):
        await store.put_role_assignment(assignment(2, principal="P"), by=ANN)
    await store.put_role_assignment(assignment(2, principal="q"), by=ANN)
    # Of another issuer than Entra they are two.
    for number, subject in ((3, "idp:bob"), (4, "idp:Bob")):
        await store.put_role_assignment(assignment(number, principal=subject), by=ANN)
    await store.delete_role_assignment(assignment(3).id)
    with pytest.raises(Conflict, match="cannot be changed"):
        await store.put_role_assignment(assignment(4, principal="idp:bob"), by=ANN)
    await store.delete_role_assignment(assignment(4).id)
    await store.delete_role_assignment(first.id.upper())
    assert [one.principal_id for one in store.current.assignments] == ["q"]
    with pytest.raises(NotFound):
        await store.delete_role_assignment(first.id)


async def test_role_assignments_go_with_what_they_are_at(store: Store) -> None:
    await store.put_account(account(), by=ANN)
    await store.put_account(account("shop2"), by=ANN)
    made, _ = await store.put_deployment(deployment(of=SHOP), by=ANN)
    scopes = ["/subscriptions/s", SHOP.upper(), made.id, account("shop2").id]
    for number, scope in enumerate(scopes):
        await store.put_role_assignment(assignment(number, scope=scope), by=ANN)
    await store.delete_deployment(SHOP, "new")
    assert [one.scope for one in store.current.assignments] == [scopes[0], scopes[1], scopes[3]]
    await store.delete_account(SHOP)
    assert [one.scope for one in store.current.assignments] == [scopes[0], scopes[3]]


# ----------------------------------------------------------------------------------------------------------- usage


def used(hour: datetime, requests: int, tokens: int, of: str = "new", at: str = VOICE) -> Usage:
    return Usage(
        deployment=f"{at}/deployments/{of}",
        hour=hour,
        requests=requests,
        input_tokens=tokens,
        output_tokens=2 * tokens,
    )


async def test_usage_adds_up_by_deployment_and_hour(store: Store) -> None:
    later = HOUR + timedelta(hours=1)
    await store.record_usage([])
    await store.record_usage([used(HOUR, 1, 10), used(later, 2, 20), used(HOUR, 5, 50, of="other")])
    await store.record_usage([used(HOUR, 3, 30), used(HOUR, 7, 70, at=BANK)])
    assert await store.usage(VOICE.upper(), HOUR, later + timedelta(hours=1)) == (
        used(HOUR, 4, 40),
        used(HOUR, 5, 50, of="other"),
        used(later, 2, 20),
    )
    assert await store.usage(VOICE, later, later + timedelta(hours=1)) == (used(later, 2, 20),)
    assert await store.usage(BANK, HOUR, later) == (used(HOUR, 7, 70, at=BANK),)
    assert (await store.directory()).revision == 0


async def test_old_usage_is_forgotten(store: Store) -> None:
    later = HOUR + timedelta(hours=1)
    await store.record_usage([used(HOUR, 1, 10), used(later, 2, 20), used(HOUR, 7, 70, at=BANK)])
    assert await store.forget_usage(HOUR) == 0
    assert await store.forget_usage(later) == 2
    assert await store.forget_usage(later) == 0
    for account, kept in ((VOICE, (used(later, 2, 20),)), (BANK, ())):
        assert await store.usage(account, HOUR, later + timedelta(hours=1)) == kept


@pytest.mark.parametrize(
    "wrong",
    [
        used(HOUR + timedelta(minutes=1), 1, 1),
        used(HOUR.replace(tzinfo=None), 1, 1),
        replace(used(HOUR, 1, 1), deployment=VOICE),
    ],
)
async def test_usage_of_nothing_or_no_hour_is_a_bug(wrong: Usage, store: Store) -> None:
    with pytest.raises(ValueError, match="no usage"):
        await store.record_usage([used(HOUR, 1, 1), wrong])
    assert await store.usage(VOICE, HOUR, HOUR + timedelta(days=1)) == ()


# ---------------------------------------------------------------------------------------------- others, at one time


async def test_what_another_changes_is_seen_when_it_is_looked_for(url: URL) -> None:
    async with opened(url) as here, opened(url) as there:
        heard: list[int] = []
        end = here.follow(lambda directory: heard.append(directory.revision))
        await there.put_deployment(deployment(), by=ANN)
        assert here.current.deployment(VOICE, "new") is None
        assert (await here.directory()).deployment(VOICE, "new") is not None
        assert here.current.deployment(VOICE, "new") is not None
        await here.directory()
        assert heard == [1]
        await here.put_deployment(deployment("more"), by=ANN)
        assert heard == [1, 2]
        end()
        await here.delete_deployment(VOICE, "more")
        assert heard == [1, 2]


async def test_who_follows_badly_keeps_nobody_from_hearing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def broken(directory: Directory) -> None:
        raise RuntimeError("a secret")

    store.follow(broken)
    store.follow(lambda directory: heard.append(directory.revision))
    await store.put_deployment(deployment(), by=ANN)
    assert heard == [1]
    assert [record.getMessage() for record in caplog.records] == ["store: a bug in what follows it: RuntimeError"]


async def test_of_two_who_change_the_same_one_wins(url: URL) -> None:
    async with opened(url) as here, opened(url) as there:
        etag = (await here.put_deployment(deployment(), by=ANN)).value.etag
        outcomes = await asyncio.gather(
            *(
                store.put_deployment(deployment(capacity=number), by=ANN, if_match=etag)
                for number, store in enumerate([here, there] * 4, 1)
            ),
            return_exceptions=True,
        )
        won = [one for one in outcomes if not isinstance(one, BaseException)]
        assert len(won) == 1
        assert [type(one) for one in outcomes if isinstance(one, BaseException)] == [PreconditionFailed] * 7
        assert (await here.directory()).deployment(VOICE, "new") == won[0].value
        assert (await there.directory()).deployment(VOICE, "new") == won[0].value


def change_in_a_process(url: str, first: int) -> list[bool]:
    """Make five deployments unless there are 8, and tell which came about."""

    async def run() -> list[bool]:
        def check(directory: Directory) -> None:
            if len(directory.deployments(VOICE)) >= 8:
                raise OverflowError

        async with opened(make_url(url)) as store:
            made = []
            for number in range(first, first + 5):
                try:
                    await store.put_deployment(deployment(f"d{number}"), by=ANN, check=check)
                except OverflowError:
                    made.append(False)
                else:
                    made.append(True)
            return made

    return asyncio.run(run())


async def test_processes_that_start_at_once_make_one_database_and_one_order(url: URL) -> None:
    """Each opens the store, which is not there yet."""
    place = url.render_as_string(hide_password=False)
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        async with asyncio.timeout(PATIENCE_S):
            made = await asyncio.gather(
                *(loop.run_in_executor(pool, change_in_a_process, place, first) for first in (0, 10))
            )
    assert sum(sum(one) for one in made) == 7
    async with opened(url) as store:
        assert len(store.current.deployments(VOICE)) == 8
        assert store.current.revision == 7


async def test_usage_of_many_is_not_lost(url: URL) -> None:
    async with opened(url) as here, opened(url) as there:
        await asyncio.gather(
            *(
                store.record_usage([used(HOUR, 1, 1, of=name) for name in names])
                for store, names in [(here, ("a", "b")), (there, ("b", "a"))] * 10
            )
        )
        assert await here.usage(VOICE, HOUR, HOUR + timedelta(hours=1)) == (
            used(HOUR, 20, 20, of="a"),
            used(HOUR, 20, 20, of="b"),
        )


# ------------------------------------------------------------------------------------------- when it is not there


async def test_a_database_that_is_not_there_is_told_without_its_url(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    for url in (
        f"sqlite:///{tmp_path}/no/such/folder/store.db",
        f"postgresql+psycopg://ann:pa55word@/nothing?host={postgres_server.folder}",
        f"postgresql+psycopg://ann:pa55word@/nothing?host={tmp_path}",
    ):
        with pytest.raises(StoreUnavailable) as fault:
            await SqlStore.open(make_url(url), DECLARED, SECRET)
        assert str(fault.value) == "the database cannot be used: OperationalError"


async def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnavailable, match="DatabaseError"):
        await SqlStore.open(make_url(f"sqlite:///{tmp_path}/store.db"), DECLARED, SECRET)


class Told(logging.Handler):
    """What the store writes to the log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.put_nowait(record.getMessage())


async def test_the_database_may_be_away_for_a_while(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read last still counts, and what comes back is seen."""
    monkeypatch.setattr("vivavoce.gateway.store.sql._LOOK_S", 0.01)
    url = make_url(postgres_server.new_database())
    told = Told()
    async with asyncio.timeout(PATIENCE_S), opened(url) as store:
        logger = logging.getLogger("vivavoce.gateway.store.sql")
        monkeypatch.setattr(logger, "level", logging.INFO)
        logger.addHandler(told)
        made = await store.put_deployment(deployment(), by=ANN)
        watching = asyncio.create_task(store.watch())
        with postgres_server.connect() as admin:
            admin.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false".encode())
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (url.database,)
            )
            assert await told.lines.get() == (
                "store: the database cannot be used: OperationalError; what was read last still counts"
            )
            with pytest.raises(StoreUnavailable):
                await store.put_deployment(deployment("more"), by=ANN)
            assert store.current.deployment(VOICE, "new") == made.value
            admin.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true".encode())
        assert await told.lines.get() == "store: the database answers again"
        late = asyncio.Event()
        store.follow(lambda directory: late.set())
        async with opened(url) as other:
            await other.put_deployment(deployment("late"), by=ANN)
        await late.wait()
        assert store.current.deployment(VOICE, "late") is not None
        watching.cancel()
        logger.removeHandler(told)


async def test_whoever_watches_goes_on_whatever_comes(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody brings back an older copy of the database, table by table."""
    monkeypatch.setattr("vivavoce.gateway.store.sql._LOOK_S", 0.01)
    told = Told()
    async with asyncio.timeout(PATIENCE_S), opened(url) as store, opened(url) as other:
        logger = logging.getLogger("vivavoce.gateway.store.sql")
        monkeypatch.setattr(logger, "level", logging.INFO)
        logger.addHandler(told)
        watching = asyncio.create_task(store.watch())
        engine = make_engine(url)
        said = []
        for statement in ("ALTER TABLE state RENAME TO away", "ALTER TABLE away RENAME TO state"):
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)
            said.append(await told.lines.get())
        engine.dispose()
        assert said[0].endswith("what was read last still counts")
        assert said[1] == "store: the database answers again"
        late = asyncio.Event()
        store.follow(lambda directory: late.set())
        await other.put_deployment(deployment("late"), by=ANN)
        await late.wait()
        watching.cancel()
        logger.removeHandler(told)


async def test_sqlite_keeps_its_files_for_their_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    os.close(os.open(file, os.O_CREAT, 0o600))
    async with opened(make_url(f"sqlite:///{file}")) as store:
        await store.put_account(account(), by=ANN)
        modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


async def test_no_table_is_made_outside_of_the_migrations(store: SqlStore, url: URL) -> None:
    engine = make_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    assert names == {
        "account_keys", "accounts", "alembic_version", "deployments", "role_assignments", "state", "usage",
    }  # fmt: skip
