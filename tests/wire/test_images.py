"""The size of a picture in a data URL, and what is none."""

from __future__ import annotations

import base64
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.wire.images import NoPicture, size_of

SIGNATURE = b"\x89PNG\r\n\x1a\n"
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def png(width: int, height: int) -> bytes:
    return SIGNATURE + b"\0\0\0\x0dIHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0"


def frame(marker: int, width: int, height: int) -> bytes:
    return bytes((0xFF, marker)) + b"\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03" + bytes(9)


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(640, 480), "image/png"),
        (png(640, 480), "image/jpeg"),
        (b"\xff\xd8" + frame(0xC0, 640, 480), "image/jpeg"),
        (b"\xff\xd8" + JFIF + frame(0xC0, 640, 480), "image/jpeg"),
        (b"\xff\xd8" + JFIF + b"\xff\xfe\x00\x05abc" + frame(0xC2, 640, 480), "image/jpg"),
        (b"\xff\xd8\xff\x01\xff\xd0\xff\xff" + frame(0xCF, 640, 480), "image/jpeg"),
        (b"\xff\xd8" + frame(0xC4, 1, 2) + frame(0xC8, 1, 2) + frame(0xC1, 640, 480), "image/jpeg"),
    ],
)
def test_the_size_stands_in_the_head(data: bytes, kind: str) -> None:
    assert size_of(url(data, kind)) == (640, 480)


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("", "a value without the 'data:' prefix"),
        ("https://example.com/cat.png", "a value without the 'data:' prefix"),
        (base64.b64encode(png(1, 1)).decode(), "a value without the 'data:' prefix"),
        ("data:image/png;base64", "a value without base64-encoded bytes"),
        ("data:image/png,abc", "a value without base64-encoded bytes"),
        ("data:image/png;charset=utf-8;base64,abc", "a value without base64-encoded bytes"),
        (url(png(1, 1), "image/gif"), "an unsupported MIME type"),
        (url(png(1, 1), ""), "an unsupported MIME type"),
        ("data:image/png;base64,", "empty base64-encoded bytes"),
        ("data:image/png;base64,a", "an invalid base64-encoded value"),
        ("data:image/png;base64,ab c", "an invalid base64-encoded value"),
        ("data:image/png;base64,aé==", "an invalid base64-encoded value"),
        (url(b"image bytes"), "bytes of no PNG or JPEG image"),
        (url(SIGNATURE), "bytes of no PNG or JPEG image"),
        (url(SIGNATURE + b"\0\0\0\x0dIDAT" + bytes(9)), "bytes of no PNG or JPEG image"),
        (url(png(0, 1)), "bytes of no PNG or JPEG image"),
        (url(png(1, 0)), "bytes of no PNG or JPEG image"),
        (url(b"\xff\xd8"), "bytes of no PNG or JPEG image"),
        (url(b"\xff\xd8\xff\xd9"), "bytes of no PNG or JPEG image"),
        (url(b"\xff\xd8" + JFIF + b"no marker"), "bytes of no PNG or JPEG image"),
        (url(b"\xff\xd8" + frame(0xC0, 640, 480)[:8]), "bytes of no PNG or JPEG image"),
    ],
)
def test_what_is_no_picture(text: str, instead: str) -> None:
    with pytest.raises(NoPicture) as told:
        size_of(text)
    assert str(told.value) == instead


@given(st.binary(max_size=200), st.sampled_from([b"", SIGNATURE, b"\xff\xd8", b"\xff\xd8\xff\xc0"]))
def test_whatever_the_bytes_are_there_is_a_size_or_none(data: bytes, begin: bytes) -> None:
    with suppress(NoPicture):
        assert min(size_of(url(begin + data))) > 0
