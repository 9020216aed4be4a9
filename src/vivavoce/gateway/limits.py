"""What Resource Manager does not let anybody put: models that are not offered, and more than the pages allow.

Laws
----
1. Pure over a directory: every function may be the ``check`` of a change in a store, and then sees what nobody else
   can change meanwhile.
2. What the configuration declares counts, and is never refused: it is there already.

The numbers are of protocol section 9.2, and ``[limits]`` changes them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vivavoce.config import CapacitySettings, Config, ConfigError, LimitSettings, ModelsSettings
from vivavoce.gateway.models.catalogue import (
    PROVISIONED_SKUS,
    STANDARD_SKUS,
    CatalogueError,
    ModelCatalogue,
    plain_region,
    shipped,
    shipped_tables,
)
from vivavoce.gateway.models.lifecycle import Refusal, has_ended, refusal_of_place, refusal_of_version
from vivavoce.gateway.resource import Account, DeploymentRecord, Directory, Model, same_id

FINE_TUNED_MARK = ".ft-"
"""In the name of every fine-tuned model: ``gpt-4o-mini-2024-07-18.ft-0e208cf3...``."""
_UNIT = 1000


def catalogue_of(config: Config) -> ModelCatalogue:
    """What is known of models, with the operator's own. Raises :class:`ConfigError`."""
    if config.models.catalogue is None:
        return shipped()
    try:
        return ModelCatalogue([*shipped_tables(), config.own_models])
    except CatalogueError as error:
        raise ConfigError("models.catalogue", f"{config.models.catalogue}: {error}") from None


def today() -> dt.date:
    """In UTC."""
    return dt.datetime.now(dt.UTC).date()


def is_fine_tuned(model: Model) -> bool:
    return model.source_account is not None or FINE_TUNED_MARK in model.name


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be put, and what works no more; a refusal is an answer with status 400."""

    catalogue: ModelCatalogue
    models: ModelsSettings = field(default_factory=ModelsSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    day: Callable[[], dt.date] = today
    capacities: tuple[CapacitySettings, ...] = ()

    @classmethod
    def of(cls, config: Config, day: Callable[[], dt.date] = today) -> Rules:
        """Those of a configuration. Raises :class:`ConfigError`."""
        return cls(catalogue_of(config), config.models, config.limits, day, config.capacities)

    def default_version(self, model: str, model_format: str = "OpenAI") -> str | None:
        """What a deployment gets that names no version; None for a model that the catalogue does not know."""
        known = self.catalogue.model(model, model_format)
        return None if known is None else known.default_version(self.day())

    def account(self, account: Account, directory: Directory) -> Refusal | None:
        """May it be put?"""
        others = [
            other
            for other in directory.accounts
            if same_id(other.subscription, account.subscription)
            and plain_region(other.location) == plain_region(account.location)
            and not same_id(other.id, account.id)
        ]
        if len(others) < self.limits.accounts_per_region:
            return None
        return Refusal(
            "QuotaExceeded",
            f"The subscription has {len(others)} accounts in the region '{account.location}', and the maximum is "
            f"{self.limits.accounts_per_region}.",
        )

    def deployment(self, record: DeploymentRecord, directory: Directory) -> Refusal | None:
        """May it be put? An account that is not there is for others to complain about."""
        account = directory.account(record.account)
        if account is None:
            return None
        return (
            self._model(record, account)
            or self._numbers(record, directory)
            or self._government(record, account, directory)
        )

    def units_left(self, sku: str, location: str, directory: Directory) -> int | None:
        """What a region still has of a provisioned sku, for whoever comes first: PTU, never below 0. None: as many
        as anybody likes. What is declared runs there too, so it counts."""
        region = plain_region(location)
        for one in self.capacities:
            if one.sku == sku and plain_region(one.location) == region:
                used = sum(
                    record.sku.capacity
                    for account in directory.accounts
                    if plain_region(account.location) == region
                    for record in directory.deployments(account.id)
                    if record.sku.name == sku
                )
                return max(0, one.units - used)
        return None

    def has_ended(self, record: DeploymentRecord) -> bool:
        """Its version is retired, and it will get no other: sessions are refused (``errors.model_retired``). What
        is declared gets no other ever: the file says its version."""
        policy = self.models.lifecycle
        if policy == "off" or (record.declared and policy != "all"):
            return False
        if record.declared:
            version = self.catalogue.find(record.model.name, record.model.version, record.model.format)
            return version is not None and version.is_retired(self.day())
        return has_ended(record.model, record.sku.name, record.version_upgrade_option, self.catalogue, self.day())

    def _model(self, record: DeploymentRecord, account: Account) -> Refusal | None:
        if self.models.lifecycle != "off":
            refusal = refusal_of_version(record.model, self.catalogue, self.day())
            if refusal is not None:
                return refusal
        if self.models.regions:
            return refusal_of_place(record.model, record.sku.name, account.location, self.catalogue)
        return None

    def _numbers(self, record: DeploymentRecord, directory: Directory) -> Refusal | None:
        others = [one for one in directory.deployments(record.account) if not same_id(one.id, record.id)]
        standard = sum(one.sku.name in STANDARD_SKUS for one in others)
        if record.sku.name in STANDARD_SKUS and standard >= self.limits.deployments_per_account:
            return _too_many("standard deployments", standard, self.limits.deployments_per_account)
        tuned = sum(is_fine_tuned(one.model) for one in others)
        if is_fine_tuned(record.model) and tuned >= self.limits.fine_tuned_deployments:
            return _too_many("deployments of fine-tuned models", tuned, self.limits.fine_tuned_deployments)
        if record.sku.name in PROVISIONED_SKUS and record.sku.capacity > self.limits.ptus_per_deployment:
            return Refusal(
                "InvalidCapacity",
                f"The specified capacity '{record.sku.capacity}' of account deployment should be no more than "
                f"{self.limits.ptus_per_deployment}.",
            )
        return None

    def _government(self, record: DeploymentRecord, account: Account, directory: Directory) -> Refusal | None:
        maximum = self.catalogue.government_maximum(record.model.name, account.location)
        if not self.limits.government_quota or maximum is None or record.sku.name not in STANDARD_SKUS:
            return None
        region = plain_region(account.location)
        used = sum(
            one.sku.capacity
            for other, one in _of_subscription(account.subscription, directory)
            if plain_region(other.location) == region
            and one.model.name == record.model.name
            and one.sku.name in STANDARD_SKUS
            and not same_id(one.id, record.id)
        )
        left = max(0, maximum // _UNIT - used)
        if record.sku.capacity <= left:
            return None
        return Refusal(
            "InsufficientQuota",
            f"The specified capacity '{record.sku.capacity}' of account deployment is bigger than available "
            f"capacity '{left}' for UsageName 'Tokens Per Minute (thousands) - {record.model.name}'.",
        )


def _of_subscription(subscription: str, directory: Directory) -> Iterator[tuple[Account, DeploymentRecord]]:
    for account in directory.accounts:
        if same_id(account.subscription, subscription):
            for record in directory.deployments(account.id):
                yield account, record


def _too_many(what: str, count: int, limit: int) -> Refusal:
    return Refusal("QuotaExceeded", f"The account has {count} {what}, and the maximum is {limit}.")
