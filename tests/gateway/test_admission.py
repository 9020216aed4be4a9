from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from vivavoce.gateway.admission import (
    API_VERSIONS,
    Admission,
    AdmissionPolicy,
    UpgradeRequest,
    chosen_subprotocol,
    client_request_id,
    locate,
)
from vivavoce.gateway.admission import admit as decide
from vivavoce.gateway.deployments import Catalogue, Deployment
from vivavoce.gateway.principals import Identities, Keys
from vivavoce.gateway.resource import DeploymentRecord, Directory, Model, Sku
from vivavoce.testing.directories import one_account
from vivavoce.wire.dialects.profiles import GA_PROFILES, PROFILES
from vivavoce.wire.refusals import RefusedHandshake, RefusedSession

Pairs = tuple[tuple[str, str], ...]


def deployment(name: str, model: str, version: str, profile: str = "") -> Deployment:
    return Deployment(
        name=name, model=model, version=version, profile=profile, conversation_created=True,
        strict=True, instructions="", heard_text=True, engines={}, tokens_per_minute=1, requests_per_minute=1,
    )  # fmt: skip


VOICE = deployment("voice", "gpt-4o-realtime-preview", "2024-10-01")
NEWER = deployment("newer", "gpt-4o-realtime-preview", "2024-12-17")
MINI = deployment("mini", "gpt-4o-mini-realtime-preview", "")
DIRECTORY = one_account("good", "other")


def offering(catalogue: Catalogue) -> Callable[[str], Catalogue]:
    """In every account."""
    return lambda _: catalogue


POLICY = AdmissionPolicy(offering(Catalogue([VOICE, NEWER, MINI])), DIRECTORY)
IDENTITIES = Identities([Keys(DIRECTORY)])

KEY: Pairs = (("api-key", "good"),)
BEARER: Pairs = (("Authorization", "Bearer good"),)
BETA: Pairs = (("OpenAI-Beta", "realtime=v1"),)
AZURE: Pairs = (("api-version", "2024-10-01-preview"), ("deployment", "voice"))
TRANSCRIPTION: Pairs = (("intent", "transcription"),)
ELEVEN: Pairs = tuple((f"x-mine-{n}", "1") for n in range(11))


def azure(query: Pairs = AZURE, headers: Pairs = KEY, subprotocols: tuple[str, ...] = ()) -> UpgradeRequest:
    return UpgradeRequest("/openai/realtime", query, headers, subprotocols)


def openai(
    query: Pairs = (("model", "voice"),), headers: Pairs = BEARER + BETA, subprotocols: tuple[str, ...] = ()
) -> UpgradeRequest:
    return UpgradeRequest("/v1/realtime", query, headers, subprotocols)


def azure_ga(query: Pairs = (("model", "voice"),), headers: Pairs = KEY) -> UpgradeRequest:
    return UpgradeRequest("/openai/v1/realtime", query, headers)


def admit(request: UpgradeRequest, policy: AdmissionPolicy, identities: Identities = IDENTITIES) -> Admission:
    located = locate(request, policy)
    return decide(located, asyncio.run(identities.of(located.offered)), policy)


# ----------------------------------------------------------------------------------------------------- admitted

