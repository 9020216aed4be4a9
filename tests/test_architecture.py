"""The rooms of the house and their arrows, read from the syntax trees of ``src/vivavoce``.

Each rule is a function from a module to what is wrong with it; :data:`RULES` runs over every file, and
:data:`BAD` shows each rule a file that it must refuse.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

import vivavoce

SOURCE: Final = Path(vivavoce.__file__).parent
MODULE_LINES: Final = 700

ROOMS: Final[dict[str, frozenset[str]]] = {
    "wire": frozenset(),
    "audio": frozenset(),
    "core": frozenset({"wire", "audio.formats"}),
    "config": frozenset({"wire"}),
    "engines": frozenset({"audio"}),
    "gateway": frozenset({"config", "wire", "engines.gate", "engines.registry"}),
    "runtime": frozenset({"core", "engines.base", "audio", "wire"}),
    "server": frozenset({"gateway", "runtime", "engines.sharing"}),
    "demo": frozenset(),
    "record": frozenset({"gateway.auth"}),
    "cli": frozenset(
        {
            "",
            "cli_engines",
            "cli_failure",
            "cli_identity",
            "cli_models",
            "cli_prompts",
            "cli_quota",
            "cli_resource",
            "config",
            "demo",
            "engines.registry",
            "gateway",
            "record",
            "server",
        }
    ),
    "cli_failure": frozenset(),
    "cli_resource": frozenset({"cli_engines", "cli_failure"}),
    "cli_engines": frozenset({"", "config", "engines.measure", "engines.registry", "gateway"}),
    "cli_identity": frozenset({"config", "gateway"}),
    "cli_models": frozenset({"", "cli_engines", "config", "gateway"}),
    "cli_prompts": frozenset({"config"}),
    "cli_quota": frozenset({"gateway"}),
    "__main__": frozenset({"cli"}),
    "": frozenset(),
    "testing": frozenset({"*"}),
}
"""The arrows: a room may import itself, these, and what those may (server -> runtime -> core).

``""`` is the package itself.
"""

PURE_ROOMS: Final[dict[str, frozenset[str]]] = {
    "wire": frozenset({"functools", "hashlib", "msgspec", "pybase64", "re", "types"}),
    "core": frozenset(
        {"array", "bisect", "functools", "hashlib", "itertools", "math", "msgspec", "re", "types", "unicodedata"}
    ),
    "audio": frozenset({"functools", "itertools", "math", "numpy", "soxr", "webrtc_noise_gain"}),
    "audio.formats": frozenset(),
}
"""All that a pure room imports from outside, beside :data:`LANGUAGE`.

