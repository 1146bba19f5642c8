"""What a dataset says of its items, and their tokens behind each other."""

import dataclasses

import numpy as np
import pytest
from synthetic_helpers import prepared, source_of

from effrec_cli.data.contents import Contents, contents_of
from effrec_cli.data.tokens import table_of
from effrec_cli.data.types import Catalogue
from effrec_cli.errors import DataError

ROWS = [np.array(row, np.int32) for row in ([3, 1, 2], [], [4], [0, 0, 5, 6])]


def test_a_table_holds_the_rows_it_was_made_of():
    table = table_of(ROWS, 7)
    assert len(table) == 4
    assert table.lengths.tolist() == [3, 0, 1, 4]
    assert [table.of(item).tolist() for item in range(4)] == [row.tolist() for row in ROWS]
    assert (table.tokens.dtype, table.offsets.dtype) == (np.int32, np.int64)
    assert len(table_of([], 7)) == 0


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_cutting_keeps_the_first_tokens_of_each_item(most):
    table = table_of(ROWS, 7, pad=6).cut(most)
    assert [table.of(item).tolist() for item in range(4)] == [row[:most].tolist() for row in ROWS]
    assert (table.num_words, table.pad) == (7, 6)


def test_a_table_that_nothing_is_cut_from_is_not_copied():
    table = table_of(ROWS, 7)
    assert table.cut(4) is table


def test_a_simulated_dataset_says_texts_tokens_and_images():
    source = source_of(num_users=60, num_items=40, side=["text", "images"])
    data = prepared(source)
    titles = source.titles(data.items.ids)
    data = dataclasses.replace(data, items=Catalogue(data.items.ids, titles), side=source.side(data))
    contents = contents_of(data)
    assert len(contents) == data.num_items == len(contents.images) == len(contents.tokens)
    vocabulary = data.side["item_vocabulary"]
    assert contents.tokens.num_words == len(vocabulary)
    assert " ".join(vocabulary[contents.tokens.of(5)]) == contents.texts[5]


def test_a_dataset_that_says_nothing_of_its_items_is_refused_by_name():
    data = prepared(source_of(num_users=60, num_items=40, side=[]))
    assert len(Contents()) == 0
    with pytest.raises(DataError, match=f"Dataset '{data.name}' says nothing of its items"):
        contents_of(dataclasses.replace(data, items=Catalogue(data.items.ids), side={}))
