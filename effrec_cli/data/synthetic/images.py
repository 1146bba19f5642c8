"""Item images: a coarse pattern of the cluster, the item's own variation, and brightness by quality."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from effrec_cli.data.synthetic.content import ITEM_BLOCK, block_range, gather
from effrec_cli.data.synthetic.draws import Purpose, generator, normal
from effrec_cli.data.synthetic.world import World

GRID = 4
"""Cells a side of the coarse pattern."""


def images(world: World, items: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns the items' images, uint8 [n, size, size, 3]; many of them lie in a file, not in memory."""
    size = world.config.image_size
    rng = generator(world.config.seed, Purpose.PROTOTYPES)
    prototypes = normal(rng, world.num_clusters, GRID, GRID, 3)
    cell = np.arange(size) * GRID // size

    def paint(block: int) -> NDArray[np.uint8]:
        chosen = block_range(block, ITEM_BLOCK, world.num_items)
        rng = generator(world.config.seed, Purpose.IMAGES, block)
        canvas = 128 + 44 * prototypes[world.clusters(chosen)] + 24 * normal(rng, len(chosen), GRID, GRID, 3)
        canvas += 12 * world.quality[chosen][:, None, None, None]
        grain = 16 * (rng.random((len(chosen), size, size, 1), dtype=np.float32) - 0.5)
        return (canvas[:, cell][:, :, cell] + grain).clip(0, 255).astype(np.uint8)

    return gather(items, ITEM_BLOCK, paint, (size, size, 3), np.uint8)
