"""The generator: published vectors, its layout in plain integers, uniformity and independence."""

import pytest
import torch
from effrec_kernels import draw_negatives, rng, sampled_cross_entropy
from effrec_kernels.rng import MASK, Key, fill, philox, uniform
from kernel_cases import make_case

# Random123's published vectors for Philox 4x32 with 10 rounds: counter, key, output.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK,) * 4, (MASK, MASK), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def plain_philox(counter, key):
    """Returns Philox 4x32-10 in Python's unbounded integers, as its paper writes it."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & MASK, (p0 >> 32) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def plain_draw(row, j, items, seed, step):
    """Returns one id from the documented layout."""
    per_block = 4 if items <= 1 << 20 else 2
    counter = (j // per_block, row & MASK, row >> 32, step)
    words = plain_philox(counter, (seed & MASK, (seed >> 32) & MASK))
    if per_block == 4:
        return (words[j % 4] * items) >> 32
    high, low = words[2 * (j % 2)], words[2 * (j % 2) + 1]
    return (((high << 32) | low) * items) >> 64


def chi_square(counts, expected=None):
    """Returns the probability of counts at least this far from `expected` (even ones by default)."""
    counts = counts.flatten().double()
    expected = counts.mean() if expected is None else expected
    statistic = ((counts - expected).square() / expected).sum()
    freedom = torch.tensor(len(counts) - 1, dtype=torch.float64)
    return torch.special.gammaincc(freedom / 2, statistic / 2)


def test_the_chi_square_measure_itself():
    """The 5 % point of 10 degrees of freedom is 18.307, from the tables."""
    expected = torch.full((11,), 1000.0, dtype=torch.float64)
    off_by = (18.307 * 1000 / 2) ** 0.5
    counts = expected.clone()
    counts[0] += off_by
    counts[1] -= off_by
    assert chi_square(counts, expected).item() == pytest.approx(0.05, abs=1e-5)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_published_vectors(device, counter, key, expected):
    words = philox(tuple(torch.tensor([value], device=device) for value in counter), key)
    assert tuple(int(word) for word in words) == expected
    assert plain_philox(counter, key) == expected


@pytest.mark.parametrize("items", [1, 2, 7, 1000, 1 << 20, (1 << 20) + 1, 10_000_019, (1 << 31) - 1])
@pytest.mark.parametrize(("seed", "step"), [(0, 0), (42, 7), (-1, MASK), ((1 << 63) - 1, 1), (-(1 << 63), 3)])
def test_ids_follow_the_documented_layout(device, items, seed, step):
    rows = [0, 1, 5, (1 << 32) - 1, 1 << 32, (1 << 40) + 3]
    ids = draw_negatives(torch.tensor(rows, device=device), 11, items, seed=seed, step=step)
    expected = [[plain_draw(row, j, items, seed, step) for j in range(11)] for row in rows]
    assert ids.tolist() == expected
    assert ids.dtype == torch.int64


def test_ids_stay_what_they_have_always_been():
    """Runs are reproducible across versions only while these numbers stand."""
    rows = torch.tensor([0, 1])
    one = draw_negatives(rows, 6, 1000, seed=42, step=7)
    two = draw_negatives(rows, 3, 5_000_000, seed=42, step=7)
    assert one.tolist() == [[288, 31, 135, 236, 927, 676], [768, 495, 970, 67, 831, 975]]
    assert two.tolist() == [[1440355, 677332, 4638802], [3844572, 4854765, 4157083]]


@pytest.mark.parametrize("items", [1000, 1 << 21])
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_pieces_do_not_matter(monkeypatch, items, at_once):
    rows = torch.arange(50, 90)
    whole = draw_negatives(rows, 37, items, seed=3, step=2)
    monkeypatch.setitem(rng._COUNTERS_AT_ONCE, "cpu", at_once)
    assert torch.equal(draw_negatives(rows, 37, items, seed=3, step=2), whole)
    narrow = torch.zeros(40, 60, dtype=torch.int32)
    fill(narrow[:, 5:42], rows, Key(3, 2), uniform(items))
    assert torch.equal(narrow[:, 5:42].long(), whole)
    assert (narrow[:, :5] == 0).all()
    assert (narrow[:, 42:] == 0).all()


def test_fewer_ids_are_the_first_of_more():
    rows = torch.arange(10)
    more = draw_negatives(rows, 50, 1000, seed=1, step=1)
    assert torch.equal(draw_negatives(rows, 13, 1000, seed=1, step=1), more[:, :13])


def test_rows_draw_the_same_in_any_company():
    """Ranks and micro-batches that know their rows' global numbers draw what one process would."""
    rows = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    whole = draw_negatives(torch.arange(200), 9, 777, seed=5, step=1)
    parts = torch.cat([draw_negatives(part, 9, 777, seed=5, step=1) for part in rows.split(33)])
    assert torch.equal(parts, whole[rows])


