"""A directory for tests: one account."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vivavoce.gateway.keys import key_digest
from vivavoce.gateway.resource import Account, AccountKey, Directory, RoleAssignment


def one_account(
    *keys: str, tenant: str = "", assignments: Iterable[RoleAssignment] = ()
) -> Callable[[], Directory]:
    """The account ``test`` of the subscription and the group of that name, which ``keys`` open."""
    account = Account(
        subscription="test", resource_group="test", name="test", location="eastus2", tenant=tenant or "test"
    )
    directory = Directory(
        [account],
        keys=[
            AccountKey(account=account.id, slot=f"key{at}", digest=key_digest(key))
            for at, key in enumerate(keys, 1)
        ],
        assignments=assignments,
    )
    return lambda: directory
