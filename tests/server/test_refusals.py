"""Every way to be refused, on every path, against a real server; docs/reference/refusals.md is made of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from refusal_table import GA, OPENAI, PREVIEW, REFUSALS_PAGE, Answer, measured, page, ways

Answers = Mapping[tuple[str, str], Answer]


@pytest.fixture(scope="module")
def answers() -> Answers:
    return measured()


def test_the_page_is_up_to_date(answers: Answers) -> None:
    """Otherwise: ``python scripts/compatibility.py --write``."""
    assert REFUSALS_PAGE.read_text(encoding="utf-8") == page(answers)


def test_every_way_was_tried_on_its_paths(answers: Answers) -> None:
    assert set(answers) == {(way.text, path) for way in ways() for path in way.paths}


def test_only_the_path_of_openai_refuses_after_the_upgrade(answers: Answers) -> None:
    for (text, path), answer in answers.items():
        assert answer.after_upgrade is (path == OPENAI and text != "not a WebSocket upgrade")


def test_both_paths_of_azure_refuse_alike(answers: Answers) -> None:
    for way in ways():
        if {PREVIEW, GA} <= set(way.paths):
            preview, ga = answers[way.text, PREVIEW], answers[way.text, GA]
            assert preview.status == ga.status
            assert preview.code == ga.code
            assert preview.message.replace(PREVIEW, "PATH") == ga.message.replace(GA, "PATH")


def test_whoever_shall_come_back_is_told_when(answers: Answers) -> None:
    for answer in answers.values():
        told = answer.headers.keys() == {"retry-after", "retry-after-ms"}
        assert told is (answer.status in (429, 503))
        if told:
            assert int(answer.headers["retry-after-ms"]) == 1000 * int(answer.headers["retry-after"])


def test_no_answer_repeats_a_key_or_a_token(answers: Answers) -> None:
    secrets = [way.token or way.key for way in ways()]
    for answer in answers.values():
        assert not any(secret in answer.message for secret in secrets if secret is not None)
