"""``python -m bench [CASE ...] [--runs 5]``: measure, show, and keep the results in ``bench/results``.

Server and load generator each get a core of their own; run it on a machine that does nothing else. Without names,
all cases are run that need nothing but this repository, which takes about an hour; ``--list`` names them all.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench import cases, faults, memory, micro, quota, report, startup
from bench.peers import cases as peers
from bench.report import Figures


@dataclass(frozen=True)
class Case:
    title: str
    run: Callable[[], Figures]
    runs: int | None = None
    """How often, whatever was asked for; None: as often as was asked for."""
    missing: Callable[[], str | None] | None = None
    """What it needs and does not find, if it needs more than this repository. Such a case is run by name only."""


CASES: Final[dict[str, Case]] = {
    "codec": Case("Frames to events and back", micro.codec, 1),
    "core": Case("The session, for each chunk and frame", micro.core, 1),
    "vad": Case("VAD and resampling, for each frame", micro.vad, 1),
    "items": Case("Events in a long conversation", micro.conversation, 1),
    "sessions-20ms": Case("100 sessions, 20 ms chunks", lambda: cases.at_callers(100, 20)),
    "sessions-100ms": Case("100 sessions, 100 ms chunks", lambda: cases.at_callers(100, 100)),
    "core-225-20ms": Case("225 sessions on a core, 20 ms chunks", lambda: cases.at_callers(225, 20)),
    "core-275-100ms": Case("275 sessions on a core, 100 ms chunks", lambda: cases.at_callers(275, 100)),
    "capacity-20ms": Case("Sessions a core holds, 20 ms chunks", lambda: cases.capacity(20)),
    "capacity-100ms": Case("Sessions a core holds, 100 ms chunks", lambda: cases.capacity(100)),
    "bare-100-20ms": Case(
        "The bare loop, 100 sessions, 20 ms chunks", lambda: cases.at_callers(100, 20, "bench.bare")
    ),
    "bare-capacity-20ms": Case(
        "Sessions a core holds with the bare loop, 20 ms chunks", lambda: cases.capacity(20, "bench.bare")
    ),
    "picows-100-20ms": Case(
        "Behind picows, 100 sessions, 20 ms chunks", lambda: cases.at_callers(100, 20, "bench.picows_door")
    ),
    "first-audio": Case("First audio at 100 sessions, engines that take no time", lambda: cases.first_audio(100)),
    "end-to-end": Case("First audio beside steady engines, speculating or not", cases.end_to_end),
    "barge-in": Case("Barge-in at 100 sessions", lambda: cases.barge_in(100)),
    "memory": Case("Memory after a minute in real time", memory.minute_of_talk),
    "half-hour": Case("Memory of half an hour of talk", memory.half_an_hour),
    "idle": Case("5,000 idle sessions", lambda: cases.idle(5000)),
    "cores": Case("One and two processes", lambda: cases.cores(100)),
    "kill": Case("A process dies or hangs amid its work", faults.kill, 1),
    "fairness": Case("50 sessions share one recogniser, one of them greedy", faults.fairness, 1),
    "quota": Case("Two servers share a quota in Redis, which is lost and comes back", quota.shared, 1),
    "start": Case("Start and stop with the built-in engines", startup.ready),
    "imports": Case("Start of the command line", startup.imports),
    "size": Case("Installation", startup.install_size, 1),
    "peer": Case("Sessions a core holds, 20 ms chunks: speech-to-speech", peers.capacity, missing=peers.missing),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", choices=[[], *CASES], help="see --list")
    parser.add_argument("--runs", type=int, default=5, help="runs of a case, of which the median is shown")
    parser.add_argument("--list", action="store_true", help="name the cases, and run none")
    chosen = parser.parse_args()
    if chosen.list:
        for name, case in CASES.items():
            print(f"{name:16} {case.title}")
        return
    for name in chosen.cases or [name for name, case in CASES.items() if case.missing is None]:
        case = CASES[name]
        if case.missing is not None and (missing := case.missing()) is not None:
            print(f"{name} is skipped: {missing}")
            continue
        before = report.machine()
        runs = [case.run() for _ in range(case.runs or chosen.runs)]
        report.conclude(name, case.title, runs, before)


if __name__ == "__main__":
    main()
