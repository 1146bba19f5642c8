"""What a loss costs a device: bytes moved and operations made, and the time they take at its best rates.

The counts are those of the kernels (a test counts what they load, store and add); the rates are a device's
own. From both follow the roofline that a measured time is compared with, and which loss is cheaper.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT32_BYTES = 4
# Negatives for which the kernels of shared sets read a group's rows once in backward.
BLOCK_NEGATIVES = 32


@dataclass(frozen=True)
class Logits:
    """A number for each way that logits are made.

    Attributes:
        full: of all items, by matrix products.
        row: of a row's own negatives, gathered.
        shared: of negatives that rows share, by matrix products.
    """

    full: float = 0
    row: float = 0
    shared: float = 0


@dataclass(frozen=True)
class Rates:
    """What a device does at best.

    Attributes:
        gather: bytes a second in reading rows at random.
        add: bytes a second in adding float32 rows at random.
        products: operations a second of matrix products in the dtype of the operands, a multiply-add as two.
        logit_s: seconds that a logit takes besides: drawn, masked, exponentiated. A roofline counts none.
    """

    gather: float
    add: float
    products: float
    logit_s: Logits = Logits()


@dataclass(frozen=True)
class Work:
    """What forward and backward of a loss do.

    Attributes:
        read: bytes of item rows and hidden states read.
        added: bytes of float32 rows added to the gradient by items.
        operations: of matrix products on tensor cores; those of gathered dot products are not counted, since
            they take less time than the reading (papers/cce section 2.5).
        logits: how many.
    """

    read: int
    added: int
    operations: int
    logits: Logits = Logits()

    def seconds(self, rates: Rates) -> float:
        """Returns the time at the device's best rates, where memory and products overlap perfectly.

        A lower bound, where rates count no time for logits besides.
        """
        moved = self.read / rates.gather + self.added / rates.add
        count, each = self.logits, rates.logit_s
        besides = count.full * each.full + count.row * each.row + count.shared * each.shared
        return max(moved, self.operations / rates.products) + besides


def sampled_work(
    rows: int,
    negatives: int,
    dim: int,
    *,
    group_rows: int = 1,
    item_bytes: int = 2,
    hidden_bytes: int = 2,
    block_negatives: int = BLOCK_NEGATIVES,
) -> Work:
    """Returns the work of the sampled softmax, forward and backward, both gradients.

    Forward reads every negative once and mixes it into the gradient by the hidden state; backward reads it
    once more and adds one float32 row for it. Rows and their targets are read twice in forward; backward
    reads rows once where each has its own negatives, else once for every 32 negatives and once more, mostly
    from caches.

    Args:
        rows: M.
        negatives: N.
        dim: D.
        group_rows: rows that share their negatives: they are read and added once for all.
        item_bytes: of a value of the item table.
        hidden_bytes: of a value of a hidden state.
        block_negatives: negatives for which a group's rows are read once in backward.
    """
    pairs, sets = rows * negatives, -(-rows // group_rows) * negatives
    hidden_reads = 2 + (1 if group_rows == 1 else 1 + -(-negatives // block_negatives))
    read = (2 * sets + 2 * rows) * dim * item_bytes + hidden_reads * rows * dim * hidden_bytes
    added = (sets + rows) * dim * FLOAT32_BYTES
    # Logits twice, and one product for each gradient.
    operations = 8 * pairs * dim if group_rows > 1 else 0
    return Work(read, added, operations, Logits(shared=pairs) if group_rows > 1 else Logits(row=pairs))


def full_work(rows: int, items: int, dim: int, *, item_bytes: int = 2) -> Work:
    """Returns the work of the softmax over all items by matrix products, logits made once."""
    read, added = 2 * items * dim * item_bytes, items * dim * FLOAT32_BYTES
    return Work(read, added, 6 * rows * items * dim, Logits(full=rows * items))


def break_even_negatives(
    rows: int, items: int, dim: int, rates: Rates, *, group_rows: int = 1, item_bytes: int = 2
) -> int:
    """Returns the largest N, up to V, at which sampling is still cheaper than the full softmax; 0 if none is.

    With independent negatives on an H100-like device that is about V / 130 in forward (papers/cce section
    2.5): a gathered row brings one operation a byte, a matrix product hundreds.
    """
    full = full_work(rows, items, dim, item_bytes=item_bytes).seconds(rates)
    sizes = {"group_rows": group_rows, "item_bytes": item_bytes, "hidden_bytes": item_bytes}
    low, high = 0, items
    while low < high:
        middle = (low + high + 1) // 2
        if sampled_work(rows, middle, dim, **sizes).seconds(rates) < full:
            low = middle
        else:
            high = middle - 1
    return low
