"""Hostile clients: random events, right and wrong, of up to three clients at once, against the real server.

Beside each session stands a small model of it (:mod:`hostile_model`), and every frame that the server sends is
compared with what the model says must come: type, order, every key and value.

What is looked at, at every step:

* each client event is answered as the protocol says, by whole frames, and by nothing else;
* a planted fault is answered by one ``error`` with its code, ``param`` and ``event_id``, and changes nothing;
* ``event_id`` and all identifiers have their form and come once, over all sessions;
* a session never speaks of what belongs to another; what one does or breaks changes nothing for the others;
* brackets of a response nest and close, and deltas make the text; usage adds up, audio counts exactly;
* after the last client has gone, no task and no session is left.
"""

from __future__ import annotations

import base64
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

import hostile_faults
from hostile_matching import Frame, Ids, Limits, Mismatch, Ref, compare, shown
from hostile_model import EDITIONS, ZERO_BYTES, Model, Run, error
from hostile_record import Record
from hostile_stage import (
    INSTRUCTIONS,
    LIFETIME_S,
    MODEL,
    RATES,
    REQUESTS_PER_MINUTE,
    TOKENS_PER_MINUTE,
    Line,
    Stage,
)
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from vivavoce.audio.formats import AudioFormat
from vivavoce.engines import base
from vivavoce.testing.ledger import APPEND_MS, sound
from vivavoce.testing.pure_runner import run_pure
from vivavoce.testing.script import parse

_LIMITS: Final = Limits(REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE)
_LOUD: Final = 0.9
_MARGIN: Final = 0.08
"""Resampling smears G.711 by so much; a frame this close to a threshold could go either way."""
_LONG_LIMIT: Final = 1000
"""Tokens; the words of a response with at least so many are far from its end."""


@dataclass
class Tally:
    """What a run has done."""

    events: Counter[str] = field(default_factory=Counter)
    """Sent by clients: by type, ``(refused)`` where the answer had to be an error."""
    engines: int = 0
    """What engines were told to do."""
    frames: Counter[str] = field(default_factory=Counter)
    """Compared, by type."""
    sessions: int = 0
    conversations: int = 0
    """Rounds of a few sessions at once."""
    replayed: int = 0
    """Sessions that gave the same frames on the pure session."""


@dataclass
class Due:
    """One line of a script, and the frames that it causes."""

    line: str
    frames: list[Frame]


@dataclass(eq=False)
class Client:
    """A connection, the model of its session, and its record."""

    line: Line
    model: Model
    record: Record
    name: str
    waiting: list[str | bytes] = field(default_factory=list)
    """Frames to be sent with the next one that is."""
    due: list[Due] = field(default_factory=list)
    """What must come of them, and of what was done already."""
    age_s: int = 0


# ---------------------------------------------------------------------------------------------- what clients say

