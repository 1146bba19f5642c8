"""BERT4Rec: masks hide items, padding hides nothing and shows nothing, losses see masked rows, it learns."""

import pytest
import torch
from test_cce import LENGTH, WAYS, Popularity, V, chain, gradients, ndcg

from effrec_cli.data.batches import Share
from effrec_cli.data.cloze import ClozeBatches
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.methods.cce import CCE
from effrec_cli.methods.next_item.windows import masking_of
from effrec_cli.models.bert4rec import BERT4Rec
from effrec_cli.optim import make_optimizer
from effrec_cli.schema import Config, OptimizerConfig
from effrec_cli.schema.method_cce import CCEConfig
from effrec_cli.schema.model_bert4rec import BERT4RecConfig

L = 9


def make(**changes):
    torch.manual_seed(3)
    settings = {"dim": 16, "num_layers": 2, "num_heads": 2, "max_length": L, "dropout": 0.0, "init_std": 0.5}
    return BERT4Rec(V, **{**settings, **changes}).eval()


def method(data=None, model=None, sparse_rows=False, **own):
    model = {"dim": 16, "num_layers": 1, "max_length": L, "dropout": 0.0, **(model or {})}
    config = Config(
        model=BERT4RecConfig(**model),
        method=CCEConfig(**{"num_negatives": 15, "batch_size": 16, **own}),
        seed=1,
    )
    config.optimizer.sparse_rows = sparse_rows
    made = CCE(config)
    made.build(made.prepare(data or chain()))
    return made


def windows(lengths=(9, 4, 1, 6), width=L):
    """Returns inputs with masks at 0 and 3, and lengths."""
    lengths = torch.tensor(lengths)
    real = torch.arange(width) < lengths[:, None]
    inputs = torch.randint(0, V, real.shape, generator=torch.Generator().manual_seed(5))
    inputs[:, [0, 3]] = V
    return inputs.masked_fill(~real, 0), lengths


@pytest.mark.parametrize("norm", ["pre", "post", "sasrec"])
def test_every_position_sees_both_sides(norm):
    model = make(norm=norm)
    inputs, lengths = windows((9,))
    before = model(inputs, lengths)
    for at in (1, 8):
        changed = inputs.clone()
        changed[0, at] = (changed[0, at] + 1) % V
        assert (model(changed, lengths) != before).any(dim=-1).all()


def test_what_a_masked_item_was_changes_nothing():
    """Two datasets that differ in the masked items alone give the same inputs, and so the same states."""
    data, other = chain(seed=1), chain(seed=1)
    first = method(data)
    batch = first.batches(data).batch(0, 0, Share(), 0)
    hidden = torch.unique(batch.tensors["targets"][batch.tensors["targets"] != -100])
    flat = torch.arange(len(data.sequences.items))
    named = ClozeBatches(
        _with_items(data, flat), 16, L, "slide", 1, mask_token=10**6, **masking_of(first.config)
    ).batch(0, 0, Share(), 0)
    at = named.tensors["targets"][named.tensors["targets"] != -100]
    other.sequences.items[at.numpy()] = (other.sequences.items[at.numpy()] + 7) % V
    again = method(other).batches(other).batch(0, 0, Share(), 0)
    assert len(hidden) > 5
    assert not torch.equal(again.tensors["targets"], batch.tensors["targets"])
    for name in ("inputs", "lengths", "valid", "tokens"):
        assert torch.equal(again.tensors[name], batch.tensors[name])
    states = [first._rows(each).hidden for each in (batch, again)]
    assert torch.equal(*states)


def _with_items(data, items):
    """Returns the data with other items at the same places."""
    changed = chain(seed=1)
    object.__setattr__(changed.sequences, "items", items.numpy().astype("int32"))
    assert len(changed.sequences.items) == len(data.sequences.items)
    return changed


@pytest.mark.parametrize("packed", [True, False])
def test_padding_changes_neither_values_nor_gradients(packed):
    """What stands in it, and how much of it there is."""
    model = make(packed=packed)
    inputs, lengths = windows((5, 4, 1, 3), width=5)
    real = torch.arange(5) < lengths[:, None]
    wide = torch.full((4, L), 17)
    wide[:, :5] = torch.where(real, inputs, 11)
    results = []
    for given in (inputs, wide):
        model.zero_grad()
        tokens = (torch.arange(given.shape[1]) < lengths[:, None]).flatten().nonzero().flatten()
        states = model(given, lengths, tokens)
        (states.sin().sum() / 10).backward()
        results.append([states.detach(), *(p.grad.clone() for p in model.parameters())])
    for short, long in zip(*results, strict=True):
        torch.testing.assert_close(long, short, rtol=1e-5, atol=1e-5)