ADMITTED = {
    "azure, key header": (azure(), VOICE),
    "azure, key query": (azure((*AZURE, ("api-key", "good")), ()), VOICE),
    "azure, bearer header": (azure(AZURE, BEARER), VOICE),
    "azure, bearer query": (azure((*AZURE, ("Authorization", "Bearer good")), ()), VOICE),
    "azure, key subprotocol": (azure(AZURE, (), ("realtime", "openai-insecure-api-key.good")), VOICE),
    "azure, any order": (azure(AZURE[::-1]), VOICE),
    "azure, unknown parameters": (azure((("x", "y"), *AZURE, ("model", "mini"))), VOICE),
    "azure, beta header as openai-python sends it": (azure(AZURE, KEY + BETA), VOICE),
    "azure, first of repeated parameters": (azure((*AZURE, ("deployment", "mini"))), VOICE),
    "azure, one bad key beside a good one": (azure(AZURE, (("api-key", "bad"), *BEARER)), VOICE),
    "azure, trailing slash": (UpgradeRequest("/openai/realtime/", AZURE, KEY), VOICE),
    "azure, ten custom headers": (azure(AZURE, KEY + ELEVEN[:10]), VOICE),
    "azure, another intent": (azure((*AZURE, ("intent", "conversation"))), VOICE),
    "openai, deployment name": (openai(), VOICE),
    "openai, model name": (openai((("model", "gpt-4o-realtime-preview"),)), VOICE),
    "openai, reported model": (openai((("model", "gpt-4o-realtime-preview-2024-12-17"),)), NEWER),
    "openai, model without version": (openai((("model", "gpt-4o-mini-realtime-preview"),)), MINI),
    "openai, api-key header": (openai(headers=KEY + BETA), VOICE),
    "openai, browser": (
        openai(headers=(), subprotocols=("realtime", "openai-insecure-api-key.good", "openai-beta.realtime-v1")),
        VOICE,
    ),
    "openai, several betas": (openai(headers=(*BEARER, ("openai-beta", "assistants=v2, realtime=v1"))), VOICE),
    "openai, betas on two lines": (openai(headers=(*BEARER, ("OpenAI-Beta", "assistants=v2"), *BETA)), VOICE),
    "openai, as many headers as one likes": (openai(headers=BEARER + BETA + ELEVEN), VOICE),
    "openai, Twilio's parameters": (
        openai((("model", "voice"), ("temperature", "0.8"), ("voice", "alloy"))), VOICE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ADMITTED)
def test_admitted(case: str) -> None:
    request, expected = ADMITTED[case]
    admission = admit(request, POLICY)
    assert admission.deployment is expected
    assert admission.dialect == "preview"
    assert admission.principal == admit(azure(), POLICY).principal


GA = {
    "azure, key header": (azure_ga(), "azure-ga"),
    "azure, bearer header": (azure_ga(headers=BEARER), "azure-ga"),
    "azure, the beta header changes nothing": (azure_ga(headers=KEY + BETA), "azure-ga"),
    "azure, an api-version changes nothing": (
        azure_ga((("api-version", "2024-10-01-preview"), ("model", "voice"))), "azure-ga",
    ),
    "openai": (openai(headers=BEARER), "openai-ga"),
    "openai, another beta": (openai(headers=(*BEARER, ("OpenAI-Beta", "assistants=v2"))), "openai-ga"),
    "openai, browser": (
        openai(headers=(), subprotocols=("realtime", "openai-insecure-api-key.good")), "openai-ga",
    ),
    "openai, model name": (openai((("model", "gpt-4o-realtime-preview"),), BEARER), "openai-ga"),
}  # fmt: skip


@pytest.mark.parametrize("case", GA)
def test_the_ga_dialect(case: str) -> None:
    request, profile = GA[case]
    admission = admit(request, POLICY)
    assert (admission.deployment, admission.dialect, admission.profile) == (VOICE, "ga", profile)


@pytest.mark.parametrize("pinned", GA_PROFILES)
def test_a_profile_is_pinned_for_its_dialect_alone(pinned: str) -> None:
    policy = of_version("2024-12-17", pinned)
    assert {admit(request, policy).profile for request in (azure_ga(), openai(headers=BEARER))} == {pinned}
    assert admit(of_api_version("2024-12-17"), policy).profile == "azure-2024-12-17"
    preview = of_version("2024-12-17", "azure-2024-10-01")
    assert admit(azure_ga(), preview).profile == "azure-ga"
    assert admit(openai(headers=BEARER), preview).profile == "openai-ga"


@pytest.mark.parametrize("request_", [azure_ga(TRANSCRIPTION), openai(TRANSCRIPTION, BEARER)])
def test_a_ga_transcription_session_is_served_by_the_first(request_: UpgradeRequest) -> None:
    old = replace(VOICE, profile="azure-2024-10-01")
    policy = replace(POLICY, catalogue=offering(Catalogue([old, NEWER])))
    assert (admit(request_, policy).deployment, admit(request_, policy).kind) == (old, "transcription")


@pytest.mark.parametrize("version", API_VERSIONS)
def test_every_known_api_version_is_admitted(version: str) -> None:
    assert admit(azure((("api-version", version), ("deployment", "mini"))), POLICY).deployment is MINI


def of_version(version: str, profile: str = "") -> AdmissionPolicy:
    return replace(POLICY, catalogue=offering(Catalogue([deployment("voice", "m", version, profile)])))


def of_api_version(version: str) -> UpgradeRequest:
    return azure((("api-version", version), ("deployment", "voice")))


@pytest.mark.parametrize("api_version", ["2024-10-01-preview", "2024-12-17"])
@pytest.mark.parametrize(
    ("version", "profile"),
    [
        ("2024-10-01", "azure-2024-10-01"),
        ("2024-12-16", "azure-2024-10-01"),
        ("2024-12-17", "azure-2024-12-17"),
        ("2025-03-31", "azure-2024-12-17"),
        ("2025-04-01", "azure-2025-04"),
        ("2025-06-03", "azure-2025-04"),
        ("1", "azure-2024-12-17"),
        ("", "azure-2024-12-17"),
    ],
)
def test_an_old_api_version_leaves_the_profile_to_the_model(api_version: str, version: str, profile: str) -> None:
    assert admit(of_api_version(api_version), of_version(version)).profile == profile
    assert profile in PROFILES


@pytest.mark.parametrize("request_", [of_api_version("2025-04-01-preview"), openai()], ids=["azure", "openai"])
@pytest.mark.parametrize("version", ["2024-10-01", "2024-12-17", ""])
def test_clients_of_2025_get_the_profile_of_2025(request_: UpgradeRequest, version: str) -> None:
    assert admit(request_, of_version(version)).profile == "azure-2025-04"


@pytest.mark.parametrize("request_", [*map(of_api_version, API_VERSIONS), openai()])
@pytest.mark.parametrize("pinned", PROFILES)
def test_a_pinned_profile_stays(request_: UpgradeRequest, pinned: str) -> None:
    assert admit(request_, of_version("2024-12-17", pinned)).profile == pinned


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        ((), None),
        (("realtime",), "realtime"),
        (("openai-beta.realtime-v1", "realtime"), "realtime"),
        (("openai-beta.realtime-v1",), None),
        (("Realtime",), None),
    ],
)
def test_only_the_subprotocol_realtime_is_answered(offered: tuple[str, ...], answer: str | None) -> None:
    assert chosen_subprotocol(offered) == answer


