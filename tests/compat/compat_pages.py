"""COMPATIBILITY.md and docs/reference/errors.md, made of what the tests run and of the tables that they run on."""

from __future__ import annotations

import ast
import inspect
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from error_cases import KINDS, ErrorCase, error_cases
from ga_coverage import GA_TABLE, measure_ga
from preview_coverage import Coverage, Row, measure
from preview_table import ORDER, Direction, Shape, load_table

from vivavoce.wire.dialects import profiles
from vivavoce.wire.dialects.profiles import PROFILES, Profile

ROOT: Final = Path(__file__).parent.parent.parent
TEXTS: Final = tomllib.loads(Path(__file__).with_name("page.toml").read_text(encoding="utf-8"))
COMPATIBILITY: Final = ROOT / "COMPATIBILITY.md"
ERRORS: Final = ROOT / "docs/reference/errors.md"
_SHOWN: Final = 180
"""Characters of an event that a table shows."""


def pages() -> dict[Path, str]:
    """What the generated pages must hold."""
    return {COMPATIBILITY: compatibility(measure()), ERRORS: errors_page()}


# ------------------------------------------------------------------------------------------- COMPATIBILITY.md


def compatibility(coverage: Coverage) -> str:
    say = TEXTS["text"]
    sections = [
        say["compatibility"],
        say["coverage"],
        f"**{summary(coverage)}**\n",
        "### Client events\n\n" + _coverage_table(coverage, "client"),
        "### Server events\n\n" + _coverage_table(coverage, "server"),
        *_missing(coverage),
        say["ga_coverage"],
        f"**{ga_summary()}**\n",
        "### Client events of GA\n\n" + _ga_table("client"),
        "### Server events of GA\n\n" + _ga_table("server"),
        "## What does not apply\n\n" + _not_applicable(),
        say["profiles"] + _profiles(),
        say["differences"] + _differences(),
        say["contradictions"] + _decisions("contradiction"),
        say["open"] + _decisions("open"),
    ]
    return "\n".join(sections)


def summary(coverage: Coverage) -> str:
    """How much is covered, in a sentence; 100 % means all of it."""
    covered = sum(row.covered for row in coverage.rows)
    return f"{covered} of {len(coverage.rows)} fields are covered: {100 * covered // len(coverage.rows)} %."


def ga_summary() -> str:
    """As :func:`summary`, of the GA dialect."""
    missing = measure_ga().missing
    covered = sum(not what for what in missing.values())
    return f"{covered} of {len(missing)} fields are covered: {100 * covered // len(missing)} %."


def _ga_table(direction: Direction) -> str:
    coverage = measure_ga()
    table = load_table(GA_TABLE)
    lines = []
    for shape in table.of(direction):
        event = table.events.get((direction, shape.name)) is shape
        fields_ = [one for one in shape.fields.values() if not event or one.name not in ("type", "event_id")]
        names = [
            f"**`{one.name}`**" if coverage.missing[f"{direction} {one}"] else f"`{one.name}`" for one in fields_
        ]
        line = [f"`{shape.name}`" if event else shape.name, ", ".join(names)]
        if direction == "client":
            line.append(str(sum(coverage.refused[row] for row in (shape.name, *map(str, shape.fields.values())))))
        lines.append(line)
    refused = ["refused"] if direction == "client" else []
    return _table(["event, or object in events", "fields", *refused], lines)


def _coverage_table(coverage: Coverage, direction: Direction) -> str:
    owners: dict[str, list[Row]] = defaultdict(list)
    for row in coverage.rows:
        if row.direction == direction:
            owners[row.owner].append(row)
    table = load_table()
    shapes = {shape.name: shape for shape in table.of(direction)}
    head = ["event, or object in events", "from profile", "fields", "covered", "shown"]
    return _table(head, (_coverage_line(shapes[owner], rows) for owner, rows in owners.items()))


def _coverage_line(shape: Shape, rows: list[Row]) -> list[str]:
    since = "" if shape.since == ORDER[0] else f"`{shape.since}`"
    event = load_table().events.get((shape.direction, shape.name)) is shape
    common = ("", "type", "event_id") if event else ("",)
    names = [f"`{row.name}`" if row.covered else f"**`{row.name}`**" for row in rows if row.name not in common]
    done = sum(row.covered for row in rows)
    return [
        f"`{shape.name}`" if event else shape.name,
        since,
        ", ".join(names),
        f"{done} of {len(rows)}",
        str(sum(row.met for row in rows)),
    ]


def _missing(coverage: Coverage) -> Iterator[str]:
    rows = [row for row in coverage.rows if not row.covered]
    if rows:
        lines = (
            [row.direction, f"{row.owner}.{row.name}" if row.name else row.owner, str(len(row.missing))]
            for row in rows
        )
        yield "### Missing\n\n" + _table(["from", "field", "not shown"], lines)


def _not_applicable() -> str:
    return _table(["what", "why"], ([entry["what"], entry["why"]] for entry in TEXTS["not_applicable"]))


def _profiles() -> str:
    meanings = _meanings()
    head = ["", *(f"`{name}`" for name in PROFILES)]
    return _table(
        head,
        (
            [meanings[field.name], *(_value(getattr(profile, field.name)) for profile in PROFILES.values())]
            for field in fields(Profile)
            if field.name != "name"
        ),
    )


