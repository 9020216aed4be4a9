"""What is sent to the management API, and how things are shown by it.

Laws
----
1. A field that nobody knows is refused with its path; so is one of the service's that has no meaning here.
2. What only the service says (``provisioningState``, ``rateLimits``, ``etag``, ``systemData``, ...) may come back
   in a request, as clients send what they have read; it changes nothing.
3. Shapes are those of ``azure-rest-api-specs`` (CognitiveServices, 2025-09-01); protocol section 9.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec

from vivavoce.gateway.arm import errors
from vivavoce.gateway.resource import PROVIDER, Account, DeploymentRecord, RoleAssignment, SystemData

MAX_BODY_BYTES: Final = 1_048_576

_NUL: Final = b"\\u0000"
"""The only spelling that JSON has for it."""
_MAX_TAGS: Final = 50
_MAX_TAG_NAME: Final = 512
_MAX_TAG_VALUE: Final = 256

_AT: Final = re.compile(r" - at `\$(?:\.)?([^`]*)`$")

T = TypeVar("T")


class _Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A part of a request. None: it was not sent, or null."""


class SkuBody(_Body, frozen=True, kw_only=True):
    name: str
    capacity: int | None = None
    tier: str | None = None
    size: str | None = None
    family: str | None = None


class ModelBody(_Body, frozen=True, kw_only=True):
    format: str | None = None
    name: str | None = None
    version: str | None = None
    source_account: str | None = None
    source: str | None = None
    publisher: str | None = None
    call_rate_limit: Any = None


class DeploymentPropertiesBody(_Body, frozen=True, kw_only=True):
    model: ModelBody | None = None
    version_upgrade_option: str | None = None
    rai_policy_name: str | None = None
    spillover_deployment_name: str | None = None
    scale_settings: Any = None
    capacity_settings: Any = None
    parent_deployment_name: str | None = None
    provisioning_state: Any = None
    capabilities: Any = None
    call_rate_limit: Any = None
    rate_limits: Any = None
    dynamic_throttling_enabled: Any = None
    current_capacity: Any = None


class _ResourceBody(_Body, frozen=True, kw_only=True):
    id: Any = None
    name: Any = None
    type: Any = None
    etag: Any = None
    system_data: Any = None


class DeploymentBody(_ResourceBody, frozen=True, kw_only=True):
    """``PUT`` of a deployment."""

    sku: SkuBody | None = None
    properties: DeploymentPropertiesBody | None = None
    tags: dict[str, str] | None = None


class DeploymentPatchBody(_Body, frozen=True, kw_only=True):
    """``PATCH`` of a deployment."""

    sku: SkuBody | None = None
    tags: dict[str, str] | None = None


class AccountPropertiesBody(_Body, frozen=True, kw_only=True):
    custom_sub_domain_name: str | None = None
    public_network_access: str | None = None
    disable_local_auth: bool | None = None
    provisioning_state: Any = None
    endpoint: Any = None
    endpoints: Any = None
    internal_id: Any = None
    capabilities: Any = None
    date_created: Any = None
    call_rate_limit: Any = None
    is_migrated: Any = None
    private_endpoint_connections: Any = None


class AccountBody(_ResourceBody, frozen=True, kw_only=True):
    """``PUT`` of an account."""

    location: str | None = None
    kind: str | None = None
    sku: SkuBody | None = None
    properties: AccountPropertiesBody | None = None
    tags: dict[str, str] | None = None


class AccountPatchBody(_ResourceBody, frozen=True, kw_only=True):
    """``PATCH`` of an account."""

    location: str | None = None
    kind: str | None = None
    sku: SkuBody | None = None
    properties: AccountPropertiesBody | None = None
    tags: dict[str, str] | None = None


class RegenerateKeyBody(_Body, frozen=True, kw_only=True):
    key_name: str


class RoleAssignmentPropertiesBody(_Body, frozen=True, kw_only=True):
    role_definition_id: str
    principal_id: str
    principal_type: str = "User"
    description: str | None = None
    condition: str | None = None
    condition_version: str | None = None
    delegated_managed_identity_resource_id: str | None = None
    scope: Any = None
    created_on: Any = None
    updated_on: Any = None
    created_by: Any = None
    updated_by: Any = None


class RoleAssignmentBody(_Body, frozen=True, kw_only=True):
    """``PUT`` of a role assignment."""

    properties: RoleAssignmentPropertiesBody
    id: Any = None
    name: Any = None
    type: Any = None


