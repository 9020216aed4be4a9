"""The file, the environment and the command line -> :class:`Config`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from vivavoce.config.audit import read_audit
from vivavoce.config.convert import check_key_text, check_names, convert, table_of
from vivavoce.config.counters import read_counters
from vivavoce.config.engines import read_deployments, read_engines, read_recipes
from vivavoce.config.identity import TABLES as IDENTITY_TABLES
from vivavoce.config.identity import read_identity
from vivavoce.config.limits import LimitSettings, read_capacities
from vivavoce.config.management import MANAGEMENT_TABLES, read_management, read_subscriptions
from vivavoce.config.models import read_models
from vivavoce.config.prompts import read_prompts
from vivavoce.config.resource import check_account, read_accounts, read_store
from vivavoce.config.tables import (
    API_KEY_VARIABLE,
    Config,
    Overrides,
    ResourceSettings,
    ServerSettings,
    StoreSettings,
)
from vivavoce.config.toml_file import read_toml
from vivavoce.config.values import ConfigError, Secret

_TABLES: Final = (
    *("server", "resource", "account", "audit", "models", "limits", "capacity", "counters"),
    *("deployment", "recipe", "prompt", "engine", "store"),
    *MANAGEMENT_TABLES,
    *IDENTITY_TABLES,
)


def load_config(path: Path | None, *, environ: Mapping[str, str], overrides: Overrides | None = None) -> Config:
    """Read the file (None: none), then apply ``environ`` and ``overrides``.

    Keys come from the first of these that has any: ``overrides``, ``VIVAVOCE_API_KEY``, the file. They may be
    empty afterwards. Without a ``[[deployment]]`` there is one, ``gpt-4o-realtime-preview``.

    Raises :class:`ConfigError`.
    """
    overrides = overrides or Overrides()
    table = {} if path is None else read_toml(path)
    check_names(table, _TABLES, "", "table")
    base = Path() if path is None else path.parent
    server = convert(table_of(table, "server"), ServerSettings, "server")
    resource = convert(table_of(table, "resource"), ResourceSettings, "resource")
    check_account(resource, "resource")
    resource = msgspec.structs.replace(resource, keys=_keys(resource.keys, environ, overrides))
    accounts = read_accounts(table, resource)
    identity = read_identity(table, (resource.tenant, *(one.tenant for one in accounts)))
    management = read_management(table, identity)
    store = read_store(table, environ)
    if store is None and management.enabled:
        # What it changes must be kept.
        store = StoreSettings()
    models, own_models = read_models(table, base)
    account_names = (resource.name, *(one.name for one in accounts))
    return Config(
        server=msgspec.structs.replace(
            _override_tls(_override_server(server, overrides), overrides, base),
            data=_data(server.data, environ, base),
        ),
        resource=resource,
        more_accounts=accounts,
        identity=identity,
        audit=read_audit(table, base),
        models=models,
        own_models=own_models,
        limits=convert(table_of(table, "limits"), LimitSettings, "limits"),
        capacities=read_capacities(table),
        deployments=read_deployments(table, account_names, more_may_come=store is not None),
        recipes=read_recipes(table),
        prompts=read_prompts(table, account_names),
        management=management,
        subscriptions=read_subscriptions(table),
        counters=read_counters(table, environ),
        engines=read_engines(table, environ),
        store=store,
        base=base,
    )


def environment_key(environ: Mapping[str, str]) -> Secret | None:
    """The key in ``VIVAVOCE_API_KEY``; None when the variable is missing or empty. Raises :class:`ConfigError`."""
    value = environ.get(API_KEY_VARIABLE, "")
    if not value:
        return None
    key = Secret(value)
    check_key_text(key, API_KEY_VARIABLE)
    return key


def _override_server(server: ServerSettings, overrides: Overrides) -> ServerSettings:
    """Checked by the same types as the file, but a fault names the option that carries it."""
    said = {
        "host": overrides.host,
        "port": overrides.port,
        "log_level": overrides.log_level,
        "workers": overrides.workers,
    }
    for name, value in said.items():
        if value is not None:
            checked = convert({name: value}, ServerSettings, "", lambda field: f"--{field.replace('_', '-')}")
            server = msgspec.structs.replace(server, **{name: getattr(checked, name)})
    return server


def _override_tls(server: ServerSettings, overrides: Overrides, base: Path) -> ServerSettings:
    """Certificate and key belong together: those of the command line replace both of the file."""
    cert, key = server.tls_cert, server.tls_key
    at_cert, at_key = "server.tls_cert", "server.tls_key"
    if overrides.tls_cert is not None or overrides.tls_key is not None:
        cert = None if overrides.tls_cert is None else str(overrides.tls_cert)
        key = None if overrides.tls_key is None else str(overrides.tls_key)
        base, at_cert, at_key = Path(), "--tls-cert", "--tls-key"
    if cert is None:
        if key is not None:
            raise ConfigError(at_key, f"a key needs its certificate, {at_cert}")
        return server
    cert = str(base / cert)
    _check_pem(at_cert, cert, "CERTIFICATE")
    if key is None:
        _check_pem(at_cert, cert, "PRIVATE KEY")
    else:
        key = str(base / key)
        _check_pem(at_key, key, "PRIVATE KEY")
    return msgspec.structs.replace(server, tls_cert=cert, tls_key=key)


def _data(named: str | None, environ: Mapping[str, str], base: Path) -> str | None:
    """The usual place of data that programs keep for a user, by the XDG Base Directory Specification."""
    if named is not None:
        return str(base / named)
    xdg, home = Path(environ.get("XDG_DATA_HOME", "")), environ.get("HOME")
    if xdg.is_absolute():
        return str(xdg / "vivavoce")
    return str(Path(home, ".local", "share", "vivavoce")) if home else None


def _check_pem(where: str, path: str, block: str) -> None:
    """``ssl`` would tell neither the file nor what is wrong with it."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(where, f"{path} cannot be read: {error.strerror or error}") from None
    if f"{block}-----".encode() not in content:
        raise ConfigError(where, f"{path} holds no PEM block '{block}'")


# -------------------------------------------------------------------------------------------------------- keys


def _keys(from_file: tuple[Secret, ...], environ: Mapping[str, str], overrides: Overrides) -> tuple[Secret, ...]:
    for key in overrides.api_keys:
        check_key_text(key, "--api-key")
    from_environment = environment_key(environ)
    if overrides.api_keys:
        return overrides.api_keys
    return from_file if from_environment is None else (from_environment,)
