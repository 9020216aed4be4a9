"""A process that has more responses than its quota allows, on a clock that its parent moves.

``quota_process.py URL SEED``: each line of stdin is a second; the answer is a line of JSON with the tokens of
responses that have ended up to then, and the number of those that were refused.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys

from vivavoce.gateway.quota import Asked, RateLimits, SharedQuota, SharedReservation
from vivavoce.gateway.shared.redis import RedisState
from vivavoce.wire.server_events import Usage

TOKENS_PER_MINUTE = 60_000
ESTIMATE = 500
TRIES = 3
"""Responses that are asked for in each step, of 100 to 900 tokens."""


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def main(url: str, seed: int) -> None:
    clock = Clock()
    chance = random.Random(seed)
    state = RedisState(url, prefix="load", on_loss="closed", clock=clock)
    quota = SharedQuota(RateLimits(TOKENS_PER_MINUTE, 100_000), state, "d", clock)
    running: list[tuple[float, SharedReservation]] = []
    used = refused = 0
    while line := await asyncio.to_thread(sys.stdin.readline):
        clock.now = float(line)
        for one in [one for one in running if one[0] <= clock.now]:
            running.remove(one)
            tokens = chance.randint(100, 900)
            used += tokens
            await one[1].settle(Usage(output_text=tokens))
        for _ in range(TRIES):
            answer = await quota.ask(Asked(ESTIMATE, Usage(), ESTIMATE))
            if isinstance(answer, SharedReservation):
                running.append((clock.now + chance.choice((1, 2, 3)), answer))
            else:
                refused += 1
        print(json.dumps({"used": used, "refused": refused, "losses": state.losses}), flush=True)  # noqa: T201
    await state.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
