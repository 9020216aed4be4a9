"""Connecting to an upstream server, where aiohttp does what no test can time."""

from __future__ import annotations

from typing import cast

import aiohttp
import pytest

from vivavoce.engines.base import EngineError
from vivavoce.engines.upstream_realtime_dialects import DIALECTS
from vivavoce.engines.upstream_realtime_link import Deadlines, connect

_DEADLINES = Deadlines(connect=5, first_output=5, idle=5, ping=5)


class _Closing:
    """A session of aiohttp that is closed while it connects."""

    def __init__(self, closed: bool) -> None:
        self.closed = closed

    async def ws_connect(self, *_: object, **__: object) -> None:
        raise AssertionError


async def test_an_engine_that_ends_while_it_connects_says_so() -> None:
    client = cast(aiohttp.ClientSession, _Closing(True))
    with pytest.raises(EngineError) as raised:
        await connect(client, "ws://nowhere", {}, DIALECTS["ga"], _DEADLINES)
    assert raised.value.code == "engine_unavailable"


async def test_any_other_assertion_is_a_bug() -> None:
    client = cast(aiohttp.ClientSession, _Closing(False))
    with pytest.raises(AssertionError):
        await connect(client, "ws://nowhere", {}, DIALECTS["ga"], _DEADLINES)
