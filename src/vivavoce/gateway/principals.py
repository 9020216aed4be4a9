"""Who is connecting: from the credentials of a request to a principal.

Laws
----
1. A credential is asked of every source, in their order, and the credentials in theirs; the first principal counts.
   Clients send several at once: a placeholder in one place and the true key in another.
2. A source that knows the kind of a credential but not this one says why, as :class:`Unknown`; one that has nothing
   to do with it says None. Nothing here raises for what somebody offered.
3. Whoever guesses is made to wait (``gateway.throttle``), before what was offered is looked at.
4. A :class:`Principal` and an :class:`Unknown` hold no secret: both may be logged as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from vivavoce.gateway.auth import Credential, key_principal
from vivavoce.gateway.keys import key_digest
from vivavoce.gateway.resource import Directory, same_id
from vivavoce.gateway.throttle import Throttle

PrincipalKind: TypeAlias = Literal["key", "entra", "oidc", "ephemeral"]

Fault: TypeAlias = Literal["missing", "unknown", "expired", "token", "claims", "unavailable", "throttled"]
"""Nothing was offered; what was offered is no key that we know; a client secret that has
ended, or never was; a token that no issuer of ours has signed; one that
was signed, but not for this; whoever could tell cannot be reached; too many failures came from this address."""
_GUESSES: Final = ("unknown", "token")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody whom we know. What they may do is decided elsewhere (``gateway.roles``)."""

    kind: PrincipalKind
    id: str
    """For logs and counters, unique: ``key:`` and a digest, ``entra:`` tenant ``/`` object id, ..."""
    account: str | None = None
    """ARM id of the only account that a key or an ephemeral secret opens; None for tokens, which roles decide."""
    tenant: str | None = None
    """Of an Entra token, in lower case."""
    oid: str | None = None
    """What role assignments name: the object id of a user or service principal, in lower case; of another issuer
    than Entra ``NAME:SUBJECT``, as it is."""
    appid: str | None = None
    """The client application that a token was given to."""
    groups: frozenset[str] = frozenset()
    """As ``oid``, those that it is a member of by its token."""
    is_app: bool = False
    """A service principal rather than a person."""
    grant: object = None
    """What an ephemeral secret is bound to."""

    @property
    def is_token(self) -> bool:
        """Roles decide what it may do."""
        return self.kind in ("entra", "oidc")


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody whom we know."""

    fault: Fault
    offered: Credential | None = None
    """The credential at fault: the first that was offered, unless a source knew its kind."""
    why: str = ""
    """For the log alone; says nothing that the credential holds."""
    retry_after_s: float = 0.0
    """Of one that was throttled."""


class Source(Protocol):
    """Knows one kind of credential."""

    async def identify(self, credential: Credential, account: str | None) -> Principal | Unknown | None:
        """``account``: ARM id of the only account that is meant, None for any."""


class Identities:
    """All sources together."""

    __slots__ = ("_sources", "_throttle")

    def __init__(self, sources: Sequence[Source], throttle: Throttle | None = None) -> None:
        """``throttle``: None lets everybody guess."""
        self._sources = tuple(sources)
        self._throttle = throttle

    async def of(
        self, offered: Sequence[Credential], account: str | None = None, address: str = ""
    ) -> Principal | Unknown:
        """Who offers these credentials to ``account`` (ARM id; None: the request does not say) from ``address``."""
        if self._throttle is None or not offered:
            return (await self._find(offered, account))[0]
        wait_s = self._throttle.wait_s(address, account or "")
        if wait_s > 0:
            return Unknown("throttled", offered[0], retry_after_s=wait_s)
        found, is_guess = await self._find(offered, account)
        if is_guess:
            self._throttle.failed(address, account or "")
        return found

    async def _find(self, offered: Sequence[Credential], account: str | None) -> tuple[Principal | Unknown, bool]:
        """And whether it was a guess: one of those that were offered in vain may have been made up. What is told
        of another beside it does not excuse it."""
        fault: Unknown | None = None
        is_guess = False
        for credential in offered:
            told: Unknown | None = None
            for source in self._sources:
                found = await source.identify(credential, account)
                if isinstance(found, Principal):
                    return found, False
                told = told or found
            is_guess = is_guess or told is None or told.fault in _GUESSES
            fault = fault or told
        if fault is not None:
            return fault, is_guess
        return (Unknown("unknown", offered[0]), True) if offered else (Unknown("missing"), False)


class Keys:
    """The keys of all accounts, as the directory has them now. Each opens its own account only."""

    __slots__ = ("_directory",)

    def __init__(self, directory: Callable[[], Directory]) -> None:
        self._directory = directory

    async def identify(self, credential: Credential, account: str | None) -> Principal | None:
        found = self._directory().by_key_digest(key_digest(credential.value))
        if found is None or (account is not None and not same_id(found.account, account)):
            return None
        return Principal(kind="key", id=key_principal(credential.value), account=found.account)
