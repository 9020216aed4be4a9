"""The management API without HTTP: what each operation does, and what it refuses in which order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from arm_fakes import (
    ABROAD,
    BANK,
    CONTRIBUTOR,
    DECLARED,
    FAR,
    FINE_TUNED,
    GROUP,
    MINI,
    NOBODY,
    NOW,
    OTHER_SUB,
    OTHER_TENANT,
    OWNER,
    REALTIME,
    SUB,
    SWEDEN,
    TENANT,
    TUNING,
    USER,
    Api,
)

from vivavoce.gateway.arm.call import Answer
from vivavoce.gateway.resource import RoleAssignment
from vivavoce.gateway.store.base import Actor, StoreUnavailable, Usage

TELLER = f"{BANK}/deployments/teller"
ROLES = "providers/Microsoft.Authorization"
OF_MINI = {"modelFormat": "OpenAI", "modelName": MINI, "modelVersion": "2024-07-18"}
LOCATION = f"{SUB}/providers/Microsoft.CognitiveServices/locations/eastus2"


def wanted(
    model: str = REALTIME,
    version: str | None = "2024-12-17",
    *,
    sku: str = "GlobalStandard",
    capacity: int | None = 10,
    source: str | None = None,
    **properties: Any,
) -> dict[str, Any]:
    """The body of a ``PUT`` of a deployment."""
    parts: dict[str, Any] = {"format": "OpenAI", "name": model, "version": version, "sourceAccount": source}
    return {
        "sku": {"name": sku} | ({} if capacity is None else {"capacity": capacity}),
        "properties": {"model": {name: value for name, value in parts.items() if value is not None}, **properties},
    }


@pytest.fixture
def api() -> Api:
    return Api()


async def made(api: Api, name: str = "teller", **body: Any) -> Answer:
    answer = await api.ask("PUT", f"{BANK}/deployments/{name}", wanted(**body))
    assert answer.status in (200, 201), answer.body
    return answer


def refusal(answer: Answer) -> tuple[int, str, str | None]:
    error = answer.body["error"]
    return answer.status, error["code"], error.get("target")


# --------------------------------------------------------------------------------------------- order of refusals


async def test_refusals_come_in_the_order_of_resource_manager(api: Api) -> None:
    """Each step mends the first fault of the one before."""
    broken = b"{"
    asked: dict[str, Any] = {"version": None, "headers": {"authorization": "Basic x"}}
    seen = []

    async def ask(path: str) -> None:
        seen.append(refusal(await api.ask("PUT", path, broken, **asked))[:2])

    nowhere = "/subscriptions/none/resourceGroups/none/providers/Microsoft.CognitiveServices/accounts/none/keys/x"
    await ask(nowhere)
    asked["version"] = "1999-01-01"
    await ask(nowhere)
    asked["headers"] = {"authorization": "Bearer forged"}
    await ask(nowhere)
    asked["headers"] = {"authorization": f"Bearer {OTHER_TENANT}/{NOBODY}"}
    await ask(nowhere)
    path = nowhere.replace("/keys/", "/deployments/")
    await ask(path)
    asked["version"] = "2024-10-01"
    await ask(path)
    path = path.replace("/subscriptions/none", SUB)
    await ask(path)
    asked["headers"] = {"authorization": f"Bearer {TENANT}/{NOBODY}"}
    await ask(path)
    asked["headers"] = {"authorization": f"Bearer {TENANT}/{OWNER}"}
    await ask(path)
    path = path.replace("resourceGroups/none", "resourceGroups/voice")
    await ask(path)
    path = path.replace("accounts/none", "accounts/bank")
    await ask(path)
    assert seen == [
        (400, "MissingApiVersionParameter"),
        (401, "AuthenticationFailedInvalidHeader"),
        (401, "InvalidAuthenticationToken"),
        (404, "InvalidResourceType"),
        (400, "NoRegisteredProviderFound"),
        (404, "SubscriptionNotFound"),
        (401, "InvalidAuthenticationTokenTenant"),
        (403, "AuthorizationFailed"),
        (404, "ResourceGroupNotFound"),
        (404, "ParentResourceNotFound"),
        (400, "InvalidRequestContent"),
    ]


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("", 401, "AuthenticationFailed"),
        ("Bearer", 401, "AuthenticationFailedInvalidHeader"),
        ("Bearer  ", 401, "AuthenticationFailedInvalidHeader"),
        ("api-key x", 401, "AuthenticationFailedInvalidHeader"),
        ("Bearer an-api-key", 401, "InvalidAuthenticationToken"),
        ("Bearer down", 503, "ServiceUnavailable"),
    ],
)
async def test_who_is_asking(header: str, status: int, code: str, api: Api) -> None:
    answer = await api.ask("GET", BANK, headers={"authorization": header})
    assert (answer.status, answer.body["error"]["code"]) == (status, code)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    assert "an-api-key" not in str(answer.body) + str(answer.headers)


async def test_who_guesses_tokens_must_wait(api: Api) -> None:
    answers = [await api.ask("GET", BANK, headers={"authorization": "Bearer forged"}) for _ in range(4)]
    assert [one.status for one in answers] == [401, 401, 401, 429]
    good = await api.ask("GET", BANK)
    assert (refusal(good)[:2], good.headers["Retry-After"]) == ((429, "TooManyRequests"), "20")


async def test_a_token_of_ours_is_told_what_is_wrong_with_it(api: Api) -> None:
    answer = await api.ask("GET", BANK, headers={"authorization": "Bearer old"})
    assert answer.body["error"]["message"] == "The access token is invalid: it has expired."


async def test_a_role_is_named_by_its_lack(api: Api) -> None:
    answer = await api.ask("PUT", TELLER, wanted(), oid=USER)
    assert answer.status == 403
    assert answer.body["error"]["message"].startswith(
        f"The client 'app-1' with object id '{USER}' does not have authorization to perform action "
        f"'Microsoft.CognitiveServices/accounts/deployments/write' over scope '{TELLER}'"
    )


async def test_a_store_that_is_gone_is_told(api: Api) -> None:
    def gone() -> None:
        raise StoreUnavailable

    api.store.before_change = gone
    answer = await api.ask("PUT", TELLER, wanted())
    assert refusal(answer)[:2] == (503, "ServiceUnavailable")
    assert answer.headers == {"Retry-After": "5"}


# ---------------------------------------------------------------------------------------------------- deployments


async def test_a_deployment_is_made_read_changed_and_deleted(api: Api) -> None:
    body = wanted(versionUpgradeOption="noautoupgrade", raiPolicyName="Microsoft.DefaultV2") | {"tags": {"a": "b"}}
    created = await api.ask("PUT", TELLER, body, oid=CONTRIBUTOR)
    assert created.status == 201
    assert created.headers == {"ETag": created.body["etag"]}
    properties = created.body["properties"]
    assert (created.body["id"], created.body["tags"]) == (TELLER, {"a": "b"})
    assert (properties["versionUpgradeOption"], properties["raiPolicyName"]) == (
        "NoAutoUpgrade",
        "Microsoft.DefaultV2",
    )
    assert created.body["systemData"]["createdBy"] == CONTRIBUTOR
    assert properties["rateLimits"] == [
        {"key": "request", "renewalPeriod": 10, "count": 10},
        {"key": "token", "renewalPeriod": 60, "count": 10_000},
    ]
    read = await api.ask(
        "GET", TELLER.replace("teller", "TELLER").replace("accounts/bank", "ACCOUNTS/BANK"), oid=USER
    )
    assert (read.status, read.body) == (200, created.body)
    # What was read may be sent back.
    again = await api.ask("PUT", TELLER, read.body)
    assert again.status == 200
    assert again.body["properties"] == properties
    assert again.body["etag"] != read.body["etag"]
    patched = await api.ask("PATCH", TELLER, {"sku": {"name": "GlobalStandard", "capacity": 20}})
    assert patched.status == 200
    assert patched.body["properties"]["rateLimits"][1]["count"] == 20_000
    assert patched.body["tags"] == {"a": "b"}
    assert patched.body["systemData"]["createdBy"] == CONTRIBUTOR
    assert patched.body["systemData"]["lastModifiedBy"] == OWNER
    deleted = [(await api.ask("DELETE", TELLER)).status for _ in range(2)]
    assert deleted == [200, 204]
    assert refusal(await api.ask("GET", TELLER)) == (404, "DeploymentNotFound", None)
    assert refusal(await api.ask("PATCH", TELLER, {"tags": {}})) == (404, "DeploymentNotFound", None)


async def test_without_a_version_it_is_the_default_and_without_a_capacity_too(api: Api) -> None:
    answer = await made(api, version=None, capacity=None)
    assert answer.body["properties"]["model"]["version"] == "2024-12-17"
    assert answer.body["sku"] == {"name": "GlobalStandard", "capacity": 1}


async def test_names_of_skus_have_no_case(api: Api) -> None:
    assert (await made(api, sku="globalstandard")).body["sku"]["name"] == "GlobalStandard"


BAD: list[tuple[dict[str, Any], str, str | None]] = [
    ({"sku": None}, "InvalidResourceProperties", "sku"),
    ({"sku": {"name": "S0"}}, "InvalidResourceProperties", "sku.name"),
    ({"sku": {"name": "DataZoneStandard"}}, "InvalidResourceProperties", "sku.name"),
    ({"sku": {"name": "GlobalStandard", "capacity": 0}}, "InvalidResourceProperties", "sku.capacity"),
    ({"sku": {"name": "GlobalStandard", "capacity": -1}}, "InvalidResourceProperties", "sku.capacity"),
    ({"sku": {"name": "GlobalStandard", "capacity": "1"}}, "InvalidRequestContent", "sku.capacity"),
    ({"sku": {"name": "GlobalStandard", "tier": "Free"}}, "InvalidResourceProperties", "sku.tier"),
    ({"sku": {"capacity": 1}}, "InvalidRequestContent", "sku"),
    ({"sku": {"name": "GlobalStandard", "capacity": 101}}, "InsufficientQuota", "sku.capacity"),
    ({"properties": None}, "InvalidResourceProperties", "properties.model.name"),
    ({"properties": {"model": {"format": "OpenAI"}}}, "InvalidResourceProperties", "properties.model.name"),
    (
        {"properties": {"model": {"format": "openai", "name": REALTIME}}},
        "InvalidResourceProperties",
        "properties.model.format",
    ),
    (
        wanted(versionUpgradeOption="Sometimes"),
        "InvalidResourceProperties",
        "properties.versionUpgradeOption",
    ),
    (wanted(raiPolicyName="mine"), "InvalidResourceProperties", "properties.raiPolicyName"),
    (wanted(scaleSettings={"scaleType": "Standard"}), "InvalidResourceProperties", "properties.scaleSettings"),
    (wanted(parentDeploymentName="x"), "InvalidResourceProperties", "properties.parentDeploymentName"),
    (wanted(capacitySettings={"priority": 1}), "InvalidResourceProperties", "properties.capacitySettings"),
    (wanted(spilloverDeploymentName="x"), "InvalidResourceProperties", "properties.spilloverDeploymentName"),
    (wanted(colour="blue"), "InvalidRequestContent", "properties"),
    ({"colour": "blue"}, "InvalidRequestContent", None),
    (wanted(MINI, sku="Standard"), "DeploymentModelNotSupported", "properties.model"),
    (wanted(MINI, "2024-07-18", sku="Standard"), "InvalidResourceProperties", "sku.name"),
    (wanted(REALTIME, "2023-01-01"), "DeploymentModelNotSupported", "properties.model"),
    (wanted(REALTIME, "2024-08-01"), "ServiceModelDeprecated", "properties.model"),
    (wanted("nobodys-model"), "DeploymentModelNotSupported", "properties.model.name"),
    (wanted(source=SWEDEN), "InvalidResourceProperties", "properties.model.sourceAccount"),
    ({"tags": {"a<b": "c"}}, "InvalidTagName", "tags"),
    ({"tags": {str(n): "c" for n in range(51)}}, "ResourceLimitExceeded", "tags"),
]


@pytest.mark.parametrize(("change", "code", "target"), BAD)
async def test_what_does_not_fit_is_refused_and_nothing_is_kept(
    change: dict[str, Any], code: str, target: str | None, api: Api
) -> None:
    answer = await api.ask("PUT", TELLER, wanted() | change)
    assert refusal(answer) == (400, code, target)
    assert api.store.current.deployment(BANK, "teller") is None


async def test_a_recipe_that_cannot_serve_the_model(api: Api) -> None:
    api.faults["own"] = "nothing could be read"
    answer = await api.ask("PUT", TELLER, wanted("my-own", None, sku="GlobalStandard"))
    assert refusal(answer) == (400, "DeploymentModelNotSupported", "properties.model.name")
    assert "cannot serve it: nothing could be read." in answer.body["error"]["message"]
    assert api.store.current.deployment(BANK, "teller") is None


@pytest.mark.parametrize("name", ["-x", "a b", "x" * 65, "a,b"])
async def test_names_of_deployments(name: str, api: Api) -> None:
    answer = await api.ask("PUT", f"{BANK}/deployments/{name.replace(' ', '%20')}", wanted())
    assert refusal(answer) == (400, "InvalidResourceName", "name")


async def test_a_patch_changes_no_model(api: Api) -> None:
    await made(api)
    answer = await api.ask("PATCH", TELLER, {"properties": {}})
    assert refusal(answer)[1] == "InvalidRequestContent"


async def test_a_version_that_is_retired_stays_where_it_is(api: Api) -> None:
    """It gets no other capacity, but other tags, and it may be deleted."""
    await made(api)
    there = api.store.current.deployment(BANK, "teller")
    assert there is not None
    old = replace(there, model=replace(there.model, version="2024-08-01"))
    await api.store.put_deployment(old, by=Actor("somebody", "User"))
    answer = await api.ask("PATCH", TELLER, {"sku": {"name": "GlobalStandard", "capacity": 30}})
    assert refusal(answer) == (400, "ServiceModelDeprecated", "properties.model")
    assert (await api.ask("PATCH", TELLER, {"tags": {"a": "b"}})).body["tags"] == {"a": "b"}
    assert (await api.ask("DELETE", TELLER)).status == 200


async def test_a_model_of_ones_own_needs_a_recipe_and_has_every_sku(api: Api) -> None:
    answer = await made(api, model="my-own", version=None, sku="DataZoneStandard", capacity=5_000)
    assert answer.body["properties"]["model"] == {"format": "OpenAI", "name": "my-own"}
    assert answer.body["properties"]["capabilities"] == {}


async def test_what_the_file_declares_is_read_only(api: Api) -> None:
    path = f"{DECLARED}/deployments/old-hand"
    assert (await api.ask("GET", path)).body["sku"]["capacity"] == 10_000
    for method, body in (("PUT", wanted()), ("PATCH", {"tags": {"a": "b"}}), ("DELETE", None)):
        assert refusal(await api.ask(method, path, body))[:2] == (409, "ReadOnlyResource")
    for method, body in (("PATCH", {"tags": {}}), ("DELETE", None)):
        assert refusal(await api.ask(method, DECLARED, body))[:2] == (409, "ReadOnlyResource")


# ----------------------------------------------------------------------------------------------------- conditions


async def test_etags_guard_a_change(api: Api) -> None:
    none = await api.ask("PUT", TELLER, wanted(), headers={"if-match": "*"})
    assert refusal(none)[:2] == (412, "PreconditionFailed")
    etag = (await api.ask("PUT", TELLER, wanted(), headers={"if-none-match": "*"})).body["etag"]
    twice = await api.ask("PUT", TELLER, wanted(), headers={"if-none-match": "*"})
    assert refusal(twice)[:2] == (412, "PreconditionFailed")
    for bare in (False, True):
        given = etag.strip('"') if bare else etag
        answer = await api.ask("PUT", TELLER, wanted(), headers={"if-match": given})
        assert answer.status == 200
        assert refusal(await api.ask("DELETE", TELLER, headers={"if-match": given}))[0] == 412
        etag = answer.body["etag"]
    assert (await api.ask("DELETE", TELLER, headers={"if-match": etag})).status == 200


async def test_a_condition_that_means_nothing_is_refused(api: Api) -> None:
    for name, value in (("if-match", '"a", "b"'), ("if-none-match", '"a"')):
        assert (await api.ask("PUT", TELLER, wanted(), headers={name: value})).status == 400


# -------------------------------------------------------------------------------------------------------- quota


async def test_quota_is_of_the_subscription_and_the_region(api: Api) -> None:
    await made(api, "one", capacity=60)
    answer = await api.ask("PUT", TELLER, wanted(capacity=50))
    assert refusal(answer) == (400, "InsufficientQuota", "sku.capacity")
    assert "require 50 new capacity" in answer.body["error"]["message"]
    assert "usage is 60 and the quota limit is 100" in answer.body["error"]["message"]
    await made(api, "two", capacity=40)
    # Its own share counts once.
    assert (
        refusal(
            await api.ask("PATCH", f"{BANK}/deployments/two", {"sku": {"name": "GlobalStandard", "capacity": 41}})
        )[1]
        == "InsufficientQuota"
    )
    assert (await api.ask("PUT", f"{BANK}/deployments/two", wanted(capacity=30))).status == 200
    # Another region and another subscription have their own.
    for account in (SWEDEN, TUNING):
        assert (await api.ask("PUT", f"{account}/deployments/x", wanted(capacity=100))).status == 201
    usages = await api.ask("GET", f"{LOCATION}/usages")
    told = {one["name"]["value"]: (one["currentValue"], one["limit"]) for one in usages.body["value"]}
    assert told == {
        "AccountCount": (2, 4),
        f"OpenAI.GlobalStandard.{REALTIME}": (90, 100),
        "OpenAI.ProvisionedManaged": (0, 200),
    }


async def test_ptu_come_in_steps_and_are_shown_without_rates(api: Api) -> None:
    def ptu(capacity: int) -> dict[str, Any]:
        return wanted(MINI, "2024-07-18", sku="ProvisionedManaged", capacity=capacity)

    for capacity in (24, 26, 0):
        answer = await api.ask("PUT", TELLER, ptu(capacity))
        assert refusal(answer) == (400, "InvalidResourceProperties", "sku.capacity")
    assert refusal(await api.ask("PUT", TELLER, ptu(100_025))) == (400, "InvalidCapacity", "sku.capacity")
    answer = await api.ask("PUT", TELLER, ptu(150))
    assert (answer.status, answer.body["properties"]["rateLimits"]) == (201, [])
    # Quota is of the sku in the region, whatever the model and the account.
    more = await api.ask("PUT", f"{BANK}/deployments/other", ptu(75))
    assert refusal(more) == (400, "InsufficientQuota", "sku.capacity")
    assert (await api.ask("PUT", f"{SWEDEN}/deployments/other", ptu(75))).status == 201


@pytest.mark.parametrize(
    ("path", "body", "target"),
    [
        (TELLER, wanted() | {"tags": {"a": "b\0"}}, "tags.a"),
        (TELLER, wanted() | {"tags": {"a\0": "b"}}, "tags"),
        (TELLER, wanted("my-own\0"), "properties.model.name"),
        (BANK, {"location": "eastus2", "kind": "OpenAI", "sku": {"name": "S0"}, "tags": {"x": "\0"}}, "tags.x"),
    ],
)
async def test_a_text_that_no_database_keeps_is_refused(
    api: Api, path: str, body: dict[str, Any], target: str
) -> None:
    assert refusal(await api.ask("PUT", path, body)) == (400, "InvalidRequestContent", target)


async def test_a_backslash_before_u0000_is_no_nul(api: Api) -> None:
    answer = await api.ask("PUT", TELLER, wanted() | {"tags": {"a": "\\u0000"}})
    assert (answer.status, answer.body["tags"]) == (201, {"a": "\\u0000"})


async def test_capacity_may_be_gone_although_there_is_quota() -> None:
    """A region's capacity is one for all subscriptions; each of them has its own quota (200)."""
    api = Api(capacity=150)

    def ptu(capacity: int) -> dict[str, Any]:
        return wanted(MINI, "2024-07-18", sku="ProvisionedManaged", capacity=capacity)

    async def left() -> dict[str, int]:
        answer = await api.ask("GET", f"{LOCATION}/modelCapacities", query=OF_MINI)
        assert answer.status == 200, answer.body
        return {
            one["properties"]["skuName"]: one["properties"]["availableCapacity"] for one in answer.body["value"]
        }

    other = f"{TUNING}/deployments/other"
    assert await left() == {"ProvisionedManaged": 150}
    assert (await api.ask("PUT", other, ptu(100))).status == 201
    assert await left() == {"ProvisionedManaged": 50}
    refused = await api.ask("PUT", TELLER, ptu(75))
    assert refusal(refused) == (409, "InsufficientResourcesAvailable", "sku.capacity")
    assert "75 more units of 'ProvisionedManaged': 50 are available" in refused.body["error"]["message"]
    assert refusal(await api.ask("PUT", TELLER, ptu(225)))[:2] == (400, "InsufficientQuota"), "quota comes first"
    assert (await api.ask("PUT", TELLER, ptu(50))).status == 201
    # What it has it keeps, and may give back; more it cannot have.
    assert (await api.ask("PATCH", TELLER, {"tags": {"a": "b"}})).status == 200
    grow = {"sku": {"name": "ProvisionedManaged", "capacity": 75}}
    assert refusal(await api.ask("PATCH", TELLER, grow))[1] == "InsufficientResourcesAvailable"
    assert (await api.ask("PUT", f"{SWEDEN}/deployments/x", ptu(175))).status == 201, "another region"
    assert (await api.ask("DELETE", other)).status == 200
    assert (await api.ask("PATCH", TELLER, grow)).status == 200
    assert await left() == {"ProvisionedManaged": 75}


