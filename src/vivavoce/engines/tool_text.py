"""Function calls in what a model writes: models that run here are taught to write them down as text.

The chat template of a model tells which way it was taught:

- ``hermes`` (Hermes, Qwen): ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, among other words;
- ``llama`` (Llama 3.1 and later): ``{"name": ..., "parameters": {...}}`` in the place of a message.

What a model thinks, between ``<think>`` and ``</think>``, is nobody's to hear.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias

from vivavoce.engines.base import (
    EngineError,
    ModelDelta,
    NamedTool,
    TextDelta,
    Tool,
    ToolArgumentsDelta,
    ToolCallStart,
    ToolChoice,
)

ToolFormat: TypeAlias = Literal["hermes", "llama", "none"]

_CALL: Final = ("<tool_call>", "</tool_call>")
_THOUGHT: Final = ("<think>", "</think>")
_ARGUMENTS: Final[dict[ToolFormat, str]] = {"hermes": "arguments", "llama": "parameters"}


def tool_format(chat_template: str) -> ToolFormat:
    """How a model with this chat template writes calls; "none" when it does not, or in a way that is not known."""
    if "<tool_call>" in chat_template and "<function=" not in chat_template:
        return "hermes"
    if '"parameters":' in chat_template and "ipython" in chat_template:
        return "llama"
    return "none"


class ToolText:
    """Reads the words of one turn. What may yet become a call or a thought is held back until that is clear."""

    def __init__(self, written: ToolFormat, tools: Sequence[Tool]) -> None:
        """``tools``: those that may be called. Without any, nothing is read as a call."""
        self._format: ToolFormat = written if tools else "none"
        self._names = {tool.name for tool in tools}
        self._held = ""
        self._closing: str | None = None
        """What ends the call or the thought that is being written."""
        self._begun = False
        """Something of the message itself has been said."""

    def feed(self, text: str) -> Iterator[ModelDelta]:
        """What is clear now. Raises :class:`EngineError` for a call that is none."""
        self._held += text
        if self._format == "llama" and not self._begun and self._held.lstrip().startswith("{"):
            return
        yield from self._read(last=False)

    def finish(self, *, cut: bool) -> Iterator[ModelDelta]:
        """The turn is over; ``cut``: in the middle, so that a call without its end is dropped."""
        if self._format == "llama" and not self._begun and self._held.lstrip().startswith("{"):
            yield from self._bare_calls(cut=cut)
            return
        yield from self._read(last=True)
        if self._closing == _CALL[1] and not cut:
            yield from self._call(self._held)

    def _read(self, *, last: bool) -> Iterator[ModelDelta]:
        opening = {_THOUGHT[0]: _THOUGHT[1]} | ({_CALL[0]: _CALL[1]} if self._format == "hermes" else {})
        while self._held:
            if self._closing is not None:
                inside, found, rest = self._held.partition(self._closing)
                if not found:
                    return
                closing, self._closing, self._held = self._closing, None, rest
                if closing == _CALL[1]:
                    yield from self._call(inside)
                continue
            at, tag = min(((self._held.find(tag), tag) for tag in opening if tag in self._held), default=(-1, ""))
            if tag:
                before, self._held, self._closing = self._held[:at], self._held[at + len(tag) :], opening[tag]
                yield from self._say(before)
                continue
            keep = 0 if last else max(_begun(self._held, tag) for tag in opening)
            said, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            yield from self._say(said)
            return

    def _say(self, text: str) -> Iterator[ModelDelta]:
        """White space before the message, and between calls, is none of it."""
        if not self._begun:
            text = text.lstrip()
        if text:
            self._begun = True
            yield TextDelta(text)

    def _call(self, text: str) -> Iterator[ModelDelta]:
        try:
            # Models leave line ends within texts as they are.
            written = json.loads(text, strict=False)
        except ValueError:
            written = None
        name, arguments = (
            (written.get("name"), written.get(_ARGUMENTS[self._format], {}))
            if isinstance(written, dict)
            else (None, None)
        )
        if name not in self._names or not isinstance(arguments, dict):
            raise EngineError("invalid_tool_call", "The model wrote a function call that cannot be read.")
        self._begun = False
        yield ToolCallStart(name)
        yield ToolArgumentsDelta(json.dumps(arguments, ensure_ascii=False))

    def _bare_calls(self, *, cut: bool) -> Iterator[ModelDelta]:
        """One object, or several with semicolons or line ends between. Anything else was text after all."""
        rest, calls = self._held.strip(), []
        while rest:
            try:
                _, end = json.JSONDecoder(strict=False).raw_decode(rest)
            except ValueError:
                if not cut:
                    yield from self._say(self._held)
                    return
                break
            calls.append(rest[:end])
            rest = rest[end:].lstrip(" ;\n")
        for call in calls:
            yield from self._call(call)


def _begun(text: str, tag: str) -> int:
    """How many characters at the end of ``text`` may be the beginning of ``tag``."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)


def forced_call(written: ToolFormat, choice: ToolChoice, tools: Sequence[Tool]) -> tuple[str, str, dict[str, Any]]:
    """For a turn that must be a call: what is put into the model's mouth, what stands before the JSON then, and the
    JSON schema of it."""
    wanted = [tool for tool in tools if not isinstance(choice, NamedTool) or tool.name == choice.name]
    shapes = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool.name},
                _ARGUMENTS[written]: dict(tool.parameters) or {"type": "object"},
            },
            "required": ["name", _ARGUMENTS[written]],
        }
        for tool in wanted
    ]
    schema = shapes[0] if len(shapes) == 1 else {"oneOf": shapes}
    return (_CALL[0], "\n", schema) if written == "hermes" else ("", "", schema)
