"""Does a value satisfy a JSON schema? (draft 2020-12, the vocabulary that function tools use)

Written for foreign schemas: a keyword whose value has the wrong form is no constraint, nothing raises, and
nesting is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any
from urllib.parse import unquote

from vivavoce.engines.builtin import schema_pattern
from vivavoce.engines.builtin.text_hints import FORMATS

DEEPEST = 40
"""Levels of nesting of schemas and values that are followed; a value beyond satisfies nothing."""

TYPES = ("string", "number", "integer", "boolean", "object", "array", "null")


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number_in(schema: Mapping[str, Any], key: str) -> int | float | None:
    value = schema.get(key)
    return value if is_number(value) else None


def count_in(schema: Mapping[str, Any], key: str) -> int | None:
    """A length or count; an integral float is one too, as in ``"minItems": 2.0``."""
    value = number_in(schema, key)
    return int(value) if value is not None and value >= 0 and value == value // 1 else None


def list_in(schema: Mapping[str, Any], key: str) -> Sequence[Any]:
    value = schema.get(key)
    return value if isinstance(value, list | tuple) else ()


def mapping_in(schema: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = schema.get(key)
    return value if isinstance(value, Mapping) else {}


def types_in(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The types that are allowed, in order; all of them when nothing is said."""
    named = schema.get("type")
    listed = [named] if isinstance(named, str) else list_in(schema, "type")
    return tuple(name for name in listed if isinstance(name, str)) or TYPES


def prefix_in(schema: Mapping[str, Any]) -> Sequence[Any]:
    """Schemas of the first items: ``prefixItems``, or the older list form of ``items``."""
    return list_in(schema, "prefixItems") or list_in(schema, "items")


def rest_in(schema: Mapping[str, Any]) -> Any:
    """Schema of the items after the first ones."""
    if isinstance(schema.get("items"), list | tuple):
        return schema.get("additionalItems", True)
    return schema.get("items", True)


def resolve(root: Mapping[str, Any], reference: str) -> Any:
    """The part of ``root`` that a ``$ref`` names; None when it is not in this document."""
    if not reference.startswith("#"):
        return None
    found: Any = root
    for step in unquote(reference[1:]).split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(key)
        elif isinstance(found, list | tuple) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return None
    return found if reference == "#" or reference.startswith("#/") else None


