"""One file a method: what its paper changes, nothing else."""
