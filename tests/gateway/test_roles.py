from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from role_table import (
    ACCOUNT,
    ACME,
    ALICE,
    DEPLOYMENT,
    GROUP,
    OPERATIONS,
    ROLES_PAGE,
    SCOPES,
    SUBSCRIPTION,
    TENANT,
    USAGES,
    Operation,
    page,
    scopes_that_allow,
)

from vivavoce.config.identity import PrincipalType
from vivavoce.gateway.principals import Principal
from vivavoce.gateway.resource import Account, Directory, RoleAssignment
from vivavoce.gateway.roles import REALTIME, ROLES, Role, allowed, covers, is_data, role_of

USER = "Cognitive Services OpenAI User"
READ = "Microsoft.CognitiveServices/accounts/deployments/read"

# What protocol section 9.4 says, and what Azure's definitions add to it. U: OpenAI User, C: OpenAI Contributor,
# S: CS Contributor, Q: CS Usages Reader, O: Owner, K: Contributor, R: Reader, A: User Access Administrator.
LETTERS = "UCSQOKRA"
MAY = {
    "open a realtime session": "UC",
    "see accounts": "UCSOKRA",
    "create or change an account": "SOK",
    "delete an account": "SOK",
    "read keys": "SOK",
    "regenerate a key": "SOK",
    "see deployments": "UCSOKRA",
    "create or change a deployment": "CSOK",
    "delete a deployment": "CSOK",
    "see models": "UCSOKRA",
    "see quota and its use": "UCSQOKRA",
    "see role assignments": "UCSOKRA",
    "assign a role": "OA",
    "take a role away": "OA",
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.text)
@pytest.mark.parametrize(("letter", "role"), list(zip(LETTERS, ROLES.values(), strict=True)), ids=LETTERS)
def test_role_and_operation(letter: str, role: Role, operation: Operation) -> None:
    """Whoever may, may so by an assignment at every scope that the thing lies in, and at no other."""
    around = {name for name, scope in SCOPES.items() if covers(scope, operation.scope)}
    expected = around if letter in MAY[operation.text] else set()
    assert set(scopes_that_allow(role, operation)) == expected


def test_the_page_is_up_to_date() -> None:
    """Otherwise: ``python scripts/compatibility.py --write``."""
    assert ROLES_PAGE.read_text(encoding="utf-8") == page()


# --------------------------------------------------------------------------------------------------- definitions


@pytest.mark.parametrize("role", list(ROLES.values()), ids=lambda role: role.name)
def test_a_role_is_found_by_id_name_and_definition(role: Role) -> None:
    definition = f"/providers/Microsoft.Authorization/roleDefinitions/{role.id}"
    ways = (role.id, role.id.upper(), role.name, role.name.lower(), definition, f"/subscriptions/s{definition}")
    assert {role_of(way) for way in ways} == {role}


@pytest.mark.parametrize(
    "text", ["", "User", "5e0bd9bd", "/providers/Microsoft.Authorization/roleDefinitions/Owner/x"]
)
def test_no_other_text_is_a_role(text: str) -> None:
    assert role_of(text) is None


def test_what_is_a_data_action() -> None:
    assert is_data(REALTIME)
    assert is_data(REALTIME.upper())
    assert not is_data("Microsoft.CognitiveServices/accounts/openAIs/read")
    assert not is_data(READ)


@pytest.mark.parametrize(
    ("pattern", "action", "fits"),
    [
        ("*", "a/b/c", True),
        ("a/*/read", "A/B/C/Read", True),
        ("a/*/read", "a/read", False),
        ("a/*", "a", False),
        ("a.b/read", "axb/read", False),
        ("a/read", "a/read/more", False),
        ("*/read", "x/a/read", True),
    ],
)
def test_wildcards(pattern: str, action: str, fits: bool) -> None:
    assert Role("id", "name", actions=(pattern,)).allows(action) is fits
    assert Role("id", "name", actions=("*",), not_actions=(pattern,)).allows(action) is not fits


def test_what_one_role_leaves_out_another_may_give() -> None:
    stored = "Microsoft.CognitiveServices/accounts/OpenAI/stored-completions/read"
    assert not allowed(directory(assign(USER)), ALICE, stored, ACCOUNT)
    both = directory(assign(USER), assign("Cognitive Services OpenAI Contributor", n=2))
    assert allowed(both, ALICE, stored, ACCOUNT)


# --------------------------------------------------------------------------------------------------- assignments


