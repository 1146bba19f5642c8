"""Frozen text and vision backbones, and what trains them in other ways than a side network does."""
