"""A model with a tied item table, to be trained with the table whole or spread over ranks."""

import torch
from effrec_kernels import sampled_cross_entropy
from torch import nn

TOY_ITEMS, TOY_DIM, TOY_ROWS, STEPS = 50, 8, 24, 12
NEGATIVES = 10


def toy_batch(step):
    """Returns ids and targets [24] of a step; rows without a target are many and unevenly spread."""
    draw = torch.Generator().manual_seed(step)
    ids, targets = torch.randint(TOY_ITEMS, (2, TOY_ROWS), generator=draw)
    targets[: TOY_ROWS // 4] = -100
    return ids, targets


def toy_weights():
    draw = torch.Generator().manual_seed(9)
    table = torch.randn(TOY_ITEMS, TOY_DIM, generator=draw, dtype=torch.float64)
    return table, torch.randn(TOY_DIM, TOY_DIM, generator=draw, dtype=torch.float64) / 3


def train(cut, batch_of, look_up, loss_of, sum_):
    """Returns table (or slice), mixing weights and losses after some steps of Adam.

    Args:
        cut: makes of the whole table what is trained here.
        batch_of: ids and targets here, by step.
        look_up: rows of the table by ids.
        loss_of: the loss over hidden states, table and targets.
        sum_: sums the gradient of the weights that ranks share.
    """
    table, weights = toy_weights()
    table, weights = nn.Parameter(cut(table)), nn.Parameter(weights)
    optimizer = torch.optim.Adam([table, weights], lr=0.03)
    losses = []
    for step in range(STEPS):
        ids, targets = batch_of(step)
        hidden = torch.tanh(look_up(ids, table) @ weights)
        loss = loss_of(hidden, table, targets, num_negatives=NEGATIVES, sharing=8, step=step)
        optimizer.zero_grad()
        loss.backward()
        sum_(weights.grad)
        optimizer.step()
        losses.append(loss.detach())
    return table.detach(), weights.detach(), torch.stack(losses)


class Whole(nn.Module):
    """The same model, its loss computed where FSDP has gathered the table."""

    def __init__(self):
        super().__init__()
        table, weights = toy_weights()
        self.table, self.weights = nn.Parameter(table), nn.Parameter(weights)

    def forward(self, ids, targets, row_offset):
        hidden = torch.tanh(nn.functional.embedding(ids, self.table) @ self.weights)
        return sampled_cross_entropy(
            hidden, self.table, targets, num_negatives=NEGATIVES, row_offset=row_offset, reduction="sum"
        )
