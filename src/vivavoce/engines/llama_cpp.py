"""A language model in this machine, by llama.cpp, with the ``llama-cpp-python`` package (extra ``llama-cpp``).

The model is loaded in worker processes (:mod:`vivavoce.engines.llama_cpp_worker`), one turn at a time in each. A
worker keeps what it has read: the next turn of the same conversation reads only what is new.

``model`` is a GGUF file. Its own chat template makes the prompt, unless ``chat_format`` names one of
llama-cpp-python's, which know no functions. How it writes function calls is seen from its template
(:mod:`vivavoce.engines.tool_text`). The options are told in ``docs/how-to/llama-cpp.md``.

What would be a control token of the model, ``<|...|>``, is taken out of what people and functions say.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import struct
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final, Literal

import msgspec

from vivavoce.engines.base import (
    AudioInput,
    EngineError,
    EngineOptionsError,
    Finish,
    GenerationRequest,
    ImageInput,
    InputUsage,
    JsonObject,
    LanguageModel,
    LanguageModelCapabilities,
    Message,
    ModelDelta,
    NamedTool,
    TextInput,
    Tool,
    ToolCall,
    ToolOutput,
    Turn,
    Usage,
)
from vivavoce.engines.builtin.worker_channel import MAX_PAYLOAD
from vivavoce.engines.builtin.worker_options import convert_options
from vivavoce.engines.builtin.worker_pool import WorkerPool, WorkerSpec
from vivavoce.engines.tool_text import ToolFormat, ToolText, forced_call, tool_format

PATH_OPTIONS: Final = ("model",)

_TEMPLATE_KEY: Final = "tokenizer.chat_template"
_CONTROL: Final = re.compile(r"<[|｜][^|｜<>\s]{1,40}[|｜]>|</?s>")
_LOAD_S: Final = 600.0


class LlamaOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    model: str
    n_ctx: Annotated[int, msgspec.Meta(ge=0)] = 4096
    """Tokens of context; 0 for as many as the model was trained with."""
    n_gpu_layers: Annotated[int, msgspec.Meta(ge=-1)] = 0
    n_threads: Annotated[int, msgspec.Meta(ge=1, le=256)] | None = None
    n_batch: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 512
    flash_attn: bool = False
    chat_format: str | None = None
    template_options: dict[str, bool | int | str] = msgspec.field(default_factory=dict)
    tool_format: Literal["auto"] | ToolFormat = "auto"
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] | None = None
    stop: list[Annotated[str, msgspec.Meta(min_length=1)]] = msgspec.field(default_factory=list)
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.95
    top_k: Annotated[int, msgspec.Meta(ge=0)] = 40
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    repeat_penalty: Annotated[float, msgspec.Meta(gt=0, le=10)] = 1.0
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    max_waiting: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 64
    job_timeout_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 120.0


class ModelSetup(msgspec.Struct, frozen=True):
    """Payload of SETUP; the fields are those of the options."""

    model: str
    n_ctx: int
    n_gpu_layers: int
    n_threads: int | None
    n_batch: int
    flash_attn: bool
    chat_format: str | None
    template_options: dict[str, bool | int | str]
    seed: int | None
    stop: list[str]
    top_p: float
    top_k: int
    min_p: float
    repeat_penalty: float


class TurnRequest(msgspec.Struct, frozen=True):
    """Payload of OPEN."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    temperature: float
    max_tokens: int | None
    begin: str = ""
    """What is put into the model's mouth."""
    lead: str = ""
    """What stands before the JSON of ``schema``."""
    schema: dict[str, Any] | None = None
    """JSON schema that the rest must follow."""


class TurnPiece(msgspec.Struct, frozen=True, omit_defaults=True):
    """Payload of DATA: more text, and with the last one how the turn ended."""

    text: str = ""
    reason: Literal["stop", "length"] | None = None
    read: int = 0
    """Tokens of the prompt, and those of them that the worker still had, and those that it wrote."""
    kept: int = 0
    written: int = 0


def create(options: JsonObject) -> LanguageModel:
    """The factory named by the entry point. Raises :class:`EngineOptionsError`."""
    checked = convert_options(options, LlamaOptions)
    template = _metadata(Path(checked.model), _TEMPLATE_KEY)
    if checked.chat_format is not None:
        for option in ("tool_format", "template_options"):
            if getattr(checked, option) not in ("auto", "none", {}):
                raise EngineOptionsError(option, "needs the model's own template, and so no chat_format")
        written: ToolFormat = "none"
    elif template is None:
        raise EngineOptionsError("chat_format", f"must be named, since {checked.model} has no chat template")
    else:
        written = tool_format(template) if checked.tool_format == "auto" else checked.tool_format
    return LlamaModel(checked, written)


