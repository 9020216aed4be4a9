from __future__ import annotations

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from vivavoce.core.ids import Ids

PREFIXES = ["sess", "conv", "item", "resp", "event"]


def test_unique_and_of_the_shape_of_the_protocol() -> None:
    ids = Ids(b"seed")
    made = [ids.next(PREFIXES[i % len(PREFIXES)]) for i in range(100_000)]
    made += [ids.next("call") for _ in range(20_000)]
    assert len({name.split("_", 1)[1] for name in made}) == len(made)
    shape = re.compile(r"(sess|conv|item|resp|event)_[0-9A-Za-z]{21}|call_[0-9A-Za-z]{16}")
    assert all(shape.fullmatch(name) for name in made)


def test_the_whole_alphabet_is_used() -> None:
    ids = Ids(b"seed")
    tails = "".join(ids.next("item")[-8:] for _ in range(2000))
    assert set(tails) == set(string.digits + string.ascii_letters)


@given(seed=st.binary(max_size=40), count=st.integers(1, 20))
def test_the_seed_decides(seed: bytes, count: int) -> None:
    one, other = Ids(seed), Ids(seed)
    assert [one.next("item") for _ in range(count)] == [other.next("item") for _ in range(count)]


def test_other_seeds_make_other_ids() -> None:
    made = {Ids(bytes([a, b])).next("sess") for a in range(256) for b in range(40)}
    assert len(made) == 256 * 40


@given(seed=st.binary(min_size=1, max_size=16))
def test_calls_share_the_counter(seed: bytes) -> None:
    """Ids of all kinds differ beyond their prefix, so no reader can take one for the other."""
    ids = Ids(seed)
    names = [ids.next("call"), ids.next("item"), ids.next("call"), ids.next("resp")]
    assert len({name[-8:] for name in names}) == len(names)
