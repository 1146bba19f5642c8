"""Drop and grow on packed tables against a brute force on dense ones (papers/dsl section 5)."""

from __future__ import annotations

import math

import pytest
import torch
from effrec_kernels.packed import PackedRows, pack, unpack
from torch import Tensor

from effrec_cli.models.sparse import places
from effrec_cli.models.sparse.places import Part
from effrec_cli.models.sparse.rewire import Moved, Rule, rewire, rewire_together

LAYOUTS = [pytest.param(False, id="fixed"), pytest.param(True, id="ragged")]


class Given:
    """Scores of a dense table that is at hand."""

    def __init__(self, scores: Tensor, touched: Tensor | None = None) -> None:
        self.scores = scores
        self.touched = (scores != 0).any(1) if touched is None else touched

    def block(self, low: int, high: int) -> Tensor:
        return self.scores[low:high].abs().clone()


@pytest.fixture(params=[1 << 18, 20], ids=["one block", "many blocks"], autouse=True)
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "BLOCK", request.param)


def masks(rows: int, dim: int, width: int, ragged: bool, seed: int = 0) -> Tensor:
    """Returns places of rows x width numbers, the same in each row unless ragged."""
    draw = torch.Generator().manual_seed(seed)
    numbers = torch.rand(rows, dim, generator=draw)
    if ragged:
        chosen = numbers.flatten().argsort()[: rows * width]
        return torch.zeros(rows * dim, dtype=torch.bool).index_fill_(0, chosen, True).view(rows, dim)
    return numbers.argsort(1).argsort(1) < width


def drawn(rows: int = 12, dim: int = 10, width: int = 4, ragged: bool = False, seed: int = 0) -> PackedRows:
    """Returns a table of random numbers."""
    draw = torch.Generator().manual_seed(seed + 1)
    dense = torch.randn(rows, dim, generator=draw)
    return pack(dense, masks(rows, dim, width, ragged, seed), ragged=ragged)


def mask_of(packed: PackedRows) -> Tensor:
    ones = PackedRows(torch.ones_like(packed.values), packed.columns, packed.dim, packed.offsets)
    return unpack(ones).bool()


def states_of(packed: PackedRows) -> list[Tensor]:
    """Returns two states that tell each slot from all others."""
    numbers = torch.arange(1.0, packed.values.numel() + 1).view_as(packed.values)
    return [numbers, (numbers % 100).to(torch.int16)]


def scores_of(packed: PackedRows, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed + 2)
    return torch.randn(packed.num_rows, packed.dim, generator=draw)


def by_force(dense: Tensor, mask: Tensor, given: Given, rule: Rule) -> Tensor:
    """Returns the mask after an update, number by number."""
    rows, dim = dense.shape
    live = [(abs(float(dense[r, c])), r, c) for r, c in mask.nonzero().tolist() if given.touched[r]]
    live.sort()
    gone = {(r, c) for _, r, c in live[: math.ceil(rule.share * len(live))]}
    asked = [
        (-abs(float(given.scores[r, c])), r, c)
        for r in range(rows)
        for c in range(dim)
        if given.touched[r] and given.scores[r, c] != 0
        if not mask[r, c] or (rule.regrow and (r, c) in gone)
    ]
    asked.sort()
    after = mask.clone()
    for r, c in gone:
        after[r, c] = False
    groups = range(rows) if rule.within_rows else [None]
    for group in groups:
        wanted = sum(group in (None, r) for r, _ in gone)
        grown = [(r, c) for _, r, c in asked if group in (None, r)][:wanted]
        lost = sorted((-abs(float(dense[r, c])), r, c) for r, c in gone - set(grown) if group in (None, r))
        for r, c in grown + [(r, c) for _, r, c in lost][: wanted - len(grown)]:
            after[r, c] = True
    return after