async def test_capacities_of_all_regions_come_in_pages() -> None:
    api = Api(page=1, capacity=40)
    path = f"{SUB}/providers/Microsoft.CognitiveServices/modelCapacities"
    query: dict[str, str] | None = OF_MINI
    found = []
    while query is not None:
        body = (await api.ask("GET", path, query=query)).body
        found += [(one["location"], one["properties"]["skuName"]) for one in body["value"]]
        query = dict(parse_qsl(urlsplit(body["nextLink"]).query)) if "nextLink" in body else None
    assert found == [
        ("eastus2", "ProvisionedManaged"),
        ("swedencentral", "ProvisionedManaged"),
        ("swedencentral", "Standard"),
    ]
    assert refusal(await api.ask("GET", path)) == (400, "MissingParameter", "modelName")


async def test_a_model_of_unknown_throughput_cannot_be_provisioned(api: Api) -> None:
    body = wanted("my-own", "1", sku="ProvisionedManaged", capacity=25)
    refused = await api.ask("PUT", TELLER, body)
    assert refusal(refused) == (400, "InvalidResourceProperties", "sku.name")
    assert "It knows that of gpt-4o-mini, gpt-4o-mini-realtime-preview" in refused.body["error"]["message"]
    await made(api, model="my-own", version="1")
    changed = await api.ask("PATCH", TELLER, {"sku": {"name": "ProvisionedManaged", "capacity": 25}})
    assert refusal(changed) == (400, "InvalidResourceProperties", "sku.name")


