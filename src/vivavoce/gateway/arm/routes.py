"""What the management API offers: every operation, its path, and the action that a role must allow for it.

Laws
----
1. The table is the only list of operations; ``docs/reference/management-api.md`` is checked against it.
2. A path is parsed once, here. Its fixed segments are compared without regard to case, as Resource Manager does;
   its names are taken as they were written.
3. ``{scope}`` is what a role assignment may be at: a subscription, a group, an account or a deployment.

Paths and names are those of ``azure-rest-api-specs`` (Microsoft.CognitiveServices, Microsoft.Authorization and
Microsoft.Resources).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import unquote

from vivavoce.gateway.arm import errors
from vivavoce.gateway.resource import PROVIDER, account_id, deployment_id

AUTHORIZATION: Final = "Microsoft.Authorization"
RESOURCES: Final = "Microsoft.Resources"

API_VERSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    # From the first in which a deployment has a sku; before, it had scaleSettings.
    PROVIDER: (
        "2023-05-01",
        "2023-10-01-preview",
        "2024-04-01-preview",
        "2024-06-01-preview",
        "2024-10-01",
        "2025-04-01-preview",
        "2025-06-01",
        "2025-07-01-preview",
        "2025-09-01",
        "2025-10-01-preview",
    ),
    # From the first in which an assignment has a principalType.
    AUTHORIZATION: (
        "2018-09-01-preview",
        "2020-03-01-preview",
        "2020-04-01-preview",
        "2020-08-01-preview",
        "2020-10-01-preview",
        "2022-04-01",
        "2022-05-01-preview",
        "2023-07-01-preview",
    ),
    RESOURCES: (
        "2019-10-01",
        "2020-01-01",
        "2020-06-01",
        "2020-10-01",
        "2021-01-01",
        "2021-04-01",
        "2022-09-01",
        "2022-12-01",
        "2023-07-01",
        "2024-03-01",
        "2024-07-01",
        "2024-11-01",
        "2025-04-01",
    ),
}
"""Versions that are taken, by namespace. One shape of request and answer serves them all."""

ROOTS: Final = ("subscriptions", "providers")
"""First segments of all paths, in whatever case."""

_VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}(-[a-z]+)?")

Method: TypeAlias = Literal["GET", "PUT", "PATCH", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation."""

    operation: str
    """As the API's specification calls it: ``Deployments_CreateOrUpdate``."""
    method: Method
    path: str
    action: str
    """What a role must allow at the scope of the request; empty: any token that is good for the tenant."""
    about: str
    """One line for people."""
    per_item: bool = False
    """The action is asked for each thing of the list, and not for the scope: the caller sees what he may read."""
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pattern", _compiled(self.path))

    @property
    def namespace(self) -> str:
        """The provider that answers."""
        for name in (AUTHORIZATION, PROVIDER):
            if name in self.path:
                return name
        return RESOURCES

    @property
    def kind(self) -> str:
        """The resource type, without its namespace."""
        last = self.path.rpartition(f"/providers/{self.namespace}/")[2] if "/providers/" in self.path else self.path
        return "/".join(part for part in last.strip("/").split("/") if not part.startswith("{")) or "operations"

    @property
    def is_audited(self) -> bool:
        """It may leave something different behind, or gives keys away."""
        return self.method != "GET"

    def match(self, path: str) -> dict[str, str] | None:
        """The names in a path; None where it is another's. A name that hides a slash is none: it could make one
        scope look like another."""
        found = self._pattern.fullmatch(path)
        if found is None:
            return None
        names = {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
        return None if any("/" in value for value in names.values()) else names


_SCOPE: Final = (
    rf"(?:/subscriptions/(?P<subscription>[^/]+)"
    rf"(?:/resourceGroups/(?P<group>[^/]+)"
    rf"(?:/providers/{re.escape(PROVIDER)}/accounts/(?P<account>[^/]+)"
    rf"(?:/deployments/(?P<deployment>[^/]+))?)?)?)?"
)
SCOPE_PATTERN: Final = re.compile(_SCOPE, re.IGNORECASE)


def _compiled(path: str) -> re.Pattern[str]:
    pattern = "".join(
        _SCOPE if part == "{scope}" else rf"(?P<{part[1:-1]}>[^/]+)" if part.startswith("{") else re.escape(part)
        # A scope brings its own slash.
        for part in re.split(r"(\{\w+\})", path.replace("/{scope}", "{scope}"))
    )
    return re.compile(pattern, re.IGNORECASE)


_SUB: Final = "/subscriptions/{subscription}"
_GROUP: Final = f"{_SUB}/resourceGroups/{{group}}"
_ACCOUNTS: Final = f"{_GROUP}/providers/{PROVIDER}/accounts"
_ACCOUNT: Final = f"{_ACCOUNTS}/{{account}}"
_DEPLOYMENTS: Final = f"{_ACCOUNT}/deployments"
_DEPLOYMENT: Final = f"{_DEPLOYMENTS}/{{deployment}}"
_LOCATION: Final = f"{_SUB}/providers/{PROVIDER}/locations/{{location}}"
_ROLES: Final = f"/{{scope}}/providers/{AUTHORIZATION}"
_ACT: Final = f"{PROVIDER}/accounts"

ROUTES: Final[tuple[Route, ...]] = (
    Route(
        "Deployments_CreateOrUpdate",
        "PUT",
        _DEPLOYMENT,
        f"{_ACT}/deployments/write",
        "Make a deployment, or replace what it is: 201 or 200.",
    ),
    Route(
        "Deployments_Update",
        "PATCH",
        _DEPLOYMENT,
        f"{_ACT}/deployments/write",
        "Change its `sku` or `tags`: 200, or 202 until its engines are ready.",
    ),
    Route("Deployments_Get", "GET", _DEPLOYMENT, f"{_ACT}/deployments/read", "One deployment."),
    Route("Deployments_List", "GET", _DEPLOYMENTS, f"{_ACT}/deployments/read", "All of an account, by name."),
    Route(
        "Deployments_Delete",
        "DELETE",
        _DEPLOYMENT,
        f"{_ACT}/deployments/delete",
        "200, or 204 where there was none. Sessions that run go on.",
    ),
    Route(
        "Deployments_ListSkus",
        "GET",
        f"{_DEPLOYMENT}/skus",
        f"{_ACT}/deployments/read",
        "The skus that its model has in the region, with their steps of capacity.",
    ),
    Route(
        "Accounts_Create",
        "PUT",
        _ACCOUNT,
        f"{_ACT}/write",
        "Make an account, or replace what it is: 201 or 200. A new one has two keys.",
    ),
    Route("Accounts_Update", "PATCH", _ACCOUNT, f"{_ACT}/write", "Change its `tags`."),
    Route("Accounts_Get", "GET", _ACCOUNT, f"{_ACT}/read", "One account."),
    Route(
        "Accounts_ListByResourceGroup",
        "GET",
        _ACCOUNTS,
        f"{_ACT}/read",
        "All of a resource group that the caller may read.",
        per_item=True,
    ),
    Route(
        "Accounts_List",
        "GET",
        f"{_SUB}/providers/{PROVIDER}/accounts",
        f"{_ACT}/read",
        "All of a subscription that the caller may read.",
        per_item=True,
    ),
    Route(
        "Accounts_Delete",
        "DELETE",
        _ACCOUNT,
        f"{_ACT}/delete",
        "200, or 204 where there was none; 409 while it has deployments.",
    ),
    Route("Accounts_ListKeys", "POST", f"{_ACCOUNT}/listKeys", f"{_ACT}/listKeys/action", "Both keys, in clear."),
    Route(
        "Accounts_RegenerateKey",
        "POST",
        f"{_ACCOUNT}/regenerateKey",
        f"{_ACT}/regenerateKey/action",
        "A new key in the slot `keyName`; the old one opens nothing any more.",
    ),
    Route("Accounts_ListSkus", "GET", f"{_ACCOUNT}/skus", f"{_ACT}/skus/read", "The sku of accounts, `S0`."),
    Route(
        "Accounts_ListModels",
        "GET",
        f"{_ACCOUNT}/models",
        f"{_ACT}/models/read",
        "What may be deployed here: the models of the region.",
    ),
    Route(
        "Accounts_ListUsages",
        "GET",
        f"{_ACCOUNT}/usages",
        f"{_ACT}/usages/read",
        "Requests and tokens of its deployments in this month.",
    ),
    Route(
        "Models_List",
        "GET",
        f"{_LOCATION}/models",
        f"{PROVIDER}/locations/models/read",
        "The models of a region, with their skus, versions and dates.",
    ),
    Route(
        "Usages_List",
        "GET",
        f"{_LOCATION}/usages",
        f"{PROVIDER}/locations/usages/read",
        "Quota of the subscription in a region, and how much of it is given to deployments.",
    ),
    Route(
        "LocationBasedModelCapacities_List",
        "GET",
        f"{_LOCATION}/modelCapacities",
        f"{PROVIDER}/locations/modelCapacities/read",
        "The largest deployment of a model that is possible now in a region, for each sku: what is left of quota "
        "and capacity. `modelFormat`, `modelName` and `modelVersion` say which.",
    ),
    Route(
        "ModelCapacities_List",
        "GET",
        f"{_SUB}/providers/{PROVIDER}/modelCapacities",
        f"{PROVIDER}/modelCapacities/read",
        "The same for all regions.",
    ),
    Route(
        "ResourceSkus_List",
        "GET",
        f"{_SUB}/providers/{PROVIDER}/skus",
        f"{PROVIDER}/skus/read",
        "The sku of accounts, and the regions that have it.",
    ),
    Route(
        "OperationResults_Get",
        "GET",
        f"{_LOCATION}/operationResults/{{operationId}}",
        f"{_ACT}/deployments/read",
        "How far a change has come; the address is in `Azure-AsyncOperation` and `Location`.",
        per_item=True,
    ),
    Route("Operations_List", "GET", f"/providers/{PROVIDER}/operations", "", "The actions that roles allow."),
    Route("Subscriptions_List", "GET", "/subscriptions", "", "The subscriptions of the token's tenant."),
    Route("Subscriptions_Get", "GET", _SUB, f"{RESOURCES}/subscriptions/read", "One subscription."),
    Route(
        "ResourceGroups_List",
        "GET",
        f"{_SUB}/resourceGroups",
        f"{RESOURCES}/subscriptions/resourceGroups/read",
        "The resource groups of a subscription that the caller may read.",
        per_item=True,
    ),
    Route(
        "ResourceGroups_Get",
        "GET",
        _GROUP,
        f"{RESOURCES}/subscriptions/resourceGroups/read",
        "One resource group.",
    ),
    Route(
        "RoleAssignments_Create",
        "PUT",
        f"{_ROLES}/roleAssignments/{{assignment}}",
        f"{AUTHORIZATION}/roleAssignments/write",
        "Let a principal do what a role allows, at a scope and below it: 201.",
    ),
    Route(
        "RoleAssignments_Get",
        "GET",
        f"{_ROLES}/roleAssignments/{{assignment}}",
        f"{AUTHORIZATION}/roleAssignments/read",
        "One role assignment.",
    ),
    Route(
        "RoleAssignments_ListForScope",
        "GET",
        f"{_ROLES}/roleAssignments",
        f"{AUTHORIZATION}/roleAssignments/read",
        "Those at a scope, above it and below it; `$filter` is `atScope()`, `principalId eq '...'` or both.",
    ),
    Route(
        "RoleAssignments_Delete",
        "DELETE",
        f"{_ROLES}/roleAssignments/{{assignment}}",
        f"{AUTHORIZATION}/roleAssignments/delete",
        "200, or 204 where there was none.",
    ),
    Route(
        "RoleDefinitions_Get",
        "GET",
        f"{_ROLES}/roleDefinitions/{{definition}}",
        f"{AUTHORIZATION}/roleDefinitions/read",
        "One role: its actions and data actions.",
    ),
    Route(
        "RoleDefinitions_List",
        "GET",
        f"{_ROLES}/roleDefinitions",
        f"{AUTHORIZATION}/roleDefinitions/read",
        "All roles; `$filter` is `roleName eq '...'` or `type eq 'BuiltInRole'`.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a path names. What it does not name is empty."""

    subscription: str = ""
    group: str = ""
    account: str = ""
    deployment: str = ""

    @classmethod
    def of(cls, names: Mapping[str, str]) -> Place:
        """From the names in a path."""
        return cls(
            subscription=names.get("subscription", ""),
            group=names.get("group", ""),
            account=names.get("account", ""),
            deployment=names.get("deployment", ""),
        )

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """From an id of a subscription, a group, an account or a deployment; None where it is none."""
        found = SCOPE_PATTERN.fullmatch(text.removesuffix("/"))
        return None if found is None else cls.of({k: v for k, v in found.groupdict().items() if v})

    @property
    def account_id(self) -> str:
        return account_id(self.subscription, self.group, self.account)

    @property
    def scope(self) -> str:
        """Its id; ``/`` for nothing at all."""
        if self.deployment:
            return deployment_id(self.account_id, self.deployment)
        if self.account:
            return self.account_id
        if self.group:
            return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
        return f"/subscriptions/{self.subscription}" if self.subscription else "/"


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation, and what its path names."""

    route: Route
    names: Mapping[str, str]

    @property
    def place(self) -> Place:
        return Place.of(self.names)

    @property
    def target(self) -> str:
        """Id of what it is about."""
        scope = self.place.scope
        if "assignment" in self.names:
            return assignment_id(scope, self.names["assignment"])
        return scope


def assignment_id(scope: str, name: str) -> str:
    """Id of a role assignment; ``scope`` as :attr:`Place.scope`."""
    return f"{scope.rstrip('/')}/providers/{AUTHORIZATION}/roleAssignments/{name}"


def find(method: str, path: str) -> Asked:
    """The operation that is asked for; ``path`` is raw, as it came. Raises ArmError: 404 for a path that is no
    operation's, 405 for another method."""
    path = "/" + path.strip("/")
    at_path = [(route, names) for route in ROUTES if (names := route.match(path)) is not None]
    for route, names in at_path:
        if route.method == method:
            return Asked(route, names)
    if at_path:
        raise errors.method_not_allowed(method, sorted({route.method for route, _ in at_path}))
    raise _nowhere(path)


def _nowhere(path: str) -> errors.ArmError:
    parts = [unquote(part) for part in path.strip("/").split("/")]
    lowered = [part.lower() for part in parts]
    if "providers" not in lowered[:-1]:
        return errors.invalid_resource_type("/".join(parts[::2]), RESOURCES)
    at = len(lowered) - 1 - lowered[::-1].index("providers")
    if at == len(parts) - 1:
        at = lowered.index("providers")
    namespace = parts[at + 1]
    known = {name.lower(): name for name in (PROVIDER, AUTHORIZATION)}
    if namespace.lower() not in known:
        return errors.invalid_namespace(namespace)
    return errors.invalid_resource_type("/".join(parts[at + 2 :: 2]), known[namespace.lower()])


def check_api_version(asked: Asked, version: str) -> None:
    """Raises ArmError (400) for a version that the operation's provider does not have."""
    known = API_VERSIONS[asked.route.namespace]
    if version.lower() in known:
        return
    if _VERSION.fullmatch(version.lower()) is None:
        raise errors.invalid_api_version(version, known)
    raise errors.no_registered_provider(asked.route.kind, version, known)
