"""Tables and gradients beyond 2^31 slots: offsets are 64-bit. Memory that no one touches costs nothing."""

import pytest
import torch
from effrec_kernels import PackedRows, packed_scores, unpack
from effrec_kernels.packed_lookup import at_slots
from effrec_kernels.row_sparse import RowSparse

N, K, D = (1 << 30) + 8, 2, 300


@pytest.fixture
def untouched(monkeypatch):
    """Keeps Triton's interpreter from copying arguments back onto themselves, which would touch them."""
    pytest.importorskip("triton")
    from triton.runtime.interpreter import GridExecutor

    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *given: None)


def huge(ragged):
    """Returns a table of 2^31 + 16 slots of which the last rows alone are written: 1, 2, 3, 4 at 5 and 7."""
    values, columns = torch.empty(N, K, dtype=torch.bfloat16), torch.empty(N, K, dtype=torch.int16)
    values[-2:], columns[-2:] = torch.tensor([[1.0, 2], [3, 4]]).bfloat16(), torch.tensor([5, 7]).short()
    if not ragged:
        return PackedRows(values, columns, D)
    # Two rows, whose slots are the last ones.
    offsets = torch.tensor([N * K - 4, N * K - 2, N * K])
    return PackedRows(values.view(-1, 1), columns.view(-1), D, offsets)


@pytest.mark.skipif(torch.cuda.is_available(), reason="reserves memory that a GPU would have to hold")
@pytest.mark.parametrize("kernel", ["torch", "triton"])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_last_rows_of_a_table_beyond_32_bits(ragged, kernel, untouched):
    packed = huge(ragged)
    last = packed.num_rows - 2 + torch.arange(2)
    expected = torch.zeros(2, D)
    expected[:, [5, 7]] = torch.tensor([[1.0, 2], [3, 4]])
    assert torch.equal(unpack(packed, last, kernel=kernel).float(), expected)
    scores = packed_scores(torch.eye(3, D).roll(5, 1), packed, rows=slice(-2, None), kernel=kernel)
    assert scores.tolist() == [[1, 3], [0, 0], [2, 4]]
    found = at_slots(packed, RowSparse(last, expected * 10, packed.num_rows), once=True, kernel=kernel)
    assert found.values.flatten().tolist() == [10, 20, 30, 40]
    rows = [N * K - 4, N * K - 3, N * K - 2, N * K - 1] if ragged else [N - 2, N - 1]
    assert found.rows.tolist() == rows
