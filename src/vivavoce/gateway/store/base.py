"""What a store does, and how it refuses.

Laws
----
1. Reading is one thing: :meth:`Store.directory` gives all that is there now, the changes of other processes too.
   :attr:`Store.current` is what was read last, for whoever cannot wait.
2. A change is all or nothing, comes after every change before it, and has a higher revision than all of them. When
   it returns, ``current`` shows it, and all who :meth:`~Store.follow` have heard of it.
3. A change that rests on what is there says so: by ``if_match`` and ``if_none_match``, or by a ``check`` that sees
   the directory before the change while nobody else can change it.
4. What the configuration declares is in every directory, and no change touches it.
5. A store keeps digests of keys, never a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from vivavoce.config import Secret
from vivavoce.gateway.resource import Account, AccountKey, ActorType, DeploymentRecord, Directory, RoleAssignment

KEY_SLOTS: Final = ("key1", "key2")

Check: TypeAlias = Callable[[Directory], None]
"""Looks at the directory before a change is made, and raises what it likes to prevent it. It must be quick."""

T = TypeVar("T")


class StoreError(Exception):
    """The store does not make a change; nothing has changed. ``id`` is of what was to be changed."""

    def __init__(self, identifier: str, problem: str) -> None:
        super().__init__(f"{identifier}: {problem}")
        self.id = identifier
        self.problem = problem


class NotFound(StoreError):
    """It is not there; or, for a new deployment, its account is not (then ``id`` is the account's)."""


class PreconditionFailed(StoreError):
    """``if_match`` or ``if_none_match`` does not hold: somebody else was faster."""


class Conflict(StoreError):
    """It would contradict something else that is there."""


class ReadOnly(StoreError):
    """The configuration declares it, or there is no store at all."""


class StoreUnavailable(Exception):
    """The database does not answer. It may be tried again."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change, for ``systemData``."""

    id: str
    type: ActorType


class Put(NamedTuple, Generic[T]):
    """What is there after a put."""

    value: T
    created: bool
    """It was not there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a deployment was used for in one hour."""

    deployment: str
    """Id of the deployment."""
    hour: datetime
    """Its begin, aware, in UTC."""
    requests: int
    """Responses that were admitted."""
    input_tokens: int
    output_tokens: int


class Store(Protocol):
    """Accounts, deployments, keys, role assignments and usage.

    ``if_match``: an etag, or ``*`` for any; what is put or deleted must be there with it. ``if_none_match``:
    nothing of this id may be there. Every method may raise :class:`StoreUnavailable`.
    """

    @property
    def current(self) -> Directory:
        """As it was read last; at most a second old while the server runs."""
        ...

    async def directory(self) -> Directory:
        """As it is now."""
        ...

    def follow(self, listener: Callable[[Directory], None]) -> Callable[[], None]:
        """``listener`` is called in the event loop with every directory after ``current``. The result ends that."""
        ...

    async def put_account(
        self,
        account: Account,
        *,
        by: Actor,
        if_match: str | None = None,
        if_none_match: bool = False,
        check: Check | None = None,
    ) -> Put[Account]:
        """Make or change it; ``etag``, ``system_data`` and ``declared`` are the store's to say. A new one gets its
        keys. Raises PreconditionFailed, ReadOnly, and Conflict where its subdomain is another's or a change would
        move it (its location and tenant stay)."""
        ...

    async def delete_account(self, account: str, *, if_match: str | None = None) -> None:
        """With its keys, and the role assignments at it. Raises NotFound, PreconditionFailed, ReadOnly, and
        Conflict while it has deployments."""
        ...

    async def put_deployment(
        self,
        record: DeploymentRecord,
        *,
        by: Actor,
        if_match: str | None = None,
        if_none_match: bool = False,
        check: Check | None = None,
    ) -> Put[DeploymentRecord]:
        """Make or change it. Raises NotFound (its account), PreconditionFailed and ReadOnly."""
        ...

    async def delete_deployment(self, account: str, name: str, *, if_match: str | None = None) -> None:
        """With the role assignments at it. Raises NotFound, PreconditionFailed and ReadOnly."""
        ...

    async def put_role_assignment(
        self, assignment: RoleAssignment, *, by: Actor, check: Check | None = None
    ) -> Put[RoleAssignment]:
        """Make it, or find it there. Raises ReadOnly, and Conflict where its id is there with other contents, or
        the same contents with another id."""
        ...

    async def delete_role_assignment(self, assignment: str) -> None:
        """Raises NotFound and ReadOnly."""
        ...

    async def keys(self, account: str) -> Mapping[str, Secret]:
        """The keys themselves, by slot. Raises NotFound."""
        ...

    async def regenerate_key(self, account: str, slot: str) -> AccountKey:
        """The old key of the slot opens nothing any more. Raises NotFound (account or slot) and ReadOnly."""
        ...

    async def record_usage(self, usages: Iterable[Usage]) -> None:
        """Add to what is there for each deployment and hour; all of them, or none."""
        ...

    async def forget_usage(self, before: datetime) -> int:
        """Of the hours that begin earlier. How many rows there were."""
        ...

    async def usage(self, account: str, since: datetime, until: datetime) -> tuple[Usage, ...]:
        """Of all deployments of an account, those that are gone too, for the hours that begin in
        ``since <= hour < until``; by hour, then deployment."""
        ...
