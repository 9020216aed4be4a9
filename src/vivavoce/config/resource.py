"""``[resource]``, ``[[account]]`` and ``[store]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from vivavoce.config.convert import check_key_texts, check_name, convert, table_of, tables_of, with_environment
from vivavoce.config.tables import AccountSettings, ResourceSettings, StoreSettings
from vivavoce.config.values import ConfigError, Secret

_SEGMENT: Final = re.compile(r"[A-Za-z0-9._()-]{1,90}")
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LEAST_SECRET: Final = 32


def read_accounts(table: Mapping[str, Any], first: ResourceSettings) -> tuple[AccountSettings, ...]:
    """``first``: the account of ``[resource]``, with the keys that it really has."""
    accounts: list[AccountSettings] = []
    names = {first.name.lower(): "resource"}
    hosts = {(first.subdomain or first.name).lower(): "resource"}
    keys: dict[Secret, str] = dict.fromkeys(first.keys, "resource")
    inherited = {name: getattr(first, name) for name in ("subscription", "resource_group", "location", "tenant")}
    for index, entry in enumerate(tables_of(table, "account")):
        path = f"account[{index}]"
        account = convert(inherited | entry if isinstance(entry, dict) else entry, AccountSettings, path)
        check_account(account, path)
        other = names.setdefault(account.name.lower(), path)
        if other != path:
            raise ConfigError(f"{path}.name", f"'{account.name}' is already the name of {other}")
        other = hosts.setdefault((account.subdomain or account.name).lower(), path)
        if other != path:
            raise ConfigError(f"{path}.subdomain", f"it is already that of {other}")
        for at, key in enumerate(account.keys):
            other = keys.setdefault(key, path)
            if other != path:
                raise ConfigError(
                    f"{path}.keys[{at}]", f"it is already a key of {other}, and a key opens one account"
                )
        accounts.append(account)
    return tuple(accounts)


def check_account(account: AccountSettings | ResourceSettings, path: str) -> None:
    """Its parts are parts of an id, and the subdomain one of a host name."""
    check_name(account.name, f"{path}.name")
    for option in ("subscription", "resource_group", "location", "tenant"):
        value = getattr(account, option)
        if _SEGMENT.fullmatch(value) is None:
            raise ConfigError(f"{path}.{option}", f"{value!r} has other characters than letters, digits, and ._()-")
    if account.subdomain and _LABEL.fullmatch(account.subdomain) is None:
        raise ConfigError(f"{path}.subdomain", f"{account.subdomain!r} is no label of a host name")
    check_key_texts(account.keys, f"{path}.keys")


def read_store(table: Mapping[str, Any], environ: Mapping[str, str]) -> StoreSettings | None:
    if "store" not in table:
        return None
    store = convert(with_environment(table_of(table, "store"), environ, "store"), StoreSettings, "store")
    if store.secret is not None and len(store.secret.reveal()) < _LEAST_SECRET:
        raise ConfigError("store.secret", f"it must have at least {_LEAST_SECRET} characters")
    return store
