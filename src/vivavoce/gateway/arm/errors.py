"""Every refusal of the management API: its status, code and text, as Azure Resource Manager words them.

A body is ``{"error": {"code", "message", "target"?, "details"?}}``. Refusals are told with what the caller sent
(names, ids) and never with a token or a key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from vivavoce.gateway.models.lifecycle import Refusal

PREFIX: Final = "https://login.microsoftonline.com/"


class ArmError(Exception):
    """A request is refused. ``target`` names the field or header at fault."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str | None = None,
        details: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.target = target
        self.details = tuple(details)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """What the answer says."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target is not None:
            error["target"] = self.target
        if self.details:
            error["details"] = [dict(detail) for detail in self.details]
        return {"error": error}


# ------------------------------------------------------------------------------------------------ who is asking


def _challenge(description: str) -> dict[str, str]:
    authority = f'Bearer authorization_uri="{PREFIX}organizations"'
    return {"WWW-Authenticate": f'{authority}, error="invalid_token", error_description="{description}"'}


def authentication_failed() -> ArmError:
    text = "Authentication failed. The 'Authorization' header is missing."
    return ArmError(401, "AuthenticationFailed", text, headers=_challenge("The header is missing."))


def not_a_bearer_token() -> ArmError:
    text = (
        "Authentication failed. The 'Authorization' header is provided in an invalid format: it is 'Bearer TOKEN'."
    )
    return ArmError(401, "AuthenticationFailedInvalidHeader", text, headers=_challenge("The scheme is not Bearer."))


def invalid_token(why: str = "", *, auxiliary: bool = False) -> ArmError:
    """``why``: of a token that its issuer has signed, in words of ours; a forger learns nothing."""
    reason = f": {why}." if why else "."
    if auxiliary:
        text = f"The access token in 'x-ms-authorization-auxiliary' is invalid{reason}"
        return ArmError(
            401,
            "InvalidAuxiliaryToken",
            text,
            target="x-ms-authorization-auxiliary",
            headers=_challenge("The auxiliary access token is invalid."),
        )
    text = f"The access token is invalid{reason}"
    return ArmError(401, "InvalidAuthenticationToken", text, headers=_challenge(text))


def wrong_tenant(of_token: str, of_subscription: str) -> ArmError:
    text = (
        f"The access token is from the wrong issuer: tenant '{of_token}'. It must match the tenant "
        f"'{of_subscription}' associated with this subscription. Please use the authority (URL) "
        f"'{PREFIX}{of_subscription}' to get the token."
    )
    return ArmError(401, "InvalidAuthenticationTokenTenant", text, headers=_challenge("The tenant is wrong."))


def token_not_judged() -> ArmError:
    """Nobody knows whether it is good: the issuer's keys cannot be had now."""
    text = "The access token cannot be judged now, for its issuer is not reachable. Please retry later."
    return ArmError(503, "ServiceUnavailable", text, headers={"Retry-After": "5"})


def too_many_bad_tokens(retry_after_s: float) -> ArmError:
    text = "Too many tokens that do not hold came from this address. Please retry later."
    return ArmError(429, "TooManyRequests", text, headers={"Retry-After": str(math.ceil(retry_after_s))})


def authorization_failed(client: str, oid: str, action: str, scope: str) -> ArmError:
    text = (
        f"The client '{client}' with object id '{oid}' does not have authorization to perform action '{action}' "
        f"over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh your "
        "credentials."
    )
    return ArmError(403, "AuthorizationFailed", text)


def linked_authorization_failed(
    client: str, oid: str, action: str, scope: str, linked_action: str, linked_scope: str
) -> ArmError:
    text = (
        f"The client '{client}' with object id '{oid}' has permission to perform action '{action}' on scope "
        f"'{scope}'; however, it does not have permission to perform action(s) '{linked_action}' on the linked "
        f"scope(s) '{linked_scope}' or the linked scope(s) are invalid."
    )
    return ArmError(403, "LinkedAuthorizationFailed", text, target="properties.model.sourceAccount")


