"""Client secrets over HTTP: who asks gets one, or is told why not, in the words of the service whose path it is.

The order of the checks, which is the order of the refusals: method, custom headers (Azure), who asks,
``api-version`` (Azure preview), content type, size, JSON, the settings (as ``session.update`` would refuse them),
the deployment, what the server can do, how many secrets are alive.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from vivavoce.core import settings
from vivavoce.core.ids import Ids
from vivavoce.gateway.admission import AdmissionPolicy, check_life, check_token, nobody
from vivavoce.gateway.audit import ANONYMOUS, Actor, Audit, Details
from vivavoce.gateway.auth import credentials
from vivavoce.gateway.client_secrets import (
    MAX_BODY_BYTES,
    MAX_SECRETS,
    PREFIX,
    ClientSecrets,
    Grant,
    TooMany,
    principal_id,
)
from vivavoce.gateway.deployments import Deployment
from vivavoce.gateway.headers import custom_headers
from vivavoce.gateway.principals import Principal, Unknown
from vivavoce.gateway.prompts import DeclaredPrompts
from vivavoce.gateway.resource import Account, deployment_id, host_label, meant_account
from vivavoce.gateway.roles import REALTIME
from vivavoce.gateway.secret_doors import SECRET_DOORS, SecretDoor
from vivavoce.gateway.shared.base import Unavailable
from vivavoce.server.handshake import Handshake
from vivavoce.server.identity import Doorkeeper
from vivavoce.server.metrics import Metrics
from vivavoce.wire import errors, refusals, rest_errors
from vivavoce.wire import server_events as se
from vivavoce.wire.codec import Codec, codec_of
from vivavoce.wire.faults import describe
from vivavoce.wire.prompts import Prompts
from vivavoce.wire.session_config import SessionConfig

log = logging.getLogger(__name__)

_UNAUTHORIZED: Final = 401
_JSON: Final = "application/json"
_RETRY_S: Final = 10
_STATUS: Final = {3000: 401, 4000: 400, 4004: 404}
"""What a socket on the OpenAI path is closed with, as an HTTP status."""
_NOT_BEGUN: Final = 0
"""``expires_at`` of a session that has not begun, as recorded (protocol section 1.4)."""


class SecretsEndpoint:
    """Answers requests for client secrets."""

    def __init__(
        self,
        secrets: ClientSecrets,
        *,
        policy: AdmissionPolicy,
        doorkeeper: Doorkeeper,
        body_timeout_s: float,
        reduces_noise: bool = False,
        prompts: Callable[[str], Prompts] | None = None,
        reasons: Callable[[Deployment], bool] = lambda _: False,
        metrics: Metrics | None = None,
        audit: Audit | None = None,
    ) -> None:
        """``prompts``: those of an account, by its id, None where no account has any; ``reasons``: does the model
        of the deployment? ``metrics``: where they are counted; ``audit``: where it is written down who got one, and
        who was nobody; None for nowhere.
        """
        self._secrets = secrets
        self._policy = policy
        self._doorkeeper = doorkeeper
        self._body_timeout_s = body_timeout_s
        self._reduces_noise = reduces_noise
        self._prompts = prompts or DeclaredPrompts()
        self._reasons = reasons
        self._metrics = metrics
        self._audit = audit

    def register(self, router: web.UrlDispatcher) -> None:
        for path in SECRET_DOORS:
            router.add_route("*", path, self.handle)
            router.add_route("*", f"{path}/", self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        handshake = Handshake(request)
        door = SECRET_DOORS[handshake.asked.path.rstrip("/")]
        try:
            body = await self._mint(handshake, door)
        except refusals.Refused as refused:
            status, answer, headers = _refusal(refused, azure=door.is_azure)
            log.info("no client secret at %s: %d, %s", door.path, status, handshake.ids)
            if self._metrics is not None:
                self._metrics.secrets_refused.labels(str(status)).inc()
            if self._audit is not None and status == _UNAUTHORIZED:
                details = Details(status=status, code=_code(refused))
                self._audit.record(ANONYMOUS, REALTIME, door.path, "refused", details, handshake.caller)
            return web.Response(
                status=status,
                body=msgspec.json.encode(answer),
                content_type=_JSON,
                headers=handshake.answer_headers(headers.items(), upgrade=False),
            )
        return web.Response(
            body=body,
            content_type=_JSON,
            headers=handshake.answer_headers([("Cache-Control", "no-store")], upgrade=False),
        )

    async def _mint(self, handshake: Handshake, door: SecretDoor) -> bytes:
        """The body that hands out a secret. Raises Refused."""
        request, asked = handshake.request, handshake.asked
        if request.method != "POST":
            raise rest_errors.method_not_allowed(request.method, door.path)
        if door.is_azure and len(custom_headers(asked.headers)) > self._policy.max_custom_headers:
            raise refusals.too_many_headers(self._policy.max_custom_headers)
        host = asked.header("host")
        named_account = self._policy.directory().account_of_host(host_label(host))
        principal = await self._identify(handshake, door, named_account)
        account = meant_account(self._policy.directory(), host, principal.account)
        catalogue = self._policy.catalogue(account.id)
        door.check_version(asked)
        if request.content_type != _JSON:
            raise rest_errors.unsupported_media_type(request.content_type)
        raw = await self._read(request)
        body = _object(raw)
        model = door.model(body)
        named = door.find(model, catalogue)
        if principal.is_token:
            name = model if named is None else named.name
            check_token(principal, account, name, self._policy, f"POST {door.path}", azure=door.is_azure)
        codec = _codec(door.profile, named is None or named.strict)
        try:
            wanted = codec.secret_request(body, door.kind)
            deployment = door.deployment(model, wanted.kind, catalogue)
            check_life(account, deployment, self._policy, azure=door.is_azure)
            abilities = settings.Abilities(
                reduces_noise=self._reduces_noise,
                reasons=self._reasons(deployment),
                max_input=deployment.max_input,
                prompts=self._prompts(deployment.account),
            )
            config = settings.begun(first_config(deployment), wanted.session, abilities)
        except errors.ClientFault as fault:
            raise rest_errors.invalid_body(codec.secret_error(fault)) from None
        try:
            secret, grant = await self._secrets.mint(
                account=principal.account or account.id,
                deployment=deployment.name if wanted.kind == "realtime" else "",
                dialect=door.dialect,
                kind=wanted.kind,
                body=raw,
                seconds=wanted.seconds,
                minted_by=principal.id,
            )
        except TooMany:
            raise rest_errors.too_many_client_secrets(MAX_SECRETS, _RETRY_S) from None
        except Unavailable:
            raise rest_errors.try_later() from None
        log.info(
            "client secret %s: deployment %s, %s, %s, for %d s, by %s, %s",
            principal_id(secret),
            deployment.label,
            grant.dialect,
            grant.kind,
            wanted.seconds,
            principal.id,
            handshake.ids,
        )
        if self._metrics is not None:
            self._metrics.secrets.labels(deployment.label).inc()
        if self._audit is not None:
            target = deployment_id(grant.account, deployment.name)
            minted = Details(principal_id=principal_id(secret), principal_type="ephemeral", seconds=wanted.seconds)
            self._audit.record(_actor(principal), REALTIME, target, "done", minted, handshake.caller)
        session = se.Session(
            id=_session_id(),
            model=deployment.reported_model,
            expires_at=_NOT_BEGUN,
            config=config,
            kind=grant.kind,
        )
        return codec.client_secret(session, secret, grant.expires_at)

    async def _identify(self, handshake: Handshake, door: SecretDoor, account: Account | None) -> Principal:
        """Who asks. Raises Refused."""
        asked = handshake.asked
        offered = credentials(asked.query, asked.headers, (), subprotocol_keys=False)
        # A client secret mints no other, but may stand beside a key.
        others = [one for one in offered if not one.value.startswith(PREFIX)]
        who: Principal | Unknown = Unknown("expired", offered[0]) if offered else Unknown("missing")
        if others or not offered:
            address = self._doorkeeper.address_of(handshake.request)
            who = await self._doorkeeper.data.of(others, None if account is None else account.id, address)
        if isinstance(who, Principal):
            return who
        if who.why:
            log.info("a token is refused: %s, %s", who.why, handshake.ids)
        refused = nobody(who, self._policy.audience, azure=True)
        assert isinstance(refused, refusals.RefusedHandshake)
        if not door.is_azure:
            told = nobody(who, self._policy.audience, azure=False)
            assert isinstance(told, refusals.RefusedSession)
            raise rest_errors.RefusedRequest(refused.status, told.error, refused.headers)
        raise refused

    async def _read(self, request: web.Request) -> bytes:
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise rest_errors.body_too_large(MAX_BODY_BYTES)
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for piece in request.content.iter_any():
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_BODY_BYTES:
                        raise rest_errors.body_too_large(MAX_BODY_BYTES)
        except TimeoutError:
            raise rest_errors.body_too_slow() from None
        return b"".join(pieces)


def first_config(deployment: Deployment) -> SessionConfig:
    """What its sessions begin with, unless a client secret says otherwise."""
    return SessionConfig(instructions=deployment.instructions)


def granted_config(
    deployment: Deployment,
    grant: Grant | None,
    *,
    reduces_noise: bool,
    reasons: bool = False,
    prompts: Prompts | None = None,
) -> SessionConfig:
    """What a session begins with. Raises ClientFault where the deployment or the server is not any more what it was
    when the secret was minted.
    """
    first = first_config(deployment)
    if grant is None:
        return first
    # Bodies are the same at all doors of a dialect.
    profile = next(door.profile for door in SECRET_DOORS.values() if door.dialect == grant.dialect)
    codec = _codec(profile, deployment.strict)
    try:
        wanted = codec.secret_request(msgspec.json.decode(grant.body), grant.kind)
        abilities = settings.Abilities(
            reduces_noise=reduces_noise, reasons=reasons, max_input=deployment.max_input, prompts=prompts or {}
        )
        return settings.begun(first, wanted.session, abilities)
    except errors.ClientFault as fault:
        error = codec.secret_error(fault)
        raise errors.ClientFault(error.code, error.message, error.param) from None


@functools.cache
def _codec(profile: str, strict: bool) -> Codec:
    return codec_of(profile, strict=strict)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except msgspec.DecodeError as broken:
        raise rest_errors.body_is_no_json(str(broken)) from None
    except UnicodeError:
        raise rest_errors.body_is_no_json("The text is not UTF-8.") from None
    except RecursionError:
        raise rest_errors.body_is_no_json("The value is nested too deeply.") from None
    if not isinstance(body, dict):
        raise rest_errors.body_is_no_object(describe(body))
    return body


def _refusal(refused: refusals.Refused, *, azure: bool) -> tuple[int, dict[str, object], dict[str, str]]:
    """Status, body and headers of the answer."""
    if isinstance(refused, refusals.RefusedHandshake):
        body: dict[str, object] = {"error": {"code": refused.code, "message": refused.message}}
        return refused.status, body, dict(refused.headers)
    if isinstance(refused, refusals.RefusedSession):
        refused = rest_errors.RefusedRequest(_STATUS[refused.close_code], refused.error)
    assert isinstance(refused, rest_errors.RefusedRequest)
    return refused.status, refused.body(azure=azure), dict(refused.headers)


def _code(refused: refusals.Refused) -> str | None:
    if isinstance(refused, refusals.RefusedHandshake):
        return refused.code
    assert isinstance(refused, refusals.RefusedSession | rest_errors.RefusedRequest)
    return refused.error.code


def _actor(who: Principal) -> Actor:
    return Actor(kind=who.kind, id=who.id, tenant=who.tenant, oid=who.oid, appid=who.appid)


def _session_id() -> str:
    return Ids(secrets.token_bytes(32)).next("sess")
