"""The cascade on engines that do one thing at a time, and say when: what is made, sent and held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest

from vivavoce.audio.formats import TICKS_PER_MS, AudioFormat
from vivavoce.core import contract as c
from vivavoce.core.alignment import Alignment
from vivavoce.core.context import Entry, ResponsePlan
from vivavoce.engines import base
from vivavoce.runtime.cascade import Cascade
from vivavoce.testing import virtual_time
from vivavoce.wire.session_config import VOICES

RATE = 24_000
MS = 48
"""Bytes of a millisecond."""
ID = "resp_1"


def plan(speed: float = 1.0, *, speaks: bool = True) -> ResponsePlan:
    return ResponsePlan(
        response_id=ID, session_id="sess_1", in_band=True, instructions="", context=(), voice="alloy",
        modalities=("text", "audio") if speaks else ("text",), output_format=AudioFormat.PCM16, tools=(),
        tool_choice="auto", temperature=0.8, max_output_tokens=None, speed=speed,
    )  # fmt: skip


class Model:
    """Says ``deltas``; a number is a pause in seconds."""

    name = version = "model"
    capabilities = base.LanguageModelCapabilities()

    def __init__(self, *deltas: base.ModelDelta | float | str) -> None:
        self.deltas = deltas

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def generate(self, request: base.GenerationRequest) -> AsyncGenerator[base.ModelDelta, None]:
        for delta in self.deltas:
            match delta:
                case float():
                    await asyncio.sleep(delta)
                case str():
                    yield base.TextDelta(delta)
                case _:
                    yield delta


Make = Callable[[base.SynthesisRequest], AsyncGenerator[base.SpeechChunk, None]]


class Voice:
    """Makes each clause by ``make``, and notes when it began and ended."""

    name = version = "voice"

    def __init__(self, make: Make, log: list[str], **capabilities: Any) -> None:
        self.capabilities = base.SynthesizerCapabilities(RATE, voices=dict.fromkeys(VOICES, "v"), **capabilities)
        self.requests: list[base.SynthesisRequest] = []
        self.running = 0
        self._make = make
        self._log = log

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def synthesize(self, request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        self.requests.append(request)
        self.running += 1
        self._log.append(f"begin {request.text}")
        try:
            async for chunk in self._make(request):
                yield chunk
            self._log.append(f"end {request.text}")
        finally:
            self.running -= 1


def sound(ms: int, *words: tuple[int, int, int]) -> base.SpeechChunk:
    return base.SpeechChunk(bytes(ms * MS), tuple(base.WordTiming(*word) for word in words))


async def second(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
    """A second of sound after a tenth of one."""
    await asyncio.sleep(0.1)
    yield sound(1000)


class Room:
    """An outbox; while it is crowded, whoever makes output waits."""

    full = False

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()

    @property
    def crowded(self) -> bool:
        return not self.free.is_set()

    def send(self, frame: bytes) -> None: ...
    def close(self, code: int, reason: str) -> None: ...

    async def drained(self) -> None:
        await self.free.wait()


class Stage:
    """Runs one response and writes down what is reported, beside what its voice notes."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.reports: list[c.Report] = []
        self.room = Room()
        self.alignment = Alignment()
        self.text = ""
        self.ms = 0

    def report(self, report: c.Report) -> None:
        self.reports.append(report)
        match report:
            case c.TextProduced():
                self.text += report.text
                self.log.append(f"text {report.text}")
            case c.AudioProduced():
                self.ms += len(report.audio) // MS
                self.alignment.add(report.marks)
                self.log.append(f"sound {self.ms}")
            case c.CallStarted():
                self.log.append(f"call {report.name}")
            case c.ResponseFinished():
                self.log.append("finished")

    def cascade(self, model: Model, voice: Voice, of: ResponsePlan | None = None) -> Cascade:
        async def words(entry: Entry, index: int) -> str:
            raise AssertionError

        return Cascade(
            of or plan(), language_model=model, synthesizer=voice, words=words, report=self.report, outbox=self.room
        )

    def heard(self, ms: int) -> str:
        return self.alignment.heard(self.text, ms * TICKS_PER_MS)


