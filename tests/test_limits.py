"""``docs/reference/limits.md`` tells the limits that the code has."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import msgspec
import pytest

from vivavoce.config import DeploymentSettings, LimitSettings, ServerSettings, StoreSettings
from vivavoce.config.identity import IdentitySettings

PAGE = Path(__file__).parent.parent / "docs/reference/limits.md"
TOLD = re.findall(r"\| `([^`]+)` = ([\d.]+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
TABLES: dict[str, type[msgspec.Struct]] = {
    "[server] ": ServerSettings,
    "[[deployment]] ": DeploymentSettings,
    "[identity] ": IdentitySettings,
    "[limits] ": LimitSettings,
    "[store] ": StoreSettings,
}


def enforced(place: str) -> object:
    for table, settings in TABLES.items():
        if place.startswith(table):
            fields = {field.name: field.default for field in msgspec.structs.fields(settings)}
            return fields[place.removeprefix(table)]
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(f"vivavoce.{module}"), name)


@pytest.mark.parametrize(("place", "value"), TOLD)
def test_the_page_tells_what_is_enforced(place: str, value: str) -> None:
    assert str(enforced(place)) == value


def test_the_page_tells_of_most() -> None:
    assert len(TOLD) >= 20
