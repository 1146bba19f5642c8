"""The name that was meant."""

import pytest

from effrec_cli.errors import nearest_name

ITEMS = [f"i{number:03}" for number in range(200)]


@pytest.mark.parametrize(
    ("given", "candidates", "nearest"),
    [
        ("sasrek", ["bert4rec", "sasrec"], "sasrec"),
        # As alike by their letters are i030 and i100, which begin otherwise.
        ("i00z", ITEMS[::-1], "i009"),
        ("i1077", ITEMS, "i107"),
        ("nothing", ["sasrec"], None),
        ("a", [], None),
    ],
)
def test_the_nearest_name_is_the_one_most_alike_from_its_beginning(given, candidates, nearest):
    assert nearest_name(given, candidates) == nearest