def play(main: Callable[[Stage], Coroutine[Any, Any, None]]) -> Stage:
    """Run it on virtual time that goes on whenever nothing else does."""

    async def body() -> Stage:
        stage = Stage()
        task = asyncio.create_task(main(stage))
        for _ in range(3000):
            for _ in range(30):
                await asyncio.sleep(0)
            if task.done():
                break
            virtual_time.advance(0.01)
        await task
        return stage

    return virtual_time.run(body())


def kinds(log: list[str], *names: str) -> list[str]:
    return [entry for entry in log if entry.split()[0] in names]


def test_the_next_clause_is_made_while_the_last_is_sent() -> None:
    async def main(stage: Stage) -> None:
        voice = Voice(second, stage.log)
        run = asyncio.create_task(stage.cascade(Model("One. Two. Three. Four. "), voice).run())
        await asyncio.sleep(0.05)
        stage.room.free.clear()
        await asyncio.sleep(1.0)
        # The client takes nothing: the clause that is its turn is made, and one ahead, no more.
        assert kinds(stage.log, "begin", "end") == ["begin One.", "end One.", "begin Two.", "end Two."]
        assert kinds(stage.log, "sound") == []
        stage.room.free.set()
        await run

    log = play(main).log
    assert kinds(log, "sound")[-1] == "sound 4000"
    assert log.index("begin Three.") > log.index("sound 940")
    assert log.index("end Two.") < log.index("sound 40")
    assert log[-1] == "finished"


