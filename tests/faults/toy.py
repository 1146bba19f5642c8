"""A small run for tests: a method, its batches and a meter, put together as `run` does, and ways to break it.

As a script it reads a list of scenarios from stdin and runs each in a forked child, so that many crashes cost
one import of torch: `[{"folder": ..., "settings": {...}, "fault": {...}}, ...]`; prints the exit codes.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
from effrec_kernels import sampled_cross_entropy
from torch import nn

from effrec_cli.data.batches import Batch
from effrec_cli.distributed import World
from effrec_cli.engine import Engine
from effrec_cli.errors import EffrecError
from effrec_cli.methods.base import Method
from effrec_cli.report.progress import Progress
from effrec_cli.runfolder import RunFolder
from effrec_cli.schema import Config
from effrec_cli.tensorfile import write_tensors

FEATURES = 6


class ToyBatches:
    """Samples with 0 to 3 valid targets each, in an order drawn for each epoch."""

    def __init__(self, num_samples=22, batch_size=6, seed=0):
        rng = np.random.default_rng(seed)
        self.x = torch.from_numpy(rng.normal(size=(num_samples, FEATURES)).astype(np.float32))
        self.y = torch.from_numpy(rng.normal(size=(num_samples, 3)).astype(np.float32))
        self.valid = torch.from_numpy(np.arange(3) < rng.integers(0, 4, size=(num_samples, 1)))
        self.num_samples, self.batch_size, self.seed = num_samples, batch_size, seed
        self.steps_per_epoch = -(-num_samples // batch_size)

    def batch(self, epoch, position, share, step):
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
        part = np.array_split(chosen, share.ranks * share.micros)[share.micro * share.ranks + share.rank]
        rows = torch.from_numpy(part)
        tensors = {"rows": rows, "x": self.x[rows], "y": self.y[rows], "valid": self.valid[rows]}
        total = int(self.valid[torch.from_numpy(chosen)].sum())
        return Batch(tensors, len(part), max(1, total), step)


class ToyMethod(Method):
    """A network with dropout, layer norm and a parameter that is never used."""

    dropout = 0.2

    def build(self, data=None):
        torch.manual_seed(self.config.seed)
        self.model = nn.Sequential(
            nn.Linear(FEATURES, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(self.dropout), nn.Linear(16, 3)
        )
        self.model.register_parameter("unused", nn.Parameter(torch.ones(2)))
        self.model.register_buffer("twice", self.model[0].weight)  # one tensor under two names
        return self.model

    def loss(self, batch):
        wrong = (self.model(batch.tensors["x"]).float() - batch.tensors["y"]) ** 2
        return (wrong * batch.tensors["valid"]).sum() / batch.total_targets

    def score(self):
        """Returns a validation metric that rises with training: minus the error on all samples."""
        data = ToyBatches()
        wrong = (self.model(data.x.to(next(self.model.parameters()).device)).cpu() - data.y) ** 2
        return {"ndcg@10": -float(wrong.mean()), "hr@10": 0.5}


class RowsMethod(ToyMethod):
    """A tied table whose gradients, of look-up and head, are rows."""

    sparse = True
    items = 50

    def build(self, data=None):
        torch.manual_seed(self.config.seed)
        self.model = nn.ModuleDict(
            {"table": nn.Embedding(self.items, 8, sparse=self.sparse), "layer": nn.Linear(8, 8)}
        )
        return self.model

    def row_sparse(self, model):
        return {model["table"].weight: 20} if self.sparse else {}

    def loss(self, batch):
        table, rows = self.model["table"], batch.tensors["rows"]
        hidden = self.model["layer"](table(rows % 7))
        options = {"num_negatives": 5, "sharing": "batch", "step": batch.step, "sparse": self.sparse}
        return sampled_cross_entropy(hidden, table.weight, rows, normalizer=batch.total_targets, **options)

    def score(self):
        return {"ndcg@10": -float(self.model["table"].weight.abs().mean()), "hr@10": 0.5}


class ToyMeter:
    """Counts calls; what it has counted survives in its state."""

    def __init__(self):
        self.counts = {}

    def _count(self, name):
        self.counts[name] = self.counts.get(name, 0) + 1

    def start(self):
        self._count("start")

    def stop(self):
        self._count("stop")

    def epoch_started(self):
        self._count("epoch_started")

    def epoch_ended(self):
        self._count("epoch_ended")

    @contextlib.contextmanager
    def validating(self):
        yield

    def validated(self, score):
        self._count("validated")

    def lose(self, seconds):
        self.lost_s = seconds

    def state(self):
        return dict(self.counts)

    def load(self, state):
        self.counts = dict(state)


def make_config(**settings):
    """Returns settings; `run.x=...` is written as `run__x`."""
    config = Config()
    config.run.max_epochs = 3
    config.run.device = "cpu"
    config.run.log_every = 3
    config.optimizer.lr = 0.01
    for key, value in settings.items():
        target, _, name = key.rpartition("__")
        setattr(getattr(config, target) if target else config, name, value)
    return config


def make_engine(path, config, *, world=None, method=None, batches=None, optimizers=None, validate=None):
    """Returns an engine over an opened folder, resumed where there is something to resume."""
    world = world or World()
    folder = path if isinstance(path, RunFolder) else RunFolder(path)
    if world.is_main and folder is not path:
        folder.open(resume="auto")
    method = method or ToyMethod(config)
    if not hasattr(method, "model"):
        method.build()
    batches = batches or ToyBatches()
    engine = Engine(
        method,
        batches,
        optimizers if optimizers is not None else method.optimizers(method.model),
        config,
        folder,
        world,
        ToyMeter(),
        validate or method.score,
        Progress(0, enabled=False),
    )
    try:
        engine.resume_latest()
    except EffrecError:
        folder.close()
        raise
    return engine


def run(path, fault=None, world=None, method=None, **settings):
    """Does what `effrec_cli.run` does with a method; returns the engine, or None for a finished run."""
    world = world or World()
    folder = RunFolder(path)
    if world.is_main and folder.open(resume="auto").finished:
        return None
    engine = make_engine(folder, make_config(**settings), world=world, method=method)
    with breaking(engine, fault or {}), folder.recording() if world.is_main else contextlib.nullcontext():
        engine.method.fit(engine)
        engine.restore_best()
        if world.is_main:  # ranks that write one file at once take each other's draft away
            write_tensors(folder.model_path, engine.method.state_dict())
            folder.write_json("result.json", {"best": engine.best_metrics, "stopped": engine.stopped})
    folder.close()
    return engine


@contextlib.contextmanager
def breaking(engine, fault):
    """Sends a signal at a chosen moment: `{"signal": "SIGKILL", "at": "fsync", "count": 3}`.

    Moments are calls of os.fsync, os.replace, os.ftruncate, training steps, validations, and saves (before).
    """
    if not fault:
        yield
        return
    seen = 0

    def then_break(original, after=False):
        def wrapped(*args, **kwargs):
            nonlocal seen
            seen += 1
            if seen == fault["count"] and not after:
                os.kill(os.getpid(), getattr(signal, fault["signal"]))
            result = original(*args, **kwargs)
            if seen == fault["count"] and after:
                os.kill(os.getpid(), getattr(signal, fault["signal"]))
            return result

        return wrapped

    owner, name = {
        "fsync": (os, "fsync"),
        "replace": (os, "replace"),
        "step": (engine.method, "training_step"),
        "update": (engine, "step"),
        "validate": (engine, "validate"),
        "record": (engine.folder, "append_metrics"),
    }[fault["at"]]
    original = getattr(owner, name)
    setattr(owner, name, then_break(original, fault.get("after", False)))
    try:
        yield
    finally:
        setattr(owner, name, original)


def exit_code(scenario):
    """Runs one scenario in a forked child; returns its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run(Path(scenario["folder"]), scenario.get("fault"), **scenario.get("settings", {}))
            code = 0
        except EffrecError as error:
            code = error.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    torch.optim.Adam(ToyMethod(make_config()).build().parameters())  # imports a lot, once
    print(json.dumps([exit_code(scenario) for scenario in json.load(sys.stdin)]))
