"""From raw files to batches: sources, preparation, split, the simulator."""
