"""docs/reference/models.md: what stands before the tables, and the tables, made of the catalogue."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from vivavoce.gateway.models.catalogue import (
    GOVERNMENT_REGIONS,
    SKUS,
    CatalogueModel,
    ModelCatalogue,
    ModelVersion,
    shipped,
)

MODELS_PAGE: Final = Path(__file__).parent.parent.parent / "docs/reference/models.md"

_BEGINNING: Final = """\
# Models

What this server knows of the models of Azure OpenAI: versions and how long they live, regions, quotas, throughput
units. It is data, each row with the page that says so ([sources](#sources)); `vivavoce models` prints it.
This page is made by `scripts/compatibility.py`.

- A deployment that is made by the management API without a version gets the default version of the day.
- A version that is retired cannot be deployed (400 `ServiceModelDeprecated`). One that is deprecated can: the
  service refuses it to new customers only, and whoever runs this server is none.
- The management API refuses a version with a sku, or in a region, that the service does not offer (400
  `InvalidResourceProperties`), and more tokens than [Azure Government](#azure-government) grants (400
  `InsufficientQuota`).

[`[models]`](configuration.md#models) switches these off. Deployments in the configuration file are a developer's
emulator: their models need not be here, and never retire unless `lifecycle = "all"`. Fine-tuned models are not here
either, and never retire.

## Upgrades

| `versionUpgradeOption` | the deployment gets the default version |
|---|---|
| `OnceNewDefaultVersionAvailable` | on the day from which it is the default |
| `OnceCurrentVersionExpired`, or none | on the day on which its own version retires |
| `NoAutoUpgrade` | never; on the day on which its version retires it ends |

Days begin at 00:00 UTC, and the server looks every quarter of an hour. Only the skus `Standard`,
`GlobalStandard` and `DataZoneStandard` are upgraded; what is provisioned ends with its version. Nobody is
brought to an older version, or to one that is retired itself: where there is no other, the deployment ends. One
that has ended refuses connections: 410 `ModelDeprecated` on Azure's paths, `model_not_found` and close 4004 on
OpenAI's. Sessions that are open keep the version that they began with. Every upgrade is in the
[audit](audit.md).
"""

_OWN: Final = """\
## Models of your own

`[models] catalogue = "own.toml"` names a file that is read after the tables of this page. A model that is in both
is the file's: nothing of what is said here of it counts.

```toml
[source.mine]
title = "Our own models"
url = "https://example.org/models"
date = 2026-01-01
evidence = "own"

[[model]]
name = "house-voice"
capabilities = ["realtime"]          # and audio, chat, images, transcription, speech, embeddings
default = [{ version = "1", since = 2026-01-01 }, { version = "2", since = 2026-06-01 }]

[[model.version]]                    # in the order of their age
version = "1"
stage = "GenerallyAvailable"         # or Preview
deprecation = 2026-06-01             # optional
retirement = 2026-12-01              # or retirement_not_before
source = "mine"

[[model.version]]
version = "2"
stage = "GenerallyAvailable"
retirement_not_before = 2027-06-01
context_window = 32_000              # optional, as max_input_tokens and max_output_tokens;
tokens_source = "mine"               # with a source of these
source = "mine"

[[availability]]                     # optional: without any it can be deployed everywhere
sku = "GlobalStandard"
versions = ["house-voice 1", "house-voice 2"]
regions = ["eastus2"]
source = "mine"
```

`[[quota]]`, `[[government]]` and `[[throughput]]` have the columns of the tables above. `vivavoce check-config`
checks the file.
"""


def page() -> str:
    catalogue = shipped()
    return "\n".join(
        (
            _BEGINNING,
            *_lives(catalogue),
            *_regions(catalogue),
            *_quota(catalogue),
            *_government(catalogue),
            *_throughput(catalogue),
            _OWN,
            *_sources(catalogue),
        )
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join('' if cell is None else str(cell) for cell in row)} |"
    yield ""


def _lives(catalogue: ModelCatalogue) -> Iterator[str]:
    yield "## Versions\n"
    yield "`~`: not stated by the source, but worked out from it. A default counts from its day on.\n"
    rows = [_life(model, version) for model in catalogue for version in model.versions]
    yield from _table(
        ("model", "version", "stage", "default since", "deprecated", "retired", "window", "in", "out", "source"),
        rows,
    )


def _life(model: CatalogueModel, version: ModelVersion) -> tuple[object, ...]:
    default = next((one for one in model.default if one.version == version.version), None)
    since = None if default is None else _day(default.since, inferred=default.inferred)
    retired = _day(version.retirement, inferred=version.inferred)
    if version.retirement_not_before is not None:
        retired = f"not before {_day(version.retirement_not_before, inferred=version.inferred)}"
    counts = (version.context_window, version.max_input_tokens, version.max_output_tokens)
    sources = [_link(one) for one in dict.fromkeys((version.source, version.tokens_source)) if one is not None]
    return (
        f"`{model.name}`", f"`{version.version}`", version.stage, since, _day(version.deprecation), retired,
        *(None if count is None else f"{count:,}" for count in counts), ", ".join(sources),
    )  # fmt: skip


def _regions(catalogue: ModelCatalogue) -> Iterator[str]:
    yield "## Regions\n"
    yield "Versions that are missing here can be deployed everywhere: nothing is known of them.\n"
    rows = [
        (f"`{row.sku}`", ", ".join(f"`{one}`" for one in row.versions), ", ".join(row.regions), _link(row.source))
        for sku in SKUS
        for row in catalogue.availability
        if row.sku == sku
    ]
    yield from _table(("sku", "versions", "regions", "source"), rows)


def _quota(catalogue: ModelCatalogue) -> Iterator[str]:
    assert catalogue.unit is not None
    yield "## Quota\n"
    yield (
        f"A unit of capacity is {catalogue.unit.tokens_per_minute:,} tokens and "
        f"{catalogue.unit.requests_per_minute:g} requests per minute ({_link(catalogue.unit.source)}), unless the "
        "quota of the model has another ratio.\n"
        "What a subscription has in a region by default; a request of a realtime model is a connection:\n"
    )
    rows = [
        (f"`{row.model}`", f"`{row.sku}`", f"{row.tokens_per_minute:,}", f"{row.requests_per_minute:,}",
         f"{catalogue.unit_of(row.model, row.sku).requests_per_minute:g}", _link(row.source))
        for row in catalogue.quotas
    ]  # fmt: skip
    yield from _table(("model", "sku", "tokens per minute", "requests per minute", "per unit", "source"), rows)


def _government(catalogue: ModelCatalogue) -> Iterator[str]:
    yield "## Azure Government\n"
    places = " and ".join(f"`{region}`" for region in GOVERNMENT_REGIONS)
    yield f"Its regions are {places}, without realtime models. The most that a subscription gets in one of them:\n"
    rows = [(f"`{row.model}`", f"{row.tokens_per_minute:,}", _link(row.source)) for row in catalogue.government]
    yield from _table(("model", "tokens per minute", "source"), rows)


def _throughput(catalogue: ModelCatalogue) -> Iterator[str]:
    yield "## Provisioned throughput units\n"
    rows = [
        (f"`{row.model}`", row.global_minimum, row.global_step, row.regional_minimum, row.regional_step,
         f"{row.input_tokens_per_minute:,}", f"{row.output_tokens_per_minute:,}", _link(row.source))
        for row in catalogue.throughputs
    ]  # fmt: skip
    yield from _table(
        ("model", "least PTU, global and data zone", "step", "least PTU, regional", "step",
         "input tokens per minute and PTU", "output", "source"),
        rows,
    )  # fmt: skip


def _sources(catalogue: ModelCatalogue) -> Iterator[str]:
    yield "## Sources\n"
    rows = [
        (_link(key), f"[{source.title}]({source.url})", source.date, source.evidence)
        for key, source in catalogue.sources.items()
    ]
    yield from _table(("name", "title", "date", "evidence"), rows)


def _day(day: dt.date | None, *, inferred: bool = False) -> str | None:
    return None if day is None else f"{'~' if inferred else ''}{day}"


def _link(source: str) -> str:
    return f"`{source}`"
