"""What a stored prompt makes of a session or a response that names it.

A prompt stands behind what is said beside it: it gives the fields that the event leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import UNSET, structs

from vivavoce.wire import errors
from vivavoce.wire import session_config as sc
from vivavoce.wire.prompts import MAX_INSTRUCTIONS, Prompts, PromptVersion

_T = TypeVar("_T", sc.SessionPatch, sc.ResponseOptions)


def filled(asked: _T, prompts: Prompts, param: str) -> _T:
    """``asked`` with the fields of the prompt that it names. ``param``: where it does. Raises ClientFault."""
    if not isinstance(asked.prompt, sc.PromptReference):
        return asked
    said = _said(asked.prompt, prompts, param)
    return structs.replace(asked, **{name: value for name, value in said.items() if getattr(asked, name) is UNSET})


def forgotten(config: sc.SessionConfig, first: sc.SessionConfig, prompts: Prompts) -> sc.SessionConfig:
    """``config`` without its prompt: what that has given, and nobody changed since, is as in ``first``."""
    if config.prompt is None:
        return config
    said = _said(config.prompt, prompts, "session.prompt")
    return structs.replace(
        config,
        prompt=None,
        **{name: getattr(first, name) for name, value in said.items() if getattr(config, name) == value},
    )


def _said(reference: sc.PromptReference, prompts: Prompts, param: str) -> Mapping[str, Any]:
    """The fields that a prompt gives, by name."""
    version = _version(reference, prompts)
    variables = reference.variables if isinstance(reference.variables, Mapping) else {}
    given = {name: value if isinstance(value, str) else value.text for name, value in variables.items()}
    wanted = version.variables
    for name in given:
        if name not in wanted:
            raise errors.unknown_parameter(f"{param}.variables.{name}")
    for name in wanted:
        if name not in given:
            raise errors.missing_parameter(f"{param}.variables.{name}")
    instructions = version.filled(given)
    if len(instructions) > MAX_INSTRUCTIONS:
        raise errors.string_too_long(f"{param}.variables", MAX_INSTRUCTIONS, len(instructions))
    fields = {name: getattr(version, name) for name in version.__struct_fields__}
    return {name: value for name, value in fields.items() if value is not UNSET} | {"instructions": instructions}


def _version(reference: sc.PromptReference, prompts: Prompts) -> PromptVersion:
    prompt = prompts.get(reference.id)
    if prompt is None:
        raise errors.unknown_prompt(reference.id)
    name = reference.version if isinstance(reference.version, str) else prompt.default
    version = prompt.versions.get(name)
    if version is None:
        raise errors.unknown_prompt_version(reference.id, name)
    return version
