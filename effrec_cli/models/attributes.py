"""What is known of users or items as input of a network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

COLUMNS = ("dense", "categories", "cardinalities", "flags", "texts")


class AttributeTable(nn.Module):
    """The attributes of n users or items, kept with the weights so that a saved model needs nothing else.

    Row -1 says nothing: zeros, and of categories the one for what is not known.

    Args:
        dense: float32 [n, F].
        categories: int32 [n, C], each value of column c below `cardinalities[c]`, 0 where it is not known.
        cardinalities: int64 [C].
        flags: uint8 [n, G], any of them set.
        texts: float32 [n, D].
        closed: whether the row of nothing stands at the end already, as in a saved model.
    """

    dense: Tensor
    categories: Tensor
    cardinalities: Tensor
    flags: Tensor
    texts: Tensor

    def __init__(
        self,
        dense: Tensor,
        categories: Tensor,
        cardinalities: Tensor,
        flags: Tensor,
        texts: Tensor,
        *,
        closed: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("cardinalities", cardinalities)
        for name, table in (("dense", dense), ("categories", categories), ("flags", flags), ("texts", texts)):
            self.register_buffer(name, table if closed else _with_nothing(table))

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], prefix: str) -> AttributeTable:
        """Returns the table whose buffers stand in a model's state under `prefix`."""
        return cls(*(state[f"{prefix}{name}"] for name in COLUMNS), closed=True)

    @classmethod
    def nothing(cls, rows: int) -> AttributeTable:
        """Returns a table of so many rows that says nothing of any."""
        floats, whole = torch.zeros(rows, 0), torch.zeros(rows, 0, dtype=torch.int32)
        sizes = torch.zeros(0, dtype=torch.int64, device="cpu")  # read also where tables are but sized
        return cls(floats, whole, sizes, whole.to(torch.uint8), floats.clone())

    @property
    def sizes(self) -> list[int]:
        """How many values each category has."""
        return [int(size) for size in self.cardinalities.tolist()]

    @property
    def widths(self) -> tuple[int, int, int]:
        """Columns of `dense`, `flags` and `texts`."""
        return self.dense.shape[1], self.flags.shape[1], self.texts.shape[1]


class Joined(nn.Module):
    """Attributes side by side, with a learned vector for each value of a category.

    Args:
        table: the attributes.
        category_dim: width of these vectors; less where a category has fewer values.

    Attributes:
        width: of what `forward` gives.
    """

    def __init__(self, table: AttributeTable, category_dim: int) -> None:
        super().__init__()
        self.table = table
        sizes = [(size, min(category_dim, size)) for size in table.sizes]
        self.embeddings = nn.ModuleList([nn.Embedding(*each) for each in sizes])
        self.width = sum(table.widths) + sum(dim for _, dim in sizes)

    def forward(self, rows: Tensor) -> Tensor:
        """Returns float32 [..., width] for rows int64 [...], -1 for who is not known."""
        table = self.table
        categories = table.categories[rows].long()
        read = [embed(categories[..., at]) for at, embed in enumerate(self.embeddings)]
        return torch.cat([table.dense[rows], table.flags[rows].float(), table.texts[rows], *read], -1)


def _with_nothing(table: Tensor) -> Tensor:
    """Returns the table with a row of zeros behind it."""
    return torch.cat([table, table.new_zeros(1, table.shape[1])])
