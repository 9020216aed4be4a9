"""Equal sessions are equal, however they are renamed, cut and interleaved; one change is found."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vivavoce.record import compare as module
from vivavoce.record.compare import VOLATILE, Difference, Ignore, align, compare, match_ids
from vivavoce.record.recording import Answer, End, Frame, Header, Recording, Scrubber, frame_of, load
from vivavoce.record.show import told

SESSION: Final = load(Path(__file__).parent.parent / "clients/data/session.jsonl")
HEADER: Final = Header(1, "2026-01-01", "ws://h", (), (), True, Answer(101))
_SERVER_ID: Final = re.compile(r"(sess|conv|item|resp|call|event)_[0-9A-Za-z]{16,21}")

Event = dict[str, Any]


def session(*events: tuple[str, Event] | Event, end: End | None = None) -> Recording:
    """Events of the server, and of the client as ``("client", event)``."""
    frames = [
        Frame(at, "client", event[1]) if isinstance(event, tuple) else Frame(at, "server", event)
        for at, event in enumerate(events)
    ]
    return Recording(HEADER, tuple(frames), end, 99)


def differences(old: Recording, new: Recording, *ignore: str) -> list[tuple[str, str, str]]:
    return [(d.kind, d.event, d.path) for d in compare(old, new, Ignore(ignore)).differences]


def with_events(events: Sequence[Event]) -> Recording:
    """The session, with other events of the server, and the client's as they were."""
    client = [frame for frame in SESSION.frames if frame.sender == "client"]
    server = [Frame(0, "server", event) for event in events]
    # Ids of the client are those that it says first, so its frames go where they do no harm: last.
    return Recording(SESSION.header, (*server, *client), SESSION.end, SESSION.end_ms)


EVENTS: Final[list[Event]] = [f.event for f in SESSION.frames if f.sender == "server" and f.event is not None]


# ----------------------------------------------------------------------------------------------- the same session


def renamed(value: Any, names: Callable[[str], str]) -> Any:
    return json.loads(_SERVER_ID.sub(lambda found: names(found[0]), json.dumps(value)))


def another_name(seed: int) -> Callable[[str], str]:
    """One to one, and of the form of an id."""

    def name(old: str) -> str:
        kind, _, rest = old.partition("_")
        turned = rest[seed % len(rest) :] + rest[: seed % len(rest)]
        return f"{kind}_{turned.swapcase() if seed % 2 else turned[::-1]}"

    return name


def source(event: Event, made: set[str]) -> str:
    kind = event["type"]
    if kind.startswith("conversation.item.input_audio_transcription."):
        return "transcription"
    item = (event.get("item") or {}).get("id")
    if kind == "response.output_item.added":
        made.add(event["item"]["id"])
    if kind.startswith(("response.", "rate_limits.")) or (kind == "conversation.item.created" and item in made):
        return "responses"
    return "others"


def interleaved(chance: Random, events: Sequence[Event]) -> list[Event]:
    """The same events of each source, in another mixture."""
    made: set[str] = set()
    sources: dict[str, list[Event]] = {}
    for event in events:
        sources.setdefault(source(event, made), []).append(event)
    out = []
    while sources:
        name = chance.choice(sorted(sources))
        out.append(sources[name].pop(0))
        if not sources[name]:
            del sources[name]
    return out


def recut(chance: Random, events: Sequence[Event]) -> Iterator[Event]:
    """Some deltas in two pieces."""
    for at, event in enumerate(events):
        delta = event.get("delta")
        if isinstance(delta, str) and len(delta) > 1 and not chance.randrange(4):
            cut = chance.randint(0, len(delta))
            yield {**event, "delta": delta[:cut]}
            yield {**event, "delta": delta[cut:], "event_id": f"event_{at:021d}"}
        else:
            yield event


