"""What a session did, as a golden script: to be read, to be played again, and to be kept as a test.

Every line stands with all the frames that came of it, whole. What the server chose is written as ``$names``.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from hostile_matching import Frame

_ID: Final = re.compile(r"(?:sess|conv|item|resp|call)_[0-9A-Za-z]{16,21}")
_SKIPPED: Final = ("type", "event_id")


class Record:
    """One session."""

    def __init__(self, title: str, settings: dict[str, str]) -> None:
        self.whole = True
        """A script can say all that was done."""
        self._head = [f"# {title}", *(f"{name} {value}" for name, value in settings.items())]
        self._lines: list[str] = []
        self._names: dict[str, str] = {}

    def did(self, line: str) -> None:
        """A line of the script (``>``, ``~`` or ``@``)."""
        self._lines.append(line)

    def event_line(self, event: dict[str, Any]) -> str:
        """The line of a client event, with the names that are known by now."""
        return f"> {json.dumps(self._named(event))}"

    def came(self, frame: Frame) -> None:
        kind, body = frame["type"], {key: value for key, value in frame.items() if key not in _SKIPPED}
        if kind == "rate_limits.updated":
            # All sessions of a deployment share them.
            body = {"rate_limits": "*"}
        elif kind == "response.audio.delta":
            body["delta"] = f"*{len(body['delta']) // 4 * 3 - body['delta'].count('=')} bytes"
        elif kind in ("session.created", "session.updated"):
            body["session"] = {**body["session"], "expires_at": "*"}
        elif kind == "conversation.item.retrieved" and "content" in body["item"]:
            content = [part | {"audio": "*"} if "audio" in part else part for part in body["item"]["content"]]
            body["item"] = {**body["item"], "content": content}
        self._lines.append(f"<= {kind} {json.dumps(self._named(body, learn=True))}")

    def _named(self, value: Any, *, learn: bool = False) -> Any:
        if isinstance(value, dict):
            return {key: self._named(inner, learn=learn) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._named(inner, learn=learn) for inner in value]
        if not isinstance(value, str):
            return value
        if _ID.fullmatch(value) and (learn or value in self._names):
            return f"${self._name(value)}"
        return _ID.sub(lambda m: f"${{{self._names[m[0]]}}}" if m[0] in self._names else m[0], value)

    def _name(self, value: str) -> str:
        kind = value.partition("_")[0]
        return self._names.setdefault(value, f"{kind}{sum(n.startswith(kind) for n in self._names.values()) + 1}")

    def text(self) -> str:
        return "\n".join([*self._head, *self._lines]) + "\n"
