"""Which subscriptions and resource groups there are, and whose.

A subscription is there because an account is in it, or because the configuration says so; so is a group. It belongs
to one tenant: the one that is configured, else the one of its first account.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vivavoce.config import SubscriptionSettings
from vivavoce.gateway.resource import Account, Directory, id_key


@dataclass(frozen=True, slots=True)
class Subscription:
    id: str
    name: str
    tenant: str
    groups: tuple[str, ...]
    """As they were written first, sorted."""

    def group(self, name: str) -> str | None:
        """As it was written; None where there is none."""
        return next((one for one in self.groups if id_key(one) == id_key(name)), None)


def subscriptions(directory: Directory, configured: Iterable[SubscriptionSettings]) -> dict[str, Subscription]:
    """All there are, by id in lower case."""
    accounts: dict[str, list[Account]] = {}
    for account in directory.accounts:
        accounts.setdefault(id_key(account.subscription), []).append(account)
    found = {
        id_key(one.id): Subscription(
            one.id,
            one.name or one.id,
            one.tenant,
            _groups([*one.resource_groups, *(a.resource_group for a in accounts.get(id_key(one.id), ()))]),
        )
        for one in configured
    }
    for key, inside in accounts.items():
        if key not in found:
            first = inside[0]
            groups = _groups(one.resource_group for one in inside)
            found[key] = Subscription(first.subscription, first.subscription, first.tenant, groups)
    return found


def _groups(names: Iterable[str]) -> tuple[str, ...]:
    kept: dict[str, str] = {}
    for name in names:
        kept.setdefault(id_key(name), name)
    return tuple(kept[key] for key in sorted(kept))
