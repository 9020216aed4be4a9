"""``[limits]``."""

from __future__ import annotations

from typing import Annotated

import msgspec

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
    government_quota: bool = True
    """A subscription gets no more tokens per minute of a model in a government region than the catalogue says."""
