"""Who may connect, put together from the configuration: keys, tokens of issuers, the throttle."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from vivavoce.config import Config, ConfigError
from vivavoce.gateway.principals import Identities, Keys, Source
from vivavoce.gateway.resource import Directory
from vivavoce.gateway.throttle import Network, Throttle, client_address

if TYPE_CHECKING:
    from vivavoce.server.token_issuers import TokenIssuers


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Who knows who is at the door."""

    data: Identities
    """For sessions."""
    management: Identities = field(default_factory=lambda: Identities([]))
    """Tokens alone, with the audience of Resource Manager."""
    trusted_proxies: Sequence[Network] = ()
    routes: Sequence[web.RouteDef] = ()
    """What the development issuer publishes; empty without it."""

    def address_of(self, request: web.Request) -> str:
        """Whose request it is: the peer, or whom a trusted proxy names."""
        return client_address(
            request.remote or "", request.headers.getall("X-Forwarded-For", []), self.trusted_proxies
        )


@asynccontextmanager
async def open_doorkeeper(
    config: Config, directory: Callable[[], Directory], *, more: Sequence[Source] = ()
) -> AsyncIterator[Doorkeeper]:
    """``more``: sources for sessions beside keys and tokens. Raises :class:`ConfigError`."""
    settings = config.identity.settings
    throttle = None
    if settings.failures:
        throttle = Throttle(
            time.monotonic,
            failures=settings.failures,
            account_failures=settings.account_failures,
            window_s=settings.failure_window_s,
        )
    data: list[Source] = [Keys(directory), *more]
    management: list[Source] = []
    routes: Sequence[web.RouteDef] = ()
    async with AsyncExitStack() as stack:
        if config.identity.takes_tokens:
            issuers = await stack.enter_async_context(_token_issuers(config))
            data.append(issuers.tokens("data"))
            management.append(issuers.tokens("management"))
            routes = issuers.routes
        yield Doorkeeper(
            data=Identities(data, throttle),
            management=Identities(management, throttle),
            trusted_proxies=[ipaddress.ip_network(one) for one in settings.trusted_proxies],
            routes=routes,
        )


def _token_issuers(config: Config) -> AbstractAsyncContextManager[TokenIssuers]:
    try:
        from vivavoce.server.token_issuers import open_issuers
    except ModuleNotFoundError as error:
        if error.name not in ("jwt", "cryptography"):
            raise
        raise ConfigError(
            "entra, issuer, development_issuer", "tokens need the extra: pip install 'vivavoce[resource]'"
        ) from None
    return open_issuers(config)
