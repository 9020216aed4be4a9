"""Random walks of a session: whatever clients and engines do, in whatever order, the laws of the protocol hold."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from session_watcher import Watcher

from vivavoce.audio.formats import AudioFormat
from vivavoce.core import contract as c
from vivavoce.core import turns
from vivavoce.core.identity import Identity
from vivavoce.core.session import Phase, Session
from vivavoce.wire import client_events as ce
from vivavoce.wire import errors, items
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc

FRAME: Final = turns.FRAME_TICKS
LIMITS: Final = (se.RateLimit(name="tokens", limit=9, remaining=8, reset_seconds=1.0),)
TOOLS: Final = (sc.FunctionTool("f"), sc.FunctionTool("g", "does", {"type": "object"}))
LIFETIME_S: Final = 1800

VADS: Final = st.one_of(
    st.none(),
    st.builds(
        sc.ServerVad,
        threshold=st.sampled_from([0.3, 0.5]),
        prefix_padding_ms=st.sampled_from([0, 20, 300, 2000]),
        silence_duration_ms=st.sampled_from([0, 64, 200]),
        create_response=st.booleans(),
        interrupt_response=st.booleans(),
    ),
    st.builds(
        sc.SemanticVad,
        eagerness=st.sampled_from(["low", "high"]),
        create_response=st.booleans(),
        interrupt_response=st.booleans(),
    ),
)
PATCHES: Final = st.one_of(
    st.builds(sc.SessionPatch, turn_detection=VADS),
    st.builds(sc.SessionPatch, turn_detection=VADS),
    st.builds(
        sc.SessionPatch,
        input_audio_format=st.sampled_from(sc.AUDIO_FORMATS),
        output_audio_format=st.sampled_from(sc.AUDIO_FORMATS),
    ),
    st.builds(sc.SessionPatch, voice=st.sampled_from(sc.VOICES), model=st.sampled_from(["m", "other"])),
    st.builds(
        sc.SessionPatch,
        instructions=st.sampled_from(["", "Be kind. " * 20]),
        tools=st.sampled_from([(), TOOLS]),
        tool_choice=st.sampled_from(["auto", sc.NamedFunction("f")]),
    ),
    st.builds(sc.SessionPatch, input_audio_transcription=st.sampled_from([None, sc.Transcription()])),
    st.builds(sc.SessionPatch, modalities=st.sampled_from([("text",), ("audio", "text")])),
    st.builds(sc.SessionPatch, max_output_tokens=st.sampled_from([None, 1, 5, 40])),
)
ITEM_IDS: Final = ["", "a", "b", "c", "root"]
ITEMS: Final = st.one_of(
    st.builds(
        items.MessageItem,
        id=st.sampled_from(ITEM_IDS),
        role=st.just("user"),
        content=st.sampled_from(
            [
                (items.InputTextPart("hello there"),),
                (items.InputAudioPart(audio=bytes(960)),),
                (items.InputAudioPart(transcript="hi"), items.InputTextPart("you")),
                (items.InputAudioPart(audio=b"\0\0\0"),),
                (items.InputAudioPart(undecodable=True),),
            ]
        ),
    ),
    st.builds(
        items.FunctionCallItem,
        id=st.sampled_from(ITEM_IDS),
        call_id=st.sampled_from(["", "call_1"]),
        name=st.just("f"),
        arguments=st.just("{}"),
    ),
    st.builds(
        items.FunctionCallOutputItem,
        id=st.sampled_from(ITEM_IDS),
        call_id=st.sampled_from(["call_1", "call_2"]),
        output=st.just("sunny"),
    ),
)
OPTIONS: Final = st.builds(
    sc.ResponseOptions,
    conversation=st.sampled_from(["auto", "auto", "none"]),
    cancel_previous=st.sampled_from([False, False, False, True]),
    max_output_tokens=st.sampled_from([None, 3, 30]),
    modalities=st.sampled_from([("text",), ("audio", "text")]),
    voice=st.sampled_from(["alloy", "alloy", "echo"]),
    metadata=st.sampled_from([None, {"topic": "x"}]),
    tool_choice=st.sampled_from(["auto", "auto", sc.NamedFunction("nobody")]),
    input=st.none()
    | st.lists(ITEMS | st.builds(items.ItemReference, id=st.sampled_from(["a", "nobody"])), max_size=2).map(tuple),
)


class SessionWalk(RuleBasedStateMachine):
    @initialize(
        vad=VADS,
        transcribes=st.booleans(),
        output_format=st.sampled_from(sc.AUDIO_FORMATS),
        seed=st.binary(max_size=4),
        keeps=st.booleans(),
        speculates=st.booleans(),
    )
    def start(
        self,
        vad: sc.TurnDetection | None,
        transcribes: bool,
        output_format: Any,
        seed: bytes,
        keeps: bool,
        speculates: bool,
    ) -> None:
        config = sc.SessionConfig(
            turn_detection=vad,
            tools=TOOLS,
            output_audio_format=output_format,
            input_audio_transcription=sc.Transcription() if transcribes else None,
        )
        identity = Identity(
            model="m", created_at=0, lifetime_s=LIFETIME_S, seed=seed, keeps_audio=keeps, speculates=speculates
        )
        self.session = Session(identity, config, now=0.0)
        self.watcher = Watcher()
        self.clock = 0
        self.next_frame = FRAME
        self.open_item_ms: dict[str, int] = {}
        self.watcher.read(self.session.open())

    # --------------------------------------------------------------------------------------------- plumbing

    def digest(self) -> Any:
        """All that a session knows, but for the counter of its ids."""
        session = self.session
        session.responses.sync()
        responses = session.responses
        runs = [responses.default, *responses.apart.values()]
        return (
            session.phase,
            session.config,
            session.turn,
            session.conversation.snapshot(),
            (session._audio.clock, session._audio.uncommitted_from, session._audio.kept_from),
            dict(session._recognitions),
            session._owed,
            session._speculator.made,
            session._fed_until,
            [
                run and (run.plan, run.phase, run.usage, list(run.output.done), repr(run.output.open))
                for run in runs
            ],
        )

    def receive(self, event: c.Input, now: float = 1.0) -> list[c.Effect]:
        self.watcher.place = event.previous_item_id if isinstance(event, ce.ItemCreate) else None
        was_closed = self.session.phase is not Phase.OPEN
        before = self.digest()
        effects = self.session.receive(event, now)
        if was_closed:
            assert effects == []
        refusals = [e for e in effects if isinstance(e, c.Emit) and isinstance(e.event, se.ErrorRaised)]
        if refusals and not isinstance(event, c.TimePassed):
            assert effects == refusals
            assert len(refusals) == 1
            assert self.digest() == before, "a refused event has changed something"
        if any(isinstance(effect, c.ResetVad) for effect in effects):
            self.next_frame = (self.clock // FRAME + 1) * FRAME
        self.watcher.read(effects)
        self.watcher.heard_whole({entry.item.id: entry for entry in self.session.conversation})
        return effects

    def any_response(self, data: Any) -> str:
        names = [*self.watcher.running, *sorted(self.watcher.ended), "resp_nobody"]
        return str(data.draw(st.sampled_from(names)))

    def any_item(self, data: Any) -> str:
        names = [*self.watcher.conversation, *sorted(self.watcher.deleted)[:2], self.watcher.talking or "nobody"]
        return str(data.draw(st.sampled_from(names)))

    # ----------------------------------------------------------------------------------------- the client

    @rule(patch=PATCHES)
    def update(self, patch: sc.SessionPatch) -> None:
        was_off = self.session.config.turn_detection is None
        self.receive(ce.SessionUpdate(session=patch, event_id="e1"))
        if was_off and self.session.config.turn_detection is not None:
            self.next_frame = (self.clock // FRAME + 1) * FRAME

    @rule(ms=st.sampled_from([1, 20, 100, 640]), fault=st.sampled_from(["", "", "", "odd", "empty", "undecodable"]))
    def append(self, ms: int, fault: str) -> None:
        fmt = AudioFormat(self.session.config.input_audio_format)
        audio = bytes([ms % 251]) * (fmt.bytes_per_ms * ms)
        if fault == "odd" and fmt is AudioFormat.PCM16:
            self.receive(ce.InputAudioAppend(audio=audio[1:]))
        elif fault in ("empty", "undecodable"):
            self.receive(ce.InputAudioAppend(audio=b"", undecodable=fault == "undecodable"))
        else:
            closed = self.session.phase is not Phase.OPEN
            effects = self.receive(ce.InputAudioAppend(audio=audio))
            fed = [effect for effect in effects if isinstance(effect, c.FeedVad)]
            listens = self.session.config.turn_detection is not None and not closed
            assert fed == ([c.FeedVad(self.clock, fmt, audio)] if listens else [])
            self.clock += 0 if closed else ms * 24

    @rule()
    def commit(self) -> None:
        self.receive(ce.InputAudioCommit())

    @rule()
    def clear(self) -> None:
        self.receive(ce.InputAudioClear())
        assert self.watcher.talking is None

    @rule(item=ITEMS, previous=st.none() | st.sampled_from(["root", "a", "nobody"]))
    def create(self, item: items.Item, previous: str | None) -> None:
        self.receive(ce.ItemCreate(item=item, previous_item_id=previous, event_id="e2"))

    @rule(data=st.data())
    def create_with_an_id_in_use(self, data: Any) -> None:
        item_id = self.any_item(data)
        item = items.MessageItem(item_id, "system", (items.InputTextPart("x"),))
        taken = (
            item_id in self.watcher.conversation
            or item_id == self.watcher.talking
            or item_id == self.session.responses.open_item_id
        )
        effects = self.receive(ce.ItemCreate(item=item))
        if self.session.phase is Phase.OPEN:
            assert isinstance(effects[0], c.Emit)
            assert isinstance(effects[0].event, se.ErrorRaised) == taken

    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        self.receive(ce.ItemDelete(item_id=self.any_item(data)))

    @rule(data=st.data(), index=st.integers(0, 1), ms=st.sampled_from([0, 10, 40, 2000]))
    def truncate(self, data: Any, index: int, ms: int) -> None:
        self.receive(ce.ItemTruncate(item_id=self.any_item(data), content_index=index, audio_end_ms=ms))

    @rule(data=st.data())
    def retrieve(self, data: Any) -> None:
        item_id = self.any_item(data)
        effects = self.receive(ce.ItemRetrieve(item_id=item_id))
        if self.session.phase is Phase.OPEN and item_id in self.watcher.conversation:
            assert [type(effect) for effect in effects] == [c.Retrieve]

    @rule(options=OPTIONS)
    def respond(self, options: sc.ResponseOptions) -> None:
        self.receive(ce.ResponseCreate(options=options, event_id="e3"))

    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        response_id = data.draw(st.none() | st.just(self.any_response(data)))
        self.receive(ce.ResponseCancel(response_id=response_id))
        if response_id is not None:
            assert response_id not in self.watcher.running

    @rule()
    def send_nonsense(self) -> None:
        body = errors.missing_type().body(None)
        effects = self.receive(ce.Rejected(error=body))
        assert effects == ([c.Emit(se.ErrorRaised(body))] if self.session.phase is Phase.OPEN else [])

    # ---------------------------------------------------------------------------------------- the engines

    @precondition(lambda self: self.next_frame <= self.clock)
    @rule(probability=st.sampled_from([0.0, 0.0, 0.32, 0.9]), frames=st.integers(1, 12))
    def hear(self, probability: float, frames: int) -> None:
        for _ in range(frames):
            if self.next_frame <= self.clock and self.session.config.turn_detection is not None:
                frame = c.VadFrame(self.next_frame, probability)
                self.next_frame += FRAME
                self.receive(frame)

    @rule(voiced=st.integers(0, 4), silent=st.integers(0, 9))
    def talk(self, voiced: int, silent: int) -> None:
        """Somebody speaks, or goes on, and falls silent: more often than single frames would make it."""
        if self.session.config.turn_detection is None or self.session.phase is not Phase.OPEN:
            return
        self.append(32 * (voiced + silent + 1), "")
        ends = range(self.next_frame, self.clock + 1, FRAME)
        for heard, end in enumerate(ends):
            self.next_frame = end + FRAME
            self.receive(c.VadFrame(end, 0.9 if heard < voiced else 0.0))

    @rule(probability=st.sampled_from([0.0, 0.5, 1.0]), late=st.booleans())
    def judge(self, probability: float, late: bool) -> None:
        question = self.watcher.question
        if question is None:
            effects = self.receive(c.TurnJudged("item_gone", 0, probability))
            assert effects == []
        elif late:
            assert self.receive(c.TurnJudged(question.item_id, question.silent_from - FRAME, probability)) == []
        else:
            self.receive(c.TurnJudged(question.item_id, question.silent_from, probability))
            assert (self.watcher.question is None) == isinstance(self.session.turn, turns.Quiet)

    @rule()
    def vad_fails(self) -> None:
        self.receive(c.VadFailed())

    @rule(data=st.data(), how=st.sampled_from(["words", "part", "failure"]))
    def recognise(self, data: Any, how: str) -> None:
        names = [*sorted(self.watcher.finished_utterances), *self.watcher.conversation, "nobody"]
        item_id = data.draw(st.sampled_from(names))
        awaited = item_id in self.session._recognitions
        match how:
            case "words":
                effects = self.receive(c.Recognised(item_id, "said"))
            case "part":
                effects = self.receive(c.RecognitionDelta(item_id, "sa"))
            case _:
                effects = self.receive(c.RecognitionFailed(item_id, "down"))
        if not awaited:
            assert effects == []

    @rule(data=st.data(), grants=st.sampled_from([True, True, True, False]))
    def answer_quota(self, data: Any, grants: bool) -> None:
        response_id = self.any_response(data)
        known = response_id in self.watcher.running
        report = (
            c.QuotaGranted(response_id, LIMITS) if grants else c.QuotaDenied(response_id, "tokens", 1.5, LIMITS)
        )
        effects = self.receive(report)
        if not known:
            assert effects == []

    @rule(data=st.data(), product=st.sampled_from(["text", "text", "audio", "call", "arguments", "nothing"]))
    def produce(self, data: Any, product: str) -> None:
        response_id = self.any_response(data)
        run = self.watcher.running.get(response_id)
        if run is not None and run.plan is None:
            return  # not started yet, so no engine is at work
        if run is None:
            before = self.digest()
            for late in (
                c.TextProduced(response_id, "x"),
                c.AudioProduced(response_id, b"\0\0"),
                c.CallStarted(response_id, "f"),
                c.ArgumentsProduced(response_id, "x"),
                c.UsageReported(response_id, output_text=7),
                c.ResponseFinished(response_id),
                c.ResponseFailed(response_id, errors.internal_error()),
            ):
                assert self.receive(late) == []
            assert self.digest() == before
            return
        assert run.plan is not None
        match product:
            case "text":
                self.receive(
                    c.TextProduced(response_id, data.draw(st.sampled_from([" word", "one two three", "é"])))
                )
            case "audio" if run.plan.speaks:
                size = run.plan.output_format.bytes_per_ms * data.draw(st.sampled_from([1, 40, 250]))
                self.receive(c.AudioProduced(response_id, bytes(size)))
            case "call":
                self.receive(c.CallStarted(response_id, "f"))
            case "arguments":
                live = self.session.responses.default
                live = live if live and live.plan.response_id == response_id else None
                live = live or self.session.responses.apart[response_id]
                if type(live.output.open).__name__ == "OpenCall":
                    self.receive(c.ArgumentsProduced(response_id, '{"a"'))
            case _:
                assert self.receive(c.TextProduced(response_id, "")) == []
                assert self.receive(c.AudioProduced(response_id, b"")) == []

    @rule(data=st.data(), how=st.sampled_from(["stop", "stop", "max_output_tokens", "content_filter", "failed"]))
    def finish(self, data: Any, how: Any) -> None:
        response_id = self.any_response(data)
        report: c.Input
        if how == "failed":
            report = c.ResponseFailed(response_id, errors.internal_error())
        else:
            report = c.ResponseFinished(response_id, how)
        self.receive(report)
        assert response_id not in self.watcher.running

    @rule()
    def settle(self) -> None:
        self.receive(c.QuotaSettled(LIMITS))

    # -------------------------------------------------------------------------------------------- the end

    @rule()
    def wake_early(self) -> None:
        assert self.receive(c.TimePassed(), now=LIFETIME_S - 0.001) == []

    @rule(how=st.sampled_from(["go on"] * 20 + ["expire", "shut down"]))
    def end(self, how: str) -> None:
        open_before = self.session.phase is Phase.OPEN
        if how == "expire":
            effects = self.receive(c.TimePassed(), now=float(LIFETIME_S))
        elif how == "shut down":
            effects = self.receive(c.ShutDown(1011, "bug"))
        else:
            return
        assert self.session.phase is Phase.CLOSING
        if open_before:
            assert isinstance(effects[-1], c.Close)
            assert not self.session._recognitions

    # ---------------------------------------------------------------------------------------- always true

    @invariant()
    def the_conversation_is_what_was_told(self) -> None:
        assert [entry.item.id for entry in self.session.conversation] == self.watcher.conversation

    @invariant()
    def the_clock_is_all_that_was_appended(self) -> None:
        assert self.session._audio.clock == self.clock
        assert self.session._audio.kept_from <= self.clock
        assert self.session._audio.uncommitted_from <= self.clock

    @invariant()
    def what_runs_is_what_was_told(self) -> None:
        responses = self.session.responses
        running = {*responses.apart, *([responses.default.plan.response_id] if responses.default else [])}
        if self.session.phase is Phase.OPEN:
            assert running == set(self.watcher.running)
            assert self.session._owed is None or not responses.free, "a response is owed that could begin"
        else:
            assert not running

    @invariant()
    def what_is_speculated_is_what_was_asked_for(self) -> None:
        made, asked = self.session._speculator.made, self.watcher.speculation
        if made is not None:
            assert asked is not None
            assert asked.response_id == made.response_id
            owed = self.session._owed
            waits = owed is not None and owed.response_id == made.response_id
            assert waits or made.stands(
                self.session.turn, self.session.config, self.session.conversation.snapshot()
            )
        elif asked is not None:
            assert asked.response_id in self.watcher.running, "neither dropped nor begun"

    @invariant()
    def the_turn_is_what_was_told(self) -> None:
        turn = self.session.turn
        if self.session.phase is not Phase.OPEN:
            return
        speaks = isinstance(turn, turns.Speaking | turns.Hesitating)
        assert speaks == (self.watcher.talking is not None)
        assert isinstance(turn, turns.Off) == (self.session.config.turn_detection is None)


TestSessionWalk = SessionWalk.TestCase
TestSessionWalk.settings = settings(max_examples=250, stateful_step_count=40, report_multiple_bugs=False)
