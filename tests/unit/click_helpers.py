"""Labelled rows in files and in memory, and method cadc about to train on them."""

import numpy as np
from data_helpers import quiet

from effrec_cli import compose
from effrec_cli.data.clicks import Clicks, clicks_of
from effrec_cli.data.feature_kinds import value_hashes
from effrec_cli.data.load import load
from effrec_cli.methods.cadc import CADC
from effrec_cli.schema.dataset_base import FilterConfig, PartsConfig
from effrec_cli.schema.dataset_table import TableConfig

PARTS = PartsConfig(test_share=0.2, valid_share=0.2)


def loaded(tmp_path, path, **settings):
    """Returns a prepared table whose rows have labels and, unless settings name them, no users and items."""
    given = {"user": None, "item": None, "label": "click"} | settings
    filters = FilterConfig(min_user_count=1)
    config = TableConfig(name="t", family="table", path=str(path), filter=filters, **given)
    return load(config, tmp_path / "root", quiet)


def written(tmp_path, header, rows, name="log.csv", mark=","):
    path = tmp_path / name
    lines = [header, *rows] if header else rows
    path.write_text("\n".join(mark.join(map(str, line)) for line in lines) + "\n")
    return path


def clicks(rows=200, *, dense=2, columns=2, values=4, ids=False, seed=0, times=False):
    """Returns random labelled rows that tell of their first category, 60 % of them for training."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(1, values + 1, (rows, columns)).astype(np.int32)
    hashes = np.sort(value_hashes(np.array([f"v{n}" for n in range(values)], dtype=object)))
    labels = (rng.random(rows) < np.where(codes[:, 0] == 1, 0.6, 0.15)).astype(np.int8)
    part = np.repeat([0, 1, 2], [rows * 6 // 10, rows * 2 // 10, rows - rows * 8 // 10]).astype(np.int8)
    people = (rng.integers(0, 12, rows).astype(np.int32), rng.integers(0, 9, rows).astype(np.int32))
    return Clicks(
        name="made",
        content_hash="0" * 64,
        labels=labels,
        part=part,
        protocol={"parts": "made"},
        users=people[0] if ids else None,
        items=people[1] if ids else None,
        user_ids=np.arange(12) * 7 if ids else np.zeros(0, np.int64),
        item_ids=np.arange(9) * 5 if ids else np.zeros(0, np.int64),
        times=np.arange(rows) if times else None,
        dense=rng.normal(size=(rows, dense)).astype(np.float32),
        categories=codes,
        values=[hashes] * columns,
    )


def log_of(tmp_path, rows=400, *, ids=False, seed=0):
    """Writes a log of which column `kind` tells the label; returns its path."""
    rng = np.random.default_rng(seed)
    lines = []
    for at in range(rows):
        kind = int(rng.integers(0, 4))
        click = int(rng.random() < (0.7 if kind == 1 else 0.1))
        lines.append(
            (at, int(rng.integers(0, 20)), int(rng.integers(0, 15)), click, f"k{kind}", rng.normal())
        )
    return written(tmp_path, ("t", "user", "item", "click", "kind", "x"), lines)


def method_on(tmp_path, path, *words, ids=False):
    """Returns the method about to train on a log, and its batches."""
    nobody = [] if ids else ["dataset.user=null", "dataset.item=null"]
    overrides = [
        *("method=cadc", "model=dlrm", "dataset=table", f"dataset.path={path}", "dataset.label=click"),
        *("dataset.time=t", "dataset.dense=[x]", "dataset.categorical=[kind]", *nobody),
        *(
            "dataset.filter.min_user_count=1",
            "method.factors.dim=4",
            "run.device=cpu",
            f"data_root={tmp_path}",
        ),
        *words,
    ]
    config = compose.compose(overrides)
    data = load(config.dataset, tmp_path, quiet)
    method = CADC(config)
    method.data = method.prepare(data)
    method.model = method.build(data)
    return method, method.batches(data)


def rows_of(data):
    return clicks_of(data, PARTS)
