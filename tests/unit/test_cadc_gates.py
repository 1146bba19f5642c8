"""What method cadc must gain on data like MovieLens-1M (papers/cadc section 5, test 18).

The simulator's users here pick by interest alone, which hardly moves: 800 users and 1,000 items, 6 % of whose
pairs are met (4.5 % in MovieLens-1M), so that a tenth of the rows is about six a user. Only ids are read.
"""

import pytest
from data_helpers import quiet

from effrec_cli import compose
from effrec_cli.data.batches import Share
from effrec_cli.data.load import load
from effrec_cli.methods.cadc import CADC

USERS, ITEMS = 800, 1000
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
