"""Method cadc with factors of the rows that it does not train on, and with users made of their histories."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cadc_helpers import held_out, method_on, stepped, with_side

from effrec_cli import compose
from effrec_cli.data.sampling.sample import sample_and_rest
from effrec_cli.errors import ConfigError, OutOfMemoryError
from effrec_cli.evaluation.blocks import flat_ranges, make_block
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.loop.outofmemory import explained
from effrec_cli.methods.cadc import CADC
from effrec_cli.methods.factors import start
from effrec_cli.schema.sample import SampleConfig

CPU = torch.device("cpu")
MODES = ("uniform", "exact", "per_user", "per_item", "temporal", "head", "propensity")
FOLDED = "method.users=fold_in"


def pairs_of(data):
    """Returns who met what in training, sorted."""
    positions, users = flat_ranges(data.train_start, data.train_end)
    return sorted(zip(users.tolist(), data.sequences.items[positions].tolist(), strict=True))


def histories_of(data):
    """Returns the users of the test cases and their histories."""
    block = make_block(data, data.test, slice(None), CPU)
    return block.users, block.histories


@pytest.mark.parametrize("mode", MODES)
def test_what_a_sample_leaves_is_all_that_it_does_not_keep(mode):
    data = held_out()
    kept, left = sample_and_rest(data, SampleConfig(rate=0.3, mode=mode))
    assert pairs_of(kept)
    assert sorted(pairs_of(kept) + pairs_of(left)) == pairs_of(data)
    assert left.train_weights is None
    assert left.content_hash not in (kept.content_hash, data.content_hash)


def test_the_rest_is_factorised_without_a_row_that_trains(tmp_path, monkeypatch):
    read = []
    fitted = start.kept_factors

    def watched(settings, data, *rest, **more):
        read.append(pairs_of(data))
        return fitted(settings, data, *rest, **more)

    monkeypatch.setattr(start, "kept_factors", watched)
    data = held_out()
    digests = set()
    for factorise in ("auto", "all", "rest"):
        method, _ = method_on(data, tmp_path, f"method.factorise={factorise}")
        digests.add(method.cache_id)
        trained = pairs_of(method.data)
    assert read[0] == read[1] == pairs_of(data), "all of them, as published, unless told otherwise"
    assert sorted(read[2] + trained) == pairs_of(data)
    assert not set(read[2]) & set(trained)
    assert len(digests) == 2, "kept under another name"


@pytest.mark.parametrize("model", ["two_tower", "neumf", "dlrm"])
def test_users_are_made_of_their_histories_and_keep_their_attributes(model, tmp_path):
    """A known user with another history has the network's scores for the vector of that history."""
    method, batches = method_on(with_side(), tmp_path, f"model={model}", FOLDED)
    stepped(method, batches, 3)
    users, histories = histories_of(method.data)
    own = method.scorer().score(users, histories)
    folded = method._factors.fold_in(histories.offsets, histories.items)
    with torch.no_grad():
        method.model.users.table.copy_(folded * method.model.users.scale)
        method.model.users.fold_all = False
    torch.testing.assert_close(method.scorer().score(users, histories), own, rtol=1e-4, atol=1e-5)
    unknown = method.scorer().score(torch.full_like(users, -1), histories)
    assert not torch.allclose(unknown, own, rtol=1e-3), "of an unknown user no attribute is known"


def test_concat_keeps_the_vector_that_trains_beside(tmp_path):
    method, batches = method_on(held_out(), tmp_path, "method.embedding=concat", FOLDED)
    stepped(method, batches, 3)
    rows, folded = torch.tensor([3, -1]), torch.randn(2, 8)
    found = method.model.users(rows, folded).detach()
    torch.testing.assert_close(found[:, :8], (folded * method.model.users.scale).float())
    assert torch.equal(found[0, 8:], method.model.users.own[3])
    assert not found[1, 8:].any()


def test_only_the_end_of_a_history_is_folded_in_where_it_is_asked_for(tmp_path):
    method, _ = method_on(held_out(), tmp_path, FOLDED, "method.last=2")
    long = Histories(torch.tensor([4, 9, 2, 7, 1]), torch.tensor([0, 4, 5]))
    short = Histories(torch.tensor([2, 7, 1]), torch.tensor([0, 2, 3]))
    users = torch.tensor([0, 1])
    assert torch.equal(method.scorer().score(users, long), method.scorer().score(users, short))
    assert not torch.equal(method.scorer().score(users, long)[0], method.scorer().score(users, short)[1])


def test_training_reads_the_stored_vectors_whatever_scoring_reads(tmp_path):
    """So folding in changes no weight, and a run may be scored either way."""
    weights = []
    for words in ([], [FOLDED]):
        method, batches = method_on(held_out(), tmp_path, "method.factorise=rest", *words)
        stepped(method, batches, 4)
        weights.append(torch.cat([each.detach().ravel() for each in method.model.parameters()]))
    assert torch.equal(*weights)


