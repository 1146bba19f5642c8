"""A small encoder, a small task and an engine without a loop, all in float64, to see gradients exactly."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from effrec_cli.data.batches import PAD_ITEM, Batch, Share
from effrec_cli.data.next_item import part_of
from effrec_cli.distributed import World
from effrec_cli.loop.primitives import Primitives
from effrec_cli.methods.content.chunks import Limits
from effrec_cli.methods.content.encoding import Encoding
from effrec_cli.methods.content.items import ItemBatches
from effrec_cli.methods.content.modes import EndToEnd, Frozen, Parts, PerOccurrence
from effrec_cli.methods.content.multi_step import MultiStep
from effrec_cli.methods.content.rate import EncoderRate
from effrec_cli.methods.content.single_step import SingleStep
from effrec_cli.schema import OptimizerConfig
from effrec_cli.schema.method_gram import GRAMConfig
from effrec_cli.seeds import mix, plant

ITEMS, USERS, LENGTH, DIM, WORDS = 12, 10, 6, 5, 17
MODES = {
    "e2e": PerOccurrence,
    "e2e_dedup": EndToEnd,
    "frozen": Frozen,
    "single_step": SingleStep,
    "multi_step": MultiStep,
}


class ToyEncoder(nn.Module):
    """Tokens through an embedding and two layers; the mean over real ones. Counts its calls."""

    def __init__(self, dropout=0.0, seed=0):
        super().__init__()
        draw = np.random.default_rng(seed)
        self.costs = draw.integers(1, 7, ITEMS).astype(np.int64)
        words = draw.integers(1, WORDS, (ITEMS, 7))
        self.tokens = torch.from_numpy(np.where(np.arange(7) < self.costs[:, None], words, 0))
        self.dim = DIM
        self.words = nn.Embedding(WORDS, 8)
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, DIM))
        self.calls = []

    def forward(self, items, width):
        self.calls.append((items.tolist(), torch.is_grad_enabled()))
        tokens = self.tokens[items][:, :width]
        real = (tokens > 0).unsqueeze(-1)
        states = self.layers(self.words(tokens)) * real
        return states.sum(1) / real.sum(1)


class ToyFilter(nn.Module):
    """A recurrent filter whose output is tied to the vectors it reads."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.reads = nn.GRU(DIM, DIM, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, vectors, items):
        own = vectors[items]
        before = torch.nn.functional.pad(own, (0, 0, 1, 0))[:, :-1]
        return (self.dropout(self.reads(before)[0]) * own).sum(-1)


class ToyBatches:
    """Histories in which an item may occur never, once, often, and twice in one user."""

    def __init__(self, batch_size=4, seed=1):
        draw = np.random.default_rng(seed)
        self.lengths = draw.integers(0, LENGTH + 1, USERS)
        self.lengths[:2] = [LENGTH, 0]
        inside = np.arange(LENGTH) < self.lengths[:, None]
        self.items = np.where(inside, draw.integers(0, ITEMS - 2, (USERS, LENGTH)), PAD_ITEM)
        self.items[0, :2] = 3
        self.labels = draw.integers(0, 2, (USERS, LENGTH)).astype(np.float64)
        self.batch_size, self.num_samples = batch_size, USERS
        self.steps_per_epoch = -(-USERS // batch_size)

    def batch(self, epoch, position, share, step):
        order = np.random.default_rng([7, epoch]).permutation(USERS)
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
        low, high = part_of(len(chosen), share)
        own = chosen[low:high]
        tensors = {
            "items": torch.from_numpy(self.items[own]),
            "labels": torch.from_numpy(self.labels[own]),
            "lengths": torch.from_numpy(self.lengths[own]),
        }
        return Batch(tensors, len(own), max(1, int(self.lengths[chosen].sum())), step)


class ToyTask:
    """Tells a label of each place; implements `ContentTask` as far as modes look."""

    name = "toy"
    num_items = ITEMS
    item_tensors = ("items",)

    def __init__(self, batches=None):
        self.data = batches or ToyBatches()
        real = self.data.items[self.data.items != PAD_ITEM]
        self.train_counts = np.bincount(real, minlength=ITEMS)

    def batches(self):
        return self.data

    def loss(self, filter, vectors, batch):
        logits = filter(vectors, batch.tensors["items"])
        real = torch.arange(LENGTH) < batch.tensors["lengths"][:, None]
        wrong = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, batch.tensors["labels"].to(logits), reduction="none"
        )
        return (wrong * real).sum() / batch.total_targets


