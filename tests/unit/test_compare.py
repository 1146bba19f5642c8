"""The leaderboard: what stands on one line, what in one table, and what is said about the rest."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from compare_helpers import PROTOCOL, leave_run, make_cost, make_result

from effrec_cli.commands.compare import main
from effrec_cli.errors import ConfigError
from effrec_cli.report.board import board_table
from effrec_cli.report.compare import compare
from effrec_cli.report.layout import Column, Table, as_markdown


@pytest.fixture(autouse=True)
def no_width(monkeypatch):
    """A width in the developer's shell would narrow the tables."""
    monkeypatch.delenv("COLUMNS", raising=False)


def boards(folder, results, **options):
    for at, found in enumerate(results):
        leave_run(folder / f"run{at}", found)
    return compare([folder], **options).boards


def test_seeds_share_a_line_with_mean_and_deviation(tmp_path):
    (board,) = boards(tmp_path, [make_result(0.1, seed=1), make_result(0.3, seed=2)])
    (entry,) = board.entries
    assert entry.seeds == [1, 2]
    assert entry.scores("ndcg@10") == [0.1, 0.3]
    assert board_table(board).rows[0][4] == "0.2000 ± 0.1414"


def test_per_run_gives_each_its_line(tmp_path):
    (board,) = boards(tmp_path, [make_result(0.1, seed=1), make_result(0.3, seed=2)], per_run=True)
    assert [entry.seeds for entry in board.entries] == [[2], [1]]


def test_where_it_ran_and_how_often_it_logged_does_not_split_a_line(tmp_path):
    second = make_result(0.2, seed=2, run={"log_every": 7, "resume": "auto", "device": "cpu"})
    (board,) = boards(tmp_path, [make_result(0.1), second])
    assert len(board.entries) == 1


def test_differing_settings_are_shown_and_no_others(tmp_path):
    results = [make_result(0.1), make_result(0.2, run={"max_epochs": 9}), make_result(0.3, loss="cce")]
    (board,) = boards(tmp_path, results)
    shown = [row[2] for row in board_table(board).rows]
    assert shown == ["cce max_epochs=3", "ce max_epochs=9", "ce max_epochs=3"]


def test_another_optimizer_or_encoder_is_another_line(tmp_path):
    results = [make_result(0.1), make_result(0.2)]
    results[1].config["optimizer"]["name"] = "sgd"
    (board,) = boards(tmp_path / "optimizers", results)
    assert [row[2] for row in board_table(board).rows] == ["ce optimizer=sgd", "ce optimizer=adam"]
    results = [make_result(0.1, method="gram"), make_result(0.2, method="gram")]
    for found, name in zip(results, ("models/small", None), strict=True):
        found.config["method"]["encoder"] = {"name": name}
    (board,) = boards(tmp_path / "encoders", results)
    assert [row[2] for row in board_table(board).rows] == ["encoder=null", "encoder=models/small"]


def test_settings_of_another_method_are_no_difference(tmp_path):
    pop = make_result(0.05, method="pop", model="none", run={"max_epochs": 50})
    (board,) = boards(tmp_path, [make_result(0.1), pop])
    assert [entry.settings for entry in board.entries] == [{"method.loss": "ce"}, {}]


def test_lines_are_sorted_by_the_metric_and_missing_ones_come_last(tmp_path):
    results = [
        make_result(0.1, loss="ce"),
        make_result(0.3, loss="cce", metrics={"test": {"hr@10": 0.2}}),
        make_result(0.2, loss="bce"),
    ]
    (board,) = boards(tmp_path, results)
    assert [entry.first.config["method"]["loss"] for entry in board.entries] == ["bce", "ce", "cce"]
    (board,) = compare([tmp_path], "hr@10").boards
    assert [entry.first.config["method"]["loss"] for entry in board.entries] == ["bce", "ce", "cce"]
    assert board.metric == "hr@10"


def test_unknown_metric_names_the_nearest(tmp_path):
    leave_run(tmp_path / "a", make_result())
    with pytest.raises(ConfigError) as caught:
        compare([tmp_path], "ndgc@10")
    assert caught.value.nearest == "ndcg@10"


def test_each_dataset_and_protocol_has_a_table_of_its_own(tmp_path):
    other_data = make_result(dataset={"name": "toy", "hash": "ffff"})
    other_rule = make_result(protocol={**PROTOCOL, "seen": "keep"})
    more_cut_offs = make_result(0.2, loss="cce", protocol={**PROTOCOL, "ks": [5, 10]})
    found = boards(tmp_path, [make_result(), other_data, other_rule, more_cut_offs])
    assert [len(board.entries) for board in found] == [2, 1, 1], "other cut-offs change no metric's meaning"


