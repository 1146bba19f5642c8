"""Everything here needs a CUDA device and is skipped, saying so, where there is none."""

import pytest
import torch


@pytest.fixture
def gpu():
    """The device, its allocator empty and its peak forgotten."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.device("cuda")