@pytest.mark.parametrize(
    ("header", "query", "expected"),
    [
        (None, None, None),
        ("a-1", None, "a-1"),
        (None, "b-2", "b-2"),
        ("a-1", "b-2", "a-1"),
        ("", "b-2", "b-2"),
        ("x" * 128, None, "x" * 128),
        ("x" * 129, None, None),
        ("two words", None, None),
        (None, "line\nbreak", None),
        (None, "é", None),
    ],
)
def test_the_callers_request_id(header: str | None, query: str | None, expected: str | None) -> None:
    name = "x-ms-client-request-id"
    headers = KEY if header is None else (*KEY, (name.title(), header))
    parameters = AZURE if query is None else (*AZURE, (name, query))
    assert client_request_id(azure(parameters, headers)) == expected


def test_principals_differ_by_key() -> None:
    one, other = admit(azure(), POLICY), admit(azure(headers=(("api-key", "other"),)), POLICY)
    assert one.principal != other.principal


# ------------------------------------------------------------------------------------- refused before the upgrade

NO_KEY: Pairs = ()
HANDSHAKE = {
    "unknown path": (UpgradeRequest("/openai/deployments", AZURE, KEY), 404, "404"),
    "root": (UpgradeRequest("/", AZURE, KEY), 404, "404"),
    "path in capitals": (UpgradeRequest("/OpenAI/Realtime", AZURE, KEY), 404, "404"),
    "azure, no upgrade": (replace(azure(), is_upgrade=False), 426, "UpgradeRequired"),
    "openai, no upgrade": (replace(openai(), is_upgrade=False), 426, "UpgradeRequired"),
    "azure, eleven custom headers": (azure(headers=KEY + ELEVEN), 431, "431"),
    "azure GA, eleven custom headers": (UpgradeRequest("/openai/v1/realtime", (), KEY + ELEVEN), 431, "431"),
    "azure, no key": (azure(headers=NO_KEY), 401, "401"),
    "azure, bad key": (azure(headers=(("api-key", "bad"),)), 401, "401"),
    "azure, empty key": (azure(headers=(("api-key", ""),)), 401, "401"),
    "azure, bad bearer": (azure(headers=(("Authorization", "Bearer bad"),)), 401, "401"),
    "azure, key in capitals": (azure(headers=(("api-key", "GOOD"),)), 401, "401"),
    "azure GA, bad key": (UpgradeRequest("/openai/v1/realtime", (("model", "voice"),), ()), 401, "401"),
    "azure GA, no model": (azure_ga(()), 404, "DeploymentNotFound"),
    "azure GA, unknown model": (azure_ga((("model", "x"),)), 404, "DeploymentNotFound"),
    "azure GA, deployment instead of model": (azure_ga((("deployment", "voice"),)), 404, "DeploymentNotFound"),
    "azure GA, model name is no deployment": (
        azure_ga((("model", "gpt-4o-realtime-preview"),)), 404, "DeploymentNotFound",
    ),
    "azure GA, sideband": (
        azure_ga((("model", "voice"), ("call_id", "rtc_1"))), 400, "OpperationNotSupported",
    ),
    "azure, no api-version": (azure((("deployment", "voice"),)), 404, "404"),
    "azure, unknown api-version": (azure((("api-version", "2023-01-01"), ("deployment", "voice"))), 404, "404"),
    "azure, no deployment": (azure(AZURE[:1]), 404, "DeploymentNotFound"),
    "azure, unknown deployment": (azure((*AZURE[:1], ("deployment", "x"))), 404, "DeploymentNotFound"),
    "azure, model instead of deployment": (azure((*AZURE[:1], ("model", "voice"))), 404, "DeploymentNotFound"),
    "azure, model name is no deployment": (
        azure((*AZURE[:1], ("deployment", "gpt-4o-realtime-preview"))), 404, "DeploymentNotFound",
    ),
    "azure, transcription": (azure((*AZURE, ("intent", "transcription"))), 400, "OpperationNotSupported"),
}  # fmt: skip


