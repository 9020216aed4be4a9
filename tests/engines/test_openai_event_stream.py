"""Events and WAV files that come in pieces: where they are cut changes nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.engines.openai_compatible import event_stream
from vivavoce.engines.openai_compatible.event_stream import EventReader, EventTooLong
from vivavoce.engines.openai_compatible.messages import wav
from vivavoce.engines.openai_compatible.wav_stream import NotWav, WavReader

STREAMS = [
    (b"", []),
    (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    (b"data:a\n\n", [b"a"]),
    (b"data:  a\n\n", [b" a"]),
    (b"data: a\ndata: b\n\n", [b"a\nb"]),
    (b": keep-alive\n\ndata: a\n\n: keep-alive\n\n", [b"a"]),
    (b"event: delta\nid: 7\nretry: 3\ndata: a\n\n", [b"a"]),
    (b"\n\n\ndata: a\n\n", [b"a"]),
    (b"data: a\n\ndata: [DONE]", [b"a", b"[DONE]"]),
    (b"data: a\n\ndata: b\n", [b"a", b"b"]),
    (b"data: a\n\ndata: b\r", [b"a", b"b"]),
    ("data: zwölf\n\n".encode(), ["zwölf".encode()]),
]


@pytest.mark.parametrize(("stream", "events"), STREAMS)
def test_events_wherever_the_stream_is_cut(stream: bytes, events: list[bytes]) -> None:
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            reader = EventReader()
            read = [*reader.feed(stream[:first]), *reader.feed(stream[first:second]), *reader.feed(stream[second:])]
            assert [*read, *reader.end()] == events


def test_events_byte_by_byte_come_as_soon_as_they_are_there() -> None:
    reader = EventReader()
    read = [reader.feed(bytes([byte])) for byte in b"data: a\n\ndata: b\r\n\r\n"]
    assert [at for at, events in enumerate(read) if events] == [8, 19]


def test_an_event_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "LONGEST_EVENT", 20)
    reader = EventReader()
    assert reader.feed(b"data: 123456789\n") == []
    with pytest.raises(EventTooLong):
        reader.feed(b"data: 1")


# ---------------------------------------------------------------------------------------------------- WAV

SOUND = bytes(range(200))


@given(cuts=st.lists(st.integers(0, 260), max_size=4))
def test_a_wav_file_wherever_it_is_cut(cuts: list[int]) -> None:
    file = wav(SOUND, 16000)
    reader = WavReader()
    edges = [0, *sorted(cuts), len(file)]
    pieces = [file[begin:end] for begin, end in itertools.pairwise(edges)]
    assert b"".join(reader.feed(piece) for piece in pieces) == SOUND
    reader.end()
    assert reader.rate == 16000


@pytest.mark.parametrize("length", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_lengths_of_a_streamed_file_are_not_believed(length: int) -> None:
    file = wav(SOUND, 8000)
    at = file.index(b"data") + 4
    assert WavReader().feed(file[:at] + length.to_bytes(4, "little") + SOUND) == SOUND


def test_what_stands_around_the_sound_is_no_sound() -> None:
    file = wav(SOUND, 8000)
    at = file.index(b"data")
    chunk = b"LIST" + (3).to_bytes(4, "little") + b"abc\0"
    assert WavReader().feed(file[:at] + chunk + file[at:] + chunk) == SOUND


@pytest.mark.parametrize(
    "file",
    [
        b"ID3\x04" + bytes(60),
        b"RIFF\0\0\0\0AVI " + bytes(60),
        wav(SOUND, 4000),
        wav(SOUND, 8000).replace(b"\x01\0\x01\0", b"\x01\0\x02\0"),
        wav(SOUND, 8000).replace(b"\x01\0\x01\0", b"\x03\0\x01\0"),
        wav(SOUND, 8000).replace(b"fmt ", b"xxxx"),
        b"RIFF\0\0\0\0WAVE" + b"JUNK\xff\xff\xff\x0f" + bytes(70_000),
    ],
)
def test_what_is_no_mono_wav_file(file: bytes) -> None:
    with pytest.raises(NotWav):
        WavReader().feed(file)


def test_a_file_that_ends_in_its_header() -> None:
    reader = WavReader()
    assert reader.feed(wav(SOUND, 8000)[:30]) == b""
    with pytest.raises(NotWav):
        reader.end()
