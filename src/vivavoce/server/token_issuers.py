"""The issuers whose tokens count, put together from the configuration; needs the extra ``resource``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from vivavoce.config import Config, ConfigError
from vivavoce.config.data import open_data_folder
from vivavoce.config.development_keys import development_keys
from vivavoce.config.identity import EntraSettings, IssuerSettings
from vivavoce.gateway import development_issuer as development
from vivavoce.gateway.issuer_keys import IssuerUnavailable, KeySet, Load, Loaded
from vivavoce.gateway.tokens import Issuer, Purpose, Tokens
from vivavoce.server.issuer_fetch import IssuerFetch

log = logging.getLogger(__name__)

_PUBLISHED_S: Final = 60
"""Seconds that the development issuer lets others keep its keys."""


class TokenIssuers:
    """All of them, by what ``iss`` says."""

    def __init__(self, config: Config, key_set: Callable[[str, Load], KeySet], fetch: IssuerFetch) -> None:
        self._leeway_s = config.identity.settings.clock_skew_s
        self._known: dict[str, Issuer] = {}
        self._development_url = ""
        self._development_keys: KeySet | None = None
        self._audiences = _audiences(config.identity.entra or EntraSettings())
        self.routes: list[web.RouteDef] = []
        if config.identity.entra is not None:
            self._add_entra(config.identity.entra, key_set, fetch)
        for settings in config.identity.issuers:
            load = fetch.keys_of(settings.issuer) if settings.jwks_uri is None else fetch.keys_at(settings.jwks_uri)
            self._known[settings.issuer] = _issuer(settings, key_set(settings.name, load))

    def _add_entra(
        self, settings: EntraSettings, key_set: Callable[[str, Load], KeySet], fetch: IssuerFetch
    ) -> None:
        for tenant in settings.tenants:
            keys = key_set(f"tenant {tenant}", fetch.keys_at(f"{settings.authority}/{tenant}/discovery/v2.0/keys"))
            issuer = Issuer(name="entra", keys=keys, audiences=self._audiences, tenant=tenant)
            self._known[f"https://sts.windows.net/{tenant}/"] = issuer
            self._known[f"{settings.authority}/{tenant}/v2.0"] = issuer

    def add_development(self, url: str, keys: KeySet, load: Load) -> None:
        """``load``: the keys, for those who ask over HTTP."""
        self._development_url, self._development_keys = url, keys

        async def tell_keys(_: web.Request) -> web.Response:
            return _published({"keys": (await load()).keys})

        async def tell_configuration(request: web.Request) -> web.Response:
            return _published(development.discovery(url, request.match_info["tenant"]))

        self.routes += [
            web.get(development.KEYS_PATH, tell_keys),
            web.get(development.PATH + "/{tenant}/v2.0/.well-known/openid-configuration", tell_configuration),
        ]

    def find(self, named: str) -> Issuer | None:
        known = self._known.get(named)
        if known is None and self._development_keys is not None:
            tenant = development.tenant_of(self._development_url, named)
            if tenant is not None:
                return Issuer(
                    name="development",
                    keys=self._development_keys,
                    audiences=self._audiences,
                    tenant=tenant.lower(),
                )
        return known

    def tokens(self, purpose: Purpose) -> Tokens:
        return Tokens(self.find, time.time, purpose=purpose, leeway_s=self._leeway_s)


@asynccontextmanager
async def open_issuers(config: Config) -> AsyncIterator[TokenIssuers]:
    """Raises :class:`ConfigError`."""
    settings = config.identity.settings
    async with AsyncExitStack() as stack:
        fetch = IssuerFetch()
        stack.push_async_callback(fetch.close)

        def key_set(name: str, load: Load, retry_s: float = settings.keys_retry_s) -> KeySet:
            keys = KeySet(name, load, time.monotonic, cooldown_s=retry_s, stale_s=settings.stale_keys_s)
            stack.push_async_callback(keys.close)
            return keys

        issuers = TokenIssuers(config, key_set, fetch)
        if config.identity.development.enabled:
            folder = open_data_folder(config)
            await asyncio.to_thread(_read, folder)
            load = _from_folder(folder)
            issuers.add_development(
                config.identity.development.url, key_set("the development issuer", load, 0.0), load
            )
            log.warning(
                "THE DEVELOPMENT ISSUER IS ON: whoever reads %s opens every account. Never use it in production.",
                folder,
            )
        yield issuers


def _read(folder: Path) -> Sequence[dict[str, object]]:
    try:
        return development.public_keys(development_keys(folder, development.with_new_key))
    except ValueError as error:
        raise ConfigError("development_issuer", f"{folder}: {error}") from None


def _from_folder(folder: Path) -> Load:
    async def load() -> Loaded:
        try:
            return Loaded(await asyncio.to_thread(_read, folder), _PUBLISHED_S)
        except ConfigError as error:
            raise IssuerUnavailable(str(error)) from error

    return load


def _audiences(settings: EntraSettings) -> dict[Purpose, frozenset[str]]:
    return {
        "data": _without_slashes(settings.audience),
        "management": _without_slashes(settings.management_audience),
    }


def _issuer(settings: IssuerSettings, keys: KeySet) -> Issuer:
    return Issuer(
        name=settings.name,
        keys=keys,
        audiences={
            "data": _without_slashes(settings.audience),
            "management": _without_slashes(settings.management_audience),
        },
        algorithms=settings.algorithms,
        subject_claim=settings.subject_claim,
        groups_claim=settings.groups_claim,
    )


def _without_slashes(audiences: Sequence[str]) -> frozenset[str]:
    return frozenset(one.removesuffix("/") for one in audiences)


def _published(document: object) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document),
        content_type="application/json",
        headers={"Cache-Control": f"public, max-age={_PUBLISHED_S}"},
    )
