"""``[management]`` and ``[[subscription]]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from vivavoce.config.convert import convert, table_of, tables_of
from vivavoce.config.identity import Identity
from vivavoce.config.tables import ManagementSettings, SubscriptionSettings
from vivavoce.config.values import ConfigError

_SEGMENT: Final = re.compile(r"[A-Za-z0-9._()-]{1,90}")
_ENDPOINT: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]{}-]+/?")


MANAGEMENT_TABLES: Final = ("management", "subscription")


def read_management(table: Mapping[str, Any], identity: Identity) -> ManagementSettings:
    """``identity``: whose tokens count. Raises :class:`ConfigError`."""
    settings = convert(table_of(table, "management"), ManagementSettings, "management")
    if settings.enabled and not (identity.entra or identity.issuers or identity.development.enabled):
        raise ConfigError("management.enabled", "it takes tokens alone: add [entra] or an [[issuer]]")
    if settings.endpoint:
        bare = settings.endpoint.replace("{account}", "")
        if _ENDPOINT.fullmatch(settings.endpoint) is None or "{" in bare or "}" in bare:
            raise ConfigError("management.endpoint", "expected a URL such as https://{account}.voice.example/")
    return settings


def read_subscriptions(table: Mapping[str, Any]) -> tuple[SubscriptionSettings, ...]:
    found: dict[str, str] = {}
    subscriptions = []
    for index, entry in enumerate(tables_of(table, "subscription")):
        path = f"subscription[{index}]"
        one = convert(entry, SubscriptionSettings, path)
        _check_segment(one.id, f"{path}.id")
        _check_segment(one.tenant, f"{path}.tenant")
        for at, group in enumerate(one.resource_groups):
            _check_segment(group, f"{path}.resource_groups[{at}]")
        other = found.setdefault(one.id.lower(), path)
        if other != path:
            raise ConfigError(f"{path}.id", f"'{one.id}' is already the id of {other}")
        subscriptions.append(one)
    return tuple(subscriptions)


def _check_segment(text: str, path: str) -> None:
    if _SEGMENT.fullmatch(text) is None:
        raise ConfigError(path, f"{text!r} is not of 1 to 90 letters, digits and the characters ._()-")
