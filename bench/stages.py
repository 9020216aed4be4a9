"""Where a server's time goes, by stage: ``python -m bench.stages PROFILE --rate 250 ...``.

``PROFILE`` is what py-spy has recorded of a running ``bench.server`` under ``bench.load``, as stacks of functions
("docs/explanation/performance.md" has the commands). A sample belongs to the innermost function of its stack that
names a stage. What is left of the CPU time, which the benchmark tells, is the event loop's.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

_REST: Final = "the event loop, and the system's reads and waits"
STAGES: Final = {
    "Codec.decode": "decode events: JSON, base64, checks",
    "RequestHandler.data_received": "aiohttp finds messages",
    "RealtimeEndpoint._read": "an append is taken: session, buffer, queue of the VAD",
    "SileroVad.infer": "the VAD's network",
    "FrameResampler.process": "24 to 16 kHz for the VAD",
    "_deliver": "the session hears the frames",
    "VadPool._run_slice": "frames are gathered",
    "ThreadPoolExecutor.submit": "frames go to the VAD's thread",
    "_WorkItem.run": "frames go to the VAD's thread",
    "InputAudio.cut": "speech is cut out for the recogniser",
    "Listener._recognise": "the recogniser is fed, resampling included",
    "Driver._respond": "an answer is made: model, clauses, voice, session",
    "Driver._send": "encode events",
    "SocketOutbox.run": "write messages",
}
"""Functions and the stages that they begin."""


def stage_of(stack: str) -> str | None:
    """``stack``: ``function (file);function (file);...``, outermost first. None for none of them: the event loop,
    of which a sampler cannot tell whether it works or waits."""
    for frame in reversed(stack.split(";")):
        function = frame.partition(" (")[0]
        for begins, stage in STAGES.items():
            if function == begins or function.startswith(f"{begins}.<locals>"):
                return stage
    return None


def samples(lines: Iterable[str]) -> Counter[str]:
    """Of each stage, of lines ``stack count``."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        stage = stage_of(stack)
        if stage is not None:
            found[stage] += int(count)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__.splitlines()[0])
    parser.add_argument("profile", type=Path)
    parser.add_argument("--rate", type=int, required=True, help="samples a second")
    parser.add_argument("--seconds", type=float, required=True, help="how long was sampled")
    parser.add_argument("--callers", type=int, required=True)
    parser.add_argument("--cpu-ms", type=float, required=True, help="what a session-second takes in all")
    chosen = parser.parse_args()
    found = samples(chosen.profile.read_text().splitlines())
    ms = {stage: 1000 * n / (chosen.rate * chosen.seconds * chosen.callers) for stage, n in found.items()}
    ms[_REST] = chosen.cpu_ms - sum(ms.values())
    table = Table("stage", "ms a session-second", "share %")
    for stage, cost in sorted(ms.items(), key=lambda one: -one[1]):
        table.add_row(stage, f"{cost:.2f}", f"{100 * cost / chosen.cpu_ms:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
