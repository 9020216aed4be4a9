"""Which operation a path of the management API is, and what it names."""

from __future__ import annotations

import pytest

from vivavoce.gateway.arm.errors import ArmError
from vivavoce.gateway.arm.routes import API_VERSIONS, ROOTS, ROUTES, Place, check_api_version, find

SUB = "/subscriptions/0000-1"
GROUP = f"{SUB}/resourceGroups/Voice"
ACCOUNT = f"{GROUP}/providers/Microsoft.CognitiveServices/accounts/bank"
DEPLOYMENT = f"{ACCOUNT}/deployments/teller"
ROLES = "/providers/Microsoft.Authorization"


@pytest.mark.parametrize(
    ("method", "path", "operation", "scope"),
    [
        ("PUT", DEPLOYMENT, "Deployments_CreateOrUpdate", DEPLOYMENT),
        ("PATCH", DEPLOYMENT, "Deployments_Update", DEPLOYMENT),
        ("GET", f"{ACCOUNT}/deployments", "Deployments_List", ACCOUNT),
        ("GET", f"{ACCOUNT}/deployments/", "Deployments_List", ACCOUNT),
        ("GET", f"{DEPLOYMENT}/skus", "Deployments_ListSkus", DEPLOYMENT),
        ("DELETE", ACCOUNT, "Accounts_Delete", ACCOUNT),
        ("POST", f"{ACCOUNT}/listKeys", "Accounts_ListKeys", ACCOUNT),
        ("POST", f"{ACCOUNT}/LISTKEYS", "Accounts_ListKeys", ACCOUNT),
        ("GET", f"{ACCOUNT}/models", "Accounts_ListModels", ACCOUNT),
        ("GET", GROUP, "ResourceGroups_Get", GROUP),
        ("GET", f"{SUB}/resourcegroups", "ResourceGroups_List", SUB),
        ("GET", "/subscriptions", "Subscriptions_List", "/"),
        ("GET", f"{SUB}/providers/microsoft.cognitiveservices/accounts", "Accounts_List", SUB),
        (
            "GET",
            f"{SUB}/providers/Microsoft.CognitiveServices/locations/eastus2/usages",
            "Usages_List",
            SUB,
        ),
        ("GET", "/providers/Microsoft.CognitiveServices/operations", "Operations_List", "/"),
        ("PUT", f"{SUB}{ROLES}/roleAssignments/x", "RoleAssignments_Create", SUB),
        ("PUT", f"{GROUP}{ROLES}/roleAssignments/x", "RoleAssignments_Create", GROUP),
        ("DELETE", f"{ACCOUNT}{ROLES}/roleAssignments/x", "RoleAssignments_Delete", ACCOUNT),
        ("GET", f"{DEPLOYMENT}{ROLES}/roleAssignments", "RoleAssignments_ListForScope", DEPLOYMENT),
        ("GET", f"{ROLES}/roleDefinitions", "RoleDefinitions_List", "/"),
        ("GET", f"{SUB}{ROLES}/roleDefinitions/x", "RoleDefinitions_Get", SUB),
    ],
)
def test_a_path_is_an_operation_at_a_scope(method: str, path: str, operation: str, scope: str) -> None:
    asked = find(method, path)
    assert asked.route.operation == operation
    assert asked.place.scope == scope


def test_segments_are_compared_without_regard_to_case_and_names_are_kept() -> None:
    shouted = DEPLOYMENT.replace("subscriptions", "SUBSCRIPTIONS").replace("deployments", "Deployments")
    assert find("GET", shouted).place == Place(
        subscription="0000-1", group="Voice", account="bank", deployment="teller"
    )


def test_a_name_is_decoded_once() -> None:
    assert find("GET", f"{ACCOUNT}/deployments/a%2525").place.deployment == "a%25"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"{SUB}/providers/Microsoft.Compute/virtualMachines", 404, "InvalidResourceNamespace"),
        ("GET", f"{ACCOUNT}/projects", 404, "InvalidResourceType"),
        ("GET", f"{ACCOUNT}/deployments/a/b/c", 404, "InvalidResourceType"),
        ("GET", f"{SUB}/tagNames", 404, "InvalidResourceType"),
        ("GET", "/providers", 404, "InvalidResourceType"),
        ("GET", f"{SUB}/providers", 404, "InvalidResourceType"),
        ("POST", DEPLOYMENT, 405, "MethodNotAllowed"),
        ("HEAD", DEPLOYMENT, 405, "MethodNotAllowed"),
        # A hidden slash would make the scope of an account look like one below another.
        ("GET", f"{GROUP}%2Fproviders%2FMicrosoft.CognitiveServices%2Faccounts%2Fbank", 404, "InvalidResourceType"),
        ("GET", f"{ACCOUNT}%2f..", 404, "InvalidResourceType"),
    ],
)
def test_what_is_no_operation(method: str, path: str, status: int, code: str) -> None:
    with pytest.raises(ArmError) as refused:
        find(method, path)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_what_a_path_takes_is_told() -> None:
    with pytest.raises(ArmError) as refused:
        find("POST", DEPLOYMENT)
    assert refused.value.headers == {"Allow": "DELETE, GET, PATCH, PUT"}


def test_every_path_begins_with_a_root() -> None:
    assert all(route.path.split("/")[1] in (*ROOTS, "{scope}") for route in ROUTES)


@pytest.mark.parametrize(
    ("path", "version", "code"),
    [
        (DEPLOYMENT, "2024-10-01", None),
        (DEPLOYMENT, "2025-04-01-PREVIEW", None),
        (DEPLOYMENT, "2022-12-01", "NoRegisteredProviderFound"),
        (DEPLOYMENT, "latest", "InvalidApiVersionParameter"),
        (f"{SUB}{ROLES}/roleAssignments", "2022-04-01", None),
        (f"{SUB}{ROLES}/roleAssignments", "2024-10-01", "NoRegisteredProviderFound"),
        (SUB, "2022-12-01", None),
    ],
)
def test_versions(path: str, version: str, code: str | None) -> None:
    asked = find("GET", path)
    if code is None:
        check_api_version(asked, version)
        return
    with pytest.raises(ArmError) as refused:
        check_api_version(asked, version)
    assert (refused.value.status, refused.value.code) == (400, code)
    assert API_VERSIONS[asked.route.namespace][0] in refused.value.message


def test_operations_have_names_of_their_own() -> None:
    assert len({route.operation for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("scope", [SUB, GROUP, ACCOUNT, DEPLOYMENT])
def test_an_id_is_the_place_that_it_was_made_of(scope: str) -> None:
    place = Place.parse(scope)
    assert place is not None
    assert place.scope == scope


@pytest.mark.parametrize("text", ["", "/", "x", f"{ACCOUNT}/keys", f"{SUB}/providers/Microsoft.Compute"])
def test_what_is_no_id(text: str) -> None:
    place = Place.parse(text)
    assert place is None or place == Place()
