"""What a client sends as an item, made an entry of a conversation (protocol section 4.4)."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from msgspec import structs

from vivavoce.audio.formats import AudioFormat, Clip
from vivavoce.core import usage
from vivavoce.core.context import Entry
from vivavoce.core.ids import Ids
from vivavoce.wire import errors, items


def check_audio(item: items.ContextItem, path: str, fmt: AudioFormat) -> None:
    """Values are checked before anything that depends on the state (protocol section 6). Raises ClientFault."""
    for i, part in enumerate(item.content if isinstance(item, items.MessageItem) else ()):
        if isinstance(part, items.InputAudioPart):
            param = f"{path}.content[{i}].audio"
            if part.undecodable or len(part.audio) % fmt.sample_bytes:
                raise errors.invalid_audio(param, fmt.value)
            if not part.audio and part.transcript is None:
                raise errors.invalid_audio(param, fmt.value, "empty bytes")


def entry_of(
    item: items.Item, ids: Ids, tokens: usage.Tokens, clip_of: Callable[[items.InputAudioPart], Clip]
) -> Entry:
    """Ids filled in, audio set apart by ``clip_of``, which may raise ClientFault."""
    clips: dict[int, Clip] = {}
    heard: dict[int, str] = {}
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
            parts.append(part)
        item = items.MessageItem(item_id, item.role, tuple(parts))
    elif isinstance(item, items.FunctionCallItem):
        item = structs.replace(item, id=item_id, call_id=item.call_id or ids.next("call"))
    else:
        item = structs.replace(item, id=item_id)
    return Entry(
        item,
        clips=MappingProxyType(clips),
        heard=MappingProxyType(heard),
        text_tokens=tokens.item(item) + sum(tokens.text(text) for i, text in heard.items() if i not in clips),
        audio_tokens=sum(usage.user_audio_tokens(clip.ticks) for clip in clips.values()),
    )
