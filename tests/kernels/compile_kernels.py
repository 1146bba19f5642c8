"""Compiles the Triton kernels for GPUs that need not be there, and tells what each asks of its chip.

A program of its own, since the process of the tests interprets kernels: it prints a JSON line for each
configuration: kernel, shape, architecture, bytes of stack (spilled registers) and of shared memory.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
import triton.language as tl
from effrec_kernels.triton_kernels import blocks
from effrec_kernels.triton_kernels.adam import adam_blocks
from effrec_kernels.triton_kernels.device import adam, packed, positives, rows, segments, tiles
from effrec_kernels.triton_kernels.packed import score_blocks, slot_blocks
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

# Shared memory that one program may have, in bytes.
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
DTYPES = {
    "bf16": (torch.bfloat16, tl.bfloat16),
    "fp16": (torch.float16, tl.float16),
    "fp32": (torch.float32, tl.float32),
}
CUOBJDUMP = Path(nvidia.__file__).parent / "bin" / "cuobjdump"

POINTERS = {
    "targets": "*i64", "rows": "*i64", "boundaries": "*i64", "negatives": "*i64", "state": "*i64",
    "log_q": "*fp32", "thresholds": "*i32", "alias": "*i32", "loss": "*fp32", "lse": "*fp32",
    "shift": "*fp32", "of_loss": "*fp32", "of_lse": "*fp32", "of_items": "*fp32", "pair_ids": "*i32",
    "pair_slopes": "*fp32", "sorted_ids": "*i32", "order": "*i64", "slopes": "*fp32",
    "table": "*fp32", "exp_avg": "*fp32", "exp_avg_sq": "*fp32", "row_steps": "*fp32", "values": "*fp32",
    "grad_scale": "*fp32", "found_inf": "*fp32", "columns": "*u8", "offsets": "*i64", "factors": "*fp32",
    "dense": "*fp32", "upstream": "*fp32", "starts": "*i64", "found": "*fp32", "slots": "*i64",
    "users": "*fp32", "scores": "*fp32",
}  # fmt: skip
SCALARS = dict.fromkeys(
    [
        "scale",
        "constant",
        "log_others",
        "beta",
        "lr",
        "eps",
        "weight_decay",
        "gain1",
        "gain2",
        "decay1",
        "decay2",
    ],
    "fp32",
)
ALIGNED = (
    "hidden",
    "items",
    "unit",
    "of_items",
    "of_hidden",
    "source",
    "hidden_row",
    "items_row",
    "source_row",
    "table",
    "exp_avg",
    "exp_avg_sq",
    "values",
    "table_row",
    "moment_row",
    "values_row",
    "dim",
    "users",
    "users_row",
    "upstream",
)


def sizes(chosen):
    return {
        "BLOCK_M": chosen.rows,
        "BLOCK_N": chosen.negatives,
        "BLOCK_D": chosen.width,
        "CHUNKS": chosen.chunks,
    }


def compile_one(kernel, chosen, arch, dtype, table, **given):
    """Returns what the kernel needs on `arch`, hidden states in `dtype`, items in `table`, options given."""
    compute = DTYPES[dtype][1]
    absent = (
        "rows", "boundaries", "negatives", "log_q", "thresholds", "alias", "of_lse", "in_batch", "pair_ids",
        "pair_slopes",
    )  # fmt: skip
    options = dict.fromkeys(absent) | {
        "hidden_step": 1, "items_step": 1, "SAMPLER": "uniform", "EXACT": True, "BINARY": False, "RUN": 64,
        "TWO_WORDS": False, "COMPUTE": compute, "OPERAND": compute, "PRECISION": "ieee", "LAYOUT": "tiles",
        "SPLIT": table != dtype, "PARTS": 1, "source_step": 1,
        "BY_ROW": False, "DECOUPLED": False, "BY_SLOT": False,
        "table_step": 1, "moment_step": 1, "values_step": 1,
    } | sizes(chosen) | given  # fmt: skip
    constants = {
        name: value for name, value in options.items() if name in kernel.arg_names and not is_type(value)
    }
    types = (
        POINTERS
        | SCALARS
        | {
            "hidden": f"*{dtype}",
            "unit": f"*{dtype}",
            "of_hidden": f"*{dtype}",
            "source": f"*{dtype}",
            "items": f"*{table}",
        }
    )
    types |= {name: value for name, value in given.items() if is_type(value)}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i64") for name in kernel.arg_names
    }
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if name in ALIGNED and name not in constants
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", arch, 32)
    flags = {"num_warps": chosen.num_warps, "num_stages": chosen.num_stages, "enable_fp_fusion": True}
    done = triton.compile(source, target=target, options=flags)
    return {
        "stack": stack_bytes(done.asm["cubin"]),
        "shared": done.metadata.shared,
        "limit": SHARED_LIMIT[arch],
    }


def is_type(value):
    return isinstance(value, str) and bool(re.fullmatch(r"\*?(i|u|fp|bf)\d+", value))


def stack_bytes(cubin):
    """Returns bytes of stack per thread: registers that did not fit, read from the compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(CUOBJDUMP), "--dump-resource-usage", file.name]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", told).group(1))


