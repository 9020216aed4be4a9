"""A session of the ``openai`` client, recorded on its way to the server, and sent again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from openai_harness import EARLY, KEY, MODEL, PATIENCE_S, talking
from recorded_session import FILE, converse

from vivavoce.record.compare import Ignore, compare
from vivavoce.record.proxy import RecordOptions, recording
from vivavoce.record.recording import End, Recording, load
from vivavoce.record.replay import Pace, ReplayOptions, replay
from vivavoce.record.show import told
from vivavoce.record.upstream import target_of
from vivavoce.server.app import Server

pytest_plugins = ["openai_fixtures"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def url(server: Server) -> str:
    return f"ws://127.0.0.1:{server.port}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fresh(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A recording of what this server does."""
    out = tmp_path_factory.mktemp("recorded") / "s.jsonl"
    options = RecordOptions(target=target_of(f"ws://127.0.0.1:{server.port}"), out=out)
    async with recording(options, host="127.0.0.1", port=0) as port, talking(port, MODEL) as talk:
        await converse(talk)
    return load(out)


async def differences(
    recorded: Recording, url: str, pace: Pace = "fast", *, unawaited: Sequence[str] = ()
) -> list[str]:
    options = ReplayOptions(target_of(url), api_key=KEY, pace=pace, patience_s=PATIENCE_S, ignore=Ignore(unawaited))
    replayed = await replay(recorded, options)
    found = compare(recorded, replayed.recording).differences
    return [*replayed.notes, *map(told, found)]


@pytest.mark.parametrize("azure", [False, True], ids=["OpenAI", "Azure"])
async def test_a_session_is_recorded_and_replayed_without_a_difference(
    url: str, tmp_path: Path, azure: bool
) -> None:
    out = tmp_path / "s.jsonl"
    options = RecordOptions(target=target_of(url), out=out)
    async with recording(options, host="127.0.0.1", port=0) as port, talking(port, MODEL, azure=azure) as talk:
        await converse(talk)
    recorded = load(out)
    assert [frame.event for _, frame in recorded.of("server")] == [
        event.model_dump(mode="json", by_alias=True, exclude_unset=True) for event in talk.events
    ]
    assert recorded.end == End(1000, "", "client")
    assert await differences(recorded, url) == []


@pytest.mark.parametrize("pace", ["fast", "recorded"])
async def test_the_shipped_recording_has_no_difference(url: str, pace: Pace) -> None:
    """Should it have one, and on purpose, ``recorded_session.py`` makes it anew."""
    assert await differences(load(FILE), url, pace) == []


async def test_another_edition_differs(url: str, fresh: Recording) -> None:
    """It tells less, and sends limits after a response, but none after one that is cancelled."""
    # It would wait in vain for the limits that do not come.
    lines = await differences(fresh, f"{url}/v1/realtime?model={EARLY}", unawaited=["rate_limits.updated"])
    moved = "rate_limits.updated moved: recorded after response.created, now after response.done"
    assert lines.count(moved) == 4
    places = {line.partition(",")[0].partition(":")[0] for line in lines if line != moved}
    less = ["conversation_id", "modalities", "voice", "output_audio_format", "temperature"]
    less += ["max_output_tokens", "metadata"]
    assert places == {
        *(f"session.{kind} session.model" for kind in ("created", "updated")),
        *(
            f"session.{kind} session.turn_detection.create_response is missing now"
            for kind in ("created", "updated")
        ),
        *(f"response.{kind} response.{key} is missing now" for kind in ("created", "done") for key in less),
        "response.done response.usage.input_token_details.cached_tokens_details is missing now",
    }


async def test_an_ignored_event_is_not_waited_for(url: str, fresh: Recording) -> None:
    ignore = Ignore(["rate_limits.updated", "session.*/*", "response.*/response.*"])
    options = ReplayOptions(
        target_of(f"{url}/v1/realtime?model={EARLY}"),
        api_key=KEY,
        pace="fast",
        patience_s=PATIENCE_S,
        ignore=ignore,
    )
    replayed = await replay(fresh, options)
    assert replayed.notes == ()
    assert compare(fresh, replayed.recording, ignore).differences == ()


def doctored(recorded: Recording, kind: str, change: Callable[[dict[str, Any]], object]) -> Recording:
    """With a change to the first event of its kind."""
    at = next(n for n, frame in enumerate(recorded.frames) if frame.sender == "server" and frame.kind == kind)
    frames = list(recorded.frames)
    event = msgspec.json.decode(msgspec.json.encode(frames[at].event))
    change(event)
    frames[at] = msgspec.structs.replace(frames[at], event=event)
    return dataclasses.replace(recorded, frames=tuple(frames))


@pytest.mark.parametrize(
    ("kind", "change", "line"),
    [
        (
            "error",
            lambda event: event["error"].update(code="another_code"),
            'error error.code: was "another_code", is "item_delete_invalid_item_id"',
        ),
        (
            "response.done",
            lambda event: event["response"].update(status="failed"),
            'response.done response.status: was "failed", is "completed"',
        ),
        (
            "session.created",
            lambda event: event["session"].pop("voice"),
            'session.created session.voice was not recorded, is "alloy"',
        ),
        (
            "input_audio_buffer.speech_started",
            lambda event: event.update(audio_start_ms=0),
            "input_audio_buffer.speech_started audio_start_ms: was 0, is 52",
        ),
        (
            "response.function_call_arguments.done",
            lambda event: event.update(arguments="?"),
            'response.function_call_arguments.done arguments: was "?", is '
            + json.dumps('{"city":"Rome","days":2}'),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
async def test_a_doctored_recording_differs_where_it_was_doctored(
    url: str, fresh: Recording, kind: str, change: Callable[[dict[str, Any]], object], line: str
) -> None:
    assert await differences(doctored(fresh, kind, change), url) == [line]
