"""The measurements that need a server: capacity, latency, barge-in, memory, idle connections, start-up."""

from __future__ import annotations

import time
from typing import Final

from bench.processes import Fleet, Load, Run, Server, measure
from bench.report import Figures
from bench.stubs import ideal_ms

CAPACITY_SESSIONS: Final = (150, 200, 225, 250, 275, 300, 325, 350, 375, 400, 450, 500)
LATE_MS: Final = 50.0
"""A core holds so many sessions as end 99 of 100 turns within this."""
_STEADY: Final = ("--gap-ms", "2000", "--seconds", "20", "--warmup-s", "3")
_EACH: Final = ("--seconds", "15", "--warmup-s", "6")


def _seen(run: Run) -> Figures:
    """What a run at a fixed number of callers says, and a fault if it says nothing."""
    load = run.load
    if load["failed"] or load["hung_up"] or load["errors"]:
        raise RuntimeError(f"the load run went wrong: {load}")
    return {
        "lateness p50 ms": load["lateness_ms"]["p50"],
        "lateness p95 ms": load["lateness_ms"]["p95"],
        "lateness p99 ms": load["lateness_ms"]["p99"],
        "generator p99 ms": load["send_late_ms"]["p99"],
        "server CPU ms per session-second": run.cpu_ms_per_session_s,
        "server cores": run.cores,
        "turns": load["turns"],
    }


def at_callers(callers: int, chunk_ms: int, module: str = "bench.server") -> Figures:
    """Lateness and cost at a number of sessions, of the server or of the bare loop."""
    with Server(module) as server:
        return _seen(measure(server, server.url("prompt"), callers, "--chunk-ms", str(chunk_ms), *_EACH))


def capacity(chunk_ms: int, module: str = "bench.server") -> Figures:
    """The most sessions of :data:`CAPACITY_SESSIONS` that one core holds, each step on a fresh server."""
    held = 0
    for callers in CAPACITY_SESSIONS:
        figures = at_callers(callers, chunk_ms, module)
        if figures["lateness p99 ms"] > LATE_MS:
            break
        held = callers
    return {f"sessions held at {chunk_ms} ms chunks": held}


def first_audio(callers: int) -> Figures:
    """From the last sound that the turn needs to the first audio delta, with engines that take no time."""
    with Server() as server:
        run = measure(server, server.url("prompt"), callers, *_EACH)
    _seen(run)
    found = run.load["first_audio_ms"]
    return {f"first audio {name} ms": found[name] for name in ("p50", "p95", "p99", "max")}


def end_to_end() -> Figures:
    """From the deciding frame, and from the end of the speech, to the first audio delta, with engines that take a
    fixed time; with and without speculation, at one session and at twenty. ``over`` is what the ideal path does not
    take."""
    figures: Figures = {}
    # 500 ms of silence are 512 in whole frames; half of them, 192 at most, are enough to begin.
    ideals = {"steady": ideal_ms(), "ahead": ideal_ms(512 - 192)}
    with Server() as server:
        runs = {
            (callers, deployment): measure(server, server.url(deployment), callers, *_STEADY)
            for callers in (1, 20)
            for deployment in ideals
        }
    for (callers, deployment), run in runs.items():
        ideal = ideals[deployment]
        seen = _seen(run)
        found, whole = run.load["first_audio_ms"], run.load["after_speech_ms"]
        name = f"{callers} session{'s'[: callers - 1]}, {deployment}"
        figures[f"{name}: answers"] = found["n"]
        for part in ("p50", "p95"):
            figures[f"{name}: first audio {part} ms"] = found[part]
            figures[f"{name}: over the ideal {ideal:g} {part} ms"] = round(found[part] - ideal, 1)
        figures[f"{name}: after the end of speech p50 ms"] = whole["p50"]
        figures[f"{name}: lateness of speech_stopped p50 ms"] = seen["lateness p50 ms"]
    return figures


def barge_in(callers: int) -> Figures:
    """From the frame that decides that somebody speaks to the last audio delta of the response it interrupts."""
    with Server() as server:
        run = measure(server, server.url("paced"), callers, "--gap-ms", "1500", *_EACH)
    _seen(run)
    found = run.load["barge_in_ms"]
    return {"interrupted responses": found["n"]} | {
        f"last delta after the deciding frame {name} ms": found[name] for name in ("p50", "p99", "max")
    }


def cores(each: int) -> Figures:
    """``each`` sessions on one worker, and twice as many on two: what a session costs in CPU time.

    The generator needs a core of this machine too, so what two cores hold cannot be tried on two; what a session
    costs tells it, for a core is full when its CPU time is.
    """
    costs = {}
    figures: Figures = {}
    for workers in (1, 2):
        with Fleet(workers) as fleet:
            run = measure(fleet, fleet.url("prompt"), each * workers, *_EACH)
        seen = _seen(run)
        costs[workers] = run.cpu_ms_per_session_s
        figures[f"CPU ms per session-second, {each * workers} sessions on {workers}"] = costs[workers]
        figures[f"lateness p99 ms, {each * workers} sessions on {workers}"] = seen["lateness p99 ms"]
    return {"two processes hold, times one": 2 * costs[1] / costs[2]} | figures


def idle(callers: int) -> Figures:
    """Connections that say nothing: do they open, what do they hold, what do they cost?"""
    with Server() as server:
        before = server.usage()
        load = Load(server.url("prompt"), callers, "--silent", "--connect-rate", "500")
        load.wait_for("ready")
        opened = server.usage()
        time.sleep(10)
        after = server.usage()
        results = load.finish()
    if results["failed"] or results["errors"]:
        raise RuntimeError(f"the idle run went wrong: {results}")
    return {
        "sessions open": after["sessions"],
        "KB per idle session": (after["rss_kb"] - before["rss_kb"]) / callers,
        "opened per second": callers / (opened["at"] - before["at"]),
        "server cores while idle": (after["cpu_s"] - opened["cpu_s"]) / (after["at"] - opened["at"]),
    }
