"""Who may do what where: the operations of ``Microsoft.Authorization`` (protocol section 9.4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, get_args

from vivavoce.config.identity import PrincipalType
from vivavoce.gateway import audit
from vivavoce.gateway.arm import bodies, errors
from vivavoce.gateway.arm.call import PAGE, Answer, Call, Operation
from vivavoce.gateway.arm.routes import AUTHORIZATION, Place, assignment_id
from vivavoce.gateway.resource import RoleAssignment, id_key, same_id
from vivavoce.gateway.roles import ROLES, Role, covers, role_of
from vivavoce.gateway.store.base import Conflict, NotFound, Store

_GUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
# Of another issuer than Entra NAME:SUBJECT. Nobody could ever be anything else.
_PRINCIPAL_ID: Final = re.compile(rf"{_GUID.pattern}|(?=.{{1,320}}\Z)[a-z0-9_-]{{1,32}}:[\x21-\x7e]+")
_PRINCIPAL_TYPES: Final[tuple[PrincipalType, ...]] = get_args(PrincipalType)
"""Those of Azure that a token can be of."""
_EQUALS: Final = re.compile(r"(\w+)\(\)|(\w+)\s+eq\s+'([^']*)'", re.IGNORECASE)


class RoleAssignments:
    """Assignments are kept; definitions are the roles of this server."""

    def __init__(self, store: Store, *, page: int = PAGE) -> None:
        self._store = store
        self._page = page
        self.operations: Mapping[str, Operation] = {
            "RoleAssignments_Create": self._create,
            "RoleAssignments_Get": self._get,
            "RoleAssignments_ListForScope": self._list,
            "RoleAssignments_Delete": self._delete,
            "RoleDefinitions_Get": self._definition,
            "RoleDefinitions_List": self._definitions,
        }

    async def _create(self, call: Call) -> Answer:
        name = call.asked.names["assignment"]
        _check_scope(call)
        if _GUID.fullmatch(name) is None:
            raise errors.invalid_role_assignment_id(name)
        sent = bodies.parse(call.request.body, bodies.RoleAssignmentBody).properties
        role = role_of(sent.role_definition_id)
        if role is None:
            raise errors.role_definition_not_found(sent.role_definition_id.rpartition("/")[2])
        if sent.principal_type not in _PRINCIPAL_TYPES:
            allowed = ", ".join(_PRINCIPAL_TYPES)
            raise errors.invalid_property(f"'principalType' is one of {allowed}.", "properties.principalType")
        if _PRINCIPAL_ID.fullmatch(sent.principal_id) is None:
            raise errors.invalid_principal_id()
        for field, value in (
            ("condition", sent.condition or sent.condition_version),
            ("description", sent.description),
            ("delegatedManagedIdentityResourceId", sent.delegated_managed_identity_resource_id),
        ):
            if value:
                raise errors.invalid_property(f"'{field}' is not supported.", f"properties.{field}")
        scope = _canonical(call)
        assignment = RoleAssignment(
            id=assignment_id(scope, name.lower()),
            scope=scope,
            role=role.name,
            principal_id=_principal_id(sent.principal_id),
            principal_type=sent.principal_type,
        )
        there = call.directory.assignment(assignment.id)
        details = audit.Details(
            role=role.name, scope=scope, principal_id=assignment.principal_id, principal_type=sent.principal_type
        )
        try:
            put = await self._store.put_role_assignment(assignment, by=call.actor)
        except Conflict:
            raise self._conflict(call, assignment, there) from None
        return Answer(201 if put.created else 200, _shown(put.value), details=details)

    @staticmethod
    def _conflict(call: Call, wanted: RoleAssignment, there: RoleAssignment | None) -> errors.ArmError:
        if there is not None:
            return errors.role_assignment_update()
        for one in call.directory.assignments:
            if (
                same_id(one.scope, wanted.scope)
                and _principal_id(one.principal_id) == wanted.principal_id
                and role_of(one.role) == role_of(wanted.role)
            ):
                return errors.role_assignment_exists(one.id.rpartition("/")[2].replace("-", ""))
        return errors.role_assignment_exists(wanted.id.rpartition("/")[2].replace("-", ""))

    async def _get(self, call: Call) -> Answer:
        _check_scope(call)
        found = call.directory.assignment(call.asked.target)
        if found is None:
            raise errors.role_assignment_not_found(call.asked.names["assignment"])
        return Answer(200, _shown(found))

    async def _delete(self, call: Call) -> Answer:
        _check_scope(call)
        found = call.directory.assignment(call.asked.target)
        if found is None:
            return Answer(204)
        details = audit.Details(
            role=found.role,
            scope=found.scope,
            principal_id=found.principal_id,
            principal_type=found.principal_type,
        )
        try:
            await self._store.delete_role_assignment(found.id)
        except NotFound:
            return Answer(204)
        return Answer(200, _shown(found), details=details)

    async def _list(self, call: Call) -> Answer:
        """At the scope and above it; below it too, but for ``atScope()``."""
        _check_scope(call)
        scope = _canonical(call)
        at_scope, equal = _filter(call, functions=("atscope",), fields=("principalid", "assignedto"))
        if "assignedto" in equal:
            raise errors.invalid_filter(
                call.request.parameter("$filter") or "",
                "the members of groups are not known here; use principalId",
            )
        holder = equal.get("principalid")
        found = [
            one
            for one in call.directory.assignments
            if (covers(one.scope, scope) or (not at_scope and covers(scope, one.scope)))
            and (holder is None or _principal_id(one.principal_id) == _principal_id(holder))
        ]
        return call.page(found, lambda one: one.id, _shown, self._page)

    # ----------------------------------------------------------------------------------------------- definitions

    async def _definition(self, call: Call) -> Answer:
        _check_scope(call)
        role = ROLES.get(call.asked.names["definition"].lower())
        if role is None:
            raise errors.role_definition_not_found(call.asked.names["definition"])
        return Answer(200, _definition(role, call.place))

    async def _definitions(self, call: Call) -> Answer:
        _check_scope(call)
        _, equal = _filter(call, functions=("atscopeandbelow", "atscope"), fields=("rolename", "type"))
        name, kind = equal.get("rolename"), equal.get("type")
        found = [
            role
            for role in ROLES.values()
            if (name is None or role.name.lower() == name.lower())
            and (kind is None or kind.lower() == "builtinrole")
        ]
        return call.page(found, lambda role: role.id, lambda role: _definition(role, call.place), self._page)


def _principal_id(text: str) -> str:
    """In lower case where it is a GUID; subjects of other issuers than Entra may differ by case alone."""
    return text.lower() if _GUID.fullmatch(text) else text


def _check_scope(call: Call) -> None:
    """An account was looked for before; so was what is above it."""
    place = call.place
    if place.deployment and call.directory.deployment(place.account_id, place.deployment) is None:
        raise errors.deployment_not_found(place.deployment, place.account)


def _canonical(call: Call) -> str:
    """Id of the scope, as its parts were written when they were made."""
    place = call.place
    if place.account:
        account = call.directory.account(place.account_id)
        if account is not None:
            record = call.directory.deployment(account.id, place.deployment) if place.deployment else None
            return account.id if record is None else record.id
    subscription = call.subscriptions.get(id_key(place.subscription))
    if subscription is None:
        return place.scope
    return Place(subscription=subscription.id, group=subscription.group(place.group) or place.group).scope


def _filter(call: Call, *, functions: tuple[str, ...], fields: tuple[str, ...]) -> tuple[bool, dict[str, str]]:
    """``f() and a eq 'b'``, as far as it is used: whether ``atScope()`` is asked for, and what must be equal, by
    lower-case name. Raises ArmError."""
    given = call.request.parameter("$filter")
    if not given:
        return False, {}
    at_scope, equal = False, {}
    for part in re.split(r"\s+and\s+", given.strip(), flags=re.IGNORECASE):
        found = _EQUALS.fullmatch(part.strip())
        name = "" if found is None else (found[1] or found[2]).lower()
        if found is None or name not in (functions if found[1] else fields):
            known = [f"{one}()" for one in functions] + [f"{one} eq '...'" for one in fields]
            raise errors.invalid_filter(given, f"it is made of {', '.join(known)}, joined by 'and'.")
        if found[1]:
            at_scope = at_scope or name == "atscope"
        else:
            equal[name] = found[3]
    return at_scope, equal


def _definition_id(role_id: str, subscription: str) -> str:
    within = f"/subscriptions/{subscription}" if subscription else ""
    return f"{within}/providers/{AUTHORIZATION}/roleDefinitions/{role_id}"


def _shown(one: RoleAssignment) -> dict[str, Any]:
    role = role_of(one.role)
    place = Place.parse(one.scope)
    # A declared one may name a role that a later version of this server does not have any more.
    within = "" if place is None else place.subscription
    return bodies.role_assignment(one, one.role if role is None else _definition_id(role.id, within))


def _definition(role: Role, place: Place) -> dict[str, Any]:
    return {
        "id": _definition_id(role.id, place.subscription),
        "name": role.id,
        "type": f"{AUTHORIZATION}/roleDefinitions",
        "properties": {
            "roleName": role.name,
            "type": "BuiltInRole",
            "description": "",
            "assignableScopes": ["/"],
            "permissions": [
                {
                    "actions": list(role.actions),
                    "notActions": list(role.not_actions),
                    "dataActions": list(role.data_actions),
                    "notDataActions": list(role.not_data_actions),
                }
            ],
        },
    }
