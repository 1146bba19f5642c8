"""Arguments that do not fit are refused with a message that says what is wrong; who computes is named."""

import os
import subprocess
import sys
from pathlib import Path

import effrec_kernels
import pytest
import torch
from effrec_kernels import (
    KernelUnavailable,
    linear_cross_entropy,
    sampled_cross_entropy,
    which_kernel,
)
from kernel_cases import answer, make_case, relative

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either num_negatives"),
        (
            {"num_negatives": 3, "negatives": torch.zeros(33, 3, dtype=torch.int64)},
            "give either num_negatives",
        ),
        ({"num_negatives": 0}, "num_negatives must be at least 1, not 0"),
        ({"negatives": torch.zeros(32, 3, dtype=torch.int64)}, r"negatives must be \[M, N\] with M = 33"),
        (
            {"num_negatives": 3, "sampler": "popular"},
            "sampler must be one of uniform, block, popularity, not 'popular'",
        ),
        ({"num_negatives": 3, "correction": "exakt"}, "correction must be one of exact, constant, none"),
        ({"num_negatives": 3, "reduction": "avg"}, "reduction must be one of mean, sum, none"),
        ({"num_negatives": 3, "reduction": "none", "normalizer": 3}, "divide the result yourself"),
        ({"num_negatives": 3, "chunk_bytes": 0}, "chunk_bytes must be at least 1, not 0"),
        ({"num_negatives": 3, "seed": 1 << 63}, "seed must fit"),
        ({"num_negatives": 3, "step": -1}, "step must be"),
        ({"num_negatives": 3, "row_offset": torch.zeros(3, dtype=torch.int64)}, "row_offset must be"),
        ({"num_negatives": 3, "row_offset": torch.zeros(33)}, "row_offset must be"),
        ({"num_negatives": 3, "row_weights": torch.ones(32)}, r"row_weights must be \[M\]"),
        ({"num_negatives": 3, "kernel": "cuda"}, "kernel must be one of auto, triton, torch, reference"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        sampled_cross_entropy(*make_case().tensors, **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda case: (case.hidden[None], case.items, case.targets), ValueError, "flatten sequences to rows"),
        (lambda case: (case.hidden[:, :3], case.items, case.targets), ValueError, "with the same D"),
        (lambda case: (case.hidden, case.items[:0], case.targets), ValueError, "items must have between"),
        (lambda case: (case.hidden, case.items, case.targets[1:]), ValueError, r"targets must be \[M\]"),
        (lambda case: (case.hidden.int(), case.items, case.targets), TypeError, "hidden must be float16"),
        (lambda case: (case.hidden, case.items.cfloat(), case.targets), TypeError, "items must be float16"),
        (lambda case: (case.hidden, case.items, case.targets.float()), TypeError, "targets must be int32"),
        (lambda case: (case.hidden, case.items.to("meta"), case.targets), ValueError, "items is on meta"),
    ],
)
@pytest.mark.parametrize("loss", [sampled_cross_entropy, linear_cross_entropy])
def test_tensors_that_do_not_fit(loss, change, error, message):
    options = {"num_negatives": 3} if loss is sampled_cross_entropy else {}
    with pytest.raises(error, match=message):
        loss(*change(make_case()), **options)


def test_negatives_must_be_integers():
    with pytest.raises(TypeError, match="negatives must be int32 or int64"):
        sampled_cross_entropy(*make_case().tensors, negatives=torch.zeros(33, 3))


def test_which_kernel_names_who_computes(monkeypatch):
    monkeypatch.setattr("effrec_kernels.triton_kernels.launch.is_interpreted", lambda: False)
    tensor = torch.zeros(1)
    assert which_kernel("auto", tensor) == which_kernel("torch", "cpu") == "torch"
    assert which_kernel("reference", torch.device("cpu")) == "reference"
    with pytest.raises(KernelUnavailable, match=r"kernel=triton cannot run on cpu: .* kernel=auto"):
        which_kernel("triton", tensor)
    with pytest.raises(KernelUnavailable):
        sampled_cross_entropy(*make_case().tensors, num_negatives=3, kernel="triton")


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("loss", [sampled_cross_entropy, linear_cross_entropy])
def test_the_kernel_never_changes_the_value(device, loss, reduction):
    case = make_case(device=device)
    options = {"num_negatives": 7, "seed": 2, "row_offset": 5} if loss is sampled_cross_entropy else {}
    options |= {"row_weights": case.weights, "reduction": reduction}
    upstream = torch.ones(33, device=device) if reduction == "none" else None
    found = [answer(case, loss, upstream, kernel=kernel, **options) for kernel in ("torch", "reference")]
    assert all(one.dtype == other.dtype for one, other in zip(*found, strict=True))
    assert all(relative(*pair) < 1e-5 for pair in zip(*found, strict=True))


def run_python(code):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"PYTHONPATH": str(KERNELS)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_package_needs_torch_alone():
    """Imports and computes where Triton, numpy and the rest of effrec are not to be had."""
    done = run_python(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'triton', 'effrec_cli', 'hydra', 'safetensors', 'scipy'}:\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import torch, effrec_kernels\n"
        "hidden = torch.randn(4, 3, requires_grad=True)\n"
        "options = {'num_negatives': 2}\n"
        "items, targets = torch.randn(9, 3), torch.arange(4)\n"
        "loss = effrec_kernels.sampled_cross_entropy(hidden, items, targets, **options)\n"
        "loss.backward()\n"
        "print(torch.isfinite(hidden.grad).all().item())\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


def test_public_names_are_documented():
    for name in effrec_kernels.__all__:
        assert getattr(effrec_kernels, name).__doc__, name