@pytest.mark.parametrize("case", HANDSHAKE)
def test_refused_before_the_upgrade(case: str) -> None:
    request, status, code = HANDSHAKE[case]
    with pytest.raises(RefusedHandshake) as refusal:
        admit(request, POLICY)
    assert (refusal.value.status, refusal.value.code) == (status, code)


# -------------------------------------------------------------------------------------- refused after the upgrade

SESSION = {
    "openai, no key": (openai(headers=BETA), 3000, None),
    "openai, bad key": (openai(headers=(*BETA, ("Authorization", "Bearer bad"))), 3000, "invalid_api_key"),
    "openai, bad key of a browser": (
        openai(headers=BETA, subprotocols=("realtime", "openai-insecure-api-key.bad")), 3000, "invalid_api_key",
    ),
    "openai, basic": (openai(headers=(*BETA, ("Authorization", "Basic good"))), 3000, None),
    "openai, no model": (openai(()), 4000, "missing_model"),
    "openai, empty model": (openai((("model", ""),)), 4000, "missing_model"),
    "openai, unknown model": (openai((("model", "gpt-4"),)), 4000, "invalid_model"),
    "openai, deployment instead of model": (openai((("deployment", "voice"),)), 4000, "missing_model"),
    "openai GA, no key": (openai(headers=()), 3000, None),
    "openai GA, no model": (openai((), BEARER), 4000, "missing_model"),
    "openai GA, sideband": (openai((("call_id", "rtc_1"),), BEARER), 4000, "unsupported_api_shape"),
    "openai, transcription of an unknown model": (
        openai((("model", "x"), ("intent", "transcription"))), 4000, "invalid_model",
    ),
    "openai, sideband": (openai((("call_id", "rtc_1"),)), 4000, "unsupported_api_shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", SESSION)
def test_refused_after_the_upgrade(case: str) -> None:
    request, close_code, code = SESSION[case]
    with pytest.raises(RefusedSession) as refusal:
        admit(request, POLICY)
    assert (refusal.value.close_code, refusal.value.error.code) == (close_code, code)
    assert refusal.value.error.message


# --------------------------------------------------------------------------------------------- order and policy

WRONG: list[tuple[str, UpgradeRequest]] = [
    ("404", UpgradeRequest("/x", (), ELEVEN, is_upgrade=False)),
    ("UpgradeRequired", UpgradeRequest("/openai/realtime", (), ELEVEN, is_upgrade=False)),
    ("431", UpgradeRequest("/openai/realtime", (), ELEVEN)),
    ("401", UpgradeRequest("/openai/realtime", (("intent", "transcription"),), ())),
    ("404", UpgradeRequest("/openai/realtime", (("intent", "transcription"),), KEY)),
    (
        "DeploymentNotFound",
        UpgradeRequest("/openai/realtime", (*AZURE[:1], ("deployment", "x"), ("intent", "transcription")), KEY),
    ),
    ("OpperationNotSupported", UpgradeRequest("/openai/realtime", (*AZURE, ("intent", "transcription")), KEY)),
    ("DeploymentNotFound", UpgradeRequest("/openai/realtime", AZURE[:1], KEY)),
]


@pytest.mark.parametrize(("code", "request_"), WRONG)
def test_the_first_fault_in_order_is_told(code: str, request_: UpgradeRequest) -> None:
    with pytest.raises(RefusedHandshake) as refusal:
        admit(request_, POLICY)
    assert refusal.value.code == code


LATEST: Pairs = (("api-version", "2025-04-01-preview"),)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (azure((*LATEST, *TRANSCRIPTION)), VOICE),
        (azure((*LATEST, *TRANSCRIPTION, ("deployment", ""))), VOICE),
        (azure((*LATEST, *TRANSCRIPTION, ("deployment", "mini"))), MINI),
        (openai(TRANSCRIPTION), VOICE),
        (openai((*TRANSCRIPTION, ("model", "mini"))), MINI),
    ],
)
def test_transcription_sessions_need_to_name_no_deployment(request_: UpgradeRequest, expected: Deployment) -> None:
    admission = admit(request_, POLICY)
    assert (admission.deployment, admission.kind, admission.profile) == (expected, "transcription", "azure-2025-04")
    assert admit(azure(), POLICY).kind == "realtime"


