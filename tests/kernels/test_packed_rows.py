"""Packing a table and getting it back: bits, dtypes, bytes, rows of any number of slots, what is refused."""

import importlib.util

import pytest
import torch
from effrec_kernels import PackedRows, column_dtype, pack, unpack
from packed_cases import masked, packed_case

TRITON = importlib.util.find_spec("triton") is not None
KERNELS = ["torch", "triton"] if TRITON else ["torch"]
SHAPES = [(1, 17, 1), (23, 17, 3), (9, 64, 13), (5, 256, 64), (5, 257, 13), (3, 1000, 400), (7, 64, 64)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("rows", "dim", "slots"), SHAPES)
def test_unpacking_gives_the_table_back_bit_by_bit(rows, dim, slots, ragged, dtype, device):
    packed, table = packed_case(rows, dim, slots, ragged, dtype=dtype, device=device)
    assert packed.values.dtype == dtype
    assert packed.columns.dtype == (torch.uint8 if dim <= 256 else torch.int16)
    some = torch.randint(rows, (2, 5), generator=torch.Generator().manual_seed(1)).to(device)
    for kernel in ("torch", *(("triton",) if TRITON and dtype != torch.float64 else ())):
        assert torch.equal(unpack(packed, kernel=kernel), table)
        assert torch.equal(unpack(packed, some, kernel=kernel), table[some])


def test_more_rows_than_are_worked_on_at_a_time():
    for ragged in (False, True):
        packed, table = packed_case(20_000, 20, 3, ragged)
        assert torch.equal(unpack(packed), table)


def test_columns_rise_and_do_not_repeat():
    packed, _ = packed_case(50, 300, 40)
    assert packed.columns.shape == (50, 40)
    assert (packed.columns[:, 1:].int() > packed.columns[:, :-1].int()).all()


def test_the_last_column_of_each_width_fits():
    """A byte ends at 255 and a short at 32,767: one column more takes the wider one, or is refused."""
    for dim in (256, 257, 32_768):
        packed = pack(torch.full((1, dim), 2.0), torch.arange(dim)[None] == dim - 1, ragged=False)
        assert int(packed.columns) == dim - 1
        assert unpack(packed)[0, -1] == 2
    for dim in (0, 32_769):
        with pytest.raises(ValueError, match="32,768"):
            column_dtype(dim)


@pytest.mark.parametrize("ragged", [False, True])
def test_bytes_are_those_of_the_tensors(ragged):
    packed, table = packed_case(100, 64, 6, ragged)
    live = int((table != 0).sum())
    assert (packed.num_rows, packed.live) == (100, live)
    assert packed.bytes == 5 * live + (8 * 101 if ragged else 0)
    wide, _ = packed_case(100, 300, 6, dtype=torch.bfloat16)
    assert wide.bytes == 4 * 600


def test_rows_without_a_slot_and_tables_without_a_row():
    none = pack(torch.ones(4, 6), torch.zeros(4, 6, dtype=torch.bool), ragged=True)
    assert none.live == 0
    assert torch.equal(unpack(none), torch.zeros(4, 6))
    for ragged in (False, True):
        empty = pack(torch.ones(0, 6), torch.ones(0, 6, dtype=torch.bool), ragged=ragged)
        assert unpack(empty).shape == (0, 6)


def test_fixed_k_names_the_row_that_differs():
    table, mask = masked(9, 17, 3, ragged=False)
    mask[5] = False
    with pytest.raises(ValueError, match="row 0, 3; row 5 has 0"):
        pack(table, mask, ragged=False)
    with pytest.raises(ValueError, match="at least one slot"):
        pack(table, torch.zeros_like(mask), ragged=False)


@pytest.mark.parametrize("kernel", KERNELS)
def test_scaled_integers_unpack_to_float32(kernel):
    values = torch.tensor([[127, -127], [1, -3]], dtype=torch.int8)
    columns = torch.tensor([[0, 2], [1, 3]], dtype=torch.uint8)
    packed = PackedRows(values, columns, 4, scale=torch.tensor([0.5, 2.0]))
    expected = torch.tensor([[63.5, 0, -63.5, 0], [0, 2, 0, -6]])
    assert torch.equal(unpack(packed, kernel=kernel), expected)
    slots = PackedRows(values.view(-1, 1), columns.flatten(), 4, torch.tensor([0, 2, 4]), packed.scale)
    assert torch.equal(unpack(slots, torch.tensor([1, 0]), kernel=kernel), expected.flip(0))
    assert packed.bytes == 4 + 4 + 8


def changed(**parts):
    packed, _ = packed_case()
    ragged, _ = packed_case(ragged=True)
    base = ragged if "offsets" in parts else packed
    return {name: getattr(base, name) for name in ("values", "columns", "dim", "offsets", "scale")} | parts


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ({"dim": 300}, TypeError, "columns of rows 300 wide must be torch.int16"),
        ({"dim": 40_000}, ValueError, "32,768"),
        ({"values": torch.zeros(23, 4)}, ValueError, r"\[N, k\]"),
        ({"values": torch.zeros(69)}, ValueError, r"\[N, k\]"),
        ({"offsets": torch.tensor([0, 1]), "values": torch.zeros(3, 2)}, ValueError, r"\[B, 1\]"),
        ({"offsets": torch.tensor([0, 1], dtype=torch.int32)}, TypeError, "offsets"),
        ({"values": torch.zeros(23, 3, dtype=torch.int8)}, TypeError, "int8 with scale"),
        ({"scale": torch.ones(23)}, TypeError, "int8 with scale"),
        ({"values": torch.zeros(23, 3, dtype=torch.int8), "scale": torch.ones(3)}, ValueError, "scale"),
    ],
)
def test_what_is_no_packed_table_is_refused(parts, error, words):
    with pytest.raises(error, match=words):
        PackedRows(**changed(**parts))


@pytest.mark.parametrize(
    ("dense", "mask", "error"),
    [
        (torch.ones(3, 2), torch.ones(3, 2), TypeError),
        (torch.ones(3, 2, dtype=torch.int64), torch.ones(3, 2, dtype=torch.bool), TypeError),
        (torch.ones(3, 2), torch.ones(2, 3, dtype=torch.bool), ValueError),
        (torch.ones(3), torch.ones(3, dtype=torch.bool), ValueError),
    ],
)
def test_what_cannot_be_packed_is_refused(dense, mask, error):
    with pytest.raises(error, match="pack takes"):
        pack(dense, mask, ragged=False)