# papers/iisan section 3, second worked example, in MB.
PAPER = {"ce": (443, 194_897_216, 47000), "bce": (350, 4_965_440, 37000), "cce": (22, 4_113_877, 3000)}


def paper_results(**more):
    yield from (
        make_result(0.1, loss=loss, cost=make_cost(seconds, parameters, memory), **more)
        for loss, (seconds, parameters, memory) in PAPER.items()
    )
    yield make_result(0.1, loss="gbce", cost=make_cost(380, 833_600, 39000))


def test_tpme_of_the_papers_example(tmp_path):
    (board,) = boards(tmp_path, paper_results())
    values = {entry.first.config["method"]["loss"]: f"{100 * entry.tpme:.2f}" for entry in board.entries}
    assert values == {"ce": "100.00", "bce": "70.05", "gbce": "75.08", "cce": "0.17"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"device": {"kind": "cuda", "name": "a GPU"}}, "one device"),
        ({"device": {"kind": "cpu", "name": "a CPU", "count": 2}}, "2 x a CPU"),
        ({"precision": "bf16"}, "one precision"),
    ],
)
def test_no_tpme_over_devices_or_precisions(tmp_path, more, said):
    (board,) = boards(tmp_path, paper_results(**more))
    assert {entry.tpme for entry in board.entries} == {None}
    assert any("No TPME" in note and said in note for note in board.notes)
    assert "TPME" not in [column.header for column in board_table(board).columns]


def test_a_caches_seconds_are_borne_by_the_epochs_of_the_run(tmp_path):
    """Without the cache the second line is best on time; with 90 s over 3 epochs it is the slowest."""
    seconds = {"ce": (30.0, None), "cce": (10.0, 90.0), "bce": (20.0, None)}
    results = [
        make_result(loss=loss, cost=make_cost(epoch, 100, 10, seconds_cache=cache))
        for loss, (epoch, cache) in seconds.items()
    ]
    (board,) = boards(tmp_path, results)
    found = {each.first.config["method"]["loss"]: each for each in board.entries}
    plain = {loss: each.tpme for loss, each in found.items()}
    assert plain == pytest.approx({"ce": 0.45, "cce": 0.0, "bce": 0.225})
    borne = {loss: each.tpme_with_cache for loss, each in found.items()}
    assert borne == pytest.approx({"ce": 0.225, "cce": 0.45, "bce": 0.0})
    assert "TPME with cache" in [column.header for column in board_table(board).columns]


def test_without_a_cache_there_is_one_tpme(tmp_path):
    (board,) = boards(tmp_path, paper_results())
    assert {entry.tpme_with_cache for entry in board.entries} == {None}
    assert "TPME with cache" not in [column.header for column in board_table(board).columns]


def test_method_without_epochs_is_left_out_of_tpme(tmp_path):
    pop = make_result(
        0.01, method="pop", model="none", cost=make_cost(seconds_per_epoch=None), device={"name": "other"}
    )
    (board,) = boards(tmp_path, [*paper_results(), pop])
    assert [entry.tpme is None for entry in board.entries] == [False] * 4 + [True]
    assert any("leaves out 1" in note for note in board.notes)


def test_runs_of_several_commits_on_a_line_are_mentioned(tmp_path):
    (board,) = boards(tmp_path, [make_result(seed=1), make_result(seed=2, commit="bad")])
    assert any("several commits" in note for note in board.notes)


def test_best_of_each_column_is_marked_and_ties_are_all_best(tmp_path):
    results = [
        make_result(0.3, loss="ce", cost=make_cost(20)),
        make_result(0.1, loss="cce", cost=make_cost(10)),
        make_result(0.3, loss="bce", cost=make_cost(30)),
    ]
    (board,) = boards(tmp_path, results)
    table = board_table(board)
    at = {column.header: index for index, column in enumerate(table.columns)}
    assert {row for row, column in table.best if column == at["ndcg@10"]} == {0, 1}
    fastest = [table.rows[row][at["settings"]] for row, column in table.best if column == at["s/epoch"]]
    assert fastest == ["cce"]
    assert at["peak memory"] not in {column for _, column in table.best}, "all are equal: nobody wins"


