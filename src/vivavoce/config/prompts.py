"""``[prompt.ID]``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET

from vivavoce.config.convert import among, convert, table_of
from vivavoce.config.values import ConfigError, Text
from vivavoce.wire.prompts import GAP, MAX_INSTRUCTIONS, PromptVersion, StoredPrompt
from vivavoce.wire.session_config import VOICES, FunctionTool, NamedFunction, ToolChoice, Voice

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_BRACES: Final = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_TOOL_CHOICES: Final[tuple[Literal["auto", "none", "required"], ...]] = ("auto", "none", "required")


class _Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function, with the bounds that clients have for theirs."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    parameters: dict[str, Any] | None = None


class _Version(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Text
    instructions: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_INSTRUCTIONS)]
    voice: str | None = None
    tools: tuple[_Tool, ...] | None = None
    tool_choice: Text | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None


class _Prompt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: tuple[dict[str, Any], ...]
    default: Text | None = None
    account: str = ""


class PromptSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[prompt.ID]``: instructions that clients name instead of sending them."""

    account: str
    """Whose clients have it."""
    prompt: StoredPrompt


def read_prompts(table: Mapping[str, Any], accounts: Sequence[str]) -> Mapping[str, PromptSettings]:
    """By id. ``accounts``: names of all that are declared."""
    prompts: dict[str, PromptSettings] = {}
    for name, entry in table_of(table, "prompt").items():
        path = f"prompt.{name}"
        if _ID.fullmatch(name) is None:
            raise ConfigError(path, "the id of a prompt is up to 128 letters, digits, '-' and '_'")
        if not isinstance(entry, dict):
            raise ConfigError(path, f"expected a table, [{path}]")
        head = convert(entry, _Prompt, path)
        if head.account and head.account not in accounts:
            raise ConfigError(f"{path}.account", f"there is no account '{head.account}'{among(accounts)}")
        prompts[name] = PromptSettings(account=head.account or accounts[0], prompt=_prompt(head, path))
    return prompts


def _prompt(head: _Prompt, path: str) -> StoredPrompt:
    if not head.version:
        raise ConfigError(f"{path}.version", "a prompt has at least one version")
    versions: dict[str, PromptVersion] = {}
    for index, entry in enumerate(head.version):
        at = f"{path}.version[{index}]"
        one = convert(entry, _Version, at)
        if one.version in versions:
            raise ConfigError(f"{at}.version", f"there is a version '{one.version}' already")
        versions[one.version] = _version(one, at)
    default = next(reversed(versions)) if head.default is None else head.default
    if default not in versions:
        raise ConfigError(f"{path}.default", f"there is no version '{default}'{among(versions)}")
    return StoredPrompt(versions=versions, default=default)


def _version(one: _Version, path: str) -> PromptVersion:
    for braces in _BRACES.findall(one.instructions):
        if GAP.fullmatch(braces) is None:
            raise ConfigError(
                f"{path}.instructions",
                f"{braces} names no variable: a letter, then letters, digits, '_' and '-'",
            )
    tools = tuple(FunctionTool(tool.name, tool.description, tool.parameters) for tool in one.tools or ())
    return PromptVersion(
        instructions=one.instructions,
        voice=UNSET if one.voice is None else _voice(one.voice, f"{path}.voice"),
        tools=UNSET if one.tools is None else tools,
        tool_choice=UNSET if one.tool_choice is None else _tool_choice(one.tool_choice, tools, path),
        max_output_tokens=UNSET if one.max_output_tokens is None else one.max_output_tokens,
    )


def _voice(name: str, path: str) -> Voice:
    for voice in VOICES:
        if voice == name:
            return voice
    raise ConfigError(path, f"'{name}' is no voice{among(VOICES)}")


def _tool_choice(said: str, tools: tuple[FunctionTool, ...], path: str) -> ToolChoice:
    """One of three words, or the name of a tool of the prompt."""
    for choice in _TOOL_CHOICES:
        if choice == said:
            return choice
    names = [tool.name for tool in tools]
    if said not in names:
        known = among((*_TOOL_CHOICES, *names))
        raise ConfigError(f"{path}.tool_choice", f"'{said}' is no tool of the prompt{known}")
    return NamedFunction(said)
