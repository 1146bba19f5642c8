"""Draws beside the uniform one: their layout in plain integers, their law, their corrections, the state."""

import math

import pytest
import torch
from effrec_kernels import (
    Popularity,
    mixed_log_q,
    popularity,
    sampled_cross_entropy,
    sampled_cross_entropy_dense,
)
from effrec_kernels.arguments import Form, Frame, Negatives, Stream, sampled_problem
from effrec_kernels.candidates import all_negatives
from kernel_cases import answer, check, make_case, oracle, relative, upstream_of
from test_rng import MASK, chi_square, plain_philox


def drawn(case, number, row_offset=0, seed=5, step=2, **options):
    """Returns the ids [M, N] that a loss with these options draws."""
    negatives = Negatives(number, None, Stream(seed, step, row_offset=row_offset), **options)
    problem = sampled_problem(*case.tensors, negatives, Form(), Frame())
    return all_negatives(problem)


def words_of(row, block, seed, step, flag=0):
    counter = (block, row & MASK, (row >> 32) ^ flag, step & MASK)
    return plain_philox(counter, (seed & MASK, (seed >> 32) & MASK))


def skewed(items, device="cpu", power=1.0, smoothing=1.0):
    counts = torch.arange(items, 0, -1, dtype=torch.float64) ** 2 / items
    return popularity(counts.round().to(device), power, smoothing)


