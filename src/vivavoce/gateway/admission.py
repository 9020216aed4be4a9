"""May this upgrade request become a session, and of which deployment? Two pure decisions over data.

:func:`locate` looks at the request alone; who asks is then found out by ``gateway.principals``, which takes time;
:func:`admit` decides the rest. The order of the checks, which is the order of the refusals that a caller sees:

1. the path is one of ours, and this is a WebSocket upgrade;
2. Azure paths: no more custom request headers than allowed (431);
3. who asks: without a good key or token nobody learns what exists here; a token must be of the account's tenant,
   and its holder have a role that opens what was asked for;
4. calls, which this version does not join;
5. a client secret: whether it is for sessions of this dialect and kind;
6. ``api-version`` (Azure preview path), then the deployment, which a client secret has of its own, and whether its
   model still lives;
7. a transcription session: whether the profile has such.

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
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from vivavoce.gateway.auth import Credential, credentials
from vivavoce.gateway.client_secrets import Grant
from vivavoce.gateway.deployments import Catalogue, Deployment
from vivavoce.gateway.headers import custom_headers, returned_headers
from vivavoce.gateway.principals import Principal, Unknown
from vivavoce.gateway.resource import (
    Account,
    DeploymentRecord,
    Directory,
    deployment_id,
    host_label,
    id_key,
    meant_account,
    same_id,
)
from vivavoce.gateway.roles import REALTIME, allowed
from vivavoce.wire import refusals
from vivavoce.wire.dialects import profiles
from vivavoce.wire.dialects.profiles import Dialect
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
    grant: Grant | None = None
    """Of the client secret that opens it, if one does."""


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """What the decision rests on."""

    catalogue: Callable[[str], Catalogue]
    """What an account (its id) has now."""
    directory: Callable[[], Directory]
    """As it is now."""
    max_custom_headers: int = 10
    subprotocol_keys: bool = True
    audience: str = "https://cognitiveservices.azure.com"
    """That a token must have; refusals name it."""
    has_ended: Callable[[DeploymentRecord], bool] = lambda record: False
    """Its model is retired."""


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
        raise refusals.resource_not_found()
    if not request.is_upgrade:
        raise refusals.upgrade_required()
    if path != OPENAI_PATH and len(custom_headers(request.headers)) > policy.max_custom_headers:
        raise refusals.too_many_headers(policy.max_custom_headers)
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
    grant = who.grant if isinstance(who.grant, Grant) else None
    kind: SessionKind = "transcription" if request.parameter("intent") == "transcription" else "realtime"
    name = request.parameter(_NAMED_BY[path])
    account = meant_account(policy.directory(), request.header("host"), who.account)
    if who.account is not None and not same_id(who.account, account.id):
        # It was there a moment ago.
        raise nobody(Unknown("unknown", located.offered[0]), policy.audience, azure=path != OPENAI_PATH)
    catalogue = policy.catalogue(account.id)
    if who.is_token:
        _check_role(located, who, name, kind, policy, account)
    if path != AZURE_PREVIEW_PATH and request.parameter("call_id"):
        raise _unsupported(path, "Joining a call (call_id) is not supported by this server.")
    if grant is not None:
        kind = _granted_kind(grant, dialect, kind, path)
        name = name or grant.deployment
    deployment = _DEPLOYMENT_AT[path](request, name, catalogue, kind)
    if grant is not None and grant.deployment and deployment.name != grant.deployment:
        raise refusals.secret_of_another_model(name) if path == OPENAI_PATH else refusals.deployment_not_found()
    check_life(account, deployment, policy, azure=path != OPENAI_PATH)
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
        grant=grant,
    )


def chosen_subprotocol(offered: Sequence[str]) -> str | None:
    """``realtime`` where it was offered. Browsers fail on an answer that they did not offer."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def nobody(who: Unknown, audience: str, *, azure: bool) -> refusals.Refused:
    """How somebody is refused whom we do not know. ``audience``: that a token should have had; ``azure``: before
    the upgrade."""
    match who.fault:
        case "missing":
            return refusals.access_denied() if azure else refusals.missing_bearer()
        case "unknown" | "expired":
            assert who.offered is not None
            return refusals.access_denied() if azure else refusals.incorrect_api_key(who.offered.value)
        case "token" | "claims":
            return refusals.invalid_token(audience) if azure else refusals.invalid_token_session()
        case "throttled":
            wait_s = math.ceil(who.retry_after_s)
            return refusals.too_many_failures(wait_s) if azure else refusals.too_many_failures_session(wait_s)
        case "unavailable":
            if azure:
                return refusals.identity_unavailable(UNAVAILABLE_RETRY_S)
            return refusals.identity_unavailable_session()