async def test_spillover_goes_to_a_standard_deployment_of_the_account(api: Api) -> None:
    body = wanted(
        "gpt-4o-mini", "2024-07-18", sku="ProvisionedManaged", capacity=25, spilloverDeploymentName="spare"
    )
    assert refusal(await api.ask("PUT", TELLER, body))[2] == "properties.spilloverDeploymentName"
    await made(api, "Spare")
    answer = await api.ask("PUT", TELLER, body)
    assert answer.body["properties"]["spilloverDeploymentName"] == "Spare"
    assert refusal(await api.ask("DELETE", f"{BANK}/deployments/spare"))[:2] == (409, "Conflict")


async def test_an_account_has_room_for_so_many(api: Api) -> None:
    for name in "abc":
        await made(api, name, capacity=1)
    answer = await api.ask("PUT", f"{BANK}/deployments/d", wanted(capacity=1))
    assert refusal(answer) == (400, "QuotaExceeded", "name")
    await made(api, "a", capacity=2)


# ------------------------------------------------------------------------------------------------------ readiness


async def test_a_deployment_whose_engines_are_not_ready_is_being_created(api: Api) -> None:
    api.states["teller"] = "Creating"
    created = await api.ask("PUT", TELLER, wanted())
    assert (created.status, created.body["properties"]["provisioningState"]) == (201, "Creating")
    address = created.headers["Azure-AsyncOperation"]
    assert address.startswith(f"https://manage.test:8089{LOCATION}/operationResults/")
    assert address.endswith("?api-version=2024-10-01")
    path = address.removeprefix("https://manage.test:8089").partition("?")[0]
    running = await api.ask("GET", path)
    assert (running.status, running.body["status"], running.headers) == (200, "Creating", {"Retry-After": "1"})
    patched = await api.ask("PATCH", TELLER, {"tags": {"a": "b"}})
    assert (patched.status, patched.headers["Azure-AsyncOperation"]) == (202, address)
    assert refusal(await api.ask("GET", path, oid=NOBODY))[:2] == (403, "AuthorizationFailed")
    api.states["teller"] = "Succeeded"
    ended = await api.ask("GET", path)
    assert (ended.body["status"], ended.headers) == ("Succeeded", {})
    api.states["teller"] = "Failed"
    assert (await api.ask("GET", path)).body["error"]["code"] == "DeploymentModelNotSupported"
    await api.ask("DELETE", TELLER)
    assert (await api.ask("GET", path)).body["error"]["code"] == "DeploymentNotFound"


