"""What datasets know of users and items, as a network reads it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pair_helpers import data_of, random_data, side_of

from effrec_cli.data.attributes import attributes_of, nothing_known
from effrec_cli.data.text_vectors import text_vectors
from effrec_cli.data.types import Catalogue
from effrec_cli.methods.top_n.network import table_of
from effrec_cli.models.attributes import Joined


def test_numbers_are_scaled_by_who_stands_in_training_rows_alone():
    side = {"user_features": np.array([[1.0], [3.0], [100.0]], np.float32)}
    side["item_features"] = np.array([[0.0], [4.0], [8.0], [-50.0]], np.float32)
    data = data_of([[0, 0, 0, 1, 3], [1, 2, 3], [3]], num_items=4, side=side, held=1)
    users, items = attributes_of(data)
    np.testing.assert_allclose(users.dense[:, 0], [-1, 1, 98], rtol=1e-6)
    sd = np.std([0, 4, 8])
    np.testing.assert_allclose(items.dense[:, 0], (np.array([0, 4, 8, -50]) - 4) / sd, rtol=1e-6)


def test_what_is_missing_is_the_mean_and_says_so_and_an_unknown_category_is_one_of_its_own():
    side = {
        "user_age": np.array([10, 20, -1], np.int16),
        "user_gender": np.array([1, -1, 0], np.int8),
        "item_features": np.array([[1.0, np.nan], [2.0, 5.0]], np.float32),
    }
    users, items = attributes_of(data_of([[0], [1], [1]], num_items=2, side=side))
    assert users.dense.tolist() == [[-1, 0], [1, 0], [0, 1]]
    assert items.dense.tolist() == [[-1, 0, 1], [1, 0, 0]]
    assert users.categories.tolist() == [[2], [0], [1]]
    assert users.cardinalities.tolist() == [3]


def test_a_constant_column_is_no_division_by_zero():
    side = {"user_features": np.full((2, 1), 7.0, np.float32)}
    users, _ = attributes_of(data_of([[0], [0]], num_items=1, side=side))
    assert users.dense.tolist() == [[0], [0]]


def test_only_the_kinds_asked_for_are_read():
    data = random_data(side=side_of())
    users, items = attributes_of(data, ("flags",))
    assert users.dense.shape == (40, 0)
    assert users.categories.shape == (40, 0)
    assert items.flags.shape == (30, 6)
    assert items.texts.shape == (30, 0)
    assert np.array_equal(items.flags, data.side["item_genres"])
    assert len(nothing_known(9)) == 9


def test_items_of_the_same_words_have_like_vectors_from_tokens_and_from_titles():
    topics = [["river", "lake", "sea"], ["engine", "wheel", "brake"]]
    titles = np.array([" ".join(np.roll(topics[n % 2], n)[:2]) for n in range(20)])
    data = replace(random_data(num_items=20, longest=9), items=Catalogue(np.arange(20), titles))
    vectors = text_vectors(data, 2)
    assert vectors.dtype == np.float32
    assert vectors.std() == pytest.approx(1, rel=1e-3)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    same = np.arange(20)[:, None] % 2 == np.arange(20) % 2
    assert alike[same].min() > 0.9
    assert abs(alike[~same]).max() < 0.1
    assert np.array_equal(vectors, text_vectors(data, 2))


def test_an_item_without_words_has_zeros_and_no_texts_no_vectors():
    data = random_data(num_items=3, longest=3)
    titled = replace(data, items=Catalogue(np.arange(3), np.array(["a b", "", "b c"])))
    found = text_vectors(titled, 8)
    assert found.shape == (3, 3)
    assert not found[1].any()
    assert found[0].any()
    assert text_vectors(data, 8).shape == (3, 0)


def test_a_network_reads_all_columns_and_nothing_of_who_is_unknown():
    data = random_data(side=side_of())
    users, items = (Joined(table_of(each), 3) for each in attributes_of(data, text_dim=4))
    assert users.width == 4 + 1 + 1 + 3
    assert items.width == 3 + 6 + 4 + 2 * 3
    read = items(torch.tensor([[4, 9]]))
    assert read.shape == (1, 2, items.width)
    assert torch.equal(read[0, 1, 3:9], torch.from_numpy(data.side["item_genres"][9]).float())
    unknown = users(torch.tensor([-1]))[0]
    assert not unknown[:6].any()
    assert torch.equal(unknown[6:], users.embeddings[0].weight[0])
