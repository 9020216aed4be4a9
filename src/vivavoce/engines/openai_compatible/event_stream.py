"""Server-sent events (text/event-stream), of which this API uses the data alone."""

from __future__ import annotations

import re
from typing import Final

LONGEST_EVENT: Final = 64 * 1024 * 1024
"""Bytes; a second of base64 sound has 64 kB."""

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


class EventTooLong(Exception):
    """An event, or a line, that does not end."""


class EventReader:
    """A byte stream, cut anywhere -> the data of each event."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """The events that are complete now. Raises EventTooLong."""
        self._rest += piece
        events: list[bytes] = []
        begin = 0
        for end in _LINE_END.finditer(self._rest):
            if end[0] == b"\r" and end.end() == len(self._rest):
                # It may be the first half of a line end.
                break
            self._line(self._rest[begin : end.start()], events)
            begin = end.end()
        self._rest = self._rest[begin:]
        if self._size + len(self._rest) > LONGEST_EVENT:
            raise EventTooLong
        return events

    def end(self) -> list[bytes]:
        """The stream is over. An event that no empty line has ended counts: not all servers send the last one."""
        events: list[bytes] = []
        self._line(self._rest.removesuffix(b"\r"), events)
        self._line(b"", events)
        self._rest = b""
        return events

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if not line:
            if self._data:
                events.append(b"\n".join(self._data))
            self._data = []
            self._size = 0
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._size += len(line)