def at_another_time(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: at_another_time(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [at_another_time(inner, key) for inner in value]
    return value + 7 if key in VOLATILE and isinstance(value, int | float) else value


@given(seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_a_session_is_itself(seed: int) -> None:
    chance = Random(seed)
    events = [at_another_time(event) for event in recut(chance, interleaved(chance, EVENTS))]
    new = with_events(renamed(events, another_name(seed)))
    found = compare(with_events(EVENTS), new)
    assert [told(difference) for difference in found.differences] == []
    name = another_name(seed)
    for event in EVENTS:
        if not event["type"].endswith(".delta"):
            assert found.ids.now[event["event_id"]] == name(event["event_id"])


def test_the_client_ids_stand_for_themselves() -> None:
    one = session(
        ("client", {"item": {"id": "mine"}}), {"type": "conversation.item.created", "item": {"id": "mine"}}
    )
    other = session(
        ("client", {"item": {"id": "mine"}}), {"type": "conversation.item.created", "item": {"id": "its"}}
    )
    assert differences(one, one) == []
    assert differences(one, other) == [("value", "conversation.item.created", "item.id")]


# --------------------------------------------------------------------------------------------------- one change


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from leaves(inner, (*path, at))
    else:
        yield path


def holder(event: Event, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        event = event[step]
    return event


IN_TIME: Final = {"usage", *VOLATILE}
CANCELLED: Final = next(
    e["response"]["id"] for e in EVENTS if e["type"] == "response.done" and e["response"]["status"] == "cancelled"
)
WHOLE: Final = [
    at
    for at, event in enumerate(EVENTS)
    if not event["type"].endswith(".delta") and CANCELLED not in json.dumps(event)
]
"""Events of which every key counts: no deltas, and not of the response that was cut by the clock."""


@given(st.data())
@settings(max_examples=25)
def test_a_lost_event_is_found(data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(WHOLE))
    events = EVENTS[:at] + EVENTS[at + 1 :]
    assert ("missing", EVENTS[at]["type"], "") in differences(with_events(EVENTS), with_events(events))
    assert ("extra", EVENTS[at]["type"], "") in differences(with_events(events), with_events(EVENTS))


@given(st.data())
@settings(max_examples=50)
def test_a_changed_value_is_found_at_its_place(data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(WHOLE))
    paths = [
        path
        for path in leaves(EVENTS[at])
        if path != ("type",) and not IN_TIME & set(path) and not str(path[-1]).endswith("id")
    ]
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    events = copy.deepcopy(EVENTS)
    place = holder(events[at], path)
    change = data.draw(st.sampled_from(["value", "type", "key", "more"]))
    match change:
        case "value":
            old = place[path[-1]]
            place[path[-1]] = not old if isinstance(old, bool) else f"{old} or so" if isinstance(old, str) else -1
        case "type":
            place[path[-1]] = {"another": "type"}
        case "key":
            place.pop(path[-1])
        case "more":
            if isinstance(place, list):
                place.append("one more")
            else:
                place["one_more"] = 1
    *others, difference = compare(with_events(EVENTS), with_events(events)).differences
    # Without one element the next ones have other neighbours.
    assert not others or (change == "key" and isinstance(place, list))
    assert difference.event == EVENTS[at]["type"]
    spelled = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path[:-1]).lstrip(".")
    assert difference.path.startswith(spelled)
    assert difference.kind == {"key": "missing key", "more": "extra key"}.get(change, "value")


@given(st.data())
@settings(max_examples=50)
def test_a_reference_to_another_thing_is_found(data: st.DataObject) -> None:
    at = data.draw(st.sampled_from(WHOLE))
    paths = [
        p for p in leaves(EVENTS[at]) if str(p[-1]).endswith("id") and isinstance(holder(EVENTS[at], p)[p[-1]], str)
    ]
    path = data.draw(st.sampled_from(paths))
    events = copy.deepcopy(EVENTS)
    old = holder(events[at], path)[path[-1]]
    kind = old.partition("_")[0]
    known = {
        value
        for event in EVENTS
        for p in leaves(event)
        if str(p[-1]).endswith("id") and isinstance(value := holder(event, p)[p[-1]], str)
        if not event["type"].endswith(".delta") and value.startswith(kind) and value != old
    }
    if not known:
        return
    holder(events[at], path)[path[-1]] = data.draw(st.sampled_from(sorted(known)))
    assert differences(with_events(EVENTS), with_events(events))


@given(st.data())
@settings(max_examples=25)
def test_a_swap_in_a_source_is_found(data: st.DataObject) -> None:
    made: set[str] = set()
    names = [source(event, made) for event in EVENTS]
    pairs = [
        (a, b)
        for a, b in pairwise(WHOLE)
        if names[a] == names[b] and EVENTS[a]["type"] != EVENTS[b]["type"]
        # What is said of turns and answers is not in one order.
        if names[a] == "responses" and b == a + 1
    ]
    a, b = data.draw(st.sampled_from(pairs))
    events = list(EVENTS)
    events[a], events[b] = events[b], events[a]
    found = compare(with_events(EVENTS), with_events(events)).differences
    assert {"order", "missing", "extra"} & {difference.kind for difference in found}
    assert {difference.event for difference in found} <= {
        event["type"] for event in EVENTS if event["type"].startswith(("response.", "rate", "conversation.item"))
    }


# ------------------------------------------------------------------------------------------------- special rules

DONE = "response.text.done"


def response(*events: Event, id_: str = "resp_1", status: str = "completed", **fields: Any) -> list[Event]:
    return [
        {"type": "response.created", "response": {"id": id_}},
        *({"response_id": id_, **event} for event in events),
        {"type": "response.done", "response": {"id": id_, "status": status, **fields}},
    ]


def delta(text: str, item: str = "item_1", kind: str = "text") -> Event:
    return {"type": f"response.{kind}.delta", "item_id": item, "delta": text}


def test_sources_may_interleave_but_keep_their_order() -> None:
    one, two = response(delta("a")), response(delta("b", "item_2"), id_="resp_2", conversation_id=None)
    started = {"type": "input_audio_buffer.speech_started", "item_id": "item_9"}
    first = session(one[0], two[0], *one[1:], started, *two[1:])
    assert differences(first, session(started, one[0], two[0], *two[1:], *one[1:])) == []
    wrong = session(started, one[0], two[0], two[2], two[1], *one[1:])
    assert differences(first, wrong) in (
        [("order", "response.done", "")],
        [("order", "response.text.delta", "")],
    )


def test_items_of_one_response_may_overlap() -> None:
    def added(item: str, at: int) -> Event:
        return {"type": "response.output_item.added", "output_index": at, "item": {"id": item}}

    def done(item: str, at: int) -> Event:
        return {"type": "response.output_item.done", "output_index": at, "item": {"id": item}}

    apart = response(added("a", 0), delta("x", "a"), done("a", 0), added("b", 1), done("b", 1))
    mixed = response(added("a", 0), added("b", 1), delta("x", "a"), done("b", 1), done("a", 0))
    assert differences(session(*apart), session(*mixed)) == []
    late = [*apart[:3], *apart[4:], apart[3]]
    assert differences(session(*apart), session(*late))[0][:2] == ("order", "response.output_item.done")


def test_an_extra_response_shifts_nothing() -> None:
    one, two, more = (
        response(delta(text, f"item_{text}"), id_=f"resp_{text}", metadata={"n": text}) for text in "abc"
    )
    found = differences(session(*one, *two), session(*one, *more, *two))
    assert found == [("extra", kind, "") for kind in ("response.created", "response.text.delta", "response.done")]
    assert [kind for kind, *_ in differences(session(*one, *more, *two), session(*one, *two))] == ["missing"] * 3


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [("Once upon", "Once upon a time", True), ("Once", "", True), ("Once", "Twice", False)],
)
def test_what_a_cancelled_response_had_said_may_be_longer(old: str, new: str, same: bool) -> None:
    def cut(text: str) -> Recording:
        events = [*([delta(text)] if text else []), {"type": DONE, "item_id": "item_1", "text": text}]
        return session(*response(*events, status="cancelled", usage={"output_tokens": len(text)}))

    assert (differences(cut(old), cut(new)) == []) is same


def test_a_completed_response_has_said_the_same() -> None:
    one, two = ({"type": DONE, "item_id": "item_1", "text": text} for text in ("Once", "Once upon"))
    assert differences(session(*response(one)), session(*response(two))) == [("value", DONE, "text")]


def test_audio_counts_by_being_there() -> None:
    sound, other, none = (session(*response(delta(text, kind="audio"))) for text in ("AAAA", "BBBBBBBB", ""))
    left_out = session(*response({**delta("", kind="audio"), "delta": {"bytes": 3}}))
    assert differences(sound, other) == differences(sound, left_out) == []
    assert differences(sound, none) == [("value", "response.audio.delta", "delta")]
    part = {"type": "conversation.item.retrieved", "item": {"audio": "AAAA"}}
    assert differences(session(part), session({**part, "item": {"audio": "BBBB"}})) == []
    assert differences(session(part), session({**part, "item": {"audio": ""}}))


def test_ids_within_texts_are_matched() -> None:
    def told_by(name: str) -> Recording:
        error = {"type": "error", "error": {"message": f"There is an active response: {name}."}}
        return session(*response(id_=name), error)

    assert differences(told_by("resp_00000001"), told_by("resp_00000002")) == []
    other = session(*response(id_="resp_00000002"), {"type": "error", "error": {"message": "resp_00000003"}})
    assert differences(told_by("resp_00000001"), other) == [("value", "error", "error.message")]


def test_an_event_id_that_comes_twice_is_found() -> None:
    old = session({"type": "a", "event_id": "e1"}, {"type": "b", "event_id": "e2"})
    new = session({"type": "a", "event_id": "x"}, {"type": "b", "event_id": "x"})
    assert differences(old, new) == [("value", "b", "event_id")]


@pytest.mark.parametrize(("old", "new"), [(1, True), (0, False), (1, "1"), (None, 0), ({}, []), (1.5, None)])
def test_json_types_are_told_apart(old: Any, new: Any) -> None:
    for key in ("value", "expires_at"):
        found = differences(session({"type": "a", key: old}), session({"type": "a", key: new}))
        assert found == [("value", "a", key)]


def test_one_is_one_point_zero() -> None:
    assert differences(session({"type": "a", "n": 1}), session({"type": "a", "n": 1.0})) == []


def test_frames_that_are_no_events_are_compared_too() -> None:
    def with_frame(data: str | bytes) -> Recording:
        return Recording(HEADER, (frame_of(0, "server", data, Scrubber()),))

    assert differences(with_frame("x"), with_frame("x")) == []
    assert differences(with_frame("x"), with_frame("y")) == [("value", "(text)", "text")]
    assert {kind for kind, *_ in differences(with_frame("x"), with_frame(b"x"))} == {"missing", "extra"}


# ------------------------------------------------------------------------------------- refusals, ends, patterns


def test_refusals_are_compared() -> None:
    def refused(status: int, body: str) -> Recording:
        return Recording(msgspec.structs.replace(HEADER, answer=Answer(status, body=body)), ())

    old = refused(401, '{"error": {"code": "401", "message": "no"}}')
    assert differences(old, refused(401, '{"error": {"message": "no", "code": "401"}}')) == []
    found = differences(old, refused(404, '{"error": {"code": "404", "message": "no"}}'))
    assert found == [("value", "(handshake)", "status"), ("value", "(handshake)", "body.error.code")]
    assert ("value", "(handshake)", "body") in differences(old, session())


@pytest.mark.parametrize(
    ("old", "new", "kinds"),
    [
        (End(1001, "over", "server"), End(1001, "over", "server"), []),
        (End(1001, "over", "server"), End(1000, "over", "server"), ["value"]),
        (End(1001, "over", "server"), End(1000, "", "client"), ["missing"]),
        (End(1000, "", "client"), End(1011, "bug", "server"), ["extra"]),
        (End(1000, "", "client"), End(1001, "", "client"), []),
        (None, End(1000, "", "client"), []),
    ],
)
def test_ends_are_compared(old: End | None, new: End, kinds: list[str]) -> None:
    assert [kind for kind, *_ in differences(session(end=old), session(end=new))] == kinds


@pytest.mark.parametrize(
    ("pattern", "left"),
    [
        ("a", {"b"}),
        ("*", set()),
        ("a/x", {"a y.z", "a y.w", "a l[0].k", "b x"}),
        ("*/x", {"a y.z", "a y.w", "a l[0].k"}),
        ("a/y.*", {"a x", "a l[0].k", "b x"}),
        ("a/y", {"a x", "a l[0].k", "b x"}),
        ("a/l[*].k", {"a x", "a y.z", "a y.w", "b x"}),
        ("c", {"a x", "a y.z", "a y.w", "a l[0].k", "b x"}),
    ],
)
def test_patterns_leave_out(pattern: str, left: set[str]) -> None:
    old = session({"type": "a", "x": 1, "y": {"z": 1}, "l": [{"k": 1}]}, {"type": "b", "x": 1})
    new = session({"type": "a", "x": 2, "y": {"w": 1}, "l": [{"k": 2}]}, {"type": "b", "x": 2})
    found = {f"{event} {path}" for _, event, path in differences(old, new, pattern)}
    assert found == ({"b x"} if pattern == "a" else left)


@pytest.mark.parametrize("pattern", ["", "/x", "a/"])
def test_an_empty_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="neither TYPE nor TYPE/PATH"):
        Ignore([pattern])


# ------------------------------------------------------------------------------------------------- the alignment

WORDS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("12")), max_size=8)


