"""Layers of pattern 2:4 on a GPU: what its sparse units multiply is what a dense product finds."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from effrec_cli.models.sparse.half import HalfLinear
from effrec_cli.models.sparse.semi_structured import CAPABILITY

pytestmark = pytest.mark.gpu


@pytest.fixture
def sparse_units(gpu):
    """The device, where it has such units."""
    if torch.version.cuda is None or torch.cuda.get_device_capability(gpu) < CAPABILITY:
        pytest.skip("no NVIDIA GPU of compute capability 8.0")
    return gpu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 64), (256, 512)])
@pytest.mark.parametrize("rows", [(1,), (7,), (64,), (3, 5)])
@torch.no_grad()
def test_sparse_products_are_the_dense_ones(sparse_units, dtype, outputs, inputs, rows):
    torch.manual_seed(1)
    layer = HalfLinear(nn.Linear(inputs, outputs)).to(sparse_units).served()
    given = torch.randn(*rows, inputs, device=sparse_units)
    exact = layer(given)
    assert layer.multiply_in(dtype), "torch refuses the matrix"
    found = layer(given)
    # By the same rounded numbers; the sum of a row is rounded once more.
    rounded = F.linear(given.to(dtype).double(), layer.unpacked().to(dtype).double()) + layer.bias.double()
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), rounded, atol=2 * step, rtol=2 * step)
    torch.testing.assert_close(found, exact, atol=16 * step, rtol=16 * step)
    assert found.dtype == torch.float32
    layer.multiply_in(None)
    assert torch.equal(layer(given), exact)


@torch.no_grad()
def test_shapes_that_the_units_do_not_take_are_multiplied_in_32_bits(sparse_units):
    layer = HalfLinear(nn.Linear(48, 20)).to(sparse_units).served()
    given = torch.randn(9, 48, device=sparse_units)
    exact = layer(given)
    assert not layer.multiply_in(torch.bfloat16)
    assert torch.equal(layer(given), exact)
