"""What may be deployed in a region, and how much of it: the catalogue as the management API shows it.

A model that the catalogue does not know, fine-tuned ones among them, is this server's own: every sku is offered,
and no quota is told. So is everything in a location that the service does not have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from vivavoce.gateway.limits import Rules
from vivavoce.gateway.models.catalogue import (
    PROVISIONED_SKUS,
    SKUS,
    CatalogueModel,
    ModelVersion,
    plain_region,
)
from vivavoce.gateway.resource import OPENAI_FORMAT, Model

MAX_CAPACITY: Final = 10_000_000

# The service's words for what the catalogue calls deprecated (no new customers) and retired.
_LIFECYCLE: Final = {"Deprecated": "Deprecating", "Retired": "Deprecated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedSku:
    """A sku that a model has in a region."""

    name: str
    usage: str
    """Name of the quota that it takes from: ``OpenAI.GlobalStandard.gpt-realtime``."""
    title: str
    """The same for people."""
    limit: int | None
    """What a subscription has of that quota in the region; None: as much as it likes."""
    minimum: int = 1
    """Of a deployment's capacity; the least is what one gets that names none."""
    step: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A version of a model in a region."""

    name: str
    version: str
    is_default: bool
    format: str = OPENAI_FORMAT
    skus: Sequence[OfferedSku] = ()
    capabilities: Mapping[str, str] = field(default_factory=dict)
    lifecycle: str | None = None
    retirement: str | None = None
    """``2026-03-24T00:00:00Z``."""

    def sku(self, name: str) -> OfferedSku | None:
        return next((one for one in self.skus if one.name == name), None)


class Offers:
    """The catalogue, with what a subscription may use of it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.catalogue: Final = rules.catalogue

    def is_region(self, location: str) -> bool:
        """One of the service's."""
        return self.catalogue.knows_region(location)

    @property
    def regions(self) -> tuple[str, ...]:
        return self.catalogue.all_regions()

    def models(self, location: str) -> list[Offered]:
        """All that can be deployed in a region now."""
        found = []
        for model in self.catalogue:
            for version in model.versions:
                offered = self._offered(model, version, location)
                if offered.skus and not version.is_retired(self._rules.day()):
                    found.append(offered)
        return found

    def offered(self, model: Model, location: str) -> Offered:
        """What a location has of a model, retired or not; nothing of a version that is not in the catalogue."""
        known = self.catalogue.model(model.name, model.format)
        if known is None:
            skus = tuple(self.sku(model.name, name, location) for name in SKUS)
            return Offered(name=model.name, version=model.version, is_default=True, skus=skus)
        version = known.find(model.version)
        if version is None:
            return Offered(name=model.name, version=model.version, is_default=False)
        return self._offered(known, version, location)

    def _offered(self, model: CatalogueModel, version: ModelVersion, location: str) -> Offered:
        day = self._rules.day()
        status = version.status(day)
        return Offered(
            name=model.name,
            version=version.version,
            is_default=model.default_version(day) == version.version,
            format=model.format,
            skus=tuple(self._skus(model.name, version.version, location)),
            capabilities=dict.fromkeys(model.capabilities, "true"),
            lifecycle=_LIFECYCLE.get(status, status),
            retirement=None if version.retirement is None else f"{version.retirement}T00:00:00Z",
        )

    def _skus(self, name: str, version: str, location: str) -> Iterator[OfferedSku]:
        everywhere = self.catalogue.skus(name, version)
        known = everywhere and self.catalogue.knows_region(location)
        for sku in self.catalogue.skus(name, version, location) if known else everywhere or SKUS:
            yield self.sku(name, sku, location)

    def sku(self, model: str, sku: str, location: str) -> OfferedSku:
        """What a sku means for a model in a location, whether it is offered there or not."""
        if sku in PROVISIONED_SKUS:
            throughput = self.catalogue.throughput(model)
            minimum, step = (1, 1) if throughput is None else throughput.sizes(sku)
            title = f"Provisioned Throughput Units - {sku}"
            usage = f"{OPENAI_FORMAT}.{sku}"
            limit = self._rules.limits.ptus_per_region
            return OfferedSku(name=sku, usage=usage, title=title, limit=limit, minimum=minimum, step=step)
        return OfferedSku(
            name=sku,
            usage=f"{OPENAI_FORMAT}.{sku}.{model}",
            title=f"Tokens Per Minute (thousands) - {model} - {sku}",
            limit=self._limit(model, sku, location),
        )

    def _limit(self, model: str, sku: str, location: str) -> int | None:
        """In thousands of tokens per minute."""
        row = self.catalogue.quota(model, sku)
        tokens = None if row is None else row.tokens_per_minute
        most = self.catalogue.government_maximum(model, location) if self._rules.limits.government_quota else None
        if most is not None:
            tokens = most if tokens is None else min(tokens, most)
        return None if tokens is None else tokens // 1000


def region_of(location: str) -> str:
    """``eastus2`` of ``East US 2``."""
    return plain_region(location)
