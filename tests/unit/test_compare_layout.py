"""Tables on narrow, plain and colourless screens, and numbers as text."""

import io
import re

import pytest
from compare_helpers import leave_run, make_cost, make_result
from hypothesis import given
from hypothesis import strategies as st

from effrec_cli.report import figures, layout
from effrec_cli.report.board import board_table
from effrec_cli.report.compare import compare
from effrec_cli.report.layout import Column, Table
from effrec_cli.report.tables import cost_table, metrics_table, print_result

TABLE = Table(
    "runs ± spread",
    [Column("name", right=False, importance=9), Column("score", importance=5), Column("extra", importance=1)],
    [["first", "0.10", "x" * 30], ["second one", "0.2", "y"]],
    best={(1, 1)},
    notes=["a note"],
)


@pytest.fixture(autouse=True)
def no_width(monkeypatch):
    """A width in the developer's shell would narrow the tables."""
    monkeypatch.delenv("COLUMNS", raising=False)


def test_plain_text_is_aligned_and_undrawn():
    assert layout.as_text(TABLE).splitlines() == [
        "runs ± spread",
        "name        score                           extra",
        "first        0.10  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "second one   0.2*                               y",
        "a note",
        "* the best of its column",
    ]


def test_markdown_aligns_numbers_to_the_right():
    lines = layout.as_markdown(TABLE).splitlines()
    assert lines[0] == "**runs ± spread**"
    assert lines[3] == "| --- | ---: | ---: |"
    assert lines[5] == "| second one | **0.2** | y |"
    assert lines[6:] == ["", "- a note", "- bold: the best of its column"], "no star is there to explain"


def test_narrow_terminal_loses_the_least_important_columns_and_says_so():
    narrow = layout.fitting(TABLE, 30)
    assert [column.header for column in narrow.columns] == ["name", "score"]
    assert narrow.best == {(1, 1)}
    assert "extra" in narrow.notes[-1]
    assert layout.fitting(TABLE, 200) == TABLE


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_leaderboard_fits_a_terminal_of_any_usual_width(monkeypatch, tmp_path, width, terminal):
    for at, loss in enumerate(("cce_sampled", "ce")):
        found = make_result(0.1 + at / 10, loss=loss, ceiling={"ndcg@10": 0.4}, run={"max_epochs": 10**at})
        leave_run(tmp_path / str(at), found)
    (board,) = compare([tmp_path]).boards
    screen = Screen(terminal=terminal)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", str(width))
    layout.print_table(board_table(board))
    lines = screen.getvalue().splitlines()
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in lines) <= width
    text = " ".join(lines)
    for whole in ("0.2000*", "0.1000", "method", "ndcg@10"):
        assert whole in text
    assert ("Too narrow" in text) == (width <= 120)


class Screen(io.StringIO):
    def __init__(self, encoding="utf-8", terminal=True):
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    encoding = property(lambda self: self._encoding)

    def isatty(self):
        return self._terminal


@pytest.mark.parametrize("no_color", [True, False])
def test_terminal_output_fits_and_honours_no_color(monkeypatch, no_color):
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", "44")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    layout.print_table(TABLE)
    text = screen.getvalue()
    assert "second one" in text
    assert "extra" not in text.splitlines()[1]
    assert ("\x1b[1;32m" in text) is not no_color


@pytest.mark.parametrize("columns", ["", "0", "wide"])
def test_columns_that_is_no_width_narrows_nothing(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    layout.print_table(TABLE)
    assert capsys.readouterr().out == layout.as_text(TABLE) + "\n"


@pytest.mark.parametrize("columns", ["", "44"])
def test_output_without_unicode_gets_plain_signs(monkeypatch, columns):
    screen = Screen("ascii", terminal=False)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("COLUMNS", columns)
    layout.print_table(TABLE)
    assert screen.getvalue().startswith("runs +- spread")
    layout.say(figures.sparkline([0, 1, 2]))
    assert screen.getvalue().isascii()


def test_end_of_a_run_shows_quality_cost_and_what_next(capsys, tmp_path):
    found = make_result(0.1, loss="cce_sampled", ceiling={"ndcg@10": 0.4})
    print_result(found, tmp_path / "mine")
    out = capsys.readouterr().out
    assert "cce cce_sampled · sasrec · toy · seed 1 · a CPU · fp32" in out
    assert "0.1000" in out
    assert "25.0 %" in out
    assert "median of 2, the first left out" in out
    assert out.count("of ceiling") == 1
    assert f"effrec compare {tmp_path}" in out
    assert "energy" not in out, "not measured, so not shown"


def test_metrics_stand_by_cut_off_and_those_without_one_apart():
    found = make_result(metrics={"test": {"ndcg@5": 0.1, "ndcg@10": 0.2, "auc": 0.7}})
    table = metrics_table(found)
    assert [column.header for column in table.columns] == ["test", "value", "@5", "@10"]
    assert table.rows == [["ndcg", "-", "0.1000", "0.2000"], ["auc", "0.7000", "-", "-"]]


def test_only_epoch_is_said_to_include_the_warm_up():
    found = make_result(cost=make_cost(epochs=1, first_epoch_counted=True, joules=5200.0))
    rows = {row[0]: row[1:] for row in cost_table(found).rows}
    assert rows["time of an epoch"][1] == "the only one, warm-up included"
    assert rows["energy"][0] == "5.20 kJ"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.00123, "1.23 ms"), (0, "0 ms"), (1.5, "1.50 s"), (61, "1.02 min"), (7380, "2.05 h"), (None, "-")],
)
def test_seconds_take_the_unit_that_suits(value, text):
    assert figures.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (999, "999"), (4_113_877, "4.11 M"), (1.5e9, "1.50 G"), (None, "-")]
)
def test_counts_take_the_unit_that_suits(value, text):
    assert figures.count(value) == text


def test_deviation_needs_two():
    assert figures.deviation([1.0, None]) is None
    assert figures.deviation([1.0, 3.0]) == pytest.approx(2**0.5)
    assert figures.mean([None]) is None
    assert figures.score(0.5, None) == "0.5000"


@given(st.lists(st.floats(-1e6, 1e6), max_size=200), st.integers(2, 60))
def test_sparkline_is_never_longer_than_asked_and_shows_the_extremes(values, width):
    line = figures.sparkline(values, width)
    assert len(line) == min(len(values), width)
    if len(values) <= width and len(set(values)) > 1:
        assert line[values.index(max(values))] == "█"
        assert line[values.index(min(values))] == "▁"
