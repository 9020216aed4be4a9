"""The catalogue of models that comes with the package, and what a catalogue must not say."""

from __future__ import annotations

import copy
import datetime as dt
import tomllib
from typing import Any, get_args

import models_page
import pytest

from vivavoce.gateway.models import catalogue as module
from vivavoce.gateway.models.catalogue import CatalogueError, ModelCatalogue, shipped, shipped_tables


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


SOURCE: dict[str, Any] = {"title": "T", "url": "https://example.org", "date": day("2026-01-01"), "evidence": "own"}


def version(name: str, **more: Any) -> dict[str, Any]:
    return {"version": name, "stage": "Preview", "source": "s", "retirement": day("2026-06-01"), **more}


def tables() -> dict[str, Any]:
    return {
        "source": {"s": SOURCE},
        "unit": {"tokens_per_minute": 1000, "requests_per_minute": 6, "source": "s"},
        "model": [
            {
                "name": "m",
                "capabilities": ["realtime"],
                "default": [{"version": "1", "since": day("2025-01-01")}],
                "version": [version("1"), version("2")],
            }
        ],
        "availability": [{"sku": "Standard", "source": "s", "versions": ["m 1"], "regions": ["here", "there"]}],
        "quota": [
            {"model": "m", "sku": "Standard", "tokens_per_minute": 10, "requests_per_minute": 1, "source": "s"}
        ],
        "government": [{"model": "m", "tokens_per_minute": 10, "source": "s"}],
        "throughput": [
            {
                "model": "m", "global_minimum": 15, "global_step": 5, "regional_minimum": 50, "regional_step": 50,
                "input_tokens_per_minute": 2500, "output_tokens_per_minute": 500, "source": "s",
            }
        ],
    }  # fmt: skip


def test_what_is_shipped_contradicts_itself_nowhere() -> None:
    found = ModelCatalogue(shipped_tables())
    assert len(list(found)) >= 20
    assert {model.name for model in found} >= {"gpt-4o-realtime-preview", "gpt-realtime", "gpt-4o", "whisper"}


def test_every_fact_that_is_shipped_has_a_page_or_a_report_with_its_day() -> None:
    for source in shipped().sources.values():
        assert source.title
        assert source.url.startswith("https://")
        assert day("2024-10-01") <= source.date <= day("2026-09-01")
        assert source.evidence in ("page", "report")


def test_every_source_is_used() -> None:
    found = shipped()
    assert set(found._used_sources()) == set(found.sources)


@pytest.mark.parametrize(
    ("name", "of", "retired", "status_before"),
    [
        ("gpt-4o-realtime-preview", "2024-10-01", "2025-03-26", "Deprecated"),
        ("gpt-4o-realtime-preview", "2024-12-17", "2026-03-24", "Preview"),
        ("gpt-realtime", "2025-08-28", "2027-02-28", "Deprecated"),
        ("gpt-realtime-mini", "2025-10-06", "2026-07-23", "GenerallyAvailable"),
        ("gpt-4o", "2024-05-13", "2026-10-01", "Deprecated"),
        ("gpt-35-turbo", "0613", "2025-02-13", "GenerallyAvailable"),
    ],
)
def test_a_version_lives_until_the_day_before_its_retirement(
    name: str, of: str, retired: str, status_before: str
) -> None:
    found = shipped().find(name, of)
    assert found is not None
    assert found.status(day(retired) - dt.timedelta(days=1)) == status_before
    assert found.status(day(retired)) == "Retired"


def test_a_promise_of_no_retirement_before_a_day_is_no_retirement() -> None:
    found = shipped().find("gpt-35-turbo", "0125")
    assert found is not None
    assert found.retirement_not_before == day("2025-05-31")
    assert found.status(day("2100-01-01")) == "GenerallyAvailable"


def test_the_default_version_of_a_day() -> None:
    model = shipped().model("gpt-4o")
    assert model is not None
    assert model.default_version(day("2024-05-12")) is None
    assert model.default_version(day("2025-02-12")) == "2024-05-13"
    assert model.default_version(day("2025-02-13")) == "2024-08-06"


