"""``vivavoce models``: the catalogue of models on the command line."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from vivavoce.config import load_config

if TYPE_CHECKING:
    from vivavoce.gateway.models.catalogue import CatalogueModel, ModelCatalogue, ModelVersion

_WHERE_NOTHING_IS_KNOWN = "any"


def models(
    region: Annotated[
        str | None, typer.Option(metavar="NAME", help="Those that can be deployed there, as in eastus2.")
    ] = None,
    sku: Annotated[
        str | None, typer.Option(metavar="NAME", help="Those that can be deployed with it, as in GlobalStandard.")
    ] = None,
    realtime: Annotated[bool, typer.Option("--realtime", help="Those that speak in realtime sessions.")] = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Configuration file (TOML) with models of your own.", metavar="FILE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the models that are known: their versions, how long these live, and where they can be deployed."""
    from vivavoce.gateway.limits import catalogue_of, today
    from vivavoce.gateway.models.catalogue import SKUS

    catalogue = catalogue_of(load_config(config, environ=os.environ))
    if sku is not None and sku not in SKUS:
        raise typer.BadParameter(f"'{sku}' is not one of {', '.join(SKUS)}", param_hint="--sku")
    if region is not None and not catalogue.knows_region(region):
        raise typer.BadParameter(
            f"'{region}' is not one of {', '.join(catalogue.all_regions())}", param_hint="--region"
        )
    day = today()
    rows = [
        _row(catalogue, model, version, day)
        for model in catalogue
        for version in model.versions
        if (not realtime or "realtime" in model.capabilities)
        and _is_offered(catalogue, model, version, region, sku)
    ]
    if as_json:
        typer.echo(msgspec.json.encode({"models": rows}))
    else:
        _print(rows)


def _is_offered(
    catalogue: ModelCatalogue, model: CatalogueModel, version: ModelVersion, region: str | None, sku: str | None
) -> bool:
    skus = catalogue.skus(model.name, version.version)
    if not skus:
        return True
    offered = catalogue.skus(model.name, version.version, region)
    return bool(offered) and (sku is None or sku in offered)


def _row(catalogue: ModelCatalogue, model: CatalogueModel, version: ModelVersion, day: dt.date) -> dict[str, Any]:
    skus = catalogue.skus(model.name, version.version)
    return {
        "name": model.name,
        "version": version.version,
        "format": model.format,
        "capabilities": model.capabilities,
        "status": version.status(day),
        "is_default": model.default_version(day) == version.version,
        "deprecation": version.deprecation,
        "retirement": version.retirement,
        "retirement_not_before": version.retirement_not_before,
        "replacement": version.replacement,
        "context_window": version.context_window,
        "max_input_tokens": version.max_input_tokens,
        "max_output_tokens": version.max_output_tokens,
        "regions": {sku: catalogue.regions(model.name, version.version, sku) for sku in skus},
    }


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from vivavoce.cli_engines import print_table

    table = Table("model", "version", "status", "retirement", "can", "skus (regions)")
    for row in rows:
        promise = row["retirement_not_before"]
        retirement = row["retirement"] or (f"not before {promise}" if promise else "")
        places = ", ".join(f"{sku} ({len(regions)})" for sku, regions in row["regions"].items())
        version = f"{row['version']} (default)" if row["is_default"] else row["version"]
        table.add_row(
            row["name"],
            version,
            row["status"],
            str(retirement),
            ", ".join(row["capabilities"]),
            places or _WHERE_NOTHING_IS_KNOWN,
        )
    print_table(table)
