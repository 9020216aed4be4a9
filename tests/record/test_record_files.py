"""What is in a recording, and what never is."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vivavoce.record.recording import (
    Answer,
    End,
    Frame,
    Header,
    Recording,
    RecordingError,
    Scrubber,
    Size,
    frame_of,
    hidden,
    load,
    omitted,
    parse,
    save,
)

KEY = "k3y-of-the-client"
HEADER = Header(1, "2026-01-01T00:00:00.000+00:00", "ws://h/v1/realtime", (), (), True, Answer(101))
PLAIN = Scrubber()
SILENT = Scrubber(keep_audio=False)


def lines(*frames: Frame) -> str:
    """A file of these, without an end."""
    folder: list[str] = [json.dumps({"vivavoce_recording": 1, **_fields(HEADER)})]
    folder += [json.dumps({"t_ms": frame.t_ms, "from": frame.sender, "event": frame.event}) for frame in frames]
    return "\n".join(folder) + "\n"


def _fields(header: Header) -> dict[str, Any]:
    return {
        "started": header.started,
        "url": header.url,
        "headers": [],
        "subprotocols": [],
        "audio": True,
        "answer": {"status": 101},
    }


# ------------------------------------------------------------------------------------------------------ frames

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_an_object_is_kept_as_it_says(event: dict[str, Any]) -> None:
    frame = frame_of(5, "client", json.dumps(event), PLAIN)
    assert frame.text is None
    if not hidden(frame.event):
        assert repr(frame.event) == repr(event)


@pytest.mark.parametrize(
    "text",
    ["", "nothing", "[1]", '"x"', "{", '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": 1e999}', "[" * 100_000],
    ids=lambda text: text[:12],
)
def test_what_is_no_object_is_kept_as_it_came(text: str) -> None:
    frame = frame_of(0, "server", text, PLAIN)
    assert (frame.event, frame.text, frame.kind) == (None, text, "(text)")


def test_bytes_are_base64() -> None:
    assert frame_of(0, "client", b"\x00\xff", PLAIN).binary == "AP8="
    assert frame_of(0, "client", b"\x00\xff", SILENT).binary == Size(2)


FRAMES = st.builds(
    lambda t_ms, sender, data: frame_of(t_ms, sender, data, PLAIN),
    st.integers(0, 10**7),
    st.sampled_from(["client", "server"]),
    st.text() | st.binary() | st.dictionaries(st.text(), JSON, max_size=3).map(json.dumps),
)


@given(frames=st.lists(FRAMES, max_size=5), end=st.none() | st.just(End(4000, "r\n\u2028é", "server")))
def test_a_recording_reads_as_it_was_written(
    frames: list[Frame], end: End | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    recording = Recording(HEADER, tuple(frames), end, None if end is None else 7)
    path = save(recording, tmp_path_factory.mktemp("r") / "s.jsonl")
    assert load(path) == recording


def test_a_lone_surrogate_survives(tmp_path: Path) -> None:
    frame = frame_of(0, "client", '{"type": "\\ud800"}', PLAIN)
    assert load(save(Recording(HEADER, (frame,)), tmp_path / "s.jsonl")).frames == (frame,)


def test_files_are_for_their_owner_and_replace_none(tmp_path: Path) -> None:
    paths = [save(Recording(HEADER, ()), tmp_path / "s.jsonl") for _ in range(3)]
    assert [path.name for path in paths] == ["s.jsonl", "s-2.jsonl", "s-3.jsonl"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("{}\n", ":1: not a recording"),
        ("[]\n", ":1: not a recording"),
        ("nothing\n", ":1: "),
        ('{"vivavoce_recording": 2}\n', ":1: a recording of version 2"),
        ('{"vivavoce_recording": 1}\n', ":1: "),
        (lines() + "{}\n", ":2: "),
        (lines() + '{"t_ms": 1, "from": "nobody", "event": {}}\n', ":2: "),
        (lines() + '{"t_ms": 1, "from": "client"}\n', ":2: a frame has one"),
        (lines() + '{"t_ms": 1, "from": "client", "event": {}, "text": ""}\n', ":2: a frame has one"),
        (lines() + '{"t_ms": 1, "from": "client", "binary": "?"}\n', ":2: binary is not base64"),
        (lines() + '{"t_ms": 1, "from": "client", "event": {}, "more": 1}\n', ":2: "),
        (lines() + '{"t_ms": 1, "close": {"code": 1, "reason": "", "by": "client"}}\n{}\n', ":3: a line after"),
        (lines() + '{"t_ms": 1, "fr\n', ":2: "),
    ],
)
def test_what_is_no_recording_says_where(text: str, problem: str) -> None:
    with pytest.raises(RecordingError) as caught:
        parse(text, "f.jsonl")
    assert f"f.jsonl{problem}" in str(caught.value) or problem in str(caught.value)


def test_a_line_that_was_cut_off_is_left_out() -> None:
    whole = lines(Frame(1, "client", {"type": "a"}))
    assert len(parse(whole + '{"t_ms": 2, "from": "cli', "f").frames) == 1


# ----------------------------------------------------------------------------------------------------- secrets

SECRETS = [
    {"type": "session.update", "session": {"tools": [{"type": "mcp", "authorization": "S"}]}},
    {"type": "session.update", "session": {"tools": [{"type": "mcp", "headers": {"X-Mine": "S", "y": ["S"]}}]}},
    {"type": "session.created", "session": {"client_secret": {"value": "S", "expires_at": 5}}},
    {"type": "session.created", "session": {"client_secret": "S"}},
    {"type": "x", "api_key": "S", "nested": [{"API-Key": "S"}, {"access_token": "S"}]},
]


@pytest.mark.parametrize("event", SECRETS, ids=range(len(SECRETS)))
def test_fields_that_carry_secrets_are_hidden(event: dict[str, Any]) -> None:
    kept = frame_of(0, "server", json.dumps(event).replace('"S"', '"of mine"'), PLAIN).event
    assert kept == json.loads(json.dumps(event).replace('"S"', '"***"'))
    assert hidden(kept)


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        f"my key is {KEY}.",
        f"'{KEY}'",
        "ek_68af296e8e408191a1120ab6383263c2",
        "use sk-proj-Abcdefgh_12345678 now",
        "Authorization: Bearer abcdefgh.ijklmnop_qrst12",
        "token eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln",
    ],
)
@pytest.mark.parametrize("form", ["value", "key", "text", "nested"])
def test_keys_are_hidden_wherever_they_are(text: str, form: str) -> None:
    data = {
        "value": json.dumps({"type": "x", "a": text}),
        "key": json.dumps({"type": "x", text: 1}),
        "nested": json.dumps({"type": "x", "a": [{"b": text}]}),
        "text": f"nothing {text}",
    }[form]
    frame = frame_of(0, "client", data, Scrubber([KEY]))
    written = json.dumps([frame.event, frame.text])
    assert "***" in written
    secret = max(text.strip("'.").removeprefix("Authorization:").split(), key=len)
    assert secret not in written


def test_other_things_are_kept() -> None:
    event = {
        "type": "x",
        "text": "The risk-free task, ask_me, mySecretk3y-of-the-clients and the bearer of it",
        "parameters": {"properties": {"authorization": {"type": "string"}, "headers": {"type": "object"}}},
        "logprobs": [{"token": "S"}],
    }
    frame = frame_of(0, "client", json.dumps(event), Scrubber([KEY, "a"]))
    assert frame.event == event


# ------------------------------------------------------------------------------------------------------- audio


@pytest.mark.parametrize(
    ("event", "kept"),
    [
        ({"type": "input_audio_buffer.append", "audio": "AAAAAA=="}, {"audio": {"bytes": 4}}),
        ({"type": "response.audio.delta", "delta": "AAAA"}, {"delta": {"bytes": 3}}),
        ({"type": "response.output_audio.delta", "delta": ""}, {"delta": {"bytes": 0}}),
        ({"type": "response.text.delta", "delta": "AAAA"}, {"delta": "AAAA"}),
        ({"type": "x", "content": [{"audio": "AAAAAAA="}]}, {"content": [{"audio": {"bytes": 5}}]}),
        ({"type": "x", "session": {"audio": {"input": {}}}}, {"session": {"audio": {"input": {}}}}),
    ],
)  # fmt: skip
def test_audio_is_left_out_on_demand(event: dict[str, Any], kept: dict[str, Any]) -> None:
    assert frame_of(0, "client", json.dumps(event), PLAIN).event == event
    frame = frame_of(0, "client", json.dumps(event), SILENT)
    assert frame.event == {"type": event["type"], **kept}
    assert omitted(frame.event) == ("audio" in str(kept) and "bytes" in str(kept))


def test_long_texts_may_hold_audio_too() -> None:
    assert frame_of(0, "client", "[" + "A" * 5000, SILENT).text == Size(5001)
