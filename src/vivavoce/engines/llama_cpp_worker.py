"""The process in which llama.cpp thinks, one turn at a time.

What it has read stays in the context of the model, and the next turn reads on from where the two prompts part.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, Literal

import msgspec

from vivavoce.engines.builtin.speech_job import CancelledJob
from vivavoce.engines.builtin.worker_channel import CREDIT_PAYLOAD, Channel, Kind, open_worker
from vivavoce.engines.llama_cpp import ModelSetup, TurnPiece, TurnRequest

_WINDOW_BYTES: Final = 64 * 1024

_FAILURES: Final = 3
"""Failures in a row after which a worker gives way to a new one."""


class RefusedTurn(Exception):
    """What is asked cannot be answered; the message holds nothing of the conversation."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Job:
    """The way out of one turn."""

    def __init__(self, channel: Channel, number: int) -> None:
        self._channel = channel
        self._number = number
        self._room = _WINDOW_BYTES

    def check(self) -> None:
        """Raises :class:`CancelledJob` when nobody listens any more. Never waits."""
        while (frame := self._channel.poll()) is not None:
            self._listen(frame)

    def send(self, piece: TurnPiece) -> None:
        """Send a piece; waits for room. Raises :class:`CancelledJob`."""
        while self._room <= 0:
            self._listen(self._channel.receive())
        payload = msgspec.json.encode(piece)
        self._room -= len(payload)
        self._channel.send(self._number, Kind.DATA, payload)

    def _listen(self, frame: Any) -> None:
        if frame.job == self._number and frame.kind is Kind.CANCEL:
            raise CancelledJob
        if frame.job == self._number and frame.kind is Kind.CREDIT:
            self._room += CREDIT_PAYLOAD.unpack(frame.payload)[0]


class Model:
    """The loaded model."""

    def __init__(self, setup: ModelSetup, channel: Channel) -> None:
        from llama_cpp import Llama, llama_chat_format

        if setup.chat_format is not None:
            try:
                llama_chat_format.get_chat_completion_handler(setup.chat_format)
            except llama_chat_format.LlamaChatCompletionHandlerNotFoundException:
                channel.fail_start(f"llama-cpp-python has no chat_format '{setup.chat_format}'")
        self._setup = setup
        self._llama: Any = Llama(
            setup.model,
            n_ctx=setup.n_ctx,
            n_gpu_layers=setup.n_gpu_layers,
            n_threads=setup.n_threads,
            n_threads_batch=setup.n_threads,
            n_batch=setup.n_batch,
            flash_attn=setup.flash_attn,
            chat_format=setup.chat_format,
            verbose=False,
        )
        self._formatter = self._template() if setup.chat_format is None else None
        # The first inference takes longer than others, and may fail.
        self._llama.eval([max(self._llama.token_eos(), 0)])
        self._llama.reset()
        self._watch = _Watch(self._llama, setup.n_batch)

    def _template(self) -> Any:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        def spelt(token: int) -> str:
            return "" if token == -1 else str(self._llama._model.token_get_text(token))

        return Jinja2ChatFormatter(
            template=self._llama.metadata["tokenizer.chat_template"],
            bos_token=spelt(self._llama.token_bos()),
            eos_token=spelt(self._llama.token_eos()),
        )

    def answer(self, request: TurnRequest, job: Job) -> None:
        """Take the turn. Raises :class:`RefusedTurn`, :class:`CancelledJob`."""
        self._watch.begin(job)
        ended: Literal["stop", "length"] = "stop"
        if request.begin:
            job.send(TurnPiece(request.begin))
        try:
            with closing(self._chunks(request)) as chunks:
                for text, reason in chunks:
                    ended = reason or ended
                    if text:
                        job.send(TurnPiece(text))
        except (RefusedTurn, CancelledJob):
            raise
        except Exception:
            # Nobody knows what is left in the context.
            self._llama.reset()
            raise
        job.send(self._watch.end(ended))

    def _chunks(self, request: TurnRequest) -> Generator[tuple[str, Literal["stop", "length"] | None], None, None]:
        """Text, and with the last of it why it ends there."""
        sampling = {
            "temperature": request.temperature,
            "top_p": self._setup.top_p,
            "top_k": self._setup.top_k,
            "min_p": self._setup.min_p,
            "repeat_penalty": self._setup.repeat_penalty,
            "seed": random.SystemRandom().getrandbits(32) if self._setup.seed is None else self._setup.seed,
            "max_tokens": request.max_tokens,
            "stop": self._setup.stop,
            "stream": True,
        }
        if self._formatter is None:
            for chunk in self._llama.create_chat_completion(request.messages, **sampling):
                (choice,) = chunk["choices"]
                yield choice["delta"].get("content") or "", choice["finish_reason"]
            return
        prompt = self._prompt(self._formatter, request)
        grammar = None if request.schema is None else _grammar(request.lead, request.schema)
        with closing(self._llama.create_completion(prompt, grammar=grammar, **sampling)) as chunks:
            for chunk in chunks:
                (choice,) = chunk["choices"]
                yield choice["text"], choice["finish_reason"]

    def _prompt(self, formatter: Any, request: TurnRequest) -> list[int]:
        try:
            text = formatter(
                messages=request.messages, tools=request.tools or None, **self._setup.template_options
            ).prompt
        except Exception:
            # A template refuses what it cannot write down by raising; its words may quote the conversation.
            problem = "The chat template of the model refuses the conversation."
            raise RefusedTurn("invalid_context", problem) from None
        tokens: list[int] = self._llama.tokenize((text + request.begin).encode(), add_bos=False, special=True)
        if len(tokens) >= self._llama.n_ctx():
            problem = f"The conversation has {len(tokens)} tokens; the model takes {self._llama.n_ctx() - 1}."
            raise RefusedTurn("context_length_exceeded", problem)
        return tokens


