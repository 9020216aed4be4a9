"""Which prompts the clients of an account may name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from vivavoce.config import Config
from vivavoce.gateway.resource import account_id, id_key
from vivavoce.wire.prompts import Prompts

_NONE: Final[Prompts] = MappingProxyType({})


class DeclaredPrompts:
    """Those of the configuration, by account."""

    def __init__(self, config: Config | None = None) -> None:
        """None: there are none."""
        self._of: Mapping[str, Prompts] = {} if config is None else _by_account(config)

    def __call__(self, account: str) -> Prompts:
        """``account``: its id."""
        return self._of.get(id_key(account), _NONE)


def _by_account(config: Config) -> Mapping[str, Prompts]:
    return {
        id_key(account_id(account.subscription, account.resource_group, account.name)): MappingProxyType(
            {name: one.prompt for name, one in config.prompts.items() if one.account == account.name}
        )
        for account in config.accounts
    }
