"""The built-in language model: deterministic, offline, made to be relied on in tests.

Laws
----
1. Same script and same request, same deltas. No clock, no randomness, no memory between requests.
2. Between any two pieces it streams it gives way to the event loop, so that a cancel finds something to cut.
3. Everything it does is stated in docs/reference/scripted-model.md, in order of precedence.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from vivavoce.engines.base import (
    AudioInput,
    EngineError,
    EngineOptionsError,
    Finish,
    GenerationRequest,
    ImageInput,
    LanguageModel,
    LanguageModelCapabilities,
    Message,
    ModelDelta,
    NamedTool,
    TextDelta,
    TextInput,
    Tool,
    ToolArgumentsDelta,
    ToolCall,
    ToolCallStart,
    ToolOutput,
)
from vivavoce.engines.builtin.schema_values import UnsatisfiableSchemaError, build_arguments
from vivavoce.engines.builtin.scripted_phrases import HEARD_NOTHING, directed, echo, greeting, speak_output
from vivavoce.engines.builtin.scripted_script import (
    Action,
    Answer,
    Call,
    End,
    Fail,
    Say,
    Script,
    ScriptError,
    Situation,
    Wait,
    compact,
    explain,
    load,
)
from vivavoce.engines.builtin.text_hints import STOP_WORDS, split_words

PATH_OPTIONS = ("script",)
"""Options that name files; whoever reads the configuration makes them absolute."""

_LONGEST_PIECE = 32
_IGNORED_IN_NAMES = frozenset(
    {"a", "an", "the", "get", "set", "do", "find", "look", "up", "lookup", "fetch", "run", "call", "make", "my"}
    | {"function", "tool", "of", "for", "to", "in", "on", "by", "with", "and", "or", "is"}
)
_WORD = re.compile(r"\s*\S+|\s+$")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^"\[\]{},:]+')


class Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The options of the configuration table."""

    script: str | None = None
    """Path of a script file."""
    word_delay_ms: Annotated[int, msgspec.Meta(ge=0, le=600_000)] = 10
    """Milliseconds between two pieces."""
    sees_images: bool = False
    """Pictures are taken, and read as the words ``a picture``."""


def create(options: Mapping[str, Any]) -> LanguageModel:
    """Make the engine; the entry point ``scripted``. Raises :class:`EngineOptionsError`."""
    try:
        checked = msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as fault:
        raise EngineOptionsError(*explain(fault)) from fault
    script = None
    if checked.script is not None:
        try:
            script = load(Path(checked.script))
        except ScriptError as fault:
            raise EngineOptionsError("script", str(fault)) from fault
    return ScriptedModel(script, word_delay_ms=checked.word_delay_ms, sees_images=checked.sees_images)


class ScriptedModel:
    """A language model that answers by rule. ``script`` is asked first."""

    name = "scripted"
    version = "1"

    def __init__(self, script: Script | None = None, *, word_delay_ms: int = 10, sees_images: bool = False) -> None:
        self._script = script
        self._word_delay_ms = word_delay_ms
        self.capabilities = LanguageModelCapabilities(hears_audio=False, sees_images=sees_images, calls_tools=True)

    async def start(self) -> None:
        """Nothing to load; the script was read when the engine was made."""

    async def close(self) -> None:
        """Nothing to free."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[ModelDelta, None]:
        """Stream the answer, one delta per word or JSON token, then :class:`Finish`.

        Raises :class:`EngineError`: what a script's ``fail`` says, ``unknown_tool``, ``no_tools``,
        ``unsatisfiable_tool_schema`` or ``script_value_invalid``.
        """
        answer = self._answer(request)
        delay = (self._word_delay_ms if answer.word_delay_ms is None else answer.word_delay_ms) / 1000
        left = request.max_output_tokens
        first = True
        for step in answer.actions:
            if isinstance(step, Wait):
                await asyncio.sleep(step.ms / 1000)
                first = True
                continue
            if isinstance(step, Fail):
                raise EngineError(step.code, step.message, type=step.type)
            if isinstance(step, End):
                yield Finish(step.reason)
                return
            for delta in _deltas(step):
                if left == 0:
                    yield Finish("max_output_tokens")
                    return
                if not first:
                    await asyncio.sleep(delay)
                yield delta
                first = False
                if left is not None and not isinstance(delta, ToolCallStart):
                    left -= 1
        yield Finish("stop")

    def _answer(self, request: GenerationRequest) -> Answer:
        """The answer of the script, else the model's own, with everything in it that can fail already done."""
        context = _Context.of(request)
        scripted = self._script.answer(context.situation) if self._script is not None else None
        answer = scripted or Answer((_own_action(request, context),), None)
        return Answer(tuple(_complete(answer.actions, request.tools, context.situation.text)), answer.word_delay_ms)


