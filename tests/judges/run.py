"""Outside judges: clients that others wrote for the real service, unpatched, each in an environment of its own,
against a server that really runs.

``python tests/judges/run.py [--quick] [JUDGE ...]``, in the environment that vivavoce is installed in. Environments
are made under ``.judges/`` from the lock of the judge, and made anew when the lock changes. Exit code 1 when a case
fails, or when the versions and counts in ``docs/reference/clients.md`` are others.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from importlib.metadata import distributions
from pathlib import Path
from typing import Final, TextIO

import golden_frames

from vivavoce.audio.formats import AudioFormat
from vivavoce.audio.resample import convert
from vivavoce.demo.sound import RATE, parse_wav

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parents[1] / ".judges"
PAGE: Final = HERE.parents[1] / "docs" / "reference" / "clients.md"
INSTALL_S: Final = 900
READY_S: Final = 60
STOP_S: Final = 20
_TRUST: Final = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE")
"""What makes Node.js and Python trust a certificate."""
JUDGE_S: Final = 600
"""When something hangs, not when it is slow."""


@dataclass(frozen=True)
class Judge:
    """A client and the program that uses it. The folder with its lock has the judge's name."""

    name: str
    package: str
    program: str
    quick: bool = False
    tls: bool = False
    """It connects by wss:// only."""
    note: str = ""
    """What a user of this client must do that others need not."""

    @property
    def folder(self) -> Path:
        return HERE / self.name

    @property
    def is_node(self) -> bool:
        return self.program.endswith(".mjs")


_WSS: Final = "connects by wss:// only: serve --tls-cert, NODE_EXTRA_CA_CERTS"
_PY_WSS: Final = "its Azure class connects by wss:// only: serve --tls-cert, SSL_CERT_FILE"
JUDGES: Final = (
    Judge("openai-1.59", "openai", "openai_python.py", quick=True),
    Judge("openai-1.99", "openai", "openai_python.py"),
    Judge("openai-newest", "openai", "openai_python.py", quick=True),
    Judge("openai-ga", "openai", "openai_ga.py", quick=True),
    Judge("npm-openai-5", "openai", "openai_node.mjs", quick=True, tls=True, note=_WSS),
    Judge("npm-openai-6", "openai", "openai_node_ga.mjs", tls=True, note=_WSS),
    Judge("npm-openai-7", "openai", "openai_node_ga.mjs", quick=True, tls=True, note=_WSS),
    Judge("openai-agents-0.2", "openai-agents", "openai_agents.py"),
    Judge("openai-agents-0.24", "openai-agents", "openai_agents.py"),
    Judge("npm-agents-realtime-0.20", "@openai/agents-realtime", "agents_realtime.mjs", quick=True),
    Judge("pipecat-0.0.80", "pipecat-ai", "pipecat_beta.py"),
    Judge("pipecat-1.14", "pipecat-ai", "pipecat_ga.py"),
    Judge("pydantic-ai-2.68", "pydantic-ai-slim", "pydantic_ai_ga.py", tls=True, note=_PY_WSS),
    Judge("semantic-kernel-1.45", "semantic-kernel", "semantic_kernel_ga.py", tls=True, note=_PY_WSS),
    Judge(
        "rt-client-0.5",
        "rt-client",
        "rt_client.mjs",
        note="closes when it meets conversation.created: conversation_created = false",
    ),
    Judge(
        "livekit-1.1",
        "livekit-plugins-openai",
        "livekit_plugin.py",
        note='speaks the edition of 2025: api-version 2025-04-01-preview, or profile = "azure-2025-04"',
    ),
    Judge("livekit-1.8", "livekit-plugins-openai", "livekit_plugin.py"),
)


