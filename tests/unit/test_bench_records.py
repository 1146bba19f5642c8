"""Benchmark records, and the tables that documents show of them."""

import errno
import json
from pathlib import Path

import pytest
import torch

from effrec_cli import env
from effrec_cli.bench import records
from effrec_cli.bench.tables import documents, renewed, suite_tables
from effrec_cli.errors import ConfigError, EnvironmentFault

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
UNITS = {"time": "ms"}


def record(cell="small", peer="torch ce", times=(3.0, 1.0, 2.0), **more):
    made = records.make_record(
        "loss",
        cell,
        peer,
        {"rows": 1024, "dtype": "float32", "mean": 2.5},
        [{"time": t} for t in times],
        UNITS,
    )
    return {**records.stamped(made, CPU), "device": "AMD EPYC", "commit": "0123456789+", **more}


def test_figures_hold_median_and_spread():
    assert record()["figures"]["time"] == {"unit": "ms", "median": 2.0, "min": 1.0, "max": 3.0, "repeats": 3}


def test_record_says_where_and_when():
    made = records.stamped(record(), CPU)
    assert made["device"] == env.device_name(CPU)
    assert made["versions"]["torch"] == torch.__version__
    assert {"commit", "date", "threads", "device_kind"} <= set(made)


def test_each_cell_is_kept_as_it_ends_and_a_newer_one_replaces_the_older(tmp_path):
    path = records.keep(tmp_path / "new", record(times=[1.0]))
    records.keep(tmp_path / "new", record(peer="effrec cce"))
    records.keep(tmp_path / "new", record(times=[7.0]))
    assert path.name == "loss-amd-epyc.json"
    assert {(old["peer"], old["figures"]["time"]["median"]) for old in records.read(path)} == {
        ("effrec cce", 2.0),
        ("torch ce", 7.0),
    }


def test_failed_write_keeps_what_was_there(tmp_path, monkeypatch):
    path = records.keep(tmp_path, record())

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("effrec_cli.durable.os.fsync", full_disk)
    with pytest.raises(EnvironmentFault):
        records.keep(tmp_path, record(cell="other"))
    assert [old["cell"] for old in records.read(path)] == ["small"]


@pytest.mark.parametrize(
    ("call", "fault"),
    [("pathlib.Path.mkdir", errno.EROFS), ("pathlib.Path.open", errno.EACCES), ("os.fsync", errno.ENOSPC)],
)
def test_folder_that_cannot_be_written_is_to_be_replaced_by_another_out(tmp_path, monkeypatch, call, fault):
    def refuse(*_, **__):
        raise OSError(fault, "refused")

    monkeypatch.setattr(call, refuse)
    with pytest.raises(EnvironmentFault, match=str(tmp_path)) as caught:
        records.keep(tmp_path, record())
    assert "--out FOLDER" in caught.value.fix


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H200", "nvidia-h200"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "intel-xeon"),
        ("AMD EPYC 7B13 Processor", "amd-epyc-7b13"),
        ("", "unknown"),
    ],
)
def test_device_makes_a_file_name(tmp_path, device, name):
    assert records.keep(tmp_path, record(device=device)).name == f"loss-{name}.json"


@pytest.mark.parametrize("text", ["{", "[]", '{"records": []}', '{"schema_version": 9, "records": []}'])
def test_file_that_is_no_record_is_refused(tmp_path, text):
    (tmp_path / "loss-x.json").write_text(text)
    with pytest.raises(ConfigError):
        records.read(tmp_path / "loss-x.json")


def test_table_shows_the_median_and_where_they_differ_the_extremes(tmp_path):
    records.keep(tmp_path, record())
    records.keep(tmp_path, record(peer="effrec cce", times=[0.5]))
    failed = records.make_record("loss", "small", "liger", {"rows": 1024}, [], UNITS, "out of memory")
    records.keep(tmp_path, {**record(), **failed})
    table = suite_tables("loss", tmp_path).splitlines()
    assert "**AMD EPYC**" in table[1]
    assert "commit 01234567" in table[1]
    assert f"threads: {torch.get_num_threads()} (" in table[1]
    assert table[3:] == [
        "| cell | by | time, ms |",
        "| --- | --- | ---: |",
        "| small: 1,024 rows, float32, 2.5 mean | torch ce | 2.00 (1.00 to 3.00) |",
        "|  | effrec cce | 0.5 |",
        "|  | liger | out of memory |",
        "",
    ]


def test_one_of_something_is_called_by_the_singular(tmp_path):
    made = {"seeds": 1, "batch": 1, "% of the rows": 1, "steps": 10}
    records.keep(tmp_path, record(parameters=made))
    assert "| small: 1 seed, 1 batch, 1 % of the rows, 10 steps |" in suite_tables("loss", tmp_path)


def test_gpu_tables_come_first(tmp_path):
    records.keep(tmp_path, record())
    records.keep(tmp_path, record(device="NVIDIA H200", device_kind="cuda"))
    table = suite_tables("loss", tmp_path)
    assert table.index("NVIDIA") < table.index("AMD")


def test_document_is_renewed_between_its_marks_only(tmp_path):
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "page.md"
    page.write_text("before\n<!-- bench:loss -->\nold\n<!-- /bench:loss -->\nafter\n")
    (tmp_path / "README.md").write_text("no tables")
    assert documents(tmp_path) == [page]
    text = renewed(page, tmp_path)
    assert text.startswith("before\n<!-- bench:loss -->\n")
    assert text.endswith("<!-- /bench:loss -->\nafter\n")
    assert "old" not in text
    assert "effrec bench loss" in text, "what is not measured yet says how to measure it"
    page.write_text(text)
    assert renewed(page, tmp_path) == text


def test_tables_in_the_documents_are_those_of_the_records():
    pages = documents(ROOT)
    assert ROOT / "docs" / "benchmarks.md" in pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert renewed(page, ROOT / "benchmarks" / "results") == text, f"{page}: run `effrec bench --tables`"


def test_kept_records_are_sound():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        for kept in records.read(path):
            assert path.name.startswith(f"{kept['suite']}-")
            assert kept["figures"] or kept["error"]
            assert json.dumps(kept["commit"])
