"""What ``/metrics`` tells of sessions, responses and engines; of one process, and of many."""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import signal
import sys
from typing import Any

import msgspec
import pytest
import server_fixtures
from aiohttp import ClientSession, WSServerHandshakeError
from prometheus_client.parser import text_string_to_metric_families
from server_fakes import (
    BETA,
    KEY,
    NAME,
    OPENAI,
    PATIENCE_S,
    Fakes,
    Wire,
    config,
    endless,
    loud,
    quiet,
    serving,
    session,
)

from vivavoce.engines.base import EngineError
from vivavoce.server.app import Server
from vivavoce.server.metrics import MAX_CODES, OTHER, Metrics

fakes = server_fixtures.fakes
server = server_fixtures.server

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(port: int) -> Samples:
    async with ClientSession() as client, client.get(f"http://127.0.0.1:{port}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return parsed(await answer.text())


def value(samples: Samples, name: str, **labels: str) -> float | None:
    """Of the sample with these labels, whatever others it has; the sum of all such."""
    found = [number for (known, has), number in samples.items() if known == name and labels.items() <= has]
    return sum(found) if found else None


async def speak_a_turn(wire: Wire) -> None:
    await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.5) + quiet(1)).decode())
    await wire.until("response.done")


async def test_a_spoken_turn_is_told_by_its_stages(server: Server, fakes: Fakes) -> None:
    async with session(server) as wire:
        await speak_a_turn(wire)
        during = await scrape(server.port)
    assert value(during, "vivavoce_sessions", deployment=NAME) == 1
    assert value(during, "vivavoce_responses_total", deployment=NAME, status="completed") == 1
    for stage in ("recognition", "response_first_output", "response_first_audio", "response"):
        assert value(during, f"vivavoce_{stage}_seconds_count", deployment=NAME) == 1
    first = value(during, "vivavoce_response_first_output_seconds_sum") or 0
    audio = value(during, "vivavoce_response_first_audio_seconds_sum") or 0
    whole = value(during, "vivavoce_response_seconds_sum") or 0
    assert 0 <= first <= audio <= whole
    for kind in ("transcriber", "language_model", "synthesizer"):
        assert value(during, "vivavoce_engine_work_total", kind=kind) == 1
        assert value(during, "vivavoce_engine_in_flight", kind=kind) == 0
        assert value(during, "vivavoce_engine_working", kind=kind) == 1
    assert (value(during, "vivavoce_client_events_total") or 0) >= 1
    assert (value(during, "vivavoce_server_events_total") or 0) >= 10


async def test_a_session_that_has_ended_stays_counted(server: Server, fakes: Fakes) -> None:
    async with session(server) as wire:
        await speak_a_turn(wire)
        during = await scrape(server.port)
    await asyncio.wait_for(server.endpoint.empty.wait(), PATIENCE_S)
    after = await scrape(server.port)
    assert value(after, "vivavoce_sessions", deployment=NAME) == 0
    assert value(after, "vivavoce_sessions_opened_total", deployment=NAME) == 1
    for name in ("vivavoce_client_events_total", "vivavoce_server_events_total"):
        assert (value(after, name) or 0) >= (value(during, name) or 0)


async def test_work_under_way_is_in_flight(server: Server, fakes: Fakes) -> None:
    fakes.transcriber.open.clear()
    async with session(server) as wire:
        await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.5) + quiet(1)).decode())
        await wire.until("response.created")
        assert value(await scrape(server.port), "vivavoce_engine_in_flight", kind="transcriber") == 1
        fakes.transcriber.open.set()
        await wire.until("response.done")
        assert value(await scrape(server.port), "vivavoce_engine_in_flight", kind="transcriber") == 0


async def test_a_failure_is_told_by_its_code(server: Server, fakes: Fakes) -> None:
    fakes.transcriber.fault = EngineError("engine_crashed", "It is gone.")
    async with session(server) as wire:
        await speak_a_turn(wire)
        samples = await scrape(server.port)
    # The input transcription, and the answer, which tries again.
    assert value(samples, "vivavoce_engine_failures_total", kind="transcriber", code="engine_crashed") == 2
    assert value(samples, "vivavoce_responses_total", status="failed") == 1
    assert value(samples, "vivavoce_recognition_seconds_count") == 0


async def test_connections_that_are_refused_are_told(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}/openai/realtime"
    async with ClientSession() as client, client.get(url) as answer:
        assert answer.status == 426
    assert value(await scrape(server.port), "vivavoce_connections_refused_total", status="426") == 1


