"""What the configuration declares, and the store of a server that has no other: it cannot be changed."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from vivavoce.config import AccountSettings, Config, ConfigError, DeploymentSettings, Secret
from vivavoce.config.identity import RoleAssignmentSettings
from vivavoce.gateway.keys import key_digest
from vivavoce.gateway.resource import (
    Account,
    AccountKey,
    DeploymentRecord,
    Directory,
    Model,
    RoleAssignment,
    Sku,
    deployment_id,
    id_key,
)
from vivavoce.gateway.roles import ROLES, role_of
from vivavoce.gateway.store.base import Actor, Check, NotFound, Put, ReadOnly, Usage

NO_STORE = "there is no store: this server has what its configuration declares, and nothing else"


_ASSIGNMENTS: Final = uuid.UUID("6b1f0a5e-5b0c-4d6f-8f0e-2f1d1c9a7e55")
"""Namespace of the names of role assignments."""


class Declared:
    """All that a configuration declares. Raises :class:`ConfigError` for a role that there is not."""

    def __init__(self, config: Config) -> None:
        self.accounts = tuple(_account(one) for one in config.accounts)
        self.keys = tuple(
            AccountKey(
                account=account.id, slot=f"key{at}", digest=key_digest(key.reveal()), generation=0, declared=True
            )
            for account, settings in zip(self.accounts, config.accounts, strict=True)
            for at, key in enumerate(settings.keys, 1)
        )
        by_name = {account.name: account for account in self.accounts}
        self.deployments = tuple(
            _deployment(by_name.get(one.account, self.accounts[0]), one) for one in config.deployments
        )
        self.assignments = tuple(
            _assignment(self.accounts[0], f"role_assignment[{at}]", one)
            for at, one in enumerate(config.identity.role_assignments)
        )
        self._secrets = {
            account.id: {f"key{at}": key for at, key in enumerate(settings.keys, 1)}
            for account, settings in zip(self.accounts, config.accounts, strict=True)
        }

    def secrets(self, account: str) -> Mapping[str, Secret]:
        """The keys of a declared account, by slot."""
        return self._secrets[account]

    def directory(
        self,
        *,
        accounts: Iterable[Account] = (),
        keys: Iterable[AccountKey] = (),
        deployments: Iterable[DeploymentRecord] = (),
        assignments: Iterable[RoleAssignment] = (),
        revision: int = 0,
    ) -> Directory:
        """With these after all that is declared."""
        return Directory(
            (*self.accounts, *accounts),
            keys=(*self.keys, *keys),
            deployments=(*self.deployments, *deployments),
            assignments=(*self.assignments, *assignments),
            revision=revision,
        )


def _account(settings: AccountSettings) -> Account:
    account = Account(
        subscription=settings.subscription,
        resource_group=settings.resource_group,
        name=settings.name,
        location=settings.location,
        tenant=settings.tenant,
        subdomain=settings.subdomain,
        declared=True,
    )
    return replace(account, etag=_etag(account))


def _deployment(account: Account, settings: DeploymentSettings) -> DeploymentRecord:
    record = DeploymentRecord(
        account=account.id,
        name=settings.name,
        sku=Sku(settings.sku, settings.capacity),
        model=Model(settings.model, settings.version),
        recipe=f"{account.name}/{settings.name}",
        declared=True,
    )
    return replace(record, etag=_etag(record))


def _assignment(first: Account, path: str, settings: RoleAssignmentSettings) -> RoleAssignment:
    """Its id follows from what it says. Raises :class:`ConfigError`."""
    role = role_of(settings.role)
    if role is None:
        names = ", ".join(one.name for one in ROLES.values())
        raise ConfigError(f"{path}.role", f"'{settings.role}' is no role (there are: {names})")
    scope = (settings.scope or first.id).rstrip("/")
    name = uuid.uuid5(_ASSIGNMENTS, f"{id_key(scope)}\n{role.id}\n{settings.principal_id}")
    assignment = RoleAssignment(
        id=f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name}",
        scope=scope,
        role=role.name,
        principal_id=settings.principal_id,
        principal_type=settings.principal_type,
        declared=True,
    )
    return replace(assignment, etag=_etag(assignment))


def _etag(declared: Account | DeploymentRecord | RoleAssignment) -> str:
    """It changes with what it is of."""
    return f'"{hashlib.sha256(repr(declared).encode()).hexdigest()[:16]}"'


class DeclaredStore:
    """A :class:`vivavoce.gateway.store.base.Store` without a database. Every change raises ReadOnly."""

    def __init__(self, config: Config) -> None:
        self._declared = Declared(config)
        self.current = self._declared.directory()

    async def directory(self) -> Directory:
        return self.current

    def follow(self, listener: Callable[[Directory], None]) -> Callable[[], None]:
        """Nothing will ever change."""
        return lambda: None

    async def put_account(
        self,
        account: Account,
        *,
        by: Actor,
        if_match: str | None = None,
        if_none_match: bool = False,
        check: Check | None = None,
    ) -> Put[Account]:
        raise ReadOnly(account.id, NO_STORE)

    async def delete_account(self, account: str, *, if_match: str | None = None) -> None:
        raise ReadOnly(account, NO_STORE)

    async def put_deployment(
        self,
        record: DeploymentRecord,
        *,
        by: Actor,
        if_match: str | None = None,
        if_none_match: bool = False,
        check: Check | None = None,
    ) -> Put[DeploymentRecord]:
        raise ReadOnly(record.id, NO_STORE)

    async def delete_deployment(self, account: str, name: str, *, if_match: str | None = None) -> None:
        raise ReadOnly(deployment_id(account, name), NO_STORE)

    async def put_role_assignment(
        self, assignment: RoleAssignment, *, by: Actor, check: Check | None = None
    ) -> Put[RoleAssignment]:
        raise ReadOnly(assignment.id, NO_STORE)

    async def delete_role_assignment(self, assignment: str) -> None:
        raise ReadOnly(assignment, NO_STORE)

    async def keys(self, account: str) -> Mapping[str, Secret]:
        found = self.current.account(account)
        if found is None:
            raise NotFound(account, "there is no such account")
        return self._declared.secrets(found.id)

    async def regenerate_key(self, account: str, slot: str) -> AccountKey:
        raise ReadOnly(account, NO_STORE)

    async def record_usage(self, usages: Iterable[Usage]) -> None:
        """Nothing is kept."""

    async def forget_usage(self, before: datetime) -> int:
        return 0

    async def usage(self, account: str, since: datetime, until: datetime) -> tuple[Usage, ...]:
        return ()
