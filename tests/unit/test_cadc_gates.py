"""What method cadc must gain, and save, on data like MovieLens-1M (papers/cadc section 5, tests 18 and 20).

The simulator's users here pick by interest alone, which hardly moves: 800 users and 1,000 items, 6 % of whose
pairs are met (4.5 % in MovieLens-1M), so that a tenth of the rows is about six a user. Only ids are read.
"""

import json

import pytest
from data_helpers import quiet

from effrec_cli import compose
from effrec_cli.app import main
from effrec_cli.data.batches import Share
from effrec_cli.data.load import load
from effrec_cli.methods.cadc import CADC

USERS, ITEMS, DIM = 800, 1000, 64
WORLD = [
    *("method=cadc", "dataset=synthetic", "dataset.side=[]", "dataset.follow=0", "dataset.drift=0.02"),
    *(f"dataset.num_users={USERS}", f"dataset.num_items={ITEMS}", "dataset.interactions_per_user=60"),
    *("run.device=cpu", "evaluation.ks=[20]", "evaluation.metrics=[ndcg]"),
]
KINDS = {
    "rand": ["method.embedding=rand"],
    "frozen": ["method.embedding=init_frz"],
    "trainable": ["method.embedding=init_upd"],
    "frozen, of the sample": ["dataset.sample.rate=0.1", "method.sample.rate=1"],
}
STEPS, LOOKS = 600, 6
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))]


def scored(root, seed, words):
    """Returns the test NDCG@20 of the weights that validation finds best of `LOOKS`, in so many steps."""
    config = compose.compose([*WORLD, f"data_root={root}", f"seed={seed}", *words])
    method = CADC(config)
    method.data = method.prepare(load(config.dataset, root, quiet))
    method.model = method.build(method.data)
    batches = method.batches(method.data)
    assert batches.num_samples == pytest.approx(0.1 * method.data.unsampled().num_train, rel=0.1)
    optimizers, looks = method.optimizers(method.model), []
    for step in range(STEPS):
        epoch, position = divmod(step, batches.steps_per_epoch)
        method.loss(batches.batch(epoch, position, Share(), step)).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % (STEPS // LOOKS) == 0:
            looks.append(tuple(method.judge(part)["ndcg@20"] for part in ("valid", "test")))
    return max(looks)[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_18_factors_of_all_rows_must_gain_and_those_of_the_sample_must_not(seed, tmp_path):
    """Sheet test 18, at a tenth of the rows and equal steps: frozen factors gain half or more over random
    vectors and beat trainable ones, and factors of the sample alone have less than 15 % of that gain: what is
    gained is what other rows tell, and if not, something leaks."""
    found = {name: scored(tmp_path, seed, words) for name, words in KINDS.items()}
    gain = found["frozen"] - found["rand"]
    assert found["frozen"] >= 1.5 * found["rand"], found
    assert found["frozen"] > found["trainable"], found
    assert found["frozen, of the sample"] - found["rand"] < 0.15 * gain, found


def trained(root, folder, *words):
    words = [*WORLD, f"data_root={root}", f"run.dir={folder}", "run.max_epochs=1000", *words]
    assert main(["train", *words]) == 0
    return json.loads((folder / "result.json").read_text())


def operations(cost):
    """Returns the operations of training a network: a backward pass is two forward ones."""
    return 3 * cost["flops_per_sample"] * cost["training_rows"] * cost["epochs"]


def operations_of_factors(config, rows):
    """Returns the most operations that factorising takes, by the costliest solver: a normal matrix of each
    row and its solution, and validation after each of all 16 sweeps."""
    assert config["method"]["factors"]["dim"] == DIM
    sweep = 2 * 2 * rows * DIM**2 + (USERS + ITEMS) * (2 * DIM**2 + DIM**3)
    return 16 * (sweep + 2 * USERS * ITEMS * DIM)


def test_20_a_tenth_with_factors_takes_less_than_half_of_the_least_that_full_training_can(tmp_path):
    """Sheet test 20, without a clock: operations until patience ends, factorising counted. Full training by
    that rule goes over all rows at least once more than its patience."""
    result = trained(tmp_path, tmp_path / "run")
    cost, config = result["cost"], result["config"]
    assert cost["epochs"] < 1000
    rows = result["dataset"]["interactions"] - 2 * result["dataset"]["users"]
    assert cost["training_rows"] == pytest.approx(0.1 * rows, rel=0.1)
    least = (config["run"]["patience"] + 1) * rows * 3 * cost["flops_per_sample"]
    assert operations(cost) + operations_of_factors(config, rows) <= 0.5 * least


@pytest.mark.slow
def test_20_a_tenth_with_factors_is_as_good_as_full_training_for_less_than_half(tmp_path):
    """Sheet test 20 with full training run to its end, and the score that it must not lose."""
    tenth = trained(tmp_path, tmp_path / "tenth")
    full = trained(tmp_path, tmp_path / "full", "method.embedding=rand", "method.sample.rate=1")
    rows = full["cost"]["training_rows"]
    counted = operations(tenth["cost"]) + operations_of_factors(tenth["config"], rows)
    assert counted <= 0.5 * operations(full["cost"])
    assert tenth["metrics"]["test"]["ndcg@20"] >= 0.95 * full["metrics"]["test"]["ndcg@20"]
