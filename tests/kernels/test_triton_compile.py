"""Every kernel configuration that may ship compiles for each architecture, without spilling registers.

With another Triton: `pip install --no-deps --target DIR triton==3.9.0`, and EFFREC_TRITON=DIR for the tests.
"""

import json
import os
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

pytest.importorskip("triton")

HERE = Path(__file__).parent
OTHER_TRITON = os.environ.get("EFFREC_TRITON")
PLACES = {"path": [OTHER_TRITON]} if OTHER_TRITON else {}
VERSION = next(iter(distributions(name="triton", **PLACES))).version
# Block sizes were chosen with 3.7; assemblers of others keep a few 64-bit numbers on the stack.
ALLOWED_STACK_BYTES = {"3.6": 8, "3.7": 0}.get(VERSION[:3], 56)


def compiled(widths, archs, thorough):
    """Returns what each configuration asks of its chip."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    folders = [str(HERE.parents[1] / "kernels"), *PLACES.get("path", [])]
    environment |= {"PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
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
        "hidden_backward", "add_segments", "move_rows", "unpack_rows", "gather_slots", "score_items",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("arch", [80, 90, 100])
@pytest.mark.parametrize("width", [16, 64, 128, 256, 512, 1024])
def test_every_configuration_compiles_without_spilling(width, arch):
    check(compiled([width], [arch], thorough=True))
