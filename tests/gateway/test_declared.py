from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from vivavoce.config import AccountSettings, Config, DeploymentSettings, ResourceSettings, Secret
from vivavoce.gateway.keys import derived_key, key_digest, secret_mark
from vivavoce.gateway.resource import (
    Account,
    AccountKey,
    DeploymentRecord,
    Model,
    RoleAssignment,
    Sku,
    account_id,
)
from vivavoce.gateway.store.base import Actor, NotFound, ReadOnly, Store, Usage
from vivavoce.gateway.store.declared import DeclaredStore

CONFIG = Config(
    resource=ResourceSettings(
        name="voice", subscription="s", resource_group="g", keys=(Secret("k1"), Secret("k2"))
    ),
    more_accounts=(
        AccountSettings(
            name="bank", subscription="s", resource_group="b", location="swedencentral", tenant="t",
            subdomain="Bank-Voice", keys=(Secret("b1"),),
        ),
    ),
    deployments=(
        DeploymentSettings(name="gpt", capacity=3),
        DeploymentSettings(name="gpt", account="bank", model="m", version="", sku="Standard"),
    ),
)  # fmt: skip
VOICE, BANK = account_id("s", "g", "voice"), account_id("s", "b", "bank")
BY = Actor("somebody", "User")


def store() -> Store:
    return DeclaredStore(CONFIG)


def test_what_a_configuration_declares_is_a_directory() -> None:
    directory = store().current
    assert [(one.id, one.declared, one.subdomain) for one in directory.accounts] == [
        (VOICE, True, "voice"),
        (BANK, True, "bank-voice"),
    ]
    (gpt,), (banks,) = directory.deployments(VOICE), directory.deployments(BANK)
    assert (gpt.name, gpt.sku, gpt.model, gpt.recipe, gpt.declared) == (
        "gpt", Sku("GlobalStandard", 3), Model("gpt-4o-realtime-preview", "2024-12-17"), "voice/gpt", True,
    )  # fmt: skip
    assert (banks.sku, banks.model, banks.recipe) == (Sku("Standard", 10_000), Model("m", ""), "bank/gpt")
    assert directory.revision == 0


def test_keys_are_known_by_their_digests() -> None:
    directory = store().current
    assert directory.keys(VOICE) == tuple(
        AccountKey(account=VOICE, slot=slot, digest=key_digest(key), declared=True)
        for slot, key in (("key1", "k1"), ("key2", "k2"))
    )
    found = directory.by_key_digest(key_digest("b1"))
    assert found is not None
    assert found.account == BANK


def test_an_etag_changes_with_what_is_declared() -> None:
    def etag(capacity: int) -> str:
        config = Config(deployments=(DeploymentSettings(name="gpt", capacity=capacity),))
        directory = DeclaredStore(config).current
        return directory.deployments(directory.accounts[0].id)[0].etag

    assert etag(1) == etag(1) != etag(2)


async def test_keys_that_are_declared_can_be_listed() -> None:
    assert await store().keys(VOICE.upper()) == {"key1": Secret("k1"), "key2": Secret("k2")}
    with pytest.raises(NotFound):
        await store().keys("/nowhere")


RECORD = DeploymentRecord(account=VOICE, name="new", sku=Sku("Standard", 1), model=Model("m", "1"), recipe="r")
ASSIGNMENT = RoleAssignment(id="/x", scope=VOICE, role="R", principal_id="p", principal_type="User")
NEW = Account(subscription="s", resource_group="g", name="n", location="l", tenant="t")
CHANGES: dict[str, Callable[[Store], Awaitable[object]]] = {
    "put account": lambda store: store.put_account(NEW, by=BY),
    "delete account": lambda store: store.delete_account(VOICE),
    "put deployment": lambda store: store.put_deployment(RECORD, by=BY),
    "delete deployment": lambda store: store.delete_deployment(VOICE, "gpt"),
    "put assignment": lambda store: store.put_role_assignment(ASSIGNMENT, by=BY),
    "delete assignment": lambda store: store.delete_role_assignment("/x"),
    "regenerate key": lambda store: store.regenerate_key(VOICE, "key1"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_nothing_can_be_changed_without_a_store(change: Callable[[Store], Awaitable[object]]) -> None:
    one = store()
    before = await one.directory()
    with pytest.raises(ReadOnly, match="there is no store"):
        await change(one)
    assert await one.directory() is before


async def test_no_usage_is_kept_without_a_store() -> None:
    hour = datetime(2025, 1, 1, tzinfo=UTC)
    one = store()
    await one.record_usage([Usage(deployment=RECORD.id, hour=hour, requests=1, input_tokens=1, output_tokens=1)])
    assert await one.usage(VOICE, hour, hour.replace(day=2)) == ()


# ---------------------------------------------------------------------------------------------------------- keys

SECRET = Secret("s" * 32)


def test_a_derived_key_is_always_the_same_and_another_for_all_that_it_is_made_of() -> None:
    key = derived_key(SECRET, VOICE, "key1", 1)
    assert derived_key(Secret("s" * 32), VOICE.upper(), "key1", 1) == key
    others = [
        derived_key(Secret("t" * 32), VOICE, "key1", 1),
        derived_key(SECRET, BANK, "key1", 1),
        derived_key(SECRET, VOICE, "key2", 1),
        derived_key(SECRET, VOICE, "key1", 2),
    ]
    assert len({one.reveal() for one in (key, *others)}) == 5
    assert len(key.reveal()) == 43
    assert key.reveal().isascii()


def test_the_mark_of_a_secret_does_not_tell_it() -> None:
    assert secret_mark(SECRET) == secret_mark(Secret("s" * 32)) != secret_mark(Secret("t" * 32))
    assert SECRET.reveal() not in secret_mark(SECRET)


def test_a_digest_takes_whatever_a_header_may_hold() -> None:
    assert key_digest("caf\udce9") != key_digest("cafe")
    assert len(key_digest("")) == 32