async def test_what_limits_say_is_told(fakes: Fakes) -> None:
    """One unit of throughput, which the first response uses up; the next one spills over."""
    plain = config()
    first = msgspec.structs.replace(
        plain.deployments[0], sku="ProvisionedManaged", capacity=1, spillover="spare", max_sessions=2
    )
    spare = msgspec.structs.replace(plain.deployments[0], name="spare", capacity=5)
    settings = msgspec.structs.replace(plain, deployments=(first, spare))
    async with serving(settings) as server, session(server) as wire, session(server) as other:
        assert value(await scrape(server.port), "vivavoce_provisioned_utilization_ratio", deployment=NAME) == 0
        fakes.model.reply = endless
        for one in (wire, other):
            await one.send("response.create")
            await one.until("response.output_item.added")
        assert await knocked(server, NAME) == 429
        samples = await scrape(server.port)
        assert (value(samples, "vivavoce_provisioned_utilization_ratio", deployment=NAME) or 0) > 1
        assert value(samples, "vivavoce_provisioned_utilization_ratio", deployment="spare") is None
        assert value(samples, "vivavoce_responses_admitted_total", deployment=NAME) == 2
        assert value(samples, "vivavoce_responses_spilled_over_total", deployment=NAME) == 1
        assert value(samples, "vivavoce_responses_denied_total", deployment=NAME) == 0
        assert value(samples, "vivavoce_connections_limited_total", deployment=NAME, limit="sessions") == 1
    alone = msgspec.structs.replace(first, spillover=None, max_sessions=None)
    settings = msgspec.structs.replace(plain, deployments=(alone,))
    async with serving(settings) as server, session(server) as wire, session(server) as other:
        await wire.send("response.create")
        await wire.until("response.output_item.added")
        await other.send("response.create")
        await other.until("response.done")
        assert await knocked(server, NAME) == 429
        samples = await scrape(server.port)
        assert value(samples, "vivavoce_responses_denied_total", deployment=NAME, limit="tokens") == 1
        assert value(samples, "vivavoce_connections_limited_total", deployment=NAME, limit="tokens") == 1
        assert value(samples, "vivavoce_connections_refused_total", status="429") == 1


async def knocked(server: Server, name: str) -> int:
    """The status at the Azure path."""
    url = f"http://127.0.0.1:{server.port}/openai/realtime?api-version=2024-10-01-preview&deployment={name}"
    async with ClientSession() as client:
        with pytest.raises(WSServerHandshakeError) as refused:
            await client.ws_connect(url, headers={"api-key": KEY})
    return refused.value.status


async def test_no_label_is_a_secret_or_an_id(server: Server, fakes: Fakes) -> None:
    async with session(server) as wire:
        await speak_a_turn(wire)
        samples = await scrape(server.port)
    labels = {label for _, has in samples for _, label in has}
    assert KEY not in labels
    assert not [label for label in labels if re.match(r"(sess|resp|item|event)_", label)]


async def test_metrics_can_be_turned_off(fakes: Fakes) -> None:
    plain = config()
    off = msgspec.structs.replace(plain, server=msgspec.structs.replace(plain.server, metrics=False))
    async with serving(off) as server, session(server) as wire:
        await speak_a_turn(wire)
        url = f"http://127.0.0.1:{server.port}/metrics"
        async with ClientSession() as client, client.get(url) as answer:
            assert answer.status == 404


async def test_the_debug_log_tells_the_stages_and_no_content(
    server: Server, fakes: Fakes, caplog: pytest.LogCaptureFixture
) -> None:
    fakes.transcriber.words = "secretly"
    with caplog.at_level(logging.DEBUG):
        async with session(server) as wire:
            done = await speak_and_wait(wire)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "vivavoce.runtime.timings"]
    ms = r"\d+ ms"
    form = (
        rf"response {done['response']['id']} of session sess_\w+: completed; "
        rf"recognition {ms}, first output {ms}, first audio {ms}, total {ms}"
    )
    assert re.fullmatch(form, line)
    assert "secretly" not in caplog.text


async def speak_and_wait(wire: Wire) -> dict[str, Any]:
    await wire.send("input_audio_buffer.append", audio=base64.b64encode(loud(0.5) + quiet(1)).decode())
    done: dict[str, Any] = (await wire.until("response.done"))[-1]
    return done


def test_codes_have_a_bound() -> None:
    metrics = Metrics()
    told = {metrics.code(f"code_{number}") for number in range(1000)}
    assert len(told) == MAX_CODES + 1
    assert OTHER in told
    assert metrics.code("code_0") == "code_0"


@pytest.mark.skipif(sys.platform == "win32", reason="workers are forked")
async def test_any_worker_tells_the_sum_of_all() -> None:
    """Real processes: two workers, and a host for the recogniser that they share."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "vivavoce", "serve", "--port", "0", "--workers", "2", "--api-key", KEY),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            ready = re.search(rb"ws://127\.0\.0\.1:(\d+)", await process.stdout.readline())
        assert ready is not None
        port = int(ready[1])
        async with ClientSession() as client:
            url = f"http://127.0.0.1:{port}{OPENAI}"
            headers = {"Authorization": f"Bearer {KEY}", **BETA}
            open_ = [await client.ws_connect(url, headers=headers) for _ in range(4)]
            for socket in open_:
                await socket.send_json({"type": "response.create", "response": {"modalities": ["text"]}})
                async with asyncio.timeout(PATIENCE_S):
                    while (await socket.receive_json())["type"] != "response.done":
                        pass
            samples: Samples = {}
            for _ in range(3):
                samples = await scrape(port)
                assert value(samples, "vivavoce_sessions") == 4
                assert value(samples, "vivavoce_responses_total", status="completed") == 4
                assert value(samples, "vivavoce_engine_work_total", engine="scripted") == 4
                # The host shares nothing and does not count.
                assert value(samples, "vivavoce_shared_state_working") == 1
            for engine in ("pocketsphinx", "espeak", "silero"):
                assert value(samples, "vivavoce_engine_working", engine=engine) == 1
            for socket in open_:
                await socket.close()

        async with asyncio.timeout(PATIENCE_S):
            while value(await scrape(port), "vivavoce_sessions"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            assert await process.wait() == 0
