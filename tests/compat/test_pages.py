"""The generated pages are what the tests would write, and what they name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import test_differences
import test_differences_later
from compat_pages import COMPATIBILITY, ERRORS, ROOT, TEXTS, pages
from preview_table import load_table


@pytest.mark.parametrize("page", [COMPATIBILITY, ERRORS], ids=lambda page: page.name)
def test_the_page_is_up_to_date(page: Path) -> None:
    """Otherwise: ``python scripts/compatibility.py --write``."""
    assert page.read_text(encoding="utf-8") == pages()[page]


def test_every_difference_has_the_test_of_its_number() -> None:
    numbers = [entry["number"] for entry in TEXTS["difference"]]
    names = [*vars(test_differences), *vars(test_differences_later)]
    tests = [match[1] for name in names if (match := re.match(r"test_(D\d\d)_", name))]
    assert numbers == [f"D{i:02}" for i in range(1, len(numbers) + 1)]
    assert tests == numbers


def test_differences_named_in_the_table_exist() -> None:
    named = {
        field.difference
        for shape in [*load_table().of("client"), *load_table().of("server")]
        for field in shape.fields.values()
        if field.difference
    }
    assert named <= {entry["number"] for entry in TEXTS["difference"]}
    assert named


def test_every_row_of_contradictions_is_decided() -> None:
    assert [entry["row"] for entry in TEXTS["contradiction"]] == list(range(1, 30))


@pytest.mark.parametrize("kind", ["contradiction", "open"])
def test_what_shows_a_decision_exists(kind: str) -> None:
    for entry in TEXTS[kind]:
        assert entry["shown"]
        for name in entry["shown"]:
            file, _, test = name.partition("::")
            if test:
                assert re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text(), re.MULTILINE), name
            else:
                assert (ROOT / f"tests/scripts/{name}.rts").exists(), name
