"""Every kernel configuration that may ship compiles for each architecture, without spilling registers."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent
# Block sizes were chosen with this version; others' assemblers may keep one 64-bit number on the stack.
CHOSEN_WITH = "3.7.1"
ALLOWED_STACK_BYTES = 0 if version("triton") == CHOSEN_WITH else 8


def compiled(widths, archs, thorough):
    """Returns what each configuration asks of its chip."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(HERE.parents[1] / "kernels"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "compile_kernels.py"), *map(json.dumps, (widths, archs, thorough))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(records):
    assert records
    for record in records:
        assert record["stack"] <= ALLOWED_STACK_BYTES, record
        assert record["shared"] <= record["limit"], record


def test_kernels_compile_without_spilling():
    """One width for one chip; `make test-all` compiles the other widths and chips."""
    records = compiled([64], [90], thorough=False)
    check(records)
    kernels = {record["kernel"] for record in records}
    assert kernels == {
        "rows_forward", "rows_backward", "tiles_forward", "tiles_backward", "positives_backward",
        "hidden_backward", "add_segments", "move_rows",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("width", [16, 64, 128, 256, 512, 1024])
def test_every_configuration_compiles_without_spilling(width, arch):
    check(compiled([width], [arch], thorough=True))
