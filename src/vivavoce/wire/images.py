"""Pictures as clients send them: PNG and JPEG in ``data:`` URLs (GA, ``input_image``).

Of a picture no more is read than its size: whoever looks at it decodes it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import pybase64

_URL: Final = re.compile(r"data:(?P<type>[^;,]*)(?P<options>[^,]*),")
_PNG: Final = b"\x89PNG\r\n\x1a\n"
_PNG_HEAD: Final = 24
"""Bytes up to the end of the size."""
_TYPES: Final = ("image/png", "image/jpeg", "image/jpg")
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of JPEG segments that begin a picture and tell its size."""
_BARE: Final = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers without a length."""


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int


class NoPicture(Exception):
    """The text says what was there instead, as error texts of the service do."""


def size_of(url: str) -> Size:
    """Of the picture in a ``data:`` URL. Raises :class:`NoPicture`."""
    found = _URL.match(url)
    if not url.startswith("data:"):
        raise NoPicture("a value without the 'data:' prefix")
    if found is None or found["options"] != ";base64":
        raise NoPicture("a value without base64-encoded bytes")
    if found["type"] not in _TYPES:
        raise NoPicture("an unsupported MIME type")
    try:
        data = pybase64.b64decode(url[found.end() :], validate=True)
    except ValueError:
        raise NoPicture("an invalid base64-encoded value") from None
    if not data:
        raise NoPicture("empty base64-encoded bytes")
    size = _png(data) or _jpeg(data)
    if size is None or not min(size):
        raise NoPicture("bytes of no PNG or JPEG image")
    return size


def _png(data: bytes) -> Size | None:
    if not data.startswith(_PNG) or len(data) < _PNG_HEAD or data[12:16] != b"IHDR":
        return None
    return Size(int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))


def _jpeg(data: bytes) -> Size | None:
    if not data.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            frame = data[at + 5 : at + 9]
            return Size(int.from_bytes(frame[2:]), int.from_bytes(frame[:2])) if len(frame) == 4 else None
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return None
