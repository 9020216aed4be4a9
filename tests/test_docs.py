"""The documentation against the code: what it names exists, and what it shows works.

A block after ``<!-- file: NAME -->`` is a whole file of an example; the files of a page are an example together.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, get_type_hints

import msgspec
import pytest
import typer
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from vivavoce import cli
from vivavoce.config import load_config
from vivavoce.demo.run import Exit
from vivavoce.demo.sound import RATE, parse_wav, read_wav, write_wav
from vivavoce.engines.builtin import scripted_script
from vivavoce.engines.builtin.espeak import EspeakOptions
from vivavoce.engines.builtin.pocketsphinx import PocketsphinxOptions
from vivavoce.engines.faster_whisper import FasterWhisperOptions
from vivavoce.engines.kokoro import DEFAULT_VOICES, KokoroOptions
from vivavoce.engines.llama_cpp import LlamaOptions
from vivavoce.engines.openai_compatible.language_model import LanguageModelOptions
from vivavoce.engines.openai_compatible.speech_model import SpeechModelOptions
from vivavoce.engines.openai_compatible.synthesizer import SynthesizerOptions
from vivavoce.engines.openai_compatible.transcriber import TranscriberOptions
from vivavoce.engines.piper import PiperOptions
from vivavoce.engines.registry import ENGINE_KINDS, Registry
from vivavoce.engines.sherpa_onnx_asr import OFFLINE, STREAMING, ModelType, SherpaOnnxOptions
from vivavoce.engines.sherpa_onnx_tts import SherpaOptions
from vivavoce.engines.upstream_realtime import Options as RelayOptions
from vivavoce.gateway.deployments import build_engines
from vivavoce.gateway.models.catalogue import ModelCatalogue, shipped_tables
from vivavoce.wire import errors, refusals
from vivavoce.wire.dialects import ga_out, ga_shapes, preview_out
from vivavoce.wire.dialects.preview_shapes import event_shapes
from vivavoce.wire.dialects.profiles import NEWEST, PROFILES

ROOT: Final = Path(__file__).parent.parent
COMPATIBILITY: Final = ROOT / "COMPATIBILITY.md"
PAGES: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", COMPATIBILITY, *sorted((ROOT / "docs").rglob("*.md"))]
USER_PAGES: Final = [page for page in PAGES if page.parent.name in ("tutorial", "how-to", "reference")]
TUTORIAL: Final = ROOT / "docs/tutorial/first-voice-app.md"
CI: Final = ROOT / "docs/how-to/test-in-ci.md"
ENGINE: Final = ROOT / "docs/how-to/write-an-engine.md"
EXAMPLE: Final = ROOT / "examples/vivavoce-tones"
EVENTS: Final = ROOT / "docs/reference/events.md"
ERRORS: Final = ROOT / "docs/reference/errors.md"
CONFIGURATION: Final = ROOT / "docs/reference/configuration.md"
BROWSERS: Final = ROOT / "docs/how-to/browser-tokens.md"
CLI: Final = ROOT / "docs/reference/cli.md"
FILES: Final = {"script", "model", "folder", "encoder"}
"""Options of engines that name files which a test does not have."""
PATIENCE_S: Final = 60.0
"""When a test hangs, not when it is slow."""

_BLOCK: Final = re.compile(
    r"^(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    page: Path
    language: str
    text: str
    file: str | None
    line: int

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, found["language"], found["text"], found["file"], text[: found.start("text")].count("\n") + 1)
        for found in _BLOCK.finditer(text)
    ]


def prose(page: Path) -> str:
    return _BLOCK.sub("", page.read_text())


def section(page: Path, title: str) -> str:
    """The text between a heading and the next one of its level or above."""
    text = page.read_text()
    heading = re.search(rf"^(#+) {re.escape(title)}\n", text, re.MULTILINE)
    assert heading is not None, title
    rest = text[heading.end() :]
    end = re.search(rf"^#{{1,{len(heading[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def first_column(markdown: str) -> list[str]:
    """What stands in backticks in the first cell of each row."""
    return [
        name for row in re.findall(r"^\|([^|]*)\|", markdown, re.MULTILINE) for name in re.findall(r"`(.*?)`", row)
    ]


def write_example(page: Path, folder: Path) -> None:
    for block in blocks(page):
        if block.file is not None:
            target = folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)


def written_in(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language in languages]


# ---------------------------------------------------------------------------------------------------- the text


def anchors(page: Path) -> set[str]:
    """As GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_lists_every_page() -> None:
    index = ROOT / "docs/README.md"
    listed = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", index.read_text())}
    assert listed == {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {index} | {COMPATIBILITY}


@pytest.mark.parametrize("block", written_in("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("block", written_in("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", written_in("toml"), ids=str)
def test_toml_is_accepted(block: Block, tmp_path: Path) -> None:
    """A block is a script, a piece of a ``pyproject.toml``, a catalogue of models, or else a configuration."""
    table = tomllib.loads(block.text)
    if "rule" in table:
        scripted_script.parse(block.text)
    elif "project" in table:
        groups = set(table["project"]["entry-points"])
        assert groups <= {f"vivavoce.{kind}" for kind in ENGINE_KINDS}
    elif "model" in table:
        ModelCatalogue([*shipped_tables(), table])
    else:
        file = tmp_path / "vivavoce.toml"
        file.write_text(block.text)
        tables = table.get("engine", {}).values()
        named = [value for engine in tables for option, value in engine.items() if option.endswith("_env")]
        config = load_config(file, environ=dict.fromkeys(named, "a-key"))
        registry = Registry.installed()
        ours = all(engine.type in registry.names(engine.kind) for engine in config.engines.values())
        if ours and not any(FILES & engine.options.keys() for engine in config.engines.values()):
            build_engines(config, registry)


# ------------------------------------------------------------------------------------------- the command line


def _options() -> dict[str, set[str]]:
    """Of every command; of a group (``deployment``) those of all its verbs together."""
    group = typer.main.get_command(cli.app)
    commands: dict[str, typer.core.TyperCommand] = getattr(group, "commands")  # noqa: B009
    return {
        name: {
            option
            for one in (command, *getattr(command, "commands", {}).values())
            for parameter in one.params
            for option in parameter.opts
            if option.startswith("--")
        }
        for name, command in commands.items()
    }


OPTIONS: Final = _options()


def test_named_options_exist() -> None:
    unknown = []
    for page in PAGES:
        for command, rest in re.findall(r"\bvivavoce ([a-z][a-z-]+)((?: [^`\n]*)?)", page.read_text()):
            named = set(re.findall(r"(?<!\S)--[a-z-]+", rest)) - {"--help"}
            if command in OPTIONS and not named <= OPTIONS[command]:
                unknown.append((page.name, command, named - OPTIONS[command]))
    assert unknown == []


@pytest.mark.parametrize("command", sorted(OPTIONS))
def test_the_reference_has_every_option(command: str) -> None:
    (title,) = re.findall(rf"^## (`vivavoce {command}[^`]*`)$", CLI.read_text(), re.MULTILINE)
    named = [name.split()[0] for name in first_column(section(CLI, title)) if name.startswith("--")]
    assert sorted(named) == sorted(OPTIONS[command] - {"--help"})


def test_the_reference_has_every_exit_code_of_the_demo() -> None:
    codes = re.findall(r"^\| (\d+) \|", section(CLI, "`vivavoce demo`"), re.MULTILINE)
    assert [int(code) for code in codes] == [code for code in Exit if code is not Exit.OK]


@pytest.mark.parametrize(
    ("engine", "options"),
    [("pocketsphinx", PocketsphinxOptions), ("espeak", EspeakOptions)],
    ids=["hears", "speaks"],
)
def test_the_reference_has_every_option_of_the_engines(engine: str, options: type[msgspec.Struct]) -> None:
    _, _, rest = section(CONFIGURATION, "Options of the built-in engines").partition(f"\n`{engine}` ")
    table = rest.partition("|\n\n")[0]
    assert first_column(table) == list(options.__struct_fields__)


@pytest.mark.parametrize(
    ("page", "options"),
    [
        ("faster-whisper", FasterWhisperOptions),
        ("sherpa-onnx-recogniser", SherpaOnnxOptions),
        ("piper", PiperOptions),
        ("kokoro", KokoroOptions),
        ("sherpa-onnx-tts", SherpaOptions),
        ("llama-cpp", LlamaOptions),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_page_of_an_engine_has_every_option(page: str, options: type[msgspec.Struct]) -> None:
    file = ROOT / f"docs/how-to/{page}.md"
    assert sorted(first_column(section(file, "Options"))) == sorted(options.__struct_fields__)
    shown = [tomllib.loads(block.text) for block in blocks(file) if block.language == "toml"]
    tables = [table for config in shown for table in config["engine"].values()]
    assert tables
    assert all(table.keys() - {"kind", "type"} <= set(options.__struct_fields__) for table in tables)


def test_the_page_of_kokoro_has_its_voices() -> None:
    configured = section(ROOT / "docs/how-to/kokoro.md", "Configure it")
    assert re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", configured, re.MULTILINE) == list(DEFAULT_VOICES.items())


@pytest.mark.parametrize(
    ("mode", "kinds"), [("streaming", STREAMING), ("offline", OFFLINE)], ids=["streaming", "offline"]
)
def test_the_page_of_sherpa_onnx_has_every_type_of_model(mode: str, kinds: dict[str, ModelType]) -> None:
    table = section(ROOT / "docs/how-to/sherpa-onnx-recogniser.md", "Use it")
    rows = [row.split("|")[1:4] for row in table.splitlines()]
    told = {
        kind: tuple(re.findall("`(.+?)`", row[2]))
        for row in rows
        if len(row) == 3 and row[0].strip() == f"`{mode}`"
        for kind in re.findall("`(.+?)`", row[1])
    }
    assert told == {name: kind.files for name, kind in kinds.items()}


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (LanguageModelOptions, ("All kinds:", "`language_model` and `speech_model`:")),
        (SpeechModelOptions, ("All kinds:", "`language_model` and `speech_model`:", "`speech_model` alone:")),
        (TranscriberOptions, ("All kinds:", "`transcriber`:")),
        (SynthesizerOptions, ("All kinds:", "`synthesizer`:")),
    ],
)
def test_the_page_of_openai_compatible_has_every_option(
    options: type[msgspec.Struct], kinds: tuple[str, ...]
) -> None:
    text = section(ROOT / "docs/how-to/openai-compatible.md", "Options")
    named = [name for kind in kinds for name in first_column(text.partition(f"{kind}\n")[2].partition("|\n\n")[0])]
    assert sorted(named) == sorted(options.__struct_fields__)


def test_the_page_of_the_relay_has_every_option() -> None:
    table = section(ROOT / "docs/how-to/relay-to-a-real-service.md", "Options")
    assert sorted(first_column(table)) == sorted(RelayOptions.__struct_fields__)


# ------------------------------------------------------------------------------------------ events and errors


def _server_events() -> tuple[set[str], set[str]]:
    """Names that the encoder writes, and the beginnings of those that it puts together."""
    name = re.compile(
        r"(error|(session|transcription_session|conversation|input_audio_buffer|response|rate_limits)\.[a-z_.]+)"
    )
    tree = ast.parse(inspect.getsource(preview_out))
    joined = [part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values]
    texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    beginnings = {str(node.value) for node in texts if node in joined and name.fullmatch(str(node.value))}
    return {str(node.value) for node in texts if name.fullmatch(str(node.value))} - beginnings, beginnings


GA_NAMES: Final = {
    *ga_shapes.EVENTS,
    *re.findall(r'"([a-z_]+(?:\.[a-z_]+)+)"', inspect.getsource(ga_out)),
    "response.output_audio.delta",
}
"""Events of the GA dialect; its hot event has a template of its own."""


def test_client_events_are_complete() -> None:
    table = section(EVENTS, "Client events").partition("###")[0]
    assert first_column(table) == list(event_shapes(PROFILES[NEWEST]))


def test_server_events_are_complete() -> None:
    listed = first_column(section(EVENTS, "Server events"))
    names, beginnings = _server_events()
    assert names <= set(listed)
    # The hot event and the large one have templates of their own.
    made = set(listed) - names - {"response.audio.delta", "conversation.item.retrieved"}
    assert made
    assert all(any(name.startswith(start) for start in beginnings) for name in made)
    assert len(listed) == len(set(listed)) == 32


def test_every_event_named_anywhere_exists() -> None:
    known = {*event_shapes(PROFILES[NEWEST]), *first_column(section(EVENTS, "Server events")), *GA_NAMES}
    families = r"session|transcription_session|conversation\.item|input_audio_buffer|response|rate_limits"
    pattern = rf"`((?:{families})\.[a-z_.]+)`"
    # The page of errors names fields in the same way; it is made of events that were sent.
    pages = [page for page in USER_PAGES if page != ERRORS]
    named = {name for page in pages for name in re.findall(pattern, prose(page))}
    fields = {"session.model"}
    assert named - known - fields == set()


_Error = TypeVar(
    "_Error", errors.ClientFault, refusals.RefusedHandshake, refusals.RefusedSession, errors.ServerFault
)
_SAMPLES: Final[dict[str, list[tuple[object, ...]]]] = {
    "number_below": [("p", "integer", 1, 0), ("p", "decimal", 1, 0)],
    "number_above": [("p", "integer", 1, 2), ("p", "decimal", 1, 2)],
    "unknown_item": [("deleting", "delete", "x"), ("truncating", "truncate", "x"), ("retrieving", "retrieve", "x")],
    "invalid_audio": [("p", "pcm16")],
    "transcription_failed": [(None, "x")],
    "secret_of_another_dialect": [("preview", "ga"), ("ga", "preview")],
}
_SAMPLE_OF_TYPE: Final[dict[object, object]] = {str: "x", int: 60, float: 1.0}


def _made(kind: type[_Error]) -> Iterator[_Error]:
    """One of every error of a kind that the catalogue can make."""
    functions = (*inspect.getmembers(errors, inspect.isfunction), *inspect.getmembers(refusals, inspect.isfunction))
    for name, function in functions:
        hints = get_type_hints(function)
        if hints.pop("return", None) is kind:
            needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
            usual = tuple(_SAMPLE_OF_TYPE.get(hints[parameter], ()) for parameter in needed)
            for sample in _SAMPLES.get(name, [usual]):
                error = function(*sample)
                assert isinstance(error, kind)
                yield error


def _rows(kind: str) -> set[tuple[str, ...]]:
    found = re.search(rf"<!-- codes: {kind} -->\n\|.*\n\|.*\n((?:\|.*\n)+)", EVENTS.read_text())
    assert found is not None
    return {tuple(cell.strip(" `") for cell in row.split("|")[1:-2]) for row in found[1].splitlines()}


def test_error_codes_are_complete() -> None:
    assert _rows("ClientFault") == {(fault.code or "null",) for fault in _made(errors.ClientFault)}


def test_the_verbs_of_the_samples_are_those_in_use() -> None:
    uses = [
        re.findall(r'unknown_item\("(\w+)", "(\w+)"', module.read_text())
        for module in (ROOT / "src/vivavoce/core").glob("*.py")
    ]
    assert {use for found in uses for use in found} == {sample[:2] for sample in _SAMPLES["unknown_item"]}


def test_refusals_are_complete() -> None:
    handshakes = {(str(one.status), one.code) for one in _made(refusals.RefusedHandshake)}
    assert _rows("RefusedHandshake") == handshakes
    sessions = {(str(one.close_code), one.error.code or "null") for one in _made(refusals.RefusedSession)}
    assert _rows("RefusedSession") == sessions


def test_server_faults_are_complete() -> None:
    assert _rows("ServerFault") == {(one.code or "null",) for one in _made(errors.ServerFault)}


# ------------------------------------------------------------------------------------------ examples that run


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "VIVAVOCE_API_KEY"}


def _run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=_environment() | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def app_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voice-app")
    write_example(TUTORIAL, folder)
    question = ROOT / "src/vivavoce/demo/data/question.wav"
    write_wav(folder / "question.wav", parse_wav(question.read_bytes()))
    return folder


@pytest.fixture(scope="module")
def server(app_folder: Path) -> Iterator[str]:
    """The server of the tutorial: ``127.0.0.1:PORT``."""
    command = [sys.executable, "-m", "vivavoce", "serve", "--port", "0", "--config", "vivavoce.toml"]
    with subprocess.Popen(
        command, cwd=app_folder, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            ready = re.search(r"ws://([^/]+)", process.stdout.readline())
            assert ready is not None
            yield ready[1]
        finally:
            process.terminate()
    assert process.returncode == 0


def test_the_first_screen_of_the_readme(server: str, tmp_path: Path) -> None:
    (client,) = (block.text for block in blocks(ROOT / "README.md") if block.language == "python")
    assert client.count("127.0.0.1:8089") == 1
    said = _run([sys.executable, "-c", client.replace("127.0.0.1:8089", server)], tmp_path).splitlines()
    words = [line.partition(" ")[2] for line in said if line.startswith("response.audio_transcript.delta")]
    assert "".join(words) == "Hello from my own machine."
    assert said[-1].strip() == "response.done"


def test_the_tutorial(server: str, app_folder: Path) -> None:
    app = app_folder / "app.py"
    paced = app.read_text()
    assert paced.count("asyncio.sleep(0.02)") == 1
    app.write_text(paced.replace("asyncio.sleep(0.02)", "asyncio.sleep(0)"))
    said = _run([sys.executable, "-W", "error", "app.py"], app_folder, REALTIME_URL=f"ws://{server}/openai")
    shown = next(block.text for block in blocks(TUTORIAL) if block.text.startswith("$ venv/bin/python app.py"))
    assert sorted(said.splitlines()) == sorted(shown.splitlines()[1:])
    assert len(read_wav(app_folder / "reply.wav")) > RATE


def test_the_example_of_the_ci_guide(tmp_path: Path) -> None:
    write_example(CI, tmp_path)
    loop_scope = ["-o", "asyncio_default_fixture_loop_scope=function"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *loop_scope, "tests"]
    assert "4 passed" in _run(command, tmp_path)


def test_the_backend_of_the_browser_guide(server: str, tmp_path: Path) -> None:
    write_example(BROWSERS, tmp_path)
    environment = {"VIVAVOCE": server, "VIVAVOCE_API_KEY": "secret", "PORT": "0"}
    command = [sys.executable, "-W", "error", "backend.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=_environment() | environment, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("open ").strip()
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as page:
                script = page.read().decode()
            with urllib.request.urlopen(f"{url}/token", b"", timeout=PATIENCE_S) as answer:
                told = json.load(answer)
        finally:
            process.terminate()
    assert 'new WebSocket(url, ["realtime", `openai-insecure-api-key.${secret}`])' in script
    offered = [Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{told['secret']}")]
    with connect(told["url"], subprotocols=offered, open_timeout=PATIENCE_S) as socket:
        created = json.loads(socket.recv(timeout=PATIENCE_S))
    assert created["session"]["instructions"] == "You are a guide in a museum. Be brief."


def test_the_example_engine_is_the_one_that_the_page_builds() -> None:
    shown = {block.file: block.text for block in blocks(ENGINE) if block.file is not None}
    assert shown == {name: (EXAMPLE / name).read_text() for name in shown}
    assert {path.name for path in EXAMPLE.iterdir() if path.is_file()} == shown.keys() | {"README.md", "scale.txt"}


def test_the_example_engine_is_installed_found_and_passes_its_tests(tmp_path: Path) -> None:
    """As a package of its own, from a wheel."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site), str(source)], tmp_path)
    (source / "vivavoce_tones.py").unlink()
    env = {"PYTHONPATH": str(site)}
    listed = _run([sys.executable, "-m", "vivavoce", "engines"], source, **env)
    assert re.search(r"synthesizer +tones +0\.1\.0 +vivavoce-tones 0\.1\.0 +24000 Hz, word timings", listed)
    command = [sys.executable, "-m", "vivavoce", "engines", "--config", "vivavoce.toml", "--check"]
    checked = _run(command, source, **env)
    assert len(re.findall(r"synthesizer +(?:fast_tones|tones) +tones +0\.1\.0 +works", checked)) == 2
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "."]
    assert "20 passed" in _run(command, source, **env)
