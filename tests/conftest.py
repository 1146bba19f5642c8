"""Without a GPU, Triton kernels run in its interpreter, which must be told before Triton is imported."""

import contextlib
import importlib.util
import os

import torch


def _load_interpreted():
    """Imports Triton and our kernels to be interpreted; processes that tests start compile, as users' do."""
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        with contextlib.suppress(ImportError):  # a part of Triton that looks at the variable when first used
            import triton.experimental.gluon  # noqa: F401
        import effrec_kernels.triton_kernels.adam
        import effrec_kernels.triton_kernels.operators
        import effrec_kernels.triton_kernels.packed  # noqa: F401
    finally:
        del os.environ["TRITON_INTERPRET"]


if importlib.util.find_spec("triton") and not torch.cuda.is_available():
    _load_interpreted()
