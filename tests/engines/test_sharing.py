"""Engines in a host process, as their stand-ins show them: both in this process, with a real socket between."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest

from vivavoce.engines import base, sharing
from vivavoce.engines.sharing import EngineBug, EngineHost, SharedSynthesizer, SharedTranscriber, is_heavy, stand_in

PATIENCE_S = 30.0
"""When a test hangs, not when it is slow."""


class Engine:
    name = "fake"
    version = "7"

    async def start(self) -> None: ...
    async def close(self) -> None: ...


class Counting(Engine):
    """Tells the options it was given and the bytes of every piece it hears."""

    capabilities = base.TranscriberCapabilities(sample_rate=16000, streaming=True, heavy=True)

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        try:
            self.began.set()
            yield base.TranscriptDelta(f"{options.language} {options.prompt}")
            async for piece in audio:
                if options.partials:
                    yield base.PartialTranscript("so far", len(piece) // 32)
                yield base.TranscriptDelta(f" {len(piece)}", (base.TokenLogprob("x", -0.5),))
            if self.fault is not None:
                raise self.fault
        finally:
            self.ended.set()


class Parrot(Engine):
    """Says the text back as bytes, a character at a time."""

    capabilities = base.SynthesizerCapabilities(sample_rate=24000, voices={"alloy": "a"}, heavy=True)

    def __init__(self) -> None:
        self.made = 0

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        for at, character in enumerate(request.text):
            self.made += 1
            yield base.SpeechChunk(character.encode() * 2, (base.WordTiming(at, 1, at * 10),))


@asynccontextmanager
async def hosted(path: Path) -> AsyncIterator[tuple[Counting, Parrot]]:
    transcriber, synthesizer = Counting(), Parrot()
    async with EngineHost({"transcriber a": transcriber, "synthesizer a": synthesizer}).serving(path):
        yield transcriber, synthesizer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engines"


def transcriber(path: Path, key: str = "transcriber a") -> SharedTranscriber:
    made = stand_in(Counting(), key, path)
    assert isinstance(made, SharedTranscriber)
    return made


def synthesizer(path: Path) -> SharedSynthesizer:
    made = stand_in(Parrot(), "synthesizer a", path)
    assert isinstance(made, SharedSynthesizer)
    return made


async def pieces(*sizes: int) -> AsyncGenerator[bytes, None]:
    for size in sizes:
        yield bytes(size)


async def endless(stop: asyncio.Event) -> AsyncGenerator[bytes, None]:
    yield bytes(10)
    await stop.wait()


async def heard(
    engine: SharedTranscriber, audio: AsyncIterator[bytes]
) -> list[base.TranscriptDelta | base.PartialTranscript]:
    async with asyncio.timeout(PATIENCE_S):
        return [delta async for delta in engine.transcribe(audio, base.TranscriptionOptions("en", "hints"))]


async def test_a_stand_in_is_what_the_engine_is(path: Path) -> None:
    made = transcriber(path)
    assert (made.name, made.version, made.capabilities) == ("fake", "7", Counting.capabilities)
    assert isinstance(made, base.Transcriber)
    assert isinstance(synthesizer(path), base.Synthesizer)
    assert is_heavy(Counting())
    assert is_heavy(Parrot())


async def test_recognition_goes_there_and_back(path: Path) -> None:
    async with hosted(path):
        engine = transcriber(path)
        await engine.start()
        assert await heard(engine, pieces(4, 100_000)) == [
            base.TranscriptDelta("en hints"),
            base.TranscriptDelta(" 4", (base.TokenLogprob("x", -0.5),)),
            base.TranscriptDelta(" 100000", (base.TokenLogprob("x", -0.5),)),
        ]


async def test_partial_words_come_back(path: Path) -> None:
    async with hosted(path), asyncio.timeout(PATIENCE_S):
        engine = transcriber(path)
        await engine.start()
        options = base.TranscriptionOptions(partials=True)
        assert [part async for part in engine.transcribe(pieces(320), options)] == [
            base.TranscriptDelta("None None"),
            base.PartialTranscript("so far", 10),
            base.TranscriptDelta(" 320", (base.TokenLogprob("x", -0.5),)),
        ]


async def test_speech_comes_back(path: Path) -> None:
    async with hosted(path):
        made = [chunk async for chunk in synthesizer(path).synthesize(base.SynthesisRequest("ab", "alloy", 1.5))]
        assert made == [
            base.SpeechChunk(b"aa", (base.WordTiming(0, 1, 0),)),
            base.SpeechChunk(b"bb", (base.WordTiming(1, 1, 10),)),
        ]


async def test_a_fault_is_the_engines_own(path: Path) -> None:
    async with hosted(path) as (engine, _):
        engine.fault = base.EngineError("engine_overloaded", "Busy.", type="rate_limit_error")
        with pytest.raises(base.EngineError) as raised:
            await heard(transcriber(path), pieces(4))
        fault = raised.value
        assert (fault.code, fault.message, fault.type) == ("engine_overloaded", "Busy.", "rate_limit_error")


async def test_a_bug_of_the_engine_is_told_by_its_type_and_keeps_its_words_to_itself(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted(path) as (engine, _):
        engine.fault = RuntimeError("what was said")
        with pytest.raises(EngineBug, match=r"^RuntimeError$"):
            await heard(transcriber(path), pieces(4))
        engine.fault = ExceptionGroup("what was said", [RuntimeError("what was said"), KeyError("what was said")])
        with pytest.raises(EngineBug, match=r"^RuntimeError, KeyError$"):
            await heard(transcriber(path), pieces(4))
        engine.fault = None
        assert len(await heard(transcriber(path), pieces(4))) == 2
    assert "transcriber a failed by a bug: RuntimeError" in caplog.text
    assert "what was said" not in caplog.text


async def test_leaving_early_ends_the_work_in_the_host(path: Path) -> None:
    async with hosted(path) as (engine, _):
        stop = asyncio.Event()
        deltas = transcriber(path).transcribe(endless(stop), base.TranscriptionOptions())
        async with asyncio.timeout(PATIENCE_S), aclosing(deltas):
            await anext(deltas)
            await deltas.aclose()
            await engine.ended.wait()


async def test_cancelling_the_reader_ends_the_work_in_the_host(path: Path) -> None:
    async with hosted(path) as (engine, _), asyncio.timeout(PATIENCE_S):
        work = asyncio.create_task(heard(transcriber(path), endless(asyncio.Event())))
        await engine.began.wait()
        work.cancel()
        await engine.ended.wait()
        await asyncio.wait([work])
        assert work.cancelled()


async def test_audio_that_breaks_breaks_the_job(path: Path) -> None:
    async def broken() -> AsyncGenerator[bytes, None]:
        yield bytes(4)
        raise KeyError("sound")

    async with hosted(path) as (engine, _):
        with pytest.raises(KeyError):
            await heard(transcriber(path), broken())
        async with asyncio.timeout(PATIENCE_S):
            await engine.ended.wait()


async def test_a_client_that_does_not_read_is_not_written_to(path: Path) -> None:
    async with hosted(path) as (_, parrot), asyncio.timeout(PATIENCE_S):
        speech = synthesizer(path).synthesize(base.SynthesisRequest("x" * 1_000_000, "alloy"))
        async with aclosing(speech):
            await anext(speech)
            before = -1
            while before != parrot.made:
                before = parrot.made
                for _ in range(20):
                    await asyncio.sleep(0)
            assert parrot.made < 100_000


async def test_the_end_of_the_host_fails_what_is_under_way(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(PATIENCE_S):
        async with hosted(path) as (engine, _):
            work = asyncio.create_task(heard(transcriber(path), endless(asyncio.Event())))
            await engine.began.wait()
        with pytest.raises(base.EngineError, match=re.escape("The process of the engine fake ended unexpectedly.")):
            await work
        assert engine.ended.is_set()
    assert not caplog.records


async def test_without_a_host_the_engine_is_unavailable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "START_S", 0.0)
    with pytest.raises(base.EngineError) as raised:
        await transcriber(path).start()
    assert raised.value.code == "engine_unavailable"


async def test_a_host_without_the_engine_says_so(path: Path) -> None:
    async with hosted(path):
        with pytest.raises(base.EngineError) as raised:
            await transcriber(path, "transcriber b").start()
        assert raised.value.code == "engine_unavailable"


async def test_nonsense_is_hung_up_on(path: Path) -> None:
    async with hosted(path), asyncio.timeout(PATIENCE_S):
        for nonsense in (b"\xff" * 64, b"\x00\x00\x00\x00\x09", b"\x01\x00\x00\x00\x01\xc1"):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(nonsense)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert len(await heard(transcriber(path), pieces(4))) == 2


class Deaf(Counting):
    """Takes no sound, and lets its work be ended."""

    async def transcribe(
        self, audio: AsyncIterator[bytes], options: base.TranscriptionOptions
    ) -> AsyncGenerator[base.TranscriptDelta | base.PartialTranscript, None]:
        try:
            self.began.set()
            await asyncio.Event().wait()
            yield base.TranscriptDelta("")
        finally:
            self.ended.set()


async def test_a_client_with_sound_in_plenty_may_still_hang_up(path: Path) -> None:
    """And sends no more than the engine's credit allows."""
    sent = 0

    async def plenty() -> AsyncGenerator[bytes, None]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(320)

    engine = Deaf()
    async with EngineHost({"transcriber a": engine}).serving(path), asyncio.timeout(PATIENCE_S):
        work = asyncio.create_task(heard(transcriber(path), plenty()))
        await engine.began.wait()
        before = -1
        while before != sent:
            before = sent
            for _ in range(50):
                await asyncio.sleep(0)
        assert sent <= 257
        work.cancel()
        await engine.ended.wait()
        await asyncio.wait([work])