def test_packed_states_and_gradients_are_those_of_padded_windows():
    results = []
    for packed in (False, True):
        made = method(chain(num_users=30), {"packed": packed, "num_layers": 2})
        made.data.train_end[::3] -= 6
        results.append(gradients(made, [Share()]))
    (loss, grads), (packed_loss, packed_grads) = results
    assert packed_loss == pytest.approx(loss, rel=1e-5)
    for one, other in zip(grads, packed_grads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


def test_the_mask_is_no_row_of_the_item_table():
    model = make()
    assert model.mask_token == V
    assert model.item_embeddings.shape == (V, 16)
    inputs = torch.full((2, 3), V)
    model(inputs, torch.tensor([3, 2])).pow(2).sum().backward()
    assert not model.items.weight.grad.any()
    assert model.mask_vector.grad.any()


def test_losses_get_masked_rows_alone():
    made = method()
    batch = made.batches(made.data).batch(0, 0, Share(), 0)
    rows = made._rows(batch)
    masked = batch.tensors["targets"] != -100
    assert torch.equal(rows.targets, batch.tensors["targets"][masked])
    assert torch.equal(rows.lengths, masked.sum(1))
    whole = made.model(batch.tensors["inputs"], batch.tensors["lengths"])
    torch.testing.assert_close(rows.hidden, whole[masked], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_shares_of_a_step_add_up_to_the_whole(way):
    made = method(**WAYS[way])
    whole, whole_grads = gradients(made, [Share()])
    split, split_grads = gradients(
        made, [Share(rank, 3, micro, 2) for rank in range(3) for micro in range(2)]
    )
    assert split == pytest.approx(whole, rel=1e-5)
    for one, other in zip(whole_grads, split_grads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)


def test_gradients_of_rows_are_the_dense_ones_and_touch_no_other():
    dense, rows = (method(sparse_rows=on, sharing="tile", tile_rows=8) for on in (False, True))
    batch = dense.batches(dense.data).batch(0, 0, Share(), 0)
    for made in (dense, rows):
        made.loss(batch).backward()
    found = rows.model.items.weight.grad
    torch.testing.assert_close(found.to_dense(), dense.model.items.weight.grad, rtol=1e-4, atol=1e-6)
    padded = rows.model._look_up(torch.tensor([[5, V, 9, 0]]), torch.tensor([[True, True, True, False]]))
    rows.model.zero_grad()
    padded.sum().backward()
    assert set(rows.model.items.weight.grad._indices().flatten().tolist()) == {5, 9}


def test_ranking_puts_a_mask_behind_the_history():
    made = method(model={"init_std": 0.5})
    long = [i % V for i in range(30)]
    lists = [long, [7, 8], []]
    offsets = torch.tensor([0, 30, 32, 32])
    histories = Histories(torch.tensor([*long, 7, 8]), offsets)
    scores = made.scorer().score(torch.arange(3), histories)
    for row, items in enumerate(lists):
        read = [*items[-(L - 1) :], V]
        hidden = made.model(torch.tensor([read]), torch.tensor([len(read)]))[0, -1]
        torch.testing.assert_close(scores[row], made.model.item_embeddings @ hidden, rtol=1e-4, atol=1e-5)
    assert scores.shape == (3, V)


def test_initialisation_follows_the_settings():
    torch.manual_seed(0)
    model = BERT4Rec(4000, dim=64, init_std=0.5)
    assert model.mask_vector.std().item() == pytest.approx(0.5, rel=0.3)
    assert BERT4Rec(4000, dim=64, init_std=None).mask_vector.std().item() < 0.05
    assert not model.project.bias.any()
    assert torch.isfinite(model(torch.full((1, 4), 4000), torch.tensor([4]))).all()


def test_it_learns_a_markov_chain_that_popularity_cannot_see():
    data = chain(num_users=120, noise=0.05)
    made = method(data, {"norm": "pre", "dropout": 0.1}, loss="cce")
    batches, step = made.batches(data), 0
    optimizer = make_optimizer(made.model.parameters(), OptimizerConfig(lr=0.005))
    made.model.train()
    for epoch in range(25):
        for position in range(batches.steps_per_epoch):
            torch.manual_seed(step)
            optimizer.zero_grad()
            made.loss(batches.batch(epoch, position, Share(), step)).backward()
            optimizer.step()
            step += 1
    assert LENGTH > L
    assert ndcg(made.scorer(), data) > 2.5 * ndcg(Popularity(data), data)
