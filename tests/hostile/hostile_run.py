"""Many hostile events, by hand: ``python tests/hostile/hostile_run.py --events 200000 --seed 1``.

A round is one conversation of up to three clients; a batch of rounds shares one server. The same seed makes the
same rounds. On a failure it prints the shortest sequence of steps that shows it, the session as a golden script,
and the seed of the batch; it leaves with 1.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import time
from collections.abc import Sequence
from typing import Final

from hostile_machine import Hostile
from hostile_model import EDITIONS
from hostile_stage import Stage
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

ROUNDS: Final = 50
STEPS: Final = 100
"""At most, in a round."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Hostile clients against the real server.")
    parser.add_argument("--events", type=int, default=200_000, help="client events to send at least")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    # Engines fail here all the time.
    logging.getLogger("vivavoce").setLevel(logging.ERROR)
    tally, began, batch = Hostile.tally, time.monotonic(), 0
    first_peak = 0
    tell(f"seed {options.seed}: at least {options.events} client events, {ROUNDS} rounds a batch")
    while tally.events.total() < options.events:
        batch_seed = options.seed * 1_000_000 + batch
        try:
            run_batch(batch_seed)
        except BaseException:
            tell(f"FAILED in batch {batch} (seed {batch_seed}), after {tally.events.total()} events")
            raise
        batch += 1
        first_peak = first_peak or _peak_mib()
        if batch % 10 == 0:
            tell(f"  {tally.events.total()} events, {tally.frames.total()} frames, {_peak_mib()} MiB")
    seconds = time.monotonic() - began
    events, sounds = tally.events.total(), tally.events["input_audio_buffer.append"]
    refused = sum(count for kind, count in tally.events.items() if kind.endswith("(refused)"))
    for title, counts in (("sent", tally.events), ("came", tally.frames)):
        for kind, count in sorted(counts.items()):
            tell(f"  {title} {count:8} {kind}")
    tell(
        f"{events} client events ({sounds} appends, {refused} refused) and {tally.engines} engine cues, "
        f"{tally.frames.total()} frames compared, {tally.sessions} sessions in {tally.conversations} rounds, "
        f"{tally.replayed} of them replayed on the pure session\n{seconds:.0f} s, {events / seconds:.0f} events/s; "
        f"peak memory {first_peak} MiB after the first batch, {_peak_mib()} MiB at the end; no invariant broken"
    )


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run_batch(number: int) -> None:
    """One server and :data:`ROUNDS` rounds. Raises what the machine found."""
    with Stage(tuple(EDITIONS)) as stage:
        Hostile.stage = stage
        run_state_machine_as_test(
            seed(number)(Hostile),
            settings=settings(
                max_examples=ROUNDS,
                stateful_step_count=STEPS,
                database=None,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink),
            ),
        )
        left = stage.sessions_in_memory()
        if left:
            raise AssertionError(f"{left} sessions are still in memory after all clients have gone")


def _peak_mib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024 if sys.platform != "darwin" else 1024 * 1024)


if __name__ == "__main__":
    main()
