"""``vivavoce models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vivavoce import cli
from vivavoce.cli_failure import WRONG


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert cli.main(["models", "--json", *arguments]) == 0
    models: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["models"]
    return models


def names(models: list[dict[str, Any]]) -> set[str]:
    return {model["name"] for model in models}


def test_the_realtime_models(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "--realtime")
    assert {"gpt-4o-realtime-preview", "gpt-realtime"} <= names(found)
    assert all("realtime" in model["capabilities"] for model in found)
    (first,) = [one for one in found if (one["name"], one["version"]) == ("gpt-4o-realtime-preview", "2024-10-01")]
    assert first["status"] == "Retired"
    assert first["retirement"] == "2025-03-26"
    assert first["regions"] == {"GlobalStandard": ["eastus2", "swedencentral"]}
    assert (first["is_default"], first["max_input_tokens"]) == (False, None)


def test_by_region_and_sku(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gpt-realtime" in names(told(capsys, "--region", "East US 2"))
    assert "gpt-realtime" not in names(told(capsys, "--region", "westus"))
    assert "gpt-realtime" not in names(told(capsys, "--sku", "Standard"))
    assert "gpt-realtime-2.1" in names(told(capsys, "--sku", "Standard")), "nothing is known of its regions"
    government = told(capsys, "--region", "usgovvirginia", "--sku", "Standard")
    assert "gpt-4o" in names(government)
    assert "gpt-4o" not in names(told(capsys, "--region", "usgovvirginia", "--sku", "ProvisionedManaged"))


def test_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--realtime"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if " gpt-realtime " in line]
    assert line.split()[:3] == ["gpt-realtime", "2025-08-28", "(default)"]
    assert line.split()[-2:] == ["GlobalStandard", "(2)"]
    assert any(
        line.split()[:2] == ["gpt-realtime-2.1", "2026-07-07"] and line.split()[-1] == "any" for line in lines
    )


def test_models_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(
        '[source.mine]\ntitle = "T"\nurl = "https://example.org"\ndate = 2026-01-01\nevidence = "own"\n'
        '[[model]]\nname = "house"\ncapabilities = ["realtime"]\n'
        '[[model.version]]\nversion = "1"\nstage = "Preview"\nretirement_not_before = 2030-01-01\nsource = "mine"\n'
    )
    config = tmp_path / "config.toml"
    config.write_text('[models]\ncatalogue = "own.toml"\n')
    (house,) = [one for one in told(capsys, "--config", str(config)) if one["name"] == "house"]
    assert (house["version"], house["status"], house["regions"]) == ("1", "Preview", {})
    assert cli.main(["models", "--config", str(config)]) == 0
    assert "not before 2030-01-01" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "value"), [("--region", "mars"), ("--sku", "Batch")])
def test_what_is_nowhere_in_the_catalogue(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", option, value]) == WRONG
    error = capsys.readouterr().err
    assert error.startswith(f"vivavoce: Invalid value for {option}: '{value}' is not one of ")
    assert error.count("\n") == 1
