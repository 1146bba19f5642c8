"""`effrec show`: a run in any state, and what to do about it."""

import json
import re

import pytest
from compare_helpers import leave_run, make_result

from effrec_cli.commands.show import main
from effrec_cli.errors import ConfigError
from effrec_cli.lock import FolderLock
from effrec_cli.report.curves import curve_lines, read_curve


def leave_curve(folder, points=(0.1, 0.3, 0.2)):
    lines = []
    for at, score in enumerate(points, start=1):
        lines.append({"kind": "train", "step": 10 * at, "epoch": at, "lr": 0.001, "loss": 8.0 / at})
        lines.append({"kind": "valid", "step": 10 * at, "epoch": at, "hr@10": 1.0, "ndcg@10": score})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"kind": "valid", "st')


def test_finished_run_shows_everything(tmp_path, capsys):
    folder = leave_run(tmp_path / "mine", make_result(0.1, ceiling={"ndcg@10": 0.4}), step=30)
    leave_curve(folder)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "a").write_bytes(b"x" * 2048)
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    for said in ("done at step 30", "0.1000", "25.0 %", "seen: exclude", "abcdef0123", "c0ffee", "▁█▅"):
        assert said in out
    assert re.search(r"checkpoints/ +2.0 KiB", out)
    assert out.rstrip().endswith(f"effrec compare {tmp_path}")


@pytest.mark.parametrize(
    ("state", "said"), [("failed", "failed"), ("interrupted", "interrupted"), ("running", "killed")]
)
def test_unfinished_run_says_why_and_how_to_go_on(tmp_path, capsys, state, said):
    folder = leave_run(tmp_path / "mine", state=state, step=40, reason="The loss is not finite.")
    leave_curve(folder)
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"{said} at step 40" in out
    assert "The loss is not finite." in out
    assert "8 → 2.667" in out
    assert out.rstrip().endswith(f"effrec resume {folder}")


@pytest.mark.parametrize(
    ("settings", "shown"),
    [("evaluation: {monitor: ndcg@10}", "ndcg@10"), ("evaluation: {of: old}", "hr@10"), ("{", "hr@10")],
)
def test_unfinished_run_shows_the_metric_of_its_settings(tmp_path, capsys, settings, shown):
    folder = leave_run(tmp_path / "mine", state="failed", step=40)
    leave_curve(folder)
    (folder / "config.yaml").write_text(settings)
    assert main([str(folder)]) == 0
    assert re.findall(r"^valid (\S+)", capsys.readouterr().out, re.MULTILINE) == [shown]


def test_run_that_is_going_on_is_not_to_be_resumed(tmp_path, capsys):
    folder = leave_run(tmp_path / "mine", state="running", step=40)
    lock = FolderLock(folder)
    lock.take()
    main([str(folder)])
    lock.release()
    assert capsys.readouterr().out.rstrip().endswith(f"tail -f {folder}/log.txt")


def test_damaged_result_is_shown_as_such(tmp_path, capsys):
    folder = leave_run(tmp_path / "mine")
    (folder / "result.json").write_text("{")
    assert main([str(folder)]) == 0
    assert "cannot be read as a result" in capsys.readouterr().out


def test_json_holds_result_curves_and_files(tmp_path, capsys):
    folder = leave_run(tmp_path / "mine", make_result(0.1))
    leave_curve(folder)
    main([str(folder), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert record["result"]["metrics"]["test"]["ndcg@10"] == 0.1
    assert [point["ndcg@10"] for point in record["curves"]["valid"]] == [0.1, 0.3, 0.2]
    assert record["status"] == {"state": "done", "step": None, "reason": None}
    assert record["problem"] is None
    assert set(record["files"]) == {"config.yaml", "metrics.jsonl", "result.json", "status.json"}


def test_deciles_of_users_and_items_stand_side_by_side(tmp_path, capsys):
    def group(decile, rows, score):
        return {"decile": decile, "rows": rows, "cases": 1200, "ndcg@10": score}

    told = {"users": [group(1, [3, 3], 0.1), group(9, [5, 7000], 0.2)], "items": [group(4, [0, 2], 0.3)]}
    main([str(leave_run(tmp_path / "mine", make_result(0.1, by_frequency=told)))])
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("test cases by training rows, few to many")
    assert [re.split(r"  +", line.strip()) for line in lines[at + 1 : at + 6]] == [
        ["decile", "user's rows", "cases", "ndcg@10", "item's rows", "cases", "ndcg@10"],
        ["1", "3", "1,200", "0.1000", "-", "-", "-"],
        ["4", "-", "-", "-", "0 to 2", "1,200", "0.3000"],
        ["9", "5 to 7,000", "1,200", "0.2000", "-", "-", "-"],
        [""],
    ]


def test_no_run_is_a_clear_error_with_the_nearest(tmp_path):
    leave_run(tmp_path / "mine", make_result())
    with pytest.raises(ConfigError) as caught:
        main([str(tmp_path / "mime")])
    assert caught.value.nearest == str(tmp_path / "mine")
    with pytest.raises(ConfigError, match="no run folder"):
        main([str(tmp_path)])


def test_curve_of_another_metric_where_the_monitor_was_not_measured(tmp_path):
    folder = leave_run(tmp_path / "mine")
    assert curve_lines(folder) == []
    leave_curve(folder)
    assert [line.split()[:2] for line in curve_lines(folder, "auc")][1] == ["valid", "hr@10"]
    assert [line.split()[:2] for line in curve_lines(folder, "ndcg@10")][1] == ["valid", "ndcg@10"]
    assert len(read_curve(folder, "valid")) == 3, "the line cut short is passed over"
