"""A server that is managed: two subscriptions, a tenant beside, a recipe, and tokens for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
from dev_tokens import TENANT, dev_token, with_tokens
from server_fakes import config

from vivavoce.config import (
    AccountSettings,
    Config,
    ManagementSettings,
    RecipeSettings,
    Secret,
    StoreSettings,
    SubscriptionSettings,
)
from vivavoce.config.identity import RoleAssignmentSettings

MANAGEMENT: Final = "https://management.azure.com"
OWNER: Final = "aaaaaaaa-0000-0000-0000-00000000000a"
"""Of the first subscription."""
CONTRIBUTOR: Final = "aaaaaaaa-0000-0000-0000-00000000000c"
"""Cognitive Services OpenAI Contributor of the account ``bank``."""
ABROAD: Final = "bbbbbbbb-0000-0000-0000-00000000000c"
"""The same of the account ``abroad``."""
OTHER_TENANT: Final = "99999999-2222-3333-4444-555555555555"

SUBSCRIPTION: Final = "00000000-0000-0000-0000-0000000000a1"
OTHER_SUBSCRIPTION: Final = "00000000-0000-0000-0000-0000000000b1"
GROUP: Final = "voice"
SUB: Final = f"/subscriptions/{SUBSCRIPTION}"
_ACCOUNTS: Final = "providers/Microsoft.CognitiveServices/accounts"
BANK: Final = f"{SUB}/resourceGroups/{GROUP}/{_ACCOUNTS}/bank"
ABROAD_ACCOUNT: Final = f"/subscriptions/{OTHER_SUBSCRIPTION}/resourceGroups/far/{_ACCOUNTS}/abroad"

BANK_KEY: Final = "the-key-of-the-bank"

MODEL: Final = "gpt-realtime"
VERSION: Final = "2025-08-28"
TUNED: Final = f"{MODEL}-{VERSION}.ft-0123456789abcdef"
_CONTRIBUTOR_ROLE: Final = "Cognitive Services OpenAI Contributor"


def managed(folder: Path, **server: object) -> Config:
    """On fakes, with an SQLite database in ``folder``; ``server`` are options of ``[server]``."""
    settings = with_tokens(folder, config(**server))
    given = (
        RoleAssignmentSettings(role="Owner", principal_id=OWNER, principal_type="ServicePrincipal", scope=SUB),
        RoleAssignmentSettings(
            role=_CONTRIBUTOR_ROLE, principal_id=CONTRIBUTOR, principal_type="ServicePrincipal", scope=BANK
        ),
        RoleAssignmentSettings(
            role=_CONTRIBUTOR_ROLE, principal_id=ABROAD, principal_type="ServicePrincipal", scope=ABROAD_ACCOUNT
        ),
    )
    fake: dict[str, Any] = dict.fromkeys(
        ("vad", "transcriber", "end_of_turn", "language_model", "synthesizer"), "fake"
    )
    place = {"subscription": SUBSCRIPTION, "resource_group": GROUP, "location": "eastus2"}
    return msgspec.structs.replace(
        settings,
        resource=msgspec.structs.replace(settings.resource, **place, tenant=TENANT),
        more_accounts=(
            AccountSettings(name="bank", tenant=TENANT, keys=(Secret(BANK_KEY),), **place),
            AccountSettings(
                name="abroad",
                subscription=OTHER_SUBSCRIPTION,
                resource_group="far",
                location="swedencentral",
                tenant=OTHER_TENANT,
            ),
        ),
        recipes={"own": RecipeSettings(models=(MODEL, "*.ft-*"), instructions="Speak as a bank does.", **fake)},
        store=StoreSettings(),
        management=ManagementSettings(enabled=True),
        subscriptions=(SubscriptionSettings(id=SUBSCRIPTION, tenant=TENANT, resource_groups=("empty",)),),
        identity=msgspec.structs.replace(
            settings.identity, role_assignments=(*settings.identity.role_assignments, *given)
        ),
    )


def management_token(oid: str = OWNER, *, tenant: str = TENANT, expires_s: int = 3600) -> str:
    return dev_token(oid, tenant=tenant, audience=MANAGEMENT, expires_s=expires_s, is_app=True)
