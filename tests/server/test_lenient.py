"""``strict = false`` on a deployment: what it forgives is in the log, once a session for each kind."""

from __future__ import annotations

import logging

import msgspec
import pytest
from server_fakes import CONFIG, Fakes, serving, session

from vivavoce.engines.registry import Registry


@pytest.mark.parametrize("strict", [True, False])
async def test_what_is_forgiven_is_logged_once(
    strict: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Registry, "installed", Fakes)
    (deployment,) = CONFIG.deployments
    settings = msgspec.structs.replace(CONFIG, deployments=(msgspec.structs.replace(deployment, strict=strict),))
    vad = {"type": "server_vad", "prefix_padding_ms": "321", "silence_duration_ms": "654"}
    with caplog.at_level(logging.INFO, "vivavoce.runtime"):
        async with serving(settings) as server:
            for _ in range(2):
                async with session(server) as wire:
                    for _ in range(2):
                        await wire.send("session.update", session={"turn_detection": vad})
                        assert (await wire.next())["type"] == ("error" if strict else "session.updated")
    told = [line for line in caplog.messages if "a strict server refuses it" in line]
    assert len(told) == (0 if strict else 4)
    assert len(set(told)) == len(told)
    assert not any("321" in line.partition(":")[2] or "654" in line.partition(":")[2] for line in told)
