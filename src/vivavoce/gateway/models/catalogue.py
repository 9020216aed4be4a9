"""The catalogue of models: what Azure's pages say of them, as data, each row with its source.

Laws
----
1. The facts are in ``data/*.toml``; this module knows none. What no source says is None, never a guess: a row that
   had to be worked out says ``inferred``.
2. A catalogue is checked when it is made (:class:`CatalogueError`), and immutable afterwards. Nothing here reads a
   clock: whoever asks says for which day.
3. A model that is not in it is nobody's fault: it has no life that ends, and may be deployed everywhere.

Days are UTC; the last day of a version is the one before its retirement. Source: protocol sections 9.1, 9.2, 9.5.
"""

from __future__ import annotations

import datetime as dt
import pkgutil
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import msgspec

Sku: TypeAlias = Literal[
    "Standard",
    "GlobalStandard",
    "DataZoneStandard",
    "ProvisionedManaged",
    "GlobalProvisionedManaged",
    "DataZoneProvisionedManaged",
]
STANDARD_SKUS: Final = ("Standard", "GlobalStandard", "DataZoneStandard")
"""Deployments of these are upgraded by the service; those of others by hand."""
PROVISIONED_SKUS: Final = ("ProvisionedManaged", "GlobalProvisionedManaged", "DataZoneProvisionedManaged")
SKUS: Final = STANDARD_SKUS + PROVISIONED_SKUS
GOVERNMENT_REGIONS: Final = ("usgovarizona", "usgovvirginia")

Stage: TypeAlias = Literal["Preview", "GenerallyAvailable"]
Status: TypeAlias = Literal["Preview", "GenerallyAvailable", "Deprecated", "Retired"]
"""``Deprecated``: there are no new customers, those who have it keep it."""
Capability: TypeAlias = Literal["realtime", "audio", "chat", "images", "transcription", "speech", "embeddings"]
Evidence: TypeAlias = Literal["page", "report", "own"]
"""Microsoft's page; what users told; a catalogue of this server's operator."""

_FILES: Final = ("models", "regions", "quota", "provisioned")


class CatalogueError(ValueError):
    """A catalogue contradicts itself, or has no form."""


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a fact comes from."""

    title: str
    url: str
    date: dt.date
    """Of the page, or of the account."""
    evidence: Evidence


class DefaultVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deployment gets that names no version, and what those are upgraded to that follow the default."""

    version: str
    since: dt.date
    inferred: bool = False


class ModelVersion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a model and its life."""

    version: str
    stage: Stage
    source: str
    """Of its dates."""
    deprecation: dt.date | None = None
    retirement: dt.date | None = None
    retirement_not_before: dt.date | None = None
    """A promise where no date is known; nothing happens on that day."""
    replacement: str | None = None
    inferred: bool = False
    """Its dates."""
    context_window: int | None = None
    """Tokens of input and output together."""
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    tokens_source: str | None = None

    def is_retired(self, day: dt.date) -> bool:
        return self.retirement is not None and self.retirement <= day

    def status(self, day: dt.date) -> Status:
        if self.is_retired(day):
            return "Retired"
        if self.deprecation is not None and self.deprecation <= day:
            return "Deprecated"
        return self.stage


class CatalogueModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model; its versions stand in the order of their age."""

    name: str
    capabilities: tuple[Capability, ...]
    version: tuple[ModelVersion, ...]
    default: tuple[DefaultVersion, ...] = ()
    format: str = "OpenAI"

    @property
    def versions(self) -> tuple[ModelVersion, ...]:
        return self.version

    def find(self, version: str) -> ModelVersion | None:
        return next((one for one in self.version if one.version == version), None)

    def default_version(self, day: dt.date) -> str | None:
        """Of that day; None when there was none yet."""
        return next((one.version for one in reversed(self.default) if one.since <= day), None)

    def is_later(self, version: str, than: str) -> bool:
        """Both are versions of this model."""
        order = [one.version for one in self.version]
        return order.index(version) > order.index(than)