class _Watch:
    """Counts the tokens of a turn, and looks between two batches of the prompt whether somebody still listens."""

    def __init__(self, llama: Any, n_batch: int) -> None:
        self._llama = llama
        self._n_batch = n_batch
        self._eval, self._sample = llama.eval, llama.sample
        self._job: Job | None = None
        self._read = 0
        self._kept = 0
        self._written = 0
        llama.eval, llama.sample = self._evaluate, self._choose

    def begin(self, job: Job) -> None:
        self._job = job
        self._read = self._kept = self._written = 0

    def end(self, reason: Literal["stop", "length"]) -> TurnPiece:
        return TurnPiece(reason=reason, read=self._read, kept=self._kept, written=self._written)

    def _evaluate(self, tokens: Sequence[int]) -> None:
        first = not self._written
        if first:
            self._kept = self._llama.n_tokens
        for at in range(0, len(tokens), self._n_batch):
            if self._job is not None:
                self._job.check()
            self._eval(tokens[at : at + self._n_batch])
        if first:
            self._read = self._llama.n_tokens

    def _choose(self, *arguments: Any, **options: Any) -> Any:
        self._written += 1
        return self._sample(*arguments, **options)


def _grammar(lead: str, schema: Mapping[str, Any]) -> Any:
    """Only a text of the schema, after ``lead``, can be written. Raises :class:`RefusedTurn`."""
    from llama_cpp.llama_grammar import LlamaGrammar, json_schema_to_gbnf

    try:
        rules = json_schema_to_gbnf(json.dumps(schema))
    except Exception:
        problem = "The parameters of a function have a schema that the model cannot be held to."
        raise RefusedTurn("invalid_tool_schema", problem) from None
    opened = re.sub(r"^root ::=", "call ::=", rules, flags=re.MULTILINE)
    return LlamaGrammar.from_string(f"{opened}\nroot ::= {json.dumps(lead)} call\n", verbose=False)


def main() -> None:
    channel, payload = open_worker()
    setup = msgspec.json.decode(payload, type=ModelSetup)
    try:
        model = Model(setup, channel)
    except ImportError as error:
        channel.fail_start(f"the package {error.name} is not installed; install 'vivavoce[llama-cpp]'")
    except Exception as error:
        channel.fail_start(f"the model does not load ({type(error).__name__})")
    channel.send(0, Kind.READY, b"{}")
    failures = 0
    while failures < _FAILURES:
        frame = channel.receive()
        if frame.kind is not Kind.OPEN:
            continue
        try:
            request = msgspec.json.decode(frame.payload, type=TurnRequest)
            model.answer(request, Job(channel, frame.job))
        except CancelledJob:
            channel.send(frame.job, Kind.DONE)
        except RefusedTurn as refusal:
            _fail(channel, frame.job, refusal.code, str(refusal))
        except Exception as error:
            # Its message may quote the conversation.
            _fail(channel, frame.job, "engine_failed", f"The model failed ({type(error).__name__}).")
            failures += 1
        else:
            channel.send(frame.job, Kind.DONE)
            failures = 0
    # Another may do better, when it is a device that has failed.
    raise SystemExit(1)


def _fail(channel: Channel, job: int, code: str, message: str) -> None:
    channel.send(job, Kind.FAILED, msgspec.json.encode({"code": code, "message": message}))


if __name__ == "__main__":
    main()
