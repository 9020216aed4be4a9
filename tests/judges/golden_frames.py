"""Every frame that the server sends in the golden scripts, for the validators of the judges.

``python golden_frames.py FILE GA_FILE`` writes JSON lines, those of the GA dialect into the second file:
``{"script", "profile", "frame"}``; ``frame`` is a server event. Scripts of both dialects are in both files.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from vivavoce.testing.in_ga import in_ga
from vivavoce.testing.pure_runner import Frame, run_pure
from vivavoce.testing.script import load

SCRIPTS: Final = Path(__file__).parents[1] / "scripts"


def write(preview: Path, ga: Path) -> int:
    """Returns how many frames there are. Raises ScriptFailure when a script does not hold."""
    lines: dict[Path, list[str]] = {preview: [], ga: []}
    for path in sorted(SCRIPTS.rglob("*.rts")):
        script = load(path)
        for one in (script, in_ga(script)) if script.settings.both else (script,):
            frames: list[Frame] = []
            run_pure(one, watch=frames.append)
            head = {"script": path.stem, "profile": one.settings.profile}
            lines[ga if one.settings.is_ga else preview] += [
                json.dumps({**head, "frame": frame}) for frame in frames if isinstance(frame, dict)
            ]
    for target, written in lines.items():
        target.write_text("".join(f"{line}\n" for line in written))
    return sum(map(len, lines.values()))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