def linked_tenant_not_authorized(action: str, scope: str, tenant: str, linked_subscription: str) -> ArmError:
    text = (
        f"The client has permission to perform action '{action}' on scope '{scope}', however the current tenant "
        f"'{tenant}' is not authorized to access linked subscription '{linked_subscription}'. Send a token of its "
        "tenant in the header 'x-ms-authorization-auxiliary'."
    )
    return ArmError(403, "LinkedAuthorizationFailed", text, target="x-ms-authorization-auxiliary")


# ------------------------------------------------------------------------------------------- what is asked for


def missing_api_version() -> ArmError:
    text = "The api-version query parameter (?api-version=) is required for all requests."
    return ArmError(400, "MissingApiVersionParameter", text)


def invalid_api_version(version: str, known: Sequence[str]) -> ArmError:
    text = f"The api-version '{version}' is invalid. The supported versions are '{','.join(known)}'."
    return ArmError(400, "InvalidApiVersionParameter", text, target="api-version")


def no_registered_provider(kind: str, version: str, known: Sequence[str]) -> ArmError:
    text = (
        f"No registered resource provider found for API version '{version}' for type '{kind}'. "
        f"The supported api-versions are '{', '.join(known)}'."
    )
    return ArmError(400, "NoRegisteredProviderFound", text, target="api-version")


def invalid_namespace(namespace: str) -> ArmError:
    return ArmError(404, "InvalidResourceNamespace", f"The resource namespace '{namespace}' is invalid.")


def invalid_resource_type(kind: str, namespace: str) -> ArmError:
    text = f"The resource type '{kind}' could not be found in the namespace '{namespace}'."
    return ArmError(404, "InvalidResourceType", text)


def method_not_allowed(method: str, allowed: Sequence[str]) -> ArmError:
    text = f"The HTTP method '{method}' is not supported for this resource. It takes {', '.join(allowed)}."
    return ArmError(405, "MethodNotAllowed", text, headers={"Allow": ", ".join(allowed)})


def subscription_not_found(subscription: str) -> ArmError:
    return ArmError(404, "SubscriptionNotFound", f"The subscription '{subscription}' could not be found.")


def resource_group_not_found(group: str) -> ArmError:
    return ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


def resource_not_found(kind: str, name: str, group: str) -> ArmError:
    text = (
        f"The Resource '{kind}/{name}' under resource group '{group}' was not found. For more details please go to "
        "https://aka.ms/ARMResourceNotFoundFix"
    )
    return ArmError(404, "ResourceNotFound", text)


def parent_not_found(name: str) -> ArmError:
    text = f"Can not perform requested operation on nested resource. Parent resource '{name}' not found."
    return ArmError(404, "ParentResourceNotFound", text)


def deployment_not_found(name: str, account: str) -> ArmError:
    text = f"The deployment '{name}' does not exist in the account '{account}'."
    return ArmError(404, "DeploymentNotFound", text)


def operation_not_found(name: str) -> ArmError:
    return ArmError(404, "OperationNotFound", f"The operation '{name}' does not exist.")


def location_not_available(location: str, known: Sequence[str]) -> ArmError:
    text = (
        f"The provided location '{location}' is not available for resource type 'Microsoft.CognitiveServices/"
        f"accounts'. List of available regions for the resource type is '{','.join(known)}'."
    )
    return ArmError(400, "LocationNotAvailableForResourceType", text, target="location")


# ----------------------------------------------------------------------------------------------- what was sent


def invalid_content(problem: str, *, target: str | None = None) -> ArmError:
    text = f"The request content was invalid and could not be deserialized: '{problem}'."
    return ArmError(400, "InvalidRequestContent", text, target=target)


def content_too_large(limit: int) -> ArmError:
    text = f"The request content exceeds the maximum size of {limit} bytes."
    return ArmError(413, "RequestContentTooLarge", text)


def content_too_slow() -> ArmError:
    return ArmError(408, "RequestTimeout", "The request content did not arrive in time.")


