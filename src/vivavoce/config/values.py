"""What every part of the configuration uses: its error, its types, and texts that must not be shown."""

from __future__ import annotations

import hmac
from typing import Annotated, TypeAlias

import msgspec

Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class ConfigError(Exception):
    """The configuration is wrong: ``path`` names the place (``deployment[2].synthesizer``), ``problem`` the fault.

    ``path`` is a path within the file, ``FILE:LINE`` for broken TOML, or the name of an option or variable.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class Secret:
    """A text that must not be shown. Only :meth:`reveal` gives it away; ``repr`` and ``str`` do not."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)
