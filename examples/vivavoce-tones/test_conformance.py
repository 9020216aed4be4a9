import pytest
from vivavoce_tones import create

from vivavoce.testing import conformance

SUBJECT = conformance.Subject(
    kind="synthesizer",
    create=create,
    options={"tone_ms": 20},  # with which it works
    bad_options={"tone_ms": 1, "melody": 7},  # each must be refused
)


@pytest.mark.parametrize("check", conformance.checks(SUBJECT), ids=str)
def test_it_conforms(check):
    check()
