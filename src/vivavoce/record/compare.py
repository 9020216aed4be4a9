"""What differs between two sessions that were sent the same: order, keys and values, once ids are matched.

Laws
----
1. Order counts within a source and not between them, for sources interleave freely (protocol section 5): the
   answers to the client; the turns of the voice detection; each response, with the items of its output and the
   rate limits that follow it; each transcription.
2. Ids need not be equal, but stand for each other one to one. Ids that the client made up stand for themselves.
3. How deltas are cut does not count; what they join to does. Of audio only that there is some counts.
4. Of :data:`VOLATILE` values only their JSON type counts. What a cancelled response had said so far may be longer
   on one side than on the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any, Final, Literal, TypeAlias

from vivavoce.record.recording import Event, Frame, Recording

Kind: TypeAlias = Literal["missing", "extra", "order", "missing key", "extra key", "value"]

VOLATILE: Final = frozenset({"created_at", "expires_at", "obfuscation", "remaining", "reset_seconds"})
"""Keys whose values are of their time, or random."""
SOME_AUDIO: Final = "(audio)"
NO_AUDIO: Final = "(no audio)"

_AUDIO_DELTA: Final = re.compile(r"response\.(?:output_)?audio\.delta")
_ITEM_IS_THERE: Final = re.compile(r"conversation\.item\.(?:created|added|done)")
_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription."
_OF_VAD: Final = re.compile(r"input_audio_buffer\.(?:speech_started|speech_stopped|timeout_triggered)")
_WORD: Final = re.compile(r"[\w-]{8,}")
_SAID: Final = frozenset({"arguments", "delta", "text", "transcript"})
_LONGEST_TEXT: Final = 65536
"""A longer one is speech or a picture, and holds no ids."""
_CELLS: Final = 1_000_000
"""A longer table of pairs is not searched for the best alignment, only for a good one."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs. ``line`` is that of the recording, None for what is only in the new session."""

    kind: Kind
    event: str
    """The type of the event."""
    line: int | None = None
    path: str = ""
    """Of the key or value within the event: ``response.output[0].status``."""
    recorded: Any = None
    now: Any = None
    after: str | None = None
    """The type of the event that comes before it, where it stands: of an ``order`` difference, in the recording."""
    now_after: str | None = None
    """Of an ``order`` difference: the type of the event that comes before it now."""


class Ignore:
    """Patterns of what is not compared; ``*`` stands for anything.

    ``TYPE`` leaves out events altogether, ``TYPE/PATH`` a key or value of theirs with all that it holds. Raises
    ValueError for an empty pattern.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._events: list[re.Pattern[str]] = []
        self._values: list[tuple[re.Pattern[str], re.Pattern[str]]] = []
        for pattern in patterns:
            kind, slash, path = pattern.partition("/")
            if not kind or (slash and not path):
                raise ValueError(f"{pattern!r} is neither TYPE nor TYPE/PATH")
            if slash:
                self._values.append((_glob(kind), _glob(path)))
            else:
                self._events.append(_glob(kind))

    def event(self, kind: str) -> bool:
        return any(pattern.fullmatch(kind) for pattern in self._events)

    def value(self, kind: str, path: str) -> bool:
        return any(event.fullmatch(kind) and value.fullmatch(path) for event, value in self._values)


def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(piece) for piece in pattern.split("*")), re.DOTALL)


class Ids:
    """A one-to-one relation of recorded ids and those that stand for them now."""

    def __init__(self, own: Iterable[str] = ()) -> None:
        self.now = {name: name for name in own}
        """Recorded id -> id now."""
        self._recorded = dict(self.now)

    def bind(self, recorded: str, now: str) -> bool:
        """Whether the two stand for each other; they do from now on if neither stood for anything."""
        if recorded not in self.now and now not in self._recorded:
            self.now[recorded] = now
            self._recorded[now] = recorded
        return self.now.get(recorded) == now

    def renamed(self, text: str) -> str:
        """``text`` with the recorded ids in it replaced by those of now."""
        if len(text) > _LONGEST_TEXT:
            return text
        return _WORD.sub(lambda word: self.now.get(word[0], word[0]), text)


@dataclass(frozen=True, slots=True)
class Result:
    differences: tuple[Difference, ...]
    ids: Ids = field(repr=False)


def compare(recorded: Recording, now: Recording, ignore: Ignore | None = None) -> Result:
    """What of the server's side differs; the refusal or the close included."""
    work = _Comparison(client_ids(recorded.frames), ignore or Ignore())
    _compare_answers(work, recorded, now)
    work.events(_seen(recorded), _seen(now))
    _compare_ends(work, recorded, now)
    work.found.sort(key=lambda difference: (difference.line is None, difference.line or 0))
    return Result(tuple(work.found), work.ids)


