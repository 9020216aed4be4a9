"""A few thousand events of hostile clients; ``hostile_run.py`` sends as many as one likes."""

from __future__ import annotations

import pytest
from hostile_machine import Hostile
from hostile_model import EDITIONS
from hostile_stage import Stage
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test


def test_hostile_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    with Stage(tuple(EDITIONS)) as stage:
        monkeypatch.setattr(Hostile, "stage", stage, raising=False)
        quick = settings(max_examples=40, stateful_step_count=60, derandomize=True, database=None)
        run_state_machine_as_test(Hostile, settings=quick)