class Availability(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where some versions, each written ``name version``, can be deployed with a sku."""

    sku: Sku
    source: str
    versions: tuple[str, ...]
    regions: tuple[str, ...]


class Unit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one unit of capacity allows."""

    tokens_per_minute: int
    requests_per_minute: float
    """Of a realtime model: new connections."""
    source: str


class QuotaRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a subscription may use in a region, unless it was granted more."""

    model: str
    sku: Sku
    tokens_per_minute: int
    requests_per_minute: int
    source: str


class GovernmentRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most that a government subscription is granted in a region."""

    model: str
    tokens_per_minute: int
    source: str


class Throughput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a provisioned throughput unit (PTU) is worth, and how many a deployment has."""

    model: str
    global_minimum: int
    global_step: int
    regional_minimum: int
    regional_step: int
    input_tokens_per_minute: int
    """Per PTU; so is the next."""
    output_tokens_per_minute: int
    source: str

    @property
    def output_weight(self) -> float:
        """How many input tokens one of output counts for."""
        return self.input_tokens_per_minute / self.output_tokens_per_minute

    def sizes(self, sku: str) -> tuple[int, int]:
        """The fewest PTU of a deployment with a provisioned sku, and the step above them."""
        if sku == "ProvisionedManaged":
            return self.regional_minimum, self.regional_step
        return self.global_minimum, self.global_step


class _Tables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of a catalogue. Every table may be in any file."""

    source: dict[str, Source] = {}
    model: tuple[CatalogueModel, ...] = ()
    availability: tuple[Availability, ...] = ()
    unit: Unit | None = None
    quota: tuple[QuotaRow, ...] = ()
    government: tuple[GovernmentRow, ...] = ()
    throughput: tuple[Throughput, ...] = ()


class ModelCatalogue:
    """All models, found by name and version. Names are compared as they are."""

    def __init__(self, tables: Iterable[Mapping[str, Any]]) -> None:
        """``tables``: files of TOML, as they were parsed; of two models with one name the later file's counts, with
        what it says of regions, quota and throughput. Raises :class:`CatalogueError`.
        """
        self.sources: dict[str, Source] = {}
        self._models: dict[tuple[str, str], CatalogueModel] = {}
        self._regions: dict[tuple[str, str], dict[str, tuple[str, ...]]] = {}
        self.availability: list[Availability] = []
        self.quotas: list[QuotaRow] = []
        self.government: list[GovernmentRow] = []
        self.throughputs: list[Throughput] = []
        self.unit: Unit | None = None
        for table in tables:
            self._add(_convert(table))
        self._check()

    def __iter__(self) -> Iterator[CatalogueModel]:
        return iter(self._models.values())

    # ------------------------------------------------------------------------------------------------- lookups

    def model(self, name: str, model_format: str = "OpenAI") -> CatalogueModel | None:
        return self._models.get((model_format, name))

    def find(self, name: str, version: str, model_format: str = "OpenAI") -> ModelVersion | None:
        model = self.model(name, model_format)
        return None if model is None else model.find(version)

    def regions(self, name: str, version: str, sku: str) -> tuple[str, ...]:
        """Where it can be deployed with this sku, in alphabetical order; empty for nowhere, and where nothing is
        known (see :meth:`skus`)."""
        return self._regions.get((name, version), {}).get(sku, ())

    def skus(self, name: str, version: str, region: str | None = None) -> tuple[str, ...]:
        """With which it can be deployed, in a region or at all. Empty where nothing is known of its regions."""
        known = self._regions.get((name, version), {})
        return tuple(sku for sku in SKUS if sku in known and (region is None or plain_region(region) in known[sku]))

    def knows_region(self, region: str) -> bool:
        """Somewhere in the catalogue; a location of an operator's own is none that it could judge."""
        return plain_region(region) in self.all_regions()

    def all_regions(self) -> tuple[str, ...]:
        return tuple(sorted({region for row in self.availability for region in row.regions}))

    def quota(self, name: str, sku: str) -> QuotaRow | None:
        """What a subscription has of a model in a region by default."""
        return next((row for row in self.quotas if (row.model, row.sku) == (name, sku)), None)

    def unit_of(self, name: str, sku: str) -> Unit:
        """What one unit of a standard deployment's capacity allows: 1000 tokens per minute and 6 requests, unless
        the default quota of the model has another ratio."""
        assert self.unit is not None, "checked"
        row = self.quota(name, sku)
        if row is None:
            return self.unit
        requests = row.requests_per_minute * self.unit.tokens_per_minute / row.tokens_per_minute
        return Unit(tokens_per_minute=self.unit.tokens_per_minute, requests_per_minute=requests, source=row.source)

    def government_maximum(self, name: str, region: str) -> int | None:
        """The most tokens per minute that a subscription gets of a model there; None where there is no such cap."""
        if plain_region(region) not in GOVERNMENT_REGIONS:
            return None
        return next((row.tokens_per_minute for row in self.government if row.model == name), None)

    def throughput(self, name: str) -> Throughput | None:
        """What a PTU is worth; None for a model that the pages do not sell so."""
        return next((row for row in self.throughputs if row.model == name), None)

    # ------------------------------------------------------------------------------------------------- making

    def _add(self, tables: _Tables) -> None:
        for key, source in tables.source.items():
            if self.sources.setdefault(key, source) != source:
                raise CatalogueError(f"two sources are called {key!r}")
        names = [(model.format, model.name) for model in tables.model]
        for twice in {name for name in names if names.count(name) > 1}:
            raise CatalogueError(f"model {twice[1]!r} is there twice")
        for model in tables.model:
            if (model.format, model.name) in self._models:
                self._forget(model.name)
            self._models[model.format, model.name] = model
        for row in tables.availability:
            self._add_availability(row)
        self.quotas += tables.quota
        self.government += tables.government
        self.throughputs += tables.throughput
        self.unit = tables.unit or self.unit

    def _forget(self, name: str) -> None:
        """What earlier files say of a model."""
        for key in [key for key in self._regions if key[0] == name]:
            del self._regions[key]
        self.availability = [
            msgspec.structs.replace(row, versions=kept)
            for row in self.availability
            if (kept := tuple(one for one in row.versions if one.rpartition(" ")[0] != name))
        ]
        self.quotas = [row for row in self.quotas if row.model != name]
        self.government = [row for row in self.government if row.model != name]
        self.throughputs = [row for row in self.throughputs if row.model != name]

    def _add_availability(self, row: Availability) -> None:
        _once(row.regions, f"a region of {row.sku}")
        for written in row.versions:
            name, _, version = written.rpartition(" ")
            by_sku = self._regions.setdefault((name, version), {})
            both = by_sku.get(row.sku, ()) + row.regions
            _once(both, f"a region of {written} {row.sku}")
            by_sku[row.sku] = tuple(sorted(both))
        self.availability.append(row)

    def _check(self) -> None:
        for model in self:
            _check_model(model)
        for (name, version), by_sku in self._regions.items():
            if not any(model.name == name and model.find(version) for model in self):
                raise CatalogueError(f"regions are told of {name} {version}, which is no version of a model")
            for region in (region for regions in by_sku.values() for region in regions):
                if plain_region(region) != region:
                    raise CatalogueError(f"{region!r} is no name of a region")
        _once([(row.model, row.sku) for row in self.quotas], "a quota")
        _once([row.model for row in self.government], "a maximum of government")
        _once([row.model for row in self.throughputs], "a throughput")
        names = {model.name for model in self}
        told = {
            "quota": [row.model for row in self.quotas],
            "maximum": [row.model for row in self.government],
            "throughput": [row.model for row in self.throughputs],
        }
        for what, of in told.items():
            for name in set(of) - names:
                raise CatalogueError(f"there is a {what} of {name!r}, which is no model")
        for one in self.throughputs:
            if min(msgspec.structs.astuple(one)[1:7]) < 1:
                raise CatalogueError(f"the throughput of {one.model!r} has a number below 1")
        if self.unit is None:
            raise CatalogueError("nothing says what a unit of capacity is")
        for key in self._used_sources():
            if key not in self.sources:
                raise CatalogueError(f"there is no source {key!r}")

    def _used_sources(self) -> Iterator[str]:
        for model in self:
            for version in model.version:
                yield version.source
                if version.tokens_source is not None:
                    yield version.tokens_source
        yield from (row.source for row in self.availability)
        yield from (row.source for row in self.quotas)
        yield from (row.source for row in self.government)
        yield from (row.source for row in self.throughputs)
        if self.unit is not None:
            yield self.unit.source


def _check_model(model: CatalogueModel) -> None:
    _once([one.version for one in model.version], f"a version of {model.name}")
    if not model.capabilities:
        raise CatalogueError(f"{model.name} can do nothing")
    since = [one.since for one in model.default]
    if since != sorted(set(since)):
        raise CatalogueError(f"the defaults of {model.name} are not in the order of their days")
    order = [one.version for one in model.version]
    places = []
    for default in model.default:
        if default.version not in order:
            raise CatalogueError(f"the default {default.version} of {model.name} is none of its versions")
        places.append(order.index(default.version))
    if places != sorted(set(places)):
        raise CatalogueError(f"the defaults of {model.name} go back to an older version")
    for one in model.version:
        where = f"{model.name} {one.version}"
        if one.retirement is None and one.retirement_not_before is None:
            raise CatalogueError(f"nothing says how long {where} lives")
        if one.retirement is not None and one.retirement_not_before is not None:
            raise CatalogueError(f"{where} has a day of retirement and a promise of none before another")
        if one.deprecation is not None and one.retirement is not None and one.deprecation > one.retirement:
            raise CatalogueError(f"{where} is deprecated after it is retired")
        counts = (one.context_window, one.max_input_tokens, one.max_output_tokens)
        told = [count for count in counts if count is not None]
        if bool(told) != (one.tokens_source is not None):
            raise CatalogueError(f"{where} has token counts without a source of them, or the other way round")
        if told and (min(told) < 1 or (one.context_window is not None and max(told) > one.context_window)):
            raise CatalogueError(f"{where} has token counts that cannot be")


def _once(values: Sequence[object], what: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise CatalogueError(f"{what} is there twice: {value}")
        seen.add(value)


def _convert(table: Mapping[str, Any]) -> _Tables:
    try:
        return msgspec.convert(table, _Tables)
    except msgspec.ValidationError as error:
        raise CatalogueError(str(error)) from None


def plain_region(location: str) -> str:
    """``East US 2`` and ``eastus2`` are one."""
    return location.replace(" ", "").lower()


@cache
def shipped_tables() -> tuple[Mapping[str, Any], ...]:
    """The files that come with the package, parsed."""
    return tuple(_shipped(name) for name in _FILES)


def _shipped(name: str) -> Mapping[str, Any]:
    data = pkgutil.get_data(__name__, f"data/{name}.toml")
    assert data is not None, "the loader of this package reads files"
    return tomllib.loads(data.decode())


@cache
def shipped() -> ModelCatalogue:
    """The catalogue that comes with the package."""
    return ModelCatalogue(shipped_tables())