def unsupported_media_type() -> ArmError:
    text = "The content media type is not supported. Only 'application/json' is supported."
    return ArmError(415, "UnsupportedMediaType", text, target="content-type")


def invalid_property(problem: str, target: str) -> ArmError:
    """What the provider says of a resource whose parts do not fit."""
    return ArmError(400, "InvalidResourceProperties", problem, target=target)


def invalid_name(kind: str, name: str, problem: str) -> ArmError:
    return ArmError(400, "InvalidResourceName", f"The {kind} name '{name}' is invalid: {problem}", target="name")


def invalid_filter(given: str, problem: str) -> ArmError:
    text = f"The filter '{given}' is not supported: {problem}"
    return ArmError(400, "UnsupportedQuery", text, target="$filter")


def missing_parameter(name: str) -> ArmError:
    return ArmError(400, "MissingParameter", f"The query parameter '{name}' is required.", target=name)


def invalid_skip_token() -> ArmError:
    text = "The $skipToken is not one of a nextLink of this list."
    return ArmError(400, "InvalidSkipToken", text, target="$skipToken")


def precondition_failed(what: str) -> ArmError:
    text = f"The condition of the request ('If-Match' or 'If-None-Match') does not hold for '{what}'."
    return ArmError(412, "PreconditionFailed", text)


def store_unavailable() -> ArmError:
    text = "What is kept about accounts and deployments cannot be reached now. Please retry later."
    return ArmError(503, "ServiceUnavailable", text, headers={"Retry-After": "5"})


def internal_error(request: str) -> ArmError:
    text = f"The server encountered an internal error. Please retry the request. Its request id is '{request}'."
    return ArmError(500, "InternalServerError", text)


def gone(what: str) -> ArmError:
    return ArmError(404, "ResourceNotFound", f"'{what}' was not found.")


def declared_in_file(what: str) -> ArmError:
    """Law: what the configuration file declares is read-only here."""
    text = (
        f"'{what}' is declared in the configuration file of this server, or there is no store to keep a change. It "
        "is changed in the file, and not by the management API."
    )
    return ArmError(409, "ReadOnlyResource", text)


def conflict(problem: str) -> ArmError:
    return ArmError(409, "Conflict", problem)


def custom_domain_in_use(name: str) -> ArmError:
    text = f"Please pick a different name. The subdomain name '{name}' is not available as it's already used."
    return ArmError(409, "CustomDomainInUse", text, target="name")


def custom_domain_invalid(name: str) -> ArmError:
    text = f"Sub domain name '{name}' is not valid: up to 64 letters, digits and hyphens."
    return ArmError(400, "CustomDomainInvalid", text, target="properties.customSubDomainName")


def location_required() -> ArmError:
    text = "The location property is required for this definition."
    return ArmError(400, "LocationRequired", text, target="location")


def invalid_location_change(name: str, now: str, wanted: str) -> ArmError:
    text = f"The resource '{name}' already exists in location '{now}'. It cannot be moved to '{wanted}'."
    return ArmError(409, "InvalidResourceLocation", text, target="location")


def invalid_kind(kind: str | None) -> ArmError:
    text = f"The account type '{kind or ''}' is invalid. This server has accounts of the kind 'OpenAI'."
    return ArmError(400, "InvalidApiSetId", text, target="kind")


def invalid_account_sku(sku: str) -> ArmError:
    text = (
        f"The account sku '{sku}' is invalid. Accounts of the kind 'OpenAI' have the sku 'S0' without a capacity."
    )
    return ArmError(400, "InvalidSkuId", text, target="sku.name")


def nested_resources(name: str, nested: str) -> ArmError:
    text = f"Cannot delete resource while nested resources exist. Deployments of '{name}': {nested}."
    return ArmError(409, "CannotDeleteResource", text)


def linked_property_invalid(value: str, path: str) -> ArmError:
    text = (
        f"Property id '{value}' at path '{path}' is invalid. Expect fully qualified resource Id that start with "
        "'/subscriptions/{subscriptionId}' or '/providers/{resourceProviderNamespace}/'."
    )
    return ArmError(400, "LinkedInvalidPropertyId", text, target=path)


