"""A worker for test_worker_pool: the payload of OPEN tells it how to behave."""

from __future__ import annotations

import json
import os
import signal
import time

from vivavoce.engines.builtin.worker_channel import Channel, Kind, open_worker


def pieces(channel: Channel, job: int, count: int, size: int) -> None:
    """Send as many pieces as there is credit for, until all are sent or the job is cancelled."""
    room = 4 * size
    for n in range(count):
        while room <= 0:
            frame = channel.receive()
            if frame.kind is Kind.CANCEL:
                return
            if frame.kind is Kind.CREDIT:
                room += int.from_bytes(frame.payload, "little")
        channel.send(job, Kind.DATA, bytes([n % 256]) * size)
        room -= size


def behave(channel: Channel, job: int, command: str) -> None:
    if command == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    elif command == "traceback":
        raise ZeroDivisionError
    elif command == "hang":
        time.sleep(3600)
    elif command == "garbage":
        os.write(channel._out, b"\xff" * 64)
    elif command == "stray print":
        os.write(1, b"a native library says hello")
    elif command == "nice":
        channel.send(job, Kind.DATA, f"{os.nice(0)} {os.environ['OMP_NUM_THREADS']}".encode())
    elif command == "fail":
        channel.send(job, Kind.FAILED, json.dumps({"code": "no_luck", "message": "Not today."}).encode())
        return
    elif command.startswith("pieces"):
        _, count, size = command.split()
        pieces(channel, job, int(count), int(size))
    channel.send(job, Kind.DONE)


def main() -> None:
    channel, setup = open_worker()
    if setup == b"fatal":
        channel.fail_start("it has no heart")
    if setup == b"die":
        raise SystemExit(3)
    if setup == b"mute":
        time.sleep(3600)
    if setup.startswith(b"only once "):
        flag = setup.removeprefix(b"only once ")
        if os.path.exists(flag):
            raise SystemExit(4)
        os.close(os.open(flag, os.O_CREAT))
    channel.send(0, Kind.READY, b"ready")
    echoes: set[int] = set()
    while True:
        job, kind, payload = channel.receive()
        if kind is Kind.OPEN and payload == b"echo":
            echoes.add(job)
        elif kind is Kind.OPEN:
            behave(channel, job, payload.decode())
        elif kind is Kind.DATA and job in echoes:
            channel.send(job, Kind.DATA, payload)
            channel.send_credit(job, len(payload))
        elif kind in (Kind.END, Kind.CANCEL) and job in echoes:
            echoes.remove(job)
            channel.send(job, Kind.DONE)


if __name__ == "__main__":
    main()
