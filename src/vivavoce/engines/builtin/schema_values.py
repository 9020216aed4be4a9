"""Arguments for a function call that satisfy the function's JSON schema and make use of what the user said.

Laws
----
1. Same schema and same text, same arguments.
2. What is returned satisfies the schema as far as :mod:`vivavoce.engines.builtin.schema_check` understands it,
   except that ``format`` and then ``pattern`` are given up when nothing is found that has them.
3. Schemas are foreign input: the search is bounded, and a schema that nothing is found for is an error.

Values are tried in an order of preference, which docs/reference/scripted-model.md states, until one fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from math import ceil, floor, inf
from typing import Any, TypeAlias

from vivavoce.engines.builtin import schema_pattern
from vivavoce.engines.builtin.schema_check import (
    DEEPEST,
    TYPES,
    Checker,
    count_in,
    is_multiple,
    list_in,
    mapping_in,
    number_in,
    prefix_in,
    property_schemas,
    resolve,
    rest_in,
    same,
    types_in,
)
from vivavoce.engines.builtin.text_hints import FORMATS, Hints

FORMAT_VALUES = {
    "date": "2025-01-15",
    "time": "12:00:00Z",
    "date-time": "2025-01-15T12:00:00Z",
    "email": "user@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
}
"""What a string of a known format is when the text has none."""

_FILLER = "value"
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MOST_WORK = 50_000
_MOST_MISSES = 64
_MOST_BRANCHES = 64
_MOST_VARIANTS = 64
_MOST_ITEMS = 256
_LONGEST_TEXT = 100_000
_REFERENCE_LEVELS = 4

_KEPT = (frozenset({"format", "pattern"}), frozenset({"pattern"}), frozenset[str]())
"""What strings must have, in one search after the other."""

_KEYWORDS_OF_TYPE = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "patternProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems", "contains"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_COMBINING = frozenset({"$ref", "allOf", "anyOf", "oneOf", "if", "then", "else"})


class UnsatisfiableSchemaError(ValueError):
    """Nothing was found that satisfies the schema: it contradicts itself, or is outside what is understood."""


class _Exhausted(Exception):
    """The search took too many steps."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the search stands: what of the text is used up, and the references that lead here."""

    phrases: frozenset[int] = frozenset()
    numbers: frozenset[int] = frozenset()
    references: tuple[str, ...] = ()
    depth: int = 0


_Found: TypeAlias = tuple[Any, _Place]
_Maker: TypeAlias = Callable[[_Place], Iterator[_Found]]


def build_arguments(schema: Mapping[str, Any], text: str) -> dict[str, Any]:
    """Make arguments for a function from the user's text.

    ``schema`` is the function's ``parameters``, a JSON schema of type object; empty for no arguments. ``text``
    is what the user said. Returns a JSON object as Python values. Raises :class:`UnsatisfiableSchemaError`.
    """
    hints = Hints(text)
    refused: set[str] = set()
    for kept in _KEPT:
        if kept is not _KEPT[0] and refused <= kept:
            continue
        checker = Checker(schema, formats="format" in kept, patterns="pattern" in kept)
        for level in range(1, _REFERENCE_LEVELS + 1):
            search = _Search(schema, hints, checker, level)
            found = search.run()
            if found is not None:
                return found
            if not search.cut_reference:
                break
        refused |= checker.refused
    raise UnsatisfiableSchemaError("no arguments were found that satisfy the schema")


