"""Role x operation: what a principal with one role, given at one scope, may do. Also docs/reference/roles.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vivavoce.gateway.principals import Principal
from vivavoce.gateway.resource import (
    PROVIDER,
    Account,
    Directory,
    RoleAssignment,
    account_id,
    deployment_id,
)
from vivavoce.gateway.roles import REALTIME, ROLES, Role, allowed, is_data

ROLES_PAGE: Final = Path(__file__).parent.parent.parent / "docs/reference/roles.md"

TENANT: Final = "11111111-2222-3333-4444-555555555555"
ALICE: Final = Principal(kind="entra", id="entra:alice", tenant=TENANT, oid="aaaaaaaa-0000-0000-0000-000000000001")

SUBSCRIPTION: Final = "/subscriptions/sub"
GROUP: Final = f"{SUBSCRIPTION}/resourceGroups/voices"
ACCOUNT: Final = account_id("sub", "voices", "acme")
DEPLOYMENT: Final = deployment_id(ACCOUNT, "voice")
USAGES: Final = f"{SUBSCRIPTION}/providers/{PROVIDER}/locations/eastus2"

ACME: Final = Account(subscription="sub", resource_group="voices", name="acme", location="eastus2", tenant=TENANT)


@dataclass(frozen=True, slots=True)
class Operation:
    text: str
    action: str
    scope: str
    """Of what it is done to."""


OPERATIONS: Final = (
    Operation("open a realtime session", REALTIME, DEPLOYMENT),
    Operation("see accounts", f"{PROVIDER}/accounts/read", ACCOUNT),
    Operation("create or change an account", f"{PROVIDER}/accounts/write", ACCOUNT),
    Operation("delete an account", f"{PROVIDER}/accounts/delete", ACCOUNT),
    Operation("read keys", f"{PROVIDER}/accounts/listKeys/action", ACCOUNT),
    Operation("regenerate a key", f"{PROVIDER}/accounts/regenerateKey/action", ACCOUNT),
    Operation("see deployments", f"{PROVIDER}/accounts/deployments/read", DEPLOYMENT),
    Operation("create or change a deployment", f"{PROVIDER}/accounts/deployments/write", DEPLOYMENT),
    Operation("delete a deployment", f"{PROVIDER}/accounts/deployments/delete", DEPLOYMENT),
    Operation("see models", f"{PROVIDER}/accounts/models/read", ACCOUNT),
    Operation("see quota and its use", f"{PROVIDER}/locations/usages/read", USAGES),
    Operation("see role assignments", "Microsoft.Authorization/roleAssignments/read", ACCOUNT),
    Operation("assign a role", "Microsoft.Authorization/roleAssignments/write", ACCOUNT),
    Operation("take a role away", "Microsoft.Authorization/roleAssignments/delete", ACCOUNT),
)

SCOPES: Final = {
    "subscription": SUBSCRIPTION,
    "resource group": GROUP,
    "account": ACCOUNT,
    "deployment": DEPLOYMENT,
}


def may(role: Role, operation: Operation, at: str) -> bool:
    """Whether somebody who has ``role`` at a scope, and no other, may do it."""
    assignment = RoleAssignment(
        id=f"{at}/providers/Microsoft.Authorization/roleAssignments/1",
        scope=at,
        role=role.name,
        principal_id=ALICE.oid or "",
        principal_type="User",
    )
    return allowed(Directory([ACME], assignments=[assignment]), ALICE, operation.action, operation.scope)


def scopes_that_allow(role: Role, operation: Operation) -> tuple[str, ...]:
    return tuple(name for name, scope in SCOPES.items() if may(role, operation, scope))


def page() -> str:
    """docs/reference/roles.md."""
    names = [role.name.replace("Cognitive Services ", "CS ") for role in ROLES.values()]
    lines = [
        _HEAD,
        f"| operation | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(
            f"| {operation.text} | {' | '.join(_cell(role, operation) for role in ROLES.values())} |"
            for operation in OPERATIONS
        ),
        _ACTIONS,
        "| operation | action | kind |",
        "|---|---|---|",
        *(
            f"| {one.text} | `{one.action}` | {'data' if is_data(one.action) else 'management'} |"
            for one in OPERATIONS
        ),
        "\n## The roles\n",
        *(_definition(role) for role in ROLES.values()),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _cell(role: Role, operation: Operation) -> str:
    found = scopes_that_allow(role, operation)
    if not found:
        return "-"
    return "yes" if found[-1] in ("account", "deployment") else f"at {found[-1]}"


def _definition(role: Role) -> str:
    parts = {
        "actions": role.actions,
        "notActions": role.not_actions,
        "dataActions": role.data_actions,
        "notDataActions": role.not_data_actions,
    }
    told = (
        f"- {name}: {', '.join(f'`{one}`' for one in patterns)}" for name, patterns in parts.items() if patterns
    )
    return f"### {role.name}\n\n`{role.id}`\n\n" + "\n".join(told) + "\n"


_HEAD: Final = """\
# Roles

<!-- Made by scripts/compatibility.py --write of the table that tests/gateway/test_roles.py checks. -->

A Microsoft Entra or OIDC token opens and changes what its holder was given roles for. The roles are Azure's own,
with the ids that they have in every tenant. A role is assigned to a user, a group or a service principal, at a
subscription, a resource group, an account or a deployment, and holds there and below. A key of an account needs
no role: it may do every data action of its account, and no management.

Declare assignments in [the configuration](configuration.md), or make them through the management API.
[Use Entra tokens](../how-to/use-entra-tokens.md) shows both ends.

## Who may do what

*yes*: where the role is given at the subscription, the resource group or the account (for an operation on a
deployment, at the deployment too). *at subscription*: only where it is given there, for the operation is on the
subscription. "CS" stands for "Cognitive Services".
"""
_ACTIONS: Final = """
Data actions have patterns of their own: Owner and Contributor, who may do everything else, open no session with a
token.

## Actions
"""
