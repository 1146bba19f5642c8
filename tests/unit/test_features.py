"""Kept features: made in one pass, gone on with after a kill, refused where they are others or damaged."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from features_helpers import COSTS, TAPS, Numbers, keep, never, spec

from effrec_cli.data.features import arrays, build, draft
from effrec_cli.data.features.build import kept_features
from effrec_cli.data.features.store import open_features
from effrec_cli.errors import DataError, EnvironmentFault

EVERY = np.arange(len(COSTS))


@pytest.fixture(autouse=True)
def mark_every_chunk(monkeypatch):
    monkeypatch.setattr(build, "MARK_SECONDS", 0.0)


def check(kept, work=None):
    want = (work or Numbers()).values(EVERY)
    assert np.array_equal(kept.rows, want[:, len(kept.constant_taps) :].numpy())
    assert np.array_equal(kept.constant, want[0, : len(kept.constant_taps)].numpy())


def test_features_are_made_once_in_one_pass(tmp_path):
    work = Numbers()
    kept = keep(tmp_path, work)
    check(kept)
    assert kept.constant_taps == (0,)
    assert kept.taps == TAPS
    assert sorted(work.made) == sorted([*EVERY, work.made[0]])  # one item first, to learn the constant tap
    lengths = COSTS[work.made[1:]]
    assert (np.diff(lengths) <= 0).all()
    assert kept.build["items"] == 12
    assert kept.build["bytes"] == sum(path.stat().st_size for path in spec().folder(tmp_path).glob("*.npy"))
    again = kept_features(spec(), tmp_path, never, rebuild=False, say=never)
    check(again)
    assert again.build == kept.build


def test_nothing_but_the_features_and_a_lock_is_left(tmp_path):
    keep(tmp_path)
    folder = spec().folder(tmp_path)
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, f"{folder.name}.lock"}
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        "rows.npy",
        "checks.npy",
        "constant.npy",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bf16"},
        {"taps": (0, 2, 4)},
        {"items": "another order"},
        {"pooling": "mean"},
        {"precision": "bfloat16"},
        {"backbone": {"name": "numbers", "revision": "abc", "max_tokens": 30}},
        {"modality": "image"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_settings_are_other_features(tmp_path, change):
    keep(tmp_path)
    work = Numbers()
    keep(tmp_path, work, **change)
    assert work.made
    check(keep(tmp_path, never))


def test_features_of_something_else_are_refused_and_named(tmp_path):
    keep(tmp_path)
    other = spec(dtype="bf16", backbone={"name": "numbers", "revision": "abc", "max_tokens": 30})
    shutil.copytree(spec().folder(tmp_path), other.folder(tmp_path))
    with pytest.raises(DataError, match="something else") as caught:
        kept_features(other, tmp_path, never, rebuild=False, say=never)
    assert 'backbone.revision: null there, "abc" here; dtype: "fp32" there, "bf16" here' in caught.value.where
    assert caught.value.fix.startswith("method.cache.rebuild=true; ")
    assert f"remove {other.folder(tmp_path)}," in caught.value.fix


def test_rebuilding_makes_them_anew(tmp_path):
    keep(tmp_path)
    work = Numbers()
    check(keep(tmp_path, work, rebuild=True))
    assert len(work.made) == 13
    path = spec().folder(tmp_path) / "rows.npy"
    path.write_bytes(path.read_bytes()[:-1])
    check(keep(tmp_path, rebuild=True))


def _flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["rows.npy", "checks.npy", "constant.npy", "scales.npy"])
@pytest.mark.parametrize("how", ["short", "long", "missing", "bit", "header", "empty"])
def test_damaged_features_are_refused(tmp_path, name, how):
    keep(tmp_path, dtype="int8")
    path = spec(dtype="int8").folder(tmp_path) / name
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how in ("bit", "header"):
        _flip(path, -1 if how == "bit" else 20)
    else:
        path.write_bytes({"short": data[:-1], "long": data + b"0", "empty": b""}[how])
    with pytest.raises(DataError, match="damaged") as caught:
        keep(tmp_path, never, dtype="int8")
    assert name in caught.value.where or name in ("checks.npy", "scales.npy")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": 1}', '{"format": 1, "facts": 3}'])
def test_a_damaged_manifest_is_refused(tmp_path, text):
    keep(tmp_path)
    (spec().folder(tmp_path) / "manifest.json").write_text(text)
    with pytest.raises(DataError):
        keep(tmp_path, never)
    check(keep(tmp_path, rebuild=True))


def test_a_missing_manifest_is_refused(tmp_path):
    keep(tmp_path)
    (spec().folder(tmp_path) / "manifest.json").unlink()
    with pytest.raises(DataError, match="damaged"):
        keep(tmp_path, never)


def test_the_row_that_was_damaged_is_named(tmp_path):
    keep(tmp_path)
    _flip(spec().folder(tmp_path) / "rows.npy", -(7 * 2 * 4 * 4) - 1)
    with pytest.raises(DataError, match="damaged") as caught:
        keep(tmp_path, never)
    assert "item 4" in caught.value.where


@pytest.mark.parametrize(("chunk", "left"), [(0, 13), (1, 12), (2, 9), (3, 6)])
def test_a_build_that_was_stopped_goes_on(tmp_path, chunk, left):
    order = np.argsort(-COSTS, kind="stable")
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, Numbers(ends_before=order[3 * chunk]))
    rest = Numbers()
    check(keep(tmp_path, rest))
    assert len(rest.made) == left - (chunk == 0)


def test_what_was_marked_is_not_made_again(tmp_path):
    order = np.argsort(-COSTS, kind="stable")
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, Numbers(ends_before=order[9]))
    rest, said = Numbers(), []
    kept = keep(tmp_path, rest, said)
    check(kept)
    assert rest.made == order[6:].tolist()  # a chunk is on its way while the next is made
    assert any("Going on after 6 items" in line for line in said)
    assert kept.error == keep(tmp_path / "whole").error


def test_errors_are_counted_once_however_often_a_build_is_stopped(tmp_path):
    order = np.argsort(-COSTS, kind="stable")
    for at in (11, 11, 5, 9, 11):
        with pytest.raises(KeyboardInterrupt):
            keep(tmp_path, Numbers(ends_before=order[at]), dtype="int8")
    assert keep(tmp_path, dtype="int8").error == keep(tmp_path / "whole", dtype="int8").error


def test_a_kill_between_data_and_mark_costs_the_chunk_and_nothing_else(tmp_path, monkeypatch):
    marks, original = [], draft.Draft.mark

    def dies_at_the_second(self, seconds):
        marks.append(0)
        if len(marks) == 2:
            raise KeyboardInterrupt
        original(self, seconds)

    monkeypatch.setattr(draft.Draft, "mark", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, dtype="int8")
    rest = Numbers()
    kept = keep(tmp_path, rest, dtype="int8")
    assert len(rest.made) == 9
    assert kept.error == keep(tmp_path / "whole", dtype="int8").error


@pytest.mark.parametrize("where", ["write_manifest", "publish"])
def test_a_kill_around_the_manifest_loses_nothing(tmp_path, monkeypatch, where):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(draft, where, dies)
        with pytest.raises(KeyboardInterrupt):
            keep(tmp_path)
    rest = Numbers()
    check(keep(tmp_path, rest))
    assert rest.made == []


KILLED = """
    import os, signal, sys
    sys.path.insert(0, sys.argv[2])
    from pathlib import Path
    from effrec_cli.data.features import build
    from features_helpers import Numbers, keep
    build.MARK_SECONDS = 0.0
    work = Numbers()
    read, calls = work.read, []
    def killed(items):
        calls.append(items)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(items)
    work.read = killed
    keep(Path(sys.argv[1]), work)