def _meanings() -> dict[str, str]:
    """The docstrings of a profile's fields, which are its documentation."""
    (cls,) = ast.parse(inspect.getsource(profiles.Profile)).body
    assert isinstance(cls, ast.ClassDef)
    return {
        one.target.id: " ".join(str(text.value.value).split()).replace("``", "`")
        for one, text in zip(cls.body, cls.body[1:], strict=False)
        if isinstance(one, ast.AnnAssign)
        and isinstance(one.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


def _differences() -> str:
    head = ["", "", "the service", "this server", "because"]
    return _table(
        head,
        ([d["number"], f"**{d['title']}**", d["service"], d["here"], d["why"]] for d in TEXTS["difference"]),
    )


def _decisions(kind: str) -> str:
    entries: list[dict[str, Any]] = TEXTS[kind]
    if kind == "open":
        lines = ([e["subject"], e["here"], _shown_by(e["shown"])] for e in entries)
        return _table(["subject", "this server", "shown by"], lines)
    lines = ([str(e["row"]), e["subject"], e["documents"], e["here"], _shown_by(e["shown"])] for e in entries)
    return _table(["", "subject", "the documents", "this server", "shown by"], lines)


def _shown_by(names: Sequence[str]) -> str:
    return ", ".join(_link(name) for name in names)


def _link(name: str) -> str:
    file, _, test = name.partition("::")
    return f"[{test}]({file})" if test else f"[{name}](tests/scripts/{name}.rts)"


# ------------------------------------------------------------------------------------------------- errors.md


def errors_page() -> str:
    cases = error_cases()
    of = {kind: [case for case in cases if case.kind == kind] for kind in KINDS}
    say = TEXTS["text"]
    sections = [
        say["errors"],
        say["error_events"] + _table(_EVENT_HEAD, map(_event_line, of["event"])),
        say["failures"] + _table(_FAILURE_HEAD, map(_failure_line, of["failure"])),
        say["refused_before"] + _table(_HTTP_HEAD, map(_request_line, of["http"])),
        say["refused_after"] + _table(_CLOSE_HEAD, map(_request_line, of["close"])),
        say["refused_rest"] + _table(_REST_HEAD, map(_rest_line, of["rest"])),
    ]
    return "\n".join(sections)


_EVENT_HEAD: Final = ["code", "when", "for example", "message", "param"]
_FAILURE_HEAD: Final = ["code", "type", "when", "event", "message"]
_HTTP_HEAD: Final = ["status", "code", "when", "for example", "message"]
_CLOSE_HEAD: Final = ["close", "code", "when", "for example", "message"]
_REST_HEAD: Final = ["status", "code", "when", "for example", "message", "param"]


def _event_line(case: ErrorCase) -> list[str]:
    when = case.when
    if "profile" in case.settings:
        when += f" (profile `{case.settings.partition('profile ')[2].split()[0]}`)"
    code = _code(case.code)
    if case.type != "invalid_request_error":
        code += f", type `{case.type}`"
    return [code, when, _sent(case), _message(case), f"`{case.param}`" if case.param else "null"]


def _failure_line(case: ErrorCase) -> list[str]:
    return [_code(case.code), f"`{case.type}`", case.when, f"`{case.where}`", _message(case)]


def _request_line(case: ErrorCase) -> list[str]:
    tokens = ("token", "expired_token", "foreign_token", "unverifiable_token")
    paths = {
        "name": "NAME",
        "key": "KEY",
        "other": "second",
        "rushed": "NAME",
        "ga_secret": "SECRET",
        **dict.fromkeys(tokens, "TOKEN"),
    }
    path = case.path.format(
        azure="/openai/realtime?api-version=2024-10-01-preview&deployment=NAME",
        openai="/v1/realtime?model=NAME",
        **paths,
    )
    own = {name: value.format(**paths) for name, value in case.headers.items()}
    extra = [name for name in own if name.startswith("h")]
    heads = [f"`{name}: {value}`" for name, value in own.items() if name not in extra]
    heads += [f"and {len(extra)} of your own"] if extra else []
    return [str(case.status), _code(case.code), case.when, f"`{path}`<br>{', '.join(heads)}", _message(case)]


def _rest_line(case: ErrorCase) -> list[str]:
    body = {"LARGE": "", "{{": ""}.get(case.body, case.body.format())
    sent = f"`{case.method} {case.path}`" + (f"<br>`{body}`" if body else "")
    code = _code(case.code)
    if case.type != "invalid_request_error":
        code += f", type `{case.type}`"
    return [str(case.status), code, case.when, sent, _message(case), f"`{case.param}`" if case.param else "null"]


def _code(code: str | None) -> str:
    return "null" if code is None else f"`{code}`"


def _message(case: ErrorCase) -> str:
    return case.message.replace("${response}", "resp_...").replace("${item}", "item_...").replace("<", "&lt;")


def _sent(case: ErrorCase) -> str:
    line = case.send
    if line.startswith((">raw ", "> {")):
        text = line.removeprefix(">raw ").removeprefix("> ")
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
        return f"`{text}`".replace("${i*33}", "i" * 33).replace("NESTED", "{...}").replace("$item", "item_...")
    shown = {
        ">binary": "a binary frame",
        "> append": f"an append of {line.removeprefix('> append ')}",
        "> message": f"a message of {line.removeprefix('> message ')}",
        "> silence": "audio",
        "@ +": "time",
    }
    for start, text in shown.items():
        if line.startswith(start):
            return text
    raise ValueError(f"nobody has said how to show {line!r}")


# ---------------------------------------------------------------------------------------------------- markdown


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)
