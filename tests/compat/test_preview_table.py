"""The validator refuses what the table does not allow, and every frame of every golden script passes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from preview_table import ORDER, Field, Mark, load_table, parse_type

from vivavoce.testing.pure_runner import Frame, run_pure
from vivavoce.testing.script import load

SCRIPTS = sorted((Path(__file__).parent.parent / "scripts").glob("*.rts"))
LATEST = ORDER[-1]
EVENT_ID = "event_" + "a" * 21
DELETED = {"type": "conversation.item.deleted", "event_id": EVENT_ID, "item_id": "item_1"}
LIMIT: dict[str, Any] = {"name": "tokens", "limit": 1, "remaining": 1, "reset_seconds": 0.5}
LIMITS = {"type": "rate_limits.updated", "event_id": EVENT_ID, "rate_limits": [LIMIT]}


def test_a_good_event_passes() -> None:
    assert load_table().problems(DELETED, LATEST) == []
    assert load_table().problems(LIMITS, LATEST) == []


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ("text", "no event: 'text'"),
        ({"event_id": EVENT_ID}, "no event: "),
        ({**DELETED, "type": "conversation.item.vanished"}, f"{LATEST} has no event conversation.item.vanished"),
        ({**DELETED, "more": 1}, "conversation.item.deleted.more: no such key"),
        ({"type": DELETED["type"], "event_id": EVENT_ID}, "conversation.item.deleted.item_id: missing"),
        ({**DELETED, "item_id": 5}, "conversation.item.deleted.item_id: integer is none of its types: 5"),
        ({**DELETED, "item_id": None}, "conversation.item.deleted.item_id: null is none of its types: None"),
        ({**DELETED, "event_id": "event_1"}, "conversation.item.deleted.event_id: 'event_1' does not match "),
    ],
)
def test_a_bad_event_does_not(event: Any, problem: str) -> None:
    (found,) = load_table().problems(event, LATEST)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"name": "words"}, "rate_limits.updated.rate_limits[0].name: 'words' is none of its values"),
        ({"limit": -1}, "rate_limits.updated.rate_limits[0].limit: -1 is out of range"),
        ({"limit": 1.5}, "rate_limits.updated.rate_limits[0].limit: number is none of its types: 1.5"),
        ({"limit": True}, "rate_limits.updated.rate_limits[0].limit: boolean is none of its types: True"),
        ({"more": {}}, "rate_limits.updated.rate_limits[0].more: no such key"),
    ],
)
def test_a_bad_value_within_does_not(change: dict[str, Any], problem: str) -> None:
    event = {**LIMITS, "rate_limits": [{**LIMIT, **change}]}
    assert load_table().problems(event, LATEST) == [problem]


def test_a_profile_has_what_it_has() -> None:
    turn_detection = {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
    }
    table = load_table()
    path = "session.created.session.turn_detection"

    def about(profile: str, **more: bool) -> list[str]:
        event = {
            "type": "session.created",
            "event_id": EVENT_ID,
            "session": {"object": "realtime.session", "turn_detection": {**turn_detection, **more}},
        }
        return [problem for problem in table.problems(event, profile) if problem.startswith(path)]

    assert about("azure-2024-10-01") == []
    assert about("azure-2024-10-01", interrupt_response=False) == [
        f"{path}.interrupt_response: azure-2024-10-01 has no such key"
    ]
    assert about("azure-2024-12-17") == [f"{path}.create_response: missing"]
    assert about("azure-2024-12-17", create_response=True) == []
    assert about("azure-2025-04", create_response=True) == [f"{path}.interrupt_response: missing"]


def test_types_are_read() -> None:
    (array, null) = parse_type("['a' | Shape] | null")
    assert repr(array) == "ArrayOf(items=(Literally(text='a'), Ref(shape='Shape')))"
    assert repr(null) == "Plain(kind='null')"


def test_marks_tell_what_was_seen() -> None:
    marks: list[Mark] = []
    assert load_table().problems(DELETED, LATEST, marks.append) == []
    seen = {(str(field), what) for field, what in marks}
    assert ("conversation.item.deleted.item_id", "present") in seen
    assert all(isinstance(field, Field) for field, _ in marks)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_frame_of_every_script_is_as_the_table_says(path: Path) -> None:
    """Both ways: what the server says, and what a strict one accepts."""
    script = load(path)
    table, profile = load_table(), script.settings.profile
    frames: list[Frame] = []
    run_pure(script, frames.append)
    problems = []
    for frame, answer in zip(frames, [*frames[1:], None], strict=True):
        if not isinstance(frame, str):
            problems += table.problems(frame, profile)
        elif script.settings.strict and not (isinstance(answer, dict) and answer["type"] == "error"):
            problems += table.problems(json.loads(frame), profile, direction="client")
    assert problems == []