def same(one: Any, other: Any) -> bool:
    """Equality of JSON: 1 is 1.0, but true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def has_type(value: Any, name: str) -> bool:
    match name:
        case "string":
            return isinstance(value, str)
        case "number":
            return is_number(value)
        case "integer":
            return is_number(value) and value == value // 1
        case "boolean":
            return isinstance(value, bool)
        case "object":
            return isinstance(value, Mapping)
        case "array":
            return isinstance(value, list | tuple)
        case "null":
            return value is None
    return False


def is_multiple(value: int | float, step: int | float) -> bool:
    """True when ``value`` is a multiple in decimal and in binary arithmetic alike, since validators differ."""
    if step <= 0:
        return True
    try:
        quotient = value / step
        return Fraction(str(value)) % Fraction(str(step)) == 0 and quotient == int(quotient)
    except (OverflowError, ValueError):
        return False


class Checker:
    """Checks values against the parts of one schema document.

    ``work`` counts the schemas that were compared with a value. ``refused`` holds "format" or "pattern" once a
    string was refused for it.
    """

    def __init__(self, root: Mapping[str, Any], *, formats: bool = True, patterns: bool = True) -> None:
        self._root = root
        self.formats = formats
        self.patterns = patterns
        self.work = 0
        self.refused: set[str] = set()

    def fits(self, value: Any, schema: Any, depth: int = 0) -> bool:
        """True when ``value`` satisfies ``schema``, a part of the document (or made of its parts)."""
        self.work += 1
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, Mapping):
            return True
        if depth > DEEPEST:
            return False
        return (
            self._fits_value(value, schema)
            and self._fits_combined(value, schema, depth + 1)
            and (not isinstance(value, Mapping) or self._fits_object(value, schema, depth + 1))
            and (not isinstance(value, list | tuple) or self._fits_array(value, schema, depth + 1))
        )

    def _fits_value(self, value: Any, schema: Mapping[str, Any]) -> bool:
        if not any(has_type(value, name) for name in types_in(schema)):
            return False
        if "const" in schema and not same(value, schema["const"]):
            return False
        allowed = schema.get("enum")
        if isinstance(allowed, list | tuple) and not any(same(value, one) for one in allowed):
            return False
        if isinstance(value, str):
            return self._fits_string(value, schema)
        return not is_number(value) or _fits_number(value, schema)

    def _fits_string(self, value: str, schema: Mapping[str, Any]) -> bool:
        least, most = count_in(schema, "minLength"), count_in(schema, "maxLength")
        if len(value) < (least or 0) or (most is not None and len(value) > most):
            return False
        form = FORMATS.get(str(schema.get("format")))
        if self.formats and form is not None and not form.fullmatch(value):
            self.refused.add("format")
            return False
        pattern = schema.get("pattern")
        if self.patterns and isinstance(pattern, str) and not schema_pattern.matches(pattern, value):
            self.refused.add("pattern")
            return False
        return True

    def _fits_combined(self, value: Any, schema: Mapping[str, Any], depth: int) -> bool:
        reference = schema.get("$ref")
        if isinstance(reference, str):
            target = resolve(self._root, reference)
            if target is None or not self.fits(value, target, depth):
                return False
        if not all(self.fits(value, part, depth) for part in list_in(schema, "allOf")):
            return False
        choices = list_in(schema, "anyOf")
        if choices and not any(self.fits(value, part, depth) for part in choices):
            return False
        choices = list_in(schema, "oneOf")
        if choices and sum(self.fits(value, part, depth) for part in choices) != 1:
            return False
        if "not" in schema and self.fits(value, schema["not"], depth):
            return False
        if "if" not in schema:
            return True
        branch = "then" if self.fits(value, schema["if"], depth) else "else"
        return self.fits(value, schema.get(branch, True), depth)

    def _fits_object(self, value: Mapping[str, Any], schema: Mapping[str, Any], depth: int) -> bool:
        least, most = count_in(schema, "minProperties"), count_in(schema, "maxProperties")
        if len(value) < (least or 0) or (most is not None and len(value) > most):
            return False
        if not all(name in value for name in list_in(schema, "required") if isinstance(name, str)):
            return False
        for name, needed in mapping_in(schema, "dependentRequired").items():
            if name in value and isinstance(needed, list | tuple) and not all(other in value for other in needed):
                return False
        for name, part in mapping_in(schema, "dependentSchemas").items():
            if name in value and not self.fits(value, part, depth):
                return False
        names = schema.get("propertyNames", True)
        return all(
            self.fits(name, names, depth)
            and all(self.fits(member, part, depth) for part in property_schemas(schema, name))
            for name, member in value.items()
        )

    def _fits_array(self, value: Sequence[Any], schema: Mapping[str, Any], depth: int) -> bool:
        least, most = count_in(schema, "minItems"), count_in(schema, "maxItems")
        if len(value) < (least or 0) or (most is not None and len(value) > most):
            return False
        prefix, rest = prefix_in(schema), rest_in(schema)
        for at, item in enumerate(value):
            if not self.fits(item, prefix[at] if at < len(prefix) else rest, depth):
                return False
        if schema.get("uniqueItems") is True and any(
            same(item, other) for at, item in enumerate(value) for other in value[:at]
        ):
            return False
        if "contains" not in schema:
            return True
        hits = sum(self.fits(item, schema["contains"], depth) for item in value)
        least, most = count_in(schema, "minContains"), count_in(schema, "maxContains")
        return hits >= (1 if least is None else least) and (most is None or hits <= most)


def property_schemas(schema: Mapping[str, Any], name: str) -> Iterator[Any]:
    """The schemas that the value of the property ``name`` must satisfy."""
    declared = mapping_in(schema, "properties")
    known = name in declared
    if known:
        yield declared[name]
    for pattern, part in mapping_in(schema, "patternProperties").items():
        if schema_pattern.matches(pattern, name):
            known = True
            yield part
    if not known:
        yield schema.get("additionalProperties", True)


def _fits_number(value: int | float, schema: Mapping[str, Any]) -> bool:
    least, most = number_in(schema, "minimum"), number_in(schema, "maximum")
    above, below = number_in(schema, "exclusiveMinimum"), number_in(schema, "exclusiveMaximum")
    step = number_in(schema, "multipleOf")
    return (
        (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
        and (below is None or value < below)
        and (step is None or is_multiple(value, step))
    )
