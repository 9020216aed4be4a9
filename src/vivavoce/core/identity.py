"""What a session is, from its first event to its last."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from vivavoce.core import settings, usage
from vivavoce.core.conversation import MESSAGE_LIMITS, MessageLimits
from vivavoce.core.window import Window
from vivavoce.wire import session_config as sc
from vivavoce.wire.prompts import Prompts


@dataclass(frozen=True, slots=True)
class Identity:
    """What does not change in the life of a session."""

    model: str
    """The model name to report."""
    created_at: int
    """Unix seconds."""
    lifetime_s: int
    seed: bytes
    """Decides all ids of the session."""
    model_aliases: frozenset[str] = frozenset()
    """Other names that clients have for the model, and repeat in ``session.update``: its deployment's, and its own
    without the version."""
    kind: sc.SessionKind = "realtime"
    tokens: usage.Tokens = field(default_factory=usage.Tokens)
    keeps_audio: bool = True
    """User audio is kept when its words are known: the client may ask for it, or the model listens to it itself."""
    heard_text: bool = True
    """Of what the assistant said, the model keeps the words that were heard before a truncation."""
    speculates: bool = False
    """The answer to a turn that is likely over may be worked on (:class:`contract.Speculate`)."""
    holds_outputs: bool = False
    """The output of a function joins the conversation when its running response has ended."""
    sees_images: bool = False
    """The model takes pictures."""
    reasons: bool = False
    """The model takes an effort to reason with."""
    window: Window = field(default_factory=Window)
    message_limits: MessageLimits = MESSAGE_LIMITS
    reduces_noise: bool = False
    """Whoever feeds the session applies ``input_audio_noise_reduction`` to the audio first."""
    prompts: Prompts = field(default_factory=lambda: MappingProxyType({}))

    @property
    def abilities(self) -> settings.Abilities:
        """What its settings depend on."""
        return settings.Abilities(self.reduces_noise, self.reasons, self.window.max_input, self.prompts)