"""


def test_a_killed_process_leaves_what_can_be_gone_on_with(tmp_path):
    code = textwrap.dedent(KILLED)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    rest = Numbers()
    check(keep(tmp_path, rest))
    assert len(rest.made) == 9


@pytest.mark.parametrize("name", ["rows.npy", "checks.npy", "constant.npy", "progress.json"])
@pytest.mark.parametrize("how", ["short", "missing", "other"])
def test_a_damaged_draft_is_made_anew(tmp_path, name, how):
    order = np.argsort(-COSTS, kind="stable")
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, Numbers(ends_before=order[9]))
    path = draft.aside(spec().folder(tmp_path)) / name
    if how == "missing":
        path.unlink()
    elif how == "other":
        path.write_bytes(b'{"facts": {}}') if name.endswith("json") else np.save(path, np.zeros(3))
    else:
        path.write_bytes(path.read_bytes()[:-1])
    check(keep(tmp_path))


def test_a_first_tap_that_differs_is_kept_of_each_item(tmp_path):
    said = []
    work = Numbers(same=False)
    kept = keep(tmp_path, work, said)
    assert kept.constant_taps == ()
    check(kept, work)
    assert any("not the same" in line for line in said)


def test_that_it_differs_is_remembered_by_a_build_that_was_stopped(tmp_path):
    order = np.argsort(-COSTS, kind="stable")
    with pytest.raises(KeyboardInterrupt):
        keep(tmp_path, Numbers(same=False, ends_before=order[9]))
    rest = Numbers(same=False)
    check(keep(tmp_path, rest), rest)
    assert rest.made == order[6:].tolist()


@pytest.mark.parametrize("taps", [(0,), (3,)])
def test_one_tap_alone_is_kept_of_each_item(tmp_path, taps):
    work = Numbers()
    work.values = lambda items: torch.as_tensor(items)[:, None, None].expand(-1, 1, 4).float()
    kept = keep(tmp_path, work, taps=taps)
    assert kept.constant_taps == ()
    assert kept.rows[:, 0, 0].tolist() == EVERY.tolist()


def test_one_item_has_features(tmp_path):
    work = Numbers(COSTS[:1])
    kept = keep(tmp_path, work, num_items=1)
    assert kept.rows.shape == (1, 2, 4)
    assert np.array_equal(kept.rows, work.values(EVERY[:1])[:, 1:])


def test_no_items_are_refused(tmp_path):
    with pytest.raises(DataError, match="no items"):
        keep(tmp_path, never, num_items=0)


@pytest.mark.parametrize("changes", [{"num_items": 11}, {"dim": 5}, {"taps": (0, 2)}])
def test_a_backbone_that_does_not_fit_what_was_said_of_it_is_refused(tmp_path, changes):
    with pytest.raises(DataError):
        keep(tmp_path, **changes)
    assert not spec(**changes).folder(tmp_path).exists()


@pytest.mark.parametrize(
    ("value", "dtype", "what"),
    [(torch.nan, "fp32", "no finite"), (torch.inf, "int8", "no finite"), (7e4, "fp16", "too large for fp16")],
)
def test_values_that_cannot_be_kept_are_refused(tmp_path, value, dtype, what):
    work = Numbers()
    inner = work.values

    def spoiled(items):
        made = inner(items)
        made[torch.as_tensor(items) == 3, 1, 2] = value
        return made

    work.values = spoiled
    with pytest.raises(DataError, match=what) as caught:
        keep(tmp_path, work, dtype=dtype)
    assert "item row 3" in caught.value.where


def test_too_little_space_is_said_before_anything_is_made(tmp_path, monkeypatch):
    work = Numbers()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 0, 100))
    with pytest.raises(EnvironmentFault, match="the disk has"):
        keep(tmp_path, work)
    assert len(work.made) == 1
    assert not draft.aside(spec().folder(tmp_path)).exists()


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_disk_that_fills_up_loses_no_more_than_a_block(tmp_path, monkeypatch, call):
    original, calls = getattr(os, call), []

    def full(*given):
        calls.append(0)
        if len(calls) > 8:
            raise OSError(28, "No space left on device")
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(EnvironmentFault, match="No space left"):
            keep(tmp_path)
    rest = Numbers()
    check(keep(tmp_path, rest))
    assert 0 < len(rest.made) < 12


def test_space_that_cannot_be_set_aside_is_given_back(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(arrays.os, "posix_fallocate", full)
    with pytest.raises(EnvironmentFault, match="No space left"):
        keep(tmp_path)
    assert not draft.aside(spec().folder(tmp_path)).exists()


def test_short_writes_are_written_on(tmp_path, monkeypatch):
    original = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, at: original(handle, data[:5], at))
    check(keep(tmp_path))


def test_a_root_that_may_not_be_written_is_read(tmp_path, monkeypatch):
    keep(tmp_path)

    def closed(*_):
        raise AssertionError("nothing is to be written")

    monkeypatch.setattr(build, "locked", closed)
    check(keep(tmp_path, never))


def _slow(root, name):
    work = Numbers()
    inner = work.read

    def read(items):
        time.sleep(0.05)
        return inner(items)

    work.read = read
    check(keep(Path(root), work, rebuild=name == "rebuild"))
    Path(root, f"{os.getpid()}.json").write_text(json.dumps(len(work.made)))


@pytest.mark.parametrize("name", ["build", "rebuild"])
def test_two_builders_at_once_make_them_once(tmp_path, name):
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_slow, args=(str(tmp_path), name)) for _ in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(60)
    assert [each.exitcode for each in workers] == [0, 0]
    assert sorted(json.loads(path.read_text()) for path in tmp_path.glob("*.json")) == [0, 13]


def test_what_is_open_stays_readable_while_it_is_made_anew(tmp_path):
    first = keep(tmp_path)
    keep(tmp_path, rebuild=True)
    check(first)
    assert open_features(spec().folder(tmp_path), spec()).taps == TAPS
