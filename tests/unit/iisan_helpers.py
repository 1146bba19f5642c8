"""Method iisan over a small world, built and stepped without the front door."""

from pathlib import Path

import torch
from content_helpers import ToyEngine
from data_helpers import quiet

from effrec_cli import compose
from effrec_cli.data.batches import Share
from effrec_cli.data.load import load
from effrec_cli.distributed import World
from effrec_cli.methods.iisan import IISAN
from effrec_cli.seeds import mix, plant

MODES = ("iisan", "fft", "adapter", "lora", "bitfit", "frozen")
WORLD = [
    "dataset.num_users=60",
    "dataset.num_items=40",
    "dataset.interactions_per_user=12",
    "dataset.side=[text,images]",
]
BACKBONES = [
    f"method.{name}.{key}={value}"
    for name in ("text", "image")
    for key, value in (("dim", 8), ("num_layers", 3), ("num_heads", 2))
]
MODEL = ["model.num_layers=1", "model.num_heads=2", "model.max_length=8", "model.dropout=0.0"]
SMALL = ["method=iisan", *BACKBONES, *MODEL, "method.dim=8", "method.batch_size=16", "run.device=cpu"]
LIVE = ["method.cache.use=false"]
DRY = ["method.text.dropout=0.0", "method.image.dropout=0.0"]


def config_of(root, *words, mode="iisan"):
    """Returns the settings of a small run in a mode."""
    return compose.compose([*SMALL, *WORLD, f"method.mode={mode}", f"data_root={root}", *words])


def built(root, *words, mode="iisan", world=None, dtype=torch.float32):
    """Returns the method with its model, as a run makes it; data and caches are kept under `root`."""
    method = IISAN(config_of(root, *words, mode=mode), world or World())
    method.say = quiet
    data = load(method.config.dataset, Path(root), quiet)
    method.data = method.prepare(data)
    method.model = method.build(method.data).to(dtype)
    return method


class Course:
    """The steps of a method.

    Attributes:
        batches: what it is fed.
        engine: the primitives.
        gradients: of each update, by the parameter's name.
    """

    def __init__(self, method):
        self.method, self.config = method, method.config
        self.batches = method.batches(method.data)
        self.engine = ToyEngine(method.optimizers(method.model), self.batches, 10**6)
        self.engine.world = method.world
        self.gradients = []
        self._spy()
        method.settle_memory(self.batches)
        method.mode.begin(self.engine)
        method.model.train()

    def _spy(self):
        check = self.engine.check

        def watched(norm):
            named = self.method.model.named_parameters()
            self.gradients.append({name: each.grad.clone() for name, each in named if each.grad is not None})
            check(norm)

        self.engine.check = watched

    def step(self, number=0, micros=1):
        """Runs one step; returns the sum of its micro-batches' losses."""
        world, loss = self.method.world, 0.0
        for micro in range(micros):
            plant(mix(5, number, world.rank, micro), torch.device("cpu"))
            self.engine.last_micro_batch = micro == micros - 1
            batch = self.batches.batch(0, number, Share(world.rank, world.size, micro, micros), number)
            loss += float(self.method.training_step(batch, self.engine)["loss"])
        self.engine.steps = number + 1
        return loss

    def weights(self):
        """Returns all parameters as they are now."""
        return {name: each.detach().clone() for name, each in self.method.model.named_parameters()}


def whole_batch(method, number=0):
    """Returns the whole batch of a step of the first epoch."""
    return method.batches(method.data).batch(0, number, Share(), number)


def backbones(method):
    """Returns the networks below a method's encoder that stand still."""
    source = method.encoder.source
    return [part.reader.network for part in (source.text, source.image)]


def relative(found, true):
    """Returns the relative L2 distance of two tensors."""
    return float((found - true).norm() / true.norm())