@pytest.mark.parametrize("ragged", LAYOUTS)
@pytest.mark.parametrize("regrow", [True, False])
@pytest.mark.parametrize("share", [0.005, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_what_is_dropped_and_grown_is_what_a_search_finds(
    ragged: bool, regrow: bool, share: float, seed: int
) -> None:
    packed = drawn(ragged=ragged, seed=seed)
    before, mask = unpack(packed), mask_of(packed)
    given = Given(scores_of(packed, seed) * (torch.rand(12, 10) < 0.7))
    given.touched[seed] = False
    rule = Rule(share, within_rows=not ragged, regrow=regrow)
    states = states_of(packed)
    rewire(packed, states, given, rule)
    expected = by_force(before, mask, given, rule)
    assert torch.equal(mask_of(packed), expected)
    assert torch.equal(unpack(packed), before * expected)


@pytest.mark.parametrize("ragged", LAYOUTS)
def test_survivors_keep_number_and_state_and_new_ones_start_at_nothing(ragged: bool) -> None:
    packed = drawn(ragged=ragged)
    mask, states = mask_of(packed), states_of(packed)
    as_tables = [
        PackedRows(state.double(), packed.columns.clone(), 10, _copy(packed.offsets)) for state in states
    ]
    before = [unpack(table) for table in as_tables]
    moved = rewire(packed, states, Given(scores_of(packed)), Rule(0.5, not ragged, regrow=False))
    kept = mask & mask_of(packed)
    for state, old in zip(states, before, strict=True):
        now = unpack(PackedRows(state.double(), packed.columns, 10, packed.offsets))
        assert torch.equal(now, old * kept)
    assert moved == Moved(dropped=24, grown=24)
    assert int(kept.sum()) == 24
    assert not unpack(packed)[~kept].any()


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.clone()


@pytest.mark.parametrize("ragged", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 2, 12])
def test_the_budget_holds_whatever_the_gradient_touches(ragged: bool, rows: int) -> None:
    packed = drawn(ragged=ragged)
    for turn in range(5):
        touched = torch.arange(12) < rows
        old = mask_of(packed)
        rewire(packed, [], Given(scores_of(packed, turn) * touched[:, None]), Rule(0.5, not ragged))
        assert packed.live == int(mask_of(packed).sum()) == 48
        assert torch.equal(mask_of(packed)[~touched], old[~touched])
        columns = packed.columns.view(-1).long()
        ends = torch.arange(13) * 4 if packed.offsets is None else packed.offsets
        assert all(bool((part.diff() > 0).all()) for part in columns.tensor_split(ends[1:-1]))


@pytest.mark.parametrize("ragged", LAYOUTS)
@pytest.mark.parametrize("number", [0.0, 1.0, -2.5])
@pytest.mark.parametrize(("share", "dropped"), [(0.3, 15), (0.001, 1), (1.0, 48)])
def test_as_many_are_dropped_as_the_share_says_also_of_equals(
    ragged: bool, number: float, share: float, dropped: int
) -> None:
    packed = drawn(ragged=ragged)
    packed.values.fill_(number)
    moved = rewire(packed, [], Given(torch.ones(12, 10)), Rule(share, not ragged, regrow=False))
    assert moved == Moved(dropped=dropped, grown=dropped)
    assert packed.values.isfinite().all()


def test_too_few_with_a_gradient_let_the_largest_dropped_stay() -> None:
    packed = pack(torch.tensor([[3.0, -1.0, 2.0, 0.5, 0.0, 0.0]]), torch.arange(6)[None] < 4, ragged=False)
    scores = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 7.0]])
    moved = rewire(packed, [], Given(scores), Rule(0.75, within_rows=True))
    assert unpack(packed).tolist() == [[3.0, -1.0, 2.0, 0.0, 0.0, 0.0]]
    assert mask_of(packed).tolist() == [[True, True, True, False, False, True]]
    assert moved == Moved(dropped=3, grown=1, restored=2)


@pytest.mark.parametrize("ragged", LAYOUTS)
def test_what_is_dropped_may_come_back_by_its_own_gradient_with_its_number(ragged: bool) -> None:
    dense = torch.tensor([[3.0, 1.0, 0.0, 0.0]])
    for regrow, expected in ((True, [3.0, 1.0, 0.0, 0.0]), (False, [3.0, 0.0, 0.0, 0.0])):
        packed = pack(dense, torch.arange(4)[None] < 2, ragged=ragged)
        scores = torch.tensor([[0.0, 9.0, 1.0, 0.0]])
        moved = rewire(packed, [], Given(scores), Rule(0.5, not ragged, regrow=regrow))
        assert unpack(packed).tolist() == [expected]
        assert moved == (Moved(1, regrown=1) if regrow else Moved(1, grown=1))


