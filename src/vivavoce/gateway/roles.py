"""What a principal may do: Azure's built-in roles, and where they were given (protocol section 9.4).

Laws
----
1. A role is what Azure says it is: its id, its patterns. An action is allowed when a pattern of ``actions`` fits
   and none of ``not_actions``, of the same role; what one role leaves out, another may give. Data actions have
   patterns of their own: no role for management, not even Owner, opens a session.
2. An assignment holds at its scope and below: subscription, resource group, account, deployment. Ids of ARM and
   actions are compared without regard to case; ``*`` in a pattern stands for any characters, ``/`` included.
3. A key or an ephemeral secret may do every data action of its own account, and nothing else.
4. A token counts only where its tenant is the tenant of the account.

``docs/reference/roles.md`` is made of these tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from vivavoce.gateway.principals import Principal
from vivavoce.gateway.resource import PROVIDER, Directory, RoleAssignment, id_key

_OPENAI: Final = f"{PROVIDER}/accounts/OpenAI"

REALTIME: Final = f"{_OPENAI}/deployments/realtime/action"
"""To open a session, and to make an ephemeral secret for one."""
_ROLE_DEFINITION: Final = re.compile(
    r"(?:/subscriptions/[^/]+)?/providers/Microsoft\.Authorization/roleDefinitions/([^/]+)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Role:
    """A built-in role definition of Azure, as far as it speaks of what is here."""

    id: str
    """The same GUID in every tenant, in lower case."""
    name: str
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        """Whether it gives an action or data action, such as ``Microsoft.CognitiveServices/accounts/read``."""
        if is_data(action):
            return _fits(self.data_actions, action) and not _fits(self.not_data_actions, action)
        return _fits(self.actions, action) and not _fits(self.not_actions, action)


# Read in 2025 from the role definitions that Azure publishes; what they say of other services' operations that this
# server will never know is left out.
_DEFINITIONS: Final = (
    Role(
        "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd",
        "Cognitive Services OpenAI User",
        actions=(
            f"{PROVIDER}/*/read",
            "Microsoft.Authorization/roleAssignments/read",
            "Microsoft.Authorization/roleDefinitions/read",
        ),
        data_actions=(
            f"{_OPENAI}/*/read",
            f"{_OPENAI}/engines/completions/action",
            f"{_OPENAI}/engines/search/action",
            f"{_OPENAI}/engines/generate/action",
            f"{_OPENAI}/deployments/audio/action",
            f"{_OPENAI}/deployments/search/action",
            f"{_OPENAI}/deployments/completions/action",
            f"{_OPENAI}/deployments/chat/completions/action",
            REALTIME,
            f"{_OPENAI}/deployments/extensions/chat/completions/action",
            f"{_OPENAI}/deployments/embeddings/action",
            f"{_OPENAI}/images/generations/action",
            f"{_OPENAI}/video/generations/*/action",
            f"{_OPENAI}/video/generations/*/delete",
            f"{_OPENAI}/assistants/*",
            f"{_OPENAI}/responses/*",
        ),
        not_data_actions=(f"{_OPENAI}/stored-completions/read",),
    ),
    Role(
        "a001fd3d-188f-4b5d-821b-7da978bf7442",
        "Cognitive Services OpenAI Contributor",
        actions=(
            f"{PROVIDER}/*/read",
            f"{PROVIDER}/accounts/deployments/write",
            f"{PROVIDER}/accounts/deployments/delete",
            f"{PROVIDER}/accounts/raiPolicies/read",
            f"{PROVIDER}/accounts/raiPolicies/write",
            f"{PROVIDER}/accounts/raiPolicies/delete",
            f"{PROVIDER}/accounts/commitmentplans/read",
            f"{PROVIDER}/accounts/commitmentplans/write",
            f"{PROVIDER}/accounts/commitmentplans/delete",
            "Microsoft.Authorization/roleAssignments/read",
            "Microsoft.Authorization/roleDefinitions/read",
        ),
        data_actions=(f"{_OPENAI}/*",),
    ),
    Role(
        "25fbc0a9-bd7c-42a3-aa1a-3b75d497ee68",
        "Cognitive Services Contributor",
        actions=(
            "Microsoft.Authorization/*/read",
            f"{PROVIDER}/*",
            "Microsoft.Resources/deployments/*",
            "Microsoft.Resources/deployments/operations/read",
            "Microsoft.Resources/subscriptions/operationresults/read",
            "Microsoft.Resources/subscriptions/read",
            "Microsoft.Resources/subscriptions/resourcegroups/deployments/*",
            "Microsoft.Resources/subscriptions/resourceGroups/read",
        ),
        not_actions=(
            f"{PROVIDER}/raiPolicy/write",
            f"{PROVIDER}/raiPolicy/delete",
            f"{PROVIDER}/raiExternalSafetyProviders/write",
            f"{PROVIDER}/raiExternalSafetyProviders/delete",
        ),
    ),
    Role(
        "bba48692-92b0-4667-a9ad-c31c7b334ac2",
        "Cognitive Services Usages Reader",
        actions=(f"{PROVIDER}/locations/usages/read",),
    ),
    Role("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "Owner", actions=("*",)),
    Role(
        "b24988ac-6180-42a0-ab88-20f7382dd24c",
        "Contributor",
        actions=("*",),
        not_actions=(
            "Microsoft.Authorization/*/Delete",
            "Microsoft.Authorization/*/Write",
            "Microsoft.Authorization/elevateAccess/Action",
        ),
    ),
    Role("acdd72a7-3385-48ef-bd42-f606fba81ae7", "Reader", actions=("*/read",)),
    Role(
        "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
        "User Access Administrator",
        actions=("*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"),
    ),
)

ROLES: Final[Mapping[str, Role]] = MappingProxyType({role.id: role for role in _DEFINITIONS})
"""By id."""
_BY_NAME: Final = {role.name.lower(): role for role in _DEFINITIONS}


def role_of(text: str) -> Role | None:
    """The role that is meant: by its id, by its name, or by the ARM id of its definition."""
    definition = _ROLE_DEFINITION.fullmatch(text)
    return ROLES.get((text if definition is None else definition[1]).lower()) or _BY_NAME.get(text.lower())


def is_data(action: str) -> bool:
    """Whether it is a data action: all those of Azure OpenAI lie below ``accounts/OpenAI``."""
    return action.lower().startswith(f"{_OPENAI.lower()}/")


def covers(scope: str, target: str) -> bool:
    """Whether what holds at ``scope`` holds for ``target``, both ARM ids."""
    within, below = id_key(scope), id_key(target)
    return below == within or below.startswith(f"{within}/")


def allowed(
    directory: Directory, principal: Principal, action: str, scope: str, *, tenant: str | None = None
) -> bool:
    """Whether ``principal`` may do ``action`` at ``scope``, the ARM id of what it is done to.

    ``tenant``: whose the scope is, where that is known from elsewhere than its accounts.
    """
    if not principal.is_token:
        return is_data(action) and principal.account is not None and covers(principal.account, scope)
    if principal.tenant is not None:
        known = (
            _is_of_tenant(directory, principal.tenant, scope)
            if tenant is None
            else id_key(tenant) == principal.tenant
        )
        if not known:
            return False
    return any(
        covers(one.scope, scope) and _is_given(one, principal) and _gives(one.role, action)
        for one in directory.assignments
    )


def _is_of_tenant(directory: Directory, tenant: str, scope: str) -> bool:
    """Where ``scope`` lies in no account, the accounts of its subscription tell, and without any the first."""
    for account in directory.accounts:
        if covers(account.id, scope):
            return id_key(account.tenant) == tenant
    tenants = {
        id_key(account.tenant)
        for account in directory.accounts
        if covers(f"/subscriptions/{account.subscription}", scope)
    }
    return tenant in (tenants or {id_key(directory.accounts[0].tenant)})


def _is_given(assignment: RoleAssignment, principal: Principal) -> bool:
    # Subjects of other issuers than Entra may differ by case alone.
    holder = assignment.principal_id if principal.kind == "oidc" else assignment.principal_id.lower()
    if assignment.principal_type == "Group":
        return holder in principal.groups
    return holder == principal.oid


def _gives(role: str, action: str) -> bool:
    found = role_of(role)
    return found is not None and found.allows(action)


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.lower().split("*")))


def _fits(patterns: tuple[str, ...], action: str) -> bool:
    low = action.lower()
    return any(_pattern(one).fullmatch(low) for one in patterns)