async def test_long_sound_passes_with_credit(path: Path) -> None:
    async with hosted(path):
        assert len(await heard(transcriber(path), pieces(*[2] * 2000))) == 2001


async def test_who_sends_without_credit_is_hung_up_on(path: Path) -> None:
    engine = Deaf()
    async with EngineHost({"transcriber a": engine}).serving(path), asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_unix_connection(path)
        request = sharing._Request("transcriber a", transcription=base.TranscriptionOptions())
        await sharing._send(writer, sharing._Kind.REQUEST, msgspec.msgpack.encode(request))
        with suppress(sharing._Ended):
            for _ in range(1000):
                await sharing._send(writer, sharing._Kind.AUDIO, bytes(2))
        with suppress(ConnectionError):
            await reader.read()
        await engine.ended.wait()
        writer.close()


class Moody(Counting):
    working = True


async def until(engine: SharedTranscriber, works: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while engine.working is not works:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_stand_in_knows_whether_the_engine_works(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the host is gone it does not; then it does again."""
    monkeypatch.setattr(sharing, "_LOOK_S", 0.01)
    made, engine = transcriber(path), Moody()
    assert isinstance(made, base.Watched)
    await until(made, False)
    async with EngineHost({"transcriber a": engine}).serving(path):
        await made.start()
        await until(made, True)
        engine.working = False
        await until(made, False)
        engine.working = True
        await until(made, True)
    await until(made, False)
    async with hosted(path):
        await until(made, True)
        await made.close()
        await until(made, False)
