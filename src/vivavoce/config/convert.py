"""From what TOML gives to structs, with errors that name the place in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, get_args, get_type_hints

import msgspec

from vivavoce.config.values import ConfigError, Secret

_FROM_ENVIRONMENT: Final = "_env"
"""Ends an engine's option whose value is in the environment variable that it names."""

_KEY: Final = re.compile(r"[\x21-\x7e]+")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")

_T = TypeVar("_T", bound=msgspec.Struct)
_MESSAGE: Final = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?", re.DOTALL)
_FIELD: Final = re.compile(r"Object (?P<fault>contains unknown|missing required) field `(?P<name>.*)`", re.DOTALL)


def convert(value: object, into: type[_T], path: str, spell: Callable[[str], str] | None = None) -> _T:
    """``msgspec.convert`` whose faults are :class:`ConfigError`. ``spell``: field -> path, else ``path.field``."""
    try:
        return msgspec.convert(value, into, dec_hook=_secret)
    except msgspec.ValidationError as error:
        fault = _located(str(error), value, into, path)
    if spell is not None:
        fault = ConfigError(spell(fault.path.lstrip(".")), fault.problem)
    raise fault


def _secret(into: type, value: object) -> object:
    if into is Secret and isinstance(value, str):
        return Secret(value)
    raise ValueError(f"Expected `str`, got `{type(value).__name__}`")


def _located(message: str, value: object, into: type[msgspec.Struct], path: str) -> ConfigError:
    found = _MESSAGE.fullmatch(message)
    assert found is not None
    problem, inner = found["problem"], found["path"] or ""
    field = _FIELD.fullmatch(problem)
    if field is not None:
        where = f"{path}{inner}.{field['name']}"
        if field["fault"] == "missing required":
            return ConfigError(where, "is required")
        return ConfigError(where, f"unknown option{suggestion(field['name'], into.__struct_fields__)}")
    if problem.startswith("Invalid enum value"):
        name = inner.removeprefix(".")
        found_value = value.get(name) if isinstance(value, dict) else None
        choices = ", ".join(get_args(get_type_hints(into)[name]))
        return ConfigError(f"{path}{inner}", f"{found_value!r} is not one of {choices}")
    text = problem.replace("`", "").replace("object", "table")
    return ConfigError(f"{path}{inner}", text[:1].lower() + text[1:])


def check_names(table: Mapping[str, Any], known: tuple[str, ...], prefix: str, what: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigError(f"{prefix}{name}", f"unknown {what}{suggestion(name, known)}")


def suggestion(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else among(known)


def among(known: Iterable[str]) -> str:
    """Ends a sentence about a name that is not one of ``known``."""
    return f" (there are: {', '.join(known)})"


def table_of(parent: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = parent.get(name, {})
    if not isinstance(value, dict):
        raise ConfigError(name, f"expected a table, [{name}]")
    return value


def tables_of(parent: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = parent.get(name, [])
    if not isinstance(value, list):
        raise ConfigError(name, f"expected an array of tables, [[{name}]]")
    return value


def check_name(name: str, path: str) -> None:
    """Of an account or a deployment."""
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            path, f"{name!r} is no name: a letter or digit, then up to 63 letters, digits, '.', '_', '-'"
        )


def check_key_texts(keys: tuple[Secret, ...], path: str) -> None:
    for index, key in enumerate(keys):
        check_key_text(key, f"{path}[{index}]")


def check_key_text(key: Secret, path: str) -> None:
    """A key travels in headers and URLs."""
    if _KEY.fullmatch(key.reveal()) is None:
        raise ConfigError(path, "a key is one or more printable ASCII characters, without spaces")


def with_environment(options: Mapping[str, Any], environ: Mapping[str, str], path: str) -> dict[str, Any]:
    """``api_key_env = "NAME"`` stands for ``api_key`` with the value of that variable, and so for every option."""
    resolved: dict[str, Any] = {}
    for key, value in options.items():
        option = key.removesuffix(_FROM_ENVIRONMENT)
        if option in ("", key):
            resolved[key] = value
            continue
        if option in options:
            raise ConfigError(f"{path}.{key}", f"{option} is given too: name one of them")
        if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
            # Not what it is: it may well be the key itself.
            raise ConfigError(f"{path}.{key}", "expected the name of an environment variable, such as MY_KEY")
        if not environ.get(value):
            raise ConfigError(f"{path}.{key}", f"the environment variable {value} is not set")
        resolved[option] = environ[value]
    return resolved
