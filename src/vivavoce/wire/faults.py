"""Finding what is wrong with an event: the slow path behind the codec.

The fast path decodes a frame straight into typed shapes and only learns *that* it failed. This walk compares the
raw JSON value with the same shapes (``msgspec.inspect``) and finds the first fault in the service's check order
(protocol section 6): unknown keys, then missing keys, then types, then ranges and lengths, wherever in the event
they are; within one kind of fault, document order. Of an event with very many faults it looks at the first
:data:`MOST_FAULTS`.

A shape may say more than the types of its fields do: by a class method ``faults(value, path)`` that yields what
else is wrong with a JSON object, each with its phase, and by the class variables ``tolerated`` and ``tag_first``
(see :func:`_tagged`).
"""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias

import msgspec
import msgspec.inspect as mi

from vivavoce.wire import errors
from vivavoce.wire.errors import ClientFault


class Phase(IntEnum):
    """Kinds of faults in the order in which the service checks for them."""

    UNKNOWN = 0
    MISSING = 1
    TYPE = 2
    RANGE = 3


Found: TypeAlias = tuple[Phase, ClientFault]

MOST_FAULTS: Final = 100
"""Faults of one event that are looked at: one frame has room for millions, and everybody waits meanwhile."""

_NAMES: Final[dict[type, str]] = {
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def describe(value: object) -> str:
    """The JSON type of ``value`` with its article, as error texts name it."""
    return _NAMES.get(type(value), "an unknown value")


@functools.cache
def shape_of(cls: type) -> mi.Type:
    """The type description that :func:`first_fault` walks; cached, since making it is slow."""
    shape = mi.type_info(cls)
    _restore_order(shape, _declared(cls))
    return shape


def _declared(cls: type) -> dict[frozenset[object], tuple[str, ...]]:
    """The literals within a shape in the order in which they are declared, which msgspec forgets."""
    orders: dict[frozenset[object], tuple[str, ...]] = {}
    waiting: list[Any] = [cls]
    seen: set[Any] = set()
    while waiting:
        hint = waiting.pop()
        plain: Any = typing.get_origin(hint) or hint
        if isinstance(plain, type) and issubclass(plain, msgspec.Struct) and plain not in seen:
            seen.add(plain)
            waiting += typing.get_type_hints(plain, include_extras=True).values()
            waiting += getattr(plain, "__orig_bases__", ())
            waiting += typing.get_args(hint)
        elif typing.get_origin(hint) is Literal:
            values = typing.get_args(hint)
            orders[frozenset(values)] = tuple(map(str, values))
        else:
            waiting += typing.get_args(hint)
    return orders


def _restore_order(shape: mi.Type, orders: dict[frozenset[object], tuple[str, ...]]) -> None:
    """Texts list supported values as the protocol does; msgspec sorts them."""
    match shape:
        case mi.LiteralType():
            shape.values = orders[frozenset(shape.values)]
        case mi.StructType():
            for field in shape.fields:
                _restore_order(field.type, orders)
        case mi.UnionType():
            for option in shape.types:
                _restore_order(option, orders)
        case mi.ListType() | mi.VarTupleType() | mi.CollectionType():
            _restore_order(shape.item_type, orders)
        case mi.DictType():
            _restore_order(shape.key_type, orders)
            _restore_order(shape.value_type, orders)
        case _:
            return


def first_fault(value: object, cls: type, path: str = "") -> ClientFault | None:
    """The fault that the service would name for ``value`` as a ``cls``, or None if there is none."""
    first: Found | None = None
    for count, found in enumerate(_walk(value, shape_of(cls), path), 1):
        if first is None or found[0] < first[0]:
            first = found
        if first[0] is Phase.UNKNOWN or count == MOST_FAULTS:
            break
    return first[1] if first else None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _walk(value: Any, shape: mi.Type, path: str) -> Iterator[Found]:
    match shape:
        case mi.StructType():
            yield from _object(value, shape, path)
        case mi.UnionType():
            yield from _union(value, shape, path)
        case mi.LiteralType():
            yield from _literal(value, shape, path)
        case mi.ListType() | mi.VarTupleType() | mi.CollectionType():
            if not isinstance(value, list):
                yield Phase.TYPE, errors.invalid_type(path, "an array", describe(value))
                return
            for i, element in enumerate(value):
                yield from _walk(element, shape.item_type, f"{path}[{i}]")
        case mi.DictType():
            yield from _mapping(value, shape, path)
        case mi.StrType() | mi.IntType() | mi.FloatType() | mi.BoolType() | mi.NoneType():
            yield from _scalar(value, shape, path)
        case mi.AnyType() | mi.RawType():
            return
        case _:
            raise AssertionError(f"shapes of events have no {shape!r}")


def _object(value: Any, shape: mi.StructType, path: str) -> Iterator[Found]:
    if not isinstance(value, dict):
        yield Phase.TYPE, errors.invalid_type(path, "an object", describe(value))
        return
    fields = {field.encode_name: field for field in shape.fields}
    for key in value:
        if key not in fields and key != shape.tag_field:
            yield Phase.UNKNOWN, errors.unknown_parameter(_join(path, key))
    for name, field in fields.items():
        if field.required and name not in value:
            yield Phase.MISSING, errors.missing_parameter(_join(path, name))
    for key, inner in value.items():
        if key in fields:
            yield from _walk(inner, fields[key].type, _join(path, key))
    more: Callable[[dict[str, Any], str], Iterator[Found]] | None = getattr(shape.cls, "faults", None)
    if more is not None:
        yield from more(value, path)


def _union(value: Any, shape: mi.UnionType, path: str) -> Iterator[Found]:
    if value is None and any(isinstance(option, mi.NoneType) for option in shape.types):
        return
    options = [option for option in shape.types if not isinstance(option, mi.NoneType)]
    structs = [option for option in options if isinstance(option, mi.StructType)]
    if isinstance(value, dict) and structs:
        if len(structs) == 1:
            yield from _object(value, structs[0], path)
        else:
            yield from _tagged(value, structs, path)
        return
    fitting = [option for option in options if _fits(value, option)]
    if fitting:
        yield from _walk(value, fitting[0], path)
    elif len(options) == 1:
        yield from _walk(value, options[0], path)
    elif isinstance(value, str) and (literal := _literals(options)):
        yield Phase.TYPE, errors.unsupported_value(path, value, literal)
    else:
        expected = " or ".join(dict.fromkeys(_expected(option) for option in options))
        yield Phase.TYPE, errors.invalid_type(path, expected, describe(value))


def _tagged(value: dict[str, Any], structs: list[mi.StructType], path: str) -> Iterator[Found]:
    """An object of one of several shapes, told apart by a tag. Texts do not offer the ``tolerated`` ones.

    Without a tag, keys that none of them has are unknown, unless it is ``tag_first``; under an unknown tag keys may
    mean anything.
    """
    tag_field = structs[0].tag_field or "type"
    tag_path = _join(path, tag_field)
    tag = value.get(tag_field)
    if not isinstance(tag, str):
        looks_on = not any(getattr(struct.cls, "tag_first", False) for struct in structs)
        known = {field.encode_name for struct in structs for field in struct.fields} | {tag_field}
        for key in value:
            if looks_on and key not in known:
                yield Phase.UNKNOWN, errors.unknown_parameter(_join(path, key))
        if tag_field not in value:
            yield Phase.MISSING, errors.missing_parameter(tag_path)
        else:
            yield Phase.TYPE, errors.invalid_type(tag_path, "a string", describe(tag))
    else:
        chosen = next((struct for struct in structs if struct.tag == tag), None)
        if chosen is None:
            offered = [str(s.tag) for s in structs if not getattr(s.cls, "tolerated", False)]
            yield Phase.TYPE, errors.unsupported_value(tag_path, tag, offered)
        else:
            yield from _object(value, chosen, path)


def _literals(options: list[mi.Type]) -> list[str]:
    return [str(v) for option in options if isinstance(option, mi.LiteralType) for v in option.values]


def _literal(value: Any, shape: mi.LiteralType, path: str) -> Iterator[Found]:
    if isinstance(value, str):
        if value not in shape.values:
            yield Phase.TYPE, errors.unsupported_value(path, value, [str(v) for v in shape.values])
    else:
        yield Phase.TYPE, errors.invalid_type(path, "a string", describe(value))


def _mapping(value: Any, shape: mi.DictType, path: str) -> Iterator[Found]:
    if not isinstance(value, dict):
        yield Phase.TYPE, errors.invalid_type(path, "an object", describe(value))
        return
    if shape.max_length is not None and len(value) > shape.max_length:
        yield Phase.RANGE, errors.too_many_properties(path, shape.max_length, len(value))
    for key, inner in value.items():
        place = _join(path, errors.shown(key))
        yield from _walk(key, shape.key_type, place)
        yield from _walk(inner, shape.value_type, place)


def _fits(value: Any, shape: mi.Type) -> bool:
    match shape:
        case mi.StrType():
            return isinstance(value, str)
        case mi.LiteralType():
            return isinstance(value, str) and value in shape.values
        case mi.BoolType():
            return isinstance(value, bool)
        case mi.IntType():
            return isinstance(value, int) and not isinstance(value, bool)
        case mi.FloatType():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case mi.ListType() | mi.VarTupleType() | mi.CollectionType():
            return isinstance(value, list)
        case mi.DictType() | mi.StructType():
            return isinstance(value, dict)
        case _:
            return True


def _expected(shape: mi.Type) -> str:
    match shape:
        case mi.StrType():
            return "a string"
        case mi.LiteralType():
            values = errors.listing(map(str, shape.values), "or")
            return values if len(shape.values) == 1 else f"one of {values}"
        case mi.BoolType():
            return "a boolean"
        case mi.IntType():
            return "an integer"
        case mi.FloatType():
            return "a decimal"
        case mi.ListType() | mi.VarTupleType() | mi.CollectionType():
            return "an array"
        case mi.NoneType():
            return "null"
        case _:
            return "an object"


def _scalar(
    value: Any, shape: mi.StrType | mi.IntType | mi.FloatType | mi.BoolType | mi.NoneType, path: str
) -> Iterator[Found]:
    if isinstance(shape, mi.NoneType):
        if value is not None:
            yield Phase.TYPE, errors.invalid_type(path, "null", describe(value))
    elif not _fits(value, shape):
        yield Phase.TYPE, errors.invalid_type(path, _expected(shape), describe(value))
    elif isinstance(shape, mi.StrType):
        if shape.max_length is not None and len(value) > shape.max_length:
            yield Phase.RANGE, errors.string_too_long(path, shape.max_length, len(value))
        if shape.min_length is not None and len(value) < shape.min_length:
            yield Phase.RANGE, errors.string_too_short(path, shape.min_length, len(value))
        if shape.pattern is not None and not _matches(shape.pattern, value):
            yield Phase.RANGE, errors.string_off_pattern(path, shape.pattern)
    elif isinstance(shape, mi.IntType | mi.FloatType):
        kind = "integer" if isinstance(shape, mi.IntType) else "decimal"
        if shape.ge is not None and value < shape.ge:
            yield Phase.RANGE, errors.number_below(path, kind, shape.ge, value)
        if shape.le is not None and value > shape.le:
            yield Phase.RANGE, errors.number_above(path, kind, shape.le, value)


def _matches(pattern: str, value: str) -> bool:
    return re.search(pattern, value) is not None
