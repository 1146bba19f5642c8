from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from ranking_helpers import make_data, settings

from effrec_cli.errors import ConfigError, OutOfMemoryError
from effrec_cli.evaluation.blocks import rows_of
from effrec_cli.evaluation.model_size import count_parameters
from effrec_cli.evaluation.ranking import rank_cases
from effrec_cli.evaluation.scorer import Histories
from effrec_cli.evaluation.votes import voters
from effrec_cli.methods import ease, itemknn
from effrec_cli.methods.ease import EASE
from effrec_cli.methods.itemknn import ItemKNN
from effrec_cli.methods.pop import Popularity
from effrec_cli.models.none import NoModel
from effrec_cli.schema import Config
from effrec_cli.schema.method_ease import EASEConfig
from effrec_cli.schema.method_itemknn import ItemKNNConfig
from effrec_cli.schema.method_pop import PopularityConfig
from effrec_cli.schema.model_none import NoModelConfig

ENGINE = SimpleNamespace(world=SimpleNamespace(device=torch.device("cpu")))
METHODS = [(Popularity, PopularityConfig()), (ItemKNN, ItemKNNConfig()), (EASE, EASEConfig())]


def fitted(kind, method_settings, data):
    method = kind(Config(method=method_settings, model=NoModelConfig()))
    method.prepare(data)
    method.build(data)
    method.fit(ENGINE)
    return method


def histories(*lists):
    items = torch.tensor([item for each in lists for item in each], dtype=torch.int64)
    return Histories(items, torch.tensor([0, *np.cumsum([len(each) for each in lists])]))


def score(method, *lists):
    return method.scorer().score(torch.arange(len(lists)), histories(*lists))


def random_data(seed=0, num_users=40, num_items=25):
    draw = np.random.default_rng(seed)
    lists = [draw.integers(0, num_items, draw.integers(1, 15)).tolist() for _ in range(num_users)]
    return make_data(lists, [[int(draw.integers(num_items))] for _ in lists], num_items)


def dense_training_matrix(data):
    matrix = np.zeros((data.num_users, data.num_items))
    for user in range(data.num_users):
        matrix[user, data.train_items(user)] = 1
    return matrix


def test_pop_scores_training_rows_and_nothing_held_out():
    method = fitted(Popularity, PopularityConfig(), make_data([[0, 0, 1], [1], [1]], [[2], [2], [2]], 4))
    assert score(method, [3], []).tolist() == [[2, 3, 0, 0]] * 2


def test_pop_counts_beyond_float32_stay_exact():
    data = make_data([[0]], [[1]], 2)
    method = fitted(Popularity, PopularityConfig(), data)
    many = SimpleNamespace(train_counts=lambda: np.array([2**24, 2**24 + 1]))
    method.data = many
    method.fit(ENGINE)
    assert score(method, []).tolist() == [[2**24, 2**24 + 1]]


@pytest.mark.parametrize("last", [None, 3])
def test_itemknn_equals_the_definition(last):
    data = random_data()
    method = fitted(ItemKNN, ItemKNNConfig(num_neighbors=4, shrink=1.5, last=last), data)
    matrix = dense_training_matrix(data)
    counts = matrix.T @ matrix
    norms = np.sqrt(np.diag(counts))
    similarity = counts / (np.outer(norms, norms) + 1.5)
    np.fill_diagonal(similarity, 0)
    history = [3, 7, 7, 11, 2, 9]
    found = score(method, history)[0].numpy()
    voting = set(history if last is None else history[-last:])
    for item in range(data.num_items):
        # Which of several neighbours of equal similarity is kept does not change the kept similarities.
        nearest = np.sort(similarity[item])[::-1][:4]
        sure = [v for v in voting if similarity[item, v] > nearest[-1]]
        unsure = [v for v in voting if similarity[item, v] == nearest[-1] > 0]
        low = similarity[item, sure].sum()
        assert low - 1e-5 <= found[item] <= low + len(unsure) * nearest[-1] + 1e-5


def test_itemknn_blocks_of_items_and_of_votes_change_nothing(monkeypatch):
    data = random_data()
    whole = fitted(ItemKNN, ItemKNNConfig(num_neighbors=5), data)
    small = itemknn.cooccurrences
    monkeypatch.setattr(itemknn, "cooccurrences", lambda matrix: small(matrix, block_bytes=12 * 25 * 4))
    monkeypatch.setattr(itemknn, "_VOTES", 8)
    parts = fitted(ItemKNN, ItemKNNConfig(num_neighbors=5), data)
    lists = [[0, 4, 9], [], [24, 1, 1, 17]]
    assert torch.allclose(score(whole, *lists), score(parts, *lists), atol=1e-6)
    assert score(whole, *lists)[1].count_nonzero() == 0