def _check_role(
    located: Located, who: Principal, name: str, kind: SessionKind, policy: AdmissionPolicy, account: Account
) -> None:
    """For what it asks for, be it there or not."""
    request, path = located.request, located.path
    with suppress(refusals.Refused):
        name = _DEPLOYMENT_AT[path](request, name, policy.catalogue(account.id), kind).name
    check_token(who, account, name, policy, f"GET {path}", azure=path != OPENAI_PATH)


def check_token(
    who: Principal, account: Account, name: str, policy: AdmissionPolicy, request: str, *, azure: bool
) -> None:
    """Whether it is of the account's tenant, and its holder has a role that opens the deployment, there or not.

    ``name``: of the deployment, empty for all of the account; ``request``: method and path. Raises
    ``RefusedHandshake`` (``azure``) or ``RefusedSession``.
    """
    if who.tenant is not None and who.tenant != id_key(account.tenant):
        raise refusals.wrong_tenant(who.tenant) if azure else refusals.invalid_token_session()
    scope = deployment_id(account.id, name) if name else account.id
    if not allowed(policy.directory(), who, REALTIME, scope):
        holder = who.oid or who.id
        if azure:
            raise refusals.permission_denied(holder, REALTIME, request)
        raise refusals.insufficient_permissions(holder, REALTIME)


def check_life(account: Account, deployment: Deployment, policy: AdmissionPolicy, *, azure: bool) -> None:
    """Whether its model still lives. Raises ``RefusedHandshake`` (``azure``) or ``RefusedSession``."""
    record = policy.directory().deployment(account.id, deployment.name)
    if record is not None and policy.has_ended(record):
        raise refusals.model_retired() if azure else refusals.model_retired_session(deployment.reported_model)


def _dialect(request: UpgradeRequest, path: str) -> Dialect:
    if path == AZURE_PREVIEW_PATH or (path == OPENAI_PATH and _asks_for_beta(request)):
        return "preview"
    return "ga"


def _granted_kind(grant: Grant, dialect: Dialect, asked: SessionKind, path: str) -> SessionKind:
    """A secret opens what it was minted for, and who connects with it may leave open which kind that is."""
    refused: refusals.RefusedSession | None = None
    if grant.dialect != dialect:
        refused = refusals.secret_of_another_dialect(dialect, grant.dialect)
    elif asked == "transcription" != grant.kind:
        refused = refusals.secret_of_another_kind(asked, grant.kind)
    if refused is None:
        return grant.kind
    raise refused if path == OPENAI_PATH else refusals.operation_not_supported(refused.error.message)


def _unsupported(path: str, text: str) -> refusals.Refused:
    return refusals.unsupported_dialect(text) if path == OPENAI_PATH else refusals.operation_not_supported(text)


def _asks_for_beta(request: UpgradeRequest) -> bool:
    values = (value.strip() for value in request.header("openai-beta").split(","))
    return _BETA_HEADER in values or BETA_SUBPROTOCOL in request.subprotocols


def _of_azure(request: UpgradeRequest, name: str, catalogue: Catalogue, kind: SessionKind) -> Deployment:
    if request.parameter("api-version") not in API_VERSIONS:
        raise refusals.resource_not_found()
    deployment = catalogue.by_name(name) if name or kind == "realtime" else any_that_transcribes(catalogue)
    if deployment is None:
        raise refusals.deployment_not_found()
    return deployment


def _of_azure_ga(request: UpgradeRequest, name: str, catalogue: Catalogue, kind: SessionKind) -> Deployment:
    deployment = catalogue.by_name(name) if name or kind == "realtime" else next(iter(catalogue), None)
    if deployment is None:
        raise refusals.deployment_not_found()
    return deployment


def _of_openai(request: UpgradeRequest, model: str, catalogue: Catalogue, kind: SessionKind) -> Deployment:
    if not model and kind == "realtime":
        raise refusals.missing_model()
    if model:
        deployment = catalogue.by_model(model)
    elif _asks_for_beta(request):
        deployment = any_that_transcribes(catalogue)
    else:
        deployment = next(iter(catalogue), None)
    if deployment is None:
        raise refusals.invalid_model(model)
    return deployment


_NAMED_BY: Final = {AZURE_PREVIEW_PATH: "deployment", AZURE_GA_PATH: "model", OPENAI_PATH: "model"}
"""The query parameter."""
_DEPLOYMENT_AT: Final = {
    AZURE_PREVIEW_PATH: _of_azure,
    AZURE_GA_PATH: _of_azure_ga,
    OPENAI_PATH: _of_openai,
}


def any_that_transcribes(catalogue: Catalogue) -> Deployment | None:
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