def test_realtime_models_are_in_two_regions_with_global_standard_alone() -> None:
    found = shipped()
    for of in ("2024-10-01", "2024-12-17", "2025-06-03"):
        assert found.skus("gpt-4o-realtime-preview", of) == ("GlobalStandard",)
        assert found.regions("gpt-4o-realtime-preview", of, "GlobalStandard") == ("eastus2", "swedencentral")
    assert found.skus("gpt-realtime", "2025-08-28", "East US 2") == ("GlobalStandard",)
    assert found.skus("gpt-realtime", "2025-08-28", "westus") == ()


def test_government_regions_have_their_own_models_and_maxima() -> None:
    found = shipped()
    there = {
        region: {
            (model.name, of.version)
            for model in found
            for of in model.versions
            if "Standard" in found.skus(model.name, of.version, region)
        }
        for region in module.GOVERNMENT_REGIONS
    }
    assert there["usgovarizona"] - there["usgovvirginia"] == {
        ("gpt-4o-mini", "2024-07-18"),
        ("text-embedding-3-large", "1"),
    }
    assert there["usgovvirginia"] - there["usgovarizona"] == {("gpt-35-turbo", "1106")}
    assert there["usgovarizona"] & there["usgovvirginia"] == {
        ("gpt-4o", "2024-05-13"),
        ("gpt-4", "1106-Preview"),
        ("gpt-35-turbo", "0125"),
        ("text-embedding-ada-002", "2"),
    }
    assert found.government_maximum("gpt-4o", "USGov Arizona") == 300_000
    assert found.government_maximum("gpt-4o", "eastus2") is None
    assert found.government_maximum("gpt-realtime", "usgovarizona") is None


def test_a_unit_is_worth_the_ratio_of_the_default_quota() -> None:
    found = shipped()
    assert found.unit_of("gpt-4o", "GlobalStandard").requests_per_minute == 6
    assert found.unit_of("nobody-knows-it", "Standard").requests_per_minute == 6
    assert found.unit_of("gpt-realtime", "GlobalStandard").requests_per_minute == 1
    assert found.unit_of("gpt-4o-realtime-preview", "GlobalStandard").requests_per_minute == 1.25
    assert found.unit_of("gpt-realtime", "GlobalStandard").tokens_per_minute == 1000


def test_sizes_of_provisioned_deployments() -> None:
    row = shipped().throughput("gpt-4o")
    assert row is not None
    assert (row.input_tokens_per_minute, row.output_tokens_per_minute) == (2500, 833)
    assert row.sizes("ProvisionedManaged") == (50, 50)
    assert row.sizes("GlobalProvisionedManaged") == row.sizes("DataZoneProvisionedManaged") == (15, 5)
    four = shipped().throughput("gpt-4.1")
    assert four is not None
    assert four.output_weight == 4
    assert shipped().throughput("gpt-realtime") is None


def test_the_window_of_ga_models() -> None:
    found = shipped().find("gpt-realtime", "2025-08-28")
    assert found is not None
    assert (found.context_window, found.max_input_tokens, found.max_output_tokens) == (32_768, 28_672, 4_096)


def test_every_sku_is_standard_or_provisioned() -> None:
    assert set(module.SKUS) == set(get_args(module.Sku))


# ------------------------------------------------------------------------------------------ what must not be said


def _set(path: str, value: object) -> Any:
    def change(table: dict[str, Any]) -> None:
        *way, last = path.split(".")
        place: Any = table
        for step in way:
            place = place[int(step)] if step.isdigit() else place[step]
        place[int(last) if last.isdigit() else last] = value

    return change


def _add(path: str, value: object) -> Any:
    def change(table: dict[str, Any]) -> None:
        place: Any = table
        for step in path.split("."):
            place = place[int(step)] if step.isdigit() else place[step]
        place.append(value)

    return change