@pytest.mark.parametrize("name", ["x", "%00", "L3N1YnNjcmlwdGlvbnMvc3ViLTE"])
async def test_an_operation_that_is_none(name: str, api: Api) -> None:
    assert refusal(await api.ask("GET", f"{LOCATION}/operationResults/{name}"))[:2] == (404, "OperationNotFound")


# ------------------------------------------------------------------------------------------------ source accounts


async def test_a_fine_tuned_model_comes_from_another_region(api: Api) -> None:
    body = wanted(FINE_TUNED, "1", sku="Standard", source=SWEDEN.upper().replace("SUB-1", "sub-1"))
    answer = await api.ask("PUT", TELLER, body)
    assert answer.status == 201
    assert answer.body["properties"]["model"]["sourceAccount"] == SWEDEN
    assert api.records[-1][4].source_account == SWEDEN


async def test_a_fine_tuned_model_of_the_own_account_needs_no_source(api: Api) -> None:
    answer = await made(api, model=FINE_TUNED, version="1", sku="Standard")
    assert "sourceAccount" not in answer.body["properties"]["model"]


async def test_a_fine_tuned_model_comes_from_another_subscription(api: Api) -> None:
    body = wanted(FINE_TUNED, "1", sku="Standard", source=TUNING)
    assert refusal(await api.ask("PUT", TELLER, body, oid=CONTRIBUTOR)) == (
        403,
        "LinkedAuthorizationFailed",
        "properties.model.sourceAccount",
    )
    assert (await api.ask("PUT", TELLER, body)).status == 201


