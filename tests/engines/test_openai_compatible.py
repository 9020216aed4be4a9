"""The engines of ``openai_compatible`` and a strict server, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import wave
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from openai_fake import DONE, KEY, MODEL, Fake, Stream, calls, chunk, error, event, says

from vivavoce.engines import base
from vivavoce.engines.registry import EngineKind, EngineUnavailable, Registry

HELLO = base.GenerationRequest("Be brief.", (base.Message("user", (base.TextInput("Hi, Quibblefrost."),)),))
SPEECH = bytes(range(256)) * 100
"""0.8 s at 16 kHz."""


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    async with Fake().serving() as fake:
        yield fake
    assert fake.refused == []


@asynccontextmanager
async def engine(kind: EngineKind, fake: Fake, **options: Any) -> AsyncIterator[Any]:
    made: Any = Registry.installed().create(kind, "openai_compatible", connection(fake) | options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def connection(fake: Fake) -> dict[str, Any]:
    return {"base_url": fake.url, "model": MODEL, "api_key": KEY, "check": "fail"}


async def all_of(deltas: Any) -> list[Any]:
    async with aclosing(deltas):
        return [delta async for delta in deltas]


async def fault_of(deltas: Any) -> base.EngineError:
    with pytest.raises(base.EngineError) as raised:
        await all_of(deltas)
    return raised.value


async def heard(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


# ----------------------------------------------------------------------------------------- language model


async def test_words_and_use(fake: Fake) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 2, "total_tokens": 14}
    fake.answers.append(says("Hel", "lo.", usage=usage))
    async with engine("language_model", fake, headers={"x-team": "voice"}) as model:
        deltas = await all_of(model.generate(HELLO))
    finish = base.Finish("stop", base.Usage(base.InputUsage(12), 2))
    assert deltas == [base.TextDelta("Hel"), base.TextDelta("lo."), finish]
    (asked,) = fake.asked
    assert asked.headers["Authorization"] == f"Bearer {KEY}"
    assert asked.headers["x-team"] == "voice"
    assert asked.body["messages"][1] == {"role": "user", "content": "Hi, Quibblefrost."}


async def test_a_call_whose_arguments_stream(fake: Fake) -> None:
    fake.answers.append(calls("find", '{"a": ', "1}"))
    request = base.GenerationRequest("", HELLO.turns, tools=(base.Tool("find"),), tool_choice="required")
    async with engine("language_model", fake) as model:
        deltas = await all_of(model.generate(request))
    wanted = [base.ToolCallStart("find"), *map(base.ToolArgumentsDelta, ('{"a": ', "1}")), base.Finish()]
    assert deltas == wanted


async def test_words_come_while_the_answer_is_made(fake: Fake) -> None:
    go_on = asyncio.Event()
    fake.answers.append(
        Stream([chunk({"content": "One"}), go_on, chunk({"content": "two"}), chunk({}, "stop"), DONE])
    )
    async with engine("language_model", fake) as model, aclosing(model.generate(HELLO)) as deltas:
        assert await anext(deltas) == base.TextDelta("One")
        go_on.set()
        assert await anext(deltas) == base.TextDelta("two")


async def test_one_connection_serves_many_requests(fake: Fake) -> None:
    fake.answers.extend([says("a"), says("b"), calls("f")])
    async with engine("language_model", fake) as model:
        for _ in range(3):
            await all_of(model.generate(HELLO))
    assert len(fake.connections) == 1


@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_who_hangs_up_ends_the_work_upstream(fake: Fake, how: str) -> None:
    fake.answers.extend([Stream([chunk({"content": "On"}), asyncio.Event()]), says("Yes")])
    async with engine("language_model", fake) as model:
        deltas = model.generate(HELLO)
        assert await anext(deltas) == base.TextDelta("On")
        if how == "cancel":
            waiting = asyncio.ensure_future(anext(deltas))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        await deltas.aclose()
        async with asyncio.timeout(20):
            await fake.gone.wait()
        assert len(await all_of(model.generate(HELLO))) == 2


async def test_cancelled_before_the_first_word_it_hangs_up_too(fake: Fake) -> None:
    fake.answers.append(Stream([b": wait\n\n", asyncio.Event()]))
    async with engine("language_model", fake) as model:
        waiting = asyncio.ensure_future(all_of(model.generate(HELLO)))
        async with asyncio.timeout(20):
            while not fake.asked:  # noqa: ASYNC110
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            await fake.gone.wait()


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (error(401, "invalid_api_key"), "engine_rejected", "HTTP 401, invalid_api_key"),
        (error(404, "model_not_found"), "engine_rejected", "HTTP 404, model_not_found"),
        (error(400, "context_length_exceeded"), "engine_rejected", "HTTP 400, context_length_exceeded"),
        (error(400, "you said: Quibblefrost"), "engine_rejected", "HTTP 400, invalid_request_error"),
        (error(429, "rate_limit_exceeded"), "engine_rate_limited", "HTTP 429, rate_limit_exceeded"),
        (error(408, "slow"), "engine_timeout", "HTTP 408, slow"),
        (error(500, "boom"), "engine_unavailable", "HTTP 500, boom"),
        (web.Response(status=503, text="<html>Quibblefrost"), "engine_unavailable", "HTTP 503."),
        (web.json_response({"error": "no such model: Quibblefrost"}, status=404), "engine_rejected", "HTTP 404."),
        (web.json_response([{"error": {}}], status=400), "engine_rejected", "HTTP 400."),
        (Stream([event({"error": {"code": 500, "message": "Quibblefrost"}})]), "engine_unavailable", "HTTP 500."),
        (Stream([b"data: Quibblefrost\n\n"]), "invalid_engine_output", "cannot be understood"),
        (Stream([event({"choices": "none"})]), "invalid_engine_output", "cannot be understood"),
        (Stream([chunk({"role": "assistant"})]), "engine_unavailable", "broke off"),
        (Stream([chunk({"content": "Quibblefrost"})]), "engine_unavailable", "broke off"),
        (Stream([chunk({"content": "Quibblefrost"})], cut=True), "engine_unavailable", "broke off"),
    ],
)  # fmt: skip
async def test_faults(fake: Fake, answer: Any, code: str, told: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "vivavoce")
    fake.answers.append(answer)
    async with engine("language_model", fake, max_retries=0) as model:
        fault = await fault_of(model.generate(HELLO))
    assert fault.code == code
    assert told in fault.message
    assert "Quibblefrost" not in fault.message + caplog.text
    assert KEY not in fault.message + caplog.text


async def test_what_azure_filters_is_no_fault(fake: Fake) -> None:
    fake.answers.append(error(400, "content_filter"))
    async with engine("language_model", fake) as model:
        assert await all_of(model.generate(HELLO)) == [base.Finish("content_filter")]


async def test_azure(fake: Fake) -> None:
    fake.answers.append(says("Hi"))
    azure = {"base_url": fake.url.removesuffix("/v1"), "model": "my gpt", "api_version": "2024-10-21"}
    async with engine("language_model", fake, **azure) as model:
        await all_of(model.generate(HELLO))
    (asked,) = fake.asked
    assert asked.path == "chat/completions"
    assert asked.query == {"api-version": "2024-10-21"}
    assert asked.headers["api-key"] == KEY
    assert "Authorization" not in asked.headers


# ------------------------------------------------------------------------------------------ start and end


@pytest.mark.parametrize(
    ("wrong", "code", "told"),
    [
        ({"api_key": "sk-wrong"}, "engine_rejected", "HTTP 401, invalid_api_key"),
        ({"model": "other"}, "engine_rejected", "does not list the model other"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "engine_unavailable", "cannot be reached"),
    ],
)
async def test_what_is_wrong_is_told_at_the_start(
    fake: Fake, wrong: dict[str, Any], code: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    for check in ("fail", "warn", "off"):
        caplog.clear()
        made: Any = Registry.installed().create(
            "language_model", "openai_compatible", connection(fake) | wrong | {"check": check}
        )
        try:
            if check == "fail":
                with pytest.raises(base.EngineError, match=told) as raised:
                    await made.start()
                assert raised.value.code == code
            else:
                await made.start()
                assert (told in caplog.text) == (check == "warn")
                assert made.working == (check == "off" or code != "engine_unavailable")
        finally:
            await made.close()


@pytest.mark.parametrize(
    ("models", "status"),
    [("nothing here", 404), ({"data": []}, 200), ("odd", 200), ({"data": [{"id": f"{MODEL}:latest"}]}, 200)],
)
async def test_servers_that_list_no_models_are_taken(fake: Fake, models: Any, status: int) -> None:
    fake.models, fake.models_status = models, status
    async with engine("language_model", fake) as model:
        assert model.working


@pytest.mark.parametrize("kind", ["language_model", "transcriber", "synthesizer", "speech_model"])
async def test_a_warm_up_is_a_small_request(fake: Fake, kind: EngineKind) -> None:
    answers: dict[str, Any] = {
        "transcriber": web.json_response({"text": ""}),
        "synthesizer": Stream([bytes(4800)], "audio/pcm"),
    }
    fake.answers.append(answers.get(kind, says("Hi")))
    async with engine(kind, fake, warm_up=True):
        assert len(fake.asked) == 1
    fake.answers.append(error(400, "no"))
    with pytest.raises(base.EngineError, match="HTTP 400"):
        async with engine(kind, fake, warm_up=True, max_retries=0):
            pass


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"base_url": "localhost:1234"}, "base_url"),
        ({"base_url": "http://me:secret@h/v1"}, "base_url"),
        ({"base_url": "http://h/v1?x=1"}, "base_url"),
        ({"base_url": "http://[/v1"}, "base_url"),
        ({"proxy": "socks"}, "proxy"),
        ({"api_key": "two words"}, "api_key"),
        ({"headers": {"x y": "z"}}, "headers.x y"),
        ({"headers": {"x": "a\r\nb: c"}}, "headers.x"),
        ({"extra_body": {"stream": False}}, "extra_body.stream"),
        ({"mood": 1}, "mood"),
        ({"total_timeout_s": 0}, "total_timeout_s"),
        ({"ca_file": "/nowhere.pem"}, "ca_file"),
    ],
)
def test_options_that_are_refused(wrong: dict[str, Any], path: str) -> None:
    with pytest.raises(base.EngineOptionsError) as raised:
        Registry.installed().create(
            "language_model", "openai_compatible", {"base_url": "http://h/v1", "model": "m"} | wrong
        )
    assert raised.value.path == path


def test_a_key_is_not_shown() -> None:
    from vivavoce.engines.openai_compatible.chat import ChatOptions

    assert "sesame" not in repr(ChatOptions(base_url="http://h", model="m", api_key="sesame"))


def test_without_httpx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(EngineUnavailable, match=r"vivavoce\[openai-compatible\]"):
        Registry.installed().create(
            "language_model", "openai_compatible", {"base_url": "http://h/v1", "model": "m"}
        )


# -------------------------------------------------------------------------------------------- transcriber


async def test_an_utterance_is_sent_as_a_wav_file(fake: Fake) -> None:
    fake.answers.append(web.json_response({"text": " What is it? "}))
    async with engine("transcriber", fake, language="de", prompt="Namen", extra_body={"vad": True}) as hears:
        with pytest.raises(base.EngineError):
            await all_of(hears.transcribe(heard(SPEECH), base.TranscriptionOptions()))
    assert "unknown: {'vad'}" in fake.refused.pop()
    async with engine("transcriber", fake, language="de", prompt="Namen", temperature=0.2) as hears:
        options = base.TranscriptionOptions(language="fr")
        deltas = await all_of(hears.transcribe(heard(SPEECH[:1000], SPEECH[1000:]), options))
    assert deltas == [base.TranscriptDelta("What is it?")]
    (asked,) = fake.asked
    with wave.open(io.BytesIO(asked.body.pop("file"))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert file.readframes(file.getnframes()) == SPEECH
    form = {"model": MODEL, "response_format": "json", "language": "fr", "prompt": "Namen", "temperature": "0.2"}
    assert asked.body == form


async def test_silence_and_very_short_sound(fake: Fake) -> None:
    fake.answers.append(web.json_response({"text": ""}))
    async with engine("transcriber", fake) as hears:
        assert await all_of(hears.transcribe(heard(), base.TranscriptionOptions())) == []
        assert fake.asked == []
        assert await all_of(hears.transcribe(heard(b"\1\0"), base.TranscriptionOptions())) == []
    assert len(fake.asked) == 1


TOLD = [{"token": "Yes", "logprob": -0.25, "bytes": [89]}]


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "transcript.text.delta", "delta": "Yes", "logprobs": TOLD},
         {"type": "transcript.text.delta", "delta": " sir"}, {"type": "transcript.text.done", "text": "Yes sir"}],
        [{"choices": [{"delta": {"content": " Yes"}}], "logprobs": TOLD},
         {"choices": [{"delta": {"content": " sir"}, "finish_reason": "stop"}]}],
        [{"text": "Yes", "logprobs": TOLD}, {"text": " sir"}],
        [{"text": "Yes", "logprobs": TOLD}, {"text": "sir"}],
    ],
)  # fmt: skip
async def test_words_that_stream(fake: Fake, events: list[Any]) -> None:
    fake.answers.append(Stream([event(one) for one in events]))
    async with engine("transcriber", fake, stream=True, logprobs=True) as hears:
        deltas = await all_of(hears.transcribe(heard(SPEECH), base.TranscriptionOptions(logprobs=True)))
    sure = (base.TokenLogprob("Yes", -0.25),)
    assert deltas == [base.TranscriptDelta("Yes", sure), base.TranscriptDelta(" sir")]
    assert fake.asked[0].body["stream"] == "true"
    assert fake.asked[0].body["include[]"] == ["logprobs"]


async def test_a_transcript_that_comes_at_the_end_alone(fake: Fake) -> None:
    fake.answers.append(Stream([event({"type": "transcript.text.done", "text": "Yes"}), DONE]))
    fake.answers.append(Stream([event({"type": "transcript.text.delta", "delta": "Ye"})]))
    async with engine("transcriber", fake, stream=True) as hears:
        deltas = await all_of(hears.transcribe(heard(SPEECH), base.TranscriptionOptions()))
        assert deltas == [base.TranscriptDelta("Yes")]
        fault = await fault_of(hears.transcribe(heard(SPEECH), base.TranscriptionOptions()))
        assert fault.code == "engine_unavailable"


@pytest.mark.parametrize("answer", [{"words": "Quibblefrost"}, {"text": 1}, "Quibblefrost"])
async def test_an_answer_without_a_transcript(fake: Fake, answer: Any) -> None:
    fake.answers.append(web.json_response(answer))
    async with engine("transcriber", fake) as hears:
        fault = await fault_of(hears.transcribe(heard(SPEECH), base.TranscriptionOptions()))
    assert (fault.code, "Quibblefrost" in fault.message) == ("invalid_engine_output", False)


# -------------------------------------------------------------------------------------------- synthesizer


async def test_speech_as_it_comes(fake: Fake) -> None:
    go_on = asyncio.Event()
    fake.answers.append(Stream([SPEECH[:333], go_on, SPEECH[333:]], "audio/pcm"))
    options = {"voices": {"ash": "onyx"}, "instructions": "Whisper.", "extra_body": {"stream_format": "audio"}}
    with pytest.raises(base.EngineOptionsError, match="extra_body"):
        async with engine("synthesizer", fake, **options):
            pass
    del options["extra_body"]
    async with engine("synthesizer", fake, **options) as speaks:
        async with aclosing(speaks.synthesize(base.SynthesisRequest("Hi.", "ash", 1.25))) as chunks:
            first = await anext(chunks)
            assert len(first.pcm) == 332
            go_on.set()
            assert first.pcm + b"".join([chunk.pcm async for chunk in chunks]) == SPEECH
        assert await all_of(speaks.synthesize(base.SynthesisRequest(" \n", "ash"))) == []
    assert fake.asked[0].body == {
        "model": MODEL, "input": "Hi.", "voice": "onyx", "response_format": "pcm", "speed": 1.25,
        "instructions": "Whisper.",
    }  # fmt: skip
    assert len(fake.asked) == 1


async def test_speech_in_a_wav_file_comes_at_the_rate_that_is_declared(fake: Fake) -> None:
    from vivavoce.engines.openai_compatible.messages import wav

    file = wav(SPEECH, 16000)
    fake.answers.append(Stream([file[:21], file[21:600], file[600:]], "audio/wav"))
    fake.answers.append(Stream([b"ID3 no wav file at all"], "audio/mpeg"))
    async with engine("synthesizer", fake, response_format="wav", voice="af_heart") as speaks:
        chunks = await all_of(speaks.synthesize(base.SynthesisRequest("Hi.", "alloy")))
        assert len(b"".join(chunk.pcm for chunk in chunks)) == len(SPEECH) * 3 // 2
        fault = await fault_of(speaks.synthesize(base.SynthesisRequest("Hi.", "alloy")))
        assert fault.code == "invalid_engine_output"
    assert fake.asked[0].body["voice"] == "af_heart"


async def test_words_in_the_place_of_sound_are_not_played(fake: Fake) -> None:
    fake.answers.append(web.json_response({"detail": "Quibblefrost"}))
    async with engine("synthesizer", fake) as speaks:
        fault = await fault_of(speaks.synthesize(base.SynthesisRequest("Hi.", "alloy")))
    assert (fault.code, "Quibblefrost" in fault.message) == ("invalid_engine_output", False)


# ------------------------------------------------------------------------------------------- speech model


def audio(**fields: Any) -> bytes:
    return chunk({"audio": {"id": "audio_1", **fields}})


def coded(pcm: bytes) -> str:
    return base64.b64encode(pcm).decode()


async def test_a_model_that_speaks(fake: Fake) -> None:
    usage = {"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": 120,
             "prompt_tokens_details": {"audio_tokens": 40, "cached_tokens": 0},
             "completion_tokens_details": {"audio_tokens": 20}}  # fmt: skip
    pieces = [
        chunk({"role": "assistant", "audio": {"id": "audio_1", "transcript": "Hel"}}),
        audio(data=coded(SPEECH[:99])),
    ]
    pieces += [audio(transcript="lo."), audio(data=coded(SPEECH[99:])), audio(expires_at=9), chunk({}, "stop")]
    fake.answers.append(Stream([*pieces, chunk(usage=usage), DONE]))
    said = base.AudioInput(SPEECH, 24000)
    generation = base.GenerationRequest("", (base.Message("user", (said,)),), tools=(base.Tool("f"),))
    async with engine("speech_model", fake, voices={"verse": "onyx"}) as model:
        deltas = await all_of(model.respond(base.SpeechRequest(generation, "verse")))
    words = [delta.text for delta in deltas if isinstance(delta, base.TextDelta)]
    sound = b"".join(delta.pcm for delta in deltas if isinstance(delta, base.AudioDelta))
    assert (words, sound) == (["Hel", "lo."], SPEECH)
    assert deltas[-1] == base.Finish("stop", base.Usage(base.InputUsage(50, 40), 10, 20))
    (asked,) = fake.asked
    assert asked.body["modalities"] == ["text", "audio"]
    assert asked.body["audio"] == {"voice": "onyx", "format": "pcm16"}
    assert asked.body["messages"][0]["content"][0]["type"] == "input_audio"


async def test_a_model_that_speaks_answers_in_text_where_text_is_asked_for(fake: Fake) -> None:
    fake.answers.append(says("Yes."))
    generation = base.GenerationRequest("", HELLO.turns, frozenset({"text"}))
    async with engine("speech_model", fake) as model:
        deltas = await all_of(model.respond(base.SpeechRequest(generation, "alloy")))
    assert deltas == [base.TextDelta("Yes."), base.Finish()]
    assert fake.asked[0].body["modalities"] == ["text"]
    assert "audio" not in fake.asked[0].body


async def test_sound_that_is_no_base64(fake: Fake) -> None:
    fake.answers.append(Stream([audio(data="#"), DONE]))
    async with engine("speech_model", fake) as model:
        fault = await fault_of(model.respond(base.SpeechRequest(HELLO, "alloy")))
    assert fault.code == "invalid_engine_output"
