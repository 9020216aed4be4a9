"""The store against dicts: whatever is asked of it, in whatever order, two processes show the same as they."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from postgres_server import Postgres
from sqlalchemy.engine import make_url

from vivavoce.config import Config, DeploymentSettings, Secret
from vivavoce.gateway.keys import key_digest
from vivavoce.gateway.resource import Account, DeploymentRecord, Model, Sku, account_id, id_key
from vivavoce.gateway.store.base import Actor, Conflict, NotFound, PreconditionFailed, ReadOnly, StoreError
from vivavoce.gateway.store.declared import Declared
from vivavoce.gateway.store.sql import SqlStore

T = TypeVar("T")
BY = Actor("ann", "User")
SECRET = Secret("a-secret-of-the-tests-0123456789abcdef")
DECLARED = Declared(Config(deployments=(DeploymentSettings(name="gpt"),)))
HOME = DECLARED.accounts[0].id
NAMES = st.sampled_from(["a", "A", "b", "gpt", "GPT"])
ACCOUNTS = st.sampled_from(["one", "ONE", "two", "vivavoce"])
CONDITIONS = st.sampled_from([None, "*", "right", '"wrong"'])


def where(name: str) -> str:
    return HOME if name == "vivavoce" else account_id("s", "g", name)


class Dicts(RuleBasedStateMachine):
    """``accounts`` and ``deployments`` are what must be there beside what is declared."""

    new_url: Callable[[], str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        url = make_url(type(self).new_url())
        self.here = self.run(SqlStore.open(url, DECLARED, SECRET))
        self.there = self.run(SqlStore.open(url, DECLARED, SECRET))
        self.accounts: dict[str, Account] = {}
        self.deployments: dict[str, DeploymentRecord] = {}
        self.keys: dict[tuple[str, str], str] = {}
        self.old_keys: set[str] = set()
        self.changes = 0

    def teardown(self) -> None:
        self.run(self.here.close())
        self.run(self.there.close())
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def tried(self, work: Coroutine[Any, Any, T], refusal: type[StoreError] | None) -> T | None:
        """Done, unless the model says how it must be refused."""
        if refusal is not None:
            with pytest.raises(refusal):
                self.run(work)
            return None
        done = self.run(work)
        self.changes += 1
        return done

    @staticmethod
    def broken(known: Account | DeploymentRecord | None, condition: str | None, only_new: bool) -> bool:
        return (only_new and known is not None) or (
            condition is not None and (known is None or condition == '"wrong"')
        )

    @staticmethod
    def etag(known: Account | DeploymentRecord | None, condition: str | None) -> str | None:
        return (known.etag if known is not None else '"none"') if condition == "right" else condition

    @rule(store=st.booleans(), name=ACCOUNTS, condition=CONDITIONS, only_new=st.booleans())
    def put_account(self, store: bool, name: str, condition: str | None, only_new: bool) -> None:
        account = Account(subscription="s", resource_group="g", name=name, location="l", tenant="t")
        known = self.accounts.get(id_key(account.id))
        refusal: type[StoreError] | None = None
        if self.broken(known, condition, only_new):
            refusal = PreconditionFailed
        elif name == "vivavoce":
            refusal = Conflict  # its subdomain is the declared account's
        put = self.tried(
            self.store(store).put_account(
                account, by=BY, if_match=self.etag(known, condition), if_none_match=only_new
            ),
            refusal,
        )
        if put is not None:
            assert put.created == (known is None)
            self.accounts[id_key(account.id)] = put.value
            for slot, key in self.run(self.store(store).keys(account.id)).items():
                self.keys[id_key(account.id), slot] = key.reveal()

    @rule(store=st.booleans(), name=ACCOUNTS, condition=CONDITIONS)
    def delete_account(self, store: bool, name: str, condition: str | None) -> None:
        key = id_key(where(name))
        known = self.accounts.get(key)
        refusal: type[StoreError] | None = None
        if name == "vivavoce":
            refusal = ReadOnly
        elif known is None:
            refusal = NotFound
        elif self.broken(known, condition, False):
            refusal = PreconditionFailed
        elif any(id_key(one.account) == key for one in self.deployments.values()):
            refusal = Conflict
        self.tried(self.store(store).delete_account(where(name), if_match=self.etag(known, condition)), refusal)
        if refusal is None:
            del self.accounts[key]
            for gone in [one for one in self.keys if one[0] == key]:
                self.old_keys.add(self.keys.pop(gone))

    @rule(store=st.booleans(), name=ACCOUNTS, slot=st.sampled_from(["key1", "key2", "key3"]))
    def regenerate_key(self, store: bool, name: str, slot: str) -> None:
        key = id_key(where(name))
        refusal: type[StoreError] | None = None
        if name == "vivavoce":
            refusal = ReadOnly
        elif (key, slot) not in self.keys:
            refusal = NotFound
        if self.tried(self.store(store).regenerate_key(where(name), slot), refusal) is not None:
            self.old_keys.add(self.keys[key, slot])
            self.keys[key, slot] = self.run(self.store(store).keys(where(name)))[slot].reveal()

    @rule(
        store=st.booleans(), account=ACCOUNTS, name=NAMES, capacity=st.integers(1, 9), condition=CONDITIONS,
        only_new=st.booleans(),
    )  # fmt: skip
    def put_deployment(
        self, store: bool, account: str, name: str, capacity: int, condition: str | None, only_new: bool
    ) -> None:
        record = DeploymentRecord(
            account=where(account), name=name, sku=Sku("Standard", capacity), model=Model("m", "1"), recipe="r"
        )
        known = self.deployments.get(id_key(record.id))
        refusal: type[StoreError] | None = None
        if account != "vivavoce" and id_key(record.account) not in self.accounts:
            refusal = NotFound
        elif account == "vivavoce" and name in ("gpt", "GPT"):
            refusal = ReadOnly
        elif self.broken(known, condition, only_new):
            refusal = PreconditionFailed
        put = self.tried(
            self.store(store).put_deployment(
                record, by=BY, if_match=self.etag(known, condition), if_none_match=only_new
            ),
            refusal,
        )
        if put is not None:
            assert put.created == (known is None)
            assert put.value.sku.capacity == capacity
            self.deployments[id_key(record.id)] = put.value

    @rule(store=st.booleans(), account=ACCOUNTS, name=NAMES, condition=CONDITIONS)
    def delete_deployment(self, store: bool, account: str, name: str, condition: str | None) -> None:
        key = id_key(f"{where(account)}/deployments/{name}")
        known = self.deployments.get(key)
        refusal: type[StoreError] | None = None
        if account == "vivavoce" and name in ("gpt", "GPT"):
            refusal = ReadOnly
        elif known is None:
            refusal = NotFound
        elif self.broken(known, condition, False):
            refusal = PreconditionFailed
        self.tried(
            self.store(store).delete_deployment(where(account), name, if_match=self.etag(known, condition)), refusal
        )
        if refusal is None:
            del self.deployments[key]

    def store(self, here: bool) -> SqlStore:
        return self.here if here else self.there

    @invariant()
    def both_show_what_the_model_has(self) -> None:
        for store in (self.here, self.there):
            directory = self.run(store.directory())
            assert directory.revision == self.changes
            assert {id_key(one.id): one for one in directory.accounts if not one.declared} == self.accounts
            shown = [one for account in directory.accounts for one in directory.deployments(account.id)]
            assert {id_key(one.id): one for one in shown if not one.declared} == self.deployments
            for (account, slot), key in self.keys.items():
                found = directory.by_key_digest(key_digest(key))
                assert found is not None
                assert (id_key(found.account), found.slot) == (account, slot)
            assert all(directory.by_key_digest(key_digest(key)) is None for key in self.old_keys)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_the_store_does_what_dicts_would(kind: str, request: pytest.FixtureRequest) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if kind == "sqlite":
            numbers = iter(range(1_000_000))

            def new_url() -> str:
                return f"sqlite:///{folder}/{next(numbers)}.db"
        else:
            server: Postgres = request.getfixturevalue("postgres_server")
            new_url = server.new_schema

        machine = type("Machine", (Dicts,), {"new_url": staticmethod(new_url)})
        run_state_machine_as_test(machine, settings=settings(max_examples=12, stateful_step_count=25))
