"""The public keys of an issuer of tokens: kept as long as it allows, and looked up again when it changes them.

Laws
----
1. A key set is loaded when it is first needed, by one load that all who wait share. Nobody's hanging up ends it.
2. It is fresh for as long as the issuer said, within bounds. Afterwards, and for a key that it does not hold, it is
   loaded again; but never within ``cooldown_s`` of the last attempt, so that a flood of made-up key ids costs the
   issuer nothing.
3. While the issuer cannot be reached, the old set serves for ``stale_s`` after it was fresh. Then nobody is let in
   by it: :class:`IssuerUnavailable`.
4. Only public keys for signatures by public keys come out; what a set holds beside them is passed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from jwt import PyJWK
from jwt.exceptions import PyJWTError

logger = logging.getLogger(__name__)

FRESH_S: Final = 3600.0
"""Seconds that a set is fresh whose issuer does not say."""
_LEAST_FRESH_S: Final = 60.0
_MOST_FRESH_S: Final = 24 * 3600.0

_KEY_TYPES: Final[Mapping[str, str]] = {"RS": "RSA", "PS": "RSA", "ES": "EC"}
"""``kty`` by the first letters of the algorithm."""


class IssuerUnavailable(Exception):
    """The keys of an issuer cannot be had. The text is for the log."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A key set as it came."""

    keys: Sequence[Mapping[str, object]]
    """``keys`` of a JWK set (RFC 7517)."""
    max_age_s: float | None = None
    """How long it may be kept, if the issuer says."""


Load: TypeAlias = Callable[[], Awaitable[Loaded]]
"""Gets the key set. Raises :class:`IssuerUnavailable`."""


class KeySet:
    """The keys of one issuer."""

    def __init__(
        self,
        name: str,
        load: Load,
        clock: Callable[[], float],
        *,
        cooldown_s: float = 30.0,
        stale_s: float = 24 * 3600.0,
    ) -> None:
        """``name``: for the log; ``clock``: monotone seconds."""
        self._name = name
        self._load = load
        self._clock = clock
        self._cooldown_s = cooldown_s
        self._stale_s = stale_s
        self._keys: dict[str, Mapping[str, object]] = {}
        self._made: dict[tuple[str, str], PyJWK | None] = {}
        self._fresh_until = -float("inf")
        self._tried_at = -float("inf")
        self._loading: asyncio.Task[None] | None = None

    async def key(self, kid: str, algorithm: str) -> PyJWK | None:
        """The key of this id, for ``algorithm`` (``RS256``); None where the issuer has none such.

        Raises :class:`IssuerUnavailable`.
        """
        if self._clock() >= self._fresh_until or kid not in self._keys:
            await self._refresh()
        if self._clock() >= self._fresh_until + self._stale_s:
            raise IssuerUnavailable(f"the keys of {self._name} cannot be had")
        return self._find(kid, algorithm)

    async def _refresh(self) -> None:
        now = self._clock()
        if now - self._tried_at >= self._cooldown_s and (self._loading is None or self._loading.done()):
            self._tried_at = now
            self._loading = asyncio.create_task(self._reload(), name=f"load the keys of {self._name}")
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def _reload(self) -> None:
        try:
            loaded = await self._load()
        except IssuerUnavailable as error:
            logger.warning("the keys of %s cannot be loaded: %s", self._name, error)
            return
        fresh_s = FRESH_S if loaded.max_age_s is None else loaded.max_age_s
        self._fresh_until = self._clock() + min(max(fresh_s, _LEAST_FRESH_S), _MOST_FRESH_S)
        keys = {kid: key for key in loaded.keys if isinstance(kid := key.get("kid"), str)}
        if keys.keys() != self._keys.keys():
            logger.info("the keys of %s were loaded, there are %d", self._name, len(keys))
        self._keys = keys
        self._made.clear()

    def _find(self, kid: str, algorithm: str) -> PyJWK | None:
        at = (kid, algorithm)
        if kid in self._keys and at not in self._made:
            self._made[at] = _public_key(self._keys[kid], algorithm)
        return self._made.get(at)

    async def close(self) -> None:
        """Ends a load that is under way."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)


def _public_key(key: Mapping[str, object], algorithm: str) -> PyJWK | None:
    if key.get("use", "sig") != "sig" or key.get("alg", algorithm) != algorithm:
        return None
    if key.get("kty") != _KEY_TYPES[algorithm[:2]]:
        return None
    try:
        return PyJWK({name: value for name, value in key.items() if name != "d"}, algorithm)
    except (PyJWTError, TypeError, ValueError):
        return None
