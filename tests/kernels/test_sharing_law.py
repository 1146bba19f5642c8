"""What sharing changes in law: nothing for a row alone, the covariance of rows. Case 33."""

import pytest
import torch
from effrec_kernels import draw_negatives, popularity, sampled_cross_entropy
from kernel_cases import make_case
from test_rng import chi_square

TILES, T, N, V = 3000, 16, 12, 400


def smooth_table(items, dim):
    """Returns a table in which neighbours are alike, as ids in the order of arrival or popularity make it."""
    angle = torch.linspace(0, 3, items, dtype=torch.float64)[:, None] * torch.arange(1, dim + 1)
    return 2 * angle.sin()


def losses(sharing, law="uniform", seed=1, table=None, tiles=TILES, number=N):
    """Returns losses [tiles, T] of rows of one state and one target, drawing `number` negatives of `law`."""
    case = make_case(rows=1, items=V, dim=4, dtype=torch.float64, seed=4)
    items = case.items if table is None else table
    rows = tiles * T
    found = sampled_cross_entropy(
        case.hidden.expand(rows, -1),
        items,
        torch.full((rows,), 2),
        num_negatives=number,
        sampler=popularity(torch.arange(V, 0, -1) ** 2) if law == "popularity" else law,
        sharing=sharing,
        correction="logq",
        seed=seed,
        reduction="none",
    )
    return found.view(tiles, T)


def smirnov(one, two):
    """Returns the probability that two samples of one law are at least so far apart (Kolmogorov-Smirnov)."""
    both = torch.cat([one, two]).sort().values
    steps = [
        torch.searchsorted(sample.sort().values, both, right=True) / len(sample) for sample in (one, two)
    ]
    size = (len(one) * len(two) / (len(one) + len(two))) ** 0.5
    far = (size + 0.12 + 0.11 / size) * (steps[0] - steps[1]).abs().max().double()
    k = torch.arange(1, 101, dtype=torch.float64)
    return float((2 * (-1) ** (k - 1) * torch.exp(-2 * (k * far) ** 2)).sum().clamp(0, 1))


def test_the_smirnov_measure_itself():
    """Two samples of one law pass, a shift by a tenth of the spread does not."""
    draw = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 5000, generator=draw)
    assert smirnov(one, two) > 1e-3
    assert smirnov(one, two + 0.1) < 1e-4


@pytest.mark.parametrize("law", ["uniform", "popularity"])
def test_a_rows_own_loss_keeps_its_law(law):
    """Row 5 of every tile against rows on their own; the measure sees a law that differs."""
    alone, shared = losses("row", law)[:, 5], losses(T, law, seed=2)[:, 5]
    assert smirnov(alone, shared) > 1e-3
    other = losses("row", "popularity" if law == "uniform" else "uniform")[:, 5]
    assert smirnov(alone, other) < 1e-6


@pytest.mark.parametrize("law", ["uniform", "popularity"])
def test_rows_of_a_tile_vary_together(law):
    def correlation(found):
        return float(torch.corrcoef(found[:, [3, 11]].T)[0, 1])

    assert abs(correlation(losses("row", law))) < 0.08
    assert correlation(losses(T, law)) > 0.999, "one state, one target, one set of negatives"


def test_block_draws_follow_a_law_of_their_own():
    """Ids of a run are neighbours: where neighbours are alike the loss varies more; elsewhere little."""
    like = smooth_table(V, 4)
    mixed = like[torch.randperm(V, generator=torch.Generator().manual_seed(0))]

    def row(law, table):
        return losses("row", law, table=table, tiles=1000, number=64)[:, 5]

    uniform, block = row("uniform", like), row("block", like)
    assert smirnov(uniform, block) < 1e-6
    assert block.std() > 1.5 * uniform.std()
    assert row("block", mixed).std() < 1.5 * row("uniform", mixed).std()


def test_every_row_draws_uniformly():
    """Over steps, each row of a tile sees every item equally often: its ids are its group's."""
    keys = torch.arange(64) // T
    ids = torch.stack([draw_negatives(keys, 25, 50, seed=3, step=step) for step in range(400)])
    for row in (0, 15, 16, 63):
        counts = torch.bincount(ids[:, row].flatten(), minlength=50)
        assert 1e-4 < chi_square(counts) < 1 - 1e-4


def test_mean_gradients_are_those_of_rows_on_their_own():
    """By states and by items, over many draws; sharing makes the mean noisier, not other."""
    means, errors = zip(*(gradients(sharing) for sharing in ("row", T)), strict=True)
    noise = (errors[0] ** 2 + errors[1] ** 2).sqrt()
    assert ((means[0] - means[1]).abs() / noise).max() < 5
    of_items = slice(3 * T, None)
    assert errors[1][of_items].mean() > 1.25 * errors[0][of_items].mean()
    assert (means[0].abs() / noise).max() > 20, "the noise is small against what is compared"


def gradients(sharing):
    """Returns the mean over tiles of both gradients of a tile, flat, and its standard error."""
    case = make_case(rows=T, items=30, dim=3, dtype=torch.float64, seed=4)
    case.targets[:] = torch.arange(T)
    found = []
    for step in range(400):
        hidden, table = case.leaves()
        options = {"num_negatives": 6, "sharing": sharing, "seed": 1, "step": step, "reduction": "sum"}
        sampled_cross_entropy(hidden, table, case.targets, **options).backward()
        found.append(torch.cat([hidden.grad.flatten(), table.grad.flatten()]))
    samples = torch.stack(found)
    return samples.mean(0), samples.std(0) / len(samples) ** 0.5
