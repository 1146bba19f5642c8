"""Run folders with made-up results."""

import json
from dataclasses import replace

from effrec_cli import result
from effrec_cli.evaluation.cost_record import Cost, Parameters
from effrec_cli.result import Result

PROTOCOL = {"split": {"kind": "leave_one_out"}, "candidates": "full", "seen": "exclude", "ks": [10]}


def make_cost(seconds=10.0, parameters=100, memory=1 << 20, **more):
    base = Cost(
        seconds_total=3 * seconds,
        seconds_per_epoch=seconds,
        seconds_to_95=2 * seconds,
        joules=None,
        peak_memory_bytes=memory,
        memory_kind="rss_growth",
        parameters=Parameters(parameters, parameters, parameters),
        model_bytes=4 * parameters,
        training_rows=77,
        flops_per_sample=1e6,
        seconds_validation=0.5,
        epochs=3,
    )
    return replace(base, **more)


def make_result(ndcg=0.1, *, seed=1, loss="ce", cost=None, method="cce", model="sasrec", run=None, **more):
    config = {
        "seed": seed,
        "method": {"name": method, **({"loss": loss} if method == "cce" else {})},
        "model": {"name": model, **({"dim": 64} if model == "sasrec" else {})},
        "optimizer": {"name": "adam", "lr": 0.001},
        "dataset": {"name": "toy"},
        "run": {"dir": f"somewhere/{seed}", "max_epochs": 3, **(run or {})},
        "evaluation": {"monitor": "ndcg@10", "ks": [10]},
    }
    base = Result(
        metrics={"valid": {"ndcg@10": 2 * ndcg}, "test": {"ndcg@10": ndcg, "hr@10": 3 * ndcg}},
        protocol=PROTOCOL,
        cost=cost or make_cost(),
        dataset={"name": "toy", "hash": "abcdef0123"},
        method=method,
        model=model,
        kernel="torch" if method == "cce" else None,
        seed=seed,
        commit="c0ffee",
        versions={"torch": "2.13"},
        device={"kind": "cpu", "name": "a CPU", "count": 1},
        config=config,
    )
    return replace(base, **more)


def leave_run(folder, found=None, *, state="done", step=None, reason=None):
    """Makes a run folder with a result, or with a status alone."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 1\n")
    (folder / "status.json").write_text(json.dumps({"state": state, "step": step, "reason": reason}))
    if found is not None:
        result.write(folder, found)
    return folder
