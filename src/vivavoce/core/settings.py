"""What a client makes of the settings of its session (protocol section 3), and when they contradict each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType

from msgspec import UNSET, structs

from vivavoce.core import prompts
from vivavoce.wire import errors
from vivavoce.wire import session_config as sc
from vivavoce.wire.prompts import Prompts


def merge(config: sc.SessionConfig, patch: sc.SessionPatch, first: sc.SessionConfig) -> sc.SessionConfig:
    """``config`` with what the patch sets, by top-level key. ``first``: what the session began with."""
    changes = {name: value for name in config.__struct_fields__ if (value := getattr(patch, name)) is not UNSET}
    if patch.instructions is None:
        changes["instructions"] = first.instructions
    return structs.replace(config, **changes)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What settings depend on that not every server or model has."""

    reduces_noise: bool = False
    reasons: bool = False
    """The model takes an effort to reason with."""
    max_input: int | None = None
    """Tokens that the model reads; None for any number."""
    prompts: Prompts = field(default_factory=lambda: MappingProxyType({}))
    """That may be named."""


def applied(
    config: sc.SessionConfig, patch: sc.SessionPatch, first: sc.SessionConfig, abilities: Abilities
) -> sc.SessionConfig:
    """``config`` as the client wants it; see :func:`merge`. Raises ClientFault."""
    if patch.prompt is not UNSET:
        config = prompts.forgotten(config, first, abilities.prompts)
        patch = prompts.filled(patch, abilities.prompts, "session.prompt")
    merged = merge(config, patch, first)
    if merged.input_audio_noise_reduction is not None and not abilities.reduces_noise:
        raise errors.no_noise_reduction("session.input_audio_noise_reduction")
    check_tool_choice(merged.tool_choice, merged.tools, "session.tool_choice")
    check_reasoning(merged.reasoning, "session.reasoning", reasons=abilities.reasons)
    check_truncation(merged.truncation, abilities.max_input, "session.truncation")
    return merged


def begun(first: sc.SessionConfig, patch: sc.SessionPatch, abilities: Abilities) -> sc.SessionConfig:
    """What a session begins with for which somebody has asked beforehand; see :func:`applied`."""
    return applied(first, patch, first, abilities)


def check_tool_choice(choice: sc.ToolChoice, tools: tuple[sc.FunctionTool, ...], param: str) -> None:
    """Raises ClientFault when a function is demanded that there is not."""
    if isinstance(choice, sc.NamedFunction) and all(tool.name != choice.name for tool in tools):
        raise errors.unknown_tool(choice.name, param)


def check_reasoning(effort: sc.ReasoningEffort | None, param: str, *, reasons: bool) -> None:
    """Raises ClientFault when a model is to think that does not."""
    if effort is not None and not reasons:
        raise errors.unsupported_by_model("reasoning", param)


def check_truncation(truncation: sc.Truncation, max_input: int | None, param: str) -> None:
    """Raises ClientFault when more tokens of items are allowed than the model reads at all."""
    allowed = truncation.post_instructions if isinstance(truncation, sc.RetentionRatio) else None
    if allowed is not None and max_input is not None and allowed > max_input:
        raise errors.number_above(f"{param}.token_limits.post_instructions", "integer", max_input, allowed)


def listens_alike(one: sc.SessionConfig, other: sc.SessionConfig) -> bool:
    """A recognition begun under the one serves the other."""
    return _words_wanted(one) == _words_wanted(other) and is_judged(one) == is_judged(other)


def wants_logprobs(config: sc.SessionConfig) -> bool:
    """The client wants to know how sure the recogniser is."""
    return config.input_audio_transcription is not None and sc.LOGPROBS in (config.include or ())


def is_judged(config: sc.SessionConfig) -> bool:
    """The end of a turn is a question of what was said."""
    return isinstance(config.turn_detection, sc.SemanticVad)


def _words_wanted(config: sc.SessionConfig) -> tuple[sc.Transcription | None, bool]:
    return config.input_audio_transcription, wants_logprobs(config)
