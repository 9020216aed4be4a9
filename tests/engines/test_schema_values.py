"""Arguments made from a schema and a text: the order of preference by table, validity by property."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from vivavoce.engines.builtin import schema_pattern
from vivavoce.engines.builtin.schema_check import Checker
from vivavoce.engines.builtin.schema_values import FORMAT_VALUES, UnsatisfiableSchemaError, build_arguments
from vivavoce.engines.builtin.text_hints import FORMATS, Hints, number_of, split_words

Schema = dict[str, Any]


def of(**properties: Any) -> Schema:
    """An object whose properties are all required."""
    return {"type": "object", "properties": properties, "required": list(properties)}


# ------------------------------------------------------------------------------------- what a text offers


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("What is the weather in New York tomorrow?", ("New York", "tomorrow", "weather")),
        ("what is the weather in london", ("london", "weather")),
        ("What's the weather for tomorrow in Paris", ("Paris", "tomorrow", "weather")),
        ("My name is Ada.", ("Ada", "name")),
        ("New York", ("New York",)),
        ("THE WEATHER IN BERLIN", ("BERLIN", "WEATHER")),
        ('play "Blue Train" on the kitchen speaker', ("Blue Train", "speaker", "kitchen")),
        ("Ask Bob. Then phone Carol, Dave", ("Bob", "Carol", "Dave", "phone")),
        ("a table for 4 people named Smith at 5pm", ("Smith", "people", "table", "4", "5pm")),
        ("the light is on", ("light",)),
        ("", ()),
        ("... -- !?", ("--",)),
    ],
)
def test_phrases(text: str, phrases: tuple[str, ...]) -> None:
    assert Hints(text).phrases == phrases


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("set it to 21.5 degrees", (21.5,)),
        ("pay $1,000 and -3", (1000, -3)),
        ("at 5:30", (5, 30)),
        ("from 3-5", (3, 5)),
        ("twenty-five minutes and twenty five seconds", (25, 25)),
        ("two hundred and six", (206,)),
        ("three thousand four hundred and twelve", (3412,)),
        ("one two three", (1, 2, 3)),
        ("one, two", (1, 2)),
        ("a hundred", (100,)),
        ("zero and thirty", (0, 30)),
        ("room A4 on 2024-05-01", ()),
        ("9" * 5000, ()),
        ("nothing", ()),
    ],
)
def test_numbers(text: str, numbers: tuple[float, ...]) -> None:
    assert Hints(text).numbers == numbers


def test_number_of_takes_exactly_one_number() -> None:
    assert [number_of(text) for text in ("25", "twenty five", "five six", "none")] == [25, 25, None, None]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("get_weather", ("get", "weather")),
        ("getWeatherNow", ("get", "weather", "now")),
        ("HTTPServer-list", ("http", "server", "list")),
        ("What's ÜBER?", ("what", "s", "über")),
    ],
)
def test_split_words(name: str, words: tuple[str, ...]) -> None:
    assert split_words(name) == words


# ------------------------------------------------------------------------------------ order of preference

STRING = {"type": "string"}
INTEGER = {"type": "integer"}
NODE: Schema = {
    "$defs": {"node": of(name=STRING, next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})},
    "$ref": "#/$defs/node",
}
TREE: Schema = {"definitions": {"tree": of(kids={"type": "array", "items": {"$ref": "#/definitions/tree"}})}}


@pytest.mark.parametrize(
    ("schema", "text", "arguments"),
    [
        pytest.param({}, "anything", {}, id="no schema"),
        pytest.param({"type": "object", "properties": {}}, "anything", {}, id="no properties"),
        pytest.param(
            of(city=STRING, country=STRING, more=STRING),
            "the weather in Paris, France",
            {"city": "Paris", "country": "France", "more": "weather"},
            id="each field takes the next phrase",
        ),
        pytest.param(of(a=STRING, b=STRING), "Hello!", {"a": "value", "b": "value"}, id="filler"),
        pytest.param(
            of(a=INTEGER, b={"type": "number"}, c=INTEGER),
            "six and 2.5 and 7",
            {"a": 6, "b": 2.5, "c": 7},
            id="numbers",
        ),
        pytest.param(of(a=INTEGER), "2.5 apples", {"a": 1}, id="integer without one in the text"),
        pytest.param(of(a={"type": "integer", "maximum": 10}), "99 or 7", {"a": 7}, id="number that fits"),
        pytest.param(
            of(unit={"enum": ["kelvin", "celsius"]}), "in Celsius", {"unit": "celsius"}, id="enum in the text"
        ),
        pytest.param(
            of(unit={"enum": ["a", "b"], "default": "b"}), "hello", {"unit": "b"}, id="default before the first"
        ),
        pytest.param(of(unit={"enum": ["x", "y"]}), "hello", {"unit": "x"}, id="first of the enum"),
        pytest.param(of(size={"enum": [1, 2, 3]}), "number two", {"size": 2}, id="enum of numbers"),
        pytest.param(
            of(mode={"enum": ["light", "light_show"]}), "the light show", {"mode": "light_show"}, id="longest enum"
        ),
        pytest.param(of(kind={"const": 4}), "5", {"kind": 4}, id="const"),
        pytest.param(of(city={"type": "string", "default": "Rome"}), "in Paris", {"city": "Rome"}, id="default"),
        pytest.param(
            of(city={"type": "string", "default": 3}), "in Paris", {"city": "Paris"}, id="default that is wrong"
        ),
        pytest.param(of(on={"type": "boolean"}), "the lamp", {"on": True}, id="boolean"),
        pytest.param(of(on={"type": "boolean"}), "turn the lamp off", {"on": False}, id="boolean, negative"),
        pytest.param(of(x={"type": ["null", "integer"]}), "3", {"x": 3}, id="null is last"),
        pytest.param(of(x={"type": "null"}), "3", {"x": None}, id="null"),
        pytest.param(of(x=True), "Bob", {"x": "Bob"}, id="anything at all"),
        pytest.param(of(x={"minimum": 4}), "Bob", {"x": 4}, id="type from the keywords"),
        pytest.param(
            {"properties": {"unit": {"enum": ["c", "f"]}, "days": INTEGER, "note": STRING}},
            "3 days in F",
            {"unit": "f", "days": 3},
            id="optional ones that the text names",
        ),
        pytest.param({"properties": {"a": STRING, "the": STRING}}, "a or the", {}, id="stop words name nothing"),
        pytest.param(
            {"properties": {"maxResults": INTEGER}}, "max results 5", {"maxResults": 5}, id="camelCase property"
        ),
        pytest.param(
            of(zip={"type": "string", "pattern": r"^\d{5}$"}), "zip 90210", {"zip": "90210"}, id="pattern"
        ),
        pytest.param(
            of(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}), "hi", {"code": "AA-000"}, id="sample"
        ),
        pytest.param(
            of(p={"type": "string", "pattern": "^(?=x).*$"}), "!", {"p": "value"}, id="pattern that is not simple"
        ),
        pytest.param(
            of(p={"type": "string", "pattern": "(?<bad"}),
            "hi",
            {"p": "value"},
            id="pattern that Python cannot read",
        ),
        pytest.param(
            of(m={"type": "string", "format": "email"}),
            "write to ada@example.org, please",
            {"m": "ada@example.org"},
            id="format in the text",
        ),
        pytest.param(
            of(d={"type": "string", "format": "date"}), "in June", {"d": FORMAT_VALUES["date"]}, id="fixed format"
        ),
        pytest.param(
            of(d={"type": "string", "format": "date", "maxLength": 4}),
            "in June",
            {"d": "June"},
            id="format given up",
        ),
        pytest.param(of(s={"type": "string", "maxLength": 3}), "in Paris", {"s": "Par"}, id="cut to length"),
        pytest.param(
            of(s={"type": "string", "minLength": 9}), "in Paris", {"s": "valuvalue"}, id="filled to length"
        ),
        pytest.param(of(xs={"type": "array", "items": STRING}), "in Paris", {"xs": ["Paris"]}, id="one item"),
        pytest.param(
            of(xs={"type": "array", "items": {"enum": ["red", "green", "blue"]}}),
            "blue and red",
            {"xs": ["red", "blue"]},
            id="all named items",
        ),
        pytest.param(
            of(xs={"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "uniqueItems": True}),
            "2",
            {"xs": [2, 1]},
            id="unique items",
        ),
        pytest.param(
            of(xy={"type": "array", "prefixItems": [{"type": "number"}, STRING], "items": False}),
            "at Rome 4",
            {"xy": [4, "Rome"]},
            id="prefix items",
        ),
        pytest.param(
            of(x={"allOf": [{"type": "number"}, {"minimum": 3}, {"multipleOf": 5}]}), "", {"x": 5}, id="allOf"
        ),
        pytest.param(of(x={"anyOf": [False, INTEGER]}), "8", {"x": 8}, id="anyOf, first that works"),
        pytest.param(of(x={"oneOf": [INTEGER, {"type": "number"}]}), "8", {"x": 0.5}, id="oneOf, exactly one"),
        pytest.param(NODE, "call Bob", {"name": "Bob", "next": None}, id="recursion ends early"),
        pytest.param({**TREE, "$ref": "#/definitions/tree"}, "", {"kids": []}, id="recursion in items"),
        pytest.param(of(x={"not": {"type": "string"}}), "Bob", {"x": 1}, id="not"),
        pytest.param({"minProperties": 1}, "Bob", {"property1": "Bob"}, id="invented property"),
        pytest.param(
            {"required": ["a"], "additionalProperties": INTEGER}, "4", {"a": 4}, id="required, not declared"
        ),
        pytest.param(
            {"properties": {"a": STRING, "b": INTEGER}, "required": ["a"], "dependentRequired": {"a": ["b"]}},
            "",
            {"a": "value", "b": 1},
            id="dependentRequired",
        ),
        pytest.param(
            {**of(a={"enum": ["x"]}), "if": of(a={"const": "x"}), "then": {"required": ["b"]}},
            "",
            {"a": "x", "b": "value"},
            id="if and then",
        ),
    ],
)
def test_preference(schema: Schema, text: str, arguments: dict[str, Any]) -> None:
    made = build_arguments(schema, text)
    assert json.dumps(made) == json.dumps(arguments)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_fixed_values_have_their_format(name: str) -> None:
    assert build_arguments(of(x={"type": "string", "format": name}), "hello") == {"x": FORMAT_VALUES[name]}
    assert FORMATS[name].fullmatch(FORMAT_VALUES[name])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        of(a=False),
        of(a={"enum": []}),
        of(a={"type": "string", "enum": [1]}),
        of(a={"minimum": 3, "maximum": 2, "type": "number"}),
        of(a={"$ref": "#/$defs/nowhere"}),
        of(a={"$ref": "https://example.com/schema"}),
        of(a={"$ref": "#"}),
        of(a={"type": "strange"}),
        of(a={"minLength": 10**9, "type": "string"}),
        of(a={"minItems": 10**9, "type": "array"}),
        {**of(**{f"p{at}": STRING for at in range(40)}), "not": {}},
        {"allOf": [{"anyOf": [of(**{f"x{a}{b}": STRING}) for b in range(6)]} for a in range(12)], "not": {}},
        {"$defs": {"A": of(a={"$ref": "#/$defs/A"}, b={"$ref": "#/$defs/A"})}, "$ref": "#/$defs/A"},
    ],
)
def test_what_cannot_be_satisfied_is_said(schema: Schema) -> None:
    with pytest.raises(UnsatisfiableSchemaError):
        build_arguments(schema, "hello Bob, 4 words in Paris")


def test_malformed_keywords_are_no_constraints() -> None:
    broken = {"minimum": "x", "pattern": 3, "enum": 4, "items": 5, "required": "y", "properties": [], "type": 7}
    assert build_arguments({**broken, "type": "object", "required": ["a", 5]}, "Bob") == {"a": "Bob"}
    assert build_arguments(of(a=broken, b=17), "Bob Ray") == {"a": "Bob Ray", "b": "value"}


def test_the_same_in_every_process() -> None:
    schema = {
        "properties": {name: {"enum": ["red", "green"]} for name in "defabc"},
        "required": ["c", "zz", "yy"],
        "dependentRequired": {"c": ["q", "r", "s", "t"]},
    }
    program = (
        "import json,sys;from vivavoce.engines.builtin.schema_values import build_arguments as b;"
        "print(json.dumps(b(json.loads(sys.argv[1]),'green Bob and Eve')))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program, json.dumps(schema)],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {json.dumps(build_arguments(schema, "green Bob and Eve")) + "\n"}


# ----------------------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{3}-\d{4}$",
        "a|b",
        r"^(?:ab|c)+x?$",
        r"^[^a-z]{2}$",
        r"\bword\b",
        r"^\+?[1-9]\d{1,14}$",
        r"^\s\S\w\W\D.$",
        r"(?P<year>\d{4})/(0[1-9])",
        r"^[\w.-]+@[\w-]+\.com$",
        "^[a-z]+(-[a-z]+)*$",
        "^$",
        "^[-+]a{2,3}?$",
    ],
)
def test_samples_match(pattern: str) -> None:
    found = list(schema_pattern.samples(pattern, 0, None))
    assert found
    assert all(schema_pattern.matches(pattern, sample) for sample in found)


def test_samples_keep_to_the_lengths() -> None:
    assert next(schema_pattern.samples("^[ab]+$", 7, 9)) == "aaaaaaa"
    assert next(schema_pattern.samples("x", 4, 4)) == "xaaa"
    assert list(schema_pattern.samples("^abc$", 4, None)) == []
    assert list(schema_pattern.samples("^a(?!b)", 0, None)) == []


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|a)*$",
        "^((a+)+)+$",
        "^(a*)*$",
        "^a*a*a*a*a*$",
        "^(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)$",
        "^(a?){30}a{30}$",
        "^((a{0,9}){1,9})+$",
        "^(?=(a+)+$)",
    ],
)
def test_a_pattern_is_not_run_where_it_could_take_long(pattern: str) -> None:
    assert not schema_pattern.matches(pattern, "a" * 60)
    assert not schema_pattern.matches(pattern, "a" * 60 + "!")


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [
        ("^[a-z]+$", 256),
        (r"^\d{3}-\d{4}$", 256),
        (r"^[\w.]+@[\w.]+$", 215),
        ("^(red|green|blue|cyan|pink)$", 256),
        ("^[a-z]+-[a-z]+-[a-z]+$", 56),
        ("^[a-z]+(-[a-z]+)*$", 12),
    ],
)
def test_usual_patterns_are_run(pattern: str, longest: int) -> None:
    assert schema_pattern._longest(pattern) == longest


def test_a_pattern_that_is_not_run_is_followed_by_construction() -> None:
    dangerous = {"type": "string", "pattern": "^(x+)+(y+)+(z+)+-[0-9]+$", "minLength": 12}
    assert build_arguments(of(a=dangerous), "hello Bob")["a"] == "xxxxyyyyzzzz-00"


# ----------------------------------------------------------------------------------------------- property

NAMES = st.sampled_from(["city", "unit", "count", "when", "mode", "list", "x"])
JSON_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["red", "blue", "", "x y"]))
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [
                "the",
                "weather",
                "in",
                "Paris",
                "is",
                "21",
                "twenty",
                "five",
                "red",
                "blue",
                "count",
                "unit",
                "-3",
                "2.5",
                "no",
                "x",
            ]
        ),
        max_size=12,
    ).map(" ".join),
)


@st.composite
def strings(draw: st.DrawFn) -> Schema:
    least = draw(st.integers(0, 12))
    schema: Schema = {"type": "string"}
    if draw(st.booleans()):
        schema["minLength"] = least
    if draw(st.booleans()):
        schema["maxLength"] = least + draw(st.integers(0, 5))
    if len(schema) == 1 and draw(st.booleans()):
        schema["pattern"] = draw(
            st.sampled_from([r"^\d{2}:\d{2}$", "^[A-Z]+$", "e", "^(on|off)$", r"^v\d+(\.\d+)*$"])
        )
    elif len(schema) == 1 and draw(st.booleans()):
        schema["format"] = draw(st.sampled_from([*FORMATS, "hostname"]))
    return schema


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    whole = draw(st.booleans())
    schema: Schema = {"type": "integer" if whole else "number"}
    low = draw(st.integers(-50, 50))
    step = draw(st.sampled_from([None, 1, 3, 0.5, 0.1, 7]))
    room = 2 * step if step and step > 1 else 2
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + room + draw(st.integers(0, 4))
    if step is not None:
        schema["multipleOf"] = step
    return schema


LEAVES = st.one_of(
    strings(),
    numbers(),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {}, True, {"type": ["null", "string"]}]),
    st.lists(JSON_SCALARS, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    JSON_SCALARS.map(lambda value: {"const": value}),
    st.tuples(strings(), JSON_SCALARS).map(lambda pair: {**pair[0], "default": pair[1]}),
    st.sampled_from([{"$ref": "#/$defs/leaf"}, {"anyOf": [{"$ref": "#"}, {"type": "null"}]}]),
)


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Schema:
    properties = draw(st.dictionaries(NAMES, inner, max_size=4))
    schema: Schema = {"type": "object", "properties": properties}
    if properties:
        schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True))
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(st.sampled_from([False, True, {"type": "string"}]))
    if draw(st.booleans()):
        schema["minProperties"] = draw(st.integers(0, len(properties)))
    return schema


@st.composite
def arrays(draw: st.DrawFn, inner: st.SearchStrategy[Any]) -> Schema:
    schema: Schema = {"type": "array"}
    unique = draw(st.booleans())
    if unique:
        schema |= {
            "uniqueItems": True,
            "items": draw(st.one_of(strings().filter(lambda s: len(s) == 1), numbers())),
        }
        return schema | {"minItems": draw(st.integers(0, 1))}
    if draw(st.booleans()):
        schema["prefixItems"] = draw(st.lists(inner, min_size=1, max_size=3))
    if draw(st.booleans()):
        schema["items"] = draw(inner)
    least = draw(st.integers(0, 4))
    schema["minItems"] = least
    if draw(st.booleans()):
        schema["maxItems"] = least + draw(st.integers(0, 2))
    return schema


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        objects(inner),
        arrays(inner),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        st.tuples(strings(), numbers()).map(lambda parts: {"oneOf": list(parts)}),
        inner.map(lambda part: {"allOf": [part, {"description": "a part"}]}),
        st.tuples(inner, inner).map(lambda parts: {"allOf": [of(city=parts[0]), of(unit=parts[1])]}),
    )


SCHEMAS = objects(st.recursive(LEAVES, combined, max_leaves=8)).map(
    lambda schema: {**schema, "$defs": {"leaf": {"type": "string", "maxLength": 6}}}
)


@settings(max_examples=150, deadline=None)
@given(SCHEMAS, TEXTS)
def test_arguments_satisfy_the_schema(schema: Schema, text: str) -> None:
    Draft202012Validator.check_schema(schema)
    arguments = build_arguments(schema, text)
    Draft202012Validator(schema).validate(json.loads(json.dumps(arguments, allow_nan=False)))
    assert json.dumps(build_arguments(schema, text)) == json.dumps(arguments)


@settings(max_examples=150, deadline=None)
@given(st.recursive(LEAVES, combined, max_leaves=5), st.recursive(JSON_SCALARS, lambda inner: st.lists(inner)))
def test_the_checker_agrees_with_jsonschema(schema: Any, value: Any) -> None:
    root = {"$defs": {"leaf": {"type": "string", "maxLength": 6}}, "properties": {"value": schema}}
    document = {"value": value}
    verdict = Checker(root, formats=False).fits(document, root)
    assert verdict == Draft202012Validator(root).is_valid(document)
