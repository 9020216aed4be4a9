"""Whatever is sent to the management API, it is answered: never by a bug, and a refusal changes nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

from arm_fakes import BANK, FAR, FINE_TUNED, GROUP, MINI, OTHER_TENANT, OWNER, REALTIME, SUB, TENANT, TUNING, Api
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.gateway.arm.routes import ROUTES
from vivavoce.gateway.resource import Directory

_SCALARS = st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats(allow_nan=False) | st.text(max_size=8)
_WORDS = st.sampled_from(
    [
        *(
            "GlobalStandard",
            "Standard",
            "ProvisionedManaged",
            "S0",
            "OpenAI",
            REALTIME,
            MINI,
            FINE_TUNED,
            "2024-12-17",
        ),
        *("NoAutoUpgrade", "Microsoft.Default", "teller", "eastus2", "key1", "Key2", BANK, FAR, TUNING, "User"),
        "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd",
    ]
)
_FIELDS = st.sampled_from(
    [
        *(
            "sku",
            "name",
            "capacity",
            "properties",
            "model",
            "format",
            "version",
            "sourceAccount",
            "tags",
            "location",
        ),
        *("kind", "versionUpgradeOption", "raiPolicyName", "spilloverDeploymentName", "keyName", "principalId"),
        *("roleDefinitionId", "principalType", "customSubDomainName", "etag", "id", "systemData"),
    ]
)
_JSON = st.recursive(
    _SCALARS | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS | st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)
_DEPLOYMENT = st.fixed_dictionaries(
    {
        "sku": st.fixed_dictionaries({"name": _WORDS}, optional={"capacity": _SCALARS}),
        "properties": st.fixed_dictionaries(
            {
                "model": st.fixed_dictionaries(
                    {"format": st.just("OpenAI"), "name": _WORDS},
                    optional={"version": _WORDS, "sourceAccount": _WORDS},
                )
            },
            optional={"versionUpgradeOption": _WORDS, "spilloverDeploymentName": _WORDS, "raiPolicyName": _WORDS},
        ),
    },
    optional={"tags": _JSON},
)
_BODIES = st.one_of(_JSON, _DEPLOYMENT).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=12)
_NAMES = {
    "subscription": st.sampled_from(["sub-1", "SUB-2", "sub-3", "none"]),
    "group": st.sampled_from(["voice", "empty", "none"]),
    "account": st.sampled_from(["bank", "house", "abroad", "fresh"]),
    "deployment": st.sampled_from(["teller", "old-hand"]) | st.text(min_size=1, max_size=6),
    "location": st.sampled_from(["eastus2", "East US 2", "nowhere"]),
    "scope": st.sampled_from(["", SUB, GROUP, BANK, f"{BANK}/deployments/teller"]),
}
_ANY = st.text(min_size=1, max_size=40) | st.just("12345678-0000-0000-0000-00000000000a")


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    route = draw(st.sampled_from(ROUTES))
    path = route.path.replace("/{scope}", draw(_NAMES["scope"]))
    while "{" in path:
        name = path[path.index("{") + 1 : path.index("}")]
        path = path.replace(f"{{{name}}}", quote(draw(_NAMES.get(name, _ANY)), safe=""), 1)
    headers = draw(
        st.dictionaries(
            st.sampled_from(["if-match", "if-none-match", "x-ms-authorization-auxiliary"]),
            st.sampled_from(["*", '"1"', "x", f"Bearer {OTHER_TENANT}/{OWNER}", ""]),
            max_size=2,
        )
    )
    query = draw(st.dictionaries(st.sampled_from(["$filter", "$skipToken"]), st.text(max_size=12), max_size=1))
    return {
        "method": draw(st.sampled_from([route.method, route.method, "PUT", "PATCH", "POST"])),
        "path": path,
        "body": draw(_BODIES),
        "tenant": draw(st.sampled_from([TENANT, TENANT, OTHER_TENANT])),
        "headers": headers,
        "query": query,
    }


def outline(directory: Directory) -> list[object]:
    accounts = [(one.id, one.etag, directory.deployments(one.id)) for one in directory.accounts]
    return [accounts, directory.assignments]


@given(st.lists(requests(), min_size=1, max_size=6))
def test_everything_is_answered(asked: list[dict[str, Any]]) -> None:
    async def run() -> None:
        api = Api()
        for one in asked:
            before = outline(api.store.current)
            answer = await api.ask(**one)
            assert answer.status < 500 or answer.body["error"]["code"] == "ServiceUnavailable", answer
            json.dumps(answer.body)
            if answer.status >= 400:
                assert set(answer.body["error"]) <= {"code", "message", "target", "details"}
                assert outline(api.store.current) == before

    asyncio.run(run())
