"""``[models]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from vivavoce.config.convert import convert, table_of
from vivavoce.config.toml_file import read_toml
from vivavoce.config.values import Text

LifecyclePolicy: TypeAlias = Literal["off", "stored", "all"]


class ModelsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[models]``: what the catalogue of models decides."""

    lifecycle: LifecyclePolicy = "stored"
    """Whose versions retire and are upgraded: nobody's, those of deployments that were made by the management API,
    or those of ``[[deployment]]`` too, which are never upgraded."""
    regions: bool = True
    """The management API refuses a model where the service does not offer it. A location that is no region of the
    service has everything."""
    catalogue: Text | None = None
    """A file with models of one's own, read after those that are known. Once it is loaded it is a path as the
    process finds it."""


def read_models(table: Mapping[str, Any], base: Path) -> tuple[ModelsSettings, Mapping[str, Any]]:
    """And what the file of the catalogue holds, parsed; empty where there is none."""
    models = convert(table_of(table, "models"), ModelsSettings, "models")
    if models.catalogue is None:
        return models, {}
    path = base / models.catalogue
    return ModelsSettings(lifecycle=models.lifecycle, regions=models.regions, catalogue=str(path)), read_toml(path)
