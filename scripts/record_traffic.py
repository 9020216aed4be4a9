"""Record the traffic of some text sessions with a server, for ``vivavoce simulate-ptu --recorded``.

``python scripts/record_traffic.py ws://127.0.0.1:8089 KEY FILE`` writes a line for each response: when it was asked
for, what it read and made, and how long it took.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

PATH = "/openai/realtime?api-version=2025-04-01-preview&deployment=gpt-4o-realtime-preview"
LIMITS = (None, 256, 1024)


async def session(url: str, key: str, until: float, chance: random.Random, rows: list[dict[str, Any]]) -> None:
    """One caller: says something longer and longer, and has it answered, until the time is over."""
    async with aiohttp.ClientSession() as http, http.ws_connect(url + PATH, headers={"api-key": key}) as socket:
        while time.monotonic() < until:
            await asyncio.sleep(chance.expovariate(1.0))
            words = " ".join(chance.choice(("please", "tell", "me", "more", "about", "it")) for _ in range(400))
            content = [{"type": "input_text", "text": words}]
            item = {"type": "message", "role": "user", "content": content}
            await socket.send_json({"type": "conversation.item.create", "item": item})
            limit = chance.choice(LIMITS)
            response = {"modalities": ["text"]} | ({} if limit is None else {"max_output_tokens": limit})
            began = time.monotonic()
            await socket.send_json({"type": "response.create", "response": response})
            async for message in socket:
                event = json.loads(message.data)
                if event["type"] == "response.done":
                    usage = event["response"]["usage"]
                    rows.append(
                        {
                            "time": round(began, 3),
                            "prompt_tokens": usage["input_tokens"],
                            "output_tokens": usage["output_tokens"],
                            "cached_tokens": usage["input_token_details"]["cached_tokens"],
                            "max_tokens": limit,
                            "seconds": round(time.monotonic() - began, 3),
                        }
                    )
                    break


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("file", type=Path)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=60.0)
    chosen = parser.parse_args()
    rows: list[dict[str, Any]] = []
    until = time.monotonic() + chosen.seconds
    callers = (session(chosen.url, chosen.key, until, random.Random(seed), rows) for seed in range(chosen.sessions))
    await asyncio.gather(*callers)
    rows.sort(key=lambda row: row["time"])
    first = rows[0]["time"]
    lines = [json.dumps(row | {"time": round(row["time"] - first, 3)}) + "\n" for row in rows]
    chosen.file.write_text("".join(lines), encoding="utf-8")
    print(f"{chosen.file}: {len(rows)} responses")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
