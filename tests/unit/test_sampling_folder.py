"""A sample prepared once into a folder of its own, and what then opens, judges and refuses it."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from data_helpers import as_cases
from sampling_helpers import config as sampling
from sampling_helpers import counts_by, log, raw_rows

from effrec_cli.data import cache
from effrec_cli.data.answers import answers_of
from effrec_cli.data.describe import describe
from effrec_cli.data.load import load, load_prepared
from effrec_cli.data.sampling import sample
from effrec_cli.data.sampling.export import export
from effrec_cli.errors import ConfigError, DataError
from effrec_cli.schema.dataset_base import FilterConfig, PartsConfig
from effrec_cli.schema.dataset_sample import SampleFolderConfig
from effrec_cli.schema.dataset_table import TableConfig
from effrec_cli.schema.sample import SampleConfig


@pytest.fixture
def table(tmp_path):
    lines = [f"{user},{item},{time},{rating}" for user, item, time, rating in log(users=60)]
    (tmp_path / "log.csv").write_text("user,item,time,stars\n" + "\n".join(lines) + "\n")
    return TableConfig(
        name="log", family="table", path=str(tmp_path / "log.csv"), time="time", rating="stars"
    )


def loaded(config, tmp_path, said=None):
    return load(config, tmp_path / "root", (said if said is not None else []).append)


def quiet(line):
    """Hears what is said and keeps it to itself."""


def test_a_sample_is_prepared_once_beside_its_parent(table, tmp_path):
    said = []
    data = loaded(replace(table, sample=sampling(0.2)), tmp_path, said)
    assert [line for line in said if "20 % (uniform) of its training rows" in line]
    again = []
    assert loaded(replace(table, sample=sampling(0.2)), tmp_path, again).content_hash == data.content_hash
    assert again == []
    parent = loaded(table, tmp_path, again)
    assert again == []
    assert parent.sample is None
    assert data.folder.name == f"log-{data.content_hash[:12]}"
    in_memory = sample(parent, sampling(0.2))
    assert raw_rows(data) == raw_rows(in_memory)
    assert (data.sample, data.content_hash) == (in_memory.sample, in_memory.content_hash)
    assert data.sample["parent"] == parent.content_hash
    assert as_cases(data, data.test) == as_cases(parent, parent.test)
    assert raw_rows(data.unsampled()) == raw_rows(parent)
    assert cache.verify(data.folder) == []


def test_what_a_sample_shares_with_its_parent_takes_no_space(table, tmp_path):
    parent, data = loaded(table, tmp_path), loaded(replace(table, sample=sampling(0.2)), tmp_path)
    for name, same in {"user_ids": True, "valid.users": True, "items": False, "train_end": False}.items():
        assert (parent.folder / f"{name}.npy").samefile(data.folder / f"{name}.npy") == same
    assert parent.train_end.tolist() == data.full_train_end.tolist()
    assert cache.verify(parent.folder) == []


def test_another_rate_mode_or_seed_is_another_folder_and_no_rate_is_the_parent(table, tmp_path):
    parent = loaded(table, tmp_path)
    samples = [sampling(0.2), sampling(0.3), sampling(0.2, "exact"), sampling(0.2, seed=2)]
    hashes = {loaded(replace(table, sample=each), tmp_path).content_hash for each in samples}
    assert len(hashes) == 4
    assert loaded(replace(table, sample=sampling(1.0, "exact", seed=2)), tmp_path).folder == parent.folder


def test_weights_come_back_from_the_disk(table, tmp_path):
    data = loaded(replace(table, sample=sampling(0.3, "propensity")), tmp_path)
    assert data.train_weights.dtype == np.float32
    assert (
        data.train_weights.tolist()
        == sample(data.unsampled(), sampling(0.3, "propensity")).train_weights.tolist()
    )


def test_a_folder_whose_kept_rows_are_cut_is_prepared_again(table, tmp_path):
    config = replace(table, sample=sampling(0.3))
    data, said = loaded(config, tmp_path), []
    rows, manifest = raw_rows(data), json.loads((data.folder / "manifest.json").read_text())
    np.save(tmp_path / "cut.npy", np.asarray(data.sequences.items[:-1]))
    (tmp_path / "cut.npy").replace(data.folder / "items.npy")  # the mapped file itself stays as it is
    manifest["arrays"]["items"] = cache.entry_of(data.folder / "items.npy")
    (data.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="do not fit together"):
        load_prepared(data.folder)
    assert raw_rows(loaded(config, tmp_path, said)) == rows
    assert any("are damaged" in line for line in said)


def test_a_sample_without_a_row_is_an_error_that_says_so(table, tmp_path):
    with pytest.raises(DataError, match="keeps none of") as caught:
        loaded(replace(table, sample=sampling(1e-9)), tmp_path)
    assert "dataset.sample.rate" in caught.value.fix


def test_describe_tells_the_sample_and_counts_rows_once(table, tmp_path):
    parent, data = loaded(table, tmp_path), loaded(replace(table, sample=sampling(0.2)), tmp_path)
    found, before = describe(data), describe(parent)
    assert found["sample"]["rows_kept"] == found["split"]["train_rows"] == data.num_train
    assert before["sample"] is None
    for name in ("rows", "rows_per_user", "rows_per_item", "duplicates", "time", "rating"):
        assert found[name] == before[name]


def exported(table, tmp_path, settings):
    parent = loaded(table, tmp_path)
    return parent, export(parent, settings, tmp_path / "out", tmp_path / "root", quiet)


@pytest.mark.parametrize("mode", ["uniform", "propensity"])
def test_a_folder_of_its_own_holds_all_that_training_and_judging_need(table, tmp_path, mode):
    parent, _ = exported(table, tmp_path, sampling(0.3, mode))
    (tmp_path / "out").rename(tmp_path / "moved")
    data = load(SampleFolderConfig(family="sample", path=str(tmp_path / "moved")), tmp_path / "other", quiet)
    assert raw_rows(data) == raw_rows(sample(parent, sampling(0.3, mode)))
    assert as_cases(data, data.test) == as_cases(parent, parent.test)
    assert (data.name, data.protocol) == (parent.name, parent.protocol)
    assert cache.verify(tmp_path / "moved") == []
    assert not (parent.folder / "user_ids.npy").samefile(tmp_path / "moved" / "user_ids.npy")
    manifest = json.loads((tmp_path / "moved" / "manifest.json").read_text())["sample"]
    assert manifest == data.sample
    assert {"parent", "rate", "seed", "mode", "rows_kept", "bytes_kept"} <= manifest.keys()


def test_the_kept_rows_lie_beside_it_as_parquet(table, tmp_path):
    _, data = exported(table, tmp_path, sampling(0.3, "propensity"))
    rows = pq.read_table(tmp_path / "out" / "train.parquet")
    assert rows.column_names == ["user", "item", "time", "rating", "weight"]
    columns = [rows[name].to_pylist() for name in ("user", "item", "time")]
    assert [(u, str(i), t) for u, i, t in zip(*columns, strict=True)] == raw_rows(data)
    assert rows["weight"].to_pylist() == data.train_weights.tolist()
    assert json.loads(rows.schema.metadata[b"effrec.sample"]) == data.sample


def test_the_same_sample_may_be_there_already_and_nothing_else(table, tmp_path):
    parent, first = exported(table, tmp_path, sampling(0.3))
    made = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert exported(table, tmp_path, sampling(0.3))[1].content_hash == first.content_hash
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == made
    with pytest.raises(ConfigError, match="there already"):
        exported(table, tmp_path, sampling(0.4))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="there already"):
        export(parent, sampling(0.3), tmp_path / "mine", tmp_path / "root", quiet)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"path": None}, "dataset.path"),
        ({"path": "/nowhere"}, "dataset.path"),
        ({"filter": FilterConfig(min_rating=4)}, "dataset.filter"),
        ({"sample": SampleConfig(rate=0.5)}, "dataset.sample"),
    ],
)
def test_settings_that_a_finished_sample_cannot_follow_are_refused(table, tmp_path, change, named):
    exported(table, tmp_path, sampling(0.3))
    wanted = replace(SampleFolderConfig(family="sample", path=str(tmp_path / "out")), **change)
    with pytest.raises(ConfigError) as caught:
        load(wanted, tmp_path / "root", quiet)
    assert named in caught.value.where


def test_a_folder_that_is_no_sample_is_an_error(tmp_path):
    with pytest.raises(DataError, match="not a whole prepared dataset"):
        load(SampleFolderConfig(family="sample", path=str(tmp_path)), tmp_path / "root", quiet)


def test_answers_are_not_sampled_and_refused(tmp_path):
    rows = [(user, item, item, float(item % 2)) for user in range(20) for item in range(8)]
    lines = "\n".join(f"{u},{i},{t},{int(c)}" for u, i, t, c in rows)
    (tmp_path / "answers.csv").write_text(f"user,item,time,right\n{lines}\n")
    path = str(tmp_path / "answers.csv")
    config = TableConfig(name="log", family="table", path=path, time="time", correct="right")
    parent, data = loaded(config, tmp_path), loaded(replace(config, sample=sampling(0.5)), tmp_path)
    assert len(answers_of(parent, PartsConfig())) == 160
    with pytest.raises(DataError, match="trains on answers"):
        answers_of(data, PartsConfig())
    assert sum(counts_by(data, 0).values()) == data.num_train < parent.num_train
