"""``python -m bench.hearing CONFIG ENGINE [--speakers 50]``: many people speak to one recogniser, in real time.

Tells how long each waits for the last words after the last sound, over all and by speaker: a recogniser is fair
when the slowest speaker's median is near that of all. Each says the question of the demo over and over, with a
pause between, and begins at a time of their own, as people do who do not know of each other. It is the processes of
the recogniser that are measured: this one only feeds them.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
import wave
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from vivavoce.audio.resample import resample
from vivavoce.config import load_config
from vivavoce.engines.base import EngineError, Transcriber, TranscriptDelta, TranscriptionOptions
from vivavoce.engines.registry import Registry

CHUNK_MS = 100


def question(rate: int) -> bytes:
    """s16le mono at ``rate`` Hz."""
    file = resources.files("vivavoce.demo").joinpath("data/question.wav")
    with file.open("rb") as raw, wave.open(raw) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        return resample(samples, sound.getframerate(), rate).astype("<i2").tobytes()


async def utterance(
    engine: Transcriber, pcm: bytes, options: TranscriptionOptions
) -> tuple[float, float | None, bool]:
    """Say it once -> milliseconds from the last sound to the end, to the first words (None for none before the last
    sound), and whether it was refused."""
    rate = engine.capabilities.sample_rate
    size = rate * CHUNK_MS // 1000 * 2
    last = first = 0.0

    async def spoken() -> AsyncIterator[bytes]:
        nonlocal last
        begun = time.perf_counter()
        for n, at in enumerate(range(0, len(pcm), size), 1):
            await asyncio.sleep(max(0.0, begun + n * CHUNK_MS / 1000 - time.perf_counter()))
            yield pcm[at : at + size]
        last = time.perf_counter()

    try:
        async for piece in engine.transcribe(spoken(), options):
            if isinstance(piece, TranscriptDelta) and not first:
                first = time.perf_counter()
    except EngineError:
        return 0.0, None, True
    early = (last - first) * 1000 if first and first < last else None
    return (time.perf_counter() - last) * 1000, early, False


async def speaker(
    engine: Transcriber,
    pcm: bytes,
    options: TranscriptionOptions,
    arguments: argparse.Namespace,
    chance: random.Random,
) -> tuple[list[float], int, int]:
    """-> waits, utterances with words before their end, utterances that were refused."""
    waits, early, refused = [], 0, 0
    await asyncio.sleep(chance.uniform(0, arguments.pause + len(pcm) / 2 / engine.capabilities.sample_rate))
    for _ in range(arguments.utterances):
        waited, words, failed = await utterance(engine, pcm, options)
        refused += failed
        if not failed:
            waits.append(waited)
            early += words is not None
        await asyncio.sleep(chance.uniform(0.5, 1.5) * arguments.pause)
    return waits, early, refused


def spread(values: Sequence[float]) -> str:
    """p50, p95 and the most, in ms."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"p50 {statistics.median(ordered):.0f}  p95 {p95:.0f}  max {ordered[-1]:.0f} ms"


async def measure(engine: Transcriber, arguments: argparse.Namespace) -> None:
    pcm = question(engine.capabilities.sample_rate)
    await engine.start()
    try:
        chance = random.Random(arguments.seed)
        options = [TranscriptionOptions(arguments.language, session=str(n)) for n in range(arguments.speakers)]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(speaker(engine, pcm, one, arguments, random.Random(chance.random())))
                for one in options
            ]
    finally:
        await engine.close()
    results = [task.result() for task in tasks]
    waits = [wait for waits, _, _ in results for wait in waits]
    seconds = len(pcm) / 2 / engine.capabilities.sample_rate
    print(f"{arguments.speakers} speakers, {len(waits)} utterances of {seconds:.1f} s")
    print(f"refused:                       {sum(refused for _, _, refused in results)}")
    print(f"with words before their end:   {sum(early for _, early, _ in results)}")
    if waits:
        print(f"wait after the last sound:     {spread(waits)}")
        print(f"median of each speaker:        {spread([statistics.median(one) for one, _, _ in results if one])}")


def engine_of(path: Path, name: str) -> Transcriber:
    config = load_config(path, environ={})
    settings = config.engines[name]
    options: Mapping[str, object] = settings.options
    engine = Registry.installed().create("transcriber", settings.type, options, base=config.base)
    assert isinstance(engine, Transcriber)
    return engine


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hearing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("engine", help="NAME of a table [engine.NAME] of the kind transcriber")
    parser.add_argument("--speakers", type=int, default=50)
    parser.add_argument("--utterances", type=int, default=4, help="of each speaker")
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between them, on average")
    parser.add_argument("--language")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(measure(engine_of(arguments.config, arguments.engine), arguments))


if __name__ == "__main__":
    main()
