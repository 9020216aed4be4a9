"""Client secrets: ``ek_`` keys that a backend mints for a browser, and what each opens (protocol section 1.5).

Laws
----
1. A secret is 128 random bits. Only its digest is kept, as a name in the shared state, beside what it opens; so it
   works on every worker and server that shares the state, and nobody who reads the state can use it.
2. It opens sessions of one deployment (of any, for transcription alone), one dialect and one kind, which begin with
   the settings that it was asked for with, as many as are wanted until it expires. They outlive it.
3. It mints no other.
4. At most :data:`MAX_SECRETS` are alive: each may hold :data:`MAX_BODY_BYTES`.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import Final

import msgspec

from vivavoce.gateway.auth import Credential
from vivavoce.gateway.principals import Principal, Unknown
from vivavoce.gateway.resource import same_id
from vivavoce.gateway.shared.base import SharedState, Unavailable
from vivavoce.wire.dialects.profiles import Dialect
from vivavoce.wire.session_config import SessionKind

PREFIX: Final = "ek_"
MAX_SECRETS: Final = 4096
MAX_BODY_BYTES: Final = 256 * 1024
"""Of the request for a secret, which is kept as long as the secret lives."""

_ALIVE: Final = "client secrets"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What a secret opens. Its ``repr`` has no settings, for they may hold what an application keeps to itself."""

    account: str
    """ARM id."""
    deployment: str
    """Its name; empty for transcription sessions, for which none can be named: any serves them."""
    dialect: Dialect
    kind: SessionKind
    body: bytes
    """The JSON that it was asked for with: what its sessions begin with, in the words of the dialect."""
    expires_at: int
    """Unix seconds."""
    minted_by: str
    """Id of a principal."""

    def __repr__(self) -> str:
        return f"Grant({self.deployment!r}, {self.dialect!r}, {self.kind!r}, expires_at={self.expires_at})"


class TooMany(Exception):
    """As many secrets are alive as may be."""


class ClientSecrets:
    """Mints secrets, and knows them again. ``clock``: unix seconds."""

    __slots__ = ("_clock", "_state")

    def __init__(self, state: SharedState, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock

    async def mint(
        self,
        *,
        account: str,
        deployment: str,
        dialect: Dialect,
        kind: SessionKind,
        body: bytes,
        seconds: int,
        minted_by: str,
    ) -> tuple[str, Grant]:
        """A new secret, and what it opens. Raises TooMany and Unavailable."""
        secret = PREFIX + secrets.token_hex(16)
        grant = Grant(
            account=account,
            deployment=deployment,
            dialect=dialect,
            kind=kind,
            body=body,
            expires_at=int(self._clock()) + seconds,
            minted_by=minted_by,
        )
        digest = _digest(secret)
        if not await self._state.join(_ALIVE, digest, seconds, MAX_SECRETS):
            raise TooMany
        await self._state.put(_name(digest), msgspec.json.encode(grant), seconds)
        return secret, grant

    async def identify(self, credential: Credential, account: str | None) -> Principal | Unknown | None:
        """A source of principals (``gateway.principals``). One that has expired is like one that never was."""
        if not credential.value.startswith(PREFIX):
            return None
        digest = _digest(credential.value)
        try:
            kept = await self._state.get(_name(digest))
        except Unavailable:
            return Unknown("unavailable", credential, "the shared state cannot be reached")
        if kept is None:
            return Unknown("expired", credential, "a client secret that has expired, or never was")
        grant = msgspec.json.decode(kept, type=Grant)
        if grant.expires_at <= self._clock():
            return Unknown("expired", credential, "a client secret that has expired")
        if account is not None and not same_id(account, grant.account):
            return Unknown("expired", credential, "a client secret of another account")
        return Principal(kind="ephemeral", id=principal_id(credential.value), account=grant.account, grant=grant)


def principal_id(secret: str) -> str:
    """What a secret is called in logs: ``ephemeral:`` and 12 hex digits."""
    return f"ephemeral:{hashlib.sha256(b'vivavoce principal ' + _bytes(secret)).hexdigest()[:12]}"


def _name(digest: str) -> str:
    return f"client secret {digest}"


def _digest(secret: str) -> str:
    return hashlib.sha256(_bytes(secret)).hexdigest()


def _bytes(secret: str) -> bytes:
    # Headers may hold bytes that are no UTF-8; they arrive as lone surrogates.
    return secret.encode("utf-8", "surrogatepass")
