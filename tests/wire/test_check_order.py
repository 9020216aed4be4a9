"""The order of checks over a whole event: unknown keys, missing keys, types, ranges and lengths (section 6)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_preview_in import CODEC, CODEC_OCTOBER, FIELDS, FULL, SAMPLES, Field, fault, full, holder, steps

from vivavoce.wire.faults import Phase


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong with an event."""

    phase: Phase
    path: str
    """Of the value that it changes, removes or adds."""
    code: str
    param: str
    value: Any = None
    """To put there; None removes it."""
    also: tuple[str, ...] = ()
    """Removed with it."""

    def plant(self, event: dict[str, Any]) -> None:
        for path in (self.path, *self.also):
            place, key = holder(event, path)
            if self.value is None:
                del place[key]
            else:
                place[key] = copy.deepcopy(self.value)


def _deep(levels: int) -> dict[str, Any]:
    return {"items": _deep(levels - 1)} if levels else {}


def _of_type(path: str, field: Field) -> list[Flaw]:
    if field.kind in ("enum", "tag"):
        return [
            Flaw(Phase.TYPE, path, "invalid_value", path, "nope"),
            Flaw(Phase.TYPE, path, "invalid_type", path, 7),
        ]
    wrong = "a boolean" if field.kind != "boolean" else "an integer"
    return [Flaw(Phase.TYPE, path, "invalid_type", path, SAMPLES[wrong])]


def _of_range(path: str, field: Field) -> list[Flaw]:
    flaws = []
    if field.low is not None:
        flaws.append(Flaw(Phase.RANGE, path, f"{field.kind}_below_min_value", path, field.low - 1))
    if field.high is not None:
        flaws.append(Flaw(Phase.RANGE, path, f"{field.kind}_above_max_value", path, field.high + 1))
    if field.longest is not None:
        flaws.append(Flaw(Phase.RANGE, path, "string_above_max_length", path, "x" * (field.longest + 1)))
    return flaws


def _flaws(name: str) -> list[Flaw]:
    flaws = [Flaw(Phase.UNKNOWN, "bogus", "unknown_parameter", "bogus", 1)]
    for path, field in FIELDS[name].items():
        if field.kind == "object" and field.closed:
            flaws.append(Flaw(Phase.UNKNOWN, f"{path}.bogus", "unknown_parameter", f"{path}.bogus", 1))
        if field.required:
            flaws.append(Flaw(Phase.MISSING, path, "missing_required_parameter", path))
        flaws += _of_type(path, field) + _of_range(path, field)
    for body in ("session", "response"):
        if f"{body}.modalities" in FIELDS[name]:
            modalities = f"{body}.modalities"
            flaws.append(Flaw(Phase.RANGE, modalities, "invalid_value", modalities, ["audio"]))
        if f"{body}.tools" in FIELDS[name]:
            choice, schema = f"{body}.tool_choice", f"{body}.tools[0].parameters"
            flaws.append(
                Flaw(
                    Phase.MISSING,
                    f"{choice}.name",
                    "missing_required_parameter",
                    f"{choice}.name",
                    also=(f"{choice}.function",),
                )
            )
            flaws.append(Flaw(Phase.RANGE, schema, "invalid_value", schema, _deep(101)))
    for item in ("item", "response.input[0]"):
        if f"{item}.content" in FIELDS[name]:
            audio = f"{item}.content[1].audio"
            words = f"{item}.content[1].transcript"
            flaws.append(Flaw(Phase.MISSING, audio, "missing_required_parameter", audio, also=(words,)))
            text = {"type": "text", "text": "x"}
            flaws.append(Flaw(Phase.TYPE, f"{item}.content[0]", "invalid_value", f"{item}.content[0].type", text))
    if "response.input[0].role" in FIELDS[name]:
        for key in ("role", "content"):
            path = f"response.input[0].{key}"
            flaws.append(Flaw(Phase.MISSING, path, "missing_required_parameter", path))
    return flaws


FLAWS: Final = {name: _flaws(name) for name in FULL}


def _touches(one: Flaw, other: Flaw) -> bool:
    """One of them changes what the other stands in, or by what it is judged."""
    for a in (one.path, *one.also):
        for b in (other.path, *other.also):
            way_a, way_b = steps(a), steps(b)
            if way_a[: len(way_b)] == way_b or way_b[: len(way_a)] == way_a:
                return True
    return _decides(one, other) or _decides(other, one)


