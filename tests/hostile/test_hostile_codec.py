"""A few thousand mutated events; ``hostile_codec.py`` makes as many as one likes."""

from __future__ import annotations

from hostile_codec import FORM, STATE, run


def test_mutated_events_of_all_golden_scripts() -> None:
    codes = run(4000, seed=1)
    assert codes["accepted"] > 200
    # Both kinds of refusals are met, most of each.
    assert len(set(codes) & FORM) > 9
    assert len(set(codes) & STATE) > 7
