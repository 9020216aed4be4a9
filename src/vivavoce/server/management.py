"""The management API over HTTP: what a request says, and the headers of its answer."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.web_exceptions import HTTPException

from vivavoce.config import Config
from vivavoce.gateway.arm import errors
from vivavoce.gateway.arm.accounts import Accounts
from vivavoce.gateway.arm.bodies import MAX_BODY_BYTES
from vivavoce.gateway.arm.call import Answer, Request
from vivavoce.gateway.arm.deployments import DeploymentOperations
from vivavoce.gateway.arm.lists import Lists
from vivavoce.gateway.arm.offers import Offers
from vivavoce.gateway.arm.role_assignments import RoleAssignments
from vivavoce.gateway.arm.routes import ROOTS
from vivavoce.gateway.arm.service import Management
from vivavoce.gateway.arm.serving import Serving
from vivavoce.gateway.audit import Audit, Caller
from vivavoce.gateway.deployments import Deployments
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.recipes import Recipes
from vivavoce.gateway.store.base import Store
from vivavoce.gateway.windows import window_fault
from vivavoce.runtime.bugs import outline
from vivavoce.server.identity import Doorkeeper

log = logging.getLogger(__name__)

_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


def management_endpoint(
    config: Config, store: Store, doorkeeper: Doorkeeper, deployments: Deployments, audit: Audit
) -> ManagementEndpoint:
    """The API over a store that is open and deployments that are served."""
    rules = Rules.of(config)
    offers = Offers(rules)
    serving = Serving(deployments, rules)
    recipes = Recipes(config)
    operations = DeploymentOperations(
        store,
        rules,
        offers,
        recipes.bind,
        serving.state,
        serving.rates,
        fault_of=lambda record: window_fault(record.model, recipes.work(record)),
    )
    management = Management(
        store,
        doorkeeper.management,
        operations,
        Accounts(store, rules, offers, endpoint=config.management.endpoint),
        RoleAssignments(store),
        Lists(store, rules, offers, operations, clock=lambda: datetime.now(UTC)),
        configured=config.subscriptions,
        record=audit.record,
    )
    return ManagementEndpoint(management, doorkeeper.address_of, config.server.request_timeout_s)


class ManagementEndpoint:
    """Serves ``/subscriptions`` and ``/providers``."""

    def __init__(
        self, management: Management, address_of: Callable[[web.Request], str], body_timeout_s: float
    ) -> None:
        self._management = management
        self._address_of = address_of
        self._body_timeout_s = body_timeout_s

    @property
    def routes(self) -> list[web.RouteDef]:
        """All of its paths, with every method."""
        return [web.route("*", f"/{{root:(?i:{'|'.join(ROOTS)})}}{{rest:(/.*)?}}", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """Any request to one of its paths."""
        request_id = str(uuid.uuid4())
        client_id = _id(request.headers.get("x-ms-client-request-id"))
        try:
            answer = await self._answer(request, request_id, client_id)
        except errors.ArmError as refused:
            answer = Answer(refused.status, refused.body(), refused.headers)
        except (HTTPException, ConnectionError):
            raise
        except Exception as bug:
            log.error("a bug in the management API, request %s: %s", request_id, outline(bug))
            fault = errors.internal_error(request_id)
            answer = Answer(fault.status, fault.body())
        # As it was sent: decoded, it could hold what a terminal obeys.
        path = ascii(request.rel_url.raw_path)[1:-1]
        log.info("%s %s: %d, request %s", request.method, path, answer.status, request_id)
        headers = {
            "x-ms-request-id": request_id,
            "x-ms-correlation-request-id": _id(request.headers.get("x-ms-correlation-request-id")) or request_id,
            # An answer may hold keys.
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **answer.headers,
        }
        if client_id is not None:
            headers["x-ms-client-request-id"] = client_id
        if answer.body is None:
            return web.Response(status=answer.status, headers=headers)
        body = msgspec.json.encode(answer.body)
        return web.Response(status=answer.status, headers=headers, body=body, content_type="application/json")

    async def _answer(self, request: web.Request, request_id: str, client_id: str | None) -> Answer:
        try:
            async with asyncio.timeout(self._body_timeout_s):
                body = await _body(request)
        except TimeoutError:
            raise errors.content_too_slow() from None
        names = {name.lower() for name in request.headers}
        asked = Request(
            method=request.method,
            path=request.rel_url.raw_path,
            query=tuple(request.rel_url.query.items()),
            headers={name: ",".join(request.headers.getall(name)) for name in names},
            body=body,
            address=self._address_of(request),
            base=_base(request),
        )
        caller = Caller(request_id=request_id, client_request_id=client_id, address=asked.address)
        return await self._management.answer(asked, caller)


async def _body(request: web.Request) -> bytes:
    """Raises ArmError where it is too much, or no JSON by its own word."""
    if not request.can_read_body:
        return b""
    content = bytearray()
    async for chunk in request.content.iter_any():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            raise errors.content_too_large(MAX_BODY_BYTES)
    if content and not request.content_type.endswith("json"):
        raise errors.unsupported_media_type()
    return bytes(content)


def _base(request: web.Request) -> str:
    """How the client reached us; a proxy that ends TLS tells the scheme."""
    told = request.headers.get("x-forwarded-proto", "").partition(",")[0].strip().lower()
    scheme = told if told in ("http", "https") else request.scheme
    host = request.headers.get("host", "")
    return f"{scheme}://{host if _AUTHORITY.fullmatch(host) else 'localhost'}"


def _id(text: str | None) -> str | None:
    """It is echoed and kept: nothing that could break a header or a line."""
    return text if text is not None and _ID.fullmatch(text) else None