# -------------------------------------------------------------------------------------- deployments and quota


def refused(refusal: Refusal, target: str) -> ArmError:
    """What the rules of the catalogue and the limits say."""
    return ArmError(400, refusal.code, refusal.message, target=target)


def no_recipe(model: str) -> ArmError:
    """Ours alone: a model here is a recipe of engines."""
    text = (
        f"This server has no engines for the model '{model}'. Add its name to 'models' of a [recipe.NAME] in the "
        "configuration file, or declare a deployment of it there."
    )
    return ArmError(400, "DeploymentModelNotSupported", text, target="properties.model.name")


def no_throughput(model: str, known: str) -> ArmError:
    """Ours alone: utilization is counted by what a unit is worth for the model."""
    text = (
        f"This server does not know the throughput of the model '{model}', so it cannot be deployed with a "
        f"provisioned sku. It knows that of {known}; others come from the file that 'catalogue' of [models] names."
    )
    return ArmError(400, "InvalidResourceProperties", text, target="sku.name")


def useless_recipe(model: str, fault: str) -> ArmError:
    """Ours alone, as :func:`no_recipe`."""
    text = f"The engines that this server has for the model '{model}' cannot serve it: {fault}."
    return ArmError(400, "DeploymentModelNotSupported", text, target="properties.model.name")


def sku_unknown(sku: str) -> ArmError:
    return invalid_property(f"The deployment sku name '{sku}' is invalid.", "sku.name")


def sku_missing() -> ArmError:
    return invalid_property("The sku of model deployment is not provided.", "sku")


def insufficient_quota(quota: str, more: int, used: int, limit: int) -> ArmError:
    text = (
        f"This operation require {more} new capacity in quota {quota}, which is bigger than the current available "
        f"capacity {max(0, limit - used)}. The current quota usage is {used} and the quota limit is {limit} for "
        f"quota {quota}."
    )
    return ArmError(400, "InsufficientQuota", text, target="sku.capacity")


def no_capacity(sku: str, location: str, more: int, left: int) -> ArmError:
    """Not 503, which the service's own clients ask again for minutes: nothing is free until somebody deletes."""
    text = (
        f"The region '{location}' is currently out of the resources required to provision {more} more units of "
        f"'{sku}': {left} are available. Quota does not guarantee capacity. Try another region, another sku or a "
        "smaller capacity."
    )
    return ArmError(409, "InsufficientResourcesAvailable", text, target="sku.capacity")


def too_many(what: str, limit: int, target: str) -> ArmError:
    return ArmError(400, "ResourceLimitExceeded", f"No more than {limit} {what} are allowed.", target=target)


# ------------------------------------------------------------------------------------------------------ roles


def role_definition_not_found(role: str) -> ArmError:
    text = f"The specified role definition with ID '{role}' does not exist."
    return ArmError(404, "RoleDefinitionDoesNotExist", text)


def role_assignment_not_found(name: str) -> ArmError:
    return ArmError(404, "RoleAssignmentNotFound", f"The role assignment '{name}' is not found.")


def role_assignment_exists(name: str) -> ArmError:
    text = f"The role assignment already exists. The ID of the existing role assignment is {name}."
    return ArmError(409, "RoleAssignmentExists", text)


def role_assignment_update() -> ArmError:
    text = "Tenant ID, application ID, principal ID, and scope are not allowed to be updated."
    return ArmError(400, "RoleAssignmentUpdateNotPermitted", text)


def invalid_principal_id() -> ArmError:
    text = "The principal ID is not valid: the GUID of an object of Entra, or NAME:SUBJECT of another issuer."
    return ArmError(400, "InvalidPrincipalId", text, target="properties.principalId")


def invalid_role_assignment_id(name: str) -> ArmError:
    text = f"The role assignment ID '{name}' is not valid. The role assignment ID must be a GUID."
    return ArmError(400, "InvalidRoleAssignmentId", text)
