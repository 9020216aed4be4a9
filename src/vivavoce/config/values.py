"""What every part of the configuration uses: its error, its types, and texts that must not be shown."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from typing import Annotated, NoReturn, TypeAlias

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
    """A text that must not be shown. Only :meth:`reveal` gives it away: ``repr``, ``str`` and formats do not, and
    it cannot be serialised."""

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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self


class HiddenValues(Mapping[str, object]):
    """A mapping whose values may be secret: ``repr`` shows the keys alone, and it cannot be serialised."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = dict(values)

    def __getitem__(self, key: str) -> object:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{{{', '.join(self._values)}}}"

    def __reduce__(self) -> NoReturn:
        raise TypeError("what may be secret is not written down")

    def __copy__(self) -> HiddenValues:
        return self

    def __deepcopy__(self, memo: object) -> HiddenValues:
        return self