class _Search:
    """One search through the values of a schema, most wanted first.

    ``level`` is how often one reference may be followed on the way to a value; starting at one gives the smallest
    value of a recursive schema.
    """

    def __init__(self, root: Mapping[str, Any], hints: Hints, checker: Checker, level: int) -> None:
        self._root = root
        self._hints = hints
        self._checker = checker
        self._level = level
        self._work = -checker.work
        self.cut_reference = False

    def run(self) -> dict[str, Any] | None:
        schema = {"allOf": [self._root, {"type": "object"}]}
        try:
            found = next(self._values(schema, _Place()), None)
        except _Exhausted:
            return None
        return None if found is None else dict(found[0])

    def _step(self, work: int = 1) -> None:
        self._work += work
        if self._work + self._checker.work > _MOST_WORK:
            raise _Exhausted

    def _values(self, schema: Any, place: _Place) -> Iterator[_Found]:
        """All values of a schema, in order of preference."""
        if place.depth > DEEPEST // 2:
            return
        for flat, references in islice(self._flatten(schema, place.references), _MOST_BRANCHES):
            inside = replace(place, references=references, depth=place.depth + 1)
            for shape in self._shapes(flat, inside):
                for value, after in self._fitting(shape, schema):
                    yield value, replace(after, references=place.references, depth=place.depth)

    def _fitting(self, shape: Iterator[_Found], schema: Any) -> Iterator[_Found]:
        """The values of one shape that satisfy the schema; a shape that only misses is left after a while."""
        misses = 0
        for found in shape:
            self._step()
            if self._checker.fits(found[0], schema):
                yield found
            else:
                misses += 1
            if misses > _MOST_MISSES:
                return

    # ------------------------------------------------------------------------- schemas without combinations

    def _flatten(
        self, schema: Any, references: tuple[str, ...], depth: int = 0
    ) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
        """The alternatives of a schema, each merged into one that has none of the combining keywords."""
        self._step()
        if schema is False or depth > DEEPEST:
            return
        if not isinstance(schema, Mapping):
            yield {}, references
            return
        groups = [[part] for part in list_in(schema, "allOf")]
        groups += [list(group) for key in ("anyOf", "oneOf") if (group := list_in(schema, key))]
        if "if" in schema:
            met = {"allOf": [schema["if"], schema.get("then", True)]}
            groups.append([schema.get("else", True), met])
        reference = schema.get("$ref")
        if isinstance(reference, str):
            if references.count(reference) >= self._level:
                self.cut_reference = True
                return
            references = (*references, reference)
            target = resolve(self._root, reference)
            groups.insert(0, [False if target is None else target])
        base = {key: value for key, value in schema.items() if key not in _COMBINING}
        yield from self._join(base, groups, references, depth)

    def _join(
        self, base: Mapping[str, Any], groups: Sequence[list[Any]], references: tuple[str, ...], depth: int
    ) -> Iterator[tuple[Mapping[str, Any], tuple[str, ...]]]:
        if not groups:
            yield base, references
            return
        for choice in groups[0]:
            for flat, led in islice(self._flatten(choice, references, depth + 1), _MOST_BRANCHES):
                self._step(10 + len(base) + len(mapping_in(base, "properties")))
                merged = _merge(base, flat)
                if merged is not None:
                    yield from islice(self._join(merged, groups[1:], led, depth), _MOST_BRANCHES)

    # ------------------------------------------------------------------------------------------- proposals

    def _shapes(self, schema: Mapping[str, Any], place: _Place) -> Iterator[Iterator[_Found]]:
        """Proposals for a schema without combinations, in groups that stand or fall together."""
        if "const" in schema:
            yield iter([(schema["const"], place)])
            return
        if isinstance(schema.get("enum"), list | tuple):
            named = self._named(schema["enum"])
            default = [schema["default"]] if "default" in schema else []
            yield ((value, place) for value in named)
            yield ((value, place) for value in (*default, *schema["enum"]))
            return
        if "default" in schema:
            yield iter([(schema["default"], place)])
        for name in _wanted_types(schema):
            yield from self._of_type(name, schema, place)

    def _of_type(self, name: str, schema: Mapping[str, Any], place: _Place) -> Iterator[Iterator[_Found]]:
        match name:
            case "string":
                yield self._strings(schema, place)
            case "integer" | "number":
                yield self._numbers(place)
                yield ((value, place) for value in _whole_numbers(schema, whole=name == "integer"))
                if name == "number":
                    yield ((value, place) for value in _fractions(schema))
            case "boolean":
                first = not self._hints.negative
                yield iter([(first, place), (not first, place)])
            case "object":
                yield from self._objects(schema, place)
            case "array":
                yield from self._arrays(schema, place)
            case "null":
                yield iter([(None, place)])

    def _named(self, allowed: Sequence[Any]) -> list[Any]:
        """The allowed values that the text names: the longest first, then the earliest."""
        found: list[tuple[int, int, Any]] = []
        for value in allowed:
            if isinstance(value, str):
                at = self._hints.place(value)
                if at is not None:
                    found.append((-len(value), at, value))
            elif any(same(value, number) for number in self._hints.numbers):
                found.append((0, 0, value))
        return [value for _, _, value in sorted(found, key=lambda entry: entry[:2])]

    def _strings(self, schema: Mapping[str, Any], place: _Place) -> Iterator[_Found]:
        least, most = count_in(schema, "minLength") or 0, count_in(schema, "maxLength")
        if least > _LONGEST_TEXT:
            return
        known = schema.get("format")
        if isinstance(known, str) and known in FORMATS:
            for word in (*self._hints.in_format(known), FORMAT_VALUES[known]):
                yield word, place
        pattern = schema.get("pattern")
        samples = schema_pattern.samples(pattern, least, most) if isinstance(pattern, str) else iter(())
        if not self._checker.patterns:
            yield from ((sample, place) for sample in islice(samples, 1))
        unused = [at for at in range(len(self._hints.phrases)) if at not in place.phrases][:_MOST_VARIANTS]
        for at in unused:
            yield self._hints.phrases[at], replace(place, phrases=place.phrases | {at})
        yield from ((sample, place) for sample in islice(samples, _MOST_VARIANTS))
        if most is not None:
            for at in unused:
                if cut := self._hints.phrases[at][:most].strip():
                    yield cut, replace(place, phrases=place.phrases | {at})
        for variant in range(_MOST_VARIANTS):
            yield _filler(variant, least, most), place

    def _numbers(self, place: _Place) -> Iterator[_Found]:
        for at, number in enumerate(self._hints.numbers[:_MOST_VARIANTS]):
            if at not in place.numbers:
                yield number, replace(place, numbers=place.numbers | {at})

    def _arrays(self, schema: Mapping[str, Any], place: _Place) -> Iterator[Iterator[_Found]]:
        least, most = count_in(schema, "minItems") or 0, count_in(schema, "maxItems")
        prefix, rest = prefix_in(schema), rest_in(schema)
        usual = max(least, len(prefix) or int(isinstance(rest, Mapping) or "contains" in schema))
        named = self._items_named(rest) if not prefix else []
        lengths = [max(usual, len(named)), usual, least, least + 1, least + 2]
        for length in dict.fromkeys(length if most is None else min(length, most) for length in lengths):
            if length > _MOST_ITEMS:
                continue
            items = [prefix[at] if at < len(prefix) else rest for at in range(length)]
            if "contains" in schema and items:
                items[-1] = {"allOf": [items[-1], schema["contains"]]}
            for at, value in enumerate(named[:length]):
                items[at] = {"allOf": [items[at], {"const": value}]}
            makers = [self._maker(item) for item in items]
            combined = self._combine(makers, place, distinct=schema.get("uniqueItems") is True)
            yield ((list(values), after) for values, after in combined)

    def _items_named(self, rest: Any) -> list[Any]:
        """The allowed values of an array's items that the text names, in the order of the schema."""
        for flat, _ in self._flatten(rest, ()):
            allowed = list_in(flat, "enum")
            named = self._named(allowed)
            return [value for value in allowed if any(same(value, other) for other in named)]
        return []

    def _objects(self, schema: Mapping[str, Any], place: _Place) -> Iterator[Iterator[_Found]]:
        declared = mapping_in(schema, "properties")
        required = _required(schema)
        optional = [name for name in declared if name not in required]
        mentioned = [name for name in optional if self._mentioned(name, declared[name])]
        least, most = count_in(schema, "minProperties") or 0, number_in(schema, "maxProperties") or inf
        missing = least - len(required)
        added = [*optional, *(f"property{at}" for at in range(1, min(max(missing, 0), _MOST_ITEMS) + 1))]
        choices = [
            mentioned,
            *([name] for name in mentioned),
            [],
            [*mentioned, *(name for name in added if name not in mentioned)][: max(missing, len(mentioned), 0)],
            optional,
            *([name] for name in optional),
        ]
        tried: list[list[str]] = []
        for choice in choices:
            listed = [*required, *choice]
            wanted = dict.fromkeys([*listed, *_dependent(schema, listed)])
            names = [name for name in declared if name in wanted]
            names += [name for name in wanted if name not in declared]
            if names in tried or not least <= len(names) <= most:
                continue
            tried.append(names)
            makers = [self._maker({"allOf": list(property_schemas(schema, name))}) for name in names]
            yield _named_members(names, self._combine(makers, place))

    def _mentioned(self, name: str, schema: Any) -> bool:
        """True when the text has the words of the property's name, or names one of its allowed strings."""
        if self._hints.mentions(name):
            return True
        for flat, _ in islice(self._flatten(schema, ()), _MOST_BRANCHES):
            allowed = [*list_in(flat, "enum"), *([flat["const"]] if "const" in flat else [])]
            if self._named([value for value in allowed if isinstance(value, str)]):
                return True
            if "items" in flat and self._items_named(flat["items"]):
                return True
        return False

    def _maker(self, schema: Any) -> _Maker:
        return lambda place: self._values(schema, place)

    def _combine(
        self, makers: Sequence[_Maker], place: _Place, *, distinct: bool = False
    ) -> Iterator[tuple[tuple[Any, ...], _Place]]:
        """Every way to take one value from each maker; the last one varies first."""
        if not makers:
            yield (), place
            return
        chosen: list[Any] = []
        open_: list[Iterator[_Found]] = [makers[0](place)]
        reached: set[int] = set()
        while open_:
            at = len(open_) - 1
            found = next(open_[-1], None)
            if found is None:
                if at not in reached and not distinct:
                    return
                open_.pop()
                if chosen:
                    chosen.pop()
                continue
            reached.add(at)
            value, after = found
            if distinct and any(same(value, other) for other in chosen):
                self._step()
                continue
            if at == len(makers) - 1:
                yield (*chosen, value), after
            else:
                chosen.append(value)
                open_.append(makers[at + 1](after))


