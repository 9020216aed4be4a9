"""What runs agrees with the table, and the measure of coverage sees what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from preview_coverage import SCRIPTS, measure
from preview_table import ORDER, TABLE, load_table
from probe_texts import unsupported
from probes import Bench, Probe, probes

from vivavoce.core.session import Session


def test_nothing_contradicts_the_table() -> None:
    assert measure().wrong == []


def test_everything_is_covered() -> None:
    missing = {f"{row.direction} {row.owner}.{row.name}": row.missing for row in measure().rows if not row.covered}
    assert missing == {}


def test_every_profile_and_event_is_probed() -> None:
    table = load_table()
    for (direction, name), shape in table.events.items():
        if direction == "client":
            for profile in ORDER:
                found = list(probes(table, shape, profile))
                assert {probe.event["type"] for probe in found if probe.row == name} >= {name}
                assert any(probe.refused for probe in found)


VOICE = "session.voice"
BAD: dict[str, Any] = {"type": "session.update", "event_id": "e", "session": {"voice": "nope"}}
VOICES = (
    "Invalid value: 'nope'. Supported values are: 'alloy', 'ash', 'ballad', 'coral', 'echo', 'sage', 'shimmer', "
    "and 'verse'."
)
GOOD: dict[str, Any] = {"type": "session.update", "event_id": "e", "session": {"voice": "sage"}}


@pytest.mark.parametrize(
    ("probe", "problem"),
    [
        (Probe("r", "s", GOOD), None),
        (Probe("r", "s", BAD, refused=True, code="invalid_value", param=VOICE, message=VOICES), None),
        (Probe("r", "s", BAD), "refused: "),
        (Probe("r", "s", GOOD, refused=True, code="invalid_value", param=VOICE), "not refused: "),
        (
            Probe("r", "s", BAD, refused=True, code="invalid_type", param=VOICE, message=VOICES),
            "expected ",
        ),
        (Probe("r", "s", BAD, refused=True, code="invalid_value", param="voice", message=VOICES), "expected "),
        (
            Probe("r", "s", BAD, refused=True, code="invalid_value", param=VOICE, message="No."),
            "expected ",
        ),
        (Probe("r", "s", GOOD, default=("session.voice", "sage")), None),
        (Probe("r", "s", GOOD, default=("session.voice", "alloy")), "session.voice is 'sage', not 'alloy'"),
        (Probe("r", "s", GOOD, default=("session.nothing", 1)), "session.nothing is not shown"),
    ],
)
def test_a_probe_tells_what_is_wrong(probe: Probe, problem: str | None) -> None:
    found = Bench(ORDER[0]).problem(probe)
    assert found is None if problem is None else found is not None and found.startswith(problem)


def test_a_field_without_support_is_missing(tmp_path: Path) -> None:
    """The measure is not satisfied by a table: what the server does not take, or nothing makes it say, is a gap."""
    voice = 'voice = { is = "string", optional = true, default = "alloy"'
    object_ = "object = { is = \"'realtime.conversation'\" }"
    text = TABLE.read_text()
    assert text.count(voice) == text.count(object_) == 1
    text = text.replace(voice, f'accent = {{ is = "string", optional = true }}\n{voice}')
    text = text.replace(object_, f'{object_}\nmood = {{ is = "string", optional = true }}')
    (tmp_path / "table.toml").write_text(text)
    (tmp_path / "connect.rts").write_text((SCRIPTS / "connect.rts").read_text())
    rows = {(row.direction, row.owner, row.name): row for row in measure(tmp_path / "table.toml", tmp_path).rows}
    assert rows["client", "SessionUpdate", "voice"].missing == []
    accent = rows["client", "SessionUpdate", "accent"].missing
    assert accent
    assert accent[0].startswith('accepted "some text" (azure-2024-10-01: refused: ')
    assert rows["server", "Conversation", "object"].missing == []
    assert rows["server", "Conversation", "mood"].missing == ["present"]
    assert "present in azure-2024-10-01" in rows["server", "response.text.delta", "item_id"].missing


def test_a_refusal_that_changes_something_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that forgets its instructions with each error."""
    probe = Probe("r", "s", BAD, refused=True, code="invalid_value", param=VOICE, message=VOICES)
    bench = Bench(ORDER[0])
    assert bench.problem(probe) is None
    receive = Session.receive

    def forgetful(session: Session, *given: Any) -> Any:
        session.config = structs.replace(session.config, instructions="What?")
        return receive(session, *given)

    monkeypatch.setattr(Session, "receive", forgetful)
    assert bench.problem(probe) == "it changed something"


@pytest.mark.parametrize("profile", ORDER)
@pytest.mark.parametrize("name", ["output_audio_buffer.clear", "session.created", "conversation.item.added"])
def test_what_does_not_apply_is_refused(profile: str, name: str) -> None:
    known = [shape for (direction, _), shape in load_table().events.items() if direction == "client"]
    text = unsupported(name, [shape.name for shape in known if shape.exists_in(profile)])
    probe = Probe("r", "s", {"type": name}, refused=True, code="invalid_value", param="type", message=text)
    assert Bench(profile).problem(probe) is None
