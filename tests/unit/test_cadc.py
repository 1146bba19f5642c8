"""Method cadc: factors stay what they are, nobody is left out, runs repeat (papers/cadc 5: 5, 11-13, 21)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cadc_helpers import held_out, method_on, small, stepped, with_side
from pair_helpers import data_of

from effrec_cli import compose
from effrec_cli.data.sampling.sample import sample
from effrec_cli.data.types import Catalogue
from effrec_cli.errors import ConfigError
from effrec_cli.evaluation.blocks import make_block
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.cadc import CADC
from effrec_cli.methods.top_n.folding import fold_in_by
from effrec_cli.schema.method_cadc import EMBEDDINGS, FROZEN
from effrec_cli.schema.sample import SampleConfig

CPU = torch.device("cpu")
NETWORKS = [("two_tower", each) for each in EMBEDDINGS] + [
    (model, each) for model in ("neumf", "dlrm") for each in EMBEDDINGS if each != "residual"
]


def scores_of(method, users=None):
    """Returns the scores of the test cases, or of some users."""
    block = make_block(method.data, method.data.test, slice(None), CPU)
    users = block.users if users is None else users
    return method.scorer().score(users, block.histories)


@pytest.mark.parametrize(("model", "embedding"), NETWORKS)
def test_11_frozen_tables_are_the_same_bits_after_training_without_gradient_or_state(
    model, embedding, tmp_path
):
    """Sheet test 11: Init-Frz tables bitwise equal before and after, no optimizer state, no gradient tensor;
    init-upd equal at step 0 only."""
    method, batches = method_on(
        with_side(), tmp_path, f"model={model}", f"method.embedding={embedding}", "method.batch_size=32"
    )
    ids = (method.model.users, method.model.items)
    before = [each.table.detach().clone() for each in ids]
    network = {name: each.detach().clone() for name, each in method.model.named_parameters()}
    if embedding != "rand":
        for each, factors in zip(ids, ("users", "items"), strict=True):
            given = method._factors.state[factors]
            torch.testing.assert_close(each.table.detach(), given * float(each.scale), rtol=1e-6, atol=0)
    optimizers = stepped(method, batches, 5)
    for each, start in zip(ids, before, strict=True):
        assert torch.equal(each.table, start) is (embedding in FROZEN)
        if embedding in FROZEN:
            assert each.table.grad is None
            assert not each.table.requires_grad
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    assert {id(each) for each in method.model.parameters()} == held, "each is moved by one optimizer"
    sizes = {tuple(each.table.shape) for each in ids}
    state = [t for optimizer in optimizers for kept in optimizer.state.values() for t in kept.values()]
    assert (embedding in FROZEN) is not any(tuple(each.shape) in sizes for each in state)
    assert any(not torch.equal(network[name], each) for name, each in method.model.named_parameters())


def test_two_rates_move_tables_a_hundredth_as_far(tmp_path):
    moves = {}
    for embedding in ("init_upd", "two_rate"):
        method, batches = method_on(held_out(), tmp_path, f"method.embedding={embedding}")
        before = method.model.items.table.detach().clone()
        stepped(method, batches, 1)
        moves[embedding] = (method.model.items.table.detach() - before).abs().max().item()
    assert moves["two_rate"] == pytest.approx(0.01 * moves["init_upd"], rel=1e-3)


def test_12_residual_towers_start_as_the_factorisation_ranks(tmp_path):
    """Sheet test 12, in the method: the initial ranking is that of the factors, top 20 of all users."""
    method, _ = method_on(with_side(), tmp_path, "method.embedding=residual")
    factors = method._factors.state
    own = (factors["users"] @ factors["items"].T).topk(20)
    assert torch.equal(scores_of(method).topk(20).indices, own.indices)


def test_13_vectors_belong_to_the_raw_ids_however_these_are_shuffled(tmp_path):
    """Sheet test 13: a round trip with shuffled ids; users of even ids like even items, odd ones odd."""
    rng = np.random.default_rng(0)
    for seed in range(2):
        names = rng.permutation(24) if seed else np.arange(24)
        kinds = names % 2
        likes = [rng.choice(np.arange(kind, 16, 2), 6, replace=False).tolist() for kind in kinds]
        data = data_of(likes, num_items=16, held=1)
        data = replace(data, users=Catalogue(names), items=Catalogue(np.arange(16)))
        method, _ = method_on(data, tmp_path / str(seed), "method.embedding=residual")
        found = method.scorer().score(torch.arange(24), Histories(torch.zeros(0), torch.zeros(25)))
        for row, name in enumerate(data.users.ids):
            own, other = found[row, name % 2 :: 2].mean(), found[row, (name + 1) % 2 :: 2].mean()
            assert own > 5 * other.abs()


@pytest.mark.parametrize(
    ("model", "embedding"), [("two_tower", "init_frz"), ("neumf", "concat"), ("dlrm", "rand")]
)
def test_13_users_that_the_sample_has_dropped_are_scored(model, embedding, tmp_path):
    """Sheet test 13: users absent from the sample still get scored, each by a vector of its own."""
    words = [f"model={model}", f"method.embedding={embedding}", "method.sample.rate=0.02"]
    method, batches = method_on(held_out(), tmp_path, *words)
    absent = np.flatnonzero(method.data.train_end == method.data.train_start)
    assert len(absent) > 20
    stepped(method, batches, 3)
    found = scores_of(method)
    assert found.isfinite().all()
    assert len(torch.unique(found[absent], dim=0)) == len(absent)


def test_13_new_users_are_folded_in_as_old_ones_were_solved(tmp_path):
    """Sheet test 13 for users of no row: the vector of their history, through the towers."""
    method, batches = method_on(held_out(), tmp_path, "method.embedding=residual", "method.factors.sweeps=60")
    stepped(method, batches, 3)
    trained = method.data.unsampled()
    rows = [trained.train_items(user) for user in range(40)]
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum([len(row) for row in rows])]))
    histories = Histories(torch.from_numpy(np.concatenate(rows).astype(np.int64)), offsets)
    old = method.scorer().score(torch.arange(40), histories)
    new = method.scorer().score(torch.full((40,), -1), histories)
    assert torch.corrcoef(torch.stack([old.ravel(), new.ravel()]))[0, 1] > 0.99


@pytest.mark.parametrize("embedding", ["init_upd", "init_frz", "residual"])
def test_folding_in_goes_by_the_factors_own_items_where_the_networks_have_moved(embedding, tmp_path):
    method, batches = method_on(held_out(), tmp_path, f"method.embedding={embedding}")
    stepped(method, batches, 20)
    offsets, items = torch.tensor([0, 3]), torch.tensor([4, 9, 2])
    fold_in = fold_in_by("ials", method._folding, method.model)
    torch.testing.assert_close(fold_in(offsets, items), method._factors.fold_in(offsets, items))
    frozen = embedding in FROZEN
    assert ("folding.items" in method.state_dict()) is not frozen, "a frozen table is kept once"


@pytest.mark.parametrize("model", ["two_tower", "neumf", "dlrm"])
@pytest.mark.parametrize("embedding", ["rand", "init_upd", "concat"])
def test_a_saved_network_scores_without_its_dataset(model, embedding, tmp_path):
    words = [f"model={model}", f"method.embedding={embedding}"]
    method, batches = method_on(with_side(), tmp_path, *words)
    stepped(method, batches, 3)
    other = CADC(compose.compose(["method=cadc", *small(words)]))
    other.data = replace(method.data.unsampled(), side={})
    other.model = other.build(other.data)
    other.load_state_dict({name: each.clone() for name, each in method.state_dict().items()})
    assert torch.equal(scores_of(method), scores_of(other))
    new = torch.full((40,), -1)
    torch.testing.assert_close(scores_of(method, new), scores_of(other, new), rtol=1e-4, atol=1e-5)


def test_5_what_is_judged_has_no_say_in_factors_sample_or_attributes(tmp_path):
    """Sheet test 5: perturbing test rows leaves the factors bitwise unchanged."""
    data = with_side()
    items = data.sequences.items.copy()
    items[data.test.target_start] = (items[data.test.target_start] + 1) % 30
    changed = replace(data, sequences=replace(data.sequences, items=items), content_hash="other")
    pair = [method_on(each, tmp_path / str(at))[0] for at, each in enumerate((data, changed))]
    first, second = (each.model.state_dict() for each in pair)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_21_two_runs_with_one_seed_are_the_same(tmp_path):
    """Sheet test 21, in steps: one seed gives the same bits, another gives others."""
    found = []
    for seed in (1, 1, 2):
        torch.rand(3)  # what ran before has no say
        method, batches = method_on(with_side(), tmp_path, seed=seed)
        stepped(method, batches, 6)
        found.append(scores_of(method))
    assert torch.equal(found[0], found[1])
    assert not torch.allclose(found[0], found[2])


def test_the_sample_changes_what_trains_and_nothing_that_is_judged(tmp_path):
    data = held_out()
    method, batches = method_on(data, tmp_path, "method.sample.rate=0.3", "method.sample.mode=exact")
    assert batches.num_samples == method.training_rows == round(0.3 * data.num_train)
    assert method.data.test is data.test
    assert method.config.method.batch_size == 32, "what was chosen is written down"
    whole, fresh = method_on(data, tmp_path, "method.sample.rate=1", "method.fresh=0.25")
    assert whole.data is data
    assert fresh.num_samples == round(0.25 * data.num_train)


def test_over_a_dataset_that_is_a_sample_the_factors_read_the_sample_alone(tmp_path):
    """As a comparator of factors fitted on all rows (sheet section 3.2: the rows of MF(10 %))."""
    data = held_out()
    sampled = sample(data, SampleConfig(rate=0.3, mode="exact"))
    words = ("method.sample.rate=1",)
    of_sample, batches = method_on(sampled, tmp_path, *words)
    of_all, _ = method_on(data, tmp_path, *words)
    assert batches.num_samples == round(0.3 * data.num_train)
    assert not torch.allclose(of_sample.model.items.table, of_all.model.items.table)


def test_known_pairs_of_all_rows_are_filtered_and_their_bytes_told(tmp_path):
    data = held_out()
    method, batches = method_on(data, tmp_path, "method.filter_negatives=true", "method.sample.rate=0.3")
    assert set(method.choices()) >= {"method.filter_negatives"}
    assert f"{batches.known.bytes:,} bytes" in method.choices()["method.filter_negatives"]
    assert batches.known.keys.size == data.num_train, "of all training rows, not of the sample's"


WRONG = {
    "method.loss": ["model=neumf", "method.loss=cce"],
    "method.embedding": ["model=dlrm", "method.embedding=residual"],
    "model.dim": ["method.embedding=residual", "model.dim=8"],
    "method.own_dim": ["method.own_dim=4"],
    "method.table_rate": ["method.table_rate=0.5"],
    "method.temperature": ["method.temperature=0.5"],
    "method.filter_negatives": ["method.loss=cce", "method.filter_negatives=true"],
    "model.hidden": ["model=neumf", "model.hidden=[]"],
    "method.factors.dim": ["method.factors.kind=bpr", "method.factors.dim=1"],
    "method.factors.lr": ["method.factors.lr=0.1"],
    "method.factors.reg": ["method.factors.kind=rsvd", "method.factors.reg=0.1"],
    "method.factors.block": ["method.factors.block=16"],
    "method.attributes": ["method.attributes=[flag]"],
    "method.sample.rate": ["dataset.sample.rate=0.5"],
}


@pytest.mark.parametrize("where", WRONG)
def test_settings_that_do_nothing_or_cannot_be_are_refused(where):
    with pytest.raises(ConfigError) as refusal:
        compose.compose(["method=cadc", *WRONG[where]])
    assert where in f"{refusal.value}"
    assert refusal.value.fix