@dataclass(frozen=True, slots=True)
class _Context:
    situation: Situation
    spoken_to: bool
    """True when the context has a user message."""

    @classmethod
    def of(cls, request: GenerationRequest) -> _Context:
        turns = [turn for turn in request.turns if not (isinstance(turn, Message) and turn.role == "system")]
        users = [at for at, turn in enumerate(turns) if isinstance(turn, Message) and turn.role == "user"]
        names = {turn.call_id: turn.name for turn in turns if isinstance(turn, ToolCall)}
        outputs: list[tuple[str | None, str]] = []
        for turn in reversed(turns):
            if not isinstance(turn, ToolOutput):
                break
            outputs.insert(0, (names.get(turn.call_id), turn.output))
        last = users[-1] if users else -1
        situation = Situation(
            text=_text_of(turns[last]) if users else "",
            user_turns=len(users),
            outputs=tuple(outputs),
            answered=any(isinstance(turn, ToolOutput) for turn in turns[last + 1 :]),
            calls_allowed=request.tool_choice != "none",
        )
        return cls(situation, bool(users))


def _text_of(turn: object) -> str:
    """What a user message says, one space between: texts, what was heard in audio, and that there is a picture."""
    assert isinstance(turn, Message)
    said: list[str] = []
    for part in turn.content:
        match part:
            case TextInput():
                said += [" ".join(part.text.split())]
            case AudioInput():
                said += [" ".join((part.transcript or "").split())]
            case ImageInput():
                said += ["a picture"]
    return " ".join(filter(None, said))


def _own_action(request: GenerationRequest, context: _Context) -> Action:
    """What the model does when no rule answers, in order of precedence."""
    situation = context.situation
    tool = _tool_to_call(request, situation)
    if tool is not None:
        return Call(tool.name, None)
    if situation.outputs:
        return Say(" ".join(speak_output(name, output) for name, output in situation.outputs))
    told = directed(request.instructions)
    if told is not None:
        return Say(told)
    if not context.spoken_to:
        return Say(greeting(request.instructions))
    return Say(echo(situation.text) if situation.text else HEARD_NOTHING)


def _tool_to_call(request: GenerationRequest, situation: Situation) -> Tool | None:
    choice, tools = request.tool_choice, request.tools
    if choice == "none":
        return None
    if isinstance(choice, NamedTool):
        return _offered(tools, choice.name)
    words = frozenset(split_words(situation.text))
    if choice == "required":
        if not tools:
            raise EngineError(
                "no_tools",
                "tool_choice is 'required', but no function is offered.",
                type="invalid_request_error",
            )
        about = words - STOP_WORDS - _IGNORED_IN_NAMES
        related = (tool for tool in tools if about & {*split_words(tool.name), *split_words(tool.description)})
        return next(related, tools[0])
    if situation.answered:
        return None
    named = [tool for tool in tools if frozenset() < _naming_words(tool.name) <= words]
    return max(named, key=lambda tool: len(_naming_words(tool.name)), default=None)


def _naming_words(name: str) -> frozenset[str]:
    """The words of a function's name that a user must say to have it called."""
    words = frozenset(split_words(name))
    return words - _IGNORED_IN_NAMES or words


def _offered(tools: Sequence[Tool], name: str) -> Tool:
    for tool in tools:
        if tool.name == name:
            return tool
    raise EngineError(
        "unknown_tool",
        f"The function '{name}' was to be called, but the request does not offer it.",
        type="invalid_request_error",
    )


def _complete(actions: Sequence[Action], tools: Sequence[Tool], text: str) -> Iterator[Action]:
    """The actions with the arguments of calls filled in, and a space between texts that follow each other."""
    speaking = False
    for action in actions:
        if isinstance(action, Say) and action.text:
            yield Say(f" {action.text}") if speaking else action
            speaking = not action.text[-1].isspace()
        elif isinstance(action, Call):
            tool = _offered(tools, action.name)
            arguments = _arguments(tool, text) if action.arguments is None else action.arguments
            yield Call(action.name, arguments)
            speaking = False
        else:
            yield action


def _arguments(tool: Tool, text: str) -> dict[str, Any]:
    try:
        return build_arguments(tool.parameters, text)
    except UnsatisfiableSchemaError as fault:
        raise EngineError(
            "unsatisfiable_tool_schema",
            f"No arguments for the function '{tool.name}': {fault}.",
            type="invalid_request_error",
        ) from fault


def _deltas(action: Say | Call) -> Iterator[ModelDelta]:
    """A text word by word, each with the space before it; a call token by token."""
    if isinstance(action, Say):
        for word in _WORD.findall(action.text):
            for at in range(0, len(word), _LONGEST_PIECE):
                yield TextDelta(word[at : at + _LONGEST_PIECE])
        return
    yield ToolCallStart(action.name)
    for token in _JSON_TOKEN.findall(compact(action.arguments or {})):
        yield ToolArgumentsDelta(token)
