"""The store that a configuration asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vivavoce.config import Config, ConfigError, StoreSettings, kept_secret, open_data_folder, private_file
from vivavoce.gateway.store.base import Store
from vivavoce.gateway.store.declared import Declared, DeclaredStore

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

DATABASE: Final = "store.db"
"""The SQLite database in the data folder."""
SECRET: Final = "secret"
"""The secret of keys in the data folder."""


@asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[Store]:
    """The store, and a look at what other processes change every second, within the block. Without ``[store]`` it
    is what the configuration declares, and nothing more.

    Raises ConfigError and StoreUnavailable on the way in.
    """
    if config.store is None:
        yield DeclaredStore(config)
        return
    url = check_store(config.store)
    from vivavoce.gateway.store.sql import SqlStore

    if url.get_backend_name() == "sqlite":
        url = url.set(database=str(_file(config, url)))
    secret = config.store.secret
    if secret is None:
        secret = kept_secret(open_data_folder(config), SECRET)
    store = await SqlStore.open(url, Declared(config), secret)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        watching = asyncio.create_task(store.watch(), name="watch the store")
        stack.callback(watching.cancel)
        yield store


def check_store(settings: StoreSettings) -> URL:
    """Where the store is. Nothing is opened. Raises ConfigError where its packages are missing, or the URL is none
    of a database that we can use."""
    _need("store", ("sqlalchemy", "alembic"), "resource")
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url("sqlite:///" if settings.url is None else settings.url.reveal())
    except (ArgumentError, ValueError):
        # Not its text: there may be a password in it.
        raise ConfigError("store.url", "it is no URL of a database") from None
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername == "postgresql+psycopg":
        _need("store.url", ("psycopg",), "postgresql")
    elif url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise ConfigError("store.url", f"'{url.drivername}' is neither sqlite nor postgresql+psycopg")
    elif settings.url is not None and url.database in (None, "", ":memory:"):
        raise ConfigError("store.url", "a database in memory keeps nothing: name a file")
    return url


def describe_store(config: Config) -> str:
    """For people: which database, and where, without a password; empty without one. Raises ConfigError."""
    if config.store is None:
        return ""
    url = check_store(config.store)
    if url.get_backend_name() != "sqlite":
        return url.render_as_string(hide_password=True)
    return f"SQLite in {_path(config, url)}"


def _path(config: Config, url: URL) -> Path:
    return config.base / url.database if url.database else config.data_folder / DATABASE


def _file(config: Config, url: URL) -> Path:
    """The file of the database, for its user alone if it is made here."""
    if not url.database:
        open_data_folder(config)
    file = _path(config, url)
    return private_file(file.parent, file.name).absolute()


def _need(path: str, packages: tuple[str, ...], extra: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise ConfigError(path, f"{package} is not installed: pip install 'vivavoce[{extra}]'")