@pytest.mark.parametrize("items", [1, 7, 1000, (1 << 20) + 7])
def test_popularity_follows_its_layout(device, items):
    table = skewed(items, device)
    case = make_case(rows=3, items=items, dim=1, device=device)
    first = (1 << 32) - 1
    ids = drawn(case, 9, first, seed=-3, step=MASK, sampler=table)
    thresholds = [value & MASK for value in table.thresholds.tolist()]
    alias = table.alias.tolist()
    for row in range(3):
        for j in range(9):
            pair = words_of(first + row, j // 2, -3, MASK)[2 * (j % 2) : 2 * (j % 2) + 2]
            column = (pair[0] * items) >> 32
            assert ids[row, j] == (column if pair[1] < thresholds[column] else alias[column])


@pytest.mark.parametrize("items", [1, 64, 65, 1000, (1 << 26) + 100])
def test_block_draws_follow_their_layout(device, items):
    """Above 2^26 items there are more than 2^20 runs, drawn from 64-bit numbers."""
    case = make_case(rows=3, items=2, dim=1, device=device)
    case.items = torch.zeros(1, 1, device=device).expand(items, 1)
    ids = drawn(case, 300, 40, sampler="block")
    runs = -(-items // 64)
    for row in range(3):
        for j in range(300):
            run = j // 64
            if runs <= 1 << 20:
                number = (words_of(40 + row, run // 4, 5, 2)[run % 4] * runs) >> 32
            else:
                high, low = words_of(40 + row, run // 2, 5, 2)[2 * (run % 2) : 2 * (run % 2) + 2]
                number = (((high << 32) | low) * runs) >> 64
            assert ids[row, j] == 64 * number + j % 64


@pytest.mark.parametrize("sampler", ["uniform", "block", "popularity"])
def test_in_batch_slots_are_targets_of_other_rows(device, sampler):
    case = make_case(device=device)
    table = skewed(1001, device) if sampler == "popularity" else sampler
    ids = drawn(case, 20, 40, sampler=table, in_batch=7)
    alone = drawn(case, 20, 40, sampler=table)
    assert torch.equal(ids[:, 7:], alone[:, 7:]), "the other slots are those of a draw without"
    for row in range(33):
        for j in range(7):
            position = (words_of(40 + row, j // 4, 5, 2, flag=1 << 31)[j % 4] * 33) >> 32
            target = int(case.targets[position])
            assert ids[row, j] == (target if target != -100 else -1)


@pytest.mark.parametrize("sharing", ["row", 4, "batch"])
@pytest.mark.parametrize("sampler", ["block", "popularity", "in_batch"])
@pytest.mark.parametrize("correction", ["exact", "logq"])
@pytest.mark.parametrize("items", [90, 1001])
def test_equals_the_oracle_on_the_same_ids(device, sharing, sampler, correction, items):
    """Few items a negative go by products with the whole table, many by gathers, tiles by their own way."""
    case = make_case(items=items, device=device)
    table = skewed(items, device)
    options = {
        "block": {"sampler": "block"},
        "popularity": {"sampler": table},
        "in_batch": {"sampler": table, "in_batch": 40},
    }[sampler]
    case.negatives = drawn(case, 128, sharing=sharing, **options)
    case.negatives[(case.negatives >= items)] = -1
    if sampler != "popularity" and sharing != "batch":
        assert (case.negatives < 0).any(), "unused slots are part of it"
    log_q = -math.log(-(-items // 64) * 64) if sampler == "block" else table.log_q
    if sampler == "in_batch":
        log_q = table.mixed_log_q(40 / 128)
    upstream = upstream_of(case)
    options |= {"num_negatives": 128, "sharing": sharing, "correction": correction, "seed": 5, "step": 2}
    found = answer(case, sampled_cross_entropy, upstream, reduction="none", **options)
    check(found, oracle(case, upstream, correction=correction, log_q=log_q), torch.float32)
    case.hidden, case.items = case.hidden.double(), case.items.double()
    pair = [answer(case, loss, **options) for loss in (sampled_cross_entropy, sampled_cross_entropy_dense)]
    assert all(relative(*both) < 1e-11 for both in zip(*pair, strict=True))


@pytest.mark.parametrize("items", [2, 50, 1000])
@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
def test_draws_follow_the_tables_probabilities(items, power):
    table = skewed(items, power=power)
    case = make_case(rows=4000, items=items, dim=1)
    counts = torch.bincount(drawn(case, 250, sampler=table).flatten(), minlength=items)
    expected = table.log_q.double().exp() * 1_000_000
    likely = expected >= 5
    assert 1e-4 < chi_square(counts[likely], expected[likely]) < 1 - 1e-4


@pytest.mark.parametrize("items", [1, 2, 3, 64, 1000, 30_011])
@pytest.mark.parametrize("kind", ["skewed", "even", "one", "random"])
def test_a_table_is_what_it_was_asked_for(items, kind):
    counts = {
        "skewed": torch.arange(items, 0, -1).double() ** 3,
        "even": torch.ones(items, dtype=torch.int64),
        "one": (torch.arange(items) == items // 2).int() * 10**6,
        "random": torch.rand(items, generator=torch.Generator().manual_seed(1)) * 100,
    }[kind]
    table = popularity(counts, power=0.75, smoothing=0.25)
    wanted = (counts.double() + 0.25).pow(0.75)
    log_q = table.log_q.double()
    assert log_q.exp().sum().item() == pytest.approx(1, abs=1e-6)
    # Weights are rounded to parts of V 2^32, and columns have 2^32 / V first words or one more.
    parts = 8 / (items * 2**32)
    torch.testing.assert_close(log_q.exp(), wanted / wanted.sum(), rtol=items / 2**32 + 1e-6, atol=parts)
    share = (counts.double() + 0.25) / (counts.double() + 0.25).sum()
    torch.testing.assert_close(table.log_frequency.double().exp(), share, rtol=1e-5, atol=0)
    assert table.thresholds.dtype == table.alias.dtype == torch.int32
    assert table.log_q.dtype == table.log_frequency.dtype == torch.float32


def test_log_q_is_that_of_the_rounded_table():
    """Every pair of words counted: 2^32 first words by column, times the coins of each side."""
    table, items = skewed(37), 37
    total = [0] * items
    for column in range(items):
        words = -(-((column + 1) << 32) // items) - -(-(column << 32) // items)
        threshold = int(table.thresholds[column]) & MASK
        total[column] += words * threshold
        total[int(table.alias[column])] += words * ((1 << 32) - threshold)
    assert sum(total) == 1 << 64
    expected = [math.log(share / 2**64) for share in total]
    assert table.log_q.tolist() == pytest.approx(expected, rel=1e-6)


def test_items_never_seen():
    counts = torch.tensor([5, 0, 3, 0, 0, 2, 0])
    never = popularity(counts, smoothing=0)
    case = make_case(rows=500, items=7, dim=1)
    assert set(drawn(case, 50, sampler=never).unique().tolist()) == {0, 2, 5}
    assert (never.log_q[[1, 3, 4, 6]] == -math.inf).all()
    assert (never.log_frequency[[1, 3, 4, 6]] == -math.inf).all()
    smooth = popularity(counts)
    assert torch.isfinite(smooth.log_q).all()
    assert drawn(case, 50, sampler=smooth).unique().tolist() == list(range(7))


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        (torch.zeros(0), {}, "counts must be"),
        (torch.ones(3, 2), {}, "counts must be"),
        (torch.tensor([1.0, -1.0]), {}, "not negative"),
        (torch.tensor([1.0, float("nan")]), {}, "finite"),
        (torch.zeros(4), {"smoothing": 0}, "all counts are 0"),
        (torch.ones(4), {"smoothing": -1}, "smoothing must be"),
    ],
)
def test_counts_that_do_not_fit(counts, options, message):
    with pytest.raises(ValueError, match=message):
        popularity(counts, **options)


def test_a_mixture_has_the_probabilities_of_both():
    table = skewed(50)
    q, f = table.log_q.double().exp(), table.log_frequency.double().exp()
    for share in (0.0, 0.3, 1.0):
        torch.testing.assert_close(
            table.mixed_log_q(share).double().exp(), (1 - share) * q + share * f, rtol=1e-5, atol=0
        )
    uniform = mixed_log_q(-math.log(50), table.log_frequency, 0.25)
    torch.testing.assert_close(uniform.double().exp(), 0.75 / 50 + 0.25 * f, rtol=1e-5, atol=0)
    assert isinstance(table.to("cpu"), Popularity)


@pytest.mark.parametrize("sampler", ["uniform", "block", "popularity"])
@pytest.mark.parametrize("items", [60, 400])
def test_logq_makes_sums_of_exponentials_unbiased(sampler, items):
    """exp(L) - exp(z_0) estimates the sum over all other items, whatever they were drawn with."""
    rows, number = 8_000, 64
    case = make_case(rows=1, items=items, dim=8, dtype=torch.float64, seed=4)
    hidden, table, targets = case.hidden.expand(rows, -1), case.items * 0.5, torch.full((rows,), 2)
    options = {"num_negatives": number, "seed": 1, "return_lse": True, "reduction": "none"}
    law = skewed(items) if sampler == "popularity" else sampler

    def error_of(correction):
        _, lse = sampled_cross_entropy(hidden, table, targets, sampler=law, correction=correction, **options)
        full = (case.hidden @ table.T).exp().sum()
        sums = lse.exp()
        return float((sums.mean() - full) / (sums.std() / rows**0.5 + 1e-9 * full))

    assert abs(error_of("logq")) < 4
    if sampler == "popularity":
        assert abs(error_of("exact")) > 10, "the measure tells them apart"


@pytest.mark.parametrize("sharing", ["row", 8])
@pytest.mark.parametrize("shift", [50.0, -50.0, math.inf])
@pytest.mark.parametrize("items", [60, 1001])
def test_corrections_of_any_size(device, sharing, shift, items):
    """k of +-50 and -inf for some items: case 18."""
    case = make_case(items=items, device=device)
    log_q = torch.full((items,), -math.log(items), device=device)
    log_q[::3] = shift
    case.negatives = drawn(case, 15, sharing=sharing)
    upstream = upstream_of(case)
    options = {"correction": "logq", "log_q": log_q}
    found = answer(
        case,
        sampled_cross_entropy,
        upstream,
        num_negatives=15,
        seed=5,
        step=2,
        sharing=sharing,
        reduction="none",
        **options,
    )
    check(found, oracle(case, upstream, **options), torch.float32)


def test_logq_of_uniform_draws_is_a_number(device):
    case = make_case(device=device)
    options = {"negatives": case.negatives, "correction": "logq"}
    plain = answer(case, sampled_cross_entropy, **options)
    log_q = torch.full((1001,), -math.log(1001), device=device, dtype=torch.float64)
    same = answer(case, sampled_cross_entropy, log_q=log_q, **options)
    assert all(relative(*pair) < 1e-6 for pair in zip(plain, same, strict=True))


@pytest.mark.parametrize("temperature", [0.05, 0.7, 20.0])
@pytest.mark.parametrize("sharing", ["row", 8])
@pytest.mark.parametrize("items", [60, 1001])
def test_temperature_divides_products_and_not_corrections(device, temperature, sharing, items):
    case = make_case(items=items, device=device)
    case.negatives = drawn(case, 15, sharing=sharing)
    upstream = upstream_of(case)
    options = {"num_negatives": 15, "seed": 5, "step": 2, "sharing": sharing, "temperature": temperature}
    found = answer(case, sampled_cross_entropy, upstream, reduction="none", **options)
    check(found, oracle(case, upstream, temperature=temperature), torch.float32)


@pytest.mark.parametrize("sharing", ["row", 4, "batch"])
def test_a_state_on_the_device_draws_what_its_numbers_draw(device, sharing):
    case = make_case(device=device)
    options = {"num_negatives": 9, "sharing": sharing, "reduction": "none"}
    for seed, step in ((3, 17), (-1, MASK), (1 << 62, 0)):
        numbers = answer(case, sampled_cross_entropy, upstream_of(case), seed=seed, step=step, **options)
        state = torch.tensor([seed, step], device=device)
        tensor = answer(case, sampled_cross_entropy, upstream_of(case), rng_state=state, **options)
        assert all(torch.equal(*pair) for pair in zip(numbers, tensor, strict=True))


def test_counting_a_state_on_before_backward_changes_nothing(device):
    case = make_case(device=device)
    state = torch.tensor([3, 17], device=device)
    hidden, table = case.leaves()
    options = {"num_negatives": 9, "reduction": "none"}
    loss = sampled_cross_entropy(hidden, table, case.targets, rng_state=state, **options)
    state[1] += 1
    loss.sum().backward()
    expected = answer(case, sampled_cross_entropy, torch.ones_like(loss), seed=3, step=17, **options)
    assert torch.equal(hidden.grad, expected[1])
    assert torch.equal(table.grad, expected[2])
    later = sampled_cross_entropy(*case.tensors, rng_state=state, **options)
    assert not torch.equal(later, loss)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampler": "popularity"}, ValueError, "needs its table"),
        ({"sampler": skewed(7)}, ValueError, "draws from 7 items on cpu, but items are 1001"),
        ({"in_batch": 4}, ValueError, "in_batch must be from 0 to num_negatives = 3, not 4"),
        ({"in_batch": 2, "correction": "logq"}, ValueError, "how often an item is a target"),
        ({"log_q": torch.zeros(1001)}, ValueError, "log_q is used by correction='logq'"),
        ({"log_q": torch.zeros(3), "correction": "logq"}, ValueError, "log_q must be"),
        ({"log_q": torch.zeros(1001).long(), "correction": "logq"}, TypeError, "log_q must be a float"),
        ({"temperature": 0}, ValueError, "temperature must be positive"),
        ({"temperature": float("nan")}, ValueError, "temperature must be positive"),
        ({"rng_state": torch.zeros(2)}, ValueError, "rng_state must be int64"),
        ({"rng_state": torch.zeros(3, dtype=torch.int64)}, ValueError, "rng_state must be int64"),
        ({"rng_state": torch.zeros(2, dtype=torch.int64), "step": 3}, ValueError, "not both"),
    ],
)
def test_options_that_do_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        sampled_cross_entropy(*make_case().tensors, num_negatives=3, **options)


def test_given_negatives_are_not_drawn_in_batch():
    case = make_case()
    with pytest.raises(ValueError, match="share of drawn negatives"):
        sampled_cross_entropy(*case.tensors, negatives=case.negatives, in_batch=2)


@pytest.mark.parametrize("loss", [sampled_cross_entropy, sampled_cross_entropy_dense])
def test_given_ids_have_the_law_of_the_table_that_drew_them(device, loss):
    case = make_case(device=device)
    table = skewed(1001, device)
    options = {"sampler": table, "correction": "logq"}
    drawn_here = loss(*case.tensors, num_negatives=15, seed=5, step=2, **options)
    given = loss(*case.tensors, negatives=drawn(case, 15, sampler=table), **options)
    torch.testing.assert_close(given, drawn_here)
    stated = loss(
        *case.tensors, negatives=drawn(case, 15, sampler=table), correction="logq", log_q=table.log_q
    )
    assert torch.equal(given, stated)


@pytest.mark.parametrize(("number", "in_batch"), [(100, 0), (9, 0), (128, 5)])
def test_a_run_in_part_has_no_law(number, in_batch):
    case = make_case()
    options = {"num_negatives": number, "in_batch": in_batch, "sampler": "block"}
    table = skewed(1001)
    with pytest.raises(ValueError, match="multiples of 64" if not in_batch else "how often an item"):
        sampled_cross_entropy(*case.tensors, correction="logq", **options)
    for correction, log_q in (("exact", None), ("none", None), ("logq", table.log_q)):
        assert torch.isfinite(
            sampled_cross_entropy(*case.tensors, correction=correction, log_q=log_q, **options)
        )


@pytest.mark.parametrize("kernel", ["torch", "reference"])
def test_an_item_that_is_never_drawn_and_is_in_a_slot(kernel):
    """Its correction would be infinite and the loss no number: counts contradict the targets."""
    case = make_case(items=20)
    counts = torch.arange(20) + 1
    counts[int(case.targets[1])] = 0
    options = {"correction": "logq", "kernel": kernel}
    in_batch = {"num_negatives": 8, "in_batch": 4, **options}
    never = popularity(counts, smoothing=0)
    with pytest.raises(ValueError, match=f"log_q is -inf at item {int(case.targets[1])}, as if"):
        sampled_cross_entropy(*case.tensors, sampler=never, **in_batch)
    assert torch.isfinite(sampled_cross_entropy(*case.tensors, sampler=popularity(counts), **in_batch))
    assert torch.isfinite(sampled_cross_entropy(*case.tensors, sampler=never, num_negatives=8, **options))
    with pytest.raises(ValueError, match="log_q is -inf at item"):
        sampled_cross_entropy(
            *case.tensors, negatives=case.targets[:, None].clamp(min=0), sampler=never, **options
        )
    with pytest.raises(ValueError, match="log_q is -inf at item"):
        sampled_cross_entropy(*case.tensors, num_negatives=8, log_q=never.log_q, **options)
    with pytest.raises(ValueError, match="log_q holds NaN"):
        sampled_cross_entropy(
            *case.tensors, num_negatives=8, log_q=never.log_q.masked_fill(counts == 3, math.nan), **options
        )


@pytest.mark.parametrize("kernel", ["torch", "reference"])
def test_log_q_keeps_its_digits_in_float64(kernel):
    case = make_case(dtype=torch.float64)
    log_q = torch.linspace(-9, -5, 1001, dtype=torch.float64)
    shift = log_q - log_q.float().double()
    assert shift.abs().max() > 1e-8
    options = {"negatives": case.negatives, "correction": "logq", "kernel": kernel, "reduction": "none"}
    found = sampled_cross_entropy(*case.tensors, log_q=log_q, **options)
    k = -math.log(15) - log_q[case.negatives]
    products = (case.hidden[:, None] * case.items[case.negatives]).sum(2) + k
    positive = (case.hidden * case.items[case.targets.clamp(min=0)]).sum(1)
    products[case.negatives == case.targets[:, None]] = -math.inf
    true = torch.cat([positive[:, None], products], 1).logsumexp(1) - positive
    torch.testing.assert_close(found, true.masked_fill(case.targets == -100, 0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("power", [200.0, 1000.0, -3.0])
def test_powers_of_any_size(power):
    counts = torch.tensor([1000.0, 999.0, 1.0, 0.0, 1e300], dtype=torch.float64)
    table = popularity(counts[:4], power, smoothing=0)
    best = {200.0: 0, 1000.0: 0, -3.0: 2}[power]
    assert table.log_q.argmax() == best
    ratio = (table.log_q[1] - table.log_q[0]).item()
    if power > 0:
        assert ratio == pytest.approx(power * math.log(0.999), rel=1e-4)
    assert table.log_q[3] == -math.inf
    assert table.log_q.double().exp().sum().item() == pytest.approx(1, abs=1e-6)
    assert popularity(counts, 2.0).log_q.argmax() == 4
    even = popularity(torch.full((3,), 1000.0), power)
    torch.testing.assert_close(even.log_q, torch.full((3,), -math.log(3)))


def test_a_table_is_saved_and_loaded_without_trusting_the_file(tmp_path):
    table = skewed(37)
    torch.save(table, tmp_path / "table.pt")
    torch.save(vars(table), tmp_path / "tensors.pt")
    loaded = torch.load(tmp_path / "table.pt", weights_only=True)
    rebuilt = Popularity(**torch.load(tmp_path / "tensors.pt", weights_only=True))
    for other in (loaded, rebuilt):
        assert all(torch.equal(vars(table)[name], vars(other)[name]) for name in vars(table))