WORDS: Final = st.sampled_from(
    ["hello", "", "Guten Tag, w\u00fcrde", "\u65e5\u672c\u8a9e \U0001f600", '"\\\n\t\u0000\u2028', "x " * 300]
)
SPOKEN: Final = st.sampled_from(["hello ", "w\u00f6rld", '"\\\n', " \U0001f600", "one two three. "])
EVENT_IDS: Final = st.sampled_from(
    [None, "e1", "e1", "", "\u00e9v\u00e9nement", "longest", Ellipsis, Ellipsis, Ellipsis]
)
"""Ellipsis: without; ``longest``: 512 characters."""
ITEM_IDS: Final = st.sampled_from(
    [Ellipsis, Ellipsis, Ellipsis, Ellipsis, None, "a", "b", "c", "root", "\u00ef", "i" * 32]
)
PICKS: Final = st.sampled_from([-1, -2, 0, 1, 2, 3, 5, 8, "nobody", "root", "", "announced", "foreign", "open"])
"""A number is an item of the conversation."""
PLACES: Final = st.sampled_from(
    [Ellipsis] * 6 + [None] * 4 + [-1, 0, 1, 2, 5] * 2 + ["root", "nobody", "foreign", "open"]
)
VOICES: Final = st.sampled_from(["alloy", "alloy", "echo", "verse"])
FORMATS: Final = st.sampled_from(["pcm16", "pcm16", "g711_ulaw", "g711_alaw"])
TOKENS: Final = st.sampled_from(["inf", "inf", 1, 3, 20, 1000, 4096])
MODALITIES: Final = st.sampled_from([["text"], ["audio", "text"], ["text", "audio"]])
TOOLS: Final = st.sampled_from(
    [
        [],
        [{"type": "function", "name": "f"}],
        [
            {"type": "function", "name": "f", "description": None, "parameters": None},
            {
                "type": "function",
                "name": "g-2",
                "description": "does",
                "parameters": {"type": "object", "a": [1.5, {}]},
            },
        ],
    ]
)
CHOICES: Final = st.sampled_from(
    [
        "auto",
        "none",
        "required",
        {"type": "function", "name": "f"},
        {"type": "function", "function": {"name": "f"}},
        {"type": "function", "function": "g-2"},
    ]
)
VADS: Final = st.one_of(
    st.none(),
    st.just({"type": "none"}),
    st.just({"type": "server_vad"}),
    st.fixed_dictionaries(
        {"type": st.just("server_vad")},
        optional={
            "threshold": st.sampled_from([0.3, 0.5, 0.7, 0.0, 1]),
            "prefix_padding_ms": st.sampled_from([0, 20, 300, 2000]),
            "silence_duration_ms": st.sampled_from([0, 31, 64, 200, 500]),
            "create_response": st.booleans(),
        },
    ),
)
SESSIONS: Final = st.one_of(
    st.fixed_dictionaries({"turn_detection": VADS}),
    st.fixed_dictionaries({"turn_detection": VADS, "input_audio_format": FORMATS}),
    st.fixed_dictionaries(
        {"input_audio_transcription": st.sampled_from([None, {}, {"model": "whisper-1", "language": "de"}])}
    ),
    st.fixed_dictionaries({"output_audio_format": FORMATS, "modalities": MODALITIES}),
    st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from([MODEL, MODEL, "another"]),
            "modalities": MODALITIES,
            "instructions": WORDS,
            "voice": VOICES,
            "input_audio_format": FORMATS,
            "output_audio_format": FORMATS,
            "turn_detection": VADS,
            "tools": TOOLS,
            "tool_choice": CHOICES,
            "temperature": st.sampled_from([0.6, 1, 1.2, 0.7000000000000001]),
            "max_response_output_tokens": TOKENS,
        },
    ),
)
AUDIO: Final = st.sampled_from([1, 2, 3, 798, 800, 4798, 4800, 9602, "", "AAA", "AA=A", "not base64", "AAAA\n"])
"""A number: so many bytes of zero."""
PARTS: Final = st.one_of(
    st.fixed_dictionaries({"type": st.just("input_text"), "text": WORDS}),
    st.fixed_dictionaries(
        {"type": st.just("input_audio"), "audio": AUDIO}, optional={"transcript": st.none() | WORDS}
    ),
    st.fixed_dictionaries({"type": st.just("input_audio"), "transcript": WORDS}),
)
BEGINNINGS: Final[list[dict[str, Any]]] = [
    {},
    {"turn_detection": None},
    {"input_audio_transcription": {}},
    {"input_audio_transcription": {"model": "whisper-1"}, "turn_detection": None},
    {"modalities": ["text"], "input_audio_format": "g711_ulaw"},
    {"input_audio_format": "g711_alaw", "output_audio_format": "g711_ulaw", "input_audio_transcription": {}},
]
_ITEM_OPTIONS: Final[dict[str, Any]] = {
    "object": st.just("realtime.item"),
    "status": st.sampled_from(["completed", "incomplete", "in_progress"]),
}


