"""Accounts and their keys: the operations on ``.../accounts``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from vivavoce.gateway import audit
from vivavoce.gateway.arm import bodies, errors
from vivavoce.gateway.arm.call import PAGE, Answer, Call, Operation
from vivavoce.gateway.arm.offers import Offers, region_of
from vivavoce.gateway.limits import Rules
from vivavoce.gateway.resource import PROVIDER, Account, Directory, id_key, same_id
from vivavoce.gateway.store.base import Conflict, NotFound, Store

KIND: Final = "OpenAI"
SKU: Final = "S0"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,63}")
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")


class Accounts:
    """What can be done with accounts."""

    def __init__(
        self,
        store: Store,
        rules: Rules,
        offers: Offers,
        *,
        endpoint: str = "",
        page: int = PAGE,
    ) -> None:
        """``endpoint``: where clients of an account connect, with ``{account}`` for its subdomain; empty is where
        the request came to."""
        self._store = store
        self._offers = offers
        self._rules = rules
        self._endpoint = endpoint
        self._page = page
        self.operations: Mapping[str, Operation] = {
            "Accounts_Create": self._create,
            "Accounts_Update": self._update,
            "Accounts_Get": self._get,
            "Accounts_List": self._list,
            "Accounts_ListByResourceGroup": self._list,
            "Accounts_Delete": self._delete,
            "Accounts_ListKeys": self._list_keys,
            "Accounts_RegenerateKey": self._regenerate_key,
        }

    async def _get(self, call: Call) -> Answer:
        return self._shown(200, account_of(call), call)

    async def _list(self, call: Call) -> Answer:
        place = call.place
        inside = (
            one
            for one in call.directory.accounts
            if same_id(one.subscription, place.subscription)
            and (not place.group or same_id(one.resource_group, place.group))
        )
        readable = call.may_read(inside, lambda one: one.id)
        return call.page(readable, lambda one: one.id, lambda one: self._body(one, call), self._page)

    async def _create(self, call: Call) -> Answer:
        place = call.place
        subscription = call.subscriptions[id_key(place.subscription)]
        there = call.directory.account(place.account_id)
        sent = bodies.parse(call.request.body, bodies.AccountBody)
        if there is None and _NAME.fullmatch(place.account) is None:
            problem = "2 to 64 letters, digits, hyphens, underscores and periods, the first a letter or a digit."
            raise errors.invalid_name("account", place.account, problem)
        if sent.location is None:
            raise errors.location_required()
        location = self._location(call, sent.location)
        if there is not None and not same_id(there.location, location):
            raise errors.invalid_location_change(there.name, there.location, sent.location)
        _check_kind(sent.kind, required=True)
        _check_sku(sent.sku, required=True)
        account = Account(
            subscription=subscription.id if there is None else there.subscription,
            resource_group=subscription.group(place.group) or place.group,
            name=place.account if there is None else there.name,
            location=location,
            tenant=subscription.tenant if there is None else there.tenant,
            subdomain=_subdomain(sent.properties, place.account, there),
            tags=bodies.check_tags(sent.tags or {}),
        )
        _check_properties(sent.properties)
        return await self._put(call, account)

    async def _update(self, call: Call) -> Answer:
        there = account_of(call)
        sent = bodies.parse(call.request.body, bodies.AccountPatchBody)
        if sent.location is not None and not same_id(self._location(call, sent.location), there.location):
            raise errors.invalid_location_change(there.name, there.location, sent.location)
        _check_kind(sent.kind, required=False)
        _check_sku(sent.sku, required=False)
        _check_properties(sent.properties)
        account = Account(
            subscription=there.subscription,
            resource_group=there.resource_group,
            name=there.name,
            location=there.location,
            tenant=there.tenant,
            subdomain=_subdomain(sent.properties, there.name, there),
            tags=there.tags if sent.tags is None else bodies.check_tags(sent.tags),
        )
        return await self._put(call, account)

    async def _put(self, call: Call, account: Account) -> Answer:
        def check(directory: Directory) -> None:
            if directory.account(account.id) is not None:
                return
            taken = directory.account_of_host(account.subdomain)
            if taken is not None:
                raise errors.custom_domain_in_use(account.subdomain)
            refusal = self._rules.account(account, directory)
            if refusal is not None:
                raise errors.refused(refusal, "location")

        try:
            put = await self._store.put_account(
                account,
                by=call.actor,
                if_match=call.if_match,
                if_none_match=call.if_none_match,
                check=check,
            )
        except Conflict:
            raise errors.custom_domain_in_use(account.subdomain) from None
        return self._shown(201 if put.created else 200, put.value, call)

    async def _delete(self, call: Call) -> Answer:
        there = call.directory.account(call.place.account_id)
        if there is None:
            return Answer(204)
        try:
            await self._store.delete_account(there.id, if_match=call.if_match)
        except NotFound:
            return Answer(204)
        except Conflict:
            names = ", ".join(one.name for one in call.directory.deployments(there.id)[:10])
            raise errors.nested_resources(there.name, names) from None
        return Answer(200)

    # ------------------------------------------------------------------------------------------------------ keys

    async def _list_keys(self, call: Call) -> Answer:
        return Answer(200, await self._keys(account_of(call)))

    async def _regenerate_key(self, call: Call) -> Answer:
        account = account_of(call)
        slot = bodies.parse(call.request.body, bodies.RegenerateKeyBody).key_name.lower()
        if slot not in ("key1", "key2"):
            raise errors.invalid_property("'keyName' is 'Key1' or 'Key2'.", "keyName")
        await self._store.regenerate_key(account.id, slot)
        return Answer(200, await self._keys(account), details=audit.Details(key_slot=slot))

    async def _keys(self, account: Account) -> dict[str, str]:
        """Both; a slot that the configuration leaves empty is not there."""
        keys = await self._store.keys(account.id)
        return {slot: keys[slot].reveal() for slot in ("key1", "key2") if slot in keys}

    def _shown(self, status: int, account: Account, call: Call) -> Answer:
        return Answer(status, self._body(account, call), {"ETag": account.etag} if account.etag else {})

    def _body(self, account: Account, call: Call) -> dict[str, Any]:
        endpoint = self._endpoint.replace("{account}", account.subdomain) or f"{call.request.base}/"
        return bodies.account(account, endpoint)

    def _location(self, call: Call, text: str) -> str:
        """Its name, from the name or the display name: ``eastus2`` from ``East US 2``."""
        name = known_location(self._offers, call.directory, text)
        if name is None:
            raise errors.location_not_available(text, self._offers.regions)
        return name


def known_location(offers: Offers, directory: Directory, text: str) -> str | None:
    """The name of a region of the service, or of a location that an account is in; None for any other."""
    name = region_of(text)
    if offers.is_region(name):
        return name
    return next((one.location for one in directory.accounts if region_of(one.location) == name), None)


def account_of(call: Call) -> Account:
    """The account that the path names; that it is there was looked at before."""
    found = call.directory.account(call.place.account_id)
    if found is None:
        raise errors.resource_not_found(f"{PROVIDER}/accounts", call.place.account, call.place.group)
    return found


def _check_kind(kind: str | None, *, required: bool) -> None:
    if kind is None and not required:
        return
    if kind is None or kind.lower() != KIND.lower():
        raise errors.invalid_kind(kind)


def _check_sku(sku: bodies.SkuBody | None, *, required: bool) -> None:
    if sku is None:
        if required:
            raise errors.invalid_property(f"The sku of an account is '{SKU}'; none is given.", "sku")
        return
    if sku.name.upper() != SKU or sku.capacity is not None:
        raise errors.invalid_account_sku(sku.name)


def _check_properties(properties: bodies.AccountPropertiesBody | None) -> None:
    """What this server cannot do is refused, not ignored."""
    if properties is None:
        return
    if properties.public_network_access not in (None, "Enabled"):
        problem = "'publicNetworkAccess' is 'Enabled' here; who may reach the server is decided by its network."
        raise errors.invalid_property(problem, "properties.publicNetworkAccess")
    if properties.disable_local_auth:
        problem = "'disableLocalAuth' is not supported: keys open an account as long as it is there."
        raise errors.invalid_property(problem, "properties.disableLocalAuth")


def _subdomain(properties: bodies.AccountPropertiesBody | None, name: str, there: Account | None) -> str:
    given = None if properties is None else properties.custom_sub_domain_name
    if given is None:
        return "" if there is None else there.subdomain
    if there is not None and not same_id(given, there.subdomain):
        raise errors.invalid_property(
            "The custom subdomain of an account cannot be changed.", "properties.customSubDomainName"
        )
    if _SUBDOMAIN.fullmatch(given.lower()) is None:
        raise errors.custom_domain_invalid(given)
    return given.lower()