async def test_a_fine_tuned_model_comes_from_another_tenant(api: Api) -> None:
    body = wanted(FINE_TUNED, "1", sku="Standard", source=FAR)

    async def ask(auxiliary: str | None, oid: str = CONTRIBUTOR) -> Answer:
        headers = {} if auxiliary is None else {"x-ms-authorization-auxiliary": auxiliary}
        return await api.ask("PUT", TELLER, body, oid=oid, headers=headers)

    good = f"Bearer {OTHER_TENANT}/{ABROAD}"
    assert refusal(await ask(None)) == (403, "LinkedAuthorizationFailed", "x-ms-authorization-auxiliary")
    assert "current tenant" in (await ask(None)).body["error"]["message"]
    assert refusal(await ask("Bearer forged"))[:2] == (401, "InvalidAuxiliaryToken")
    assert refusal(await ask(f"Basic {OTHER_TENANT}/{ABROAD}"))[:2] == (401, "InvalidAuxiliaryToken")
    # A token of a third tenant, or of one of the right tenant without the role there.
    assert refusal(await ask(f"Bearer {TENANT}/{OWNER}"))[2] == "x-ms-authorization-auxiliary"
    assert refusal(await ask(f"Bearer {OTHER_TENANT}/{OWNER}"))[2] == "properties.model.sourceAccount"
    # The role there does not stand for the role here.
    assert refusal(await ask(good, oid=USER))[:2] == (403, "AuthorizationFailed")
    assert api.store.current.deployment(BANK, "teller") is None
    assert (await ask(f"Bearer {TENANT}/{USER}, {good}")).status == 201
    assert (await ask(good)).status == 200
    assert refusal(await ask(", ".join([good] * 4)))[:2] == (401, "InvalidAuxiliaryToken")


@pytest.mark.parametrize(
    ("source", "status", "code"),
    [
        ("tuner", 400, "LinkedInvalidPropertyId"),
        (BANK, 400, "InvalidResourceProperties"),
        (f"{GROUP}/providers/Microsoft.CognitiveServices/accounts/none", 403, "LinkedAuthorizationFailed"),
        (TUNING.replace("sub-2", "sub-9"), 403, "LinkedAuthorizationFailed"),
    ],
)
async def test_sources_that_are_none(source: str, status: int, code: str, api: Api) -> None:
    answer = await api.ask("PUT", TELLER, wanted(FINE_TUNED, "1", sku="Standard", source=source))
    assert refusal(answer) == (status, code, "properties.model.sourceAccount")


# ------------------------------------------------------------------------------------------------ accounts, keys

NEW = f"{GROUP}/providers/Microsoft.CognitiveServices/accounts/Fresh"
ACCOUNT = {"location": "East US 2", "kind": "OpenAI", "sku": {"name": "S0"}, "properties": {}}