Clocks, chance, sockets, tasks, files and logs are on no list.
"""
LANGUAGE: Final = frozenset({"__future__", "collections", "dataclasses", "enum", "typing"})

NO_FILES: Final = ("wire", "core", "audio", "runtime", "gateway", "server")
"""Rooms that read neither files nor environment: ``config`` does it for them."""

HEAVY: Final[dict[str, tuple[str, ...]]] = {
    "bpe_openai": ("server.tokenizer",),
    "alembic": ("gateway.store",),
    "aiohttp": ("server", "demo", "record", "testing", "engines"),
    "espeakng_loader": ("engines.builtin",),
    "faster_whisper": ("engines.faster_whisper_worker",),
    "httpx": ("engines.openai_compatible",),
    "jwt": ("gateway.development_issuer", "gateway.issuer_keys", "gateway.tokens"),
    "numpy": ("audio", "engines", "runtime", "demo", "testing"),
    "kokoro_onnx": ("engines.kokoro_worker",),
    "llama_cpp": ("engines.llama_cpp_worker",),
    "onnxruntime": ("engines.builtin.speech_pool",),
    "piper": ("engines.piper_worker",),
    "pocketsphinx": ("engines.builtin",),
    "psycopg": (),
    "sqlalchemy": ("gateway.store",),
    "prometheus_client": ("server.metrics", "server.websocket"),
    "rich": ("cli", "cli_engines", "cli_models", "cli_prompts", "cli_resource", "demo", "record.show"),
    "redis": ("gateway.shared.redis", "gateway.shared.opening"),
    "sherpa_onnx": ("engines.sherpa_onnx_asr_worker", "engines.sherpa_onnx_tts_worker"),
    "soxr": ("audio.resample", "demo.sound"),
    "typer": ("cli", "cli_engines", "cli_identity", "cli_models", "cli_quota", "cli_resource"),
    "uvloop": ("cli",),
    "webrtc_noise_gain": ("audio.noise_reduction",),
}
"""Where a package that is slow to import, or may be absent, is used."""
_STORE: Final = tuple(
    f"gateway.store.{name}"
    for name in ("sql", "rows", "tables", "migrate", "migrations.env", "migrations.versions.v0001_accounts")
)
"""Imported by ``gateway.store.opening`` alone, when a store is asked for."""

LAZY: Final[dict[str, tuple[str, ...]]] = {
    "alembic": _STORE,
    "bpe_openai": (),
    "espeakng_loader": (),
    "faster_whisper": (),
    "httpx": (),
    "jwt": ("gateway.development_issuer", "gateway.issuer_keys", "gateway.tokens"),
    "kokoro_onnx": (),
    "llama_cpp": (),
    "onnxruntime": (),
    "piper": (),
    "pocketsphinx": (),
    "redis": (),
    "sherpa_onnx": (),
    "soxr": ("demo.sound",),
    "sqlalchemy": _STORE,
    "uvloop": (),
    "webrtc_noise_gain": (),
}
"""Imported inside functions only, except by these modules."""

SELF_EXPLAINING: Final[dict[str, str]] = {
    **dict.fromkeys(
        [
            f"core.responses.Responses.{report}"
            for report in ("granted", "denied", "text", "audio", "call", "arguments", "finished", "failed")
        ],
        "handles the report of core.contract that it takes",
    ),
    **dict.fromkeys(
        [f"core.output.Output.{product}" for product in ("text", "audio", "call")],
        "takes the product that it is named after",
    ),
}
"""Public functions of some length without a docstring, and why they need none."""


@dataclass(frozen=True, slots=True)
class Module:
    name: str
    """Dotted, without ``vivavoce``: ``core.session``; empty for the package itself."""
    tree: ast.Module
    lines: int
    siblings: frozenset[str]
    """The names of all modules."""

    @property
    def room(self) -> str:
        return self.name.split(".")[0]


@dataclass(frozen=True, slots=True)
class Import:
    target: str
    line: int
    lazy: bool
    """Inside a function."""


def read(name: str, text: str, siblings: frozenset[str] = frozenset()) -> Module:
    return Module(name, ast.parse(text), text.count("\n"), siblings | {name})


def _name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_modules() -> list[Module]:
    paths = sorted(SOURCE.rglob("*.py"))
    names = frozenset(_name(path) for path in paths)
    return [read(_name(path), path.read_text(encoding="utf-8"), names) for path in paths]


MODULES: Final = all_modules()


def within(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def _for_checkers(node: ast.AST) -> bool:
    """``if TYPE_CHECKING:``, which never runs."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not node.orelse