class ToyEngine(Primitives):
    """The primitives, and what a mode reads of the engine."""

    def __init__(self, optimizers, batches, total_steps, clip_norm=None, accumulate=1, seed=5):
        super().__init__(optimizers, World(), "fp32", clip_norm)
        self.batches, self.total_steps = batches, total_steps
        self.steps_per_epoch = batches.steps_per_epoch
        self.config = SimpleNamespace(run=SimpleNamespace(accumulate=accumulate), seed=seed)
        self.notes = []

    def note(self, kind, values):
        self.notes.append((kind, values))


class Setup:
    """Encoder, filter, mode and engine, ready to step; keywords are settings of method gram.

    Attributes:
        gradients: of each update, by the parameter's name, before it was made.
    """

    def __init__(
        self,
        mode,
        *,
        lr=1e-2,
        optimizer=torch.optim.Adam,
        total_steps=10**6,
        tokens=9,
        clip_norm=None,
        dropout=0.0,
        filter_dropout=0.0,
        world=None,
        batches=None,
        dtype=torch.float64,
        schedule="constant",
        **settings,
    ):
        torch.manual_seed(0)
        self.encoder = ToyEncoder(dropout).to(dtype)
        self.filter = ToyFilter(filter_dropout).to(dtype)
        self.task = ToyTask(batches)
        self.settings = GRAMConfig(mode=mode, **settings)
        warmup = 4 if schedule == "noam" else 0
        rate = EncoderRate(OptimizerConfig(lr=lr, schedule=schedule, warmup_steps=warmup), lr, warmup)
        self.encoding = Encoding(self.encoder, Limits(tokens), world or World())
        self.mode = MODES[mode](Parts(self.encoding, self.filter, self.task, rate, self.settings, 5))
        kind = MODES[mode]
        together = kind.together and self.encoding.world.size > 1
        self.batches = ItemBatches(self.task.batches(), ("items",), unique=kind.unique, together=together)
        self.optimizers = [
            optimizer(self.filter.parameters(), lr=lr),
            optimizer(self.encoder.parameters(), lr=lr),
        ]
        rate.optimizer = self.optimizers[1]
        self.engine = ToyEngine(self.optimizers, self.batches, total_steps, clip_norm)
        self.engine.world = self.encoding.world
        self.gradients = []
        self._spy()
        self.mode.begin(self.engine)

    def _spy(self):
        check = self.engine.check

        def watched(norm):
            self.gradients.append(self.current())
            check(norm)

        self.engine.check = watched

    def named(self):
        for part, module in (("encoder", self.encoder), ("filter", self.filter)):
            for name, parameter in module.named_parameters():
                yield f"{part}.{name}", parameter

    def current(self):
        """Returns the gradients that are there."""
        return {name: p.grad.clone() for name, p in self.named() if p.grad is not None}

    def weights(self):
        return {name: p.detach().clone() for name, p in self.named()}

    def step(self, number=None, micros=1):
        """Runs one step; the number counts on by itself."""
        number = self.engine.steps if number is None else number
        epoch, position = divmod(number, self.engine.steps_per_epoch)
        world = self.encoding.world
        loss = 0.0
        for micro in range(micros):
            plant(mix(5, number, world.rank, micro), torch.device("cpu"))
            self.engine.last_micro_batch = micro == micros - 1
            share = Share(world.rank, world.size, micro, micros)
            loss += float(
                self.mode.step(self.batches.batch(epoch, position, share, number), self.engine)["loss"]
            )
        self.engine.steps = number + 1
        return loss

    def steps(self, count):
        return [self.step() for _ in range(count)]


def flat(gradients, part=""):
    """Returns the gradients of a part of the model as one vector."""
    return torch.cat([g.flatten() for name, g in sorted(gradients.items()) if name.startswith(part)])


def distance(found, true):
    """Returns the relative L2 distance of two dicts of tensors."""
    return float((flat(found) - flat(true)).norm() / flat(true).norm())