def test_row_step_and_seed_each_change_the_ids():
    base = draw_negatives(torch.arange(100), 50, 1 << 20, seed=1, step=1)
    for other in (
        draw_negatives(torch.arange(100) + 100, 50, 1 << 20, seed=1, step=1),
        draw_negatives(torch.arange(100) + (1 << 32), 50, 1 << 20, seed=1, step=1),
        draw_negatives(torch.arange(100), 50, 1 << 20, seed=1, step=2),
        draw_negatives(torch.arange(100), 50, 1 << 20, seed=2, step=1),
        draw_negatives(torch.arange(100), 50, 1 << 20, seed=1 + (1 << 32), step=1),
    ):
        assert (base == other).float().mean() < 1e-3


@pytest.mark.parametrize("items", [2, 97, 1000, (1 << 20) + 7])
def test_ids_are_uniform(device, items):
    ids = draw_negatives(torch.arange(4000, device=device), 250, items, seed=11, step=3).cpu()
    assert ids.min() >= 0
    assert ids.max() < items
    cells = min(items, 1000)
    counts = torch.bincount((ids * cells // items).flatten(), minlength=cells)
    if items <= 1000:
        assert 1e-4 < chi_square(counts) < 1 - 1e-4
    else:
        width = torch.bincount(torch.arange(items) * cells // items).double()
        expected = width / width.sum() * ids.numel()
        assert 1e-4 < chi_square(counts, expected) < 1 - 1e-4


@pytest.mark.parametrize("pair", ["slots", "rows", "steps", "seeds"])
def test_neighbouring_draws_are_independent(pair):
    """Counts of (one id, its neighbour's) over 16 x 16 cells are even."""
    rows, options = torch.arange(2000), {"seed": 8, "step": 4}
    one = draw_negatives(rows, 100, 16, **options)
    two = {
        "slots": one.roll(1, dims=1),
        "rows": one.roll(1, dims=0),
        "steps": draw_negatives(rows, 100, 16, seed=8, step=5),
        "seeds": draw_negatives(rows, 100, 16, seed=9, step=4),
    }[pair]
    counts = torch.bincount((one * 16 + two).flatten(), minlength=256)
    assert 1e-4 < chi_square(counts) < 1 - 1e-4


def test_state_is_two_numbers(monkeypatch):
    """Whoever knows (seed, step) draws the same again: nothing else is to be saved or restored."""
    torch.manual_seed(1)
    case = make_case()
    losses = []
    for _ in range(2):
        torch.rand(5)
        losses.append(sampled_cross_entropy(*case.tensors, num_negatives=9, seed=3, step=17))
    state = torch.get_rng_state()
    sampled_cross_entropy(*case.tensors, num_negatives=9, seed=3, step=17)
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(state, torch.get_rng_state()), "drawing does not touch PyTorch's generator"


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((5, 0), {}), ((5, 1 << 31), {}), ((-1, 10), {}), ((5, 10), {"step": -1}), ((5, 10), {"step": 1 << 32})],
)
def test_numbers_out_of_range_are_refused(arguments, options):
    with pytest.raises(ValueError, match="must"):
        draw_negatives(torch.arange(3), *arguments, **({"seed": 0, "step": 0} | options))


def test_no_rows_and_no_negatives_are_fine():
    assert draw_negatives(torch.arange(0), 5, 10, seed=0, step=0).shape == (0, 5)
    assert draw_negatives(torch.arange(5), 0, 10, seed=0, step=0).shape == (5, 0)
