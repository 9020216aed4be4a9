"""What the golden scripts show of GA agrees with its table, and is all of it."""

from __future__ import annotations

import pytest
from ga_coverage import GA_TABLE, ga_scripts, measure_ga
from preview_table import load_table

from vivavoce.wire.dialects.ga_shapes import EVENTS


def test_nothing_contradicts_the_table() -> None:
    assert measure_ga().wrong == []


def test_everything_is_covered() -> None:
    assert {field: missing for field, missing in measure_ga().missing.items() if missing} == {}


def test_the_table_has_every_client_event() -> None:
    assert [name for direction, name in load_table(GA_TABLE).events if direction == "client"] == list(EVENTS)


def test_most_scripts_run_in_both_dialects() -> None:
    both = [name for name, _ in ga_scripts() if not name.startswith("ga/")]
    assert len(both) > 100


PART = {"response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0}
TEXT = {"type": "text", "text": ""}


@pytest.mark.parametrize(
    ("profile", "fields", "problem"),
    [
        ("openai-ga", {"part": TEXT}, None),
        ("azure-ga", {"part": TEXT, "content": TEXT}, None),
        ("azure-ga", {"part": TEXT}, "response.content_part.added.content: missing"),
        (
            "openai-ga",
            {"part": TEXT, "content": TEXT},
            "response.content_part.added.content: openai-ga has no such key",
        ),
    ],
)
def test_the_profiles_differ(profile: str, fields: dict[str, object], problem: str | None) -> None:
    event = {"type": "response.content_part.added", "event_id": "event_" + "a" * 21, **PART, **fields}
    assert load_table(GA_TABLE).problems(event, profile) == ([] if problem is None else [problem])
