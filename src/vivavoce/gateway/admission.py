"""May this upgrade request become a session, and of which deployment? Two pure decisions over data.

:func:`locate` looks at the request alone; who asks is then found out by ``gateway.principals``, which takes time;
:func:`admit` decides the rest. The order of the checks, which is the order of the refusals that a caller sees:

1. the path is one of ours, and this is a WebSocket upgrade;
2. Azure paths: no more custom request headers than allowed (431);
3. who asks: without a good key or token nobody learns what exists here; a token must be of the account's tenant,
   and its holder have a role that opens what was asked for;
4. calls, which this version does not join;
5. ``api-version`` (Azure preview path), then the deployment;
6. a transcription session: whether the profile has such.

Azure paths are refused before the upgrade (``RefusedHandshake``); the OpenAI path is upgraded first and then told
(``RefusedSession``), as their services do (protocol section 1.3). Unknown query parameters are ignored; of a
repeated one the first counts. A transcription session (``intent=transcription``) needs to name no deployment; the
first serves it, in the preview the first that is not pinned to an older profile.

The path chooses the dialect, and on the OpenAI path, which both share, the beta header or subprotocol: with it the
preview, without it GA (protocol section 1.1).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from vivavoce.gateway.auth import Credential, credentials
from vivavoce.gateway.deployments import Catalogue, Deployment
from vivavoce.gateway.headers import custom_headers, returned_headers
from vivavoce.gateway.principals import Principal, Unknown
from vivavoce.gateway.resource import Account, Directory, deployment_id, host_label, id_key
from vivavoce.gateway.roles import REALTIME, allowed
from vivavoce.wire import errors
from vivavoce.wire.dialects import profiles
from vivavoce.wire.session_config import SessionKind

AZURE_PREFIX: Final = "/openai/"
AZURE_PREVIEW_PATH: Final = "/openai/realtime"
AZURE_GA_PATH: Final = "/openai/v1/realtime"
OPENAI_PATH: Final = "/v1/realtime"
REALTIME_PATHS: Final = (AZURE_PREVIEW_PATH, AZURE_GA_PATH, OPENAI_PATH)

API_VERSIONS: Final = ("2024-10-01-preview", "2024-12-17", "2025-04-01-preview")
_NEWEST_API_VERSION: Final = API_VERSIONS[-1]

SUBPROTOCOL: Final = "realtime"
BETA_SUBPROTOCOL: Final = "openai-beta.realtime-v1"
_BETA_HEADER: Final = "realtime=v1"

UNAVAILABLE_RETRY_S: Final = 5
"""Seconds after which somebody may ask again whose issuer could not be reached."""

Dialect: TypeAlias = Literal["preview", "ga"]

_CLIENT_REQUEST_ID: Final = "x-ms-client-request-id"
# It is echoed and logged: nothing that could break a header or a log line.
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What an HTTP request says, decoded. Its ``repr`` holds the path alone, for the rest may hold keys."""

    path: str
    query: Sequence[tuple[str, str]] = field(default=(), repr=False)
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    subprotocols: Sequence[str] = field(default=(), repr=False)
    """As offered, in order."""
    is_upgrade: bool = True
    """It asks for a WebSocket."""

    def parameter(self, name: str) -> str:
        """The first value of a query parameter; empty when there is none."""
        return next((value for key, value in self.query if key == name), "")

    def header(self, name: str) -> str:
        """All values of a header, joined by commas; ``name`` in lower case."""
        return ", ".join(value for key, value in self.headers if key.lower() == name)


