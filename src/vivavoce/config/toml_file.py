"""A file of TOML, whose faults are told with its name and the line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from vivavoce.config.values import ConfigError


def read_toml(path: Path) -> dict[str, Any]:
    """Raises :class:`ConfigError`."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}", "not valid TOML: the file is not UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, str(error)) from None


def _syntax_error(path: Path, text: str, message: str) -> ConfigError:
    """tomllib tells the place inside its message, as ``(at line 3, column 5)`` or ``(at end of document)``."""
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if found is None:
        return ConfigError(str(path), f"not valid TOML: {message}")
    problem = f"not valid TOML: {message[: found.start()]}"
    if found[1] is None:
        return ConfigError(f"{path}:{len(text.splitlines()) or 1}", f"{problem} (at the end)")
    return ConfigError(f"{path}:{found[1]}", f"{problem} (column {found[2]})")
