"""The errors of the catalogue with what provokes them (``errors.toml``), for their tests and for their page."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

CASES: Final = Path(__file__).with_name("errors.toml")

Kind: TypeAlias = Literal["event", "failure", "http", "close", "rest"]
KINDS: Final[tuple[Kind, ...]] = ("event", "failure", "http", "close", "rest")
_LEVELS: Final = 101


@dataclass(frozen=True, slots=True)
class ErrorCase:
    """One way to provoke an error. ``function`` is the one of the catalogue that makes it."""

    kind: Kind
    function: str
    when: str
    message: str
    """``${names}`` in it are ids."""
    code: str | None = None
    type: str = "invalid_request_error"
    param: str | None = None
    settings: str = ""
    setup: str = ""
    repeat: int = 1
    """How often the setup is played."""
    send: str = ""
    """One line of a golden script."""
    before: str = ""
    """Lines of events that come before the error."""
    where: str = "error"
    """The event that holds the error."""
    closed: int | None = None
    """The close code that follows the event."""
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    upgrade: bool = True
    busy: bool = False
    """The server holds as many sessions as it may."""
    rushed: bool = False
    """Its deployment has taken the only connection of this minute."""
    guesses: int = 0
    """How often the client has offered a wrong key before."""
    method: str = "POST"
    """Of a request for a client secret."""
    body: str = ""
    state: Literal["", "full", "away", "slow", "changed"] = ""
    """Of what client secrets need: as many as may be, out of reach; a body that does not end; another server."""
    status: int = 0
    """HTTP status, or close code."""

    def script(self) -> str:
        """The case as a golden script."""
        error = {"type": self.type, "code": self.code, "message": self.message, "param": self.param}
        if self.where == "error":
            expected: dict[str, Any] = {"error": {**error, "event_id": None}}
        elif self.where == "response.done":
            del error["param"]
            expected = {"response": {"status": "failed", "status_details": {"type": "failed", "error": error}}}
        else:
            expected = {"error": error}
        lines = [f"# {self.when}", self.settings, *[self.setup] * self.repeat, self.sent, self.before]
        lines.append(f"< {self.where} {json.dumps(expected)}")
        if self.closed is not None:
            lines.append(f"< closed {self.closed} {json.dumps(self.message)}")
        return "\n".join(lines)

    @property
    def sent(self) -> str:
        """The line that provokes the error."""
        return self.send.replace("NESTED", '{"a": ' * _LEVELS + "{}" + "}" * _LEVELS)


@cache
def error_cases() -> list[ErrorCase]:
    """All of them, in the order of the page. Raises TypeError for a case with a key that cases do not have."""
    raw = tomllib.loads(CASES.read_text(encoding="utf-8"))
    return [ErrorCase(kind=kind, **case) for kind in KINDS for case in raw[kind]]
