"""TPME against the sheet's worked examples, and its stated properties."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from effrec_cli.evaluation.tpme import tpme

# papers/iisan sections 1.9 and 3: seconds, trainable parameters, GB.
PAPER = {
    "FFT": (443, 194_897_216, 47),
    "Adapter": (350, 4_965_440, 37),
    "LoRA": (380, 833_600, 39),
    "IISAN": (22, 4_113_877, 3),
}


def test_first_worked_example():
    assert tpme((10, 20, 40), (1, 2, 5), (2, 4, 10)) == pytest.approx([0, 0.2875, 1], abs=1e-12)


def test_second_worked_example():
    values = tpme(*zip(*PAPER.values(), strict=True))
    assert [f"{100 * value:.2f}" for value in values] == ["100.00", "70.05", "75.08", "0.17"]


def test_value_depends_on_the_set_compared():
    values = tpme(*zip(*PAPER.values(), strict=True))
    wider = tpme(*zip(*PAPER.values(), (400, 412_736, 40), strict=True))
    assert wider[3] > values[3], "BitFit has the fewest parameters, so IISAN loses its place"


def test_axis_without_a_difference_counts_as_zero():
    assert tpme((5, 5), (1, 3), (7, 7)) == [0.0, pytest.approx(0.10)]
    assert tpme((5,), (1,), (7,)) == [0.0]


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.5), (1.2, -0.2, 0.0), (0.45, 0.1, 0.44)])
def test_wrong_shares_are_refused(shares):
    with pytest.raises(ValueError, match="sum to 1"):
        tpme((1, 2), (1, 2), (1, 2), shares)


def test_unequal_or_infinite_figures_are_refused():
    with pytest.raises(ValueError, match="all three"):
        tpme((1, 2), (1,), (1, 2))
    with pytest.raises(ValueError, match="finite"):
        tpme((1, float("nan")), (1, 2), (1, 2))


figures = st.integers(0, 10**9)
methods = st.lists(st.tuples(figures, figures, figures), min_size=1, max_size=8)


@given(methods)
def test_values_stay_between_zero_and_one(rows):
    assert all(0 <= value <= 1 + 1e-12 for value in tpme(*zip(*rows, strict=True)))


@given(methods, st.integers(0, 2), st.integers(1, 10**4), st.integers(-(10**6), 10**6))
def test_rescaling_an_axis_changes_nothing(rows, axis, factor, offset):
    axes = [list(values) for values in zip(*rows, strict=True)]
    before = tpme(*axes)
    axes[axis] = [factor * value + offset for value in axes[axis]]
    assert tpme(*axes) == pytest.approx(before, abs=1e-9)


@given(methods)
def test_worst_on_all_axes_is_one_and_best_is_zero(rows):
    worst = tuple(1 + max(axis) for axis in zip(*rows, strict=True))
    best = tuple(min(axis) for axis in zip(*rows, strict=True))
    assume(all(low < high for low, high in zip(best, worst, strict=True)))
    values = tpme(*zip(*rows, worst, best, strict=True))
    assert values[-2] == pytest.approx(1)
    assert values[-1] == 0
