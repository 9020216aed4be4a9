"""Stored prompts: texts with gaps that a session names instead of sending them (events.yaml, ``prompt``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from vivavoce.wire.session_config import FunctionTool, ToolChoice, Voice

MAX_INSTRUCTIONS: Final = 1_048_576
"""Characters, also when the gaps are filled (protocol section 9.2)."""
GAP: Final = re.compile(r"\{\{\s*([A-Za-z][A-Za-z0-9_-]*)\s*\}\}")
"""``{{name}}``, where a variable goes."""


class PromptVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a prompt: what it says of the settings of a session, or of the options of a response."""

    instructions: str
    """With its gaps."""
    voice: Voice | UnsetType = UNSET
    tools: tuple[FunctionTool, ...] | UnsetType = UNSET
    tool_choice: ToolChoice | UnsetType = UNSET
    max_output_tokens: int | UnsetType | None = UNSET

    @property
    def variables(self) -> tuple[str, ...]:
        """What must be given, in the order of the text."""
        return tuple(dict.fromkeys(GAP.findall(self.instructions)))

    def filled(self, values: Mapping[str, str]) -> str:
        """The instructions with a value in each gap; what a value says is text, and has no gaps."""
        return GAP.sub(lambda gap: values[gap[1]], self.instructions)


class StoredPrompt(msgspec.Struct, frozen=True, kw_only=True):
    versions: Mapping[str, PromptVersion]
    default: str
    """The version for those who name none."""


Prompts: TypeAlias = Mapping[str, StoredPrompt]
"""By id."""
