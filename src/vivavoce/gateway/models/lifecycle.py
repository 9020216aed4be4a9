"""What time does to deployments: which of them get another version, which end, and what may be deployed today.

Laws
----
1. Pure: every function is told the catalogue and the day.
2. Only deployments of standard skus are upgraded, and only to a later version of the same model. What is
   provisioned stays as it is, and ends with its version (protocol section 9.5).
3. What the catalogue does not know, fine-tuned models among it, is left alone.
4. The texts of refusals are those of the service, as its users have reported them.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from vivavoce.gateway.models.catalogue import STANDARD_SKUS, ModelCatalogue, plain_region
from vivavoce.gateway.resource import Model, VersionUpgradeOption


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why Resource Manager does not take a request: an error body with status 400."""

    code: str
    message: str


def due_version(
    model: Model, sku: str, option: VersionUpgradeOption | None, catalogue: ModelCatalogue, day: dt.date
) -> str | None:
    """The version that a deployment should have on that day instead of its own; None when it keeps it.

    ``OnceNewDefaultVersionAvailable`` follows the default version from its day on, ``OnceCurrentVersionExpired``
    (None means it) when the own version retires, ``NoAutoUpgrade`` never. Nobody is brought to a version that is
    older, or retired itself.
    """
    known = catalogue.model(model.name, model.format)
    if known is None or sku not in STANDARD_SKUS or option == "NoAutoUpgrade":
        return None
    present, default = known.find(model.version), known.default_version(day)
    if present is None or default is None:
        return None
    target = known.find(default)
    assert target is not None, "checked with the catalogue"
    if not known.is_later(default, model.version) or target.is_retired(day):
        return None
    follows = option == "OnceNewDefaultVersionAvailable" or present.is_retired(day)
    return default if follows else None


def has_ended(
    model: Model, sku: str, option: VersionUpgradeOption | None, catalogue: ModelCatalogue, day: dt.date
) -> bool:
    """Its version is retired, and it gets no other: it answers nobody any more. One that waits for its upgrade
    works on."""
    version = catalogue.find(model.name, model.version, model.format)
    if version is None or not version.is_retired(day):
        return False
    return due_version(model, sku, option, catalogue, day) is None


def refusal_of_version(model: Model, catalogue: ModelCatalogue, day: dt.date) -> Refusal | None:
    """May this version be deployed on that day? One that is deprecated may: it ends for new customers alone, and
    whoever runs this server is none."""
    known = catalogue.model(model.name, model.format)
    if known is None:
        return None
    version = known.find(model.version)
    written = f"Format:{model.format},Name:{model.name},Version:{model.version}"
    if version is None:
        return Refusal(
            "DeploymentModelNotSupported",
            f"The model 'Format: {model.format}, Name: {model.name}, Version: {model.version}' of account "
            "deployment is not supported.",
        )
    if version.is_retired(day):
        assert version.retirement is not None
        since = version.retirement.strftime("%m/%d/%Y 00:00:00")
        return Refusal("ServiceModelDeprecated", f"The model '{written}' has been deprecated since {since}.")
    return None


def refusal_of_place(model: Model, sku: str, location: str, catalogue: ModelCatalogue) -> Refusal | None:
    """Does the service offer this version with this sku, and there? A location that it does not have is an
    operator's own, where everything is offered."""
    skus = catalogue.skus(model.name, model.version)
    if not skus or not catalogue.knows_region(location):
        return None
    if sku not in skus:
        return Refusal(
            "InvalidResourceProperties",
            f"The specified SKU '{sku}' of account deployment is not supported by the model '{model.name}' "
            f"version: '{model.version}'.",
        )
    region = plain_region(location)
    if region not in catalogue.regions(model.name, model.version, sku):
        return Refusal(
            "InvalidResourceProperties",
            f"The specified SKU '{sku}' for model '{model.name} {model.version}' is not supported in this region "
            f"'{region}'.",
        )
    return None