@pytest.mark.parametrize(
    ("metric", "order"),
    [
        ("auc", ["ce", "bce", "cce"]),
        ("log_loss", ["cce", "bce", "ce"]),
        ("ne", ["cce", "bce", "ce"]),
        ("ece", ["cce", "bce", "ce"]),
        ("calibration", ["bce", "cce", "ce"]),
    ],
)
def test_lines_are_sorted_and_marked_by_what_is_better_of_the_metric(metric, order, tmp_path):
    scores = {"cce": 0.7, "bce": 0.9, "ce": 1.4}
    ceiling = dict.fromkeys(("auc", "log_loss", "ne", "ece", "calibration"), 0.5)
    results = [
        make_result(loss=loss, metrics={"test": {metric: score}}, ceiling=ceiling)
        for loss, score in scores.items()
    ]
    (board,) = boards(tmp_path, results, metric=metric)
    assert [entry.first.config["method"]["loss"] for entry in board.entries] == order
    table = board_table(board)
    headers = [column.header for column in table.columns]
    assert {row for row, column in table.best if column == headers.index(metric)} == {0}
    assert ("of ceiling" in headers) == (metric == "auc"), "nothing is a share of what is best when low"


def test_share_of_the_ceiling_is_shown_where_known(tmp_path):
    (board,) = boards(tmp_path, [make_result(0.1, ceiling={"ndcg@10": 0.4})])
    table = board_table(board)
    assert table.rows[0][[column.header for column in table.columns].index("of ceiling")] == "25.0 %"


def test_unfinished_failed_and_damaged_runs_are_listed(tmp_path, capsys):
    leave_run(tmp_path / "good", make_result())
    leave_run(tmp_path / "sweep" / "0", state="failed", step=7, reason="The loss is not finite.")
    leave_run(tmp_path / "sweep" / "1", state="interrupted", step=9)
    (leave_run(tmp_path / "sweep" / "2") / "result.json").write_text("{")
    found = compare([tmp_path])
    states = {run.folder.name: run.status.state for run in found.unfinished}
    assert states == {"0": "failed", "1": "interrupted", "2": "done"}
    assert main([str(tmp_path)]) == 0
    sweep = tmp_path / "sweep"
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "",
        f"Without a result: 1 failed ({sweep / '0'}), 1 interrupted ({sweep / '1'}), "
        f"1 damaged ({sweep / '2'}); effrec show RUN says why.",
    ]


def test_only_unfinished_runs_still_answer_in_one_line(tmp_path, capsys):
    for name in "abcde":
        leave_run(tmp_path / name, state="failed", step=7, reason="no memory")
    assert main([str(tmp_path)]) == 0
    first = ", ".join(str(tmp_path / name) for name in "abc")
    assert capsys.readouterr().out == (
        f"Without a result: 5 failed ({first}, and 2 more); effrec show RUN says why.\n"
    )


def test_a_copied_folder_counts_once_and_is_named(tmp_path, capsys):
    leave_run(tmp_path / "a", make_result(0.1))
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    leave_run(tmp_path / "b", make_result(0.3, seed=2))
    (board,) = compare([tmp_path]).boards
    assert [entry.seeds for entry in board.entries] == [[1, 2]]
    assert main([str(tmp_path)]) == 0
    said = f"Counted once: {tmp_path / 'backup'} is a copy of {tmp_path / 'a'}."
    assert capsys.readouterr().out.splitlines()[-1] == said
    main([str(tmp_path), "--json"])
    copies = json.loads(capsys.readouterr().out)["copies"]
    assert copies == [{"run": str(tmp_path / "backup"), "of": str(tmp_path / "a")}]


def test_a_repeated_run_is_no_copy(tmp_path, capsys):
    leave_run(tmp_path / "a", make_result(0.1, cost=make_cost(10.0)))
    leave_run(tmp_path / "b", make_result(0.1, cost=make_cost(10.1)))
    leave_run(tmp_path / "c", make_result(0.4, seed=2, cost=make_cost(40.0)))
    (board,) = compare([tmp_path]).boards
    (entry,) = board.entries
    assert len(entry.runs) == 3
    assert entry.seeds == [1, 2], "a seed that was run again is no evidence of its own"
    assert entry.scores("ndcg@10") == pytest.approx([0.1, 0.4])
    assert entry.cost(lambda found: found.cost.seconds_per_epoch) == pytest.approx((10.05 + 40) / 2)
    main([str(tmp_path)])
    out = " ".join(capsys.readouterr().out.split())
    assert "Counted once" not in out
    assert f"Settings and seed of another run: {tmp_path / 'b'};" in out


