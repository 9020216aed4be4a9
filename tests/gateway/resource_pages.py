"""Pages of docs/reference that are made of the tables that these tests check."""

from __future__ import annotations

from pathlib import Path

import models_page
import refusal_table
import role_table


def pages() -> dict[Path, str]:
    """What the generated pages must hold."""
    return {
        role_table.ROLES_PAGE: role_table.page(),
        models_page.MODELS_PAGE: models_page.page(),
        refusal_table.REFUSALS_PAGE: refusal_table.page(refusal_table.measured()),
    }
