from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from vivavoce.config import Config, ConfigError, Secret, ServerSettings, StoreSettings
from vivavoce.gateway.resource import Account
from vivavoce.gateway.store import opening
from vivavoce.gateway.store.base import Actor
from vivavoce.gateway.store.declared import DeclaredStore
from vivavoce.gateway.store.opening import check_store, describe_store, open_store

SHOP = Account(subscription="s", resource_group="g", name="shop", location="l", tenant="t")


def asking(folder: Path, url: str | None = None, secret: str | None = None) -> Config:
    return Config(
        server=ServerSettings(data=str(folder / "data")),
        store=StoreSettings(
            url=None if url is None else Secret(url), secret=None if secret is None else Secret(secret)
        ),
        base=folder,
    )


async def test_without_a_store_there_is_what_is_declared(tmp_path: Path) -> None:
    async with open_store(Config()) as store:
        assert isinstance(store, DeclaredStore)
    assert describe_store(Config()) == ""


async def test_a_store_makes_its_database_and_its_secret_in_the_data_folder(tmp_path: Path) -> None:
    config = asking(tmp_path)
    assert describe_store(config) == f"SQLite in {tmp_path}/data/store.db"
    assert os.listdir(tmp_path) == []
    async with open_store(config) as store:
        await store.put_account(SHOP, by=Actor("ann", "User"))
        keys = await store.keys(SHOP.id)
    assert sorted(os.listdir(tmp_path / "data")) == ["secret", "store.db"]
    async with open_store(config) as store:
        assert await store.keys(SHOP.id) == keys


async def test_a_path_starts_from_the_file_and_a_given_secret_is_kept_nowhere(tmp_path: Path) -> None:
    config = asking(tmp_path, "sqlite:///kept.db", "s" * 32)
    assert describe_store(config) == f"SQLite in {tmp_path}/kept.db"
    async with open_store(config):
        pass
    assert os.listdir(tmp_path) == ["kept.db"]


def test_a_description_has_no_password() -> None:
    config = asking(Path(), "postgresql://ann:pa55word@host/name")
    assert describe_store(config) == "postgresql+psycopg://ann:***@host/name"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("pa55word", "it is no URL of a database"),
        ("mysql://ann:pa55word@host/name", "'mysql' is neither sqlite nor postgresql+psycopg"),
        (
            "postgresql+asyncpg://ann:pa55word@host/name",
            "'postgresql+asyncpg' is neither sqlite nor postgresql+psycopg",
        ),
        ("sqlite://", "a database in memory keeps nothing: name a file"),
        ("sqlite:///:memory:", "a database in memory keeps nothing: name a file"),
    ],
)
def test_a_url_that_cannot_be_used_is_told_without_its_password(url: str, problem: str) -> None:
    with pytest.raises(ConfigError) as fault:
        check_store(StoreSettings(url=Secret(url)))
    assert (fault.value.path, fault.value.problem) == ("store.url", problem)


@pytest.mark.parametrize(
    ("missing", "path", "extra"),
    [("sqlalchemy", "store", "resource"), ("alembic", "store", "resource"), ("psycopg", "store.url", "postgresql")],
)
def test_what_is_not_installed_is_told_with_its_extra(
    missing: str, path: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        opening, "find_spec", lambda name: None if name == missing else importlib.util.find_spec(name)
    )
    with pytest.raises(ConfigError) as fault:
        check_store(StoreSettings(url=Secret("postgresql://host/name")))
    assert str(fault.value) == f"{path}: {missing} is not installed: pip install 'vivavoce[{extra}]'"
