"""Which sessions a client secret opens, and which it does not."""

from __future__ import annotations

from typing import Literal

import pytest

from vivavoce.gateway.admission import Admission, AdmissionPolicy, UpgradeRequest, admit, locate
from vivavoce.gateway.client_secrets import Grant
from vivavoce.gateway.deployments import Catalogue, Deployment
from vivavoce.gateway.principals import Principal
from vivavoce.testing.directories import one_account
from vivavoce.wire.refusals import Refused, RefusedHandshake, RefusedSession
from vivavoce.wire.session_config import SessionKind

BETA = (("OpenAI-Beta", "realtime=v1"),)
TRANSCRIPTION = ("intent", "transcription")
VERSION = ("api-version", "2025-04-01-preview")


def deployment(name: str, profile: str = "") -> Deployment:
    return Deployment(
        name=name, model="m", version="1", profile=profile, conversation_created=True, strict=True,
        instructions="", heard_text=True, engines={}, tokens_per_minute=1, requests_per_minute=1,
    )  # fmt: skip


VOICE, OTHER, OLD = deployment("voice"), deployment("other"), deployment("old", "azure-2024-10-01")
CATALOGUE = Catalogue([OTHER, VOICE, OLD])
POLICY = AdmissionPolicy(lambda account: CATALOGUE, one_account())


def grant(dialect: Literal["preview", "ga"] = "ga", kind: SessionKind = "realtime", name: str = "voice") -> Grant:
    return Grant(
        account="a", deployment=name, dialect=dialect, kind=kind, body=b"{}", expires_at=0, minted_by="key:1"
    )


def connect(
    path: str,
    *query: tuple[str, str],
    headers: tuple[tuple[str, str], ...] = (),
    to: Grant,
    offered: tuple[str, ...] = (),
) -> Admission:
    request = UpgradeRequest(path, query, headers, offered)
    who = Principal(kind="ephemeral", id="ephemeral:1", grant=to)
    return admit(locate(request, POLICY), who, POLICY)


OPENED = {
    "openai": ("/v1/realtime", (("model", "voice"),), (), grant()),
    "openai, no model": ("/v1/realtime", (), (), grant()),
    "openai preview": ("/v1/realtime", (("model", "voice"),), BETA, grant("preview")),
    "openai preview, no model": ("/v1/realtime", (), BETA, grant("preview")),
    "azure GA": ("/openai/v1/realtime", (("model", "voice"),), (), grant()),
    "azure GA, no model": ("/openai/v1/realtime", (), (), grant()),
    "azure": ("/openai/realtime", (VERSION, ("deployment", "voice")), (), grant("preview")),
    "azure, no deployment": ("/openai/realtime", (VERSION,), (), grant("preview")),
    "transcription": ("/v1/realtime", (TRANSCRIPTION,), (), grant(kind="transcription")),
    "transcription that nobody names": ("/v1/realtime", (), (), grant(kind="transcription")),
    "transcription, which is for any deployment": (
        "/v1/realtime",
        (("model", "voice"), TRANSCRIPTION),
        (),
        grant(kind="transcription", name=""),
    ),
    "preview transcription": ("/openai/realtime", (VERSION, TRANSCRIPTION), (), grant("preview", "transcription")),
}


@pytest.mark.parametrize("case", OPENED)
def test_a_secret_opens_what_it_was_minted_for(case: str) -> None:
    path, query, headers, to = OPENED[case]
    admission = connect(path, *query, headers=headers, to=to)
    assert (admission.deployment, admission.grant) == (VOICE, to)
    assert (admission.dialect, admission.kind) == (to.dialect, to.kind)


MISMATCH = "API version mismatch. You cannot start a Realtime {} session with a {} client secret."
REFUSED: dict[str, tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...], Grant, int, str, str]] = {
    "openai, beta session": (
        "/v1/realtime", (("model", "voice"),), BETA, grant(), 4000, "api_version_mismatch",
        MISMATCH.format("beta", "GA"),
    ),
    "openai, GA session": (
        "/v1/realtime", (), (), grant("preview"), 4000, "api_version_mismatch", MISMATCH.format("GA", "beta"),
    ),
    "openai, another model": (
        "/v1/realtime", (("model", "other"),), (), grant(), 4004, "model_not_found",
        "This client secret is not for the model 'other'.",
    ),
    "openai, a model that there is not": (
        "/v1/realtime", (("model", "x"),), (), grant(), 4000, "invalid_model",
        'Model "x" is not supported in realtime mode.',
    ),
    "openai, transcription": (
        "/v1/realtime", (TRANSCRIPTION,), (), grant(), 4000, "session_type_mismatch",
        "You cannot start a transcription session with a client secret for realtime sessions.",
    ),
    "openai, a deployment that is gone": (
        "/v1/realtime", (), (), grant(name="gone"), 4000, "invalid_model",
        'Model "gone" is not supported in realtime mode.',
    ),
    "azure, GA secret": (
        "/openai/realtime", (VERSION, ("deployment", "voice")), (), grant(), 400, "OpperationNotSupported",
        MISMATCH.format("beta", "GA"),
    ),
    "azure GA, preview secret": (
        "/openai/v1/realtime", (), (), grant("preview"), 400, "OpperationNotSupported",
        MISMATCH.format("GA", "beta"),
    ),
    "azure, another deployment": (
        "/openai/realtime", (VERSION, ("deployment", "other")), (), grant("preview"), 404, "DeploymentNotFound", "",
    ),
    "azure GA, another deployment": (
        "/openai/v1/realtime", (("model", "other"),), (), grant(), 404, "DeploymentNotFound", "",
    ),
    "azure, no api-version": ("/openai/realtime", (), (), grant("preview"), 404, "404", ""),
    "azure GA, transcription": (
        "/openai/v1/realtime", (TRANSCRIPTION,), (), grant(), 400, "OpperationNotSupported",
        "You cannot start a transcription session with a client secret for realtime sessions.",
    ),
    "azure, transcription on an old profile": (
        "/openai/realtime", (VERSION,), (), grant("preview", "transcription", "old"), 400,
        "OpperationNotSupported", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_secret_opens_nothing_else(case: str) -> None:
    path, query, headers, to, status, code, message = REFUSED[case]
    with pytest.raises(Refused) as refusal:
        connect(path, *query, headers=headers, to=to)
    refused = refusal.value
    if isinstance(refused, RefusedSession):
        assert (refused.close_code, refused.error.code) == (status, code)
    else:
        assert isinstance(refused, RefusedHandshake)
        assert (refused.status, refused.code) == (status, code)
    assert str(refused).startswith(message)


def test_the_beta_subprotocol_of_a_browser_asks_for_a_beta_session() -> None:
    with pytest.raises(RefusedSession) as refusal:
        connect("/v1/realtime", to=grant(), offered=("realtime", "openai-beta.realtime-v1"))
    assert refusal.value.reason == "invalid_request_error.api_version_mismatch"
