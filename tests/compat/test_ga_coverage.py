"""What the golden scripts show of GA agrees with its table, and is all of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ga_coverage import GA_TABLE, ga_scripts, measure, measure_ga
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


def test_a_field_that_the_server_does_not_take_is_missing(tmp_path: Path) -> None:
    voice = 'voice = { is = "string", optional = true, values = '
    text = GA_TABLE.read_text()
    assert text.count(voice) == 2
    text = text.replace(voice, f'accent = {{ is = "string", optional = true }}\n{voice}', 1)
    (tmp_path / "ga.toml").write_text(text)
    missing = measure(load_table(tmp_path / "ga.toml"), ()).missing
    assert missing["client AudioOutput.accent"][2:] != []
    assert missing["client AudioOutput.accent"][2].startswith('accepted "some text" (openai-ga: refused: ')


def test_what_nothing_refuses_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ga_coverage.run_probes", lambda *_: iter(()))
    missing = measure(load_table(GA_TABLE), ()).missing
    assert missing["client AudioOutput.voice"][-1] == "nothing of it is refused"
