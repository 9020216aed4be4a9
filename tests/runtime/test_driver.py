"""The driver: what it does itself, beside the session and the engines."""

from __future__ import annotations

import json
import threading

import pytest
from test_work import Sink, driver

from vivavoce.wire import client_events as ce
from vivavoce.wire.codec import Codec


@pytest.mark.parametrize(("characters", "aside"), [(1024, False), (2 * 1024 * 1024, True)])
async def test_a_long_event_is_read_off_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, characters: int, aside: bool
) -> None:
    """Nothing is read meanwhile, so that its answer comes before that of the next event."""
    threads: list[int] = []
    decode = Codec.decode

    def watched(codec: Codec, frame: str | bytes) -> ce.ClientEvent | ce.Rejected:
        threads.append(threading.get_ident())
        return decode(codec, frame)

    monkeypatch.setattr(Codec, "decode", watched)
    sink = Sink()
    async with driver(sink) as made:
        told = len(sink.frames)
        made.receive_text(json.dumps({"type": "response.create", "what": "x" * characters}))
        assert made.busy == aside
        await made.ready()
        made.receive_text('{"type":"response.cancel","event_id":"next"}')
        first, second = (json.loads(frame)["error"] for frame in sink.frames[told:])
    assert (first["code"], first["param"]) == ("unknown_parameter", "what")
    assert second["event_id"] == "next"
    assert [thread != threading.get_ident() for thread in threads] == [aside, False]
