"""The management API: a request in, an answer out; HTTP is elsewhere.

Laws
----
1. The order of the refusals is Resource Manager's: no ``api-version`` (400), who is asking (401), what is asked for
   (404, 405, 400), the subscription and its tenant (404, 401), the role (403), what is there (404), what was sent
   (400).
2. Nobody learns what is in a subscription before a role allows it; a list shows what its reader may read.
3. Every attempt to change something is in the audit: who, what, on which id, how it ended. What was sent is not.
4. What the configuration file declares is shown, and is not changed (409).
5. An answer never holds a key, but for ``listKeys`` and ``regenerateKey``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from vivavoce.config import SubscriptionSettings
from vivavoce.gateway import audit
from vivavoce.gateway.arm import errors, routes
from vivavoce.gateway.arm.accounts import Accounts
from vivavoce.gateway.arm.call import Answer, Call, Operation, Request
from vivavoce.gateway.arm.deployments import DeploymentOperations
from vivavoce.gateway.arm.lists import Lists
from vivavoce.gateway.arm.places import Subscription, subscriptions
from vivavoce.gateway.arm.role_assignments import RoleAssignments
from vivavoce.gateway.auth import Credential
from vivavoce.gateway.principals import Identities, Principal, Unknown
from vivavoce.gateway.resource import id_key
from vivavoce.gateway.store.base import Conflict, NotFound, PreconditionFailed, ReadOnly, Store, StoreUnavailable

log = logging.getLogger(__name__)

AUXILIARY: Final = "x-ms-authorization-auxiliary"
_MAX_AUXILIARY: Final = 3


class Management:
    """All operations."""

    def __init__(
        self,
        store: Store,
        identities: Identities,
        deployments: DeploymentOperations,
        accounts: Accounts,
        roles: RoleAssignments,
        lists: Lists,
        *,
        configured: Iterable[SubscriptionSettings] = (),
        record: Callable[..., None],
    ) -> None:
        """``identities`` knows Bearer tokens for management; ``record`` is ``Audit.record``."""
        self._store = store
        self._identities = identities
        self._configured = tuple(configured)
        self._record = record
        self._operations: Mapping[str, Operation] = {
            **deployments.operations,
            **accounts.operations,
            **roles.operations,
            **lists.operations,
        }
        missing = {route.operation for route in routes.ROUTES} ^ set(self._operations)
        assert not missing, f"operations without a route or the other way round: {sorted(missing)}"

    async def answer(self, request: Request, caller: audit.Caller | None = None) -> Answer:
        """What the request gets; refusals too. ``caller``: for the audit."""
        who: list[Principal] = []
        asked: list[routes.Asked] = []
        try:
            answer = await self._answer(request, who, asked)
        except errors.ArmError as refused:
            answer = Answer(refused.status, refused.body(), refused.headers)
        if asked and asked[0].route.is_audited:
            self._audit(asked[0], who, answer, caller)
        return answer

    async def _answer(self, request: Request, who: list[Principal], asked: list[routes.Asked]) -> Answer:
        version = request.parameter("api-version")
        if not version:
            raise errors.missing_api_version()
        operation = _operation(request)
        if isinstance(operation, routes.Asked):
            asked.append(operation)
        principal = await self._identify(request)
        who.append(principal)
        if isinstance(operation, errors.ArmError):
            raise operation
        routes.check_api_version(operation, version)
        auxiliary = await self._auxiliary(request)
        try:
            directory = await self._store.directory()
            call = Call(
                request=request,
                asked=operation,
                api_version=version,
                principal=principal,
                auxiliary=auxiliary,
                directory=directory,
                subscriptions=subscriptions(directory, self._configured),
            )
            self._admit(call)
            return await self._operations[operation.route.operation](call)
        except StoreUnavailable:
            raise errors.store_unavailable() from None
        except PreconditionFailed:
            raise errors.precondition_failed(operation.place.scope) from None
        except ReadOnly as error:
            raise errors.declared_in_file(error.id) from None
        except NotFound as error:
            # It went between our look and the change.
            raise errors.gone(error.id) from None
        except Conflict as error:
            raise errors.conflict(error.problem) from None

    # ----------------------------------------------------------------------------------------------- who is asking

    async def _identify(self, request: Request) -> Principal:
        header = request.headers.get("authorization", "").strip()
        if not header:
            raise errors.authentication_failed()
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise errors.not_a_bearer_token()
        return await self._principal(token.strip(), request.address, auxiliary=False)

    async def _auxiliary(self, request: Request) -> tuple[Principal, ...]:
        """Up to three tokens of other tenants, separated by commas, each with its ``Bearer``."""
        header = request.headers.get(AUXILIARY)
        if header is None:
            return ()
        parts = [part.strip() for part in header.replace(";", ",").split(",") if part.strip()]
        if not 1 <= len(parts) <= _MAX_AUXILIARY:
            raise errors.invalid_token(auxiliary=True)
        found = []
        for part in parts:
            scheme, _, token = part.partition(" ")
            if scheme.lower() != "bearer":
                raise errors.invalid_token(auxiliary=True)
            found.append(await self._principal(token.strip(), request.address, auxiliary=True))
        return tuple(found)

    async def _principal(self, token: str, address: str, *, auxiliary: bool) -> Principal:
        known = await self._identities.of([Credential(token, "bearer header")], None, address)
        if isinstance(known, Principal) and known.is_token:
            return known
        if isinstance(known, Unknown):
            log.info("a token for management was refused: %s", known.why or known.fault)
            if known.fault == "throttled":
                raise errors.too_many_bad_tokens(known.retry_after_s)
            if known.fault == "unavailable":
                raise errors.token_not_judged()
            if known.fault == "claims":
                raise errors.invalid_token(known.why, auxiliary=auxiliary)
        raise errors.invalid_token(auxiliary=auxiliary)

    # ------------------------------------------------------------------------------------------ what is there

    def _admit(self, call: Call) -> None:
        """Laws 1 and 2, for everything above what the operation itself looks at."""
        place, route = call.place, call.asked.route
        subscription = None
        if place.subscription:
            subscription = call.subscriptions.get(id_key(place.subscription))
            if subscription is None:
                raise errors.subscription_not_found(place.subscription)
            tenant, owner = call.principal.tenant, call.tenant_of(place) or subscription.tenant
            if tenant is not None and tenant != owner.lower():
                raise errors.wrong_tenant(tenant, owner)
        if route.action and not route.per_item and not call.may(route.action, place.scope):
            raise errors.authorization_failed(call.client, call.oid, route.action, place.scope)
        if place.group and subscription is not None:
            self._check_below(call, subscription)

    def _check_below(self, call: Call, subscription: Subscription) -> None:
        place = call.place
        if subscription.group(place.group) is None:
            raise errors.resource_group_not_found(place.group)
        if not place.account:
            return
        nested = call.asked.route.path.rpartition("{account}")[2]
        makes_or_ends = call.asked.route.operation in ("Accounts_Create", "Accounts_Delete")
        if makes_or_ends or call.directory.account(place.account_id) is not None:
            return
        if nested.startswith("/deployments"):
            raise errors.parent_not_found(place.account)
        raise errors.resource_not_found("Microsoft.CognitiveServices/accounts", place.account, place.group)

    # ------------------------------------------------------------------------------------------------- the audit

    def _audit(
        self, asked: routes.Asked, who: list[Principal], answer: Answer, caller: audit.Caller | None
    ) -> None:
        self._record(
            audit.actor_of(who[0]) if who else audit.ANONYMOUS,
            asked.route.action,
            asked.target,
            "done" if answer.status < 400 else "failed" if answer.status >= 500 else "refused",
            _details(answer),
            caller,
        )


def _operation(request: Request) -> routes.Asked | errors.ArmError:
    """The refusal is kept: who may not come in is not told what there is."""
    try:
        return routes.find(request.method, request.path)
    except errors.ArmError as refused:
        return refused


def _details(answer: Answer) -> audit.Details:
    refusal = answer.body.get("error") if answer.status >= 400 and isinstance(answer.body, dict) else None
    code = None if refusal is None else refusal["code"]
    return msgspec.structs.replace(answer.details, status=answer.status, code=code)