def match_ids(recorded: Sequence[Frame], now: Sequence[Frame]) -> Ids:
    """The ids of a session that is still running; ``recorded`` ends where it has come to."""
    work = _Comparison(client_ids(recorded), Ignore())
    work.events(_numbered(recorded), _numbered(now))
    return work.ids


def _seen(recording: Recording) -> list[_Seen]:
    return _numbered(recording.frames)


def _numbered(frames: Sequence[Frame]) -> list[_Seen]:
    return [
        _Seen(line, frame.kind, frame.event if frame.event is not None else _no_event(frame))
        for line, frame in enumerate(frames, 2)
        if frame.sender == "server"
    ]


def _no_event(frame: Frame) -> Event:
    return {"text": frame.text} if isinstance(frame.text, str) else {}


def _compare_answers(work: _Comparison, recorded: Recording, now: Recording) -> None:
    old, new = recorded.header.answer, now.header.answer
    work.values(
        _Seen(1, "(handshake)", {"status": old.status, "subprotocol": old.subprotocol, "body": _body(old.body)}),
        _Seen(1, "(handshake)", {"status": new.status, "subprotocol": new.subprotocol, "body": _body(new.body)}),
    )


def _body(body: str | None) -> Any:
    try:
        return None if body is None else json.loads(body)
    except (ValueError, RecursionError):
        return body


def _compare_ends(work: _Comparison, recorded: Recording, now: Recording) -> None:
    """A recording that its client or the recorder ended says nothing of how the server would have ended it."""
    old, new = recorded.end, now.end
    ours, theirs = (end is not None and end.by == "server" for end in (old, new))
    line = len(recorded.frames) + 2
    if ours and theirs and old and new:
        work.values(
            _Seen(line, "(close)", {"code": old.code, "reason": old.reason}),
            _Seen(None, "(close)", {"code": new.code, "reason": new.reason}),
        )
    elif ours and old:
        work.differ(Difference("missing", "(close)", line, recorded={"code": old.code, "reason": old.reason}))
    elif theirs and new:
        work.differ(Difference("extra", "(close)", now={"code": new.code, "reason": new.reason}))


def client_ids(frames: Sequence[Frame]) -> set[str]:
    """Ids that the client made up: they are in a message of it before they are in one of the server."""
    own: set[str] = set()
    given: set[str] = set()
    for frame in frames:
        if frame.event is not None:
            found = set(ids_in(frame.event))
            if frame.sender == "server":
                given |= found - own
            else:
                own |= found - given
    return own


def is_id(key: str) -> bool:
    return key == "id" or key.endswith("_id")