@dataclass
class Verdict:
    judge: Judge
    version: str
    cases: list[dict[str, object]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """What went wrong outside of the cases."""
    seconds: float = 0.0

    @property
    def failed(self) -> list[dict[str, object]]:
        return [case for case in self.cases if not case["ok"]]

    @property
    def good(self) -> bool:
        return bool(self.cases) and not self.failed and not self.faults


class Trouble(Exception):
    """A judge could not be set up or run."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = argparse.ArgumentParser(description="Let outside clients judge the server.")
    names = [judge.name for judge in JUDGES]
    arguments.add_argument("judges", nargs="*", metavar="JUDGE", help=f"of {', '.join(names)}; all unless given")
    arguments.add_argument("--quick", action="store_true", help="the selection for every submission")
    chosen = arguments.parse_args(argv)
    if unknown := set(chosen.judges) - set(names):
        arguments.error(f"no such judge: {', '.join(sorted(unknown))}")
    judges = [
        judge
        for judge in JUDGES
        if (judge.name in chosen.judges or not chosen.judges) and (judge.quick or not chosen.quick)
    ]
    CACHE.mkdir(exist_ok=True)
    _make_sounds(CACHE)
    frames = golden_frames.write(CACHE / "frames.jsonl", CACHE / "frames-ga.jsonl")
    say(f"{len(judges)} judges, {frames} frames of golden scripts")
    verdicts = [_hear(judge) for judge in judges]
    _print_table(verdicts)
    return 0 if all(verdict.good for verdict in verdicts) else 1


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------------ one judge


def _hear(judge: Judge) -> Verdict:
    verdict = Verdict(judge, "?")
    began = time.monotonic()
    say(f"\n{judge.name}")
    try:
        place = _environment(judge)
        verdict.version, patched = _installed(judge, place)
        verdict.faults += patched
        say(f"  {judge.package} {verdict.version}")
        began = time.monotonic()
        with _server(place / "server.log", tls=judge.tls) as environment:
            _run(judge, place, environment, verdict)
    except Trouble as trouble:
        verdict.faults.append(str(trouble))
    if verdict.good:
        verdict.faults += _untold(verdict)
    verdict.seconds = time.monotonic() - began
    for fault in verdict.faults:
        say(f"  FAILED {fault}")
    return verdict


def _run(judge: Judge, place: Path, environment: dict[str, str], verdict: Verdict) -> None:
    if judge.is_node:
        for program in HERE.glob("*.mjs"):
            shutil.copy(program, place)
        # Node 20 hides the WebSocket of the browsers behind an option; later ones have it, and the option still.
        command = ["node", "--experimental-websocket", judge.program]
    else:
        command = [str(place / "bin" / "python"), str(HERE / judge.program)]
    log = place / "judge.log"
    with log.open("w") as stderr, _process(command, place, environment, stderr) as process:
        overdue = threading.Timer(JUDGE_S, process.kill)
        overdue.start()
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith('{"case":'):
                stderr.write(line)
                continue
            case = json.loads(line)
            verdict.cases.append(case)
            say(f"  {'ok    ' if case['ok'] else 'FAILED'} {case['case']}  {case['detail']}".rstrip())
        code = process.wait()
        overdue.cancel()
    if code != 0:
        verdict.faults.append(f"{judge.program} ended with {code}; see {log}")


@contextmanager
def _process(
    command: list[str], place: Path, environment: dict[str, str], stderr: TextIO
) -> Iterator[subprocess.Popen[str]]:
    """A program whose stdout is read; nothing of it is left afterwards."""
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )
    try:
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------------------ the server


@contextmanager
def _server(log: Path, *, tls: bool = False) -> Iterator[dict[str, str]]:
    """A server of its own -> the environment of the judge. It must stop in order, and must not have complained."""
    key = secrets.token_hex(16)
    command = [sys.executable, "-m", "vivavoce", "serve", "--config", str(HERE / "server.toml"), "--port", "0"]
    certificate = _certificate(log.parent) if tls else None
    if certificate:
        command += ["--tls-cert", str(certificate)]
    environment = os.environ | {"VIVAVOCE_API_KEY": key}
    with log.open("w") as stderr, _process(command, HERE, environment, stderr) as process:
        overdue = threading.Timer(READY_S, process.kill)
        overdue.start()
        assert process.stdout is not None
        ready = process.stdout.readline()
        overdue.cancel()
        port = re.search(r"://127\.0\.0\.1:(\d+)/", ready)
        if port is None:
            raise Trouble(f"the server did not start; see {log}")
        yield os.environ | {
            "JUDGE_KEY": key,
            "JUDGE_PORT": port[1],
            "JUDGE_SOUNDS": str(CACHE),
            "JUDGE_FRAMES": str(CACHE / "frames.jsonl"),
            "JUDGE_FRAMES_GA": str(CACHE / "frames-ga.jsonl"),
            **({name: str(certificate) for name in _TRUST} if certificate else {}),
        }
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise Trouble(f"the server did not stop; see {log}") from None
    if code != 0:
        raise Trouble(f"the server ended with {code}; see {log}")
    complaints = [line for line in log.read_text().splitlines() if "ERROR" in line or "Traceback" in line]
    if complaints:
        raise Trouble(f"the server complained: {complaints[0]}; see {log}")


def _certificate(folder: Path) -> Path:
    """Key and certificate of 127.0.0.1, good for a day, in one file; who trusts the file trusts the server."""
    target = folder / "certificate.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "1"]
    _do(["openssl", "req", "-x509", *kind, *name, "-keyout", str(target), "-out", str(target)], folder)
    return target


def _make_sounds(folder: Path) -> None:
    """The question of the demo and a second of silence: pcm16 at 24 kHz, and G.711 u-law at 8 kHz."""
    wav = resources.files("vivavoce.demo").joinpath("data/question.wav").read_bytes()
    sound = parse_wav(wav).astype("<i2").tobytes() + bytes(2 * RATE)
    (folder / "question.pcm").write_bytes(sound)
    (folder / "question.ulaw").write_bytes(convert(sound, AudioFormat.PCM16, AudioFormat.G711_ULAW))


# -------------------------------------------------------------------------------------------- environments


def _environment(judge: Judge) -> Path:
    """Where the client of the judge is installed, exactly as its lock says."""
    place = CACHE / judge.name
    lock = judge.folder / ("package-lock.json" if judge.is_node else "requirements.lock")
    stamp = place / "installed"
    digest = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return place
    say("  installing")
    shutil.rmtree(place, ignore_errors=True)
    if judge.is_node:
        place.mkdir()
        shutil.copy(lock, place)
        shutil.copy(judge.folder / "package.json", place)
        _do(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], place)
    else:
        _do([sys.executable, "-m", "venv", "--without-pip", str(place)], CACHE)
        target = ["--python", str(place / "bin" / "python")]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", *target]
        _do([*pip, "install", "--quiet", "--no-compile", "--no-deps", "--require-hashes", "-r", str(lock)], place)
    stamp.write_text(digest)
    return place


def _do(command: list[str], place: Path) -> None:
    try:
        subprocess.run(
            command,
            cwd=place,
            check=True,
            timeout=INSTALL_S,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        raise Trouble(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise Trouble(f"{' '.join(command)}: {error.stderr[-2000:]}") from error
    except subprocess.TimeoutExpired as error:
        raise Trouble(f"{' '.join(command)} took more than {INSTALL_S} s") from error


def _installed(judge: Judge, place: Path) -> tuple[str, list[str]]:
    """The version of the client, and its files that are not as they were published."""
    if judge.is_node:
        package = json.loads((place / "node_modules" / judge.package / "package.json").read_text())
        return package["version"], []
    (distribution,) = distributions(name=judge.package, path=[str(next(place.glob("lib/python3*/site-packages")))])
    patched = []
    for file in distribution.files or []:
        if file.hash is not None:
            digest = hashlib.new(file.hash.mode, file.read_binary()).digest()
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
                patched.append(f"{file} is not as published")
    return distribution.version, patched


# -------------------------------------------------------------------------------------------------- verdict


def _untold(verdict: Verdict) -> list[str]:
    """What the page of clients should say of a judge that is content, and does not."""
    cases = len(verdict.cases)
    told = f"| `{verdict.judge.name}` | {verdict.version} | {cases} of {cases} cases |"
    return [] if told in PAGE.read_text(encoding="utf-8") else [f"{PAGE.name} does not say: {told}"]


def _print_table(verdicts: Sequence[Verdict]) -> None:
    rows = [("judge", "client", "cases", "failed", "seconds", "note")]
    for verdict in verdicts:
        judge = verdict.judge
        counts = (str(len(verdict.cases)), str(len(verdict.failed) + len(verdict.faults)), f"{verdict.seconds:.0f}")
        rows.append((judge.name, f"{judge.package} {verdict.version}", *counts, judge.note))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    say("")
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    good = sum(verdict.good for verdict in verdicts)
    say(f"\n{good} of {len(verdicts)} judges content, no client patched.")


if __name__ == "__main__":
    sys.exit(main())
