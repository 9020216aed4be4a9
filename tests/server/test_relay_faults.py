"""An upstream server that misbehaves, and what a client of ours sees of it."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest
from aiohttp import web
from scripted_upstream import SOUND, UPSTREAM_KEY, Gone, Play, ScriptedUpstream, Up, relaying
from server_fakes import PATIENCE_S, Wire, eventually, no_sessions, session

SECRET: Final = "what-a-person-said and sk-secret"
RATE_LIMIT: Final = f"Rate limit reached for {SECRET}. Please try again in 1.5s."


async def well(up: Up) -> None:
    """Two right answers."""
    await up.answer("Yes.", "1")
    await up.answer("No.", "2")


def saying(*steps: Callable[[Up], Awaitable[Any]]) -> Play:
    async def play(up: Up) -> None:
        for step in steps:
            await step(up)

    return play


async def began(up: Up) -> None:
    await up.created()
    await up.message()
    await up.words("Well")


async def ask(wire: Wire, text: str = "Hello.") -> dict[str, Any]:
    """-> the response as it is done."""
    part = {"type": "input_text", "text": text}
    await wire.send("conversation.item.create", item={"type": "message", "role": "user", "content": [part]})
    await wire.send("response.create")
    response: dict[str, Any] = (await wire.until("response.done"))[-1]["response"]
    return response


def seen(response: dict[str, Any]) -> str:
    """Status and code, and the words that came."""
    details = response["status_details"] or {}
    code = (details.get("error") or {}).get("code") or details.get("reason")
    words = "".join(part.get("transcript", "") for item in response["output"] for part in item.get("content", ()))
    return " ".join(word for word in (response["status"], code, words and f"'{words}'") if word)


def refusing(status: str, **details: Any) -> Play:
    async def play(up: Up) -> None:
        await up.created()
        await up.done(status=status, status_details=details)

    return play


def failing(code: str | None, message: str = SECRET, kind: str = "server_error") -> Play:
    return refusing("failed", type="failed", error={"type": kind, "code": code, "message": message})


def answering_with_error(code: str | None, *, name: bool = True, to: str = "response.create") -> Play:
    async def play(up: Up) -> None:
        event = await up.next(to)
        error = {"type": "invalid_request_error", "code": code, "message": RATE_LIMIT, "param": None}
        await up.say("error", error=error | {"event_id": event["event_id"] if name else None})

    return play


def dropping(when: Play) -> Play:
    async def play(up: Up) -> None:
        await when(up)
        up.drop()

    return play


def then(text: str | bytes, when: Play) -> Play:
    async def play(up: Up) -> None:
        await when(up)
        await up.say_raw(text)

    return play


async def asked(up: Up) -> None:
    await up.next("response.create")


async def made(up: Up) -> None:
    await up.created()


async def at_once(up: Up) -> None:
    await up.next("session.update")


async def expired(up: Up) -> None:
    await up.next("session.update")
    error = {"type": "invalid_request_error", "code": "session_expired", "message": "Too long.", "event_id": None}
    await up.say("error", error=error)
    await up.close(1001)


async def out_of_order(up: Up) -> None:
    """The second item begins and ends before the first one has ended."""
    await up.created()
    await up.message("i1")
    await up.words("One ", "i1")
    await up.message("i2", index=1)
    await up.words("two.", "i2")
    await up.item_done("i2")
    await up.words("and ", "i1")
    await up.item_done("i1")
    await up.done()


async def chatty(up: Up) -> None:
    """It says much that nobody needs."""
    await up.say("rate_limits.updated", rate_limits=[{"name": "tokens", "remaining": 0}])
    await up.say("conversation.item.added", item={"id": "x", "content": [{"type": "output_text"}]}, surplus={})
    await up.say("response.output_text.delta", response_id="of nobody", item_id="x", delta="?", obfuscation="aa")
    await up.created()
    await up.say("error", error={"code": "odd", "message": SECRET, "event_id": None})
    await up.message()
    await up.words("Yes.")
    await up.done()


def impossible(kind: str, **fields: Any) -> Play:
    async def play(up: Up) -> None:
        await up.created()
        await up.message()
        await up.say(kind, **({"response_id": "r1", "item_id": "i1"} | fields))

    return play


DONE: Final = "completed 'Yes.'"
LOST: Final = "failed upstream_lost"
INVALID: Final = "failed upstream_invalid"

# What the first connection does -> what the client sees, and how many connections it took. A second one does right.
ONCE: Final[dict[str, tuple[Play, str, int]]] = {
    "right": (well, DONE, 1),
    "chatty": (chatty, DONE, 1),
    "items overlap": (out_of_order, "completed 'One and two.'", 1),
    "drops when it is asked": (dropping(asked), DONE, 2),
    "drops before the first output": (dropping(made), DONE, 2),
    "drops in the middle": (dropping(began), f"{LOST} 'Well'", 1),
    "expires": (expired, DONE, 2),
    "closes": (saying(at_once, Up.close), DONE, 2),
    "no JSON": (then("{", asked), DONE, 2),
    "no JSON in the middle": (then("{", began), f"{INVALID} 'Well'", 1),
    "no event": (then('{"type": 7}', asked), DONE, 2),
    "binary": (then(b"x", made), DONE, 2),
    "a response that nobody asked for": (then('{"type":"response.created","response":{"id":"x"}}', made), DONE, 2),
    "the end of no response": (then('{"type":"response.done","response":{"id":"x"}}', asked), DONE, 2),
    "a delta of no item": (impossible("response.audio.delta", item_id="i9", delta=""), DONE, 2),
    "no base64": (impossible("response.audio.delta", delta="A*"), DONE, 2),
    "arguments of a message": (impossible("response.function_call_arguments.delta", delta="{"), DONE, 2),
    "a call without a name": (
        impossible("response.output_item.added", item={"id": "i2", "type": "function_call"}), DONE, 2,
    ),
    "an item refused": (answering_with_error("invalid_value", to="conversation.item.create"), DONE, 2),
    "the session refused": (answering_with_error("unknown_parameter", to="session.update"), DONE, 2),
    "busy": (answering_with_error("conversation_already_has_active_response"), DONE, 2),
    "the response refused": (answering_with_error("invalid_value"), "failed upstream_failed", 1),
    "refused namelessly": (answering_with_error("invalid_value", name=False), "failed upstream_failed", 1),
    "rate limit at once": (answering_with_error("rate_limit_exceeded"), "failed rate_limit_exceeded", 1),
    "rate limit": (failing("inference_rate_limit_exceeded", RATE_LIMIT), "failed rate_limit_exceeded", 1),
    "no quota": (failing("insufficient_quota"), "failed insufficient_quota", 1),
    "fails": (failing("oops"), "failed upstream_failed", 1),
    "fails in odd words": (failing(SECRET), "failed upstream_failed", 1),
    "fails without a word": (refusing("failed"), "failed upstream_failed", 1),
    "filter": (refusing("incomplete", type="incomplete", reason="content_filter"), "incomplete content_filter", 1),
    "limit": (
        refusing("incomplete", type="incomplete", reason="max_output_tokens"), "incomplete max_output_tokens", 1,
    ),
    "cancels by itself": (refusing("cancelled", reason="turn_detected"), "failed upstream_cancelled", 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ONCE)
async def test_a_fault_is_told_or_healed_and_the_session_goes_on(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    play, expected, connections = ONCE[name]
    caplog.set_level("DEBUG")
    async with ScriptedUpstream(play, well).serving() as upstream, relaying(upstream.port) as (server, _):
        async with session(server) as wire:
            response = await ask(wire)
            assert seen(response) == expected
            assert len(upstream.connections) == connections
        await no_sessions(server)
        for up in upstream.connections:
            async with asyncio.timeout(PATIENCE_S):
                await up.closed.wait()
    assert "sk-secret" not in str(response) + caplog.text
    assert UPSTREAM_KEY not in str(response) + caplog.text


ALWAYS: Final[dict[str, tuple[Play, str]]] = {
    "drops": (dropping(asked), LOST),
    "no JSON": (then("{", made), INVALID),
    "an item refused": (
        answering_with_error("invalid_value", to="conversation.item.create"), "failed upstream_refused",
    ),
    "expired": (expired, "failed upstream_session_expired"),
}  # fmt: skip


@pytest.mark.parametrize("name", ALWAYS)
async def test_a_fault_that_stays_is_told_after_the_second_time(name: str) -> None:
    play, expected = ALWAYS[name]
    async with (
        ScriptedUpstream(play).serving() as upstream,
        relaying(upstream.port) as (server, _),
        session(server) as wire,
    ):
        assert seen(await ask(wire)) == expected
        assert len(upstream.connections) == 2


async def test_after_a_loss_the_conversation_is_told_anew() -> None:
    async with (
        ScriptedUpstream(dropping(began), well).serving() as upstream,
        relaying(upstream.port) as (server, _),
        session(server) as wire,
    ):
        await ask(wire, "First.")
        assert seen(await ask(wire, "Second.")) == DONE
        told = [event["item"] for event in upstream.connections[1].heard if "item" in event]
        assert [(item["role"], item["content"][0]["text"]) for item in told] == [
            ("user", "First."), ("assistant", "Well"), ("user", "Second."),
        ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- slow servers


async def never(up: Up) -> None:
    """Takes everything, says nothing."""
    await up.next("")


@pytest.mark.parametrize(
    ("play", "expected", "deadlines"),
    [
        (never, "failed upstream_timeout", {"first_output_timeout_s": 0.05}),
        (made, "failed upstream_timeout", {"first_output_timeout_s": 0.05}),
        (began, "failed upstream_timeout 'Well'", {"idle_timeout_s": 0.05}),
    ],
)
async def test_a_server_that_falls_silent_is_given_up(
    play: Play, expected: str, deadlines: dict[str, float]
) -> None:
    async with (
        ScriptedUpstream(play, well).serving() as upstream,
        relaying(upstream.port, **deadlines) as (server, _),
        session(server) as wire,
    ):
        assert seen(await ask(wire)) == expected
        async with asyncio.timeout(PATIENCE_S):
            assert (await ask(wire))["status"] == "completed"
            assert len(upstream.connections) == 2


async def test_a_server_that_never_greets_is_given_up() -> None:
    async with ScriptedUpstream(never).serving() as upstream:
        upstream.greeting = None
        async with relaying(upstream.port, connect_timeout_s=0.05) as (server, _), session(server) as wire:
            assert seen(await ask(wire)) == "failed upstream_timeout"


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("status", "headers", "expected", "text"),
    [
        (401, {}, "failed upstream_unauthorized", "does not accept the key"),
        (403, {}, "failed upstream_unauthorized", "does not accept the key"),
        (404, {}, "failed upstream_not_found", "does not have this deployment"),
        (429, {"retry-after": "7"}, "failed rate_limit_exceeded", "try again in 7s"),
        (429, {"retry-after": "soon"}, "failed rate_limit_exceeded", "try again later"),
        (500, {}, "failed upstream_refused", "HTTP 500"),
    ],
)
async def test_a_refused_upgrade_is_told(status: int, headers: dict[str, str], expected: str, text: str) -> None:
    async with ScriptedUpstream(well).serving() as upstream:
        upstream.refusal = web.Response(status=status, headers=headers, text=SECRET)
        async with relaying(upstream.port) as (server, _), session(server) as wire:
            response = await ask(wire)
            assert seen(response) == expected
            message = response["status_details"]["error"]["message"]
            assert text in message
            assert SECRET not in message


@pytest.mark.parametrize(
    ("greeting", "expected"),
    [
        (
            {"type": "error", "error": {"code": "invalid_api_key", "message": SECRET}},
            "failed upstream_unauthorized",
        ),
        ({"type": "error", "error": {"code": None, "message": SECRET}}, "failed upstream_unauthorized"),
        ({"type": "error", "error": {"code": "invalid_model", "message": SECRET}}, "failed upstream_refused"),
        ({"type": "session.updated", "session": {}}, INVALID),
        ({"kind": "hello"}, INVALID),
    ],
)
async def test_a_greeting_that_is_none_is_told(greeting: dict[str, Any], expected: str) -> None:
    async with ScriptedUpstream(well).serving() as upstream:
        upstream.greeting = greeting
        async with relaying(upstream.port) as (server, _), session(server) as wire:
            assert seen(await ask(wire)) == expected


async def test_a_server_that_is_not_there_is_told(unused_tcp_port: int) -> None:
    async with relaying(unused_tcp_port) as (server, _), session(server) as wire:
        assert seen(await ask(wire)) == "failed upstream_unreachable"


# ---------------------------------------------------------------------------------------------- cancelling


async def test_a_cancelled_response_ends_upstream_before_the_next_begins() -> None:
    cancelled = asyncio.Event()
    ending = asyncio.Event()

    async def play(up: Up) -> None:
        await began(up)
        await up.next("response.cancel")
        cancelled.set()
        await up.words(" and more that nobody hears")
        await ending.wait()
        await up.done(status="cancelled")
        await up.answer("Yes.", "2")

    async with (
        ScriptedUpstream(play).serving() as upstream,
        relaying(upstream.port) as (server, _),
        session(server) as wire,
    ):
        await wire.send("response.create")
        await wire.until("response.audio_transcript.delta")
        await wire.send("response.cancel")
        assert seen((await wire.until("response.done"))[-1]["response"]) == "cancelled client_cancelled 'Well'"
        async with asyncio.timeout(PATIENCE_S):
            await cancelled.wait()
        await wire.send("response.create")
        await wire.until("response.created")
        assert [event["type"] for event in upstream.connections[0].heard].count("response.create") == 1
        ending.set()
        assert seen((await wire.until("response.done"))[-1]["response"]) == DONE
        kinds = [event["type"] for event in upstream.connections[0].heard]
        # What went on after the cancellation is no part of our conversation.
        assert kinds[-3:] == ["conversation.item.delete", "conversation.item.create", "response.create"]


async def test_a_client_that_vanishes_leaves_nothing_upstream() -> None:
    async with ScriptedUpstream(began).serving() as upstream, relaying(upstream.port) as (server, relay):
        tasks = len(asyncio.all_tasks())
        async with session(server) as wire:
            await wire.send("response.create")
            await wire.until("response.audio_transcript.delta")
            wire.vanish()
        await no_sessions(server)
        async with asyncio.timeout(PATIENCE_S):
            await upstream.connections[0].closed.wait()
        assert relay._seats == {}
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_a_response_out_of_band_runs_beside_and_is_cancelled_by_its_name() -> None:
    async def play(up: Up) -> None:
        await began(up)
        aside = await up.created("r2")
        assert aside["response"]["conversation"] == "none"
        assert aside["response"]["input"] == []
        await up.message("i2", "r2")
        await up.words("Aside", "i2", "r2")
        assert (await up.next("response.cancel"))["response_id"] == "r2"
        await up.done("r2", status="cancelled")
        await up.words(", yes.")
        await up.item_done()
        await up.done()

    async with (
        ScriptedUpstream(play).serving() as upstream,
        relaying(upstream.port) as (server, _),
        session(server) as wire,
    ):
        await wire.send("response.create")
        await wire.until("response.audio_transcript.delta")
        await wire.send("response.create", response={"conversation": "none", "input": []})
        aside = (await wire.until("response.audio_transcript.delta"))[-1]["response_id"]
        await wire.send("response.cancel", response_id=aside)
        done = [(await wire.until("response.done"))[-1]["response"] for _ in range(2)]
        assert [seen(one) for one in done] == ["cancelled client_cancelled 'Aside'", "completed 'Well, yes.'"]
        assert len(upstream.connections) == 1


async def test_one_out_of_band_that_is_cancelled_before_it_has_a_name_is_cancelled_when_it_has() -> None:
    ended, cancelled = asyncio.Event(), asyncio.Event()

    async def play(up: Up) -> None:
        await up.next("response.create")
        await ended.wait()
        await up.say("response.created", response={"id": "r7"})
        assert (await up.next("response.cancel"))["response_id"] == "r7"
        cancelled.set()
        await up.done("r7", status="cancelled")
        await up.answer()

    async with (
        ScriptedUpstream(play).serving() as upstream,
        relaying(upstream.port) as (server, _),
        session(server) as wire,
    ):
        await wire.send("response.create", response={"conversation": "none"})
        aside = (await wire.until("response.created"))[-1]["response"]["id"]
        await eventually(lambda: any(event["type"] == "response.create" for event in _heard(upstream)))
        await wire.send("response.cancel", response_id=aside)
        await wire.until("response.done")
        ended.set()
        async with asyncio.timeout(PATIENCE_S):
            await cancelled.wait()
        assert seen(await ask(wire)) == DONE


def _heard(upstream: ScriptedUpstream) -> list[dict[str, Any]]:
    return [event for up in upstream.connections for event in up.heard]


# ------------------------------------------------------------------------------------------- what stands in front


async def test_the_key_and_headers_are_ours(unused_tcp_port: int) -> None:
    async with (
        ScriptedUpstream(well).serving() as upstream,
        relaying(upstream.port, headers={"x-team": "voice"}) as (server, _),
        session(server) as wire,
    ):
        await ask(wire)
        (request,) = upstream.requests
        assert request.headers["Authorization"] == f"Bearer {UPSTREAM_KEY}"
        assert request.headers["x-team"] == "voice"
        assert request.headers["OpenAI-Beta"] == "realtime=v1"
        assert request.path_qs == "/v1/realtime?model=m"


async def test_a_session_more_than_there_are_connections_is_told() -> None:
    async with (
        ScriptedUpstream(well).serving() as upstream,
        relaying(upstream.port, max_connections=1) as (server, _),
        session(server) as first,
        session(server) as second,
    ):
        assert seen(await ask(first)) == DONE
        assert seen(await ask(second)) == "failed engine_overloaded"
        assert len(upstream.connections) == 1


@pytest.mark.parametrize(("left_s", "connections"), [(0.5, 2), (-5.0, 1), (1800.0, 1)])
async def test_a_session_that_ends_soon_is_renewed_before_the_next_response(
    left_s: float, connections: int
) -> None:
    async with ScriptedUpstream(well).serving() as upstream, relaying(upstream.port) as (server, relay):
        assert upstream.greeting is not None
        upstream.greeting["session"]["expires_at"] = time.time() + left_s
        async with session(server) as wire:
            assert seen(await ask(wire)) == DONE
            [seat] = relay._seats.values()
            link = seat.link
            assert link is not None
            if connections > 1:
                await eventually(lambda: link.old)
            assert (await ask(wire))["status"] == "completed"
            assert len(upstream.connections) == connections


async def test_a_sample_may_be_cut_in_two() -> None:
    async def play(up: Up) -> None:
        await up.created()
        await up.message()
        await up.sound(SOUND[:3])
        await up.sound(SOUND[3:])
        await up.done()

    async with (
        ScriptedUpstream(play).serving() as upstream,
        relaying(upstream.port) as (server, _),
        session(server) as wire,
    ):
        await wire.send("response.create")
        events = await wire.until("response.done")
        deltas = [event["delta"] for event in events if event["type"] == "response.audio.delta"]
        assert b"".join(base64.b64decode(delta) for delta in deltas) == SOUND


async def test_usage_of_the_upstream_server_is_ours() -> None:
    usage = {
        "total_tokens": 300,
        "input_tokens": 200,
        "output_tokens": 100,
        "input_token_details": {
            "text_tokens": 140,
            "audio_tokens": 60,
            "cached_tokens": 128,
            "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 28},
        },
        "output_token_details": {"text_tokens": 30, "audio_tokens": 70},
    }

    async def play(up: Up) -> None:
        await up.created()
        await up.message()
        await up.words("Yes.")
        await up.done(usage=usage)

    async with (
        ScriptedUpstream(play).serving() as upstream,
        relaying(upstream.port) as (server, _),
        session(server) as wire,
    ):
        told = (await ask(wire))["usage"]
        assert {name: told[name] for name in usage if name != "input_token_details"} == {
            name: value for name, value in usage.items() if name != "input_token_details"
        }
        assert told["input_token_details"]["text_tokens"] == 140
        assert told["input_token_details"]["cached_tokens"] == 128


async def test_at_the_start_a_server_that_refuses_us_is_a_fault_and_one_that_is_away_is_not(
    unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    from vivavoce.gateway.deployments import EngineStartError

    async with ScriptedUpstream(well).serving() as upstream:
        async with relaying(upstream.port, check_at_start=True):
            assert len(upstream.connections) == 1
        upstream.refusal = web.Response(status=401)
        with pytest.raises(EngineStartError, match="does not accept the key"):
            async with relaying(upstream.port, check_at_start=True):
                raise Gone
    async with relaying(unused_tcp_port, check_at_start=True):
        assert "cannot be reached" in caplog.text
