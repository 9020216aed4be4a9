"""Client secrets, which backends mint for browsers, without dialect (protocol section 1.5)."""

from __future__ import annotations

import msgspec

from vivavoce.wire.session_config import SessionKind, SessionPatch


class SecretRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a secret is asked for."""

    session: SessionPatch
    """What the sessions begin with that it opens; ``model`` UNSET: the request names none."""
    kind: SessionKind
    seconds: int
    """How long it opens sessions."""
