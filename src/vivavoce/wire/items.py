"""Conversation items and their content parts, as the core knows them: no dialect, no base64.

A dialect (``wire/dialects``) maps these to and from the names and shapes of one wire (protocol section 7.1).
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Role: TypeAlias = Literal["system", "user", "assistant"]
ItemStatus: TypeAlias = Literal["in_progress", "completed", "incomplete"]
Detail: TypeAlias = Literal["auto", "low", "high"]
"""How closely a picture is looked at; ``auto`` is ``high``."""


class InputTextPart(msgspec.Struct, frozen=True, gc=False, tag="input_text"):
    """Text from the client, in a system or user message."""

    text: str


class InputAudioPart(msgspec.Struct, frozen=True, gc=False, tag="input_audio"):
    """Speech from the client, in a user message."""

    transcript: str | None = None
    audio: bytes = b""
    """Set on the way in only: bytes in the session's input format; the conversation keeps them apart."""
    undecodable: bool = False
    """On the way in: the audio was not base64."""


class InputImagePart(msgspec.Struct, frozen=True, gc=False, tag="input_image"):
    """A picture from the client, in a user message."""

    image_url: str
    """A ``data:`` URL."""
    detail: Detail = "auto"
    width: int = 0
    """Pixels; 0 where ``problem`` says that there is no picture."""
    height: int = 0
    problem: str | None = None
    """On the way in: what was there instead of a picture, in the words of errors."""


class TextPart(msgspec.Struct, frozen=True, gc=False, tag="text"):
    """Text of an assistant message."""

    text: str


class AudioPart(msgspec.Struct, frozen=True, gc=False, tag="audio"):
    """Speech of an assistant message; its sound is sent once, as deltas, and not kept."""

    transcript: str | None


OutputPart: TypeAlias = TextPart | AudioPart
Part: TypeAlias = InputTextPart | InputAudioPart | InputImagePart | TextPart | AudioPart


class MessageItem(msgspec.Struct, frozen=True, gc=False, tag="message"):
    id: str
    """Empty on the way in when the client leaves the choice to the server."""
    role: Role
    content: tuple[Part, ...]
    status: ItemStatus = "completed"


class FunctionCallItem(msgspec.Struct, frozen=True, gc=False, tag="function_call"):
    id: str
    call_id: str
    name: str
    arguments: str
    status: ItemStatus = "completed"


class FunctionCallOutputItem(msgspec.Struct, frozen=True, gc=False, tag="function_call_output"):
    id: str
    call_id: str
    output: str
    status: ItemStatus = "completed"


class ItemReference(msgspec.Struct, frozen=True, gc=False, tag="item_reference"):
    """Stands for an item of the default conversation, in the ``input`` of ``response.create`` only."""

    id: str


Item: TypeAlias = MessageItem | FunctionCallItem | FunctionCallOutputItem
ContextItem: TypeAlias = Item | ItemReference
