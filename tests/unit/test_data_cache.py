"""Prepared folders: whole or not there, found damaged when they are, made once by whoever comes first."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data_helpers import as_training, prepared

from effrec_cli import registry
from effrec_cli.data import atomic, cache
from effrec_cli.data import load as loading
from effrec_cli.data.cooccurrence import training_matrix
from effrec_cli.data.describe import describe
from effrec_cli.data.digests import digest_of
from effrec_cli.data.load import load, load_prepared
from effrec_cli.data.next_item import NextItemBatches
from effrec_cli.data.types import Sequences
from effrec_cli.errors import ConfigError, DataError, EnvironmentFault
from effrec_cli.evaluation.metrics import item_information
from effrec_cli.schema.dataset_table import TableConfig

ROWS = "user,item,time\n" + "".join(f"{u},{i},{u * i}\n" for u in range(1, 6) for i in range(1, 6))


@pytest.fixture
def config(tmp_path):
    (tmp_path / "log.csv").write_text(ROWS)
    return TableConfig(name="log", family="table", path=str(tmp_path / "log.csv"), time="time")


def loaded(config, tmp_path):
    said = []
    return load(config, tmp_path / "root", said.append), said


def test_what_is_prepared_once_is_only_opened_the_next_time(config, tmp_path):
    first, said = loaded(config, tmp_path)
    assert any("Preparing log" in line for line in said)
    second, said = loaded(config, tmp_path)
    assert said == []
    assert second.folder == first.folder
    assert second.content_hash == first.content_hash
    assert isinstance(second.sequences.items.base, np.memmap)
    assert not second.sequences.items.flags.writeable
    assert second.folder.name == f"log-{second.content_hash[:12]}"


def test_another_content_or_setting_is_another_cache(config, tmp_path):
    first, _ = loaded(config, tmp_path)
    config.filter.min_item_count = 2
    second, _ = loaded(config, tmp_path)
    Path(config.path).write_text(ROWS + "9,1,3\n9,2,4\n9,3,5\n")
    third, _ = loaded(config, tmp_path)
    assert len({first.content_hash, second.content_hash, third.content_hash}) == 3
    assert third.num_users == first.num_users + 1


def test_settings_without_effect_do_not_change_the_content(config, tmp_path):
    first, _ = loaded(config, tmp_path)
    config.split.seed, config.name = 7, "other"
    second, _ = loaded(config, tmp_path)
    assert second.content_hash == first.content_hash


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "items.npy").unlink(),
        lambda folder: os.truncate(folder / "items.npy", 150),
        lambda folder: (folder / "offsets.npy").write_bytes(b""),
        lambda folder: (folder / "manifest.json").write_text(json.dumps({"format": 0})),
    ],
)
def test_a_damaged_cache_is_refused_and_prepared_again(config, tmp_path, damage):
    first, _ = loaded(config, tmp_path)
    expected = first.sequences.items.tolist()
    damage(first.folder)
    with pytest.raises(DataError, match="not a whole prepared dataset"):
        load_prepared(first.folder)
    again, said = loaded(config, tmp_path)
    assert any("damaged" in line for line in said)
    assert again.sequences.items.tolist() == expected
    assert cache.verify(again.folder) == []


def test_verify_finds_a_flipped_bit_that_opening_does_not(config, tmp_path):
    data, _ = loaded(config, tmp_path)
    path = data.folder / "items.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.verify(data.folder) == ["items.npy differs from its sha256"]


def test_a_preparation_that_fails_leaves_nothing_behind(config, tmp_path, monkeypatch):
    def broken(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "write_manifest", broken)
    with pytest.raises(KeyboardInterrupt):
        loaded(config, tmp_path)
    assert [p.name for p in (tmp_path / "root" / "prepared").iterdir() if p.is_dir()] == []
    monkeypatch.undo()
    assert loaded(config, tmp_path)[0].num_users == 5


def test_what_a_killed_process_left_is_swept_away(config, tmp_path):
    folder = loaded(config, tmp_path)[0].folder
    left = folder.with_name(f".{folder.name}.building")
    folder.rename(left)
    (left / "manifest.json").unlink()
    again, _ = loaded(config, tmp_path)
    assert again.folder == folder
    assert not left.exists()


def test_two_at_once_prepare_once(config, tmp_path, monkeypatch):
    real, began, may_go = loading.prepare, threading.Event(), threading.Event()
    times, said, found = [], [], []

    def slow(*args):
        times.append(1)
        began.set()
        assert may_go.wait(60)
        real(*args)

    def hear(line):
        said.append(line)
        if "waiting" in line:
            may_go.set()

    monkeypatch.setattr(loading, "prepare", slow)
    workers = [
        threading.Thread(target=lambda: found.append(load(config, tmp_path / "root", hear))) for _ in "ab"
    ]
    for worker in workers:
        worker.start()
        assert began.wait(60)
    for worker in workers:
        worker.join(60)
    assert len(found) == 2
    assert len(times) == 1
    assert any("Another process is preparing log" in line for line in said)


def test_a_folder_that_may_not_be_written_is_an_environment_fault(config, tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(EnvironmentFault, match="Read-only file system"):
        loaded(config, tmp_path)


@pytest.mark.parametrize("below", ["file", "/proc/effrec"])
def test_a_data_root_that_cannot_be_made_names_the_setting(config, tmp_path, below):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises((ConfigError, EnvironmentFault)) as caught:
        load(config, tmp_path / below / "root", lambda line: None)
    assert "data_root=PATH or EFFREC_DATA=PATH" in caught.value.fix
    assert str(tmp_path / below / "root") in caught.value.where


def test_a_full_disk_is_an_environment_fault(config, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        loaded(config, tmp_path)


def test_a_prepared_cache_opens_from_a_root_that_may_not_be_written(config, tmp_path, monkeypatch):
    loaded(config, tmp_path)
    (tmp_path / "root" / "digests.json").unlink()

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    data, said = loaded(config, tmp_path)
    assert data.num_users == 5
    assert said == []


def test_files_that_change_while_they_are_read_are_not_prepared(config, tmp_path, monkeypatch):
    source_class = registry.implementation("datasets", "table")
    real = source_class.chunks

    def changing(self):
        yield from real(self)
        Path(config.path).write_text(ROWS + "7,1,1\n")

    monkeypatch.setattr(source_class, "chunks", changing)
    with pytest.raises(DataError, match="changed while"):
        loaded(config, tmp_path)


def test_a_digest_is_taken_once_for_an_unchanged_file(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_bytes(b"one")
    first = digest_of(file, tmp_path)
    monkeypatch.setattr("effrec_cli.data.digests.hash_file", lambda path: "hashed again")
    assert digest_of(file, tmp_path) == first
    file.write_bytes(b"more")
    assert digest_of(file, tmp_path) == "hashed again"


def test_a_reader_of_the_old_folder_keeps_it_until_the_new_one_is_there(tmp_path):
    target = tmp_path / "data"
    for content in (b"old", b"new"):
        with atomic.new_folder(target) as aside:
            (aside / "file").write_bytes(content)
            assert not target.exists() or (target / "file").read_bytes() == b"old"
    assert (target / "file").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_prepared_before_training_rows_could_start_elsewhere_still_opens(config, tmp_path):
    data, _ = loaded(config, tmp_path)
    assert not (data.folder / "train_start.npy").exists()
    assert data.train_start.tolist() == data.sequences.offsets[:-1].tolist()
    assert data.unsampled() is data
    assert data.num_train == 15


def test_training_rows_may_stand_behind_all_others():
    whole = prepared([(user, item, item, 1.0) for user in range(3) for item in range(user, user + 6)])
    rows = np.array([1, 2, 3, 13, 15])  # of user 0 items 1 to 3, of user 2 items 3 and 5
    columns = (whole.sequences.items, whole.sequences.times, whole.sequences.ratings)
    held = [np.concatenate([column, column[rows]]) for column in columns]
    start = whole.num_interactions + np.array([0, 3, 3])
    data = replace(
        whole,
        sequences=Sequences(whole.sequences.offsets, *held),
        train_start=start,
        train_end=start + np.array([3, 0, 2]),
        full_train_end=whole.train_end,
        sample={"mode": "by hand"},
    )
    assert (data.num_train, data.num_interactions) == (5, 18)
    assert as_training(data) == {0: [1, 2, 3], 2: [3, 5]}
    assert data.train_counts().tolist() == [0, 1, 1, 2, 0, 1, 0, 0]
    assert training_matrix(data).toarray().nonzero()[1].tolist() == [1, 2, 3, 3, 5]
    assert NextItemBatches(data, 8, 4, "slide", seed=1).targets_per_epoch == 3
    found, before = describe(data), describe(whole)
    assert (found["split"]["train_rows"], found["split"]["train_users"]) == (5, 2)
    same = ("rows", "rows_per_item", "duplicates", "time", "rating")
    assert {name: found[name] for name in same} == {name: before[name] for name in same}
    assert as_training(data.unsampled()) == as_training(whole)
    assert item_information(data).tolist() == item_information(whole).tolist()