def _decides(one: Flaw, other: Flaw) -> bool:
    """``one`` hides the kind of an object (or the role of a message), so what is in it means nothing."""
    if steps(one.path)[-1] not in ("type", "role", "content"):
        return False
    way, inside = steps(one.path)[:-1], steps(other.path)
    return inside[: len(way)] == way


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, Flaw, Flaw]:
    name = draw(st.sampled_from(sorted(FULL)))
    first = draw(st.sampled_from(FLAWS[name]))
    later = [flaw for flaw in FLAWS[name] if flaw.phase > first.phase and not _touches(first, flaw)]
    if not later:
        first = FLAWS[name][0]
        later = [flaw for flaw in FLAWS[name] if flaw.phase > first.phase and not _touches(first, flaw)]
    return name, first, draw(st.sampled_from(later))


@given(pair=pairs(), turned=st.booleans())
def test_of_two_faults_the_one_of_the_earlier_phase_is_named(pair: tuple[str, Flaw, Flaw], turned: bool) -> None:
    name, first, later = pair
    event = full(name)
    for flaw in (later, first) if turned else (first, later):
        flaw.plant(event)
    found = fault(event)
    assert (found.code, found.param) == (first.code, first.param)


@pytest.mark.parametrize("name", FULL)
def test_each_flaw_alone_is_named(name: str) -> None:
    for flaw in FLAWS[name]:
        event = full(name)
        flaw.plant(event)
        found = fault(event)
        assert (found.code, found.param) == (flaw.code, flaw.param), flaw


UPDATE: Final = {"type": "session.update", "event_id": "e1"}
ITEM: Final = {"type": "conversation.item.create", "event_id": "e1"}
RESPONSE: Final = {"type": "response.create", "event_id": "e1"}


@pytest.mark.parametrize(
    ("event", "codec", "code", "param"),
    [
        pytest.param(
            UPDATE
            | {"session": {"temperature": 9, "turn_detection": {"type": "server_vad", "interrupt_response": 1}}},
            CODEC_OCTOBER,
            "unknown_parameter",
            "session.turn_detection.interrupt_response",
            id="what a profile does not know is unknown, and nothing else",
        ),
        pytest.param(
            UPDATE | {"session": {"voice": 5, "tool_choice": {"type": "function"}}},
            CODEC,
            "missing_required_parameter",
            "session.tool_choice.name",
            id="a tool_choice without a name is missing it",
        ),
        pytest.param(
            ITEM | {"item": {"type": "message", "role": "user", "id": 5, "content": [{"type": "input_audio"}]}},
            CODEC,
            "missing_required_parameter",
            "item.content[0].audio",
            id="an audio part without audio is missing it",
        ),
        pytest.param(
            ITEM
            | {
                "item": {
                    "type": "message",
                    "role": "system",
                    "id": "x" * 33,
                    "content": [{"type": "text", "text": "x"}],
                }
            },
            CODEC,
            "invalid_value",
            "item.content[0].type",
            id="the part of another role before a length",
        ),
        pytest.param(
            ITEM
            | {
                "item": {
                    "type": "message",
                    "role": "system",
                    "content": [{"type": "text", "text": "x"}],
                    "bogus": 1,
                }
            },
            CODEC,
            "unknown_parameter",
            "item.bogus",
            id="an unknown key before the part of another role",
        ),
        pytest.param(
            ITEM | {"item": {"role": 5, "bogus": 1}},
            CODEC,
            "unknown_parameter",
            "item.bogus",
            id="a key that no kind of item has, in an item without type",
        ),
        pytest.param(
            ITEM | {"item": {"type": "mcp_call", "server_label": "x"}},
            CODEC,
            "invalid_value",
            "item.type",
            id="under an unknown type keys may mean anything",
        ),
        pytest.param(
            RESPONSE | {"response": {"modalities": ["audio"], "input": [{"type": "message", "content": []}]}},
            CODEC,
            "missing_required_parameter",
            "response.input[0].role",
            id="the role of a message in input before a combination",
        ),
        pytest.param(
            RESPONSE
            | {"response": {"modalities": ["audio"], "input": [{"type": "message", "id": "a"}], "voice": 1}},
            CODEC,
            "invalid_type",
            "response.voice",
            id="a type before a combination",
        ),
        pytest.param(
            RESPONSE
            | {"response": {"tools": [{"type": "function", "name": "f", "parameters": _deep(101)}], "commit": 1}},
            CODEC,
            "invalid_type",
            "response.commit",
            id="a type before the depth of a schema",
        ),
    ],
)
def test_order_beyond_the_types_of_fields(event: dict[str, Any], codec: Any, code: str, param: str) -> None:
    found = fault(event, codec)
    assert (found.code, found.param) == (code, param)
