"""What a client sends as an item, made an entry of a conversation (protocol section 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import structs

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.core import usage
from vivavoce.core.context import Entry, by_index
from vivavoce.core.conversation import Conversation
from vivavoce.core.ids import Ids
from vivavoce.wire import errors, items

_SPEECH: Final = (items.InputAudioPart(),)
"""The content of all turns whose words nobody is told: one object."""


def check_parts(item: items.ContextItem, path: str, fmt: AudioFormat, *, sees_images: bool) -> None:
    """Values are checked before anything that depends on the state (protocol section 6). Raises ClientFault."""
    for i, part in enumerate(item.content if isinstance(item, items.MessageItem) else ()):
        if isinstance(part, items.InputAudioPart):
            param = f"{path}.content[{i}].audio"
            if part.undecodable or len(part.audio) % fmt.sample_bytes:
                raise errors.invalid_audio(param, fmt.value)
            if not part.audio and part.transcript is None:
                raise errors.invalid_audio(param, fmt.value, "empty bytes")
        elif isinstance(part, items.InputImagePart):
            if not sees_images:
                raise errors.unsupported_by_model("image input", f"{path}.content[{i}].type")
            if part.problem is not None:
                raise errors.invalid_image(f"{path}.content[{i}].image_url", part.problem)


def entry_of(
    item: items.Item, ids: Ids, tokens: usage.Tokens, clip_of: Callable[[items.InputAudioPart], Clip]
) -> Entry:
    """Ids filled in, audio set apart by ``clip_of``, which may raise ClientFault."""
    clips: dict[int, Clip] = {}
    heard: dict[int, str] = {}
    image_tokens = 0
    item_id = item.id or ids.next("item")
    if isinstance(item, items.MessageItem):
        parts: list[items.Part] = []
        for i, part in enumerate(item.content):
            if isinstance(part, items.InputAudioPart):
                clip = clip_of(part)
                if clip.segments:
                    clips[i] = clip
                if part.transcript is not None:
                    heard[i] = part.transcript
                part = items.InputAudioPart(transcript=part.transcript)
            elif isinstance(part, items.InputImagePart):
                image_tokens += usage.image_tokens(part)
            parts.append(part)
        item = items.MessageItem(item_id, item.role, tuple(parts))
    elif isinstance(item, items.FunctionCallItem):
        item = structs.replace(item, id=item_id, call_id=item.call_id or ids.next("call"))
    else:
        item = structs.replace(item, id=item_id)
    return Entry(
        item,
        clips=by_index(clips),
        heard=by_index(heard),
        text_tokens=tokens.item(item) + sum(tokens.text(text) for i, text in heard.items() if i not in clips),
        audio_tokens=sum(usage.user_audio_tokens(clip.ticks) for clip in clips.values()),
        image_tokens=image_tokens,
    )


def spoken_entry(item_id: str, clip: Clip, tokens: usage.Tokens) -> Entry:
    """The item of a turn, as it is before its words are known."""
    item = items.MessageItem(item_id, "user", _SPEECH)
    return Entry(
        item,
        clips=by_index({0: clip}),
        listened=True,
        text_tokens=tokens.item(item),
        audio_tokens=usage.user_audio_tokens(clip.ticks),
    )


def check_call(conversation: Conversation, call_id: str, param: str) -> None:
    """Raises ClientFault when the conversation has no such call."""
    if not conversation.has_call(call_id):
        raise errors.unknown_tool_call(call_id, param)


def context_of(
    given: Sequence[tuple[items.ContextItem, str]],
    conversation: Conversation,
    make: Callable[[items.Item], Entry],
) -> tuple[Entry, ...]:
    """Items of one response alone, as entries under ids of our own: they are nobody else's. Raises ClientFault.

    ``given`` are items with their places in the client's event; ``make`` is :func:`entry_of` for this session.
    """
    entries: list[Entry] = []
    calls: set[str] = set()
    for item, path in given:
        if isinstance(item, items.ItemReference):
            entry = conversation.get(item.id)
            if entry is None:
                raise errors.unknown_reference(item.id, f"{path}.id")
        else:
            if isinstance(item, items.FunctionCallOutputItem) and item.call_id not in calls:
                check_call(conversation, item.call_id, f"{path}.call_id")
            entry = make(structs.replace(item, id=""))
            conversation.check_message(entry.item)
        if isinstance(entry.item, items.FunctionCallItem):
            calls.add(entry.item.call_id)
        entries.append(entry)
    return tuple(entries)


def appended(
    given: Sequence[tuple[items.Item, str]],
    conversation: Conversation,
    is_taken: Callable[[str], bool],
    make: Callable[[items.Item], Entry],
) -> tuple[Entry, ...]:
    """Items that join the conversation before a response, as entries. Raises ClientFault."""
    ids: set[str] = set()
    calls: set[str] = set()
    for item, path in given:
        if item.id and (item.id in ids or is_taken(item.id)):
            raise errors.duplicate_item(item.id, f"{path}.id")
        ids.add(item.id)
        if isinstance(item, items.FunctionCallOutputItem) and item.call_id not in calls:
            check_call(conversation, item.call_id, f"{path}.call_id")
        if isinstance(item, items.FunctionCallItem):
            calls.add(item.call_id)
    entries = tuple(make(item) for item, _ in given)
    conversation.check_room(entries)
    return entries
