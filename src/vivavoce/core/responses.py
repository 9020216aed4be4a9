"""Responses: who may run, what they produce, how they end (protocol sections 4.8, 4.9 and 5).

Laws
----
1. At most one response of the default conversation runs; out-of-band ones run beside it, up to a bound.
2. ``response.created`` is answered by exactly one ``response.done``; nothing of a response comes after that.
3. A response runs on a frozen plan; what changes afterwards does not reach it.
4. ``Created`` waits for admission by quota, ``Streaming`` has an engine at work; both can be cut short any time.
5. Reports for a response that is gone are late, and change nothing.
6. Output is counted as it comes; at the limit the response is cut there and ends incomplete.
7. ``usage`` says what the model has counted itself, where it has, and else what was counted here; limits go by the
   latter, since a model counts only when it is done.
8. What a model does not read at once is left out of the plan, oldest first; a response for which that is no way out
   fails before any quota is asked for. Only a response of the conversation changes what later ones read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from msgspec import structs

from vivavoce.audio.formats import TICKS_PER_MS
from vivavoce.core import contract as c
from vivavoce.core import usage
from vivavoce.core.context import Entry, ResponsePlan
from vivavoce.core.conversation import Conversation, truncated
from vivavoce.core.ids import Ids
from vivavoce.core.journal import Journal
from vivavoce.core.output import Closed, OpenCall, Opened, OpenMessage, Output, Step
from vivavoce.core.window import Window
from vivavoce.wire import errors, items
from vivavoce.wire import server_events as se
from vivavoce.wire import session_config as sc
from vivavoce.wire.errors import ServerFault

MAX_OUT_OF_BAND: Final = 16
"""Out-of-band responses that one session may have running."""
_TICKS_PER_TOKEN: Final = usage.ASSISTANT_MS_PER_TOKEN * TICKS_PER_MS


class Phase(Enum):
    CREATED = auto()
    STREAMING = auto()


@dataclass(slots=True)
class Run:
    """One response on its way."""

    plan: ResponsePlan
    output: Output
    in_band: bool
    """Its items belong to the default conversation."""
    metadata: Mapping[str, str] | None
    input_usage: se.Usage
    limit: int | None
    """Output tokens that it may have."""
    phase: Phase = Phase.CREATED
    closed_tokens: int = 0
    """Text tokens of the items that are final."""
    open_tokens: int = 0
    """Those of the item that is being made: the sum of its pieces, which may be more than the whole."""
    reported: c.UsageReported | None = None

    @property
    def text_tokens(self) -> int:
        return self.closed_tokens + self.open_tokens

    @property
    def usage(self) -> se.Usage:
        counted = structs.replace(
            self.input_usage,
            output_text=self.text_tokens,
            output_audio=usage.assistant_audio_tokens(self.output.audio_ticks),
        )
        return counted if self.reported is None else _as_reported(counted, self.reported)

    @property
    def tokens_left(self) -> int | None:
        """Output tokens that may still come; None where there is no limit."""
        if self.limit is None:
            return None
        return self.limit - self.text_tokens - usage.assistant_audio_tokens(self.output.audio_ticks)


@dataclass(frozen=True, slots=True)
class Owed:
    """A response of the conversation that begins when the one before it has ended and said all."""

    response_id: str
    options: sc.ResponseOptions
    context: tuple[Entry, ...] | None
    """None for the conversation as it is when the response begins."""
    asked: bool
    """The client asked for it, by ``response.create``; otherwise a turn of the user waits for it."""


class Responses:
    """All responses of one session."""

    def __init__(
        self,
        *,
        model: str,
        ids: Ids,
        conversation: Conversation,
        journal: Journal,
        heard_text: bool = True,
        window: Window,
    ) -> None:
        self.default: Run | None = None
        self.apart: dict[str, Run] = {}
        self.spoken_ms: int | None = None
        """Audio of the last response of the conversation; None when it was cut short, or made nothing."""
        self._settling = 0
        """Responses that are over and whose rate limits are still to be told."""
        self._model = model
        self._ids = ids
        self._conversation = conversation
        self._journal = journal
        self._heard_text = heard_text
        self._window = window
        self._tokens = conversation.tokens
        self._cache = usage.PromptCache(self._tokens)

    # ------------------------------------------------------------------------------------ beginning and end

    @property
    def free(self) -> bool:
        """A response of the default conversation may begin, after everything that belongs to the last one."""
        return self.default is None and not self._settling

    @property
    def open_item_id(self) -> str | None:
        """The item that the default response is producing."""
        output = self.default.output.open if self.default else None
        return output.item_id if isinstance(output, OpenMessage | OpenCall) else None

    def check_free(self, *, in_band: bool) -> None:
        """Raises ClientFault if no such response may begin now."""
        if in_band and self.default is not None:
            raise errors.active_response(self.default.plan.response_id)
        if not in_band and len(self.apart) >= MAX_OUT_OF_BAND:
            raise errors.too_many_responses(MAX_OUT_OF_BAND)

    def create(self, plan: ResponsePlan, truncation: sc.Truncation, *, metadata: Mapping[str, str] | None) -> None:
        """Begin a response; the caller has made sure by :meth:`check_free` that it may."""
        fitting = self._cut_to_fit(plan, truncation)
        plan = fitting or plan
        limits = [limit for limit in (plan.max_output_tokens, self._window.max_output) if limit is not None]
        run = Run(
            plan=plan,
            output=Output(
                plan.response_id,
                speaks=plan.speaks,
                output_format=plan.output_format,
                ids=self._ids,
                speed=plan.speed,
            ),
            in_band=plan.in_band,
            metadata=metadata,
            input_usage=self._input_usage(plan, in_band=plan.in_band and fitting is not None),
            limit=min(limits, default=None),
        )
        if plan.in_band:
            self.default = run
        else:
            self.apart[plan.response_id] = run
        self._journal.emit(se.ResponseCreated(self._describe(run, "in_progress", None, None)))
        if fitting is None:
            self._fail(run, errors.context_length_exceeded())
            return
        wanted = run.input_usage.total + (run.limit or usage.OUTPUT_RESERVE)
        self._journal.ask(c.ReserveQuota(plan.response_id, wanted, run.input_usage, plan.max_output_tokens))

    def fitted(self, plan: ResponsePlan, truncation: sc.Truncation) -> ResponsePlan | None:
        """The plan with as much of its context as is read; None where it cannot be made to fit."""
        count = self._surplus(plan, truncation)
        return None if count is None else _without(plan, count)

    def input_tokens(self, plan: ResponsePlan) -> int:
        """What the context of a plan counts for; nothing is remembered of it."""
        return self._input_usage(plan, in_band=False).total

    def _surplus(self, plan: ResponsePlan, truncation: sc.Truncation) -> int | None:
        prompt = self._cache.prompt_tokens(plan.instructions, plan.tools)
        return self._window.surplus(
            truncation, prompt, plan.context, self._cache.context_tokens(plan.context).total
        )

    def _cut_to_fit(self, plan: ResponsePlan, truncation: sc.Truncation) -> ResponsePlan | None:
        """As :meth:`fitted`; what is left out of the conversation is left out of it for good."""
        count = self._surplus(plan, truncation)
        if count is None:
            return None
        if count and plan.in_band and plan.context is self._conversation.snapshot():
            self._cache.cut(plan.context, count)
            self._conversation.drop_oldest(count)
        return _without(plan, count)

    def cancel(self, response_id: str | None, reason: se.StatusReason) -> bool:
        """Cut a response short: the one named, or the default one. Returns False if there is none."""
        run = self.default if response_id is None else self._find(response_id)
        if run is None:
            return False
        self._end(run, "cancelled", se.StatusDetails(type="cancelled", reason=reason))
        return True

    def stop_all(self) -> None:
        """The session is over: engines stop, and nothing more is said."""
        for run in (*self.apart.values(), *([self.default] if self.default else [])):
            self._release(run, tell=False, used=run.usage)

    # --------------------------------------------------------------------------------------------- reports

    def granted(self, report: c.QuotaGranted) -> None:
        run = self._find(report.response_id)
        if run is not None and run.phase is Phase.CREATED:
            run.phase = Phase.STREAMING
            self._journal.emit(se.RateLimitsUpdated("created", report.rate_limits))
            self._journal.ask(c.StartResponse(run.plan))

    def denied(self, report: c.QuotaDenied) -> None:
        run = self._find(report.response_id)
        if run is not None and run.phase is Phase.CREATED:
            self._journal.emit(se.RateLimitsUpdated("created", report.rate_limits))
            self._fail(run, errors.rate_limit_exceeded(self._model, report.name, report.retry_after_s))

    def text(self, report: c.TextProduced) -> None:
        run = self._find(report.response_id)
        if run is None or not report.text:
            return
        tokens = self._tokens.text(report.text)
        if self._fits(run, tokens):
            run.open_tokens += tokens
            self._perform(run, run.output.text(report.text))

    def audio(self, report: c.AudioProduced) -> None:
        run = self._find(report.response_id)
        if run is None:
            return
        if not report.audio:
            run.output.place(report.marks)
            return
        data = report.audio
        left = run.tokens_left
        cut = False
        if left is not None:
            fmt = run.plan.output_format
            room = (left + 1) * _TICKS_PER_TOKEN - run.output.audio_ticks % _TICKS_PER_TOKEN - 1
            cut = fmt.ticks(len(data)) > room
            data = data[: fmt.bytes_of(max(0, room))] if cut else data
        if data:
            self._perform(run, run.output.audio(data, report.marks))
        if cut:
            self._incomplete(run, "max_output_tokens")

    def call(self, report: c.CallStarted) -> None:
        run = self._find(report.response_id)
        if run is None:
            return
        if run.plan.parallel_tool_calls is False and run.output.has_called:
            # The model does not know that it may call one alone, or does not care.
            self._end(run, "completed", None)
            return
        tokens = self._tokens.text(report.name)
        if self._fits(run, tokens):
            run.open_tokens += tokens
            self._perform(run, run.output.call(report.name))

    def arguments(self, report: c.ArgumentsProduced) -> None:
        run = self._find(report.response_id)
        if run is None or not report.text:
            return
        tokens = self._tokens.text(report.text)
        if self._fits(run, tokens):
            run.open_tokens += tokens
            self._perform(run, run.output.arguments(report.text))

    def used(self, report: c.UsageReported) -> None:
        run = self._find(report.response_id)
        if run is not None:
            run.reported = report

    def finished(self, report: c.ResponseFinished) -> None:
        run = self._find(report.response_id)
        if run is None:
            return
        if report.reason == "stop":
            self._end(run, "completed", None)
        else:
            self._incomplete(run, report.reason)

    def failed(self, report: c.ResponseFailed) -> None:
        run = self._find(report.response_id)
        if run is not None:
            self._fail(run, report.fault)

    def heard(self, before: Entry, known: Entry) -> None:
        """The words of an item are known: nobody needs it any more as it was."""
        self._cache.replaced(before, known)

    def settled(self) -> None:
        """The rate limits after a response are known."""
        self._settling = max(0, self._settling - 1)

    def sync(self) -> None:
        """Bring the conversation up to what was sent of an item still open."""
        so_far = self.default.output.so_far() if self.default else None
        entry = self._conversation.get(so_far.item.id) if so_far else None
        if so_far is None or entry is None or entry.truncated:
            return
        now = self._entry(so_far)
        if entry != now:
            self._conversation.replace(now)

    # -------------------------------------------------------------------------------------------- details

    def _find(self, response_id: str) -> Run | None:
        if self.default is not None and self.default.plan.response_id == response_id:
            return self.default
        return self.apart.get(response_id)

    def _fits(self, run: Run, tokens: int) -> bool:
        left = run.tokens_left
        if left is None or tokens <= left:
            return True
        self._incomplete(run, "max_output_tokens")
        return False

    def _incomplete(self, run: Run, reason: se.StatusReason) -> None:
        self._end(run, "incomplete", se.StatusDetails(type="incomplete", reason=reason))

    def _fail(self, run: Run, fault: ServerFault) -> None:
        self._end(run, "failed", se.StatusDetails(type="failed", error=fault))

    def _end(self, run: Run, status: se.ResponseStatus, details: se.StatusDetails | None) -> None:
        self._perform(run, run.output.close("completed" if status == "completed" else "incomplete"))
        untouched = status in ("cancelled", "failed") and run.output.untouched
        counted = se.Usage() if untouched else run.usage
        self._journal.emit(se.ResponseDone(self._describe(run, status, details, counted)))
        if run.in_band:
            self.spoken_ms = None if status in ("cancelled", "failed") else run.output.audio_ticks // TICKS_PER_MS
        self._release(run, tell=not untouched, used=counted)

    def _release(self, run: Run, *, tell: bool, used: se.Usage) -> None:
        if run is self.default:
            self.default = None
        else:
            self.apart.pop(run.plan.response_id, None)
        self._journal.ask(c.StopResponse(run.plan.response_id))
        self._settling += tell
        self._journal.ask(c.SettleQuota(run.plan.response_id, used.total, tell, used))

    def _describe(
        self,
        run: Run,
        status: se.ResponseStatus,
        details: se.StatusDetails | None,
        counted: se.Usage | None,
    ) -> se.Response:
        plan = run.plan
        return se.Response(
            id=plan.response_id,
            status=status,
            status_details=details,
            output=tuple(run.output.done),
            usage=counted,
            conversation_id=self._conversation.id if run.in_band else None,
            metadata=run.metadata,
            modalities=plan.modalities,
            voice=plan.voice,
            output_audio_format=plan.output_format.value,
            temperature=plan.temperature,
            max_output_tokens=plan.max_output_tokens,
        )

    def _perform(self, run: Run, steps: Iterable[Step]) -> None:
        for step in steps:
            match step:
                case Opened():
                    if run.in_band:
                        self._place(step.item)
                case Closed():
                    run.closed_tokens += self._tokens.said(step.item)
                    run.open_tokens = 0
                    if run.in_band:
                        self._settle(step)
                case _:
                    self._journal.emit(step)

    def _place(self, item: items.Item) -> None:
        previous = self._conversation.add(Entry(item))
        self._journal.emit(se.ItemAdded(previous, item))

    def _settle(self, step: Closed) -> None:
        """The item is final. It may have been deleted, or truncated, while it was still open."""
        item = step.item
        was = self._conversation.get(item.id)
        if was is None:
            return
        entry = self._entry(step)
        entry = truncated(entry, was.audio_ms, self._tokens) if was.truncated else entry
        self._conversation.replace(entry)
        self._cache.answered(entry)
        self._journal.emit(se.ItemDone(self._conversation.predecessor(item.id), item))

    def _entry(self, step: Closed) -> Entry:
        return Entry(
            step.item,
            text_tokens=self._tokens.item(step.item),
            audio_tokens=usage.assistant_audio_tokens(step.audio_ticks),
            audio_ms=step.audio_ticks // TICKS_PER_MS,
            alignment=step.alignment if self._heard_text else None,
        )

    def _input_usage(self, plan: ResponsePlan, *, in_band: bool) -> se.Usage:
        text, audio, image = self._cache.context_tokens(plan.context)
        text += self._cache.prompt_tokens(plan.instructions, plan.tools)
        cached = usage.Count()
        if in_band:
            cached = self._cache.look_up(plan.instructions, plan.tools, plan.context)
        return se.Usage(
            input_text=text,
            input_audio=audio,
            input_image=image,
            cached_text=cached.text,
            cached_audio=cached.audio,
            cached_image=cached.image,
        )


def _without(plan: ResponsePlan, count: int) -> ResponsePlan:
    return replace(plan, context=plan.context[count:]) if count else plan


def _as_reported(counted: se.Usage, reported: c.UsageReported) -> se.Usage:
    if (read := reported.input) is not None:
        counted = structs.replace(
            counted,
            input_text=read.text,
            input_audio=read.audio,
            input_image=0,
            cached_image=0,
            cached_text=read.cached_text,
            cached_audio=read.cached_audio,
        )
    if reported.output_text is not None:
        counted = structs.replace(counted, output_text=reported.output_text)
    if reported.output_audio is not None:
        counted = structs.replace(counted, output_audio=reported.output_audio)
    return counted