@dataclass(frozen=True, slots=True)
class Admission:
    """A session may begin."""

    deployment: Deployment
    principal: Principal
    profile: str
    """The edition of the service that this session reproduces; it has one dialect (``wire.dialects.profiles``)."""
    returned_headers: tuple[tuple[str, str], ...] = ()
    """See :func:`returned_headers`."""
    dialect: Dialect = "preview"
    kind: SessionKind = "realtime"


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What the decision rests on."""

    catalogue: Catalogue
    directory: Callable[[], Directory]
    """As it is now."""
    max_custom_headers: int = 10
    subprotocol_keys: bool = True
    audience: str = "https://cognitiveservices.azure.com"
    """That a token must have; refusals name it."""


@dataclass(frozen=True, slots=True)
class Located:
    """A request that a realtime path may answer; who asks is not known yet."""

    request: UpgradeRequest
    path: str
    """One of :data:`REALTIME_PATHS`."""
    offered: tuple[Credential, ...]
    account: Account | None
    """The one that the Host header names, if it names one."""


def locate(request: UpgradeRequest, policy: AdmissionPolicy) -> Located:
    """The checks before anybody asks who it is. Raises ``RefusedHandshake``."""
    path = request.path.rstrip("/")
    if path not in REALTIME_PATHS:
        raise errors.resource_not_found()
    if not request.is_upgrade:
        raise errors.upgrade_required()
    if path != OPENAI_PATH and len(custom_headers(request.headers)) > policy.max_custom_headers:
        raise errors.too_many_headers(policy.max_custom_headers)
    offered = credentials(
        request.query, request.headers, request.subprotocols, subprotocol_keys=policy.subprotocol_keys
    )
    account = policy.directory().account_of_host(host_label(request.header("host")))
    return Located(request, path, offered, account)


def admit(located: Located, who: Principal | Unknown, policy: AdmissionPolicy) -> Admission:
    """Decide. Raises ``RefusedHandshake`` or ``RefusedSession``. The upgrade is answered with
    :func:`chosen_subprotocol` in any case, or a browser would never see the error.
    """
    request, path = located.request, located.path
    if isinstance(who, Unknown):
        raise nobody(who, policy.audience, azure=path != OPENAI_PATH)
    dialect = _dialect(request, path)
    kind: SessionKind = "transcription" if request.parameter("intent") == "transcription" else "realtime"
    if who.is_token:
        _check_token(located, who, kind, policy)
    if path != AZURE_PREVIEW_PATH and request.parameter("call_id"):
        raise _unsupported(path, "Joining a call (call_id) is not supported by this server.")
    deployment = _DEPLOYMENT_AT[path](request, policy.catalogue, kind)
    profile = _ga_profile(path, deployment) if dialect == "ga" else _profile(request, path, deployment)
    if kind == "transcription" and not profiles.transcribes(profile):
        raise _unsupported(
            path,
            "Transcription sessions (intent=transcription) are of the later preview. Connect with "
            f"api-version={_NEWEST_API_VERSION}, to a deployment that is not pinned to an older profile.",
        )
    return Admission(
        deployment=deployment,
        profile=profile,
        dialect=dialect,
        kind=kind,
        principal=who,
        returned_headers=tuple(returned_headers(request.headers)) if path == AZURE_PREVIEW_PATH else (),
    )


def chosen_subprotocol(offered: Sequence[str]) -> str | None:
    """``realtime`` where it was offered. Browsers fail on an answer that they did not offer."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def nobody(who: Unknown, audience: str, *, azure: bool) -> errors.Refused:
    """How somebody is refused whom we do not know. ``audience``: that a token should have had; ``azure``: before
    the upgrade."""
    match who.fault:
        case "missing":
            return errors.access_denied() if azure else errors.missing_bearer()
        case "unknown":
            assert who.offered is not None
            return errors.access_denied() if azure else errors.incorrect_api_key(who.offered.value)
        case "token" | "claims":
            return errors.invalid_token(audience) if azure else errors.invalid_token_session()
        case "throttled":
            wait_s = math.ceil(who.retry_after_s)
            return errors.too_many_failures(wait_s) if azure else errors.too_many_failures_session(wait_s)
        case "unavailable":
            return (
                errors.identity_unavailable(UNAVAILABLE_RETRY_S) if azure else errors.identity_unavailable_session()
            )


