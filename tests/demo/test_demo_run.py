"""The conversation: success by voice and by typing, every way to fail, and what is printed."""

from __future__ import annotations

import asyncio
import io
import wave
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from demo_fake_server import (
    KEY,
    LOUD_CHUNK,
    QUESTION_CHUNKS,
    Event,
    FakeServer,
    Script,
    StepClock,
    answer,
    audio,
    created,
    done,
    event,
    heard,
    hold,
    question,
    started,
    stopped,
    tone,
    words,
    words_done,
)
from rich.console import Console

from vivavoce.demo.clock import Wait
from vivavoce.demo.run import CHUNK, SETTLE_MS, SILENCE_LIMIT_MS, DemoOptions, Endpoint, Exit, run_demo
from vivavoce.demo.sound import read_wav, write_wav

STOP_CHUNK = 25
STOP_MS = 500


@pytest.fixture
def spoken(tmp_path: Path) -> DemoOptions:
    write_wav(tmp_path / "question.wav", question())
    return DemoOptions(wav=tmp_path / "question.wav", output=tmp_path / "reply.wav")


@pytest.fixture
def typed(tmp_path: Path) -> DemoOptions:
    return DemoOptions(text="hello there", output=tmp_path / "reply.wav")


def turn(after_stop: list[Event | float | int]) -> Script:
    """A turn that is detected, and then ``after_stop``."""
    return Script(at_chunk={7: [started(100)], STOP_CHUNK: [*stopped(STOP_MS), *after_stop]})


async def test_a_spoken_question_is_answered(spoken: DemoOptions) -> None:
    outcome = await hold(turn([heard("hello"), *answer()]), spoken)
    assert outcome.code == Exit.OK
    lines = [line.split("s  ", 1)[-1] for line in outcome.out.splitlines()]
    # Chunk 14 holds the last loud sample, and the answer comes with chunk 25: 11 chunks of 20 ms.
    assert lines[2:] == [
        "speaking question.wav: 0.40 s",
        "speech started at 100 ms",
        "question sent, silence follows",
        "speech stopped at 500 ms",
        "heard: hello",
        "first audio: 220 ms after the end of speech, 0 ms after speech_stopped",
        "answered: You said hello",
        "answer completed",
        "heard        hello",
        "answered     You said hello",
        "first audio  220 ms after the end of speech, 0 ms after speech_stopped",
        "reply        0.20 s",
        f"file         {spoken.output}",
    ]
    assert lines[0].startswith("connected to ws://127.0.0.1:")
    assert lines[1] == "session sess_1, model fake-model"
    assert outcome.server.close_code == 1000


async def test_the_reply_is_written_as_24_khz_mono(spoken: DemoOptions) -> None:
    sound = tone(0.3)
    await hold(turn([heard("hello"), *answer(sound=sound)]), spoken)
    with wave.open(str(spoken.output)) as reply:
        assert (reply.getframerate(), reply.getnchannels(), reply.getsampwidth()) == (24_000, 1, 2)
    np.testing.assert_array_equal(read_wav(spoken.output), sound)


async def test_the_question_arrives_whole_and_silence_follows(spoken: DemoOptions) -> None:
    outcome = await hold(turn([heard("hello"), *answer()]), spoken)
    appends = [e for e in outcome.server.events if e["type"] == "input_audio_buffer.append"]
    chunks = [np.frombuffer(b64decode(e["audio"]), "<i2") for e in appends]
    assert {len(chunk) for chunk in chunks} == {CHUNK}
    np.testing.assert_array_equal(np.concatenate(chunks[:QUESTION_CHUNKS]), question())
    assert not np.concatenate(chunks[QUESTION_CHUNKS:]).any()
    # The chunk after the one that brought speech_stopped is the first at which the client can know of it.
    assert len(chunks) == STOP_CHUNK + 2


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, {}),
        ({"voice": "echo", "instructions": "be brief"}, {"voice": "echo", "instructions": "be brief"}),
    ],
)
async def test_the_session_is_configured_before_speech(
    spoken: DemoOptions, extra: dict[str, Any], expected: dict[str, Any]
) -> None:
    outcome = await hold(turn([heard("hello"), *answer()]), replace(spoken, **extra))
    assert outcome.server.events[0] == {
        "type": "session.update",
        "session": {
            "modalities": ["text", "audio"],
            "input_audio_format": "pcm16",
            "output_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1"},
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 200,
            },
            **expected,
        },
    }