def test_a_transcription_session_that_names_no_deployment_gets_the_first_that_can() -> None:
    old = deployment("old", "m", "", "azure-2024-12-17")
    new = deployment("new", "m", "", "azure-2025-04")
    policy = replace(POLICY, catalogue=offering(Catalogue([old, new, VOICE])))
    assert admit(openai(TRANSCRIPTION), policy).deployment is new
    assert admit(azure((*LATEST, *TRANSCRIPTION)), policy).deployment is new
    with pytest.raises(RefusedSession) as refusal:
        admit(openai((*TRANSCRIPTION, ("model", "old"))), policy)
    assert (refusal.value.close_code, refusal.value.error.code) == (4000, "unsupported_api_shape")
    only_old = replace(POLICY, catalogue=offering(Catalogue([old])))
    with pytest.raises(RefusedHandshake) as refused:
        admit(azure((*LATEST, *TRANSCRIPTION)), only_old)
    assert (refused.value.status, refused.value.code) == (400, "OpperationNotSupported")


def test_the_limit_of_custom_headers_is_the_policys() -> None:
    policy = replace(POLICY, max_custom_headers=0)
    assert isinstance(admit(azure(), policy), Admission)
    with pytest.raises(RefusedHandshake, match="at most 0 custom headers"):
        admit(azure(headers=KEY + ELEVEN[:1]), policy)


def test_subprotocol_keys_are_the_policys_choice() -> None:
    request = azure(headers=(), subprotocols=("openai-insecure-api-key.good",))
    with pytest.raises(RefusedHandshake, match="Access denied"):
        admit(request, replace(POLICY, subprotocol_keys=False))


def test_nothing_shows_a_key() -> None:
    request = azure((("api-key", "s3cret"),), (("api-key", "s3cret"),), ("openai-insecure-api-key.s3cret",))
    identities = Identities([Keys(one_account("s3cret"))])
    assert "s3cret" not in repr(request) + repr(locate(replace(request, query=AZURE), POLICY))
    known = replace(request, query=(*AZURE, *request.query))
    assert "s3cret" not in repr(admit(known, POLICY, identities))
    with pytest.raises(RefusedSession) as refusal:
        admit(openai(headers=(*BETA, ("Authorization", "Bearer s3cret"))), POLICY)
    assert "s3cret" not in f"{refusal.value} {refusal.value.error}"


# ------------------------------------------------------------------------------------------------- retired models


def test_a_deployment_whose_model_is_retired() -> None:
    account = DIRECTORY().accounts[0]
    records = [
        DeploymentRecord(
            account=account.id,
            name=one.name,
            sku=Sku("GlobalStandard", 1),
            model=Model(one.model, one.version),
            recipe="r",
        )
        for one in (VOICE, NEWER)
    ]
    directory = Directory([account], keys=DIRECTORY().keys(account.id), deployments=records)
    policy = replace(
        POLICY,
        directory=lambda: directory,
        has_ended=lambda record: record.model.version == "2024-10-01",
    )
    for request in (azure(), azure_ga()):
        with pytest.raises(RefusedHandshake) as refused:
            admit(request, policy)
        assert (refused.value.status, refused.value.code) == (410, "ModelDeprecated")
    with pytest.raises(RefusedSession) as told:
        admit(openai(), policy)
    assert (told.value.close_code, told.value.error.code) == (4004, "model_not_found")
    assert "gpt-4o-realtime-preview-2024-10-01" in told.value.error.message
    assert admit(azure((*AZURE[:1], ("deployment", "newer"))), policy).deployment is NEWER
    assert admit(azure((*AZURE[:1], ("deployment", "mini"))), policy).deployment is MINI
