"""Plain tables and sizes."""

import pytest

from effrec_cli.screen import size, table


def test_columns_align_and_numbers_go_right():
    assert table(("name", "n", "score"), [("a", 5, 0.25), ("long", 12, None)]) == (
        "name   n   score\na      5  0.2500\nlong  12       -"
    )


def test_no_rows_leave_the_header():
    assert table(("a", "b"), []) == "a  b"


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 << 20, "1.5 GiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes(num_bytes, shown):
    assert size(num_bytes) == shown
