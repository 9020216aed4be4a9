"""What the command line shows of stored prompts."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from vivavoce.config import PromptSettings


def prompt_table(prompts: Mapping[str, PromptSettings]) -> Table:
    """A row for each version; what they say is not shown."""
    table = Table("prompt", "account", "version", "variables", "tools")
    for name, one in prompts.items():
        for number, version in one.prompt.versions.items():
            default = ", the default" if number == one.prompt.default else ""
            tools = ", ".join(tool.name for tool in version.tools or ())
            table.add_row(name, one.account, f"{number}{default}", ", ".join(version.variables), tools)
    return table