@given(WORDS, WORDS)
def test_an_alignment_is_complete_and_in_order(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> None:
    pairs = align(old, new)
    assert [a for a, _ in pairs if a is not None] == list(range(len(old)))
    assert [b for _, b in pairs if b is not None] == list(range(len(new)))
    assert all(a is None or b is None or old[a][0] == new[b][0] for a, b in pairs)
    assert (None, None) not in pairs


@given(WORDS, st.data())
def test_one_lost_element_loses_one(words: list[tuple[str, str]], data: st.DataObject) -> None:
    if words:
        at = data.draw(st.integers(0, len(words) - 1))
        pairs = align(words, words[:at] + words[at + 1 :])
        assert sum(b is None for _, b in pairs) == 1
        assert all(b is None or words[a or 0] == (words[:at] + words[at + 1 :])[b] for a, b in pairs)


def test_a_long_session_is_aligned_by_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CELLS", 0)
    old, new = [(kind, "1") for kind in "abcd"], [(kind, "2") for kind in "abxd"]
    assert align(old, new) == [(0, 0), (1, 1), (2, None), (None, 2), (3, 3)]


def test_ids_of_a_session_that_still_runs() -> None:
    name = another_name(3)
    server = [frame for frame in SESSION.frames if frame.sender == "server"]
    half = server[: len(server) // 2]
    ids = match_ids(half, [Frame(0, "server", renamed(frame.event, name)) for frame in half])
    call = next(f.event["item"]["call_id"] for f in half if f.event and "call_id" in f.event.get("item", {}))
    assert ids.now[call] == name(call)


def test_every_kind_of_difference_is_told() -> None:
    kinds: dict[Any, str] = {
        "missing": "a is missing now (recorded after b)",
        "extra": "a was not recorded (now after b)",
        "order": "a moved: recorded after b, now first of its source",
        "missing key": "a x.y is missing now, was 1",
        "extra key": "a x.y was not recorded, is 2",
        "value": "a x.y: was 1, is 2",
    }
    for kind, line in kinds.items():
        path = "x.y" if "key" in kind or kind == "value" else ""
        assert told(Difference(kind, "a", 3, path, 1, 2, "b")) == line