BAD: list[tuple[str, Any, str]] = [
    ("a model twice", lambda t: t["model"].append(copy.deepcopy(t["model"][0])), "model 'm' is there twice"),
    ("a version twice", _add("model.0.version", version("1")), "a version of m is there twice: 1"),
    ("a region twice", _add("availability.0.regions", "here"), "a region of Standard is there twice: here"),
    (
        "a region in two rows",
        _add("availability", {"sku": "Standard", "source": "s", "versions": ["m 1"], "regions": ["here"]}),
        "a region of m 1 Standard is there twice: here",
    ),
    ("regions of nothing", _set("availability.0.versions", ["m 3"]), "m 3, which is no version"),
    ("a region by its title", _set("availability.0.regions", ["East US"]), "'East US' is no name of a region"),
    (
        "no life",
        _set("model.0.version", [{"version": "1", "stage": "Preview", "source": "s"}]),
        "how long m 1 lives",
    ),
    ("two ends", _set("model.0.version.0.retirement_not_before", day("2026-01-01")), "m 1 has a day of retirement"),
    (
        "dates out of order",
        _set("model.0.version.0.deprecation", day("2026-06-02")),
        "deprecated after it is retired",
    ),
    ("no capability", _set("model.0.capabilities", []), "m can do nothing"),
    ("an unknown default", _set("model.0.default.0.version", "3"), "the default 3 of m is none of its versions"),
    (
        "two defaults of a day",
        _add("model.0.default", {"version": "2", "since": day("2025-01-01")}),
        "in the order",
    ),
    (
        "defaults going back",
        _set(
            "model.0.default",
            [{"version": "2", "since": day("2025-01-01")}, {"version": "1", "since": day("2025-02-01")}],
        ),
        "go back to an older version",
    ),
    ("counts without a source", _set("model.0.version.0.max_output_tokens", 5), "without a source of them"),
    ("a source without counts", _set("model.0.version.0.tokens_source", "s"), "without a source of them"),
    (
        "more input than window",
        _set("model.0.version.0", version("1", tokens_source="s", context_window=5, max_input_tokens=6)),
        "token counts that cannot be",
    ),
    ("no source", _set("model.0.version.0.source", "x"), "there is no source 'x'"),
    ("no source of regions", _set("availability.0.source", "x"), "there is no source 'x'"),
    ("a quota twice", lambda t: t["quota"].append(t["quota"][0]), "a quota is there twice"),
    ("a quota of nothing", _set("quota.0.model", "x"), "a quota of 'x', which is no model"),
    ("a throughput of 0", _set("throughput.0.global_step", 0), "has a number below 1"),
    ("no unit", lambda t: t.pop("unit"), "nothing says what a unit"),
    ("an unknown sku", _set("availability.0.sku", "Batch"), "Invalid enum value 'Batch'"),
    ("an unknown column", _set("model.0.version.0.colour", "red"), "unknown field `colour`"),
    ("no day", _set("model.0.version.0.retirement", "soon"), "retirement"),
]


@pytest.mark.parametrize(("change", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_catalogue_that_cannot_be_true_is_refused(change: Any, said: str) -> None:
    table = tables()
    ModelCatalogue([table])
    change(table)
    with pytest.raises(CatalogueError) as caught:
        ModelCatalogue([table])
    assert said in str(caught.value)


def test_an_own_file_adds_models_and_replaces_what_is_said_of_others() -> None:
    own = {
        "source": {"mine": SOURCE},
        "model": [
            {"name": "gpt-4o", "capabilities": ["chat"], "version": [version("mine", source="mine")]},
            {"name": "house", "capabilities": ["realtime"], "version": [version("1", source="mine")]},
        ],
    }
    found = ModelCatalogue([*shipped_tables(), own])
    assert found.find("gpt-4o", "2024-05-13") is None
    assert found.skus("gpt-4o", "2024-05-13") == ()
    assert found.quota("gpt-4o", "Standard") is None
    assert found.throughput("gpt-4o") is None
    assert found.government_maximum("gpt-4o", "usgovarizona") is None
    assert found.find("house", "1") is not None
    assert found.skus("gpt-4o-mini", "2024-07-18", "eastus") == shipped().skus(
        "gpt-4o-mini", "2024-07-18", "eastus"
    )
    assert all(not one.startswith("gpt-4o ") for row in found.availability for one in row.versions)


def test_two_files_may_not_call_two_things_by_one_name() -> None:
    other = {**SOURCE, "title": "U"}
    with pytest.raises(CatalogueError, match="two sources are called 's'"):
        ModelCatalogue([tables(), {"source": {"s": other}}])


# ------------------------------------------------------------------------------------------------------- the page


def test_the_page_of_models_is_up_to_date() -> None:
    """Otherwise: ``python scripts/compatibility.py --write``."""
    assert models_page.MODELS_PAGE.read_text(encoding="utf-8") == models_page.page()


def test_the_own_file_of_the_page_works() -> None:
    text = models_page.page().split("```toml\n")[1].split("```")[0]
    found = ModelCatalogue([*shipped_tables(), tomllib.loads(text)])
    assert found.skus("house-voice", "2", "eastus2") == ("GlobalStandard",)
