"""The page about the management API says what the table of routes says, and names every code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from vivavoce.gateway.arm import accounts, bodies, call, deployments, errors, role_assignments, service
from vivavoce.gateway.arm.routes import API_VERSIONS, ROUTES

PAGE: Final = Path(__file__).parents[2] / "docs/reference/management-api.md"
_SHORT: Final = {"/providers/Microsoft.CognitiveServices/": "/.../"}


def rows(heading: str) -> list[str]:
    """The lines of the table in a section."""
    section = PAGE.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def versions() -> list[str]:
    return [f"| `{name}` | {', '.join(f'`{one}`' for one in known)} |" for name, known in API_VERSIONS.items()]


def operations() -> list[str]:
    lines = []
    for route in ROUTES:
        action = f"`{route.action}`" if route.action and not route.per_item else ""
        lines.append(f"| `{route.operation}` | `{route.method} {route.path}` | {action} | {route.about} |")
    return lines


def test_the_page_has_every_version_and_operation() -> None:
    assert rows("Versions") == versions()
    assert rows("Operations") == operations()


def test_the_page_has_every_code() -> None:
    sources = [
        Path(str(module.__file__))
        for module in (accounts, bodies, call, deployments, errors, role_assignments, service)
    ]
    raised = {
        code
        for source in sources
        for code in re.findall(r"ArmError\(\s*\d+,\s*\"(\w+)\"", source.read_text(encoding="utf-8"))
    }
    assert len(raised) > 40
    named = set(re.findall(r"`(\w+)`", "\n".join(rows("Refusals"))))
    assert sorted(raised - named) == []
