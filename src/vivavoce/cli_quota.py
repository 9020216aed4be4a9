"""What the command line does with quota: try out provisioned throughput on some traffic, before it is bought."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
import typer

if TYPE_CHECKING:
    from vivavoce.gateway.simulation import Call, Outcome

MAX_CALLS: Final = 100_000
"""That are simulated: about twenty seconds of work."""
PLOT_WIDTH: Final = 72
PLOT_ROWS: Final = 12
_EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
_SVG: Final = (960, 360, 56)
"""Width, height and margin of the drawing."""


class TrafficError(Exception):
    """Traffic that cannot be simulated; says why."""


class _Recorded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of recorded traffic."""

    time: float
    """Seconds, from any moment on."""
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    max_tokens: int | None = None
    seconds: float = 0.0
    """From the request to the end of its response."""


def read_traffic(path: Path) -> list[Call]:
    """Recorded requests in a CSV file with a header, or in lines of JSON (``.jsonl``); the first begins at 0.
    Raises :class:`TrafficError`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = enumerate(file, 1) if path.suffix == ".jsonl" else None
            rows = _json_lines(lines) if lines is not None else enumerate(csv.DictReader(file), 2)
            calls = [_call(number, row) for number, row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise TrafficError(f"{path} cannot be read: {fault}") from None
    if not calls:
        raise TrafficError(f"{path} has no request")
    calls.sort(key=lambda call: call.at_s)
    first = calls[0].at_s
    return [replace(call, at_s=call.at_s - first) for call in calls]


def _json_lines(lines: Iterable[tuple[int, str]]) -> Iterable[tuple[int, Mapping[str, Any]]]:
    for number, line in lines:
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError:
                raise TrafficError(f"line {number}: this is no JSON") from None


def _call(number: int, row: object) -> Call:
    from vivavoce.gateway.simulation import Call

    if isinstance(row, dict):
        row = {key: value for key, value in row.items() if value not in ("", None)}
    try:
        one = msgspec.convert(row, _Recorded, strict=False)
    except msgspec.ValidationError as fault:
        raise TrafficError(f"line {number}: {fault}") from None
    if min(one.prompt_tokens, one.output_tokens, one.cached_tokens, one.seconds, one.max_tokens or 0) < 0:
        raise TrafficError(f"line {number}: a number below 0")
    if one.cached_tokens > one.prompt_tokens:
        raise TrafficError(f"line {number}: more of the prompt is cached than there is")
    return Call(one.time, one.prompt_tokens, one.output_tokens, one.cached_tokens, one.max_tokens, one.seconds)


@dataclass(frozen=True, slots=True)
class Simulation:
    """What there is to tell."""

    model: str
    stands_in: str | None
    """The model whose throughput it is, where the pages tell none of its own."""
    outcome: Outcome
    needed: int | None

    def described(self) -> dict[str, object]:
        """For ``--json``."""
        outcome, provision = self.outcome, self.outcome.provision
        return {
            "model": self.model,
            "throughput_of": self.stands_in or self.model,
            "ptus": provision.ptus,
            "input_tokens_per_minute_per_ptu": provision.input_tokens_per_minute,
            "output_tokens_per_minute_per_ptu": provision.output_tokens_per_minute,
            "minutes": outcome.end_s / 60,
            "calls": outcome.admitted + outcome.refused,
            "admitted": outcome.admitted,
            "refused": outcome.refused,
            "peak_utilization": outcome.peak,
            "mean_utilization": outcome.mean,
            "ptus_needed": self.needed,
            "utilization": [
                {"time": step.at_s, "utilization": step.utilization, "what": step.what} for step in outcome.steps
            ],
        }


def simulated(
    model: str,
    calls: Sequence[Call],
    *,
    ptus: int | None,
    regional: bool,
    guessed_output: int,
) -> Simulation:
    """``ptus``: None for as many as are needed. Raises :class:`TrafficError`."""
    from vivavoce.gateway.models.catalogue import shipped
    from vivavoce.gateway.provisioned import REALTIME_STAND_INS, Provision
    from vivavoce.gateway.simulation import ptus_needed, simulate

    catalogue = shipped()
    stands_in = None if catalogue.throughput(model) else REALTIME_STAND_INS.get(model)
    throughput = catalogue.throughput(stands_in or model)
    if throughput is None:
        known = ", ".join(sorted([row.model for row in catalogue.throughputs] + list(REALTIME_STAND_INS)))
        raise TrafficError(f"nothing is known of the throughput of '{model}' (there are: {known})")
    minimum, step = throughput.sizes("ProvisionedManaged" if regional else "GlobalProvisionedManaged")
    plan = replace(Provision.of(throughput, ptus or minimum), guessed_output=guessed_output)
    needed = ptus_needed(plan, calls, minimum, step)
    if ptus is None and needed is not None:
        plan = replace(plan, ptus=needed)
    return Simulation(model, stands_in, simulate(plan, calls), needed)


# ---------------------------------------------------------------------------------------------------- the plots


def text_plot(outcome: Outcome, width: int = PLOT_WIDTH, rows: int = PLOT_ROWS) -> list[str]:
    """The highest utilization in each stretch of time, from the top line to the axis."""
    heights = outcome.highest(width)
    top = max(1.0, *heights)
    lines = []
    for row in range(rows, 0, -1):
        low, high = top * (row - 1) / rows, top * row / rows
        cells = "".join(_cell((height - low) / (high - low)) for height in heights)
        at_full = low < 1 <= high
        lines.append(
            f"{'100 %' if at_full else f'{high:.0%}' if row == rows else '':>6} {'┼' if at_full else '│'}{cells}"
        )
    lines.append(f"{'0':>6} └" + "─" * width)
    lines.append(f"{'':>7}0 min{f'{outcome.end_s / 60:.4g} min':>{width - 4}}")
    return lines


def _cell(filled: float) -> str:
    return _EIGHTHS[round(max(0.0, min(1.0, filled)) * 8)]


def svg_plot(told: Simulation) -> str:
    """Utilization over time, with a line at 100 % and a mark for each refusal."""
    width, height, margin = _SVG
    outcome = told.outcome
    top = max(1.0, outcome.peak) * 1.05
    end_s = outcome.end_s or 1.0

    def x(at_s: float) -> str:
        return f"{margin + at_s / end_s * (width - 2 * margin):.1f}"

    def y(utilization: float) -> str:
        return f"{height - margin - utilization / top * (height - 2 * margin):.1f}"

    drain = outcome.provision.drain / outcome.provision.capacity
    points = [f"{x(0)},{y(0)}"]
    level, since = 0.0, 0.0
    for step in outcome.steps:
        if level > 0 and level / drain < step.at_s - since:
            points.append(f"{x(since + level / drain)},{y(0)}")
        points.append(f"{x(step.at_s)},{y(max(0.0, level - drain * (step.at_s - since)))}")
        points.append(f"{x(step.at_s)},{y(step.utilization)}")
        level, since = step.utilization, step.at_s
    refused = [step for step in outcome.steps if step.what == "refused"]
    marks = "".join(f'<circle cx="{x(one.at_s)}" cy="{y(one.utilization)}" r="2.5"/>' for one in refused)
    whose = f"{told.model}, {outcome.provision.ptus} PTU"
    title = f"{whose}: {outcome.admitted} calls admitted, {outcome.refused} refused (429)"
    box = f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13"'
    right, bottom = width - margin, height - margin
    return f'''<svg xmlns="http://www.w3.org/2000/svg" {box}>
<rect width="{width}" height="{height}" fill="white"/>
<text x="{margin}" y="{margin - 24}" font-size="15">{title}</text>
<path d="M{margin} {y(1)}H{right}" stroke="#c00" stroke-dasharray="6 4"/>
<text x="{margin - 6}" y="{y(1)}" text-anchor="end" dominant-baseline="middle">100 %</text>
<text x="{margin - 6}" y="{y(0)}" text-anchor="end" dominant-baseline="middle">0</text>
<polyline points="{" ".join(points)}" fill="none" stroke="#06c"/>
<g fill="#c00">{marks}</g>
<path d="M{margin} {margin}V{bottom}H{right}" fill="none" stroke="black"/>
<text x="{margin}" y="{bottom + 20}">0</text>
<text x="{right}" y="{bottom + 20}" text-anchor="end">{outcome.end_s / 60:.4g} minutes</text>
</svg>
'''


# -------------------------------------------------------------------------------------------------- the command


def simulate_ptu(
    model: Annotated[str, typer.Option(metavar="NAME", help="Whose throughput a unit has.")] = "gpt-4o",
    ptus: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Units; else as many as the traffic needs.")
    ] = None,
    regional: Annotated[
        bool,
        typer.Option("--regional", help="Units in the sizes of regional deployments, not of global ones."),
    ] = False,
    calls_per_minute: Annotated[float, typer.Option(min=0, max=100_000)] = 60.0,
    minutes: Annotated[float, typer.Option(min=0.01, max=1440, help="How long the traffic lasts.")] = 10.0,
    prompt: Annotated[int, typer.Option(min=0, help="Tokens of each prompt.")] = 1000,
    cached: Annotated[int, typer.Option(min=0, help="Those of them that are cached.")] = 0,
    output: Annotated[int, typer.Option(min=0, help="Tokens that each response makes.")] = 200,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, show_default=False, help="Its limit, if the caller sets one.")
    ] = None,
    guess: Annotated[
        int, typer.Option(min=0, help="Output tokens that the estimate takes where nobody sets a limit.")
    ] = 1024,
    seconds: Annotated[float, typer.Option(min=0, help="From a call to the end of its response.")] = 5.0,
    burst_calls: Annotated[int, typer.Option(min=0, max=100_000, help="More calls that come together.")] = 0,
    burst_every: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="From one burst to the next.")
    ] = 60.0,
    arrivals: Annotated[
        str, typer.Option(metavar="KIND", help="Calls come even(ly), or at random (Poisson).")
    ] = "even",
    seed: Annotated[int, typer.Option(help="Of the chance in random arrivals.")] = 0,
    recorded: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Recorded requests instead (CSV or .jsonl): time, prompt_tokens, output_tokens, and, if known, "
            "cached_tokens, max_tokens, seconds.",
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option(metavar="FILE", show_default=False, help="Draw it there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Try out provisioned throughput on some traffic: its utilization, what is refused, how many units it needs."""
    from vivavoce.gateway.simulation import Shape

    if cached > prompt:
        raise typer.BadParameter("more of the prompt is cached than there is", param_hint="--cached")
    if arrivals not in ("even", "random"):
        raise typer.BadParameter("even or random", param_hint="--arrivals")
    how: Literal["even", "random"] = "even" if arrivals == "even" else "random"
    shape = Shape(
        calls_per_minute, minutes, prompt, output, cached, max_tokens, seconds, burst_calls, burst_every, how, seed
    )
    if recorded is None and shape.count > MAX_CALLS:
        raise typer.BadParameter(f"these are {shape.count:,.0f} calls; no more than {MAX_CALLS:,} can be simulated")
    try:
        calls = shape.calls() if recorded is None else read_traffic(recorded)
        if not calls:
            raise TrafficError("there is no call in it")
        told = simulated(model, calls, ptus=ptus, regional=regional, guessed_output=guess)
    except TrafficError as fault:
        raise typer.BadParameter(str(fault)) from None
    if svg is not None:
        try:
            svg.write_text(svg_plot(told), encoding="utf-8")
        except OSError as fault:
            raise typer.BadParameter(f"{svg} cannot be written: {fault.strerror}", param_hint="--svg") from None
    if as_json:
        typer.echo(json.dumps(told.described()))
        return
    for line in (*text_plot(told.outcome), "", *_sentences(told)):
        typer.echo(line)


def _sentences(told: Simulation) -> Iterable[str]:
    outcome = told.outcome
    provision = outcome.provision
    whose = f" (those of {told.stands_in}; no page tells of {told.model})" if told.stands_in else ""
    yield (
        f"{provision.ptus} PTU of {told.model}: {provision.ptus * provision.input_tokens_per_minute:,} input "
        f"tokens a minute, one of output counts for {provision.output_weight:.3g}{whose}"
    )
    calls = outcome.admitted + outcome.refused
    yield f"{calls} calls: {outcome.admitted} admitted, {outcome.refused} refused (429)"
    yield f"utilization: {outcome.peak:.0%} at most, {outcome.mean:.0%} on average"
    yield "no number of PTU is enough" if told.needed is None else f"nothing is refused from {told.needed} PTU on"
