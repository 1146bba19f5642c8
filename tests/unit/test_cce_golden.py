"""The first losses of every loss on a tiny problem, as they were when last looked at.

A change that should not alter results leaves them as they are. One that should comes with new ones, written
by `python tests/unit/test_cce_golden.py`, and with its reason.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from effrec_cli.data.batches import Share
from effrec_cli.data.types import Catalogue, EvalCases, RecData, Sequences
from effrec_cli.methods.cce import CCE
from effrec_cli.optim import learning_rate
from effrec_cli.schema import Config, OptimizerConfig
from effrec_cli.schema.method_cce import LOSSES, CCEConfig
from effrec_cli.schema.model_sasrec import SASRecConfig

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "cce_losses.json"
STEPS = 20
NUM_USERS, NUM_ITEMS = 24, 60


def tiny():
    """Returns histories of 3 to 26 items that walk over the catalogue in strides; nothing is drawn."""
    lengths = 3 + np.arange(NUM_USERS)
    walks = [(user * 7 + np.arange(n) * (1 + user % 5)) % NUM_ITEMS for user, n in enumerate(lengths)]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    none = np.zeros(0, dtype=np.int64)
    cases = EvalCases(none.astype(np.int32), none, none, none, none)
    sequences = Sequences(offsets, np.concatenate(walks).astype(np.int32))
    users, items = Catalogue(np.arange(NUM_USERS)), Catalogue(np.arange(NUM_ITEMS))
    return RecData("tiny", "0" * 12, sequences, offsets[1:], cases, cases, users, items)


def first_losses(loss):
    """Returns the losses of the first steps, float, trained by the defaults of everything not named here."""
    optimizer_config = OptimizerConfig(lr=0.01, schedule="cosine", warmup_steps=5)
    config = Config(
        model=SASRecConfig(dim=16, max_length=10, dropout=0.0),
        method=CCEConfig(loss=loss, num_negatives=7, batch_size=8),
        optimizer=optimizer_config,
        seed=3,
    )
    method = CCE(config)
    data = method.prepare(tiny())
    model = method.build(data)
    batches = method.batches(data)
    (optimizer,) = method.optimizers(model)
    losses = []
    for step in range(STEPS):
        epoch, position = divmod(step, batches.steps_per_epoch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, STEPS, optimizer_config)
        optimizer.zero_grad()
        value = method.loss(batches.batch(epoch, position, Share(), step))
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


@pytest.mark.parametrize("loss", LOSSES)
def test_first_losses_are_the_golden_ones(loss):
    golden = json.loads(GOLDEN.read_text())[loss]
    assert first_losses(loss) == pytest.approx(golden, rel=2e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_training_twice_gives_the_same_bits(loss):
    assert first_losses(loss) == first_losses(loss)


def test_golden_losses_tell_of_learning():
    for losses in json.loads(GOLDEN.read_text()).values():
        assert len(losses) == STEPS
        assert losses[-1] < losses[0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.write_text(json.dumps({loss: first_losses(loss) for loss in LOSSES}, indent=1) + "\n")
    print(f"wrote {GOLDEN}")