def _check_token(located: Located, who: Principal, kind: SessionKind, policy: AdmissionPolicy) -> None:
    """Of the account's tenant, and with a role for what it asks for, be it there or not."""
    directory = policy.directory()
    account = located.account or directory.accounts[0]
    azure = located.path != OPENAI_PATH
    if who.tenant is not None and who.tenant != id_key(account.tenant):
        raise errors.wrong_tenant(who.tenant) if azure else errors.invalid_token_session()
    request = located.request
    try:
        name = _DEPLOYMENT_AT[located.path](request, policy.catalogue, kind).name
    except errors.Refused:
        name = request.parameter("deployment" if located.path == AZURE_PREVIEW_PATH else "model")
    scope = deployment_id(account.id, name) if name else account.id
    if not allowed(directory, who, REALTIME, scope):
        holder = who.oid or who.id
        if azure:
            raise errors.permission_denied(holder, REALTIME, f"GET {located.path}")
        raise errors.insufficient_permissions(holder, REALTIME)


def _dialect(request: UpgradeRequest, path: str) -> Dialect:
    if path == AZURE_PREVIEW_PATH or (path == OPENAI_PATH and _asks_for_beta(request)):
        return "preview"
    return "ga"


def _unsupported(path: str, text: str) -> errors.Refused:
    return errors.unsupported_dialect(text) if path == OPENAI_PATH else errors.operation_not_supported(text)


def _asks_for_beta(request: UpgradeRequest) -> bool:
    values = (value.strip() for value in request.header("openai-beta").split(","))
    return _BETA_HEADER in values or BETA_SUBPROTOCOL in request.subprotocols


def _of_azure(request: UpgradeRequest, catalogue: Catalogue, kind: SessionKind) -> Deployment:
    if request.parameter("api-version") not in API_VERSIONS:
        raise errors.resource_not_found()
    name = request.parameter("deployment")
    deployment = catalogue.by_name(name) if name or kind == "realtime" else _any_that_transcribes(catalogue)
    if deployment is None:
        raise errors.deployment_not_found()
    return deployment


def _of_azure_ga(request: UpgradeRequest, catalogue: Catalogue, kind: SessionKind) -> Deployment:
    name = request.parameter("model")
    deployment = catalogue.by_name(name) if name or kind == "realtime" else next(iter(catalogue), None)
    if deployment is None:
        raise errors.deployment_not_found()
    return deployment


def _of_openai(request: UpgradeRequest, catalogue: Catalogue, kind: SessionKind) -> Deployment:
    model = request.parameter("model")
    if not model and kind == "realtime":
        raise errors.missing_model()
    if model:
        deployment = catalogue.by_model(model)
    elif _asks_for_beta(request):
        deployment = _any_that_transcribes(catalogue)
    else:
        deployment = next(iter(catalogue), None)
    if deployment is None:
        raise errors.invalid_model(model)
    return deployment


_DEPLOYMENT_AT: Final = {
    AZURE_PREVIEW_PATH: _of_azure,
    AZURE_GA_PATH: _of_azure_ga,
    OPENAI_PATH: _of_openai,
}


def _any_that_transcribes(catalogue: Catalogue) -> Deployment | None:
    """For a transcription session that names none, as its clients do not: the first."""
    able = (one for one in catalogue if not one.profile or profiles.transcribes(one.profile))
    return next(able, None) or next(iter(catalogue), None)


def _profile(request: UpgradeRequest, path: str, deployment: Deployment) -> str:
    """The edition of the preview that the client was written for, unless the deployment is pinned to one.

    Azure clients tell by ``api-version``, older ones left it to the model; OpenAI's beta shape ended as the newest
    preview.
    """
    if deployment.profile in profiles.PROFILES:
        return deployment.profile
    if path == OPENAI_PATH or request.parameter("api-version") == _NEWEST_API_VERSION:
        return profiles.NEWEST
    return profiles.profile_of_version(deployment.version)


def _ga_profile(path: str, deployment: Deployment) -> str:
    """The service whose path it is, unless the deployment is pinned to one of them."""
    if deployment.profile in profiles.GA_PROFILES:
        return deployment.profile
    return "azure-ga" if path == AZURE_GA_PATH else "openai-ga"


def client_request_id(request: UpgradeRequest) -> str | None:
    """``x-ms-client-request-id`` of the caller, a header or (in browsers) a parameter: up to 128 printable
    characters, or None.
    """
    value = request.header(_CLIENT_REQUEST_ID) or request.parameter(_CLIENT_REQUEST_ID)
    return value if _REQUEST_ID.fullmatch(value) else None