async def test_a_typed_question_is_answered(typed: DemoOptions) -> None:
    outcome = await hold(Script(on_response=[created(), 0.25, *answer()[1:]]), typed)
    assert outcome.code == Exit.OK
    assert "first audio  250 ms after response.create" in outcome.out
    assert "asked        hello there" in outcome.out
    assert [e["type"] for e in outcome.server.events] == [
        "session.update",
        "conversation.item.create",
        "response.create",
    ]
    assert outcome.server.events[0]["session"] == {
        "modalities": ["text", "audio"],
        "output_audio_format": "pcm16",
    }
    assert outcome.server.events[1]["item"] == {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "hello there"}],
    }


async def test_the_shipped_question_is_used_without_options(tmp_path: Path) -> None:
    # Its last loud sample is 3.03 s in, so the VAD may stop at 3.2 s.
    script = Script(at_chunk={30: [started(300)], 160: [*stopped(3200), heard("hello"), *answer()]})
    outcome = await hold(script, DemoOptions(output=tmp_path / "reply.wav"))
    assert outcome.code == Exit.OK
    assert "speaking the shipped question: 3.34 s" in outcome.out


async def test_the_transcript_may_come_after_the_answer(spoken: DemoOptions) -> None:
    outcome = await hold(turn([*answer(), 0.5, heard("hello")]), spoken)
    assert outcome.code == Exit.OK
    assert "heard        hello" in outcome.out


async def test_speech_over_the_answer_makes_a_second_turn(spoken: DemoOptions) -> None:
    script = Script(
        at_chunk={
            3: [started(0, "item_1")],
            6: [*stopped(96, "item_1"), created("resp_1"), words("Wrong", "resp_1"), audio(tone(0.9), "resp_1")],
            8: [
                started(130, "item_2"),
                words_done("Wrong", "resp_1"),
                done("resp_1", "cancelled", {"type": "cancelled", "reason": "turn_detected"}),
            ],
            STOP_CHUNK: [
                *stopped(STOP_MS, "item_2"),
                *answer("resp_2"),
                heard("say", "item_2"),
                heard("please", "item_1"),
            ],
        }
    )
    outcome = await hold(script, spoken)
    assert outcome.code == Exit.OK
    assert "answer cancelled: turn_detected" in outcome.out
    assert "heard        please say" in outcome.out
    assert "answered     You said hello" in outcome.out
    assert "reply        0.20 s" in outcome.out
    assert "first audio  220 ms after the end of speech, 0 ms after speech_stopped" in outcome.out


async def test_a_recording_that_ends_in_noise_settles(spoken: DemoOptions) -> None:
    # The stop lies before the last loud sample: what follows might still be speech, until it has been quiet.
    script = Script(at_chunk={7: [started(100)], 10: [*stopped(200), heard("hello"), *answer()]})
    outcome = await hold(script, spoken)
    assert outcome.code == Exit.OK
    assert outcome.server.chunks == QUESTION_CHUNKS + (SETTLE_MS + 200) // 20


INCOMPLETE = done(status="incomplete", details={"type": "incomplete", "reason": "max_output_tokens"})
FAULT = {"type": "server_error", "code": "engine_died", "message": "The engine died."}
FAILED_DETAILS = {"type": "failed", "error": FAULT}
TRANSCRIPT_FAILED = event(
    "conversation.item.input_audio_transcription.failed", item_id="item_1", content_index=0, error=FAULT
)


async def test_an_answer_cut_by_a_token_limit_still_counts(spoken: DemoOptions) -> None:
    outcome = await hold(turn([heard("hello"), *answer()[:-1], INCOMPLETE]), spoken)
    assert outcome.code == Exit.OK
    assert "answer incomplete: max_output_tokens" in outcome.out


