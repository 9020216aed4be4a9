"""``[limits]`` and ``[[capacity]]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from vivavoce.config.convert import convert, tables_of
from vivavoce.config.values import ConfigError

ProvisionedSku: TypeAlias = Literal["ProvisionedManaged", "GlobalProvisionedManaged", "DataZoneProvisionedManaged"]
"""What is bought as throughput."""

_None_or_more = Annotated[int, msgspec.Meta(ge=0)]


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[limits]``: what the pages of the service limit, with their numbers (protocol section 9.2)."""

    accounts_per_region: _None_or_more = 30
    """Of a subscription."""
    deployments_per_account: _None_or_more = 32
    """Standard ones, those of the configuration among them."""
    fine_tuned_deployments: _None_or_more = 5
    """Of an account."""
    ptus_per_deployment: _None_or_more = 100_000
    ptus_per_region: _None_or_more | None = None
    """Quota of a subscription in a region, for each provisioned sku and whatever the model; None: no quota."""
    message_chars: Annotated[int, msgspec.Meta(ge=1, le=8_388_608)] = 1_048_576
    """Characters of all texts of one message of a conversation."""
    message_images: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 50
    """Pictures of one message."""
    government_quota: bool = True
    """A subscription gets no more tokens per minute of a model in a government region than the catalogue says."""


class CapacitySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[capacity]]``: what a region has, for all subscriptions together and whatever their quota (protocol
    section 9.1)."""

    location: Annotated[str, msgspec.Meta(min_length=1)]
    sku: ProvisionedSku
    units: _None_or_more
    """PTU that all deployments of the sku have together."""


def read_capacities(table: Mapping[str, Any]) -> tuple[CapacitySettings, ...]:
    """Raises :class:`ConfigError`."""
    found: dict[tuple[str, str], str] = {}
    capacities = []
    for index, entry in enumerate(tables_of(table, "capacity")):
        path = f"capacity[{index}]"
        one = convert(entry, CapacitySettings, path)
        other = found.setdefault((one.location.replace(" ", "").lower(), one.sku), path)
        if other != path:
            raise ConfigError(path, f"{other} already says what '{one.location}' has of {one.sku}")
        capacities.append(one)
    return tuple(capacities)