def test_a_gradient_that_is_not_finite_grows_nothing() -> None:
    packed = drawn()
    before = unpack(packed)
    moved = rewire(packed, [], Given(torch.full((12, 10), torch.nan)), Rule(0.5, within_rows=True))
    assert torch.equal(unpack(packed), before)
    assert moved.restored == moved.dropped == 24


@pytest.mark.parametrize("ragged", LAYOUTS)
def test_without_a_touched_row_nothing_is_done(ragged: bool) -> None:
    packed = drawn(ragged=ragged)
    before = unpack(packed)
    assert rewire(packed, [], Given(torch.zeros(12, 10)), Rule(0.5, not ragged)) == Moved()
    assert torch.equal(unpack(packed), before)


def test_signed_drops_the_smallest_positive_and_the_largest_negative() -> None:
    dense = torch.tensor([[4.0, 0.1, 3.0, 2.0, -0.2, -5.0, 0.0, 0.0, 0.0]])
    packed = pack(dense, torch.arange(9)[None] < 6, ragged=False)
    scores = torch.zeros(1, 9).index_fill_(1, torch.tensor([6, 7, 8]), 1.0)
    rewire(packed, [], Given(scores), Rule(0.5, within_rows=True, signed=True, regrow=False))
    assert mask_of(packed)[0].nonzero().squeeze(1).tolist() == [0, 2, 5, 6, 7, 8]


def test_rows_wider_than_a_byte_keep_their_columns() -> None:
    packed = drawn(rows=5, dim=300, width=3)
    assert packed.columns.dtype == torch.int16
    rewire(packed, [], Given(torch.eye(5, 300).flip(1)), Rule(1.0, within_rows=True))
    assert mask_of(packed)[:, 295:].fliplr().diagonal().all()


def parted(packed: PackedRows, *ends: int) -> list[PackedRows]:
    """Returns copies of stretches of a ragged table's rows."""
    assert packed.offsets is not None
    found = []
    for low, high in zip([0, *ends], [*ends, packed.num_rows], strict=True):
        first, last = packed.offsets[low].item(), packed.offsets[high].item()
        values, columns = packed.values[first:last].clone(), packed.columns[first:last].clone()
        found.append(PackedRows(values, columns, packed.dim, packed.offsets[low : high + 1] - first))
    return found


@pytest.mark.parametrize(
    "rule", [Rule(0.5, False), Rule(0.3, False, regrow=False), Rule(0.3, False, signed=True)], ids=str
)
@pytest.mark.parametrize("seed", range(3))
def test_tables_of_one_budget_change_as_if_they_were_one(rule: Rule, seed: int) -> None:
    whole = drawn(ragged=True, seed=seed)
    given = Given(scores_of(whole, seed) * torch.linspace(4, 0.1, 12)[:, None])
    given.touched[seed + 3] = False
    tables = parted(whole, 5, 6)
    bounds, scores = [(0, 5), (5, 6), (6, 12)], given.scores
    parts = [
        Part(table, states_of(table), Given(scores[low:high], given.touched[low:high]))
        for table, (low, high) in zip(tables, bounds, strict=True)
    ]
    states = [torch.cat([part.states[number] for part in parts]) for number in range(2)]
    moved = rewire(whole, states, given, rule)
    made, together = rewire_together(parts, rule)
    assert together == moved
    assert [part.packed.live for part in made] != [table.live for table in tables], "none was to move"
    assert torch.equal(torch.cat([unpack(part.packed) for part in made]), unpack(whole))
    assert torch.equal(torch.cat([part.packed.columns for part in made]), whole.columns)
    for number, state in enumerate(states):
        assert torch.equal(torch.cat([part.states[number] for part in made]), state)
        assert all(part.states[number].dtype == state.dtype for part in made)


def test_rows_of_one_size_share_nothing() -> None:
    parts = [Part(drawn(seed=seed), [], Given(scores_of(drawn(seed=seed), seed))) for seed in range(2)]
    lone = [drawn(seed=seed) for seed in range(2)]
    made, _ = rewire_together(parts, Rule(0.0, within_rows=True))
    assert all(new is old for new, old in zip(made, parts, strict=True))
    assert all(torch.equal(unpack(part.packed), unpack(one)) for part, one in zip(made, lone, strict=True))