async def test_an_account_is_made_changed_and_deleted(api: Api) -> None:
    created = await api.ask("PUT", NEW, ACCOUNT | {"tags": {"a": "b"}})
    assert (created.status, created.body["id"], created.body["location"]) == (201, NEW, "eastus2")
    assert created.body["properties"]["customSubDomainName"] == "fresh"
    assert (await api.ask("GET", NEW)).body == created.body
    assert (await api.ask("PUT", NEW, created.body)).status == 200
    patched = await api.ask("PATCH", NEW, {"tags": {"c": "d"}})
    assert (patched.status, patched.body["tags"]) == (200, {"c": "d"})
    # Where there is a group without an account.
    empty = NEW.replace("voice", "EMPTY").replace("Fresh", "other")
    assert (await api.ask("PUT", empty, ACCOUNT)).body["id"] == empty.replace("EMPTY", "empty")
    assert [(await api.ask("DELETE", NEW)).status for _ in range(2)] == [200, 204]
    assert refusal(await api.ask("GET", NEW))[:2] == (404, "ResourceNotFound")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"location": None}, 400, "LocationRequired"),
        ({"location": "Atlantis"}, 400, "LocationNotAvailableForResourceType"),
        ({"kind": None}, 400, "InvalidApiSetId"),
        ({"kind": "Face"}, 400, "InvalidApiSetId"),
        ({"sku": None}, 400, "InvalidResourceProperties"),
        ({"sku": {"name": "F0"}}, 400, "InvalidSkuId"),
        ({"properties": {"customSubDomainName": "a.b"}}, 400, "CustomDomainInvalid"),
        ({"properties": {"customSubDomainName": "Sweden"}}, 409, "CustomDomainInUse"),
        ({"properties": {"publicNetworkAccess": "Disabled"}}, 400, "InvalidResourceProperties"),
        ({"properties": {"disableLocalAuth": True}}, 400, "InvalidResourceProperties"),
        ({"properties": {"encryption": {}}}, 400, "InvalidRequestContent"),
    ],
)
async def test_accounts_that_are_refused(change: dict[str, Any], status: int, code: str, api: Api) -> None:
    assert refusal(await api.ask("PUT", NEW, ACCOUNT | change))[:2] == (status, code)
    assert api.store.current.account(NEW) is None


async def test_an_account_stays_where_it_is(api: Api) -> None:
    answer = await api.ask("PUT", BANK, ACCOUNT | {"location": "swedencentral"})
    assert refusal(answer) == (409, "InvalidResourceLocation", "location")


async def test_a_name_of_an_account_is_checked(api: Api) -> None:
    answer = await api.ask("PUT", NEW.replace("Fresh", "x"), ACCOUNT)
    assert refusal(answer) == (400, "InvalidResourceName", "name")


async def test_an_account_with_deployments_is_not_deleted(api: Api) -> None:
    await made(api)
    answer = await api.ask("DELETE", BANK)
    assert refusal(answer)[:2] == (409, "CannotDeleteResource")
    assert "teller" in answer.body["error"]["message"]


async def test_a_region_has_room_for_so_many_accounts(api: Api) -> None:
    for name in ("one", "two"):
        assert (await api.ask("PUT", NEW.replace("Fresh", name), ACCOUNT)).status == 201
    assert refusal(await api.ask("PUT", NEW, ACCOUNT)) == (400, "QuotaExceeded", "location")
    assert (await api.ask("PUT", NEW, ACCOUNT | {"location": "swedencentral"})).status == 201


async def test_keys_are_listed_and_made_anew(api: Api) -> None:
    listed = await api.ask("POST", f"{BANK}/listKeys")
    assert listed.body == {"key1": "key1-of-bank-1", "key2": "key2-of-bank-1"}
    renewed = await api.ask("POST", f"{BANK}/regenerateKey", {"keyName": "Key2"})
    assert renewed.body == {"key1": "key1-of-bank-1", "key2": "key2-of-bank-2"}
    assert refusal(await api.ask("POST", f"{BANK}/regenerateKey", {"keyName": "key3"}))[2] == "keyName"
    assert refusal(await api.ask("POST", f"{BANK}/regenerateKey"))[1] == "InvalidRequestContent"
    for oid in (CONTRIBUTOR, USER):
        assert refusal(await api.ask("POST", f"{BANK}/listKeys", oid=oid))[:2] == (403, "AuthorizationFailed")
    assert not any("of-bank" in str(record) for record in api.records)


# --------------------------------------------------------------------------------------------------------- lists


async def test_a_list_comes_in_pages(api: Api) -> None:
    api = Api(page=2)
    for name in "cab":
        await made(api, name, capacity=1)
    first = await api.ask("GET", f"{BANK}/deployments")
    assert [one["name"] for one in first.body["value"]] == ["a", "b"]
    link = first.body["nextLink"]
    assert link.startswith(f"https://manage.test:8089{BANK}/deployments?api-version=2024-10-01&$skipToken=")
    token = link.rpartition("=")[2]
    # What is deleted meanwhile moves nothing.
    await api.ask("DELETE", f"{BANK}/deployments/b")
    last = await api.ask("GET", f"{BANK}/deployments", query={"$skiptoken": token})
    assert [one["name"] for one in last.body["value"]] == ["c"]
    assert "nextLink" not in last.body
    assert refusal(await api.ask("GET", f"{BANK}/deployments", query={"$skipToken": "*"}))[2] == "$skipToken"


async def names(api: Api, path: str, **who: Any) -> list[str]:
    answer = await api.ask("GET", path, **who)
    return [one.get("name") or one["subscriptionId"] for one in answer.body["value"]]


async def test_a_list_shows_what_its_reader_may_read(api: Api) -> None:
    path = f"{SUB}/providers/Microsoft.CognitiveServices/accounts"
    assert await names(api, path) == ["bank", "house", "sweden"]
    assert await names(api, path, oid=USER) == ["bank"]
    assert await names(api, path, oid=NOBODY) == []
    assert await names(api, f"{GROUP}/providers/Microsoft.CognitiveServices/accounts", oid=USER) == ["bank"]
    assert await names(api, "/subscriptions") == ["sub-1", "sub-2"]
    assert await names(api, "/subscriptions", oid=USER) == ["sub-1"]
    assert await names(api, "/subscriptions", oid=ABROAD, tenant=OTHER_TENANT) == ["sub-3"]
    assert await names(api, "/subscriptions", oid=NOBODY) == []
    assert await names(api, f"{SUB}/resourcegroups") == ["empty", "voice"]
    assert await names(api, f"{SUB}/resourcegroups", oid=NOBODY) == []
    assert (await api.ask("GET", GROUP)).body["location"] == "eastus2"
    assert (await api.ask("GET", SUB)).body["displayName"] == "House"