SPOKEN_FAILURES: list[tuple[str, list[Event | float | int], int, str]] = [
    (
        "transcription fails",
        [TRANSCRIPT_FAILED, *answer()],
        5,
        "the speech was not transcribed: The engine died. (code engine_died)",
    ),
    ("transcript empty", [heard(" "), *answer()], 5, "the speech was not transcribed: the transcript is empty"),
    ("transcript missing", [*answer()], 5, "the speech was not transcribed: no transcript came"),
    (
        "response fails",
        [heard("hello"), created(), done(status="failed", details=FAILED_DETAILS)],
        6,
        "the answer is failed: The engine died. (code engine_died)",
    ),
    (
        "response is cancelled",
        [heard("hello"), *answer()[:-1], done(status="cancelled", details={"reason": "turn_detected"})],
        6,
        "the answer is cancelled: turn_detected",
    ),
    ("no audio", [heard("hello"), *answer(sound=tone(0))], 6, "the answer has no audio"),
    (
        "silence",
        [heard("hello"), *answer(sound=np.zeros(4800, np.int16))],
        6,
        "the audio of the answer is silence",
    ),
    (
        "half a sample",
        [
            heard("hello"),
            created(),
            event("response.audio.delta", response_id="resp_1", item_id="i", content_index=0, delta="AAAA"),
            done(),
        ],
        6,
        "the audio of the answer is not whole 16-bit samples",
    ),
    ("no answer", [heard("hello")], 6, "no answer came within 60 s"),
    ("endless answer", [heard("hello"), *answer()[:-1]], 6, "the answer did not end within 60 s"),
    (
        "nothing at all",
        [],
        5,
        "the speech was not transcribed: no transcript came; no answer came within 60 s",
    ),
    (
        "error event",
        [event("error", error=FAULT)],
        7,
        "the server reports an error: The engine died. (code engine_died)",
    ),
    ("server hangs up", [1011], 8, "the server closed the connection (code 1011: as scripted)"),
    (
        "audio is not base64",
        [created(), event("response.audio.delta", response_id="resp_1", delta="$")],
        8,
        "the server sent audio that is not base64",
    ),
    (
        "field missing",
        [event("response.created", response={})],
        8,
        "the server sent a response without a valid id",
    ),
]


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [case[1:] for case in SPOKEN_FAILURES],
    ids=[case[0].replace(" ", "-") for case in SPOKEN_FAILURES],
)
async def test_a_turn_that_goes_wrong(
    spoken: DemoOptions, script: list[Event | float | int], code: int, reason: str
) -> None:
    expires = () if any(isinstance(s, int) for s in script) else (Wait.ANSWER, Wait.TRANSCRIPT)
    outcome = await hold(turn(script), spoken, expires=expires)
    assert outcome.out.splitlines()[-1] == f"demo failed: {reason}"
    assert outcome.code == code
    assert spoken.output.exists() == (code == Exit.NOT_TRANSCRIBED and "no answer" not in reason)


async def test_speech_that_is_not_detected_fails_even_with_an_answer(spoken: DemoOptions) -> None:
    outcome = await hold(Script(at_chunk={STOP_CHUNK: [*answer(), heard("hello")]}), spoken)
    assert outcome.code == Exit.NOT_DETECTED
    assert outcome.out.endswith("demo failed: the server detected no speech in question.wav\n")
    assert outcome.server.chunks == QUESTION_CHUNKS + (SILENCE_LIMIT_MS + 200) // 20


async def test_speech_without_an_end_fails(spoken: DemoOptions) -> None:
    outcome = await hold(Script(at_chunk={7: [started(100)]}), spoken)
    assert outcome.code == Exit.NOT_DETECTED
    assert "the server did not detect the end of the speech in question.wav" in outcome.out


async def test_typing_needs_no_detection_but_an_answer(typed: DemoOptions) -> None:
    outcome = await hold(Script(), typed, expires=[Wait.ANSWER])
    assert (outcome.code, outcome.out.splitlines()[-1]) == (6, "demo failed: no answer came within 60 s")


async def test_a_refused_connection_tells_status_and_reason(spoken: DemoOptions) -> None:
    refusal = web.json_response({"error": {"code": "401", "message": f"Access denied to {KEY}."}}, status=401)
    outcome = await hold(Script(refuse=refusal), spoken)
    assert outcome.code == Exit.NOT_CONNECTED
    assert outcome.out == (
        "demo failed: the server refused the connection: HTTP 401: Access denied to ***. (code 401)\n"
    )


@pytest.mark.parametrize(
    ("script", "expires", "reason"),
    [
        (
            Script(greeting=[event("error", error={"message": "Incorrect API key.", "code": "invalid_api_key"})]),
            [],
            "the server reports an error: Incorrect API key. (code invalid_api_key)",
        ),
        (Script(greeting=[]), [Wait.SESSION], "the server opened no session within 60 s"),
    ],
)
async def test_a_session_that_does_not_open(
    spoken: DemoOptions, script: Script, expires: list[Wait], reason: str
) -> None:
    outcome = await hold(script, spoken, expires=expires)
    assert (outcome.code, outcome.out) == (Exit.NOT_CONNECTED, f"demo failed: {reason}\n")


async def test_a_refused_session_update_is_an_error(spoken: DemoOptions) -> None:
    refused = event("error", error={"message": "Invalid value.", "code": "invalid_value"})
    outcome = await hold(Script(on_update=[refused]), replace(spoken, voice="nobody"))
    assert outcome.code == Exit.SERVER_ERROR
    assert outcome.out.endswith("demo failed: the server reports an error: Invalid value. (code invalid_value)\n")