def _texts(kind: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(st.fixed_dictionaries({"type": st.just(kind), "text": WORDS}), max_size=2)


def _message(role: str, content: st.SearchStrategy[list[dict[str, Any]]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"type": st.just("message"), "role": st.just(role), "content": content}, optional=_ITEM_OPTIONS
    )


ITEMS: Final = st.one_of(
    _message("user", st.lists(PARTS, max_size=3)),
    _message("system", _texts("input_text")),
    _message("assistant", _texts("text")),
    st.fixed_dictionaries(
        {"type": st.just("function_call"), "name": st.just("f"), "arguments": WORDS},
        optional={"call_id": st.sampled_from(["call_1", "call_2"]), **_ITEM_OPTIONS},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("function_call_output"),
            "call_id": st.sampled_from(["call_1", "call_1", "call_2", "nobody"]),
            "output": WORDS,
        },
        optional=_ITEM_OPTIONS,
    ),
)
CONTEXTS: Final = st.lists(
    ITEMS
    | st.fixed_dictionaries({"type": st.just("item_reference"), "id": PICKS})
    | st.fixed_dictionaries({"type": st.just("message"), "id": PICKS}),
    max_size=3,
)
RESPONSES: Final = st.one_of(
    st.just(Ellipsis),
    st.none(),
    st.fixed_dictionaries({"max_output_tokens": TOKENS}),
    st.fixed_dictionaries({"conversation": st.just("none")}, optional={"input": CONTEXTS}),
    st.fixed_dictionaries(
        {},
        optional={
            "conversation": st.sampled_from(["auto", "none"]),
            "commit": st.booleans(),
            "cancel_previous": st.booleans(),
            "modalities": MODALITIES,
            "instructions": st.none() | WORDS,
            "voice": VOICES,
            "output_audio_format": FORMATS,
            "tools": TOOLS,
            "tool_choice": CHOICES,
            "temperature": st.sampled_from([0.6, 1.2]),
            "max_output_tokens": TOKENS,
            "metadata": st.sampled_from([None, {}, {"topic": "x"}, {str(i): "v" * 512 for i in range(16)}]),
            "input": CONTEXTS,
        },
    ),
)
JUNK: Final = st.sampled_from(
    [
        (b"", "invalid_event", None),
        (b"\0", "invalid_event", None),
        (b'{"type":"input_audio_buffer.clear"}', "invalid_event", None),
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        ('{"type":"session.update",}', "invalid_json", None),
        ('{"type":"response.create"} x', "invalid_json", None),
        ("NaN", "invalid_json", None),
        ("deep", "invalid_json", None),
        ("[]", "invalid_event", None),
        ("null", "invalid_event", None),
        ('"session.update"', "invalid_event", None),
        ("{}", "invalid_event", None),
        ('{"type":null}', "invalid_event", None),
        ('{"type":7}', "invalid_type", "type"),
        ('{"type":""}', "invalid_value", "type"),
        ('{"type":"response.done"}', "invalid_value", "type"),
        ('{"type":"Session.Update","session":{}}', "invalid_value", "type"),
        ('{"type":"input_audio_buffer.commit","type":"nope"}', "invalid_value", "type"),
    ]
)
CUES: Final = st.one_of(
    st.tuples(st.sampled_from(["text", "text", "text", "call", "args"]), SPOKEN),
    st.tuples(st.just("audio"), st.sampled_from([1, 20, 49, 50, 130, 400])),
)
TOOL: Final = "get_weather"
WHO: Final = st.integers(0, 2)
SEND: Final = st.sampled_from([True, True, True, False])
"""False: the frame waits and is sent together with the next."""
SOUND_MS: Final = st.sampled_from([20, 32, 60, 100, 160, 224, 320, 500])


