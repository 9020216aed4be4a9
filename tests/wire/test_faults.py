"""The walk over shapes that no event of today has, but one of tomorrow may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import pytest

from vivavoce.wire.faults import MOST_FAULTS, describe, first_fault


class Text(msgspec.Struct, tag="text"):
    text: str


class Sound(msgspec.Struct, tag="sound"):
    ms: int


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    few: list[int] = msgspec.field(default_factory=list)
    list_or_text: list[int] | str = ""
    nothing: None = None
    number: int | float | None = None
    switch: bool | str = ""
    one: Literal["only"] | int = 1
    part: Text | Sound | None = None
    mapping: dict[str, bool] | bool = False


@pytest.mark.parametrize(
    ("value", "code", "message", "param"),
    [
        (
            {"few": [1, "x", 3]},
            "invalid_type",
            "Invalid type for 'few[1]': expected an integer, but got a string",
            "few[1]",
        ),
        ({"few": {}}, "invalid_type", "Invalid type for 'few': expected an array, but got an object", "few"),
        (
            {"list_or_text": [True]},
            "invalid_type",
            "Invalid type for 'list_or_text[0]': expected an integer, but got a boolean",
            "list_or_text[0]",
        ),
        (
            {"list_or_text": 1},
            "invalid_type",
            "Invalid type for 'list_or_text': expected an array or a string, but got an integer",
            "list_or_text",
        ),
        (
            {"nothing": 1},
            "invalid_type",
            "Invalid type for 'nothing': expected null, but got an integer",
            "nothing",
        ),
        (
            {"number": "1"},
            "invalid_type",
            "Invalid type for 'number': expected an integer or a decimal, but got a string",
            "number",
        ),
        (
            {"switch": 1},
            "invalid_type",
            "Invalid type for 'switch': expected a boolean or a string, but got an integer",
            "switch",
        ),
        ({"one": "two"}, "invalid_value", "Invalid value: 'two'. Supported values are: 'only'.", "one"),
        (
            {"one": []},
            "invalid_type",
            "Invalid type for 'one': expected 'only' or an integer, but got an array",
            "one",
        ),
        ({"part": {}}, "missing_required_parameter", "Missing required parameter: 'part.type'.", "part.type"),
        (
            {"part": {"type": 1}},
            "invalid_type",
            "Invalid type for 'part.type': expected a string, but got an integer",
            "part.type",
        ),
        (
            {"part": {"type": "smell"}},
            "invalid_value",
            "Invalid value: 'smell'. Supported values are: 'text' and 'sound'.",
            "part.type",
        ),
        (
            {"part": {"type": "sound"}},
            "missing_required_parameter",
            "Missing required parameter: 'part.ms'.",
            "part.ms",
        ),
        ({"part": 1}, "invalid_type", "Invalid type for 'part': expected an object, but got an integer", "part"),
        (
            {"mapping": {"a": 1}},
            "invalid_type",
            "Invalid type for 'mapping.a': expected a boolean, but got an integer",
            "mapping.a",
        ),
        ([], "invalid_type", "Invalid type for 'x': expected an object, but got an array", "x"),
    ],
)
def test_first_fault(value: Any, code: str, message: str, param: str) -> None:
    fault = first_fault(value, Shape, "x" if value == [] else "")
    assert fault is not None
    assert (fault.code, fault.param) == (code, param)
    assert fault.message.removesuffix(" instead.") == message.removesuffix(" instead.")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"few": [1, 2], "nothing": None, "number": 1.5, "switch": True, "one": "only", "part": None},
        {"part": {"type": "text", "text": "x"}, "mapping": {"a": True}, "list_or_text": [1]},
        {"one": 5, "mapping": True, "number": 3},
    ],
)
def test_nothing_is_wrong(value: Any) -> None:
    assert first_fault(value, Shape) is None
    msgspec.convert(value, Shape)


def test_an_event_of_faults_alone_costs_no_more_than_some() -> None:
    """A frame of 22 MiB has room for ten million of them; each took 20 microseconds and 600 bytes."""
    looked_at = 0

    class Counted(list[object]):
        def __iter__(self) -> Iterator[object]:
            nonlocal looked_at
            for element in super().__iter__():
                looked_at += 1
                yield element

    fault = first_fault({"few": Counted(["x"] * 10_000), "bogus": 1}, Shape)
    assert fault is not None
    assert (fault.code, looked_at) == ("unknown_parameter", 0), "a fault that none can precede ends the search"
    fault = first_fault({"few": Counted(["x"] * 10_000)}, Shape)
    assert fault is not None
    assert (fault.code, fault.param, looked_at) == ("invalid_type", "few[0]", MOST_FAULTS)


def test_describe() -> None:
    values: list[object] = [True, 1, 1.5, "", [], {}, None]
    assert [describe(value) for value in values] == [
        "a boolean",
        "an integer",
        "a decimal",
        "a string",
        "an array",
        "an object",
        "null",
    ]
    assert describe(object()) == "an unknown value"


def test_a_shape_of_a_kind_that_no_event_has() -> None:
    class Odd(msgspec.Struct):
        when: bytes

    with pytest.raises(AssertionError, match="shapes of events have no"):
        first_fault({"when": "x"}, Odd)
