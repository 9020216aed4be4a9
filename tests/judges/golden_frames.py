"""Every frame that the server sends in the golden scripts, for the validators of the judges.

``python golden_frames.py FILE`` writes JSON lines: ``{"script", "profile", "frame"}``; ``frame`` is a server event.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from vivavoce.testing.pure_runner import Frame, run_pure
from vivavoce.testing.script import load

SCRIPTS: Final = Path(__file__).parents[1] / "scripts"


def write(target: Path) -> int:
    """Returns how many frames there are. Raises ScriptFailure when a script does not hold."""
    lines: list[str] = []
    for path in sorted(SCRIPTS.glob("*.rts")):
        script = load(path)

        def note(frame: Frame, name: str = path.stem, profile: str = script.settings.profile) -> None:
            if isinstance(frame, dict):
                lines.append(json.dumps({"script": name, "profile": profile, "frame": frame}))

        run_pure(script, watch=note)
    target.write_text("".join(f"{line}\n" for line in lines))
    return len(lines)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
