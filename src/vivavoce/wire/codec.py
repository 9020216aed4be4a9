"""Frames <-> events: the one door between bytes and the typed world.

Whatever a client sends, :meth:`Codec.decode` returns: an event, or :class:`~vivavoce.wire.client_events.Rejected`
with an error of the catalogue. Nothing else comes out, and nothing is raised (protocol sections 2 and 6).
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from vivavoce.wire import errors
from vivavoce.wire.client_events import ClientEvent, Rejected
from vivavoce.wire.client_secrets import SecretRequest
from vivavoce.wire.dialects.ga_in import GaDecoder
from vivavoce.wire.dialects.ga_out import GaEncoder
from vivavoce.wire.dialects.preview_in import PreviewDecoder
from vivavoce.wire.dialects.preview_out import PreviewEncoder
from vivavoce.wire.dialects.profiles import GA_PROFILES, PROFILES
from vivavoce.wire.errors import ClientFault
from vivavoce.wire.server_events import ServerEvent, Session
from vivavoce.wire.session_config import SessionKind

MAX_FRAME_BYTES = 22 * 1024 * 1024
"""A 15 MiB append is 20 MiB of base64; larger frames close the connection with 1009 (protocol section 1.4)."""


class Decoder(Protocol):
    def decode(self, frame: str | bytes) -> ClientEvent: ...

    def secret_request(self, body: dict[str, Any], kind: SessionKind) -> SecretRequest: ...


class Encoder(Protocol):
    def encode(self, event: ServerEvent, event_id: str) -> bytes | None: ...

    def client_secret(self, session: Session, value: str, expires_at: int) -> bytes: ...

    def secret_error(self, body: errors.ErrorBody) -> errors.ErrorBody: ...


class Codec:
    """One dialect of the protocol, both ways. Stateless: one serves any number of sessions."""

    def __init__(
        self, decoder: Decoder, encoder: Encoder, *, gives_audio_back: bool, holds_outputs: bool = False
    ) -> None:
        self._decoder = decoder
        self.encode = encoder.encode
        self.secret_request = decoder.secret_request
        """What a JSON object asks for that a client secret is minted with. Raises ClientFault."""
        self.client_secret = encoder.client_secret
        self._secret_error = encoder.secret_error
        self.gives_audio_back = gives_audio_back
        """A client can ask for audio that it sent."""
        self.holds_outputs = holds_outputs
        """The output of a function joins the conversation when its running response has ended."""

    def decode(self, frame: str | bytes) -> ClientEvent | Rejected:
        """One text frame -> an event, or why it is none."""
        try:
            return self._decoder.decode(frame)
        except ClientFault as fault:
            return Rejected(error=fault.body(_event_id(frame)))
        except msgspec.DecodeError as broken:
            return Rejected(error=errors.invalid_json(str(broken)).body(None))
        except UnicodeError:
            return Rejected(error=errors.invalid_json("The text is not UTF-8.").body(None))
        except RecursionError:
            return Rejected(error=errors.invalid_json("The value is nested too deeply.").body(None))

    def decode_binary(self) -> Rejected:
        """A binary frame arrived; the protocol has none."""
        return Rejected(error=errors.binary_frame().body(None))

    def secret_error(self, fault: ClientFault) -> errors.ErrorBody:
        """What is wrong in the body that a client secret is asked for with."""
        return self._secret_error(fault.body(None))


def preview_codec(profile: str, *, conversation_created: bool = True, strict: bool = True) -> Codec:
    """The preview dialect in one of its profiles. Raises KeyError for a profile that does not exist.

    ``strict``: the service's errors; False reads some spellings that only documents print (protocol section 8).
    """
    chosen = PROFILES[profile]
    return Codec(
        PreviewDecoder(chosen, strict=strict),
        PreviewEncoder(chosen, conversation_created=conversation_created),
        gives_audio_back=chosen.of_2025,
    )


def ga_codec(profile: str) -> Codec:
    """The GA dialect in one of its profiles. Raises KeyError for a profile that does not exist."""
    return Codec(GaDecoder(), GaEncoder(GA_PROFILES[profile]), gives_audio_back=True, holds_outputs=True)


def codec_of(profile: str, *, conversation_created: bool = True, strict: bool = True) -> Codec:
    """The dialect that has this profile; the other arguments are for :func:`preview_codec`. Raises KeyError."""
    if profile in GA_PROFILES:
        return ga_codec(profile)
    return preview_codec(profile, conversation_created=conversation_created, strict=strict)


def _event_id(frame: str | bytes) -> str | None:
    """The client's ``event_id`` in a frame that was refused, so that it can find its event again."""
    value = msgspec.json.decode(frame)
    event_id = value.get("event_id") if isinstance(value, dict) else None
    return event_id if isinstance(event_id, str) and len(event_id) <= 512 else None