def ids_in(value: Any) -> Iterator[str]:
    """What stands in the id fields of a message."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and is_id(key):
                yield inner
            else:
                yield from ids_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from ids_in(inner)


def translated(value: Any, ids: Ids, key: str = "") -> Any:
    """A message with the ids of now in place of the recorded ones."""
    match value:
        case str():
            return ids.now.get(value, value) if is_id(key) else ids.renamed(value)
        case dict():
            return {name: translated(inner, ids, name) for name, inner in value.items()}
        case list():
            return [translated(inner, ids, key) for inner in value]
        case _:
            return value


# ------------------------------------------------------------------------------------------------- the sources


@dataclass(frozen=True, slots=True)
class _Seen:
    """A server event; deltas of one content part are one event, where the first of them was."""

    line: int | None
    kind: str
    event: Event
    print: str = ""
    """What is left of the event without what may differ: equal prints are a match."""


@dataclass(slots=True)
class _Sources:
    answers: list[_Seen] = field(default_factory=list)
    turns: list[_Seen] = field(default_factory=list)
    responses: dict[str, list[_Seen]] = field(default_factory=dict)
    transcriptions: dict[str, list[_Seen]] = field(default_factory=dict)


def _sources(events: Iterable[_Seen]) -> _Sources:
    found = _Sources()
    heard: set[str] = set()
    made: dict[str, str] = {}
    last = None
    for seen in events:
        event, kind = seen.event, seen.kind
        item_id = _text(event, "item_id") or _text(event, "item", "id")
        response_id = _text(event, "response_id") or _text(event, "response", "id")
        if kind.startswith(_TRANSCRIPTION):
            found.transcriptions.setdefault(item_id or "", []).append(seen)
            continue
        if kind == "rate_limits.updated" and last is not None:
            response_id = last
        elif _ITEM_IS_THERE.fullmatch(kind) and item_id is not None:
            response_id = made.get(item_id)
        if response_id is not None:
            found.responses.setdefault(response_id, []).append(seen)
            if kind in ("response.created", "response.done"):
                last = response_id
            if item_id is not None:
                made[item_id] = response_id
            continue
        if _OF_VAD.fullmatch(kind) and item_id is not None:
            heard.add(item_id)
        of_vad = kind.startswith("input_audio_buffer.") or _ITEM_IS_THERE.fullmatch(kind)
        (found.turns if of_vad and item_id in heard else found.answers).append(seen)
    for response_id, events_of_it in found.responses.items():
        found.responses[response_id] = _by_item(events_of_it)
    return found


def _text(event: Event, *path: str) -> str | None:
    value: Any = event
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None


def _by_item(events: list[_Seen]) -> list[_Seen]:
    """Items of one response may overlap; each has its own order, and they come one after the other here."""
    done = next((at for at, seen in enumerate(events) if seen.kind == "response.done"), len(events))
    groups: dict[str, list[_Seen]] = {}
    for at, seen in enumerate(events):
        item = _text(seen.event, "item_id") or _text(seen.event, "item", "id") if at < done else None
        groups.setdefault(item or f"({at})", []).append(seen)
    return [seen for group in groups.values() for seen in group]


def _folded(events: Iterable[_Seen]) -> list[_Seen]:
    """Deltas of a part joined where the first was; neighbours of several kinds in a fixed order."""
    places: dict[tuple[Any, ...], int] = {}
    pieces: dict[int, list[_Seen]] = {}
    out: list[_Seen] = []
    for seen in events:
        event = seen.event
        if seen.kind.endswith(".delta") and _amount(event.get("delta")) is not None:
            key = (seen.kind, str(event.get("item_id")), event.get("output_index"), event.get("content_index"))
            if key in places:
                pieces[places[key]].append(seen)
                continue
            places[key] = len(out)
            pieces[len(out)] = [seen]
        out.append(seen)
    for at, parts in pieces.items():
        out[at] = replace(parts[0], event=_joined(parts))
    run = 0
    for at in range(len(out) + 1):
        if at == len(out) or at not in pieces:
            out[run:at] = sorted(out[run:at], key=_place_of_delta)
            run = at + 1
    return out


def _amount(delta: Any) -> int | None:
    """How much is in a delta, in characters, or in bytes for audio that was left out; None: it is no delta."""
    if isinstance(delta, dict) and delta.keys() == {"bytes"} and isinstance(delta["bytes"], int):
        return delta["bytes"]
    return len(delta) if isinstance(delta, str) else None


def _joined(parts: list[_Seen]) -> Event:
    first = parts[0]
    deltas = [part.event["delta"] for part in parts]
    if _AUDIO_DELTA.fullmatch(first.kind):
        whole = SOME_AUDIO if any(_amount(delta) for delta in deltas) else NO_AUDIO
    else:
        whole = "".join(str(delta) for delta in deltas)
    lists = {
        key: [inner for part in parts for inner in part.event.get(key) or ()]
        for key, value in first.event.items()
        if isinstance(value, list)
    }
    return {**first.event, **lists, "delta": whole}


def _place_of_delta(seen: _Seen) -> tuple[float, float, str]:
    places = (seen.event.get("output_index"), seen.event.get("content_index"))
    output, content = (place if isinstance(place, int | float) else 0 for place in places)
    return output, content, seen.kind


def _print_of(value: Any, key: str = "") -> Any:
    """``value`` without what may differ between two runs of one server."""
    match value:
        case str() if is_id(key):
            return "#"
        case str() if key == "audio":
            return SOME_AUDIO if value else NO_AUDIO
        case dict() if key == "audio" and value.keys() == {"bytes"}:
            return SOME_AUDIO if value["bytes"] else NO_AUDIO
        case dict():
            return {name: _print_of(inner, name) for name, inner in value.items()}
        case list():
            return [_print_of(inner, key) for inner in value]
        case _:
            return _json_type(value) if key in VOLATILE else value


def _json_type(value: Any) -> str:
    match value:
        case None | bool():
            return "null" if value is None else "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case _:
            return "object" if isinstance(value, dict) else "array"


# ------------------------------------------------------------------------------------------------ the alignment

_Pair: TypeAlias = tuple[int | None, int | None]


def align(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[_Pair]:
    """Pairs of indices, in order, with the fewest losses; None for what has no partner. Elements are (kind, print):
    only equal kinds pair, and equal prints rather than others."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    before: list[_Pair] = [(at, at) for at in range(start)]
    after: list[_Pair] = [(len(old) - at, len(new) - at) for at in range(end, 0, -1)]
    rows, columns = old[start : len(old) - end], new[start : len(new) - end]
    find = _best if len(rows) * len(columns) <= _CELLS else _good
    middle: list[_Pair] = [
        (None if a is None else a + start, None if b is None else b + start) for a, b in find(rows, columns)
    ]
    return before + middle + after


