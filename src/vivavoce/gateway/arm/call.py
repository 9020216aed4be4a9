"""One request of the management API as the operations see it, and what they answer."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import urlencode

from vivavoce.gateway import audit
from vivavoce.gateway.arm import errors
from vivavoce.gateway.arm.places import Subscription
from vivavoce.gateway.arm.routes import Asked, Place
from vivavoce.gateway.principals import Principal
from vivavoce.gateway.resource import Directory, id_key
from vivavoce.gateway.roles import allowed
from vivavoce.gateway.store.base import Actor

PAGE: Final = 100
"""Things on one page of a list."""

_SELECTING: Final = ("$filter", "modelFormat", "modelName", "modelVersion")
"""Parameters that say what a list is of."""
_ETAG: Final = re.compile(r'\*|(?:W/)?"[^"]*"')

_NO_DETAILS: Final = audit.Details()

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What came over HTTP. Its ``repr`` holds the method and the path alone: the rest may hold tokens."""

    method: str
    path: str
    """Raw, as it was sent, without the query."""
    query: Sequence[tuple[str, str]] = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By lower-case name; of a repeated one the values joined by commas."""
    body: bytes = field(default=b"", repr=False)
    address: str = ""
    """Whose request it is, for the throttle."""
    base: str = ""
    """Scheme and authority that the client used, for links: ``https://host:8089``."""

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter; their names are compared without regard to case."""
        return next((value for key, value in self.query if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any = field(default=None, repr=False)
    """JSON; None: no content."""
    headers: Mapping[str, str] = field(default_factory=dict)
    details: audit.Details = _NO_DETAILS
    """For the audit; the status is added to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request whose caller is known and may do it, with the directory as it was then."""

    request: Request
    asked: Asked
    api_version: str
    principal: Principal
    auxiliary: tuple[Principal, ...] = ()
    """Whom ``x-ms-authorization-auxiliary`` names."""
    directory: Directory
    subscriptions: Mapping[str, Subscription]
    """By id in lower case."""

    @property
    def place(self) -> Place:
        return self.asked.place

    @property
    def client(self) -> str:
        """How refusals name the caller: the application, else the object id."""
        return self.principal.appid or self.oid

    @property
    def oid(self) -> str:
        return self.principal.oid or self.principal.id

    @property
    def actor(self) -> Actor:
        """For ``systemData``."""
        return Actor(self.oid, "Application" if self.principal.is_app else "User")

    def may(self, action: str, scope: str) -> bool:
        """Whether the caller may do ``action`` at ``scope``, an id in one of the subscriptions, or ``/``."""
        place = Place.parse(scope)
        tenant = None if place is None else self.tenant_of(place)
        return allowed(self.directory, self.principal, action, scope, tenant=tenant)

    def tenant_of(self, place: Place) -> str | None:
        """Whose a place is: an account's own tenant, else that of the subscription; None outside of all. Declared
        accounts of several tenants may be in one subscription, for who declares no other gets the first one's."""
        account = self.directory.account(place.account_id) if place.account else None
        if account is not None:
            return account.tenant
        subscription = self.subscriptions.get(id_key(place.subscription))
        return None if subscription is None else subscription.tenant

    def may_read(self, things: Iterable[T], scope: Callable[[T], str]) -> list[T]:
        """Those on which the caller may do what the route is for."""
        return [one for one in things if self.may(self.asked.route.action, scope(one))]

    # ------------------------------------------------------------------------------------------------ conditions

    @property
    def if_match(self) -> str | None:
        """An etag or ``*``; None where the request has no such condition. Raises ArmError."""
        return self._condition("if-match")

    @property
    def if_none_match(self) -> bool:
        """The request makes something new or nothing. Raises ArmError: an etag has no meaning there."""
        value = self._condition("if-none-match")
        if value not in (None, "*"):
            raise errors.invalid_property("'If-None-Match' of a change is '*'.", "if-none-match")
        return value == "*"

    def _condition(self, name: str) -> str | None:
        value = self.request.headers.get(name)
        if value is None:
            return None
        value = value.strip()
        if not value.startswith(('"', "W/", "*")):
            # The service's own clients send the etag of a body, which they may have taken out of its quotes.
            value = f'"{value}"'
        if _ETAG.fullmatch(value) is None:
            raise errors.invalid_property(f"'{name}' is one etag or '*'.", name)
        return value

    # ----------------------------------------------------------------------------------------------------- lists

    def page(self, things: Iterable[T], key: Callable[[T], str], show: Callable[[T], Any], size: int) -> Answer:
        """The part of a list that is asked for, sorted by ``key``, which is unique. A page begins after the key
        that ``$skipToken`` names, so that what comes and goes meanwhile moves nothing."""
        ordered = sorted(((id_key(key(one)), one) for one in things), key=lambda pair: pair[0])
        token = self.request.parameter("$skipToken")
        if token is not None:
            after = _untoken(token)
            ordered = [pair for pair in ordered if pair[0] > after]
        body: dict[str, Any] = {"value": [show(one) for _, one in ordered[:size]]}
        if len(ordered) > size:
            body["nextLink"] = self.link(self.request.path, {"$skipToken": _token(ordered[size - 1][0])})
        return Answer(200, body)

    def link(self, path: str, more: Mapping[str, str] | None = None) -> str:
        """An address here, with the same ``api-version``; what the request's list is of goes along."""
        query = {"api-version": self.api_version}
        for name in _SELECTING:
            given = self.request.parameter(name)
            if given is not None:
                query[name] = given
        return f"{self.request.base}{path}?{urlencode(query | dict(more or {}), safe='$')}"


Operation: TypeAlias = Callable[[Call], Awaitable[Answer]]


def _token(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _untoken(token: str) -> str:
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise errors.invalid_skip_token() from None


def operation_id(target: str) -> str:
    """Names the change of a deployment in the path of its operation result; ``target`` is the deployment's id."""
    return _token(target)


def target_of(operation: str) -> str | None:
    """The id behind :func:`operation_id`; None where it is none."""
    try:
        return _untoken(operation)
    except errors.ArmError:
        return None
