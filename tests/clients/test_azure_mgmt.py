"""Microsoft's own management client, unpatched: it gets our URL and a credential.

It is Any here: nearly all that its models hold may be None by their types.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.mgmt.cognitiveservices import models as arm
from dev_tokens import dev_token
from managed import (
    ABROAD,
    ABROAD_ACCOUNT,
    BANK,
    BANK_KEY,
    CONTRIBUTOR,
    GROUP,
    MODEL,
    OTHER_TENANT,
    OWNER,
    SUBSCRIPTION,
    TUNED,
    VERSION,
    managed,
    management_token,
)
from server_fakes import Fakes, Wire, serving

from vivavoce.engines.registry import Registry
from vivavoce.server.app import Server

PLAIN: Final[dict[str, Any]] = {"enforce_https": False}
"""Its own option: it sends no token over plain HTTP unless every call says so."""
ACCOUNT: Final = "bank"


class Credential:
    """What azure-identity gives: a token for the scope that is asked for."""

    def __init__(self, make: Callable[[], str] = management_token) -> None:
        self.make = make
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **more: Any) -> AccessToken:
        self.scopes += scopes
        return AccessToken(self.make(), int(time.time()) + 3600)


@contextmanager
def client_of(server: Server, credential: Credential | None = None) -> Iterator[Any]:
    with CognitiveServicesManagementClient(
        credential or Credential(),
        SUBSCRIPTION,
        base_url=f"http://127.0.0.1:{server.port}",
        polling_interval=0,
        retry_total=0,
    ) as client:
        yield client


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[Any]:
    with client_of(server) as client:
        yield client


@pytest_asyncio.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    monkeypatch.setattr(Registry, "installed", Fakes)
    async with serving(managed(tmp_path)) as server:
        yield server


async def asked(work: Callable[[], Any]) -> Any:
    """The client blocks: not the loop of the server."""
    return await asyncio.to_thread(work)


def deployment(model: str = MODEL, capacity: int = 10, **properties: Any) -> arm.Deployment:
    return arm.Deployment(
        sku=arm.Sku(name="GlobalStandard", capacity=capacity),
        properties=arm.DeploymentProperties(
            model=arm.DeploymentModel(format="OpenAI", name=model, version=VERSION), **properties
        ),
    )


async def greeting(server: Server, path: str, headers: dict[str, str]) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.port}{path}"
    async with ClientSession() as client, client.ws_connect(url, headers=headers) as socket:
        return await Wire(socket).next()


async def test_deployments_from_the_first_to_the_last(server: Server, client: Any) -> None:
    operations = client.deployments

    made = await asked(
        lambda: operations.begin_create_or_update(
            GROUP, ACCOUNT, "teller", deployment(version_upgrade_option="NoAutoUpgrade"), **PLAIN
        ).result()
    )
    assert (made.id, made.sku.capacity) == (f"{BANK}/deployments/teller", 10)
    assert (made.properties.provisioning_state, made.properties.version_upgrade_option) == (
        "Succeeded",
        "NoAutoUpgrade",
    )
    assert [(one.key, one.renewal_period, one.count) for one in made.properties.rate_limits][1] == (
        "token",
        60,
        10_000,
    )
    assert made.system_data.created_by_type == "Application"

    read = await asked(lambda: operations.get(GROUP, ACCOUNT, "TELLER", **PLAIN))
    assert read.as_dict() == made.as_dict()
    changed = await asked(
        lambda: operations.begin_update(
            GROUP,
            ACCOUNT,
            "teller",
            arm.PatchResourceTagsAndSku(tags={"a": "b"}, sku=arm.Sku(name="GlobalStandard", capacity=20)),
            **PLAIN,
        ).result()
    )
    assert (changed.sku.capacity, changed.tags, changed.properties.current_capacity) == (20, {"a": "b"}, 20)
    # What was read is sent back, with everything that only the service says.
    again = await asked(
        lambda: operations.begin_create_or_update(GROUP, ACCOUNT, "teller", changed, **PLAIN).result()
    )
    assert again.properties.as_dict() == changed.properties.as_dict()
    await asked(lambda: operations.begin_create_or_update(GROUP, ACCOUNT, "second", deployment(), **PLAIN).result())
    assert await asked(lambda: [one.name for one in operations.list(GROUP, ACCOUNT, **PLAIN)]) == [
        "second",
        "teller",
    ]
    skus = await asked(lambda: list(operations.list_skus(GROUP, ACCOUNT, "teller", **PLAIN)))
    assert "GlobalStandard" in [one.sku.name for one in skus]

    keys = await asked(lambda: client.accounts.list_keys(GROUP, ACCOUNT, **PLAIN))
    assert keys.key1 == BANK_KEY
    path = "/openai/v1/realtime?model=teller"
    session = await greeting(server, path, {"api-key": keys.key1, "Host": "bank.openai.azure.com"})
    assert session["type"] == "session.created"
    assert session["session"]["instructions"] == "Speak as a bank does."

    await asked(lambda: operations.begin_delete(GROUP, ACCOUNT, "teller", **PLAIN).result())
    await asked(lambda: operations.begin_delete(GROUP, ACCOUNT, "teller", **PLAIN).result())
    with pytest.raises(ResourceNotFoundError) as gone:
        await asked(lambda: operations.get(GROUP, ACCOUNT, "teller", **PLAIN))
    assert gone.value.error is not None
    assert gone.value.error.code == "DeploymentNotFound"


async def test_accounts_keys_models_and_usages(server: Server, client: Any) -> None:
    accounts = client.accounts
    made = await asked(
        lambda: accounts.begin_create(
            "empty",
            "second-bank",
            arm.Account(
                location="East US 2",
                kind="OpenAI",
                sku=arm.Sku(name="S0"),
                properties=arm.AccountProperties(),
                tags={"a": "b"},
            ),
            **PLAIN,
        ).result()
    )
    assert (made.location, made.properties.provisioning_state) == ("eastus2", "Succeeded")
    assert made.properties.endpoint == f"http://127.0.0.1:{server.port}/"
    listed = await asked(lambda: sorted(one.name for one in accounts.list(**PLAIN)))
    assert listed == ["bank", "second-bank", "vivavoce"]
    assert await asked(lambda: [one.name for one in accounts.list_by_resource_group("empty", **PLAIN)]) == [
        "second-bank"
    ]
    tagged = await asked(
        lambda: accounts.begin_update("empty", "second-bank", arm.Account(tags={"c": "d"}), **PLAIN).result()
    )
    assert tagged.tags == {"c": "d"}

    await asked(
        lambda: client.deployments.begin_create_or_update(
            "empty", "second-bank", "x", deployment(), **PLAIN
        ).result()
    )
    path = "/openai/v1/realtime?model=x"
    old = await asked(lambda: accounts.list_keys("empty", "second-bank", **PLAIN))
    new = await asked(lambda: accounts.regenerate_key("empty", "second-bank", "Key1", **PLAIN))
    assert (new.key2, new.key1 == old.key1) == (old.key2, False)
    assert (await greeting(server, path, {"api-key": new.key1}))["type"] == "session.created"
    async with ClientSession() as http:
        url = f"http://127.0.0.1:{server.port}{path}"
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        nonce = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        async with http.get(url, headers={**upgrade, **nonce, "api-key": old.key1}) as answer:
            assert answer.status == 401

    here = await asked(
        lambda: {(one.name, one.version) for one in accounts.list_models("empty", "second-bank", **PLAIN)}
    )
    assert (MODEL, VERSION) in here
    there = await asked(
        lambda: {(one.model.name, one.model.version) for one in client.models.list("eastus2", **PLAIN)}
    )
    assert there == here
    used = await asked(
        lambda: {one.name.value: one.current_value for one in client.usages.list("eastus2", **PLAIN)}
    )
    assert used["AccountCount"] == 3
    assert used[f"OpenAI.GlobalStandard.{MODEL}"] == 10
    month = await asked(lambda: accounts.list_usages("empty", "second-bank", **PLAIN))
    assert [one.name.value for one in month.value] == [
        "OpenAI.Requests",
        "OpenAI.InputTokens",
        "OpenAI.OutputTokens",
    ]
    assert await asked(
        lambda: [one.sku.name for one in accounts.list_skus("empty", "second-bank", **PLAIN).value]
    ) == ["S0"]
    assert await asked(lambda: {one.name for one in client.resource_skus.list(**PLAIN)}) == {"S0"}
    assert await asked(lambda: {one.is_data_action for one in client.operations.list(**PLAIN)}) == {False}

    await asked(lambda: client.deployments.begin_delete("empty", "second-bank", "x", **PLAIN).result())
    await asked(lambda: accounts.begin_delete("empty", "second-bank", **PLAIN).result())
    with pytest.raises(ResourceNotFoundError):
        await asked(lambda: accounts.get("empty", "second-bank", **PLAIN))


async def test_refusals_are_its_own_exceptions(server: Server, client: Any) -> None:
    def code(error: HttpResponseError) -> tuple[int | None, str]:
        assert error.error is not None
        return error.status_code, str(error.error.code)

    operations = client.deployments
    with pytest.raises(HttpResponseError) as refused:
        await asked(lambda: operations.begin_create_or_update(GROUP, ACCOUNT, "x", deployment("gpt-4o"), **PLAIN))
    assert code(refused.value)[0] == 400
    with pytest.raises(ResourceExistsError) as declared:
        await asked(lambda: operations.begin_delete(GROUP, "vivavoce", "gpt-4o-realtime-preview", **PLAIN))
    assert code(declared.value) == (409, "ReadOnlyResource")
    with pytest.raises(HttpResponseError) as conditional:
        await asked(
            lambda: operations.begin_create_or_update(
                GROUP, ACCOUNT, "x", deployment(), headers={"If-Match": '"none"'}, **PLAIN
            )
        )
    assert code(conditional.value) == (412, "PreconditionFailed")
    for make, status, reason in (
        (lambda: management_token("aaaaaaaa-0000-0000-0000-0000000000ff"), 403, "AuthorizationFailed"),
        (lambda: management_token(expires_s=-301), 401, "InvalidAuthenticationToken"),
        (lambda: management_token(tenant=OTHER_TENANT), 401, "InvalidAuthenticationTokenTenant"),
        (lambda: dev_token(OWNER), 401, "InvalidAuthenticationToken"),
    ):
        credential = Credential(make)
        with client_of(server, credential) as other, pytest.raises(HttpResponseError) as forbidden:
            await asked(partial(other.accounts.get, GROUP, ACCOUNT, **PLAIN))
        assert code(forbidden.value) == (status, reason)
        assert isinstance(forbidden.value, ClientAuthenticationError) == (status == 401)
        assert credential.scopes == ["https://management.azure.com/.default"]


async def test_a_fine_tuned_model_of_another_tenant_by_a_raw_request(server: Server) -> None:
    """As the service's page shows it: two tokens, and the source account in the model."""
    url = f"http://127.0.0.1:{server.port}{BANK}/deployments/tuned?api-version=2024-10-01"
    body = {
        "sku": {"name": "standard", "capacity": 1},
        "properties": {
            "model": {"format": "OpenAI", "name": TUNED, "version": "1", "sourceAccount": ABROAD_ACCOUNT}
        },
    }
    here = f"Bearer {management_token(CONTRIBUTOR)}"
    there = f"Bearer {management_token(ABROAD, tenant=OTHER_TENANT)}"
    async with ClientSession() as http:

        async def put(**headers: str) -> tuple[int, dict[str, Any]]:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async with http.put(url, json=body, headers=named) as answer:
                return answer.status, await answer.json()

        status, refused = await put(authorization=here)
        assert (status, refused["error"]["code"]) == (403, "LinkedAuthorizationFailed")
        status, refused = await put(authorization=there, x_ms_authorization_auxiliary=here)
        assert (status, refused["error"]["code"]) == (401, "InvalidAuthenticationTokenTenant")
        status, made = await put(authorization=here, x_ms_authorization_auxiliary=there)
        assert (status, made["properties"]["model"]["sourceAccount"]) == (201, ABROAD_ACCOUNT)
        status, _ = await put(authorization=here, x_ms_authorization_auxiliary=there)
        assert status == 200
    session = await greeting(server, "/openai/v1/realtime?model=tuned", {"api-key": BANK_KEY})
    assert session["session"]["model"] == f"{TUNED}-1"
