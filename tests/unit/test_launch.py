"""Who joins whom, and which of many errors is told."""

import os

import pytest
import torch

from effrec_cli import distributed, launch
from effrec_cli.distributed import World, is_one_of_many, join
from effrec_cli.env import usable_cores
from effrec_cli.errors import ConfigError, EffrecError, EnvironmentFault, Interrupted, NonFiniteError
from effrec_cli.parent import LAUNCHER

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in [*NAMES, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.delenv(name, raising=False)


def test_a_process_alone_joins_nobody():
    assert not is_one_of_many()
    world = join("cpu")
    assert (world.rank, world.size, world.device, world.is_main) == (0, 1, torch.device("cpu"), True)


def test_a_world_of_one_answers_by_itself():
    world, tensor = World(), torch.ones(2)
    world.sum_([tensor])
    world.spread_([tensor])
    world.wait()
    world.leave()
    assert tensor.tolist() == [1.0, 1.0]
    assert world.agree([True, False]) == [True, False]
    assert world.union({"b": 0, "a": 0}) == ["a", "b"]
    assert world.from_main({"x": 1}) == {"x": 1}


def test_torchruns_variables_are_taken(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "1")
    assert distributed._rank_variables() == dict.fromkeys(NAMES, "1")


def slurm(monkeypatch, **variables):
    standard = {
        "SLURM_JOB_ID": "41234",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NODELIST": "gpu[07-08],gpu12",
    }
    for name, value in {**standard, **variables}.items():
        monkeypatch.setenv(name, value)


def test_slurms_variables_are_translated(monkeypatch):
    slurm(monkeypatch)
    monkeypatch.setenv("PATH", "")  # no scontrol
    found = distributed._rank_variables()
    assert found == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": str(20000 + 41234 % 20000),
    }


def test_a_batch_script_or_a_single_task_is_no_rank(monkeypatch):
    slurm(monkeypatch, SLURM_STEP_NUM_TASKS="1", SLURM_NTASKS="4")
    assert not is_one_of_many()
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    assert not is_one_of_many(), "SLURM_NTASKS is set in a batch script, too"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("a[3-5,9]", "a3"),
        ("a[003,9],b", "a003"),
        ("x-1", "x-1"),
    ],
)
def test_the_first_host_is_read_without_scontrol(monkeypatch, nodes, first):
    monkeypatch.setenv("PATH", "")
    assert distributed._first_host(nodes) == first


def test_a_port_nobody_answers_on_is_an_environment_fault(monkeypatch):
    for name, value in zip(NAMES, ("1", "2", "1", "no.such.host.invalid", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "TIMEOUT", distributed.timedelta(seconds=1))
    with pytest.raises(EnvironmentFault, match="cannot reach each other"):
        join("cpu")


def test_buckets_hold_every_tensor_once_and_one_dtype_each(monkeypatch):
    monkeypatch.setattr(distributed, "BUCKET_BYTES", 40)
    tensors = [torch.ones(n, dtype=d) for n in (3, 100, 5, 5, 1) for d in (torch.float32, torch.bfloat16)]
    buckets = list(distributed._buckets(tensors))
    assert sorted(id(t) for bucket in buckets for t in bucket) == sorted(map(id, tensors))
    for bucket in buckets:
        assert len({tensor.dtype for tensor in bucket}) == 1
        assert len(bucket) == 1 or sum(tensor.nbytes for tensor in bucket) <= 40


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_more_ranks_than_gpus_are_refused(tmp_path, monkeypatch):
    with pytest.raises(EnvironmentFault, match="no CUDA device"):
        launch.launch(tmp_path, 2, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(EnvironmentFault) as caught:
        launch.launch(tmp_path, 2, "cuda")
    assert "run.devices=1" in caught.value.fix


@pytest.mark.parametrize(("cores", "most"), [(1, 4), (2, 4), (3, 6), (16, 32)])
def test_more_ranks_than_a_cpu_carries_are_refused(tmp_path, monkeypatch, cores, most):
    monkeypatch.setattr(launch, "usable_cores", lambda: cores)
    with pytest.raises(ConfigError) as caught:
        launch.launch(tmp_path, most + 1, "cpu")
    assert f"{most} ranks at most" in caught.value.what
    assert (caught.value.where, caught.value.exit_code) == (f"run.devices={most + 1}", 2)
    launch._refuse_too_many(most, "cpu")
    assert not list(tmp_path.iterdir())


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 6}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


# Which error is told.


def leave(folder, monkeypatch, errors):
    monkeypatch.setenv(launch.REPORTS, str(folder))
    for rank, error in errors.items():
        launch.report(error, rank)
        path = folder / f"rank-{rank}.json"
        os.utime(path, ns=(path.stat().st_atime_ns, 1000 + rank))


CUT_OFF = RuntimeError("[.../gloo/transport/tcp/pair.cc:553] Connection closed by peer")


@pytest.mark.parametrize(
    ("errors", "codes", "kind", "words"),
    [
        ({0: CUT_OFF, 1: NonFiniteError("nan")}, {0: 1, 1: 5}, NonFiniteError, "nan"),
        ({0: Interrupted("stop"), 1: ConfigError("bad", fix="x=1")}, {0: 143, 1: 2}, ConfigError, "bad"),
        ({0: Interrupted("stop"), 1: ValueError("cut")}, {0: 143, 1: 1}, Interrupted, "stop"),
        ({0: ValueError("bug"), 1: CUT_OFF}, {0: 1, 1: 1}, EffrecError, "ValueError on rank 0: bug"),
        ({0: NonFiniteError("first"), 1: NonFiniteError("second")}, {0: 5, 1: 5}, NonFiniteError, "first"),
        ({0: CUT_OFF}, {0: 1, 1: -9}, EnvironmentFault, "Rank 1 was killed by signal 9"),
        ({}, {0: -15, 1: -11}, EnvironmentFault, "Rank 1 was killed by signal 11"),
        ({}, {0: -15, 1: 7}, EnvironmentFault, "Rank 1 ended with code 7"),
        ({0: CUT_OFF, 1: CUT_OFF}, {0: 1, 1: 1}, EffrecError, "Connection closed"),
    ],
)
def test_the_cause_is_told_and_not_its_consequences(tmp_path, monkeypatch, errors, codes, kind, words):
    leave(tmp_path, monkeypatch, errors)
    error = launch.first_error(tmp_path, codes)
    assert type(error) is kind
    assert words in error.what


def test_an_error_keeps_all_its_words_and_its_traceback(tmp_path, monkeypatch):
    try:
        raise ConfigError("what", where="there", nearest="near", fix="do")
    except ConfigError as error:
        leave(tmp_path, monkeypatch, {0: error})
    told = launch.first_error(tmp_path, {0: 2})
    assert (told.what, told.where, told.nearest, told.fix) == ("what", "there", "near", "do")
    assert "test_launch.py" in told.__notes__[0]


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    with launch._environment(2, "/reports"):
        assert os.environ[launch.REPORTS] == "/reports"
        assert os.environ[LAUNCHER] == str(os.getpid())
        assert int(os.environ["OMP_NUM_THREADS"]) >= 1
    assert dict(os.environ) == before
