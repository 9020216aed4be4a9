"""COMPATIBILITY.md and pages of docs/reference: write them, or check that they are what the tests would write.

    .venv/bin/python scripts/compatibility.py --write
    .venv/bin/python scripts/compatibility.py --check    # exit code 1 and a diff where a page is old

Needs the packages of the dev lock. It runs every golden script and every probe (tests/compat); a few seconds.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("compat", "gateway", "server")]

import compat_pages
import resource_pages
from compat_pages import summary
from preview_coverage import measure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write the pages")
    action.add_argument("--check", action="store_true", help="compare them")
    arguments = parser.parse_args()
    # Servers that are asked in vain say so.
    logging.disable(logging.WARNING)
    old = 0
    for page, text in {**compat_pages.pages(), **resource_pages.pages()}.items():
        name = str(page.relative_to(ROOT))
        if arguments.write:
            page.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
            continue
        there = page.read_text(encoding="utf-8") if page.exists() else ""
        if there != text:
            old = 1
            sys.stdout.writelines(
                difflib.unified_diff(
                    there.splitlines(True), text.splitlines(True), name, f"{name} (as it would be)"
                )
            )
    print(summary(measure()))
    return old


if __name__ == "__main__":
    sys.exit(main())