class Hostile(RuleBasedStateMachine):
    """The machine. ``stage`` is set by whoever runs it, and shared by its runs."""

    stage: ClassVar[Stage]
    tally: ClassVar[Tally] = Tally()
    deployments: ClassVar[tuple[str, ...]] = tuple(f"{name}.{rate}" for name in EDITIONS for rate in RATES)

    def __init__(self) -> None:
        super().__init__()
        self.clients: list[Client] = []
        self.ids = Ids()
        self.opened = 0

    # ------------------------------------------------------------------------------------------- coming and going

    @initialize(
        clients=st.lists(
            st.tuples(st.sampled_from(deployments), st.sampled_from(BEGINNINGS)), min_size=1, max_size=3
        )
    )
    def connect(self, clients: list[tuple[str, dict[str, Any]]]) -> None:
        for deployment, session in clients:
            self.clients.append(self.new_client(deployment))
            self.say(self.clients[-1], _event("session.update", Ellipsis, session=session), now=True)

    def new_client(self, deployment: str) -> Client:
        name, _, rate = deployment.partition(".")
        settings = {
            "profile": name,
            "instructions": json.dumps(INSTRUCTIONS),
            "quota": f"tokens={TOKENS_PER_MINUTE} requests={REQUESTS_PER_MINUTE}",
            "engine_rate": rate,
            "noise_reduction": "off",
        }
        self.opened += 1
        model = Model(EDITIONS[name], model=MODEL, instructions=INSTRUCTIONS, limits=_LIMITS)
        record = Record("Found by tests/hostile", settings)
        client = Client(self.stage.connect(deployment), model, record, f"session {self.opened}")
        self.tally.sessions += 1
        client.due.append(Due("# connected", model.greeting()))
        self.settle(client)
        return client

    def replace(self, client: Client, deployment: str) -> None:
        self.leave(client)
        self.clients[self.clients.index(client)] = self.new_client(deployment)

    def leave(self, client: Client) -> None:
        client.line.hang_up()
        self.replay(client)

    @rule(who=WHO, deployment=st.sampled_from(deployments), seconds=st.sampled_from([0, 0, 1, 30, 30, 600]))
    def time_passes(self, who: int, deployment: str, seconds: int) -> None:
        """Or, where none does, a client is gone in the middle of whatever was under way, and another comes."""
        if not seconds:
            client = self.clients[who % len(self.clients)]
            self.settle(client)
            self.replace(client, deployment)
            return
        self.settle_all()
        self.stage.pass_time(seconds)
        for client in list(self.clients):
            client.age_s += seconds
            client.due.append(Due(f"@ +{seconds}s", []))
            if client.age_s < LIFETIME_S:
                self.settle(client)
                continue
            message = f"Your session hit the maximum duration of {LIFETIME_S // 60} minutes."
            client.due[-1].frames = [error("session_expired", message, None, None)]
            self.compare(client, client.line.last_words())
            self.expect(client, client.line.closed == (1001, message), f"closed: {client.line.closed}")
            client.record.did(f'< closed 1001 "{message}"')
            self.replace(client, deployment)

    def teardown(self) -> None:
        try:
            # Hypothesis tears down after a failure too, which another must not hide.
            if sys.exc_info()[0] is None:
                self.settle_all()
                for client in self.clients:
                    self.leave(client)
                self.stage.all_left()
                self.tally.conversations += 1
        finally:
            for client in self.clients:
                client.line.hang_up()

    # --------------------------------------------------------------------------------------------- right events

    @rule(
        who=WHO,
        session=SESSIONS,
        event_id=EVENT_IDS,
        late=st.sampled_from(["", "", "interrupt", "interrupt", "speed", "null", "noise"]),
        value=st.booleans(),
        now=SEND,
    )
    def update(self, who: int, session: dict[str, Any], event_id: Any, late: str, value: bool, now: bool) -> None:
        """``late``: a field that not every profile knows."""
        client = self.clients[who % len(self.clients)]
        edition = client.model.edition
        vad = session.get("turn_detection")
        unknown = None
        if late == "interrupt" and vad is not None and vad["type"] == "server_vad":
            session = {**session, "turn_detection": {**vad, "interrupt_response": value}}
            unknown = None if edition.knows_interrupt else "session.turn_detection.interrupt_response"
        elif late == "speed":
            session = {**session, "speed": 0.25 if value else 1.5}
            unknown = None if edition.extras else "session.speed"
        elif late == "null":
            session = {**session, "include": None}
            unknown = None if edition.extras else "session.include"
        elif late == "noise":
            # The stage has no noise reduction: what a puppet hears must be what was said.
            session = {**session, "input_audio_noise_reduction": {"type": "far_field"} if value else None}
            unknown = None if edition.extras else "session.input_audio_noise_reduction"
        event = _event("session.update", event_id, session=session)
        if unknown:
            self.refused(client, event, "unknown_parameter", unknown, now=now)
        else:
            self.say(client, event, now=now)

    @rule(who=WHO, audio=AUDIO, event_id=EVENT_IDS, now=SEND)
    def append(self, who: int, audio: int | str, event_id: Any, now: bool) -> None:
        client = self.clients[who % len(self.clients)]
        model = client.model
        size = audio if isinstance(audio, int) else 0
        if model.detects and model.margin(size, ZERO_BYTES[model.format]) < _margin(model):
            return
        self.say(client, _event("input_audio_buffer.append", event_id, audio=_sound(audio)), now=now)

    @rule(who=WHO, stretches=st.lists(st.tuples(SOUND_MS, st.booleans()), min_size=1, max_size=4))
    def speak(self, who: int, stretches: list[tuple[int, bool]]) -> None:
        for ms, loud in stretches:
            self.make_sound(self.clients[who % len(self.clients)], ms, loud)

    def make_sound(self, client: Client, ms: int, loud: bool) -> None:
        """Sound, in appends of 20 ms, that nobody waits for until the last."""
        model, fmt = client.model, client.model.format
        data = sound(ms, _LOUD * loud, AudioFormat(fmt))
        if model.detects and model.margin(len(data), _LOUD * loud) < _margin(model):
            return
        self.settle(client)
        due = Due(f"> {'speech' if loud else 'silence'} {ms}ms", [])
        step = APPEND_MS * AudioFormat(fmt).bytes_per_ms
        for at in range(0, len(data), step):
            piece = data[at : at + step]
            audio = base64.b64encode(piece).decode()
            client.waiting.append(f'{{"type":"input_audio_buffer.append","audio":"{audio}"}}')
            due.frames += model.sound(len(piece), _LOUD * loud)
            self.tally.events["input_audio_buffer.append"] += 1
        client.due.append(due)
        self.settle(client, sound=model.detects)

    @rule(who=WHO, kind=st.sampled_from(["commit", "commit", "clear"]), event_id=EVENT_IDS, now=SEND)
    def commit_or_clear(self, who: int, kind: str, event_id: Any, now: bool) -> None:
        self.say(self.clients[who % len(self.clients)], _event(f"input_audio_buffer.{kind}", event_id), now=now)

    @rule(who=WHO, item=ITEMS, item_id=ITEM_IDS, place=PLACES, event_id=EVENT_IDS, now=SEND)
    def item_create(
        self, who: int, item: dict[str, Any], item_id: Any, place: Any, event_id: Any, now: bool
    ) -> None:
        client = self.clients[who % len(self.clients)]
        if item_id is not Ellipsis:
            item = {**item, "id": item_id}
        fields: dict[str, Any] = {}
        if place is not Ellipsis:
            fields = {"previous_item_id": None if place is None else self.pick(client, place)}
        if item_id == "b" and isinstance(place, str):
            # As its own predecessor.
            fields = {"previous_item_id": "b"}
        self.say(client, _event("conversation.item.create", event_id, item=item, **fields), now=now)

    @rule(
        who=WHO,
        kind=st.sampled_from(["delete", "delete", "retrieve", "retrieve", "retrieve"]),
        which=PICKS,
        event_id=EVENT_IDS,
        now=SEND,
    )
    def item_delete_or_retrieve(self, who: int, kind: str, which: Any, event_id: Any, now: bool) -> None:
        client = self.clients[who % len(self.clients)]
        event = _event(f"conversation.item.{kind}", event_id, item_id=self.pick(client, which))
        if kind == "retrieve" and not client.model.edition.extras:
            self.refused(client, event, "invalid_value", "type", now=now)
        else:
            self.say(client, event, now=now)

    @rule(
        who=WHO,
        which=PICKS | st.just("spoken") | st.just("spoken"),
        index=st.sampled_from([0, 0, 0, 0, 1, 10**9]),
        beyond=st.sampled_from([0, 1, -1, "half", "zero", 10**12]),
        event_id=EVENT_IDS,
        now=SEND,
    )
    def item_truncate(self, who: int, which: Any, index: int, beyond: Any, event_id: Any, now: bool) -> None:
        self.truncate(self.clients[who % len(self.clients)], which, index, beyond, event_id, now=now)

    def truncate(self, client: Client, which: Any, index: int, beyond: Any, event_id: Any, *, now: bool) -> None:
        """``beyond``: how many ms more than there are, or a part of them."""
        item_id = self.pick(client, which)
        item = client.model.find(item_id)
        have = item.spoken_ms if item else 0
        run = client.model.default
        if run is not None and run.open is not None and run.open.item is item and not run.open.item.truncated:
            have = run.open.ticks // 24
        end = {"half": have // 2, "zero": 0}.get(beyond) if isinstance(beyond, str) else max(0, have + beyond)
        fields = {"item_id": item_id, "content_index": index, "audio_end_ms": end}
        self.say(client, _event("conversation.item.truncate", event_id, **fields), now=now)

    @rule(who=WHO, response=RESPONSES, event_id=EVENT_IDS, now=SEND)
    def response_create(self, who: int, response: Any, event_id: Any, now: bool) -> None:
        client = self.clients[who % len(self.clients)]
        if response is Ellipsis:
            fields = {}
        else:
            fields = {"response": response}
            if response and "input" in response:
                context = [
                    {**one, "id": self.pick(client, one["id"])} if "id" in one else one for one in response["input"]
                ]
                # Without an id it refers to nothing, and its role is missed.
                context = [one for one in context if one["type"] != "message" or "role" in one or one["id"]]
                fields = {"response": {**response, "input": context}}
        self.say(client, _event("response.create", event_id, **fields), now=now)

    @rule(
        who=WHO,
        which=st.sampled_from([None, Ellipsis, "", "nobody", 0, 1, 2, "foreign"]),
        event_id=EVENT_IDS,
        now=SEND,
    )
    def response_cancel(self, who: int, which: Any, event_id: Any, now: bool) -> None:
        client = self.clients[who % len(self.clients)]
        fields = {}
        if which is not Ellipsis:
            response_id = which
            if isinstance(which, int):
                self.settle(client)
                runs = client.model.runs
                response_id = runs[which % len(runs)].id.value if runs else "resp_none"
            elif which == "foreign":
                self.settle_all()
                others = [run for other in self.clients if other is not client for run in other.model.runs]
                response_id = others[0].id.value if others else "resp_none"
            fields = {"response_id": response_id}
        event = _event("response.cancel", event_id, **fields)
        if fields and not client.model.edition.cancels_by_id:
            self.refused(client, event, "unknown_parameter", "response_id", now=now)
        else:
            self.say(client, event, now=now)

    # --------------------------------------------------------------------------------------------- wrong events

    @rule(
        who=WHO,
        event=st.one_of(
            SESSIONS.map(lambda session: {"type": "session.update", "session": session}),
            ITEMS.map(lambda item: {"type": "conversation.item.create", "item": item, "previous_item_id": None}),
            RESPONSES.filter(lambda response: response is not Ellipsis).map(
                lambda response: {"type": "response.create", "response": response}
            ),
            st.sampled_from(
                [
                    {"type": "input_audio_buffer.append", "audio": "AAAA"},
                    {"type": "input_audio_buffer.commit"},
                    {"type": "input_audio_buffer.clear"},
                    {"type": "conversation.item.delete", "item_id": "a"},
                    {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 0},
                    {"type": "response.cancel"},
                ]
            ),
        ),
        event_id=EVENT_IDS,
        first=st.integers(0, 400),
        second=st.none() | st.integers(0, 400),
        now=SEND,
    )
    def faulty(
        self, who: int, event: dict[str, Any], event_id: Any, first: int, second: int | None, now: bool
    ) -> None:
        """A valid event with a fault or two."""
        fields = {key: value for key, value in _without_picks(event).items() if key != "type"}
        planted = hostile_faults.plant(_event(event["type"], event_id, **fields), first, second)
        if planted is not None:
            event, fault = planted
            self.refused(self.clients[who % len(self.clients)], event, fault.code, fault.param, now=now)

    @rule(who=WHO, junk=JUNK, now=SEND)
    def junk(self, who: int, junk: tuple[str | bytes, str, str | None], now: bool) -> None:
        """What is no event at all."""
        data, code, param = junk
        client = self.clients[who % len(self.clients)]
        self.tally.events["no event (refused)"] += 1
        data = "[" * 100_000 if data == "deep" else data
        line = f">raw {data}" if isinstance(data, str) else f">binary {data.hex()}"
        self.send(client, data, line, [error(code, _TEXT, param, None)], now=now)

    @rule(
        who=WHO,
        wrong=st.sampled_from(["system", "assistant", "user", "session.update", "response.create"]),
        names=st.sampled_from([["audio"], [], ["text", "text"]]),
        event_id=EVENT_IDS,
        now=SEND,
    )
    def mismatched(self, who: int, wrong: str, names: list[str], event_id: Any, now: bool) -> None:
        """Values that are right each, and wrong together: content of another role, modalities."""
        client = self.clients[who % len(self.clients)]
        if "." in wrong:
            name = wrong.partition(".")[0]
            event = _event(wrong, event_id, **{name: {"modalities": names}})
            self.refused(client, event, "invalid_value", f"{name}.modalities", now=now)
            return
        kind = {"system": "text", "assistant": "input_text", "user": "text"}[wrong]
        item = {"type": "message", "role": wrong, "content": [{"type": kind, "text": "x"}]}
        event = _event("conversation.item.create", event_id, item=item)
        self.refused(client, event, "invalid_value", "item.content[0].type", now=now)

    # ---------------------------------------------------------------------------------------------- what engines do

    @rule(
        who=WHO,
        turn=st.booleans(),
        cues=st.lists(CUES, min_size=1, max_size=5),
        how=st.sampled_from(["stop", "stop", "", "", "max_output_tokens"]),
        cut=st.sampled_from([None, None, 0, 1, "half"]),
    )
    def talk(self, who: int, turn: bool, cues: list[tuple[str, Any]], how: str, cut: Any) -> None:
        """What usually happens: somebody speaks, or asks for a response, and is answered, to the end or not; what
        was not played is cut off."""
        client = self.clients[who % len(self.clients)]
        self.settle(client)
        if turn and client.model.detects:
            for ms, loud in ((160, True), (320, False)):
                self.make_sound(client, ms, loud)
        elif client.model.default is None:
            self.say(client, _event("response.create", Ellipsis), now=True)
        run = client.model.default
        for kind, value in cues:
            if run is not None and run is client.model.default:
                self.produce_one(client, run, kind, value)
        if how and run is not None and run is client.model.default:
            self.finish_one(client, run, how)
        if cut is not None:
            self.truncate(client, "spoken", 0, cut, Ellipsis, now=True)

    @precondition(lambda self: any(client.model.runs for client in self.clients))
    @rule(who=WHO, which=st.sampled_from([0, 0, 0, 1, 2]), cues=st.lists(CUES, min_size=1, max_size=5))
    def produce(self, who: int, which: int, cues: list[tuple[str, Any]]) -> None:
        """The model of a response makes something."""
        client, run = self.run_of(who, which)
        for kind, value in cues:
            if run in client.model.runs:
                self.produce_one(client, run, kind, value)

    def produce_one(self, client: Client, run: Run, kind: str, value: Any) -> None:
        model = client.model
        small = run.limit is not None and run.limit < _LONG_LIMIT
        if kind == "audio":
            fmt = run.plan["output_audio_format"]
            if (client.line.rate == RATES[0]) != (fmt == "pcm16"):
                # It would be resampled, and come a little later.
                return
            # What an engine may not do is for the runtime to refuse: no script can say it.
            client.record.whole &= run.speaks
            pcm = base.AudioDelta(_pcm(value, client.line.rate))
            self.play(client, run, f"audio {value}ms", pcm, model.sounds(run, value))
        elif small and kind != "args":
            return
        elif kind == "text":
            self.play(client, run, f"text {json.dumps(value)}", base.TextDelta(value), model.says(run, value))
        elif kind == "call":
            self.play(client, run, f"call {TOOL}", base.ToolCallStart(TOOL), model.calls(run, TOOL))
        else:
            client.record.whole &= run.open is not None and run.open.call
            arguments = base.ToolArgumentsDelta(value)
            self.play(client, run, f"args {json.dumps(value)}", arguments, model.argues(run, value))

    @precondition(lambda self: any(client.model.runs for client in self.clients))
    @rule(
        who=WHO,
        which=st.sampled_from([0, 0, 1]),
        how=st.sampled_from(["stop", "stop", "max_output_tokens", "content_filter", "fail"]),
    )
    def finish(self, who: int, which: int, how: str) -> None:
        client, run = self.run_of(who, which)
        self.finish_one(client, run, how)

    def finish_one(self, client: Client, run: Run, how: str) -> None:
        if how == "fail":
            fault = {"type": "server_error", "code": "overloaded", "message": "Too much to do."}
            cue = base.EngineError("overloaded", "Too much to do.")
            self.play(client, run, 'fail overloaded "Too much to do."', cue, client.model.fails(run, fault))
        else:
            reason: Any = how
            self.play(client, run, f"finish {how}", base.Finish(reason), client.model.finishes(run, how))

    @precondition(lambda self: any(client.model.unheard for client in self.clients))
    @rule(who=WHO, words=st.sampled_from(["hello", "", "\u00fcber"]), fails=st.sampled_from([False, False, True]))
    def recognise(self, who: int, words: str, fails: bool) -> None:
        """The recogniser is through with an item."""
        self.settle_all()
        waiting = [client for client in self.clients if client.model.unheard]
        if not waiting:
            return
        client = waiting[who % len(waiting)]
        item = client.model.unheard[0]
        assert item.id.value is not None
        heard: base.TranscriptDelta | Exception = base.TranscriptDelta(words)
        if fails:
            heard = base.EngineError("deaf", "No.")
            client.due.append(Due("~ unheard deaf", client.model.unheard_for(item, "deaf")))
        else:
            client.due.append(Due(f"~ heard {json.dumps(words)}", client.model.heard(item, words)))
        self.tally.engines += 1
        self.compare(client, client.line.hear(item.id.value, heard))

    def run_of(self, who: int, which: int) -> tuple[Client, Run]:
        """A response under way, of a client that has one."""
        busy = [client for client in self.clients if client.model.runs]
        client = busy[who % len(busy)]
        self.settle(client)
        return client, client.model.runs[which % len(client.model.runs)]

    def play(self, client: Client, run: Run, line: str, cue: Any, answer: list[Frame]) -> None:
        assert run.id.value is not None
        self.tally.engines += 1
        client.due.append(Due(f"~ [{run.number}] {line}", answer))
        self.compare(client, client.line.play(run.id.value, cue))

    # ---------------------------------------------------------------------------------------------- the exchange

    def pick(self, client: Client, which: Any) -> str:
        """An id that means something, or not, to ``client``."""
        model = client.model
        if which == "foreign":
            self.settle_all()
            others = [item.id.value for other in self.clients if other is not client for item in other.model.items]
            return next((one for one in others if one and model.find(one) is None), "nobody")
        if isinstance(which, str) and which not in ("announced", "open", "spoken"):
            return which
        self.settle(client)
        found: list[Ref] = []
        if which == "announced":
            found = [model.speech.id] if model.speech is not None and model.speech.announced else []
        elif which == "open":
            found = [run.open.item.id for run in model.runs if run.open is not None]
        elif which == "spoken":
            found = [item.id for item in model.items if item.wire.get("role") == "assistant"]
        elif model.items:
            found = [model.items[which % len(model.items)].id]
        return (found[-1].value if found else None) or "nobody"

    def say(self, client: Client, event: dict[str, Any], *, now: bool) -> None:
        """A valid event; the model knows the answer."""
        sound = event["type"] == "input_audio_buffer.append" and client.model.detects
        if sound:
            # Nothing overtakes what the VAD has to say.
            self.settle(client)
        answer = client.model.client(event)
        refused = len(answer) == 1 and answer[0]["type"] == "error"
        self.tally.events[event["type"] + " (refused)" * refused] += 1
        self.send(client, event, "", answer, now=now or sound, sound=sound)

    def refused(self, client: Client, event: dict[str, Any], code: str, param: str, *, now: bool) -> None:
        """An event with a fault in its form."""
        self.tally.events[event["type"] + " (refused)"] += 1
        event_id = event.get("event_id")
        told = event_id if isinstance(event_id, str) and len(event_id) <= 512 else None
        self.send(client, event, "", [error(code, _TEXT, param, told)], now=now)

    def send(
        self,
        client: Client,
        event: dict[str, Any] | str | bytes,
        line: str,
        answer: list[Frame],
        *,
        now: bool,
        sound: bool = False,
    ) -> None:
        if isinstance(event, dict):
            line = client.record.event_line(event)
            event = json.dumps(event, ensure_ascii=False)
        client.waiting.append(event)
        client.due.append(Due(line, answer))
        if now:
            self.settle(client, sound=sound)

    def settle(self, client: Client, *, sound: bool = False) -> None:
        """Send what waits, and compare all that came."""
        waiting, client.waiting = client.waiting, []
        self.compare(client, client.line.exchange(waiting, sound=sound))

    def settle_all(self) -> None:
        for client in self.clients:
            self.settle(client)

    def compare(self, client: Client, came: list[Frame]) -> None:
        """Raises Mismatch unless exactly what is due came."""
        dues, client.due = client.due, []
        at = 0
        for due in dues:
            client.record.did(due.line)
            for expected in due.frames:
                if at >= len(came):
                    self.fail(client, "nothing more came", due, [])
                self.compare_frame(client, due, expected, came[at], came[at:])
                client.record.came(came[at])
                at += 1
        if at < len(came):
            self.fail(client, "more came than there should", dues[-1] if dues else Due("(nothing)", []), came[at:])

    def compare_frame(self, client: Client, due: Due, expected: Frame, actual: Frame, rest: list[Frame]) -> None:
        frame = dict(actual)
        event_id = frame.pop("event_id", None)
        self.tally.frames[str(frame.get("type"))] += 1
        try:
            Ref("event").check(event_id, "event_id", self.ids)
            compare(expected, frame, self.ids)
        except Mismatch as mismatch:
            self.fail(client, f"{frame.get('type')}: {mismatch}", due, rest)

    def expect(self, client: Client, holds: bool, problem: str) -> None:
        if not holds:
            self.fail(client, problem, Due("", []), [])

    def fail(self, client: Client, problem: str, due: Due, rest: list[Frame]) -> None:
        wanted = "\n".join(f"  {shown(frame)}" for frame in due.frames) or "  nothing"
        actual = "\n".join(f"  {shown(frame)}" for frame in rest) or "  nothing"
        raise Mismatch(
            f"{client.name}: {problem}\nof {shown(due.line)} should come in all\n{wanted}\nbut what came from here "
            f"on was\n{actual}\nthe session as a golden script, up to here:\n{client.record.text()}"
        )

    def replay(self, client: Client) -> None:
        """The same session without a server gives the same frames."""
        if client.record.whole:
            run_pure(parse(client.record.text(), Path("hostile.rts")))
            self.tally.replayed += 1


class _AnyText:
    """A message for people; the codes are what counts."""

    def check(self, actual: Any, path: str, ids: Ids) -> None:
        if not isinstance(actual, str) or not actual:
            raise Mismatch(f"{path}: {actual!r} is no text")


_TEXT: Final[Any] = _AnyText()


def _margin(model: Model) -> float:
    return 1e-4 if model.exact else _MARGIN


def _event(kind: str, event_id: Any, **fields: Any) -> dict[str, Any]:
    """An event, with what stands for long texts filled in."""
    if event_id == "longest":
        event_id = "x" * 512
    fields = {key: _filled(value) for key, value in fields.items()}
    head = {"type": kind} if event_id is Ellipsis else {"event_id": event_id, "type": kind}
    return head | fields


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sound(inner) if key == "audio" else _filled(inner) for key, inner in value.items()}
    return [_filled(inner) for inner in value] if isinstance(value, list) else value


def _sound(audio: int | str) -> str:
    return audio if isinstance(audio, str) else base64.b64encode(bytes(audio)).decode()


def _without_picks(event: dict[str, Any]) -> dict[str, Any]:
    """A reference by number means nothing here."""
    response = event.get("response")
    if response and "input" in response:
        return {**event, "response": {key: value for key, value in response.items() if key != "input"}}
    return event


def _pcm(ms: int, rate: int) -> bytes:
    return sound(ms, _LOUD, AudioFormat.PCM16)[: ms * 48] if rate == RATES[0] else b"\x10\x20" * (ms * rate // 1000)
