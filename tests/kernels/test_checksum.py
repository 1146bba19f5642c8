"""Checksums of tensors: each bit counts, and its place."""

import pytest
import torch
from effrec_kernels.checksum import SPAN, checksum


@pytest.mark.parametrize("dtype", [torch.bool, torch.bfloat16, torch.float32, torch.int64, torch.complex128])
def test_a_checksum_is_of_every_bit_and_its_place(dtype):
    """Over more than one span, and of several tensors in their order."""
    tensor = torch.randint(2, (3 * SPAN + 7,), generator=torch.Generator().manual_seed(1)).to(dtype)
    found = [sum_of(tensor)]
    for at in (0, SPAN, len(tensor) - 1):
        changed = tensor.clone()
        changed[at] = changed[at] == 0
        found.append(sum_of(changed))
    found += [sum_of(tensor.roll(1)), sum_of(tensor.flip(0)), sum_of(tensor, tensor), sum_of()]
    found += [sum_of(tensor[:5], tensor[5:]), sum_of(tensor[5:], tensor[:5])]
    assert len(set(found)) == len(found)
    assert sum_of(tensor.view(1, -1).expand(2, -1)) == sum_of(torch.stack([tensor, tensor]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_signs_do_not_cancel_out(dtype):
    """However many numbers change theirs: the highest bits are the ones that weights move the least."""
    numbers = torch.rand(SPAN, generator=torch.Generator().manual_seed(1)).to(dtype) + 1
    for count in range(1, SPAN + 1):
        changed = torch.cat([-numbers[:count], numbers[count:]])
        assert sum_of(changed) != sum_of(numbers), count


def sum_of(*tensors):
    return checksum(tensors, torch.device("cpu")).item()


def test_a_checksum_waits_for_no_value():
    """A tensor without values has one, of a shape: so none is read on the host."""
    where = torch.device("meta")
    found = checksum([torch.empty(2 * SPAN, device=where), torch.empty((), device=where)], where)
    assert (found.shape, found.dtype, found.device) == ((1,), torch.int64, where)
