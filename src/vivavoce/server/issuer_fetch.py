"""The keys of issuers over HTTP: JWK sets, and the OpenID configuration that tells where they are."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import aiohttp
import msgspec

from vivavoce.config.identity import is_trustworthy
from vivavoce.gateway.issuer_keys import IssuerUnavailable, Loaded

TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 1024 * 1024

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=(\d{1,10})(?:$|[\s,])", re.IGNORECASE)


class _KeyDocument(msgspec.Struct):
    keys: list[dict[str, Any]]


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class IssuerFetch:
    """Asks issuers. Redirects are not followed: keys come from where the configuration says."""

    def __init__(self) -> None:
        self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    def keys_at(self, url: str) -> Callable[[], Awaitable[Loaded]]:
        """Loads the key set at ``url``."""

        async def load() -> Loaded:
            document, max_age_s = await self._get(url, _KeyDocument)
            return Loaded(document.keys, max_age_s)

        return load

    def keys_of(self, issuer: str) -> Callable[[], Awaitable[Loaded]]:
        """Loads the key set that the OpenID configuration of ``issuer`` names."""

        async def load() -> Loaded:
            url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
            discovery, _ = await self._get(url, _Discovery)
            if discovery.issuer != issuer:
                raise IssuerUnavailable(f"{url} is of another issuer")
            if not is_trustworthy(discovery.jwks_uri):
                raise IssuerUnavailable(f"{url} names keys that are not at an https:// URL")
            return await self.keys_at(discovery.jwks_uri)()

        return load

    async def _get(self, url: str, into: type[Any]) -> tuple[Any, float | None]:
        try:
            async with self._client.get(
                url, allow_redirects=False, headers={"Accept": "application/json"}
            ) as answer:
                if answer.status != 200:
                    raise IssuerUnavailable(f"{url} answers {answer.status}")
                body = await answer.content.read(MAX_BYTES + 1)
                while len(body) <= MAX_BYTES and (more := await answer.content.read(MAX_BYTES + 1 - len(body))):
                    body += more
                cache_control = answer.headers.get("Cache-Control", "")
        except (aiohttp.ClientError, OSError) as error:
            raise IssuerUnavailable(f"{url} cannot be reached: {type(error).__name__}") from None
        if len(body) > MAX_BYTES:
            raise IssuerUnavailable(f"{url} answers with more than {MAX_BYTES} bytes")
        try:
            document = msgspec.json.decode(body, type=into)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise IssuerUnavailable(f"{url} answers with no {into.__name__.strip('_')}") from None
        max_age = _MAX_AGE.search(cache_control)
        return document, None if max_age is None else float(max_age[1])

    async def close(self) -> None:
        await self._client.close()