def imports(module: Module) -> Iterator[Import]:
    """Every import, also those for type checkers only and those by a constant name at run time."""
    lazy = {
        id(inner)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _for_checkers(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(module.tree):
        targets: list[str] = []
        match node:
            case ast.Import(names):
                targets = [alias.name for alias in names]
            case ast.ImportFrom(source, names, _):
                for alias in names:
                    inner = f"{source}.{alias.name}"
                    is_module = inner.removeprefix("vivavoce.") in module.siblings
                    targets.append(inner if is_module else str(source))
            case ast.Call(
                func=ast.Name("__import__") | ast.Attribute(attr="import_module"), args=[ast.Constant(text)]
            ):
                targets = [str(text)]
        for target in targets:
            yield Import(target, getattr(node, "lineno", 0), id(node) in lazy)


def reach(room: str) -> frozenset[str]:
    """All places that ``room`` may import, by one arrow or by several."""
    found: set[str] = {room}
    fresh = [room]
    while fresh:
        place = fresh.pop()
        arrows = ROOMS.get(place, ROOMS["engines"] if place.startswith("engines.") else frozenset())
        fresh += [target for target in arrows if target not in found]
        found |= arrows
    return frozenset(found)


# ------------------------------------------------------------------------------------------------- rules


def arrows(module: Module) -> Iterator[str]:
    if module.room not in ROOMS:
        yield f"the room {module.room!r} is not in ROOMS"
        return
    allowed = reach(module.room)
    for item in imports(module):
        if not within(item.target, "vivavoce"):
            continue
        target = item.target.removeprefix("vivavoce").removeprefix(".")
        if within(target, "testing") and module.room != "testing":
            yield f"{item.line}: imports testing"
        elif "*" not in allowed and not any(within(target, place) if place else not target for place in allowed):
            yield f"{item.line}: {module.room or 'the package'} may not import {target or 'the package'}"


def base_is_alone(module: Module) -> Iterator[str]:
    """The contract of engines knows no engine."""
    if module.name == "engines.base":
        for item in imports(module):
            if within(item.target, "vivavoce") and not within(item.target, "vivavoce.audio"):
                yield f"{item.line}: engines.base imports {item.target}"


def purity(module: Module) -> Iterator[str]:
    place = next((p for p in ("audio.formats", *PURE_ROOMS) if within(module.name, p)), None)
    if place is None:
        return
    allowed = PURE_ROOMS[place] | LANGUAGE | {"vivavoce"}
    for item in imports(module):
        if item.target.split(".")[0] not in allowed:
            yield f"{item.line}: a pure room imports {item.target}"
    for call in calls(module):
        if isinstance(call.func, ast.Name) and call.func.id in ("open", "print", "input", "exec", "eval"):
            yield f"{call.lineno}: a pure room calls {call.func.id}()"


def files(module: Module) -> Iterator[str]:
    if module.room not in NO_FILES:
        return
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(attr="environ" | "environb" | "getenv" as name):
                yield f"{node.lineno}: reads the environment ({name})"
            case ast.Attribute(attr="read_text" | "read_bytes" | "write_text" | "write_bytes" as name):
                yield f"{node.lineno}: opens a file ({name})"
            case ast.Call(func=ast.Name("open")):
                yield f"{node.lineno}: opens a file"
            case ast.Call(func=ast.Attribute(ast.Name("os" | "io" | "Path"), "open")):
                yield f"{node.lineno}: opens a file"
            case ast.ImportFrom("os", names) if any(alias.name in ("environ", "getenv") for alias in names):
                yield f"{node.lineno}: reads the environment"


def heavy(module: Module) -> Iterator[str]:
    for item in imports(module):
        package = item.target.split(".")[0]
        if package in HEAVY and not any(within(module.name, place) for place in HEAVY[package]):
            yield f"{item.line}: {package} does not belong here"
        if package in LAZY and not item.lazy and module.name not in LAZY[package]:
            yield f"{item.line}: {package} is imported when the module is"


def relative(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"{node.lineno}: relative import"


def size(module: Module) -> Iterator[str]:
    if module.lines > MODULE_LINES:
        yield f"{module.lines} lines, at most {MODULE_LINES}"


def owners(module: Module) -> Iterator[str]:
    """A task that nobody holds may vanish, and its exception with it. A TaskGroup holds its own."""
    for node in ast.walk(module.tree):
        match node:
            case ast.Expr(ast.Call(func=ast.Name("create_task" | "ensure_future"))):
                yield f"{node.lineno}: a task without an owner"
            case ast.Expr(ast.Call(func=ast.Attribute(owner, "create_task" | "ensure_future"))):
                if not ast.unparse(owner).endswith(("group", "tg")):
                    yield f"{node.lineno}: a task without an owner"


def docstrings(module: Module) -> Iterator[str]:
    """In the core and the engine contract; one-statement functions and plain data speak for themselves."""
    if module.room != "core" and module.name != "engines.base":
        return
    if module.tree.body and not ast.get_docstring(module.tree):
        yield "no docstring"
    for path, node in public(module.tree, module.name):
        if ast.get_docstring(node) or path in SELF_EXPLAINING:
            continue
        if isinstance(node, ast.ClassDef):
            if any(not _is_stub(inner) for inner in node.body if isinstance(inner, ast.FunctionDef)):
                yield f"{node.lineno}: {path} has no docstring"
        elif not _is_stub(node):
            yield f"{node.lineno}: {path} has no docstring"


def _is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Says all in its signature: at most two plain statements, or none."""
    return len(node.body) <= 2 and not any(isinstance(n, ast.For | ast.While | ast.Try) for n in ast.walk(node))


def public(
    tree: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in tree.body:
        match node:
            case ast.ClassDef(name) | ast.FunctionDef(name) | ast.AsyncFunctionDef(name) if not name.startswith(
                "_"
            ):
                yield f"{prefix}.{name}", node
                if isinstance(node, ast.ClassDef):
                    yield from public(node, f"{prefix}.{name}")


def calls(module: Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


Rule = Callable[[Module], Iterator[str]]
RULES: Final[tuple[Rule, ...]] = (
    arrows,
    base_is_alone,
    purity,
    files,
    heavy,
    relative,
    size,
    owners,
    docstrings,
)

BAD: Final[list[tuple[Rule, str, str]]] = [
    (arrows, "core.session", "from vivavoce.runtime.driver import Driver"),
    (arrows, "core.session", "from vivavoce.engines import base"),
    (arrows, "core.session", "from vivavoce.audio import resample"),
    (arrows, "core.session", "import vivavoce.audio.g711"),
    (arrows, "core.session", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vivavoce.config"),
    (arrows, "core.session", "def f():\n    from vivavoce.config import Config"),
    (arrows, "core.session", "import importlib\nimportlib.import_module('vivavoce.config')"),
    (arrows, "core.session", "from vivavoce import __version__"),
    (arrows, "wire.codec", "from vivavoce.core.ids import Ids"),
    (arrows, "wire.codec", "from vivavoce import core"),
    (arrows, "audio.formats", "from vivavoce.wire import items"),
    (arrows, "engines.base", "from vivavoce.core.context import Entry"),
    (arrows, "engines.builtin.espeak", "from vivavoce.wire.session_config import VOICES"),
    (arrows, "runtime.driver", "from vivavoce.engines.registry import Registry"),
    (arrows, "runtime.driver", "from vivavoce.config import Config"),
    (arrows, "gateway.auth", "from vivavoce.engines.base import Vad"),
    (arrows, "gateway.auth", "from vivavoce.core.session import Session"),
    (arrows, "config", "from vivavoce.gateway.auth import KeyRing"),
    (arrows, "demo.run", "from vivavoce.wire import items"),
    (arrows, "record.compare", "from vivavoce.wire import items"),
    (arrows, "server.app", "from vivavoce.demo.run import run_demo"),
    (arrows, "server.app", "from vivavoce.testing import runner"),
    (arrows, "cli", "import vivavoce.testing"),
    (arrows, "attic.thing", ""),
    (base_is_alone, "engines.base", "from vivavoce.engines.registry import Registry"),
    *(
        (purity, "core.session", f"import {name}")
        for name in (
            "asyncio",
            "time",
            "random",
            "uuid",
            "os",
            "socket",
            "threading",
            "logging",
            "datetime",
            "pathlib",
        )
    ),
    (purity, "core.session", "from datetime import datetime\ndatetime.now()"),
    (purity, "core.ids", "from secrets import token_hex"),
    (purity, "core.usage", "open('x')"),
    (purity, "wire.codec", "import numpy"),
    (purity, "wire.codec", "print('x')"),
    (purity, "audio.formats", "import numpy as np"),
    (purity, "audio.resample", "import time"),
    (files, "server.app", "import os\nkey = os.environ['KEY']"),
    (files, "server.app", "import os\nkey = os.getenv('KEY')"),
    (files, "gateway.auth", "from os import environ"),
    (files, "gateway.auth", "from pathlib import Path\nPath('x').read_text()"),
    (files, "runtime.driver", "with open('x') as f:\n    pass"),
    (files, "runtime.driver", "import io\nio.open('x')"),
    (heavy, "server.app", "import numpy"),
    (heavy, "core.usage", "def f():\n    import soxr"),
    (heavy, "engines.builtin.silero_vad", "def f():\n    import onnxruntime"),
    (heavy, "engines.builtin.pocketsphinx", "from pocketsphinx import Decoder"),
    (heavy, "audio.resample", "import soxr"),
    (heavy, "engines.openai_compatible.upstream", "if not TYPE_CHECKING:\n    import httpx"),
    (heavy, "gateway.auth", "from rich.console import Console"),
    (heavy, "gateway.resource", "def f():\n    import sqlalchemy"),
    (heavy, "gateway.store.opening", "from sqlalchemy import select"),
    (heavy, "server.app", "import typer"),
    (relative, "core.session", "from . import turns"),
    (relative, "core.session", "from .turns import hear"),
    (size, "core.session", "x = 1\n" * 701),
    (owners, "runtime.driver", "import asyncio\nasync def f():\n    asyncio.create_task(g())"),
    (owners, "runtime.driver", "import asyncio\nasync def f():\n    asyncio.ensure_future(g())"),
    (owners, "server.app", "class A:\n    def f(self):\n        self._loop.create_task(g())"),
    (docstrings, "core.turns", "'''Module.'''\ndef hear():\n    a = 1\n    b = 2\n    return a + b"),
    (
        docstrings,
        "core.turns",
        "'''Module.'''\nclass A:\n    def f(self):\n        a = 1\n        b = 2\n        return b",
    ),
    (docstrings, "core.turns", "x = 1"),
]

GOOD: Final[list[tuple[Rule, str, str]]] = [
    (arrows, "server.app", "from vivavoce.core.session import Session\nfrom vivavoce.wire import errors"),
    (arrows, "core.session", "from vivavoce.audio.formats import Clip\nfrom vivavoce.wire import items"),
    (arrows, "testing.runner", "import vivavoce.server.app\nfrom vivavoce import demo"),
    (heavy, "engines.openai_compatible.upstream", "if TYPE_CHECKING:\n    import httpx"),
    (heavy, "engines.builtin.pocketsphinx_worker", "def work():\n    from pocketsphinx import Decoder"),
    (owners, "runtime.driver", "async def f():\n    group.create_task(g())"),
    (owners, "runtime.driver", "class A:\n    def f(self):\n        self._task = self._loop.create_task(g())"),
    (files, "runtime.listener", "class A:\n    def f(self):\n        self.pool.open(1)"),
    (docstrings, "core.contract", "'''Module.'''\nclass A:\n    x: int"),
]

SIBLINGS: Final = frozenset(module.name for module in MODULES)


def _id(case: tuple[Rule, str, str]) -> str:
    rule, name, text = case
    return f"{rule.__name__}-{name}-{text.splitlines()[-1].strip()[:40] if text else ''}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Rule) -> None:
    broken = [f"{module.name or 'vivavoce'}: {what}" for module in MODULES for what in rule(module)]
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("case", BAD, ids=_id)
def test_rule_refuses(case: tuple[Rule, str, str]) -> None:
    rule, name, text = case
    assert list(rule(read(name, text, SIBLINGS)))


@pytest.mark.parametrize("case", GOOD, ids=_id)
def test_rule_accepts(case: tuple[Rule, str, str]) -> None:
    rule, name, text = case
    assert list(rule(read(name, text, SIBLINGS))) == []


def test_every_rule_is_shown_to_refuse() -> None:
    assert {case[0] for case in BAD} == set(RULES)


def test_rooms_are_where_the_table_says() -> None:
    assert {module.room for module in MODULES} <= set(ROOMS)
    assert {"wire", "audio", "core", "engines", "runtime", "gateway", "server"} <= {m.room for m in MODULES}


def test_reasons_name_functions_that_exist_and_need_them() -> None:
    bare = {
        path for module in MODULES for path, node in public(module.tree, module.name) if not ast.get_docstring(node)
    }
    assert set(SELF_EXPLAINING) <= bare