def test_residual_towers_over_the_rest_start_at_what_folding_in_ranks(tmp_path):
    words = ["method.embedding=residual", "method.factorise=rest", FOLDED]
    method, _ = method_on(with_side(), tmp_path, *words)
    users, histories = histories_of(method.data)
    factors = method._factors
    own = factors.fold_in(histories.offsets, histories.items) @ factors.items.T
    assert np.array_equal(method.scorer().score(users, histories).topk(10).indices, own.topk(10).indices)


@pytest.mark.parametrize(
    ("words", "where", "fix"),
    [
        (["method.factorise=rest", "method.sample.rate=1"], "method.factorise", "method.sample.rate=0.5"),
        (
            ["method.factorise=rest", "method.sample.mode=user"],
            "method.factorise",
            "method.sample.mode=uniform",
        ),
        (["method.factorise=rest", "method.embedding=rand"], "method.factorise", "method.embedding="),
        (["method.users=fold_in", "method.embedding=init_upd"], "method.users", "method.embedding=init_frz"),
        (["method.users=fold_in", "method.embedding=rand"], "method.users", "method.embedding=init_frz"),
        (["method.last=3"], "method.last", "method.users=fold_in"),
        (["method.users=fold_in", "method.task=ctr", "model=dlrm"], "method.users", "leave method.users out"),
    ],
)
def test_what_would_do_nothing_is_refused(words, where, fix):
    with pytest.raises(ConfigError) as refusal:
        compose.compose(["method=cadc", *words])
    assert refusal.value.where == where
    assert fix in (refusal.value.fix or "")


def test_users_whose_vector_is_zero_are_folded_in_and_keep_their_attributes(tmp_path):
    """As of `split.kind=global_time`: users to judge by who have no training row."""
    whole = with_side()
    nobody = np.isin(np.arange(40), [3, 11])
    data = replace(whole, train_end=np.where(nobody, whole.train_start, whole.train_end))
    method, batches = method_on(data, tmp_path, "method.embedding=residual")
    users, histories = histories_of(method.data)
    factors = method._factors
    assert not factors.users[nobody].any()
    folded = factors.fold_in(histories.offsets, histories.items)
    own = torch.where(torch.from_numpy(nobody)[:, None], folded, factors.users) @ factors.items.T
    assert torch.equal(method.scorer().score(users, histories).topk(10).indices, own.topk(10).indices)
    stepped(method, batches, 5)
    unknown = method.scorer().score(torch.full_like(users, -1), histories)
    assert not torch.allclose(method.scorer().score(users, histories)[3], unknown[3], rtol=1e-3)


def test_folding_in_by_bpr_goes_by_the_user_alone(tmp_path):
    method, _ = method_on(held_out(), tmp_path, FOLDED, "method.factors.kind=bpr")
    items, offsets = torch.tensor([4, 9, 2, 7, 1]), torch.tensor([0, 3, 5])
    together = method._factors.fold_in(offsets, items)
    alone = method._factors.fold_in(torch.tensor([0, 2]), items[3:])
    torch.testing.assert_close(together[1:], alone)


def test_a_reopened_run_makes_users_of_their_histories_still(tmp_path):
    method, batches = method_on(held_out(), tmp_path, FOLDED)
    stepped(method, batches, 2)
    opened = CADC(method.config)
    opened.rehearses = True
    opened.data = opened.prepare(held_out())
    opened.model = opened.build(opened.data)
    opened.load_state_dict(method.state_dict())
    users, histories = histories_of(method.data)
    torch.testing.assert_close(
        opened.scorer().score(users, histories), method.scorer().score(users, histories)
    )


def test_the_factorisation_is_fitted_as_the_run_is_seeded_and_judged(tmp_path, monkeypatch):
    asked = []
    fitted = start.kept_factors

    def watched(*given, **more):
        asked.append(more)
        return fitted(*given, **more)

    monkeypatch.setattr(start, "kept_factors", watched)
    words = ["evaluation.monitor=hr@5", "evaluation.seen=keep"]
    method_on(held_out(), tmp_path, *words, seed=7)
    assert (asked[0]["seed"], asked[0]["monitor"]) == (7, "hr@5")
    assert asked[0]["evaluation"].seen == "keep"


def test_a_sample_that_leaves_nothing_to_factorise_says_so(tmp_path):
    words = ["method.factorise=rest", "method.sample.mode=exact", "method.sample.rate=0.999"]
    with pytest.raises(ConfigError, match="none is left to factorise") as refusal:
        method_on(held_out(num_users=4), tmp_path, *words)
    assert "method.sample.rate" in refusal.value.where


def test_running_out_of_memory_while_factorising_names_what_helps(tmp_path, monkeypatch):
    def too_much(*_, **__):
        raise MemoryError

    monkeypatch.setattr(start, "kept_factors", too_much)
    words = ["method=cadc", f"data_root={tmp_path}", "run.device=cpu", "method.factors.chunk_mib=8"]
    method = CADC(compose.compose(words))
    assert "run.accumulate" in method.relief()[0]
    with pytest.raises(OutOfMemoryError, match="while factorising") as refusal, explained(method, CPU):
        method.prepare(held_out())
    assert "method.factors.chunk_mib=4 " in refusal.value.fix
    assert "method.factors.dim" in refusal.value.fix