def assign(
    role: str, at: str = ACCOUNT, to: str = ALICE.oid or "", kind: PrincipalType = "User", n: int = 1
) -> RoleAssignment:
    return RoleAssignment(
        id=f"{at}/providers/Microsoft.Authorization/roleAssignments/{n}",
        scope=at,
        role=role,
        principal_id=to,
        principal_type=kind,
    )


def directory(*assignments: RoleAssignment) -> Directory:
    return Directory([ACME, OTHER], assignments=assignments)


OTHER = Account(subscription="sub", resource_group="Voices", name="acme2", location="eastus2", tenant=TENANT)


@pytest.mark.parametrize(
    ("scope", "target", "covered"),
    [
        (ACCOUNT, ACCOUNT, True),
        (ACCOUNT.upper(), DEPLOYMENT, True),
        (f"{ACCOUNT}/", DEPLOYMENT, True),
        (GROUP, DEPLOYMENT, True),
        (DEPLOYMENT, ACCOUNT, False),
        (ACCOUNT, OTHER.id, False),
        (DEPLOYMENT, f"{DEPLOYMENT}2", False),
        (SUBSCRIPTION, USAGES, True),
        (GROUP, USAGES, False),
        ("/", DEPLOYMENT, True),
    ],
)
def test_scopes(scope: str, target: str, covered: bool) -> None:
    assert covers(scope, target) is covered
    assert allowed(directory(assign("Reader", scope)), ALICE, READ, target) is covered


GROUP_ID = "99999999-0000-0000-0000-00000000000A"
MEMBER = replace(ALICE, groups=frozenset({GROUP_ID.lower()}))
SUBJECT = Principal(kind="oidc", id="oidc:idp:Bob", oid="idp:Bob", groups=frozenset({"idp:Admins"}))

HOLDERS = {
    "the user": (assign(USER), ALICE, True),
    "in capitals": (assign(USER, to=(ALICE.oid or "").upper()), ALICE, True),
    "a service principal": (assign(USER, kind="ServicePrincipal"), replace(ALICE, is_app=True), True),
    "another user": (assign(USER, to=GROUP_ID), ALICE, False),
    "a member of the group": (assign(USER, to=GROUP_ID, kind="Group"), MEMBER, True),
    "no member": (assign(USER, to=GROUP_ID, kind="Group"), ALICE, False),
    "a user with the id of a group": (assign(USER, kind="Group"), ALICE, False),
    "a group with the id of a user": (assign(USER, to=GROUP_ID), MEMBER, False),
    "a subject of another issuer": (assign(USER, to="idp:Bob"), SUBJECT, True),
    "whose case counts": (assign(USER, to="idp:bob"), SUBJECT, False),
    "which is part of it": (assign(USER, to="Bob"), SUBJECT, False),
    "a group of another issuer": (assign(USER, to="idp:Admins", kind="Group"), SUBJECT, True),
    "a role that is not there": (assign("Cognitive Services Speech User"), ALICE, False),
    "another tenant": (assign(USER), replace(ALICE, tenant=GROUP_ID), False),
}


@pytest.mark.parametrize("case", HOLDERS)
def test_who_holds_an_assignment(case: str) -> None:
    assignment, principal, expected = HOLDERS[case]
    assert allowed(directory(assignment), principal, REALTIME, DEPLOYMENT) is expected


@pytest.mark.parametrize(
    ("scope", "expected"), [(SUBSCRIPTION, True), ("/subscriptions/new", True), (f"{SUBSCRIPTION}x", True)]
)
def test_the_tenant_of_what_lies_in_no_account(scope: str, expected: bool) -> None:
    """It is the one of the subscription's accounts, else of the first account."""
    there = directory(assign("Reader", "/"))
    assert allowed(there, ALICE, READ, scope) is expected
    assert not allowed(there, replace(ALICE, tenant=GROUP_ID), READ, scope)


@pytest.mark.parametrize("kind", ["key", "ephemeral"])
def test_keys_do_all_data_actions_of_their_account_and_no_management(kind: Literal["key", "ephemeral"]) -> None:
    key = Principal(kind=kind, id="key:1", account=ACCOUNT)
    given = directory(assign("Owner", SUBSCRIPTION, to="key:1"))
    assert allowed(given, key, REALTIME, DEPLOYMENT)
    assert allowed(given, key, "Microsoft.CognitiveServices/accounts/OpenAI/files/write", ACCOUNT)
    assert not allowed(given, key, REALTIME, OTHER.id)
    assert not allowed(given, key, READ, DEPLOYMENT)
    assert not allowed(given, replace(key, account=None), REALTIME, DEPLOYMENT)
