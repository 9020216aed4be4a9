"""What time does to deployments."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.gateway.models.catalogue import PROVISIONED_SKUS, SKUS, ModelCatalogue, shipped
from vivavoce.gateway.models.lifecycle import (
    Refusal,
    due_version,
    has_ended,
    refusal_of_place,
    refusal_of_version,
)
from vivavoce.gateway.resource import Model, VersionUpgradeOption

NEW: Final = "OnceNewDefaultVersionAvailable"
EXPIRED: Final = "OnceCurrentVersionExpired"
NEVER: Final = "NoAutoUpgrade"
OPTIONS: tuple[VersionUpgradeOption | None, ...] = (*get_args(VersionUpgradeOption), None)


def day(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


# Three versions: the default moves to "2" before "1" retires, and to "3" on the day that "2" does; "3" retires too.
CATALOGUE = ModelCatalogue(
    [
        {
            "source": {
                "s": {"title": "T", "url": "https://example.org", "date": day("2025-01-01"), "evidence": "own"}
            },
            "unit": {"tokens_per_minute": 1000, "requests_per_minute": 6, "source": "s"},
            "model": [
                {
                    "name": "m",
                    "capabilities": ["realtime"],
                    "default": [
                        {"version": "1", "since": day("2025-01-01")},
                        {"version": "2", "since": day("2025-02-01")},
                        {"version": "3", "since": day("2025-06-01")},
                    ],
                    "version": [
                        {"version": "1", "stage": "Preview", "source": "s", "retirement": day("2025-03-01")},
                        {"version": "2", "stage": "Preview", "source": "s", "retirement": day("2025-06-01")},
                        {"version": "3", "stage": "Preview", "source": "s", "retirement": day("2025-09-01")},
                    ],
                }
            ],
        }
    ]
)


@pytest.mark.parametrize(
    ("version", "option", "on", "becomes", "ended"),
    [
        ("1", NEW, "2025-01-31", None, False),
        ("1", NEW, "2025-02-01", "2", False),
        ("1", NEW, "2025-03-01", "2", False),
        ("1", NEW, "2025-06-01", "3", False),
        ("2", NEW, "2025-01-15", None, False),  # chosen before it was the default: not brought back
        ("3", NEW, "2025-02-15", None, False),
        ("1", EXPIRED, "2025-02-28", None, False),
        ("1", EXPIRED, "2025-03-01", "2", False),
        ("1", None, "2025-02-28", None, False),
        ("1", None, "2025-03-01", "2", False),
        ("1", None, "2025-08-01", "3", False),  # nobody looked for months
        ("1", NEVER, "2025-02-28", None, False),
        ("1", NEVER, "2025-03-01", None, True),
        ("3", NEW, "2025-08-31", None, False),
        ("3", NEW, "2025-09-01", None, True),  # there is nothing after it
        ("1", None, "2025-09-01", None, True),  # what it would become is retired too
        ("4", NEW, "2025-09-01", None, False),  # the catalogue knows no such version
    ],
)
def test_what_becomes_of_a_standard_deployment(
    version: str, option: VersionUpgradeOption | None, on: str, becomes: str | None, ended: bool
) -> None:
    model = Model("m", version)
    for sku in ("Standard", "GlobalStandard", "DataZoneStandard"):
        assert due_version(model, sku, option, CATALOGUE, day(on)) == becomes
        assert has_ended(model, sku, option, CATALOGUE, day(on)) is ended


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("sku", PROVISIONED_SKUS)
def test_what_is_provisioned_stays_and_ends_with_its_version(sku: str, option: VersionUpgradeOption | None) -> None:
    model = Model("m", "1")
    assert due_version(model, sku, option, CATALOGUE, day("2025-03-01")) is None
    assert not has_ended(model, sku, option, CATALOGUE, day("2025-02-28"))
    assert has_ended(model, sku, option, CATALOGUE, day("2025-03-01"))


@pytest.mark.parametrize(
    "model",
    [Model("own", "1"), Model("m.ft-7f3", "1"), Model("m", "1", "Other"), Model("m", "")],
    ids=["not in it", "fine-tuned", "another format", "no version"],
)
def test_what_the_catalogue_does_not_know_is_left_alone(model: Model) -> None:
    for option in OPTIONS:
        assert due_version(model, "Standard", option, CATALOGUE, day("2030-01-01")) is None
        assert not has_ended(model, "Standard", option, CATALOGUE, day("2030-01-01"))


def test_as_the_pages_announced_it_for_gpt_4o() -> None:
    model = Model("gpt-4o", "2024-05-13")
    assert due_version(model, "Standard", NEW, shipped(), day("2025-02-12")) is None
    assert due_version(model, "Standard", NEW, shipped(), day("2025-02-13")) == "2024-08-06"
    assert due_version(model, "Standard", EXPIRED, shipped(), day("2025-02-13")) is None


ALL = [Model(model.name, one.version) for model in shipped() for one in model.versions]


@given(
    st.sampled_from(ALL),
    st.sampled_from(SKUS),
    st.sampled_from(OPTIONS),
    st.dates(day("2023-01-01"), day("2028-01-01")),
    st.integers(0, 500),
)
def test_an_upgrade_leads_to_a_version_that_lives_and_stays(
    model: Model, sku: str, option: VersionUpgradeOption | None, on: dt.date, later: int
) -> None:
    becomes = due_version(model, sku, option, shipped(), on)
    if becomes is None:
        return
    after = Model(model.name, becomes)
    found = shipped().find(model.name, becomes)
    assert found is not None
    assert not found.is_retired(on)
    assert due_version(after, sku, option, shipped(), on) is None, "one step is enough"
    assert not has_ended(after, sku, option, shipped(), on)
    assert not has_ended(model, sku, option, shipped(), on), "it works until it is upgraded"
    again = due_version(model, sku, option, shipped(), on + dt.timedelta(days=later))
    known = shipped().model(model.name)
    assert known is not None
    assert again in (None, becomes) or known.is_later(again, becomes), "time leads forward"


# ------------------------------------------------------------------------------------------ what may be deployed


def test_a_retired_version_is_refused_in_the_words_of_the_service() -> None:
    refusal = refusal_of_version(Model("gpt-4o-realtime-preview", "2024-10-01"), shipped(), day("2025-03-26"))
    assert refusal == Refusal(
        "ServiceModelDeprecated",
        "The model 'Format:OpenAI,Name:gpt-4o-realtime-preview,Version:2024-10-01' has been deprecated since "
        "03/26/2025 00:00:00.",
    )


def test_a_deprecated_version_can_be_deployed() -> None:
    model = Model("gpt-4o-realtime-preview", "2024-10-01")
    assert refusal_of_version(model, shipped(), day("2025-03-25")) is None


def test_versions_that_a_model_does_not_have() -> None:
    refusal = refusal_of_version(Model("gpt-4o", "1999"), shipped(), day("2025-01-01"))
    assert refusal is not None
    assert refusal.code == "DeploymentModelNotSupported"
    assert "Name: gpt-4o, Version: 1999" in refusal.message
    assert refusal_of_version(Model("own", "1999"), shipped(), day("2025-01-01")) is None


@pytest.mark.parametrize(
    ("model", "sku", "location", "said"),
    [
        (Model("gpt-4o-realtime-preview", "2024-12-17"), "GlobalStandard", "East US 2", None),
        (
            Model("gpt-4o-realtime-preview", "2024-12-17"),
            "GlobalStandard",
            "East US",
            "The specified SKU 'GlobalStandard' for model 'gpt-4o-realtime-preview 2024-12-17' is not supported in "
            "this region 'eastus'.",
        ),
        (
            Model("gpt-4o-realtime-preview", "2024-12-17"),
            "Standard",
            "eastus2",
            "The specified SKU 'Standard' of account deployment is not supported by the model "
            "'gpt-4o-realtime-preview' version: '2024-12-17'.",
        ),
        (Model("gpt-4o-realtime-preview", "2024-12-17"), "Standard", "basement", None),
        (Model("own", "1"), "Standard", "eastus2", None),
        (Model("gpt-realtime-2.1", "2026-07-07"), "Standard", "eastus2", None),
        (Model("gpt-4o", "2024-05-13"), "Standard", "usgovarizona", None),
        (
            Model("gpt-4o", "2024-08-06"),
            "Standard",
            "usgovarizona",
            "The specified SKU 'Standard' for model 'gpt-4o 2024-08-06' is not supported in this region "
            "'usgovarizona'.",
        ),
    ],
)
def test_where_a_version_is_offered(model: Model, sku: str, location: str, said: str | None) -> None:
    refusal: Any = refusal_of_place(model, sku, location, shipped())
    assert (refusal and refusal.message) == said
    assert refusal is None or refusal.code == "InvalidResourceProperties"