# ------------------------------------------------------------------------------------------------- helpers


def _wanted_types(schema: Mapping[str, Any]) -> list[str]:
    """The types in the order in which they are tried: as listed, null last; else what the keywords are about."""
    types = types_in(schema)
    if types != TYPES:
        return sorted(types, key=lambda name: name == "null")
    return sorted(types, key=lambda name: not _KEYWORDS_OF_TYPE.get(name, set()) & schema.keys())


def _required(schema: Mapping[str, Any]) -> list[str]:
    names = [name for name in list_in(schema, "required") if isinstance(name, str)]
    return list(dict.fromkeys([*names, *_dependent(schema, names)]))


def _dependent(schema: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """What ``dependentRequired`` adds when ``names`` are there."""
    rules = mapping_in(schema, "dependentRequired")
    found: list[str] = []
    waiting = list(names)
    while waiting:
        needed = rules.get(waiting.pop())
        for name in needed if isinstance(needed, list | tuple) else ():
            if isinstance(name, str) and name not in found and name not in names:
                found.append(name)
                waiting.append(name)
    return found


def _named_members(names: list[str], combined: Iterator[tuple[tuple[Any, ...], _Place]]) -> Iterator[_Found]:
    for values, after in combined:
        yield dict(zip(names, values, strict=True)), after


def _filler(variant: int, least: int, most: int | None) -> str:
    """The text that stands where the user gave none: "value", "value2", ... within the lengths allowed."""
    text = _FILLER if variant == 0 else f"{_FILLER}{variant + 1}"
    if most is not None and len(text) > most:
        text = ""
        while len(text) < most:
            text = _LETTERS[variant % len(_LETTERS)] + text
            variant //= len(_LETTERS)
    missing = least - len(text)
    return text if missing <= 0 else (_FILLER * (missing // len(_FILLER) + 1))[:missing] + text


def _fraction(value: int | float) -> Fraction:
    return Fraction(str(value))


def _bounds(schema: Mapping[str, Any]) -> tuple[Fraction | None, Fraction | None]:
    """The closed hull of the numbers allowed; the checker leaves out the ends that are exclusive."""
    lows = [number_in(schema, "minimum"), number_in(schema, "exclusiveMinimum")]
    highs = [number_in(schema, "maximum"), number_in(schema, "exclusiveMaximum")]
    low = max((_fraction(value) for value in lows if value is not None), default=None)
    high = min((_fraction(value) for value in highs if value is not None), default=None)
    return low, high


def _whole_numbers(schema: Mapping[str, Any], *, whole: bool) -> Iterator[int | float]:
    """Multiples within the bounds: from one, or from the bound nearest to it, upwards and then downwards. With
    ``whole``, or when no step is given, they are whole numbers."""
    low, high = _bounds(schema)
    given = number_in(schema, "multipleOf")
    step = _fraction(given) if given is not None and given > 0 else Fraction(1)
    if whole:
        step = Fraction(step.numerator)
    start = ceil(max(Fraction(1), low if low is not None else Fraction(1)) / step)
    if high is not None and start * step > high:
        start = floor(high / step)
    for at in (*range(start, start + _MOST_VARIANTS), *range(start - 1, start - _MOST_VARIANTS, -1)):
        value = at * step
        if (low is None or value >= low) and (high is None or value <= high):
            yield _plain(value)


def _fractions(schema: Mapping[str, Any]) -> Iterator[int | float]:
    """Numbers between the bounds: the middle, then ever finer parts; a bound that is not given is one away."""
    low, high = _bounds(schema)
    lowest = low if low is not None else (high or Fraction(1)) - 1
    highest = high if high is not None else lowest + 1
    for parts in (1, 2, 4, 8, 16):
        for at in range(1, 2 * parts, 2):
            yield _plain(lowest + (highest - lowest) * Fraction(at, 2 * parts))


def _plain(value: Fraction | int) -> int | float:
    return int(value) if value == int(value) else float(value)


_STRICTEST: dict[str, Callable[[Any, Any], Any]] = {
    "minimum": max,
    "maximum": min,
    "exclusiveMinimum": max,
    "exclusiveMaximum": min,
    "minLength": max,
    "maxLength": min,
    "minItems": max,
    "maxItems": min,
    "minProperties": max,
    "maxProperties": min,
}


def _merge(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any] | None:
    """Both schemas in one, good enough to propose values from; None when no value can satisfy both.

    What cannot be expressed (two patterns, say) is left to the checker.
    """
    merged = {**other, **one}
    types = _common_types(types_in(one), types_in(other))
    if not types:
        return None
    if types != TYPES:
        merged["type"] = list(types)
    for key, stricter in _STRICTEST.items():
        first, second = number_in(one, key), number_in(other, key)
        if first is not None and second is not None:
            merged[key] = stricter(first, second)
    for key in ("required", "prefixItems"):
        if list_in(one, key) and list_in(other, key):
            merged[key] = _merge_lists(key, list_in(one, key), list_in(other, key))
    for key in ("items", "contains", "additionalProperties"):
        if key in one and key in other:
            merged[key] = {"allOf": [one[key], other[key]]}
    for key in ("properties", "patternProperties", "dependentRequired"):
        merged_map = _merge_maps(key, mapping_in(one, key), mapping_in(other, key))
        if merged_map:
            merged[key] = merged_map
    return _merge_values(merged, one, other)


def _common_types(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    common = [name for name in one if name in other or (name == "integer" and "number" in other)]
    common += [name for name in other if name == "integer" and "number" in one and name not in common]
    return tuple(common)


def _merge_lists(key: str, one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    if key == "required":
        return [*one, *(name for name in other if name not in one)]
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return [{"allOf": [part, shorter[at]]} if at < len(shorter) else part for at, part in enumerate(longer)]


def _merge_maps(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**one}
    for name, part in other.items():
        if name not in merged:
            merged[name] = part
        elif key == "dependentRequired":
            merged[name] = [*list_in(one, name), *list_in(other, name)]
        else:
            merged[name] = {"allOf": [merged[name], part]}
    return merged


def _merge_values(
    merged: dict[str, Any], one: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Finish a merge: allowed values, steps and uniqueness of both."""
    if "const" in one and "const" in other and not same(one["const"], other["const"]):
        return None
    if list_in(one, "enum") and list_in(other, "enum"):
        both = [value for value in one["enum"] if any(same(value, allowed) for allowed in other["enum"])]
        if not both:
            return None
        merged["enum"] = both
    first, second = number_in(one, "multipleOf"), number_in(other, "multipleOf")
    if first and second and first > 0 and second > 0:
        a, b = _fraction(first), _fraction(second)
        step = Fraction((a / b).numerator * b.numerator, b.denominator)
        merged["multipleOf"] = _plain(step) if is_multiple(_plain(step), first) else first
    if one.get("uniqueItems") is True or other.get("uniqueItems") is True:
        merged["uniqueItems"] = True
    return merged
