"""``vivavoce token``: a token of the development issuer."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vivavoce.config import Config, ConfigError, load_config
from vivavoce.config.data import open_data_folder
from vivavoce.config.development_keys import development_keys, replace_development_keys
from vivavoce.config.identity import DATA_AUDIENCES

if TYPE_CHECKING:
    from types import ModuleType

_GUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_TENANT: Final = re.compile(r"[A-Za-z0-9._-]{1,90}")


def token(
    oid: Annotated[str, typer.Option(metavar="GUID", help="Object id of the user or service principal.")],
    tenant: Annotated[
        str | None, typer.Option(metavar="ID", help="Its tenant; that of [resource] if not given.")
    ] = None,
    appid: Annotated[str | None, typer.Option(metavar="ID", help="The client application.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(metavar="GUID", help="A group that it belongs to; repeatable.")
    ] = None,
    app: Annotated[bool, typer.Option("--app", help="It is a service principal rather than a user.")] = False,
    audience: Annotated[str, typer.Option(help="What the token is for.")] = DATA_AUDIENCES[0],
    expires: Annotated[int, typer.Option(min=1, metavar="SECONDS", help="How long it is valid.")] = 3600,
    new_key: Annotated[bool, typer.Option("--new-key", help="Sign with a new key from now on.")] = False,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Configuration file (TOML).", show_default=False)
    ] = None,
) -> None:
    """Print a token of the development issuer, for servers that have it on. Never for production."""
    settings = load_config(config, environ=os.environ)
    if not settings.identity.development.enabled:
        raise ConfigError("development_issuer.enabled", "it is off: the server would not take the token")
    for name, value in (("--oid", oid), *(("--group", one) for one in group or ())):
        if _GUID.fullmatch(value) is None:
            raise ConfigError(name, f"{value!r} is no GUID")
    tenant = settings.resource.tenant if tenant is None else tenant
    if _TENANT.fullmatch(tenant) is None:
        raise ConfigError("--tenant", f"{tenant!r} is no id of a tenant")
    issuer = _issuer()
    holder = issuer.Holder(tenant=tenant, oid=oid, appid=appid, groups=group or (), is_app=app)
    typer.echo(
        issuer.token(
            _keys(settings, issuer, new_key=new_key),
            settings.identity.development.url,
            holder,
            audience=audience,
            now=int(time.time()),
            expires_s=expires,
        )
    )


def _issuer() -> ModuleType:
    try:
        from vivavoce.gateway import development_issuer
    except ModuleNotFoundError as error:
        if error.name not in ("jwt", "cryptography"):
            raise
        raise ConfigError("development_issuer", "needs the extra: pip install 'vivavoce[resource]'") from None
    return development_issuer


def _keys(settings: Config, issuer: ModuleType, *, new_key: bool) -> bytes:
    folder = open_data_folder(settings)
    content = development_keys(folder, issuer.with_new_key)
    try:
        if new_key:
            content = issuer.with_new_key(content)
            replace_development_keys(folder, content)
        issuer.public_keys(content)
    except ValueError as error:
        raise ConfigError("development_issuer", f"{folder}: {error}") from None
    return content