async def test_models_of_a_region(api: Api) -> None:
    async def told(path: str) -> set[tuple[str, str]]:
        answer = await api.ask("GET", path)
        found = [one.get("model", one) for one in answer.body["value"]]
        return {(one["name"], one["version"]) for one in found}

    here = await told(f"{BANK}/models")
    assert here == await told(f"{LOCATION}/models")
    assert here == {(REALTIME, "2024-10-01"), (REALTIME, "2024-12-17"), (MINI, "2024-07-18")}
    mini, old, new = (await api.ask("GET", f"{SWEDEN}/models")).body["value"]
    assert [sku["name"] for sku in mini["skus"]] == ["Standard", "ProvisionedManaged"]
    assert [sku["usageName"] for sku in new["skus"]] == [f"OpenAI.GlobalStandard.{REALTIME}"]
    assert (old["isDefaultVersion"], old["lifecycleStatus"]) == (False, "Deprecating")
    assert old["deprecation"] == {"inference": "2025-03-26T00:00:00Z"}
    assert (new["isDefaultVersion"], new["lifecycleStatus"], new["capabilities"]) == (
        True,
        "Preview",
        {"realtime": "true"},
    )
    far = await api.ask("GET", LOCATION.replace("eastus2", "atlantis") + "/models")
    assert refusal(far)[1] == "LocationNotAvailableForResourceType"


async def test_skus(api: Api) -> None:
    await made(api, capacity=7)
    skus = (await api.ask("GET", f"{TELLER}/skus")).body["value"]
    assert [(one["sku"], one["capacity"]["step"]) for one in skus] == [
        ({"name": "GlobalStandard", "capacity": 7}, 1)
    ]
    assert (await api.ask("GET", f"{BANK}/skus")).body["value"][0]["sku"]["name"] == "S0"
    regions = (await api.ask("GET", f"{SUB}/providers/Microsoft.CognitiveServices/skus")).body["value"]
    assert [one["locations"] for one in regions] == [["EASTUS2"], ["SWEDENCENTRAL"]]


async def test_operations_are_told_to_anybody_with_a_token(api: Api) -> None:
    found = await names(api, "/providers/Microsoft.CognitiveServices/operations", oid=NOBODY)
    assert "Microsoft.CognitiveServices/accounts/deployments/write" in found


async def test_what_an_account_used_this_month(api: Api) -> None:
    def hour(month: int, day: int, account: str = BANK) -> Usage:
        at = NOW.replace(month=month, day=day)
        return Usage(deployment=f"{account}/deployments/x", hour=at, requests=2, input_tokens=30, output_tokens=400)

    await api.store.record_usage([hour(1, 31), hour(2, 1), hour(2, 13), hour(2, 13, SWEDEN)])
    answer = await api.ask("GET", f"{BANK}/usages")
    assert [(one["name"]["value"], one["currentValue"]) for one in answer.body["value"]] == [
        ("OpenAI.Requests", 4),
        ("OpenAI.InputTokens", 60),
        ("OpenAI.OutputTokens", 800),
    ]
    assert answer.body["value"][0]["nextResetTime"] == "2025-03-01T00:00:00.000000Z"


# --------------------------------------------------------------------------------------------------------- roles

GUID = "12345678-0000-0000-0000-00000000000a"
ASSIGNMENT = f"{BANK}/{ROLES}/roleAssignments/{GUID}"
OPENAI_USER = "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd"


def assignment(role: str = OPENAI_USER, principal: str = NOBODY, **more: Any) -> dict[str, Any]:
    return {
        "properties": {
            "roleDefinitionId": f"{SUB}/{ROLES}/roleDefinitions/{role}",
            "principalId": principal,
            "principalType": "ServicePrincipal",
            **more,
        }
    }


async def test_a_role_is_given_used_and_taken(api: Api) -> None:
    assert (await api.ask("GET", BANK, oid=NOBODY)).status == 403
    created = await api.ask("PUT", ASSIGNMENT, assignment())
    assert (created.status, created.body["id"]) == (201, ASSIGNMENT)
    assert created.body["properties"]["roleDefinitionId"] == f"{SUB}/{ROLES}/roleDefinitions/{OPENAI_USER}"
    assert (await api.ask("GET", BANK, oid=NOBODY)).status == 200
    assert (await api.ask("GET", SWEDEN, oid=NOBODY)).status == 403
    assert (await api.ask("PUT", ASSIGNMENT, assignment())).status == 200
    assert (await api.ask("GET", ASSIGNMENT)).body == created.body
    second = await api.ask("PUT", ASSIGNMENT[:-1] + "c", assignment())
    assert refusal(second)[:2] == (409, "RoleAssignmentExists")
    other = await api.ask("PUT", ASSIGNMENT, assignment(principal=USER))
    assert refusal(other)[:2] == (400, "RoleAssignmentUpdateNotPermitted")
    deleted = await api.ask("DELETE", ASSIGNMENT)
    assert (deleted.status, deleted.body) == (200, created.body)
    assert (await api.ask("DELETE", ASSIGNMENT)).status == 204
    assert (await api.ask("GET", BANK, oid=NOBODY)).status == 403
    assert refusal(await api.ask("GET", ASSIGNMENT))[:2] == (404, "RoleAssignmentNotFound")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (ASSIGNMENT.replace(GUID, "mine"), assignment(), 400, "InvalidRoleAssignmentId"),
        (ASSIGNMENT, assignment("00000000-0000-0000-0000-000000000000"), 404, "RoleDefinitionDoesNotExist"),
        (ASSIGNMENT, assignment(principal=""), 400, "InvalidPrincipalId"),
        (ASSIGNMENT, assignment(principal="somebody"), 400, "InvalidPrincipalId"),
        (ASSIGNMENT, assignment(principal="keycloak:"), 400, "InvalidPrincipalId"),
        (ASSIGNMENT, assignment(principal="keycloak:a b"), 400, "InvalidPrincipalId"),
        (ASSIGNMENT, assignment(principal="keycloak:" + "x" * 312), 400, "InvalidPrincipalId"),
        (ASSIGNMENT, assignment(principalType="Robot"), 400, "InvalidResourceProperties"),
        (ASSIGNMENT, assignment(principalType="ForeignGroup"), 400, "InvalidResourceProperties"),
        (ASSIGNMENT, assignment(condition="@Resource"), 400, "InvalidResourceProperties"),
        (ASSIGNMENT, {"properties": {}}, 400, "InvalidRequestContent"),
        (ASSIGNMENT.replace("bank", "none"), assignment(), 404, "ResourceNotFound"),
        (ASSIGNMENT.replace(BANK, f"{BANK}/deployments/none"), assignment(), 404, "DeploymentNotFound"),
        (ASSIGNMENT.replace(BANK, ""), assignment(), 403, "AuthorizationFailed"),
    ],
)
async def test_assignments_that_are_refused(path: str, body: object, status: int, code: str, api: Api) -> None:
    assert refusal(await api.ask("PUT", path, body))[:2] == (status, code)