@pytest.mark.parametrize("last", [None, 2])
def test_ease_equals_the_closed_form(last):
    data = random_data()
    method = fitted(EASE, EASEConfig(l2=7.0, last=last), data)
    matrix = dense_training_matrix(data)
    inverse = np.linalg.inv(matrix.T @ matrix + 7.0 * np.eye(data.num_items))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    history = [5, 5, 8, 20]
    chosen = np.zeros(data.num_items)
    chosen[history if last is None else history[-last:]] = 1
    assert np.allclose(score(method, [], history)[1].numpy(), chosen @ weights, atol=1e-5)
    assert score(method, [], history)[0].count_nonzero() == 0


def test_ease_weights_are_the_ridge_regression_of_each_item_on_the_others():
    data = random_data(seed=3)
    weights = ease.solve(ease.gram_matrix(data, torch.device("cpu")), 2.0).double().numpy()
    matrix = dense_training_matrix(data)
    for item in (0, 13):
        others = np.arange(data.num_items) != item
        inputs = matrix[:, others]
        answer = np.linalg.solve(inputs.T @ inputs + 2.0 * np.eye(others.sum()), inputs.T @ matrix[:, item])
        assert np.allclose(weights[others, item], answer, atol=1e-5)


def test_ease_refuses_large_catalogues_and_says_what_they_need():
    method = EASE(Config(method=EASEConfig(max_items=20), model=NoModelConfig()))
    with pytest.raises(ConfigError, match="GiB") as caught:
        method.build(random_data())
    assert "method.max_items=25" in caught.value.fix
    assert caught.value.where == "method.max_items=20"


def test_ease_refuses_what_free_memory_cannot_hold(monkeypatch):
    monkeypatch.setattr(ease, "free_bytes", lambda device: 1000)
    with pytest.raises(OutOfMemoryError, match="25 items"):
        fitted(EASE, EASEConfig(), random_data())


def test_ease_refuses_a_ridge_that_vanishes():
    with pytest.raises(ConfigError, match="cannot be inverted"):
        ease.solve(torch.ones(30, 30, dtype=torch.float64) * 1e9, 1e-9)


@pytest.mark.parametrize(("kind", "method_settings"), METHODS)
def test_a_saved_model_scores_the_same_without_its_data(kind, method_settings):
    data = random_data()
    method = fitted(kind, method_settings, data)
    again = kind(Config(method=method_settings, model=NoModelConfig()))
    again.build(data)
    again.load_state_dict(method.state_dict())
    lists = [[1, 2, 3], [], [20]]
    assert torch.equal(score(method, *lists), score(again, *lists))
    assert again.scorer().num_items == data.num_items


@pytest.mark.parametrize(("kind", "method_settings"), METHODS)
def test_every_baseline_ranks_and_owns_its_scores(kind, method_settings):
    data = random_data()
    method = fitted(kind, method_settings, data)
    found = rank_cases(method.scorer(), data, data.test, settings((5,)))
    assert 0 <= found["ndcg@5"] <= 1
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    scores = score(method, [1, 2])
    scores.fill_(-1)
    assert all(torch.equal(before[name], tensor) for name, tensor in method.state_dict().items())


def test_parameters_are_counted_and_none_is_trainable():
    data = random_data()
    linear = count_parameters(fitted(EASE, EASEConfig(), data).model)
    assert (linear.all, linear.trainable) == (25 * 25, 0)
    assert linear.nonzero == 25 * 24
    knn = fitted(ItemKNN, ItemKNNConfig(num_neighbors=3), data).model
    assert count_parameters(knn).all == len(knn.state_dict()["weights"]) <= 75


def test_what_a_holder_held_before_is_forgotten():
    model = NoModel()
    model.hold({"a": torch.ones(2), "b": torch.ones(2, dtype=torch.int64)})
    model.hold({"c": torch.zeros(3)})
    assert set(model.state_dict()) == {"c"}
    assert not model.get_parameter("c").requires_grad


def test_a_network_is_refused():
    method = Popularity(Config(method=PopularityConfig(), model=SimpleNamespace(name="sasrec")))
    with pytest.raises(ConfigError, match="cannot be trained on task 'none'"):
        method.build(random_data())


lists_of_items = st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=5)


@given(lists=lists_of_items, last=st.one_of(st.none(), st.integers(1, 9)))
@hypothesis_settings(max_examples=100, deadline=None)
def test_voters_are_the_distinct_last_items(lists, last):
    found = voters(histories(*lists), 10, last)
    rows = rows_of(found)
    assert len(found) == len(lists)
    for row, items in enumerate(lists):
        assert found.items[rows == row].tolist() == sorted(set(items if last is None else items[-last:]))
