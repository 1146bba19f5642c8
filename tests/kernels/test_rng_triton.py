"""Triton's own Philox, in its interpreter, gives the words of ours: kernels can draw the same ids."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = """
import torch, triton, triton.language as tl
from effrec_kernels import draw_negatives

@triton.jit
def draw(out, seed, step, row, V, BLOCKS: tl.constexpr):
    block = tl.arange(0, BLOCKS).to(tl.uint32)
    zero = block * 0
    step_word = zero + tl.cast(step, tl.uint32)
    w0, w1, w2, w3 = tl.philox(seed, block, zero + row, zero, step_word)
    for slot in tl.static_range(4):
        word = w0 if slot == 0 else (w1 if slot == 1 else (w2 if slot == 2 else w3))
        tl.store(out + block * 4 + slot, ((word.to(tl.uint64) * tl.cast(V, tl.uint64)) >> 32).to(tl.int64))

for seed, step, row, V in ((42, 7, 3, 1000), (2**33 + 5, 2**31, 77, 2**20)):
    out = torch.zeros(64, dtype=torch.int64)
    draw[(1,)](out, seed, step, row, V, BLOCKS=16)
    expected = draw_negatives(torch.tensor([row]), 64, V, seed=seed, step=step)[0]
    assert torch.equal(out, expected), (out, expected)
print("equal")
"""


@pytest.mark.slow
def test_triton_draws_the_same_ids(tmp_path):
    script = tmp_path / "draw.py"
    script.write_text(SCRIPT)
    kernels = Path(__file__).resolve().parents[2] / "kernels"
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(kernels)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