async def test_who_may_deploy_may_not_give_roles(api: Api) -> None:
    answer = await api.ask("PUT", ASSIGNMENT, assignment(), oid=CONTRIBUTOR)
    assert refusal(answer)[:2] == (403, "AuthorizationFailed")


async def test_assignments_are_listed_by_scope_and_holder(api: Api) -> None:
    async def held(scope: str, filter: str | None = None) -> list[int]:  # noqa: A002 - its name in OData
        query = {} if filter is None else {"$filter": filter}
        answer = await api.ask("GET", f"{scope}/{ROLES}/roleAssignments", query=query)
        assert answer.status == 200, answer.body
        return [int(one["name"][-12:]) for one in answer.body["value"]]

    assert await held(SUB) == [1, 3, 4]
    assert await held(SUB, "atScope()") == [1]
    assert await held(BANK) == [1, 3, 4]
    assert await held(SWEDEN) == [1]
    assert await held(SUB, f"principalId eq '{USER.upper()}'") == [4]
    assert await held(SUB, f"atScope() and principalId eq '{USER}'") == []
    assert await held(OTHER_SUB) == [2]
    for bad in ("principalId ne 'x'", f"assignedTo('{USER}')", f"assignedTo eq '{USER}'"):
        answer = await api.ask("GET", f"{SUB}/{ROLES}/roleAssignments", query={"$filter": bad})
        assert refusal(answer) == (400, "UnsupportedQuery", "$filter")


async def test_definitions_are_the_roles_of_the_server(api: Api) -> None:
    found = (await api.ask("GET", f"{SUB}/{ROLES}/roleDefinitions")).body["value"]
    assert {"Owner", "Cognitive Services OpenAI User"} <= {one["properties"]["roleName"] for one in found}
    query = {"$filter": "roleName eq 'owner'"}
    (owner,) = (await api.ask("GET", f"{SUB}/{ROLES}/roleDefinitions", query=query)).body["value"]
    assert owner["properties"]["permissions"][0]["actions"] == ["*"]
    assert (await api.ask("GET", owner["id"])).body == owner
    nobody = await api.ask("GET", f"{SUB}/{ROLES}/roleDefinitions/x")
    assert refusal(nobody)[:2] == (404, "RoleDefinitionDoesNotExist")


# --------------------------------------------------------------------------------------------------------- audit


async def test_every_attempt_to_change_something_is_recorded(api: Api) -> None:
    await api.ask("PUT", TELLER, wanted())
    await api.ask("PUT", TELLER, wanted(), oid=USER)
    await api.ask("DELETE", TELLER, headers={"authorization": "Bearer forged"})
    await api.ask("POST", f"{BANK}/listKeys")
    await api.ask("GET", TELLER)
    await api.ask("PUT", ASSIGNMENT, assignment())

    def outline(record: tuple[Any, ...]) -> tuple[Any, ...]:
        actor, action, target, outcome, details, _ = record
        return actor.oid, action.rpartition("Microsoft.")[2], target, outcome, details.status, details.code

    assert [outline(record) for record in api.records] == [
        (OWNER, "CognitiveServices/accounts/deployments/write", TELLER, "done", 201, None),
        (
            USER,
            "CognitiveServices/accounts/deployments/write",
            TELLER,
            "refused",
            403,
            "AuthorizationFailed",
        ),
        (
            None,
            "CognitiveServices/accounts/deployments/delete",
            TELLER,
            "refused",
            401,
            "InvalidAuthenticationToken",
        ),
        (OWNER, "CognitiveServices/accounts/listKeys/action", BANK, "done", 200, None),
        (OWNER, "Authorization/roleAssignments/write", ASSIGNMENT, "done", 201, None),
    ]
    assert api.records[-1][4].principal_id == NOBODY


async def test_an_account_is_its_own_tenants_whoever_owns_the_subscription(api: Api) -> None:
    """As the configuration may declare it; that of the subscription is the first account's then."""
    lodger = f"{GROUP}/providers/Microsoft.CognitiveServices/accounts/lodger"
    here = api.store.current
    account = replace(here.accounts[0], name="lodger", subdomain="lodger", tenant=OTHER_TENANT)
    given = RoleAssignment(
        id=f"{lodger}/providers/Microsoft.Authorization/roleAssignments/00000000-0000-0000-0000-000000000009",
        scope=lodger,
        role="Owner",
        principal_id=ABROAD,
        principal_type="ServicePrincipal",
    )
    api.store._replace(accounts=[*here.accounts, account], assignments=[*here.assignments, given])
    keys = f"{lodger}/listKeys"
    assert refusal(await api.ask("POST", keys))[:2] == (401, "InvalidAuthenticationTokenTenant")
    assert "lodger" not in await names(api, f"{SUB}/providers/Microsoft.CognitiveServices/accounts")
    assert (await api.ask("POST", keys, oid=ABROAD, tenant=OTHER_TENANT)).status == 200
    source = wanted(FINE_TUNED, "1", sku="Standard", source=lodger)
    assert refusal(await api.ask("PUT", TELLER, source))[2] == "x-ms-authorization-auxiliary"