def configurations(widths, archs, thorough):
    """Yields (name, kernel, blocks, arch, dtype of states, dtype of items, options) of all that may ship."""
    for arch in archs:
        for dim in widths:
            for dtype, table in [("bf16", "bf16"), ("bf16", "fp32"), ("fp16", "fp16"), ("fp32", "fp32")]:
                if not thorough and (dtype, table) in [("fp16", "fp16")]:
                    continue
                row, positive = blocks.row_blocks(dim), blocks.positive_blocks(dim)
                yield rows.rows_forward, row, arch, dtype, table, dim, {}
                yield rows.rows_backward, row, arch, dtype, table, dim, {}
                for group in (16, 32, 64) if thorough else (64,):
                    tile = blocks.tile_blocks(dim, DTYPES[dtype][0], DTYPES[table][0], group, arch // 10)
                    yield tiles.tiles_forward, tile, arch, dtype, table, dim, {"SPLIT": False}
                    yield tiles.tiles_backward, tile, arch, dtype, table, dim, {}
                yield positives.positives_backward, positive, arch, dtype, table, dim, {}
                yield segments.add_segments, blocks.segment_blocks(dim), arch, dtype, table, dim, {}
                yield positives.hidden_backward, positive, arch, dtype, table, dim, {"of_lse": "*fp32"}
    for arch in archs:
        for dim in widths:
            for decoupled in (False, True):
                yield adam.move_rows, adam_blocks(dim), arch, "fp32", "fp32", dim, {
                    "rows": "*i64", "DECOUPLED": decoupled
                }  # fmt: skip
            ages = {"rows": "*i64", "BY_SLOT": True, "row_steps": "*i16"}
            yield adam.move_rows, adam_blocks(dim), arch, "fp32", "fp32", dim, ages
            yield from packed_configurations(dim, arch)
            positive = blocks.positive_blocks(dim)
            yield positives.positives_backward, positive, arch, "bf16", "fp32", dim, {"BY_ROW": True}
    for arch in archs:
        tile, row = blocks.tile_blocks(128, torch.bfloat16, torch.bfloat16, 64), blocks.row_blocks(128)
        for options in VARIANTS:
            forward = tiles.tiles_forward if "LAYOUT" in options else rows.rows_forward
            backward = tiles.tiles_backward if "LAYOUT" in options else rows.rows_backward
            chosen = tile if "LAYOUT" in options else row
            yield forward, chosen, arch, "bf16", "bf16", 128, options | {"SPLIT": False}
            yield backward, chosen, arch, "bf16", "bf16", 128, options


def packed_configurations(dim, arch):
    """Yields those of tables of a quarter of their columns; the width stands for the slots of a row."""
    fixed = {"rows": "*i64", "columns": "*u8" if dim <= 256 else "*i16", "upstream_step": 1}
    fixed |= dict.fromkeys(["offsets", "starts", "slots", "factors"])
    ragged = fixed | {"offsets": "*i64", "starts": "*i64", "slots": "*i64", "width": 0}
    bf16 = dict.fromkeys(["values", "dense", "upstream", "found"], "*bf16")
    for options in (fixed, ragged, fixed | bf16, fixed | {"values": "*i8", "factors": "*fp32"}):
        chosen = slot_blocks(dim // 4)
        yield packed.unpack_rows, chosen, arch, "fp32", "fp32", dim, options
        yield packed.score_items, score_blocks(), arch, "fp32", "fp32", dim, options
        if options["factors"] is None:
            yield packed.gather_slots, chosen, arch, "fp32", "fp32", dim, options


# Every sampler, layout, correction and objective, once.
POPULARITY = {
    "SAMPLER": "popularity",
    "thresholds": "*i32",
    "alias": "*i32",
    "log_q": "*fp32",
    "EXACT": False,
}
VARIANTS = [
    {"TWO_WORDS": True},
    {"SAMPLER": "block"},
    {"SAMPLER": "given", "negatives": "*i32", "rows": "*i64"},
    POPULARITY | {"in_batch": "i64"},
    {"BINARY": True, "EXACT": False},
    {"of_lse": "*fp32"},
    {"pair_ids": "*i32", "pair_slopes": "*fp32"},
    {"LAYOUT": "batch", "SAMPLER": "all", "EXACT": False},
    {"LAYOUT": "spans", "boundaries": "*i64", "SAMPLER": "block"},
    {"LAYOUT": "tiles", "TWO_WORDS": True, "of_lse": "*fp32"},
    POPULARITY | {"LAYOUT": "tiles", "in_batch": "i64"},
    {"LAYOUT": "tiles", "BINARY": True, "EXACT": False},
    {"LAYOUT": "batch", "SAMPLER": "given", "negatives": "*i64"},
    {"LAYOUT": "tiles", "pair_ids": "*i32"},
    {"LAYOUT": "batch", "pair_ids": "*i64", "PARTS": 4},
]


def main(widths, archs, thorough):
    for kernel, chosen, arch, dtype, table, dim, options in configurations(widths, archs, thorough):
        needs = compile_one(kernel, chosen, arch, dtype, table, **options)
        what = {"kernel": kernel.__name__, "arch": arch, "hidden": dtype, "items": table, "dim": dim}
        shown = {name: str(value) for name, value in options.items()}
        print(json.dumps(what | {"options": shown} | needs), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