def test_a_single_seed_has_no_deviation_however_often_it_was_run(tmp_path):
    for at in range(5):
        leave_run(tmp_path / str(at), make_result(0.1 + at / 1000, cost=make_cost(10.0 + at)))
    (board,) = compare([tmp_path]).boards
    assert "±" not in board_table(board).rows[0][4]
    (note,) = [note for note in board.notes if "another run" in note]
    assert "and 1 more" in note
    (apart,) = compare([tmp_path], per_run=True).boards
    assert len(apart.entries) == 5
    assert not [note for note in apart.notes if "another run" in note]


def test_runs_are_found_at_any_depth_once_and_not_inside_runs(tmp_path, monkeypatch):
    outer = leave_run(tmp_path / "x" / "y" / "run", make_result())
    leave_run(outer / "checkpoints" / "old", make_result(0.9))
    leave_run(tmp_path / ".hidden" / "run", make_result(0.9))
    (tmp_path / "link").symlink_to(outer)
    monkeypatch.chdir(outer)
    found = compare([tmp_path, outer, outer / "result.json", tmp_path / "link", Path(), Path("..")])
    (entry,) = found.boards[0].entries
    assert [run.folder.resolve() for run in entry.runs] == [outer]


def test_no_runs_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="no run in") as caught:
        compare([tmp_path])
    assert "effrec train" in caught.value.fix
    assert caught.value.exit_code == 2


def test_absent_path_names_the_nearest(tmp_path):
    (tmp_path / "outputs").mkdir()
    with pytest.raises(ConfigError, match="no run or folder") as caught:
        compare([tmp_path / "output"])
    assert caught.value.nearest == str(tmp_path / "outputs")


@pytest.fixture
def outputs(tmp_path):
    leave_run(tmp_path / "a", make_result(0.1, seed=1, ceiling={"ndcg@10": 0.5}))
    leave_run(tmp_path / "b", make_result(0.3, seed=2, ceiling={"ndcg@10": 0.5}))
    leave_run(tmp_path / "c", make_result(0.25, loss="cce", cost=make_cost(5)))
    leave_run(tmp_path / "d", state="failed", step=3, reason="why | not")
    return tmp_path


def test_json_holds_everything(outputs, capsys):
    main([str(outputs), "--json"])
    record = json.loads(capsys.readouterr().out)
    (table,) = record["tables"]
    assert (table["dataset"], table["content_hash"], table["metric"]) == ("toy", "abcdef0123", "ndcg@10")
    first, second = table["rows"]
    assert first["settings"] == {"method.loss": "cce"}
    assert second["metrics"]["ndcg@10"] == {"mean": pytest.approx(0.2), "std": pytest.approx(0.1414213562)}
    assert second["ceiling_share"] == pytest.approx(0.4)
    assert (first["cost"]["seconds_per_epoch"], first["cost"]["parameters_trainable"]) == (5, 100)
    assert (first["tpme"], second["tpme"]) == (0, 0.45)
    assert record["unfinished"] == [
        {"run": str(outputs / "d"), "state": "failed", "step": 3, "why": "why | not"}
    ]


def test_csv_has_a_line_for_each_entry(outputs, capsys):
    main([str(outputs), "--csv"])
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(line["settings"], line["seeds"], line["ndcg@10"]) for line in lines] == [
        ("cce", "1", "0.25"),
        ("ce", "1 2", "0.2"),
    ]
    assert lines[0]["seconds_per_epoch"] == "5.0"


def test_markdown_marks_the_best_and_guards_pipes(outputs, capsys):
    main([str(outputs), "--md"])
    out = capsys.readouterr().out
    assert "| **0.2500** |" in out
    assert f"Without a result: 1 failed ({outputs / 'd'})" in out
    assert "| why \\| not |" in as_markdown(Table("", [Column("")], [["why | not"]]))
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows[:4]} == {rows[0].count("|")}


def test_forms_exclude_each_other(outputs):
    with pytest.raises(ConfigError, match="not allowed with"):
        main([str(outputs), "--md", "--csv"])


def test_metric_of_some_runs_only_is_a_dash_for_the_others(tmp_path, capsys):
    leave_run(tmp_path / "a", make_result(0.1))
    other = make_result(0.1, loss="cce")
    leave_run(tmp_path / "b", replace(other, metrics={"test": {"auc": 0.7}}))
    main([str(tmp_path), "--metric", "auc"])
    lines = capsys.readouterr().out.splitlines()
    assert "0.7000" in lines[2]
    assert "-" in lines[3].split()
