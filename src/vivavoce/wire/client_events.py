"""What a client can say: every client event, without dialect (protocol section 4)."""

from __future__ import annotations

from typing import TypeAlias, final

import msgspec

from vivavoce.wire.errors import ErrorBody
from vivavoce.wire.items import Item
from vivavoce.wire.session_config import ResponseOptions, SessionKind, SessionPatch


class SessionUpdate(msgspec.Struct, frozen=True, kw_only=True):
    session: SessionPatch
    kind: SessionKind = "realtime"
    """The kind of session that it is meant for."""
    event_id: str | None = None
    forgiven: tuple[str, ...] = ()
    """Kinds of spellings that a strict server refuses."""


@final
class InputAudioAppend(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    audio: bytes
    """Bytes in the session's input format; at most 15 MiB."""
    undecodable: bool = False
    """The audio was not base64; ``audio`` is empty then."""
    event_id: str | None = None


class InputAudioCommit(msgspec.Struct, frozen=True, kw_only=True):
    event_id: str | None = None


class InputAudioClear(msgspec.Struct, frozen=True, kw_only=True):
    event_id: str | None = None


class ItemCreate(msgspec.Struct, frozen=True, kw_only=True):
    item: Item
    previous_item_id: str | None = None
    """None appends, ``root`` puts first, an id puts after it."""
    event_id: str | None = None


class ItemDelete(msgspec.Struct, frozen=True, kw_only=True):
    item_id: str
    event_id: str | None = None


class ItemTruncate(msgspec.Struct, frozen=True, kw_only=True):
    item_id: str
    content_index: int
    audio_end_ms: int
    event_id: str | None = None


class ItemRetrieve(msgspec.Struct, frozen=True, kw_only=True):
    item_id: str
    event_id: str | None = None


class ResponseCreate(msgspec.Struct, frozen=True, kw_only=True):
    options: ResponseOptions = ResponseOptions()
    event_id: str | None = None
    forgiven: tuple[str, ...] = ()
    """Kinds of spellings that a strict server refuses."""


class ResponseCancel(msgspec.Struct, frozen=True, kw_only=True):
    response_id: str | None = None
    event_id: str | None = None


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that is no event of the protocol; the codec says why, the session answers in its order."""

    error: ErrorBody


ControlEvent: TypeAlias = (
    SessionUpdate
    | InputAudioCommit
    | InputAudioClear
    | ItemCreate
    | ItemDelete
    | ItemTruncate
    | ItemRetrieve
    | ResponseCreate
    | ResponseCancel
)
"""All but sound."""
ClientEvent: TypeAlias = InputAudioAppend | ControlEvent
