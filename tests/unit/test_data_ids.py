"""Raw ids to row numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effrec_cli.data.ids import IdEncoder, distinct, lookup
from effrec_cli.errors import DataError

WHOLE = st.integers(-(2**63), 2**63 - 1)
NARROW = st.integers(-50, 50)
# Surrogates cannot be written to a file, and numpy strings end at a NUL; the readers refuse both.
NAME = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)


def encode(chunks, dtype):
    encoder = IdEncoder()
    for chunk in chunks:
        encoder.add(np.array(chunk, dtype=dtype))
    return encoder.finish()


@given(st.lists(st.lists(st.one_of(WHOLE, NARROW), max_size=8), max_size=5))
def test_whole_numbers_are_ranked_numerically(chunks):
    ids, codes = encode(chunks, np.int64)
    flat = [value for chunk in chunks for value in chunk]
    assert ids.tolist() == sorted(set(flat))
    assert [ids[code] for code in codes] == flat
    assert codes.dtype == np.int32


@given(
    st.lists(st.lists(NAME, min_size=1, max_size=8), min_size=1, max_size=5), st.sampled_from([object, None])
)
def test_strings_are_ranked_by_code_point(chunks, dtype):
    ids, codes = encode(chunks, dtype)
    flat = [value for chunk in chunks for value in chunk]
    assert ids.tolist() == sorted(set(flat))
    assert [ids[code] for code in codes] == flat
    assert ids.dtype.kind == "U"


def test_strings_and_numbers_do_not_mix():
    encoder = IdEncoder()
    encoder.add(np.array([1, 2]))
    with pytest.raises(DataError, match="text"):
        encoder.add(np.array(["a"]))


@pytest.mark.parametrize("values", [[5, 3, 5, -2], [2**62, -(2**62), 2**62], []])
def test_distinct_counts_or_sorts_to_the_same_end(values):
    array = np.array(values, dtype=np.int64)
    unique, place = distinct(array)
    assert unique.tolist() == sorted(set(values))
    assert unique[place].tolist() == values


def test_lookup_finds_rows_and_marks_strangers():
    assert lookup(np.array([3, 7, 9]), np.array([9, 4, 3, 100])).tolist() == [2, -1, 0, -1]
    assert lookup(np.array(["b", "long"]), np.array(["longer", "b", "a"])).tolist() == [-1, 0, -1]
    assert lookup(np.array([], dtype=np.int64), np.array([1])).tolist() == [-1]