def test_clauses_come_in_order_however_many_are_made_at_once() -> None:
    async def make(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        await asyncio.sleep({"One.": 0.5, "Two.": 0.1, "Three.": 0.3}.get(request.text, 0.1))
        yield sound({"One.": 100, "Two.": 200, "Three.": 400}.get(request.text, 800))

    async def main(stage: Stage) -> None:
        voice = Voice(make, stage.log, clauses_at_once=2)
        await stage.cascade(Model("One. Two. Three. Four."), voice).run()

    stage = play(main)
    assert kinds(stage.log, "begin", "end") == [
        "begin One.", "begin Two.", "end Two.", "begin Three.", "end Three.", "end One.", "begin Four.", "end Four."
    ]  # fmt: skip
    assert [stage.heard(ms) for ms in (100, 300, 700, 1500)] == [
        "One.", "One. Two.", "One. Two. Three.", "One. Two. Three. Four."
    ]  # fmt: skip


def test_one_at_a_time_is_one_at_a_time() -> None:
    async def main(stage: Stage) -> None:
        await stage.cascade(Model("One. Two. Three."), Voice(second, stage.log)).run()

    log = play(main).log
    assert kinds(log, "begin", "end") == [
        f"{what} {w}." for w in ("One", "Two", "Three") for what in ("begin", "end")
    ]


def test_speech_starts_with_the_first_clause() -> None:
    async def main(stage: Stage) -> None:
        await stage.cascade(Model("Hello. ", 5.0, "There.", 5.0), Voice(second, stage.log)).run()

    log = play(main).log
    assert log.index("sound 1000") < log.index("text There.")


def test_words_go_before_their_sound_and_not_far() -> None:
    """A model that hands over its answer at once waits with it, as one does that speaks word by word."""
    sentences = [f"Number {n}." for n in range(20)]

    async def main(stage: Stage) -> None:
        await stage.cascade(Model(" ".join(sentences)), Voice(second, stage.log)).run()

    log = play(main).log
    told = spoken = 0
    for entry in log:
        told += entry.count("Number") if entry.startswith("text") else 0
        spoken += entry.startswith("begin")
        assert spoken <= told <= spoken + 7
    assert "".join(entry[5:] for entry in kinds(log, "text")) == " ".join(sentences)
    assert spoken == 20


def test_a_short_answer_is_told_as_it_comes() -> None:
    async def main(stage: Stage) -> None:
        await stage.cascade(Model("One. Two", ". Three."), Voice(second, stage.log)).run()

    assert kinds(play(main).log, "text") == ["text One. Two", "text . Three."]


def test_the_end_of_a_clause_does_not_wait_for_the_next() -> None:
    async def make(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        yield sound(170)

    async def main(stage: Stage) -> None:
        await stage.cascade(Model("Hello. ", 5.0, "There."), Voice(make, stage.log)).run()

    log = play(main).log
    assert kinds(log[: log.index("text There.")], "sound") == ["sound 40", "sound 140", "sound 170"]


def test_a_call_waits_for_the_message_and_the_next_one_begins_anew() -> None:
    async def main(stage: Stage) -> None:
        model = Model("# One. `x", base.ToolCallStart("look"), base.ToolArgumentsDelta("{}"), "# Two.")
        await stage.cascade(model, Voice(second, stage.log)).run()

    stage = play(main)
    log = stage.log
    assert kinds(log, "begin", "call") == ["begin One.", "begin x", "call look", "begin Two."]
    assert log.index("sound 2000") < log.index("call look")
    marks = [mark for report in stage.reports if isinstance(report, c.AudioProduced) for mark in report.marks]
    assert [(mark.tick // TICKS_PER_MS, mark.chars) for mark in marks] == [(1000, 6), (2000, 9), (1000, 6)]


def test_a_clause_that_fails_does_so_in_its_turn() -> None:
    async def make(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        if request.text == "Two.":
            raise base.EngineError("no_voice", "It has lost its voice.")
        yield sound(1000)
        await asyncio.sleep(1.0)
        yield sound(1000)

    async def main(stage: Stage) -> None:
        voice = Voice(make, stage.log, clauses_at_once=2)
        with pytest.raises(ExceptionGroup) as raised:
            await stage.cascade(Model("One. Two. Three."), voice).run()
        assert raised.group_contains(base.EngineError, match="lost its voice")
        assert voice.running == 0

    assert kinds(play(main).log, "sound")[-1] == "sound 2000"


def test_an_engine_that_cancels_itself_does_not_hang_the_response() -> None:
    async def make(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        yield sound(100)
        raise asyncio.CancelledError

    async def main(stage: Stage) -> None:
        with pytest.raises(ExceptionGroup) as raised:
            await stage.cascade(Model("One. Two."), Voice(make, stage.log)).run()
        assert raised.group_contains(RuntimeError)

    play(main)


def test_whoever_stops_the_response_stops_all_that_is_made_for_it() -> None:
    async def main(stage: Stage) -> None:
        tasks = asyncio.all_tasks()
        voice = Voice(second, stage.log, clauses_at_once=3)
        run = asyncio.create_task(stage.cascade(Model("One. Two. Three. Four. ", 9.0), voice).run())
        await asyncio.sleep(0.05)
        assert voice.running == 3
        run.cancel()
        await asyncio.wait([run])
        assert voice.running == 0
        assert asyncio.all_tasks() == tasks

    play(main)


def test_a_slow_reader_holds_no_more_than_half_a_minute_of_each_clause() -> None:
    made = 0

    async def make(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        nonlocal made
        for _ in range(600):
            made += 100
            yield sound(100)

    async def main(stage: Stage) -> None:
        stage.room.free.clear()
        voice = Voice(make, stage.log)
        cascade = stage.cascade(Model("One. Two. Three."), voice)
        stage.room.drained, drained = cascade_drained(stage), stage.room.drained  # type: ignore[method-assign]
        run = asyncio.create_task(cascade.run())
        await asyncio.sleep(1.0)
        assert 30_000 < made <= 31_000
        stage.room.drained = drained  # type: ignore[method-assign]
        stage.room.free.set()
        await run
        assert made == 180_000

    assert kinds(play(main).log, "sound")[-1] == "sound 180000"


def cascade_drained(stage: Stage) -> Callable[[], Coroutine[Any, Any, None]]:
    """Words get through, sound does not."""

    async def drained() -> None:
        if any(entry.startswith("begin") for entry in stage.log):
            await stage.room.free.wait()

    return drained


# ----------------------------------------------------------------------------------------- words and their places


def test_the_timing_of_words_reaches_the_transcript() -> None:
    text = "It is **very** good. See [this](http://a.b) 🙂 now."

    async def make(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        words = request.text.split(" ")
        at = 0
        for n, word in enumerate(words):
            yield sound(200, (at, len(word), n * 200)) if word else sound(200)
            at += len(word) + 1

    async def main(stage: Stage) -> None:
        voice = Voice(make, stage.log, word_timings=True)
        await stage.cascade(Model(*text), voice).run()
        assert [request.text for request in voice.requests] == ["It is very good.", "See this  now."]

    stage = play(main)
    assert stage.text == text
    heard = {ms: stage.heard(ms) for ms in (0, 150, 350, 580, 800, 990, 1200, 1700)}
    assert heard == {
        0: "", 150: "It", 350: "It is", 580: "It is **very**", 800: "It is **very** good.",
        990: "It is **very** good. See", 1200: "It is **very** good. See [this](http://a.b)", 1700: text,
    }  # fmt: skip


def test_without_timings_clauses_are_the_marks() -> None:
    async def make(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        yield sound(1000 if request.text == "Hello there." else 3000)

    async def main(stage: Stage) -> None:
        await stage.cascade(Model("Hello there. I am here."), Voice(make, stage.log)).run()

    stage = play(main)
    assert [stage.heard(ms) for ms in (500, 1000, 2500, 4000)] == [
        "Hello", "Hello there.", "Hello there. I am", "Hello there. I am here."
    ]  # fmt: skip


def test_an_engine_that_tells_nonsense_of_its_words_harms_nobody() -> None:
    async def make(request: base.SynthesisRequest) -> AsyncGenerator[base.SpeechChunk, None]:
        yield sound(500, (10**9, 3, 100), (-5, 3, -100), (0, 1, 10**12), (2, 1, 200))

    async def main(stage: Stage) -> None:
        await stage.cascade(Model("Hello there."), Voice(make, stage.log)).run()

    stage = play(main)
    assert stage.heard(500) == "Hello there."


def test_the_voice_and_its_speed_are_passed_on() -> None:
    async def main(stage: Stage) -> None:
        voice = Voice(second, stage.log)
        await stage.cascade(Model("Hello."), voice, plan(speed=1.25)).run()
        assert voice.requests == [base.SynthesisRequest("Hello.", "alloy", 1.25, "sess_1")]

    play(main)


@pytest.mark.parametrize(("reads", "spoken"), [(True, "I have 3."), (False, "I have three.")])
def test_a_voice_that_cannot_read_numbers_gets_words(reads: bool, spoken: str) -> None:
    async def main(stage: Stage) -> None:
        voice = Voice(second, stage.log, reads_numbers=reads)
        await stage.cascade(Model("I have 3."), voice).run()
        assert [request.text for request in voice.requests] == [spoken]
        assert stage.text == "I have 3."

    play(main)


def test_what_has_nothing_to_say_costs_no_synthesis() -> None:
    async def main(stage: Stage) -> None:
        voice = Voice(second, stage.log)
        await stage.cascade(Model("So:\n```\nx = 1\n```\n🙂\nDone."), voice).run()
        assert [request.text for request in voice.requests] == ["So:", "Done."]

    stage = play(main)
    assert stage.heard(1000).startswith("So:")
    assert stage.heard(2000) == stage.text


def test_a_response_of_text_is_not_spoken() -> None:
    async def main(stage: Stage) -> None:
        await stage.cascade(Model("One. Two."), Voice(second, stage.log), plan(speaks=False)).run()

    assert play(main).log == ["text One. Two.", "finished"]