async def test_a_server_that_hangs_up_at_once(spoken: DemoOptions) -> None:
    outcome = await hold(Script(on_update=[1001]), spoken)
    assert outcome.code == Exit.LOST
    assert outcome.out.endswith("demo failed: the server closed the connection (code 1001: as scripted)\n")


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"text": "hello"}, "a recording and a text cannot both be the question"),
    ({"wav": None, "text": "  "}, "the text is empty"),
    ({"api_key": KEY}, "an API key needs the URL of a server"),
    ({"deployment": ""}, "the deployment has no name"),
    ({"timeout_s": 0.0}, "the timeout must be above 0 s"),
    ({"timeout_s": float("nan")}, "the timeout must be above 0 s"),
    ({"silence_ms": -1}, "the silence must not be below 0 ms"),
    ({"output": Path("/nowhere/x.wav")}, "cannot write /nowhere/x.wav: there is no directory /nowhere"),
    ({"output": Path("/")}, "cannot write /: it is a directory"),
    ({"wav": Path("/nowhere/q.wav")}, "cannot use /nowhere/q.wav: no such file or directory"),
    ({"wav": Path(__file__)}, f"cannot use {__file__}: the file is not a WAV file"),
    ({"url": "localhost:8089"}, "the URL must look like ws://host:port, or wss, http or https"),
    ({"url": "ws://h", "api_key": ""}, "the API key is empty or holds characters that a header cannot carry"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_OPTIONS)
async def test_options_that_cannot_be_used(spoken: DemoOptions, change: dict[str, Any], reason: str) -> None:
    outcome = await hold(Script(), replace(spoken, **change))
    assert (outcome.code, outcome.out) == (Exit.BAD_INPUT, f"demo failed: {reason}\n")
    assert outcome.server.requests == []


async def test_a_server_that_does_not_start(spoken: DemoOptions) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[Endpoint]:
        if spoken.url is None:
            raise OSError(98, "Address already in use")
        yield Endpoint(spoken.url, KEY)

    out = io.StringIO()
    code = await run_demo(spoken, serve=broken, console=Console(file=out), clock=StepClock())
    assert (code, out.getvalue()) == (3, "demo failed: the server did not start: address already in use\n")


async def test_a_given_url_is_used_instead_of_our_own_server(typed: DemoOptions) -> None:
    outcome = await hold(
        Script(on_response=answer()),
        typed,
        own_server=False,
        options_for=lambda url: replace(typed, url=url, api_key="another-key", deployment="mine"),
    )
    assert outcome.code == Exit.OK
    (request,) = outcome.server.requests
    assert request.headers["api-key"] == "another-key"
    assert dict(request.query) == {"api-version": "2024-10-01-preview", "deployment": "mine"}


async def test_the_key_and_control_codes_never_reach_the_output(spoken: DemoOptions) -> None:
    nasty = f"\x1b[31m{KEY}\x07\nnew\u009b line"
    script = turn([heard(nasty), created(), words(nasty), audio(tone(0.1)), words_done(nasty), done()])
    script.greeting = [event("session.created", session={"id": nasty, "model": nasty})]
    outcome = await hold(script, spoken)
    assert outcome.code == Exit.OK
    assert KEY not in outcome.out
    assert "heard: [31m*** new line" in outcome.out
    assert all(c == "\n" or c.isprintable() for c in outcome.out)


async def test_cancelling_closes_the_connection_and_the_server(spoken: DemoOptions) -> None:
    clock = StepClock()
    server = FakeServer(Script(hang_at=5), clock)
    ends: list[str] = []

    @asynccontextmanager
    async def serve() -> AsyncIterator[Endpoint]:
        async with server.serve() as endpoint:
            try:
                yield endpoint
            finally:
                ends.append("server stopped")

    out = io.StringIO()
    tasks_before = asyncio.all_tasks()
    demo = asyncio.create_task(run_demo(spoken, serve=serve, console=Console(file=out), clock=clock))
    await server.hangs.wait()
    demo.cancel()
    with pytest.raises(asyncio.CancelledError):
        await demo
    assert ends == ["server stopped"]
    assert server.close_code == 1000
    assert out.getvalue().endswith("interrupted\n")
    assert asyncio.all_tasks() == tasks_before


def test_options_do_not_show_the_key() -> None:
    assert KEY not in repr(DemoOptions(api_key=KEY))
    assert KEY not in repr(Endpoint("ws://h", KEY))


def test_the_question_of_these_tests_is_loud_where_it_says() -> None:
    loud = np.flatnonzero(question())
    assert loud[-1] // CHUNK == LOUD_CHUNK