def _best(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[_Pair]:
    """Edit distance: a loss costs 4, a pair of equal kinds that says something else 3."""
    rows, columns = len(old), len(new)
    cost = [[0] * (columns + 1) for _ in range(rows + 1)]
    for a in range(rows, -1, -1):
        for b in range(columns, -1, -1):
            if a == rows or b == columns:
                cost[a][b] = 4 * (rows - a + columns - b)
            else:
                cost[a][b] = min(
                    4 + cost[a + 1][b], 4 + cost[a][b + 1], _price(old[a], new[b]) + cost[a + 1][b + 1]
                )
    pairs: list[_Pair] = []
    a = b = 0
    while a < rows or b < columns:
        if a < rows and b < columns and cost[a][b] == _price(old[a], new[b]) + cost[a + 1][b + 1]:
            pairs.append((a, b))
            a, b = a + 1, b + 1
        elif a < rows and cost[a][b] == 4 + cost[a + 1][b]:
            pairs.append((a, None))
            a += 1
        else:
            pairs.append((None, b))
            b += 1
    return pairs


def _price(one: tuple[str, str], other: tuple[str, str]) -> int:
    if one == other:
        return 0
    return 3 if one[0] == other[0] else 1_000_000


def _good(old: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> list[_Pair]:
    matcher = SequenceMatcher(None, [kind for kind, _ in old], [kind for kind, _ in new], autojunk=False)
    pairs: list[_Pair] = []
    for tag, a, a_end, b, b_end in matcher.get_opcodes():
        if tag == "equal":
            pairs += [(a + at, b + at) for at in range(a_end - a)]
        else:
            pairs += [(at, None) for at in range(a, a_end)] + [(None, at) for at in range(b, b_end)]
    return pairs


# ----------------------------------------------------------------------------------------------- the comparison


@dataclass(slots=True)
class _Lane:
    """A source, on both sides, with its alignment."""

    old: list[_Seen]
    new: list[_Seen]
    pairs: list[_Pair]
    cut: bool = False
    """A response that was cancelled on both sides."""


class _Comparison:
    def __init__(self, own_ids: Iterable[str], ignore: Ignore) -> None:
        self.ids = Ids(own_ids)
        self.found: list[Difference] = []
        self._ignore = ignore

    def differ(self, difference: Difference) -> None:
        if not self._ignore.event(difference.event):
            self.found.append(difference)

    def events(self, old: Iterable[_Seen], new: Iterable[_Seen]) -> None:
        before, after = _sources(self._wanted(old)), _sources(self._wanted(new))
        lanes = [_lane(before.answers, after.answers), _lane(before.turns, after.turns)]
        lanes += self._responses(before.responses, after.responses)
        # What names a thing binds its id before what refers to it is looked at.
        for lane in lanes:
            for a, b in lane.pairs:
                if a is not None and b is not None:
                    self._bind(lane.old[a].event, lane.new[b].event)
        lanes += self._transcriptions(before.transcriptions, after.transcriptions)
        for lane in lanes:
            self._compare(lane)

    def _wanted(self, events: Iterable[_Seen]) -> list[_Seen]:
        return [seen for seen in events if not self._ignore.event(seen.kind)]

    def _responses(self, old: dict[str, list[_Seen]], new: dict[str, list[_Seen]]) -> list[_Lane]:
        before, after = list(old.values()), list(new.values())
        pairs = align([_outline(events) for events in before], [_outline(events) for events in after])
        return [_lane(before[a] if a is not None else [], after[b] if b is not None else []) for a, b in pairs]

    def _transcriptions(self, old: dict[str, list[_Seen]], new: dict[str, list[_Seen]]) -> list[_Lane]:
        lanes = [_lane(events, new.get(self.ids.now.get(item, ""), [])) for item, events in old.items()]
        known = {self.ids.now.get(item) for item in old}
        return lanes + [_lane([], events) for item, events in new.items() if item not in known]

    def _bind(self, old: Any, new: Any) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            for key, value in old.items():
                other = new.get(key)
                if key == "id" and isinstance(value, str) and isinstance(other, str):
                    self.ids.bind(value, other)
                else:
                    self._bind(value, other)
        elif isinstance(old, list) and isinstance(new, list):
            for value, other in zip(old, new, strict=False):
                self._bind(value, other)

    def _compare(self, lane: _Lane) -> None:
        lost = [a for a, b in lane.pairs if a is not None and b is None]
        come = [b for a, b in lane.pairs if b is not None and a is None]
        if lane.cut:
            lost = [a for a in lost if not lane.old[a].kind.endswith(".delta")]
            come = [b for b in come if not lane.new[b].kind.endswith(".delta")]
        moved = []
        for same in (lambda one, other: one.print == other.print, lambda one, other: True):
            moved += _moved(lane, lost, come, same)
        for a, b in lane.pairs:
            if a is not None and b is not None:
                self.values(lane.old[a], lane.new[b], cut=lane.cut)
        for a, b in moved:
            seen = lane.old[a]
            self.differ(
                Difference(
                    "order", seen.kind, seen.line, after=_before(lane.old, a), now_after=_before(lane.new, b)
                )
            )
            self.values(seen, lane.new[b], cut=lane.cut)
        for a in lost:
            seen = lane.old[a]
            self.differ(
                Difference("missing", seen.kind, seen.line, recorded=seen.event, after=_before(lane.old, a))
            )
        for b in come:
            seen = lane.new[b]
            self.differ(Difference("extra", seen.kind, now=seen.event, after=_before(lane.new, b)))

    def values(self, old: _Seen, new: _Seen, *, cut: bool = False) -> None:
        """Compare what two events say, key by key."""
        if self._ignore.event(old.kind):
            return

        def differ(kind: Kind, path: str, recorded: Any, now: Any) -> None:
            self.found.append(Difference(kind, old.kind, old.line, path, recorded, now))

        def walk(path: str, key: str, a: Any, b: Any, volatile: bool) -> None:
            if path and self._ignore.value(old.kind, path):
                return
            if isinstance(a, dict) and isinstance(b, dict) and not _is_sound(key, a, b):
                for name in a:
                    inner = f"{path}.{name}" if path else name
                    if name in b:
                        walk(inner, name, a[name], b[name], volatile or (cut and name == "usage"))
                    elif not self._ignore.value(old.kind, inner):
                        differ("missing key", inner, a[name], None)
                for name in b.keys() - a.keys():
                    inner = f"{path}.{name}" if path else name
                    if not self._ignore.value(old.kind, inner):
                        differ("extra key", inner, None, b[name])
            elif isinstance(a, list) and isinstance(b, list):
                for at in range(max(len(a), len(b))):
                    inner = f"{path}[{at}]"
                    if at >= len(b):
                        differ("missing key", inner, a[at], None)
                    elif at >= len(a):
                        differ("extra key", inner, None, b[at])
                    else:
                        walk(inner, key, a[at], b[at], volatile)
            elif not self._equal(key, a, b, volatile or key in VOLATILE, cut):
                differ("value", path, a, b)

        walk("", "", old.event, new.event, volatile=False)

    def _equal(self, key: str, a: Any, b: Any, volatile: bool, cut: bool) -> bool:
        if volatile:
            return _json_type(a) == _json_type(b)
        if _is_sound(key, a, b):
            return bool(_print_of(a, key) == _print_of(b, key))
        if isinstance(a, str) and isinstance(b, str):
            if is_id(key):
                return self.ids.bind(a, b)
            if cut and key in _SAID:
                return a.startswith(b) or b.startswith(a)
            return a == b or self.ids.renamed(a) == b
        return _json_type(a) == _json_type(b) and bool(a == b)


def _is_sound(key: str, a: Any, b: Any) -> bool:
    return key == "audio" and all(
        isinstance(value, str) or (isinstance(value, dict) and value.keys() == {"bytes"}) for value in (a, b)
    )


def _lane(old: list[_Seen], new: list[_Seen]) -> _Lane:
    before, after = _printed(old), _printed(new)
    pairs = align([(seen.kind, seen.print) for seen in before], [(seen.kind, seen.print) for seen in after])
    return _Lane(before, after, pairs, cut=_cancelled(before) and _cancelled(after))


def _printed(events: list[_Seen]) -> list[_Seen]:
    return [
        replace(seen, print=json.dumps(_print_of(seen.event), sort_keys=True, default=repr))
        for seen in _folded(events)
    ]


def _cancelled(events: list[_Seen]) -> bool:
    return any(
        seen.kind == "response.done" and _text(seen.event, "response", "status") == "cancelled" for seen in events
    )


def _outline(events: list[_Seen]) -> tuple[str, str]:
    """Of a whole response, so that one more or one less does not shift all that come after it."""
    return "response", json.dumps([_print_of(seen.event) for seen in _folded(events)], sort_keys=True, default=repr)


def _moved(
    lane: _Lane, lost: list[int], come: list[int], same: Callable[[_Seen, _Seen], bool]
) -> list[tuple[int, int]]:
    """Takes what is in ``lost`` and ``come`` alike out of both."""
    found = []
    for a in list(lost):
        one = lane.old[a]
        b = next((b for b in come if lane.new[b].kind == one.kind and same(one, lane.new[b])), None)
        if b is not None:
            lost.remove(a)
            come.remove(b)
            found.append((a, b))
    return found


def _before(events: list[_Seen], at: int) -> str | None:
    return events[at - 1].kind if at else None