def parse(content: bytes, shape: type[T]) -> T:
    """A request's body. Raises ArmError (400)."""
    if not content.strip():
        raise errors.invalid_content("The request has no content")
    try:
        if _NUL in content:
            _refuse_nul(msgspec.json.decode(content), "")
        return msgspec.json.decode(content, type=shape)
    except msgspec.ValidationError as error:
        problem = str(error)
        found = _AT.search(problem)
        text = problem if found is None else f"{problem[: found.start()]}. Path '{found[1]}'"
        raise errors.invalid_content(text, target=None if found is None else found[1] or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise errors.invalid_content("It is not JSON") from None


def _refuse_nul(value: object, path: str) -> None:
    """No database keeps such a text, and no name has it. Raises ArmError."""
    if isinstance(value, str) and "\0" in value:
        raise errors.invalid_content(f"A text has the character NUL. Path '{path}'", target=path or None)
    if isinstance(value, dict):
        for name, part in value.items():
            _refuse_nul(name, path)
            _refuse_nul(part, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for part in value:
            _refuse_nul(part, f"{path}[...]")


def check_tags(tags: Mapping[str, str]) -> Mapping[str, str]:
    """The tags, if Resource Manager takes them: up to 50, names of 512 characters, values of 256."""
    if len(tags) > _MAX_TAGS:
        raise errors.too_many("tags", _MAX_TAGS, "tags")
    for name, value in tags.items():
        if not name or len(name) > _MAX_TAG_NAME or set(name) & set("<>%&\\?/"):
            raise errors.ArmError(400, "InvalidTagName", f"The tag name '{name[:80]}' is invalid.", target="tags")
        if len(value) > _MAX_TAG_VALUE:
            text = f"The value of the tag '{name}' has more than {_MAX_TAG_VALUE} characters."
            raise errors.ArmError(400, "InvalidTagValue", text, target="tags")
    return tags


# -------------------------------------------------------------------------------------------------- how it is shown


def time_text(at: datetime) -> str:
    """``2025-02-13T08:00:00.123456Z``."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def system_data(data: SystemData) -> dict[str, str]:
    return {
        "createdBy": data.created_by,
        "createdByType": data.created_by_type,
        "createdAt": time_text(data.created_at),
        "lastModifiedBy": data.modified_by,
        "lastModifiedByType": data.modified_by_type,
        "lastModifiedAt": time_text(data.modified_at),
    }


def account(one: Account, endpoint: str) -> dict[str, Any]:
    """``endpoint``: where its realtime clients connect."""
    shown: dict[str, Any] = {
        "id": one.id,
        "name": one.name,
        "type": f"{PROVIDER}/accounts",
        "etag": one.etag,
        "location": one.location,
        "kind": "OpenAI",
        "sku": {"name": "S0"},
        "tags": dict(one.tags),
        "properties": {
            "provisioningState": "Succeeded",
            "endpoint": endpoint,
            "endpoints": {"OpenAI Realtime API": endpoint},
            "customSubDomainName": one.subdomain,
            "publicNetworkAccess": "Enabled",
            "disableLocalAuth": False,
            "capabilities": [],
            "privateEndpointConnections": [],
        },
    }
    if one.system_data is not None:
        shown["systemData"] = system_data(one.system_data)
        shown["properties"]["dateCreated"] = time_text(one.system_data.created_at)
    return shown


def deployment(
    record: DeploymentRecord, *, state: str, capabilities: Mapping[str, str], rate_limits: list[dict[str, Any]]
) -> dict[str, Any]:
    """``state``: of its engines too, not of the record alone."""
    model: dict[str, Any] = {"format": record.model.format, "name": record.model.name}
    if record.model.version:
        model["version"] = record.model.version
    if record.model.source_account is not None:
        model["sourceAccount"] = record.model.source_account
    properties: dict[str, Any] = {
        "model": model,
        "versionUpgradeOption": record.version_upgrade_option or "OnceCurrentVersionExpired",
        "currentCapacity": record.sku.capacity,
        "capabilities": dict(capabilities),
        "provisioningState": state,
        "rateLimits": rate_limits,
    }
    if record.rai_policy_name is not None:
        properties["raiPolicyName"] = record.rai_policy_name
    if record.spillover_deployment_name is not None:
        properties["spilloverDeploymentName"] = record.spillover_deployment_name
    shown: dict[str, Any] = {
        "id": record.id,
        "name": record.name,
        "type": f"{PROVIDER}/accounts/deployments",
        "etag": record.etag,
        "sku": {"name": record.sku.name, "capacity": record.sku.capacity},
        "tags": dict(record.tags),
        "properties": properties,
    }
    if record.system_data is not None:
        shown["systemData"] = system_data(record.system_data)
    return shown


def role_assignment(one: RoleAssignment, definition_id: str) -> dict[str, Any]:
    """``definition_id``: ARM id of its role definition."""
    properties: dict[str, Any] = {
        "roleDefinitionId": definition_id,
        "principalId": one.principal_id,
        "principalType": one.principal_type,
        "scope": one.scope,
    }
    if one.system_data is not None:
        properties |= {
            "createdOn": time_text(one.system_data.created_at),
            "updatedOn": time_text(one.system_data.modified_at),
            "createdBy": one.system_data.created_by,
            "updatedBy": one.system_data.modified_by,
        }
    return {
        "id": one.id,
        "name": one.id.rpartition("/")[2],
        "type": "Microsoft.Authorization/roleAssignments",
        "properties": properties,
    }
