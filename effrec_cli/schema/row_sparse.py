"""What `optimizer.sparse_rows` asks of the other settings."""

from __future__ import annotations

from collections.abc import Iterator

from effrec_cli.schema.method_cce import ROWS, CCEConfig
from effrec_cli.schema.problems import Problem
from effrec_cli.schema.root import Config

PATH = "optimizer.sparse_rows"


def row_sparse_problems(config: Config) -> Iterator[Problem]:
    """Yields why the item table's gradient cannot be rows under these settings."""
    if config.optimizer.name == "sgd":
        what = "sparse_rows=true is for Adam: sgd has no moments whose reading it would save."
        yield Problem(PATH, what, fix="optimizer=adam or optimizer=adamw, or optimizer.sparse_rows=false")
    own = config.method
    if not isinstance(own, CCEConfig):
        what = f"sparse_rows=true needs a loss whose gradient is rows; method={own.name} has none."
        yield Problem(PATH, what, fix="method=cce method.sharing=tile, or optimizer.sparse_rows=false")
    elif own.loss not in ROWS:
        dense = f"that of loss={own.loss} is dense"
        if own.loss == "auto":
            dense = "loss=auto may become cce, whose is dense"
        what = f"sparse_rows=true needs a loss whose gradient is rows; {dense}."
        yield Problem(PATH, what, fix=f"method.loss={ROWS[0]} (or {', '.join(ROWS[1:])}), or {PATH}=false")
    elif own.loss != "sce" and (own.sharing == "row" or (own.sharing == "tile" and own.tile_rows == 1)):
        what = (
            "sparse_rows=true needs targets that share negatives: with their own, a step draws too many rows."
        )
        yield Problem(
            PATH, what, fix="method.sharing=tile method.tile_rows=64, or optimizer.sparse_rows=false"
        )
    elif own.kernel == "reference":
        what = "sparse_rows=true needs a kernel whose gradient is rows; the reference's is dense."
        yield Problem(PATH, what, fix="method.kernel=auto, or optimizer.sparse_rows=false")