class LlamaModel:
    """A :class:`~vivavoce.engines.base.LanguageModel`."""

    name = "llama_cpp"

    def __init__(self, options: LlamaOptions, written: ToolFormat) -> None:
        self.capabilities = LanguageModelCapabilities(calls_tools=written != "none")
        self._format: ToolFormat = written
        fields = {field: getattr(options, field) for field in ModelSetup.__struct_fields__}
        self._pool = WorkerPool(
            WorkerSpec(
                name=self.name,
                module="vivavoce.engines.llama_cpp_worker",
                setup=msgspec.json.encode(ModelSetup(**fields)),
                workers=options.workers,
                max_waiting=options.max_waiting,
                job_timeout_s=options.job_timeout_s,
                start_timeout_s=_LOAD_S,
            )
        )

    @property
    def version(self) -> str:
        """Of the package; empty when it is not installed."""
        try:
            return importlib.metadata.version("llama-cpp-python")
        except importlib.metadata.PackageNotFoundError:
            return ""

    @property
    def working(self) -> bool:
        return self._pool.working

    @property
    def restarts(self) -> int:
        return self._pool.restarts

    async def start(self) -> None:
        await self._pool.start()

    async def close(self) -> None:
        await self._pool.close()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[ModelDelta, None]:
        """See :class:`~vivavoce.engines.base.LanguageModel`.

        Raises :class:`EngineError`: ``context_length_exceeded``, ``invalid_context`` (the chat template refuses
        it), ``tools_not_supported``, ``invalid_tool_schema``, ``invalid_tool_call``, ``engine_overloaded``,
        ``engine_unavailable``, ``engine_crashed``.
        """
        tools = request.tools if self._format != "none" and request.tool_choice != "none" else ()
        text = ToolText(self._format, tools)
        asked = msgspec.json.encode(self._asked(request, tools))
        if len(asked) > MAX_PAYLOAD:
            raise EngineError("context_length_exceeded", "The conversation is too long for the model.")
        end = TurnPiece(reason="stop")
        async with self._pool.job(asked, request.session) as job:
            job.end()
            async for payload in job:
                end = msgspec.json.decode(payload, type=TurnPiece)
                for delta in text.feed(end.text):
                    yield delta
        for delta in text.finish(cut=end.reason == "length"):
            yield delta
        usage = Usage(InputUsage(text=end.read, cached_text=end.kept), end.written)
        yield Finish("max_output_tokens" if end.reason == "length" else "stop", usage)

    def _asked(self, request: GenerationRequest, tools: Sequence[Tool]) -> TurnRequest:
        forced = request.tool_choice == "required" or isinstance(request.tool_choice, NamedTool)
        if forced and not tools:
            problem = "The model cannot call functions, and the response must call one."
            raise EngineError("tools_not_supported", problem, type="invalid_request_error")
        begin, lead, schema = forced_call(self._format, request.tool_choice, tools) if forced else ("", "", None)
        return TurnRequest(
            messages=list(messages(request.instructions, request.turns)),
            tools=[{"type": "function", "function": _described(tool)} for tool in tools],
            temperature=request.temperature,
            max_tokens=request.max_output_tokens,
            begin=begin,
            lead=lead,
            schema=schema,
        )


def _described(tool: Tool) -> dict[str, Any]:
    parameters = dict(tool.parameters) or {"type": "object", "properties": {}}
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def messages(instructions: str, turns: Sequence[Turn]) -> Iterator[dict[str, Any]]:
    """The conversation as chat templates take it. Many want the roles to take turns, so what one says in several
    messages becomes one, and so do calls that follow one another."""
    said: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    for turn in turns:
        last = said[-1] if said else {}
        match turn:
            case Message():
                words = _CONTROL.sub(" ", "\n".join(_words(turn)))
                if last.get("role") == turn.role and "tool_calls" not in last:
                    last["content"] = f"{last['content']}\n{words}"
                else:
                    said.append({"role": turn.role, "content": words})
            case ToolCall():
                call = {"name": turn.name, "arguments": _arguments(turn.arguments)}
                made = {"id": turn.call_id, "type": "function", "function": call}
                if last.get("role") == "assistant":
                    last.setdefault("tool_calls", []).append(made)
                else:
                    said.append({"role": "assistant", "content": "", "tool_calls": [made]})
            case ToolOutput():
                output = _CONTROL.sub(" ", turn.output)
                said.append({"role": "tool", "tool_call_id": turn.call_id, "content": output})
    # No template takes nothing at all.
    yield from said or [{"role": "user", "content": ""}]


def _words(message: Message) -> Iterator[str]:
    for part in message.content:
        match part:
            case TextInput():
                yield part.text
            case AudioInput():
                yield part.transcript or ""
            case ImageInput():
                # Nobody sends any to an engine that sees none.
                pass


def _arguments(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


# -------------------------------------------------------------------------------------------- what a file tells

_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_TEXT, _ARRAY = 8, 9
_LONGEST_TEXT: Final = 1 << 24
"""Bytes; far more than any chat template, and no more than a broken file may have us take."""


def _metadata(model: Path, wanted: str) -> str | None:
    """A text in the header of a GGUF file, read without loading the model; None when there is none."""
    try:
        with model.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ValueError
            version, _, count = _unpack(file, "<IQQ")
            if version not in (2, 3):
                raise ValueError
            for _ in range(count):
                key = _text(file)
                (kind,) = _unpack(file, "<I")
                if key == wanted and kind == _TEXT:
                    return _text(file)
                _skip(file, kind)
    except FileNotFoundError:
        raise EngineOptionsError("model", f"there is no {model}") from None
    except (OSError, ValueError, KeyError, struct.error):
        raise EngineOptionsError("model", f"{model} is no GGUF model") from None
    return None


def _unpack(file: BinaryIO, shape: str) -> tuple[int, ...]:
    return struct.unpack(shape, file.read(struct.calcsize(shape)))


def _text(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    if length > _LONGEST_TEXT:
        raise ValueError
    return file.read(length).decode()


def _skip(file: BinaryIO, kind: int) -> None:
    if kind == _TEXT:
        (length,) = _unpack(file, "<Q")
        file.seek(length, 1)
    elif kind == _ARRAY:
        inner, count = _unpack(file, "<IQ")
        if inner in _SIZES:
            file.seek(_SIZES[inner] * count, 1)
        else:
            for _ in range(count):
                _skip(file, inner)
    else:
        file.seek(_SIZES[kind], 1)
